//! How a member without data learns who it is: from real members of etcd, from etcd as a discovery
//! service, and from a DNS server.
#![allow(clippy::disallowed_methods, reason = "real processes take real time")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use e2e::{
    binary,
    server::{Ended, Folder, Server, Setup, free_port},
};
use serde_json::Value;

/// Said once a new cluster's members are known.
const BEGINS: &str = "learned the members of a new cluster";
/// Said once the cluster to join is known.
const JOINS: &str = "learned the cluster to join";
/// Said by etcd when it knows them.
const ETCD_KNOWS: &str = "starting local member";
const LEARN_MAX: Duration = Duration::from_secs(30);

/// The first line of the server's log with this message, once it is there.
fn line(server: &mut Server, message: &str) -> Value {
    let deadline = Instant::now() + LEARN_MAX;
    loop {
        let ended = server.ended().is_some();
        let log = server.log();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        if let Some(found) = lines.into_iter().find(|line| line["msg"] == message) {
            return found;
        }
        assert!(!ended && Instant::now() < deadline, "it never said {message:?}:\n{log}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Cluster and member, as a line has them.
fn ids(line: &Value) -> [String; 2] {
    let member = if line["member-id"].is_null() { "local-member-id" } else { "member-id" };
    ["cluster-id", member].map(|key| line[key].as_str().expect("an id is a text").to_owned())
}

/// The sentence with which a server that should not start ended.
fn refusal(ended: &Ended) -> &str {
    assert_eq!(ended.code(), Some(1), "{}", ended.log);
    let found = ended.log.lines().find_map(|line| line.strip_prefix("ringleader: "));
    found.unwrap_or_else(|| panic!("it does not say why:\n{}", ended.log))
}

/// A member of this name at this port, with further flags. Clients are told nothing.
fn member(program: &Path, folder: &Folder, name: &str, port: u16, flags: &[String]) -> Setup {
    let data = folder.path().join(name);
    fs::create_dir_all(&data).expect("our folder");
    let url = format!("http://127.0.0.1:{port}");
    Setup::new(program, &data)
        .flags([
            format!("--name={name}"),
            format!("--listen-peer-urls={url}"),
            format!("--initial-advertise-peer-urls={url}"),
        ])
        .flags(flags)
}

/// `--initial-cluster` of these names and ports.
fn cluster(members: &[(&str, u16)]) -> String {
    let pairs = members.iter().map(|(name, port)| format!("{name}=http://127.0.0.1:{port}"));
    format!("--initial-cluster={}", pairs.collect::<Vec<_>>().join(","))
}

/// Three running members of etcd.
fn three(etcd: &Path, folder: &Folder, ports: [u16; 3]) -> [Server; 3] {
    let names = ["a", "b", "c"];
    let all = [0, 1, 2].map(|at| (names[at], ports[at]));
    // Else nobody may be added in the first five seconds.
    let flags = [cluster(&all), "--strict-reconfig-check=false".to_owned()];
    let mut servers = all.map(|(name, port)| member(etcd, folder, name, port, &flags).spawn());
    for server in &mut servers {
        server.wait_ready().unwrap_or_else(|ended| panic!("{}", ended.log));
    }
    servers
}

fn etcdctl(etcd: &Path, endpoint: &str, words: &[&str]) -> String {
    let etcdctl = etcd.with_file_name("etcdctl");
    let output = Command::new(etcdctl).arg("--endpoints").arg(endpoint).args(words).output();
    let output = output.expect("it starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    text
}

fn ports<const N: usize>() -> [u16; N] {
    std::array::from_fn(|_| free_port())
}

#[test]
fn a_member_that_was_announced_takes_its_ids_from_those_who_run() {
    let test = "a_member_that_was_announced_takes_its_ids_from_those_who_run";
    let Some(etcd) = binary::etcd("etcd", test) else { return };
    let (folder, ours) = (Folder::new("join"), binary::ringleader());
    let [a, b, c, own, other] = ports();
    let running = three(&etcd, &folder, [a, b, c]);
    let four = cluster(&[("x", a), ("y", b), ("z", c), ("own", own)]);
    let existing = "--initial-cluster-state=existing".to_owned();
    let start = |name: &str, cluster: &str, more: &[String]| {
        let mut flags = vec![existing.clone(), cluster.to_owned()];
        flags.extend_from_slice(more);
        member(&ours, &folder, name, own, &flags).spawn()
    };

    let early = start("own", &four, &[]).wait_end();
    let early = refusal(&early);
    assert!(early.starts_with("error validating peerURLs {ClusterID:"), "{early}");
    assert!(early.ends_with("RemovedMemberIDs:[]}: member count is unequal"), "{early}");

    let url = format!("--peer-urls=http://127.0.0.1:{own}");
    let added = etcdctl(&etcd, &running[0].endpoint(), &["member", "add", "own", &url]);
    // Member 4d93e89ff3ef5441 added to cluster 77ecf6ba7dc1cd08
    let words: Vec<&str> = added.split_whitespace().collect();
    let mut joining = start("own", &four, &[]);
    let learned = line(&mut joining, JOINS);
    assert_eq!(ids(&learned), [words[5].to_owned(), words[1].to_owned()]);
    drop(joining);

    let wrong = cluster(&[("x", a), ("y", b), ("z", c), ("own", other)]);
    let wrong = start("own", &wrong, &[]).wait_end();
    let unmatched = "PeerURLs: no match found for existing member (";
    assert!(refusal(&wrong).contains(unmatched), "{}", wrong.log);
    let alone = start("own", &cluster(&[("own", own), ("x", other)]), &[]).wait_end();
    assert_eq!(
        refusal(&alone),
        "cannot fetch cluster info from peer urls: could not retrieve cluster information from the \
         given URLs"
    );
    let new = cluster(&[("a", a), ("b", b), ("c", c)]);
    let again = ["--initial-cluster-state=new", &new].map(str::to_owned);
    let again = member(&ours, &folder, "b", other, &again)
        .data(&folder.path().join("again"))
        .flags([format!("--initial-advertise-peer-urls=http://127.0.0.1:{b}")])
        .spawn()
        .wait_end();
    let known = refusal(&again);
    assert!(known.ends_with("has already been bootstrapped"), "{known}");
}

#[test]
fn a_new_cluster_has_the_ids_that_etcd_gives_it() {
    let test = "a_new_cluster_has_the_ids_that_etcd_gives_it";
    let Some(etcd) = binary::etcd("etcd", test) else { return };
    let folder = Folder::new("begin");
    let [a, b, c] = ports();
    let flags = [cluster(&[("a", a), ("b", b), ("c", c)]), "--initial-cluster-token=t".to_owned()];
    let mut known = Vec::new();
    for (program, message) in [(etcd, ETCD_KNOWS), (binary::ringleader(), BEGINS)] {
        let data = message.replace(' ', "-");
        let folder_of_it =
            member(&program, &folder, "a", a, &flags).data(&folder.path().join(data));
        known.push(ids(&line(&mut folder_of_it.spawn(), message)));
    }
    assert_eq!(known[0], known[1]);
}

#[test]
fn members_of_both_kinds_find_each_other_by_a_discovery_service() {
    let test = "members_of_both_kinds_find_each_other_by_a_discovery_service";
    let Some(etcd) = binary::etcd("etcd", test) else { return };
    let (folder, ours) = (Folder::new("discovery"), binary::ringleader());
    let service = Setup::new(&etcd, folder.path());
    let service = service.start().unwrap_or_else(|ended| panic!("{}", ended.log));
    let endpoint = service.endpoint();
    let size = |token: &str, size: &str| {
        let key = format!("/_etcd/registry/{token}/_config/size");
        etcdctl(&etcd, &endpoint, &["put", &key, size]);
    };
    let start = |program: &Path, name: &str, port: u16, token: &str, endpoints: &str| {
        let flags = [
            "--initial-cluster-token=ignored".to_owned(),
            format!("--discovery-token={token}"),
            format!("--discovery-endpoints={endpoints}"),
        ];
        let data = folder.path().join(name);
        fs::create_dir_all(&data).expect("our folder");
        let url = format!("http://127.0.0.1:{port}");
        let mut setup = Setup::without_cluster(program, &data);
        setup = setup.flags([
            format!("--name={name}"),
            format!("--listen-peer-urls={url}"),
            format!("--initial-advertise-peer-urls={url}"),
        ]);
        setup.flags(flags).spawn()
    };
    let [a, b, c] = ports();
    let ended = |token: &str, endpoints: &str| {
        let ended = start(&ours, "c", c, token, endpoints).wait_end();
        refusal(&ended).to_owned()
    };

    let failed = |why: &str| format!("failed to join discovery cluster ({why})");
    assert_eq!(ended("two", &endpoint), failed("discovery: size key not found"));
    size("bad", "some");
    assert_eq!(ended("bad", &endpoint), failed("discovery: size key is bad"));

    size("two", "2");
    // One endpoint that nobody listens at does not matter.
    let endpoints = format!("http://127.0.0.1:1,{endpoint}");
    let mut first = start(&ours, "a", a, "two", &endpoints);
    line(&mut first, "waiting for peers from discovery service");
    let mut second = start(&etcd, "b", b, "two", &endpoint);
    let (ours_says, etcd_says) = (line(&mut first, BEGINS), line(&mut second, ETCD_KNOWS));
    assert_eq!(ids(&ours_says)[0], ids(&etcd_says)[0], "they are one cluster");
    assert_eq!(
        ours_says["initial-cluster"],
        format!("a=http://127.0.0.1:{a},b=http://127.0.0.1:{b}").as_str()
    );
    assert_eq!(ended("two", &endpoint), failed("discovery: cluster is full"));

    size("patient", "2");
    let mut patient = start(&ours, "p", free_port(), "patient", &endpoint);
    line(&mut patient, "waiting for peers from discovery service");
    let stopped = patient.terminate();
    assert!(stopped.status.is_some(), "a signal ends it while it waits");

    let deaf = folder.path().join("deaf");
    fs::create_dir_all(&deaf).expect("our folder");
    let deaf = Setup::new(&etcd, &deaf).flags(["--enable-grpc-gateway=false"]).start();
    let deaf = deaf.unwrap_or_else(|ended| panic!("{}", ended.log));
    let said = ended("two", &deaf.endpoint());
    assert!(said.contains("has no JSON gateway (status 404)"), "{said}");
}

// ── DNS ─────────────────────────────────────────────────────────────────────────────────────────

/// Whether there is a DNS server to start, and it may be started. Says so where not; in CI it must.
fn has_dns(test: &str) -> bool {
    let is_root =
        fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    let missing = match Command::new("dnsmasq").arg("--version").output() {
        Ok(_) if is_root => return true,
        Ok(_) => "only root may give it a network of its own",
        Err(_) => "no dnsmasq; see tests/e2e/install-tools.sh",
    };
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{missing}");
    eprintln!("{test}: skipped, {missing}");
    false
}

/// Hosts `PREFIX0.ZONE`, `PREFIX1.ZONE` … at 127.0.0.1, 127.0.0.2 …, as members of ZONE.
fn zone(zone: &str, prefix: &str, hosts: usize) -> String {
    let host = |at: usize| {
        format!(
            "srv-host=_etcd-server._tcp.{zone},{prefix}{at}.{zone},2380\n\
             address=/{prefix}{at}.{zone}/127.0.0.{}\n",
            at + 1
        )
    };
    (0..hosts).map(host).collect()
}

/// What comes before a command that is to have these zones in DNS.
fn with_dns(folder: &Folder, zones: &str) -> Vec<PathBuf> {
    let (resolv, conf) = (folder.path().join("resolv.conf"), folder.path().join("dns.conf"));
    fs::write(&resolv, "nameserver 127.0.0.1\nsearch dc.test\n").expect("our folder");
    let rules = "no-resolv\nno-hosts\nuser=root\npid-file=\nlisten-address=127.0.0.1\n\
                 bind-interfaces\nlocal=/test/\n";
    fs::write(&conf, format!("{rules}{zones}")).expect("our folder");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/with-dns.sh");
    let words = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child"];
    words.iter().map(PathBuf::from).chain([script, resolv, conf]).collect()
}

#[test]
fn a_member_finds_its_cluster_in_dns() {
    let test = "a_member_finds_its_cluster_in_dns";
    if !has_dns(test) {
        return;
    }
    let folder = Folder::new("srv");
    let long = "a-name-that-is-long-enough-to-fill-a-datagram-";
    let zones =
        [zone("three.test", "m", 3), zone("many.test", long, 30), zone("in.dc.test", "s", 2)];
    let dns = with_dns(&folder, &zones.concat());
    let start = |program: &Path, name: &str, own: &str, domain: &str| {
        let data = folder.path().join(format!("{name}-{domain}"));
        fs::create_dir_all(&data).expect("our folder");
        Setup::without_cluster(program, &data)
            .wrapper(&dns)
            .flags([
                format!("--name={name}"),
                format!("--listen-peer-urls=http://{own}:2380"),
                format!("--initial-advertise-peer-urls=http://{own}:2380"),
                format!("--discovery-srv={domain}"),
            ])
            .spawn()
    };
    let ours = binary::ringleader();
    let learned = line(&mut start(&ours, "own", "127.0.0.2", "three.test"), BEGINS);
    assert_eq!(
        learned["initial-cluster"],
        "0=http://m0.three.test:2380,1=http://m2.three.test:2380,own=http://m1.three.test:2380"
    );
    if let Some(etcd) = binary::etcd("etcd", test) {
        let same = line(&mut start(&etcd, "etcd", "127.0.0.2", "three.test"), ETCD_KNOWS);
        assert_eq!(ids(&learned), ids(&same));
    }
    let many = line(&mut start(&ours, "own", "127.0.0.1", "many.test"), BEGINS);
    let many = many["initial-cluster"].as_str().expect("a text").split(',').count();
    assert_eq!(many, 30, "what does not fit a datagram comes by TCP");
    let searched = line(&mut start(&ours, "own", "127.0.0.1", "in"), BEGINS);
    let found = searched["initial-cluster"].as_str().expect("a text");
    assert!(found.contains("own=http://s0.in.dc.test:2380"), "by the search list: {found}");

    let none = start(&ours, "own", "127.0.0.1", "none.test").wait_end();
    assert_eq!(
        refusal(&none),
        "error setting up initial cluster: error querying DNS SRV records for _etcd-server-ssl \
         lookup _etcd-server-ssl._tcp.none.test on 127.0.0.1:53: no such host"
    );
    let foreign = start(&ours, "own", "127.0.0.9", "three.test").wait_end();
    assert_eq!(
        refusal(&foreign),
        "error setting up initial cluster: cannot find local etcd member \"own\" in SRV records"
    );
}
