//! A running etcd as the place where the members of a new cluster find each other (etcd
//! `v3discovery`).
//!
//! ```text
//!  /_etcd/registry/TOKEN/_config/size      how many, put there by whoever made the token
//!  /_etcd/registry/TOKEN/members/ID        "name=URL,…", put there by each; the first `size` are it
//! ```
//!
//! The service is asked by JSON (etcd's gateway under `/v3`), a request at a time, and asked again
//! while others are missing; etcd's own members speak gRPC with it and watch. The keys are the
//! same, so members of both kinds find each other.

use super::{
    base64,
    http::{self, Answer, Patience},
};
use crate::{
    config::{Discovery, Url, UrlsMap},
    limits::{DISCOVERY_DOUBLINGS_MAX, DISCOVERY_INTERVAL},
    log,
    types::MemberId,
};
use serde_json::{Value, json};
use std::{thread, time::Duration};

/// Registers this member and waits for the others: the cluster as `--initial-cluster` would say it.
/// `own` is how this member is said there.
///
/// # Errors
/// etcd's sentence for a token that cannot be used, or that an endpoint is no such service. A
/// service that does not answer is asked again until it does.
pub fn join(discovery: &Discovery, member: MemberId, own: &str) -> Result<String, String> {
    let service = Service::new(discovery)?;
    let keys = Keys::of(&discovery.token);
    let own_key = keys.member(member);
    let mut patience = Retries::default();
    patience.until_done("cluster status check", || service.registry(&keys))?.place(&own_key)?;
    patience.until_done("register member itself", || service.put(&own_key, own))?;
    log::info!("registered with the discovery service", "key" => &own_key, "value" => own);
    let mut seen = 0;
    loop {
        let registry = patience.until_done("cluster status check", || service.registry(&keys))?;
        registry.place(&own_key)?;
        for entry in registry.entries.iter().skip(seen) {
            log::info!("found peer from discovery service", "key" => &entry.key, "value" => &entry.said);
        }
        if registry.entries.len() >= registry.size {
            return registry.initial_cluster();
        }
        if seen == 0 {
            log::info!("waiting for peers from discovery service", "cluster-size" => registry.size);
        }
        seen = seen.max(registry.entries.len());
        thread::sleep(DISCOVERY_INTERVAL);
    }
}

/// Where things stand in the service.
struct Keys {
    size: String,
    members: String,
}

impl Keys {
    /// Parts of the token that lead up or nowhere are taken out (Go's `path.Join`).
    fn of(token: &str) -> Self {
        let mut parts = vec!["_etcd", "registry"];
        for part in token.split('/') {
            match part {
                "" | "." => {}
                ".." => drop(parts.pop()),
                part => parts.push(part),
            }
        }
        let folder: String = parts.iter().map(|part| format!("/{part}")).collect();
        Self { size: format!("{folder}/_config/size"), members: format!("{folder}/members") }
    }

    fn member(&self, id: MemberId) -> String {
        format!("{}/{id}", self.members)
    }
}

// ── what the service has ────────────────────────────────────────────────────────────────────────

/// A member that has registered.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    created: u64,
    key: String,
    /// `name=URL,name=URL`.
    said: String,
}

/// What stands under a token.
#[derive(Debug, PartialEq, Eq)]
struct Registry {
    size: usize,
    /// In the order in which they came.
    entries: Vec<Entry>,
}

impl Registry {
    /// What is no member is left out, as etcd leaves it out.
    fn new(size: usize, entries: impl IntoIterator<Item = Entry>) -> Self {
        let mut entries: Vec<Entry> = entries.into_iter().collect();
        entries.retain(|entry| {
            let whole = entry.said.contains('=');
            if !whole {
                log::warn!(
                    "invalid peer info returned from discovery service",
                    "key" => &entry.key,
                    "value" => &entry.said,
                );
            }
            whole
        });
        entries.sort_by_key(|entry| entry.created);
        Self { size, entries }
    }

    /// There is room for this member, or it is among the first.
    fn place(&self, own_key: &str) -> Result<(), String> {
        let mut first = self.entries.iter().take(self.size);
        match self.entries.len() < self.size || first.any(|entry| entry.key == own_key) {
            true => Ok(()),
            false => Err("discovery: cluster is full".into()),
        }
    }

    fn initial_cluster(&self) -> Result<String, String> {
        let first = self.entries.iter().take(self.size);
        let said = first.map(|entry| entry.said.as_str()).collect::<Vec<_>>().join(",");
        match UrlsMap::parse(&said) {
            Ok(_) => Ok(said),
            Err(_) => Err("discovery: invalid peer URL".into()),
        }
    }
}

/// Reads the number of members.
fn size(value: Option<&[u8]>) -> Result<usize, String> {
    let value = value.ok_or("discovery: size key not found")?;
    let number = std::str::from_utf8(value).ok().and_then(|digits| digits.parse::<i64>().ok());
    let size = number.filter(|number| *number > 0).and_then(|number| usize::try_from(number).ok());
    size.ok_or_else(|| "discovery: size key is bad".into())
}

