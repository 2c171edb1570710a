//! One of the two servers: a connection, its streams, and what it said last.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use bytes::{Buf, BufMut, Bytes};
use loadgen::{
    client::{Client, Duplex},
    grpc::{Status, code},
};
use prost::{
    DecodeError, Message,
    encoding::{DecodeContext, WireType},
};
use proto::etcdserverpb::{
    LeaseRevokeRequest, PutRequest, RangeRequest, WatchRequest, kv, lease,
    watch_request::RequestUnion,
};

use crate::{
    answer::{Answer, error_text},
    call::{Call, Known},
    leasing::{Ledger, TTL_LONG},
    watching::{Heard, Stream, cancel},
};

/// How long a keep-alive is waited for.
const KEEP_ALIVE_MAX: Duration = Duration::from_secs(20);
/// Put, if need be, until the revision is there at which a watcher starts.
const FILLER: &[u8] = b"filler";
/// Watchers that start later than so many revisions from now are given up before a quiet point.
const FILLERS_MAX: i64 = 50;

/// A message not looked into: what was sent or came, byte for byte.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bare(pub(crate) Bytes);

impl Message for Bare {
    fn encode_raw(&self, out: &mut impl BufMut) {
        out.put_slice(&self.0);
    }

    fn encoded_len(&self) -> usize {
        self.0.len()
    }

    fn decode(mut from: impl Buf) -> Result<Self, DecodeError> {
        Ok(Self(from.copy_to_bytes(from.remaining())))
    }

