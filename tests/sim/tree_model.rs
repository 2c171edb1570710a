//! What the tree means, said as simply as possible, and random histories held against it.
//!
//! The model keeps every version of every key in a plain list and answers each question by looking
//! at all of them. Compaction is etcd's rule word for word. The tree must agree with it at every
//! revision that is not compacted, through views old and new, whatever sweep and checkpoints did.

use crate::{
    disk::SimDisk,
    executor::{Executor, Lot},
};
use bytes::Bytes;
use prost::Message;
use ringleader::{
    tree::{self, Change, KeyRange, Lease, Options, Reader, RootFacts, Tree, View},
    types::{ClusterId, Index, LeaseId, MemberId, Revision, Stamp, Term},
};
use std::{collections::BTreeMap, future::Future};

/// Pages of a few keys and segments of a few dozen records, so that everything splits and rolls.
pub(crate) const OPTIONS: Options =
    Options { page_bytes: 256, segment_bytes: 4096, index_files: 32 };

/// etcd's message, by a codec that is not ours.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct KeyValue {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(int64, tag = "2")]
    create: i64,
    #[prost(int64, tag = "3")]
    modified: i64,
    #[prost(int64, tag = "4")]
    version: i64,
    #[prost(bytes = "vec", tag = "5")]
    value: Vec<u8>,
    #[prost(int64, tag = "6")]
    lease: i64,
}

/// One change of one key; a delete has no value.
#[derive(Clone, Debug)]
struct Op {
    key: Vec<u8>,
    value: Option<(Vec<u8>, i64)>,
}

/// One entry of the log.
#[derive(Clone, Debug)]
enum Entry {
    /// The next revision, with its changes in order.
    Write(Vec<Op>),
    Compact(i64),
    /// A lease is granted, gets another TTL, or goes.
    Lease(i64, Option<Lease>),
}

/// A version of a key: when, and what; None is a tombstone.
#[derive(Clone)]
struct Version {
    stamp: Stamp,
    kv: Option<KeyValue>,
}

/// Everything that ever happened.
#[derive(Clone)]
pub(crate) struct Model {
    keys: BTreeMap<Vec<u8>, Vec<Version>>,
    leases: BTreeMap<i64, Lease>,
    revision: i64,
    compacted: i64,
}

/// A log of entries drawn from a seed. Entry `i` has index `i + 1`.
pub(crate) struct History {
    entries: Vec<Entry>,
}

impl History {
    pub(crate) fn draw(seed: u64, entries: usize) -> Self {
        let mut lot = Lot::new(seed ^ 0x7265_636f_7264);
        let sizes =
            Sizes { keys: 3 + lot.below(40), biased: true, long_key: 400, large_value: 3000 };
        Self::draw_of(sizes, lot, entries)
    }

    /// Of a few small keys and values, so that a state is quickly checked.
    pub(crate) fn draw_small(seed: u64, entries: usize) -> Self {
        let mut lot = Lot::new(seed ^ 0x0073_6d61_6c6c);
        let sizes = Sizes { keys: 4 + lot.below(20), biased: true, long_key: 60, large_value: 300 };
        Self::draw_of(sizes, lot, entries)
    }

    /// Of many keys, so that the index has more pages than it usually has files.
    pub(crate) fn draw_wide(seed: u64, entries: usize) -> Self {
        let mut lot = Lot::new(seed ^ 0x7769_6465);
        let keys = 800 + lot.below(400);
        let sizes = Sizes { keys, biased: false, long_key: 60, large_value: 300 };
        Self::draw_of(sizes, lot, entries)
    }

    fn draw_of(sizes: Sizes, mut lot: Lot, entries: usize) -> Self {
        let mut model = Model::new();
        let entries = (0..entries)
            .map(|_| {
                let entry = draw_entry(&mut lot, &model, &sizes);
                model.apply(&entry);
                entry
            })
            .collect();
        Self { entries }
    }

    pub(crate) fn len(&self) -> u64 {
        self.entries.len() as u64
    }

    /// The model after the entries up to index `applied`.
    pub(crate) fn model(&self, applied: u64) -> Model {
        let mut model = Model::new();
        self.entries[..applied as usize].iter().for_each(|entry| model.apply(entry));
        model
    }

