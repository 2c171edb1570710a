//! A lone member's raft, driven by hand: what it wants written, what it commits, what it reads.

use super::*;

fn durable(applied: u64, entries: Vec<Entry>) -> Durable {
    Durable {
        applied: Index(applied),
        applied_term: Term(u64::from(applied > 0)),
        entries,
        ..Durable::nothing(vec![MemberId(7)])
    }
}

fn lone_voter() -> Replica {
    let timing = Timing::default();
    Replica::recover(MemberId(7), &durable(0, vec![]), timing).unwrap()
}

/// Writes every append at once and returns what was committed.
fn settle(replica: &mut Replica, written: &mut Vec<Append>) -> Vec<Entry> {
    let mut committed = Vec::new();
    loop {
        let effects = replica.drain();
        if effects.append.is_empty() && effects.committed.is_empty() {
            return committed;
        }
        for append in effects.append {
            replica.appended(append.number);
            written.push(append);
        }
        if let Some(last) = effects.committed.last() {
            replica.applied_through(last.index, last.term);
        }
        committed.extend(effects.committed);
    }
}

#[test]
fn nothing_is_committed_before_it_is_on_disk() {
    let mut replica = lone_voter();
    replica.campaign();
    let mut written = Vec::new();
    settle(&mut replica, &mut written);
    assert!(replica.leadership().own);
    replica.propose(b"one".to_vec()).unwrap();
    let effects = replica.drain();
    assert_eq!(effects.append.len(), 1);
    assert!(effects.committed.is_empty(), "an entry in memory only was committed");
    replica.appended(effects.append[0].number);
    let committed = replica.drain().committed;
    assert_eq!(committed.last().unwrap().data, "one");
}

/// raft would drop what it cannot read: etcd's number for a learner is none of raft's.
#[test]
fn a_change_of_every_type_is_taken_and_comes_back_as_it_was() {
    let mut replica = lone_voter();
    let mut written = Vec::new();
    replica.campaign();
    settle(&mut replica, &mut written);
    for kind in 0..=3 {
        let change = Bytes::from(vec![0x08, 9, 0x10, kind, 0x18, 7]);
        replica.propose_change(change.clone()).expect("a leader takes a change");
        let committed = settle(&mut replica, &mut written);
        let changes: Vec<_> = committed.iter().map(|entry| (entry.kind, &entry.data)).collect();
        assert_eq!(changes, [(1, &change)]);
    }
}

#[test]
fn appends_of_several_turns_may_be_in_flight_and_commit_in_order() {
    let mut replica = lone_voter();
    replica.campaign();
    settle(&mut replica, &mut Vec::new());
    let mut numbers = Vec::new();
    for data in ["a", "b", "c"] {
        replica.propose(data.into()).unwrap();
        numbers.extend(replica.drain().append.into_iter().map(|append| append.number));
    }
    assert_eq!(numbers.len(), 3);
    replica.appended(numbers[0]);
    let first: Vec<_> = replica.drain().committed.into_iter().map(|entry| entry.data).collect();
    assert_eq!(first, ["a"]);
    replica.appended(numbers[1]);
    replica.appended(numbers[2]);
    let rest: Vec<_> = replica.drain().committed.into_iter().map(|entry| entry.data).collect();
    assert_eq!(rest, ["b", "c"]);
}

#[test]
fn a_read_waits_for_everything_committed_before_it() {
    let mut replica = lone_voter();
    replica.campaign();
    settle(&mut replica, &mut Vec::new());
    replica.propose(b"x".to_vec()).unwrap();
    settle(&mut replica, &mut Vec::new());
    replica.read_index(42);
    let reads = replica.drain().reads;
    assert_eq!(reads, [ReadState { context: 42, index: replica.committed() }]);
}

#[test]
fn a_read_before_the_first_commit_of_a_term_is_dropped_not_answered_early() {
    let mut replica = lone_voter();
    replica.campaign();
    replica.read_index(1);
    assert!(replica.drain().reads.is_empty());
}

#[test]
fn a_restart_goes_on_where_the_log_ends() {
    let mut replica = lone_voter();
    replica.campaign();
    let mut written = Vec::new();
    replica.drain().append.into_iter().for_each(|append| {
        replica.appended(append.number);
        written.push(append);
    });
    settle(&mut replica, &mut written);
    for n in 0..5u8 {
        replica.propose(vec![n]).unwrap();
        settle(&mut replica, &mut written);
    }
    let entries: Vec<Entry> = written.iter().flat_map(|append| append.entries.clone()).collect();
    let hard_state = written.last().unwrap().hard_state;
    // The store has the first three; the log has all, and remembers an older commit.
    let again = Durable { hard_state, ..durable(3, entries) };
    let timing = Timing { seed: 2, ..Timing::default() };
    let mut replica = Replica::recover(MemberId(7), &again, timing).unwrap();
    replica.campaign();
    let data: Vec<_> =
        settle(&mut replica, &mut Vec::new()).into_iter().map(|entry| entry.data).collect();
    assert_eq!(data[..4], [vec![2u8], vec![3], vec![4], vec![]].map(Bytes::from));
    assert!(replica.leadership().term > hard_state.term);
}

#[test]
fn a_log_that_does_not_connect_is_named() {
    let entry = Entry { index: Index(9), term: Term(1), kind: 0, data: Bytes::new() };
    let timing = Timing::default();
    let gap = Replica::recover(MemberId(7), &durable(3, vec![entry]), timing).err().unwrap();
    assert_eq!(gap.to_string(), "the log starts at index 9 but 4 is needed");
}

/// If raft's setter goes away or stops working, two runs of one seed differ; this notices first.
#[test]
fn the_election_timeout_is_a_function_of_seed_member_and_term() {
    let ticks_to_lead = |seed| {
        let timing = Timing { seed, ..Timing::default() };
        let mut replica = Replica::recover(MemberId(7), &durable(0, vec![]), timing).unwrap();
        (1..).find(|_| {
            replica.tick();
            settle(&mut replica, &mut Vec::new());
            replica.leadership().own
        })
    };
    for seed in 0..20 {
        assert_eq!(ticks_to_lead(seed), ticks_to_lead(seed), "seed {seed}");
    }
    let spread: std::collections::BTreeSet<_> = (0..20).map(ticks_to_lead).collect();
    assert!(spread.len() > 3, "no jitter: {spread:?}");
}
