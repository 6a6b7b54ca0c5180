//! Rows from single values: new ones column by column, and changed ones as a copy in which some columns are replaced.

use bytes::Bytes;

use super::{Physical, RawValue, RowLayout, variable_end};
use crate::error::{Error, Result};

/// Room for the variable section of a row whose length is not known.
const VARIABLE_BYTES: usize = 64;

impl RowLayout {
    /// Begins a row whose values come one by one.
    pub(crate) fn writer(&self) -> RowWriter<'_> {
        self.writer_for(VARIABLE_BYTES)
    }

    /// The same for so many bytes in the variable section.
    pub(crate) fn writer_for(&self, variable_bytes: usize) -> RowWriter<'_> {
        let mut bytes = Vec::with_capacity(self.variable_start + variable_bytes);
        bytes.resize(self.variable_start, 0);
        RowWriter { layout: self, bytes, next: 0 }
    }

    /// Begins to change a copy of a row.
    pub(crate) fn editor(&self, row: &[u8]) -> RowEditor<'_> {
        RowEditor { layout: self, bytes: row.to_vec() }
    }
}

/// A row in the making.
#[derive(Debug)]
pub struct RowWriter<'a> {
    layout: &'a RowLayout,
    bytes: Vec<u8>,
    next: usize,
}

impl RowWriter<'_> {
    /// Adds the value of the next column, as rows keep it: little-endian bytes of the type's width, or the text itself.
    ///
    /// # Errors
    /// `Internal` if there are no more columns or the width is another.
    pub fn push(&mut self, value: Option<&[u8]>) -> Result<()> {
        let column = self.next;
        let Some(layout) = self.layout.columns.get(column) else {
            return Err(Error::Internal(format!("a row of more than {column} columns")));
        };
        self.next += 1;
        if value.is_none() {
            self.bytes[column / 8] |= 1 << (column % 8);
        }
        match (layout.physical, value) {
            (Physical::Variable, value) => {
                self.bytes.extend_from_slice(value.unwrap_or_default());
                let end = variable_end(self.bytes.len() - self.layout.variable_start)?;
                self.bytes[layout.offset..layout.offset + 4].copy_from_slice(&end.to_le_bytes());
            }
            (fixed, Some(value)) if value.len() == fixed.width() => copy_short(&mut self.bytes, layout.offset, value),
            (_, Some(value)) => return Err(wrong_width(column, value)),
            (_, None) => {}
        }
        Ok(())
    }

    /// The row, once every column has its value.
    pub fn finish(self) -> Result<Bytes> {
        if self.next != self.layout.columns.len() {
            return Err(Error::Internal(format!(
                "a row of {} columns ends after {}",
                self.layout.columns.len(),
                self.next
            )));
        }
        Ok(Bytes::from(self.bytes))
    }
}

/// A copy of a row that is being changed. What is not replaced is copied as it is, without looking at columns.
#[derive(Debug)]
pub struct RowEditor<'a> {
    layout: &'a RowLayout,
    bytes: Vec<u8>,
}

