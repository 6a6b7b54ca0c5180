//! What the store consists of at one moment.
//!
//! ```text
//!   Version ─┬─ catalog
//!            ├─ active memtable ◀── commits write here
//!            ├─ frozen memtable      (while a flush writes it out)
//!            └─ segments of each table
//! ```
//! A version is immutable in shape; commits fill its active memtable and delete sets, which are versioned by commit
//! timestamp themselves. A reader pins one version and one timestamp, taken together (see
//! [`Inner::open_snapshot`](super::Inner::open_snapshot)), and needs nothing else: whatever flushes and drops happen,
//! its version keeps what it may still read.
//!
//! Every row version lives in exactly one of these places, and every place that holds an older version of a row knows
//! when it ended. So a scan is a union, and a look-up may stop at the first place that has a visible row of the key.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use rustydb_txn::Timestamp;

use super::table_segments::TableSegments;
use crate::catalog::{Catalog, TableDef, TableId};
use crate::encoding::{KeyEncoder, Keys};
use crate::error::{Error, Result};
use crate::id_map::IdMap;
use crate::index::{Interval, Postings, successor};
use crate::memtable::{ChainState, Memtable};
use crate::obstacle::Obstacle;
use crate::segment::{KeyHash, Pins, Segment};

/// Segments of one table.
pub(crate) type Segments = Arc<[Arc<Segment>]>;

/// One state of the store.
#[derive(Debug)]
pub(crate) struct Version {
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) active: Arc<Memtable>,
    pub(crate) frozen: Option<Arc<Memtable>>,
    pub(crate) segments: IdMap<TableId, TableSegments>,
}

/// Where a row is.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    Active,
    Frozen,
    Segment(Arc<Segment>, u32),
}

/// A row that was found.
#[derive(Debug, Clone)]
pub(crate) struct Located {
    pub(crate) place: Place,
    /// The commit that wrote it.
    pub(crate) written: Timestamp,
    /// Its bytes, if it is in a memtable.
    pub(crate) row: Option<Bytes>,
}

impl Version {
    /// An empty store with this catalog.
    pub(crate) fn new(catalog: Catalog, segments: HashMap<TableId, Segments>) -> Self {
        let segments = segments.into_iter().map(|(table, segments)| (table, segments.into())).collect();
        Version { catalog: Arc::new(catalog), active: Arc::default(), frozen: None, segments }
    }

    /// A copy to be changed into the next version.
    pub(crate) fn successor(&self) -> Version {
        Version {
            catalog: Arc::clone(&self.catalog),
            active: Arc::clone(&self.active),
            frozen: self.frozen.clone(),
            segments: self.segments.clone(),
        }
    }

    /// What readers of these tables need of it.
    pub(crate) fn only(&self, tables: &[TableId]) -> Version {
        let segments = tables.iter().filter_map(|table| Some((*table, self.segments.get(table)?.clone())));
        Version {
            catalog: Arc::clone(&self.catalog),
            active: Arc::new(self.active.only(tables)),
            frozen: self.frozen.as_ref().map(|frozen| Arc::new(frozen.only(tables))),
            segments: segments.collect(),
        }
    }

    pub(crate) fn add_segments(&mut self, table: TableId, added: impl IntoIterator<Item = Arc<Segment>>) {
        let present = self.segments.get(&table).map(|segments| segments.to_vec()).unwrap_or_default();
        self.segments.insert(table, present.into_iter().chain(added).collect());
    }

    /// Takes some segments of a table out and puts others in.
    pub(crate) fn replace_segments(&mut self, table: TableId, gone: &HashSet<u64>, added: &[Arc<Segment>]) {
        let kept = self.segments(table).iter().filter(|segment| !gone.contains(&segment.meta.id));
        let segments = kept.chain(added).cloned().collect();
        self.segments.insert(table, segments);
    }

    /// A table's segments.
    pub(crate) fn segments(&self, table: TableId) -> &[Arc<Segment>] {
        self.segments.get(&table).map_or(&[], |segments| &**segments)
    }

    /// Memtables, newest first, with the place their rows are in.
    pub(crate) fn memtables(&self) -> impl Iterator<Item = (&Arc<Memtable>, Place)> {
        let frozen = self.frozen.iter().map(|memtable| (memtable, Place::Frozen));
        std::iter::once((&self.active, Place::Active)).chain(frozen)
    }

    /// Finds the row of a key that a reader at `timestamp` sees. The key indexes of every segment that may contain the
    /// key must be pinned ([`load_keys`](Self::load_keys)).
    pub(crate) fn locate(&self, table: TableId, key: &[u8], timestamp: Timestamp) -> Result<Option<Located>> {
        let located = self.locate_in_memory(table, key, timestamp)?;
        located.ok_or_else(|| Error::Internal(format!("keys of table {} are not loaded", table.0)))
    }

