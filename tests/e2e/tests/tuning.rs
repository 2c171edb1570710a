//! What lies in `tuning/`: that the scripts do what they say, that the unit, the profile and the
//! dashboard fit the server.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

use e2e::{
    binary,
    cluster::{Cluster, until},
    http,
    server::{Folder, Setup},
};

/// Longer than anything here should take.
const PATIENCE: Duration = Duration::from_secs(30);

fn tuning(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tuning").join(name)
}

fn read(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Whether a program is there that not every machine has.
fn is_there(program: &str, test: &str) -> bool {
    let found = Command::new(program).arg("--version").stdout(Stdio::null()).status().is_ok();
    if !found {
        eprintln!("{test}: skipped, no {program}");
    }
    found
}

// ── the server in a unit and in a container ─────────────────────────────────────────────────────

fn says_ready(folder: &Folder, name: &str, socket: &UnixDatagram) {
    socket.set_read_timeout(Some(PATIENCE)).expect("a time");
    let setup = Setup::named(&binary::ringleader(), folder.path(), "member");
    let setup = setup.wrapper(["env".to_owned(), format!("NOTIFY_SOCKET={name}")]);
    let server = setup.start().expect("it starts");
    let mut said = [0; 64];
    let bytes = socket.recv(&mut said).expect("it says so");
    assert_eq!(&said[..bytes], b"READY=1");
    server.terminate();
}

#[test]
fn systemd_is_told_when_a_member_serves() {
    let folder = Folder::new("tuning-notify");
    // A path of a socket has at most 107 bytes.
    let path = std::env::temp_dir().join(format!("ringleader-{}.notify", std::process::id()));
    let socket = UnixDatagram::bind(&path).expect("a socket");
    says_ready(&folder, path.to_str().expect("a plain path"), &socket);
    fs::remove_file(&path).expect("it is ours");
}

#[test]
fn systemd_is_told_at_an_address_that_no_file_stands_for() {
    let folder = Folder::new("tuning-notify-abstract");
    let name = format!("ringleader-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).expect("a short name");
    says_ready(&folder, &format!("@{name}"), &UnixDatagram::bind_addr(&address).expect("a socket"));
}

#[test]
fn the_unit_is_as_systemd_wants_it() {
    if !is_there("systemd-analyze", "the_unit_is_as_systemd_wants_it") {
        return;
    }
    let folder = Folder::new("tuning-unit");
    let unit = folder.path().join("ringleader.service");
    let server = binary::ringleader();
    let text = read(tuning("ringleader.service"));
    let own = text.replace("/usr/local/bin/ringleader", server.to_str().expect("a plain path"));
    fs::write(&unit, own).expect("our folder");
    let said =
        Command::new("systemd-analyze").arg("verify").arg(&unit).output().expect("it starts");
    let words = String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success() && !words.contains("ringleader.service"), "{words}");
}

#[test]
fn the_first_process_of_a_container_ends_with_0_when_it_is_told_to() {
    let unshare = ["unshare", "--pid", "--fork", "--kill-child"];
    let may =
        Command::new(unshare[0]).args(&unshare[1..]).arg("true").stderr(Stdio::null()).status();
    if !may.is_ok_and(|status| status.success()) {
        eprintln!("skipped: this user may not make a PID name space");
        return;
    }
    let folder = Folder::new("tuning-first-process");
    let setup = Setup::new(&binary::ringleader(), folder.path()).wrapper(unshare);
    let server = setup.start().expect("it starts");
    let children = format!("/proc/{0}/task/{0}/children", server.pid());
    let first = read(children);
    let told = Command::new("kill").arg(first.trim()).status().expect("kill is there");
    assert!(told.success());
    let ended = server.wait_end();
    assert_eq!(ended.code(), Some(0), "{}", ended.log);
}

#[test]
fn a_member_lives_within_the_seccomp_profile() {
    if !is_there("python3", "a_member_lives_within_the_seccomp_profile") {
        return;
    }
    let loader = Path::new(env!("CARGO_MANIFEST_DIR")).join("seccomp.py");
    let profile = tuning("seccomp.json");
    let within = |profile: &Path| {
        [Path::new("python3"), &loader, profile].map(|word| word.as_os_str().to_owned())
    };
    let folder = Folder::new("tuning-seccomp");
    // Whether the profile holds at all: a call that it does not name is refused.
    let words = within(&profile);
    let fifo = folder.path().join("fifo");
    let made = Command::new(&words[0]).args(&words[1..]).arg("mkfifo").arg(&fifo).output();
    let Output { status, stderr, .. } = made.expect("it starts");
    if status.code() == Some(77) {
        eprintln!("skipped: {}", String::from_utf8_lossy(&stderr));
        return;
    }
    assert!(!status.success() && !fifo.exists(), "mknodat is not in the profile");
    let setup = Setup::named(&binary::ringleader(), folder.path(), "within");
    let setup = setup.wrapper(within(&profile));
    let server = setup.start().unwrap_or_else(|ended| panic!("{}", ended.log));
    let answer = http::ask(&server.endpoint(), "GET", "/health").expect("it answers");
    assert!(answer.body.contains("true"), "{}", answer.body);
    let ended = server.terminate();
    assert!(ended.status.is_some(), "it ends when it is told to: {}", ended.log);
    // The same without the calls of io_uring, which is what container engines do by themselves.
    let without = folder.path().join("without.json");
    let text = read(&profile).replace("\"io_uring_setup\",", "");
    fs::write(&without, text).expect("our folder");
    let setup = Setup::named(&binary::ringleader(), folder.path(), "without");
    let ended = setup.wrapper(within(&without)).spawn().wait_end();
    assert!(ended.log.contains("seccomp") && ended.code() == Some(1), "{}", ended.log);
}

// ── dashboard and alerts ────────────────────────────────────────────────────────────────────────

/// Names of metrics in expressions; those of Prometheus' own (`up`) are not among them.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(|c| !word(c));
    let ours = ["etcd_", "grpc_server_", "process_"];
    words.filter(|one| ours.iter().any(|start| one.starts_with(start))).map(Into::into).collect()
}

