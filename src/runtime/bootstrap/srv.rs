//! The members of a cluster from service records in DNS (etcd `client/pkg/srv`,
//! `embed.Config.GetDNSClusterNames`).
//!
//! ```text
//!  _etcd-server-ssl[-NAME]._tcp.DOMAIN   https ┐   each record is a URL of a member
//!  _etcd-server[-NAME]._tcp.DOMAIN       http  ┘
//! ```
//!
//! A record says where a member is, and not who. The one that leads where this member is reached is
//! this member; the others are called 0, 1, … until they say their names themselves.

use super::dns::Record;
use crate::{
    config::{Config, Scheme, Url, UrlsMap},
    log,
};
use std::net::{IpAddr, SocketAddr};

/// How names are looked up.
pub struct Lookup<'a> {
    /// The records of a service: `_etcd-server._tcp.example.com`.
    pub services: &'a dyn Fn(&str) -> Result<Vec<Record>, String>,
    /// The address of a host.
    pub address: &'a dyn Fn(&str) -> Result<IpAddr, String>,
}

/// The initial cluster that DNS has.
///
/// # Errors
/// No records, or none of this member, in etcd's words.
pub fn initial_cluster(
    config: &Config,
    domain: &str,
    suffix: &str,
    lookup: &Lookup<'_>,
) -> Result<UrlsMap, String> {
    let (mut found, mut errors) = (Vec::new(), Vec::new());
    for (scheme, service) in [(Scheme::Https, "etcd-server-ssl"), (Scheme::Http, "etcd-server")] {
        let dash = if suffix.is_empty() { "" } else { "-" };
        let service = format!("{service}{dash}{suffix}");
        let pairs = pairs(config, scheme, &service, domain, lookup);
        log::info!(
            "looked for SRV records",
            "service-name" => &service,
            "discovery-srv" => domain,
            "found-cluster" => pairs.clone().unwrap_or_else(|error| error),
        );
        match pairs {
            Ok(pairs) if pairs.is_empty() => {}
            Ok(pairs) => found.push(pairs),
            Err(error) => errors.push(error),
        }
    }
    let errors = errors.join("\n");
    if found.is_empty() {
        return Err(errors);
    }
    if !errors.is_empty() {
        log::warn!("failed to resolve during SRV discovery", "error" => &errors);
    }
    let map = UrlsMap::parse(&found.join(","))?;
    let name = &config.name;
    let own = map.get(name).map(drop);
    own.ok_or_else(|| format!("cannot find local etcd member {name:?} in SRV records"))?;
    Ok(map)
}

/// The records of one service as `name=URL,name=URL`. One that cannot be followed is passed over, and
/// is an error only when none can be.
fn pairs(
    config: &Config,
    scheme: Scheme,
    service: &str,
    domain: &str,
    lookup: &Lookup<'_>,
) -> Result<String, String> {
    let own = config.advertise_peer.iter().map(|url| Ok((reached(url, lookup)?, url)));
    let own: Vec<(SocketAddr, &Url)> = own.collect::<Result<_, String>>()?;
    let failed = |why| format!("error querying DNS SRV records for _{service} {why}");
    let records = (lookup.services)(&format!("_{service}._tcp.{domain}")).map_err(failed)?;
    let (mut pairs, mut unnamed, mut last) = (Vec::new(), 0, None);
    for Record { target, port, .. } in records {
        let ip = match (lookup.address)(&target) {
            Ok(ip) => ip,
            Err(error) => {
                last = Some(error);
                continue;
            }
        };
        let url = Url::with_host(scheme, target.trim_end_matches('.'), port);
        let own = own.iter().find(|(address, _)| *address == SocketAddr::new(ip, port));
        match own {
            Some((_, expected)) if expected.scheme != scheme => {
                last = Some(format!(
                    "bootstrap at {url} from DNS for {service} has scheme mismatch with expected \
                     peer {expected}"
                ));
            }
            Some(_) if !config.name.is_empty() => pairs.push(format!("{}={url}", config.name)),
            _ => {
                pairs.push(format!("{unnamed}={url}"));
                unnamed += 1;
            }
        }
    }
    match last {
        Some(why) if pairs.is_empty() => Err(failed(why)),
        _ => Ok(pairs.join(",")),
    }
}