impl RowEditor<'_> {
    /// Replaces the value of a column; the value is as for [`RowWriter::push`].
    ///
    /// # Errors
    /// `Internal` if there is no such column or the width is another.
    pub fn set(&mut self, column: usize, value: Option<&[u8]>) -> Result<()> {
        let Some(layout) = self.layout.columns.get(column) else {
            return Err(Error::Internal(format!("a row without a column {column}")));
        };
        match (layout.physical, value) {
            (Physical::Variable, value) => self.set_variable(column, value)?,
            (fixed, Some(value)) if value.len() == fixed.width() => copy_short(&mut self.bytes, layout.offset, value),
            (_, Some(value)) => return Err(wrong_width(column, value)),
            (fixed, None) => self.bytes[layout.offset..layout.offset + fixed.width()].fill(0),
        }
        let bit = 1 << (column % 8);
        match value {
            Some(_) => self.bytes[column / 8] &= !bit,
            None => self.bytes[column / 8] |= bit,
        }
        Ok(())
    }

    fn set_variable(&mut self, column: usize, value: RawValue<'_>) -> Result<()> {
        let (layout, value) = (self.layout, value.unwrap_or_default());
        let previous = layout.columns[column].previous_variable;
        let start = layout.variable_start + previous.map_or(0, |previous| layout.variable_end(&self.bytes, previous));
        let end = layout.variable_start + layout.variable_end(&self.bytes, column);
        if value.len() == end - start {
            self.bytes[start..end].copy_from_slice(value);
            return Ok(());
        }
        self.bytes.splice(start..end, value.iter().copied());
        for (_, offset, _) in layout.variables.iter().filter(|(variable, ..)| *variable >= column) {
            let before = u32::from_le_bytes(super::array_of(&self.bytes[*offset..])) as usize;
            let after = variable_end(before + value.len() - (end - start))?;
            self.bytes[*offset..*offset + 4].copy_from_slice(&after.to_le_bytes());
        }
        Ok(())
    }

    /// The changed row.
    pub fn finish(self) -> Bytes {
        Bytes::from(self.bytes)
    }
}

/// Puts a value of fixed width into a row. The usual widths need no call for it.
#[inline]
fn copy_short(row: &mut [u8], offset: usize, value: &[u8]) {
    if let Ok(value) = <&[u8; 4]>::try_from(value) {
        row[offset..offset + 4].copy_from_slice(value);
    } else if let Ok(value) = <&[u8; 8]>::try_from(value) {
        row[offset..offset + 8].copy_from_slice(value);
    } else {
        row[offset..offset + value.len()].copy_from_slice(value);
    }
}

fn wrong_width(column: usize, value: &[u8]) -> Error {
    Error::Internal(format!("column {column} does not have {} bytes", value.len()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{DataType, Field, Schema};
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    #[test]
    fn a_changed_copy_is_the_row_that_is_written_from_its_values() {
        let types = [DataType::Int32, DataType::Utf8View, DataType::Int64, DataType::BinaryView, DataType::Utf8View];
        let fields = types.iter().enumerate().map(|(index, kind)| Field::new(format!("c{index}"), kind.clone(), true));
        let layout = RowLayout::new(&Arc::new(Schema::new(fields.collect::<Vec<_>>()))).unwrap();
        let mut random = StdRng::seed_from_u64(1);
        let mut value = |column: usize| -> Option<Vec<u8>> {
            let length = match column {
                0 => 4,
                2 => 8,
                _ => random.random_range(0..6),
            };
            let letters = (0..length).map(|_| random.random_range(b'a'..=b'z')).collect();
            (random.random_range(0..4) > 0).then_some(letters)
        };
        let written = |values: &[Option<Vec<u8>>]| {
            let mut writer = layout.writer();
            values.iter().for_each(|value| writer.push(value.as_deref()).unwrap());
            writer.finish().unwrap()
        };
        for changes in (0..1 << types.len()).cycle().take(500) {
            let mut values: Vec<Option<Vec<u8>>> = (0..types.len()).map(&mut value).collect();
            let mut editor = layout.editor(&written(&values));
            // Some columns, in any order, one of them twice now and then.
            for column in [3, 0, 4, 1, 2, 1].into_iter().filter(|column| changes & 1 << column != 0) {
                let new = value(column);
                editor.set(column, new.as_deref()).unwrap();
                values[column] = new;
            }
            let changed = editor.finish();
            assert_eq!(changed, written(&values));
            layout.validate(&changed).unwrap();
        }
    }

    #[test]
    fn values_of_another_width_are_refused() {
        let layout = RowLayout::new(&Arc::new(Schema::new(vec![Field::new("a", DataType::Int32, true)]))).unwrap();
        let mut writer = layout.writer();
        assert!(writer.push(Some(&[1])).is_err());
        let mut editor = layout.editor(&[0; 5]);
        assert!(editor.set(0, Some(&[1])).is_err() && editor.set(1, None).is_err());
    }
}
