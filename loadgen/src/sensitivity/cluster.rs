//! A cluster of this host: processes, their folders, and what is between them. Gone when dropped.
//!
//! It is started by etcd's own flags, so both programs are. Where something is wrong with a member, the
//! last line that it said is the reason that is told.

use std::{
    fs::{self, File},
    io,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    thread,
    time::{Duration, Instant},
};

use proto::etcdserverpb::{
    PutRequest, PutResponse, StatusRequest, StatusResponse, kv, maintenance,
};

use super::{
    grid::{Program, Setting},
    kernel,
    proxy::Proxy,
};
use crate::{client::Client, interrupt};

/// How long one question may take.
const ASK_MAX: Duration = Duration::from_secs(2);
/// Between two looks.
const AGAIN: Duration = Duration::from_millis(20);
/// Ports below those that the kernel gives to clients, so that no connection of ours takes one.
const PORTS: std::ops::Range<u16> = 12_000..32_000;

/// Which binaries, and where their data goes.
#[derive(Clone, Debug)]
pub(super) struct Ground {
    /// Of each program, by its name.
    pub(super) binaries: Vec<(Program, PathBuf)>,
    /// Ours alone: emptied for each cluster.
    pub(super) folder: PathBuf,
    pub(super) members: usize,
    /// Beside those that make it a cluster.
    pub(super) flags: Vec<String>,
}

impl Ground {
    fn binary(&self, program: Program) -> &Path {
        let found = self.binaries.iter().find(|(of, _)| *of == program);
        &found.expect("cells are made of the programs there are").1
    }
}

#[derive(Debug)]
struct Member {
    words: Vec<String>,
    client: SocketAddr,
    folder: PathBuf,
    process: Option<Child>,
    /// Its end was not waited for.
    killed: Option<Child>,
}

/// Members that run, or were killed.
#[derive(Debug)]
pub(super) struct Cluster {
    binary: PathBuf,
    members: Vec<Member>,
    _between: Vec<Proxy>,
}

/// Why a cluster is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// A member ended by itself, and what it said last.
    Ended(String),
    /// Something else kept a cell from being whole.
    InTheWay(String),
    /// Somebody wants an end.
    Interrupted,
    /// This host does not do it.
    Host(String),
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ended(why) | Self::InTheWay(why) | Self::Host(why) => f.write_str(why),
            Self::Interrupted => f.write_str("interrupted"),
        }
    }
}

impl Trouble {
    /// Nobody accepted a write for so long.
    pub(super) fn no_leader(limit: Duration) -> Self {
        Self::InTheWay(format!("no leader for {:.1} s", limit.as_secs_f64()))
    }

    /// The same, with what was going on.
    pub(super) fn when(self, what: &str) -> Self {
        match self {
            Self::InTheWay(why) => Self::InTheWay(format!("{what}: {why}")),
            other => other,
        }
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Host(error.to_string())
    }
}

/// Where a member listens, and where the others find it.
struct Addresses {
    client: SocketAddr,
    peer: SocketAddr,
    seen: SocketAddr,
}

impl Addresses {
    fn free(apart: bool) -> io::Result<Self> {
        let (client, peer) = (free_address()?, free_address()?);
        Ok(Self { client, peer, seen: if apart { free_address()? } else { peer } })
    }

    fn proxy(&self, delay: Duration) -> io::Result<Proxy> {
        Proxy::start(TcpListener::bind(self.seen)?, self.peer, delay)
    }

    fn words(&self) -> [String; 4] {
        let Self { client, peer, seen } = self;
        [
            format!("--listen-client-urls=http://{client}"),
            format!("--advertise-client-urls=http://{client}"),
            format!("--listen-peer-urls=http://{peer}"),
            format!("--initial-advertise-peer-urls=http://{seen}"),
        ]
    }
}

/// What a member says of itself.
struct Said {
    member: usize,
    id: u64,
    leader: u64,
    term: u64,
}

