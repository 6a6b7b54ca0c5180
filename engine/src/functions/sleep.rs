//! `pg_sleep(seconds)`: waits, without keeping a thread from others, until the statement is cancelled or its time is up.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{AsArray, StringViewArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use async_trait::async_trait;
use datafusion::common::internal_err;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::async_udf::{AsyncScalarUDF, AsyncScalarUDFImpl};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

/// The function of this file.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    let sleep = Sleep { signature: Signature::exact(vec![DataType::Float64], Volatility::Volatile) };
    vec![Arc::new(AsyncScalarUDF::new(Arc::new(sleep)).into_scalar_udf())]
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Sleep {
    signature: Signature,
}

impl ScalarUDFImpl for Sleep {
    fn name(&self) -> &str {
        "pg_sleep"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    /// An empty text, as PostgreSQL shows nothing.
    fn return_type(&self, _argument_types: &[DataType]) -> DataFusionResult<DataType> {
        Ok(DataType::Utf8View)
    }

    fn invoke_with_args(&self, _arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        internal_err!("{} is called where it can wait", self.name())
    }
}

#[async_trait]
impl AsyncScalarUDFImpl for Sleep {
    async fn invoke_async_with_args(&self, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let rows = arguments.number_rows;
        let Some(seconds) = arguments.args.first() else { return internal_err!("{} takes a number", self.name()) };
        let seconds = cast(&seconds.to_array(rows)?, &DataType::Float64)?;
        let total: f64 = seconds.as_primitive::<Float64Type>().iter().flatten().filter(|seconds| *seconds > 0.0).sum();
        // More than there are is for ever.
        let time = Duration::try_from_secs_f64(total).unwrap_or(Duration::MAX);
        tokio::time::sleep(time.min(Duration::from_secs(u32::MAX.into()))).await;
        let empty = seconds.as_primitive::<Float64Type>().iter().map(|seconds| seconds.map(|_| ""));
        Ok(ColumnarValue::Array(Arc::new(empty.collect::<StringViewArray>())))
    }
}
