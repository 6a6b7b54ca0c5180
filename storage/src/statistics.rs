//! What the store knows about a table's rows without looking at them.

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute::{concat_batches, kernels::cmp};

use crate::error::Result;
use crate::segment::Segment;
use crate::sketch::DistinctSketch;

/// Statistics of a table as one reader sees it.
#[derive(Debug, Clone, Default)]
pub struct TableStatistics {
    /// Rows.
    pub rows: usize,
    /// Bytes of the segment files plus the memtable rows.
    pub bytes: usize,
    /// Whether `rows` is exact.
    pub exact: bool,
    /// One for each column of the storage schema.
    pub columns: Vec<ColumnStatistics>,
}

/// Statistics of a column. `None` means unknown.
#[derive(Debug, Clone, Default)]
pub struct ColumnStatistics {
    /// How many values are NULL.
    pub null_count: Option<usize>,
    /// A lower bound (length 1).
    pub min: Option<ArrayRef>,
    /// An upper bound (length 1).
    pub max: Option<ArrayRef>,
    /// Whether the bounds are values that occur.
    pub bounds_exact: bool,
    /// How many different values there are, within some 7 %; rows that only memory holds are not counted.
    pub distinct: Option<usize>,
}

/// Merges the column statistics of segments.
pub(crate) fn merge_columns<'a>(
    segments: impl Iterator<Item = &'a Segment>,
    columns: usize,
) -> Result<Vec<ColumnStatistics>> {
    let mut merged: Vec<ColumnStatistics> = Vec::new();
    let (mut bounds, mut nulls, mut exact) = (Vec::<RecordBatch>::new(), vec![0; columns], vec![true; columns]);
    let mut sketches: Vec<Option<DistinctSketch>> = vec![Some(DistinctSketch::new()); columns];
    for segment in segments {
        bounds.push(segment.bounds()?.clone());
        for (column, meta) in segment.meta.columns.iter().enumerate() {
            nulls[column] += meta.null_count as usize;
            exact[column] &= meta.bounds_exact;
            // A segment that was not counted leaves the whole unknown.
            let counted = meta.distinct.as_ref().and_then(DistinctSketch::decode);
            sketches[column] = sketches[column].take().zip(counted).map(|(mut all, one)| {
                all.merge(&one);
                all
            });
        }
    }
    let Some(first) = bounds.first() else {
        return Ok(vec![ColumnStatistics::default(); columns]);
    };
    let all = concat_batches(&first.schema(), &bounds)?;
    for (column, values) in all.columns().iter().enumerate() {
        let minimums = (0..values.len()).step_by(2).map(|row| values.slice(row, 1));
        let maximums = (1..values.len()).step_by(2).map(|row| values.slice(row, 1));
        merged.push(ColumnStatistics {
            null_count: Some(nulls[column]),
            min: extreme(minimums, |candidate, best| cmp::lt(candidate, best))?,
            max: extreme(maximums, |candidate, best| cmp::gt(candidate, best))?,
            bounds_exact: exact[column],
            distinct: sketches[column].as_ref().map(DistinctSketch::count),
        });
    }
    Ok(merged)
}

/// The extreme of single values; `None` as soon as one is unknown.
fn extreme(
    values: impl Iterator<Item = ArrayRef>,
    better: impl Fn(&ArrayRef, &ArrayRef) -> std::result::Result<arrow::array::BooleanArray, arrow::error::ArrowError>,
) -> Result<Option<ArrayRef>> {
    let mut best: Option<ArrayRef> = None;
    for value in values {
        if value.is_null(0) {
            return Ok(None);
        }
        let replace = match &best {
            Some(best) => better(&value, best)?.value(0),
            None => true,
        };
        if replace {
            best = Some(value);
        }
    }
    Ok(best)
}