    /// The models of all prefixes, the empty one first.
    pub(crate) fn models(&self) -> Vec<Model> {
        let mut models = vec![Model::new()];
        for entry in &self.entries {
            let mut model = models[models.len() - 1].clone();
            model.apply(entry);
            models.push(model);
        }
        models
    }
}

/// What a history is drawn from.
struct Sizes {
    keys: u64,
    /// Whether some are written more often than others.
    biased: bool,
    /// Bytes that a few keys have more than others.
    long_key: usize,
    /// Bytes that a few values have more than others.
    large_value: u64,
}

/// Ids at the ends of their range, and on both sides of zero.
const LEASES: [i64; 6] = [i64::MIN, -1, 1, 2, 256, i64::MAX];

fn draw_lease(lot: &mut Lot) -> Entry {
    let id = LEASES[lot.below(LEASES.len() as u64) as usize];
    let (granted, remaining) =
        (lot.draw() as i64, if lot.one_in(2) { lot.draw() as i64 } else { 0 });
    let since = Index(lot.draw());
    Entry::Lease(id, (!lot.one_in(3)).then_some(Lease { granted, remaining, since }))
}

fn draw_entry(lot: &mut Lot, model: &Model, sizes: &Sizes) -> Entry {
    let low = model.compacted.max(0) + 1;
    if lot.one_in(25) && low <= model.revision {
        return Entry::Compact(low + lot.below((model.revision - low + 1) as u64) as i64);
    }
    if lot.one_in(9) {
        return draw_lease(lot);
    }
    let mut after = model.clone();
    let mut ops = Vec::new();
    for _ in 0..[1, 1, 1, 2, 6][lot.below(5) as usize] {
        // Some keys may be busy and some quiet; a few are long.
        let any = lot.below(sizes.keys);
        let number = if sizes.biased { any.min(lot.below(sizes.keys)) } else { any };
        let mut key = format!("/key/{number:03}").into_bytes();
        key.extend(vec![b'x'; if number.is_multiple_of(11) { sizes.long_key } else { 0 }]);
        let live = after.at(&key, i64::MAX).is_some();
        let value = (!live || !lot.one_in(3)).then(|| {
            let len = lot.below(30) + if lot.one_in(30) { sizes.large_value } else { 0 };
            let lease = if lot.one_in(4) { lot.draw() as i64 } else { 0 };
            (vec![lot.draw() as u8; len as usize], lease)
        });
        let op = Op { key, value };
        after.write(&op, Stamp::new(model.revision + 1, ops.len() as u32));
        ops.push(op);
    }
    Entry::Write(ops)
}

impl Model {
    fn new() -> Self {
        Self { keys: BTreeMap::new(), leases: BTreeMap::new(), revision: 1, compacted: -1 }
    }

    fn apply(&mut self, entry: &Entry) {
        match entry {
            Entry::Compact(revision) => self.compacted = *revision,
            Entry::Lease(id, Some(lease)) => drop(self.leases.insert(*id, *lease)),
            Entry::Lease(id, None) => drop(self.leases.remove(id)),
            Entry::Write(ops) => {
                self.revision += 1;
                for (sub, op) in ops.iter().enumerate() {
                    self.write(op, Stamp::new(self.revision, sub as u32));
                }
            }
        }
    }

    fn write(&mut self, op: &Op, stamp: Stamp) {
        let versions = self.keys.entry(op.key.clone()).or_default();
        let old = versions.last().and_then(|version| version.kv.clone());
        let kv = op.value.clone().map(|(value, lease)| KeyValue {
            key: op.key.clone(),
            create: old.as_ref().map_or(stamp.main.0, |old| old.create),
            modified: stamp.main.0,
            version: old.as_ref().map_or(1, |old| old.version + 1),
            value,
            lease,
        });
        versions.push(Version { stamp, kv });
    }

    fn at(&self, key: &[u8], revision: i64) -> Option<&KeyValue> {
        let versions = self.keys.get(key)?;
        versions.iter().rfind(|version| version.stamp.main.0 <= revision)?.kv.as_ref()
    }

