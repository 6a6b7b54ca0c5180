//! What a transaction has changed and not committed.
//!
//! Row changes are kept by key, in memory, bounded; bulk loads are segments on disk that nobody else can see. A clone
//! shares everything until one side changes, so a statement can read the state it started from while it writes.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use roaring::RoaringBitmap;
use rustydb_txn::Expectation;

use super::mark::UndoLog;
use crate::catalog::{ForeignKey, IndexId, TableDef, TableId};
use crate::encoding::Key;
use crate::error::Result;
use crate::id_map::IdMap;
use crate::segment::Segment;
use crate::store::Place;

/// Memory a pending change costs beside its key and row.
const WRITE_OVERHEAD_BYTES: usize = 120;

/// Memory that the first change of a key takes beside its row.
pub(super) fn key_bytes(table: &TableDef, key: &[u8]) -> usize {
    key.len() + WRITE_OVERHEAD_BYTES * (1 + table.indexes.len())
}

/// Fails if one of these rows cannot be in the indexes of its table. Asked of all new rows of a statement before the first of
/// them is [set](Writes::set), for a statement that fails has changed nothing.
pub(super) fn require_indexable<'r>(table: &TableDef, mut rows: impl Iterator<Item = &'r Bytes>) -> Result<()> {
    if table.indexes.is_empty() {
        return Ok(());
    }
    let codec = table.codec()?;
    rows.try_for_each(|row| codec.indexes.iter().try_for_each(|encoder| encoder.check_row(&codec.rows, row)))
}

/// The pending state of one key.
#[derive(Debug, Clone)]
pub(crate) struct PendingRow {
    /// Where the snapshot showed the row that has this key, when the key was first written; `None` if it showed none.
    pub(crate) replaced: Option<Place>,
    /// The row, or `None` if the transaction has deleted it.
    pub(crate) row: Option<Bytes>,
}

impl PendingRow {
    /// What the snapshot showed when the key was first written.
    pub(crate) fn expectation(&self) -> Expectation {
        if self.replaced.is_some() { Expectation::Present } else { Expectation::Absent }
    }

    /// Whether others will notice: a row that was inserted and deleted again is nothing.
    pub(crate) fn changes_anything(&self) -> bool {
        self.row.is_some() || self.replaced.is_some()
    }
}

/// Pending changes of one table.
#[derive(Debug, Clone, Default)]
pub(crate) struct TableWrites {
    pub(crate) rows: BTreeMap<Key, PendingRow>,
    /// Rows of segments (committed or staged) that this transaction hides from itself.
    pub(crate) removed: IdMap<u64, RoaringBitmap>,
    /// Segments a bulk load of this transaction wrote.
    pub(crate) staged: Vec<Arc<Segment>>,
    /// The pending rows in the order of each index: `value‖key` and the length of the value.
    pub(crate) entries: IdMap<IndexId, BTreeMap<Box<[u8]>, u32>>,
}

impl TableWrites {
    pub(crate) fn is_removed(&self, segment: u64, row: u32) -> bool {
        self.removed.get(&segment).is_some_and(|rows| rows.contains(row))
    }

    /// Whether a commit takes away the row that has this key: it writes the key, and not just a row of its own that it
    /// has deleted again, beside which others may have inserted theirs.
    pub(crate) fn replaces(&self, key: &[u8]) -> bool {
        self.rows.get(key).is_some_and(PendingRow::changes_anything)
    }

    /// Whether it may take away what a foreign key refers to: rows, or other values than those of the primary key.
    pub(crate) fn may_end(&self, table: &TableDef, reference: &ForeignKey) -> bool {
        let by_key = reference.parent_columns.iter().all(|column| table.primary_key.contains(column));
        self.rows.values().any(|pending| pending.replaced.is_some() && (pending.row.is_none() || !by_key))
    }

    /// The keys whose rows of the snapshot it replaces or removes, in order.
    pub(crate) fn replaced_keys(&self) -> Vec<&[u8]> {
        self.rows.iter().filter(|(_, pending)| pending.replaced.is_some()).map(|(key, _)| &**key).collect()
    }

    /// Adds entries for all pending rows, of which there may be some before there is the index.
    pub(crate) fn index_all(&mut self, table: &TableDef, undo: &mut UndoLog) -> Result<()> {
        let rows: Vec<_> =
            self.rows.iter().filter_map(|(key, pending)| Some((key.clone(), pending.row.clone()?))).collect();
        rows.iter().try_for_each(|(key, row)| self.change_entries(table, key, row, true, undo))
    }

    /// Adds or removes the index entries of a pending row.
    fn change_entries(
        &mut self,
        table: &TableDef,
        key: &[u8],
        row: &[u8],
        add: bool,
        undo: &mut UndoLog,
    ) -> Result<()> {
        let codec = table.codec()?;
        for (index, encoder) in table.indexes.iter().zip(&codec.indexes) {
            let mut entry = Vec::new();
            encoder.encode_row(&codec.rows, row, &mut entry)?;
            let length = entry.len() as u32;
            entry.extend_from_slice(key);
            let entries = self.entries.entry(index.id).or_default();
            let entry: Box<[u8]> = entry.into();
            undo.note_entry(table.id, index.id, &entry, |entry| entries.get(entry).copied());
            if add {
                entries.insert(entry, length);
            } else {
                entries.remove(&entry);
            }
        }
        Ok(())
    }

    fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.staged.is_empty() && self.removed.is_empty()
    }
}

/// All transactions count in one number, so each counts beforehand what it may take soon.
const CHARGED_BYTES_MIN: usize = 4 * 1024;

