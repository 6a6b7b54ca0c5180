//! The functions of SQL: DataFusion's, some of our own in their place ([`postgres`], [`to_char`]), and bounds on those whose result can be arbitrarily larger than their input.
//!
//! `SELECT range(10, 5000000011)` asks the allocator for 40 GB in one call, past every memory pool; the process would not
//! survive it. A [`Bounded`] function works out the size of its result first and fails with 54000 beyond the limit.

pub(crate) mod any_element;
mod array_bounds;
pub(crate) mod array_casts;
mod array_counts;
pub(crate) mod array_fill;
pub(crate) mod array_order;
pub(crate) mod array_remove;
pub(crate) mod array_text;
pub(crate) mod between;
pub(crate) mod bins;
mod buckets;
pub(crate) mod by_columns;
mod by_rows;
pub(crate) mod bytea;
pub(crate) mod bytes;
pub(crate) mod calendar_parts;
mod changed;
mod characters;
pub(crate) mod coalesce;
pub(crate) mod date_parts;
mod date_patterns;
pub(crate) mod days;
mod degrees;
mod encodings;
pub(crate) mod extremes;
pub(crate) mod floats;
pub(crate) mod floats_as_numerics;
pub(crate) mod foreign;
pub(crate) mod input;
mod interval_format;
pub(crate) mod interval_parts;
pub(crate) mod interval_texts;
mod interval_truncate;
mod intervals;
pub(crate) mod joined_texts;
pub(crate) mod letters;
pub(crate) mod like_each;
pub(crate) mod like_escape;
mod made_times;
pub(crate) mod match_each;
pub(crate) mod normal_forms;
mod number_format;
mod numeric_scales;
pub(crate) mod numeric_texts;
pub(crate) mod overlaps;
pub(crate) mod pattern_syntax;
mod postgres;
pub(crate) mod printed;
pub(crate) mod ranks;
pub(crate) mod regular;
mod regular_places;
pub(crate) mod rounded_times;
pub(crate) mod row_text;
pub(crate) mod second_names;
pub(crate) mod series;
pub(crate) mod session;
pub(crate) mod several;
pub(crate) mod shares;
mod sleep;
mod spellings;
pub(crate) mod subscripts;
pub(crate) mod text;
pub(crate) mod time_digits;
pub(crate) mod time_intervals;
pub(crate) mod time_texts;
mod time_words;
mod to_char;
pub(crate) mod told_apart;
mod truncate;
pub(crate) mod widened;
mod zone_abbreviations;
pub(crate) mod zone_parts;
pub(crate) mod zone_truncate;
pub(crate) mod zones;

use std::sync::Arc;

use arrow::array::{Array, AsArray, Int64Array};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Int64Type, IntervalMonthDayNanoType, IntervalUnit, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl};

use self::changed::{Change, changed};
use crate::{Error, Result, error::sqlstate};

/// The largest result, in bytes, of one call on one batch.
const MAX_RESULT_BYTES: u64 = 256 * 1024 * 1024;

