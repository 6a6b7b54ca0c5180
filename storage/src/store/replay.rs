//! The row changes of a log, put in place all at once.
//!
//! ```text
//!   log ── puts, deletes ──▶ a batch for each table: key, place of the row in the log, timestamp    in the order of the log
//!                                 │ sort by key, keep the last change of each
//!                                 ├──▶ segments: rows that have been replaced or removed, found by merging
//!                                 └──▶ memtable: leaves built one after the other, and indexes likewise
//! ```
//! Nobody reads yet and no snapshot of the past will ever be taken, so of all versions of a row only the last one counts,
//! and what it replaces is gone for everybody. Searching a tree for each record of the log would cost several times as much
//! as sorting them all.
//!
//! Rows are not copied: they stay in the windows in which the log was read, and a window lives as long as a row in it does.
//! Windows with little in them that counts are not kept; their rows are copied.
//!
//! *Which rows of segments are replaced.* A change of a key ends the rows of that key which were there before, so those of
//! segments that came with an earlier commit, or with the manifest. A key may have been deleted first and then loaded; since
//! the newest change ends all that an older one did and what came between, looking at the newest one of each key is enough.

use std::sync::Arc;

use bytes::Bytes;
use roaring::RoaringBitmap;
use rustydb_txn::Timestamp;

use super::Version;
use crate::catalog::{TableDef, TableId};
use crate::error::{Error, Result};
use crate::memtable::{Batch, TableMemtable};
use crate::segment::Segment;

/// With less than this in windows, superfluous versions stay where they are.
const SETTLED_BYTES_MIN: usize = 256 << 20;

/// Rows copied together.
const COPIED_BYTES: usize = 1 << 20;

/// A window is kept if this share of it counts.
const KEPT_SHARE: usize = 2;

/// Where a row lies.
#[derive(Debug, Clone, Copy)]
struct RowPlace {
    window: u32,
    start: u32,
    length: u32,
}

/// The place of the row of a key that has none.
const REMOVED: RowPlace = RowPlace { window: u32::MAX, start: 0, length: 0 };

/// The last change of a row, and its commit.
#[derive(Debug, Clone, Copy)]
struct Change {
    timestamp: Timestamp,
    row: RowPlace,
}

impl Change {
    fn row(&self) -> Option<RowPlace> {
        (self.row.window != REMOVED.window).then_some(self.row)
    }
}

/// A table's changes.
#[derive(Debug)]
struct TableChanges {
    table: Arc<TableDef>,
    batch: Batch<Change>,
}

/// All changes of the log so far.
#[derive(Debug)]
pub(super) struct RowChanges {
    /// Ascending by id.
    tables: Vec<TableChanges>,
    /// The position of the table that was changed last.
    last: usize,
    windows: Vec<Bytes>,
    window_bytes: usize,
    /// Beyond this, superfluous versions are dropped.
    settle_bytes: usize,
}

impl Default for RowChanges {
    fn default() -> Self {
        let (tables, windows) = (Vec::new(), Vec::new());
        RowChanges { tables, last: 0, windows, window_bytes: 0, settle_bytes: SETTLED_BYTES_MIN }
    }
}

impl RowChanges {
    /// Rows come from this window from now on.
    pub(super) fn begin_window(&mut self, window: &Bytes) {
        if self.windows.last().is_none_or(|last| last.as_ptr() != window.as_ptr()) {
            self.window_bytes += window.len();
            self.windows.push(window.clone());
        }
    }

    /// The changes of a table that `find` knows.
    fn of(&mut self, table: TableId, find: impl FnOnce() -> Result<Arc<TableDef>>) -> Result<&mut TableChanges> {
        if self.tables.get(self.last).is_none_or(|last| last.table.id != table) {
            self.last = match self.tables.binary_search_by_key(&table, |changes| changes.table.id) {
                Ok(position) => position,
                Err(position) => {
                    self.tables.insert(position, TableChanges { table: find()?, batch: Batch::default() });
                    position
                }
            };
        }
        Ok(&mut self.tables[self.last])
    }

    /// A row was written, which lies in the current window.
    pub(super) fn put(
        &mut self,
        table: TableId,
        row: &[u8],
        timestamp: Timestamp,
        find: impl FnOnce() -> Result<Arc<TableDef>>,
    ) -> Result<()> {
        let window = self.windows.last().ok_or_else(|| Error::Internal("a row without a window".into()))?;
        let start = row.as_ptr().addr().wrapping_sub(window.as_ptr().addr());
        let number = |number: usize| {
            u32::try_from(number).map_err(|_| Error::Internal(format!("a row {number} bytes into a record")))
        };
        let window = number(self.windows.len() - 1)?;
        let row_place = RowPlace { window, start: number(start)?, length: number(row.len())? };
        let TableChanges { table, batch } = self.of(table, find)?;
        let codec = table.codec()?;
        codec.rows.validate(row).map_err(Error::Internal)?;
        batch.push(|key| {
            codec.keys.append_row(&codec.rows, row, key)?;
            Ok(Change { timestamp, row: row_place })
        })
    }

    /// A row was removed.
    pub(super) fn delete(
        &mut self,
        table: TableId,
        key: &[u8],
        timestamp: Timestamp,
        find: impl FnOnce() -> Result<Arc<TableDef>>,
    ) -> Result<()> {
        let changes = self.of(table, find)?;
        changes.batch.push(|bytes| {
            bytes.extend_from_slice(key);
            Ok(Change { timestamp, row: REMOVED })
        })
    }

