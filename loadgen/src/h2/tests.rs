//! HTTP/2 frames in, answers out.

use super::*;

const HEAD: &[u8] = b"\x83\x86";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_head(&mut bytes, payload.len(), kind, flags, stream);
    bytes.extend_from_slice(payload);
    bytes
}

fn settings(list: &[(u16, u32)]) -> Vec<u8> {
    let pairs =
        list.iter().map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat());
    frame(SETTINGS, 0, 0, &pairs.collect::<Vec<_>>().concat())
}

/// A connection whose server has sent these settings, with nothing left to write.
fn greeted(list: &[(u16, u32)]) -> Connection {
    let mut connection = Connection::default();
    assert!(told(&mut connection, &settings(list)).unwrap().is_empty());
    written(&mut connection);
    connection
}

/// What the connection makes of `bytes`, in words.
fn told(connection: &mut Connection, bytes: &[u8]) -> Result<Vec<String>, Broken> {
    let mut events = Vec::new();
    connection.receive(bytes, |tag, event| {
        events.push(match event {
            Event::Headers(fields) => {
                format!("{tag}: {:?} {:?}", fields.http_status, fields.grpc_status)
            }
            Event::Data(bytes) => format!("{tag}: {}", String::from_utf8_lossy(bytes)),
            Event::End => format!("{tag}: end"),
            Event::Reset(code) => format!("{tag}: reset {code}"),
        });
    })?;
    Ok(events)
}

/// Kind, flags, stream and length of each frame to be written, which are then written.
fn written(connection: &mut Connection) -> Vec<(u8, u8, u32, usize)> {
    let mut rest = connection.out();
    rest = rest.strip_prefix(PREFACE).unwrap_or(rest);
    let mut frames = Vec::new();
    while let [_, l1, l2, kind, flags, s @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*l1, *l2]));
        frames.push((*kind, *flags, u32_of(&s[..4]).unwrap(), length));
        rest = &rest[FRAME_HEAD_BYTES + length..];
    }
    connection.sent(connection.out().len());
    frames
}

#[test]
fn an_answer_may_come_in_single_bytes() {
    let mut connection = greeted(&[]);
    connection.request(7, HEAD, b"body").unwrap();
    assert_eq!(written(&mut connection), [(HEADERS, END_HEADERS, 1, 2), (DATA, END_STREAM, 1, 4)]);
    let answer = [
        frame(HEADERS, END_HEADERS, 1, b"\x88"),
        frame(DATA, PADDED, 1, b"\x02hello\0\0"),
        frame(HEADERS, 0, 1, b"\x00\x0bgrpc-"),
        frame(CONTINUATION, END_HEADERS, 1, b"status\x010"),
    ]
    .concat();
    let mut events = Vec::new();
    for byte in &answer {
        events.extend(told(&mut connection, &[*byte]).unwrap());
    }
    // The second block had no END_STREAM; the stream ends with an empty DATA.
    events.extend(told(&mut connection, &frame(DATA, END_STREAM, 1, b"")).unwrap());
    let wanted = ["7: Some(200) None", "7: hello", "7: None Some(0)", "7: ", "7: end"];
    assert_eq!(events, wanted);
}

#[test]
fn a_body_waits_for_both_windows() {
    let mut connection = greeted(&[(INITIAL_WINDOW_SIZE, 10)]);
    connection.request(0, HEAD, &[0; 25]).unwrap();
    assert_eq!(written(&mut connection)[1..], [(DATA, 0, 1, 10)]);
    told(&mut connection, &frame(WINDOW_UPDATE, 0, 1, &5u32.to_be_bytes())).unwrap();
    assert_eq!(written(&mut connection), [(DATA, 0, 1, 5)]);
    // A greater initial window counts for open streams, by the difference.
    told(&mut connection, &settings(&[(INITIAL_WINDOW_SIZE, 14)])).unwrap();
    assert_eq!(written(&mut connection), [(SETTINGS, ACK, 0, 0), (DATA, 0, 1, 4)]);

    connection.send_window = 3;
    told(&mut connection, &frame(WINDOW_UPDATE, 0, 1, &100u32.to_be_bytes())).unwrap();
    assert_eq!(written(&mut connection), [(DATA, 0, 1, 3)]);
    told(&mut connection, &frame(WINDOW_UPDATE, 0, 0, &100u32.to_be_bytes())).unwrap();
    assert_eq!(written(&mut connection), [(DATA, END_STREAM, 1, 3)]);
}

