//! The address that this machine would call out from.

use std::net::{IpAddr, UdpSocket};

/// The source address of the default route, IPv4 before IPv6; `None` without a route.
///
/// etcd asks the routing table (`netutil.GetDefaultHost`). Connecting a datagram socket asks it
/// the same and sends nothing; the addresses are those set aside for documentation (RFC 5737,
/// RFC 3849), which only a default route covers.
pub fn default_host() -> Option<IpAddr> {
    route("0.0.0.0:0", "192.0.2.1:9").or_else(|| route("[::]:0", "[2001:db8::1]:9"))
}

fn route(from: &str, to: &str) -> Option<IpAddr> {
    let socket = UdpSocket::bind(from).ok()?;
    socket.connect(to).ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_unspecified()).then_some(ip)
}
