//! Rows that come as record batches: bulk ingest, and prepared statements run over a batch of parameters.

use std::sync::Arc;
use std::time::Instant;

use arrow::array::RecordBatch;
use futures::{StreamExt, TryStreamExt, stream};
use rustydb_storage::{ObjectKind, TableDef, Transaction};

use super::row::{decided, may_take_row_path};
use super::slices::{slices, with_views};
use super::statement::Statement;
use super::write::RERUNS_MAX;
use super::{BatchStream, IngestMode, IngestTarget, Shared};
use crate::ddl::drop::drop_table;
use crate::ddl::locks::{require_loaded_table, see_table};
use crate::ddl::table::{plain_table, schema_of_rows};
use crate::ddl::temporary;
use crate::dml::defaults::{not_default, source_of, sources_by_name, takes_only_default};
use crate::dml::insert::{load, target_columns};
use crate::dml::rows::{Arrangement, ColumnSource, RowCheck};
use crate::error::sqlstate;
use crate::prepared::{Prepared, parameter_at, plain_parameters};
use crate::row_path::{Call, Known, Origin, Program, Ready, compile};
use crate::sql::context::StatementContext;
use crate::sql::nul;
use crate::sql::plan::check_parameter_count;
use crate::sql::route::{InsertStatement, Routed, Write, route};
use crate::sql::text::parse::table_name;
use crate::sql::widths::check_table_width;
use crate::{Error, Result, Value, dml};

