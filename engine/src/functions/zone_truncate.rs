//! `date_trunc` of an instant by the clock of a zone: that of the session, and `date_trunc(unit, t, zone)`, which names it.
//!
//! It could be written as `timezone(zone, date_trunc(unit, timezone(zone, t)))`. But an hour that a clock shows twice begins
//! twice: what is cut to hours or less keeps the offset that the zone has at `t`, so that `t` would have to be named again. A
//! function takes it once, and so does the plan of calls in each other.
//!
//! | unit | result |
//! |---|---|
//! | `microsecond` to `hour` | `t` less what is beyond the last whole one by the clock |
//! | `day` to `millennium` | the instant at which the clock shows its beginning |

use std::sync::{Arc, LazyLock};

use arrow::array::timezone::Tz;
use arrow::array::{Array, ArrayRef, AsArray, StringViewArray, TimestampMicrosecondArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimestampMicrosecondType};
use chrono::{DateTime, NaiveTime};
use datafusion::common::{ScalarValue, utils::take_function_args};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, lit,
};

use super::interval_truncate::{microseconds_in, unit_named};
use super::truncate::Field;
use super::zones::{instants, shift, written_zone, zone_of};
use crate::error::sqlstate;
use crate::sql::types::name_of;
use crate::{Error, Result};

/// What `date_trunc(unit, t, zone)` is written for.
pub(crate) const TRUNCATE_AT: &str = "date_trunc_at_zone";

const MICROSECONDS_PER_HOUR: i64 = 3_600_000_000;

static BY_SESSION: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| function(true));

/// The functions of this file.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    vec![function(false)]
}

/// `date_trunc(unit, time)` of an instant, by the clock of the session's zone.
pub(crate) fn truncated_by_session(zone: &str, unit: Expr, time: Expr) -> Expr {
    BY_SESSION.call(vec![unit, time, lit(zone)])
}

fn function(of_session: bool) -> Arc<ScalarUDF> {
    Arc::new(TruncateAt { signature: Signature::any(3, Volatility::Immutable), of_session }.into())
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct TruncateAt {
    signature: Signature,
    /// Whether the zone is that of a session, whose offsets count to the east.
    of_session: bool,
}

impl ScalarUDFImpl for TruncateAt {
    fn name(&self) -> &str {
        if self.of_session { "session_date_trunc" } else { TRUNCATE_AT }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, argument_types: &[DataType]) -> DataFusionResult<DataType> {
        let is_text = |data_type: &DataType| data_type.is_string() || data_type.is_null();
        match argument_types {
            [unit, DataType::Timestamp(_, Some(_)) | DataType::Null, zone] if is_text(unit) && is_text(zone) => {
                Ok(instants())
            }
            types => {
                let types: Vec<String> = types.iter().map(name_of).collect();
                let message = format!("function date_trunc({}) does not exist", types.join(", "));
                Err(Error::new(sqlstate::UNDEFINED_FUNCTION, message).into())
            }
        }
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let constant = arguments.args.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { arguments.number_rows };
        let [unit, time, zone] = take_function_args(self.name(), arguments.args)?;
        let times = cast(&time.to_array(rows)?, &instants())?;
        let times = times.as_primitive::<TimestampMicrosecondType>();
        let truncated = match (constant_text(&unit), constant_text(&zone)) {
            (Some(unit), Some(zone)) => match (unit, zone) {
                (Some(unit), Some(zone)) => truncate_all(times, &mut self.cutter(unit, zone)?)?,
                _ => TimestampMicrosecondArray::new_null(rows),
            },
            _ => self.truncate_each(times, &texts(&unit, rows)?, &texts(&zone, rows)?)?,
        };
        let truncated: ArrayRef = Arc::new(truncated.with_timezone("UTC"));
        Ok(match constant {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&truncated, 0)?),
            false => ColumnarValue::Array(truncated),
        })
    }
}

impl TruncateAt {
    fn cutter(&self, unit: &str, zone: &str) -> Result<Cutter> {
        let part = part_named(unit)?;
        Ok(Cutter { part, zone: if self.of_session { zone_of(zone)? } else { written_zone(zone)? }, last: None })
    }

    /// The same with units or zones that differ from row to row.
    fn truncate_each(
        &self,
        times: &TimestampMicrosecondArray,
        units: &ArrayRef,
        zones: &ArrayRef,
    ) -> Result<TimestampMicrosecondArray> {
        let (units, zones): (&StringViewArray, &StringViewArray) = (units.as_string_view(), zones.as_string_view());
        let mut known: Option<((&str, &str), Cutter)> = None;
        let mut truncated = Vec::with_capacity(times.len());
        for row in 0..times.len() {
            if times.is_null(row) || units.is_null(row) || zones.is_null(row) {
                truncated.push(None);
                continue;
            }
            let names = (units.value(row), zones.value(row));
            let mut cutter = match known.take() {
                Some((last, cutter)) if last == names => cutter,
                _ => self.cutter(names.0, names.1)?,
            };
            truncated.push(Some(cutter.truncate(times.value(row))?));
            known = Some((names, cutter));
        }
        Ok(TimestampMicrosecondArray::from(truncated))
    }
}

/// The text of an argument that is the same for all rows, which may be NULL.
fn constant_text(value: &ColumnarValue) -> Option<Option<&str>> {
    match value {
        ColumnarValue::Scalar(ScalarValue::Null) => Some(None),
        ColumnarValue::Scalar(text) => text.try_as_str(),
        ColumnarValue::Array(_) => None,
    }
}

