//! Values DataFusion's optimiser must not see through.
//!
//! | expression | its optimiser would | becomes |
//! |---|---|---|
//! | `CAST(numeric AS int)`, also `numeric(n, fewer digits)` | compare with 3, there or in a query around it, by `numeric = 3.00`; but the cast rounds | `rounded(CAST(numeric AS int))` |
//! | `(SELECT 1 WHERE false) IS NULL` | take it for false, the column having no NULLs; but there may be no row | the subquery's column is `maybe_none(1)` |
//! | `b IS TRUE` in a select list or GROUP BY | give the column two nullabilities, and fail | `b IS NOT DISTINCT FROM true` |
//! | `sum(1 / x) FILTER (WHERE x <> 0)` | compute `1 / x` of all rows | `sum(CASE WHEN x <> 0 THEN 1 / x END) FILTER (…)` |
//!
//! The functions give back what they are given. The analyser rule runs after those that write casts. A cast that rounds is
//! wrapped wherever it stands: a view, a subquery or a grouping may be where it is written, and a condition on its column
//! is pushed down to it.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, internal_err};
use datafusion::config::ConfigOptions;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::expr::{AggregateFunction, BinaryExpr, Cast, ScalarFunction, TryCast};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    Case, ColumnarValue, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Operator, ReturnFieldArgs,
    ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Subquery, Volatility, lit, when,
};
use datafusion::optimizer::AnalyzerRule;

use super::rewriting::map_parts;

/// The rule.
#[derive(Debug)]
pub(crate) struct OpaqueValues {
    rounded: Arc<ScalarUDF>,
    maybe_none: Arc<ScalarUDF>,
}

/// What a node has expressions for, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It keeps the rows for which a condition is true.
    Condition,
    /// It counts rows; what computes the count is looked at later, and is never compared.
    Limit,
    Other,
}

/// What wraps casts that round.
const ROUNDED: &str = "rounded";

/// A function that gives back what it is given, for plans that know more of a value than its expression tells.
pub(crate) fn known() -> ScalarUDF {
    Same::new("known", Volatility::Immutable).into()
}

/// The cast in `rounded(cast)`, for those that compute what is written.
pub(crate) fn rounded_cast(call: &ScalarFunction) -> Option<&Expr> {
    let same = call.func.inner().downcast_ref::<Same>()?;
    match call.args.as_slice() {
        [cast] if same.name == ROUNDED => Some(cast),
        _ => None,
    }
}

fn is_rounded(expr: &Expr) -> bool {
    matches!(expr, Expr::ScalarFunction(call) if rounded_cast(call).is_some())
}

impl Default for OpaqueValues {
    fn default() -> Self {
        OpaqueValues {
            rounded: Arc::new(Same::new(ROUNDED, Volatility::Immutable).into()),
            // A constant in it must not be found out to be one.
            maybe_none: Arc::new(Same::new("maybe_none", Volatility::Volatile).into()),
        }
    }
}

impl AnalyzerRule for OpaqueValues {
    fn name(&self) -> &str {
        "opaque_values"
    }

    fn analyze(&self, plan: LogicalPlan, _options: &ConfigOptions) -> DataFusionResult<LogicalPlan> {
        let rewritten = plan.transform_up_with_subqueries(|node| {
            let schema = merge_schema(&node.inputs());
            let kind = match node {
                LogicalPlan::Filter(_) | LogicalPlan::Join(_) => Kind::Condition,
                LogicalPlan::Limit(_) => Kind::Limit,
                _ => Kind::Other,
            };
            let node = map_parts(node, |part| self.rewrite(part, &schema, kind))?;
            match node.transformed {
                true => node.map_data(LogicalPlan::recompute_schema),
                false => Ok(node),
            }
        });
        rewritten.map(|plan| plan.data)
    }
}

