//! What is known of a side's leases, and their answers in the form in which two are compared.
//!
//! Nothing may expire while calls are made, for then each side would lose its keys at its own time.
//! So a lease that was granted little time is given back at once.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use proto::etcdserverpb::{LeaseLeasesResponse, LeaseTimeToLiveResponse};

use crate::call::Known;

/// Seconds. No run takes as long.
pub const TTL_LONG: i64 = 10_000;
/// Seconds that a time to live may be off by.
const SLACK: i64 = 2;

#[derive(Debug)]
struct Held {
    ttl: i64,
    /// The renewal that it surely had last, and the last that it may have had.
    renewed: [Instant; 2],
}

/// A side's leases.
#[derive(Debug, Default)]
pub struct Ledger(BTreeMap<i64, Held>);

impl Ledger {
    /// A lease was granted so many seconds.
    pub fn granted(&mut self, id: i64, ttl: i64) {
        self.0.insert(id, Held { ttl, renewed: [Instant::now(); 2] });
    }

    /// A lease is gone.
    pub fn revoked(&mut self, id: i64) {
        self.0.remove(&id);
    }

    /// A lease was renewed, for all that we know.
    pub fn renewed(&mut self, id: i64) {
        if let Some(held) = self.0.get_mut(&id) {
            held.renewed = [Instant::now(); 2];
        }
    }

    /// A lease may have been renewed or not, as when a lock's session is made and left.
    pub fn perhaps_renewed(&mut self, id: i64) {
        if let Some(held) = self.0.get_mut(&id) {
            held.renewed[1] = Instant::now();
        }
    }

    /// The seconds left count as those granted, where they are that but for the time since.
    pub fn settle_remaining(
        &self,
        response: &mut LeaseTimeToLiveResponse,
        asked: Instant,
        known: &Known,
    ) {
        if let Some(held) = self.0.get(&response.id) {
            let [surely, perhaps] = held.renewed;
            let most = held.ttl - seconds(asked.saturating_duration_since(perhaps)) + SLACK;
            let least = held.ttl - seconds(surely.elapsed()) - SLACK;
            if (least..=most).contains(&response.ttl) {
                response.ttl = held.ttl;
            }
        }
        response.id = known.lease(response.id);
    }

    /// Leases of one TTL, which follow one another within moments, in the order of their ids.
    pub fn settle_list(&self, response: &mut LeaseLeasesResponse, known: &Known) {
        let ttl = |id: &i64| self.0.get(id).map(|held| held.ttl);
        for run in response.leases.chunk_by_mut(|a, b| ttl(&a.id) == ttl(&b.id)) {
            run.iter_mut().for_each(|lease| lease.id = known.lease(lease.id));
            run.sort_by_key(|lease| lease.id);
        }
    }
}

fn seconds(time: Duration) -> i64 {
    time.as_secs().cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::CHOSEN;
    use proto::etcdserverpb::LeaseStatus;

    #[test]
    fn a_time_to_live_may_be_off_by_little() {
        let mut ledger = Ledger::default();
        ledger.granted(5, 20_000);
        let known = Known::default();
        let settled = |ttl| {
            let mut response = LeaseTimeToLiveResponse { id: 5, ttl, ..Default::default() };
            ledger.settle_remaining(&mut response, Instant::now(), &known);
            response.ttl
        };
        assert_eq!([19_998, 19_999, 20_000].map(settled), [20_000; 3]);
        assert_eq!([19_000, 20_100, -1].map(settled), [19_000, 20_100, -1]);
    }

    #[test]
    fn a_list_keeps_the_order_of_different_times() {
        let mut ledger = Ledger::default();
        let known = Known { chosen: vec![77], ..Known::default() };
        for (id, ttl) in [(9, 20_000), (3, 20_000), (77, 20_000), (1, 40_000)] {
            ledger.granted(id, ttl);
        }
        let settled = |ids: &[i64]| {
            let leases = ids.iter().map(|&id| LeaseStatus { id }).collect();
            let mut response = LeaseLeasesResponse { header: None, leases };
            ledger.settle_list(&mut response, &known);
            response.leases.into_iter().map(|lease| lease.id).collect::<Vec<_>>()
        };
        assert_eq!(settled(&[9, 77, 3, 1]), [3, 9, CHOSEN, 1]);
        assert_eq!(settled(&[1, 9, 3]), [1, 3, 9]);
    }
}
