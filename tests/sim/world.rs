//! A cluster's life, from one seed: each member's days of bad weather, a calm stretch for all, and a
//! last look.
//!
//! ```text
//!   machine 0   day ── day ─────── day ─┐            ┌─ calm ── whistle ─┐
//!   machine 1   day ───────── day ──────┤ staying … ─┤                   ├─ power cut, last look
//!   machine 2   day ── day ── day ── day┘            └─ all the same ────┘
//! ```
//!
//! `RINGLEADER_SEEDS=A..B cargo test --test sim` runs the seeds A to B − 1 instead of the usual
//! ones. A seed that fails prints its number, its weather and what happened on each day.

use crate::{
    audience::{self, Spots},
    check::Chronicle,
    clocks::{self, OwnClock},
    damage::{self, attempt},
    disk::Crash,
    executor::{Ended, Executor, Lot, SimClock},
    history::{History, state_of},
    machine::{Ending, Machine},
    member::{Boot, End, Mutant},
    network::Network,
    rot,
    rough::Air,
    story,
    weather::{Day, Fate, Weather},
};
use ringleader::{io::Clock, store::Member};
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    time::Duration,
};

/// Steps of a life, far beyond what any needs: more is a loop that goes nowhere.
const STEPS_MAX: u64 = 20_000_000;
/// Bad weather lasts no longer, however slow the disks: more is a wait for something that never
/// comes.
const ROUGH_MAX: Duration = Duration::from_secs(9 * 3_600);
/// Election timeouts after which a cluster must have found to itself once it is calm.
const SETTLES_WITHIN: u32 = 5;
/// Election timeouts after which all must be answered, beside the evening's rest.
const CALM_MAX: u32 = 200;
/// Election timeouts for which bad weather lasts on where a member is to be replaced.
const REPLACED_WITHIN: u32 = 60;

/// A cluster's whole life.
pub(crate) struct World {
    pub(crate) weather: Rc<Weather>,
    pub(crate) lot: RefCell<Lot>,
    pub(crate) executor: Executor,
    clock: SimClock,
    mutant: Mutant,
    pub(crate) chronicle: Rc<RefCell<Chronicle>>,
    pub(crate) history: Rc<RefCell<History>>,
    pub(crate) network: Network,
    pub(crate) machines: Vec<Rc<Machine>>,
    /// What clients watched at members that are gone.
    orphans: RefCell<Spots>,
    sights: RefCell<Sights>,
    boots: Cell<u64>,
    /// Members that have rough days left.
    rough: Cell<usize>,
    /// Machines whose days are not over.
    kept: Cell<usize>,
    is_calm: Cell<bool>,
    whistle: Rc<Cell<bool>>,
    /// No member has rough days left.
    dusk: Rc<Cell<bool>>,
    /// Who could be added to the cluster.
    candidates: Rc<RefCell<Vec<Member>>>,
}

/// What a life left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trace {
    /// Over every effect on the disks and every answer.
    pub(crate) audit: u64,
    pub(crate) sights: Sights,
}

/// What a life came past, and how often: so that nobody believes in weather that never comes.
pub(crate) type Sights = BTreeMap<&'static str, usize>;

impl World {
    pub(crate) fn new(seed: u64, weather: Weather, mutant: Mutant) -> Rc<Self> {
        let mut lot = Lot::new(seed);
        let clock = SimClock::default();
        let history = Rc::new(RefCell::new(History::new(weather.members())));
        let winds = Lot::new(lot.draw());
        let network =
            Network::new(winds, weather.winds, mutant.gust, clock.clone(), history.clone());
        let machines = 0..weather.members() as usize;
        let machines = machines.map(|number| Rc::new(Machine::new(number, lot.draw()))).collect();
        Rc::new(Self {
            weather: Rc::new(weather),
            executor: Executor::at(lot.draw(), clock.clone()),
            lot: lot.into(),
            clock,
            mutant,
            chronicle: Rc::default(),
            history,
            network,
            machines,
            orphans: RefCell::default(),
            sights: RefCell::default(),
            boots: Cell::new(0),
            rough: Cell::new(0),
            kept: Cell::new(0),
            is_calm: Cell::new(false),
            whistle: Rc::default(),
            dusk: Rc::default(),
            candidates: Rc::default(),
        })
    }

    pub(crate) fn live(self: &Rc<Self>) {
        self.rough.set(self.machines.len());
        self.stretch(self.clone().days());
        self.is_calm.set(true);
        for machine in &self.machines {
            machine.reboot(Crash::PowerCut);
        }
        self.tell("the last look".into());
        self.stretch(self.clone().last_look());
        self.chronicle.borrow_mut().judge(&self.history.borrow(), &self.weather);
    }

