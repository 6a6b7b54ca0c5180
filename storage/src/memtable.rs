//! The newest rows, in memory, in key order, with their recent past.
//!
//! ```text
//!  key bytes ──▶ chain: (ts 9, row) ─▶ (ts 7, removed) ─▶ (ts 4, row)
//!                        newest                              oldest somebody may still read
//! ```
//! Readers never wait: the index is a lock-free skip list, a chain is a linked list that only grows at its head and is
//! only cut at its tail. Writers are serialised by the store's commit lock, so a chain has one writer at a time.
//!
//! A *frozen* memtable takes no new rows. When a row in it is changed, the new version goes to the active memtable and
//! the frozen chain gets a `removed` mark, so that a scan can take the union of both without comparing keys. The marks
//! are also noted in [`TableMemtable::superseded`]: a flush that is writing the old rows out re-maps them to the
//! segment's delete set before anybody sees the segment.
//!
//! Entries of secondary indexes lie beside the rows, `value‖key` in byte order. They are only added: an entry whose row
//! has another value by now, or none, is told by looking at the row (see [`crate::index`]).

use std::collections::HashMap;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use crossbeam_skiplist::SkipMap;
use crossbeam_skiplist::map::Entry;
use parking_lot::{Mutex, RwLock};
use rustydb_txn::Timestamp;

use crate::catalog::{IndexId, TableDef, TableId};
use crate::encoding::KeyEncoder;
use crate::error::Result;
use crate::index::Interval;

/// Memory one version costs beside its key and row: skip-list node, chain head, version and their counters.
const VERSION_OVERHEAD_BYTES: usize = 160;

/// Memory an index entry costs beside its bytes: a skip-list node and the box.
const ENTRY_OVERHEAD_BYTES: usize = 64;

#[derive(Debug)]
struct Version {
    timestamp: Timestamp,
    /// `None`: the key has no row from this timestamp on.
    row: Option<Bytes>,
    older: ArcSwapOption<Version>,
    /// Versions in the chain from here on, at most.
    length: usize,
    /// The chain is cut when it gets this long.
    cut_at: usize,
}

/// Chains shorter than this are not worth cutting.
const CUT_LENGTH_MIN: usize = 8;

impl Drop for Version {
    /// Unlinks the rest of the chain in a loop; the derived drop would recurse once per version.
    fn drop(&mut self) {
        let mut next = self.older.swap(None);
        while let Some(version) = next.and_then(Arc::into_inner) {
            next = version.older.swap(None);
        }
    }
}

/// The versions of one key.
#[derive(Debug)]
struct Chain {
    newest: ArcSwapOption<Version>,
}

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

impl Chain {
    /// A chain of one version.
    fn of(timestamp: Timestamp, row: Option<Bytes>) -> Chain {
        let version = Version { timestamp, row, older: ArcSwapOption::empty(), length: 1, cut_at: CUT_LENGTH_MIN };
        Chain { newest: ArcSwapOption::from_pointee(version) }
    }

    fn at(&self, timestamp: Timestamp) -> ChainState {
        let mut next = self.newest.load_full();
        while let Some(version) = next {
            if version.timestamp <= timestamp {
                return match &version.row {
                    Some(row) => ChainState::Row(row.clone(), version.timestamp),
                    None => ChainState::Removed,
                };
            }
            next = version.older.load_full();
        }
        ChainState::Unknown
    }

    /// Adds a newest version and, now and then, drops those that nobody at or after `watermark` can reach. A chain is
    /// looked through again when it has doubled, so a snapshot that keeps it long does not make each push slow.
    fn push(&self, timestamp: Timestamp, row: Option<Bytes>, watermark: Timestamp) {
        let older = self.newest.load_full();
        let (mut length, mut cut_at) =
            older.as_ref().map_or((1, CUT_LENGTH_MIN), |older| (older.length + 1, older.cut_at));
        if length >= cut_at {
            length = 1 + older.as_ref().map_or(0, |older| cut(older, watermark));
            cut_at = CUT_LENGTH_MIN.max(2 * length);
        }
        let version = Version { timestamp, row, older: ArcSwapOption::from(older), length, cut_at };
        self.newest.store(Some(Arc::new(version)));
    }
}

