#!/usr/bin/env bash
# etcd's own Go client, and the locks, elections and transactions it builds of watches and leases,
# against a fresh server.
#
#   tests/go-client/run.sh BINARY
#
# Where there is no Go, says so and passes.
set -euo pipefail

binary=$(realpath "${1:?usage: tests/go-client/run.sh BINARY}")
cd "$(dirname "${BASH_SOURCE[0]}")"
# The client logs what a test expects to be refused.
export ETCD_CLIENT_DEBUG=error
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/../../target}
if ! command -v go >/dev/null; then
    echo 'go-client: skipped, no Go on this machine'
    exit
fi

program=$(mktemp)
trap 'rm -f "$program"' EXIT
go vet .
go test -c -o "$program" .
# Progress is told often here; the interval is ten minutes unless somebody says so.
../with-server.sh "$binary" --watch-progress-notify-interval=200ms -- \
    "$program" -test.count=1 -test.timeout=4m "${@:2}"