    fn range(&self, range: &KeyRange<'_>, revision: i64) -> Vec<&KeyValue> {
        let keys = self.keys.keys().filter(|key| range.contains(key));
        keys.filter_map(|key| self.at(key, revision)).collect()
    }

    /// Changes above the compacted revision: when, whether a tombstone, and etcd's bytes.
    fn changes(&self, from: i64) -> Vec<(Stamp, bool, Vec<u8>)> {
        let all = self
            .keys
            .iter()
            .flat_map(|(key, versions)| versions.iter().map(move |version| (key, version)));
        let mut changes: Vec<_> = all
            .filter(|(_, version)| version.stamp.main.0 >= from)
            .map(|(key, version)| {
                let tombstone = KeyValue { key: key.clone(), ..KeyValue::default() };
                let kv = version.kv.as_ref().unwrap_or(&tombstone);
                (version.stamp, version.kv.is_none(), kv.encode_to_vec())
            })
            .collect();
        changes.sort();
        changes
    }

    /// All as it was at a revision, with what is said of the leases that keys held on to then.
    pub(crate) fn back_at(&self, revision: i64, lease_of: impl Fn(i64) -> Lease) -> Self {
        assert!(self.compacted <= revision && revision <= self.revision);
        let mut past = Self { revision, leases: BTreeMap::new(), ..self.clone() };
        for versions in past.keys.values_mut() {
            versions.retain(|version| version.stamp.main.0 <= revision);
        }
        past.keys.retain(|_, versions| !versions.is_empty());
        let live = past.range(&KeyRange::ALL, revision).into_iter().map(|kv| kv.lease);
        past.leases =
            live.filter(|id| *id != 0).map(|id| (id, lease_of(id))).collect::<BTreeMap<_, _>>();
        past
    }

    /// The same so many revisions later, with all up to there compacted.
    pub(crate) fn skipping(&self, revisions: i64) -> Self {
        let newest = self.revision + revisions;
        Self { revision: newest, compacted: newest, ..self.clone() }
    }

    /// The revisions that can be read.
    pub(crate) fn held(&self) -> std::ops::RangeInclusive<i64> {
        self.compacted.max(1)..=self.revision
    }

    /// Bytes of the records that compaction keeps: per key all above the compacted revision and
    /// the newest at or below it, unless that is a tombstone below it.
    pub(crate) fn kept_bytes(&self) -> u64 {
        let mut bytes = 0;
        for (key, versions) in &self.keys {
            let newest =
                versions.iter().rposition(|version| version.stamp.main.0 <= self.compacted);
            for version in &versions[newest.unwrap_or(0)..] {
                if version.kv.is_some() || version.stamp.main.0 >= self.compacted {
                    let tombstone = KeyValue { key: key.clone(), ..KeyValue::default() };
                    let kv = version.kv.as_ref().unwrap_or(&tombstone);
                    bytes += (64 + kv.encoded_len() as u64).next_multiple_of(8);
                }
            }
        }
        bytes
    }

    /// Holds everything a reader can say against the model, at a few revisions or at all.
    pub(crate) fn check(&self, reader: &Reader<'_>, lot: &mut Lot, all: bool) {
        assert_eq!(reader.compacted(), Revision(self.compacted));
        let low = self.compacted.max(1);
        let width = (self.revision - low + 1) as u64;
        let few =
            [low, self.revision, low + lot.below(width) as i64, low + lot.below(width) as i64];
        let revisions = if all { (low..=self.revision).collect() } else { few.to_vec() };
        for revision in revisions {
            self.check_at(reader, revision, lot);
        }
        for key in self.keys.keys() {
            let (meta, expected) = (reader.meta(key), self.at(key, i64::MAX));
            assert_eq!(meta.map(|meta| meta.version), expected.map(|kv| kv.version));
        }
        self.check_leases(reader, lot);
        let from = self.compacted.max(0) + 1;
        let plain = |change: Change<'_>| (change.stamp, change.tombstone, change.kv.to_vec());
        let changes: Vec<_> = reader.changes(Stamp::new(from, 0)).map(plain).collect();
        assert_eq!(changes, self.changes(from));
        let from = reader.complete_above().0 + 1;
        let changes: Vec<_> = reader.changes(Stamp::new(from, 0)).map(plain).collect();
        assert_eq!(changes, self.changes(from), "what is said to be complete");
    }

