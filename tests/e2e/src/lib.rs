//! Real server processes for tests: started on free ports and a folder on a real disk, asked,
//! stopped, killed; ours and etcd by the same flags.
//!
//! ```text
//!   binary     which programs there are, and where
//!   server     one process: start, wait until it serves, kill, log
//!   http       one GET by hand
//!   script     commands, `---`, what they said
//!   job        a command in the background
//!   ledger     what was acknowledged, and must be there
//!   watch      a watch stream, and what it promises
//!   neighbour  a good client beside a bad one
//!   proxy      the network between members
//!   cluster    several members
//!   chaos      what befalls them
//! ```
#![allow(clippy::disallowed_methods, reason = "real processes take real time")]

pub mod binary;
pub mod chaos;
pub mod cluster;
pub mod http;
pub mod job;
pub mod ledger;
pub mod neighbour;
pub mod proxy;
pub mod script;
pub mod server;
pub mod watch;

/// Random enough for tests, the same for the same seed (splitmix64: Steele, Lea, Flood 2014).
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// The same seed throws the same numbers.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0 to `bound` - 1.
    pub fn below(&mut self, bound: usize) -> usize {
        assert!(bound > 0, "nothing is below 0");
        (self.number() % bound as u64) as usize
    }

    /// True so many times in a hundred.
    pub fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of them.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}
