//! Many keys at once: collected in any order, sorted in runs that fit into the core's cache, and merged while they are read.
//!
//! ```text
//!   keys as they come   ├──── run ────┤├──── run ────┤├── run ──┤      64k keys each
//!   a full run            sorted by itself: nothing to do if they came in order; otherwise
//!                         the eight bytes behind what all have in common, as a number ─▶ radix sort
//!                         ─▶ equal ones by the rest of their keys ─▶ keys and things moved into that order
//!   reading               all runs are merged (see [`merge`](super::merge)); of equal keys the one that came last counts;
//!                         runs that follow one another are read one by one, and each is let go when it has been read
//! ```
//! Fresh memory is dear (the system clears each page), and so is a cache miss for every key: one sort over all of them would
//! cost several times their memory and two misses a key. Runs are sorted where nothing misses the cache, and the merge
//! reads each of them from its beginning to its end.

use super::merge::Merge;
use super::search::{common_length, head_of};

/// Keys of a run.
const RUN_KEYS: usize = 1 << 16;

/// A run of long keys ends before it has as many.
const RUN_BYTES: usize = 4 << 20;

/// Below this many, comparing is cheaper than counting bytes.
const RADIX_MIN: usize = 256;

#[derive(Debug, Clone, Copy)]
struct Item<T> {
    start: u32,
    length: u32,
    thing: T,
}

/// Keys with a thing each; in order, if the run is closed.
#[derive(Debug)]
pub(crate) struct Run<T> {
    bytes: Vec<u8>,
    items: Vec<Item<T>>,
}

impl<T> Default for Run<T> {
    fn default() -> Self {
        Run { bytes: Vec::new(), items: Vec::new() }
    }
}

impl<T: Copy> Run<T> {
    fn with_capacity(bytes: usize, keys: usize) -> Self {
        Run { bytes: Vec::with_capacity(bytes), items: Vec::with_capacity(keys) }
    }

    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    #[inline]
    pub(crate) fn key(&self, position: usize) -> &[u8] {
        let item = &self.items[position];
        &self.bytes[item.start as usize..][..item.length as usize]
    }

    #[inline]
    pub(crate) fn thing(&self, position: usize) -> T {
        self.items[position].thing
    }

    /// The first position from `from` on whose key is at least `key`.
    pub(crate) fn lower_bound(&self, key: &[u8], from: usize) -> usize {
        let later = &self.items[from..];
        from + later.partition_point(|item| &self.bytes[item.start as usize..][..item.length as usize] < key)
    }

    fn is_full(&self) -> bool {
        self.items.len() >= RUN_KEYS || self.bytes.len() >= RUN_BYTES
    }

    fn push(&mut self, key: &[u8], thing: T) {
        self.items.push(Item { start: self.bytes.len() as u32, length: key.len() as u32, thing });
        self.bytes.extend_from_slice(key);
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.items.clear();
    }

    fn is_ascending(&self) -> bool {
        (1..self.len()).all(|position| self.key(position - 1) < self.key(position))
    }

    /// The bytes that all keys begin with; they may be in any order.
    fn shared_length(&self) -> usize {
        let Some(first) = self.items.first().map(|_| self.key(0)) else { return 0 };
        (1..self.len()).fold(first.len(), |shared, position| common_length(&first[..shared], self.key(position)))
    }
}

/// Keys with a thing each, in runs.
#[derive(Debug)]
pub(crate) struct Runs<T> {
    closed: Vec<Run<T>>,
    open: Run<T>,
    sorter: Sorter,
}

impl<T> Default for Runs<T> {
    fn default() -> Self {
        Runs { closed: Vec::new(), open: Run::default(), sorter: Sorter::default() }
    }
}

impl<T: Copy> Runs<T> {
    /// Adds the key that `encode` appends to the buffer, with the thing that it returns.
    pub(crate) fn push<E>(&mut self, encode: impl FnOnce(&mut Vec<u8>) -> Result<T, E>) -> Result<(), E> {
        if self.open.is_full() {
            self.close();
        }
        let Run { bytes, items } = &mut self.open;
        let start = bytes.len();
        let thing = encode(bytes)?;
        items.push(Item { start: start as u32, length: (bytes.len() - start) as u32, thing });
        Ok(())
    }

    /// Ends the last run: what was pushed can be read.
    pub(crate) fn close(&mut self) {
        if self.open.len() == 0 {
            return;
        }
        let run = match self.sorter.sort(&self.open) {
            Some(sorted) => sorted,
            None => {
                let next = Run::with_capacity(self.open.bytes.len(), self.open.len());
                std::mem::replace(&mut self.open, next)
            }
        };
        self.open.clear();
        self.closed.push(run);
    }

