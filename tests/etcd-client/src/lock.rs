//! The lock and election services, which wait on the server for the client.

use etcd_client::{
    Client, Compare, CompareOp, Error, LockOptions, ProclaimOptions, ResignOptions, Txn, TxnOp,
};

use crate::Tested;

/// gRPC's number for what nobody gave a number.
const UNKNOWN: i32 = 2;

pub async fn all(client: &mut Client) -> Tested {
    one_after_the_other(client).await?;
    of_a_lease_that_is_gone(client).await?;
    elections(client).await?;
    elections_that_are_refused(client).await
}

async fn one_after_the_other(client: &mut Client) -> Tested {
    let [first, second] =
        [client.lease_grant(60, None).await?, client.lease_grant(60, None).await?];
    let options = |id| Some(LockOptions::new().with_lease(id));
    let held = client.lock("lock", options(first.id())).await?;
    assert_eq!(held.key(), format!("lock/{:x}", first.id()).as_bytes());
    // Once more with the same lease is no second lock.
    let again = client.lock("lock", options(first.id())).await?;
    assert_eq!(again.key(), held.key());

    let mut other = client.clone();
    let waiting = options(second.id());
    let waiting = tokio::spawn(async move { other.lock("lock", waiting).await });
    let key = format!("lock/{:x}", second.id());
    while client.get(key.as_str(), None).await?.count() == 0 {
        tokio::task::yield_now().await;
    }
    assert!(!waiting.is_finished());
    let unlocked = client.unlock(held.key()).await?.header().expect("a header").revision();
    let next = waiting.await.expect("it does not panic")?;
    assert_eq!(next.key(), key.as_bytes());
    // The token: every later holder's is larger.
    let created = client.get(next.key(), None).await?.kvs()[0].create_revision();
    assert!(next.header().expect("a header").revision() >= unlocked.max(created));
    let fenced = Txn::new()
        .when([Compare::create_revision(held.key(), CompareOp::Greater, 0)])
        .and_then([TxnOp::put("guarded", "late", None)]);
    assert!(!client.txn(fenced).await?.succeeded(), "the former holder writes");

    client.unlock(next.key()).await?;
    // Without a lease it has one of its own.
    let own = client.lock("lock", None).await?;
    let lease = client.get(own.key(), None).await?.kvs()[0].lease();
    assert_eq!(own.key(), format!("lock/{lease:x}").as_bytes());
    assert_eq!(client.lease_time_to_live(lease, None).await?.granted_ttl(), 60);
    for id in [lease, first.id(), second.id()] {
        client.lease_revoke(id).await?;
    }
    Ok(())
}

async fn of_a_lease_that_is_gone(client: &mut Client) -> Tested {
    let options = LockOptions::new().with_lease(4711);
    refused(client.lock("lock", Some(options)).await, "etcdserver: requested lease not found");
    let [holding, waiting] =
        [client.lease_grant(60, None).await?, client.lease_grant(60, None).await?];
    let held = client.lock("lock", Some(LockOptions::new().with_lease(holding.id()))).await?;
    let mut other = client.clone();
    let options = LockOptions::new().with_lease(waiting.id());
    let lost = tokio::spawn(async move { other.lock("lock", Some(options)).await });
    let key = format!("lock/{:x}", waiting.id());
    while client.get(key.as_str(), None).await?.count() == 0 {
        tokio::task::yield_now().await;
    }
    client.lease_revoke(waiting.id()).await?;
    client.unlock(held.key()).await?;
    refused(lost.await.expect("it does not panic"), "mutex: session is expired");
    client.lease_revoke(holding.id()).await?;
    Ok(())
}

async fn elections(client: &mut Client) -> Tested {
    let [first, second] =
        [client.lease_grant(60, None).await?, client.lease_grant(60, None).await?];
    let won = client.campaign("e", "first", first.id()).await?;
    let leader = won.leader().expect("one is named").clone();
    assert_eq!((leader.name(), leader.lease()), (&b"e"[..], first.id()));
    assert_eq!(leader.key(), format!("e/{:x}", first.id()).as_bytes());
    let created = client.get(leader.key(), None).await?.kvs()[0].create_revision();
    assert_eq!(leader.rev(), created);
    // Only now: etcd begins to answer with the first leader that it sees.
    let mut observer = client.clone().observe("e").await?;
    let mut observed = async || -> Result<Vec<u8>, Error> {
        let leader = observer.message().await?.expect("it goes on");
        Ok(leader.kv().expect("one is named").value().to_vec())
    };
    assert_eq!(observed().await?, b"first");

    let mut other = client.clone();
    let id = second.id();
    let waiting = tokio::spawn(async move { other.campaign("e", "second", id).await });
    client.proclaim("new", Some(ProclaimOptions::new().with_leader(leader.clone()))).await?;
    assert_eq!(observed().await?, b"new");
    assert_eq!(client.leader("e").await?.kv().expect("one is named").value(), b"new");
    assert!(!waiting.is_finished());
    client.resign(Some(ResignOptions::new().with_leader(leader.clone()))).await?;
    let next = waiting.await.expect("it does not panic")?;
    assert_eq!(next.leader().expect("one is named").lease(), id);
    assert_eq!(observed().await?, b"second");
    let late = client.proclaim("late", Some(ProclaimOptions::new().with_leader(leader))).await;
    refused(late, "election: not leader");
    for id in [first.id(), id] {
        client.lease_revoke(id).await?;
    }
    refused(client.leader("e").await, "election: no leader");
    Ok(())
}

async fn elections_that_are_refused(client: &mut Client) -> Tested {
    refused(client.leader("nobody").await, "election: no leader");
    refused(client.proclaim("v", None).await, "\"leader\" field must be provided");
    refused(client.resign(None).await, "\"leader\" field must be provided");
    refused(client.campaign("e", "v", 4711).await, "etcdserver: requested lease not found");
    Ok(())
}

/// Refused with this text, which is all that these two services say: never a code.
#[track_caller]
fn refused<T>(done: Result<T, Error>, says: &str) {
    match done {
        Err(Error::GRpcStatus(status)) => {
            assert_eq!((status.code() as i32, status.message()), (UNKNOWN, says));
        }
        Err(other) => panic!("{other} instead of {says}"),
        Ok(_) => panic!("success instead of {says}"),
    }
}
