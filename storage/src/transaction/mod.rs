//! A transaction: a snapshot, and changes nobody else sees.
//!
//! Statements check what they can against the snapshot and the transaction's own changes, and record the change by
//! key. The rows are locked on the way ([`isolation`]), unless the transaction was begun without locks;
//! [`Transaction::commit`] decides against what others have committed meanwhile (first committer wins, see
//! `rustydb_txn::judge_write`). A statement that fails leaves the transaction's changes as they were.

mod deferred;
mod isolation;
mod mark;
mod objects;
mod point;
mod refresh;
mod writes;

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, UInt32Array, UInt64Array};
use arrow::compute::take_record_batch;
use bytes::Bytes;
use rustydb_txn::{LockMode, Timestamp};

pub(crate) use deferred::DeferredKeys;
pub(crate) use isolation::Control;
pub use isolation::{RowLock, TransactionOptions};
pub use mark::Mark;
pub use point::{Change, NewRows};
pub(crate) use writes::{PendingRow, TableWrites, Writes};

use self::deferred::check_whole_index;
use self::mark::UndoLog;
use self::writes::{key_bytes, require_indexable};
use crate::bulk::BulkWriter;
use crate::catalog::{Catalog, IndexDef, IndexId, NewIndex, NewTable, TableDef, TableId};
use crate::encoding::{Keys, format_key};
use crate::error::{Error, Result};
use crate::obstacle::{Blocked, insist};
use crate::segment::Segment;
use crate::store::{Commit, Place, Structure};
use crate::view::{Found, ReadView, Snapshot};

/// Row changes that are validated, encoded and put in place within about a millisecond.
const QUICK_COMMIT_BYTES: usize = 128 * 1024;

/// When a commit is reported as done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// When it survives a power cut.
    #[default]
    Sync,
    /// As soon as it is visible; a crash within the next moments may lose it, but never a part of it.
    Async,
}

/// An open transaction. Dropping it rolls it back.
#[derive(Debug)]
pub struct Transaction {
    /// What it sees now, its own changes included.
    view: ReadView,
    structure: Structure,
    unchanged: BTreeSet<TableId>,
    control: Control,
    /// The snapshot that the oldest of its changes was made on, if that is not the present one.
    began: Option<Timestamp>,
    /// What takes the changes since the oldest open mark back.
    undo: UndoLog,
    deferred: DeferredKeys,
}

impl Transaction {
    pub(crate) fn new(snapshot: Arc<Snapshot>, control: Control) -> Self {
        let catalog = Arc::clone(&snapshot.version.catalog);
        let writes = Arc::new(Writes::counted_in(snapshot.store.pending_bytes()));
        let (structure, unchanged) = (Structure::default(), BTreeSet::new());
        let undo = UndoLog::counted_in(snapshot.store.pending_bytes());
        let deferred = DeferredKeys::default();
        let view = ReadView { snapshot, catalog, writes, serial: control.serial.clone(), tables: None };
        Transaction { view, structure, unchanged, control, began: None, undo, deferred }
    }

    /// What the transaction sees now. Later changes do not show in it.
    pub fn view(&self) -> ReadView {
        self.view.clone()
    }

    /// The same for as long as nothing is changed, which nobody has to count then.
    pub fn as_view(&self) -> &ReadView {
        &self.view
    }

    /// The tables and objects as the transaction sees them now.
    pub fn catalog(&self) -> &Arc<Catalog> {
        &self.view.catalog
    }

    /// Whether a commit would change anything.
    pub fn has_writes(&self) -> bool {
        !self.view.writes.is_empty() || !self.structure.is_empty()
    }

    /// Whether a commit will only change rows, and few enough to take no more than a millisecond of the calling thread.
    pub fn commits_at_once(&self) -> bool {
        self.structure.is_empty() && self.view.writes.bytes() < QUICK_COMMIT_BYTES && !self.view.writes.has_staged()
    }

