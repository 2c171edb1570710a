//! A log that is read, and one that nobody reads.

use super::{line::Line, *};
use crate::limits::{LOG_LIST_LEN_MAX, LOG_VALUE_BYTES_MAX};
use std::{
    io::{BufRead, BufReader, PipeReader, Read},
    sync::atomic::AtomicU32,
};

/// Long enough for any write that will ever finish.
const LONG: Duration = Duration::from_secs(60);

fn encode(format: Format, message: &str, fields: &[(&str, Value<'_>)]) -> String {
    let nanos = 1_767_366_245_123_456_789;
    Line { level: Level::Info, nanos, file: "/x/src/shard/accept.rs", line: 12, message, fields }
        .encode(format)
}

fn fields() -> [(&'static str, Value<'static>); 7] {
    [
        ("text", Value::Text("a \"b\"\\\n\u{1}é<")),
        ("int", Value::Int(-1)),
        ("uint", Value::Uint(u64::MAX)),
        ("float", Value::Float(0.5)),
        ("bool", Value::Bool(true)),
        ("span", Value::Span(Duration::from_millis(90_250))),
        ("list", Value::List(vec!["a", "b"])),
    ]
}

/// A log into a pipe, and the end to read it from.
fn piped() -> (Log, PipeReader) {
    let (reader, writer) = io::pipe().expect("the machine has pipes");
    let shared = Arc::new(Shared::default());
    let (near, far) = sync_channel(LOG_QUEUE_LINES_MAX);
    let file = File::from(std::os::fd::OwnedFd::from(writer));
    let writer = Writer { files: vec![file], format: Format::Json, shared: shared.clone() };
    thread::spawn(move || writer.run(&far));
    (Log { level: Level::Info, format: Format::Json, queue: Some(near), shared }, reader)
}

#[test]
fn a_json_line_is_as_zap_writes_it() {
    assert_eq!(
        encode(Format::Json, "hello", &fields()),
        concat!(
            r#"{"level":"info","ts":"2026-01-02T15:04:05.123456Z","caller":"shard/accept.rs:12","#,
            r#""msg":"hello","text":"a \"b\"\\\n\u0001é<","int":-1,"uint":18446744073709551615,"#,
            r#""float":0.5,"bool":true,"span":"1m30.25s","list":["a","b"]}"#,
            "\n"
        )
    );
}

#[test]
fn a_console_line_is_as_zap_writes_it() {
    assert_eq!(
        encode(Format::Console, "hello\nthere", &fields()[5..]),
        "2026-01-02T15:04:05.123456Z\tinfo\tshard/accept.rs:12\thello there\t\
         {\"span\": \"1m30.25s\", \"list\": [\"a\", \"b\"]}\n"
    );
    assert!(encode(Format::Console, "hello", &[]).ends_with("\thello\n"));
}

#[test]
fn a_long_value_is_cut_and_the_line_stays_json() {
    let long = "é".repeat(LOG_VALUE_BYTES_MAX);
    let many = vec!["x"; LOG_LIST_LEN_MAX + 3];
    let line = encode(Format::Json, "m", &[("a", Value::Text(&long)), ("b", Value::List(many))]);
    let parsed: serde_json::Value = serde_json::from_str(&line).expect("a line is JSON");
    assert!(parsed["a"].as_str().is_some_and(|a| a.ends_with("… 8192 more bytes")));
    assert_eq!(parsed["b"][LOG_LIST_LEN_MAX], "… 3 more");
}

#[test]
fn spans_are_written_as_go_writes_them() {
    for (nanos, text) in [
        (0, "0s"),
        (1, "1ns"),
        (1_100, "1.1µs"),
        (2_200_000, "2.2ms"),
        (300_000_000, "300ms"),
        (3_300_000_000, "3.3s"),
        (245_000_000_000, "4m5s"),
        (7_200_000_000_000, "2h0m0s"),
    ] {
        let line = encode(Format::Json, "", &[("s", Value::Span(Duration::from_nanos(nanos)))]);
        assert!(line.contains(&format!("\"s\":\"{text}\"")), "{line}");
    }
}

#[test]
fn days_become_dates() {
    for (seconds, date) in [
        (0, "1970-01-01T00:00:00"),
        (951_782_399, "2000-02-28T23:59:59"),
        (951_782_400, "2000-02-29T00:00:00"),
        (951_868_800, "2000-03-01T00:00:00"),
        (4_107_542_400, "2100-03-01T00:00:00"),
        (1_735_689_599, "2024-12-31T23:59:59"),
    ] {
        let line = Line {
            level: Level::Info,
            nanos: seconds * 1_000_000_000,
            file: "",
            line: 0,
            message: "",
            fields: &[],
        };
        let line = line.encode(Format::Console);
        assert!(line.starts_with(date), "{seconds}: {line}");
    }
}

#[test]
fn levels_are_named_as_zap_names_them() {
    assert_eq!(Level::named("debug"), Some(Level::Debug));
    assert_eq!(Level::named("FATAL"), Some(Level::Fatal));
    assert_eq!(Level::named(""), Some(Level::Info));
    assert_eq!(Level::named("Info"), None);
    assert_eq!(Level::named("trace"), None);
}

#[test]
fn lines_arrive_in_order_and_flush_waits_for_them() {
    let (log, reader) = piped();
    for n in 0..100u64 {
        log.write(Level::Info, file!(), line!(), "line", &[("n", n.to_value())]);
    }
    assert!(log.flush(LONG));
    drop(log);
    let lines: Vec<String> = BufReader::new(reader).lines().map(Result::unwrap).collect();
    assert_eq!(lines.len(), 100);
    for (n, line) in lines.iter().enumerate() {
        assert!(line.ends_with(&format!("\"n\":{n}}}")), "{line}");
    }
}

/// etcd issue 22214: a process whose standard error nobody reads.
#[test]
fn a_pipe_nobody_reads_stops_nothing_and_the_drops_are_told() {
    let (log, mut reader) = piped();
    let text = "x".repeat(1000);
    let sent = 3 * LOG_QUEUE_LINES_MAX as u64;
    for _ in 0..sent {
        log.write(Level::Info, file!(), line!(), "line", &[("text", text.to_value())]);
    }
    // It returns, though the pipe is full and the writer is stuck in it.
    assert!(!log.flush(Duration::from_millis(20)));
    assert!(log.shared.queued_bytes.load(SeqCst) <= LOG_QUEUE_BYTES_MAX);
    let dropped = log.shared.dropped_lines.load(SeqCst);
    assert!(dropped > 0 && dropped < sent);

    let all = thread::spawn(move || {
        let mut all = String::new();
        reader.read_to_string(&mut all).map(|_| all)
    });
    assert!(log.flush(LONG));
    drop(log);
    let all = all.join().expect("the reader does not panic").expect("lines are UTF-8");
    let (lines, told): (Vec<&str>, Vec<&str>) =
        all.lines().partition(|line| line.contains("\"line\""));
    let told: u64 = told
        .iter()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("a line is JSON"))
        .map(|line| line["dropped"].as_u64().expect("the line says how many"))
        .sum();
    assert_eq!((lines.len() as u64 + told, told), (sent, dropped));
}

#[test]
fn a_pipe_whose_reader_is_gone_stops_nothing() {
    let (log, reader) = piped();
    drop(reader);
    for _ in 0..10 {
        log.write(Level::Info, file!(), line!(), "line", &[]);
    }
    assert!(log.flush(LONG));
    assert_eq!(log.shared.dropped_lines.load(SeqCst), 10);
}

/// A directory of this test's own, which goes when it does.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("ringleader-log-{}-{}", std::process::id(), COUNT.fetch_add(1, SeqCst));
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&dir).expect("the machine has a temporary directory");
        Self(dir)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).expect("the directory is ours");
    }
}

