# shellcheck shell=bash
# Sourced by the scripts whose runs are calls: one line a run, and the table of all. Before sourcing:
# beside.sh. The script says how to ask: `ask FLAGS...`.

# measure SIDE WORK FLAGS...: one run, one line of numbers kept and shown.
measure() {
    local side=$1 work=$2 line
    shift 2
    line=$(ask "$@" --keys "$keys" | numbers ops_per_second p50_us p99_us p999_us \
        server_cpu_us_per_op client_cpu_us_per_op)
    echo "$side $work $line" >>"$run/results"
    # shellcheck disable=SC2046,SC2183  # the numbers are meant to be split
    printf '%-5s %-10s %9.0f/s  server %6.1f  client %5.2f\n' "$side" "$work" \
        $(awk '{ print $1, $5, $6 }' <<<"$line")
}

# The means of the rounds of each side, and ours as a part of etcd's.
table() {
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
}
