//! Expressions and subqueries of a plan that would stand in several places.
//!
//! A rule, or DataFusion's optimiser, may name an operand twice: `x BETWEEN a AND b` becomes `x >= a AND x <= b`. With another
//! one in the place of `x`, one in that, and so on, the innermost is there as often as there are of them in powers of two. And
//! what gives another value each time it is computed must not be computed twice. So rules ask here first; what they do
//! otherwise is theirs to say, be it a function that takes its operands once or an error. Forms of syntax that are written
//! out before a plan is made have [a bound of their own](crate::sql::tree::copies).
//!
//! Invariant: what may be copied has a [weight](Measure::weight_of) of at most [`WEIGHT_MAX`], into which goes what the optimiser will
//! make of it.

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::expr::{Between, BinaryExpr, Case, Exists, InSubquery, ScalarFunction, SetComparison};
use datafusion::logical_expr::{Expr, LogicalPlan, Operator};

use crate::common_rows::input_of_common_rows;
use crate::{Error, error::sqlstate};

/// The expressions and operators in a copy. It is planned in some milliseconds.
const WEIGHT_MAX: usize = 1_000;

/// The alternatives of a regular expression that are written one by one.
const ALTERNATIVES_MAX: usize = 4;

/// Whether an expression may be computed in several places: it is not large, and has the same value in all of them.
pub(crate) fn may_copy(expr: &Expr) -> DataFusionResult<bool> {
    let mut measure = Measure::default();
    Ok(measure.weight(expr)? <= WEIGHT_MAX && !measure.is_volatile)
}

/// Fails with 54001 if it may not. `by_values`: whether it matters that it has the same one.
pub(in crate::sql) fn check_copy(expr: &Expr, by_values: bool) -> DataFusionResult<()> {
    let mut measure = Measure::default();
    let weight = measure.weight(expr)?;
    check(weight, by_values && measure.is_volatile)
}

/// The same of a subquery. `by_values`: whether it matters which rows it has.
pub(in crate::sql) fn check_copied_plan(plan: &LogicalPlan, by_values: bool) -> DataFusionResult<()> {
    let mut measure = Measure::default();
    let weight = measure.weight_of_plan(plan)?;
    check(weight, by_values && measure.is_volatile)
}

fn check(weight: usize, is_volatile: bool) -> DataFusionResult<()> {
    if is_volatile {
        return Err(crate::sql::tree::copies::computed_twice().into());
    }
    if weight > WEIGHT_MAX {
        let message = "a subquery or an operand that has to be computed in several places is too large";
        return Err(Error::new(sqlstate::STATEMENT_TOO_COMPLEX, message)
            .with_hint("Give it a name of its own, in a subquery in FROM, or put its rows into a table.")
            .into());
    }
    Ok(())
}

#[derive(Debug, Default)]
struct Measure {
    is_volatile: bool,
}

impl Measure {
    /// The weight of an expression that may be as deep as it likes.
    fn weight(&mut self, expr: &Expr) -> DataFusionResult<usize> {
        let mut nodes = 0_usize;
        expr.apply(|part| {
            nodes += usize::from(!matches!(part, Expr::Literal(..)));
            Ok(continued(nodes))
        })?;
        match nodes > WEIGHT_MAX {
            true => Ok(nodes),
            false => self.weight_of(expr),
        }
    }

    /// The nodes of an expression, once it is optimised. It goes no deeper where that is more than may be copied.
    fn weight_of(&mut self, expr: &Expr) -> DataFusionResult<usize> {
        self.is_volatile |= expr.is_volatile_node();
        let twice = |weight: usize| weight.saturating_mul(2);
        Ok(match expr {
            // It has nothing in it that grows, and a list may have many.
            Expr::Literal(..) => 0,
            Expr::Between(Between { expr, low, high, .. }) => {
                twice(self.weight_of(expr)?).saturating_add(self.sum([low.as_ref(), high.as_ref()])?)
            }
            // A condition is named for its own result, and denied for each that follows.
            Expr::Case(case) if is_condition(case) => {
                let is_false = |expr: &Expr| matches!(expr, Expr::Literal(ScalarValue::Boolean(Some(false)), _));
                let denied = usize::from(!case.else_expr.as_deref().is_some_and(is_false));
                let mut weight = 1_usize;
                for (behind, (when, then)) in case.when_then_expr.iter().rev().enumerate() {
                    let named = self.weight_of(when)?.saturating_mul(1 + behind + denied);
                    weight = weight.saturating_add(named).saturating_add(self.weight_of(then)?);
                }
                weight.saturating_add(self.sum(case.else_expr.as_deref())?)
            }
            // A CASE of each argument that asks whether it is NULL, which may be such a condition.
            Expr::ScalarFunction(ScalarFunction { func, args }) if matches!(func.name(), "coalesce" | "nvl") => {
                match args.split_last() {
                    Some((last, others)) => self.sum(others)?.saturating_mul(3).saturating_add(self.weight_of(last)?),
                    None => 1,
                }
            }
            Expr::BinaryExpr(BinaryExpr { left, op, right }) if is_alternation(*op, right) => {
                self.weight_of(left)?.saturating_mul(ALTERNATIVES_MAX)
            }
            Expr::SetComparison(SetComparison { expr, subquery, .. }) => {
                twice(self.weight_of(expr)?.saturating_add(self.weight_of_plan(&subquery.subquery)?))
            }
            Expr::ScalarSubquery(subquery)
            | Expr::Exists(Exists { subquery, .. })
            | Expr::InSubquery(InSubquery { subquery, .. }) => {
                let weight = self.weight_of_plan(&subquery.subquery)?;
                weight.saturating_add(self.sum_of_children(expr)?)
            }
            other => 1_usize.saturating_add(self.sum_of_children(other)?),
        })
    }

