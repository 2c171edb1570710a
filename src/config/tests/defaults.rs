//! What stands where nothing was typed, and the table itself.

use super::*;

#[test]
fn nothing_typed_is_a_member_alone() {
    let (config, notices) = runs(start(&[], &[], ""));
    let url = |text| Url::parse(text).expect("it is a URL");
    let expected = Config {
        name: "default".into(),
        data_dir: "default.etcd".into(),
        wal_dir: None,
        listen_client: vec![url("http://localhost:2379")],
        advertise_client: vec!["http://localhost:2379".into()],
        listen_peer: vec![url("http://localhost:2380")],
        advertise_peer: vec![url("http://localhost:2380")],
        initial_cluster: InitialCluster::Named("default=http://localhost:2380".into()),
        initial_cluster_token: "etcd-cluster".into(),
        initial_cluster_state: ClusterState::New,
        strict_reconfig_check: true,
        pre_vote: true,
        initial_election_tick_advance: true,
        max_learners: 1,
        snapshot_catchup_entries: 5_000,
        raft_read_timeout: Duration::from_secs(5),
        raft_write_timeout: Duration::from_secs(5),
        heartbeat: Duration::from_millis(100),
        election: Duration::from_secs(1),
        snapshot_count: 10_000,
        checkpoint: Checkpoint {
            log_bytes: crate::limits::CHECKPOINT_LOG_BYTES,
            interval: crate::limits::CHECKPOINT_INTERVAL,
            index_memory_bytes: None,
        },
        quota_backend_bytes: 2 << 30,
        max_txn_ops: crate::limits::TXN_OPS_MAX,
        max_request_bytes: crate::limits::REQUEST_BYTES_MAX,
        max_concurrent_streams: u32::MAX,
        watch_progress: Duration::from_secs(600),
        log: log::Options {
            level: Level::Info,
            format: log::Format::Json,
            outputs: vec![log::Output::Stderr],
        },
        shards: 0,
        cores: None,
        testing: Testing::default(),
    };
    assert_eq!(config, expected);
    assert!(says(&notices, "'data-dir' was empty; using default", "default.etcd"));
    assert!(
        notices
            .iter()
            .any(|notice| notice.message.starts_with("it isn't recommended to use default name"))
    );
    assert_eq!(notices.len(), 2, "{notices:?}");
}

/// `etcd_3_7_1_flags.tsv` is what Go's `flag` package says of etcd 3.7.1: name, type, default.
#[test]
fn the_table_has_every_flag_of_etcd_with_its_type_and_default() {
    for line in include_str!("etcd_3_7_1_flags.tsv").lines() {
        let [name, kind, default] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("{line:?} has three columns");
        };
        let flag = table::find(name).unwrap_or_else(|| panic!("no {name}"));
        assert_eq!(flag.default, default, "{name}");
        let fits = match kind {
            "bool" => flag.kind == Kind::Bool,
            "int" | "int64" => flag.kind == Kind::Int,
            "duration" => flag.kind == Kind::Duration,
            "string" => flag.kind == Kind::Text,
            "uint32" => flag.kind == Kind::Uint(u32::MAX.into()),
            "uint" | "uint64" => flag.kind == Kind::Uint(u64::MAX),
            "Strings" | "UniqueStrings" => flag.kind == Kind::List,
            // `*` is not a URL, so cors is words here.
            "UniqueURLs" => flag.kind == Kind::Urls || name == "cors",
            "featureGate" => flag.kind == Kind::Gates,
            "selective" => matches!(flag.kind, Kind::Choice(_)),
            other => panic!("{name} is {other}"),
        };
        assert!(fits, "{name}: {kind} is not {:?}", flag.kind);
    }
}

#[test]
fn the_table_agrees_with_itself() {
    let mut names = std::collections::BTreeSet::new();
    for flag in table::flags() {
        assert!(names.insert(flag.name), "{} stands twice", flag.name);
        settings::default_of(flag);
        let sentence = help::sentence(flag);
        assert!(sentence.ends_with('.') && !sentence.contains('\n'), "{}: {sentence:?}", flag.name);
        match flag.disposition {
            Disposition::Renamed(to) => {
                let to = table::find(to).expect("the new name is a flag");
                assert!(!matches!(to.disposition, Disposition::Renamed(_)), "{}", flag.name);
            }
            Disposition::Gate(gate) => assert!(gates::parse(&format!("{gate}=true")).is_ok()),
            Disposition::Works => assert!(!flag.help.is_empty(), "{}", flag.name),
            Disposition::Harmless(why) | Disposition::Refused(why) => assert!(why.len() > 10),
        }
    }
}
