//! Every state that a crash may leave of a tree's directory, one by one.
//!
//! A life draws a small history and lives it in boots: open, then entries, sweeps, settling, clearing
//! and checkpoints. After each change of the disk a crash is thought of: the changes that are not
//! durable are split into pieces (a sector of a write, a name, a directory, a file's length), and any
//! of these may live while the others die. What that leaves on the disk is a state.
//!
//! ```text
//!   boot ──── checkpoint ──────── checkpoint ───╳      one of the states is where the next boot begins
//!              ││││││││            ││││││││
//!              points: all ways to lose what is pending, or some where there are too many
//! ```
//!
//! Each state is opened as a start would: it must be a checkpoint that ended or the one that ran, with
//! every page of its index whole, the answers, ranks and live records of that entry; the entries behind
//! it must make of it what they made before; and one more checkpoint, with the power cut just behind it,
//! must hold all of it. A state is counted once, however often a crash leads to it.
//!
//! A state has a number, `LIFE:STATE`: `just crash-states 12:345` looks at that one again.

use crate::{
    disk::{Crash, Pending, SimDisk},
    executor::Lot,
    tap::{Order, Point, Tap},
    tree_model::{self, History, Model, Rig},
};
use bytes::Bytes;
use ringleader::{
    tree::{self, Options, Root, RootFacts, Tree},
    types::Index,
};
use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet},
    fmt,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    rc::Rc,
    str::FromStr,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
};

/// States that every test run looks at.
const STATES: u64 = 100_000;
/// Ways to lose what is pending that are tried at one point, where there are more.
const WAYS_MAX: usize = 48;
/// Entries of a life's history.
const ENTRIES: usize = 30;
/// Progress is told each time that so many more were looked at.
const TOLD_EVERY: u64 = 250_000;

/// What the states must have come past.
const SIGHTS: [&str; 6] = [
    "a directory that is not made yet",
    "a list of dead records",
    "a rewritten segment",
    "a superblock that is torn",
    "a table of leases",
    "an index in several files",
];

/// Pages of a few keys and segments of a dozen records.
const SIZES: Options = Options { page_bytes: 256, segment_bytes: 1024, index_files: 32 };

/// What a bug changes: the order of the disk's work, what a checkpoint is told, or what it left.
#[derive(Clone, Copy, Default)]
pub(crate) struct Bug {
    pub(crate) order: Order,
    /// Added to the applied index that a checkpoint is told.
    pub(crate) applied: i64,
    /// Done to a disk before it is opened.
    pub(crate) tamper: Option<fn(&SimDisk)>,
}

/// Which state: a life and how many it came to before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Number {
    life: u64,
    state: u64,
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.life, self.state)
    }
}

impl FromStr for Number {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once(':').ok_or("LIFE:STATE")?;
        let number = |text: &str| text.parse().map_err(|_| format!("{text} is no number"));
        Ok(Self { life: number(parts.0)?, state: number(parts.1)? })
    }
}

/// What a boot had come to when the crash came.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Progress {
    formatted: bool,
    /// Applied index of the last checkpoint that ended.
    ended: u64,
    /// Applied index of the last checkpoint that began.
    begun: u64,
}

/// A disk after a crash, and what must be on it.
pub(crate) struct State<'a> {
    number: Number,
    content: u64,
    past: Rc<Past>,
    progress: Progress,
    disk: SimDisk,
    /// For people: where the crash came, and what it took.
    story: &'a dyn Fn() -> String,
    /// For people: what came before.
    chronicle: &'a [String],
}

/// A history, and what is known after each of its entries.
struct Past {
    history: History,
    models: Vec<Model>,
}

impl Past {
    fn draw(life: u64) -> Self {
        let history = History::draw_small(life, ENTRIES);
        let models = history.models();
        Self { history, models }
    }

    fn model(&self, applied: u64) -> &Model {
        &self.models[applied as usize]
    }

    fn rig(&self, tree: Tree, applied: u64) -> Rig {
        Rig::at(tree, applied, self.model(applied))
    }
}

/// What a checkpoint of the rig's state is told. Large enough for a superblock of several sectors, all of
/// which differ from those of the one before.
fn facts(rig: &Rig) -> RootFacts {
    RootFacts { state: Bytes::from(vec![rig.applied as u8; 1200]), ..rig.facts() }
}

/// Runs what waits for nothing but a disk.
fn finish<T>(future: impl Future<Output = T>) -> T {
    beside(future, || {})
}

/// Runs what waits for nothing but a disk, and does something else whenever it waits.
pub(crate) fn beside<T>(future: impl Future<Output = T>, mut other: impl FnMut()) -> T {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(value) => return value,
            Poll::Pending => other(),
        }
    }
}

// ── a state ─────────────────────────────────────────────────────────────────────────────────────

