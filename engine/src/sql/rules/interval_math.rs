//! Intervals that are compared, multiplied and divided as in PostgreSQL.
//!
//! An interval is months, days and time. PostgreSQL compares intervals as if a month had 30 days and a day 24 hours, so
//! that `'1 day' = '24 hours'`; Arrow compares field by field. [`order_of`] makes a number of an interval that is ordered
//! the right way; the rule [`IntervalOrder`](super::interval_order::IntervalOrder) puts it where intervals are compared.
//! `interval * number` and `/` are planned here, because DataFusion does not know them, and differences of timestamps,
//! of which it makes [durations](super::interval). [Constants of an open type](crate::sql::tree::unknown_literals) get theirs first.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, Float64Array, Int32Array, IntervalMonthDayNanoArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit, TimeUnit};
use datafusion::common::tree_node::TreeNode;
use datafusion::common::{DFSchema, ScalarValue, utils::take_function_args};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::expr::Placeholder;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawAggregateExpr, RawBinaryExpr, RawWindowExpr};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
    cast as cast_expr, lit,
};
use datafusion::sql::sqlparser::ast::BinaryOperator;

use super::interval::{AS_INTERVAL_NAME, difference};
use super::numeric_products::multiply;
use super::time_units::in_one_unit;
use crate::Error;
use crate::error::sqlstate;
use crate::functions::days::{earlier, later};
use crate::functions::widened::{STRPOS, SUBSTR};
use crate::sql::tree::extract;
use crate::sql::tree::unknown_literals::{beside_operator, resolve};

const NANOSECONDS_PER_DAY: i128 = 86_400_000_000_000;
const DAYS_PER_MONTH: i128 = 30;
const NANOSECONDS_PER_MINUTE: i64 = 60_000_000_000;
const SECONDS_PER_DAY: f64 = 86_400.0;

/// What an interval is compared by: nanoseconds. The longest, 2^31 months, has 5.6e24 of them.
const ORDER_TYPE: DataType = DataType::Decimal128(38, 0);

static ORDER: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Arc::new(ScalarUDF::from(Order::new())));
static EPOCH: LazyLock<Arc<ScalarUDF>> =
    LazyLock::new(|| Arc::new(ScalarUDF::from(Epoch { signature: Signature::any(1, Volatility::Immutable) })));
static MICROSECONDS: LazyLock<Arc<ScalarUDF>> =
    LazyLock::new(|| Arc::new(ScalarUDF::from(Microseconds { signature: Signature::any(1, Volatility::Immutable) })));
static SCALE: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Arc::new(ScalarUDF::from(Scale::new())));

/// The number that stands for an interval in comparisons.
pub(in crate::sql) fn order_of(interval: Expr) -> Expr {
    ORDER.call(vec![interval])
}

/// Whether it is a function whose result is an interval.
pub(in crate::sql) fn makes_interval(function: &ScalarUDF) -> bool {
    let name = function.name();
    matches!(name, AS_INTERVAL_NAME | "age" | "make_interval" | "scale_interval") || name.starts_with("justify_")
}

pub(in crate::sql) fn is_interval(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Interval(_))
}

/// `extract(epoch FROM interval)`.
pub(in crate::sql) fn seconds_in(interval: Expr) -> Expr {
    EPOCH.call(vec![interval])
}

