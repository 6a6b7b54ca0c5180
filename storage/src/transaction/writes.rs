//! What a transaction has changed and not committed.
//!
//! Row changes are kept by key, in memory, bounded; bulk loads are segments on disk that nobody else can see. A clone
//! shares everything until one side changes, so a statement can read the state it started from while it writes.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use roaring::RoaringBitmap;
use rustydb_txn::Expectation;

use crate::catalog::TableId;
use crate::segment::Segment;

/// Memory a pending change costs beside its key and row.
const WRITE_OVERHEAD_BYTES: usize = 120;

/// The pending state of one key.
#[derive(Debug, Clone)]
pub(crate) struct PendingRow {
    /// What the snapshot showed when the key was first written.
    pub(crate) expectation: Expectation,
    /// The row, or `None` if the transaction has deleted it.
    pub(crate) row: Option<Bytes>,
}

/// Pending changes of one table.
#[derive(Debug, Clone, Default)]
pub(crate) struct TableWrites {
    pub(crate) rows: BTreeMap<Box<[u8]>, PendingRow>,
    /// Rows of segments (committed or staged) that this transaction hides from itself.
    pub(crate) removed: HashMap<u64, RoaringBitmap>,
    /// Segments a bulk load of this transaction wrote.
    pub(crate) staged: Vec<Arc<Segment>>,
}

impl TableWrites {
    pub(crate) fn is_removed(&self, segment: u64, row: u32) -> bool {
        self.removed.get(&segment).is_some_and(|rows| rows.contains(row))
    }

    fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.staged.is_empty() && self.removed.is_empty()
    }
}

/// Pending changes of a transaction.
#[derive(Debug, Clone, Default)]
pub(crate) struct Writes {
    tables: BTreeMap<TableId, Arc<TableWrites>>,
    bytes: usize,
}

impl Writes {
    pub(crate) fn table(&self, table: TableId) -> Option<&Arc<TableWrites>> {
        self.tables.get(&table)
    }

    pub(crate) fn table_mut(&mut self, table: TableId) -> &mut TableWrites {
        Arc::make_mut(self.tables.entry(table).or_default())
    }

    pub(crate) fn tables(&self) -> impl Iterator<Item = (TableId, &Arc<TableWrites>)> {
        self.tables.iter().map(|(id, writes)| (*id, writes))
    }

    pub(crate) fn forget_table(&mut self, table: TableId) {
        self.tables.remove(&table);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.tables.values().all(|writes| writes.is_empty())
    }

    /// Memory held by row changes, estimated.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Sets the pending state of a key. The expectation of its first change stays.
    pub(crate) fn set(&mut self, table: TableId, key: &[u8], expectation: Expectation, row: Option<Bytes>) {
        self.bytes += row.as_ref().map_or(0, Bytes::len);
        let rows = &mut self.table_mut(table).rows;
        if let Some(pending) = rows.get_mut(key) {
            pending.row = row;
            return;
        }
        rows.insert(key.into(), PendingRow { expectation, row });
        self.bytes += key.len() + WRITE_OVERHEAD_BYTES;
    }
}
