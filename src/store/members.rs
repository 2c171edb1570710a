//! Who belongs to the cluster: changes of members as they stand in the log, and what applying one
//! does.
//!
//! A change is a log entry of a kind of its own, since raft must hear of it too. Its data is what
//! etcd puts there, so that an etcd reading this log would apply the same:
//!
//! ```text
//! raftpb.ConfChange    1 id = our Ticket · 2 type · 3 node id · 4 context
//! type                 0 add voter · 1 remove · 2 update · 3 add learner
//! context, JSON        add, update  {"id":1,"peerURLs":["http://..."],"isLearner":true}
//!                      promote      {"id":1,"isPromote":true}, with type 0
//! ```
//!
//! Whether a change is right is decided when it is applied, by the members of that moment, so that
//! all decide alike; one that is refused changes nothing (etcd `membership`,
//! `ValidateConfigurationChange`).

use bytes::{Buf, Bytes};
use prost::{
    DecodeError,
    encoding::{DecodeContext, WireType, decode_key, decode_varint, encode_varint, skip_field},
};
use serde_json::{Map, Value};
use std::sync::Arc;

use super::{
    BadEntry, Cluster, Member, Outcome, Refusal, Store,
    command::{MemberChange, body},
};
use crate::{
    limits::LEARNERS_MAX,
    types::{Index, MemberId, Term, Ticket},
};

/// `ConfChangeType`, by etcd's numbers. Those of the `raft` crate are others.
mod kind {
    pub const ADD_VOTER: u64 = 0;
    pub const REMOVE: u64 = 1;
    pub const UPDATE: u64 = 2;
    pub const ADD_LEARNER: u64 = 3;
}

/// Fields of `raftpb.ConfChange`.
mod field {
    pub const ID: u32 = 1;
    pub const TYPE: u32 = 2;
    pub const NODE_ID: u32 = 3;
    pub const CONTEXT: u32 = 4;
}

/// What raft must be told of a change that was applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RaftChange {
    /// It has one more voter; a learner may have become one.
    AddVoter(MemberId),
    /// It has one more learner.
    AddLearner(MemberId),
    /// It has one member less.
    Remove(MemberId),
    /// Nothing: the change was refused, or is about addresses only.
    None,
}

/// What applying a change of members came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Changed {
    /// Who waits.
    pub ticket: Ticket,
    /// What to say: [`Outcome::Members`] or [`Outcome::Refused`].
    pub outcome: Outcome,
    /// What raft must be told.
    pub raft: RaftChange,
}

impl MemberChange {
    /// Whom it is about.
    pub fn member(&self) -> MemberId {
        match self {
            Self::Add(member) => member.id,
            Self::Remove(id) | Self::Promote(id) | Self::Update { id, .. } => *id,
        }
    }

    /// The data of a log entry with this change.
    pub fn encode(&self, ticket: Ticket) -> Bytes {
        let (kind, context) = match self {
            Self::Add(member) if member.learner => (kind::ADD_LEARNER, context_of(member)),
            Self::Add(member) => (kind::ADD_VOTER, context_of(member)),
            Self::Remove(_) => (kind::REMOVE, String::new()),
            Self::Update { id, peer_urls } => {
                let (id, peer_urls) = (*id, peer_urls.clone());
                (kind::UPDATE, context_of(&Member { id, peer_urls, ..Member::default() }))
            }
            Self::Promote(id) => {
                (kind::ADD_VOTER, serde_json::json!({ "id": id.0, "isPromote": true }).to_string())
            }
        };
        let mut out = Vec::with_capacity(context.len() + 40);
        for (tag, value) in
            [(field::ID, ticket.0), (field::TYPE, kind), (field::NODE_ID, self.member().0)]
        {
            prost::encoding::encode_key(tag, WireType::Varint, &mut out);
            encode_varint(value, &mut out);
        }
        if !context.is_empty() {
            out.extend_from_slice(&body(field::CONTEXT, context.as_bytes()));
        }
        out.into()
    }

    /// Reads what [`MemberChange::encode`] wrote, or etcd.
    ///
    /// # Errors
    /// Bytes that are neither; etcd would panic.
    pub fn decode(data: Bytes) -> Result<(Ticket, Self), BadEntry> {
        let raw = Raw::decode(data).map_err(|error| malformed(error.to_string()))?;
        let change = raw.change().map_err(|expected| {
            malformed(format!("a change of members: expected {expected}, found {raw:?}"))
        })?;
        Ok((Ticket(raw.id), change))
    }
}

fn malformed(what: String) -> BadEntry {
    BadEntry::Malformed { offset: 0, what }
}