impl Cluster {
    /// Starts all members in empty folders, and does not wait.
    pub(super) fn start(ground: &Ground, setting: &Setting) -> Result<Self, Trouble> {
        // Ringleader holds back what it sends by itself.
        let apart = setting.program == Program::Etcd && setting.place.network_ms > 0;
        let addresses = (0..ground.members).map(|_| Addresses::free(apart));
        let addresses = addresses.collect::<io::Result<Vec<_>>>()?;
        let delay = Duration::from_millis(setting.place.network_ms);
        let proxies = addresses.iter().filter(|_| apart).map(|of| of.proxy(delay));
        let between = proxies.collect::<io::Result<_>>()?;
        let all = addresses.iter().enumerate();
        let all = all.map(|(at, of)| format!("m{at}=http://{}", of.seen)).collect::<Vec<_>>();
        let mut cluster = Self {
            binary: ground.binary(setting.program).to_owned(),
            members: Vec::new(),
            _between: between,
        };
        for (at, of) in addresses.iter().enumerate() {
            let folder = ground.folder.join(format!("m{at}"));
            remove(&folder)?;
            fs::create_dir_all(&folder)?;
            let mut words = vec![
                format!("--name=m{at}"),
                format!("--data-dir={}", folder.join("data").display()),
                format!("--initial-cluster={}", all.join(",")),
                format!("--heartbeat-interval={}", setting.clocks.heartbeat_ms),
                format!("--election-timeout={}", setting.clocks.election_ms),
            ];
            words.extend(of.words());
            words.extend(delays(setting));
            words.extend(ground.flags.iter().cloned());
            let client = of.client;
            cluster.members.push(Member { words, client, folder, process: None, killed: None });
            cluster.spawn(at)?;
        }
        Ok(cluster)
    }

    fn spawn(&mut self, at: usize) -> Result<(), Trouble> {
        let member = &mut self.members[at];
        let log = File::options().create(true).append(true).open(member.folder.join("log"))?;
        let mut command = Command::new(&self.binary);
        command.args(&member.words).stdin(Stdio::null());
        command.stdout(log.try_clone()?).stderr(log);
        kernel::bind_to_us(&mut command);
        let started = command.spawn();
        let cannot =
            |error| Trouble::Host(format!("cannot start {}: {error}", self.binary.display()));
        member.process = Some(started.map_err(cannot)?);
        Ok(())
    }

    /// Waits until all serve and a write is accepted: who leads.
    pub(super) fn settle(&mut self, limit: Duration) -> Result<usize, Trouble> {
        let deadline = Instant::now() + limit;
        loop {
            self.look()?;
            if let Some(leader) = self.settled() {
                return Ok(leader);
            }
            if Instant::now() > deadline {
                return Err(Trouble::no_leader(limit));
            }
            thread::sleep(AGAIN);
        }
    }

    /// Whether all is as it should be: nobody ended by itself, and nobody wants an end.
    pub(super) fn look(&mut self) -> Result<(), Trouble> {
        if interrupt::asked() {
            return Err(Trouble::Interrupted);
        }
        for (at, member) in self.members.iter_mut().enumerate() {
            if let Some(process) = &mut member.process
                && let Some(status) = process.try_wait()?
            {
                let last = last_words(&member.folder.join("log"));
                return Err(Trouble::Ended(format!("m{at} ended by itself, {status}: {last}")));
            }
        }
        Ok(())
    }

    fn settled(&self) -> Option<usize> {
        let said = self.said();
        let agreed = said.len() == self.members.len()
            && said.iter().all(|one| one.leader != 0 && one.leader == said[0].leader);
        let leader = said.iter().find(|one| agreed && one.id == one.leader)?.member;
        let mut client = Client::connect_within(&self.endpoint(leader), ASK_MAX).ok()?;
        let put = PutRequest { key: "settled".into(), ..Default::default() };
        client.unary::<_, PutResponse>(kv::PUT, &put).ok()?;
        Some(leader)
    }

