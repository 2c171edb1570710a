//! What a turn brings for the log, in pieces that each fit a frame of it.
//!
//! A follower takes in many messages at once, and together they may be more than a segment holds. A
//! crash between two pieces leaves the first, which nobody has been told of yet.

use crate::{
    consensus::{self, Append},
    wal::{self, Batch, LogEntry, frame::frame_bytes},
};

/// An append, or a piece of one, that the log has not got yet.
pub(super) struct Piece {
    /// raft's number, on the last piece.
    pub(super) number: Option<u64>,
    pub(super) append: Append,
}

/// The pieces of `append`, in order, each a frame of at most `room` bytes unless it is one entry.
pub(super) fn in_pieces(append: Append, room: usize) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut rest = vec![Piece { number: Some(append.number), append }];
    while let Some(mut first) = rest.pop() {
        let count = first.append.entries.len();
        if count < 2 || frame_bytes(&batch(&first.append)) <= room {
            pieces.push(first);
            continue;
        }
        let behind = first.append.entries.split_off(count / 2);
        let append = Append { entries: behind, snapshot: None, ..first.append };
        rest.push(Piece { number: first.number.take(), append });
        rest.push(first);
    }
    pieces
}

/// A piece as the log wants it.
pub(super) fn batch(append: &Append) -> Batch {
    let entry = |entry: &consensus::Entry| LogEntry {
        index: entry.index.0,
        term: entry.term.0,
        kind: entry.kind,
        data: entry.data.clone(),
    };
    Batch {
        entries: append.entries.iter().map(entry).collect(),
        hard_state: hard_state(append.hard_state),
    }
}

pub(super) fn hard_state(state: consensus::HardState) -> wal::HardState {
    wal::HardState { term: state.term.0, vote: state.vote.0, commit: state.commit.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Index, Term};
    use bytes::Bytes;

    const ROOM: usize = 64 << 10;

    fn append(sizes: &[usize]) -> Append {
        let entry = |(at, bytes): (usize, &usize)| consensus::Entry {
            index: Index(7 + at as u64),
            term: Term(3),
            kind: 0,
            data: Bytes::from(vec![b'x'; *bytes]),
        };
        Append {
            number: 9,
            entries: sizes.iter().enumerate().map(entry).collect(),
            hard_state: consensus::HardState::default(),
            snapshot: None,
        }
    }

    #[test]
    fn what_a_follower_takes_in_at_once_goes_into_several_frames_and_counts_with_the_last() {
        let pieces = in_pieces(append(&[20 << 10; 10]), ROOM);
        assert!(pieces.iter().all(|piece| frame_bytes(&batch(&piece.append)) <= ROOM));
        let entries = pieces.iter().flat_map(|piece| &piece.append.entries);
        assert!(entries.map(|entry| entry.index.0).eq(7..17));
        let (last, others) = pieces.split_last().unwrap();
        assert_eq!(last.number, Some(9));
        assert!(!others.is_empty() && others.iter().all(|piece| piece.number.is_none()));
    }

    #[test]
    fn one_frame_is_one_piece_even_without_entries() {
        for sizes in [vec![], vec![1], vec![100; 20], vec![2 * ROOM]] {
            let pieces = in_pieces(append(&sizes), ROOM);
            assert_eq!((pieces.len(), pieces[0].number), (1, Some(9)));
        }
    }
}
