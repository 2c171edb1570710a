#!/usr/bin/env bash
# etcd's own black-box tests (v3.7.1, tests/common), unmodified, against a server binary.
#
#   tests/common/run.sh BINARY [TEST...]      BINARY may be etcd's; default: all of tests.txt
#
# Clusters of one member, and of three: the suite knows a cluster in which one member is of the last
# release, without TLS; here that release is the same binary.
# The suite's ports are fixed, so tests run at the same time only in network namespaces of their own;
# JOBS of them (3), or one after the other where that is not allowed.
# Prints what each test came to and how long it took; the words of those that fail.
# The suite reads what etcdctl says from a terminal, and waits for it without end. Some kernels lose what
# a process says last before it ends (1 of 48,000 here, with no server near). So a test that stood still
# until it was cut off, and had failed at nothing, is tried once more, and that is said.
set -euo pipefail

binary=$(realpath "${1:?usage: tests/common/run.sh BINARY [TEST...]}")
shift
cd "$(dirname "${BASH_SOURCE[0]}")"
if ! command -v go >/dev/null; then
    echo 'common: skipped, no Go on this machine'
    exit
fi
target=$(realpath -m "${CARGO_TARGET_DIR:-../../target}")
real=${REAL_ETCD_DIR:-$(../e2e/build-etcd.sh "$target/etcd")}
suite=go.etcd.io/etcd/tests/v3/common
mkdir -p "$target/common"
run=$(mktemp -d "$target/common/run.XXXXXX")
trap 'rm -rf "$run"' EXIT

go test -c -tags=e2e -ldflags='-s -w' -o "$run/suite" "$suite"
folder=$(go list -tags=e2e -f '{{.Dir}}' "$suite")
mkdir "$run/bin" "$run/tmp" "$run/log"
ln -s "$binary" "$run/bin/etcd"
ln -s "$binary" "$run/bin/etcd-last-release"
ln -s "$real/etcdctl" "$real/etcdutl" "$run/bin/"

spoken=$(sed -n 's/^\(run\|leave\) \+\(Test[^ ]*\).*/\2/p' tests.txt)
silent=0
for test in $(cd "$folder" && "$run/suite" -test.list . | grep ^Test); do
    # shellcheck disable=SC2254  # a * in tests.txt means what it means here
    for name in $spoken; do
        case $test in $name) continue 2 ;; esac
    done
    echo "common: tests.txt does not speak of $test" >&2
    silent=1
done
((silent == 0)) || exit 1
if (($# == 0)); then
    # shellcheck disable=SC2046  # names have no spaces
    set -- $(sed -n 's/^run \+//p' tests.txt)
fi
skip=$(sed -n 's/^leave \+\(\/[^ ]*\).*/\1/p' tests.txt | paste -sd'|')
# Sub-tests whose names hold a slash are further down.
skip=$(sed 's/|/\n/g' <<<"$skip" | sed 's|^/||' |
    awk '{ printf "%s/%s|/.*/%s|/.*/.*/%s|/.*/.*/.*/%s", (NR > 1 ? "|" : ""), $0, $0, $0, $0 }')

alone=()
if unshare --net true 2>/dev/null && command -v ip >/dev/null; then
    alone=(unshare --net)
    jobs=${JOBS:-3}
else
    jobs=1
fi

try() {
    local test=$1
    "${alone[@]}" bash -c 'ip link set lo up 2>/dev/null; cd "$1" && shift && exec "$@"' one "$folder" \
        timeout 5m env TMPDIR="$run/tmp" "$run/suite" -test.v -test.count=1 -test.timeout=4m \
        -test.run "^$test\$" -test.skip "$skip" --bin-dir="$run/bin" \
        >"$run/log/$test" 2>&1
}

cut_off() {
    grep -q '^panic: test timed out' "$run/log/$1"
}

# Where a test that was cut off stood.
stood() {
    sed '/^panic: test timed out/,$d' "$run/log/$1" | tail -n 60 | cut -c1-400 | sed 's/^/    /'
    printf '    and it stood at:\n'
    sed -n '/^panic: test timed out/,$p' "$run/log/$1" |
        grep -A 1 -E '^go.etcd.io/etcd/tests/v3/(common|framework/e2e)\.' | head -n 40 | sed 's/^/    /'
}

one() {
    local test=$1 begin=$SECONDS rc=0
    try "$test" || rc=$?
    if cut_off "$test" && ! grep -qE '^ *--- FAIL|Error Trace' "$run/log/$test"; then
        printf 'again       %s: it stood still\n%s\n' "$test" "$(stood "$test")"
        rc=0
        try "$test" || rc=$?
    fi
    local passed skipped
    passed=$(grep -c '^ *--- PASS' "$run/log/$test" || true)
    skipped=$(grep -c '^ *--- SKIP' "$run/log/$test" || true)
    if ((rc == 0 && passed > 0)); then
        printf 'ok   %4d s  %s: %d passed, %d skipped\n' $((SECONDS - begin)) "$test" "$passed" "$skipped"
    else
        printf 'FAIL %4d s  %s\n' $((SECONDS - begin)) "$test"
        grep -E '^ *--- FAIL|Error:|Error Trace|panic:|expected|actual' "$run/log/$test" | head -30 | sed 's/^/    /' || true
        if cut_off "$test"; then
            stood "$test"
        fi
        touch "$run/failed"
    fi
    [[ -z ${KEEP:-} ]] || cp "$run/log/$test" "$KEEP/"
}

begin=$SECONDS
for test in "$@"; do
    while (($(jobs -rp | wc -l) >= jobs)); do
        wait -n || true
    done
    one "$test" &
done
wait || true
echo "common: $# tests in $((SECONDS - begin)) s, $jobs at a time, against $binary"
[[ ! -e $run/failed ]]
