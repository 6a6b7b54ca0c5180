//! Statements that change rows.
//!
//! Each is a query first, planned like any other: for the new rows (INSERT), or for the keys of the rows to change and
//! their new values (UPDATE, DELETE). Its result is checked ([`rows`]) and handed to the storage transaction; foreign keys
//! are checked against the state after the change ([`foreign_key`]). Since the query reads a view taken before the change,
//! a statement never meets its own rows.

pub(crate) mod defaults;
pub(crate) mod foreign_key;
pub(crate) mod insert;
pub(crate) mod modify;
pub(crate) mod rows;

use datafusion::logical_expr::LogicalPlan;

use crate::Result;
use crate::sql::context::StatementContext;
use crate::sql::plan::plan_query;
use crate::sql::route::Write;

/// The query inside a statement that changes rows or makes a table of them, and the context it is planned in; `None` if
/// there is no query in it.
pub(crate) fn plan_of(context: &StatementContext, write: Write) -> Result<Option<(StatementContext, LogicalPlan)>> {
    Ok(match write {
        Write::Insert(statement) => {
            let insert::InsertPlan { table: _, plan, context } = insert::plan(context, statement)?;
            Some((context, plan))
        }
        Write::Update(statement) => Some(modify::plan_update(context, statement)?.into_query()),
        Write::Delete(statement) => Some(modify::plan_delete(context, statement)?.into_query()),
        Write::CreateTable(create) => match create.query {
            Some(query) => Some((context.clone(), plan_query(context, *query)?)),
            None => None,
        },
        Write::DropTable { .. } | Write::CopyFrom(_) | Write::CopyTo(_) => None,
    })
}
