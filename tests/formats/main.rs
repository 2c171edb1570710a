//! `docs/formats.md` tells the truth: what the code writes is read back with the page's tables alone.
//!
//! The log's structures are encoded; for the engine a data directory is written and then read from
//! the superblock down to the last key, without the code that wrote it.

mod byte_map;

use byte_map::{ByteMap, PAGE};
use bytes::Bytes;
use futures_lite::future::block_on;
use prost::Message;
use proto::mvccpb::KeyValue;
use ringleader::{
    io::{
        BLOCK_BYTES,
        thread::{Lane, LaneDisk, Priority},
    },
    store::{Alarm, Cluster, Member},
    tree::{self, Lease, Options, RootFacts, Tree},
    types::{ClusterId, Index, LeaseId, MemberId, Revision, Stamp, Term},
    wal::{Batch, HardState, LogEntry, frame, record, segment},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
};

/// The fields of `map` have these values in `bytes`, and there are no others.
fn holds(map: &ByteMap, bytes: &[u8], expected: &[(&'static str, u64)]) {
    let found: Vec<_> = map.names().map(|field| (field, map.number(bytes, field))).collect();
    let mut expected = expected.to_vec();
    expected.sort_unstable();
    assert_eq!(found, expected);
}

fn magic(text: &[u8; 8]) -> u64 {
    u64::from_le_bytes(*text)
}

/// CRC-32 of all of `bytes` but the four at the field `crc`.
fn crc_of_the_rest(map: &ByteMap, bytes: &[u8]) -> u64 {
    let crc = map.place("crc");
    u64::from(crc32fast::hash(&[&bytes[..crc.start], &bytes[crc.end..]].concat()))
}

#[test]
fn a_log_segment_begins_as_the_page_says() {
    let header = segment::Header {
        cluster: 1,
        member: 2,
        segment_bytes: 3,
        sequence: 4,
        salt: 5,
        first_frame: 6,
        chain: 7,
        last_index: 8,
        durable_upto: 9,
        trimmed: 10,
        hard_state: HardState { term: 11, vote: 12, commit: 13 },
    };
    let mut block = [0; BLOCK_BYTES];
    header.encode(&mut block);
    let map = ByteMap::of("Log: segment header");
    assert_eq!(map.end(), segment::HEADER_BYTES);
    let expected = [
        ("magic", magic(b"RLWALSEG")),
        ("version", 1),
        ("chain", 7),
        ("cluster", 1),
        ("member", 2),
        ("segment bytes", 3),
        ("sequence", 4),
        ("salt", 5),
        ("first frame", 6),
        ("last index", 8),
        ("durable upto", 9),
        ("trimmed", 10),
        ("term", 11),
        ("vote", 12),
        ("commit", 13),
        ("crc", u64::from(crc32fast::hash(&block[..112]))),
    ];
    holds(&map, &block, &expected);
    assert_eq!(header.frame_salt(), 5 ^ 4u64.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    assert!(PAGE.contains("0x9e3779b97f4a7c15"));
}

#[test]
fn a_frame_and_its_entries_lie_as_the_page_says() {
    let data = Bytes::from_static(b"two");
    let batch = Batch {
        entries: vec![LogEntry { index: 5, term: 6, kind: 1, data: data.clone() }],
        hard_state: HardState { term: 7, vote: 8, commit: 4 },
    };
    let place = frame::Place { salt: 77, number: 3, chain: 9, durable_upto: 2, trimmed: 1 };
    let mut bytes = vec![0; frame::frame_bytes(&batch)];
    frame::encode(&batch, &place, &mut bytes);

    let (map, entry) = (ByteMap::of("Log: frame"), ByteMap::of("Log: entry"));
    assert_eq!((map.end(), entry.end()), (frame::FRAME_HEAD_BYTES, record::RECORD_HEAD_BYTES));
    let payload = map.place("payload").start;
    let payload = &bytes[payload..payload + entry.end() + data.len()];
    let payload_crc = crc32fast::hash(payload);
    let header_crc = crc32fast::hash(&bytes[..84]);
    let mut chain = crc32fast::Hasher::new_with_initial(place.chain);
    chain.update(&header_crc.to_le_bytes());
    chain.update(&payload_crc.to_le_bytes());
    assert_eq!(bytes[map.place("reserved")], [0; 12]);
    let numbers: Vec<_> = map.names().filter(|field| *field != "reserved").collect();
    let found: Vec<_> = numbers.iter().map(|field| (*field, map.number(&bytes, field))).collect();
    let mut expected = vec![
        ("magic", magic(b"RLFRAME1") ^ 77),
        ("number", 3),
        ("payload bytes", payload.len() as u64),
        ("entries", 1),
        ("durable upto", 2),
        ("trimmed", 1),
        ("first index", 5),
        ("last index", 5),
        ("term", 7),
        ("vote", 8),
        ("commit", 4),
        ("payload crc", payload_crc.into()),
        ("header crc", header_crc.into()),
        ("chain", chain.finalize().into()),
    ];
    expected.sort_unstable();
    assert_eq!(found, expected);
    holds(&entry, payload, &[("index", 5), ("term", 6), ("data bytes", 3), ("kind", 1)]);
    assert_eq!(&payload[entry.place("data").start..], data);
}

#[test]
fn the_store_blob_is_the_pages_example() {
    let member = Member {
        id: MemberId(5),
        name: "a".into(),
        peer_urls: vec!["p".into()],
        client_urls: vec!["c".into()],
        learner: false,
    };
    let cluster = Cluster {
        members: [(member.id, member)].into(),
        alarms: [Alarm { kind: 1, member: MemberId(5) }].into(),
        version: Some("3.7.0".into()),
        removed: [MemberId(7)].into(),
    };
    let blob: Vec<_> = cluster.encode().iter().map(|byte| format!("{byte:02x}")).collect();
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert!(
        PAGE.lines().any(|line| words(line) == blob),
        "the page has no line {}",
        blob.join(" ")
    );
}

/// A directory of its own below the build's, gone when dropped. O_DIRECT wants a disk there.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let name = format!("formats-{}", std::process::id());
        let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&dir).expect("the build's directory can be written");
        Self(dir)
    }

    fn names(&self, dir: &str) -> Vec<String> {
        let entries = fs::read_dir(self.0.join(dir)).expect("the tree made it");
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.0.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.0).is_err();
    }
}

