//! A command in the background: what it says is read as it comes, and what it is to hear is written
//! to it.

use std::{
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver, Sender},
    thread,
    time::{Duration, Instant},
};

use crate::server;

/// How long it may take to say something that is waited for, or to end. Longer than any lease in a
/// script takes to run out.
const SAY_MAX: Duration = Duration::from_secs(15);

/// A running command; killed when dropped.
#[derive(Debug)]
pub struct Job {
    process: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Job {
    /// Starts it.
    ///
    /// # Panics
    /// Where there is no such program.
    pub fn start(program: &Path, words: &[String]) -> Self {
        let mut process = Command::new(program)
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{} does not start: {error}", program.display()));
        let (said, lines) = mpsc::channel();
        read('>', process.stdout.take().expect("it is piped"), said.clone());
        read('!', process.stderr.take().expect("it is piped"), said);
        Self { input: process.stdin.take(), process, lines }
    }

    /// Writes to its standard input. A command that reads nothing may be gone already.
    pub fn hear(&mut self, text: &str) {
        if let Some(input) = &mut self.input {
            input.write_all(text.as_bytes()).ok();
        }
    }

    /// Its standard input ends.
    pub fn close(&mut self) {
        self.input = None;
    }

    /// Ctrl-C.
    pub fn interrupt(&mut self) {
        server::signal(self.process.id(), libc::SIGINT);
    }

    /// `kill -9`. What it said and nobody waited for is lost.
    pub fn kill(mut self) {
        self.end_now();
    }

    /// The next so many lines, marked as in a script; fewer where it ends before, or takes too long,
    /// and then it says so.
    pub fn lines(&mut self, count: usize) -> Vec<String> {
        let deadline = Instant::now() + SAY_MAX;
        let mut lines = vec![];
        while lines.len() < count {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => lines.push(line),
                Err(reason) => {
                    lines.push(format!("and no more: {reason}"));
                    break;
                }
            }
        }
        lines
    }

    /// Waits until it has ended: what else it said, standard output first, and its exit code where
    /// it has one.
    ///
    /// # Panics
    /// Where it does not end.
    pub fn end(mut self) -> (Vec<String>, Option<i32>) {
        let deadline = Instant::now() + SAY_MAX;
        let status = loop {
            if let Some(status) = self.process.try_wait().expect("it is our process") {
                break status;
            }
            assert!(Instant::now() < deadline, "it goes on: {:?}", self.lines(usize::MAX));
            thread::sleep(Duration::from_millis(2));
        };
        let mut lines: Vec<_> = self.lines.iter().collect();
        lines.sort_by_key(|line| line.starts_with('!'));
        (lines, status.code())
    }

    fn end_now(&mut self) {
        // It may have ended by itself.
        self.process.kill().ok();
        self.process.wait().expect("it is our process");
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.end_now();
    }
}

/// Passes on each line with its mark, until nobody can write or nobody listens.
fn read(mark: char, from: impl Read + Send + 'static, said: Sender<String>) {
    thread::spawn(move || {
        for line in BufReader::new(from).split(b'\n') {
            let Ok(line) = line else { return };
            let line = String::from_utf8_lossy(&line);
            // etcdctl's own log, with times and addresses of its memory.
            if line.starts_with("{\"level\"") {
                continue;
            }
            let space = if line.is_empty() { "" } else { " " };
            if said.send(format!("{mark}{space}{}", line.trim_end())).is_err() {
                return;
            }
        }
    });
}
