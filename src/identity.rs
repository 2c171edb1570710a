//! Who a member and a cluster are, computed as etcd computes it (`membership.NewMember`).
//!
//! ```text
//! member  = first 8 bytes of sha1( peer URLs, sorted, end to end ‖ cluster token [ ‖ time ] )
//! cluster = first 8 bytes of sha1( member ids, sorted, 8 bytes each )
//! ```
//!
//! Numbers are big-endian. A member that is added to a running cluster has the time in its id too,
//! Unix seconds in decimal digits; those of a new cluster do not, so that all members compute the
//! same.

use crate::types::{ClusterId, MemberId};
use sha1::{Digest, Sha1};

/// The id of a member of a new cluster.
pub fn member_id<S: AsRef<str>>(peer_urls: &[S], cluster_token: &str) -> MemberId {
    MemberId(first_8(begun(peer_urls, cluster_token)))
}

/// The id of a member that is added to a running cluster at this time. etcd's MemberAdd names no
/// token: its cluster name is the empty text (`v3rpc.ClusterServer.MemberAdd`).
pub fn member_id_at<S: AsRef<str>>(
    peer_urls: &[S],
    cluster_name: &str,
    unix_seconds: i64,
) -> MemberId {
    let mut hash = begun(peer_urls, cluster_name);
    hash.update(unix_seconds.to_string());
    MemberId(first_8(hash))
}

fn begun<S: AsRef<str>>(peer_urls: &[S], cluster_name: &str) -> Sha1 {
    let mut urls: Vec<&str> = peer_urls.iter().map(AsRef::as_ref).collect();
    urls.sort_unstable();
    let mut hash = Sha1::new();
    for url in urls {
        hash.update(url);
    }
    hash.update(cluster_name);
    hash
}

/// The id of a new cluster of these members.
pub fn cluster_id(members: &[MemberId]) -> ClusterId {
    let mut members = members.to_vec();
    members.sort_unstable();
    let mut hash = Sha1::new();
    for member in members {
        hash.update(member.0.to_be_bytes());
    }
    ClusterId(first_8(hash))
}

fn first_8(hash: Sha1) -> u64 {
    let digest: [u8; 20] = hash.finalize().into();
    u64::from_be_bytes(*digest.first_chunk().expect("a SHA-1 digest has 20 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What etcd 3.7.1 answered to `endpoint status` when started with these.
    #[test]
    fn ids_are_those_of_etcd() {
        for (urls, token, member, cluster) in [
            (&["http://127.0.0.1:33380"][..], "tok", 15755076947241765032, 18442473120952679702),
            (
                &["http://127.0.0.1:4444", "http://127.0.0.1:33380"],
                "etcd-cluster",
                8408234236549357028,
                10469629111082312831,
            ),
            (
                &["http://localhost:2380"],
                "etcd-cluster",
                10276657743932975437,
                14841639068965178418,
            ),
        ] {
            let id = member_id(urls, token);
            assert_eq!((id, cluster_id(&[id])), (MemberId(member), ClusterId(cluster)));
        }
    }

    /// What etcd 3.7.1 answered to `member add` in that second, and three members that it began with.
    #[test]
    fn an_added_member_has_the_time_in_its_id() {
        let urls = ["http://127.0.0.1:29101", "http://127.0.0.1:29100"];
        assert_eq!(member_id_at(&urls, "", 1_795_401_331), MemberId(0xeff8_3fa6_9156_3814));
        let three = ["http://127.0.0.1:1", "http://127.0.0.1:2", "http://127.0.0.1:3"];
        let three = three.map(|url| member_id(&[url], "t"));
        assert_eq!(
            three.map(|id| id.0),
            [0x3ec7_a265_f1d8_44c1, 0x59b5_a05f_189a_3c92, 0xc565_b136_a982_e214]
        );
        assert_eq!(cluster_id(&three), ClusterId(0x241e_8354_a38f_3f00));
    }

    #[test]
    fn the_order_of_members_does_not_matter() {
        let (a, b) = (MemberId(1), MemberId(u64::MAX));
        assert_eq!(cluster_id(&[a, b]), cluster_id(&[b, a]));
    }
}