    /// The same if the key indexes happen to be in memory; otherwise `None`.
    pub(crate) fn locate_in_memory(
        &self,
        table: TableId,
        key: &[u8],
        timestamp: Timestamp,
    ) -> Result<Option<Option<Located>>> {
        let hash = KeyHash::of(key);
        for (memtable, place) in self.memtables() {
            let Some(part) = memtable.table(table) else { continue };
            match part.get(key, hash, timestamp) {
                ChainState::Row(row, written) => return Ok(Some(Some(Located { place, written, row: Some(row) }))),
                // A bulk load may have brought the key back since, in a segment.
                ChainState::Removed | ChainState::Unknown => {}
            }
        }
        let Some(segments) = self.segments.get(&table) else { return Ok(Some(None)) };
        let found = segments.find(key, hash, timestamp)?;
        let located = |(segment, row): (&Arc<Segment>, u32)| Located {
            written: segment.written(row),
            place: Place::Segment(Arc::clone(segment), row),
            row: None,
        };
        Ok(found.map(|found| found.map(located)))
    }

    /// What [`locate_in_memory`](Self::locate_in_memory) lacks to answer for these keys.
    pub(crate) fn missing_keys<'a>(&self, table: TableId, keys: impl Iterator<Item = &'a [u8]> + Clone) -> Obstacle {
        let mut missing = Obstacle::of_parts();
        self.candidates(table, keys).for_each(|segment| missing.add_key_index(segment));
        missing
    }

    /// Brings the key indexes of all segments into memory that may contain one of `keys`.
    pub(crate) async fn load_keys<'a>(
        &self,
        table: TableId,
        keys: impl Iterator<Item = &'a [u8]> + Clone,
    ) -> Result<Pins> {
        let mut pins = Pins::default();
        for segment in self.candidates(table, keys) {
            pins.add(segment.load_key_index().await?);
        }
        Ok(pins)
    }

    /// The same if they are all in memory already.
    pub(crate) fn pin_keys<'a>(&self, table: TableId, keys: impl Iterator<Item = &'a [u8]> + Clone) -> Option<Pins> {
        let mut pins = Pins::default();
        for segment in self.candidates(table, keys) {
            pins.add(segment.key_index()?);
        }
        Some(pins)
    }

    fn candidates<'a>(
        &self,
        table: TableId,
        keys: impl Iterator<Item = &'a [u8]> + Clone,
    ) -> impl Iterator<Item = &Arc<Segment>> {
        let segments = self.segments(table).iter();
        segments.filter(move |segment| keys.clone().any(|key| segment.meta.may_contain(key)))
    }

    /// Brings into memory what [`holder`](Self::holder) needs to answer for these values of an index of the table: the
    /// postings and key indexes of all segments that may have one of them.
    pub(crate) async fn load_postings(&self, table: &TableDef, position: usize, values: &[Vec<u8>]) -> Result<Pins> {
        let (index, encoder) = (&table.indexes[position], &table.codec()?.indexes[position]);
        let mut pins = Pins::default();
        for segment in self.value_candidates(table, encoder, values)? {
            pins.add(segment.load_postings(index.id, encoder).await?);
            pins.add(segment.load_key_index().await?);
        }
        Ok(pins)
    }

    /// The same if it is all in memory already.
    pub(crate) fn pin_postings(&self, table: &TableDef, position: usize, values: &[Vec<u8>]) -> Result<Option<Pins>> {
        let (index, encoder) = (&table.indexes[position], &table.codec()?.indexes[position]);
        let mut pins = Pins::default();
        for segment in self.value_candidates(table, encoder, values)? {
            let (Some(postings), Some(keys)) = (segment.postings(index.id), segment.key_index()) else {
                return Ok(None);
            };
            pins.add(postings);
            pins.add(keys);
        }
        Ok(Some(pins))
    }

    /// What [`pin_postings`](Self::pin_postings) lacks.
    pub(crate) fn missing_postings(&self, table: &TableDef, position: usize, values: &[Vec<u8>]) -> Result<Obstacle> {
        let (index, encoder) = (&table.indexes[position], &table.codec()?.indexes[position]);
        let mut missing = Obstacle::of_parts();
        for segment in self.value_candidates(table, encoder, values)? {
            missing.add_postings(segment, index.id, encoder);
            missing.add_key_index(segment);
        }
        Ok(missing)
    }

    fn value_candidates(
        &self,
        table: &TableDef,
        encoder: &KeyEncoder,
        values: &[Vec<u8>],
    ) -> Result<Vec<&Arc<Segment>>> {
        let intervals: Vec<Interval> = values.iter().map(|value| Interval::of_prefix(value)).collect();
        let mut candidates = Vec::new();
        for segment in self.segments(table.id) {
            for interval in &intervals {
                if segment.may_have_value(encoder, interval)? {
                    candidates.push(segment);
                    break;
                }
            }
        }
        Ok(candidates)
    }

    /// The key of a row that a reader at `timestamp` sees and that has this very value in an index, leaving out rows
    /// whose key the caller has `removed`. The postings must be pinned.
    pub(crate) fn holder(
        &self,
        table: &TableDef,
        position: usize,
        value: &[u8],
        timestamp: Timestamp,
        removed: impl Fn(&[u8]) -> bool,
    ) -> Result<Option<Box<[u8]>>> {
        let (index, encoder) = (&table.indexes[position], &table.codec()?.indexes[position]);
        let interval = Interval::of_prefix(value);
        let mut holder = None;
        for (memtable, _) in self.memtables() {
            let Some(part) = memtable.table(table.id) else { continue };
            part.walk_index((index.id, encoder), table, &interval, false, timestamp, |found| {
                if found.value == value && !removed(found.key) {
                    holder = Some(found.key.into());
                    return ControlFlow::Break(());
                }
                ControlFlow::Continue(())
            })?;
            if holder.is_some() {
                return Ok(holder);
            }
        }
        for segment in self.segments(table.id).iter().filter(|segment| segment.created() <= timestamp) {
            if !segment.may_have_value(encoder, &interval)? {
                continue;
            }
            let (Some(postings), Some(keys)) = (segment.postings(index.id), segment.key_index()) else {
                return Err(Error::Internal(format!(
                    "index {} of segment {} is not loaded",
                    index.name, segment.meta.id
                )));
            };
            for at in postings.positions(&interval).filter(|at| postings.values().get(*at) == value) {
                let row = postings.row(at);
                if segment.deletes.contains(row, timestamp) {
                    continue;
                }
                let key = keys.key(row)?;
                if !removed(&key) {
                    return Ok(Some(key.into()));
                }
            }
        }
        Ok(None)
    }

    /// A row of `postings`, made by an index of the table, whose value a row visible at `timestamp` has, too; except
    /// rows that do not count there, and rows here whose key the caller has `removed`.
    pub(crate) async fn first_common_value(
        &self,
        table: &TableDef,
        position: usize,
        postings: &Postings,
        timestamp: Timestamp,
        counts: impl Fn(u32) -> bool,
        removed: impl Fn(&[u8]) -> bool,
    ) -> Result<Option<u32>> {
        let (index, encoder) = (&table.indexes[position], &table.codec()?.indexes[position]);
        let values = postings.values();
        let (Some(first), Some(last)) = (values.first(), values.last()) else { return Ok(None) };
        let interval = Interval { low: first.to_vec(), high: successor(last) };
        let mut common = None;
        for (memtable, _) in self.memtables() {
            let Some(part) = memtable.table(table.id) else { continue };
            part.walk_index((index.id, encoder), table, &interval, false, timestamp, |found| {
                if !removed(found.key) {
                    common = postings.find(index, found.value, &counts);
                }
                if common.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })?;
            if common.is_some() {
                return Ok(common);
            }
        }
        for segment in self.segments(table.id).iter().filter(|segment| segment.created() <= timestamp) {
            if segment.may_have_value(encoder, &interval)? {
                let others = segment.load_postings(index.id, encoder).await?;
                let keys = segment.keys().await?;
                let live = |row: u32| !segment.deletes.contains(row, timestamp) && !removed(keys.get(row as usize));
                common = postings.first_common(index, &others, &counts, live);
                if common.is_some() {
                    return Ok(common);
                }
            }
        }
        Ok(None)
    }

    /// Finds a key that ascending `keys`, as far as their rows `count`, have in common with the rows visible at
    /// `timestamp`, except rows whose key the caller has `removed`. (By key, not by place: a flush may have moved them.)
    pub(crate) async fn first_common_key(
        &self,
        table: TableId,
        keys: &Keys,
        timestamp: Timestamp,
        counts: impl Fn(u32) -> bool,
        removed: impl Fn(&[u8]) -> bool,
    ) -> Result<Option<usize>> {
        let (Some(first), Some(last)) = (keys.first(), keys.last()) else { return Ok(None) };
        for (memtable, _) in self.memtables() {
            if let Some(part) = memtable.table(table) {
                let mut common = None;
                part.any_key_between(first, last, timestamp, |key| {
                    common = keys.find(key).filter(|row| counts(*row as u32) && !removed(key));
                    common.is_some()
                });
                if common.is_some() {
                    return Ok(common);
                }
            }
        }
        for segment in self.segments(table) {
            if segment.created() > timestamp || !segment.meta.overlaps(first, last) {
                continue;
            }
            let others = segment.keys().await?;
            let live =
                |own, row| counts(own) && !segment.deletes.contains(row, timestamp) && !removed(keys.get(own as usize));
            if let Some(common) = keys.first_match(&others, live) {
                return Ok(Some(common));
            }
        }
        Ok(None)
    }
}
