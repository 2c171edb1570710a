//! Several members that form a cluster, each a process of its own, with this test's [`Net`] between
//! them: started by etcd's own flags, so that the same tests run on ours and on etcd.
//!
//! Members are known by their number, which is also their name: `m0`, `m1` … A number is never used
//! again. Everything here ends within a stated time, or panics with what the members said.

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use loadgen::{client::Client, grpc::Status};
use prost::Message;
use proto::etcdserverpb::{
    MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse,
    MemberPromoteRequest, MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse,
    StatusRequest, StatusResponse, cluster, maintenance,
};

use crate::{
    proxy::Net,
    server::{Ended, Folder, Server, Setup},
};

/// etcd's default, `--election-timeout`.
pub const ELECTION_TIMEOUT: Duration = Duration::from_secs(1);
/// How long one question to one member may take.
const ASK_MAX: Duration = Duration::from_secs(2);
/// How long a cluster with a healthy majority may be without a leader, on a busy machine.
const LEADER_MAX: Duration = Duration::from_secs(30);
/// How long a change of members is tried: one that comes too soon after another is refused.
const CHANGE_MAX: Duration = Duration::from_secs(30);
/// Between two tries.
const AGAIN: Duration = Duration::from_millis(50);

/// One member, running or not.
#[derive(Debug)]
struct Member {
    setup: Setup,
    peer_url: String,
    server: Option<Server>,
    paused: bool,
    removed: bool,
}

/// The members and what is between them. Dropping it ends all processes.
#[derive(Debug)]
pub struct Cluster {
    members: Vec<Member>,
    /// The links between members.
    pub net: Net,
    binary: std::path::PathBuf,
    flags: Vec<String>,
    // Goes last: processes write into it.
    folder: Folder,
}

/// The name that flags and lists show.
pub fn name(member: usize) -> String {
    format!("m{member}")
}

impl Cluster {
    /// Starts so many members with these flags for each, and waits until all serve.
    ///
    /// # Panics
    /// Where one does not: with what it said.
    pub fn start(binary: &Path, test: &str, members: usize, flags: &[&str]) -> Self {
        let mut cluster = Self::prepare(binary, test, members, flags);
        (0..members).for_each(|member| cluster.spawn(member));
        (0..members).for_each(|member| cluster.wait_ready(member));
        cluster
    }

    /// All but started.
    pub fn prepare(binary: &Path, test: &str, members: usize, flags: &[&str]) -> Self {
        let mut cluster = Self {
            members: Vec::new(),
            net: Net::new(),
            binary: binary.into(),
            flags: flags.iter().map(|flag| flag.to_string()).collect(),
            folder: Folder::new(test),
        };
        (0..members).for_each(|_| _ = cluster.place());
        let all: Vec<_> = (0..members).collect();
        all.iter().for_each(|member| cluster.set_up(*member, &all, "new"));
        cluster
    }

    /// A place for one more: ports, a folder, a proxy.
    fn place(&mut self) -> usize {
        let at = self.members.len();
        let setup = Setup::named(&self.binary, self.folder.path(), &name(at));
        let proxy = self.net.add(setup.peer_port());
        let peer_url = format!("http://127.0.0.1:{proxy}");
        let member = Member { setup, peer_url, server: None, paused: false, removed: false };
        self.members.push(member);
        at
    }

