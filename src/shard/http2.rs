//! HTTP/2 on one connection. The only file that names the HTTP/2 library.
//!
//! A request whose whole body came with its headers — nearly all of them — is handed to the shard
//! on the spot, without a task of its own; the reply is sent from wherever it comes about. Frames
//! that replies make are gathered and leave together when the connection's task runs next.

use super::{Shard, grpc, stream::Stream};
use crate::{
    api::status::{Code, Status},
    limits::{
        HTTP2_CONNECTION_WINDOW_BYTES, HTTP2_HEADER_BYTES_MAX, HTTP2_STREAM_WINDOW_BYTES,
        REQUESTS_PER_POLL_MAX,
    },
};
use bytes::{Bytes, BytesMut};
use futures_lite::ready;
use h2::{
    Reason, RecvStream, SendStream,
    server::{Connection, SendResponse},
};
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode,
    header::{ALLOW, CONTENT_TYPE},
};
use std::{
    future::poll_fn,
    rc::Rc,
    task::{Context, Poll},
};

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const OK: HeaderValue = HeaderValue::from_static("0");

/// Serves one connection until either side ends it.
///
/// # Errors
/// A sentence for the log: what the client did that HTTP/2 forbids, or why the socket broke.
pub async fn serve(stream: Stream, shard: Rc<Shard>) -> Result<(), String> {
    let mut connection = h2::server::Builder::new()
        .initial_window_size(HTTP2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(HTTP2_CONNECTION_WINDOW_BYTES)
        .max_header_list_size(HTTP2_HEADER_BYTES_MAX)
        .max_concurrent_streams(shard.limits().concurrent_streams_max)
        .handshake::<_, Bytes>(stream)
        .await
        .map_err(|error| format!("HTTP/2 handshake: {error}"))?;
    poll_fn(|cx| poll_requests(&mut connection, &shard, cx))
        .await
        .map_err(|error| format!("HTTP/2: {error}"))
}

/// Takes every request that is there, then lets the shard send on what they asked for together.
fn poll_requests(
    connection: &mut Connection<Stream, Bytes>,
    shard: &Rc<Shard>,
    cx: &mut Context<'_>,
) -> Poll<Result<(), h2::Error>> {
    shard.refresh();
    for _ in 0..REQUESTS_PER_POLL_MAX {
        match connection.poll_accept(cx) {
            Poll::Ready(Some(Ok((request, respond)))) => begin(shard, request, respond, cx),
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
            Poll::Ready(None) => return Poll::Ready(Ok(())),
            Poll::Pending => {
                shard.flush();
                return Poll::Pending;
            }
        }
    }
    // A client that sends without end shares its core with the others.
    shard.flush();
    cx.waker().wake_by_ref();
    Poll::Pending
}

/// What the request's headers say, as far as anybody here cares.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Metadata {
    /// The client wants an error rather than a wait when nobody leads (`hasleader: true`).
    pub requires_leader: bool,
    /// A token came along; without authentication it is ignored (etcd behaviour).
    pub has_token: bool,
}

impl Metadata {
    fn read(headers: &HeaderMap) -> Self {
        Self {
            requires_leader: headers.get("hasleader").is_some_and(|value| value == "true"),
            has_token: headers.contains_key("token") || headers.contains_key("authorization"),
        }
    }
}

/// Hands over a request whose body is here, and waits for the others' in a task of their own.
fn begin(
    shard: &Rc<Shard>,
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
    cx: &mut Context<'_>,
) {
    let (parts, body) = request.into_parts();
    let responder = Responder { respond };
    if let Some(refusal) = not_grpc(&parts) {
        return responder.refuse_http(refusal);
    }
    let metadata = Metadata::read(&parts.headers);
    let bytes_max = shard.limits().message_bytes_max;
    let mut gather = Gather { body, first: Bytes::new(), more: BytesMut::new(), bytes_max };
    match gather.poll(cx) {
        Poll::Ready(Ok(body)) => shard.on_body(parts.uri.path(), metadata, body, responder),
        Poll::Ready(Err(Broken::Status(status))) => responder.refuse(&status),
        Poll::Ready(Err(Broken::Gone)) => {}
        Poll::Pending => {
            let shard = shard.clone();
            let Some(room) = shard.admit_unfinished() else {
                return responder.refuse(&Status::new(
                    Code::ResourceExhausted,
                    "etcdserver: too many requests",
                ));
            };
            let task = async move {
                match poll_fn(|cx| gather.poll(cx)).await {
                    Ok(body) => {
                        shard.on_body(parts.uri.path(), metadata, body, responder);
                        shard.flush();
                    }
                    Err(Broken::Status(status)) => responder.refuse(&status),
                    Err(Broken::Gone) => {}
                }
                drop(room);
            };
            glommio::spawn_local(task).detach();
        }
    }
}

