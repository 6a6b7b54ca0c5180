//! `date_part('timezone', t)`, `'timezone_hour'` and `'timezone_minute'` of a timestamp with time zone: how far the session's
//! clock is ahead of UTC then.
//!
//! It is the difference between the clock's time and the instant. The first is a cast, which [`crate::sql::rules::session_zone`]
//! makes by the session's zone.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{Expr, Operator, ScalarUDF, Volatility, binary_expr, cast, lit};

use super::by_rows::ByRows;
use crate::error::sqlstate;
use crate::sql::types::name_of;
use crate::{Error, Result};

const LOCAL: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

/// `seconds_ahead(local time, instant)`
static SECONDS_AHEAD: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| {
    let seconds_ahead = ByRows {
        name: "seconds_ahead",
        volatility: Volatility::Immutable,
        strict: true,
        takes: |types| (types.len() == 2).then(|| vec![LOCAL, instants()]),
        gives: |_| DataType::Int32,
        compute: seconds_between,
    };
    seconds_ahead.function()
});

fn instants() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

fn seconds_between(values: &[ScalarValue]) -> Result<ScalarValue> {
    match values {
        [ScalarValue::TimestampMicrosecond(Some(local), _), ScalarValue::TimestampMicrosecond(Some(instant), _)] => {
            let seconds = local.saturating_sub(*instant) / 1_000_000;
            Ok(ScalarValue::Int32(i32::try_from(seconds).ok()))
        }
        _ => Err(Error::internal("two timestamps were expected")),
    }
}

#[derive(Debug, Clone, Copy)]
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
}

/// Whether the first argument of `date_part` names such a field.
pub(crate) fn is_zone_part(part: &Expr) -> bool {
    Field::named(part).is_some()
}

/// That field of a time, an integer; `None` if it is another one.
pub(crate) fn zone_part(part: &Expr, time: Expr, data_type: &DataType) -> DataFusionResult<Option<Expr>> {
    let Some(field) = Field::named(part) else { return Ok(None) };
    if !matches!(data_type, DataType::Timestamp(_, Some(_)) | DataType::Null) {
        let message = format!("unit \"{}\" not supported for type {}", field.name(), name_of(data_type));
        return Err(Error::new(sqlstate::FEATURE_NOT_SUPPORTED, message).into());
    }
    let seconds = SECONDS_AHEAD.call(vec![cast(time.clone(), LOCAL), cast(time, instants())]);
    let divided = |by: i32| binary_expr(seconds.clone(), Operator::Divide, lit(by));
    Ok(Some(match field {
        Field::Seconds => seconds,
        Field::Hours => divided(3_600),
        Field::Minutes => binary_expr(divided(60), Operator::Modulo, lit(60_i32)),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_ahead_or_behind() {
        let time = |microseconds| ScalarValue::TimestampMicrosecond(Some(microseconds), None);
        let ahead = |local, instant| seconds_between(&[time(local), time(instant)]).unwrap();
        assert_eq!(ahead(19_800_000_000, 0), ScalarValue::Int32(Some(19_800)));
        assert_eq!(ahead(0, 14_400_000_000), ScalarValue::Int32(Some(-14_400)));
    }

    #[test]
    fn fields_are_of_instants() {
        assert!(is_zone_part(&lit("TIMEZONE_HOUR")) && !is_zone_part(&lit("hour")));
        assert!(zone_part(&lit("timezone"), lit(1), &LOCAL).is_err());
        assert!(zone_part(&lit("timezone"), lit(1), &instants()).unwrap().is_some());
        assert!(zone_part(&lit("hour"), lit(1), &instants()).unwrap().is_none());
    }
}