fn context_of(member: &Member) -> String {
    let mut context = Map::new();
    context.insert("id".into(), member.id.0.into());
    context.insert("peerURLs".into(), member.peer_urls.clone().into());
    if member.learner {
        context.insert("isLearner".into(), true.into());
    }
    if !member.name.is_empty() {
        context.insert("name".into(), member.name.clone().into());
    }
    if !member.client_urls.is_empty() {
        context.insert("clientURLs".into(), member.client_urls.clone().into());
    }
    Value::Object(context).to_string()
}

/// `raftpb.ConfChange`.
#[derive(Debug, Default)]
struct Raw {
    id: u64,
    kind: u64,
    node: u64,
    context: Bytes,
}

impl Raw {
    fn decode(mut data: Bytes) -> Result<Self, DecodeError> {
        let mut raw = Self::default();
        while data.has_remaining() {
            let (tag, wire) = decode_key(&mut data)?;
            match (tag, wire) {
                (field::ID, WireType::Varint) => raw.id = decode_varint(&mut data)?,
                (field::TYPE, WireType::Varint) => raw.kind = decode_varint(&mut data)?,
                (field::NODE_ID, WireType::Varint) => raw.node = decode_varint(&mut data)?,
                (field::CONTEXT, WireType::LengthDelimited) => {
                    let context = WireType::LengthDelimited;
                    prost::encoding::bytes::merge(
                        context,
                        &mut raw.context,
                        &mut data,
                        DecodeContext::default(),
                    )?;
                }
                (tag, wire) => skip_field(wire, tag, &mut data, DecodeContext::default())?,
            }
        }
        Ok(raw)
    }

    /// # Errors
    /// What was expected instead.
    fn change(&self) -> Result<MemberChange, &'static str> {
        let id = MemberId(self.node);
        match self.kind {
            kind::REMOVE => Ok(MemberChange::Remove(id)),
            kind::UPDATE => {
                let Context { member, .. } = self.context()?;
                Ok(MemberChange::Update { id, peer_urls: member.peer_urls })
            }
            kind::ADD_VOTER | kind::ADD_LEARNER => {
                let Context { member, promote } = self.context()?;
                let learner = self.kind == kind::ADD_LEARNER;
                match (promote, member.learner) {
                    (true, _) if !learner => Ok(MemberChange::Promote(id)),
                    (false, role) if role == learner => Ok(MemberChange::Add(member)),
                    _ => Err("one role for the member"),
                }
            }
            _ => Err("a type that etcd knows"),
        }
    }

    fn context(&self) -> Result<Context, &'static str> {
        let Ok(Value::Object(said)) = serde_json::from_slice(&self.context) else {
            return Err("a member as JSON");
        };
        let context = Context::read(&said)?;
        if context.member.id.0 == self.node { Ok(context) } else { Err("the same id twice") }
    }
}

/// `membership.ConfigChangeContext`.
struct Context {
    member: Member,
    promote: bool,
}

impl Context {
    /// Whatever is not there is empty, as Go's decoder has it; so is `null`.
    fn read(said: &Map<String, Value>) -> Result<Self, &'static str> {
        let there = |name: &str| said.get(name).filter(|value| !value.is_null());
        let flag = |name| there(name).map_or(Some(false), Value::as_bool).ok_or("a flag");
        let text = |value: &Value| value.as_str().map(str::to_owned).ok_or("a string");
        let texts = |name| match there(name) {
            None => Ok(Vec::new()),
            Some(list) => list.as_array().ok_or("a list")?.iter().map(text).collect(),
        };
        let member = Member {
            id: MemberId(there("id").map_or(Some(0), Value::as_u64).ok_or("a member's id")?),
            name: there("name").map_or(Ok(String::new()), text)?,
            peer_urls: texts("peerURLs")?,
            client_urls: texts("clientURLs")?,
            learner: flag("isLearner")?,
        };
        Ok(Self { member, promote: flag("isPromote")? })
    }
}

