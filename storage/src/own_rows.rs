//! The rows of a table that a transaction has changed, one by one: for checks that are put off to its end and must not read
//! the whole table then.

use std::sync::Arc;

use arrow::array::RecordBatch;

use crate::catalog::TableId;
use crate::error::Result;
use crate::range::RowPlace;
use crate::store::Place;
use crate::view::ReadView;

impl ReadView {
    /// The rows that the transaction has put into a table, with the chosen columns of the storage schema. `None` if some
    /// came in bulk, or if the transaction has made or changed the table itself: it has to be read then.
    pub fn own_rows(&self, table: TableId, projection: &[usize]) -> Result<Option<RecordBatch>> {
        let writes = self.writes.table(table);
        if !self.is_as_committed(table) || writes.is_some_and(|writes| !writes.staged.is_empty()) {
            return Ok(None);
        }
        let pending = writes.into_iter().flat_map(|writes| writes.rows.values());
        let rows: Vec<&[u8]> = pending.filter_map(|pending| pending.row.as_deref()).collect();
        self.table(table)?.codec()?.rows.decode(&rows, projection).map(Some)
    }

    /// The committed rows that the transaction has taken out of a table or put others in the places of, as they are without
    /// it. `None` if the transaction has made or changed the table itself.
    pub async fn replaced_rows(&self, table: TableId, projection: &[usize]) -> Result<Option<RecordBatch>> {
        if !self.is_as_committed(table) {
            return Ok(None);
        }
        let keys = self.writes.table(table).map(|writes| writes.replaced_keys()).unwrap_or_default();
        let (version, timestamp) = (&self.snapshot.version, self.snapshot.timestamp);
        let _pins = version.load_keys(table, keys.iter().copied()).await?;
        let mut places = Vec::with_capacity(keys.len());
        for key in keys {
            let Some(located) = version.locate(table, key, timestamp)? else { continue };
            match (located.row, located.place) {
                (Some(row), _) => places.push(RowPlace::Memory(row)),
                (None, Place::Segment(segment, row)) => places.push(RowPlace::Segment(segment, row)),
                (None, Place::Active | Place::Frozen) => {}
            }
        }
        self.rows_at(self.table(table)?, places, projection).await.map(Some)
    }

    /// Whether a table is the one that others know, with the definition that they know.
    fn is_as_committed(&self, table: TableId) -> bool {
        match (self.catalog.table(table), self.snapshot.version.catalog.table(table)) {
            (Some(own), Some(committed)) => Arc::ptr_eq(own, committed),
            _ => false,
        }
    }
}