    /// Forgets the changes of a table that is gone.
    pub(super) fn forget(&mut self, table: TableId) {
        self.tables.retain(|changes| changes.table.id != table);
        self.last = 0;
    }

    /// Drops versions that do not count if there is so much that it is worth it: a log of many changes to few rows shall not
    /// take its own size in memory.
    pub(super) fn settle_if_many(&mut self) {
        if self.window_bytes <= self.settle_bytes {
            return;
        }
        let (mut windows, mut copied) = (Vec::new(), Vec::new());
        let mut window_bytes = 0;
        for TableChanges { batch, .. } in &mut self.tables {
            batch.sort();
            for change in batch.things_mut() {
                let Some(row) = change.row() else { continue };
                if copied.len() + row.length as usize > COPIED_BYTES && !copied.is_empty() {
                    windows.push(Bytes::from(std::mem::take(&mut copied)));
                }
                if copied.is_empty() {
                    copied.reserve_exact(COPIED_BYTES.max(row.length as usize));
                }
                change.row = RowPlace { window: windows.len() as u32, start: copied.len() as u32, length: row.length };
                window_bytes += row.length as usize;
                copied.extend_from_slice(row_of(&self.windows, row));
            }
        }
        windows.push(Bytes::from(copied));
        self.windows = windows;
        self.window_bytes = window_bytes;
        self.settle_bytes = SETTLED_BYTES_MIN.max(2 * window_bytes);
    }

    /// Puts everything in place. Leaves segments alone that do not exist any more. Returns the greatest key of each table.
    pub(super) async fn put_in_place(
        mut self,
        version: &Version,
        exists: impl Fn(&Segment) -> bool,
    ) -> Result<Vec<(TableId, Box<[u8]>)>> {
        let mut live = vec![0; self.windows.len()];
        for TableChanges { batch, .. } in &mut self.tables {
            batch.sort();
            let rows = batch.iter().filter_map(|(_, change)| change.row());
            rows.for_each(|row| live[row.window as usize] += row.length as usize);
        }
        let kept: Vec<bool> =
            live.iter().zip(&self.windows).map(|(live, all)| live * KEPT_SHARE >= all.len()).collect();
        let row_at = |place: RowPlace| match kept[place.window as usize] {
            true => {
                self.windows[place.window as usize].slice(place.start as usize..(place.start + place.length) as usize)
            }
            false => Bytes::copy_from_slice(row_of(&self.windows, place)),
        };
        let mut greatest = Vec::new();
        for TableChanges { table, batch } in &self.tables {
            // It may have been altered since; its rows are the same.
            let table = version.catalog.table(table.id).unwrap_or(table);
            let segments = version.segments(table.id).iter();
            end_in_segments(segments.filter(|segment| exists(segment)), batch).await?;
            let (part, bytes) = build(table, batch, row_at, &self.windows)?;
            version.active.install(table.id, part, bytes);
            greatest.extend(batch.len().checked_sub(1).map(|last| (table.id, batch.key(last).into())));
        }
        Ok(greatest)
    }
}

fn row_of(windows: &[Bytes], row: RowPlace) -> &[u8] {
    &windows[row.window as usize][row.start as usize..(row.start + row.length) as usize]
}

/// Marks the rows of segments that have been replaced or removed.
async fn end_in_segments(segments: impl Iterator<Item = &Arc<Segment>>, batch: &Batch<Change>) -> Result<()> {
    for segment in segments {
        let first = batch.lower_bound(&segment.meta.first_key.0, 0);
        if first == batch.len() || batch.key(first) > segment.meta.last_key.0.as_slice() {
            continue;
        }
        let keys = segment.keys().await?;
        let (mut row, mut ended) = (0, RoaringBitmap::new());
        for position in first..batch.len() {
            let key = batch.key(position);
            row = keys.lower_bound(key, row..keys.len());
            if row == keys.len() {
                break;
            }
            if keys.get(row) == key && batch.thing(position).timestamp > segment.created() {
                ended.insert(row as u32);
            }
        }
        segment.deletes.add_settled(&ended);
    }
    Ok(())
}

/// A table's part of the memtable, and the memory it takes.
fn build(
    table: &TableDef,
    batch: &Batch<Change>,
    row_at: impl Fn(RowPlace) -> Bytes,
    windows: &[Bytes],
) -> Result<(TableMemtable, usize)> {
    let codec = table.codec()?;
    let mut entries = Vec::new();
    for (index, encoder) in table.indexes.iter().zip(&codec.indexes) {
        let mut of_index: Batch<u32> = Batch::default();
        let live = batch.iter().filter_map(|(key, change)| change.row().map(|row| (key, row)));
        for (key, row) in live {
            of_index.push(|bytes| {
                let start = bytes.len();
                encoder.append_row(&codec.rows, row_of(windows, row), bytes)?;
                let length = (bytes.len() - start) as u32;
                bytes.extend_from_slice(key);
                Ok::<u32, Error>(length)
            })?;
        }
        of_index.sort();
        entries.push((index.id, of_index));
    }
    let rows = batch.iter().filter_map(|(key, change)| change.row().map(|row| (key, row_at(row), change.timestamp)));
    Ok(TableMemtable::from_ascending(rows, entries))
}
