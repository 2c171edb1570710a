//! The services `Maintenance` and `Health`, as far as they are built.

use bytes::Bytes;
use prost::Message;
use proto::{etcdserverpb as pb, health};

use super::{
    API_VERSION, Edge, Header, Read, Status, Work,
    encode::{bytes, message, message_field, number},
    http::storage_version,
    kv::{parse, propose},
    status,
};
use crate::{
    limits::QUOTA_BYTES_DEFAULT,
    store::{ALARM_CORRUPT, ALARM_NOSPACE, Alarm, Hash, Hashing, HashingAll, View, command::field},
    types::{MemberId, Revision},
};

/// Every alarm order goes through the log, `GET` too (etcd `v3_server.go`).
pub(super) fn decode_alarm(raw: Bytes, edge: &Edge) -> Result<Work, Status> {
    let _: pb::AlarmRequest = parse(raw.clone())?;
    propose(field::ALARM, &raw, edge)
}

pub(super) fn decode_status(raw: Bytes) -> Result<Work, Status> {
    let _: pb::StatusRequest = parse(raw)?;
    Ok(Work::Read { serializable: true, read: Read::Status })
}

pub(super) fn decode_defragment(raw: Bytes) -> Result<Work, Status> {
    let _: pb::DefragmentRequest = parse(raw)?;
    Ok(Work::Defragment)
}

pub(super) fn decode_move_leader(raw: Bytes) -> Result<Work, Status> {
    let request: pb::MoveLeaderRequest = parse(raw)?;
    Ok(Work::MoveLeader(MemberId(request.target_id)))
}

/// The answer to `Defragment` and `MoveLeader`: nothing, not even a header (etcd's handlers).
pub fn encode_empty(out: &mut Vec<u8>) {
    message(out, |_| {});
}

pub(super) fn decode_hash(raw: Bytes) -> Result<Work, Status> {
    let _: pb::HashRequest = parse(raw)?;
    Ok(Work::Sum(Sum::All))
}

pub(super) fn decode_hash_kv(raw: Bytes) -> Result<Work, Status> {
    let request: pb::HashKvRequest = parse(raw)?;
    Ok(Work::Sum(Sum::Keys(Revision(request.revision))))
}

/// What is to be summed up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sum {
    /// `HashKV`: the keys up to a revision; 0 is the newest.
    Keys(Revision),
    /// `Hash`: everything.
    All,
}

/// A sum on its way to its client, in steps.
#[derive(Clone)]
pub struct Summing {
    what: Of,
    header: Header,
}

#[derive(Clone)]
enum Of {
    Keys(Hashing),
    All(HashingAll),
}

impl Summing {
    /// Begins.
    ///
    /// # Errors
    /// A revision that is not there.
    pub fn new(sum: Sum, view: &View, edge: &Edge) -> Result<Self, Status> {
        let what = match sum {
            Sum::Keys(revision) => Of::Keys(Hashing::new(revision, view)?),
            Sum::All => Of::All(HashingAll::new(view)),
        };
        Ok(Self { what, header: Header::of(view, edge) })
    }

    /// Does a bounded piece of the work; false once nothing is left.
    pub fn step(&mut self) -> bool {
        match &mut self.what {
            Of::Keys(hashing) => hashing.step(),
            Of::All(hashing) => hashing.step(),
        }
    }

    /// Appends the answer: one gRPC message.
    ///
    /// # Panics
    /// While [`Summing::step`] has something left.
    pub fn finish(&self, out: &mut Vec<u8>) {
        message(out, |out| {
            self.header.encode(out);
            match &self.what {
                Of::Keys(hashing) => {
                    let Hash { sum, revision, compacted } = hashing.finish();
                    number(2, sum.into(), out);
                    number(3, compacted.0 as u64, out);
                    number(4, revision.0 as u64, out);
                }
                Of::All(hashing) => number(2, hashing.finish().sum.into(), out),
            }
        });
    }
}

/// A question about going back to an older version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Downgrade {
    /// Would it be possible? With major and minor of the version.
    Validate(u64, u64),
    /// Give up one that is under way: there is none, and etcd says nothing else.
    Cancel,
}

/// Validation and a start of it are the same question here, since neither can be said yes to: data
/// directories are our own, which no older etcd reads.
pub(super) fn decode_downgrade(raw: Bytes) -> Result<Work, Status> {
    let request: pb::DowngradeRequest = parse(raw)?;
    let asked = match request.action {
        0 | 1 => {
            let (major, minor) = version(&request.version).ok_or(status::WRONG_VERSION_FORMAT)?;
            Downgrade::Validate(major, minor)
        }
        2 => Downgrade::Cancel,
        _ => return Err(status::UNKNOWN_ACTION),
    };
    Ok(Work::Read { serializable: false, read: Read::Downgrade(asked) })
}

