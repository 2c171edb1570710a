//! What the disk changed by itself is told from what a crash tore: rot of anything acknowledged is
//! refused, names its place and leaves the files as they are.

use crate::{
    disk::{Crash, SimDisk},
    executor::{Ended, Lot},
    rot::{self, Place},
    wal_model::{
        History, Model, boot, entry_of, frames_on, live_segments, open, options, recover, run,
        sizes, spare_ready, state_only, try_open_with,
    },
};
use ringleader::{
    io::BLOCK_BYTES,
    wal::{
        WalError, frame,
        segment::{self, Opening},
    },
};
use std::{cell::RefCell, ops::RangeInclusive, rc::Rc};

/// A log that worked for a while and then fell idle: everything but the very last frame is
/// provably acknowledged.
fn idle_log(seed: u64) -> (SimDisk, History) {
    let (blocks, steps) = sizes(seed);
    let (disk, history) = (SimDisk::new(seed), Rc::new(RefCell::new(History::default())));
    boot(&disk, seed, blocks, steps, &history).done();
    let disk = disk.reboot(Crash::PowerCut);
    boot(&disk, seed + 1, blocks, steps, &history).done();
    let disk = disk.reboot(Crash::PowerCut);
    (disk, history.take())
}

/// What opening a copy of the disk says, and whether anything was written by it.
fn try_open(disk: &SimDisk, seed: u64) -> (Result<History, WalError>, bool) {
    let (copy, before) = (disk.fork(), disk.writes());
    let ours = copy.clone();
    let options = options(sizes(seed).0, seed + 9);
    let opened = run(&copy, seed, async move |_| open(ours, options).await).done();
    let history = opened.map(|(wal, found)| {
        let model = Model {
            entries: found.entries.into_iter().map(|entry| (entry.index, entry)).collect(),
            hard_state: found.hard_state,
            trimmed: found.trimmed,
            last_index: wal.last_index(),
        };
        History::behind(model, wal.durable_frame())
    });
    (history, copy.writes() != before)
}

fn newest_live(disk: &SimDisk) -> (segment::Header, String) {
    live_segments(disk).pop().expect("an opened log has a segment")
}

#[test]
fn rot_of_an_acknowledged_frame_is_refused_and_touches_nothing() {
    let mut refused = 0;
    for seed in 0..30 {
        let (disk, history) = idle_log(seed);
        let (intact, _) = try_open(&disk, seed);
        let intact = intact.expect("the log opens before it rots");
        let mut lot = Lot::new(seed);
        let frames = frames_on(&disk);
        let proven = history.acknowledged - 1;
        for (file, offset, number, bytes) in frames.into_iter().filter(|frame| frame.2 <= proven) {
            let rotten = disk.fork();
            // Bytes 92..104 mean nothing.
            let byte = match lot.below(bytes as u64 - 12) as usize {
                byte if byte < 92 => byte,
                byte => byte + 12,
            };
            rotten.flip(&file, (offset as usize + byte) * 8 + lot.below(8) as usize);
            let context = format!("seed {seed} frame {number} byte {byte}");
            match try_open(&rotten, seed) {
                (Err(WalError::Damaged { file: named, offset: at, .. }), touched) => {
                    assert_eq!((named, at), (file, offset), "{context}");
                    assert!(!touched, "{context}");
                    refused += 1;
                }
                // The frame lies before everything that is needed.
                (Ok(found), _) => assert_eq!(found.base, intact.base, "{context}"),
                (Err(other), _) => panic!("{context}: {other}"),
            }
        }
    }
    assert!(refused > 200, "only {refused} rotten frames were needed ones");
}

#[test]
fn a_write_that_the_disk_lost_or_put_elsewhere_is_refused() {
    let mut refused = 0;
    for seed in 0..15 {
        let (disk, history) = idle_log(seed);
        let intact = try_open(&disk, seed).0.expect("the log opens before it rots");
        let mut lot = Lot::new(seed);
        let proven = history.acknowledged - 1;
        let frames = frames_on(&disk).into_iter().filter(|frame| frame.2 <= proven);
        for (file, offset, number, bytes) in frames {
            let rotten = disk.fork();
            let frame = Place { name: &file, offset: offset as usize, bytes };
            let what = rot::strike(&rotten, frame, &mut lot);
            let context = format!("seed {seed}, {what}: frame {number} at {offset} of {file}");
            match try_open(&rotten, seed) {
                (Err(WalError::Damaged { .. }), touched) => {
                    assert!(!touched, "{context}");
                    refused += 1;
                }
                // It lies before everything that is needed, or is as it was.
                (Ok(found), _) => assert_eq!(found.base, intact.base, "{context}"),
                (Err(other), _) => panic!("{context}: {other}"),
            }
        }
    }
    assert!(refused > 100, "only {refused} frames were needed ones");
}

