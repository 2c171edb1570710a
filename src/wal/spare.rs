//! Segments that are ready for use: zero-filled, synced, with a blank header.

use super::{
    Wal,
    recover::{Slot, header_block},
    segment::{self, Header},
};
use crate::{
    io::{Disk, File},
    limits::{WAL_SPARES_MAX, WAL_SPARES_MIN},
};
use std::{future::Future, io};

/// What a finished [`Wal::prepare`] hands to [`Wal::prepared`].
pub struct Prepared<F>(Option<Slot<F>>);

impl<D: Disk> Wal<D> {
    /// What there is to prepare, if anything: a spare segment when there are fewer than
    /// [`WAL_SPARES_MIN`], else the removal of files that are no longer wanted. Goes through the
    /// background disk. The caller runs one to its end and hands the outcome to [`Wal::prepared`]
    /// before it asks for another.
    ///
    /// The future fails as the machine does. Nothing is lost by it, and the log goes on while its
    /// segment has room; ask again later (`StorageFull`: once there is space).
    pub fn prepare(
        &mut self,
    ) -> Option<impl Future<Output = io::Result<Prepared<D::File>>> + 'static + use<D>> {
        self.recycle();
        let create = self.spares.len() < WAL_SPARES_MIN;
        if !create && self.surplus.is_empty() {
            return None;
        }
        let number = if create { self.take_slot_number() } else { 0 };
        let unwanted = if create { Vec::new() } else { std::mem::take(&mut self.surplus) };
        let (disk, background) = (self.disk.clone(), self.background.clone());
        let blank = self.options.blank();
        Some(async move {
            if !create {
                return remove_all(&background, unwanted).await.map(|()| Prepared(None));
            }
            let made = create_or_undo(&background, number, &blank).await?;
            // Appends go through the log's own disk.
            let file = disk.open(&segment::name(number)).await?;
            Ok(Prepared(Some(Slot { file, ..made })))
        })
    }

    /// Takes what [`Wal::prepare`] made.
    pub fn prepared(&mut self, prepared: Prepared<D::File>) {
        if let Some(slot) = prepared.0 {
            self.keep(slot);
        }
    }

    /// Keeps a segment that holds nothing needed as a spare, or marks it for removal.
    pub(super) fn keep(&mut self, slot: Slot<D::File>) {
        if slot.bytes == self.options.segment_bytes && self.spares.len() < WAL_SPARES_MAX {
            self.spares.push(slot);
        } else {
            self.surplus.push(slot);
        }
    }

    pub(super) fn take_slot_number(&mut self) -> u64 {
        self.next_slot += 1;
        self.next_slot - 1
    }
}

/// Makes a blank segment, durably.
pub(super) async fn create<D: Disk>(
    disk: &D,
    number: u64,
    blank: &Header,
) -> io::Result<Slot<D::File>> {
    let bytes = blank.segment_bytes;
    let file = disk.create(&segment::name(number), bytes).await?;
    file.write_sync_at(header_block(blank), 0).await?;
    disk.sync_dir(segment::DIR).await?;
    Ok(Slot { number, file, bytes })
}

/// As [`create`], and where that fails, half a file is not left behind if it can be helped.
async fn create_or_undo<D: Disk>(
    disk: &D,
    number: u64,
    blank: &Header,
) -> io::Result<Slot<D::File>> {
    let made = create(disk, number, blank).await;
    if made.is_err() {
        // The first error is the one to tell; what stays is removed at the next opening.
        let _gone = disk.remove(&segment::name(number)).await;
    }
    made
}

/// Removes the files of `slots`, durably.
pub(super) async fn remove_all<D: Disk>(disk: &D, slots: Vec<Slot<D::File>>) -> io::Result<()> {
    if slots.is_empty() {
        return Ok(());
    }
    for slot in &slots {
        disk.remove(&segment::name(slot.number)).await?;
    }
    disk.sync_dir(segment::DIR).await
}
