//! The real clock: the machine's, with glommio's timers.
#![allow(clippy::disallowed_methods)] // this file is the clock

use super::Clock;
use std::{
    future::Future,
    time::{Duration, Instant, SystemTime},
};

/// Monotonic time since the clock was made, and timers of the executor it is used on.
#[derive(Clone)]
pub struct GlommioClock {
    start: Instant,
}

impl GlommioClock {
    /// A clock that starts at zero now.
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Default for GlommioClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for GlommioClock {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn wall_nanos(&self) -> u64 {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }

    fn sleep_until(&self, until: Duration) -> impl Future<Output = ()> + 'static {
        let wait = until.saturating_sub(self.now());
        async move { glommio::timer::sleep(wait).await }
    }
}
