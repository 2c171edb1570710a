//! What a client may do and what becomes of it, rule by rule.

use super::*;
use crate::limits::{
    HTTP2_CONTINUATIONS_MAX, HTTP2_EMPTY_FRAMES_MAX, HTTP2_HEADER_BYTES_MAX, HTTP2_RESETS_AHEAD_MAX,
};

const END: u8 = flag::END_STREAM;

#[test]
fn a_call_is_taken_and_answered() {
    let mut server = Server::greeted();
    let (received, requests) = server.receive(&call(1, 3));
    received.unwrap();
    let [request] = &requests[..] else { panic!("one request") };
    assert_eq!((request.stream, &*request.path), (1, "/a.B/C"));
    assert_eq!(request.body, message(3));
    assert_eq!(server.said(), [""; 0]);
    server.connection.answer(1, message(4).into());
    assert_eq!(server.said(), ["HEAD 1", "DATA 1 9", "OK 1 END"]);
    server.connection.answer(1, message(4).into());
    assert_eq!(server.said(), [""; 0], "it was answered");
}

#[test]
fn the_server_greets_first_and_acknowledges() {
    let mut server = Server::fresh(RULES);
    assert_eq!(server.said(), ["SETTINGS 2", "WINDOW 0 8323073"]);
    let mut few = Server::fresh(Rules { concurrent_streams_max: 7, ..RULES });
    assert_eq!(few.said(), ["SETTINGS 3", "WINDOW 0 8323073"]);
    let greeting = [PREFACE, &frame(kind::SETTINGS, 0, 0, b"")].concat();
    assert_eq!(server.hears(&greeting), ["SETTINGS ACK"]);
}

#[test]
fn bytes_may_come_one_by_one() {
    let mut server = Server::fresh(RULES);
    server.said();
    let padded = data(3, flag::PADDED | END, &[&[2][..], &message(1), &[0, 0]].concat());
    let bytes =
        [PREFACE, &frame(kind::SETTINGS, 0, 0, b""), &call(1, 0), &headers(3, 0), &padded].concat();
    let mut requests = Vec::new();
    for byte in bytes {
        let (received, more) = server.receive(&[byte]);
        received.unwrap();
        requests.extend(more);
    }
    let bodies: Vec<_> = requests.iter().map(|request| request.body.clone()).collect();
    assert_eq!(bodies, [message(0), message(1)]);
    assert_eq!(server.unfinished.get(), 0, "places are given back");
}

