//! The row changes of a log, put in place all at once.
//!
//! ```text
//!   log ── puts, deletes ──▶ runs for each table: key, place of the row in the log, timestamp       in the order of the log
//!                                 │ each run sorted by key; then merged, the last change of each key
//!                                 ├──▶ segments: rows that have been replaced or removed, found by merging
//!                                 └──▶ memtable: leaves built one after the other, and indexes likewise
//! ```
//! Nobody reads yet and no snapshot of the past will ever be taken, so of all versions of a row only the last one counts,
//! and what it replaces is gone for everybody. Searching a tree for each record of the log would cost several times as much
//! as sorting them all.
//!
//! Rows are not copied: they stay in the windows in which the log was read, and a window lives as long as a row in it does.
//! Windows with little in them that counts are not kept; their rows are copied, those of a leaf together.
//!
//! A good part of the time goes to memory that is touched for the first time, because the system clears each page. So what is
//! collected on the way is compact and never grows by copying, what is sorted is sorted within the cache, and changes that came
//! in the order of their keys make room for the leaves that are built of them.
//!
//! *Which rows of segments are replaced.* A change of a key ends the rows of that key which were there before it, so those of
//! segments that came with an earlier commit, or with the manifest, whether or not there are later changes of the key.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use roaring::RoaringBitmap;
use rustydb_txn::Timestamp;

use super::Version;
use crate::catalog::{TableDef, TableId};
use crate::error::{Error, Result};
use crate::memtable::{PartBuilder, Runs, TableMemtable};
use crate::segment::Segment;

#[cfg(test)]
mod tests;

/// With less than this in windows, superfluous versions stay where they are.
const SETTLED_BYTES_MIN: usize = 256 << 20;

/// Superfluous versions are dropped if no more than one version in so many counts: dropping them is half as much work as
/// putting everything in place.
const SETTLED_SHARE: usize = 2;

/// Rows copied together.
const COPIED_BYTES: usize = 1 << 20;

/// A window is kept if one byte in so many counts.
const KEPT_SHARE: usize = 3;

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
    changes: Runs<Change>,
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
    /// It never becomes less.
    settle_bytes_min: usize,
}

impl Default for RowChanges {
    fn default() -> Self {
        RowChanges::settling_at(SETTLED_BYTES_MIN)
    }
}

