//! How to open a database, and how its memory is shared out.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustydb_storage::StoreOptions;

use crate::routine::Language;

/// Where a database lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DatabaseLocation {
    /// A directory, created when missing.
    Directory(PathBuf),
    /// Memory: gone when the last handle is dropped.
    Memory,
}

/// How to open a database. Everything but the location has a sensible default.
///
/// ```
/// use rustydb_engine::DatabaseOptions;
/// let options = DatabaseOptions { memory_limit: Some(2 << 30), ..DatabaseOptions::directory("shop") };
/// ```
#[derive(Debug, Clone)]
pub struct DatabaseOptions {
    /// Where it lies.
    pub location: DatabaseLocation,
    /// Bytes the database may use for queries, caches, indexes, rows in memory, transactions and loads together. Default:
    /// 70 % of the machine. At least [`MEMORY_LIMIT_MIN`](Self::MEMORY_LIMIT_MIN).
    pub memory_limit: Option<u64>,
    /// Threads that run queries. Default: one per core.
    pub query_threads: Option<usize>,
    /// What sessions start with as `statement_timeout`. Default: none.
    pub statement_timeout: Option<Duration>,
    /// Rows in memory beyond this are written out to segments. Default: a share of the limit.
    pub memtable_bytes: Option<usize>,
    /// Compaction writes no faster; `None`: as fast as it can.
    pub compaction_bytes_per_second: Option<u64>,
    /// Whether SQL may read and write files of this machine with COPY. Default: true, as fits an embedded database; a
    /// server turns it off unless told otherwise.
    pub allow_server_files: bool,
    /// Languages that functions and procedures may be written in. Default: none here; the crate `rustydb` adds those of
    /// the crate `rustydb-udf`.
    pub languages: Vec<Arc<dyn Language>>,
}

const MIB: u64 = 1024 * 1024;
const GIB: u64 = 1024 * MIB;

/// Of a limit beyond the least, an eighth is for what nobody counts, but not more than this: some eighty megabytes of program, and
/// what the allocator keeps.
const UNCOUNTED_MAX: u64 = 256 * MIB;

/// Where the machine does not tell how much memory it has.
const ASSUMED_MEMORY: u64 = 4 * GIB;

impl DatabaseOptions {
    /// The least [`memory_limit`](Self::memory_limit): below this nothing runs well.
    pub const MEMORY_LIMIT_MIN: u64 = 64 * MIB;

    /// A database in a directory.
    pub fn directory(path: impl Into<PathBuf>) -> Self {
        Self::at(DatabaseLocation::Directory(path.into()))
    }

    /// A database in memory.
    pub fn memory() -> Self {
        Self::at(DatabaseLocation::Memory)
    }

    fn at(location: DatabaseLocation) -> Self {
        DatabaseOptions {
            location,
            memory_limit: None,
            query_threads: None,
            statement_timeout: None,
            memtable_bytes: None,
            compaction_bytes_per_second: None,
            allow_server_files: true,
            languages: Vec::new(),
        }
    }

    pub(crate) fn query_threads(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        self.query_threads.unwrap_or_else(cores).max(1)
    }

    pub(crate) fn budget(&self) -> MemoryBudget {
        let limit = self.memory_limit.unwrap_or_else(|| machine_memory() / 10 * 7).max(Self::MEMORY_LIMIT_MIN);
        // What nobody counts: the program itself, stacks, plans, and what the allocator has not given back.
        let limit = limit - ((limit - Self::MEMORY_LIMIT_MIN) / 8).min(UNCOUNTED_MAX);
        let share = |percent: u64| usize::try_from(limit / 100 * percent).unwrap_or(usize::MAX);
        // Less than half for queries, who lend what they do not need to the store; a third for hot columns and indexes, which
        // loads and compactions take theirs from. Of rows in memory there may be four times the share: twice as much makes
        // writers wait, while as much again is being written out. A large memtable makes flushes rare but recovery long:
        // half a gigabyte of log takes about a second to replay.
        MemoryBudget {
            queries: share(42),
            column_cache: share(33),
            memtable: self.memtable_bytes.unwrap_or_else(|| share(5).min(512 * MIB as usize)),
            transactions: share(5),
        }
    }

    /// The store's part of these options.
    pub(crate) fn store_options(&self) -> StoreOptions {
        let budget = self.budget();
        let options = match &self.location {
            DatabaseLocation::Directory(path) => StoreOptions::directory(path.clone()),
            DatabaseLocation::Memory => StoreOptions::in_memory(),
        };
        StoreOptions {
            memtable_bytes: budget.memtable,
            column_cache_bytes: budget.column_cache,
            background_bytes_per_second: self.compaction_bytes_per_second.unwrap_or(0),
            transaction_bytes: budget.transactions,
            ..options
        }
    }
}

/// Bytes by use.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MemoryBudget {
    pub(crate) queries: usize,
    pub(crate) column_cache: usize,
    pub(crate) memtable: usize,
    pub(crate) transactions: usize,
}

/// The machine's memory as Linux reports it.
fn machine_memory() -> u64 {
    let reported = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    reported
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.trim().strip_suffix("kB"))
        .and_then(|kilobytes| kilobytes.trim().parse::<u64>().ok())
        .map_or(ASSUMED_MEMORY, |kilobytes| kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_stay_within_the_limit() {
        let options = DatabaseOptions { memory_limit: Some(GIB), ..DatabaseOptions::memory() };
        let MemoryBudget { queries, column_cache, memtable, transactions } = options.budget();
        let counted = (queries + column_cache + 4 * memtable + transactions) as u64;
        // Scale 1 of TPC-H under 1 GiB once took 40 MiB more than that: all of it was given to somebody.
        assert!(counted <= GIB - 100 * MIB, "{counted} of {GIB} bytes are given out");
    }

    #[test]
    fn a_given_memtable_size_is_kept() {
        let options = DatabaseOptions { memtable_bytes: Some(4096), ..DatabaseOptions::memory() };
        assert_eq!(options.budget().memtable, 4096);
    }
}
