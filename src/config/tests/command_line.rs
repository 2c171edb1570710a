//! Go's `flag` package, as etcd's users know it.

use super::*;

#[test]
fn a_flag_is_typed_in_four_ways() {
    for line in [
        &["-name", "a"][..],
        &["--name", "a"],
        &["-name=a"],
        &["--name=a"],
        &["--name=b", "--name=a"],
        &["--name=a", "--"],
    ] {
        assert_eq!(args(line).name, "a", "{line:?}");
    }
    assert_eq!(args(&["--name=a=b"]).name, "a=b");
    assert_eq!(
        args(&["--name", "-x"]).name,
        "-x",
        "the next argument is the value, whatever it is"
    );
}

#[test]
fn a_bool_is_bare_or_has_go_words_after_an_equals_sign() {
    for word in ["1", "t", "T", "true", "TRUE", "True"] {
        assert!(args(&[&format!("--pre-vote={word}")]).pre_vote, "{word}");
    }
    for word in ["0", "f", "F", "false", "FALSE", "False"] {
        assert!(!args(&[&format!("--pre-vote={word}")]).pre_vote, "{word}");
    }
    assert!(args(&["--pre-vote=false", "--pre-vote"]).pre_vote);
    for word in ["", "yes", "tRUE", "2"] {
        let (message, code) = bad_args(&[&format!("--pre-vote={word}")]);
        assert!(
            message.starts_with(&format!(
                "invalid boolean value {word:?} for -pre-vote: parse error\n"
            ))
        );
        assert_eq!(code, 2);
    }
    assert_eq!(bad_args(&["--pre-vote", "false"]), (r#""false" is not a valid flag"#.into(), 1));
}

/// The first lines are those of etcd 3.7.1.
#[test]
fn a_line_that_cannot_be_understood_is_answered_with_what_is_allowed() {
    for (line, first, second) in [
        (&["--nope"][..], "flag provided but not defined: -nope", "--help lists"),
        (&["--nope=3"], "flag provided but not defined: -nope", "--help lists"),
        (&["-=x"], "bad flag syntax: -=x", ""),
        (&["---x"], "bad flag syntax: ---x", ""),
        (&["--name"], "flag needs an argument: -name", "--name takes text."),
        (
            &["--heartbeat-interval", "x"],
            r#"invalid value "x" for flag -heartbeat-interval: parse error"#,
            "--heartbeat-interval takes a whole number from 0 to",
        ),
        (
            &["--heartbeat-interval", "-1"],
            r#"invalid value "-1" for flag -heartbeat-interval: parse error"#,
            "--heartbeat-interval takes",
        ),
        (
            &["--heartbeat-interval=99999999999999999999999"],
            r#"invalid value "99999999999999999999999" for flag -heartbeat-interval: value out of range"#,
            "--heartbeat-interval takes",
        ),
        (
            &["--max-concurrent-streams=4294967296"],
            r#"invalid value "4294967296" for flag -max-concurrent-streams: value out of range"#,
            "--max-concurrent-streams takes",
        ),
        (
            &["--initial-cluster-state=foo"],
            r#"invalid value "foo" for flag -initial-cluster-state: invalid value"#,
            "--initial-cluster-state takes one of new, existing.",
        ),
        (
            &["--warning-apply-duration", "5"],
            r#"invalid value "5" for flag -warning-apply-duration: parse error"#,
            "--warning-apply-duration takes a duration such as",
        ),
        (
            &["--feature-gates=Foo=true"],
            r#"invalid value "Foo=true" for flag -feature-gates: unrecognized feature gate: Foo"#,
            "--feature-gates takes",
        ),
        (
            &["--feature-gates=Foo"],
            r#"invalid value "Foo" for flag -feature-gates: missing bool value for Foo"#,
            "--feature-gates takes",
        ),
        (
            &["--feature-gates=CompactHashCheck=maybe"],
            r#"invalid value "CompactHashCheck=maybe" for flag -feature-gates: invalid value of CompactHashCheck=maybe, err: strconv.ParseBool: parsing "maybe": invalid syntax"#,
            "--feature-gates takes",
        ),
        (
            &["--ringleader-shards=1025"],
            r#"invalid value "1025" for flag -ringleader-shards: value out of range"#,
            "--ringleader-shards takes a whole number from 0 to 1024.",
        ),
    ] {
        let (message, code) = bad_args(line);
        assert_eq!(code, 2, "{line:?}");
        let mut lines = message.lines();
        assert_eq!(lines.next(), Some(first), "{line:?}");
        assert!(lines.next().is_some_and(|line| line.starts_with(second)), "{message}");
        assert!(message.contains("\nUsage:\n"), "{message}");
    }
}

#[test]
fn what_is_no_flag_ends_the_flags() {
    for line in [&["foo"][..], &["--", "foo"], &["--name=a", "foo", "--nope"]] {
        assert_eq!(bad_args(line), (r#""foo" is not a valid flag"#.into(), 1), "{line:?}");
    }
    assert_eq!(bad_args(&["-"]), (r#""-" is not a valid flag"#.into(), 1));
}

#[test]
fn help_and_version_are_printed_and_nothing_else_happens() {
    for line in [&["-h"][..], &["--help"], &["--name=a", "-help", "--nope"]] {
        let Outcome::Print(text) = start(line, &[], "") else { panic!("{line:?} prints") };
        for (group, flags) in table::TABLE {
            assert!(text.contains(&format!("\n{group}:\n")));
            assert!(flags.iter().all(|flag| text.contains(&format!("\n  --{}", flag.name))));
        }
    }
    let Outcome::Print(text) = start(&["--version", "--cert-file=x"], &["ETCD_VERSION=1"], "")
    else {
        panic!("it prints")
    };
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "etcd Version: 3.7.1");
    assert!(lines[1].starts_with("Git SHA: ") && lines[2] == "Go Version: none (Rust)");
    assert!(lines[3].starts_with("Go OS/Arch: linux/"));
    assert_eq!(lines[4], format!("Ringleader Version: {RINGLEADER_VERSION}"));
}

#[test]
fn subcommands_are_refused_by_name() {
    for command in ["gateway", "grpc-proxy"] {
        let (message, code) = bad_args(&[command, "start"]);
        assert!(message.contains(command) && message.contains("not built yet") && code == 1);
    }
}

#[cfg(unix)]
#[test]
fn what_is_not_utf8_is_refused() {
    use std::os::unix::ffi::OsStringExt;
    let odd = || OsString::from_vec(b"--name=\xff".to_vec());
    let read = |_: &Path| Ok(String::new());
    let (message, _) = fails(load([odd()], [], &read, &|| None));
    assert!(message.contains("not UTF-8"), "{message}");
    let (message, _) = fails(load([], [("ETCD_NAME".into(), odd())], &read, &|| None));
    assert!(message.contains("ETCD_NAME") && message.contains("not UTF-8"), "{message}");
    runs(load([], [("OTHER".into(), odd())], &read, &|| None));
}

/// Cases of Go's `strconv` and `time` documentation.
#[test]
fn numbers_and_durations_are_go_s() {
    for (text, value) in [
        ("0", 0),
        ("10", 10),
        ("0x1F", 31),
        ("0b101", 5),
        ("0o17", 15),
        ("017", 15),
        ("1_000", 1000),
        ("0x_f", 15),
        ("0_7", 7),
        ("18446744073709551615", u64::MAX),
    ] {
        assert_eq!(Kind::Uint(u64::MAX).parse(text), Ok(value::Value::Uint(value)), "{text}");
    }
    for text in ["", "+1", "-1", "1_", "_1", "1__0", "0x", "08", "0b2", "1e3", "1.0", " 1", "١"] {
        assert!(Kind::Uint(u64::MAX).parse(text).is_err(), "{text}");
    }
    for (text, value) in [("-1", -1), ("+0x10", 16), ("-9223372036854775808", i64::MIN)] {
        assert_eq!(Kind::Int.parse(text), Ok(value::Value::Int(value)), "{text}");
    }
    for text in ["9223372036854775808", "-9223372036854775809", "--1", "-"] {
        assert!(Kind::Int.parse(text).is_err(), "{text}");
    }
    for (text, nanos) in [
        ("0", 0),
        ("5s", 5_000_000_000),
        ("1h15m30.918s", 4_530_918_000_000),
        ("-1.5h", -5_400_000_000_000),
        ("1µs", 1000),
        ("1μs", 1000),
        (".5ms", 500_000),
        ("1.s", 1_000_000_000),
        ("+3ns", 3),
        ("2562047h47m16.854775807s", i64::MAX),
    ] {
        assert_eq!(value::duration(text), Some(nanos), "{text}");
    }
    for text in [
        "",
        "-",
        "3",
        "s",
        ".s",
        "1x",
        "1 s",
        "2562047h47m16.854775808s",
        "9999999999999999999999999999999999999999h",
        "1h-1m",
    ] {
        assert_eq!(value::duration(text), None, "{text}");
    }
}
