//! One batch in, one frame out, one write and one sync; and what a trim gives back.

use super::{
    Batch, Carried, Live, Wal, WalError,
    frame::{self, Place},
};
use crate::{
    io::{AlignedBuf, BLOCK_BYTES, Disk, File},
    limits::WAL_FRAMES_IN_FLIGHT_MAX,
};
use std::{future::Future, io, pin::Pin};

impl<D: Disk> Wal<D> {
    /// Encodes `batch` into one frame, hands it to the disk and returns what awaits it: the frame's
    /// number, once it and all before it are durable. Several may be in flight, at most
    /// [`WAL_FRAMES_IN_FLIGHT_MAX`]. All are run to their ends, side by side or in order: a later one
    /// waits for the earlier ones, so it never finishes while one of those is not polled.
    ///
    /// # Errors
    /// [`WalError::Gap`] and [`WalError::TooLarge`] for the batch, [`WalError::NoSpare`] and
    /// [`WalError::Busy`] for now, [`WalError::Failed`] for good; nothing is written then.
    /// The future fails when the write or sync does, or that of an earlier frame: the caller aborts.
    pub fn append(
        &mut self,
        batch: &Batch,
    ) -> Result<impl Future<Output = io::Result<u64>> + 'static + use<D>, WalError> {
        let frame_bytes = self.admit(batch)?;
        self.recycle();
        let header_bytes = self.make_room(frame_bytes)?;

        let mut buf = AlignedBuf::zeroed(header_bytes + frame_bytes);
        let (header, frame) = buf.split_at_mut(header_bytes);
        let current = self.segments.back().expect("an open log has a current segment");
        if !header.is_empty() {
            current.header.encode(header);
        }
        let place = Place {
            salt: current.header.frame_salt(),
            number: self.next_frame,
            chain: self.chain,
            durable_upto: self.landing.durable(),
            trimmed: self.trim.wanted,
        };
        let chain = frame::encode(batch, &place, frame);
        let (file, offset) = (current.slot.file.clone(), self.offset);
        self.advance(batch, chain, (header_bytes + frame_bytes) as u64);
        // Made now, so that frames of one file take effect in the order of their appends.
        // Boxed, because the trait's future names the borrow it was made through.
        let write: Pin<Box<dyn Future<Output = io::Result<()>>>> =
            Box::pin(file.write_sync_at(buf, offset));
        Ok(self.landing.clone().land(place.number, write))
    }

    /// The bytes of the batch's frame, if the log may take it.
    fn admit(&self, batch: &Batch) -> Result<usize, WalError> {
        if self.landing.failed() {
            return Err(WalError::Failed);
        }
        if self.next_frame - 1 - self.landing.durable() >= WAL_FRAMES_IN_FLIGHT_MAX {
            return Err(WalError::Busy);
        }
        let (mut lowest, mut highest) = (self.first_index(), self.last_index + 1);
        for found in batch.entries.iter().map(|entry| entry.index) {
            if !(lowest..=highest).contains(&found) {
                return Err(WalError::Gap { found, lowest, highest });
            }
            (lowest, highest) = (found + 1, found + 1);
        }
        let (bytes, bytes_max) = (frame::frame_bytes(batch), self.frame_bytes_max());
        if bytes > bytes_max {
            return Err(WalError::TooLarge { bytes, bytes_max });
        }
        Ok(bytes)
    }

    /// Goes on to a spare when `frame_bytes` do not fit the current segment. Returns the bytes of
    /// the header that must then precede the frame, 0 otherwise.
    fn make_room(&mut self, frame_bytes: usize) -> Result<usize, WalError> {
        let current = self.segments.back().expect("an open log has a current segment");
        if self.offset + frame_bytes as u64 <= current.slot.bytes {
            return Ok(0);
        }
        let mut header = self.next_header();
        let slot = self.spares.pop().ok_or(WalError::NoSpare)?;
        header.segment_bytes = slot.bytes;
        self.segments.push_back(Live { slot, header });
        self.offset = 0;
        Ok(BLOCK_BYTES)
    }

    fn advance(&mut self, batch: &Batch, chain: u32, bytes: u64) {
        if self.trim.carried.is_none() && self.trim.wanted > self.trim.settled {
            self.trim.carried = Some(Carried { frame: self.next_frame, through: self.trim.wanted });
        }
        self.offset += bytes;
        self.next_frame += 1;
        self.chain = chain;
        self.hard_state = batch.hard_state;
        if let Some(last) = batch.entries.last() {
            self.last_index = last.index;
        }
    }

    /// Entries up to `through` are kept elsewhere, durably; segments that hold no others may be used
    /// again. Takes effect with the next appended frame. Beyond the last entry it means that the log
    /// goes on after `through` (a restored or received snapshot). Below an earlier trim it is void.
    pub fn trim(&mut self, through: u64) {
        self.trim.wanted = self.trim.wanted.max(through);
        self.last_index = self.last_index.max(through);
    }

    /// Frees the segments that a settled trim no longer needs: those before the newest segment that
    /// was begun at or below it and whose own header is durable.
    pub(super) fn recycle(&mut self) {
        let durable = self.landing.durable();
        if let Some(carried) = self.trim.carried.filter(|carried| carried.frame <= durable) {
            self.trim.settled = carried.through;
            self.trim.carried = None;
        }
        let settled = self.trim.settled;
        let first_needed = self.segments.iter().rposition(|live| {
            live.header.last_index <= settled && live.header.first_frame <= durable
        });
        for _ in 0..first_needed.unwrap_or(0) {
            let stale = self.segments.pop_front().expect("counted above");
            self.keep(stale.slot);
        }
    }
}
