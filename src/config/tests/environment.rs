//! `ETCD_*` variables.

use super::*;

#[test]
fn a_variable_stands_for_a_flag_that_was_not_typed() {
    let (config, notices) = runs(start(
        &["--name=a"],
        &["ETCD_DATA_DIR=d", "ETCD_PRE_VOTE=false", "ETCD_WAL_DIR=", "HOME=x"],
        "",
    ));
    assert_eq!(
        (config.name.as_str(), config.data_dir.to_str(), config.pre_vote),
        ("a", Some("d"), false)
    );
    assert!(says(&notices, "recognized and used environment variable", "ETCD_DATA_DIR"));
    assert!(
        says(&notices, "unrecognized environment variable", "ETCD_WAL_DIR="),
        "etcd says it of an empty one"
    );
}

#[test]
fn a_variable_that_a_flag_shadows_is_fatal() {
    for variable in ["ETCD_NAME=b", "ETCD_NAME="] {
        let (message, code) = fails(start(&["--name=a"], &[variable], ""));
        assert_eq!(message, format!("{}: ETCD_NAME", env::CONFLICT));
        assert_eq!(code, 1);
    }
    assert!(env::CONFLICT.ends_with("(either unset environment variable or disable flag))"));
}

#[test]
fn a_variable_with_a_bad_value_is_named() {
    let (message, code) = fails(start(&[], &["ETCD_HEARTBEAT_INTERVAL=y"], ""));
    assert_eq!(
        (message.as_str(), code),
        (r#"invalid value "y" for ETCD_HEARTBEAT_INTERVAL: parse error"#, 1)
    );
}

#[test]
fn unknown_variables_are_only_said() {
    let (_, notices) = runs(start(&[], &["ETCD_FOO=1", "ETCD_VERSION=3"], ""));
    assert!(says(&notices, "unrecognized environment variable", "ETCD_FOO=1"));
    assert!(says(&notices, "cannot set special environment variable", "ETCD_VERSION"));
}
