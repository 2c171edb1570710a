//! A whole tree on its way from one member to another: `POST /raft/snapshot`, twice on one
//! connection of its own.
//!
//! ```text
//!  sender                                            receiver
//!  u64 length, message, manifest              ─────▶ which parts are here already?
//!                                             ◀───── 200: u64 number of each that is missing
//!  for each of them: u64 number, u64 length,  ─────▶ staged beside the live tree, checked, durable
//!                    bytes                    ◀───── 204: all of it is, and the node has it
//! ```
//!
//! Numbers are big-endian. A header of ours tells the two requests from an etcd's, whose snapshots
//! are bbolt files: those are refused. One snapshot comes in at a time; what broke off leaves its
//! whole parts for the next, of which they are not missing then.

use super::{
    Room, calls, frame,
    frame::Heard,
    identity,
    link::Link,
    serve::{self, Answer},
    socket::Socket,
};
use crate::{
    consensus::{Kind, Message},
    io::{
        Clock,
        thread::{Lane, LaneDisk, Priority},
    },
    limits::{PEER_BODY_BYTES_MAX, PEER_SNAPSHOT_BYTES_PER_SECOND, PEER_SNAPSHOT_WAIT},
    log,
    mesh::FromPeer,
    net::{
        connect,
        http1::{Length, Parsed, Request, Response, take_request, take_response},
    },
    tree::{InstallError, Manifest, Options, Receiving, Snapshot, Stage, Staged},
    types::Index,
};
use bytes::{Buf, Bytes};
use futures_lite::future;
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

/// Which of the two requests it is.
const STEP: &str = "X-Ringleader-Snapshot";

/// Where snapshots are staged: the member's own directory.
pub struct Ground {
    /// The directory.
    pub disk: LaneDisk,
    /// How its tree is laid out.
    pub tree: Options,
}

/// What has come in so far, and what is coming.
pub struct Landing {
    ground: Ground,
    /// Whole parts of snapshots that were not installed.
    stage: RefCell<Stage>,
    /// One is coming in.
    busy: Cell<bool>,
    /// One has been handed to the node, which has not said yet what becomes of it.
    judged: Cell<Option<Index>>,
}

impl Landing {
    /// Nothing has come yet.
    pub fn new(ground: Ground) -> Self {
        Self { ground, stage: RefCell::default(), busy: Cell::new(false), judged: Cell::new(None) }
    }

    /// Whether another may begin now: an install ends by removing what it does not know.
    fn is_free(&self, room: &Room) -> bool {
        let applied = room.newest.load().applied;
        !self.busy.get() && self.judged.get().is_none_or(|index| applied >= index)
    }

    /// The node did not want it: its parts may help the next.
    pub fn take_back(&self, staged: Staged) {
        self.judged.set(None);
        self.stage.replace(staged.abandon());
    }
}

// ── to another member ───────────────────────────────────────────────────────────────────────────

/// Begins to send; the node hears how it went.
pub fn send(room: &Rc<Room>, message: Box<Message>, snapshot: Snapshot) {
    let to = message.to;
    let link = room.link(to).filter(|link| !link.sends_snapshot.replace(true));
    let Some(link) = link else {
        return room.desk.tell(FromPeer::SnapshotSent { to, arrived: false });
    };
    let room = room.clone();
    let sending = async move {
        log::info!(
            "sending database snapshot",
            "remote-peer-id" => to.to_string(),
            "snapshot-index" => snapshot.facts().applied.0,
        );
        let sent = bring(&room, &link, &message, &snapshot).await;
        match &sent {
            Ok(bytes) => log::info!(
                "sent database snapshot",
                "remote-peer-id" => to.to_string(),
                "snapshot-index" => snapshot.facts().applied.0,
                "bytes" => *bytes,
            ),
            Err(why) => log::warn!(
                "failed to send database snapshot",
                "remote-peer-id" => to.to_string(),
                "snapshot-index" => snapshot.facts().applied.0,
                "error" => why,
            ),
        }
        link.sends_snapshot.set(false);
        room.desk.tell(FromPeer::SnapshotSent { to, arrived: sent.is_ok() });
    };
    glommio::spawn_local(sending).detach();
}

