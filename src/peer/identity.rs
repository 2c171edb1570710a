//! Who speaks, in the headers that members send each other, and whether the two get on (etcd
//! `rafthttp/util.go`, `checkClusterCompatibilityFromHeader`).

use crate::{
    api::API_VERSION,
    net::http1::Headers,
    types::{ClusterId, MemberId},
};
use std::fmt::Write;

/// The oldest cluster that this member can be part of (etcd `version.MinClusterVersion`).
const MIN_CLUSTER_VERSION: &str = "3.0.0";
/// What a member without a word on its version is (etcd: 2.0 did not say).
const UNSAID_VERSION: &str = "2.0.0";

/// Rises with each start of a Ringleader; etcd does not send it and passes it over.
pub const BOOT: &str = "X-Ringleader-Boot";
/// Which cluster.
pub const CLUSTER: &str = "X-Etcd-Cluster-Id";

/// Why a request is not taken, in etcd's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// One side is too old for the other.
    Version,
    /// Another cluster.
    Cluster,
}

impl Mismatch {
    /// The body of the answer, without its line's end.
    pub fn text(self) -> &'static str {
        match self {
            Self::Version => "incompatible version",
            Self::Cluster => "cluster ID mismatch",
        }
    }
}

/// This member.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Its id.
    pub member: MemberId,
    /// Its cluster.
    pub cluster: ClusterId,
    /// Where others reach it (`--initial-advertise-peer-urls`).
    pub peer_urls: Vec<String>,
    /// When it started, microseconds since the epoch.
    pub boot: u64,
}

impl Identity {
    /// The head of a request to `host`, without its end; header names as Go writes them.
    pub fn request(&self, method: &str, path: &str, host: &str) -> String {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n");
        let mut line = |name: &str, value: &dyn std::fmt::Display| {
            write!(head, "{name}: {value}\r\n").expect("a string takes everything");
        };
        line(CLUSTER, &self.cluster);
        line("X-Min-Cluster-Version", &MIN_CLUSTER_VERSION);
        if !self.peer_urls.is_empty() {
            line("X-Peerurls", &self.peer_urls.join(","));
        }
        line(BOOT, &self.boot);
        line("X-Server-From", &self.member);
        line("X-Server-Version", &API_VERSION);
        head
    }

    /// Whether whoever sent these headers belongs to this cluster and speaks a version that gets on
    /// with ours.
    ///
    /// # Errors
    /// [`Mismatch`].
    pub fn check(&self, headers: &Headers) -> Result<(), Mismatch> {
        let said =
            |name| headers.get(name).filter(|said| !said.is_empty()).unwrap_or(UNSAID_VERSION);
        let server = minor(said("x-server-version"));
        let needs = minor(said("x-min-cluster-version"));
        let old_enough = server.is_some_and(|server| Some(server) >= minor(MIN_CLUSTER_VERSION));
        let new_enough = needs.is_some_and(|needs| Some(needs) <= minor(API_VERSION));
        if !old_enough || !new_enough {
            return Err(Mismatch::Version);
        }
        match headers.get(CLUSTER) == Some(self.cluster.to_string().as_str()) {
            true => Ok(()),
            false => Err(Mismatch::Cluster),
        }
    }
}

/// Major and minor of `major.minor.patch`.
fn minor(version: &str) -> Option<(u64, u64)> {
    let mut parts = version.split('.');
    let minor = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    parts.next().map(|_patch| minor)
}

/// The start that a member names in these headers; none of an etcd.
pub fn boot_of(headers: &Headers) -> Option<u64> {
    headers.get(BOOT)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::http1::{Parsed, take_request};

    fn own() -> Identity {
        Identity {
            member: MemberId(0xa1),
            cluster: ClusterId(0xc2),
            peer_urls: vec!["http://a:1".into(), "http://b:2".into()],
            boot: 77,
        }
    }

    fn headers(text: &str) -> Headers {
        match take_request(&mut format!("{text}\r\n").as_str().into()) {
            Parsed::Whole(request) => request.headers,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn members_of_one_cluster_know_each_other() {
        let text = own().request("GET", "/raft/stream/msgapp/a1", "b:2");
        let said = headers(&text);
        assert_eq!(own().check(&said), Ok(()));
        assert_eq!(said.get("X-PeerURLs"), Some("http://a:1,http://b:2"));
        assert_eq!((said.get("x-server-from"), boot_of(&said)), (Some("a1"), Some(77)));
        let other = Identity { cluster: ClusterId(1), ..own() };
        assert_eq!(other.check(&said), Err(Mismatch::Cluster));
    }

    #[test]
    fn versions_must_get_on() {
        let check = |server: &str, needs: &str| {
            let text = format!(
                "GET / HTTP/1.1\r\n{CLUSTER}: c2\r\nX-Server-Version: {server}\r\nX-Min-Cluster-Version: {needs}\r\n"
            );
            own().check(&headers(&text))
        };
        assert_eq!(check("3.4.9", "3.0.0"), Ok(()));
        assert_eq!(check("3.7.9-alpha.1", "3.7.0"), Ok(()));
        for (server, needs) in
            [("2.3.0", "3.0.0"), ("3.9.0", "3.8.0"), ("", "3.0.0"), ("x", "3.0.0"), ("3.7.0", "")]
        {
            let expected = if needs.is_empty() { Ok(()) } else { Err(Mismatch::Version) };
            assert_eq!(check(server, needs), expected, "{server} {needs}");
        }
    }
}
