//! How far it is, for whoever waits at a terminal; nobody else is told.

use crate::io::readonly::Heard;
use std::{
    cell::Cell,
    fs,
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    rc::Rc,
};

/// Bytes read so far, of all that there may be to read.
pub(crate) struct Progress {
    read: Rc<Cell<u64>>,
    total: u64,
    shown: bool,
}

impl Progress {
    /// For these folders.
    pub(crate) fn new(roots: &[PathBuf; 2]) -> Self {
        let shown = io::stderr().is_terminal();
        let roots = if roots[0] == roots[1] { &roots[..1] } else { &roots[..] };
        let total = if shown { roots.iter().map(|root| bytes_below(root)).sum() } else { 0 };
        Self { read: Rc::default(), total, shown }
    }

    /// What is told of every read.
    pub(crate) fn heard(&self) -> Heard {
        let Self { read, total, shown } = self;
        let (read, total, shown) = (read.clone(), *total, *shown);
        Rc::new(move |bytes| {
            let now = read.get() + bytes as u64;
            let before = read.replace(now);
            show(shown, [before, now], total);
        })
    }

    /// What is told how far something else has come.
    pub(crate) fn reached(&self, done: u64, total: u64) {
        show(self.shown, [self.read.replace(done), done], total);
    }

    /// Another look.
    pub(crate) fn begin(&self) {
        self.read.set(0);
    }

    /// Wipes the bar away.
    pub(crate) fn end(&self) {
        if self.shown {
            say("\r\x1b[K");
        }
    }
}

/// The bar, where it is another one than before.
fn show(shown: bool, parts: [u64; 2], total: u64) {
    let [before, now] = parts.map(|part| percent(part, total));
    if shown && before != now {
        say(&bar(now));
    }
}

fn bytes_below(root: &Path) -> u64 {
    let (mut dirs, mut bytes) = (vec![root.to_owned()], 0);
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(meta) if meta.is_dir() => dirs.push(entry.path()),
                Ok(meta) => bytes += meta.len(),
                // It went meanwhile, or will be complained of when it is read.
                Err(_) => {}
            }
        }
    }
    bytes
}

/// Some files are read in part and some blocks twice, so the end is only about at 100.
pub(super) fn percent(read: u64, total: u64) -> u64 {
    (read.saturating_mul(100) / total.max(1)).min(100)
}

/// A line of its own, begun anew each time.
pub(super) fn bar(percent: u64) -> String {
    let done = "#".repeat(percent as usize / 4);
    format!("\r[{done:<25}] {percent:>3} %")
}

fn say(text: &str) {
    let mut out = io::stderr();
    let _nobody = out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err();
}
