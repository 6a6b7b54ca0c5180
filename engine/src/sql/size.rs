//! How large the plan of a query gets, judged before it is planned.
//!
//! A common table expression is planned once and put into the plan wherever it is named. 25 of them, each joining the
//! one before with itself, are a kilobyte of SQL and a plan of 2²⁵ tables. So every query is weighed: a table counts one,
//! a common table expression as much as its query, wherever it is named.
//!
//! Invariant: a query that passes has at most [`MAX_TABLES`] tables in its plan, and at most [`MAX_STACKED`] of them in a
//! list or in common table expressions that build upon each other. What views bring with them is counted when they are
//! planned ([`check_planned_size`]).
//!
//! Subqueries in expressions are counted, too, as far as they are in each other: DataFusion looks at all that is in a subquery
//! for each one around it, so that its time doubles with every level. At most [`MAX_NESTED`] are in each other, those of views
//! among them.

use std::convert::Infallible;
use std::ops::ControlFlow;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{LogicalPlan, Subquery};
use datafusion::sql::sqlparser::ast::{
    Expr, FunctionArguments, ObjectName, Query, Select, TableFactor, Visit, Visitor,
};

use crate::sql::text::parse::fold;
use crate::{Error, Result, error::sqlstate};

/// Tables in one plan. The planner's time grows with their number times that of their columns.
const MAX_TABLES: usize = 4_096;

/// Tables above each other in one plan: those of a FROM list are joined one after the other.
const MAX_STACKED: usize = 1_000;

/// Subqueries in expressions within each other, as in `(SELECT (SELECT …))`. So many are planned in 0.2 s, and each one more
/// takes twice as long.
const MAX_NESTED: usize = 12;

/// The size of a query's plan.
#[derive(Debug, Clone, Copy, Default)]
struct Weight {
    tables: usize,
    stacked: usize,
}

/// Fails with 54001 if the plan of a query inside `node` would be too large.
pub(super) fn check_size<N: Visit>(node: &N) -> Result<()> {
    let mut scales = Scales::default();
    match node.visit(&mut scales) {
        ControlFlow::Continue(()) => {}
        ControlFlow::Break(never) => match never {},
    }
    let Weight { tables, stacked } = scales.heaviest;
    if scales.deepest > MAX_NESTED {
        return Err(too_nested());
    }
    let message = if tables > MAX_TABLES {
        too_many_tables()
    } else if stacked > MAX_STACKED {
        format!("the query joins or stacks more than {MAX_STACKED} tables")
    } else {
        return Ok(());
    };
    Err(Error::new(sqlstate::STATEMENT_TOO_COMPLEX, message).with_hint(
        "A common table expression counts wherever it is named: put its rows into a table, or split the query.",
    ))
}

fn too_nested() -> Error {
    let message = format!("more than {MAX_NESTED} subqueries in expressions are in each other");
    Error::new(sqlstate::STATEMENT_TOO_COMPLEX, message)
        .with_hint("Join their tables, or put the rows of the inner ones into a table.")
}

fn too_many_tables() -> String {
    format!("the query would read tables in more than {MAX_TABLES} places")
}

