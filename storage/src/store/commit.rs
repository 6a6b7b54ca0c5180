//! How changes become visible and durable.
//!
//! ```text
//!  ┌─ commit lock ──────────────────────────────────┐
//!  │ validate ─▶ timestamp ─▶ log.append ─▶ apply   │ ─▶ wait for sync ─▶ publish ─▶ answer
//!  └────────────────────────────────────────────────┘
//! ```
//! Applied versions carry a timestamp that is not published yet, so no reader sees them; a later committer does and
//! loses against them. Between `append` and the end of `apply` there is no await, so a commit whose caller goes away is
//! either not logged or fully applied. Commits that change the structure (tables, bulk-loaded segments) cannot be
//! hidden by timestamps alone; they stay under the lock until they are durable, in a task of their own.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use roaring::RoaringBitmap;
use rustydb_txn::{Expectation, Timestamp, Verdict, VersionState, judge_write};

use super::{Inner, Place, Version};
use crate::bulk::segment_duplicate;
use crate::catalog::{Catalog, TableDef, TableId, TableRecord};
use crate::encoding::Keys;
use crate::error::{Error, Result};
use crate::index::unique_value;
use crate::log::{AddedSegment, Lsn, Operation, Record};
use crate::manifest::Manifest;
use crate::objects::{ObjectChanges, ObjectKind};
use crate::segment::Base64;
use crate::serial::SerialTransaction;
use crate::transaction::{Durability, TableWrites, Writes, duplicate_key};
use crate::view::Snapshot;

/// Tables created, dropped and altered by a transaction.
#[derive(Debug, Default, Clone)]
pub(crate) struct Structure {
    pub(crate) created: Vec<Arc<TableDef>>,
    pub(crate) dropped: Vec<Arc<TableDef>>,
    /// Views, sequences and the like.
    pub(crate) objects: ObjectChanges,
    /// New definitions of tables that stay.
    pub(crate) altered: Vec<Arc<TableDef>>,
}

impl Structure {
    pub(crate) fn is_empty(&self) -> bool {
        self.created.is_empty() && self.dropped.is_empty() && self.altered.is_empty() && self.objects.is_empty()
    }
}

/// A transaction that wants to commit.
#[derive(Debug)]
pub(crate) struct Commit {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) writes: Arc<Writes>,
    pub(crate) structure: Structure,
    pub(crate) unchanged: BTreeSet<TableId>,
    pub(crate) serial: Option<Arc<SerialTransaction>>,
}

/// What only committers and flushes touch, under the commit lock.
#[derive(Debug)]
pub(super) struct Committer {
    /// The newest durable manifest.
    pub(super) manifest: Manifest,
    /// The log file being written.
    pub(super) log_number: u64,
    /// Whether tables or segments changed since that manifest.
    pub(super) structure_changed: bool,
    /// The newest commit that changed each table since the store was opened.
    last_change: HashMap<TableId, Timestamp>,
    /// The newest commit whose owner waits for the disk.
    last_sync: Lsn,
}

impl Committer {
    pub(super) fn new(manifest: Manifest, log_number: u64) -> Self {
        let structure_changed = manifest.log_start != log_number;
        Committer { manifest, log_number, structure_changed, last_change: HashMap::new(), last_sync: 0 }
    }

    fn changed_since(&self, table: TableId, timestamp: Timestamp) -> bool {
        self.last_change.get(&table).is_some_and(|changed| *changed > timestamp)
    }
}

impl Commit {
    fn is_structural(&self) -> bool {
        !self.structure.is_empty() || self.writes.tables().any(|(_, writes)| !writes.staged.is_empty())
    }

    fn row_keys(writes: &TableWrites) -> impl Iterator<Item = &[u8]> + Clone {
        writes.rows.keys().map(|key| key.as_ref())
    }

