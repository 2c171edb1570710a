//! Chance from a seed, and what it does to valid bytes: the whole machinery of the fuzz targets.
//!
//! A target is a closure that makes valid bytes, spoils them and checks what the decoder says. It
//! runs for `RINGLEADER_FUZZ_MILLIS` (1,000 otherwise) from `RINGLEADER_FUZZ_SEED` (1 otherwise);
//! case number n has the seed plus n. A failing case prints its own seed, and that seed runs the
//! same case first.

use std::time::{Duration, Instant};

/// Cases that run however slow the machine is, so that a pass always means something.
const CASES_MIN: u64 = 100;
const MILLIS: u64 = 1000;

/// Runs `case` again and again, each time with other dice.
#[allow(clippy::disallowed_methods, reason = "how long to go on is no part of any case")]
pub fn fuzz(target: &str, mut case: impl FnMut(&mut Dice)) {
    let seed = setting("RINGLEADER_FUZZ_SEED").unwrap_or(1);
    let millis = setting("RINGLEADER_FUZZ_MILLIS").unwrap_or(MILLIS);
    let end = Instant::now() + Duration::from_millis(millis);
    let mut done = 0;
    while done < CASES_MIN || Instant::now() < end {
        let telltale = Telltale { target, seed: seed.wrapping_add(done) };
        case(&mut Dice::new(telltale.seed));
        done += 1;
    }
    println!("{target}: {done} cases from seed {seed}");
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name}={value}")))
}

/// Says which case it was when one panics.
struct Telltale<'a> {
    target: &'a str,
    seed: u64,
}

impl Drop for Telltale<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}: again with RINGLEADER_FUZZ_SEED={}", self.target, self.seed);
        }
    }
}

/// Numbers from a seed (splitmix64).
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0xd134_2543_de82_ef95))
    }

    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// A number below `bound`; 0 for a bound of 0.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.roll() % bound.max(1) as u64) as usize
    }

    /// True once in `times`.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    /// A number of any size: small ones, powers of two and their neighbours, and anything.
    pub fn number(&mut self) -> u64 {
        match self.below(4) {
            0 => self.roll() % 8,
            1 => (1_u64 << self.below(64)).wrapping_add(self.roll() % 3).wrapping_sub(1),
            2 => u64::MAX - self.roll() % 3,
            _ => self.roll() >> self.below(64),
        }
    }

    /// Fewer than `bound` bytes, of few kinds or of all.
    pub fn bytes(&mut self, bound: usize) -> Vec<u8> {
        let (len, plain) = (self.below(bound), self.once_in(2));
        (0..len).map(|_| if plain { b"abc"[self.below(3)] } else { self.roll() as u8 }).collect()
    }

    /// Spoils bytes, a few times over or, once in eight, not at all.
    pub fn spoil(&mut self, bytes: &mut Vec<u8>) {
        if self.once_in(8) {
            return;
        }
        for _ in 0..=self.below(4) {
            self.spoil_once(bytes);
        }
    }

    fn spoil_once(&mut self, bytes: &mut Vec<u8>) {
        let at = self.below(bytes.len() + 1);
        let end = at + self.below((bytes.len() - at).min(40) + 1);
        match self.below(9) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..end)),
            2 => drop(bytes.splice(at..at, self.bytes(20))),
            // What is said twice, and what moves to where something else was.
            3 => bytes.extend_from_within(at..end),
            4 => {
                let piece = bytes[at..end].to_vec();
                let to = self.below(bytes.len() + 1);
                drop(bytes.splice(to..to, piece));
            }
            // Lengths and numbers that promise more than there is, in each spelling.
            5 => self.overwrite(bytes, at, |number| number.to_le_bytes().to_vec()),
            6 => self.overwrite(bytes, at, |number| (number as u32).to_be_bytes().to_vec()),
            7 => self.overwrite(bytes, at, varint),
            _ if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
            _ => bytes.push(self.roll() as u8),
        }
    }

    fn overwrite(&mut self, bytes: &mut Vec<u8>, at: usize, spell: impl Fn(u64) -> Vec<u8>) {
        let number = spell(self.number());
        let end = (at + number.len()).min(bytes.len());
        drop(bytes.splice(at..end, number));
    }
}

/// A number as protobuf writes it; the largest take ten bytes.
fn varint(mut number: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
    out
}
