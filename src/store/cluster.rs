//! Facts about the cluster that every member applies alike: members, alarms, the agreed version.
//!
//! Small and rarely changed, so a view holds it behind one `Arc`, and the superblock carries it
//! whole as an opaque blob:
//!
//! ```text
//! u8 format = 2 · members · alarms · version · removed        counts and lengths are varints
//! member = id, name, peer URLs, client URLs, learner     alarm = kind, member id
//! removed = member ids, ascending
//! ```

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use prost::encoding::{decode_varint, encode_varint};

use crate::types::MemberId;

/// `AlarmType.NOSPACE`.
pub const ALARM_NOSPACE: i32 = 1;
/// `AlarmType.CORRUPT`.
pub const ALARM_CORRUPT: i32 = 2;

const BLOB_FORMAT: u8 = 2;

/// One member of the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: MemberId,
    /// Its `--name`; empty until it has started once.
    pub name: String,
    /// Where members reach it.
    pub peer_urls: Vec<String>,
    /// Where clients reach it; empty until it has started once.
    pub client_urls: Vec<String>,
    /// Hears everything, votes on nothing.
    pub learner: bool,
}

/// A raised alarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Alarm {
    /// `AlarmType`'s number: [`ALARM_NOSPACE`], [`ALARM_CORRUPT`] or one from a newer etcd.
    pub kind: i32,
    /// Who raised it.
    pub member: MemberId,
}

/// Members, alarms, the agreed version. raft's configuration is not here: it follows from the members.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cluster {
    /// By id.
    pub members: BTreeMap<MemberId, Member>,
    /// By kind, then member.
    pub alarms: BTreeSet<Alarm>,
    /// What all members can do, `major.minor.patch`; `None` until the first leader has said it.
    pub version: Option<String>,
    /// Who was a member once. They are kept for ever, since an id must not come back (etcd
    /// `members_removed`): ten bytes for each removal that an operator asked for.
    pub removed: BTreeSet<MemberId>,
}

/// A blob that is not what [`Cluster::encode`] writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobError {
    /// Bytes of the blob before the fault.
    pub offset: usize,
    /// What was expected there.
    pub expected: &'static str,
}

impl std::fmt::Display for BlobError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the store's state at byte {}: expected {}", self.offset, self.expected)
    }
}

impl std::error::Error for BlobError {}

impl Cluster {
    /// Whether an alarm of `kind` is up, whoever raised it.
    pub fn alarmed(&self, kind: i32) -> bool {
        self.alarms.iter().any(|alarm| alarm.kind == kind)
    }

    /// Who votes and who only learns, each in order.
    pub fn configuration(&self) -> (Vec<MemberId>, Vec<MemberId>) {
        let (learners, voters): (Vec<_>, Vec<_>) =
            self.members.values().partition(|member| member.learner);
        let ids = |members: Vec<&Member>| members.into_iter().map(|member| member.id).collect();
        (ids(voters), ids(learners))
    }

    /// The blob described at the head of this file.
    pub fn encode(&self) -> Bytes {
        let mut out = vec![BLOB_FORMAT];
        encode_varint(self.members.len() as u64, &mut out);
        for member in self.members.values() {
            encode_varint(member.id.0, &mut out);
            put_bytes(&mut out, member.name.as_bytes());
            put_strings(&mut out, &member.peer_urls);
            put_strings(&mut out, &member.client_urls);
            out.push(u8::from(member.learner));
        }
        encode_varint(self.alarms.len() as u64, &mut out);
        for alarm in &self.alarms {
            encode_varint(alarm.kind as u32 as u64, &mut out);
            encode_varint(alarm.member.0, &mut out);
        }
        put_bytes(&mut out, self.version.as_deref().unwrap_or("").as_bytes());
        encode_varint(self.removed.len() as u64, &mut out);
        self.removed.iter().for_each(|id| encode_varint(id.0, &mut out));
        out.into()
    }

    /// Reads what [`Cluster::encode`] wrote.
    ///
    /// # Errors
    /// Where the blob says something else, or ends early or late.
    pub fn decode(blob: &[u8]) -> Result<Self, BlobError> {
        let mut r = Reader { whole: blob.len(), rest: blob };
        if r.byte("the format")? != BLOB_FORMAT {
            return Err(BlobError { offset: 0, expected: "format 2" });
        }
        let mut cluster = Self::default();
        for _ in 0..r.number("the number of members")? {
            let member = Member {
                id: MemberId(r.number("a member's id")?),
                name: r.string("a member's name")?,
                peer_urls: r.strings("peer URLs")?,
                client_urls: r.strings("client URLs")?,
                learner: r.byte("learner or not")? != 0,
            };
            cluster.members.insert(member.id, member);
        }
        for _ in 0..r.number("the number of alarms")? {
            let kind = r.number("an alarm's kind")? as u32 as i32;
            let member = MemberId(r.number("an alarm's member")?);
            cluster.alarms.insert(Alarm { kind, member });
        }
        cluster.version = Some(r.string("the cluster version")?).filter(|v| !v.is_empty());
        for _ in 0..r.number("the number of removed members")? {
            cluster.removed.insert(MemberId(r.number("a removed member's id")?));
        }
        if r.rest.is_empty() { Ok(cluster) } else { Err(r.fault("the end")) }
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

fn put_strings(out: &mut Vec<u8>, strings: &[String]) {
    encode_varint(strings.len() as u64, out);
    strings.iter().for_each(|s| put_bytes(out, s.as_bytes()));
}

struct Reader<'a> {
    rest: &'a [u8],
    whole: usize,
}

impl<'a> Reader<'a> {
    fn fault(&self, expected: &'static str) -> BlobError {
        BlobError { offset: self.whole - self.rest.len(), expected }
    }

    fn number(&mut self, expected: &'static str) -> Result<u64, BlobError> {
        let fault = self.fault(expected);
        decode_varint(&mut self.rest).map_err(|_| fault)
    }

    fn byte(&mut self, expected: &'static str) -> Result<u8, BlobError> {
        let (&first, rest) = self.rest.split_first().ok_or_else(|| self.fault(expected))?;
        self.rest = rest;
        Ok(first)
    }

    fn bytes(&mut self, expected: &'static str) -> Result<&'a [u8], BlobError> {
        let len = self.number(expected)?;
        let len = usize::try_from(len).map_err(|_| self.fault(expected))?;
        let (bytes, rest) = self.rest.split_at_checked(len).ok_or_else(|| self.fault(expected))?;
        self.rest = rest;
        Ok(bytes)
    }

    fn string(&mut self, expected: &'static str) -> Result<String, BlobError> {
        let fault = self.fault(expected);
        String::from_utf8(self.bytes(expected)?.to_vec()).map_err(|_| fault)
    }

    fn strings(&mut self, expected: &'static str) -> Result<Vec<String>, BlobError> {
        (0..self.number(expected)?).map(|_| self.string(expected)).collect()
    }
}
