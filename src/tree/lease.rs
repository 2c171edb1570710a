//! The table of leases: what the store grants beside its keys, by id.
//!
//! A map of its own, so that a view of a million leases is published, and read on every core, as
//! cheaply as one of ten. A second one has the keys that hold on to leases: a key is attached to the
//! lease of its newest version. It follows from the keys' cells, and is on disk with them (see `index`),
//! because a start does not look at every key.
//!
//! ```text
//! key   u64 id, its sign bit flipped, big endian: the map's order is that of the ids
//! body  i64 granted TTL   u64 index of the grant   [i64 remaining TTL, where one was noted]
//!       little endian, TTLs in seconds
//!
//! held  the lease's key, then the key that holds on to it; no body
//! ```
//!
//! A checkpoint that finds the table changed writes all of it, as `rec/leases.<number of the
//! superblock>`, from a view and in pieces, so that nobody waits for a million leases. The
//! superblock says how long the file is and what its checksum, and later superblocks name the same
//! file until the table changes again.
//!
//! ```text
//!   0   u64 magic  u64 version  u64 cluster  u64 number  u64 leases
//!  40   for each lease, ids ascending: i64 id  i64 granted TTL  i64 remaining TTL, 0 for none
//!       u64 index of the grant
//! ```

use super::{
    Cursor, Map, MapReader, MapView, Reader, Tree,
    segment::{DIR, Flaw},
};
use crate::{
    limits::{CHECKPOINT_CHUNK_BYTES, SWEEP_RECORDS_PER_TURN},
    types::{ClusterId, Index, LeaseId},
};
use futures_lite::future::yield_now;
use std::mem;

const MAGIC: u64 = u64::from_le_bytes(*b"RLlease\n");
const VERSION: u64 = 1;
const HEAD_BYTES: usize = 5 * 8;
pub(crate) const LEASE_BYTES: usize = 4 * 8;
/// The id of no lease.
const NONE: LeaseId = LeaseId(0);

/// What is known of a lease; the same on every member, whatever its clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The TTL that was granted, seconds.
    pub granted: i64,
    /// What the leader last noted of it as left, seconds; 0 where it noted nothing.
    pub remaining: i64,
    /// The entry of the log that granted it: tells it from one of the same id before it.
    pub since: Index,
}

/// A lease's key in a map. [`LeaseId`]s are signed, keys are compared byte by byte.
fn lease_key(id: LeaseId) -> [u8; 8] {
    (id.0 ^ i64::MIN).to_be_bytes()
}

/// Reads what [`lease_key`] made.
fn lease_id(key: &[u8]) -> LeaseId {
    let bytes = key.first_chunk().expect("a lease's key has its id's bytes");
    LeaseId(i64::from_be_bytes(*bytes) ^ i64::MIN)
}

impl Lease {
    fn decode(body: &[u8]) -> Self {
        let (granted, rest) = body.split_first_chunk().expect("a lease has a TTL");
        let (since, rest) = rest.split_first_chunk().expect("and was granted by an entry");
        let remaining = rest.first_chunk().map_or(0, |bytes| i64::from_le_bytes(*bytes));
        let since = Index(u64::from_le_bytes(*since));
        Self { granted: i64::from_le_bytes(*granted), remaining, since }
    }
}

pub(crate) fn insert(map: &mut Map, id: LeaseId, lease: Lease) {
    let mut body = [0; 24];
    body[..8].copy_from_slice(&lease.granted.to_le_bytes());
    body[8..16].copy_from_slice(&lease.since.0.to_le_bytes());
    body[16..].copy_from_slice(&lease.remaining.to_le_bytes());
    let bytes = if lease.remaining == 0 { 16 } else { body.len() };
    map.insert(&lease_key(id), &body[..bytes], true);
}

/// Of the keys that hold on to leases: `key` held on to `old` and holds on to `new` now; 0 is no lease.
/// `entry` is memory that is used again.
pub(crate) fn hold(held: &mut Map, entry: &mut Vec<u8>, key: &[u8], old: LeaseId, new: LeaseId) {
    if old == new {
        return;
    }
    if old != NONE {
        let was = held.remove(held_key(entry, old, key));
        assert!(was, "a key with a lease holds on to it");
    }
    if new != NONE {
        held.insert(held_key(entry, new, key), &[], true);
    }
}

