//! Intervals that are compared, multiplied and divided as in PostgreSQL.
//!
//! An interval is months, days and time. PostgreSQL compares intervals as if a month had 30 days and a day 24 hours, so
//! that `'1 day' = '24 hours'`; Arrow compares field by field. [`order_of`] makes a number of an interval that is ordered
//! the right way; the rule [`IntervalOrder`](super::interval_order::IntervalOrder) puts it where intervals are compared.
//! `interval * number` and `/` are planned here, because DataFusion does not know them.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, Float64Array, IntervalMonthDayNanoArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit, TimeUnit};
use datafusion::common::tree_node::TreeNode;
use datafusion::common::{DFSchema, ScalarValue, utils::take_function_args};
use datafusion::error::Result as DataFusionResult;
use datafusion::functions::datetime::date_part;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawAggregateExpr, RawBinaryExpr};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
    cast as cast_expr, lit,
};
use datafusion::sql::sqlparser::ast::BinaryOperator;

use crate::Error;
use crate::error::sqlstate;

const NANOSECONDS_PER_DAY: i128 = 86_400_000_000_000;
const DAYS_PER_MONTH: i128 = 30;

/// What an interval is compared by: nanoseconds. The longest, 2^31 months, has 5.6e24 of them.
const ORDER_TYPE: DataType = DataType::Decimal128(38, 0);

static ORDER: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Arc::new(ScalarUDF::from(Order::new())));
static EPOCH: LazyLock<Arc<ScalarUDF>> =
    LazyLock::new(|| Arc::new(ScalarUDF::from(Epoch { signature: Signature::any(1, Volatility::Immutable) })));
static SCALE: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Arc::new(ScalarUDF::from(Scale::new())));

/// The number that stands for an interval in comparisons.
pub(super) fn order_of(interval: Expr) -> Expr {
    ORDER.call(vec![interval])
}

pub(super) fn is_interval(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Interval(_))
}

/// `extract(epoch FROM interval)`.
pub(super) fn seconds_in(interval: Expr) -> Expr {
    EPOCH.call(vec![interval])
}

