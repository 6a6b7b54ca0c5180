//! `told_apart(value, name)`: the value, under a name that tells it from others (see `sql/tree/cast_keys.rs`).

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::exec_err;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

/// Its name.
pub(crate) const TOLD_APART: &str = "told_apart";

/// The function of this file.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    vec![Arc::new(ToldApart { signature: Signature::any(2, Volatility::Immutable) }.into())]
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ToldApart {
    signature: Signature,
}

impl ScalarUDFImpl for ToldApart {
    fn name(&self) -> &str {
        TOLD_APART
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, argument_types: &[DataType]) -> DataFusionResult<DataType> {
        Ok(argument_types.first().cloned().unwrap_or(DataType::Null))
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs) -> DataFusionResult<FieldRef> {
        match arguments.arg_fields {
            [field, _] => Ok(Arc::new(field.as_ref().clone().with_name(TOLD_APART))),
            _ => exec_err!("{TOLD_APART} takes a value and a name"),
        }
    }

    fn simplify(&self, mut arguments: Vec<Expr>, _context: &SimplifyContext) -> DataFusionResult<ExprSimplifyResult> {
        match arguments.is_empty() {
            true => Ok(ExprSimplifyResult::Original(arguments)),
            false => Ok(ExprSimplifyResult::Simplified(arguments.swap_remove(0))),
        }
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        match arguments.args.into_iter().next() {
            Some(value) => Ok(value),
            None => exec_err!("{TOLD_APART} takes a value and a name"),
        }
    }
}
