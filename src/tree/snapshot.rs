//! A whole tree for another member: what a checkpoint would write, to be read in pieces while the
//! writer goes on.
//!
//! ```text
//!   table of segments ──┐ shared                    part 0 .. n   records of a segment
//!   their dead ─────────┤ shared until they change  part n+1      records of the tail
//!   tail, up to now ────┼─► Snapshot ─► manifest,   part n+2      list of the dead
//!   leases, up to now ──┘ shared        then        part n+3      list of the leases
//! ```
//!
//! Taking one copies a pointer for each segment. Mappings keep the bytes of files that are removed
//! meanwhile, so a snapshot keeps their space until its last clone goes.

use super::{
    Tree,
    dead::{self, Dead},
    lease::{self, LEASE_BYTES},
    manifest::{Kind, Manifest, Part},
    map::MapView,
    root::RootFacts,
    segment::{Segment, Source},
};
use crate::{
    limits::{SNAPSHOT_PIECE_BYTES, SWEEP_RECORDS_PER_TURN},
    types::{LeaseId, Revision, Seq},
};
use bytes::Bytes;
use futures_lite::future::yield_now;
use std::{
    mem,
    sync::{Arc, OnceLock},
};

/// The tree at one moment, to be sent. Immutable, belongs to any core, cheap to clone.
#[derive(Clone)]
pub struct Snapshot(Arc<Held>);

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Snapshot({:?})", self.facts())
    }
}

struct Held {
    facts: RootFacts,
    compacted: Revision,
    seq_next: Seq,
    segment_bytes: usize,
    tail_id: u64,
    table: Arc<Vec<Segment>>,
    /// The dead of each segment of the table, in its order.
    marks: Vec<Arc<Vec<u64>>>,
    tail: Option<Segment>,
    leases: MapView,
    /// Their list, once somebody has asked.
    dead: OnceLock<Bytes>,
}

impl Tree {
    /// The newest state, for another member. `facts` say what this one knows at that very state.
    pub fn snapshot(&mut self, facts: RootFacts) -> Snapshot {
        let tail = &self.shelf.tail;
        let source = Source::Heap { bytes: tail.bytes.frozen(), offsets: tail.offsets.frozen() };
        Snapshot(Arc::new(Held {
            facts,
            compacted: self.compacted,
            seq_next: tail.next(),
            segment_bytes: self.shelf.segment_bytes(),
            tail_id: tail.id,
            table: Arc::clone(self.shelf.table()),
            marks: self.shelf.closed().map(|(_, book)| Arc::clone(book.marks())).collect(),
            tail: (tail.run().len() > 0).then(|| Segment::new(tail.identity(), source)),
            leases: self.leases.publish(),
            dead: OnceLock::new(),
        }))
    }
}

impl Snapshot {
    /// What the member knew that made it.
    pub fn facts(&self) -> &RootFacts {
        &self.0.facts
    }

    /// How many parts there are, so the first is part 0.
    pub fn parts(&self) -> usize {
        self.kinds().count()
    }

    /// Bytes of part `part`.
    ///
    /// # Panics
    /// If there is no such part.
    pub fn part_bytes(&self, part: usize) -> u64 {
        match self.kind(part) {
            Kind::Segment | Kind::Tail => self.segment(part).bytes() as u64,
            Kind::Dead => self.dead().len() as u64,
            Kind::Leases => self.leases() as u64 * LEASE_BYTES as u64,
        }
    }

    /// The bytes of part `part`, in order, each piece at most [`SNAPSHOT_PIECE_BYTES`].
    ///
    /// # Panics
    /// If there is no such part.
    pub fn pieces(&self, part: usize) -> Pieces {
        let kind = self.kind(part);
        Pieces { snapshot: self.clone(), part, kind, offset: 0, after: None }
    }

    /// The manifest, encoded. Reads every part for its checksum, which is remembered for segments that
    /// stay as they are. All records of a large store take seconds, and come from the disk where nobody
    /// read them for long: not for the node's core.
    pub async fn encode_manifest(&self) -> Bytes {
        let held = &*self.0;
        let mut parts = Vec::new();
        for (at, kind) in self.kinds().enumerate() {
            parts.push(self.weigh(at, kind).await);
        }
        let manifest = Manifest {
            facts: held.facts.clone(),
            compacted: held.compacted,
            seq_next: held.seq_next,
            segment_bytes: held.segment_bytes,
            tail_id: held.tail_id,
            parts,
        };
        manifest.encode().into()
    }

