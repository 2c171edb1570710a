//! The paths of etcd's RPCs. Those that are not built say so; unknown ones get grpc-go's words.

use proto::{
    etcdserverpb::{auth, cluster, kv, lease, maintenance, watch},
    health, v3electionpb, v3lockpb,
};

use super::status::{Code, Status};

/// An RPC that is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// `KV.Range`.
    Range,
    /// `KV.RangeStream`: the answer is a stream.
    RangeStream,
    /// `KV.Put`.
    Put,
    /// `KV.DeleteRange`.
    DeleteRange,
    /// `KV.Txn`.
    Txn,
    /// `KV.Compact`.
    Compact,
    /// `Lease.LeaseGrant`.
    LeaseGrant,
    /// `Lease.LeaseRevoke`.
    LeaseRevoke,
    /// `Lease.LeaseTimeToLive`.
    LeaseTimeToLive,
    /// `Lease.LeaseLeases`.
    LeaseLeases,
    /// `Lease.LeaseKeepAlive`: request and answer are streams.
    LeaseKeepAlive,
    /// `Watch.Watch`: request and answer are streams.
    Watch,
    /// `Lock.Lock`.
    Lock,
    /// `Lock.Unlock`.
    Unlock,
    /// `Election.Campaign`.
    Campaign,
    /// `Election.Proclaim`.
    Proclaim,
    /// `Election.Leader`.
    Leader,
    /// `Election.Observe`: the answer is a stream.
    Observe,
    /// `Election.Resign`.
    Resign,
    /// `Cluster.MemberList`.
    MemberList,
    /// `Cluster.MemberAdd`.
    MemberAdd,
    /// `Cluster.MemberRemove`.
    MemberRemove,
    /// `Cluster.MemberUpdate`.
    MemberUpdate,
    /// `Cluster.MemberPromote`.
    MemberPromote,
    /// `Maintenance.Alarm`.
    Alarm,
    /// `Maintenance.Status`.
    Status,
    /// `Maintenance.Defragment`.
    Defragment,
    /// `Maintenance.Hash`.
    Hash,
    /// `Maintenance.HashKV`.
    HashKv,
    /// `Maintenance.MoveLeader`.
    MoveLeader,
    /// `Maintenance.Downgrade`.
    Downgrade,
    /// `grpc.health.v1.Health/Check`.
    HealthCheck,
}

/// Every method that is built, by its number.
pub const METHODS: [Method; 32] = [
    Method::Range,
    Method::RangeStream,
    Method::Put,
    Method::DeleteRange,
    Method::Txn,
    Method::Compact,
    Method::LeaseGrant,
    Method::LeaseRevoke,
    Method::LeaseTimeToLive,
    Method::LeaseLeases,
    Method::LeaseKeepAlive,
    Method::Watch,
    Method::Lock,
    Method::Unlock,
    Method::Campaign,
    Method::Proclaim,
    Method::Leader,
    Method::Observe,
    Method::Resign,
    Method::MemberList,
    Method::MemberAdd,
    Method::MemberRemove,
    Method::MemberUpdate,
    Method::MemberPromote,
    Method::Alarm,
    Method::Status,
    Method::Defragment,
    Method::Hash,
    Method::HashKv,
    Method::MoveLeader,
    Method::Downgrade,
    Method::HealthCheck,
];

