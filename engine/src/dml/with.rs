//! Data-modifying common table expressions: `WITH moved AS (DELETE … RETURNING *) INSERT INTO … SELECT * FROM moved`.
//!
//! All parts read the state before the statement and none sees what another changes, except through RETURNING. Each
//! changing part runs once and to its end, in the order written, whether anything reads its rows or not.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::catalog::MemTable;
use datafusion::datasource::TableProvider;
use rustydb_storage::Transaction;

use super::returning::{Changed, Returned};
use super::{Reading, change, describe};
use crate::error::sqlstate;
use crate::session::Statement;
use crate::sql::context::StatementContext;
use crate::sql::names::shown;
use crate::sql::plan::{bind, make_ready, plan_query, result_schema};
use crate::sql::route::{ChangeStep, MainStatement, WithStatement};
use crate::{Error, Result};

/// Runs all steps and the statement itself.
pub(crate) async fn run(
    statement: &Statement<'_>,
    transaction: &mut Transaction,
    with: WithStatement,
) -> Result<Changed> {
    let WithStatement { steps, main } = with;
    let mut reading = Reading { view: Some(transaction.view()), named: HashMap::new() };
    for ChangeStep { name, columns, write } in steps {
        let changed = Box::pin(change(statement, transaction, &reading, write)).await?;
        if let Some(Returned { schema, batches }) = changed.returned {
            let table = result_table(&name, &columns, &schema, batches)?;
            reading.named.insert(name, table);
        }
    }
    match main {
        MainStatement::Write(write) => Box::pin(change(statement, transaction, &reading, *write)).await,
        MainStatement::Query(query) => {
            let context = reading.context(statement, transaction);
            let ready = make_ready(&context, bind(plan_query(&context, *query)?, statement.parameters)?).await?;
            let rows = statement.start(ready);
            let schema = rows.schema();
            let batches = rows.collect().await?;
            let count = batches.iter().map(|batch| batch.num_rows() as u64).sum();
            Ok(Changed { rows: count, returned: Some(Returned { schema, batches }) })
        }
    }
}

/// Plans all parts as far as that goes without running them. Returns their plans and the columns of the result.
pub(crate) fn describe_with(context: &StatementContext, with: WithStatement) -> Result<super::Description> {
    let WithStatement { steps, main } = with;
    let (mut context, mut plans) = (context.clone(), Vec::new());
    for ChangeStep { name, columns, write } in steps {
        let described = describe(&context, write)?;
        plans.extend(described.plans);
        if let Some(schema) = described.result {
            let table = result_table(&name, &columns, &schema, Vec::new())?;
            context = context.with_named(HashMap::from([(name, table)]));
        }
    }
    match main {
        MainStatement::Write(write) => {
            let mut described = describe(&context, *write)?;
            plans.append(&mut described.plans);
            Ok(super::Description { plans, ..described })
        }
        MainStatement::Query(query) => {
            let plan = plan_query(&context, *query)?;
            let result = Some(result_schema(&context, &plan));
            plans.push(plan);
            Ok(super::Description { plans, result })
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
    let mut fields: Vec<Field> = Vec::with_capacity(schema.fields().len());
    for (index, field) in schema.fields().iter().enumerate() {
        let name = columns.get(index).unwrap_or(field.name());
        if fields.iter().any(|known| known.name() == name) {
            return Err(Error::new(sqlstate::AMBIGUOUS_COLUMN, format!("column \"{name}\" is returned twice"))
                .with_hint("Give the columns different names with AS."));
        }
        fields.push(field.as_ref().clone().with_name(name).with_nullable(true));
    }
    let schema = Arc::new(Schema::new(fields));
    let batches = batches
        .into_iter()
        .map(|batch| RecordBatch::try_new(Arc::clone(&schema), batch.columns().to_vec()))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Arc::new(MemTable::try_new(schema, vec![batches])?))
}
