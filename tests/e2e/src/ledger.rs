//! What clients were told was written, and what a server must therefore still have.
//!
//! Each writer has keys of its own and writes rising counters to them, one put at a time. Of a key
//! it notes the last counter acknowledged and the last one tried. A server that lost nothing has a
//! counter between the two.

use std::collections::BTreeMap;

use loadgen::{client::Client, grpc::Status};
use proto::{
    etcdserverpb::{PutRequest, PutResponse, RangeRequest, RangeResponse, kv},
    mvccpb::KeyValue,
};

/// What was said of one key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// The last counter sent.
    pub tried: u64,
    /// The last counter whose put was answered.
    pub acknowledged: u64,
    /// The revision that answer named.
    pub revision: i64,
}

/// One writer's keys.
#[derive(Clone, Debug)]
pub struct Ledger {
    prefix: String,
    entries: BTreeMap<String, Entry>,
    next: u64,
    keys: u64,
    /// Acknowledged puts in all.
    pub acknowledged: u64,
}

impl Ledger {
    /// For a writer with this many keys.
    pub fn new(prefix: &str, keys: u64) -> Self {
        Self { prefix: prefix.into(), entries: BTreeMap::new(), next: 0, keys, acknowledged: 0 }
    }

    /// Puts the next counter, filled up to so many bytes.
    ///
    /// # Errors
    /// What the server or the connection said; the put may have happened or not.
    pub fn put(&mut self, client: &mut Client, bytes: usize) -> Result<(), Status> {
        self.next += 1;
        let key = format!("{}/{:03}", self.prefix, self.next % self.keys);
        let entry = self.entries.entry(key.clone()).or_default();
        entry.tried = self.next;
        let value = format!("{:012}{}", self.next, "x".repeat(bytes.saturating_sub(12)));
        let put = PutRequest { key: key.into(), value: value.into(), ..Default::default() };
        let response: PutResponse = client.unary(kv::PUT, &put)?;
        entry.acknowledged = self.next;
        let revision = response.header.expect("an answer has a header").revision;
        assert!(revision > entry.revision, "a later put of a key has a later revision");
        entry.revision = revision;
        self.acknowledged += 1;
        Ok(())
    }

    /// The highest revision that an answer named.
    pub fn revision(&self) -> i64 {
        self.entries.values().map(|entry| entry.revision).max().unwrap_or(0)
    }

    /// Compares with all that the server has now.
    ///
    /// # Errors
    /// What is missing, or was never written.
    pub fn check(&self, all: &RangeResponse) -> Result<(), String> {
        let prefix = format!("{}/", self.prefix);
        let own = all.kvs.iter().filter(|kv| kv.key.starts_with(prefix.as_bytes()));
        let found: BTreeMap<&[u8], &KeyValue> = own.map(|kv| (&kv.key[..], kv)).collect();
        let current = all.header.map_or(0, |header| header.revision);
        for (key, entry) in &self.entries {
            check(key, entry, found.get(key.as_bytes()).copied(), current)?;
        }
        if found.len() > self.entries.len() {
            return Err(format!("{}: {} keys, of {}", prefix, found.len(), self.entries.len()));
        }
        Ok(())
    }
}

fn check(key: &str, entry: &Entry, found: Option<&KeyValue>, current: i64) -> Result<(), String> {
    let Some(kv) = found else {
        let Entry { acknowledged, .. } = entry;
        let never = *acknowledged == 0;
        return never
            .then_some(())
            .ok_or(format!("{key}: {acknowledged} was acknowledged, is gone"));
    };
    let text = std::str::from_utf8(kv.value.get(..12).unwrap_or(b"short"));
    let counter: u64 =
        text.ok().and_then(|text| text.parse().ok()).ok_or(format!("{key}: torn"))?;
    if counter < entry.acknowledged || counter > entry.tried {
        return Err(format!("{key} is {counter}, and should be as {entry:?} says"));
    }
    let same = counter == entry.acknowledged;
    let ordered =
        if same { kv.mod_revision == entry.revision } else { kv.mod_revision > entry.revision };
    if !ordered || kv.mod_revision > current || kv.create_revision > kv.mod_revision {
        return Err(format!("{key}: {kv:?} does not go with {entry:?} at revision {current}"));
    }
    Ok(())
}

/// All keys, linearizably.
///
/// # Errors
/// What the server or the connection said.
pub fn all(client: &mut Client) -> Result<RangeResponse, Status> {
    let zero = bytes::Bytes::from_static(b"\0");
    let range = RangeRequest { key: zero.clone(), range_end: zero, ..Default::default() };
    client.unary(kv::RANGE, &range)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kv(counter: u64, mod_revision: i64) -> KeyValue {
        let value = format!("{counter:012}").into();
        KeyValue { value, mod_revision, create_revision: 1, ..Default::default() }
    }

    #[test]
    fn what_was_acknowledged_must_be_there_and_what_was_tried_may() {
        let entry = Entry { tried: 7, acknowledged: 5, revision: 50 };
        let check = |found: Option<KeyValue>| check("k", &entry, found.as_ref(), 60);
        assert_eq!(check(Some(kv(5, 50))), Ok(()));
        assert_eq!(check(Some(kv(6, 51))), Ok(()));
        assert!(check(None).is_err());
        assert!(check(Some(kv(4, 40))).is_err());
        assert!(check(Some(kv(8, 55))).is_err());
        assert!(check(Some(kv(5, 49))).is_err());
        assert!(check(Some(kv(6, 50))).is_err());
        assert!(check(Some(kv(6, 61))).is_err());
        let never = Entry { tried: 7, ..Default::default() };
        assert_eq!(super::check("k", &never, None, 60), Ok(()));
    }
}
