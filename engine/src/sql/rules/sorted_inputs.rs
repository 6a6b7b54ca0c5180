//! `SELECT string_agg(x, ',') FROM (SELECT x FROM t ORDER BY id) q`: aggregates that depend on the order of their rows, over a
//! query that is sorted. PostgreSQL's manual has it as a way to give them an order. DataFusion's planner forgets an ORDER BY
//! without LIMIT in FROM, and no row would be in its place after rows have been redistributed anyway.
//!
//! Likewise `SELECT * FROM (SELECT … ORDER BY id) q LIMIT 10`, as tools write that show the first rows of a user's query: no
//! standard says which rows these are, and in PostgreSQL everybody gets those that `id` puts first.
//!
//! ```text
//! Aggregate: string_agg(q.x, ',')          Aggregate: string_agg(q.x, ',' ORDER BY q.key)
//!   SubqueryAlias: q                         SubqueryAlias: q
//!     Projection: x                   ──►      Projection: x, id AS key
//!       Sort: id                                 Projection: x, id
//!         Projection: x, id                        TableScan: t
//!           TableScan: t
//! ```
//!
//! So queries that call such a function, or have an ORDER BY inside, are planned with all orders kept ([`takes_orders`]). In the
//! plan the keys become those of the aggregates that have no ORDER BY of their own, through column lists, filters, names and
//! limits; what is not shown goes along under a name of ours. A result, and what a LIMIT cuts, that is nothing but the rows of
//! such a query is sorted by these keys. After that the sorts are left out, as the planner would have done.

use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema};
use datafusion::error::Result;
use datafusion::logical_expr::expr::{AggregateFunction, Sort as SortExpr};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{Aggregate, Expr, Filter, Limit, LogicalPlan, Projection, Sort, SubqueryAlias};
use datafusion::sql::sqlparser::ast::{Expr as SyntaxExpr, ObjectNamePart, Query, Visit, Visitor};

use crate::sql::text::parse::fold;

/// The aggregates whose result depends on the order of the rows.
const ORDERED: [&str; 2] = ["array_agg", "string_agg"];

/// What the column of a key is called that a query does not show, before its place.
const KEY: &str = "__rustydb_order_";

/// Whether a query calls a function that takes rows in the order of a query in FROM, or has such an order inside, so that it
/// has to be planned with these orders.
pub(in crate::sql) fn takes_orders(query: &Query) -> bool {
    Visit::visit(query, &mut Finder { depth: 0 }).is_break()
}

/// Looks for the functions, and for the orders of queries inside.
struct Finder {
    /// How many queries deep.
    depth: usize,
}

impl Visitor for Finder {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let is_inside = self.depth > 0;
        self.depth += 1;
        match is_inside && query.order_by.is_some() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }

    fn post_visit_query(&mut self, _query: &Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &SyntaxExpr) -> ControlFlow<()> {
        match expr {
            SyntaxExpr::Function(function) => match function.name.0.last() {
                Some(ObjectNamePart::Identifier(name)) if ORDERED.contains(&fold(name).as_str()) => {
                    ControlFlow::Break(())
                }
                _ => ControlFlow::Continue(()),
            },
            _ => ControlFlow::Continue(()),
        }
    }
}

/// The plan of such a query, with the orders of queries in FROM where they matter, and nowhere else.
pub(in crate::sql) fn inherit_orders(plan: LogicalPlan) -> Result<LogicalPlan> {
    let plan = in_order_of_input(&plan)?.unwrap_or(plan);
    // From the top: what is above looks at the sort below it before that is left out.
    let inherited = plan.transform_down_with_subqueries(|node| match node {
        LogicalPlan::Aggregate(aggregate) => inherit_order(aggregate),
        LogicalPlan::Limit(mut limit) => match in_order_of_input(&limit.input)? {
            Some(input) => {
                limit.input = Arc::new(input);
                Ok(Transformed::yes(LogicalPlan::Limit(limit)))
            }
            None => Ok(Transformed::no(LogicalPlan::Limit(limit))),
        },
        LogicalPlan::SubqueryAlias(mut alias) => match unsorted(&alias.input) {
            Some(input) => {
                alias.input = Arc::new(input);
                Ok(Transformed::yes(LogicalPlan::SubqueryAlias(alias)))
            }
            None => Ok(Transformed::no(LogicalPlan::SubqueryAlias(alias))),
        },
        node => Ok(Transformed::no(node)),
    });
    inherited.map(|plan| plan.data)
}

