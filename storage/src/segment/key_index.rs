//! The keys of a segment, to be looked up.
//!
//! Nothing keeps the keys themselves: the hash table ([`super::key_table`]) knows which row may have a key, and the key
//! of a row is made from the encoded key columns, a few values read alone. The rows are in key order, so the same columns
//! answer where a range of keys begins, by binary search; every [`FENCE_ROWS`]th key is kept to begin it.

use std::cmp::Ordering;
use std::ops::Range;
use std::sync::Arc;

use super::key_table::{KeyHash, KeyTable};
use crate::block::Column;
use crate::catalog::TableDef;
use crate::encoding::Keys;
use crate::error::Result;
use crate::index::Interval;

/// Rows from one key that is kept to the next: 1/128 of the keys take a tenth of a byte a row, and leave seven steps of a
/// search to the columns.
const FENCE_ROWS: usize = 128;

/// The key columns of a segment.
#[derive(Debug, Clone)]
pub(crate) struct KeyColumns {
    table: Arc<TableDef>,
    columns: Vec<Arc<Column>>,
    rows: usize,
}

impl KeyColumns {
    /// `columns` are those of the table's key, in key order.
    pub(crate) fn new(table: Arc<TableDef>, columns: Vec<Arc<Column>>, rows: usize) -> KeyColumns {
        KeyColumns { table, columns, rows }
    }

    /// The key of a row.
    pub(crate) fn key(&self, row: usize) -> Result<Vec<u8>> {
        let mut key = Vec::with_capacity(8 * self.columns.len());
        self.write_key(row, &mut key)?;
        Ok(key)
    }

    /// Puts the key of a row in the place of what is in `key`.
    pub(crate) fn write_key(&self, row: usize, key: &mut Vec<u8>) -> Result<()> {
        let encoder = &self.table.codec()?.keys;
        key.clear();
        for (position, column) in self.columns.iter().enumerate() {
            column.with_raw(row, |value| encoder.encode_part(position, value, key))??;
        }
        Ok(())
    }

    /// The keys of all rows.
    pub(crate) fn all(&self) -> Result<Keys> {
        let columns = self.columns.iter().map(|column| column.to_array()).collect::<Result<Vec<_>>>()?;
        self.table.codec()?.keys.encode(&columns)
    }

    /// The order of a row's key and another, of which no more columns are read than it takes. `part` is for them.
    fn compare(&self, row: usize, key: &[u8], part: &mut Vec<u8>) -> Result<Ordering> {
        let encoder = &self.table.codec()?.keys;
        let mut rest = key;
        for (position, column) in self.columns.iter().enumerate() {
            part.clear();
            column.with_raw(row, |value| encoder.encode_part(position, value, part))??;
            let (theirs, behind) = rest.split_at(part.len().min(rest.len()));
            match part.as_slice().cmp(theirs) {
                Ordering::Equal => rest = behind,
                different => return Ok(different),
            }
        }
        Ok(if rest.is_empty() { Ordering::Equal } else { Ordering::Less })
    }

    /// The first row in `range` whose key is at least `key`.
    fn lower_bound(&self, key: &[u8], range: Range<usize>) -> Result<usize> {
        let (mut low, mut high) = (range.start, range.end);
        let mut part = Vec::with_capacity(key.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.compare(middle, key, &mut part)? {
                Ordering::Less => low = middle + 1,
                Ordering::Equal | Ordering::Greater => high = middle,
            }
        }
        Ok(low)
    }

    /// The same for a place that is not far behind the beginning of the range: it is looked for in steps that double.
    fn lower_bound_near(&self, key: &[u8], range: Range<usize>) -> Result<usize> {
        let (mut low, mut at, mut step) = (range.start, range.start, 1);
        let mut part = Vec::with_capacity(key.len());
        while at < range.end {
            if self.compare(at, key, &mut part)? != Ordering::Less {
                return self.lower_bound(key, low..at);
            }
            (low, at, step) = (at + 1, at + step, step * 2);
        }
        self.lower_bound(key, low..range.end)
    }

