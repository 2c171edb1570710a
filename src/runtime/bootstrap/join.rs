//! What those who run already say: who the members are, so that this one learns its own id, and
//! what they speak, so that it does not join what it does not understand.
//!
//! A member is announced (`etcdctl member add`) before it starts. What it knows of the cluster then
//! are peer URLs; ids it takes from the members that run (etcd `membership.ValidateClusterAndAssignIDs`).

use super::{
    check_duplicates,
    http::{self, Answer, Patience},
    members,
    names::{self, Names},
    own_urls,
};
use crate::{
    api::API_VERSION,
    config::{Config, InitialCluster, Url, UrlsMap},
    limits::{BOOTSTRAP_ASK_WAIT, JOIN_DOWNGRADE_WAIT, JOIN_MEMBERS_WAIT, JOIN_VERSION_WAIT},
    log,
    node::recover::Newborn,
    store::Member,
    types::{ClusterId, MemberId},
};
use serde_json::Value;
use std::{fmt, thread};

/// A cluster as its members tell it.
#[derive(Debug, PartialEq, Eq)]
pub struct Remote {
    cluster: ClusterId,
    members: Vec<Member>,
}

#[cfg(test)]
impl Remote {
    pub fn members(&self) -> &[Member] {
        &self.members
    }
}

/// A member of the cluster that the initial cluster names.
///
/// # Errors
/// Why it cannot join, in etcd's words (`bootstrapExistingClusterNoWAL`).
pub fn join(config: &Config, map: &UrlsMap, names: &Names) -> Result<Newborn, String> {
    own_urls(&config.name, map)?;
    check_duplicates("initial", map)?;
    if matches!(config.initial_cluster, InitialCluster::Discovery(_)) {
        return Err("discovery URL should not be set when joining existing initial cluster".into());
    }
    members(map, super::token(config))?;
    let remote = ask_all(&map.urls_but_of(&config.name))
        .map_err(|error| format!("cannot fetch cluster info from peer urls: {error}"))?;
    let local = assign(map, &remote.members, names)
        .map_err(|error| format!("error validating peerURLs {remote}: {error}"))?;
    let own = local.iter().find(|(name, _)| name == &config.name);
    let own = own.map(|(_, id)| *id).expect("every name was given an id, ours among them");
    let patience = Patience::of(JOIN_VERSION_WAIT + 2 * config.election);
    let others: Vec<&Member> = remote.members.iter().filter(|member| member.id != own).collect();
    if !are_compatible(&others, patience) {
        return Err("incompatible with current running cluster".into());
    }
    let learners = remote.members.iter().filter(|member| member.learner).count();
    if i64::try_from(learners).is_ok_and(|learners| learners > config.max_learners) {
        return Err("membership: too many learner members in cluster".into());
    }
    log::info!(
        "learned the cluster to join",
        "cluster-id" => remote.cluster.to_string(),
        "member-id" => own.to_string(),
        "members" => remote.members.len(),
    );
    Ok(Newborn { cluster: remote.cluster, member: own, members: Vec::new() })
}

/// Whether one of these members knows `own` as a member that has run (etcd `isMemberBootstrapped`).
/// Who does not answer has nothing to say.
pub fn has_been_here(own: MemberId, urls: &[Url]) -> bool {
    let remotes = at_once(urls, |url| ask(url, Patience::of(BOOTSTRAP_ASK_WAIT)));
    let known = remotes.iter().flatten().flat_map(|remote| &remote.members);
    known.into_iter().any(|member| member.id == own && !member.client_urls.is_empty())
}

// ── who the members are ─────────────────────────────────────────────────────────────────────────

/// The first answer counts (etcd `GetClusterFromRemotePeers`).
fn ask_all(urls: &[Url]) -> Result<Remote, String> {
    for url in urls {
        match ask(url, Patience::of(JOIN_MEMBERS_WAIT)) {
            Ok(remote) if remote.members.is_empty() => {
                return Err("failed to get raft cluster member(s) from the given URLs".into());
            }
            Ok(remote) => return Ok(remote),
            Err(error) => {
                let address = format!("{url}/members");
                log::warn!("failed to get cluster response", "address" => address, "error" => error);
            }
        }
    }
    Err("could not retrieve cluster information from the given URLs".into())
}