/// The rows of a sorted query in FROM, which a plan shows one by one, sorted above all that it does with them; `None` if it is
/// no such plan.
fn in_order_of_input(plan: &LogicalPlan) -> Result<Option<LogicalPlan>> {
    let sorted = if shows_input(plan) { sorted_input(plan, false) } else { None };
    let Some(Sorted { plan: rows, keys }) = sorted else { return Ok(None) };
    let columns = plan.schema().columns().into_iter().map(Expr::Column).collect();
    let expr = order_by(rows.schema(), &keys);
    let sort = LogicalPlan::Sort(Sort { expr, input: Arc::new(rows), fetch: None });
    Ok(Some(LogicalPlan::Projection(Projection::try_new(columns, Arc::new(sort))?)))
}

/// Whether a plan has no rows but those of one query in FROM, and no order of its own. What gives another value each time is
/// computed before the rows are sorted, and so stays with them as they come.
fn shows_input(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Projection(projection) => {
            !projection.expr.iter().any(Expr::is_volatile) && shows_input(&projection.input)
        }
        LogicalPlan::Filter(filter) => shows_input(&filter.input),
        LogicalPlan::SubqueryAlias(_) => true,
        _ => false,
    }
}

/// Whether a call depends on the order of the rows, and nothing says which. With DISTINCT it is that of the values.
fn has_no_order(function: &AggregateFunction) -> bool {
    !function.params.distinct && function.params.order_by.is_empty() && ORDERED.contains(&function.func.name())
}

fn inherit_order(aggregate: Aggregate) -> Result<Transformed<LogicalPlan>> {
    let mut is_meant = false;
    for expr in &aggregate.aggr_expr {
        is_meant |= expr.exists(|part| match part {
            Expr::AggregateFunction(function) => Ok(has_no_order(function)),
            _ => Ok(false),
        })?;
    }
    let sorted = if is_meant { sorted_input(&aggregate.input, false) } else { None };
    let Some(Sorted { plan, keys }) = sorted else { return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate))) };
    let order = order_by(plan.schema(), &keys);
    let aggregates = aggregate.aggr_expr.into_iter().map(|expr| in_order(expr, &order)).collect::<Result<Vec<_>>>()?;
    // Its columns are those it had: they keep their names.
    let aggregate = Aggregate::try_new_with_schema(Arc::new(plan), aggregate.group_expr, aggregates, aggregate.schema)?;
    Ok(Transformed::yes(LogicalPlan::Aggregate(aggregate)))
}

/// An aggregate that takes its rows in this order if it has none, called as before.
fn in_order(expr: Expr, order: &[SortExpr]) -> Result<Expr> {
    let name = NamePreserver::new_for_projection().save(&expr);
    let ordered = expr.transform_up(|part| match part {
        Expr::AggregateFunction(mut function) => {
            let is_meant = has_no_order(&function);
            if is_meant {
                function.params.order_by = order.to_vec();
            }
            Ok(Transformed::new_transformed(Expr::AggregateFunction(function), is_meant))
        }
        part => Ok(Transformed::no(part)),
    })?;
    Ok(if ordered.transformed { name.restore(ordered.data) } else { ordered.data })
}

/// Rows, and the columns of theirs that they are in order by. There may be columns at the end that were not there before.
struct Sorted {
    plan: LogicalPlan,
    keys: Vec<Key>,
}

/// A column by its place, and how it is ordered.
struct Key {
    column: usize,
    asc: bool,
    nulls_first: bool,
}

fn order_by(schema: &DFSchema, keys: &[Key]) -> Vec<SortExpr> {
    let key = |key: &Key| SortExpr { expr: column(schema, key.column), asc: key.asc, nulls_first: key.nulls_first };
    keys.iter().map(key).collect()
}

fn column(schema: &DFSchema, place: usize) -> Expr {
    Expr::Column(Column::from(schema.qualified_field(place)))
}

