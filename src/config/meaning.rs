//! From settings to [`Config`]: etcd's `embed.Config.Validate`, and its defaults that depend on
//! other flags.

use super::{
    Checkpoint, ClusterState, Config, Discovery, InitialCluster, Notice, Scheme, Testing, Url,
    judge,
    settings::Settings,
    table,
    value::{Kind, Value, duration},
};
use crate::{
    limits::{
        CHECKPOINT_INTERVAL_MIN, CHECKPOINT_LOG_BYTES_MAX, CHECKPOINT_LOG_BYTES_MIN, CORES_MAX,
        ELECTION_MS_MAX, INDEX_MEMORY_BYTES_MIN, PEER_CONNECTION_WAIT_MIN, QUOTA_BYTES,
        REQUEST_BYTES_CEILING, REQUEST_BYTES_RECOMMENDED, SNAPSHOT_COUNT, TESTING_DELAY_MAX,
        WATCH_PROGRESS_INTERVAL, WATCH_PROGRESS_INTERVAL_MIN,
    },
    log::{self, Format, Level, Output},
};
use std::{collections::BTreeSet, net::IpAddr, path::PathBuf, time::Duration};

/// etcd's default `--initial-cluster`; the same text typed counts as not typed, as in etcd.
const DEFAULT_CLUSTER: &str = "default=http://localhost:2380";
const DEFAULT_NAME: &str = "default";

/// What the settings mean.
///
/// # Errors
/// The first rule that they break, in etcd's words where etcd has the rule.
pub(super) fn mean(
    settings: &Settings,
    from_file: bool,
    default_host: &dyn Fn() -> Option<IpAddr>,
    notices: &mut Vec<Notice>,
) -> Result<Config, String> {
    let log = log_options(settings, notices)?;
    check_listen(settings, "listen-peer-urls")?;
    check_listen(settings, "listen-client-urls")?;
    check_advertise(settings)?;
    check_one_source(settings, from_file)?;
    let (heartbeat, election) = timing(settings)?;
    // In a file etcd does not ask for this.
    if !from_file
        && settings.is_given("listen-client-urls")
        && !settings.is_given("advertise-client-urls")
    {
        return Err(
            "--advertise-client-urls is required when --listen-client-urls is set explicitly"
                .into(),
        );
    }
    let name = settings.text("name").to_owned();
    if name == DEFAULT_NAME {
        notices.push(
            Notice::new(
                Level::Warn,
                "it isn't recommended to use default name, please set a value for --name. Note \
                 that etcd might run into issue when multiple members have the same default name",
            )
            .with("name", &name),
        );
    }
    let advertised = advertise(settings, default_host, notices);
    let initial_cluster = initial_cluster(settings, from_file, &name, &advertised.peer);
    let (shards, cores) = cores(settings)?;
    Ok(Config {
        data_dir: data_dir(settings, &name, notices),
        wal_dir: Some(settings.text("wal-dir")).filter(|dir| !dir.is_empty()).map(PathBuf::from),
        listen_client: settings.urls("listen-client-urls").to_vec(),
        advertise_client: advertised.client.iter().map(Url::to_string).collect(),
        listen_peer: settings.urls("listen-peer-urls").to_vec(),
        advertise_peer: advertised.peer,
        initial_cluster,
        initial_cluster_token: settings.text("initial-cluster-token").to_owned(),
        initial_cluster_state: match settings.text("initial-cluster-state") {
            "existing" => ClusterState::Existing,
            _ => ClusterState::New,
        },
        strict_reconfig_check: settings.bool("strict-reconfig-check"),
        pre_vote: settings.bool("pre-vote"),
        initial_election_tick_advance: settings.bool("initial-election-tick-advance"),
        max_learners: settings.int("max-learners"),
        snapshot_catchup_entries: settings.uint("snapshot-catchup-entries"),
        raft_read_timeout: peer_timeout(settings, "raft-read-timeout", notices),
        raft_write_timeout: peer_timeout(settings, "raft-write-timeout", notices),
        heartbeat,
        election,
        snapshot_count: Some(settings.uint("snapshot-count"))
            .filter(|n| *n > 0)
            .unwrap_or(SNAPSHOT_COUNT),
        checkpoint: checkpoint(settings)?,
        quota_backend_bytes: Some(settings.int("quota-backend-bytes"))
            .filter(|n| *n != 0)
            .unwrap_or(QUOTA_BYTES),
        max_txn_ops: usize::try_from(settings.uint("max-txn-ops")).unwrap_or(usize::MAX),
        max_request_bytes: request_bytes(settings, notices)?,
        max_concurrent_streams: u32::try_from(settings.uint("max-concurrent-streams"))
            .expect("the table bounds it by u32::MAX"),
        watch_progress: watch_progress(settings, notices),
        log,
        shards,
        cores,
        testing: testing(settings, notices)?,
        name,
    })
}

