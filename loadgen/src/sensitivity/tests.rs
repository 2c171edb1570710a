//! The page and the flags, from cells that nobody measured.

use super::*;

/// Every cell of a grid, with figures that follow from where it is.
fn rows(axes: &Axes, members: usize) -> Vec<Row> {
    let cells = if members == 1 { axes.clone().alone() } else { axes.clone() }.cells(&Program::ALL);
    let row = |setting: Setting| {
        let Setting { place, clocks, .. } = setting;
        if clocks.election_ms <= 2 * place.network_ms {
            let trouble = "at the start: no leader <m0> & \"m1\" for 3.2 s".into();
            return Row { trouble, ..Row::empty(setting) };
        }
        let once = 0.4 + (place.sync_ms + 2 * place.network_ms) as f64;
        Row {
            start_s: Some(1.0),
            per_second: Some(20_000.0 / once),
            p50_ms: Some(once),
            p99_ms: Some(3.0 * once),
            p999_ms: Some(9.0 * once),
            max_ms: Some(9.5 * once),
            stall_ms: Some(once),
            elections: Some(u64::from(clocks.election_ms < 100)),
            failed: Some(0),
            leaderless_ms: vec![1.3 * clocks.election_ms as f64],
            ..Row::empty(setting)
        }
    };
    cells.into_iter().map(row).collect()
}

fn html(axes: &Axes, members: usize, rows: &[Row]) -> String {
    let disk = json!({ "p50_ms": 0.3, "p99_ms": 0.9, "max_ms": 2.0, "election_ms_asked": 100 });
    let known = Known {
        effort: Effort::QUICK,
        members: members as u64,
        cpus: 2,
        disk: &disk,
        round_trip_ms: 0.0,
    };
    let server = json!({ "name": "etcd", "version": "3.7.1", "build": "00" });
    let head = Head {
        setup: json!({ "servers": [server], "members": members }),
        scene: json!({ "host": "h<1>", "date": "2026-11-23T09:00:00Z", "cpus": 2 }),
        disk: disk.clone(),
    };
    let sections = Sections {
        head: &head,
        effort: Effort::QUICK,
        cells: axes.cells(&Program::ALL).len(),
        rows,
        advice: &Advice::of(rows, &known),
    };
    let steps = [10_000, 100_000];
    let grown = Program::ALL.map(|program| steps.map(|keys| growth::tests::grown(program, keys)));
    page::page(&[sections.html(), growth::section(&head, &grown.concat())])
}

/// Names of elements that have no end of their own.
const VOID: [&str; 3] = ["meta", "br", "!DOCTYPE"];

/// Every element ends where it should, and no `<` or `&` stands for itself.
fn assert_well_formed(html: &str) {
    let mut open: Vec<&str> = Vec::new();
    let style = html.find("</style>").expect("there is a style");
    let (head, body) = html.split_at(style);
    let head = &head[..head.find("<style>").expect("there is a style") + "<style>".len()];
    for text in [head, body] {
        for piece in text.split('<').skip(1) {
            let (tag, after) = piece.split_once('>').unwrap_or_else(|| panic!("<{piece}"));
            assert!(!after.contains('>'), "a bare > behind <{tag}>");
            for amp in after.split('&').skip(1) {
                assert!(amp.contains(';'), "a bare & in {after:?}");
            }
            let name = tag.split_whitespace().next().expect("a name");
            match name.strip_prefix('/') {
                Some(name) => assert_eq!(open.pop(), Some(name), "{tag}"),
                None if tag.ends_with('/') || VOID.contains(&name) => {}
                None => open.push(name),
            }
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

#[test]
fn the_page_is_well_formed_and_needs_nothing_from_elsewhere() {
    for (axes, members) in [(Axes::quick(), 3), (Axes::full(), 5), (Axes::full(), 1)] {
        let rows = rows(&axes, members);
        for rows in [&rows[..], &rows[..1], &[]] {
            let html = html(&axes, members, rows);
            assert_well_formed(&html);
            for word in
                ["http:", "https:", "<script", "<link", "src=", "url(", "@import", "NaN", "inf,"]
            {
                assert!(!html.contains(word), "{word}");
            }
            assert!(html.contains("h&lt;1&gt;"), "what others say is escaped");
        }
    }
}

#[test]
fn the_page_shows_what_was_measured_and_what_was_not() {
    let axes = Axes::quick();
    let mut rows = rows(&axes, 3);
    let page = html(&axes, 3, &rows);
    assert!(page.contains(&format!("all {} cells, each a cluster of 3", rows.len())));
    assert!(page.contains("restart after kill -9"));
    assert!(page.contains("Ringleader: p99") && page.contains("etcd: elections without cause"));
    assert!(page.contains(">no leader<") && page.contains("&lt;m0&gt; &amp; &quot;m1&quot;"));
    assert!(page.contains("etcd: not measured where a sync is longer"));
    let cells = rows.len();
    rows.truncate(5);
    assert!(html(&axes, 3, &rows).contains(&format!("5 of {cells} cells")));
}

fn refused(line: &str) -> String {
    let flags = Flags::new(line.split_whitespace().map(str::to_owned));
    command(flags, line, &mut Vec::new()).expect_err("it is refused")
}

#[test]
fn flags_that_are_wrong_are_told_with_the_usage() {
    assert!(refused("--members 4").starts_with("--members 4: 1, 3 or 5\n\nloadgen sensitivity"));
    assert!(refused("--seconds 0").starts_with("--seconds 0: at least 0.1\n"));
    assert!(refused("--member 3").starts_with("unknown flag --member\n"));
    assert!(refused("--tail 5").starts_with("--tail 5: a part and milliseconds"));
    assert!(refused("--grow --members 3").starts_with("unknown flag --members\n"));
}

#[test]
fn a_server_that_is_none_is_named() {
    let out = std::env::temp_dir();
    let said = |server: &str| refused(&format!("--out {} --server {server}", out.display()));
    assert!(
        said("/nowhere").starts_with("--server /nowhere: No such file"),
        "{}",
        said("/nowhere")
    );
    let passwd = said("/etc/passwd");
    assert!(passwd.starts_with("--server /etc/passwd: Permission denied"), "{passwd}");
    assert_eq!(
        said("/bin/true"),
        "--server /bin/true: --version does not say that it is Ringleader"
    );
    assert!(refused("--out /proc/x").starts_with("--out /proc/x: "));
}
