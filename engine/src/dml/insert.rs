//! INSERT, and the way all new rows take into a table: in memory while they are few, through segment files when they are
//! many.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::Field;
use datafusion::catalog::Session;
use datafusion::common::{Column, DFSchema, ScalarValue};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use datafusion::logical_expr::{
    DmlStatement, Expr as LogicalExpr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, lit,
};
use datafusion::sql::sqlparser::ast::helpers::attached_token::AttachedToken;
use datafusion::sql::sqlparser::ast::{
    Expr, Ident, Insert, ObjectName, ObjectNamePart, Parens, Query, SelectItem, SetExpr, Spanned,
    Statement as SqlStatement, TableObject, Values, Visit, Visitor,
};
use futures::{Stream, StreamExt};
use parking_lot::Mutex;
use rustydb_storage::{LockMode, TableDef, Transaction};

use super::apply::insert_rows;
use super::conflict::{self, OnConflict};
use super::defaults::{column_index, not_default, plan_defaults, syntax_of, takes_only_default};
use super::modify::kept_for;
use super::returning::{self, Changed};
use super::rows::RowCheck;
use super::scope::RowScope;
use super::syntax::{cast, null, prepend, query_of, quoted, read_fixed_bytes};
use super::{Reading, foreign_key};
use crate::common_rows::{names_of_ctes, share_rows};
use crate::constraints::{is_generated, is_identity, shown_columns};
use crate::error::sqlstate;
use crate::session::Statement;
use crate::sql::check::{check_inserted, refuse};
use crate::sql::context::StatementContext;
use crate::sql::grammar::insert::Overriding;
use crate::sql::plan::{bind, make_ready, plan_query, planner};
use crate::sql::route::InsertStatement;
use crate::sql::text::parse::{fold, place, table_name};
use crate::sql::tree::natural_joins::resolve_columns;
use crate::sql::tree::time_digits::read_nanoseconds;
use crate::sql::types::{arriving_type, declared_name};
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
    reading: &Reading,
    mut insert: InsertStatement,
) -> Result<Changed> {
    let (alias, returning, on_conflict) = (insert.alias.take(), insert.returning.take(), insert.on_conflict.take());
    let view_checks = std::mem::take(&mut insert.view_checks);
    let context = reading.context(statement, transaction);
    let before = kept_for(&returning, &context);
    let (table, conflict, rows) = {
        let InsertPlan { table, plan, context } = plan(&context, insert)?;
        let conflict =
            on_conflict.map(|clause| OnConflict::new(&context, &table, alias.as_ref(), clause)).transpose()?;
        let ready = make_ready(&context, bind(plan, statement.parameters)?).await?;
        (table, conflict, statement.start(ready))
    };
    let check = RowCheck::new(&context, &table)?.with_view_checks(&context, &view_checks)?;
    let rows = rows.map(move |batch| batch.and_then(|batch| check.conform(batch.columns(), batch.num_rows())));
    let (changed, rows) = match (conflict, &returning) {
        (None, None) => {
            drop(context);
            return Ok(Changed::rows(load(statement, transaction, &table, rows).await?));
        }
        (None, Some(_)) => {
            let pool = context.task_ctx();
            drop(context);
            let mut copies = Copies::new(pool.memory_pool());
            let kept = copies.keep(rows);
            let changed = load(statement, transaction, &table, kept).await?;
            (changed, copies.into_batches())
        }
        (Some(conflict), _) => {
            let pool = context.task_ctx();
            let mut copies = Copies::new(pool.memory_pool());
            let mut kept = copies.keep(rows);
            while let Some(batch) = kept.next().await {
                batch?;
            }
            drop(kept);
            let rows = concat_batches(&table.schema, &copies.into_batches())?;
            let subject = conflict::Subject { statement, transaction, context, table: &table, view_checks };
            let (changed, rows) = conflict.insert(subject, rows).await?;
            (changed, vec![rows])
        }
    };
    let Some(items) = returning else { return Ok(Changed::rows(changed)) };
    let relation = alias.as_ref().map_or_else(|| table.name.clone(), fold);
    let scope = RowScope::default().with(&relation, table.schema.fields());
    let context = before.unwrap_or_else(|| reading.context(statement, transaction));
    let columns = rows.iter().map(|batch| batch.columns().to_vec()).collect();
    let returned = returning::run(statement, &context, &scope, &items, columns).await?;
    Ok(Changed { rows: changed, returned: Some(returned) })
}

