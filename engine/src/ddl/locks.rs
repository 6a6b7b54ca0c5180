//! The locks that changes of tables begin with: whoever writes to a table is waited for, and kept out until the change is
//! committed. Readers neither wait nor are waited for.
//!
//! | statement | lock | of |
//! |---|---|---|
//! | ALTER TABLE | ACCESS EXCLUSIVE | the table; if it is written anew, those that refer to it, too |
//! | CREATE TABLE and ALTER TABLE with REFERENCES | SHARE ROW EXCLUSIVE | the tables that are referred to |
//! | DROP | ACCESS EXCLUSIVE | all tables that go or change |
//! | CREATE INDEX over expressions or a part of the rows, DROP INDEX of such | ACCESS EXCLUSIVE | the same |
//! | CREATE UNIQUE INDEX over columns | SHARE | the table |
//! | CREATE INDEX over columns that is not unique, or CONCURRENTLY | none: it has what others commit meanwhile | |
//! | DROP INDEX of another | none | |
//! | COPY FROM | that of a load | the table, for whose changes it waits as others wait for its end |
//!
//! TRUNCATE locks for itself. An ingest locks its table as COPY does, but twice and for a moment each: before its rows come and
//! when they are there ([`see_table`]). A client that stops sending them keeps nobody waiting.
//!
//! A foreign key that comes waits for those who remove rows of its parent, because they have looked for no rows that refer to
//! them by it; and they wait for it, and then look ([`Transaction::require_same_table`]).

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::sql::sqlparser::ast::{
    AlterTableOperation, ColumnDef, ColumnOption, CreateIndex, Expr, ObjectName, TableConstraint,
};
use rustydb_storage::{LockMode, TableDef, TableId, Transaction};

use super::alter::reshapes;
use super::drop::changed_tables;
use super::index::find_index;
use super::table::new_name;
use crate::constraints::is_hidden;
use crate::error::sqlstate;
use crate::session::Statement;
use crate::sql::context::StatementContext;
use crate::sql::grammar::copy::CopySource;
use crate::sql::route::{AlterOperation, CreateTableStatement, Write};
use crate::sql::text::parse::table_name;
use crate::{Error, Result};

/// Locks the tables that a statement is going to change. `alone`: nothing was read before it that could contradict it, so it
/// sees what others have committed until it had the locks.
pub(crate) async fn lock_changed_tables(
    statement: &Statement<'_>,
    transaction: &mut Transaction,
    write: &Write,
    alone: bool,
) -> Result<()> {
    let locks = matches!(
        write,
        Write::CreateTable(_)
            | Write::AlterTable(_)
            | Write::CreateIndex(_)
            | Write::DropIndex { .. }
            | Write::Drop(_)
            | Write::CopyFrom(_)
    );
    if !locks {
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

/// Waits for those who are changing the table that rows are to be loaded into, and shows the transaction what has become of it.
/// Keeps no lock. `find` tells which table it is; what is wrong with that, the statement says itself. `alone`: as above.
pub(crate) async fn see_table(
    statement: &Statement<'_>,
    transaction: &mut Transaction,
    alone: bool,
    find: impl Fn(&StatementContext) -> Result<TableId>,
) -> Result<()> {
    loop {
        let Ok(table) = find(&statement.context(transaction.view())) else { return Ok(()) };
        let held = transaction.lock_count();
        transaction.lock_table(table, LockMode::Load, None).await?;
        let catalog = Arc::clone(transaction.catalog());
        if alone {
            transaction.refresh().await?;
        }
        transaction.release_locks_to(held);
        if Arc::ptr_eq(transaction.catalog(), &catalog) {
            return Ok(());
        }
    }
}

/// Fails if others have changed a table while rows for it were read that are not read again: the commit would say no more than
/// that something has changed.
pub(crate) fn require_loaded_table(transaction: &Transaction, table: &TableDef) -> Result<()> {
    transaction.require_same_definition(table).map_err(|_| {
        let message = format!("table \"{}\" was changed by others while its rows were read", table.name);
        Error::new(sqlstate::SERIALIZATION_FAILURE, message).with_hint("Load them again; none of them was kept.")
    })
}

fn wanted_locks(context: &StatementContext, write: &Write) -> Result<Vec<(TableId, LockMode)>> {
    Ok(match write {
        Write::CreateTable(create) => parents_of_new(context, create)?,
        Write::AlterTable(alter) => {
            let table = named(context, &alter.name)?;
            let mut wanted = match alter.operations.iter().any(reshapes) {
                true => to_write_anew(context, table),
                false => vec![(table, LockMode::AccessExclusive)],
            };
            wanted.extend(to_be_referred_to(context, alter.operations.iter().flat_map(references_of)));
            wanted
        }
        Write::CopyFrom(copy) => match &copy.source {
            CopySource::Table { name, columns: _ } => vec![(named(context, name)?, LockMode::Load)],
            CopySource::Query(_) => Vec::new(),
        },
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

/// Nobody is waited for if there will be no new table.
fn parents_of_new(context: &StatementContext, create: &CreateTableStatement) -> Result<Vec<(TableId, LockMode)>> {
    let of_columns = create.columns.iter().flat_map(references_at);
    let of_table = create.constraints.iter().filter_map(reference_in);
    let mut references = of_columns.chain(of_table).peekable();
    if references.peek().is_none() || new_name(context, &create.name, create.if_not_exists, create.temporary)?.is_none()
    {
        return Ok(Vec::new());
    }
    Ok(to_be_referred_to(context, references))
}

/// The tables of these names; one that is to refer to itself is not there yet.
fn to_be_referred_to<'a>(
    context: &StatementContext,
    names: impl Iterator<Item = &'a ObjectName>,
) -> Vec<(TableId, LockMode)> {
    names.filter_map(|name| Some((named(context, name).ok()?, LockMode::ShareRowExclusive))).collect()
}

fn references_of(operation: &AlterOperation) -> Vec<&ObjectName> {
    let AlterOperation::Sql(operation) = operation else { return Vec::new() };
    match operation.as_ref() {
        AlterTableOperation::AddColumn { column_def, .. } => references_at(column_def).collect(),
        AlterTableOperation::AddConstraint { constraint, .. } => reference_in(constraint).into_iter().collect(),
        _ => Vec::new(),
    }
}

fn references_at(column: &ColumnDef) -> impl Iterator<Item = &ObjectName> {
    column.options.iter().filter_map(|option| match &option.option {
        ColumnOption::ForeignKey(key) => Some(&key.foreign_table),
        _ => None,
    })
}

fn reference_in(constraint: &TableConstraint) -> Option<&ObjectName> {
    match constraint {
        TableConstraint::ForeignKey(key) => Some(&key.foreign_table),
        _ => None,
    }
}

fn named(context: &StatementContext, name: &ObjectName) -> Result<TableId> {
    let (schema, plain_name) = table_name(name)?;
    Ok(context.table(schema.as_deref(), &plain_name)?.id)
}

fn lock_for_index(create: &CreateIndex) -> Option<LockMode> {
    let is_column = |key: &Expr| matches!(key, Expr::Identifier(_));
    let is_plain = create.predicate.is_none() && create.columns.iter().all(|key| is_column(&key.column.expr));
    match (is_plain, create.unique) {
        // The table is written anew, also if that is to be done CONCURRENTLY.
        (false, _) => Some(LockMode::AccessExclusive),
        (true, _) if create.concurrently => None,
        (true, true) => Some(LockMode::Share),
        (true, false) => None,
    }
}