impl State<'_> {
    /// What it comes past, or what is wrong with it.
    fn check(&self) -> Result<Vec<&'static str>, String> {
        let outcome = catch_unwind(AssertUnwindSafe(|| self.look()));
        let outcome = outcome.unwrap_or_else(|panic| Err(words(&*panic)));
        outcome.map_err(|why| format!("state {}: {why}\n  {}", self.number, (self.story)()))
    }

    fn look(&self) -> Result<Vec<&'static str>, String> {
        let Some((tree, root)) = open(&self.disk)? else {
            return match self.progress.formatted {
                false => Ok(vec!["a directory that is not made yet"]),
                true => Err("what was formatted is gone".into()),
            };
        };
        let sights = self.sights(&root);
        let (Progress { ended, begun, .. }, applied) = (self.progress, root.facts.applied.0);
        if ![ended, begun].contains(&applied) {
            return Err(format!("it is at {applied}, not at {ended} or {begun}"));
        }
        let mut lot = Lot::new(applied);
        let mut rig = self.past.rig(tree, applied);
        self.is_right(&mut rig, &mut lot);
        while rig.apply(&self.past.history) {
            rig.tree.sweep(lot.below(8) as usize);
            rig.tree.tend_index(1 + lot.below(4) as usize);
        }
        // All of it is looked at once it comes from the disk again.
        self.past.model(rig.applied).check_ranks(&rig.tree.reader());
        self.goes_on(rig, &mut lot).map(|()| sights)
    }

    fn sights(&self, root: &Root) -> Vec<&'static str> {
        let names = self.disk.names();
        let count = |part: &str| names.iter().filter(|name| name.contains(part)).count();
        let seen = [
            (count("dead.") > 0, "a list of dead records"),
            (count(".g") > count(".g0"), "a rewritten segment"),
            (root.sibling_damage.is_some(), "a superblock that is torn"),
            (count("leases.") > 0, "a table of leases"),
            (count("idx/") > 2, "an index in several files"),
        ];
        seen.into_iter().filter_map(|(seen, what)| seen.then_some(what)).collect()
    }

    /// One more checkpoint, and no time for anything that is not durable by then.
    fn goes_on(&self, mut rig: Rig, lot: &mut Lot) -> Result<(), String> {
        let job = rig.tree.begin_checkpoint(facts(&rig)).expect("none is running");
        rig.tree.finish_checkpoint(finish(job.run(self.disk.clone())).expect("the disk works"));
        let pending = Pending::of(&self.disk);
        let disk = pending.cut(&vec![false; pending.len()]);
        let (tree, root) = open(&disk)?.ok_or("what was just written is gone")?;
        if root.facts != facts(&rig) {
            return Err(format!("the next checkpoint says {:?}", root.facts));
        }
        self.is_right(&mut self.past.rig(tree, rig.applied), lot);
        Ok(())
    }

    /// The tree is that of the model.
    fn is_right(&self, rig: &mut Rig, lot: &mut Lot) {
        let model = self.past.model(rig.applied);
        model.check_ranks(&rig.tree.reader());
        model.check(&rig.tree.reader(), lot, false);
        while !rig.tree.sweep(100) {}
        assert_eq!(rig.tree.live_bytes(), model.kept_bytes(), "live records");
    }
}

/// Opens a directory and reads its whole index.
fn open(disk: &SimDisk) -> Result<Option<(Tree, Root)>, String> {
    let opened = finish(tree::open(disk, SIZES)).map_err(|error| error.to_string())?;
    if let Some((tree, _)) = &opened {
        let checked = tree.check_index().and_then(|()| tree.check_records());
        checked.map_err(|error| error.to_string())?;
    }
    Ok(opened)
}

/// What a panic said.
fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().map(str::to_owned);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}

// ── a life ──────────────────────────────────────────────────────────────────────────────────────

/// Looks at a state as it comes; an error ends the life.
pub(crate) type Look<'a> = &'a mut dyn FnMut(&State<'_>) -> Result<(), String>;

/// A life whose states are looked at as they come.
struct Life<'a> {
    number: u64,
    past: Rc<Past>,
    lot: Lot,
    bug: Bug,
    progress: Progress,
    /// What was looked at.
    known: BTreeSet<(u64, Crash, Progress)>,
    /// One of the states since the last checkpoint began, all as likely.
    heir: Option<Heir>,
    heirs: u64,
    /// For people: what happened.
    chronicle: Vec<String>,
    look: Look<'a>,
}

/// Where a boot begins.
struct Heir {
    disk: SimDisk,
    progress: Progress,
    story: String,
}

