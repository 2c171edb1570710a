//! The versions of one key, as a list that can be searched in O(log versions) and whose writer
//! never reads an old record.
//!
//! Myers, "An applicative random-access stack" (1983): the list is a row of complete binary trees
//! whose sizes grow, newest first. The key's cell holds the roots of the trees; a record holds a
//! link to the version before it and one that skips its whole tree.
//!
//! ```text
//!   versions  9  8  7  6  5  4  3  2  1        ranks 1 1 3 ...: trees of 1, 1 and 7 versions
//!   roots     9  8  7
//!   prev      9→8→7→6→5→4→3→2→1
//!   jump      9→8  8→7  7→∅     6→3  5→4 ...
//! ```
//!
//! Two rules make links a pure function of the log, whatever physical compaction has reached:
//! roots other than the first at or below the compacted revision are forgotten at the next push
//! ([`forget`]), and a newest version that is a tombstone below it counts as absent (the tree's
//! own rule, before it pushes). The revision of a link's target stands beside it, so a search at
//! or above the compacted revision never looks at a record that compaction may have taken.

use super::record::Record;
use crate::types::{Revision, Seq};

/// Where a version is, and when it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) seq: Seq,
    pub(crate) main: Revision,
}

/// The newest version of one of the trees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Root {
    pub(crate) link: Link,
    /// The tree holds 2^rank - 1 versions.
    pub(crate) rank: u8,
}

/// What a new version's record says about its place in the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) prev: Option<Link>,
    pub(crate) jump: Option<Link>,
    pub(crate) rank: u8,
}

/// Adds a version in front of `roots` and says what its record holds.
pub(crate) fn push(roots: &mut Vec<Root>, new: Link, compacted: Revision) -> Place {
    forget(roots, compacted);
    let prev = roots.first().map(|root| root.link);
    let place = match roots[..] {
        [a, b, ..] if a.rank == b.rank => {
            let jump = roots.get(2).map(|root| root.link);
            roots.drain(..2);
            Place { prev, jump, rank: a.rank + 1 }
        }
        _ => Place { prev, jump: prev, rank: 1 },
    };
    roots.insert(0, Root { link: new, rank: place.rank });
    place
}

/// Adds a version that was pushed before a restart, from its record: the trees that it did not
/// join are those from its jump on.
pub(crate) fn replay(roots: &mut Vec<Root>, record: &Record<'_>, compacted: Revision) {
    let link = Link { seq: record.seq(), main: record.main() };
    let jump = record.jump();
    roots.retain(|root| jump.is_some_and(|jump| root.link.seq <= jump.seq));
    roots.insert(0, Root { link, rank: record.rank() });
    forget(roots, compacted);
}

/// Forgets the roots that no legal search can begin at: all but the first that are at or below
/// the compacted revision.
fn forget(roots: &mut Vec<Root>, compacted: Revision) {
    let mut first = true;
    roots.retain(|root| std::mem::take(&mut first) || root.link.main > compacted);
}

