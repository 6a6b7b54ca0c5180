//! `date_part('timezone', t)`, `'timezone_hour'` and `'timezone_minute'` of a timestamp with time zone: how far the session's
//! clock is ahead of UTC then.
//!
//! Planned as `zone_part('timezone', t, 'UTC')`, in which [`crate::sql::rules::session_zone`] writes the session's zone.

use std::sync::Arc;

use arrow::array::timezone::Tz;
use arrow::array::{ArrayRef, AsArray, Int32Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimestampMicrosecondType};
use datafusion::common::{ScalarValue, utils::take_function_args};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, lit,
};

use super::zones::{instants, shift, zone_of};
use crate::error::sqlstate;
use crate::sql::types::name_of;
use crate::{Error, Result};

/// The name of the functions. Their arguments are the field, the time and the zone.
pub(crate) const ZONE_PART: &str = "zone_part";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Field {
    Seconds,
    Hours,
    Minutes,
}

impl Field {
    fn named(part: &Expr) -> Option<Field> {
        let Expr::Literal(part, _) = part else { return None };
        match part.try_as_str().flatten()?.trim_matches('\'').to_ascii_lowercase().as_str() {
            "timezone" => Some(Field::Seconds),
            "timezone_hour" | "timezone_h" => Some(Field::Hours),
            "timezone_minute" | "timezone_m" => Some(Field::Minutes),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Field::Seconds => "timezone",
            Field::Hours => "timezone_hour",
            Field::Minutes => "timezone_minute",
        }
    }

    /// That of a clock which is so many seconds ahead.
    fn of(self, seconds: i32) -> i32 {
        match self {
            Field::Seconds => seconds,
            Field::Hours => seconds / 3_600,
            Field::Minutes => seconds / 60 % 60,
        }
    }
}

/// Whether the first argument of `date_part` names such a field.
pub(crate) fn is_zone_part(part: &Expr) -> bool {
    Field::named(part).is_some()
}

/// [Such a field](is_zone_part) of a time, an integer.
pub(crate) fn zone_part(part: &Expr, time: Expr, data_type: &DataType) -> DataFusionResult<Expr> {
    let Some(field) = Field::named(part) else {
        return Err(Error::internal("a field of time zones was expected").into());
    };
    if !matches!(data_type, DataType::Timestamp(_, Some(_)) | DataType::Null) {
        let message = format!("unit \"{}\" not supported for type {}", field.name(), name_of(data_type));
        return Err(Error::new(sqlstate::FEATURE_NOT_SUPPORTED, message).into());
    }
    let function = ScalarUDF::from(ZonePart { field, signature: Signature::any(3, Volatility::Immutable) });
    Ok(function.call(vec![lit(field.name()), time, lit("UTC")]))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ZonePart {
    field: Field,
    signature: Signature,
}

impl ScalarUDFImpl for ZonePart {
    fn name(&self) -> &str {
        ZONE_PART
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _argument_types: &[DataType]) -> DataFusionResult<DataType> {
        Ok(DataType::Int32)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let rows = arguments.number_rows;
        let [_, time, zone] = take_function_args(self.name(), arguments.args)?;
        let zone = match &zone {
            ColumnarValue::Scalar(name) => name.try_as_str().flatten(),
            ColumnarValue::Array(_) => None,
        };
        let zone = zone_of(zone.ok_or_else(|| Error::internal("the zone of a session was expected"))?)?;
        let constant = matches!(time, ColumnarValue::Scalar(_));
        let parts: ArrayRef = Arc::new(parts_of(self.field, &time.to_array(if constant { 1 } else { rows })?, zone)?);
        Ok(match constant {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&parts, 0)?),
            false => ColumnarValue::Array(parts),
        })
    }
}

fn parts_of(field: Field, times: &ArrayRef, zone: Tz) -> Result<Int32Array> {
    let times = cast(times, &instants())?;
    times.as_primitive::<TimestampMicrosecondType>().try_unary(|instant| -> Result<i32> {
        let seconds = shift(zone, instant, true)?.saturating_sub(instant) / 1_000_000;
        let seconds = i32::try_from(seconds).map_err(|_| Error::internal("a clock is years ahead"))?;
        Ok(field.of(seconds))
    })
}

#[cfg(test)]
mod tests {
    use arrow::array::TimestampMicrosecondArray;
    use arrow::datatypes::TimeUnit;

    use super::*;

    #[test]
    fn a_clock_is_ahead_or_behind() {
        let of = |field, zone| {
            let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![Some(0), None]));
            parts_of(field, &times, zone_of(zone).unwrap()).unwrap()
        };
        assert_eq!(of(Field::Seconds, "Asia/Kolkata"), Int32Array::from(vec![Some(19_800), None]));
        assert_eq!(of(Field::Minutes, "Asia/Kolkata").value(0), 30);
        assert_eq!(of(Field::Hours, "America/New_York").value(0), -5);
        assert_eq!(of(Field::Minutes, "-03:30").value(0), -30);
        assert_eq!(of(Field::Seconds, "UTC").value(0), 0);
    }

    #[test]
    fn fields_are_of_instants() {
        assert!(is_zone_part(&lit("TIMEZONE_HOUR")) && !is_zone_part(&lit("hour")));
        let local = DataType::Timestamp(TimeUnit::Microsecond, None);
        assert!(zone_part(&lit("timezone"), lit(1), &local).is_err());
        assert!(zone_part(&lit("timezone"), lit(1), &instants()).is_ok());
        assert!(zone_part(&lit("hour"), lit(1), &instants()).is_err());
    }
}
