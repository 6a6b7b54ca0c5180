//! What ordered-set aggregates pick from the array of their values. Their calls are rewritten to these
//! ([`crate::sql::tree::calls`]):
//!
//! | function | what it gives |
//! |---|---|
//! | [`AT_SHARE`] | of an array, the first of its sorted elements with so large a share of elements up to it |
//! | [`BETWEEN_SHARES`] | of an array, what lies at a share of its sorted elements, also between two of them |
//! | [`MOST_FREQUENT`] | of an array, the element that comes most often, the first of these in order |
//!
//! The share may be an array of shares; then so is the result. The last argument tells whether the order is from the greatest
//! to the least. `array_agg(x ORDER BY x)` would compute `x` twice, and so sort `random()` by others. DataFusion's `percentile_cont` cuts the place between two
//! elements off to six digits.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array};
use arrow::compute::{SortOptions, cast};
use arrow::datatypes::{DataType, Float64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit};
use arrow::row::{RowConverter, Rows, SortField};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{ScalarUDF, Volatility};

use super::by_rows::ByRows;
use super::several::{element_of, elements_of, list_of};
use crate::error::sqlstate;
use crate::sql::rules::interval_math::{order, scale};
use crate::{Error, Result};

pub(crate) const AT_SHARE: &str = "at_share";
pub(crate) const MOST_FREQUENT: &str = "most_frequent";

/// It has the name of the aggregate that is rewritten to it, for errors that tell it.
pub(crate) const BETWEEN_SHARES: &str = "percentile_cont";

/// The functions of this file.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    let first = ByRows {
        name: AT_SHARE,
        volatility: Volatility::Immutable,
        strict: false,
        takes: share_arguments,
        gives: at_shares_of,
        compute: at_share,
    };
    let between = ByRows { name: BETWEEN_SHARES, takes: between_arguments, compute: percentile_cont, ..first };
    let most =
        ByRows { name: MOST_FREQUENT, takes: array_and_order, gives: element_of, compute: most_frequent, ..first };
    vec![first.function(), between.function(), most.function()]
}

fn share_arguments(types: &[DataType]) -> Option<Vec<DataType>> {
    match types {
        [array @ DataType::List(_), share, DataType::Boolean] => {
            Some(vec![array.clone(), share_type(share), DataType::Boolean])
        }
        _ => None,
    }
}

fn array_and_order(types: &[DataType]) -> Option<Vec<DataType>> {
    match types {
        [array @ DataType::List(_), DataType::Boolean] => Some(vec![array.clone(), DataType::Boolean]),
        _ => None,
    }
}

/// The type that a share is cast to, or an array of them.
fn share_type(share: &DataType) -> DataType {
    match share {
        DataType::List(_) => list_of(DataType::Float64),
        _ => DataType::Float64,
    }
}

/// An element, or one for each share.
fn at_shares_of(types: &[DataType]) -> DataType {
    match types {
        [DataType::List(_), DataType::List(_), ..] => list_of(element_of(types)),
        _ => element_of(types),
    }
}

/// What is at a share of values of which there are so many, or at each of several.
fn at_shares(
    shares: &ScalarValue,
    count: usize,
    null: &ScalarValue,
    at: impl Fn(f64) -> Result<ScalarValue>,
) -> Result<ScalarValue> {
    let one = |share: Option<f64>| match share {
        None => Ok(null.clone()),
        Some(share) if !(0.0..=1.0).contains(&share) => {
            let message = format!("percentile value {share} is not between 0 and 1");
            Err(Error::new(sqlstate::NUMERIC_OUT_OF_RANGE, message))
        }
        Some(_) if count == 0 => Ok(null.clone()),
        Some(share) => at(share),
    };
    match shares {
        ScalarValue::Float64(share) => one(*share),
        ScalarValue::List(list) if list.is_null(0) || count == 0 => {
            Ok(ScalarValue::try_from(&list_of(null.data_type()))?)
        }
        ScalarValue::List(list) => {
            let shares = list.value(0);
            let shares = shares.as_primitive_opt::<Float64Type>();
            let shares = shares.ok_or_else(|| Error::internal("an array of doubles was expected"))?;
            let found = shares.iter().map(one).collect::<Result<Vec<_>>>()?;
            Ok(ScalarValue::List(ScalarValue::new_list_nullable(&found, &null.data_type())))
        }
        _ => Err(Error::internal("a share was expected")),
    }
}

