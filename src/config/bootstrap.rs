//! The first start of a member: what `--initial-cluster` has to say, and who the member becomes.
//!
//! A member that has data never comes here, so that a start line which names a cluster long gone
//! still starts it (etcd reads `initial-*` only without a log, too).

use super::{ClusterState, Config, Url};
use crate::{
    identity::{cluster_id, member_id},
    types::{ClusterId, MemberId},
};
use std::collections::{BTreeMap, BTreeSet};

/// Who a new member is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bootstrap {
    /// Its id.
    pub member: MemberId,
    /// The id of its cluster.
    pub cluster: ClusterId,
    /// Its peer URLs, sorted.
    pub peer_urls: Vec<String>,
}

impl Config {
    /// Who this member becomes when it has no data yet.
    ///
    /// # Errors
    /// What is wrong with `--initial-cluster`, in etcd's words (`ServerConfig.VerifyBootstrap`),
    /// or that a cluster of more than this member is not built yet. etcd resolves host names
    /// before it compares URLs; here they have to be written alike.
    pub fn bootstrap(&self) -> Result<Bootstrap, String> {
        if self.initial_cluster_state == ClusterState::Existing {
            return Err(
                "--initial-cluster-state=existing: joining a cluster is not built yet".into()
            );
        }
        let members = members(&self.initial_cluster)
            .map_err(|error| format!("error setting up initial cluster: {error}"))?;
        let Some(own) = members.get(self.name.as_str()) else {
            let name = &self.name;
            return Err(format!(
                "couldn't find local name {name:?} in the initial cluster configuration"
            ));
        };
        self.check_advertised(own)?;
        check_duplicates(&members)?;
        if members.len() > 1 {
            return Err(format!(
                "--initial-cluster={:?} names {} members: a cluster of more than one is not built yet",
                self.initial_cluster,
                members.len()
            ));
        }
        let peer_urls: Vec<String> = self.advertise_peer.iter().map(Url::to_string).collect();
        let member = member_id(&peer_urls, &self.initial_cluster_token);
        Ok(Bootstrap { member, cluster: cluster_id(&[member]), peer_urls })
    }

    /// The URLs that `--initial-cluster` gives this member are those it advertises.
    fn check_advertised(&self, own: &[Url]) -> Result<(), String> {
        let normal = |urls: &[Url]| -> Vec<String> {
            let mut urls: Vec<String> = urls.iter().map(normalized).collect();
            urls.sort();
            urls
        };
        let (in_cluster, advertised) = (normal(own), normal(&self.advertise_peer));
        if in_cluster == advertised {
            return Ok(());
        }
        let name = &self.name;
        let pairs = |urls: &[Url]| {
            let mut pairs: Vec<String> = urls.iter().map(|url| format!("{name}={url}")).collect();
            pairs.sort();
            pairs.join(",")
        };
        let missing = |urls: &[Url], from: &[String]| -> Vec<Url> {
            urls.iter().filter(|url| !from.contains(&normalized(url))).cloned().collect()
        };
        let plain = |urls: &[Url]| urls.iter().map(Url::as_str).collect::<Vec<_>>().join(",");
        let advertise = plain(&self.advertise_peer);
        let from_flag = missing(own, &advertised);
        if !from_flag.is_empty() {
            let has = pairs(&from_flag);
            return Err(format!(
                "--initial-cluster has {has} but missing from --initial-advertise-peer-urls={advertise}"
            ));
        }
        let from_cluster = missing(&self.advertise_peer, &in_cluster);
        if !from_cluster.is_empty() {
            let has = plain(&from_cluster);
            return Err(format!(
                "--initial-advertise-peer-urls has {has} but missing from --initial-cluster={}",
                self.initial_cluster
            ));
        }
        Err(format!("initial cluster {} has duplicate url", self.initial_cluster))
    }
}

/// `name=URL,name=URL` by name; a name may stand more than once (etcd `types.NewURLsMap`).
fn members(text: &str) -> Result<BTreeMap<&str, Vec<Url>>, String> {
    let mut members: BTreeMap<&str, Vec<Url>> = BTreeMap::new();
    for pair in text.split(',').filter(|pair| !pair.is_empty()) {
        let (name, url) = pair.split_once('=').unwrap_or((pair, ""));
        members.entry(name).or_default().push(Url::parse(url)?);
    }
    Ok(members)
}

fn check_duplicates(members: &BTreeMap<&str, Vec<Url>>) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    if members.values().flatten().all(|url| seen.insert(url.as_str())) {
        return Ok(());
    }
    let pairs =
        members.iter().flat_map(|(name, urls)| urls.iter().map(move |url| format!("{name}={url}")));
    let all: BTreeSet<String> = pairs.collect();
    let all: Vec<String> = all.into_iter().collect();
    Err(format!("initial cluster {} has duplicate url", all.join(",")))
}

/// A URL with its IP address written the one way there is.
fn normalized(url: &Url) -> String {
    match url.host.parse() {
        Ok(ip) if !url.is_socket() => Url::of(url.scheme, ip, url.port).to_string(),
        _ => url.to_string(),
    }
}
