//! One server process.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    thread,
    time::{Duration, Instant},
};

use loadgen::client::Client;

use crate::binary;

/// Said by etcd, and by us, once a client is answered.
const READY: &str = "ready to serve client requests";
/// How long a start may take on a busy machine.
const START_MAX: Duration = Duration::from_secs(60);
/// How long an orderly end may take.
const STOP_MAX: Duration = Duration::from_secs(20);
/// Ports below those that the kernel gives to clients, so that no connection of ours takes one.
/// All have five digits: what a table shows keeps its width.
const PORTS: std::ops::Range<u16> = 12_000..32_000;
/// What a member is told that its addresses are. Its ids follow from the second, so they are the
/// same in every run and on both servers.
const ADVERTISED: [&str; 2] = ["http://127.0.0.1:10379", "http://127.0.0.1:10380"];

/// A folder under cargo's target, so on a disk that holds files; gone when dropped, unless the
/// test failed.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// A fresh, empty one.
    pub fn new(name: &str) -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{name}-{}-{next}", std::process::id());
        let path = binary::target().join("e2e").join(name);
        fs::create_dir_all(&path).expect("target is ours to write to");
        Self(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("kept for a look: {}", self.0.display());
        } else if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("{} is left behind: {error}", self.0.display());
        }
    }
}

/// A port nobody listens on.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let span = PORTS.end - PORTS.start;
    // Processes that run at the same time begin in different places.
    let first = (std::process::id() as u16).wrapping_mul(97) % span;
    for _ in 0..span {
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = PORTS.start + (first + next % span) % span;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port in {PORTS:?}");
}

/// How to start a server.
#[derive(Debug, Clone)]
pub struct Setup {
    binary: PathBuf,
    data: PathBuf,
    log: PathBuf,
    client_port: u16,
    peer_port: u16,
    /// A program that starts the program, such as `prlimit`.
    wrapper: Vec<OsString>,
    flags: Vec<OsString>,
    /// Whether it is told that it is a cluster of its own.
    alone: bool,
}

impl Setup {
    /// On free ports, with its data and its log in the folder.
    pub fn new(binary: &Path, folder: &Path) -> Self {
        Self::named(binary, folder, "")
    }

    /// As [`Self::new`], with a name for its data and log, so that several share a folder.
    pub fn named(binary: &Path, folder: &Path, name: &str) -> Self {
        let folder = folder.join(name);
        fs::create_dir_all(&folder).expect("a folder of ours");
        Self {
            binary: binary.into(),
            data: folder.join("data"),
            log: folder.join("log"),
            client_port: free_port(),
            peer_port: free_port(),
            wrapper: Vec::new(),
            flags: Vec::new(),
            alone: true,
        }
    }

    /// The same without `--initial-cluster`, which other ways to find a cluster exclude.
    pub fn without_cluster(binary: &Path, folder: &Path) -> Self {
        Self { alone: false, ..Self::new(binary, folder) }
    }

    /// Further flags; a flag said twice counts as said last.
    pub fn flags<I: IntoIterator<Item: Into<OsString>>>(mut self, flags: I) -> Self {
        self.flags.extend(flags.into_iter().map(Into::into));
        self
    }

    /// Starts the server by way of another program.
    pub fn wrapper<I: IntoIterator<Item: Into<OsString>>>(mut self, words: I) -> Self {
        self.wrapper = words.into_iter().map(Into::into).collect();
        self
    }

    /// Keeps the data elsewhere.
    pub fn data(mut self, data: &Path) -> Self {
        self.data = data.into();
        self
    }

    /// Listens for clients on this port.
    pub fn client_port(mut self, port: u16) -> Self {
        self.client_port = port;
        self
    }

    /// Where it listens for other members.
    pub fn peer_port(&self) -> u16 {
        self.peer_port
    }

