# shellcheck shell=bash
# Sourced by the scripts that measure three members on this machine. Before sourcing: beside.sh, whose
# start, launch and stop of one server these replace. After: $members, $servers (their processes, by
# member), $endpoints, start, stop, launch; `data_of MEMBER` is a member's folder, and `fresh` makes all
# of them empty.

members=(0 1 2)
servers=()
data_of() { echo "$run/data.$1"; }
fresh() { rm -rf "$run"/data.*; }
endpoints='' initial=''
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

# launch SIDE BINARY MEMBER: starts it on the folder that it has.
launch() {
    local at=$3
    "${under[@]}" "$2" --name "m$at" --data-dir "$(data_of "$at")" --log-level error "${server_flags[@]}" \
        --listen-client-urls "http://$(client_of "$at")" \
        --advertise-client-urls "http://$(client_of "$at")" \
        --listen-peer-urls "$(peer_of "$at")" --initial-advertise-peer-urls "$(peer_of "$at")" \
        --initial-cluster "$initial" >>"$run/$1.$at.log" 2>&1 &
    servers[at]=$!
}

# start SIDE BINARY: three members on fresh folders, until each takes a put.
start() {
    local at
    fresh
    endpoints='' initial=''
    for at in "${members[@]}"; do
        if serves "$at"; then
            echo "$name: something answers on $(client_of "$at") already" >&2
            exit 1
        fi
        initial+=",m$at=$(peer_of "$at")"
        endpoints+=",$(client_of "$at")"
    done
    endpoints=${endpoints#,}
    initial=${initial#,}
    for at in "${members[@]}"; do
        launch "$1" "$2" "$at"
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
