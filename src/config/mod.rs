//! What was typed → what it means, validated once.
//!
//! ```text
//!  command line ─ argv ─┐
//!  ETCD_* ──────── env ─┼─► settings ── judge ──► meaning ──► Config
//!  YAML file ───── file ┘   (by table)  refused?   checks      plain
//! ```
//!
//! `load` touches nothing: the file and the machine's address are read through what it is
//! handed, so every rule can be tested as text in, meaning out. The rules are etcd 3.7's
//! (`etcdmain`, `embed.Config`); the sentences of its errors too, where it has one.

mod argv;
mod env;
mod file;
mod gates;
mod help;
mod host;
mod judge;
mod meaning;
mod settings;
pub mod table;
mod url;
mod urls_map;
mod value;

#[cfg(test)]
mod flags_page;
#[cfg(test)]
mod tests;

pub use gates::rows as gate_rows;
pub use help::{ETCD_VERSION, GIT_SHA, RINGLEADER_VERSION};
pub use host::default_host;
pub use url::{Scheme, Url};
pub use urls_map::UrlsMap;
pub use value::Kind;

use crate::log::{self, Level};
use argv::Halt;
use settings::Settings;
use std::{
    collections::BTreeMap, ffi::OsString, io, net::IpAddr, path::Path, path::PathBuf,
    time::Duration,
};

/// All that a member is told at its start.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `--name`.
    pub name: String,
    /// `--data-dir`, or `${name}.etcd`.
    pub data_dir: PathBuf,
    /// `--wal-dir`, where the log has a directory of its own.
    pub wal_dir: Option<PathBuf>,
    /// Where to listen for clients: plain TCP on IP addresses or localhost; at least one.
    pub listen_client: Vec<Url>,
    /// What clients are told to connect to; at least one.
    pub advertise_client: Vec<String>,
    /// Where to listen for members: plain TCP on IP addresses or localhost; at least one.
    pub listen_peer: Vec<Url>,
    /// What members are told to connect to; at least one.
    pub advertise_peer: Vec<Url>,
    /// Where a member without data learns who its cluster is; one that has data ignores it.
    pub initial_cluster: InitialCluster,
    /// `--initial-cluster-token`.
    pub initial_cluster_token: String,
    /// `--initial-cluster-state`.
    pub initial_cluster_state: ClusterState,
    /// `--strict-reconfig-check`.
    pub strict_reconfig_check: bool,
    /// `--pre-vote`.
    pub pre_vote: bool,
    /// `--initial-election-tick-advance`.
    pub initial_election_tick_advance: bool,
    /// Learners that the cluster may have at once (`--max-learners`).
    pub max_learners: i64,
    /// Entries kept in the log for a slow follower after a checkpoint (`--snapshot-catchup-entries`).
    pub snapshot_catchup_entries: u64,
    /// How long a read from a member's connection may take (`--raft-read-timeout`).
    pub raft_read_timeout: Duration,
    /// How long a write to a member's connection may take (`--raft-write-timeout`).
    pub raft_write_timeout: Duration,
    /// Time between two heartbeats.
    pub heartbeat: Duration,
    /// Time without a leader before an election: 5 heartbeats to 50 s.
    pub election: Duration,
    /// Committed entries between two checkpoints, at most; not 0.
    pub snapshot_count: u64,
    /// When a checkpoint is due besides.
    pub checkpoint: Checkpoint,
    /// Bytes of data before the NOSPACE alarm; 2 GiB where it was 0; below 0 there is no quota.
    pub quota_backend_bytes: i64,
    /// Operations in one transaction, at most.
    pub max_txn_ops: usize,
    /// Bytes in one request, at most; see [`crate::limits::REQUEST_BYTES_CEILING`].
    pub max_request_bytes: usize,
    /// Streams that one connection may have open, at most.
    pub max_concurrent_streams: u32,
    /// Between two words of progress to watchers that want them (`--watch-progress-notify-interval`).
    pub watch_progress: Duration,
    /// How to write the log.
    pub log: log::Options,
    /// Cores that serve clients; 0 is one for each core that may be used.
    pub shards: usize,
    /// The cores to use, sorted, each once; `None` is all that the process may use.
    pub cores: Option<Vec<usize>>,
    /// What only a test asks for.
    pub testing: Testing,
}

/// When a checkpoint is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// After so many bytes of log (`--ringleader-checkpoint-bytes`).
    pub log_bytes: u64,
    /// After this long (`--ringleader-checkpoint-interval`).
    pub interval: Duration,
    /// When changed pages of the index take so many bytes of memory (`--ringleader-index-memory-bytes`);
    /// `None` where the machine's memory decides.
    pub index_memory_bytes: Option<u64>,
}

/// How slow a test wants a member to be; each at most [`crate::limits::TESTING_DELAY_MAX`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Testing {
    /// How much longer a sync takes (`--testing-sync-delay`).
    pub sync_delay: Duration,
    /// With this probability, 0 to 1, this much longer instead (`--testing-sync-delay-tail`).
    pub sync_delay_tail: (f64, Duration),
    /// How much later what goes to other members leaves (`--testing-peer-delay`).
    pub peer_delay: Duration,
}

/// Whether a member without data starts a cluster or joins one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterState {
    /// It starts one.
    New,
    /// It joins one.
    Existing,
}

/// Where a member without data learns who its cluster is; at most one way may be typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InitialCluster {
    /// `--initial-cluster` as it stands.
    Named(String),
    /// Service records in DNS: `--discovery-srv`.
    Srv {
        /// The domain.
        domain: String,
        /// `--discovery-srv-name`, which follows the name of the service; may be empty.
        service: String,
    },
    /// An etcd that has the list: `--discovery-token` and `--discovery-endpoints`.
    Discovery(Discovery),
}

