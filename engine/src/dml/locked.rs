//! Lock clauses in subqueries: `UPDATE … WHERE id = (SELECT id FROM jobs … FOR UPDATE SKIP LOCKED)`.
//!
//! Such a subquery is run first, its rows are locked as those of a statement of its own, and the rows stand in its place.
//! PostgreSQL runs a subquery that refers to nothing outside just once as well; one that refers to columns of the outer
//! query would be another one for each row, and is refused (0A000).

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::datasource::TableProvider;
use datafusion::sql::sqlparser::ast::{Query, VisitMut, VisitorMut};
use rustydb_storage::Transaction;

use super::syntax::{alone, everything, quoted, select, table_factor};
use super::with::result_table;
use crate::error::sqlstate;
use crate::session::{Statement, lock_and_read};
use crate::sql::grammar::lock::{LockingQuery, take_locks};
use crate::sql::route::{InsertStatement, Write};
use crate::{Error, Result};

/// What the names of such rows begin with; nobody can write it without quotes, and nobody does.
const PREFIX: &str = "rustydb.locked ";

/// Takes the locking subqueries out of a node. A name stands in the place of each.
fn take<N: VisitMut>(node: &mut N, taken: &mut Vec<LockingQuery>) -> Result<()> {
    struct Taker<'a>(&'a mut Vec<LockingQuery>);
    impl VisitorMut for Taker<'_> {
        type Break = Error;
        fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
            if query.locks.is_empty() {
                return ControlFlow::Continue(());
            }
            let name = quoted(&format!("{PREFIX}{}", self.0.len()));
            let rows = select(None, vec![everything()], vec![alone(table_factor(vec![name], None))], None);
            match take_locks(Box::new(std::mem::replace(query, rows))) {
                Ok(locking) => {
                    self.0.push(locking);
                    ControlFlow::Continue(())
                }
                Err(error) => ControlFlow::Break(error),
            }
        }
    }
    match node.visit(&mut Taker(taken)) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

fn take_from_write(write: &mut Write, taken: &mut Vec<LockingQuery>) -> Result<()> {
    match write {
        Write::Insert(InsertStatement { with, source, .. }) => {
            with.iter_mut().try_for_each(|with| take(with, taken))?;
            source.iter_mut().try_for_each(|source| take(source, taken))
        }
        Write::Update(update) => {
            update.with.iter_mut().try_for_each(|with| take(with, taken))?;
            take(&mut update.assignments, taken)?;
            take(&mut update.from, taken)?;
            take(&mut update.selection, taken)
        }
        Write::Delete(delete) => {
            delete.with.iter_mut().try_for_each(|with| take(with, taken))?;
            take(&mut delete.using, taken)?;
            take(&mut delete.selection, taken)
        }
        Write::Merge(merge) => {
            merge.with.iter_mut().try_for_each(|with| take(with, taken))?;
            take(&mut merge.source, taken)
        }
        _ => Ok(()),
    }
}

/// Runs the locking subqueries of a changing statement. Returns their rows by the names that stand for them.
pub(super) async fn read_first(
    statement: &Statement<'_>,
    transaction: &mut Transaction,
    write: &mut Write,
) -> Result<HashMap<String, Arc<dyn TableProvider>>> {
    let mut taken = Vec::new();
    take_from_write(write, &mut taken)?;
    run(statement, transaction, taken).await
}

/// The same for a query.
pub(crate) async fn read_first_of_query(
    statement: &Statement<'_>,
    transaction: &mut Transaction,
    query: &mut Query,
) -> Result<HashMap<String, Arc<dyn TableProvider>>> {
    let mut taken = Vec::new();
    take(query, &mut taken)?;
    run(statement, transaction, taken).await
}

async fn run(
    statement: &Statement<'_>,
    transaction: &mut Transaction,
    taken: Vec<LockingQuery>,
) -> Result<HashMap<String, Arc<dyn TableProvider>>> {
    let mut named = HashMap::new();
    for (number, query) in taken.into_iter().enumerate() {
        let rows =
            Box::pin(lock_and_read(statement, transaction, &query)).await.map_err(|error| match error.sqlstate() {
                sqlstate::UNDEFINED_COLUMN | sqlstate::UNDEFINED_TABLE => {
                    Error::unsupported("FOR UPDATE or SHARE in a subquery that refers to the query around it")
                        .with_detail(error.message().to_owned())
                        .with_hint("Lock the rows with a SELECT of its own first.")
                }
                _ => error,
            })?;
        let name = format!("{PREFIX}{number}");
        let table = result_table(&name, &[], &rows.schema(), vec![rows])?;
        named.insert(name, table);
    }
    Ok(named)
}

/// Forgets the lock clauses of subqueries, for a plan that is not going to run.
pub(crate) fn forget_locks<N: VisitMut>(node: &mut N) {
    struct Forget;
    impl VisitorMut for Forget {
        type Break = ();
        fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
            query.locks.clear();
            ControlFlow::Continue(())
        }
    }
    let _ = node.visit(&mut Forget);
}

/// The same for a changing statement.
pub(super) fn forget_locks_of(write: &mut Write) {
    match write {
        Write::Insert(insert) => {
            insert.with.iter_mut().for_each(forget_locks);
            insert.source.iter_mut().for_each(forget_locks);
        }
        Write::Update(update) => {
            update.with.iter_mut().for_each(forget_locks);
            forget_locks(&mut update.assignments);
            forget_locks(&mut update.from);
            forget_locks(&mut update.selection);
        }
        Write::Delete(delete) => {
            delete.with.iter_mut().for_each(forget_locks);
            forget_locks(&mut delete.using);
            forget_locks(&mut delete.selection);
        }
        Write::Merge(merge) => {
            merge.with.iter_mut().for_each(forget_locks);
            forget_locks(&mut merge.source);
        }
        _ => {}
    }
}