    /// Creates a table.
    pub fn create_table(&mut self, table: NewTable) -> Result<Arc<TableDef>> {
        if self.view.catalog.find(&table.schema_name, &table.name).is_some() {
            return Err(Error::TableExists { schema: table.schema_name, name: table.name });
        }
        let store = &self.view.snapshot.store;
        let first_index = store.new_index_ids(table.indexes.len());
        let definition = Arc::new(TableDef::new(store.new_table_id(), first_index, table)?);
        Arc::make_mut(&mut self.view.catalog).add(Arc::clone(&definition));
        self.structure.created.push(Arc::clone(&definition));
        Ok(definition)
    }

    /// Drops a table with its rows.
    pub fn drop_table(&mut self, table: TableId) -> Result<()> {
        self.drop_tables([table])
    }

    /// Drops tables with their rows. Foreign keys may be between them, in circles too.
    pub fn drop_tables(&mut self, tables: impl IntoIterator<Item = TableId>) -> Result<()> {
        let tables: BTreeSet<TableId> = tables.into_iter().collect();
        for table in &tables {
            let definition = self.view.catalog.require(*table)?;
            let referring = self.view.catalog.referring_tables(*table).filter(|other| !tables.contains(&other.id));
            let dependents: Vec<String> = referring.map(|other| format!("table \"{}\"", other.name)).collect();
            if !dependents.is_empty() {
                return Err(Error::DependentObjects { table: definition.name.clone(), dependents });
            }
        }
        tables.into_iter().try_for_each(|table| self.forget_table(table))
    }

    fn forget_table(&mut self, table: TableId) -> Result<()> {
        let definition = Arc::clone(self.view.catalog.require(table)?);
        Arc::make_mut(&mut self.view.catalog).remove(table);
        self.undo.note_all(&self.view.writes);
        Arc::make_mut(&mut self.view.writes).forget_table(table);
        self.structure.altered.retain(|altered| altered.id != table);
        let own = self.structure.created.iter().position(|created| created.id == table);
        match own {
            Some(index) => drop(self.structure.created.remove(index)),
            None => self.structure.dropped.push(definition),
        }
        Ok(())
    }

    /// Changes what the catalog says of a table and not how its rows are stored: its name, column names, nullability,
    /// metadata and foreign keys. The columns' number, order and types, and the primary key stay; the indexes of
    /// `table` are not looked at. Rows that others are about to commit were checked against the old definition, so
    /// unless only a name changes, they will have to try again; for a new rule about existing rows call
    /// [`require_unchanged`](Self::require_unchanged), too.
    pub fn alter_table(&mut self, id: TableId, table: NewTable) -> Result<Arc<TableDef>> {
        let current = self.view.catalog.require(id)?;
        if self.view.catalog.find(&table.schema_name, &table.name).is_some_and(|taken| taken.id != id) {
            return Err(Error::TableExists { schema: table.schema_name, name: table.name });
        }
        let altered = current.altered(table, current.indexes.clone())?;
        Ok(self.replace_definition(altered))
    }

    /// Creates an index of the table's rows. Writers are not kept waiting; but when others change the table before the
    /// transaction that creates a *unique* index commits, that commit fails with `Conflict`.
    ///
    /// # Errors
    /// `DuplicateKey` if the visible rows are not unique.
    pub async fn create_index(&mut self, table: TableId, index: NewIndex) -> Result<IndexDef> {
        let current = Arc::clone(self.view.catalog.require(table)?);
        let index = IndexDef::new(self.view.snapshot.store.new_index_ids(1), &index);
        let indexes = current.indexes.iter().cloned().chain([index.clone()]).collect();
        let altered = current.altered(current.to_new(), indexes)?;
        if let Some(newest) = altered.indexes.len().checked_sub(1) {
            check_whole_index(&self.view(), &altered, newest).await?;
        }
        if index.unique {
            self.require_unchanged(table);
        }
        Arc::make_mut(&mut self.view.writes).table_mut(table).index_all(&altered, &mut self.undo)?;
        self.replace_definition(altered);
        Ok(index)
    }

