//! `timezone(zone, timestamp)`, which is what `timestamp AT TIME ZONE zone` means.
//!
//! DataFusion makes a cast of it: a timestamp with time zone stays one, shown by other clocks, and the name of a zone that
//! does not exist reaches the client. Here, as in PostgreSQL, a timestamp with time zone becomes the local time of the
//! zone, without one; a timestamp without is taken for the zone's local time.

use std::str::FromStr;
use std::sync::Arc;

use arrow::array::timezone::Tz;
use arrow::array::{Array, AsArray, TimestampMicrosecondArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use chrono::{DateTime, NaiveDateTime, Offset, TimeDelta, TimeZone};
use datafusion::common::{ScalarValue, exec_err, utils::take_function_args};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use crate::error::sqlstate;
use crate::{Error, Result};

/// What AT TIME ZONE is rewritten to.
pub(crate) const TIMEZONE: &str = "timezone";

/// The functions of this file.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    vec![timezone()]
}

/// `timezone(zone, timestamp)`
pub(crate) fn timezone() -> Arc<ScalarUDF> {
    Arc::new(AtTimeZone { signature: Signature::any(2, Volatility::Immutable) }.into())
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct AtTimeZone {
    signature: Signature,
}

/// The type of instants.
fn instants() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

const LOCAL: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

impl ScalarUDFImpl for AtTimeZone {
    fn name(&self) -> &str {
        TIMEZONE
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, argument_types: &[DataType]) -> DataFusionResult<DataType> {
        match argument_types {
            // A text is read as a timestamp with time zone.
            [_, DataType::Timestamp(_, Some(_)) | DataType::Date32] => Ok(LOCAL),
            [_, text] if text.is_string() => Ok(LOCAL),
            [_, DataType::Timestamp(_, None) | DataType::Null] => Ok(instants()),
            [_, other] => {
                let message = format!("AT TIME ZONE does not take a {}", crate::sql::types::name_of(other));
                Err(Error::new(sqlstate::UNDEFINED_FUNCTION, message).into())
            }
            _ => exec_err!("timezone takes 2 arguments"),
        }
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let constant = arguments.args.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { arguments.number_rows };
        let [zone, time] = take_function_args(self.name(), arguments.args)?;
        let of_instants = !matches!(time.data_type(), DataType::Timestamp(_, None) | DataType::Null);
        let times = cast(&time.to_array(rows)?, &if of_instants { instants() } else { LOCAL })?;
        let times = times.as_primitive::<TimestampMicrosecondType>();
        let zones = cast(&zone.to_array(rows)?, &DataType::Utf8View)?;
        let zones = zones.as_string_view();
        let mut known: Option<(String, Tz)> = None;
        let mut converted = Vec::with_capacity(rows);
        for row in 0..rows {
            if zones.is_null(row) || times.is_null(row) {
                converted.push(None);
                continue;
            }
            let name = zones.value(row);
            let zone = match &known {
                Some((last, zone)) if last == name => *zone,
                _ => {
                    let zone = zone_of(name)?;
                    known = Some((name.to_owned(), zone));
                    zone
                }
            };
            converted.push(Some(shift(zone, times.value(row), of_instants)?));
        }
        let converted = TimestampMicrosecondArray::from(converted);
        let converted = if of_instants { converted } else { converted.with_timezone("UTC") };
        match constant {
            true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&converted, 0)?)),
            false => Ok(ColumnarValue::Array(Arc::new(converted))),
        }
    }
}

/// The zone of this name.
pub(crate) fn zone_of(name: &str) -> Result<Tz> {
    Tz::from_str(name)
        .map_err(|_| Error::new(sqlstate::INVALID_PARAMETER_VALUE, format!("time zone \"{name}\" not recognized")))
}

/// From an instant to local time, or back. What a clock skips is as it would be without the change.
pub(crate) fn shift(zone: Tz, microseconds: i64, to_local: bool) -> Result<i64> {
    let out_of_range = || Error::new(sqlstate::DATETIME_OVERFLOW, "timestamp out of range");
    let time: NaiveDateTime = DateTime::from_timestamp_micros(microseconds).ok_or_else(out_of_range)?.naive_utc();
    let seconds = match to_local {
        true => i64::from(zone.offset_from_utc_datetime(&time).fix().local_minus_utc()),
        false => {
            let offset = match zone.offset_from_local_datetime(&time) {
                chrono::LocalResult::Single(offset) => offset,
                // The later instant, at the zone's standard time.
                chrono::LocalResult::Ambiguous(_, later) => later,
                chrono::LocalResult::None => {
                    let before = time.checked_sub_signed(TimeDelta::hours(3)).ok_or_else(out_of_range)?;
                    zone.offset_from_utc_datetime(&before)
                }
            };
            -i64::from(offset.fix().local_minus_utc())
        }
    };
    microseconds.checked_add(seconds * 1_000_000).ok_or_else(out_of_range)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_times_follow_the_zone() {
        let zone = zone_of("America/New_York").unwrap();
        let hour = 3_600_000_000i64;
        let noon = DateTime::parse_from_rfc3339("2024-07-01T12:00:00Z").unwrap().timestamp_micros();
        assert_eq!(shift(zone, noon, true).unwrap(), noon - 4 * hour);
        assert_eq!(shift(zone, noon, false).unwrap(), noon + 4 * hour);
        assert_eq!(zone_of("Nope/Nope").unwrap_err().sqlstate(), "22023");
    }
}