/// Names of metrics that a member serves samples of, and of the labels that these have.
type Served = BTreeMap<String, BTreeSet<Vec<String>>>;

/// What a member serves of these.
fn served(endpoint: &str, names: &BTreeSet<String>) -> Served {
    let answer = http::ask(endpoint, "GET", "/metrics").expect("it answers");
    let mut served = Served::new();
    for sample in answer.body.lines().filter(|line| !line.starts_with('#')) {
        let name = sample.split(['{', ' ']).next().unwrap_or_default();
        let labels =
            sample.rsplit_once('}').map_or("", |(labelled, _)| &labelled[name.len() + 1..]);
        let named = labels.split("\",").filter_map(|label| label.split_once('='));
        let labels = named.map(|(label, _)| label.to_owned()).collect();
        if names.contains(name) {
            served.entry(name.into()).or_default().insert(labels);
        }
    }
    served
}

fn named() -> BTreeSet<String> {
    let texts = ["grafana.json", "alerts.yaml"].map(|name| read(tuning(name)));
    let named: BTreeSet<_> = texts.iter().flat_map(|text| metrics_in(text)).collect();
    assert!(named.len() > 25, "they are found: {named:?}");
    named
}

/// Waits until three members of a server serve all that is named; what one of them does.
fn all_served(binary: &Path, test: &str, patience: Duration) -> Served {
    let named = named();
    let cluster = Cluster::start(binary, test, 3, &[]);
    // A round trip is there once members have asked each other.
    until("every metric", patience, || {
        let served = served(&cluster.endpoint(0), &named);
        let missing: Vec<_> = named.iter().filter(|name| !served.contains_key(*name)).collect();
        eprintln!("missing: {missing:?}");
        missing.is_empty().then_some(served)
    })
}

