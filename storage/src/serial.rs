//! Serializable transactions in the store: what they read is collected here until they commit.
//!
//! ```text
//!   ReadView::scan / get / lookup ──▶ SerialTransaction.reads      (a mutex of its own, nobody else's business)
//!                                            │ COMMIT, under the commit lock
//!                                            ▼
//!                                     Serializability::commit ──▶ may commit, or 40001
//! ```
//! A scan is remembered as the range of primary keys that its filters leave, or as the whole table. A read-only
//! transaction on a safe snapshot remembers nothing.

use std::ops::Bound;
use std::sync::Arc;

use arrow::array::Array;
use parking_lot::Mutex;
use rustydb_txn::{Candidate, KeyRange, ReadSet, Ticket, Timestamp, WriteSet};

use crate::catalog::{TableDef, TableId};
use crate::encoding::{KeyEncoder, Keys};
use crate::error::Result;
use crate::index::{Interval, successor};
use crate::scan::{CompareOp, Filter};
use crate::store::Inner;

/// The memory of an open serializable transaction. It ends with the commit, or when it is dropped.
#[derive(Debug)]
pub(crate) struct SerialTransaction {
    store: Arc<Inner>,
    state: Mutex<Option<State>>,
}

#[derive(Debug)]
struct State {
    ticket: Ticket,
    reads: ReadSet,
}

impl SerialTransaction {
    pub(crate) fn new(store: Arc<Inner>, ticket: Ticket) -> Self {
        SerialTransaction { store, state: Mutex::new(Some(State { ticket, reads: ReadSet::default() })) }
    }

    fn note(&self, note: impl FnOnce(&mut ReadSet)) {
        // After the end there is nothing to be noted: what a stream still reads was planned, and noted, before.
        if let Some(state) = &mut *self.state.lock() {
            note(&mut state.reads);
        }
    }

    pub(crate) fn note_keys(&self, table: TableId, keys: &Keys) {
        self.note(|reads| (0..keys.len()).for_each(|row| reads.add_key(table.0, keys.get(row))));
    }

    pub(crate) fn note_scan(&self, table: &TableDef, filters: &[Filter]) -> Result<()> {
        let range = key_range(table, filters)?;
        self.note(|reads| match range {
            Some(range) => reads.add_range(table.id.0, range),
            None => reads.add_table(table.id.0),
        });
        Ok(())
    }

    /// Notes an interval of encoded primary keys.
    pub(crate) fn note_interval(&self, table: TableId, interval: &Interval) {
        let low = Bound::Included(interval.low.as_slice().into());
        let high = interval.high.as_deref().map_or(Bound::Unbounded, |high| Bound::Excluded(high.into()));
        self.note(|reads| reads.add_range(table.0, (low, high)));
    }

    /// Whether it has looked for a key, alone or among others.
    pub(crate) fn has_read(&self, table: TableId, key: &[u8]) -> bool {
        let mut sought = WriteSet::default();
        sought.add_key(table.0, key);
        self.state.lock().as_ref().is_some_and(|state| state.reads.meets(&sought))
    }

    /// Ends the transaction: the candidate for the commit, unless it has ended before.
    pub(crate) fn end(&self, snapshot: Timestamp, end: Timestamp, writes: WriteSet) -> Option<(Ticket, Candidate)> {
        let State { ticket, reads } = self.state.lock().take()?;
        Some((ticket, Candidate { snapshot, end, reads, writes }))
    }
}

impl Drop for SerialTransaction {
    fn drop(&mut self) {
        if let Some(State { ticket, reads: _ }) = self.state.get_mut().take() {
            self.store.abort_serializable(ticket);
        }
    }
}

