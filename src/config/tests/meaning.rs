//! etcd's rules, and what the flags come to.

use super::*;
use std::cell::Cell;

fn named(text: &str) -> InitialCluster {
    InitialCluster::Named(text.into())
}

/// The sentences are those of etcd 3.7.1, or ours where it says "not built".
#[test]
fn rules_that_are_broken_are_said_in_etcd_s_words() {
    for (line, sentence) in [
        (&["--heartbeat-interval=0"][..], "--heartbeat-interval must be >0 (set to 0ms)"),
        (&["--election-timeout=0"], "--election-timeout must be >0 (set to 0ms)"),
        (
            &["--election-timeout=100"],
            "--election-timeout[100ms] should be at least as 5 times as --heartbeat-interval[100ms]",
        ),
        (
            &["--heartbeat-interval=18446744073709551615"],
            "--election-timeout[1000ms] should be at least as 5 times as --heartbeat-interval[18446744073709551615ms]",
        ),
        (
            &["--election-timeout=60000"],
            "--election-timeout[60000ms] is too long, and should be set less than 50000ms",
        ),
        (
            &["--listen-client-urls=http://127.0.0.1:2379"],
            "--advertise-client-urls is required when --listen-client-urls is set explicitly",
        ),
        (
            &["--listen-client-urls= http://x:1", "--advertise-client-urls=http://a:1"],
            "expected IP in URL for binding (http://x:1)",
        ),
        (&["--listen-peer-urls=http://:1"], "expected IP in URL for binding (http://:1)"),
        (
            &["--listen-peer-urls=https://127.0.0.1:1"],
            "--listen-peer-urls=https://127.0.0.1:1: TLS is not built yet; use http",
        ),
        (
            &["--listen-peer-urls=unix:///tmp/s"],
            "--listen-peer-urls=unix:///tmp/s: listening on Unix sockets is not built yet",
        ),
        (
            &["--initial-advertise-peer-urls=http://:2380"],
            r#"--initial-advertise-peer-urls "http://:2380" must be "host:port" (unexpected empty host (http://:2380))"#,
        ),
        (
            &["--advertise-client-urls=http://:1"],
            r#"--advertise-client-urls "http://:1" must be in the format "host:port", "unix:/path/to/socket" or "unixs:/path/to/socket" (unexpected empty host (http://:1))"#,
        ),
        (&["--log-format=foo"], "unknown log format: foo, supported values json, console"),
        (
            &["--log-level=foo"],
            r#"unrecognized level: "foo"; --log-level takes debug, info, warn, error, panic or fatal"#,
        ),
        (&["--logger=foo"], r#"unknown logger option "foo""#),
        (&["--logger=capnslog"], "--logger=capnslog is removed in v3.5"),
        (
            &["--log-outputs=stderr,default"],
            r#"multi logoutput for "default" is not supported yet"#,
        ),
        (
            &["--max-request-bytes=33554433"],
            "--max-request-bytes=33554433: at most 33554432 is possible",
        ),
        (
            &["--ringleader-cores=0,3-1"],
            r#"--ringleader-cores="0,3-1": a list such as 0,2-5 is needed, of numbers below 1024"#,
        ),
        (
            &["--ringleader-cores=0-1", "--ringleader-shards=3"],
            r#"--ringleader-shards=3 asks for more cores than --ringleader-cores="0-1" allows"#,
        ),
        (
            &["--ringleader-checkpoint-bytes=1000"],
            "--ringleader-checkpoint-bytes=1000 is not within 1048576 to 17179869184 bytes",
        ),
        (
            &["--ringleader-checkpoint-interval=999ms"],
            "--ringleader-checkpoint-interval: at least 1s is needed",
        ),
        (
            &["--ringleader-index-memory-bytes=5"],
            "--ringleader-index-memory-bytes=5: 0 or at least 16777216 is needed",
        ),
    ] {
        assert_eq!(bad_args(line), (sentence.into(), 1), "{line:?}");
    }
}

#[test]
fn what_works_reaches_the_config() {
    let config = args(&[
        "--name=m",
        "--data-dir=/d",
        "--wal-dir=/w",
        "--snapshot-count=0",
        "--quota-backend-bytes=-1",
        "--max-txn-ops=0x80",
        "--max-request-bytes=10",
        "--max-concurrent-streams=7",
        "--strict-reconfig-check=false",
        "--pre-vote=false",
        "--initial-cluster-state=existing",
        "--initial-cluster-token=t",
        "--log-level=DEBUG",
        "--log-format=console",
        "--log-outputs=/b,stdout,/a",
        "--ringleader-shards=2",
        "--ringleader-cores=5,0,2-3,2",
        "--ringleader-checkpoint-bytes=2097152",
        "--ringleader-checkpoint-interval=5s",
        "--ringleader-index-memory-bytes=33554432",
        "--initial-cluster=",
        "--listen-client-urls=http://[::1]:2,HTTP://127.0.0.1:1,http://[::1]:2",
        "--advertise-client-urls=https://lb:443",
    ]);
    assert_eq!(
        (config.wal_dir, config.snapshot_count, config.quota_backend_bytes),
        (Some("/w".into()), 10_000, -1)
    );
    assert_eq!(
        (config.max_txn_ops, config.max_request_bytes, config.max_concurrent_streams),
        (128, 10, 7)
    );
    assert!(!config.strict_reconfig_check && !config.pre_vote);
    assert_eq!(
        (config.initial_cluster_state, config.initial_cluster),
        (ClusterState::Existing, named(""))
    );
    assert_eq!((config.log.level, config.log.format), (Level::Debug, log::Format::Console));
    assert_eq!(
        config.log.outputs,
        [log::Output::File("/a".into()), log::Output::File("/b".into()), log::Output::Stdout]
    );
    assert_eq!((config.shards, config.cores), (2, Some(vec![0, 2, 3, 5])));
    let (log_bytes, index_memory_bytes) = (2 << 20, Some(32 << 20));
    let checkpoint = Checkpoint { log_bytes, interval: Duration::from_secs(5), index_memory_bytes };
    assert_eq!(config.checkpoint, checkpoint);
    let listen: Vec<&str> = config.listen_client.iter().map(Url::as_str).collect();
    assert_eq!(listen, ["http://127.0.0.1:1", "http://[::1]:2"], "sorted, each once");
    assert_eq!(config.listen_client[1].bind_ip(), Ok(IpAddr::V6(std::net::Ipv6Addr::LOCALHOST)));
    assert_eq!(config.advertise_client, ["https://lb:443"], "what is in front of us may speak TLS");
}

#[test]
fn a_large_request_limit_is_warned_about() {
    let (_, notices) = runs(start(&["--max-request-bytes=10485761"], &[], ""));
    assert!(says(&notices, "exceeded recommended request limit", "10485761"));
}

#[test]
fn log_outputs_are_places() {
    assert_eq!(args(&["--log-outputs="]).log.outputs, [log::Output::Stderr]);
    assert_eq!(args(&["--log-outputs=stdout,/dev/null"]).log.outputs, []);
    let (config, notices) = runs(start(&["--log-outputs=systemd/journal"], &[], ""));
    assert_eq!(config.log.outputs, [log::Output::Stderr]);
    assert!(
        notices.iter().any(|notice| notice
            .message
            .starts_with("systemd/journal is written to standard error"))
    );
    assert!(
        bad_args(&["--log-outputs=systemd/journal,stdout"])
            .0
            .starts_with("running with systemd/journal but other")
    );
}

/// etcd 3.7.1, started with these, logged these under "starting an etcd server".
#[test]
fn listening_everywhere_advertises_this_machine() {
    let line = [
        "--name=zed",
        "--listen-client-urls=http://0.0.0.0:33379",
        "--advertise-client-urls=http://localhost:2379",
        "--listen-peer-urls=http://0.0.0.0:3380",
    ];
    let (config, notices) = runs(start(&line, &[], ""));
    assert_eq!(config.advertise_client, ["http://192.0.2.2:33379"]);
    assert_eq!(config.advertise_peer[0].as_str(), "http://192.0.2.2:3380");
    assert_eq!(config.initial_cluster, named("zed=http://192.0.2.2:3380"));
    assert!(says(&notices, "detected default host for advertise", "192.0.2.2"));

    let read = |_: &Path| Ok(String::new());
    let (config, _) = runs(load(line.map(OsString::from), [], &read, &|| None));
    assert_eq!(
        config.advertise_client,
        ["http://localhost:2379"],
        "without a route nothing is guessed"
    );
    assert_eq!(config.initial_cluster, named("zed=http://localhost:2380"));
}

#[test]
fn the_machine_is_asked_for_its_address_only_when_needed() {
    let asked = Cell::new(0);
    let read = |_: &Path| Ok(String::new());
    runs(load([OsString::from("--listen-peer-urls=http://127.0.0.1:1")], [], &read, &|| {
        asked.set(asked.get() + 1);
        None
    }));
    assert_eq!(asked.get(), 0);
    default_host();
}

#[test]
fn urls_are_read_as_etcd_reads_them() {
    for (text, error) in [
        (
            "127.0.0.1:2379",
            r#"parse "127.0.0.1:2379": first path segment in URL cannot contain colon"#,
        ),
        ("localhost:2379", "URL scheme must be http, https, unix, or unixs: localhost:2379"),
        ("", "URL scheme must be http, https, unix, or unixs: "),
        (":1", r#"parse ":1": missing protocol scheme"#),
        ("http://localhost", r#"URL address does not have the form "host:port": http://localhost"#),
        ("http:localhost:1", r#"URL address does not have the form "host:port": http:localhost:1"#),
        ("http://localhost:1/", "URL must not contain a path: http://localhost:1/"),
        ("http://localhost:abc", r#"parse "http://localhost:abc": invalid port ":abc" after host"#),
        ("http://::1:1", r#"URL address does not have the form "host:port": http://::1:1"#),
        ("http://[::1:1", r#"parse "http://[::1:1": missing ']' in host"#),
        ("http://[::1]", r#"URL address does not have the form "host:port": http://[::1]"#),
        ("http://a:65536", "URL port must be 0 to 65535: http://a:65536"),
        ("http://a:1?b", "URL must not contain a query or a fragment: http://a:1?b"),
        ("http://u@a:1", "URL must not contain a user: http://u@a:1"),
        ("http://a b:1", r#"parse "http://a b:1": invalid character in URL"#),
    ] {
        assert_eq!(Url::parse(text), Err(error.into()), "{text}");
    }
    let url = Url::parse(" HTTP://[fe80::1]:80 ").expect("it is a URL");
    assert_eq!(
        (url.scheme, url.host.as_str(), url.port, url.as_str()),
        (Scheme::Http, "fe80::1", 80, "http://[fe80::1]:80")
    );
    let socket = Url::parse("unix:///run/s").expect("it is a URL");
    assert_eq!(
        (socket.scheme, socket.host.as_str(), socket.as_str()),
        (Scheme::Unix, "/run/s", "unix:///run/s")
    );
}

#[test]
fn the_initial_cluster_comes_from_one_source() {
    let conflict = "multiple discovery or bootstrap flags are set. Choose one of \
                    \"initial-cluster\", \"discovery-endpoints\" or \"discovery-srv\"";
    for line in [
        &["--initial-cluster=default=http://localhost:2380", "--discovery-srv=a"][..],
        &["--initial-cluster=a=http://a:1", "--discovery-endpoints=a:1", "--discovery-token=t"],
        &["--discovery-srv=a", "--discovery-endpoints=a:1", "--discovery-token=t"],
    ] {
        assert_eq!(bad_args(line), (conflict.into(), 1), "{line:?}");
    }
    for (line, sentence) in [
        (
            &["--discovery-token=t"][..],
            "both --discovery-token and --discovery-endpoints must be set",
        ),
        (
            &["--discovery-endpoints=a:1"],
            "both --discovery-token and --discovery-endpoints must be set",
        ),
        (
            &["--discovery-endpoints=a:1, ", "--discovery-token=t"],
            "--discovery-endpoints must not contain empty endpoints",
        ),
        (
            &["--discovery-endpoints=https://a:1", "--discovery-token=t"],
            "--discovery-endpoints=https://a:1: host:port or http://host:port is needed; TLS is not built yet",
        ),
        (
            &["--discovery-insecure-transport=false"],
            "--discovery-insecure-transport=false: TLS is not built yet",
        ),
        (
            &["--discovery-user=a:b"],
            "--discovery-user=\"a:b\": a discovery service that asks for names is not built for yet",
        ),
    ] {
        assert_eq!(bad_args(line), (sentence.into(), 1), "{line:?}");
    }
    let srv = InitialCluster::Srv { domain: "a".into(), service: "b".into() };
    let line = ["--name=zed", "--discovery-srv=a", "--discovery-srv-name=b"];
    assert_eq!(args(&line).initial_cluster, srv);
    assert_eq!(args(&["--discovery-srv-name=b"]).initial_cluster, named(""), "as in etcd");
    let discovery = InitialCluster::Discovery(Discovery {
        token: "t".into(),
        endpoints: vec!["b:2".into(), "http://a:1".into()],
        dial_timeout: Duration::from_secs(2),
        request_timeout: Duration::from_millis(7),
    });
    let line = [
        "--discovery-endpoints=http://a:1,b:2",
        "--discovery-token=t",
        "--discovery-dial-timeout=0",
        "--discovery-request-timeout=7ms",
    ];
    assert_eq!(args(&line).initial_cluster, discovery, "no time at all is the default");
    let text = "discovery-config: {client: {endpoints: ['http://a:1', 'b:2'], request-timeout: \
                7000000}, token: t}\ninitial-cluster: default=http://localhost:2380\n";
    assert_eq!(file(text).initial_cluster, discovery, "in a file the default counts as not said");
    let both = bad_file("discovery-srv: a\ninitial-cluster: a=http://a:1\n");
    assert_eq!(both, conflict);
}

#[test]
fn timeouts_of_peer_connections_are_not_below_etcd_s() {
    let line = ["--raft-read-timeout=1s", "--raft-write-timeout=9s"];
    let (config, notices) = runs(start(&line, &[], ""));
    assert_eq!(config.raft_read_timeout, Duration::from_secs(5));
    assert_eq!(config.raft_write_timeout, Duration::from_secs(9));
    let message = "timeout of peer connections increased to minimum value";
    assert!(says(&notices, message, "--raft-read-timeout"));
}

#[test]
fn a_member_is_made_slow_for_tests_only() {
    let line = [
        "--testing-sync-delay=1.5ms",
        "--testing-sync-delay-tail=1e-3:10s",
        "--testing-peer-delay=20ms",
    ];
    let (config, notices) = runs(start(&line, &[], ""));
    let expected = Testing {
        sync_delay: Duration::from_micros(1_500),
        sync_delay_tail: (0.001, Duration::from_secs(10)),
        peer_delay: Duration::from_millis(20),
    };
    assert_eq!(config.testing, expected);
    let warned = |notice: &&Notice| notice.message.contains("for tests only");
    let warning = notices.iter().find(warned).expect("the log says so");
    let values: Vec<_> = warning.fields.iter().map(|(_, value)| value.as_str()).collect();
    assert_eq!((warning.level, &values[..]), (Level::Warn, &["1.5ms", "1e-3:10s", "20ms"][..]));
    let (config, notices) = runs(start(&["--testing-sync-delay=0"], &[], ""));
    assert_eq!(config.testing, Testing::default());
    assert!(!notices.iter().any(|notice| warned(&notice)));
}

#[test]
fn a_test_cannot_ask_for_any_delay() {
    for (flag, why) in [
        ("--testing-sync-delay=10.1s", "--testing-sync-delay=10.1s: a delay is from 0s to 10s"),
        ("--testing-peer-delay=-1ms", "--testing-peer-delay=-1ms: a delay is from 0s to 10s"),
    ] {
        assert_eq!(bad_args(&[flag]), (why.into(), 1));
    }
    for spec in
        ["0.1", ":1s", "0.1:", "0.1:1", "1.1:1s", "-0.1:1s", "NaN:1s", "1:11s", "1:-1s", "x:1s"]
    {
        let (said, code) = bad_args(&[&format!("--testing-sync-delay-tail={spec}")]);
        let named = format!("--testing-sync-delay-tail={spec:?}: P:DURATION is needed");
        assert!(said.starts_with(&named) && code == 1, "{said}");
    }
    for (spec, tail) in [("0:1s", (0.0, Duration::from_secs(1))), ("1:0", (1.0, Duration::ZERO))] {
        let config = args(&[&format!("--testing-sync-delay-tail={spec}")]);
        assert_eq!(config.testing.sync_delay_tail, tail);
    }
}
