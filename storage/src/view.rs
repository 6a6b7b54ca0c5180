//! A consistent picture of the store at one moment.

use std::cell::Cell;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use bytes::Bytes;
use rustydb_txn::{SnapshotToken, Timestamp};

use crate::catalog::{Catalog, TableDef, TableId};
use crate::encoding::Keys;
use crate::error::{Error, Result};
use crate::index::{Interval, Postings};
use crate::obstacle::{Attempt, Obstacle};
use crate::range::RowPlace;
use crate::scan::{Filter, ScanPlan, ScanRequest, ScanUnit, UNIT_ROWS};
use crate::segment::{KeyHash, Pins, Segment};
use crate::serial::SerialTransaction;
use crate::statistics::{TableStatistics, merge_columns};
use crate::store::{Inner, Place, Version};
use crate::transaction::Writes;

/// A pinned version and the timestamp to read it at.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) store: Arc<Inner>,
    pub(crate) version: Arc<Version>,
    token: Option<SnapshotToken>,
    pub(crate) timestamp: Timestamp,
}

impl Snapshot {
    pub(crate) fn new(store: Arc<Inner>, version: Arc<Version>, token: SnapshotToken) -> Self {
        Snapshot { store, version, timestamp: token.timestamp(), token: Some(token) }
    }

    /// The same moment, with nothing but these tables.
    fn only(&self, tables: &[TableId]) -> Option<Snapshot> {
        let token = self.store.share_snapshot(self.token.as_ref()?);
        Some(Snapshot::new(Arc::clone(&self.store), Arc::new(self.version.only(tables)), token))
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        if let Some(token) = self.token.take() {
            self.store.close_snapshot(token);
        }
    }
}

/// A snapshot and, inside a transaction, the transaction's own changes up to the moment the view was taken. Clones are
/// cheap; while one is alive, everything it may read is kept.
#[derive(Debug, Clone)]
pub struct ReadView {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) writes: Arc<Writes>,
    /// Where a serializable transaction remembers what it reads.
    pub(crate) serial: Option<Arc<SerialTransaction>>,
    /// The tables it keeps; `None`: all.
    pub(crate) tables: Option<Arc<[TableId]>>,
}

/// Where a view finds the row of a key.
pub(crate) enum Found {
    /// In the transaction's own pending rows.
    Pending(Bytes),
    /// In a segment the transaction staged.
    Staged(Arc<Segment>, u32),
    /// Committed.
    Committed(Place, Option<Bytes>),
}

impl ReadView {
    /// The newest commit it sees.
    pub fn timestamp(&self) -> u64 {
        self.snapshot.timestamp
    }

    /// The tables it sees.
    pub fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    /// The same view with nothing but these tables: rows and files of others are not kept for it. Who reads for long and
    /// knows what takes one and lets the whole one go. Other tables cannot be read with it.
    pub fn only(&self, tables: &[TableId]) -> ReadView {
        let mut tables = tables.to_vec();
        if let Some(kept) = &self.tables {
            tables.retain(|table| kept.contains(table));
        }
        match self.snapshot.only(&tables) {
            Some(snapshot) => ReadView { snapshot: Arc::new(snapshot), tables: Some(tables.into()), ..self.clone() },
            None => self.clone(),
        }
    }

    pub(crate) fn table(&self, table: TableId) -> Result<&Arc<TableDef>> {
        if self.tables.as_ref().is_some_and(|tables| !tables.contains(&table)) {
            return Err(Error::Internal(format!("table {} is not kept by this view", table.0)));
        }
        self.catalog.require(table)
    }

    /// Cuts a scan into units that together hold each visible row once.
    pub fn scan(&self, request: ScanRequest) -> Result<Vec<ScanUnit>> {
        let table = Arc::clone(self.table(request.table)?);
        self.note_scan(&table, &request.filters)?;
        let id = request.table;
        let plan = Arc::new(ScanPlan::new(table, request)?);
        let (version, timestamp) = (&self.snapshot.version, self.snapshot.timestamp);
        let writes = self.writes.table(id);
        let mut units = Vec::new();

        let staged = writes.iter().flat_map(|writes| &writes.staged);
        let committed = version.segments(id).iter().filter(|segment| segment.created() <= timestamp);
        for segment in committed.chain(staged) {
            if !plan.may_match(segment)? {
                continue;
            }
            let mut deleted = segment.deletes.at(timestamp);
            if let Some(removed) = writes.and_then(|writes| writes.removed.get(&segment.meta.id)) {
                deleted = Some(Arc::new(deleted.as_deref().cloned().unwrap_or_default().with(removed)));
            }
            let rows = segment.meta.rows as usize;
            for start in (0..rows).step_by(UNIT_ROWS) {
                units.push(ScanUnit::segment(&plan, segment, start..(start + UNIT_ROWS).min(rows), deleted.clone()));
            }
        }
        for (memtable, _) in version.memtables() {
            if let Some(part) = memtable.table(id) {
                units.push(ScanUnit::memtable(&plan, Arc::clone(part), timestamp, writes.cloned()));
            }
        }
        if let Some(writes) = writes
            && !writes.rows.is_empty()
        {
            units.push(ScanUnit::pending(&plan, Arc::clone(writes)));
        }
        Ok(units)
    }