    /// Drops an index.
    pub fn drop_index(&mut self, table: TableId, index: IndexId) -> Result<()> {
        let current = self.view.catalog.require(table)?;
        let indexes = current.indexes.iter().filter(|other| other.id != index).cloned().collect();
        let altered = current.altered(current.to_new(), indexes)?;
        self.replace_definition(altered);
        Ok(())
    }

    fn replace_definition(&mut self, altered: TableDef) -> Arc<TableDef> {
        let altered = Arc::new(altered);
        Arc::make_mut(&mut self.view.catalog).replace(Arc::clone(&altered));
        let Structure { created, altered: others, .. } = &mut self.structure;
        match created.iter_mut().chain(others.iter_mut()).find(|other| other.id == altered.id) {
            Some(other) => *other = Arc::clone(&altered),
            None => others.push(Arc::clone(&altered)),
        }
        altered
    }

    /// Inserts rows with the table's columns, in their order and of their types.
    ///
    /// # Errors
    /// `DuplicateKey` if a visible row or another of these has the same primary key, `NotNull`.
    pub async fn insert(&mut self, table: TableId, rows: &RecordBatch) -> Result<u64> {
        let definition = Arc::clone(self.view.catalog.require(table)?);
        let rows = storage_rows(&definition, rows, || self.view.snapshot.store.new_row_ids(rows.num_rows()))?;
        let keys = self.keys_of(&definition, &rows)?;
        let before = self.control.lock_count();
        let mut wanted = Vec::new();
        if !definition.has_hidden_key() {
            wanted = self.row_locks(table, (0..keys.len()).map(|row| (keys.get(row), LockMode::RowUpdate)));
        }
        wanted.extend(self.value_locks(&definition, &rows)?);
        match self.acquire(&definition, LockMode::RowExclusive, wanted, None) {
            Ok(()) => {}
            Err(Blocked::Failed(error)) => return Err(error),
            Err(Blocked::Waits(obstacle)) => {
                self.lock_table(table, LockMode::RowExclusive, None).await?;
                self.require_same_table(&definition, LockMode::RowExclusive)?;
                // Rows that are refused whoever has the locks need none.
                if !insist(|| self.is_surely_taken(&definition, &keys)).await? {
                    obstacle.overcome().await.map(drop)?;
                }
            }
        }
        self.check_duplicates(&definition, &rows, &keys, &HashSet::new(), before).await?;
        let encoded = self.encode(&definition, &rows)?;
        self.deferred.note(&definition);
        self.put(&definition, encoded, &keys)?;
        Ok(rows.num_rows() as u64)
    }

    /// Deletes the visible rows with these keys (the key columns, in key order); returns how many there were.
    pub async fn delete(&mut self, table: TableId, keys: &RecordBatch) -> Result<u64> {
        let view = self.view();
        let keys = view.encode_keys(table, keys)?;
        let visible = self.visible_rows(&view, table, &keys).await?;
        drop(view);
        let definition = Arc::clone(self.view.catalog.require(table)?);
        let wanted = self.row_locks(table, visible.iter().map(|(row, _)| (keys.get(*row), LockMode::RowRemoval)));
        self.acquire_waiting(&definition, LockMode::RowExclusive, wanted, None).await?;
        let committed = committed(&visible);
        insist(|| self.require_same(&definition, &keys, &committed, RowLock::Update)).await?;
        self.check_size(committed.iter().map(|row| key_bytes(&definition, keys.get(*row))).sum())?;
        self.hide(table, &keys, &visible)?;
        Ok(visible.len() as u64)
    }

    /// Replaces the visible row with the i-th key by the i-th row; keys that are not visible are skipped. Keys may
    /// change; uniqueness is checked for the state after all replacements. If a key comes twice, its first row counts.
    pub async fn update(&mut self, table: TableId, keys: &RecordBatch, rows: &RecordBatch) -> Result<u64> {
        self.update_assigned(table, keys, rows, |_| true).await
    }

