//! Our words for raft's, and raft's for ours.

use super::{Configuration, Entry, HardState, Kind, Message, ReadState, SnapshotMark};
use crate::types::{Index, MemberId, Term};
use bytes::Bytes;
use raft::eraftpb::{
    ConfState, Entry as RaftEntry, EntryType, HardState as RaftHardState, Message as RaftMessage,
    MessageType, Snapshot, SnapshotMetadata,
};

pub(super) fn entry(entry: RaftEntry) -> Entry {
    Entry {
        index: Index(entry.index),
        term: Term(entry.term),
        kind: u8::try_from(entry.entry_type as i32).expect("raft has three kinds of entry"),
        data: entry.data,
    }
}

pub(super) fn to_raft_entry(entry: Entry) -> RaftEntry {
    RaftEntry { index: entry.index.0, term: entry.term.0, ..proposal(entry.kind, entry.data) }
}

/// An entry without a place yet.
pub(super) fn proposal(kind: u8, data: Bytes) -> RaftEntry {
    let entry_type = match kind {
        0 => EntryType::EntryNormal,
        1 => EntryType::EntryConfChange,
        _ => EntryType::EntryConfChangeV2,
    };
    RaftEntry { entry_type, data, ..RaftEntry::default() }
}

pub(super) fn propose(own: u64, entry: RaftEntry) -> RaftMessage {
    RaftMessage {
        msg_type: MessageType::MsgPropose,
        from: own,
        entries: vec![entry].into(),
        ..RaftMessage::default()
    }
}

/// `None` for what raft says to nobody but itself.
pub(super) fn message(message: RaftMessage) -> Option<Message> {
    let snapshot = message.snapshot.as_ref().filter(|snapshot| !snapshot.is_empty()).map(mark);
    Some(Message {
        kind: Kind::of(message.msg_type as i32)?,
        to: MemberId(message.to),
        from: MemberId(message.from),
        term: Term(message.term),
        log_term: Term(message.log_term),
        index: Index(message.index),
        entries: message.entries.into_iter().map(entry).collect(),
        commit: Index(message.commit),
        snapshot,
        reject: message.reject,
        reject_hint: Index(message.reject_hint),
        context: message.context,
    })
}

pub(super) fn to_raft(message: Message) -> RaftMessage {
    let entries: Vec<RaftEntry> = message.entries.into_iter().map(to_raft_entry).collect();
    RaftMessage {
        msg_type: to_raft_kind(message.kind),
        to: message.to.0,
        from: message.from.0,
        term: message.term.0,
        log_term: message.log_term.0,
        index: message.index.0,
        entries: entries.into(),
        commit: message.commit.0,
        snapshot: message.snapshot.as_ref().map(snapshot).into(),
        reject: message.reject,
        reject_hint: message.reject_hint.0,
        context: message.context,
        ..RaftMessage::default()
    }
}

fn to_raft_kind(kind: Kind) -> MessageType {
    match kind {
        Kind::Propose => MessageType::MsgPropose,
        Kind::Append => MessageType::MsgAppend,
        Kind::AppendResponse => MessageType::MsgAppendResponse,
        Kind::Vote => MessageType::MsgRequestVote,
        Kind::VoteResponse => MessageType::MsgRequestVoteResponse,
        Kind::Snapshot => MessageType::MsgSnapshot,
        Kind::Heartbeat => MessageType::MsgHeartbeat,
        Kind::HeartbeatResponse => MessageType::MsgHeartbeatResponse,
        Kind::TransferLeader => MessageType::MsgTransferLeader,
        Kind::TimeoutNow => MessageType::MsgTimeoutNow,
        Kind::ReadIndex => MessageType::MsgReadIndex,
        Kind::ReadIndexResponse => MessageType::MsgReadIndexResp,
        Kind::PreVote => MessageType::MsgRequestPreVote,
        Kind::PreVoteResponse => MessageType::MsgRequestPreVoteResponse,
    }
}

pub(super) fn mark(snapshot: &Snapshot) -> SnapshotMark {
    let metadata = snapshot.get_metadata();
    SnapshotMark {
        index: Index(metadata.index),
        term: Term(metadata.term),
        configuration: configuration(metadata.get_conf_state()),
    }
}

pub(super) fn snapshot(mark: &SnapshotMark) -> Snapshot {
    let metadata = SnapshotMetadata {
        conf_state: Some(conf_state(&mark.configuration)).into(),
        index: mark.index.0,
        term: mark.term.0,
        ..SnapshotMetadata::default()
    };
    Snapshot { metadata: Some(metadata).into(), ..Snapshot::default() }
}

pub(super) fn configuration(state: &ConfState) -> Configuration {
    let ids = |ids: &[u64]| ids.iter().copied().map(MemberId).collect();
    Configuration { voters: ids(&state.voters), learners: ids(&state.learners) }
}

pub(super) fn conf_state(configuration: &Configuration) -> ConfState {
    let ids = |ids: &[MemberId]| ids.iter().map(|id| id.0).collect();
    ConfState {
        voters: ids(&configuration.voters),
        learners: ids(&configuration.learners),
        ..ConfState::default()
    }
}

pub(super) fn raft_hard_state(state: HardState) -> RaftHardState {
    RaftHardState {
        term: state.term.0,
        vote: state.vote.0,
        commit: state.commit.0,
        ..RaftHardState::default()
    }
}

/// What a boot counts, unique over all its kin.
pub(super) fn mark_of(boot: u64, count: u64) -> Vec<u8> {
    [boot.to_be_bytes(), count.to_be_bytes()].concat()
}

/// Boot and count of [`mark_of`].
pub(super) fn read_mark(mark: &[u8]) -> Option<(u64, u64)> {
    let (boot, count) = mark.split_first_chunk::<8>()?;
    let count = <[u8; 8]>::try_from(count).ok()?;
    Some((u64::from_be_bytes(*boot), u64::from_be_bytes(count)))
}

/// Unique over all members and boots, or a late answer would be taken for a new one (etcd issue
/// 20418).
pub(super) fn read_context(own: u64, boot: u64, count: u64) -> Vec<u8> {
    [&own.to_be_bytes()[..], &mark_of(boot, count)].concat()
}

/// `None` for the answer to somebody else's question, or to one of an earlier boot.
pub(super) fn read_state((own, boot): (u64, u64), state: raft::ReadState) -> Option<ReadState> {
    let (from, mark) = state.request_ctx.split_first_chunk::<8>()?;
    let (of_boot, context) = read_mark(mark)?;
    let ours = u64::from_be_bytes(*from) == own && of_boot == boot;
    ours.then_some(ReadState { context, index: Index(state.index) })
}
