//! The network between members, in this process: every member's peer address is a [`Proxy`]'s, and
//! what goes through is forwarded, held back, cut, delayed or slowed, for each direction by itself.
//!
//! ```text
//!   member 0 ──connects──▶ proxy of member 1 ──connects──▶ member 1's real peer port
//!                 bytes of the one who connected:  link 0 → 1
//!                 bytes of the one who answered:   link 1 → 0
//! ```
//!
//! Bytes obey the link in whose direction they flow, whoever opened the connection: a one-way
//! partition stops both what a member sends on its own connections and what it answers on others'.
//! Who connected is what the kernel says (`/proc/net/tcp` and the open files of the members), not
//! what the protocol says, so the same proxy serves any protocol.

use std::{
    collections::{BTreeMap, VecDeque},
    fs,
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// What a link does with the bytes that flow in its direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// Passes them on.
    Forward,
    /// Neither loses nor delivers: as packets that are lost and sent again, until it is mended.
    Blackhole,
    /// Closes connections, and refuses new ones.
    Cut,
    /// Passes each on after this time.
    Delay(Duration),
    /// Passes on so many bytes a second.
    Slow(u64),
}

/// Read from a connection at a time.
const CHUNK_BYTES: usize = 1 << 16;
/// Held in a pump that must wait; beyond it the sender's own buffers fill.
const HELD_BYTES_MAX: usize = 1 << 20;
/// How long a pump sleeps in a read at most: so soon it sees that the net ends.
const IDLE: Duration = Duration::from_millis(200);
/// How long a pump sleeps while it holds bytes.
const BUSY: Duration = Duration::from_millis(2);
/// Long enough for a member of this machine that is not stopped.
const CONNECT_MAX: Duration = Duration::from_secs(1);

/// The links of all members, and one proxy in front of each.
#[derive(Debug)]
pub struct Net {
    state: Arc<State>,
    proxies: Vec<Proxy>,
}

#[derive(Debug)]
struct Proxy {
    port: u16,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct State {
    inner: Mutex<Inner>,
    changed: Condvar,
    over: AtomicBool,
}

#[derive(Debug, Default)]
struct Inner {
    links: BTreeMap<(usize, usize), Link>,
    /// Which process each member is now.
    pids: BTreeMap<usize, u32>,
    /// Open connections by who opened them and to whom, both ends.
    open: BTreeMap<u64, (usize, usize, [TcpStream; 2])>,
    next: u64,
    pumps: Vec<JoinHandle<()>>,
}

impl State {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no pump panics")
    }

    fn link(&self, from: usize, to: usize) -> Link {
        self.lock().link(from, to)
    }

    fn over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

impl Inner {
    fn link(&self, from: usize, to: usize) -> Link {
        self.links.get(&(from, to)).copied().unwrap_or(Link::Forward)
    }

    /// Closes every connection between two of whom one link is cut.
    fn close_cut(&self) {
        for (from, to, ends) in self.open.values() {
            if self.link(*from, *to) == Link::Cut || self.link(*to, *from) == Link::Cut {
                // Either end may be gone already.
                ends.iter().for_each(|end| drop(end.shutdown(Shutdown::Both)));
            }
        }
    }
}

impl Net {
    /// No members yet.
    pub fn new() -> Self {
        Self { state: Arc::default(), proxies: Vec::new() }
    }

    /// A proxy in front of the next member, whose real peer port this is. Its own port.
    ///
    /// # Panics
    /// Where the machine has no port left.
    pub fn add(&mut self, real_port: u16) -> u16 {
        let port = crate::server::free_port();
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("it was free just now");
        let (state, to) = (Arc::clone(&self.state), self.proxies.len());
        let accepting = thread::spawn(move || accept(&listener, &state, to, real_port));
        self.proxies.push(Proxy { port, accepting: Some(accepting) });
        port
    }

    /// A member is this process now; connections of processes that are no members are refused.
    pub fn member_is(&self, member: usize, pid: u32) {
        self.state.lock().pids.insert(member, pid);
    }

    /// Sets the link of one direction.
    pub fn set(&self, from: usize, to: usize, link: Link) {
        let mut inner = self.state.lock();
        inner.links.insert((from, to), link);
        inner.close_cut();
        self.state.changed.notify_all();
    }

    /// Sets all links between one and the others, both ways.
    pub fn around(&self, member: usize, link: Link) {
        for other in (0..self.proxies.len()).filter(|other| *other != member) {
            self.set(member, other, link);
            self.set(other, member, link);
        }
    }

    /// Every link forwards.
    pub fn heal(&self) {
        self.state.lock().links.clear();
        self.state.changed.notify_all();
    }

