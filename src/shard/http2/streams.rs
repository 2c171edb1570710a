//! The open streams of a connection.
//!
//! Numbers only rise, so a queue in their order is a map: a new one goes to the back, and most that
//! end stand near the front. One long stream at the front (a watch) costs the others nothing.

use super::{head::Metadata, incoming::Incoming};
use crate::shard::Place;
use bytes::{Buf, Bytes, BytesMut, buf::Chain};
use std::{collections::VecDeque, rc::Rc};

/// One stream, from its headers until our last frame on it, or a reset.
pub struct Stream {
    /// Its number.
    pub id: u32,
    /// What the client still has to send; `None` once it has ended its side.
    pub receiving: Option<Receiving>,
    /// What the client lets us send beyond SETTINGS_INITIAL_WINDOW_SIZE; below zero as it is used
    /// up. Kept apart from that setting so that changing it touches no stream.
    pub credit: i64,
    /// Our headers have gone out.
    pub headed: bool,
    /// Somebody may wait for what happens to it.
    pub awaited: bool,
    /// What has come of a request that is a stream of messages, for as long as we may answer it.
    pub incoming: Option<Box<Incoming>>,
    /// What waits for a window, or for room on the way out.
    pub sending: Option<Box<Sending>>,
}

/// A request on its way in.
pub struct Receiving {
    /// `:path`.
    pub path: Rc<str>,
    /// What else the headers say.
    pub metadata: Metadata,
    /// What the client may still send without a WINDOW_UPDATE.
    pub window: i64,
    /// Bytes of body that `content-length` has promised and that have not come.
    pub promised: Option<u64>,
    /// Only for the body of a unary request, and only if it did not come in one frame.
    pub gathered: Option<Box<Gathered>>,
}

/// A body in parts.
#[derive(Default)]
pub struct Gathered {
    /// What has come.
    pub bytes: BytesMut,
    /// Its place among the shard's unfinished requests, once it has outlasted one read.
    pub place: Option<Place>,
}

/// The rest of a reply.
pub struct Sending {
    /// Rest of the message: what is its stream's own, then what it may share with others.
    pub unsent: Chain<Bytes, Bytes>,
    /// The trailers that end the stream behind it, where they are known.
    pub trailers: Option<Vec<u8>>,
}

impl Default for Sending {
    fn default() -> Self {
        Self { unsent: Bytes::new().chain(Bytes::new()), trailers: None }
    }
}

impl Stream {
    /// Whether part of a message waits.
    pub fn is_stalled(&self) -> bool {
        self.sending.as_ref().is_some_and(|sending| sending.unsent.has_remaining())
    }

    /// Whether the last word is said, though it may wait to be sent.
    pub fn is_finished(&self) -> bool {
        self.sending.as_ref().is_some_and(|sending| sending.trailers.is_some())
    }
}

/// See the module.
#[derive(Default)]
pub struct Streams(VecDeque<Stream>);

impl Streams {
    /// Where a stream stands.
    pub fn find(&self, id: u32) -> Option<usize> {
        let (first, last) = (self.0.front()?.id, self.0.back()?.id);
        // A body follows its headers; replies go in order.
        match id {
            _ if id == last => Some(self.0.len() - 1),
            _ if id == first => Some(0),
            _ => self.0.binary_search_by_key(&id, |stream| stream.id).ok(),
        }
    }

    /// Where the streams begin whose number is not below `id`.
    pub fn from(&self, id: u32) -> usize {
        self.0.partition_point(|stream| stream.id < id)
    }

    /// Adds a stream with a higher number than all before.
    pub fn push(&mut self, stream: Stream) {
        assert!(self.0.back().is_none_or(|last| last.id < stream.id), "stream numbers rise");
        self.0.push_back(stream);
    }

    /// Takes a stream out.
    pub fn remove(&mut self, at: usize) -> Stream {
        self.0.remove(at).expect("a place that was just found")
    }

    /// How many are open.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none is open.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All, by number.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Stream> {
        self.0.iter()
    }

    /// Gives memory back where none is open.
    pub fn rest(&mut self) {
        if self.0.is_empty() && self.0.capacity() > 32 {
            self.0 = VecDeque::new();
        }
    }

    /// Gives all up, and the memory.
    pub fn clear(&mut self) {
        self.0 = VecDeque::new();
    }
}

impl std::ops::Index<usize> for Streams {
    type Output = Stream;
    fn index(&self, at: usize) -> &Stream {
        &self.0[at]
    }
}

impl std::ops::IndexMut<usize> for Streams {
    fn index_mut(&mut self, at: usize) -> &mut Stream {
        &mut self.0[at]
    }
}