    /// Whether everything is in memory that deciding and applying the commit will look at.
    fn keys_ready(&self, version: &Version) -> Result<bool> {
        for (table, writes) in self.writes.tables() {
            if !version.keys_loaded(table, Self::row_keys(writes)) {
                return Ok(false);
            }
            for (definition, position, values) in unique_values(version, table, writes)? {
                if !version.postings_loaded(definition, position, &values)? {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    async fn load_keys(&self, version: &Version) -> Result<()> {
        for (table, writes) in self.writes.tables() {
            version.load_keys(table, Self::row_keys(writes)).await?;
            for (definition, position, values) in unique_values(version, table, writes)? {
                version.load_postings(definition, position, &values).await?;
            }
        }
        Ok(())
    }

    fn record(&self, timestamp: Timestamp) -> Result<Record<'_>> {
        let mut operations = Vec::new();
        let dropped = self.structure.dropped.iter().map(|table| Operation::DropTable(table.id));
        operations.extend(dropped);
        for table in &self.structure.created {
            operations.push(Operation::CreateTable(Box::new(TableRecord::from(table.as_ref()))));
        }
        let gone = self.structure.objects.iter().filter(|(_, object)| object.is_none());
        operations.extend(gone.map(|(id, _)| Operation::DropObject(*id)));
        let put = self.structure.objects.values().flatten();
        operations.extend(put.map(|object| Operation::PutObject(Box::new(object.as_ref().clone()))));
        for table in &self.structure.altered {
            operations.push(Operation::AlterTable(Box::new(TableRecord::from(table.as_ref()))));
        }
        for (table, writes) in self.writes.tables() {
            for (key, pending) in &writes.rows {
                match (&pending.row, pending.expectation) {
                    (Some(row), _) => operations.push(Operation::Put { table, row }),
                    (None, Expectation::Present) => operations.push(Operation::Delete { table, key }),
                    (None, Expectation::Absent) => {}
                }
            }
            // After the rows: a key may be deleted first and then loaded.
            for segment in &writes.staged {
                let deleted = Base64(serialize(writes.removed.get(&segment.meta.id))?);
                operations.push(Operation::AddSegment(Box::new(AddedSegment { meta: segment.meta.clone(), deleted })));
            }
        }
        Ok(Record { timestamp, operations })
    }
}

/// A table, the position of one of its unique indexes, and values in it.
type UniqueValues<'a> = (&'a TableDef, usize, Vec<Vec<u8>>);

/// The values of pending rows in each unique index of their table, as the store defines it now. None if the table is
/// gone or does not exist yet.
fn unique_values<'a>(version: &'a Version, table: TableId, writes: &TableWrites) -> Result<Vec<UniqueValues<'a>>> {
    let Some(definition) = version.catalog.table(table) else { return Ok(Vec::new()) };
    let mut all = Vec::new();
    for (position, index) in definition.indexes.iter().enumerate().filter(|(_, index)| index.unique) {
        let codec = definition.codec()?;
        let rows = writes.rows.values().filter_map(|pending| pending.row.as_deref());
        let values = rows.map(|row| unique_value(index, &codec.indexes[position], &codec.rows, row));
        all.push((definition.as_ref(), position, values.filter_map(Result::transpose).collect::<Result<_>>()?));
    }
    Ok(all)
}

/// A bitmap as bytes; empty for none.
pub(super) fn serialize(rows: Option<&RoaringBitmap>) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(rows) = rows.filter(|rows| !rows.is_empty()) {
        rows.serialize_into(&mut bytes).map_err(|error| Error::Internal(format!("encoding a delete set: {error}")))?;
    }
    Ok(bytes)
}

/// Installs the newest version of a key wherever the old one is. The table may be newer than the version.
pub(crate) fn apply_row(
    version: &Version,
    table: &TableDef,
    key: &[u8],
    row: Option<Bytes>,
    timestamp: Timestamp,
    watermark: Timestamp,
) -> Result<()> {
    let old = version.locate(table.id, key, Timestamp::MAX)?;
    match old.map(|old| old.place) {
        Some(Place::Segment(segment, old_row)) => segment.deletes.add(old_row, timestamp, watermark),
        Some(Place::Frozen) => {
            if let Some(frozen) = &version.frozen {
                frozen.supersede(table.id, key, timestamp);
            }
        }
        Some(Place::Active) if row.is_none() => version.active.put(table, key, None, timestamp, watermark)?,
        Some(Place::Active) | None => {}
    }
    if row.is_some() {
        version.active.put(table, key, row, timestamp, watermark)?;
    }
    Ok(())
}

impl Inner {
    /// Commits a transaction that has changes.
    pub(crate) async fn commit(self: &Arc<Self>, commit: Commit, durability: Durability) -> Result<Timestamp> {
        self.check_open()?;
        self.wait_for_room().await?;
        if commit.is_structural() {
            let store = Arc::clone(self);
            let task = tokio::spawn(async move { store.commit_structure(commit).await });
            return task.await.map_err(|error| Error::Internal(format!("committing: {error}")))?;
        }
        let (timestamp, lsn) = self.commit_rows(&commit, durability).await?;
        // An asynchronous commit waits for nobody's disk but must not make an earlier synchronous one visible before
        // that is durable.
        self.log.wait_durable(lsn).await?;
        self.timeline.lock().publish(timestamp);
        self.request_flush_if_full();
        Ok(timestamp)
    }

