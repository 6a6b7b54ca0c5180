//! The keys of a segment, to be looked up.
//!
//! Nothing keeps the keys themselves: the hash table ([`super::key_table`]) knows which row may have a key, and the key
//! of a row is made from the encoded key columns, a few values read alone. The rows are in key order, so the same columns
//! answer where a range of keys begins, by binary search.

use std::cmp::Ordering;
use std::ops::Range;
use std::sync::Arc;

use super::key_table::{KeyHash, KeyTable};
use crate::block::Column;
use crate::catalog::TableDef;
use crate::encoding::Keys;
use crate::error::Result;
use crate::index::Interval;

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

    fn write_key(&self, row: usize, key: &mut Vec<u8>) -> Result<()> {
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

    /// The first row in `range` whose key is at least `key`.
    pub(crate) fn lower_bound(&self, key: &[u8], range: Range<usize>) -> Result<usize> {
        let (mut low, mut high) = (range.start, range.end);
        let mut probe = Vec::with_capacity(key.len());
        while low < high {
            let middle = low + (high - low) / 2;
            self.write_key(middle, &mut probe)?;
            match probe.as_slice().cmp(key) {
                Ordering::Less => low = middle + 1,
                Ordering::Equal | Ordering::Greater => high = middle,
            }
        }
        Ok(low)
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
}

impl KeyIndex {
    /// The index over key columns; `keys` are the keys in them.
    pub(crate) fn new(columns: KeyColumns, keys: &Keys) -> KeyIndex {
        KeyIndex { table: KeyTable::new(keys), columns }
    }

    /// The row that has a key, whose hash this is.
    pub(crate) fn find(&self, key: &[u8], hash: KeyHash) -> Result<Option<u32>> {
        let mut probe = Vec::new();
        self.table.find(hash, |row| {
            self.columns.write_key(row as usize, &mut probe)?;
            Ok(probe == key)
        })
    }

    /// The key of a row.
    pub(crate) fn key(&self, row: u32) -> Result<Vec<u8>> {
        self.columns.key(row as usize)
    }

    /// The key columns are counted here, too: they stay as long as the index does, whatever the cache lets go.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.table.memory_bytes() + self.columns.columns.iter().map(|column| column.memory_bytes()).sum::<usize>()
    }
}
