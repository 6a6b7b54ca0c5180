//! An ordered map from byte strings for many readers and several writers.
//!
//! ```text
//!   root          [ "" │ "d" │ "m" │ "t" ]                 immutable, replaced (one for the tree)
//!                   │     │     │     └──────┐
//!   branches      [ "" │ "b" │ "ca" ]   [ "t" │ "ti" │ "w" ]   immutable, replaced, a few hundred leaves each
//!                   │     │     │          │
//!   leaves        ▒▒▒▒▒ ▒▒▒▒▒ ▒▒▒▒▒ ───▶ ▒▒▒▒▒ ───▶ ▒▒▒▒▒      64 keys, a lock each, linked to the right
//! ```
//! A look-up of one of a million keys has two cheap steps and one dear one. Root and branches together are half a
//! megabyte and stay in the core's cache; reading them takes no lock and no shared counter. The leaf costs about five
//! cache misses: its head with the lock, the lines of its 8-byte heads, all at once (see [`search`](super::search)),
//! and the entry. A skip list costs two misses at each of its twenty levels.
//!
//! Readers share a leaf's lock and writers have it for themselves, for the time it takes to look at or move some bytes;
//! nobody's code runs under it but what copies a value. A writer that splits a leaf connects the new one to the right of
//! the old one before it lets go of the lock, and only then tells the branch. Whoever comes by an older branch sees from
//! the leaf's fence that the key has moved, and follows the link (Lehman and Yao, 1981). Nothing is ever removed or
//! merged, so a leaf that was found once stays the place to start from.

use std::ops::{Bound, ControlFlow};

use super::directory::Directory;
use super::leaf::{LEAF_KEYS, Leaf, Stamped};
use super::search::AscendingKeys;
use super::slab::Slab;
use crate::sync::{ArcSwap, Mutex, RwLock};

/// Children of a branch before it is cut in two. A new leaf copies its branch: a few kilobytes for every 32 keys or more.
const BRANCH_LEAVES_MAX: usize = 192;

/// Entries a walk copies under the first lock it takes; each further time it copies twice as many, up to a leaf's.
const FIRST_COPIES: usize = 8;

#[derive(Debug)]
pub(crate) struct Tree<V> {
    root: ArcSwap<Directory>,
    branches: Slab<ArcSwap<Directory>>,
    leaves: Slab<RwLock<Leaf<V>>>,
    /// Held while branches and the root are replaced.
    growing: Mutex<()>,
}

impl<V: Stamped> Default for Tree<V> {
    fn default() -> Self {
        let tree = Tree::empty();
        tree.leaves.push(RwLock::new(Leaf::new(Box::default(), None, None)));
        tree.connect([(Box::default(), 0)]);
        tree
    }
}

impl<V: Stamped> Tree<V> {
    fn empty() -> Tree<V> {
        Tree {
            root: ArcSwap::from_pointee(Directory::default()),
            branches: Slab::default(),
            leaves: Slab::default(),
            growing: Mutex::new(()),
        }
    }

    /// Makes root and branches for these leaves.
    fn connect(&self, leaves: impl IntoIterator<Item = (Box<[u8]>, u32)>) {
        let leaves: Vec<(Box<[u8]>, u32)> = leaves.into_iter().collect();
        let mut branches: Vec<(&[u8], u32)> = Vec::new();
        for some in leaves.chunks(BRANCH_LEAVES_MAX / 2) {
            let branch = Directory::new(some.iter().map(|(low, leaf)| (low.as_ref(), *leaf)));
            branches.push((&some[0].0, self.branches.push(ArcSwap::from_pointee(branch))));
        }
        self.root.store(std::sync::Arc::new(Directory::new(branches)));
    }

    /// Calls `change` with the values of each leaf, from the first leaf to the last. Nobody else has the tree yet. Of one
    /// that a [`TreeBuilder`] has made, they come in the order of the keys.
    pub(crate) fn for_each_leaf(&mut self, mut change: impl FnMut(&mut dyn Iterator<Item = &mut V>)) {
        self.leaves.for_each_mut(|leaf| change(&mut leaf.get_mut().values_mut()));
    }