/// `extract(microseconds FROM interval)`, of which DataFusion loses the fraction of a second.
pub(in crate::sql) fn microseconds_in(interval: Expr) -> Expr {
    MICROSECONDS.call(vec![interval])
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

#[derive(Debug, PartialEq, Eq, Hash)]
struct Microseconds {
    signature: Signature,
}

impl ScalarUDFImpl for Microseconds {
    fn name(&self) -> &str {
        "interval_microseconds"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _argument_types: &[DataType]) -> DataFusionResult<DataType> {
        Ok(DataType::Int32)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let rows = arguments.number_rows;
        let [interval] = take_function_args(self.name(), arguments.args)?;
        let intervals = as_months_days_nanoseconds(&interval, rows)?;
        let of_minute = |interval: IntervalMonthDayNano| (interval.nanoseconds % NANOSECONDS_PER_MINUTE / 1000) as i32;
        let microseconds = intervals.as_primitive::<IntervalMonthDayNanoType>().iter();
        let microseconds: Int32Array = microseconds.map(|interval| interval.map(of_minute)).collect();
        Ok(ColumnarValue::Array(Arc::new(microseconds)))
    }
}

fn as_months_days_nanoseconds(value: &ColumnarValue, rows: usize) -> DataFusionResult<ArrayRef> {
    Ok(cast(&value.to_array(rows)?, &DataType::Interval(IntervalUnit::MonthDayNano))?)
}

/// What an interval is compared by.
pub(crate) fn order(interval: IntervalMonthDayNano) -> i128 {
    let days = i128::from(interval.months) * DAYS_PER_MONTH + i128::from(interval.days);
    days * NANOSECONDS_PER_DAY + i128::from(interval.nanoseconds)
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
        let numbers: Decimal128Array =
            intervals.as_primitive::<IntervalMonthDayNanoType>().iter().map(|interval| interval.map(order)).collect();
        let numbers: ArrayRef = Arc::new(numbers.with_precision_and_scale(38, 0)?);
        Ok(ColumnarValue::Array(numbers))
    }
}

/// Plans `interval * number`, `number * interval`, `interval / number`, and what is added to times or subtracted from them:
/// `date ± interval`, which is a timestamp, and differences, which are intervals. Also `array || NULL`.
#[derive(Debug)]
pub(crate) struct IntervalPlanner;

/// Plans `+` and `-` beside dates, times and timestamps. DataFusion's `date ± interval` stays a date and loses the time, and a
/// timestamp of seconds or milliseconds what the interval has of smaller parts; a date beside a time or a timestamp, and days beside a
/// date, it counts in nanoseconds, which reach from 1677 to 2262.
fn moved(expr: RawBinaryExpr, schema: &DFSchema) -> PlannerResult<RawBinaryExpr> {
    use DataType::{Date32, Interval, Time64, Timestamp};
    use TimeUnit::{Microsecond, Millisecond, Second};
    let RawBinaryExpr { op, mut left, mut right } = expr;
    let (left_type, right_type) = (left.get_type(schema).ok(), right.get_type(schema).ok());
    let timestamp = |date: Expr| cast_expr(date, Timestamp(Microsecond, None));
    let in_microseconds = |time: Expr, zone: &Option<Arc<str>>| cast_expr(time, Timestamp(Microsecond, zone.clone()));
    match (&left_type, &right_type) {
        (Some(Date32), Some(days)) if days.is_integer() => {
            let is_later = op == BinaryOperator::Plus;
            return PlannerResult::Planned(if is_later { later(left, right) } else { earlier(left, right) });
        }
        (Some(days), Some(Date32)) if days.is_integer() && op == BinaryOperator::Plus => {
            return PlannerResult::Planned(later(right, left));
        }
        (Some(Date32), Some(Interval(_))) => left = timestamp(left),
        (Some(Date32), Some(Time64(_))) => (left, right) = (timestamp(left), interval(right)),
        (Some(Timestamp(Second | Millisecond, zone)), Some(Interval(_))) => left = in_microseconds(left, zone),
        (Some(Interval(_)), Some(Timestamp(Second | Millisecond, zone))) if op == BinaryOperator::Plus => {
            right = in_microseconds(right, zone);
        }
        (Some(Timestamp(Second | Millisecond, zone)), Some(Time64(_))) => {
            (left, right) = (in_microseconds(left, zone), interval(right));
        }
        (Some(Timestamp(..)), Some(Time64(_))) => right = interval(right),
        (Some(Interval(_)), Some(Date32)) if op == BinaryOperator::Plus => right = timestamp(right),
        (Some(Time64(_)), Some(Date32)) if op == BinaryOperator::Plus => {
            (left, right) = (interval(left), timestamp(right));
        }
        (Some(Time64(_)), Some(Timestamp(Second | Millisecond, zone))) if op == BinaryOperator::Plus => {
            (left, right) = (interval(left), in_microseconds(right, zone));
        }
        (Some(Time64(_)), Some(Timestamp(..))) if op == BinaryOperator::Plus => left = interval(left),
        // One without time zone is the session's local time.
        (Some(Timestamp(_, zone @ Some(_))), Some(Timestamp(unit, None))) if op == BinaryOperator::Minus => {
            return PlannerResult::Planned(difference(left, cast_expr(right, Timestamp(*unit, zone.clone()))));
        }
        (Some(Timestamp(unit, None)), Some(Timestamp(_, zone @ Some(_)))) if op == BinaryOperator::Minus => {
            return PlannerResult::Planned(difference(cast_expr(left, Timestamp(*unit, zone.clone())), right));
        }
        (Some(Timestamp(..)), Some(Timestamp(..))) if op == BinaryOperator::Minus => {
            return PlannerResult::Planned(difference(left, right));
        }
        (Some(kind @ Timestamp(..)), Some(Date32)) if op == BinaryOperator::Minus => {
            return PlannerResult::Planned(difference(left, cast_expr(right, kind.clone())));
        }
        (Some(Date32), Some(kind @ Timestamp(..))) if op == BinaryOperator::Minus => {
            return PlannerResult::Planned(difference(cast_expr(left, kind.clone()), right));
        }
        // A parameter without a type is taken for what it is subtracted from.
        (Some(Timestamp(..)), _) if op == BinaryOperator::Minus && is_open(&right) => {
            return PlannerResult::Planned(difference(left, right));
        }
        (_, Some(Timestamp(..))) if op == BinaryOperator::Minus && is_open(&left) => {
            return PlannerResult::Planned(difference(left, right));
        }
        _ => {}
    }
    PlannerResult::Original(RawBinaryExpr { op, left, right })
}

