//! Which commits a validation has not seen, and whether they matter to it.
//!
//! ```text
//!              applied                            allocated
//!  ───────────────┼────────[ 17 ]──[ 18 ]──[ 19 ]─────┼────▶ commits
//!  seen by every  │   the window: the footprint of each
//!  validation     │   = sorted hashes of the keys and unique values it writes
//! ```
//! A commit is validated without any lock against what is in place, that is, against all commits up to the newest
//! timestamp that was [applied](rustydb_txn::Timeline::applied) when it began. Then, under the lock that gives out
//! timestamps, its footprint is compared with those of the younger commits. If they have nothing in common, none of them
//! can have changed what the validation saw, so it holds now, and the commit is next. If they have, it waits until the
//! younger one is in place, which takes microseconds, and is validated again. (Kung and Robinson's backward validation,
//! 1981, on the last few commits only.) Two keys with one hash make a commit wait for nothing.
//!
//! So of two commits that write the same key, the later one is validated, and applied, after the earlier one was applied.
//!
//! The statements of a transaction are a validation, too, with all that the snapshot sees: they have looked at each key they
//! write. If no younger commit has one of them, nothing has to be looked for again, neither when a statement asks whether a
//! row is still what its snapshot shows, nor at the commit.

use std::collections::VecDeque;

use rustydb_txn::Timestamp;

/// Commits remembered: far more than can be in flight. A validation that began before the oldest one starts again.
const WINDOW_COMMITS: usize = 512;

/// What a commit writes, as ascending hashes.
pub(crate) type Footprint = Box<[u64]>;

/// A footprint from hashes in any order.
pub(crate) fn footprint(hashes: impl IntoIterator<Item = u64>) -> Footprint {
    let mut hashes: Vec<u64> = hashes.into_iter().collect();
    hashes.sort_unstable();
    hashes.dedup();
    hashes.into_boxed_slice()
}

/// A hash of a key of a table, or of a value in an index.
pub(crate) fn hash(space: u64, key: &[u8]) -> u64 {
    const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;
    let mix = |state: u64, word: u64| {
        let product = u128::from(state ^ word) * u128::from(MULTIPLIER | 1);
        (product as u64) ^ (product >> 64) as u64
    };
    let (words, tail) = key.as_chunks::<8>();
    let state = words.iter().fold(mix(MULTIPLIER, space), |state, word| mix(state, u64::from_le_bytes(*word)));
    let mut last = [0; 8];
    last[..tail.len()].copy_from_slice(tail);
    mix(mix(state, u64::from_le_bytes(last)), key.len() as u64)
}

fn has(footprint: &[u64], hash: u64) -> bool {
    footprint.binary_search(&hash).is_ok()
}

/// Bits for the hashes of a footprint: nearly everything that is not in it falls through at once.
struct Sieve([u64; SIEVE_WORDS]);

const SIEVE_WORDS: usize = 64;

impl Sieve {
    fn of(footprint: &[u64]) -> Sieve {
        let mut words = [0; SIEVE_WORDS];
        for hash in footprint {
            let (word, bit) = Sieve::place(*hash);
            words[word] |= bit;
        }
        Sieve(words)
    }

    fn may_have(&self, hash: u64) -> bool {
        let (word, bit) = Sieve::place(hash);
        self.0[word] & bit != 0
    }

    fn place(hash: u64) -> (usize, u64) {
        ((hash >> 6) as usize % SIEVE_WORDS, 1 << (hash % 64))
    }
}

/// Whether a validation still holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It does.
    Granted,
    /// It must be repeated when this commit is in place.
    After(Timestamp),
}

/// The last commits. Used under the lock that orders them.
#[derive(Debug, Default)]
pub(crate) struct Window {
    commits: VecDeque<(Timestamp, Footprint)>,
    /// Commits up to here may be missing.
    forgotten: Timestamp,
}

impl Window {
    /// A window in which every commit up to `last` is forgotten.
    pub(crate) fn after(last: Timestamp) -> Self {
        Window { commits: VecDeque::new(), forgotten: last }
    }

