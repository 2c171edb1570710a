//! Who matches a key: single keys in a sorted map, ranges in an interval tree.
//!
//! ```text
//!                     ┌────────────[d, p) max=z─┐           stab(m):
//!              [b, f) max=k               [k, z) max=z        [d, p) hit → left? max k > m no
//!              ╱                                              → right: [k, z) hit
//!        [a, k) max=k
//! ```
//!
//! The tree is an AVL tree by (first key, end), so that no order of requests makes it deep. Each
//! node knows which end below it reaches farthest: a search leaves out what ends before the key.
//! O(log n + hits · log n).

use super::slab::Slab;
use crate::api::watch::Until;
use std::{cmp::Ordering, collections::BTreeMap, rc::Rc};

/// A key, shared by whoever names it.
pub(super) type Key = Rc<[u8]>;

/// Which keys.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Span {
    pub(super) from: Key,
    pub(super) until: Until<Key>,
}

impl Span {
    /// Copied: what a request is cut from may be much larger.
    pub(super) fn new(from: &[u8], until: &Until<bytes::Bytes>) -> Self {
        let until = match until {
            Until::Itself => Until::Itself,
            Until::Before(end) => Until::Before(end[..].into()),
            Until::Forever => Until::Forever,
        };
        Self { from: from.into(), until }
    }

    #[cfg(test)]
    pub(super) fn contains(&self, key: &[u8]) -> bool {
        match &self.until {
            Until::Itself => *key == *self.from,
            Until::Before(end) => *key >= *self.from && *key < **end,
            Until::Forever => *key >= *self.from,
        }
    }
}

/// From spans to a number each.
#[derive(Default)]
pub(super) struct Index {
    points: BTreeMap<Key, u32>,
    ranges: Intervals,
}

impl Index {
    /// The number of `span`.
    pub(super) fn get(&self, span: &Span) -> Option<u32> {
        match &span.until {
            Until::Itself => self.points.get(&*span.from).copied(),
            _ => self.ranges.get(span),
        }
    }

    /// Gives `span` a number, or another one.
    pub(super) fn set(&mut self, span: &Span, value: u32) {
        match &span.until {
            Until::Itself => {
                self.points.insert(span.from.clone(), value);
            }
            _ => self.ranges.set(span, value),
        }
    }

    /// Forgets `span`.
    pub(super) fn remove(&mut self, span: &Span) {
        match &span.until {
            Until::Itself => {
                self.points.remove(&*span.from);
            }
            _ => self.ranges.remove(span),
        }
    }

    /// Appends the numbers of all spans that contain `key`.
    pub(super) fn stab(&self, key: &[u8], hits: &mut Vec<u32>) {
        hits.extend(self.points.get(key));
        self.ranges.stab(self.ranges.root, key, hits);
    }
}

/// No node.
const NIL: u32 = u32::MAX;

struct Node {
    span: Span,
    value: u32,
    left: u32,
    right: u32,
    /// The node at or below this one whose span reaches farthest.
    farthest: u32,
    height: u8,
}

struct Intervals {
    nodes: Slab<Node>,
    root: u32,
}

impl Default for Intervals {
    fn default() -> Self {
        Self { nodes: Slab::new(), root: NIL }
    }
}

impl Intervals {
    fn find(&self, span: &Span) -> u32 {
        let mut at = self.root;
        while let Some(node) = self.nodes.get(at) {
            at = match span.cmp(&node.span) {
                Ordering::Less => node.left,
                Ordering::Equal => return at,
                Ordering::Greater => node.right,
            };
        }
        NIL
    }

    fn get(&self, span: &Span) -> Option<u32> {
        self.nodes.get(self.find(span)).map(|node| node.value)
    }

    fn set(&mut self, span: &Span, value: u32) {
        let found = self.find(span);
        if found != NIL {
            self.nodes[found].value = value;
            return;
        }
        let span = span.clone();
        let node = Node { span, value, left: NIL, right: NIL, farthest: NIL, height: 1 };
        let new = self.nodes.insert(node);
        self.nodes[new].farthest = new;
        self.root = self.insert(self.root, new);
    }

    /// The tree `at` with the node `new` in it.
    fn insert(&mut self, at: u32, new: u32) -> u32 {
        if at == NIL {
            return new;
        }
        if self.nodes[new].span < self.nodes[at].span {
            self.nodes[at].left = self.insert(self.nodes[at].left, new);
        } else {
            self.nodes[at].right = self.insert(self.nodes[at].right, new);
        }
        self.balanced(at)
    }

    fn remove(&mut self, span: &Span) {
        let gone = self.find(span);
        self.root = self.without(self.root, gone);
        self.nodes.remove(gone);
    }

    /// The tree `at` without the node `gone`, which is in it.
    fn without(&mut self, at: u32, gone: u32) -> u32 {
        let Node { left, right, .. } = self.nodes[at];
        if at == gone {
            if right == NIL {
                return left;
            }
            let (next, rest) = self.pop_first(right);
            self.nodes[next].left = left;
            self.nodes[next].right = rest;
            return self.balanced(next);
        }
        if self.nodes[gone].span < self.nodes[at].span {
            self.nodes[at].left = self.without(left, gone);
        } else {
            self.nodes[at].right = self.without(right, gone);
        }
        self.balanced(at)
    }

    /// The first node of the tree `at`, and what is left of the tree.
    fn pop_first(&mut self, at: u32) -> (u32, u32) {
        let Node { left, right, .. } = self.nodes[at];
        if left == NIL {
            return (at, right);
        }
        let (first, rest) = self.pop_first(left);
        self.nodes[at].left = rest;
        (first, self.balanced(at))
    }

