//! Whatever comes, the connection neither panics nor says what a client could not read.

use super::{
    super::{Inbound, Progress},
    *,
};
use crate::{limits::HTTP2_OUT_BYTES_MAX, shard::grpc};
use proptest::prelude::*;

/// A frame that is somewhat likely to mean something.
fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let stream = prop_oneof![Just(0u32), 1u32..12, Just((1 << 31) - 1)];
    let payload = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        prop::collection::vec(any::<u8>(), 4..=4),
        Just(vec![0, 0, 0, 1]),
        Just(block()),
        Just(open(1, 0)[HEAD_BYTES..].to_vec()),
        (0usize..30).prop_map(message),
    ];
    let flags = prop_oneof![Just(0), Just(flag::END_HEADERS), Just(5), any::<u8>()];
    (0u8..11, flags, stream, payload).prop_map(|(kind, flags, id, p)| frame(kind, flags, id, &p))
}

/// A frame that is legal on its own.
fn legal_frame() -> impl Strategy<Value = Vec<u8>> {
    let id = (0u32..6).prop_map(|nth| nth * 2 + 1);
    let mut settings = Vec::new();
    frame::put_settings(&mut settings, &[(setting::INITIAL_WINDOW_SIZE, 20)]);
    prop_oneof![
        id.clone().prop_map(|id| headers(id, 0)),
        id.clone().prop_map(|id| open(id, 0)),
        (id.clone(), 0usize..40).prop_map(|(id, bytes)| call(id, bytes)),
        (id.clone(), 0u8..2).prop_map(|(id, end)| data(id, end, &message(3))),
        id.clone().prop_map(reset),
        (id, 1u32..200).prop_map(|(id, more)| window(id, more)),
        (1u32..200).prop_map(|more| window(0, more)),
        Just(settings),
    ]
}

#[derive(Clone, Debug)]
enum Step {
    Receive(Vec<u8>),
    Answer(usize),
    Refuse,
    Stream(usize),
    Take,
    Finish,
    Abandon,
    Drain(usize),
}

fn steps(frames: impl Strategy<Value = Vec<u8>> + 'static) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => frames.prop_map(Step::Receive),
        2 => (0usize..200).prop_map(Step::Answer),
        1 => Just(Step::Refuse),
        1 => (0usize..200).prop_map(Step::Stream),
        1 => Just(Step::Take),
        1 => Just(Step::Finish),
        1 => Just(Step::Abandon),
        2 => (0usize..100).prop_map(Step::Drain),
    ];
    prop::collection::vec(step, 1..80)
}

/// Plays the steps. Returns whether the client kept to the rules.
fn play(steps: Vec<Step>) -> bool {
    let mut server = Server::greeted_by(RULES, &[(setting::INITIAL_WINDOW_SIZE, 60)]);
    let (mut waiting, mut streaming) = (Vec::new(), Vec::new());
    let mut sent = Vec::new();
    let mut legal = true;
    for step in steps {
        match step {
            Step::Receive(bytes) => {
                let (received, requests) = server.receive(&bytes);
                waiting.extend(requests.iter().map(|request| request.stream));
                streaming.extend(server.calls.drain(..).map(|call| call.stream));
                if received.is_err() {
                    legal = false;
                    break;
                }
            }
            Step::Answer(bytes) => {
                if let Some(id) = waiting.pop() {
                    server.connection.answer(id, message(bytes).into());
                }
            }
            Step::Refuse => {
                if let Some(id) = waiting.pop() {
                    server.connection.refuse(id, &Status::new(Code::NotFound, "no"));
                }
            }
            Step::Stream(bytes) => {
                streaming.extend(waiting.pop().filter(|id| server.connection.open(*id)));
                for id in &streaming {
                    if server.connection.progress(*id) == Progress::Clear {
                        server.connection.send(*id, b"", &message(bytes).into());
                    }
                }
            }
            Step::Take => {
                for id in &streaming {
                    while let Inbound::Message(_) = server.connection.take(*id) {}
                }
            }
            Step::Finish => {
                if let Some(id) = streaming.pop() {
                    server.connection.finish(id, None);
                }
            }
            Step::Abandon => {
                if let Some(id) = waiting.pop() {
                    server.connection.abandon(id);
                }
            }
            Step::Drain(bytes) => {
                let step = bytes.min(server.connection.out().len());
                sent.extend_from_slice(&server.connection.out()[..step]);
                server.connection.sent(step);
            }
        }
        let stalled = server.connection.streams.iter().filter(|stream| stream.is_stalled()).count();
        assert_eq!(stalled, server.connection.stalled);
        assert!(server.connection.out().len() < HTTP2_OUT_BYTES_MAX);
    }
    while !server.connection.out().is_empty() {
        sent.extend_from_slice(server.connection.out());
        server.connection.sent(server.connection.out().len());
    }
    said(&sent);
    legal
}

/// Everything that can be taken of a call.
fn all(connection: &mut Connection, id: u32) -> (Vec<Bytes>, Inbound) {
    let mut messages = Vec::new();
    loop {
        match connection.take(id) {
            Inbound::Message(message) => messages.push(message),
            end => return (messages, end),
        }
    }
}

proptest! {
    #[test]
    fn any_bytes(bytes: Vec<u8>) {
        let mut server = Server::greeted();
        let _legal = server.receive(&bytes).0.is_ok();
        server.said();
    }

    #[test]
    fn any_frames(steps in steps(any_frame())) {
        play(steps);
    }

    #[test]
    fn legal_frames_in_any_order(steps in steps(legal_frame())) {
        play(steps);
    }

    #[test]
    fn cutting_the_input_changes_nothing(
        frames in prop::collection::vec(any_frame(), 1..20),
        cuts in prop::collection::vec(1usize..60, 1..20),
    ) {
        let bytes = frames.concat();
        let mut whole = Server::greeted();
        let (received, wanted) = whole.receive(&bytes);
        let mut cut = Server::greeted();
        let mut requests = Vec::new();
        let mut ended = Ok(());
        let mut rest = &bytes[..];
        for step in cuts.iter().cycle() {
            let (now, after) = rest.split_at((*step).min(rest.len()));
            let (received, more) = cut.receive(now);
            requests.extend(more);
            rest = after;
            ended = received;
            if ended.is_err() || rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(received, ended);
        let named = |requests: &[Request]| -> Vec<_> {
            // What is no message is refused alike: in the middle of its body, or by whoever is handed it.
            let message = |request: &&Request| {
                grpc::message_len(&request.body, RULES.message_bytes_max).is_ok()
            };
            let messages = requests.iter().filter(message);
            messages.map(|request| (request.stream, request.body.clone())).collect()
        };
        prop_assert_eq!(named(&wanted), named(&requests));
        let opened = |server: &Server| -> Vec<_> {
            server.calls.iter().map(|call| call.stream).collect()
        };
        prop_assert_eq!(opened(&whole), opened(&cut));
        for id in opened(&whole) {
            prop_assert_eq!(all(&mut whole.connection, id), all(&mut cut.connection, id));
        }
    }
}
