//! Ordered secondary indexes.
//!
//! An index orders the rows of a table by some of its columns. Like the rows themselves it has no place of its own: each
//! place that holds rows holds the index of *its* rows, and a look-up is a union over the places.
//!
//! ```text
//!  transaction   value‖key              ordered map beside the pending rows
//!  memtable      value‖key              ordered map, entries only ever added; the row decides whether one still holds
//!  segment       value → row (sorted)   made from the columns at first use, dropped when memory is short
//! ```
//! `value` is the memcomparable encoding of the indexed columns, `key` the row's primary key. Because a segment's
//! postings are derived from immutable columns, nothing durable depends on them: flush and compaction have nothing to
//! maintain, and CREATE INDEX is a change of the catalog plus entries for the rows that are in memory.
//!
//! Entries carry no timestamps. A memtable's entry counts if the version of its row that the reader sees still has that
//! value; a posting counts if its row is not in the segment's delete set. The same rules that make scans right make
//! index look-ups right.

use std::cmp::Ordering;
use std::ops::{Bound, Range};

use arrow::array::{Array, ArrayRef};
use roaring::RoaringBitmap;

use crate::catalog::IndexDef;
use crate::encoding::{KeyEncoder, Keys, RowLayout};
use crate::error::Result;
use crate::segment::Segment;

/// The rows of one segment in the order of an index.
#[derive(Debug)]
pub(crate) struct Postings {
    /// The index values, ascending; equal ones in the order of their rows.
    values: Keys,
    rows: Vec<u32>,
    /// Rows with a NULL among the indexed columns.
    nulls: RoaringBitmap,
}

impl Postings {
    /// Reads the indexed columns of a segment and sorts its rows by them.
    pub(crate) async fn build(segment: &Segment, encoder: &KeyEncoder) -> Result<Postings> {
        let mut columns: Vec<ArrayRef> = Vec::new();
        for column in encoder.columns() {
            columns.push(segment.column(*column).await?.to_array()?);
        }
        let values = encoder.encode(&columns)?;
        let rows = values.sort_order();
        let mut nulls = RoaringBitmap::new();
        for column in columns.iter().filter(|column| column.null_count() > 0) {
            nulls.extend((0..column.len()).filter(|row| column.is_null(*row)).map(|row| row as u32));
        }
        Ok(Postings { values: values.take(&rows), rows, nulls })
    }

    /// A row whose value an earlier one has, too, among the rows that count.
    pub(crate) fn first_double(&self, index: &IndexDef, counts: impl Fn(u32) -> bool) -> Option<u32> {
        let mut previous: Option<usize> = None;
        for at in (0..self.values.len()).filter(|at| self.is_unique_candidate(index, *at, &counts)) {
            if previous.is_some_and(|previous| self.values.get(previous) == self.values.get(at)) {
                return Some(self.rows[at]);
            }
            previous = Some(at);
        }
        None
    }

    /// A row of these whose value a row of the others has, too, among the rows that count on either side.
    pub(crate) fn first_common(
        &self,
        index: &IndexDef,
        others: &Postings,
        counts: impl Fn(u32) -> bool,
        others_count: impl Fn(u32) -> bool,
    ) -> Option<u32> {
        let (mut own, mut other) = (0, 0);
        while own < self.values.len() && other < others.values.len() {
            let value = self.values.get(own);
            match value.cmp(others.values.get(other)) {
                Ordering::Less => own = self.values.lower_bound(others.values.get(other), own + 1..self.values.len()),
                Ordering::Greater => other = others.values.lower_bound(value, other + 1..others.values.len()),
                Ordering::Equal => {
                    // Rows that do not count may share the value with ones that do: look at all of them.
                    let group = own..(own..self.values.len())
                        .find(|at| self.values.get(*at) != value)
                        .unwrap_or(self.values.len());
                    let end = (other..others.values.len()).find(|at| others.values.get(*at) != value);
                    let other_group = other..end.unwrap_or(others.values.len());
                    let mine = group.clone().find(|at| self.is_unique_candidate(index, *at, &counts));
                    let theirs = other_group.clone().any(|at| others.is_unique_candidate(index, at, &others_count));
                    if let Some(mine) = mine.filter(|_| theirs) {
                        return Some(self.rows[mine]);
                    }
                    (own, other) = (group.end, other_group.end);
                }
            }
        }
        None
    }

