//! The documents tell the truth, as far as a test can see it: links lead somewhere, names that are
//! named exist, and the tables of `docs/compatibility.md` are what the code does.

use ringleader::api::Method;
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Files below `dir` whose names end in `end`, build outputs left out.
fn files(dir: &str, end: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut dirs = vec![root().join(dir)];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).expect("a directory of the project").flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            let name = name.to_string_lossy();
            if path.is_dir() && !name.starts_with('.') && name != "target" {
                dirs.push(path);
            } else if name.ends_with(end) {
                found.push(path);
            }
        }
    }
    found
}

/// Our own pages.
fn pages() -> Vec<PathBuf> {
    let names = ["README.md", "CHANGELOG.md", "proto/README.md", "tuning/README.md"];
    let mut pages = files("docs", ".md");
    pages.extend(names.iter().map(|name| root().join(name)));
    pages
}

/// `[text](target)` in `page`, outside of blocks of code.
fn links(page: &str) -> Vec<(&str, &str)> {
    let prose = page.split("```").step_by(2);
    let ends = prose.flat_map(|prose| prose.match_indices("](").map(move |(at, _)| (prose, at)));
    ends.filter_map(|(prose, at)| {
        let text = &prose[prose[..at].rfind('[')? + 1..at];
        let target = &prose[at + 2..];
        Some((text, &target[..target.find(')')?]))
    })
    .collect()
}

/// Whether `word` stands in `text` by itself.
fn has_word(text: &str, word: &str) -> bool {
    let inside = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        !text[..at].ends_with(inside) && !text[at + word.len()..].starts_with(inside)
    })
}

/// A heading as the anchor of a link to it.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-'));
    kept.collect::<String>().trim().to_lowercase().replace(' ', "-")
}

#[test]
fn links_lead_somewhere() {
    for path in pages() {
        let page = fs::read_to_string(&path).expect("listed just now");
        for (text, target) in links(&page) {
            if target.contains("://") {
                continue;
            }
            let (file, section) = target.split_once('#').unwrap_or((target, ""));
            let file = path.parent().expect("a page lies in a directory").join(file);
            assert!(file.exists(), "{}: [{text}]({target}) leads nowhere", path.display());
            if !section.is_empty() {
                let other = fs::read_to_string(&file).expect("a page");
                let mut headings = other.lines().filter(|line| line.starts_with('#'));
                let found = headings.any(|heading| anchor(heading) == section);
                assert!(found, "{}: {target}: no such heading", path.display());
            }
        }
    }
}

#[test]
fn a_name_that_links_to_code_is_in_that_file() {
    for path in pages() {
        let page = fs::read_to_string(&path).expect("listed just now");
        for (text, target) in links(&page) {
            let Some(name) = text.strip_prefix('`').and_then(|text| text.strip_suffix('`')) else {
                continue;
            };
            let file = path.parent().expect("a page lies in a directory").join(target);
            if name.contains(['/', '.']) || !target.ends_with(".rs") {
                continue;
            }
            let name = name.rsplit("::").next().expect("split has a last part");
            let module =
                target.ends_with(&format!("{name}.rs")) || target.contains(&format!("{name}/"));
            let code = fs::read_to_string(&file).unwrap_or_default();
            let there = module || has_word(&code, name);
            assert!(there, "{}: there is no `{name}` in {target}", path.display());
        }
    }
}

/// The cells of the tables of `page` whose head has a cell `column`: that column's.
fn column<'a>(page: &'a str, column: &str) -> Vec<&'a str> {
    let mut at = None;
    let mut found = Vec::new();
    for line in page.lines() {
        let Some(row) = line.strip_prefix('|') else {
            at = None;
            continue;
        };
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        match at {
            None => at = Some(cells.iter().position(|cell| *cell == column)),
            Some(Some(at)) => found.extend(cells.get(at)),
            Some(None) => {}
        }
    }
    found
}

/// What stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn tests_that_are_named_exist() {
    let mut code = String::new();
    for dir in ["src", "tests", "proto", "loadgen"] {
        for file in files(dir, ".rs") {
            code += &fs::read_to_string(file).expect("listed just now");
        }
    }
    let mut named = 0;
    for path in pages() {
        let page = fs::read_to_string(&path).expect("listed just now");
        let cells = [column(&page, "test"), column(&page, "kept by")].concat();
        for name in cells.iter().flat_map(|cell| quoted(cell)).filter(|name| !name.contains(' ')) {
            let script = root().join("src/store/scripts").join(name).is_file();
            let there =
                script || root().join(name).is_file() || code.contains(&format!("fn {name}("));
            assert!(there, "{}: there is no test {name}", path.display());
            named += 1;
        }
    }
    assert!(named > 40, "the columns are found: {named} names");
}

