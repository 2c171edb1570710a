#!/bin/sh
# Runs a command in a network of its own with a DNS server in it; in namespaces that end with it.
# $1: what /etc/resolv.conf is to say; $2: the server's configuration; then the command.
set -e
resolv=$1 conf=$2
shift 2
ip link set lo up
mount --bind "$resolv" /etc/resolv.conf
# It goes to the background once it listens.
dnsmasq --conf-file="$conf"
exec "$@"
