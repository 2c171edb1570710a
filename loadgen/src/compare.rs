//! `loadgen compare A B -- WORK …`: two servers in turn, A B A B, and the ratios pair by pair.
//!
//! A machine's speed drifts: by its heat, its neighbours, its disk's chores. Two runs that follow one
//! another share most of that, so their ratio says more than the ratio of two averages, and the
//! spread of the ratios says how much it may be trusted.
//!
//! Each run is a process of its own of this very program, so nothing of one run is warm in the next,
//! and any work will do that ends with a line of JSON.

use std::{
    fmt,
    io::{self, IsTerminal, Write},
    process::{Command, Output, Stdio},
};

use serde_json::{Map, Value, json};

use crate::{flags::Flags, interrupt, scene::Scene};

/// What is taken from a command line.
pub const USAGE: &str = "\
loadgen compare A B [--rounds N] [--pid-a N] [--pid-b N] -- WORK [--flag value ...]

  the same work on two servers in turn, and the ratios B / A of each pair: their median and spread
  A, B                   endpoints; several members of one cluster: a,b,c
  --rounds N             3
  --pid-a, --pid-b       the servers' processes, to read their CPU time; several: a,b,c
  WORK and its flags     any work that asks servers, without --endpoint and --pid";

/// Flags that say which server, and are said here.
const OURS: [&str; 2] = ["--endpoint", "--pid"];

/// Does what the flags say, and tells `out`. When a server fails on the way, or it is interrupted, it
/// tells of the rounds that are whole.
///
/// # Errors
/// A sentence: flags, a work that ended badly, or an output that takes no more.
pub fn command(mut flags: Flags, line: &str, out: &mut impl Write) -> Result<(), String> {
    let work = flags.behind_dashes();
    let plan = Plan::take(flags, work).map_err(|wrong| format!("{wrong}\n\n{USAGE}"))?;
    interrupt::listen().map_err(|error| error.to_string())?;
    let scene = plan.scene(line);
    let (report, failure) = compare(plan, run);
    if !report.rounds.is_empty() {
        let mut json = report.json();
        json["scene"] = scene.json();
        let told = write!(out, "{scene}{report}").and_then(|()| writeln!(out, "{json}"));
        told.and_then(|()| out.flush()).map_err(|error| format!("standard output: {error}"))?;
    }
    failure.map_or(Ok(()), Err)
}

/// One of the two servers.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Side {
    name: &'static str,
    endpoint: String,
    pids: Vec<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Plan {
    sides: [Side; 2],
    rounds: usize,
    /// The work and its flags.
    work: Vec<String>,
}

impl Plan {
    fn take(mut flags: Flags, work: Vec<String>) -> Result<Self, String> {
        match work.first() {
            Some(first) if !first.starts_with("--") => {}
            _ => return Err("compare wants a work behind `--`, such as `-- put`".into()),
        }
        let rounds = flags.number("--rounds", 3, 1)?;
        let pids = [flags.list("--pid-a")?, flags.list("--pid-b")?];
        let endpoints = [flags.operand(), flags.operand()];
        flags.finish()?;
        let [Some(a), Some(b)] = endpoints else {
            return Err("compare wants two endpoints".into());
        };
        let [pids_a, pids_b] = pids;
        if let Some(ours) = work.iter().find(|given| OURS.contains(&given.as_str())) {
            return Err(format!("{ours} is not for the work: compare says it for each server"));
        }
        let side = |name, endpoint, pids| Side { name, endpoint, pids };
        Ok(Self { sides: [side("A", a, pids_a), side("B", b, pids_b)], rounds, work })
    }
}

impl Plan {
    /// Where and when; the disk is that of the first process that is known.
    fn scene(&self, line: &str) -> Scene {
        let members = self.sides.iter().flat_map(|side| side.endpoint.split(','));
        let endpoints: Vec<_> = members.map(str::to_owned).collect();
        let pids = self.sides.each_ref().map(|side| &side.pids[..]).concat();
        Scene::new(&endpoints, None, &pids, line)
    }
}

