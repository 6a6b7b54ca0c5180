//! The versions of one key.
//!
//! ```text
//!   newest (ts 9, row)   past: (ts 4, row) (ts 7, removed)
//!   in the tree's entry        one vector, oldest first, absent for most keys
//! ```
//! A chain has one writer at a time, the owner of its leaf's lock, and is read under the same lock, so it needs neither
//! counters nor pointers between its versions.
//!
//! Who reads for long keeps the version it sees and none of those that came after it, except those that others see: a chain
//! that is full is cleared of what lies between snapshots, so that there are hardly more versions than readers.

use bytes::Bytes;
use rustydb_txn::Timestamp;

use super::leaf::Stamped;

/// What a chain says about its key at some timestamp.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ChainState {
    /// The key has this row, written at this timestamp.
    Row(Bytes, Timestamp),
    /// The key's row here has ended.
    Removed,
    /// The chain began later: look further.
    Unknown,
}

/// Room for older versions that a chain has at least, once there is one.
const PAST_VERSIONS_MIN: usize = 4;

/// What a row costs beside its bytes: the allocator's head, and the counter of those who hold it.
const HEAP_BYTES: usize = 48;

/// What can still be read of the past.
pub(crate) struct Horizon<'a> {
    /// Nobody reads as of an earlier moment.
    pub(crate) watermark: Timestamp,
    /// The moments up to the newest published commit as of which somebody reads or may begin to, ascending, that commit's
    /// included; none if they are not known. As of any later moment somebody may read.
    pub(crate) readable: &'a dyn Fn() -> Vec<Timestamp>,
}

impl Horizon<'_> {
    /// Everything can.
    pub(super) const EVERYTHING: Horizon<'static> = Horizon { watermark: 0, readable: &Vec::new };
}

#[derive(Debug)]
pub(super) struct Version {
    pub(super) timestamp: Timestamp,
    /// `None`: the key has no row from this timestamp on.
    pub(super) row: Option<Bytes>,
}

impl Version {
    pub(super) fn state(&self) -> ChainState {
        match &self.row {
            Some(row) => ChainState::Row(row.clone(), self.timestamp),
            None => ChainState::Removed,
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        size_of::<Version>() + self.row.as_ref().map_or(0, |row| HEAP_BYTES + row.len())
    }
}

#[derive(Debug)]
pub(super) struct Chain {
    newest: Version,
    past: Option<Box<Past>>,
}

/// Older versions, oldest first.
#[derive(Debug)]
struct Past {
    versions: Vec<Version>,
}

impl Stamped for Chain {
    fn stamp(&self) -> u64 {
        self.newest.timestamp
    }

    fn has_ended(&self) -> bool {
        self.newest.row.is_none()
    }
}

impl Chain {
    /// A chain of one version.
    pub(super) fn of(timestamp: Timestamp, row: Option<Bytes>) -> Chain {
        Chain { newest: Version { timestamp, row }, past: None }
    }

    pub(super) fn newest(&self) -> &Version {
        &self.newest
    }

    /// The newest version's row.
    pub(super) fn newest_row_mut(&mut self) -> Option<&mut Bytes> {
        self.newest.row.as_mut()
    }

    /// All versions, newest first.
    pub(super) fn versions(&self) -> impl Iterator<Item = &Version> {
        let past = self.past.iter().flat_map(|past| past.versions.iter().rev());
        std::iter::once(&self.newest).chain(past)
    }

    /// The version a reader at `timestamp` sees.
    pub(super) fn version(&self, timestamp: Timestamp) -> Option<&Version> {
        self.versions().find(|version| version.timestamp <= timestamp)
    }

    pub(super) fn at(&self, timestamp: Timestamp) -> ChainState {
        self.version(timestamp).map_or(ChainState::Unknown, Version::state)
    }