impl Shared {
    pub(crate) async fn ingest(&self, target: IngestTarget, rows: BatchStream) -> Result<u64> {
        self.wake();
        let mut state = self.lock_transaction().await;
        let statement = self.statement(&[], Instant::now());
        let is_first = state.open().is_some_and(|open| !open.has_begun());
        let result = async {
            check_table_width(target.columns.fields().len())?;
            let mut taken = self.take(&mut state, &statement, "ingest").await?;
            let alone = taken.commits || is_first || taken.transaction.isolation().moves_with_statements();
            // The rows come from a stream, once.
            taken.transaction.expect_reruns(false);
            let load = ingest(&statement, &mut taken.transaction, alone, target, rows);
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
        let mut state = self.lock_transaction().await;
        let statement = self.statement(&[], Instant::now());
        let result = async {
            let parsed = prepared.parsed();
            check_parameter_count(parsed.parameters, parameters.num_columns())?;
            nul::check_parameter_rows(&parameters)?;
            let Routed::Write(write) = route(parsed.statement)? else {
                return Err(Error::unsupported("a batch of parameters for a statement that changes no rows"));
            };
            let mut taken = self.take(&mut state, &statement, "a batch of parameters").await?;
            let reruns = taken.commits || taken.transaction.isolation().moves_with_statements();
            let transaction: &mut Transaction = &mut taken.transaction;
            transaction.expect_reruns(reruns);
            let start = transaction.mark();
            let changes = async {
                let mut attempts = 0;
                loop {
                    let text = prepared.sql();
                    match change_for_each(&statement, transaction, text, Write::clone(&write), parameters.clone()).await
                    {
                        Err(error) if reruns && error.is_conflict() && attempts < RERUNS_MAX => {
                            attempts += 1;
                            transaction.undo_to(&start);
                            if !transaction.may_refresh() {
                                return Err(error);
                            }
                            transaction.refresh().await?;
                        }
                        result => return result,
                    }
                }
            };
            let changed = statement.deadline.limit(changes).await?;
            taken.transaction.release(start);
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
    alone: bool,
    target: IngestTarget,
    rows: BatchStream,
) -> Result<u64> {
    if matches!(target.mode, IngestMode::Append | IngestMode::CreateAppend) {
        let schema = schema_of(&target);
        let find = |context: &StatementContext| {
            table_to_append_to(context, schema.as_deref(), &target.table).map(|table| table.id)
        };
        see_table(statement, transaction, alone, find).await?;
    }
    let table = target_table(statement, transaction, &target)?;
    let (arrangement, check) = {
        let context = statement.context(transaction.view());
        let names = target.columns.fields().iter().map(|field| field.name().as_str());
        (Arrangement::new(sources_by_name(&context, &table, names)?), RowCheck::new(&context, &table)?)
    };
    let (expected, columns) = (target.columns.fields().len(), table.schema.fields().len());
    let pieces = rows.map(move |batch| {
        let batch = batch?;
        if batch.num_columns() != expected {
            return Err(Error::new(sqlstate::PROTOCOL_VIOLATION, "a batch has other columns than were announced"));
        }
        // Here, and not of each piece: all of them have the whole dictionary.
        nul::check_rows(&batch)?;
        Ok(stream::iter(slices(with_views(batch)?, columns).map(Ok::<_, Error>)))
    });
    let rows = pieces.try_flatten().map(move |batch| {
        let batch = batch?;
        check.conform(&arrangement.arrange(&batch)?, batch.num_rows())
    });
    let loaded = load(statement, transaction, &table, rows).await?;
    require_loaded_table(transaction, &table)?;
    Ok(loaded)
}

/// The schema that the target is looked for in, if it names one.
fn schema_of(target: &IngestTarget) -> Option<String> {
    match (&target.schema, target.temporary) {
        (None, true) => Some(temporary::ALIAS.to_owned()),
        (schema, _) => schema.clone(),
    }
}

/// Finds or makes the table, as the mode says.
fn target_table(
    statement: &Statement<'_>,
    transaction: &mut Transaction,
    target: &IngestTarget,
) -> Result<Arc<TableDef>> {
    let context = statement.context(transaction.view());
    let schema = schema_of(target);
    // Rows are added to the table the name stands for; a table is made, or made anew, where CREATE TABLE would.
    if matches!(target.mode, IngestMode::Append | IngestMode::CreateAppend)
        && let Ok(table) = table_to_append_to(&context, schema.as_deref(), &target.table)
    {
        return Ok(Arc::clone(table));
    }
    if target.mode == IngestMode::Append {
        return table_to_append_to(&context, schema.as_deref(), &target.table).cloned();
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

/// The table that rows are added to. Without a schema none of the session's temporary ones is meant, unless there is no
/// other: an ingest says of those that they are.
fn table_to_append_to<'a>(
    context: &'a StatementContext,
    schema: Option<&str>,
    name: &str,
) -> Result<&'a Arc<TableDef>> {
    if schema.is_none() {
        let catalog = context.view().catalog();
        for in_schema in context.search_path().iter() {
            if let Some(table) = catalog.find(in_schema, name) {
                return Ok(table);
            }
            let is_other = |kind| catalog.find_object(kind, in_schema, name).is_some();
            if is_other(ObjectKind::View) || is_other(ObjectKind::Sequence) {
                break;
            }
        }
    }
    context.table(schema, name)
}

fn create(transaction: &mut Transaction, schema_name: String, target: &IngestTarget) -> Result<Arc<TableDef>> {
    let is_unnamed = target.columns.fields().iter().any(|field| field.name().is_empty());
    if target.table.is_empty() || is_unnamed {
        return Err(Error::syntax("a table and each of its columns need a name"));
    }
    let schema = Arc::new(schema_of_rows(&target.columns)?);
    Ok(transaction.create_table(plain_table(schema_name, target.table.clone(), schema))?)
}

/// Runs a statement once for each row of parameters. Rows of plain values go in as one set.
async fn change_for_each(
    statement: &Statement<'_>,
    transaction: &mut Transaction,
    text: &str,
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
    let mut program = None;
    for row in 0..parameters.num_rows() {
        let values: Vec<Value> =
            parameters.columns().iter().map(|column| parameter_at(column, row)).collect::<Result<_, _>>()?;
        if row == 0 {
            program = program_for(statement, transaction, text, &write, &values);
        }
        if let Some(program) = program.as_deref().filter(|program| program.is_due())
            && let Ok(data) = program.bind(&values)
        {
            let call = Call { parameters: &data, now: statement.now_microseconds() };
            if let Some(outcome) = decided(program, program.run(transaction, call).await)? {
                changed += outcome.count;
                continue;
            }
        }
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

/// The program of the row path for a statement whose parameters have the types of these, if there is one.
fn program_for(
    statement: &Statement<'_>,
    transaction: &Transaction,
    text: &str,
    write: &Write,
    values: &[Value],
) -> Option<Arc<Program>> {
    if !may_take_row_path(statement) {
        return None;
    }
    let (programs, settings) = (statement.database.programs(), &statement.settings);
    match programs.find(text, values, transaction.catalog(), settings.config.options(), &settings.search_path) {
        Known::Ready(Ready::Program(program)) => Some(program),
        Known::Ready(Ready::Call(_)) | Known::Unsuited => None,
        Known::Nothing => {
            let types: Vec<_> = values.iter().map(Value::data_type).collect();
            let context = statement.context(transaction.view());
            let program = compile(&context, Routed::Write(Box::new(write.clone())), &types).map(Arc::new);
            programs.keep(text, types, Origin::of(&context), program.clone().map(Ready::Program));
            program
        }
    }
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
    let conform = move |batch: RecordBatch| check.conform(&arrangement.arrange(&batch)?, batch.num_rows());
    let pieces = slices(with_views(parameters)?, table.schema.fields().len());
    load(statement, transaction, &table, stream::iter(pieces.map(conform))).await
}