fn held_key<'e>(entry: &'e mut Vec<u8>, id: LeaseId, key: &[u8]) -> &'e [u8] {
    entry.clear();
    entry.extend_from_slice(&lease_key(id));
    entry.extend_from_slice(key);
    entry
}

impl Tree {
    /// Adds a lease, or says something else of it.
    pub fn set_lease(&mut self, id: LeaseId, lease: Lease) {
        insert(&mut self.leases, id, lease);
        self.lease_changes += 1;
    }

    /// Removes a lease; false where there was none.
    pub fn remove_lease(&mut self, id: LeaseId) -> bool {
        let was = self.leases.remove(&lease_key(id));
        self.lease_changes += u64::from(was);
        was
    }

    /// Bytes that the table takes on disk, or will at the next checkpoint.
    pub fn lease_bytes(&self) -> u64 {
        match self.leases.reader().live() {
            0 => 0,
            leases => HEAD_BYTES as u64 + leases * LEASE_BYTES as u64,
        }
    }
}

impl<'a> Reader<'a> {
    /// What is known of lease `id`; None where it was never granted or is gone.
    pub fn lease(&self, id: LeaseId) -> Option<Lease> {
        self.leases.get(&lease_key(id)).map(Lease::decode)
    }

    /// The leases from id `from` on, in order of their ids.
    pub fn leases_from(&self, from: LeaseId) -> LeaseScan<'a> {
        LeaseScan(self.leases.seek(&lease_key(from)))
    }

    /// The keys that hold on to lease `id`, in order.
    pub fn keys_of(&self, id: LeaseId) -> HeldKeys<'a> {
        let prefix = lease_key(id);
        HeldKeys { cursor: self.held.seek(&prefix), prefix }
    }

    /// How many leases there are.
    pub fn lease_count(&self) -> u64 {
        self.leases.live()
    }
}

/// Leases in order of their ids.
pub struct LeaseScan<'a>(Cursor<'a>);

impl Iterator for LeaseScan<'_> {
    type Item = (LeaseId, Lease);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|(key, body)| (lease_id(key), Lease::decode(body)))
    }
}

/// The keys of one lease, in order.
pub struct HeldKeys<'a> {
    cursor: Cursor<'a>,
    prefix: [u8; 8],
}

impl<'a> Iterator for HeldKeys<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        self.cursor.next()?.0.strip_prefix(&self.prefix)
    }
}

// ── the file ────────────────────────────────────────────────────────────────────────────────────

/// A table in a file, as a superblock names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LeaseFile {
    /// Of the superblock that it was written for.
    pub(crate) number: u64,
    /// 0: there are no leases, and no file.
    pub(crate) bytes: u64,
    /// CRC-32 of those bytes.
    pub(crate) crc: u32,
}

impl LeaseFile {
    /// The file's name below the disk's root.
    pub(crate) fn name(&self) -> Option<String> {
        (self.bytes > 0).then(|| file(self.number))
    }
}

/// The file's name below the disk's root.
pub(crate) fn file(number: u64) -> String {
    format!("{DIR}/leases.{number:010}")
}

/// What a table begins with.
pub(crate) fn head(cluster: ClusterId, number: u64, leases: u64) -> Vec<u8> {
    let head = [MAGIC, VERSION, cluster.0, number, leases];
    head.iter().flat_map(|number| number.to_le_bytes()).collect()
}

fn put(id: LeaseId, lease: &Lease, out: &mut Vec<u8>) {
    let numbers = [id.0, lease.granted, lease.remaining, lease.since.0.cast_signed()];
    out.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
}

