//! From many calls to the few that show a difference: halves and smaller parts are left out, again
//! and again, as long as what remains still differs (Zeller and Hildebrandt's ddmin).

use std::time::{Duration, Instant};

use crate::{call::Call, run::Difference};

/// The shortest list found, and the difference at its end.
#[derive(Debug)]
pub struct Shrunk {
    /// Ends with the call that is answered differently.
    pub calls: Vec<Call>,
    /// What the last replay saw.
    pub difference: Box<Difference>,
    /// Replays made.
    pub replays: usize,
}

/// Shortens `calls`, of which the last was answered differently, for as long as `most`.
/// `differs` replays a list on two fresh servers.
pub fn shrink(
    calls: Vec<Call>,
    difference: Box<Difference>,
    most: Duration,
    mut differs: impl FnMut(&[Call]) -> Option<Box<Difference>>,
) -> Shrunk {
    let end = Instant::now() + most;
    let mut best = Shrunk { calls, difference, replays: 0 };
    let mut attempt = |best: &mut Shrunk, calls: &[Call]| {
        best.replays += 1;
        let difference = differs(calls).filter(|found| found.is_like(&best.difference));
        let Some(difference) = difference else { return false };
        best.calls = calls[..=difference.at].to_vec();
        best.difference = difference;
        true
    };
    // Most often the last few calls are enough, and they are quickly replayed.
    let mut tail = 1;
    while tail < best.calls.len() && Instant::now() < end {
        let last = best.calls[best.calls.len() - tail..].to_vec();
        if attempt(&mut best, &last) {
            break;
        }
        tail *= 4;
    }
    let mut parts = 2;
    while best.calls.len() > 1 && Instant::now() < end {
        let part = best.calls.len().div_ceil(parts);
        let without = (0..best.calls.len()).step_by(part).rev().any(|from| {
            let to = (from + part).min(best.calls.len());
            let rest = [&best.calls[..from], &best.calls[to..]].concat();
            Instant::now() < end && attempt(&mut best, &rest)
        });
        parts = match without {
            true => (parts - 1).max(2),
            false if part == 1 => break,
            false => (parts * 2).min(best.calls.len()),
        };
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::Answer;
    use proto::etcdserverpb::PutRequest;

    fn call(number: usize) -> Call {
        Call::Put(PutRequest { key: number.to_string().into(), ..Default::default() })
    }

    /// Differs at the last of `needed`, if all of them were called in this order.
    fn needs(needed: &[usize], calls: &[Call]) -> Option<Box<Difference>> {
        let mut left = needed.iter().map(|number| call(*number)).peekable();
        for (at, made) in calls.iter().enumerate() {
            left.next_if(|next| next == made);
            if left.peek().is_none() {
                let answers = [3, 5].map(|code| Answer::Error(code, String::new()));
                return Some(Box::new(Difference { at, calls: [call(0), call(0)], answers }));
            }
        }
        None
    }

    #[test]
    fn what_is_not_needed_is_left_out() {
        for needed in [&[999][..], &[1, 999], &[0, 1, 2, 500, 999], &[997, 998, 999]] {
            let all: Vec<_> = (0..1_000).map(call).collect();
            let difference = needs(needed, &all).unwrap();
            let minute = Duration::from_secs(60);
            let shrunk = shrink(all, difference, minute, |calls| needs(needed, calls));
            let expected: Vec<_> = needed.iter().map(|number| call(*number)).collect();
            assert_eq!(shrunk.calls, expected);
            assert!(shrunk.replays < 300, "{}", shrunk.replays);
        }
    }
}
