//! History and what follows, filters, several watchers on one stream, progress, cancels, compaction.

use etcd_client::{
    Client, Event, EventType, WatchFilterType, WatchOptions, WatchResponse, WatchStream,
};

use crate::Tested;

pub async fn all(client: &mut Client) -> Tested {
    history_and_what_follows(client).await?;
    several_on_one_stream(client).await?;
    a_compacted_revision(client).await
}

async fn next(stream: &mut WatchStream) -> Result<WatchResponse, etcd_client::Error> {
    Ok(stream.message().await?.expect("a watch has no end of its own"))
}

/// So many events, however they are divided into responses.
async fn take(stream: &mut WatchStream, count: usize) -> Result<Vec<Event>, etcd_client::Error> {
    let mut events = vec![];
    while events.len() < count {
        events.extend_from_slice(next(stream).await?.events());
    }
    assert_eq!(events.len(), count);
    Ok(events)
}

fn told(event: &Event) -> (EventType, &str, &str) {
    let kv = event.kv().expect("an event is of a key");
    (event.event_type(), kv.key_str().expect("text"), kv.value_str().expect("text"))
}

async fn history_and_what_follows(client: &mut Client) -> Tested {
    let first = client.put("w/a", "1", None).await?.header().expect("a header").revision();
    client.put("w/b", "1", None).await?;
    client.put("w/a", "2", None).await?;
    let options = WatchOptions::new().with_prefix().with_prev_key().with_start_revision(first);
    let (_watcher, mut stream) = client.watch("w/", Some(options)).await?;
    let events = take(&mut stream, 3).await?;
    let expected =
        [("w/a", "1"), ("w/b", "1"), ("w/a", "2")].map(|(key, value)| (EventType::Put, key, value));
    assert_eq!(events.iter().map(told).collect::<Vec<_>>(), expected);
    assert!(events[0].prev_kv().is_none());
    assert_eq!(events[2].prev_kv().expect("there was one").value(), b"1");
    client.delete("w/a", None).await?;
    client.put("x", "not watched", None).await?;
    client.put("w/c", "1", None).await?;
    let events = take(&mut stream, 2).await?;
    assert_eq!(told(&events[0]), (EventType::Delete, "w/a", ""));
    assert_eq!(events[0].prev_kv().expect("there was one").value(), b"2");
    assert_eq!(told(&events[1]), (EventType::Put, "w/c", "1"));
    Ok(())
}

async fn several_on_one_stream(client: &mut Client) -> Tested {
    let (mut first, mut stream) = client.watch("s/a", None).await?;
    assert_eq!(first.watch_id(), 0);
    let range = WatchOptions::new().with_range("s/c").with_filters([WatchFilterType::NoPut]);
    first.watch("s/a", Some(range)).await?;
    let created = next(&mut stream).await?;
    assert_eq!((created.created(), created.watch_id()), (true, 1));
    first.watch("s/a", Some(WatchOptions::new().with_watch_id(7).with_progress_notify())).await?;
    let created = next(&mut stream).await?;
    assert_eq!((created.created(), created.watch_id()), (true, 7));
    first.watch("s/b", Some(WatchOptions::new().with_watch_id(7))).await?;
    let twice = next(&mut stream).await?;
    assert_eq!((twice.created(), twice.canceled(), twice.watch_id()), (true, true, -1));
    assert_eq!(twice.cancel_reason(), "mvcc: duplicate watch ID provided on the WatchStream");

    client.put("s/a", "1", None).await?;
    let mut seen = vec![next(&mut stream).await?.watch_id(), next(&mut stream).await?.watch_id()];
    seen.sort_unstable();
    assert_eq!(seen, [0, 7]);
    first.cancel().await?;
    let canceled = next(&mut stream).await?;
    assert_eq!((canceled.canceled(), canceled.watch_id()), (true, 0));
    let gone = client.delete("s/a", None).await?;
    let mut seen = vec![next(&mut stream).await?.watch_id(), next(&mut stream).await?.watch_id()];
    seen.sort_unstable();
    assert_eq!(seen, [1, 7]);
    first.request_progress().await?;
    let progress = next(&mut stream).await?;
    assert_eq!((progress.watch_id(), progress.events().len()), (-1, 0));
    let [told, was] = [progress.header(), gone.header()].map(|header| header.expect("a header"));
    assert_eq!(told.revision(), was.revision());
    Ok(())
}

async fn a_compacted_revision(client: &mut Client) -> Tested {
    let first = client.put("c/w", "1", None).await?.header().expect("a header").revision();
    let last = client.put("c/w", "2", None).await?.header().expect("a header").revision();
    client.compact(last, None).await?;
    let options = WatchOptions::new().with_start_revision(first);
    let (watcher, mut stream) = client.watch("c/w", Some(options)).await?;
    let canceled = next(&mut stream).await?;
    assert_eq!((canceled.canceled(), canceled.watch_id()), (true, watcher.watch_id()));
    assert_eq!((canceled.compact_revision(), canceled.cancel_reason()), (last, ""));
    Ok(())
}
