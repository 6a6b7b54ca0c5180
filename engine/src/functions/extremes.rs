//! `greatest` and `least` of intervals and of arrays, and `nullif` of intervals, which compare as PostgreSQL does. The rules
//! [`IntervalOrder`](crate::sql::rules::interval_order) and [`ArrayOrder`](crate::sql::rules::array_order) call them.
//!
//! A CASE would name its arguments several times, and so would grow with each call in a call.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, IntervalMonthDayNanoArray};
use arrow::compute::interleave;
use arrow::datatypes::{DataType, IntervalMonthDayNanoType, IntervalUnit};
use datafusion::logical_expr::{Expr, ScalarUDF};

use super::array_order::keys_of;
use super::by_columns::{ByColumns, Nulls};
use crate::sql::rules::interval_math::order;
use crate::{Error, Result};

const INTERVAL: DataType = DataType::Interval(IntervalUnit::MonthDayNano);

/// Of intervals; the first of several that are equal.
const GREATEST_INTERVAL: ByColumns = ByColumns {
    name: "greatest_interval",
    takes: |types| (!types.is_empty()).then(|| vec![INTERVAL; types.len()]),
    gives: |_| INTERVAL,
    nulls: Nulls::IfAllArgumentsAre,
    compute: |columns| extreme_interval(columns, |new, known| new > known),
};

/// Of arrays.
const GREATEST_ARRAY: ByColumns = ByColumns {
    name: "greatest_array",
    takes: |types| {
        let array = types.iter().find(|data_type| matches!(data_type, DataType::List(_)))?;
        Some(vec![array.clone(); types.len()])
    },
    gives: |types| types.first().cloned().unwrap_or(DataType::Null),
    nulls: Nulls::IfAllArgumentsAre,
    compute: |columns| extreme_array(columns, |new, known| new > known),
};

static OF_INTERVALS: LazyLock<[Arc<ScalarUDF>; 3]> = LazyLock::new(|| {
    let least: ByColumns = ByColumns {
        name: "least_interval",
        compute: |columns| extreme_interval(columns, |new, known| new < known),
        ..GREATEST_INTERVAL
    };
    let null_if =
        ByColumns { name: "nullif_interval", nulls: Nulls::Anywhere, compute: null_if_equal, ..GREATEST_INTERVAL };
    [GREATEST_INTERVAL.function(), least.function(), null_if.function()]
});

static OF_ARRAYS: LazyLock<[Arc<ScalarUDF>; 2]> = LazyLock::new(|| {
    let least = ByColumns {
        name: "least_array",
        compute: |columns| extreme_array(columns, |new, known| new < known),
        ..GREATEST_ARRAY
    };
    [GREATEST_ARRAY.function(), least.function()]
});

/// `greatest`, `least` or `nullif` of intervals; NULLs are passed over, but for nullif.
pub(crate) fn of_intervals(name: &str, arguments: Vec<Expr>) -> Expr {
    let [greatest, least, null_if] = &*OF_INTERVALS;
    match name {
        "greatest" => greatest.call(arguments),
        "least" => least.call(arguments),
        _ => null_if.call(arguments),
    }
}

/// `greatest` or `least` of arrays; NULLs are passed over.
pub(crate) fn of_arrays(is_greatest: bool, arguments: Vec<Expr>) -> Expr {
    let [greatest, least] = &*OF_ARRAYS;
    if is_greatest { greatest.call(arguments) } else { least.call(arguments) }
}

fn extreme_interval(columns: &[ArrayRef], is_better: fn(i128, i128) -> bool) -> Result<ArrayRef> {
    let columns: Vec<&IntervalMonthDayNanoArray> =
        columns.iter().map(|column| column.as_primitive::<IntervalMonthDayNanoType>()).collect();
    let rows = columns.first().map_or(0, |column| column.len());
    let best = (0..rows).map(|row| {
        let known = columns.iter().filter(|column| column.is_valid(row)).map(|column| column.value(row));
        known.reduce(|best, other| if is_better(order(other), order(best)) { other } else { best })
    });
    let best: IntervalMonthDayNanoArray = best.collect();
    Ok(Arc::new(best))
}

fn null_if_equal(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let [left, right] = columns else { return Err(Error::internal("nullif takes two arguments")) };
    let (left, right) =
        (left.as_primitive::<IntervalMonthDayNanoType>(), right.as_primitive::<IntervalMonthDayNanoType>());
    let kept = left.iter().zip(right).map(|(left, right)| left.filter(|left| right.map(order) != Some(order(*left))));
    let kept: IntervalMonthDayNanoArray = kept.collect();
    Ok(Arc::new(kept))
}

fn extreme_array(columns: &[ArrayRef], is_better: fn(&[u8], &[u8]) -> bool) -> Result<ArrayRef> {
    let keys = columns.iter().map(keys_of).collect::<Result<Vec<BinaryArray>, _>>()?;
    let rows = columns.first().map_or(0, |column| column.len());
    let places: Vec<(usize, usize)> = (0..rows)
        .map(|row| {
            let known = (0..keys.len()).filter(|column| keys[*column].is_valid(row));
            let best =
                known.reduce(
                    |best, other| {
                        if is_better(keys[other].value(row), keys[best].value(row)) { other } else { best }
                    },
                );
            // Where all are NULL, the first one is.
            (best.unwrap_or(0), row)
        })
        .collect();
    let columns: Vec<&dyn Array> = columns.iter().map(|column| column.as_ref()).collect();
    Ok(interleave(&columns, &places)?)
}

#[cfg(test)]
mod tests {
    use arrow::array::ListArray;
    use arrow::datatypes::{Int32Type, IntervalMonthDayNano};

    use super::*;

    #[test]
    fn intervals_are_compared_by_their_length() {
        let of = |days: Vec<Option<i32>>, hours: i64| -> ArrayRef {
            let nanoseconds = hours * 3_600_000_000_000;
            let intervals =
                days.into_iter().map(|days| days.map(|days| IntervalMonthDayNano::new(0, days, nanoseconds)));
            Arc::new(intervals.collect::<IntervalMonthDayNanoArray>())
        };
        let (days, hours) = (of(vec![Some(1), Some(2), None, None], 0), of(vec![Some(0), Some(0), Some(0), None], 24));
        let columns = [days, hours];
        let greatest = (GREATEST_INTERVAL.compute)(&columns).unwrap();
        let greatest = greatest.as_primitive::<IntervalMonthDayNanoType>();
        assert_eq!(greatest.value(0), IntervalMonthDayNano::new(0, 1, 0), "the first of equal ones");
        assert_eq!(greatest.value(1), IntervalMonthDayNano::new(0, 2, 0));
        assert_eq!(greatest.value(2), IntervalMonthDayNano::new(0, 0, 86_400_000_000_000));
        assert!(greatest.is_null(3));
        let kept = null_if_equal(&columns).unwrap();
        assert_eq!((0..4).map(|row| kept.is_null(row)).collect::<Vec<_>>(), [true, false, true, true]);
    }

    #[test]
    fn nulls_in_arrays_are_greater_than_other_elements() {
        let of = |arrays: Vec<Option<Vec<Option<i32>>>>| -> ArrayRef {
            Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(arrays))
        };
        let left = of(vec![Some(vec![Some(1), None]), None, None]);
        let right = of(vec![Some(vec![Some(1), Some(2)]), Some(vec![]), None]);
        let greatest = (GREATEST_ARRAY.compute)(&[left, right]).unwrap();
        assert_eq!(&greatest, &of(vec![Some(vec![Some(1), None]), Some(vec![]), None]));
    }
}