    /// The leaf that holds a key, or one to the left of it.
    fn leaf_of(&self, key: &[u8]) -> u32 {
        let branch = self.root.load().child(key);
        self.branches.get(branch).load().child(key)
    }

    /// Looks at a key's value.
    pub(crate) fn get<R>(&self, key: &[u8], look: impl FnOnce(&V) -> R) -> Option<R> {
        let mut number = self.leaf_of(key);
        loop {
            let leaf = self.leaves.get(number).read();
            match leaf.search(key) {
                Ok(position) => return Some(look(leaf.value(position))),
                // Only a key behind the last one can have moved.
                Err(position) if position == leaf.len() => number = leaf.moved_to(key)?,
                Err(_) => return None,
            }
        }
    }

    /// Changes a key's value. If it has none, `change` gets `None` and may return one to put in.
    pub(crate) fn change<R>(&self, key: &[u8], change: impl FnOnce(Option<&mut V>) -> (Option<V>, R)) -> R {
        let mut number = self.leaf_of(key);
        loop {
            let mut leaf = self.leaves.get(number).write();
            let position = match leaf.search(key) {
                Ok(position) => return leaf.change(position, |value| change(Some(value)).1),
                Err(position) => position,
            };
            if position == leaf.len()
                && let Some(next) = leaf.moved_to(key)
            {
                number = next;
                continue;
            }
            let (new, result) = change(None);
            let Some(value) = new else { return result };
            if !leaf.is_full() {
                leaf.insert(position, key, value);
                return result;
            }
            let right = leaf.split(position, key, value);
            let low = right.low.clone();
            let right = self.leaves.push(RwLock::new(right));
            leaf.next = Some(right);
            drop(leaf);
            self.announce(&low, right);
            return result;
        }
    }

    /// How many leaves there are.
    #[cfg(test)]
    pub(super) fn leaf_count(&self) -> u32 {
        self.leaves.len()
    }

    /// Tells the branch about a new leaf.
    fn announce(&self, low: &[u8], leaf: u32) {
        let _growing = self.growing.lock();
        let root = self.root.load_full();
        let branch = self.branches.get(root.child(low));
        let grown = branch.load().with(low, leaf);
        if grown.len() <= BRANCH_LEAVES_MAX {
            branch.store(std::sync::Arc::new(grown));
            return;
        }
        let (lower, separator, upper) = grown.halves();
        let upper = self.branches.push(ArcSwap::from_pointee(upper));
        // Until the old branch gives its upper half up, both have it.
        self.root.store(std::sync::Arc::new(root.with(&separator, upper)));
        branch.store(std::sync::Arc::new(lower));
    }

    /// Visits the keys between two bounds in ascending or descending order. What `keep` makes of a value, if anything,
    /// is copied under the leaf's lock; `visit` is called without locks and may stop the walk. `keep` wants none of what had
    /// ended `as_of` some time: leaves with nothing else are passed over. In a queue they are those that come first.
    pub(crate) fn walk<T>(
        &self,
        bounds: (Bound<&[u8]>, Bound<&[u8]>),
        descending: bool,
        as_of: u64,
        mut keep: impl FnMut(&V) -> Option<T>,
        mut visit: impl FnMut(&[u8], T) -> ControlFlow<()>,
    ) {
        match descending {
            true => self.walk_by(At::Bound(bounds.1.map(Box::from)), &mut visit, |at, limit, copies| {
                self.copy_descending(at, bounds.0, as_of, limit, &mut keep, copies)
            }),
            false => self.walk_by(At::Bound(bounds.0.map(Box::from)), &mut visit, |at, limit, copies| {
                self.copy_ascending(at, bounds.1, Wanted::Left(as_of), limit, &mut keep, copies)
            }),
        }
    }

    /// As [`walk`](Self::walk), in ascending order, for the values that were changed after `since`. Leaves without any
    /// are passed over.
    pub(crate) fn walk_since<T>(
        &self,
        since: u64,
        bounds: (Bound<&[u8]>, Bound<&[u8]>),
        mut keep: impl FnMut(&V) -> Option<T>,
        mut visit: impl FnMut(&[u8], T) -> ControlFlow<()>,
    ) {
        self.walk_by(At::Bound(bounds.0.map(Box::from)), &mut visit, |at, limit, copies| {
            self.copy_ascending(at, bounds.1, Wanted::Changed(since), limit, &mut keep, copies)
        });
    }

