//! How many columns there may be: PostgreSQL's numbers, of tables and of results.
//!
//! Planning a query takes time for each pair of its columns, and a schema of a hundred thousand columns is a message of a few
//! megabytes. So columns are counted before anything is done with them.

use std::ops::ControlFlow;

use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::sqlparser::ast::{Query, Select, SetExpr, Visit, Visitor};

use crate::error::sqlstate;
use crate::{Error, Result};

/// The most columns of a table or view.
pub const TABLE_COLUMNS_MAX: usize = 1_600;

/// The most columns of a result: those of a table, and some beside them.
pub const RESULT_COLUMNS_MAX: usize = 1_664;

/// Fails with 54011 if a table or view would have more columns than there may be.
pub(crate) fn check_table_width(columns: usize) -> Result<()> {
    match columns > TABLE_COLUMNS_MAX {
        true => {
            Err(Error::new(sqlstate::TOO_MANY_COLUMNS, format!("tables can have at most {TABLE_COLUMNS_MAX} columns"))
                .with_hint("Put values of the same kind into rows, or into an array."))
        }
        false => Ok(()),
    }
}

/// The same for what a query returns.
pub(crate) fn check_result_width(columns: usize) -> Result<()> {
    match columns > RESULT_COLUMNS_MAX {
        true => Err(Error::new(
            sqlstate::TOO_MANY_COLUMNS,
            format!("target lists can have at most {RESULT_COLUMNS_MAX} entries"),
        )
        .with_hint("Name the columns that are needed instead of *, or ask for them in several queries.")),
        false => Ok(()),
    }
}

/// Fails with 54011 if a select list or a row of VALUES inside `node` is too long as it is written.
pub(super) fn check_lists<N: Visit>(node: &N) -> Result<()> {
    match node.visit(&mut Lists) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

/// Fails with 54011 if a query returns too many columns, now that it is known what its `*` stand for.
pub(super) fn check_result(plan: &LogicalPlan) -> Result<()> {
    check_result_width(plan.schema().fields().len())
}

struct Lists;

impl Visitor for Lists {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Error> {
        match query.body.as_ref() {
            SetExpr::Values(values) => values.rows.iter().try_for_each(|row| within(row.content.len())),
            _ => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<Error> {
        within(select.projection.len())
    }
}

fn within(columns: usize) -> ControlFlow<Error> {
    match check_result_width(columns) {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => ControlFlow::Break(error),
    }
}
