//! The map against a `BTreeMap`, its pages checked whole, and its views read from other threads.

use std::{collections::BTreeMap, ops::Bound, sync::mpsc, thread};

use super::*;
use crate::tree::{cursor::Cursor, node::tests::BLOCKS};

/// What a key has: its cell, and whether it is live.
type Model = BTreeMap<Vec<u8>, (Vec<u8>, bool)>;

/// A small generator, so that a failure is found again from its seed (xorshift64*).
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % end
    }

    /// Keys that collide often, share prefixes of any length, and are now and then empty or huge.
    fn key(&mut self) -> Vec<u8> {
        let mut key = match self.below(8) {
            0 => Vec::new(),
            1 => vec![b'x'; self.below(300)],
            _ => b"/registry/pods/"[..self.below(16)].to_vec(),
        };
        key.extend((0..self.below(4)).map(|_| [0, b'a', b'b', 0xff][self.below(4)]));
        key
    }

    fn cell(&mut self) -> Vec<u8> {
        vec![self.below(256) as u8; [8, 8, 8, self.below(40)][self.below(4)]]
    }
}

fn fewer_under_miri(usual: usize, miri: usize) -> usize {
    if cfg!(miri) { miri } else { usual }
}

/// Everything that can be asked of a state, asked.
fn assert_same(reader: MapReader<'_>, model: &Model) {
    let live = |(_, (_, live)): &(&Vec<u8>, &(Vec<u8>, bool))| *live;
    assert_eq!(reader.len(), model.len() as u64);
    assert_eq!(reader.is_empty(), model.is_empty());
    assert_eq!(reader.live(), model.iter().filter(live).count() as u64);
    let scanned: Vec<_> = reader.seek(b"").collect();
    let expected: Vec<_> = model.iter().map(|(key, (cell, _))| (&key[..], &cell[..])).collect();
    assert_eq!(scanned, expected);
    for (key, (cell, _)) in model {
        assert_eq!(reader.get(key), Some(&cell[..]));
    }
}

/// What can be asked about one key, present or not.
fn assert_same_at(reader: MapReader<'_>, model: &Model, key: &[u8]) {
    assert_eq!(reader.get(key), model.get(key).map(|(cell, _)| &cell[..]));
    let before = (Bound::Unbounded, Bound::Excluded(key));
    let live = model.range::<[u8], _>(before).filter(|(_, (_, live))| *live).count();
    assert_eq!(reader.live_before(key), live as u64);
    let from = (Bound::Included(key), Bound::Unbounded);
    let expected = model.range::<[u8], _>(from).map(|(key, (cell, _))| (&key[..], &cell[..]));
    assert!(reader.seek(key).take(5).eq(expected.take(5)));
}

/// Checks a page and what lies below it against the rules of the format; counts its pages.
fn check(map: &Map, link: Link, low: &[u8], high: Option<&[u8]>) -> (Count, usize) {
    let page = map.heap.page(link);
    let keys: Vec<_> = page.entries().map(|entry| entry.key).collect();
    assert!(keys.is_sorted_by(|a, b| a < b));
    assert!(keys.iter().all(|key| key.starts_with(&keys[0][..page.prefix()])));
    assert!(keys.iter().enumerate().all(|(at, key)| page.position(key) == Ok(at)));
    assert!(high.is_none_or(|high| keys.iter().all(|&key| key < high)));
    if page.level() == 0 {
        assert!(keys.iter().all(|&key| key >= low));
        return (page.count_before(page.len()), 1);
    }
    let (mut sum, mut pages) = (Count::default(), 1);
    for at in 0..page.len() {
        let child = page.child(at);
        let below = map.heap.page(child.link);
        assert!(below.len() > 0, "an empty page is dropped");
        assert_eq!(below.level() + 1, page.level());
        assert!(below.version() <= page.version(), "a copied page has copied ancestors");
        let low = if at == 0 { low } else { keys[at] };
        let high = keys.get(at + 1).copied().or(high);
        let (count, n) = check(map, child.link, low, high);
        assert_eq!(child.count, count);
        sum = sum.plus(count);
        pages += n;
    }
    (sum, pages)
}

fn check_whole(map: &Map) -> usize {
    let (count, pages) = check(map, map.root, b"", None);
    assert_eq!(count, map.count);
    let mut links = Vec::new();
    map.collect(map.root, &mut links);
    let bytes: usize = links.into_iter().map(|link| map.heap.page(link).bytes().len()).sum();
    assert_eq!(map.unwritten_bytes(), bytes as u64, "what a checkpoint would write");
    pages
}

