//! Where an [`Apply`] goes.
//!
//! [`BeforeJoins`] is the last analyser rule. It takes what DataFusion's checks refuse, and what its rules would get
//! wrong, because they pull conditions on outer columns up through operators that those conditions cannot pass:
//!
//! | in a subquery that depends on the outer row | why |
//! |---|---|
//! | a reference across a query in between | would be looked for in the wrong place |
//! | a window function or a LIMIT below another operator | would count the rows of all outer rows |
//! | an aggregate of rows chosen by an inequality | would be pulled up in part, and fail |
//! | an aggregate over another one | is grouped by the outer columns only once |
//! | INTERSECT or EXCEPT | compares the columns that it shows, and no others |
//! | ROLLUP, CUBE, GROUPING SETS | one of the sets may be empty, and has a row where there is none to aggregate |
//! | a condition on columns that a subquery in FROM does not show | would not be known where it is pulled up to |
//! | EXISTS or IN of an aggregate without groups | has a row even where it has none to aggregate |
//!
//! [`AfterJoins`] is an optimiser rule behind those that make joins of subqueries. Of EXISTS and IN outside of WHERE it
//! makes the mark joins DataFusion makes inside, and of what is left an [`Apply`].

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, ExprSchema};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::logical_expr::expr::{BinaryExpr, Exists, InSubquery, SetComparison};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::logical_plan::check_subquery_expr;
use datafusion::logical_expr::utils::{split_binary, split_conjunction};
use datafusion::logical_expr::{
    Expr, Extension, FetchType, Filter, Join, JoinType, LogicalPlan, LogicalPlanBuilder, Operator, SkipType, Subquery,
    lit,
};
use datafusion::optimizer::rewrite_set_comparison::RewriteSetComparison;
use datafusion::optimizer::{AnalyzerRule, OptimizerConfig, OptimizerContext, OptimizerRule};

use super::hidden::hides_columns;
use super::mark_joins::{give_columns, mark};
use super::node::{Apply, Gives, fresh_name};
use super::outer_joins::apply_below;
use super::scope::{Outside, lateral, subquery_of};
use crate::sql::rules::rewriting::any_part;

/// The analyser rule.
#[derive(Debug)]
pub(crate) struct BeforeJoins;

/// The optimiser rule.
#[derive(Debug)]
pub(crate) struct AfterJoins;

impl AnalyzerRule for BeforeJoins {
    fn name(&self) -> &str {
        "apply_before_joins"
    }

    fn analyze(&self, plan: LogicalPlan, _options: &ConfigOptions) -> Result<LogicalPlan> {
        BeforeJoins::rewrite(plan)
    }
}

impl BeforeJoins {
    /// The rule, also for a subquery that is optimised on its own.
    pub(super) fn rewrite(plan: LogicalPlan) -> Result<LogicalPlan> {
        if !has_subqueries(&plan)? {
            return Ok(plan);
        }
        let plan = plan.transform_up_with_subqueries(keep_names)?.data;
        let plan = plan.transform_up_with_subqueries(name_compared)?.data;
        let compared = RewriteSetComparison::new().rewrite(plan, &OptimizerContext::new())?.data;
        Ok(compared.transform_up_with_subqueries(|node| apply_in(node, Moment::Before))?.data)
    }
}

/// Gives expressions that compare with ANY or ALL of a subquery the names they have: written with EXISTS they would get
/// others, by which nobody above knows them.
fn keep_names(node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    if !matches!(node, LogicalPlan::Aggregate(_) | LogicalPlan::Window(_) | LogicalPlan::Projection(_)) {
        return Ok(Transformed::no(node));
    }
    node.map_expressions(|expr| {
        let compares = expr.exists(|part| Ok(matches!(part, Expr::SetComparison(_))))?;
        match (compares, &expr) {
            (false, _) | (true, Expr::Alias(_)) => Ok(Transformed::no(expr)),
            (true, _) => {
                let name = expr.schema_name().to_string();
                Ok(Transformed::yes(expr.alias(name)))
            }
        }
    })
}