/// The log of `disk` after another start, under `salt`, that made entries durable one by one.
fn grown(disk: &SimDisk, salt: u64, entries: RangeInclusive<u64>) -> SimDisk {
    let ours = disk.clone();
    run(disk, 3, async move |_| {
        let (mut wal, _) = open(ours, options(8, salt)).await.expect("opens");
        for serial in entries {
            wal.append(&entry_of(serial, 100)).expect("room").await.expect("durable");
        }
    })
    .done();
    disk.reboot(Crash::PowerCut)
}

/// Nothing in the log speaks of it: no log could tell, and the next frame is what closes the window.
#[test]
fn the_last_write_of_all_may_be_lost_unseen() {
    let disk = grown(&SimDisk::new(3), 3, 1..=3);
    let lost = |frame: usize| {
        let disk = disk.fork();
        disk.turn_back("wal/00000000.seg", frame * BLOCK_BYTES, BLOCK_BYTES);
        try_open_with(&disk, options(8, 4)).map(|(_, found)| (found.entries.len(), found.torn))
    };
    assert_eq!(lost(3).expect("it opens"), (2, None));
    assert!(matches!(lost(2), Err(WalError::Damaged { offset: 8192, .. })));
}

/// A log without it looks as if it had never begun. Its frames tell, under their own salt.
#[test]
fn the_header_of_the_only_segment_may_not_be_lost_unseen() {
    let disk = grown(&SimDisk::new(3), 3, 1..=2);
    disk.turn_back("wal/00000000.seg", 0, BLOCK_BYTES);
    let error = try_open_with(&disk, options(8, 4)).err().expect("refused");
    assert!(matches!(error, WalError::Damaged { offset: 0, .. }), "{error}");
}

/// Found by seed 20051: before the header that the disk lost stood that of a start whose first frame
/// never came to be, in the same place of the log.
#[test]
fn a_header_may_not_go_back_to_one_that_had_no_frames() {
    let disk = grown(&SimDisk::new(3), 3, 1..=1);
    let disk = grown(&disk, 4, 2..=2);
    let newest = newest_live(&disk).1;
    disk.turn_back(&newest, BLOCK_BYTES, BLOCK_BYTES);
    let disk = grown(&disk, 5, 2..=3);
    assert_eq!(newest_live(&disk).1, newest);
    disk.turn_back(&newest, 0, BLOCK_BYTES);
    let error = try_open_with(&disk, options(8, 6)).err().expect("refused");
    assert!(
        matches!(&error, WalError::Damaged { file, offset: 0, .. } if *file == newest),
        "{error}"
    );
}

#[test]
fn rot_of_a_segment_header_is_refused() {
    for seed in 0..20 {
        let (disk, _) = idle_log(seed);
        let mut lot = Lot::new(seed);
        for file in disk.names() {
            let rotten = disk.fork();
            rotten.flip(&file, lot.below(segment::HEADER_BYTES as u64 * 8) as usize);
            match try_open(&rotten, seed) {
                (Err(WalError::Damaged { file: named, offset: 0, .. }), touched) => {
                    assert_eq!(named, file);
                    assert!(!touched);
                }
                other => panic!("seed {seed} {file}: {:?}", other.0.err()),
            }
        }
    }
}

#[test]
fn a_lost_segment_is_refused() {
    let mut refused = 0;
    for seed in 0..20 {
        let (disk, _) = idle_log(seed);
        let intact = try_open(&disk, seed).0.expect("the log opens");
        let mut live = live_segments(&disk);
        live.pop();
        for (header, file) in live {
            let lossy = disk.fork();
            let blank = lossy.peek(&file).len();
            lossy.poke(&file, 0, &vec![0; blank]);
            match try_open(&lossy, seed) {
                (Err(WalError::Damaged { .. }), touched) => {
                    assert!(!touched);
                    refused += 1;
                }
                (Ok(found), _) => {
                    assert_eq!(found.base, intact.base, "seed {seed} segment {}", header.sequence)
                }
                (Err(other), _) => panic!("seed {seed}: {other}"),
            }
        }
    }
    assert!(refused > 20, "only {refused} lost segments were needed ones");
}