    /// Runs until `main` ends. Whoever crashes meanwhile stops at once.
    fn stretch(self: &Rc<Self>, main: impl Future<Output = ()> + 'static) {
        let steps = Cell::new(0);
        let halt = || {
            steps.set(steps.get() + 1);
            for machine in self.machines.iter().filter(|machine| machine.has_crashed()) {
                self.network.close(machine.member().0);
                machine.ends(Ending::Crashed);
            }
            for machine in &self.machines {
                let Some(died) = machine.died() else { continue };
                self.network.close(machine.member().0);
                machine.dies(died);
            }
            steps.get() > STEPS_MAX
        };
        match self.executor.run(main, halt) {
            Ended::Done(()) => {}
            Ended::Halted => panic!("life did not end in {STEPS_MAX} steps"),
            Ended::Stalled => panic!("everybody waits, for nothing"),
        }
    }

    async fn days(self: Rc<Self>) {
        self.executor.spawn(self.network.clone().carry());
        self.executor.spawn(self.network.clone().storm());
        self.executor.spawn(self.clone().black_out());
        self.kept.set(self.machines.len());
        for machine in &self.machines {
            self.executor.spawn(self.clone().keep(machine.clone()));
        }
        let night = self.clock.now() + ROUGH_MAX;
        self.until(night, "bad weather does not end", || self.rough.get() == 0).await;
        self.calm_down().await;
        self.everybody_is_done(&self.weather.calm).await;
    }

    async fn last_look(self: Rc<Self>) {
        self.executor.spawn(self.network.clone().carry());
        self.whistle.set(false);
        self.kept.set(self.machines.len());
        self.chronicle.borrow_mut().day_began(self.clock.now());
        for machine in &self.machines {
            if machine.is_out() {
                self.kept.set(self.kept.get() - 1);
                continue;
            }
            let (world, machine) = (self.clone(), machine.clone());
            self.executor.spawn(async move {
                while !world.whistle.get() {
                    world.day(&machine, &world.weather.last_look, true).await;
                    if !world.whistle.get() {
                        // What it came to look at was damaged.
                        machine.reboot(Crash::Kill);
                        world.clock.sleep_until(world.clock.now() + world.weather.tick).await;
                    }
                }
                world.kept.set(world.kept.get() - 1);
            });
        }
        self.everybody_is_done(&self.weather.last_look).await;
    }

    /// Waits until something is so.
    async fn until(&self, evening: Duration, otherwise: &str, is_so: impl Fn() -> bool) {
        while !is_so() {
            assert!(self.clock.now() < evening, "{otherwise}: {}", self.who_is_where());
            self.clock.sleep_until(self.clock.now() + self.weather.tick).await;
        }
    }

    /// The machines of those that are members now.
    fn members(&self) -> Vec<Rc<Machine>> {
        let floors = self.machines.iter().filter_map(|machine| machine.floor());
        let newest = floors.map(|floor| floor.newest.load()).max_by_key(|view| view.applied);
        let is_member = |machine: &&Rc<Machine>| {
            let known = newest.as_ref().map(|view| &view.cluster.members);
            known.is_none_or(|known| known.contains_key(&machine.member()))
        };
        self.machines.iter().filter(is_member).cloned().collect()
    }

    fn who_is_where(&self) -> String {
        let tell = |machine: &Rc<Machine>| {
            let id = machine.member().0;
            let Some(floor) = machine.floor() else { return format!("{id:x} does not serve") };
            let (view, left, done) = (floor.newest.load(), floor.left.get(), floor.done.get());
            let (applied, raft) = (view.applied.0, &view.raft);
            let members: Vec<_> = view.cluster.members.keys().map(|id| id.0).collect();
            format!(
                "{id:x} at {applied} among {members:x?}, {raft:?}, {left} left to ask, \
                 {done} desks done"
            )
        };
        let members = self.machines.iter().map(tell).collect::<Vec<_>>().join("; ");
        format!("{members}; unanswered: {}", self.chronicle.borrow().unanswered())
    }

    async fn calm_down(&self) {
        self.network.calm();
        self.dusk.set(true);
        self.tell("it is calm".into());
        let several = self.machines.len() > 1;
        for machine in &self.machines {
            machine.calm();
            if several && self.weather.calm_boots {
                machine.disk().crash();
            }
        }
        if several {
            let settled = self.clock.now() + self.weather.election() * SETTLES_WITHIN;
            self.clock.sleep_until(settled).await;
        }
        self.is_calm.set(true);
        self.chronicle.borrow_mut().day_began(self.clock.now());
        for floor in self.machines.iter().filter_map(|machine| machine.floor()) {
            if !floor.is_calm.get() {
                floor.begin(self.weather.calm.clone());
            }
        }
    }