    /// The same where only the `assigned` columns may differ, so that the others are not compared with what they were.
    pub async fn update_assigned(
        &mut self,
        table: TableId,
        keys: &RecordBatch,
        rows: &RecordBatch,
        assigned: impl Fn(usize) -> bool,
    ) -> Result<u64> {
        let definition = Arc::clone(self.view.catalog.require(table)?);
        let view = self.view();
        let old_keys = view.encode_keys(table, keys)?;
        let visible = self.visible_rows(&view, table, &old_keys).await?;
        drop(view);
        let order: Vec<u32> = visible.iter().map(|(row, _)| *row as u32).collect();
        let chosen = UInt32Array::from(order);
        let rows = take_record_batch(rows, &chosen)?;
        let hidden = take_record_batch(keys, &chosen)?;
        let rows = storage_rows(&definition, &rows, || Arc::clone(hidden.column(0)))?;
        let new_keys = self.keys_of(&definition, &rows)?;
        let encoded = self.encode(&definition, &rows)?;
        let mut compared = unique_columns(&definition);
        compared.retain(|column| assigned(*column));
        let same_values = have_same_values(&definition, &compared, &visible, &encoded).await?;
        let moved = same_values.iter().zip(0u32..).filter(|(same, _)| !**same).map(|(_, row)| row);
        let moved = UInt32Array::from_iter_values(moved);
        let wanted = visible.iter().zip(same_values).enumerate().flat_map(|(new, ((old, _), same_values))| {
            let (old, new) = (old_keys.get(*old), new_keys.get(new));
            let mode = if old == new && same_values { LockMode::RowNoKeyUpdate } else { LockMode::RowRemoval };
            [(old, mode)].into_iter().chain((old != new).then_some((new, LockMode::RowUpdate)))
        });
        let before = self.control.lock_count();
        let mut wanted = self.row_locks(table, wanted);
        if !moved.is_empty() {
            // Who wants the value of another row finds that row, which is locked.
            wanted.extend(self.value_locks(&definition, &take_record_batch(&rows, &moved)?)?);
        }
        self.acquire_waiting(&definition, LockMode::RowExclusive, wanted, None).await?;
        let committed = committed(&visible);
        insist(|| self.require_same(&definition, &old_keys, &committed, RowLock::Update)).await?;
        let replaced: HashSet<&[u8]> = visible.iter().map(|(row, _)| old_keys.get(*row)).collect();
        self.check_duplicates(&definition, &rows, &new_keys, &replaced, before).await?;
        self.deferred.note(&definition);
        self.hide(table, &old_keys, &visible)?;
        self.put(&definition, encoded, &new_keys)?;
        Ok(rows.num_rows() as u64)
    }

    /// Starts a bulk load: rows go to segment files directly and join the transaction when the load is finished.
    pub fn bulk_insert(&self, table: TableId) -> Result<BulkWriter> {
        BulkWriter::new(self.view(), Arc::clone(self.view.catalog.require(table)?), self.deferred.clone())
    }

    pub(crate) fn attach(&mut self, view: &ReadView, table: TableId, segments: Vec<Arc<Segment>>) -> Result<()> {
        if !Arc::ptr_eq(&view.snapshot, &self.view.snapshot) {
            return Err(Error::Internal("a bulk load was finished in another transaction".into()));
        }
        self.deferred.note(self.view.catalog.require(table)?);
        self.undo.note_all(&self.view.writes);
        Arc::make_mut(&mut self.view.writes).table_mut(table).staged.extend(segments);
        Ok(())
    }

    /// Makes the commit fail with `Conflict` if anybody else changes the table between this transaction's snapshot and
    /// its commit: a coarse guard for checks that read many rows.
    pub fn require_unchanged(&mut self, table: TableId) {
        self.unchanged.insert(table);
    }

