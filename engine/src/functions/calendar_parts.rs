//! `extract` and `date_part` of centuries and other parts of the calendar that DataFusion does not know.
//!
//! | field | of a date or timestamp | of an interval |
//! |---|---|---|
//! | `decade` | the year divided by 10 | the same |
//! | `century` | the 1st is that of the years 1 to 100 | the years divided by 100 |
//! | `millennium` | the 1st is that of the years 1 to 1000 | the years divided by 1000 |
//! | `julian` | days since 4714 BC, with the part of the day of a timestamp | – |

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Date32Type, Int64Type, IntervalMonthDayNanoType, IntervalUnit, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::common::utils::take_function_args;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, lit,
};

use crate::Error;
use crate::error::sqlstate;
use crate::sql::types::name_of;

/// The name of the functions; the time is their second argument, as that of `date_part` is.
pub(crate) const CALENDAR_PART: &str = "calendar_part";

const WHOLE: DataType = DataType::Decimal128(10, 0);

/// A day and its part, with the digits that PostgreSQL shows.
const DAY_AND_PART: DataType = DataType::Decimal128(30, 20);

const MICROSECONDS_PER_DAY: i64 = 86_400_000_000;

/// The Julian day of 1970-01-01.
const JULIAN_EPOCH: i128 = 2_440_588;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Field {
    Decade,
    Century,
    Millennium,
    Julian,
}

impl Field {
    fn named(part: &Expr) -> Option<Field> {
        let Expr::Literal(part, _) = part else { return None };
        // The parser leaves the quotes in `extract('century' FROM d)`.
        let name = part.try_as_str().flatten()?.trim_matches('\'').to_ascii_lowercase();
        Some(match name.as_str() {
            "decade" | "decades" | "dec" | "decs" => Field::Decade,
            "century" | "centuries" | "cent" | "c" => Field::Century,
            "millennium" | "millennia" | "mil" | "mils" => Field::Millennium,
            "julian" | "jd" | "j" => Field::Julian,
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Field::Decade => "decade",
            Field::Century => "century",
            Field::Millennium => "millennium",
            Field::Julian => "julian",
        }
    }

    /// That of the day so many days after 1970-01-01.
    fn of_day(self, days: i64) -> i128 {
        let year = year_of(days);
        // There is no year 0: what is 0 here is the year before 1, and belongs to the first century before.
        let counted = |years: i64| match year {
            1.. => (year + years - 1) / years,
            _ => -((years - year) / years),
        };
        match self {
            Field::Decade => year.div_euclid(10).into(),
            Field::Century => counted(100).into(),
            Field::Millennium => counted(1000).into(),
            Field::Julian => JULIAN_EPOCH + i128::from(days),
        }
    }

    /// That of an interval of so many years; `None`: it has none.
    fn of_years(self, years: i32) -> Option<i128> {
        Some(match self {
            Field::Decade => (years / 10).into(),
            Field::Century => (years / 100).into(),
            Field::Millennium => (years / 1000).into(),
            Field::Julian => return None,
        })
    }

    fn not_of(self, data_type: &DataType) -> Error {
        let message = format!("unit \"{}\" not supported for type {}", self.name(), name_of(data_type));
        Error::new(sqlstate::FEATURE_NOT_SUPPORTED, message)
    }
}

/// Whether the first argument of `date_part` names such a field.
pub(crate) fn is_calendar_part(part: &Expr) -> bool {
    Field::named(part).is_some()
}

/// That field of a time; `None` if it is another one.
pub(crate) fn calendar_part(part: &Expr, time: Expr) -> Option<Expr> {
    let field = Field::named(part)?;
    let function = ScalarUDF::from(CalendarPart { field, signature: Signature::any(2, Volatility::Immutable) });
    Some(function.call(vec![lit(field.name()), time]))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct CalendarPart {
    field: Field,
    signature: Signature,
}

impl ScalarUDFImpl for CalendarPart {
    fn name(&self) -> &str {
        CALENDAR_PART
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, argument_types: &[DataType]) -> DataFusionResult<DataType> {
        use DataType::{Date32, Interval, Null, Time32, Time64, Timestamp};
        match (self.field, argument_types) {
            (Field::Julian, [_, Timestamp(..)]) => Ok(DAY_AND_PART),
            (_, [_, Null | Date32 | Timestamp(..)]) => Ok(WHOLE),
            (Field::Decade | Field::Century | Field::Millennium, [_, Interval(_)]) => Ok(WHOLE),
            (field, [_, other @ (Interval(_) | Time32(_) | Time64(_))]) => Err(field.not_of(other).into()),
            (_, types) => {
                let types: Vec<String> = types.iter().skip(1).map(name_of).collect();
                let message = format!("function date_part(unknown, {}) does not exist", types.join(", "));
                Err(Error::new(sqlstate::UNDEFINED_FUNCTION, message).into())
            }
        }
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let rows = arguments.number_rows;
        let [_, time] = take_function_args(self.name(), arguments.args)?;
        let constant = matches!(time, ColumnarValue::Scalar(_));
        let parts: ArrayRef = Arc::new(parts_of(self.field, &time.to_array(if constant { 1 } else { rows })?)?);
        Ok(match constant {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&parts, 0)?),
            false => ColumnarValue::Array(parts),
        })
    }
}