    /// For each key (key columns, in key order), whether a row with it is visible. Rows with a NULL key column find
    /// nothing.
    pub async fn lookup(&self, table: TableId, keys: &RecordBatch) -> Result<Vec<bool>> {
        let keys = self.encode_keys(table, keys)?;
        self.note_keys(table, &keys);
        let _pins = self.load_keys(table, &keys).await?;
        (0..keys.len()).map(|row| Ok(self.find(table, keys.get(row))?.is_some())).collect()
    }

    /// The visible rows among `keys`, in the order of the keys, with the chosen columns of the storage schema.
    pub async fn get(&self, table: TableId, keys: &RecordBatch, projection: &[usize]) -> Result<RecordBatch> {
        let keys = self.encode_keys(table, keys)?;
        self.note_keys(table, &keys);
        let _pins = self.load_keys(table, &keys).await?;
        let definition = self.table(table)?;
        let mut places = Vec::new();
        for row in 0..keys.len() {
            match self.find(table, keys.get(row))? {
                Some(Found::Pending(row) | Found::Committed(_, Some(row))) => places.push(RowPlace::Memory(row)),
                Some(Found::Staged(segment, row) | Found::Committed(Place::Segment(segment, row), None)) => {
                    places.push(RowPlace::Segment(segment, row));
                }
                Some(Found::Committed(_, None)) | None => {}
            }
        }
        self.rows_at(definition, places, projection).await
    }

    /// The rows at these places, in this order, with the chosen columns of the storage schema.
    pub(crate) async fn rows_at(
        &self,
        table: &TableDef,
        places: Vec<RowPlace>,
        projection: &[usize],
    ) -> Result<RecordBatch> {
        let mut rows: Vec<Bytes> = Vec::with_capacity(places.len());
        for place in places {
            rows.push(match place {
                RowPlace::Memory(row) => row,
                RowPlace::Segment(segment, row) => segment.row(row, projection).await?,
            });
        }
        table.codec()?.rows.decode(&rows.iter().map(Bytes::as_ref).collect::<Vec<&[u8]>>(), projection)
    }

    /// About how many rows a table has: those of [`statistics`](Self::statistics), without the rest.
    pub fn rows(&self, table: TableId) -> Result<usize> {
        self.table(table)?;
        let (version, timestamp) = (&self.snapshot.version, self.snapshot.timestamp);
        let writes = self.writes.table(table);
        let visible = version.segments(table).iter().filter(|segment| segment.created() <= timestamp);
        let in_segments: usize = visible
            .chain(writes.iter().flat_map(|writes| &writes.staged))
            .map(|segment| {
                segment.meta.rows as usize - segment.deletes.at(timestamp).map_or(0, |deleted| deleted.len())
            })
            .sum();
        let in_memory: usize =
            version.memtables().filter_map(|(memtable, _)| memtable.table(table)).map(|part| part.keys()).sum();
        Ok(in_segments + in_memory + writes.map_or(0, |writes| writes.rows.len()))
    }

    /// What is known about a table without reading it.
    pub fn statistics(&self, table: TableId) -> Result<TableStatistics> {
        let definition = self.table(table)?;
        let (version, timestamp) = (&self.snapshot.version, self.snapshot.timestamp);
        let writes = self.writes.table(table);
        let visible = version.segments(table).iter().filter(|segment| segment.created() <= timestamp);
        let segments: Vec<&Segment> =
            visible.chain(writes.iter().flat_map(|writes| &writes.staged)).map(Arc::as_ref).collect();
        // An exact count would answer a query without a scan that is remembered.
        let (mut rows, mut bytes, mut exact) = (0, 0, self.serial.is_none());
        for segment in &segments {
            let deleted = segment.deletes.at(timestamp).map_or(0, |deleted| deleted.len());
            rows += segment.meta.rows as usize - deleted;
            bytes += segment.meta.file_bytes as usize;
            exact &= deleted == 0;
        }
        for (memtable, _) in version.memtables() {
            if let Some(part) = memtable.table(table) {
                rows += part.keys();
                exact = false;
            }
        }
        if let Some(writes) = writes {
            rows += writes.rows.len();
            exact &= writes.rows.is_empty() && writes.removed.is_empty();
        }
        let columns = merge_columns(segments.into_iter(), definition.storage_schema().fields().len())?;
        Ok(TableStatistics { rows, bytes, exact, columns })
    }

