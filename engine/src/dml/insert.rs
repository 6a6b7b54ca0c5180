//! INSERT, and the way all new rows take into a table: in memory while they are few, through segment files when they are
//! many.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use datafusion::logical_expr::{DmlStatement, LogicalPlan};
use datafusion::sql::sqlparser::ast::helpers::attached_token::AttachedToken;
use datafusion::sql::sqlparser::ast::{
    Expr, Ident, Insert, ObjectName, ObjectNamePart, Parens, Query, SetExpr, Spanned, Statement as SqlStatement,
    TableObject, Value, ValueWithSpan, Values,
};
use datafusion::sql::sqlparser::tokenizer::Span;
use futures::{Stream, StreamExt};
use rustydb_storage::{TableDef, Transaction};

use super::defaults::{column_index, plan_defaults, syntax_of};
use super::foreign_key;
use super::rows::RowCheck;
use crate::error::sqlstate;
use crate::session::Statement;
use crate::sql::check::check_queries;
use crate::sql::context::StatementContext;
use crate::sql::parse::{fold, place, table_name};
use crate::sql::plan::{bind, make_ready, planner};
use crate::sql::route::InsertStatement;
use crate::{Error, Result};

/// Loads beyond this many rows bypass the memtable: writing a segment costs some milliseconds whatever its size, which
/// pays off from about here (a scan unit).
const BULK_ROWS: usize = 65_536;
/// Wide rows count by their size.
const BULK_BYTES: usize = 64 * 1024 * 1024;

/// A planned INSERT: `plan` makes rows with all columns of the table, in order.
pub(crate) struct InsertPlan {
    pub(crate) table: Arc<TableDef>,
    pub(crate) plan: LogicalPlan,
    /// With the defaults the plan refers to.
    pub(crate) context: StatementContext,
}

pub(crate) async fn insert(
    statement: &Statement<'_>,
    transaction: &mut Transaction,
    insert: InsertStatement,
) -> Result<u64> {
    let (table, rows) = {
        let InsertPlan { table, plan, context } = plan(&statement.context(transaction.view()), insert)?;
        let ready = make_ready(&context, bind(plan, statement.parameters)?).await?;
        (table, statement.start(ready))
    };
    let check = RowCheck::new(&table);
    let rows = rows.map(move |batch| batch.and_then(|batch| check.conform(batch.columns(), batch.num_rows())));
    load(statement, transaction, &table, rows).await
}

/// Puts rows of the table's exact shape into it, and checks its foreign keys.
pub(crate) async fn load(
    statement: &Statement<'_>,
    transaction: &mut Transaction,
    table: &Arc<TableDef>,
    mut rows: impl Stream<Item = Result<RecordBatch>> + Unpin + Send,
) -> Result<u64> {
    let (mut pending, mut pending_rows, mut pending_bytes) = (Vec::new(), 0, 0);
    while let Some(batch) = rows.next().await {
        let batch = batch?;
        pending_rows += batch.num_rows();
        pending_bytes += batch.get_array_memory_size();
        pending.push(batch);
        if pending_rows > BULK_ROWS || pending_bytes > BULK_BYTES {
            return load_in_bulk(statement, transaction, table, pending, rows).await;
        }
    }
    drop(rows);
    let rows = concat_batches(&table.schema, &pending)?;
    if rows.num_rows() == 0 {
        return Ok(0);
    }
    let inserted = transaction.insert(table.id, &rows).await?;
    foreign_key::check_new_rows(transaction, table, &rows, |_| true).await?;
    Ok(inserted)
}

async fn load_in_bulk(
    statement: &Statement<'_>,
    transaction: &mut Transaction,
    table: &Arc<TableDef>,
    first: Vec<RecordBatch>,
    mut rest: impl Stream<Item = Result<RecordBatch>> + Unpin + Send,
) -> Result<u64> {
    let mut writer = transaction.bulk_insert(table.id)?;
    for batch in first {
        writer.write(batch).await?;
    }
    while let Some(batch) = rest.next().await {
        writer.write(batch?).await?;
    }
    drop(rest);
    let inserted = writer.finish(transaction).await?;
    foreign_key::check_whole_table(statement, transaction, table).await?;
    Ok(inserted)
}