const SEGMENT_BYTES: usize = 16 << 10;

fn facts(revision: i64) -> RootFacts {
    RootFacts {
        cluster: ClusterId(0xc1),
        member: MemberId(0x3e),
        applied: Index(revision as u64 + 1000),
        applied_term: Term(6),
        installed: Index(4),
        revision: Revision(revision),
        state: Bytes::from_static(b"the store's own"),
    }
}

fn checkpoint(tree: &mut Tree, disk: &LaneDisk, revision: i64) {
    let job = tree.begin_checkpoint(facts(revision)).expect("none is running");
    tree.finish_checkpoint(block_on(job.run(disk.clone())).expect("the disk takes a checkpoint"));
}

/// Eight keys that stay as they are, then forty rounds of twenty more, the last of key 3 a tombstone.
/// Compacted more than once, so that there are rewritten segments, full ones with some dead, and one
/// being filled. Returns the revision and the compacted one.
fn write_directory(dir: &Scratch) -> (i64, i64) {
    let lane = Lane::start("formats", Priority::Normal).expect("a thread starts");
    let disk = LaneDisk::new(lane, dir.0.clone());
    let options = Options { segment_bytes: SEGMENT_BYTES, ..Options::default() };
    let mut tree = block_on(tree::format(&disk, options, facts(1))).expect("a fresh directory");
    let mut revision = 1;
    for key in 0..8 {
        revision += 1;
        tree.put(Stamp::new(revision, 0), &[b's', key], b"still", LeaseId(0));
    }
    for id in -2_i64..3 {
        let since = Index(90 + id.unsigned_abs());
        tree.set_lease(LeaseId(id), Lease { granted: 60 + id, remaining: id & 1, since });
    }
    for round in 0..40 {
        for key in 0..20 {
            revision += 1;
            let value = vec![key; 40 + round];
            tree.put(Stamp::new(revision, 0), &[b'k', key], &value, LeaseId(i64::from(key)));
        }
        if round == 30 {
            checkpoint(&mut tree, &disk, revision);
            compact(&mut tree, &disk, revision, revision - 30);
        }
    }
    revision += 1;
    tree.delete(Stamp::new(revision, 0), &[b'k', 3]);
    checkpoint(&mut tree, &disk, revision);
    // A few more die at a time, until some lie in a segment that is not worth rewriting.
    let mut compacted = (revision - 200..revision).step_by(10);
    let compacted = compacted.find(|compacted| {
        compact(&mut tree, &disk, revision, *compacted);
        dir.names("rec").iter().any(|name| name.starts_with("dead."))
    });
    (revision, compacted.expect("a segment dies by and by"))
}

