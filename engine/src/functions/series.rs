//! `generate_series` as an array, for select lists and for FROM where it depends on a row.
//!
//! DataFusion's function is right about integers. It knows dates by whole days only, timestamps by nanoseconds, which end in
//! 2262, and no numerics. Those are made here: timestamps in microseconds and by the session's clock, for dates, too.

use std::sync::Arc;

use arrow::array::timezone::Tz;
use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, ListArray, TimestampMicrosecondArray};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{
    DataType, Decimal128Type, Field, Int64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit, TimeUnit,
    TimestampMicrosecondType,
};
use datafusion::common::ScalarValue;
use datafusion::config::ConfigOptions;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use super::zones::shift;
use crate::error::sqlstate;
use crate::sql::types::name_of;
use crate::{Error, Result};

/// Another name of the function, which no set in a select list has.
pub(crate) const SERIES_ARRAY: &str = "series_array";

/// The most elements of a batch's series of timestamps or numerics.
const ELEMENTS_MAX: usize = 1 << 24;

const INTERVAL: DataType = DataType::Interval(IntervalUnit::MonthDayNano);
const NANOSECONDS_PER_DAY: i128 = 86_400_000_000_000;

/// The function; `integers` is DataFusion's.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Series {
    integers: Arc<ScalarUDF>,
    zone: String,
    aliases: [String; 1],
    signature: Signature,
}

impl Series {
    pub(super) fn new(integers: Arc<ScalarUDF>) -> Self {
        let signature = Signature::user_defined(Volatility::Immutable);
        Series { integers, zone: "UTC".to_owned(), aliases: [SERIES_ARRAY.to_owned()], signature }
    }
}

impl ScalarUDFImpl for Series {
    fn name(&self) -> &str {
        "generate_series"
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn with_updated_config(&self, config: &ConfigOptions) -> Option<ScalarUDF> {
        let zone = config.execution.time_zone.clone().unwrap_or_else(|| "UTC".to_owned());
        Some(Series { zone, ..Series::new(Arc::clone(&self.integers)) }.into())
    }

    fn coerce_types(&self, argument_types: &[DataType]) -> DataFusionResult<Vec<DataType>> {
        taken(argument_types).ok_or_else(|| {
            let types: Vec<String> = argument_types.iter().map(name_of).collect();
            let message = format!("function generate_series({}) does not exist", types.join(", "));
            Error::new(sqlstate::UNDEFINED_FUNCTION, message)
                .with_hint("It takes integers, numerics, or two timestamps and an interval.")
                .into()
        })
    }

    fn return_type(&self, argument_types: &[DataType]) -> DataFusionResult<DataType> {
        let element = argument_types.first().cloned().unwrap_or(DataType::Int64);
        Ok(DataType::List(Arc::new(Field::new_list_field(element, true))))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let constant = arguments.args.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { arguments.number_rows };
        let columns: Vec<ArrayRef> =
            arguments.args.iter().map(|argument| argument.to_array(rows)).collect::<DataFusionResult<_>>()?;
        let Some(first) = columns.first() else { return Err(Error::internal("a series without a beginning").into()) };
        let lists = match first.data_type() {
            DataType::Timestamp(_, zone) => {
                let zone = match zone {
                    Some(_) => Some(self.zone.parse::<Tz>()?).filter(|_| self.zone != "UTC"),
                    None => None,
                };
                let steps = columns.get(2).ok_or_else(|| Error::internal("a series of times without a step"))?;
                times([first, &columns[1], steps], zone)?
            }
            DataType::Decimal128(..) => numerics(&columns)?,
            _ => {
                if let Some(steps) = columns.get(2) {
                    steps.as_primitive::<Int64Type>().iter().flatten().try_for_each(|step| check_step(step != 0))?;
                }
                return self.integers.inner().invoke_with_args(arguments);
            }
        };
        Ok(match constant {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&lists, 0)?),
            false => ColumnarValue::Array(Arc::new(lists)),
        })
    }
}