impl OpaqueValues {
    fn rewrite(&self, expr: Expr, schema: &DFSchema, kind: Kind) -> DataFusionResult<Transformed<Expr>> {
        let compared = |op, left: Expr, value| {
            Expr::BinaryExpr(BinaryExpr { left: Box::new(left), op, right: Box::new(lit(value)) })
        };
        let (same, different) = (Operator::IsNotDistinctFrom, Operator::IsDistinctFrom);
        let is_column = kind != Kind::Condition;
        match expr {
            Expr::Cast(Cast { expr, field }) if kind != Kind::Limit => {
                self.cast(expr, field, schema, |expr, field| Expr::Cast(Cast { expr, field }))
            }
            Expr::TryCast(TryCast { expr, field }) if kind != Kind::Limit => {
                self.cast(expr, field, schema, |expr, field| Expr::TryCast(TryCast { expr, field }))
            }
            Expr::ScalarFunction(call) => {
                // A plan may be analysed again, as part of a larger one.
                let once = rounded_cast(&call).filter(|inner| is_rounded(inner)).cloned();
                Ok(match once {
                    Some(once) => Transformed::yes(once),
                    None => Transformed::no(Expr::ScalarFunction(call)),
                })
            }
            Expr::IsTrue(inner) if is_column => Ok(Transformed::yes(compared(same, *inner, true))),
            Expr::IsFalse(inner) if is_column => Ok(Transformed::yes(compared(same, *inner, false))),
            Expr::IsNotTrue(inner) if is_column => Ok(Transformed::yes(compared(different, *inner, true))),
            Expr::IsNotFalse(inner) if is_column => Ok(Transformed::yes(compared(different, *inner, false))),
            Expr::IsUnknown(inner) => Ok(Transformed::yes(Expr::IsNull(inner))),
            Expr::IsNotUnknown(inner) => Ok(Transformed::yes(Expr::IsNotNull(inner))),
            Expr::ScalarSubquery(subquery) => self.maybe_none(subquery),
            Expr::AggregateFunction(mut function) => {
                bare_casts(&mut function.params.args);
                keep_excluded_out(function, schema)
            }
            Expr::WindowFunction(mut function) => {
                bare_casts(&mut function.params.args);
                Ok(Transformed::no(Expr::WindowFunction(function)))
            }
            other => Ok(Transformed::no(other)),
        }
    }

    /// Wraps a cast that rounds. One that goes on from there to an integer of fewer values, as that of a numeric to an
    /// integer does, comes in with it: it may fail, and what it gives is what an index or a condition is about.
    fn cast(
        &self,
        expr: Box<Expr>,
        field: FieldRef,
        schema: &DFSchema,
        cast: impl FnOnce(Box<Expr>, FieldRef) -> Expr,
    ) -> DataFusionResult<Transformed<Expr>> {
        let to = field.data_type();
        if !to.is_integer() && !matches!(to, DataType::Decimal128(..)) {
            return Ok(Transformed::no(cast(expr, field)));
        }
        let from = expr.get_type(schema)?;
        let within = match expr.as_ref() {
            Expr::ScalarFunction(call) if to.is_integer() && !widens(&from, to) => rounded_cast(call).cloned(),
            _ => None,
        };
        // A constant is computed before anything is compared with it.
        let is_constant = matches!(expr.as_ref(), Expr::Literal(..));
        let rounds = within.is_some() || (!is_constant && loses_digits(&from, to));
        let expr = match within {
            Some(within) => Box::new(within),
            None => expr,
        };
        let whole = cast(expr, field);
        Ok(match rounds {
            true => Transformed::yes(self.rounded.call(vec![whole])),
            false => Transformed::no(whole),
        })
    }

    /// A subquery that may give no row. Of those that depend on the outer row DataFusion makes outer joins, which know.
    fn maybe_none(&self, subquery: Subquery) -> DataFusionResult<Transformed<Expr>> {
        let plan = &subquery.subquery;
        let (relation, field) = plan.schema().qualified_field(0);
        if !subquery.outer_ref_columns.is_empty() || field.is_nullable() || gives_one_row(plan) {
            return Ok(Transformed::no(Expr::ScalarSubquery(subquery)));
        }
        let column = Expr::Column(Column::new(relation.cloned(), field.name()));
        let value = self.maybe_none.call(vec![column]).alias_qualified(relation.cloned(), field.name());
        let plan = LogicalPlanBuilder::from(plan.as_ref().clone()).project([value])?.build()?;
        Ok(Transformed::yes(Expr::ScalarSubquery(Subquery { subquery: Arc::new(plan), ..subquery })))
    }
}

