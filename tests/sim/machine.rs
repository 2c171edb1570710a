//! A machine: a disk, and at most one boot of a member at a time.

use crate::{
    clients::Floor,
    clocks::Wall,
    damage::Died,
    disk::{Crash, SimDisk},
    executor::Executor,
    member::{self, End},
    rough::Air,
    weather::Tempo,
};
use ringleader::{store::Member, types::MemberId};
use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    rc::Rc,
    task::{Poll, Waker},
};

/// See the head of this file.
pub(crate) struct Machine {
    pub(crate) number: usize,
    /// Members that were here before.
    life: Cell<u64>,
    /// Its member was removed, and knows it.
    is_out: Cell<bool>,
    pub(crate) has_rotted: Cell<bool>,
    /// It was records or the index that rotted.
    pub(crate) tree_has_rotted: Cell<bool>,
    pub(crate) wall: Wall,
    disk: RefCell<SimDisk>,
    running: RefCell<Option<Running>>,
    ended: RefCell<Option<Ending>>,
    waker: RefCell<Option<Waker>>,
}

struct Running {
    group: Executor,
    air: Rc<Air>,
    floor: Rc<RefCell<Option<Rc<Floor>>>>,
}

/// How a boot ended.
#[derive(Debug)]
pub(crate) enum Ending {
    Crashed,
    Came(End),
}

impl Machine {
    pub(crate) fn new(number: usize, seed: u64) -> Self {
        Self {
            number,
            life: Cell::new(0),
            is_out: Cell::new(false),
            has_rotted: Cell::new(false),
            tree_has_rotted: Cell::new(false),
            wall: Wall::default(),
            disk: SimDisk::new(seed).into(),
            running: RefCell::default(),
            ended: RefCell::default(),
            waker: RefCell::default(),
        }
    }

    /// Who lives here.
    pub(crate) fn member(&self) -> MemberId {
        member::member_on(self.number, self.life.get())
    }

    pub(crate) fn disk(&self) -> SimDisk {
        self.disk.borrow().clone()
    }

    /// The disk after a crash or an end.
    pub(crate) fn reboot(&self, crash: Crash) {
        let after = self.disk().reboot(crash);
        *self.disk.borrow_mut() = after;
    }

    pub(crate) fn starts(
        &self,
        group: Executor,
        air: Rc<Air>,
        floor: Rc<RefCell<Option<Rc<Floor>>>>,
    ) {
        *self.running.borrow_mut() = Some(Running { group, air, floor });
    }

    pub(crate) fn is_running(&self) -> bool {
        self.running.borrow().is_some()
    }

    /// The plug was pulled, and something runs as if it were not.
    pub(crate) fn has_crashed(&self) -> bool {
        self.is_running() && self.disk.borrow().crashed()
    }

    /// What a task of the boot died of.
    pub(crate) fn died(&self) -> Option<Died> {
        self.running.borrow().as_ref().and_then(|running| running.group.died())
    }

    /// The process dies of damage, and leaves its mark.
    pub(crate) fn dies(&self, died: Died) {
        died.leave_mark(&self.disk());
        self.ends(Ending::Came(End::Fatal(died.fatal())));
    }

    pub(crate) fn is_out(&self) -> bool {
        self.is_out.get()
    }

    /// Its member is one no more.
    pub(crate) fn leaves(&self) {
        self.is_out.set(true);
    }

    /// An empty disk, for a member that is to be added. Returns what others must know of it.
    pub(crate) fn renew(&self, seed: u64) -> Member {
        self.is_out.set(false);
        self.life.set(self.life.get() + 1);
        *self.disk.borrow_mut() = SimDisk::new(seed);
        member::newcomer_on(self.number, self.life.get())
    }

    /// Nothing of the boot goes on.
    pub(crate) fn ends(&self, how: Ending) {
        let Some(running) = self.running.take() else { return };
        self.is_out.set(matches!(how, Ending::Came(End::Removed)));
        running.group.end_group();
        *self.ended.borrow_mut() = Some(how);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Waits for the end of the boot.
    pub(crate) async fn ending(&self) -> Ending {
        poll_fn(|cx| {
            if let Some(how) = self.ended.take() {
                return Poll::Ready(how);
            }
            *self.waker.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Where the boot's clients are, once it serves.
    pub(crate) fn floor(&self) -> Option<Rc<Floor>> {
        self.running.borrow().as_ref().and_then(|running| running.floor.borrow().clone())
    }

    /// From now on the disk is quick.
    pub(crate) fn calm(&self) {
        if let Some(running) = &*self.running.borrow() {
            running.air.tempo.set(Tempo::calm());
        }
    }
}
