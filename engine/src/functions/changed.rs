//! Functions of DataFusion's that are others in one thing: what all of them share.
//!
//! Many functions of PostgreSQL are DataFusion's but for something. `chr` refuses 0, `ln` fails where DataFusion's gives a
//! NaN, `coalesce` takes a date beside a text, `substr` takes bytes. Such a function is DataFusion's own in a [`Changed`],
//! with a [`Change`] that says what is other. There may be several around each other, each of which knows only what is
//! inside of it: `to_timestamp` takes PostgreSQL's templates, and around that fails for numbers that are no moments.
//!
//! | a change is of | as in |
//! |---|---|
//! | what is computed, or refused | [`floats`](super::floats), [`truncate`](super::truncate), [`subscripts`](super::subscripts) |
//! | the types that it takes | [`coalesce`](super::coalesce), [`widened`](super::widened) |
//! | what the optimiser makes of it | [`coalesce`](super::coalesce) |
//! | the type that it gives | [`date_parts`](super::date_parts), [`widened`](super::widened) |
//! | all of it, of some arguments | [`date_patterns`](super::date_patterns), [`to_char`](super::to_char) |
//!
//! What is passed on is how a call is found, named, typed, simplified and ordered, what the session's settings make of it,
//! and which of its arguments are computed at all. What is not is what the optimiser concludes about values: from which
//! arguments a result comes (`preimage`), that NULL makes NULL, where a call may be moved to. That would be of the function
//! inside, and a change may make it wrong: that `date_part` gives 2024 for the days of a year says nothing of a function that
//! gives another type. Without it a plan is slower at worst.
//!
//! The type of a result is asked for in two ways, by types and by fields, and they must agree. So a change has one answer,
//! [`Change::return_type`], for both; a result of another type may be NULL.

use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::config::ConfigOptions;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::interval_arithmetic::Interval;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

/// What is other than in the function inside, which is `inner`.
pub(super) trait Change: Debug + Clone + Eq + Hash + Send + Sync + 'static {
    /// Another signature.
    fn signature(&self) -> Option<&Signature> {
        None
    }

    /// The types that arguments are cast to, where the signature leaves that to the function.
    fn coerce_types(&self, inner: &dyn ScalarUDFImpl, types: &[DataType]) -> DataFusionResult<Vec<DataType>> {
        inner.coerce_types(types)
    }

    /// Another type of the result, for arguments of these types.
    fn return_type(&self, _types: &[DataType]) -> Option<DataType> {
        None
    }

    /// What the optimiser writes for a call.
    fn simplify(
        &self,
        inner: &dyn ScalarUDFImpl,
        arguments: Vec<Expr>,
        context: &SimplifyContext,
    ) -> DataFusionResult<ExprSimplifyResult> {
        inner.simplify(arguments, context)
    }

    fn invoke(&self, inner: &dyn ScalarUDFImpl, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        inner.invoke_with_args(arguments)
    }
}

/// The function with a change.
pub(super) fn changed(inner: Arc<ScalarUDF>, change: impl Change) -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::from(Changed { inner, change }))
}

/// Whether it is a function with such a change, and not DataFusion's own.
pub(super) fn is_changed<C: Change>(function: &ScalarUDF) -> bool {
    function.inner().downcast_ref::<Changed<C>>().is_some()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Changed<C> {
    inner: Arc<ScalarUDF>,
    change: C,
}

impl<C: Change> ScalarUDFImpl for Changed<C> {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn schema_name(&self, arguments: &[Expr]) -> DataFusionResult<String> {
        self.inner.schema_name(arguments)
    }

    fn signature(&self) -> &Signature {
        self.change.signature().unwrap_or_else(|| self.inner.signature())
    }

    fn with_updated_config(&self, config: &ConfigOptions) -> Option<ScalarUDF> {
        let inner = Arc::new(self.inner.inner().with_updated_config(config)?);
        Some(Changed { inner, change: self.change.clone() }.into())
    }

    fn return_type(&self, types: &[DataType]) -> DataFusionResult<DataType> {
        match self.change.return_type(types) {
            Some(other) => Ok(other),
            None => self.inner.return_type(types),
        }
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs) -> DataFusionResult<FieldRef> {
        let types: Vec<DataType> = arguments.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        match self.change.return_type(&types) {
            Some(other) => Ok(Arc::new(Field::new(self.name(), other, true))),
            None => self.inner.return_field_from_args(arguments),
        }
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        self.change.invoke(self.inner.inner().as_ref(), arguments)
    }

    fn simplify(&self, arguments: Vec<Expr>, context: &SimplifyContext) -> DataFusionResult<ExprSimplifyResult> {
        self.change.simplify(self.inner.inner().as_ref(), arguments, context)
    }

    fn short_circuits(&self) -> bool {
        self.inner.short_circuits()
    }

    fn conditional_arguments<'a>(&self, arguments: &'a [Expr]) -> Option<(Vec<&'a Expr>, Vec<&'a Expr>)> {
        self.inner.conditional_arguments(arguments)
    }

    fn evaluate_bounds(&self, inputs: &[&Interval]) -> DataFusionResult<Interval> {
        self.inner.evaluate_bounds(inputs)
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> DataFusionResult<SortProperties> {
        self.inner.output_ordering(inputs)
    }

    fn coerce_types(&self, types: &[DataType]) -> DataFusionResult<Vec<DataType>> {
        self.change.coerce_types(self.inner.inner().as_ref(), types)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }
}

#[cfg(test)]
mod tests {
    use datafusion::functions::datetime::date_trunc;
    use datafusion::functions::string::chr;
    use datafusion::logical_expr::Volatility;

    use super::*;

    #[derive(Debug, Clone, PartialEq, Eq, Hash)]
    struct AsFloat {
        signature: Signature,
    }

    impl Change for AsFloat {
        fn signature(&self) -> Option<&Signature> {
            Some(&self.signature)
        }

        fn return_type(&self, types: &[DataType]) -> Option<DataType> {
            (types == [DataType::Int64]).then_some(DataType::Float64)
        }
    }

    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    struct Nothing;

    impl Change for Nothing {}

    #[test]
    fn what_is_not_changed_is_that_of_the_function_inside() {
        let (inner, other) = (date_trunc(), changed(date_trunc(), Nothing));
        assert_eq!((other.name(), other.aliases()), (inner.name(), inner.aliases()));
        assert_eq!(other.signature(), inner.signature());
        assert!(is_changed::<Nothing>(&other) && !is_changed::<AsFloat>(&other) && !is_changed::<Nothing>(&inner));
    }

    #[test]
    fn both_ways_to_ask_for_a_type_agree() {
        let signature = Signature::any(1, Volatility::Immutable);
        let other = changed(chr(), AsFloat { signature: signature.clone() });
        assert_eq!(other.signature(), &signature);
        for (of, expected) in [(DataType::Int64, DataType::Float64), (DataType::Int32, DataType::Utf8)] {
            assert_eq!(other.return_type(std::slice::from_ref(&of)).unwrap(), expected);
            let fields = [Arc::new(Field::new("x", of, false))];
            let arguments = ReturnFieldArgs { arg_fields: &fields, scalar_arguments: &[None] };
            assert_eq!(other.return_field_from_args(arguments).unwrap().data_type(), &expected);
        }
    }
}
