//! Latencies of each second as a log that HdrHistogram's tools read: format version 1.3, histograms
//! encoded as V2, compressed and in base64. Values are nanoseconds; the column of the largest is in
//! milliseconds, as those tools have it.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    mem,
    time::{Duration, SystemTime},
};

use hdrhistogram::{
    Histogram,
    serialization::{
        V2DeflateSerializer,
        interval_log::{IntervalLogWriterBuilder, IntervalLogWriterError},
    },
};

use crate::{
    grpc::Status,
    tally::{self, Tally},
};

const INTERVAL: Duration = Duration::from_secs(1);
const NANOS_PER_MILLI: f64 = 1e6;

/// A log that is being written.
pub struct HdrLog {
    name: String,
    file: BufWriter<File>,
    serializer: V2DeflateSerializer,
    interval: Histogram<u64>,
    /// When it began, after the warm-up, and how far that has come.
    since: Duration,
    now: Duration,
}

impl HdrLog {
    /// Creates the file, and says in it what is in it.
    ///
    /// # Errors
    /// The file cannot be created or written; it is named.
    pub fn create(name: &str, about: &str) -> io::Result<Self> {
        let file = File::create(name).map_err(|error| named(name, error))?;
        let mut log = Self {
            name: name.into(),
            file: BufWriter::new(file),
            serializer: V2DeflateSerializer::new(),
            interval: tally::latencies(),
            since: Duration::ZERO,
            now: Duration::ZERO,
        };
        log.begin(about).map_err(|error| named(name, error))?;
        Ok(log)
    }

    fn begin(&mut self, about: &str) -> io::Result<()> {
        let Self { file, serializer, .. } = self;
        IntervalLogWriterBuilder::new()
            .add_comment("[Histogram log format version 1.3]")
            .add_comment(about)
            .with_base_time(SystemTime::now())
            .with_max_value_divisor(NANOS_PER_MILLI)
            .begin_log_with(file, serializer)
            .map(drop)?;
        file.flush()
    }

    /// An operation took so long.
    pub(crate) fn record(&mut self, took: Duration) {
        self.interval.saturating_record(took.as_nanos() as u64);
    }

    /// Writes the interval, once it is over.
    pub(crate) fn look(&mut self, now: Duration) -> io::Result<()> {
        self.now = now;
        match now >= self.since + INTERVAL {
            true => self.write(),
            false => Ok(()),
        }
    }

    /// Writes what the last, shorter interval has.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        if self.interval.is_empty() { Ok(()) } else { self.write() }
    }

    fn write(&mut self) -> io::Result<()> {
        let Self { name, file, serializer, interval, since, now } = self;
        let begun = mem::replace(since, *now);
        let mut lines = Vec::new();
        let written = IntervalLogWriterBuilder::new()
            .with_max_value_divisor(NANOS_PER_MILLI)
            .begin_log_with(&mut lines, serializer)?
            .write_histogram(interval, begun, now.saturating_sub(begun), None);
        written.map_err(io_error)?;
        interval.reset();
        // Before the interval it says again by what it divides.
        let line = lines.split_inclusive(|byte| *byte == b'\n').next_back().unwrap_or_default();
        file.write_all(line).and_then(|()| file.flush()).map_err(|error| named(name, error))
    }
}

/// A tally whose latencies go to a log too, where there is one.
#[derive(Default)]
pub(crate) struct LoggedTally {
    pub(crate) tally: Tally,
    log: Option<HdrLog>,
    /// When the log's time began.
    from: Duration,
}

impl LoggedTally {
    /// Forgets what was counted, and logs from now on.
    pub(crate) fn begin(&mut self, log: Option<HdrLog>, now: Duration) {
        *self = Self { tally: Tally::default(), log, from: now };
    }

    /// As [`Tally::add`].
    pub(crate) fn add(&mut self, took: Duration, outcome: Result<(), Status>) {
        if let (Some(log), Ok(())) = (&mut self.log, &outcome) {
            log.record(took);
        }
        self.tally.add(took, outcome);
    }

    /// What was counted since the last call.
    pub(crate) fn take(&mut self) -> Tally {
        mem::take(&mut self.tally)
    }

    /// Called every now and then.
    pub(crate) fn look(&mut self, now: Duration) -> io::Result<()> {
        match &mut self.log {
            Some(log) => log.look(now.saturating_sub(self.from)),
            None => Ok(()),
        }
    }

    /// Nothing more is counted.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        self.log.as_mut().map_or(Ok(()), HdrLog::finish)
    }
}

fn io_error<E: std::fmt::Debug>(error: IntervalLogWriterError<E>) -> io::Error {
    match error {
        IntervalLogWriterError::IoError(error) => error,
        IntervalLogWriterError::SerializeError(error) => io::Error::other(format!("{error:?}")),
    }
}

fn named(name: &str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{name}: {error}"))
}

#[cfg(test)]
mod tests {
    use hdrhistogram::serialization::{
        Deserializer,
        interval_log::{IntervalLogIterator, LogEntry},
    };

    use super::*;

    #[test]
    fn what_is_written_is_read_back_interval_by_interval() {
        let name = std::env::temp_dir().join(format!("loadgen-{}.hlog", std::process::id()));
        let mut log = HdrLog::create(name.to_str().unwrap(), "a test").unwrap();
        for millis in 1..=100 {
            log.record(Duration::from_millis(millis));
        }
        log.look(Duration::from_millis(900)).unwrap();
        log.look(Duration::from_millis(1100)).unwrap();
        log.record(Duration::from_millis(7));
        log.look(Duration::from_millis(1500)).unwrap();
        log.finish().unwrap();

        let bytes = std::fs::read(&name).unwrap();
        std::fs::remove_file(&name).unwrap();
        let entries: Vec<_> = IntervalLogIterator::new(&bytes).map(Result::unwrap).collect();
        let intervals: Vec<_> = entries
            .iter()
            .filter_map(|entry| match entry {
                LogEntry::Interval(interval) => Some(interval),
                _ => None,
            })
            .collect();
        let [first, last] = &intervals[..] else { panic!("{entries:?}") };
        assert_eq!(first.start_timestamp(), Duration::ZERO);
        assert_eq!(first.duration(), Duration::from_millis(1100));
        assert_eq!(last.start_timestamp(), Duration::from_millis(1100));
        assert_eq!(last.duration(), Duration::from_millis(400));
        assert!((first.max() - 100.0).abs() < 0.1, "milliseconds: {}", first.max());
        assert!(first.encoded_histogram().starts_with("HIST"));
        let counts = [first, last].map(|interval| decoded(interval.encoded_histogram()).len());
        assert_eq!(counts, [100, 1]);
    }

    /// The histogram behind base64 (RFC 4648 §4).
    fn decoded(text: &str) -> Histogram<u64> {
        let digit = |byte: u8| match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            other => panic!("{other} is no digit"),
        };
        let digits: Vec<u8> = text.trim_end_matches('=').bytes().map(digit).collect();
        let bytes: Vec<u8> = digits
            .chunks(4)
            .flat_map(|four| {
                let bits = four.iter().enumerate();
                let bits = bits.fold(0, |bits, (at, &d)| bits | u32::from(d) << (18 - 6 * at));
                bits.to_be_bytes()[1..four.len()].to_vec()
            })
            .collect();
        Deserializer::new().deserialize(&mut &bytes[..]).unwrap()
    }
}
