//! Short ranges of rows in key order: the reads of the row path.
//!
//! A range names leading columns of the primary key or of an index by value, bounds the next one, and wants the rows in
//! that order, or against it, up to a limit. Every place that holds rows gives its first so many visible ones in order;
//! those are then sorted together. That is right because the places are disjoint, and cheap because ranges are short:
//! a long range is a scan's business.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use bytes::Bytes;

use crate::catalog::{IndexId, TableDef, TableId};
use crate::encoding::KeyEncoder;
use crate::error::{Error, Result};
use crate::index::{Interval, successor};
use crate::segment::Segment;
use crate::view::ReadView;

/// An end of a range: a value (length 1, of the column's type, not NULL) and whether rows with it belong to the range.
#[derive(Debug, Clone)]
pub struct RangeBound {
    /// The value.
    pub value: ArrayRef,
    /// Whether rows with this very value belong to the range.
    pub inclusive: bool,
}

/// Which rows, in which order.
#[derive(Debug, Clone)]
pub struct RangeRequest {
    /// The table.
    pub table: TableId,
    /// The index whose order is meant; `None` for the primary key.
    pub index: Option<IndexId>,
    /// Values of the leading columns of the key or index (length 1 each; NULL finds NULL).
    pub equal: Vec<ArrayRef>,
    /// Lower end for the column after those. A range with an end leaves out NULLs.
    pub lower: Option<RangeBound>,
    /// Upper end for it.
    pub upper: Option<RangeBound>,
    /// Whether the rows are wanted in descending order.
    pub descending: bool,
    /// At most so many rows.
    pub limit: usize,
    /// Columns of the storage schema.
    pub projection: Vec<usize>,
}

/// A visible row and what it sorts by.
struct Candidate {
    order: Box<[u8]>,
    place: RowPlace,
}

/// Where to read a row.
pub(crate) enum RowPlace {
    Memory(Bytes),
    Segment(Arc<Segment>, u32),
}

/// The key order in question.
struct Order<'a> {
    index: Option<IndexId>,
    encoder: &'a KeyEncoder,
}

impl ReadView {
    /// The rows of a range, in order.
    pub async fn range(&self, request: &RangeRequest) -> Result<RecordBatch> {
        let table = Arc::clone(self.table(request.table)?);
        let codec = table.codec()?;
        let position = |id| table.indexes.iter().position(|index| index.id == id);
        let encoder = match request.index {
            None => &codec.keys,
            Some(id) => match position(id) {
                Some(position) => &codec.indexes[position],
                None => return Err(Error::Internal(format!("table \"{}\" has no index {}", table.name, id.0))),
            },
        };
        let order = Order { index: request.index, encoder };
        let interval = order.interval(&table, request)?;
        match (&self.serial, request.index) {
            (Some(serial), None) => serial.note_interval(table.id, &interval),
            (Some(serial), Some(_)) => serial.note_scan(&table, &[])?,
            (None, _) => {}
        }
        let mut candidates = Vec::new();
        self.collect_from_memory(&table, &order, &interval, request, &mut candidates)?;
        for segment in self.visible_segments(table.id) {
            self.collect_from_segment(segment, &order, &interval, request, &mut candidates).await?;
        }
        candidates.sort_by(|left, right| left.order.cmp(&right.order));
        if request.descending {
            candidates.reverse();
        }
        candidates.truncate(request.limit);
        self.rows_at(&table, candidates.into_iter().map(|candidate| candidate.place).collect(), &request.projection)
            .await
    }

    fn collect_from_memory(
        &self,
        table: &TableDef,
        order: &Order<'_>,
        interval: &Interval,
        request: &RangeRequest,
        candidates: &mut Vec<Candidate>,
    ) -> Result<()> {
        let (timestamp, writes) = (self.snapshot.timestamp, self.writes.table(table.id));
        for (memtable, _) in self.snapshot.version.memtables() {
            let Some(part) = memtable.table(table.id) else { continue };
            let mut found = 0;
            let mut take = |order: &[u8], key: &[u8], row: Bytes| {
                if !writes.is_some_and(|writes| writes.rows.contains_key(key)) {
                    candidates.push(Candidate { order: order.into(), place: RowPlace::Memory(row) });
                    found += 1;
                }
                if found < request.limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            };
            match order.index {
                None => part.walk(interval, request.descending, timestamp, |key, row| take(key, key, row)),
                Some(index) => {
                    let order = (index, order.encoder);
                    part.walk_index(order, table, interval, request.descending, timestamp, |found| {
                        take(found.value, found.key, found.row)
                    })?;
                }
            }
        }
        let Some(writes) = writes else { return Ok(()) };
        let mut pending = Vec::new();
        match order.index {
            None => {
                let rows = writes.rows.range::<[u8], _>(interval.bounds());
                pending.extend(rows.filter_map(|(key, pending)| Some((key.as_ref(), pending.row.clone()?))));
            }
            Some(index) => {
                let entries = writes.entries.get(&index).into_iter();
                for (entry, length) in entries.flat_map(|entries| entries.range::<[u8], _>(interval.bounds())) {
                    let (value, key) = entry.split_at(*length as usize);
                    let row = writes.rows.get(key).and_then(|pending| pending.row.clone());
                    pending.extend(row.map(|row| (value, row)));
                }
            }
        }
        let place = |(order, row): (&[u8], Bytes)| Candidate { order: order.into(), place: RowPlace::Memory(row) };
        candidates.extend(pending.into_iter().map(place));
        Ok(())
    }

