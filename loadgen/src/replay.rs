//! Operations in a file: to be made again at the times they were made, or made up from a trace.
//!
//! One operation a line, four words at most; `#` begins a comment:
//!
//! ```text
//!   SECONDS KIND KEY [NUMBER]
//!
//!   0.000000 put key-000000000007 256      a value of so many bytes
//!   0.001000 get key-000000000007          linearizable; or: serializable
//!   0.002000 list /registry/pods/ 500      all keys under it, in pages of so many; 0: in one
//!   0.002500 count /registry/pods/         how many those are
//!   0.003000 cas key-000000000007 256      a put, if the key is still as it was known
//!   0.004000 create key-000000000008 256   a put, if there is no such key
//!   0.005000 delete key-000000000007       whatever it holds; or: cas-delete
//! ```
//!
//! `SECONDS` count from the start and never go back. In a key, a byte that is no letter, digit or one
//! of `-_./:~` is written as `%` and two hexadecimal digits.

use std::{
    fmt::Write as _,
    io::{self, BufWriter, Write},
    time::Duration,
};

use bytes::Bytes;

use crate::{
    arrivals::Schedule,
    ops::{Chooser, Op, Ops},
    sizes::VALUE_BYTES_MAX,
};

/// One operation, without its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Noted<'a> {
    /// The second word.
    pub kind: &'static str,
    /// The third, not escaped.
    pub key: &'a [u8],
    /// The fourth.
    pub number: Option<usize>,
}

/// A file that is being written.
pub struct Recording {
    name: String,
    file: BufWriter<Box<dyn Write>>,
    line: String,
}

impl Recording {
    /// Creates the file.
    ///
    /// # Errors
    /// The file cannot be created or written; it is named.
    pub fn create(name: &str) -> io::Result<Self> {
        let file = std::fs::File::create(name).map_err(|error| named(name, &error))?;
        let file = BufWriter::new(Box::new(file) as Box<dyn Write>);
        let mut recording = Self { name: name.into(), file, line: String::new() };
        recording.line.push_str("# SECONDS KIND KEY [NUMBER]\n");
        recording.put()?;
        recording.finish()?;
        Ok(recording)
    }

    /// Adds an operation that was due at this time.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn add(&mut self, due: Duration, noted: Noted<'_>) -> io::Result<()> {
        self.line.clear();
        let mut add = |text: std::fmt::Arguments<'_>| {
            self.line.write_fmt(text).expect("a String takes all");
        };
        add(format_args!("{:.6} {} ", due.as_secs_f64(), noted.kind));
        for &byte in noted.key {
            match plain(byte) {
                true => add(format_args!("{}", char::from(byte))),
                false => add(format_args!("%{byte:02x}")),
            }
        }
        if let Some(number) = noted.number {
            add(format_args!(" {number}"));
        }
        add(format_args!("\n"));
        self.put()
    }

    fn put(&mut self) -> io::Result<()> {
        self.file.write_all(self.line.as_bytes()).map_err(|error| named(&self.name, &error))
    }

    /// Writes what is still held.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn finish(&mut self) -> io::Result<()> {
        self.file.flush().map_err(|error| named(&self.name, &error))
    }
}

fn named(name: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{name}: {error}"))
}

fn plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_./:~".contains(&byte)
}

// ── reading ─────────────────────────────────────────────────────────────────────────────────────

/// Operations of a file, in its order.
#[derive(Debug)]
pub struct Replay {
    times: Vec<Duration>,
    ops: std::vec::IntoIter<(usize, Op)>,
    value_bytes_max: usize,
}

/// The second words.
const KINDS: [&str; 9] =
    ["put", "get", "serializable", "list", "count", "delete", "cas", "create", "cas-delete"];

impl Replay {
    /// Reads the whole file.
    ///
    /// # Errors
    /// A file that cannot be read; a line that is no operation, with its number.
    pub fn read(name: &str) -> Result<Self, String> {
        let text = std::fs::read_to_string(name).map_err(|error| format!("{name}: {error}"))?;
        let (mut times, mut ops) = (Vec::new(), Vec::new());
        for (number, line) in (1..).zip(text.lines()) {
            let words = line.split('#').next().unwrap_or_default();
            if words.trim().is_empty() {
                continue;
            }
            let (time, kind, op) =
                operation(words).map_err(|wrong| format!("{name}:{number}: {wrong}"))?;
            if times.last().is_some_and(|last| time < *last) {
                return Err(format!("{name}:{number}: before the line above"));
            }
            times.push(time);
            ops.push((kind, op));
        }
        if ops.is_empty() {
            return Err(format!("{name}: no operation in it"));
        }
        let value_bytes_max = ops.iter().map(|(_, op)| op.value_bytes()).max().unwrap_or(0);
        Ok(Self { times, ops: ops.into_iter(), value_bytes_max })
    }

    /// When the operations are due, where all times are cut to one so-many-th.
    pub fn schedule(&self, speed: f64) -> Schedule {
        let times: Vec<_> = self.times.iter().map(|time| time.div_f64(speed)).collect();
        Schedule::Given(times.into_iter())
    }

    /// How many operations there are.
    pub fn count(&self) -> u64 {
        self.times.len() as u64
    }