    /// The rows whose keys lie in an interval.
    pub(crate) fn positions(&self, interval: &Interval) -> Result<Range<usize>> {
        let start = self.lower_bound(&interval.low, 0..self.rows)?;
        let end = interval.high.as_deref().map_or(Ok(self.rows), |high| self.lower_bound(high, start..self.rows))?;
        Ok(start..end)
    }
}

/// The primary-key index of a segment.
#[derive(Debug)]
pub(crate) struct KeyIndex {
    table: KeyTable,
    columns: KeyColumns,
    /// The keys of the rows 0, [`FENCE_ROWS`], 2 · [`FENCE_ROWS`] …
    fences: Keys,
}

impl KeyIndex {
    /// The index over key columns; `keys` are the keys in them.
    pub(crate) fn new(columns: KeyColumns, keys: &Keys) -> KeyIndex {
        let fences: Vec<u32> = (0..keys.len() as u32).step_by(FENCE_ROWS).collect();
        KeyIndex { table: KeyTable::new(keys), columns, fences: keys.take(&fences) }
    }

    /// The row that has a key, whose hash this is.
    pub(crate) fn find(&self, key: &[u8], hash: KeyHash) -> Result<Option<u32>> {
        let mut part = Vec::new();
        self.table.find(hash, |row| Ok(self.columns.compare(row as usize, key, &mut part)? == Ordering::Equal))
    }

    /// Asks the memory for what [`find`](Self::find) will look at first. The number says nothing.
    pub(crate) fn touch(&self, hash: KeyHash) -> u32 {
        self.table.touch(hash)
    }

    /// The key of a row.
    pub(crate) fn key(&self, row: u32) -> Result<Vec<u8>> {
        self.columns.key(row as usize)
    }

    /// The rows whose keys lie in an interval.
    pub(crate) fn positions(&self, interval: &Interval) -> Result<Range<usize>> {
        let fences = self.fences.len();
        let fence = self.fences.lower_bound(&interval.low, 1.min(fences)..fences);
        let start = self.columns.lower_bound(&interval.low, self.rows_before(fence))?;
        let Some(high) = interval.high.as_deref() else { return Ok(start..self.columns.rows) };
        // Ranges are short, if there is anything in them.
        let fence = self.fences.lower_bound_near(high, (start / FENCE_ROWS + 1).min(fences));
        let Range { start: first, end } = self.rows_before(fence);
        Ok(start..self.columns.lower_bound_near(high, start.max(first)..end)?)
    }

    /// The rows between a fence and the one before it.
    fn rows_before(&self, fence: usize) -> Range<usize> {
        fence.saturating_sub(1) * FENCE_ROWS..self.columns.rows.min(fence * FENCE_ROWS)
    }

    /// The key columns.
    pub(crate) fn columns(&self) -> &KeyColumns {
        &self.columns
    }

