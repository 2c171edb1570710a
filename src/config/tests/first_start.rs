//! What `--initial-cluster` has to say.

use super::*;

#[test]
fn a_new_member_has_etcd_s_ids() {
    let who = args(&[]).bootstrap().expect("the defaults are a cluster of one");
    assert_eq!((who.member.0, who.cluster.0), (10276657743932975437, 14841639068965178418));
    let line = [
        "--name=two",
        "--initial-advertise-peer-urls=http://127.0.0.1:33380,http://127.0.0.1:4444",
        "--initial-cluster=two=http://127.0.0.1:4444,two=http://127.0.0.1:33380",
    ];
    let who = args(&line).bootstrap().expect("it is a cluster of one");
    assert_eq!(who.member.to_string(), "74b00c7d49cd5de4");
    assert_eq!(who.peer_urls, ["http://127.0.0.1:33380", "http://127.0.0.1:4444"]);
    let same = [
        "--initial-advertise-peer-urls=http://[0:0::1]:1",
        "--initial-cluster=default=http://[::1]:1",
    ];
    args(&same).bootstrap().expect("an address is the same however it is written");
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
            "--initial-cluster has default=http://localhost:2381 but missing from --initial-advertise-peer-urls=http://localhost:2380",
        ),
        (
            &["--initial-advertise-peer-urls=http://127.0.0.1:2390"],
            "--initial-cluster has default=http://localhost:2380 but missing from --initial-advertise-peer-urls=http://127.0.0.1:2390",
        ),
        (
            &["--initial-advertise-peer-urls=http://localhost:2380,http://localhost:2390"],
            "--initial-advertise-peer-urls has http://localhost:2390 but missing from --initial-cluster=default=http://localhost:2380",
        ),
        (
            &["--initial-cluster=default=http://localhost:2380,default=http://localhost:2380"],
            "initial cluster default=http://localhost:2380,default=http://localhost:2380 has duplicate url",
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
            &["--initial-cluster=default=http://localhost:2380,b=http://b:2380"],
            r#"--initial-cluster="default=http://localhost:2380,b=http://b:2380" names 2 members: a cluster of more than one is not built yet"#,
        ),
        (
            &["--initial-cluster-state=existing"],
            "--initial-cluster-state=existing: joining a cluster is not built yet",
        ),
    ] {
        assert_eq!(args(line).bootstrap(), Err(sentence.into()), "{line:?}");
    }
}