    /// Each key's rank: what the branches' counts add up to on the way to it.
    pub(crate) fn check_ranks(&self, reader: &Reader<'_>) {
        let live: Vec<bool> =
            self.keys.keys().map(|key| self.at(key, i64::MAX).is_some()).collect();
        for (at, key) in self.keys.keys().enumerate() {
            let below = KeyRange { from: &[], to: Some(key) };
            let expected = live[..at].iter().filter(|live| **live).count() as u64;
            let rank = reader.count(&below, Revision(self.revision));
            assert_eq!(rank, expected, "the rank of {:?}", String::from_utf8_lossy(key));
        }
        let all = live.iter().filter(|live| **live).count() as u64;
        assert_eq!(reader.count(&KeyRange::ALL, Revision(self.revision)), all, "the whole count");
    }

    fn check_leases(&self, reader: &Reader<'_>, lot: &mut Lot) {
        let from = LEASES[lot.below(LEASES.len() as u64) as usize];
        let found: Vec<_> = reader.leases_from(LeaseId(from)).collect();
        let expected = self.leases.range(from..).map(|(id, lease)| (LeaseId(*id), *lease));
        assert_eq!(found, expected.collect::<Vec<_>>());
        for id in LEASES {
            assert_eq!(reader.lease(LeaseId(id)), self.leases.get(&id).copied());
        }
        assert_eq!(reader.lease_count(), self.leases.len() as u64);
    }

    fn check_at(&self, reader: &Reader<'_>, revision: i64, lot: &mut Lot) {
        for key in self.keys.keys() {
            let found = reader.get(key, Revision(revision));
            assert_eq!(
                found.map(|found| KeyValue::decode(found.kv()).expect("canonical bytes")).as_ref(),
                self.at(key, revision),
                "{:?} at {revision}, compacted {}",
                String::from_utf8_lossy(key),
                self.compacted
            );
        }
        assert!(reader.get(b"/none", Revision(revision)).is_none());
        let ends: Vec<_> = self.keys.keys().cloned().collect();
        let mut end = || match lot.below(ends.len() as u64 + 1) as usize {
            at if at < ends.len() => ends[at].clone(),
            _ => b"/zzz".to_vec(),
        };
        let (from, to) = (end(), end());
        let part = KeyRange { from: &from, to: Some(&to) };
        for range in [KeyRange::ALL, part, KeyRange { from: &from, to: None }] {
            self.check_range(reader, &range, revision);
        }
    }

    fn check_range(&self, reader: &Reader<'_>, range: &KeyRange<'_>, revision: i64) {
        let expected = self.range(range, revision);
        assert_eq!(reader.count(range, Revision(revision)), expected.len() as u64);
        let mut found = reader.scan(range, Revision(revision));
        for kv in expected {
            let next = found.next().expect("the scan goes on");
            assert_eq!(next.kv(), kv.encode_to_vec());
            assert_eq!((next.key, next.value()), (&kv.key[..], &kv.value[..]));
            assert_eq!(next.meta.create, Revision(kv.create));
            assert_eq!(next.meta.modified.main, Revision(kv.modified));
            assert_eq!(next.meta.lease, LeaseId(kv.lease));
            assert_eq!(
                (next.meta.version, next.meta.value_bytes),
                (kv.version, kv.value.len() as u32)
            );
        }
        assert!(found.next().is_none(), "the scan ends");
    }
}

/// The tree with what the store would know beside it.
pub(crate) struct Rig {
    pub(crate) tree: Tree,
    pub(crate) applied: u64,
    revision: i64,
}

impl Rig {
    /// A tree at the state after entry `applied`.
    pub(crate) fn new(tree: Tree, applied: u64, history: &History) -> Self {
        Self::at(tree, applied, &history.model(applied))
    }

    /// A tree at the state after entry `applied`, which is that of `model`.
    pub(crate) fn at(tree: Tree, applied: u64, model: &Model) -> Self {
        Self { tree, applied, revision: model.revision }
    }

