//! What monitors and balancers ask over HTTP/1.1, on the port that gRPC is on.

#![allow(clippy::disallowed_methods, reason = "real processes take real time")]

use std::{thread, time::Duration};

use e2e::{
    binary,
    http::{Answer, ask},
    server::{Folder, Server, Setup},
};

fn start(folder: &Folder) -> Server {
    Setup::new(&binary::ringleader(), folder.path()).start().expect("it starts")
}

fn get(server: &Server, path: &str) -> Answer {
    ask(&server.endpoint(), "GET", path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn health_is_told_as_etcd_tells_it() {
    let folder = Folder::new("health");
    let server = start(&folder);
    let health = get(&server, "/health");
    assert_eq!(health.status, 200);
    assert_eq!(health.body.trim_end(), r#"{"health":"true","reason":""}"#);
    assert_eq!(get(&server, "/health?serializable=true").status, 200);
    assert_eq!(get(&server, "/health?exclude=NOSPACE").status, 200);
    let wrong = ask(&server.endpoint(), "POST", "/health").unwrap();
    assert_eq!((wrong.status, wrong.header("allow")), (405, Some("GET")));
}

#[test]
fn version_is_a_line_of_json() {
    let folder = Folder::new("version");
    let server = start(&folder);
    let mut version = get(&server, "/version");
    // A leader decides the cluster's version a moment after it was elected.
    for _ in 0..100 {
        if !version.body.contains("not_decided") {
            break;
        }
        thread::sleep(Duration::from_millis(100));
        version = get(&server, "/version");
    }
    assert_eq!(version.header("content-type"), Some("application/json"));
    let said: serde_json::Value = serde_json::from_str(&version.body).unwrap();
    assert_eq!((&said["etcdserver"], &said["etcdcluster"]), (&"3.7.1".into(), &"3.7.0".into()));
}

#[test]
fn probes_name_their_checks() {
    let folder = Folder::new("probes");
    let server = start(&folder);
    let plain = get(&server, "/livez");
    assert_eq!((plain.status, plain.body.trim_end()), (200, "ok"));
    assert_eq!(get(&server, "/livez?verbose").body, "[+]serializable_read ok\nok\n");
    let ready = get(&server, "/readyz?verbose");
    assert_eq!(ready.status, 200);
    let mut lines: Vec<_> = ready.body.lines().collect();
    assert_eq!(lines.pop(), Some("ok"));
    // etcd keeps its checks in a map; their order is nobody's.
    lines.sort_unstable();
    let checks = ["data_corruption", "linearizable_read", "non_learner", "serializable_read"];
    assert_eq!(lines, checks.map(|name| format!("[+]{name} ok")));
    assert_eq!(get(&server, "/livez/serializable_read").body.trim_end(), "ok");
    assert_eq!(get(&server, "/readyz?exclude=linearizable_read").status, 200);
    assert_eq!(get(&server, "/livez/nothing").status, 404);
}

/// The names that dashboards and alerts for etcd are made of.
#[test]
fn metrics_have_etcds_names() {
    let folder = Folder::new("metrics");
    let server = start(&folder);
    let metrics = get(&server, "/metrics");
    assert_eq!(metrics.status, 200);
    let kind = metrics.header("content-type").unwrap_or("none");
    assert!(kind.starts_with("text/plain"), "{kind}");
    let value = |name: &str| {
        let line = metrics.body.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
        line.unwrap_or_else(|| panic!("no {name} in\n{}", metrics.body)).to_owned()
    };
    assert_eq!(value("etcd_server_has_leader"), "1");
    assert_eq!(value("etcd_server_is_leader"), "1");
    for name in ["process_open_fds", "process_resident_memory_bytes", "process_start_time_seconds"]
    {
        assert!(value(name).parse::<f64>().unwrap() > 0.0, "{name}");
    }
    for line in metrics.body.lines().filter(|line| !line.starts_with('#')) {
        let (_, number) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
        assert!(number.parse::<f64>().is_ok(), "{line}");
    }
}

#[test]
fn what_is_not_there_is_not_found() {
    let folder = Folder::new("nothing");
    let server = start(&folder);
    assert_eq!(get(&server, "/nothing").status, 404);
}
