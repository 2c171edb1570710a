//! Bad clients hurt themselves: while each does its worst, another client's puts and watches go on.
#![allow(clippy::disallowed_methods, reason = "real sockets take real time")]

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    thread,
    time::Duration,
};

use e2e::{
    Dice, binary,
    ledger::Ledger,
    neighbour::{SERVED_MAX, beside_a_good_client},
    server::{Folder, Server, Setup},
};

const IDLE_CONNECTIONS: usize = 10_000;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
/// The headers of a put.
fn put_headers(stream: u8) -> Vec<u8> {
    headers(stream, "/etcdserverpb.KV/Put")
}

/// POST, http, path, authority, content-type application/grpc, te trailers; END_HEADERS.
fn headers(stream: u8, path: &str) -> Vec<u8> {
    let mut block = vec![0x83, 0x86];
    let names = [
        (":path", path),
        (":authority", "a"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    for (name, value) in names {
        block.extend([0, name.len() as u8]);
        block.extend(name.as_bytes());
        block.push(value.len() as u8);
        block.extend(value.as_bytes());
    }
    [&[0, 0, block.len() as u8, 1, 4, 0, 0, 0, stream][..], &block].concat()
}

fn connect(server: &Server) -> TcpStream {
    let socket = TcpStream::connect(server.endpoint()).expect("it listens");
    socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket takes a timeout");
    socket
}

/// Says this and no more, then waits until the server closes. Whether it answers first, or closes
/// with a reset because not all was read, is its own affair.
fn say(server: &Server, words: &[u8]) {
    let mut socket = connect(server);
    // The server may close while this is still being written.
    socket.write_all(words).ok();
    socket.shutdown(Shutdown::Write).ok();
    match socket.read_to_end(&mut Vec::new()) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            panic!("the connection stays open after {:?}", &words[..words.len().min(60)])
        }
        _ => {}
    }
}

#[test]
fn garbage() {
    beside_a_good_client("garbage", |server| {
        let mut dice = Dice::new(binary::seed());
        for _ in 0..200 {
            let bytes = dice.below(3_000);
            let words: Vec<u8> = (0..bytes).map(|_| dice.number() as u8).collect();
            say(server, &words);
        }
    });
}

#[test]
fn tls_on_the_plain_port() {
    beside_a_good_client("tls", |server| {
        let hello = [&[0x16, 3, 1, 0, 0xc8, 1, 0, 0, 0xc4, 3, 3][..], &[7; 0xc2]].concat();
        (0..20).for_each(|_| say(server, &hello));
    });
}

#[test]
fn half_of_everything() {
    beside_a_good_client("half", |server| {
        let whole =
            [PREFACE, SETTINGS, &put_headers(1), b"\0\0\x08\0\x01\0\0\0\x01\0\0\0\0\x03\x0a\x01k"]
                .concat();
        (0..whole.len()).for_each(|end| say(server, &whole[..end]));
        let http = b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n";
        (0..http.len()).for_each(|end| say(server, &http[..end]));
    });
}

#[test]
fn half_a_request_left_open() {
    beside_a_good_client("open", |server| {
        let half = [PREFACE, SETTINGS, &put_headers(1), b"\0\0\x08\0\0\0\0\0\x01\0\0\x0f"].concat();
        let sockets: Vec<_> = (0..200)
            .map(|_| {
                let mut socket = connect(server);
                socket.write_all(&half).expect("so far it is right");
                socket
            })
            .collect();
        thread::sleep(Duration::from_millis(500));
        drop(sockets);
    });
}

/// Frames that HTTP/2 forbids, each after a right beginning (RFC 9113 §4.2, §5.1, §6).
#[test]
fn frames_that_break_the_protocol() {
    beside_a_good_client("frames", |server| {
        let oversized = [&b"\xff\xff\xff\0\x01\0\0\0\x01"[..], &[0; 100_000]].concat();
        let frames: [&[u8]; 10] = [
            &oversized,                                // DATA of 16 MiB
            b"\0\0\x01\0\0\0\0\0\0x",                  // DATA on stream 0
            b"\0\0\x01\0\0\0\0\0\x05x",                // DATA on an idle stream
            b"\0\0\x05\x04\0\0\0\0\0abcde",            // SETTINGS of 5 bytes
            b"\0\0\x01\x06\0\0\0\0\0x",                // PING of 1 byte
            b"\0\0\x04\x08\0\0\0\0\0\0\0\0\0",         // WINDOW_UPDATE by 0
            b"\0\0\x04\x08\0\0\0\0\0\x7f\xff\xff\xff", // and beyond all
            b"\0\0\x02\x01\x05\0\0\0\x01\xff\xff",     // HEADERS that are no HPACK
            b"\0\0\x01\x09\x04\0\0\0\x01x",            // CONTINUATION of nothing
            b"\0\0\x04\x05\x04\0\0\0\x01\0\0\0\x02",   // PUSH_PROMISE by a client
        ];
        for frame in frames {
            say(server, &[PREFACE, SETTINGS, frame].concat());
        }
    });
}