/// The range of encoded keys that rows passing all `filters` have; `None` for all keys.
fn key_range(table: &TableDef, filters: &[Filter]) -> Result<Option<KeyRange>> {
    let find = |column: usize, ops: &[CompareOp]| {
        filters.iter().find_map(|filter| match filter {
            // Floats are left out: 0.0 equals -0.0, and their keys differ.
            Filter::Compare { column: on, op, value }
                if *on == column && ops.contains(op) && value.is_valid(0) && !value.data_type().is_floating() =>
            {
                Some(Arc::clone(value))
            }
            _ => None,
        })
    };
    let mut values = Vec::new();
    for column in table.key_columns() {
        match find(*column, &[CompareOp::Eq]) {
            Some(value) => values.push(value),
            None => break,
        }
    }
    let encode = |values: &[arrow::array::ArrayRef]| -> Result<Box<[u8]>> {
        if values.is_empty() {
            return Ok(Box::default());
        }
        let encoder = KeyEncoder::new(&table.codec()?.rows, &table.key_columns()[..values.len()])?;
        Ok(encoder.encode(values)?.get(0).into())
    };
    let (mut low, mut high) = (values.clone(), values.clone());
    if let Some(next) = table.key_columns().get(values.len()) {
        low.extend(find(*next, &[CompareOp::Gt, CompareOp::GtEq]));
        high.extend(find(*next, &[CompareOp::Lt, CompareOp::LtEq]));
    }
    if low.is_empty() && high.is_empty() {
        return Ok(None);
    }
    // The bounds themselves are always included, and with them all keys they are a prefix of: too wide is safe.
    let low = Bound::Included(encode(&low)?);
    let high = successor(&encode(&high)?).map_or(Bound::Unbounded, |high| Bound::Excluded(high.into()));
    Ok(Some((low, high)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int32Array, StringViewArray};
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;
    use crate::catalog::{IndexId, NewTable};

    fn table() -> TableDef {
        let fields = vec![
            Field::new("a", DataType::Int32, false),
            Field::new("b", DataType::Utf8View, false),
            Field::new("c", DataType::Int32, true),
        ];
        let schema = Arc::new(Schema::new(fields));
        let (schema_name, name) = ("s".to_owned(), "t".to_owned());
        TableDef::new(
            TableId(1),
            IndexId(1),
            NewTable {
                schema_name,
                name,
                schema,
                primary_key: vec![0, 1],
                foreign_keys: Vec::new(),
                indexes: Vec::new(),
            },
        )
        .unwrap()
    }

    fn on(column: usize, op: CompareOp, value: ArrayRef) -> Filter {
        Filter::Compare { column, op, value }
    }

    fn number(value: i32) -> ArrayRef {
        Arc::new(Int32Array::from(vec![value]))
    }

    fn text(value: &str) -> ArrayRef {
        Arc::new(StringViewArray::from(vec![value]))
    }

    /// Whether a row with this key is in the range of the filters.
    fn covers(filters: &[Filter], a: i32, b: &str) -> bool {
        let table = table();
        let key = table.codec().unwrap().keys.encode(&[number(a), text(b)]).unwrap();
        let mut writes = WriteSet::default();
        writes.add_key(1, key.get(0));
        let mut reads = ReadSet::default();
        match key_range(&table, filters).unwrap() {
            Some(range) => reads.add_range(1, range),
            None => reads.add_table(1),
        }
        reads.meets(&writes)
    }

    #[test]
    fn equalities_on_leading_key_columns_make_a_narrow_range() {
        let one = [on(0, CompareOp::Eq, number(5))];
        assert!(covers(&one, 5, "") && covers(&one, 5, "zzz"));
        assert!(!covers(&one, 4, "zzz") && !covers(&one, 6, ""));
        let both = [on(1, CompareOp::Eq, text("m")), on(0, CompareOp::Eq, number(5))];
        assert!(covers(&both, 5, "m") && !covers(&both, 5, "ma") && !covers(&both, 5, "l"));
    }

    #[test]
    fn bounds_on_the_next_column_narrow_it_and_others_do_not() {
        let range = [on(0, CompareOp::Gt, number(-3)), on(0, CompareOp::LtEq, number(7))];
        assert!(covers(&range, 7, "z") && covers(&range, -2, "") && !covers(&range, 8, "") && !covers(&range, -4, "z"));
        let second = [on(0, CompareOp::Eq, number(1)), on(1, CompareOp::GtEq, text("k"))];
        assert!(
            covers(&second, 1, "k") && covers(&second, 1, "zz") && !covers(&second, 1, "a") && !covers(&second, 2, "")
        );
        for all in [vec![], vec![on(1, CompareOp::Eq, text("k"))], vec![on(2, CompareOp::Eq, number(1))]] {
            assert!(covers(&all, i32::MIN, "") && covers(&all, i32::MAX, "zz"));
        }
        assert!(covers(&[on(0, CompareOp::LtEq, number(i32::MAX))], i32::MAX, "x"));
    }
}