/// Plans an INSERT with DataFusion, after checking its columns and putting defaults in the places of DEFAULT.
pub(crate) fn plan(context: &StatementContext, insert: InsertStatement) -> Result<InsertPlan> {
    let InsertStatement { table: name, columns, source } = insert;
    let (schema, plain_name) = table_name(&name)?;
    let table = context.table(schema.as_deref(), &plain_name).map_err(|error| error.at(place(name.span())))?;
    let table = Arc::clone(table);
    let targets = target_columns(&table, &columns)?;
    let mut source = match source {
        Some(source) => source,
        None => Box::new(default_values(&table)),
    };
    fill_in_defaults(&mut source, &table, &targets)?;
    check_queries(&mut source)?;
    let context = context.clone().with_defaults(table.id, plan_defaults(context, &table)?);
    let plan = planner(&context).sql_statement_to_plan(SqlStatement::Insert(plain_insert(name, columns, source)))?;
    match plan {
        LogicalPlan::Dml(DmlStatement { input, .. }) => {
            Ok(InsertPlan { table, plan: Arc::unwrap_or_clone(input), context })
        }
        _ => Err(Error::internal("an INSERT was planned as something else")),
    }
}

/// The table's columns that the INSERT names, or all.
pub(crate) fn target_columns(table: &TableDef, columns: &[ObjectName]) -> Result<Vec<usize>> {
    if columns.is_empty() {
        return Ok((0..table.schema.fields().len()).collect());
    }
    let mut targets = Vec::with_capacity(columns.len());
    for name in columns {
        let at = place(name.span());
        let [ObjectNamePart::Identifier(ident)] = name.0.as_slice() else {
            return Err(Error::syntax(format!("\"{name}\" is not a column's name")).at(at));
        };
        let column = column_index(table, &fold(ident)).map_err(|error| error.at(at))?;
        if targets.contains(&column) {
            let message = format!("column \"{}\" specified more than once", fold(ident));
            return Err(Error::new(sqlstate::DUPLICATE_COLUMN, message).at(at));
        }
        targets.push(column);
    }
    Ok(targets)
}

/// Replaces DEFAULT in VALUES lists, and checks that rows are as long as the list of columns.
fn fill_in_defaults(source: &mut Query, table: &TableDef, targets: &[usize]) -> Result<()> {
    let SetExpr::Values(Values { explicit_row: _, value_keyword: _, rows }) = source.body.as_mut() else {
        return Ok(());
    };
    for row in rows {
        if row.content.len() != targets.len() {
            let more = row.content.len() > targets.len();
            let message = match more {
                true => "INSERT has more values than columns",
                false => "INSERT has more columns than values",
            };
            return Err(Error::syntax(message).at(row.content.first().and_then(|value| place(value.span()))));
        }
        for (value, column) in row.content.iter_mut().zip(targets) {
            if is_default(value) {
                *value = syntax_of(table, *column)?.unwrap_or_else(null);
            }
        }
    }
    Ok(())
}

/// Whether a value is the word DEFAULT.
pub(crate) fn is_default(value: &Expr) -> bool {
    matches!(value, Expr::Identifier(Ident { value, quote_style: None, .. }) if value.eq_ignore_ascii_case("default"))
}

pub(crate) fn null() -> Expr {
    Expr::Value(ValueWithSpan { value: Value::Null, span: Span::empty() })
}

/// `VALUES (DEFAULT, …)`
fn default_values(table: &TableDef) -> Query {
    let default = || Expr::Identifier(Ident::new("default"));
    let row = Parens {
        opening_token: AttachedToken::empty(),
        content: table.schema.fields().iter().map(|_| default()).collect(),
        closing_token: AttachedToken::empty(),
    };
    let body = SetExpr::Values(Values { explicit_row: false, value_keyword: false, rows: vec![row] });
    Query {
        with: None,
        body: Box::new(body),
        order_by: None,
        limit_clause: None,
        fetch: None,
        locks: Vec::new(),
        for_clause: None,
        settings: None,
        format_clause: None,
        pipe_operators: Vec::new(),
    }
}

fn plain_insert(table: ObjectName, columns: Vec<ObjectName>, source: Box<Query>) -> Insert {
    Insert {
        insert_token: AttachedToken::empty(),
        optimizer_hints: Vec::new(),
        or: None,
        ignore: false,
        into: true,
        table: TableObject::TableName(table),
        table_alias: None,
        columns,
        overwrite: false,
        source: Some(source),
        assignments: Vec::new(),
        partitioned: None,
        after_columns: Vec::new(),
        has_table_keyword: false,
        on: None,
        returning: None,
        output: None,
        replace_into: false,
        priority: None,
        insert_alias: None,
        settings: None,
        format_clause: None,
        multi_table_insert_type: None,
        multi_table_into_clauses: Vec::new(),
        multi_table_when_clauses: Vec::new(),
        multi_table_else_clause: None,
    }
}
