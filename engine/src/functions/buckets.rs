//! `width_bucket`: which bucket of a histogram a value falls into.
//!
//! | call | the buckets |
//! |---|---|
//! | `width_bucket(x, low, high, count)` | so many of the same width from low to high; 0 is before them, count + 1 behind |
//! | `width_bucket(x, thresholds)` | those that begin at the elements of a sorted array; 0 is before the first |

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::{DataType, Field, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{ScalarUDF, Volatility};

use super::by_rows::{ByRows, float_of, integer_of, is_text};
use super::several::elements_of;
use crate::error::sqlstate;
use crate::{Error, Result};

/// The functions of this file.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    let width_bucket = ByRows {
        name: "width_bucket",
        volatility: Volatility::Immutable,
        strict: true,
        takes: arguments,
        gives: |_| DataType::Int32,
        compute: |values| match values {
            [value, thresholds] => among_thresholds(value, thresholds),
            values => of_same_width(values),
        },
    };
    vec![width_bucket.function()]
}

fn arguments(types: &[DataType]) -> Option<Vec<DataType>> {
    match types {
        [value, DataType::List(thresholds)] => {
            let common = common_type(value, thresholds.data_type())?;
            Some(vec![common.clone(), DataType::List(Arc::new(Field::new_list_field(common, true)))])
        }
        [_, _, _, _] if types.iter().all(|data_type| data_type.is_numeric() || data_type.is_null()) => {
            Some(vec![DataType::Float64, DataType::Float64, DataType::Float64, DataType::Int64])
        }
        _ => None,
    }
}

/// The type in which a value and a threshold are compared; `None`: there is none.
fn common_type(value: &DataType, threshold: &DataType) -> Option<DataType> {
    use DataType::{Date32, Decimal128, Float64, Int64, Timestamp, Utf8View};
    let digits = |data_type: &DataType| match data_type {
        Decimal128(_, scale) => Some(*scale),
        other => other.is_integer().then_some(0),
    };
    Some(match (value, threshold) {
        (same, other) if same == other && !same.is_nested() => same.clone(),
        (known, other) | (other, known) if other.is_null() && !known.is_nested() => known.clone(),
        (one, other) if one.is_integer() && other.is_integer() => Int64,
        (one, other) if one.is_numeric() && other.is_numeric() => match (digits(one), digits(other)) {
            (Some(one), Some(other)) => Decimal128(38, one.max(other)),
            _ => Float64,
        },
        (one, other) if is_text(one) && is_text(other) => Utf8View,
        (Timestamp(_, zone), Timestamp(..) | Date32) | (Date32, Timestamp(_, zone)) => {
            Timestamp(TimeUnit::Microsecond, zone.clone())
        }
        // A constant that is read as what it is compared with.
        (text, known) if text.is_string() && !known.is_nested() => known.clone(),
        _ => return None,
    })
}

fn among_thresholds(value: &ScalarValue, thresholds: &ScalarValue) -> Result<ScalarValue> {
    let thresholds: ArrayRef = elements_of(thresholds)?;
    if thresholds.null_count() > 0 {
        let message = "thresholds array must not contain NULLs";
        return Err(Error::new(sqlstate::NULL_NOT_ALLOWED, message));
    }
    // Those up to the value are in front of the others.
    let (mut first, mut last) = (0, thresholds.len());
    while first < last {
        let middle = first.midpoint(last);
        let threshold = ScalarValue::try_from_array(&thresholds, middle)?;
        match compared(value, &threshold)? {
            Ordering::Less => last = middle,
            Ordering::Equal | Ordering::Greater => first = middle + 1,
        }
    }
    let bucket = i32::try_from(first).map_err(|_| Error::internal("an array is too long"))?;
    Ok(ScalarValue::Int32(Some(bucket)))
}

/// NaN is greater than all other floats.
fn compared(value: &ScalarValue, threshold: &ScalarValue) -> Result<Ordering> {
    match (value, threshold) {
        (ScalarValue::Float64(Some(value)), ScalarValue::Float64(Some(threshold))) => {
            Ok(value.partial_cmp(threshold).unwrap_or_else(|| value.is_nan().cmp(&threshold.is_nan())))
        }
        (value, threshold) => {
            value.partial_cmp(threshold).ok_or_else(|| Error::internal("a value and a threshold have different types"))
        }
    }
}

fn of_same_width(values: &[ScalarValue]) -> Result<ScalarValue> {
    let (x, low, high) = (float_of(&values[0])?, float_of(&values[1])?, float_of(&values[2])?);
    let count = integer_of(&values[3])?;
    let wrong = |message: &str| Err(Error::new(sqlstate::INVALID_WIDTH_BUCKET, message));
    let Some(last) = i32::try_from(count).ok().filter(|count| *count > 0 && *count < i32::MAX) else {
        return wrong("count must be greater than zero");
    };
    if x.is_nan() || low.is_nan() || high.is_nan() {
        return wrong("operand, lower bound, and upper bound cannot be NaN");
    }
    if low == high || low.is_infinite() || high.is_infinite() {
        return wrong("lower bound and upper bound must be finite, and cannot equal each other");
    }
    let (before, after) = if low < high { (x < low, x >= high) } else { (x > low, x <= high) };
    Ok(ScalarValue::Int32(Some(match (before, after) {
        (true, _) => 0,
        (_, true) => last + 1,
        _ => (((x - low) / (high - low) * f64::from(last)).floor() as i32).min(last - 1) + 1,
    })))
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Builder, ListBuilder};

    use super::*;

    fn bucket(value: f64, thresholds: &[f64]) -> ScalarValue {
        let mut builder = ListBuilder::new(Float64Builder::new());
        builder.append_value(thresholds.iter().copied().map(Some));
        let thresholds = ScalarValue::List(Arc::new(builder.finish()));
        among_thresholds(&ScalarValue::Float64(Some(value)), &thresholds).unwrap()
    }

    #[test]
    fn a_bucket_begins_at_its_threshold() {
        for (value, thresholds, expected) in [
            (5.0, &[1.0, 3.0, 5.0, 10.0][..], 3),
            (0.5, &[1.0, 3.0][..], 0),
            (3.0, &[1.0, 3.0][..], 2),
            (f64::NAN, &[1.0, 3.0][..], 2),
            (1.0, &[1.0, 1.0, 1.0][..], 3),
        ] {
            assert_eq!(bucket(value, thresholds), ScalarValue::Int32(Some(expected)), "{value} {thresholds:?}");
        }
        assert_eq!(bucket(9.0, &[]), ScalarValue::Int32(Some(0)));
    }

    #[test]
    fn values_and_thresholds_have_one_type() {
        use DataType::{Decimal128, Float64, Int32, Int64, Utf8, Utf8View};
        for (value, threshold, expected) in [
            (Int32, Int64, Some(Int64)),
            (Int64, Decimal128(5, 2), Some(Decimal128(38, 2))),
            (Decimal128(5, 2), Float64, Some(Float64)),
            (Utf8, Utf8View, Some(Utf8View)),
            (Utf8, Int32, Some(Int32)),
            (Int32, Utf8, None),
        ] {
            assert_eq!(common_type(&value, &threshold), expected, "{value} {threshold}");
        }
    }
}