/// The time of a day as an interval. Arrow knows no cast between these.
fn interval(time: Expr) -> Expr {
    let microseconds = cast_expr(cast_expr(time, DataType::Time64(TimeUnit::Microsecond)), DataType::Int64);
    let duration = cast_expr(microseconds, DataType::Duration(TimeUnit::Microsecond));
    cast_expr(duration, DataType::Interval(IntervalUnit::MonthDayNano))
}

/// `array || NULL` is the array: a NULL without a type is no element, but an array, too.
fn beside_null(expr: RawBinaryExpr, schema: &DFSchema) -> PlannerResult<RawBinaryExpr> {
    let RawBinaryExpr { op, left, right } = expr;
    let is_null = |side: &Expr| matches!(side, Expr::Literal(ScalarValue::Null, _));
    let is_array = |side: &Expr| matches!(side.get_type(schema), Ok(DataType::List(_)));
    if op == BinaryOperator::StringConcat && is_null(&right) && is_array(&left) {
        return PlannerResult::Planned(left);
    }
    if op == BinaryOperator::StringConcat && is_null(&left) && is_array(&right) {
        return PlannerResult::Planned(right);
    }
    PlannerResult::Original(RawBinaryExpr { op, left, right })
}

fn is_open(expr: &Expr) -> bool {
    matches!(expr, Expr::Placeholder(Placeholder { field: None, .. }))
}

/// Gives expressions with casts names that show them.
fn name_casts(exprs: &mut [Expr]) -> DataFusionResult<()> {
    for expr in exprs {
        let casts = expr.exists(|part| Ok(matches!(part, Expr::Cast(_) | Expr::TryCast(_))))?;
        if casts && !matches!(expr, Expr::Alias(_)) {
            let name = expr.to_string();
            *expr = expr.clone().alias(name);
        }
    }
    Ok(())
}

impl ExprPlanner for IntervalPlanner {
    /// Aggregates are told apart by their names, in which casts are not seen: `max(z::date)` and `max(z::text)` were one.
    fn plan_aggregate(&self, mut expr: RawAggregateExpr) -> DataFusionResult<PlannerResult<RawAggregateExpr>> {
        name_casts(&mut expr.args)?;
        Ok(PlannerResult::Original(expr))
    }

    /// Window functions are told apart in the same way. Names show the casts in ORDER BY.
    fn plan_window(&self, mut expr: RawWindowExpr) -> DataFusionResult<PlannerResult<RawWindowExpr>> {
        name_casts(&mut expr.args)?;
        name_casts(&mut expr.partition_by)?;
        Ok(PlannerResult::Original(expr))
    }

