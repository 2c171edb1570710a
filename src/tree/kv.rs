//! The exact bytes of `mvccpb.KeyValue`, as a record holds them.
//!
//! Canonical protobuf: fields in ascending order, zero and empty ones left out. So a range reply
//! splices these bytes as they lie, and `HashKV` over them equals etcd's (decision 6).
//!
//! | field | tag | what |
//! |---|---|---|
//! | 1 | `0a` | key, bytes |
//! | 2 | `10` | create_revision, int64 |
//! | 3 | `18` | mod_revision, int64 |
//! | 4 | `20` | version, int64 |
//! | 5 | `2a` | value, bytes |
//! | 6 | `30` | lease, int64 |
//!
//! A tombstone is a `KeyValue` with nothing but its key (etcd `mvcc`, delete).

use super::varint;

const TAG_KEY: u8 = 0x0a;
const TAG_CREATE: u8 = 0x10;
const TAG_MODIFIED: u8 = 0x18;
const TAG_VERSION: u8 = 0x20;
const TAG_VALUE: u8 = 0x2a;
const TAG_LEASE: u8 = 0x30;

/// One `KeyValue`, its fields borrowed from wherever they lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct KeyValue<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) create: i64,
    pub(crate) modified: i64,
    pub(crate) version: i64,
    pub(crate) value: &'a [u8],
    pub(crate) lease: i64,
}

impl<'a> KeyValue<'a> {
    /// Appends the encoding to `out`.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_bytes(out, TAG_KEY, self.key);
        put_int(out, TAG_CREATE, self.create);
        put_int(out, TAG_MODIFIED, self.modified);
        put_int(out, TAG_VERSION, self.version);
        put_bytes(out, TAG_VALUE, self.value);
        put_int(out, TAG_LEASE, self.lease);
    }

    /// Reads what [`KeyValue::encode`] wrote; None for anything else.
    pub(crate) fn decode(mut bytes: &'a [u8]) -> Option<Self> {
        let mut kv = Self::default();
        let mut last = 0;
        while let Some((&tag, rest)) = bytes.split_first() {
            // Each field once, in order: so the key, if there is one, is the first.
            if tag <= last {
                return None;
            }
            last = tag;
            let (number, rest) = varint::get(rest)?;
            bytes = rest;
            match tag {
                TAG_KEY => (kv.key, bytes) = split(rest, number)?,
                TAG_CREATE => kv.create = number as i64,
                TAG_MODIFIED => kv.modified = number as i64,
                TAG_VERSION => kv.version = number as i64,
                TAG_VALUE => (kv.value, bytes) = split(rest, number)?,
                TAG_LEASE => kv.lease = number as i64,
                _ => return None,
            }
        }
        Some(kv)
    }
}

/// Only the key, which is the first field.
pub(crate) fn key(bytes: &[u8]) -> Option<&[u8]> {
    let (&tag, rest) = bytes.split_first()?;
    let (len, rest) = varint::get(rest)?;
    if tag == TAG_KEY { Some(split(rest, len)?.0) } else { None }
}

fn split(bytes: &[u8], len: u64) -> Option<(&[u8], &[u8])> {
    bytes.split_at_checked(usize::try_from(len).ok()?)
}

fn put_bytes(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    if !bytes.is_empty() {
        out.push(tag);
        varint::put(out, bytes.len() as u64);
        out.extend_from_slice(bytes);
    }
}

fn put_int(out: &mut Vec<u8>, tag: u8, number: i64) {
    if number != 0 {
        out.push(tag);
        varint::put(out, number as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_decodes_to_the_same() {
        let long = vec![b'v'; 300];
        let cases = [
            KeyValue { key: b"a", ..KeyValue::default() },
            KeyValue { key: b"a", create: 2, modified: 9, version: 3, value: b"x", lease: -1 },
            KeyValue {
                key: &long,
                create: i64::MAX,
                modified: i64::MAX,
                version: 1,
                value: &long,
                lease: 7,
            },
        ];
        for kv in cases {
            let mut bytes = Vec::new();
            kv.encode(&mut bytes);
            assert_eq!(KeyValue::decode(&bytes), Some(kv));
            assert_eq!(key(&bytes), Some(kv.key));
            assert_eq!(KeyValue::decode(&bytes[..bytes.len() - 1]), None);
        }
    }

    /// A second key with a checksum that fitted made a record whose key was two things.
    #[test]
    fn fields_come_in_order_and_once() {
        for bytes in
            [&b"\x0a\x01a\x0a\x01b"[..], b"\x10\x02\x0a\x01a", b"\x0a\x01a\x18\x05\x10\x05"]
        {
            assert_eq!(KeyValue::decode(bytes), None);
        }
    }

    #[test]
    fn bytes_are_canonical_protobuf() {
        let mut bytes = Vec::new();
        let kv =
            KeyValue { key: b"k", create: 2, modified: 300, version: 1, value: b"vv", lease: 0 };
        kv.encode(&mut bytes);
        assert_eq!(bytes, b"\x0a\x01k\x10\x02\x18\xac\x02\x20\x01\x2a\x02vv");
    }
}
