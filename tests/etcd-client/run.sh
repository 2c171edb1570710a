#!/usr/bin/env bash
# The etcd-client crate against a fresh server.
#
#   tests/etcd-client/run.sh BINARY
#
# The crate's build needs protoc, which is installed where it is missing and this is allowed.
set -euo pipefail

binary=$(realpath "${1:?usage: tests/etcd-client/run.sh BINARY}")
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
target=${CARGO_TARGET_DIR:-$here/../../target}/etcd-client

if ! command -v protoc >/dev/null; then
    sudo=
    ((EUID == 0)) || sudo=sudo
    $sudo apt-get update -q
    $sudo apt-get install -qy protobuf-compiler
fi
CARGO_TARGET_DIR=$target cargo build --locked --manifest-path "$here/Cargo.toml"
"$here/../with-server.sh" "$binary" -- timeout 5m "$target/debug/etcd-client-test"
