//! What the flags have to say, and what those say who run already.

use super::{
    http::{self, Answer, Patience},
    *,
};
use crate::config::{Outcome, load};
use std::{
    cell::Cell,
    ffi::OsString,
    io::{Read, Write},
    net::{IpAddr, TcpListener},
    rc::Rc,
    thread,
    time::Duration,
};

/// What this start line comes to.
pub fn config(line: &[&str]) -> Config {
    let read = |_: &std::path::Path| Ok(String::new());
    match load(line.iter().map(OsString::from), [], &read, &|| None) {
        Outcome::Run(config, _) => *config,
        other => panic!("it should run: {other:?}"),
    }
}

/// A world without names: none is found, and none is tried again.
fn no_names() -> Names {
    Names::new(|host| Err(format!("lookup {host}: no such host")), || false)
}

/// Who becomes of a start line where no name is found.
fn begun(line: &[&str]) -> Result<Newborn, String> {
    let config = config(line);
    let map = initial_cluster(&config)
        .map_err(|error| format!("error setting up initial cluster: {error}"))?;
    check_reachable(&map, &config.name)?;
    begin(&config, map, &no_names())
}

#[test]
fn a_new_member_has_etcd_s_ids() {
    let who = begun(&[]).expect("the defaults are a cluster of one");
    assert_eq!((who.member.0, who.cluster.0), (10276657743932975437, 14841639068965178418));
    let line = [
        "--name=two",
        "--initial-advertise-peer-urls=http://127.0.0.1:33380,http://127.0.0.1:4444",
        "--initial-cluster=two=http://127.0.0.1:4444,two=http://127.0.0.1:33380",
    ];
    let who = begun(&line).expect("it is a cluster of one");
    assert_eq!(who.member.to_string(), "74b00c7d49cd5de4");
    assert_eq!(who.members.len(), 1);
    assert_eq!(who.members[0].peer_urls, ["http://127.0.0.1:33380", "http://127.0.0.1:4444"]);
    let same = [
        "--initial-advertise-peer-urls=http://[0:0::1]:1",
        "--initial-cluster=default=http://[::1]:1",
    ];
    begun(&same).expect("an address is the same however it is written");
}

/// Ids of a real etcd 3.7.1 that was started with this cluster.
#[test]
fn all_members_of_a_new_cluster_compute_the_same() {
    let cluster =
        "--initial-cluster=a=http://127.0.0.1:1,b=http://127.0.0.1:2,c=http://127.0.0.1:3";
    let of = |name: &str, port: u16| {
        let urls = format!("--initial-advertise-peer-urls=http://127.0.0.1:{port}");
        begun(&[&format!("--name={name}"), &urls, cluster, "--initial-cluster-token=t"])
            .expect("it is a cluster of three")
    };
    let (a, b) = (of("a", 1), of("b", 2));
    assert_eq!((a.cluster, &a.members), (b.cluster, &b.members));
    assert_eq!(a.cluster.to_string(), "241e8354a38f3f00");
    assert_eq!(
        (a.member.to_string().as_str(), b.member.to_string().as_str()),
        ("3ec7a265f1d844c1", "59b5a05f189a3c92")
    );
    let names: Vec<_> = a.members.iter().map(|member| (member.name.as_str(), member.id)).collect();
    assert!(names.contains(&("a", a.member)) && names.contains(&("b", b.member)), "{names:?}");
    assert!(a.members.is_sorted_by_key(|member| member.id));
}