// ── the service ─────────────────────────────────────────────────────────────────────────────────

/// Why a request did not do what it should.
#[derive(Debug, PartialEq, Eq)]
enum Failure {
    /// Another try may.
    Passing(String),
    /// No other try will.
    Final(String),
}

/// A key with its value.
struct KeyValue {
    key: String,
    value: Vec<u8>,
    created: u64,
}

struct Service {
    endpoints: Vec<Url>,
    patience: Patience,
}

impl Service {
    fn new(discovery: &Discovery) -> Result<Self, String> {
        let url = |endpoint: &String| {
            let address = endpoint.strip_prefix("http://").unwrap_or(endpoint);
            Url::parse(&format!("http://{address}"))
        };
        let endpoints = discovery.endpoints.iter().map(url).collect::<Result<_, _>>()?;
        let Discovery { dial_timeout: dial, request_timeout: request, .. } = *discovery;
        Ok(Self { endpoints, patience: Patience { dial, request } })
    }

    fn registry(&self, keys: &Keys) -> Result<Registry, Failure> {
        let found = self.range(&keys.size, "")?;
        let value = found.first().map(|kv| kv.value.as_slice());
        let size = size(value).map_err(Failure::Final)?;
        // The key with its last letter one further: all that begins with it.
        let end = format!("{}t", &keys.members[..keys.members.len() - 1]);
        let entries = self.range(&keys.members, &end)?.into_iter().map(|kv| Entry {
            created: kv.created,
            key: kv.key.trim().to_owned(),
            said: String::from_utf8_lossy(&kv.value).trim().to_owned(),
        });
        Ok(Registry::new(size, entries))
    }

    fn range(&self, key: &str, end: &str) -> Result<Vec<KeyValue>, Failure> {
        let bytes = |text: &str| base64::encode(text.as_bytes());
        let answer =
            self.ask("/v3/kv/range", &json!({ "key": bytes(key), "range_end": bytes(end) }))?;
        key_values(&answer).ok_or_else(|| Failure::Passing("an answer that is no range".into()))
    }

    fn put(&self, key: &str, value: &str) -> Result<(), Failure> {
        let bytes = |text: &str| base64::encode(text.as_bytes());
        self.ask("/v3/kv/put", &json!({ "key": bytes(key), "value": bytes(value) })).map(drop)
    }

    /// Asks one endpoint after the other. It is final when none may answer another time.
    fn ask(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        let mut said = Vec::new();
        let mut is_final = true;
        for endpoint in &self.endpoints {
            let answer = http::post(endpoint, path, &body.to_string(), self.patience);
            match answer.map_err(Failure::Passing).and_then(|answer| read(endpoint, &answer)) {
                Ok(value) => return Ok(value),
                Err(Failure::Final(why)) => said.push(why),
                Err(Failure::Passing(why)) => {
                    is_final = false;
                    said.push(why);
                }
            }
        }
        let why = said.join("; ");
        Err(if is_final { Failure::Final(why) } else { Failure::Passing(why) })
    }
}

/// An answer of the gateway: the response's JSON, or a status with a sentence.
fn read(endpoint: &Url, answer: &Answer) -> Result<Value, Failure> {
    let status = answer.status;
    match (status, serde_json::from_slice::<Value>(&answer.body)) {
        (200, Ok(value)) => Ok(value),
        (404 | 405 | 501, _) => Err(Failure::Final(format!(
            "{endpoint} has no JSON gateway (status {status}): the discovery service is asked by \
             JSON, which etcd answers unless it runs with --enable-grpc-gateway=false"
        ))),
        (401 | 403, Ok(value)) => {
            Err(Failure::Final(format!("{endpoint} refuses: {}", value["message"])))
        }
        (_, Ok(value)) => {
            Err(Failure::Passing(format!("{endpoint}: status {status}, {}", value["message"])))
        }
        (_, Err(_)) => Err(Failure::Passing(format!("{endpoint}: status {status}, no JSON"))),
    }
}

/// `{"kvs":[{"key":"…","value":"…","create_revision":"7"}]}`; what is empty is left out.
fn key_values(answer: &Value) -> Option<Vec<KeyValue>> {
    let bytes = |value: &Value| match value {
        Value::Null => Some(Vec::new()),
        value => base64::decode(value.as_str()?),
    };
    let kvs = match &answer["kvs"] {
        Value::Null => &[][..],
        kvs => kvs.as_array()?,
    };
    let read = |kv: &Value| {
        Some(KeyValue {
            key: String::from_utf8(bytes(&kv["key"])?).ok()?,
            value: bytes(&kv["value"])?,
            created: kv["create_revision"].as_str()?.parse().ok()?,
        })
    };
    kvs.iter().map(read).collect()
}

