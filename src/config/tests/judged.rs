//! What is refused, ignored or renamed, and how it is said.

use super::*;

/// A value that is not the flag's default, as typed.
fn another(flag: &table::Flag) -> String {
    match flag.kind {
        Kind::Bool => (flag.default != "true").to_string(),
        Kind::Anything => "x".into(),
        Kind::Int | Kind::Uint(_) => "7".into(),
        Kind::Duration => "7s".into(),
        Kind::Text | Kind::List => "x".into(),
        Kind::Choice(words) => {
            words.iter().find(|word| **word != flag.default).expect("two words").to_string()
        }
        Kind::Urls => "http://127.0.0.1:7".into(),
        Kind::Gates => "CompactHashCheck=true".into(),
    }
}

#[test]
fn a_refused_flag_is_named_with_its_value_and_the_reason() {
    for flag in table::flags() {
        let Disposition::Refused(why) = flag.disposition else { continue };
        let value = another(flag);
        let (message, code) = bad_args(&[&format!("--{}={value}", flag.name)]);
        assert!(message.starts_with(&format!("--{}=", flag.name)), "{message}");
        assert!(message.contains(&value) && message.ends_with(why) && code == 1, "{message}");
        runs(start(&[&format!("--{}={}", flag.name, flag.default)], &[], ""));
        if flag.kind == Kind::List {
            runs(start(&[&format!("--{}=", flag.name)], &[], ""));
        }
    }
    let (message, _) = bad_args(&["--cert-file=a", "--key-file=b"]);
    assert_eq!(message.lines().count(), 2, "all at once: {message}");
    assert!(bad_args(&["--auto-compaction-retention=1"]).0.contains("not built yet"));
    for off in ["0", "0s", "0h", ""] {
        args(&[&format!("--auto-compaction-retention={off}")]);
    }
}

#[test]
fn an_ignored_flag_is_said_with_the_reason() {
    for flag in table::flags() {
        let Disposition::Harmless(why) = flag.disposition else { continue };
        // These two have rules of their own.
        let value = match flag.name {
            "auto-compaction-mode" => "revision".into(),
            _ => another(flag),
        };
        let (_, notices) = runs(start(&[&format!("--{}={value}", flag.name)], &[], ""));
        assert!(
            says(&notices, "setting is accepted and ignored", &format!("--{}", flag.name)),
            "{}",
            flag.name
        );
        assert!(says(&notices, "setting is accepted and ignored", why), "{}", flag.name);
    }
    let (_, notices) = runs(start(&["--max-wals=5"], &[], ""));
    assert!(!says(&notices, "setting is accepted and ignored", ""), "the default asks for nothing");
    let (_, notices) = runs(start(&["--max-snapshots=5"], &[], ""));
    assert!(says(
        &notices,
        "--max-snapshots is deprecated in 3.6 and will be decommissioned in 3.8.",
        ""
    ));
}

#[test]
fn rules_for_ignored_flags_still_hold() {
    assert_eq!(
        bad_args(&["--auto-compaction-mode=foo"]),
        (r#"unknown auto-compaction-mode "foo""#.into(), 1)
    );
    assert_eq!(
        bad_args(&["--auto-compaction-mode="]),
        ("undefined auto-compaction-mode".into(), 1)
    );
    assert!(
        bad_args(&["--compact-hash-check-time=0"])
            .0
            .starts_with("--compact-hash-check-time must be >0")
    );
}

#[test]
fn an_old_name_means_the_new_one() {
    let (_, notices) = runs(start(&["--experimental-corrupt-check-time=5s"], &[], ""));
    assert!(says(&notices, "flag has a newer name", "--corrupt-check-time"));
    assert!(says(&notices, "setting is accepted and ignored", "--experimental-corrupt-check-time"));
    let (message, _) = bad_args(&["--experimental-memory-mlock"]);
    assert!(message.starts_with("--experimental-memory-mlock=true: "), "{message}");
    let (message, code) = bad_args(&["--experimental-compaction-batch-limit=x"]);
    assert!(message.contains("-experimental-compaction-batch-limit: parse error") && code == 2);
    assert_eq!(args(&["--log-output=stdout"]).log.outputs, [log::Output::Stdout]);
    // The one on the command line stands, whichever name either has.
    for (line, env) in [
        ("--log-output=stdout", "ETCD_LOG_OUTPUTS=stderr"),
        ("--log-outputs=stdout", "ETCD_LOG_OUTPUT=stderr"),
    ] {
        assert_eq!(runs(start(&[line], &[env], "")).0.log.outputs, [log::Output::Stdout]);
    }
}

#[test]
fn gates_are_judged_by_what_they_would_change() {
    for harmless in [
        "InitialCorruptCheck=true",
        "CompactHashCheck=true,FastLeaseKeepAlive=false",
        "AllBeta=false",
        "AllAlpha=false",
        "LeaseCheckpoint=false",
        " CompactHashCheck = t ",
        "",
    ] {
        args(&[&format!("--feature-gates={harmless}")]);
    }
    for (refused, gate) in [
        ("LeaseCheckpoint=true", "LeaseCheckpoint"),
        ("AllAlpha=true", "PriorityRequest"),
        ("StopGRPCServiceOnDefrag=1", "StopGRPCServiceOnDefrag"),
    ] {
        let (message, code) = bad_args(&[&format!("--feature-gates={refused}")]);
        assert!(message.contains(&format!("--feature-gates sets {gate}=true: ")), "{message}");
        assert!(message.contains("not built yet") && code == 1);
    }
    let (_, notices) = runs(start(
        &["--experimental-initial-corrupt-check"],
        &["ETCD_FEATURE_GATES=CompactHashCheck=true"],
        "",
    ));
    assert!(says(&notices, "flag has a newer name", "--feature-gates=InitialCorruptCheck=true"));
    assert!(says(&notices, "setting is accepted and ignored", "CompactHashCheck"));
    assert!(says(&notices, "setting is accepted and ignored", "InitialCorruptCheck"));
    let (message, _) = bad_args(&[
        "--experimental-initial-corrupt-check",
        "--feature-gates=InitialCorruptCheck=true",
    ]);
    assert!(message.contains("both set InitialCorruptCheck"), "{message}");
}