fn checkpoint(settings: &Settings) -> Result<Checkpoint, String> {
    let (bytes, memory) = ("ringleader-checkpoint-bytes", "ringleader-index-memory-bytes");
    let log_bytes = settings.uint(bytes);
    if !(CHECKPOINT_LOG_BYTES_MIN..=CHECKPOINT_LOG_BYTES_MAX).contains(&log_bytes) {
        let range = format!("{CHECKPOINT_LOG_BYTES_MIN} to {CHECKPOINT_LOG_BYTES_MAX} bytes");
        return Err(format!("{}={log_bytes} is not within {range}", settings.said(bytes)));
    }
    let index_memory_bytes = Some(settings.uint(memory)).filter(|bytes| *bytes > 0);
    if let Some(few) = index_memory_bytes.filter(|bytes| *bytes < INDEX_MEMORY_BYTES_MIN) {
        let said = settings.said(memory);
        return Err(format!("{said}={few}: 0 or at least {INDEX_MEMORY_BYTES_MIN} is needed"));
    }
    let interval = "ringleader-checkpoint-interval";
    let nanos = u64::try_from(settings.int(interval)).unwrap_or(0);
    let every = Duration::from_nanos(nanos);
    if every < CHECKPOINT_INTERVAL_MIN {
        return Err(format!("{}: at least 1s is needed", settings.said(interval)));
    }
    Ok(Checkpoint { log_bytes, interval: every, index_memory_bytes })
}

/// etcd's `v3rpc/watch.go`.
fn watch_progress(settings: &Settings, notices: &mut Vec<Notice>) -> Duration {
    let nanos = settings.int("watch-progress-notify-interval");
    match u64::try_from(nanos).map(Duration::from_nanos) {
        Err(_) | Ok(Duration::ZERO) => WATCH_PROGRESS_INTERVAL,
        Ok(short) if short < WATCH_PROGRESS_INTERVAL_MIN => {
            notices.push(
                Notice::new(
                    Level::Warn,
                    "adjusting watch progress notify interval to minimum period",
                )
                .with("min-watch-progress-notify-interval", "100ms"),
            );
            WATCH_PROGRESS_INTERVAL_MIN
        }
        Ok(interval) => interval,
    }
}

fn data_dir(settings: &Settings, name: &str, notices: &mut Vec<Notice>) -> PathBuf {
    match settings.text("data-dir") {
        "" => {
            let dir = format!("{name}.etcd");
            notices.push(
                Notice::new(Level::Warn, "'data-dir' was empty; using default")
                    .with("data-dir", &dir),
            );
            dir.into()
        }
        dir => dir.into(),
    }
}

// ── addresses ───────────────────────────────────────────────────────────────────────────────────

fn check_listen(settings: &Settings, flag: &str) -> Result<(), String> {
    for url in settings.urls(flag) {
        let by = || settings.said(flag);
        match url.scheme {
            Scheme::Http => url.bind_ip().map(drop)?,
            Scheme::Https => return Err(format!("{}={url}: TLS is not built yet; use http", by())),
            Scheme::Unix | Scheme::Unixs => {
                return Err(format!("{}={url}: listening on Unix sockets is not built yet", by()));
            }
        }
    }
    Ok(())
}

