//! What only the leader can answer, asked of it (etcd `LeaseRenew`, `LeaseTimeToLive`,
//! `PromoteMember` on a follower): again and again, of whoever leads, until there is an answer or
//! time is up.

use super::{
    Room,
    calls::{self, Answer},
    link::Link,
    serve::{LEARNER_NOT_READY, NOT_LEARNER},
};
use crate::{
    api::http::read_members,
    io::Clock,
    limits::{PEER_FORWARD_RETRY, PEER_FORWARDS_MAX, PEER_LEADER_RETRY},
    mesh::{Forward, FromPeer, LeaseAsk, LeaseTime, Reply, ToNode},
    net::Authority,
    store::{Outcome, Refusal, Unavailable, command::MemberChange},
    types::{LeaseId, MemberId, Ticket},
};
use prost::Message as _;
use proto::{etcdserverpb as pb, leasepb};
use std::{rc::Rc, time::Duration};

/// Begins to ask; the node hears what comes of it.
pub fn forward(room: &Rc<Room>, ticket: Ticket, to: MemberId, what: Forward) {
    let refusal = if room.desk.drew(ticket) {
        // Another member asked this one as the leader: it finds the leader itself.
        Some(Unavailable::NotLeader)
    } else if room.forwards.get() >= PEER_FORWARDS_MAX {
        Some(Unavailable::TooManyRequests)
    } else {
        None
    };
    if let Some(why) = refusal {
        let reply = Reply::Unavailable(why);
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
            let why = if leader.0 == 0 { Unavailable::NoLeader } else { Unavailable::Timeout };
            return Reply::Unavailable(why);
        }
        let pause = if leader.0 == 0 { PEER_LEADER_RETRY } else { PEER_FORWARD_RETRY };
        glommio::timer::sleep(pause).await;
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
        let asked = room.desk.ask(until, |ticket| match *what {
            Forward::Lease(ask) => ToNode::Lease { ticket, ask },
            Forward::Promote(id) => ToNode::Change { ticket, change: MemberChange::Promote(id) },
        });
        let reply = asked.wait().await?;
        let ask_again =
            matches!(reply, Reply::Unavailable(why) if why != Unavailable::LearnerNotReady);
        return (!ask_again).then_some(reply);
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
        Forward::Lease(LeaseAsk::List) => None,
        Forward::Promote(member) => promoted(answer, member),
    }
}

/// etcd's two refusals of one status are told apart by their sentences, as etcd does.
fn promoted(answer: &Answer, member: MemberId) -> Option<Reply> {
    let says = |what: &str| answer.body.windows(what.len()).any(|part| part == what.as_bytes());
    let refused = |why| Some(Reply::Applied(Outcome::Refused(why)));
    match answer.status {
        200 => {
            let members = read_members(&answer.body)?;
            let known = members.iter().any(|known| known.id == member);
            known.then_some(Reply::Applied(Outcome::Members { members, added: None }))
        }
        404 => refused(Refusal::MemberNotFound),
        412 if says(LEARNER_NOT_READY) => Some(Reply::Unavailable(Unavailable::LearnerNotReady)),
        412 if says(NOT_LEARNER) => refused(Refusal::NotLearner),
        _ => None,
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
    fn refusals_to_promote_are_told_apart_by_their_sentences() {
        let said = |status, text: &str| {
            format!("{:?}", promoted(&answer(status, text.as_bytes().to_vec()), MemberId(1)))
        };
        assert!(said(412, LEARNER_NOT_READY).contains("LearnerNotReady"));
        assert!(said(412, NOT_LEARNER).contains("Refused(NotLearner)"));
        assert!(said(404, "").contains("MemberNotFound"));
        assert!(said(200, r#"[{"id":1,"peerURLs":[]}]"#).contains("Members"));
        for (status, text) in [(412, "cluster ID mismatch"), (200, "[]"), (500, NOT_LEARNER)] {
            assert_eq!(said(status, text), "None");
        }
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
