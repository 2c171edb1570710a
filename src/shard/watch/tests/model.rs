//! Streams held against a plain list of all that happened.
//!
//! Watchers of all shapes come, go, stall and go on while random changes are made and the history is
//! compacted. Each must be told what its keys and its wish leave of the list: in order, whole
//! revisions, each once; and nothing at or below a revision once progress was told there.

use super::*;
use crate::fuzz::Dice;
use proto::mvccpb::{KeyValue, event::EventType};

/// All that ever happened, each change with what was there before.
#[derive(Default)]
struct Past {
    live: BTreeMap<String, KeyValue>,
    events: Vec<Event>,
    compacted: i64,
}

impl Past {
    fn put(&mut self, at: i64, key: &str, value: &[u8]) {
        let before = self.live.get(key).cloned();
        let kv = KeyValue {
            key: key.to_owned().into(),
            create_revision: before.as_ref().map_or(at, |kv| kv.create_revision),
            mod_revision: at,
            version: before.as_ref().map_or(1, |kv| kv.version + 1),
            value: value.to_vec().into(),
            lease: 0,
        };
        self.live.insert(key.to_owned(), kv.clone());
        let r#type = EventType::Put.into();
        self.events.push(Event { r#type, kv: Some(kv), prev_kv: before });
    }

    fn delete(&mut self, at: i64, key: &str) {
        let prev_kv = self.live.remove(key);
        let kv = KeyValue { key: key.to_owned().into(), mod_revision: at, ..KeyValue::default() };
        let r#type = EventType::Delete.into();
        self.events.push(Event { r#type, kv: Some(kv), prev_kv });
    }
}

fn revision(event: &Event) -> i64 {
    event.kv.as_ref().expect("each event has one").mod_revision
}

/// What one watcher asked for and has been told.
struct Told {
    request: WatchCreateRequest,
    created: bool,
    /// Nothing up to here may still come.
    through: i64,
    /// Events of a response that is not whole yet.
    open: Vec<Event>,
    /// Asked to be canceled, or it was.
    over: bool,
}

impl Told {
    fn wants(&self, event: &Event) -> bool {
        let WatchCreateRequest { key, range_end, filters, .. } = &self.request;
        let of = &event.kv.as_ref().expect("each event has one").key;
        let inside = match &range_end[..] {
            b"" => of == key,
            b"\0" => of >= key,
            end => of >= key && &of[..] < end,
        };
        inside && !filters.contains(&event.r#type)
    }

    /// The next events of whole revisions are these.
    fn check(&mut self, past: &Past, header: i64) {
        let told = std::mem::take(&mut self.open);
        let last = revision(told.last().expect("a response has events"));
        assert!(last <= header, "a header is not older than its events");
        let new = |event: &&Event| revision(event) > self.through && revision(event) <= last;
        let expected: Vec<_> =
            past.events.iter().filter(new).filter(|event| self.wants(event)).collect();
        assert_eq!(told.len(), expected.len(), "whole revisions, nothing twice, nothing lost");
        for (told, expected) in told.iter().zip(expected) {
            assert_eq!((told.r#type, &told.kv), (expected.r#type, &expected.kv));
            let created = told.kv.as_ref().is_some_and(|kv| kv.create_revision == kv.mod_revision);
            let known = self.request.prev_kv && !created;
            let expected_prev = expected.prev_kv.as_ref().filter(|_| known);
            let may_be_gone = revision(told) - 1 < past.compacted && told.prev_kv.is_none();
            assert!(may_be_gone || told.prev_kv.as_ref() == expected_prev);
        }
        self.through = last;
    }
}

/// How often what the model is about came about.
#[derive(Default)]
struct Seen {
    compacted: usize,
    fragments: usize,
    progress: usize,
    behind: usize,
    parked: usize,
}

struct World {
    rig: Rig,
    seen: Seen,
    past: Past,
    streams: BTreeMap<StreamId, BTreeMap<i64, Told>>,
    /// Watchers asked for on a stream, in order, whose answers are not read yet.
    asked: BTreeMap<StreamId, Vec<(i64, WatchCreateRequest)>>,
}

const KEYS: [&str; 8] = ["a", "a1", "a2", "b", "b1", "c", "c\0", "d"];

impl World {
    fn change(&mut self, dice: &mut Dice) {
        let bytes = if dice.once_in(4) { dice.below(60 << 10) } else { dice.below(100) };
        let value = vec![b'v'; bytes];
        let key = *dice.pick(&KEYS);
        let at = self.rig.revision() + 1;
        match dice.below(10) {
            0 if at > self.past.compacted + 2 => {
                let low = self.past.compacted.max(0) as usize;
                let compacted = (low + 1 + dice.below(at as usize - low - 1)) as i64;
                self.rig.compact(compacted);
                self.past.compacted = compacted;
            }
            1 => drop(self.rig.store.tree_mut().sweep(dice.below(50))),
            2..4 => {
                if self.past.live.contains_key(key) {
                    self.rig.delete(key);
                    self.past.delete(at, key);
                }
            }
            4 => self.change_many(at, &value, dice),
            _ => {
                self.rig.put(key, &value);
                self.past.put(at, key, &value);
            }
        }
    }

    fn change_many(&mut self, at: i64, value: &[u8], dice: &mut Dice) {
        let keys = KEYS.iter().filter(|_| dice.once_in(2));
        let ops: Vec<_> = keys
            .map(|key| (*key, (!self.past.live.contains_key(*key)).then(|| value.to_vec())))
            .collect();
        if ops.is_empty() {
            return;
        }
        self.rig.txn(&ops);
        for (key, value) in ops {
            match value {
                Some(value) => self.past.put(at, key, &value),
                None => self.past.delete(at, key),
            }
        }
    }

    fn ask(&mut self, dice: &mut Dice) {
        let streams: Vec<_> = self.streams.keys().copied().collect();
        let stream = *dice.pick(&streams);
        if !self.rig.hub.can_take(stream) {
            return;
        }
        match dice.below(4) {
            0 => self.rig.ask_progress(stream),
            1 => {
                let id = dice.below(12) as i64;
                self.rig.cancel(stream, id);
            }
            _ => {
                let request = random_request(self.rig.view.revision.0, dice);
                self.rig.create(stream, request.clone());
                let seen = self.rig.view.revision.0;
                self.asked.entry(stream).or_default().push((seen, request));
            }
        }
    }

    fn read(&mut self, stream: StreamId, most: usize) {
        for _ in 0..most {
            let Some(response) = self.rig.read_one(stream) else { return };
            self.judge(stream, response);
        }
    }

    fn judge(&mut self, stream: StreamId, response: WatchResponse) {
        let header = header_revision(&response);
        let watchers = self.streams.get_mut(&stream).expect("an open stream");
        if response.created {
            let (seen, request) = self.asked.get_mut(&stream).expect("it was asked").remove(0);
            if response.canceled {
                assert!(watchers.contains_key(&response.watch_id) || response.watch_id == -1);
                return;
            }
            let through =
                if request.start_revision == 0 { seen } else { request.start_revision - 1 };
            let told = Told { request, created: true, through, open: Vec::new(), over: false };
            let before = watchers.insert(response.watch_id, told);
            assert!(before.is_none_or(|told| told.over), "a name is given once");
            return;
        }
        self.seen.compacted += usize::from(response.compact_revision > 0);
        self.seen.fragments += usize::from(response.fragment);
        self.seen.progress += usize::from(response.events.is_empty() && !response.canceled);
        if response.watch_id == -1 {
            for told in watchers.values_mut().filter(|told| !told.over) {
                told.progress(&self.past, header);
            }
            return;
        }
        let told = watchers.get_mut(&response.watch_id).expect("created before anything else");
        assert!(told.created && (!told.over || response.canceled), "nothing after the end");
        if response.canceled {
            let compacted = response.compact_revision;
            assert!(compacted == 0 || compacted > told.through + 1, "it was not told all of that");
            told.over = true;
        } else if response.events.is_empty() {
            assert!(told.request.progress_notify);
            told.progress(&self.past, header);
        } else {
            told.open.extend(response.events);
            if !response.fragment {
                told.check(&self.past, header);
            }
        }
    }

    /// After everything was read nobody lacks anything.
    fn check_all_told(&self) {
        for told in self.streams.values().flat_map(BTreeMap::values).filter(|told| !told.over) {
            let late = |event: &&Event| revision(event) > told.through && told.wants(event);
            assert_eq!(self.past.events.iter().filter(late).count(), 0);
        }
    }

    fn check_bounds(&mut self) {
        self.seen.behind += self.rig.hub.watchers_behind();
        self.seen.parked +=
            self.streams.keys().map(|at| self.rig.hub.streams[at.0].parked).sum::<usize>();
        // A revision of all keys, with what was before each, on top of a full queue.
        let revision = 2 * KEYS.len() * (60 << 10);
        let most = WATCH_STREAM_BYTES_MAX + WATCH_RESPONSE_BYTES_MAX + revision + 64 * 1024;
        assert!(self.rig.hub.streams.bytes() <= self.streams.len() * most);
    }
}

impl Told {
    /// Nothing up to `header` may be outstanding.
    fn progress(&mut self, past: &Past, header: i64) {
        assert!(header >= self.request.start_revision, "no progress before the start");
        let late = |event: &&Event| {
            revision(event) > self.through && revision(event) <= header && self.wants(event)
        };
        assert_eq!(past.events.iter().filter(late).count(), 0, "progress overtook events");
        self.through = self.through.max(header);
    }
}

fn random_request(seen: i64, dice: &mut Dice) -> WatchCreateRequest {
    let range_end = match dice.below(4) {
        0 => "".to_owned(),
        1 => "\0".to_owned(),
        _ => (*dice.pick(&KEYS)).to_owned(),
    };
    let start_revision = match dice.below(6) {
        0..3 => 0,
        3 => 1 + dice.below(seen as usize) as i64,
        4 => (seen - dice.below(20) as i64).max(1),
        _ => seen + dice.below(10) as i64,
    };
    let filters = match dice.below(5) {
        0 => vec![0],
        1 => vec![1],
        _ => vec![],
    };
    WatchCreateRequest {
        key: (*dice.pick(&KEYS)).into(),
        range_end: range_end.into(),
        start_revision,
        progress_notify: dice.once_in(2),
        filters,
        prev_kv: dice.once_in(2),
        watch_id: dice.below(6) as i64,
        fragment: dice.once_in(3),
    }
}

fn run(seed: u64, steps: usize) -> Seen {
    let mut dice = Dice::new(seed);
    let mut world = World {
        rig: Rig::new(),
        seen: Seen::default(),
        past: Past { compacted: -1, ..Past::default() },
        streams: BTreeMap::new(),
        asked: BTreeMap::new(),
    };
    for _ in 0..3 {
        let stream = world.rig.open();
        world.streams.insert(stream, BTreeMap::new());
    }
    for _ in 0..steps {
        // Some phases have many changes and few readers.
        match dice.below(20) {
            0..9 => world.change(&mut dice),
            9..13 => world.rig.wake(),
            13 => world.ask(&mut dice),
            14 => drop(world.rig.hub.catch_up(&world.rig.view)),
            15 => {
                world.rig.now += INTERVAL / 4;
                world.rig.hub.on_time(world.rig.now);
            }
            16 if dice.once_in(40) => {
                let stream = *world.streams.keys().next().expect("there are three");
                world.rig.hub.close(stream);
                world.streams.remove(&stream);
                world.asked.remove(&stream);
                let stream = world.rig.open();
                world.streams.insert(stream, BTreeMap::new());
            }
            _ => {
                if let Some(stream) = world.rig.hub.take_ready() {
                    let most = if dice.once_in(3) { 1_000 } else { dice.below(3) };
                    world.read(stream, most);
                }
                let streams: Vec<_> = world.streams.keys().copied().collect();
                let stream = *dice.pick(&streams);
                let most = if dice.once_in(30) { 1_000 } else { 0 };
                world.read(stream, most);
            }
        }
        world.check_bounds();
    }
    world.rig.wake();
    loop {
        world.rig.catch_up();
        let streams: Vec<_> = world.streams.keys().copied().collect();
        streams.iter().for_each(|stream| world.read(*stream, usize::MAX));
        if world.rig.hub.watchers_behind() == 0 {
            break;
        }
    }
    world.check_all_told();
    assert_eq!(world.rig.hub.streams.bytes(), 0, "nothing waits any more");
    let streams: Vec<_> = world.streams.keys().copied().collect();
    streams.into_iter().for_each(|stream| world.rig.hub.close(stream));
    let hub = &world.rig.hub;
    assert_eq!((hub.watchers(), hub.streams(), hub.groups.len(), hub.synced), (0, 0, 0, 0));
    assert!(hub.names.is_empty() && hub.waiting.is_empty() && hub.due.is_empty());
    world.seen
}

#[test]
fn every_stream_is_the_history_filtered() {
    let mut all = Seen::default();
    for seed in 0..40 {
        println!("seed {seed}");
        let Seen { compacted, fragments, progress, behind, parked } = run(seed, 4_000);
        all.compacted += compacted;
        all.fragments += fragments;
        all.progress += progress;
        all.behind += behind;
        all.parked += parked;
    }
    let Seen { compacted, fragments, progress, behind, parked } = all;
    let counts = [compacted, fragments, progress, behind, parked];
    println!("{counts:?}");
    assert!(counts.iter().all(|count| *count > 100), "too little happened: {counts:?}");
}
