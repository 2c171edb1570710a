//! Bodies of the plain HTTP endpoints, of clients and of members (etcd `api/etcdhttp`,
//! `etcdserver/corrupt.go`). Which read to make is the shard's; what to say is here.

use super::{API_VERSION, maintenance::alarm_name, status::Status};
use crate::store::{ALARM_CORRUPT, ALARM_NOSPACE, Cluster, Hash, Member, RaftSeen};
use crate::types::{MemberId, Revision};

/// An HTTP answer without its headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub code: u16,
    /// The body.
    pub body: String,
}

/// `/health` before its read: the answer if an alarm is up that `excluded` does not name, or if
/// nobody leads and a local read will not do. `None`: make the read, then [`health_read`].
pub fn health_now(
    cluster: &Cluster,
    raft: RaftSeen,
    excluded: &[&str],
    serializable: bool,
) -> Option<Answer> {
    let counted = |kind: i32| !excluded.contains(&alarm_name(kind).as_str());
    if let Some(alarm) = cluster.alarms.iter().find(|alarm| counted(alarm.kind)) {
        return Some(unhealthy(match alarm.kind {
            ALARM_NOSPACE => "ALARM NOSPACE",
            ALARM_CORRUPT => "ALARM CORRUPT",
            _ => "ALARM UNKNOWN",
        }));
    }
    (raft.leader.0 == 0 && !serializable).then(|| unhealthy("RAFT NO LEADER"))
}

/// `/health` after its read.
pub fn health_read(read: Result<(), Status>) -> Answer {
    match read {
        Ok(()) => Answer { code: 200, body: r#"{"health":"true","reason":""}"#.to_owned() },
        Err(status) => unhealthy(&format!("RANGE ERROR:{}", status.message)),
    }
}

/// `http.Error` again; the good answer has no newline.
fn unhealthy(reason: &str) -> Answer {
    let reason = serde_json::Value::from(reason);
    Answer { code: 503, body: format!("{{\"health\":\"false\",\"reason\":{reason}}}\n") }
}

/// `/livez`, `/readyz` and their parts: one line a check, in the order given; the lines are shown
/// when something failed or `verbose` was asked for. Go's `http.Error` ends its body with a newline.
pub fn checks(results: &[(&str, Result<(), String>)], verbose: bool) -> Answer {
    let line = |(name, result): &(&str, Result<(), String>)| match result {
        Ok(()) => format!("[+]{name} ok\n"),
        Err(error) => format!("[-]{name} failed: {error}\n"),
    };
    let lines: String = results.iter().map(line).collect();
    if results.iter().any(|(_, result)| result.is_err()) {
        return Answer { code: 503, body: lines + "\n" };
    }
    Answer { code: 200, body: if verbose { lines + "ok\n" } else { "ok\n".to_owned() } }
}

/// `/version`.
pub fn version(cluster: &Cluster) -> Answer {
    let body = format!(
        r#"{{"etcdserver":"{API_VERSION}","etcdcluster":"{}","storage":"{}"}}"#,
        cluster.version.as_deref().unwrap_or("not_decided"),
        storage_version(cluster).as_deref().unwrap_or("unknown"),
    );
    Answer { code: 200, body }
}

/// `/members` of the peers' port: Go's JSON of etcd's `membership.Member`, by id. Zeros are left
/// out, except of the URLs where members are reached.
pub fn members<'a>(members: impl IntoIterator<Item = &'a Member>) -> Answer {
    let one = |member: &Member| {
        let mut fields = vec![
            format!("\"id\":{}", member.id.0),
            format!("\"peerURLs\":{}", serde_json::Value::from(member.peer_urls.clone())),
        ];
        fields.extend(member.learner.then(|| "\"isLearner\":true".to_owned()));
        if !member.name.is_empty() {
            fields.push(format!("\"name\":{}", serde_json::Value::from(member.name.clone())));
        }
        if !member.client_urls.is_empty() {
            let urls = serde_json::Value::from(member.client_urls.clone());
            fields.push(format!("\"clientURLs\":{urls}"));
        }
        format!("{{{}}}", fields.join(","))
    };
    let all: Vec<_> = members.into_iter().map(one).collect();
    Answer { code: 200, body: format!("[{}]\n", all.join(",")) }
}