/// The functions of SQL: `functions`, the dangerous ones bounded, and those replaced that answer otherwise here. No call makes
/// a result of more than half of `query_bytes`, the memory of queries: no pool knows of it before it is there.
pub(crate) fn of_sql(functions: impl IntoIterator<Item = Arc<ScalarUDF>>, query_bytes: usize) -> Vec<Arc<ScalarUDF>> {
    let bytes_max = MAX_RESULT_BYTES.min(query_bytes as u64 / 2);
    let functions: Vec<_> = functions.into_iter().collect();
    let mut own = postgres::functions();
    own.extend(text::functions());
    own.extend(regular::functions());
    own.extend(zones::functions());
    own.extend(zone_truncate::functions());
    own.extend(intervals::functions());
    own.extend(several::functions());
    own.extend(degrees::functions());
    own.extend(shares::functions());
    own.extend(told_apart::functions());
    own.extend(time_digits::functions());
    own.extend(bytea::functions());
    own.extend(sleep::functions());
    own.extend(regular_places::functions());
    own.extend(array_bounds::functions());
    own.extend(array_fill::functions());
    own.extend(buckets::functions());
    own.extend(made_times::functions());
    own.extend(numeric_scales::functions());
    own.extend(overlaps::functions());
    own.extend(joined_texts::functions());
    own.extend(like_each::functions());
    own.extend(match_each::functions());
    own.extend(spellings::functions());
    own.extend(pattern_syntax::functions());
    own.extend(normal_forms::functions());
    for inner in &functions {
        let inner = Arc::clone(inner);
        own.push(match inner.name() {
            "to_char" => changed(inner, to_char::ToChar::new()),
            "date_part" => changed(inner, date_parts::DatePart),
            "to_date" => changed(inner, date_patterns::ByTemplate::new(true)),
            "to_timestamp" => changed(inner, date_patterns::ByTemplate::new(false)),
            "coalesce" | "nvl" => changed(inner, coalesce::Coalesce),
            "chr" => changed(inner, characters::Character),
            "array_length" | "array_position" | "cardinality" => changed(inner, array_counts::AsInteger),
            "generate_series" => Arc::new(series::Series::new(inner).into()),
            _ => continue,
        });
    }
    let is_own = |function: &Arc<ScalarUDF>| own.iter().any(|own| own.name() == function.name());
    let others: Vec<_> = functions.into_iter().filter(|function| !is_own(function)).collect();
    others
        .into_iter()
        .chain(own)
        .map(also_known_as)
        .map(widened::widened)
        .map(|function| match Growth::of(function.name()) {
            Some(growth) => changed(function, Bounded { growth, bytes_max }),
            None => function,
        })
        .map(|function| match function.name() {
            "date_trunc" => {
                let of_intervals = interval_truncate::OfIntervals::new(function.signature());
                changed(changed(function, truncate::Truncate), of_intervals)
            }
            _ => function,
        })
        .map(|function| match floats::Domain::of(function.name()) {
            Some(domain) => changed(function, domain),
            None => function,
        })
        .collect()
}

/// PostgreSQL's names of functions that DataFusion calls otherwise.
fn also_known_as(function: Arc<ScalarUDF>) -> Arc<ScalarUDF> {
    let alias = match function.name() {
        "uuid" => "gen_random_uuid",
        "signum" => "sign",
        "ceil" => "ceiling",
        _ => return function,
    };
    Arc::new(function.as_ref().clone().with_aliases([alias]))
}

/// How the size of a result follows from the arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Growth {
    /// (text, count): the text's bytes times count.
    RepeatText,
    /// (text, length, …): up to 4 bytes for each of length characters.
    PadText,
    /// (array, count, …): count elements.
    Elements,
    /// (element, count): all values of the element, which may be an array, count times.
    Copies,
    /// (element, count, …): as many copies as the product of the counts, in an array for each but the last.
    Filled,
    /// (\[start,\] stop \[, step\]): one element per step.
    Series,
}

impl Growth {
    fn of(function: &str) -> Option<Growth> {
        match function {
            "repeat" => Some(Growth::RepeatText),
            "lpad" | "rpad" => Some(Growth::PadText),
            "array_repeat" => Some(Growth::Copies),
            array_fill::ARRAY_FILLED => Some(Growth::Filled),
            "array_resize" => Some(Growth::Elements),
            "range" | "generate_series" => Some(Growth::Series),
            _ => None,
        }
    }

