//! raft's messages as bytes: etcd's `raftpb.Message`, and the two ways in which a stream carries
//! one after the other (etcd `rafthttp`: `msg_codec.go`, `msgappv2_codec.go`).
//!
//! ```text
//! stream "message":  u64 length, message            a link heartbeat is a Heartbeat of nobody to nobody
//! stream "msgapp":   u8 0                           link heartbeat
//!                    u8 1, u64 n, n × (u64 length, entry), u64 commit
//!                                                   an Append whose term and index follow from the last
//!                    u8 2, u64 length, message      any other Append
//! ```
//!
//! Numbers are big-endian. Fields that etcd 3.7 always sends are sent even when they are zero, so
//! that our bytes are etcd's. Nothing here waits or panics, whatever the bytes.

#[cfg(test)]
mod tests;

use crate::{
    consensus::{Configuration, Entry, Kind, Message, SnapshotMark},
    limits::{PEER_MESSAGE_BYTES_MAX, PEER_MESSAGE_ENTRIES_MAX},
    types::{Index, MemberId, Term},
};
use bytes::{Buf, Bytes, BytesMut};
use prost::Message as _;
use proto::raftpb as pb;
use std::fmt;

/// What a stream brings.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// The connection is alive, and that is all.
    LinkHeartbeat,
    /// A message for raft.
    Message(Box<Message>),
}

/// Bytes that are not what a member says. The stream is worth nothing from here on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A message or its entries of so many bytes, or more.
    Bytes(u64),
    /// So many entries.
    Entries(u64),
    /// A frame of this type in a stream of appends.
    Type(u8),
    /// No protobuf, or not of this message.
    Malformed,
    /// A message of this kind: one that a member says only to itself, or none that we know.
    Kind(i32),
    /// An entry of this kind.
    EntryKind(i32),
    /// No term where there must be one: raft would take it for its own.
    NoTerm,
    /// Entries that do not follow each other.
    Gap,
    /// Two configurations at once, which etcd never makes.
    Joint,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => {
                write!(f, "a message of {bytes} bytes; at most {PEER_MESSAGE_BYTES_MAX} are taken")
            }
            Self::Entries(entries) => {
                write!(f, "{entries} entries; at most {PEER_MESSAGE_ENTRIES_MAX} are taken")
            }
            Self::Type(found) => write!(f, "failed to parse type {found} in msgappv2 stream"),
            Self::Malformed => f.write_str("not a raftpb.Message"),
            Self::Kind(kind) => write!(f, "a message of type {kind}, which no other member sends"),
            Self::EntryKind(kind) => write!(f, "an entry of type {kind}; expected 0, 1 or 2"),
            Self::NoTerm => f.write_str("a message without a term"),
            Self::Gap => f.write_str("entries that do not follow each other"),
            Self::Joint => f.write_str("a joint configuration"),
        }
    }
}

// ── one message ─────────────────────────────────────────────────────────────────────────────────

/// Appends one message, as `POST /raft` carries it.
pub fn encode(message: &Message, out: &mut Vec<u8>) {
    wire(message).encode(out).expect("a vector takes everything");
}

/// Appends one message behind its length.
pub fn encode_framed(message: &Message, out: &mut Vec<u8>) {
    framed(&wire(message), out);
}

