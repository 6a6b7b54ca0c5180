//! The types of columns in a file, where Parquet has no such type: an interval of months, days and nanoseconds lies there as
//! its 16 bytes (months, days: 4 each; nanoseconds: 8; little-endian), a `FixedSizeBinary` to other tools. Parquet's own
//! interval counts milliseconds.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, make_array};
use arrow::datatypes::{DataType, Field, IntervalUnit, Schema, SchemaRef};

use crate::error::Result;

/// Bytes of an interval.
const INTERVAL_BYTES: i32 = 16;

const INTERVAL: DataType = DataType::Interval(IntervalUnit::MonthDayNano);

/// The type that a column has in a file.
pub(super) fn file_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Interval(_) => DataType::FixedSizeBinary(INTERVAL_BYTES),
        other => other.clone(),
    }
}

/// A column as it lies in a file.
pub(super) fn file_field(field: &Field) -> Field {
    field.clone().with_data_type(file_type(field.data_type()))
}

/// The schema of a file.
pub(super) fn file_schema(schema: &Schema) -> SchemaRef {
    let fields: Vec<Field> = schema.fields().iter().map(|field| file_field(field)).collect();
    Arc::new(Schema::new(fields))
}

/// Values of a column as they lie in a file.
pub(super) fn to_file(values: &ArrayRef) -> Result<ArrayRef> {
    with_type(values, &INTERVAL, DataType::FixedSizeBinary(INTERVAL_BYTES))
}

/// Values read from a file as those of a column of `data_type`.
pub(super) fn from_file(values: &ArrayRef, data_type: &DataType) -> Result<ArrayRef> {
    match data_type {
        DataType::Interval(_) => with_type(values, &DataType::FixedSizeBinary(INTERVAL_BYTES), INTERVAL),
        _ => Ok(Arc::clone(values)),
    }
}

/// The same bytes as values of another type, if they are of type `from`.
fn with_type(values: &ArrayRef, from: &DataType, to: DataType) -> Result<ArrayRef> {
    if values.data_type() != from {
        return Ok(Arc::clone(values));
    }
    Ok(make_array(values.to_data().into_builder().data_type(to).align_buffers(true).build()?))
}

#[cfg(test)]
mod tests {
    use arrow::array::IntervalMonthDayNanoArray;
    use arrow::datatypes::IntervalMonthDayNano;

    use super::*;

    #[test]
    fn intervals_come_back_from_a_file() {
        let edges = [
            Some(IntervalMonthDayNano::new(i32::MIN, i32::MAX, i64::MIN)),
            None,
            Some(IntervalMonthDayNano::new(1, -2, 3)),
            Some(IntervalMonthDayNano::ZERO),
        ];
        let whole: ArrayRef = Arc::new(IntervalMonthDayNanoArray::from(edges.to_vec()));
        for values in [Arc::clone(&whole), whole.slice(1, 2), whole.slice(4, 0)] {
            let stored = to_file(&values).unwrap();
            assert_eq!(stored.data_type(), &file_type(&INTERVAL));
            assert_eq!(&from_file(&stored, &INTERVAL).unwrap(), &values);
        }
    }

    #[test]
    fn other_types_stay_as_they_are() {
        let numbers: ArrayRef = Arc::new(arrow::array::Int32Array::from(vec![1, 2]));
        assert!(Arc::ptr_eq(&to_file(&numbers).unwrap(), &numbers));
        assert_eq!(file_type(&DataType::Int32), DataType::Int32);
    }
}