    /// An upper bound of the bytes a call will produce.
    fn bytes(self, arguments: &ScalarFunctionArgs) -> Result<u64> {
        let values = &arguments.args;
        // A call on constants is made once, whatever the number of rows.
        let constant = values.iter().all(|value| matches!(value, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { arguments.number_rows };
        let array = |index: usize| -> Result<Option<arrow::array::ArrayRef>> {
            values.get(index).map(|value| value.to_array(rows)).transpose().map_err(Error::from)
        };
        let mut total = 0u64;
        match self {
            Growth::RepeatText => {
                let (Some(text), Some(count)) = (array(0)?, array(1)?) else { return Ok(0) };
                let (text, count) = (cast_or_null(&text, &DataType::LargeUtf8)?, as_counts(&count)?);
                let text = text.as_string::<i64>();
                for row in 0..rows {
                    let length = if text.is_valid(row) { text.value(row).len() as u64 } else { 0 };
                    total = total.saturating_add(length.saturating_mul(count_at(&count, row)));
                }
            }
            Growth::PadText | Growth::Elements => {
                let Some(count) = array(1)? else { return Ok(0) };
                let count = as_counts(&count)?;
                let width = if self == Growth::PadText { 4 } else { 8 };
                for row in 0..rows {
                    total = total.saturating_add(count_at(&count, row).saturating_mul(width));
                }
            }
            Growth::Copies => {
                let (Some(element), Some(count)) = (array(0)?, array(1)?) else { return Ok(0) };
                let count = as_counts(&count)?;
                for row in 0..rows {
                    let bytes = values_in(&element.slice(row, 1)).saturating_mul(8);
                    total = total.saturating_add(count_at(&count, row).saturating_mul(bytes));
                }
            }
            Growth::Filled => {
                let Some(element) = array(0)? else { return Ok(0) };
                let counts = (1..values.len()).filter_map(|index| array(index).transpose());
                let counts = counts.map(|count| as_counts(&count?)).collect::<Result<Vec<Int64Array>>>()?;
                for row in 0..rows {
                    let bytes = element.slice(row, 1).to_data().get_slice_memory_size()?.max(8);
                    let mut copies = 1u64;
                    for count in &counts {
                        copies = copies.saturating_mul(count_at(count, row));
                        total = total.saturating_add(copies.saturating_mul(8));
                    }
                    total = total.saturating_add(copies.saturating_mul(bytes as u64));
                }
            }
            Growth::Series => {
                let columns = [array(0)?, array(1)?, array(2)?];
                for row in 0..rows {
                    total = total.saturating_add(series_length(&columns, row)?.saturating_mul(8));
                }
            }
        }
        Ok(total)
    }
}

/// The values of an array in all its dimensions, each array in it being one itself.
fn values_in(array: &dyn Array) -> u64 {
    match array.as_list_opt::<i32>() {
        Some(arrays) => arrays.iter().map(|array| 1 + array.map_or(0, |array| values_in(&array))).sum(),
        None => array.len() as u64,
    }
}

fn cast_or_null(array: &dyn Array, to: &DataType) -> Result<arrow::array::ArrayRef> {
    Ok(cast_with_options(array, to, &CastOptions { safe: true, ..CastOptions::default() })?)
}

fn as_counts(array: &dyn Array) -> Result<Int64Array> {
    Ok(cast_or_null(array, &DataType::Int64)?.as_primitive::<Int64Type>().clone())
}

fn count_at(counts: &Int64Array, row: usize) -> u64 {
    if counts.is_valid(row) { u64::try_from(counts.value(row)).unwrap_or(0) } else { 0 }
}

/// Negative lengths of `lpad` and `rpad` become 0, which is what they mean: DataFusion reserves room for the sum of all.
fn raise_lengths(length: &mut ColumnarValue) -> Result<()> {
    match length {
        ColumnarValue::Scalar(ScalarValue::Int64(Some(length))) => *length = (*length).max(0),
        ColumnarValue::Scalar(_) => {}
        ColumnarValue::Array(lengths) => {
            let raised: Int64Array = as_counts(lengths)?.unary(|length| length.max(0));
            *lengths = Arc::new(raised);
        }
    }
    Ok(())
}

/// DataFusion's `array_resize` has no name for this error.
fn refuse_negative(size: &ColumnarValue, rows: usize) -> Result<()> {
    let sizes = as_counts(&size.to_array(rows)?)?;
    match sizes.iter().flatten().any(|size| size < 0) {
        true => Err(Error::new(sqlstate::INVALID_PARAMETER_VALUE, "the size of an array must not be negative")),
        false => Ok(()),
    }
}

/// Elements of `range(start, stop, step)` in one row; `range(stop)` starts at 0.
fn series_length(columns: &[Option<arrow::array::ArrayRef>; 3], row: usize) -> Result<u64> {
    let number = |array: &Option<arrow::array::ArrayRef>| -> Result<Option<i128>> {
        let Some(array) = array else { return Ok(None) };
        if array.is_null(row) {
            return Ok(None);
        }
        position(&array.slice(row, 1))
    };
    let [first, second, third] = columns;
    let (start, stop) = match (number(first)?, number(second)?) {
        (Some(stop), None) if second.is_none() => (0, stop),
        (Some(start), Some(stop)) => (start, stop),
        _ => return Ok(0),
    };
    let step = match (third, number(third)?) {
        (None, _) => 1,
        (Some(_), Some(step)) if step != 0 => step,
        _ => return Ok(0),
    };
    let length = (stop - start) / step + 1;
    Ok(u64::try_from(length.max(0)).unwrap_or(u64::MAX))
}

/// A value as a number whose distances are comparable with those of a step: integers as they are, times in nanoseconds.
fn position(value: &arrow::array::ArrayRef) -> Result<Option<i128>> {
    const NANOSECONDS_PER_DAY: i128 = 86_400_000_000_000;
    Ok(match value.data_type() {
        DataType::Date32 | DataType::Date64 => {
            let days = cast_or_null(&cast_or_null(value, &DataType::Date32)?, &DataType::Int32)?;
            let days = as_counts(&days)?;
            days.is_valid(0).then(|| i128::from(days.value(0)) * NANOSECONDS_PER_DAY)
        }
        DataType::Timestamp(unit, _) => {
            let ticks = as_counts(value)?;
            let scale = match unit {
                TimeUnit::Second => 1_000_000_000,
                TimeUnit::Millisecond => 1_000_000,
                TimeUnit::Microsecond => 1_000,
                TimeUnit::Nanosecond => 1,
            };
            ticks.is_valid(0).then(|| i128::from(ticks.value(0)) * scale)
        }
        DataType::Interval(_) => {
            let interval = cast_or_null(value, &DataType::Interval(IntervalUnit::MonthDayNano))?;
            let interval = interval.as_primitive::<IntervalMonthDayNanoType>();
            interval.is_valid(0).then(|| {
                let step = interval.value(0);
                // The shortest month, so that the number of steps is never underestimated.
                (i128::from(step.months) * 28 + i128::from(step.days)) * NANOSECONDS_PER_DAY
                    + i128::from(step.nanoseconds)
            })
        }
        _ => {
            let number = as_counts(value)?;
            number.is_valid(0).then(|| i128::from(number.value(0)))
        }
    })
}

/// Refuses to make larger results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Bounded {
    growth: Growth,
    bytes_max: u64,
}

impl Change for Bounded {
    fn invoke(&self, inner: &dyn ScalarUDFImpl, mut arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let rows = arguments.number_rows;
        match (self.growth, arguments.args.get_mut(1)) {
            (Growth::PadText, Some(length)) => raise_lengths(length)?,
            (Growth::Elements, Some(size)) if inner.name() == "array_resize" => refuse_negative(size, rows)?,
            _ => {}
        }
        let bytes = self.growth.bytes(&arguments)?;
        if bytes > self.bytes_max {
            let message = format!("the result of {}() would be larger than {} bytes", inner.name(), self.bytes_max);
            let error = Error::new(sqlstate::LIMIT_EXCEEDED, message);
            return Err(match self.growth {
                Growth::Series => error.with_hint("Use it as a table: SELECT … FROM generate_series(…).").into(),
                _ => error.into(),
            });
        }
        inner.invoke_with_args(arguments)
    }
}