    /// The key columns are counted here, too: they stay as long as the index does, whatever the cache lets go.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.table.memory_bytes()
            + self.fences.memory_bytes()
            + self.columns.columns.iter().map(|column| column.memory_bytes()).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array};
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;
    use crate::catalog::{IndexId, NewTable, TableDef, TableId};

    /// Keys of three columns, the first two of which are the same in many rows; bounds that are whole keys, beginnings of
    /// keys, and between them.
    #[test]
    fn a_place_among_keys_with_columns_in_common_is_where_the_keys_say() {
        let fields: Vec<Field> = ["a", "b", "c"].map(|name| Field::new(name, DataType::Int64, false)).into();
        let table = NewTable {
            schema_name: "public".to_owned(),
            name: "t".to_owned(),
            schema: Arc::new(Schema::new(fields)),
            primary_key: vec![0, 1, 2],
            foreign_keys: Vec::new(),
            indexes: Vec::new(),
        };
        let table = Arc::new(TableDef::new(TableId(1), IndexId(1), table).unwrap());
        let rows = 3 * 5 * 70;
        let column = |value: fn(i64) -> i64| {
            let values: ArrayRef = Arc::new(Int64Array::from_iter_values((0..rows).map(value)));
            Arc::new(Column::new(&DataType::Int64, vec![values]).unwrap())
        };
        let columns = vec![column(|row| row / 350), column(|row| row / 70 % 5), column(|row| 2 * (row % 70))];
        let columns = KeyColumns::new(Arc::clone(&table), columns, rows as usize);
        let keys = columns.all().unwrap();
        let index = KeyIndex::new(columns.clone(), &keys);
        let encoder = &table.codec().unwrap().keys;
        for a in -1i64..4 {
            for b in -1i64..6 {
                for c in (-1i64..142).step_by(7) {
                    let mut bounds = vec![Vec::new()];
                    for (position, value) in [a, b, c].into_iter().enumerate() {
                        let mut longer = bounds[position].clone();
                        encoder.encode_part(position, Some(&value.to_le_bytes()), &mut longer).unwrap();
                        bounds.push(longer);
                    }
                    for low in &bounds {
                        let expected = (0..keys.len()).take_while(|row| keys.get(*row) < low.as_slice()).count();
                        let end = keys.len();
                        for range in [0..end, expected.saturating_sub(20)..end.min(expected + 20), expected..expected] {
                            assert_eq!(columns.lower_bound(low, range).unwrap(), expected);
                        }
                        let interval = Interval { low: low.clone(), high: None };
                        assert_eq!(index.positions(&interval).unwrap(), expected..end);
                    }
                }
            }
        }
    }

    #[test]
    fn a_range_has_the_same_rows_by_fences_as_by_binary_search() {
        let schema = Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, false)]));
        for rows in [1, 2, FENCE_ROWS - 1, FENCE_ROWS, FENCE_ROWS + 1, 40 * FENCE_ROWS + 3] {
            let table = NewTable {
                schema_name: "public".to_owned(),
                name: "t".to_owned(),
                schema: Arc::clone(&schema),
                primary_key: vec![0],
                foreign_keys: Vec::new(),
                indexes: Vec::new(),
            };
            let table = Arc::new(TableDef::new(TableId(1), IndexId(1), table).unwrap());
            // Even numbers.
            let ids: ArrayRef = Arc::new(Int64Array::from_iter_values((0..rows as i64).map(|row| 2 * row)));
            let blocks = ids.len().div_ceil(crate::BLOCK_ROWS);
            let blocks = (0..blocks).map(|block| {
                let start = block * crate::BLOCK_ROWS;
                ids.slice(start, crate::BLOCK_ROWS.min(ids.len() - start))
            });
            let column = Arc::new(Column::new(&DataType::Int64, blocks.collect()).unwrap());
            let columns = KeyColumns::new(Arc::clone(&table), vec![column], rows);
            let index = KeyIndex::new(columns.clone(), &columns.all().unwrap());
            let key = |id: i64| {
                let mut key = Vec::new();
                table.codec().unwrap().keys.encode_part(0, Some(&id.to_le_bytes()), &mut key).unwrap();
                key
            };
            let near = |id: i64| (id - 3..id + 4).chain([id + 255, id + 256, id + 257, id + 2000, i64::MAX]);
            let lows = (-2..2 * rows as i64 + 3).step_by(37).chain(near(2 * FENCE_ROWS as i64));
            for low in lows.filter(|low| *low < i64::MAX) {
                for high in near(low).filter(|high| *high >= low) {
                    let interval = Interval { low: key(low), high: Some(key(high)) };
                    assert_eq!(index.positions(&interval).unwrap(), columns.positions(&interval).unwrap());
                }
                let interval = Interval { low: key(low), high: None };
                assert_eq!(index.positions(&interval).unwrap(), columns.positions(&interval).unwrap());
            }
        }
    }
}