#[test]
fn a_cluster_that_does_not_fit_is_said_in_etcd_s_words() {
    for (line, sentence) in [
        (
            &["--initial-cluster=a=http://localhost:2380"][..],
            r#"couldn't find local name "default" in the initial cluster configuration"#,
        ),
        (
            &["--initial-cluster="],
            r#"couldn't find local name "default" in the initial cluster configuration"#,
        ),
        (&["--name="], r#"couldn't find local name "" in the initial cluster configuration"#),
        (
            &["--initial-cluster=default=http://localhost:2381"],
            r#"--initial-cluster has default=http://localhost:2381 but missing from --initial-advertise-peer-urls=http://localhost:2380 (resolved urls: "http://localhost:2380" != "http://localhost:2381")"#,
        ),
        (
            &["--initial-advertise-peer-urls=http://me:2390"],
            r#"--initial-cluster has default=http://localhost:2380 but missing from --initial-advertise-peer-urls=http://me:2390 (failed to resolve "http://me:2390" (lookup me: no such host))"#,
        ),
        (
            &["--initial-advertise-peer-urls=http://localhost:2380,http://localhost:2390"],
            "--initial-advertise-peer-urls has http://localhost:2390 but missing from --initial-cluster=default=http://localhost:2380,default=http://localhost:2390",
        ),
        (
            &["--initial-cluster=default=http://localhost:2380,default=http://localhost:2380"],
            r#"failed to resolve http://localhost:2380 to match --initial-cluster=default=http://localhost:2380 (len(["http://localhost:2380"]) != len(["http://localhost:2380" "http://localhost:2380"]))"#,
        ),
        (
            &["--initial-cluster=default=http://localhost:2380,b=http://localhost:2380"],
            "initial cluster b=http://localhost:2380,default=http://localhost:2380 has duplicate url",
        ),
        (
            &["--initial-cluster=default=ftp://localhost:2380"],
            "error setting up initial cluster: URL scheme must be http, https, unix, or unixs: ftp://localhost:2380",
        ),
        (
            &["--initial-cluster=default"],
            "error setting up initial cluster: URL scheme must be http, https, unix, or unixs: ",
        ),
        (
            &["--initial-cluster=default=http://localhost:2380,b=https://b:2380"],
            "the initial cluster has only https://b:2380 for member b: members are reached by http, because TLS and sockets between them are not built yet",
        ),
    ] {
        assert_eq!(begun(line), Err(sentence.into()), "{line:?}");
    }
}

#[test]
fn urls_are_the_same_when_they_lead_to_the_same_place() {
    let tries = Rc::new(Cell::new(0));
    let seen = Rc::clone(&tries);
    let find = move |host: &str| match host {
        "late" if seen.get() < 2 => Err("lookup late: no such host".into()),
        "late" | "here" => Ok(vec![IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 9])]),
        other => other.parse().map(|ip| vec![ip]).map_err(|_| format!("lookup {other}: nothing")),
    };
    let waits = Rc::clone(&tries);
    let names = Names::new(find, move || {
        waits.set(waits.get() + 1);
        waits.get() < 5
    });
    let urls = |text: &str| Url::parse_list(text).expect("these are URLs");
    let same = |a, b| names.same(&urls(a), &urls(b));
    assert_eq!(same("http://here:1", "http://10.0.0.1:1"), Ok(()));
    assert_eq!(same("http://10.0.0.1:1,http://b:2", "http://b:2,http://10.0.0.1:1"), Ok(()));
    assert_eq!(tries.get(), 0, "what is written alike is not looked up");
    assert_eq!(same("http://late:1", "http://here:1"), Ok(()));
    assert_eq!(tries.get(), 2, "a name that comes later is waited for");
    assert_eq!(
        same("http://here:1", "http://10.0.0.1:2"),
        Err(r#"resolved urls: "http://10.0.0.1:1" != "http://10.0.0.1:2""#.into())
    );
    let scheme = same("https://here:1", "http://here:1");
    assert!(scheme.is_err(), "another scheme is another place");
    assert_eq!(
        same("http://gone:1", "http://here:1"),
        Err(r#"failed to resolve "http://gone:1" (lookup gone: nothing)"#.into())
    );
}

// ── those who run ───────────────────────────────────────────────────────────────────────────────

fn answer(text: &str) -> Answer {
    http::parse(text.as_bytes(), true).expect("it is HTTP").expect("it is whole")
}

/// A server that says the same to everybody.
fn saying(text: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let port = listener.local_addr().expect("it is bound").port();
    thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.expect("a client");
            let mut asked = [0; 1024];
            assert!(socket.read(&mut asked).expect("a request") > 0);
            // A client that has read enough may be gone.
            socket.write_all(text.as_bytes()).ok();
        }
    });
    port
}

const TWO: &str = r#"HTTP/1.1 200 OK
X-Etcd-Cluster-Id: 7e27652122e8b2ae

[{"id":1,"peerURLs":["http://127.0.0.1:1"],"name":"a","clientURLs":["http://x:1"]},{"id":18446744073709551615,"peerURLs":["http://127.0.0.1:2"],"name":"","isLearner":true}]
"#;

