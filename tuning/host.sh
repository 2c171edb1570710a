#!/usr/bin/env bash
# Applies the advice of tuning/README.md that concerns the whole host, until the next start of the
# machine, and prints the lines that undo it.
#
#   tuning/host.sh [--dry-run] [DATA_DIR]   default: /var/lib/ringleader
#
# Exit code: 0 all is as advised now, 1 something could not be set, 2 the question is wrong.
# What is to last belongs into /etc/sysctl.d and a udev rule; README.md has both.
set -euo pipefail
# shellcheck source=tuning/advice.sh
source "$(dirname "${BASH_SOURCE[0]}")/advice.sh"

dry=
if [[ ${1:-} == --dry-run ]]; then
    dry=yes
    shift
fi
if [[ $# -gt 1 || ${1:-} == -* ]]; then
    sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
    exit 2
fi
folder=$(existing "$(realpath -m -- "${1:-/var/lib/ringleader}")")
failed=0
undo=()

# set_file FILE BEFORE VALUE: writes, and remembers what was there.
set_file() {
    local file=$1 before=$2 value=$3
    if [[ -n $dry ]]; then
        echo "would set $file: $before to $value"
    elif printf '%s\n' "$value" 2>/dev/null >"$file"; then
        echo "set $file: $before to $value"
        undo+=("echo '$before' > $file")
    else
        echo "cannot set $file to $value (root can)" >&2
        failed=1
    fi
}

for line in "${advice[@]}"; do
    split_advice "$line"
    value=$(cat "$root$advice_file" 2>/dev/null) || continue
    fits "$value" "$advice_patterns" || set_file "$root$advice_file" "$value" "$advice_value"
done

device=$(device_of "$folder")
if [[ -n $device ]]; then
    scheduler=$(<"$device/queue/scheduler")
    case $scheduler in
    none | *'[none]'* | *'[mq-deadline]'*) ;;
    *)
        before=${scheduler#*[} before=${before%]*}
        after=mq-deadline
        [[ ${device##*/} == nvme* ]] && after=none
        set_file "$device/queue/scheduler" "$before" "$after"
        ;;
    esac
fi

for file in "$root"/sys/devices/system/cpu/cpu*/cpufreq/scaling_governor; do
    [[ -r $file ]] || continue
    governor=$(<"$file")
    [[ $governor == performance ]] || set_file "$file" "$governor" performance
done

if ((${#undo[@]})); then
    printf '\nto undo:\n'
    printf '%s\n' "${undo[@]}"
elif [[ -z $dry && $failed == 0 ]]; then
    echo 'all is as advised'
fi
exit "$failed"
