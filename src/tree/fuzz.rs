//! What the engine reads back from its files, spoiled from a seed. Half of the time the checksum
//! is made to fit again, so that what lies behind it is reached.
//!
//! Cells and pages never leave memory: they are trusted, and only read back here.

use super::{
    KeyMeta,
    cell::{self, Cell},
    chain::{self, Link},
    dead::{self, Dead},
    index::{IndexEntry, IndexRoot},
    kv::{self, KeyValue},
    lease::{self, LEASE_BYTES, Lease, LeaseFile, Pieces},
    manifest::{Kind, Manifest, Part},
    map::{Map, MapView},
    page::{self, Count, Place},
    record::{self, Record},
    root::{self, Live, Root, RootFacts, Slot, TailEntry},
    segment::{self, Extent, Identity, RECORDS_AT, Run},
};
use crate::{
    fuzz::{Dice, fuzz},
    io::BLOCK_BYTES,
    limits::INDEX_FILES_MAX,
    types::{ClusterId, Index, LeaseId, MemberId, Revision, Seq, Stamp, Term},
};

use futures_lite::future::block_on;

const CLUSTER: ClusterId = ClusterId(0xc1);

/// Writes the CRC-32 of everything before and behind it into four bytes at `at`.
fn sign(bytes: &mut [u8], at: usize) {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..at]);
    hasher.update(&bytes[at + 4..]);
    bytes[at..at + 4].copy_from_slice(&hasher.finalize().to_le_bytes());
}

fn link(dice: &mut Dice) -> Option<Link> {
    let link = Link { seq: Seq(dice.number()), main: Revision(1 + dice.roll() as i64 % 1000) };
    (link.main.0 > 0 && dice.once_in(2)).then_some(link)
}

/// The record `seq`, of revision `seq` + 2.
fn record(dice: &mut Dice, seq: u64) -> Vec<u8> {
    let header = record::Header {
        seq: Seq(seq),
        stamp: Stamp::new(seq as i64 + 2, dice.below(3) as u32),
        tombstone: dice.once_in(4),
        create: dice.once_in(4),
        rank: dice.below(60) as u8,
        prev: link(dice),
        jump: link(dice),
    };
    let (key, value) = ([b"k".to_vec(), dice.bytes(20)].concat(), dice.bytes(60));
    let payload = KeyValue {
        key: &key,
        create: dice.number() as i64,
        modified: header.stamp.main.0,
        version: dice.number() as i64,
        value: &value,
        lease: dice.number() as i64,
    };
    let mut bytes = Vec::new();
    record::encode(&header, &payload, &mut bytes);
    let read = Record::check(&bytes, 0).expect("it was just written");
    assert_eq!((read.seq(), read.stamp(), read.rank()), (header.seq, header.stamp, header.rank));
    assert_eq!((read.prev(), read.jump()), (header.prev, header.jump));
    assert_eq!((read.tombstone(), read.create()), (header.tombstone, header.create));
    assert_eq!((read.fields(), read.key()), (payload, key.as_slice()));
    bytes
}

#[test]
fn records() {
    fuzz("tree record", |dice| {
        let mut bytes = record(dice, 7);
        dice.spoil(&mut bytes);
        if let Some(len) = bytes.get(4..8).filter(|_| dice.once_in(2)) {
            let len = u32::from_le_bytes(len.try_into().expect("four bytes")) as usize;
            if let Some(signed) = bytes.get_mut(..record::HEADER_BYTES.saturating_add(len)) {
                sign(signed, 0);
            }
        }
        if let Ok(record) = Record::check(&bytes, 0) {
            assert!(record.bytes().len() <= bytes.len());
            assert_eq!(record.fields().key, record.key(), "what is taken can be used");
        }
    });
}

#[test]
fn key_values() {
    fuzz("KeyValue", |dice| {
        let (key, value) = (dice.bytes(20), dice.bytes(60));
        let numbers = [dice.number(), dice.number(), dice.number(), dice.number()];
        let [create, modified, version, lease] = numbers.map(|number| number as i64);
        let written = KeyValue { key: &key, create, modified, version, value: &value, lease };
        let mut bytes = Vec::new();
        written.encode(&mut bytes);
        assert_eq!(KeyValue::decode(&bytes), Some(written));
        dice.spoil(&mut bytes);
        let _first = kv::key(&bytes);
        if let Some(read) = KeyValue::decode(&bytes) {
            let mut again = Vec::new();
            read.encode(&mut again);
            assert_eq!(KeyValue::decode(&again), Some(read));
        }
    });
}

