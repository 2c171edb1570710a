//! The file with all cells: what was measured where, one line for each, appended as it is measured. What is in
//! it is not measured again.
//!
//! ```text
//!   # setup {"members":3, ..}     what must be the same for a run to go on with it
//!   # scene {..}                  where and when it was begun
//!   # disk {..}                   what the disk was found to be; or why not
//!   server,sync_ms,..
//!   ringleader,0,..
//! ```

use std::{
    fs::{File, TryLockError},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use serde_json::Value;

/// What stands above the lines.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Head {
    pub(super) setup: Value,
    pub(super) scene: Value,
    pub(super) disk: Value,
}

/// One line.
pub(super) trait Line: Sized {
    /// What stands above the columns.
    const COLUMNS: &'static str;

    fn fields(&self) -> Vec<String>;

    /// None for a line that is none of ours.
    fn read(fields: &[String]) -> Option<Self>;
}

/// The open file. No other process of ours writes to it.
#[derive(Debug)]
pub(super) struct Table<L> {
    path: PathBuf,
    file: File,
    pub(super) head: Head,
    pub(super) lines: Vec<L>,
}

impl<L: Line> Table<L> {
    /// Opens the file, or makes it with the head; `fresh`: whatever was in it. A last line that was cut
    /// short is removed.
    ///
    /// # Errors
    /// A sentence with the file's name: it cannot be written, another run has it, or it was made by a
    /// run with another setup.
    pub(super) fn open(
        path: &Path,
        setup: &Value,
        fresh: bool,
        head: impl FnOnce() -> Head,
    ) -> Result<Self, String> {
        let named = |error: io::Error| format!("{}: {error}", path.display());
        let options =
            File::options().read(true).write(true).create(true).truncate(false).open(path);
        let mut file = options.map_err(named)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(format!("{}: another run is writing to it", path.display()));
            }
            Err(TryLockError::Error(error)) => return Err(named(error)),
        }
        let mut text = String::new();
        if fresh {
            file.set_len(0).map_err(named)?;
        } else {
            file.read_to_string(&mut text).map_err(named)?;
        }
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let mut table = match parse(&text[..whole]) {
            _ if text.is_empty() => {
                let head = head();
                write_head::<L>(&mut file, &head).map_err(named)?;
                return Ok(Self { path: path.into(), file, head, lines: Vec::new() });
            }
            Some((head, lines)) => Self { path: path.into(), file, head, lines },
            None => {
                return Err(format!(
                    "{} is no such table; name another --out, or replace it with --fresh",
                    path.display()
                ));
            }
        };
        if let Some(differences) = differences(&table.head.setup, setup) {
            return Err(format!(
                "{} was measured otherwise ({differences}); name another --out, or replace it with \
                 --fresh",
                path.display()
            ));
        }
        let cut = table.file.set_len(whole as u64);
        cut.and_then(|()| table.file.seek(SeekFrom::End(0))).map_err(named)?;
        Ok(table)
    }

    /// What is in the file, if there is one of ours.
    pub(super) fn look(path: &Path) -> Option<(Head, Vec<L>)> {
        let text = std::fs::read_to_string(path).ok()?;
        parse(&text[..text.rfind('\n').map_or(0, |end| end + 1)])
    }

    /// Appends a line.
    pub(super) fn push(&mut self, line: L) -> Result<(), String> {
        let text = row(&line.fields());
        let written = self.file.write_all(text.as_bytes());
        written.map_err(|error| format!("{}: {error}", self.path.display()))?;
        self.lines.push(line);
        Ok(())
    }
}

fn write_head<L: Line>(file: &mut File, head: &Head) -> io::Result<()> {
    let Head { setup, scene, disk } = head;
    let columns = L::COLUMNS;
    let text = format!("# setup {setup}\n# scene {scene}\n# disk {disk}\n{columns}\n");
    file.write_all(text.as_bytes())
}

fn parse<L: Line>(text: &str) -> Option<(Head, Vec<L>)> {
    let mut lines = text.lines();
    let mut said = |what: &str| {
        let json = lines.next()?.strip_prefix("# ")?.strip_prefix(what)?;
        serde_json::from_str(json.trim_start()).ok()
    };
    let head = Head { setup: said("setup")?, scene: said("scene")?, disk: said("disk")? };
    if lines.next()? != L::COLUMNS {
        return None;
    }
    let rows = lines.map(|line| L::read(&fields(line))).collect::<Option<_>>()?;
    Some((head, rows))
}

/// What differs between two setups, by name; none if nothing does.
fn differences(there: &Value, now: &Value) -> Option<String> {
    let (there, now) = (there.as_object()?, now.as_object()?);
    let names = there.keys().chain(now.keys().filter(|name| !there.contains_key(*name)));
    let differ = names.filter(|name| there.get(*name) != now.get(*name));
    let said = |value: Option<&Value>| value.map_or("nothing".to_owned(), Value::to_string);
    let each = differ.map(|name| {
        format!("{name}: {} there, {} now", said(there.get(name)), said(now.get(name)))
    });
    let all = each.collect::<Vec<_>>().join("; ");
    (!all.is_empty()).then_some(all)
}

