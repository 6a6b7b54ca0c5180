//! GROUP BY and HAVING as DataFusion's planner wants them.
//!
//! | written | becomes |
//! |---|---|
//! | `ROLLUP (x, x)`, `CUBE`, a grouping set with an element twice | `GROUPING SETS ((x), (x), ())` |
//! | `ROLLUP ((x, y), z)`, `CUBE` of lists | `GROUPING SETS ((x, y, z), (x, y), ())` |
//! | `GROUP BY ()` | `GROUP BY GROUPING SETS (())` |
//! | `ROLLUP (1)` | `ROLLUP` of the first item of the select list |
//! | `HAVING true` without GROUP BY and aggregates | `HAVING true AND count(1) >= 0` |
//! | grouping sets of expressions | of columns of a projection below, by [`GroupingExpressions`] |
//!
//! The last is an analyser rule, the first of all: those after it give other names to parts of an expression, and only keep
//! the names of whole columns, which grouping sets are not. It refuses aggregates of outer columns only, too, of which
//! DataFusion would make one value per row of the outer query.

use std::sync::Arc;

use datafusion::common::Column;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::config::ConfigOptions;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{Aggregate, Expr, GroupingSet, LogicalPlan, LogicalPlanBuilder};
use datafusion::optimizer::AnalyzerRule;
use datafusion::sql::sqlparser::ast::{self, BinaryOperator, GroupByExpr, Select, SelectItem, Value, ValueWithSpan};
use datafusion::sql::sqlparser::tokenizer::Span;

use super::copies::Copies;
use crate::dml::many_rows::calls_aggregates;
use crate::dml::syntax::{both, call_with, number};
use crate::{Error, Result};

/// A CUBE of more elements has too many sets to be spelled out.
const CUBE_MAX: usize = 10;

/// Rewrites GROUP BY and HAVING of a SELECT.
pub(in crate::sql) fn group_as_planned(select: &mut Select, copies: &mut Copies) -> Result<()> {
    if let GroupByExpr::Expressions(items, _) = &mut select.group_by {
        group_by_nothing(items);
        for item in items {
            name_positions(item, &select.projection, copies)?;
            spell_out_repeated(item, copies)?;
        }
    }
    let ungrouped = matches!(&select.group_by, GroupByExpr::Expressions(items, _) if items.is_empty());
    if let Some(having) = &mut select.having
        && ungrouped
        && !calls_aggregates(having)
    {
        let condition = std::mem::replace(having, ast::Expr::value(Value::Null));
        let counted = ast::Expr::BinaryOp {
            left: Box::new(call_with("count", vec![number(1)], Span::empty())),
            op: BinaryOperator::GtEq,
            right: Box::new(number(0)),
        };
        *having = both(condition, counted);
    }
    Ok(())
}

/// `()` adds nothing to other elements; alone it groups all rows.
fn group_by_nothing(items: &mut Vec<ast::Expr>) {
    let is_nothing = |item: &ast::Expr| matches!(item, ast::Expr::Tuple(elements) if elements.is_empty());
    if !items.iter().any(is_nothing) {
        return;
    }
    items.retain(|item| !is_nothing(item));
    if items.is_empty() {
        items.push(ast::Expr::GroupingSets(vec![Vec::new()]));
    }
}

/// The elements of ROLLUP, CUBE or GROUPING SETS.
fn elements(item: &mut ast::Expr) -> Option<&mut Vec<Vec<ast::Expr>>> {
    match item {
        ast::Expr::Rollup(elements) | ast::Expr::Cube(elements) | ast::Expr::GroupingSets(elements) => Some(elements),
        _ => None,
    }
}

fn name_positions(item: &mut ast::Expr, select_list: &[SelectItem], copies: &mut Copies) -> Result<()> {
    for element in elements(item).into_iter().flatten().flatten() {
        let ast::Expr::Value(ValueWithSpan { value: Value::Number(digits, _), .. }) = element else { continue };
        let place = digits.parse::<usize>().ok().and_then(|place| place.checked_sub(1));
        if let Some(SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) =
            place.and_then(|place| select_list.get(place))
        {
            copies.take_shared(expr, 1)?;
            *element = expr.clone();
        }
    }
    Ok(())
}

fn spell_out_repeated(item: &mut ast::Expr, copies: &mut Copies) -> Result<()> {
    let Some(all) = elements(item) else { return Ok(()) };
    let all = all.clone();
    // The planner knows lists in GROUPING SETS only.
    let has_lists = !matches!(item, ast::Expr::GroupingSets(_)) && all.iter().any(|element| element.len() != 1);
    let sets: Vec<Vec<ast::Expr>> = match item {
        ast::Expr::GroupingSets(_) => all,
        ast::Expr::Rollup(_) => (0..=all.len()).rev().map(|end| all[..end].concat()).collect(),
        _ if all.len() > CUBE_MAX => return Ok(()),
        _ => (0..1usize << all.len())
            .rev()
            .map(|chosen| {
                let chosen = all.iter().enumerate().filter(|(place, _)| chosen & (1 << place) != 0);
                chosen.flat_map(|(_, element)| element.clone()).collect()
            })
            .collect(),
    };
    let distinct: Vec<Vec<ast::Expr>> = sets
        .iter()
        .map(|set| {
            let mut distinct: Vec<ast::Expr> = Vec::with_capacity(set.len());
            for element in set {
                if !distinct.contains(element) {
                    distinct.push(element.clone());
                }
            }
            distinct
        })
        .collect();
    if has_lists || distinct != sets {
        for element in distinct.iter().flatten() {
            copies.take_shared(element, 1)?;
        }
        *item = ast::Expr::GroupingSets(distinct);
    }
    Ok(())
}

