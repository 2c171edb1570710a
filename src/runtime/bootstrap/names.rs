//! Where host names lead: URLs are the same when they lead to the same address (etcd
//! `netutil.URLStringsEqual`).
//!
//! As etcd, a name that is not found yet is tried again every second, half a minute in all: in a
//! fresh namespace a member's own name may come later than the member. Unlike etcd's, all tries of a
//! start share that half minute, and the machine's resolver (`getaddrinfo`) is asked instead of one
//! of our own.
#![allow(clippy::disallowed_methods, reason = "a start waits for the world, and is not simulated")]

use crate::{
    config::{Scheme, Url},
    limits::{NAMES_INTERVAL, NAMES_WAIT},
    log,
};
use std::{
    net::{IpAddr, ToSocketAddrs},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

/// The addresses of a host, the best first; at least one.
type Find = dyn Fn(&str) -> Result<Vec<IpAddr>, String>;

/// Host names, and the patience to look them up.
pub struct Names {
    find: Box<Find>,
    /// Waits before another try; false when there is to be none.
    again: Box<dyn Fn() -> bool>,
}

impl Names {
    /// The machine's own.
    pub fn of_machine() -> Self {
        let end = Instant::now() + NAMES_WAIT;
        let find = move |host: &str| lookup(host, end.saturating_duration_since(Instant::now()));
        let again = move || {
            let left = end.saturating_duration_since(Instant::now());
            thread::sleep(left.min(NAMES_INTERVAL));
            left > NAMES_INTERVAL
        };
        Self { find: Box::new(find), again: Box::new(again) }
    }

    #[cfg(test)]
    pub fn new(
        find: impl Fn(&str) -> Result<Vec<IpAddr>, String> + 'static,
        again: impl Fn() -> bool + 'static,
    ) -> Self {
        Self { find: Box::new(find), again: Box::new(again) }
    }

    /// Both lists lead to the same addresses.
    ///
    /// # Errors
    /// How they differ, or the name that was not found, in etcd's words.
    pub fn same(&self, a: &[Url], b: &[Url]) -> Result<(), String> {
        if a.len() != b.len() {
            return Err(format!("len({}) != len({})", listed(a), listed(b)));
        }
        if alike(a, b) {
            return Ok(());
        }
        let (a, b) = (sorted(self.resolved(a)?), sorted(self.resolved(b)?));
        match a.iter().zip(&b).find(|(a, b)| a != b) {
            None => Ok(()),
            Some((a, b)) => Err(format!("resolved urls: {a:?} != {b:?}")),
        }
    }

    fn resolved(&self, urls: &[Url]) -> Result<Vec<String>, String> {
        urls.iter().map(|url| self.resolve(url)).collect()
    }

    /// `localhost` stays what it is, as in etcd.
    fn resolve(&self, url: &Url) -> Result<String, String> {
        if url.is_socket() || url.host == "localhost" {
            return Ok(url.to_string());
        }
        loop {
            match (self.find)(&url.host) {
                Ok(addresses) => return Ok(Url::of(url.scheme, addresses[0], url.port).to_string()),
                Err(error) => {
                    log::warn!("failed to resolve URL Host", "url" => url.as_str(), "error" => &error);
                    if !(self.again)() {
                        return Err(format!("failed to resolve {:?} ({error})", url.as_str()));
                    }
                }
            }
        }
    }
}

/// Both lists are the same as they are written, IP addresses in any spelling.
pub fn alike(a: &[Url], b: &[Url]) -> bool {
    let plain = |urls: &[Url]| sorted(urls.iter().map(normalized).collect());
    plain(a) == plain(b)
}

fn normalized(url: &Url) -> String {
    match url.host.parse() {
        Ok(ip) if matches!(url.scheme, Scheme::Http | Scheme::Https) => {
            Url::of(url.scheme, ip, url.port).to_string()
        }
        _ => url.to_string(),
    }
}

fn sorted(mut urls: Vec<String>) -> Vec<String> {
    urls.sort();
    urls
}

/// As Go prints a list of texts with `%q`.
fn listed(urls: &[Url]) -> String {
    let quoted: Vec<String> = urls.iter().map(|url| format!("{:?}", url.as_str())).collect();
    format!("[{}]", quoted.join(" "))
}

/// A host's addresses by the machine's resolver, the best first; at least one.
///
/// # Errors
/// What the resolver said, or that it said nothing within `limit`. It cannot be interrupted: its
/// thread ends when it does.
pub fn lookup(host: &str, limit: Duration) -> Result<Vec<IpAddr>, String> {
    if let Ok(ip) = host.parse() {
        return Ok(vec![ip]);
    }
    let (say, heard) = mpsc::channel();
    let name = host.to_owned();
    thread::spawn(move || {
        let found = (name.as_str(), 0).to_socket_addrs();
        // Nobody waits any longer: then nobody needs it.
        say.send(found.map(|all| all.map(|address| address.ip()).collect::<Vec<_>>())).ok();
    });
    match heard.recv_timeout(limit) {
        Ok(Ok(all)) if all.is_empty() => Err(format!("lookup {host}: no address")),
        Ok(Ok(all)) => Ok(all),
        Ok(Err(error)) => Err(format!("lookup {host}: {error}")),
        Err(_) => Err(format!("lookup {host}: no answer within {}", log::span_text(limit))),
    }
}
