#!/usr/bin/env bash
# Ours beside real etcd, three members of each on this machine: one cluster at a time on fresh
# folders, the same client at all members, A B A B.
#
#   benches/cluster.sh [--etcd BINARY] [--ours BINARY] [--loadgen BINARY]
#                      [--seconds 5] [--rounds 2] [--keys 100000] [--folder target/compare]
#
# Prints every run as it ends, then the means of the rounds and how the two relate. Latencies are
# in milliseconds; `server` is the CPU time of all three members together, in microseconds a call.
# The folder must be on a real disk.
set -euo pipefail

seconds=5 rounds=2 keys=100000
flags=(seconds rounds keys)
# shellcheck source=benches/beside.sh
source "$(dirname "${BASH_SOURCE[0]}")/beside.sh"
# shellcheck source=benches/table.sh
source "$(dirname "${BASH_SOURCE[0]}")/table.sh"

# shellcheck source=benches/members.sh
source "$(dirname "${BASH_SOURCE[0]}")/members.sh"

one_side() {
    start "$1" "$2"
    measure "$1" fill fill --connections 50 --streams 20
    measure "$1" put-1x1 put --seconds "$seconds"
    measure "$1" put-50x20 put --connections 50 --streams 20 --seconds "$seconds"
    measure "$1" range-50x20 range --connections 50 --streams 20 --seconds "$seconds"
    stop
}

ask() {
    "$loadgen" "$@" --endpoint "$endpoints" --value-size 256 --pid "$(IFS=, && echo "${servers[*]}")"
}

in_turn one_side
table
