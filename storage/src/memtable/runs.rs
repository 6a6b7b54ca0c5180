//! Many keys at once: collected in any order, sorted in runs that fit into the core's cache, and merged while they are read.
//!
//! ```text
//!   keys as they come   ├──── run ────┤├──── run ────┤├── run ──┤      32k keys each
//!   a full run            sorted by itself: nothing to do if they came in order; otherwise
//!                         the bits in which they differ, as a number (see [`differing`](super::differing)) ─▶ sorted
//!                         ─▶ equal ones by their keys ─▶ keys and things moved into that order
//!   reading               all runs are merged (see [`merge`](super::merge)); of equal keys the one that came last counts;
//!                         runs that follow one another are read one by one, and each is let go when it has been read
//! ```
//! Fresh memory is dear (the system clears each page), and so is a cache miss for every key: one sort over all of them would
//! cost several times their memory and two misses a key. Runs are sorted where nothing misses the cache, and the merge
//! reads each of them from its beginning to its end.

use std::ops::Range;

use super::differing::{Codes, Differing};
use super::merge::Merge;
use super::radix;

/// Keys of a run, and the bits that number them.
const RUN_KEYS: usize = 1 << RUN_KEY_BITS;
const RUN_KEY_BITS: u32 = 15;

/// A run of long keys ends before it has as many.
const RUN_BYTES: usize = 2 << 20;

/// Where keys lie that were written one behind the other.
#[derive(Debug)]
enum Bounds {
    /// Each has this many bytes.
    Stride(usize),
    /// Where each ends.
    Ends(Vec<u32>),
}

/// Keys with a thing each; in order, if the run is closed.
#[derive(Debug)]
pub(crate) struct Run<T> {
    bytes: Vec<u8>,
    bounds: Bounds,
    things: Vec<T>,
    /// What sorting has found out.
    differing: Option<Differing>,
}

impl<T> Default for Run<T> {
    fn default() -> Self {
        Run { bytes: Vec::new(), bounds: Bounds::Stride(0), things: Vec::new(), differing: None }
    }
}

impl<T: Copy> Run<T> {
    /// An empty run with room for as much as another one has.
    fn with_room_for(other: &Run<T>) -> Self {
        let bounds = match &other.bounds {
            Bounds::Stride(_) => Bounds::Stride(0),
            Bounds::Ends(ends) => Bounds::Ends(Vec::with_capacity(ends.len())),
        };
        let (bytes, things) = (Vec::with_capacity(other.bytes.len()), Vec::with_capacity(other.len()));
        Run { bytes, bounds, things, differing: None }
    }

    pub(crate) fn len(&self) -> usize {
        self.things.len()
    }

    #[inline]
    pub(crate) fn key(&self, position: usize) -> &[u8] {
        let range = match &self.bounds {
            Bounds::Stride(stride) => position * stride..(position + 1) * stride,
            Bounds::Ends(ends) => {
                let start = if position == 0 { 0 } else { ends[position - 1] as usize };
                start..ends[position] as usize
            }
        };
        &self.bytes[range]
    }

    #[inline]
    pub(crate) fn thing(&self, position: usize) -> T {
        self.things[position]
    }

    pub(super) fn things(&self, positions: Range<usize>) -> &[T] {
        &self.things[positions]
    }

    /// The first position from `from` on whose key is at least `key`.
    pub(crate) fn lower_bound(&self, key: &[u8], from: usize) -> usize {
        let (mut low, mut high) = (from, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.key(middle) < key { low = middle + 1 } else { high = middle }
        }
        low
    }

    fn is_full(&self) -> bool {
        self.len() >= RUN_KEYS || self.bytes.len() >= RUN_BYTES
    }

    #[inline]
    fn push(&mut self, key: &[u8], thing: T) {
        self.bytes.extend_from_slice(key);
        self.end_key(key.len(), thing);
    }

    /// Ends a key of this length, which has been written.
    #[inline]
    fn end_key(&mut self, length: usize, thing: T) {
        let end = self.bytes.len() as u32;
        match &mut self.bounds {
            Bounds::Stride(stride) if *stride == length => {}
            Bounds::Stride(stride) if self.things.is_empty() => *stride = length,
            Bounds::Stride(stride) => {
                let ends = (1..=self.things.len()).map(|keys| (keys * *stride) as u32);
                self.bounds = Bounds::Ends(ends.chain([end]).collect());
            }
            Bounds::Ends(ends) => ends.push(end),
        }
        self.things.push(thing);
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.things.clear();
        match &mut self.bounds {
            Bounds::Stride(stride) => *stride = 0,
            Bounds::Ends(ends) => ends.clear(),
        }
    }

