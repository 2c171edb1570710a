//! What only the leader can answer, asked of it (etcd `LeaseRenew`, `LeaseTimeToLive`,
//! `PromoteMember` on a follower): again and again, of whoever leads, until there is an answer or
//! time is up.

use super::{
    Room,
    calls::{self, Answer},
    link::Link,
};
use crate::{
    io::Clock,
    limits::{PEER_FORWARD_RETRY, PEER_FORWARDS_MAX},
    mesh::{Forward, FromPeer, LeaseAsk, LeaseTime, Reply, ToNode},
    net::Authority,
    store::Unavailable,
    types::{LeaseId, MemberId, Ticket},
};
use prost::Message as _;
use proto::{etcdserverpb as pb, leasepb};
use std::{rc::Rc, time::Duration};

/// Begins to ask; the node hears what comes of it.
pub fn forward(room: &Rc<Room>, ticket: Ticket, to: MemberId, what: Forward) {
    if room.forwards.get() >= PEER_FORWARDS_MAX {
        let reply = Reply::Unavailable(Unavailable::TooManyRequests);
        return room.desk.tell(FromPeer::Answered { ticket, reply });
    }
    room.forwards.set(room.forwards.get() + 1);
    let room = room.clone();
    let asking = async move {
        let reply = ask(&room, to, &what).await;
        room.forwards.set(room.forwards.get() - 1);
        room.desk.tell(FromPeer::Answered { ticket, reply });
    };
    glommio::spawn_local(asking).detach();
}

async fn ask(room: &Rc<Room>, to: MemberId, what: &Forward) -> Reply {
    let until = room.clock.now() + room.request_timeout;
    let mut leader = to;
    loop {
        if let Some(reply) = ask_once(room, leader, what, until).await {
            return reply;
        }
        if room.clock.now() >= until {
            return Reply::Unavailable(Unavailable::Timeout);
        }
        glommio::timer::sleep(PEER_FORWARD_RETRY).await;
        leader = room.newest.load().raft.leader;
    }
}

/// `None` where nobody answers or the answer is not one: another try may bring it.
async fn ask_once(
    room: &Rc<Room>,
    leader: MemberId,
    what: &Forward,
    until: Duration,
) -> Option<Reply> {
    if leader == room.who.member {
        // It has come to lead itself.
        let Forward::Lease(ask) = *what else { return None };
        let reply = room.desk.ask(until, |ticket| ToNode::Lease { ticket, ask }).wait().await?;
        return (!matches!(reply, Reply::Unavailable(_))).then_some(reply);
    }
    let link = room.link(leader)?;
    let request = request(room, &link.place()?, what)?;
    let answer = answered(room, &link, request).await?;
    understood(&answer, what)
}

async fn answered(room: &Rc<Room>, link: &Rc<Link>, request: Vec<u8>) -> Option<Answer> {
    calls::call(room, link, request).wait().await.ok()
}

/// `None` for what a member does not ask another.
fn request(room: &Room, place: &Authority, what: &Forward) -> Option<Vec<u8>> {
    let (path, body) = match *what {
        Forward::Lease(LeaseAsk::Renew(id)) => {
            ("/leases".to_owned(), pb::LeaseKeepAliveRequest { id: id.0 }.encode_to_vec())
        }
        Forward::Lease(LeaseAsk::Remaining(id)) => {
            let asked = pb::LeaseTimeToLiveRequest { id: id.0, keys: false };
            let asked = leasepb::LeaseInternalRequest { lease_time_to_live_request: Some(asked) };
            ("/leases/internal".to_owned(), asked.encode_to_vec())
        }
        Forward::Lease(LeaseAsk::List) => return None,
        Forward::Promote(member) => (format!("/members/promote/{}", member.0), Vec::new()),
    };
    Some(calls::with_body(room, &path, place, &body))
}

/// What an answer says; `None` when it says nothing that a client can be told.
fn understood(answer: &Answer, what: &Forward) -> Option<Reply> {
    match *what {
        Forward::Lease(LeaseAsk::Renew(id)) => renewed(answer, id).map(Reply::Renewed),
        Forward::Lease(LeaseAsk::Remaining(id)) => remaining(answer, id).map(Reply::Remaining),
        Forward::Lease(LeaseAsk::List) | Forward::Promote(_) => None,
    }
}

fn renewed(answer: &Answer, id: LeaseId) -> Option<Option<i64>> {
    match answer.status {
        404 => Some(None),
        200 => {
            let said = pb::LeaseKeepAliveResponse::decode(answer.body.clone()).ok()?;
            (said.id == id.0).then_some(Some(said.ttl))
        }
        _ => None,
    }
}

fn remaining(answer: &Answer, id: LeaseId) -> Option<Option<LeaseTime>> {
    match answer.status {
        404 => Some(None),
        200 => {
            let said = leasepb::LeaseInternalResponse::decode(answer.body.clone()).ok()?;
            let said = said.lease_time_to_live_response?;
            let remaining = Duration::from_secs(u64::try_from(said.ttl).unwrap_or(0));
            let time = LeaseTime { granted: said.granted_ttl, remaining };
            (said.id == id.0).then_some(Some(time))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: Vec<u8>) -> Answer {
        Answer { status, body: body.into() }
    }

    #[test]
    fn answers_about_leases_are_understood_or_asked_for_again() {
        let id = LeaseId(7);
        let said = pb::LeaseKeepAliveResponse { header: None, id: 7, ttl: 9 }.encode_to_vec();
        assert_eq!(renewed(&answer(200, said.clone()), id), Some(Some(9)));
        assert_eq!(renewed(&answer(200, said.clone()), LeaseId(8)), None, "another lease's");
        assert_eq!(renewed(&answer(404, vec![]), id), Some(None));
        for status in [400, 408, 500, 503] {
            assert_eq!(renewed(&answer(status, said.clone()), id), None);
        }
        assert_eq!(renewed(&answer(200, vec![0xff]), id), None);
        assert_eq!(remaining(&answer(200, vec![]), id), None);
        assert_eq!(remaining(&answer(404, vec![]), id), Some(None));
    }
}