/// Fails with 54001 if a query's plan has become too large by the views in it, which are planned wherever they are named.
/// A SELECT without a table counts one, too.
pub(super) fn check_planned_size(plan: &LogicalPlan) -> Result<()> {
    let mut tables = 0;
    plan.apply_with_subqueries(|node| {
        tables += usize::from(node.inputs().is_empty());
        Ok(if tables > MAX_TABLES { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    if nested_in(plan)? > MAX_NESTED {
        return Err(too_nested());
    }
    match tables > MAX_TABLES {
        true => Err(Error::new(sqlstate::STATEMENT_TOO_COMPLEX, too_many_tables())
            .with_hint("A view counts wherever it is named: put its rows into a table, or split the query.")),
        false => Ok(()),
    }
}

/// How many subqueries in expressions are in each other.
fn nested_in(plan: &LogicalPlan) -> Result<usize> {
    let mut deepest = 0;
    plan.apply(|node| {
        node.apply_subqueries(|subquery| {
            if let LogicalPlan::Subquery(Subquery { subquery, .. }) = subquery {
                deepest = deepest.max(1 + nested_in(subquery)?);
            }
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    Ok(deepest)
}

fn is_subquery(expr: &Expr) -> bool {
    match expr {
        Expr::Subquery(_) | Expr::Exists { .. } | Expr::InSubquery { .. } => true,
        Expr::Function(function) => matches!(function.args, FunctionArguments::Subquery(_)),
        _ => false,
    }
}

#[derive(Default)]
struct Scales {
    /// The subqueries in expressions around the current place, and the most there have been.
    nested: usize,
    deepest: usize,
    /// The queries around the current place, outermost first.
    open: Vec<OpenQuery>,
    heaviest: Weight,
}

struct OpenQuery {
    weight: Weight,
    /// The names of its common table expressions, in order. Their queries are visited before all others of this query.
    names: Vec<String>,
    /// The weights of those that have been visited.
    weights: Vec<Weight>,
}

impl Scales {
    fn add(&mut self, weight: Weight) {
        if let Some(query) = self.open.last_mut() {
            query.weight.tables = query.weight.tables.saturating_add(weight.tables);
            query.weight.stacked = query.weight.stacked.max(weight.stacked);
        }
    }

    /// What a table's name stands for: the nearest common table expression of that name, or a table.
    fn weight_of(&self, name: &ObjectName) -> Weight {
        let table = Weight { tables: 1, stacked: 1 };
        let [part] = name.0.as_slice() else { return table };
        let Some(ident) = part.as_ident() else { return table };
        let name = fold(ident);
        let known = |query: &OpenQuery| {
            // A recursive query names itself before it has a weight.
            query.names.iter().zip(&query.weights).rev().find(|(known, _)| **known == name).map(|(_, weight)| *weight)
        };
        self.open.iter().rev().find_map(known).unwrap_or(table)
    }
}

impl Visitor for Scales {
    type Break = Infallible;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Infallible> {
        let names = query.with.iter().flat_map(|with| &with.cte_tables).map(|cte| fold(&cte.alias.name)).collect();
        self.open.push(OpenQuery { weight: Weight::default(), names, weights: Vec::new() });
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _query: &Query) -> ControlFlow<Infallible> {
        let Some(OpenQuery { weight, .. }) = self.open.pop() else { return ControlFlow::Continue(()) };
        self.heaviest.tables = self.heaviest.tables.max(weight.tables);
        self.heaviest.stacked = self.heaviest.stacked.max(weight.stacked);
        match self.open.last_mut() {
            Some(around) if around.weights.len() < around.names.len() => {
                let stacked = weight.stacked.saturating_add(1);
                around.weights.push(Weight { tables: weight.tables.max(1), stacked });
            }
            _ => self.add(weight),
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<Infallible> {
        let listed: usize = select.from.iter().map(|table| 1 + table.joins.len()).sum();
        self.add(Weight { tables: 0, stacked: listed });
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Infallible> {
        self.nested += usize::from(is_subquery(expr));
        self.deepest = self.deepest.max(self.nested);
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Infallible> {
        self.nested -= usize::from(is_subquery(expr));
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<Infallible> {
        if let TableFactor::Table { name, .. } = factor {
            self.add(self.weight_of(name));
        }
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::text::parse::{ParsedStatement, parse_statement};

    fn passes(sql: &str) -> bool {
        let ParsedStatement::Sql(statement) = parse_statement(sql).unwrap().statement else { panic!("not a COPY") };
        match check_size(&statement) {
            Ok(()) => true,
            Err(error) => {
                assert_eq!(error.sqlstate(), "54001", "{error:?}");
                false
            }
        }
    }

    /// `levels` common table expressions, each made by `step` from the name of the one before.
    fn tower(levels: usize, step: impl Fn(usize) -> String) -> String {
        let steps: Vec<String> = (1..=levels).map(|level| format!("c{level} AS ({})", step(level - 1))).collect();
        format!("WITH c0 AS (SELECT 1 AS a FROM t), {} SELECT * FROM c{levels}", steps.join(", "))
    }

    #[test]
    fn what_doubles_at_each_step_is_refused_before_it_grows() {
        let doubling = |level: usize| format!("SELECT x.a FROM c{level} x JOIN C{level} y ON x.a = y.a");
        assert!(passes(&tower(12, doubling)));
        assert!(!passes(&tower(13, doubling)));
        assert!(!passes(&tower(500, doubling)), "and does not overflow");
        let hidden = |level: usize| format!("SELECT (SELECT max(a) FROM c{level}) a FROM (SELECT * FROM c{level}) s");
        assert!(!passes(&tower(25, hidden)));
        assert!(!passes(&format!("SELECT * FROM t WHERE EXISTS ({})", tower(25, doubling))));
    }

    #[test]
    fn subqueries_in_each_other_are_bounded_and_those_in_from_are_not() {
        let nested = |levels: usize, open: &str, close: &str| {
            passes(&format!("SELECT {}1{}", open.repeat(levels), close.repeat(levels)))
        };
        for (open, close) in [
            ("(SELECT ", ")"),
            ("EXISTS (SELECT 1 FROM t WHERE a = ", ")"),
            ("1 IN (SELECT 1 FROM t WHERE a = ", ")"),
            ("1 > ALL (SELECT ", ")"),
            ("ARRAY(SELECT ", ")"),
        ] {
            assert!(nested(MAX_NESTED, open, close), "{open}");
            assert!(!nested(MAX_NESTED + 1, open, close), "{open}");
        }
        let list = vec!["(SELECT 1)"; 50].join(", ");
        assert!(passes(&format!("SELECT {list}")));
        let (open, close) = ("(SELECT a FROM ".repeat(30), ") AS q".repeat(30));
        assert!(passes(&format!("SELECT a FROM {open}t{close}")));
        assert!(!passes(&format!("SELECT * FROM (SELECT {}1{}) AS q", "(SELECT ".repeat(13), ")".repeat(13))));
    }

    #[test]
    fn towers_and_lists_are_bounded() {
        assert!(passes(&tower(900, |level| format!("SELECT a FROM c{level}"))));
        assert!(!passes(&tower(1_100, |level| format!("SELECT a FROM c{level}"))));
        assert!(!passes(&format!("SELECT 1 FROM {}", vec!["t"; 1_100].join(", "))));
        assert!(passes(&format!("SELECT 1 FROM {}", vec!["t"; 900].join(", "))));
    }

    #[test]
    fn a_name_means_the_nearest_expression_and_only_where_it_is_visible() {
        let heavy = vec!["SELECT * FROM t"; 900].join(" UNION ALL ");
        assert!(passes(&format!("WITH h AS ({heavy}) SELECT * FROM h, h h2, h h3, h h4")));
        assert!(!passes(&format!("WITH h AS ({heavy}) SELECT * FROM h, h h2, h h3, h h4, h h5")));
        let inner = "(WITH h AS (SELECT 1 AS a) SELECT * FROM h, h h2, h h3, h h4, h h5)";
        assert!(passes(&format!("WITH h AS ({heavy}) SELECT * FROM {inner} i, h")));
        assert!(passes(&format!("WITH h AS ({heavy}) SELECT * FROM s.h, s.h h2, s.h h3, s.h h4, s.h h5")));
        assert!(passes("WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r) SELECT * FROM r"));
    }
}
