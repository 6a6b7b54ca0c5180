//! UPDATE and DELETE: a query for the keys of the rows, and for an UPDATE the rows as they shall be.
//!
//! ```text
//! UPDATE t SET a = a + 1 WHERE b IN (SELECT …)
//!    ⇒  SELECT t.key, CAST(t.a + 1 AS …), t.b, … FROM "rustydb.target".t AS t WHERE t.b IN (SELECT …)
//! ```
//!
//! The rewrite is on the syntax tree, so that places in error messages stay those of the user's text. The target is read
//! under a schema of its own, where it shows its hidden row id too.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::sqlparser::ast::helpers::attached_token::AttachedToken;
use datafusion::sql::sqlparser::ast::{
    Assignment, AssignmentTarget, CastKind, Expr, GroupByExpr, Ident, ObjectName, ObjectNamePart, Query, Select,
    SelectFlavor, SelectItem, SetExpr, Spanned, TableAlias, TableFactor, TableWithJoins,
};
use datafusion::sql::sqlparser::parser::Parser;
use futures::StreamExt;
use rustydb_storage::{TableDef, Transaction};

use super::defaults::{column_index, syntax_of};
use super::foreign_key;
use super::insert::{is_default, null};
use super::rows::RowCheck;
use crate::error::sqlstate;
use crate::session::Statement;
use crate::sql::context::{StatementContext, TARGET_SCHEMA};
use crate::sql::parse::{RustyDialect, fold, place, table_name};
use crate::sql::plan::{bind, make_ready, plan_query};
use crate::sql::route::{DeleteStatement, UpdateStatement};
use crate::sql::types::name_of;
use crate::{Error, Result};

/// The query of a statement that changes rows: the key columns first, for an UPDATE then all columns of the table.
pub(crate) struct ModifyPlan {
    pub(crate) table: Arc<TableDef>,
    pub(crate) plan: LogicalPlan,
    /// In which the plan's target is visible.
    pub(crate) context: StatementContext,
    /// The columns an UPDATE assigns.
    assigned: Vec<usize>,
}

impl ModifyPlan {
    pub(crate) fn into_query(self) -> (StatementContext, LogicalPlan) {
        (self.context, self.plan)
    }
}

pub(crate) async fn update(
    statement: &Statement<'_>,
    transaction: &mut Transaction,
    update: UpdateStatement,
) -> Result<u64> {
    let ModifyPlan { table, plan, context, assigned } = plan_update(&statement.context(transaction.view()), update)?;
    let found = run(statement, context, plan).await?;
    if found.num_rows() == 0 {
        return Ok(0);
    }
    let keys = key_batch(&table, &found)?;
    let rows = RowCheck::new(&table).conform(&found.columns()[keys.num_columns()..], found.num_rows())?;
    drop(found);
    let changed = transaction.update(table.id, &keys, &rows).await?;
    let assigns = |column: &usize| assigned.contains(column);
    foreign_key::check_new_rows(transaction, &table, &rows, |foreign_key| foreign_key.columns.iter().any(assigns))
        .await?;
    if table.primary_key.iter().any(assigns) {
        foreign_key::check_removed_keys(statement, transaction, &table, &keys).await?;
    }
    Ok(changed)
}

pub(crate) async fn delete(
    statement: &Statement<'_>,
    transaction: &mut Transaction,
    delete: DeleteStatement,
) -> Result<u64> {
    let ModifyPlan { table, plan, context, assigned: _ } = plan_delete(&statement.context(transaction.view()), delete)?;
    let found = run(statement, context, plan).await?;
    if found.num_rows() == 0 {
        return Ok(0);
    }
    let keys = key_batch(&table, &found)?;
    let deleted = transaction.delete(table.id, &keys).await?;
    foreign_key::check_removed_keys(statement, transaction, &table, &keys).await?;
    Ok(deleted)
}

/// Runs the query and keeps its whole result, accounted in the memory pool: the change is made as one set, after the
/// query has seen everything.
async fn run(statement: &Statement<'_>, context: StatementContext, plan: LogicalPlan) -> Result<RecordBatch> {
    let ready = make_ready(&context, bind(plan, statement.parameters)?).await?;
    let reservation = MemoryConsumer::new("rows to change").register(ready.context.memory_pool());
    drop(context);
    let mut rows = statement.start(ready);
    let schema = rows.schema();
    let mut batches = Vec::new();
    while let Some(batch) = rows.next().await {
        let batch = batch?;
        reservation.try_grow(batch.get_array_memory_size())?;
        batches.push(batch);
    }
    Ok(concat_batches(&schema, &batches)?)
}

/// The leading columns of a result as the table's key.
fn key_batch(table: &TableDef, found: &RecordBatch) -> Result<RecordBatch> {
    let fields = table.key_columns().iter().map(|column| table.storage_schema().field(*column).clone());
    let schema: SchemaRef = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let columns = found.columns()[..schema.fields().len()].to_vec();
    Ok(RecordBatch::try_new(schema, columns)?)
}