    /// For texts and for bytes.
    fn plan_substring(&self, arguments: Vec<Expr>) -> DataFusionResult<PlannerResult<Vec<Expr>>> {
        Ok(PlannerResult::Planned(SUBSTR.call(arguments)))
    }

    /// The same of places.
    fn plan_position(&self, arguments: Vec<Expr>) -> DataFusionResult<PlannerResult<Vec<Expr>>> {
        Ok(PlannerResult::Planned(STRPOS.call(arguments)))
    }

    fn plan_extract(&self, arguments: Vec<Expr>) -> DataFusionResult<PlannerResult<Vec<Expr>>> {
        Ok(extract::plan(arguments))
    }

    fn plan_array_literal(
        &self,
        mut elements: Vec<Expr>,
        schema: &DFSchema,
    ) -> DataFusionResult<PlannerResult<Vec<Expr>>> {
        resolve(&mut elements, |element| element.get_type(schema).unwrap_or(DataType::Null))?;
        Ok(PlannerResult::Original(elements))
    }

    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> DataFusionResult<PlannerResult<RawBinaryExpr>> {
        let expr = match beside_null(expr, schema) {
            PlannerResult::Original(expr) => beside_operator(expr, schema)?,
            planned => return Ok(planned),
        };
        let divides = match expr.op {
            BinaryOperator::Multiply => false,
            BinaryOperator::Divide => true,
            BinaryOperator::Plus | BinaryOperator::Minus => return Ok(moved(expr, schema)),
            _ => return Ok(PlannerResult::Original(in_one_unit(expr, schema)?)),
        };
        let (Ok(left), Ok(right)) = (expr.left.get_type(schema), expr.right.get_type(schema)) else {
            return Ok(PlannerResult::Original(expr));
        };
        if !divides && let Some(product) = multiply(&expr.left, &left, &expr.right, &right) {
            return Ok(PlannerResult::Planned(product));
        }
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
pub(crate) fn scale(interval: IntervalMonthDayNano, number: f64, divides: bool) -> crate::Result<IntervalMonthDayNano> {
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
    let tidy = |value: f64| (value * 1e6).round_ties_even() / 1e6;
    let months = scaled(f64::from(interval.months));
    let days = scaled(f64::from(interval.days));
    let (whole_months, whole_days) = (whole(months)?, whole(days)?);
    let from_months = tidy((months - f64::from(whole_months)) * 30.0);
    let days_of_months = whole(from_months)?;
    let rest = (days - f64::from(whole_days)) + (from_months - f64::from(days_of_months));
    let seconds = tidy(rest * SECONDS_PER_DAY);
    // Two fractions of days may be more than a day.
    let days_of_seconds = whole(seconds / SECONDS_PER_DAY)?;
    let seconds = seconds - f64::from(days_of_seconds) * SECONDS_PER_DAY;
    let microseconds = (scaled(interval.nanoseconds as f64 / 1e3) + seconds * 1e6).round_ties_even();
    if !microseconds.is_finite() || microseconds.abs() > (i64::MAX / 1000) as f64 {
        return Err(out_of_range());
    }
    let days = whole_days.checked_add(days_of_months).and_then(|days| days.checked_add(days_of_seconds));
    Ok(IntervalMonthDayNano::new(whole_months, days.ok_or_else(out_of_range)?, microseconds as i64 * 1000))
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
            ((0, 1, 0), 7.0, true, (0, 0, 12_342_857_143_000)),
            ((1, 1, 0), 1.5, true, (0, 20, 16 * hour)),
        ] {
            let (months, days, nanoseconds) = interval;
            let scaled = scale(IntervalMonthDayNano::new(months, days, nanoseconds), number, divides).unwrap();
            assert_eq!((scaled.months, scaled.days, scaled.nanoseconds), expected, "{interval:?} {number} {divides}");
        }
        assert_eq!(scale(IntervalMonthDayNano::new(1, 0, 0), 0.0, true).unwrap_err().sqlstate(), "22012");
    }
}