fn compact(tree: &mut Tree, disk: &LaneDisk, revision: i64, compacted: i64) {
    tree.compact(Revision(compacted));
    while !tree.sweep(1000) {}
    checkpoint(tree, disk, revision);
}

/// A slot of the superblock, if its checksum fits.
fn slot<'a>(map: &ByteMap, bytes: &'a [u8]) -> Option<&'a [u8]> {
    let slot = bytes.get(..map.number(bytes, "bytes in use") as usize)?;
    let whole = map.number(slot, "magic") == magic(b"RLroot\r\n")
        && map.number(slot, "crc") == crc_of_the_rest(map, slot);
    whole.then_some(slot)
}

/// Checks `bytes`, records behind each other, and returns where each begins and its number.
fn walk_records(bytes: &[u8], found: &mut Vec<(u64, bool, KeyValue)>) -> Vec<(u32, u64)> {
    let map = ByteMap::of("Record");
    let (mut at, mut begins) = (0, Vec::new());
    while at < bytes.len() {
        let rest = &bytes[at..];
        let payload = map.place("payload").start;
        let end = payload + map.number(rest, "payload bytes") as usize;
        let crc = u64::from(crc32fast::hash(&rest[map.place("crc").end..end]));
        assert_eq!(map.number(rest, "crc"), crc, "the record at {at}");
        let kv = KeyValue::decode(&rest[payload..end]).expect("a payload is a KeyValue");
        let (main, flags) = (map.number(rest, "main"), map.number(rest, "flags"));
        assert_eq!((map.number(rest, "sub"), map.number(rest, "zero")), (0, 0));
        assert_eq!(flags & 1 == 1, kv.version == 0, "a tombstone has a key and nothing else");
        assert_eq!(flags & 2 == 2, kv.version == 1, "the key came to be at {main}");
        assert!(map.number(rest, "prev main") < main && map.number(rest, "jump main") < main);
        let seq = map.number(rest, "seq");
        found.push((main, flags & 1 == 1, kv));
        begins.push((at as u32, seq));
        at += end.next_multiple_of(8);
    }
    begins
}

