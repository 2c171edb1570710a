//! A machine's own clocks: one that goes too fast or too slow, and one on the wall that is set.
//!
//! ```text
//!   time that passed       ──×rate──▶  Clock::now          begins anew, anywhere, with each boot
//!   time + what it was set to ──────▶  Clock::wall_nanos   goes back by hours, on by years
//! ```
//!
//! Clients and judges go by [`SimClock`], which is right.

use crate::executor::{Lot, SimClock};
use ringleader::io::Clock;
use std::{cell::Cell, future::Future, rc::Rc, time::Duration};

/// How fast a machine's clock goes: so many microseconds a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate(pub(crate) u64);

/// Parts of which a [`Rate`] is made.
const RIGHT: u64 = 1_000_000;

impl Rate {
    pub(crate) const RIGHT: Self = Self(RIGHT);

    /// Most clocks are right or nearly so; some machines' are not.
    pub(crate) fn draw(lot: &mut Lot) -> Self {
        let most = [0, 200, 20_000, 250_000][[0, 1, 1, 2, 2, 2, 2, 3][lot.below(8) as usize]];
        Self(RIGHT - most + lot.below(2 * most + 1))
    }

    /// What a clock shows of time that passes.
    pub(crate) fn shown(self, passed: Duration) -> Duration {
        nanos(passed.as_nanos() * u128::from(self.0) / u128::from(RIGHT))
    }

    /// How long it takes until a clock has gone on so far.
    pub(crate) fn lasts(self, shown: Duration) -> Duration {
        nanos((shown.as_nanos() * u128::from(RIGHT)).div_ceil(u128::from(self.0)))
    }
}

/// What never comes stays so.
fn nanos(nanos: u128) -> Duration {
    u64::try_from(nanos).map_or(Duration::MAX, Duration::from_nanos)
}

/// What a clock on the wall shows beyond the right time, nanoseconds. Stays over boots.
pub(crate) type Wall = Rc<Cell<i64>>;

/// Somebody sets the clock on the wall: by an instant, some hours or some years.
pub(crate) fn set(wall: &Wall, lot: &mut Lot) {
    const HOUR_NANOS: i64 = 3_600_000_000_000;
    const WRONG_MAX: i64 = 10 * 365 * 24 * HOUR_NANOS;
    let most = [1_000_000, 5_000_000_000, 5 * HOUR_NANOS, WRONG_MAX][lot.below(4) as usize];
    let by = lot.below(2 * most.unsigned_abs()).cast_signed() - most;
    wall.set((wall.get() + by).clamp(-WRONG_MAX, WRONG_MAX));
}

/// The machine has no battery: its clock on the wall begins as it did on the first day.
pub(crate) fn forget(wall: &Wall, passed: Duration) {
    let nanos = i64::try_from(passed.as_nanos()).expect("a life is shorter than centuries");
    wall.set(-nanos);
}

/// The clocks of one boot of a machine.
#[derive(Clone)]
pub(crate) struct OwnClock {
    truth: SimClock,
    rate: Rate,
    /// When the boot began, and what its clock showed then.
    began: Duration,
    showed: Duration,
    wall: Wall,
}

impl OwnClock {
    pub(crate) fn begin(truth: SimClock, rate: Rate, showed: Duration, wall: Wall) -> Self {
        let began = truth.now();
        Self { truth, rate, began, showed, wall }
    }

    /// How long it takes until this clock has gone on so far.
    pub(crate) fn lasts(&self, shown: Duration) -> Duration {
        self.rate.lasts(shown)
    }

    /// Somebody sets the clock on the wall.
    pub(crate) fn set(&self, lot: &mut Lot) {
        set(&self.wall, lot);
    }
}

impl Clock for OwnClock {
    fn now(&self) -> Duration {
        self.showed + self.rate.shown(self.truth.now() - self.began)
    }

    fn wall_nanos(&self) -> u64 {
        self.truth.wall_nanos().saturating_add_signed(self.wall.get())
    }

    fn sleep_until(&self, until: Duration) -> impl Future<Output = ()> + 'static {
        let left = self.rate.lasts(until.saturating_sub(self.showed));
        self.truth.sleep_until(self.began.saturating_add(left))
    }
}

#[test]
fn a_clock_that_woke_somebody_shows_that_it_is_time() {
    for rate in [Rate::RIGHT, Rate(RIGHT * 2), Rate(RIGHT / 2), Rate(979_321), Rate(1_249_999)] {
        for millis in [1, 7, 999, 86_400_000] {
            let wanted = Duration::from_millis(millis);
            let lasts = rate.lasts(wanted);
            assert!(rate.shown(lasts) >= wanted, "{rate:?} after {lasts:?}");
            let before = lasts - Duration::from_nanos(3);
            assert!(rate.shown(before) < wanted, "{rate:?} after {before:?}");
        }
    }
}
