//! Against clients that others wrote: the `h2` crate's, and the load generator's.

use super::*;
use http::{HeaderMap, HeaderValue, Request as HttpRequest};
use loadgen::h2::{Connection as Client, Event};
use proptest::prelude::*;
use std::{collections::BTreeMap, future::Future};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

/// Serves one connection until the client closes it. Each call is answered with its own body; one
/// whose body is empty, or not whole, is refused.
async fn serve(mut socket: DuplexStream, rules: Rules) {
    let mut server = Server::fresh(rules);
    let mut buffer = vec![0; 4096];
    loop {
        while !server.connection.out().is_empty() {
            let step = server.connection.out().len().min(5000);
            let part = server.connection.out()[..step].to_vec();
            if socket.write_all(&part).await.is_err() {
                return;
            }
            server.connection.sent(step);
        }
        if server.connection.is_over() {
            return;
        }
        match socket.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(read) => {
                let (_received, requests) = server.receive(&buffer[..read]);
                for Request { stream, body, .. } in requests {
                    match body.len() {
                        0..5 => {
                            let status = Status::new(Code::NotFound, "etcdserver: 100% nothing");
                            server.connection.refuse(stream, &status);
                        }
                        _ => server.connection.answer(stream, body),
                    }
                }
            }
        }
    }
}

/// Runs a client of the `h2` crate against the server, both to their ends.
fn with_h2<F: Future<Output = ()>>(
    rules: Rules,
    builder: &h2::client::Builder,
    client: impl FnOnce(h2::client::SendRequest<Bytes>) -> F,
) {
    let (near, far) = tokio::io::duplex(10_000);
    futures_lite::future::block_on(async {
        let client = async {
            let (send, connection) = builder.handshake::<_, Bytes>(near).await.unwrap();
            let calls = client(send);
            let driven = async { connection.await.unwrap() };
            futures_lite::future::zip(calls, driven).await;
        };
        futures_lite::future::zip(client, serve(far, rules)).await;
    });
}

fn post() -> HttpRequest<()> {
    let request = HttpRequest::post("http://here/a.B/C");
    request.header("content-type", "application/grpc").header("te", "trailers").body(()).unwrap()
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
    trailers: Option<HeaderMap>,
}

async fn ask(
    send: &mut h2::client::SendRequest<Bytes>,
    request: HttpRequest<()>,
    body: Vec<u8>,
) -> Result<Answer, h2::Error> {
    std::future::poll_fn(|cx| send.poll_ready(cx)).await?;
    let (response, mut sending) = send.send_request(request, false)?;
    sending.send_data(body.into(), true)?;
    let (parts, mut receiving) = response.await?.into_parts();
    let mut body = Vec::new();
    while let Some(chunk) = receiving.data().await {
        let chunk = chunk?;
        receiving.flow_control().release_capacity(chunk.len())?;
        body.extend_from_slice(&chunk);
    }
    let trailers = receiving.trailers().await?;
    Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body, trailers })
}

#[test]
fn calls_of_all_sizes_with_the_h2_crate() {
    for window in [65_535, 1_000, 1 << 20] {
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(window).max_frame_size(20_000);
        with_h2(RULES, &builder, async |mut send| {
            for bytes in [0, 1, 1000, 16_379, 16_380, 70_000, 1_000_000] {
                let answer = ask(&mut send, post(), message(bytes)).await.unwrap();
                assert_eq!((answer.status, answer.body.len()), (200, bytes + 5));
                assert_eq!(answer.body, message(bytes));
                assert_eq!(answer.headers["content-type"], "application/grpc");
                assert_eq!(answer.trailers.unwrap()["grpc-status"], "0");
            }
        });
    }
}

#[test]
fn refusals_with_the_h2_crate() {
    with_h2(RULES, &h2::client::Builder::new(), async |mut send| {
        let answer = ask(&mut send, post(), vec![]).await.unwrap();
        assert_eq!(answer.headers["grpc-status"], "5");
        assert_eq!(answer.headers["grpc-message"], "etcdserver: 100%25 nothing");
        let mut get = post();
        *get.method_mut() = http::Method::GET;
        let answer = ask(&mut send, get, vec![]).await.unwrap();
        assert_eq!(
            (answer.status, &answer.headers["allow"]),
            (405, &HeaderValue::from_static("POST"))
        );
        let mut json = post();
        json.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
        assert_eq!(ask(&mut send, json, vec![]).await.unwrap().status, 415);
    });
}

