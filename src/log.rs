//! Log lines in etcd's form, written off the hot path.
//!
//! ```text
//!  any core ── encode ── try_send ──► bounded queue ──► thread "log" ── write ──► outputs
//!                            └ full: drop and count; the count is said in a later line
//! ```
//!
//! Whoever logs pays for making the line and never waits: not for a full pipe that nobody reads,
//! not for a lock that is held during a write. etcd stops serving when its standard error is not
//! read (its issue 22214).
//!
//! One thread writes to all outputs in turn, so one stuck output stops the others too; it stops
//! nothing else. The thread inherits the cores of whoever calls `start`, so start the log
//! before pinning.
//!
//! ```
//! use ringleader::log;
//! log::info!("serving client traffic", "address" => "127.0.0.1:2379", "shard" => 3);
//! ```

mod line;

#[cfg(test)]
mod tests;

pub use crate::{log_debug as debug, log_error as error, log_info as info, log_warn as warn};
pub use line::{Format, Level, ToValue, Value, span_text};

use crate::limits::{LOG_QUEUE_BYTES_MAX, LOG_QUEUE_LINES_MAX, LOG_RETRY_PAUSE, LOG_WRITE_BYTES};
use line::Line;
use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::fd::{AsFd, BorrowedFd},
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, SystemTime},
};

/// How to write the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The least level that is written.
    pub level: Level,
    /// How a line looks.
    pub format: Format,
    /// Where lines go, each line to all; nowhere where it is empty.
    pub outputs: Vec<Output>,
}

/// A place for lines.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Output {
    /// Standard error; etcd's `default` and, here, `systemd/journal`.
    Stderr,
    /// Standard output.
    Stdout,
    /// A file, made if there is none, and appended to.
    File(PathBuf),
}

/// The process's log. Before [`start`] lines go nowhere.
static LOG: OnceLock<Log> = OnceLock::new();

/// Opens the outputs and starts the writer; once in a process.
///
/// # Errors
/// An output that cannot be opened, named; `AlreadyExists` the second time.
pub fn start(options: &Options) -> io::Result<()> {
    let log = Log::open(options)?;
    LOG.set(log)
        .map_err(|_| io::Error::new(io::ErrorKind::AlreadyExists, "the log was started before"))
}

/// Whether a line of this level would be written.
pub fn enabled(level: Level) -> bool {
    LOG.get().is_some_and(|log| log.enabled(level))
}

