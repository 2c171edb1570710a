//! How many bytes a value has: always as many, between two bounds by lot, or one of a few by weight.

use std::str::FromStr;

use crate::keys::{lot, unit};

/// Where the lots for sizes begin among all lots, so that a size says nothing of its key.
const LOTS_FROM: u64 = 1 << 62;
/// More than any server takes by default (1.5 MiB), so that a refusal can be seen too.
pub const VALUE_BYTES_MAX: usize = 1 << 26;

/// A distribution of sizes, in bytes.
#[derive(Clone, Debug, PartialEq)]
pub enum Sizes {
    /// Always so many.
    Fixed(usize),
    /// Each from the first to the last by the same chance.
    Between(usize, usize),
    /// Each size with its weight.
    Weighted(Vec<(f64, usize)>),
}

impl From<usize> for Sizes {
    fn from(bytes: usize) -> Self {
        Self::Fixed(bytes)
    }
}

impl Sizes {
    /// The `turn`th size, the same in every run.
    pub fn draw(&self, turn: u64) -> usize {
        let unit = || unit(lot(LOTS_FROM + turn));
        match self {
            Self::Fixed(bytes) => *bytes,
            Self::Between(from, to) => from + ((to - from + 1) as f64 * unit()) as usize,
            Self::Weighted(parts) => weighted(parts, unit()),
        }
    }

    /// The smallest.
    pub fn min(&self) -> usize {
        match self {
            Self::Fixed(bytes) | Self::Between(bytes, _) => *bytes,
            Self::Weighted(parts) => parts.iter().map(|part| part.1).min().unwrap_or(0),
        }
    }

    /// The largest.
    pub fn max(&self) -> usize {
        match self {
            Self::Fixed(bytes) | Self::Between(_, bytes) => *bytes,
            Self::Weighted(parts) => parts.iter().map(|part| part.1).max().unwrap_or(0),
        }
    }
}

fn weighted(parts: &[(f64, usize)], unit: f64) -> usize {
    let mut left = unit * parts.iter().map(|part| part.0).sum::<f64>();
    for (weight, bytes) in parts {
        left -= weight;
        if left < 0.0 {
            return *bytes;
        }
    }
    parts.last().map_or(0, |part| part.1)
}

impl FromStr for Sizes {
    type Err = String;

    /// `256`, `100-2000`, or `90%:256,10%:16384`.
    fn from_str(text: &str) -> Result<Self, String> {
        let how = || "bytes, as 256, 100-2000 or 90%:256,10%:16384".to_owned();
        let bytes = |text: &str| text.trim().parse().map_err(|_| how());
        let part = |part: &str| -> Result<(f64, usize), String> {
            let (weight, size) = part.split_once(':').ok_or_else(how)?;
            let weight: f64 =
                weight.trim().strip_suffix('%').and_then(|w| w.parse().ok()).ok_or_else(how)?;
            match weight > 0.0 && weight <= 100.0 {
                true => Ok((weight, bytes(size)?)),
                false => Err(how()),
            }
        };
        let sizes = if text.contains(':') {
            let parts = text.split(',').map(part).collect::<Result<Vec<_>, _>>()?;
            let sum: f64 = parts.iter().map(|part| part.0).sum();
            if (sum - 100.0).abs() > 0.01 {
                return Err(format!("the parts sum to {sum}%, not to 100%"));
            }
            Self::Weighted(parts)
        } else if let Some((from, to)) = text.split_once('-') {
            Self::Between(bytes(from)?, bytes(to)?)
        } else {
            Self::Fixed(bytes(text)?)
        };
        match sizes {
            Self::Between(from, to) if from > to => Err(format!("{from} is more than {to}")),
            sizes if sizes.max() > VALUE_BYTES_MAX => {
                Err(format!("at most {VALUE_BYTES_MAX} bytes"))
            }
            sizes => Ok(sizes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(text: &str) -> Vec<usize> {
        let sizes: Sizes = text.parse().expect(text);
        (0..10_000).map(|turn| sizes.draw(turn)).collect()
    }

    #[test]
    fn sizes_come_as_they_are_distributed() {
        assert!(drawn("256").iter().all(|bytes| *bytes == 256));
        let between = drawn("10-19");
        for size in 10..20 {
            let share = between.iter().filter(|bytes| **bytes == size).count();
            assert!((850..1150).contains(&share), "{size}: {share}");
        }
        let weighted = drawn("90%:256,10%:16384");
        let large = weighted.iter().filter(|bytes| **bytes == 16384).count();
        assert!((900..1100).contains(&large), "{large}");
        assert!(weighted.iter().all(|bytes| [256, 16384].contains(bytes)));
    }

    #[test]
    fn what_is_no_distribution_is_refused() {
        for wrong in ["", "x", "-", "2-1", "90%:1", "50%:1,50:2", "0%:1,100%:2", "99999999999"] {
            assert!(wrong.parse::<Sizes>().is_err(), "{wrong}");
        }
        let sizes: Sizes = "30%:5,70%:2".parse().expect("it is one");
        assert_eq!((sizes.min(), sizes.max()), (2, 5));
    }
}
