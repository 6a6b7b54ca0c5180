//! Where a store lies and how much memory it may use.

use std::path::PathBuf;

use crate::files::MemoryFiles;

/// Where a store keeps its files.
#[derive(Debug, Clone)]
pub enum Location {
    /// A directory of the local file system, created when missing.
    Directory(PathBuf),
    /// Memory: gone with the last clone of the handle.
    Memory(MemoryFiles),
}

/// How to open a store.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// Where it lies.
    pub location: Location,
    /// Rows in memory beyond this are written out to segments; twice this makes writers wait.
    pub memtable_bytes: usize,
    /// Encoded columns, key indexes and postings kept in memory; bulk loads and compactions take what they need of it.
    pub column_cache_bytes: usize,
    /// Compaction writes at most this much; 0 for as fast as it can.
    pub background_bytes_per_second: u64,
    /// Uncommitted row changes that all transactions together may hold; bulk loads do not count.
    pub transaction_bytes: usize,
}

const MIB: usize = 1024 * 1024;

impl StoreOptions {
    /// A store in a directory, with modest memory.
    pub fn directory(path: impl Into<PathBuf>) -> Self {
        Self::at(Location::Directory(path.into()))
    }

    /// A store in memory, for tests and scratch work.
    pub fn in_memory() -> Self {
        Self::at(Location::Memory(MemoryFiles::new()))
    }

    /// A store at a location, with modest memory.
    pub fn at(location: Location) -> Self {
        StoreOptions {
            location,
            memtable_bytes: 64 * MIB,
            column_cache_bytes: 1024 * MIB,
            background_bytes_per_second: 0,
            transaction_bytes: 256 * MIB,
        }
    }
}