    /// Open connections, counted once each.
    pub fn connections(&self) -> usize {
        self.state.lock().open.len()
    }
}

impl Default for Net {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        self.state.over.store(true, Ordering::Relaxed);
        let pumps = {
            let mut inner = self.state.lock();
            for (_, _, ends) in inner.open.values() {
                ends.iter().for_each(|end| drop(end.shutdown(Shutdown::Both)));
            }
            self.state.changed.notify_all();
            std::mem::take(&mut inner.pumps)
        };
        for proxy in &mut self.proxies {
            // Wakes its accept.
            drop(TcpStream::connect(("127.0.0.1", proxy.port)));
            proxy.accepting.take().map(JoinHandle::join);
        }
        pumps.into_iter().for_each(|pump| drop(pump.join()));
    }
}

fn accept(listener: &TcpListener, state: &Arc<State>, to: usize, real_port: u16) {
    for near in listener.incoming() {
        if state.over() {
            return;
        }
        let Ok(near) = near else { continue };
        let Some(from) = member_behind(&near, state) else { continue };
        if state.link(from, to) == Link::Cut || state.link(to, from) == Link::Cut {
            continue;
        }
        let state = Arc::clone(state);
        let at = Arc::clone(&state);
        let pump = thread::spawn(move || connect(near, &state, from, to, real_port));
        let mut inner = at.lock();
        inner.pumps.retain(|pump| !pump.is_finished());
        inner.pumps.push(pump);
    }
}

/// Who is at the other end of a connection that was just accepted.
fn member_behind(near: &TcpStream, state: &State) -> Option<usize> {
    let inode = inode_of(near.peer_addr().ok()?, near.local_addr().ok()?)?;
    let pids = state.lock().pids.clone();
    let name = format!("socket:[{inode}]");
    let holds = |pid: u32| {
        let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        files
            .into_iter()
            .any(|file| fs::read_link(file.path()).is_ok_and(|to| to.as_os_str() == &name[..]))
    };
    pids.into_iter().find(|(_, pid)| holds(*pid)).map(|(member, _)| member)
}

/// The kernel's number of the socket with this address, connected to that one (proc(5)).
fn inode_of(of: SocketAddr, to: SocketAddr) -> Option<u64> {
    let (of, to) = (kernel_address(of)?, kernel_address(to)?);
    let table = fs::read_to_string("/proc/net/tcp").ok()?;
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        (fields.get(1..3)? == [&of[..], &to[..]]).then(|| fields.get(9)?.parse().ok())?
    })
}

fn kernel_address(address: SocketAddr) -> Option<String> {
    let SocketAddr::V4(address) = address else { return None };
    let number = u32::from_ne_bytes(address.ip().octets());
    Some(format!("{number:08X}:{:04X}", address.port()))
}

/// One connection: both directions, until one of its ends is gone.
fn connect(near: TcpStream, state: &Arc<State>, from: usize, to: usize, real_port: u16) {
    // A SYN that is lost is sent again.
    if !wait_while(state, || {
        state.link(from, to) == Link::Blackhole || state.link(to, from) == Link::Blackhole
    }) {
        return;
    }
    let address = SocketAddr::from(([127, 0, 0, 1], real_port));
    let Ok(far) = TcpStream::connect_timeout(&address, CONNECT_MAX) else { return };
    let Some(ends) = both(&near, &far) else { return };
    let number = {
        let mut inner = state.lock();
        inner.next += 1;
        let number = inner.next;
        inner.open.insert(number, (from, to, ends));
        inner.close_cut();
        number
    };
    if let Some([near_too, far_too]) = both(&near, &far) {
        let back = Pump::new(far_too, near_too, (to, from), Arc::clone(state));
        let back = thread::spawn(|| back.run());
        Pump::new(near, far, (from, to), Arc::clone(state)).run();
        drop(back.join());
    }
    state.lock().open.remove(&number);
}

fn both(near: &TcpStream, far: &TcpStream) -> Option<[TcpStream; 2]> {
    for socket in [near, far] {
        socket.set_nodelay(true).ok()?;
        socket.set_write_timeout(Some(IDLE)).ok()?;
    }
    Some([near.try_clone().ok()?, far.try_clone().ok()?])
}

/// Whether the wait ended before the net did.
fn wait_while(state: &State, mut holds: impl FnMut() -> bool) -> bool {
    while holds() {
        if state.over() {
            return false;
        }
        let inner = state.lock();
        drop(state.changed.wait_timeout(inner, IDLE));
    }
    true
}

/// One direction of one connection.
struct Pump {
    source: TcpStream,
    sink: TcpStream,
    link: (usize, usize),
    state: Arc<State>,
    held: VecDeque<(Instant, Vec<u8>)>,
    held_bytes: usize,
    /// A slow link is free again.
    free: Instant,
    ended: bool,
}

impl Pump {
    fn new(source: TcpStream, sink: TcpStream, link: (usize, usize), state: Arc<State>) -> Self {
        let free = Instant::now();
        Self { source, sink, link, state, held: VecDeque::new(), held_bytes: 0, free, ended: false }
    }

    fn run(mut self) {
        while !self.state.over() && self.turn().is_some() {}
        // The other direction ends with this one: these connections are never half open for long.
        drop(self.sink.shutdown(Shutdown::Both));
        drop(self.source.shutdown(Shutdown::Both));
    }

