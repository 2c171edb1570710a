//! Snapshots on their way: what the peers' room does with one that comes in, piece by piece, onto the
//! member's own disk, while the member goes on.

use crate::{
    disk::SimDisk,
    executor::{Executor, SimClock},
    history::History,
    member::CLUSTER,
    network::{Network, Word},
    rough::RoughDisk,
};
use ringleader::{
    consensus::Message,
    io::Clock,
    mesh::{FromPeer, Newest, ToNode},
    tree::{self, InstallError, Manifest, Receiving, Snapshot, Stage, Staged},
};
use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
};

/// A member's place for what comes in.
pub(crate) struct Ramp {
    pub(crate) member: u64,
    pub(crate) boot: u64,
    pub(crate) executor: Executor,
    pub(crate) disk: RoughDisk,
    pub(crate) machine: SimDisk,
    pub(crate) options: tree::Options,
    pub(crate) newest: Newest,
    pub(crate) network: Network,
    pub(crate) history: Rc<RefCell<History>>,
    /// Whole segments of what was not installed.
    pub(crate) stage: RefCell<Stage>,
    /// One is coming in.
    pub(crate) busy: Cell<bool>,
    /// One was handed to the node, which may be making it its own.
    pub(crate) handed: Cell<Option<u64>>,
    /// For the node.
    pub(crate) out: RefCell<VecDeque<ToNode>>,
}

impl Ramp {
    /// A snapshot comes from `from`.
    pub(crate) fn take(self: &Rc<Self>, from: u64, message: Box<Message>, snapshot: Snapshot) {
        let applied = self.newest.load().applied.0;
        let handed = self.handed.get().filter(|handed| applied < *handed);
        if self.busy.get() || handed.is_some() {
            return self.tell(from, false);
        }
        self.handed.set(None);
        self.busy.set(true);
        let ramp = self.clone();
        self.executor.spawn(async move {
            let stage = ramp.stage.take();
            let staged = ramp.receive(from, &snapshot, stage).await;
            ramp.busy.set(false);
            let arrived = staged.is_some();
            if let Some(staged) = staged {
                let index = staged.applied().0;
                ramp.handed.set(Some(index));
                ramp.history.borrow_mut().arrives(ramp.member, index);
                let staged = Box::new(staged);
                let said = FromPeer::Snapshot { message, staged };
                ramp.out.borrow_mut().push_back(ToNode::Peer(said));
                ramp.network.see("a snapshot that came in");
            } else {
                ramp.network.see("a snapshot that broke off");
            }
            ramp.tell(from, arrived);
        });
    }

    /// The node had no use for one.
    pub(crate) fn unneeded(&self, staged: Staged) {
        self.handed.set(None);
        self.network.see("a snapshot that was not needed");
        *self.stage.borrow_mut() = staged.abandon();
    }

    fn tell(&self, to: u64, arrived: bool) {
        self.network.send((self.member, self.boot), to, Word::Received { arrived });
    }

    async fn receive(&self, from: u64, snapshot: &Snapshot, stage: Stage) -> Option<Staged> {
        let bytes = snapshot.encode_manifest().await;
        let manifest = Manifest::decode(&bytes, CLUSTER, self.options.segment_bytes);
        let manifest = manifest.expect("it was made for this cluster");
        let own = self.newest.load().tree.sealed();
        let begun = Receiving::begin(self.disk.clone(), self.options, &own, stage, manifest).await;
        let mut receiving = begun.map_err(|error| self.judge(&InstallError::Disk(error))).ok()?;
        match self.receive_parts(from, snapshot, &mut receiving).await {
            Ok(true) => match receiving.finish().await {
                Ok(staged) => Some(staged),
                Err((error, stage)) => {
                    self.judge(&error);
                    self.keep(stage)
                }
            },
            Ok(false) => self.keep(receiving.abandon()),
            Err(error) => {
                self.judge(&error);
                self.keep(receiving.abandon())
            }
        }
    }

    /// After any fault of the disk but a full one the process dies.
    fn judge(&self, error: &InstallError) {
        let InstallError::Disk(error) = error else {
            panic!("a whole snapshot is refused: {error}")
        };
        if error.kind() != std::io::ErrorKind::StorageFull {
            self.machine.crash();
        }
    }

    fn keep(&self, stage: Stage) -> Option<Staged> {
        *self.stage.borrow_mut() = stage;
        None
    }

    /// False when the connection is lost before all is here.
    async fn receive_parts(
        &self,
        from: u64,
        snapshot: &Snapshot,
        receiving: &mut Receiving<RoughDisk>,
    ) -> Result<bool, InstallError> {
        let clock: SimClock = self.executor.clock();
        for part in receiving.missing() {
            let mut offset = 0;
            for piece in snapshot.pieces(part) {
                clock.sleep_until(clock.now() + self.network.piece_takes()).await;
                if !self.network.in_touch(self.member, from) {
                    return Ok(false);
                }
                receiving.receive(part, offset, &piece).await?;
                offset += piece.len() as u64;
            }
            receiving.finish_part(part).await?;
        }
        Ok(true)
    }
}
