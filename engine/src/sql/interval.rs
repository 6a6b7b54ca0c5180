//! Differences of timestamps as intervals.
//!
//! DataFusion's `timestamp - timestamp` is an Arrow Duration: a type that no column has, that few clients read, and that
//! prints as `PT86400S`. In PostgreSQL it is an interval of days and time. A query keeps computing with durations, and
//! what leaves it is converted, by a projection on top of its plan.

use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, AsArray, IntervalMonthDayNanoArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, DurationNanosecondType, IntervalMonthDayNano, IntervalUnit, TimeUnit};
use datafusion::common::{Column, utils::take_function_args};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{
    ColumnarValue, Expr, LogicalPlan, LogicalPlanBuilder, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};

const NANOSECONDS_PER_DAY: i64 = 86_400_000_000_000;

static AS_INTERVAL: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Arc::new(ScalarUDF::from(AsInterval::new())));

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
        "as_interval"
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
        let nanoseconds = cast(&duration.to_array(rows)?, &DataType::Duration(TimeUnit::Nanosecond))?;
        let intervals: IntervalMonthDayNanoArray =
            nanoseconds.as_primitive::<DurationNanosecondType>().unary(|nanoseconds| {
                // 2^63 ns are some 106,752 days.
                let days = (nanoseconds / NANOSECONDS_PER_DAY) as i32;
                IntervalMonthDayNano::new(0, days, nanoseconds % NANOSECONDS_PER_DAY)
            });
        let intervals: ArrayRef = Arc::new(intervals);
        Ok(ColumnarValue::Array(intervals))
    }
}