#[test]
fn a_data_directory_can_be_read_with_the_page_alone() {
    let dir = Scratch::new();
    let (revision, compacted) = write_directory(&dir);

    let root = ByteMap::of("Superblock slot");
    let superblock = dir.read("superblock");
    let halves = superblock.split_at(superblock.len() / 2);
    let slots = [halves.0, halves.1].map(|half| slot(&root, half).expect("both slots are whole"));
    let number = |slot: &[u8]| root.number(slot, "number");
    slots.iter().zip(0..).for_each(|(slot, place)| assert_eq!(number(slot) % 2, place));
    let slot = slots.into_iter().max_by_key(|slot| number(slot)).expect("there are two");
    let expected = [
        ("version", 3),
        ("cluster", 0xc1),
        ("member", 0x3e),
        ("applied index", revision as u64 + 1000),
        ("applied term", 6),
        ("installed", 4),
        ("revision", revision as u64),
        ("compacted", compacted as u64),
        ("next seq", 8 + 20 * 40 + 1),
        ("segment bytes", SEGMENT_BYTES as u64),
        ("swept", compacted as u64),
        ("state bytes", 15),
    ];
    for (field, value) in expected {
        assert_eq!(root.number(slot, field), value, "{field}");
    }
    assert!(slot.ends_with(b"the store's own"));

    let entry = ByteMap::of("A sealed segment in the list");
    let list = &slot[root.place("list").start..slot.len() - 15];
    let list = index(&dir, &root, slot, list);
    let entries: Vec<_> = list.chunks(entry.end()).collect();
    assert_eq!(entries.len() as u64, root.number(slot, "sealed segments"));
    let mut found = Vec::new();
    let mut generations = Vec::new();
    for listed in entries {
        generations.push(entry.number(listed, "generation"));
        sealed_segment(&dir, &entry, listed, &mut found);
    }
    assert!(generations.contains(&0) && generations.iter().any(|g| *g > 0), "{generations:?}");
    tail(&dir, &root, slot, &mut found);
    dead(&dir, &root, slot, &entries_of(&entry, list));
    leases(&dir, &root, slot);

    let (main, tombstone, kv) = found.last().expect("there are records");
    assert_eq!((*main, *tombstone, &kv.key[..]), (revision as u64, true, &[b'k', 3][..]));
    assert!(found.is_sorted_by_key(|(main, ..)| *main), "records are in the order of revisions");
    for key in (0..20).filter(|key| *key != 3) {
        let newest = found.iter().rev().find(|(.., kv)| kv.key[..] == [b'k', key]);
        let (_, _, kv) = newest.expect("every key is there");
        let expected = (&[key; 79][..], 40, i64::from(key));
        assert_eq!((&kv.value[..], kv.version, kv.lease), expected);
    }
}

/// Reads both indexes; returns the list behind their files.
fn index<'a>(dir: &Scratch, root: &ByteMap, slot: &[u8], list: &'a [u8]) -> &'a [u8] {
    let keys = Pages::of(dir, root, slot, "keys", list);
    let held = Pages::of(dir, root, slot, "held", keys.behind);
    let expected: BTreeSet<Vec<u8>> =
        (0..8).map(|key| vec![b's', key]).chain((0..20).map(|key| vec![b'k', key])).collect();
    assert_eq!(keys.cells, expected);
    let held_by = |id: u8| [&(u64::from(id) | 1 << 63).to_be_bytes()[..], &[b'k', id]].concat();
    // 0 is no lease, and key 3 is deleted.
    let expected: BTreeSet<_> = (1..20).filter(|key| *key != 3).map(held_by).collect();
    assert_eq!(held.cells, expected);
    held.behind
}

/// An index, read from its files.
struct Pages<'a> {
    /// By slot.
    files: BTreeMap<u64, Vec<u8>>,
    /// The keys of all cells.
    cells: BTreeSet<Vec<u8>>,
    live: u64,
    /// By slot, bytes of pages that the root leads to.
    page_bytes: BTreeMap<u64, u64>,
    /// What is behind its files in the list.
    behind: &'a [u8],
}

impl<'a> Pages<'a> {
    fn of(dir: &Scratch, root: &ByteMap, slot: &[u8], which: &str, list: &'a [u8]) -> Self {
        let of = |field: &str| root.number(slot, &format!("{which} {field}"));
        let entry = ByteMap::of("An index file in the list");
        let (listed, behind) = list.split_at(of("files") as usize * entry.end());
        let mut index = Self {
            files: BTreeMap::new(),
            cells: BTreeSet::new(),
            live: 0,
            page_bytes: BTreeMap::new(),
            behind,
        };
        for listed in listed.chunks(entry.end()) {
            let number = entry.number(listed, "number");
            let suffix = if which == "keys" { "" } else { ".held" };
            let mut file = dir.read(&format!("idx/{number:010}{suffix}"));
            file.truncate(entry.number(listed, "bytes") as usize);
            let map = ByteMap::of("Index file");
            let expected = [
                ("magic", magic(b"RLindex\n")),
                ("version", 1),
                ("crc", crc32fast::hash(&file[16..32]).into()),
                ("cluster", 0xc1),
                ("number", number),
            ];
            holds(&map, &file, &expected);
            index.files.insert(entry.number(listed, "slot"), file);
        }
        index.page(of("link"), of("crc"));
        assert_eq!((index.live, index.cells.len() as u64), (of("live"), of("cells")));
        for listed in listed.chunks(entry.end()) {
            let bytes = index.page_bytes.get(&entry.number(listed, "slot")).copied();
            assert_eq!(bytes.unwrap_or(0), entry.number(listed, "page bytes"));
        }
        index
    }

