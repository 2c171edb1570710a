//! Scripts: `etcdctl` commands, what goes in, `---`, what came out.
//!
//! ```text
//!   # why this is asked
//!   put k
//!   < the value, on standard input
//!   ---
//!   > a line of standard output
//!   ! a line of standard error
//!   exit 1                              only where it is not 0
//! ```
//!
//! What differs from run to run is replaced before comparing: ports, times, sizes, raft's index and
//! term. Ids are not: they follow from the advertised peer URL, which is always the same.

use std::{
    fmt::Write as _,
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

/// A command and what it said.
#[derive(Debug, PartialEq)]
struct Step {
    /// Comment lines and the command, as written.
    head: Vec<String>,
    /// The words of the command.
    words: Vec<String>,
    /// Standard input.
    input: String,
    /// What came out, as written after `---`.
    output: String,
}

/// Runs a script's commands against a server, and returns it with what they said now.
///
/// # Panics
/// Where the script cannot be read or the program not be started.
pub fn replay(script: &str, etcdctl: &Path, endpoint: &str) -> String {
    let steps = parse(script).into_iter().map(|step| {
        let output = normal(&run(&step, etcdctl, endpoint), endpoint);
        Step { output, ..step }
    });
    render(&steps.collect::<Vec<_>>())
}

/// Compares a script file with what a server says now; with `UPDATE=1`, and where `update` is the
/// real etcd, rewrites it instead.
///
/// # Panics
/// With the first lines that differ.
pub fn check(path: &Path, now: &str) {
    let expected = fs::read_to_string(path).expect("the script is there");
    let step = |text: &str, at: usize| text.split("\n\n").nth(at).unwrap_or("nothing").to_owned();
    let differs =
        (0..).find(|at| step(&expected, *at) != step(now, *at) || step(now, *at) == "nothing");
    let at = differs.expect("a text ends");
    assert!(
        expected == now,
        "{}: expected\n\n{}\n\nbut got\n\n{}\n",
        path.display(),
        step(&expected, at),
        step(now, at)
    );
}

fn parse(script: &str) -> Vec<Step> {
    script.split("\n\n").map(str::trim).filter(|block| !block.is_empty()).map(step).collect()
}

fn step(block: &str) -> Step {
    let (asked, output) = block.split_once("\n---").unwrap_or((block, ""));
    let head: Vec<String> = asked.lines().map(str::to_owned).collect();
    let mut command = "";
    let mut input = String::new();
    for line in &head {
        if let Some(line) = line.strip_prefix('<') {
            input.push_str(line.strip_prefix(' ').unwrap_or(line));
            input.push('\n');
        } else if !line.starts_with('#') {
            assert!(command.is_empty(), "one command a step: {block}");
            command = line;
        }
    }
    let words = words(command);
    Step { input, words, output: output.trim_start_matches('\n').into(), head }
}

/// Words end at spaces; 'quotes' keep them together.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![];
    for (at, part) in line.split('\'').enumerate() {
        if at % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    words
}

fn run(step: &Step, etcdctl: &Path, endpoint: &str) -> String {
    let mut child = Command::new(etcdctl)
        .args(["--endpoints", endpoint])
        .args(&step.words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("etcdctl starts");
    let mut stdin = child.stdin.take().expect("it is piped");
    // A command that reads nothing may be gone already.
    stdin.write_all(step.input.as_bytes()).ok();
    drop(stdin);
    let done = child.wait_with_output().expect("it is our process");
    let mut said = String::new();
    let mut lines = |mark: char, text: &[u8]| {
        for line in String::from_utf8_lossy(text).lines() {
            // etcdctl's own log, with times and addresses of its memory.
            if !line.starts_with("{\"level\"") {
                let space = if line.is_empty() { "" } else { " " };
                writeln!(said, "{mark}{space}{}", line.trim_end()).expect("a string takes all");
            }
        }
    };
    lines('>', &done.stdout);
    lines('!', &done.stderr);
    match done.status.code() {
        Some(0) => {}
        Some(code) => writeln!(said, "exit {code}").expect("a string takes all"),
        None => said.push_str("killed\n"),
    }
    said.trim_end().into()
}

fn render(steps: &[Step]) -> String {
    let step = |step: &Step| format!("{}\n---\n{}", step.head.join("\n"), step.output);
    steps
        .iter()
        .map(step)
        .map(|text| text.trim_end().to_owned() + "\n")
        .collect::<Vec<_>>()
        .join("\n")
}

/// Names in front of numbers that differ from run to run, as `-w json`, `fields` and `simple` write
/// them. Of a time, its digits, point and unit are dropped.
const VARYING: [&str; 16] = [
    "\"raft_term\":",
    "\"raftIndex\":",
    "\"raftTerm\":",
    "\"raftAppliedIndex\":",
    "\"dbSize\":",
    "\"dbSizeInUse\":",
    "\"took\":\"",
    "took = ",
    "\"RaftTerm\" : ",
    "\"RaftIndex\" : ",
    "\"RaftAppliedIndex\" : ",
    "\"DBSize\" : ",
    "\"DBSizeInUse\" : ",
    "\"DBSizeInUse\" :",
    "\"Took\" : ",
    "\"Took\":",
];

fn normal(said: &str, endpoint: &str) -> String {
    let (_, port) = endpoint.rsplit_once(':').expect("an endpoint has a port");
    let mut said =
        said.replace(&format!(":{port}"), &format!(":{:-<width$}", "", width = port.len()));
    for name in VARYING {
        said = said.split(name).enumerate().fold(String::new(), |text, (at, part)| match at {
            0 => text + part,
            _ => text + name + "…" + after_number(part),
        });
    }
    said
}

fn after_number(text: &str) -> &str {
    let rest = text.trim_start_matches(|at: char| at.is_ascii_digit() || at == '.');
    let unit = ["ms", "µs", "s"].into_iter().find_map(|unit| rest.strip_prefix(unit));
    unit.unwrap_or(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_survives_being_read_and_written() {
        let text = "# why\nget 'a b' c\n< in\n---\n> out\n! err\nexit 1\n\nnext\n---\n";
        let steps = parse(text);
        assert_eq!(steps[0].words, ["get", "a b", "c"]);
        assert_eq!(steps[0].input, "in\n");
        assert_eq!(steps[0].output, "> out\n! err\nexit 1");
        assert_eq!(render(&steps), text);
    }

    #[test]
    fn ports_times_and_terms_vary() {
        let said = "127.0.0.1:12345 is healthy: took = 1.25ms \"raft_term\":7,\"revision\":5";
        let normal = normal(said, "127.0.0.1:12345");
        assert_eq!(normal, "127.0.0.1:----- is healthy: took = … \"raft_term\":…,\"revision\":5");
    }
}