#[test]
fn members_are_read_as_etcd_writes_them() {
    let remote = join::remote(&answer(TWO)).expect("etcd writes them so");
    assert_eq!(
        remote.to_string(),
        "{ClusterID:7e27652122e8b2ae Members:[&{ID:1 RaftAttributes:{PeerURLs:[http://127.0.0.1:1] \
         IsLearner:false} Attributes:{Name:a ClientURLs:[http://x:1]}} &{ID:ffffffffffffffff \
         RaftAttributes:{PeerURLs:[http://127.0.0.1:2] IsLearner:true} Attributes:{Name: \
         ClientURLs:[]}}] RemovedMemberIDs:[]}"
    );
    for (head, body, why) in [
        ("X-Etcd-Cluster-ID: x", "[]", "failed to parse cluster ID \"x\""),
        ("A: b", "[]", "failed to parse cluster ID \"\""),
        ("X-Etcd-Cluster-ID: 1", "404 page not found", "status 200, no list of members: "),
        ("X-Etcd-Cluster-ID: 1", "{}", "status 200, no list of members: "),
        ("X-Etcd-Cluster-ID: 1", "[{}]", "a member in the list is not as etcd writes it"),
        ("X-Etcd-Cluster-ID: 1", r#"[{"id":1,"peerURLs":1}]"#, "a member in the list is not"),
    ] {
        let said = join::remote(&answer(&format!("HTTP/1.1 200 OK\n{head}\n\n{body}")));
        assert!(said.as_ref().is_err_and(|said| said.starts_with(why)), "{body}: {said:?}");
    }
}

/// What a member called `me` at 127.0.0.1:2 is told where one at this port runs.
fn joined_by(port: u16, more: &[&str]) -> Result<Newborn, String> {
    let cluster = format!("--initial-cluster=me=http://127.0.0.1:2,a=http://127.0.0.1:{port}");
    let mut line = vec!["--name=me", "--initial-cluster-state=existing", &cluster];
    line.extend(more);
    let config = config(&line);
    let map = initial_cluster(&config).expect("it is a cluster");
    join::join(&config, &map, &no_names())
}

#[test]
fn who_cannot_join_is_told_so_in_etcd_s_words() {
    const NONE: &str = "HTTP/1.1 200 OK\r\nX-Etcd-Cluster-ID: 1\r\n\r\n[]";
    const ONE: &str = "HTTP/1.1 200 OK\r\nX-Etcd-Cluster-ID: 1\r\n\r\n[{\"id\":1}]";
    let unheard = "cannot fetch cluster info from peer urls: could not retrieve cluster information \
                   from the given URLs";
    assert_eq!(joined_by(1, &[]), Err(unheard.into()), "nobody listens on port 1");
    assert_eq!(joined_by(saying("HTTP/1.1 200 OK\r\n\r\nx"), &[]), Err(unheard.into()));
    assert_eq!(joined_by(saying("SSH-2.0-x\r\n"), &[]), Err(unheard.into()));
    assert_eq!(
        joined_by(saying(NONE), &[]),
        Err("cannot fetch cluster info from peer urls: failed to get raft cluster member(s) from \
             the given URLs"
            .into())
    );
    let unequal = joined_by(saying(ONE), &[]).expect_err("it has one member, and should have two");
    assert!(unequal.ends_with("RemovedMemberIDs:[]}: member count is unequal"), "{unequal}");
    let other = joined_by(saying(TWO), &[]).expect_err("no member is at its port");
    assert!(other.starts_with("error validating peerURLs {ClusterID:7e27652122e8b2ae"), "{other}");
    assert!(
        other.contains("PeerURLs: no match found for existing member (1, [http://127.0.0.1:1])")
    );
    let config = config(&["--initial-cluster=a=http://a:1", "--initial-cluster-state=existing"]);
    let map = initial_cluster(&config).expect("it is a cluster");
    assert_eq!(
        join::join(&config, &map, &no_names()),
        Err(r#"couldn't find local name "default" in the initial cluster configuration"#.into())
    );
}

#[test]
fn a_joining_member_takes_the_ids_that_belong_to_the_urls() {
    let remote = join::remote(&answer(TWO)).expect("etcd writes them so");
    let map = UrlsMap::parse("me=http://127.0.0.1:2,b=http://127.0.0.1:1").expect("a map");
    let ids = join::assign(&map, remote.members(), &no_names()).expect("they are the same");
    assert_eq!(ids, [("b".into(), MemberId(1)), ("me".into(), MemberId(u64::MAX))]);
    let three = UrlsMap::parse("a=http://a:1,b=http://b:1,c=http://c:1").expect("a map");
    let unequal = join::assign(&three, remote.members(), &no_names());
    assert_eq!(unequal, Err("member count is unequal".into()));
}

#[test]
fn a_cluster_s_version_is_ours_or_older() {
    let fits = |versions: &[&str], downgrade| {
        join::fits(&versions.iter().map(ToString::to_string).collect::<Vec<_>>(), downgrade)
    };
    assert!(fits(&["3.7.0"], false) && fits(&["3.5.0", "not_decided"], false));
    assert!(!fits(&[], false), "somebody must say it");
    assert!(!fits(&["not_decided"], false));
    assert!(!fits(&["3.7.0", "3.8.0"], false) && !fits(&["2.3.0"], false));
    assert!(!fits(&["3.7.0"], true), "a cluster on its way down takes those it comes from");
    assert!(fits(&["3.8.0"], true));
}

#[test]
fn a_member_that_was_there_before_is_known_by_its_client_urls() {
    let url = |port: u16| Url::of(crate::config::Scheme::Http, IpAddr::from([127, 0, 0, 1]), port);
    let (knows, silent) = (url(saying(TWO)), url(1));
    assert!(join::has_been_here(MemberId(1), &[silent.clone(), knows.clone()]));
    assert!(!join::has_been_here(MemberId(u64::MAX), &[knows]), "added, and never started");
    assert!(!join::has_been_here(MemberId(1), &[silent]));
}

// ── HTTP ────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn an_answer_is_read_however_its_end_is_said() {
    let body = |text: &str| {
        let answer = http::parse(text.as_bytes(), true).expect("it is HTTP");
        answer.map(|answer| String::from_utf8(answer.body).expect("it is text"))
    };
    let head = "HTTP/1.1 200 OK\r\n";
    assert_eq!(body(&format!("{head}\r\nall of it")).as_deref(), Some("all of it"));
    assert_eq!(body(&format!("{head}Content-Length: 3\r\n\r\nabcd")).as_deref(), Some("abc"));
    let chunks = "Transfer-Encoding: Chunked\r\n\r\n3\r\nabc\r\n1;x=y\r\nd\r\n0\r\n\r\n";
    assert_eq!(body(&format!("{head}{chunks}")).as_deref(), Some("abcd"));
    assert_eq!(body("HTTP/1.1 204 x\r\n\r\n").as_deref(), Some(""));
    let cut = [
        &head[..9],
        &format!("{head}Content-Length: 3\r\n\r\nab"),
        &format!("{head}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"),
        &format!("{head}Transfer-Encoding: chunked\r\n\r\n3\r\nab"),
    ];
    cut.into_iter().for_each(|cut| assert_eq!(body(cut), None, "{cut:?}"));
    let waits = http::parse(format!("{head}\r\nmore").as_bytes(), false);
    assert_eq!(waits, Ok(None), "without a length it goes on until the connection ends");
    for wrong in [
        "HTTP/2 200\r\n\r\n",
        &format!("{head}Content-Length: 99999999999\r\n\r\n"),
        &format!("{head}Content-Length: -1\r\n\r\n"),
        &format!("{head}Transfer-Encoding: gzip\r\n\r\n"),
        &format!("{head}Transfer-Encoding: chunked\r\n\r\nx\r\n"),
        &format!("{head}Transfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n"),
        &format!("{head}Transfer-Encoding: chunked\r\n\r\nffffffffff\r\n"),
    ] {
        assert!(http::parse(wrong.as_bytes(), true).is_err(), "{wrong:?}");
    }
}

#[test]
fn who_does_not_answer_or_does_not_end_is_left() {
    let url = |port: u16| Url::of(crate::config::Scheme::Http, IpAddr::from([127, 0, 0, 1]), port);
    let ask = |port| http::get(&url(port), "/members", Patience::of(Duration::from_millis(50)));
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let why = ask(silent.local_addr().expect("it is bound").port()).expect_err("it says nothing");
    assert!(why.ends_with("no answer within 50ms"), "{why}");
    let why = ask(saying("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab")).expect_err("it is cut");
    assert!(why.contains("ended before the answer did") || why.contains("reset"), "{why}");
    let long: &'static str =
        Box::leak(format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(2 << 20)).into());
    let patient = Patience::of(Duration::from_secs(20));
    let why = http::get(&url(saying(long)), "/", patient).expect_err("it is too long");
    assert!(why.contains("more than 1048576 bytes"), "{why}");
}

#[test]
fn no_bytes_of_an_http_server_make_it_panic() {
    let valid = [
        TWO.replace('\n', "\r\n"),
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n".into(),
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc".into(),
    ];
    crate::fuzz::fuzz("answers of HTTP servers", |dice| {
        let mut bytes = dice.pick(&valid).clone().into_bytes();
        dice.spoil(&mut bytes);
        if let Ok(Some(answer)) = http::parse(&bytes, dice.once_in(2)) {
            drop(join::remote(&answer));
        }
    });
}