/// The elements that are not NULL in order, by their places, and what compares them.
fn sorted(elements: &ArrayRef, descending: bool) -> Result<(Vec<usize>, Rows)> {
    let compared: ArrayRef = match elements.data_type() {
        DataType::Interval(_) => {
            let intervals = cast(elements, &DataType::Interval(IntervalUnit::MonthDayNano))?;
            let intervals = intervals.as_primitive::<IntervalMonthDayNanoType>();
            let numbers: Decimal128Array = intervals.iter().map(|interval| interval.map(order)).collect();
            Arc::new(numbers.with_precision_and_scale(38, 0)?)
        }
        _ => Arc::clone(elements),
    };
    let options = SortOptions { descending, nulls_first: false };
    let converter = RowConverter::new(vec![SortField::new_with_options(compared.data_type().clone(), options)])?;
    let rows = converter.convert_columns(&[compared])?;
    let nulls = elements.logical_nulls();
    let is_valid = |place: &usize| nulls.as_ref().is_none_or(|nulls| nulls.is_valid(*place));
    let mut places: Vec<usize> = (0..elements.len()).filter(is_valid).collect();
    places.sort_by(|left, right| rows.row(*left).cmp(&rows.row(*right)));
    Ok((places, rows))
}

fn is_true(value: Option<&ScalarValue>) -> bool {
    value == Some(&ScalarValue::Boolean(Some(true)))
}

fn most_frequent(values: &[ScalarValue]) -> Result<ScalarValue> {
    let elements = elements_of(&values[0])?;
    let (places, rows) = sorted(&elements, is_true(values.get(1)))?;
    let mut best: &[usize] = &[];
    for equal in places.chunk_by(|left, right| rows.row(*left) == rows.row(*right)) {
        if equal.len() > best.len() {
            best = equal;
        }
    }
    match best.first() {
        Some(place) => Ok(ScalarValue::try_from_array(&elements, *place)?),
        None => Ok(ScalarValue::try_from(elements.data_type())?),
    }
}

fn at_share(values: &[ScalarValue]) -> Result<ScalarValue> {
    let elements = elements_of(&values[0])?;
    let null = ScalarValue::try_from(elements.data_type())?;
    let (present, _) = sorted(&elements, is_true(values.get(2)))?;
    at_shares(&values[1], present.len(), &null, |share| {
        let place = ((share * present.len() as f64).ceil() as usize).max(1) - 1;
        Ok(match present.get(place) {
            Some(index) => ScalarValue::try_from_array(&elements, *index)?,
            None => null.clone(),
        })
    })
}

fn between_arguments(types: &[DataType]) -> Option<Vec<DataType>> {
    let [DataType::List(element), share, DataType::Boolean] = types else { return None };
    let value = match element.data_type() {
        DataType::Interval(_) => DataType::Interval(IntervalUnit::MonthDayNano),
        number if number.is_numeric() || number.is_null() => DataType::Float64,
        _ => return None,
    };
    Some(vec![list_of(value), share_type(share), DataType::Boolean])
}

/// The two values around a share, and how far it is from the first to the second.
fn around<T: Copy>(sorted: &[T], share: f64) -> Option<(T, T, f64)> {
    let place = share * sorted.len().checked_sub(1)? as f64;
    let (first, second) = (place.floor(), place.ceil());
    Some((*sorted.get(first as usize)?, *sorted.get(second as usize)?, place - first))
}

fn percentile_cont(values: &[ScalarValue]) -> Result<ScalarValue> {
    let elements = elements_of(&values[0])?;
    let descending = is_true(values.get(2));
    if let Some(intervals) = elements.as_primitive_opt::<IntervalMonthDayNanoType>() {
        let mut intervals: Vec<IntervalMonthDayNano> = intervals.iter().flatten().collect();
        intervals.sort_by_key(|interval| order(*interval));
        if descending {
            intervals.reverse();
        }
        let null = ScalarValue::IntervalMonthDayNano(None);
        return at_shares(&values[1], intervals.len(), &null, |share| {
            let found = around(&intervals, share).map(|(low, high, part)| interval_between(low, high, part));
            Ok(ScalarValue::IntervalMonthDayNano(found.transpose()?))
        });
    }
    let numbers = elements.as_primitive_opt::<Float64Type>();
    let numbers = numbers.ok_or_else(|| Error::internal("an array of doubles was expected"))?;
    let mut numbers: Vec<f64> = numbers.iter().flatten().collect();
    // NaN is greater than all others.
    numbers.sort_unstable_by(|left, right| {
        left.is_nan().cmp(&right.is_nan()).then(left.partial_cmp(right).unwrap_or(Ordering::Equal))
    });
    if descending {
        numbers.reverse();
    }
    at_shares(&values[1], numbers.len(), &ScalarValue::Float64(None), |share| {
        let found = around(&numbers, share);
        Ok(ScalarValue::Float64(found.map(|(low, high, part)| match part > 0.0 {
            true => low + part * (high - low),
            // Of infinite ones there is no difference.
            false => low,
        })))
    })
}

