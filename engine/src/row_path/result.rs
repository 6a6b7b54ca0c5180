//! Results of programs: rows of data, and record batches only where somebody wants those.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Field, Schema, SchemaRef};

use super::datum::{Datum, array_of};
use crate::Result;

/// Rows with their columns' names and types.
#[derive(Debug, Clone, PartialEq)]
pub struct DataRows {
    /// The columns.
    pub schema: SchemaRef,
    /// The values of each row.
    pub rows: Vec<Vec<Datum>>,
}

impl DataRows {
    /// The same as a record batch.
    pub(crate) fn to_batch(&self) -> Result<RecordBatch> {
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.schema.fields().len());
        for (index, field) in self.schema.fields().iter().enumerate() {
            columns.push(array_of(field.data_type(), self.rows.iter().map(|row| &row[index]))?);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows.len()));
        let lacks = |(field, column): (&Arc<Field>, &ArrayRef)| !field.is_nullable() && column.null_count() > 0;
        if !self.schema.fields().iter().zip(&columns).any(lacks) {
            return Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?);
        }
        // An estimate of nullability that is wrong must not cost the result.
        let fields = self.schema.fields().iter().map(|field| Field::clone(field).with_nullable(true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        Ok(RecordBatch::try_new_with_options(schema, columns, &options)?)
    }
}