    fn is_ascending(&self) -> bool {
        (1..self.len()).all(|position| self.key(position - 1) < self.key(position))
    }

    /// Adds the run's keys to what is known of others.
    pub(super) fn note_in(&self, differing: &mut Differing) {
        match &self.differing {
            Some(known) => differing.note_all(known),
            None => (0..self.len()).for_each(|position| differing.note(self.key(position))),
        }
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
        let start = self.open.bytes.len();
        let thing = encode(&mut self.open.bytes)?;
        self.open.end_key(self.open.bytes.len() - start, thing);
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
                let next = Run::with_room_for(&self.open);
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

    /// How many keys there are, and how many different ones, about.
    pub(crate) fn counts(&mut self) -> (usize, usize) {
        self.close();
        let all: usize = self.closed.iter().map(Run::len).sum();
        if self.follow_one_another() {
            return (all, all);
        }
        let (sampled, different) = Merge::new(&self.closed).sample();
        (all, all * different / sampled.max(1))
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
                let next = Run::with_room_for(&run);
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
        self.closed.iter_mut().flat_map(|run| run.things.iter_mut())
    }
}

/// What sorting a run needs beside it, kept for the next one: the codes of keys, each with the number of its key in the low bits.
#[derive(Debug, Default)]
struct Sorter {
    numbers: Vec<u64>,
    other: Vec<u64>,
}

impl Sorter {
    /// The run in order, of equal keys the last; `None` if it is that already.
    fn sort<T: Copy>(&mut self, run: &Run<T>) -> Option<Run<T>> {
        if run.is_ascending() {
            return None;
        }
        let mut differing = Differing::default();
        run.note_in(&mut differing);
        let codes = Codes::new(&differing, u64::BITS - RUN_KEY_BITS);
        let numbers = (0..run.len()).map(|key| codes.of(run.key(key)) << RUN_KEY_BITS | key as u64);
        self.numbers.clear();
        self.numbers.extend(numbers);
        radix::sort(&mut self.numbers, &mut self.other, codes.bits(), |number| number >> RUN_KEY_BITS);
        let position = |number: &u64| (number & (RUN_KEYS as u64 - 1)) as usize;
        if !codes.are_exact() {
            let key = |number: &u64| run.key(position(number));
            let ties = self.numbers.chunk_by_mut(|left, right| left >> RUN_KEY_BITS == right >> RUN_KEY_BITS);
            // Stable, so that equal keys stay in the order they came.
            ties.filter(|ties| ties.len() > 1).for_each(|ties| ties.sort_by(|left, right| key(left).cmp(key(right))));
        }
        let mut sorted = Run::with_room_for(run);
        for (index, number) in self.numbers.iter().enumerate() {
            let key = run.key(position(number));
            let is_replaced = self.numbers.get(index + 1).is_some_and(|next| {
                next >> RUN_KEY_BITS == number >> RUN_KEY_BITS && (codes.are_exact() || run.key(position(next)) == key)
            });
            if !is_replaced {
                sorted.push(key, run.thing(position(number)));
            }
        }
        sorted.differing = Some(differing);
        Some(sorted)
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
            for thing in 0..random.random_range(0..1_024_u32) {
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
    fn many_keys_make_several_runs_that_are_read_in_stretches() {
        const KEYS: usize = 1 << 16;
        // Of the last one no code says all.
        for suffix in [&b""[..], b"the same for all", b"\0\0"] {
            let mut runs = Runs::default();
            let count = 3 * RUN_KEYS + 17;
            let key_of = |number: usize| {
                let mut key = (number as u64).to_be_bytes().to_vec();
                key.extend_from_slice(if number.is_multiple_of(2) { suffix } else { b"" });
                key
            };
            for number in 0..count {
                // An odd multiplier and a power of two: no order, and every number once in each round.
                let key = key_of((number * 7_368_787) % KEYS);
                runs.push(|bytes| {
                    bytes.extend_from_slice(&key);
                    Ok::<usize, ()>(number)
                })
                .unwrap();
            }
            let (all, different) = runs.counts();
            assert_eq!(all, count);
            assert!(different.abs_diff(KEYS) < KEYS / 10, "{different} of {KEYS}");
            assert_eq!(runs.runs().len(), 4);
            assert!(!runs.follow_one_another());
            let mut expected = vec![0; KEYS];
            (0..count).for_each(|number| expected[(number * 7_368_787) % KEYS] = number);
            let mut next = 0;
            let visit = |key: &[u8], number| {
                next += 1;
                if key == key_of(next - 1) && expected[next - 1] == number { Ok(()) } else { Err(number) }
            };
            assert_eq!(runs.into_each(visit), Ok(()));
            assert_eq!(next, KEYS);
        }
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
