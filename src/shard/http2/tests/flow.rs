//! Windows, both ways.

use super::{super::send::Progress, *};
use crate::limits::{
    HTTP2_CONNECTION_WINDOW_BYTES, HTTP2_OUT_BYTES_MAX, HTTP2_STREAM_WINDOW_BYTES,
};

const END: u8 = flag::END_STREAM;

fn set_window(bytes: u32) -> Vec<u8> {
    let mut out = Vec::new();
    frame::put_settings(&mut out, &[(setting::INITIAL_WINDOW_SIZE, bytes)]);
    out
}

#[test]
fn an_answer_waits_for_its_streams_window() {
    let mut server = Server::greeted_by(RULES, &[(setting::INITIAL_WINDOW_SIZE, 10)]);
    server.hears(&[call(1, 0), call(3, 0)].concat());
    server.connection.answer(1, message(20).into());
    assert_eq!(server.said(), ["HEAD 1", "DATA 1 10"]);
    server.connection.answer(3, message(5).into());
    assert_eq!(server.said(), ["HEAD 3", "DATA 3 10", "OK 3 END"], "the others go on");
    assert_eq!(server.hears(&window(1, 5)), ["DATA 1 5"]);
    assert_eq!(server.hears(&window(1, 100)), ["DATA 1 10", "OK 1 END"]);
    assert_eq!(server.connection.stalled, 0);
}

#[test]
fn an_answer_waits_for_the_connections_window() {
    let mut server = Server::greeted_by(RULES, &[(setting::INITIAL_WINDOW_SIZE, 1 << 30)]);
    server.hears(&[call(1, 0), call(3, 0), call(5, 0)].concat());
    server.connection.answer(1, message(65_000).into());
    assert_eq!(server.said().len(), 6);
    server.connection.answer(3, message(1000).into());
    server.connection.answer(5, message(0).into());
    assert_eq!(server.said(), ["HEAD 3", "DATA 3 530", "HEAD 5"]);
    assert_eq!(server.hears(&window(0, 400)), ["DATA 3 400"]);
    let rest = ["DATA 3 75", "OK 3 END", "DATA 5 5", "OK 5 END"];
    assert_eq!(server.hears(&window(0, 80)), rest, "oldest first, to the byte");
}

#[test]
fn a_changed_setting_moves_the_windows_of_open_streams() {
    let mut server = Server::greeted_by(RULES, &[(setting::INITIAL_WINDOW_SIZE, 10)]);
    server.hears(&call(1, 0));
    server.connection.answer(1, message(95).into());
    assert_eq!(server.said(), ["HEAD 1", "DATA 1 10"]);
    assert_eq!(server.hears(&set_window(30)), ["SETTINGS ACK", "DATA 1 20"]);
    // Below what is used up already: RFC 9113 §6.9.2 lets a window be negative.
    assert_eq!(server.hears(&set_window(5)), ["SETTINGS ACK"]);
    assert_eq!(server.hears(&window(1, 25)), [""; 0]);
    assert_eq!(server.hears(&window(1, 1)), ["DATA 1 1"]);
    assert_eq!(server.hears(&set_window(1000)), ["SETTINGS ACK", "DATA 1 69", "OK 1 END"]);
}

#[test]
fn a_setting_must_not_make_a_window_too_large() {
    let mut server = Server::greeted();
    server.hears(&[call(1, 0), window(1, 100)].concat());
    let goaway = server.receive(&set_window((1 << 31) - 1)).0.unwrap_err();
    assert_eq!(goaway.reason, Reason::FlowControl);
}

#[test]
fn large_frames_are_used_where_the_client_takes_them() {
    let settings = [(setting::INITIAL_WINDOW_SIZE, 1 << 20), (setting::MAX_FRAME_SIZE, 60_000)];
    let mut server = Server::greeted_by(RULES, &settings);
    server.hears(&call(1, 0));
    server.connection.answer(1, message(59_995).into());
    assert_eq!(server.said(), ["HEAD 1", "DATA 1 60000", "OK 1 END"]);
}

#[test]
fn a_large_answer_leaves_piece_by_piece_as_the_socket_takes_it() {
    let most = frame::WINDOW_MAX as u32;
    let mut server = Server::greeted_by(RULES, &[(setting::INITIAL_WINDOW_SIZE, most)]);
    server.hears(&window(0, most - 65_535));
    server.hears(&[call(1, 0), call(3, 0)].concat());
    server.connection.answer(1, message(3 * HTTP2_OUT_BYTES_MAX).into());
    assert!(server.connection.is_full());
    assert!(server.connection.out().len() < HTTP2_OUT_BYTES_MAX + 1000);
    server.connection.answer(3, message(10).into());
    let mut bytes = Vec::new();
    while !server.connection.out().is_empty() {
        let step = server.connection.out().len().min(50_000);
        assert!(server.connection.out().len() < HTTP2_OUT_BYTES_MAX + 1000);
        bytes.extend_from_slice(&server.connection.out()[..step]);
        server.connection.sent(step);
    }
    let lines = said(&bytes);
    let body = |stream: &str| -> usize {
        let data = lines.iter().filter_map(|line| line.strip_prefix(stream));
        data.map(|bytes| bytes.parse::<usize>().unwrap()).sum()
    };
    assert_eq!(body("DATA 1 "), 3 * HTTP2_OUT_BYTES_MAX + 5);
    assert_eq!(body("DATA 3 "), 15);
    assert_eq!(lines.iter().filter(|line| line.starts_with("OK ")).count(), 2);
}

