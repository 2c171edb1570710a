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
