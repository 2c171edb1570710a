//! What the log refuses, and why it may refuse to open.

use std::{fmt, io};

/// A refusal of the log. Nothing was changed on disk by what returned it, except for [`Io`](Self::Io).
#[derive(Debug)]
pub enum WalError {
    /// The machine's own error, which names the file. While opening, nothing is lost: try again.
    Io(io::Error),
    /// Something acknowledged does not verify. The files are left as they are.
    Damaged {
        /// The file, relative to the disk's root.
        file: String,
        /// Byte offset of the damage.
        offset: u64,
        /// What was found.
        what: String,
        /// What a person can do.
        advice: &'static str,
    },
    /// The log belongs to another cluster or member.
    Foreign {
        /// The file, relative to the disk's root.
        file: String,
        /// `cluster` or `member`.
        whose: &'static str,
        /// The id this process was started with.
        expected: u64,
        /// The id in the file.
        found: u64,
    },
    /// The log was written by a later version of the format.
    Version {
        /// The file, relative to the disk's root.
        file: String,
        /// The version in the file.
        found: u32,
    },
    /// The batch's frame does not fit a segment.
    TooLarge {
        /// Bytes of the frame.
        bytes: usize,
        /// Bytes of the largest frame.
        bytes_max: usize,
    },
    /// The entries are not contiguous, or do not continue the log.
    Gap {
        /// Index that was found.
        found: u64,
        /// Lowest index that would have been right.
        lowest: u64,
        /// Highest index that would have been right.
        highest: u64,
    },
    /// The segment is full and no spare is ready: finish [`super::Wal::prepare`], then try again.
    NoSpare,
    /// As many frames are in flight as may be: await one, then try again.
    Busy,
    /// An earlier write or sync failed. Nothing may be written any more: the process must end.
    Failed,
}

impl fmt::Display for WalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "log: {error}"),
            Self::Damaged { file, offset, what, advice } => {
                write!(f, "log damaged: {file} at byte {offset}: {what}; {advice}")
            }
            Self::Foreign { file, whose, expected, found } => write!(
                f,
                "{file} is the log of {whose} {found:x}, this member was started as {whose} {expected:x}"
            ),
            Self::Version { file, found } => {
                write!(f, "{file} has log format {found}, which this version cannot read")
            }
            Self::TooLarge { bytes, bytes_max } => {
                write!(f, "a frame of {bytes} bytes does not fit the log's {bytes_max}")
            }
            Self::Gap { found, lowest, highest } => {
                write!(f, "entry {found} does not continue the log: expected {lowest} to {highest}")
            }
            Self::NoSpare => write!(f, "the log's segment is full and no spare is ready"),
            Self::Busy => write!(f, "too many frames of the log are in flight"),
            Self::Failed => write!(f, "an earlier write to the log failed"),
        }
    }
}

impl std::error::Error for WalError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            _ => None,
        }
    }
}

impl From<io::Error> for WalError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}