/// A sealed file of a few records, its name and how much it holds.
fn sealed(dice: &mut Dice) -> (Vec<u8>, Identity, Extent) {
    let sparse = dice.once_in(2);
    let first = dice.roll() % 100;
    let (mut seq, mut bytes, mut offsets, mut seqs) = (first, Vec::new(), Vec::new(), Vec::new());
    for _ in 0..dice.below(6) {
        seq += if sparse { dice.roll() % 3 } else { 0 };
        offsets.push(bytes.len() as u32);
        seqs.extend_from_slice(&seq.to_le_bytes());
        bytes.extend(record(dice, seq));
        seq += 1;
    }
    let generation = u64::from(sparse);
    let identity = Identity { id: 3, generation, first: Seq(first), next: Seq(seq) };
    let extent = Extent { records: offsets.len(), bytes: bytes.len(), sparse };
    let run = match sparse {
        true => Run::sparse(identity.first, &bytes, &offsets, &seqs),
        false => Run::dense(identity.first, &bytes, &offsets),
    };
    let mut file = segment::header(CLUSTER, &identity);
    file.extend_from_slice(&bytes);
    file.resize(extent.footer_at(), 0);
    file.extend(segment::ending(CLUSTER, &identity, &run));
    assert_eq!(file.len(), extent.file_bytes());
    (file, identity, extent)
}

#[test]
fn sealed_segments() {
    fuzz("tree segment", |dice| {
        let (mut file, identity, extent) = sealed(dice);
        segment::check_sealed(&file, CLUSTER, &identity, &extent).expect("it was just written");
        let whole = file.clone();
        dice.spoil(&mut file);
        // Whoever calls has seen that the length is right.
        file.resize(extent.file_bytes(), 0);
        // Blocks from the trailer's on are signed like the first: after twelve bytes.
        if dice.once_in(2) {
            sign(&mut file[..BLOCK_BYTES], 12);
            let trailer = extent.file_bytes() - BLOCK_BYTES;
            sign(&mut file[trailer..], 12);
        }
        if segment::check_sealed(&file, CLUSTER, &identity, &extent).is_ok() {
            let records = RECORDS_AT..RECORDS_AT + extent.bytes;
            assert_eq!(file[records.clone()], whole[records], "checksums of records find it");
        }
        let _tail = segment::check_records(&file[RECORDS_AT..], &identity, extent.sparse).is_ok();
    });
}

fn root(dice: &mut Dice) -> Root {
    let facts = RootFacts {
        cluster: CLUSTER,
        member: MemberId(dice.number()),
        applied: Index(dice.number()),
        applied_term: Term(dice.number()),
        installed: Index(dice.number()),
        revision: Revision(dice.number() as i64),
        state: dice.bytes(300).into(),
    };
    let entry = |dice: &mut Dice| {
        let generation = dice.below(3) as u64;
        let (first, next) = (Seq(dice.number()), Seq(dice.number()));
        let identity = Identity { id: dice.number(), generation, first, next };
        let (records, bytes) = (dice.number() as usize, dice.number() as usize);
        let live = Live { records: dice.number() as usize, bytes: dice.number() as usize };
        let extent = Extent { records, bytes, sparse: generation > 0 };
        root::Entry { identity, extent, live }
    };
    let file = |dice: &mut Dice| IndexEntry {
        slot: dice.below(INDEX_FILES_MAX) as u16,
        number: dice.number(),
        bytes: dice.number(),
        live: dice.number(),
    };
    let index = |dice: &mut Dice| IndexRoot {
        root: dice.once_in(2).then(|| {
            let place = Place { slot: dice.below(INDEX_FILES_MAX) as u16, line: dice.roll() >> 20 };
            page::Link::in_file(place, dice.roll() as u32)
        }),
        count: Count { live: dice.number(), cells: dice.number() },
        files: (0..dice.below(5)).map(|_| file(dice)).collect(),
    };
    let (id, first) = (dice.number(), Seq(dice.number()));
    Root {
        number: dice.number(),
        facts,
        compacted: Revision(dice.number() as i64),
        seq_next: Seq(dice.number()),
        sibling_damage: None,
        segment_bytes: dice.number() as usize,
        sealed: (0..dice.below(5)).map(|_| entry(dice)).collect(),
        tail: TailEntry { id, generation: dice.number(), first, bytes: dice.number() as usize },
        dead_bytes: dice.number() as usize,
        leases: LeaseFile { number: dice.number(), bytes: dice.number(), crc: dice.roll() as u32 },
        swept: Revision(dice.number() as i64),
        index: [index(dice), index(dice)],
    }
}

