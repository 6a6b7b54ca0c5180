//! Compact binary rows.
//!
//! ```text
//! ┌──────────────┬──────────────────────────────────────┬───────────────────┐
//! │ null bitmap  │ fixed section: every column, in order │ variable section  │
//! │ 1 bit/column │ a variable column keeps its end offset│ strings, binaries │
//! └──────────────┴──────────────────────────────────────┴───────────────────┘
//! ```
//! A set bit means NULL; the fixed bytes of a NULL are zero (a NULL string repeats the previous end). All integers are
//! little-endian. The layout follows from the column types alone and is part of the log's format: it may change only
//! with the log's version.

mod writer;

use std::sync::Arc;

use arrow::array::cast::AsArray;
use arrow::array::types::{
    Date32Type, Decimal128Type, DurationMicrosecondType, DurationMillisecondType, DurationNanosecondType,
    DurationSecondType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, IntervalMonthDayNano,
    IntervalMonthDayNanoType, Time64MicrosecondType, Time64NanosecondType, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type,
    UInt64Type,
};
use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, BinaryViewBuilder, BooleanArray, FixedSizeBinaryBuilder, PrimitiveArray,
    RecordBatch, RecordBatchOptions, StringViewBuilder,
};
use arrow::datatypes::{DataType, SchemaRef, TimeUnit};
use bytes::Bytes;

use super::physical::Physical;
use crate::error::{Error, Result};
pub use writer::{RowEditor, RowWriter};

#[derive(Debug, Clone)]
struct ColumnLayout {
    physical: Physical,
    offset: usize,
    /// The variable column before this one, whose end is this one's start.
    previous_variable: Option<usize>,
}

/// Where each column of a table's rows lies.
#[derive(Debug, Clone)]
pub(crate) struct RowLayout {
    schema: SchemaRef,
    columns: Vec<ColumnLayout>,
    /// The variable columns: which, where its end offset lies, and whether it is text.
    variables: Vec<(usize, usize, bool)>,
    variable_start: usize,
}

/// A raw value of one column of one row; `None` is NULL.
pub(crate) type RawValue<'a> = Option<&'a [u8]>;

impl RowLayout {
    /// The layout of rows with this schema; `Unsupported` names the first column tables cannot hold.
    pub(crate) fn new(schema: &SchemaRef) -> Result<Self> {
        let mut offset = schema.fields().len().div_ceil(8);
        let mut previous_variable = None;
        let mut columns = Vec::with_capacity(schema.fields().len());
        for (index, field) in schema.fields().iter().enumerate() {
            let physical = Physical::of(field.data_type()).ok_or_else(|| {
                Error::Unsupported(format!(
                    "column \"{}\": tables cannot hold {} values",
                    field.name(),
                    field.data_type()
                ))
            })?;
            columns.push(ColumnLayout { physical, offset, previous_variable });
            offset += physical.width();
            if physical == Physical::Variable {
                previous_variable = Some(index);
            }
        }
        let variable = columns.iter().enumerate().filter(|(_, column)| column.physical == Physical::Variable);
        let is_text = |column: usize| schema.field(column).data_type() == &DataType::Utf8View;
        let variables = variable.map(|(index, column)| (index, column.offset, is_text(index))).collect();
        Ok(RowLayout { schema: Arc::clone(schema), columns, variables, variable_start: offset })
    }

    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    pub(crate) fn physical(&self, column: usize) -> Physical {
        self.columns[column].physical
    }

    /// Where a column's fixed bytes lie in a row.
    pub(super) fn offset(&self, column: usize) -> usize {
        self.columns[column].offset
    }

    /// Encodes every row of a batch whose columns are those of the layout.
    pub(crate) fn encode(&self, batch: &RecordBatch) -> Result<Vec<Bytes>> {
        if batch.num_columns() != self.columns.len() {
            return Err(Error::Internal(format!(
                "{} columns for a row of {}",
                batch.num_columns(),
                self.columns.len()
            )));
        }
        let mut rows: Vec<Vec<u8>> = (0..batch.num_rows()).map(|_| vec![0; self.variable_start]).collect();
        for (index, (layout, array)) in self.columns.iter().zip(batch.columns()).enumerate() {
            let expected = self.schema.field(index).data_type();
            if array.data_type() != expected {
                return Err(Error::Internal(format!("column {index} is {}, not {expected}", array.data_type())));
            }
            if array.null_count() > 0 {
                for (row, bytes) in rows.iter_mut().enumerate() {
                    bytes[index / 8] |= u8::from(array.is_null(row)) << (index % 8);
                }
            }
            encode_column(layout, self.variable_start, array, &mut rows)?;
        }
        Ok(rows.into_iter().map(Bytes::from).collect())
    }

