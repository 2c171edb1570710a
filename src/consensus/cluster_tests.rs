//! Several replicas, driven by hand over a network that a test may garble.

use super::*;
use std::collections::{BTreeMap, BTreeSet};

/// Three replicas; every append is durable when it is next asked for, unless its disk is stuck.
struct Trio {
    replicas: BTreeMap<MemberId, Replica>,
    applied: BTreeMap<MemberId, Vec<Entry>>,
    reads: BTreeMap<MemberId, Vec<ReadState>>,
    stuck: BTreeMap<MemberId, Vec<u64>>,
    wire: VecDeque<Message>,
    cut: BTreeSet<MemberId>,
}

const IDS: [MemberId; 3] = [MemberId(1), MemberId(2), MemberId(3)];

impl Trio {
    fn new() -> Self {
        let replica = |id: MemberId| {
            let timing = Timing { boot: 100 + id.0, ..Timing::default() };
            let begun = Durable {
                applied: Index(3),
                applied_term: Term(1),
                ..Durable::nothing(IDS.to_vec())
            };
            (id, Replica::recover(id, &begun, timing).unwrap())
        };
        let mut trio = Self {
            replicas: IDS.into_iter().map(replica).collect(),
            applied: BTreeMap::new(),
            reads: BTreeMap::new(),
            stuck: BTreeMap::new(),
            wire: VecDeque::new(),
            cut: BTreeSet::new(),
        };
        trio.at(1).campaign();
        trio.settle();
        assert!(trio.at(1).leadership().own);
        trio
    }

    fn at(&mut self, id: u64) -> &mut Replica {
        self.replicas.get_mut(&MemberId(id)).unwrap()
    }

    fn collect(&mut self) {
        for (id, replica) in &mut self.replicas {
            loop {
                let effects = replica.drain();
                if effects.is_empty() {
                    break;
                }
                self.wire.extend(effects.messages);
                for append in effects.append {
                    match self.stuck.get_mut(id) {
                        Some(stuck) => stuck.push(append.number),
                        None => replica.appended(append.number),
                    }
                }
                for entry in effects.committed {
                    replica.applied_through(entry.index, entry.term);
                    self.applied.entry(*id).or_default().push(entry);
                }
                self.reads.entry(*id).or_default().extend(effects.reads);
            }
        }
    }

    /// A proposal at member 3, which follows: what is on its way to the leader.
    fn forward(&mut self, data: &[u8]) -> Message {
        self.at(3).propose(data.to_vec()).unwrap();
        self.collect();
        self.wire.iter().find(|message| message.kind == Kind::Propose).cloned().unwrap()
    }

    fn deliver(&mut self, message: Message) {
        if !self.cut.contains(&message.from) && !self.cut.contains(&message.to) {
            self.at(message.to.0).step(message);
        }
    }

    fn settle(&mut self) {
        self.collect();
        while let Some(message) = self.wire.pop_front() {
            self.deliver(message);
            self.collect();
        }
    }

    fn tick(&mut self, times: usize) {
        for _ in 0..times {
            self.replicas.values_mut().for_each(Replica::tick);
            self.settle();
        }
    }

    fn data(&self, id: u64) -> Vec<Bytes> {
        let applied = self.applied.get(&MemberId(id)).into_iter().flatten();
        applied.map(|entry| entry.data.clone()).filter(|data| !data.is_empty()).collect()
    }
}

#[test]
fn a_proposal_through_a_follower_is_applied_by_all() {
    let mut trio = Trio::new();
    trio.at(3).propose(b"x".to_vec()).unwrap();
    trio.settle();
    trio.tick(1);
    assert!((1..=3).all(|id| trio.data(id) == ["x"]), "{:?}", trio.applied);
}

#[test]
fn a_forwarded_proposal_counts_once_however_often_it_arrives() {
    let mut trio = Trio::new();
    let forwarded = trio.forward(b"x");
    trio.settle();
    trio.deliver(forwarded.clone());
    trio.settle();
    assert_eq!(trio.data(1), ["x"]);
    // Late, to somebody who leads in another term.
    trio.cut.insert(MemberId(1));
    trio.tick(40);
    trio.cut.clear();
    trio.tick(40);
    let leader = trio.at(1).leadership().leader;
    assert_ne!(leader.0, 0);
    trio.deliver(Message { to: leader, ..forwarded });
    trio.settle();
    trio.tick(2);
    assert_eq!(trio.data(1), ["x"]);
}

#[test]
fn a_vote_leaves_only_once_it_is_durable() {
    let mut trio = Trio::new();
    trio.stuck.insert(MemberId(2), Vec::new());
    trio.cut.insert(MemberId(1));
    for _ in 0..40 {
        trio.at(3).tick();
        trio.at(2).tick();
        trio.settle();
    }
    assert!(!trio.at(3).leadership().own, "elected by a vote that is on no disk");
    for number in trio.stuck.remove(&MemberId(2)).unwrap() {
        trio.at(2).appended(number);
    }
    trio.tick(40);
    assert_eq!([2, 3].map(|id| trio.at(id).leadership().own).iter().filter(|own| **own).count(), 1);
}

