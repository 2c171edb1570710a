//! The server as its own client: the services `v3lockpb.Lock` and `v3electionpb.Election`.
//!
//! Both are recipes over keys, leases and watches, so they are written as a client would write
//! them: [`Inside::call`] and [`Inside::watch`] go the same ways as requests from a socket, with the
//! same checks and limits. etcd does so too (`v3client`), which shows in two places: a refusal of a
//! call inside reaches the client with its own sentence but code Unknown, and lease 0 means a new
//! lease of a minute that nobody keeps alive.
//!
//! ```text
//! client ─ Lock ─ lock.rs ─ Inside ─┬ call ─ session ─ node
//!                                   └ watch ─ Watches
//! ```

mod election;
mod keys;
mod lock;

use super::{Shard, http2::Responder, session::Respond, watch::StreamId};
use crate::{
    api::{
        Method,
        encode::{self, PREFIX_BYTES},
        kv::parse,
        status::{self, Code, Status},
    },
    limits::SESSION_TTL_SECONDS,
    net::Promise,
};
use bytes::Bytes;
use futures_lite::future;
use prost::Message;
use proto::etcdserverpb as pb;
use std::rc::Rc;

/// Serves one call of the two services. It may wait for as long as somebody else holds the lock;
/// a client that goes away meanwhile gives its place in the queue up.
pub async fn serve(shard: Rc<Shard>, method: Method, message: Bytes, mut respond: Responder) {
    let inside = Inside { shard };
    if method == Method::Observe {
        return match election::Observed::new(inside.clone(), message) {
            Ok(observed) => observed.run(respond).await,
            Err(status) => inside.shard.refuse(method, respond.into(), &status),
        };
    }
    let work = async { Some(unary(&inside, method, message).await) };
    let gone = async {
        respond.closed().await;
        None
    };
    let said = future::or(work, gone).await;
    let said = said.unwrap_or(Err(status::CANCELED));
    inside.shard.respond(method, respond.into(), said);
}

async fn unary(inside: &Inside, method: Method, message: Bytes) -> Result<Bytes, Status> {
    match method {
        Method::Lock => Ok(framed(&lock::lock(inside, parse(message)?).await?)),
        Method::Unlock => Ok(framed(&lock::unlock(inside, parse(message)?).await?)),
        Method::Campaign => Ok(framed(&election::campaign(inside, parse(message)?).await?)),
        Method::Proclaim => Ok(framed(&election::proclaim(inside, parse(message)?).await?)),
        Method::Leader => Ok(framed(&election::leader(inside, parse(message)?).await?)),
        Method::Resign => Ok(framed(&election::resign(inside, parse(message)?).await?)),
        _ => unreachable!("only the calls of these services come here"),
    }
}

fn framed(message: &impl Message) -> Bytes {
    let mut out = Vec::with_capacity(PREFIX_BYTES + message.encoded_len());
    encode::message(&mut out, |out| message.encode(out).expect("a vector grows"));
    out.into()
}

/// A client without a socket.
#[derive(Clone)]
struct Inside {
    shard: Rc<Shard>,
}

impl Inside {
    /// One unary call.
    ///
    /// # Errors
    /// What a client would be told, with code Unknown.
    async fn call<R: Message + Default>(
        &self,
        method: Method,
        request: &impl Message,
    ) -> Result<R, Status> {
        let promise = Rc::new(Promise::default());
        self.shard.judge(method, request.encode_to_vec().into(), Respond::Inside(promise.clone()));
        self.shard.flush();
        let answer = promise.wait().await.map_err(unknown)?;
        Ok(R::decode(&answer[PREFIX_BYTES..]).expect("the server's own answers are whole"))
    }

    /// The lease that a key of this call belongs to: the client's own, or a new one.
    async fn session(&self, lease: i64) -> Result<i64, Status> {
        if lease != 0 {
            return Ok(lease);
        }
        let grant = pb::LeaseGrantRequest { ttl: SESSION_TTL_SECONDS, id: 0 };
        let granted: pb::LeaseGrantResponse = self.call(Method::LeaseGrant, &grant).await?;
        Ok(granted.id)
    }

    /// A watch of its own.
    ///
    /// # Errors
    /// The shard has as many streams as it may.
    fn watch(&self, create: pb::WatchCreateRequest) -> Result<Watching, Status> {
        let changed = Rc::new(Promise::default());
        let stream = self.shard.watch_inside(create, changed.clone()).map_err(unknown)?;
        Ok(Watching { inside: self.clone(), stream, changed })
    }

    /// Waits until every key of `prefix` that was created at `newest` or before is deleted.
    async fn wait_until_first(&self, prefix: &Bytes, newest: i64) -> Result<(), Status> {
        loop {
            let mut query = keys::created_last(prefix);
            query.max_create_revision = newest;
            let found: pb::RangeResponse = self.call(Method::Range, &query).await?;
            let Some(before) = found.kvs.first() else { return Ok(()) };
            self.wait_for_deletion(&before.key, revision(found.header.as_ref())).await?;
        }
    }

    /// Waits for the deletion of `key` at `from` or later.
    async fn wait_for_deletion(&self, key: &Bytes, from: i64) -> Result<(), Status> {
        let mut watching = self.watch(keys::watch_one(key, from))?;
        loop {
            let news = watching.next().await?;
            if news.events.iter().any(keys::is_deletion) {
                return Ok(());
            }
        }
    }
}

/// etcd's own client takes the code off.
fn unknown(status: Status) -> Status {
    Status { code: Code::Unknown as u8, ..status }
}

fn revision(header: Option<&pb::ResponseHeader>) -> i64 {
    header.map_or(0, |header| header.revision)
}

/// A watch of the server's own; it ends when dropped.
struct Watching {
    inside: Inside,
    stream: StreamId,
    /// Something lies in its queue.
    changed: Rc<Promise<()>>,
}

impl Watching {
    /// The next events.
    ///
    /// # Errors
    /// What ended the watch, with code Unknown.
    async fn next(&mut self) -> Result<pb::WatchResponse, Status> {
        loop {
            while let Some(message) = self.inside.shard.watch_message(self.stream) {
                let response = pb::WatchResponse::decode(message.slice(PREFIX_BYTES..))
                    .expect("the server's own answers are whole");
                if response.canceled && response.compact_revision != 0 {
                    return Err(unknown(status::COMPACTED));
                }
                if response.canceled {
                    return Err(Status::made(Code::Unknown, response.cancel_reason));
                }
                if !response.events.is_empty() {
                    return Ok(response);
                }
            }
            self.changed.wait().await;
        }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.inside.shard.close_watch(self.stream);
    }
}
