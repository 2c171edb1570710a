# shellcheck shell=bash
# Sourced by the scripts that measure ours beside real etcd: their flags, and one server at a time on
# a fresh folder. Before sourcing, `flags` names the script's own flags, each a variable with its
# default. After: $etcd, $ours, $loadgen, $endpoint, $run, $server (its process), start, launch, stop,
# in_turn, numbers; $data is the server's folder, `server_flags` names more flags for it, and `under` the
# command that runs it (nothing).

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
etcd=$target/etcd/etcd ours=$target/release/ringleader loadgen=$target/release/loadgen
folder=$target/compare port=23790
endpoint=127.0.0.1:$port
name=$(basename "$0" .sh)

usage() {
    sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" >&2
    exit 2
}

while (($#)); do
    flag=$(tr - _ <<<"${1#--}")
    case " ${flags[*]} etcd ours loadgen folder " in
        *" $flag "*)
            declare "$flag=${2:?$1 wants a value}"
            shift 2
            ;;
        *) usage ;;
    esac
done

for binary in "$etcd" "$ours" "$loadgen"; do
    [[ -x $binary ]] || { echo "$name: there is no $binary" >&2; exit 1; }
done
mkdir -p "$folder"
if [[ $(stat -f -c %T "$folder") == tmpfs ]]; then
    echo "$name: $folder is in memory; name one on a disk with --folder" >&2
    exit 1
fi
run=$(mktemp -d "$folder/run.XXXXXX")
data=$run/data
server=
server_flags=()
under=()
stop() {
    if [[ -n $server ]]; then
        kill "$server" 2>/dev/null || true
        wait "$server" 2>/dev/null || true
        server=
    fi
}
trap 'stop; rm -rf "$run"' EXIT

serves() {
    "$loadgen" put --ops 1 --keys 1 --endpoint "$endpoint" >/dev/null 2>&1
}

# launch SIDE BINARY: on the folder that there is.
launch() {
    local client=http://$endpoint peer=http://127.0.0.1:$((port + 1))
    "${under[@]}" "$2" --data-dir "$data" --log-level error "${server_flags[@]}" \
        --listen-client-urls "$client" --advertise-client-urls "$client" \
        --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" \
        --initial-cluster "default=$peer" >>"$run/$1.log" 2>&1 &
    server=$!
}

# start SIDE BINARY: on a fresh folder, until it takes a put.
start() {
    if serves; then
        echo "$name: something answers on port $port already" >&2
        exit 1
    fi
    rm -rf "$data"
    launch "$1" "$2"
    for _ in {1..100}; do
        if serves; then
            return
        fi
        kill -0 "$server" 2>/dev/null || break
        sleep 0.2
    done
    echo "$name: $2 does not serve:" >&2
    tail -20 "$run/$1.log" >&2
    exit 1
}

# in_turn COMMAND: etcd, ours, etcd, ours: COMMAND SIDE BINARY for each, as many rounds as asked.
in_turn() {
    local round
    for ((round = 1; round <= rounds; round++)); do
        "$1" etcd "$etcd"
        "$1" ours "$ours"
    done
}

# numbers FIELD..: the first value of each in the JSON on stdin, on one line; `-` where there is none.
numbers() {
    local json field value line=
    json=$(cat)
    for field; do
        value=$(grep -o "\"$field\":-\{0,1\}[0-9.]*" <<<"$json" | head -1) || true
        value=${value##*:}
        line+=" ${value:--}"
    done
    echo "${line# }"
}