/// The types that arguments of these types are cast to.
fn taken(types: &[DataType]) -> Option<Vec<DataType>> {
    let ends = types.get(..2).unwrap_or(types);
    let is_time = |data_type: &DataType| matches!(data_type, DataType::Timestamp(..) | DataType::Date32);
    if ends.iter().any(is_time) {
        let fits = |end: &DataType| is_time(end) || end.is_null() || end.is_string();
        let [first, second, step] = types else { return None };
        if !fits(first) || !fits(second) || !(*step == INTERVAL || step.is_null() || step.is_string()) {
            return None;
        }
        let zone = ends.iter().find_map(|end| match end {
            DataType::Timestamp(_, zone) => Some(zone.clone()),
            _ => None,
        });
        let point = DataType::Timestamp(TimeUnit::Microsecond, zone.flatten());
        return Some(vec![point.clone(), point, INTERVAL]);
    }
    if !(1..=3).contains(&types.len()) {
        return None;
    }
    if types.iter().all(|data_type| data_type.is_integer() || data_type.is_null()) {
        return Some(vec![DataType::Int64; types.len()]);
    }
    let scale = |data_type: &DataType| match data_type {
        DataType::Decimal128(_, scale) => Some(*scale),
        other => (other.is_integer() || other.is_null()).then_some(0),
    };
    let scales = types.iter().map(scale).collect::<Option<Vec<i8>>>()?;
    let common = DataType::Decimal128(38, scales.into_iter().max()?);
    (types.len() > 1).then(|| vec![common; types.len()])
}

fn check_step(moves: bool) -> Result<()> {
    match moves {
        true => Ok(()),
        false => Err(Error::new(sqlstate::INVALID_PARAMETER_VALUE, "step size cannot equal zero")),
    }
}

/// The elements of all rows, one series after the other.
struct Elements<T> {
    values: Vec<T>,
    lengths: Vec<usize>,
    present: Vec<bool>,
}

impl<T: Copy + PartialOrd> Elements<T> {
    fn with_capacity(rows: usize) -> Self {
        Elements { values: Vec::new(), lengths: Vec::with_capacity(rows), present: Vec::with_capacity(rows) }
    }

    fn add_null(&mut self) {
        self.lengths.push(0);
        self.present.push(false);
    }

    /// From `start` on as far as `stop`; the series ends where there is no `next`.
    fn add(&mut self, start: T, stop: T, upwards: bool, next: impl Fn(T) -> Result<Option<T>>) -> Result<()> {
        let before = self.values.len();
        let mut element = Some(start);
        while let Some(value) = element {
            if if upwards { value > stop } else { value < stop } {
                break;
            }
            if self.values.len() == ELEMENTS_MAX {
                let message = format!("the result of generate_series() would have more than {ELEMENTS_MAX} elements");
                return Err(Error::new(sqlstate::LIMIT_EXCEEDED, message));
            }
            self.values.push(value);
            element = next(value)?;
        }
        self.lengths.push(self.values.len() - before);
        self.present.push(true);
        Ok(())
    }

    fn lists(self, values: ArrayRef) -> Result<ListArray> {
        let field = Arc::new(Field::new_list_field(values.data_type().clone(), true));
        let offsets = OffsetBuffer::from_lengths(self.lengths);
        Ok(ListArray::try_new(field, offsets, values, Some(NullBuffer::from(self.present)))?)
    }
}

fn times([starts, stops, steps]: [&ArrayRef; 3], zone: Option<Tz>) -> Result<ListArray> {
    let (first, last) =
        (starts.as_primitive::<TimestampMicrosecondType>(), stops.as_primitive::<TimestampMicrosecondType>());
    let steps = steps.as_primitive::<IntervalMonthDayNanoType>();
    let clocks = Clocks { utc: "+00:00".parse()?, zone };
    let mut elements = Elements::with_capacity(first.len());
    for row in 0..first.len() {
        if first.is_null(row) || last.is_null(row) || steps.is_null(row) {
            elements.add_null();
            continue;
        }
        let step = steps.value(row);
        let direction =
            (i128::from(step.months) * 30 + i128::from(step.days)) * NANOSECONDS_PER_DAY + i128::from(step.nanoseconds);
        // Times are of microseconds: what is less does not move them.
        check_step(direction.abs() >= 1_000)?;
        elements.add(first.value(row), last.value(row), direction > 0, |time| clocks.moved(time, step))?;
    }
    let values = TimestampMicrosecondArray::from(std::mem::take(&mut elements.values));
    let zone = match starts.data_type() {
        DataType::Timestamp(_, zone) => zone.clone(),
        _ => None,
    };
    elements.lists(Arc::new(values.with_timezone_opt(zone)))
}

