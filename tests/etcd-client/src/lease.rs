//! Leases: granted, attached, renewed, asked about, revoked, run out.

use std::time::{Duration, Instant};

use etcd_client::{
    Client, Error, EventType, LeaseGrantOptions, LeaseTimeToLiveOptions, PutOptions,
};

use crate::{Tested, expect};

pub async fn all(client: &mut Client) -> Tested {
    granted_and_revoked(client).await?;
    renewed(client).await?;
    run_out(client).await?;
    refused(client).await
}

async fn granted_and_revoked(client: &mut Client) -> Tested {
    let lease = client.lease_grant(600, Some(LeaseGrantOptions::new().with_id(42))).await?;
    assert_eq!((lease.id(), lease.ttl(), lease.error()), (42, 600, ""));
    let chosen = client.lease_grant(500, None).await?;
    assert!(chosen.id() > 0);
    let attach = |id| Some(PutOptions::new().with_lease(id));
    for key in ["l/a", "l/b", "l/c"] {
        client.put(key, "", attach(42)).await?;
    }
    client.put("l/b", "", attach(chosen.id())).await?;
    client.put("l/c", "", Some(PutOptions::new().with_ignore_lease())).await?;
    assert_eq!(client.get("l/c", None).await?.kvs()[0].lease(), 42);
    let keys = Some(LeaseTimeToLiveOptions::new().with_keys());
    let about = client.lease_time_to_live(42, keys.clone()).await?;
    assert_eq!((about.id(), about.granted_ttl()), (42, 600));
    assert!((500..=600).contains(&about.ttl()), "{}", about.ttl());
    let mut attached: Vec<_> = about.keys().to_vec();
    attached.sort();
    assert_eq!(attached, [b"l/a", b"l/c"]);
    let ids: Vec<_> = client.leases().await?.leases().iter().map(|lease| lease.id()).collect();
    // That which ends first is named first.
    assert_eq!(ids, [chosen.id(), 42]);

    let before = client.get("l/a", None).await?.header().expect("a header").revision();
    let revoked = client.lease_revoke(42).await?;
    // All its keys go as one revision.
    assert_eq!(revoked.header().expect("a header").revision(), before + 1);
    assert_eq!(client.get("l/b", None).await?.count(), 1);
    assert_eq!(client.get("l/c", None).await?.count(), 0);
    let gone = client.lease_time_to_live(42, keys).await?;
    assert_eq!((gone.ttl(), gone.granted_ttl(), gone.keys().len()), (-1, 0, 0));
    client.lease_revoke(chosen.id()).await?;
    Ok(())
}

async fn renewed(client: &mut Client) -> Tested {
    let lease = client.lease_grant(2, None).await?;
    client.put("alive", "", Some(PutOptions::new().with_lease(lease.id()))).await?;
    let (mut keeper, mut stream) = client.lease_keep_alive(lease.id()).await?;
    for _ in 0..8 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        keeper.keep_alive().await?;
        let answer = stream.message().await?.expect("each renewal is answered");
        assert_eq!((answer.id(), answer.ttl()), (lease.id(), 2));
    }
    assert_eq!(client.get("alive", None).await?.count(), 1);
    client.lease_revoke(lease.id()).await?;
    keeper.keep_alive().await?;
    let answer = stream.message().await?.expect("each renewal is answered");
    assert_eq!((answer.id(), answer.ttl()), (lease.id(), 0));
    Ok(())
}

async fn run_out(client: &mut Client) -> Tested {
    let begun = Instant::now();
    let lease = client.lease_grant(2, None).await?;
    client.put("short", "", Some(PutOptions::new().with_lease(lease.id()))).await?;
    let (_watcher, mut stream) = client.watch("short", None).await?;
    let response = stream.message().await?.expect("a watch has no end of its own");
    assert_eq!(response.events()[0].event_type(), EventType::Delete);
    assert!(begun.elapsed() >= Duration::from_secs(2), "gone after {:?}", begun.elapsed());
    Ok(())
}

async fn refused(client: &mut Client) -> Tested {
    let same = Some(LeaseGrantOptions::new().with_id(43));
    client.lease_grant(600, same.clone()).await?;
    expect(client.lease_grant(600, same).await, "lease already exists");
    client.lease_revoke(43).await?;
    expect(client.lease_revoke(43).await, "requested lease not found");
    expect(client.lease_grant(9_000_000_001, None).await, "too large lease TTL");
    let dead = client.lease_keep_alive(43).await;
    assert!(matches!(dead, Err(Error::LeaseKeepAliveError(_))), "a TTL of 0 is the answer");
    Ok(())
}