/// The newest version at or before `at`, of a key whose newest version is after it; None where
/// the key did not exist then. `roots` come newest first, and `at` is not below the compacted
/// revision.
pub(crate) fn find<'a>(
    roots: impl Iterator<Item = Root>,
    at: Revision,
    load: impl Fn(Seq) -> Record<'a>,
) -> Option<Record<'a>> {
    let after = |link: Option<Link>| link.filter(|link| link.main > at);
    let start = roots.map(|root| root.link).take_while(|link| link.main > at).last();
    let mut record = load(start.expect("the newest version is after `at`").seq);
    loop {
        if let Some(next) = after(record.jump()).or_else(|| after(record.prev())) {
            record = load(next.seq);
        } else if record.create() {
            return None;
        } else {
            return Some(load(record.prev().expect("a later version has an earlier one").seq));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{kv::KeyValue, record},
        *,
    };
    use crate::types::Stamp;
    use std::cell::Cell;

    /// Chains of one key, written with compactions in between, and kept as whole records.
    struct Chain {
        roots: Vec<Root>,
        records: Vec<Vec<u8>>,
        compacted: Revision,
    }

    impl Chain {
        fn push(&mut self, main: i64) {
            let link = Link { seq: Seq(self.records.len() as u64), main: Revision(main) };
            let place = push(&mut self.roots, link, self.compacted);
            let header = record::Header {
                seq: link.seq,
                stamp: Stamp { main: link.main, sub: 0 },
                tombstone: false,
                create: place.prev.is_none(),
                rank: place.rank,
                prev: place.prev,
                jump: place.jump,
            };
            let mut bytes = Vec::new();
            record::encode(&header, &KeyValue { key: b"k", ..KeyValue::default() }, &mut bytes);
            self.records.push(bytes);
        }

        fn load(&self, seq: Seq) -> Record<'_> {
            Record::at_front(&self.records[seq.0 as usize])
        }

        /// Finds by the chain, counting hops and refusing to touch what compaction may have taken.
        fn find(&self, at: i64) -> (Option<i64>, usize) {
            let hops = Cell::new(0);
            let newest = self.roots[0].link;
            if newest.main.0 <= at {
                return (Some(newest.main.0), 0);
            }
            let kept = self.records.iter().map(|bytes| Record::at_front(bytes).main().0);
            let oldest = kept.filter(|main| *main <= self.compacted.0).max().unwrap_or(0);
            let found = find(self.roots.iter().copied(), Revision(at), |seq| {
                hops.set(hops.get() + 1);
                let record = self.load(seq);
                assert!(record.main().0 >= oldest, "touched a compacted record");
                record
            });
            (found.map(|record| record.main().0), hops.get())
        }
    }

    fn random(state: &mut u64, below: u64) -> u64 {
        *state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*state >> 33) % below
    }

    #[test]
    fn a_search_finds_what_a_plain_list_finds() {
        for seed in 0..50 {
            let mut state = seed;
            let mut chain =
                Chain { roots: Vec::new(), records: Vec::new(), compacted: Revision(-1) };
            let mut main = 1;
            let mut list = Vec::new();
            for _ in 0..400 {
                main += 1 + random(&mut state, 3) as i64;
                chain.push(main);
                list.push(main);
                if random(&mut state, 60) == 0 {
                    let low = chain.compacted.0.max(0);
                    chain.compacted =
                        Revision(low + random(&mut state, (main - low) as u64 + 1) as i64);
                }
                let low = chain.compacted.0.max(1);
                let at = low + random(&mut state, (main - low) as u64 + 1) as i64;
                let expected = list.iter().copied().rfind(|version| *version <= at);
                assert_eq!(chain.find(at).0, expected, "seed {seed} at {at}");
            }
        }
    }

    #[test]
    fn hops_and_roots_grow_with_the_logarithm() {
        let mut chain = Chain { roots: Vec::new(), records: Vec::new(), compacted: Revision(-1) };
        for main in 2..20_002 {
            chain.push(main);
            assert!(chain.roots.len() <= 15);
        }
        for at in 2..20_001 {
            let (found, hops) = chain.find(at);
            assert_eq!(found, Some(at));
            assert!(hops <= 33, "{hops} hops to {at}");
        }
    }

    #[test]
    fn replayed_roots_push_the_same_links_as_the_ones_before_the_restart() {
        for seed in 0..50 {
            let mut state = seed + 1000;
            let mut chain =
                Chain { roots: Vec::new(), records: Vec::new(), compacted: Revision(-1) };
            let mut main = 1;
            for _ in 0..300 {
                main += 1;
                chain.push(main);
                if random(&mut state, 40) == 0 {
                    let low = chain.compacted.0.max(0);
                    chain.compacted =
                        Revision(low + random(&mut state, (main - low) as u64 + 1) as i64);
                }
                let mut roots = Vec::new();
                // Compaction may or may not have taken what it may take.
                let newest_kept = chain.compacted.0.min(main);
                for bytes in &chain.records {
                    let record = Record::at_front(bytes);
                    if record.main().0 >= newest_kept || random(&mut state, 2) == 0 {
                        replay(&mut roots, &record, chain.compacted);
                    }
                }
                let next = Link { seq: Seq(chain.records.len() as u64), main: Revision(main + 1) };
                let mut original = chain.roots.clone();
                assert_eq!(
                    push(&mut roots, next, chain.compacted),
                    push(&mut original, next, chain.compacted),
                    "seed {seed} at {main}"
                );
                assert_eq!(roots, original);
            }
        }
    }
}
