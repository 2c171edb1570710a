#!/usr/bin/env bash
# What differs on this host from the advice in tuning/README.md. Reads, and changes nothing.
#
#   tuning/check.sh [DATA_DIR]              default: /var/lib/ringleader
#
# Exit code: 0 all is as advised, 1 something differs, 2 the question is wrong.
set -euo pipefail
# shellcheck source=tuning/advice.sh
source "$(dirname "${BASH_SOURCE[0]}")/advice.sh"

if [[ $# -gt 1 || ${1:-} == -* ]]; then
    sed -n '2,6s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
    exit 2
fi
data=${1:-/var/lib/ringleader}
folder=$(existing "$(realpath -m -- "$data")")
differs=0

say() { printf '%-8s %-38s %s\n' "$@"; }
good() { say ok "$1" "$2"; }
bad() {
    say DIFFERS "$1" "$2"
    differs=1
}
unknown() { say unknown "$1" "$2"; }

kernel() {
    local release major minor
    release=$(uname -r)
    IFS=. read -r major minor _ <<<"$release"
    minor=${minor%%[!0-9]*}
    if ((major > 5 || (major == 5 && minor >= 15))); then
        good kernel "$release"
    else
        bad kernel "$release; 5.15 or newer has what is needed of io_uring"
    fi
}

# limit NAME VALUE LEAST WHAT: a limit of this shell, which the server need not have.
limit() {
    if [[ $2 == unlimited ]] || (($2 >= $3)); then
        good "$1" "$2"
    else
        bad "$1" "$2; at least $3: $4"
    fi
}

sysctls() {
    local line value
    for line in "${advice[@]}"; do
        split_advice "$line"
        if ! value=$(cat "$root$advice_file" 2>/dev/null); then
            unknown "${advice_file#/proc/sys/}" "not there in this kernel"
        elif fits "$value" "$advice_patterns"; then
            good "${advice_file#/proc/sys/}" "$value"
        else
            bad "${advice_file#/proc/sys/}" "$value; $advice_value: $advice_why"
        fi
    done
}

file_system() {
    local kind options
    kind=$(findmnt -n -o FSTYPE -T "$folder") options=$(findmnt -n -o OPTIONS -T "$folder")
    case $kind in
    ext4 | xfs) good "file system of $folder" "$kind" ;;
    tmpfs | ramfs) bad "file system of $folder" "$kind, in memory: the server does not start there" ;;
    *) bad "file system of $folder" "$kind; ext4 and XFS are what is tested" ;;
    esac
    case ,$options, in
    *,nobarrier,* | *,barrier=0,*) bad 'mount options' "$options: without barriers a power cut takes what was synced" ;;
    *,data=journal,*) bad 'mount options' "$options: data=journal takes no O_DIRECT" ;;
    *,strictatime,*) bad 'mount options' "$options: each read writes a time; relatime or noatime" ;;
    *,sync,*) bad 'mount options' "$options: sync makes each write two; the server syncs itself" ;;
    *) good 'mount options' "$options" ;;
    esac
}

device() {
    local device scheduler
    device=$(device_of "$folder")
    if [[ -z $device ]]; then
        unknown device "$folder lies on no block device that /sys knows"
        return
    fi
    scheduler=$(<"$device/queue/scheduler")
    case $scheduler in
    none | *'[none]'* | *'[mq-deadline]'*) good "scheduler of ${device##*/}" "$scheduler" ;;
    *) bad "scheduler of ${device##*/}" "$scheduler; none for NVMe, mq-deadline for others: a small sync must not wait for fairness" ;;
    esac
    case $(<"$device/queue/rotational") in
    0) good "${device##*/}" 'not rotating' ;;
    *) unknown "${device##*/}" 'said to rotate, as virtual disks often are; loadgen disk says how fast it is' ;;
    esac
    say ok "write cache of ${device##*/}" "$(cat "$device/queue/write_cache" 2>/dev/null || echo unknown)"
}

governor() {
    local file=$root/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor
    if [[ ! -r $file ]]; then
        unknown 'cpu governor' 'not to be seen, as in virtual machines; the host has one'
    elif [[ $(<"$file") == performance ]]; then
        good 'cpu governor' performance
    else
        bad 'cpu governor' "$(<"$file"); performance: a core that sleeps between requests wakes up slow"
    fi
}

kernel
sysctls
limit 'locked memory (ulimit -l), KiB' "$(ulimit -H -l)" 512 "io_uring's queues; LimitMEMLOCK= in a unit"
limit 'open files (ulimit -n)' "$(ulimit -H -n)" 4096 'one for each client; LimitNOFILE= in a unit'
if ((EUID == 0)) || [[ $(ulimit -H -r) != 0 ]]; then
    good 'real-time priority (ulimit -r)' "$(ulimit -H -r), user $EUID"
else
    bad 'real-time priority (ulimit -r)' '0; 1: the log goes ahead of the other threads; LimitRTPRIO= in a unit'
fi
file_system
device
governor
exit "$differs"