/// Reads one message.
///
/// # Errors
/// [`Fault`].
pub fn decode(bytes: Bytes) -> Result<Heard, Fault> {
    let wire = pb::Message::decode(bytes).map_err(|_| Fault::Malformed)?;
    let number = wire.r#type.unwrap_or(0);
    let kind = Kind::of(number).ok_or(Fault::Kind(number))?;
    let (to, from) = (wire.to.unwrap_or(0), wire.from.unwrap_or(0));
    if kind == Kind::Heartbeat && (to, from) == (0, 0) {
        return Ok(Heard::LinkHeartbeat);
    }
    let term = wire.term.unwrap_or(0);
    if term == 0 && !matches!(kind, Kind::Propose | Kind::ReadIndex) {
        return Err(Fault::NoTerm);
    }
    if wire.entries.len() > PEER_MESSAGE_ENTRIES_MAX {
        return Err(Fault::Entries(wire.entries.len() as u64));
    }
    let message = Message {
        kind,
        to: MemberId(to),
        from: MemberId(from),
        term: Term(term),
        log_term: Term(wire.log_term.unwrap_or(0)),
        index: Index(wire.index.unwrap_or(0)),
        entries: wire.entries.into_iter().map(entry).collect::<Result<_, _>>()?,
        commit: Index(wire.commit.unwrap_or(0)),
        snapshot: wire.snapshot.map(mark).transpose()?,
        reject: wire.reject.unwrap_or(false),
        reject_hint: Index(wire.reject_hint.unwrap_or(0)),
        context: wire.context.unwrap_or_default(),
    };
    if kind == Kind::Append && !follows(&message) {
        return Err(Fault::Gap);
    }
    Ok(Heard::Message(Box::new(message)))
}

fn follows(append: &Message) -> bool {
    let mut last = append.index.0;
    append.entries.iter().all(|entry| {
        let next = last.checked_add(1);
        last = entry.index.0;
        next == Some(last)
    })
}

/// `None` for a zero, which etcd leaves out.
fn some(number: u64) -> Option<u64> {
    (number != 0).then_some(number)
}

fn wire(message: &Message) -> pb::Message {
    use Kind::{Append, AppendResponse, Heartbeat, PreVote, Vote};
    let kind = message.kind;
    // What raft sets whatever its value (etcd raft v3.7 `raft.go`).
    let always =
        |fields: &[Kind], number| if fields.contains(&kind) { Some(number) } else { some(number) };
    let hints = kind == AppendResponse && message.reject;
    let log_term = if hints {
        Some(message.log_term.0)
    } else {
        always(&[Append, Vote, PreVote], message.log_term.0)
    };
    pb::Message {
        r#type: Some(kind as i32),
        to: some(message.to.0),
        from: some(message.from.0),
        term: some(message.term.0),
        log_term,
        index: always(&[Append, AppendResponse, Vote, PreVote], message.index.0),
        entries: message.entries.iter().map(wire_entry).collect(),
        commit: always(&[Append, Heartbeat], message.commit.0),
        snapshot: message.snapshot.as_ref().map(wire_mark),
        reject: message.reject.then_some(true),
        reject_hint: if hints { Some(message.reject_hint.0) } else { some(message.reject_hint.0) },
        context: Some(message.context.clone()).filter(|context| !context.is_empty()),
    }
}

fn wire_entry(entry: &Entry) -> pb::Entry {
    pb::Entry {
        r#type: (entry.kind != 0).then_some(i32::from(entry.kind)),
        term: some(entry.term.0),
        index: some(entry.index.0),
        data: Some(entry.data.clone()).filter(|data| !data.is_empty()),
    }
}

fn entry(wire: pb::Entry) -> Result<Entry, Fault> {
    let number = wire.r#type.unwrap_or(0);
    let kind = u8::try_from(number).ok().filter(|kind| *kind <= 2);
    Ok(Entry {
        index: Index(wire.index.unwrap_or(0)),
        term: Term(wire.term.unwrap_or(0)),
        kind: kind.ok_or(Fault::EntryKind(number))?,
        data: wire.data.unwrap_or_default(),
    })
}

fn wire_mark(mark: &SnapshotMark) -> pb::Snapshot {
    let ids = |members: &[MemberId]| members.iter().map(|member| member.0).collect();
    let configuration = pb::ConfState {
        voters: ids(&mark.configuration.voters),
        learners: ids(&mark.configuration.learners),
        auto_leave: Some(false),
        ..Default::default()
    };
    let metadata = pb::SnapshotMetadata {
        conf_state: Some(configuration),
        index: Some(mark.index.0),
        term: Some(mark.term.0),
    };
    pb::Snapshot { data: None, metadata: Some(metadata) }
}

