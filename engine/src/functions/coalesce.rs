//! `coalesce` of values and of constants whose type is open: `coalesce(day, '2020-01-01')`; and of what must be computed once.
//!
//! DataFusion knows no common type of a date and a text. The constants are given the type of the other arguments by
//! [`crate::sql::tree::unknown_literals`], but while a query is planned their types are asked for already.
//!
//! DataFusion's optimiser writes `CASE WHEN x IS NOT NULL THEN x ELSE … END`, which computes the other arguments only where
//! they are needed, but `x` twice. If that gives another value each time, the second one may be NULL; and calls in calls would
//! double. Such an `x` becomes the argument of a function. Where an operator computes that, what is behind it is computed only
//! where it is needed as well ([`crate::operators::lazy_coalesce`]).

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef};
use arrow::compute::is_not_null;
use arrow::compute::kernels::zip::zip;
use arrow::datatypes::{DataType, FieldRef};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, when,
};

use super::by_columns::{ByColumns, Nulls};
use super::changed::Change;
use crate::Result;
use crate::sql::rules::copies::may_copy;
use crate::sql::tree::unknown_literals::type_beside;

static FIRST_KNOWN: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| {
    let first_known = ByColumns {
        name: "first_known",
        takes: |types| {
            let common = types.iter().find(|data_type| !data_type.is_null()).or(types.first())?;
            Some(vec![common.clone(); types.len()])
        },
        gives: |types| types.first().cloned().unwrap_or(DataType::Null),
        nulls: Nulls::IfAllArgumentsAre,
        compute: first_known,
    };
    Arc::new(ScalarUDF::from(FirstKnown { inner: first_known.function() }))
});

/// Whether it is that function, and not another one of its name.
pub(crate) fn is_first_known(function: &ScalarUDF) -> bool {
    function.inner().downcast_ref::<FirstKnown>().is_some()
}

/// The function, of which is known that what is behind the first argument need not be computed. Otherwise the optimiser would
/// compute for all rows what is there in two calls.
#[derive(Debug, PartialEq, Eq, Hash)]
struct FirstKnown {
    inner: Arc<ScalarUDF>,
}

impl ScalarUDFImpl for FirstKnown {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn coerce_types(&self, types: &[DataType]) -> DataFusionResult<Vec<DataType>> {
        self.inner.coerce_types(types)
    }

    fn return_type(&self, types: &[DataType]) -> DataFusionResult<DataType> {
        self.inner.return_type(types)
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs) -> DataFusionResult<FieldRef> {
        self.inner.return_field_from_args(arguments)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        self.inner.invoke_with_args(arguments)
    }

    fn short_circuits(&self) -> bool {
        true
    }

    fn conditional_arguments<'a>(&self, arguments: &'a [Expr]) -> Option<(Vec<&'a Expr>, Vec<&'a Expr>)> {
        let (first, others) = arguments.split_first()?;
        Some((vec![first], others.iter().collect()))
    }
}

/// For more types of arguments, and for those that must not be computed twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Coalesce;

impl Change for Coalesce {
    fn coerce_types(&self, inner: &dyn ScalarUDFImpl, types: &[DataType]) -> DataFusionResult<Vec<DataType>> {
        inner.coerce_types(types).or_else(|error| {
            // Constants come as Utf8, texts of columns and casts as Utf8View.
            let known = types.iter().filter(|data_type| **data_type != DataType::Utf8);
            match type_beside(known) {
                Some(wanted) => Ok(vec![wanted; types.len()]),
                None => Err(error),
            }
        })
    }

    fn simplify(
        &self,
        inner: &dyn ScalarUDFImpl,
        arguments: Vec<Expr>,
        context: &SimplifyContext,
    ) -> DataFusionResult<ExprSimplifyResult> {
        let mut once = None;
        for (place, argument) in arguments.iter().enumerate().take(arguments.len().saturating_sub(1)) {
            if !may_copy(argument)? {
                once = Some(place);
                break;
            }
        }
        match once {
            Some(place) => Ok(ExprSimplifyResult::Simplified(with_function(arguments, place)?)),
            None => inner.simplify(arguments, context),
        }
    }
}

/// The arguments before `place` as the optimiser would write them, and the others as those of the function.
fn with_function(mut arguments: Vec<Expr>, place: usize) -> DataFusionResult<Expr> {
    let called = FIRST_KNOWN.call(arguments.split_off(place));
    arguments
        .into_iter()
        .rev()
        .try_fold(called, |otherwise, argument| when(argument.clone().is_not_null(), argument).otherwise(otherwise))
}

fn first_known(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let Some((first, others)) = columns.split_first() else {
        return Err(crate::Error::internal("coalesce has no arguments"));
    };
    let mut known = Arc::clone(first);
    for other in others {
        if known.logical_null_count() == 0 {
            break;
        }
        known = zip(&is_not_null(&known)?, &known, other)?;
    }
    Ok(known)
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, Int32Array};
    use arrow::datatypes::Int32Type;
    use datafusion::logical_expr::{col, lit};

    use super::*;

    #[test]
    fn the_first_that_is_not_null_is_taken() {
        let of = |values: Vec<Option<i32>>| -> ArrayRef { Arc::new(Int32Array::from(values)) };
        let columns = [of(vec![None, Some(1), None]), of(vec![Some(2), Some(3), None]), of(vec![Some(4), None, None])];
        let expected = Int32Array::from(vec![Some(2), Some(1), None]);
        assert_eq!(first_known(&columns).unwrap().as_primitive::<Int32Type>(), &expected);
    }

    #[test]
    fn what_comes_before_the_function_is_computed_as_needed() {
        let written = with_function(vec![col("a"), col("b"), lit(1)], 1).unwrap();
        let called = FIRST_KNOWN.call(vec![col("b"), lit(1)]);
        assert_eq!(written, when(col("a").is_not_null(), col("a")).otherwise(called).unwrap());
    }
}
