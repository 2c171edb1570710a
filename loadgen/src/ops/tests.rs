//! Operations of several calls, against answers that are made up here.

use proto::{
    etcdserverpb::{ResponseHeader, ResponseOp},
    mvccpb::KeyValue,
};

use super::*;

const SEAT: usize = 3;

/// The same operation again and again.
struct Again(Op);

impl Chooser for Again {
    fn kinds(&self) -> Vec<&'static str> {
        vec!["again"]
    }

    fn choose(&mut self) -> (usize, Op) {
        (0, self.0.clone())
    }
}

fn ops(op: Op) -> Ops<Again> {
    Ops::new(Again(op), 10)
}

fn header(revision: i64) -> Option<ResponseHeader> {
    Some(ResponseHeader { revision, ..Default::default() })
}

fn won(revision: i64) -> TxnResponse {
    TxnResponse { header: header(revision), succeeded: true, responses: Vec::new() }
}

/// Refused, for the key was last changed then; 0: there is none.
fn lost(mod_revision: i64) -> TxnResponse {
    let kv = KeyValue { mod_revision, ..Default::default() };
    let kvs = if mod_revision == 0 { Vec::new() } else { vec![kv] };
    let range = RangeResponse { kvs, ..Default::default() };
    let responses = vec![ResponseOp { response: Some(Response::ResponseRange(range)) }];
    TxnResponse { header: header(99), succeeded: false, responses }
}

fn answer<'a>(ops: &'a mut Ops<Again>, message: &impl Message) -> Next<'a> {
    let body = grpc::body(message);
    ops.answered(SEAT, Answer { bytes: body.len(), body: &body })
}

/// With which revision a swap compares.
fn compared(ask: Ask<'_>) -> i64 {
    assert_eq!(PATHS[ask.path], kv::TXN);
    let txn = TxnRequest::decode(&ask.body[grpc::PREFIX_BYTES..]).expect("a request");
    match txn.compare[0].target_union {
        Some(TargetUnion::ModRevision(revision)) => revision,
        ref other => panic!("{other:?}"),
    }
}

#[track_caller]
fn goes_on(next: Next<'_>) -> i64 {
    let Next::Call(ask) = next else { panic!("{next:?}") };
    compared(ask)
}

#[test]
fn a_swap_compares_with_what_it_last_learned() {
    let mut ops = ops(Op::Swap("k".into(), 10));
    assert_eq!(compared(ops.begin(SEAT).1), 0, "nothing is known yet");
    assert_eq!(goes_on(answer(&mut ops, &lost(7))), 7);
    assert_eq!(goes_on(answer(&mut ops, &lost(8))), 8);
    assert!(matches!(answer(&mut ops, &won(9)), Next::Over));
    assert_eq!(ops.counts(), [("retries", 1), ("learned", 1)]);
    assert_eq!(compared(ops.begin(SEAT).1), 9);
}

#[test]
fn a_swap_that_never_wins_fails() {
    let mut ops = ops(Op::Swap("k".into(), 10));
    ops.begin(SEAT);
    for _ in 1..TRIES_MAX {
        assert_eq!(goes_on(answer(&mut ops, &lost(7))), 7);
    }
    assert!(matches!(answer(&mut ops, &lost(7)), Next::Failed(_)));
    // Its seat is free.
    ops.begin(SEAT);
}

#[test]
fn a_key_that_is_there_is_not_created() {
    let mut ops = ops(Op::Create("k".into(), 10));
    for _ in 0..2 {
        assert_eq!(compared(ops.begin(SEAT).1), 0, "whatever is known");
        assert!(matches!(answer(&mut ops, &lost(7)), Next::Over));
    }
    assert_eq!(ops.counts(), [("present", 2)]);
}

#[test]
fn a_key_that_is_gone_is_not_deleted_again() {
    let mut ops = ops(Op::SwapDelete("k".into()));
    ops.begin(SEAT);
    assert_eq!(goes_on(answer(&mut ops, &lost(7))), 7);
    assert!(matches!(answer(&mut ops, &lost(0)), Next::Over));
}

#[test]
fn all_pages_of_a_list_are_of_one_revision_and_begin_behind_the_last_key() {
    let mut ops = ops(Op::List { prefix: "/p/".into(), limit: 1 });
    let asked = |ask: Ask<'_>| {
        let range = RangeRequest::decode(&ask.body[grpc::PREFIX_BYTES..]).expect("a request");
        assert_eq!((&range.range_end[..], range.limit), (&b"/p0"[..], 1));
        (range.key, range.revision)
    };
    let page = |key: &'static str, revision, more| {
        let kvs = vec![KeyValue { key: key.into(), ..Default::default() }];
        RangeResponse { header: header(revision), kvs, more, ..Default::default() }
    };
    assert_eq!(asked(ops.begin(SEAT).1), ("/p/".into(), 0));
    for (key, revision, next) in [("/p/a", 5, "/p/a\0"), ("/p/b", 6, "/p/b\0")] {
        let next_page = answer(&mut ops, &page(key, revision, true));
        let Next::Call(ask) = next_page else { panic!("{next_page:?}") };
        assert_eq!(asked(ask), (next.into(), 5), "the first page's revision");
    }
    assert!(matches!(answer(&mut ops, &page("/p/c", 7, false)), Next::Over));
    assert_eq!(ops.counts(), [("pages", 3), ("listed", 3)]);
}

#[test]
fn an_answer_that_is_none_fails_the_operation_and_frees_its_seat() {
    let mut ops = ops(Op::Get { key: "k".into(), serializable: false });
    for body in [&b""[..], b"\0\0\0\0\x02\x12\x05"] {
        ops.begin(SEAT);
        let next = ops.answered(SEAT, Answer { bytes: body.len(), body });
        assert!(matches!(next, Next::Failed(_)), "{next:?}");
    }
    ops.begin(SEAT);
    ops.failed(SEAT);
    ops.begin(SEAT);
}

#[test]
fn a_prefix_ends_where_no_key_begins_so() {
    for (prefix, last) in [(&b"a"[..], &b"b"[..]), (b"a\xff\xff", b"b"), (b"\xff", b"\0")] {
        assert_eq!(end(prefix), last);
    }
}
