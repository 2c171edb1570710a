//! The floor plan, kept: who may name whom, where each outside crate has its door, where bounds and
//! `unsafe` live. The tables are the plan; a change of plan is a change here, with its reason.
//!
//! ```text
//!  main → runtime → shard → api → mesh, node → (wal | consensus | store) → tree → io
//!                                            config        log · fatal → limits · types · metrics
//! ```

#[path = "floor_plan/source.rs"]
mod source;

use source::{Named, Source};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// Each module in `src/` and the modules it may name besides itself. `wal`, `tree` and `consensus`
/// never meet here; `metrics` are given values and know nobody.
const PLAN: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("metrics", &[]),
    ("limits", &[]),
    ("identity", &["types"]),
    ("fatal", &["limits"]),
    ("log", &["limits"]),
    ("io", &["limits", "types", "log"]),
    ("wal", &["io", "limits"]),
    // A page or record that is damaged is noticed by the read that comes to it, on whatever core: it dies.
    ("tree", &["io", "fatal", "limits", "types"]),
    ("consensus", &["limits", "types"]),
    ("store", &["tree", "limits", "types"]),
    ("mesh", &["consensus", "store", "tree", "limits", "types"]),
    (
        "node",
        &[
            "consensus",
            "wal",
            "store",
            "tree",
            "mesh",
            "io",
            "metrics",
            "fatal",
            "log",
            "limits",
            "types",
        ],
    ),
    ("config", &["identity", "log", "limits", "types"]),
    ("net", &["io", "mesh", "log", "limits"]),
    ("api", &["config", "identity", "mesh", "store", "limits", "types"]),
    (
        "peer",
        &[
            "net",
            "api",
            "mesh",
            "consensus",
            "store",
            "tree",
            "io",
            "metrics",
            "log",
            "limits",
            "types",
        ],
    ),
    ("shard", &["net", "api", "mesh", "store", "io", "metrics", "log", "limits", "types"]),
    (
        "runtime",
        &[
            "config",
            "shard",
            "peer",
            "net",
            "api",
            "node",
            "mesh",
            "consensus",
            "wal",
            "store",
            "tree",
            "io",
            "metrics",
            "fatal",
            "identity",
            "log",
            "limits",
            "types",
        ],
    ),
    ("inspect", &["node", "store", "tree", "wal", "io", "limits", "types"]),
    (
        "restore",
        &["config", "inspect", "runtime", "node", "store", "tree", "wal", "io", "limits", "types"],
    ),
    ("main", &["config", "inspect", "restore", "runtime"]),
];

/// Inside `node`, only the start and the driver move bytes: nobody else names the machine, nor the
/// log, but for what cuts to its frames' size. The simulator starts and drives members by the same two.
const ONLY_IN: &[(&str, &str, &[&str])] = &[
    ("node", "wal", &["node/drive.rs", "node/pieces.rs", "node/recover.rs"]),
    ("node", "io", MOVERS),
];

/// Each outside crate and the files that may name it; a folder ends in `/`.
const DOORS: &[(&str, &[&str])] = &[
    ("arc_swap", &["mesh.rs"]),
    ("atomic_waker", &["mesh.rs"]),
    (
        "bytes",
        &[
            "api/",
            "consensus/",
            "mesh.rs",
            "net/",
            "node/",
            "peer/",
            "shard/",
            "store/",
            "tree/",
            "wal/",
        ],
    ),
    // HashKV, which is Castagnoli's; what lies on disk has crc32fast's.
    ("crc32c", &["store/hash.rs"]),
    ("crc32fast", &["tree/", "wal/"]),
    (
        "futures_lite",
        &[
            "inspect/",
            "io/",
            "mesh.rs",
            "net/",
            "node/drive.rs",
            "node/recover.rs",
            "peer/",
            "restore/",
            "runtime/",
            "shard/",
            "tree/",
        ],
    ),
    ("glommio", &["io/glommio.rs", "net/", "peer/", "runtime.rs", "runtime/", "shard/"]),
    ("httparse", &["net/http1.rs", "runtime/bootstrap/http.rs"]),
    ("libc", &["io/"]),
    ("memmap2", &["io/"]),
    ("prost", &["api/", "peer/", "store/", "shard/inside/"]),
    (
        "proto",
        &[
            "api/",
            "peer/",
            "store/command.rs",
            "store/convert.rs",
            "shard/inside/",
            "shard/watching.rs",
        ],
    ),
    ("raft", &["consensus/"]),
    ("rtrb", &["mesh.rs"]),
    ("saphyr", &["config/file.rs"]),
    ("serde_json", &["api/http.rs", "inspect/", "runtime/bootstrap/", "store/members.rs"]),
    ("sha1", &["identity.rs"]),
    ("signal_hook", &["runtime.rs"]),
    ("simple_dns", &["runtime/bootstrap/dns.rs"]),
    ("slog", &["consensus/"]),
    ("socket2", &["net/accept.rs", "runtime.rs"]),
];

