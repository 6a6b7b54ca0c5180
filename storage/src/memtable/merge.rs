//! Sorted runs read as one: of equal keys, that of the last run.
//!
//! ```text
//!   run 0   ├─ … ─┼── … ──┼─ … ─┤     cut at the same keys into stretches that fit into the cache together
//!   run 1   ├── … ──┼─ … ─┼─ … ─┤     a stretch: the codes of its keys from all runs ─▶ sorted ─▶ read
//!   run 2   ├─ … ───┼─ … ─┼─ … ─┤
//! ```
//! A tree of losers would compare each key once for each doubling of the number of runs, and which of two keys is less nobody
//! can foretell. Sorting numbers by their bits ([`radix`](super::radix)) compares nothing. Runs are sorted, so what belongs to
//! a stretch is read from each of them one after the other.

use super::differing::{Codes, Differing};
use super::radix;
use super::runs::Run;

/// Bits of a code: the greatest number is not one.
const CODE_BITS_MAX: u32 = 63;

/// Keys of a stretch, about; with their rows' places they fit into a core's cache.
const STRETCH_KEYS: usize = 1 << 13;

/// With many runs a stretch is longer, so that each has so many keys in it.
const STRETCH_KEYS_OF_RUN: usize = 32;

/// One key of so many of each run is looked at to find where stretches end.
const SAMPLED: usize = 256;

/// So many stretches, evenly spread, say how much of what there is has been replaced.
const STRETCHES_SAMPLED: usize = 8;

/// A run, and how much of it has been gathered.
#[derive(Debug)]
struct Source<'a, T> {
    run: &'a Run<T>,
    position: usize,
    /// What to add to a number in the stretch for the position in the run, modulo the numbers there are.
    shift: u32,
}

impl<'a, T: Copy> Source<'a, T> {
    #[inline]
    fn key(&self, number: u32) -> &'a [u8] {
        self.run.key(number.wrapping_add(self.shift) as usize)
    }
}

/// A key of a stretch, which numbers them in the order of the runs. Of equal codes the earlier run's comes first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    code: u64,
    number: u32,
    source: u32,
}

/// The keys of all runs in ascending order, each once, with its thing.
#[derive(Debug)]
pub(crate) struct Merge<'a, T> {
    sources: Vec<Source<'a, T>>,
    codes: Codes,
    /// The code at which each stretch ends, ascending.
    ends: Vec<u64>,
    /// How many stretches there have been.
    stretches: usize,
    entries: Vec<Entry>,
    /// Things by number: copied run by run, because reading them here and there would wait for the memory each time.
    things: Vec<T>,
    other: Vec<Entry>,
    /// The next entry to read.
    next: usize,
}

impl<'a, T: Copy> Merge<'a, T> {
    /// Merges closed runs.
    pub(super) fn new(runs: &'a [Run<T>]) -> Merge<'a, T> {
        let mut differing = Differing::default();
        runs.iter().for_each(|run| run.note_in(&mut differing));
        let codes = Codes::new(&differing, CODE_BITS_MAX);
        let mut samples: Vec<u64> = runs
            .iter()
            .flat_map(|run| (SAMPLED / 2..run.len()).step_by(SAMPLED).map(|position| codes.of(run.key(position))))
            .collect();
        samples.sort_unstable();
        let step = STRETCH_KEYS.max(runs.len() * STRETCH_KEYS_OF_RUN) / SAMPLED;
        let ends = samples.iter().skip(step).step_by(step).copied();
        let mut ends: Vec<u64> = ends.chain([u64::MAX]).collect();
        ends.dedup();
        let sources = runs.iter().map(|run| Source { run, position: 0, shift: 0 }).collect();
        let (entries, things, other) = (Vec::new(), Vec::new(), Vec::new());
        Merge { sources, codes, ends, stretches: 0, entries, things, other, next: 0 }
    }

    /// Reads some of the stretches only. Returns how many keys there are in them, and how many different ones.
    pub(super) fn sample(mut self) -> (usize, usize) {
        let step = (self.ends.len() / STRETCHES_SAMPLED).max(1);
        let (mut all, mut different) = (0, 0);
        for stretch in (step / 2..self.ends.len()).step_by(step) {
            self.skip_to(stretch);
            all += if self.gather() { self.entries.len() } else { 0 };
            while self.next < self.entries.len() {
                different += usize::from(self.read().is_some());
            }
        }
        (all, different)
    }

    /// Passes over what comes before a stretch.
    fn skip_to(&mut self, stretch: usize) {
        let Some(before) = stretch.checked_sub(1) else { return };
        let start = self.ends[before];
        for source in &mut self.sources {
            let (mut low, mut high) = (source.position, source.run.len());
            while low < high {
                let middle = low + (high - low) / 2;
                if self.codes.of(source.run.key(middle)) < start { low = middle + 1 } else { high = middle }
            }
            source.position = low;
        }
        self.stretches = stretch;
    }

    /// The next entry of the stretch, if it is the last one of its key.
    #[inline]
    fn read(&mut self) -> Option<(&'a [u8], T)> {
        let entry = self.entries.get(self.next)?;
        self.next += 1;
        let key = self.sources[entry.source as usize].key(entry.number);
        let is_replaced = self.entries.get(self.next).is_some_and(|next| {
            next.code == entry.code
                && (self.codes.are_exact() || self.sources[next.source as usize].key(next.number) == key)
        });
        (!is_replaced).then(|| (key, self.things[entry.number as usize]))
    }

    /// Gathers and sorts the next stretch.
    fn gather(&mut self) -> bool {
        let Some(end) = self.ends.get(self.stretches).copied() else { return false };
        let start = self.stretches.checked_sub(1).map_or(0, |before| self.ends[before]);
        self.stretches += 1;
        self.next = 0;
        self.entries.clear();
        self.things.clear();
        let mut greatest = 0;
        for (place, source) in self.sources.iter_mut().enumerate() {
            let first = source.position;
            source.shift = (first as u32).wrapping_sub(self.things.len() as u32);
            while source.position < source.run.len() {
                let code = self.codes.of(source.run.key(source.position));
                if code >= end {
                    break;
                }
                // What is left to sort by is how far it is from the beginning.
                let code = code - start;
                greatest = greatest.max(code);
                self.entries.push(Entry { code, number: self.entries.len() as u32, source: place as u32 });
                source.position += 1;
            }
            self.things.extend_from_slice(source.run.things(first..source.position));
        }
        radix::sort(&mut self.entries, &mut self.other, u64::BITS - greatest.leading_zeros(), |entry| entry.code);
        if !self.codes.are_exact() {
            let sources = &self.sources;
            let key = |entry: &Entry| sources[entry.source as usize].key(entry.number);
            for ties in self.entries.chunk_by_mut(|left, right| left.code == right.code).filter(|ties| ties.len() > 1) {
                // Stable, so that of equal keys the last run's comes last.
                ties.sort_by(|left, right| key(left).cmp(key(right)));
            }
        }
        true
    }
}

impl<'a, T: Copy> Iterator for Merge<'a, T> {
    type Item = (&'a [u8], T);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.next < self.entries.len() {
                if let Some(found) = self.read() {
                    return Some(found);
                }
            } else if !self.gather() {
                return None;
            }
        }
    }
}