/// Random changes, now more puts, now more removals, beside a map of the standard library.
fn live_one_life(seed: u64, turns: usize) {
    let mut dice = Dice::new(seed);
    let mut map = Map::new(128 + 64 * dice.below(3));
    let mut model = Model::new();
    let mut views: Vec<(MapView, Model)> = Vec::new();
    for turn in 0..turns {
        let growing = (turn / (turns / 6)).is_multiple_of(2);
        let key = dice.key();
        if dice.below(10) < if growing { 7 } else { 1 } {
            let (cell, live) = (dice.cell(), dice.below(4) > 0);
            map.insert(&key, &cell, live);
            model.insert(key, (cell, live));
        } else {
            let near = (Bound::Included(&key[..]), Bound::Unbounded);
            let near = model.range::<[u8], _>(near).next().map(|(key, _)| key.clone());
            let key = near.unwrap_or(key);
            assert_eq!(map.remove(&key), model.remove(&key).is_some());
        }
        if dice.below(12) == 0 {
            views.push((map.publish(), model.clone()));
        }
        if dice.below(12) == 0 && !views.is_empty() {
            views.swap_remove(dice.below(views.len()));
        }
        assert_same_at(map.reader(), &model, &dice.key());
        if dice.below(40) == 0 {
            check_whole(&map);
            assert_same(map.reader(), &model);
            views.iter().for_each(|(view, model)| assert_same(view.reader(), model));
        }
    }
    drop(map);
    views.iter().for_each(|(view, model)| assert_same(view.reader(), model));
}

#[test]
fn the_map_and_all_its_views_behave_like_a_sorted_map() {
    for seed in 0..fewer_under_miri(24, 1) {
        let blocks = BLOCKS.get();
        live_one_life(seed as u64, fewer_under_miri(3000, 120));
        assert_eq!(BLOCKS.get(), blocks, "seed {seed} leaks pages");
    }
}

/// Readers on other cores scan views of any age while the writer goes on and frees pages.
#[test]
fn readers_on_other_cores_see_the_state_that_was_published() {
    let turns = fewer_under_miri(4000, 30);
    let readers: Vec<_> = (0..3).map(spawn_reader).collect();
    let mut dice = Dice::new(99);
    let mut map = Map::new(256);
    let mut model = Model::new();
    for turn in 0..turns {
        for _ in 0..6 {
            let (key, cell) = (dice.key(), dice.cell());
            if dice.below(3) == 0 {
                map.remove(&key);
                model.remove(&key);
            } else {
                map.insert(&key, &cell, true);
                model.insert(key, (cell, true));
            }
        }
        let (to, _) = &readers[turn % readers.len()];
        let sent = to.send((map.publish(), model.clone()));
        sent.expect("a reader lives until its channel closes");
    }
    drop(map);
    for (to, reader) in readers {
        drop(to);
        reader.join().expect("a reader saw what was published");
    }
}

type Reader = (mpsc::SyncSender<(MapView, Model)>, thread::JoinHandle<()>);

fn spawn_reader(seed: u64) -> Reader {
    let (to, inbox) = mpsc::sync_channel::<(MapView, Model)>(4);
    let reader = thread::spawn(move || {
        let mut dice = Dice::new(seed);
        let mut held: Vec<(MapView, Model)> = Vec::new();
        for pair in inbox {
            held.push(pair);
            let (view, model) = &held[dice.below(held.len())];
            assert_same(view.clone().reader(), model);
            if held.len() > 6 {
                held.swap_remove(dice.below(held.len()));
            }
        }
        held.iter().for_each(|(view, model)| assert_same(view.reader(), model));
    });
    (to, reader)
}

#[test]
fn without_views_only_reachable_pages_are_left() {
    let mut dice = Dice::new(5);
    let mut map = Map::new(192);
    let mut views = Vec::new();
    for turn in 0..fewer_under_miri(3000, 200) {
        let key = dice.key();
        if turn % 3 > 0 {
            map.insert(&key, b"cell", true);
        } else {
            map.remove(&key);
        }
        if turn % 10 == 0 {
            views.push(map.publish());
        }
    }
    assert!(map.heap.pages() > check_whole(&map), "views hold pages of their own");
    let bytes = map.bytes();
    views.clear();
    while map.heap.pages() > check_whole(&map) {
        let before = map.heap.pages();
        map.insert(b"key", b"cell", true);
        map.publish();
        assert!(map.heap.pages() < before, "each publish frees a piece");
    }
    assert!(map.bytes() < bytes);
}