/// Fields between commas, in quotes where they need them (RFC 4180), on one line.
fn row(fields: &[String]) -> String {
    let quoted = fields.iter().map(|field| {
        let plain = field.replace(['\n', '\r'], " ");
        match plain.contains([',', '"']) {
            true => format!("\"{}\"", plain.replace('"', "\"\"")),
            false => plain,
        }
    });
    quoted.collect::<Vec<_>>().join(",") + "\n"
}

fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut chars = line.chars().peekable();
    while let Some(char) = chars.next() {
        let field = fields.last_mut().expect("there is always one");
        match char {
            '"' if quoted && chars.peek() == Some(&'"') => field.extend(chars.next()),
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            other => field.push(other),
        }
    }
    fields
}

/// A number, or nothing, with as many digits as it is worth.
pub(super) fn number(value: Option<f64>) -> String {
    value.map_or(String::new(), |value| {
        let rounded = format!("{value:.3}");
        let rounded = rounded.trim_end_matches('0').trim_end_matches('.');
        rounded.to_owned()
    })
}

/// As [`number`] wrote it; the outer none: that is no number.
pub(super) fn read_number(field: &str) -> Option<Option<f64>> {
    match field {
        "" => Some(None),
        text => text.parse().ok().map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[derive(Clone, Debug, PartialEq)]
    struct Pair(String, Option<f64>);

    impl Line for Pair {
        const COLUMNS: &'static str = "word,number";

        fn fields(&self) -> Vec<String> {
            vec![self.0.clone(), number(self.1)]
        }

        fn read(fields: &[String]) -> Option<Self> {
            let [word, number] = fields else { return None };
            Some(Self(word.clone(), read_number(number)?))
        }
    }

    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Self {
            Self(std::env::temp_dir().join(format!("loadgen-{name}-{}.csv", std::process::id())))
        }

        fn open(&self, setup: &Value, fresh: bool) -> Result<Table<Pair>, String> {
            let head = || Head { setup: setup.clone(), scene: json!({}), disk: Value::Null };
            Table::open(&self.0, setup, fresh, head)
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            std::fs::remove_file(&self.0).ok();
        }
    }

    #[test]
    fn what_was_written_is_there_the_next_time() {
        let (place, setup) = (Place::new("resume"), json!({ "members": 3 }));
        let rows = [Pair("a, \"b\"".into(), Some(1.25)), Pair(String::new(), None)];
        let mut table = place.open(&setup, false).unwrap();
        rows.iter().for_each(|row| table.push(row.clone()).unwrap());
        drop(table);
        assert_eq!(place.open(&setup, false).unwrap().lines, rows);
        assert_eq!(Table::<Pair>::look(&place.0).unwrap().1, rows);
        assert!(place.open(&setup, true).unwrap().lines.is_empty(), "--fresh");
    }

    #[test]
    fn a_line_that_was_cut_short_is_measured_again() {
        let (place, setup) = (Place::new("cut"), json!({ "members": 3 }));
        let mut table = place.open(&setup, false).unwrap();
        table.push(Pair("whole".into(), None)).unwrap();
        table.file.write_all(b"\"cut,1").unwrap();
        drop(table);
        let mut table = place.open(&setup, false).unwrap();
        assert_eq!(table.lines.len(), 1);
        table.push(Pair("next".into(), Some(7.0))).unwrap();
        drop(table);
        assert_eq!(place.open(&setup, false).unwrap().lines[1], Pair("next".into(), Some(7.0)));
    }

    #[test]
    fn another_setup_is_refused_with_what_differs_and_the_files_name() {
        let place = Place::new("other");
        drop(place.open(&json!({ "members": 3, "quick": true }), false).unwrap());
        let said = place.open(&json!({ "members": 5, "quick": true }), false).unwrap_err();
        let name = place.0.display();
        assert_eq!(
            said,
            format!(
                "{name} was measured otherwise (members: 3 there, 5 now); name another --out, or \
                 replace it with --fresh"
            )
        );
        std::fs::write(&place.0, "my own notes\n").unwrap();
        let said = place.open(&json!({}), false).unwrap_err();
        assert!(said.starts_with(&format!("{name} is no such table")), "{said}");
    }

    #[test]
    fn two_runs_do_not_write_to_one_file() {
        let (place, setup) = (Place::new("twice"), json!({}));
        let _first = place.open(&setup, false).unwrap();
        assert!(place.open(&setup, true).unwrap_err().ends_with("another run is writing to it"));
    }
}
