//! The configuration file: YAML (so JSON too) whose keys are flag names, as etcd's.
//!
//! Durations are whole numbers of nanoseconds; lists of URLs are one text with commas. TLS,
//! discovery and socket settings stand in blocks of their own. Keys are compared without regard
//! to case, as Go's JSON decoder does.
//!
//! Where etcd guesses we refuse: a file that is not a mapping, and a key that stands twice.

use super::{
    Notice,
    settings::Settings,
    table::{self, Flag},
    url::Url,
    value::{self, Kind, Value, boolean},
};
use crate::{limits::CONFIG_FILE_BYTES_MAX, log::Level};
use saphyr::{LoadableYamlNode, MarkedYaml, Scalar, YamlData};

/// Keys inside blocks, and the flags they are.
pub(super) const BLOCKS: &[(&str, &str)] = &[
    ("client-transport-security.cert-file", "cert-file"),
    ("client-transport-security.key-file", "key-file"),
    ("client-transport-security.client-cert-file", "client-cert-file"),
    ("client-transport-security.client-key-file", "client-key-file"),
    ("client-transport-security.client-cert-auth", "client-cert-auth"),
    ("client-transport-security.trusted-ca-file", "trusted-ca-file"),
    ("client-transport-security.auto-tls", "auto-tls"),
    // etcd has no flag for a client's name; these are refused with the rest of TLS.
    ("client-transport-security.allowed-cn", "client-cert-allowed-hostname"),
    ("client-transport-security.allowed-hostname", "client-cert-allowed-hostname"),
    ("client-transport-security.skip-client-san-verification", "peer-skip-client-san-verification"),
    ("peer-transport-security.cert-file", "peer-cert-file"),
    ("peer-transport-security.key-file", "peer-key-file"),
    ("peer-transport-security.client-cert-file", "peer-client-cert-file"),
    ("peer-transport-security.client-key-file", "peer-client-key-file"),
    ("peer-transport-security.client-cert-auth", "peer-client-cert-auth"),
    ("peer-transport-security.trusted-ca-file", "peer-trusted-ca-file"),
    ("peer-transport-security.auto-tls", "peer-auto-tls"),
    ("peer-transport-security.allowed-cn", "peer-cert-allowed-cn"),
    ("peer-transport-security.allowed-hostname", "peer-cert-allowed-hostname"),
    ("peer-transport-security.skip-client-san-verification", "peer-skip-client-san-verification"),
    ("discovery-config.token", "discovery-token"),
    ("discovery-config.client.endpoints", "discovery-endpoints"),
    ("discovery-config.client.dial-timeout", "discovery-dial-timeout"),
    ("discovery-config.client.request-timeout", "discovery-request-timeout"),
    ("discovery-config.client.keepalive-time", "discovery-keepalive-time"),
    ("discovery-config.client.keepalive-timeout", "discovery-keepalive-timeout"),
    ("discovery-config.client.secure.cert", "discovery-cert"),
    ("discovery-config.client.secure.key", "discovery-key"),
    ("discovery-config.client.secure.cacert", "discovery-cacert"),
    ("discovery-config.client.secure.insecure-transport", "discovery-insecure-transport"),
    (
        "discovery-config.client.secure.insecure-skip-tls-verify",
        "discovery-insecure-skip-tls-verify",
    ),
    ("discovery-config.client.auth.username", "discovery-user"),
    ("discovery-config.client.auth.password", "discovery-password"),
    ("socket-options.reuse-port", "socket-reuse-port"),
    ("socket-options.reuse-address", "socket-reuse-address"),
];

/// Flags that are no keys of etcd's file, blocks apart.
const NOT_IN_FILE: &[&str] = &[
    "config-file",
    "version",
    "discovery-fallback",
    "raft-read-timeout",
    "raft-write-timeout",
    "client-crl-file",
    "peer-crl-file",
];

/// Puts the file's values into `settings`. Unknown keys become notices and are ignored, as etcd
/// ignores them.
///
/// # Errors
/// `file:line:column:` and what is wrong there.
pub(super) fn read(
    path: &str,
    text: &str,
    settings: &mut Settings,
    notices: &mut Vec<Notice>,
) -> Result<(), String> {
    if text.len() > CONFIG_FILE_BYTES_MAX {
        let bytes = text.len();
        return Err(format!("{path}: {bytes} bytes, more than {CONFIG_FILE_BYTES_MAX}"));
    }
    let documents = MarkedYaml::load_from_str(text).map_err(|error| {
        let at = error.marker();
        format!("{path}:{}:{}: {}", at.line(), at.col() + 1, error.info())
    })?;
    // As etcd: an empty file sets nothing, and a second document is not read.
    let Some(document) = documents.first() else { return Ok(()) };
    Walk { path, settings, notices }.block("", document)
}

struct Walk<'a> {
    path: &'a str,
    settings: &'a mut Settings,
    notices: &'a mut Vec<Notice>,
}

