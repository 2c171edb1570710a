//! Distance: what is sent through arrives that much later, one way and the other, in order.
//!
//! ```text
//!   near ──► read, due = now + delay ──► queue ──► wait until due ──► far
//!   near ◄── wait until due ◄── queue ◄── read, due = now + delay ◄── far
//! ```
//!
//! Two threads for each direction of a connection: one never waits for what is due, the other for what
//! comes. Nothing is dropped and nothing overtakes, as on a long line; making a connection takes no
//! time, and an end is as late as a byte. A sleep of the kernel's may be 0.1 ms too long.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Read at a time, bytes.
const CHUNK_BYTES: usize = 64 << 10;
/// Chunks on their way in one direction: more than a member sends in the longest delay.
const ON_THE_WAY_MAX: usize = 16 << 10;
/// How long the member behind may take to accept.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// A port that is as far away as said. Gone when dropped, with those connections whose ends are.
#[derive(Debug)]
pub(super) struct Proxy {
    port: u16,
    over: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Listens, and passes on to `to`.
    pub(super) fn start(
        listener: TcpListener,
        to: SocketAddr,
        delay: Duration,
    ) -> io::Result<Self> {
        let port = listener.local_addr()?.port();
        let over = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&over);
        let accepting = thread::spawn(move || {
            for near in listener.incoming() {
                if ended.load(Ordering::Relaxed) {
                    break;
                }
                // A connection that cannot be made is one that is lost; members make another.
                near.and_then(|near| join(near, to, delay)).ok();
            }
        });
        Ok(Self { port, over, accepting: Some(accepting) })
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        // Wakes it.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
        drop(self.accepting.take().map(JoinHandle::join));
    }
}

/// Starts both directions.
fn join(near: TcpStream, to: SocketAddr, delay: Duration) -> io::Result<()> {
    let far = TcpStream::connect_timeout(&to, CONNECT_MAX)?;
    for socket in [&near, &far] {
        socket.set_nodelay(true)?;
    }
    direction(near.try_clone()?, far.try_clone()?, delay);
    direction(far, near, delay);
    Ok(())
}

fn direction(from: TcpStream, to: TcpStream, delay: Duration) {
    let (held, due) = sync_channel(ON_THE_WAY_MAX);
    thread::spawn(move || hold(from, &held, delay));
    thread::spawn(move || pass_on(to, &due));
}

/// What came, and when it is due.
type Held = (Instant, Vec<u8>);

fn hold(mut from: TcpStream, held: &SyncSender<Held>, delay: Duration) {
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let read = match from.read(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Ok(0) | Err(_) => break,
            Ok(read) => read,
        };
        if held.send((Instant::now() + delay, buffer[..read].to_vec())).is_err() {
            break;
        }
    }
    // The end is due as late as a byte; nobody listens where the other side ended first.
    held.send((Instant::now() + delay, Vec::new())).ok();
}

fn pass_on(mut to: TcpStream, due: &Receiver<Held>) {
    for (due, bytes) in due {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if bytes.is_empty() || to.write_all(&bytes).is_err() {
            break;
        }
    }
    // Both ways: members never half close, and this ends who reads there.
    to.shutdown(Shutdown::Both).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELAY: Duration = Duration::from_millis(40);

    /// Both ends of a connection through a proxy.
    fn far_apart() -> (Proxy, TcpStream, TcpStream) {
        let behind = TcpListener::bind("127.0.0.1:0").unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let proxy = Proxy::start(listener, behind.local_addr().unwrap(), DELAY).unwrap();
        let near = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (far, _) = behind.accept().unwrap();
        for socket in [&near, &far] {
            socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        }
        (proxy, near, far)
    }

    #[test]
    fn nothing_arrives_before_it_is_due_either_way() {
        let (_proxy, mut near, mut far) = far_apart();
        for _ in 0..3 {
            let begin = Instant::now();
            let mut word = [0; 4];
            near.write_all(b"ping").unwrap();
            far.read_exact(&mut word).unwrap();
            assert!(&word == b"ping" && begin.elapsed() >= DELAY);
            far.write_all(b"pong").unwrap();
            near.read_exact(&mut word).unwrap();
            assert!(&word == b"pong" && begin.elapsed() >= 2 * DELAY);
        }
    }

    #[test]
    fn much_arrives_whole_and_in_order() {
        let (_proxy, mut near, mut far) = far_apart();
        let words: Vec<_> = (0..400u32).map(u32::to_be_bytes).collect();
        let sender = thread::spawn(move || {
            for word in &words {
                near.write_all(word).unwrap();
            }
            near.write_all(&[7; 1_000_000]).unwrap();
            near
        });
        let mut heard = [0; 4];
        for word in 0..400u32 {
            far.read_exact(&mut heard).unwrap();
            assert_eq!(u32::from_be_bytes(heard), word);
        }
        let mut rest = vec![0; 1_000_000];
        far.read_exact(&mut rest).unwrap();
        assert!(rest.iter().all(|byte| *byte == 7));
        drop(sender.join().unwrap());
    }

    #[test]
    fn an_end_arrives_behind_what_was_sent_before() {
        let (_proxy, mut near, mut far) = far_apart();
        let begin = Instant::now();
        near.write_all(b"last words").unwrap();
        drop(near);
        let mut heard = Vec::new();
        far.read_to_end(&mut heard).unwrap();
        assert_eq!(heard, b"last words");
        assert!(begin.elapsed() >= DELAY);
    }
}
