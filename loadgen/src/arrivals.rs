//! When operations are due, where they do not wait for each other: fixed before anything is sent, so
//! that a slow server is not asked less.

use std::{str::FromStr, time::Duration};

use crate::keys::{lot, unit};

/// How operations come at a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrivals {
    /// One as long after the other as every other.
    Even,
    /// Each by itself, as of a crowd that knows nothing of each other: a Poisson process.
    Poisson,
}

impl FromStr for Arrivals {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "even" => Ok(Self::Even),
            "poisson" => Ok(Self::Poisson),
            _ => Err("one of even and poisson".into()),
        }
    }
}

/// Due times since the start, in order.
#[derive(Clone, Debug)]
pub enum Schedule {
    /// At a rate, without end.
    Rate {
        /// How they come.
        arrivals: Arrivals,
        /// A second.
        rate: f64,
        /// How many were taken.
        turn: u64,
        /// When the next is due, in seconds.
        next: f64,
    },
    /// These.
    Given(std::vec::IntoIter<Duration>),
}

/// Where the lots for times begin among all lots.
const LOTS_FROM: u64 = 3 << 61;

impl Schedule {
    /// At so many a second.
    pub fn new(arrivals: Arrivals, rate: f64) -> Self {
        assert!(rate > 0.0, "some are due");
        Self::Rate { arrivals, rate, turn: 0, next: 0.0 }
    }
}

impl Iterator for Schedule {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        match self {
            Self::Given(times) => times.next(),
            Self::Rate { arrivals, rate, turn, next } => {
                let due = Duration::from_secs_f64(*next);
                *turn += 1;
                *next = match arrivals {
                    // From the start each time, so that no error adds up.
                    Arrivals::Even => *turn as f64 / *rate,
                    Arrivals::Poisson => *next - (1.0 - unit(lot(LOTS_FROM + *turn))).ln() / *rate,
                };
                Some(due)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn even_arrivals_are_as_far_apart_as_their_rate_says() {
        let due: Vec<_> = Schedule::new(Arrivals::Even, 8.0).take(17).collect();
        assert_eq!(due[0], Duration::ZERO);
        assert_eq!(due[1], Duration::from_millis(125));
        assert_eq!(due[16], Duration::from_secs(2));
    }

    #[test]
    fn poisson_arrivals_have_the_rate_and_the_gaps_of_a_crowd() {
        let due: Vec<_> = Schedule::new(Arrivals::Poisson, 1000.0).take(100_001).collect();
        let seconds = due[100_000].as_secs_f64();
        assert!((98.0..102.0).contains(&seconds), "{seconds}");
        // Of an exponential distribution: 1 - 1/e of the gaps are below the mean.
        let short = due.windows(2).filter(|two| two[1] - two[0] < Duration::from_millis(1)).count();
        assert!((62_000..64_500).contains(&short), "{short}");
    }
}