/// Modules that decide: values in, values out. What waits beside them moves bytes.
const DECIDERS: &[&str] = &["api", "consensus", "node", "store"];
/// The same in part of a module.
const DECIDERS_WITHIN: &[&str] = &["shard/watch/"];
const MOVERS: &[&str] = &["node/drive.rs", "node/recover.rs"];

/// What a decider may not ask: the machine, the clock, chance.
const MACHINE: &[&[&str]] = &[
    &["std", "fs"],
    &["std", "net"],
    &["std", "thread"],
    &["std", "process"],
    &["std", "env"],
    &["std", "time", "Instant"],
    &["std", "time", "SystemTime"],
];

/// Constants that look like bounds and are facts of a format or of a structure.
const FORMATS: &[(&str, &[&str])] = &[
    ("api/encode.rs", &["PREFIX_BYTES"]),
    ("api/watch.rs", &["HEAD_BYTES"]),
    ("io/mod.rs", &["BLOCK_BYTES"]),
    ("shard/grpc.rs", &["PREFIX_BYTES"]),
    (
        "shard/http2/frame.rs",
        &["HEAD_BYTES", "FRAME_BYTES_MAX", "FRAME_BYTES_LEGAL_MAX", "WINDOW_MAX"],
    ),
    ("shard/http2/hpack.rs", &["ENTRY_BYTES"]),
    ("shard/http2/huffman.rs", &["CODE_BITS_MAX"]),
    ("tree/dead.rs", &["HEAD_BYTES"]),
    ("tree/index.rs", &["HEAD_BYTES"]),
    ("tree/lease.rs", &["HEAD_BYTES", "LEASE_BYTES"]),
    ("tree/manifest.rs", &["PART_BYTES"]),
    ("tree/map.rs", &["BRANCH_CHILDREN_MIN"]),
    ("tree/page.rs", &["HEADER_BYTES", "SLOT_BYTES", "CHILD_BYTES", "LINE_BYTES"]),
    ("tree/record.rs", &["HEADER_BYTES", "LINK_BYTES", "ALIGN_BYTES", "RECORD_BYTES_MIN"]),
    ("tree/root.rs", &["ENTRY_BYTES", "INDEX_ENTRY_BYTES"]),
    ("types.rs", &["SHARDS_MAX"]),
    ("wal/frame.rs", &["PAYLOAD_BYTES", "FRAME_HEAD_BYTES", "MAGIC_WRONG_BITS_MAX"]),
    ("wal/record.rs", &["RECORD_HEAD_BYTES"]),
    ("wal/segment.rs", &["SEGMENT_BYTES", "HEADER_BYTES"]),
];

/// Small modules that keep an invariant the compiler cannot see, and open by saying so.
const UNSAFE: &[&str] = &[
    "io/buf.rs",
    "io/host.rs",
    "io/process.rs",
    "io/map.rs",
    "io/thread.rs",
    "net/adopt.rs",
    "tree/append_vec.rs",
    "tree/node.rs",
];

/// A file to be judged: its path below `src/`, as `store/txn.rs`, and what it says.
struct Room<'a> {
    path: &'a str,
    text: &'a str,
    source: Source,
}

impl<'a> Room<'a> {
    fn new(path: &'a str, text: &'a str) -> Self {
        Self { path, text, source: Source::read(text) }
    }

    /// The module in `src/` that the file belongs to; none for `lib.rs`.
    fn module(&self) -> Option<&str> {
        let first = self.path.split('/').next().unwrap_or_default();
        let module = first.strip_suffix(".rs").unwrap_or(first);
        (module != "lib").then_some(module)
    }

    /// How many `super`s lead from this file to the crate's root.
    fn depth(&self) -> usize {
        self.path.trim_end_matches("/mod.rs").split('/').count()
    }