/// Keeps what passes by, accounted in the memory pool.
struct Copies {
    reservation: MemoryReservation,
    batches: Arc<Mutex<Vec<RecordBatch>>>,
}

impl Copies {
    fn new(pool: &Arc<dyn MemoryPool>) -> Self {
        Copies { reservation: MemoryConsumer::new("rows to return").register(pool), batches: Arc::default() }
    }

    fn keep(
        &mut self,
        rows: impl Stream<Item = Result<RecordBatch>> + Unpin + Send,
    ) -> impl Stream<Item = Result<RecordBatch>> + Unpin + Send {
        let (batches, reservation) = (Arc::clone(&self.batches), &self.reservation);
        rows.map(move |batch| {
            let batch = batch?;
            reservation.try_grow(batch.get_array_memory_size())?;
            batches.lock().push(batch.clone());
            Ok(batch)
        })
    }

    fn into_batches(self) -> Vec<RecordBatch> {
        std::mem::take(&mut *self.batches.lock())
    }
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
        // What its rows take, and not the buffers behind them: the columns of a message share one.
        pending_bytes += slice_bytes(&batch);
        pending.push(batch);
        if pending_rows > BULK_ROWS || pending_bytes > BULK_BYTES {
            return load_in_bulk(statement, transaction, table, pending, rows).await;
        }
    }
    drop(rows);
    let rows = concat_batches(&table.schema, &pending)?;
    insert_rows(statement, transaction, table, &rows).await
}

fn slice_bytes(batch: &RecordBatch) -> usize {
    let bytes = |column: &ArrayRef| column.to_data().get_slice_memory_size().unwrap_or(0);
    batch.columns().iter().map(bytes).sum()
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
    // Not before the rows are there: a client that stops sending them keeps nobody waiting.
    transaction.lock_table(table.id, LockMode::Load, None).await?;
    transaction.require_same_table(table, LockMode::Load)?;
    let inserted = writer.finish(transaction).await?;
    foreign_key::check_whole_table(statement, transaction, table).await?;
    Ok(inserted)
}

/// Plans an INSERT with DataFusion, after checking its columns and putting defaults in the places of DEFAULT.
pub(crate) fn plan(context: &StatementContext, insert: InsertStatement) -> Result<InsertPlan> {
    let InsertStatement { with, table: name, alias: _, columns, overriding, source, .. } = insert;
    let (schema, plain_name) = table_name(&name)?;
    let table = context.table(schema.as_deref(), &plain_name).map_err(|error| error.at(place(name.span())))?;
    let table = Arc::clone(table);
    let mut targets = target_columns(&table, &columns)?;
    let mut source = match source {
        Some(source) => source,
        None => Box::new(default_values(&table)),
    };
    let mut columns = columns;
    if columns.is_empty()
        && let Some(width) = width_of(&source)
        && width < targets.len()
    {
        // Without a list of columns the values are for the first ones.
        targets.truncate(width);
        let name = |column: &usize| ObjectName::from(vec![quoted(table.schema.field(*column).name())]);
        columns = targets.iter().map(name).collect();
    }
    let is_query = !matches!(source.body.as_ref(), SetExpr::Values(_));
    if let Some(width) = width_of(&source).filter(|width| is_query && *width != targets.len()) {
        return Err(unequal(width > targets.len()).at(place(source.span())));
    }
    fill_in_defaults(&mut source, &table, &targets, overriding)?;
    read_constants(&mut source, &table, &targets)?;
    let columns = match computed_targets(&source, &table, &targets, overriding)? {
        true => {
            let name = |column: &usize| ObjectName::from(vec![quoted(table.schema.field(*column).name())]);
            targets.iter().map(name).collect()
        }
        false => columns,
    };
    prepend(with, &mut source);
    let defaults = plan_defaults(context, &table)?;
    let context = context.clone().with_defaults(table.id, defaults.clone());
    // DataFusion takes every VALUES in an INSERT for rows of the table, wherever it is: a list of another width in FROM is an
    // error then, and one of the same width has its values cast to the types of columns that they never come to.
    if is_query || has_values_inside(&source) {
        let plan = fitted(plan_query(&context, *source)?, &table, &targets, &defaults)?;
        return Ok(InsertPlan { table, plan, context });
    }
    resolve_columns(&context, &mut source);
    check_inserted(&mut source)?;
    let ctes = names_of_ctes(&source);
    let insert = SqlStatement::Insert(plain_insert(name, columns, source));
    match planner(&context).sql_statement_to_plan(insert)? {
        LogicalPlan::Dml(DmlStatement { input, .. }) => {
            let plan = share_rows(Arc::unwrap_or_clone(input), &ctes)?;
            Ok(InsertPlan { table, plan, context })
        }
        _ => Err(Error::internal("an INSERT was planned as something else")),
    }
}

