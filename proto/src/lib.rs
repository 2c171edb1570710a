//! etcd's messages as prost structs, generated from the `.proto` files in `etcd/` and committed.
//!
//! One module a package, under the package's own name. Beside its messages a module holds, for
//! each service, the paths of its methods: [`etcdserverpb::kv::PUT`] is `/etcdserverpb.KV/Put`.
//! Every `bytes` field is a [`prost::bytes::Bytes`], so decoding from one copies no keys and values.
//!
//! The code is kept true by `tests/fresh.rs`; never edit it by hand.

#[allow(missing_docs, clippy::all)]
#[rustfmt::skip]
pub mod mvccpb;
#[allow(missing_docs, clippy::all)]
#[rustfmt::skip]
pub mod authpb;
#[allow(missing_docs, clippy::all)]
#[rustfmt::skip]
pub mod raftpb;
#[allow(missing_docs, clippy::all)]
#[rustfmt::skip]
pub mod leasepb;
#[allow(missing_docs, clippy::all)]
#[rustfmt::skip]
pub mod membershippb;
#[allow(missing_docs, clippy::all)]
#[rustfmt::skip]
pub mod etcdserverpb;
#[allow(missing_docs, clippy::all)]
#[rustfmt::skip]
pub mod v3lockpb;
#[allow(missing_docs, clippy::all)]
#[rustfmt::skip]
pub mod v3electionpb;
/// `grpc.health.v1`.
#[allow(missing_docs, clippy::all)]
#[rustfmt::skip]
pub mod health;
