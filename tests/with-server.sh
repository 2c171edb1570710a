#!/usr/bin/env bash
# Runs a command beside a fresh server of its own, which is ended with it.
#
#   tests/with-server.sh BINARY [--flag...] -- COMMAND...
#
# The command finds the server by $ENDPOINT, such as http://127.0.0.1:23456. BINARY may be etcd.
# Data and log lie under cargo's target, which is a disk that knows O_DIRECT.
set -euo pipefail

binary=$(realpath "${1:?usage: tests/with-server.sh BINARY [--flag...] -- COMMAND...}")
shift
flags=()
while [[ ${1:?no command after --} != -- ]]; do
    flags+=("$1")
    shift
done
shift

target=${CARGO_TARGET_DIR:-$(dirname "${BASH_SOURCE[0]}")/../target}
mkdir -p "$target"
run=$(mktemp -d "$(realpath "$target")/server.XXXXXX")
server=
end() {
    [[ -z $server ]] || kill "$server" 2>/dev/null || true
    wait
    rm -rf "$run"
}
trap end EXIT

# Below the ports that the kernel gives to clients.
port=$((12000 + $$ % 10000 * 2))
client=http://127.0.0.1:$port peer=http://127.0.0.1:$((port + 1))
"$binary" --data-dir "$run/data" \
    --listen-client-urls "$client" --advertise-client-urls "$client" \
    --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" \
    --initial-cluster "default=$peer" "${flags[@]}" >"$run/log" 2>&1 &
server=$!
for _ in {1..300}; do
    grep -qs 'ready to serve client requests' "$run/log" && break
    kill -0 "$server" 2>/dev/null || break
    sleep 0.1
done
if ! ENDPOINT=$client "$@"; then
    echo 'the last the server said:' >&2
    tail -20 "$run/log" >&2
    exit 1
fi