    /// `host:port` for clients.
    pub fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.client_port)
    }

    /// Where the data is.
    pub fn data_folder(&self) -> &Path {
        &self.data
    }

    fn command(&self) -> Command {
        let client = format!("http://127.0.0.1:{}", self.client_port);
        let peer = format!("http://127.0.0.1:{}", self.peer_port);
        let words: Vec<&OsStr> =
            self.wrapper.iter().map(OsString::as_os_str).chain([self.binary.as_os_str()]).collect();
        let mut command = Command::new(words[0]);
        command
            .args(&words[1..])
            .arg("--data-dir")
            .arg(&self.data)
            .args(["--listen-client-urls", &client, "--advertise-client-urls", ADVERTISED[0]])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", ADVERTISED[1]])
            .stdin(Stdio::null());
        if self.alone {
            command.args(["--initial-cluster", &format!("default={}", ADVERTISED[1])]);
        }
        command.args(&self.flags);
        command
    }

    /// Starts it and waits until it serves.
    ///
    /// # Errors
    /// How it ended instead.
    pub fn start(&self) -> Result<Server, Ended> {
        let mut server = self.spawn();
        server.wait_ready()?;
        Ok(server)
    }

    /// Starts it, and does not wait.
    pub fn spawn(&self) -> Server {
        let mut log =
            File::options().create(true).append(true).open(&self.log).expect("our folder");
        let log_from = log.seek(SeekFrom::End(0)).expect("a file has an end");
        let process = self
            .command()
            .stdout(log.try_clone().expect("a handle more"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{} does not start: {error}", self.binary.display()));
        Server { process, setup: self.clone(), log_from }
    }
}

/// A server that ended, or did not get as far as serving.
#[derive(Debug)]
pub struct Ended {
    /// None: it was still running, and was killed.
    pub status: Option<ExitStatus>,
    /// What it said since it was started.
    pub log: String,
}

impl Ended {
    /// What it exited with, if it ended by itself.
    pub fn code(&self) -> Option<i32> {
        self.status.and_then(|status| status.code())
    }
}

/// A running server; killed when dropped.
#[derive(Debug)]
pub struct Server {
    process: Child,
    setup: Setup,
    log_from: u64,
}

impl Server {
    /// Waits until it serves.
    ///
    /// # Errors
    /// How it ended instead.
    pub fn wait_ready(&mut self) -> Result<(), Ended> {
        let deadline = Instant::now() + START_MAX;
        while !self.log().contains(READY) {
            if let Some(status) = self.ended() {
                return Err(Ended { status: Some(status), log: self.log() });
            }
            if Instant::now() > deadline {
                self.kill();
                return Err(Ended { status: None, log: self.log() });
            }
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Waits for a process that is expected to end by itself.
    pub fn wait_end(mut self) -> Ended {
        let status = self.wait(START_MAX);
        Ended { status, log: self.log() }
    }

    fn wait(&mut self, most: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + most;
        loop {
            match self.ended() {
                None if Instant::now() < deadline => thread::sleep(Duration::from_millis(2)),
                status => return status,
            }
        }
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.process.try_wait().expect("it is our process")
    }

    /// `host:port` for clients.
    pub fn endpoint(&self) -> String {
        self.setup.endpoint()
    }

    /// A fresh connection.
    ///
    /// # Panics
    /// Where it takes none.
    pub fn client(&self) -> Client {
        Client::connect(&self.endpoint())
            .unwrap_or_else(|error| panic!("{error}; it said:\n{}", self.log()))
    }

    /// What started it.
    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    /// The process's number.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// What it said since it was started.
    pub fn log(&self) -> String {
        let mut file = File::open(&self.setup.log).expect("the log was created by us");
        file.seek(SeekFrom::Start(self.log_from)).expect("a file is as long as it was");
        let mut text = Vec::new();
        file.read_to_end(&mut text).expect("the log is readable");
        String::from_utf8_lossy(&text).into_owned()
    }

    /// SIGSTOP, or SIGCONT: it does nothing at all in between.
    pub fn pause(&self, paused: bool) {
        signal(self.pid(), if paused { libc::SIGSTOP } else { libc::SIGCONT });
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process.kill().expect("it is our process");
        self.process.wait().expect("it is our process");
    }

    /// SIGTERM, and how it ended.
    pub fn terminate(mut self) -> Ended {
        signal(self.pid(), libc::SIGTERM);
        let status = self.wait(STOP_MAX);
        Ended { status, log: self.log() }
    }
}

/// Sends a signal to a child that was not yet waited for, so that it is still ours.
#[allow(unsafe_code)]
pub(crate) fn signal(pid: u32, signal: libc::c_int) {
    let pid = libc::pid_t::try_from(pid).expect("the kernel's own number");
    // SAFETY: takes two numbers and touches no memory.
    let done = unsafe { libc::kill(pid, signal) };
    assert_eq!(done, 0, "it is our process");
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.ended().is_none() {
            self.kill();
        }
        if thread::panicking() {
            let log = self.log();
            let tail: Vec<_> = log.lines().rev().take(20).collect();
            eprintln!("the server's last words:");
            tail.iter().rev().for_each(|line| eprintln!("  {line}"));
        }
    }
}