#[test]
fn a_view_outlives_its_map_and_the_last_one_frees_everything() {
    let blocks = BLOCKS.get();
    let mut map = Map::new(128);
    let mut views = Vec::new();
    for n in 0..100_u32 {
        map.insert(&n.to_be_bytes(), b"cell", true);
        views.push(map.publish());
    }
    map.insert(b"never published", b"cell", true);
    drop(map);
    for (n, view) in views.iter().enumerate() {
        assert_eq!(view.reader().seek(b"").count(), n + 1);
    }
    // The newest go first: the older ones still keep what both can see.
    while let Some(view) = views.pop() {
        assert_eq!(view.reader().len(), view.reader().seek(b"").count() as u64);
    }
    assert_eq!(BLOCKS.get(), blocks);
}

#[test]
fn publishing_an_unchanged_map_gives_the_same_view() {
    let mut map = Map::new(256);
    let first = map.publish();
    assert!(Arc::ptr_eq(&first.pin, &map.publish().pin));
    assert!(!map.remove(b"absent"));
    assert!(Arc::ptr_eq(&first.pin, &map.publish().pin));
    map.insert(b"a", b"1", true);
    assert!(!Arc::ptr_eq(&first.pin, &map.publish().pin));
    assert!(first.reader().is_empty());
}

#[test]
fn changes_between_two_publishes_copy_a_page_once() {
    let mut map = Map::new(256);
    map.insert(b"a", b"1", true);
    let view = map.publish();
    map.insert(b"a", b"2", true);
    let (root, pages) = (map.root, map.heap.pages());
    map.insert(b"a", b"3", true);
    assert_eq!((map.root, map.heap.pages()), (root, pages));
    assert_eq!(view.reader().get(b"a"), Some(&b"1"[..]));
}

#[test]
fn ascending_keys_fill_their_pages() {
    let mut map = Map::new(2048);
    let keys = fewer_under_miri(20_000, 4000) as u64;
    let entry = Entry { key: &[0; 8], body: &[7; 32], live: true };
    for key in 0..keys {
        map.insert(&key.to_be_bytes(), entry.body, true);
    }
    check_whole(&map);
    let needed = keys * entry_bytes(0, &entry) as u64;
    assert!(needed * 10 >= map.bytes() * 9, "{needed} bytes of cells in {}", map.bytes());
}

#[test]
fn a_map_that_shrinks_gives_its_pages_back() {
    let mut map = Map::new(256);
    let keys = fewer_under_miri(5000, 100) as u32;
    for key in 0..keys {
        map.insert(&key.to_be_bytes(), &[7; 16], true);
    }
    let full = check_whole(&map);
    for key in (0..keys).filter(|key| key % 20 != 0) {
        assert!(map.remove(&key.to_be_bytes()));
    }
    let thin = check_whole(&map);
    assert!(thin * 5 < full, "{thin} pages for a twentieth of what {full} held");
    for key in (0..keys).step_by(20) {
        assert!(map.remove(&key.to_be_bytes()));
    }
    assert_eq!((map.cells(), map.live(), check_whole(&map)), (0, 0, 1));
}

#[test]
fn keys_much_longer_than_a_page_keep_the_tree_low() {
    let mut map = Map::new(256);
    let keys = fewer_under_miri(200, 20) as u32;
    let key = |n: u32| [&vec![b'k'; 5000][..], &n.reverse_bits().to_be_bytes()].concat();
    for n in 0..keys {
        map.insert(&key(n), b"cell", true);
    }
    check_whole(&map);
    assert!(map.heap.page(map.root).level() <= keys.ilog2());
    for (before, (key, _)) in map.reader().seek(b"").enumerate() {
        assert_eq!(map.reader().live_before(key), before as u64);
    }
    for n in 0..keys {
        assert!(map.remove(&key(n)));
    }
    assert_eq!(check_whole(&map), 1);
    assert!(map.bytes() <= 256, "an oversize page goes with its cell");
}

#[test]
fn a_tombstone_is_a_cell_but_not_live() {
    let mut map = Map::new(256);
    map.insert(b"a", b"1", true);
    map.insert(b"b", b"1", true);
    map.insert(b"a", b"2", false);
    assert_eq!((map.cells(), map.live()), (2, 1));
    assert_eq!(map.reader().live_before(b"b"), 0);
    assert_eq!(map.get(b"a"), Some(&b"2"[..]));
    map.insert(b"a", b"longer than before", true);
    assert_eq!(map.reader().live_before(b"b"), 1);
}

#[test]
#[should_panic(expected = "a page that a view may see is not written")]
fn a_published_page_cannot_be_edited() {
    let mut map = Map::new(256);
    let _view = map.publish();
    map.heap.edit(map.root);
}

#[test]
fn views_and_readers_go_to_other_cores() {
    fn sent<T: Send>() {}
    fn shared<T: Sync>() {}
    sent::<Map>();
    sent::<MapView>();
    shared::<MapView>();
    sent::<Cursor<'_>>();
}