    /// Takes in the page at a link, and what is below it.
    fn page(&mut self, link: u64, crc: u64) {
        let (at, slot) = ((link & ((1 << 48) - 1)) * 64, link >> 48);
        let page = ByteMap::of("Tree page");
        let file = &self.files[&slot][at as usize..];
        let bytes = page.number(file, "page bytes");
        let file = file[..bytes as usize].to_vec();
        assert_eq!(u64::from(crc32fast::hash(&file)), crc, "the page at {link:#x}");
        *self.page_bytes.entry(slot).or_default() += bytes;
        let (slots, cell) = (ByteMap::of("Slot"), ByteMap::of("Cell"));
        for entry in 0..page.number(&file, "entries") as usize {
            let offset =
                slots.number(&file[page.place("slots").start + 8 * entry..], "cell offset");
            let at = (offset & !(1 << 31)) as usize;
            let (key, body) =
                (cell.number(&file[at..], "key bytes"), cell.number(&file[at..], "body bytes"));
            let body_at = at + cell.place("body").start;
            let body = &file[body_at..body_at + body as usize];
            if page.number(&file, "level") == 0 {
                self.live += offset >> 31;
                let key_at = body_at + body.len();
                assert!(self.cells.insert(file[key_at..key_at + key as usize].to_vec()));
                continue;
            }
            let map = ByteMap::of("Body of a branch's cell");
            let before = (self.live, self.cells.len() as u64);
            self.page(map.number(body, "link"), map.number(body, "crc"));
            let below = (self.live - before.0, self.cells.len() as u64 - before.1);
            assert_eq!(below, (map.number(body, "live"), map.number(body, "cells")));
        }
    }
}

fn sealed_segment(
    dir: &Scratch,
    entry: &ByteMap,
    listed: &[u8],
    found: &mut Vec<(u64, bool, KeyValue)>,
) {
    let of = |field| entry.number(listed, field);
    let file = dir.read(&format!("rec/{:010}.g{}", of("id"), of("generation")));
    header(&file, of("id"), of("generation"), of("first seq"));

    let records_bytes = of("records bytes") as usize;
    let begins = walk_records(&file[BLOCK_BYTES..BLOCK_BYTES + records_bytes], found);
    assert_eq!(begins.len() as u64, of("records"));
    let mut footer: Vec<u8> = begins.iter().flat_map(|(at, _)| at.to_le_bytes()).collect();
    if of("generation") > 0 {
        footer.extend(begins.iter().flat_map(|(_, seq)| seq.to_le_bytes()));
    }
    let footer_at = BLOCK_BYTES + records_bytes.next_multiple_of(BLOCK_BYTES);
    let trailer_at = footer_at + footer.len().next_multiple_of(BLOCK_BYTES);
    assert_eq!(&file[footer_at..footer_at + footer.len()], footer);
    assert_eq!(file.len(), trailer_at + BLOCK_BYTES, "the trailer is the last block");

    let map = ByteMap::of("Record segment: footer and trailer");
    let trailer = &file[trailer_at..];
    let expected = [
        ("magic", magic(b"RLsgend\n")),
        ("version", 1),
        ("crc", crc_of_the_rest(&map, trailer)),
        ("cluster", 0xc1),
        ("id", of("id")),
        ("generation", of("generation")),
        ("first seq", of("first seq")),
        ("next seq", of("next seq")),
        ("records", of("records")),
        ("records bytes", of("records bytes")),
        ("footer crc", crc32fast::hash(&footer).into()),
    ];
    holds(&map, trailer, &expected);
}