#[test]
fn several_files_get_every_line_after_what_they_held() {
    let dir = Scratch::new();
    let paths = [dir.0.join("a"), dir.0.join("b")];
    std::fs::write(&paths[0], "before\n").expect("the directory is ours");
    let outputs = paths.iter().chain(&paths[..1]).cloned().map(Output::File).collect();
    let log = Log::open(&Options { level: Level::Warn, format: Format::Console, outputs })
        .expect("they open");
    assert!(!log.enabled(Level::Info) && log.enabled(Level::Warn));
    log.write(Level::Warn, file!(), line!(), "hello", &[]);
    assert!(log.flush(LONG));
    let [a, b] = paths.map(|path| std::fs::read_to_string(path).expect("it is there"));
    assert_eq!(a, format!("before\n{b}"));
    assert!(b.ends_with("\thello\n") && b.lines().count() == 1, "{b}");
}

#[test]
fn an_output_that_cannot_be_opened_is_named() {
    let outputs = vec![Output::File("/nowhere/at/all".into())];
    let error = Log::open(&Options { level: Level::Info, format: Format::Json, outputs }).err();
    let error = error.expect("there is no such directory").to_string();
    assert!(error.contains("/nowhere/at/all"), "{error}");
}

#[test]
fn no_outputs_is_a_log_that_is_off() {
    let log = Log::open(&Options { level: Level::Debug, format: Format::Json, outputs: vec![] })
        .expect("nothing to open");
    assert!(!log.enabled(Level::Fatal));
    assert!(log.flush(LONG));
}

/// Before `start` a line goes nowhere; the macros take every kind of value.
#[test]
fn the_macros_take_any_value() {
    crate::log::info!("m", "a" => 1, "b" => "x", "c" => String::new(), "d" => vec!["x"], "e" => LONG);
    crate::log::debug!("m");
    crate::log::warn!("m", "a" => true,);
    crate::log::error!("m", "a" => 1.5, "b" => 3usize);
    assert!(!enabled(Level::Fatal));
}