#[test]
fn every_metric_of_the_dashboard_and_of_the_alerts_is_served_as_by_etcd() {
    let ours = all_served(&binary::ringleader(), "tuning-metrics", PATIENCE);
    let test = "every_metric_of_the_dashboard_and_of_the_alerts_is_served_as_by_etcd";
    let Some(etcd) = binary::etcd("etcd", test) else { return };
    // Its first round trips come later than ours.
    let theirs = all_served(&etcd, "tuning-metrics-etcd", 3 * PATIENCE);
    assert_eq!(ours, theirs, "names, and the labels of each");
}

#[test]
fn the_alerts_fire_and_keep_still_as_their_test_says() {
    if !is_there("promtool", "the_alerts_fire_and_keep_still_as_their_test_says") {
        return;
    }
    let mut promtool = Command::new("promtool");
    let said = promtool.args(["test", "rules"]).arg(tuning("alerts_test.yaml")).output();
    let said = said.expect("it starts");
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
}

#[test]
fn the_dashboard_is_whole() {
    let board: serde_json::Value =
        serde_json::from_str(&read(tuning("grafana.json"))).expect("it is JSON");
    let panels = board["panels"].as_array().expect("a list");
    let ids: BTreeSet<_> =
        panels.iter().map(|panel| panel["id"].as_u64().expect("a number")).collect();
    assert_eq!(ids.len(), panels.len(), "each has a number of its own");
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        let targets = panel["targets"].as_array().expect("a list");
        assert!(!targets.is_empty(), "{}", panel["title"]);
        let [x, w] = ["x", "w"].map(|side| panel["gridPos"][side].as_u64().expect("a number"));
        assert!(x + w <= 24, "{} lies within the grid", panel["title"]);
    }
}

// ── scripts ─────────────────────────────────────────────────────────────────────────────────────

/// A machine's `/` in a folder, with what is advised against.
struct Machine(Folder);

const SYSCTLS: [(&str, &str); 5] = [
    ("kernel/io_uring_disabled", "2"),
    ("kernel/sched_rt_runtime_us", "950000"),
    ("vm/swappiness", "60"),
    ("net/core/somaxconn", "128"),
    ("net/ipv4/tcp_slow_start_after_idle", "1"),
];

impl Machine {
    fn new(name: &str) -> Self {
        let folder = Folder::new(name);
        let governor = ("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor".into(), "powersave");
        let sysctls = SYSCTLS.iter().map(|(name, value)| (format!("proc/sys/{name}"), *value));
        for (name, value) in sysctls.chain([governor]) {
            let file = folder.path().join(name);
            fs::create_dir_all(file.parent().expect("it has one")).expect("our folder");
            fs::write(file, format!("{value}\n")).expect("our folder");
        }
        Self(folder)
    }

    fn run(&self, script: &str, words: &[&str]) -> (i32, String) {
        let mut command = Command::new("bash");
        command.arg(tuning(script)).args(words).arg(self.0.path());
        let said = command.env("TUNING_ROOT", self.0.path()).output().expect("bash is there");
        let text = String::from_utf8_lossy(&said.stdout) + String::from_utf8_lossy(&said.stderr);
        (said.status.code().expect("it ends by itself"), text.into_owned())
    }

    /// All its files and what they hold.
    fn all(&self) -> Vec<(PathBuf, String)> {
        let mut folders = vec![self.0.path().to_owned()];
        let mut found = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).expect("our folder").flatten() {
                match entry.path() {
                    path if path.is_dir() => folders.push(path),
                    path => found.push((path.clone(), read(&path))),
                }
            }
        }
        found.sort();
        found
    }
}

#[test]
fn checking_a_host_says_what_differs_and_changes_nothing() {
    let machine = Machine::new("tuning-check");
    let before = machine.all();
    let (code, said) = machine.run("check.sh", &[]);
    assert_eq!((code, machine.all()), (1, before), "{said}");
    for name in ["io_uring_disabled", "swappiness", "somaxconn", "slow_start", "cpu governor"] {
        let line = said.lines().find(|line| line.contains(name));
        assert!(line.is_some_and(|line| line.starts_with("DIFFERS")), "{name}: {said}");
    }
    let line = said.lines().find(|line| line.contains("sched_rt_runtime_us"));
    assert!(line.is_some_and(|line| line.starts_with("ok")), "{said}");
}