    fn walk_by<T>(
        &self,
        mut at: At,
        visit: &mut impl FnMut(&[u8], T) -> ControlFlow<()>,
        mut copy: impl FnMut(&At, usize, &mut Copies<T>) -> Option<At>,
    ) {
        let mut copies = Copies { keys: Vec::new(), kept: Vec::new() };
        let mut limit = FIRST_COPIES;
        loop {
            let next = copy(&at, limit, &mut copies);
            let mut start = 0;
            for (end, kept) in copies.kept.drain(..) {
                if visit(&copies.keys[start..end], kept).is_break() {
                    return;
                }
                start = end;
            }
            copies.keys.clear();
            match next {
                Some(next) => at = next,
                None => return,
            }
            limit = (2 * limit).min(LEAF_KEYS);
        }
    }

    fn copy_ascending<T>(
        &self,
        at: &At,
        end: Bound<&[u8]>,
        wanted: Wanted,
        limit: usize,
        keep: &mut impl FnMut(&V) -> Option<T>,
        copies: &mut Copies<T>,
    ) -> Option<At> {
        let mut number = match at {
            At::Leaf(number) => *number,
            At::Bound(Bound::Included(key) | Bound::Excluded(key)) => self.leaf_of(key),
            At::Bound(Bound::Unbounded) => self.leaf_of(b""),
        };
        let (leaf, start) = loop {
            let leaf = self.leaves.get(number).read();
            let (key, start) = match at {
                At::Leaf(_) | At::Bound(Bound::Unbounded) => break (leaf, 0),
                At::Bound(Bound::Included(key)) => (key, leaf.search(key).unwrap_or_else(|position| position)),
                At::Bound(Bound::Excluded(key)) => {
                    (key, leaf.search(key).map_or_else(|position| position, |position| position + 1))
                }
            };
            match leaf.moved_to(key).filter(|_| start == leaf.len()) {
                Some(next) => number = next,
                None => break (leaf, start),
            }
        };
        let (behind, since) = match wanted {
            Wanted::Left(as_of) if leaf.is_over(as_of) => (start, None),
            Wanted::Changed(since) if leaf.stamp() <= since => (start, None),
            Wanted::Left(_) => (leaf.len(), None),
            Wanted::Changed(since) => (leaf.len(), Some(since)),
        };
        let is_wanted = |position: &usize| since.is_none_or(|since| leaf.value(*position).stamp() > since);
        for position in (start..behind).filter(is_wanted) {
            let key = leaf.key(position);
            let is_inside = match end {
                Bound::Included(end) => key <= end,
                Bound::Excluded(end) => key < end,
                Bound::Unbounded => true,
            };
            if !is_inside {
                return None;
            }
            if let Some(kept) = keep(leaf.value(position)) {
                copies.push(key, kept);
                if copies.kept.len() == limit {
                    return Some(At::Bound(Bound::Excluded(key.into())));
                }
            }
        }
        let ends_here = match (leaf.high.as_deref(), end) {
            (Some(high), Bound::Included(end)) => end < high,
            (Some(high), Bound::Excluded(end)) => end <= high,
            (_, Bound::Unbounded) | (None, _) => false,
        };
        leaf.next.filter(|_| !ends_here).map(At::Leaf)
    }