#[test]
fn a_segment_header_that_the_disk_lost_is_noticed_by_its_frames() {
    let disk = SimDisk::new(1);
    let ours = disk.clone();
    let last = run(&disk, 1, async move |_| {
        let (mut wal, _) = open(ours, options(3, 1)).await.expect("opens");
        for serial in 1..=4 {
            spare_ready(&mut wal).await;
            wal.append(&state_only(serial)).expect("room").await.expect("durable");
        }
        wal.durable_frame()
    });
    assert_eq!(last.done(), 4);
    // Two frames to a segment: the second segment's header never reached the medium, as if an
    // older one were still there.
    let before = disk.peek("wal/00000001.seg");
    assert!(matches!(segment::decode(&before), Opening::Live(header) if header.sequence == 2));
    let blank = segment::Header {
        cluster: 0xc1,
        member: 0x3e,
        segment_bytes: before.len() as u64,
        ..segment::Header::default()
    };
    let mut stale = vec![0; BLOCK_BYTES];
    blank.encode(&mut stale);
    disk.poke("wal/00000001.seg", 0, &stale);
    let disk = disk.reboot(Crash::Kill);
    match try_open_with(&disk, options(3, 2)) {
        Err(WalError::Damaged { file, offset: 0, .. }) => assert_eq!(file, "wal/00000001.seg"),
        other => panic!("{:?}", other.map(|_| ())),
    }
}

#[test]
fn rot_behind_the_acknowledged_end_changes_nothing() {
    for seed in 0..40 {
        let (blocks, steps) = sizes(seed);
        let (disk, history) = (SimDisk::new(seed), Rc::new(RefCell::new(History::default())));
        disk.crash_at(60 + seed);
        if boot(&disk, seed, blocks, steps, &history) != Ended::Halted {
            continue;
        }
        let disk = disk.reboot(Crash::PowerCut);
        let history = history.take();
        let frames = frames_on(&disk);
        for (file, offset, _, bytes) in frames.iter().filter(|frame| frame.2 > history.acknowledged)
        {
            let rotten = disk.fork();
            rotten.flip(file, (*offset as usize) * 8 + (seed as usize * 101) % (bytes * 8));
            recover(&rotten, seed + 1, blocks, &history, &format!("seed {seed}")).done();
        }
    }
}

/// The frame stands where it should, with the right number and salt and sound checksums, but it was
/// written behind another past.
#[test]
fn a_frame_with_another_past_is_refused() {
    let (disk, _) = idle_log(1);
    let newest = newest_live(&disk);
    let (file, offset, number, _) = frames_on(&disk)
        .into_iter()
        .filter(|(file, ..)| *file == newest.1)
        .min_by_key(|frame| frame.2)
        .expect("the newest segment has frames");
    let place = frame::Place {
        salt: newest.0.frame_salt(),
        number,
        chain: !newest.0.chain,
        durable_upto: 0,
        trimmed: 0,
    };
    let batch = state_only(1);
    let mut forged = vec![0; frame::frame_bytes(&batch)];
    frame::encode(&batch, &place, &mut forged);
    disk.poke(&file, offset as usize, &forged);
    match try_open(&disk, 1).0 {
        Err(WalError::Damaged { file: named, offset: at, .. }) => {
            assert_eq!((named, at), (file, offset));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_segment_with_another_past_is_refused() {
    let (disk, _) = idle_log(1);
    let (header, file) = newest_live(&disk);
    let mut forged = vec![0; BLOCK_BYTES];
    segment::Header { chain: !header.chain, ..header }.encode(&mut forged);
    disk.poke(&file, 0, &forged);
    assert!(matches!(try_open(&disk, 1).0, Err(WalError::Damaged { .. })));
}

#[test]
fn a_damaged_last_frame_is_reported_as_doubtful() {
    let disk = SimDisk::new(3);
    let ours = disk.clone();
    run(&disk, 3, async move |_| {
        let (mut wal, _) = open(ours, options(8, 3)).await.expect("opens");
        for serial in 1..=2 {
            wal.append(&entry_of(serial, 100)).expect("room").await.expect("durable");
        }
    })
    .done();
    let disk = disk.reboot(Crash::PowerCut);
    disk.flip("wal/00000000.seg", (2 * BLOCK_BYTES + frame::FRAME_HEAD_BYTES + 30) * 8);
    let ours = disk.clone();
    let (wal, found) =
        run(&disk, 4, async move |_| open(ours, options(8, 4)).await).done().expect("opens");
    let torn = found.torn.expect("the end is reported");
    assert!(torn.doubtful);
    assert_eq!((torn.file.as_str(), torn.offset, torn.frame), ("wal/00000000.seg", 8192, 2));
    assert_eq!((wal.durable_frame(), found.entries.len()), (1, 1));
}