// ── patience ────────────────────────────────────────────────────────────────────────────────────

/// Failed requests since the last good one.
#[derive(Default)]
struct Retries(u32);

impl Retries {
    /// Tries until it is done, or until it is certain that it cannot be done. The pauses are etcd's.
    fn until_done<T>(
        &mut self,
        step: &str,
        mut attempt: impl FnMut() -> Result<T, Failure>,
    ) -> Result<T, String> {
        loop {
            match attempt() {
                Ok(done) => {
                    self.0 = 0;
                    return Ok(done);
                }
                Err(Failure::Final(why)) => return Err(why),
                Err(Failure::Passing(why)) => {
                    let pause = self.pause();
                    log::warn!(
                        "retry connecting to discovery service",
                        "reason" => step,
                        "error" => why,
                        "backoff" => pause,
                    );
                    thread::sleep(pause);
                }
            }
        }
    }

    fn pause(&mut self) -> Duration {
        self.0 = (self.0 + 1).min(DISCOVERY_DOUBLINGS_MAX);
        Duration::from_secs(1 << self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(created: u64, said: &str) -> Entry {
        Entry { created, key: format!("/_etcd/registry/t/members/{created}"), said: said.into() }
    }

    #[test]
    fn the_first_members_are_the_cluster_and_others_are_told_that_it_is_full() {
        let registry = Registry::new(
            2,
            [
                entry(9, "c=http://c:1"),
                entry(3, "b=http://b:1"),
                entry(5, "junk"),
                entry(4, "a=http://a:1"),
            ],
        );
        assert_eq!(registry.initial_cluster().as_deref(), Ok("b=http://b:1,a=http://a:1"));
        for (key, place) in [(3, true), (4, true), (9, false), (77, false)] {
            assert_eq!(registry.place(&entry(key, "").key).is_ok(), place, "{key}");
        }
        assert_eq!(registry.place("x"), Err("discovery: cluster is full".into()));
        let open = Registry::new(3, [entry(3, "b=http://b:1"), entry(4, "a=nowhere")]);
        assert_eq!(open.place("x"), Ok(()), "there is room");
        assert_eq!(open.initial_cluster(), Err("discovery: invalid peer URL".into()));
    }

    #[test]
    fn the_size_is_a_number_above_zero() {
        assert_eq!(size(Some(b"3")), Ok(3));
        assert_eq!(size(None), Err("discovery: size key not found".into()));
        for bad in ["", "0", "-1", "3x", "99999999999999999999"] {
            assert_eq!(size(Some(bad.as_bytes())), Err("discovery: size key is bad".into()));
        }
    }

    #[test]
    fn keys_are_etcd_s() {
        let keys = Keys::of("a//b/../c/");
        assert_eq!(keys.size, "/_etcd/registry/a/c/_config/size");
        assert_eq!(keys.member(MemberId(0xab)), "/_etcd/registry/a/c/members/ab");
    }

    #[test]
    fn answers_are_read_or_said_to_be_what_they_are() {
        let endpoint = Url::parse("http://a:1").expect("a URL");
        let answer = |status, body: &str| {
            let text =
                format!("HTTP/1.1 {status} x\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            http::parse(text.as_bytes(), false).expect("it is HTTP").expect("it is whole")
        };
        let found = read(
            &endpoint,
            &answer(200, r#"{"header":{},"kvs":[{"key":"YQ==","create_revision":"7"}]}"#),
        );
        let found = key_values(&found.expect("it is an answer")).expect("it is a range");
        assert_eq!((found[0].key.as_str(), found[0].value.len(), found[0].created), ("a", 0, 7));
        assert_eq!(key_values(&json!({})).map(|none| none.len()), Some(0));
        for wrong in [json!({"kvs": 1}), json!({"kvs": [1]}), json!({"kvs": [{"key": "?"}]})] {
            assert!(key_values(&wrong).is_none(), "{wrong}");
        }
        let gone = read(&endpoint, &answer(404, "404 page not found\n"));
        assert!(matches!(gone, Err(Failure::Final(why)) if why.contains("has no JSON gateway")));
        let refused = read(&endpoint, &answer(403, r#"{"code":7,"message":"permission denied"}"#));
        assert_eq!(
            refused,
            Err(Failure::Final("http://a:1 refuses: \"permission denied\"".into()))
        );
        for (status, body) in [(503, r#"{"message":"no leader"}"#), (200, "{"), (500, "")] {
            let passing = read(&endpoint, &answer(status, body));
            assert!(matches!(passing, Err(Failure::Passing(_))), "{passing:?}");
        }
    }

    #[test]
    fn pauses_double_up_to_a_bound() {
        let mut retries = Retries::default();
        let seconds: Vec<u64> = (0..10).map(|_| retries.pause().as_secs()).collect();
        assert_eq!(seconds, [2, 4, 8, 16, 32, 64, 128, 256, 256, 256]);
    }
}
