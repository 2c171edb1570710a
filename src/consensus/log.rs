//! The window of recent entries raft may ask for, in memory. The log's owner on disk is `wal`.

use super::{
    Durable, LogGap, SnapshotMark,
    convert::{self, conf_state, raft_hard_state},
};
use crate::{
    limits::{RAFT_ENTRY_OVERHEAD_BYTES, RAFT_LONE_WINDOW_BYTES_MAX, RAFT_WINDOW_BYTES_MAX},
    types::{Index, Term},
};
use raft::{
    Error, GetEntriesContext, RaftState, Result, Storage, StorageError,
    eraftpb::{ConfState, Entry, HardState, Snapshot},
};
use std::collections::VecDeque;

/// Contiguous entries after `before`, newest last.
pub struct Window {
    pub(super) hard_state: HardState,
    conf_state: ConfState,
    /// Index and term of the entry just before the first one held.
    before: (u64, u64),
    /// Index and term of the last entry in the store.
    applied: (u64, u64),
    entries: VecDeque<Entry>,
    bytes: usize,
}

impl Window {
    pub(super) fn recover(durable: &Durable) -> std::result::Result<Self, LogGap> {
        let mut hard_state = durable.hard_state;
        // A commit alone forces no write, so the log may know less than the superblock. Applied is
        // always committed.
        hard_state.commit = hard_state.commit.max(durable.applied);
        hard_state.term = hard_state.term.max(durable.applied_term);
        let mut window = Self {
            hard_state: raft_hard_state(hard_state),
            conf_state: conf_state(&durable.configuration),
            before: (durable.applied.0, durable.applied_term.0),
            applied: (durable.applied.0, durable.applied_term.0),
            entries: VecDeque::new(),
            bytes: 0,
        };
        let newer = durable.entries.iter().filter(|entry| entry.index > durable.applied);
        let newer: Vec<Entry> = newer.cloned().map(convert::to_raft_entry).collect();
        if let Some(first) = newer.first().filter(|first| first.index != durable.applied.0 + 1) {
            let wanted = Index(durable.applied.0 + 1);
            return Err(LogGap { wanted, found: Index(first.index) });
        }
        window.append(&newer);
        let last = window.before.0 + window.entries.len() as u64;
        window.hard_state.commit = window.hard_state.commit.min(last);
        Ok(window)
    }

    /// Adds entries; they replace whatever is held from the first one's index on.
    pub(super) fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        let keep = first.index.checked_sub(self.before.0 + 1).expect("never below the window");
        let keep = usize::try_from(keep).expect("the window fits memory");
        assert!(keep <= self.entries.len(), "the log has no holes");
        for gone in self.entries.drain(keep..) {
            self.bytes -= weight(&gone);
        }
        self.bytes += entries.iter().map(weight).sum::<usize>();
        self.entries.extend(entries.iter().cloned());
    }

    /// The log begins anew behind a snapshot.
    pub(super) fn restore(&mut self, mark: &SnapshotMark) {
        self.before = (mark.index.0, mark.term.0);
        self.applied = self.before;
        self.conf_state = conf_state(&mark.configuration);
        self.entries.clear();
        self.bytes = 0;
    }

    /// Who takes part from the last applied entry on.
    pub(super) fn set_configuration(&mut self, after: ConfState) {
        self.conf_state = after;
    }

    /// Lets go of entries up to `applied` that no longer fit [`RAFT_WINDOW_BYTES_MAX`], or
    /// [`RAFT_LONE_WINDOW_BYTES_MAX`].
    pub(super) fn applied_through(&mut self, applied: Index, term: Term) {
        self.applied = (applied.0, term.0);
        let ConfState { voters, learners, .. } = &self.conf_state;
        let most = match voters.len() + learners.len() {
            0..=1 => RAFT_LONE_WINDOW_BYTES_MAX,
            _ => RAFT_WINDOW_BYTES_MAX,
        };
        while self.bytes > most {
            let Some(first) = self.entries.front().filter(|first| first.index <= applied.0) else {
                return;
            };
            self.before = (first.index, first.term);
            self.bytes -= weight(first);
            self.entries.pop_front();
        }
    }

    /// What the entries take in memory.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Where `index` stands in the window.
    fn position(&self, index: u64) -> Result<usize> {
        if index <= self.before.0 {
            return Err(Error::Store(StorageError::Compacted));
        }
        let at = usize::try_from(index - self.before.0 - 1).expect("the window fits memory");
        if at >= self.entries.len() {
            return Err(Error::Store(StorageError::Unavailable));
        }
        Ok(at)
    }
}

impl Storage for Window {
    fn initial_state(&self) -> Result<RaftState> {
        Ok(RaftState::new(self.hard_state.clone(), self.conf_state.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> Result<Vec<Entry>> {
        let from = self.position(low)?;
        let to = self.position(high - 1)? + 1;
        let budget = max_size.into().unwrap_or(u64::MAX);
        let mut spent = 0;
        let within = self.entries.range(from..to).enumerate().take_while(|(at, entry)| {
            spent += entry.data.len() as u64;
            *at == 0 || spent <= budget
        });
        Ok(within.map(|(_, entry)| entry.clone()).collect())
    }

    fn term(&self, index: u64) -> Result<u64> {
        if index == self.before.0 {
            return Ok(self.before.1);
        }
        self.position(index).map(|at| self.entries[at].term)
    }

    fn first_index(&self) -> Result<u64> {
        Ok(self.before.0 + 1)
    }

    fn last_index(&self) -> Result<u64> {
        Ok(self.before.0 + self.entries.len() as u64)
    }

    /// Of everything in the store. What it holds is not raft's concern.
    fn snapshot(&self, request_index: u64, _to: u64) -> Result<Snapshot> {
        let (index, term) = self.applied;
        if index == 0 || index < request_index {
            return Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        }
        let configuration = convert::configuration(&self.conf_state);
        let mark = SnapshotMark { index: Index(index), term: Term(term), configuration };
        Ok(convert::snapshot(&mark))
    }
}

/// What an entry takes in memory, bytes.
pub(super) fn weight(entry: &Entry) -> usize {
    RAFT_ENTRY_OVERHEAD_BYTES + entry.data.len()
}
