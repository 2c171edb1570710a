//! Every call of a member by way of the `etcd-client` crate, which nobody here wrote: keys and the
//! cluster here, watches, leases, locks and elections beside. `$ENDPOINT` is a fresh server.

mod lease;
mod lock;
mod watch;

use etcd_client::{
    Client, CompactionOptions, Compare, CompareOp, DeleteOptions, Error, GetOptions, PutOptions,
    SortOrder, SortTarget, Txn, TxnOp,
};

type Tested = Result<(), Error>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Tested {
    let endpoint = std::env::var("ENDPOINT").expect("$ENDPOINT names a server");
    let mut client = Client::connect([endpoint], None).await?;
    puts_and_gets(&mut client).await?;
    ranges(&mut client).await?;
    transactions(&mut client).await?;
    deletes(&mut client).await?;
    compactions(&mut client).await?;
    errors(&mut client).await?;
    the_cluster(&mut client).await?;
    watch::all(&mut client).await?;
    lease::all(&mut client).await?;
    lock::all(&mut client).await?;
    println!("etcd-client: all as expected");
    Ok(())
}

async fn puts_and_gets(client: &mut Client) -> Tested {
    let first = client.put("k", "1", None).await?;
    let options = PutOptions::new().with_prev_key();
    let second = client.put("k", "2", Some(options)).await?;
    assert_eq!(second.prev_key().expect("there was one").value(), b"1");
    let [first, second] = [first, second].map(|put| put.header().expect("a header").revision());
    assert_eq!(second, first + 1);

    let got = client.get("k", None).await?;
    let kv = &got.kvs()[0];
    assert_eq!((kv.value(), kv.version(), kv.lease()), (&b"2"[..], 2, 0));
    assert_eq!((kv.create_revision(), kv.mod_revision()), (first, second));
    let old = client.get("k", Some(GetOptions::new().with_revision(first))).await?;
    assert_eq!(old.kvs()[0].value(), b"1");
    let none = client.get("nothing", None).await?;
    assert_eq!((none.count(), none.kvs().len()), (0, 0));
    let options = GetOptions::new().with_serializable();
    assert_eq!(client.get("k", Some(options)).await?.count(), 1);

    client.put("k", "", Some(PutOptions::new().with_ignore_lease())).await?;
    client.put("k", "", Some(PutOptions::new().with_ignore_value())).await?;
    assert_eq!(client.get("k", None).await?.kvs()[0].version(), 4);
    Ok(())
}

async fn ranges(client: &mut Client) -> Tested {
    for number in 0..20 {
        client.put(format!("p/{number:02}"), format!("{}", 20 - number), None).await?;
    }
    let prefix = GetOptions::new().with_prefix();
    let all = client.get("p/", Some(prefix.clone())).await?;
    assert_eq!((all.count(), all.kvs().len(), all.more()), (20, 20, false));
    let some = client.get("p/", Some(prefix.clone().with_limit(3))).await?;
    assert_eq!((some.count(), some.kvs().len(), some.more()), (20, 3, true));
    let count = client.get("p/", Some(prefix.clone().with_count_only())).await?;
    assert_eq!((count.count(), count.kvs().len()), (20, 0));
    let keys = client.get("p/", Some(prefix.clone().with_keys_only())).await?;
    assert!(keys.kvs().iter().all(|kv| kv.value().is_empty()));
    let sorted = prefix.with_sort(SortTarget::Mod, SortOrder::Descend);
    let sorted = client.get("p/", Some(sorted)).await?;
    assert_eq!(sorted.kvs()[0].key(), b"p/19");
    let options = GetOptions::new().with_range("p/05");
    assert_eq!(client.get("p/02", Some(options)).await?.count(), 3);
    let options = GetOptions::new().with_from_key();
    assert_eq!(client.get("p/18", Some(options)).await?.count(), 2);
    let options = GetOptions::new().with_all_keys();
    assert_eq!(client.get("", Some(options)).await?.count(), 21);
    Ok(())
}

async fn transactions(client: &mut Client) -> Tested {
    let txn = Txn::new()
        .when([Compare::version("t", CompareOp::Equal, 0)])
        .and_then([TxnOp::put("t", "1", None), TxnOp::get("t", None)])
        .or_else([TxnOp::get("t", None), TxnOp::delete("t", None)]);
    let first = client.txn(txn.clone()).await?;
    assert!(first.succeeded());
    assert_eq!(first.op_responses().len(), 2);
    assert!(!client.txn(txn.clone()).await?.succeeded());
    assert!(client.txn(txn.clone()).await?.succeeded());

    let inner = Txn::new()
        .when([Compare::value("t", CompareOp::Equal, "1")])
        .and_then([TxnOp::put("inner", "1", None)]);
    let outer = Txn::new().and_then([TxnOp::txn(inner), TxnOp::put("outer", "1", None)]);
    assert!(client.txn(outer).await?.succeeded());
    let [inner, outer] = [client.get("inner", None).await?, client.get("outer", None).await?];
    assert_eq!(inner.kvs()[0].mod_revision(), outer.kvs()[0].mod_revision());
    Ok(())
}

async fn deletes(client: &mut Client) -> Tested {
    let options = DeleteOptions::new().with_prefix().with_prev_key();
    let gone = client.delete("p/", Some(options.clone())).await?;
    assert_eq!((gone.deleted(), gone.prev_kvs().len()), (20, 20));
    let revision = gone.header().expect("a header").revision();
    let again = client.delete("p/", Some(options)).await?;
    assert_eq!((again.deleted(), again.header().expect("a header").revision()), (0, revision));
    Ok(())
}

async fn compactions(client: &mut Client) -> Tested {
    let put = client.put("c", "1", None).await?;
    let revision = put.header().expect("a header").revision();
    client.compact(revision, Some(CompactionOptions::new().with_physical())).await?;
    let old = GetOptions::new().with_revision(revision - 1);
    expect(client.get("c", Some(old)).await, "mvcc: required revision has been compacted");
    expect(client.compact(revision, None).await, "mvcc: required revision has been compacted");
    expect(
        client.compact(revision + 1, None).await,
        "mvcc: required revision is a future revision",
    );
    Ok(())
}

async fn errors(client: &mut Client) -> Tested {
    expect(client.put("", "v", None).await, "key is not provided");
    let options = PutOptions::new().with_lease(4711);
    expect(client.put("k", "v", Some(options)).await, "requested lease not found");
    let options = PutOptions::new().with_ignore_value();
    expect(client.put("nothing", "", Some(options)).await, "key not found");
    let twice = Txn::new().and_then([TxnOp::put("k", "1", None), TxnOp::put("k", "2", None)]);
    expect(client.txn(twice).await, "duplicate key given in txn request");
    let large = vec![b'x'; 1_600_000];
    expect(client.put("k", large, None).await, "request is too large");
    Ok(())
}

/// The error says this, after etcd's name.
#[track_caller]
fn expect<T>(done: Result<T, Error>, says: &str) {
    match done {
        Err(Error::GRpcStatus(status)) => {
            assert_eq!(status.message(), format!("etcdserver: {says}"))
        }
        Err(other) => panic!("{other} instead of {says}"),
        Ok(_) => panic!("success instead of {says}"),
    }
}

async fn the_cluster(client: &mut Client) -> Tested {
    let status = client.status().await?;
    assert_eq!(status.version(), "3.7.1");
    let member = status.header().expect("a header").member_id();
    assert_eq!((status.leader(), status.is_learner()), (member, false));
    assert!(status.db_size() > 0);
    let members = client.member_list().await?;
    assert_eq!((members.members().len(), members.members()[0].id()), (1, member));
    Ok(())
}
