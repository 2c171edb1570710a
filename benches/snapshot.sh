#!/usr/bin/env bash
# What the leader's clients notice while a follower that fell off the log gets a snapshot. One cluster
# of three at a time on fresh folders; the follower leaves before the keys are put, and comes back
# while a writer puts at a steady rate. Real etcd and ours in turn.
#
#   benches/snapshot.sh [--etcd BINARY] [--ours BINARY] [--loadgen BINARY]
#                       [--seconds 8] [--rounds 3] [--keys 200000] [--value 4096] [--rate 500]
#                       [--writers 8] [--folder target/compare] [--apart 0]
#
# On one machine the follower's own start and its disk are felt by all. With --apart 1 (root, Linux's
# loop devices, memory for three times the data) each member has an ext4 of its own in memory, and the
# follower comes back on the last core alone, leader, other follower and client having the first: what
# is left is what bringing it up costs the leader.
#
# Prints for each round the latency of puts at the leader in milliseconds, before and while the
# follower is brought up, and how long that took.
set -euo pipefail

seconds=8 rounds=3 keys=200000 value=4096 rate=500 writers=8 apart=0
flags=(seconds rounds keys value rate writers apart)
# shellcheck source=benches/beside.sh
source "$(dirname "${BASH_SOURCE[0]}")/beside.sh"
# shellcheck source=benches/members.sh
source "$(dirname "${BASH_SOURCE[0]}")/members.sh"

if ((apart)); then
    disks=$(mktemp -d)
    trap 'stop; rm -rf "$run"; umount "$disks"/at.* "$disks" || true; rmdir "$disks"' EXIT
    mount -t tmpfs -o "size=$((3 * (keys * value * 3 / 2 + (1 << 30))))" snapshot "$disks"
    for at in "${members[@]}"; do
        truncate -s "$((keys * value * 3 / 2 + (1 << 30)))" "$disks/image.$at"
        mkfs.ext4 -q "$disks/image.$at"
        mkdir "$disks/at.$at"
        mount -o loop "$disks/image.$at" "$disks/at.$at"
    done
    data_of() { echo "$disks/at.$1/data"; }
    fresh() { rm -rf "$disks"/at.*/data; }
    near=(taskset -c 0)
    far=(taskset -c $(($(nproc) - 1)))
else
    near=() far=()
fi
under=("${near[@]}")

leads() {
    [[ $(curl -s "http://$(client_of "$1")/metrics") == *$'\n'"etcd_server_is_leader 1"* ]]
}

# puts SIDE WHEN: at the leader, at the rate asked for.
puts() {
    local line
    line=$("${near[@]}" "$loadgen" watch --watchers 1 --writers "$writers" --rate "$rate" \
        --seconds "$seconds" --value-size 256 \
        --endpoint "$(client_of "$leader")" --pid "${servers[leader]}" \
        | numbers put_p50_us put_p99_us put_max_us)
    # shellcheck disable=SC2046,SC2183  # the numbers are meant to be split
    printf '%-5s %-8s p50 %7.2f  p99 %7.2f  max %7.2f\n' "$1" "$2" \
        $(awk '{ print $1 / 1e3, $2 / 1e3, $3 / 1e3 }' <<<"$line")
    echo "$1 $2 $line" >>"$run/results"
}

one_side() {
    local at leader='' away='' began
    start "$1" "$2"
    for at in "${members[@]}"; do
        if leads "$at"; then leader=$at; else away=$at; fi
    done
    kill "${servers[away]}"
    wait "${servers[away]}" 2>/dev/null || true
    "$loadgen" fill --connections 50 --streams 4 --keys "$keys" --value-size "$value" \
        --endpoint "$(client_of "$leader")" >/dev/null
    sleep 2
    puts "$1" before
    began=$SECONDS
    under=("${far[@]}")
    launch "$1" "$2" "$away"
    under=("${near[@]}")
    puts "$1" while
    until serves "$away"; do sleep 0.2; done
    echo "$1 caught up after $((SECONDS - began)) s or less"
    stop
}

in_turn one_side
awk '
    { sum[$1, $2] += $4; runs[$1]++ }
    END {
        for (side in runs)
            printf "%-5s p99 while it is brought up: %.2f times that before\n", side,
                sum[side, "while"] / sum[side, "before"]
    }' "$run/results"