pub(crate) fn plan_update(context: &StatementContext, update: UpdateStatement) -> Result<ModifyPlan> {
    let UpdateStatement { table: name, alias, assignments, selection } = update;
    let table = find_target(context, &name)?;
    let alias = alias.unwrap_or_else(|| quoted(&table.name));
    let mut values: Vec<Option<Expr>> = vec![None; table.schema.fields().len()];
    for assignment in assignments {
        for (column, value) in single_assignments(&table, assignment)? {
            if values[column].replace(value).is_some() {
                let message = format!("column \"{}\" is assigned more than once", table.schema.field(column).name());
                return Err(Error::syntax(message));
            }
        }
    }
    let assigned = values.iter().enumerate().filter(|(_, value)| value.is_some()).map(|(column, _)| column).collect();
    let mut projection = key_items(&table, &alias);
    for (column, value) in values.into_iter().enumerate() {
        let field = table.schema.field(column);
        let value = match value {
            None => Expr::CompoundIdentifier(vec![alias.clone(), quoted(field.name())]),
            Some(value) if is_default(&value) => syntax_of(&table, column)?.unwrap_or_else(null),
            Some(value) => value,
        };
        projection.push(SelectItem::ExprWithAlias {
            expr: cast(value, &name_of(field.data_type()))?,
            alias: quoted(&format!("new {column}")),
        });
    }
    plan_target_query(context, table, alias, projection, selection, assigned)
}

pub(crate) fn plan_delete(context: &StatementContext, delete: DeleteStatement) -> Result<ModifyPlan> {
    let DeleteStatement { table: name, alias, selection } = delete;
    let table = find_target(context, &name)?;
    let alias = alias.unwrap_or_else(|| quoted(&table.name));
    let projection = key_items(&table, &alias);
    plan_target_query(context, table, alias, projection, selection, Vec::new())
}

fn find_target(context: &StatementContext, name: &ObjectName) -> Result<Arc<TableDef>> {
    let (schema, plain_name) = table_name(name)?;
    context.table(schema.as_deref(), &plain_name).cloned().map_err(|error| error.at(place(name.span())))
}

/// `SET a = x` and `SET (a, b) = (x, y)` as columns and values.
fn single_assignments(table: &TableDef, assignment: Assignment) -> Result<Vec<(usize, Expr)>> {
    let Assignment { target, value } = assignment;
    let column = |name: &ObjectName| {
        let at = place(name.span());
        match name.0.as_slice() {
            [ObjectNamePart::Identifier(ident)] => column_index(table, &fold(ident)).map_err(|error| error.at(at)),
            _ => Err(Error::syntax(format!("\"{name}\" cannot be assigned to: write the column's name alone")).at(at)),
        }
    };
    match target {
        AssignmentTarget::ColumnName(name) => Ok(vec![(column(&name)?, value)]),
        AssignmentTarget::Tuple(names) => match value {
            Expr::Tuple(values) if values.len() == names.len() => {
                names.iter().zip(values).map(|(name, value)| Ok((column(name)?, value))).collect()
            }
            Expr::Subquery(_) => Err(Error::unsupported("assignment of a subquery to several columns")),
            other => {
                let error = Error::syntax("the lists of columns and values differ in length");
                Err(error.at(place(other.span())))
            }
        },
    }
}

fn quoted(name: &str) -> Ident {
    Ident::with_quote('"', name)
}

fn key_items(table: &TableDef, alias: &Ident) -> Vec<SelectItem> {
    let item = |(place, column): (usize, &usize)| SelectItem::ExprWithAlias {
        expr: Expr::CompoundIdentifier(vec![alias.clone(), quoted(table.storage_schema().field(*column).name())]),
        alias: quoted(&format!("key {place}")),
    };
    table.key_columns().iter().enumerate().map(item).collect()
}

/// `CAST(value AS type)`, by the type's name.
fn cast(value: Expr, type_name: &str) -> Result<Expr> {
    let data_type = Parser::new(&RustyDialect).try_with_sql(type_name)?.parse_data_type()?;
    Ok(Expr::Cast { kind: CastKind::Cast, expr: Box::new(value), data_type, array: false, format: None })
}

fn plan_target_query(
    context: &StatementContext,
    table: Arc<TableDef>,
    alias: Ident,
    projection: Vec<SelectItem>,
    selection: Option<Expr>,
    assigned: Vec<usize>,
) -> Result<ModifyPlan> {
    let target = TableFactor::Table {
        name: ObjectName::from(vec![quoted(TARGET_SCHEMA), quoted(&table.name)]),
        alias: Some(TableAlias { explicit: true, name: alias, columns: Vec::new(), at: None }),
        args: None,
        with_hints: Vec::new(),
        version: None,
        with_ordinality: false,
        partitions: Vec::new(),
        json_path: None,
        sample: None,
        index_hints: Vec::new(),
    };
    let select = Select {
        select_token: AttachedToken::empty(),
        optimizer_hints: Vec::new(),
        distinct: None,
        select_modifiers: None,
        top: None,
        top_before_distinct: false,
        projection,
        exclude: None,
        into: None,
        from: vec![TableWithJoins { relation: target, joins: Vec::new() }],
        lateral_views: Vec::new(),
        prewhere: None,
        selection,
        connect_by: Vec::new(),
        group_by: GroupByExpr::Expressions(Vec::new(), Vec::new()),
        cluster_by: Vec::new(),
        distribute_by: Vec::new(),
        sort_by: Vec::new(),
        having: None,
        named_window: Vec::new(),
        qualify: None,
        window_before_qualify: false,
        value_table_mode: None,
        flavor: SelectFlavor::Standard,
    };
    let query = Query {
        with: None,
        body: Box::new(SetExpr::Select(Box::new(select))),
        order_by: None,
        limit_clause: None,
        fetch: None,
        locks: Vec::new(),
        for_clause: None,
        settings: None,
        format_clause: None,
        pipe_operators: Vec::new(),
    };
    let context = context.clone().with_target(&table);
    let plan = plan_query(&context, query).map_err(|error| match error.sqlstate() {
        // The planner speaks of the query we made of the statement.
        sqlstate::GROUPING => Error::new(sqlstate::GROUPING, "aggregate functions are not allowed here"),
        _ => error,
    })?;
    Ok(ModifyPlan { table, plan, context, assigned })
}
