//! What an append costs the node's core before the disk has it: one frame encoded, checksums and
//! all; and what reading it back costs at a start.
#![allow(missing_docs, reason = "criterion's macros make public items")]

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ringleader::wal::{
    Batch, HardState, LogEntry,
    frame::{self, Place},
};
use std::hint::black_box;

const PLACE: Place = Place { salt: 7, number: 1, chain: 0, durable_upto: 0, trimmed: 0 };

/// One entry of this size, as a turn of the node makes it.
fn batch(bytes: usize) -> Batch {
    let entry = LogEntry { index: 1, term: 1, kind: 0, data: Bytes::from(vec![7; bytes]) };
    let hard_state = HardState { term: 1, vote: 1, commit: 0 };
    Batch { entries: vec![entry], hard_state }
}

/// A put of 256 bytes alone, a hundred of them packed, and a full entry.
fn frames(c: &mut Criterion) {
    let mut group = c.benchmark_group("wal frame");
    for bytes in [300, 30_000, 1 << 20] {
        let batch = batch(bytes);
        let mut to = vec![0; frame::frame_bytes(&batch)];
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(BenchmarkId::new("encode", bytes), |b| {
            b.iter(|| black_box(frame::encode(&batch, &PLACE, &mut to)));
        });
        group.bench_function(BenchmarkId::new("decode", bytes), |b| {
            b.iter(|| black_box(frame::decode(&to, PLACE.salt, 0)));
        });
    }
}

criterion_group!(benches, frames);
criterion_main!(benches);