    /// Validates, logs and applies row changes. Returns the timestamp and what must be durable before it is published.
    async fn commit_rows(&self, commit: &Commit, durability: Durability) -> Result<(Timestamp, Lsn)> {
        loop {
            commit.load_keys(&self.current.load_full()).await?;
            let mut committer = self.committer.lock().await;
            let version = self.current.load_full();
            if !commit.keys_ready(&version)? {
                continue;
            }
            self.validate(commit, &version, &committer)?;
            self.judge_writer(commit)?;
            let (timestamp, watermark) = {
                let mut timeline = self.timeline.lock();
                (timeline.allocate(), timeline.watermark())
            };
            let lsn = self.log.append(&commit.record(timestamp)?)?;
            self.apply_rows(commit, &version, &version.catalog, &mut committer, timestamp, watermark);
            if durability == Durability::Sync {
                committer.last_sync = lsn;
            }
            return Ok((timestamp, committer.last_sync));
        }
    }

    /// The same for commits that change tables or bring segments, which end durable and published under the lock.
    async fn commit_structure(&self, commit: Commit) -> Result<Timestamp> {
        let mut committer = self.committer.lock().await;
        let version = self.current.load_full();
        commit.load_keys(&version).await?;
        self.validate(&commit, &version, &committer)?;
        self.validate_structure(&commit, &version)?;
        self.validate_objects(&commit, &version)?;
        self.validate_staged(&commit, &version, &committer).await?;
        for table in &commit.structure.altered {
            // Entries of an index that does not come to be are never looked at.
            version.memtables().try_for_each(|(memtable, _)| memtable.index_all(table))?;
        }
        self.judge_writer(&commit)?;
        let (timestamp, watermark) = {
            let mut timeline = self.timeline.lock();
            (timeline.allocate(), timeline.watermark())
        };
        let record = commit.record(timestamp)?;
        let staged = commit.writes.tables().flat_map(|(_, writes)| &writes.staged);
        staged.for_each(|segment| segment.keep());
        let lsn = self.log.append(&record)?;
        self.log.wait_durable(lsn).await?;

        let mut next = version.successor();
        let catalog = Arc::make_mut(&mut next.catalog);
        for table in &commit.structure.dropped {
            catalog.remove(table.id);
            let segments = next.segments.remove(&table.id);
            segments.iter().flat_map(|segments| segments.iter()).for_each(|segment| segment.mark_obsolete());
        }
        commit.structure.altered.iter().for_each(|table| catalog.replace(Arc::clone(table)));
        commit.structure.created.iter().for_each(|table| catalog.add(Arc::clone(table)));
        change_objects(catalog, &commit.structure.objects);
        for (table, writes) in commit.writes.tables() {
            for segment in &writes.staged {
                let removed = writes.removed.get(&segment.meta.id);
                removed
                    .iter()
                    .flat_map(|rows| rows.iter())
                    .for_each(|row| segment.deletes.add(row, timestamp, watermark));
                segment.commit(timestamp);
            }
            next.add_segments(table, writes.staged.iter().cloned());
            committer.last_change.insert(table, timestamp);
        }
        self.apply_rows(&commit, &version, &next.catalog, &mut committer, timestamp, watermark);
        for table in &commit.structure.altered {
            committer.last_change.insert(table.id, timestamp);
        }
        committer.structure_changed = true;
        committer.last_sync = lsn;
        self.current.store(Arc::new(next));
        self.timeline.lock().publish(timestamp);
        drop(committer);
        self.request_flush_if_full();
        Ok(timestamp)
    }

    fn validate(&self, commit: &Commit, version: &Version, committer: &Committer) -> Result<()> {
        let snapshot = commit.snapshot.timestamp;
        for table in &commit.unchanged {
            if committer.changed_since(*table, snapshot) {
                return Err(Error::Conflict { table: name_of(commit, *table) });
            }
        }
        for (table, writes) in commit.writes.tables() {
            if commit.structure.created.iter().any(|created| created.id == table) {
                continue;
            }
            let Some(definition) = version.catalog.table(table) else {
                return Err(Error::Conflict { table: name_of(commit, table) });
            };
            let checked = commit.snapshot.version.catalog.table(table);
            if checked.is_none_or(|checked| !checked.accepts_the_same_rows(definition)) {
                return Err(Error::Conflict { table: definition.name.clone() });
            }
            if !committer.changed_since(table, snapshot) {
                // The statements checked against the snapshot, and nothing has happened since.
                continue;
            }
            for (key, pending) in &writes.rows {
                if pending.expectation == Expectation::Absent && pending.row.is_none() {
                    continue;
                }
                let current = match version.locate(table, key, Timestamp::MAX)? {
                    Some(located) => VersionState::Live(located.written),
                    None => VersionState::Absent,
                };
                match judge_write(pending.expectation, current, snapshot) {
                    Verdict::Proceed => {}
                    Verdict::Conflict => return Err(Error::Conflict { table: definition.name.clone() }),
                    Verdict::Duplicate => {
                        let row = pending.row.as_deref().unwrap_or_default();
                        let all: Vec<usize> = (0..definition.storage_schema().fields().len()).collect();
                        let row = definition.codec()?.rows.decode(&[row], &all)?;
                        return Err(duplicate_key(definition, None, &row, 0));
                    }
                }
            }
            self.validate_indexes(definition, writes, version)?;
        }
        Ok(())
    }

