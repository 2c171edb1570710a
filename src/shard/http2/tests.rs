//! The connection as its client sees it: bytes in, frames out.

mod calls;
mod flow;
mod handles;
mod peers;
mod random;
mod rules;

use super::{
    connection::{Connection, Intake, Opened, Request, Rules},
    frame::{self, Goaway, HEAD_BYTES, PREFACE, Reason, flag, kind, setting},
    reply,
};
use crate::{
    api::status::{Code, Status},
    limits::HTTP2_BODY_CHUNK_BYTES,
    shard::Place,
};
use bytes::{Bytes, BytesMut};
use std::{cell::Cell, rc::Rc, time::Duration};

const RULES: Rules = Rules {
    concurrent_streams_max: u32::MAX,
    message_bytes_max: 1 << 20,
    takes_stream: |path| path == "/a.B/Stream",
};

/// A connection with everything that a core lends it.
struct Server {
    connection: Connection,
    now: Duration,
    bodies: BytesMut,
    /// Calls that were opened.
    calls: Vec<Opened>,
    unfinished: Rc<Cell<usize>>,
    unfinished_max: usize,
}

impl Server {
    /// One that nobody has talked to.
    fn fresh(rules: Rules) -> Self {
        Self {
            connection: Connection::new(rules),
            now: Duration::ZERO,
            bodies: BytesMut::with_capacity(HTTP2_BODY_CHUNK_BYTES),
            calls: Vec::new(),
            unfinished: Rc::default(),
            unfinished_max: 100,
        }
    }

    /// One that has been greeted; what it says about that is gone.
    fn greeted_by(rules: Rules, settings: &[(u16, u32)]) -> Self {
        let mut server = Self::fresh(rules);
        let mut greeting = PREFACE.to_vec();
        frame::put_settings(&mut greeting, settings);
        server.receive(&greeting).0.unwrap();
        server.said();
        server
    }

    fn greeted() -> Self {
        Self::greeted_by(RULES, &[])
    }

    fn receive(&mut self, bytes: &[u8]) -> (Result<(), Goaway>, Vec<Request>) {
        let mut requests = Vec::new();
        let Self { unfinished, unfinished_max, .. } = self;
        let mut intake = Intake {
            now: self.now,
            requests: &mut requests,
            calls: &mut self.calls,
            bodies: &mut self.bodies,
            admit: &mut || Place::take(unfinished, *unfinished_max),
        };
        let received = self.connection.receive(bytes, &mut intake);
        (received, requests)
    }

    /// Takes everything that is to be sent, and reads it.
    fn said(&mut self) -> Vec<String> {
        let mut out = Vec::new();
        while !self.connection.out().is_empty() {
            out.extend_from_slice(self.connection.out());
            self.connection.sent(self.connection.out().len());
        }
        said(&out)
    }

    /// Receives what must be legal, and says what the server says to it.
    fn hears(&mut self, bytes: &[u8]) -> Vec<String> {
        let (received, _) = self.receive(bytes);
        received.unwrap();
        self.said()
    }

    /// Streams to which something has happened since this was last asked.
    fn stirred(&mut self) -> Vec<u32> {
        std::iter::from_fn(|| self.connection.next_stirred()).collect()
    }
}

/// Frames, one a line.
fn said(mut out: &[u8]) -> Vec<String> {
    let mut lines = Vec::new();
    while let Some((bytes, rest)) = out.split_first_chunk::<HEAD_BYTES>() {
        // The client may have allowed frames larger than ours.
        let len = u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]) as usize;
        let head = frame::Head::read(&[&[0; 3], &bytes[3..]].concat().try_into().unwrap()).unwrap();
        let (payload, rest) = rest.split_at(len);
        let id = head.stream;
        let end = if head.has(flag::END_STREAM) { " END" } else { "" };
        let last = || u32::from_be_bytes(*payload.last_chunk().unwrap());
        lines.push(match head.kind {
            kind::DATA => format!("DATA {id} {}{end}", payload.len()),
            kind::HEADERS if payload == reply::HEAD => format!("HEAD {id}{end}"),
            kind::HEADERS if payload == reply::TRAILERS_OK => format!("OK {id}{end}"),
            kind::HEADERS => format!("HEADERS {id} {}{end}", payload.escape_ascii()),
            kind::RST_STREAM => format!("RST {id} {}", last()),
            kind::SETTINGS if head.has(flag::ACK) => "SETTINGS ACK".into(),
            kind::SETTINGS => format!("SETTINGS {}", payload.len() / 6),
            kind::PING if head.has(flag::ACK) => format!("PONG {}", payload.escape_ascii()),
            kind::WINDOW_UPDATE => format!("WINDOW {id} {}", last()),
            kind::GOAWAY => {
                let code = u32::from_be_bytes(payload[4..8].try_into().unwrap());
                format!("GOAWAY {} {code} {}", payload[3], String::from_utf8_lossy(&payload[8..]))
            }
            other => format!("frame {other} on {id}"),
        });
        out = rest;
    }
    assert!(out.is_empty(), "whole frames only");
    lines
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::put_head(&mut out, payload.len(), kind, flags, stream);
    out.extend_from_slice(payload);
    out
}

/// The header block of a call to `/a.B/C`, as a client without a table says it.
fn block() -> Vec<u8> {
    loadgen::grpc::head("/a.B/C", "here")
}

fn headers(stream: u32, flags: u8) -> Vec<u8> {
    frame(kind::HEADERS, flag::END_HEADERS | flags, stream, &block())
}

/// The headers of a call whose request is a stream.
fn open(stream: u32, flags: u8) -> Vec<u8> {
    let block = loadgen::grpc::head("/a.B/Stream", "here");
    frame(kind::HEADERS, flag::END_HEADERS | flags, stream, &block)
}

fn data(stream: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    frame(kind::DATA, flags, stream, payload)
}

/// One message, framed.
fn message(bytes: usize) -> Vec<u8> {
    let mut body = vec![0];
    body.extend_from_slice(&(bytes as u32).to_be_bytes());
    body.resize(5 + bytes, b'm');
    body
}

/// A whole unary call.
fn call(stream: u32, bytes: usize) -> Vec<u8> {
    [headers(stream, 0), data(stream, flag::END_STREAM, &message(bytes))].concat()
}

fn window(stream: u32, more: u32) -> Vec<u8> {
    frame(kind::WINDOW_UPDATE, 0, stream, &more.to_be_bytes())
}

fn reset(stream: u32) -> Vec<u8> {
    frame(kind::RST_STREAM, 0, stream, &(Reason::Cancel as u32).to_be_bytes())
}
