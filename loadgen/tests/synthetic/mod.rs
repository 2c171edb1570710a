//! A server whose delays are known: every call is answered with success, an empty header and nothing
//! else, when its [`Delay`] says so. What it is asked it does not read.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver, Sender},
    },
    thread,
    time::{Duration, Instant},
};

/// When a call is answered.
#[derive(Clone, Copy)]
pub struct Delay {
    /// After it came.
    pub each: Duration,
    /// Not from this time on, counted from the first call,
    pub stall_at: Duration,
    /// for so long.
    pub stall: Duration,
}

impl Delay {
    pub fn of(each: Duration) -> Self {
        Self { each, stall_at: Duration::ZERO, stall: Duration::ZERO }
    }

    fn answer_at(self, first: Instant, now: Instant) -> Instant {
        let (at, stall) = (now + self.each, first + self.stall_at);
        let over = stall + self.stall;
        if at >= stall && at < over { over } else { at }
    }
}

pub struct Server {
    pub endpoint: String,
    sockets: Arc<Mutex<Vec<TcpStream>>>,
    gone: Arc<AtomicBool>,
}

impl Server {
    pub fn start(delay: Delay) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        let endpoint = listener.local_addr().expect("it is bound").to_string();
        let sockets: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
        let gone: Arc<AtomicBool> = Arc::default();
        let first = Arc::new(Mutex::new(None));
        let server = Self { endpoint, sockets: Arc::clone(&sockets), gone: Arc::clone(&gone) };
        thread::spawn(move || {
            for socket in listener.incoming() {
                let socket = socket.expect("a connection");
                if gone.load(Ordering::SeqCst) {
                    return;
                }
                socket.set_nodelay(true).expect("a socket");
                sockets.lock().unwrap().push(socket.try_clone().expect("a socket"));
                let first = Arc::clone(&first);
                thread::spawn(move || serve(socket, delay, &first));
            }
        });
        server
    }

    /// Ends all connections; new ones are taken.
    pub fn hang_up(&self) {
        for socket in self.sockets.lock().unwrap().drain(..) {
            socket.shutdown(Shutdown::Both).ok();
        }
    }

    /// Ends all connections and takes no more.
    pub fn die(&self) {
        self.gone.store(true, Ordering::SeqCst);
        // So that it looks, and goes with its port.
        TcpStream::connect(&self.endpoint).ok();
        self.hang_up();
    }
}

const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PREFACE_BYTES: usize = 24;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Reads calls until the connection ends.
fn serve(mut socket: TcpStream, delay: Delay, first: &Mutex<Option<Instant>>) -> Option<()> {
    let (answers, due) = mpsc::channel();
    let mut writer = socket.try_clone().ok()?;
    let window = frame(WINDOW_UPDATE, 0, 0, &0x7000_0000u32.to_be_bytes());
    let greeting = [frame(SETTINGS, 0, 0, &[]), frame(SETTINGS, 1, 0, &[]), window].concat();
    writer.write_all(&greeting).ok()?;
    thread::spawn(move || answer(writer, &due));
    socket.read_exact(&mut [0; PREFACE_BYTES]).ok()?;
    loop {
        let mut head = [0; 9];
        socket.read_exact(&mut head).ok()?;
        let [l0, l1, l2, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, l0, l1, l2]) as usize];
        socket.read_exact(&mut payload).ok()?;
        // DATA that ends its stream: the call is whole.
        if kind == 0 && flags & END_STREAM != 0 {
            called(&answers, u32::from_be_bytes(stream), delay, first)?;
        }
    }
}

fn called(
    answers: &Sender<(Instant, u32)>,
    stream: u32,
    delay: Delay,
    first: &Mutex<Option<Instant>>,
) -> Option<()> {
    let now = Instant::now();
    let first = *first.lock().unwrap().get_or_insert(now);
    answers.send((delay.answer_at(first, now), stream)).ok()
}

/// Writes each answer when it is due. They are due in the order in which they were asked for.
fn answer(mut socket: TcpStream, due: &Receiver<(Instant, u32)>) -> Option<()> {
    // `:status: 200` of the static table, and a literal that is not indexed (RFC 7541 §6.1, §6.2.2).
    let trailers = b"\0\x0bgrpc-status\x010";
    for (at, stream) in due {
        thread::sleep(at.saturating_duration_since(Instant::now()));
        let answer = [
            frame(HEADERS, END_HEADERS, stream, b"\x88"),
            frame(0, 0, stream, b"\0\0\0\0\x02\x0a\0"),
            frame(HEADERS, END_HEADERS | END_STREAM, stream, trailers),
        ];
        socket.write_all(&answer.concat()).ok()?;
    }
    Some(())
}
