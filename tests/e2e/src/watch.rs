//! A watch stream of one client, and what every such stream promises, checked as it is read.

use std::time::Duration;

use loadgen::{
    client::{Client, Duplex},
    grpc::{Status, code},
};
use proto::{
    etcdserverpb::{
        WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse, watch,
        watch_request::RequestUnion,
    },
    mvccpb::Event,
};

/// The end of the range of all keys that begin with this.
///
/// # Panics
/// Where there is none.
pub fn prefix_end(prefix: &str) -> String {
    let mut end = prefix.to_owned();
    let last = end.pop().expect("a prefix is not empty");
    end.push(char::from_u32(last as u32 + 1).expect("tests use plain letters"));
    end
}

/// All keys that begin with this, from this revision on; 0 is now.
pub fn prefix(prefix: &str, start_revision: i64) -> WatchCreateRequest {
    WatchCreateRequest {
        key: prefix.to_owned().into(),
        range_end: prefix_end(prefix).into(),
        start_revision,
        ..Default::default()
    }
}

/// What one message of the client says.
pub fn request(union: RequestUnion) -> WatchRequest {
    WatchRequest { request_union: Some(union) }
}

/// A stream with one watcher.
pub struct Watch {
    stream: Duplex,
    /// All of this revision and before was delivered.
    delivered: i64,
}

impl Watch {
    /// Opens the stream and waits until the watcher is there.
    ///
    /// # Errors
    /// What the server or the connection said.
    pub fn open(client: Client, create: WatchCreateRequest) -> Result<Self, Status> {
        let delivered = (create.start_revision - 1).max(0);
        let mut stream = client.duplex(watch::WATCH)?;
        stream.send(&request(RequestUnion::CreateRequest(create)))?;
        let created: WatchResponse = answer(stream.next(TIMEOUT)?)?;
        assert!(created.created && !created.canceled, "not created: {created:?}");
        Ok(Self { stream, delivered })
    }

    /// Asks how far it got; [`Self::next`] takes the answer.
    ///
    /// # Errors
    /// What the connection said.
    pub fn ask_progress(&mut self) -> Result<(), Status> {
        self.stream.send(&request(RequestUnion::ProgressRequest(WatchProgressRequest {})))
    }

    /// Everything up to here was delivered: a later watch goes on at the revision after it.
    pub fn delivered(&self) -> i64 {
        self.delivered
    }

    /// The events of the next response; none of a progress.
    ///
    /// # Errors
    /// What the server or the connection said.
    ///
    /// # Panics
    /// Where an event comes again, too late or in parts.
    pub fn next(&mut self, timeout: Duration) -> Result<Vec<Event>, Status> {
        let response: WatchResponse = answer(self.stream.next(timeout)?)?;
        assert!(!response.canceled && !response.created, "neither was asked for: {response:?}");
        let header = response.header.expect("a response has a header").revision;
        let mut last = self.delivered;
        for event in &response.events {
            let revision = event.kv.as_ref().expect("an event is of a key").mod_revision;
            // Of those of this response, equal ones may follow each other.
            let in_order = revision > self.delivered && revision >= last;
            assert!(in_order, "revision {revision} after {last}, of {} before", self.delivered);
            last = revision;
        }
        assert!(header >= last, "a header of revision {header} with an event of {last}");
        let progress = response.events.is_empty();
        self.delivered = if progress { header.max(last) } else { last };
        Ok(response.events)
    }
}

/// How long a stream may take to open.
const TIMEOUT: Duration = Duration::from_secs(20);

fn answer(response: Option<WatchResponse>) -> Result<WatchResponse, Status> {
    response.ok_or(Status::new(code::INTERNAL, "a watch ended by itself"))
}
