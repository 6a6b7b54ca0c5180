//! Single rows and short ranges as bytes: the reads of the engine's row path.
//!
//! Rows come as the compact rows that memtables keep ([`RowWriter`] makes them), keys as encoded keys, and nothing on the
//! way is an Arrow array, except when a row lies in a segment: then the columns asked for are decoded and put into a
//! compact row, in which the others are NULL. A row that is found brings its place with it ([`FoundRow`]), so that a
//! change of it does not look for it again.
//!
//! Nothing here waits. Where keys or columns of a segment are not in memory, the functions end with what has to be loaded
//! ([`Obstacle`]), and are called again when it is.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;

use crate::catalog::{IndexId, TableDef};
use crate::encoding::{Key, KeyEncoder, Keys, RowEditor, RowWriter};
use crate::error::{Error, Result};
use crate::index::{Interval, successor};
use crate::obstacle::{Attempt, Hindrance, Obstacle};
use crate::segment::{KeyColumns, Segment};
use crate::store::Place;
use crate::view::{Found, ReadView};

impl TableDef {
    /// The bytes of a column in a compact row of this table; `None` is NULL.
    pub fn stored_value<'r>(&self, row: &'r [u8], column: usize) -> Option<&'r [u8]> {
        // The layout was made with the table.
        self.codec().ok().and_then(|codec| codec.rows.value(row, column))
    }

    /// Begins to change a copy of a compact row of this table.
    pub fn row_editor(&self, row: &[u8]) -> Result<RowEditor<'_>> {
        Ok(self.codec()?.rows.editor(row))
    }

    /// Begins a compact row with the columns of [`storage_schema`](Self::storage_schema).
    pub fn row_writer(&self) -> Result<RowWriter<'_>> {
        Ok(self.codec()?.rows.writer())
    }

    /// Whether two compact rows have the same key.
    pub(crate) fn have_one_key(&self, row: &[u8], other: &[u8]) -> bool {
        self.key_columns().iter().all(|column| self.stored_value(row, *column) == self.stored_value(other, *column))
    }

    /// The key of a compact row.
    pub fn stored_key(&self, row: &[u8]) -> Result<Vec<u8>> {
        let codec = self.codec()?;
        let mut key = Vec::with_capacity(16);
        codec.keys.encode_row(&codec.rows, row, &mut key)?;
        Ok(key)
    }
}

/// A range of keys of a table or of one of its indexes: leading columns by value, and bounds for the next.
#[derive(Debug)]
pub struct KeyRange<'a> {
    encoder: &'a KeyEncoder,
    index: Option<IndexId>,
    parts: usize,
    prefix: Vec<u8>,
    interval: Option<Interval>,
}

impl<'a> KeyRange<'a> {
    /// Begins a range of the primary key, or of the index at this position among the table's.
    pub fn new(table: &'a TableDef, index: Option<usize>) -> Result<Self> {
        let codec = table.codec()?;
        let (encoder, index) = match index {
            None => (&codec.keys, None),
            Some(position) => match (codec.indexes.get(position), table.indexes.get(position)) {
                (Some(encoder), Some(index)) => (encoder, Some(index.id)),
                _ => return Err(Error::Internal(format!("table \"{}\" has no index {position}", table.name))),
            },
        };
        Ok(KeyRange { encoder, index, parts: 0, prefix: Vec::with_capacity(16), interval: None })
    }

    /// Gives the next column a value (NULL finds NULL).
    pub fn push(&mut self, value: Option<&[u8]>) -> Result<()> {
        self.encoder.encode_part(self.parts, value, &mut self.prefix)?;
        self.parts += 1;
        Ok(())
    }

    /// Bounds the next column: its lower and upper end, each with whether it belongs to the range. Leaves out NULLs.
    pub fn bound(&mut self, lower: Option<(&[u8], bool)>, upper: Option<(&[u8], bool)>) -> Result<()> {
        let mut interval = Interval::of_prefix(&self.prefix);
        if self.encoder.is_nullable(self.parts) {
            let (present, null) = KeyEncoder::markers();
            let end = |marker: u8| [&self.prefix[..], &[marker]].concat();
            interval = Interval { low: end(present), high: Some(end(null)) };
        }
        let at = |value: &[u8]| {
            let mut key = self.prefix.clone();
            self.encoder.encode_part(self.parts, Some(value), &mut key).map(|()| key)
        };
        if let Some((value, inclusive)) = lower {
            let at = at(value)?;
            match inclusive {
                true => interval.low = at,
                false => match successor(&at) {
                    Some(after) => interval.low = after,
                    None => interval = Interval::empty(),
                },
            }
        }
        if let Some((value, inclusive)) = upper {
            let at = at(value)?;
            interval.high = if inclusive { successor(&at) } else { Some(at) };
        }
        if interval.high.as_ref().is_some_and(|high| *high < interval.low) {
            interval.high = Some(interval.low.clone());
        }
        self.interval = Some(interval);
        Ok(())
    }

