#!/usr/bin/env bash
# Runs each example against a fresh server, and compares what it says with its expected.txt.
#
#   examples/run.sh BINARY
#
# Where there is no Go, says so and passes.
set -euo pipefail

binary=$(realpath "${1:?usage: examples/run.sh BINARY}")
cd "$(dirname "${BASH_SOURCE[0]}")"
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/../target}
if ! command -v go >/dev/null; then
    echo 'examples: skipped, no Go on this machine'
    exit
fi

programs=$(mktemp -d)
trap 'rm -rf "$programs"' EXIT
go vet ./...
go build -o "$programs/" ./...
for expected in */expected.txt; do
    name=${expected%%/*}
    ../tests/with-server.sh "$binary" -- timeout 2m "$programs/$name" >"$programs/said"
    diff -u "$expected" "$programs/said"
    echo "examples: $name says what it should"
done
./cluster.sh "$binary" >"$programs/said"
if [[ -s $programs/said ]]; then
    diff -u cluster.expected.txt "$programs/said"
    echo 'examples: cluster says what it should'
fi