/// Brings it over; how many bytes of it were missing there.
async fn bring(
    room: &Room,
    link: &Link,
    message: &Message,
    snapshot: &Snapshot,
) -> Result<u64, String> {
    let text = |error: std::io::Error| error.to_string();
    // Records that nobody read for long come from the disk when they are touched, and whoever touches
    // them waits: that must not be the node.
    let reader = Lane::start("snapshot-io", Priority::Low).map_err(text)?;
    let whole = snapshot.clone();
    let manifest = reader.run(move || Ok(future::block_on(whole.encode_manifest())));
    let manifest = manifest.await.map_err(text)?;
    let place = link.place().ok_or("no URL of it can be spoken to")?;
    let connected = connect(&place, room.dial_wait).await;
    let stream = connected.inspect_err(|_| link.unreachable_at(&place)).map_err(text)?;
    let mut socket = room.socket(stream).map_err(text)?;
    // It may have a lot to check before it says something.
    socket.allow_silence().map_err(text)?;

    let mut body = Vec::new();
    frame::encode_framed(message, &mut body);
    body.extend_from_slice(&manifest);
    let step = |step, bytes| {
        let head = room.who.request("POST", "/raft/snapshot", &place.to_string());
        format!("{head}{STEP}: {step}\r\nContent-Length: {bytes}\r\n\r\n")
    };
    socket.out = step("manifest", body.len() as u64).into_bytes();
    socket.out.extend_from_slice(&body);
    let (status, mut said) = answered(&mut socket).await?;
    if status != 200 || said.len() % size_of::<u64>() != 0 {
        return refused(room, status, &said);
    }
    let mut missing = Vec::new();
    while said.has_remaining() {
        missing.push(usize::try_from(said.get_u64()).unwrap_or(usize::MAX));
    }
    if missing.iter().any(|part| *part >= snapshot.parts()) {
        return Err("it asks for parts that there are not".into());
    }
    let head_bytes = 2 * size_of::<u64>() as u64;
    let bytes = missing.iter().map(|part| head_bytes + snapshot.part_bytes(*part)).sum();
    socket.out = step("parts", bytes).into_bytes();
    send_parts(room, link, &reader, snapshot, &missing, &mut socket).await?;
    match answered(&mut socket).await? {
        (204, _) => Ok(bytes),
        (status, said) => refused(room, status, &said),
    }
}

/// Sends parts, no faster than leaves room for others.
async fn send_parts(
    room: &Room,
    link: &Link,
    reader: &Lane,
    snapshot: &Snapshot,
    missing: &[usize],
    socket: &mut Socket,
) -> Result<(), String> {
    let (began, mut sent) = (room.clock.now(), 0_u64);
    for part in missing {
        socket.out.extend_from_slice(&(*part as u64).to_be_bytes());
        socket.out.extend_from_slice(&snapshot.part_bytes(*part).to_be_bytes());
        let mut pieces = snapshot.pieces(*part);
        loop {
            let read = reader.run(move || {
                let piece = pieces.next();
                Ok((pieces, piece))
            });
            let (rest, piece) = read.await.map_err(|error| error.to_string())?;
            pieces = rest;
            let Some(piece) = piece else { break };
            if link.is_ended() {
                return Err("it is no member any more".into());
            }
            socket.out.extend_from_slice(&piece);
            socket.flush().await.map_err(|error| error.to_string())?;
            link.meter.sent_bytes.add(piece.len() as u64);
            sent += piece.len() as u64;
            let due = Duration::from_millis(sent * 1_000 / PEER_SNAPSHOT_BYTES_PER_SECOND);
            room.clock.sleep_until(began + due).await;
        }
    }
    Ok(())
}

