//! What a run does beside its work: shows how far it is, and writes down what it sees.

use std::{io, time::Duration};

use crate::{
    hdrlog::HdrLog,
    progress::{Progress, Standing},
    replay::Recording,
    script::Script,
};

/// Each where it is wanted.
#[derive(Default)]
pub struct Beside {
    /// A line on the terminal.
    pub progress: Option<Progress>,
    /// Latencies, interval by interval.
    pub hdr_log: Option<HdrLog>,
    /// The operations themselves.
    pub recording: Option<Recording>,
}

impl Beside {
    /// An operation that counts was begun, due at this time after the warm-up.
    pub(crate) fn begun(&mut self, due: Duration, script: &impl Script) -> io::Result<()> {
        match (&mut self.recording, script.noted()) {
            (Some(recording), Some(noted)) => recording.add(due, noted),
            _ => Ok(()),
        }
    }

    /// An operation went well.
    pub(crate) fn ended(&mut self, took: Duration) {
        if let Some(log) = &mut self.hdr_log {
            log.record(took);
        }
    }

    /// Called every now and then.
    pub(crate) fn look(&mut self, standing: Standing<'_>) -> io::Result<()> {
        if let Some(progress) = &mut self.progress {
            progress.show(standing);
        }
        match &mut self.hdr_log {
            Some(log) => log.look(standing.now.saturating_sub(standing.warm_up)),
            None => Ok(()),
        }
    }

    /// The run is over.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        if let Some(progress) = &mut self.progress {
            progress.clear();
        }
        if let Some(log) = &mut self.hdr_log {
            log.finish()?;
        }
        self.recording.as_mut().map_or(Ok(()), Recording::finish)
    }
}
