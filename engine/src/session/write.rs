//! Statements that change something: what runs each, what its tag is, and when it runs again on a newer snapshot.

use rustydb_storage::Transaction;

use super::statement::Statement;
use super::transaction::Taken;
use super::{Completion, StatementResult};
use crate::dml::foreign_key;
use crate::dml::returning::{Changed, Returned};
use crate::sql::route::{WithPart, Write};
use crate::stream::RecordStream;
use crate::{Error, Result, copy, ddl, dml};

/// How often a statement is run again after it met a concurrent change. Each time it holds more locks, so that it is in
/// practice done after one or two.
pub(super) const RERUNS_MAX: usize = 1000;

/// Whether a statement is run again by itself. The rows of COPY come from a stream that was read already; and a change of
/// a table may read all of it each time, only to meet the next writer.
pub(super) fn can_rerun(write: &Write) -> bool {
    matches!(write, Write::Insert(_) | Write::Update(_) | Write::Delete(_) | Write::Merge(_) | Write::With(_))
}

/// Runs a changing statement. Where nothing was read before it that it would contradict (at READ COMMITTED, and in a
/// transaction of its own), a concurrent change makes it run again on a new snapshot, with the locks it has already.
/// `is_first`: it is the first statement of its transaction.
pub(super) async fn run_write(
    statement: &Statement<'_>,
    taken: &mut Taken,
    write: &Write,
    is_first: bool,
    attempts: &mut usize,
) -> Result<StatementResult> {
    let transaction: &mut Transaction = &mut taken.transaction;
    let reruns = (taken.commits || transaction.isolation().moves_with_statements()) && can_rerun(write);
    transaction.expect_reruns(reruns);
    if let (Write::Truncate(truncate), true) = (write, taken.commits) {
        let completion = ddl::truncate::truncate(statement, transaction, truncate.clone(), true).await?;
        return Ok(StatementResult::Done(completion));
    }
    if !reruns {
        let alone = taken.commits || is_first || transaction.isolation().moves_with_statements();
        ddl::locks::lock_changed_tables(statement, transaction, write, alone).await?;
        return apply(statement, transaction, write.clone()).await;
    }
    let start = transaction.mark();
    loop {
        match apply(statement, transaction, write.clone()).await {
            Err(error) if error.is_conflict() && *attempts < RERUNS_MAX => {
                *attempts += 1;
                transaction.undo_to(&start);
                if !transaction.may_refresh() {
                    transaction.release(start);
                    return Err(error);
                }
                transaction.refresh().await?;
            }
            result => {
                transaction.release(start);
                return result;
            }
        }
    }
}

pub(super) async fn apply(
    statement: &Statement<'_>,
    transaction: &mut Transaction,
    write: Write,
) -> Result<StatementResult> {
    let completion = match write {
        Write::CreateTable(create) => ddl::table::create_table(statement, transaction, *create).await?,
        Write::CreateSchema(create) => ddl::schema::create_schema(statement, transaction, create)?,
        Write::CreateView(view) => ddl::view::create_view(statement, transaction, *view)?,
        Write::CreateSequence(sequence) => ddl::sequence::create_sequence(statement, transaction, *sequence)?,
        Write::AlterSequence(sequence) => ddl::sequence::alter_sequence(statement, transaction, *sequence)?,
        Write::CreateRoutine(create) => ddl::routine::create_routine(statement, transaction, *create)?,
        Write::DropRoutine(dropped) => ddl::routine::drop_routines(statement, transaction, dropped)?,
        Write::AlterTable(alter) => ddl::alter::alter_table(statement, transaction, *alter).await?,
        Write::CreateIndex(index) => ddl::index::create_index(statement, transaction, *index).await?,
        Write::DropIndex { names, if_exists, cascade } => {
            ddl::index::drop_indexes(statement, transaction, &names, if_exists, cascade).await?
        }
        Write::Relocate(relocate) => ddl::relocate::relocate(statement, transaction, *relocate)?,
        Write::Comment(comment) => ddl::comment::comment(statement, transaction, *comment)?,
        Write::Drop(drop) => ddl::drop::drop_relations(statement, transaction, drop)?,
        Write::Truncate(truncate) => ddl::truncate::truncate(statement, transaction, truncate, false).await?,
        Write::DiscardTemporary => {
            ddl::temporary::discard(statement, transaction)?;
            Completion::new("DISCARD TEMP")
        }
        Write::SetConstraints { names, deferred } => {
            foreign_key::set_constraints(statement, transaction, &names, deferred).await?;
            Completion::new("SET CONSTRAINTS")
        }
        Write::CopyFrom(copy) => {
            Completion::of_rows("COPY", copy::from::copy_from(statement, transaction, *copy).await?)
        }
        Write::CopyTo(_) => return Err(Error::internal("COPY TO does not write to tables")),
        Write::Insert(_) | Write::Update(_) | Write::Delete(_) | Write::Merge(_) | Write::With(_) => {
            let tag = write_name(&write);
            let Changed { rows, returned } = dml::change(statement, transaction, &Default::default(), write).await?;
            if let Some(Returned { schema, batches }) = returned {
                return Ok(StatementResult::Rows(RecordStream::made(&schema, batches)?));
            }
            Completion::of_rows(tag, rows)
        }
    };
    Ok(StatementResult::Done(completion))
}

pub(crate) fn write_name(write: &Write) -> &'static str {
    match write {
        Write::CreateTable(_) => "CREATE TABLE",
        Write::CreateSchema(_) => "CREATE SCHEMA",
        Write::CreateView(_) => "CREATE VIEW",
        Write::CreateSequence(_) => "CREATE SEQUENCE",
        Write::AlterSequence(_) => "ALTER SEQUENCE",
        Write::CreateRoutine(create) if create.is_procedure => "CREATE PROCEDURE",
        Write::CreateRoutine(_) => "CREATE FUNCTION",
        Write::DropRoutine(_) => "DROP FUNCTION",
        Write::AlterTable(_) => "ALTER TABLE",
        Write::Relocate(_) => "ALTER",
        Write::Comment(_) => "COMMENT",
        Write::CreateIndex(_) => "CREATE INDEX",
        Write::DropIndex { .. } => "DROP INDEX",
        Write::Drop(drop) => drop.kind.tag(),
        Write::Truncate(_) => "TRUNCATE TABLE",
        Write::DiscardTemporary => "DISCARD TEMP",
        Write::SetConstraints { .. } => "SET CONSTRAINTS",
        Write::Insert(_) => "INSERT",
        Write::Update(_) => "UPDATE",
        Write::Delete(_) => "DELETE",
        Write::Merge(_) => "MERGE",
        Write::With(with) => match &with.main {
            WithPart::Query(_) => "SELECT",
            WithPart::Write(write) => write_name(write),
        },
        Write::CopyFrom(_) => "COPY FROM",
        Write::CopyTo(_) => "COPY TO",
    }
}
