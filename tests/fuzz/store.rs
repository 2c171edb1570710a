//! What the store reads: entries of the log, and the blob in a superblock.

use super::{
    api::request,
    memory::bounded,
    mutate::{Dice, fuzz},
};
use ringleader::{
    api::method::METHODS,
    store::{
        Alarm, Cluster, Command, Member,
        command::{self, Body, Expired, MemberChange, field},
        encode_lease_checkpoint, encode_lease_grant, encode_lease_revoke,
    },
    types::{Index, LeaseId, MemberId, Term, Ticket},
};

const FIELDS: [u32; 10] = [
    field::PUT,
    field::DELETE_RANGE,
    field::TXN,
    field::COMPACTION,
    field::LEASE_GRANT,
    field::LEASE_REVOKE,
    field::ALARM,
    field::LEASE_CHECKPOINT,
    field::CLUSTER_VERSION_SET,
    field::CLUSTER_MEMBER_ATTR_SET,
];

/// Requests behind each other, as a turn packs them.
fn entry(dice: &mut Dice) -> (Vec<u8>, Vec<Ticket>) {
    let (mut data, mut tickets) = (Vec::new(), Vec::new());
    for _ in 0..1 + dice.below(4) {
        let ticket = Ticket(dice.number());
        let (method, tag) = (*dice.pick(&METHODS), *dice.pick(&FIELDS));
        command::append(&mut data, ticket, &command::body(tag, &request(method, dice)));
        tickets.push(ticket);
    }
    (data, tickets)
}

fn read(data: Vec<u8>) -> Vec<Result<Command, command::BadEntry>> {
    command::commands(data.into()).collect()
}

#[test]
fn entries() {
    fuzz("log entry", |dice| {
        let (mut data, tickets) = entry(dice);
        let commands = read(data.clone());
        let found = commands.iter().filter_map(|one| one.as_ref().ok()).map(|one| one.ticket);
        assert!(found.zip(&tickets).all(|(found, ticket)| found == *ticket));

        dice.spoil(&mut data);
        // A message of two bytes may become an operation of a few hundred.
        let commands = bounded(data.len(), 600, || read(data.clone()));
        let errors = commands.iter().filter(|one| one.is_err()).count();
        assert!(errors == 0 || errors == 1 && commands.last().is_some_and(Result::is_err));
        assert_eq!(commands, read(data), "every member reads the same");
    });
}

#[test]
fn alarms_and_bodies_read_back() {
    fuzz("log command", |dice| {
        let order = command::AlarmOrder {
            action: *dice.pick(&[
                command::AlarmAction::Get,
                command::AlarmAction::Activate,
                command::AlarmAction::Deactivate,
            ]),
            member: MemberId(dice.number()),
            kind: dice.below(3) as i32,
        };
        let ticket = Ticket(dice.number());
        let mut data = Vec::new();
        command::append(&mut data, ticket, &order.encode());
        assert_eq!(read(data), [Ok(Command { ticket, body: Body::Alarm(order) })]);
    });
}

#[test]
fn leases_read_back() {
    fuzz("lease command", |dice| {
        let (id, seconds) = (LeaseId(dice.number() as i64), dice.number() as i64);
        let expired = Expired { term: Term(dice.number()), applied: Index(dice.number()) };
        let expired = dice.once_in(2).then_some(expired);
        let seen: Vec<_> = (0..dice.below(4))
            .map(|_| (LeaseId(dice.number() as i64), dice.number() as i64))
            .collect();
        let bodies = [
            (encode_lease_grant(id, seconds), Body::LeaseGrant { id, ttl: seconds }),
            (encode_lease_revoke(id, expired), Body::LeaseRevoke { id, expired }),
            (encode_lease_checkpoint(&seen), Body::LeaseCheckpoint(seen)),
        ];
        for (encoded, body) in bodies {
            let (ticket, mut data) = (Ticket(dice.number()), Vec::new());
            command::append(&mut data, ticket, &encoded);
            assert_eq!(read(data.clone()), [Ok(Command { ticket, body })]);
            dice.spoil(&mut data);
            let commands = bounded(data.len(), 600, || read(data.clone()));
            assert_eq!(commands, read(data), "every member reads the same");
        }
    });
}

/// etcd's decoder sees a plain revocation in one that carries what our leader knew.
#[test]
fn etcd_passes_over_the_term_of_a_revocation() {
    use prost::Message;
    let expired = Expired { term: Term(1 << 40), applied: Index(1 << 50) };
    let body = encode_lease_revoke(LeaseId(-3), Some(expired));
    let request = proto::etcdserverpb::LeaseRevokeRequest::decode(&body[2..]);
    assert_eq!(request, Ok(proto::etcdserverpb::LeaseRevokeRequest { id: -3 }));
}

fn text(dice: &mut Dice) -> String {
    String::from_utf8_lossy(&dice.bytes(12)).into_owned()
}

fn texts(dice: &mut Dice) -> Vec<String> {
    (0..dice.below(3)).map(|_| text(dice)).collect()
}

fn member(dice: &mut Dice) -> Member {
    Member {
        id: MemberId(dice.number()),
        name: text(dice),
        peer_urls: texts(dice),
        client_urls: texts(dice),
        learner: dice.once_in(2),
    }
}

fn change(dice: &mut Dice) -> MemberChange {
    let id = MemberId(dice.number());
    match dice.below(4) {
        0 => MemberChange::Add(member(dice)),
        1 => MemberChange::Remove(id),
        2 => MemberChange::Update { id, peer_urls: texts(dice) },
        _ => MemberChange::Promote(id),
    }
}

#[test]
fn changes_of_members() {
    fuzz("change of members", |dice| {
        let (ticket, change) = (Ticket(dice.number()), change(dice));
        let mut data = change.encode(ticket).to_vec();
        assert_eq!(MemberChange::decode(data.clone().into()), Ok((ticket, change)));
        dice.spoil(&mut data);
        let read = bounded(data.len(), 600, || MemberChange::decode(data.clone().into()));
        if let Ok((ticket, change)) = read {
            assert_eq!(MemberChange::decode(change.encode(ticket)), Ok((ticket, change)));
        }
    });
}

fn cluster(dice: &mut Dice) -> Cluster {
    let mut cluster = Cluster::default();
    for _ in 0..dice.below(4) {
        let member = member(dice);
        cluster.members.insert(member.id, member);
        cluster
            .alarms
            .insert(Alarm { kind: dice.below(3) as i32, member: MemberId(dice.number()) });
    }
    cluster.version = Some(text(dice)).filter(|version| !version.is_empty());
    cluster.removed = (0..dice.below(4)).map(|_| MemberId(dice.number())).collect();
    cluster
}

#[test]
fn cluster_blobs() {
    fuzz("cluster blob", |dice| {
        let cluster = cluster(dice);
        let mut blob = cluster.encode().to_vec();
        assert_eq!(Cluster::decode(&blob).as_ref(), Ok(&cluster));
        dice.spoil(&mut blob);
        if let Ok(read) = bounded(blob.len(), 600, || Cluster::decode(&blob)) {
            assert_eq!(Cluster::decode(&read.encode()), Ok(read));
        }
    });
}
