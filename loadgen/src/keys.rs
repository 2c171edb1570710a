//! Which key comes next: each in turn, by lot, or by lot with a few that are asked for far more often.
//!
//! The same order gives the same keys in every run, so that two servers are asked the same.

use std::str::FromStr;

/// In which order the keys are taken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Order {
    /// Each in turn.
    Sequential,
    /// Uniformly by lot, the same lot in every run.
    Random,
    /// By lot, the n-th most wanted key in proportion to 1/n^theta, with theta between 0 and 1.
    Zipf(f64),
}

/// As YCSB's workloads have it: of 100,000 keys the most wanted gets one call in thirteen.
const THETA: f64 = 0.99;

impl FromStr for Order {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let theta = |text: &str| text.parse().ok().filter(|theta| (0.01..=0.999).contains(theta));
        match text.split_once(':') {
            None if text == "uniform" => Ok(Self::Random),
            None if text == "sequential" => Ok(Self::Sequential),
            None if text == "zipf" => Ok(Self::Zipf(THETA)),
            Some(("zipf", skew)) => theta(skew)
                .map(Self::Zipf)
                .ok_or_else(|| "the skew is between 0.01 and 0.999".into()),
            _ => Err("one of uniform, sequential, zipf and zipf:SKEW".into()),
        }
    }
}

/// Numbers of keys, one after the other.
#[derive(Debug)]
pub struct Keys {
    count: u64,
    draw: Draw,
    turn: u64,
}

#[derive(Debug)]
enum Draw {
    Sequential,
    Random,
    Zipf(Zipf),
}

impl Keys {
    /// Of `count` keys, at least 1.
    pub fn new(order: Order, count: u64) -> Self {
        assert!(count > 0, "there is a key");
        let draw = match order {
            Order::Sequential => Draw::Sequential,
            Order::Random => Draw::Random,
            Order::Zipf(theta) => Draw::Zipf(Zipf::new(count, theta)),
        };
        Self { count, draw, turn: 0 }
    }

    /// The next one.
    pub fn draw(&mut self) -> u64 {
        let turn = self.turn;
        self.turn += 1;
        match &self.draw {
            Draw::Sequential => turn % self.count,
            Draw::Random => lot(turn) % self.count,
            // Neighbours in rank lie apart, as the wanted keys of a real store do.
            Draw::Zipf(zipf) => scatter(zipf.rank(unit(lot(turn))), self.count),
        }
    }
}

/// A permutation of the numbers below `count`, which the prime does not divide unless it is huge.
fn scatter(rank: u64, count: u64) -> u64 {
    const PRIME: u128 = 2_654_435_761;
    match u128::from(count).is_multiple_of(PRIME) {
        true => rank,
        false => (u128::from(rank) * PRIME % u128::from(count)) as u64,
    }
}

/// The rank of a Zipf-distributed lot, in constant time (Gray, Sundaresan, Englert, Baclawski,
/// Weinberger: Quickly Generating Billion-Record Synthetic Databases, SIGMOD 1994, §4.2).
#[derive(Debug)]
struct Zipf {
    count: f64,
    theta: f64,
    /// Sum of 1/n^theta over all ranks.
    zeta: f64,
    eta: f64,
}

/// Ranks that are summed one by one; the rest, by the integral of the midpoint rule, whose error
/// there is far below what anybody could measure.
const SUMMED_MAX: u64 = 1_000_000;

impl Zipf {
    fn new(count: u64, theta: f64) -> Self {
        let zeta = zeta(count, theta);
        let many = count as f64;
        let eta = (1.0 - (2.0 / many).powf(1.0 - theta)) / (1.0 - zeta_of_two(theta) / zeta);
        Self { count: many, theta, zeta, eta }
    }

    /// From 0, the most wanted, for a lot from 0 to 1.
    fn rank(&self, lot: f64) -> u64 {
        let share = lot * self.zeta;
        if share < 1.0 || self.count < 2.0 {
            return 0;
        }
        if share < zeta_of_two(self.theta) {
            return 1;
        }
        let rank = self.count * (self.eta * lot - self.eta + 1.0).powf(1.0 / (1.0 - self.theta));
        rank.min(self.count - 1.0) as u64
    }
}