/// Lets arguments that may fail be computed for those rows only that FILTER lets through.
fn keep_excluded_out(mut function: AggregateFunction, schema: &DFSchema) -> DataFusionResult<Transformed<Expr>> {
    let Some(filter) = function.params.filter.clone() else {
        return Ok(Transformed::no(Expr::AggregateFunction(function)));
    };
    let mut changed = false;
    for argument in &mut function.params.args {
        let done = matches!(argument, Expr::Case(Case { expr: None, when_then_expr, .. })
            if when_then_expr.first().is_some_and(|(when, _)| *when == filter));
        if done || !may_fail(argument, schema)? {
            continue;
        }
        let computed = std::mem::replace(argument, lit(false));
        *argument = when(filter.as_ref().clone(), computed).end()?;
        changed = true;
    }
    Ok(Transformed::new_transformed(Expr::AggregateFunction(function), changed))
}

/// Whether computing it may be an error for some values. Numerics that overflow when they are added or multiplied are not
/// looked for: sums of products are common, and such numbers are not.
fn may_fail(expr: &Expr, schema: &DFSchema) -> DataFusionResult<bool> {
    expr.exists(|part| {
        Ok(match part {
            Expr::ScalarFunction(_) => true,
            Expr::BinaryExpr(BinaryExpr { op: Operator::Divide | Operator::Modulo, .. }) => true,
            Expr::Cast(Cast { expr, field }) => !widens(&expr.get_type(schema)?, field.data_type()),
            _ => false,
        })
    })
}

/// Whether every value of the one type is one of the other.
fn widens(from: &DataType, to: &DataType) -> bool {
    let bits = |data_type: &DataType| data_type.primitive_width().unwrap_or(0);
    match (from, to) {
        (from, to) if from.is_integer() && to.is_integer() => {
            from.is_signed_integer() == to.is_signed_integer() && bits(from) <= bits(to)
        }
        (from, to) if to.is_floating() => from.is_integer() || (from.is_floating() && bits(from) <= bits(to)),
        (from, DataType::Decimal128(precision, scale)) if from.is_integer() => {
            i16::from(*precision) - i16::from(*scale) >= 20
        }
        (DataType::Decimal128(from, from_scale), DataType::Decimal128(to, to_scale)) => {
            to_scale >= from_scale && i16::from(*to) - i16::from(*to_scale) >= i16::from(*from) - i16::from(*from_scale)
        }
        _ => false,
    }
}

/// Takes casts that are a whole argument out of `rounded()` again: no condition gets through an aggregate or a window to
/// its arguments, and their functions keep the names they have.
fn bare_casts(arguments: &mut [Expr]) {
    for argument in arguments {
        let cast = match argument {
            Expr::ScalarFunction(call) => rounded_cast(call).cloned(),
            _ => None,
        };
        if let Some(cast) = cast {
            *argument = cast;
        }
    }
}

/// Whether different values may be equal after the cast.
fn loses_digits(from: &DataType, to: &DataType) -> bool {
    match (from, to) {
        (DataType::Decimal128(_, scale), to) if to.is_integer() => *scale > 0,
        (DataType::Decimal128(_, from), DataType::Decimal128(_, to)) => to < from,
        _ => false,
    }
}

/// Whether it is an aggregate of all rows, and nothing that drops its row.
fn gives_one_row(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Aggregate(aggregate) => aggregate.group_expr.is_empty(),
        LogicalPlan::Projection(node) => gives_one_row(&node.input),
        LogicalPlan::SubqueryAlias(node) => gives_one_row(&node.input),
        LogicalPlan::EmptyRelation(empty) => empty.produce_one_row,
        _ => false,
    }
}

/// Gives back its argument.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Same {
    name: &'static str,
    signature: Signature,
    /// Whether there may be NULLs where the argument has none.
    adds_nulls: bool,
}

impl Same {
    fn new(name: &'static str, volatility: Volatility) -> Self {
        Same { name, signature: Signature::any(1, volatility), adds_nulls: name != ROUNDED }
    }
}

impl ScalarUDFImpl for Same {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, argument_types: &[DataType]) -> DataFusionResult<DataType> {
        Ok(argument_types.first().cloned().unwrap_or(DataType::Null))
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs) -> DataFusionResult<FieldRef> {
        match arguments.arg_fields {
            [field] => {
                let nullable = self.adds_nulls || field.is_nullable();
                Ok(Arc::new(field.as_ref().clone().with_name(self.name).with_nullable(nullable)))
            }
            _ => internal_err!("{}() takes one argument", self.name),
        }
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        match <[ColumnarValue; 1]>::try_from(arguments.args) {
            Ok([value]) => Ok(value),
            Err(_) => internal_err!("{}() takes one argument", self.name),
        }
    }
}
