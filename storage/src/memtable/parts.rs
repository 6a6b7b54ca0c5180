//! The parts of a memtable, by table.
//!
//! ```text
//!   buckets   [ 0 ][ 1 ][ 2 ] …          by the low bits of the table's number
//!                └─▶ table 65 ─▶ table 1      each once, for as long as the memtable lives
//! ```
//! Every look-up of a key begins here, on all cores at once. Parts are only ever added, so finding one takes no lock and
//! counts nobody: cores that look for the same part write nothing.

use std::sync::{Arc, OnceLock};

use super::TableMemtable;
use crate::catalog::TableId;

const BUCKETS: usize = 64;

/// The rest of a bucket.
type Next = OnceLock<Box<Part>>;

#[derive(Debug)]
struct Part {
    table: TableId,
    part: Arc<TableMemtable>,
    next: Next,
}

#[derive(Debug)]
pub(super) struct Parts {
    buckets: [Next; BUCKETS],
}

impl Default for Parts {
    fn default() -> Self {
        Parts { buckets: [const { OnceLock::new() }; BUCKETS] }
    }
}

impl Parts {
    fn bucket(&self, table: TableId) -> &Next {
        &self.buckets[table.0 as usize % BUCKETS]
    }

    pub(super) fn get(&self, table: TableId) -> Option<&Arc<TableMemtable>> {
        let mut next = self.bucket(table).get();
        while let Some(found) = next {
            if found.table == table {
                return Some(&found.part);
            }
            next = found.next.get();
        }
        None
    }

    /// Adds a table's part unless it has one. Returns the one it has now, and whether that is the new one.
    pub(super) fn add(&self, table: TableId, part: TableMemtable) -> (&Arc<TableMemtable>, bool) {
        let mut part = Some(Arc::new(part));
        let mut next = self.bucket(table);
        loop {
            let mut is_new = false;
            let found = next.get_or_init(|| {
                is_new = true;
                let part = part.take().unwrap_or_default();
                Box::new(Part { table, part, next: OnceLock::new() })
            });
            if found.table == table {
                return (&found.part, is_new);
            }
            next = &found.next;
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (TableId, &Arc<TableMemtable>)> {
        let parts = self.buckets.iter().flat_map(|first| std::iter::successors(first.get(), |part| part.next.get()));
        parts.map(|part| (part.table, &part.part))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_has_one_part() {
        let parts = Parts::default();
        for round in [true, false] {
            for table in 0..300 {
                assert_eq!(parts.add(TableId(table), TableMemtable::default()).1, round, "table {table}");
            }
        }
        for table in 0..300 {
            let (first, second) = (parts.get(TableId(table)).unwrap(), parts.add(TableId(table), Default::default()).0);
            assert!(Arc::ptr_eq(first, second));
        }
        assert!(parts.get(TableId(300)).is_none());
        let mut tables: Vec<u64> = parts.iter().map(|(table, _)| table.0).collect();
        tables.sort_unstable();
        assert_eq!(tables, (0..300).collect::<Vec<u64>>());
    }
}
