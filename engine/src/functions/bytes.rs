//! The length of a bytea. DataFusion's `length` takes it for a text, which most are not.

use std::sync::{Arc, LazyLock};

use arrow::array::{AsArray, Int32Array};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::common::utils::take_function_args;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

static BYTE_LENGTH: LazyLock<Arc<ScalarUDF>> =
    LazyLock::new(|| Arc::new(ScalarUDF::from(ByteLength { signature: Signature::any(1, Volatility::Immutable) })));

/// The number of bytes in a bytea.
pub(crate) fn byte_length(bytes: Expr) -> Expr {
    BYTE_LENGTH.call(vec![bytes])
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ByteLength {
    signature: Signature,
}

impl ScalarUDFImpl for ByteLength {
    fn name(&self) -> &str {
        "byte_length"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _argument_types: &[DataType]) -> DataFusionResult<DataType> {
        Ok(DataType::Int32)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let [bytes] = take_function_args(self.name(), arguments.args)?;
        let bytes = cast(&bytes.to_array(arguments.number_rows)?, &DataType::BinaryView)?;
        let bytes = bytes.as_binary_view();
        let lengths: Int32Array =
            bytes.iter().map(|bytes| bytes.map(|bytes| i32::try_from(bytes.len()).unwrap_or(i32::MAX))).collect();
        Ok(ColumnarValue::Array(Arc::new(lengths)))
    }
}