fn tail(dir: &Scratch, root: &ByteMap, slot: &[u8], found: &mut Vec<(u64, bool, KeyValue)>) {
    let of = |field| root.number(slot, field);
    let file = dir.read(&format!("rec/{:010}.g0", of("tail id")));
    header(&file, of("tail id"), 0, of("tail first seq"));
    let records = &file[BLOCK_BYTES..][..of("tail bytes") as usize];
    let begins = walk_records(records, found);
    assert!(!begins.is_empty());
    assert_eq!(of("tail first seq") + begins.len() as u64, of("next seq"));
}

/// Id, generation and number of records of each sealed segment.
fn entries_of(entry: &ByteMap, list: &[u8]) -> Vec<[u64; 3]> {
    let fields = ["id", "generation", "records"];
    list.chunks(entry.end()).map(|listed| fields.map(|of| entry.number(listed, of))).collect()
}

fn dead(dir: &Scratch, root: &ByteMap, slot: &[u8], sealed: &[[u64; 3]]) {
    let (map, part) = (ByteMap::of("List of dead records"), ByteMap::of("A segment's dead"));
    let number = root.number(slot, "number");
    let file = dir.read(&format!("rec/dead.{number:010}"));
    let list = &file[..root.number(slot, "dead bytes") as usize];
    let segments = map.number(list, "segments");
    let expected = [
        ("magic", magic(b"RLdead\r\n")),
        ("version", 1),
        ("crc", crc_of_the_rest(&map, list)),
        ("cluster", 0xc1),
        ("number", number),
        ("segments", segments),
    ];
    holds(&map, list, &expected);
    let (mut rest, mut marked) = (&list[map.end()..], 0);
    for _ in 0..segments {
        let of = |field| part.number(rest, field);
        let segment = sealed
            .iter()
            .find(|[id, generation, _]| [*id, *generation] == [of("id"), of("generation")]);
        let [.., records] = segment.expect("the dead lie in segments that are there");
        let (marks, behind) = rest[part.end()..].split_at(of("words") as usize * 8);
        let set = (0..marks.len() * 8).filter(|at| marks[at / 8] >> (at % 8) & 1 == 1);
        let set: Vec<_> = set.collect();
        assert!(set.iter().all(|at| *at < *records as usize), "{set:?} of {records}");
        (rest, marked) = (behind, marked + set.len());
    }
    assert!(rest.is_empty() && marked > 0, "{marked} dead, {} bytes left", rest.len());
}

/// Written once, by the first checkpoint after the grants, and named by all superblocks since.
fn leases(dir: &Scratch, root: &ByteMap, slot: &[u8]) {
    let (map, part) = (ByteMap::of("Table of leases"), ByteMap::of("A lease"));
    let number = root.number(slot, "leases number");
    assert!(number < root.number(slot, "number"));
    let file = dir.read(&format!("rec/leases.{number:010}"));
    let bytes = root.number(slot, "leases bytes") as usize;
    assert_eq!(file.len(), bytes.next_multiple_of(BLOCK_BYTES));
    let table = &file[..bytes];
    assert_eq!(root.number(slot, "leases crc"), u64::from(crc32fast::hash(table)));
    let expected = [
        ("magic", magic(b"RLlease\n")),
        ("version", 1),
        ("cluster", 0xc1),
        ("number", number),
        ("leases", 5),
    ];
    holds(&map, table, &expected);
    let list = table[map.end()..].chunks(part.end());
    let found: Vec<_> = list
        .map(|one| {
            ["id", "granted", "remaining", "since"].map(|field| part.number(one, field) as i64)
        })
        .collect();
    assert_eq!(
        found,
        [[-2, 58, 0, 92], [-1, 59, 1, 91], [0, 60, 0, 90], [1, 61, 1, 91], [2, 62, 0, 92]]
    );
}

