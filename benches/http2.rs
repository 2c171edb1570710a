//! What a unary call costs in framing, header decoding and stream state: one connection in memory.
//!
//! - `indexed`: the client's headers are all in the table, as most gRPC clients' are;
//! - `deadline`: as well, but for a `grpc-timeout` that is new each time and enters the table;
//! - `literal`: a client without a table.
//!
//! 32 calls arrive in one read and are answered in one send. Put-sized: 300 bytes in, 30 out.

use bytes::{Bytes, BytesMut};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringleader::shard::http2::{
    connection::{Connection, Intake, Rules},
    frame::{self, PREFACE, flag, kind},
};
use std::{hint::black_box, time::Duration};

const CALLS: u32 = 32;
const FIELDS: [(&str, &str); 6] = [
    (":path", "/etcdserverpb.KV/Put"),
    (":authority", "127.0.0.1:2379"),
    ("content-type", "application/grpc"),
    ("user-agent", "grpc-go/1.71.1"),
    ("te", "trailers"),
    ("grpc-accept-encoding", "gzip"),
];

fn literal(block: &mut Vec<u8>, first: u8, name: &str, value: &str) {
    block.push(first);
    for text in [name, value] {
        block.push(text.len() as u8);
        block.extend_from_slice(text.as_bytes());
    }
}

/// Method and scheme, then the rest as `first` says: into the table, or not.
fn literals(first: u8) -> Vec<u8> {
    let mut block = vec![0x83, 0x86];
    FIELDS.iter().for_each(|(name, value)| literal(&mut block, first, name, value));
    block
}

/// All fields from the table, where `newer` entries stand in front of them.
fn indexed(newer: u8) -> Vec<u8> {
    let oldest = 61 + FIELDS.len() as u8 + newer;
    let fields = (0..FIELDS.len() as u8).map(|nth| 0x80 | (oldest - nth));
    [0x83, 0x86].into_iter().chain(fields).collect()
}

/// A connection, and its client as far as a server can tell.
struct Pair {
    server: Connection,
    next: u32,
    bodies: BytesMut,
    requests: Vec<ringleader::shard::http2::connection::Request>,
    input: Vec<u8>,
    window: usize,
}

impl Pair {
    fn new() -> Self {
        let rules = Rules { concurrent_streams_max: u32::MAX, message_bytes_max: 2 << 20 };
        let mut pair = Self {
            server: Connection::new(rules),
            next: 1,
            bodies: BytesMut::with_capacity(16 << 10),
            requests: Vec::new(),
            input: PREFACE.to_vec(),
            window: 0,
        };
        frame::put_settings(&mut pair.input, &[]);
        pair
    }

    fn add_call(&mut self, block: &[u8], body: &[u8]) {
        frame::put_head(&mut self.input, block.len(), kind::HEADERS, flag::END_HEADERS, self.next);
        self.input.extend_from_slice(block);
        frame::put_head(&mut self.input, body.len(), kind::DATA, flag::END_STREAM, self.next);
        self.input.extend_from_slice(body);
        self.next += 2;
    }

    fn turn(&mut self, answer: &[u8]) {
        let mut intake = Intake {
            now: Duration::ZERO,
            requests: &mut self.requests,
            bodies: &mut self.bodies,
            admit: &mut || None,
        };
        self.server.receive(&self.input, &mut intake).expect("a legal client");
        self.input.clear();
        for request in self.requests.drain(..) {
            black_box((request.path, request.metadata, request.body));
            self.server.answer(request.stream, Bytes::copy_from_slice(answer));
        }
        self.window += self.server.out().len();
        black_box(self.server.out());
        self.server.sent(self.server.out().len());
        if self.window > 32_000 {
            frame::put_word(&mut self.input, kind::WINDOW_UPDATE, 0, self.window as u32);
            self.window = 0;
        }
    }
}

fn message(bytes: usize) -> Vec<u8> {
    let mut body = vec![0, 0, 0, 0, 0];
    body[1..].copy_from_slice(&(bytes as u32).to_be_bytes());
    body.resize(5 + bytes, b'm');
    body
}

fn unary(c: &mut Criterion) {
    let (body, answer) = (message(300), message(30));
    let mut group = c.benchmark_group("unary call");
    group.throughput(Throughput::Elements(u64::from(CALLS)));

    for (name, first, later) in
        [("indexed", literals(0x40), indexed(0)), ("literal", literals(0), literals(0))]
    {
        let mut pair = Pair::new();
        pair.add_call(&first, &body);
        pair.turn(&answer);
        group.bench_function(name, |b| {
            b.iter(|| {
                (0..CALLS).for_each(|_| pair.add_call(&later, &body));
                pair.turn(&answer);
            });
        });
    }

    // The timeouts push the older fields out of the table now and then, so the client says them
    // again before that happens.
    let mut pair = Pair::new();
    let mut newer = u8::MAX;
    let mut micros = 0u32;
    group.bench_function("deadline", |b| {
        b.iter(|| {
            for _ in 0..CALLS {
                let mut block = if newer >= 40 { literals(0x40) } else { indexed(newer) };
                newer = if newer >= 40 { 0 } else { newer + 1 };
                newer += u8::from(newer == 0);
                micros = (micros + 1) % 1_000_000;
                literal(&mut block, 0x40, "grpc-timeout", &format!("{}u", 4_000_000 + micros));
                pair.add_call(&block, &body);
            }
            pair.turn(&answer);
        });
    });
    group.finish();
}

criterion_group!(benches, unary);
criterion_main!(benches);
