//! The newest rows, in memory, in key order, with their recent past.
//!
//! ```text
//!  Memtable ── one part for each table ─┬─ rows     tree: key ──▶ chain of versions
//!                                       └─ indexes  tree: value‖key           (one for each secondary index)
//!
//!  key bytes ──▶ chain: (ts 9, row) ─▶ (ts 7, removed) ─▶ (ts 4, row)
//!                        newest                              oldest somebody may still read
//! ```
//! [`tree`] is the ordered map and says what a look-up costs; [`chain`] is what lies in it; [`filter`] spares most look-ups of what is not
//! there. Several commits may write at
//! the same time, readers never wait for more than the copying of a few bytes. The versions of one key come in the order
//! of their commits, because a commit that meets another one on a key waits until that has put its rows in (see
//! `store/commit.rs`).
//!
//! A *frozen* memtable takes no new rows. When a row in it is changed, the new version goes to the active memtable and
//! the frozen chain gets a `removed` mark, so that a scan can take the union of both without comparing keys. The marks
//! are also noted in [`TableMemtable::superseded`]: a flush that is writing the old rows out re-maps them to the
//! segment's delete set before anybody sees the segment.
//!
//! Scans keep what they have converted to columns ([`pages`]) and convert only what is new the next time.
//!
//! Entries of secondary indexes lie beside the rows, `value‖key` in byte order. They are only added: an entry whose row
//! has another value by now, or none, is told by looking at the row (see [`crate::index`]).

mod chain;
mod differing;
mod directory;
mod filter;
mod leaf;
mod merge;
#[cfg(test)]
mod model;
mod numbered;
mod pages;
mod radix;
mod runs;
mod search;
mod slab;
mod tree;

use std::convert::Infallible;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use rustydb_txn::Timestamp;

use crate::catalog::{IndexId, TableDef, TableId};
use crate::encoding::KeyEncoder;
use crate::error::Result;
use crate::id_map::IdMap;
use crate::index::Interval;
use crate::segment::KeyHash;
use chain::Chain;
pub(crate) use chain::{ChainState, Horizon};
use filter::KeyFilter;
use leaf::Stamped;
use numbered::Numbered;
use pages::Pages;
pub(crate) use pages::{Page, Piece};
pub(crate) use runs::Runs;
use tree::{Tree, TreeBuilder};

/// Memory a key costs beside its bytes and its first version: the rest of its entry, its head, a quarter of a leaf's places that
/// are empty, and its share of the filter.
const KEY_OVERHEAD_BYTES: usize = 60;

/// Memory an index entry costs beside its bytes.
const ENTRY_OVERHEAD_BYTES: usize = 32;

/// So many bytes of the log are worth a flush as much as one in memory.
const LOGGED_PER_KEPT: usize = 4;

/// `value‖key` → length of the value.
type IndexEntries = Tree<u32>;

/// Entries of indexes never change.
impl Stamped for u32 {
    fn stamp(&self) -> u64 {
        0
    }

    fn has_ended(&self) -> bool {
        false
    }
}

/// One table's part of a memtable.
#[derive(Debug, Default)]
pub(crate) struct TableMemtable {
    rows: Tree<Chain>,
    filter: KeyFilter,
    keys: AtomicUsize,
    /// Keys whose row here was replaced or removed while the memtable was frozen, and when.
    superseded: Mutex<Vec<(Box<[u8]>, Timestamp)>>,
    indexes: Numbered<IndexEntries, 8>,
    pages: Pages,
}

/// A row an index look-up found.
#[derive(Debug)]
pub(crate) struct IndexedRow<'a> {
    pub(crate) value: &'a [u8],
    pub(crate) key: &'a [u8],
    pub(crate) row: Bytes,
}