fn mark(wire: pb::Snapshot) -> Result<SnapshotMark, Fault> {
    let metadata = wire.metadata.unwrap_or_default();
    let configuration = metadata.conf_state.unwrap_or_default();
    if !configuration.voters_outgoing.is_empty() || !configuration.learners_next.is_empty() {
        return Err(Fault::Joint);
    }
    let ids = |members: Vec<u64>| members.into_iter().map(MemberId).collect();
    Ok(SnapshotMark {
        index: Index(metadata.index.unwrap_or(0)),
        term: Term(metadata.term.unwrap_or(0)),
        configuration: Configuration {
            voters: ids(configuration.voters),
            learners: ids(configuration.learners),
        },
    })
}

// ── one after the other ─────────────────────────────────────────────────────────────────────────

/// Which of the two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// `msgapp`: appends, which make up most of what is said.
    Append,
    /// `message`: everything else.
    Message,
}

impl Lane {
    /// What stands in the path of its request.
    pub fn name(self) -> &'static str {
        match self {
            Self::Append => "msgapp",
            Self::Message => "message",
        }
    }

    /// As etcd's log lines say it.
    pub fn title(self) -> &'static str {
        match self {
            Self::Append => "stream MsgApp v2",
            Self::Message => "stream Message",
        }
    }
}

/// The writing end of a stream: what the reader knows from the messages before.
#[derive(Debug)]
pub struct Writer {
    lane: Lane,
    last: Last,
}

/// The reading end of a stream.
#[derive(Debug)]
pub struct Reader {
    lane: Lane,
    /// Who writes, and who reads: an Append that follows from the last does not say.
    from: MemberId,
    to: MemberId,
    last: Last,
    part: Part,
    entries: Vec<Entry>,
    /// Bytes of `entries` so far.
    taken: u64,
}

/// Where the last Append of a stream ended; term 0 before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Last {
    term: Term,
    index: Index,
}

impl Last {
    fn of(message: &Message) -> Self {
        let index = message.entries.last().map_or(message.index, |entry| entry.index);
        Self { term: message.term, index }
    }

    fn foretells(self, message: &Message) -> bool {
        message.term.0 != 0
            && (self.term, self.index) == (message.log_term, message.index)
            && message.log_term == message.term
    }
}

/// What of a frame of a stream of appends comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Type,
    Count,
    Entries(u64),
    Commit,
    Whole,
}

const LINK_HEARTBEAT: u8 = 0;
const FORETOLD: u8 = 1;
const WHOLE: u8 = 2;

impl Writer {
    /// For a new connection.
    pub fn new(lane: Lane) -> Self {
        Self { lane, last: Last::default() }
    }

    /// Appends one message.
    ///
    /// # Panics
    /// When it is no Append and the stream is one of appends.
    pub fn write(&mut self, message: &Message, out: &mut Vec<u8>) {
        if self.lane == Lane::Message {
            return framed(&wire(message), out);
        }
        assert_eq!(message.kind, Kind::Append, "a stream of appends");
        if self.last.foretells(message) {
            out.push(FORETOLD);
            out.extend_from_slice(&(message.entries.len() as u64).to_be_bytes());
            message.entries.iter().for_each(|entry| framed(&wire_entry(entry), out));
            out.extend_from_slice(&message.commit.0.to_be_bytes());
        } else {
            out.push(WHOLE);
            framed(&wire(message), out);
        }
        self.last = Last::of(message);
    }

    /// Appends what only says that the connection is alive.
    pub fn write_link_heartbeat(&self, out: &mut Vec<u8>) {
        match self.lane {
            Lane::Append => out.push(LINK_HEARTBEAT),
            Lane::Message => {
                let nobody = Message::new(Kind::Heartbeat, MemberId(0), MemberId(0));
                framed(&pb::Message { commit: None, ..wire(&nobody) }, out);
            }
        }
    }
}

fn framed(message: &impl prost::Message, out: &mut Vec<u8>) {
    out.extend_from_slice(&(message.encoded_len() as u64).to_be_bytes());
    message.encode(out).expect("a vector takes everything");
}