    /// The key, if all of its columns have a value.
    pub fn key(&self) -> &[u8] {
        &self.prefix
    }

    fn interval(&self) -> Interval {
        self.interval.clone().unwrap_or_else(|| Interval::of_prefix(&self.prefix))
    }
}

/// A row that is visible, and where it is.
#[derive(Debug, Clone)]
pub struct FoundRow {
    /// The compact row. If it was in a segment, only the columns that were asked for have their values.
    pub bytes: Bytes,
    pub(crate) key: Key,
    pub(crate) origin: Origin,
}

impl FoundRow {
    /// Its key.
    pub fn key(&self) -> &[u8] {
        &self.key
    }
}

/// Where a row is.
#[derive(Debug, Clone)]
pub(crate) enum Origin {
    /// Among the transaction's own pending rows.
    Pending,
    /// In a segment that the transaction staged.
    Staged(Arc<Segment>, u32),
    Committed(Place),
}

impl Origin {
    /// The segment and the place in it.
    pub(crate) fn in_segment(&self) -> Option<(&Arc<Segment>, u32)> {
        match self {
            Origin::Staged(segment, row) | Origin::Committed(Place::Segment(segment, row)) => Some((segment, *row)),
            Origin::Pending | Origin::Committed(Place::Active | Place::Frozen) => None,
        }
    }

    /// Where a committed row is.
    pub(crate) fn into_place(self) -> Option<Place> {
        match self {
            Origin::Committed(place) => Some(place),
            Origin::Pending | Origin::Staged(..) => None,
        }
    }
}

/// A range on its way.
struct Gathering<'a> {
    table: &'a TableDef,
    range: &'a KeyRange<'a>,
    interval: Interval,
    descending: bool,
    /// At most so many rows of each place.
    wanted: usize,
    candidates: Vec<Candidate>,
    /// How many places had rows; those of one place come in order.
    places: usize,
}

/// A row of a range before its columns are read.
struct Candidate {
    order: Key,
    /// `None`: `order` is the key.
    key: Option<Key>,
    row: Option<Bytes>,
    origin: Origin,
}

impl ReadView {
    /// The visible row with this key, with these columns of the storage schema.
    pub fn stored_row(&self, table: &TableDef, key: &[u8], columns: &WantedColumns) -> Attempt<Option<FoundRow>> {
        self.note_key(table, key)?;
        let (bytes, origin) = match self.look_up(table.id, key)? {
            None => return Ok(None),
            Some(Found::Pending(row)) => (row, Origin::Pending),
            Some(Found::Committed(place, Some(row))) => (row, Origin::Committed(place)),
            Some(Found::Committed(Place::Segment(segment, row), None)) => {
                (segment_row(&segment, row, columns)?, Origin::Committed(Place::Segment(segment, row)))
            }
            Some(Found::Staged(segment, row)) => (segment_row(&segment, row, columns)?, Origin::Staged(segment, row)),
            Some(Found::Committed(_, None)) => return Err(without_bytes().into()),
        };
        Ok(Some(FoundRow { bytes, key: key.into(), origin }))
    }

    /// Whether a row with this key is visible.
    pub fn has_stored(&self, table: &TableDef, key: &[u8]) -> Attempt<bool> {
        self.note_key(table, key)?;
        Ok(self.look_up(table.id, key)?.is_some())
    }

    fn note_key(&self, table: &TableDef, key: &[u8]) -> Result<()> {
        if let Some(serial) = &self.serial {
            serial.note_keys(table.id, &Keys::of([key])?);
        }
        Ok(())
    }