    /// Applies the next entry; false when there is none.
    pub(crate) fn apply(&mut self, history: &History) -> bool {
        let Some(entry) = history.entries.get(self.applied as usize) else { return false };
        self.applied += 1;
        match entry {
            Entry::Compact(revision) => self.tree.compact(Revision(*revision)),
            Entry::Lease(id, Some(lease)) => self.tree.set_lease(LeaseId(*id), *lease),
            Entry::Lease(id, None) => {
                let was = self.tree.reader().lease(LeaseId(*id)).is_some();
                assert_eq!(self.tree.remove_lease(LeaseId(*id)), was);
            }
            Entry::Write(ops) => {
                self.revision += 1;
                for (sub, op) in ops.iter().enumerate() {
                    let at = Stamp::new(self.revision, sub as u32);
                    match &op.value {
                        Some((value, lease)) => {
                            let was = self.tree.reader().meta(&op.key);
                            let old = self.tree.put(at, &op.key, value, LeaseId(*lease));
                            assert_eq!(old, was);
                        }
                        None => {
                            let was = self.tree.reader().meta(&op.key);
                            assert_eq!(Some(self.tree.delete(at, &op.key)), was);
                        }
                    }
                }
            }
        }
        true
    }

    /// Begins a checkpoint, now and then one that gives space back.
    pub(crate) fn begin(&mut self, lot: &mut Lot) -> tree::Checkpoint {
        let facts = self.facts();
        let job = match lot.one_in(4) {
            true => self.tree.begin_defragment(facts),
            false => self.tree.begin_checkpoint(facts),
        };
        job.expect("none is running")
    }

    /// What a checkpoint of this state is told.
    pub(crate) fn facts(&self) -> RootFacts {
        facts(self.applied, self.revision)
    }
}

pub(crate) fn facts(applied: u64, revision: i64) -> RootFacts {
    RootFacts {
        cluster: ClusterId(0xc1),
        member: MemberId(0x3e),
        applied: Index(applied),
        applied_term: Term(1),
        installed: Index(0),
        revision: Revision(revision),
        state: Bytes::from(format!("state at {applied}")),
    }
}

/// Runs a future to its end on a disk that works.
pub(crate) fn run<T: 'static>(future: impl Future<Output = T> + 'static) -> T {
    Executor::new(1).run(future, || false).done()
}

pub(crate) fn format(disk: &SimDisk) -> Tree {
    let disk = disk.clone();
    run(async move { tree::format(&disk, OPTIONS, facts(0, 1)).await }).expect("the disk works")
}

/// Opens a directory and looks at everything in it, of which a start sees nothing.
pub(crate) fn open(disk: &SimDisk) -> Result<Option<(Tree, tree::Root)>, tree::OpenError> {
    let disk = disk.clone();
    let opened = run(async move { tree::open(&disk, OPTIONS).await })?;
    opened.iter().try_for_each(|(tree, _)| {
        tree.check_index()?;
        tree.check_records()
    })?;
    Ok(opened)
}

pub(crate) fn checkpoint(rig: &mut Rig, disk: &SimDisk) {
    let job = rig.tree.begin_checkpoint(rig.facts()).expect("none is running");
    rig.tree.finish_checkpoint(run(job.run(disk.clone())).expect("the disk works"));
}

fn sweep_all(rig: &mut Rig) {
    while !rig.tree.sweep(7) {}
}

#[test]
fn the_tree_answers_as_the_model_does_and_old_views_stay_right() {
    for seed in 0..40 {
        let mut lot = Lot::new(seed);
        let history = History::draw(seed, 220);
        let mut rig = Rig::new(Tree::new(OPTIONS), 0, &history);
        let mut model = Model::new();
        let mut views: Vec<(View, Model)> = Vec::new();
        while rig.apply(&history) {
            model.apply(&history.entries[rig.applied as usize - 1]);
            if lot.one_in(3) {
                rig.tree.sweep(lot.below(20) as usize);
                rig.tree.tend_index(1 + lot.below(9) as usize);
            }
            if lot.one_in(10) {
                model.check(&rig.tree.reader(), &mut lot, false);
                views.push((rig.tree.publish(), model.clone()));
            }
            if views.len() > 6 {
                let (view, model) = views.swap_remove(lot.below(6) as usize);
                model.check(&view.reader(), &mut lot, false);
            }
        }
        model.check(&rig.tree.reader(), &mut lot, true);
        for (view, model) in views {
            model.check(&view.reader(), &mut lot, true);
        }
    }
}