#[test]
fn a_large_body_is_cut_to_the_servers_frame_size() {
    let mut connection = greeted(&[]);
    connection.request(0, HEAD, &[0; 40_000]).unwrap();
    let lengths: Vec<_> = written(&mut connection)[1..].iter().map(|frame| frame.3).collect();
    assert_eq!(lengths, [16_384, 16_384, 7_232]);
}

#[test]
fn the_window_is_given_back_when_half_is_used() {
    let mut connection = greeted(&[]);
    connection.request(0, HEAD, b"x").unwrap();
    written(&mut connection);
    connection.owed = WINDOW_MAX / 2;
    told(&mut connection, &frame(DATA, 0, 1, b"x")).unwrap();
    assert_eq!(written(&mut connection), [(WINDOW_UPDATE, 0, 0, 4)]);
    connection.streams.get_mut(1).unwrap().owed = WINDOW_MAX / 2;
    told(&mut connection, &frame(DATA, 0, 1, b"x")).unwrap();
    assert_eq!(written(&mut connection), [(WINDOW_UPDATE, 0, 1, 4)]);
}

#[test]
fn pings_and_settings_are_answered() {
    let mut connection = greeted(&[]);
    told(&mut connection, &frame(PING, 0, 0, b"01234567")).unwrap();
    assert!(connection.out().ends_with(b"01234567"));
    assert_eq!(written(&mut connection), [(PING, ACK, 0, 8)]);
    told(&mut connection, &frame(PING, ACK, 0, b"01234567")).unwrap();
    told(&mut connection, &frame(SETTINGS, ACK, 0, b"")).unwrap();
    assert!(connection.out().is_empty());
}

#[test]
fn goaway_gives_up_the_streams_the_server_never_saw() {
    let mut connection = greeted(&[]);
    for tag in 0..3 {
        connection.request(tag, HEAD, b"x").unwrap();
    }
    let payload = [&3u32.to_be_bytes()[..], &0u32.to_be_bytes(), b"bye"].concat();
    assert_eq!(told(&mut connection, &frame(GOAWAY, 0, 0, &payload)).unwrap(), ["2: reset 7"]);
    assert!(
        matches!(connection.request(3, HEAD, b"x"), Err(Broken::GoAway(0, text)) if text == "bye")
    );
    let end = frame(HEADERS, END_HEADERS | END_STREAM, 3, b"\x88");
    assert_eq!(told(&mut connection, &end).unwrap(), ["1: Some(200) None", "1: end"]);
}

#[test]
fn a_stream_that_is_over_is_silent() {
    let mut connection = greeted(&[(MAX_CONCURRENT_STREAMS, 1)]);
    let stream = connection.request(0, HEAD, b"x").unwrap();
    assert!(matches!(connection.request(1, HEAD, b"x"), Err(Broken::TooManyStreams(1))));
    connection.cancel(stream);
    assert_eq!(written(&mut connection).last(), Some(&(RST_STREAM, 0, 1, 4)));
    assert!(told(&mut connection, &frame(DATA, 0, 1, b"late")).unwrap().is_empty());
    connection.request(1, HEAD, b"x").unwrap();
    let reset = frame(RST_STREAM, 0, 3, &2u32.to_be_bytes());
    assert_eq!(told(&mut connection, &reset).unwrap(), ["1: reset 2"]);
}

