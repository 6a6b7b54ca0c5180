//! From batches of any origin to rows of a table: columns arranged, types converted, declarations enforced.
//!
//! Invariant: what leaves [`RowCheck::conform`] has exactly the table's columns and types, no NULL where it is forbidden,
//! and no text longer than declared. Nothing is wrapped around or cut off silently.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, StringViewBuilder, new_null_array};
use arrow::compute::{CastOptions, can_cast_types, cast_with_options};
use arrow::datatypes::{DataType, Field, Float32Type, Float64Type, Schema};
use arrow::error::ArrowError;
use datafusion::physical_expr::PhysicalExpr;
use rustydb_storage::TableDef;

use crate::error::sqlstate;
use crate::sql::types::{LENGTH_KEY, name_of};
use crate::{Error, Result};

/// Enforces a table's column declarations.
pub(crate) struct RowCheck {
    table: Arc<TableDef>,
    /// The n of `varchar(n)`, by column.
    lengths: Vec<Option<usize>>,
}

impl RowCheck {
    pub(crate) fn new(table: &Arc<TableDef>) -> Self {
        let length = |field: &Arc<Field>| field.metadata().get(LENGTH_KEY).and_then(|length| length.parse().ok());
        RowCheck { table: Arc::clone(table), lengths: table.schema.fields().iter().map(length).collect() }
    }

    /// The same rows as the table wants them. `columns` are the table's columns in order, of any castable type.
    pub(crate) fn conform(&self, columns: &[ArrayRef], rows: usize) -> Result<RecordBatch> {
        let mut converted = Vec::with_capacity(columns.len());
        for ((field, length), column) in self.table.schema.fields().iter().zip(&self.lengths).zip(columns) {
            let mut column = convert(column, field)?;
            if let Some(length) = length {
                column = limit_length(&column, *length, field)?;
            }
            if !field.is_nullable() && column.null_count() > 0 {
                return Err(self.not_null(field));
            }
            converted.push(column);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.table.schema), converted, &options)?)
    }

    fn not_null(&self, field: &Field) -> Error {
        let (column, table) = (field.name(), &self.table.name);
        Error::new(
            sqlstate::NOT_NULL_VIOLATION,
            format!("null value in column \"{column}\" of table \"{table}\" violates not-null constraint"),
        )
    }
}

/// Casts a column to its field's type; a value that does not fit is an error that names the column.
fn convert(column: &ArrayRef, field: &Field) -> Result<ArrayRef> {
    if column.data_type() == field.data_type() {
        return Ok(Arc::clone(column));
    }
    if *column.data_type() == DataType::Null {
        return Ok(new_null_array(field.data_type(), column.len()));
    }
    if !can_cast_types(column.data_type(), field.data_type()) {
        return Err(Error::new(
            sqlstate::TYPE_MISMATCH,
            format!(
                "column \"{}\" is of type {} but the value is of type {}",
                field.name(),
                name_of(field.data_type()),
                name_of(column.data_type())
            ),
        ));
    }
    let exact = CastOptions { safe: false, ..CastOptions::default() };
    rounded_for(column, field.data_type())
        .and_then(|column| cast_with_options(&column, field.data_type(), &exact))
        .map_err(|error| Error::from(error).map_message(|text| format!("column \"{}\": {text}", field.name())))
}

/// Fractions become whole numbers by rounding, as in a cast; arrow's cast would cut them off.
fn rounded_for(column: &ArrayRef, target: &DataType) -> Result<ArrayRef, ArrowError> {
    if !target.is_integer() {
        return Ok(Arc::clone(column));
    }
    match column.data_type() {
        DataType::Float32 => Ok(Arc::new(column.as_primitive::<Float32Type>().unary::<_, Float32Type>(f32::round))),
        DataType::Float64 => Ok(Arc::new(column.as_primitive::<Float64Type>().unary::<_, Float64Type>(f64::round))),
        DataType::Decimal128(_, 1..) => {
            cast_with_options(column, &DataType::Decimal128(38, 0), &CastOptions::default())
        }
        _ => Ok(Arc::clone(column)),
    }
}

/// Fails with 22001 for text longer than declared. As the standard wants it, blanks beyond the length are cut off.
fn limit_length(column: &ArrayRef, length: usize, field: &Field) -> Result<ArrayRef> {
    let Some(texts) = column.as_string_view_opt() else { return Ok(Arc::clone(column)) };
    // A text has at most as many characters as bytes, and the byte length is at hand.
    let beyond = |text: &str| text.len() > length && text.chars().nth(length).is_some();
    let mut cut = false;
    for text in texts.iter().flatten() {
        if beyond(text) {
            let rest = text.chars().skip(length);
            if !rest.clone().all(|letter| letter == ' ') {
                let found = text.chars().count();
                return Err(Error::new(
                    sqlstate::STRING_TOO_LONG,
                    format!("value too long for column \"{}\" of {length} characters", field.name()),
                )
                .with_detail(format!("The value has {found} characters.")));
            }
            cut = true;
        }
    }
    if !cut {
        return Ok(Arc::clone(column));
    }
    let mut builder = StringViewBuilder::with_capacity(texts.len());
    for text in texts.iter() {
        builder.append_option(text.map(|text| match text.char_indices().nth(length) {
            Some((end, _)) => &text[..end],
            None => text,
        }));
    }
    Ok(Arc::new(builder.finish()))
}

/// Where a table's column comes from when rows are loaded.
pub(crate) enum ColumnSource {
    /// A column of the incoming batches.
    Incoming(usize),
    /// An expression without columns: the column's default.
    Default(Arc<dyn PhysicalExpr>),
    /// NULL in every row.
    Null,
}

/// Arranges incoming columns in a table's order and fills the rest.
pub(crate) struct Arrangement {
    sources: Vec<ColumnSource>,
}

impl Arrangement {
    pub(crate) fn new(sources: Vec<ColumnSource>) -> Self {
        Arrangement { sources }
    }

    /// The table's columns for the rows of `batch`.
    pub(crate) fn arrange(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
        let rows = batch.num_rows();
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let nothing = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options)?;
        self.sources
            .iter()
            .map(|source| match source {
                ColumnSource::Incoming(index) => Ok(Arc::clone(batch.column(*index))),
                ColumnSource::Default(expression) => Ok(expression.evaluate(&nothing)?.into_array(rows)?),
                ColumnSource::Null => Ok(new_null_array(&DataType::Null, rows)),
            })
            .collect()
    }
}
