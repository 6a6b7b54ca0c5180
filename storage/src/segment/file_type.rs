//! The types of columns in a file, where Parquet has no such type: an interval of months, days and nanoseconds lies there as
//! its 16 bytes (months, days: 4 each; nanoseconds: 8; little-endian), a `FixedSizeBinary` to other tools. Parquet's own
//! interval counts milliseconds. Earlier releases have made columns of decimals whose last digit stands before the point, or that
//! have more digits behind it than they have at all, and of bytes of which there are none: they lie there as whole numbers of the
//! same digits, and as bytes of any length.
//!
//! Decimals of up to 18 digits lie in a file as integers of 32 or 64 bits. They are read as such ([`narrow_type`]): twice the
//! bytes for each of them, to be encoded in half of that a moment later, would cost more than decoding them.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryViewArray, FixedSizeBinaryBuilder, make_array};
use arrow::datatypes::{DataType, Decimal64Type, Decimal128Type, Field, IntervalUnit, Schema, SchemaRef};

use crate::encoding::DECIMAL64_PRECISION;
use crate::error::Result;

/// Bytes of an interval.
const INTERVAL_BYTES: i32 = 16;

const INTERVAL: DataType = DataType::Interval(IntervalUnit::MonthDayNano);

/// The type that a column has in a file.
pub(super) fn file_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Interval(_) => DataType::FixedSizeBinary(INTERVAL_BYTES),
        DataType::Decimal128(precision, scale) if !u8::try_from(*scale).is_ok_and(|behind| behind <= *precision) => {
            DataType::Decimal128(*precision, 0)
        }
        DataType::FixedSizeBinary(0) => DataType::BinaryView,
        other => other.clone(),
    }
}

/// Whether files have columns of this type as they are.
pub(super) fn is_file_type(data_type: &DataType) -> bool {
    file_type(data_type) == *data_type
}

/// The type that a column of a file is read as.
pub(super) fn narrow_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Decimal128(precision, scale) if *precision <= DECIMAL64_PRECISION => {
            DataType::Decimal64(*precision, *scale)
        }
        other => other.clone(),
    }
}

/// The schema that a file is read with.
pub(super) fn narrow_schema(schema: &Schema) -> SchemaRef {
    let narrow = |field: &Arc<Field>| field.as_ref().clone().with_data_type(narrow_type(field.data_type()));
    Arc::new(
        Schema::new(schema.fields().iter().map(narrow).collect::<Vec<_>>()).with_metadata(schema.metadata().clone()),
    )
}

