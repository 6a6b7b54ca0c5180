//! `array_remove(array, x)`: without all elements that are equal to `x`, NULLs if it is NULL. DataFusion's `array_remove_all`
//! knows no NULL to remove.

use std::sync::{Arc, LazyLock};

use arrow::array::ArrayRef;
use arrow::compute::is_null;
use arrow::compute::kernels::zip::zip;
use datafusion::common::ScalarValue;
use datafusion::error::Result as DataFusionResult;
use datafusion::functions_nested::array_compact::array_compact_udf;
use datafusion::functions_nested::remove::array_remove_all_udf;
use datafusion::logical_expr::{ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl};

use super::changed::{Change, changed};

static REMOVE: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| changed(array_remove_all_udf(), NullsToo));

/// An array without the elements that are equal to another value, or without NULLs.
pub(crate) fn array_without(arguments: Vec<Expr>) -> Expr {
    REMOVE.call(arguments)
}

/// Removes NULLs where that is what is to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct NullsToo;

impl Change for NullsToo {
    fn invoke(&self, inner: &dyn ScalarUDFImpl, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let [array, element] = arguments.args.as_slice() else { return inner.invoke_with_args(arguments) };
        let constant = [array, element].iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { arguments.number_rows };
        let is_null = is_null(&element.to_array(rows)?)?;
        if is_null.true_count() == 0 {
            return inner.invoke_with_args(arguments);
        }
        let compact = ScalarFunctionArgs {
            args: vec![array.clone()],
            arg_fields: arguments.arg_fields.iter().take(1).cloned().collect(),
            number_rows: arguments.number_rows,
            return_field: Arc::clone(&arguments.return_field),
            config_options: Arc::clone(&arguments.config_options),
        };
        let compact = array_compact_udf().inner().invoke_with_args(compact)?.to_array(rows)?;
        let removed = match is_null.true_count() == rows {
            true => compact,
            false => {
                let without: ArrayRef = inner.invoke_with_args(arguments)?.to_array(rows)?;
                zip(&is_null, &compact, &without)?
            }
        };
        Ok(match constant {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&removed, 0)?),
            false => ColumnarValue::Array(removed),
        })
    }
}
