//! What a power cut decides: every piece that is on its way to the medium, one by one.

use super::{Inode, SECTOR_BYTES, SimDisk, State, mixed, overwrite, parent};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    rc::Rc,
};

/// The pieces that a disk has not yet been told to make durable. Each may live or die on its own.
pub(crate) struct Pending {
    disk: SimDisk,
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Piece {
    /// A directory was made.
    Dir(String),
    /// A name was made, removed or given to another file.
    Name(String),
    /// A file that was never synced has its length.
    Length(u64),
    /// A sector of one of a file's writes.
    Sector { inode: u64, write: usize, at: usize },
}

impl Pending {
    /// What is on its way now. Later operations of the disk do not matter to it.
    pub(crate) fn of(disk: &SimDisk) -> Self {
        let disk = disk.fork();
        let mut pieces = Vec::new();
        {
            let state = disk.state.borrow();
            let lost = state.dirs.difference(&state.durable_dirs);
            pieces.extend(lost.cloned().map(Piece::Dir));
            pieces.extend(changed_names(&state).map(Piece::Name));
            let reachable = reachable(&state);
            for (number, inode) in state.inodes.iter().filter(|(at, _)| reachable.contains(at)) {
                if !inode.ever_synced {
                    pieces.push(Piece::Length(*number));
                }
                pieces.extend(sectors(*number, inode));
            }
        }
        Self { disk, pieces }
    }

    pub(crate) fn len(&self) -> usize {
        self.pieces.len()
    }

    /// The disk after a power cut that those pieces survived whose place in `alive` says so.
    pub(crate) fn cut(&self, alive: &[bool]) -> SimDisk {
        let after = self.disk.fork();
        let survivors = self.pieces.iter().zip(alive).filter(|(_, alive)| **alive);
        let survivors: BTreeSet<&Piece> = survivors.map(|(piece, _)| piece).collect();
        let mut state = after.state.borrow_mut();
        let lost: Vec<String> = state
            .dirs
            .difference(&state.durable_dirs)
            .filter(|dir| !survivors.contains(&Piece::Dir((*dir).clone())))
            .cloned()
            .collect();
        for name in changed_names(&state).collect::<Vec<_>>() {
            if !survivors.contains(&Piece::Name(name.clone())) {
                match state.durable_names.get(&name).copied() {
                    Some(inode) => state.names.insert(name, inode),
                    None => state.names.remove(&name),
                };
            }
        }
        state.names.retain(|name, _| !lost.iter().any(|dir| dir == parent(name)));
        state.dirs.retain(|dir| !lost.contains(dir));
        let mut writes: BTreeMap<u64, Vec<(usize, usize)>> = BTreeMap::new();
        for piece in &survivors {
            if let Piece::Sector { inode, write, at } = piece {
                writes.entry(*inode).or_default().push((*write, *at));
            }
        }
        for (number, inode) in &mut state.inodes {
            let long = survivors.contains(&Piece::Length(*number));
            inode.keep(long, writes.get(number).map_or(&[][..], Vec::as_slice));
        }
        state.durable_dirs = state.dirs.clone();
        state.durable_names = state.names.clone();
        let used = reachable(&state);
        state.inodes.retain(|number, _| used.contains(number));
        drop(state);
        after
    }

    /// Those pieces that did not survive.
    pub(crate) fn lost<'a>(&'a self, alive: &'a [bool]) -> impl fmt::Display + 'a {
        let lost = self.pieces.iter().zip(alive).filter(|(_, alive)| !**alive);
        let lost: Vec<String> = lost.map(|(piece, _)| self.tell(piece)).collect();
        if lost.is_empty() { "nothing".to_owned() } else { lost.join(", ") }
    }

    fn tell(&self, piece: &Piece) -> String {
        let state = self.disk.state.borrow();
        let name = |inode: &u64| {
            let names = state.names.iter().chain(&state.durable_names);
            let name = names.clone().find(|(_, number)| *number == inode);
            name.map_or("a file without a name", |(name, _)| name).to_owned()
        };
        match piece {
            Piece::Dir(dir) => format!("the directory {dir}/"),
            Piece::Name(changed) => format!("the change of the name {changed}"),
            Piece::Length(inode) => format!("the length of {}", name(inode)),
            Piece::Sector { inode, write, at } => {
                let begin = state.inodes[inode].between[*write].offset + at * SECTOR_BYTES;
                format!("{} at {begin} (write {write})", name(inode))
            }
        }
    }
}

impl SimDisk {
    /// A hash over all names and what their files hold.
    pub(crate) fn content(&self) -> u64 {
        let state = self.state.borrow();
        state.names.iter().fold(0, |hash, (name, number)| {
            let image = &state.inodes[number].seen;
            let hash = mixed(mixed(hash, name.as_bytes()), &image.len().to_le_bytes());
            let sectors = image.chunks(SECTOR_BYTES).enumerate();
            sectors
                .filter(|(_, sector)| **sector != [0; SECTOR_BYTES][..sector.len()])
                .fold(hash, |hash, (at, sector)| mixed(mixed(hash, &at.to_le_bytes()), sector))
        })
    }
}

impl Inode {
    /// What is left of it when of the writes in between only these sectors live.
    fn keep(&mut self, long: bool, sectors: &[(usize, usize)]) {
        if self.between.is_empty() && self.ever_synced {
            self.seen = self.medium.clone();
            return;
        }
        if !self.ever_synced {
            self.medium = vec![0; if long { self.seen.len() } else { 0 }].into();
        }
        for (write, at) in sectors {
            let write = &self.between[*write];
            let sector = write.bytes.chunks(SECTOR_BYTES).nth(*at).expect("it was listed");
            overwrite(&mut self.medium, write.offset + at * SECTOR_BYTES, sector);
        }
        self.between.clear();
        self.seen = Rc::clone(&self.medium);
        self.ever_synced = true;
    }
}

fn changed_names(state: &State) -> impl Iterator<Item = String> {
    let all: BTreeSet<&String> = state.names.keys().chain(state.durable_names.keys()).collect();
    let changed = |name: &&String| state.names.get(*name) != state.durable_names.get(*name);
    all.into_iter().filter(changed).cloned().collect::<Vec<_>>().into_iter()
}

/// Files that have a name, or surely have one on the medium.
fn reachable(state: &State) -> BTreeSet<u64> {
    state.names.values().chain(state.durable_names.values()).copied().collect()
}

/// The sectors in between that would change what is on the medium.
fn sectors(number: u64, inode: &Inode) -> Vec<Piece> {
    if inode.between.is_empty() {
        return Vec::new();
    }
    let mut image = Vec::clone(&inode.medium);
    image.resize(image.len().max(inode.seen.len()), 0);
    let mut pieces = Vec::new();
    for (write, it) in inode.between.iter().enumerate() {
        for (at, sector) in it.bytes.chunks(SECTOR_BYTES).enumerate() {
            let begin = it.offset + at * SECTOR_BYTES;
            let same = &image[begin..][..sector.len()] == sector;
            // Over a sector that was written before, the same bytes are a change as well.
            let alone = !pieces.iter().any(|piece| {
                let Piece::Sector { write, at, .. } = piece else { return false };
                let other: &super::Write = &inode.between[*write];
                other.offset + at * SECTOR_BYTES == begin
            });
            if !same || !alone {
                pieces.push(Piece::Sector { inode: number, write, at });
            }
        }
    }
    pieces
}
