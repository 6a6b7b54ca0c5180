//! Puts [`order_of`] wherever intervals are compared: an analyser rule that runs after type coercion.
//!
//! | where | becomes |
//! |---|---|
//! | `a < b`, `=`, `IS DISTINCT FROM`, `BETWEEN`, `IN`, `CASE a WHEN` | the same of `order(a)`, `order(b)` |
//! | `ORDER BY a`, `PARTITION BY a`, keys of joins | by `order(a)` |
//! | `GROUP BY a`, `DISTINCT` | by `order(a)`, with `first_value(a)` for the value that is shown; what is no column gets one below |
//! | `min(a)`, `max(a)` | `first_value(a ORDER BY order(a))` |
//! | the same over a window, or of what must be computed once | [functions of their own](crate::sql::aggregates::interval_extremes) |
//! | `GROUP BY ROLLUP (a)` and the like | the same, with `order(a)` from a projection below |
//! | `count(DISTINCT a)` | `count(DISTINCT order(a))` |
//! | `sum(DISTINCT a)`, `avg(DISTINCT a)` | [functions of their own](crate::sql::aggregates::interval_distinct) |
//! | `greatest`, `least`, `nullif` | [functions of intervals](crate::functions::extremes) |
//!
//! What is left (other DISTINCT aggregates) is refused by name.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, ScalarValue};
use datafusion::config::ConfigOptions;
use datafusion::error::Result as DataFusionResult;
use datafusion::functions_aggregate::first_last::first_value_udaf;
use datafusion::logical_expr::expr::{
    AggregateFunction, Between, BinaryExpr, Case, InList, InSubquery, NullTreatment, ScalarFunction, Sort,
    WindowFunction,
};
use datafusion::logical_expr::utils::{grouping_set_to_exprlist, merge_schema};
use datafusion::logical_expr::{
    Aggregate, Distinct, Expr, ExprSchemable, GroupingSet, LogicalPlan, LogicalPlanBuilder, Operator, Subquery,
    WindowFunctionDefinition, lit, when,
};
use datafusion::optimizer::AnalyzerRule;

use super::copies::may_copy;
use super::interval_math::{is_interval, makes_interval, order_of};
use super::rewriting::{any_node, any_part, map_parts, map_windows};
use crate::Error;
use crate::functions::extremes::of_intervals;
use crate::sql::aggregates::interval_distinct::distinct_total;
use crate::sql::aggregates::interval_extremes::extreme;

/// The rule.
#[derive(Debug)]
pub(crate) struct IntervalOrder;

impl AnalyzerRule for IntervalOrder {
    fn name(&self) -> &str {
        "interval_order"
    }

    fn analyze(&self, plan: LogicalPlan, _options: &ConfigOptions) -> DataFusionResult<LogicalPlan> {
        if !mentions_intervals(&plan)? {
            return Ok(plan);
        }
        plan.transform_up_with_subqueries(rewrite_node).map(|plan| plan.data)
    }
}

/// The part of the rule that must come before type coercion, which refuses to order windows by intervals.
#[derive(Debug)]
pub(crate) struct IntervalWindows;

impl AnalyzerRule for IntervalWindows {
    fn name(&self) -> &str {
        "interval_windows"
    }

    fn analyze(&self, plan: LogicalPlan, _options: &ConfigOptions) -> DataFusionResult<LogicalPlan> {
        if !mentions_intervals(&plan)? {
            return Ok(plan);
        }
        map_windows(plan, |params, schema| {
            params.order_by = sort_all(std::mem::take(&mut params.order_by), schema)?;
            Ok(())
        })
    }
}

/// Whether there is an interval anywhere, so that all other plans are only looked at.
fn mentions_intervals(plan: &LogicalPlan) -> DataFusionResult<bool> {
    let is_mention = |part: &Expr| match part {
        Expr::Literal(value, _) => is_interval(&value.data_type()),
        Expr::Cast(cast) => is_interval(cast.field.data_type()),
        Expr::ScalarFunction(function) => makes_interval(&function.func),
        _ => false,
    };
    any_node(plan, |node| Ok(has_interval(node.schema()) || any_part(node, is_mention)?))
}

