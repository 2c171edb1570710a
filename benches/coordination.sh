#!/usr/bin/env bash
# Watches and leases, ours beside real etcd: one server at a time on a fresh folder, A B A B.
#
#   benches/coordination.sh [--etcd BINARY] [--ours BINARY] [--loadgen BINARY]
#                           [--seconds 2] [--rounds 2] [--watchers 1000] [--stalled 100] [--rate 200]
#                           [--leases 10000] [--ttl 10] [--gone-max 60] [--folder target/compare]
#
# fan-out: 1 writer as fast as it is answered, the watchers of one prefix on 50 connections.
# stalled: puts at the rate under 100 watchers, and then so many more beside that stop reading.
# keep-alive: 50 connections of 20 streams, one keep-alive on its way on each; then ten on each.
# expiry: all leases with a key each, renewed at once and let go, beside puts at the rate.
#
# Prints every table as it ends, then the means of the rounds and what is asked of them. Latencies are
# in milliseconds, CPU time in microseconds. The folder must be on a real disk.
set -euo pipefail

seconds=2 rounds=2 watchers=1000 stalled=100 rate=200 leases=10000 ttl=10 gone_max=60
flags=(seconds rounds watchers stalled rate leases ttl gone_max)
# shellcheck source=benches/beside.sh
source "$(dirname "${BASH_SOURCE[0]}")/beside.sh"

# measure SIDE WORK FIELD=NAME.. -- FLAGS..: one run, its table shown and its numbers kept by name.
measure() {
    local side=$1 work=$2 field fields=()
    shift 2
    while [[ $1 != -- ]]; do
        fields+=("$1")
        shift
    done
    shift
    echo "── $side: $work"
    # Leases that were not gone in time are a result too, and said.
    "$loadgen" "$@" --endpoint "$endpoint" --pid "$server" >"$run/report" || [[ -s $run/report ]]
    sed '$d' "$run/report"
    for field in "${fields[@]}"; do
        echo "$side $work ${field#*=} $(numbers "${field%%=*}" <"$run/report")" >>"$run/results"
    done
}

one_side() {
    local fan=(watch --connections 50 --seconds "$seconds")
    local keep=(keepalive --connections 50 --streams 20 --leases "$leases" --seconds "$seconds")
    local kept=(ops_per_second=per-s server_cpu_us_per_op=cpu-us p99_us=p99-us)
    start "$1" "$2"
    measure "$1" fan-out events_per_second=events-per-s \
        events_per_cpu_second=events-per-cpu-s server_cpu_us_per_event=cpu-us-per-event \
        client_cpu_us_per_event=client-us-per-event event_p99_us=event-p99-us \
        put_p99_us=put-p99-us server_bytes_per_watcher=bytes-per-watcher -- \
        "${fan[@]}" --watchers "$watchers"
    stop
    start "$1" "$2"
    measure "$1" stalled put_p99_ratio=put-p99-ratio put_p99_us=put-p99-us \
        event_p99_us=event-p99-us server_heap_growth_bytes=heap-growth -- \
        "${fan[@]}" --watchers 100 --stalled "$stalled" --value-size 2048 \
        --rate "$rate" --writers 16
    stop
    start "$1" "$2"
    measure "$1" keep-alive "${kept[@]}" -- "${keep[@]}"
    measure "$1" keep-alive-10 "${kept[@]}" -- "${keep[@]}" --depth 10
    stop
    start "$1" "$2"
    measure "$1" expiry server_bytes_per_lease=bytes-per-lease granted_in_seconds=grant-s \
        gone_in_seconds=gone-s leases_left=left put_p99_us=put-p99-us put_max_us=put-max-us -- \
        expire --connections 50 --streams 2 --depth 10 --leases "$leases" --ttl "$ttl" --attach \
        --seconds "$seconds" --rate "$rate" --writers 16 --gone-max "$gone_max"
    stop
}

in_turn one_side

awk '
    $4 != "-" { key = $2 " " $3; sum[$1, key] += $4; runs[$1, key]++ }
    !($2 " " $3 in known) { known[$2 " " $3]; keys[++count] = $2 " " $3 }
    function mean(side, key) { return runs[side, key] ? sum[side, key] / runs[side, key] : 0 }
    function ratio(key) { return mean("etcd", key) ? mean("ours", key) / mean("etcd", key) : 0 }
    function asked(text, value, least, most) {
        verdict = value >= least && (!most || value <= most) ? "yes" : "NO"
        printf "%-62s %8.2f  %s\n", text, value, verdict
    }
    END {
        printf "\n%-14s %-20s %14s %14s %8s\n", "", "", "etcd", "ours", "ratio"
        for (at = 1; at <= count; at++) {
            split(keys[at], name, " ")
            printf "%-14s %-20s %14.2f %14.2f %8.2f\n", name[1], name[2],
                mean("etcd", keys[at]), mean("ours", keys[at]), ratio(keys[at])
        }
        print ""
        asked("events per CPU second, at least 4 times etcd", ratio("fan-out events-per-cpu-s"), 4)
        asked("keep-alives per second, at least 4 times etcd", ratio("keep-alive per-s"), 4)
        asked("p99 of puts with stalled watchers, at most 1.5 times without",
            mean("ours", "stalled put-p99-ratio"), 0, 1.5)
    }' "$run/results"
