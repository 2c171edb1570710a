//! What a load needs of a response, read where it lies: a watch's events and a lease's time to live,
//! without decoding the rest. A thousand watchers get a million events a second.

use bytes::Buf;
use prost::encoding::decode_varint;

/// One field of a message: its number, and its value.
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message in order. Ends early where the bytes are no message.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = (u64, Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Value::Number(self.varint()?),
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                let (bytes, rest) = self.0.split_at_checked(length)?;
                self.0 = rest;
                Value::Bytes(bytes)
            }
            // No response of etcd has any other.
            _ => return None,
        };
        Some((key >> 3, value))
    }
}

impl Fields<'_> {
    fn varint(&mut self) -> Option<u64> {
        match self.0 {
            [] => None,
            [small @ 0..0x80, rest @ ..] => {
                let small = u64::from(*small);
                self.0 = rest;
                Some(small)
            }
            _ => decode_varint(&mut self.0).ok(),
        }
    }
}

/// One event of a watch response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Noticed {
    pub(crate) revision: i64,
    /// The first 8 bytes of the value, where it has as many.
    pub(crate) stamp: Option<u64>,
}

/// What a `WatchResponse` says besides its events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct WatchNotice {
    pub(crate) watch_id: i64,
    pub(crate) created: bool,
    pub(crate) canceled: bool,
}

/// Reads a `WatchResponse`, calling `on` with its watch id and each event.
pub(crate) fn watch(message: &[u8], mut on: impl FnMut(i64, Noticed)) -> WatchNotice {
    let mut notice = WatchNotice::default();
    for field in Fields(message) {
        match field {
            (2, Value::Number(id)) => notice.watch_id = id.cast_signed(),
            (3, Value::Number(created)) => notice.created = created != 0,
            (4, Value::Number(canceled)) => notice.canceled = canceled != 0,
            (11, Value::Bytes(event)) => on(notice.watch_id, noticed(event)),
            _ => {}
        }
    }
    notice
}

fn noticed(event: &[u8]) -> Noticed {
    let mut noticed = Noticed { revision: 0, stamp: None };
    let kv = Fields(event).find_map(|field| match field {
        (2, Value::Bytes(kv)) => Some(kv),
        _ => None,
    });
    for field in Fields(kv.unwrap_or_default()) {
        match field {
            (3, Value::Number(revision)) => noticed.revision = revision.cast_signed(),
            (5, Value::Bytes(mut value)) if value.len() >= 8 => {
                noticed.stamp = Some(value.get_u64());
            }
            _ => {}
        }
    }
    noticed
}

/// The TTL in a `LeaseKeepAliveResponse`, in seconds; 0 where the lease is gone.
pub(crate) fn kept_alive(message: &[u8]) -> i64 {
    let ttl = Fields(message).find_map(|field| match field {
        (3, Value::Number(ttl)) => Some(ttl.cast_signed()),
        _ => None,
    });
    ttl.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use proto::{
        etcdserverpb::{LeaseKeepAliveResponse, ResponseHeader, WatchResponse},
        mvccpb::{Event, KeyValue},
    };

    use super::*;

    #[test]
    fn what_is_noticed_is_what_was_encoded() {
        let header = Some(ResponseHeader { revision: 9, ..Default::default() });
        let event = |mod_revision, value: &'static [u8]| {
            let kv = KeyValue {
                key: b"k"[..].into(),
                mod_revision,
                value: value.into(),
                ..Default::default()
            };
            Event { kv: Some(kv.clone()), prev_kv: Some(kv), ..Default::default() }
        };
        let events = vec![event(300, b"\0\0\0\0\0\0\x01\x02tail"), event(301, b"short")];
        let response =
            WatchResponse { header, watch_id: -1, created: true, events, ..Default::default() };
        let mut seen = Vec::new();
        let notice = watch(&response.encode_to_vec(), |id, noticed| seen.push((id, noticed)));
        assert_eq!(notice, WatchNotice { watch_id: -1, created: true, canceled: false });
        let noticed = |revision, stamp| Noticed { revision, stamp };
        assert_eq!(seen, [(-1, noticed(300, Some(0x102))), (-1, noticed(301, None))]);
    }

    #[test]
    fn a_lease_that_is_gone_has_no_time_left() {
        let answer = |ttl| LeaseKeepAliveResponse { header: None, id: 5, ttl }.encode_to_vec();
        assert_eq!([60, 0].map(|ttl| kept_alive(&answer(ttl))), [60, 0]);
        assert_eq!(kept_alive(b"\x18"), 0);
    }
}
