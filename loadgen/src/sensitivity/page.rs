//! The report as one page of HTML that needs nothing else: no script, no font, no picture from elsewhere.

use std::collections::BTreeSet;

use super::{
    advice::Advice,
    cell::{CONNECTIONS, Effort, Row, STREAMS, VALUE_BYTES},
    grid::{Clocks, Place, Program},
    plot::{Curves, HeatMap, Scale, Series, Tile, Unit, escape},
    table::{Head, Line},
};

/// What was varied, and what came of it.
pub(super) struct Sections<'a> {
    pub(super) head: &'a Head,
    pub(super) effort: Effort,
    /// How many cells there are to be.
    pub(super) cells: usize,
    pub(super) rows: &'a [Row],
    pub(super) advice: &'a Advice,
}

/// Classes `o0` to `o5` of the page's style, for lines that have an order.
const SHADES: usize = 6;

/// Says one measure of a row.
type Measure = fn(&Row) -> Option<f64>;

/// The whole page, of its parts.
pub(super) fn page(parts: &[String]) -> String {
    format!("{HEAD}{}</main>\n</body>\n</html>\n", parts.concat())
}

/// Where and when, and how much of it there is.
pub(super) fn scene(head: &Head, measured: &str) -> String {
    let said = |name: &str| escape(head.scene[name].as_str().unwrap_or("unknown"));
    let servers = head.setup["servers"].as_array().into_iter().flatten();
    let servers = servers.map(|server| {
        let said = |name: &str| escape(server[name].as_str().unwrap_or("unknown"));
        format!("{} {} (build {})", said("name"), said("version"), said("build"))
    });
    let servers = servers.collect::<Vec<_>>().join("<br>");
    let rows = [
        ("begun", said("date")),
        ("host", format!("{}, Linux {}", said("host"), said("kernel"))),
        ("CPUs", format!("{} × {}", head.scene["cpus"], said("cpu_model"))),
        ("disk", said("disk")),
        ("servers", servers),
        ("loadgen", format!("{} <code>{}</code>", said("loadgen"), said("flags"))),
        ("measured", escape(measured)),
    ];
    let rows = rows.map(|(name, value)| format!("<dt>{name}</dt><dd>{value}</dd>\n")).concat();
    format!("<dl class=\"scene\">\n{rows}</dl>\n")
}

/// A table that scrolls where it has no room.
pub(super) fn table(
    columns: &[impl AsRef<str>],
    rows: impl Iterator<Item = Vec<String>>,
) -> String {
    let heads =
        columns.iter().map(|name| format!("<th>{}</th>", name.as_ref())).collect::<String>();
    let rows = rows.map(|cells| {
        let cells = cells.iter().map(|cell| format!("<td>{cell}</td>")).collect::<String>();
        format!("<tr>{cells}</tr>\n")
    });
    format!(
        "<div class=\"scroll\"><table>\n<tr>{heads}</tr>\n{}</table></div>\n",
        rows.collect::<String>()
    )
}

