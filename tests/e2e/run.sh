#!/usr/bin/env bash
# Everything that needs real processes, against one server binary.
#
#   tests/e2e/run.sh [BINARY]               default: target/release/ringleader
#
# Builds real etcd where there is Go; with REAL_ETCD_REQUIRED=1, as in CI, it fails where there is
# none. OPS and E2E_KILLS make it longer or shorter. SEED of the differential run: a new one each
# day, so that a failure can be run again the same day.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$root"
target=${CARGO_TARGET_DIR:-$root/target}
RINGLEADER_BIN=$(realpath "${1:-$target/release/ringleader}")
export RINGLEADER_BIN
seed=${SEED:-$(date +%Y%m%d)} ops=${OPS:-100000}

if folder=$(tests/e2e/build-etcd.sh "$target/etcd"); then
    export REAL_ETCD_DIR=$folder
elif [[ -n ${REAL_ETCD_REQUIRED:-} ]]; then
    echo "e2e: real etcd is required" >&2
    exit 1
fi

# One at a time: they start many processes, and some measure how long others wait.
cargo test --locked --package e2e --no-fail-fast -- --test-threads=2 --show-output

if [[ -n ${REAL_ETCD_DIR:-} ]]; then
    compare() {
        cargo run --locked --package differential -- \
            --a-bin "$REAL_ETCD_DIR/etcd" --a-flag --unsafe-no-fsync \
            --b-bin "$RINGLEADER_BIN" --seed "$seed" "$@"
    }
    compare --ops "$ops"
    # With what waits for quiet every fifty calls, and so is slower: a tenth as many.
    compare --ops $((ops / 10)) --also watches --also leases --also locks
    compare --ops $((ops / 10)) --also hash-kv
else
    echo "e2e: no real etcd, so no differential run" >&2
fi