fn parts_of(field: Field, times: &ArrayRef) -> DataFusionResult<Decimal128Array> {
    let whole: Decimal128Array = match times.data_type() {
        DataType::Null => Decimal128Array::new_null(times.len()),
        DataType::Date32 => times.as_primitive::<Date32Type>().unary(|days| field.of_day(days.into())),
        DataType::Timestamp(_, zone) => {
            let microseconds = cast(times, &DataType::Timestamp(TimeUnit::Microsecond, zone.clone()))?;
            let microseconds = cast(&microseconds, &DataType::Int64)?;
            let microseconds = microseconds.as_primitive::<Int64Type>();
            if field == Field::Julian {
                let days: Decimal128Array = microseconds.unary(julian_in);
                return Ok(days.with_precision_and_scale(30, 20)?);
            }
            microseconds.unary(|microseconds| field.of_day(microseconds.div_euclid(MICROSECONDS_PER_DAY)))
        }
        DataType::Interval(_) if field != Field::Julian => {
            let intervals = cast(times, &DataType::Interval(IntervalUnit::MonthDayNano))?;
            let intervals = intervals.as_primitive::<IntervalMonthDayNanoType>();
            intervals.unary(|interval| field.of_years(interval.months / 12).unwrap_or_default())
        }
        other => return Err(field.not_of(other).into()),
    };
    Ok(whole.with_precision_and_scale(10, 0)?)
}

/// The Julian day of an instant with 20 digits behind the point.
fn julian_in(microseconds: i64) -> i128 {
    const UNIT: i128 = 10_i128.pow(20);
    let per_day = i128::from(MICROSECONDS_PER_DAY);
    let day = JULIAN_EPOCH + i128::from(microseconds.div_euclid(MICROSECONDS_PER_DAY));
    let within = i128::from(microseconds.rem_euclid(MICROSECONDS_PER_DAY));
    day * UNIT + (within * UNIT + per_day / 2) / per_day
}

/// The year of the day so many days after 1970-01-01; 0 is 1 BC. Years are counted from March, whose leap day is the last.
fn year_of(days: i64) -> i64 {
    const DAYS_PER_ERA: i64 = 146_097;
    let since_era = days + 719_468;
    let (era, day) = (since_era.div_euclid(DAYS_PER_ERA), since_era.rem_euclid(DAYS_PER_ERA));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    // The first of January is the 307th day.
    era * 400 + year + i64::from(day_of_year >= 306)
}

#[cfg(test)]
mod tests {
    use arrow::array::{Date32Array, IntervalMonthDayNanoArray, TimestampMicrosecondArray};
    use arrow::datatypes::IntervalMonthDayNano;

    use super::*;

    #[test]
    fn years_begin_in_january() {
        for (days, year) in [
            (0, 1970),
            (-1, 1969),
            (11_016, 2000),
            (10_957, 2000),
            (10_956, 1999),
            (11_322, 2000),
            (11_323, 2001),
            (-719_162, 1),
            (-719_163, 0),
            (2_932_896, 9999),
        ] {
            assert_eq!(year_of(days), year, "{days}");
        }
    }

    #[test]
    fn fields_are_those_of_postgresql() {
        let of = |field, times: ArrayRef| parts_of(field, &times).unwrap().value(0);
        let day = |days| -> ArrayRef { Arc::new(Date32Array::from(vec![days])) };
        assert_eq!(of(Field::Century, day(11_322)), 20);
        assert_eq!(of(Field::Century, day(11_323)), 21);
        assert_eq!(of(Field::Century, day(-719_163)), -1);
        assert_eq!(of(Field::Millennium, day(11_322)), 2);
        assert_eq!(of(Field::Decade, day(10_956)), 199);
        assert_eq!(of(Field::Julian, day(13_149)), 2_453_737);
        let noon = vec![13_149 * MICROSECONDS_PER_DAY + 43_200_000_000];
        let noon: ArrayRef = Arc::new(TimestampMicrosecondArray::from(noon));
        assert_eq!(of(Field::Julian, noon), 24_537_375 * 10_i128.pow(19));
        let interval = IntervalMonthDayNano::new(-12 * 150, 0, 0);
        assert_eq!(of(Field::Century, Arc::new(IntervalMonthDayNanoArray::from(vec![interval]))), -1);
    }
}
