//! What watchers are told, held against the history.
//!
//! Of each stream there is a record: what its client asked, what it was told, in the order in which
//! the messages came. [`judge`] follows it, message by message:
//!
//! 1. **The filtered history.** A watcher's events are those of the model's history that its keys and
//!    filters leave: in order, whole revisions, each exactly once, from its start on. What it is told
//!    was there before is what was there, or nothing where that is compacted. Of the compacted
//!    revision itself may be missing what that revision changed once more (etcd too).
//! 2. **What a header promises.** After a message with events or progress at revision R nothing at or
//!    below R comes any more.
//! 3. **No cancellation without need.** A watcher ends by compaction only where something that it was
//!    still to be told is compacted.
//! 4. **Nothing before its time.** Nothing is told of what the view of that moment had not applied,
//!    and so nothing that is not durable. A watcher begins at the newest revision that anybody had
//!    seen when it was asked for, or at a later one.
//! 5. **Everything.** A client that reads has been told all of the history some time after it
//!    happened.

use crate::{check_lease::Lives, member::CLUSTER, model::Change};
use proto::{
    etcdserverpb::{
        WatchCreateRequest, WatchRequest, WatchResponse, watch_create_request::FilterType,
        watch_request::RequestUnion,
    },
    mvccpb::{Event, event::EventType},
};
use std::collections::{BTreeMap, VecDeque};

/// One thing that happened on a stream.
pub(crate) enum Line {
    /// Somebody had seen this revision when it was asked.
    Asked { request: WatchRequest, seen: i64 },
    /// The view that the shard looked at last had applied so much.
    Told { response: WatchResponse, applied: u64 },
    /// By now everything up to this revision must have been told.
    Quiet { revision: i64 },
}

/// Judges every stream.
///
/// # Panics
/// At the first thing that is wrong.
pub(crate) fn judge(
    streams: &[(u64, Vec<Line>)],
    history: &[Change],
    lives: &Lives,
) -> Vec<(&'static str, usize)> {
    let mut seen = BTreeMap::new();
    for (number, (member, lines)) in streams.iter().enumerate() {
        let mut stream = Stream {
            number,
            member: *member,
            history,
            lives,
            requests: VecDeque::new(),
            progress_asked: 0,
            watchers: BTreeMap::new(),
            seen: &mut seen,
        };
        lines.iter().for_each(|line| stream.take(line));
    }
    seen.into_iter().collect()
}

/// A stream as its client knows it.
struct Stream<'a> {
    number: usize,
    /// Who serves it.
    member: u64,
    history: &'a [Change],
    lives: &'a Lives,
    /// Those whose answers are to come, in order.
    requests: VecDeque<(RequestUnion, i64)>,
    progress_asked: usize,
    /// By name. A name stays taken when its watcher ended by compaction.
    watchers: BTreeMap<i64, Watcher>,
    seen: &'a mut BTreeMap<&'static str, usize>,
}

struct Watcher {
    request: WatchCreateRequest,
    /// Nothing up to here may come any more.
    through: i64,
    /// Events of a response whose last part is to come.
    parts: Vec<Event>,
    /// It ended by compaction.
    over: bool,
}

impl Stream<'_> {
    fn see(&mut self, sight: &'static str) {
        *self.seen.entry(sight).or_default() += 1;
    }

    fn take(&mut self, line: &Line) {
        match line {
            Line::Asked { request, seen } => match request.request_union.clone() {
                Some(RequestUnion::ProgressRequest(_)) => self.progress_asked += 1,
                Some(request) => self.requests.push_back((request, *seen)),
                None => {}
            },
            Line::Told { response, applied } => self.told(response, *applied),
            Line::Quiet { revision } => {
                self.take_silent_cancels();
                assert!(self.requests.is_empty(), "no answer to {:?}", self.requests);
                let live = self.watchers.values_mut().filter(|watcher| !watcher.over);
                let compacted = self.lives.compacted[self.lives.compacted.len() - 1];
                live.for_each(|watcher| watcher.promise(*revision, self.history, compacted));
            }
        }
    }

    fn told(&mut self, response: &WatchResponse, applied: u64) {
        let header = response.header.as_ref().expect("every answer has a header");
        assert_eq!((header.cluster_id, header.member_id), (CLUSTER.0, self.member));
        let newest = self.lives.revisions[applied as usize];
        assert!(header.revision <= newest, "told of what was not applied: {response:?}");
        let compacted = self.lives.compacted[applied as usize];
        match (response.created, response.canceled) {
            (true, _) => self.created(response, header.revision),
            (false, true) if response.compact_revision > 0 => self.compacted(response, compacted),
            (false, true) => self.canceled(response.watch_id),
            (false, false) if response.events.is_empty() => {
                self.progress(response.watch_id, header.revision, compacted);
            }
            (false, false) => {
                if response.fragment {
                    self.see("a response to a watcher in parts");
                }
                let history = self.history;
                self.watcher(response).events(response, history, compacted);
            }
        }
    }

    /// One that is there and not over.
    fn watcher(&mut self, response: &WatchResponse) -> &mut Watcher {
        let number = self.number;
        let watcher = self.watchers.get_mut(&response.watch_id).filter(|watcher| !watcher.over);
        watcher.unwrap_or_else(|| panic!("nobody is told this on stream {number}: {response:?}"))
    }

    /// Canceling what is not there is passed over in silence.
    fn take_silent_cancels(&mut self) {
        while let Some((RequestUnion::CancelRequest(cancel), _)) = self.requests.front()
            && !self.watchers.contains_key(&cancel.watch_id)
        {
            self.requests.pop_front();
        }
    }

    fn created(&mut self, response: &WatchResponse, revision: i64) {
        self.take_silent_cancels();
        let Some((RequestUnion::CreateRequest(request), seen)) = self.requests.pop_front() else {
            panic!("answers come in the order of requests: {response:?}");
        };
        assert!(revision >= seen, "{request:?} begins at {revision}, where {seen} was known");
        let taken = request.watch_id != 0 && self.watchers.contains_key(&request.watch_id);
        let refused = taken || request.start_revision < 0 || is_empty(&request);
        assert_eq!(response.canceled, refused, "{response:?} answers {request:?}");
        if refused {
            assert!(response.watch_id == -1 && !response.cancel_reason.is_empty(), "{response:?}");
            return;
        }
        assert!(request.watch_id == 0 || request.watch_id == response.watch_id, "{response:?}");
        let through = match request.start_revision {
            0 => revision,
            start => start - 1,
        };
        let watcher = Watcher { request, through, parts: Vec::new(), over: false };
        let before = self.watchers.insert(response.watch_id, watcher);
        assert!(before.is_none(), "a name is given once: {response:?}");
    }

    fn canceled(&mut self, id: i64) {
        self.take_silent_cancels();
        let asked = self.requests.pop_front().map(|(request, _)| request);
        let is_asked =
            matches!(asked, Some(RequestUnion::CancelRequest(cancel)) if cancel.watch_id == id);
        assert!(is_asked, "watcher {id} is canceled, which nobody asked for");
        self.watchers.remove(&id);
    }

    fn compacted(&mut self, response: &WatchResponse, compacted: i64) {
        let at = response.compact_revision;
        assert!(at <= compacted, "nothing is compacted up to {at}");
        let watcher = self.watcher(response);
        assert!(at > watcher.through + 1, "{at} is not past {}", watcher.through + 1);
        watcher.over = true;
        self.see("a watch that was canceled for compaction");
    }

    fn progress(&mut self, id: i64, revision: i64, compacted: i64) {
        self.see("progress that was told");
        let history = self.history;
        if id == -1 {
            assert!(self.progress_asked > 0, "nobody asked how far all are");
            self.progress_asked -= 1;
        } else {
            let watcher = self.watchers.get(&id).expect("a watcher of the stream");
            assert!(watcher.request.progress_notify, "{id} did not ask for progress");
        }
        let all = self.watchers.iter_mut().filter(|(name, _)| id == -1 || **name == id);
        for watcher in all.map(|(_, watcher)| watcher).filter(|watcher| !watcher.over) {
            assert!(revision >= watcher.request.start_revision, "no progress before the start");
            watcher.promise(revision, history, compacted);
        }
    }
}

