//! Unique indexes whose check waits: DEFERRABLE constraints that are deferred at the moment.
//!
//! While an index is deferred, changes are not compared with it, so that rows may share a value for a while; the index
//! itself has no need of distinct values. Which indexes are behind is noted, and before the transaction commits, or when it
//! asks for it, its own rows are compared with everything committed so far. The values stay locked from the change on, so
//! that nobody else can take them in between.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use rustydb_txn::LockMode;

use super::{Transaction, duplicate_key};
use crate::bulk::segment_duplicate;
use crate::catalog::{Deferral, IndexDef, IndexId, TableDef, TableId};
use crate::error::{Error, Result};
use crate::index::unique_value;
use crate::segment::Segment;
use crate::view::ReadView;

/// What a transaction has said about the checks of its unique indexes, and what it has not checked yet.
#[derive(Debug, Clone, Default)]
pub(crate) struct DeferredKeys {
    all: Option<bool>,
    named: BTreeMap<IndexId, bool>,
    pending: BTreeSet<(TableId, IndexId)>,
}

impl DeferredKeys {
    /// Whether the check of an index waits now.
    pub(crate) fn defers(&self, index: &IndexDef) -> bool {
        let said = self.named.get(&index.id).copied().or(self.all);
        match index.deferral {
            Deferral::Never => false,
            Deferral::InitiallyImmediate => said.unwrap_or(false),
            Deferral::InitiallyDeferred => said.unwrap_or(true),
        }
    }

    /// Notes that rows were put into a table without looking at the indexes whose check waits.
    pub(super) fn note(&mut self, table: &TableDef) {
        let waiting: Vec<_> =
            table.indexes.iter().filter(|index| index.unique && self.defers(index)).map(|index| index.id).collect();
        self.pending.extend(waiting.into_iter().map(|index| (table.id, index)));
    }
}

impl Transaction {
    /// Whether the check of an index waits now.
    pub fn defers(&self, index: &IndexDef) -> bool {
        self.deferred.defers(index)
    }

    /// Whether the indexes with these identities (`None`: all) are checked at the end of the transaction from now on. Those
    /// that are not deferrable do not care. What has waited goes on waiting: see [`check_deferred`](Self::check_deferred).
    pub fn set_deferred(&mut self, indexes: Option<&[IndexId]>, deferred: bool) {
        match indexes {
            None => {
                self.deferred.named.clear();
                self.deferred.all = Some(deferred);
            }
            Some(indexes) => self.deferred.named.extend(indexes.iter().map(|index| (*index, deferred))),
        }
    }

    /// Makes the checks that have waited, those of the indexes with these identities or all.
    ///
    /// # Errors
    /// `DuplicateKey`
    pub async fn check_deferred(&mut self, indexes: Option<&[IndexId]>) -> Result<()> {
        if self.deferred.pending.is_empty() {
            return Ok(());
        }
        let chosen = |(_, index): &&(TableId, IndexId)| indexes.is_none_or(|indexes| indexes.contains(index));
        let due: Vec<_> = self.deferred.pending.iter().filter(chosen).copied().collect();
        for (table, index) in due {
            self.check_deferred_index(table, index).await?;
            self.deferred.pending.remove(&(table, index));
        }
        Ok(())
    }

    async fn check_deferred_index(&mut self, table: TableId, index: IndexId) -> Result<()> {
        let mut settled: HashSet<Box<[u8]>> = HashSet::new();
        while let Some((holder, duplicate)) = self.deferred_duplicate(table, index).await? {
            // Somebody may be removing that row, or giving it another value.
            let Some(definition) = self.view.catalog.table(table).map(Arc::clone) else { return Err(duplicate) };
            if settled.contains(&holder) {
                return Err(duplicate);
            }
            let wanted = self.row_locks(table, std::iter::once((&*holder, LockMode::RowPresence)));
            self.acquire_waiting(&definition, LockMode::RowShare, wanted, None).await?;
            settled.insert(holder);
        }
        Ok(())
    }

    /// A row that has the value of one of this transaction's, and what is to be said of it.
    async fn deferred_duplicate(&self, table: TableId, index: IndexId) -> Result<Option<(Box<[u8]>, Error)>> {
        let view = self.newest_view().await?;
        // What was dropped since needs no check.
        let Some(definition) = view.catalog.table(table).map(Arc::clone) else { return Ok(None) };
        let Some(position) = definition.indexes.iter().position(|other| other.id == index) else { return Ok(None) };
        if view.writes.table(table).is_some_and(|writes| !writes.staged.is_empty()) {
            return check_whole_index(&view, &definition, position).await.map(|()| None);
        }
        let (codec, index) = (definition.codec()?, &definition.indexes[position]);
        let (mut rows, mut values) = (Vec::new(), Vec::new());
        for (key, pending) in view.writes.table(table).into_iter().flat_map(|writes| &writes.rows) {
            let Some(row) = pending.row.as_deref() else { continue };
            if let Some(value) = unique_value(index, &codec.indexes[position], &codec.rows, row)? {
                rows.push((key.as_ref(), row));
                values.push(value);
            }
        }
        let _pins = view.load_postings(&definition, position, &values).await?;
        for ((key, row), value) in rows.into_iter().zip(&values) {
            if let Some(holder) = view.holder(&definition, position, value, |other| other == key)? {
                let all: Vec<usize> = (0..definition.storage_schema().fields().len()).collect();
                let row = codec.rows.decode(&[row], &all)?;
                return Ok(Some((holder, duplicate_key(&definition, Some(index), &row, 0))));
            }
        }
        Ok(None)
    }
}

/// Whether all visible rows of a table can be in one of its indexes, and are unique if they have to be.
pub(super) async fn check_whole_index(view: &ReadView, table: &TableDef, position: usize) -> Result<()> {
    let codec = table.codec()?;
    let (index, encoder) = (&table.indexes[position], &codec.indexes[position]);
    let mut earlier: Vec<Arc<Segment>> = Vec::new();
    for segment in view.visible_segments(table.id) {
        let postings = segment.load_postings(index.id, encoder).await?;
        let live = |row| view.shows(&segment, row);
        let mut double = postings.first_double(index, live).filter(|_| index.unique);
        for other in earlier.iter().filter(|_| index.unique) {
            let others = other.load_postings(index.id, encoder).await?;
            double = double.or_else(|| postings.first_common(index, &others, live, |row| view.shows(other, row)));
        }
        if let Some(row) = double {
            return Err(segment_duplicate(&segment, Some(index), row as usize).await?);
        }
        earlier.push(segment);
    }
    let all: Vec<usize> = (0..table.storage_schema().fields().len()).collect();
    let mut seen = HashSet::new();
    for row in view.rows_in_memory(table.id) {
        let mut entry = Vec::new();
        encoder.encode_row(&codec.rows, &row, &mut entry)?;
        let Some(value) = unique_value(index, encoder, &codec.rows, &row)?.filter(|_| index.unique) else { continue };
        let mut taken = false;
        for segment in &earlier {
            let postings = segment.load_postings(index.id, encoder).await?;
            taken |= postings.find(index, &value, |row| view.shows(segment, row)).is_some();
        }
        if taken || !seen.insert(value) {
            return Err(duplicate_key(table, Some(index), &codec.rows.decode(&[&row], &all)?, 0));
        }
    }
    Ok(())
}
