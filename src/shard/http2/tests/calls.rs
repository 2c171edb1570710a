//! Calls whose requests are streams of messages.

use super::{
    super::{Inbound, Progress},
    *,
};
use crate::{
    api::status,
    limits::{
        CALL_HELD_BYTES_MAX, HTTP2_CONNECTION_WINDOW_BYTES, HTTP2_OUT_BYTES_MAX,
        HTTP2_STREAM_WINDOW_BYTES,
    },
};
use proptest::prelude::*;

const END: u8 = flag::END_STREAM;
const NONE: [&str; 0] = [];

fn payload(bytes: usize) -> Inbound {
    Inbound::Message(vec![b'm'; bytes].into())
}

impl Server {
    /// One on which stream 1 is a call whose headers have come.
    fn called(rules: Rules) -> Self {
        let mut server = Self::greeted_by(rules, &[]);
        assert_eq!(server.hears(&open(1, 0)), NONE);
        assert_eq!(server.calls.len(), 1);
        server
    }

    fn take(&mut self) -> Inbound {
        self.connection.take(1)
    }
}

/// What WINDOW_UPDATEs give back of stream 1.
fn given_back(lines: &[String]) -> usize {
    let of_stream = lines.iter().filter_map(|line| line.strip_prefix("WINDOW 1 "));
    of_stream.map(|bytes| bytes.parse::<usize>().unwrap()).sum()
}

#[test]
fn a_call_is_handed_over_before_its_first_message() {
    let mut server = Server::called(RULES);
    let Opened { stream, path, metadata } = server.calls.pop().unwrap();
    assert_eq!((stream, &*path, metadata), (1, "/a.B/Stream", Default::default()));
    assert_eq!(server.take(), Inbound::Nothing);
    server.hears(&data(1, 0, &message(3)));
    assert_eq!(server.stirred(), [1]);
    assert_eq!((server.take(), server.take()), (payload(3), Inbound::Nothing));
}

#[test]
fn several_messages_may_come_in_one_frame() {
    let mut server = Server::called(RULES);
    let all = [message(3), message(0), message(9), message(7)].concat();
    let (most, rest) = all.split_at(all.len() - 4);
    server.hears(&data(1, 0, most));
    for bytes in [3, 0, 9] {
        assert_eq!(server.take(), payload(bytes));
    }
    assert_eq!(server.take(), Inbound::Nothing);
    server.hears(&data(1, 0, &[rest, &message(1)].concat()));
    server.hears(&data(1, 0, &message(2)));
    assert_eq!([server.take(), server.take(), server.take()], [7, 1, 2].map(payload));
}

#[test]
fn whoever_waits_is_told_of_a_message_once_it_is_whole() {
    let mut server = Server::called(RULES);
    for byte in &message(3)[..7] {
        server.hears(&data(1, 0, &[*byte]));
        assert_eq!(server.stirred(), [0; 0]);
    }
    server.hears(&data(1, 0, b"m"));
    assert_eq!(server.stirred(), [1]);
    server.hears(&data(1, 0, &message(4)));
    assert_eq!(server.stirred(), [0; 0], "it knows that there is one");
}

