//! What befalls a cluster: a fault every few seconds, drawn by lot from a seed, and mended.

use std::{collections::BTreeMap, fmt, thread, time::Duration};

use crate::{
    Dice,
    cluster::{Cluster, name},
    proxy::Link,
};

/// One fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// `kill -9`, and a start over what it left.
    Kill,
    /// SIGTERM, and a start.
    Terminate,
    /// All at once, as when the power fails.
    KillAll,
    /// SIGSTOP, and SIGCONT.
    Pause,
    /// One that nobody reaches and that reaches nobody.
    Isolate,
    /// Two that do not reach each other.
    Part,
    /// One does not reach another, who reaches it.
    OneWay,
    /// All links of one are slow.
    Slow,
    /// All links are late.
    Late,
}

const FAULTS: [Fault; 13] = [
    Fault::Kill,
    Fault::Kill,
    Fault::Kill,
    Fault::Terminate,
    Fault::KillAll,
    Fault::Pause,
    Fault::Pause,
    Fault::Isolate,
    Fault::Isolate,
    Fault::Part,
    Fault::OneWay,
    Fault::Slow,
    Fault::Late,
];

/// A slow link: a heartbeat passes, entries pile up.
const SLOW_BYTES_PER_SECOND: u64 = 20_000;

/// Draws faults, and notes who led when.
#[derive(Debug)]
pub struct Chaos {
    dice: Dice,
    /// How often each befell.
    pub befell: BTreeMap<Fault, usize>,
    leaders: BTreeMap<u64, u64>,
}

impl fmt::Display for Chaos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} terms with a leader;", self.leaders.len())?;
        self.befell.iter().try_for_each(|(fault, times)| write!(f, " {fault:?} {times};"))
    }
}

impl Chaos {
    /// The same seed draws the same faults.
    pub fn new(seed: u64) -> Self {
        Self { dice: Dice::new(seed), befell: BTreeMap::new(), leaders: BTreeMap::new() }
    }

    /// A moment of peace, a fault or two at a time, and all is mended but what a member does after.
    ///
    /// # Panics
    /// Where a member ended by itself, or two led in one term.
    pub fn round(&mut self, cluster: &mut Cluster) {
        self.sleep(300..2_000);
        self.look(cluster);
        let all = cluster.present();
        self.befall(cluster, &all);
        if self.dice.percent(25) {
            self.sleep(0..500);
            self.befall(cluster, &all);
        }
        self.sleep(100..4_000);
        self.look(cluster);
        cluster.net.heal();
        for at in all {
            if cluster.runs(at) { cluster.resume(at) } else { cluster.spawn(at) }
        }
    }

    fn sleep(&mut self, millis: std::ops::Range<usize>) {
        let millis = millis.start + self.dice.below(millis.len());
        thread::sleep(Duration::from_millis(millis as u64));
    }

    fn befall(&mut self, cluster: &mut Cluster, all: &[usize]) {
        let fault = *self.dice.pick(&FAULTS);
        // Half of the time the leader: that is where it hurts.
        let leader = cluster.leader().filter(|_| self.dice.percent(50));
        let at = leader.unwrap_or_else(|| *self.dice.pick(all));
        let others: Vec<_> = all.iter().copied().filter(|other| *other != at).collect();
        let other = *self.dice.pick(&others);
        let broken = if self.dice.percent(60) { Link::Blackhole } else { Link::Cut };
        println!("{fault:?} of {}, {}", name(at), name(other));
        *self.befell.entry(fault).or_default() += 1;
        match fault {
            Fault::Kill => _ = cluster.kill(at),
            Fault::Terminate => end(cluster, at),
            Fault::KillAll => all.iter().for_each(|at| _ = cluster.kill(*at)),
            Fault::Pause if cluster.runs(at) => cluster.pause(at),
            Fault::Pause => {}
            Fault::Isolate => cluster.net.around(at, broken),
            Fault::Part => {
                cluster.net.set(at, other, broken);
                cluster.net.set(other, at, broken);
            }
            Fault::OneWay => cluster.net.set(at, other, Link::Blackhole),
            Fault::Slow => cluster.net.around(at, Link::Slow(SLOW_BYTES_PER_SECOND)),
            Fault::Late => {
                let late = Duration::from_millis(10 + self.dice.below(190) as u64);
                all.iter().for_each(|at| cluster.net.around(*at, Link::Delay(late)));
            }
        }
    }

    /// Nobody ended by himself, and no term had two leaders.
    fn look(&mut self, cluster: &mut Cluster) {
        for at in cluster.present() {
            cluster.runs(at);
            let Some(status) = cluster.status(at) else { continue };
            let id = status.header.unwrap_or_default().member_id;
            if status.leader == id {
                let leader = *self.leaders.entry(status.raft_term).or_insert(id);
                assert_eq!(leader, id, "two lead in term {}", status.raft_term);
            }
        }
    }
}

/// In order, where it runs and may hear the signal.
fn end(cluster: &mut Cluster, at: usize) {
    if cluster.runs(at) {
        cluster.resume(at);
        let ended = cluster.terminate(at);
        assert!(ended.status.is_some(), "SIGTERM does not end {}:\n{}", name(at), ended.log);
    }
}