#[test]
fn compaction_keeps_what_etcd_keeps() {
    for seed in 0..100 {
        let mut lot = Lot::new(seed);
        let history = History::draw(seed + 1000, 300);
        let mut rig = Rig::new(Tree::new(OPTIONS), 0, &history);
        while rig.apply(&history) {
            if lot.one_in(40) {
                sweep_all(&mut rig);
                assert_eq!(rig.tree.live_bytes(), history.model(rig.applied).kept_bytes());
            } else {
                rig.tree.sweep(lot.below(5) as usize);
                rig.tree.tend_index(1 + lot.below(9) as usize);
            }
        }
        sweep_all(&mut rig);
        assert_eq!(rig.tree.live_bytes(), history.model(rig.applied).kept_bytes());
    }
}

#[test]
fn a_tree_opened_again_is_the_tree_that_was_checkpointed() {
    for seed in 0..40 {
        let mut lot = Lot::new(seed);
        let history = History::draw(seed + 2000, 250);
        let disk = SimDisk::new(seed);
        assert!(open(&disk).expect("an empty directory is fine").is_none());
        let mut rig = Rig::new(format(&disk), 0, &history);
        let mut views: Vec<(View, Model)> = Vec::new();
        while rig.apply(&history) {
            if lot.one_in(3) {
                rig.tree.sweep(lot.below(40) as usize);
                rig.tree.tend_index(1 + lot.below(9) as usize);
            }
            if lot.one_in(12) {
                views.push((rig.tree.publish(), history.model(rig.applied)));
                checkpoint(&mut rig, &disk);
                assert_eq!(rig.tree.records_since_checkpoint(), 0);
            }
            if lot.one_in(40) {
                let before = rig.facts();
                checkpoint(&mut rig, &disk);
                let (mut tree, root) = open(&disk).expect("nothing is damaged").expect("formatted");
                assert_eq!(root.facts, before);
                let model = history.model(rig.applied);
                while !tree.sweep(100) {}
                assert_eq!(tree.live_bytes(), model.kept_bytes());
                model.check(&tree.reader(), &mut lot, false);
                rig = Rig::new(tree, rig.applied, &history);
            }
        }
        sweep_all(&mut rig);
        checkpoint(&mut rig, &disk);
        let (tree, _) = open(&disk).expect("nothing is damaged").expect("formatted");
        history.model(rig.applied).check(&tree.reader(), &mut lot, true);
        history.model(rig.applied).check(&rig.tree.reader(), &mut lot, true);
        for (view, model) in views {
            model.check(&view.reader(), &mut lot, true);
        }
    }
}

#[test]
fn space_stays_in_proportion_to_what_is_live() {
    let disk = SimDisk::new(9);
    let mut tree = format(&disk);
    for main in 2..3000 {
        // One key in a hundred is written once and for all; the others over and over.
        let key =
            if main % 100 == 0 { format!("/once/{main}") } else { format!("/busy/{}", main % 7) };
        tree.put(Stamp::new(main, 0), key.as_bytes(), &[b'v'; 100], LeaseId(0));
        if main % 50 == 0 {
            tree.compact(Revision(main));
            while !tree.sweep(100) {}
            while !tree.tend_index(10) {}
            let job = tree.begin_checkpoint(facts(main as u64, main)).expect("none is running");
            tree.finish_checkpoint(run(job.run(disk.clone())).expect("the disk works"));
        }
    }
    let counted = disk.names().into_iter().filter(|name| name != "superblock");
    let files: u64 = counted.map(|name| disk.peek(&name).len() as u64).sum();
    let [segments, index] = ["rec/", "idx/"]
        .map(|dir| disk.names().iter().filter(|name| name.starts_with(dir)).count());
    assert!(segments <= 7 && index <= 7, "{segments} segments: {:?}", disk.names());
    // A tiny segment has 12 KiB around its records, and the last rewrite's sources may be there.
    assert!(tree.disk_bytes().abs_diff(files) < 3 * 20_000);
    assert_eq!(tree.reader().count(&KeyRange { from: b"/once/", to: None }, Revision(3000)), 29);
}

