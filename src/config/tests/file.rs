//! The YAML file.

use super::*;

#[test]
fn a_file_replaces_flags_and_variables() {
    let text = "name: a\nheartbeat-interval: 200\nelection-timeout: 2e3\npre-vote: no\nlog-outputs: [stdout, stderr]\n\
                listen-client-urls: http://10.0.0.1:1,http://10.0.0.1:2\nquota-backend-bytes: 8589934592\nunknown: {a: [1]}\n";
    for (line, env) in [
        (&["--config-file=conf.yaml", "--pre-vote", "--data-dir=d"][..], &["ETCD_DATA_DIR=e"][..]),
        (&[], &["ETCD_CONFIG_FILE=conf.yaml"]),
    ] {
        let (config, notices) = runs(start(line, env, text));
        assert_eq!(
            (config.name.as_str(), config.data_dir.to_str(), config.pre_vote),
            ("a", Some("a.etcd"), false)
        );
        assert_eq!(
            (config.heartbeat, config.election),
            (Duration::from_millis(200), Duration::from_secs(2))
        );
        assert_eq!(config.log.outputs, [log::Output::Stderr, log::Output::Stdout]);
        assert_eq!(
            config.listen_client.len(),
            2,
            "and advertise-client-urls keeps its default, as in etcd"
        );
        assert_eq!(config.quota_backend_bytes, 8 << 30);
        assert!(says(
            &notices,
            "unknown key in the configuration file is ignored",
            "conf.yaml:8:10"
        ));
    }
}

#[test]
fn a_file_says_things_in_yaml_s_ways() {
    assert_eq!(file(r#"{"name": "json"}"#).name, "json");
    assert_eq!(file("Name: a\n").name, "a");
    assert_eq!(file("name: null\nlisten-client-urls: ''\n").name, "default");
    assert_eq!(file("").name, "default");
    assert_eq!(file("name: a\n---\nname: b\n").name, "a");
    assert_eq!(file("warning-apply-duration: 5000000000\nname: a").name, "a");
    assert_eq!(file("log-outputs: stdout\n").log.outputs, [log::Output::Stdout]);
    assert_eq!(file("experimental-corrupt-check-time: 1\nname: a").name, "a");
}

#[test]
fn a_bad_file_is_answered_with_the_place() {
    for (text, place, what) in [
        ("name: [1\n", "conf.yaml:2:1: ", "expected ',' or ']'"),
        ("a: 1\n\tb: 2\n", "conf.yaml:1:4: ", "found a tab"),
        ("name: a\nname: b\n", "conf.yaml:2:1: ", "duplicated key"),
        ("- a\n", "conf.yaml:1:", "the file must be a mapping"),
        ("name: 123\n", "conf.yaml:1:7: ", "name: text is needed; write the value in quotes"),
        (
            "name: a\nheartbeat-interval: '5'\n",
            "conf.yaml:2:21: ",
            "heartbeat-interval: a whole number from 0",
        ),
        ("election-timeout: -1\n", "conf.yaml:1:19: ", "election-timeout: a whole number from 0"),
        ("election-timeout: 1.5\n", "conf.yaml:1:19: ", "election-timeout: a whole number from 0"),
        (
            "watch-progress-notify-interval: 5s\n",
            "conf.yaml:1:33: ",
            "a whole number of nanoseconds is needed",
        ),
        ("pre-vote: maybe\n", "conf.yaml:1:11: ", "pre-vote: true or false is needed"),
        (
            "listen-client-urls: foo\n",
            "conf.yaml:1:21: ",
            "URL scheme must be http, https, unix, or unixs: foo",
        ),
        ("feature-gates: Foo=true\n", "conf.yaml:1:16: ", "unrecognized feature gate: Foo"),
        ("initial-cluster-state: foo\n", "conf.yaml:1:24: ", r#""foo" is none of new, existing"#),
        (
            "client-transport-security: 5\n",
            "conf.yaml:1:28: ",
            "client-transport-security must be a mapping",
        ),
        ("log-outputs: [1]\n", "conf.yaml:1:14: ", "log-outputs: text is needed"),
        ("1: a\n", "conf.yaml:1:1: ", "a key must be text"),
    ] {
        let message = bad_file(text);
        assert!(message.starts_with(place) && message.contains(what), "{text:?}: {message}");
    }
    let (message, _) = bad_args(&["--config-file=/nope.yaml"]);
    assert!(message.starts_with("open /nope.yaml: "), "{message}");
    let long = format!("name: {}\n", "a".repeat(crate::limits::CONFIG_FILE_BYTES_MAX));
    assert!(bad_file(&long).contains("more than"));
}

#[test]
fn blocks_are_flags_and_are_refused_as_they_are() {
    for (text, key) in [
        (
            "client-transport-security: {cert-file: x}",
            "client-transport-security.cert-file at conf.yaml:1:40=\"x\": TLS",
        ),
        (
            "client-transport-security: {allowed-cn: [x]}",
            "client-transport-security.allowed-cn at ",
        ),
        (
            "peer-transport-security:\n  auto-tls: true\n",
            "peer-transport-security.auto-tls at conf.yaml:2:13=true: TLS",
        ),
        (
            "discovery-config: {client: {secure: {cert: x}}}",
            "discovery-config.client.secure.cert at ",
        ),
        ("socket-options: {reuse-port: true}", "socket-options.reuse-port at "),
    ] {
        let message = bad_file(text);
        assert!(message.contains(key) && message.contains("not built yet"), "{message}");
    }
    file("client-transport-security: {cert-file: '', client-cert-auth: false}\nsocket-options:\n");
    let (_, notices) = runs(start(&["--config-file=conf.yaml"], &[], "cert-file: x\n"));
    assert!(
        says(&notices, "unknown key in the configuration file is ignored", "cert-file"),
        "it is no key of etcd's file"
    );
}

#[test]
fn every_block_key_is_a_flag() {
    for (key, flag) in super::super::file::BLOCKS {
        assert!(table::find(flag).is_some(), "{key}");
    }
}