/// Writes one line, or drops and counts it; never waits. Called by the macros.
pub fn write(level: Level, file: &str, line: u32, message: &str, fields: &[(&str, Value<'_>)]) {
    if let Some(log) = LOG.get()
        && log.enabled(level)
    {
        log.write(level, file, line, message, fields);
    }
}

/// Waits until every line so far has been written, or for so long; for the end of the process.
/// Says whether they were.
pub fn flush(at_most: Duration) -> bool {
    LOG.get().is_none_or(|log| log.flush(at_most))
}

/// A line of some level: `log_at!(level, "message", "key" => value, …)`.
#[macro_export]
macro_rules! log_at {
    ($level:expr, $message:expr $(, $key:expr => $value:expr)* $(,)?) => {
        if $crate::log::enabled($level) {
            $crate::log::write(
                $level,
                ::std::file!(),
                ::std::line!(),
                $message,
                &[$(($key, $crate::log::ToValue::to_value(&$value))),*],
            );
        }
    };
}

/// A line for whoever looks for a fault: `log::debug!("message", "key" => value, …)`.
#[macro_export]
macro_rules! log_debug {
    ($($line:tt)*) => { $crate::log_at!($crate::log::Level::Debug, $($line)*) };
}

/// A line about what happened as it should: `log::info!("message", "key" => value, …)`.
#[macro_export]
macro_rules! log_info {
    ($($line:tt)*) => { $crate::log_at!($crate::log::Level::Info, $($line)*) };
}

/// A line that somebody should look at some day: `log::warn!("message", "key" => value, …)`.
#[macro_export]
macro_rules! log_warn {
    ($($line:tt)*) => { $crate::log_at!($crate::log::Level::Warn, $($line)*) };
}

/// A line about what failed: `log::error!("message", "key" => value, …)`.
#[macro_export]
macro_rules! log_error {
    ($($line:tt)*) => { $crate::log_at!($crate::log::Level::Error, $($line)*) };
}

/// A log: the queue's near end, and what its two ends share.
struct Log {
    level: Level,
    format: Format,
    /// `None` where there is no output.
    queue: Option<SyncSender<String>>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    queued_bytes: AtomicUsize,
    accepted_lines: AtomicU64,
    dropped_lines: AtomicU64,
    written_lines: Mutex<u64>,
    written: Condvar,
}

impl Log {
    fn open(options: &Options) -> io::Result<Self> {
        let mut outputs = options.outputs.clone();
        outputs.sort();
        outputs.dedup();
        let files = outputs.iter().map(open).collect::<io::Result<Vec<File>>>()?;
        let shared = Arc::new(Shared::default());
        let queue = if files.is_empty() {
            None
        } else {
            let (near, far) = sync_channel(LOG_QUEUE_LINES_MAX);
            let writer = Writer { files, format: options.format, shared: shared.clone() };
            thread::Builder::new().name("log".into()).spawn(move || writer.run(&far))?;
            Some(near)
        };
        Ok(Self { level: options.level, format: options.format, queue, shared })
    }

    fn enabled(&self, level: Level) -> bool {
        level >= self.level && self.queue.is_some()
    }

    fn write(
        &self,
        level: Level,
        file: &str,
        line: u32,
        message: &str,
        fields: &[(&str, Value<'_>)],
    ) {
        let text =
            Line { level, nanos: wall_nanos(), file, line, message, fields }.encode(self.format);
        let Some(queue) = &self.queue else { return };
        let bytes = text.len();
        let queued = self.shared.queued_bytes.fetch_add(bytes, SeqCst);
        if queued + bytes <= LOG_QUEUE_BYTES_MAX && queue.try_send(text).is_ok() {
            self.shared.accepted_lines.fetch_add(1, SeqCst);
        } else {
            self.shared.queued_bytes.fetch_sub(bytes, SeqCst);
            self.shared.dropped_lines.fetch_add(1, SeqCst);
        }
    }

    fn flush(&self, at_most: Duration) -> bool {
        let target = self.shared.accepted_lines.load(SeqCst);
        let written = self.shared.written_lines.lock().unwrap_or_else(PoisonError::into_inner);
        let (written, _) = self
            .shared
            .written
            .wait_timeout_while(written, at_most, |written| *written < target)
            .unwrap_or_else(PoisonError::into_inner);
        *written >= target
    }
}

/// Opens an output. Standard error and output are written through descriptors of our own: the
/// standard library's carry a lock, and a writer stuck with it would stop a dying process from
/// saying why.
fn open(output: &Output) -> io::Result<File> {
    let own = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().map(File::from);
    match output {
        Output::Stderr => own(io::stderr().as_fd()),
        Output::Stdout => own(io::stdout().as_fd()),
        Output::File(path) => {
            OpenOptions::new().append(true).create(true).open(path).map_err(|error| {
                io::Error::new(
                    error.kind(),
                    format!("open sink {:?}: {error}", path.display().to_string()),
                )
            })
        }
    }
}

/// The far end of the queue; lives on the thread "log".
struct Writer {
    files: Vec<File>,
    format: Format,
    shared: Arc<Shared>,
}

impl Writer {
    fn run(mut self, queue: &Receiver<String>) {
        let mut batch = String::new();
        while let Ok(line) = queue.recv() {
            batch.clear();
            batch.push_str(&line);
            let mut lines = 1;
            while batch.len() < LOG_WRITE_BYTES
                && let Ok(line) = queue.try_recv()
            {
                batch.push_str(&line);
                lines += 1;
            }
            let lost = lines * self.write_all(batch.as_bytes());
            self.shared.dropped_lines.fetch_add(lost, SeqCst);
            self.shared.queued_bytes.fetch_sub(batch.len(), SeqCst);
            self.tell_dropped();
            *self.shared.written_lines.lock().unwrap_or_else(PoisonError::into_inner) += lines;
            self.shared.written.notify_all();
        }
    }

    /// Says how many lines were dropped since it was last said.
    fn tell_dropped(&mut self) {
        let dropped = self.shared.dropped_lines.swap(0, SeqCst);
        if dropped == 0 {
            return;
        }
        let line = Line {
            level: Level::Warn,
            nanos: wall_nanos(),
            file: file!(),
            line: line!(),
            message: "log lines were dropped because an output could not keep up or failed",
            fields: &[("dropped", Value::Uint(dropped))],
        };
        if self.write_all(line.encode(self.format).as_bytes()) == self.files.len() as u64 {
            self.shared.dropped_lines.fetch_add(dropped, SeqCst);
        }
    }

    /// Writes to every output; says how many of them failed.
    fn write_all(&mut self, bytes: &[u8]) -> u64 {
        self.files.iter_mut().map(|file| u64::from(write_to(file, bytes).is_err())).sum()
    }
}

fn write_to(file: &mut File, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Somebody else has made our standard error non-blocking.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                thread::sleep(LOG_RETRY_PAUSE)
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Nanoseconds since 1970 by the wall clock; 0 before.
#[allow(
    clippy::disallowed_methods,
    reason = "for a person who reads the line; nothing is decided by it"
)]
fn wall_nanos() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