/// The rows of a plan that ends in a sort, without the sort if nothing else asks for it: a limit does. `None` if there is no
/// sort, or its keys cannot be known above it.
fn sorted_input(plan: &LogicalPlan, is_limited: bool) -> Option<Sorted> {
    match plan {
        LogicalPlan::Sort(sort) => sorted_rows(sort, is_limited || sort.fetch.is_some()),
        LogicalPlan::SubqueryAlias(alias) => {
            let Sorted { plan, keys } = sorted_input(&alias.input, is_limited)?;
            let alias = SubqueryAlias::try_new(Arc::new(plan), alias.alias.clone()).ok()?;
            Some(Sorted { plan: LogicalPlan::SubqueryAlias(alias), keys })
        }
        LogicalPlan::Filter(filter) => {
            let Sorted { plan, keys } = sorted_input(&filter.input, is_limited)?;
            let filter = Filter::try_new(filter.predicate.clone(), Arc::new(plan)).ok()?;
            Some(Sorted { plan: LogicalPlan::Filter(filter), keys })
        }
        LogicalPlan::Limit(limit) => {
            let Sorted { plan, keys } = sorted_input(&limit.input, true)?;
            let limit = Limit { skip: limit.skip.clone(), fetch: limit.fetch.clone(), input: Arc::new(plan) };
            Some(Sorted { plan: LogicalPlan::Limit(limit), keys })
        }
        LogicalPlan::Projection(projection) => shown(projection, sorted_input(&projection.input, is_limited)?),
        _ => None,
    }
}

/// Where a sort is: each of its keys as a column.
fn sorted_rows(sort: &Sort, is_kept: bool) -> Option<Sorted> {
    let schema = sort.input.schema();
    let mut columns: Vec<Expr> = schema.columns().into_iter().map(Expr::Column).collect();
    let before = columns.len();
    let mut keys = Vec::with_capacity(sort.expr.len());
    for key in &sort.expr {
        let expr = unaliased(&key.expr);
        let known = match expr {
            Expr::Column(column) => schema.maybe_index_of_column(column),
            _ => None,
        };
        let place = match known {
            Some(place) => place,
            None if is_of_the_row(expr) => pushed(&mut columns, expr.clone()),
            None => return None,
        };
        keys.push(Key { column: place, asc: key.asc, nulls_first: key.nulls_first });
    }
    let input = if columns.len() > before {
        let projection = Projection::try_new(columns, Arc::clone(&sort.input)).ok()?;
        Arc::new(LogicalPlan::Projection(projection))
    } else {
        Arc::clone(&sort.input)
    };
    let plan = if is_kept {
        let expr = order_by(input.schema(), &keys);
        LogicalPlan::Sort(Sort { expr, input, fetch: sort.fetch })
    } else {
        Arc::unwrap_or_clone(input)
    };
    Some(Sorted { plan, keys })
}

/// A list of columns over rows in order, with the keys that it does not show.
fn shown(projection: &Projection, below: Sorted) -> Option<Sorted> {
    let Sorted { plan, keys } = below;
    let schema = Arc::clone(plan.schema());
    let mut columns = projection.expr.clone();
    let mut shown_keys = Vec::with_capacity(keys.len());
    for key in keys {
        let is_key = |expr: &Expr| match unaliased(expr) {
            Expr::Column(column) => schema.maybe_index_of_column(column) == Some(key.column),
            _ => false,
        };
        let place = match columns.iter().position(is_key) {
            Some(place) => place,
            None => pushed(&mut columns, column(&schema, key.column)),
        };
        shown_keys.push(Key { column: place, ..key });
    }
    let projection = Projection::try_new(columns, Arc::new(plan)).ok()?;
    Some(Sorted { plan: LogicalPlan::Projection(projection), keys: shown_keys })
}

/// Appends a key to a list of columns, and tells its place.
fn pushed(columns: &mut Vec<Expr>, key: Expr) -> usize {
    let place = columns.len();
    columns.push(key.alias(format!("{KEY}{place}")));
    place
}

fn unaliased(mut expr: &Expr) -> &Expr {
    while let Expr::Alias(alias) = expr {
        expr = &alias.expr;
    }
    expr
}