    /// Of those that answer.
    fn said(&self) -> Vec<Said> {
        let each = self.members.iter().enumerate().filter_map(|(member, of)| {
            of.process.as_ref()?;
            let mut client = Client::connect_within(&of.client.to_string(), ASK_MAX).ok()?;
            let status: StatusResponse =
                client.unary(maintenance::STATUS, &StatusRequest {}).ok()?;
            let id = status.header.as_ref()?.member_id;
            Some(Said { member, id, leader: status.leader, term: status.raft_term })
        });
        each.collect()
    }

    /// The newest term that anybody knows.
    pub(super) fn term(&self) -> Option<u64> {
        self.said().into_iter().map(|one| one.term).max()
    }

    /// `kill -9`, without a wait for its end.
    pub(super) fn kill(&mut self, at: usize) -> Result<(), Trouble> {
        if let Some(mut process) = self.members[at].process.take() {
            process.kill()?;
            self.members[at].killed = Some(process);
        }
        Ok(())
    }

    /// Starts one that was killed again, over what its folder holds.
    pub(super) fn restart(&mut self, at: usize) -> Result<(), Trouble> {
        self.reap(at)?;
        self.spawn(at)
    }

    /// Waits for the end of one that was killed.
    pub(super) fn reap(&mut self, at: usize) -> Result<(), Trouble> {
        if let Some(mut process) = self.members[at].killed.take() {
            process.wait()?;
        }
        Ok(())
    }

    pub(super) fn members(&self) -> usize {
        self.members.len()
    }

    /// `host:port` of a member.
    pub(super) fn endpoint(&self, at: usize) -> String {
        self.members[at].client.to_string()
    }

    /// Of all others; of a lone member its own.
    pub(super) fn others(&self, at: usize) -> Vec<String> {
        let others =
            (0..self.members.len()).filter(|other| *other != at || self.members.len() == 1);
        others.map(|other| self.endpoint(other)).collect()
    }

    pub(super) fn pids(&self) -> Vec<u32> {
        self.members.iter().filter_map(|member| Some(member.process.as_ref()?.id())).collect()
    }

    /// Where a member keeps its data.
    pub(super) fn data(&self, at: usize) -> PathBuf {
        self.members[at].folder.join("data")
    }

    /// Copies what the members said to a folder, under a name for each.
    pub(super) fn keep_logs(&self, folder: &Path, name: &str) -> io::Result<()> {
        fs::create_dir_all(folder)?;
        for (at, member) in self.members.iter().enumerate() {
            fs::copy(member.folder.join("log"), folder.join(format!("{name}-m{at}.log")))?;
        }
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // All at once, so that none sees another die.
        let members = self.members.iter_mut();
        let all = members.flat_map(|member| [member.process.take(), member.killed.take()]);
        let mut processes: Vec<_> = all.flatten().collect();
        for process in &mut processes {
            process.kill().ok();
        }
        for mut process in processes {
            process.wait().ok();
        }
        for member in &self.members {
            remove(&member.folder).ok();
        }
    }
}

/// What Ringleader adds by itself, for tests such as this.
fn delays(setting: &Setting) -> Vec<String> {
    let place = setting.place;
    let mut words = Vec::new();
    if setting.program == Program::Etcd {
        return words;
    }
    if place.sync_ms > 0 {
        words.push(format!("--testing-sync-delay={}ms", place.sync_ms));
    }
    if let Some(tail) = place.tail {
        let part = f64::from(tail.per_mille) / 1e3;
        words.push(format!("--testing-sync-delay-tail={part}:{}ms", tail.ms));
    }
    if place.network_ms > 0 {
        words.push(format!("--testing-peer-delay={}ms", place.network_ms));
    }
    words
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// One that nobody listens at.
fn free_address() -> io::Result<SocketAddr> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let span = PORTS.end - PORTS.start;
    // Processes that run at the same time begin in different places.
    let first = (std::process::id() as u16).wrapping_mul(97) % span;
    let all = (0..span).map(|_| {
        let next = NEXT.fetch_add(1, Ordering::Relaxed) % span;
        SocketAddr::from(([127, 0, 0, 1], PORTS.start + (first + next) % span))
    });
    let mut free = all.filter(|address| TcpListener::bind(address).is_ok());
    free.next().ok_or_else(|| {
        io::Error::other(format!("no port is free from {} to {}", PORTS.start, PORTS.end))
    })
}

