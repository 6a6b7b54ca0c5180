//! EXCEPT ALL and INTERSECT ALL: rows with their number among the equal ones.
//!
//! DataFusion makes of both a join on equal rows, by which one row on the right removes, or keeps, all of its copies on the
//! left. With the copies numbered on both sides the operations without ALL count right:
//!
//! ```sql
//! SELECT c1 FROM (SELECT c1, row_number() OVER (PARTITION BY c1) FROM (left) l(c1)
//!                 EXCEPT
//!                 SELECT c1, row_number() OVER (PARTITION BY c1) FROM (right) r(c1)) s(c1, n)
//! ```
//!
//! That takes the number of columns. Those of `*` have been named before ([`super::natural_joins`]); where they are not
//! known, the operation is refused. VALUES with subqueries become queries
//! here, too.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Ident, Query, SelectItem, SetExpr, SetOperator, SetQuantifier, Statement, TableFactor, Visit, Visitor,
};
use datafusion::sql::sqlparser::parser::Parser;

use super::names::{output_name, unique_name};
use super::parse::{RustyDialect, fold};
use crate::{Error, Result};

/// Rewrites EXCEPT ALL and INTERSECT ALL at the top of a query's body, and below its set operations.
pub(crate) fn number_copies(body: &mut SetExpr) -> Result<()> {
    let SetExpr::SetOperation { op, set_quantifier, left, right } = body else { return Ok(()) };
    number_copies(left)?;
    number_copies(right)?;
    let word = match (*op, *set_quantifier) {
        (SetOperator::Except | SetOperator::Minus, SetQuantifier::All) => "EXCEPT",
        (SetOperator::Intersect, SetQuantifier::All) => "INTERSECT",
        _ => return Ok(()),
    };
    let Some(names) = column_names(left) else {
        return Err(Error::unsupported(format!("{word} ALL of queries with * in the select list"))
            .with_hint("Name the columns."));
    };
    let columns: Vec<String> = (0..names.len()).map(|index| format!("__rustydb_c{index}")).collect();
    let list = columns.join(", ");
    let shown: Vec<String> = columns
        .iter()
        .zip(&names)
        .map(|(column, name)| format!("{column} AS {}", Ident::with_quote('"', name.clone())))
        .collect();
    let numbered = format!("SELECT {list}, row_number() OVER (PARTITION BY {list}) FROM (SELECT 1) AS side({list})");
    let text =
        format!("SELECT {} FROM ({numbered} {word} {numbered}) AS counted({list}, __rustydb_copy)", shown.join(", "));
    let statement = Parser::new(&RustyDialect).try_with_sql(&text)?.parse_statement()?;
    let Statement::Query(mut query) = statement else { return Err(Error::internal("a query was written")) };
    // The sides keep their place in the statement's text.
    if let Some(counted) = derived(&mut query.body)
        && let SetExpr::SetOperation { left: new_left, right: new_right, .. } = counted.body.as_mut()
        && let (Some(new_left), Some(new_right)) = (derived(new_left), derived(new_right))
    {
        std::mem::swap(&mut new_left.body, left);
        std::mem::swap(&mut new_right.body, right);
    }
    *body = *query.body;
    Ok(())
}

/// The query in FROM.
fn derived(body: &mut SetExpr) -> Option<&mut Query> {
    let SetExpr::Select(select) = body else { return None };
    match &mut select.from.first_mut()?.relation {
        TableFactor::Derived { subquery, .. } => Some(subquery),
        _ => None,
    }
}

/// The names of a query's columns, if its text tells them.
fn column_names(body: &SetExpr) -> Option<Vec<String>> {
    match body {
        SetExpr::Select(select) => {
            let mut seen = Vec::new();
            let name = |item: &SelectItem| match item {
                SelectItem::UnnamedExpr(expr) => Some(unique_name(&mut seen, output_name(expr))),
                SelectItem::ExprWithAlias { alias, .. } => Some(unique_name(&mut seen, fold(alias))),
                _ => None,
            };
            select.projection.iter().map(name).collect()
        }
        SetExpr::Query(query) => column_names(&query.body),
        SetExpr::SetOperation { left, .. } => column_names(left),
        SetExpr::Values(values) => {
            let row = values.rows.first()?;
            Some((1..=row.len()).map(|index| format!("column{index}")).collect())
        }
        _ => None,
    }
}

/// Makes SELECTs of rows of VALUES that have subqueries in them, which DataFusion would compute while it plans.
pub(crate) fn values_as_queries(body: &mut SetExpr) -> Result<()> {
    if let SetExpr::SetOperation { left, right, .. } = body {
        values_as_queries(left)?;
        return values_as_queries(right);
    }
    let SetExpr::Values(values) = body else { return Ok(()) };
    struct Finder;
    impl Visitor for Finder {
        type Break = ();
        fn pre_visit_query(&mut self, _query: &Query) -> ControlFlow<()> {
            ControlFlow::Break(())
        }
    }
    if !values.rows.iter().any(|row| row.content.iter().any(|value| value.visit(&mut Finder).is_break())) {
        return Ok(());
    }
    let mut selects = Vec::with_capacity(values.rows.len());
    for row in std::mem::take(&mut values.rows) {
        let statement = Parser::new(&RustyDialect).try_with_sql("SELECT 1")?.parse_statement()?;
        let Statement::Query(mut query) = statement else { return Err(Error::internal("a query was written")) };
        if let SetExpr::Select(select) = query.body.as_mut() {
            let named = |(place, expr): (usize, Expr)| SelectItem::ExprWithAlias {
                expr,
                alias: Ident::new(format!("column{}", place + 1)),
            };
            select.projection = row.content.into_iter().enumerate().map(named).collect();
        }
        selects.push(*query.body);
    }
    *body = united(selects).ok_or_else(|| Error::internal("VALUES without rows"))?;
    Ok(())
}

/// `UNION ALL` of the queries, as a tree that is not deeper than it must be.
fn united(mut queries: Vec<SetExpr>) -> Option<SetExpr> {
    if queries.len() < 2 {
        return queries.pop();
    }
    let rest = queries.split_off(queries.len() / 2);
    Some(SetExpr::SetOperation {
        op: SetOperator::Union,
        set_quantifier: SetQuantifier::All,
        left: Box::new(united(queries)?),
        right: Box::new(united(rest)?),
    })
}