/// Runs the rounds until one fails, and says how it failed.
fn compare(
    plan: Plan,
    mut run: impl FnMut(&[String], &Side) -> Result<Value, String>,
) -> (Report, Option<String>) {
    let shown = io::stderr().is_terminal();
    let (work, [a, b]) = (&plan.work, &plan.sides);
    let mut one = |round, side: &Side| {
        if shown {
            eprint!("\r\x1b[Kround {round} of {}: {}", plan.rounds, side.name);
        }
        let said = run(work, side);
        if shown {
            eprint!("\r\x1b[K");
        }
        match interrupt::asked() {
            true => Err("the run was cut short: interrupted".to_owned()),
            false => {
                said.map(|said| measures(&said)).map_err(|why| format!("round {round}: {why}"))
            }
        }
    };
    let mut pair = |round| Ok([one(round, a)?, one(round, b)?]);
    let (mut rounds, mut failure) = (Vec::new(), None);
    for round in 1..=plan.rounds {
        match pair(round) {
            Ok(pair) => rounds.push(pair),
            Err(why) => {
                failure = Some(why);
                break;
            }
        }
    }
    (Report { plan: plan.clone(), rounds }, failure)
}

/// One run of the work as a process of its own.
fn run(work: &[String], side: &Side) -> Result<Value, String> {
    let own = std::env::current_exe().map_err(|error| format!("this program's path: {error}"))?;
    let mut command = Command::new(own);
    command.args(work).args(["--endpoint", &side.endpoint]).stdin(Stdio::null());
    if !side.pids.is_empty() {
        let pids: Vec<_> = side.pids.iter().map(u32::to_string).collect();
        command.args(["--pid", &pids.join(",")]);
    }
    let ended = command.output().map_err(|error| format!("cannot start {}: {error}", work[0]))?;
    outcome(&ended).map_err(|why| format!("{} ({}): {} {why}", side.name, side.endpoint, work[0]))
}

/// The line of JSON with which a work ends.
fn outcome(ended: &Output) -> Result<Value, String> {
    if !ended.status.success() {
        let said = String::from_utf8_lossy(&ended.stderr);
        let said = said.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
        let said = said.trim_start_matches("loadgen: ");
        return Err(match said {
            "" => format!("ended without a word ({})", ended.status),
            said => format!("failed: {said}"),
        });
    }
    let said = String::from_utf8_lossy(&ended.stdout);
    let last = said.lines().next_back().and_then(|line| serde_json::from_str(line).ok());
    last.filter(Value::is_object).ok_or_else(|| "ends with no line of JSON".to_owned())
}

/// What is compared, of all that a work says: rates, medians, 99th percentiles and the server's CPU
/// time. By the path to each, in the order in which it is said.
fn measures(said: &Value) -> Vec<(String, f64)> {
    let mut found = Vec::new();
    gather("", said, &mut found);
    found
}

fn gather(path: &str, said: &Value, found: &mut Vec<(String, f64)>) {
    let mut within = |name: &str, value: &Value| match path {
        "" => gather(name, value, found),
        _ => gather(&format!("{path}.{name}"), value, found),
    };
    match said {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| within(name, value)),
        Value::Array(all) => all.iter().enumerate().for_each(|(at, value)| {
            // A phase or a kind is known by its name, if it has one.
            let named = ["phase", "kind", "name"].iter().find_map(|key| value.get(key)?.as_str());
            within(named.unwrap_or(&at.to_string()), value);
        }),
        Value::Number(number) if is_measure(path) => {
            found.extend(number.as_f64().map(|value| (path.to_owned(), value)));
        }
        _ => {}
    }
}

fn is_measure(path: &str) -> bool {
    let name = path.rsplit('.').next().unwrap_or(path);
    ["_per_second", "p50_us", "p99_us"].iter().any(|end| name.ends_with(end))
        || name.starts_with("server_cpu_us_per_")
}

/// What each pair measured. [`fmt::Display`] is the table.
struct Report {
    plan: Plan,
    rounds: Vec<[Vec<(String, f64)>; 2]>,
}

/// One measure over all rounds that have it on both sides.
struct Line {
    name: String,
    a: f64,
    b: f64,
    ratios: Spread,
    of_rounds: Vec<f64>,
}

