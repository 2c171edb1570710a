//! `loadgen sensitivity`: what slower disks, longer lines and other timeouts do to a cluster, measured on this
//! host: it starts its own, one after the other.
//!
//! ```text
//!   grid      which cells ──► cell     one of them: load, kills       cluster, proxy, kernel: processes
//!   host      with what         │      └─ probe: until a write is accepted
//!   growth    one that fills    │
//!                               ▼
//!                             table    what was measured, and what need not be measured again
//!                               ▼
//!                             advice ──► page, plot: sensitivity.html; told: the terminal
//! ```

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use crate::{flags::Flags, interrupt, scene::Scene};

mod advice;
mod cell;
mod cluster;
mod grid;
mod growth;
mod host;
mod kernel;
mod page;
mod plot;
mod probe;
mod proxy;
mod table;
mod told;

use advice::{Advice, Known};
use cell::{Effort, Row};
use cluster::{Ground, Trouble};
use grid::{Axes, Program, Setting};
use growth::{Grown, Steps};
use host::{Scratch, Server};
use page::Sections;
use table::{Head, Table};
use told::{Lines, Progress};

/// What is taken from a command line.
pub const USAGE: &str = "\
loadgen sensitivity [--flag value ...]

  starts clusters of its own on this host, one after the other, and measures what slower syncs, longer lines
  and other timeouts do to them: sensitivity.csv and sensitivity.html. Started again with the same flags it
  goes on where it was.
  --quick                a grid of three minutes; without: of a lunch break
  --out DIR              .: where the two files go
  --server PATH          ringleader beside this program, else in PATH
  --etcd PATH            etcd too
  --members N            3: 1, 3 or 5
  --data DIR             the members' data goes onto the disk of this folder: that of --out
  --round-trip MS        0: between the hosts that are to be members: what the advice is for
  --fresh                replace what the file has
  --grow                 instead: one member that fills, growth.csv; a section of the same page
  --quiet                no progress on the terminal

  instead of the grid's own; all in ms, separated by commas:
  --sync, --network      what is added to each sync, and to all between members, one way
  --tail 1%:200,..       what is added to some syncs; none
  --heartbeat, --election
  --rate N               500: puts a second, for the latencies
  --seconds N            at that rate, for each cell
  --kills N              of the leader, for each cell

  of --grow:
  --keys 10000,100000    and 1000000 without --quick: each step
  --value-size BYTES     256
  --rate, --seconds      as above, of puts and then of ranges";

/// The files that come of it.
const CSV: &str = "sensitivity.csv";
const HTML: &str = "sensitivity.html";

/// Does what the flags say, and tells `out`; when it is interrupted, of what there is.
///
/// # Errors
/// A sentence: flags, a server that cannot be started, a file that cannot be written.
pub fn command(mut flags: Flags, line: &str, out: &mut impl Write) -> Result<(), String> {
    let asked = |wrong: String| format!("{wrong}\n\n{USAGE}");
    let (grow, quick) = (flags.switch("--grow"), flags.switch("--quick"));
    let common = Common::take(&mut flags).map_err(asked)?;
    let what = match grow {
        true => Steps::take(&mut flags, quick).map(What::Grow),
        false => Sweep::take(&mut flags, quick).map(What::Sweep),
    };
    let what = what.map_err(asked)?;
    flags.finish().map_err(asked)?;
    let servers = common.servers()?;
    interrupt::listen().map_err(|error| error.to_string())?;
    let scratch = Scratch::take(&common.data)?;
    let ended = match &what {
        What::Grow(steps) => growth::run(&common, steps, &servers, &scratch.folder, line),
        What::Sweep(sweep) => sweep.run(&common, &servers, &scratch.folder, line),
    };
    drop(scratch);
    ended.and(tell(&common, out))
}

/// One of the two things that can be done.
enum What {
    Sweep(Sweep),
    Grow(Steps),
}

// ── what both have ──────────────────────────────────────────────────────────────────────────────

