//! How a member without data learns who it is and in whose company (etcd `etcdserver/bootstrap.go`).
//!
//! ```text
//!  --initial-cluster ───────────────┐
//!  --discovery-srv ─ dns ─ srv ─────┼─► names and URLs ─┬─ new ──► ids from URLs and token ─► Newborn
//!  --discovery-endpoints ─ discovery┘                   └ existing ─► ids from those who run ─►
//! ```
//!
//! A member that has data never comes here, so that a start line which names a cluster long gone
//! still starts it. Everything here blocks, with a bound on each wait: the member has no executor
//! yet, and a signal ends the process at once.

mod base64;
mod discovery;
mod dns;
mod http;
mod join;
mod names;
mod srv;

#[cfg(test)]
mod tests;

use crate::{
    config::{ClusterState, Config, InitialCluster, Url, UrlsMap},
    identity::{cluster_id, member_id},
    limits::NAMES_WAIT,
    log,
    node::recover::Newborn,
    store::Member,
    types::MemberId,
};
use names::Names;

/// Who this member becomes, now that it has no data yet.
///
/// # Errors
/// What is wrong with the flags, or what others said or did not say, in etcd's words where it has
/// them.
pub fn newborn(config: &Config) -> Result<Newborn, String> {
    let map = initial_cluster(config)
        .map_err(|error| format!("error setting up initial cluster: {error}"))?;
    check_reachable(&map, &config.name)?;
    match config.initial_cluster_state {
        ClusterState::New => begin(config, map, &Names::of_machine()),
        ClusterState::Existing => join::join(config, &map, &Names::of_machine()),
    }
}

/// The members that the flags name, or the records in DNS. With a discovery service it is only this
/// one until the service has been asked (etcd `PeerURLsMapAndToken`).
fn initial_cluster(config: &Config) -> Result<UrlsMap, String> {
    match &config.initial_cluster {
        InitialCluster::Named(text) => UrlsMap::parse(text),
        InitialCluster::Discovery(_) => Ok(UrlsMap::one(&config.name, &config.advertise_peer)),
        InitialCluster::Srv { domain, service } => {
            let resolver = dns::Resolver::of_machine()?;
            let lookup = srv::Lookup {
                services: &|name| resolver.services(name),
                address: &|host| Ok(names::lookup(host, NAMES_WAIT)?[0]),
            };
            srv::initial_cluster(config, domain, service, &lookup)
        }
    }
}

/// What goes into the ids besides URLs.
fn token(config: &Config) -> &str {
    match &config.initial_cluster {
        InitialCluster::Discovery(discovery) => &discovery.token,
        _ => &config.initial_cluster_token,
    }
}

/// A member of a cluster that begins with the data of another, as [`newborn`] would make it but without
/// asking anybody who runs (etcd `config.VerifyBootstrap`).
///
/// # Errors
/// As [`newborn`].
pub fn restored(
    name: &str,
    advertised: &[Url],
    map: &UrlsMap,
    token: &str,
) -> Result<Newborn, String> {
    let own = own_urls(name, map)?;
    check_advertised(name, advertised, own, &Names::of_machine())?;
    check_duplicates("initial", map)?;
    check_reachable(map, name)?;
    let members = members(map, token)?;
    let ids: Vec<MemberId> = members.iter().map(|member| member.id).collect();
    Ok(Newborn { cluster: cluster_id(&ids), member: member_id(own, token), members })
}