/// Lives a life until a state is wrong. `look` says whether one is.
pub(crate) fn live(number: u64, bug: Bug, look: Look<'_>) -> Result<(), String> {
    let mut life = Life {
        number,
        past: Rc::new(Past::draw(number)),
        lot: Lot::new(number),
        bug,
        progress: Progress::default(),
        known: BTreeSet::new(),
        heir: None,
        heirs: 0,
        chronicle: Vec::new(),
        look,
    };
    let story = "an empty disk".into();
    let disk = SimDisk::new(number);
    let mut next = Some(Heir { disk, progress: Progress::default(), story });
    while let Some(heir) = next {
        next = life.boot(heir)?;
    }
    Ok(())
}

impl Life<'_> {
    /// Lives on from what is on the disk. Where the next boot begins, if there is one.
    fn boot(&mut self, Heir { disk, progress, story }: Heir) -> Result<Option<Heir>, String> {
        self.chronicle.push(format!("a boot begins: {story}"));
        self.progress = progress;
        let mut rig = self.open(&disk)?;
        self.chronicle.push(format!("it is open at entry {}", rig.applied));
        let tap = Tap::new(disk, self.bug.order);
        loop {
            for _ in 0..1 + self.lot.below(8) {
                self.write(&mut rig);
            }
            self.checkpoint(&mut rig, &tap);
            self.look_at(tap.points())?;
            self.progress.ended = self.progress.begun;
            self.look_at(vec![Point::now(&tap, "the checkpoint ended")])?;
            let heir = self.heir.take();
            self.heirs = 0;
            if rig.applied == ENTRIES as u64 || self.lot.one_in(3) {
                return Ok(heir.filter(|_| rig.applied < ENTRIES as u64));
            }
        }
    }

    fn open(&mut self, disk: &SimDisk) -> Result<Rig, String> {
        let tap = Tap::new(disk.clone(), Order::Told);
        let opened = finish(tree::open(&tap, SIZES)).map_err(|error| error.to_string())?;
        let rig = match opened {
            Some((tree, root)) => self.past.rig(tree, root.facts.applied.0),
            None => {
                let made = finish(tree::format(&tap, SIZES, tree_model::facts(0, 1)));
                self.past.rig(made.expect("the disk works"), 0)
            }
        };
        self.look_at(tap.points())?;
        self.progress = Progress { formatted: true, ended: rig.applied, begun: rig.applied };
        self.look_at(vec![Point::now(&tap, "it was open")])?;
        (self.heir, self.heirs) = (None, 0);
        Ok(rig)
    }

    /// An entry, and some of what is done between entries.
    fn write(&mut self, rig: &mut Rig) {
        let lot = &mut self.lot;
        rig.apply(&self.past.history);
        rig.tree.sweep(lot.below(12) as usize);
        if lot.one_in(4) {
            rig.tree.tend_index(1 + lot.below(6) as usize);
        }
    }

    /// A checkpoint while entries go on.
    fn checkpoint(&mut self, rig: &mut Rig, tap: &Tap) {
        let mut told = facts(rig);
        told.applied = Index(told.applied.0.saturating_add_signed(self.bug.applied));
        self.progress.begun = told.applied.0;
        let job = match self.lot.one_in(4) {
            true => rig.tree.begin_defragment(told),
            false => rig.tree.begin_checkpoint(told),
        };
        let (job, disk) = (job.expect("none is running"), tap.clone());
        let job = async move {
            let done = job.run(disk.clone()).await?;
            disk.catch_up().await.map(|()| done)
        };
        let done = beside(job, || {
            if self.lot.one_in(6) {
                self.write(rig);
            }
        });
        rig.tree.finish_checkpoint(done.expect("the disk works"));
    }

    /// All that a crash may leave at these points, or some of it where that is too much.
    fn look_at(&mut self, points: Vec<Point>) -> Result<(), String> {
        for point in points {
            self.chronicle.push(point.what.clone());
            let pending = Pending::of(&point.disk);
            let killed = || format!("killed where {}", point.what);
            self.meet(point.disk.fork(), Crash::Kill, &killed)?;
            for alive in ways(pending.len(), &mut self.lot) {
                let cut =
                    || format!("power cut where {}; lost: {}", point.what, pending.lost(&alive));
                self.meet(pending.cut(&alive), Crash::PowerCut, &cut)?;
            }
        }
        Ok(())
    }

    fn meet(
        &mut self,
        disk: SimDisk,
        crash: Crash,
        story: &dyn Fn() -> String,
    ) -> Result<(), String> {
        let content = disk.content();
        if !self.known.insert((content, crash, self.progress)) {
            return Ok(());
        }
        self.heirs += 1;
        if self.lot.one_in(self.heirs) {
            let (disk, progress) = (disk.fork(), self.progress);
            self.heir = Some(Heir { disk, progress, story: story() });
        }
        // What a kill leaves is written still.
        if let Some(tamper) = self.bug.tamper.filter(|_| crash == Crash::PowerCut) {
            tamper(&disk);
        }
        let number = Number { life: self.number, state: self.known.len() as u64 };
        let (past, progress) = (self.past.clone(), self.progress);
        let chronicle = &self.chronicle;
        (self.look)(&State { number, content, past, progress, disk, story, chronicle })
    }
}

