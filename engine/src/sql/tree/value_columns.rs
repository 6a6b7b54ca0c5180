//! Subqueries that stand for a value and have no column that could be it: `(SELECT * FROM v)` of a view without columns.
//!
//! The planner asks for the type of their first column, of which there is none. Where the text itself says so,
//! [`check_subquery_columns`](crate::sql::text::no_columns) finds them; what a star shows only the catalog tells.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{Expr, Query, SelectItem, SetExpr, Visit, Visitor};

use super::known_columns::KnownColumns;
use crate::sql::context::StatementContext;
use crate::sql::text::no_columns::{subquery_of_values, without_value};
use crate::{Error, Result};

/// Fails with 42601 if there is one in a query.
pub(in crate::sql) fn check_value_columns(context: &StatementContext, query: &Query) -> Result<()> {
    if Visit::visit(query, &mut Finder).is_continue() {
        return Ok(());
    }
    match Visit::visit(query, &mut Check { known: KnownColumns::new(context) }) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

/// Looks for subqueries of which only the catalog knows.
struct Finder;

impl Visitor for Finder {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        match subquery_of_values(expr).is_some_and(|query| shows_stars(&query.body)) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }
}

struct Check<'a> {
    known: KnownColumns<'a>,
}

impl Visitor for Check<'_> {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Error> {
        self.known.enter(query);
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &Query) -> ControlFlow<Error> {
        self.known.leave(query);
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Error> {
        let Some(query) = subquery_of_values(expr).filter(|query| shows_stars(&query.body)) else {
            return ControlFlow::Continue(());
        };
        match self.known.of_query(query).is_some_and(|columns| columns.is_empty()) {
            true => ControlFlow::Break(without_value(query)),
            false => ControlFlow::Continue(()),
        }
    }
}

/// Whether a query shows stars and nothing else.
fn shows_stars(body: &SetExpr) -> bool {
    match body {
        SetExpr::Select(select) => select
            .projection
            .iter()
            .all(|item| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..))),
        SetExpr::Query(query) => shows_stars(&query.body),
        SetExpr::SetOperation { left, .. } => shows_stars(left),
        _ => false,
    }
}