/// Whether there is a VALUES in the expressions of the VALUES that a source is.
fn has_values_inside(source: &Query) -> bool {
    struct Find;
    impl Visitor for Find {
        type Break = ();

        fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
            fn has_values(body: &SetExpr) -> bool {
                match body {
                    SetExpr::Values(_) => true,
                    SetExpr::SetOperation { left, right, .. } => has_values(left) || has_values(right),
                    // Those in parentheses, in FROM and in WITH are visited by themselves.
                    _ => false,
                }
            }
            if has_values(&query.body) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }
    }
    match source.body.as_ref() {
        SetExpr::Values(values) => values.visit(&mut Find).is_break() || source.with.visit(&mut Find).is_break(),
        _ => false,
    }
}

/// The rows of a query as rows of a table: its columns cast to those that they are for, and the others' defaults.
fn fitted(
    source: LogicalPlan,
    table: &TableDef,
    targets: &[usize],
    defaults: &HashMap<String, LogicalExpr>,
) -> Result<LogicalPlan> {
    if source.schema().fields().len() != targets.len() {
        return Err(Error::syntax("INSERT has another number of columns than its query"));
    }
    let value = |column: usize, field: &Field| {
        let value = match targets.iter().position(|target| *target == column) {
            Some(place) => LogicalExpr::Column(Column::from(source.schema().qualified_field(place)))
                .cast_to(&arriving_type(field), source.schema())?,
            None => {
                let default = defaults.get(field.name()).cloned();
                default.unwrap_or(lit(ScalarValue::Null)).cast_to(&arriving_type(field), &DFSchema::empty())?
            }
        };
        Ok(value.alias(field.name()))
    };
    let fields = table.schema.fields().iter().take(shown_columns(table)).enumerate();
    let values = fields.map(|(column, field)| value(column, field)).collect::<Result<Vec<_>>>()?;
    Ok(LogicalPlanBuilder::from(source).project(values)?.build()?)
}