#[test]
fn a_reset_frees_what_waited() {
    let mut server = Server::greeted_by(RULES, &[(setting::INITIAL_WINDOW_SIZE, 0)]);
    server.hears(&call(1, 0));
    server.connection.answer(1, message(9).into());
    assert_eq!((server.said(), server.connection.stalled), (vec!["HEAD 1".to_owned()], 1));
    assert_eq!(server.hears(&reset(1)), [""; 0]);
    assert_eq!((server.connection.streams.len(), server.connection.stalled), (0, 0));
}

#[test]
fn the_clients_windows_are_refilled_when_half_is_used() {
    let part = [0; 16_000];
    let whole = HTTP2_STREAM_WINDOW_BYTES as usize + 100_000;
    let mut server = Server::greeted_by(Rules { message_bytes_max: whole, ..RULES }, &[]);
    let mut refilled = [0; 2];
    let (mut sent, body) = (0, message(whole - 5));
    server.hears(&headers(1, 0));
    for chunk in body.chunks(part.len()) {
        for line in server.hears(&data(1, 0, chunk)) {
            let words: Vec<_> = line.split(' ').collect();
            let [_, id, more] = words[..] else { panic!("a WINDOW_UPDATE") };
            refilled[id.parse::<usize>().unwrap()] += more.parse::<usize>().unwrap();
        }
        sent += chunk.len();
    }
    assert!(refilled[1] >= sent / 2 && refilled[1] <= sent, "{refilled:?} of {sent}");
    assert_eq!(refilled[0], 0, "a quarter of the connection's window is used");
    let (_, requests) = server.receive(&data(1, END, b""));
    assert_eq!(requests[0].body, body);
}

#[test]
fn padding_counts_against_the_windows() {
    let mut server = Server::greeted();
    server.hears(&headers(1, 0));
    let padded = |part: &[u8]| [&[255][..], part, &[0; 255]].concat();
    let mut used = 0;
    for part in message(1_000_000).chunks(1000) {
        let padded = padded(part);
        used += padded.len();
        let said = server.hears(&data(1, flag::PADDED, &padded));
        if used >= HTTP2_STREAM_WINDOW_BYTES as usize / 2 {
            return assert_eq!(said, [format!("WINDOW 1 {used}")]);
        }
        assert_eq!(said, [""; 0]);
    }
    panic!("the window was never refilled");
}

#[test]
fn more_than_a_window_is_an_error() {
    let part = vec![0; 16_384];
    let mut frames = headers(1, 0);
    for _ in 0..HTTP2_CONNECTION_WINDOW_BYTES as usize / part.len() {
        frames.extend(data(1, 0, &part));
    }
    // All of it in one read, so that nothing is refilled in between.
    let mut server = Server::greeted();
    server.hears(&frames);
    let mut server = Server::greeted();
    frames.extend(data(1, 0, b"x"));
    assert_eq!(server.receive(&frames).0.unwrap_err().reason, Reason::FlowControl);
}

#[test]
fn a_streamed_answer_waits_between_messages() {
    let mut server = Server::greeted_by(RULES, &[(setting::INITIAL_WINDOW_SIZE, 10)]);
    server.hears(&call(1, 0));
    assert!(server.connection.open(1));
    assert_eq!(server.connection.progress(1), Progress::Clear);
    server.connection.send(1, b"", &message(3).into());
    assert_eq!(server.connection.progress(1), Progress::Clear);
    server.connection.send(1, b"", &message(3).into());
    assert_eq!(server.connection.progress(1), Progress::Busy);
    assert_eq!(server.said(), ["HEAD 1", "DATA 1 8", "DATA 1 2"]);
    assert_eq!(server.stirred(), [0; 0], "nothing that the sender does not know");
    assert_eq!(server.hears(&window(1, 6)), ["DATA 1 6"]);
    assert_eq!(server.stirred(), [1]);
    assert_eq!(server.connection.progress(1), Progress::Clear);
    server.connection.finish(1, None);
    assert_eq!(server.said(), ["OK 1 END"]);
    assert_eq!(server.connection.progress(1), Progress::Gone);
    assert!(!server.connection.open(1));
}

#[test]
fn a_streamed_answer_may_end_behind_a_message_that_waits() {
    let mut server = Server::greeted_by(RULES, &[(setting::INITIAL_WINDOW_SIZE, 4)]);
    server.hears(&call(1, 0));
    server.connection.open(1);
    server.connection.send(1, b"", &message(0).into());
    server.connection.finish(1, Some(&Status::new(Code::DataLoss, "gone")));
    assert_eq!(server.said(), ["HEAD 1", "DATA 1 4"]);
    let said = server.hears(&window(1, 9));
    assert_eq!(said[0], "DATA 1 1");
    assert!(said[1].ends_with(r"grpc-status\x0215\x00\x0cgrpc-message\x04gone END"), "{said:?}");
}

#[test]
fn whoever_waits_hears_that_the_client_is_gone() {
    let mut server = Server::greeted_by(RULES, &[(setting::INITIAL_WINDOW_SIZE, 0)]);
    server.hears(&[call(1, 0), call(3, 0)].concat());
    for id in [1, 3] {
        server.connection.open(id);
        server.connection.send(id, b"", &message(0).into());
    }
    server.hears(&reset(1));
    assert_eq!(server.stirred(), [1]);
    assert_eq!(server.connection.progress(1), Progress::Gone);
    server.connection.close();
    assert_eq!(server.stirred(), [3]);
    assert_eq!(server.connection.progress(3), Progress::Gone);
}
