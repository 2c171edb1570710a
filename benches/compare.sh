#!/usr/bin/env bash
# Ours beside real etcd: one server at a time on a fresh folder, the same client, A B A B.
#
#   benches/compare.sh [--etcd BINARY] [--ours BINARY] [--loadgen BINARY]
#                      [--seconds 5] [--rounds 2] [--keys 100000] [--folder target/compare]
#
# Prints every run as it ends, then the means of the rounds and how the two relate. Latencies are
# in milliseconds, CPU time in microseconds a call. The folder must be on a real disk.
set -euo pipefail

seconds=5 rounds=2 keys=100000
flags=(seconds rounds keys)
# shellcheck source=benches/beside.sh
source "$(dirname "${BASH_SOURCE[0]}")/beside.sh"
# shellcheck source=benches/table.sh
source "$(dirname "${BASH_SOURCE[0]}")/table.sh"

ask() {
    "$loadgen" "$@" --endpoint "$endpoint" --value-size 256 --pid "$server"
}

one_side() {
    start "$1" "$2"
    measure "$1" fill fill --connections 50 --streams 20
    measure "$1" put-1x1 put --seconds "$seconds"
    measure "$1" put-50x20 put --connections 50 --streams 20 --seconds "$seconds"
    measure "$1" range-50x20 range --connections 50 --streams 20 --seconds "$seconds"
    stop
}

in_turn one_side
table