/// The rule.
#[derive(Debug)]
pub(crate) struct GroupingExpressions;

impl AnalyzerRule for GroupingExpressions {
    fn name(&self) -> &str {
        "grouping_expressions"
    }

    fn analyze(&self, plan: LogicalPlan, _options: &ConfigOptions) -> DataFusionResult<LogicalPlan> {
        let rewritten = plan.transform_up_with_subqueries(|node| match node {
            LogicalPlan::Aggregate(aggregate) => {
                refuse_outer(&aggregate)?;
                project_elements(aggregate)
            }
            node => Ok(Transformed::no(node)),
        });
        rewritten.map(|plan| plan.data)
    }
}

/// Fails where all columns of an aggregate are those of an outer query: it is that query's aggregate in SQL. What has a
/// subquery inside is left alone, whose columns would have to be found first.
fn refuse_outer(aggregate: &Aggregate) -> DataFusionResult<()> {
    for expr in &aggregate.aggr_expr {
        let (mut own, mut outer) = (false, false);
        expr.apply(|part| {
            match part {
                Expr::OuterReferenceColumn(..) => outer = true,
                Expr::Column(_)
                | Expr::ScalarSubquery(_)
                | Expr::Exists(_)
                | Expr::InSubquery(_)
                | Expr::SetComparison(_) => own = true,
                _ => {}
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        if outer && !own {
            return Err(Error::unsupported("an aggregate of outer columns only, in a subquery")
                .with_hint("Aggregate them in a query in FROM.")
                .into());
        }
    }
    Ok(())
}

/// Computes the expressions of grouping sets below the aggregation.
fn project_elements(aggregate: Aggregate) -> DataFusionResult<Transformed<LogicalPlan>> {
    let [Expr::GroupingSet(sets)] = aggregate.group_expr.as_slice() else {
        return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)));
    };
    let input = Arc::clone(&aggregate.input);
    let mut computed: Vec<(Expr, Column)> = Vec::new();
    for element in sets.distinct_expr() {
        if matches!(element, Expr::Column(_)) {
            continue;
        }
        let (relation, name) = element.qualified_name();
        let column = Column::new(relation, name);
        if !computed.iter().any(|(known, _)| known == element) {
            computed.push((element.clone(), column));
        }
    }
    let taken = |(_, column): &(Expr, Column)| input.schema().has_column(column);
    if computed.is_empty() || computed.iter().any(taken) {
        return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)));
    }
    let columns = input.schema().iter().map(|(relation, field)| Expr::Column(Column::from((relation, field))));
    let elements =
        computed.iter().map(|(expr, column)| expr.clone().alias_qualified(column.relation.clone(), &column.name));
    let projection = columns.chain(elements).collect::<Vec<_>>();
    let input = LogicalPlanBuilder::from(input).project(projection)?.build()?;
    let as_column = |expr: &Expr| {
        let known = computed.iter().find(|(element, _)| element == expr);
        known.map_or_else(|| expr.clone(), |(_, column)| Expr::Column(column.clone()))
    };
    let all = |list: &[Expr]| list.iter().map(as_column).collect::<Vec<_>>();
    let sets = match sets {
        GroupingSet::Rollup(list) => GroupingSet::Rollup(all(list)),
        GroupingSet::Cube(list) => GroupingSet::Cube(all(list)),
        GroupingSet::GroupingSets(lists) => GroupingSet::GroupingSets(lists.iter().map(|list| all(list)).collect()),
    };
    let mut aggregates = Vec::with_capacity(aggregate.aggr_expr.len());
    for expr in aggregate.aggr_expr {
        let (relation, name) = expr.qualified_name();
        let rewritten = expr.transform_down(|expr| match expr {
            Expr::AggregateFunction(mut function) if function.func.name() == "grouping" => {
                // Arguments with casts have names that tell them apart.
                let elements: Vec<Expr> = function.params.args.into_iter().map(Expr::unalias).collect();
                function.params.args = all(&elements);
                Ok(Transformed::yes(Expr::AggregateFunction(function)))
            }
            expr => Ok(Transformed::no(expr)),
        })?;
        aggregates.push(match rewritten.transformed {
            true if rewritten.data.qualified_name() != (relation.clone(), name.clone()) => {
                rewritten.data.alias_qualified(relation, name)
            }
            _ => rewritten.data,
        });
    }
    let aggregate = Aggregate::try_new(Arc::new(input), vec![Expr::GroupingSet(sets)], aggregates)?;
    Ok(Transformed::yes(LogicalPlan::Aggregate(aggregate)))
}