fn rewrite_node(node: LogicalPlan) -> DataFusionResult<Transformed<LogicalPlan>> {
    let schema = merge_schema(&node.inputs());
    let node = match node {
        LogicalPlan::Distinct(Distinct::All(input)) if has_interval(input.schema()) => {
            let all: Vec<Expr> = input.schema().iter().map(|column| Expr::Column(Column::from(column))).collect();
            return Ok(Transformed::yes(group(Aggregate::try_new(input, all, Vec::new())?)?));
        }
        LogicalPlan::Distinct(Distinct::On(mut distinct)) => {
            distinct.on_expr = ordered_all(distinct.on_expr, &schema)?;
            if let Some(sort) = distinct.sort_expr.take() {
                distinct.sort_expr = Some(sort_all(sort, &schema)?);
            }
            LogicalPlan::Distinct(Distinct::On(distinct))
        }
        LogicalPlan::Sort(mut sort) => {
            sort.expr = sort_all(sort.expr, &schema)?;
            LogicalPlan::Sort(sort)
        }
        LogicalPlan::Join(mut join) => {
            let (left, right) = (Arc::clone(join.left.schema()), Arc::clone(join.right.schema()));
            for (left_key, right_key) in &mut join.on {
                if is_interval(&left_key.get_type(&left)?) || is_interval(&right_key.get_type(&right)?) {
                    *left_key = order_of(left_key.clone());
                    *right_key = order_of(right_key.clone());
                }
            }
            LogicalPlan::Join(join)
        }
        other => other,
    };
    let rewritten = map_parts(node, |part| rewrite(part, &schema))?;
    let mut node = match rewritten.transformed {
        true => rewritten.data.recompute_schema()?,
        false => rewritten.data,
    };
    if let LogicalPlan::Aggregate(aggregate) = node {
        node = group(aggregate)?;
    }
    Ok(Transformed::yes(node))
}

fn has_interval(schema: &DFSchema) -> bool {
    schema.fields().iter().any(|field| is_interval(field.data_type()))
}

fn ordered(expr: Expr, schema: &DFSchema) -> DataFusionResult<Expr> {
    Ok(if is_interval(&expr.get_type(schema)?) { order_of(expr) } else { expr })
}

fn ordered_all(exprs: Vec<Expr>, schema: &DFSchema) -> DataFusionResult<Vec<Expr>> {
    exprs.into_iter().map(|expr| ordered(expr, schema)).collect()
}

fn sort_all(sort: Vec<Sort>, schema: &DFSchema) -> DataFusionResult<Vec<Sort>> {
    let by = |Sort { expr, asc, nulls_first }| Ok(Sort { expr: ordered(expr, schema)?, asc, nulls_first });
    sort.into_iter().map(by).collect()
}

/// Groups by the order of intervals, and shows the first of each group.
fn group(aggregate: Aggregate) -> DataFusionResult<LogicalPlan> {
    let input_schema = Arc::clone(aggregate.input.schema());
    let mut in_sets = false;
    let mut by_interval = false;
    for expr in &aggregate.group_expr {
        match expr {
            Expr::GroupingSet(_) => {
                expr.apply_children(|part| {
                    in_sets |= is_interval(&part.get_type(&input_schema)?);
                    Ok(TreeNodeRecursion::Continue)
                })?;
            }
            expr => by_interval |= is_interval(&expr.get_type(&input_schema)?),
        }
    }
    if in_sets {
        return group_in_sets(aggregate);
    }
    if !by_interval {
        return Ok(LogicalPlan::Aggregate(aggregate));
    }
    let Aggregate { input, group_expr, mut aggr_expr, schema, .. } = aggregate;
    // As in the schema, where a key that is written twice is there once.
    let group_expr: Vec<Expr> = grouping_set_to_exprlist(&group_expr)?.into_iter().cloned().collect();
    let shown: Vec<Column> = schema.iter().map(Column::from).collect();
    let groups = group_expr.len();
    let (mut keys, mut list) = (Vec::with_capacity(groups), Vec::with_capacity(shown.len()));
    let mut computed = Vec::new();
    for (place, (mut expr, column)) in group_expr.into_iter().zip(&shown).enumerate() {
        if !is_interval(&expr.get_type(&input_schema)?) {
            keys.push(expr);
            list.push(Expr::Column(column.clone()));
            continue;
        }
        let (key, value) = (format!("interval key {place}"), format!("interval {place}"));
        if !matches!(expr, Expr::Column(_)) {
            let below = Column::new_unqualified(format!("interval below {place}"));
            computed.push(expr.alias(&below.name));
            expr = Expr::Column(below);
        }
        keys.push(order_of(expr.clone()).alias(key));
        let first = AggregateFunction::new_udf(first_value_udaf(), vec![expr], false, None, Vec::new(), None);
        aggr_expr.push(Expr::AggregateFunction(first).alias(&value));
        list.push(Expr::Column(Column::new_unqualified(value)).alias_qualified(column.relation.clone(), &column.name));
    }
    list.extend(shown.into_iter().skip(groups).map(Expr::Column));
    let input = match computed.is_empty() {
        true => input,
        false => {
            let columns = input_schema.iter().map(|column| Expr::Column(Column::from(column)));
            Arc::new(LogicalPlanBuilder::from(input).project(columns.chain(computed))?.build()?)
        }
    };
    let aggregate = LogicalPlan::Aggregate(Aggregate::try_new(input, keys, aggr_expr)?);
    LogicalPlanBuilder::from(aggregate).project(list)?.build()
}