impl Sections<'_> {
    pub(super) fn html(&self) -> String {
        let parts = [
            self.header(),
            self.words(),
            self.landscapes(),
            self.latencies(),
            self.tails(),
            self.clocks(),
            self.every_cell(),
            self.method(),
        ];
        parts.concat()
    }

    fn programs(&self) -> Vec<Program> {
        let has = |program: &Program| self.rows.iter().any(|row| row.setting.program == *program);
        Program::ALL.into_iter().filter(has).collect()
    }

    fn header(&self) -> String {
        let (rows, cells, members) = (self.rows.len(), self.cells, &self.head.setup["members"]);
        let measured = match rows == cells {
            true => format!("all {cells} cells, each a cluster of {members}"),
            false => {
                format!("{rows} of {cells} cells, each a cluster of {members}: not finished")
            }
        };
        scene(self.head, &measured)
    }

    fn words(&self) -> String {
        let mut html = String::from("<section class=\"advice\">\n<h2>For this host</h2>\n");
        for (program, sentences) in &self.advice.programs {
            html += &format!("<h3>{}</h3>\n<ul>\n", program.title());
            html += &items(sentences);
            html += "</ul>\n";
        }
        html + "<h3>Derived from</h3>\n<ul>\n" + &items(&self.advice.ground) + "</ul>\n</section>\n"
    }

    /// One measure of the landscape, over all programs.
    fn scale_of(&self, at: impl Fn(&Row) -> bool, measure: Measure) -> Option<Scale> {
        Scale::over(self.rows.iter().filter(|row| at(row)).filter_map(measure))
    }

    fn landscapes(&self) -> String {
        let mut html = section(
            "Sync delay × network delay",
            &format!(
                "At the default clocks, {}. Delays come on top of what disk and loopback take by \
                 themselves; that of the network is one way.",
                Clocks::DEFAULT
            ),
        );
        let in_it =
            |row: &Row| row.setting.clocks == Clocks::DEFAULT && row.setting.place.tail.is_none();
        let measures: [(&str, Unit, Measure); 2] = [
            ("p99", Unit::Millis, |row| row.p99_ms),
            ("puts a second", Unit::PerSecond, |row| row.per_second),
        ];
        for (title, unit, measure) in measures {
            let Some(scale) = self.scale_of(in_it, measure) else { continue };
            html += "<div class=\"row\">\n";
            for program in self.programs() {
                let rows: Vec<_> = self.rows.iter().filter(|row| in_it(row)).collect();
                let syncs: BTreeSet<_> = rows.iter().map(|row| row.setting.place.sync_ms).collect();
                let networks: BTreeSet<_> =
                    rows.iter().map(|row| row.setting.place.network_ms).collect();
                let tile = |sync_ms: u64, network_ms: u64| {
                    let place = Place { sync_ms, tail: None, network_ms };
                    self.tile(program, place, Clocks::DEFAULT, measure)
                };
                let map = HeatMap {
                    title: &format!("{}: {title}", program.title()),
                    across: ("network delay, ms", networks.iter().map(u64::to_string).collect()),
                    down: ("sync delay, ms", syncs.iter().map(u64::to_string).collect()),
                    tiles: syncs
                        .iter()
                        .map(|sync| networks.iter().map(|network| tile(*sync, *network)).collect())
                        .collect(),
                    unit,
                    scale,
                };
                html += &figure(map.title, &map.svg());
            }
            html += "</div>\n";
        }
        if self.programs().contains(&Program::Etcd) {
            html += "<p class=\"note\">etcd: not measured where a sync is longer, for there is no way to \
                     make one longer from outside.</p>\n";
        }
        html + "</section>\n"
    }

    fn tile(&self, program: Program, place: Place, clocks: Clocks, measure: Measure) -> Tile {
        let found = self.rows.iter().find(|row| {
            let setting = row.setting;
            setting.program == program && setting.place == place && setting.clocks == clocks
        });
        match found {
            None => Tile::Empty,
            Some(row) => match measure(row) {
                Some(value) => Tile::Value(value),
                None if row.trouble.contains("no leader") => {
                    Tile::Trouble("no leader".into(), row.trouble.clone())
                }
                None if row.trouble.contains("ended by itself") => {
                    Tile::Trouble("died".into(), row.trouble.clone())
                }
                None if row.trouble.is_empty() => Tile::Empty,
                None => Tile::Trouble("failed".into(), row.trouble.clone()),
            },
        }
    }

    fn latencies(&self) -> String {
        let usual =
            |row: &&Row| row.setting.clocks == Clocks::DEFAULT && row.setting.place.tail.is_none();
        let ours = |row: &&Row| usual(row) && row.setting.program == Program::Ringleader;
        let rows: Vec<_> = self.rows.iter().filter(ours).collect();
        let networks: BTreeSet<_> = rows.iter().map(|row| row.setting.place.network_ms).collect();
        let rate = self.effort.rate;
        let mut html = section(
            "Latency",
            &format!("At {rate:.0} puts a second, from when each was due; logarithmic axes."),
        );
        let by_network: Vec<_> = networks
            .iter()
            .enumerate()
            .map(|(at, network)| {
                let rows = rows.iter().filter(|row| row.setting.place.network_ms == *network);
                let rows: Vec<_> =
                    rows.map(|row| (row.setting.place.sync_ms as f64, *row)).collect();
                // From light to dark, however many there are.
                let shade = match networks.len() {
                    1 => SHADES / 2,
                    lines => at * (SHADES - 1) / (lines - 1),
                };
                (format!("network {network}"), format!("o{shade}"), rows)
            })
            .collect();
        if by_network.iter().any(|(.., rows)| rows.len() > 1) {
            html += &curves("Ringleader", "sync delay, ms", &by_network);
        }
        let by_program: Vec<_> =
            self.programs()
                .into_iter()
                .map(|program| {
                    let rows = self.rows.iter().filter(usual).filter(|row| {
                        row.setting.program == program && row.setting.place.sync_ms == 0
                    });
                    let rows = rows.map(|row| (row.setting.place.network_ms as f64, row)).collect();
                    (program.title().to_owned(), program.name().to_owned(), rows)
                })
                .collect();
        if by_program.iter().any(|(_, _, rows): &(_, _, Vec<_>)| rows.len() > 1) {
            html += &curves("No sync delay", "network delay, ms", &by_program);
        }
        html + "</section>\n"
    }

    fn tails(&self) -> String {
        let tails = self.rows.iter().filter(|row| row.setting.place.tail.is_some());
        let rows: Vec<_> = tails.filter(|row| row.setting.clocks == Clocks::DEFAULT).collect();
        if rows.is_empty() {
            return String::new();
        }
        let mut html = section(
            "Tail spikes",
            "Some syncs take much longer and the others no longer, at the default clocks. etcd: not measured.",
        );
        let cells = rows.into_iter().map(|row| {
            let ms =
                |value: Option<f64>| value.map_or("–".into(), |value| Unit::Millis.short(value));
            vec![
                escape(&row.setting.place.to_string()),
                ms(row.p50_ms),
                ms(row.p99_ms),
                ms(row.p999_ms),
                ms(row.max_ms),
                ms(row.stall_ms),
                row.per_second.map_or("–".into(), |rate| format!("{rate:.0}")),
                row.elections.map_or("–".into(), |elections| elections.to_string()),
            ]
        });
        let columns = [
            "what is added",
            "p50",
            "p99",
            "p99.9",
            "longest",
            "longest stall",
            "puts/s",
            "elections without cause",
        ];
        html += &table(&columns, cells);
        html + "</section>\n"
    }

    fn clocks(&self) -> String {
        let mut html = section(
            "Heartbeat × election timeout",
            "Elections without cause: terms that began while nobody disturbed the cluster. Time without \
             leader: from kill -9 of the leader to the first write that another member accepted; the median \
             of the kills. Pairs that the servers refuse are left out.",
        );
        let mut places: Vec<Place> = Vec::new();
        for row in self.rows.iter().filter(|row| row.setting.clocks != Clocks::DEFAULT) {
            if !places.contains(&row.setting.place) {
                places.push(row.setting.place);
            }
        }
        let in_it = |row: &Row| places.contains(&row.setting.place);
        let elections: Measure = |row| row.elections.map(|elections| elections as f64);
        let leaderless: Measure = Row::leaderless_median_ms;
        let scales = (self.scale_of(in_it, elections), self.scale_of(in_it, leaderless));
        for place in &places {
            html += &format!("<h3>{}</h3>\n", escape(&place.to_string()));
            for program in self.programs() {
                let there = self
                    .rows
                    .iter()
                    .any(|row| row.setting.program == program && row.setting.place == *place);
                if !there {
                    continue;
                }
                html += "<div class=\"row\">\n";
                let measures = [
                    (
                        "elections without cause",
                        Unit::Count,
                        scales.0.map(Scale::of_counts),
                        elections,
                    ),
                    ("time without leader", Unit::Millis, scales.1, leaderless),
                ];
                for (title, unit, scale, measure) in measures {
                    let title = format!("{}: {title}", program.title());
                    let scale = scale.or_else(|| Scale::over([0.0]));
                    if let Some(scale) = scale {
                        html += &self.clock_map(program, *place, &title, unit, scale, measure);
                    }
                }
                html += "</div>\n";
            }
        }
        html + "</section>\n"
    }

    fn clock_map(
        &self,
        program: Program,
        place: Place,
        title: &str,
        unit: Unit,
        scale: Scale,
        measure: Measure,
    ) -> String {
        let at = self.rows.iter().map(|row| row.setting);
        let tried: BTreeSet<_> =
            at.filter(|setting| setting.place == place).map(|setting| setting.clocks).collect();
        let heartbeats: BTreeSet<_> = tried.iter().map(|clocks| clocks.heartbeat_ms).collect();
        let elections: BTreeSet<_> = tried.iter().map(|clocks| clocks.election_ms).collect();
        let tiles = heartbeats.iter().map(|heartbeat_ms| {
            let tile = |election_ms: &u64| {
                let clocks = Clocks { heartbeat_ms: *heartbeat_ms, election_ms: *election_ms };
                self.tile(program, place, clocks, measure)
            };
            elections.iter().map(tile).collect()
        });
        let map = HeatMap {
            title,
            across: ("election timeout, ms", elections.iter().map(u64::to_string).collect()),
            down: ("heartbeat, ms", heartbeats.iter().map(u64::to_string).collect()),
            tiles: tiles.collect(),
            unit,
            scale,
        };
        figure(title, &map.svg())
    }

    fn every_cell(&self) -> String {
        let columns = [
            "server",
            "sync +",
            "tail",
            "network +",
            "heartbeat",
            "election",
            "start, s",
            "puts/s",
            "server CPU µs/put",
            "loadgen CPU µs/put",
            "p50",
            "p99",
            "p99.9",
            "longest",
            "loadgen late p99",
            "longest stall",
            "elections",
            "failed",
            "without leader",
            "trouble",
        ];
        let rows =
            self.rows.iter().map(|row| row.fields().iter().map(|field| escape(field)).collect());
        let html = section("Every cell", "As in sensitivity.csv. Times in ms but the start's.");
        html + &table(&columns, rows) + "</section>\n"
    }

    fn method(&self) -> String {
        let Effort { closed, open, rate, kills } = self.effort;
        let clients = CONNECTIONS * STREAMS;
        let mut html = section("How it was measured", "");
        html += "<ul>\n";
        html += &items(&[
            format!(
                "Each cell is a cluster of its own with empty data, all members on this host. First {clients} \
                 clients put values of {VALUE_BYTES} bytes through the leader for {closed} s, each waiting for \
                 its answer: puts a second, and CPU of all members together. Then {rate:.0} puts a second are \
                 due for {open} s, whatever the servers do: latencies, from when each was due. Then the \
                 leader is killed and started again, {kills} time(s)."
            ),
            "Ringleader's delays are its own, by options for tests: each sync of its log, and all that a \
             member sends to another, takes that much longer. etcd's members reach each other through \
             loadgen, which holds back every byte for the delay; its CPU time counts for no server, but it \
             uses this host's."
                .to_owned(),
            "A percentile that rests on no put of its own is left out. The longest stall is the longest time \
             in which no put was answered, of both stretches. The time without leader has the answered write in it, \
             and the 10 ms between tries."
                .to_owned(),
            "Where loadgen itself was late (loadgen late p99), so are the latencies: this host was busy."
                .to_owned(),
        ]);
        html + "</ul>\n</section>\n"
    }
}