fn ask(url: &Url, patience: Patience) -> Result<Remote, String> {
    remote(&http::get(url, "/members", patience)?)
}

/// Reads an answer of `/members`.
pub(super) fn remote(answer: &Answer) -> Result<Remote, String> {
    let header = answer.header("x-etcd-cluster-id").unwrap_or_default();
    let members: Vec<Value> = serde_json::from_slice(&answer.body)
        .map_err(|error| format!("status {}, no list of members: {error}", answer.status))?;
    let members = members.iter().map(member).collect::<Option<_>>();
    let cluster = u64::from_str_radix(header, 16)
        .map_err(|_| format!("failed to parse cluster ID {header:?}"))?;
    let members = members.ok_or("a member in the list is not as etcd writes it")?;
    Ok(Remote { cluster: ClusterId(cluster), members })
}

/// A member in etcd's JSON: `{"id":1,"peerURLs":[],"isLearner":true,"name":"","clientURLs":[]}`.
fn member(json: &Value) -> Option<Member> {
    let texts = |key: &str| match &json[key] {
        Value::Null => Some(Vec::new()),
        Value::Array(items) => items.iter().map(|item| Some(item.as_str()?.to_owned())).collect(),
        _ => None,
    };
    Some(Member {
        id: MemberId(json["id"].as_u64()?),
        name: json["name"].as_str().unwrap_or_default().to_owned(),
        peer_urls: texts("peerURLs")?,
        client_urls: texts("clientURLs")?,
        learner: json["isLearner"].as_bool().unwrap_or_default(),
    })
}

/// Names with the ids that the running cluster has for their URLs.
///
/// # Errors
/// etcd's sentence for members that are not the same.
pub(super) fn assign(
    map: &UrlsMap,
    existing: &[Member],
    names: &Names,
) -> Result<Vec<(String, MemberId)>, String> {
    let mut left: Vec<(&str, &[Url])> = map.iter().collect();
    if left.len() != existing.len() {
        return Err("member count is unequal".into());
    }
    let mut known = Vec::new();
    for member in existing {
        let urls =
            member.peer_urls.iter().map(|url| Url::parse(url)).collect::<Result<Vec<_>, _>>();
        let found = urls.and_then(|urls| position(&left, &urls, names)).map_err(|why| {
            format!(
                "PeerURLs: no match found for existing member ({}, [{}]), last resolver error ({why})",
                member.id,
                member.peer_urls.join(" ")
            )
        })?;
        known.push((left.swap_remove(found).0.to_owned(), member.id));
    }
    Ok(known)
}

/// Which of these has the same URLs. What is written alike needs no name to be looked up.
fn position(left: &[(&str, &[Url])], urls: &[Url], names: &Names) -> Result<usize, String> {
    if let Some(found) = left.iter().position(|(_, own)| names::alike(own, urls)) {
        return Ok(found);
    }
    let mut last = "no member is left".to_owned();
    for (at, (_, own)) in left.iter().enumerate() {
        match names.same(urls, own) {
            Ok(()) => return Ok(at),
            Err(why) => last = why,
        }
    }
    Err(last)
}

// ── what they speak ─────────────────────────────────────────────────────────────────────────────

/// Major, minor, patch.
type Version = (u64, u64, u64);

/// The oldest cluster that etcd 3.7 joins (`version.MinClusterVersion`).
const OLDEST: Version = (3, 0, 0);

