//! Watches, leases, locks and elections, of all shapes that a server answers without waiting.

use bytes::Bytes;
use prost::Message;
use proto::{
    etcdserverpb::{
        LeaseGrantRequest, LeaseKeepAliveRequest, LeaseLeasesRequest, LeaseRevokeRequest,
        LeaseTimeToLiveRequest, WatchCancelRequest, WatchCreateRequest, WatchProgressRequest,
        WatchRequest, lease, watch_request::RequestUnion,
    },
    v3electionpb::{CampaignRequest, LeaderKey, LeaderRequest, ProclaimRequest, ResignRequest},
    v3lockpb::{LockRequest, UnlockRequest},
};

use super::Calls;
use crate::call::{CAMPAIGNED, CHOSEN, COMPACTED, CURRENT, Call};

/// Watch streams open at a time.
const STREAMS: usize = 3;
/// Leases that keys may have. No two calls ask for different ids, so each is granted, revoked and
/// granted again. -1 is none of them: etcd's election service asks in its name.
const LEASES: [i64; 8] = [1, 2, 3, 4, 0x5eed, -3, i64::MAX, i64::MIN];
/// Seconds. Far more than any run takes, and further apart than that.
const TTLS: [i64; 4] = [20_000, 40_000, 1_000_000, 9_000_000_000];
/// What no lease lasts as long as, or what none has: raised, refused.
const ODD_TTLS: [i64; 6] = [0, 1, -1, i64::MIN, 9_000_000_001, i64::MAX];
/// Leases whose ids the server chose, told apart.
const CHOSEN_MAX: usize = 20;

impl Calls {
    /// A call of these kinds, where they are asked for and it is their turn.
    pub(super) fn coordination(&mut self) -> Option<Call> {
        let turn = self.dice_of_coordination()?;
        Some(match turn {
            0..80 => self.watch(),
            80..160 => self.lease(),
            _ => self.lock(),
        })
    }

    /// Draws nothing where nothing was asked for, so that a seed means what it meant.
    fn dice_of_coordination(&mut self) -> Option<usize> {
        let super::Extras { watches, leases, locks, .. } = self.extras;
        if !(watches || leases || locks) {
            return None;
        }
        let turn = self.dice.below(1_000);
        let wanted = match turn {
            0..80 => watches,
            80..160 => leases,
            160..190 => locks,
            _ => false,
        };
        wanted.then_some(turn)
    }

    // ── watches ─────────────────────────────────────────────────────────────────────────────────

    fn watch(&mut self) -> Call {
        let stream = self.dice.below(STREAMS);
        let union = match self.dice.below(100) {
            0..56 => Some(RequestUnion::CreateRequest(self.create())),
            56..78 => {
                Some(RequestUnion::CancelRequest(WatchCancelRequest { watch_id: self.watch_id() }))
            }
            78..90 => Some(RequestUnion::ProgressRequest(WatchProgressRequest {})),
            90..92 => None,
            92..95 => return Call::WatchEnd { stream },
            95..97 => {
                let message = *self.dice.pick::<&[u8]>(&[
                    b"\x0a",         // a length missing
                    b"\x0a\x7f",     // a length too long
                    b"\x0e",         // wire type 6
                    b"\x00\x01",     // field 0
                    b"\x22\x02ab",   // a union member nobody knows
                    b"\xf8\x7f\x01", // a field nobody knows
                    b"\x12\x02\x08", // a request to cancel, cut off
                ]);
                return Call::WatchBytes { stream, message: Bytes::from_static(message) };
            }
            _ => return self.progress_beside_the_future(stream),
        };
        Call::Watch { stream, request: WatchRequest { request_union: union } }
    }

    fn create(&mut self) -> WatchCreateRequest {
        let key = self.key();
        let filters = *self.dice.pick::<&[i32]>(&[
            &[],
            &[],
            &[],
            &[],
            &[0],
            &[1],
            &[0, 1],
            &[1, 1],
            &[7],
            &[-1, 0],
        ]);
        WatchCreateRequest {
            range_end: self.maybe(70, |calls| calls.range_end(&key)),
            key,
            start_revision: self.maybe(50, Self::start_revision),
            progress_notify: self.dice.percent(20),
            filters: filters.to_vec(),
            prev_kv: self.dice.percent(40),
            watch_id: self.maybe(30, Self::watch_id),
            fragment: self.dice.percent(30),
        }
    }

    fn start_revision(&mut self) -> i64 {
        match self.dice.below(20) {
            0..7 => CURRENT - self.dice.below(60) as i64,
            7..9 => CURRENT + 1,
            9..11 => CURRENT + self.dice.below(8) as i64,
            11..14 => COMPACTED + self.dice.below(10) as i64,
            14 => COMPACTED,
            15 => COMPACTED - 1,
            16 => 1,
            17 => *self.dice.pick(&[-1, -2, i64::MIN]),
            18 => CURRENT + 1_000,
            _ => i64::MAX,
        }
    }

    /// One that the server may have picked, or one that a client may.
    fn watch_id(&mut self) -> i64 {
        match self.dice.below(10) {
            0..6 => self.dice.below(12) as i64,
            6..9 => 100 + self.dice.below(4) as i64,
            _ => *self.dice.pick(&[-1, -5, i64::MAX, i64::MIN]),
        }
    }