/// Gives the column that ANY or ALL of a subquery compares with a name of its own. It is compared inside of the subquery, in
/// a condition that becomes one of a join: there the column of the outer row would be taken for it if both had one name, as
/// in `x > ANY (SELECT x FROM t)` of the same table.
fn name_compared(node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    node.map_expressions(|expr| {
        expr.transform_up(|expr| match expr {
            Expr::SetComparison(comparison) => {
                let compared = comparison.subquery.subquery.as_ref().clone();
                let column = compared.schema().columns().into_iter().next();
                let column = column.map(|column| Expr::Column(column).alias(fresh_name()));
                let named = LogicalPlanBuilder::from(compared).project(column)?.build()?;
                let subquery = comparison.subquery.with_plan(Arc::new(named));
                Ok(Transformed::yes(Expr::SetComparison(SetComparison { subquery, ..comparison })))
            }
            expr => Ok(Transformed::no(expr)),
        })
    })
}

impl OptimizerRule for AfterJoins {
    fn name(&self) -> &str {
        "apply_after_joins"
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        give_columns(plan)?.transform_data(|plan| match has_subqueries(&plan)? {
            false => Ok(Transformed::no(plan)),
            true => plan.transform_up(|node| {
                // Values that DataFusion computes before the query are queries of their own.
                let node = in_values(node, |plan| self.rewrite(plan, config))?;
                let node = node.transform_data(|node| mark(node, config))?;
                node.transform_data(|node| apply_in(node, Moment::After))
            }),
        })
    }
}

/// The node, with the plans of its uncorrelated scalar subqueries rewritten.
fn in_values(
    node: LogicalPlan,
    rewrite: impl Fn(LogicalPlan) -> Result<Transformed<LogicalPlan>>,
) -> Result<Transformed<LogicalPlan>> {
    node.map_expressions(|expr| {
        expr.transform_up(|expr| match expr {
            Expr::ScalarSubquery(Subquery { subquery, outer_ref_columns, spans }) if outer_ref_columns.is_empty() => {
                let rewritten = rewrite(Arc::unwrap_or_clone(subquery))?;
                Ok(rewritten.update_data(|plan| {
                    Expr::ScalarSubquery(Subquery { subquery: Arc::new(plan), outer_ref_columns, spans })
                }))
            }
            expr => Ok(Transformed::no(expr)),
        })
    })
}

