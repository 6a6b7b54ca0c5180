//! Rows of a memtable that a scan has converted to columns, kept for the next scan.
//!
//! ```text
//!   keys      ├──── page ────┤├──── page ────┤├─── page ───┤      pages cover the table without a gap
//!   scan      columns as of the page's timestamp  ×  what has changed since: masked out, and converted anew
//! ```
//! A page holds some columns of all rows that were visible at its timestamp between two keys. The tree knows, leaf by leaf,
//! when it was changed last, so that a scan finds the entries that are younger than the page without looking at the others
//! ([`Tree::walk`](super::tree::Tree::walk)). If they are many, or a column is missing, the page is made anew. A scan that is
//! older than the page can use it as long as nothing in between has changed since.
//!
//! Pages are never merged with their neighbours, only cut: a page that has become too large makes two. They go with the
//! memtable.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{ArrayRef, RecordBatch};
use bytes::Bytes;
use parking_lot::Mutex;
use rustydb_txn::Timestamp;

use super::TableMemtable;
use super::chain::Chain;
use crate::catalog::TableDef;
use crate::error::Result;
use crate::kernel::Mask;

/// A page of which more than one row in so many has changed is made anew.
const CHANGED_SHARE: usize = 4;

/// Converted rows between two keys.
#[derive(Debug)]
pub(crate) struct Page {
    timestamp: Timestamp,
    /// The last key that it covers, whether there is a row or not; `None`: all there are.
    last: Option<Box<[u8]>>,
    key_bytes: Vec<u8>,
    /// Where the key of each row ends in `key_bytes`.
    key_ends: Vec<u32>,
    columns: HashMap<usize, ArrayRef>,
}

impl Page {
    fn rows(&self) -> usize {
        self.key_ends.len()
    }

    fn key(&self, row: usize) -> &[u8] {
        let start = if row == 0 { 0 } else { self.key_ends[row - 1] as usize };
        &self.key_bytes[start..self.key_ends[row] as usize]
    }

    /// The row with this key.
    pub(crate) fn find(&self, key: &[u8]) -> Option<usize> {
        let (mut low, mut high) = (0, self.rows());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.key(middle) < key { low = middle + 1 } else { high = middle }
        }
        (low < self.rows() && self.key(low) == key).then_some(low)
    }

    /// A column that was asked for.
    pub(crate) fn column(&self, column: usize) -> Option<&ArrayRef> {
        self.columns.get(&column)
    }

    fn has(&self, columns: &[usize]) -> bool {
        columns.iter().all(|column| self.columns.contains_key(column))
    }

    fn memory_bytes(&self) -> usize {
        let columns: usize = self.columns.values().map(|column| column.get_array_memory_size()).sum();
        columns + self.key_bytes.capacity() + self.key_ends.capacity() * size_of::<u32>()
    }
}

/// The pages of one table, by the key behind which they begin; the first one begins at the empty key.
#[derive(Debug, Default)]
pub(super) struct Pages {
    pages: Mutex<BTreeMap<Box<[u8]>, Arc<Page>>>,
    /// Shared by all tables of a memtable.
    memory_bytes: Arc<AtomicUsize>,
}

impl Pages {
    pub(super) fn counted_by(memory_bytes: &Arc<AtomicUsize>) -> Pages {
        Pages { pages: Mutex::default(), memory_bytes: Arc::clone(memory_bytes) }
    }

    /// The page that begins at a key, and the key at which another one must end that does.
    fn at(&self, start: &[u8]) -> (Option<Arc<Page>>, Option<Box<[u8]>>) {
        let pages = self.pages.lock();
        let next = pages.range::<[u8], _>((Bound::Excluded(start), Bound::Unbounded)).next();
        (pages.get(start).cloned(), next.map(|(start, _)| start.clone()))
    }

    /// Keeps a page unless there is a younger one meanwhile.
    fn put(&self, start: &[u8], page: &Arc<Page>) {
        let mut pages = self.pages.lock();
        // Another scan may have cut it meanwhile.
        let next = pages.range::<[u8], _>((Bound::Excluded(start), Bound::Unbounded)).next();
        let fits = match (next, &page.last) {
            (None, _) => true,
            (Some((next, _)), Some(last)) => last <= next,
            (Some(_), None) => false,
        };
        if !fits || pages.get(start).is_some_and(|present| present.timestamp > page.timestamp) {
            return;
        }
        self.memory_bytes.fetch_add(page.memory_bytes(), Ordering::Relaxed);
        if let Some(before) = pages.insert(start.into(), Arc::clone(page)) {
            self.memory_bytes.fetch_sub(before.memory_bytes(), Ordering::Relaxed);
        }
    }
}