    /// None at the end.
    fn turn(&mut self) -> Option<()> {
        if !self.ended && self.held_bytes < HELD_BYTES_MAX {
            self.read()?;
        } else {
            thread::sleep(BUSY);
        }
        match self.state.link(self.link.0, self.link.1) {
            Link::Cut => return None,
            Link::Blackhole => {}
            Link::Forward => self.write(Duration::ZERO, None)?,
            Link::Delay(delay) => self.write(delay, None)?,
            Link::Slow(rate) => self.write(Duration::ZERO, Some(rate))?,
        }
        (!self.ended || !self.held.is_empty()).then_some(())
    }

    fn read(&mut self) -> Option<()> {
        let wait = if self.held.is_empty() { IDLE } else { BUSY };
        self.source.set_read_timeout(Some(wait)).ok()?;
        let mut chunk = vec![0; CHUNK_BYTES];
        match self.source.read(&mut chunk) {
            Ok(0) => self.ended = true,
            Ok(read) => {
                chunk.truncate(read);
                self.held_bytes += read;
                self.held.push_back((Instant::now(), chunk));
            }
            Err(error) if waits(&error) => {}
            Err(_) => self.ended = true,
        }
        Some(())
    }

    /// Writes what is due.
    fn write(&mut self, delay: Duration, rate: Option<u64>) -> Option<()> {
        while let Some((since, chunk)) = self.held.front_mut() {
            let now = Instant::now();
            if now < *since + delay || rate.is_some() && now < self.free {
                return Some(());
            }
            // A slow link takes little at a time, so that it is not idle for long after.
            let most = rate.map_or(chunk.len(), |rate| chunk.len().min(1 + rate as usize / 50));
            let written = match self.sink.write(&chunk[..most]) {
                Ok(written) => written,
                Err(error) if waits(&error) => return Some(()),
                Err(_) => return None,
            };
            if let Some(rate) = rate {
                self.free = now + Duration::from_secs_f64(written as f64 / rate as f64);
            }
            self.held_bytes -= written;
            chunk.drain(..written);
            if chunk.is_empty() {
                self.held.pop_front();
            }
        }
        Some(())
    }
}

fn waits(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// This process is member 0 and talks to member 1, an echo of one connection at a time.
    fn net() -> (Net, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let real = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            for socket in listener.incoming() {
                let mut socket = socket.unwrap();
                let mut buffer = [0; 4096];
                while let Ok(read @ 1..) = socket.read(&mut buffer) {
                    if socket.write_all(&buffer[..read]).is_err() {
                        break;
                    }
                }
            }
        });
        let mut net = Net::new();
        net.add(1);
        let port = net.add(real);
        net.member_is(0, std::process::id());
        (net, port)
    }

    fn dial(port: u16) -> TcpStream {
        let socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        socket
    }

    fn echo(socket: &mut TcpStream, word: &[u8]) -> bool {
        let mut heard = vec![0; word.len()];
        socket.write_all(word).is_ok() && socket.read_exact(&mut heard).is_ok() && heard == word
    }

    #[test]
    fn a_link_forwards_holds_and_goes_on() {
        let (net, port) = net();
        let mut socket = dial(port);
        assert!(echo(&mut socket, b"one"));
        assert_eq!(net.connections(), 1);
        // One way is enough, and nothing is lost.
        for (from, to) in [(0, 1), (1, 0)] {
            net.set(from, to, Link::Blackhole);
            assert!(!echo(&mut socket, b"two"));
            net.heal();
            let mut heard = [0; 3];
            socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            socket.read_exact(&mut heard).unwrap();
            assert_eq!(&heard, b"two");
            socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        }
    }

    #[test]
    fn a_cut_link_closes_and_refuses_until_it_is_mended() {
        let (net, port) = net();
        let mut socket = dial(port);
        assert!(echo(&mut socket, b"one"));
        net.set(1, 0, Link::Cut);
        assert!(!echo(&mut socket, b"two"));
        assert!(!echo(&mut dial(port), b"three"));
        net.heal();
        assert!(echo(&mut dial(port), b"four"));
    }

    #[test]
    fn bytes_come_late_or_slowly_and_whole() {
        let (net, port) = net();
        let mut socket = dial(port);
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        net.set(0, 1, Link::Delay(Duration::from_millis(60)));
        let begin = Instant::now();
        assert!(echo(&mut socket, b"one"));
        assert!(begin.elapsed() >= Duration::from_millis(60));
        net.heal();
        net.set(0, 1, Link::Slow(50_000));
        let (begin, much) = (Instant::now(), vec![7; 10_000]);
        assert!(echo(&mut socket, &much));
        assert!(begin.elapsed() >= Duration::from_millis(150));
    }

    #[test]
    fn strangers_are_refused() {
        let (net, port) = net();
        net.member_is(0, 1);
        assert!(!echo(&mut dial(port), b"one"));
    }
}
