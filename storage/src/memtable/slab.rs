//! Things that are only ever added, each with a number, and never move.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Places in the first chunk; every further one has twice as many, so a number's chunk follows from its magnitude.
const FIRST_CHUNK: u32 = 64;

/// Chunks enough for all 32-bit numbers.
const CHUNKS: usize = 27;

/// A place, empty until its number is given out.
type Place<T> = OnceLock<Box<T>>;

#[derive(Debug)]
pub(super) struct Slab<T> {
    chunks: [OnceLock<Box<[Place<T>]>>; CHUNKS],
    next: AtomicU32,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Slab { chunks: [const { OnceLock::new() }; CHUNKS], next: AtomicU32::new(0) }
    }
}

/// The chunk of a number and its place there.
fn place(number: u32) -> (usize, usize) {
    let chunk = (number / FIRST_CHUNK + 1).ilog2();
    (chunk as usize, (number - FIRST_CHUNK * ((1 << chunk) - 1)) as usize)
}

impl<T> Slab<T> {
    /// The thing with a number that [`push`](Self::push) has returned.
    pub(super) fn get(&self, number: u32) -> &T {
        let (chunk, at) = place(number);
        let place = self.chunks[chunk].get().and_then(|chunk| chunk[at].get());
        place.expect("a number is known to others only after push has filled its place")
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> u32 {
        self.next.load(Ordering::Relaxed)
    }

    /// Calls `change` with each thing, in the order of their numbers.
    pub(super) fn for_each_mut(&mut self, mut change: impl FnMut(&mut T)) {
        let chunks = self.chunks.iter_mut().filter_map(OnceLock::get_mut);
        chunks.flat_map(|chunk| chunk.iter_mut().filter_map(OnceLock::get_mut)).for_each(|thing| change(thing));
    }

    /// Adds a thing and returns its number.
    pub(super) fn push(&self, thing: T) -> u32 {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (chunk, at) = place(number);
        let places = (FIRST_CHUNK as usize) << chunk;
        let chunk = self.chunks[chunk].get_or_init(|| (0..places).map(|_| OnceLock::new()).collect());
        assert!(chunk[at].set(Box::new(thing)).is_ok(), "each number is given out once");
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_a_place_of_its_own() {
        let slab = Slab::default();
        for thing in 0..10_000_u32 {
            assert_eq!(slab.push(thing), thing);
        }
        assert!((0..10_000).all(|number| *slab.get(number) == number));
        let (mut slab, mut next) = (slab, 0);
        slab.for_each_mut(|thing| {
            assert_eq!(*thing, next);
            next += 1;
        });
        assert_eq!(next, 10_000);
    }
}
