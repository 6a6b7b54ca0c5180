//! A leaf of the tree: up to [`LEAF_KEYS`] keys with their values.
//!
//! ```text
//!   heads     ascending numbers, 8 bytes a key               searched
//!   order     position → entry                               moved when a key comes in between
//!   entries   start and length of the key, value             in the order they came, never moved
//!   keys      the bytes of all keys                          in the order they came
//! ```
//! `low` and `high` are the *fences*: the leaf holds the keys from `low` up to, not including, `high`. `low` never
//! changes; a split moves `high` down and names the new leaf in `next`.

use super::search::{AscendingKeys, PREFIX_BYTES_MAX, common_length, head_of, search};

/// Keys in a full leaf: their heads fill eight cache lines.
pub(super) const LEAF_KEYS: usize = 64;

/// A value that knows when it was changed last.
pub(crate) trait Stamped {
    /// The time of its last change; never goes back.
    fn stamp(&self) -> u64;

    /// Whether nothing is left of it since then.
    fn has_ended(&self) -> bool;
}

#[derive(Debug)]
struct Entry<V> {
    start: u32,
    length: u32,
    value: V,
}

/// What every search needs comes first: it is in the cache line of the lock, which has to be fetched anyway.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Leaf<V> {
    entries: Vec<Entry<V>>,
    prefix_length: u8,
    /// Where the last key came in: the next one often belongs right behind it.
    last_position: u8,
    prefix: [u8; PREFIX_BYTES_MAX],
    order: [u8; LEAF_KEYS],
    heads: [u64; LEAF_KEYS],
    /// The time of the last change here.
    stamp: u64,
    /// How many values have ended.
    ended: u8,
    keys: Vec<u8>,
    pub(super) low: Box<[u8]>,
    pub(super) high: Option<Box<[u8]>>,
    /// The leaf that begins at `high`.
    pub(super) next: Option<u32>,
}

impl<V> AscendingKeys for Leaf<V> {
    fn key(&self, position: usize) -> &[u8] {
        let entry = &self.entries[self.order[position] as usize];
        &self.keys[entry.start as usize..(entry.start + entry.length) as usize]
    }

    fn key_length(&self, position: usize) -> usize {
        self.entries[self.order[position] as usize].length as usize
    }
}

impl<V: Stamped> Leaf<V> {
    /// A leaf without keys that may hold those from `low` up to `high`, where `next` begins.
    pub(super) fn new(low: Box<[u8]>, high: Option<Box<[u8]>>, next: Option<u32>) -> Leaf<V> {
        Leaf {
            entries: Vec::new(),
            prefix_length: 0,
            last_position: 0,
            prefix: [0; PREFIX_BYTES_MAX],
            order: [0; LEAF_KEYS],
            heads: [0; LEAF_KEYS],
            stamp: 0,
            ended: 0,
            keys: Vec::new(),
            low,
            high,
            next,
        }
    }

    /// Puts a key behind all others. Keys cannot be searched before [`finish`](Self::finish).
    pub(super) fn append(&mut self, key: &[u8], value: V) {
        if self.entries.is_empty() {
            self.entries.reserve_exact(LEAF_KEYS);
            self.keys.reserve_exact(LEAF_KEYS * key.len());
        }
        self.note(&value);
        self.entries.push(Entry { start: self.keys.len() as u32, length: key.len() as u32, value });
        self.keys.extend_from_slice(key);
    }

    /// Notes a value that comes in.
    fn note(&mut self, value: &V) {
        self.stamp = self.stamp.max(value.stamp());
        self.ended += u8::from(value.has_ended());
    }

    /// Makes the keys that were appended, in ascending order, ready to be searched.
    pub(super) fn finish(&mut self) {
        let Some(last) = self.len().checked_sub(1) else { return };
        for position in 0..=last {
            self.order[position] = position as u8;
        }
        let first = self.key(0);
        let shared = common_length(&first[..first.len().min(PREFIX_BYTES_MAX)], self.key(last));
        let mut prefix = [0; PREFIX_BYTES_MAX];
        prefix[..shared].copy_from_slice(&first[..shared]);
        (self.prefix, self.prefix_length, self.last_position) = (prefix, shared as u8, last as u8);
        for position in 0..=last {
            self.heads[position] = head_of(&self.key(position)[shared..]);
        }
        self.keys.shrink_to_fit();
    }

