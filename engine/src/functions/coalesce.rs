//! `coalesce` of values and of constants whose type is open: `coalesce(day, '2020-01-01')`.
//!
//! DataFusion knows no common type of a date and a text. The constants are given the type of the other arguments by
//! [`crate::sql::unknown_literals`], but while a query is planned their types are asked for already.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

use crate::sql::unknown_literals::type_beside;

/// DataFusion's function, for more types of arguments.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Coalesce {
    pub(super) inner: Arc<ScalarUDF>,
}

impl ScalarUDFImpl for Coalesce {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.inner().aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, argument_types: &[DataType]) -> DataFusionResult<DataType> {
        self.inner.inner().return_type(argument_types)
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs) -> DataFusionResult<FieldRef> {
        self.inner.inner().return_field_from_args(arguments)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        self.inner.inner().invoke_with_args(arguments)
    }

    fn simplify(&self, arguments: Vec<Expr>, context: &SimplifyContext) -> DataFusionResult<ExprSimplifyResult> {
        self.inner.inner().simplify(arguments, context)
    }

    fn conditional_arguments<'a>(&self, arguments: &'a [Expr]) -> Option<(Vec<&'a Expr>, Vec<&'a Expr>)> {
        self.inner.inner().conditional_arguments(arguments)
    }

    fn short_circuits(&self) -> bool {
        self.inner.inner().short_circuits()
    }

    fn coerce_types(&self, argument_types: &[DataType]) -> DataFusionResult<Vec<DataType>> {
        self.inner.inner().coerce_types(argument_types).or_else(|error| {
            // Constants come as Utf8, texts of columns and casts as Utf8View.
            let known = argument_types.iter().filter(|data_type| **data_type != DataType::Utf8);
            match type_beside(known) {
                Some(wanted) => Ok(vec![wanted; argument_types.len()]),
                None => Err(error),
            }
        })
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.inner().documentation()
    }
}