/// Which of so many pieces live: every way, or [`WAYS_MAX`] of all kinds.
fn ways(pieces: usize, lot: &mut Lot) -> Vec<Vec<bool>> {
    if pieces < usize::BITS as usize && 1 << pieces <= WAYS_MAX {
        let all = 0..1_usize << pieces;
        return all.map(|way| (0..pieces).map(|piece| way >> piece & 1 == 1).collect()).collect();
    }
    let some = (2..WAYS_MAX).map(|_| {
        let one = lot.below(pieces as u64) as usize;
        let odds = [2, 2, 4, 8][lot.below(4) as usize];
        let (kind, odd) = (lot.below(6), lot.one_in(2));
        let lives = |piece: usize| match kind {
            0 => (piece == one) == odd,
            1 => (piece < one) == odd,
            _ => lot.one_in(odds) == odd,
        };
        (0..pieces).map(lives).collect()
    });
    let extremes = [vec![false; pieces], vec![true; pieces]];
    extremes.into_iter().chain(some).collect()
}

// ── many ────────────────────────────────────────────────────────────────────────────────────────

/// States of many lives, each counted once.
#[derive(Default)]
struct Census {
    /// By content.
    states: BTreeSet<u64>,
    sights: BTreeMap<&'static str, u64>,
    lives: u64,
    wrong: Vec<String>,
}

/// Looks at states until there were so many.
fn look_at_many(wanted: u64) -> Census {
    let census = Mutex::new(Census::default());
    let counted = || census.lock().expect("nobody panics with it");
    let next = AtomicU64::new(0);
    let live_some = || {
        while (counted().states.len() as u64) < wanted && counted().wrong.is_empty() {
            let mut look = |state: &State<'_>| {
                let sights = state.check()?;
                let mut census = counted();
                census.count(state.content, sights);
                Ok(())
            };
            let lived = live(next.fetch_add(1, Ordering::Relaxed), Bug::default(), &mut look);
            counted().wrong.extend(lived.err());
            counted().lives += 1;
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(live_some);
        }
    });
    census.into_inner().expect("nobody panics with it")
}

impl Census {
    fn count(&mut self, content: u64, sights: Vec<&'static str>) {
        if !self.states.insert(content) {
            return;
        }
        sights.into_iter().for_each(|sight| *self.sights.entry(sight).or_default() += 1);
        if (self.states.len() as u64).is_multiple_of(TOLD_EVERY) {
            eprintln!("{} states of {} lives", self.states.len(), self.lives);
        }
    }
}

/// Looks at one state again, and says what it is.
fn look_again(number: Number) {
    let mut found = false;
    let lived = live(number.life, Bug::default(), &mut |state| {
        if state.number == number {
            found = true;
            state.chronicle.iter().for_each(|line| println!("  {line}"));
            println!("state {number}: {}", (state.story)());
            let len = |name: &String| state.disk.peek(name).len();
            state.disk.names().iter().for_each(|name| println!("  {name}: {} bytes", len(name)));
            println!("  {:?}", state.check()?);
        }
        Ok(())
    });
    assert!(found, "life {} has no state {}", number.life, number.state);
    lived.expect("it is right");
}

#[test]
fn any_crash_state_is_a_checkpoint_whole() {
    let asked = std::env::var("RINGLEADER_STATES").ok();
    if let Some(Ok(number)) = asked.as_deref().map(str::parse) {
        return look_again(number);
    }
    let wanted = asked.map_or(STATES, |asked| asked.parse().expect("a number of states"));
    let Census { states, sights, lives, wrong } = look_at_many(wanted);
    let again = "`just crash-states LIFE:STATE` looks at one again";
    assert!(wrong.is_empty(), "{}\n{again}", wrong.join("\n"));
    println!("{} distinct crash states of {lives} lives are whole: {sights:?}", states.len());
    assert!(SIGHTS.iter().all(|sight| sights.contains_key(sight)), "{sights:?}");
}

/// Lives with a bug until a state is wrong, and says what is, or None when so many were right.
pub(crate) fn first_wrong(bug: Bug, states_max: u64) -> Option<String> {
    let mut states = 0;
    for life in 0.. {
        let look = &mut |state: &State<'_>| {
            states += 1;
            state.check().map(drop)
        };
        let lived = catch_unwind(AssertUnwindSafe(|| live(life, bug, look)));
        let lived = lived.unwrap_or_else(|panic| Err(words(&*panic)));
        if states > states_max {
            return None;
        }
        if let Err(why) = lived {
            return Some(format!("after {states} states: {why}"));
        }
    }
    unreachable!("lives do not end")
}
