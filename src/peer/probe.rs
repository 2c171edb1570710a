//! How long another member takes to answer: `GET /raft/probing`, every few seconds (xiang90/probing,
//! as etcd uses it).

use super::{Room, calls, link::Link, link::Task};
use crate::{io::Clock, limits::PEER_PROBE_INTERVAL};
use futures_lite::future;
use std::rc::Rc;

/// Asks until the link ends.
pub async fn probe_all(room: Rc<Room>, link: Rc<Link>) {
    let asking = async {
        loop {
            glommio::timer::sleep(PEER_PROBE_INTERVAL).await;
            let Some(place) = link.place() else { continue };
            let request = room.who.request("GET", "/raft/probing", &place.to_string()) + "\r\n";
            let asked = room.clock.now();
            let answer = calls::call(&room, &link, request.into_bytes()).wait().await;
            if answer.is_ok_and(|answer| answer.status == 200) {
                link.meter.round_trip.record(room.clock.now() - asked);
            }
        }
    };
    future::or(asking, link.end_of(Task::Probe)).await;
}

/// Nanoseconds since the epoch in UTC, as Go's JSON says a time (RFC 3339, no zeros at the end).
pub fn rfc3339(nanos: u64) -> String {
    let (seconds, nanos) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    let fraction = match nanos {
        0 => String::new(),
        nanos => format!(".{nanos:09}").trim_end_matches('0').to_owned(),
    };
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

/// The day so many days after 1970-01-01, by counting from the 1st of March of the year 0, where
/// every 400 years have 146,097 days and months follow a pattern of 153 days in five.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let of_era_year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * of_era_year + of_era_year / 4 - of_era_year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (era * 400 + of_era_year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_said_as_go_says_them() {
        for (nanos, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400_500_000_000, "2000-02-29T00:00:00.5Z"),
            (1_709_251_199_000_000_001, "2024-02-29T23:59:59.000000001Z"),
            (1_735_689_600_120_000_000, "2025-01-01T00:00:00.12Z"),
            (4_107_542_400_000_000_000, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(nanos), expected);
        }
    }
}
