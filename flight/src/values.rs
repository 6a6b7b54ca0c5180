//! Numbers that their own types cannot have.
//!
//! Arrow's decoder looks at texts and at offsets, not at numbers: a decimal of three digits that is 12345.6 passes, and so do
//! 25 o'clock and the year 300000, which is in no calendar here. Tables would keep them, and show them as something else or
//! not at all: their text is an error, their year NULL. So they are refused before anybody uses them.
//!
//! What is inside of lists, structs and maps is not looked at: tables do not hold these.

use std::ops::Range;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Date64Type, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type,
    DecimalType, Time32MillisecondType, Time32SecondType, Time64MicrosecondType, Time64NanosecondType, TimeUnit,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampSecondType,
};
use arrow::record_batch::RecordBatch;
use tonic::Status;

use crate::status::refuse;

const DAY_SECONDS: i32 = 24 * 60 * 60;
const DAY_MILLISECONDS: i32 = 1_000 * DAY_SECONDS;
const DAY_MICROSECONDS: i64 = 24 * 60 * 60 * 1_000_000;
const DAY_NANOSECONDS: i64 = 1_000 * DAY_MICROSECONDS;

/// The days of the calendar by which dates are shown and taken apart, counted from 1970: from January 1, 262144 BC, to
/// December 31, 262142.
const CALENDAR_DAYS: Range<i32> = -96_465_292..95_026_237;

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
        DataType::Date32 => all::<Date32Type>(column, |day| CALENDAR_DAYS.contains(&day)),
        DataType::Date64 => all::<Date64Type>(column, |moment| moments(1_000).contains(&moment)),
        DataType::Timestamp(TimeUnit::Second, _) => {
            all::<TimestampSecondType>(column, |moment| moments(1).contains(&moment))
        }
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            all::<TimestampMillisecondType>(column, |moment| moments(1_000).contains(&moment))
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            all::<TimestampMicrosecondType>(column, |moment| moments(1_000_000).contains(&moment))
        }
        // All nanoseconds that 64 bits can count are in a few centuries.
        DataType::Timestamp(TimeUnit::Nanosecond, _) => true,
        DataType::Dictionary(_, _) => column.as_any_dictionary_opt().is_none_or(|dictionary| fits(dictionary.values())),
        DataType::RunEndEncoded(_, _) => column.as_any_ree_opt().is_none_or(|runs| fits(runs.values())),
        _ => true,
    }
}

fn decimals_fit<T: DecimalType>(column: &ArrayRef, precision: u8) -> bool {
    all::<T>(column, |value| T::is_valid_decimal_precision(value, precision))
}

/// The moments of the calendar, where a second has so many.
fn moments(per_second: i64) -> Range<i64> {
    let of_day = i64::from(DAY_SECONDS) * per_second;
    i64::from(CALENDAR_DAYS.start) * of_day..i64::from(CALENDAR_DAYS.end) * of_day
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
        DataType::Date32 | DataType::Date64 | DataType::Timestamp(_, _) => true,
        DataType::Dictionary(_, values) => is_time(values),
        DataType::RunEndEncoded(_, values) => is_time(values.data_type()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        Date32Array, Date64Array, Decimal128Array, DictionaryArray, Int8Array, Int64Array, Time32SecondArray,
        Time64MicrosecondArray, Time64NanosecondArray, TimestampMicrosecondArray, TimestampMillisecondArray,
        TimestampNanosecondArray, TimestampSecondArray,
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
        assert!(outcome(Date32Array::from(vec![Some(CALENDAR_DAYS.start), None, Some(CALENDAR_DAYS.end - 1)])).is_ok());
        let (seconds, milliseconds, microseconds) = (moments(1), moments(1_000), moments(1_000_000));
        assert!(outcome(Date64Array::from(vec![milliseconds.start, milliseconds.end - 1])).is_ok());
        assert!(outcome(TimestampSecondArray::from(vec![seconds.start, seconds.end - 1])).is_ok());
        assert!(outcome(TimestampMillisecondArray::from(vec![milliseconds.start, milliseconds.end - 1])).is_ok());
        assert!(outcome(TimestampMicrosecondArray::from(vec![microseconds.start, microseconds.end - 1])).is_ok());
        assert!(outcome(TimestampNanosecondArray::from(vec![i64::MIN, i64::MAX])).is_ok());
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
            (outcome(Date32Array::from(vec![CALENDAR_DAYS.end])), "22008"),
            (outcome(Date32Array::from(vec![i32::MIN])), "22008"),
            (outcome(dictionary(Arc::new(Date32Array::from(vec![CALENDAR_DAYS.start - 1])))), "22008"),
            (outcome(Date64Array::from(vec![moments(1_000).end])), "22008"),
            (outcome(TimestampSecondArray::from(vec![moments(1).end])), "22008"),
            (outcome(TimestampMillisecondArray::from(vec![moments(1_000).start - 1])), "22008"),
            (outcome(TimestampMicrosecondArray::from(vec![i64::MAX]).with_timezone("UTC")), "22008"),
        ] {
            let status = refused.expect_err("refused");
            assert!(status.message().starts_with(&format!("[{sqlstate}] column \"a\" has a value")), "{status:?}");
        }
    }
}