    /// Puts one row together. `value` is called for each column in order, with where its bytes go.
    pub(crate) fn build(
        &self,
        mut value: impl FnMut(usize, &mut dyn FnMut(RawValue<'_>) -> Result<()>) -> Result<()>,
    ) -> Result<Bytes> {
        let mut row = Vec::with_capacity(self.variable_start + 32);
        row.resize(self.variable_start, 0);
        for (index, layout) in self.columns.iter().enumerate() {
            value(index, &mut |bytes| {
                if bytes.is_none() {
                    row[index / 8] |= 1 << (index % 8);
                }
                match (layout.physical, bytes) {
                    (Physical::Variable, bytes) => {
                        row.extend_from_slice(bytes.unwrap_or_default());
                        let end = variable_end(row.len() - self.variable_start)?;
                        row[layout.offset..layout.offset + 4].copy_from_slice(&end.to_le_bytes());
                    }
                    (fixed, Some(bytes)) if bytes.len() == fixed.width() => {
                        row[layout.offset..layout.offset + bytes.len()].copy_from_slice(bytes);
                    }
                    (_, None) => {}
                    (fixed, Some(bytes)) => {
                        return Err(Error::Internal(format!("{} bytes for a {fixed:?}", bytes.len())));
                    }
                }
                Ok(())
            })?;
        }
        Ok(Bytes::from(row))
    }

    /// The raw bytes of one column of an encoded row. Rows come from [`encode`](Self::encode) or, checksummed, from the
    /// log; [`validate`](Self::validate) has checked the latter.
    #[inline]
    pub(crate) fn value<'a>(&self, row: &'a [u8], column: usize) -> RawValue<'a> {
        if row[column / 8] >> (column % 8) & 1 == 1 {
            return None;
        }
        let layout = &self.columns[column];
        Some(match layout.physical {
            Physical::Variable => {
                let start = layout.previous_variable.map_or(0, |previous| self.variable_end(row, previous));
                &row[self.variable_start + start..self.variable_start + self.variable_end(row, column)]
            }
            fixed => &row[layout.offset..layout.offset + fixed.width()],
        })
    }

    #[inline]
    fn variable_end(&self, row: &[u8], column: usize) -> usize {
        let offset = self.columns[column].offset;
        u32::from_le_bytes(array_of(&row[offset..])) as usize
    }

    /// Checks that a row from outside can be read with this layout without going out of bounds.
    pub(crate) fn validate(&self, row: &[u8]) -> std::result::Result<(), String> {
        if row.len() < self.variable_start {
            return Err(format!(
                "a row of {} bytes, shorter than its fixed part of {}",
                row.len(),
                self.variable_start
            ));
        }
        let mut end = 0;
        for (index, offset, is_text) in &self.variables {
            let next = u32::from_le_bytes(array_of(&row[*offset..])) as usize;
            let text = row[self.variable_start..].get(end..next);
            let text = text.ok_or_else(|| format!("column {index} ends outside its row"))?;
            if *is_text && std::str::from_utf8(text).is_err() {
                return Err(format!("column {index} is not UTF-8"));
            }
            end = next;
        }
        if self.variable_start + end != row.len() {
            return Err(format!("a row of {} bytes that should have {}", row.len(), self.variable_start + end));
        }
        Ok(())
    }

    /// Decodes the chosen columns of rows into a batch.
    pub(crate) fn decode(&self, rows: &[&[u8]], projection: &[usize]) -> Result<RecordBatch> {
        let schema = Arc::new(self.schema.project(projection)?);
        let columns = projection.iter().map(|column| self.decode_column(rows, *column)).collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        Ok(RecordBatch::try_new_with_options(schema, columns, &options)?)
    }

