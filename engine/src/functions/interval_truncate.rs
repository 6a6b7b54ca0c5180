//! `date_trunc` of intervals, and PostgreSQL's other names of units: `date_trunc('hours', t)`, `date_trunc('msec', t)`. Days
//! and less of timestamps are cut here as well: DataFusion's way goes through nanoseconds, which reach from 1677 to 2262.
//!
//! | unit | what is cut off of an interval |
//! |---|---|
//! | `microsecond` to `hour` | what is shorter, days and months being left |
//! | `day`, `month` | the time, the days as well |
//! | `quarter` to `millennium` | the months beyond whole ones, and all that is shorter |
//!
//! A week is no part of an interval.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, IntervalMonthDayNanoArray, TimestampMicrosecondArray};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit, TimeUnit, TimestampMicrosecondType,
};
use datafusion::common::ScalarValue;
use datafusion::common::types::logical_string;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{
    Coercion, ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, TypeSignature, TypeSignatureClass,
};

use super::changed::Change;
use crate::error::sqlstate;
use crate::sql::rules::session_zone::is_utc;
use crate::sql::types::name_of;
use crate::{Error, Result};

/// Takes intervals as well, and knows the names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct OfIntervals {
    signature: Signature,
}

impl OfIntervals {
    /// For a function of this signature.
    pub(super) fn new(inner: &Signature) -> Self {
        let of_intervals = TypeSignature::Coercible(vec![
            Coercion::new_exact(TypeSignatureClass::Native(logical_string())),
            Coercion::new_exact(TypeSignatureClass::Interval),
        ]);
        let mut signature = inner.clone();
        signature.type_signature = TypeSignature::OneOf(match signature.type_signature {
            TypeSignature::OneOf(known) => known.into_iter().chain([of_intervals]).collect(),
            known => vec![known, of_intervals],
        });
        OfIntervals { signature }
    }
}

impl Change for OfIntervals {
    fn signature(&self) -> Option<&Signature> {
        Some(&self.signature)
    }

    fn invoke(&self, inner: &dyn ScalarUDFImpl, mut arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let [ColumnarValue::Scalar(unit), time] = arguments.args.as_slice() else {
            return inner.invoke_with_args(arguments);
        };
        let Some(Some(written)) = unit.try_as_str() else {
            return inner.invoke_with_args(arguments);
        };
        let of = time.data_type();
        let Some(unit) = unit_named(written) else {
            let message = format!("unit \"{written}\" not recognized for type {}", name_of(&of));
            return Err(Error::new(sqlstate::INVALID_PARAMETER_VALUE, message).into());
        };
        // What has nanoseconds has no other years.
        if let (DataType::Timestamp(digits, zone), Some(part)) = (&of, microseconds_in(unit))
            && *digits != TimeUnit::Nanosecond
            && zone.as_deref().is_none_or(is_utc)
        {
            let constant = matches!(time, ColumnarValue::Scalar(_));
            let times = time.to_array(if constant { 1 } else { arguments.number_rows })?;
            let truncated = cast(&truncate_times(part, &times, zone.clone())?, arguments.return_type())?;
            return Ok(match constant {
                true => ColumnarValue::Scalar(ScalarValue::try_from_array(&truncated, 0)?),
                false => ColumnarValue::Array(truncated),
            });
        }
        if !matches!(of, DataType::Interval(_)) {
            arguments.args[0] = ColumnarValue::Scalar(ScalarValue::Utf8(Some(unit.to_owned())));
            return inner.invoke_with_args(arguments);
        }
        let constant = matches!(time, ColumnarValue::Scalar(_));
        let intervals = time.to_array(if constant { 1 } else { arguments.number_rows })?;
        let truncated = cast(&truncate(unit, &intervals)?, arguments.return_type())?;
        Ok(match constant {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&truncated, 0)?),
            false => ColumnarValue::Array(truncated),
        })
    }
}

/// The name that DataFusion has for a unit.
pub(super) fn unit_named(written: &str) -> Option<&'static str> {
    Some(match written.trim().to_ascii_lowercase().as_str() {
        "microsecond" | "microseconds" | "us" | "usec" | "usecond" | "usecs" => "microsecond",
        "millisecond" | "milliseconds" | "ms" | "msec" | "msecond" | "msecs" => "millisecond",
        "second" | "seconds" | "s" | "sec" | "secs" => "second",
        "minute" | "minutes" | "m" | "min" | "mins" => "minute",
        "hour" | "hours" | "h" | "hr" | "hrs" => "hour",
        "day" | "days" | "d" => "day",
        "week" | "weeks" | "w" => "week",
        "month" | "months" | "mon" | "mons" => "month",
        "quarter" | "qtr" => "quarter",
        "year" | "years" | "y" | "yr" | "yrs" => "year",
        "decade" | "decades" | "dec" | "decs" => "decade",
        "century" | "centuries" | "c" | "cent" => "century",
        "millennium" | "millennia" | "mil" | "mils" => "millennium",
        _ => return None,
    })
}