fn whole(slot: &[u8], number: u64) -> Option<Root> {
    match root::decode(slot, 0, number % root::SLOTS) {
        Slot::Whole(root) => Some(*root),
        Slot::Blank | Slot::Damaged(_) | Slot::Foreign(_) => None,
    }
}

#[test]
fn superblocks() {
    fuzz("superblock", |dice| {
        let root = root(dice);
        let mut slot = root.encode();
        assert_eq!(whole(&slot, root.number).as_ref(), Some(&root));
        dice.spoil(&mut slot);
        slot.resize(slot.len().next_multiple_of(BLOCK_BYTES).max(BLOCK_BYTES), 0);
        if let Some(bytes) = root::bytes_in_use(&slot, slot.len()).filter(|_| dice.once_in(2)) {
            sign(&mut slot[..bytes], 12);
        }
        if let Some(read) = whole(&slot, root.number) {
            assert_eq!(whole(&read.encode(), root.number), Some(read));
        }
    });
}

#[test]
fn lists_of_the_dead() {
    fuzz("list of the dead", |dice| {
        let mut list = Dead::new();
        for _ in 0..dice.below(4) {
            let words = (0..dice.below(4)).map(|_| dice.number()).collect();
            list.insert((dice.number(), dice.roll()), words);
        }
        let number = dice.number();
        let mut bytes = dead::encode(CLUSTER, number, &list);
        let head = dead::encode(CLUSTER, number, &Dead::new()).len();
        assert_eq!(dead::decode(&bytes, CLUSTER, number).as_ref(), Ok(&list));
        dice.spoil(&mut bytes);
        // Whoever calls has seen that there is a head.
        bytes.resize(bytes.len().max(head), 0);
        if dice.once_in(2) {
            sign(&mut bytes, 12);
        }
        if let Ok(read) = dead::decode(&bytes, CLUSTER, number) {
            let again = dead::encode(CLUSTER, number, &read);
            assert_eq!(dead::decode(&again, CLUSTER, number), Ok(read));
        }
    });
}

/// A file of leases and how a superblock names it.
fn leases(view: &MapView, number: u64) -> (Vec<u8>, LeaseFile) {
    let mut pieces = Pieces::new(CLUSTER, number, view);
    let bytes: Vec<u8> = pieces.by_ref().flatten().collect();
    (bytes, pieces.taken())
}

#[test]
fn tables_of_leases() {
    fuzz("table of leases", |dice| {
        let mut map = Map::new(256);
        for _ in 0..dice.below(6) {
            let id = LeaseId(dice.number() as i64);
            let (granted, remaining) = (dice.number() as i64, dice.number() as i64);
            let since = Index(dice.number());
            lease::insert(&mut map, id, Lease { granted, remaining, since });
        }
        let view = map.publish();
        let (mut bytes, mut named) = leases(&view, dice.number());
        assert_eq!(named.bytes, bytes.len() as u64);
        let read =
            |bytes: &[u8], named: &LeaseFile| block_on(lease::decode(bytes, CLUSTER, named, 256));
        let again = read(&bytes, &named).expect("it was just written");
        assert!(again.reader().seek(&[]).eq(view.reader().seek(&[])));
        dice.spoil(&mut bytes);
        if dice.once_in(2) {
            named.crc = crc32fast::hash(&bytes);
        }
        if let Ok(mut map) = read(&bytes, &named) {
            let (again, _) = leases(&map.publish(), named.number);
            assert_eq!(again, bytes, "there is one way to write a table");
        }
    });
}