    /// All values, with no order promised but that it is the same each time while no key comes in.
    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.entries.iter_mut().map(|entry| &mut entry.value)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.len() == LEAF_KEYS
    }

    fn prefix(&self) -> &[u8] {
        &self.prefix[..self.prefix_length as usize]
    }

    /// The position of a key, or the one it would have.
    pub(super) fn search(&self, key: &[u8]) -> Result<usize, usize> {
        search(self.prefix(), &self.heads[..self.len()], self, key)
    }

    /// The leaf to look in instead, if a split has moved `key` away.
    pub(super) fn moved_to(&self, key: &[u8]) -> Option<u32> {
        self.next.filter(|_| self.high.as_deref().is_some_and(|high| key >= high))
    }

    pub(super) fn value(&self, position: usize) -> &V {
        &self.entries[self.order[position] as usize].value
    }

    /// Changes a value.
    pub(super) fn change<R>(&mut self, position: usize, change: impl FnOnce(&mut V) -> R) -> R {
        let value = &mut self.entries[self.order[position] as usize].value;
        let had_ended = value.has_ended();
        let result = change(value);
        self.stamp = self.stamp.max(value.stamp());
        self.ended = self.ended - u8::from(had_ended) + u8::from(value.has_ended());
        result
    }

    /// The time of the last change here, or something later.
    pub(super) fn stamp(&self) -> u64 {
        self.stamp
    }

    /// Whether all values had ended by then.
    pub(super) fn is_over(&self, as_of: u64) -> bool {
        usize::from(self.ended) == self.len() && self.stamp <= as_of
    }

    /// Puts a key where [`search`](Self::search) said that it belongs. There must be room.
    pub(super) fn insert(&mut self, position: usize, key: &[u8], value: V) {
        let count = self.len();
        if count == 0 {
            let shared = key.len().min(PREFIX_BYTES_MAX);
            self.prefix[..shared].copy_from_slice(&key[..shared]);
            self.prefix_length = shared as u8;
        } else {
            let shared = common_length(self.prefix(), key);
            if shared < self.prefix_length as usize {
                self.shorten_prefix(shared);
            }
        }
        self.heads.copy_within(position..count, position + 1);
        self.order.copy_within(position..count, position + 1);
        self.heads[position] = head_of(&key[self.prefix_length as usize..]);
        self.order[position] = count as u8;
        self.last_position = position as u8;
        self.note(&value);
        self.entries.push(Entry { start: self.keys.len() as u32, length: key.len() as u32, value });
        self.keys.extend_from_slice(key);
    }

    fn shorten_prefix(&mut self, length: usize) {
        self.prefix_length = length as u8;
        for position in 0..self.len() {
            self.heads[position] = head_of(&self.key(position)[length..]);
        }
    }

    /// Puts a key into this full leaf by moving its upper part to a new leaf, which is returned. The caller connects the
    /// two: it gives the new leaf a number and names that in `next`.
    ///
    /// Keys that come in ascending order, here or at the end, leave full leaves behind; others leave half full ones.
    pub(super) fn split(&mut self, position: usize, key: &[u8], value: V) -> Leaf<V> {
        let is_ascending = position == self.last_position as usize + 1;
        let middle = if position == LEAF_KEYS || is_ascending { position } else { LEAF_KEYS / 2 };
        let mut moved: Vec<Option<Entry<V>>> = std::mem::take(&mut self.entries).into_iter().map(Some).collect();
        let (order, bytes) = (self.order, std::mem::take(&mut self.keys));
        let mut right = Leaf::new(Box::default(), self.high.take(), self.next.take());
        (self.prefix_length, self.ended) = (0, 0);
        for (from, index) in order.iter().enumerate() {
            let Some(entry) = moved[*index as usize].take() else { continue };
            let key = &bytes[entry.start as usize..(entry.start + entry.length) as usize];
            let target = if from < middle { &mut *self } else { &mut right };
            target.insert(target.len(), key, entry.value);
        }
        // At the border it joins the side that has more room: the left one takes no more if it is full.
        let goes_left = position < middle || (position == middle && middle < LEAF_KEYS);
        let (target, at) = if goes_left { (&mut *self, position) } else { (&mut right, position - middle) };
        target.insert(at, key, value);
        right.low = self.separator(right.key(0));
        self.high = Some(right.low.clone());
        right
    }

    /// The shortest string that is above all keys here and not above `next`, which is.
    pub(super) fn separator(&self, next: &[u8]) -> Box<[u8]> {
        let shared = self.len().checked_sub(1).map_or(0, |last| common_length(self.key(last), next));
        next[..=shared].into()
    }
}