#[test]
fn checking_this_host_changes_nothing_that_it_looks_at() {
    let sysctls = || SYSCTLS.map(|(name, _)| fs::read_to_string(format!("/proc/sys/{name}")).ok());
    let before = sysctls();
    let folder = Folder::new("tuning-this-host");
    let said = Command::new("bash").arg(tuning("check.sh")).arg(folder.path()).output();
    let said = said.expect("bash is there");
    let text = String::from_utf8_lossy(&said.stdout);
    assert_eq!(said.status.code(), Some(i32::from(text.contains("DIFFERS"))), "{text}");
    assert!(text.lines().count() >= 10 && said.stderr.is_empty(), "{text}");
    assert_eq!((sysctls(), fs::read_dir(folder.path()).expect("ours").count()), (before, 0));
}

#[test]
fn a_host_that_was_tuned_is_as_advised_and_can_be_put_back() {
    let machine = Machine::new("tuning-host");
    let before = machine.all();
    let (code, said) = machine.run("host.sh", &["--dry-run"]);
    assert_eq!((code, machine.all()), (0, before.clone()), "{said}");
    assert!(said.contains("would set"), "{said}");

    let (code, said) = machine.run("host.sh", &[]);
    assert_eq!(code, 0, "{said}");
    let (_, after) = machine.run("check.sh", &[]);
    let open =
        |name: &str| after.lines().any(|line| line.contains(name) && line.contains("DIFFERS"));
    assert!(!["sysctl", "swappiness", "somaxconn", "governor"].into_iter().any(open), "{after}");
    let (_, again) = machine.run("host.sh", &[]);
    assert!(again.contains("all is as advised"), "{again}");

    let (_, undo) = said.split_once("to undo:\n").expect("it says how");
    let undone = Command::new("bash").args(["-c", undo]).status().expect("bash is there");
    assert!(undone.success());
    assert_eq!(machine.all(), before);
}

#[test]
fn a_scheduler_that_makes_a_sync_wait_is_replaced() {
    let machine = Machine::new("tuning-scheduler");
    let words = r#"mountpoint -d "$(stat -c %m "$1")""#;
    let said = Command::new("bash").args(["-c", words, "-"]).arg(machine.0.path()).output();
    let numbers = String::from_utf8(said.expect("bash is there").stdout).expect("two numbers");
    let queue = machine.0.path().join("sys/dev/block").join(numbers.trim()).join("queue");
    fs::create_dir_all(&queue).expect("our folder");
    for (file, value) in [("scheduler", "none kyber [bfq]"), ("rotational", "0")] {
        fs::write(queue.join(file), value).expect("our folder");
    }
    let differs = || {
        let (_, said) = machine.run("check.sh", &[]);
        let line = said.lines().find(|line| line.contains("scheduler of")).map(str::to_owned);
        line.unwrap_or_else(|| panic!("{said}")).starts_with("DIFFERS")
    };
    assert!(differs());
    let (_, said) = machine.run("host.sh", &[]);
    assert!(said.contains("scheduler: bfq to mq-deadline\n"), "{said}");
    assert!(said.contains("echo 'bfq' > "), "{said}");
    // The kernel's file would still name all and have another in brackets.
    fs::write(queue.join("scheduler"), "none kyber [mq-deadline] bfq").expect("our folder");
    assert!(!differs());
}

#[test]
fn a_wrong_question_is_told_how_to_ask() {
    for script in ["check.sh", "host.sh"] {
        let said = Command::new("bash").arg(tuning(script)).args(["--all"]).output();
        let said = said.expect("bash is there");
        assert_eq!(said.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&said.stderr).contains(script));
    }
}