    /// The closed runs.
    pub(crate) fn runs(&self) -> &[Run<T>] {
        &self.closed
    }

    /// The greatest key.
    pub(crate) fn greatest(&self) -> Option<&[u8]> {
        self.closed.iter().map(|run| run.key(run.len() - 1)).max()
    }

    /// Calls `visit` with all keys in ascending order and the thing that came last for each.
    pub(crate) fn into_each<E>(mut self, mut visit: impl FnMut(&[u8], T) -> Result<(), E>) -> Result<(), E> {
        self.close();
        if !self.follow_one_another() {
            return Merge::new(&self.closed).try_for_each(|(key, thing)| visit(key, thing));
        }
        // The memory of a run that has been read is what the next part of the outcome is made in.
        for run in self.closed {
            (0..run.len()).try_for_each(|position| visit(run.key(position), run.thing(position)))?;
        }
        Ok(())
    }

    /// Whether each closed run begins behind the end of the one before it.
    fn follow_one_another(&self) -> bool {
        self.closed.is_sorted_by(|before, run| before.key(before.len() - 1) < run.key(0))
    }

    /// Drops all things but the last of each key.
    pub(crate) fn condense(&mut self) {
        self.close();
        if self.follow_one_another() {
            return;
        }
        let (mut condensed, mut run) = (Vec::new(), Run::default());
        for (key, thing) in Merge::new(&self.closed) {
            if run.is_full() {
                let next = Run::with_capacity(run.bytes.len(), run.len());
                condensed.push(std::mem::replace(&mut run, next));
            }
            run.push(key, thing);
        }
        if run.len() > 0 {
            condensed.push(run);
        }
        self.closed = condensed;
    }

    /// The things of the closed runs.
    pub(crate) fn things_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.closed.iter_mut().flat_map(|run| run.items.iter_mut().map(|item| &mut item.thing))
    }
}

/// A key's number and the position of its item.
#[derive(Debug, Clone, Copy, Default)]
struct Head {
    head: u64,
    item: u32,
}

/// What sorting a run needs beside it, kept for the next one.
#[derive(Debug, Default)]
struct Sorter {
    heads: Vec<Head>,
    other: Vec<Head>,
}

impl Sorter {
    /// The run in order, of equal keys the last; `None` if it is that already.
    fn sort<T: Copy>(&mut self, run: &Run<T>) -> Option<Run<T>> {
        if run.is_ascending() {
            return None;
        }
        let shared = run.shared_length();
        self.heads.clear();
        let heads = (0..run.len()).map(|item| Head { head: head_of(&run.key(item)[shared..]), item: item as u32 });
        self.heads.extend(heads);
        match self.heads.len() < RADIX_MIN {
            true => self.heads.sort_by_key(|head| head.head),
            false => radix_sort(&mut self.heads, &mut self.other),
        }
        let heads = &mut self.heads;
        let mut start = 0;
        while start < heads.len() {
            let ties = heads[start..].iter().take_while(|other| other.head == heads[start].head).count();
            if ties > 1 {
                // Stable, so that equal keys stay in the order they came.
                let key = |head: &Head| run.key(head.item as usize);
                heads[start..start + ties].sort_by(|left, right| key(left).cmp(key(right)));
            }
            start += ties;
        }
        let mut sorted = Run::with_capacity(run.bytes.len(), run.len());
        for (position, head) in heads.iter().enumerate() {
            let (item, key) = (&run.items[head.item as usize], run.key(head.item as usize));
            let is_last =
                heads.get(position + 1).is_none_or(|next| next.head != head.head || run.key(next.item as usize) != key);
            if is_last {
                sorted.push(key, item.thing);
            }
        }
        Some(sorted)
    }
}