pub(super) fn section(title: &str, lead: &str) -> String {
    match lead {
        "" => format!("<section>\n<h2>{title}</h2>\n"),
        lead => format!("<section>\n<h2>{title}</h2>\n<p>{lead}</p>\n"),
    }
}

pub(super) fn figure(title: &str, svg: &str) -> String {
    format!("<figure>\n<figcaption>{}</figcaption>\n{svg}</figure>\n", escape(title))
}

pub(super) fn items(sentences: &[String]) -> String {
    sentences.iter().map(|sentence| format!("<li>{}</li>\n", escape(sentence))).collect()
}

/// Lines of rows by a place on an axis: name, class, and each row with its place.
type Lines<'a> = Vec<(String, String, Vec<(f64, &'a Row)>)>;

/// Three percentiles on the same scale.
fn curves(title: &str, across: &str, lines: &Lines<'_>) -> String {
    let percentiles: [(&str, Measure); 3] =
        [("p50", |row| row.p50_ms), ("p99", |row| row.p99_ms), ("p99.9", |row| row.p999_ms)];
    let all = lines
        .iter()
        .flat_map(|(.., rows)| rows)
        .flat_map(|(_, row)| [row.p50_ms, row.p99_ms, row.p999_ms].into_iter().flatten());
    let Some(scale) = Scale::over(all) else { return String::new() };
    let mut html = String::from("<div class=\"row\">\n");
    for (name, measure) in percentiles {
        let series = lines.iter().map(|(name, class, rows)| Series {
            name: name.clone(),
            class: class.clone(),
            points: rows.iter().filter_map(|(at, row)| Some((*at, measure(row)?))).collect(),
        });
        let series: Vec<_> = series.filter(|series| !series.points.is_empty()).collect();
        if series.is_empty() {
            continue;
        }
        let title = format!("{title}: {name}");
        let place = |place: f64| place.to_string();
        let curves = Curves {
            title: &title,
            across,
            series,
            scale: scale.with_room(),
            unit: Unit::Millis,
            place,
        };
        html += &figure(&title, &curves.svg());
    }
    html + "</div>\n"
}