    /// Whether a validation that has seen all commits up to `seen` holds for a commit with this footprint.
    pub(crate) fn admit(&self, seen: Timestamp, footprint: &[u64]) -> Admission {
        if seen < self.forgotten {
            return Admission::After(self.forgotten);
        }
        let mut younger = self.commits.iter().rev().take_while(|(timestamp, _)| *timestamp > seen).peekable();
        if younger.peek().is_none() {
            return Admission::Granted;
        }
        let sieve = Sieve::of(footprint);
        let meets = |other: &Footprint| other.iter().any(|hash| sieve.may_have(*hash) && has(footprint, *hash));
        match younger.find(|(_, other)| meets(other)) {
            Some((timestamp, _)) => Admission::After(*timestamp),
            None => Admission::Granted,
        }
    }

    /// The hashes of a footprint that commits after `seen` have written; `None` if some of those are forgotten.
    pub(crate) fn written_since(&self, seen: Timestamp, wanted: &[u64]) -> Option<Footprint> {
        if seen < self.forgotten {
            return None;
        }
        let sieve = Sieve::of(wanted);
        let younger = self.commits.iter().rev().take_while(|(timestamp, _)| *timestamp > seen);
        let hashes = younger.flat_map(|(_, other)| other.iter().copied());
        Some(footprint(hashes.filter(|hash| sieve.may_have(*hash) && has(wanted, *hash))))
    }

    /// Adds a commit, the youngest.
    pub(crate) fn add(&mut self, timestamp: Timestamp, footprint: Footprint) {
        if self.commits.len() == WINDOW_COMMITS
            && let Some((oldest, _)) = self.commits.pop_front()
        {
            self.forgotten = oldest;
        }
        self.commits.push_back((timestamp, footprint));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(keys: &[&str]) -> Footprint {
        footprint(keys.iter().map(|key| hash(1, key.as_bytes())))
    }

    #[test]
    fn only_younger_commits_with_a_key_in_common_are_in_the_way() {
        let mut window = Window::after(10);
        window.add(11, of(&["a", "b"]));
        window.add(12, of(&["c"]));
        window.add(13, of(&["a"]));
        assert_eq!(window.admit(10, &of(&["d", "e"])), Admission::Granted);
        assert_eq!(window.admit(10, &of(&["d", "c"])), Admission::After(12));
        assert_eq!(window.admit(12, &of(&["c"])), Admission::Granted);
        assert_eq!(window.admit(11, &of(&["a", "c"])), Admission::After(13), "the youngest one");
        assert_eq!(window.admit(13, &of(&["a", "b", "c"])), Admission::Granted);
        let written = |seen, keys: &[&str]| window.written_since(seen, &of(keys));
        assert_eq!(written(10, &["d", "a", "c"]), Some(of(&["a", "c"])));
        assert_eq!(written(12, &["c", "b"]), Some(of(&[])));
        assert_eq!(written(9, &["d"]), None);
    }

    #[test]
    fn a_validation_older_than_the_window_is_repeated() {
        let mut window = Window::after(0);
        for timestamp in 1..=WINDOW_COMMITS as u64 + 2 {
            window.add(timestamp, of(&["x"]));
        }
        assert_eq!(window.admit(1, &of(&["y"])), Admission::After(2));
        assert_eq!(window.admit(2, &of(&["y"])), Admission::Granted);
    }

    #[test]
    fn keys_that_differ_in_length_table_or_one_byte_have_different_hashes() {
        let mut seen = std::collections::HashSet::new();
        for space in 0..4 {
            for length in 0..40 {
                for at in 0..length.max(1) {
                    let mut key = vec![0; length];
                    key.iter_mut().skip(at).take(1).for_each(|byte| *byte = 1);
                    seen.insert(hash(space, &key));
                }
                seen.insert(hash(space, &vec![0; length]));
            }
        }
        // For each space and length: no byte set, or one of them.
        assert_eq!(seen.len(), 4 * (0..40).map(|length| 1 + length).sum::<usize>());
    }
}