#[test]
fn many_streams_given_up_at_once() {
    beside_a_good_client("reset", |server| {
        let mut socket = connect(server);
        let mut words = [PREFACE, SETTINGS].concat();
        for stream in (1..=255).step_by(2) {
            words.extend(put_headers(stream));
            words.extend([0, 0, 4, 3, 0, 0, 0, 0, stream, 0, 0, 0, 8]);
        }
        for _ in 0..20 {
            socket.write_all(&words).ok();
            socket = connect(server);
        }
    });
}

/// A client that is told goes elsewhere at once, one whose socket just closes may not. Whoever
/// watches is told that its stream ends.
#[test]
fn idle_connections_are_told_that_the_server_goes_down() {
    const ACK: &[u8] = b"\0\0\0\x04\x01\0\0\0\0";
    const GOAWAY: &[u8] = b"\x07\0\0\0\0\0\0\0\0\x01\0\0\0\0the server is going down";
    let folder = Folder::new("told");
    let server = Setup::new(&binary::ringleader(), folder.path()).start().expect("it starts");
    let watch = headers(1, "/etcdserverpb.Watch/Watch");
    let mut idle: Vec<_> = (0..8).map(|_| connect(&server)).collect();
    for socket in &mut idle {
        // The second SETTINGS are acknowledged once the watch stream is open.
        let words = [PREFACE, SETTINGS, &watch, SETTINGS].concat();
        socket.write_all(&words).expect("it is taken");
        let mut heard = Vec::new();
        while heard.windows(ACK.len()).filter(|bytes| *bytes == ACK).count() < 2 {
            let mut byte = [0];
            socket.read_exact(&mut byte).expect("it greets");
            heard.extend(byte);
        }
    }
    assert!(server.terminate().status.is_some(), "open streams do not hold it up");
    for mut socket in idle {
        let mut last = Vec::new();
        socket.read_to_end(&mut last).expect("it says something and closes");
        let says = |words: &[u8]| last.windows(words.len()).any(|bytes| bytes == words);
        assert!(says(GOAWAY), "{}", last.escape_ascii());
        assert!(says(b"etcdserver: server stopped"), "{}", last.escape_ascii());
    }
}

#[test]
fn ten_thousand_idle_connections() {
    let room = rlimit(IDLE_CONNECTIONS as u64 + 1_000);
    let Some(room) = room else {
        eprintln!("skipped: the limit on open files is too low and cannot be raised");
        return;
    };
    assert!(room >= IDLE_CONNECTIONS as u64);
    beside_a_good_client("idle", |server| {
        let idle: Vec<_> = (0..IDLE_CONNECTIONS)
            .map(|at| {
                let mut socket = connect(server);
                // Every second one is a client that has greeted.
                if at % 2 == 0 {
                    socket.write_all(&[PREFACE, SETTINGS].concat()).expect("it is taken");
                }
                socket
            })
            .collect();
        let mut ledger = Ledger::new("late", 10);
        let mut client = server.client();
        client.set_timeout(SERVED_MAX);
        for _ in 0..50 {
            ledger.put(&mut client, 100).expect("a new client is served");
        }
        drop(idle);
    });
}

/// Raises the limit on open files, for this process and those it starts.
#[allow(unsafe_code)]
fn rlimit(files: u64) -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: reads into and out of a struct that outlives both calls.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) != 0 {
            return None;
        }
        limit.rlim_max = limit.rlim_max.max(files);
        limit.rlim_cur = limit.rlim_cur.max(files);
        if libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) != 0 {
            return None;
        }
    }
    Some(limit.rlim_cur)
}