#[test]
fn many_calls_at_a_time_with_the_h2_crate() {
    let rules = Rules { concurrent_streams_max: 50, ..RULES };
    let mut builder = h2::client::Builder::new();
    builder.initial_max_send_streams(50); // until it has read our SETTINGS
    with_h2(rules, &builder, async |send| {
        let calls = (0..300usize).map(|nth| {
            let mut send = send.clone();
            // A header that changes with each call, as deadlines do, and goes into the table.
            let mut request = post();
            let timeout = HeaderValue::from_str(&format!("{}u", 1000 * nth)).unwrap();
            request.headers_mut().insert("grpc-timeout", timeout);
            async move {
                let answer = ask(&mut send, request, message(nth * 100)).await.unwrap();
                assert_eq!(answer.body, message(nth * 100));
            }
        });
        all(calls).await;
    });
}

/// Runs all at a time.
async fn all<F: Future<Output = ()>>(futures: impl Iterator<Item = F>) {
    let mut futures: Vec<_> = futures.map(Box::pin).collect();
    std::future::poll_fn(|cx| {
        futures.retain_mut(|future| future.as_mut().poll(cx).is_pending());
        if futures.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

#[test]
fn a_call_taken_back_leaves_the_others_alone_with_the_h2_crate() {
    with_h2(RULES, &h2::client::Builder::new(), async |mut send| {
        for _ in 0..100 {
            std::future::poll_fn(|cx| send.poll_ready(cx)).await.unwrap();
            let (response, mut sending) = send.send_request(post(), false).unwrap();
            sending.send_reset(h2::Reason::CANCEL);
            drop(response);
            assert_eq!(ask(&mut send, post(), message(3)).await.unwrap().body, message(3));
        }
    });
}

/// The load generator's client, which is strict.
fn with_loadgen(bodies: &[usize], cuts: &[usize]) {
    let mut server = Server::fresh(RULES);
    let mut client = Client::default();
    let head = loadgen::grpc::head("/a.B/C", "here");
    for (tag, bytes) in bodies.iter().enumerate() {
        client.request(tag, &head, &message(*bytes)).unwrap();
    }
    let mut answers: BTreeMap<usize, (Vec<u8>, bool)> = BTreeMap::new();
    let mut cuts = cuts.iter().cycle();
    let mut cut = |len: usize| len.min(*cuts.next().unwrap());
    loop {
        let up = cut(client.out().len());
        let (received, requests) = server.receive(&client.out()[..up]);
        received.unwrap();
        client.sent(up);
        for Request { stream, body, .. } in requests {
            server.connection.answer(stream, body);
        }
        let down = cut(server.connection.out().len());
        let said = server.connection.out()[..down].to_vec();
        server.connection.sent(down);
        client
            .receive(&said, |tag, event| {
                let (body, ended) = answers.entry(tag).or_default();
                assert!(!*ended, "nothing comes behind the end");
                match event {
                    Event::Data(data) => body.extend_from_slice(data),
                    Event::End => *ended = true,
                    Event::Reset(code) => panic!("stream {tag} was reset: {code}"),
                    Event::Headers(fields) => {
                        assert!(fields.http_status == Some(200) || fields.grpc_status == Some(0));
                    }
                }
            })
            .unwrap();
        if up == 0 && down == 0 {
            break;
        }
    }
    for (tag, bytes) in bodies.iter().enumerate() {
        let (body, ended) = &answers[&tag];
        assert!(*ended && *body == message(*bytes), "call {tag} of {bytes} bytes");
    }
}

#[test]
fn bodies_past_every_window_with_the_load_generator() {
    with_loadgen(&[0, 1_000_000, 16_379, 16_380, 900_000, 5], &[100_000]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(50))]

    #[test]
    fn calls_cut_anywhere_with_the_load_generator(
        bodies in prop::collection::vec(0usize..20_000, 1..20),
        cuts in prop::collection::vec(1usize..5_000, 1..20),
    ) {
        with_loadgen(&bodies, &cuts);
    }
}