    /// Whether what is read through this view must be noted ([`note_scan`](Self::note_scan)) before the transaction
    /// ends.
    pub fn remembers_reads(&self) -> bool {
        self.serial.is_some()
    }

    /// Remembers that the rows with these properties are going to be read. [`scan`](Self::scan) does it as well, but may
    /// come too late for the transaction's commit if it is called by a stream.
    pub fn note_scan(&self, table: &TableDef, filters: &[Filter]) -> Result<()> {
        self.serial.as_ref().map_or(Ok(()), |serial| serial.note_scan(table, filters))
    }

    fn note_keys(&self, table: TableId, keys: &Keys) {
        if let Some(serial) = &self.serial {
            serial.note_keys(table, keys);
        }
    }

    /// Encodes key columns, in key order. They must have the key columns' types and no NULLs.
    pub(crate) fn encode_keys(&self, table: TableId, keys: &RecordBatch) -> Result<Keys> {
        let definition = self.table(table)?;
        let schema = definition.storage_schema();
        let expected = definition.key_columns().iter().map(|column| schema.field(*column));
        if keys.num_columns() != definition.key_columns().len() {
            return Err(Error::Internal(format!("{} key columns for \"{}\"", keys.num_columns(), definition.name)));
        }
        for (field, column) in expected.zip(keys.columns()) {
            if column.data_type() != field.data_type() || column.null_count() > 0 {
                return Err(Error::Internal(format!("key column \"{}\" is {}", field.name(), column.data_type())));
            }
        }
        definition.codec()?.keys.encode(keys.columns())
    }

    /// The segments whose rows it may see.
    pub(crate) fn visible_segments(&self, table: TableId) -> Vec<Arc<Segment>> {
        let timestamp = self.snapshot.timestamp;
        let committed = self.snapshot.version.segments(table).iter().filter(|segment| segment.created() <= timestamp);
        let staged = self.writes.table(table).into_iter().flat_map(|writes| &writes.staged);
        committed.chain(staged).cloned().collect()
    }

    /// Whether it sees a row of one of those.
    pub(crate) fn shows(&self, segment: &Segment, row: u32) -> bool {
        let hidden = self.writes.table(segment.table.id).is_some_and(|writes| writes.is_removed(segment.meta.id, row));
        !hidden && !segment.deletes.contains(row, self.snapshot.timestamp)
    }

    /// Chooses among rows of one of those: `choose` is given what tells whether it sees one.
    pub(crate) fn choose_rows<R>(&self, segment: &Segment, choose: impl FnOnce(&dyn Fn(u32) -> bool) -> R) -> R {
        let hidden = self.writes.table(segment.table.id).and_then(|writes| writes.removed.get(&segment.meta.id));
        segment.deletes.look(self.snapshot.timestamp, |seen| {
            choose(&|row| !hidden.is_some_and(|rows| rows.contains(row)) && !seen.is_deleted(row))
        })
    }

    /// The first `wanted` visible ones of adjacent rows of one of those, or the last ones.
    pub(crate) fn choose_adjacent(
        &self,
        segment: &Segment,
        rows: Range<usize>,
        descending: bool,
        wanted: usize,
    ) -> Vec<u32> {
        let hidden = self.writes.table(segment.table.id).and_then(|writes| writes.removed.get(&segment.meta.id));
        let is_wanted = |row| !hidden.is_some_and(|rows| rows.contains(row));
        let rows = rows.start as u32..rows.end as u32;
        segment.deletes.look(self.snapshot.timestamp, |seen| seen.live(rows, descending, wanted, is_wanted))
    }

    /// The visible rows that are in no segment.
    pub(crate) fn rows_in_memory(&self, table: TableId) -> Vec<Bytes> {
        let mut rows = Vec::new();
        let writes = self.writes.table(table);
        let overwritten = |key: &[u8]| writes.is_some_and(|writes| writes.rows.contains_key(key));
        for (memtable, _) in self.snapshot.version.memtables() {
            if let Some(part) = memtable.table(table) {
                part.collect_visible(None, self.snapshot.timestamp, usize::MAX, overwritten, |_, row, _| {
                    rows.push(row)
                });
            }
        }
        rows.extend(writes.into_iter().flat_map(|writes| writes.rows.values()).filter_map(|row| row.row.clone()));
        rows
    }