/// The discovery service, and how patient to be with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovery {
    /// The name of the list; in place of `--initial-cluster-token` too.
    pub token: String,
    /// Where the service is, `host:port` or `http://host:port`; at least one.
    pub endpoints: Vec<String>,
    /// How long a connection may take (`--discovery-dial-timeout`).
    pub dial_timeout: Duration,
    /// How long a request may take after that (`--discovery-request-timeout`).
    pub request_timeout: Duration,
}

/// Something to say in the log once it is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// How loud.
    pub level: Level,
    /// The line's message.
    pub message: &'static str,
    /// The line's fields.
    pub fields: Vec<(&'static str, String)>,
}

impl Notice {
    fn new(level: Level, message: &'static str) -> Self {
        Self { level, message, fields: Vec::new() }
    }

    fn with(mut self, key: &'static str, value: impl Into<String>) -> Self {
        self.fields.push((key, value.into()));
        self
    }

    /// Writes it to the log.
    pub fn log(&self) {
        let fields: Vec<_> =
            self.fields.iter().map(|(key, value)| (*key, log::Value::Text(value))).collect();
        log::write(self.level, file!(), line!(), self.message, &fields);
    }
}

/// What to do after reading the command line.
#[derive(Debug, PartialEq)]
pub enum Outcome {
    /// Run the member, and say these things first.
    Run(Box<Config>, Vec<Notice>),
    /// Print this on standard output and exit with 0.
    Print(String),
    /// Print this on standard error and exit with this status.
    Fail {
        /// What is wrong: the flag, the value, and what is allowed; one or more lines.
        message: String,
        /// 2 for a command line that cannot be understood, 1 for all else, as etcd.
        exit_code: u8,
    },
}

/// Reads the command line (without the program's name), the environment and the configuration
/// file, and says what they mean.
///
/// `read_file` reads the configuration file; `default_host` finds this machine's address, and is
/// asked only when listening on all addresses without being told what to advertise.
pub fn load(
    args: impl IntoIterator<Item = OsString>,
    env: impl IntoIterator<Item = (OsString, OsString)>,
    read_file: &dyn Fn(&Path) -> io::Result<String>,
    default_host: &dyn Fn() -> Option<IpAddr>,
) -> Outcome {
    match understand(args, env, read_file, default_host) {
        Ok(outcome) => outcome,
        Err(message) => Outcome::Fail { message, exit_code: 1 },
    }
}

fn understand(
    args: impl IntoIterator<Item = OsString>,
    env: impl IntoIterator<Item = (OsString, OsString)>,
    read_file: &dyn Fn(&Path) -> io::Result<String>,
    default_host: &dyn Fn() -> Option<IpAddr>,
) -> Result<Outcome, String> {
    let args: Vec<String> = args.into_iter().map(utf8).collect::<Result<_, _>>()?;
    if let Some(command @ ("gateway" | "grpc-proxy")) = args.first().map(String::as_str) {
        return Err(format!(
            "the subcommand {command:?} is not built yet; use that of etcd itself"
        ));
    }
    let mut settings = Settings::new();
    match argv::read(&args, &mut settings) {
        Ok(()) => {}
        Err(Halt::Help) => return Ok(Outcome::Print(help::help())),
        Err(Halt::NoFlag(arg)) => return Err(format!("{arg:?} is not a valid flag")),
        Err(Halt::Misuse(problem)) => {
            let message = format!("{problem}\n\n{}", help::USAGE);
            return Ok(Outcome::Fail { message, exit_code: 2 });
        }
    }
    if settings.bool("version") {
        return Ok(Outcome::Print(help::version()));
    }
    let variables = etcd_variables(env)?;
    let mut notices = Vec::new();
    let from_file = config_file(&settings, &variables);
    match &from_file {
        Some(path) => settings = read_config_file(path, read_file, &mut notices)?,
        None => env::read(&variables, &mut settings, &mut notices)?,
    }
    judge::judge(&settings, &mut notices)?;
    let config = meaning::mean(&settings, from_file.is_some(), default_host, &mut notices)?;
    Ok(Outcome::Run(Box::new(config), notices))
}

fn utf8(arg: OsString) -> Result<String, String> {
    arg.into_string().map_err(|arg| format!("the argument {arg:?} is not UTF-8"))
}

/// The variables that begin with `ETCD_`.
fn etcd_variables(
    env: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<BTreeMap<String, String>, String> {
    env.into_iter()
        .filter(|(key, _)| key.as_encoded_bytes().starts_with(b"ETCD_"))
        .map(|(key, value)| match (key.into_string(), value.into_string()) {
            (Ok(key), Ok(value)) => Ok((key, value)),
            (key, _) => Err(format!("the environment variable {key:?} is not UTF-8")),
        })
        .collect()
}

/// The path of the configuration file, from the command line or else the environment.
fn config_file(settings: &Settings, variables: &BTreeMap<String, String>) -> Option<String> {
    let typed = settings.text("config-file");
    let path = if typed.is_empty() {
        variables.get("ETCD_CONFIG_FILE").map_or("", String::as_str)
    } else {
        typed
    };
    (!path.is_empty()).then(|| path.to_owned())
}

fn read_config_file(
    path: &str,
    read_file: &dyn Fn(&Path) -> io::Result<String>,
    notices: &mut Vec<Notice>,
) -> Result<Settings, String> {
    let text = read_file(Path::new(path)).map_err(|error| format!("open {path}: {error}"))?;
    let mut settings = Settings::new();
    notices.push(
        Notice::new(
            Level::Info,
            "loaded server configuration, other configuration command line flags and environment \
             variables will be ignored if provided",
        )
        .with("path", path),
    );
    file::read(path, &text, &mut settings, notices)?;
    Ok(settings)
}