    /// Everybody has been told everything, and all have come to the same.
    async fn everybody_is_done(&self, day: &Day) {
        let most = self.weather.election() * CALM_MAX + day.rest + Duration::from_secs(100);
        let is_done = |machine: Rc<Machine>| machine.floor().is_some_and(|floor| floor.is_done());
        let all_done = || self.members().into_iter().all(is_done);
        let applied =
            |machine: Rc<Machine>| machine.floor().map(|floor| floor.newest.load().applied);
        let alike = || {
            let mut all = self.members().into_iter().map(applied);
            let first = all.next();
            all.all(|other| Some(other) == first)
        };
        // Who is damaged where nobody has read may see it only now.
        let night = loop {
            let night = self.clock.now() + most;
            self.until(night, "somebody waits for ever on a calm day", all_done).await;
            self.until(night, "the members do not come to the same", alike).await;
            if self.compare() {
                break night;
            }
        };
        let members: Vec<_> = self.members().iter().map(|machine| machine.number).collect();
        let others = self.machines.iter().filter(|machine| !members.contains(&machine.number));
        others.for_each(|machine| machine.leaves());
        self.whistle.set(true);
        self.until(night, "somebody does not leave", || self.kept.get() == 0).await;
    }

    /// Members at an equal index are equal. False where one died of being looked at.
    fn compare(&self) -> bool {
        let mut states = Vec::new();
        for machine in self.members() {
            let Some(floor) = machine.floor() else { continue };
            let view = floor.newest.load();
            floor.show(&view);
            match attempt(|| state_of(&view, &floor.edge)) {
                Ok(state) => states.push((view.applied, state)),
                Err(died) => {
                    self.network.close(machine.member().0);
                    machine.dies(died);
                    return false;
                }
            }
        }
        states.dedup();
        assert_eq!(states.len(), 1, "members differ at an equal index");
        true
    }

    pub(crate) fn see(&self, sight: &'static str, seen: bool) {
        *self.sights.borrow_mut().entry(sight).or_default() += usize::from(seen);
    }

    pub(crate) fn tell(&self, line: String) {
        self.chronicle.borrow_mut().story.push((self.clock.now(), line));
    }

    // ── a machine's days ────────────────────────────────────────────────────────────────────────

    /// One day after the other, then whatever comes until the whistle.
    async fn keep(self: Rc<Self>, machine: Rc<Machine>) {
        for day in &self.weather.rows[machine.number] {
            self.day(&machine, day, false).await;
            machine.reboot(if day.dark { Crash::PowerCut } else { Crash::Kill });
            if machine.is_out() {
                break;
            }
            self.rot(&machine);
            self.clock.sleep_until(self.clock.now() + day.down).await;
        }
        let mut came = true;
        if machine.is_out() {
            came = self.replace(&machine).await;
        } else {
            self.rough.set(self.rough.get() - 1);
        }
        let alone = self.machines.len() == 1;
        while came && !self.whistle.get() {
            let is_calm = alone || self.is_calm.get();
            let day = if is_calm { &self.weather.calm } else { &self.weather.stay };
            self.is_calm.set(is_calm);
            self.day(&machine, day, true).await;
            if machine.is_out() {
                self.rough.set(self.rough.get() + 1);
                came = self.replace(&machine).await;
            } else if !self.whistle.get() {
                machine.reboot(Crash::Kill);
                self.clock.sleep_until(self.clock.now() + self.weather.tick).await;
            }
        }
        self.kept.set(self.kept.get() - 1);
    }

    /// A few machines' logs rot, or their trees, while they are off.
    fn rot(&self, machine: &Machine) {
        let most = (self.machines.len() - 1) / 2;
        if !self.weather.rot || machine.number >= most || machine.has_rotted.get() {
            return;
        }
        let (member, disk) = (machine.member().0, machine.disk());
        let (mut history, mut lot) = (self.history.borrow_mut(), self.lot.borrow_mut());
        let is_tree = lot.one_in(2);
        let rotten = match is_tree {
            true => rot::strike_tree(&disk, &mut lot),
            false => history.rot(member, &disk, &mut lot),
        };
        let Some(what) = rotten else { return };
        machine.has_rotted.set(true);
        machine.tree_has_rotted.set(is_tree);
        if is_tree {
            history.may_lose(member);
        }
        self.see(if is_tree { "a tree that rotted" } else { "a log that rotted" }, true);
        self.tell(format!("{what}, of {member:x}"));
    }

