#!/usr/bin/env bash
# What the tree on disk costs and gives, ours beside real etcd: one server at a time on a fresh folder,
# the same client. One table: memory a key, bytes written to disk a put, a restart after kill -9, the
# count of a prefix that all keys have, puts while space is given back.
#
#   benches/disk.sh [--quick] [--etcd BINARY] [--ours BINARY] [--loadgen BINARY]
#                   [--keys 1000000] [--value 256] [--rounds 3] [--seconds 10] [--rate 2000]
#                   [--many 0] [--few 100000] [--folder target/compare]
#
# --quick, first, is 100,000 keys, two rounds, four seconds: two minutes or less, and no figures to report.
# --many 20000000 adds so many keys of 100 B on ours alone, beside --few of them: 6 GB of disk.
#
# memory     of the process, idle and empty, and after the fill: whole, anonymous, of files; and what a
#            memory cgroup says where root can make one, page cache included
# written    /proc/PID/io's write_bytes from an idle server to an idle server, by puts: those that fill
#            it, and a quarter as many again, by lot
# restart    in rounds, A B A B: a fiftieth of the keys put again, kill -9, and the time from exec until
#            a linearizable get is answered; once more with the files dropped from the page cache
# many       gets and puts at the rate, and as fast as 40 streams are answered
# puts       at the rate, first alone for so many seconds, then for as long as a compaction to the
#            newest revision and a defragment take
#
# Everything is said as it is measured. Latencies are in milliseconds.
set -euo pipefail

keys=1000000 value=256 rounds=3 seconds=10 rate=2000 many=0 few=100000
line="$0 $*"
if [[ ${1-} == --quick ]]; then
    shift
    keys=100000 rounds=2 seconds=4
fi
flags=(keys value rounds seconds rate many few)
# shellcheck source=benches/beside.sh
source "$(dirname "${BASH_SOURCE[0]}")/beside.sh"

