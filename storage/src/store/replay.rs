//! The row changes of a log, put in place many at a time.
//!
//! ```text
//!   log file ── puts, deletes ──▶ a batch for each table: key, row, timestamp      in the order of the log
//!                                      │ sort by key, keep the last change of each
//!                                      ├──▶ segments: rows that have been replaced or removed, found by merging
//!                                      └──▶ memtable: leaves built one after the other, and indexes likewise
//! ```
//! Nobody reads yet and no snapshot of the past will ever be taken, so of all versions of a row only the last one counts,
//! and what it replaces may be marked as ended at the newest timestamp. Searching a tree for each record of the log would
//! cost several times as much as sorting them all.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use rustydb_txn::Timestamp;

use super::Version;
use crate::catalog::{TableDef, TableId};
use crate::error::{Error, Result};
use crate::memtable::{Batch, ChainState, TableMemtable};
use crate::segment::Segment;

/// Memory that batches may take before they are put in place; a log is seldom larger, because a flush begins a new one.
const BATCH_BYTES_MAX: usize = 1 << 30;

/// Rows that share one allocation: it stays while any of them is alive.
const ROWS_TOGETHER: usize = 256;

/// The last change of a row: its bytes in the log, `None` if it was removed, and the commit.
type Change<'a> = (Option<&'a [u8]>, Timestamp);

/// A table's changes that are not in place yet.
#[derive(Debug)]
struct TableChanges<'a> {
    table: Arc<TableDef>,
    batch: Batch<Change<'a>>,
}

/// All changes that are not in place yet.
#[derive(Debug, Default)]
pub(super) struct RowChanges<'a> {
    tables: HashMap<TableId, TableChanges<'a>>,
    /// The table of the change before, since most come in series.
    last: Option<TableChanges<'a>>,
    memory_bytes: usize,
}

impl<'a> RowChanges<'a> {
    /// The batch of a table that `find` knows.
    fn of(&mut self, table: TableId, find: impl FnOnce() -> Result<Arc<TableDef>>) -> Result<&mut TableChanges<'a>> {
        if self.last.as_ref().is_none_or(|last| last.table.id != table) {
            if let Some(last) = self.last.take() {
                self.tables.insert(last.table.id, last);
            }
            self.last = self.tables.remove(&table);
        }
        match &mut self.last {
            Some(changes) => Ok(changes),
            none => Ok(none.insert(TableChanges { table: find()?, batch: Batch::default() })),
        }
    }

    /// A row was written.
    pub(super) fn put(
        &mut self,
        table: TableId,
        row: &'a [u8],
        timestamp: Timestamp,
        find: impl FnOnce() -> Result<Arc<TableDef>>,
    ) -> Result<()> {
        let changes = self.of(table, find)?;
        let codec = changes.table.codec()?;
        codec.rows.validate(row).map_err(Error::Internal)?;
        let before = changes.batch.memory_bytes();
        changes.batch.push(|key| {
            codec.keys.append_row(&codec.rows, row, key)?;
            Ok::<Change<'a>, Error>((Some(row), timestamp))
        })?;
        self.memory_bytes += changes.batch.memory_bytes() - before;
        Ok(())
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
        let before = changes.batch.memory_bytes();
        changes.batch.push(|bytes| {
            bytes.extend_from_slice(key);
            Ok::<Change<'a>, Error>((None, timestamp))
        })?;
        self.memory_bytes += changes.batch.memory_bytes() - before;
        Ok(())
    }

    /// Whether it is time to put them in place.
    pub(super) fn are_many(&self) -> bool {
        self.memory_bytes > BATCH_BYTES_MAX
    }

    /// Forgets the changes of a table that is gone.
    pub(super) fn forget(&mut self, table: TableId) {
        drop(self.take(table));
    }

    fn take(&mut self, table: TableId) -> Option<TableChanges<'a>> {
        let taken = self.last.take_if(|last| last.table.id == table).or_else(|| self.tables.remove(&table));
        self.memory_bytes -= taken.as_ref().map_or(0, |taken| taken.batch.memory_bytes());
        taken
    }

    /// Puts the changes of one table in place, leaving segments alone whose files do not exist any more. Returns the
    /// greatest key among them.
    pub(super) async fn apply(
        &mut self,
        table: TableId,
        version: &Version,
        now: Timestamp,
        exists: impl Fn(&Segment) -> bool,
    ) -> Result<Option<Box<[u8]>>> {
        let Some(TableChanges { table, mut batch }) = self.take(table) else { return Ok(None) };
        batch.sort();
        end_in_segments(version.segments(table.id).iter().filter(|segment| exists(segment)), &batch, now).await?;
        let part = version.active.table(table.id);
        match part {
            None => {
                let (part, bytes) = build(&table, &batch)?;
                version.active.install(table.id, part, bytes);
            }
            Some(part) => {
                for (key, (row, timestamp)) in batch.iter() {
                    if row.is_some() || matches!(part.get(key, Timestamp::MAX), ChainState::Row(..)) {
                        version.active.put(&table, key, row.map(Bytes::copy_from_slice), *timestamp, *timestamp)?;
                    }
                }
            }
        }
        Ok(batch.len().checked_sub(1).map(|last| batch.key(last).into()))
    }

    /// The tables that have changes.
    pub(super) fn tables(&self) -> Vec<TableId> {
        let mut tables: Vec<TableId> = self.tables.keys().copied().collect();
        tables.extend(self.last.as_ref().map(|last| last.table.id));
        tables.sort_unstable();
        tables
    }
}