/// Values that were read, in their column's own type.
pub(super) fn widen(values: ArrayRef, data_type: &DataType) -> ArrayRef {
    match values.as_primitive_opt::<Decimal64Type>() {
        Some(narrow) => {
            let wide = narrow.unary::<_, Decimal128Type>(i128::from);
            Arc::new(wide.with_data_type(data_type.clone()))
        }
        None => values,
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
    let data_type = values.data_type();
    match data_type {
        DataType::Decimal128(..) | DataType::FixedSizeBinary(0) if !is_file_type(data_type) => {
            with_digits_or_nothing(values, &file_type(data_type))
        }
        _ => with_type(values, &INTERVAL, DataType::FixedSizeBinary(INTERVAL_BYTES)),
    }
}

/// Values read from a file as those of a column of `data_type`.
pub(super) fn from_file(values: &ArrayRef, data_type: &DataType) -> Result<ArrayRef> {
    match data_type {
        DataType::Interval(_) => with_type(values, &DataType::FixedSizeBinary(INTERVAL_BYTES), INTERVAL),
        DataType::Decimal128(..) | DataType::FixedSizeBinary(0) if !is_file_type(data_type) => {
            with_digits_or_nothing(values, data_type)
        }
        _ => Ok(Arc::clone(values)),
    }
}

/// Decimals as others with the same digits, and bytes of which there are none as others.
fn with_digits_or_nothing(values: &ArrayRef, wanted: &DataType) -> Result<ArrayRef> {
    let array: ArrayRef = match (values.data_type(), wanted) {
        (DataType::Decimal64(..), DataType::Decimal128(precision, _)) if *precision <= DECIMAL64_PRECISION => {
            Arc::new(values.as_primitive::<Decimal64Type>().clone().with_data_type(narrow_type(wanted)))
        }
        (DataType::Decimal128(..), DataType::Decimal128(..)) => {
            Arc::new(values.as_primitive::<Decimal128Type>().clone().with_data_type(wanted.clone()))
        }
        (DataType::FixedSizeBinary(0), DataType::BinaryView) => {
            let nothing = |row: usize| values.is_valid(row).then_some(b"".as_slice());
            Arc::new((0..values.len()).map(nothing).collect::<BinaryViewArray>())
        }
        (DataType::BinaryView, DataType::FixedSizeBinary(0)) => {
            let mut builder = FixedSizeBinaryBuilder::with_capacity(values.len(), 0);
            for row in 0..values.len() {
                match values.is_valid(row) {
                    true => builder.append_value(b"")?,
                    false => builder.append_null(),
                }
            }
            Arc::new(builder.finish())
        }
        _ => Arc::clone(values),
    };
    Ok(array)
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
    fn small_decimals_come_back_from_their_narrow_form() {
        let wide: ArrayRef = Arc::new(
            arrow::array::Decimal128Array::from(vec![Some(-5), None, Some(i128::from(i64::MAX) / 10)])
                .with_precision_and_scale(18, 2)
                .unwrap(),
        );
        let narrow: ArrayRef = Arc::new(
            arrow::array::Decimal64Array::from(vec![Some(-5), None, Some(i64::MAX / 10)])
                .with_precision_and_scale(18, 2)
                .unwrap(),
        );
        assert_eq!(&narrow_type(wide.data_type()), narrow.data_type());
        assert_eq!(&widen(narrow, wide.data_type()), &wide);
        assert!(Arc::ptr_eq(&widen(Arc::clone(&wide), wide.data_type()), &wide));
        assert_eq!(narrow_type(&DataType::Decimal128(19, 2)), DataType::Decimal128(19, 2));
    }

    #[test]
    fn types_that_no_file_has_come_back_from_one() {
        let numbers = || arrow::array::Decimal128Array::from(vec![Some(12), None, Some(-7)]);
        for (precision, scale) in [(5, -2), (38, -3), (2, 5), (20, 30)] {
            let wanted = DataType::Decimal128(precision, scale);
            let values: ArrayRef = Arc::new(numbers().with_data_type(wanted.clone()));
            assert_eq!(file_type(&wanted), DataType::Decimal128(precision, 0));
            let stored = to_file(&values).unwrap();
            assert_eq!(stored.data_type(), &DataType::Decimal128(precision, 0));
            let read = arrow::compute::cast(&stored, &narrow_type(stored.data_type())).unwrap();
            let read = from_file(&read, &wanted).unwrap();
            assert_eq!(read.data_type(), &narrow_type(&wanted));
            assert_eq!(&widen(read, &wanted), &values);
        }
        let mut nothing = FixedSizeBinaryBuilder::with_capacity(2, 0);
        nothing.append_value(b"").unwrap();
        nothing.append_null();
        let values: ArrayRef = Arc::new(nothing.finish());
        let stored = to_file(&values).unwrap();
        assert_eq!(stored.data_type(), &file_type(values.data_type()));
        let read = from_file(&stored, values.data_type()).unwrap();
        assert_eq!((read.data_type(), read.len(), read.null_count()), (values.data_type(), 2, 1));
        assert!(read.is_null(1));
        assert!(
            [DataType::Decimal128(5, 0), DataType::Decimal128(5, 5), DataType::FixedSizeBinary(1)]
                .iter()
                .all(is_file_type)
        );
    }

    #[test]
    fn other_types_stay_as_they_are() {
        let numbers: ArrayRef = Arc::new(arrow::array::Int32Array::from(vec![1, 2]));
        assert!(Arc::ptr_eq(&to_file(&numbers).unwrap(), &numbers));
        assert_eq!(file_type(&DataType::Int32), DataType::Int32);
    }
}