etcdctl=$(dirname "$etcd")/etcdctl
[[ -x $etcdctl ]] || { echo "$name: there is no $etcdctl" >&2; exit 1; }
# Nobody is to be refused for space here.
server_flags=(--quota-backend-bytes $((64 << 30)))
# The prefix that all keys have: as many digits differ as the largest has.
digits=$((${#keys} - ((10 ** (${#keys} - 1)) == keys)))

# note SIDE WHAT VALUE: one figure, kept and said.
note() {
    echo "$*" >>"$run/results"
    printf '%-6s %-24s %s\n' "$@"
}

per() {
    awk -v all="$1" -v count="$2" 'BEGIN { printf "%.1f", all / count }'
}

since() {
    awk -v from="$1" -v to="$EPOCHREALTIME" 'BEGIN { printf "%.3f", to - from }'
}

ask() {
    "$loadgen" "$@" --endpoint "$endpoint" --quiet
}

# pressed WORK FLAGS..: on a thousand streams.
pressed() {
    ask "$@" --connections 50 --streams 20 --keys "$keys" --value-size "$value" >/dev/null
}

# put_latency SIDE WHEN: what the puts took of which loadgen tells in $run/puts.
put_latency() {
    local p50 p99 max
    read -r p50 p99 max < <(numbers p50_us p99_us max_us <"$run/puts")
    note "$1" "put-p50-$2-ms" "$(per "$p50" 1000)"
    note "$1" "put-p99-$2-ms" "$(per "$p99" 1000)"
    note "$1" "put-max-$2-ms" "$(per "$max" 1000)"
}

# ── the server's process ────────────────────────────────────────────────────────────────────────

written() {
    awk '$1 == "write_bytes:" { print $2 }' "/proc/$server/io"
}

status() {
    awk -v field="$1:" '$1 == field { print $2 * 1024 }' "/proc/$server/status"
}

# Until it has written nothing for two seconds, a minute at most.
settle() {
    local before now
    for _ in {1..30}; do
        before=$(written)
        sleep 2
        now=$(written)
        if ((now == before)); then return; fi
    done
}

# A memory cgroup of its own for the next server, of version 1 or 2, where that can be had.
group=
enter_group() {
    local base
    for base in /sys/fs/cgroup/memory /sys/fs/cgroup; do
        group=$base/ringleader-disk-$$
        if mkdir "$group" 2>/dev/null; then
            if [[ -e $group/memory.usage_in_bytes || -e $group/memory.current ]]; then
                # shellcheck disable=SC2016  # for the shell that becomes the server
                under=(bash -c 'echo $$ >"$0/cgroup.procs" && exec "$@"' "$group")
                return
            fi
            rmdir "$group"
        fi
    done
    group=
}

leave_group() {
    under=()
    if [[ -n $group ]]; then
        rmdir "$group" 2>/dev/null || true
        group=
    fi
}

in_group() {
    [[ -z $group ]] || cat "$group"/memory.usage_in_bytes "$group"/memory.current 2>/dev/null || true
}

killed() {
    kill -9 "$server"
    wait "$server" 2>/dev/null || true
    server=
}
# Puts that go on until they are told to end.
load=
trap '[[ -z $load ]] || kill "$load"; stop; leave_group; rm -rf "$run"' EXIT

# ── what is measured ────────────────────────────────────────────────────────────────────────────

# filled SIDE: puts every key; notes what that wrote and what memory it takes.
filled() {
    local before current
    settle
    note "$1" memory-idle-mib "$(per "$(status VmRSS)" $((1 << 20)))"
    before=$(written)
    pressed fill
    settle
    note "$1" written-fill-bytes "$(per $(($(written) - before)) "$keys")"
    note "$1" memory-bytes-a-key "$(per "$(status VmRSS)" "$keys")"
    note "$1" anonymous-bytes-a-key "$(per "$(status RssAnon)" "$keys")"
    note "$1" of-files-bytes-a-key "$(per "$(status RssFile)" "$keys")"
    current=$(in_group)
    [[ -z $current ]] || note "$1" cgroup-bytes-a-key "$(per "$current" "$keys")"
}

overwritten() {
    local before count=$((keys / 4))
    before=$(written)
    pressed put --ops "$count"
    settle
    note "$1" written-again-bytes "$(per $(($(written) - before)) "$count")"
}

counted() {
    local p50 p99 found
    read -r p50 p99 found < <(ask count --digits "$digits" --keys "$keys" --ops 100 \
        | numbers p50_us p99_us counted)
    if [[ $found != $((100 * keys)) ]]; then
        echo "$name: $1 counts $found keys in a hundred counts of $keys" >&2
        exit 1
    fi
    note "$1" count-p50-ms "$(awk -v us="$p50" 'BEGIN { printf "%.3f", us / 1000 }')"
}

# Compaction to the newest revision, and a defragment, waited for.
reclaim() {
    local newest
    newest=$("$etcdctl" --endpoints "$endpoint" endpoint status -w json | numbers revision)
    "$etcdctl" --endpoints "$endpoint" --command-timeout 5m compaction --physical "$newest" >/dev/null
    "$etcdctl" --endpoints "$endpoint" --command-timeout 5m defrag >/dev/null
}

# reclaimed SIDE: puts alone, and puts for as long as space is given back.
reclaimed() {
    local begun
    local puts=(put --rate "$rate" --keys "$keys" --value-size "$value" --endpoint "$endpoint" --quiet)
    "$loadgen" "${puts[@]}" --seconds "$seconds" >"$run/puts"
    put_latency "$1" alone
    "$loadgen" "${puts[@]}" --seconds 3600 >"$run/puts" 2>"$run/interrupted" &
    load=$!
    sleep 0.2
    begun=$EPOCHREALTIME
    reclaim
    note "$1" reclaim-s "$(since "$begun")"
    # It says what there is, and that it was cut short.
    kill -INT "$load"
    wait "$load" || true
    load=
    put_latency "$1" reclaiming
    note "$1" folder-bytes-a-key "$(per "$(du -sB1 "$data" | cut -f1)" "$keys")"
}

# get: one key, linearizably; fails until the server answers.
get() {
    ask range --ops 1 --keys "$keys" --value-size "$value" >/dev/null 2>&1
}

# opened SIDE BINARY WHAT: how long after exec a linearizable get is answered.
opened() {
    local begun=$EPOCHREALTIME
    launch "$1" "$2"
    until get; do
        kill -0 "$server" || { tail -20 "$run/$1.log" >&2; exit 1; }
        sleep 0.005
    done
    note "$1" "$3" "$(since "$begun")"
}

restarted() {
    data=$run/data.$1
    launch "$1" "$2"
    until get; do sleep 0.1; done
    pressed put --ops $((keys / 50))
    killed
    opened "$1" "$2" restart-s
    killed
}

restarted_cold() {
    data=$run/data.$1
    sync
    find "$data" -type f -exec dd if={} iflag=nocache count=0 status=none \;
    opened "$1" "$2" restart-cold-s
    killed
}

one_side() {
    data=$run/data.$1
    enter_group
    start "$1" "$2"
    filled "$1"
    counted "$1"
    overwritten "$1"
    reclaimed "$1"
    stop
    leave_group
}

# so_many NAME KEYS: ours with so many keys of 100 B, and nothing beside it.
so_many() {
    local work round p50
    keys=$2 value=100 data=$run/data.$1
    start "$1" "$ours"
    pressed fill
    settle
    for ((round = 1; round <= rounds; round++)); do
        for work in put range; do
            read -r p50 < <(ask "$work" --connections 10 --rate "$rate" --seconds "$seconds" \
                --keys "$keys" --value-size "$value" | numbers p50_us)
            note "$1" "$work-p50-ms" "$(awk -v us="$p50" 'BEGIN { printf "%.3f", us / 1000 }')"
            note "$1" "$work-pressed-per-s" "$(ask "$work" --connections 10 --streams 4 \
                --seconds "$seconds" --keys "$keys" --value-size "$value" | numbers ops_per_second)"
        done
    done
    killed
    opened "$1" "$ours" restart-s
    note "$1" memory-bytes-a-key "$(per "$(status VmRSS)" "$keys")"
    stop
    rm -rf "$data"
}

# ── all of it ───────────────────────────────────────────────────────────────────────────────────

echo "$(date -u +%FT%TZ)  $line"
echo "$(uname -sr), $(nproc) CPUs ($(awk -F': ' '/^model name/ { print $2; exit }' /proc/cpuinfo)), $(
    awk '/^MemTotal/ { printf "%.0f GiB", $2 / 1048576 }' /proc/meminfo), $(
    df --output=source,fstype "$folder" | tail -1 | tr -s ' ')"
"$etcd" --version | sed -n 1p
"$ours" --version | sed -n '/^Ringleader/p'
echo

one_side etcd "$etcd"
one_side ours "$ours"
in_turn restarted
rounds=1 in_turn restarted_cold
rm -rf "$run"/data.*
if ((many)); then
    so_many few "$few"
    so_many many "$many"
fi

# The median of each figure; ours as a part of etcd's; what is asked of it.
sort -k1,1 -k2,2 -k3,3n "$run/results" | awk -v named="$(awk '!seen[$2]++ { print $2 }' "$run/results")" '
    { at = $1 " " $2; values[at, ++runs[at]] = $3 }
    function median(side, what,    at) { at = side " " what; return values[at, int((runs[at] + 1) / 2)] }
    function ratio(what) { return median("etcd", what) ? median("ours", what) / median("etcd", what) : 0 }
    function over(side, what, other) { return median(side, other) ? median(side, what) / median(side, other) : 0 }
    function asked(text, value, most) {
        printf "%-66s %8.3f  %s\n", text, value, value <= most ? "yes" : "NO"
    }
    END {
        printf "\n%-26s %12s %12s %8s\n", "", "etcd", "ours", "ratio"
        count = split(named, names, "\n")
        for (n = 1; n <= count; n++) {
            what = names[n]
            if (("etcd " what) in runs)
                printf "%-26s %12s %12s %8.3f\n", what, median("etcd", what), median("ours", what), ratio(what)
        }
        print ""
        asked("memory a key, at most a quarter of etcd", ratio("memory-bytes-a-key"), 0.25)
        asked("written to disk a put, at most half of etcd", ratio("written-fill-bytes"), 0.5)
        asked("restart after kill -9, at most a tenth of etcd", ratio("restart-s"), 0.1)
        asked("count of all, below 1 ms", median("ours", "count-p50-ms"), 0.999)
        asked("put p99 while space is given back, at most 1.3 times that alone",
            over("ours", "put-p99-reclaiming-ms", "put-p99-alone-ms"), 1.3)
        printf "%-66s %8.3f\n", "  the same of etcd",
            over("etcd", "put-p99-reclaiming-ms", "put-p99-alone-ms")
        if ("many restart-s" in runs) {
            asked("many keys: restart, at most 2 s", median("many", "restart-s"), 2)
            asked("many keys: put p50, at most 1.3 times that of few",
                median("many", "put-p50-ms") / median("few", "put-p50-ms"), 1.3)
            asked("many keys: get p50, at most 1.3 times that of few",
                median("many", "range-p50-ms") / median("few", "range-p50-ms"), 1.3)
        }
    }'
