//! Differences of timestamps as intervals.
//!
//! DataFusion's `timestamp - timestamp` is an Arrow Duration: a type that no column has, that few clients read, and that
//! prints as `PT86400S`. In PostgreSQL it is an interval of days and time. [`difference`] makes one where an expression is
//! planned; a duration that comes into being otherwise is converted by a projection on top of the plan.

use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, AsArray, IntervalMonthDayNanoArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, IntervalMonthDayNano, IntervalUnit, TimeUnit};
use datafusion::common::{Column, exec_err, utils::take_function_args};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{
    ColumnarValue, Expr, LogicalPlan, LogicalPlanBuilder, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};

use crate::error::sqlstate;
use crate::{Error, Result};

const SECONDS_PER_DAY: i64 = 86_400;
const NANOSECONDS_PER_DAY: i64 = 86_400_000_000_000;

static AS_INTERVAL: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Arc::new(ScalarUDF::from(AsInterval::new())));

/// The function that makes an interval of a duration.
pub(in crate::sql) const AS_INTERVAL_NAME: &str = "as_interval";

/// `later - earlier`, two timestamps, as an interval.
pub(in crate::sql) fn difference(later: Expr, earlier: Expr) -> Expr {
    AS_INTERVAL.call(vec![later - earlier])
}

/// The same query with intervals in the places of durations.
pub(crate) fn durations_as_intervals(plan: LogicalPlan) -> DataFusionResult<LogicalPlan> {
    if !plan.schema().fields().iter().any(|field| is_duration(field.data_type())) {
        return Ok(plan);
    }
    let columns: Vec<Expr> = plan
        .schema()
        .iter()
        .map(|(qualifier, field)| {
            let column = Expr::Column(Column::from((qualifier, field)));
            match is_duration(field.data_type()) {
                true => AS_INTERVAL.call(vec![column]).alias_qualified(qualifier.cloned(), field.name()),
                false => column,
            }
        })
        .collect();
    LogicalPlanBuilder::from(plan).project(columns)?.build()
}

fn is_duration(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Duration(_))
}

fn per_second(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    }
}

/// The interval of a duration. Its nanoseconds may not fit 64 bits (from 292 years on), those of a day do.
fn days_and_time(ticks: i64, per_day: i64) -> Result<IntervalMonthDayNano> {
    let days =
        i32::try_from(ticks / per_day).map_err(|_| Error::new(sqlstate::DATETIME_OVERFLOW, "interval out of range"))?;
    Ok(IntervalMonthDayNano::new(0, days, ticks % per_day * (NANOSECONDS_PER_DAY / per_day)))
}

/// Fails with 22008 if a column of durations has one that is no interval.
pub(crate) fn check_durations(durations: &ArrayRef) -> Result<()> {
    let DataType::Duration(unit) = durations.data_type() else { return Ok(()) };
    let ticks = cast(durations, &DataType::Int64)?;
    let per_day = SECONDS_PER_DAY * per_second(*unit);
    ticks.as_primitive::<Int64Type>().iter().flatten().try_for_each(|ticks| days_and_time(ticks, per_day).map(|_| ()))
}

/// Durations as intervals, each as days and the rest.
pub(crate) fn intervals_of(durations: &ArrayRef) -> Result<ArrayRef> {
    let DataType::Duration(unit) = durations.data_type() else {
        return Err(Error::internal(format!("{} is not a duration", durations.data_type())));
    };
    let ticks = cast(durations, &DataType::Int64)?;
    let per_day = SECONDS_PER_DAY * per_second(*unit);
    let intervals: IntervalMonthDayNanoArray =
        ticks.as_primitive::<Int64Type>().try_unary(|ticks| days_and_time(ticks, per_day))?;
    Ok(Arc::new(intervals))
}

/// A duration as days and the rest, both with its sign.
#[derive(Debug, PartialEq, Eq, Hash)]
struct AsInterval {
    signature: Signature,
}

impl AsInterval {
    fn new() -> Self {
        AsInterval { signature: Signature::any(1, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for AsInterval {
    fn name(&self) -> &str {
        AS_INTERVAL_NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _argument_types: &[DataType]) -> DataFusionResult<DataType> {
        Ok(DataType::Interval(IntervalUnit::MonthDayNano))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let rows = arguments.number_rows;
        let [duration] = take_function_args(self.name(), arguments.args)?;
        let durations = duration.to_array(rows)?;
        match durations.data_type() {
            DataType::Duration(_) => Ok(ColumnarValue::Array(intervals_of(&durations)?)),
            // Of operands that are not known when the expression is planned.
            DataType::Interval(_) | DataType::Null => {
                Ok(ColumnarValue::Array(cast(&durations, &DataType::Interval(IntervalUnit::MonthDayNano))?))
            }
            other => exec_err!("{other} is not a duration"),
        }
    }
}
