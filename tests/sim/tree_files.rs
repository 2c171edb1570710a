//! The index in more files than it usually has: pages settle and are cleared a few at a time while
//! entries, checkpoints and defragmentation go on, files go while old views need them, and their slots
//! are used again.

use crate::{
    disk::SimDisk,
    executor::Lot,
    states::beside,
    tree_model::{History, Model, OPTIONS, Rig, format, open},
};
use ringleader::tree::View;
use std::collections::{BTreeMap, BTreeSet};

const ENTRIES: usize = 400;

/// A view, what it shows, and the index's files when it was made.
struct Held {
    view: View,
    model: Model,
    files: BTreeSet<String>,
}

struct Life {
    history: History,
    disk: SimDisk,
    lot: Lot,
    rig: Rig,
    model: Model,
    views: Vec<Held>,
    sights: BTreeMap<&'static str, u64>,
}

impl Life {
    fn new(seed: u64) -> Self {
        let history = History::draw_wide(seed, ENTRIES);
        let disk = SimDisk::new(seed);
        let rig = Rig::new(format(&disk), 0, &history);
        let model = history.model(0);
        let (views, sights) = (Vec::new(), BTreeMap::new());
        Self { history, disk, lot: Lot::new(seed), rig, model, views, sights }
    }

    fn files(&self) -> BTreeSet<String> {
        self.disk.names().into_iter().filter(|name| name.starts_with("idx/")).collect()
    }

    fn see(&mut self, sight: &'static str, seen: bool) {
        *self.sights.entry(sight).or_default() += u64::from(seen);
    }

    /// An entry, and a few pages of the index.
    fn write(&mut self, pages: u64) {
        if self.rig.apply(&self.history) {
            self.model = self.history.model(self.rig.applied);
        }
        self.rig.tree.sweep(self.lot.below(6) as usize);
        for _ in 0..self.lot.below(pages + 1) {
            self.rig.tree.tend_index(1 + self.lot.below(2) as usize);
            self.model.check_ranks(&self.rig.tree.reader());
        }
    }

    /// A checkpoint, with entries beside it.
    fn checkpoint(&mut self, pages: u64) {
        let before = self.files();
        let job = self.rig.begin(&mut self.lot);
        let disk = self.disk.clone();
        let done = beside(job.run(disk), || {
            if self.lot.one_in(8) {
                self.write(pages);
            }
        });
        self.rig.tree.finish_checkpoint(done.expect("the disk works"));
        let after = self.files();
        self.see("more files than usual", after.len() > OPTIONS.index_files);
        self.see("a file that went", before.iter().any(|file| !after.contains(file)));
        let needed = |held: &Held| held.files.iter().any(|file| !after.contains(file));
        self.see("a file that went from under a view", self.views.iter().any(needed));
    }

    fn hold(&mut self) {
        let files = self.files();
        self.views.push(Held { view: self.rig.tree.publish(), model: self.model.clone(), files });
        if self.views.len() > 5 {
            let at = self.lot.below(6) as usize;
            let Held { view, model, .. } = self.views.swap_remove(at);
            model.check(&view.reader(), &mut self.lot, false);
            model.check_ranks(&view.reader());
        }
    }

    /// What is on the disk now is the tree, and takes as much there.
    fn reopen(&mut self) {
        self.checkpoint(0);
        let (tree, root) = open(&self.disk.fork()).expect("nothing is damaged").expect("formatted");
        let model = self.history.model(root.facts.applied.0);
        model.check(&tree.reader(), &mut self.lot, false);
        model.check_ranks(&tree.reader());
    }
}

#[test]
fn an_index_in_many_files_answers_right_while_they_come_and_go() {
    let mut sights: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in 0..6 {
        let mut life = Life::new(seed);
        while (life.rig.applied as usize) < ENTRIES {
            // First files pile up, then they are cleared.
            let pages = if life.rig.applied < 250 { 0 } else { 3 };
            life.write(pages);
            if life.lot.one_in(5) {
                life.hold();
            }
            if pages == 0 || life.lot.one_in(2) {
                life.checkpoint(pages);
            }
            if life.lot.one_in(40) {
                life.reopen();
            }
        }
        life.model.check(&life.rig.tree.reader(), &mut life.lot, false);
        for Held { view, model, .. } in std::mem::take(&mut life.views) {
            model.check(&view.reader(), &mut life.lot, true);
            model.check_ranks(&view.reader());
        }
        while !life.rig.tree.tend_index(3) {}
        life.checkpoint(0);
        life.checkpoint(0);
        life.see("few files once all is tended", life.files().len() < 5);
        life.reopen();
        life.sights.into_iter().for_each(|(sight, seen)| *sights.entry(sight).or_default() += seen);
    }
    println!("{sights:?}");
    assert!(sights.values().all(|seen| *seen >= 6), "{sights:?}");
}