    fn weight_of_plan(&mut self, plan: &LogicalPlan) -> DataFusionResult<usize> {
        let mut weight = 0_usize;
        plan.apply(|node| {
            weight = weight.saturating_add(1);
            // Its rows are the same wherever they are read.
            if let Some(input) = input_of_common_rows(node) {
                let was_volatile = self.is_volatile;
                weight = weight.saturating_add(self.weight_of_plan(input)?);
                self.is_volatile = was_volatile;
                return Ok(match continued(weight) {
                    TreeNodeRecursion::Continue => TreeNodeRecursion::Jump,
                    ended => ended,
                });
            }
            node.apply_expressions(|expr| {
                weight = weight.saturating_add(self.weight(expr)?);
                Ok(continued(weight))
            })?;
            Ok(continued(weight))
        })?;
        Ok(weight)
    }

    fn sum<'a>(&mut self, exprs: impl IntoIterator<Item = &'a Expr>) -> DataFusionResult<usize> {
        let mut weight = 0_usize;
        for expr in exprs {
            weight = weight.saturating_add(self.weight_of(expr)?);
        }
        Ok(weight)
    }

    fn sum_of_children(&mut self, expr: &Expr) -> DataFusionResult<usize> {
        let mut weight = 0_usize;
        expr.apply_children(|child| {
            weight = weight.saturating_add(self.weight_of(child)?);
            Ok(continued(weight))
        })?;
        Ok(weight)
    }
}

fn continued(weight: usize) -> TreeNodeRecursion {
    if weight > WEIGHT_MAX { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue }
}

/// Whether the optimiser may write a regular expression as several LIKEs.
pub(in crate::sql) fn is_alternation(op: Operator, pattern: &Expr) -> bool {
    use Operator::{RegexIMatch, RegexMatch, RegexNotIMatch, RegexNotMatch};
    matches!(op, RegexMatch | RegexIMatch | RegexNotMatch | RegexNotIMatch)
        && matches!(pattern, Expr::Literal(text, _) if text.try_as_str().flatten().is_some_and(|text| text.contains('|')))
}

/// Whether the optimiser may write a CASE with AND and OR, which takes its conditions twice: one that is a condition itself.
fn is_condition(case: &Case) -> bool {
    let is_boolean = |expr: &Expr| match expr {
        Expr::Literal(value, _) => matches!(value.data_type(), DataType::Null | DataType::Boolean),
        Expr::BinaryExpr(operation) => !is_arithmetic(operation.op),
        Expr::Negative(_) | Expr::Cast(_) => false,
        _ => true,
    };
    case.expr.is_none() && case.when_then_expr.iter().all(|(_, then)| is_boolean(then))
}

fn is_arithmetic(op: Operator) -> bool {
    use Operator::{BitwiseAnd, BitwiseOr, BitwiseShiftLeft, BitwiseShiftRight, BitwiseXor, StringConcat};
    op.is_numerical_operators()
        || matches!(op, BitwiseAnd | BitwiseOr | BitwiseXor | BitwiseShiftLeft | BitwiseShiftRight | StringConcat)
}

#[cfg(test)]
mod tests {
    use datafusion::functions::expr_fn::{coalesce, random};
    use datafusion::logical_expr::{LogicalPlanBuilder, col, lit, scalar_subquery, when};

    use super::*;

    fn nested(depth: usize, around: impl Fn(Expr) -> Expr) -> Expr {
        (0..depth).fold(col("a"), |inner, _| around(inner))
    }

    #[test]
    fn what_doubles_is_heavy_and_what_does_not_is_light() {
        let between = |inner: Expr| inner.between(lit(1), lit(2));
        let case = |inner: Expr| when(inner, col("b").is_null()).otherwise(lit(true)).unwrap();
        let either = |inner: Expr| coalesce(vec![inner, lit(1)]);
        assert!(may_copy(&nested(5, between)).unwrap() && !may_copy(&nested(12, between)).unwrap());
        assert!(may_copy(&nested(5, case)).unwrap() && !may_copy(&nested(12, case)).unwrap());
        assert!(may_copy(&nested(4, either)).unwrap() && !may_copy(&nested(12, either)).unwrap());
        assert!(may_copy(&nested(100, |inner| inner + lit(1))).unwrap());
        assert!(!may_copy(&nested(1_100, |inner| inner + lit(1))).unwrap());
        let number = |inner: Expr| when(inner.gt(lit(1)), lit(1) + lit(2)).otherwise(lit(3)).unwrap();
        assert!(may_copy(&nested(30, number)).unwrap());
    }

    #[test]
    fn what_differs_each_time_is_not_copied_in_a_subquery_either() {
        assert!(!may_copy(&(random() + lit(1.0))).unwrap());
        let plan = LogicalPlanBuilder::empty(true).project([random().alias("r")]).unwrap().build().unwrap();
        assert!(check_copied_plan(&plan, true).is_err() && check_copied_plan(&plan, false).is_ok());
        let subquery = scalar_subquery(plan.into());
        assert!(!may_copy(&subquery).unwrap());
        assert!(check_copy(&subquery, true).is_err());
    }
}