    fn decode_column(&self, rows: &[&[u8]], column: usize) -> Result<ArrayRef> {
        let data_type = self.schema.field(column).data_type();
        let values = rows.iter().map(|row| self.value(row, column));
        let array: ArrayRef = match data_type {
            DataType::Boolean => {
                Arc::new(values.map(|value| value.map(|bytes| bytes[0] != 0)).collect::<BooleanArray>())
            }
            DataType::Int8 => integers::<Int8Type>(values, |bytes| i8::from_le_bytes(array_of(bytes))),
            DataType::Int16 => integers::<Int16Type>(values, |bytes| i16::from_le_bytes(array_of(bytes))),
            DataType::Int32 => integers::<Int32Type>(values, |bytes| i32::from_le_bytes(array_of(bytes))),
            DataType::Date32 => integers::<Date32Type>(values, |bytes| i32::from_le_bytes(array_of(bytes))),
            DataType::Int64 => integers::<Int64Type>(values, read_i64),
            DataType::Time64(TimeUnit::Microsecond) => integers::<Time64MicrosecondType>(values, read_i64),
            DataType::Time64(TimeUnit::Nanosecond) => integers::<Time64NanosecondType>(values, read_i64),
            DataType::Duration(unit) => match unit {
                TimeUnit::Second => integers::<DurationSecondType>(values, read_i64),
                TimeUnit::Millisecond => integers::<DurationMillisecondType>(values, read_i64),
                TimeUnit::Microsecond => integers::<DurationMicrosecondType>(values, read_i64),
                TimeUnit::Nanosecond => integers::<DurationNanosecondType>(values, read_i64),
            },
            DataType::Timestamp(unit, zone) => {
                let zone = zone.clone();
                match unit {
                    TimeUnit::Second => timestamps::<TimestampSecondType>(values, zone),
                    TimeUnit::Millisecond => timestamps::<TimestampMillisecondType>(values, zone),
                    TimeUnit::Microsecond => timestamps::<TimestampMicrosecondType>(values, zone),
                    TimeUnit::Nanosecond => timestamps::<TimestampNanosecondType>(values, zone),
                }
            }
            DataType::UInt8 => integers::<UInt8Type>(values, |bytes| bytes[0]),
            DataType::UInt16 => integers::<UInt16Type>(values, |bytes| u16::from_le_bytes(array_of(bytes))),
            DataType::UInt32 => integers::<UInt32Type>(values, |bytes| u32::from_le_bytes(array_of(bytes))),
            DataType::UInt64 => integers::<UInt64Type>(values, |bytes| u64::from_le_bytes(array_of(bytes))),
            DataType::Float32 => integers::<Float32Type>(values, |bytes| f32::from_le_bytes(array_of(bytes))),
            DataType::Float64 => integers::<Float64Type>(values, |bytes| f64::from_le_bytes(array_of(bytes))),
            DataType::Decimal128(..) => {
                let read: fn(&[u8]) -> i128 = match self.columns[column].physical {
                    Physical::Decimal64 => |bytes| i128::from(read_i64(bytes)),
                    _ => |bytes| i128::from_le_bytes(array_of(bytes)),
                };
                let decimals: PrimitiveArray<Decimal128Type> = values.map(|value| value.map(read)).collect();
                // Of tables of earlier releases not every one is what Arrow takes for a type of decimals.
                Arc::new(decimals.with_data_type(data_type.clone()))
            }
            DataType::Interval(_) => integers::<IntervalMonthDayNanoType>(values, |bytes| {
                IntervalMonthDayNano::new(
                    i32::from_le_bytes(array_of(bytes)),
                    i32::from_le_bytes(array_of(&bytes[4..])),
                    read_i64(&bytes[8..]),
                )
            }),
            DataType::FixedSizeBinary(width) => {
                let mut builder = FixedSizeBinaryBuilder::with_capacity(rows.len(), *width);
                for value in values {
                    match value {
                        Some(bytes) => builder.append_value(bytes)?,
                        None => builder.append_null(),
                    }
                }
                Arc::new(builder.finish())
            }
            DataType::Utf8View => {
                let mut builder = StringViewBuilder::with_capacity(rows.len());
                for value in values {
                    let text = value.map(std::str::from_utf8).transpose();
                    builder.append_option(text.map_err(|error| Error::Internal(format!("a row's text: {error}")))?);
                }
                Arc::new(builder.finish())
            }
            DataType::BinaryView => {
                let mut builder = BinaryViewBuilder::with_capacity(rows.len());
                values.for_each(|value| builder.append_option(value));
                Arc::new(builder.finish())
            }
            other => return Err(Error::Internal(format!("no row layout for {other}"))),
        };
        Ok(array)
    }
}

fn array_of<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[..N]);
    array
}

fn read_i64(bytes: &[u8]) -> i64 {
    i64::from_le_bytes(array_of(bytes))
}

fn integers<'a, T: ArrowPrimitiveType>(
    values: impl Iterator<Item = RawValue<'a>>,
    read: impl Fn(&[u8]) -> T::Native,
) -> ArrayRef {
    Arc::new(values.map(|value| value.map(&read)).collect::<PrimitiveArray<T>>())
}

fn timestamps<'a, T: arrow::array::types::ArrowTimestampType>(
    values: impl Iterator<Item = RawValue<'a>>,
    zone: Option<Arc<str>>,
) -> ArrayRef {
    let array: PrimitiveArray<T> = values.map(|value| value.map(read_i64)).collect();
    Arc::new(array.with_timezone_opt(zone))
}