impl RowChanges {
    /// No changes yet; superfluous versions are dropped when so much is there, and again when there is twice as much as was
    /// left.
    fn settling_at(settle_bytes_min: usize) -> RowChanges {
        let (tables, windows) = (Vec::new(), Vec::new());
        RowChanges { tables, last: 0, windows, window_bytes: 0, settle_bytes: settle_bytes_min, settle_bytes_min }
    }

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
                    self.tables.insert(position, TableChanges { table: find()?, changes: Runs::default() });
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
        let TableChanges { table, changes } = self.of(table, find)?;
        let codec = table.codec()?;
        codec.rows.validate(row).map_err(Error::Internal)?;
        changes.push(|key| {
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
        changes.changes.push(|bytes| {
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
        let counts = self.tables.iter_mut().map(|table| table.changes.counts());
        let (all, different) = counts.fold((0, 0), |sum, counts| (sum.0 + counts.0, sum.1 + counts.1));
        if different > all / SETTLED_SHARE {
            // About so much of what there is counts.
            let counting_bytes = (self.window_bytes as f64 * different as f64 / all as f64) as usize;
            self.settle_bytes = self.settle_bytes_min.max(2 * counting_bytes);
            return;
        }
        let mut live = vec![0; self.windows.len()];
        for TableChanges { changes, .. } in &mut self.tables {
            changes.condense();
            let rows = changes.things_mut().filter_map(|change| change.row());
            rows.for_each(|row| live[row.window as usize] += row.length as usize);
        }
        let (mut windows, mut copied) = (Vec::new(), Vec::new());
        let places: Vec<Option<u32>> = (live.iter().zip(&self.windows))
            .map(|(live, window)| {
                is_kept(*live, window).then(|| {
                    windows.push(window.clone());
                    windows.len() as u32 - 1
                })
            })
            .collect();
        for TableChanges { changes, .. } in &mut self.tables {
            for change in changes.things_mut() {
                let Some(row) = change.row() else { continue };
                if let Some(window) = places[row.window as usize] {
                    change.row.window = window;
                    continue;
                }
                if copied.len() + row.length as usize > COPIED_BYTES && !copied.is_empty() {
                    windows.push(Bytes::from(std::mem::take(&mut copied)));
                }
                if copied.is_empty() {
                    copied.reserve_exact(COPIED_BYTES.max(row.length as usize));
                }
                // It becomes a window of its own when it is full.
                change.row = RowPlace { window: windows.len() as u32, start: copied.len() as u32, length: row.length };
                copied.extend_from_slice(row_of(&self.windows, row));
            }
        }
        windows.push(Bytes::from(copied));
        self.window_bytes = windows.iter().map(Bytes::len).sum();
        self.windows = windows;
        self.settle_bytes = self.settle_bytes_min.max(2 * self.window_bytes);
    }

    /// Puts everything in place. Leaves segments alone that do not exist any more. Returns the greatest key of each table.
    pub(super) async fn put_in_place(
        self,
        version: &Version,
        exists: impl Fn(&Segment) -> bool,
    ) -> Result<Vec<(TableId, Box<[u8]>)>> {
        let mut live = vec![0; self.windows.len()];
        let (mut parts, mut greatest) = (Vec::with_capacity(self.tables.len()), Vec::new());
        for TableChanges { table, mut changes } in self.tables {
            changes.close();
            // It may have been altered since; its rows are the same.
            let table = version.catalog.table(table.id).unwrap_or(&table);
            let segments = version.segments(table.id).iter();
            end_in_segments(segments.filter(|segment| exists(segment)), &changes).await?;
            greatest.extend(changes.greatest().map(|last| (table.id, last.into())));
            parts.push((table.id, build(table, changes, &self.windows, &mut live)?));
        }
        let gone = live.iter().zip(&self.windows).filter(|(live, window)| !is_kept(**live, window));
        let gone = Places::of(gone.map(|(_, window)| window));
        for (table, (mut memtable, bytes)) in parts {
            if !gone.is_empty() {
                copy_rows(&mut memtable, &gone);
            }
            version.active.install(table, memtable, bytes);
        }
        Ok(greatest)
    }
}

/// Whether so much of a window counts that it is kept for it.
fn is_kept(live: usize, window: &Bytes) -> bool {
    live * KEPT_SHARE >= window.len()
}

fn row_of(windows: &[Bytes], row: RowPlace) -> &[u8] {
    &windows[row.window as usize][row.start as usize..(row.start + row.length) as usize]
}

/// Marks the rows of segments that have been replaced or removed.
async fn end_in_segments(segments: impl Iterator<Item = &Arc<Segment>>, changes: &Runs<Change>) -> Result<()> {
    for segment in segments {
        let (first_key, last_key) = (&segment.meta.first_key.0, &segment.meta.last_key.0);
        let mut ended = RoaringBitmap::new();
        for run in changes.runs() {
            let first = run.lower_bound(first_key, 0);
            if first == run.len() || run.key(first) > last_key.as_slice() {
                continue;
            }
            let keys = segment.keys().await?;
            let mut row = 0;
            for position in first..run.len() {
                let key = run.key(position);
                row = keys.lower_bound(key, row..keys.len());
                if row == keys.len() {
                    break;
                }
                if keys.get(row) == key && run.thing(position).timestamp > segment.created() {
                    ended.insert(row as u32);
                }
            }
        }
        if !ended.is_empty() {
            segment.deletes.add_settled(&ended);
        }
    }
    Ok(())
}

/// Makes a table's part of the memtable, whose rows lie in the windows, and tells its size. Adds up how much of each window
/// counts.
fn build(
    table: &TableDef,
    changes: Runs<Change>,
    windows: &[Bytes],
    live: &mut [usize],
) -> Result<(TableMemtable, usize)> {
    let codec = table.codec()?;
    let mut entries: Vec<Runs<u32>> = table.indexes.iter().map(|_| Runs::default()).collect();
    let mut part = PartBuilder::default();
    changes.into_each(|key, change| {
        let Some(place) = change.row() else { return Ok(()) };
        live[place.window as usize] += place.length as usize;
        for (encoder, entries) in codec.indexes.iter().zip(&mut entries) {
            entries.push(|bytes| {
                let start = bytes.len();
                encoder.append_row(&codec.rows, row_of(windows, place), bytes)?;
                let length = (bytes.len() - start) as u32;
                bytes.extend_from_slice(key);
                Ok::<u32, Error>(length)
            })?;
        }
        let row = windows[place.window as usize].slice(place.start as usize..(place.start + place.length) as usize);
        part.push(key, row, change.timestamp);
        Ok::<(), Error>(())
    })?;
    table.indexes.iter().zip(entries).for_each(|(index, entries)| part.add_index(index.id, entries));
    Ok(part.finish())
}

/// Where some windows lie in memory: the addresses of each, ascending.
struct Places(Vec<Range<usize>>);

impl Places {
    fn of<'a>(windows: impl Iterator<Item = &'a Bytes>) -> Places {
        let mut places: Vec<Range<usize>> = windows
            .map(|window| {
                let start = window.as_ptr().addr();
                start..start + window.len()
            })
            .collect();
        places.sort_unstable_by_key(|place| place.start);
        Places(places)
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a row lies in one of them.
    fn have(&self, row: &Bytes) -> bool {
        let address = row.as_ptr().addr();
        let begun = self.0.partition_point(|place| place.start <= address);
        begun > 0 && self.0[begun - 1].contains(&address)
    }
}

/// Copies the rows that lie in these windows, those of a leaf together.
fn copy_rows(memtable: &mut TableMemtable, gone: &Places) {
    memtable.replace_rows(|rows| {
        let moved: Vec<&mut Bytes> = rows.filter(|row| gone.have(row)).collect();
        let mut copied = Vec::with_capacity(moved.iter().map(|row| row.len()).sum());
        moved.iter().for_each(|row| copied.extend_from_slice(row));
        let (copied, mut start) = (Bytes::from(copied), 0);
        for row in moved {
            let end = start + row.len();
            *row = copied.slice(start..end);
            start = end;
        }
    });
}
