//! The hybrid store: rows and columns, one copy, nothing lost.
//!
//! A table is the rows changed lately, in memory in key order, and immutable columnar segments on disk, which are plain
//! Parquet files. Each row version lives in exactly one of these places. Reading many rows is a union of the places,
//! reading one is a look-up that stops at the first place that has its key; neither merges anything.
//!
//! ```text
//!   Transaction ── insert/update/delete ──▶ pending rows ── commit ──▶ log ──▶ memtable ── flush ──▶ segments
//!        │                                                  (sync)    (rows,           (Parquet, sorted by key,
//!        └── bulk_insert ──────────────────▶ segments ── commit ──▶    versions)         versioned delete sets)
//!   ReadView ── scan/get/lookup ──▶ pending ∪ memtables ∪ segments, each masked for the snapshot
//! ```
//!
//! What holds, always:
//! * **Atomic**: a commit is one record in the log. Readers see all of it or nothing, also after a crash.
//! * **Durable**: a synchronous commit is answered after its record was synced; a segment or manifest counts only when
//!   the file and its name were. If a sync fails, the store refuses further writes instead of guessing.
//! * **Isolated**: a reader sees the state at its timestamp, however long it takes ([`ReadView`]). Of two transactions
//!   that change one row, the first to commit wins.
//! * **Checked**: every byte read from disk is compared with its checksum; damage is an error with the file's name.
//!
//! Where to read on: `store/mod.rs` (the open store), `store/commit.rs`, `store/flush.rs`, `store/recovery.rs`,
//! `memtable/mod.rs`, `segment/mod.rs`, `log/mod.rs`, `point.rs` with `obstacle.rs` (rows without waiting). This crate knows
//! Arrow and Parquet, and neither SQL nor DataFusion.

mod block;
mod bulk;
mod catalog;
mod check;
mod column_cache;
mod compaction;
mod deletes;
mod encoding;
mod error;
mod files;
mod id_map;
mod index;
mod kernel;
mod locks;
mod log;
mod manifest;
mod memtable;
mod objects;
mod obstacle;
mod options;
mod own_rows;
mod point;
mod range;
mod scan;
mod segment;
mod sequence;
mod serial;
mod sketch;
mod statistics;
mod store;
mod sync;
mod transaction;
mod view;

pub use bulk::BulkWriter;
pub use catalog::{
    Catalog, Deferral, ForeignKey, IndexDef, IndexId, NewIndex, NewTable, PRIMARY_KEY_NAME, ROW_ID_COLUMN,
    ReferenceAction, TableDef, TableId,
};
pub use check::{CheckReport, Finding, check};
pub use column_cache::SpareMemory;
pub use encoding::{RowEditor, RowWriter, canonical_type};
pub use error::{Error, Result};
pub use files::{HeldSyncs, MemoryFiles};
pub use locks::LockWait;
pub use objects::{ObjectDef, ObjectId, ObjectKind};
pub use obstacle::{Attempt, Blocked, Hindrance, Obstacle, Tries, insist};
pub use options::{Location, StoreOptions};
pub use point::{FoundRow, KeyRange, RangeWindow, WantedColumns};
pub use range::{RangeBound, RangeRequest};
pub use rustydb_txn::{Isolation, LockMode};
pub use scan::{CompareOp, DynamicFilter, Filter, RowPredicate, ScanRequest, ScanUnit, UnitReader};
pub use sequence::{SequenceSpec, SequenceState};
pub use statistics::{ColumnStatistics, TableStatistics};
pub use store::{MemoryUsage, Store};
pub use transaction::{Change, Durability, Mark, NewRows, RowLock, Transaction, TransactionOptions};
pub use view::ReadView;

/// Rows of a block: the unit of cached columns and scan batches.
pub const BLOCK_ROWS: usize = 8192;
