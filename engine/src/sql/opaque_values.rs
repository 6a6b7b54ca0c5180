//! Values DataFusion's optimiser must not see through.
//!
//! | expression | its optimiser would | becomes |
//! |---|---|---|
//! | `CAST(numeric AS int) = 3`, also `numeric(n, fewer digits)` | drop the cast: `numeric = 3.00`; but the cast rounds | `rounded(CAST(numeric AS int)) = 3` |
//! | `(SELECT 1 WHERE false) IS NULL` | take it for false, the column having no NULLs; but there may be no row | the subquery's column is `maybe_none(1)` |
//! | `b IS TRUE` in a select list or GROUP BY | give the column two nullabilities, and fail | `b IS NOT DISTINCT FROM true` |
//! | `sum(1 / x) FILTER (WHERE x <> 0)` | compute `1 / x` of all rows | `sum(CASE WHEN x <> 0 THEN 1 / x END) FILTER (…)` |
//!
//! The functions give back what they are given. The analyser rule runs after those that write casts.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, internal_err};
use datafusion::config::ConfigOptions;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::expr::{AggregateFunction, Between, BinaryExpr, Cast, InList};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    Case, ColumnarValue, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Operator, ReturnFieldArgs,
    ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Subquery, Volatility, lit, when,
};
use datafusion::optimizer::AnalyzerRule;

/// The rule.
#[derive(Debug)]
pub(crate) struct OpaqueValues {
    rounded: Arc<ScalarUDF>,
    maybe_none: Arc<ScalarUDF>,
}

/// A function that gives back what it is given, for plans that know more of a value than its expression tells.
pub(crate) fn known() -> ScalarUDF {
    Same::new("known", Volatility::Immutable).into()
}

impl Default for OpaqueValues {
    fn default() -> Self {
        OpaqueValues {
            rounded: Arc::new(Same::new("rounded", Volatility::Immutable).into()),
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
            let names = NamePreserver::new(&node);
            let is_condition = matches!(node, LogicalPlan::Filter(_) | LogicalPlan::Join(_));
            let node = node.map_expressions(|expr| {
                let name = names.save(&expr);
                let rewritten = expr.transform_up(|expr| self.rewrite(expr, &schema, is_condition))?;
                Ok(rewritten.update_data(|expr| name.restore(expr)))
            })?;
            match node.transformed {
                true => node.map_data(LogicalPlan::recompute_schema),
                false => Ok(node),
            }
        });
        rewritten.map(|plan| plan.data)
    }
}

impl OpaqueValues {
    fn rewrite(&self, expr: Expr, schema: &DFSchema, is_condition: bool) -> DataFusionResult<Transformed<Expr>> {
        let compared = |op, left: Expr, value| {
            Expr::BinaryExpr(BinaryExpr { left: Box::new(left), op, right: Box::new(lit(value)) })
        };
        let (same, different) = (Operator::IsNotDistinctFrom, Operator::IsDistinctFrom);
        match expr {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) if compares(op) => {
                let (left, right) = (self.operand(*left, schema)?, self.operand(*right, schema)?);
                let transformed = left.transformed || right.transformed;
                let expr = BinaryExpr { left: Box::new(left.data), op, right: Box::new(right.data) };
                Ok(Transformed::new_transformed(Expr::BinaryExpr(expr), transformed))
            }
            Expr::InList(InList { expr, list, negated }) => {
                let expr = self.operand(*expr, schema)?;
                Ok(expr.update_data(|expr| Expr::InList(InList { expr: Box::new(expr), list, negated })))
            }
            Expr::Between(Between { expr, negated, low, high }) => {
                let expr = self.operand(*expr, schema)?;
                Ok(expr.update_data(|expr| Expr::Between(Between { expr: Box::new(expr), negated, low, high })))
            }
            Expr::Case(Case { expr: Some(expr), when_then_expr, else_expr }) => {
                let expr = self.operand(*expr, schema)?;
                let case = |expr| Expr::Case(Case { expr: Some(Box::new(expr)), when_then_expr, else_expr });
                Ok(expr.update_data(case))
            }
            Expr::IsTrue(inner) if !is_condition => Ok(Transformed::yes(compared(same, *inner, true))),
            Expr::IsFalse(inner) if !is_condition => Ok(Transformed::yes(compared(same, *inner, false))),
            Expr::IsNotTrue(inner) if !is_condition => Ok(Transformed::yes(compared(different, *inner, true))),
            Expr::IsNotFalse(inner) if !is_condition => Ok(Transformed::yes(compared(different, *inner, false))),
            Expr::IsUnknown(inner) => Ok(Transformed::yes(Expr::IsNull(inner))),
            Expr::IsNotUnknown(inner) => Ok(Transformed::yes(Expr::IsNotNull(inner))),
            Expr::ScalarSubquery(subquery) => self.maybe_none(subquery),
            Expr::AggregateFunction(function) => keep_excluded_out(function, schema),
            other => Ok(Transformed::no(other)),
        }
    }

    /// An operand of a comparison.
    fn operand(&self, expr: Expr, schema: &DFSchema) -> DataFusionResult<Transformed<Expr>> {
        match rounds(&expr, schema)? {
            true => Ok(Transformed::yes(self.rounded.call(vec![expr]))),
            false => Ok(Transformed::no(expr)),
        }
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

fn compares(op: Operator) -> bool {
    use Operator::{Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
}

/// Whether it is a cast that rounds, or such a cast widened again to meet the other operand.
fn rounds(expr: &Expr, schema: &DFSchema) -> DataFusionResult<bool> {
    match expr {
        Expr::Cast(Cast { expr: inner, field }) => {
            Ok(loses_digits(&inner.get_type(schema)?, field.data_type()) || rounds(inner, schema)?)
        }
        _ => Ok(false),
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
}

impl Same {
    fn new(name: &'static str, volatility: Volatility) -> Self {
        Same { name, signature: Signature::any(1, volatility) }
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
            [field] => Ok(Arc::new(field.as_ref().clone().with_name(self.name).with_nullable(true))),
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
