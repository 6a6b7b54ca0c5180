//! Conditions that DataFusion's simplifier makes known where they are unknown: an analyser rule that keeps it from doing so.
//!
//! | expression | its simplifier makes | where `a` is NULL |
//! |---|---|---|
//! | `a NOT IN (1, 2) OR a NOT IN (3, 4)` | true, no value being in both lists | it is NULL, and no row to be found |
//! | `NOT (a IN (1, 2) AND a IN (3, 4))` | true | it is NULL |
//! | `a IN (1, NULL) AND a NOT IN (1)` in a select list | `a IN (NULL)`, which is not false for 1 | |
//! | `NOT (a ~ '.*')` | `a IS NULL` | it is NULL |
//!
//! So of several lists for one operand all but the first are put into a function, but for those of a condition whose being
//! unknown is as good as its being false; and the pattern is `^`, which matches as much.

use std::sync::Arc;

use datafusion::common::ScalarValue;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::config::ConfigOptions;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::expr::{BinaryExpr, Cast, InList};
use datafusion::logical_expr::{Expr, LogicalPlan, Operator, ScalarUDF};
use datafusion::optimizer::AnalyzerRule;

use super::listed_values::{each_row, in_each_row};
use super::rewriting::{any_node, any_part, map_exprs};
use crate::functions::pattern_syntax::ACROSS_LINES;

/// The rule.
#[derive(Debug)]
pub(crate) struct Unknowns {
    each_row: Arc<ScalarUDF>,
}

impl Default for Unknowns {
    fn default() -> Self {
        Unknowns { each_row: Arc::new(each_row()) }
    }
}

/// Where a part of an expression stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// It must hold by itself, for a row to be found: unknown is as good as false.
    Conjunct,
    /// The same, but it may be another part that holds.
    Alternative,
    /// Its value is used.
    Value,
}

impl AnalyzerRule for Unknowns {
    fn name(&self) -> &str {
        "unknowns"
    }

    fn analyze(&self, plan: LogicalPlan, _options: &ConfigOptions) -> DataFusionResult<LogicalPlan> {
        let is_meant = |part: &Expr| matches!(part, Expr::InList(_)) || matches_everything(part);
        if !any_node(&plan, |node| any_part(node, is_meant))? {
            return Ok(plan);
        }
        let rewritten = plan.transform_up_with_subqueries(|node| {
            let place = match node {
                LogicalPlan::Filter(_) | LogicalPlan::Join(_) => Place::Conjunct,
                _ => Place::Value,
            };
            map_exprs(node, |expr| {
                let mut lists = Lists::of(&expr)?;
                if !lists.is_meant {
                    return Ok(Transformed::no(expr));
                }
                self.rewrite(expr, place, &mut lists).map(Transformed::yes)
            })
        });
        rewritten.map(|plan| plan.data)
    }
}

/// The operands of the lists in an expression.
#[derive(Debug, Default)]
struct Lists {
    /// Those that have several, each with whether one was met on the way.
    repeated: Vec<(Expr, bool)>,
    is_meant: bool,
}

impl Lists {
    fn of(expr: &Expr) -> DataFusionResult<Lists> {
        let (mut once, mut lists) = (Vec::new(), Lists::default());
        expr.apply(|part| {
            lists.is_meant |= matches_everything(part);
            if let Expr::InList(InList { expr, .. }) = part {
                match once.contains(expr) {
                    false => once.push(expr.clone()),
                    true if lists.repeated.iter().any(|(known, _)| known == expr.as_ref()) => {}
                    true => lists.repeated.push((expr.as_ref().clone(), false)),
                }
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        lists.is_meant |= !lists.repeated.is_empty();
        Ok(lists)
    }

    /// Whether there was a list for this operand before.
    fn meet(&mut self, operand: &Expr) -> bool {
        match self.repeated.iter_mut().find(|(known, _)| known == operand) {
            Some((_, met)) => std::mem::replace(met, true),
            None => false,
        }
    }
}

impl Unknowns {
    fn rewrite(&self, expr: Expr, place: Place, lists: &mut Lists) -> DataFusionResult<Expr> {
        match expr {
            Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::And | Operator::Or), right }) => {
                let place = match (op, place) {
                    (Operator::Or, Place::Conjunct) => Place::Alternative,
                    (_, place) => place,
                };
                let (left, right) = (self.rewrite(*left, place, lists)?, self.rewrite(*right, place, lists)?);
                Ok(Expr::BinaryExpr(BinaryExpr { left: Box::new(left), op, right: Box::new(right) }))
            }
            Expr::InList(list) => {
                let is_safe = match place {
                    Place::Conjunct => true,
                    Place::Alternative => !list.negated,
                    Place::Value => false,
                };
                match !is_safe && lists.meet(&list.expr) {
                    true => Ok(self.each_row.call(vec![Expr::InList(list)])),
                    false => Ok(Expr::InList(list)),
                }
            }
            // A plan may be analysed again, as part of a larger one.
            Expr::ScalarFunction(call) if matches!(in_each_row(&call), Some(Expr::InList(_))) => {
                Ok(Expr::ScalarFunction(call))
            }
            Expr::BinaryExpr(BinaryExpr { left, op, right }) if is_any_text(op, &right) => {
                let left = Box::new(self.rewrite(*left, Place::Value, lists)?);
                Ok(Expr::BinaryExpr(BinaryExpr { left, op, right: Box::new(any_beginning(*right)) }))
            }
            other => {
                let parts = other.map_children(|part| self.rewrite(part, Place::Value, lists).map(Transformed::yes))?;
                Ok(parts.data)
            }
        }
    }
}

/// The pattern that matches the beginning of any text, of the type of another one. DataFusion knows nothing of it.
fn any_beginning(text: Expr) -> Expr {
    let (value, metadata) = match text {
        Expr::Literal(value, metadata) => (value, metadata),
        Expr::Cast(Cast { expr, field }) => return Expr::Cast(Cast { expr: Box::new(any_beginning(*expr)), field }),
        other => return other,
    };
    let beginning = Some("^".to_owned());
    let value = match value {
        ScalarValue::LargeUtf8(_) => ScalarValue::LargeUtf8(beginning),
        ScalarValue::Utf8View(_) => ScalarValue::Utf8View(beginning),
        _ => ScalarValue::Utf8(beginning),
    };
    Expr::Literal(value, metadata)
}

fn matches_everything(part: &Expr) -> bool {
    matches!(part, Expr::BinaryExpr(BinaryExpr { op, right, .. }) if is_any_text(*op, right))
}

fn is_dots(pattern: &Expr) -> bool {
    match pattern {
        Expr::Cast(Cast { expr, .. }) => is_dots(expr),
        Expr::Literal(text, _) => {
            let text = text.try_as_str().flatten();
            text.is_some_and(|text| text.strip_prefix(ACROSS_LINES).unwrap_or(text) == ".*")
        }
        _ => false,
    }
}

fn is_any_text(op: Operator, pattern: &Expr) -> bool {
    use Operator::{RegexIMatch, RegexMatch, RegexNotIMatch, RegexNotMatch};
    matches!(op, RegexMatch | RegexIMatch | RegexNotMatch | RegexNotIMatch) && is_dots(pattern)
}
