//! What the log says no to, and what it does about space.

use crate::{
    disk::{Crash, Faults, SimDisk},
    wal_model::{entry_of, open, options, run, spare_ready, state_only, try_open_with},
};
use ringleader::{
    io::BLOCK_BYTES,
    wal::{Options, WalError},
};
use std::io;

#[test]
fn a_failed_write_fails_every_frame_behind_it_and_ends_the_log() {
    for faults in [Faults { write: Some(2), sync: None }, Faults { write: None, sync: Some(2) }] {
        let disk = SimDisk::new(5);
        let ours = disk.clone();
        run(&disk, 5, async move |_| {
            let (mut wal, _) = open(ours.clone(), options(8, 5)).await.expect("opens");
            ours.arm(faults);
            let flights: Vec<_> =
                (1..=3).map(|serial| wal.append(&state_only(serial)).expect("room")).collect();
            let mut outcomes = Vec::new();
            for flight in flights {
                outcomes.push(flight.await.is_ok());
            }
            assert_eq!(outcomes, [true, false, false], "{faults:?}");
            assert_eq!(wal.durable_frame(), 1);
            assert!(matches!(wal.append(&state_only(4)).err(), Some(WalError::Failed)));
        })
        .done();
    }
}

#[test]
fn a_full_disk_is_reported_and_costs_nothing() {
    let disk = SimDisk::new(6);
    let ours = disk.clone();
    run(&disk, 6, async move |_| {
        let (mut wal, _) = open(ours.clone(), options(3, 6)).await.expect("opens");
        ours.set_space(Some(3 * BLOCK_BYTES as u64));
        let full = wal.prepare().expect("a spare is missing").await.err().expect("no room");
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        for serial in 1..=2 {
            wal.append(&state_only(serial)).expect("room").await.expect("durable");
        }
        assert!(matches!(wal.append(&state_only(3)).err(), Some(WalError::NoSpare)));
        ours.set_space(None);
        spare_ready(&mut wal).await;
        assert_eq!(wal.append(&state_only(3)).expect("room").await.expect("durable"), 3);
    })
    .done();
    let (wal, found) = try_open_with(&disk.reboot(Crash::PowerCut), options(3, 7)).expect("opens");
    assert_eq!((wal.durable_frame(), found.hard_state.commit), (3, 3));
}

#[test]
fn a_log_of_another_cluster_or_member_is_refused() {
    let disk = SimDisk::new(8);
    try_open_with(&disk, options(4, 1)).map(|_| ()).expect("opens");
    let disk = disk.reboot(Crash::PowerCut);
    let theirs = Options { cluster: 0xc2, ..options(4, 2) };
    let error = try_open_with(&disk, theirs).err().expect("refused").to_string();
    assert_eq!(
        error,
        "wal/00000000.seg is the log of cluster c1, this member was started as cluster c2"
    );
    let theirs = Options { member: 0x3f, ..options(4, 2) };
    let error = try_open_with(&disk, theirs).err().expect("refused");
    assert!(matches!(
        error,
        WalError::Foreign { whose: "member", expected: 0x3f, found: 0x3e, .. }
    ));
}

#[test]
fn trimmed_segments_are_used_again_and_the_rest_give_their_space_back() {
    let disk = SimDisk::new(9);
    let ours = disk.clone();
    let (most, least) = run(&disk, 9, async move |_| {
        let (mut wal, _) = open(ours, options(3, 9)).await.expect("opens");
        for serial in 1..=40 {
            spare_ready(&mut wal).await;
            wal.append(&entry_of(serial, 10)).expect("room").await.expect("durable");
        }
        let most = wal.disk_bytes();
        wal.trim(40);
        wal.append(&entry_of(41, 10)).expect("room").await.expect("durable");
        while let Some(work) = wal.prepare() {
            wal.prepared(work.await.expect("no faults are armed"));
        }
        for serial in 42..=200 {
            wal.trim(serial - 2);
            spare_ready(&mut wal).await;
            wal.append(&entry_of(serial, 10)).expect("room").await.expect("durable");
        }
        (most, wal.disk_bytes())
    })
    .done();
    let segment = 3 * BLOCK_BYTES as u64;
    assert!(most >= 20 * segment, "two entries to a segment");
    assert!(least <= 7 * segment, "{least} bytes are kept for two entries");
    let on_disk: u64 = disk.names().iter().map(|name| disk.peek(name).len() as u64).sum();
    assert_eq!(on_disk, least);
    let (_, found) = try_open_with(&disk.reboot(Crash::PowerCut), options(3, 10)).expect("opens");
    assert_eq!((found.trimmed, found.entries.len()), (198, 2));
}

#[test]
fn opening_again_and_again_takes_no_space() {
    let mut disk = SimDisk::new(10);
    for salt in 0..30 {
        try_open_with(&disk, options(4, salt)).map(|_| ()).expect("opens");
        disk = disk.reboot(Crash::PowerCut);
    }
    assert_eq!(disk.names(), ["wal/00000000.seg"]);
}

#[test]
fn what_does_not_continue_the_log_is_refused() {
    let (mut wal, _) = try_open_with(&SimDisk::new(11), options(4, 1)).expect("opens");
    let gap = |error: Option<WalError>| match error {
        Some(WalError::Gap { found, lowest, highest }) => (found, lowest, highest),
        other => panic!("{other:?}"),
    };
    assert_eq!(gap(wal.append(&entry_of(2, 1)).err()), (2, 1, 1), "before the first entry");
    assert_eq!(gap(wal.append(&entry_of(0, 1)).err()), (0, 1, 1), "entries count from 1");
    wal.trim(10);
    assert_eq!(gap(wal.append(&entry_of(10, 1)).err()), (10, 11, 11), "kept elsewhere");
    let mut torn_apart = entry_of(11, 1);
    torn_apart.entries.push(entry_of(13, 1).entries.remove(0));
    assert_eq!(gap(wal.append(&torn_apart).err()), (13, 12, 12), "a gap in the batch");
    let bytes_max = 3 * BLOCK_BYTES;
    match wal.append(&entry_of(11, bytes_max)).err() {
        Some(WalError::TooLarge { bytes, bytes_max: max }) => {
            assert_eq!((bytes, max), (4 * BLOCK_BYTES, bytes_max));
        }
        other => panic!("{other:?}"),
    }
}
