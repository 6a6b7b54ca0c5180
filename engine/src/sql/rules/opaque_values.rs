//! Values DataFusion's optimiser must not see through.
//!
//! | expression | its optimiser would | becomes |
//! |---|---|---|
//! | `CAST(numeric AS int)`, also `numeric(n, fewer digits)` | compare with 3, there or in a query around it, by `numeric = 3.00`; but the cast rounds | `rounded(CAST(numeric AS int))` |
//! | `b IS TRUE` in a select list or GROUP BY | give the column two nullabilities, and fail | `b IS NOT DISTINCT FROM true` |
//! | `sum(1 / x) FILTER (WHERE x <> 0)` | compute `1 / x` of all rows | `sum(CASE WHEN x <> 0 THEN 1 / x END) FILTER (…)` |
//! | `random() BETWEEN 0.2 AND 0.4` | compute it twice, as `>=` and `<=` | `is_between(random(), 0.2, 0.4)` |
//! | `CASE WHEN random() < 0.5 THEN a > 1 ELSE b > 1 END` | compute the condition twice, with AND and OR | `CASE random() < 0.5 WHEN true THEN …` |
//! | `random()::text ~ '1\|2'` | compute it twice, as LIKE OR LIKE | with the constant in a function |
//!
//! The last three are so of large operands, too, which would double with each that is in another one ([`may_copy`]).
//!
//! The functions give back what they are given. The analyser rule runs after those that write casts. A cast that rounds is
//! wrapped wherever it stands: a view, a subquery or a grouping may be where it is written, and a condition on its column
//! is pushed down to it.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, ScalarValue, internal_err};
use datafusion::config::ConfigOptions;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::expr::{AggregateFunction, Between, BinaryExpr, Cast, ScalarFunction, TryCast};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    Case, ColumnarValue, Expr, ExprSchemable, LogicalPlan, Operator, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility, lit, not, when,
};
use datafusion::optimizer::AnalyzerRule;

use super::copies::{check_copied_plan, check_copy, is_alternation, may_copy};
use super::rewriting::map_parts;
use crate::functions::between::is_between;

/// The rule.
#[derive(Debug)]
pub(crate) struct OpaqueValues {
    rounded: Arc<ScalarUDF>,
    pattern: Arc<ScalarUDF>,
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

/// What wraps values of which is known whether they may be NULL.
const NOTED: &str = "noted";

/// A function that gives back what it is given, and knows whether that may be NULL.
pub(crate) fn noted() -> ScalarUDF {
    Same::new(NOTED, Volatility::Immutable).into()
}

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

/// A function that gives back what it is given, for values that are NULL where there is no row.
pub(super) fn maybe_none(volatility: Volatility) -> ScalarUDF {
    Same::new("maybe_none", volatility).into()
}

fn is_rounded(expr: &Expr) -> bool {
    matches!(expr, Expr::ScalarFunction(call) if rounded_cast(call).is_some())
}

impl Default for OpaqueValues {
    fn default() -> Self {
        OpaqueValues {
            rounded: Arc::new(Same::new(ROUNDED, Volatility::Immutable).into()),
            // A constant in it must not be found out to be one.
            pattern: Arc::new(Same::new("pattern", Volatility::Volatile).into()),
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
            // Two or three copies, each for one of its values: unknown is one where there are NULLs.
            Expr::SetComparison(comparison) => {
                let plan = &comparison.subquery.subquery;
                let by_values = plan.schema().field(0).is_nullable();
                check_copied_plan(plan, by_values)?;
                check_copy(&comparison.expr, by_values)?;
                Ok(Transformed::no(Expr::SetComparison(comparison)))
            }
            Expr::Between(between) => once_between(between, schema),
            Expr::BinaryExpr(BinaryExpr { left, op, right }) if is_alternation(op, &right) && !may_copy(&left)? => {
                let right = Box::new(self.pattern.call(vec![*right]));
                Ok(Transformed::yes(Expr::BinaryExpr(BinaryExpr { left, op, right })))
            }
            Expr::Case(case) => once_decided(case, schema),
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
}

/// BETWEEN whose operand is computed once.
fn once_between(between: Between, schema: &DFSchema) -> DataFusionResult<Transformed<Expr>> {
    if may_copy(&between.expr)? || between.expr.get_type(schema)?.is_nested() {
        return Ok(Transformed::no(Expr::Between(between)));
    }
    let Between { expr, negated, low, high } = between;
    let found = is_between(*expr, *low, *high);
    Ok(Transformed::yes(if negated { not(found) } else { found }))
}

/// CASE of booleans whose conditions are computed once: each is compared with true, and stands in the ELSE of the one before.
fn once_decided(case: Case, schema: &DFSchema) -> DataFusionResult<Transformed<Expr>> {
    let kept = |case| Ok(Transformed::no(Expr::Case(case)));
    if case.expr.is_some() {
        return kept(case);
    }
    let mut may_copy_all = true;
    for (when, _) in &case.when_then_expr {
        may_copy_all &= may_copy(when)?;
    }
    let then = case.when_then_expr.first().map(|(_, then)| then.get_type(schema)).transpose()?;
    if may_copy_all || then != Some(DataType::Boolean) {
        return kept(case);
    }
    let Case { expr: _, when_then_expr, else_expr } = case;
    let decided = when_then_expr.into_iter().rev().fold(else_expr, |otherwise, (when, then)| {
        let when_then_expr = vec![(Box::new(lit(true)), then)];
        Some(Box::new(Expr::Case(Case { expr: Some(when), when_then_expr, else_expr: otherwise })))
    });
    Ok(Transformed::yes(*decided.unwrap_or_else(|| Box::new(lit(ScalarValue::Boolean(None))))))
}

/// Lets arguments that may fail be computed for those rows only that FILTER lets through.
fn keep_excluded_out(mut function: AggregateFunction, schema: &DFSchema) -> DataFusionResult<Transformed<Expr>> {
    let Some(filter) = function.params.filter.clone() else {
        return Ok(Transformed::no(Expr::AggregateFunction(function)));
    };
    if !may_copy(&filter)? {
        return keep_excluded_null(function, schema);
    }
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

/// The same where FILTER must be computed once: an aggregate that passes over NULLs needs none if its argument is NULL.
fn keep_excluded_null(mut function: AggregateFunction, schema: &DFSchema) -> DataFusionResult<Transformed<Expr>> {
    const PASSING_OVER: &[&str] = &[
        "avg",
        "bit_and",
        "bit_or",
        "bit_xor",
        "bool_and",
        "bool_or",
        "count",
        "max",
        "min",
        "stddev",
        "stddev_pop",
        "string_agg",
        "sum",
        "var",
        "var_pop",
    ];
    let passes_over = PASSING_OVER.contains(&function.func.name());
    let params = &mut function.params;
    let mut fails = false;
    for argument in &params.args {
        fails |= may_fail(argument, schema)?;
    }
    if !fails {
        return Ok(Transformed::no(Expr::AggregateFunction(function)));
    }
    match (params.args.first_mut(), params.filter.take()) {
        (Some(argument), Some(filter)) if passes_over => {
            let computed = std::mem::replace(argument, lit(false));
            *argument = when(*filter, computed).end()?;
        }
        (_, filter) => {
            if let Some(filter) = &filter {
                check_copy(filter, true)?;
            }
            params.filter = filter;
        }
    }
    Ok(Transformed::yes(Expr::AggregateFunction(function)))
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
        Same { name, signature: Signature::any(1, volatility), adds_nulls: ![ROUNDED, NOTED].contains(&name) }
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
