# What check.sh and host.sh know: one advice a line, read by both. Sourced, not run.
# shellcheck shell=bash disable=SC2034 # all is for those that source it
#
# TUNING_ROOT, for tests: a folder that stands for the machine's / .

root=${TUNING_ROOT:-}

# file | what may stand there (a bash pattern) | what host.sh writes | why
advice=(
    "/proc/sys/kernel/io_uring_disabled|0|0|the server's cores read and write through io_uring"
    "/proc/sys/kernel/sched_rt_runtime_us|-1|9[0-9][0-9][0-9][0-9][0-9]|950000|the log's thread runs ahead of the others, and needs room for that"
    "/proc/sys/vm/swappiness|[0-9]|10|1|the index is in memory: a page that was swapped out is read back while a client waits"
    "/proc/sys/net/core/somaxconn|409[6-9]|[4-9][0-9][0-9][0-9]|[1-9][0-9][0-9][0-9][0-9]*|4096|clients that all come back at once wait to be accepted"
    "/proc/sys/net/ipv4/tcp_slow_start_after_idle|0|0|a connection between members that was idle sends a large message at once"
)

# Between patterns and advice there are as many bars as patterns: the first field is the file, the last
# two are the advice and the reason.
split_advice() {
    local rest=$1
    advice_file=${rest%%|*} rest=${rest#*|}
    advice_why=${rest##*|} rest=${rest%|*}
    advice_value=${rest##*|} advice_patterns=${rest%|*}
}

# Whether a value is one of the patterns between bars.
fits() {
    local value=$1 pattern patterns
    IFS='|' read -ra patterns <<<"$2"
    for pattern in "${patterns[@]}"; do
        # shellcheck disable=SC2053 # it is a pattern
        [[ $value == $pattern ]] && return 0
    done
    return 1
}

# The block device that a folder lies on, as a folder of /sys; nothing where there is none.
device_of() {
    local numbers device
    numbers=$(mountpoint -d "$(stat -c %m -- "$1")" 2>/dev/null) || return 0
    device=$(readlink -f "$root/sys/dev/block/$numbers")
    [[ -d $device ]] || return 0
    # A partition has no queue of its own.
    [[ -e $device/partition ]] && device=$(dirname "$device")
    [[ -d $device/queue ]] && printf '%s\n' "$device"
}

# The nearest folder above that is there.
existing() {
    local folder=$1
    while [[ ! -d $folder ]]; do folder=$(dirname -- "$folder"); done
    printf '%s\n' "$folder"
}
