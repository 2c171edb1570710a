#!/usr/bin/env bash
# Three members on this machine, from start to end: written through one, read through another, one
# killed, still there, back again.
#
#   examples/cluster.sh BINARY              BINARY may be etcd
#
# Needs etcdctl, in $ETCDCTL, on the PATH, or where tests/e2e/build-etcd.sh puts it.
# Ports 12379 to 12384 on 127.0.0.1; data in a folder under target/, gone at the end.
set -euo pipefail

binary=$(realpath "${1:?usage: examples/cluster.sh BINARY}")
target=${CARGO_TARGET_DIR:-$(dirname "${BASH_SOURCE[0]}")/../target}
etcdctl=${ETCDCTL:-$(command -v etcdctl || echo "${REAL_ETCD_DIR:-$target/etcd}/etcdctl")}
if [[ ! -x $etcdctl ]]; then
    echo 'cluster: skipped, no etcdctl on this machine' >&2
    exit
fi
mkdir -p "$target"
run=$(mktemp -d "$target/cluster.XXXXXX")
declare -A process
trap 'kill "${process[@]}" 2>/dev/null || true; wait; rm -rf "$run"' EXIT

# Every member is told the same list, and its own name and addresses.
all=a=http://127.0.0.1:12380,b=http://127.0.0.1:12382,c=http://127.0.0.1:12384
declare -A client=([a]=127.0.0.1:12379 [b]=127.0.0.1:12381 [c]=127.0.0.1:12383)
declare -A peer=([a]=127.0.0.1:12380 [b]=127.0.0.1:12382 [c]=127.0.0.1:12384)
start() {
    "$binary" --name "$1" --data-dir "$run/$1" --log-level error \
        --listen-client-urls "http://${client[$1]}" --advertise-client-urls "http://${client[$1]}" \
        --listen-peer-urls "http://${peer[$1]}" --initial-advertise-peer-urls "http://${peer[$1]}" \
        --initial-cluster "$all" --initial-cluster-token example >>"$run/$1.log" 2>&1 &
    process[$1]=$!
}
ctl() {
    "$etcdctl" --endpoints "${client[$1]}" "${@:2}" 2>>"$run/ctl.log"
}
# A member that begins, or that lost its leader, answers as soon as it has one.
patiently() {
    for _ in {1..50}; do
        "$@" && return
        sleep 0.2
    done
    echo "cluster: not done: $*" >&2
    tail -n 5 "$run"/*.log >&2
    exit 1
}

start a
start b
start c
patiently ctl a put greeting hello >/dev/null
echo "through b: $(patiently ctl b get greeting --print-value-only)"

kill -9 "${process[a]}"
wait "${process[a]}" 2>/dev/null || true
echo "a is killed; through c: $(patiently ctl c get greeting --print-value-only)"
patiently ctl b put greeting 'hello without a' >/dev/null

start a
echo "a is back; through a: $(patiently ctl a get greeting --print-value-only)"