/// What a gRPC server says to an HTTP/2 request that is not gRPC (grpc-go: 405 and 415).
fn not_grpc(parts: &http::request::Parts) -> Option<Response<()>> {
    let status = |code: StatusCode| {
        let mut response = Response::new(());
        *response.status_mut() = code;
        response
    };
    if parts.method != Method::POST {
        let mut response = status(StatusCode::METHOD_NOT_ALLOWED);
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
        return Some(response);
    }
    let kind = parts.headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let is_grpc = kind.starts_with(b"application/grpc")
        && kind.get(b"application/grpc".len()).is_none_or(|next| matches!(next, b'+' | b';'));
    (!is_grpc).then(|| status(StatusCode::UNSUPPORTED_MEDIA_TYPE))
}

/// Why a body never became whole.
enum Broken {
    Status(Status),
    /// The client took it back or the connection broke: nobody is left to answer.
    Gone,
}

/// A request's body on its way in. One chunk is passed on without a copy.
struct Gather {
    body: RecvStream,
    first: Bytes,
    more: BytesMut,
    bytes_max: usize,
}

impl Gather {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, Broken>> {
        loop {
            if let Err(status) = grpc::message_len(self.start(), self.bytes_max) {
                return Poll::Ready(Err(Broken::Status(status)));
            }
            match ready!(self.body.poll_data(cx)) {
                Some(Ok(chunk)) => {
                    let returned = self.body.flow_control().release_capacity(chunk.len());
                    if returned.is_err() {
                        return Poll::Ready(Err(Broken::Gone));
                    }
                    self.add(chunk);
                }
                Some(Err(_reset_or_io)) => return Poll::Ready(Err(Broken::Gone)),
                None if self.more.is_empty() => {
                    return Poll::Ready(Ok(std::mem::take(&mut self.first)));
                }
                None => return Poll::Ready(Ok(std::mem::take(&mut self.more).freeze())),
            }
        }
    }

    fn start(&self) -> &[u8] {
        if self.more.is_empty() { &self.first } else { &self.more }
    }

    fn add(&mut self, chunk: Bytes) {
        if self.first.is_empty() && self.more.is_empty() {
            self.first = chunk;
        } else {
            if self.more.is_empty() {
                self.more.extend_from_slice(&self.first);
            }
            self.more.extend_from_slice(&chunk);
        }
    }
}

/// The way back to the client, for one answer. A client that is gone is not an error.
pub struct Responder {
    respond: SendResponse<Bytes>,
}

impl Responder {
    /// Sends one message, framed already, and status OK.
    pub fn answer(mut self, framed: Bytes) {
        let Ok(mut body) = self.respond.send_response(head(), false) else { return };
        if body.send_data(framed, false).is_ok() {
            let _gone = body.send_trailers(trailers_ok()).is_err();
        }
    }

    /// Sends a status alone.
    pub fn refuse(mut self, status: &Status) {
        let mut response = head();
        status_headers(status, response.headers_mut());
        let _gone = self.respond.send_response(response, true).is_err();
    }

    fn refuse_http(mut self, response: Response<()>) {
        if self.respond.send_response(response, true).is_err() {
            self.respond.send_reset(Reason::CANCEL);
        }
    }

    /// Opens a stream of answers.
    pub fn open(mut self) -> Option<Answers> {
        let body = self.respond.send_response(head(), false).ok()?;
        Some(Answers { body })
    }
}

/// A server stream: several messages, then a status.
pub struct Answers {
    body: SendStream<Bytes>,
}

/// The client of a stream is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone;

impl Answers {
    /// Sends one framed message once the client has room for it, so that a slow reader holds
    /// memory for one message and no more.
    ///
    /// # Errors
    /// [`Gone`] when the client ended the stream.
    pub async fn send(&mut self, mut framed: Bytes) -> Result<(), Gone> {
        while !framed.is_empty() {
            self.body.reserve_capacity(framed.len());
            let room = match poll_fn(|cx| self.body.poll_capacity(cx)).await {
                Some(Ok(room)) => room.min(framed.len()),
                Some(Err(_)) | None => return Err(Gone),
            };
            self.body.send_data(framed.split_to(room), false).map_err(|_reset| Gone)?;
        }
        Ok(())
    }

    /// Ends the stream.
    pub fn finish(mut self, status: Option<&Status>) {
        let trailers = status.map_or_else(trailers_ok, |status| {
            let mut trailers = HeaderMap::with_capacity(2);
            status_headers(status, &mut trailers);
            trailers
        });
        let _gone = self.body.send_trailers(trailers).is_err();
    }
}

fn head() -> Response<()> {
    let mut response = Response::new(());
    response.headers_mut().insert(CONTENT_TYPE, GRPC);
    response
}

fn trailers_ok() -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert("grpc-status", OK);
    trailers
}

fn status_headers(status: &Status, headers: &mut HeaderMap) {
    headers.insert("grpc-status", HeaderValue::from(u16::from(status.code)));
    let message = grpc::encode_message(&status.message);
    let message = HeaderValue::from_str(&message).expect("percent-encoded text is printable ASCII");
    headers.insert("grpc-message", message);
}
