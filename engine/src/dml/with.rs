//! Common table expressions that run by themselves: `WITH moved AS (DELETE … RETURNING *) INSERT INTO … SELECT * FROM moved`,
//! and queries that [several parts](crate::sql::route::WithStatement) of a changing statement read.
//!
//! All parts read the state before the statement and none sees what another changes, except through RETURNING. Each
//! changing part runs once and to its end, in the order written, whether anything reads its rows or not.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::catalog::MemTable;
use datafusion::datasource::TableProvider;
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::sql::sqlparser::ast::Query;
use rustydb_storage::Transaction;

use super::locked::{forget_locks, read_first_of_query};
use super::returning::{Changed, Returned, collected};
use super::{Reading, change, describe};
use crate::error::sqlstate;
use crate::session::Statement;
use crate::sql::context::StatementContext;
use crate::sql::names::{marked, shown};
use crate::sql::plan::{bind, make_ready, plan_query, result_schema};
use crate::sql::route::{WithPart, WithStatement, WithStep};
use crate::{Error, Result};

/// Runs all steps and the statement itself.
pub(crate) async fn run(
    statement: &Statement<'_>,
    transaction: &mut Transaction,
    with: WithStatement,
) -> Result<Changed> {
    let WithStatement { steps, main } = with;
    let mut reading = Reading { view: Some(transaction.view()), named: HashMap::new() };
    // The rows of steps are there until the statement ends.
    let mut reserved: Vec<MemoryReservation> = Vec::new();
    for WithStep { name, columns, part } in steps {
        let returned = match part {
            WithPart::Write(write) => Box::pin(change(statement, transaction, &reading, *write)).await?.returned,
            WithPart::Query(mut query) => {
                let locked = read_first_of_query(statement, transaction, &mut query).await?;
                let context = reading.context(statement, transaction).with_named(locked);
                let (returned, memory) = read(statement, &context, *query).await?;
                reserved.push(memory);
                Some(returned)
            }
        };
        if let Some(Returned { schema, batches }) = returned {
            let table = result_table(&name, &columns, &schema, batches)?;
            reading.named.insert(name, table);
        }
    }
    match main {
        WithPart::Write(write) => Box::pin(change(statement, transaction, &reading, *write)).await,
        WithPart::Query(query) => {
            let (returned, _) = read(statement, &reading.context(statement, transaction), *query).await?;
            let count = returned.batches.iter().map(|batch| batch.num_rows() as u64).sum();
            Ok(Changed { rows: count, returned: Some(returned) })
        }
    }
}

/// Runs a query to its end.
async fn read(
    statement: &Statement<'_>,
    context: &StatementContext,
    query: Query,
) -> Result<(Returned, MemoryReservation)> {
    let ready = make_ready(context, bind(plan_query(context, query)?, statement.parameters)?).await?;
    collected(statement, ready, "rows of a common table expression").await
}

/// Plans all parts as far as that goes without running them. Returns their plans and the columns of the result.
pub(crate) fn describe_with(context: &StatementContext, with: WithStatement) -> Result<super::Description> {
    let WithStatement { steps, main } = with;
    let (mut context, mut plans) = (context.clone(), Vec::new());
    for WithStep { name, columns, part } in steps {
        let described = describe_part(&context, part)?;
        plans.extend(described.plans);
        if let Some(schema) = described.result {
            let table = result_table(&name, &columns, &schema, Vec::new())?;
            context = context.with_named(HashMap::from([(name, table)]));
        }
    }
    let mut described = describe_part(&context, main)?;
    plans.append(&mut described.plans);
    Ok(super::Description { plans, ..described })
}

fn describe_part(context: &StatementContext, part: WithPart) -> Result<super::Description> {
    match part {
        WithPart::Write(write) => describe(context, *write),
        WithPart::Query(mut query) => {
            forget_locks(&mut query);
            let plan = plan_query(context, *query)?;
            let result = Some(result_schema(context, &plan));
            Ok(super::Description { plans: vec![plan], result })
        }
    }
}

/// The rows a step returned, as a table for the others.
pub(super) fn result_table(
    name: &str,
    columns: &[String],
    schema: &SchemaRef,
    batches: Vec<RecordBatch>,
) -> Result<Arc<dyn TableProvider>> {
    let schema = shown(schema);
    if columns.len() > schema.fields().len() {
        return Err(Error::new(
            sqlstate::INVALID_COLUMN_REFERENCE,
            format!(
                "WITH query \"{name}\" has {} columns available but {} columns specified",
                schema.fields().len(),
                columns.len()
            ),
        ));
    }
    let names: Vec<&String> =
        schema.fields().iter().enumerate().map(|(index, field)| columns.get(index).unwrap_or(field.name())).collect();
    let fields = schema.fields().iter().enumerate().map(|(index, field)| {
        // Of columns with the same name none goes by it.
        let name = match names.iter().filter(|name| *name == &names[index]).count() {
            1 => names[index].clone(),
            _ => marked(names[index], index),
        };
        field.as_ref().clone().with_name(name).with_nullable(true)
    });
    let schema = Arc::new(Schema::new(fields.collect::<Vec<Field>>()));
    let batches = batches
        .into_iter()
        .map(|batch| {
            let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
            RecordBatch::try_new_with_options(Arc::clone(&schema), batch.columns().to_vec(), &options)
        })
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Arc::new(MemTable::try_new(schema, vec![batches])?))
}
