//! The locks that changes of tables begin with: whoever writes to a table is waited for, and kept out until the change is
//! committed. Readers neither wait nor are waited for.
//!
//! | statement | lock | of |
//! |---|---|---|
//! | ALTER TABLE | ACCESS EXCLUSIVE | the table; if it is written anew, those that refer to it, too |
//! | DROP | ACCESS EXCLUSIVE | all tables that go or change |
//! | CREATE INDEX over expressions or a part of the rows, DROP INDEX of such | ACCESS EXCLUSIVE | the same |
//! | CREATE UNIQUE INDEX over columns | SHARE | the table |
//! | CREATE INDEX that is not unique, or CONCURRENTLY | none: it has what others commit meanwhile | |
//! | DROP INDEX of another | none | |
//!
//! TRUNCATE locks for itself.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::sql::sqlparser::ast::{CreateIndex, Expr, ObjectName};
use rustydb_storage::{LockMode, TableDef, TableId, Transaction};

use super::alter::reshapes;
use super::drop::changed_tables;
use super::index::find_index;
use crate::Result;
use crate::constraints::is_hidden;
use crate::session::Statement;
use crate::sql::context::StatementContext;
use crate::sql::route::Write;
use crate::sql::text::parse::table_name;

/// Locks the tables that a statement is going to change. `alone`: nothing was read before it that could contradict it, so it
/// sees what others have committed until it had the locks.
pub(crate) async fn lock_changed_tables(
    statement: &Statement<'_>,
    transaction: &mut Transaction,
    write: &Write,
    alone: bool,
) -> Result<()> {
    if !matches!(write, Write::AlterTable(_) | Write::CreateIndex(_) | Write::DropIndex { .. } | Write::Drop(_)) {
        return Ok(());
    }
    let mut locked: BTreeSet<TableId> = BTreeSet::new();
    loop {
        // What is wrong with the statement, it says itself.
        let Ok(mut wanted) = wanted_locks(&statement.context(transaction.view()), write) else { return Ok(()) };
        wanted.retain(|(table, _)| !locked.contains(table));
        if wanted.is_empty() {
            return Ok(());
        }
        for (table, mode) in wanted {
            transaction.lock_table(table, mode, None).await?;
            locked.insert(table);
        }
        if !alone {
            return Ok(());
        }
        let catalog = Arc::clone(transaction.catalog());
        transaction.refresh().await?;
        if Arc::ptr_eq(transaction.catalog(), &catalog) {
            return Ok(());
        }
        // The names may stand for other tables by now.
    }
}

fn wanted_locks(context: &StatementContext, write: &Write) -> Result<Vec<(TableId, LockMode)>> {
    Ok(match write {
        Write::AlterTable(alter) => {
            let table = named(context, &alter.name)?;
            match alter.operations.iter().any(reshapes) {
                true => to_write_anew(context, table),
                false => vec![(table, LockMode::AccessExclusive)],
            }
        }
        Write::CreateIndex(create) => match lock_for_index(create) {
            Some(LockMode::AccessExclusive) => to_write_anew(context, named(context, &create.table_name)?),
            Some(mode) => vec![(named(context, &create.table_name)?, mode)],
            None => Vec::new(),
        },
        Write::DropIndex { names, .. } => {
            let catalog = context.view().catalog();
            let mut tables: Vec<&Arc<TableDef>> = Vec::new();
            for name in names {
                let (schema, plain_name) = table_name(name)?;
                let mut schemas = context.schemas(schema.as_deref());
                let found = schemas.find_map(|schema| find_index(catalog, schema, &plain_name));
                let table = found.and_then(|(table, _)| catalog.table(table));
                tables.extend(table.filter(|table| table.schema.fields().iter().any(|field| is_hidden(field))));
            }
            tables.into_iter().flat_map(|table| to_write_anew(context, table.id)).collect()
        }
        Write::Drop(dropped) => {
            let tables = changed_tables(context, dropped)?;
            tables.into_iter().map(|table| (table, LockMode::AccessExclusive)).collect()
        }
        _ => Vec::new(),
    })
}

/// A table that is written anew, and those that refer to it: their definitions follow.
fn to_write_anew(context: &StatementContext, table: TableId) -> Vec<(TableId, LockMode)> {
    let referring = context.view().catalog().referring_tables(table).map(|child| child.id);
    std::iter::once(table).chain(referring).map(|table| (table, LockMode::AccessExclusive)).collect()
}

fn named(context: &StatementContext, name: &ObjectName) -> Result<TableId> {
    let (schema, plain_name) = table_name(name)?;
    Ok(context.table(schema.as_deref(), &plain_name)?.id)
}

fn lock_for_index(create: &CreateIndex) -> Option<LockMode> {
    let is_column = |key: &Expr| matches!(key, Expr::Identifier(_));
    let is_plain = create.predicate.is_none() && create.columns.iter().all(|key| is_column(&key.column.expr));
    match (is_plain, create.unique) {
        _ if create.concurrently => None,
        (false, _) => Some(LockMode::AccessExclusive),
        (true, true) => Some(LockMode::Share),
        (true, false) => None,
    }
}
