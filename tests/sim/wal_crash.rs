//! Whatever the log acknowledged is there after any crash, in order, and nothing else is.
//!
//! A seed draws a workload; it is run once to count its boundaries, then once more for each of them
//! with the plug pulled there. What is found afterwards must be what a prefix of the appended
//! frames says, and that prefix must hold every acknowledged one.

use crate::{
    disk::{Crash, SimDisk},
    executor::{Ended, Executor, Lot},
    wal_model::{
        History, boot, entry_of, frames_on, open, opening, options, recover, run, sizes,
        spare_ready, try_open_with,
    },
};
use ringleader::wal::segment::Opening;
use std::{cell::RefCell, collections::BTreeSet, rc::Rc};

fn kind_of_crash(lot: &mut Lot) -> Crash {
    if lot.one_in(4) { Crash::Kill } else { Crash::PowerCut }
}

/// Every boundary of one seed's workload. Returns how many crash states were looked at.
fn crash_everywhere(seed: u64) -> u64 {
    let (blocks, steps) = sizes(seed);
    let calm = SimDisk::new(seed);
    boot(&calm, seed, blocks, steps, &Rc::default()).done();
    let mut states = 0;
    for at in 1..=calm.boundaries() {
        let (disk, history) = (SimDisk::new(seed), Rc::new(RefCell::new(History::default())));
        disk.crash_at(at);
        assert_eq!(boot(&disk, seed, blocks, steps, &history), Ended::Halted);
        let mut lot = Lot::new(seed ^ (at << 32));
        let disk = disk.reboot(kind_of_crash(&mut lot));
        let context = format!("seed {seed} boundary {at}");
        states += 1;
        if at % 5 == seed % 5 {
            states += crash_recovery_everywhere(&disk, seed, blocks, &history.borrow(), &context);
        }
        // A second boot works on what it found and crashes too; a third has the last word.
        disk.crash_at(1 + lot.below(60));
        let second = boot(&disk, seed + 1, blocks, 6, &history);
        assert_ne!(second, Ended::Stalled, "{context}");
        let disk = disk.reboot(kind_of_crash(&mut lot));
        recover(&disk, seed + 2, blocks, &history.borrow(), &context).done();
        states += 1;
    }
    states
}

/// Crashes at every boundary of a recovery and recovers again.
fn crash_recovery_everywhere(
    disk: &SimDisk,
    seed: u64,
    blocks: u64,
    before: &History,
    context: &str,
) -> u64 {
    for at in 1.. {
        let disk = disk.fork();
        disk.crash_at(at);
        let context = format!("{context} recovery boundary {at}");
        match recover(&disk, seed + 7, blocks, before, &context) {
            Ended::Done(_) => return at - 1,
            ended => assert_eq!(ended, Ended::Halted, "{context}"),
        }
        let crash = if at % 3 == 0 { Crash::Kill } else { Crash::PowerCut };
        let disk = disk.reboot(crash);
        recover(&disk, seed + 8, blocks, before, &context).done();
    }
    unreachable!("a recovery ends")
}

#[test]
fn what_was_acknowledged_survives_a_crash_at_any_boundary() {
    /// Enough for tens of thousands of crash states in a few seconds.
    const SEEDS: u64 = 150;
    let states: u64 = (0..SEEDS).map(crash_everywhere).sum();
    assert!(states > 20_000, "only {states} crash states were looked at");
}

/// A snapshot came: the log is trimmed behind its last entry and goes on there, in this opening or in
/// the next, whatever lies in the segments from before.
#[test]
fn a_log_goes_on_behind_a_trim_past_its_end_after_a_crash_at_any_boundary() {
    for (seed, before) in (0..8).flat_map(|seed| [0, 3].map(|before| (seed, before))) {
        for at in 1.. {
            let disk = SimDisk::new(seed);
            disk.crash_at(at);
            let (ours, landed) = (disk.clone(), Rc::new(RefCell::new((0, 0))));
            let told = landed.clone();
            let ended = run(&disk, seed, async move |_| {
                let (mut wal, _) = open(ours.clone(), options(3, 1)).await.expect("opens");
                for index in 1..=before {
                    spare_ready(&mut wal).await;
                    wal.append(&entry_of(index, 10)).expect("room").await.expect("durable");
                    told.borrow_mut().0 = index;
                }
                wal.trim(50);
                assert_eq!((wal.first_index(), wal.last_index()), (51, 50));
                if seed % 2 == 0 {
                    drop(wal);
                    wal = open(ours, options(3, 2)).await.expect("opens").0;
                    assert_eq!(wal.last_index(), before, "no frame carries the trim yet");
                    wal.trim(50);
                }
                for index in 51..54 {
                    spare_ready(&mut wal).await;
                    wal.append(&entry_of(index, 10)).expect("room").await.expect("durable");
                    told.borrow_mut().1 = index;
                }
            });
            let disk = disk.reboot(if at % 3 == 0 { Crash::Kill } else { Crash::PowerCut });
            let (wal, found) =
                try_open_with(&disk, options(3, 3)).expect("a crash damages nothing");
            let indexes: Vec<_> = found.entries.iter().map(|entry| entry.index).collect();
            let (old, new) = *landed.borrow();
            let context = format!("seed {seed} before {before} boundary {at}: {indexes:?}");
            if found.trimmed == 50 {
                assert!(indexes.iter().copied().eq(51..=wal.last_index()), "{context}");
                assert!((50.max(new)..54).contains(&wal.last_index()), "{context}");
            } else {
                assert!(found.trimmed == 0 && new == 0, "{context}");
                assert!(indexes.iter().copied().eq(1..=wal.last_index()), "{context}");
                assert!((old..=before).contains(&wal.last_index()), "{context}");
            }
            if ended != Ended::Halted {
                assert_eq!(new, 53, "{context}");
                break;
            }
        }
    }
}