/// Which servers, where things go, and what is said.
struct Common {
    server: Option<PathBuf>,
    etcd: Option<PathBuf>,
    out: PathBuf,
    data: PathBuf,
    round_trip_ms: f64,
    fresh: bool,
    quiet: bool,
}

impl Common {
    fn take(flags: &mut Flags) -> Result<Self, String> {
        let out: PathBuf = flags.value("--out")?.unwrap_or_else(|| ".".into());
        Ok(Self {
            server: flags.value("--server")?,
            etcd: flags.value("--etcd")?,
            data: flags.value("--data")?.unwrap_or_else(|| out.clone()),
            out,
            round_trip_ms: flags.number("--round-trip", 0.0, 0.0)?,
            fresh: flags.switch("--fresh"),
            quiet: flags.switch("--quiet"),
        })
    }

    /// Looks at the binaries, and makes the folder that the files go to.
    fn servers(&self) -> Result<Vec<Server>, String> {
        let out = &self.out;
        fs::create_dir_all(out).map_err(|error| format!("--out {}: {error}", out.display()))?;
        let server = self.server.clone().map_or_else(host::beside_us, Ok)?;
        let mut servers = vec![Server::look(Program::Ringleader, "--server", server)?];
        if let Some(etcd) = &self.etcd {
            servers.push(Server::look(Program::Etcd, "--etcd", etcd.clone())?);
        }
        Ok(servers)
    }

    /// Where the logs of what went wrong are kept.
    fn logs(&self) -> PathBuf {
        self.out.join("sensitivity-logs")
    }

    /// Above the lines of a table that is new.
    fn head(&self, setup: &Value, line: &str, folder: &Path) -> Head {
        Head {
            setup: setup.clone(),
            scene: Scene::new(&[], Some(&self.data), &[], line).json(),
            disk: host::measure_disk(folder),
        }
    }
}

// ── the sweep ───────────────────────────────────────────────────────────────────────────────────

/// What is varied, and how each cell is measured.
struct Sweep {
    axes: Axes,
    effort: Effort,
    members: usize,
}

impl Sweep {
    fn take(flags: &mut Flags, quick: bool) -> Result<Self, String> {
        let members = flags.number("--members", 3, 1)?;
        if ![1, 3, 5].contains(&members) {
            return Err(format!("--members {members}: 1, 3 or 5"));
        }
        let axes = if quick { Axes::quick() } else { Axes::full() };
        let axes = axes.take(flags)?;
        let usual = if quick { Effort::QUICK } else { Effort::FULL };
        let effort = Effort {
            closed: usual.closed,
            open: flags.number("--seconds", usual.open, 0.1)?,
            rate: flags.number("--rate", usual.rate, 1.0)?,
            kills: flags.number("--kills", usual.kills, 0)?,
        };
        let axes = if members == 1 { axes.alone() } else { axes };
        Ok(Self { axes, effort, members })
    }

    /// All that must be the same for rows to stand beside each other.
    fn setup(&self, cells: usize, identity: Value) -> Value {
        let Self { axes, effort, members } = self;
        let tails = axes.tails.iter().map(ToString::to_string);
        let mut setup = identity;
        setup["members"] = json!(members);
        setup["sync"] = json!(axes.syncs);
        setup["network"] = json!(axes.networks);
        setup["tail"] = json!(tails.collect::<Vec<_>>());
        setup["heartbeat"] = json!(axes.heartbeats);
        setup["election"] = json!(axes.elections);
        setup["seconds"] = json!([effort.closed, effort.open]);
        setup["rate"] = json!(effort.rate);
        setup["kills"] = json!(effort.kills);
        setup["cells"] = json!(cells);
        setup
    }

