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
//! A command may run beside those that follow it:
//!
//! ```text
//!   server --a-flag          the first step of a script may name flags for the server
//!   w& watch -i              starts it under the name w
//!   await w 3                waits until it has said three lines more; what `<` holds, it hears first
//!   interrupt w              Ctrl-C, and all it said since
//!   close w                  its input ends; all it said since
//!   end w                    waits for it to end by itself; all it said since
//!   kill w                   kill -9
//!   until 4 get k --prefix   asks until four lines are said
//! ```
//!
//! What differs from run to run is replaced before comparing: ports, times, sizes, raft's index and
//! term. The ids of member and cluster are not: they follow from the advertised peer URL, which is
//! always the same. A lease's id is `L1` in what is said and in what is asked, the next one's `L2`.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use crate::job::Job;

/// A server chooses of so many that what is smaller was chosen by the script, or is no lease.
const LEASE_MIN: u64 = 1 << 44;
/// How long a question of `until` is repeated.
const UNTIL_MAX: Duration = Duration::from_secs(15);

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

/// The flags that a script wants its server to have.
pub fn flags(script: &str) -> Vec<String> {
    let first = parse(script).into_iter().next().map(|step| step.words).unwrap_or_default();
    match first.split_first() {
        Some((word, flags)) if word == "server" => flags.into(),
        _ => vec![],
    }
}

/// Runs a script's commands against a server, and returns it with what they said now.
///
/// # Panics
/// Where the script cannot be read or the program not be started.
pub fn replay(script: &str, etcdctl: &Path, endpoint: &str) -> String {
    let mut run = Run {
        etcdctl: etcdctl.into(),
        endpoint: endpoint.into(),
        jobs: BTreeMap::new(),
        leases: vec![],
    };
    let steps = parse(script).into_iter().map(|step| {
        let output = run.step(&step);
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

/// A script on its way.
struct Run {
    etcdctl: PathBuf,
    endpoint: String,
    /// What runs beside, by name.
    jobs: BTreeMap<String, Job>,
    /// Ids of leases in the order in which they were first heard of.
    leases: Vec<u64>,
}

impl Run {
    fn step(&mut self, step: &Step) -> String {
        let words: Vec<&str> = step.words.iter().map(String::as_str).collect();
        let said = match *words {
            ["server", ..] => vec![],
            ["await", name, count] => {
                let input = self.ids(&step.input);
                let job = self.jobs.get_mut(name).expect("it was started");
                job.hear(&input);
                job.lines(count.parse().expect("a number of lines"))
            }
            ["interrupt", name] => {
                let mut job = self.take(name);
                job.interrupt();
                ended(job)
            }
            ["close", name] => {
                let mut job = self.take(name);
                job.close();
                ended(job)
            }
            ["end", name] => ended(self.take(name)),
            ["kill", name] => {
                self.take(name).kill();
                vec![]
            }
            ["until", count, ref command @ ..] => {
                self.until(count.parse().expect("a number of lines"), command)
            }
            [name, ref command @ ..] if name.ends_with('&') => {
                let mut job = self.start(command);
                job.hear(&self.ids(&step.input));
                self.jobs.insert(name.trim_end_matches('&').into(), job);
                vec![]
            }
            ref command => self.run(command, &step.input),
        };
        self.normal(said.join("\n").trim_end())
    }

    fn take(&mut self, name: &str) -> Job {
        self.jobs.remove(name).expect("it was started")
    }

    fn start(&self, command: &[&str]) -> Job {
        let endpoint = ["--endpoints".to_owned(), self.endpoint.clone()];
        let words = command.iter().map(|word| self.ids(word));
        Job::start(&self.etcdctl, &endpoint.into_iter().chain(words).collect::<Vec<_>>())
    }

    fn run(&self, command: &[&str], input: &str) -> Vec<String> {
        let mut job = self.start(command);
        job.hear(&self.ids(input));
        job.close();
        ended(job)
    }

    fn until(&self, count: usize, command: &[&str]) -> Vec<String> {
        let deadline = Instant::now() + UNTIL_MAX;
        loop {
            let said = self.run(command, "");
            if said.len() == count || Instant::now() > deadline {
                return said;
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// `L1` in what is asked stands for the first lease's id.
    fn ids(&self, text: &str) -> String {
        self.leases.iter().enumerate().fold(text.to_owned(), |text, (at, lease)| {
            text.replace(&format!("L{}", at + 1), &format!("{lease:x}"))
        })
    }

    fn normal(&mut self, said: &str) -> String {
        for start in ["lease ", "/"] {
            let ids = said.split(start).skip(1).filter_map(lease);
            for lease in ids {
                if !self.leases.contains(&lease) {
                    self.leases.push(lease);
                }
            }
        }
        let said = self.leases.iter().enumerate().fold(said.to_owned(), |said, (at, lease)| {
            let name = format!("L{}", at + 1);
            let forms = [format!("{lease:016x}"), format!("{lease:x}"), lease.to_string()];
            forms.iter().fold(said, |said, form| said.replace(form, &name))
        });
        normal(&said, &self.endpoint)
    }
}

/// The lease that a text begins with, in hexadecimal as etcdctl writes it.
fn lease(text: &str) -> Option<u64> {
    let end = text.find(|at: char| !at.is_ascii_hexdigit()).unwrap_or(text.len());
    let number = u64::from_str_radix(&text[..end], 16).ok();
    number.filter(|number| *number >= LEASE_MIN)
}

/// Waits for the end: what it said, and how it ended where that is not well.
fn ended(job: Job) -> Vec<String> {
    let (mut said, code) = job.end();
    match code {
        Some(0) => {}
        Some(code) => said.push(format!("exit {code}")),
        None => said.push("killed".into()),
    }
    said
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
const VARYING: [&str; 18] = [
    "\"TTL\" : ",
    "remaining(",
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
    let said = &sorted(said, "attached keys([", "])");
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

/// With the words between these two in order: etcd names the keys of a lease in none.
fn sorted(said: &str, from: &str, to: &str) -> String {
    let sorted = said.split_once(from).and_then(|(before, rest)| {
        let (words, after) = rest.split_once(to)?;
        let mut words: Vec<_> = words.split(' ').collect();
        words.sort_unstable();
        Some(format!("{before}{from}{}{to}{after}", words.join(" ")))
    });
    sorted.unwrap_or_else(|| said.into())
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
    fn leases_have_names_by_the_order_in_which_they_are_heard_of() {
        let (etcdctl, endpoint) = ("etcdctl".into(), "127.0.0.1:12345".into());
        let mut run = Run { etcdctl, endpoint, jobs: BTreeMap::new(), leases: vec![] };
        let said = "> lease 00a1b2c3d4e5f607 granted with TTL(9s), remaining(8s)\n> k/12ab56cd90ef";
        let normal = "> lease L1 granted with TTL(9s), remaining(…)\n> k/L2";
        assert_eq!(run.normal(said), normal);
        assert_eq!(run.normal("\"lease\":45514025410622983,"), "\"lease\":L1,");
        assert_eq!(run.ids("--lease=L1"), "--lease=a1b2c3d4e5f607");
    }

    #[test]
    fn a_script_may_ask_for_flags() {
        assert_eq!(flags("server --a --b=c\n---\n\nget k\n---\n"), ["--a", "--b=c"]);
        assert!(flags("get k\n---\n").is_empty());
    }

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