fn check_advertise(settings: &Settings) -> Result<(), String> {
    for (flag, shape) in [
        ("initial-advertise-peer-urls", r#"must be "host:port""#),
        (
            "advertise-client-urls",
            r#"must be in the format "host:port", "unix:/path/to/socket" or "unixs:/path/to/socket""#,
        ),
    ] {
        let urls = settings.urls(flag);
        if let Some(url) = urls.iter().find(|url| !url.is_socket() && url.host.is_empty()) {
            let all = joined(urls);
            return Err(format!("--{flag} {all:?} {shape} (unexpected empty host ({url}))"));
        }
    }
    Ok(())
}

/// What is advertised, after etcd's `UpdateDefaultClusterFromName`.
struct Advertised {
    client: Vec<Url>,
    peer: Vec<Url>,
}

fn advertise(
    settings: &Settings,
    default_host: &dyn Fn() -> Option<IpAddr>,
    notices: &mut Vec<Notice>,
) -> Advertised {
    let on_all = |listen: &str| settings.urls(listen)[0].host == "0.0.0.0";
    let mut found = None;
    let mut advertised = |advertise: &str, default: &str, listen: &str| {
        let urls = settings.urls(advertise).to_vec();
        let is_default = urls.len() == 1 && urls[0].as_str() == default;
        if !(is_default && on_all(listen)) {
            return urls;
        }
        found = found.or_else(default_host);
        found.map_or(urls, |host| vec![Url::of(Scheme::Http, host, settings.urls(listen)[0].port)])
    };
    let peer =
        advertised("initial-advertise-peer-urls", "http://localhost:2380", "listen-peer-urls");
    let client = advertised("advertise-client-urls", "http://localhost:2379", "listen-client-urls");
    if let Some(host) = found {
        notices.push(
            Notice::new(Level::Info, "detected default host for advertise")
                .with("host", host.to_string()),
        );
    }
    Advertised { client, peer }
}

fn joined(urls: &[Url]) -> String {
    urls.iter().map(Url::as_str).collect::<Vec<_>>().join(",")
}

// ── the initial cluster ─────────────────────────────────────────────────────────────────────────

/// `--initial-cluster`, unless it was left at its default and there is another source of names.
/// etcd looks at the value in a file, and at whether the flag was typed elsewhere, where it also
/// counts `--discovery-srv-name`.
fn named(settings: &Settings, from_file: bool) -> &str {
    let text = settings.text("initial-cluster");
    let other = !settings.text("discovery-srv").is_empty()
        || !settings.list("discovery-endpoints").is_empty();
    let is_default = if from_file {
        other && text == DEFAULT_CLUSTER
    } else {
        (other || !settings.text("discovery-srv-name").is_empty())
            && !settings.is_given("initial-cluster")
    };
    if is_default { "" } else { text }
}

fn check_one_source(settings: &Settings, from_file: bool) -> Result<(), String> {
    let endpoints = settings.list("discovery-endpoints");
    let sources = [
        !named(settings, from_file).is_empty(),
        !settings.text("discovery-srv").is_empty(),
        !endpoints.is_empty(),
    ];
    if sources.into_iter().filter(|given| *given).count() > 1 {
        return Err("multiple discovery or bootstrap flags are set. Choose one of \
                    \"initial-cluster\", \"discovery-endpoints\" or \"discovery-srv\""
            .into());
    }
    if settings.text("discovery-token").is_empty() != endpoints.is_empty() {
        return Err("both --discovery-token and --discovery-endpoints must be set".into());
    }
    if endpoints.iter().any(|endpoint| endpoint.trim().is_empty()) {
        return Err("--discovery-endpoints must not contain empty endpoints".into());
    }
    let speakable = |endpoint: &String| {
        let address = match endpoint.split_once("://") {
            None => endpoint,
            Some(("http", address)) => address,
            Some(_) => return false,
        };
        Url::parse(&format!("http://{address}")).is_ok()
    };
    match endpoints.iter().find(|endpoint| !speakable(endpoint)) {
        None => Ok(()),
        Some(endpoint) => Err(format!(
            "{}={endpoint}: host:port or http://host:port is needed; TLS is not built yet",
            settings.said("discovery-endpoints")
        )),
    }
}

fn initial_cluster(
    settings: &Settings,
    from_file: bool,
    name: &str,
    peer: &[Url],
) -> InitialCluster {
    let endpoints = settings.list("discovery-endpoints");
    if !endpoints.is_empty() {
        return InitialCluster::Discovery(Discovery {
            token: settings.text("discovery-token").to_owned(),
            endpoints: endpoints.to_vec(),
            dial_timeout: positive(settings, "discovery-dial-timeout"),
            request_timeout: positive(settings, "discovery-request-timeout"),
        });
    }
    let domain = settings.text("discovery-srv");
    if !domain.is_empty() {
        let service = settings.text("discovery-srv-name").to_owned();
        return InitialCluster::Srv { domain: domain.to_owned(), service };
    }
    InitialCluster::Named(match named(settings, from_file) {
        DEFAULT_CLUSTER if name != DEFAULT_NAME => cluster_of_one(name, peer),
        given => given.to_owned(),
    })
}

fn cluster_of_one(name: &str, peer: &[Url]) -> String {
    let name = if name.is_empty() { DEFAULT_NAME } else { name };
    peer.iter().map(|url| format!("{name}={url}")).collect::<Vec<_>>().join(",")
}

// ── numbers ─────────────────────────────────────────────────────────────────────────────────────

fn timing(settings: &Settings) -> Result<(Duration, Duration), String> {
    let (tick, election) = (settings.uint("heartbeat-interval"), settings.uint("election-timeout"));
    if tick == 0 {
        return Err("--heartbeat-interval must be >0 (set to 0ms)".into());
    }
    if election == 0 {
        return Err("--election-timeout must be >0 (set to 0ms)".into());
    }
    if tick.saturating_mul(5) > election {
        return Err(format!(
            "--election-timeout[{election}ms] should be at least as 5 times as --heartbeat-interval[{tick}ms]"
        ));
    }
    if election > ELECTION_MS_MAX {
        return Err(format!(
            "--election-timeout[{election}ms] is too long, and should be set less than {ELECTION_MS_MAX}ms"
        ));
    }
    check_unused(settings)?;
    Ok((Duration::from_millis(tick), Duration::from_millis(election)))
}

/// A duration above zero; else the flag's default, because to wait for nothing is to wait for no one.
fn positive(settings: &Settings, name: &str) -> Duration {
    let default = || Kind::Duration.parse(table::find(name).expect("it is in the table").default);
    match (settings.int(name), default()) {
        (nanos @ 1.., _) | (_, Ok(Value::Nanos(nanos))) => {
            Duration::from_nanos(nanos.unsigned_abs())
        }
        _ => unreachable!("the table's defaults can be read; tested"),
    }
}

/// etcd raises what is too short, and says so (`etcdmain/config.go`).
fn peer_timeout(settings: &Settings, name: &str, notices: &mut Vec<Notice>) -> Duration {
    let given = positive(settings, name);
    if given < PEER_CONNECTION_WAIT_MIN {
        notices.push(
            Notice::new(Level::Info, "timeout of peer connections increased to minimum value")
                .with("setting", settings.said(name))
                .with("minimum", log::span_text(PEER_CONNECTION_WAIT_MIN)),
        );
    }
    given.max(PEER_CONNECTION_WAIT_MIN)
}

/// etcd's rules for flags that are ignored here, so that a typing error is still found.
fn check_unused(settings: &Settings) -> Result<(), String> {
    match settings.text("auto-compaction-mode") {
        "periodic" | "revision" => {}
        "" => return Err("undefined auto-compaction-mode".into()),
        mode => return Err(format!("unknown auto-compaction-mode {mode:?}")),
    }
    match settings.int("compact-hash-check-time") {
        1.. => Ok(()),
        nanos => Err(format!("--compact-hash-check-time must be >0 (set to {nanos}ns)")),
    }
}

fn request_bytes(settings: &Settings, notices: &mut Vec<Notice>) -> Result<usize, String> {
    let bytes = settings.uint("max-request-bytes");
    let fits = usize::try_from(bytes).ok().filter(|bytes| *bytes <= REQUEST_BYTES_CEILING);
    let fits = fits.ok_or_else(|| {
        format!(
            "{}={bytes}: at most {REQUEST_BYTES_CEILING} is possible",
            settings.said("max-request-bytes")
        )
    })?;
    if fits > REQUEST_BYTES_RECOMMENDED {
        notices.push(
            Notice::new(Level::Warn, "exceeded recommended request limit")
                .with("max-request-bytes", bytes.to_string())
                .with("recommended-request-bytes", REQUEST_BYTES_RECOMMENDED.to_string()),
        );
    }
    Ok(fits)
}

fn cores(settings: &Settings) -> Result<(usize, Option<Vec<usize>>), String> {
    let shards = usize::try_from(settings.uint("ringleader-shards"))
        .expect("the table bounds it by CORES_MAX");
    let list = settings.text("ringleader-cores");
    if list.is_empty() {
        return Ok((shards, None));
    }
    let by = settings.said("ringleader-cores");
    let cores = core_list(list).ok_or_else(|| {
        format!("{by}={list:?}: a list such as 0,2-5 is needed, of numbers below {CORES_MAX}")
    })?;
    if shards > cores.len() {
        return Err(format!(
            "{}={shards} asks for more cores than {by}={list:?} allows",
            settings.said("ringleader-shards"),
        ));
    }
    Ok((shards, Some(cores)))
}

/// Linux's cpu list (`cpuset(7)`), sorted, each core once.
fn core_list(text: &str) -> Option<Vec<usize>> {
    let core = |digits: &str| {
        let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        digits.parse::<usize>().ok().filter(|core| plain && *core < CORES_MAX)
    };
    let mut cores = BTreeSet::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (core(first)?, core(last)?);
        if first > last {
            return None;
        }
        cores.extend(first..=last);
    }
    Some(cores.into_iter().collect())
}