#[test]
fn what_ends_the_connection() {
    let long = vec![0; frame::FRAME_BYTES_MAX + 1];
    let open = headers(1, 0);
    let continuations = frame(kind::CONTINUATION, 0, 1, b"").repeat(HTTP2_CONTINUATIONS_MAX + 1);
    let wide = frame(kind::CONTINUATION, 0, 1, &[0; 16_000]).repeat(5);
    let begun = frame(kind::HEADERS, 0, 1, b"");
    let set = |name: u16, value: u32| {
        let mut out = Vec::new();
        frame::put_settings(&mut out, &[(name, value)]);
        out
    };
    let cases: Vec<(Vec<u8>, Reason, &str)> = vec![
        (data(0, 0, b"x"), Reason::Protocol, "never opened"),
        (data(1, 0, b"x"), Reason::Protocol, "never opened"),
        (data(2, 0, b"x"), Reason::Protocol, "never opened"),
        (frame(kind::DATA, 0, 1, &long), Reason::FrameSize, "MAX_FRAME_SIZE"),
        ([open.clone(), data(1, flag::PADDED, b"\x05abc")].concat(), Reason::Protocol, "padding"),
        ([open.clone(), data(1, flag::PADDED, b"")].concat(), Reason::FrameSize, "pad length"),
        (headers(0, 0), Reason::Protocol, "odd"),
        (headers(2, 0), Reason::Protocol, "odd"),
        (frame(kind::HEADERS, flag::PADDED, 1, b"\x09a"), Reason::Protocol, "padding"),
        (frame(kind::HEADERS, flag::PRIORITY, 1, b"abcd"), Reason::FrameSize, "priority"),
        (frame(kind::HEADERS, flag::END_HEADERS, 1, b"\xbe"), Reason::Compression, "header block"),
        ([&begun[..], &call(3, 0)].concat(), Reason::Protocol, "interrupted"),
        ([&begun[..], &frame(99, 0, 0, b"")].concat(), Reason::Protocol, "interrupted"),
        (frame(kind::CONTINUATION, flag::END_HEADERS, 1, b""), Reason::Protocol, "of nothing"),
        (
            [&begun[..], &frame(kind::CONTINUATION, flag::END_HEADERS, 3, b"")].concat(),
            Reason::Protocol,
            "of nothing",
        ),
        ([&begun[..], &continuations].concat(), Reason::EnhanceYourCalm, "too long"),
        ([&begun[..], &wide].concat(), Reason::EnhanceYourCalm, "too long"),
        (frame(kind::PRIORITY, 0, 0, &[0; 5]), Reason::Protocol, "PRIORITY"),
        (frame(kind::PRIORITY, 0, 1, &[0; 4]), Reason::FrameSize, "PRIORITY"),
        (reset(1), Reason::Protocol, "never opened"),
        (reset(0), Reason::Protocol, "never opened"),
        (frame(kind::RST_STREAM, 0, 1, b"abc"), Reason::FrameSize, "four bytes"),
        (frame(kind::SETTINGS, 0, 1, b""), Reason::Protocol, "SETTINGS on a stream"),
        (frame(kind::SETTINGS, 0, 0, b"12345"), Reason::FrameSize, "six bytes"),
        (frame(kind::SETTINGS, flag::ACK, 0, b"123456"), Reason::FrameSize, "ACK"),
        (set(setting::ENABLE_PUSH, 2), Reason::Protocol, "ENABLE_PUSH"),
        (set(setting::INITIAL_WINDOW_SIZE, 1 << 31), Reason::FlowControl, "2^31-1"),
        (set(setting::MAX_FRAME_SIZE, 16_383), Reason::Protocol, "MAX_FRAME_SIZE"),
        (set(setting::MAX_FRAME_SIZE, 1 << 24), Reason::Protocol, "MAX_FRAME_SIZE"),
        (frame(kind::PUSH_PROMISE, flag::END_HEADERS, 1, &[0; 4]), Reason::Protocol, "push"),
        (frame(kind::PING, 0, 0, b"1234567"), Reason::FrameSize, "eight"),
        (frame(kind::PING, 0, 1, b"12345678"), Reason::Protocol, "PING on a stream"),
        (frame(kind::GOAWAY, 0, 0, b"1234567"), Reason::FrameSize, "eight"),
        (frame(kind::GOAWAY, 0, 1, b"12345678"), Reason::Protocol, "GOAWAY on a stream"),
        ([headers(3, 0), headers(1, END)].concat(), Reason::Protocol, "closed stream"),
        ([open.clone(), reset(1), headers(1, END)].concat(), Reason::Protocol, "closed stream"),
        (window(0, 0), Reason::Protocol, "of nothing"),
        (window(0, (1 << 31) - 1), Reason::FlowControl, "2^31-1"),
        (window(1, 5), Reason::Protocol, "never opened"),
        (frame(kind::WINDOW_UPDATE, 0, 0, b"abcde"), Reason::FrameSize, "four bytes"),
    ];
    for (bytes, reason, why) in cases {
        let mut server = Server::greeted();
        let goaway = server.receive(&bytes).0.expect_err(why);
        assert_eq!(goaway.reason, reason, "{goaway}, wanted {why}");
        assert!(goaway.why.contains(why), "{goaway}, wanted {why}");
        let last = server.said().pop().unwrap();
        let (code, why) = (reason as u32, goaway.why);
        assert!(last.starts_with("GOAWAY ") && last.ends_with(&format!(" {code} {why}")), "{last}");
        assert!(server.connection.is_over());
        server.connection.answer(1, message(0).into());
        assert!(server.connection.out().is_empty(), "nothing is said after the end");
    }
}