    /// Does them.
    pub fn ops(self) -> Ops<Self> {
        let value_bytes_max = self.value_bytes_max;
        Ops::new(self, value_bytes_max)
    }
}

impl Chooser for Replay {
    fn kinds(&self) -> Vec<&'static str> {
        KINDS.to_vec()
    }

    fn choose(&mut self) -> (usize, Op) {
        self.ops.next().expect("no more are due than there are")
    }
}

fn operation(words: &str) -> Result<(Duration, usize, Op), String> {
    let mut words = words.split_whitespace();
    let mut word = |what: &str| words.next().ok_or_else(|| format!("{what} is missing"));
    let time = word("the time")?;
    let seconds = time.parse().ok().and_then(|time| Duration::try_from_secs_f64(time).ok());
    let seconds = seconds.ok_or_else(|| format!("{time:?} is no time in seconds"))?;
    let name = word("the kind")?;
    let kind = KINDS.iter().position(|kind| *kind == name);
    let kind = kind.ok_or_else(|| format!("{name:?} is none of {}", KINDS.join(", ")))?;
    let key = unescape(word("the key")?)?;
    let mut number = || -> Result<usize, String> {
        let text = word("a number")?;
        let number = text.parse().ok().filter(|number| *number <= VALUE_BYTES_MAX);
        number.ok_or_else(|| format!("{text:?} is no number up to {VALUE_BYTES_MAX}"))
    };
    let op = match name {
        "put" => Op::Put(key, number()?),
        "get" => Op::Get { key, serializable: false },
        "serializable" => Op::Get { key, serializable: true },
        "list" => Op::List { prefix: key, limit: number()? },
        "count" => Op::Count(key),
        "delete" => Op::Delete(key),
        "cas" => Op::Swap(key, number()?),
        "create" => Op::Create(key, number()?),
        _ => Op::SwapDelete(key),
    };
    match words.next() {
        None => Ok((seconds, kind, op)),
        Some(more) => Err(format!("nothing is expected where {more:?} stands")),
    }
}

fn unescape(text: &str) -> Result<Bytes, String> {
    let wrong = || format!("{text:?} is no key: % and two hexadecimal digits for other bytes");
    let mut key = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let digits = [bytes.next(), bytes.next()].map(|digit| digit.unwrap_or(b' ').into());
                let [high, low] = digits.map(|digit: char| digit.to_digit(16));
                let (high, low) = high.zip(low).ok_or_else(wrong)?;
                key.push((high << 4 | low) as u8);
            }
            byte if plain(byte) => key.push(byte),
            _ => return Err(wrong()),
        }
    }
    Ok(key.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(test: &str) -> String {
        let name = format!("loadgen-{}-{test}.replay", std::process::id());
        std::env::temp_dir().join(name).to_str().expect("a name").to_owned()
    }

    #[test]
    fn what_is_recorded_is_replayed() {
        let name = file("round");
        let key = || Bytes::from_static(b"/a b\xff%");
        let ops = [
            Op::Put(key(), 7),
            Op::Get { key: key(), serializable: false },
            Op::Get { key: key(), serializable: true },
            Op::List { prefix: key(), limit: 500 },
            Op::Count(key()),
            Op::Delete(key()),
            Op::Swap(key(), 8),
            Op::Create(key(), 9),
            Op::SwapDelete(key()),
        ];
        let mut recording = Recording::create(&name).unwrap();
        for (at, op) in ops.iter().enumerate() {
            recording.add(Duration::from_millis(at as u64), op.noted()).unwrap();
        }
        recording.finish().unwrap();
        let mut replay = Replay::read(&name).unwrap();
        std::fs::remove_file(&name).unwrap();
        assert_eq!((replay.count(), replay.value_bytes_max), (9, 9));
        for (at, op) in ops.into_iter().enumerate() {
            assert_eq!(replay.choose(), (at, op));
        }
        let times: Vec<_> = replay.schedule(0.5).collect();
        assert_eq!(times, (0..9).map(|at| Duration::from_millis(2 * at)).collect::<Vec<_>>());
    }

    #[test]
    fn a_line_that_is_no_operation_is_named() {
        let name = file("wrong");
        let wrong = |text: &str| {
            std::fs::write(&name, text).unwrap();
            Replay::read(&name).unwrap_err().replace(&name, "FILE")
        };
        assert_eq!(wrong("0 put k 1\n# a\n\n-1 get k\n"), "FILE:4: \"-1\" is no time in seconds");
        assert_eq!(wrong("0 put k"), "FILE:1: a number is missing");
        assert_eq!(wrong("0 put k -1"), "FILE:1: \"-1\" is no number up to 67108864");
        assert_eq!(wrong("0 get"), "FILE:1: the key is missing");
        assert_eq!(wrong("0 get k 1"), "FILE:1: nothing is expected where \"1\" stands");
        assert_eq!(wrong("1 get k\n0.9 get k"), "FILE:2: before the line above");
        assert_eq!(wrong("# nothing"), "FILE: no operation in it");
        assert!(wrong("0 get %4").contains("is no key"));
        assert!(wrong("0 got k").contains("\"got\" is none of put, get"));
        std::fs::remove_file(&name).unwrap();
        assert!(wrong_file(&name).contains("No such file"));
    }

    fn wrong_file(name: &str) -> String {
        Replay::read(name).unwrap_err()
    }
}