/// The line of a log that says why: that of a panic, the first above a usage, else the last; of JSON, its
/// message and error.
fn last_words(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if let Some(at) = lines.iter().position(|line| line.contains(" panicked at ")) {
        return lines[at..].iter().take(2).copied().collect::<Vec<_>>().join(" ");
    }
    let line = if lines.contains(&"Usage:") { lines.first() } else { lines.last() };
    let line = line.copied().unwrap_or("not a word");
    let json: Option<serde_json::Value> = serde_json::from_str(line).ok();
    let said = json.and_then(|json| {
        let message = json["msg"].as_str()?.to_owned();
        Some(json["error"].as_str().map_or(message.clone(), |why| format!("{message}: {why}")))
    });
    said.unwrap_or_else(|| line.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sensitivity::grid::{Clocks, Place, Tail};

    #[test]
    fn delays_are_said_to_the_one_that_adds_them_itself() {
        let tail = Some(Tail { per_mille: 5, ms: 200 });
        let place = Place { sync_ms: 3, tail, network_ms: 20 };
        let setting = |program| Setting { place, clocks: Clocks::DEFAULT, program };
        let said = delays(&setting(Program::Ringleader));
        let tail = "--testing-sync-delay-tail=0.005:200ms";
        assert_eq!(said, ["--testing-sync-delay=3ms", tail, "--testing-peer-delay=20ms"]);
        assert!(delays(&setting(Program::Etcd)).is_empty());
    }

    #[test]
    fn the_last_words_are_those_that_say_something() {
        let path = std::env::temp_dir().join(format!("loadgen-last-words-{}", std::process::id()));
        let said = |text: &str| {
            fs::write(&path, text).unwrap();
            last_words(&path)
        };
        assert_eq!(said("one\n two: 3\n\n"), "two: 3");
        assert_eq!(said(r#"{"level":"fatal","msg":"no","error":"disk"}"#), "no: disk");
        assert_eq!(said(r#"{"msg":"no"}"#), "no");
        assert_eq!(said("\n"), "not a word");
        assert_eq!(
            said("x\nthread 'a' panicked at b.rs:1:\nno\nstack\n"),
            "thread 'a' panicked at b.rs:1: no"
        );
        assert_eq!(said("no such flag: -x\nsee help\n\nUsage:\n\n  server\n"), "no such flag: -x");
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_program_that_ends_at_once_is_quoted() {
        let folder = std::env::temp_dir().join(format!("loadgen-ends-{}", std::process::id()));
        let ground = |binary: &str| Ground {
            binaries: vec![(Program::Etcd, binary.into())],
            folder: folder.clone(),
            members: 1,
            flags: Vec::new(),
        };
        let place = Place { sync_ms: 0, tail: None, network_ms: 0 };
        let setting = Setting { place, clocks: Clocks::DEFAULT, program: Program::Etcd };
        let mut cluster = Cluster::start(&ground("/bin/echo"), &setting).unwrap();
        let trouble = cluster.settle(Duration::from_secs(30)).unwrap_err().to_string();
        assert!(trouble.starts_with("m0 ended by itself, exit status: 0: --name=m0 "), "{trouble}");
        drop(cluster);
        let trouble = Cluster::start(&ground("/nowhere"), &setting).unwrap_err().to_string();
        assert!(trouble.starts_with("cannot start /nowhere: "), "{trouble}");
        assert!(
            fs::read_dir(&folder)
                .unwrap()
                .next()
                .is_none_or(|_| { fs::remove_dir_all(&folder).is_ok() })
        );
        fs::remove_dir_all(&folder).ok();
    }
}