#[test]
fn a_follower_learns_when_its_read_is_linearizable_and_takes_no_other_answer() {
    let mut trio = Trio::new();
    trio.at(1).propose(b"x".to_vec()).unwrap();
    trio.settle();
    trio.at(3).read_index(9);
    trio.settle();
    let index = trio.at(1).committed();
    assert_eq!(trio.reads[&MemberId(3)], [ReadState { context: 9, index }]);
    assert!(trio.reads.get(&MemberId(1)).is_none_or(Vec::is_empty));
}

#[test]
fn the_lead_is_handed_to_whom_one_likes() {
    let mut trio = Trio::new();
    assert_eq!(trio.at(1).heirs().len(), 2);
    trio.at(1).hand_over(MemberId(3));
    trio.settle();
    assert!(trio.at(3).leadership().own);
    trio.tick(1);
    assert_eq!(trio.at(2).leadership().leader, MemberId(3));
}

#[test]
fn a_log_that_went_backwards_is_not_told_to_commit_what_it_lacks() {
    let mut trio = Trio::new();
    let mut heartbeat = Message::new(Kind::Heartbeat, MemberId(1), MemberId(2));
    (heartbeat.term, heartbeat.commit) = (trio.at(1).leadership().term, Index(1_000));
    trio.at(2).step(heartbeat);
    trio.settle();
}

/// It stood for election where nobody heard it, and then its log was lost: it took the lead of a term
/// before its own for nothing, and nobody led in a later one.
#[test]
fn who_lost_its_log_in_a_term_that_nobody_has_heard_of_is_not_silent_for_ever() {
    let mut trio = Trio::new();
    let alone = Durable {
        applied: Index(3),
        applied_term: Term(1),
        hard_state: HardState { term: Term(9), vote: IDS[1], commit: Index(3) },
        lost: true,
        ..Durable::nothing(IDS.to_vec())
    };
    let timing = Timing { boot: 202, ..Timing::default() };
    trio.replicas.insert(IDS[1], Replica::recover(IDS[1], &alone, timing).unwrap());
    trio.tick(60);
    assert!(!trio.at(2).has_lost(), "its word counts again");
    let leadership = trio.at(2).leadership();
    assert!(leadership.term > Term(9) && leadership.leader.0 != 0, "{leadership:?}");
}

#[test]
fn words_without_a_term_are_only_those_that_have_none() {
    let mut trio = Trio::new();
    let before = trio.at(2).leadership();
    for kind in KINDS {
        trio.at(2).step(Message::new(kind, MemberId(1), MemberId(2)));
    }
    trio.settle();
    assert_eq!(trio.at(2).leadership(), before);
}

#[test]
fn who_lags_behind_the_window_is_sent_a_snapshot_and_goes_on_from_there() {
    let mut trio = Trio::new();
    trio.cut.insert(MemberId(3));
    let large = vec![7; 1 << 20];
    for _ in 0..(2 * crate::limits::RAFT_WINDOW_BYTES_MAX) / large.len() {
        trio.at(1).propose(large.clone()).unwrap();
        trio.settle();
    }
    trio.tick(2);
    trio.cut.clear();
    trio.at(1).tick();
    trio.collect();
    let mut sent = None;
    while let Some(message) = trio.wire.pop_front() {
        match message.kind {
            Kind::Snapshot => sent = Some(message),
            _ => trio.deliver(message),
        }
        trio.collect();
    }
    let snapshot = sent.expect("the entries that it lacks are gone");
    let mark = snapshot.snapshot.clone().unwrap();
    assert_eq!(mark.configuration.voters, IDS);
    trio.stuck.insert(MemberId(3), Vec::new());
    trio.deliver(snapshot);
    trio.settle();
    // While the snapshot waits for the disk nobody is heard, and raft must not stand for election.
    trio.cut.insert(MemberId(3));
    let term = trio.at(3).leadership().term;
    trio.at(3).step(Message { term, ..Message::new(Kind::TimeoutNow, IDS[0], IDS[2]) });
    trio.tick(30);
    trio.cut.clear();
    trio.tick(1);
    assert!(trio.at(1).progress(MemberId(3)).unwrap().matched < mark.index, "said too early");
    for number in trio.stuck.remove(&MemberId(3)).unwrap() {
        trio.at(3).appended(number);
    }
    trio.at(1).report_snapshot(MemberId(3), true);
    trio.at(1).propose(b"behind".to_vec()).unwrap();
    trio.settle();
    trio.tick(3);
    assert_eq!(trio.data(3).last().unwrap(), "behind");
}