    /// Compares pending rows with what is in the table's unique indexes now, apart from rows the transaction replaces.
    /// An index may be younger than the rows, so that they have to prove that it can hold them.
    fn validate_indexes(&self, table: &TableDef, writes: &TableWrites, version: &Version) -> Result<()> {
        let codec = table.codec()?;
        let replaced = |key: &[u8]| writes.replaces(key);
        let mut entry = Vec::new();
        for (position, index) in table.indexes.iter().enumerate() {
            for row in writes.rows.values().filter_map(|pending| pending.row.as_deref()) {
                codec.indexes[position].encode_row(&codec.rows, row, &mut entry)?;
                if !index.unique {
                    continue;
                }
                let Some(value) = unique_value(index, &codec.indexes[position], &codec.rows, row)? else { continue };
                if version.holder(table, position, &value, Timestamp::MAX, replaced)?.is_some() {
                    let all: Vec<usize> = (0..table.storage_schema().fields().len()).collect();
                    return Err(duplicate_key(table, Some(index), &codec.rows.decode(&[row], &all)?, 0));
                }
            }
        }
        Ok(())
    }

    fn validate_structure(&self, commit: &Commit, version: &Version) -> Result<()> {
        let Structure { created, dropped, altered, objects: _ } = &commit.structure;
        for table in altered {
            let (then, now) = (commit.snapshot.version.catalog.table(table.id), version.catalog.table(table.id));
            if !then.zip(now).is_some_and(|(then, now)| Arc::ptr_eq(then, now)) {
                return Err(Error::Conflict { table: table.name.clone() });
            }
        }
        let is_dropped = |id: TableId| dropped.iter().any(|table| table.id == id);
        for table in dropped {
            if version.catalog.table(table.id).is_none() {
                return Err(Error::Conflict { table: table.name.clone() });
            }
            let lets_go = |id: TableId| {
                let own = altered.iter().find(|other| other.id == id);
                own.is_some_and(|own| own.foreign_keys.iter().all(|foreign_key| foreign_key.parent != table.id))
            };
            let referring = version.catalog.referring_tables(table.id);
            let referring = referring.filter(|other| !is_dropped(other.id) && !lets_go(other.id));
            let dependents: Vec<String> = referring.map(|other| format!("table \"{}\"", other.name)).collect();
            if !dependents.is_empty() {
                return Err(Error::DependentObjects { table: table.name.clone(), dependents });
            }
        }
        for table in created.iter().chain(altered) {
            let taken = version.catalog.find(&table.schema_name, &table.name);
            let renamed = |id: TableId| altered.iter().any(|other| other.id == id);
            if taken.is_some_and(|taken| !is_dropped(taken.id) && !renamed(taken.id)) {
                return Err(Error::TableExists { schema: table.schema_name.clone(), name: table.name.clone() });
            }
            for foreign_key in &table.foreign_keys {
                let own = created.iter().any(|created| created.id == foreign_key.parent);
                if !own && (version.catalog.table(foreign_key.parent).is_none() || is_dropped(foreign_key.parent)) {
                    return Err(Error::Conflict { table: table.name.clone() });
                }
            }
        }
        Ok(())
    }