/// The table's columns that the INSERT names, or all.
pub(crate) fn target_columns(table: &TableDef, columns: &[ObjectName]) -> Result<Vec<usize>> {
    if columns.is_empty() {
        return Ok((0..shown_columns(table)).collect());
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
fn fill_in_defaults(
    source: &mut Query,
    table: &TableDef,
    targets: &[usize],
    overriding: Option<Overriding>,
) -> Result<()> {
    let SetExpr::Values(Values { explicit_row: _, value_keyword: _, rows }) = source.body.as_mut() else {
        return Ok(());
    };
    for row in rows {
        if row.content.len() != targets.len() {
            let more = row.content.len() > targets.len();
            return Err(unequal(more).at(row.content.first().and_then(|value| place(value.span()))));
        }
        for (value, column) in row.content.iter_mut().zip(targets) {
            let replaced = overriding == Some(Overriding::User) && is_identity(table.schema.field(*column));
            if is_default(value) || replaced {
                *value = syntax_of(table, *column)?.unwrap_or_else(null);
            } else if takes_no_value(table, *column, overriding) {
                return Err(not_default(table, *column).at(place(value.span())));
            }
            let field = table.schema.field(*column);
            read_fixed_bytes(value, field.data_type())?;
            read_nanoseconds(value, field.data_type());
            if arriving_type(field) != *field.data_type() {
                // The planner would cast it to the column's unit, from which it would be rounded once more.
                *value = cast(std::mem::replace(value, null()), &declared_name(field))?;
            }
        }
    }
    Ok(())
}

/// The constants of a select list as what their columns make of them.
fn read_constants(source: &mut Query, table: &TableDef, targets: &[usize]) -> Result<()> {
    if width_of(source) != Some(targets.len()) {
        return Ok(());
    }
    let SetExpr::Select(select) = source.body.as_mut() else { return Ok(()) };
    for (item, column) in select.projection.iter_mut().zip(targets) {
        if let SelectItem::UnnamedExpr(value) | SelectItem::ExprWithAlias { expr: value, .. } = item {
            let data_type = table.schema.field(*column).data_type();
            read_fixed_bytes(value, data_type)?;
            read_nanoseconds(value, data_type);
        }
    }
    Ok(())
}

/// The error of rows that are wider or narrower than the list of columns.
fn unequal(more_values: bool) -> Error {
    Error::syntax(match more_values {
        true => "INSERT has more values than columns",
        false => "INSERT has more columns than values",
    })
}

/// Whether a value is the word DEFAULT.
pub(crate) fn is_default(value: &Expr) -> bool {
    matches!(value, Expr::Identifier(Ident { value, quote_style: None, .. }) if value.eq_ignore_ascii_case("default"))
}

/// Checks that no value is given to a column that makes its own. Rows of VALUES were looked at already; a query must
/// leave such columns out. Whether the table has any.
fn computed_targets(
    source: &Query,
    table: &TableDef,
    targets: &[usize],
    overriding: Option<Overriding>,
) -> Result<bool> {
    let is_values = matches!(source.body.as_ref(), SetExpr::Values(_));
    if overriding == Some(Overriding::User) && !is_values {
        let identity = targets.iter().any(|column| is_identity(table.schema.field(*column)));
        refuse(identity, "OVERRIDING USER VALUE with a query")?;
    }
    let computed = targets.iter().find(|column| takes_no_value(table, **column, overriding));
    match (computed, source.body.as_ref()) {
        (None, _) => Ok(false),
        (Some(_), SetExpr::Values(_)) => Ok(true),
        (Some(column), _) => Err(not_default(table, *column)),
    }
}

/// Whether only DEFAULT can be written to a column by this INSERT.
pub(super) fn takes_no_value(table: &TableDef, column: usize, overriding: Option<Overriding>) -> bool {
    match overriding {
        None => takes_only_default(table, column),
        Some(_) => is_generated(table.schema.field(column)),
    }
}

/// How many columns a source has, if its text alone tells.
pub(super) fn width_of(source: &Query) -> Option<usize> {
    match source.body.as_ref() {
        SetExpr::Values(values) => values.rows.first().map(|row| row.content.len()),
        SetExpr::Select(select) => {
            let plain =
                |item: &SelectItem| matches!(item, SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { .. });
            select.projection.iter().all(plain).then_some(select.projection.len())
        }
        _ => None,
    }
}

/// `VALUES (DEFAULT, …)`
fn default_values(table: &TableDef) -> Query {
    let default = || Expr::Identifier(Ident::new("default"));
    let row = Parens {
        opening_token: AttachedToken::empty(),
        content: (0..shown_columns(table)).map(|_| default()).collect(),
        closing_token: AttachedToken::empty(),
    };
    query_of(None, SetExpr::Values(Values { explicit_row: false, value_keyword: false, rows: vec![row] }))
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