/// Once every version but the newest is compacted, what is left takes little more than they do,
/// although all of it lay in the segment that was growing.
#[test]
fn defragmenting_gives_back_what_compaction_took() {
    const ROOMY: Options = Options { segment_bytes: 1 << 16, ..OPTIONS };
    let disk = SimDisk::new(13);
    let (made, opened) = (disk.clone(), disk.clone());
    let formatted = async move { tree::format(&made, ROOMY, facts(0, 1)).await };
    let mut tree = run(formatted).expect("the disk works");
    let empty = tree.disk_bytes();
    for main in 2..42 {
        tree.put(Stamp::new(main, 0), b"busy", &[b'v'; 900], LeaseId(0));
    }
    let full = tree.disk_bytes();
    assert!(!tree.is_wasteful(), "everything is live");
    tree.compact(Revision(41));
    while !tree.sweep(100) {}
    let mut checkpoints = 0;
    while tree.is_wasteful() {
        let job = tree.begin_defragment(facts(41, 41)).expect("none is running");
        tree.finish_checkpoint(run(job.run(disk.clone())).expect("the disk works"));
        checkpoints += 1;
    }
    assert_eq!(checkpoints, 1, "one was enough");
    let live = tree.disk_bytes() - empty;
    assert!(full - empty > 35_000 && live < 26_000, "{live} of {full}");
    assert_eq!(tree.reader().changes(Stamp::default()).count(), 1);
    let again = run(async move { tree::open(&opened, ROOMY).await });
    let (again, root) = again.expect("nothing is damaged").expect("formatted");
    assert_eq!((again.disk_bytes(), root.facts.applied), (tree.disk_bytes(), Index(41)));
    assert!(again.reader().newest(b"busy").is_some());
}

/// Segments that died whole leave a gap in front of the first that is left, be it the tail.
#[test]
fn changes_are_not_called_complete_across_segments_that_died_before_the_tail() {
    let disk = SimDisk::new(12);
    let mut tree = format(&disk);
    for main in 2..400 {
        tree.put(Stamp::new(main, 0), b"busy", &[b'v'; 100], LeaseId(0));
        tree.compact(Revision(main));
        while !tree.sweep(100) {}
        if main % 50 == 0 {
            let job = tree.begin_checkpoint(facts(main as u64, main)).expect("none is running");
            tree.finish_checkpoint(run(job.run(disk.clone())).expect("the disk works"));
        }
    }
    let (reader, mut changes) = (tree.reader(), tree.reader().changes(Stamp::default()));
    let oldest = changes.next().expect("the newest record is live").stamp.main;
    assert!(oldest > Revision(300), "whole segments died");
    assert!(reader.complete_above() >= oldest);
}

#[test]
fn segments_are_the_same_bytes_on_every_member() {
    for seed in 0..10 {
        let history = History::draw(seed + 3000, 200);
        let files = |lot: Option<Lot>| {
            let disk = SimDisk::new(seed);
            let mut rig = Rig::new(format(&disk), 0, &history);
            let mut files = BTreeMap::new();
            let mut lot = lot;
            while rig.apply(&history) {
                if lot.as_mut().is_some_and(|lot| lot.one_in(4)) {
                    rig.tree.sweep(11);
                    checkpoint(&mut rig, &disk);
                    if lot.as_mut().is_some_and(|lot| lot.one_in(4)) {
                        let (tree, _) =
                            open(&disk).expect("nothing is damaged").expect("formatted");
                        rig = Rig::new(tree, rig.applied, &history);
                    }
                }
                if rig.applied.is_multiple_of(5) {
                    checkpoint(&mut rig, &disk);
                }
                for name in disk.names().into_iter().filter(|name| name.ends_with(".g0")) {
                    files.insert(name.clone(), disk.peek(&name));
                }
            }
            files.pop_last();
            files
        };
        let (calm, busy) = (files(None), files(Some(Lot::new(seed))));
        let both: Vec<_> = calm.keys().filter(|name| busy.contains_key(*name)).collect();
        assert!(both.len() > 1);
        for name in both {
            assert!(calm[name] == busy[name], "seed {seed}: {name} differs");
        }
    }
}
