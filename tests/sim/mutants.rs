//! Bugs planted on purpose, through the seams: the product knows nothing of them. A check that
//! catches none of them checks nothing.
//!
//! Each mutant lives through seeds until one life goes wrong; it must be caught within the stated
//! number. Faults of the disk are left out of a mutant's weather, so that nothing but the bug can
//! be what was caught.

use crate::{
    clients::Slip,
    executor::Lot,
    member::{Drift, Mutant, Tamper},
    network::Gust,
    rough::Lie,
    weather::Weather,
    world::live,
};

/// The same seed without failing I/O and full disks.
fn gentle(seed: u64) -> Weather {
    Weather::draw(seed).gentle()
}

/// A life of three, without failing I/O and full disks.
fn company(seed: u64) -> Weather {
    Weather::draw_cluster(&mut Lot::new(seed ^ 0x3ee3), 3).gentle()
}

/// Asserts that a mutant is caught within `seeds_max` seeds, and that the same seeds are sound
/// without it.
fn caught(mutant: Mutant, seeds_max: u64) {
    caught_in(mutant, seeds_max, gentle);
}

fn caught_in(mutant: Mutant, seeds_max: u64, weather: fn(u64) -> Weather) {
    for seed in 0..seeds_max {
        if let Err(why) = live(seed, weather(seed), mutant) {
            let first_line = why.lines().next().unwrap_or_default();
            println!("{mutant:?}: caught by seed {seed}: {first_line}");
            let sound = live(seed, weather(seed), Mutant::default());
            assert!(sound.is_ok(), "seed {seed} fails without {mutant:?}: {sound:?}");
            return;
        }
    }
    panic!("{mutant:?} survived {seeds_max} seeds");
}

fn gust(gust: Gust) -> Mutant {
    Mutant { gust: Some(gust), ..Mutant::default() }
}

fn lie(lie: Lie) -> Mutant {
    Mutant { lie: Some(lie), ..Mutant::default() }
}

fn slip(slip: Slip) -> Mutant {
    Mutant { slip: Some(slip), ..Mutant::default() }
}

fn tamper(tamper: Tamper) -> Mutant {
    Mutant { tamper: Some(tamper), ..Mutant::default() }
}

fn drift(drift: Drift) -> Mutant {
    Mutant { drift: Some(drift), ..Mutant::default() }
}

#[test]
fn a_disk_that_never_syncs_data_is_caught() {
    caught(lie(Lie::DataNeverSynced), 20);
}

#[test]
fn a_log_that_is_never_synced_is_caught() {
    caught(lie(Lie::LogNeverSynced), 20);
}

#[test]
fn a_reply_before_the_log_is_durable_is_caught() {
    caught(lie(Lie::LogAcknowledgedEarly), 20);
}

#[test]
fn a_superblock_before_its_records_is_caught() {
    caught(lie(Lie::RecordsAfterSuperblock), 60);
}

#[test]
fn a_forgotten_hard_state_is_caught() {
    caught(tamper(Tamper::HardStateForgotten), 20);
}

#[test]
fn a_dropped_last_entry_is_caught() {
    caught(tamper(Tamper::LastEntryDropped), 20);
}

#[test]
fn a_log_trimmed_before_its_checkpoint_is_caught() {
    caught(tamper(Tamper::TrimmedTooEarly), 20);
}

#[test]
fn a_stale_read_is_caught() {
    caught(slip(Slip::StaleRead), 20);
}

#[test]
fn a_proposal_sent_twice_is_caught() {
    caught(slip(Slip::ProposedTwice), 20);
}

#[test]
fn a_refusal_told_as_done_is_caught() {
    caught(slip(Slip::RefusalForgotten), 20);
}

#[test]
fn a_revocation_before_its_time_is_caught() {
    caught(slip(Slip::RevokedEarly), 20);
}

#[test]
fn leases_on_a_clock_that_goes_fast_are_caught() {
    caught(drift(Drift::Fast), 20);
}

#[test]
fn leases_on_a_clock_that_goes_slow_are_caught() {
    caught(drift(Drift::Slow), 20);
}

#[test]
fn a_shard_that_does_not_look_at_what_it_missed_before_its_interest_is_caught() {
    caught(slip(Slip::LookedBefore), 60);
}

#[test]
fn a_shard_that_does_not_hear_the_news_is_caught() {
    caught(slip(Slip::NewsUnheard), 20);
}

#[test]
fn a_watcher_that_begins_a_revision_late_is_caught() {
    caught(slip(Slip::BeganLate), 20);
}

#[test]
fn a_message_to_a_watcher_that_is_lost_is_caught() {
    caught(slip(Slip::MessageLost), 20);
}

#[test]
fn messages_to_a_watch_stream_in_another_order_are_caught() {
    caught(slip(Slip::MessagesSwapped), 20);
}

#[test]
fn messages_that_leave_before_their_append_is_durable_are_caught() {
    caught_in(lie(Lie::LogAcknowledgedEarly), 20, company);
}

#[test]
fn a_vote_that_is_forgotten_is_caught() {
    caught_in(tamper(Tamper::HardStateForgotten), 40, company);
}

#[test]
fn a_log_of_several_that_loses_its_last_entry_is_caught() {
    caught_in(tamper(Tamper::LastEntryDropped), 40, company);
}

#[test]
fn a_vote_given_to_anybody_is_caught() {
    caught_in(gust(Gust::VotesGranted), 40, company);
}

#[test]
fn a_commit_without_a_quorum_is_caught() {
    caught_in(gust(Gust::AppendsConfirmed), 40, company);
}

#[test]
fn a_forwarded_proposal_taken_twice_is_caught() {
    caught_in(gust(Gust::ForwardedTwice), 20, company);
}

#[test]
fn a_read_that_asks_nobody_is_caught() {
    caught_in(slip(Slip::UnaskedRead), 20, company);
}

#[test]
fn a_renewal_that_asks_nobody_is_caught() {
    caught_in(slip(Slip::RenewedUnasked), 40, company);
}

#[test]
fn a_revision_used_twice_is_caught() {
    caught_in(slip(Slip::RevisionReused), 20, company);
}

#[test]
fn a_snapshot_that_is_not_synced_is_caught() {
    caught_in(lie(Lie::DataNeverSynced), 40, company);
}