impl Method {
    /// What the labels `grpc_type`, `grpc_service` and `grpc_method` of etcd's metrics say of it.
    pub fn labels(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Range => ("unary", "etcdserverpb.KV", "Range"),
            Self::RangeStream => ("server_stream", "etcdserverpb.KV", "RangeStream"),
            Self::Put => ("unary", "etcdserverpb.KV", "Put"),
            Self::DeleteRange => ("unary", "etcdserverpb.KV", "DeleteRange"),
            Self::Txn => ("unary", "etcdserverpb.KV", "Txn"),
            Self::Compact => ("unary", "etcdserverpb.KV", "Compact"),
            Self::LeaseGrant => ("unary", "etcdserverpb.Lease", "LeaseGrant"),
            Self::LeaseRevoke => ("unary", "etcdserverpb.Lease", "LeaseRevoke"),
            Self::LeaseTimeToLive => ("unary", "etcdserverpb.Lease", "LeaseTimeToLive"),
            Self::LeaseLeases => ("unary", "etcdserverpb.Lease", "LeaseLeases"),
            Self::LeaseKeepAlive => ("bidi_stream", "etcdserverpb.Lease", "LeaseKeepAlive"),
            Self::Watch => ("bidi_stream", "etcdserverpb.Watch", "Watch"),
            Self::Lock => ("unary", "v3lockpb.Lock", "Lock"),
            Self::Unlock => ("unary", "v3lockpb.Lock", "Unlock"),
            Self::Campaign => ("unary", "v3electionpb.Election", "Campaign"),
            Self::Proclaim => ("unary", "v3electionpb.Election", "Proclaim"),
            Self::Leader => ("unary", "v3electionpb.Election", "Leader"),
            Self::Observe => ("server_stream", "v3electionpb.Election", "Observe"),
            Self::Resign => ("unary", "v3electionpb.Election", "Resign"),
            Self::MemberList => ("unary", "etcdserverpb.Cluster", "MemberList"),
            Self::MemberAdd => ("unary", "etcdserverpb.Cluster", "MemberAdd"),
            Self::MemberRemove => ("unary", "etcdserverpb.Cluster", "MemberRemove"),
            Self::MemberUpdate => ("unary", "etcdserverpb.Cluster", "MemberUpdate"),
            Self::MemberPromote => ("unary", "etcdserverpb.Cluster", "MemberPromote"),
            Self::Alarm => ("unary", "etcdserverpb.Maintenance", "Alarm"),
            Self::Status => ("unary", "etcdserverpb.Maintenance", "Status"),
            Self::Defragment => ("unary", "etcdserverpb.Maintenance", "Defragment"),
            Self::Hash => ("unary", "etcdserverpb.Maintenance", "Hash"),
            Self::HashKv => ("unary", "etcdserverpb.Maintenance", "HashKV"),
            Self::MoveLeader => ("unary", "etcdserverpb.Maintenance", "MoveLeader"),
            Self::Downgrade => ("unary", "etcdserverpb.Maintenance", "Downgrade"),
            Self::HealthCheck => ("unary", "grpc.health.v1.Health", "Check"),
        }
    }

    /// What `:path` names.
    ///
    /// # Errors
    /// Unimplemented: not built yet, or unknown.
    pub fn parse(path: &str) -> Result<Self, Status> {
        Ok(match path {
            kv::PUT => Self::Put,
            kv::RANGE => Self::Range,
            kv::TXN => Self::Txn,
            kv::DELETE_RANGE => Self::DeleteRange,
            kv::COMPACT => Self::Compact,
            kv::RANGE_STREAM => Self::RangeStream,
            lease::LEASE_GRANT => Self::LeaseGrant,
            lease::LEASE_REVOKE => Self::LeaseRevoke,
            lease::LEASE_TIME_TO_LIVE => Self::LeaseTimeToLive,
            lease::LEASE_LEASES => Self::LeaseLeases,
            lease::LEASE_KEEP_ALIVE => Self::LeaseKeepAlive,
            watch::WATCH => Self::Watch,
            v3lockpb::lock::LOCK => Self::Lock,
            v3lockpb::lock::UNLOCK => Self::Unlock,
            v3electionpb::election::CAMPAIGN => Self::Campaign,
            v3electionpb::election::PROCLAIM => Self::Proclaim,
            v3electionpb::election::LEADER => Self::Leader,
            v3electionpb::election::OBSERVE => Self::Observe,
            v3electionpb::election::RESIGN => Self::Resign,
            cluster::MEMBER_LIST => Self::MemberList,
            cluster::MEMBER_ADD => Self::MemberAdd,
            cluster::MEMBER_REMOVE => Self::MemberRemove,
            cluster::MEMBER_UPDATE => Self::MemberUpdate,
            cluster::MEMBER_PROMOTE => Self::MemberPromote,
            maintenance::ALARM => Self::Alarm,
            maintenance::STATUS => Self::Status,
            maintenance::DEFRAGMENT => Self::Defragment,
            maintenance::HASH => Self::Hash,
            maintenance::HASH_KV => Self::HashKv,
            maintenance::MOVE_LEADER => Self::MoveLeader,
            maintenance::DOWNGRADE => Self::Downgrade,
            health::health::CHECK => Self::HealthCheck,
            _ => return Err(refuse(path)),
        })
    }
}

/// Whether a path is an RPC whose request is a stream of messages, so that it is taken before the
/// client has said everything.
pub fn takes_stream(path: &str) -> bool {
    matches!(path, watch::WATCH | lease::LEASE_KEEP_ALIVE)
}

/// What each service that is not wholly built still lacks.
const NOT_BUILT: &[(&str, &[&str])] = &[
    ("etcdserverpb.Watch", &[]),
    ("etcdserverpb.Lease", &[]),
    ("etcdserverpb.Cluster", &[]),
    ("etcdserverpb.Maintenance", &[maintenance::SNAPSHOT]),
    (
        "etcdserverpb.Auth",
        &[
            auth::AUTH_ENABLE,
            auth::AUTH_DISABLE,
            auth::AUTH_STATUS,
            auth::AUTHENTICATE,
            auth::USER_ADD,
            auth::USER_GET,
            auth::USER_LIST,
            auth::USER_DELETE,
            auth::USER_CHANGE_PASSWORD,
            auth::USER_GRANT_ROLE,
            auth::USER_REVOKE_ROLE,
            auth::ROLE_ADD,
            auth::ROLE_GET,
            auth::ROLE_LIST,
            auth::ROLE_DELETE,
            auth::ROLE_GRANT_PERMISSION,
            auth::ROLE_REVOKE_PERMISSION,
        ],
    ),
    ("v3lockpb.Lock", &[]),
    ("v3electionpb.Election", &[]),
    ("grpc.health.v1.Health", &[health::health::WATCH]),
    ("etcdserverpb.KV", &[]),
];

/// Why a path is not a [`Method`] (the texts for unknown ones are grpc-go's `server.go`).
fn refuse(path: &str) -> Status {
    let Some((service, method)) = path.strip_prefix('/').and_then(|p| p.rsplit_once('/')) else {
        return Status::made(Code::Unimplemented, format!("malformed method name: {path:?}"));
    };
    match NOT_BUILT.iter().find(|(name, _)| *name == service) {
        None => Status::made(Code::Unimplemented, format!("unknown service {service}")),
        Some((_, methods)) if methods.contains(&path) => {
            let (_, service) = service.rsplit_once('.').unwrap_or(("", service));
            Status::not_built(&format!("{service}.{method}"))
        }
        Some(_) => {
            let message = format!("unknown method {method} for service {service}");
            Status::made(Code::Unimplemented, message)
        }
    }
}
