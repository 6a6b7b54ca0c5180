//! Which keys a table's part of a memtable has, about: asked before the tree is.
//!
//! Most keys that are looked for are not in a memtable: rows that were written long ago, keys that are to be new. The tree takes
//! some eight cache misses to say so, and with a frozen memtable beside the active one there are two trees. Here it is one miss.
//!
//! ```text
//!   hash of the key ──▶ word (high bits)     4 of its 64 bits (low bits), all set: perhaps; else: certainly not
//!
//!   levels   64 words │ 256 │ 1024 │ …      one has all keys; a larger one takes its place when words have more than five each
//! ```
//! A blocked Bloom filter (Putze, Sanders, Singler: "Cache-, Hash- and Space-Efficient Bloom Filters", 2007) with blocks of a word:
//! with five keys a word, one lookup in a hundred goes on for nothing.
//!
//! What must hold: whoever can find a key in the tree finds its bits here. So a key is noted under the lock of the leaf that gets
//! it, before that has it ([`KeyFilter::insert`]), in the level that has all keys and in the next one, if that is being made. Who makes
//! the next one first makes it known, then walks the tree, taking each leaf's lock: a key comes before the walker, which then
//! finds it, or behind it, and then it was noted in both.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// Words of the first level; each further one has four times as many.
const FIRST_WORDS: usize = 64;

/// The last level is for a hundred million keys.
const LEVELS: usize = 10;

const KEYS_PER_WORD: usize = 5;

/// Bits of a key.
const KEY_BITS: u32 = 4;

type Words = Box<[AtomicU64]>;

#[derive(Debug, Default)]
pub(crate) struct KeyFilter {
    levels: [OnceLock<Words>; LEVELS],
    /// The level that has all keys. It is made with the first one.
    level: AtomicUsize,
    is_growing: AtomicBool,
}

fn words_of(level: usize) -> usize {
    FIRST_WORDS << (2 * level)
}

fn make(level: usize) -> Words {
    (0..words_of(level)).map(|_| AtomicU64::new(0)).collect()
}

/// Where the key of a hash is noted.
#[inline]
fn place(words: &Words, hash: u64) -> (&AtomicU64, u64) {
    // The number of words is a power of two.
    let word = (hash >> 32) as usize & (words.len() - 1);
    let bits = (0..KEY_BITS).fold(0, |bits, number| bits | 1 << (hash >> (6 * number) & 63));
    (&words[word], bits)
}

fn note(words: &Words, hash: u64) {
    let (word, bits) = place(words, hash);
    word.fetch_or(bits, Ordering::Relaxed);
}

impl KeyFilter {
    /// A filter that need not grow until it has so many keys.
    pub(crate) fn for_keys(keys: usize) -> KeyFilter {
        let level = (0..LEVELS - 1).find(|level| KEYS_PER_WORD * words_of(*level) >= keys).unwrap_or(LEVELS - 1);
        KeyFilter { level: AtomicUsize::new(level), ..KeyFilter::default() }
    }

    /// Whether the key of a hash may be there. If not, it was not when the caller's snapshot was taken.
    #[inline]
    pub(crate) fn may_have(&self, hash: u64) -> bool {
        self.levels[self.level.load(Ordering::Acquire)].get().is_some_and(|words| {
            let (word, bits) = place(words, hash);
            word.load(Ordering::Relaxed) & bits == bits
        })
    }

    /// Notes a key. The caller has the lock of the leaf that will get it, and has not put it there yet.
    pub(crate) fn insert(&self, hash: u64) {
        let level = self.level.load(Ordering::Acquire);
        note(self.levels[level].get_or_init(|| make(level)), hash);
        if let Some(next) = self.levels.get(level + 1).and_then(OnceLock::get) {
            note(next, hash);
        }
    }

    /// Whether so many keys are too many for it.
    pub(crate) fn is_crowded(&self, keys: usize) -> bool {
        let level = self.level.load(Ordering::Relaxed);
        keys > KEYS_PER_WORD * words_of(level) && level + 1 < LEVELS
    }

    /// Goes over to the next level, unless somebody else does it. `walk` calls what it is given with the hash of each key in the
    /// tree, and takes the lock of each leaf for that.
    pub(crate) fn grow(&self, keys: usize, walk: impl FnOnce(&mut dyn FnMut(u64))) {
        if self.is_growing.swap(true, Ordering::AcqRel) {
            return;
        }
        if self.is_crowded(keys) {
            let next = self.level.load(Ordering::Acquire) + 1;
            let words = self.levels[next].get_or_init(|| make(next));
            walk(&mut |hash| note(words, hash));
            self.level.store(next, Ordering::Release);
        }
        self.is_growing.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    #[test]
    fn what_was_noted_is_found_and_hardly_anything_else() {
        let count = if cfg!(miri) { 1_000 } else { 100_000 };
        for known in [0, count] {
            let mut random = StdRng::seed_from_u64(7);
            let (filter, mut hashes) = (KeyFilter::for_keys(known), Vec::new());
            assert!(!filter.may_have(0));
            for _ in 0..count {
                let hash: u64 = random.random();
                filter.insert(hash);
                hashes.push(hash);
                if filter.is_crowded(hashes.len()) {
                    assert_eq!(known, 0);
                    filter.grow(hashes.len(), |note| hashes.iter().copied().for_each(note));
                }
            }
            assert!(hashes.iter().all(|hash| filter.may_have(*hash)));
            let wrong = (0..count).filter(|_| filter.may_have(random.random())).count();
            assert!(wrong < count / 20, "{wrong} of {count} are found that were not noted");
        }
    }
}