    /// Makes [`find`](Self::find) possible for these keys, as long as the pins are held.
    pub(crate) async fn load_keys(&self, table: TableId, keys: &Keys) -> Result<Pins> {
        let all = (0..keys.len()).map(|row| keys.get(row));
        let mut pins = self.snapshot.version.load_keys(table, all.clone()).await?;
        if let Some(writes) = self.writes.table(table) {
            for segment in &writes.staged {
                if all.clone().any(|key| segment.meta.may_contain(key)) {
                    pins.add(segment.load_key_index().await?);
                }
            }
        }
        Ok(pins)
    }

    /// Finds the visible row of a key; its segments must be pinned ([`load_keys`](Self::load_keys)).
    pub(crate) fn find(&self, table: TableId, key: &[u8]) -> Result<Option<Found>> {
        let found = self.find_in_memory(table, key)?;
        found.ok_or_else(|| Error::Internal(format!("keys of table {} are not loaded", table.0)))
    }

    /// The same for one key, as far as that takes no waiting.
    pub(crate) fn look_up(&self, table: TableId, key: &[u8]) -> Attempt<Option<Found>> {
        self.find_in_memory(table, key)?.ok_or_else(|| self.missing_keys(table, key).into())
    }

    #[cold]
    fn missing_keys(&self, table: TableId, key: &[u8]) -> Obstacle {
        let mut missing = self.snapshot.version.missing_keys(table, std::iter::once(key));
        let staged = self.writes.table(table).into_iter().flat_map(|writes| &writes.staged);
        staged.filter(|segment| segment.meta.may_contain(key)).for_each(|segment| missing.add_key_index(segment));
        missing
    }

    /// The same if all that must be looked at happens to be in memory; otherwise `None`.
    fn find_in_memory(&self, table: TableId, key: &[u8]) -> Result<Option<Option<Found>>> {
        if let Some(writes) = self.writes.table(table) {
            let pending = writes.rows.get(key);
            if let Some(row) = pending.and_then(|pending| pending.row.clone()) {
                return Ok(Some(Some(Found::Pending(row))));
            }
            for segment in writes.staged.iter().filter(|segment| segment.meta.may_contain(key)) {
                let found = segment.with_key_index(|keys| keys.find(key, KeyHash::of(key)));
                let Some(found) = found else { return Ok(None) };
                if let Some(row) = found?
                    && !writes.is_removed(segment.meta.id, row)
                {
                    return Ok(Some(Some(Found::Staged(Arc::clone(segment), row))));
                }
            }
            if pending.is_some() {
                return Ok(Some(None));
            }
        }
        let located = self.snapshot.version.locate_in_memory(table, key, self.snapshot.timestamp)?;
        Ok(located.map(|located| located.map(|located| Found::Committed(located.place, located.row))))
    }

    /// Finds a key (its row in `keys`, which ascend) that a visible row has already.
    pub(crate) async fn first_common_key(&self, table: TableId, keys: &Keys) -> Result<Option<usize>> {
        let (Some(first), Some(last)) = (keys.first(), keys.last()) else { return Ok(None) };
        let writes = self.writes.table(table);
        if let Some(writes) = writes {
            for segment in writes.staged.iter().filter(|segment| segment.meta.overlaps(first, last)) {
                let live = |_, row| !writes.is_removed(segment.meta.id, row);
                if let Some(row) = keys.first_match(segment.keys().await?.as_ref(), live) {
                    return Ok(Some(row));
                }
            }
            let between: (std::ops::Bound<&[u8]>, std::ops::Bound<&[u8]>) =
                (std::ops::Bound::Included(first), std::ops::Bound::Included(last));
            let pending = writes.rows.range::<[u8], _>(between).filter(|(_, pending)| pending.row.is_some());
            if let Some(row) = pending.into_iter().find_map(|(key, _)| keys.find(key)) {
                return Ok(Some(row));
            }
        }
        let (version, timestamp) = (&self.snapshot.version, self.snapshot.timestamp);
        let removed = |key: &[u8]| writes.is_some_and(|writes| writes.rows.contains_key(key));
        version.first_common_key(table, keys, timestamp, |_| true, removed).await
    }