/// Some rows that a scan sees.
#[derive(Debug)]
pub(crate) struct Piece {
    /// Converted ones: those in the mask.
    pub(crate) page: Option<(Arc<Page>, Mask)>,
    /// Others, with their keys.
    pub(crate) rows: Vec<(Box<[u8]>, Bytes)>,
    /// The key behind which the next piece begins.
    pub(crate) next: Option<Box<[u8]>>,
}

impl TableMemtable {
    /// The rows visible at `timestamp` behind the key `after`, up to about `limit` of them, with these columns converted.
    pub(crate) fn piece(
        &self,
        table: &TableDef,
        after: Option<&[u8]>,
        timestamp: Timestamp,
        columns: &[usize],
        limit: usize,
    ) -> Result<Piece> {
        let start = after.unwrap_or_default();
        let (page, end) = self.pages.at(start);
        if let Some(page) = page.as_ref().filter(|page| page.has(columns))
            && let Some(found) = self.patched(page, after, timestamp)
        {
            return Ok(found);
        }
        let bounds =
            (after.map_or(Bound::Unbounded, Bound::Excluded), end.as_deref().map_or(Bound::Unbounded, Bound::Included));
        let mut rows: Vec<(Box<[u8]>, Bytes)> = Vec::new();
        let mut last = end.clone();
        self.walk_states(bounds, false, timestamp, |key, (row, _)| {
            rows.push((key.into(), row));
            if rows.len() < limit {
                return std::ops::ControlFlow::Continue(());
            }
            last = Some(key.into());
            std::ops::ControlFlow::Break(())
        });
        let next = last.clone();
        if rows.is_empty() || page.as_ref().is_some_and(|page| page.timestamp > timestamp) {
            return Ok(Piece { page: None, rows, next });
        }
        let mut wanted: Vec<usize> = columns.to_vec();
        wanted.extend(page.iter().flat_map(|page| page.columns.keys()));
        wanted.sort_unstable();
        wanted.dedup();
        let slices: Vec<&[u8]> = rows.iter().map(|(_, row)| row.as_ref()).collect();
        let converted: RecordBatch = table.codec()?.rows.decode(&slices, &wanted)?;
        let columns = wanted.into_iter().zip(converted.columns().iter().cloned()).collect();
        let (mut key_bytes, mut key_ends) = (Vec::new(), Vec::with_capacity(rows.len()));
        for (key, _) in &rows {
            key_bytes.extend_from_slice(key);
            key_ends.push(key_bytes.len() as u32);
        }
        let page = Arc::new(Page { timestamp, last, key_bytes, key_ends, columns });
        self.pages.put(start, &page);
        let mask = Mask::all(page.rows());
        Ok(Piece { page: Some((page, mask)), rows: Vec::new(), next })
    }