// ── tests ───────────────────────────────────────────────────────────────────────────────────────

fn testing(settings: &Settings, notices: &mut Vec<Notice>) -> Result<Testing, String> {
    const TAIL: &str = "testing-sync-delay-tail";
    let testing = Testing {
        sync_delay: test_delay(settings, "testing-sync-delay")?,
        sync_delay_tail: test_delay_tail(settings, TAIL)?,
        peer_delay: test_delay(settings, "testing-peer-delay")?,
    };
    if testing != Testing::default() {
        notices.push(
            Notice::new(
                Level::Warn,
                "this member is made slow by options that are for tests only; never use it for data \
                 that matters",
            )
            .with("testing-sync-delay", log::span_text(testing.sync_delay))
            .with(TAIL, settings.text(TAIL))
            .with("testing-peer-delay", log::span_text(testing.peer_delay)),
        );
    }
    Ok(testing)
}

fn test_delay(settings: &Settings, name: &str) -> Result<Duration, String> {
    let nanos = settings.int(name);
    delay(nanos).ok_or_else(|| {
        let given = judge::shown(&Value::Nanos(nanos));
        format!("{}={given}: {}", settings.said(name), delays())
    })
}

/// `P:DURATION`; no text is never.
fn test_delay_tail(settings: &Settings, name: &str) -> Result<(f64, Duration), String> {
    let text = settings.text(name);
    if text.is_empty() {
        return Ok((0.0, Duration::ZERO));
    }
    let parts = text.split_once(':').and_then(|(share, tail)| {
        let share = share.parse().ok().filter(|share| (0.0..=1.0).contains(share))?;
        Some((share, delay(duration(tail)?)?))
    });
    parts.ok_or_else(|| {
        format!(
            "{}={text:?}: P:DURATION is needed, such as 0.001:200ms; P is from 0 to 1, and {}",
            settings.said(name),
            delays()
        )
    })
}