    /// The visible rows of a range, in its order or against it, at most `limit`, with these columns of the storage
    /// schema. `None`: there are more than `rows_max` of them.
    pub fn stored_range(
        &self,
        table: &TableDef,
        range: &KeyRange<'_>,
        window: RangeWindow,
        columns: &WantedColumns,
    ) -> Attempt<Option<Vec<FoundRow>>> {
        let interval = range.interval();
        match (&self.serial, range.index) {
            (Some(serial), None) => serial.note_interval(table.id, &interval),
            (Some(serial), Some(_)) => serial.note_scan(table, &[])?,
            (None, _) => {}
        }
        let wanted = window.limit.min(window.rows_max.saturating_add(1));
        let descending = window.descending;
        let mut gathering = Gathering { table, range, interval, descending, wanted, candidates: Vec::new(), places: 0 };
        self.gather_from_memory(&mut gathering)?;
        let timestamp = self.snapshot.timestamp;
        let committed =
            self.snapshot.version.segments(table.id).iter().filter(|segment| segment.created() <= timestamp);
        let mut hindrance = Hindrance::default();
        for segment in committed {
            let origin = |segment, row| Origin::Committed(Place::Segment(segment, row));
            hindrance.pass(self.gather_from_segment(segment, origin, &mut gathering))?;
        }
        for segment in self.writes.table(table.id).iter().flat_map(|writes| &writes.staged) {
            hindrance.pass(self.gather_from_segment(segment, Origin::Staged, &mut gathering))?;
        }
        hindrance.end()?;
        let Gathering { mut candidates, places, .. } = gathering;
        if places > 1 {
            candidates.sort_by(|left, right| left.order.cmp(&right.order));
            if window.descending {
                candidates.reverse();
            }
        }
        candidates.truncate(window.limit);
        if candidates.len() > window.rows_max {
            return Ok(None);
        }
        let mut rows = Vec::with_capacity(candidates.len());
        let mut hindrance = Hindrance::default();
        for Candidate { order, key, row, origin } in candidates {
            let bytes = match (row, origin.in_segment()) {
                (Some(row), _) => row,
                (None, Some((segment, row))) => match hindrance.pass(segment_row(segment, row, columns))? {
                    Some(row) => row,
                    None => continue,
                },
                (None, None) => return Err(without_bytes().into()),
            };
            let key = match (key, range.index) {
                (Some(key), _) => key,
                (None, None) => order,
                // The key columns are among those that are always read.
                (None, Some(_)) => table.stored_key(&bytes)?.as_slice().into(),
            };
            rows.push(FoundRow { bytes, key, origin });
        }
        hindrance.end()?;
        Ok(Some(rows))
    }