impl Cluster {
    /// Whether `change` is right for these members, in etcd's order.
    ///
    /// # Errors
    /// What its client is told.
    pub fn check(&self, change: &MemberChange) -> Result<(), Refusal> {
        let known = self.members.get(&change.member());
        if self.removed.contains(&change.member()) {
            return Err(Refusal::MemberNotFound);
        }
        match change {
            MemberChange::Add(_) if known.is_some() => Err(Refusal::MemberExists),
            MemberChange::Add(member) => {
                self.check_urls(member.id, &member.peer_urls)?;
                let learners = self.members.values().filter(|member| member.learner).count();
                let too_many = member.learner && learners >= LEARNERS_MAX;
                if too_many { Err(Refusal::TooManyLearners) } else { Ok(()) }
            }
            _ if known.is_none() => Err(Refusal::MemberNotFound),
            MemberChange::Update { id, peer_urls } => self.check_urls(*id, peer_urls),
            MemberChange::Promote(_) if !known.is_some_and(|member| member.learner) => {
                Err(Refusal::NotLearner)
            }
            MemberChange::Remove(id) if self.voters().all(|voter| voter.id == *id) => {
                Err(Refusal::LastVoter)
            }
            MemberChange::Promote(_) | MemberChange::Remove(_) => Ok(()),
        }
    }

    /// No other member may be reached there.
    fn check_urls(&self, id: MemberId, urls: &[String]) -> Result<(), Refusal> {
        let others = self.members.values().filter(|member| member.id != id);
        let taken = others.flat_map(|member| &member.peer_urls).any(|url| urls.contains(url));
        if taken { Err(Refusal::PeerUrlExists) } else { Ok(()) }
    }

    /// Takes over a change that was checked.
    fn change(&mut self, change: &MemberChange) -> RaftChange {
        match change {
            MemberChange::Add(member) => {
                self.members.insert(member.id, member.clone());
                match member.learner {
                    true => RaftChange::AddLearner(member.id),
                    false => RaftChange::AddVoter(member.id),
                }
            }
            MemberChange::Remove(id) => {
                self.members.remove(id);
                self.removed.insert(*id);
                RaftChange::Remove(*id)
            }
            MemberChange::Update { id, peer_urls } => {
                self.known(*id).peer_urls.clone_from(peer_urls);
                RaftChange::None
            }
            MemberChange::Promote(id) => {
                self.known(*id).learner = false;
                RaftChange::AddVoter(*id)
            }
        }
    }

    fn known(&mut self, id: MemberId) -> &mut Member {
        self.members.get_mut(&id).expect("the change was checked")
    }

    /// Those who vote.
    pub fn voters(&self) -> impl Iterator<Item = &Member> {
        self.members.values().filter(|member| !member.learner)
    }

    /// Whether those that have started would still be a majority with one more voter. A lone
    /// member may always get a second one (etcd `IsReadyToAddVotingMember`).
    pub fn can_add_voter(&self) -> bool {
        let count = Count::of(self.voters());
        (count.members, count.started) == (1, 1) || count.and_one(0).is_majority()
    }

    /// The same without `id` (etcd `IsReadyToRemoveVotingMember`). Learners may always go.
    pub fn can_remove(&self, id: MemberId) -> bool {
        let learner = self.members.get(&id).is_some_and(|member| member.learner);
        learner || Count::of(self.voters().filter(|member| member.id != id)).is_majority()
    }

    /// The same with a learner more that votes, which counts as started (etcd
    /// `IsReadyToPromoteMember`).
    pub fn can_promote(&self) -> bool {
        Count::of(self.voters()).and_one(1).is_majority()
    }
}

/// Voters, and those of them that have said their name.
#[derive(Clone, Copy)]
struct Count {
    members: usize,
    started: usize,
}

impl Count {
    fn of<'a>(members: impl Iterator<Item = &'a Member>) -> Self {
        members.fold(Self { members: 0, started: 0 }, |count, member| {
            count.and_one(usize::from(!member.name.is_empty()))
        })
    }

    fn and_one(self, started: usize) -> Self {
        Self { members: self.members + 1, started: self.started + started }
    }

    fn is_majority(self) -> bool {
        self.started > self.members / 2
    }
}

impl Store {
    /// Applies the entry at `index`, a change of members. Refused ones change nothing but the
    /// applied index.
    ///
    /// # Errors
    /// An entry that cannot be read. The member must stop.
    ///
    /// # Panics
    /// As [`Store::apply`].
    pub fn change_members(
        &mut self,
        index: Index,
        term: Term,
        data: Bytes,
    ) -> Result<Changed, BadEntry> {
        self.advance(index, term);
        let (ticket, change) = MemberChange::decode(data)?;
        if let Err(refusal) = self.cluster.check(&change) {
            let outcome = Outcome::Refused(refusal);
            return Ok(Changed { ticket, outcome, raft: RaftChange::None });
        }
        let raft = Arc::make_mut(&mut self.cluster).change(&change);
        let added = matches!(change, MemberChange::Add(_)).then_some(change.member());
        let members = self.cluster.members.values().cloned().collect();
        Ok(Changed { ticket, outcome: Outcome::Members { members, added }, raft })
    }
}

#[cfg(test)]
mod tests;