/// Up to the title. Colours: one hue from little to much, which turns around where it is dark.
const HEAD: &str = r#"<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Sensitivity report</title>
<style>
:root {
  color-scheme: light dark;
  --page: #f7f8fa; --card: #ffffff; --ink: #1b2430; --muted: #5b6675; --line: #dfe3e8;
  --q0: #eef5fc; --q1: #d6e6f6; --q2: #b9d5ef; --q3: #94bfe6; --q4: #6aa5db;
  --q5: #4488cc; --q6: #2a6bb5; --q7: #164f94; --q8: #0a3670;
  --low-ink: #1b2430; --high-ink: #ffffff; --bad: #b3261e; --bad-fill: #fdecea;
  --o0: #7aaede; --o1: #5f9dd6; --o2: #387fc2; --o3: #1f5fa3; --o4: #0f3f7a; --o5: #08264d;
  --ringleader: #2a6bb5; --etcd: #c2590c;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #11161d; --card: #182029; --ink: #e4e9ef; --muted: #97a3b2; --line: #2c3743;
    --q0: #1a2a3b; --q1: #1b3854; --q2: #1f4970; --q3: #265b8d; --q4: #3371ac;
    --q5: #4c8ccb; --q6: #70a9df; --q7: #9dc7ef; --q8: #d0e5fb;
    --low-ink: #f0f4f8; --high-ink: #0d1722; --bad: #ff9b91; --bad-fill: #3d2020;
    --o0: #2f6aa5; --o1: #4585c3; --o2: #639fd9; --o3: #88b9e8; --o4: #b0d2f4; --o5: #dcecfd;
    --ringleader: #639fd9; --etcd: #f0924a;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 28px 20px; }
h1 { font-size: 24px; line-height: 1.25; margin: 0 0 16px; }
h2 { font-size: 19px; margin: 0 0 6px; }
h3 { font-size: 15px; margin: 18px 0 4px; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 18px 20px; margin: 0 0 18px; }
section > p { margin: 0 0 8px; color: var(--muted); max-width: 80ch; }
.note { font-size: 13px; }
ul { margin: 4px 0 0; padding-left: 20px; max-width: 95ch; }
li { margin: 4px 0; }
dl.scene { display: grid; grid-template-columns: max-content 1fr; gap: 2px 16px; margin: 0 0 20px;
  font-size: 13px; }
dt { color: var(--muted); }
dd { margin: 0; overflow-wrap: anywhere; }
code { font: 12px/1.4 ui-monospace, "DejaVu Sans Mono", monospace; }
.row { display: flex; flex-wrap: wrap; gap: 8px 20px; }
figure { margin: 10px 0 0; max-width: 100%; overflow-x: auto; }
figcaption { font-weight: 600; font-size: 14px; }
svg { display: block; font: 12px system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
svg text { fill: var(--ink); }
svg .tick, svg .axis { fill: var(--muted); }
svg .tick { font-size: 11px; font-variant-numeric: tabular-nums; }
svg .grid { stroke: var(--line); }
svg polyline { fill: none; stroke-width: 2; stroke-linejoin: round; }
svg circle { stroke: var(--card); stroke-width: 1.5; }
.q0 rect { fill: var(--q0); } .q1 rect { fill: var(--q1); } .q2 rect { fill: var(--q2); }
.q3 rect { fill: var(--q3); } .q4 rect { fill: var(--q4); } .q5 rect { fill: var(--q5); }
.q6 rect { fill: var(--q6); } .q7 rect { fill: var(--q7); } .q8 rect { fill: var(--q8); }
.q0 .value, .q1 .value, .q2 .value, .q3 .value, .q4 .value { fill: var(--low-ink); }
.q5 .value, .q6 .value, .q7 .value, .q8 .value { fill: var(--high-ink); }
.bad rect { fill: var(--bad-fill); stroke: var(--bad); }
svg .bad .value { fill: var(--bad); font-size: 11px; font-weight: 600; }
.none rect { fill: none; stroke: var(--line); stroke-dasharray: 3 3; }
svg .none .value { fill: var(--muted); }
.o0 polyline { stroke: var(--o0); } .o0 circle { fill: var(--o0); }
.o1 polyline { stroke: var(--o1); } .o1 circle { fill: var(--o1); }
.o2 polyline { stroke: var(--o2); } .o2 circle { fill: var(--o2); }
.o3 polyline { stroke: var(--o3); } .o3 circle { fill: var(--o3); }
.o4 polyline { stroke: var(--o4); } .o4 circle { fill: var(--o4); }
.o5 polyline { stroke: var(--o5); } .o5 circle { fill: var(--o5); }
.ringleader polyline { stroke: var(--ringleader); } .ringleader circle { fill: var(--ringleader); }
.etcd polyline { stroke: var(--etcd); } .etcd circle { fill: var(--etcd); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 12.5px; font-variant-numeric: tabular-nums; }
th, td { padding: 3px 9px; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--muted); font-weight: 600; vertical-align: bottom; }
th:first-child, td:first-child, td:last-child { text-align: left; }
</style>
</head>
<body>
<main>
<h1>What disk, network and timeouts do to a cluster</h1>
"#;