/// Cuts a chain behind the newest version that a reader at `watermark` sees; returns how many are left.
fn cut(newest: &Arc<Version>, watermark: Timestamp) -> usize {
    let mut left = 1;
    let mut version = Arc::clone(newest);
    while version.timestamp > watermark {
        let Some(older) = version.older.load_full() else { return left };
        version = older;
        left += 1;
    }
    version.older.store(None);
    left
}

/// One table's part of a memtable.
#[derive(Debug, Default)]
pub(crate) struct TableMemtable {
    chains: SkipMap<Box<[u8]>, Chain>,
    versions: AtomicUsize,
    /// Keys whose row here was replaced or removed while the memtable was frozen, and when.
    superseded: Mutex<Vec<(Box<[u8]>, Timestamp)>>,
    indexes: RwLock<HashMap<IndexId, Arc<IndexEntries>>>,
}

/// `value‖key` → length of the value.
type IndexEntries = SkipMap<Box<[u8]>, u32>;

/// A row an index look-up found.
#[derive(Debug)]
pub(crate) struct IndexedRow<'a> {
    pub(crate) value: &'a [u8],
    pub(crate) key: &'a [u8],
    pub(crate) row: Bytes,
}

impl TableMemtable {
    /// The key's state at a timestamp.
    pub(crate) fn get(&self, key: &[u8], timestamp: Timestamp) -> ChainState {
        self.chains.get(key).map_or(ChainState::Unknown, |entry| entry.value().at(timestamp))
    }

    /// Collects up to `limit` rows visible at `timestamp` whose keys come after `after` (from the start if `None`),
    /// leaving out keys that `skip` names. Returns the last key looked at if there may be more.
    pub(crate) fn collect_visible(
        &self,
        after: Option<&[u8]>,
        timestamp: Timestamp,
        limit: usize,
        skip: impl Fn(&[u8]) -> bool,
        mut visit: impl FnMut(&[u8], Bytes, Timestamp),
    ) -> Option<Box<[u8]>> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut found = 0;
        for entry in self.chains.range::<[u8], _>((start, Bound::Unbounded)) {
            if let ChainState::Row(row, written) = entry.value().at(timestamp)
                && !skip(entry.key())
            {
                visit(entry.key(), row, written);
                found += 1;
                if found == limit {
                    return Some(entry.key().clone());
                }
            }
        }
        None
    }

    /// Visits the keys between two bounds, inclusive, that have a row at `timestamp`; stops when `visit` says so.
    pub(crate) fn any_key_between(
        &self,
        first: &[u8],
        last: &[u8],
        timestamp: Timestamp,
        mut visit: impl FnMut(&[u8]) -> bool,
    ) -> bool {
        self.chains
            .range::<[u8], _>((Bound::Included(first), Bound::Included(last)))
            .any(|entry| matches!(entry.value().at(timestamp), ChainState::Row(..)) && visit(entry.key()))
    }

    /// Visits the rows visible at `timestamp` whose keys lie in `interval`, in key order or against it, until `visit`
    /// says stop.
    pub(crate) fn walk(
        &self,
        interval: &Interval,
        descending: bool,
        timestamp: Timestamp,
        mut visit: impl FnMut(&[u8], Bytes) -> ControlFlow<()>,
    ) {
        let range = self.chains.range::<[u8], _>(interval.bounds());
        let mut each = |entry: Entry<'_, Box<[u8]>, Chain>| match entry.value().at(timestamp) {
            ChainState::Row(row, _) => visit(entry.key(), row),
            ChainState::Removed | ChainState::Unknown => ControlFlow::Continue(()),
        };
        let _ =
            if descending { range.rev().try_for_each(&mut each) } else { range.into_iter().try_for_each(&mut each) };
    }

    /// The same in the order of an index, for the rows whose index value lies in `interval`. `encoder` makes the
    /// index's values from rows of the table.
    pub(crate) fn walk_index(
        &self,
        (index, encoder): (IndexId, &KeyEncoder),
        table: &TableDef,
        interval: &Interval,
        descending: bool,
        timestamp: Timestamp,
        mut visit: impl FnMut(IndexedRow<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        let Some(entries) = self.indexes.read().get(&index).cloned() else { return Ok(()) };
        let layout = &table.codec()?.rows;
        let mut current = Vec::new();
        let mut failed = Ok(());
        let mut each = |entry: Entry<'_, Box<[u8]>, u32>| {
            let (value, key) = entry.key().split_at(*entry.value() as usize);
            let ChainState::Row(row, _) = self.get(key, timestamp) else { return ControlFlow::Continue(()) };
            if let Err(error) = encoder.encode_row(layout, &row, &mut current) {
                failed = Err(error);
                return ControlFlow::Break(());
            }
            if current == value { visit(IndexedRow { value, key, row }) } else { ControlFlow::Continue(()) }
        };
        let range = entries.range::<[u8], _>(interval.bounds());
        let _ =
            if descending { range.rev().try_for_each(&mut each) } else { range.into_iter().try_for_each(&mut each) };
        failed
    }

    /// Adds the entries of one row to the table's secondary indexes; returns the memory they take.
    fn add_entries(&self, table: &TableDef, key: &[u8], row: &[u8]) -> Result<usize> {
        let mut bytes = 0;
        let codec = table.codec()?;
        for (index, encoder) in table.indexes.iter().zip(&codec.indexes) {
            let entries = self.indexes.read().get(&index.id).cloned();
            let entries = entries.unwrap_or_else(|| Arc::clone(self.indexes.write().entry(index.id).or_default()));
            let mut entry = Vec::new();
            encoder.encode_row(&codec.rows, row, &mut entry)?;
            let length = entry.len() as u32;
            entry.extend_from_slice(key);
            bytes += entry.len() + ENTRY_OVERHEAD_BYTES;
            entries.get_or_insert(entry.into_boxed_slice(), length);
        }
        Ok(bytes)
    }

    /// Upper bound of the rows a scan can find.
    pub(crate) fn versions(&self) -> usize {
        self.versions.load(Ordering::Relaxed)
    }

    /// Takes the marks set since the memtable was frozen.
    pub(crate) fn take_superseded(&self) -> Vec<(Box<[u8]>, Timestamp)> {
        std::mem::take(&mut self.superseded.lock())
    }
}

