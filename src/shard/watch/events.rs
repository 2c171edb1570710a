//! Events on their way into responses: each change is written once, each response gathered once for
//! all who watch the same.

use crate::{
    api::watch::{self, Wish},
    limits::WATCH_RESPONSE_BYTES_MAX,
    store::{Change, View},
    types::Revision,
};
use bytes::Bytes;

/// One change as an event: with what was there before and without, each written when first needed
/// and then shared.
#[derive(Default)]
pub(super) struct Encoder {
    plain: Option<Bytes>,
    with_prev: Option<Bytes>,
}

impl Encoder {
    /// The event that `wish` wants of `change`, which is the same in all calls.
    pub(super) fn event(&mut self, change: &Change<'_>, wish: Wish, view: &View) -> &Bytes {
        // A key that was just created had nothing before (etcd `IsCreateEvent`).
        if !wish.prev_kv || change.create {
            return self.plain.get_or_insert_with(|| encoded(change, None));
        }
        self.with_prev.get_or_insert_with(|| {
            let prev = view.before(change.key, change.stamp.main);
            encoded(change, prev)
        })
    }
}

fn encoded(change: &Change<'_>, prev: Option<&[u8]>) -> Bytes {
    let mut out = Vec::new();
    watch::event(change, prev, &mut out);
    out.into()
}

/// Events gathered for one response.
#[derive(Default)]
pub(super) struct Chunk {
    /// What is closed already because the client takes large responses in parts.
    fragments: Vec<Bytes>,
    /// The open part, while it is one event: shared with all others who want it.
    single: Bytes,
    /// The open part, once it is more.
    body: Vec<u8>,
    /// Bytes of all events in it.
    bytes: usize,
    /// Bytes of memory that are its own.
    pub(super) copied: usize,
    pub(super) first: Revision,
    last: Revision,
}

/// The events of whole revisions, ready to be handed to anybody.
pub(super) struct Response {
    /// All parts but the last.
    pub(super) fragments: Vec<Bytes>,
    /// The last part.
    pub(super) body: Bytes,
    /// The first revision in it.
    pub(super) first: Revision,
    /// The last revision in it.
    pub(super) last: Revision,
}

impl Chunk {
    /// Adds an event of revision `at`; gives back how many bytes that copied. A part with more than
    /// one event stays below `part_bytes`.
    pub(super) fn add(&mut self, event: &Bytes, at: Revision, part_bytes: usize) -> usize {
        if self.bytes == 0 {
            self.first = at;
        }
        (self.last, self.bytes) = (at, self.bytes + event.len());
        let open = self.single.len() + self.body.len();
        if open > 0 && open + event.len() >= part_bytes {
            let part = self.close_part();
            self.fragments.extend(part);
        }
        if self.single.is_empty() && self.body.is_empty() {
            self.single = event.clone();
            return 0;
        }
        let before = self.body.len();
        self.body.extend_from_slice(&std::mem::take(&mut self.single));
        self.body.extend_from_slice(event);
        self.copied += self.body.len() - before;
        self.body.len() - before
    }

    fn close_part(&mut self) -> Option<Bytes> {
        let (single, body) = (std::mem::take(&mut self.single), std::mem::take(&mut self.body));
        let part = if body.is_empty() { single } else { body.into() };
        (!part.is_empty()).then_some(part)
    }

    /// Whether an event of revision `at` goes into another response.
    pub(super) fn is_complete_before(&self, at: Revision) -> bool {
        self.bytes >= WATCH_RESPONSE_BYTES_MAX && self.last != at
    }

    /// What was gathered, if anything was; then it is empty again.
    pub(super) fn take(&mut self) -> Option<Response> {
        let mut chunk = std::mem::take(self);
        let body = chunk.close_part()?;
        let Self { fragments, first, last, .. } = chunk;
        Some(Response { fragments, body, first, last })
    }
}
