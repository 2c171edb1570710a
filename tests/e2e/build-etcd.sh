#!/usr/bin/env bash
# Builds real etcd, etcdctl and etcdutl at the version go.mod names, to measure and compare against.
#
#   tests/e2e/build-etcd.sh [folder]        default: target/etcd
#
# Prints the folder. Where the three are there already it does nothing else.
# Exits with 3 where there is no Go: a test then says that it was skipped, and the rest run.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
mkdir -p "${1:-$here/../../target/etcd}"
folder=$(cd "${1:-$here/../../target/etcd}" && pwd)

if [[ -x $folder/etcd && -x $folder/etcdctl && -x $folder/etcdutl ]]; then
    echo "$folder"
    exit 0
fi
if ! command -v go >/dev/null; then
    echo "build-etcd: no Go on this machine, so no etcd to compare with" >&2
    exit 3
fi

cd "$here"
# One at a time under a name of its own, so that a build cut short leaves nothing half made.
for tool in etcd=server etcdctl=etcdctl etcdutl=etcdutl; do
    name=${tool%%=*}
    CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o "$folder/$name.new" \
        "go.etcd.io/etcd/${tool##*=}/v3"
    mv "$folder/$name.new" "$folder/$name"
done
echo "$folder"