    fn copy_descending<T>(
        &self,
        at: &At,
        end: Bound<&[u8]>,
        as_of: u64,
        limit: usize,
        keep: &mut impl FnMut(&V) -> Option<T>,
        copies: &mut Copies<T>,
    ) -> Option<At> {
        let root = self.root.load();
        let mut number = match at {
            At::Leaf(number) => *number,
            At::Bound(Bound::Included(key)) => self.leaf_of(key),
            At::Bound(Bound::Excluded(key)) => self.branches.get(root.child_below(key)).load().child_below(key),
            At::Bound(Bound::Unbounded) => self.branches.get(root.last_child()).load().last_child(),
        };
        let (leaf, behind) = loop {
            let leaf = self.leaves.get(number).read();
            // A leaf that ends at an excluded bound is the right one; others that end before it have been split.
            let (next, behind) = match at {
                At::Leaf(_) => break (leaf, 0),
                At::Bound(Bound::Unbounded) => (leaf.next, leaf.len()),
                At::Bound(Bound::Included(key)) => {
                    (leaf.moved_to(key), leaf.search(key).map_or_else(|position| position, |position| position + 1))
                }
                At::Bound(Bound::Excluded(key)) => {
                    let ends_before = leaf.high.as_deref().is_some_and(|high| high < &key[..]);
                    (leaf.next.filter(|_| ends_before), leaf.search(key).unwrap_or_else(|position| position))
                }
            };
            match next {
                Some(next) => number = next,
                None => break (leaf, behind),
            }
        };
        let behind = if leaf.is_over(as_of) { 0 } else { behind };
        for position in (0..behind).rev() {
            let key = leaf.key(position);
            let is_inside = match end {
                Bound::Included(end) => key >= end,
                Bound::Excluded(end) => key > end,
                Bound::Unbounded => true,
            };
            if !is_inside {
                return None;
            }
            if let Some(kept) = keep(leaf.value(position)) {
                copies.push(key, kept);
                if copies.kept.len() == limit {
                    return Some(At::Bound(Bound::Excluded(key.into())));
                }
            }
        }
        let ends_here = match end {
            Bound::Included(end) | Bound::Excluded(end) => leaf.low.as_ref() <= end,
            Bound::Unbounded => leaf.low.is_empty(),
        };
        (!ends_here).then(|| At::Bound(Bound::Excluded(leaf.low.clone())))
    }
}

/// A tree in the making, of keys that come in ascending order, without duplicates: nothing is searched and every leaf is
/// full.
#[derive(Debug)]
pub(crate) struct TreeBuilder<V> {
    tree: Tree<V>,
    /// Where each leaf begins.
    lows: Vec<(Box<[u8]>, u32)>,
    leaf: Leaf<V>,
}

impl<V: Stamped> Default for TreeBuilder<V> {
    fn default() -> Self {
        TreeBuilder { tree: Tree::empty(), lows: Vec::new(), leaf: Leaf::new(Box::default(), None, None) }
    }
}

impl<V: Stamped> TreeBuilder<V> {
    pub(crate) fn push(&mut self, key: &[u8], value: V) {
        if self.leaf.is_full() {
            self.begin_leaf(key);
        }
        self.leaf.append(key, value);
    }

    /// Ends the leaf; `key` is the first of the next one.
    fn begin_leaf(&mut self, key: &[u8]) {
        self.leaf.finish();
        let low = self.leaf.separator(key);
        let number = self.lows.len() as u32;
        (self.leaf.high, self.leaf.next) = (Some(low.clone()), Some(number + 1));
        self.lows.push((self.leaf.low.clone(), number));
        let full = std::mem::replace(&mut self.leaf, Leaf::new(low, None, None));
        self.tree.leaves.push(RwLock::new(full));
    }

    pub(crate) fn finish(mut self) -> Tree<V> {
        self.leaf.finish();
        self.lows.push((self.leaf.low.clone(), self.lows.len() as u32));
        self.tree.leaves.push(RwLock::new(self.leaf));
        self.tree.connect(self.lows);
        self.tree
    }
}

/// The values that a walk in ascending order looks at.
#[derive(Clone, Copy)]
enum Wanted {
    /// All but those that had ended as of some time.
    Left(u64),
    /// Those that were changed after some time.
    Changed(u64),
}

/// Where a walk goes on.
enum At {
    Bound(Bound<Box<[u8]>>),
    /// At the first key of a leaf.
    Leaf(u32),
}

/// Entries copied out of a leaf.
struct Copies<T> {
    keys: Vec<u8>,
    /// Where each one's key ends in `keys`, and what was kept of its value.
    kept: Vec<(usize, T)>,
}

impl<T> Copies<T> {
    fn push(&mut self, key: &[u8], kept: T) {
        self.keys.extend_from_slice(key);
        self.kept.push((self.keys.len(), kept));
    }
}
