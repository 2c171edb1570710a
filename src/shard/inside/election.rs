//! `v3electionpb.Election`: as a lock, with a value that the holder proclaims and others observe.

use super::{Inside, Watching, framed, keys, revision};
use crate::{
    api::{
        Method,
        kv::parse,
        status::{Code, Status},
    },
    shard::http2::{Answers, Responder},
};
use bytes::Bytes;
use futures_lite::future;
use proto::{
    etcdserverpb::{self as pb, request_op::Request},
    mvccpb::KeyValue,
    v3electionpb::{
        CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, LeaderResponse,
        ProclaimRequest, ProclaimResponse, ResignRequest, ResignResponse,
    },
};

/// The request does not say for whom.
const NO_LEADER_KEY: Status = Status::new(Code::Unknown, "\"leader\" field must be provided");
/// Somebody else leads, or nobody.
const NOT_LEADER: Status = Status::new(Code::Unknown, "election: not leader");
/// Nobody leads.
const NO_LEADER: Status = Status::new(Code::Unknown, "election: no leader");

/// Stands for election and waits until it is won.
pub(super) async fn campaign(
    inside: &Inside,
    request: CampaignRequest,
) -> Result<CampaignResponse, Status> {
    let lease = inside.session(request.lease).await?;
    let prefix = keys::prefix(&request.name);
    let key = keys::own(&prefix, lease);
    let txn = pb::TxnRequest {
        compare: vec![keys::created_at(&key, 0)],
        success: vec![keys::op(Request::RequestPut(keys::put(&key, request.value.clone(), lease)))],
        failure: vec![keys::op(Request::RequestRange(keys::get(&key)))],
    };
    let done: pb::TxnResponse = inside.call(Method::Txn, &txn).await?;
    let own = keys::found(&done, 0).filter(|_| !done.succeeded);
    let rev = own.map_or(revision(done.header.as_ref()), |own| own.create_revision);
    let leader = LeaderKey { name: request.name, key, rev, lease };
    let mut candidacy = Candidacy { inside: Some(inside.clone()), leader: leader.clone() };
    if own.is_some_and(|own| own.value != request.value) {
        write(inside, &leader, lease, request.value).await?;
    }
    let won = inside.wait_until_first(&prefix, rev - 1).await;
    // etcd gives a candidacy up where its client does, not where waiting fails.
    candidacy.inside = None;
    won?;
    Ok(CampaignResponse { header: done.header, leader: Some(leader) })
}

/// Changes the leader's value.
pub(super) async fn proclaim(
    inside: &Inside,
    request: ProclaimRequest,
) -> Result<ProclaimResponse, Status> {
    let leader = request.leader.ok_or(NO_LEADER_KEY)?;
    let lease = inside.session(leader.lease).await?;
    let header = write(inside, &leader, lease, request.value).await?;
    Ok(ProclaimResponse { header })
}

/// Writes the leader's value while its key is the one that was won with.
async fn write(
    inside: &Inside,
    leader: &LeaderKey,
    lease: i64,
    value: Bytes,
) -> Result<Option<pb::ResponseHeader>, Status> {
    let txn = pb::TxnRequest {
        compare: vec![keys::created_at(&leader.key, leader.rev)],
        success: vec![keys::op(Request::RequestPut(keys::put(&leader.key, value, lease)))],
        failure: Vec::new(),
    };
    let done: pb::TxnResponse = inside.call(Method::Txn, &txn).await?;
    if done.succeeded { Ok(done.header) } else { Err(NOT_LEADER) }
}

/// Who leads.
pub(super) async fn leader(
    inside: &Inside,
    request: LeaderRequest,
) -> Result<LeaderResponse, Status> {
    let prefix = keys::prefix(&request.name);
    let found: pb::RangeResponse =
        inside.call(Method::Range, &keys::created_first(&prefix)).await?;
    let kv = found.kvs.into_iter().next().ok_or(NO_LEADER)?;
    Ok(LeaderResponse { header: found.header, kv: Some(kv) })
}