/// A median and how far the others lie.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    /// Of at least one value.
    fn of(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len() - 1;
        let median = f64::midpoint(sorted[last / 2], sorted[last.div_ceil(2)]);
        Self { median, min: sorted[0], max: sorted[last] }
    }

    /// Whether the rounds disagree which of the two is larger.
    fn is_open(&self) -> bool {
        self.min <= 1.0 && self.max >= 1.0
    }
}

impl Report {
    fn lines(&self) -> impl Iterator<Item = Line> {
        let names = self.rounds.first().into_iter().flat_map(|[a, _]| a);
        names.filter_map(|(name, _)| {
            let of = |side: &[(String, f64)]| Some(side.iter().find(|(one, _)| one == name)?.1);
            let pairs = self.rounds.iter().filter_map(|[a, b]| Some((of(a)?, of(b)?)));
            let pairs: Vec<_> = pairs.filter(|(a, b)| *a > 0.0 && *b > 0.0).collect();
            let of_rounds: Vec<_> = pairs.iter().map(|(a, b)| b / a).collect();
            let median = |values: Vec<f64>| Spread::of(&values).median;
            (!pairs.is_empty()).then(|| Line {
                name: name.clone(),
                a: median(pairs.iter().map(|(a, _)| *a).collect()),
                b: median(pairs.iter().map(|(_, b)| *b).collect()),
                ratios: Spread::of(&of_rounds),
                of_rounds,
            })
        })
    }