/// A cluster that begins.
fn begin(config: &Config, mut map: UrlsMap, names: &Names) -> Result<Newborn, String> {
    let own = own_urls(&config.name, &map)?;
    check_advertised(&config.name, &config.advertise_peer, own, names)?;
    check_duplicates("initial", &map)?;
    let mut members = members(&map, token(config))?;
    let own = member_id(own, token(config));
    if join::has_been_here(own, &map.urls_but_of(&config.name)) {
        return Err(format!("member {own} has already been bootstrapped"));
    }
    if let InitialCluster::Discovery(discovery) = &config.initial_cluster {
        let said = discovery::join(discovery, own, &map.to_string());
        map = UrlsMap::parse(&said.map_err(|error| {
            log::warn!("do not reuse a discovery token; generate a new one to bootstrap a cluster");
            format!("failed to join discovery cluster ({error})")
        })?)?;
        check_duplicates("discovery", &map)?;
        check_reachable(&map, &config.name)?;
        members = self::members(&map, token(config))?;
    }
    let ids: Vec<MemberId> = members.iter().map(|member| member.id).collect();
    let cluster = cluster_id(&ids);
    log::info!(
        "learned the members of a new cluster",
        "cluster-id" => cluster.to_string(),
        "member-id" => own.to_string(),
        "initial-cluster" => map.to_string(),
    );
    Ok(Newborn { cluster, member: own, members })
}

/// The URLs that the initial cluster gives this member (etcd `hasLocalMember`).
fn own_urls<'a>(name: &str, map: &'a UrlsMap) -> Result<&'a [Url], String> {
    map.get(name).ok_or_else(|| {
        format!("couldn't find local name {name:?} in the initial cluster configuration")
    })
}

fn check_duplicates(what: &str, map: &UrlsMap) -> Result<(), String> {
    match map.has_duplicate() {
        true => Err(format!("{what} cluster {map} has duplicate url")),
        false => Ok(()),
    }
}

/// Every other member has a URL that we can speak to.
fn check_reachable(map: &UrlsMap, name: &str) -> Result<(), String> {
    let plain = |urls: &[Url]| urls.iter().any(http::can_ask);
    match map.iter().find(|(other, urls)| *other != name && !plain(urls)) {
        None => Ok(()),
        Some((other, urls)) => Err(format!(
            "the initial cluster has only {} for member {other}: members are reached by http, \
             because TLS and sockets between them are not built yet",
            joined(urls)
        )),
    }
}

/// The members as they are in a new cluster (etcd `membership.NewClusterFromURLsMap`).
fn members(map: &UrlsMap, token: &str) -> Result<Vec<Member>, String> {
    let mut members: Vec<Member> = Vec::new();
    for (name, urls) in map.iter() {
        let id = member_id(urls, token);
        let peer_urls = urls.iter().map(ToString::to_string).collect();
        let member = Member { id, name: name.to_owned(), peer_urls, ..Member::default() };
        if members.iter().any(|other| other.id == id) {
            return Err(format!("member exists with identical ID {}", join::shown(&member)));
        }
        if id == MemberId(0) {
            return Err("cannot use 0 as member id".into());
        }
        members.push(member);
    }
    members.sort_unstable_by_key(|member| member.id);
    Ok(members)
}

/// The URLs that the initial cluster gives this member lead where those lead that it advertises
/// (etcd `advertiseMatchesCluster`).
fn check_advertised(
    name: &str,
    advertised: &[Url],
    own: &[Url],
    names: &Names,
) -> Result<(), String> {
    let Err(why) = names.same(advertised, own) else { return Ok(()) };
    let missing = |urls: &[Url], from: &[Url]| -> Vec<_> {
        urls.iter().filter(|url| !from.contains(url)).cloned().collect()
    };
    let as_cluster = UrlsMap::one(name, advertised);
    let extra = missing(own, advertised);
    if !extra.is_empty() {
        let has = UrlsMap::one(name, &extra);
        return Err(format!(
            "--initial-cluster has {has} but missing from --initial-advertise-peer-urls={} ({why})",
            joined(advertised)
        ));
    }
    let extra = missing(advertised, own);
    if !extra.is_empty() {
        return Err(format!(
            "--initial-advertise-peer-urls has {} but missing from --initial-cluster={as_cluster}",
            joined(&extra)
        ));
    }
    Err(format!(
        "failed to resolve {} to match --initial-cluster={as_cluster} ({why})",
        joined(advertised)
    ))
}

fn joined(urls: &[Url]) -> String {
    urls.iter().map(Url::as_str).collect::<Vec<_>>().join(",")
}