    /// Makes the changes visible and durable, all or none. Returns the commit timestamp.
    ///
    /// # Errors
    /// `Conflict`, `Unserializable`, `DuplicateKey` and `NoRoom` leave nothing behind. `Poisoned` and `Io` mean the outcome is
    /// not known: the changes are not visible, but may be found when the store is opened again.
    pub async fn commit(mut self, durability: Durability) -> Result<u64> {
        if let Err(error) = self.check_deferred(None).await {
            self.control.release_to(0);
            return Err(error);
        }
        if !self.has_writes() {
            let timestamp = self.view.snapshot.timestamp;
            if let Some(locks) = self.control.held() {
                self.view.snapshot.store.until_published(timestamp.max(locks.seen())).await?;
            }
            if let Some(serial) = &self.control.serial {
                self.view.snapshot.store.commit_reader(serial, timestamp)?;
            }
            self.control.release_to(0);
            return Ok(timestamp);
        }
        let Transaction { view, structure, unchanged, control, began, undo: _, deferred: _ } = self;
        let ReadView { snapshot, writes, .. } = view;
        let judged = began.unwrap_or(snapshot.timestamp);
        let (store, serial, locks) = (Arc::clone(&snapshot.store), control.serial.clone(), control.held());
        let commit = Commit { snapshot, judged, writes, structure, unchanged, serial, locks };
        // Where it succeeds, it gives the locks back as soon as its rows are in place.
        let committed = store.commit(commit, durability).await;
        control.release_to(0);
        committed
    }

    /// Forgets the changes and gives the locks back.
    pub fn rollback(self) {
        self.control.release_to(0);
    }

    fn keys_of(&self, table: &TableDef, rows: &RecordBatch) -> Result<Keys> {
        table.codec()?.keys.encode(&key_columns(table, rows))
    }

    /// The rows of `keys` that are visible, each key once, and where they are.
    async fn visible_rows(&self, view: &ReadView, table: TableId, keys: &Keys) -> Result<Vec<(usize, Found)>> {
        let _pins = view.load_keys(table, keys).await?;
        let mut seen = HashSet::with_capacity(keys.len());
        let mut visible = Vec::new();
        for row in 0..keys.len() {
            if seen.insert(keys.get(row))
                && let Some(found) = view.find(table, keys.get(row))?
            {
                visible.push((row, found));
            }
        }
        Ok(visible)
    }

    /// Fails if new rows share a key, or a value of a unique index, with each other or with a visible row that is not
    /// `replaced`. Those who may be giving a value up are waited for, without the locks taken after the first `before`.
    async fn check_duplicates(
        &mut self,
        table: &TableDef,
        rows: &RecordBatch,
        keys: &Keys,
        replaced: &HashSet<&[u8]>,
        before: usize,
    ) -> Result<()> {
        let view = self.view();
        if !table.has_hidden_key() {
            let _pins = view.load_keys(table.id, keys).await?;
            let mut seen = HashSet::with_capacity(keys.len());
            for row in 0..keys.len() {
                let key = keys.get(row);
                let taken = !replaced.contains(key) && view.find(table.id, key)?.is_some();
                if taken {
                    insist(|| self.require_still_taken(table, keys, row)).await?;
                }
                if taken || !seen.insert(key) {
                    return Err(duplicate_key(table, None, rows, row));
                }
            }
            let new: Vec<usize> = (0..keys.len()).filter(|row| !replaced.contains(keys.get(*row))).collect();
            if let Some(row) = insist(|| self.find_newer(table, keys, &new)).await? {
                return Err(duplicate_key(table, None, rows, row));
            }
        }
        for (position, index) in table.indexes.iter().enumerate() {
            if !index.unique || self.deferred.defers(index) {
                continue;
            }
            let (candidates, wanted) = unique_values(table, position, rows)?;
            let _pins = view.load_postings(table, position, &wanted).await?;
            let mut seen = HashSet::with_capacity(candidates.len());
            for (row, value) in candidates.iter().zip(&wanted) {
                let holder = view.holder(table, position, value, |key| replaced.contains(key))?;
                if let Some(holder) = &holder {
                    self.settle_value(table, position, value, holder, replaced, before).await?;
                }
                if holder.is_some() || !seen.insert(value) {
                    return Err(duplicate_key(table, Some(index), rows, *row));
                }
            }
            if let Some(at) = insist(|| self.find_newer_value(table, position, &wanted, replaced)).await? {
                return Err(duplicate_key(table, Some(index), rows, candidates[at]));
            }
        }
        Ok(())
    }