/// What a revision changed once more goes when that revision is compacted, though a watch may start
/// with it.
fn may_miss(change: &Change, compacted: i64) -> bool {
    change.overtaken && change.revision <= compacted
}

/// A range that ends before it begins.
fn is_empty(request: &WatchCreateRequest) -> bool {
    let key = if request.key.is_empty() { &b"\0"[..] } else { &request.key };
    !matches!(&request.range_end[..], b"" | b"\0") && request.range_end[..] <= *key
}

impl Watcher {
    fn wants(&self, change: &Change) -> bool {
        let WatchCreateRequest { key, range_end, filters, .. } = &self.request;
        let inside = match &range_end[..] {
            b"" => change.kv.key == key,
            b"\0" => change.kv.key >= key,
            end => change.kv.key >= key && &change.kv.key[..] < end,
        };
        let filtered = match change.kind {
            EventType::Put => FilterType::Noput,
            EventType::Delete => FilterType::Nodelete,
        };
        inside && !filters.contains(&filtered.into())
    }

    /// What it is still to be told up to `through`.
    fn owed<'h>(
        &self,
        through: i64,
        history: &'h [Change],
    ) -> impl Iterator<Item = &'h Change> + use<'h, '_> {
        let first = history.partition_point(|change| change.revision <= self.through);
        let new = history[first..].iter().take_while(move |change| change.revision <= through);
        new.filter(|change| self.wants(change))
    }

    /// It will be told nothing any more up to `through`.
    fn promise(&mut self, through: i64, history: &[Change], compacted: i64) {
        let owed = |change: &&Change| !may_miss(change, compacted);
        let missed = self.owed(through, history).find(owed).map(|change| change.revision);
        assert_eq!(missed, None, "never told to {:?}, but {through}", self.request);
        assert!(self.parts.is_empty(), "half of a response");
        self.through = self.through.max(through);
    }

    fn events(&mut self, response: &WatchResponse, history: &[Change], compacted: i64) {
        self.parts.extend(response.events.iter().cloned());
        if response.fragment {
            assert!(self.request.fragment, "in parts to {:?}", self.request);
            return;
        }
        let told = std::mem::take(&mut self.parts);
        let through = response.header.as_ref().expect("looked at before").revision;
        let owed: Vec<_> = self.owed(through, history).collect();
        let mut events = told.iter().peekable();
        let is_told = owed.iter().all(|change| {
            let is_next = |event: &&Event| self.is_told(event, change, compacted);
            events.next_if(is_next).is_some() || may_miss(change, compacted)
        });
        assert!(
            is_told && events.next().is_none(),
            "{:?}, told up to {}, and now up to {through}:\n  {told:?}\n  where there was\n  {owed:?}",
            self.request,
            self.through
        );
        self.through = self.through.max(through);
    }

    fn is_told(&self, event: &Event, change: &Change, compacted: i64) -> bool {
        let was_there = change.before.as_ref().filter(|_| self.request.prev_kv);
        let may_be_gone = change.revision - 1 < compacted && event.prev_kv.is_none();
        event.r#type == i32::from(change.kind)
            && event.kv.as_ref() == Some(&change.kv)
            && (event.prev_kv.as_ref() == was_there || may_be_gone)
    }
}
