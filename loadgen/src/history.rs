//! What clients asked a cluster and what they were told, when, in a file.
//!
//! One [`Record`] a question, written when its outcome is known or given up: its messages are
//! etcd's own, as they went over the wire, so that whoever judges the history loses nothing.
//!
//! ```text
//!   file := ( varint length, Record )*          a protobuf stream; read with any protobuf library
//! ```

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU32, Ordering},
    },
    time::Instant,
};

use prost::Message;

use crate::grpc::Status;

/// What a record is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum Kind {
    /// A `PutRequest`.
    Put = 0,
    /// A `DeleteRangeRequest`.
    DeleteRange = 1,
    /// A `TxnRequest`.
    Txn = 2,
    /// A `RangeRequest`.
    Range = 3,
    /// A `LeaseGrantRequest`.
    Grant = 4,
    /// A `LeaseRevokeRequest`.
    Revoke = 5,
    /// A `LeaseKeepAliveRequest`.
    Renew = 6,
    /// A watch stream begins: a `WatchCreateRequest`.
    Watch = 7,
    /// A watch stream is told a `WatchResponse`.
    Told = 8,
    /// A watch stream has been told everything up to a revision, if nothing is missing: a
    /// `RangeRequest` of that revision.
    Complete = 9,
}

/// One question and what came of it.
#[derive(Clone, PartialEq, Message)]
pub struct Record {
    /// Who asked; of a watch, which stream.
    #[prost(uint32, tag = "1")]
    pub client: u32,
    /// Of what.
    #[prost(enumeration = "Kind", tag = "2")]
    pub kind: i32,
    /// Before a byte of it was sent, in nanoseconds since the history began.
    #[prost(uint64, tag = "3")]
    pub asked: u64,
    /// After the last byte of the answer was read; none where none came.
    #[prost(uint64, optional, tag = "4")]
    pub answered: Option<u64>,
    /// Which of the endpoints was asked.
    #[prost(uint32, tag = "5")]
    pub endpoint: u32,
    /// The request's bytes.
    #[prost(bytes = "vec", tag = "6")]
    pub request: Vec<u8>,
    /// The response's bytes, where the answer is one.
    #[prost(bytes = "vec", tag = "7")]
    pub response: Vec<u8>,
    /// gRPC's status, where it is not; also where the connection was lost or no answer came.
    #[prost(int32, tag = "8")]
    pub code: i32,
    /// The status's text.
    #[prost(string, tag = "9")]
    pub text: String,
}

/// Writes records of many clients into one file, and has the clock by which they are written.
#[derive(Debug)]
pub struct Recorder {
    path: PathBuf,
    written: Mutex<Written>,
    begin: Instant,
    streams: AtomicU32,
}

#[derive(Debug)]
struct Written {
    file: BufWriter<File>,
    /// The disk took no more: the history is worth nothing.
    failed: Option<io::Error>,
}

impl Recorder {
    /// A fresh file; the history begins now.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn create(path: &Path) -> io::Result<Self> {
        let file = BufWriter::new(File::create(path)?);
        let (path, written) = (path.into(), Mutex::new(Written { file, failed: None }));
        Ok(Self { path, written, begin: Instant::now(), streams: AtomicU32::new(0) })
    }

    /// Nanoseconds since the history began.
    pub fn now(&self) -> u64 {
        self.begin.elapsed().as_nanos() as u64
    }

    /// A number for a watch stream.
    pub fn stream(&self) -> u32 {
        self.streams.fetch_add(1, Ordering::Relaxed)
    }

    /// Notes one question. Without an answer it is noted as one whose outcome nobody knows. Where the
    /// disk does not take it, [`Self::finish`] says so, and nothing more is noted.
    pub fn note(&self, record: &Record) {
        let bytes = record.encode_length_delimited_to_vec();
        let mut written = self.written();
        if written.failed.is_none() {
            written.failed = written.file.write_all(&bytes).err();
        }
    }

    /// Whether the disk took no more.
    pub fn failed(&self) -> bool {
        self.written().failed.is_some()
    }

    fn written(&self) -> MutexGuard<'_, Written> {
        self.written.lock().expect("nobody panics here")
    }

    /// A record of an answer that came now, or of one that did not come.
    pub fn record<Resp: Message>(
        &self,
        (client, endpoint, kind, asked): (u32, u32, Kind, u64),
        request: &impl Message,
        answer: &Result<Resp, Status>,
    ) -> Record {
        let mut record = Record {
            client,
            endpoint,
            kind: kind.into(),
            asked,
            request: request.encode_to_vec(),
            answered: Some(self.now()),
            ..Default::default()
        };
        match answer {
            Ok(response) => record.response = response.encode_to_vec(),
            Err(status) => {
                record.code = status.code;
                record.text.clone_from(&status.message);
            }
        }
        record
    }

    /// All is on its way to the disk.
    ///
    /// # Errors
    /// What the disk said, now or before.
    pub fn finish(&self) -> io::Result<()> {
        let mut written = self.written();
        let failed = written.failed.take().map_or(Ok(()), Err);
        failed.and_then(|()| written.file.flush()).map_err(|error| {
            io::Error::new(error.kind(), format!("{}: {error}", self.path.display()))
        })
    }
}

/// All records of a file, in the order in which their outcomes were known.
///
/// # Errors
/// It cannot be read, or is not a history.
pub fn read(path: &Path) -> io::Result<Vec<Record>> {
    let bytes = std::fs::read(path)?;
    let mut rest = &bytes[..];
    let mut records = Vec::new();
    while !rest.is_empty() {
        let offset = bytes.len() - rest.len();
        let record = Record::decode_length_delimited(&mut rest).map_err(|error| {
            let text = format!("{} is no history at offset {offset}: {error}", path.display());
            io::Error::new(io::ErrorKind::InvalidData, text)
        })?;
        records.push(record);
    }
    Ok(records)
}