    /// The module in `src/` that a path leads to, if it leads to one.
    fn inward<'p>(&self, path: &'p Named) -> Option<&'p str> {
        let supers = path.segments.iter().take_while(|segment| *segment == "super").count();
        let from = match path.segments[0].as_str() {
            "crate" | "ringleader" => 1,
            "super" if supers == self.depth() => supers,
            _ => return None,
        };
        let named = path.segments.get(from)?.as_str();
        PLAN.iter().map(|(module, _)| *module).find(|module| *module == named)
    }

    fn complaint(&self, line: usize, what: &str) -> String {
        format!("src/{}:{line}: {what}", self.path)
    }

    /// Everything here that is not as planned.
    fn complaints(&self) -> Vec<String> {
        let paths = self.source.paths();
        let mut all = Vec::new();
        for path in &paths {
            let found = [self.looks_up(path), self.past_a_door(path), self.asks_the_machine(path)];
            all.extend(found.into_iter().flatten().map(|what| self.complaint(path.line, &what)));
        }
        all.extend(self.waits());
        all.extend(self.bounds());
        all.extend(self.unsafe_code());
        if !self.text.starts_with("//!") {
            all.push(self.complaint(1, "a file opens with //! and what it is"));
        }
        all
    }

    fn looks_up(&self, path: &Named) -> Option<String> {
        let (module, named) = (self.module()?, self.inward(path)?);
        if module == named {
            return None;
        }
        let Some((_, may)) = PLAN.iter().find(|(room, _)| *room == module) else {
            return Some(format!("{module} is not in the plan"));
        };
        if !may.contains(&named) {
            return Some(format!("{module} may not name {named}"));
        }
        let only =
            ONLY_IN.iter().find(|(in_module, what, _)| (*in_module, *what) == (module, named));
        let (_, _, files) = only?;
        (!files.contains(&self.path)).then(|| format!("only {files:?} may name {named} here"))
    }

    fn past_a_door(&self, path: &Named) -> Option<String> {
        let (name, doors) = DOORS.iter().find(|(name, _)| path.segments[0] == *name)?;
        let open = doors.iter().any(|door| is_in(self.path, door));
        (!open).then(|| format!("{name} is named in {doors:?} only"))
    }

    fn decides(&self) -> bool {
        let within = || DECIDERS_WITHIN.iter().any(|folder| is_in(self.path, folder));
        (self.module().is_some_and(|module| DECIDERS.contains(&module)) || within())
            && !MOVERS.contains(&self.path)
    }

    fn asks_the_machine(&self, path: &Named) -> Option<String> {
        let asked = MACHINE.iter().find(|asked| {
            path.segments.len() >= asked.len()
                && asked.iter().zip(&path.segments).all(|(a, b)| a == b)
        })?;
        self.decides().then(|| format!("a decider does not ask {}", asked.join("::")))
    }

    fn waits(&self) -> Vec<String> {
        let words = ["async", "await"].iter().filter(|_| self.decides());
        let found = words.filter_map(|word| self.source.has_word(word));
        found.map(|line| self.complaint(line, "a decider does not wait")).collect()
    }

    fn bounds(&self) -> Vec<String> {
        if self.path == "limits.rs" {
            return Vec::new();
        }
        let formats =
            FORMATS.iter().find(|(path, _)| *path == self.path).map_or(&[][..], |(_, n)| n);
        let is_bound = |name: &str| {
            let words: Vec<_> = name.split('_').collect();
            let last = words[words.len() - 1];
            words.len() > 1
                && ["MAX", "MIN", "BYTES", "WAIT", "INTERVAL", "TIMEOUT"].contains(&last)
        };
        let bounds = self.source.constants().filter(|name| is_bound(&name.text));
        let astray = bounds.filter(|name| !formats.contains(&name.text.as_str()));
        astray
            .map(|name| {
                self.complaint(
                    name.line,
                    &format!("{} is a bound: limits.rs is its place", name.text),
                )
            })
            .collect()
    }

    fn unsafe_code(&self) -> Vec<String> {
        let opens = self.text.lines().take_while(|line| {
            line.is_empty() || line.starts_with("//!") || line.starts_with("#![")
        });
        let says_so = opens.into_iter().any(|line| line.starts_with("#![allow(unsafe_code"));
        let listed = UNSAFE.contains(&self.path);
        let used = self.source.has_word("unsafe").or(self.source.has_word("unsafe_code"));
        match used {
            Some(line) if !listed || !says_so => {
                let what = "unsafe code stands in modules on the list that open by allowing it";
                vec![self.complaint(line, what)]
            }
            None if listed => vec![self.complaint(1, "no unsafe code is left: off the list")],
            _ => Vec::new(),
        }
    }
}

