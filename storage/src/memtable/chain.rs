//! The versions of one key.
//!
//! ```text
//!   newest (ts 9, row)   past: (ts 4, row) (ts 7, removed)
//!   in the tree's entry        one vector, oldest first, absent for most keys
//! ```
//! A chain has one writer at a time, the owner of its leaf's lock, and is read under the same lock, so it needs neither
//! counters nor pointers between its versions.

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

    /// Adds a newest version. When there is no room for another older one, those that nobody at or after `watermark`
    /// can reach are dropped; then there is room for as many as must stay, so a snapshot that keeps a chain long does
    /// not make each push slow. Returns the memory of what was dropped.
    pub(super) fn push(&mut self, timestamp: Timestamp, row: Option<Bytes>, watermark: Timestamp) -> usize {
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
