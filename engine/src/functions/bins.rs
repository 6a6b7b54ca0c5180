//! `date_bin(stride, time, origin)` over all years. DataFusion's counts in nanoseconds, which reach from 1677 to 2262.
//!
//! Calls with timestamps of microseconds or less become calls of this function ([`crate::sql::rules::mixed_types`]). DataFusion's own
//! is left for what PostgreSQL has not: times of day, no origin, and strides of months.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, TimestampMicrosecondArray};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit, TimeUnit, TimestampMicrosecondType,
};
use datafusion::common::{ScalarValue, utils::take_function_args};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, cast as cast_expr,
};

use crate::error::sqlstate;
use crate::{Error, Result};

const MICROSECONDS_PER_DAY: i64 = 86_400_000_000;

static BIN: LazyLock<Arc<ScalarUDF>> =
    LazyLock::new(|| Arc::new(ScalarUDF::from(Bin { signature: Signature::any(3, Volatility::Immutable) })));

/// The call for arguments of these types; `None` if it is DataFusion's business.
pub(crate) fn bin(arguments: &[Expr], types: &[DataType]) -> Option<Expr> {
    let ([stride, time, origin], [stride_type, time_type, origin_type]) = (arguments, types) else { return None };
    if let Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(interval)), _) = stride
        && interval.months != 0
    {
        return None;
    }
    let (stride_fits, zone) = match (stride_type, time_type) {
        (_, DataType::Timestamp(TimeUnit::Nanosecond, _)) => return None,
        (stride, DataType::Timestamp(_, zone)) => (matches!(stride, DataType::Interval(_)) || stride.is_string(), zone),
        _ => return None,
    };
    let origin_fits = match origin_type {
        // Between a clock's time and an instant lies the session's zone.
        DataType::Timestamp(unit, other) => *unit != TimeUnit::Nanosecond && other.is_some() == zone.is_some(),
        DataType::Date32 => zone.is_none(),
        text => text.is_string() && matches!(origin, Expr::Literal(..)),
    };
    if !stride_fits || !origin_fits {
        return None;
    }
    let kind = DataType::Timestamp(TimeUnit::Microsecond, zone.clone());
    let stride = cast_expr(stride.clone(), DataType::Interval(IntervalUnit::MonthDayNano));
    Some(BIN.call(vec![stride, cast_expr(time.clone(), kind.clone()), cast_expr(origin.clone(), kind)]))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Bin {
    signature: Signature,
}

impl ScalarUDFImpl for Bin {
    fn name(&self) -> &str {
        "bin_of_time"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, argument_types: &[DataType]) -> DataFusionResult<DataType> {
        Ok(argument_types.get(1).cloned().unwrap_or(DataType::Null))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let wanted = arguments.return_type().clone();
        let constant = arguments.args.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { arguments.number_rows };
        let [strides, times, origins] = take_function_args(self.name(), arguments.args)?;
        let strides = cast(&strides.to_array(rows)?, &DataType::Interval(IntervalUnit::MonthDayNano))?;
        let (times, origins) = (cast(&times.to_array(rows)?, &wanted)?, cast(&origins.to_array(rows)?, &wanted)?);
        let strides = strides.as_primitive::<IntervalMonthDayNanoType>();
        let times = times.as_primitive::<TimestampMicrosecondType>();
        let origins = origins.as_primitive::<TimestampMicrosecondType>();
        let mut bins = Vec::with_capacity(rows);
        for row in 0..rows {
            bins.push(match strides.is_valid(row) && times.is_valid(row) && origins.is_valid(row) {
                true => Some(start_of_bin(strides.value(row), times.value(row), origins.value(row))?),
                false => None,
            });
        }
        let zone = match &wanted {
            DataType::Timestamp(_, zone) => zone.clone(),
            _ => None,
        };
        let bins: ArrayRef = Arc::new(TimestampMicrosecondArray::from(bins).with_timezone_opt(zone));
        Ok(match constant {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&bins, 0)?),
            false => ColumnarValue::Array(bins),
        })
    }
}

/// The start of the bin that a time is in, also if that is before the origin. All but the stride is in microseconds.
fn start_of_bin(stride: IntervalMonthDayNano, time: i64, origin: i64) -> Result<i64> {
    if stride.months != 0 {
        return Err(Error::unsupported("date_bin of intervals with months or years"));
    }
    let out_of_range = |what: &str| Error::new(sqlstate::DATETIME_OVERFLOW, format!("{what} out of range"));
    let width = i64::from(stride.days).checked_mul(MICROSECONDS_PER_DAY);
    let width = width.and_then(|days| days.checked_add(stride.nanoseconds / 1_000));
    let width = width.ok_or_else(|| out_of_range("interval"))?;
    if width <= 0 {
        return Err(Error::new(sqlstate::DATETIME_OVERFLOW, "stride must be greater than zero"));
    }
    let since = time.checked_sub(origin).ok_or_else(|| out_of_range("interval"))?;
    time.checked_sub(since.rem_euclid(width)).ok_or_else(|| out_of_range("timestamp"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_begin_before_what_is_in_them() {
        let day = IntervalMonthDayNano::new(0, 1, 0);
        for (time, expected) in
            [(0, 0), (1, 0), (-1, -MICROSECONDS_PER_DAY), (MICROSECONDS_PER_DAY, MICROSECONDS_PER_DAY)]
        {
            assert_eq!(start_of_bin(day, time + 7, 7).unwrap(), expected + 7, "{time}");
        }
        assert_eq!(start_of_bin(IntervalMonthDayNano::new(0, 0, -1_000), 0, 0).unwrap_err().sqlstate(), "22008");
        assert_eq!(start_of_bin(IntervalMonthDayNano::new(1, 0, 0), 0, 0).unwrap_err().sqlstate(), "0A000");
    }
}