    /// A row of new `postings` whose value in a unique index a visible row has already.
    pub(crate) async fn first_common_value(
        &self,
        table: &TableDef,
        position: usize,
        postings: &Postings,
    ) -> Result<Option<u32>> {
        let (index, encoder) = (&table.indexes[position], &table.codec()?.indexes[position]);
        let writes = self.writes.table(table.id);
        if let Some(writes) = writes {
            for segment in &writes.staged {
                let others = segment.load_postings(index.id, encoder).await?;
                let live = |row| !writes.is_removed(segment.meta.id, row);
                if let Some(row) = postings.first_common(index, &others, |_| true, live) {
                    return Ok(Some(row));
                }
            }
            let entries = writes.entries.get(&index.id).into_iter().flatten();
            let values = entries.map(|(entry, length)| &entry[..*length as usize]);
            if let Some(row) = values.into_iter().find_map(|value| postings.find(index, value, |_| true)) {
                return Ok(Some(row));
            }
        }
        let (version, timestamp) = (&self.snapshot.version, self.snapshot.timestamp);
        let removed = |key: &[u8]| writes.is_some_and(|writes| writes.rows.contains_key(key));
        version.first_common_value(table, position, postings, timestamp, |_| true, removed).await
    }

    /// Makes [`holder`](Self::holder) possible for these values, as long as the pins are held.
    pub(crate) async fn load_postings(&self, table: &TableDef, position: usize, values: &[Vec<u8>]) -> Result<Pins> {
        let (index, encoder) = (&table.indexes[position], &table.codec()?.indexes[position]);
        let mut pins = self.snapshot.version.load_postings(table, position, values).await?;
        for segment in self.writes.table(table.id).iter().flat_map(|writes| &writes.staged) {
            pins.add(segment.load_postings(index.id, encoder).await?);
            pins.add(segment.load_key_index().await?);
        }
        Ok(pins)
    }

    /// The same if it is all in memory already.
    pub(crate) fn pin_postings(&self, table: &TableDef, position: usize, values: &[Vec<u8>]) -> Attempt<Pins> {
        let (index, encoder) = (&table.indexes[position], &table.codec()?.indexes[position]);
        let staged = self.writes.table(table.id).map_or(&[][..], |writes| &writes.staged);
        if let Some(mut pins) = self.snapshot.version.pin_postings(table, position, values)? {
            let own = staged.iter().map(|segment| Some((segment.postings(index.id)?, segment.key_index()?)));
            if let Some(own) = own.collect::<Option<Vec<_>>>() {
                for (postings, keys) in own {
                    pins.add(postings);
                    pins.add(keys);
                }
                return Ok(pins);
            }
        }
        let mut missing = self.snapshot.version.missing_postings(table, position, values)?;
        for segment in staged {
            missing.add_postings(segment, index.id, encoder);
            missing.add_key_index(segment);
        }
        Err(missing.into())
    }

    /// The key of a visible row that has this very value in an index, leaving out rows whose key is `replaced`.
    pub(crate) fn holder(
        &self,
        table: &TableDef,
        position: usize,
        value: &[u8],
        replaced: impl Fn(&[u8]) -> bool,
    ) -> Result<Option<Box<[u8]>>> {
        let index = &table.indexes[position];
        let writes = self.writes.table(table.id);
        if let Some(writes) = writes {
            let interval = Interval::of_prefix(value);
            let entries = writes.entries.get(&index.id).into_iter();
            let own = entries.flat_map(|entries| entries.range::<[u8], _>(interval.bounds()));
            let keys =
                own.filter(|(_, length)| **length as usize == value.len()).map(|(entry, _)| &entry[value.len()..]);
            if let Some(key) = keys.into_iter().find(|key| !replaced(key)) {
                return Ok(Some(key.into()));
            }
            for segment in &writes.staged {
                let (Some(postings), Some(keys)) = (segment.postings(index.id), segment.key_index()) else {
                    return Err(Error::Internal("a staged index is not loaded".into()));
                };
                let failed = Cell::new(None);
                let live = |row: u32| match keys.key(row) {
                    Ok(key) => !writes.is_removed(segment.meta.id, row) && !replaced(&key),
                    Err(error) => {
                        failed.set(Some(error));
                        false
                    }
                };
                let found = postings.find(index, value, live);
                if let Some(error) = failed.into_inner() {
                    return Err(error);
                }
                if let Some(row) = found {
                    return Ok(Some(keys.key(row)?.into()));
                }
            }
        }
        let gone = |key: &[u8]| replaced(key) || writes.is_some_and(|writes| writes.rows.contains_key(key));
        self.snapshot.version.holder(table, position, value, self.snapshot.timestamp, gone)
    }
}