/// The microseconds of a unit of a day, or of less.
pub(super) fn microseconds_in(unit: &str) -> Option<i64> {
    Some(match unit {
        "microsecond" => 1,
        "millisecond" => 1_000,
        "second" => 1_000_000,
        "minute" => 60_000_000,
        "hour" => 3_600_000_000,
        "day" => 86_400_000_000,
        _ => return None,
    })
}

/// Timestamps cut to parts of so many microseconds.
fn truncate_times(part: i64, times: &ArrayRef, zone: Option<Arc<str>>) -> Result<ArrayRef> {
    let times = cast(times, &DataType::Timestamp(TimeUnit::Microsecond, zone.clone()))?;
    let times = times.as_primitive::<TimestampMicrosecondType>();
    let truncated: TimestampMicrosecondArray = times.unary(|time| time.saturating_sub(time.rem_euclid(part)));
    Ok(Arc::new(truncated.with_timezone_opt(zone)))
}

fn truncate(unit: &str, intervals: &ArrayRef) -> Result<ArrayRef> {
    const SECOND: i64 = 1_000_000_000;
    // What is left: whole parts of so many nanoseconds, no time at all, or whole parts of so many months.
    let nanoseconds = match unit {
        "microsecond" => Some(1_000),
        "millisecond" => Some(1_000_000),
        "second" => Some(SECOND),
        "minute" => Some(60 * SECOND),
        "hour" => Some(3_600 * SECOND),
        _ => None,
    };
    let months = match unit {
        "month" => Some(1),
        "quarter" => Some(3),
        "year" => Some(12),
        "decade" => Some(120),
        "century" => Some(1_200),
        "millennium" => Some(12_000),
        _ => None,
    };
    if unit == "week" {
        return Err(
            Error::unsupported("unit \"week\" of an interval").with_detail("Months usually have fractional weeks.")
        );
    }
    let intervals = cast(intervals, &DataType::Interval(IntervalUnit::MonthDayNano))?;
    let truncated: IntervalMonthDayNanoArray =
        intervals.as_primitive::<IntervalMonthDayNanoType>().unary(|interval| match (nanoseconds, months) {
            (Some(part), _) => {
                let whole = interval.nanoseconds - interval.nanoseconds % part;
                IntervalMonthDayNano::new(interval.months, interval.days, whole)
            }
            (None, Some(part)) => IntervalMonthDayNano::new(interval.months - interval.months % part, 0, 0),
            (None, None) => IntervalMonthDayNano::new(interval.months, interval.days, 0),
        });
    Ok(Arc::new(truncated))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_keep_whole_units() {
        let interval = IntervalMonthDayNano::new(-12 * 215 - 5, 40, 3_723_456_789_000);
        for (unit, months, days, nanoseconds) in [
            ("microsecond", -2_585, 40, 3_723_456_789_000),
            ("millisecond", -2_585, 40, 3_723_456_000_000),
            ("hour", -2_585, 40, 3_600_000_000_000),
            ("day", -2_585, 40, 0),
            ("month", -2_585, 0, 0),
            ("quarter", -2_583, 0, 0),
            ("year", -2_580, 0, 0),
            ("century", -2_400, 0, 0),
        ] {
            let intervals: ArrayRef = Arc::new(IntervalMonthDayNanoArray::from(vec![interval]));
            let truncated = truncate(unit, &intervals).unwrap();
            let expected = IntervalMonthDayNano::new(months, days, nanoseconds);
            assert_eq!(truncated.as_primitive::<IntervalMonthDayNanoType>().value(0), expected, "{unit}");
        }
        let none: ArrayRef = Arc::new(IntervalMonthDayNanoArray::from(vec![interval]));
        assert_eq!(truncate("week", &none).unwrap_err().sqlstate(), "0A000");
        assert_eq!(unit_named("MSECS"), Some("millisecond"));
    }

    #[test]
    fn times_are_cut_over_all_years() {
        // 9999-12-31 10:11:12 and 0001-01-01 05:00:00.
        let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![
            Some(253_402_251_072_000_000),
            Some(-62_135_578_800_000_000),
            None,
        ]));
        let truncated = truncate_times(86_400_000_000, &times, None).unwrap();
        let expected = vec![Some(253_402_214_400_000_000), Some(-62_135_596_800_000_000), None];
        assert_eq!(truncated.as_primitive::<TimestampMicrosecondType>(), &TimestampMicrosecondArray::from(expected));
        assert_eq!(unit_named("fortnight"), None);
    }
}