/// Major and minor of a version with or without a patch (etcd `convertToClusterVersion`, which
/// allows what semantic versions do behind it).
fn version(typed: &str) -> Option<(u64, u64)> {
    let known = |c: char| c.is_ascii_alphanumeric() || "-.".contains(c);
    let (rest, build) = typed.split_once('+').unwrap_or((typed, ""));
    let (numbers, before) = rest.split_once('-').unwrap_or((rest, ""));
    let mut parts = numbers.split('.').map(|part| part.parse::<u64>().ok());
    let found = (parts.next()??, parts.next()??);
    let patch = parts.next();
    let whole = matches!(patch, None | Some(Some(_))) && parts.next().is_none();
    (whole && build.chars().all(known) && before.chars().all(known)).then_some(found)
}

impl Downgrade {
    /// # Errors
    /// etcd's, in its order; then that it is not built.
    pub(super) fn answer(
        self,
        view: &View,
        header: Header,
        out: &mut Vec<u8>,
    ) -> Result<(), Status> {
        let now = view.cluster.version.as_deref().and_then(version);
        let (major, minor) = now.ok_or(status::NO_CLUSTER_VERSION)?;
        match self {
            Self::Validate(to_major, to_minor)
                if (to_major, to_minor.checked_add(1)) != (major, Some(minor)) =>
            {
                Err(status::INVALID_DOWNGRADE)
            }
            Self::Validate(..) => Err(Status::not_built("Maintenance.Downgrade")),
            Self::Cancel => {
                message(out, |out| {
                    header.encode(out);
                    bytes(2, format!("{major}.{minor}").as_bytes(), out);
                });
                Ok(())
            }
        }
    }
}

/// Only the server as a whole is known by name, and that name is empty.
pub(super) fn decode_health(raw: Bytes) -> Result<Work, Status> {
    let request: health::HealthCheckRequest = parse(raw)?;
    if !request.service.is_empty() {
        return Err(status::UNKNOWN_HEALTH_SERVICE);
    }
    Ok(Work::Read { serializable: true, read: Read::Health })
}

pub(super) fn serving(out: &mut Vec<u8>) {
    number(1, health::health_check_response::ServingStatus::Serving as u64, out);
}

pub(super) fn alarms(alarms: &[Alarm], header: Header, out: &mut Vec<u8>) {
    header.encode(out);
    for alarm in alarms {
        let member = pb::AlarmMember { member_id: alarm.member.0, alarm: alarm.kind };
        message_field(2, &member, out);
    }
}

/// `Status`; sizes are in bytes.
pub(super) fn status(view: &View, edge: &Edge, header: Header, out: &mut Vec<u8>) {
    header.encode(out);
    let learner = view.is_learner(edge.member);
    let quota =
        if edge.quota_flag_bytes == 0 { QUOTA_BYTES_DEFAULT as i64 } else { edge.quota_flag_bytes };
    let response = pb::StatusResponse {
        header: None,
        version: API_VERSION.to_owned(),
        db_size: view.disk_bytes as i64,
        leader: view.raft.leader.0,
        raft_index: view.raft.committed.0,
        raft_term: view.raft.term.0,
        raft_applied_index: view.applied.0,
        errors: errors(view),
        db_size_in_use: view.live_bytes as i64,
        is_learner: learner,
        storage_version: storage_version(&view.cluster).unwrap_or_default(),
        db_size_quota: quota,
        downgrade_info: Some(pb::DowngradeInfo::default()),
    };
    response.encode(out).expect("a Vec grows");
}

/// Alarms in protobuf's text form, as etcd prints them here.
fn errors(view: &View) -> Vec<String> {
    let no_leader = (view.raft.leader.0 == 0).then(|| status::NO_LEADER.message.into_owned());
    let alarms = view
        .cluster
        .alarms
        .iter()
        .map(|alarm| format!("memberID:{} alarm:{}", alarm.member.0, alarm_name(alarm.kind)));
    no_leader.into_iter().chain(alarms).collect()
}

/// `AlarmType`'s name; the number where it has none, as protobuf prints it.
pub fn alarm_name(kind: i32) -> String {
    match kind {
        ALARM_NOSPACE => "NOSPACE".to_owned(),
        ALARM_CORRUPT => "CORRUPT".to_owned(),
        _ => kind.to_string(),
    }
}