/// The next of a table's leases, behind `after`: so many as fit into `room` bytes, and the last one.
pub(crate) fn list(
    view: &MapView,
    after: Option<LeaseId>,
    room: usize,
) -> (Vec<u8>, Option<LeaseId>) {
    let from = after.map_or([0; 8], lease_key);
    let leases = LeaseScan(view.reader().seek(&from)).filter(|(id, _)| Some(*id) != after);
    let (mut out, mut last) = (Vec::new(), after);
    for (id, lease) in leases.take(room / LEASE_BYTES) {
        put(id, &lease, &mut out);
        last = Some(id);
    }
    (out, last)
}

/// A table on its way to its file: whole chunks, and what is left at the end.
pub(crate) struct Pieces<'a> {
    leases: LeaseScan<'a>,
    piece: Vec<u8>,
    hasher: crc32fast::Hasher,
    file: LeaseFile,
}

impl<'a> Pieces<'a> {
    /// The file of superblock `number` for what `view` shows.
    pub(crate) fn new(cluster: ClusterId, number: u64, view: &'a MapView) -> Self {
        let map: MapReader<'a> = view.reader();
        Self {
            leases: LeaseScan(map.seek(&[])),
            piece: head(cluster, number, map.live()),
            hasher: crc32fast::Hasher::new(),
            file: LeaseFile { number, ..LeaseFile::default() },
        }
    }

    /// The file as far as its pieces were taken.
    pub(crate) fn taken(&self) -> LeaseFile {
        LeaseFile { crc: self.hasher.clone().finalize(), ..self.file }
    }
}

impl Iterator for Pieces<'_> {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        while self.piece.len() < CHECKPOINT_CHUNK_BYTES
            && let Some((id, lease)) = self.leases.next()
        {
            put(id, &lease, &mut self.piece);
        }
        let rest = self.piece.split_off(self.piece.len().min(CHECKPOINT_CHUNK_BYTES));
        let piece = mem::replace(&mut self.piece, rest);
        self.hasher.update(&piece);
        self.file.bytes += piece.len() as u64;
        (!piece.is_empty()).then_some(piece)
    }
}

/// Reads a file of the superblock that names it as `expected`, into an empty map; in pieces that hold
/// nobody up.
pub(crate) async fn decode(
    bytes: &[u8],
    cluster: ClusterId,
    expected: &LeaseFile,
    page_bytes: usize,
) -> Result<Map, Flaw> {
    let crc = crc32fast::hash(bytes);
    if crc != expected.crc {
        let what = "a table of leases with the checksum in the superblock";
        return Err(Flaw::new(0, what, expected.crc.into(), crc.into()));
    }
    let number = |at: usize| {
        let word = bytes.get(at..).and_then(|rest| rest.first_chunk());
        let what = "a whole table of leases";
        word.map(|word| u64::from_le_bytes(*word)).ok_or(Flaw::new(
            at,
            what,
            at as u64 + 8,
            bytes.len() as u64,
        ))
    };
    let leases = (bytes.len().saturating_sub(HEAD_BYTES) / LEASE_BYTES) as u64;
    let head = [
        ("the mark of a table of leases", MAGIC),
        ("a table format that this version reads", VERSION),
        ("the cluster's id", cluster.0),
        ("the superblock's number", expected.number),
        ("as many leases as the file has room for", leases),
    ];
    for (at, (what, expected)) in (0..).step_by(8).zip(head) {
        let found = number(at)?;
        if found != expected {
            return Err(Flaw::new(at, what, expected, found));
        }
    }
    let mut map = Map::new(page_bytes);
    let mut last = None;
    for (taken, at) in (HEAD_BYTES..bytes.len()).step_by(LEASE_BYTES).enumerate() {
        if taken % SWEEP_RECORDS_PER_TURN == 0 {
            yield_now().await;
        }
        let (id, granted) = (number(at)? as i64, number(at + 8)? as i64);
        let remaining = number(at + 16)? as i64;
        if let Some(last) = last.filter(|last| *last >= id) {
            let what = "a lease's id above the one before";
            return Err(Flaw::new(at, what, last as u64, id as u64));
        }
        last = Some(id);
        let since = Index(number(at + 24)?);
        insert(&mut map, LeaseId(id), Lease { granted, remaining, since });
    }
    Ok(map)
}