fn is_in(path: &str, door: &str) -> bool {
    door.strip_suffix('/').map_or(path == door, |folder| {
        path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/') || rest == ".rs")
    })
}

// ── reading the tree ────────────────────────────────────────────────────────────────────────────

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The Rust files below a folder of the repository, their paths below it, and what they say.
fn files(folder: &str) -> BTreeMap<String, String> {
    let base = Path::new(ROOT).join(folder);
    let (mut pending, mut found) = (vec![base.clone()], BTreeMap::new());
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            let is_target = path.file_name().is_some_and(|name| name == "target");
            if path.is_dir() && !is_target {
                pending.push(path);
            } else if path.extension().is_some_and(|kind| kind == "rs") {
                let below = path.strip_prefix(&base).expect("found below it").display().to_string();
                found.insert(below, fs::read_to_string(&path).expect("a source file is text"));
            }
        }
    }
    found
}

/// Whether a file below `src/` exists in test builds only, by what the files above it say.
fn is_test_only(path: &str, test_modules: &BTreeSet<String>) -> bool {
    test_modules.iter().any(|module| is_in(path, &format!("{module}/")))
}

/// Paths, without `.rs`, of modules that exist in test builds only.
fn test_modules(files: &BTreeMap<String, String>) -> BTreeSet<String> {
    let of_file = |(path, text): (&String, &String)| {
        let folder = path.trim_end_matches(".rs").trim_end_matches("/mod").to_owned();
        let modules = Source::read(text).test_modules;
        modules.into_iter().map(move |module| match folder.as_str() {
            "lib" => module,
            folder => format!("{folder}/{module}"),
        })
    };
    files.iter().flat_map(of_file).collect()
}

fn no_complaints(complaints: Vec<String>) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn the_house_is_as_planned() {
    let files = files("src");
    let tests = test_modules(&files);
    let rooms = files.iter().filter(|(path, _)| !is_test_only(path, &tests));
    let rooms: Vec<_> = rooms.map(|(path, text)| Room::new(path, text)).collect();
    assert!(rooms.len() > 50, "the sources were found");
    no_complaints(rooms.iter().flat_map(Room::complaints).collect());
}

#[test]
fn every_module_is_in_the_plan_and_every_door_leads_somewhere() {
    let files = files("src");
    let exists = |door: &str| files.keys().any(|path| is_in(path, door));
    let mut complaints = Vec::new();
    for path in files.keys() {
        let room = Room::new(path, "");
        let planned = |module: &&str| PLAN.iter().any(|(planned, _)| planned == module);
        complaints.extend(
            room.module()
                .filter(|module| !planned(module))
                .map(|module| format!("{module}: no plan")),
        );
    }
    let doors = DOORS.iter().flat_map(|(_, doors)| *doors);
    let paths = doors.chain(UNSAFE).chain(MOVERS).chain(FORMATS.iter().map(|(path, _)| path));
    complaints.extend(paths.filter(|path| !exists(path)).map(|path| format!("{path} is gone")));
    for (at, (module, may)) in PLAN.iter().enumerate() {
        let below: Vec<_> = PLAN[..at].iter().map(|(module, _)| module).collect();
        let up = may.iter().filter(|named| !below.contains(named));
        complaints.extend(up.map(|named| format!("{module} → {named} runs upward in the plan")));
    }
    no_complaints(complaints);
}

/// A package: where its manifest lies, and where code of it may name a dependency.
const PACKAGES: &[(&str, &[&str], &[&str])] = &[
    ("", &["src"], &["src", "tests/floor_plan", "tests/fuzz", "tests/sim", "benches"]),
    ("loadgen", &["loadgen/src"], &["loadgen/src", "loadgen/tests"]),
    ("proto", &["proto/src"], &["proto/tests", "proto/src"]),
    ("tests/differential", &["tests/differential/src"], &["tests/differential/tests"]),
    ("tests/e2e", &["tests/e2e/src"], &["tests/e2e/tests"]),
];

/// Names in a table of a manifest, as code says them.
fn dependencies(manifest: &str, table: &str) -> Vec<String> {
    let lines = manifest.lines().skip_while(|line| line.trim() != table).skip(1);
    let rows = lines.take_while(|line| !line.starts_with('['));
    let names = rows.filter_map(|row| row.split(['=', '.']).next()).map(str::trim);
    let named = names.filter(|name| !name.is_empty() && !name.starts_with('#'));
    named.map(|name| name.replace('-', "_")).collect()
}