    /// Measures what is not there yet.
    fn run(
        &self,
        common: &Common,
        servers: &[Server],
        folder: &Path,
        line: &str,
    ) -> Result<(), String> {
        let ground = Ground {
            binaries: servers.iter().map(|server| (server.program, server.path.clone())).collect(),
            folder: folder.to_owned(),
            members: self.members,
            flags: Vec::new(),
        };
        let programs: Vec<_> = servers.iter().map(|server| server.program).collect();
        let cells = self.axes.cells(&programs);
        let setup = self.setup(cells.len(), host::identity(&common.data, servers));
        let head = || common.head(&setup, line, folder);
        let mut table: Table<Row> = Table::open(&common.out.join(CSV), &setup, common.fresh, head)?;
        let is_done = |cell: &&Setting| table.lines.iter().any(|row| row.setting == **cell);
        let todo: Vec<Setting> = cells.iter().filter(|cell| !is_done(cell)).copied().collect();
        let thought: Vec<_> = todo.iter().map(|cell| self.effort.cell_seconds(cell)).collect();
        let mut progress = Progress::new(common.quiet, cells.len(), &thought);
        for (setting, thought) in todo.iter().zip(thought) {
            progress.begin(setting);
            let name = format!("cell-{}", table.lines.len() + 1);
            let row = cell::measure(&ground, setting, &self.effort, &common.logs(), &name);
            let row = match row {
                _ if interrupt::asked() => return Err(cut_short()),
                Err(Trouble::Interrupted) => return Err(cut_short()),
                // One that has served elsewhere does not bear this; another never will.
                Err(Trouble::Ended(trouble)) if has_served(&table.lines, setting.program) => {
                    Row { trouble, ..Row::empty(*setting) }
                }
                Err(trouble) => return Err(format!("{setting}: {trouble}")),
                Ok(row) => row,
            };
            progress.end(thought, &told::Line(&row));
            table.push(row)?;
        }
        Ok(())
    }
}

fn has_served(rows: &[Row], program: Program) -> bool {
    rows.iter().any(|row| row.setting.program == program && row.start_s.is_some())
}

fn cut_short() -> String {
    "the run was cut short: interrupted; started again it goes on".to_owned()
}

// ── what is told ────────────────────────────────────────────────────────────────────────────────

/// Writes the page of what the files have, and says in short what is on it.
fn tell(common: &Common, out: &mut impl Write) -> Result<(), String> {
    let sweep: Option<(Head, Vec<Row>)> = Table::look(&common.out.join(CSV));
    let growth: Option<(Head, Vec<Grown>)> = Table::look(&common.out.join(growth::FILE));
    let (mut parts, mut said, mut json) = (Vec::new(), String::new(), json!({}));
    if let Some((head, rows)) = &sweep
        && let Some(effort) = Effort::read(&head.setup)
    {
        let number = |value: &Value| value.as_u64().unwrap_or(1);
        let known = Known {
            effort,
            members: number(&head.setup["members"]),
            cpus: number(&head.scene["cpus"]),
            disk: &head.disk,
            round_trip_ms: common.round_trip_ms,
        };
        let advice = Advice::of(rows, &known);
        let cells = number(&head.setup["cells"]) as usize;
        parts.push(Sections { head, effort, cells, rows, advice: &advice }.html());
        said += &format!("{}\n{advice}", Lines(rows));
        json["cells"] = json!(rows.len());
        json["of"] = json!(cells);
        json["in_trouble"] = json!(rows.iter().filter(|row| !row.trouble.is_empty()).count());
        json["scene"] = head.scene.clone();
        json["disk"] = head.disk.clone();
        json["advice"] = advice.json();
    }
    if let Some((head, rows)) = &growth {
        parts.push(growth::section(head, rows));
        let sentences = growth::sentences(rows);
        said += &format!("\n{}\n", sentences.join("\n"));
        json["growth"] = json!({ "scene": head.scene, "said": sentences });
    }
    json["work"] = json!("sensitivity");
    let file = common.out.join(HTML);
    let written = fs::write(&file, page::page(&parts));
    written.map_err(|error| format!("{}: {error}", file.display()))?;
    let told = writeln!(out, "{said}\n{}\n{json}", file.display());
    told.and_then(|()| out.flush()).map_err(|error| format!("standard output: {error}"))
}

#[cfg(test)]
mod tests;