    fn is_unique_candidate(&self, index: &IndexDef, at: usize, counts: impl Fn(u32) -> bool) -> bool {
        let row = self.rows[at];
        counts(row) && !(index.nulls_distinct && self.nulls.contains(row))
    }

    /// A row that has this very value, if it counts for uniqueness.
    pub(crate) fn find(&self, index: &IndexDef, value: &[u8], counts: impl Fn(u32) -> bool) -> Option<u32> {
        let start = self.values.lower_bound(value, 0..self.values.len());
        let group = (start..self.values.len()).take_while(|at| self.values.get(*at) == value);
        group.into_iter().find(|at| self.is_unique_candidate(index, *at, &counts)).map(|at| self.rows[at])
    }

    /// The index values in order.
    pub(crate) fn values(&self) -> &Keys {
        &self.values
    }

    /// The row of the posting at this position.
    pub(crate) fn row(&self, position: usize) -> u32 {
        self.rows[position]
    }

    /// The positions whose values lie in `interval`.
    pub(crate) fn positions(&self, interval: &Interval) -> Range<usize> {
        interval.positions(&self.values)
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.values.memory_bytes() + self.rows.capacity() * size_of::<u32>() + self.nulls.serialized_size()
    }
}

/// A half-open interval of encoded keys, `low ≤ key < high`; no `high`: to the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Interval {
    pub(crate) low: Vec<u8>,
    pub(crate) high: Option<Vec<u8>>,
}

impl Interval {
    /// The keys that begin with `prefix`.
    pub(crate) fn of_prefix(prefix: &[u8]) -> Interval {
        Interval { low: prefix.to_vec(), high: successor(prefix) }
    }

    /// No keys at all.
    pub(crate) fn empty() -> Interval {
        Interval { low: Vec::new(), high: Some(Vec::new()) }
    }

    /// The interval as the standard library's ordered maps want it.
    pub(crate) fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        (Bound::Included(&self.low), self.high.as_deref().map_or(Bound::Unbounded, Bound::Excluded))
    }

    /// Whether it may have a key in common with the closed range from `first` to `last`.
    pub(crate) fn overlaps(&self, first: &[u8], last: &[u8]) -> bool {
        self.low.as_slice() <= last && self.high.as_deref().is_none_or(|high| first < high)
    }

    /// Where its keys lie among ascending ones.
    pub(crate) fn positions(&self, keys: &Keys) -> Range<usize> {
        let start = keys.lower_bound(&self.low, 0..keys.len());
        // Intervals that are looked for are short.
        let end = self.high.as_deref().map_or(keys.len(), |high| keys.lower_bound_near(high, start));
        start..end
    }
}

/// The smallest byte string that is greater than every one beginning with `prefix`; `None` if there is none.
pub(crate) fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut next = prefix[..=last].to_vec();
    next[last] += 1;
    Some(next)
}

/// The value under which a unique index must find no second row; `None` if the row's NULLs make it different from all.
pub(crate) fn unique_value(
    index: &IndexDef,
    encoder: &KeyEncoder,
    layout: &RowLayout,
    row: &[u8],
) -> Result<Option<Vec<u8>>> {
    if index.nulls_distinct && encoder.has_null(layout, row) {
        return Ok(None);
    }
    let mut value = Vec::new();
    encoder.encode_row(layout, row, &mut value)?;
    Ok(Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_successor_of_a_prefix_ends_its_range() {
        assert_eq!(successor(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(successor(&[1, 0xFF, 0xFF]), Some(vec![2]));
        assert_eq!(successor(&[0xFF]), None);
        assert_eq!(successor(b""), None);
        let interval = Interval::of_prefix(b"ab");
        assert_eq!(interval, Interval { low: b"ab".to_vec(), high: Some(b"ac".to_vec()) });
        assert!(interval.overlaps(b"a", b"b") && !interval.overlaps(b"ac", b"b") && !interval.overlaps(b"a", b"aa"));
    }
}