fn has_subqueries(plan: &LogicalPlan) -> Result<bool> {
    plan.exists(|node| {
        let is_lateral = matches!(node, LogicalPlan::Join(join) if lateral(&join.right).is_some());
        Ok(is_lateral || any_part(node, |part| subquery_of(part).is_some())?)
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    Before,
    After,
}

/// The node, with the subqueries whose time it is computed below it.
fn apply_in(node: LogicalPlan, moment: Moment) -> Result<Transformed<LogicalPlan>> {
    let node = match node {
        LogicalPlan::Join(join) => match apply_lateral(join, moment)? {
            Ok(rewritten) => return Ok(Transformed::yes(rewritten)),
            Err(join) => join_as_filter(join)?.transform_data(|node| match node {
                LogicalPlan::Join(join) => apply_below(join),
                node => Ok(Transformed::no(node)),
            })?,
        },
        node => Transformed::no(node),
    };
    node.transform_data(|node| match node {
        LogicalPlan::Projection(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::Aggregate(_)
        | LogicalPlan::Window(_)
        | LogicalPlan::Sort(_) => apply_expressions(node, moment),
        node => Ok(Transformed::no(node)),
    })
}

/// Subqueries in the condition of an inner join are conditions on its rows.
fn join_as_filter(mut join: Join) -> Result<Transformed<LogicalPlan>> {
    let has_subquery = match (&join.filter, join.join_type) {
        (Some(filter), JoinType::Inner) => filter.exists(|expr| Ok(subquery_of(expr).is_some()))?,
        _ => false,
    };
    if !has_subquery {
        return Ok(Transformed::no(LogicalPlan::Join(join)));
    }
    let filter = join.filter.take().unwrap_or_else(|| lit(true));
    let filter = Filter::try_new(filter, Arc::new(LogicalPlan::Join(join)))?;
    Ok(Transformed::yes(LogicalPlan::Filter(filter)))
}

fn apply_expressions(node: LogicalPlan, moment: Moment) -> Result<Transformed<LogicalPlan>> {
    let Some(input) = node.inputs().first().copied().cloned() else { return Ok(Transformed::no(node)) };
    let mut applied: Vec<(Expr, Column)> = Vec::new();
    let mut below = input.clone();
    node.apply_expressions(|expr| {
        expr.apply(|expr| {
            if subquery_of(expr).is_some()
                && !applied.iter().any(|(known, _)| known == expr)
                && is_due(expr, &node, &input, moment)?
                && let Some((plan, column)) = apply(expr, below.clone())?
            {
                below = plan;
                applied.push((expr.clone(), column));
            }
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    match applied.is_empty() {
        true => Ok(Transformed::no(node)),
        false => replace(node, &input, below, &applied).map(Transformed::yes),
    }
}

/// The node over another input, with columns of that in the places of expressions.
pub(super) fn replace(
    node: LogicalPlan,
    old_input: &LogicalPlan,
    input: LogicalPlan,
    replaced: &[(Expr, Column)],
) -> Result<LogicalPlan> {
    let names = NamePreserver::new(&node);
    let mut exprs = Vec::new();
    for expr in node.expressions() {
        let name = names.save(&expr);
        let expr = expr.transform_down(|expr| match replaced.iter().find(|(known, _)| *known == expr) {
            Some((_, column)) => Ok(Transformed::new(Expr::Column(column.clone()), true, TreeNodeRecursion::Jump)),
            None => Ok(Transformed::no(expr)),
        })?;
        let is_named = expr.transformed && !matches!(node, LogicalPlan::Sort(_));
        exprs.push(if is_named { name.restore(expr.data) } else { expr.data });
    }
    let passes_on = matches!(node, LogicalPlan::Filter(_) | LogicalPlan::Sort(_) | LogicalPlan::Window(_));
    let shown: Vec<Column> = match &node {
        LogicalPlan::Window(_) => {
            let own = node.schema().columns();
            own.into_iter().skip(old_input.schema().fields().len()).collect()
        }
        _ => Vec::new(),
    };
    let rewritten = node.with_new_exprs(exprs, vec![input])?;
    if !passes_on {
        return Ok(rewritten);
    }
    let columns = old_input.schema().columns().into_iter().chain(shown).map(Expr::Column);
    LogicalPlanBuilder::from(rewritten).project(columns)?.build()
}

/// The subquery below `input`'s consumer, and the column that has what `expr` is.
pub(super) fn apply(expr: &Expr, input: LogicalPlan) -> Result<Option<(LogicalPlan, Column)>> {
    let name = fresh_name();
    let (subquery, gives, wanted, negated) = match expr {
        Expr::ScalarSubquery(subquery) => (subquery, Gives::Value(name.clone()), None, false),
        Expr::Exists(Exists { subquery, negated }) => (subquery, Gives::Exists(name.clone()), None, *negated),
        Expr::InSubquery(InSubquery { expr, subquery, negated }) => {
            (subquery, Gives::Member(name.clone()), Some(expr.as_ref().clone()), *negated)
        }
        _ => return Ok(None),
    };
    let subquery = Arc::clone(&subquery.subquery);
    let applied = Apply::try_new(Arc::new(input), subquery, gives, wanted)?;
    let plan = LogicalPlan::Extension(Extension { node: Arc::new(applied) });
    let column = Column::new_unqualified(name);
    if !negated {
        return Ok(Some((plan, column)));
    }
    // NOT of it is a column of its own, so that a column stands for each expression.
    let not = fresh_name();
    let kept = plan.schema().columns().into_iter().filter(|known| *known != column).map(Expr::Column);
    let negation = Expr::Not(Box::new(Expr::Column(column.clone()))).alias(&not);
    let plan = LogicalPlanBuilder::from(plan).project(kept.chain([negation]))?.build()?;
    Ok(Some((plan, Column::new_unqualified(not))))
}

/// Whether a subquery of `node` is to be applied now.
pub(super) fn is_due(expr: &Expr, node: &LogicalPlan, input: &LogicalPlan, moment: Moment) -> Result<bool> {
    let Some(subquery) = subquery_of(expr) else { return Ok(false) };
    // What is looked for comes from a query further out, and is known when that gives its values.
    if expr.contains_outer() {
        return Ok(false);
    }
    let outside = Outside::of(&subquery.subquery)?;
    if !outside.columns.iter().all(|(column, _)| input.schema().has_column(column)) {
        return Ok(false);
    }
    if outside.columns.is_empty() {
        // DataFusion computes values once, before the query.
        return Ok(moment == Moment::After && !matches!(expr, Expr::ScalarSubquery(_)));
    }
    if moment == Moment::After || outside.skips_a_level {
        return Ok(!matches!(expr, Expr::SetComparison(_)));
    }
    let plan = subquery.subquery.as_ref();
    let refused = !matches!(expr, Expr::SetComparison(_)) && check_subquery_expr(node, plan, expr).is_err();
    Ok(refused
        || counts_rows(plan)?
        || aggregates_twice(plan)?
        || intersects(plan)?
        || groups_by_sets(plan)?
        || hides_columns(plan)?
        || groups_by_more_than_equality(plan, !matches!(expr, Expr::ScalarSubquery(_)))?
        || match expr {
            Expr::Exists(_) => has_ungrouped_aggregate(plan)? || limits_inside(plan)?,
            Expr::InSubquery(_) => has_ungrouped_aggregate(plan)?,
            _ => false,
        })
}

fn depends(plan: &LogicalPlan) -> bool {
    !plan.all_out_ref_exprs().is_empty()
}

/// Whether a window function is computed over rows that the outer row chooses.
fn counts_rows(plan: &LogicalPlan) -> Result<bool> {
    plan.exists(|inner| Ok(matches!(inner, LogicalPlan::Window(_)) && depends(inner)))
}

/// Whether an aggregate is over another one, of rows that the outer row chooses.
fn aggregates_twice(plan: &LogicalPlan) -> Result<bool> {
    let mut found = 0;
    plan.apply(|inner| {
        let aggregates = matches!(inner, LogicalPlan::Aggregate(_) | LogicalPlan::Distinct(_));
        found += usize::from(aggregates && depends(inner));
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found > 1)
}

/// Whether INTERSECT or EXCEPT, which are the only joins of this kind yet, are of rows that the outer row chooses.
fn intersects(plan: &LogicalPlan) -> Result<bool> {
    plan.exists(|inner| {
        let compares = matches!(
            inner,
            LogicalPlan::Join(join) if matches!(join.join_type, JoinType::LeftSemi | JoinType::LeftAnti)
        );
        Ok(compares && depends(inner))
    })
}

/// Whether an aggregate by grouping sets is of rows that the outer row chooses.
fn groups_by_sets(plan: &LogicalPlan) -> Result<bool> {
    plan.exists(|inner| {
        let by_sets = match inner {
            LogicalPlan::Aggregate(aggregate) => matches!(aggregate.group_expr.as_slice(), [Expr::GroupingSet(_)]),
            _ => false,
        };
        Ok(by_sets && depends(inner))
    })
}

/// Whether an aggregate is of rows that the outer row chooses by more than the equality of columns. For a `test`, EXISTS
/// or IN, it does not matter whether rows are distinct.
fn groups_by_more_than_equality(plan: &LogicalPlan, test: bool) -> Result<bool> {
    plan.exists(|inner| {
        let aggregates = match inner {
            LogicalPlan::Aggregate(aggregate) => !test || !aggregate.aggr_expr.is_empty(),
            LogicalPlan::Distinct(_) => !test,
            _ => false,
        };
        if !aggregates || !depends(inner) {
            return Ok(false);
        }
        inner.exists(|below| match below {
            LogicalPlan::Filter(filter) => {
                let outer = split_conjunction(&filter.predicate).into_iter().filter(|part| part.contains_outer());
                Ok(outer.into_iter().any(|part| !is_equality_of_columns(part) && !shares_equalities(part)))
            }
            _ => Ok(false),
        })
    })
}

/// Whether all arms of a disjunction name the outer row in the same equalities of columns and nowhere else: DataFusion takes
/// these out of it before it makes a join.
fn shares_equalities(expr: &Expr) -> bool {
    let outer =
        |arm| -> Vec<&Expr> { split_conjunction(arm).into_iter().filter(|part| part.contains_outer()).collect() };
    let arms: Vec<Vec<&Expr>> = split_binary(expr, Operator::Or).into_iter().map(outer).collect();
    arms.len() > 1 && arms.iter().all(|arm| *arm == arms[0] && arm.iter().all(|part| is_equality_of_columns(part)))
}

fn is_equality_of_columns(expr: &Expr) -> bool {
    let is_column = |expr: &Expr| match expr {
        Expr::Column(_) => true,
        Expr::Cast(cast) => matches!(cast.expr.as_ref(), Expr::Column(_)),
        _ => false,
    };
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => {
            is_column(left) && !right.any_column_refs() || is_column(right) && !left.any_column_refs()
        }
        _ => false,
    }
}

fn has_ungrouped_aggregate(plan: &LogicalPlan) -> Result<bool> {
    plan.exists(|inner| {
        Ok(matches!(inner, LogicalPlan::Aggregate(aggregate) if aggregate.group_expr.is_empty()) && depends(inner))
    })
}

/// Whether there is a LIMIT that says more than that there must be a row.
fn limits_inside(plan: &LogicalPlan) -> Result<bool> {
    let mut top = plan;
    loop {
        top = match top {
            LogicalPlan::Projection(node) => &node.input,
            LogicalPlan::SubqueryAlias(node) => &node.input,
            LogicalPlan::Limit(limit) => {
                let plain = matches!(limit.get_skip_type()?, SkipType::Literal(0))
                    && matches!(limit.get_fetch_type()?, FetchType::Literal(Some(1..)));
                if !plain {
                    return Ok(depends(top));
                }
                &limit.input
            }
            _ => break,
        };
    }
    top.exists(|inner| Ok(matches!(inner, LogicalPlan::Limit(_)) && depends(inner)))
}

/// A join with a subquery that refers to the left side; the join itself if it is not its time.
fn apply_lateral(join: Join, moment: Moment) -> Result<std::result::Result<LogicalPlan, Join>> {
    let (JoinType::Inner | JoinType::Left, Some(subquery)) = (join.join_type, lateral(&join.right)) else {
        return Ok(Err(join));
    };
    let outside = Outside::of(&subquery.subquery)?;
    let known = outside.columns.iter().all(|(column, _)| join.left.schema().has_column(column));
    let plan = subquery.subquery.as_ref();
    let due = moment == Moment::After
        || outside.skips_a_level
        || counts_rows(plan)?
        || aggregates_twice(plan)?
        || intersects(plan)?
        || groups_by_sets(plan)?
        || hides_columns(plan)?
        || groups_by_more_than_equality(plan, false)?;
    if outside.columns.is_empty() || !known || !due {
        return Ok(Err(join));
    }
    let alias = match join.right.as_ref() {
        LogicalPlan::SubqueryAlias(alias) => Some(alias.alias.clone()),
        _ => None,
    };
    let mut plan = subquery.subquery.as_ref().clone();
    if let Some(alias) = &alias {
        plan = LogicalPlanBuilder::from(plan).alias(alias.clone())?.build()?;
    }
    let Join { left, on, mut filter, join_type, .. } = join;
    for (left_key, right_key) in on {
        let equal = left_key.eq(right_key);
        filter = Some(match filter {
            Some(filter) => filter.and(equal),
            None => equal,
        });
    }
    if let Some(condition) = filter {
        // The condition decides which rows the subquery has: a left join keeps its row if there is none.
        let schema = Arc::clone(left.schema());
        let own = Arc::clone(plan.schema());
        let condition = condition.transform_up(|expr| match expr {
            Expr::Column(column) if !own.has_column(&column) && schema.has_column(&column) => {
                let field = Arc::clone(schema.field_from_column(&column)?);
                Ok(Transformed::yes(Expr::OuterReferenceColumn(field, column)))
            }
            expr => Ok(Transformed::no(expr)),
        })?;
        plan = LogicalPlanBuilder::from(plan).filter(condition.data)?.build()?;
    }
    let gives = Gives::Rows { keeps: join_type == JoinType::Left };
    let applied = Apply::try_new(left, Arc::new(plan), gives, None)?;
    Ok(Ok(LogicalPlan::Extension(Extension { node: Arc::new(applied) })))
}