fn interval_between(low: IntervalMonthDayNano, high: IntervalMonthDayNano, part: f64) -> Result<IntervalMonthDayNano> {
    let out_of_range = || Error::new(sqlstate::DATETIME_OVERFLOW, "interval out of range");
    let months = high.months.checked_sub(low.months).ok_or_else(out_of_range)?;
    let days = high.days.checked_sub(low.days).ok_or_else(out_of_range)?;
    let nanoseconds = high.nanoseconds.checked_sub(low.nanoseconds).ok_or_else(out_of_range)?;
    let distance = scale(IntervalMonthDayNano::new(months, days, nanoseconds), part, false)?;
    let months = low.months.checked_add(distance.months).ok_or_else(out_of_range)?;
    let days = low.days.checked_add(distance.days).ok_or_else(out_of_range)?;
    let nanoseconds = low.nanoseconds.checked_add(distance.nanoseconds).ok_or_else(out_of_range)?;
    Ok(IntervalMonthDayNano::new(months, days, nanoseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_sorted_here() {
        let list = |values: &[Option<i32>]| {
            let values: Vec<_> = values.iter().map(|value| ScalarValue::Int32(*value)).collect();
            ScalarValue::List(ScalarValue::new_list_nullable(&values, &DataType::Int32))
        };
        let order = |descending| ScalarValue::Boolean(Some(descending));
        let values = list(&[Some(3), None, Some(1), Some(2), Some(1), Some(3)]);
        let at = |share, descending| {
            at_share(&[values.clone(), ScalarValue::Float64(Some(share)), order(descending)]).unwrap()
        };
        assert_eq!(at(0.5, false), ScalarValue::Int32(Some(2)));
        assert_eq!(at(0.4, true), ScalarValue::Int32(Some(3)));
        let most = |descending| most_frequent(&[values.clone(), order(descending)]).unwrap();
        assert_eq!((most(false), most(true)), (ScalarValue::Int32(Some(1)), ScalarValue::Int32(Some(3))));
        assert!(most_frequent(&[list(&[None]), order(false)]).unwrap().is_null());
        let days = |days, hours| ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano::new(0, days, hours)));
        let values = [days(2, 0), days(0, 86_400_000_000_000), days(1, 0)];
        let kind = DataType::Interval(IntervalUnit::MonthDayNano);
        let values = ScalarValue::List(ScalarValue::new_list_nullable(&values, &kind));
        assert_eq!(most_frequent(&[values, order(false)]).unwrap(), days(0, 86_400_000_000_000));
    }

    #[test]
    fn shares_lie_between_values() {
        let list = |values: &[f64]| {
            let values: Vec<_> = values.iter().map(|value| ScalarValue::Float64(Some(*value))).collect();
            ScalarValue::List(ScalarValue::new_list_nullable(&values, &DataType::Float64))
        };
        let at = |values: &[f64], share: ScalarValue, descending: bool| {
            percentile_cont(&[list(values), share, ScalarValue::Boolean(Some(descending))])
        };
        let share = |share: f64| ScalarValue::Float64(Some(share));
        assert_eq!(at(&[4.0, 2.0, 1.0, 3.0], share(0.3), false).unwrap(), share(1.9));
        assert_eq!(at(&[1.0, 2.0, 5.0], share(0.25), true).unwrap(), share(3.5));
        assert_eq!(at(&[f64::INFINITY, f64::INFINITY], share(0.0), false).unwrap(), share(f64::INFINITY));
        assert_eq!(at(&[1.0, 2.0], list(&[0.0, 0.5, 1.0]), false).unwrap(), list(&[1.0, 1.5, 2.0]));
        assert!(at(&[], share(0.5), false).unwrap().is_null());
        assert_eq!(at(&[], share(1.5), false).unwrap_err().sqlstate(), "22003");
        let hour = 3_600_000_000_000;
        let (low, high) = (IntervalMonthDayNano::new(0, 1, 0), IntervalMonthDayNano::new(0, 2, 0));
        assert_eq!(interval_between(low, high, 0.5).unwrap(), IntervalMonthDayNano::new(0, 1, 12 * hour));
    }
}