/// The same for grouping sets, whose elements are columns. An interval is not shown where its key is not in the set.
fn group_in_sets(aggregate: Aggregate) -> DataFusionResult<LogicalPlan> {
    let Aggregate { input, group_expr, mut aggr_expr, schema, .. } = aggregate;
    let [Expr::GroupingSet(sets)] = group_expr.as_slice() else {
        return Err(Error::unsupported("an interval in several lists of grouping sets").into());
    };
    let input_schema = Arc::clone(input.schema());
    let shown: Vec<Column> = schema.iter().map(Column::from).collect();
    let mut list: Vec<Expr> = shown.iter().cloned().map(Expr::Column).collect();
    let mut below: Vec<Expr> = input_schema.iter().map(|column| Expr::Column(Column::from(column))).collect();
    let mut replaced: Vec<(Expr, Expr)> = Vec::new();
    for (place, (element, column)) in sets.distinct_expr().into_iter().zip(&shown).enumerate() {
        if !is_interval(&element.get_type(&input_schema)?) {
            continue;
        }
        let (key, value) = (format!("interval key {place}"), format!("interval {place}"));
        below.push(order_of(element.clone()).alias(&key));
        let first =
            AggregateFunction::new_udf(first_value_udaf(), vec![element.clone()], false, None, Vec::new(), None);
        aggr_expr.push(Expr::AggregateFunction(first).alias(&value));
        let key = Expr::Column(Column::new_unqualified(key));
        let value = when(key.clone().is_not_null(), Expr::Column(Column::new_unqualified(value)))
            .otherwise(lit(ScalarValue::IntervalMonthDayNano(None)))?;
        list[place] = value.alias_qualified(column.relation.clone(), &column.name);
        replaced.push((element.clone(), key));
    }
    let with_keys = |elements: &[Expr]| -> Vec<Expr> {
        let key = |element: &Expr| replaced.iter().find(|(known, _)| known == element).map(|(_, key)| key.clone());
        elements.iter().map(|element| key(element).unwrap_or_else(|| element.clone())).collect()
    };
    let sets = match sets {
        GroupingSet::Rollup(elements) => GroupingSet::Rollup(with_keys(elements)),
        GroupingSet::Cube(elements) => GroupingSet::Cube(with_keys(elements)),
        GroupingSet::GroupingSets(sets) => GroupingSet::GroupingSets(sets.iter().map(|set| with_keys(set)).collect()),
    };
    let input = LogicalPlanBuilder::from(input).project(below)?.build()?;
    let aggregate = Aggregate::try_new(Arc::new(input), vec![Expr::GroupingSet(sets)], aggr_expr)?;
    LogicalPlanBuilder::from(LogicalPlan::Aggregate(aggregate)).project(list)?.build()
}

