//! What is varied, and the cells that come of it.
//!
//! ```text
//!   landscape   every sync × every network delay          at the default clocks
//!   tails       every tail × the first network delay       at the default clocks
//!   clocks      every heartbeat × every election timeout   at four places: nothing added, the longest
//!                                                          sync, the longest network delay, the last tail
//! ```
//!
//! etcd has no way to make a sync longer from outside, so of etcd there are the cells without that.

use std::{collections::BTreeSet, fmt, str::FromStr};

use crate::flags::Flags;

/// Whose server a cell runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Program {
    Ringleader,
    Etcd,
}

impl Program {
    pub(super) const ALL: [Self; 2] = [Self::Ringleader, Self::Etcd];

    /// As its binary is called, and files call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ringleader => "ringleader",
            Self::Etcd => "etcd",
        }
    }

    /// As people call it.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Ringleader => "Ringleader",
            Self::Etcd => "etcd",
        }
    }
}

/// Some syncs take longer than the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tail {
    /// Of a thousand syncs.
    pub(super) per_mille: u32,
    pub(super) ms: u64,
}

impl fmt::Display for Tail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%:{}", f64::from(self.per_mille) / 10.0, self.ms)
    }
}

impl FromStr for Tail {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "a part and milliseconds, as 1%:200, in steps of 0.1%".to_owned();
        let (part, ms) = text.split_once("%:").ok_or_else(wrong)?;
        let per_mille = part.parse::<f64>().map_err(|_| wrong())? * 10.0;
        let ms = ms.parse().map_err(|_| wrong())?;
        match per_mille.fract().abs() < 1e-6 && (1.0..=1000.0).contains(&per_mille) && ms > 0 {
            true => Ok(Self { per_mille: per_mille as u32, ms }),
            false => Err(wrong()),
        }
    }
}

/// What is added to the disk and the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// To each sync.
    pub(super) sync_ms: u64,
    /// To some syncs.
    pub(super) tail: Option<Tail>,
    /// To all between members, one way.
    pub(super) network_ms: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = |what: String, ms: u64| (ms > 0).then(|| format!("{what} +{ms} ms"));
        let of_syncs = |tail: Tail| format!("{} % of the syncs", f64::from(tail.per_mille) / 10.0);
        let parts = [
            part("sync".into(), self.sync_ms),
            self.tail.and_then(|tail| part(of_syncs(tail), tail.ms)),
            part("network".into(), self.network_ms),
        ];
        match parts.into_iter().flatten().collect::<Vec<_>>() {
            none if none.is_empty() => f.write_str("nothing added"),
            parts => f.write_str(&parts.join(", ")),
        }
    }
}

/// The two flags of a server, ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Clocks {
    pub(super) heartbeat_ms: u64,
    pub(super) election_ms: u64,
}

impl Clocks {
    /// Of both servers.
    pub(super) const DEFAULT: Self = Self { heartbeat_ms: 100, election_ms: 1_000 };

    /// Both servers refuse an election timeout below five heartbeats, and above 50 s.
    fn are_taken(self) -> bool {
        self.election_ms >= 5 * self.heartbeat_ms && self.election_ms <= 50_000
    }
}

impl fmt::Display for Clocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "heartbeat {} ms, election {} ms", self.heartbeat_ms, self.election_ms)
    }
}

/// One cell: a cluster that is started, measured, and thrown away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Setting {
    pub(super) place: Place,
    pub(super) clocks: Clocks,
    pub(super) program: Program,
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}, {}", self.program.title(), self.place, self.clocks)
    }
}

/// The values of each axis, rising.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Axes {
    pub(super) syncs: Vec<u64>,
    pub(super) networks: Vec<u64>,
    pub(super) tails: Vec<Tail>,
    pub(super) heartbeats: Vec<u64>,
    pub(super) elections: Vec<u64>,
}

impl Axes {
    /// Few enough for three minutes.
    pub(super) fn quick() -> Self {
        Self {
            syncs: vec![0, 5, 25],
            networks: vec![0, 5, 25],
            tails: vec![Tail { per_mille: 10, ms: 200 }],
            heartbeats: vec![10],
            elections: vec![50, 200],
        }
    }