    /// An operator puts an empty disk into a machine whose member was removed, and adds a new one.
    /// The weather is rough for it until it is there, but not for ever. False if nobody adds it before
    /// it is over.
    async fn replace(&self, machine: &Machine) -> bool {
        let newcomer = machine.renew(self.lot.borrow_mut().draw());
        let (id, now) = (newcomer.id, self.clock.now());
        self.candidates.borrow_mut().push(newcomer);
        let is_known = || {
            let floors = self.machines.iter().filter_map(|machine| machine.floor());
            floors.into_iter().any(|floor| floor.newest.load().cluster.members.contains_key(&id))
        };
        let (mut is_rough, until) = (true, now + self.weather.election() * REPLACED_WITHIN);
        while !self.whistle.get() && !is_known() {
            if self.clock.now() >= until && std::mem::replace(&mut is_rough, false) {
                self.rough.set(self.rough.get() - 1);
            }
            self.clock.sleep_until(self.clock.now() + self.weather.tick).await;
        }
        self.rough.set(self.rough.get() - usize::from(is_rough));
        self.candidates.borrow_mut().retain(|candidate| candidate.id != id);
        self.see("a member that was replaced", is_known());
        is_known()
    }

    /// Everybody crashes at once.
    async fn black_out(self: Rc<Self>) {
        let Some(after) = self.weather.blackout else { return };
        self.clock.sleep_until(self.clock.now() + after).await;
        if self.rough.get() == 0 {
            return;
        }
        self.tell("all are killed".into());
        self.see("a cluster that was killed", true);
        self.machines.iter().for_each(|machine| machine.disk().crash());
    }

    async fn day(&self, machine: &Rc<Machine>, day: &Day, stays: bool) {
        let (number, member) = (self.boots.get() + 1, machine.member());
        self.boots.set(number);
        self.tell(format!("{:x} starts, boot {number}: {day}", member.0));
        let group = self.executor.group();
        let (disk, mut lot) = (machine.disk(), Lot::new(self.lot.borrow_mut().draw()));
        let clock = self.own_clock(machine, &mut lot);
        let air = Rc::new(Air {
            executor: group.clone(),
            lot: Lot::new(lot.draw()).into(),
            tempo: Cell::new(day.tempo),
            lie: self.mutant.lie,
            history: self.history.clone(),
            member: member.0,
            failed: Cell::new(false),
            was_full: Cell::new(false),
            served: Cell::new(false),
            checkpointing: Cell::new(false),
        });
        let (spots, shown) = (Rc::default(), Rc::default());
        let boot = Boot {
            weather: self.weather.clone(),
            day: day.clone(),
            whistle: stays.then(|| self.whistle.clone()),
            is_calm: stays && self.is_calm.get(),
            dusk: self.dusk.clone(),
            machine: machine.number,
            member,
            number,
            clock,
            disk: disk.clone(),
            air: air.clone(),
            lot,
            mutant: self.mutant,
            returning: audience::returning(&mut self.orphans.borrow_mut()),
            spots: Rc::clone(&spots),
            chronicle: self.chronicle.clone(),
            history: self.history.clone(),
            network: self.network.clone(),
            candidates: self.candidates.clone(),
            recovered: None,
            shown: Rc::clone(&shown),
        };
        machine.starts(group.clone(), air.clone(), shown);
        let (own, handle) = (machine.clone(), group.clone());
        group.spawn(async move { own.ends(Ending::Came(boot.run(handle).await)) });
        let ending = machine.ending().await;
        self.network.close(member.0);
        self.orphans.borrow_mut().append(&mut spots.borrow_mut());
        self.judge_ending(&ending, machine, day, &air);
        disk.set_space(None);
        self.look_around(machine);
    }

    /// The machine's clock, which a start begins anew; somebody may have set the one on the wall.
    fn own_clock(&self, machine: &Machine, lot: &mut Lot) -> OwnClock {
        let what = self.weather.walls.then(|| lot.below(4));
        match what {
            Some(0) => clocks::forget(&machine.wall, self.clock.now()),
            Some(1) => clocks::set(&machine.wall, lot),
            _ => {}
        }
        self.see("a clock that was set", matches!(what, Some(0 | 1)));
        let rate = self.weather.clocks[machine.number];
        let rate = self.mutant.drift.map_or(rate, |drift| drift.of(rate));
        let showed = Duration::from_micros(lot.below(1 << 40));
        OwnClock::begin(self.clock.clone(), rate, showed, machine.wall.clone())
    }

