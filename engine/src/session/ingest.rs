//! Rows that come as record batches: bulk ingest, and prepared statements run over a batch of parameters.

use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, RecordBatch};
use futures::{StreamExt, stream};
use rustydb_storage::{ObjectKind, TableDef, Transaction};

use super::execute::{RERUNS_MAX, Statement};
use super::{BatchStream, IngestMode, IngestTarget, Shared};
use crate::ddl::drop::drop_table;
use crate::ddl::table::{plain_table, schema_of_rows};
use crate::ddl::temporary;
use crate::dml::defaults::{not_default, source_of, sources_by_name, takes_only_default};
use crate::dml::insert::{load, target_columns};
use crate::dml::rows::{Arrangement, ColumnSource, RowCheck};
use crate::error::sqlstate;
use crate::prepared::{Prepared, plain_parameters};
use crate::sql::parse::table_name;
use crate::sql::plan::check_parameter_count;
use crate::sql::route::{InsertStatement, Routed, Write, route};
use crate::{Error, Result, Value, dml};

impl Shared {
    pub(crate) async fn ingest(&self, target: IngestTarget, rows: BatchStream) -> Result<u64> {
        self.wake();
        let mut state = self.transaction.lock().await;
        let statement = self.statement(&[], Instant::now());
        let result = async {
            let mut taken = self.take(&mut state, &statement, "ingest").await?;
            // The rows come from a stream, once.
            taken.transaction.expect_reruns(false);
            let load = ingest(&statement, &mut taken.transaction, target, rows);
            let loaded = statement.deadline.limit(load).await?;
            self.give_back(&mut state, &statement, taken).await?;
            Ok(loaded)
        }
        .await;
        if result.is_err() {
            state.fail();
        }
        self.publish(&state);
        self.watch();
        result
    }

    pub(crate) async fn execute_batch(&self, prepared: &Prepared, parameters: RecordBatch) -> Result<u64> {
        self.wake();
        let mut state = self.transaction.lock().await;
        let statement = self.statement(&[], Instant::now());
        let result = async {
            let parsed = prepared.parsed();
            check_parameter_count(parsed.parameters, parameters.num_columns())?;
            let Routed::Write(write) = route(parsed.statement)? else {
                return Err(Error::unsupported("a batch of parameters for a statement that changes no rows"));
            };
            let mut taken = self.take(&mut state, &statement, "a batch of parameters").await?;
            let reruns = taken.commits || taken.transaction.isolation().moves_with_statements();
            let transaction = &mut taken.transaction;
            transaction.expect_reruns(reruns);
            let start = transaction.savepoint();
            let changes = async {
                let mut attempts = 0;
                loop {
                    match change_for_each(&statement, transaction, Write::clone(&write), parameters.clone()).await {
                        Err(error) if reruns && error.is_conflict() && attempts < RERUNS_MAX => {
                            attempts += 1;
                            transaction.undo_to(&start);
                            transaction.refresh().await?;
                        }
                        result => return result,
                    }
                }
            };
            let changed = statement.deadline.limit(changes).await?;
            self.give_back(&mut state, &statement, taken).await?;
            Ok(changed)
        }
        .await;
        if result.is_err() {
            state.fail();
        }
        self.publish(&state);
        self.watch();
        result
    }
}

async fn ingest(
    statement: &Statement<'_>,
    transaction: &mut Transaction,
    target: IngestTarget,
    rows: BatchStream,
) -> Result<u64> {
    let table = target_table(statement, transaction, &target)?;
    let (arrangement, check) = {
        let context = statement.context(transaction.view());
        let names = target.columns.fields().iter().map(|field| field.name().as_str());
        (Arrangement::new(sources_by_name(&context, &table, names)?), RowCheck::new(&context, &table)?)
    };
    let expected = target.columns.fields().len();
    let rows = rows.map(move |batch| {
        let batch = batch?;
        if batch.num_columns() != expected {
            return Err(Error::new(sqlstate::PROTOCOL_VIOLATION, "a batch has other columns than were announced"));
        }
        check.conform(&arrangement.arrange(&batch)?, batch.num_rows())
    });
    load(statement, transaction, &table, rows).await
}