    /// Enough for a lunch break.
    pub(super) fn full() -> Self {
        Self {
            syncs: vec![0, 1, 3, 10, 30, 100],
            networks: vec![0, 1, 5, 20, 50],
            tails: [(10, 20), (1, 500), (10, 200)]
                .map(|(per_mille, ms)| Tail { per_mille, ms })
                .into(),
            heartbeats: vec![10, 50, 100],
            elections: vec![50, 100, 250, 500, 1_000, 2_500],
        }
    }

    /// Those that flags replace.
    ///
    /// # Errors
    /// A value that is none, and clocks of which no pair would be taken.
    pub(super) fn take(self, flags: &mut Flags) -> Result<Self, String> {
        let none = flags.text("--tail")?;
        let tails = match none.as_deref() {
            None => self.tails,
            Some("none") => Vec::new(),
            Some(text) => {
                let one = |one: &str| one.parse().map_err(|why| format!("--tail {one}: {why}"));
                text.split(',').map(one).collect::<Result<_, _>>()?
            }
        };
        let axes = Self {
            syncs: axis(flags, "--sync", self.syncs, 0)?,
            networks: axis(flags, "--network", self.networks, 0)?,
            tails,
            heartbeats: axis(flags, "--heartbeat", self.heartbeats, 1)?,
            elections: axis(flags, "--election", self.elections, 5)?,
        };
        match axes.clocks().is_empty() {
            true => {
                Err("no --election is five times a --heartbeat, or all are above 50000 ms".into())
            }
            false => Ok(axes),
        }
    }

    /// A lone member has nobody to talk to.
    pub(super) fn alone(self) -> Self {
        Self { networks: vec![0], ..self }
    }

    /// Every pair that the servers take.
    pub(super) fn clocks(&self) -> Vec<Clocks> {
        let all = self.heartbeats.iter().flat_map(|heartbeat_ms| {
            let pair = |election_ms: &u64| Clocks {
                heartbeat_ms: *heartbeat_ms,
                election_ms: *election_ms,
            };
            self.elections.iter().map(pair)
        });
        all.filter(|clocks| clocks.are_taken()).collect()
    }

    /// Where each pair of clocks is tried: what they must bear.
    pub(super) fn corners(&self) -> Vec<Place> {
        let (syncs, networks) = (ends(&self.syncs), ends(&self.networks));
        let at = |sync_ms, tail, network_ms| Place { sync_ms, tail, network_ms };
        let mut corners = vec![
            at(syncs.0, None, networks.0),
            at(syncs.0, None, networks.1),
            at(syncs.1, None, networks.0),
        ];
        corners.extend(self.tails.last().map(|tail| at(0, Some(*tail), networks.0)));
        corners.dedup();
        corners
    }

    /// All cells, each once, in the order in which they are measured: what is compared lies close
    /// together in time.
    pub(super) fn cells(&self, programs: &[Program]) -> Vec<Setting> {
        let landscape = self.syncs.iter().flat_map(|sync| {
            let place = |network: &u64| Place { sync_ms: *sync, tail: None, network_ms: *network };
            self.networks.iter().map(place)
        });
        let network_ms = ends(&self.networks).0;
        let tails =
            self.tails.iter().map(|tail| Place { sync_ms: 0, tail: Some(*tail), network_ms });
        let usual = landscape.chain(tails).map(|place| (place, Clocks::DEFAULT));
        let clocks = self
            .corners()
            .into_iter()
            .flat_map(|place| self.clocks().into_iter().map(move |clocks| (place, clocks)));
        let mut seen = BTreeSet::new();
        let each = usual.chain(clocks).filter(|one| seen.insert(*one));
        let all = each.flat_map(|(place, clocks)| {
            programs.iter().map(move |program| Setting { place, clocks, program: *program })
        });
        all.filter(Setting::can_be).collect()
    }
}

impl Setting {
    /// Whether there is a way to make it so.
    fn can_be(&self) -> bool {
        self.program == Program::Ringleader || self.place.sync_ms == 0 && self.place.tail.is_none()
    }
}