#[test]
fn one_seed_is_one_story() {
    let tell = |seed| {
        let (disk, history) = (SimDisk::new(seed), Rc::default());
        disk.crash_at(40);
        assert_eq!(boot(&disk, seed, 6, 30, &history), Ended::Halted);
        let disk = disk.reboot(Crash::PowerCut);
        recover(&disk, seed + 1, 6, &history.borrow(), "second boot").done();
        disk.audit()
    };
    let audits: BTreeSet<u64> = (0..20).map(tell).collect();
    assert_eq!(audits.len(), 20, "seeds tell different stories");
    assert!((0..20).map(tell).all(|audit| audits.contains(&audit)), "a story never changes");
}

#[test]
fn recovery_leaves_nothing_of_what_was_torn_off() {
    let mut torn_off = 0;
    for (seed, at) in (0..40).flat_map(|seed| (5..80).step_by(4).map(move |at| (seed, at))) {
        let (blocks, steps) = sizes(seed);
        let (disk, history) = (SimDisk::new(seed), Rc::new(RefCell::new(History::default())));
        disk.crash_at(at);
        if boot(&disk, seed, blocks, steps, &history) != Ended::Halted {
            continue;
        }
        let disk = disk.reboot(Crash::PowerCut);
        let before = frames_on(&disk).len();
        let found = recover(&disk, seed + 1, blocks, &history.borrow(), "recovery").done();
        let after = frames_on(&disk);
        assert!(after.iter().all(|frame| frame.2 <= found.base_frame), "seed {seed}: {after:?}");
        torn_off += before - after.len();
        for name in disk.names() {
            let opening = opening(&disk, &name);
            assert!(matches!(opening, Opening::Blank(_) | Opening::Live(_)), "seed {seed} {name}");
        }
    }
    assert!(torn_off > 50, "only {torn_off} whole frames were torn off");
}

/// ```text
///   frame 11 ╳        frame 12 ✓        frame 13 ✓      each in a segment of its own
/// ```
#[test]
fn frames_that_overtook_a_lost_one_are_torn_off() {
    let disk = SimDisk::new(12);
    let ours = disk.clone();
    let stalled = run(&disk, 12, async move |executor: Executor| {
        let (mut wal, _) = open(ours, options(2, 12)).await.expect("opens");
        for serial in 1..=9 {
            spare_ready(&mut wal).await;
            wal.append(&entry_of(serial, 10)).expect("room").await.expect("durable");
        }
        wal.trim(9);
        spare_ready(&mut wal).await;
        wal.append(&entry_of(10, 10)).expect("room").await.expect("durable");
        // Many spares now, and a trim that only overtaking frames carry.
        assert!(wal.prepare().is_some(), "there is surplus to remove");
        wal.trim(10);
        let mut flights: Vec<_> =
            (11..=13).map(|serial| wal.append(&entry_of(serial, 10)).expect("room")).collect();
        drop(flights.remove(0));
        for flight in flights {
            executor.spawn(async move { drop(flight.await) });
        }
        std::future::pending::<()>().await;
    });
    assert_eq!(stalled, Ended::Stalled, "the overtaking frames wait for the lost one");
    let mut disk = disk.reboot(Crash::Kill);
    assert!(frames_on(&disk).iter().any(|frame| frame.2 == 13), "the frames did land");
    for salt in 20..23 {
        let (wal, found) = try_open_with(&disk, options(2, salt)).expect("opens");
        assert_eq!((wal.durable_frame(), wal.last_index()), (10, 10));
        assert_eq!(found.trimmed, 10, "a trim that was seen once stays");
        assert_eq!(found.torn.is_some(), salt == 20, "torn off once");
        assert!(frames_on(&disk).iter().all(|frame| frame.2 <= 10));
        disk = disk.reboot(Crash::PowerCut);
    }
}
