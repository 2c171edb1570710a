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

members=(0 1 2)
servers=()
endpoints=
client_of() { echo "127.0.0.1:$((port + 2 * $1))"; }
peer_of() { echo "http://127.0.0.1:$((port + 2 * $1 + 1))"; }
serves() {
    "$loadgen" put --ops 1 --keys 1 --endpoint "$(client_of "$1")" >/dev/null 2>&1
}

stop() {
    if ((${#servers[@]})); then
        kill "${servers[@]}" 2>/dev/null || true
        wait "${servers[@]}" 2>/dev/null || true
        servers=()
    fi
}

# start SIDE BINARY: three members on fresh folders, until each takes a put.
start() {
    local at initial=
    rm -rf "$run"/data.*
    endpoints=
    for at in "${members[@]}"; do
        if serves "$at"; then
            echo "$name: something answers on $(client_of "$at") already" >&2
            exit 1
        fi
        initial+=",m$at=$(peer_of "$at")"
        endpoints+=",$(client_of "$at")"
    done
    endpoints=${endpoints#,}
    for at in "${members[@]}"; do
        "$2" --name "m$at" --data-dir "$run/data.$at" --log-level error \
            --listen-client-urls "http://$(client_of "$at")" \
            --advertise-client-urls "http://$(client_of "$at")" \
            --listen-peer-urls "$(peer_of "$at")" --initial-advertise-peer-urls "$(peer_of "$at")" \
            --initial-cluster "${initial#,}" >"$run/$1.$at.log" 2>&1 &
        servers+=($!)
    done
    for at in "${members[@]}"; do
        for _ in {1..100}; do
            serves "$at" && continue 2
            kill -0 "${servers[at]}" 2>/dev/null || break
            sleep 0.2
        done
        echo "$name: member $at of $2 does not serve:" >&2
        tail -20 "$run/$1.$at.log" >&2
        exit 1
    done
}

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