/// Sorts by the numbers, one byte after the other from the lowest on, passing over bytes that all have in common; equal
/// numbers stay in the order they came.
fn radix_sort(heads: &mut Vec<Head>, other: &mut Vec<Head>) {
    let mut counts = [[0_usize; 256]; size_of::<u64>()];
    for head in heads.iter() {
        for (counts, byte) in counts.iter_mut().zip(head.head.to_le_bytes()) {
            counts[byte as usize] += 1;
        }
    }
    let all = heads.len();
    other.resize(all, Head::default());
    for (digit, counts) in counts.iter().enumerate().filter(|(_, counts)| !counts.contains(&all)) {
        let mut places = [0; 256];
        let mut next = 0;
        for (place, count) in places.iter_mut().zip(counts) {
            *place = next;
            next += count;
        }
        for head in heads.iter() {
            let place = &mut places[(head.head >> (8 * digit)) as usize & 0xFF];
            other[*place] = *head;
            *place += 1;
        }
        std::mem::swap(heads, other);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    #[test]
    fn keys_come_out_in_order_and_the_last_of_equal_ones_counts() {
        for seed in 0..120_u64 {
            let mut random = StdRng::seed_from_u64(seed);
            let (mut runs, mut twin) = (Runs::default(), BTreeMap::new());
            let prefix: Vec<u8> = (0..seed % 20).map(|_| 7).collect();
            // Few different bytes make long ties, many make none.
            let highest: u8 = [1, 3, u8::MAX][seed as usize % 3];
            let is_ascending = seed % 10 == 9;
            // A run may end anywhere.
            let ends = [0.0, 0.0005, 0.01, 0.1][seed as usize % 4];
            for thing in 0..random.random_range(0..4 * RADIX_MIN as u32) {
                let mut key = prefix.clone();
                match is_ascending {
                    true => key.extend(thing.to_be_bytes()),
                    false => key.extend((0..random.random_range(0..22)).map(|_| random.random_range(0..=highest))),
                }
                let encoded = runs.push(|bytes| {
                    bytes.extend_from_slice(&key);
                    Ok::<u32, ()>(thing)
                });
                encoded.unwrap();
                twin.insert(key, thing);
                if random.random_bool(ends) {
                    runs.close();
                }
                if random.random_bool(0.001) {
                    runs.condense();
                }
            }
            runs.close();
            let merged = |runs: &Runs<u32>| {
                Merge::new(&runs.closed).map(|(key, thing)| (key.to_vec(), thing)).collect::<Vec<_>>()
            };
            let sorted = merged(&runs);
            assert_eq!(sorted, twin.into_iter().collect::<Vec<_>>(), "seed {seed}");
            assert_eq!(runs.greatest(), sorted.last().map(|(key, _)| key.as_slice()), "seed {seed}");
            runs.condense();
            assert_eq!(merged(&runs), sorted, "seed {seed}");
            assert_eq!(
                runs.things_mut().map(|thing| *thing).collect::<Vec<_>>(),
                sorted.iter().map(|(_, thing)| *thing).collect::<Vec<_>>()
            );
            if let [run] = runs.runs() {
                let (middle, from) = (sorted.len() / 2, sorted.len() / 3);
                assert_eq!(run.lower_bound(&sorted[middle].0, from), middle);
            }
            let mut visited = Vec::new();
            let visit = |key: &[u8], thing| {
                visited.push((key.to_vec(), thing));
                Ok::<(), ()>(())
            };
            runs.into_each(visit).unwrap();
            assert_eq!(visited, sorted, "seed {seed}");
        }
    }

    #[test]
    fn many_keys_make_several_runs() {
        let mut runs = Runs::default();
        let count = 3 * RUN_KEYS as u64 + 17;
        for number in 0..count {
            // An odd multiplier and a power of two: no order, and every number once in each round.
            let key = (number * 7_368_787) % (1 << 17);
            runs.push(|bytes| {
                bytes.extend_from_slice(&key.to_be_bytes());
                Ok::<u64, ()>(number)
            })
            .unwrap();
        }
        runs.close();
        assert_eq!(runs.runs().len(), 4);
        assert!(!runs.follow_one_another());
        let mut expected = vec![0; 1 << 17];
        (0..count).for_each(|number| expected[(number as usize * 7_368_787) % (1 << 17)] = number);
        let mut expected = expected.into_iter();
        let visit = |_: &[u8], number| if expected.next() == Some(number) { Ok(()) } else { Err(number) };
        assert_eq!(runs.into_each(visit), Ok(()));
        assert_eq!(expected.next(), None);
    }

    #[test]
    fn runs_of_ascending_keys_are_read_one_by_one() {
        let mut runs = Runs::default();
        let count = 2 * RUN_KEYS as u64 + 5;
        for number in 0..count {
            runs.push(|bytes| {
                bytes.extend_from_slice(&number.to_be_bytes());
                Ok::<u64, ()>(number)
            })
            .unwrap();
        }
        runs.condense();
        assert_eq!((runs.runs().len(), runs.follow_one_another()), (3, true));
        let mut next = 0;
        let visit = |_: &[u8], number| {
            next += 1;
            if number + 1 == next { Ok(()) } else { Err(number) }
        };
        assert_eq!(runs.into_each(visit), Ok(()));
        assert_eq!(next, count);
    }
}