fn rewrite(expr: Expr, schema: &DFSchema) -> DataFusionResult<Transformed<Expr>> {
    let of_interval = |expr: &Expr| -> DataFusionResult<bool> { Ok(is_interval(&expr.get_type(schema)?)) };
    Ok(match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if compares(op) && of_interval(&left)? => {
            let (left, right) = (Box::new(order_of(*left)), Box::new(order_of(*right)));
            Transformed::yes(Expr::BinaryExpr(BinaryExpr { left, op, right }))
        }
        Expr::Between(Between { expr, negated, low, high }) if of_interval(&expr)? => {
            let [expr, low, high] = [*expr, *low, *high].map(|part| Box::new(order_of(part)));
            Transformed::yes(Expr::Between(Between { expr, negated, low, high }))
        }
        Expr::InList(InList { expr, list, negated }) if of_interval(&expr)? => {
            let list = list.into_iter().map(order_of).collect();
            Transformed::yes(Expr::InList(InList { expr: Box::new(order_of(*expr)), list, negated }))
        }
        Expr::InSubquery(InSubquery { expr, subquery, negated }) if of_interval(&expr)? => {
            let Subquery { subquery: plan, outer_ref_columns, spans } = subquery;
            let column = Expr::Column(Column::from(plan.schema().qualified_field(0)));
            let plan = LogicalPlanBuilder::from(plan).project(vec![order_of(column)])?.build()?;
            let subquery = Subquery { subquery: Arc::new(plan), outer_ref_columns, spans };
            Transformed::yes(Expr::InSubquery(InSubquery { expr: Box::new(order_of(*expr)), subquery, negated }))
        }
        Expr::SetComparison(comparison) if of_interval(&comparison.expr)? => {
            return Err(Error::unsupported("ANY or ALL of a query for intervals").into());
        }
        Expr::Case(Case { expr: Some(expr), when_then_expr, else_expr }) if of_interval(&expr)? => {
            let cases = when_then_expr.into_iter().map(|(when, then)| (Box::new(order_of(*when)), then)).collect();
            let expr = Some(Box::new(order_of(*expr)));
            Transformed::yes(Expr::Case(Case { expr, when_then_expr: cases, else_expr }))
        }
        Expr::ScalarFunction(ScalarFunction { func, args })
            if matches!(func.name(), "greatest" | "least" | "nullif")
                && args.iter().any(|arg| of_interval(arg).unwrap_or(false)) =>
        {
            Transformed::yes(of_intervals(func.name(), args))
        }
        Expr::AggregateFunction(function) => rewrite_aggregate(function, schema)?,
        Expr::WindowFunction(mut function) => {
            let WindowFunction { fun, params } = function.as_mut();
            let of_intervals = params.args.first().map(&of_interval).transpose()?.unwrap_or(false);
            if let WindowFunctionDefinition::AggregateUDF(aggregate) = fun
                && of_intervals
            {
                let name = aggregate.name();
                if params.distinct {
                    return Err(Error::unsupported(format!("{name} of intervals as a window function")).into());
                }
                if let Some(extreme) = extreme(name) {
                    *aggregate = extreme;
                }
            }
            params.partition_by = ordered_all(std::mem::take(&mut params.partition_by), schema)?;
            params.order_by = sort_all(std::mem::take(&mut params.order_by), schema)?;
            Transformed::yes(Expr::WindowFunction(function))
        }
        other => Transformed::no(other),
    })
}

pub(in crate::sql) fn compares(op: Operator) -> bool {
    matches!(
        op,
        Operator::Eq
            | Operator::NotEq
            | Operator::Lt
            | Operator::LtEq
            | Operator::Gt
            | Operator::GtEq
            | Operator::IsDistinctFrom
            | Operator::IsNotDistinctFrom
    )
}

fn rewrite_aggregate(mut function: AggregateFunction, schema: &DFSchema) -> DataFusionResult<Transformed<Expr>> {
    let params = &mut function.params;
    params.order_by = sort_all(std::mem::take(&mut params.order_by), schema)?;
    let first = params.args.first().cloned();
    let Some(first) = first.filter(|first| first.get_type(schema).is_ok_and(|found| is_interval(&found))) else {
        return Ok(Transformed::yes(Expr::AggregateFunction(function)));
    };
    let ascending = match function.func.name() {
        "min" => true,
        "max" => false,
        "count" if function.params.distinct => {
            function.params.args = vec![order_of(first)];
            return Ok(Transformed::yes(Expr::AggregateFunction(function)));
        }
        name @ ("sum" | "avg") if function.params.distinct => {
            function.func = distinct_total(name == "avg");
            function.params.distinct = false;
            return Ok(Transformed::yes(Expr::AggregateFunction(function)));
        }
        name if function.params.distinct => {
            return Err(Error::unsupported(format!("{name}(DISTINCT …) of intervals")).into());
        }
        _ => return Ok(Transformed::yes(Expr::AggregateFunction(function))),
    };
    if !may_copy(&first)? {
        if let Some(extreme) = extreme(function.func.name()) {
            function.func = extreme;
        }
        return Ok(Transformed::yes(Expr::AggregateFunction(function)));
    }
    let order = vec![Sort { expr: order_of(first.clone()), asc: ascending, nulls_first: false }];
    let nulls = Some(NullTreatment::IgnoreNulls);
    let best = AggregateFunction::new_udf(first_value_udaf(), vec![first], false, function.params.filter, order, nulls);
    Ok(Transformed::yes(Expr::AggregateFunction(best)))
}