/// Rows of all tables since the last freeze.
#[derive(Debug, Default)]
pub(crate) struct Memtable {
    tables: RwLock<HashMap<TableId, Arc<TableMemtable>>>,
    bytes: AtomicUsize,
}

impl Memtable {
    /// A table's part, if it has one.
    pub(crate) fn table(&self, table: TableId) -> Option<Arc<TableMemtable>> {
        self.tables.read().get(&table).cloned()
    }

    /// Adds entries for the rows that are here already to indexes that the table did not have before.
    pub(crate) fn index_all(&self, table: &TableDef) -> Result<()> {
        let Some(part) = self.table(table.id) else { return Ok(()) };
        for entry in part.chains.iter() {
            let mut next = entry.value().newest.load_full();
            while let Some(version) = next {
                if let Some(row) = &version.row {
                    self.bytes.fetch_add(part.add_entries(table, entry.key(), row)?, Ordering::Relaxed);
                }
                next = version.older.load_full();
            }
        }
        Ok(())
    }

    /// All parts.
    pub(crate) fn tables(&self) -> Vec<(TableId, Arc<TableMemtable>)> {
        self.tables.read().iter().map(|(id, table)| (*id, Arc::clone(table))).collect()
    }

    /// Adds the newest version of a key. Called under the commit lock with growing timestamps.
    pub(crate) fn put(
        &self,
        table: &TableDef,
        key: &[u8],
        row: Option<Bytes>,
        timestamp: Timestamp,
        watermark: Timestamp,
    ) -> Result<()> {
        let part = self.table(table.id).unwrap_or_else(|| Arc::clone(self.tables.write().entry(table.id).or_default()));
        if let Some(row) = row.as_deref().filter(|_| !table.indexes.is_empty()) {
            self.bytes.fetch_add(part.add_entries(table, key, row)?, Ordering::Relaxed);
        }
        self.bytes
            .fetch_add(key.len() + row.as_ref().map_or(0, Bytes::len) + VERSION_OVERHEAD_BYTES, Ordering::Relaxed);
        part.versions.fetch_add(1, Ordering::Relaxed);
        let mut version = Some(row);
        let first = || Chain::of(timestamp, version.take().flatten());
        let entry = part.chains.get_or_insert_with(key.into(), first);
        if let Some(row) = version {
            entry.value().push(timestamp, row, watermark);
        }
        Ok(())
    }