/// Marks the rows of segments that have been replaced or removed.
async fn end_in_segments(
    segments: impl Iterator<Item = &Arc<Segment>>,
    batch: &Batch<Change<'_>>,
    now: Timestamp,
) -> Result<()> {
    for segment in segments {
        let first = batch.lower_bound(&segment.meta.first_key.0, 0);
        if first == batch.len() || batch.key(first) > segment.meta.last_key.0.as_slice() {
            continue;
        }
        let keys = segment.keys().await?;
        let mut row = 0;
        for position in first..batch.len() {
            let key = batch.key(position);
            row = keys.lower_bound(key, row..keys.len());
            if row == keys.len() {
                break;
            }
            if keys.get(row) == key && !segment.deletes.contains(row as u32, Timestamp::MAX) {
                segment.deletes.add(row as u32, now, now);
            }
        }
    }
    Ok(())
}

/// A table's part of the memtable, and the memory it takes.
fn build(table: &TableDef, batch: &Batch<Change<'_>>) -> Result<(TableMemtable, usize)> {
    let codec = table.codec()?;
    let mut entries = Vec::new();
    for (index, encoder) in table.indexes.iter().zip(&codec.indexes) {
        let mut of_index: Batch<u32> = Batch::default();
        let live = batch.iter().filter_map(|(key, (row, _))| row.map(|row| (key, row)));
        for (key, row) in live {
            of_index.push(|bytes| {
                let start = bytes.len();
                encoder.append_row(&codec.rows, row, bytes)?;
                let length = (bytes.len() - start) as u32;
                bytes.extend_from_slice(key);
                Ok::<u32, Error>(length)
            })?;
        }
        of_index.sort();
        entries.push((index.id, of_index));
    }
    let positions: Vec<usize> = (0..batch.len()).filter(|position| batch.thing(*position).0.is_some()).collect();
    let rows = positions.chunks(ROWS_TOGETHER).flat_map(|some| {
        let rows = || some.iter().map(|position| batch.thing(*position).0.unwrap_or_default());
        let mut together = Vec::with_capacity(rows().map(<[u8]>::len).sum());
        rows().for_each(|row| together.extend_from_slice(row));
        let (together, mut end) = (Bytes::from(together), 0);
        some.iter().map(move |position| {
            let (row, timestamp) = *batch.thing(*position);
            let start = end;
            end += row.map_or(0, <[u8]>::len);
            (batch.key(*position), together.slice(start..end), timestamp)
        })
    });
    Ok(TableMemtable::from_ascending(rows, entries))
}
