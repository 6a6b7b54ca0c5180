//! Rows of a segment, put together from its columns.
//!
//! A row of twenty columns lies in twenty places or more, of which hardly any is in the processor's cache. What makes it cheap
//! nevertheless:
//! * The columns of a segment that rows are made of are kept in one list, so that one atomic operation gets hold of all of
//!   them. (One for each column would be as many barriers, and each would wait for the memory that the one before asked for.)
//! * All values are looked at before the first is copied: no look waits for another, so that the memory is asked for many
//!   of them at the same time. It also tells how long the row will be.
//!
//! The list holds what the cache keeps, and nothing else ([`Assembled`]).

use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;

use crate::block::{Column, Raw};
use crate::column_cache::{Assembled, Assembly, Slot};
use crate::encoding::{Physical, RowLayout};
use crate::error::{Error, Result};
use crate::point::WantedColumns;

/// Columns by their places; those that nobody asked for, or that are not in memory, are missing.
type Known = Box<[Option<Arc<Column>>]>;

/// The list of a segment's columns.
#[derive(Debug)]
pub(super) struct RowColumns(Arc<Assembled<Known>>);

impl RowColumns {
    /// A list of what is in these slots.
    pub(super) fn of(slots: &[Slot<Column>]) -> RowColumns {
        let list = Arc::<Assembled<Known>>::default();
        let assembly: Arc<dyn Assembly> = Arc::clone(&list) as Arc<dyn Assembly>;
        slots.iter().for_each(|slot| slot.join(Arc::downgrade(&assembly)));
        RowColumns(list)
    }

    /// What `read` makes of the columns, if the cache keeps all those that are wanted.
    pub(super) fn with<R>(
        &self,
        slots: &[Slot<Column>],
        wanted: &WantedColumns,
        read: impl FnOnce(&Known) -> R,
    ) -> Option<R> {
        let has_all = |known: &Known| wanted.list().iter().all(|column| known[*column].is_some());
        let list = self.0.load();
        let made;
        let known = match list.as_deref().filter(|known| has_all(known)) {
            Some(known) => known,
            None => {
                made = self.make(slots, wanted, list.as_deref());
                Some(made.as_ref()).filter(|known| has_all(known))?
            }
        };
        wanted.list().iter().for_each(|column| slots[*column].note_use());
        Some(read(known))
    }

    /// The list with those that are wanted, too.
    fn make(&self, slots: &[Slot<Column>], wanted: &WantedColumns, before: Option<&Known>) -> Arc<Known> {
        let is_listed = |column: usize| before.is_some_and(|known| known[column].is_some());
        let column = |(column, slot): (usize, &Slot<Column>)| {
            if wanted.contains(column) || is_listed(column) { slot.kept() } else { None }
        };
        let known: Arc<Known> = Arc::new(slots.iter().enumerate().map(column).collect());
        let is_kept = |(slot, column): (&Slot<Column>, &Option<Arc<Column>>)| column.is_none() || slot.kept().is_some();
        self.0.offer(&known, || slots.iter().zip(known.iter()).all(is_kept));
        known
    }
}

/// A row with the wanted columns, and NULL for the others.
pub(super) fn build(layout: &RowLayout, row: u32, wanted: &WantedColumns, known: &Known) -> Result<Bytes> {
    let missing = || Error::Internal("a column of a row is missing".into());
    let mut values = Vec::with_capacity(wanted.list().len());
    let (mut variable_bytes, mut looked_at) = (0, 0);
    for column in wanted.list() {
        let value = known[*column].as_ref().ok_or_else(missing)?.raw(row as usize)?;
        if let (Raw::Bytes(bytes), Physical::Variable) = (&value, layout.physical(*column)) {
            looked_at ^= bytes.first().copied().unwrap_or_default();
            variable_bytes += bytes.len();
        }
        values.push(value);
    }
    black_box(looked_at);
    let mut writer = layout.writer_for(variable_bytes);
    let mut wanted = wanted.list().iter().zip(&values).peekable();
    for index in 0..known.len() {
        let value = wanted.next_if(|(column, _)| **column == index).map_or(&Raw::Null, |(_, value)| value);
        writer.push(value.bytes())?;
    }
    writer.finish()
}
