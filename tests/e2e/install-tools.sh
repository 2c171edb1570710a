#!/usr/bin/env bash
# Installs what tests of real processes use besides ours and etcd's: a DNS server.
set -euo pipefail

command -v dnsmasq >/dev/null && exit 0
apt-get install -y --no-install-recommends dnsmasq-base ||
    { apt-get update && apt-get install -y --no-install-recommends dnsmasq-base; }