/// Dependencies that no code names.
fn unused(wanted: &[String], code: &[String]) -> Vec<String> {
    let used: BTreeSet<_> = code.iter().flat_map(|text| Source::crates_in(text)).collect();
    wanted.iter().filter(|name| !used.contains(*name)).cloned().collect()
}

#[test]
fn every_dependency_is_used_and_has_a_door() {
    let text = |folders: &[&str]| -> Vec<String> {
        folders.iter().flat_map(|folder| files(folder).into_values()).collect()
    };
    let mut complaints = Vec::new();
    for (folder, code, tests) in PACKAGES {
        let manifest = Path::new(ROOT).join(folder).join("Cargo.toml");
        let Ok(manifest) = fs::read_to_string(manifest) else { continue };
        let wanted = dependencies(&manifest, "[dependencies]");
        let idle = unused(&wanted, &text(code)).into_iter();
        complaints.extend(idle.map(|name| format!("{folder}: nobody names {name}")));
        let for_tests = dependencies(&manifest, "[dev-dependencies]");
        let idle = unused(&for_tests, &text(tests)).into_iter();
        complaints.extend(idle.map(|name| format!("{folder}: no test names {name}")));
        if folder.is_empty() {
            let has_door = |name: &String| DOORS.iter().any(|(known, _)| known == name);
            let astray = wanted.iter().filter(|name| !has_door(name));
            complaints.extend(astray.map(|name| format!("{name} has no door in the plan")));
            let gone = DOORS.iter().filter(|(name, _)| !wanted.iter().any(|w| w == name));
            complaints.extend(gone.map(|(name, _)| format!("{name} has a door and is not wanted")));
        }
    }
    no_complaints(complaints);
}

/// Words of things left undone, put together here so that this file does not find itself.
fn undone(text: &str) -> Option<usize> {
    let words = [
        ["TO", "DO"].concat(),
        ["FIX", "ME"].concat(),
        ["X", "XX"].concat(),
        ["to", "do!"].concat(),
        ["unimple", "mented!"].concat(),
        ["#[ig", "nore"].concat(),
        "<".repeat(7),
        ">".repeat(7),
    ];
    text.lines().position(|line| words.iter().any(|word| line.contains(word.as_str())))
}

#[test]
fn nothing_is_left_undone_and_every_file_says_what_it_is() {
    let mut complaints = Vec::new();
    for folder in ["src", "tests", "benches", "loadgen", "proto/tests"] {
        for (path, text) in files(folder) {
            if let Some(line) = undone(&text) {
                complaints.push(format!("{folder}/{path}:{}: something is left undone", line + 1));
            }
            if !text.starts_with("//!") {
                complaints.push(format!("{folder}/{path}: a file opens with //! and what it is"));
            }
        }
    }
    no_complaints(complaints);
}

// ── the plan's own tests ────────────────────────────────────────────────────────────────────────

/// What is complained about in a file that says this.
fn judged(path: &str, code: &str) -> Vec<String> {
    let text = format!("//! A head.\n{code}");
    Room::new(path, &text).complaints()
}

#[test]
fn looking_up_is_seen_however_it_is_written() {
    let up = [
        "use crate::node::Node;",
        "pub use crate::{\n    limits::A,\n    node::{self, Node},\n};",
        "fn f() { let x = crate::node::make(); }",
        "type T = Vec<crate::node::Node>;",
        "use super::super::node::Node;",
        "use crate::{store::Store as S, node as n};",
        "pub(crate) use crate::node;",
    ];
    for code in up {
        let complaints = judged("store/txn.rs", code);
        let expected = "store may not name node";
        assert!(complaints.iter().any(|said| said.contains(expected)), "{code}: {complaints:?}");
    }
    assert_eq!(
        judged("store/txn.rs", "use crate::node::N;"),
        ["src/store/txn.rs:2: store may not name node"]
    );
}

#[test]
fn siblings_do_not_meet() {
    for (path, code) in [
        ("wal/append.rs", "use crate::tree::Tree;"),
        ("tree/mod.rs", "use crate::wal::Wal;"),
        ("consensus/log.rs", "use crate::wal::Wal;"),
        ("metrics.rs", "use crate::types::Index;"),
        ("node/apply.rs", "use crate::wal::Wal;"),
    ] {
        assert_eq!(judged(path, code).len(), 1, "{path}: {code}");
    }
    assert!(
        judged("node/drive.rs", "use crate::{wal::Wal, tree::Tree, consensus::Append};").is_empty()
    );
}

