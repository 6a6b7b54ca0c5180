//! Timestamps of a coarser unit: `timestamp(0)` and `timestamp(3)` of a finer one, rounded half away from 2000 as
//! PostgreSQL does. Arrow's cast cuts the digits off.

use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, AsArray, PrimitiveArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use datafusion::common::{ScalarValue, utils::take_function_args};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, lit,
};

use super::time_digits::{nearest, origin, per_second};
use crate::Result;

static ROUND: LazyLock<Arc<ScalarUDF>> =
    LazyLock::new(|| Arc::new(ScalarUDF::from(RoundTime { signature: Signature::any(2, Volatility::Immutable) })));

/// Whether a cast between the types loses digits.
pub(crate) fn loses_digits(from: &DataType, to: &DataType) -> bool {
    match (from, to) {
        (DataType::Timestamp(from, _), DataType::Timestamp(to, _)) => per_second(*from) > per_second(*to),
        _ => false,
    }
}

/// The timestamp with fewer digits.
pub(crate) fn rounded(time: Expr, to: &DataType) -> DataFusionResult<Expr> {
    Ok(ROUND.call(vec![time, lit(ScalarValue::try_from(to)?)]))
}

/// The same of a column.
pub(crate) fn round_times(times: &ArrayRef, wanted: &DataType) -> Result<ArrayRef> {
    let (DataType::Timestamp(from, _), DataType::Timestamp(to, _)) = (times.data_type(), wanted) else {
        return Ok(cast(times, wanted)?);
    };
    let scale = (per_second(*from) / per_second(*to)).max(1);
    let origin = origin(*from);
    let round = |number: i64| i64::try_from(nearest(number, scale, origin) / i128::from(scale)).unwrap_or(i64::MAX);
    let numbers = cast(times, &DataType::Int64)?;
    let rounded: PrimitiveArray<Int64Type> = numbers.as_primitive::<Int64Type>().unary(round);
    let rounded: ArrayRef = Arc::new(rounded);
    Ok(cast(&rounded, wanted)?)
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct RoundTime {
    signature: Signature,
}

impl ScalarUDFImpl for RoundTime {
    fn name(&self) -> &str {
        "round_time"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, argument_types: &[DataType]) -> DataFusionResult<DataType> {
        Ok(argument_types.get(1).cloned().unwrap_or(DataType::Null))
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs) -> DataFusionResult<arrow::datatypes::FieldRef> {
        let types: Vec<DataType> = arguments.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        let nullable = arguments.arg_fields.first().is_none_or(|field| field.is_nullable());
        Ok(Arc::new(arrow::datatypes::Field::new(self.name(), self.return_type(&types)?, nullable)))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let wanted = arguments.return_type().clone();
        let rows = arguments.number_rows;
        let [time, _] = take_function_args(self.name(), arguments.args)?;
        let constant = matches!(time, ColumnarValue::Scalar(_));
        let rounded = round_times(&time.to_array(if constant { 1 } else { rows })?, &wanted)?;
        Ok(match constant {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&rounded, 0)?),
            false => ColumnarValue::Array(rounded),
        })
    }
}