fn zeta_of_two(theta: f64) -> f64 {
    1.0 + 0.5f64.powf(theta)
}

fn zeta(count: u64, theta: f64) -> f64 {
    let summed = count.min(SUMMED_MAX);
    let head: f64 = (1..=summed).map(|rank| (rank as f64).powf(-theta)).sum();
    let reach = |rank: u64| (rank as f64 + 0.5).powf(1.0 - theta) / (1.0 - theta);
    head + reach(count) - reach(summed)
}

/// The `turn`th number of splitmix64 (Steele, Lea, Flood 2014).
pub(crate) fn lot(turn: u64) -> u64 {
    let mut lot = turn.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    lot = (lot ^ lot >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    lot = (lot ^ lot >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    lot ^ lot >> 31
}

/// A lot as a number from 0 to below 1.
pub(crate) fn unit(lot: u64) -> f64 {
    (lot >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(order: Order, keys: usize, draws: usize) -> Vec<usize> {
        let mut counts = vec![0; keys];
        let mut drawn = Keys::new(order, keys as u64);
        (0..draws).for_each(|_| counts[drawn.draw() as usize] += 1);
        counts
    }

    #[test]
    fn the_nth_most_wanted_key_is_drawn_in_proportion_to_its_rank() {
        let (keys, draws) = (1000, 400_000);
        let mut counts = counts(Order::Zipf(0.99), keys, draws);
        counts.sort_unstable_by(|a, b| b.cmp(a));
        let all = zeta(keys as u64, 0.99);
        // The first two are exact; the others are the method's approximation, in sum.
        for (rank, off_max) in [(0, 0.03), (1, 0.03)] {
            let expected = draws as f64 * (rank as f64 + 1.0).powf(-0.99) / all;
            let off = (counts[rank] as f64 / expected - 1.0).abs();
            assert!(off < off_max, "rank {rank}: {} of {expected:.0}", counts[rank]);
        }
        for ranks in [10, 100, 500] {
            let drawn = counts[..ranks].iter().sum::<usize>() as f64 / draws as f64;
            let expected = zeta(ranks as u64, 0.99) / all;
            assert!((drawn - expected).abs() < 0.03, "{ranks}: {drawn} of {expected}");
        }
        assert_eq!(counts.iter().filter(|count| **count == 0).count(), 0, "all are drawn");
    }

    #[test]
    fn a_uniform_lot_favours_nobody_and_a_sequence_takes_each_in_turn() {
        let counts = counts(Order::Random, 100, 100_000);
        assert!(counts.iter().all(|count| (800..1200).contains(count)), "{counts:?}");
        let mut keys = Keys::new(Order::Sequential, 3);
        assert_eq!([(); 5].map(|()| keys.draw()), [0, 1, 2, 0, 1]);
    }

    #[test]
    fn few_keys_are_all_within_bounds() {
        for keys in 1..5 {
            counts(Order::Zipf(0.5), keys, 1000);
        }
    }

    #[test]
    fn the_sum_over_many_ranks_is_the_sum_over_each() {
        let (count, theta) = (3 * SUMMED_MAX, 0.7);
        let each: f64 = (1..=count).map(|rank| (rank as f64).powf(-theta)).sum();
        assert!((zeta(count, theta) / each - 1.0).abs() < 1e-9);
    }

    #[test]
    fn an_order_is_said_in_words() {
        assert_eq!("uniform".parse(), Ok(Order::Random));
        assert_eq!("sequential".parse(), Ok(Order::Sequential));
        assert_eq!("zipf".parse(), Ok(Order::Zipf(0.99)));
        assert_eq!("zipf:0.5".parse(), Ok(Order::Zipf(0.5)));
        for wrong in ["", "random", "zipf:", "zipf:1", "zipf:x", "uniform:1"] {
            assert!(wrong.parse::<Order>().is_err(), "{wrong}");
        }
    }
}