impl TableMemtable {
    /// Lets `copy` put other places with the same bytes in for the rows of a part that a [`PartBuilder`] has made, leaf by
    /// leaf in the order of the keys.
    pub(crate) fn replace_rows(&mut self, mut copy: impl FnMut(&mut dyn Iterator<Item = &mut Bytes>)) {
        self.rows.for_each_leaf(|chains| copy(&mut chains.filter_map(Chain::newest_row_mut)));
    }

    /// The state at a timestamp of the key with this hash.
    pub(crate) fn get(&self, key: &[u8], hash: KeyHash, timestamp: Timestamp) -> ChainState {
        if self.filter.may_have(hash.0) { self.state(key, timestamp) } else { ChainState::Unknown }
    }

    /// The same of a key that is likely to be there.
    fn state(&self, key: &[u8], timestamp: Timestamp) -> ChainState {
        self.rows.get(key, |chain| chain.at(timestamp)).unwrap_or(ChainState::Unknown)
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
        let (mut found, mut last) = (0, None);
        self.walk_states((start, Bound::Unbounded), false, timestamp, |key, (row, written)| {
            if !skip(key) {
                visit(key, row, written);
                found += 1;
                if found == limit {
                    last = Some(key.into());
                    return ControlFlow::Break(());
                }
            }
            ControlFlow::Continue(())
        });
        last
    }

    /// Visits the rows visible at `timestamp` between two bounds, and when each was written.
    fn walk_states(
        &self,
        bounds: (Bound<&[u8]>, Bound<&[u8]>),
        descending: bool,
        timestamp: Timestamp,
        visit: impl FnMut(&[u8], (Bytes, Timestamp)) -> ControlFlow<()>,
    ) {
        let row = |chain: &Chain| {
            let version = chain.version(timestamp)?;
            version.row.clone().map(|row| (row, version.timestamp))
        };
        self.rows.walk(bounds, descending, timestamp, row, visit);
    }