/// Parts that fit together, up to the record `next`, and the id of the tail.
fn parts(dice: &mut Dice, segment_bytes: usize) -> (Vec<Part>, Seq, u64) {
    let (mut parts, mut next, mut id, mut all) = (Vec::new(), Seq(0), 0, 0);
    let segments = dice.below(5);
    for at in 0..=segments {
        let kind = if at == segments { Kind::Tail } else { Kind::Segment };
        let records = 1 + dice.below(segment_bytes / record::RECORD_BYTES_MIN);
        let gaps = if kind == Kind::Segment { dice.roll() % 5 } else { 0 };
        let first = Seq(next.0 + dice.roll() % 3);
        next = Seq(first.0 + records as u64 + gaps);
        (id, all) = (id + 1 + dice.roll() % 3, all + records);
        let identity = Identity { id, generation: dice.number(), first, next };
        let least = records * record::RECORD_BYTES_MIN;
        let bytes = (least + dice.below((segment_bytes - least) / 8 + 1) * 8) as u64;
        parts.push(Part { kind, identity, records, bytes, crc: dice.roll() as u32 });
    }
    if dice.once_in(2) {
        let most = dead::bytes_max(parts.len(), all) - dead::HEAD_BYTES as u64;
        let bytes = dead::HEAD_BYTES as u64 + dice.roll() % most;
        parts.push(Part::list(Kind::Dead, 0, bytes, dice.roll() as u32));
    }
    if dice.once_in(2) {
        let leases = 1 + dice.below(1 << 20);
        let bytes = (leases * LEASE_BYTES) as u64;
        parts.push(Part::list(Kind::Leases, leases, bytes, dice.roll() as u32));
    }
    (parts, next, id)
}

#[test]
fn manifests() {
    fuzz("manifest of a snapshot", |dice| {
        let segment_bytes = 4096;
        let (parts, seq_next, tail_id) = parts(dice, segment_bytes);
        let revision = 1 + (dice.number() >> 1) as i64 % (i64::MAX - 1);
        let applied = Index(dice.number());
        let manifest = Manifest {
            facts: RootFacts {
                cluster: CLUSTER,
                member: MemberId(dice.number()),
                applied,
                applied_term: Term(dice.number()),
                installed: applied,
                revision: Revision(revision),
                state: dice.bytes(300).into(),
            },
            compacted: Revision((dice.number() >> 1) as i64 % (revision + 1)),
            seq_next,
            segment_bytes,
            tail_id,
            parts,
        };
        let mut bytes = manifest.encode();
        let read = |bytes: &[u8]| Manifest::decode(bytes, CLUSTER, segment_bytes);
        assert_eq!(read(&bytes).as_ref(), Ok(&manifest));
        dice.spoil(&mut bytes);
        if dice.once_in(2) && bytes.len() >= 24 {
            let len = bytes.len() as u64;
            bytes[16..24].copy_from_slice(&len.to_le_bytes());
            sign(&mut bytes, 12);
        }
        if let Ok(manifest) = read(&bytes) {
            assert_eq!(manifest.encode(), bytes, "there is one way to write a manifest");
        }
    });
}

#[test]
fn cells() {
    fuzz("cell", |dice| {
        let modified = Stamp::new(1_000_000 + dice.roll() as i64 % 1000, dice.roll() as u32);
        let mut at = Link { seq: Seq(1_000_000 + dice.roll() % 1000), main: modified.main };
        let mut roots = Vec::new();
        for _ in 0..1 + dice.below(20) {
            roots.push(chain::Root { link: at, rank: dice.below(60) as u8 });
            at.seq.0 -= 1 + dice.roll() % 1000;
            at.main.0 -= 1 + dice.below(1000) as i64;
        }
        let meta = KeyMeta {
            create: Revision(1 + dice.below(1_000_000) as i64),
            modified,
            version: 1 + dice.below(1 << 40) as i64,
            lease: LeaseId(dice.number() as i64),
            value_bytes: dice.roll() as u32,
        };
        let meta = Some(meta).filter(|_| !dice.once_in(3));
        let mut bytes = Vec::new();
        cell::encode(modified, meta.as_ref(), &roots, &mut bytes);
        let cell = Cell::decode(&bytes);
        assert_eq!((cell.modified, cell.meta), (modified, meta));
        assert_eq!(
            (cell.roots().collect::<Vec<_>>(), cell.newest()),
            (roots.clone(), roots[0].link.seq)
        );
    });
}