/// Reads what [`members`] or an etcd wrote; `None` where it is something else.
pub fn read_members(body: &[u8]) -> Option<Vec<Member>> {
    let said: serde_json::Value = serde_json::from_slice(body).ok()?;
    let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
    let texts = |value: Option<&serde_json::Value>| match value {
        Some(serde_json::Value::Array(all)) => all.iter().map(text).collect(),
        _ => Some(Vec::new()),
    };
    let one = |said: &serde_json::Value| {
        Some(Member {
            id: MemberId(said.get("id")?.as_u64()?),
            name: said.get("name").map_or(Some(String::new()), text)?,
            peer_urls: texts(said.get("peerURLs"))?,
            client_urls: texts(said.get("clientURLs"))?,
            learner: said.get("isLearner").and_then(serde_json::Value::as_bool).unwrap_or(false),
        })
    };
    said.as_array()?.iter().map(one).collect()
}

/// The revision in the body of a `/members/hashkv`, as Go reads it: names in any case, the last one
/// counts, and nothing is 0. `None`: that is no such body.
pub fn read_hash_kv(body: &[u8]) -> Option<Revision> {
    let said: serde_json::Value = serde_json::from_slice(body).ok()?;
    if said.is_null() {
        return Some(Revision(0));
    }
    let mut revision = 0;
    for (name, value) in said.as_object()? {
        if name.eq_ignore_ascii_case("revision") && !value.is_null() {
            revision = value.as_i64()?;
        }
    }
    Some(Revision(revision))
}

/// The answer to it: Go's JSON of `HashKVResponse`, which leaves out what is 0. Its header has the
/// newest revision and nothing else.
pub fn hash_kv(newest: Revision, hash: Hash) -> Answer {
    let fields = [
        ("hash", i64::from(hash.sum)),
        ("compact_revision", hash.compacted.0),
        ("hash_revision", hash.revision.0),
    ];
    let said = fields.into_iter().filter(|(_, number)| *number != 0);
    let said: String = said.map(|(name, number)| format!(r#","{name}":{number}"#)).collect();
    Answer { code: 200, body: format!(r#"{{"header":{{"revision":{}}}{said}}}"#, newest.0) }
}

/// etcd's storage version follows the cluster's, minor for minor.
pub fn storage_version(cluster: &Cluster) -> Option<String> {
    let mut parts = cluster.version.as_deref()?.split('.');
    Some(format!("{}.{}.0", parts.next()?, parts.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_etcds_json_and_come_back() {
        let started = Member {
            id: MemberId(u64::MAX),
            name: "a\"b".into(),
            peer_urls: vec!["http://a:1".into(), "http://b:2".into()],
            client_urls: vec!["http://c:3".into()],
            learner: false,
        };
        let peer_urls = vec!["http://d:4".into()];
        let added = Member { id: MemberId(5), peer_urls, learner: true, ..Member::default() };
        let said = members([&added, &started]).body;
        let expected = concat!(
            r#"[{"id":5,"peerURLs":["http://d:4"],"isLearner":true},"#,
            r#"{"id":18446744073709551615,"peerURLs":["http://a:1","http://b:2"],"#,
            r#""name":"a\"b","clientURLs":["http://c:3"]}]"#,
            "\n"
        );
        assert_eq!(said, expected);
        assert_eq!(read_members(said.as_bytes()), Some(vec![added, started]));
        for bad in ["", "{}", "[1]", r#"[{"id":-1}]"#, r#"[{"id":1,"name":2}]"#] {
            assert_eq!(read_members(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn numbers_that_are_zero_are_not_said() {
        let hash = |sum, revision, compacted| {
            let (revision, compacted) = (Revision(revision), Revision(compacted));
            hash_kv(Revision(9), Hash { sum, revision, compacted }).body
        };
        let all = r#"{"header":{"revision":9},"hash":1,"compact_revision":-1,"hash_revision":8}"#;
        assert_eq!(hash(1, 8, -1), all);
        assert_eq!(hash(0, 0, 0), r#"{"header":{"revision":9}}"#);
    }
}
