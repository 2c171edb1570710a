//! What Kubernetes asks of its store, in kind and proportion: leases of nodes, pods that come and go,
//! lists, gets, and watches open all the while.
//!
//! ```text
//!   ROOT/leases/kube-node-lease/node-NNNNNN    one for each node, swapped every ten seconds
//!   ROOT/pods/ns-NN/pod-NNNNNNNNN              created, its status swapped, and swapped away
//! ```
//!
//! The root is one run's own, and not `/registry`: nothing that a real cluster has there is touched.
//!
//! Kinds come by lot, the same in every run, each in proportion to its share: while each of a thousand
//! nodes renews its lease once, a hundred pods come, are updated three times and go. A pod is in one
//! operation at a time, so a swap is refused only where somebody else writes there too.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::{
    keys::lot,
    ops::{Chooser, Op, Ops},
    sizes::Sizes,
};

/// Kubernetes' period of a node's lease (`nodeLeaseDurationSeconds` / 4).
const LEASE_SECONDS: f64 = 10.0;
/// Of a lease object as stored.
const LEASE_BYTES: usize = 512;
/// Of a pod as stored: most are small, some carry long specifications.
const POD_BYTES: [(f64, usize); 3] = [(50.0, 2048), (40.0, 4096), (10.0, 16_384)];
const POD_BYTES_MAX: usize = 16_384;
/// Namespaces that pods are spread over.
const NAMESPACES: u64 = 20;
/// The page of every list that the API server's clients make by default.
const LIST_LIMIT: usize = 500;
/// How many of each kind are due while each of a thousand nodes renews its lease once: the kinds are
/// what the API server asks for; that a pod lives for ten renewals of a node is a choice.
const SHARES: [(&str, u64); 6] = [
    ("node lease", 1000),
    ("pod create", 100),
    ("pod status", 300),
    ("pod delete", 100),
    ("pod get", 200),
    ("pod list", 2),
];
const NODES_OF_SHARES: f64 = 1000.0;

const NODE_LEASE: usize = 0;
const POD_CREATE: usize = 1;
const POD_STATUS: usize = 2;
const POD_DELETE: usize = 3;
const POD_GET: usize = 4;
const POD_LIST: usize = 5;

/// Operations a second that so many nodes cause.
pub fn rate(nodes: u64) -> f64 {
    let sum: u64 = SHARES.iter().map(|(_, share)| share).sum();
    sum as f64 * nodes as f64 / NODES_OF_SHARES / LEASE_SECONDS
}

/// Who asks the store: nodes and their pods.
#[derive(Debug)]
pub struct Kubernetes {
    root: String,
    nodes: u64,
    /// The node whose lease comes next.
    node: u64,
    /// Pods that are there and of which no operation is open, oldest first.
    pods: VecDeque<Bytes>,
    /// The pod that is created next.
    pod: u64,
    turn: u64,
    sizes: Sizes,
    /// How many operations fill the store before the mix begins.
    filling: u64,
}

impl Kubernetes {
    /// So many nodes and pods, which the first [`Self::filling`] operations create. No key under the
    /// root is anybody else's.
    pub fn new(root: &str, nodes: u64, pods: u64) -> Ops<Self> {
        assert!(nodes > 0, "there is a node");
        let mix = Self {
            root: root.into(),
            nodes,
            node: 0,
            pods: VecDeque::new(),
            pod: 0,
            turn: 0,
            sizes: Sizes::Weighted(POD_BYTES.into()),
            filling: nodes + pods,
        };
        Ops::new(mix, POD_BYTES_MAX)
    }

    /// How many operations are left that fill the store.
    pub fn filling(&self) -> u64 {
        self.filling
    }

    /// What is watched, as the API server does.
    pub fn watched(&self) -> [String; 2] {
        ["pods", "leases"].map(|kind| format!("{}/{kind}/", self.root))
    }

    fn lease(&mut self) -> (usize, Op) {
        let node = self.node;
        self.node = (node + 1) % self.nodes;
        let key = format!("{}/leases/kube-node-lease/node-{node:06}", self.root);
        (NODE_LEASE, Op::Swap(key.into(), LEASE_BYTES))
    }

    fn create(&mut self) -> (usize, Op) {
        let pod = self.pod;
        self.pod += 1;
        let key = format!("{}/pods/ns-{:02}/pod-{pod:09}", self.root, lot(pod) % NAMESPACES);
        (POD_CREATE, Op::Create(key.into(), self.sizes.draw(pod)))
    }