/// Writes the values of a column into the rows' fixed sections, or appends them to the variable ones.
fn encode_column(layout: &ColumnLayout, variable_start: usize, array: &ArrayRef, rows: &mut [Vec<u8>]) -> Result<()> {
    macro_rules! primitive {
        ($type:ty) => {{
            let values = array.as_primitive::<$type>();
            for (row, bytes) in rows.iter_mut().enumerate() {
                if values.is_valid(row) {
                    let value = values.value(row).to_le_bytes();
                    bytes[layout.offset..layout.offset + value.len()].copy_from_slice(&value);
                }
            }
        }};
    }
    match array.data_type() {
        DataType::Boolean => {
            let values = array.as_boolean();
            for (row, bytes) in rows.iter_mut().enumerate() {
                bytes[layout.offset] = u8::from(values.is_valid(row) && values.value(row));
            }
        }
        DataType::Int8 => primitive!(Int8Type),
        DataType::Int16 => primitive!(Int16Type),
        DataType::Int32 => primitive!(Int32Type),
        DataType::Date32 => primitive!(Date32Type),
        DataType::Int64 => primitive!(Int64Type),
        DataType::Time64(TimeUnit::Microsecond) => primitive!(Time64MicrosecondType),
        DataType::Time64(TimeUnit::Nanosecond) => primitive!(Time64NanosecondType),
        DataType::Duration(TimeUnit::Second) => primitive!(DurationSecondType),
        DataType::Duration(TimeUnit::Millisecond) => primitive!(DurationMillisecondType),
        DataType::Duration(TimeUnit::Microsecond) => primitive!(DurationMicrosecondType),
        DataType::Duration(TimeUnit::Nanosecond) => primitive!(DurationNanosecondType),
        DataType::Timestamp(TimeUnit::Second, _) => primitive!(TimestampSecondType),
        DataType::Timestamp(TimeUnit::Millisecond, _) => primitive!(TimestampMillisecondType),
        DataType::Timestamp(TimeUnit::Microsecond, _) => primitive!(TimestampMicrosecondType),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => primitive!(TimestampNanosecondType),
        DataType::UInt8 => primitive!(UInt8Type),
        DataType::UInt16 => primitive!(UInt16Type),
        DataType::UInt32 => primitive!(UInt32Type),
        DataType::UInt64 => primitive!(UInt64Type),
        DataType::Float32 => primitive!(Float32Type),
        DataType::Float64 => primitive!(Float64Type),
        DataType::Decimal128(_, _) => {
            let values = array.as_primitive::<Decimal128Type>();
            let width = layout.physical.width();
            for (row, bytes) in rows.iter_mut().enumerate() {
                if values.is_valid(row) {
                    let value = values.value(row);
                    if width == 8 && i64::try_from(value).is_err() {
                        return Err(Error::Internal(format!("decimal {value} exceeds its column's precision")));
                    }
                    bytes[layout.offset..layout.offset + width].copy_from_slice(&value.to_le_bytes()[..width]);
                }
            }
        }
        DataType::Interval(_) => {
            let values = array.as_primitive::<IntervalMonthDayNanoType>();
            for (row, bytes) in rows.iter_mut().enumerate() {
                if values.is_valid(row) {
                    let value = values.value(row);
                    let target = &mut bytes[layout.offset..];
                    target[..4].copy_from_slice(&value.months.to_le_bytes());
                    target[4..8].copy_from_slice(&value.days.to_le_bytes());
                    target[8..16].copy_from_slice(&value.nanoseconds.to_le_bytes());
                }
            }
        }
        DataType::FixedSizeBinary(_) => {
            let values = array.as_fixed_size_binary();
            for (row, bytes) in rows.iter_mut().enumerate() {
                if values.is_valid(row) {
                    let value = values.value(row);
                    bytes[layout.offset..layout.offset + value.len()].copy_from_slice(value);
                }
            }
        }
        DataType::Utf8View => {
            let values = array.as_string_view();
            append_variable(layout, variable_start, rows, |row| {
                values.is_valid(row).then(|| values.value(row).as_bytes())
            })?;
        }
        DataType::BinaryView => {
            let values = array.as_binary_view();
            append_variable(layout, variable_start, rows, |row| values.is_valid(row).then(|| values.value(row)))?;
        }
        other => return Err(Error::Internal(format!("no row layout for {other}"))),
    }
    Ok(())
}

fn variable_end(bytes: usize) -> Result<u32> {
    u32::try_from(bytes).map_err(|_| Error::Unsupported("a row of more than 4 GiB".into()))
}

fn append_variable<'a>(
    layout: &ColumnLayout,
    variable_start: usize,
    rows: &mut [Vec<u8>],
    value: impl Fn(usize) -> RawValue<'a>,
) -> Result<()> {
    for (row, bytes) in rows.iter_mut().enumerate() {
        bytes.extend_from_slice(value(row).unwrap_or_default());
        let end = variable_end(bytes.len() - variable_start)?;
        bytes[layout.offset..layout.offset + 4].copy_from_slice(&end.to_le_bytes());
    }
    Ok(())
}