/// Sends what waits and reads an answer, for as long as a large store takes to be checked.
async fn answered(socket: &mut Socket) -> Result<(u16, Bytes), String> {
    let reading = async {
        socket.flush().await.map_err(|error| error.to_string())?;
        let head: Response = loop {
            match take_response(&mut socket.input) {
                Parsed::Whole(head) => break head,
                Parsed::Bad(_, why) => return Err(why.to_owned()),
                Parsed::Partial => more(socket).await?,
            }
        };
        let Length::Known(bytes) = head.length else { return Err("an odd answer".into()) };
        if bytes > PEER_BODY_BYTES_MAX {
            return Err("an answer too large".into());
        }
        while socket.input.len() < bytes {
            more(socket).await?;
        }
        Ok((head.status, socket.input.split_to(bytes).freeze()))
    };
    let late = async {
        glommio::timer::sleep(PEER_SNAPSHOT_WAIT).await;
        Err("no answer".to_owned())
    };
    future::or(reading, late).await
}

async fn more(socket: &mut Socket) -> Result<(), String> {
    match socket.fill().await {
        Ok(true) => Ok(()),
        Ok(false) => Err("the connection ended".into()),
        Err(error) => Err(error.to_string()),
    }
}

fn refused(room: &Room, status: u16, said: &Bytes) -> Result<u64, String> {
    let answer = calls::Answer { status, body: said.clone() };
    if calls::is_removal(&answer) {
        room.desk.tell(FromPeer::Removed);
    }
    Err(format!("http status {status}: {}", String::from_utf8_lossy(said).trim_end()))
}

// ── from another member ─────────────────────────────────────────────────────────────────────────

/// Takes in a snapshot whose first request is this one; the connection is for nothing else.
pub async fn receive(
    room: Rc<Room>,
    request: Request,
    body: Bytes,
    mut socket: Socket,
) -> std::io::Result<()> {
    let answer = match Coming::begin(&room, &request, body).await {
        Err(answer) => answer,
        Ok(coming) => coming.take(&room, &mut socket).await,
    };
    if answer.is_error() {
        log::warn!("failed to receive database snapshot", "error" => answer.text());
    }
    answer.write(&room, false, &mut socket.out);
    socket.flush().await
}

/// A snapshot that is coming in.
struct Coming {
    message: Box<Message>,
    boot: Option<u64>,
    receiving: Receiving<LaneDisk>,
    busy: Busy,
}

/// Another may come once this is gone.
struct Busy(Rc<Room>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.landing.busy.set(false);
    }
}

impl Coming {
    /// Judges the first request.
    async fn begin(room: &Rc<Room>, request: &Request, mut body: Bytes) -> Result<Self, Answer> {
        let refuse = |status, why: &str| Err(Answer::error(status, why));
        if request.method != "POST" {
            return Err(Answer::not_allowed("POST"));
        }
        if let Err(mismatch) = room.who.check(&request.headers) {
            return refuse(412, mismatch.text());
        }
        room.hear_of(&request.headers);
        if request.headers.get(STEP) != Some("manifest") {
            return refuse(501, "snapshots of etcd are not taken in ringleader");
        }
        let message = match take_message(&mut body) {
            Some(message) if message.kind == Kind::Snapshot => message,
            Some(_) => return refuse(400, "wrong raft message type"),
            None => return refuse(400, "failed to decode raft message"),
        };
        if room.is_removed(message.from) {
            return Err(Answer::json_error(403, serve::FROM_REMOVED));
        }
        if message.to != room.who.member {
            return Err(Answer::json_error(403, serve::TO_ANOTHER));
        }
        let landing = &room.landing;
        let options = landing.ground.tree;
        let manifest = match Manifest::decode(&body, room.who.cluster, options.segment_bytes) {
            Ok(manifest) => manifest,
            Err(flaw) => return refuse(400, &format!("the snapshot's list of parts: {flaw}")),
        };
        let mark = message.snapshot.as_ref().map(|mark| mark.index);
        if mark != Some(manifest.facts().applied) {
            return refuse(400, "the message speaks of another snapshot");
        }
        if !landing.is_free(room) {
            return refuse(503, "another snapshot is coming in");
        }
        landing.busy.set(true);
        let busy = Busy(room.clone());
        let own = room.newest.load().tree.sealed();
        let (disk, stage) = (landing.ground.disk.clone(), landing.stage.take());
        let boot = identity::boot_of(&request.headers);
        match Receiving::begin(disk, options, &own, stage, manifest).await {
            Ok(receiving) => Ok(Self { message, boot, receiving, busy }),
            Err(error) => refuse(500, &format!("failed to save KV snapshot ({error})")),
        }
    }