#[test]
fn changes_of_members_are_carried_in_etcds_words_one_at_a_time() {
    let mut trio = Trio::new();
    // raftpb.ConfChange: id 1, type 3 (add learner, which raft's own words do not know), node 4.
    let data = Bytes::from_static(&[8, 1, 16, 3, 24, 4]);
    trio.at(1).propose_change(data.clone()).unwrap();
    assert_eq!(trio.at(1).propose_change(data.clone()), Err(Dropped), "another is on its way");
    trio.settle();
    assert_eq!(trio.data(2), std::slice::from_ref(&data));
    trio.at(3).propose_change(data.clone()).unwrap();
    trio.settle();
    trio.tick(1);
    assert_eq!(trio.data(2), [data.clone(), data], "applied, so another may come");
}

/// A leader of two died with a removal on both disks, and that it was committed on neither: it needed
/// the vote of the one that had heard and gone.
#[test]
fn a_leader_tells_nobody_of_a_removal_that_it_could_forget() {
    let mut trio = Trio::new();
    trio.stuck.insert(MemberId(1), Vec::new());
    let gone = Bytes::from_static(&[8, 1, 16, 1, 24, 3]);
    trio.at(1).propose_change(gone.clone()).unwrap();
    let change = trio.at(1).last_index();
    trio.at(1).propose(b"behind".to_vec()).unwrap();
    trio.settle();
    trio.tick(3);
    assert!(trio.at(1).committed() > change, "the others have it on their disks");
    assert!((2..=3).all(|id| trio.at(id).committed() < change), "told too early");
    assert!((1..=3).all(|id| trio.data(id).is_empty()), "{:?}", trio.applied);
    for number in trio.stuck.remove(&MemberId(1)).unwrap() {
        trio.at(1).appended(number);
    }
    trio.settle();
    let behind = Bytes::from_static(b"behind");
    assert!((1..=3).all(|id| trio.data(id) == [&gone, &behind]), "{:?}", trio.applied);
}

#[test]
fn what_a_leader_cannot_take_comes_back_and_is_proposed_once_more() {
    let mut trio = Trio::new();
    trio.cut.insert(MemberId(2));
    trio.at(1).hand_over(MemberId(2));
    trio.settle();
    let forwarded = trio.forward(b"x");
    trio.settle();
    assert!(trio.data(1).is_empty(), "nothing is proposed while the lead changes hands");
    trio.deliver(forwarded.clone());
    trio.settle();
    trio.cut.clear();
    trio.tick(30);
    for _ in 0..3 {
        trio.at(3).propose_returned();
        trio.deliver(forwarded.clone());
        trio.settle();
        trio.tick(1);
    }
    assert!((1..=3).all(|id| trio.data(id) == ["x"]), "{:?}", trio.applied);
}

#[test]
fn what_a_leader_has_taken_does_not_come_back_once_it_leads_no_more() {
    let mut trio = Trio::new();
    let forwarded = trio.forward(b"x");
    trio.settle();
    trio.at(1).hand_over(MemberId(2));
    trio.settle();
    for _ in 0..3 {
        trio.deliver(forwarded.clone());
        trio.settle();
        trio.at(3).propose_returned();
        trio.tick(1);
    }
    assert_eq!(trio.data(1), ["x"]);
    // Nor from one that has forgotten what it took.
    let begun = Durable::nothing(IDS.to_vec());
    let begun = Durable { applied: Index(3), applied_term: Term(9), ..begun };
    let again = Replica::recover(MemberId(1), &begun, Timing { boot: 7, ..Timing::default() });
    let mut again = again.unwrap();
    again.step(forwarded);
    assert!(again.drain().messages.is_empty());
}

#[test]
fn a_leader_that_is_removed_while_its_disk_writes_lets_another_lead() {
    let mut trio = Trio::new();
    trio.stuck.insert(MemberId(1), Vec::new());
    trio.at(1).propose(b"x".to_vec()).unwrap();
    trio.settle();
    for id in 1..=3 {
        trio.at(id).apply_change(Some(Change::Gone(MemberId(1))));
    }
    for number in trio.stuck.remove(&MemberId(1)).unwrap() {
        trio.at(1).appended(number);
    }
    trio.settle();
    assert!(!trio.at(1).leadership().own);
    assert!(trio.at(2).leadership().own || trio.at(3).leadership().own, "at once, without a tick");
}

#[test]
fn a_follower_whose_disk_stands_still_takes_no_more_than_it_may_and_catches_up() {
    let mut trio = Trio::new();
    trio.stuck.insert(MemberId(3), Vec::new());
    let large = vec![7; 1 << 20];
    for _ in 0..UNWRITTEN_BYTES_MAX / large.len() + 16 {
        trio.at(1).propose(large.clone()).unwrap();
        trio.settle();
        trio.tick(1);
    }
    let waiting = trio.at(3).unwritten_bytes;
    let most = UNWRITTEN_BYTES_MAX + 2 * large.len();
    assert!((UNWRITTEN_BYTES_MAX..most).contains(&waiting), "{waiting}");
    for number in trio.stuck.remove(&MemberId(3)).unwrap() {
        trio.at(3).appended(number);
    }
    trio.tick(30);
    assert_eq!(trio.data(3), trio.data(1));
}