    fn gather_from_memory(&self, gathering: &mut Gathering<'_>) -> Result<()> {
        let Gathering { table, range, interval, descending, wanted, candidates, places } = gathering;
        let (table, range, descending, wanted) = (*table, *range, *descending, *wanted);
        let (timestamp, writes) = (self.snapshot.timestamp, self.writes.table(table.id));
        for (memtable, place) in self.snapshot.version.memtables() {
            let Some(part) = memtable.table(table.id) else { continue };
            let before = candidates.len();
            let mut take = |order: &[u8], key: Option<&[u8]>, row: Bytes| {
                if !writes.is_some_and(|writes| writes.rows.contains_key(key.unwrap_or(order))) {
                    let key = key.map(Key::from);
                    let (row, origin) = (Some(row), Origin::Committed(place.clone()));
                    candidates.push(Candidate { order: order.into(), key, row, origin });
                }
                if candidates.len() - before < wanted { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            };
            match range.index {
                None => part.walk(interval, descending, timestamp, |key, row| take(key, None, row)),
                Some(index) => {
                    part.walk_index((index, range.encoder), table, interval, descending, timestamp, |found| {
                        take(found.value, Some(found.key), found.row)
                    })?;
                }
            }
            *places += usize::from(candidates.len() > before);
        }
        let Some(writes) = writes else { return Ok(()) };
        let before = candidates.len();
        match range.index {
            None => {
                let own = writes.rows.range::<[u8], _>(interval.bounds());
                candidates.extend(own.filter_map(|(key, pending)| {
                    let row = Some(pending.row.clone()?);
                    Some(Candidate { order: key.clone(), key: None, row, origin: Origin::Pending })
                }));
            }
            Some(index) => {
                let entries = writes.entries.get(&index).into_iter();
                for (entry, length) in entries.flat_map(|entries| entries.range::<[u8], _>(interval.bounds())) {
                    let (value, key) = entry.split_at(*length as usize);
                    let row = writes.rows.get(key).and_then(|pending| pending.row.clone());
                    candidates.extend(row.map(|row| Candidate {
                        order: value.into(),
                        key: Some(key.into()),
                        row: Some(row),
                        origin: Origin::Pending,
                    }));
                }
            }
        }
        if descending {
            candidates[before..].reverse();
        }
        *places += usize::from(candidates.len() > before);
        Ok(())
    }

    fn gather_from_segment(
        &self,
        segment: &Arc<Segment>,
        origin: fn(Arc<Segment>, u32) -> Origin,
        gathering: &mut Gathering<'_>,
    ) -> Attempt<()> {
        let Gathering { table: _, range, interval, descending, wanted, candidates, places } = gathering;
        let candidate = |order: Key, row: u32| {
            let origin = origin(Arc::clone(segment), row);
            Candidate { order, key: None, row: None, origin }
        };
        let before = candidates.len();
        match range.index {
            None if interval.overlaps(&segment.meta.first_key.0, &segment.meta.last_key.0) => {
                let gather = |positions: Range<usize>, keys: &KeyColumns| -> Result<Vec<Candidate>> {
                    let mut key = Vec::new();
                    let rows = self.choose_adjacent(segment, positions, *descending, *wanted).into_iter();
                    rows.map(|row| {
                        keys.write_key(row as usize, &mut key)?;
                        Ok(candidate(key.as_slice().into(), row))
                    })
                    .collect()
                };
                let found = match segment.with_key_index(|index| gather(index.positions(interval)?, index.columns())) {
                    Some(found) => found?,
                    None => {
                        let keys = key_columns(segment)?;
                        gather(keys.positions(interval)?, &keys)?
                    }
                };
                candidates.extend(found);
            }
            Some(index) if segment.may_have_value(range.encoder, interval)? => {
                let Some(postings) = segment.postings(index) else {
                    let mut missing = Obstacle::of_parts();
                    missing.add_postings(segment, index, range.encoder);
                    return Err(missing.into());
                };
                let positions = postings.positions(interval);
                let chosen: Vec<usize> = self.choose_rows(segment, |is_visible| {
                    let visible = |at: &usize| is_visible(postings.row(*at));
                    match *descending {
                        true => positions.rev().filter(visible).take(*wanted).collect(),
                        false => positions.filter(visible).take(*wanted).collect(),
                    }
                });
                candidates
                    .extend(chosen.into_iter().map(|at| candidate(postings.values().get(at).into(), postings.row(at))));
            }
            _ => {}
        }
        *places += usize::from(candidates.len() > before);
        Ok(())
    }
}

/// How much of a range is wanted, and from which end.
#[derive(Debug, Clone, Copy)]
pub struct RangeWindow {
    /// Against the order of the keys.
    pub descending: bool,
    /// At most so many rows.
    pub limit: usize,
    /// Beyond so many rows the range is not read at all.
    pub rows_max: usize,
}

/// Columns of a table's storage schema that a reader wants of rows. Those of the key come with every row.
#[derive(Debug, Clone)]
pub struct WantedColumns {
    /// Ascending.
    list: Box<[usize]>,
    /// One bit for each column.
    words: Box<[u64]>,
}

impl WantedColumns {
    /// These columns of a table, and those of its key.
    pub fn new(table: &TableDef, columns: impl IntoIterator<Item = usize>) -> WantedColumns {
        let mut words = vec![0; table.storage_schema().fields().len().div_ceil(64)];
        for column in columns.into_iter().chain(table.key_columns().iter().copied()) {
            words[column / 64] |= 1 << (column % 64);
        }
        let mut wanted = WantedColumns { list: Box::default(), words: words.into() };
        wanted.list = (0..64 * wanted.words.len()).filter(|column| wanted.contains(*column)).collect();
        wanted
    }

    pub(crate) fn contains(&self, column: usize) -> bool {
        self.words[column / 64] >> (column % 64) & 1 == 1
    }

    pub(crate) fn list(&self) -> &[usize] {
        &self.list
    }
}

/// A row of a segment as a compact row with these columns.
fn segment_row(segment: &Arc<Segment>, row: u32, columns: &WantedColumns) -> Attempt<Bytes> {
    match segment.row_in_memory(row, columns)? {
        Some(bytes) => Ok(bytes),
        None => cold_row(segment, row, columns),
    }
}

/// The same where the cache does not keep all of the columns: it may keep the pages with this row, or somebody may hold
/// what it has let go.
#[cold]
fn cold_row(segment: &Arc<Segment>, row: u32, columns: &WantedColumns) -> Attempt<Bytes> {
    match segment.row_at_hand(row, columns.list())? {
        Some(bytes) => Ok(bytes),
        None => Err(Obstacle::of_row(segment, row, columns.list()).into()),
    }
}

/// The key columns of a segment. The cache may have let them go, but somebody holds them.
#[cold]
fn key_columns(segment: &Arc<Segment>) -> Attempt<KeyColumns> {
    let columns = segment.table.key_columns();
    if columns.iter().all(|column| segment.has_column(*column))
        && let Some(keys) = segment.key_columns().now_or_never()
    {
        return Ok(keys?);
    }
    Err(Obstacle::of_columns(segment, columns).into())
}

fn without_bytes() -> Error {
    Error::Internal("a row in memory without its bytes".into())
}
