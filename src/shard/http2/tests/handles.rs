//! What is handed to the shard: [`Call`] and [`Responder`], on a connection without a socket.

use super::{
    super::{Call, Inbound, Links, Progress, Responder, link::Link},
    *,
};
use futures_lite::future::{block_on, poll_once};

/// A connection as its socket's task has it.
struct Socket {
    link: Rc<Link>,
    calls: Rc<Cell<usize>>,
}

impl Socket {
    fn greeted() -> Self {
        let socket =
            Self { link: Rc::new(Link::new(Connection::new(RULES))), calls: Rc::default() };
        let mut greeting = PREFACE.to_vec();
        frame::put_settings(&mut greeting, &[(setting::INITIAL_WINDOW_SIZE, 100)]);
        socket.hears(&greeting);
        socket.said();
        socket
    }

    fn hears(&self, bytes: &[u8]) -> (Vec<Request>, Vec<Opened>) {
        let (mut requests, mut calls) = (Vec::new(), Vec::new());
        let mut intake = Intake {
            now: Duration::ZERO,
            requests: &mut requests,
            calls: &mut calls,
            bodies: &mut BytesMut::new(),
            admit: &mut || None,
        };
        self.link.take_in(bytes, &mut intake);
        (requests, calls)
    }

    fn said(&self) -> Vec<String> {
        let out = self.link.say(|connection| {
            let out = connection.out().to_vec();
            connection.sent(out.len());
            out
        });
        said(&out)
    }

    /// Stream 1 as a call.
    fn call(&self) -> Call {
        let (_, calls) = self.hears(&open(1, 0));
        assert_eq!(calls.len(), 1);
        let place = Place::take(&self.calls, 1).expect("nobody else has it");
        Call::new(self.link.clone(), calls[0].stream, place)
    }

    /// Stream 1 as a unary call.
    fn request(&self) -> Responder {
        let (requests, _) = self.hears(&call(1, 0));
        Responder::new(self.link.clone(), requests[0].stream)
    }
}

fn is_stirred(call: &Call) -> bool {
    block_on(poll_once(call.stirred())).is_some()
}

#[test]
fn whatever_happens_to_a_call_stirs_it_once() {
    let socket = Socket::greeted();
    let call = socket.call();
    assert!(is_stirred(&call), "what came with the headers is looked at");
    assert!(!is_stirred(&call));
    socket.hears(&data(1, 0, &message(3)));
    assert!(is_stirred(&call), "a message");
    assert!(!is_stirred(&call), "though it was not taken");
    assert_eq!(call.take(), Inbound::Message(b"mmm"[..].into()));
    assert_eq!(call.send(&message(20), &message(200).into()), Progress::Busy);
    assert!(!is_stirred(&call));
    socket.hears(&window(1, 1000));
    assert!(is_stirred(&call), "room");
    assert_eq!((call.progress(), is_stirred(&call)), (Progress::Clear, false));
    socket.hears(&data(1, flag::END_STREAM, b""));
    assert!(is_stirred(&call), "the end");
    assert_eq!((call.take(), is_stirred(&call)), (Inbound::Ended, false));
    socket.hears(&reset(1));
    assert_eq!(
        (call.progress(), is_stirred(&call), is_stirred(&call)),
        (Progress::Gone, true, true)
    );
}

#[test]
fn a_waiting_handler_is_woken() {
    let socket = Socket::greeted();
    let call = socket.call();
    assert!(is_stirred(&call));
    block_on(async {
        let mut stirred = Box::pin(call.stirred());
        assert_eq!(poll_once(&mut stirred).await, None);
        socket.hears(&data(1, 0, &message(3)));
        stirred.await;
    });
    block_on(async {
        let mut stirred = Box::pin(call.stirred());
        assert_eq!(poll_once(&mut stirred).await, None);
        socket.link.close();
        stirred.await;
    });
    assert_eq!((call.progress(), call.take()), (Progress::Gone, Inbound::Nothing));
}

#[test]
fn a_call_is_finished_or_reset_and_gives_its_place_back() {
    let socket = Socket::greeted();
    let call = socket.call();
    call.open();
    call.finish(None);
    assert_eq!(socket.said(), ["HEAD 1", "OK 1 END", "RST 1 0"]);
    assert_eq!((call.progress(), call.take()), (Progress::Gone, Inbound::Nothing));
    assert_eq!(call.send(&message(1), &Bytes::new()), Progress::Gone);
    call.finish(None);
    assert_eq!(socket.calls.get(), 1);
    drop(call);
    assert_eq!((socket.said().len(), socket.calls.get()), (0, 0));
    let socket = Socket::greeted();
    drop(socket.call());
    assert_eq!((socket.said(), socket.calls.get()), (vec!["RST 1 8".to_owned()], 0));
}

#[test]
fn a_call_may_be_finished_behind_a_message_that_waits() {
    let socket = Socket::greeted();
    let call = socket.call();
    call.send(&message(200), &Bytes::new());
    call.finish(None);
    drop(call);
    assert_eq!(socket.said(), ["HEAD 1", "DATA 1 100"]);
    socket.hears(&window(1, 1000));
    assert_eq!(socket.said(), ["DATA 1 105", "OK 1 END", "RST 1 0"]);
}

#[test]
fn whoever_owes_an_answer_hears_that_nobody_waits_for_it() {
    let socket = Socket::greeted();
    let mut respond = socket.request();
    block_on(async {
        let mut closed = Box::pin(respond.closed());
        assert_eq!(poll_once(&mut closed).await, None);
        socket.hears(&window(1, 5));
        assert_eq!(poll_once(&mut closed).await, None, "that is something else");
        socket.hears(&reset(1));
        closed.await;
    });
    block_on(respond.closed());
    respond.answer(message(0).into());
    assert!(socket.said().is_empty());
}

#[test]
fn waiting_for_the_client_to_go_changes_no_answer() {
    let socket = Socket::greeted();
    let mut respond = socket.request();
    assert_eq!(block_on(poll_once(respond.closed())), None);
    assert_eq!(block_on(poll_once(respond.closed())), None);
    respond.answer(message(0).into());
    assert_eq!(socket.said(), ["HEAD 1", "DATA 1 5", "OK 1 END"]);
}

#[test]
fn every_connection_is_told_that_the_server_goes_down() {
    let (links, idle, busy) = (Links::default(), Socket::greeted(), Socket::greeted());
    let numbers = [&idle, &busy].map(|socket| links.enter(&socket.link));
    let call = busy.call();
    assert!(is_stirred(&call) && links.are_quiet());
    links.leave();
    assert!(!links.are_quiet());
    assert_eq!(idle.said(), ["GOAWAY 0 0 the server is going down"]);
    assert_eq!(busy.said()[0], "GOAWAY 1 0 the server is going down");
    assert_eq!((call.progress(), is_stirred(&call)), (Progress::Gone, true));
    assert!(links.are_quiet());
    let late = Socket::greeted();
    links.enter(&late.link);
    assert_eq!(late.said(), ["GOAWAY 0 0 the server is going down"]);
    numbers.into_iter().for_each(|number| links.exit(number));
}