#[test]
fn a_snapshots_manifest_and_parts_are_as_the_page_says() {
    let options = Options { segment_bytes: SEGMENT_BYTES, ..Options::default() };
    let mut tree = Tree::new(options);
    for main in 2..1002 {
        let (at, key) = (Stamp::new(main, 0), [b'k', (main % 300) as u8]);
        tree.put(at, &key, &[main as u8; 50], LeaseId(0));
    }
    tree.compact(Revision(400));
    while !tree.sweep(1000) {}
    tree.set_lease(LeaseId(-5), Lease { granted: 60, remaining: 7, since: Index(9) });
    let snapshot = tree.snapshot(facts(1001));
    let bytes = block_on(snapshot.encode_manifest());
    let (map, part) = (ByteMap::of("Snapshot manifest"), ByteMap::of("A part of a snapshot"));
    let of = |field| map.number(&bytes, field);
    let (parts, state) = (of("parts"), of("state bytes"));
    let list = &bytes[map.end()..bytes.len() - state as usize];
    let tail = list.chunks(part.end()).find(|listed| part.number(listed, "kind") == 2);
    let expected = [
        ("magic", magic(b"RLsnap\r\n")),
        ("version", 1),
        ("crc", crc_of_the_rest(&map, &bytes)),
        ("bytes", bytes.len() as u64),
        ("cluster", 0xc1),
        ("member", 0x3e),
        ("applied index", 2001),
        ("applied term", 6),
        ("revision", 1001),
        ("compacted", 400),
        ("next seq", 1000),
        ("segment bytes", SEGMENT_BYTES as u64),
        ("tail id", part.number(tail.expect("it has records"), "id")),
        ("parts", parts),
        ("state bytes", 15),
    ];
    holds(&map, &bytes, &expected);
    assert!(bytes.ends_with(b"the store's own"));
    let (mut kinds, mut found, mut next) = (Vec::new(), Vec::new(), 0);
    for (at, listed) in list.chunks(part.end()).enumerate() {
        let of = |field| part.number(listed, field);
        let content: Vec<u8> = snapshot.pieces(at).flatten().collect();
        assert_eq!(of("part bytes"), content.len() as u64);
        assert_eq!(of("crc"), u64::from(crc32fast::hash(&content)));
        kinds.push(of("kind"));
        match of("kind") {
            1 | 2 => {
                let begins = walk_records(&content, &mut found);
                assert_eq!(begins.len() as u64, of("records"));
                assert!(
                    begins.iter().all(|(_, seq)| (of("first seq")..of("next seq")).contains(seq))
                );
                assert_eq!(of("generation"), 0);
                next = of("next seq");
            }
            3 => {
                let map = ByteMap::of("List of dead records");
                assert_eq!(map.number(&content, "magic"), magic(b"RLdead\r\n"));
                assert_eq!(map.number(&content, "crc"), crc_of_the_rest(&map, &content));
                assert_eq!(
                    (map.number(&content, "cluster"), map.number(&content, "number")),
                    (0xc1, 0)
                );
            }
            _ => {
                let map = ByteMap::of("A lease");
                let expected =
                    [("id", -5_i64 as u64), ("granted", 60), ("remaining", 7), ("since", 9)];
                holds(&map, &content, &expected);
                assert_eq!(of("records"), 1);
            }
        }
    }
    assert_eq!((kinds.len() as u64, next), (parts, 1000));
    assert!(kinds.is_sorted() && kinds.ends_with(&[1, 2, 3, 4]), "{kinds:?}");
}

fn header(file: &[u8], id: u64, generation: u64, first_seq: u64) {
    let map = ByteMap::of("Record segment: header block");
    let block = &file[..BLOCK_BYTES];
    let expected = [
        ("magic", magic(b"RLsegmt\n")),
        ("version", 1),
        ("crc", crc_of_the_rest(&map, block)),
        ("cluster", 0xc1),
        ("id", id),
        ("generation", generation),
        ("first seq", first_seq),
    ];
    holds(&map, block, &expected);
}
