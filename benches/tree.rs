//! The engine alone, in memory: put, get, count and scan of a tree with keys of some 40 bytes and
//! values of 256.
//!
//! `TREE_BENCH_KEYS` sets the number of keys, 100,000 otherwise; as a test (`--test`) it is small.
#![allow(missing_docs, reason = "criterion's macros make public items")]

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ringleader::{
    tree::{KeyRange, Options, Tree},
    types::{LeaseId, Revision, Stamp},
};
use std::{env, hint::black_box, time::Duration};

/// Puts between two publishes, as one turn of the node would group them.
const PUTS_PER_PUBLISH: usize = 100;
/// Keys of a scan: one page of a client's list.
const SCAN_KEYS: usize = 500;
const VALUE: [u8; 256] = [7; 256];

const KEY: &[u8; 40] = b"/registry/pods/default/00000000000000000";
const HEX: &[u8; 16] = b"0123456789abcdef";

/// Keys in an order that has nothing to do with their sort order, drawn without end. Each is
/// written when drawn, so that no memory but the tree's is touched.
struct Keys {
    count: u64,
    next: u64,
    key: [u8; KEY.len()],
    revision: i64,
}

impl Keys {
    fn new() -> Self {
        let tiny = env::args().any(|arg| arg == "--test");
        let wanted = env::var("TREE_BENCH_KEYS").ok().and_then(|keys| keys.parse().ok());
        let count = if tiny { 1000 } else { wanted.unwrap_or(100_000) };
        Self { count, next: 0, key: *KEY, revision: 1 }
    }

    fn filled_tree(&mut self) -> Tree {
        let mut tree = Tree::new(Options::default());
        self.revision = 1;
        for n in 0..self.count {
            let at = self.stamp();
            tree.put(at, self.key(n), &VALUE, LeaseId(0));
        }
        tree
    }

    fn stamp(&mut self) -> Stamp {
        self.revision += 1;
        Stamp::new(self.revision, 0)
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

fn fill(c: &mut Criterion) {
    let mut keys = Keys::new();
    let mut group = c.benchmark_group("tree");
    group.throughput(Throughput::Elements(keys.count));
    group.sample_size(10);
    group.bench_function("fill", |b| {
        b.iter_batched(|| (), |()| keys.filled_tree(), BatchSize::PerIteration);
    });
}

/// Without checkpoints every record stays in memory, some 350 bytes a put, so this runs briefly.
fn put(c: &mut Criterion) {
    let mut keys = Keys::new();
    let mut tree = keys.filled_tree();
    let mut view = tree.publish();
    let mut group = c.benchmark_group("tree");
    group.throughput(Throughput::Elements(PUTS_PER_PUBLISH as u64));
    group.warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(2));
    group.bench_function("put", |b| {
        b.iter(|| {
            for _ in 0..PUTS_PER_PUBLISH {
                let at = keys.stamp();
                tree.put(at, keys.draw(), &VALUE, LeaseId(0));
            }
            view = tree.publish();
        });
    });
}

fn read(c: &mut Criterion) {
    let mut keys = Keys::new();
    let mut tree = keys.filled_tree();
    let newest = Revision(keys.revision);
    let view = tree.publish();
    let reader = view.reader();
    let mut group = c.benchmark_group("tree");
    group.bench_function("get", |b| {
        b.iter(|| black_box(reader.get(keys.draw(), newest).is_some()));
    });
    group.bench_function("count", |b| {
        b.iter(|| {
            let range = KeyRange { from: keys.draw(), to: None };
            black_box(reader.count(&range, newest))
        });
    });
    group.throughput(Throughput::Elements(SCAN_KEYS as u64));
    group.bench_function("scan", |b| {
        b.iter(|| {
            let range = KeyRange { from: keys.draw(), to: None };
            let found = reader.scan(&range, newest).take(SCAN_KEYS);
            found.map(|found| found.kv().len()).sum::<usize>()
        });
    });
}

criterion_group!(benches, fill, put, read);
criterion_main!(benches);