    async fn collect_from_segment(
        &self,
        segment: Arc<Segment>,
        order: &Order<'_>,
        interval: &Interval,
        request: &RangeRequest,
        candidates: &mut Vec<Candidate>,
    ) -> Result<()> {
        let choose = |positions: Range<usize>, row: &dyn Fn(usize) -> u32| -> Vec<usize> {
            let visible = |at: &usize| self.shows(&segment, row(*at));
            match request.descending {
                true => positions.rev().filter(visible).take(request.limit).collect(),
                false => positions.filter(visible).take(request.limit).collect(),
            }
        };
        let place = |row| RowPlace::Segment(Arc::clone(&segment), row);
        match order.index {
            None if interval.overlaps(&segment.meta.first_key.0, &segment.meta.last_key.0) => {
                let keys = segment.key_columns().await?;
                for row in choose(keys.positions(interval)?, &|at| at as u32) {
                    candidates.push(Candidate { order: keys.key(row)?.into(), place: place(row as u32) });
                }
            }
            Some(index) if segment.may_have_value(order.encoder, interval)? => {
                let postings = segment.load_postings(index, order.encoder).await?;
                for at in choose(postings.positions(interval), &|at| postings.row(at)) {
                    candidates
                        .push(Candidate { order: postings.values().get(at).into(), place: place(postings.row(at)) });
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl Order<'_> {
    /// The keys that a request asks for.
    fn interval(&self, table: &TableDef, request: &RangeRequest) -> Result<Interval> {
        let schema = table.storage_schema();
        let columns = self.encoder.columns();
        let named = request.equal.len() + usize::from(request.lower.is_some() || request.upper.is_some());
        if named > columns.len() {
            return Err(Error::Internal(format!("{named} bounds for a key of {} columns", columns.len())));
        }
        let ends = request.lower.iter().chain(&request.upper).map(|end| (request.equal.len(), &end.value));
        for (position, value) in request.equal.iter().enumerate().chain(ends) {
            let field = schema.field(columns[position]);
            let is_end = position == request.equal.len();
            let null_allowed = self.encoder.is_nullable(position) && !is_end;
            if value.data_type() != field.data_type() || value.len() != 1 || (value.null_count() > 0 && !null_allowed) {
                return Err(Error::Internal(format!("a bound of \"{}\" is {}", field.name(), value.data_type())));
            }
        }
        let prefix = |last: Option<&ArrayRef>| -> Result<Vec<u8>> {
            let values: Vec<ArrayRef> = request.equal.iter().chain(last).cloned().collect();
            if values.is_empty() {
                return Ok(Vec::new());
            }
            Ok(self.encoder.prefix(values.len()).encode(&values)?.get(0).to_vec())
        };
        let base = prefix(None)?;
        let mut interval = Interval::of_prefix(&base);
        let bounded = request.lower.is_some() || request.upper.is_some();
        if bounded && self.encoder.is_nullable(request.equal.len()) {
            let (present, null) = KeyEncoder::markers();
            interval = Interval { low: [&base[..], &[present]].concat(), high: Some([&base[..], &[null]].concat()) };
        }
        if let Some(lower) = &request.lower {
            let at = prefix(Some(&lower.value))?;
            interval.low = match lower.inclusive {
                true => at,
                false => match successor(&at) {
                    Some(after) => after,
                    None => return Ok(Interval::empty()),
                },
            };
        }
        if let Some(upper) = &request.upper {
            let at = prefix(Some(&upper.value))?;
            interval.high = if upper.inclusive { successor(&at) } else { Some(at) };
        }
        if interval.high.as_ref().is_some_and(|high| *high < interval.low) {
            interval.high = Some(interval.low.clone());
        }
        Ok(interval)
    }
}
