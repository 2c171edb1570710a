//! The index alone: put, get, count and scan of a map with keys of some 40 bytes and cells of 32.
//!
//! `TREE_BENCH_KEYS` sets the number of keys, 100,000 otherwise; as a test (`--test`) it is small.
#![allow(missing_docs, reason = "criterion's macros make public items")]

use std::{env, hint::black_box};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ringleader::{limits::TREE_PAGE_BYTES, tree::Map};

/// Puts between two publishes, as one turn of the node would group them.
const PUTS_PER_PUBLISH: usize = 100;
/// Cells of a scan: one page of a client's list.
const SCAN_CELLS: usize = 500;
const CELL: [u8; 32] = [7; 32];

const KEY: &[u8; 40] = b"/registry/pods/default/00000000000000000";
const HEX: &[u8; 16] = b"0123456789abcdef";

/// Keys in an order that has nothing to do with their sort order, drawn without end. Each is
/// written when drawn, so that no memory but the map's is touched.
struct Keys {
    count: u64,
    next: u64,
    key: [u8; KEY.len()],
}

impl Keys {
    fn new() -> Self {
        let tiny = env::args().any(|arg| arg == "--test");
        let wanted = env::var("TREE_BENCH_KEYS").ok().and_then(|keys| keys.parse().ok());
        let count = if tiny { 1000 } else { wanted.unwrap_or(100_000) };
        Self { count, next: 0, key: *KEY }
    }

    fn filled_map(&mut self) -> Map {
        let mut map = Map::new(TREE_PAGE_BYTES);
        (0..self.count).for_each(|n| map.insert(self.key(n), &CELL, true));
        map
    }

    fn key(&mut self, n: u64) -> &[u8] {
        let scattered = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for (at, digit) in self.key.iter_mut().rev().take(16).enumerate() {
            *digit = HEX[(scattered >> (4 * at)) as usize % 16];
        }
        &self.key
    }

    fn draw(&mut self) -> &[u8] {
        // The stride shares no factor with a power of ten, so every key's turn comes.
        self.next = (self.next + 77_773) % self.count;
        self.key(self.next)
    }
}

fn put(c: &mut Criterion) {
    let mut keys = Keys::new();
    let mut group = c.benchmark_group("map");
    group.throughput(Throughput::Elements(PUTS_PER_PUBLISH as u64));
    let mut map = keys.filled_map();
    let mut view = map.publish();
    group.bench_function("put", |b| {
        b.iter(|| {
            for _ in 0..PUTS_PER_PUBLISH {
                map.insert(keys.draw(), &CELL, true);
            }
            view = map.publish();
        });
    });
    group.throughput(Throughput::Elements(keys.count));
    group.sample_size(10);
    group.bench_function("fill", |b| {
        b.iter_batched(|| (), |()| keys.filled_map(), BatchSize::PerIteration);
    });
}

fn read(c: &mut Criterion) {
    let mut keys = Keys::new();
    let mut map = keys.filled_map();
    let view = map.publish();
    let reader = view.reader();
    let mut group = c.benchmark_group("map");
    group.bench_function("get", |b| b.iter(|| black_box(reader.get(keys.draw()))));
    group.bench_function("count", |b| b.iter(|| black_box(reader.live_before(keys.draw()))));
    group.throughput(Throughput::Elements(SCAN_CELLS as u64));
    group.bench_function("scan", |b| {
        b.iter(|| {
            let touch = |(key, cell): (&[u8], &[u8])| usize::from(key[key.len() - 1] ^ cell[0]);
            reader.seek(keys.draw()).take(SCAN_CELLS).map(touch).sum::<usize>()
        });
    });
}

criterion_group!(benches, put, read);
criterion_main!(benches);