    /// Visits the keys between two bounds, inclusive, that have a row at `timestamp`; stops when `visit` says so.
    pub(crate) fn any_key_between(
        &self,
        first: &[u8],
        last: &[u8],
        timestamp: Timestamp,
        mut visit: impl FnMut(&[u8]) -> bool,
    ) -> bool {
        let mut found = false;
        let has_row = |chain: &Chain| chain.version(timestamp)?.row.as_ref().map(drop);
        self.rows.walk((Bound::Included(first), Bound::Included(last)), false, timestamp, has_row, |key, ()| {
            found = visit(key);
            if found { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        found
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
        self.walk_states(interval.bounds(), descending, timestamp, |key, (row, _)| visit(key, row));
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
        let Some(entries) = self.indexes.get(index.0) else { return Ok(()) };
        let layout = &table.codec()?.rows;
        let mut current = Vec::new();
        let mut failed = Ok(());
        entries.walk(
            interval.bounds(),
            descending,
            timestamp,
            |length| Some(*length),
            |entry, length| {
                let (value, key) = entry.split_at(length as usize);
                let ChainState::Row(row, _) = self.state(key, timestamp) else { return ControlFlow::Continue(()) };
                if let Err(error) = encoder.encode_row(layout, &row, &mut current) {
                    failed = Err(error);
                    return ControlFlow::Break(());
                }
                if current == value { visit(IndexedRow { value, key, row }) } else { ControlFlow::Continue(()) }
            },
        );
        failed
    }

    /// Adds the newest version of a key. The commits of one key come here in their order. Returns by how much the memory
    /// held has changed.
    pub(crate) fn put(
        &self,
        table: &TableDef,
        key: &[u8],
        row: Option<Bytes>,
        timestamp: Timestamp,
        horizon: &Horizon<'_>,
    ) -> Result<isize> {
        let mut bytes = 0;
        if let Some(row) = row.as_deref().filter(|_| !table.indexes.is_empty()) {
            bytes = self.add_entries(table, key, row)?;
        }
        let (added, dropped) = self.rows.change(key, |chain| match chain {
            Some(chain) => {
                let dropped = chain.push(timestamp, row, horizon);
                (None, (chain.newest().memory_bytes(), dropped))
            }
            None => {
                let chain = Chain::of(timestamp, row);
                let added = KEY_OVERHEAD_BYTES + key.len() + chain.newest().memory_bytes();
                self.filter.insert(KeyHash::of(key).0);
                self.keys.fetch_add(1, Ordering::Relaxed);
                (Some(chain), (added, 0))
            }
        });
        if self.filter.is_crowded(self.keys()) {
            self.grow_filter();
        }
        Ok((bytes + added) as isize - dropped as isize)
    }

    #[cold]
    fn grow_filter(&self) {
        self.filter.grow(self.keys(), |note| {
            // As of the beginning of time nothing has ended, so that no leaf is passed over.
            self.rows.walk(
                (Bound::Unbounded, Bound::Unbounded),
                false,
                0,
                |_| Some(()),
                |key, ()| {
                    note(KeyHash::of(key).0);
                    ControlFlow::Continue(())
                },
            );
        });
    }

    /// Adds the entries of one row to the table's secondary indexes; returns the memory they take.
    fn add_entries(&self, table: &TableDef, key: &[u8], row: &[u8]) -> Result<usize> {
        let mut bytes = 0;
        let codec = table.codec()?;
        let mut entry = Vec::new();
        for (index, encoder) in table.indexes.iter().zip(&codec.indexes) {
            let (entries, _) = self.indexes.get_or_add(index.id.0, IndexEntries::default);
            encoder.encode_row(&codec.rows, row, &mut entry)?;
            let length = entry.len() as u32;
            entry.extend_from_slice(key);
            bytes += entries.change(&entry, |present| match present {
                Some(_) => (None, 0),
                None => (Some(length), entry.len() + ENTRY_OVERHEAD_BYTES),
            });
        }
        Ok(bytes)
    }

    /// Upper bound of the rows a scan can find: keys that have, or have had, a row here.
    pub(crate) fn keys(&self) -> usize {
        self.keys.load(Ordering::Relaxed)
    }

    /// Takes the marks set since the memtable was frozen.
    pub(crate) fn take_superseded(&self) -> Vec<(Box<[u8]>, Timestamp)> {
        std::mem::take(&mut self.superseded.lock())
    }
}

/// A table's part in the making, of rows whose keys come in ascending order.
#[derive(Debug, Default)]
pub(crate) struct PartBuilder {
    rows: TreeBuilder<Chain>,
    indexes: Numbered<IndexEntries, 8>,
    hashes: Vec<u64>,
    bytes: usize,
}

impl PartBuilder {
    pub(crate) fn push(&mut self, key: &[u8], row: Bytes, timestamp: Timestamp) {
        let chain = Chain::of(timestamp, Some(row));
        self.hashes.push(KeyHash::of(key).0);
        self.bytes += KEY_OVERHEAD_BYTES + key.len() + chain.newest().memory_bytes();
        self.rows.push(key, chain);
    }

    /// Adds the entries of an index, each with the length of its value.
    pub(crate) fn add_index(&mut self, index: IndexId, entries: Runs<u32>) {
        let mut tree = TreeBuilder::default();
        let Ok(()) = entries.into_each(|entry, length| {
            self.bytes += entry.len() + ENTRY_OVERHEAD_BYTES;
            tree.push(entry, length);
            Ok::<(), Infallible>(())
        });
        self.indexes.get_or_add(index.0, || tree.finish());
    }

    /// The part, and the memory it takes.
    pub(crate) fn finish(self) -> (TableMemtable, usize) {
        let PartBuilder { rows, indexes, hashes, bytes } = self;
        let (rows, keys) = (rows.finish(), AtomicUsize::new(hashes.len()));
        let filter = KeyFilter::for_keys(hashes.len());
        hashes.into_iter().for_each(|hash| filter.insert(hash));
        (TableMemtable { rows, filter, keys, indexes, ..TableMemtable::default() }, bytes)
    }
}

/// Rows of all tables since the last freeze.
#[derive(Debug, Default)]
pub(crate) struct Memtable {
    parts: Numbered<Arc<TableMemtable>, 64>,
    bytes: AtomicUsize,
    /// Rows that scans have converted.
    page_bytes: Arc<AtomicUsize>,
    /// What the log says of it, which may be far more than is kept.
    logged_bytes: AtomicUsize,
    /// How many keys each table had in the memtable before.
    keys_before: IdMap<TableId, usize>,
}

impl Memtable {
    /// An empty one that is likely to get about what this one has.
    pub(crate) fn successor(&self) -> Memtable {
        let keys_before = self.parts.iter().map(|(table, part)| (TableId(table), part.keys())).collect();
        Memtable { keys_before, ..Memtable::default() }
    }

    /// A table's part, if it has one.
    pub(crate) fn table(&self, table: TableId) -> Option<&Arc<TableMemtable>> {
        self.parts.get(table.0)
    }

    /// A table's part, new if need be.
    pub(crate) fn part(&self, table: TableId) -> &Arc<TableMemtable> {
        let part = || {
            let filter = KeyFilter::for_keys(self.keys_before.get(&table).copied().unwrap_or_default());
            Arc::new(TableMemtable { filter, pages: Pages::counted_by(&self.page_bytes), ..Default::default() })
        };
        self.parts.get_or_add(table.0, part).0
    }

    /// What readers need who see none but the commits so far, and of these tables only. Nothing may be written there.
    pub(crate) fn only(&self, tables: &[TableId]) -> Memtable {
        let only = Memtable::default();
        for (table, part) in tables.iter().filter_map(|table| Some((table, self.table(*table)?))) {
            only.parts.get_or_add(table.0, || Arc::clone(part));
        }
        only
    }

    /// Puts a table's part in, which takes so much memory. The table must have none.
    pub(crate) fn install(&self, table: TableId, mut part: TableMemtable, bytes: usize) {
        part.pages = Pages::counted_by(&self.page_bytes);
        assert!(self.parts.get_or_add(table.0, || Arc::new(part)).1, "a part is installed where there is none");
        self.note_memory(bytes as isize);
    }

    /// Adds entries for the rows that are here already, and were changed after `since`, to indexes that the table did not
    /// have before.
    pub(crate) fn index_rows(&self, table: &TableDef, since: Timestamp) -> Result<()> {
        let Some(part) = self.table(table.id) else { return Ok(()) };
        let rows = |chain: &Chain| Some(chain.versions().filter_map(|version| version.row.clone()).collect());
        let mut outcome = Ok(());
        part.rows.walk_since(since, (Bound::Unbounded, Bound::Unbounded), rows, |key, rows: Vec<Bytes>| {
            for row in rows {
                match part.add_entries(table, key, &row) {
                    Ok(bytes) => self.note_memory(bytes as isize),
                    Err(error) => {
                        outcome = Err(error);
                        return ControlFlow::Break(());
                    }
                }
            }
            ControlFlow::Continue(())
        });
        outcome
    }

    /// All parts.
    pub(crate) fn tables(&self) -> Vec<(TableId, Arc<TableMemtable>)> {
        self.parts.iter().map(|(id, part)| (TableId(id), Arc::clone(part))).collect()
    }

    /// All parts, each with its share of the memory, about.
    pub(crate) fn shares(&self) -> Vec<(Arc<TableMemtable>, usize)> {
        let parts: Vec<Arc<TableMemtable>> = self.parts.iter().map(|(_, part)| Arc::clone(part)).collect();
        let keys: usize = parts.iter().map(|part| part.keys()).sum();
        let share = |part: &TableMemtable| self.memory_bytes() as u128 * part.keys() as u128 / keys.max(1) as u128;
        parts.into_iter().map(|part| (Arc::clone(&part), share(&part) as usize)).collect()
    }

    /// Adds the newest version of a key.
    #[cfg(test)]
    pub(crate) fn put(
        &self,
        table: &TableDef,
        key: &[u8],
        row: Option<Bytes>,
        timestamp: Timestamp,
        watermark: Timestamp,
    ) -> Result<()> {
        let horizon = Horizon { watermark, ..Horizon::EVERYTHING };
        self.note_memory(self.part(table.id).put(table, key, row, timestamp, &horizon)?);
        Ok(())
    }

    /// Marks a key of this frozen memtable as replaced or removed.
    pub(crate) fn supersede(&self, table: TableId, key: &[u8], timestamp: Timestamp) {
        let Some(part) = self.table(table) else { return };
        let is_here = part.rows.change(key, |chain| {
            // Nothing is cut: a flush may still be reading the chain at the freeze timestamp.
            let pushed = chain.map(|chain| chain.push(timestamp, None, &Horizon::EVERYTHING));
            (None, pushed.is_some())
        });
        if is_here {
            part.superseded.lock().push((key.into(), timestamp));
        }
    }

    /// Counts memory that [`TableMemtable::put`] has taken or given back.
    pub(crate) fn note_memory(&self, bytes: isize) {
        if bytes >= 0 {
            self.bytes.fetch_add(bytes as usize, Ordering::Relaxed);
        } else {
            self.bytes.fetch_sub(bytes.unsigned_abs(), Ordering::Relaxed);
        }
    }

    /// Counts bytes of the log that a flush will make superfluous.
    pub(crate) fn note_logged(&self, bytes: usize) {
        self.logged_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Whether nothing was logged since the last flush. Deletes of rows in segments leave nothing else behind.
    pub(crate) fn is_untouched(&self) -> bool {
        self.memory_bytes() == 0 && self.logged_bytes.load(Ordering::Relaxed) == 0
    }

    /// How full it is if `limit` bytes of memory make it full: 1.0 and more means that it should be written out. A log
    /// that takes long to replay is a reason, too, however little of it is still there.
    pub(crate) fn fullness(&self, limit: usize) -> f64 {
        let logged = self.logged_bytes.load(Ordering::Relaxed) / LOGGED_PER_KEPT;
        self.memory_bytes().max(logged) as f64 / limit.max(1) as f64
    }

    /// Memory held, estimated.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed) + self.page_bytes.load(Ordering::Relaxed)
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

    fn state(part: &TableMemtable, key: &[u8], timestamp: Timestamp) -> ChainState {
        part.get(key, KeyHash::of(key), timestamp)
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
        assert_eq!(state(table, b"k", 0), ChainState::Unknown);
        assert_eq!(state(table, b"k", 2), ChainState::Row(row("one").unwrap(), 1));
        assert_eq!(state(table, b"k", 4), ChainState::Removed);
        assert_eq!(state(table, b"k", 9), ChainState::Row(row("two").unwrap(), 5));
        assert_eq!(state(table, b"other", 9), ChainState::Unknown);
    }

    #[test]
    fn a_chain_stays_short_and_keeps_what_the_watermark_needs() {
        let memtable = Memtable::default();
        for timestamp in 1..=1000_u64 {
            memtable.put(&table(), b"k", row("x"), timestamp, timestamp.saturating_sub(3)).unwrap();
        }
        let table = memtable.table(TABLE).unwrap();
        let kept = (1..=1000).filter(|at| matches!(state(table, b"k", *at), ChainState::Row(_, _))).count();
        assert!(kept < 24, "{kept} versions are still there");
        assert!(memtable.memory_bytes() < 24 * 100, "{} bytes are accounted", memtable.memory_bytes());
        for at in 997..=1000 {
            assert_eq!(state(table, b"k", at), ChainState::Row(row("x").unwrap(), at));
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
