#!/usr/bin/env bash
# The etcd-client crate against a fresh server.
#
#   tests/etcd-client/run.sh BINARY
#
# The crate's build needs protoc, which is installed where it is missing and this is allowed.
set -euo pipefail

binary=$(realpath "${1:?usage: tests/etcd-client/run.sh BINARY}")
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
target=${CARGO_TARGET_DIR:-$here/../../target}/etcd-client
port=$((20000 + $$ % 10000))

if ! command -v protoc >/dev/null; then
    sudo=
    ((EUID == 0)) || sudo=sudo
    $sudo apt-get update -q
    $sudo apt-get install -qy protobuf-compiler
fi
CARGO_TARGET_DIR=$target cargo build --locked --manifest-path "$here/Cargo.toml"

run=$(mktemp -d "$target/run.XXXXXX")
trap 'kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; rm -rf "$run"' EXIT
client=http://127.0.0.1:$port peer=http://127.0.0.1:$((port + 1))
"$binary" --data-dir "$run/data" \
    --listen-client-urls "$client" --advertise-client-urls "$client" \
    --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" \
    --initial-cluster "default=$peer" >"$run/log" 2>&1 &
server=$!
for _ in {1..300}; do
    grep -q 'ready to serve client requests' "$run/log" && break
    kill -0 "$server" 2>/dev/null || break
    sleep 0.1
done
"$target/debug/etcd-client-test" "$client" || { tail -20 "$run/log" >&2; exit 1; }
