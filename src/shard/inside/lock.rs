//! `v3lockpb.Lock`: a queue of keys in order of their creation; the first holds the lock.
//!
//! The fencing token of a lock is the **creation revision of the returned key**: it rises with every
//! holder, and anybody can check it in a transaction (`CreateRevision(key) = token`), which fails
//! from the moment the key is deleted or its lease is gone.

use super::{Inside, keys, revision};
use crate::api::{
    Method,
    status::{Code, Status},
};
use bytes::Bytes;
use proto::{
    etcdserverpb::{self as pb, request_op::Request},
    v3lockpb::{LockRequest, LockResponse, UnlockRequest, UnlockResponse},
};

/// The lease ran out while its key waited.
const SESSION_EXPIRED: Status = Status::new(Code::Unknown, "mutex: session is expired");

/// Joins the queue and waits for the front. A lease that has its key in the queue already keeps its
/// place, so asking again is safe.
pub(super) async fn lock(inside: &Inside, request: LockRequest) -> Result<LockResponse, Status> {
    let lease = inside.session(request.lease).await?;
    let prefix = keys::prefix(&request.name);
    let key = keys::own(&prefix, lease);
    let owner = keys::op(Request::RequestRange(keys::created_first(&prefix)));
    let txn = pb::TxnRequest {
        compare: vec![keys::created_at(&key, 0)],
        success: vec![
            keys::op(Request::RequestPut(keys::put(&key, Bytes::new(), lease))),
            owner.clone(),
        ],
        failure: vec![keys::op(Request::RequestRange(keys::get(&key))), owner],
    };
    let done: pb::TxnResponse = inside.call(Method::Txn, &txn).await?;
    let created = match keys::found(&done, 0) {
        Some(own) if !done.succeeded => own.create_revision,
        _ => revision(done.header.as_ref()),
    };
    if keys::found(&done, 1).is_none_or(|owner| owner.create_revision == created) {
        return Ok(LockResponse { header: done.header, key });
    }
    let place = Place { inside: Some(inside.clone()), key: key.clone() };
    inside.wait_until_first(&prefix, created - 1).await?;
    let own: pb::RangeResponse = inside.call(Method::Range, &keys::get(&key)).await?;
    place.keep();
    if own.kvs.is_empty() {
        return Err(SESSION_EXPIRED);
    }
    Ok(LockResponse { header: own.header, key })
}

/// Deletes the key, whoever holds it.
pub(super) async fn unlock(
    inside: &Inside,
    request: UnlockRequest,
) -> Result<UnlockResponse, Status> {
    let delete = keys::delete(&request.key);
    let deleted: pb::DeleteRangeResponse = inside.call(Method::DeleteRange, &delete).await?;
    Ok(UnlockResponse { header: deleted.header })
}

/// A place in the queue, given up when its caller goes away or fails while waiting.
struct Place {
    inside: Option<Inside>,
    key: Bytes,
}

impl Place {
    fn keep(mut self) {
        self.inside = None;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(inside) = self.inside.take() else { return };
        let delete = keys::delete(&self.key);
        glommio::spawn_local(async move {
            // Where the deletion fails too, the lease ends the key's life.
            let _failed =
                inside.call::<pb::DeleteRangeResponse>(Method::DeleteRange, &delete).await.is_err();
        })
        .detach();
    }
}