/// How long days and months are.
struct Clocks {
    utc: Tz,
    /// The session's zone, if its days may have other hours.
    zone: Option<Tz>,
}

impl Clocks {
    /// A time and an interval. `None`: beyond all times.
    fn moved(&self, time: i64, step: IntervalMonthDayNano) -> Result<Option<i64>> {
        let plain = |time, step| TimestampMicrosecondType::add_month_day_nano(time, step, self.utc);
        let Some(zone) = self.zone.filter(|_| step.months != 0 || step.days != 0) else { return Ok(plain(time, step)) };
        let days = IntervalMonthDayNano { nanoseconds: 0, ..step };
        let Some(local) = plain(shift(zone, time, true)?, days) else { return Ok(None) };
        Ok(shift(zone, local, false)?.checked_add(step.nanoseconds / 1000))
    }
}

fn numerics(columns: &[ArrayRef]) -> Result<ListArray> {
    let (Some(starts), Some(stops)) = (columns.first(), columns.get(1)) else {
        return Err(Error::internal("a series without an end"));
    };
    let DataType::Decimal128(precision, scale) = *starts.data_type() else {
        return Err(Error::internal("a series of numerics was expected"));
    };
    let one = 10_i128.pow(u32::try_from(scale).unwrap_or(0));
    let (first, last) = (starts.as_primitive::<Decimal128Type>(), stops.as_primitive::<Decimal128Type>());
    let steps = columns.get(2).map(|steps| steps.as_primitive::<Decimal128Type>());
    let mut elements = Elements::with_capacity(first.len());
    for row in 0..first.len() {
        if first.is_null(row) || last.is_null(row) || steps.is_some_and(|steps| steps.is_null(row)) {
            elements.add_null();
            continue;
        }
        let step = steps.map_or(one, |steps| steps.value(row));
        check_step(step != 0)?;
        elements.add(first.value(row), last.value(row), step > 0, |value| Ok(value.checked_add(step)))?;
    }
    let values = Decimal128Array::from(std::mem::take(&mut elements.values));
    elements.lists(Arc::new(values.with_precision_and_scale(precision, scale)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_go_one_after_the_other_and_by_the_clock_of_the_zone() {
        let step = IntervalMonthDayNano::new(0, 1, 0);
        // Noon in Berlin on the day before the clocks change, and on that day.
        let before = 1_711_796_400_000_000;
        for (zone, hours) in [(Some("Europe/Berlin".parse().unwrap()), 23), (None, 24)] {
            let clocks = Clocks { utc: "+00:00".parse().unwrap(), zone };
            assert_eq!(clocks.moved(before, step).unwrap(), Some(before + hours * 3_600_000_000));
        }
    }

    #[test]
    fn types_of_both_ends_become_one() {
        let zoned = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let text = DataType::Utf8;
        let found = taken(&[zoned.clone(), text.clone(), text]).unwrap();
        assert_eq!(found, [zoned.clone(), zoned, INTERVAL]);
        let numerics = taken(&[DataType::Int64, DataType::Decimal128(2, 1), DataType::Int64]).unwrap();
        assert_eq!(numerics, vec![DataType::Decimal128(38, 1); 3]);
        assert_eq!(taken(&[DataType::Float64, DataType::Float64]), None);
        assert_eq!(taken(&[DataType::Date32, DataType::Date32]), None);
    }
}