fn delay(nanos: i64) -> Option<Duration> {
    let delay = u64::try_from(nanos).map(Duration::from_nanos).ok();
    delay.filter(|delay| *delay <= TESTING_DELAY_MAX)
}

fn delays() -> String {
    format!("a delay is from 0s to {}", log::span_text(TESTING_DELAY_MAX))
}

// ── log ─────────────────────────────────────────────────────────────────────────────────────────

fn log_options(settings: &Settings, notices: &mut Vec<Notice>) -> Result<log::Options, String> {
    match settings.text("logger") {
        "zap" => {}
        "capnslog" => return Err("--logger=capnslog is removed in v3.5".into()),
        other => return Err(format!("unknown logger option {other:?}")),
    }
    let level = settings.text("log-level");
    let format = match settings.text("log-format") {
        "json" | "" => Format::Json,
        "console" => Format::Console,
        other => {
            return Err(format!("unknown log format: {other}, supported values json, console"));
        }
    };
    Ok(log::Options {
        level: Level::named(level).ok_or_else(|| {
            format!(
                "unrecognized level: {level:?}; {} takes debug, info, warn, error, panic or fatal",
                settings.said("log-level")
            )
        })?,
        format,
        outputs: log_outputs(settings.list("log-outputs"), notices)?,
    })
}

fn log_outputs(words: &[String], notices: &mut Vec<Notice>) -> Result<Vec<Output>, String> {
    let has = |word: &str| words.iter().any(|w| w == word);
    if words.len() > 1 && has("default") {
        return Err(r#"multi logoutput for "default" is not supported yet"#.into());
    }
    if words.len() > 1 && has("systemd/journal") {
        return Err(format!(
            "running with systemd/journal but other '--log-outputs' values ({words:?}) are \
             configured with 'default'; override 'default' value with something else"
        ));
    }
    if has("systemd/journal") {
        notices.push(Notice::new(
            Level::Warn,
            "systemd/journal is written to standard error, which systemd puts into the journal",
        ));
    }
    if words.is_empty() {
        return Ok(vec![Output::Stderr]);
    }
    // One /dev/null silences all of them, as in etcd.
    if has("/dev/null") {
        return Ok(Vec::new());
    }
    let output = |word: &String| match word.as_str() {
        "default" | "stderr" | "systemd/journal" => Output::Stderr,
        "stdout" => Output::Stdout,
        path => Output::File(path.into()),
    };
    Ok(words.iter().map(output).collect())
}