/// Finds or makes the table, as the mode says.
fn target_table(
    statement: &Statement<'_>,
    transaction: &mut Transaction,
    target: &IngestTarget,
) -> Result<Arc<TableDef>> {
    let context = statement.context(transaction.view());
    let schema = match (&target.schema, target.temporary) {
        (None, true) => Some(temporary::ALIAS.to_owned()),
        (schema, _) => schema.clone(),
    };
    // Rows are added to the table the name stands for; a table is made, or made anew, where CREATE TABLE would.
    if matches!(target.mode, IngestMode::Append | IngestMode::CreateAppend)
        && let Ok(table) = context.table(schema.as_deref(), &target.table)
    {
        return Ok(Arc::clone(table));
    }
    if target.mode == IngestMode::Append {
        return context.table(schema.as_deref(), &target.table).cloned();
    }
    let schema_name = context.schema_for_new(schema, target.temporary)?;
    let existing = context.view().catalog().find(&schema_name, &target.table).cloned();
    for kind in [ObjectKind::View, ObjectKind::Sequence] {
        if context.object(kind, Some(&schema_name), &target.table).is_some() {
            let message = format!("relation \"{}\" already exists and is no table", target.table);
            return Err(Error::new(sqlstate::DUPLICATE_TABLE, message));
        }
    }
    drop(context);
    match (target.mode, existing) {
        (IngestMode::Append | IngestMode::CreateAppend, Some(table)) => Ok(table),
        (IngestMode::Create, Some(table)) => {
            let message = format!("table \"{}\" already exists", table.name);
            Err(Error::new(sqlstate::DUPLICATE_TABLE, message).with_hint("Ingest in append or replace mode."))
        }
        (IngestMode::Replace, Some(table)) => {
            drop_table(transaction, &table)?;
            create(transaction, schema_name, target)
        }
        (_, None) => create(transaction, schema_name, target),
    }
}

fn create(transaction: &mut Transaction, schema_name: String, target: &IngestTarget) -> Result<Arc<TableDef>> {
    let schema = Arc::new(schema_of_rows(&target.columns)?);
    Ok(transaction.create_table(plain_table(schema_name, target.table.clone(), schema))?)
}

/// Runs a statement once for each row of parameters. Rows of plain values go in as one set.
async fn change_for_each(
    statement: &Statement<'_>,
    transaction: &mut Transaction,
    write: Write,
    parameters: RecordBatch,
) -> Result<u64> {
    if let Write::Insert(insert) = &write
        && insert.on_conflict.is_none()
        && insert.with.is_none()
        && insert.overriding.is_none()
        && let Some(numbers) = plain_parameters(insert)
    {
        return insert_batch(statement, transaction, insert, &numbers, parameters).await;
    }
    let mut changed = 0;
    for row in 0..parameters.num_rows() {
        let values: Vec<Value> =
            parameters.columns().iter().map(|column| Value::try_from_array(column, row)).collect::<Result<_, _>>()?;
        let statement = statement.with_parameters(&values);
        changed += match write.clone() {
            write @ (Write::Insert(_) | Write::Update(_) | Write::Delete(_) | Write::Merge(_) | Write::With(_)) => {
                dml::change(&statement, transaction, &Default::default(), write).await?.rows
            }
            _ => return Err(Error::unsupported("a batch of parameters for this statement")),
        };
    }
    Ok(changed)
}

/// `INSERT INTO t (…) VALUES ($1, …)` over a batch: the batch is the rows.
async fn insert_batch(
    statement: &Statement<'_>,
    transaction: &mut Transaction,
    insert: &InsertStatement,
    numbers: &[usize],
    parameters: RecordBatch,
) -> Result<u64> {
    let (table, arrangement, check) = {
        let context = statement.context(transaction.view());
        let (schema, name) = table_name(&insert.table)?;
        let table = Arc::clone(context.table(schema.as_deref(), &name)?);
        let targets = target_columns(&table, &insert.columns)?;
        if targets.len() != numbers.len() {
            return Err(Error::syntax("INSERT has a different number of columns and values"));
        }
        let mut sources = Vec::with_capacity(table.schema.fields().len());
        for column in 0..table.schema.fields().len() {
            let number = targets.iter().position(|target| *target == column).map(|place| numbers[place]);
            if number.is_some() && takes_only_default(&table, column) {
                return Err(not_default(&table, column));
            }
            sources.push(match number {
                Some(number) => ColumnSource::Incoming(number - 1),
                None => source_of(&context, &table, column)?,
            });
        }
        let check = RowCheck::new(&context, &table)?;
        (table, Arrangement::new(sources), check)
    };
    let columns: Vec<ArrayRef> = arrangement.arrange(&parameters)?;
    let rows = check.conform(&columns, parameters.num_rows())?;
    load(statement, transaction, &table, stream::iter([Ok(rows)])).await
}
