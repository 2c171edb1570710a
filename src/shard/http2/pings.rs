//! How often a client may ping (grpc-go's keepalive enforcement with etcd's settings: a minimum of
//! 5 s, none without streams).

use crate::limits::{
    HTTP2_PING_INTERVAL_IDLE_MIN, HTTP2_PING_INTERVAL_MIN, HTTP2_PING_STRIKES_MAX,
};
use std::time::Duration;

/// One connection's pings.
#[derive(Default)]
pub struct Pings {
    last: Option<Duration>,
    strikes: u32,
    /// We have sent headers or data since the last ping, so this one is welcome: clients measure
    /// their bandwidth so.
    forgiven: bool,
}

impl Pings {
    /// The server has sent HEADERS or DATA.
    pub fn forgive(&mut self) {
        self.forgiven = true;
    }

    /// A ping came at `now`. Returns whether there have been too many.
    pub fn on_ping(&mut self, now: Duration, has_streams: bool) -> bool {
        let last = self.last.replace(now);
        if std::mem::take(&mut self.forgiven) {
            self.strikes = 0;
            return false;
        }
        let min = if has_streams { HTTP2_PING_INTERVAL_MIN } else { HTTP2_PING_INTERVAL_IDLE_MIN };
        self.strikes += u32::from(last.is_some_and(|last| last + min > now));
        self.strikes > HTTP2_PING_STRIKES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pings at these seconds; which one is too many?
    fn too_many(seconds: &[u64], has_streams: bool) -> Option<usize> {
        let mut pings = Pings::default();
        let on = |second: &u64| pings.on_ping(Duration::from_secs(*second), has_streams);
        seconds.iter().position(on)
    }

    #[test]
    fn the_third_strike_is_one_too_many() {
        assert_eq!(too_many(&[0, 1, 2, 3], true), Some(3));
        assert_eq!(too_many(&[0, 5, 10, 15, 20, 25], true), None);
        assert_eq!(too_many(&[0, 4, 9, 13, 18, 22], true), Some(5), "strikes need not be in a row");
    }

    #[test]
    fn without_streams_two_hours_must_pass() {
        assert_eq!(too_many(&[0, 60, 120, 180], false), Some(3));
        assert_eq!(too_many(&[0, 7200, 14_400, 21_600], false), None);
    }

    #[test]
    fn what_the_server_sends_clears_the_strikes() {
        let mut pings = Pings::default();
        let now = Duration::from_secs(1);
        for _ in 0..100 {
            assert!(!pings.on_ping(now, true));
            assert!(!pings.on_ping(now, true));
            pings.forgive();
        }
    }
}