/// The rows of the table under `heading`, as cells.
fn rows<'a>(page: &'a str, heading: &str) -> Vec<Vec<&'a str>> {
    let section = page.lines().skip_while(|line| *line != heading).skip(1);
    let rows = section.take_while(|line| !line.starts_with('#'));
    let rows = rows.filter_map(|line| line.strip_prefix('|'));
    rows.skip(2).map(|row| row.split('|').map(str::trim).collect()).collect()
}

/// Every RPC that the `.proto` files have, as service, method and path.
fn rpcs() -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    for file in files("proto/etcd", ".proto") {
        let text = fs::read_to_string(file).expect("listed just now");
        let (mut package, mut service) = ("", "");
        for line in text.lines().map(str::trim) {
            if let Some(rest) = line.strip_prefix("package ") {
                package = rest.trim_end_matches(';');
            } else if let Some(rest) = line.strip_prefix("service ") {
                service = rest.trim_end_matches([' ', '{']);
            } else if let Some((method, _)) =
                line.strip_prefix("rpc ").and_then(|rest| rest.split_once('('))
            {
                let path = format!("/{package}.{service}/{method}");
                found.push((service.to_owned(), method.to_owned(), path));
            }
        }
    }
    found
}

#[test]
fn every_rpc_has_a_row_that_is_true() {
    let page = read("docs/compatibility.md");
    let rows = rows(&page, "## RPCs");
    let rpcs = rpcs();
    assert_eq!(rows.len(), rpcs.len(), "a row for each RPC, and no others");
    for (service, method, path) in rpcs {
        let row = rows.iter().find(|row| row[0] == service && row[1] == method);
        let row = row.unwrap_or_else(|| panic!("{path} has no row"));
        let standing = match Method::parse(&path) {
            Ok(_) => ["done", "differs"].as_slice(),
            Err(status) => {
                assert!(status.message.ends_with("is not built yet in ringleader"), "{status}");
                ["refused"].as_slice()
            }
        };
        assert!(standing.contains(&row[2]), "{path} is {standing:?}, the page says {}", row[2]);
        assert_eq!(row[4].is_empty(), row[2] == "refused", "{path}: what works names its tests");
    }
}

#[test]
fn every_metric_has_a_row() {
    let code = read("src/shard/metrics.rs");
    let names = code.split('"').skip(1).step_by(2).filter_map(|text| text.split('{').next());
    let prefixes = ["etcd_", "grpc_server_", "process_", "ringleader_"];
    let exposed: BTreeSet<_> =
        names.filter(|name| prefixes.iter().any(|prefix| name.starts_with(prefix))).collect();
    let page = read("docs/compatibility.md");
    let rows = rows(&page, "## Metrics");
    let told: BTreeSet<_> = rows.iter().map(|row| row[0].trim_matches('`')).collect();
    assert_eq!(told, exposed);
    assert_eq!(told.len(), rows.len(), "each once");
}

#[test]
fn endpoints_that_are_told_of_are_in_the_code() {
    let code = read("src/shard/http.rs") + &read("src/peer/serve.rs");
    let page = read("docs/compatibility.md");
    let rows = rows(&page, "## HTTP");
    assert!(!rows.is_empty());
    for row in rows {
        let path = row[0].trim_matches('`');
        let is_there = code.contains(&format!("\"{path}\""));
        assert!(is_there, "{path} is not in src/shard/http.rs, nor in src/peer/serve.rs");
    }
}

#[test]
fn a_decision_says_what_would_change_our_mind() {
    let decisions = files("docs/decisions", ".md");
    assert!(!decisions.is_empty());
    for path in decisions {
        let page = fs::read_to_string(&path).expect("listed just now");
        let headings: Vec<_> = page.lines().filter(|line| line.starts_with("## ")).collect();
        let expected = ["## Question", "## Choice", "## Figures", "## What would change our mind"];
        assert_eq!(headings, expected, "{}", path.display());
    }
}