    /// The flags of a member that begins among these.
    fn set_up(&mut self, at: usize, among: &[usize], state: &str) {
        let named =
            |member: &usize| format!("{}={}", name(*member), self.members[*member].peer_url);
        let initial: Vec<_> = among.iter().map(named).collect();
        let setup = self.members[at].setup.clone();
        let client = format!("http://{}", setup.endpoint());
        let own = [
            ("--name", name(at)),
            ("--advertise-client-urls", client),
            ("--initial-advertise-peer-urls", self.members[at].peer_url.clone()),
            ("--initial-cluster", initial.join(",")),
            ("--initial-cluster-state", state.into()),
            ("--initial-cluster-token", "e2e".into()),
        ];
        let own = own.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]);
        self.members[at].setup = setup.flags(own).flags(self.flags.clone());
    }

    /// Further flags for one member, from its next start on.
    pub fn add_flags(&mut self, at: usize, flags: &[&str]) {
        let member = &mut self.members[at];
        member.setup = member.setup.clone().flags(flags);
    }

    /// Starts a member's process, over what its folder holds, and does not wait.
    ///
    /// # Panics
    /// Where it runs already.
    pub fn spawn(&mut self, at: usize) {
        let member = &mut self.members[at];
        assert!(member.server.is_none(), "{} runs already", name(at));
        let server = member.setup.spawn();
        self.net.member_is(at, server.pid());
        member.server = Some(server);
    }

    /// Waits until a member serves.
    ///
    /// # Panics
    /// Where it does not.
    pub fn wait_ready(&mut self, at: usize) {
        let server = self.members[at].server.as_mut().expect("it was started");
        if let Err(Ended { status, log }) = server.wait_ready() {
            panic!("{} does not serve: {status:?}\n{}", name(at), tail(&log));
        }
    }

    /// Starts a member that was stopped and waits until it serves.
    pub fn restart(&mut self, at: usize) {
        self.spawn(at);
        self.wait_ready(at);
    }

    /// `kill -9`; whether it was running.
    pub fn kill(&mut self, at: usize) -> bool {
        let member = &mut self.members[at];
        member.paused = false;
        member.server.take().map(|mut server| server.kill()).is_some()
    }

    /// SIGTERM, and how it ended.
    ///
    /// # Panics
    /// Where it is not running.
    pub fn terminate(&mut self, at: usize) -> Ended {
        self.members[at].server.take().expect("it is running").terminate()
    }

    /// Waits for a member that is expected to end by itself.
    ///
    /// # Panics
    /// Where it is not running.
    pub fn wait_end(&mut self, at: usize) -> Ended {
        self.members[at].server.take().expect("it is running").wait_end()
    }

    /// SIGSTOP, until [`Self::resume`].
    pub fn pause(&mut self, at: usize) {
        let member = &mut self.members[at];
        member.server.as_ref().expect("it is running").pause(true);
        member.paused = true;
    }

    /// SIGCONT, where it was paused.
    pub fn resume(&mut self, at: usize) {
        let member = &mut self.members[at];
        if std::mem::take(&mut member.paused) {
            member.server.as_ref().expect("it is running").pause(false);
        }
    }

    /// Removes the data of a member that is stopped.
    ///
    /// # Panics
    /// Where it is running.
    pub fn wipe(&mut self, at: usize) {
        let member = &self.members[at];
        assert!(member.server.is_none(), "{} is running", name(at));
        fs::remove_dir_all(member.setup.data_folder()).expect("it was started once");
    }

    /// Whether its process runs, perhaps stopped by a signal.
    ///
    /// # Panics
    /// Where it ended although nobody ended it.
    pub fn runs(&mut self, at: usize) -> bool {
        let Some(server) = &mut self.members[at].server else { return false };
        if let Some(status) = server.ended() {
            panic!("{} ended by itself, {status}:\n{}", name(at), tail(&server.log()));
        }
        true
    }

    /// Everything goes on: no link is broken, nobody is stopped, and all who belong to it serve.
    pub fn recover(&mut self) {
        self.net.heal();
        let present: Vec<_> = self.present();
        for at in &present {
            if self.runs(*at) { self.resume(*at) } else { self.spawn(*at) }
        }
        present.iter().for_each(|at| self.wait_ready(*at));
        self.wait_leader();
    }

    /// Those that were not removed.
    pub fn present(&self) -> Vec<usize> {
        (0..self.members.len()).filter(|at| !self.members[*at].removed).collect()
    }

    /// `host:port` of a member for clients.
    pub fn endpoint(&self, at: usize) -> String {
        self.members[at].setup.endpoint()
    }

    /// All members' endpoints.
    pub fn endpoints(&self) -> Vec<String> {
        self.present().iter().map(|at| self.endpoint(*at)).collect()
    }

    /// What a member advertises to its peers: its proxy.
    pub fn peer_url(&self, at: usize) -> &str {
        &self.members[at].peer_url
    }

    /// A member's process.
    pub fn server(&self, at: usize) -> Option<&Server> {
        self.members[at].server.as_ref()
    }

    /// How a member is started.
    pub fn setup(&self, at: usize) -> &Setup {
        &self.members[at].setup
    }

    /// A client of one member.
    ///
    /// # Errors
    /// It takes no connection.
    pub fn client(&self, at: usize) -> std::io::Result<Client> {
        Client::connect_within(&self.endpoint(at), ASK_MAX)
    }

    /// One question to one member.
    ///
    /// # Errors
    /// What it, or the connection, said.
    pub fn ask<Resp>(&self, at: usize, path: &str, request: &impl Message) -> Result<Resp, Status>
    where
        Resp: Message + Default,
    {
        let unreachable = |error: std::io::Error| {
            Status::new(loadgen::grpc::code::UNAVAILABLE, error.to_string())
        };
        self.client(at).map_err(unreachable)?.unary(path, request)
    }

    /// What a member says of itself.
    pub fn status(&self, at: usize) -> Option<StatusResponse> {
        self.members[at].server.as_ref().filter(|_| !self.members[at].paused)?;
        self.ask(at, maintenance::STATUS, &StatusRequest {}).ok()
    }

    /// A member's id, where it answers.
    pub fn id(&self, at: usize) -> Option<u64> {
        Some(self.status(at)?.header?.member_id)
    }

    /// The member that says of itself that it leads, in the highest term that anybody names.
    pub fn leader(&self) -> Option<usize> {
        let statuses = self.present().into_iter().filter_map(|at| Some((at, self.status(at)?)));
        let leads = |status: &StatusResponse| {
            status.leader != 0 && status.header.is_some_and(|h| h.member_id == status.leader)
        };
        let newest = statuses.max_by_key(|(_, status)| (status.raft_term, leads(status)))?;
        leads(&newest.1).then_some(newest.0)
    }

    /// Waits for a leader.
    ///
    /// # Panics
    /// Where there is none for half a minute.
    pub fn wait_leader(&self) -> usize {
        until("a leader", LEADER_MAX, || self.leader())
    }

    /// Waits until every member has applied as much as the one furthest ahead had.
    ///
    /// # Panics
    /// Where they do not.
    pub fn wait_equal(&self) {
        let applied = |at: usize| self.status(at).map(|status| status.raft_applied_index);
        let most = self.present().into_iter().filter_map(applied).max().unwrap_or(0);
        for at in self.present() {
            let caught_up = || applied(at).filter(|applied| *applied >= most);
            until(&format!("{} at index {most}", name(at)), LEADER_MAX, caught_up);
        }
    }

    /// The list of members, by one of them.
    ///
    /// # Errors
    /// What it, or the connection, said.
    pub fn members(&self, by: usize) -> Result<MemberListResponse, Status> {
        self.ask(by, cluster::MEMBER_LIST, &MemberListRequest { linearizable: true })
    }

    /// Adds a member and starts it; does not wait. Its number.
    ///
    /// # Panics
    /// Where nobody takes the change.
    pub fn add(&mut self, learner: bool) -> usize {
        let at = self.place();
        let peer_urls = vec![self.members[at].peer_url.clone()];
        let request = MemberAddRequest { peer_urls, is_learner: learner };
        let others: Vec<_> = self.present().into_iter().filter(|other| *other != at).collect();
        let _added: MemberAddResponse = self.change(&others, cluster::MEMBER_ADD, &request);
        let all = self.present();
        self.set_up(at, &all, "existing");
        self.spawn(at);
        at
    }

    /// Takes a member out; its process goes on until it hears of it.
    ///
    /// # Panics
    /// Where nobody takes the change.
    pub fn remove(&mut self, at: usize, id: u64) {
        let others: Vec<_> = self.present().into_iter().filter(|other| *other != at).collect();
        let request = MemberRemoveRequest { id };
        let _removed: MemberRemoveResponse = self.change(&others, cluster::MEMBER_REMOVE, &request);
        self.members[at].removed = true;
    }

    /// Makes a learner a voter, once it has caught up.
    ///
    /// # Panics
    /// Where it is not taken.
    pub fn promote(&mut self, at: usize, id: u64) {
        let others: Vec<_> = self.present().into_iter().filter(|other| *other != at).collect();
        let request = MemberPromoteRequest { id };
        let _promoted: MemberPromoteResponse =
            self.change(&others, cluster::MEMBER_PROMOTE, &request);
    }

    /// Asks one after the other until one does it.
    fn change<Resp: Message + Default>(
        &self,
        by: &[usize],
        path: &str,
        what: &impl Message,
    ) -> Resp {
        let mut said = String::new();
        let mut turn = by.iter().cycle();
        let changed = patiently(CHANGE_MAX, || {
            let by = *turn.next()?;
            let answer = self.ask(by, path, what);
            answer.map_err(|status| said = format!("{}: {status}", name(by))).ok()
        });
        changed.unwrap_or_else(|| panic!("{path} is not done; last {said}"))
    }
}

/// The end of a log, for people.
fn tail(log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}

fn patiently<T>(most: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + most;
    loop {
        let found = ask();
        if found.is_some() || Instant::now() > deadline {
            return found;
        }
        thread::sleep(AGAIN);
    }
}

/// Asks again and again until there is an answer.
///
/// # Panics
/// Where there is none within the time.
pub fn until<T>(what: &str, most: Duration, ask: impl FnMut() -> Option<T>) -> T {
    patiently(most, ask).unwrap_or_else(|| panic!("no {what} within {most:?}"))
}