    fn merge_field(
        &mut self,
        _: u32,
        _: WireType,
        _: &mut impl Buf,
        _: DecodeContext,
    ) -> Result<(), DecodeError> {
        unreachable!("decode takes all there is")
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

/// A server that is asked one call after the other.
pub struct Side {
    endpoint: String,
    client: Option<Client>,
    keep_alive: Option<Duplex>,
    streams: BTreeMap<usize, Stream>,
    leases: Ledger,
    known: Known,
}

impl Side {
    /// A fresh server: revision 1, nothing compacted.
    pub fn new(endpoint: &str) -> Self {
        Self {
            endpoint: endpoint.into(),
            client: None,
            keep_alive: None,
            streams: BTreeMap::new(),
            leases: Ledger::default(),
            known: Known { current: 1, ..Known::default() },
        }
    }

    /// Asks, and says what was asked in the end.
    pub fn ask(&mut self, call: &Call) -> (Call, Answer) {
        let call = call.clone().resolve(&self.known);
        let answer = self.answer(&call).unwrap_or_else(Failed::into_answer);
        if let Some(revision) = answer.revision() {
            self.known.current = self.known.current.max(revision);
        }
        if let (Call::Compact(request), Answer::Compact(_)) = (&call, &answer) {
            self.known.compacted.push(request.revision);
        }
        (call, answer)
    }

    fn answer(&mut self, call: &Call) -> Result<Answer, Failed> {
        match call {
            Call::Watch { stream, request } => self.watch(*stream, request),
            Call::WatchBytes { stream, message } => {
                self.settle()?;
                self.on_stream(*stream, |stream| stream.tell_bytes(message)).map(Answer::Watch)
            }
            Call::WatchEnd { stream } => {
                self.settle()?;
                let open = self.on_stream(*stream, Stream::end);
                self.streams.remove(stream);
                open.map(|open| Answer::WatchOver { open })
            }
            Call::Settle => self.heard().map(Answer::Settled),
            Call::KeepAlive(_) => {
                let came = self.keep_alive(call.message());
                Ok(self.leased(call, Answer::new(call, came), Instant::now()))
            }
            _ => {
                // What a watcher is still to be told may be gone after it.
                if call.path() == kv::COMPACT {
                    self.settle()?;
                }
                let asked = Instant::now();
                let came = self.exchange(call.path(), call.message());
                Ok(self.leased(call, Answer::new(call, came), asked))
            }
        }
    }

    // ── watches ─────────────────────────────────────────────────────────────────────────────────

    /// Whatever is asked of a stream but to create depends on how far it is. It says nothing of that
    /// while a watcher has not begun, however far the others are.
    fn watch(&mut self, at: usize, request: &WatchRequest) -> Result<Answer, Failed> {
        let answers = match request.request_union {
            Some(RequestUnion::CreateRequest(_)) => self.on_stream(at, |one| one.tell(request)),
            Some(RequestUnion::ProgressRequest(_)) => {
                let start = self.streams.get(&at).map_or(0, |stream| stream.starts(i64::MAX).0);
                if start <= self.revision().map_err(Failed::Settling)? {
                    self.settle()?;
                }
                self.on_stream(at, Stream::ask_progress)
            }
            _ => {
                self.settle()?;
                self.on_stream(at, |one| one.tell(request))
            }
        };
        answers.map(Answer::Watch)
    }

    /// A stream that fails is over; the next call opens another.
    fn on_stream<T>(
        &mut self,
        at: usize,
        ask: impl FnOnce(&mut Stream) -> Result<T, Status>,
    ) -> Result<T, Failed> {
        let stream = match self.streams.remove(&at) {
            Some(stream) => stream,
            None => Stream::open(&self.endpoint).map_err(Failed::Call)?,
        };
        let stream = self.streams.entry(at).or_insert(stream);
        let answer = ask(stream);
        if answer.is_err() {
            self.streams.remove(&at);
        }
        answer.map_err(Failed::Call)
    }

    /// Waits until every watcher has all there is. All have started then.
    fn settle(&mut self) -> Result<(), Failed> {
        if self.streams.is_empty() {
            return Ok(());
        }
        let mut revision = self.revision().map_err(Failed::Settling)?;
        let mut start = 0;
        for stream in self.streams.values_mut() {
            let (near, far) = stream.starts(revision + FILLERS_MAX);
            start = start.max(near);
            for id in far {
                stream.tell(&cancel(id)).map_err(Failed::Settling)?;
            }
        }
        while revision < start {
            let put = PutRequest { key: FILLER.into(), ..Default::default() };
            self.exchange(kv::PUT, put.encode_to_vec().into()).map_err(Failed::Settling)?;
            revision += 1;
        }
        self.known.current = revision;
        self.streams
            .values_mut()
            .try_for_each(|stream| stream.settle(revision))
            .map_err(Failed::Settling)
    }

    fn heard(&mut self) -> Result<Heard, Failed> {
        self.settle()?;
        let heard = self.streams.iter_mut().flat_map(|(at, stream)| {
            stream.take_heard().into_iter().map(|(id, heard)| ((*at, id), heard))
        });
        Ok(heard.collect())
    }

    fn revision(&mut self) -> Result<i64, Status> {
        let range = RangeRequest { key: FILLER.into(), ..Default::default() };
        let came = self.exchange(kv::RANGE, range.encode_to_vec().into());
        match Answer::new(&Call::Range(range), came) {
            Answer::Range(response) => Ok(response.header.map_or(0, |header| header.revision)),
            other => Err(Status::new(code::UNKNOWN, format!("{other:?}"))),
        }
    }

    // ── leases ──────────────────────────────────────────────────────────────────────────────────

    /// Notes what an answer says of leases, and puts it in the form in which two are compared.
    fn leased(&mut self, call: &Call, mut answer: Answer, asked: Instant) -> Answer {
        let Self { leases, known, .. } = self;
        match (call, &mut answer) {
            (Call::LeaseGrant(request), Answer::LeaseGrant(response)) => {
                let id = response.id;
                leases.granted(id, response.ttl);
                if request.id == 0 && id > 0 {
                    known.chosen.push(id);
                }
                response.id = known.lease(id);
                if response.ttl < TTL_LONG {
                    let failed = self.give_back(id).err().map(Failed::Call);
                    return failed.map_or(answer, Failed::into_answer);
                }
            }
            (Call::LeaseRevoke(request), Answer::LeaseRevoke(_)) => leases.revoked(request.id),
            (Call::KeepAlive(_) | Call::KeepAliveOnce(_), Answer::KeepAlive(response)) => {
                leases.renewed(response.id);
                response.id = known.lease(response.id);
            }
            (Call::LeaseTimeToLive(_), Answer::LeaseTimeToLive(response)) => {
                leases.settle_remaining(response, asked, known);
            }
            (_, Answer::LeaseLeases(response)) => leases.settle_list(response, known),
            (Call::Lock(request), _) => leases.perhaps_renewed(request.lease),
            (Call::Campaign(request), answer) => {
                leases.perhaps_renewed(request.lease);
                if let Answer::Campaign(response) = answer {
                    let revision = response.leader.as_ref().map_or(0, |leader| leader.rev);
                    known.campaigned.insert(request.name.clone(), revision);
                }
            }
            (Call::Proclaim(request), _) => {
                leases.perhaps_renewed(request.leader.as_ref().map_or(0, |leader| leader.lease));
            }
            (Call::Resign(request), _) => {
                leases.perhaps_renewed(request.leader.as_ref().map_or(0, |leader| leader.lease));
            }
            _ => {}
        }
        answer
    }

    fn give_back(&mut self, id: i64) -> Result<(), Status> {
        self.leases.revoked(id);
        let revoke = LeaseRevokeRequest { id };
        self.exchange(lease::LEASE_REVOKE, revoke.encode_to_vec().into()).map(drop)
    }

    fn keep_alive(&mut self, message: Bytes) -> Result<Vec<Bytes>, Status> {
        let unreachable = |error: std::io::Error| Status::new(code::UNAVAILABLE, error.to_string());
        let mut duplex = match self.keep_alive.take() {
            Some(duplex) => duplex,
            None => Client::connect(&self.endpoint)
                .map_err(unreachable)?
                .duplex(lease::LEASE_KEEP_ALIVE)?,
        };
        duplex.send(&Bare(message))?;
        let came = duplex.next::<Bare>(KEEP_ALIVE_MAX)?;
        self.keep_alive = Some(duplex);
        Ok(came.map(|message| message.0).into_iter().collect())
    }

    fn exchange(&mut self, path: &str, message: Bytes) -> Result<Vec<Bytes>, Status> {
        let unreachable = |error: std::io::Error| Status::new(code::UNAVAILABLE, error.to_string());
        let client = match &mut self.client {
            Some(client) => client,
            none => none.insert(Client::connect(&self.endpoint).map_err(unreachable)?),
        };
        let replies = client.stream::<Bare, Bare>(path, &Bare(message));
        let messages: Result<Vec<Bytes>, Status> =
            replies.and_then(|replies| replies.map(|one| one.map(|one| one.0)).collect());
        // Lost, perhaps: the next call tries a new connection.
        if messages.as_ref().is_err_and(|status| status.code == code::UNAVAILABLE) {
            self.client = None;
        }
        messages
    }
}

/// Why there is no answer of the call's own kind.
enum Failed {
    /// The server said no, or nothing.
    Call(Status),
    /// The watchers did not get all there is.
    Settling(Status),
}

impl Failed {
    fn into_answer(self) -> Answer {
        match self {
            Self::Call(status) => Answer::Error(status.code, error_text(&status.message)),
            Self::Settling(status) => Answer::Unsettled(status.to_string()),
        }
    }
}