    /// Takes in what is missing and hands all of it to the node.
    async fn take(mut self, room: &Rc<Room>, socket: &mut Socket) -> Answer {
        let failed = |why: &str| Answer::error(500, &format!("failed to save KV snapshot ({why})"));
        if let Err(why) = self.take_parts(room, socket).await {
            room.landing.stage.replace(self.receiving.abandon());
            return failed(&why);
        }
        let staged = match self.receiving.finish().await {
            Ok(staged) => staged,
            Err((error, stage)) => {
                room.landing.stage.replace(stage);
                return failed(&error.to_string());
            }
        };
        let is_heard = room.link(self.message.from).is_none_or(|link| link.hears(self.boot));
        if !is_heard {
            room.landing.stage.replace(staged.abandon());
            return Answer::error(412, "a newer start of the member was heard of");
        }
        log::info!(
            "received and saved database snapshot",
            "remote-snapshot-sender-id" => self.message.from.to_string(),
            "incoming-snapshot-index" => staged.applied().0,
        );
        room.landing.judged.set(Some(staged.applied()));
        let (message, staged) = (self.message, Box::new(staged));
        room.desk.tell(FromPeer::Snapshot { message, staged });
        drop(self.busy);
        Answer::done()
    }

    async fn take_parts(&mut self, room: &Room, socket: &mut Socket) -> Result<(), String> {
        let missing = self.receiving.missing();
        let list: Vec<u8> = missing.iter().flat_map(|part| (*part as u64).to_be_bytes()).collect();
        Answer::parts(list).write(room, true, &mut socket.out);
        socket.flush().await.map_err(|error| error.to_string())?;
        let request = loop {
            match take_request(&mut socket.input) {
                Parsed::Whole(request) => break request,
                Parsed::Bad(_, why) => return Err(why.to_owned()),
                Parsed::Partial => more(socket).await?,
            }
        };
        if request.headers.get(STEP) != Some("parts") {
            return Err("the parts do not come".into());
        }
        for part in missing {
            self.take_part(part, socket).await?;
        }
        Ok(())
    }

    async fn take_part(&mut self, part: usize, socket: &mut Socket) -> Result<(), String> {
        while socket.input.len() < 2 * size_of::<u64>() {
            more(socket).await?;
        }
        let (number, bytes) = (socket.input.get_u64(), socket.input.get_u64());
        if number != part as u64 {
            return Err(format!("part {number} instead of part {part}"));
        }
        let (mut offset, text) = (0, |error: InstallError| error.to_string());
        while offset < bytes {
            if socket.input.is_empty() {
                more(socket).await?;
            }
            let step =
                socket.input.len().min(usize::try_from(bytes - offset).unwrap_or(usize::MAX));
            let piece = socket.input.split_to(step);
            self.receiving.receive(part, offset, &piece).await.map_err(text)?;
            offset += step as u64;
            future::yield_now().await;
        }
        self.receiving.finish_part(part).await.map_err(text)
    }
}

/// The message at the front of a body, if it is one.
fn take_message(body: &mut Bytes) -> Option<Box<Message>> {
    let length = usize::try_from((body.len() >= size_of::<u64>()).then(|| body.get_u64())?).ok()?;
    let message = (body.len() >= length).then(|| body.split_to(length))?;
    match frame::decode(message) {
        Ok(Heard::Message(message)) => Some(message),
        Ok(Heard::LinkHeartbeat) | Err(_) => None,
    }
}