#[test]
fn what_ends_it_before_it_has_begun() {
    let cases: [(&[u8], &str); 4] = [
        (b"GET / HTTP/1.1\r\n", "preface"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x06\0\0\0\0\0", "SETTINGS"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\x01\0\0\0\0", "SETTINGS"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nHTTP/1.1 ", "MAX_FRAME_SIZE"),
    ];
    for (bytes, why) in cases {
        let goaway = Server::fresh(RULES).receive(bytes).0.unwrap_err();
        assert!(goaway.why.contains(why), "{goaway}");
    }
}

#[test]
fn what_ends_a_stream_only() {
    let mut promised = block();
    promised.extend_from_slice(b"\0\x0econtent-length\x016");
    let promised = |flags| frame(kind::HEADERS, flag::END_HEADERS | flags, 1, &promised);
    let (protocol, closed): (&[&str], &[&str]) = (&["RST 1 1"], &["RST 1 5"]);
    let begun = headers(1, 0);
    let cases: Vec<(Vec<u8>, &[&str])> = vec![
        // Requests that break HTTP's rules.
        (frame(kind::HEADERS, flag::END_HEADERS, 1, b"\x82"), protocol),
        ([promised(0), data(1, END, b"12345")].concat(), protocol),
        ([promised(0), data(1, 0, b"1234567")].concat(), protocol),
        (promised(END), protocol),
        ([begun.clone(), headers(1, END)].concat(), protocol),
        (
            [&begun[..], &frame(kind::HEADERS, flag::END_HEADERS, 1, b"\0\x01a\x01b")].concat(),
            protocol,
        ),
        // Frames behind the end of the request.
        ([call(1, 0), data(1, 0, b"x")].concat(), closed),
        ([call(1, 0), headers(1, END)].concat(), closed),
        // Frames on streams that are over.
        ([begun.clone(), reset(1), data(1, 0, b"x")].concat(), closed),
        // Frames that a client may have sent before it heard of the end.
        (
            [frame(kind::HEADERS, flag::END_HEADERS, 1, b"\x82"), data(1, END, b"x")].concat(),
            protocol,
        ),
        ([begun.clone(), reset(1), reset(1), window(1, 5)].concat(), &[]),
        // Windows.
        ([begun.clone(), window(1, 0)].concat(), protocol),
        ([begun.clone(), window(1, (1 << 31) - 1)].concat(), &["RST 1 3"]),
        // The rest.
        ([begun.clone(), frame(kind::PRIORITY, 0, 1, b"1")].concat(), &["RST 1 6"]),
        (frame(kind::PRIORITY, 0, 1, &[0; 5]), &[]),
        (frame(77, 0xff, 9, b"whatever"), &[]),
        (frame(kind::GOAWAY, 0, 0, &[0; 8]), &[]),
    ];
    for (nth, (bytes, wanted)) in cases.into_iter().enumerate() {
        let mut server = Server::greeted();
        assert_eq!(server.hears(&bytes), wanted, "case {nth}");
        // The others go on.
        let (_, requests) = server.receive(&call(101, 0));
        assert_eq!(requests.len(), 1, "case {nth}");
    }
}

#[test]
fn trailers_end_a_request() {
    let trailers = frame(kind::HEADERS, flag::END_HEADERS | END, 1, b"\0\x01a\x01b");
    let mut server = Server::greeted();
    let bytes = [headers(1, 0), data(1, 0, &message(2)), trailers.clone()].concat();
    let (_, requests) = server.receive(&bytes);
    assert_eq!(requests[0].body, message(2));
    let (_, requests) = Server::greeted().receive(&[headers(1, 0), trailers].concat());
    assert_eq!(requests[0].body, b""[..]);
    let (_, requests) = Server::greeted().receive(&headers(1, END));
    assert_eq!(requests[0].body, b""[..], "which the session refuses");
}

#[test]
fn header_blocks_may_go_on_and_be_padded() {
    let block = block();
    let (start, rest) = block.split_at(20);
    let (middle, rest) = rest.split_at(20);
    let start = [&[3, 0, 0, 0, 0, 16], start, &[0; 3]].concat();
    let bytes = [
        frame(kind::HEADERS, flag::PADDED | flag::PRIORITY | END, 1, &start),
        frame(kind::CONTINUATION, 0, 1, middle),
        frame(kind::CONTINUATION, flag::END_HEADERS, 1, rest),
    ];
    let (received, requests) = Server::greeted().receive(&bytes.concat());
    received.unwrap();
    assert_eq!(&*requests[0].path, "/a.B/C");
}

#[test]
fn what_is_no_grpc_call_is_told_so_in_http() {
    let get = b"\x82\x86\x84\x0f\x10\x10application/grpc";
    let json = b"\x83\x86\x84\x0f\x10\x10application/json";
    let mut large = block();
    large.extend_from_slice(b"\x40\x01x\x64");
    large.extend_from_slice(&[b'v'; 100]);
    large.extend(std::iter::repeat_n(0xbe, HTTP2_HEADER_BYTES_MAX as usize / 133));
    let cases: [(&[u8], &str); 3] =
        [(get, r"\x08\x03405\x0f\x07\x04POST"), (json, r"\x08\x03415"), (&large, r"\x08\x03431")];
    for (block, said) in cases {
        let head = frame(kind::HEADERS, flag::END_HEADERS, 1, block);
        let wanted = [format!("HEADERS 1 {said} END"), "RST 1 0".into()];
        let mut server = Server::greeted();
        assert_eq!(server.hears(&head), wanted);
        assert_eq!(server.hears(&data(1, END, b"on its way")), [""; 0]);
        let head = frame(kind::HEADERS, flag::END_HEADERS | END, 1, block);
        assert_eq!(Server::greeted().hears(&head), wanted[..1]);
    }
}

#[test]
fn streams_past_the_limit_are_refused_and_may_come_again() {
    let mut server = Server::greeted_by(Rules { concurrent_streams_max: 2, ..RULES }, &[]);
    let calls = [call(1, 0), call(3, 0), call(5, 0)].concat();
    assert_eq!(server.hears(&calls), ["RST 5 7"]);
    server.connection.answer(3, message(0).into());
    server.said();
    let (_, requests) = server.receive(&call(7, 0));
    assert_eq!(requests.len(), 1);
}

#[test]
fn bodies_in_parts_are_gathered_in_the_places_there_are() {
    let mut server = Server::greeted();
    server.unfinished_max = 2;
    let body = message(100_000);
    let parts: Vec<_> = body.chunks(16_000).collect();
    let begun = [headers(1, 0), headers(3, 0), headers(5, 0)].concat();
    let refused = server.hears(&begun);
    let said = r"grpc-status\x018\x00\x0cgrpc-message\x1detcdserver: too many requests END";
    assert!(refused[0].starts_with("HEADERS 5") && refused[0].ends_with(said), "{refused:?}");
    assert_eq!(refused[1..], ["RST 5 0"]);
    assert_eq!(server.unfinished.get(), 2);
    for part in &parts[..6] {
        assert_eq!(server.hears(&data(3, 0, part)), [""; 0]);
    }
    let (_, requests) = server.receive(&data(3, END, parts[6]));
    assert_eq!(requests[0].body, body);
    assert_eq!(server.unfinished.get(), 1);
    server.hears(&reset(1));
    assert_eq!(server.unfinished.get(), 0, "a place is given back with its stream");
    let all: Vec<_> = parts.iter().flat_map(|part| data(7, 0, part)).collect();
    let (_, requests) = server.receive(&[headers(7, 0), all, data(7, END, b"")].concat());
    assert_eq!(requests[0].body, body, "one read needs no place");
}

#[test]
fn bodies_too_large_are_refused_as_soon_as_they_say_so() {
    let mut server = Server::greeted_by(Rules { message_bytes_max: 1000, ..RULES }, &[]);
    let large = message(1001);
    let said = server.hears(&[headers(1, 0), data(1, 0, &large[..5])].concat());
    assert!(said[0].contains("grpc: received message larger than max (1001 vs. 1000)"), "{said:?}");
    assert_eq!(said[1], "RST 1 0");
    assert_eq!(server.hears(&data(1, 0, &large[5..])), [""; 0]);
    let said = server.hears(&[headers(3, 0), data(3, 0, &message(9)), data(3, 0, b"x")].concat());
    assert!(said[0].contains("more than one message"), "{said:?}");
    let (_, requests) = server.receive(&[headers(5, 0), data(5, END, &large)].concat());
    assert_eq!(requests.len(), 1, "a body in one frame is judged by the session");
    assert!(server.said().is_empty());
}

#[test]
fn rapid_resets_end_the_connection_and_answers_make_up_for_them() {
    let mut server = Server::greeted();
    for nth in 0..HTTP2_RESETS_AHEAD_MAX as u32 {
        let id = nth * 4 + 1;
        server.hears(&[call(id, 0), call(id + 2, 0), reset(id)].concat());
        server.connection.answer(id + 2, message(0).into());
        server.said();
    }
    let mut id = 4 * HTTP2_RESETS_AHEAD_MAX as u32 + 1;
    for _ in 0..HTTP2_RESETS_AHEAD_MAX {
        server.hears(&[call(id, 0), reset(id)].concat());
        id += 2;
    }
    let goaway = server.receive(&[call(id, 0), reset(id)].concat()).0.unwrap_err();
    assert_eq!(goaway, Goaway::calm("too many streams reset"));
}

#[test]
fn floods_of_nothing_end_the_connection() {
    let mut server = Server::greeted();
    server.hears(&[headers(1, 0), data(1, 0, b"").repeat(HTTP2_EMPTY_FRAMES_MAX)].concat());
    let goaway = server.receive(&data(1, 0, b"")).0.unwrap_err();
    assert_eq!(goaway, Goaway::calm("too many empty frames"));
}

#[test]
fn a_client_that_does_not_read_is_not_read_from() {
    let mut server = Server::greeted();
    let settings = frame(kind::SETTINGS, 0, 0, b"").repeat(10_000);
    while !server.connection.is_full() {
        server.receive(&settings).0.unwrap();
    }
    server.said();
    assert!(!server.connection.is_full());
}

#[test]
fn pings_are_answered_until_there_are_too_many() {
    let ping = frame(kind::PING, 0, 0, b"12345678");
    let mut server = Server::greeted();
    server.hears(&call(1, 0));
    for _ in 0..3 {
        assert_eq!(server.hears(&ping), ["PONG 12345678"]);
    }
    server.connection.answer(1, message(0).into());
    server.said();
    for _ in 0..3 {
        assert_eq!(server.hears(&ping), ["PONG 12345678"], "an answer forgives");
    }
    assert_eq!(server.receive(&ping).0, Err(Goaway::calm("too_many_pings")));
    assert_eq!(server.said(), ["PONG 12345678", "GOAWAY 1 11 too_many_pings"]);
    let pong = frame(kind::PING, flag::ACK, 0, b"12345678");
    assert_eq!(Server::greeted().hears(&pong.repeat(9)), [""; 0]);
}

#[test]
fn leaving_answers_what_was_asked_and_takes_nothing_more() {
    let mut server = Server::greeted();
    server.hears(&call(1, 0));
    server.connection.leave();
    server.connection.leave();
    assert_eq!(server.said(), ["GOAWAY 1 0 the server is going down"]);
    let (_, requests) = server.receive(&call(3, 0));
    assert!(requests.is_empty() && !server.connection.is_over());
    server.connection.answer(1, message(0).into());
    assert!(!server.connection.is_over());
    assert_eq!(server.said(), ["HEAD 1", "DATA 1 5", "OK 1 END"]);
    assert!(server.connection.is_over());
}

#[test]
fn a_stream_given_up_is_reset() {
    let mut server = Server::greeted();
    server.hears(&call(1, 0));
    server.connection.abandon(1);
    assert_eq!(server.said(), ["RST 1 8"]);
    server.connection.abandon(1);
    assert_eq!(server.said(), [""; 0]);
}

#[test]
fn an_answer_may_be_written_in_place() {
    let mut server = Server::greeted();
    server.hears(&[call(1, 0), call(3, 0), call(5, 0)].concat());
    let append = |bytes: usize| {
        move |out: &mut Vec<u8>| {
            out.extend_from_slice(&message(bytes));
            Ok(())
        }
    };
    assert_eq!(server.connection.answer_with(1, append(4)), Ok(9));
    assert_eq!(server.said(), ["HEAD 1", "DATA 1 9", "OK 1 END"]);
    assert_eq!(server.connection.answer_with(3, append(20_000)), Ok(20_005));
    assert_eq!(server.said(), ["HEAD 3", "DATA 3 16384", "DATA 3 3621", "OK 3 END"]);
    let refused = server.connection.answer_with(5, |out| {
        out.push(1);
        Err(Status::new(Code::NotFound, "no"))
    });
    assert_eq!(refused.unwrap_err().code, 5);
    let said = server.said();
    assert!(said.len() == 1 && said[0].contains(r"grpc-status\x015"), "{said:?}");
    assert_eq!(server.connection.answer_with(7, append(4)), Ok(9), "nobody is there");
    assert_eq!(server.said(), [""; 0]);
}