    async fn weigh(&self, at: usize, kind: Kind) -> Part {
        if kind <= Kind::Tail {
            let segment = self.segment(at);
            let identity = segment.identity;
            let (records, bytes) = (segment.records(), segment.bytes() as u64);
            return Part { kind, identity, records, bytes, crc: crc_of(segment).await };
        }
        let (mut hasher, mut bytes) = (crc32fast::Hasher::new(), 0);
        for piece in self.pieces(at) {
            hasher.update(&piece);
            bytes += piece.len() as u64;
            yield_now().await;
        }
        let records = if kind == Kind::Leases { self.leases() } else { 0 };
        Part::list(kind, records, bytes, hasher.finalize())
    }

    fn kinds(&self) -> impl Iterator<Item = Kind> {
        let held = &*self.0;
        let some_dead = held.marks.iter().any(|marks| !marks.is_empty());
        let lists = [(Kind::Dead, some_dead), (Kind::Leases, self.leases() > 0)];
        held.table
            .iter()
            .map(|_| Kind::Segment)
            .chain(held.tail.iter().map(|_| Kind::Tail))
            .chain(lists.into_iter().filter(|(_, some)| *some).map(|(kind, _)| kind))
    }

    fn kind(&self, part: usize) -> Kind {
        self.kinds().nth(part).expect("the caller asks for a part that there is")
    }

    fn segment(&self, part: usize) -> &Segment {
        let tail = self.0.tail.as_ref();
        self.0.table.get(part).or(tail).expect("the part is one of records")
    }

    fn leases(&self) -> usize {
        usize::try_from(self.0.leases.reader().live()).expect("64-bit machine")
    }

    fn dead(&self) -> &Bytes {
        let held = &*self.0;
        held.dead.get_or_init(|| {
            let dead = held.table.iter().zip(&held.marks).filter(|(_, marks)| !marks.is_empty());
            let key = |segment: &Segment| (segment.identity.id, segment.identity.generation);
            let dead: Dead =
                dead.map(|(segment, marks)| (key(segment), marks.as_ref().clone())).collect();
            dead::encode(held.facts.cluster, 0, &dead).into()
        })
    }
}

/// CRC-32 of a segment's records, computed once for all its clones, in pieces that hold nobody up.
pub(super) async fn crc_of(segment: &Segment) -> u32 {
    if let Some(crc) = segment.crc.get() {
        return *crc;
    }
    // What is sent is whole: each record is seen before all of them get a checksum as they are.
    let run = segment.run();
    for position in 0..run.len() {
        run.at(position);
        if position % SWEEP_RECORDS_PER_TURN == 0 {
            yield_now().await;
        }
    }
    let mut hasher = crc32fast::Hasher::new();
    for piece in run.bytes().chunks(SNAPSHOT_PIECE_BYTES) {
        hasher.update(piece);
        yield_now().await;
    }
    *segment.crc.get_or_init(|| hasher.finalize())
}

/// The bytes of one part, in order.
pub struct Pieces {
    snapshot: Snapshot,
    part: usize,
    kind: Kind,
    offset: usize,
    /// The last lease that was read.
    after: Option<LeaseId>,
}

impl Iterator for Pieces {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let held = &*self.snapshot.0;
        let piece = match self.kind {
            Kind::Segment | Kind::Tail => {
                let run = self.snapshot.segment(self.part).run();
                let rest = &run.bytes()[self.offset..];
                Bytes::copy_from_slice(&rest[..rest.len().min(SNAPSHOT_PIECE_BYTES)])
            }
            Kind::Dead => {
                let dead = self.snapshot.dead();
                dead.slice(self.offset..dead.len().min(self.offset + SNAPSHOT_PIECE_BYTES))
            }
            Kind::Leases => {
                let (list, last) = lease::list(&held.leases, self.after, SNAPSHOT_PIECE_BYTES);
                let _before = mem::replace(&mut self.after, last);
                list.into()
            }
        };
        self.offset += piece.len();
        (!piece.is_empty()).then_some(piece)
    }
}
