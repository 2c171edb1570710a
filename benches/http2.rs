//! What calls cost in framing, header decoding and stream state: one connection in memory.
//!
//! Unary calls:
//!
//! - `indexed`: the client's headers are all in the table, as most gRPC clients' are;
//! - `deadline`: as well, but for a `grpc-timeout` that is new each time and enters the table;
//! - `literal`: a client without a table.
//!
//! 32 calls arrive in one read and are answered in one send. Put-sized: 300 bytes in, 30 out.
//!
//! Messages on calls that stay open:
//!
//! - `fan-out`: one on each of 1,000, 120 bytes, 100 of them shared, as watchers of one key get;
//! - `ping-pong`: one in and one out on each of 32, 12 bytes and 40, as leases are kept alive.

use bytes::{Bytes, BytesMut};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringleader::shard::http2::{
    Inbound,
    connection::{Connection, Intake, Opened, Request, Rules},
    frame::{self, PREFACE, flag, kind, setting},
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
    requests: Vec<Request>,
    calls: Vec<Opened>,
    input: Vec<u8>,
    window: usize,
}

impl Pair {
    fn new() -> Self {
        let rules = Rules {
            concurrent_streams_max: u32::MAX,
            message_bytes_max: 2 << 20,
            takes_stream: ringleader::api::method::takes_stream,
        };
        let mut pair = Self {
            server: Connection::new(rules),
            next: 1,
            bodies: BytesMut::with_capacity(16 << 10),
            requests: Vec::new(),
            calls: Vec::new(),
            input: PREFACE.to_vec(),
            window: 0,
        };
        frame::put_settings(&mut pair.input, &[]);
        pair
    }

    /// One on which this many calls are open, with windows that no measurement exhausts.
    fn with_open_calls(calls: u32) -> Self {
        let mut pair = Self::new();
        let window = frame::WINDOW_MAX as u32;
        frame::put_settings(&mut pair.input, &[(setting::INITIAL_WINDOW_SIZE, window)]);
        frame::put_word(&mut pair.input, kind::WINDOW_UPDATE, 0, window / 2);
        let mut block = vec![0x83, 0x86];
        literal(&mut block, 0, ":path", "/etcdserverpb.Watch/Watch");
        FIELDS[1..].iter().for_each(|(name, value)| literal(&mut block, 0, name, value));
        for nth in 0..calls {
            let (stream, flags) = (2 * nth + 1, flag::END_HEADERS);
            frame::put_head(&mut pair.input, block.len(), kind::HEADERS, flags, stream);
            pair.input.extend_from_slice(&block);
        }
        pair.receive();
        assert_eq!(pair.calls.len(), calls as usize);
        pair.drain();
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
        self.receive();
        for request in self.requests.drain(..) {
            black_box((request.path, request.metadata, request.body));
            self.server.answer(request.stream, Bytes::copy_from_slice(answer));
        }
        self.drain();
    }

    fn receive(&mut self) {
        let mut intake = Intake {
            now: Duration::ZERO,
            requests: &mut self.requests,
            calls: &mut self.calls,
            bodies: &mut self.bodies,
            admit: &mut || None,
        };
        self.server.receive(&self.input, &mut intake).expect("a legal client");
        self.input.clear();
    }

    fn drain(&mut self) {
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

fn streams(c: &mut Criterion) {
    const WATCHERS: u32 = 1_000;
    let mut group = c.benchmark_group("message on an open call");

    let (message, mut pair) = (message(115), Pair::with_open_calls(WATCHERS));
    let (head, body) = (&message[..20], Bytes::copy_from_slice(&message[20..]));
    group.throughput(Throughput::Elements(u64::from(WATCHERS)));
    group.bench_function("fan-out", |b| {
        b.iter(|| {
            pair.receive();
            for call in &pair.calls {
                black_box(pair.server.send(call.stream, head, &body));
            }
            pair.drain();
        });
    });

    let (ask, answer) = (self::message(7), self::message(35));
    let (mut pair, none) = (Pair::with_open_calls(CALLS), Bytes::new());
    group.throughput(Throughput::Elements(u64::from(CALLS)));
    group.bench_function("ping-pong", |b| {
        b.iter(|| {
            for nth in 0..CALLS {
                frame::put_head(&mut pair.input, ask.len(), kind::DATA, 0, 2 * nth + 1);
                pair.input.extend_from_slice(&ask);
            }
            pair.receive();
            while let Some(stream) = pair.server.next_stirred() {
                while let Inbound::Message(message) = pair.server.take(stream) {
                    black_box(message);
                    black_box(pair.server.send(stream, &answer, &none));
                }
            }
            pair.drain();
        });
    });
    group.finish();
}

criterion_group!(benches, unary, streams);
criterion_main!(benches);