/// Memory that pending changes take, counted in a total of all transactions of a store. A copy is counted again.
#[derive(Debug, Default)]
pub(super) struct Charge {
    bytes: usize,
    /// As much of it as is in the total, and a little more: whole [`CHARGED_BYTES_MIN`].
    counted: usize,
    total: Arc<AtomicUsize>,
}

impl Charge {
    /// Nothing yet; what comes is counted in `total`, too.
    pub(super) fn counted_in(total: &Arc<AtomicUsize>) -> Charge {
        Charge { bytes: 0, counted: 0, total: Arc::clone(total) }
    }

    pub(super) fn add(&mut self, bytes: usize) {
        self.bytes += bytes;
        if self.bytes > self.counted {
            self.count();
        }
    }

    fn count(&mut self) {
        let counted = self.bytes.next_multiple_of(CHARGED_BYTES_MIN);
        self.total.fetch_add(counted, Ordering::Relaxed);
        self.total.fetch_sub(self.counted, Ordering::Relaxed);
        self.counted = counted;
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn set(&mut self, bytes: usize) {
        self.bytes = bytes;
        self.count();
    }
}

impl Clone for Charge {
    fn clone(&self) -> Self {
        let mut copy = Charge { bytes: 0, counted: 0, total: Arc::clone(&self.total) };
        copy.add(self.bytes);
        copy
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.total.fetch_sub(self.counted, Ordering::Relaxed);
    }
}

/// Pending changes of a transaction.
#[derive(Debug, Clone, Default)]
pub(crate) struct Writes {
    tables: BTreeMap<TableId, Arc<TableWrites>>,
    charge: Charge,
}

impl Writes {
    /// No changes yet; what comes is counted in `total`.
    pub(crate) fn counted_in(total: &Arc<AtomicUsize>) -> Writes {
        Writes { tables: BTreeMap::new(), charge: Charge::counted_in(total) }
    }

    pub(crate) fn table(&self, table: TableId) -> Option<&Arc<TableWrites>> {
        self.tables.get(&table)
    }

    pub(crate) fn table_mut(&mut self, table: TableId) -> &mut TableWrites {
        Arc::make_mut(self.tables.entry(table).or_default())
    }

    pub(crate) fn tables(&self) -> impl Iterator<Item = (TableId, &Arc<TableWrites>)> {
        self.tables.iter().map(|(id, writes)| (*id, writes))
    }

    pub(crate) fn tables_mut(&mut self) -> impl Iterator<Item = (TableId, &mut Arc<TableWrites>)> {
        self.tables.iter_mut().map(|(id, writes)| (*id, writes))
    }

    pub(crate) fn forget_table(&mut self, table: TableId) {
        self.tables.remove(&table);
    }

    /// The tables of which something is changed.
    pub(super) fn changed_tables(&self) -> impl Iterator<Item = TableId> {
        self.tables.iter().filter(|(_, writes)| !writes.is_empty()).map(|(id, _)| *id)
    }

    /// Whether tables are known of which nothing is changed any more.
    pub(super) fn has_unchanged(&self) -> bool {
        self.tables.values().any(|writes| writes.is_empty())
    }

    /// Forgets those, among which are the ones that are no longer there.
    pub(super) fn forget_unchanged(&mut self) {
        self.tables.retain(|_, writes| !writes.is_empty());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.tables.values().all(|writes| writes.is_empty())
    }

    /// Whether a bulk load is part of it.
    pub(crate) fn has_staged(&self) -> bool {
        self.tables.values().any(|writes| !writes.staged.is_empty())
    }

    /// Memory held by row changes, estimated.
    pub(crate) fn bytes(&self) -> usize {
        self.charge.bytes
    }

    /// Sets what row changes are estimated to hold: after some were undone.
    pub(super) fn set_bytes(&mut self, bytes: usize) {
        self.charge.set(bytes);
    }

    /// The same of all transactions.
    pub(crate) fn total_bytes(&self) -> usize {
        self.charge.total.load(Ordering::Relaxed)
    }

    /// Sets the pending state of a key. What its first change has `replaced` stays. The row can be in the table's indexes
    /// ([`require_indexable`]).
    pub(crate) fn set(
        &mut self,
        table: &TableDef,
        key: Key,
        replaced: Option<Place>,
        row: Option<Bytes>,
        undo: &mut UndoLog,
    ) -> Result<()> {
        let mut bytes = row.as_ref().map_or(0, Bytes::len);
        let writes = self.table_mut(table.id);
        if !table.indexes.is_empty() {
            let before = writes.rows.get(&*key).and_then(|pending| pending.row.clone());
            if let Some(before) = before {
                writes.change_entries(table, &key, &before, false, undo)?;
            }
            if let Some(row) = &row {
                writes.change_entries(table, &key, row, true, undo)?;
            }
        }
        match writes.rows.entry(key) {
            Entry::Occupied(mut pending) => {
                undo.note_row(table.id, pending.key(), Some(pending.get()));
                pending.get_mut().row = row;
            }
            Entry::Vacant(place) => {
                undo.note_row(table.id, place.key(), None);
                bytes += key_bytes(table, place.key());
                place.insert(PendingRow { replaced, row });
            }
        }
        self.charge.add(bytes);
        Ok(())
    }

    /// Hides a row of a segment.
    pub(crate) fn hide(&mut self, table: TableId, segment: u64, row: u32, undo: &mut UndoLog) {
        if self.table_mut(table).removed.entry(segment).or_default().insert(row) {
            undo.note_hidden(table, segment, row);
        }
    }
}