    fn json(&self) -> Value {
        let measures = self.lines().map(|line| {
            let Spread { median, min, max } = line.ratios;
            let found = json!({
                "a": line.a, "b": line.b, "ratio": median, "ratio_min": min, "ratio_max": max,
                "ratios": line.of_rounds,
            });
            (line.name, found)
        });
        let [a, b] = &self.plan.sides;
        json!({
            "work": "compare",
            "of": self.plan.work,
            "a": a.endpoint,
            "b": b.endpoint,
            "rounds": self.rounds.len(),
            "measures": measures.collect::<Map<_, _>>(),
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ([a, b], rounds) = (&self.plan.sides, self.rounds.len());
        writeln!(f, "{}, A {} and B {} in turn", self.plan.work.join(" "), a.endpoint, b.endpoint)?;
        writeln!(f, "Medians of the rounds that are whole, {rounds}; B / A pair by pair\n")?;
        let [a, b, ratio, min, max] = ["A", "B", "B / A", "min", "max"];
        write!(f, "{:<36} {a:>12} {b:>12} {ratio:>8} {min:>8} {max:>8}", "")?;
        writeln!(f, "   round by round")?;
        let mut any_open = false;
        for Line { name, a, b, ratios, of_rounds } in self.lines() {
            let Spread { median, min, max } = ratios;
            let open = if ratios.is_open() { '~' } else { ' ' };
            any_open |= ratios.is_open();
            write!(f, "{name:<36} {a:>12.1} {b:>12.1} {median:>8.3} {min:>8.3} {max:>8.3} {open}")?;
            of_rounds.iter().try_for_each(|ratio| write!(f, " {ratio:.2}"))?;
            writeln!(f)?;
        }
        if any_open {
            writeln!(f, "~ the rounds do not say which is larger")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    fn plan(line: &str) -> Result<Plan, String> {
        let mut flags = Flags::new(line.split_whitespace().map(str::to_owned));
        let work = flags.behind_dashes();
        Plan::take(flags, work)
    }

    #[test]
    fn a_command_line_names_two_servers_and_a_work() {
        let plan = plan("--rounds 5 a:1 b:2,b:3 --pid-b 7,8 -- put --rounds 9").unwrap();
        let [a, b] = plan.sides;
        assert_eq!((a.endpoint.as_str(), a.pids), ("a:1", vec![]));
        assert_eq!((b.endpoint.as_str(), b.pids), ("b:2,b:3", vec![7, 8]));
        assert_eq!((plan.rounds, plan.work.join(" ").as_str()), (5, "put --rounds 9"));
    }

    #[test]
    fn a_command_line_that_lacks_something_is_told_what() {
        let said = |line| plan(line).unwrap_err();
        assert_eq!(said("a:1 -- put"), "compare wants two endpoints");
        assert!(said("a b").starts_with("compare wants a work behind `--`"));
        assert!(said("a b put --seconds 3").starts_with("compare wants a work"));
        assert!(said("a b c -- put").contains("\"c\""));
        assert!(said("a b -- put --endpoint=c").starts_with("--endpoint is not for the work"));
    }

    /// A server of whose rounds each is given.
    fn told(a: &[f64], b: &[f64]) -> (Report, Option<String>) {
        let mut turns = a.iter().zip(b).flat_map(|(a, b)| [("A", *a), ("B", *b)]);
        let plan = Plan { rounds: a.len(), ..plan("a b -- put").unwrap() };
        compare(plan, |_, side| {
            let (name, rate) = turns.next().unwrap();
            assert_eq!(side.name, name, "A B A B");
            match rate {
                0.0 => Err(format!("{name} (x): put failed: gone")),
                rate => Ok(json!({ "ops_per_second": rate, "p50_us": null, "max_us": 3.0 })),
            }
        })
    }

    #[test]
    fn ratios_are_of_pairs_and_not_of_averages() {
        // The machine got twice as slow in the third round, and B is always 1.5 times as fast.
        let (report, failure) = told(&[100.0, 110.0, 50.0], &[150.0, 165.0, 75.0]);
        let lines: Vec<_> = report.lines().collect();
        assert_eq!((failure, lines.len()), (None, 1), "only what is compared, and is there");
        assert_eq!(lines[0].ratios, Spread { median: 1.5, min: 1.5, max: 1.5 });
        assert_eq!((lines[0].a, lines[0].b), (100.0, 150.0));
        assert_eq!(report.json()["measures"]["ops_per_second"]["ratio"], 1.5);
        assert!(!report.to_string().contains('~'));
    }

    #[test]
    fn rounds_that_disagree_are_marked() {
        let (report, _) = told(&[100.0, 100.0], &[90.0, 130.0]);
        assert!(report.to_string().contains("1.100    0.900    1.300 ~ 0.90 1.30\n"), "{report}");
    }

    #[test]
    fn a_server_that_dies_leaves_the_rounds_before() {
        let (report, failure) = told(&[100.0, 100.0, 100.0], &[200.0, 0.0, 200.0]);
        assert_eq!(failure.unwrap(), "round 2: B (x): put failed: gone");
        assert_eq!(report.lines().next().unwrap().of_rounds, [2.0]);
    }

    #[test]
    fn measures_are_found_where_they_are() {
        let said = json!({
            "work": "watch", "connections": 3, "puts_per_second": 0.5,
            "phases": [{ "phase": "fan-out", "events_per_second": 7, "event_p99_us": 8.0, "event_max_us": 9 }],
            "kinds": [{ "p50_us": 1.0 }], "server_cpu_us_per_op": 2, "client_cpu_us_per_op": 3,
        });
        let mut found = measures(&said);
        found.sort_by(|one, other| one.0.cmp(&other.0));
        let names: Vec<_> = found.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            names,
            [
                "kinds.0.p50_us",
                "phases.fan-out.event_p99_us",
                "phases.fan-out.events_per_second",
                "puts_per_second",
                "server_cpu_us_per_op",
            ]
        );
    }

    #[test]
    fn a_run_ends_with_json_or_with_a_reason() {
        let ended = |code: i32, stdout: &str, stderr: &str| Output {
            status: std::process::ExitStatus::from_raw(code),
            stdout: stdout.into(),
            stderr: stderr.into(),
        };
        assert_eq!(outcome(&ended(0, "a table\n{\"ops\":1}\n", "")).unwrap()["ops"], 1);
        let failed = |ended: Output| outcome(&ended).unwrap_err();
        assert_eq!(failed(ended(0, "judged\n", "")), "ends with no line of JSON");
        assert_eq!(failed(ended(256, "{}\n", "loadgen: refused\n\nusage")), "failed: refused");
        assert_eq!(failed(ended(9, "", "")), "ended without a word (signal: 9 (SIGKILL))");
    }
}