    /// Adds a newest version. When there is no room for another older one, those that nobody can reach are dropped; then
    /// there is room for as many as must stay, so snapshots that keep a chain long do not make each push slow. Returns the
    /// memory of what was dropped.
    pub(super) fn push(&mut self, timestamp: Timestamp, row: Option<Bytes>, horizon: &Horizon<'_>) -> usize {
        let watermark = horizon.watermark;
        assert!(timestamp >= self.newest.timestamp, "the commits of one key come in their order");
        let older = std::mem::replace(&mut self.newest, Version { timestamp, row });
        if timestamp <= watermark {
            let past = self.past.take().map_or(0, |past| past.versions.iter().map(Version::memory_bytes).sum());
            return past + older.memory_bytes();
        }
        let past = self.past.get_or_insert_with(|| Box::new(Past { versions: Vec::new() }));
        let versions = &mut past.versions;
        let mut dropped = 0;
        if versions.len() == versions.capacity() {
            // What a reader at the watermark sees must stay, and everything younger.
            let unreachable = match older.timestamp <= watermark {
                true => versions.len(),
                false => versions.partition_point(|version| version.timestamp <= watermark).saturating_sub(1),
            };
            dropped = versions.drain(..unreachable).map(|version| version.memory_bytes()).sum();
            if 2 * versions.len() >= versions.capacity() && !versions.is_empty() {
                dropped += drop_between(versions, older.timestamp, &(horizon.readable)());
            }
            if 2 * versions.len() >= versions.capacity() {
                versions.reserve(versions.len().max(PAST_VERSIONS_MIN));
            } else if 8 * versions.len() < versions.capacity() {
                versions.shrink_to(PAST_VERSIONS_MIN.max(2 * versions.len()));
            }
        }
        versions.push(older);
        dropped
    }
}

/// Drops the versions, oldest first, that ended before anybody could read them; the last one ended at `end`. Returns their memory.
fn drop_between(versions: &mut Vec<Version>, end: Timestamp, readable: &[Timestamp]) -> usize {
    let Some(newest) = readable.last() else { return 0 };
    let ends: Vec<Timestamp> = versions.iter().skip(1).map(|version| version.timestamp).chain([end]).collect();
    let (mut dropped, mut ends) = (0, ends.into_iter());
    versions.retain(|version| {
        let end = ends.next().unwrap_or(Timestamp::MAX);
        let first_reader = readable.partition_point(|reader| *reader < version.timestamp);
        let is_read = end > *newest || readable.get(first_reader).is_some_and(|reader| *reader < end);
        if !is_read {
            dropped += version.memory_bytes();
        }
        is_read
    });
    dropped
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    fn row(timestamp: Timestamp) -> Option<Bytes> {
        (!timestamp.is_multiple_of(5)).then(|| Bytes::from(timestamp.to_le_bytes().to_vec()))
    }

    fn state(timestamp: Option<&Timestamp>) -> ChainState {
        match timestamp.map(|timestamp| (row(*timestamp), *timestamp)) {
            Some((Some(row), timestamp)) => ChainState::Row(row, timestamp),
            Some((None, _)) => ChainState::Removed,
            None => ChainState::Unknown,
        }
    }

    #[test]
    fn every_reader_finds_its_version_whoever_else_reads() {
        for seed in 0..200 {
            let mut random = StdRng::seed_from_u64(seed);
            let (mut all, mut readers): (Vec<Timestamp>, Vec<Timestamp>) = (vec![10], vec![]);
            let mut chain = Chain::of(10, row(10));
            let (mut bytes, mut published) = (chain.newest().memory_bytes(), 9);
            for _ in 0..300 {
                let newest = *all.last().unwrap();
                // Commits are published a little after they are in place.
                published = random.random_range(published..=newest);
                match random.random_range(0..10) {
                    0 | 1 => readers.push(random.random_range(published..=newest)),
                    2 if !readers.is_empty() => {
                        readers.swap_remove(random.random_range(0..readers.len()));
                    }
                    _ => {
                        let next = newest + random.random_range(0..4);
                        let watermark = readers.iter().copied().fold(published, Timestamp::min);
                        let readable = || {
                            let mut readable: Vec<Timestamp> =
                                readers.iter().copied().filter(|reader| *reader < published).collect();
                            readable.sort_unstable();
                            readable.push(published);
                            readable
                        };
                        let dropped = chain.push(next, row(next), &Horizon { watermark, readable: &readable });
                        bytes = bytes + chain.newest().memory_bytes() - dropped;
                        all.push(next);
                    }
                }
                let newest = *all.last().unwrap();
                for reader in readers.iter().copied().chain(published..=newest) {
                    let expected = all.iter().rev().find(|timestamp| **timestamp <= reader);
                    assert_eq!(chain.at(reader), state(expected), "seed {seed}, as of {reader}");
                }
                assert_eq!(bytes, chain.versions().map(Version::memory_bytes).sum::<usize>(), "seed {seed}");
            }
        }
    }

    #[test]
    fn who_reads_for_long_keeps_one_version_and_not_all_that_come_after_it() {
        let mut chain = Chain::of(1, row(1));
        for timestamp in 2..10_000 {
            let readable = || vec![1, timestamp - 1];
            chain.push(timestamp, row(timestamp), &Horizon { watermark: 1, readable: &readable });
        }
        assert_eq!(chain.at(1), state(Some(&1)));
        assert_eq!(chain.at(9_999), state(Some(&9_999)));
        assert!(chain.versions().count() < 16, "{} versions", chain.versions().count());
    }
}