    /// Marks visible rows as deleted by this transaction.
    fn hide(&mut self, table: TableId, keys: &Keys, visible: &[(usize, Found)]) -> Result<()> {
        let definition = Arc::clone(self.view.catalog.require(table)?);
        let (writes, undo) = (Arc::make_mut(&mut self.view.writes), &mut self.undo);
        for (row, found) in visible {
            let key = keys.get(*row);
            match found {
                Found::Pending(_) => writes.set(&definition, key.into(), None, None, undo)?,
                Found::Staged(segment, row) => writes.hide(table, segment.meta.id, *row, undo),
                Found::Committed(place, _) => {
                    writes.set(&definition, key.into(), Some(place.clone()), None, undo)?;
                    if let Place::Segment(segment, row) = place {
                        writes.hide(table, segment.meta.id, *row, undo);
                    }
                }
            }
        }
        Ok(())
    }

    /// Fails if the pending changes, with so many bytes more, take more memory than all transactions may together.
    pub(crate) fn check_size(&self, added: usize) -> Result<()> {
        let limit_bytes = self.view.snapshot.store.transaction_bytes();
        match self.view.writes.total_bytes().max(self.view.writes.bytes()) + added > limit_bytes {
            true => Err(Error::TransactionTooLarge { limit_bytes }),
            false => Ok(()),
        }
    }

    /// New rows as they are recorded. Fails if they are too many bytes, or cannot be in the table's indexes.
    fn encode(&self, table: &TableDef, rows: &RecordBatch) -> Result<Vec<Bytes>> {
        let encoded = table.codec()?.rows.encode(rows)?;
        self.check_size(encoded.iter().map(Bytes::len).sum())?;
        require_indexable(table, encoded.iter())?;
        Ok(encoded)
    }

    /// Records new rows. Where a row replaces a committed one, [`hide`](Self::hide) has noted that already.
    fn put(&mut self, table: &TableDef, encoded: Vec<Bytes>, keys: &Keys) -> Result<()> {
        let writes = Arc::make_mut(&mut self.view.writes);
        for (row, bytes) in encoded.into_iter().enumerate() {
            writes.set(table, keys.get(row).into(), None, Some(bytes), &mut self.undo)?;
        }
        Ok(())
    }
}

/// The rows that a unique index compares with others, and their values in it.
fn unique_values(table: &TableDef, position: usize, rows: &RecordBatch) -> Result<(Vec<usize>, Vec<Vec<u8>>)> {
    let index = &table.indexes[position];
    let columns: Vec<ArrayRef> = index.columns.iter().map(|column| Arc::clone(rows.column(*column))).collect();
    let values = table.codec()?.indexes[position].encode(&columns)?;
    let distinct = |row: usize| index.nulls_distinct && columns.iter().any(|column| column.is_null(row));
    let candidates: Vec<usize> = (0..values.len()).filter(|row| !distinct(*row)).collect();
    let values = candidates.iter().map(|row| values.get(*row).to_vec()).collect();
    Ok((candidates, values))
}

/// The columns of unique indexes.
fn unique_columns(table: &TableDef) -> Vec<usize> {
    let unique = table.indexes.iter().filter(|index| index.unique);
    let mut columns: Vec<usize> = unique.flat_map(|index| index.columns.iter().copied()).collect();
    columns.sort_unstable();
    columns.dedup();
    columns
}