    /// A page brought to a timestamp; `None` if it would have to be made anew.
    fn patched(&self, page: &Arc<Page>, after: Option<&[u8]>, timestamp: Timestamp) -> Option<Piece> {
        let is_older = timestamp < page.timestamp;
        let bounds = (
            after.map_or(Bound::Unbounded, Bound::Excluded),
            page.last.as_deref().map_or(Bound::Unbounded, Bound::Included),
        );
        let mut mask = Mask::all(page.rows());
        let (mut rows, mut changes, mut usable) = (Vec::new(), 0, true);
        let row = |chain: &Chain| Some(chain.version(timestamp).and_then(|version| version.row.clone()));
        self.rows.walk_since(page.timestamp.min(timestamp), bounds, row, |key, row| {
            changes += 1;
            usable = !is_older && changes * CHANGED_SHARE <= page.rows();
            if !usable {
                return std::ops::ControlFlow::Break(());
            }
            if let Some(row) = page.find(key) {
                mask.remove(row);
            }
            if let Some(row) = row {
                rows.push((key.into(), row));
            }
            std::ops::ControlFlow::Continue(())
        });
        usable.then(|| Piece { page: Some((Arc::clone(page), mask)), rows, next: page.last.clone() })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;
    use crate::catalog::{IndexId, NewTable, TableId};
    use crate::memtable::Memtable;

    const PAGE_ROWS: usize = 16;

    fn table() -> TableDef {
        let fields = ["id", "value"].map(|name| Field::new(name, DataType::Int64, false));
        let schema = Arc::new(Schema::new(fields.to_vec()));
        let (schema_name, name) = ("public".to_string(), "t".to_string());
        let table = NewTable { schema_name, name, schema, primary_key: vec![0], foreign_keys: vec![], indexes: vec![] };
        TableDef::new(TableId(1), IndexId(2), table).unwrap()
    }

    fn row(table: &TableDef, id: i64, value: i64) -> (Vec<u8>, Bytes) {
        let columns: Vec<ArrayRef> =
            [id, value].map(|value| Arc::new(Int64Array::from(vec![value])) as ArrayRef).into();
        let batch = RecordBatch::try_new(Arc::clone(table.storage_schema()), columns).unwrap();
        let codec = table.codec().unwrap();
        let key = codec.keys.encode(&batch.columns()[..1]).unwrap().get(0).to_vec();
        (key, codec.rows.encode(&batch).unwrap().remove(0))
    }

    /// All rows as of a timestamp, read page by page, and how many of them had been converted.
    fn read(part: &TableMemtable, table: &TableDef, timestamp: Timestamp) -> (BTreeSet<(i64, i64)>, usize) {
        let (mut found, mut converted, mut total) = (BTreeSet::new(), 0, 0);
        let mut after: Option<Box<[u8]>> = None;
        loop {
            let Piece { page, rows, next } =
                part.piece(table, after.as_deref(), timestamp, &[0, 1], PAGE_ROWS).unwrap();
            if let Some((page, mask)) = page {
                let [ids, values] = [0, 1].map(|column| page.column(column).unwrap().as_primitive::<Int64Type>());
                for row in mask.indices() {
                    found.insert((ids.value(row as usize), values.value(row as usize)));
                    converted += 1;
                }
                total += mask.count();
            }
            let slices: Vec<&[u8]> = rows.iter().map(|(_, row)| row.as_ref()).collect();
            let batch = table.codec().unwrap().rows.decode(&slices, &[0, 1]).unwrap();
            let [ids, values] = [0, 1].map(|column| batch.column(column).as_primitive::<Int64Type>());
            found.extend((0..batch.num_rows()).map(|row| (ids.value(row), values.value(row))));
            total += batch.num_rows();
            match next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        assert_eq!(found.len(), total, "a row came twice");
        (found, converted)
    }

    #[test]
    fn pages_and_what_has_changed_since_make_every_snapshot() {
        let table = table();
        for seed in 0..40 {
            println!("seed {seed}");
            let mut random = StdRng::seed_from_u64(seed);
            let memtable = Memtable::default();
            let part = memtable.part(table.id);
            let mut history: Vec<std::collections::BTreeMap<i64, i64>> = vec![Default::default()];
            for timestamp in 1..200_u64 {
                let mut state = history.last().cloned().unwrap();
                for _ in 0..random.random_range(1..6) {
                    let id = random.random_range(0..120);
                    let (key, bytes) = row(&table, id, timestamp as i64);
                    let removes = state.contains_key(&id) && random.random_bool(0.3);
                    memtable.put(&table, &key, (!removes).then_some(bytes), timestamp, 0).unwrap();
                    if removes {
                        state.remove(&id)
                    } else {
                        state.insert(id, timestamp as i64)
                    };
                }
                history.push(state);
                while random.random_bool(0.5) {
                    let back = if random.random_bool(0.7) { 0 } else { random.random_range(0..timestamp.min(20)) };
                    let expected: BTreeSet<(i64, i64)> =
                        history[(timestamp - back) as usize].iter().map(|(id, value)| (*id, *value)).collect();
                    assert_eq!(read(part, &table, timestamp - back).0, expected, "at {timestamp} - {back}");
                }
            }
        }
    }

    #[test]
    fn a_second_scan_converts_only_what_is_new() {
        let (table, memtable) = (table(), Memtable::default());
        for id in 0..1000 {
            let (key, bytes) = row(&table, id, 0);
            memtable.put(&table, &key, Some(bytes), 1, 0).unwrap();
        }
        let (part, before) = (memtable.table(table.id).unwrap(), memtable.memory_bytes());
        assert_eq!(read(part, &table, 1).1, 1000);
        assert!(memtable.memory_bytes() > before + 1000 * 16, "the pages are accounted");
        for id in [3, 500, 2000] {
            let (key, bytes) = row(&table, id, 7);
            memtable.put(&table, &key, Some(bytes), 2, 0).unwrap();
        }
        let (found, converted) = read(part, &table, 2);
        assert_eq!((found.len(), converted), (1001, 998));
        assert_eq!(read(part, &table, 1).0.len(), 1000, "an older snapshot");
    }
}
