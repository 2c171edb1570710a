//! The services `Maintenance` and `Health`, as far as they are built.

use bytes::Bytes;
use prost::Message;
use proto::{etcdserverpb as pb, health};

use super::{
    API_VERSION, Edge, Header, Read, Status, Work,
    encode::{message_field, number},
    http::storage_version,
    kv::{parse, propose},
    status,
};
use crate::{
    limits::QUOTA_BYTES_DEFAULT,
    store::{ALARM_CORRUPT, ALARM_NOSPACE, Alarm, View, command::field},
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
    let learner = view.cluster.members.get(&edge.member).is_some_and(|member| member.learner);
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
