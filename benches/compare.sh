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

ask() {
    "$loadgen" "$@" --endpoint "$endpoint" --value-size 256
}

# measure SIDE WORK FLAGS...: one run, one line of numbers kept and shown.
measure() {
    local side=$1 work=$2 json line=
    shift 2
    json=$(ask "$@" --keys "$keys" --pid "$server" | tail -1)
    for field in ops_per_second p50_us p99_us p999_us server_cpu_us_per_op client_cpu_us_per_op; do
        line+=" $(sed -n "s/.*\"$field\":\([0-9.]*\).*/\1/p" <<<"$json")"
    done
    echo "$side $work$line" >>"$run/results"
    # shellcheck disable=SC2086  # the numbers are meant to be split
    printf '%-5s %-10s %9.0f/s  server %6.1f  client %5.2f\n' "$side" "$work" \
        $(awk '{ print $1, $5, $6 }' <<<"$line")
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

awk '
    { key = $1 " " $2; runs[key]++; for (at = 3; at <= 8; at++) sum[key, at] += $at }
    !($2 in known) { known[$2]; works[++count] = $2 }
    function mean(side, work, at) { return sum[side " " work, at] / runs[side " " work] }
    function row(side, work) {
        printf "%-12s %-5s %9.0f %8.2f %8.2f %8.2f %8.1f %8.2f\n", work, side, mean(side, work, 3),
            mean(side, work, 4) / 1e3, mean(side, work, 5) / 1e3, mean(side, work, 6) / 1e3,
            mean(side, work, 7), mean(side, work, 8)
    }
    function ratio(work, at) {
        return mean("etcd", work, at) ? mean("ours", work, at) / mean("etcd", work, at) : 0
    }
    END {
        printf "\n%-12s %-5s %9s %8s %8s %8s %8s %8s\n",
            "", "", "ops/s", "p50", "p99", "p99.9", "server", "client"
        for (at = 1; at <= count; at++) {
            row("etcd", works[at])
            row("ours", works[at])
            printf "%-12s %-5s", "", "ratio"
            printf " %9.2f", ratio(works[at], 3)
            for (field = 4; field <= 8; field++) printf " %8.2f", ratio(works[at], field)
            print ""
        }
    }' "$run/results"