/// At least one of the others says the cluster's version, and all that do say one that this member
/// can be part of (etcd `isCompatibleWithCluster`).
fn are_compatible(others: &[&Member], patience: Patience) -> bool {
    let versions = at_once(others, |member| {
        let answer = first_answer(member, "/version", patience, |answer| {
            let json: Value = serde_json::from_slice(&answer.body).ok()?;
            Some(json["etcdcluster"].as_str()?.to_owned())
        });
        answer.map_err(|error| {
            let id = member.id.to_string();
            log::warn!("failed to get version", "remote-member-id" => id, "error" => error);
        })
    });
    // This takes a quorum, which a cluster of one has lost to the very member that joins; etcd then
    // waits as long as for a version. Who cannot say it is not on its way down.
    let downgrades = at_once(others, |member| {
        first_answer(member, "/downgrade/enabled", Patience::of(JOIN_DOWNGRADE_WAIT), |answer| {
            std::str::from_utf8(&answer.body).ok()?.trim().parse::<bool>().ok()
        })
    });
    let said: Vec<String> = versions.into_iter().flatten().collect();
    fits(&said, downgrades.into_iter().flatten().next().unwrap_or(false))
}

/// etcd `allowedVersionRange` and `isCompatibleWithVers`. A cluster on its way down takes only
/// members of the version it comes from.
pub(super) fn fits(cluster_versions: &[String], downgrade: bool) -> bool {
    let (major, minor, _) = version(API_VERSION).expect("our own is a version");
    let (least, most) = match downgrade {
        true => ((major, minor + 1, 0), (major, minor + 1, 0)),
        false => (OLDEST, (major, minor, 0)),
    };
    let known: Vec<Version> = cluster_versions.iter().filter_map(|said| version(said)).collect();
    if let Some(wrong) = known.iter().find(|known| !(least..=most).contains(*known)) {
        log::warn!(
            "cluster version of remote member is not compatible",
            "remote-member-cluster-version" => format!("{wrong:?}"),
            "minimum-cluster-version-supported" => format!("{least:?}"),
            "maximum-cluster-version-supported" => format!("{most:?}"),
        );
        return false;
    }
    !known.is_empty()
}

fn version(text: &str) -> Option<Version> {
    let plain = text.split(['-', '+']).next()?;
    let mut parts = plain.splitn(3, '.').map(|part| part.parse::<u64>().ok());
    Some((parts.next()??, parts.next()??, parts.next()??))
}

/// The first of a member's URLs that answers something that can be read.
fn first_answer<T>(
    member: &Member,
    path: &str,
    patience: Patience,
    read: impl Fn(&Answer) -> Option<T>,
) -> Result<T, String> {
    let mut last = "it has no peer URL".to_owned();
    for url in &member.peer_urls {
        let answer = Url::parse(url).and_then(|url| http::get(&url, path, patience));
        match answer {
            Err(error) => last = error,
            Ok(answer) => match read(&answer) {
                Some(found) => return Ok(found),
                None => last = format!("{url}{path} answers {} and cannot be read", answer.status),
            },
        }
    }
    Err(last)
}

/// Asks all at the same time: who is silent holds nobody else up.
fn at_once<T: Sync, R: Send>(all: &[T], ask: impl Fn(&T) -> R + Sync) -> Vec<R> {
    thread::scope(|scope| {
        let asked: Vec<_> = all.iter().map(|one| scope.spawn(|| ask(one))).collect();
        let heard = asked.into_iter().map(|thread| thread.join());
        heard.map(|answer| answer.expect("a panic ends the process")).collect()
    })
}

// ── how etcd prints them ────────────────────────────────────────────────────────────────────────

/// A member as Go prints etcd's.
pub fn shown(member: &Member) -> String {
    let Member { id, name, peer_urls, client_urls, learner } = member;
    format!(
        "&{{ID:{id} RaftAttributes:{{PeerURLs:[{}] IsLearner:{learner}}} \
         Attributes:{{Name:{name} ClientURLs:[{}]}}}}",
        peer_urls.join(" "),
        client_urls.join(" ")
    )
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let members: Vec<String> = self.members.iter().map(shown).collect();
        let (cluster, members) = (self.cluster, members.join(" "));
        write!(f, "{{ClusterID:{cluster} Members:[{members}] RemovedMemberIDs:[]}}")
    }
}