/// Steps down; where somebody else leads by now, nothing happens.
pub(super) async fn resign(
    inside: &Inside,
    request: ResignRequest,
) -> Result<ResignResponse, Status> {
    let leader = request.leader.ok_or(NO_LEADER_KEY)?;
    let done = withdraw(inside, &leader).await?;
    Ok(ResignResponse { header: done.header })
}

async fn withdraw(inside: &Inside, leader: &LeaderKey) -> Result<pb::TxnResponse, Status> {
    let txn = pb::TxnRequest {
        compare: vec![keys::created_at(&leader.key, leader.rev)],
        success: vec![keys::op(Request::RequestDeleteRange(keys::delete(&leader.key)))],
        failure: Vec::new(),
    };
    inside.call(Method::Txn, &txn).await
}

/// A key among the candidates, withdrawn when its client goes away or fails before waiting.
struct Candidacy {
    inside: Option<Inside>,
    leader: LeaderKey,
}

impl Drop for Candidacy {
    fn drop(&mut self) {
        let Some(inside) = self.inside.take() else { return };
        let leader = self.leader.clone();
        glommio::spawn_local(async move {
            // Where that fails too, the lease ends the key's life.
            let _failed = withdraw(&inside, &leader).await.is_err();
        })
        .detach();
    }
}

/// `Observe`: each value of each leader, from now on. A value that was replaced before it could be
/// sent may be missing, the newest never is.
pub(super) struct Observed {
    inside: Inside,
    prefix: Bytes,
}

impl Observed {
    pub(super) fn new(inside: Inside, message: Bytes) -> Result<Self, Status> {
        let request: LeaderRequest = parse(message)?;
        Ok(Self { inside, prefix: keys::prefix(&request.name) })
    }

    /// Runs until the client goes away. What breaks it otherwise ends the stream without an error,
    /// as in etcd: clients then ask again.
    pub(super) async fn run(self, respond: Responder) {
        let Some(mut answers) = respond.open() else { return };
        let _over = self.observe(&mut answers).await;
        answers.finish(None);
    }

    async fn observe(&self, answers: &mut Answers) -> Option<()> {
        loop {
            let query = keys::created_first(&self.prefix);
            let found: pb::RangeResponse = self.inside.call(Method::Range, &query).await.ok()?;
            let (header, kv) = match found.kvs.into_iter().next() {
                Some(kv) => (found.header?, kv),
                None => self.first(answers, found.header?.revision).await?,
            };
            let rest = keys::watch_one(&kv.key, header.revision + 1);
            send(answers, header, kv).await?;
            self.follow(answers, rest).await?;
        }
    }

    /// The first candidate at `from` or later.
    async fn first(
        &self,
        answers: &mut Answers,
        from: i64,
    ) -> Option<(pb::ResponseHeader, KeyValue)> {
        let mut watching = self.inside.watch(keys::watch_all(&self.prefix, from)).ok()?;
        loop {
            let news = next(&mut watching, answers).await?;
            let put = news.events.into_iter().find(|event| !keys::is_deletion(event));
            if let Some(kv) = put.and_then(|event| event.kv) {
                return Some((
                    pb::ResponseHeader { revision: kv.mod_revision, ..news.header? },
                    kv,
                ));
            }
        }
    }

    /// Sends what the leader proclaims, until its key is deleted.
    async fn follow(&self, answers: &mut Answers, rest: pb::WatchCreateRequest) -> Option<()> {
        let mut watching = self.inside.watch(rest).ok()?;
        loop {
            let news = next(&mut watching, answers).await?;
            for event in news.events {
                if keys::is_deletion(&event) {
                    return Some(());
                }
                send(answers, news.header?, event.kv?).await?;
            }
        }
    }
}

async fn send(answers: &mut Answers, header: pb::ResponseHeader, kv: KeyValue) -> Option<()> {
    let response = LeaderResponse { header: Some(header), kv: Some(kv) };
    answers.send(framed(&response)).await.ok()
}

/// The next events, or nothing once either side is gone.
async fn next(watching: &mut Watching, answers: &mut Answers) -> Option<pb::WatchResponse> {
    let news = async { watching.next().await.ok() };
    let gone = async {
        answers.closed().await;
        None
    };
    future::or(news, gone).await
}