    /// Of two transactions that change one object the first wins, and no name may have two owners. A schema must stay as
    /// long as something is in it.
    fn validate_objects(&self, commit: &Commit, version: &Version) -> Result<()> {
        let Structure { created, objects, .. } = &commit.structure;
        if objects.is_empty() && version.catalog.objects().next().is_none() {
            return Ok(());
        }
        let before = &commit.snapshot.version.catalog;
        let conflict = |name: &str| Error::Conflict { table: name.to_owned() };
        for (id, object) in objects {
            let (then, now) = (before.object(*id), version.catalog.object(*id));
            let same = match (then, now) {
                (None, None) => true,
                (Some(then), Some(now)) => Arc::ptr_eq(then, now),
                _ => false,
            };
            if !same {
                let name = object.as_ref().or(then).map(|object| object.name.as_str());
                return Err(conflict(name.unwrap_or_default()));
            }
        }
        let mut after = Catalog::clone(&version.catalog);
        commit.structure.dropped.iter().for_each(|table| after.remove(table.id));
        objects.iter().filter(|(_, object)| object.is_none()).for_each(|(id, _)| after.remove_object(*id));
        for object in objects.values().flatten() {
            if after.name_taken(object) {
                return Err(Error::ObjectExists { name: object.name.clone() });
            }
            after.put_object(Arc::clone(object));
        }
        for table in created {
            let taken = [ObjectKind::View, ObjectKind::Sequence]
                .map(|kind| after.find_object(kind, &table.schema_name, &table.name).is_some());
            if taken.contains(&true) {
                return Err(Error::TableExists { schema: table.schema_name.clone(), name: table.name.clone() });
            }
            after.add(Arc::clone(table));
        }
        let had_schema = |name: &str| before.find_object(ObjectKind::Schema, "", name).is_some();
        let names = after.tables().map(|table| table.schema_name.as_str());
        let names = names.chain(after.objects().map(|object| object.schema_name.as_str()));
        for name in names {
            if had_schema(name) && after.find_object(ObjectKind::Schema, "", name).is_none() {
                return Err(conflict(name));
            }
        }
        Ok(())
    }

    /// Compares bulk-loaded keys with what others committed since the snapshot.
    async fn validate_staged(&self, commit: &Commit, version: &Version, committer: &Committer) -> Result<()> {
        for (table, writes) in commit.writes.tables() {
            if !committer.changed_since(table, commit.snapshot.timestamp) {
                continue;
            }
            let now = Timestamp::MAX - 1;
            let removed = |key: &[u8]| writes.replaces(key);
            for segment in &writes.staged {
                let counts = |row| !writes.is_removed(segment.meta.id, row);
                if !segment.table.has_hidden_key() {
                    let keys: &Arc<Keys> = segment.load_keys().await?;
                    let common = version.first_common_key(table, keys, now, counts, removed).await?;
                    if let Some(row) = common {
                        return Err(segment_duplicate(segment, None, row).await?);
                    }
                }
                let Some(definition) = version.catalog.table(table) else { continue };
                for (position, index) in definition.indexes.iter().enumerate() {
                    // Building them also finds values that are too long for an index made meanwhile.
                    let postings = segment.load_postings(index.id, &definition.codec()?.indexes[position]).await?;
                    if index.unique {
                        let common =
                            version.first_common_value(definition, position, &postings, now, counts, removed).await?;
                        if let Some(row) = common {
                            return Err(segment_duplicate(segment, Some(index), row as usize).await?);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn apply_rows(
        &self,
        commit: &Commit,
        version: &Version,
        catalog: &Catalog,
        committer: &mut Committer,
        timestamp: Timestamp,
        watermark: Timestamp,
    ) {
        for (table, writes) in commit.writes.tables() {
            let definition = catalog.table(table).expect("validation found the table or the commit creates it");
            for (key, pending) in &writes.rows {
                if pending.row.is_some() || pending.expectation == Expectation::Present {
                    // Validation has just located the same key in the same version, and encoded the same row.
                    apply_row(version, definition, key, pending.row.clone(), timestamp, watermark)
                        .expect("the key's segments are loaded, which validation made sure of");
                }
            }
            committer.last_change.insert(table, timestamp);
        }
    }

    /// Waits while the memtable is so full that the flush must catch up first.
    async fn wait_for_room(&self) -> Result<()> {
        loop {
            let flushed = self.flushed.notified();
            let limit = self.options.memtable_bytes.saturating_mul(2);
            if self.current.load().active.memory_bytes() < limit {
                return Ok(());
            }
            self.log.check()?;
            self.request_flush();
            flushed.await;
        }
    }
}

fn change_objects(catalog: &mut Catalog, changes: &ObjectChanges) {
    changes.iter().filter(|(_, object)| object.is_none()).for_each(|(id, _)| catalog.remove_object(*id));
    changes.values().flatten().for_each(|object| catalog.put_object(Arc::clone(object)));
}

fn name_of(commit: &Commit, table: TableId) -> String {
    let version = &commit.snapshot.version;
    version.catalog.table(table).map_or_else(|| format!("number {}", table.0), |table| table.name.clone())
}