    /// A stream may not say how far it is while one of its watchers has not begun.
    fn progress_beside_the_future(&mut self, stream: usize) -> Call {
        let call =
            |union| Call::Watch { stream, request: WatchRequest { request_union: Some(union) } };
        let ask = || call(RequestUnion::ProgressRequest(WatchProgressRequest {}));
        let create = WatchCreateRequest {
            key: self.key(),
            start_revision: CURRENT + 4,
            ..Default::default()
        };
        self.next.push_back(ask());
        self.next.push_back(Call::Settle);
        self.next.push_back(ask());
        call(RequestUnion::CreateRequest(create))
    }

    // ── leases ──────────────────────────────────────────────────────────────────────────────────

    /// The lease of a put.
    pub(super) fn attached(&mut self) -> i64 {
        match self.extras.leases {
            true => {
                self.maybe(
                    25,
                    |calls| {
                        if calls.dice.percent(8) { 77 } else { *calls.dice.pick(&LEASES) }
                    },
                )
            }
            false => self.maybe(3, |calls| *calls.dice.pick(&[1, 77, -1, i64::MAX, i64::MIN])),
        }
    }

    fn lease(&mut self) -> Call {
        match self.dice.below(100) {
            0..40 => Call::LeaseGrant(self.grant()),
            40..56 => Call::LeaseRevoke(LeaseRevokeRequest { id: self.lease_id() }),
            56..74 => Call::LeaseTimeToLive(LeaseTimeToLiveRequest {
                id: self.lease_id(),
                keys: self.dice.percent(70),
            }),
            74..84 => Call::KeepAlive(LeaseKeepAliveRequest { id: self.lease_id() }),
            84..90 => Call::KeepAliveOnce(LeaseKeepAliveRequest { id: self.lease_id() }),
            90..97 => Call::LeaseLeases(LeaseLeasesRequest {}),
            _ => self.mangled_keep_alive(),
        }
    }

    fn grant(&mut self) -> LeaseGrantRequest {
        LeaseGrantRequest {
            ttl: *match self.dice.percent(85) {
                true => self.dice.pick(&TTLS),
                false => self.dice.pick(&ODD_TTLS),
            },
            id: self.maybe(90, |calls| *calls.dice.pick(&LEASES)),
        }
    }

    fn lease_id(&mut self) -> i64 {
        match self.dice.below(20) {
            0..14 => *self.dice.pick(&LEASES),
            14..18 => CHOSEN + self.dice.below(CHOSEN_MAX) as i64,
            18 => 0,
            _ => *self.dice.pick(&[77, -1]),
        }
    }

    /// On a stream of its own.
    fn mangled_keep_alive(&mut self) -> Call {
        let mut message = LeaseKeepAliveRequest { id: 77 }.encode_to_vec();
        match self.dice.below(3) {
            0 => message.truncate(self.dice.below(message.len())),
            1 => message.extend_from_slice(b"\xf8\x7f\x01"),
            _ => message.extend_from_slice(b"\x0e"),
        }
        Call::Raw { path: lease::LEASE_KEEP_ALIVE.into(), message: message.into() }
    }

    // ── locks and elections ─────────────────────────────────────────────────────────────────────

    /// Each lease has its own lock and election, so that none waits for another.
    fn lock(&mut self) -> Call {
        let lease = match self.dice.below(10) {
            0 => 77,
            1..4 => *self.dice.pick(&LEASES),
            // Few, so that one that leads is met again.
            _ => *self.dice.pick(&LEASES[..2]),
        };
        let key = |name: &Bytes| [name, format!("/{}", hex(lease)).as_bytes()].concat().into();
        let lock = Bytes::from(format!("lock{lease}"));
        let name = Bytes::from(format!("elect{lease}"));
        match self.dice.below(100) {
            0..25 => Call::Lock(LockRequest { name: lock, lease }),
            25..40 => {
                let other = self.maybe(20, Self::key);
                let key = if other.is_empty() { key(&lock) } else { other };
                Call::Unlock(UnlockRequest { key: self.maybe(95, |_| key) })
            }
            40..60 => Call::Campaign(CampaignRequest { name, lease, value: self.value() }),
            60..75 => {
                let leader = self.maybe(90, |calls| Some(calls.leader(lease, key(&name), name)));
                Call::Proclaim(ProclaimRequest { leader, value: self.value() })
            }
            75..88 => {
                let leader = self.maybe(90, |calls| Some(calls.leader(lease, key(&name), name)));
                Call::Resign(ResignRequest { leader })
            }
            _ => {
                let nobody = Bytes::from_static(b"nobody");
                let name = if self.dice.percent(80) { name } else { nobody };
                Call::Leader(LeaderRequest { name: self.maybe(95, |_| name) })
            }
        }
    }

    /// Mostly the key that the last campaign gave.
    fn leader(&mut self, lease: i64, key: Bytes, name: Bytes) -> LeaderKey {
        let rev = if self.dice.percent(80) { CAMPAIGNED } else { 2 };
        LeaderKey { name, key, rev, lease }
    }
}

/// As Go's `%x` writes a number that may be negative.
fn hex(lease: i64) -> String {
    let sign = if lease < 0 { "-" } else { "" };
    format!("{sign}{:x}", lease.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::Extras;

    #[test]
    fn leases_are_written_as_go_does() {
        assert_eq!([hex(0x5eed), hex(-3)], ["5eed", "-3"]);
        assert_eq!(hex(i64::MIN), "-8000000000000000");
    }

    #[test]
    fn what_was_not_asked_for_does_not_come() {
        let none = Calls::new(3, Extras::default()).take(5_000);
        assert!(none.map(|call| call.path().to_owned()).all(|path| {
            !["Watch", "Lease", "Lock", "Election"].iter().any(|name| path.contains(name))
        }));
    }
}