#[test]
fn a_server_that_ends_before_our_body_is_told_to_forget_it() {
    let mut connection = greeted(&[(INITIAL_WINDOW_SIZE, 1)]);
    connection.request(0, HEAD, b"xy").unwrap();
    written(&mut connection);
    told(&mut connection, &frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\x88")).unwrap();
    assert_eq!(written(&mut connection), [(RST_STREAM, 0, 1, 4)]);
}

#[test]
fn broken_servers_are_reported() {
    let broken = |connection: &mut Connection, bytes: &[u8]| {
        told(connection, bytes).expect_err("the server broke a rule").to_string()
    };
    assert_eq!(
        broken(&mut Connection::default(), b"HTTP/1.1 400 Bad Request\r\n"),
        "HTTP/2: the server did not begin with SETTINGS"
    );
    for bytes in [
        frame(DATA, 0, 1, b"x"),
        frame(HEADERS, END_HEADERS, 2, b"\x88"),
        frame(CONTINUATION, END_HEADERS, 1, b"\x88"),
        frame(PUSH_PROMISE, 0, 1, b""),
        frame(PING, 0, 0, b"short"),
        frame(GOAWAY, 0, 0, b"short"),
        frame(WINDOW_UPDATE, 0, 0, &0u32.to_be_bytes()),
        frame(WINDOW_UPDATE, 0, 0, &(WINDOW_MAX as u32).to_be_bytes()),
        frame(SETTINGS, 0, 0, b"short"),
        settings(&[(MAX_FRAME_SIZE, 1)]),
        settings(&[(INITIAL_WINDOW_SIZE, 1 << 31)]),
        frame(9 + 100, 0, 0, &[0; FRAME_BYTES_MAX + 1]),
    ] {
        broken(&mut greeted(&[]), &bytes);
    }
    let mut connection = greeted(&[]);
    connection.request(0, HEAD, b"x").unwrap();
    told(&mut connection, &frame(HEADERS, 0, 1, b"\x88")).unwrap();
    broken(&mut connection, &frame(DATA, 0, 1, b"between"));
}

#[test]
fn a_body_may_come_bit_by_bit_and_waits_in_order() {
    let mut connection = greeted(&[(INITIAL_WINDOW_SIZE, 5)]);
    let stream = connection.open(3, HEAD).unwrap();
    connection.send(stream, b"abc");
    connection.send(stream, b"def");
    connection.send(stream, b"gh");
    assert_eq!(
        written(&mut connection),
        [(HEADERS, END_HEADERS, 1, 2), (DATA, 0, 1, 3), (DATA, 0, 1, 2)]
    );
    connection.finish(stream);
    assert!(connection.out().is_empty());
    told(&mut connection, &frame(WINDOW_UPDATE, 0, 1, &9u32.to_be_bytes())).unwrap();
    assert!(connection.out().ends_with(b"fgh"));
    assert_eq!(written(&mut connection), [(DATA, END_STREAM, 1, 3)]);

    let idle = connection.open(4, HEAD).unwrap();
    written(&mut connection);
    connection.finish(idle);
    assert_eq!(written(&mut connection), [(DATA, END_STREAM, 3, 0)]);
}

#[test]
fn a_server_that_ends_an_open_stream_is_told_to_forget_it() {
    let mut connection = greeted(&[]);
    let stream = connection.open(0, HEAD).unwrap();
    written(&mut connection);
    told(&mut connection, &frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\x88")).unwrap();
    assert_eq!(written(&mut connection), [(RST_STREAM, 0, 1, 4)]);
    connection.send(stream, b"late");
    connection.finish(stream);
    assert!(connection.out().is_empty());
}

#[test]
fn a_shut_window_is_never_given_back() {
    let mut connection = Connection::new(Window::Shut);
    told(&mut connection, &settings(&[])).unwrap();
    connection.request(0, HEAD, b"x").unwrap();
    written(&mut connection);
    let full = frame(DATA, 0, 1, &[0; FRAME_BYTES_MAX]);
    for _ in 0..3 {
        told(&mut connection, &full).unwrap();
    }
    assert!(connection.out().is_empty());
    told(&mut connection, &frame(DATA, 0, 1, &[0; FRAME_BYTES_MAX - 1])).unwrap();
    assert!(told(&mut connection, &frame(DATA, 0, 1, b"one more")).is_err());
}