/// A year of 365.25 days, a month beyond whole years of 30.
fn epoch(interval: IntervalMonthDayNano) -> f64 {
    let (years, months) = (f64::from(interval.months / 12), f64::from(interval.months % 12));
    let days = years * 365.25 + months * 30.0 + f64::from(interval.days);
    days * 86_400.0 + interval.nanoseconds as f64 / 1e9
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Epoch {
    signature: Signature,
}

impl ScalarUDFImpl for Epoch {
    fn name(&self) -> &str {
        "interval_epoch"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _argument_types: &[DataType]) -> DataFusionResult<DataType> {
        Ok(DataType::Float64)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let rows = arguments.number_rows;
        let [interval] = take_function_args(self.name(), arguments.args)?;
        let intervals = as_months_days_nanoseconds(&interval, rows)?;
        let seconds: Float64Array =
            intervals.as_primitive::<IntervalMonthDayNanoType>().iter().map(|interval| interval.map(epoch)).collect();
        Ok(ColumnarValue::Array(Arc::new(seconds)))
    }
}

fn as_months_days_nanoseconds(value: &ColumnarValue, rows: usize) -> DataFusionResult<ArrayRef> {
    Ok(cast(&value.to_array(rows)?, &DataType::Interval(IntervalUnit::MonthDayNano))?)
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Order {
    signature: Signature,
}

impl Order {
    fn new() -> Self {
        Order { signature: Signature::any(1, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Order {
    fn name(&self) -> &str {
        "interval_order"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _argument_types: &[DataType]) -> DataFusionResult<DataType> {
        Ok(ORDER_TYPE)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let rows = arguments.number_rows;
        let [interval] = take_function_args(self.name(), arguments.args)?;
        let intervals = as_months_days_nanoseconds(&interval, rows)?;
        let order = |interval: IntervalMonthDayNano| {
            let days = i128::from(interval.months) * DAYS_PER_MONTH + i128::from(interval.days);
            days * NANOSECONDS_PER_DAY + i128::from(interval.nanoseconds)
        };
        let numbers: Decimal128Array =
            intervals.as_primitive::<IntervalMonthDayNanoType>().iter().map(|interval| interval.map(order)).collect();
        let numbers: ArrayRef = Arc::new(numbers.with_precision_and_scale(38, 0)?);
        Ok(ColumnarValue::Array(numbers))
    }
}

/// Plans `interval * number`, `number * interval`, `interval / number`, and `date ± interval`, which is a timestamp.
#[derive(Debug)]
pub(crate) struct IntervalPlanner;

/// Plans `extract(second FROM x)`, which has a fraction of six digits. DataFusion's is an integer.
fn seconds_of(arguments: Vec<Expr>) -> PlannerResult<Vec<Expr>> {
    let [part, time] = arguments.as_slice() else { return PlannerResult::Original(arguments) };
    if !names_seconds(part) {
        return PlannerResult::Original(arguments);
    }
    // Its nanoseconds of an interval count the seconds twice.
    let microseconds = date_part().call(vec![lit("microsecond"), time.clone()]);
    let microseconds = cast_expr(microseconds, DataType::Decimal128(10, 0));
    PlannerResult::Planned(microseconds * lit(ScalarValue::Decimal128(Some(1), 6, 6)))
}

/// Whether the first argument of `date_part` asks for seconds.
pub(super) fn names_seconds(part: &Expr) -> bool {
    let Expr::Literal(part, _) = part else { return false };
    let part = part.try_as_str().flatten().unwrap_or_default().to_ascii_lowercase();
    matches!(part.as_str(), "second" | "seconds" | "sec" | "secs" | "s")
}

/// Makes a timestamp of the date in `date ± interval`. DataFusion's stays a date and loses the time.
fn moved_date(expr: RawBinaryExpr, schema: &DFSchema) -> PlannerResult<RawBinaryExpr> {
    let is_date = |side: &Expr| matches!(side.get_type(schema), Ok(DataType::Date32));
    let moves = |side: &Expr| side.get_type(schema).is_ok_and(|data_type| is_interval(&data_type));
    let RawBinaryExpr { op, mut left, mut right } = expr;
    let timestamp = |date: Expr| cast_expr(date, DataType::Timestamp(TimeUnit::Microsecond, None));
    if is_date(&left) && moves(&right) {
        left = timestamp(left);
    } else if is_date(&right) && moves(&left) && op == BinaryOperator::Plus {
        right = timestamp(right);
    }
    PlannerResult::Original(RawBinaryExpr { op, left, right })
}

impl ExprPlanner for IntervalPlanner {
    /// Aggregates are told apart by their names, in which casts are not seen: `max(z::date)` and `max(z::text)` were one.
    fn plan_aggregate(&self, mut expr: RawAggregateExpr) -> DataFusionResult<PlannerResult<RawAggregateExpr>> {
        for argument in &mut expr.args {
            let casts = argument.exists(|part| Ok(matches!(part, Expr::Cast(_) | Expr::TryCast(_))))?;
            if casts && !matches!(argument, Expr::Alias(_)) {
                let name = argument.to_string();
                *argument = argument.clone().alias(name);
            }
        }
        Ok(PlannerResult::Original(expr))
    }

    fn plan_extract(&self, arguments: Vec<Expr>) -> DataFusionResult<PlannerResult<Vec<Expr>>> {
        Ok(seconds_of(arguments))
    }

    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> DataFusionResult<PlannerResult<RawBinaryExpr>> {
        let divides = match expr.op {
            BinaryOperator::Multiply => false,
            BinaryOperator::Divide => true,
            BinaryOperator::Plus | BinaryOperator::Minus => return Ok(moved_date(expr, schema)),
            _ => return Ok(PlannerResult::Original(expr)),
        };
        let (Ok(left), Ok(right)) = (expr.left.get_type(schema), expr.right.get_type(schema)) else {
            return Ok(PlannerResult::Original(expr));
        };
        let RawBinaryExpr { op, left: left_expr, right: right_expr } = expr;
        let (interval, number) = match (is_interval(&left), is_interval(&right)) {
            (true, false) if right.is_numeric() => (left_expr, right_expr),
            (false, true) if left.is_numeric() && !divides => (right_expr, left_expr),
            _ => {
                return Ok(PlannerResult::Original(RawBinaryExpr { op, left: left_expr, right: right_expr }));
            }
        };
        let number = number.cast_to(&DataType::Float64, schema)?;
        Ok(PlannerResult::Planned(SCALE.call(vec![interval, number, lit(divides)])))
    }
}

/// `scale_interval(interval, number, divides)`
#[derive(Debug, PartialEq, Eq, Hash)]
struct Scale {
    signature: Signature,
}

impl Scale {
    fn new() -> Self {
        Scale { signature: Signature::any(3, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Scale {
    fn name(&self) -> &str {
        "scale_interval"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _argument_types: &[DataType]) -> DataFusionResult<DataType> {
        Ok(DataType::Interval(IntervalUnit::MonthDayNano))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let rows = arguments.number_rows;
        let [interval, number, divides] = take_function_args(self.name(), arguments.args)?;
        let intervals = as_months_days_nanoseconds(&interval, rows)?;
        let intervals = intervals.as_primitive::<IntervalMonthDayNanoType>();
        let numbers = cast(&number.to_array(rows)?, &DataType::Float64)?;
        let numbers = numbers.as_primitive::<Float64Type>();
        let divides = divides.to_array(rows)?;
        let divides = divides.as_boolean();
        let mut scaled = Vec::with_capacity(rows);
        for row in 0..rows {
            scaled.push(match intervals.is_valid(row) && numbers.is_valid(row) {
                true => Some(scale(intervals.value(row), numbers.value(row), divides.value(row))?),
                false => None,
            });
        }
        let scaled: ArrayRef = Arc::new(IntervalMonthDayNanoArray::from(scaled));
        Ok(ColumnarValue::Array(scaled))
    }
}

/// As PostgreSQL scales: what is not a whole month becomes days, what is not a whole day becomes time.
fn scale(interval: IntervalMonthDayNano, number: f64, divides: bool) -> crate::Result<IntervalMonthDayNano> {
    if divides && number == 0.0 {
        return Err(Error::new(sqlstate::DIVISION_BY_ZERO, "division by zero"));
    }
    let scaled = |value: f64| if divides { value / number } else { value * number };
    let out_of_range = || Error::new(sqlstate::DATETIME_OVERFLOW, "interval out of range");
    let whole = |value: f64| -> crate::Result<i32> {
        match value.is_finite() && (f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&value.trunc()) {
            true => Ok(value.trunc() as i32),
            false => Err(out_of_range()),
        }
    };
    // Binary fractions of decimal ones are rounded to what a microsecond can tell.
    let tidy = |value: f64| (value * 1e6).round() / 1e6;
    let months = scaled(f64::from(interval.months));
    let days = scaled(f64::from(interval.days));
    let (whole_months, whole_days) = (whole(months)?, whole(days)?);
    let from_months = tidy((months - f64::from(whole_months)) * 30.0);
    let from_days = tidy(days - f64::from(whole_days));
    let extra_days = whole(from_months)?;
    let rest = tidy(from_days + (from_months - f64::from(extra_days)));
    let nanoseconds = scaled(interval.nanoseconds as f64) + rest * 86_400e9;
    let microseconds = (nanoseconds / 1e3).round();
    if !microseconds.is_finite() || microseconds.abs() > (i64::MAX / 1000) as f64 {
        return Err(out_of_range());
    }
    let days = whole_days.checked_add(extra_days).ok_or_else(out_of_range)?;
    Ok(IntervalMonthDayNano::new(whole_months, days, microseconds as i64 * 1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_scaled_as_in_postgresql() {
        let hour = 3_600_000_000_000;
        for (interval, number, divides, expected) in [
            ((0, 1, 0), 2.0, false, (0, 2, 0)),
            ((0, 1, 0), 2.0, true, (0, 0, 12 * hour)),
            ((1, 0, 0), 0.5, false, (0, 15, 0)),
            ((1, 0, 0), 3.0, true, (0, 10, 0)),
            ((13, 0, 0), 2.0, true, (6, 15, 0)),
            ((0, 0, hour), -1.5, false, (0, 0, -hour * 3 / 2)),
        ] {
            let (months, days, nanoseconds) = interval;
            let scaled = scale(IntervalMonthDayNano::new(months, days, nanoseconds), number, divides).unwrap();
            assert_eq!((scaled.months, scaled.days, scaled.nanoseconds), expected, "{interval:?} {number} {divides}");
        }
        assert_eq!(scale(IntervalMonthDayNano::new(1, 0, 0), 0.0, true).unwrap_err().sqlstate(), "22012");
    }
}