fn ends(axis: &[u64]) -> (u64, u64) {
    (axis[0], axis[axis.len() - 1])
}

/// Milliseconds between commas, rising and each once.
fn axis(flags: &mut Flags, flag: &str, or: Vec<u64>, min: u64) -> Result<Vec<u64>, String> {
    let given: Vec<u64> = flags.list(flag)?;
    if let Some(low) = given.iter().find(|ms| **ms < min) {
        return Err(format!("{flag} {low}: at least {min} ms"));
    }
    match given.is_empty() {
        true => Ok(or),
        false => Ok(given.into_iter().collect::<BTreeSet<_>>().into_iter().collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axes(line: &str) -> Result<Axes, String> {
        Axes::quick().take(&mut Flags::new(line.split_whitespace().map(str::to_owned)))
    }

    #[test]
    fn each_cell_is_there_once_and_none_that_a_server_refuses() {
        for axes in [Axes::quick(), Axes::full()] {
            let cells = axes.cells(&Program::ALL);
            let once: BTreeSet<_> = cells.iter().collect();
            assert_eq!(once.len(), cells.len());
            assert!(cells.iter().all(|cell| {
                let Clocks { heartbeat_ms, election_ms } = cell.clocks;
                election_ms >= 5 * heartbeat_ms && election_ms <= 50_000
            }));
        }
    }

    #[test]
    fn all_syncs_meet_all_networks_and_all_clocks_meet_at_the_corners() {
        let axes = Axes::quick();
        let cells = axes.cells(&[Program::Ringleader]);
        let has = |place, clocks| {
            cells.contains(&Setting { place, clocks, program: Program::Ringleader })
        };
        for sync_ms in [0, 5, 25] {
            for network_ms in [0, 5, 25] {
                assert!(has(Place { sync_ms, tail: None, network_ms }, Clocks::DEFAULT));
            }
        }
        assert_eq!((axes.clocks().len(), axes.corners().len()), (2, 4));
        for place in axes.corners() {
            assert!(axes.clocks().into_iter().all(|clocks| has(place, clocks)));
        }
        // Nine of the landscape and a tail, and two pairs of clocks at each corner.
        assert_eq!(cells.len(), 9 + 1 + 4 * 2);
    }

    #[test]
    fn of_etcd_there_are_no_cells_with_longer_syncs() {
        let cells = Axes::full().cells(&Program::ALL);
        let mut etcd = cells.iter().filter(|cell| cell.program == Program::Etcd).peekable();
        assert!(etcd.peek().is_some());
        assert!(etcd.all(|cell| cell.place.sync_ms == 0 && cell.place.tail.is_none()));
    }

    #[test]
    fn a_lone_member_has_no_network() {
        let cells = Axes::full().alone().cells(&Program::ALL);
        assert!(cells.iter().all(|cell| cell.place.network_ms == 0));
    }

    #[test]
    fn a_place_says_what_is_added() {
        let tail = Some(Tail { per_mille: 10, ms: 200 });
        let said = |sync_ms, tail, network_ms| Place { sync_ms, tail, network_ms }.to_string();
        assert_eq!(said(0, None, 0), "nothing added");
        assert_eq!(said(5, None, 20), "sync +5 ms, network +20 ms");
        assert_eq!(said(0, tail, 0), "1 % of the syncs +200 ms");
    }

    #[test]
    fn flags_replace_an_axis_or_say_what_is_wrong() {
        let given = axes("--sync 7,2,7 --network=0 --tail 0.5%:30 --election 200").unwrap();
        assert_eq!((given.syncs, given.networks), (vec![2, 7], vec![0]));
        assert_eq!(given.tails, [Tail { per_mille: 5, ms: 30 }]);
        assert_eq!(given.tails[0].to_string(), "0.5%:30");
        assert!(axes("--tail none").unwrap().tails.is_empty());
        assert!(axes("--tail 1:30").unwrap_err().starts_with("--tail 1:30: a part and"));
        assert_eq!(axes("--heartbeat 0").unwrap_err(), "--heartbeat 0: at least 1 ms");
        assert!(axes("--heartbeat 100 --election 499").unwrap_err().starts_with("no --election"));
    }
}