/// Whether an expression can be computed as a column: it depends on nothing but the row.
fn is_of_the_row(expr: &Expr) -> bool {
    let depends = expr.exists(|part| {
        Ok(matches!(
            part,
            Expr::ScalarSubquery(_)
                | Expr::Exists(_)
                | Expr::InSubquery(_)
                | Expr::SetComparison(_)
                | Expr::OuterReferenceColumn(..)
                | Expr::AggregateFunction(_)
                | Expr::WindowFunction(_)
                | Expr::Placeholder(_)
        ))
    });
    depends.is_ok_and(|depends| !depends)
}

/// A query in FROM without the order of its rows; `None` if it has none. What a LIMIT asks for is not at its end.
fn unsorted(plan: &LogicalPlan) -> Option<LogicalPlan> {
    match plan {
        LogicalPlan::Sort(sort) if sort.fetch.is_none() => Some(sort.input.as_ref().clone()),
        LogicalPlan::Projection(projection) => {
            let mut projection = projection.clone();
            projection.input = Arc::new(unsorted(&projection.input)?);
            Some(LogicalPlan::Projection(projection))
        }
        // LATERAL.
        LogicalPlan::Subquery(subquery) => {
            let mut subquery = subquery.clone();
            subquery.subquery = Arc::new(unsorted(&subquery.subquery)?);
            Some(LogicalPlan::Subquery(subquery))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use datafusion::functions_aggregate::array_agg::array_agg_udaf;
    use datafusion::functions_aggregate::expr_fn::sum;
    use datafusion::logical_expr::{LogicalPlanBuilder, col, lit};

    use super::*;

    /// An aggregate over a sorted query of which it sees one of two columns.
    fn aggregated(aggregate: Expr) -> LogicalPlan {
        let values = LogicalPlanBuilder::values(vec![vec![lit(1), lit(2)]]).unwrap();
        let sorted = values.sort(vec![col("column2").sort(false, true)]).unwrap();
        let query = sorted.project(vec![col("column1").alias("x")]).unwrap().alias("q").unwrap();
        query.aggregate(Vec::<Expr>::new(), vec![aggregate]).unwrap().build().unwrap()
    }

    #[test]
    fn a_key_that_is_not_shown_goes_along_and_the_sort_goes() {
        let plan = aggregated(array_agg_udaf().call(vec![col("q.x")]));
        let names = plan.schema().field_names();
        let inherited = inherit_orders(plan).unwrap();
        assert_eq!(inherited.schema().field_names(), names);
        let text = inherited.display_indent().to_string();
        assert!(text.contains("ORDER BY [q.__rustydb_order_1 DESC NULLS FIRST]"), "{text}");
        assert!(!text.contains("Sort:"), "{text}");
    }

    #[test]
    fn rows_that_are_shown_as_they_come_are_sorted_below_the_limit() {
        let values = LogicalPlanBuilder::values(vec![vec![lit(1), lit(2)]]).unwrap();
        let sorted = values.sort(vec![col("column2").sort(false, true)]).unwrap();
        let query = sorted.project(vec![col("column1").alias("x")]).unwrap().alias("q").unwrap();
        let all = query.project(vec![col("q.x")]).unwrap();
        for (plan, expected) in
            [(all.clone().build().unwrap(), 0), (all.limit(0, Some(1)).unwrap().build().unwrap(), 1)]
        {
            let names = plan.schema().field_names();
            let inherited = inherit_orders(plan).unwrap();
            assert_eq!(inherited.schema().field_names(), names);
            let text = inherited.display_indent().to_string();
            let lines: Vec<&str> = text.lines().map(str::trim).collect();
            assert!(lines[expected].starts_with("Projection: q.x"), "{text}");
            assert!(lines[expected + 1].starts_with("Sort: __rustydb_order_1 DESC"), "{text}");
            assert_eq!(text.matches("Sort:").count(), 1, "{text}");
        }
    }

    #[test]
    fn a_sum_takes_no_order() {
        let text = inherit_orders(aggregated(sum(col("q.x")))).unwrap().display_indent().to_string();
        assert!(!text.contains("ORDER BY") && !text.contains("Sort:") && !text.contains(KEY), "{text}");
    }
}