    fn look_around(&self, machine: &Machine) {
        let names = machine.disk().names();
        let logs = names.iter().filter(|name| name.starts_with("wal/")).count();
        self.see("a log of several segments", logs > 2);
        let rewritten = names.iter().any(|name| name.starts_with("rec/") && !name.ends_with(".g0"));
        self.see("a rewritten record segment", rewritten);
    }

    fn judge_ending(&self, ending: &Ending, machine: &Machine, day: &Day, air: &Air) {
        let (member, full, failed) = (machine.member().0, air.was_full.get(), air.failed.get());
        let Ending::Came(end) = ending else {
            self.tell(format!("{member:x} crashed"));
            self.see("a crash while it served", air.served.get());
            self.see("a crash while it recovered", !air.served.get());
            self.see("a crash during a checkpoint", air.checkpointing.get());
            return;
        };
        self.see("a full disk", full);
        self.see("a full disk that it did not start on", full && !air.served.get());
        self.see("a full disk that it stopped on", full && matches!(end, End::Stopped));
        self.see("a death by failed I/O", failed && matches!(end, End::Fatal(_)));
        // A process that was stopped itself has no reason to say so.
        let stalled = self.machines.len() > 1
            && day.tempo.stall_odds.is_some()
            && matches!(end, End::Fatal(why) if why.what.contains("has not finished"));
        self.see("a death by a disk that stood still", stalled);
        // Only what rotted can be damaged.
        let damaged = machine.tree_has_rotted.get()
            && matches!(end, End::Fatal(why) if why.what == damage::WHAT);
        self.see("a death by damage", damaged);
        let how = match end {
            End::Stopped => "stopped".into(),
            End::Removed => "was removed".into(),
            End::Fatal(why) => format!("fatal: {why}"),
            End::Unrecovered(why) => format!("did not start: {why}"),
        };
        self.tell(format!("{member:x} {how}"));
        match end {
            End::Stopped | End::Removed => {
                assert!(!failed, "a failed write or sync went unnoticed");
            }
            End::Fatal(why) => {
                assert!(failed || stalled || damaged, "died without a reason: {why}")
            }
            End::Unrecovered(why) => assert!(failed || full, "did not start: {why}"),
        }
        assert!(day.fate != Fate::Nothing || !failed, "a fault that nobody ordered");
    }

    /// All that was told of machines, leaders and storms.
    fn events(&self) -> Vec<story::Line> {
        let mut events = self.chronicle.borrow().story.clone();
        events.extend(self.network.told());
        let history = self.history.borrow();
        let terms = history.terms();
        let leads =
            |(term, began, leader)| (began, format!("term {term} begins, led by {leader:x}"));
        events.extend(terms.map(leads));
        events
    }

    fn trace(&self) -> Trace {
        let chronicle = self.chronicle.borrow();
        let mut sights = self.sights.borrow().clone();
        sights.extend(&chronicle.sights);
        sights.extend(self.network.sights());
        let (turned_away, untold) = chronicle.ends();
        sights.insert("a request that was turned away", turned_away);
        sights.insert("a request whose fate nobody was told", untold);
        let history = self.history.borrow();
        sights.insert("a log that was trimmed", history.trims());
        sights.insert("a term that began with all that was committed", history.begun_whole());
        if self.machines.len() > 1 {
            sights.insert(
                "a leader that followed another",
                history.terms().count().saturating_sub(1),
            );
        }
        let disks = self.machines.iter().map(|machine| machine.disk().audit());
        let disks = disks.fold(0, |all: u64, disk| all.rotate_left(1) ^ disk);
        Trace { audit: chronicle.audit() ^ disks.rotate_left(1), sights }
    }
}

/// Lives the life of a seed.
///
/// # Errors
/// What went wrong, and the story up to there.
pub(crate) fn live(seed: u64, weather: Weather, mutant: Mutant) -> Result<Trace, String> {
    damage::unwinds();
    let world = World::new(seed, weather, mutant);
    match catch_unwind(AssertUnwindSafe(|| world.live())) {
        Ok(()) => Ok(world.trace()),
        Err(panic) => {
            let why = panic.downcast_ref::<String>().cloned();
            let why = why.or_else(|| panic.downcast_ref::<&str>().map(|why| (*why).to_owned()));
            let why = why.unwrap_or_else(|| "panicked".into());
            let story = story::tell(&world.chronicle.borrow(), world.events(), &why);
            Err(format!("{why}\n{story}"))
        }
    }
}