fn texts(value: &ColumnarValue, rows: usize) -> Result<ArrayRef> {
    Ok(cast(&value.to_array(rows)?, &DataType::Utf8View)?)
}

fn truncate_all(times: &TimestampMicrosecondArray, cutter: &mut Cutter) -> Result<TimestampMicrosecondArray> {
    let truncated = times.iter().map(|time| time.map(|time| cutter.truncate(time)).transpose());
    Ok(TimestampMicrosecondArray::from(truncated.collect::<Result<Vec<Option<i64>>>>()?))
}

/// What is cut off.
#[derive(Debug, Clone, Copy)]
enum Part {
    /// What is beyond so many microseconds, an hour or less.
    Short(i64),
    Day,
    Long(Field),
}

fn part_named(written: &str) -> Result<Part> {
    let not_recognized = || {
        let message = format!("unit \"{written}\" not recognized for type timestamp with time zone");
        Error::new(sqlstate::INVALID_PARAMETER_VALUE, message)
    };
    let unit = unit_named(written).ok_or_else(not_recognized)?;
    match microseconds_in(unit) {
        Some(part) if part <= MICROSECONDS_PER_HOUR => Ok(Part::Short(part)),
        Some(_) => Ok(Part::Day),
        None => Field::named(unit).map(Part::Long).ok_or_else(not_recognized),
    }
}

/// Cuts the times of one zone.
#[derive(Debug)]
struct Cutter {
    part: Part,
    zone: Tz,
    /// The day by the clock, in days since 1970, of the last row, and the beginning of its field: rows that follow each other
    /// are often of one day.
    last: Option<(i64, i64)>,
}

impl Cutter {
    fn truncate(&mut self, time: i64) -> Result<i64> {
        const DAY: i64 = 24 * MICROSECONDS_PER_HOUR;
        let out_of_range = || Error::new(sqlstate::DATETIME_OVERFLOW, "timestamp out of range");
        let local = shift(self.zone, time, true)?;
        if let Part::Short(part) = self.part {
            return time.checked_sub(local.rem_euclid(part)).ok_or_else(out_of_range);
        }
        let day = local.div_euclid(DAY);
        if let Some((known, first)) = self.last
            && known == day
        {
            return Ok(first);
        }
        let first = match self.part {
            Part::Long(field) => {
                let date = DateTime::from_timestamp_micros(local).ok_or_else(out_of_range)?.date_naive();
                let first = field.first_day(date).ok_or_else(out_of_range)?;
                first.and_time(NaiveTime::MIN).and_utc().timestamp_micros()
            }
            _ => day.checked_mul(DAY).ok_or_else(out_of_range)?,
        };
        let first = shift(self.zone, first, false)?;
        self.last = Some((day, first));
        Ok(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn truncated(unit: &str, zone: &str, time: &str) -> String {
        let function = TruncateAt { signature: Signature::any(3, Volatility::Immutable), of_session: false };
        let time = DateTime::parse_from_rfc3339(time).unwrap().timestamp_micros();
        let first = function.cutter(unit, zone).unwrap().truncate(time).unwrap();
        DateTime::from_timestamp_micros(first).unwrap().to_rfc3339()
    }

    #[test]
    fn an_hour_that_is_shown_twice_begins_twice() {
        let zone = "Europe/Berlin";
        assert_eq!(truncated("hour", zone, "2024-10-27T00:30:00Z"), "2024-10-27T00:00:00+00:00");
        assert_eq!(truncated("hours", zone, "2024-10-27T01:30:00Z"), "2024-10-27T01:00:00+00:00");
        assert_eq!(truncated("hour", "Asia/Kolkata", "2024-10-27T01:45:00Z"), "2024-10-27T01:30:00+00:00");
    }

    #[test]
    fn days_and_longer_begin_by_the_clock() {
        let zone = "Europe/Berlin";
        assert_eq!(truncated("day", zone, "2024-10-27T22:59:59Z"), "2024-10-26T22:00:00+00:00");
        assert_eq!(truncated("day", zone, "2024-10-27T23:00:00Z"), "2024-10-27T23:00:00+00:00");
        assert_eq!(truncated("week", zone, "2024-10-27T22:00:00Z"), "2024-10-20T22:00:00+00:00");
        assert_eq!(truncated("year", zone, "2024-07-01T00:00:00Z"), "2023-12-31T23:00:00+00:00");
        assert_eq!(truncated("century", zone, "2024-07-01T00:00:00Z"), "2000-12-31T23:00:00+00:00");
    }

    #[test]
    fn units_and_zones_may_differ_from_row_to_row() {
        let function = TruncateAt { signature: Signature::any(3, Volatility::Immutable), of_session: false };
        let times = TimestampMicrosecondArray::from(vec![Some(5_400_000_000), Some(5_400_000_000), None, Some(0)]);
        let units: ArrayRef = Arc::new(StringViewArray::from(vec![Some("hour"), Some("day"), Some("day"), None]));
        let zones: ArrayRef = Arc::new(StringViewArray::from(vec!["UTC", "Asia/Tokyo", "UTC", "UTC"]));
        let truncated = function.truncate_each(&times, &units, &zones).unwrap();
        let expected = vec![Some(3_600_000_000), Some(-32_400_000_000), None, None];
        assert_eq!(truncated, TimestampMicrosecondArray::from(expected));
        assert_eq!(function.cutter("fortnight", "UTC").unwrap_err().sqlstate(), "22023");
        assert_eq!(function.cutter("day", "Nope/Nope").unwrap_err().sqlstate(), "22023");
    }
}