proptest! {
    #[test]
    fn messages_arrive_however_they_are_cut(
        sizes in prop::collection::vec(0usize..300, 1..30),
        cuts in prop::collection::vec((1usize..400, any::<bool>()), 1..30),
    ) {
        let bytes: Vec<u8> = sizes.iter().flat_map(|bytes| message(*bytes)).collect();
        let mut server = Server::called(RULES);
        let (mut rest, mut taken) = (&bytes[..], Vec::new());
        for (cut, takes) in cuts.into_iter().cycle() {
            let (now, after) = rest.split_at(cut.min(rest.len()));
            server.hears(&data(1, if after.is_empty() { END } else { 0 }, now));
            rest = after;
            while (takes || after.is_empty()) && let Inbound::Message(message) = server.take() {
                taken.push(message.len());
            }
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(server.take(), Inbound::Ended);
        prop_assert_eq!(taken, sizes);
    }
}

#[test]
fn a_handler_that_stops_taking_stops_its_client() {
    let mut server = Server::called(RULES);
    let window = HTTP2_STREAM_WINDOW_BYTES as usize;
    let part = message(16_384 - 5);
    let mut lines = Vec::new();
    for _ in 0..window / part.len() {
        lines.extend(server.hears(&data(1, 0, &part)));
    }
    assert_eq!(lines, NONE, "nothing is given back, and a quarter of the connection's is used");
    for _ in 0..window / part.len() {
        assert_eq!(server.take(), payload(part.len() - 5));
        lines.extend(server.said());
    }
    assert!(given_back(&lines) >= window / 2 && given_back(&lines) <= window, "{lines:?}");
    // The rest of the window is there already; with what was given back it is whole again.
    let free = given_back(&lines);
    for _ in 0..free / part.len() {
        assert!(server.receive(&data(1, 0, &part)).0.is_ok());
    }
    let over = server.hears(&data(1, 0, &part));
    assert_eq!(over.last().unwrap(), "RST 1 3", "{over:?}");
    assert_eq!(server.stirred().last(), Some(&1));
    assert_eq!(server.connection.progress(1), Progress::Gone);
}

#[test]
fn a_flood_of_small_messages_is_held_by_the_window() {
    let mut server = Server::called(RULES);
    let flood = message(0).repeat(16_380 / 5);
    let mut sent = 0;
    while sent + flood.len() <= HTTP2_STREAM_WINDOW_BYTES as usize {
        assert_eq!(server.hears(&data(1, 0, &flood)), NONE);
        sent += flood.len();
    }
    let mut taken = 0;
    while let Inbound::Message(_) = server.take() {
        taken += 1;
    }
    assert_eq!(taken, sent / 5);
    assert!(given_back(&server.said()) >= sent / 2);
}

#[test]
fn the_windows_of_a_stream_that_is_taken_never_end() {
    let mut server = Server::called(RULES);
    let part = message(10_000);
    let mut windows = [HTTP2_CONNECTION_WINDOW_BYTES as usize, HTTP2_STREAM_WINDOW_BYTES as usize];
    for _ in 0..5_000 {
        windows.iter_mut().for_each(|window| *window -= part.len());
        server.receive(&data(1, 0, &part)).0.unwrap();
        assert_eq!(server.take(), payload(10_000));
        for line in server.said() {
            let words: Vec<_> = line.split(' ').collect();
            let ["WINDOW", id, more] = words[..] else { panic!("{line}") };
            windows[id.parse::<usize>().unwrap()] += more.parse::<usize>().unwrap();
        }
        assert!(windows[1] <= HTTP2_STREAM_WINDOW_BYTES as usize, "never more than it began with");
    }
}

#[test]
fn a_message_larger_than_the_window_comes_through() {
    let bytes = 2 * HTTP2_STREAM_WINDOW_BYTES as usize;
    let mut server = Server::called(Rules { message_bytes_max: bytes, ..RULES });
    let (body, mut window) = (message(bytes), HTTP2_STREAM_WINDOW_BYTES as usize);
    for part in body.chunks(16_384) {
        window = window.checked_sub(part.len()).expect("the client may send");
        window += given_back(&server.hears(&data(1, 0, part)));
    }
    assert_eq!(server.take(), payload(bytes));
}

#[test]
fn padding_does_not_stop_a_message_that_nobody_can_take() {
    let mut server = Server::called(RULES);
    let mut window = HTTP2_STREAM_WINDOW_BYTES as usize;
    for byte in message(20_000) {
        window = window.checked_sub(257).expect("the client may send");
        let padded = [&[255, byte][..], &[0; 255]].concat();
        window += given_back(&server.hears(&data(1, flag::PADDED, &padded)));
    }
    assert_eq!(server.take(), payload(20_000));
}

#[test]
fn the_end_of_the_request_does_not_end_the_answers() {
    let trailers = frame(kind::HEADERS, flag::END_HEADERS | END, 1, b"\0\x01a\x01b");
    let ends = [
        [open(1, 0), data(1, 0, &message(3)), data(1, END, b"")].concat(),
        [open(1, 0), data(1, END, &message(3))].concat(),
        [open(1, 0), data(1, 0, &message(3)), trailers].concat(),
    ];
    for bytes in ends {
        let mut server = Server::greeted();
        server.hears(&bytes);
        assert_eq!([server.take(), server.take()], [payload(3), Inbound::Ended]);
        assert_eq!(server.take(), Inbound::Ended);
        assert_eq!(server.connection.send(1, &message(2), &Bytes::new()), Progress::Clear);
        server.connection.finish(1, None);
        assert_eq!(server.said(), ["HEAD 1", "DATA 1 7", "OK 1 END"]);
    }
    let mut server = Server::greeted();
    server.hears(&open(1, END));
    assert_eq!((server.stirred(), server.take()), (vec![1], Inbound::Ended));
    assert_eq!(server.hears(&data(1, 0, b"x")), ["RST 1 5"], "nothing comes behind the end");
}

#[test]
fn what_is_no_message_is_broken_behind_those_that_are() {
    let cases: [(&[u8], u8, &str); 5] = [
        (b"\0\0\0\0\x03mm", END, "unexpected EOF"),
        (b"\0\0", END, "unexpected EOF"),
        (b"\0\x00\x10\x00\x01", 0, "grpc: received message larger than max (1048577 vs. 1048576)"),
        (b"\x01\0\0\0\0", 0, "grpc: Decompressor is not installed for the request's grpc-encoding"),
        (b"\x07\0\0\0\0", 0, "grpc: received unexpected payload format 7"),
    ];
    for (bytes, flags, wanted) in cases {
        let mut server = Server::called(RULES);
        server.hears(&data(1, flags, &[&message(3), bytes].concat()));
        assert_eq!(server.take(), payload(3));
        let Inbound::Broken(status) = server.take() else { panic!("{wanted}") };
        assert_eq!(status.message, wanted);
        assert_eq!(server.take(), Inbound::Broken(status.clone()), "and stays so");
        server.connection.finish(1, Some(&status));
        let said = server.said();
        assert!(said[0].starts_with("HEADERS 1") && said[0].ends_with(" END"), "{said:?}");
        assert_eq!(server.connection.streams.len(), 0);
    }
}

#[test]
fn what_follows_a_broken_message_is_not_kept_and_its_window_not_given_back() {
    let mut server = Server::called(RULES);
    server.hears(&data(1, 0, b"\x07\0\0\0\0"));
    assert_eq!(server.stirred(), [1]);
    let part = [0; 16_384];
    for _ in 1..HTTP2_STREAM_WINDOW_BYTES as usize / part.len() {
        assert_eq!(server.hears(&data(1, 0, &part)), NONE);
    }
    assert_eq!((server.stirred(), server.unfinished.get()), (vec![], 0));
    assert_eq!(server.hears(&data(1, 0, &part)), ["RST 1 3"]);
}

#[test]
fn content_length_binds_a_call_as_well() {
    let mut block = loadgen::grpc::head("/a.B/Stream", "here");
    block.extend_from_slice(b"\0\x0econtent-length\x0210");
    let open = frame(kind::HEADERS, flag::END_HEADERS, 1, &block);
    for (bytes, flags) in [(4, END), (6, 0)] {
        let mut server = Server::greeted();
        assert_eq!(
            server.hears(&[&open[..], &data(1, flags, &message(bytes))].concat()),
            ["RST 1 1"]
        );
        assert_eq!(server.connection.progress(1), Progress::Gone);
    }
}

#[test]
fn a_reset_takes_the_messages_that_wait_with_it() {
    let mut server = Server::called(RULES);
    server.hears(&data(1, 0, &message(3)));
    server.stirred();
    server.hears(&reset(1));
    assert_eq!(server.stirred(), [1]);
    assert_eq!((server.take(), server.connection.progress(1)), (Inbound::Nothing, Progress::Gone));
    assert_eq!(server.connection.send(1, &message(3), &Bytes::new()), Progress::Gone);
    server.connection.finish(1, None);
    assert_eq!(server.said(), NONE);
}

#[test]
fn a_closed_connection_is_the_end_of_its_calls() {
    let mut server = Server::called(RULES);
    server.hears(&[open(3, END), data(1, 0, &message(3))].concat());
    server.stirred();
    server.connection.close();
    assert_eq!(server.stirred(), [1, 3]);
    assert_eq!((server.take(), server.connection.progress(1)), (Inbound::Nothing, Progress::Gone));
}

#[test]
fn calls_that_hold_much_take_a_place_or_are_told() {
    let mut server = Server::called(RULES);
    server.unfinished_max = 1;
    server.hears(&open(3, 0));
    let body = message(3 * CALL_HELD_BYTES_MAX);
    let (first, rest) = body.split_at(CALL_HELD_BYTES_MAX);
    for id in [1, 3] {
        server.hears(&data(id, 0, first));
    }
    assert_eq!(server.unfinished.get(), 0, "so much any call may hold");
    for part in rest.chunks(10_000) {
        server.hears(&[data(1, 0, part), data(3, 0, part)].concat());
    }
    assert_eq!((server.unfinished.get(), server.stirred()), (1, vec![3, 1]));
    assert_eq!(server.take(), payload(body.len() - 5));
    assert_eq!(server.unfinished.get(), 0, "given back with the message");
    let crowded = Status::new(Code::ResourceExhausted, "etcdserver: too many requests");
    assert_eq!(server.connection.take(3), Inbound::Broken(crowded));
}

#[test]
fn a_message_is_sent_at_once_where_the_windows_allow() {
    let mut server = Server::called(RULES);
    let body: Bytes = vec![b'm'; 4].into();
    for _ in 0..2 {
        assert_eq!(server.connection.send(1, b"\0\0\0\0\x04", &body), Progress::Clear);
    }
    assert_eq!(server.connection.out, {
        let message = data(1, 0, &message(4));
        [&frame(kind::HEADERS, flag::END_HEADERS, 1, reply::HEAD)[..], &message, &message].concat()
    });
    assert!(server.connection.open(1), "which is open");
    assert_eq!(server.said(), ["HEAD 1", "DATA 1 9", "DATA 1 9"]);
}

#[test]
fn headers_may_go_before_any_message() {
    let mut server = Server::called(RULES);
    assert!(server.connection.open(1));
    assert_eq!(server.said(), ["HEAD 1"]);
    server.connection.send(1, &message(0), &Bytes::new());
    assert_eq!(server.said(), ["DATA 1 5"]);
}

#[test]
fn what_waits_of_a_message_is_shared_and_not_copied() {
    let mut server = Server::greeted_by(RULES, &[(setting::INITIAL_WINDOW_SIZE, 8)]);
    server.hears(&open(1, 0));
    let body: Bytes = vec![b'm'; 5].into();
    assert_eq!(server.connection.send(1, b"\0\0\0\0\x05", &body), Progress::Busy);
    assert!(!body.is_unique(), "the rest is the same bytes");
    assert_eq!(server.said(), ["HEAD 1", "DATA 1 8"]);
    assert_eq!(server.hears(&window(1, 20)), ["DATA 1 2"]);
    assert!(body.is_unique());
    assert_eq!((server.stirred(), server.connection.progress(1)), (vec![1], Progress::Clear));
}

#[test]
fn a_call_is_refused_in_one_frame_and_ended_in_trailers() {
    let mut server = Server::called(RULES);
    server.hears(&open(3, END));
    let status = Status::new(Code::NotFound, "no");
    server.connection.finish(1, Some(&status));
    server.connection.open(3);
    server.connection.finish(3, Some(&status));
    let said = server.said();
    let refusal = format!("HEADERS 1 {} END", reply::refusal(&status).escape_ascii());
    let trailers = format!("HEADERS 3 {} END", reply::trailers(&status).escape_ascii());
    assert_eq!(said, [&refusal, "RST 1 0", "HEAD 3", &trailers]);
    assert_eq!(server.hears(&data(1, 0, &message(3))), NONE, "on its way when we ended it");
}

#[test]
fn leaving_ends_calls_even_where_a_message_waits() {
    let mut server = Server::greeted_by(RULES, &[(setting::INITIAL_WINDOW_SIZE, 8)]);
    server.hears(&[open(1, 0), open(3, 0), call(5, 0), data(3, 0, &message(1))].concat());
    server.connection.send(3, &message(10), &Bytes::new());
    server.said();
    server.stirred();
    server.connection.leave();
    let trailers = reply::trailers(&status::STOPPED).escape_ascii().to_string();
    let said = server.said();
    assert_eq!(said[0], "GOAWAY 5 0 the server is going down");
    assert!(said[1].starts_with("HEADERS 1 ") && said[1].ends_with(&format!("{trailers} END")));
    assert_eq!(said[2..], ["RST 1 0"]);
    assert_eq!(server.stirred(), [1, 3]);
    assert_eq!(server.connection.progress(3), Progress::Gone, "nothing more may be said");
    assert_eq!(server.connection.send(3, &message(1), &Bytes::new()), Progress::Gone);
    assert_eq!(server.connection.take(3), Inbound::Nothing);
    server.connection.finish(3, None);
    server.connection.abandon(3);
    assert_eq!(server.hears(&data(3, 0, &message(1))), NONE);
    assert!(!server.connection.is_quiet());
    let said = server.hears(&window(3, 100));
    assert_eq!(said, ["DATA 3 7", &format!("HEADERS 3 {trailers} END"), "RST 3 0"]);
    assert!(server.connection.is_quiet() && !server.connection.is_over(), "one is still asked");
    server.connection.answer(5, message(0).into());
    server.said();
    assert!(server.connection.is_over());
}

/// Two streams whose handlers send the next message as soon as they may: the first one's do not
/// keep the other's from leaving.
#[test]
fn a_stream_that_always_has_more_does_not_keep_the_others_waiting() {
    let most = frame::WINDOW_MAX as u32;
    let mut server = Server::greeted_by(RULES, &[(setting::INITIAL_WINDOW_SIZE, most)]);
    server.hears(&[window(0, most - 65_535), open(1, 0), open(3, 0), call(5, 0)].concat());
    let large: Bytes = message(HTTP2_OUT_BYTES_MAX + 50_000).into();
    let mut bytes = Vec::new();
    let mut drain = |server: &mut Server, most: usize| {
        let step = server.connection.out().len().min(most);
        bytes.extend_from_slice(&server.connection.out()[..step]);
        server.connection.sent(step);
    };
    let mut asked = false;
    for _ in 0..100 {
        while server.connection.progress(1) == Progress::Clear {
            server.connection.send(1, b"", &large);
        }
        if server.connection.progress(3) == Progress::Clear {
            server.connection.send(3, b"", &message(10).into());
        }
        if !std::mem::replace(&mut asked, true) {
            server.connection.answer(5, message(0).into());
        }
        drain(&mut server, 100_000);
    }
    drain(&mut server, usize::MAX);
    let lines = said(&bytes);
    let small = lines.iter().filter(|line| *line == "DATA 3 15").count();
    assert!(small >= 20, "{small} of stream 3");
    assert!(lines.contains(&"OK 5 END".to_owned()));
}

#[test]
fn a_socket_that_is_never_quite_drained_costs_a_bounded_buffer() {
    let most = frame::WINDOW_MAX as u32;
    let mut server = Server::greeted_by(RULES, &[(setting::INITIAL_WINDOW_SIZE, most)]);
    server.hears(&[window(0, most - 65_535), open(1, 0)].concat());
    let body: Bytes = message(10_000).into();
    for _ in 0..5_000 {
        server.connection.send(1, b"", &body);
        server.connection.sent(server.connection.out().len() - 9_000);
    }
    assert!(server.connection.out.capacity() <= 4 * HTTP2_OUT_BYTES_MAX);
}
