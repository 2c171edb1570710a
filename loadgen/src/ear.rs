//! What one watch stream hears. Each watcher must get each event once and in order; a value that
//! begins with when it was put tells how long that took.

use std::time::Duration;

use proto::etcdserverpb::{WatchCreateRequest, WatchRequest, watch_request::RequestUnion};

use crate::{
    grpc::{self, Status, Verdict, code},
    h2::Event,
    hdrlog::LoggedTally,
    link::{Failure, Link},
    notice, ops,
};

/// What all watchers have heard, and what they should not have.
#[derive(Default)]
pub struct Heard {
    pub(crate) created: usize,
    pub(crate) events: u64,
    /// From put to event, of the puts that say when they were sent.
    pub(crate) latency: LoggedTally,
    pub(crate) wrong: Option<String>,
    /// Only puts sent since then have a latency, and events that come since then count.
    pub(crate) from: Duration,
}

impl Heard {
    /// How many events came.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// How many of them said when they were put.
    pub fn timed(&self) -> u64 {
        self.latency.tally.done()
    }

    fn take(&mut self, stamp: Option<u64>, now: Duration) {
        self.events += u64::from(now >= self.from);
        if let Some(sent) = stamp.map(Duration::from_nanos).filter(|sent| *sent >= self.from) {
            self.latency.add(now.saturating_sub(sent), Ok(()));
        }
    }
}

/// One watch stream.
pub(crate) struct Ear {
    held: Vec<u8>,
    /// Of each watcher, by its id: the revision of its newest event.
    newest: Vec<i64>,
    /// Whether its events are counted.
    counts: bool,
    verdict: Verdict,
    over: Option<Status>,
}

impl Ear {
    /// Opens a stream with so many watchers of a prefix.
    pub(crate) fn open(
        link: &mut Link,
        tag: usize,
        head: &[u8],
        create: &WatchRequest,
        watchers: usize,
        counts: bool,
    ) -> Result<Self, Failure> {
        let stream = link.connection.open(tag, head)?;
        link.connection.send(stream, &grpc::body(create).repeat(watchers));
        let (held, newest) = (Vec::new(), vec![0; watchers]);
        Ok(Self { held, newest, counts, verdict: Verdict::default(), over: None })
    }

    pub(crate) fn on(&mut self, event: Event<'_>, now: Duration, heard: &mut Heard) {
        match event {
            Event::Headers(fields) => self.verdict.add(fields),
            Event::Data(bytes) => {
                let Self { held, newest, counts, .. } = self;
                let message = |message: &[u8]| take_response(message, newest, *counts, now, heard);
                self.over = grpc::each_message(held, bytes, message).err();
            }
            Event::End => {
                let ended = Status::new(code::UNKNOWN, "a watch stream ended by itself");
                self.over = Some(self.verdict.read().err().unwrap_or(ended));
            }
            Event::Reset(code) => self.over = Some(grpc::reset(code)),
        }
    }

    /// Why it ended, where it did.
    pub(crate) fn over(&self) -> Option<&Status> {
        self.over.as_ref()
    }

    /// Whether each watcher has an event of this revision or a later one.
    pub(crate) fn is_at(&self, revision: i64) -> bool {
        self.newest.iter().all(|newest| *newest >= revision)
    }
}

fn take_response(
    message: &[u8],
    newest: &mut [i64],
    counts: bool,
    now: Duration,
    heard: &mut Heard,
) {
    let notice = notice::watch(message, |id, event| {
        let newest = usize::try_from(id).ok().and_then(|id| newest.get_mut(id));
        let Some(newest) = newest.filter(|newest| **newest < event.revision) else {
            heard.wrong = Some(format!("watcher {id} got revision {} too late", event.revision));
            return;
        };
        *newest = event.revision;
        if counts {
            heard.take(event.stamp, now);
        }
    });
    heard.created += usize::from(notice.created);
    if notice.canceled {
        heard.wrong = Some(format!("watcher {} was cancelled", notice.watch_id));
    }
}

/// Watches all keys that begin so.
pub(crate) fn create(prefix: &str, prev_kv: bool) -> WatchRequest {
    let key = prefix.to_owned().into();
    let range_end = ops::end(prefix.as_bytes());
    let create = WatchCreateRequest { key, range_end, prev_kv, ..Default::default() };
    WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }
}
