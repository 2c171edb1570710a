//! What a figure is worth nothing without: the host, its kernel and CPUs, the disk, the versions, the
//! flags and the date.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use proto::etcdserverpb::{StatusRequest, StatusResponse, maintenance};
use serde_json::{Value, json};

use crate::{client::Client, ground::Ground};

/// How long a server may take to say its version.
const ASK: Duration = Duration::from_secs(5);
const UNKNOWN: &str = "unknown";

/// Where and when something was measured. [`fmt::Display`] is three lines, two without
/// servers.
#[derive(Clone, Debug)]
pub struct Scene {
    host: String,
    kernel: String,
    cpus: usize,
    cpu_model: String,
    disk: String,
    servers: Vec<String>,
    /// What the servers' processes run.
    programs: Vec<String>,
    flags: String,
    date: String,
}

impl Scene {
    /// Of this host, now. The disk is that of the folder, or of what the process says is its folder.
    pub fn new(endpoints: &[String], data_dir: Option<&Path>, pids: &[u32], flags: &str) -> Self {
        let told = || data_dir_of(*pids.first()?);
        let folder = data_dir.map(Path::to_path_buf).or_else(told);
        let ground = folder.and_then(|folder| Ground::of(&folder));
        let read = |path: &str| fs::read_to_string(path).unwrap_or_else(|_| UNKNOWN.into());
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self {
            host: read("/proc/sys/kernel/hostname").trim().into(),
            kernel: read("/proc/sys/kernel/osrelease").trim().into(),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            cpu_model: cpu_model(&read("/proc/cpuinfo")),
            disk: ground.map_or_else(|| UNKNOWN.into(), |ground| ground.brief()),
            servers: endpoints.iter().map(|endpoint| server(endpoint)).collect(),
            programs: pids.iter().map(|pid| program(*pid)).collect(),
            flags: flags.into(),
            date: date(now.as_secs()),
        }
    }

    /// For machines.
    pub fn json(&self) -> Value {
        json!({
            "host": self.host,
            "kernel": self.kernel,
            "cpus": self.cpus,
            "cpu_model": self.cpu_model,
            "disk": self.disk,
            "loadgen": env!("CARGO_PKG_VERSION"),
            "servers": self.servers,
            "programs": self.programs,
            "flags": self.flags,
            "date": self.date,
        })
    }
}

impl fmt::Display for Scene {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, kernel, cpus, cpu_model, disk, servers, programs, flags, date } = self;
        writeln!(f, "{date}  loadgen {} {flags}", env!("CARGO_PKG_VERSION"))?;
        let how = if disk == UNKNOWN { " (--data-dir)" } else { "" };
        writeln!(f, "host {host}, Linux {kernel}, {cpus} CPUs ({cpu_model}), disk {disk}{how}")?;
        match (&servers[..], &programs[..]) {
            ([], _) => Ok(()),
            (servers, []) => writeln!(f, "against {}", servers.join(", ")),
            (servers, programs) => {
                let [servers, programs] = [servers, programs].map(|all| all.join(", "));
                writeln!(f, "against {servers}; processes: {programs}")
            }
        }
    }
}

fn server(endpoint: &str) -> String {
    let status = Client::connect_within(endpoint, ASK).ok().and_then(|mut client| {
        client.unary::<_, StatusResponse>(maintenance::STATUS, &StatusRequest {}).ok()
    });
    match status {
        Some(status) if !status.version.is_empty() => {
            format!("{endpoint} version {}", status.version)
        }
        _ => format!("{endpoint} version {UNKNOWN}"),
    }
}

/// Servers of different making may say the same version: the name of what runs tells them apart.
fn program(pid: u32) -> String {
    fs::read_link(format!("/proc/{pid}/exe"))
        .ok()
        .and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
        .unwrap_or_else(|| UNKNOWN.into())
}

fn cpu_model(cpuinfo: &str) -> String {
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.and_then(|line| line.split_once(':')).map(|(_, model)| model.trim());
    model.unwrap_or(UNKNOWN).into()
}

/// What the process was told by flag, from where it runs.
fn data_dir_of(pid: u32) -> Option<PathBuf> {
    let words = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words: Vec<_> = words.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
    let folder = data_dir_in(&words)?;
    Some(fs::read_link(format!("/proc/{pid}/cwd")).ok()?.join(folder))
}

fn data_dir_in(words: &[impl AsRef<str>]) -> Option<String> {
    words.iter().enumerate().find_map(|(at, word)| {
        let flag = word.as_ref().trim_start_matches('-').strip_prefix("data-dir")?;
        match flag.strip_prefix('=') {
            Some(folder) => Some(folder.into()),
            None if flag.is_empty() => words.get(at + 1).map(|folder| folder.as_ref().into()),
            None => None,
        }
    })
}

/// Seconds since 1970 as RFC 3339 has them (Hinnant: chrono-Compatible Low-Level Date Algorithms,
/// `civil_from_days`).
fn date(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date(0), "1970-01-01T00:00:00Z");
        assert_eq!(date(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(date(1_795_415_873), "2026-11-23T06:37:53Z");
        assert_eq!(date(4_102_444_799), "2099-12-31T23:59:59Z");
    }

    #[test]
    fn a_data_directory_is_found_among_the_flags() {
        let found = |line: &str| data_dir_in(&line.split(' ').collect::<Vec<_>>());
        assert_eq!(found("etcd --name a --data-dir /var/a --x"), Some("/var/a".into()));
        assert_eq!(found("etcd -data-dir=b"), Some("b".into()));
        assert_eq!(found("etcd --data-directory b"), None);
        assert_eq!(found("etcd --data-dir"), None);
    }

    #[test]
    fn what_is_not_known_is_said_to_be_unknown() {
        let scene =
            Scene::new(&["127.0.0.1:1".into()], None, &[std::process::id()], "put --keys 7");
        let (json, text) = (scene.json(), scene.to_string());
        let program = json["programs"][0].as_str().unwrap();
        assert!(program.starts_with("loadgen"), "{program}");
        assert_eq!(json["servers"][0], "127.0.0.1:1 version unknown");
        assert_eq!(json["flags"], "put --keys 7");
        assert!(text.contains("loadgen 0") && text.contains("version unknown"), "{text}");
        assert!(json["host"] != "unknown" && json["kernel"] != "unknown", "{json}");
        assert_eq!(Scene::new(&[], None, &[], "").json()["disk"], "unknown");
        let here = Scene::new(&[], Some(Path::new(".")), &[], "");
        assert_ne!(here.json()["disk"], "unknown");
    }
}