#[test]
fn comments_texts_and_tests_are_not_code() {
    let silent = r####"
        // use crate::node::Node;
        /* crate::node::x /* crate::node::y */ crate::node::z */
        /// See [`crate::node::Node`].
        const A: &str = "crate::node::Node \" crate::node";
        const B: &[u8] = br#"crate::node::Node " "#;
        const C: (char, char) = ('"', '\'');
        fn f<'a>(x: &'a str) {}
        #[cfg(test)]
        use crate::node::Node;
        #[cfg(test)]
        fn g<A, B>(a: A, b: B) { crate::node::f({ 1 }) }
        #[cfg(test)]
        mod tests {
            use crate::node::Node;
            const WAIT_MAX: usize = 3;
            fn f() { unsafe {} }
        }
    "####;
    assert_eq!(judged("store/txn.rs", silent), [] as [&str; 0]);
    let after = format!("{silent}\nuse crate::node::Node;");
    assert_eq!(judged("store/txn.rs", &after).len(), 1, "what follows them is read");
    let hidden =
        Source::read("#[cfg(test)]\nmod tests;\n#[cfg(test)]\npub(crate) mod page;\nmod a;");
    assert_eq!(hidden.test_modules, ["tests", "page"]);
}

#[test]
fn a_crate_is_named_at_its_door_only() {
    for code in [
        "use glommio::net::TcpStream;",
        "fn f() { glommio::spawn_local(g()); }",
        "fn f() { ::glommio::spawn_local(g()); }",
        "pub use glommio;",
    ] {
        let complaints = judged("store/mod.rs", code);
        assert_eq!(complaints.len(), 1, "{code}");
        assert!(complaints[0].contains("glommio is named in"), "{complaints:?}");
        assert!(judged("shard/accept.rs", code).is_empty(), "{code}");
    }
    let own = "mod glommio;\nuse glommio::Disk;\nfn f() { glommio::open(self.raft.term) }";
    assert!(judged("io/mod.rs", own).is_empty(), "a module of ours may have a crate's name");
    let used = "use super::glommio::{self, Disk};\nfn f() { glommio::open() }";
    assert!(judged("io/clock.rs", used).is_empty());
    let outside = "use glommio::{self, Disk};\nfn f() { glommio::open() }";
    assert_eq!(judged("io/clock.rs", outside).len(), 3);
}

#[test]
fn deciders_do_not_wait_and_ask_no_machine() {
    for code in ["async fn f() {}", "use std::{fs, io};", "fn f() { std::time::Instant::now(); }"] {
        assert_eq!(judged("store/txn.rs", code).len(), 1, "{code}");
        assert!(judged("node/drive.rs", code).is_empty(), "{code}");
    }
}

#[test]
fn bounds_and_unsafe_code_have_their_places() {
    assert_eq!(judged("store/txn.rs", "const DEPTH_MAX: usize = 3;").len(), 1);
    assert_eq!(judged("store/txn.rs", "pub(crate) const RETRY_WAIT: Duration = x();").len(), 1);
    assert!(judged("limits.rs", "pub const DEPTH_MAX: usize = 3;").is_empty());
    assert!(judged("wal/segment.rs", "const HEADER_BYTES: usize = 3;").is_empty());
    assert_eq!(judged("store/txn.rs", "fn f() { unsafe { g() } }").len(), 1);
    assert_eq!(judged("store/txn.rs", "#[allow(unsafe_code)]\nfn f() {}").len(), 1);
    assert_eq!(judged("io/buf.rs", "fn f() { unsafe { g() } }").len(), 1, "it does not say so");
    assert!(judged("io/buf.rs", "#![allow(unsafe_code)]\nfn f() { unsafe { g() } }").is_empty());
    assert_eq!(judged("io/buf.rs", "fn f() {}").len(), 1, "it has left the list");
}

#[test]
fn undone_things_and_idle_crates_are_found() {
    assert_eq!(undone(&["fine\n// TO", "DO: more"].concat()), Some(1));
    assert_eq!(undone("fine"), None);
    assert_eq!(Room::new("store/a.rs", "fn f() {}").complaints().len(), 1, "no head");
    let manifest =
        "[dependencies]\nb-c = \"1\"\na.workspace = true\n\n[dev-dependencies]\nd = {}\n";
    let wanted = dependencies(manifest, "[dependencies]");
    assert_eq!(wanted, ["b_c", "a"]);
    assert_eq!(unused(&wanted, &["use a::B; // b_c::x".into()]), ["b_c"]);
}
