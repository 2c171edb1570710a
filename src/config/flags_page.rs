//! `docs/flags.md` is written from the table: this test compares, and `UPDATE=1` rewrites.

use super::{
    gates, help,
    table::{Disposition, TABLE},
};
use std::path::Path;

const HEAD: &str = "# Flags

Every flag of etcd 3.4 to 3.7, and ours, with etcd 3.7.1's defaults. A flag can also be given as an
environment variable (`--data-dir` is `ETCD_DATA_DIR`) or as a key of the file that `--config-file`
names.

- **works**: does what etcd's does.
- **ignored**: taken and without effect; the log says so. Ignoring it loses no data, weakens no
  protection and changes no answer.
- **refused**: any value but the default ends the start with a sentence that names the flag, the
  value and the reason.

This page is written from `src/config/table.rs` by a test: `UPDATE=1 cargo test --lib flags_page`.
";

fn page() -> String {
    let mut page = HEAD.to_owned();
    for (group, flags) in TABLE {
        page += &format!("\n## {group}\n\n| flag | default | | |\n|---|---|---|---|\n");
        for flag in *flags {
            let standing = match flag.disposition {
                Disposition::Works => "works",
                Disposition::Harmless(_) => "ignored",
                Disposition::Refused(_) => "refused",
                Disposition::Renamed(_) | Disposition::Gate(_) => "old name",
            };
            let default = match flag.default {
                "" => String::new(),
                text => format!("`{text}`"),
            };
            let sentence = match flag.disposition {
                Disposition::Harmless(why) | Disposition::Refused(why) => why.to_owned(),
                Disposition::Renamed(to) => format!("`--{to}`"),
                Disposition::Gate(gate) => format!("`--feature-gates={gate}=true`"),
                Disposition::Works => help::sentence(flag),
            };
            page += &format!("| `--{}` | {default} | {standing} | {sentence} |\n", flag.name);
        }
    }
    page.push_str(
        "\n## Feature gates\n\n| gate | default | another value | |\n|---|---|---|---|\n",
    );
    for (gate, default, other) in gates::rows() {
        let (standing, why) = match other {
            Ok(why) => ("ignored", why),
            Err(why) => ("refused", why),
        };
        page += &format!("| `{gate}` | {default} | {standing} | {why} |\n");
    }
    page
}

#[test]
fn the_page_of_flags_is_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/flags.md");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::create_dir_all(path.parent().expect("docs")).expect("docs can be made");
        std::fs::write(&path, page()).expect("the page can be written");
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == page(), "docs/flags.md is not what the table says; run with UPDATE=1");
}