/// Where a URL of this member leads.
fn reached(url: &Url, lookup: &Lookup<'_>) -> Result<SocketAddr, String> {
    match url.is_socket() {
        true => Err(format!("address {}: missing port in address", url.host)),
        false => Ok(SocketAddr::new((lookup.address)(&url.host)?, url.port)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(target: &str, port: u16) -> Record {
        Record { priority: 0, target: target.into(), port }
    }

    fn address(host: &str) -> Result<IpAddr, String> {
        match host.trim_end_matches('.') {
            "a.example" => Ok(IpAddr::from([10, 0, 0, 1])),
            "b.example" => Ok(IpAddr::from([10, 0, 0, 2])),
            "c.example" => Ok(IpAddr::from([10, 0, 0, 3])),
            other => other.parse().map_err(|_| format!("lookup {other}: no such host")),
        }
    }

    type Found = Result<Vec<Record>, String>;

    /// What a member at 10.0.0.1:2380 finds where these are the records with and without TLS.
    fn found(ssl: Found, plain: Found) -> Result<String, String> {
        let config = super::super::tests::config(&[
            "--name=me",
            "--discovery-srv=example",
            "--initial-advertise-peer-urls=http://10.0.0.1:2380",
        ]);
        let services = |name: &str| match name {
            "_etcd-server-ssl._tcp.example" => ssl.clone(),
            "_etcd-server._tcp.example" => plain.clone(),
            _ => Err(format!("lookup {name}: no such host")),
        };
        let lookup = Lookup { services: &services, address: &address };
        initial_cluster(&config, "example", "", &lookup).map(|map| map.to_string())
    }

    fn none() -> Found {
        Err("lookup it: no such host".into())
    }

    #[test]
    fn the_record_that_leads_here_is_this_member_and_others_are_numbered() {
        let records =
            vec![record("b.example.", 2380), record("a.example.", 2380), record("c.example.", 1)];
        assert_eq!(
            found(none(), Ok(records)).as_deref(),
            Ok("0=http://b.example:2380,1=http://c.example:1,me=http://a.example:2380")
        );
        let both =
            found(Ok(vec![record("b.example.", 2381)]), Ok(vec![record("a.example.", 2380)]));
        assert_eq!(both.as_deref(), Ok("0=https://b.example:2381,me=http://a.example:2380"));
        let some = found(none(), Ok(vec![record("gone.", 1), record("a.example.", 2380)]));
        assert_eq!(
            some.as_deref(),
            Ok("me=http://a.example:2380"),
            "who is not found is passed over"
        );
        let v6 = found(none(), Ok(vec![record("::1", 1), record("a.example.", 2380)]));
        assert_eq!(v6.as_deref(), Ok("0=http://[::1]:1,me=http://a.example:2380"));
    }

    #[test]
    fn what_is_missing_is_said_in_etcd_s_words() {
        let ssl = "error querying DNS SRV records for _etcd-server-ssl lookup it: no such host\n";
        assert_eq!(
            found(none(), none()),
            Err(format!(
                "{ssl}error querying DNS SRV records for _etcd-server lookup it: no such host"
            ))
        );
        assert_eq!(
            found(none(), Ok(vec![record("b.example.", 2380)])),
            Err("cannot find local etcd member \"me\" in SRV records".into())
        );
        assert_eq!(
            found(none(), Ok(vec![record("gone.", 2380)])),
            Err(format!(
                "{ssl}error querying DNS SRV records for _etcd-server lookup gone: no such host"
            ))
        );
        assert_eq!(
            found(Ok(vec![record("a.example.", 2380)]), none()),
            Err("error querying DNS SRV records for _etcd-server-ssl bootstrap at \
                 https://a.example:2380 from DNS for etcd-server-ssl has scheme mismatch with \
                 expected peer http://10.0.0.1:2380\n\
                 error querying DNS SRV records for _etcd-server lookup it: no such host"
                .into())
        );
    }
}