impl Walk<'_> {
    /// One mapping; `prefix` is the path to it with its dot, empty for the file itself.
    fn block(&mut self, prefix: &str, node: &MarkedYaml<'_>) -> Result<(), String> {
        if is_null(node) {
            return Ok(());
        }
        let YamlData::Mapping(mapping) = &node.data else {
            let what = if prefix.is_empty() { "the file" } else { prefix.trim_end_matches('.') };
            return Err(self.at(node, &format!("{what} must be a mapping of keys to values")));
        };
        for (key, value) in mapping {
            let YamlData::Value(Scalar::String(name)) = &key.data else {
                return Err(self.at(key, "a key must be text"));
            };
            self.entry(&format!("{prefix}{}", name.to_ascii_lowercase()), value)?;
        }
        Ok(())
    }

    fn entry(&mut self, key: &str, node: &MarkedYaml<'_>) -> Result<(), String> {
        let below = format!("{key}.");
        if BLOCKS.iter().any(|(path, _)| path.starts_with(&below)) {
            return self.block(&below, node);
        }
        let Some(flag) = keyed(key) else {
            self.notices.push(
                Notice::new(Level::Warn, "unknown key in the configuration file is ignored")
                    .with("key", key)
                    .with("place", self.place(node)),
            );
            return Ok(());
        };
        let read =
            value_of(flag, node).map_err(|problem| self.at(node, &format!("{key}: {problem}")))?;
        if let Some(value) = read {
            self.settings.put(flag, value, format!("{key} at {}", self.place(node)));
        }
        Ok(())
    }

    fn place(&self, node: &MarkedYaml<'_>) -> String {
        let start = node.span.start;
        format!("{}:{}:{}", self.path, start.line(), start.col() + 1)
    }

    fn at(&self, node: &MarkedYaml<'_>, problem: &str) -> String {
        format!("{}: {problem}", self.place(node))
    }
}

/// The flag that a key means.
fn keyed(key: &str) -> Option<&'static Flag> {
    if let Some((_, flag)) = BLOCKS.iter().find(|(path, _)| *path == key) {
        return table::find(flag);
    }
    let in_block = BLOCKS.iter().any(|(_, flag)| *flag == key);
    let flag = table::find(key)?;
    let is_key = !in_block && !NOT_IN_FILE.contains(&key) && flag.kind != Kind::Anything;
    is_key.then_some(flag)
}

/// A node as the value of a flag; `None` where it says to leave the default.
fn value_of(flag: &'static Flag, node: &MarkedYaml<'_>) -> Result<Option<Value>, String> {
    if is_null(node) {
        return Ok(None);
    }
    let kind = flag.takes();
    if let (Kind::List, YamlData::Sequence(items)) = (kind, &node.data) {
        let words: Result<Vec<&str>, _> = items.iter().map(text).collect();
        return Ok(Some(Value::List(value::list(&words?.join(",")))));
    }
    Ok(Some(match kind {
        Kind::Bool => Value::Bool(truth(node).ok_or("true or false is needed")?),
        Kind::Anything => Value::Anything,
        Kind::Int => Value::Int(whole(node).ok_or("a whole number is needed")?),
        Kind::Duration => Value::Nanos(whole(node).ok_or(NANOSECONDS)?),
        Kind::Uint(largest) => {
            let number = whole(node).and_then(|number| u64::try_from(number).ok());
            let fits = number.filter(|number| *number <= largest);
            Value::Uint(
                fits.ok_or_else(|| format!("a whole number from 0 to {largest} is needed"))?,
            )
        }
        Kind::Urls => match text(node)? {
            "" => return Ok(None),
            urls => Value::Urls(Url::parse_list(urls)?),
        },
        Kind::Choice(words) => match text(node)? {
            "" => return Ok(None),
            word => {
                kind.parse(word).map_err(|_| format!("{word:?} is none of {}", words.join(", ")))?
            }
        },
        Kind::Text | Kind::List | Kind::Gates => kind.parse(text(node)?)?,
    }))
}

const NANOSECONDS: &str = "a whole number of nanoseconds is needed (5s is 5000000000)";

fn is_null(node: &MarkedYaml<'_>) -> bool {
    matches!(node.data, YamlData::Value(Scalar::Null))
}

fn text<'a>(node: &'a MarkedYaml<'_>) -> Result<&'a str, &'static str> {
    match &node.data {
        YamlData::Value(Scalar::String(text)) => Ok(text),
        YamlData::Value(_) => Err("text is needed; write the value in quotes"),
        _ => Err("text is needed"),
    }
}

/// A truth value, YAML 1.1's words among them, as etcd's decoder reads them.
fn truth(node: &MarkedYaml<'_>) -> Option<bool> {
    match &node.data {
        YamlData::Value(Scalar::Boolean(value)) => Some(*value),
        YamlData::Value(Scalar::String(word)) => match word.to_ascii_lowercase().as_str() {
            "yes" | "y" | "on" => Some(true),
            "no" | "n" | "off" => Some(false),
            word if word.len() > 1 => boolean(word),
            _ => None,
        },
        _ => None,
    }
}

/// A whole number; one with a fraction of zero or an exponent counts, as in etcd (`1e3`).
fn whole(node: &MarkedYaml<'_>) -> Option<i64> {
    /// Below this every whole number has its own `f64`.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match &node.data {
        YamlData::Value(Scalar::Integer(number)) => Some(*number),
        YamlData::Value(Scalar::FloatingPoint(number)) => {
            let exact = number.fract() == 0.0 && number.abs() <= EXACT;
            exact.then_some(number.0 as i64)
        }
        _ => None,
    }
}