    /// A pod by lot.
    fn any(&mut self) -> Option<usize> {
        let count = self.pods.len();
        (count > 0).then(|| lot(self.turn ^ 1 << 40) as usize % count)
    }

    fn mixed(&mut self, kind: usize) -> (usize, Op) {
        let any = self.any();
        let op = match (kind, any) {
            (NODE_LEASE, _) => return self.lease(),
            (POD_LIST, _) => {
                Op::List { prefix: format!("{}/pods/", self.root).into(), limit: LIST_LIMIT }
            }
            (POD_STATUS, Some(any)) => {
                let pod = self.pods.swap_remove_back(any).expect("it is one of them");
                Op::Swap(pod, self.sizes.draw(self.turn))
            }
            (POD_DELETE, Some(_)) => Op::SwapDelete(self.pods.pop_front().expect("there is one")),
            (POD_GET, Some(any)) => Op::Get { key: self.pods[any].clone(), serializable: false },
            // Without a pod there is none to do anything with.
            _ => return self.create(),
        };
        (kind, op)
    }
}

/// A kind by lot, in proportion to its share.
fn kind(turn: u64) -> usize {
    let sum: u64 = SHARES.iter().map(|(_, share)| share).sum();
    let mut left = lot(turn) % sum;
    SHARES
        .iter()
        .position(|(_, share)| {
            let here = left < *share;
            left = left.saturating_sub(*share);
            here
        })
        .expect("the lot is below the sum")
}

impl Chooser for Kubernetes {
    fn kinds(&self) -> Vec<&'static str> {
        SHARES.iter().map(|(kind, _)| *kind).collect()
    }

    fn choose(&mut self) -> (usize, Op) {
        if self.filling > 0 {
            self.filling -= 1;
            return if self.filling < self.nodes { self.lease() } else { self.create() };
        }
        self.turn += 1;
        self.mixed(kind(self.turn))
    }

    fn done(&mut self, kind: usize, op: &Op, well: bool) {
        match (kind, op) {
            (POD_CREATE, Op::Create(pod, _)) if well => self.pods.push_back(pod.clone()),
            // Whether a swap that failed was made or not, the pod is there.
            (POD_STATUS, Op::Swap(pod, _)) => self.pods.push_back(pod.clone()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thousand_nodes_cause_what_their_shares_say() {
        assert!((rate(1000) - 170.2).abs() < 1e-9);
        let mut counts = [0u64; SHARES.len()];
        (0..170_200).for_each(|turn| counts[kind(turn)] += 1);
        for (count, (name, share)) in counts.iter().zip(SHARES) {
            let off = (*count as f64 / (share * 100) as f64 - 1.0).abs();
            assert!(off < 0.15, "{name}: {count}");
        }
    }

    #[test]
    fn a_pod_is_in_one_operation_at_a_time_and_comes_before_it_goes() {
        let mut ops = Kubernetes::new("/a", 10, 20);
        let mix = ops.chooser();
        let mut there = std::collections::BTreeSet::new();
        let mut kinds = [0; SHARES.len()];
        for turn in 0..5000 {
            let (kind, op) = mix.choose();
            kinds[kind] += 1;
            match &op {
                Op::Create(pod, _) => assert!(there.insert(pod.clone()), "created once"),
                Op::SwapDelete(pod) => assert!(there.remove(pod), "deleted once"),
                Op::Get { key, .. } => assert!(there.contains(key)),
                Op::Swap(pod, _) if kind == POD_STATUS => {
                    assert!(there.contains(pod) && !mix.pods.contains(pod));
                }
                _ => {}
            }
            assert_eq!(mix.filling() > 0, turn < 29, "the first thirty fill");
            mix.done(kind, &op, true);
        }
        assert!(kinds.iter().all(|count| *count > 0), "{kinds:?}");
    }

    #[test]
    fn each_node_renews_its_lease_in_turn() {
        let mut ops = Kubernetes::new("/a", 3, 0);
        let mix = ops.chooser();
        let leases: Vec<_> = (0..3).map(|_| mix.choose().1).collect();
        for (node, op) in leases.iter().enumerate() {
            let key = format!("/a/leases/kube-node-lease/node-{node:06}");
            assert_eq!(*op, Op::Swap(key.into(), LEASE_BYTES));
        }
    }
}
