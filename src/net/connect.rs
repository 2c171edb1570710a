//! To another member's socket.
//!
//! Names are looked up on a thread of their own, each time anew: the machine's resolver may take
//! seconds, a member's address may change while its name stays, and there are few members.

use crate::mesh::rings;
use glommio::net::TcpStream;
use std::{
    fmt,
    future::poll_fn,
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    task::Poll,
    time::Duration,
};

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    /// A name or an address, an IPv6 one without its brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl Authority {
    /// Reads `host:port` or `[v6]:port`.
    pub fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = bare.unwrap_or(host);
        let is_name = !host.is_empty() && (bare.is_some() || !host.contains(':'));
        Some(Self { host: host.into(), port: port.parse().ok()? }).filter(|_| is_name)
    }
}

/// A connection to the first address that `to` leads to, or why there is none after `wait`. Small
/// messages leave at once (`TCP_NODELAY`).
///
/// # Errors
/// What the resolver or the machine says.
pub async fn connect(to: &Authority, wait: Duration) -> io::Result<TcpStream> {
    let address = resolve(to).await?;
    let socket = TcpStream::connect_timeout(address, wait).await.map_err(io::Error::from)?;
    socket.set_nodelay(true).map_err(io::Error::from)?;
    Ok(socket)
}

async fn resolve(to: &Authority) -> io::Result<SocketAddr> {
    if let Ok(ip) = to.host.parse::<IpAddr>() {
        return Ok(SocketAddr::new(ip, to.port));
    }
    let (mut senders, mut inbox) = rings(1, 1);
    let mut sender = senders.pop().expect("one ring was asked for");
    let (host, port) = (to.host.clone(), to.port);
    std::thread::Builder::new().name("resolve".into()).spawn(move || {
        let found = (host.as_str(), port).to_socket_addrs();
        let first = found.and_then(|mut all| {
            all.next().ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no address"))
        });
        // Whoever asked may have gone.
        let _gone = sender.try_send(first).is_err();
    })?;
    let answer = poll_fn(|cx| {
        // Registered before the looks, so that neither the answer nor the thread's end is missed.
        let _looked_at_below = inbox.poll_ready(cx).is_ready();
        match (inbox.pop(), inbox.is_closed()) {
            (Some(found), _) => Poll::Ready(found),
            (None, true) => Poll::Ready(Err(io::Error::other("the lookup came to nothing"))),
            (None, false) => Poll::Pending,
        }
    });
    answer
        .await
        .map_err(|error| io::Error::new(error.kind(), format!("lookup {}: {error}", to.host)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_are_read_and_said() {
        for text in ["127.0.0.1:2380", "etcd-0.etcd:2380", "[::1]:2380"] {
            assert_eq!(Authority::parse(text).map(|read| read.to_string()).as_deref(), Some(text));
        }
        for text in ["", ":1", "host", "host:", "host:x", "::1:2380", "host:65536"] {
            assert_eq!(Authority::parse(text), None, "{text}");
        }
    }

    #[test]
    fn names_are_looked_up() {
        let executor = glommio::LocalExecutor::default();
        let found = executor.run(async {
            let localhost = resolve(&Authority { host: "localhost".into(), port: 7 }).await;
            let nowhere = resolve(&Authority { host: "no.such.invalid".into(), port: 7 }).await;
            (localhost, nowhere)
        });
        assert!(found.0.is_ok_and(|address| address.ip().is_loopback() && address.port() == 7));
        assert!(found.1.is_err_and(|error| error.to_string().contains("no.such.invalid")));
    }
}
