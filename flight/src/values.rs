//! Numbers that their own types cannot have.
//!
//! Arrow's decoder looks at texts and at offsets, not at numbers: a decimal of three digits that is 12345.6 passes, and so does
//! 25 o'clock. Tables would keep them, and show them as something else. So they are refused before anybody uses them.
//!
//! What is inside of lists, structs and maps is not looked at: tables do not hold these.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, DecimalType,
    Time32MillisecondType, Time32SecondType, Time64MicrosecondType, Time64NanosecondType, TimeUnit,
};
use arrow::record_batch::RecordBatch;
use tonic::Status;

use crate::status::refuse;

const DAY_SECONDS: i32 = 24 * 60 * 60;
const DAY_MILLISECONDS: i32 = 1_000 * DAY_SECONDS;
const DAY_MICROSECONDS: i64 = 24 * 60 * 60 * 1_000_000;
const DAY_NANOSECONDS: i64 = 1_000 * DAY_MICROSECONDS;

/// Refuses rows with such a value.
pub(crate) fn check(rows: &RecordBatch) -> Result<(), Status> {
    for (field, column) in rows.schema_ref().fields().iter().zip(rows.columns()) {
        if !fits(column) {
            let name: String = field.name().chars().take(80).collect();
            let sqlstate = if is_time(field.data_type()) { "22008" } else { "22003" };
            let message = format!("column \"{name}\" has a value out of the range of its type {}", field.data_type());
            return Err(refuse(sqlstate, message).into());
        }
    }
    Ok(())
}

fn fits(column: &ArrayRef) -> bool {
    match column.data_type() {
        DataType::Decimal32(precision, _) => decimals_fit::<Decimal32Type>(column, *precision),
        DataType::Decimal64(precision, _) => decimals_fit::<Decimal64Type>(column, *precision),
        DataType::Decimal128(precision, _) => decimals_fit::<Decimal128Type>(column, *precision),
        DataType::Decimal256(precision, _) => decimals_fit::<Decimal256Type>(column, *precision),
        DataType::Time32(TimeUnit::Second) => {
            all::<Time32SecondType>(column, |value| (0..DAY_SECONDS).contains(&value))
        }
        DataType::Time32(TimeUnit::Millisecond) => {
            all::<Time32MillisecondType>(column, |value| (0..DAY_MILLISECONDS).contains(&value))
        }
        DataType::Time64(TimeUnit::Microsecond) => {
            all::<Time64MicrosecondType>(column, |value| (0..DAY_MICROSECONDS).contains(&value))
        }
        DataType::Time64(TimeUnit::Nanosecond) => {
            all::<Time64NanosecondType>(column, |value| (0..DAY_NANOSECONDS).contains(&value))
        }
        DataType::Dictionary(_, _) => column.as_any_dictionary_opt().is_none_or(|dictionary| fits(dictionary.values())),
        DataType::RunEndEncoded(_, _) => column.as_any_ree_opt().is_none_or(|runs| fits(runs.values())),
        _ => true,
    }
}

fn decimals_fit<T: DecimalType>(column: &ArrayRef, precision: u8) -> bool {
    all::<T>(column, |value| T::is_valid_decimal_precision(value, precision))
}

/// Whether this holds for all values but NULLs, under which anything may lie.
fn all<T: ArrowPrimitiveType>(column: &ArrayRef, holds: impl Fn(T::Native) -> bool) -> bool {
    let column = column.as_primitive::<T>();
    match column.null_count() {
        0 => column.values().iter().all(|value| holds(*value)),
        _ => column.iter().flatten().all(holds),
    }
}

fn is_time(data_type: &DataType) -> bool {
    match data_type {
        DataType::Time32(_) | DataType::Time64(_) => true,
        DataType::Dictionary(_, values) => is_time(values),
        DataType::RunEndEncoded(_, values) => is_time(values.data_type()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        Decimal128Array, DictionaryArray, Int8Array, Int64Array, Time32SecondArray, Time64MicrosecondArray,
        Time64NanosecondArray,
    };
    use arrow::datatypes::Int8Type;

    use super::*;

    fn decimals(values: Vec<Option<i128>>, precision: u8, scale: i8) -> Decimal128Array {
        Decimal128Array::from(values).with_precision_and_scale(precision, scale).expect("a type")
    }

    fn dictionary(values: ArrayRef) -> DictionaryArray<Int8Type> {
        DictionaryArray::try_new(Int8Array::from(vec![0]), values).expect("a dictionary")
    }

    fn outcome(column: impl Array + 'static) -> Result<(), Status> {
        check(&RecordBatch::try_from_iter([("a", Arc::new(column) as ArrayRef)]).expect("a column"))
    }

    #[test]
    fn what_a_type_can_have_passes() {
        assert!(outcome(decimals(vec![Some(999), Some(-999), None, Some(0)], 3, 1)).is_ok());
        assert!(outcome(decimals(vec![Some(99_999)], 5, -2)).is_ok());
        assert!(outcome(Time32SecondArray::from(vec![0, DAY_SECONDS - 1])).is_ok());
        assert!(outcome(Time64NanosecondArray::from(vec![Some(DAY_NANOSECONDS - 1), None])).is_ok());
        assert!(outcome(Int64Array::from(vec![i64::MIN, i64::MAX])).is_ok());
    }

    #[test]
    fn what_it_cannot_have_is_refused_by_name() {
        for (refused, sqlstate) in [
            (outcome(decimals(vec![Some(1_000)], 3, 1)), "22003"),
            (outcome(decimals(vec![None, Some(-1_000)], 3, 1)), "22003"),
            (outcome(dictionary(Arc::new(decimals(vec![Some(1_000)], 3, 1)))), "22003"),
            (outcome(Time32SecondArray::from(vec![DAY_SECONDS])), "22008"),
            (outcome(Time64MicrosecondArray::from(vec![-1])), "22008"),
            (outcome(dictionary(Arc::new(Time64NanosecondArray::from(vec![DAY_NANOSECONDS])))), "22008"),
        ] {
            let status = refused.expect_err("refused");
            assert!(status.message().starts_with(&format!("[{sqlstate}] column \"a\" has a value")), "{status:?}");
        }
    }
}