    /// The tree `at`, whose children are right, made right itself: heights differ by one at most.
    fn balanced(&mut self, at: u32) -> u32 {
        let Node { left, right, .. } = self.nodes[at];
        let (below_left, below_right) = (self.height(left), self.height(right));
        if below_left > below_right + 1 {
            if self.height(self.nodes[left].left) < self.height(self.nodes[left].right) {
                self.nodes[at].left = self.turned_left(left);
            }
            return self.turned_right(at);
        }
        if below_right > below_left + 1 {
            if self.height(self.nodes[right].right) < self.height(self.nodes[right].left) {
                self.nodes[at].right = self.turned_right(right);
            }
            return self.turned_left(at);
        }
        self.sum_up(at);
        at
    }

    fn turned_right(&mut self, at: u32) -> u32 {
        let up = self.nodes[at].left;
        self.nodes[at].left = self.nodes[up].right;
        self.sum_up(at);
        self.nodes[up].right = at;
        self.sum_up(up);
        up
    }

    fn turned_left(&mut self, at: u32) -> u32 {
        let up = self.nodes[at].right;
        self.nodes[at].right = self.nodes[up].left;
        self.sum_up(at);
        self.nodes[up].left = at;
        self.sum_up(up);
        up
    }

    fn height(&self, at: u32) -> u8 {
        self.nodes.get(at).map_or(0, |node| node.height)
    }

    fn sum_up(&mut self, at: u32) {
        let Node { left, right, .. } = self.nodes[at];
        let height = 1 + self.height(left).max(self.height(right));
        let mut farthest = at;
        for child in [left, right] {
            let Some(child) = self.nodes.get(child) else { continue };
            if self.nodes[child.farthest].span.until > self.nodes[farthest].span.until {
                farthest = child.farthest;
            }
        }
        let node = &mut self.nodes[at];
        (node.height, node.farthest) = (height, farthest);
    }

    fn stab(&self, at: u32, key: &[u8], hits: &mut Vec<u32>) {
        let Some(node) = self.nodes.get(at) else { return };
        if !reaches(&self.nodes[node.farthest].span, key) {
            return;
        }
        self.stab(node.left, key, hits);
        if *node.span.from <= *key {
            if reaches(&node.span, key) {
                hits.push(node.value);
            }
            self.stab(node.right, key, hits);
        }
    }
}

/// Whether a range ends behind `key`. `Forever` is the greatest end there is.
fn reaches(span: &Span, key: &[u8]) -> bool {
    match &span.until {
        Until::Before(end) => **end > *key,
        Until::Forever => true,
        Until::Itself => unreachable!("single keys are in the other map"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz::Dice;

    fn word(dice: &mut Dice) -> Key {
        let letters = (0..=dice.below(3)).map(|_| b'a' + dice.below(4) as u8);
        letters.collect::<Vec<_>>().into()
    }

    fn span(dice: &mut Dice) -> Span {
        let (a, b) = (word(dice), word(dice));
        match dice.below(4) {
            0 => Span { from: a, until: Until::Itself },
            1 => Span { from: a, until: Until::Forever },
            _ if a < b => Span { from: a, until: Until::Before(b) },
            _ => Span { from: b, until: Until::Forever },
        }
    }

    /// Heights, order and farthest ends below `at`; gives back the height.
    fn check(tree: &Intervals, at: u32, spans: &mut Vec<Span>) -> u8 {
        let Some(node) = tree.nodes.get(at) else { return 0 };
        let begin = spans.len();
        let left = check(tree, node.left, spans);
        spans.push(node.span.clone());
        let right = check(tree, node.right, spans);
        assert!(left.abs_diff(right) <= 1, "as an AVL tree is");
        assert_eq!(node.height, 1 + left.max(right));
        let farthest = spans[begin..].iter().map(|span| &span.until).max();
        assert_eq!(Some(&tree.nodes[node.farthest].span.until), farthest);
        node.height
    }

    #[test]
    fn the_index_finds_what_a_list_finds() {
        let mut dice = Dice::new(7);
        let (mut index, mut list) = (Index::default(), BTreeMap::<Span, u32>::new());
        for round in 0..20_000_u32 {
            let span = span(&mut dice);
            if dice.once_in(if round % 4_000 < 2_000 { 3 } else { 2 }) {
                if list.remove(&span).is_some() {
                    index.remove(&span);
                }
            } else {
                list.insert(span.clone(), round);
                index.set(&span, round);
            }
            assert_eq!(index.get(&span), list.get(&span).copied());
            let key = word(&mut dice);
            let mut hits = Vec::new();
            index.stab(&key, &mut hits);
            hits.sort_unstable();
            let mut expected: Vec<_> =
                list.iter().filter(|(span, _)| span.contains(&key)).map(|(_, at)| *at).collect();
            expected.sort_unstable();
            assert_eq!(hits, expected);
            if round % 97 == 0 {
                let mut spans = Vec::new();
                check(&index.ranges, index.ranges.root, &mut spans);
                assert!(spans.is_sorted());
            }
        }
    }

    #[test]
    fn ranges_that_come_in_order_make_no_deep_tree() {
        let mut index = Index::default();
        for n in 0..10_000_u32 {
            let from: Key = n.to_be_bytes().to_vec().into();
            index.set(&Span { from, until: Until::Forever }, n);
        }
        assert!(index.ranges.height(index.ranges.root) <= 20, "1.44 log2 n");
    }
}