    /// Marks a key of this frozen memtable as replaced or removed.
    pub(crate) fn supersede(&self, table: TableId, key: &[u8], timestamp: Timestamp) {
        if let Some(part) = self.table(table)
            && let Some(entry) = part.chains.get(key)
        {
            // The watermark 0 cuts nothing: a flush may still be reading the chain at the freeze timestamp.
            entry.value().push(timestamp, None, 0);
            part.superseded.lock().push((key.into(), timestamp));
        }
    }

    /// Memory held, estimated.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;
    use crate::catalog::NewTable;

    const TABLE: TableId = TableId(1);

    fn table() -> TableDef {
        let schema = Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, false)]));
        let (schema_name, name) = ("public".to_string(), "t".to_string());
        let table = NewTable { schema_name, name, schema, primary_key: vec![0], foreign_keys: vec![], indexes: vec![] };
        TableDef::new(TABLE, IndexId(2), table).unwrap()
    }

    fn row(text: &'static str) -> Option<Bytes> {
        Some(Bytes::from_static(text.as_bytes()))
    }

    fn visible(memtable: &Memtable, timestamp: Timestamp) -> Vec<(Vec<u8>, Bytes)> {
        let mut rows = Vec::new();
        let table = memtable.table(TABLE).unwrap();
        table.collect_visible(None, timestamp, usize::MAX, |_| false, |key, row, _| rows.push((key.to_vec(), row)));
        rows
    }

    #[test]
    fn each_snapshot_sees_its_own_version() {
        let memtable = Memtable::default();
        memtable.put(&table(), b"k", row("one"), 1, 0).unwrap();
        memtable.put(&table(), b"k", None, 3, 0).unwrap();
        memtable.put(&table(), b"k", row("two"), 5, 0).unwrap();
        let table = memtable.table(TABLE).unwrap();
        assert_eq!(table.get(b"k", 0), ChainState::Unknown);
        assert_eq!(table.get(b"k", 2), ChainState::Row(row("one").unwrap(), 1));
        assert_eq!(table.get(b"k", 4), ChainState::Removed);
        assert_eq!(table.get(b"k", 9), ChainState::Row(row("two").unwrap(), 5));
        assert_eq!(table.get(b"other", 9), ChainState::Unknown);
    }

    #[test]
    fn a_chain_stays_short_and_keeps_what_the_watermark_needs() {
        let memtable = Memtable::default();
        for timestamp in 1..=1000_u64 {
            memtable.put(&table(), b"k", row("x"), timestamp, timestamp.saturating_sub(3)).unwrap();
        }
        let table = memtable.table(TABLE).unwrap();
        let kept = (1..=1000).filter(|at| matches!(table.get(b"k", *at), ChainState::Row(_, _))).count();
        assert!(kept < 3 * CUT_LENGTH_MIN, "{kept} versions are still there");
        for at in 997..=1000 {
            assert_eq!(table.get(b"k", at), ChainState::Row(row("x").unwrap(), at));
        }
    }

    #[test]
    fn a_scan_goes_on_where_it_stopped() {
        let memtable = Memtable::default();
        for key in [b"a", b"b", b"c", b"d"] {
            memtable.put(&table(), key, row("x"), 1, 0).unwrap();
        }
        let table = memtable.table(TABLE).unwrap();
        let mut keys = Vec::new();
        let mut after: Option<Box<[u8]>> = None;
        loop {
            let next =
                table.collect_visible(after.as_deref(), 1, 2, |key| key == b"b", |key, _, _| keys.push(key.to_vec()));
            if next.is_none() {
                break;
            }
            after = next;
        }
        assert_eq!(keys, [b"a", b"c", b"d"]);
    }

    #[test]
    fn a_superseded_row_is_hidden_from_newer_snapshots_only() {
        let memtable = Memtable::default();
        memtable.put(&table(), b"k", row("old"), 1, 0).unwrap();
        memtable.supersede(TABLE, b"k", 4);
        assert_eq!(visible(&memtable, 3).len(), 1);
        assert_eq!(visible(&memtable, 4).len(), 0);
        assert_eq!(memtable.table(TABLE).unwrap().take_superseded(), vec![(b"k".as_slice().into(), 4)]);
    }

    #[test]
    fn a_very_long_chain_is_dropped_without_recursion() {
        let memtable = Memtable::default();
        for timestamp in 1..=200_000 {
            memtable.put(&table(), b"k", None, timestamp, 0).unwrap();
        }
        drop(memtable);
    }
}