/// Whether two compact rows have the same values in some columns.
fn have_one_value(table: &TableDef, columns: &[usize], row: &[u8], other: &[u8]) -> bool {
    columns.iter().all(|column| table.stored_value(row, *column) == table.stored_value(other, *column))
}

/// For each visible row, whether the new one has the same values in some columns.
async fn have_same_values(
    table: &TableDef,
    columns: &[usize],
    visible: &[(usize, Found)],
    new: &[Bytes],
) -> Result<Vec<bool>> {
    if columns.is_empty() {
        return Ok(vec![true; visible.len()]);
    }
    let mut same = Vec::with_capacity(visible.len());
    for ((_, found), new) in visible.iter().zip(new) {
        let old = match found {
            Found::Pending(row) | Found::Committed(_, Some(row)) => row.clone(),
            Found::Staged(segment, row) | Found::Committed(Place::Segment(segment, row), None) => {
                segment.row(*row, columns).await?
            }
            Found::Committed(Place::Active | Place::Frozen, None) => {
                return Err(Error::Internal("a row in memory without its bytes".into()));
            }
        };
        same.push(have_one_value(table, columns, &old, new));
    }
    Ok(same)
}

/// Which of these rows are others' as well.
fn committed(visible: &[(usize, Found)]) -> Vec<usize> {
    visible.iter().filter(|(_, found)| matches!(found, Found::Committed(..))).map(|(row, _)| *row).collect()
}

pub(crate) fn key_columns(table: &TableDef, rows: &RecordBatch) -> Vec<ArrayRef> {
    table.key_columns().iter().map(|column| Arc::clone(rows.column(*column))).collect()
}

/// The error for a row (of the storage schema) whose key, or whose value in a unique index, is taken.
pub(crate) fn duplicate_key(table: &TableDef, index: Option<&IndexDef>, rows: &RecordBatch, row: usize) -> Error {
    let (constraint, columns) = match index {
        Some(index) => (index.name.clone(), index.columns.as_slice()),
        None => (table.primary_key_name(), table.key_columns()),
    };
    let name = |column: &usize| table.storage_schema().field(*column).name().clone();
    let values: Vec<ArrayRef> = columns.iter().map(|column| Arc::clone(rows.column(*column))).collect();
    Error::DuplicateKey {
        table: table.name.clone(),
        constraint,
        columns: columns.iter().map(name).collect(),
        key: format_key(&values, row),
    }
}

/// Checks rows against the table's columns and adds the hidden key where there is no primary key.
pub(crate) fn storage_rows(
    table: &TableDef,
    rows: &RecordBatch,
    hidden_key: impl FnOnce() -> ArrayRef,
) -> Result<RecordBatch> {
    if rows.num_columns() != table.schema.fields().len() {
        return Err(Error::Internal(format!("{} columns for table \"{}\"", rows.num_columns(), table.name)));
    }
    for (field, column) in table.schema.fields().iter().zip(rows.columns()) {
        if column.data_type() != field.data_type() {
            return Err(Error::Internal(format!(
                "column \"{}\" of \"{}\" is {}, not {}",
                field.name(),
                table.name,
                column.data_type(),
                field.data_type()
            )));
        }
        if !field.is_nullable() && column.null_count() > 0 {
            return Err(Error::NotNull { table: table.name.clone(), column: field.name().clone() });
        }
    }
    let mut columns = rows.columns().to_vec();
    if table.has_hidden_key() {
        columns.push(hidden_key());
    }
    Ok(RecordBatch::try_new(Arc::clone(table.storage_schema()), columns)?)
}

/// Consecutive row ids.
pub(crate) fn row_id_array(first: u64, count: usize) -> ArrayRef {
    Arc::new(UInt64Array::from_iter_values(first..first + count as u64))
}