impl Reader {
    /// For a new connection, over which `from` speaks to `to`.
    pub fn new(lane: Lane, from: MemberId, to: MemberId) -> Self {
        Self {
            lane,
            from,
            to,
            last: Last::default(),
            part: Part::Type,
            entries: Vec::new(),
            taken: 0,
        }
    }

    /// Takes the next message off the front of `input`; `None` until it is whole there.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn next(&mut self, input: &mut BytesMut) -> Result<Option<Heard>, Fault> {
        if self.lane == Lane::Message {
            return take_framed(input, 0)?.map(|bytes| decode(bytes.freeze())).transpose();
        }
        loop {
            match self.part {
                Part::Type => match input.first().copied() {
                    None => return Ok(None),
                    Some(found) => {
                        input.advance(1);
                        match found {
                            LINK_HEARTBEAT => return Ok(Some(Heard::LinkHeartbeat)),
                            FORETOLD if self.last.term.0 == 0 => return Err(Fault::NoTerm),
                            FORETOLD => self.part = Part::Count,
                            WHOLE => self.part = Part::Whole,
                            other => return Err(Fault::Type(other)),
                        }
                    }
                },
                Part::Count => {
                    let Some(count) = take_number(input) else { return Ok(None) };
                    if count > PEER_MESSAGE_ENTRIES_MAX as u64 {
                        return Err(Fault::Entries(count));
                    }
                    self.taken = 0;
                    self.part = Part::Entries(count);
                }
                Part::Entries(0) => self.part = Part::Commit,
                Part::Entries(left) => {
                    let Some(bytes) = take_framed(input, self.taken)? else { return Ok(None) };
                    self.take_entry(bytes.freeze())?;
                    self.part = Part::Entries(left - 1);
                }
                Part::Commit => {
                    let Some(commit) = take_number(input) else { return Ok(None) };
                    self.part = Part::Type;
                    return Ok(Some(Heard::Message(Box::new(self.foretold(Index(commit))))));
                }
                Part::Whole => {
                    let Some(bytes) = take_framed(input, 0)? else { return Ok(None) };
                    self.part = Part::Type;
                    let heard = decode(bytes.freeze())?;
                    if let Heard::Message(message) = &heard {
                        if message.kind != Kind::Append {
                            return Err(Fault::Kind(message.kind as i32));
                        }
                        self.last = Last::of(message);
                    }
                    return Ok(Some(heard));
                }
            }
        }
    }

    fn take_entry(&mut self, bytes: Bytes) -> Result<(), Fault> {
        self.taken += bytes.len() as u64;
        let entry = entry(pb::Entry::decode(bytes).map_err(|_| Fault::Malformed)?)?;
        let before = self.entries.last().map_or(self.last.index, |entry| entry.index);
        if before.0.checked_add(1) != Some(entry.index.0) {
            return Err(Fault::Gap);
        }
        self.entries.push(entry);
        Ok(())
    }

    fn foretold(&mut self, commit: Index) -> Message {
        let message = Message {
            term: self.last.term,
            log_term: self.last.term,
            index: self.last.index,
            entries: std::mem::take(&mut self.entries),
            commit,
            ..Message::new(Kind::Append, self.from, self.to)
        };
        self.last = Last::of(&message);
        message
    }
}

fn take_number(input: &mut BytesMut) -> Option<u64> {
    (input.len() >= size_of::<u64>()).then(|| input.get_u64())
}

/// A length and so many bytes, which together with `taken` are not too many.
fn take_framed(input: &mut BytesMut, taken: u64) -> Result<Option<BytesMut>, Fault> {
    let Some(head) = input.first_chunk::<{ size_of::<u64>() }>() else { return Ok(None) };
    let length = u64::from_be_bytes(*head);
    let total = taken.saturating_add(length);
    if total > PEER_MESSAGE_BYTES_MAX as u64 {
        return Err(Fault::Bytes(total));
    }
    let length = length as usize;
    if input.len() - head.len() < length {
        return Ok(None);
    }
    input.advance(size_of::<u64>());
    Ok(Some(input.split_to(length)))
}
