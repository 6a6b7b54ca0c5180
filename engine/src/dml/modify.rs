//! UPDATE and DELETE: a query for the keys of the rows, and for an UPDATE the rows as they shall be.
//!
//! ```text
//! UPDATE t SET a = a + s.x FROM s WHERE s.id = t.b RETURNING t.a, s.x
//!    ⇒  SELECT t.key, CAST(t.a + s.x AS …), t.b, …, * FROM "rustydb.target".t AS t, s WHERE s.id = t.b
//! ```
//!
//! The rewrite is on the syntax tree, so that places in error messages stay those of the user's text. The target is read
//! under a schema of its own, where it shows its hidden row id too. The `*` is there only if RETURNING needs it. A row
//! that is joined with several others is changed once, by the first of them.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Field};
use datafusion::common::TableReference;
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::sqlparser::ast::{
    Assignment, AssignmentTarget, Expr, GroupByExpr, Ident, ObjectName, ObjectNamePart, OrderBy, OrderByExpr,
    OrderByKind, Query, Select, SelectItem, SetExpr, Spanned, TableWithJoins, With,
};
use datafusion::sql::sqlparser::tokenizer::Span;
use futures::StreamExt;
use rustydb_storage::{TableDef, Transaction};

use super::Reading;
use super::apply::{delete_rows, first_of_each, key_batch, update_rows};
use super::defaults::{column_index, not_default, syntax_of, takes_only_default};
use super::insert::is_default;
use super::many_rows::{calls_aggregates, calls_of_many_rows, require_of_one_row};
use super::returning::{self, Changed};
use super::rows::RowCheck;
use super::scope::RowScope;
use super::syntax::{
    alone, call_with, cases, cast, column, derived, everything, named, null, number, quoted, select, table_factor,
};

use crate::error::sqlstate;
use crate::session::Statement;
use crate::sql::context::{StatementContext, TARGET_SCHEMA};
use crate::sql::plan::{bind, make_ready, plan_any_width};
use crate::sql::route::{DeleteStatement, UpdateStatement};
use crate::sql::text::parse::{fold, place, table_name};
use crate::sql::tree::time_digits::read_nanoseconds;
use crate::sql::types::{arriving_type, name_of};
use crate::{Error, Result};

/// The query of a statement that changes rows: the key columns first, for an UPDATE then all columns of the table, and if
/// RETURNING needs them the columns of the target as they were and of everything it is joined with.
pub(crate) struct ModifyPlan {
    pub(crate) table: Arc<TableDef>,
    pub(crate) plan: LogicalPlan,
    /// In which the plan's target is visible.
    pub(crate) context: StatementContext,
    /// What RETURNING sees.
    pub(crate) scope: RowScope,
    /// The columns an UPDATE assigns.
    pub(crate) assigned: Vec<usize>,
    /// Whether a row may be found more than once.
    pub(crate) joined: bool,
}

pub(crate) async fn update(
    statement: &Statement<'_>,
    transaction: &mut Transaction,
    reading: &Reading,
    mut update: UpdateStatement,
) -> Result<Changed> {
    let (returning, view_checks) = (update.returning.clone(), std::mem::take(&mut update.view_checks));
    let context = reading.context(statement, transaction);
    let before = kept_for(&returning, &context);
    let ModifyPlan { table, plan, context, scope, assigned, joined } = plan_update(&context, update)?;
    let check = RowCheck::new(&context, &table)?.with_view_checks(&context, &view_checks)?;
    let found = run(statement, context, plan).await?;
    let found = if joined { once_each(&table, found)? } else { found };
    let keys = key_batch(&table, found.columns())?;
    let (first_new, first_other) = (keys.num_columns(), keys.num_columns() + table.schema.fields().len());
    let rows = check.conform(&found.columns()[first_new..first_other], found.num_rows())?;
    let others = others(&table, &found, first_other);
    drop(found);
    let changed = update_rows(statement, transaction, &table, &keys, &rows, &assigned).await?;
    let Some(items) = returning else { return Ok(Changed::rows(changed)) };
    let columns = rows.columns().iter().cloned().chain(others).collect();
    let context = before.unwrap_or_else(|| reading.context(statement, transaction));
    let returned = returning::run(statement, &context, &scope, &items, vec![columns]).await?;
    Ok(Changed { rows: changed, returned: Some(returned) })
}

pub(crate) async fn delete(
    statement: &Statement<'_>,
    transaction: &mut Transaction,
    reading: &Reading,
    delete: DeleteStatement,
) -> Result<Changed> {
    let returning = delete.returning.clone();
    let context = reading.context(statement, transaction);
    let before = kept_for(&returning, &context);
    let ModifyPlan { table, plan, context, scope, assigned: _, joined } = plan_delete(&context, delete)?;
    let found = run(statement, context, plan).await?;
    let found = if joined { once_each(&table, found)? } else { found };
    let keys = key_batch(&table, found.columns())?;
    let first_old = keys.num_columns();
    let deleted = delete_rows(statement, transaction, &table, &keys).await?;
    let Some(items) = returning else { return Ok(Changed::rows(deleted)) };
    let old = found.columns()[first_old..first_old + table.schema.fields().len()].iter().cloned();
    let columns = old.chain(others(&table, &found, first_old)).collect();
    let context = before.unwrap_or_else(|| reading.context(statement, transaction));
    let returned = returning::run(statement, &context, &scope, &items, vec![columns]).await?;
    Ok(Changed { rows: deleted, returned: Some(returned) })
}

/// The state before the change, if a RETURNING list asks for it. Otherwise it is let go: while somebody sees it, each
/// change of the transaction's pending rows copies them.
pub(super) fn kept_for(returning: &Option<Vec<SelectItem>>, context: &StatementContext) -> Option<StatementContext> {
    returning.as_deref().is_some_and(returning::has_subquery).then(|| context.clone())
}

/// What the target was joined with: the columns behind those of the target itself, which start at `first`.
fn others(table: &TableDef, found: &RecordBatch, first: usize) -> Vec<ArrayRef> {
    let start = first + table.storage_schema().fields().len();
    found.columns().get(start..).unwrap_or_default().to_vec()
}

/// The first match of each row.
fn once_each(table: &TableDef, found: RecordBatch) -> Result<RecordBatch> {
    let first = first_of_each(&found.columns()[..table.key_columns().len()])?;
    Ok(take_record_batch(&found, &first)?)
}

/// Runs the query and keeps its whole result, accounted in the memory pool: the change is made as one set, after the
/// query has seen everything.
pub(super) async fn run(
    statement: &Statement<'_>,
    context: StatementContext,
    plan: LogicalPlan,
) -> Result<RecordBatch> {
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

pub(crate) fn plan_update(context: &StatementContext, update: UpdateStatement) -> Result<ModifyPlan> {
    let UpdateStatement { with, table: name, alias, assignments, from, selection, returning, view_checks: _ } = update;
    let table = find_target(context, &name)?;
    let alias = alias.unwrap_or_else(|| quoted(&table.name));
    let values = assigned_values(&table, assignments)?;
    let assigned = values.iter().enumerate().filter(|(_, value)| value.is_some()).map(|(column, _)| column).collect();
    let mut projection = key_items(&table, &alias);
    for (index, value) in values.into_iter().enumerate() {
        let field = table.schema.field(index);
        let value = match value {
            None => column(&alias, field.name()),
            // What it is converted to when it has come: no name of a type says how many bytes.
            Some(value) if matches!(field.data_type(), DataType::FixedSizeBinary(_)) => value,
            Some(value) => cast(value, &name_of(&arriving_type(field)))?,
        };
        projection.push(named(value, &format!("new {index}")));
    }
    let joined = !from.is_empty();
    let query = TargetQuery { with, alias, projection, joined: from, selection, whole: returning.is_some() };
    let (plan, context, scope) = query.plan(context, &table)?;
    Ok(ModifyPlan { table, plan, context, scope, assigned, joined })
}

pub(crate) fn plan_delete(context: &StatementContext, delete: DeleteStatement) -> Result<ModifyPlan> {
    let DeleteStatement { with, table: name, alias, using, selection, returning } = delete;
    let table = find_target(context, &name)?;
    let alias = alias.unwrap_or_else(|| quoted(&table.name));
    let projection = key_items(&table, &alias);
    let joined = !using.is_empty();
    let query = TargetQuery { with, alias, projection, joined: using, selection, whole: returning.is_some() };
    let (plan, context, scope) = query.plan(context, &table)?;
    Ok(ModifyPlan { table, plan, context, scope, assigned: Vec::new(), joined })
}

pub(super) fn find_target(context: &StatementContext, name: &ObjectName) -> Result<Arc<TableDef>> {
    let (schema, plain_name) = table_name(name)?;
    context.table(schema.as_deref(), &plain_name).cloned().map_err(|error| error.at(place(name.span())))
}

/// For each column of the table, what a SET list gives it.
pub(super) fn assigned_values(table: &TableDef, assignments: Vec<Assignment>) -> Result<Vec<Option<Expr>>> {
    let mut values: Vec<Option<Expr>> = vec![None; table.schema.fields().len()];
    for assignment in assignments {
        for (column, mut value) in single_assignments(table, assignment)? {
            require_of_one_row(&value, "UPDATE")?;
            read_nanoseconds(&mut value, table.schema.field(column).data_type());
            let value = match is_default(&value) {
                true => syntax_of(table, column)?.unwrap_or_else(null),
                false if takes_only_default(table, column) => {
                    let name = table.schema.field(column).name();
                    let message = format!("column \"{name}\" can only be updated to DEFAULT");
                    return Err(Error::new(sqlstate::GENERATED_ALWAYS, message)
                        .with_detail(not_default(table, column).detail().unwrap_or_default()));
                }
                false => value,
            };
            if values[column].replace(value).is_some() {
                let message = format!("multiple assignments to same column \"{}\"", table.schema.field(column).name());
                return Err(Error::syntax(message));
            }
        }
    }
    Ok(values)
}

/// `SET a = x`, `SET (a, b) = (x, y)` and `SET (a, b) = (SELECT …)` as columns and values.
fn single_assignments(table: &TableDef, assignment: Assignment) -> Result<Vec<(usize, Expr)>> {
    let Assignment { target, value } = assignment;
    let column = |name: &ObjectName| {
        let at = place(name.span());
        match name.0.as_slice() {
            [ObjectNamePart::Identifier(ident)] => column_index(table, &fold(ident)).map_err(|error| error.at(at)),
            _ => Err(Error::syntax(format!("\"{name}\" cannot be assigned to: write the column's name alone")).at(at)),
        }
    };
    let names = match target {
        AssignmentTarget::ColumnName(name) => return Ok(vec![(column(&name)?, value)]),
        AssignmentTarget::Tuple(names) => names,
    };
    let differ = || Error::syntax("number of columns does not match number of values");
    let values = match value {
        Expr::Tuple(values) => values,
        Expr::Nested(value) if names.len() == 1 => vec![*value],
        Expr::Subquery(query) => {
            (0..names.len()).map(|index| nth_column(&query, index, names.len())).collect::<Result<_>>()?
        }
        Expr::Function(function) if function.name.to_string().eq_ignore_ascii_case("row") => row_values(function)?,
        other => return Err(differ().at(place(other.span()))),
    };
    if values.len() != names.len() {
        return Err(differ().at(values.first().and_then(|value| place(value.span()))));
    }
    names.iter().zip(values).map(|(name, value)| Ok((column(name)?, value))).collect()
}

/// The values of `ROW(a, b)`.
fn row_values(function: datafusion::sql::sqlparser::ast::Function) -> Result<Vec<Expr>> {
    use datafusion::sql::sqlparser::ast::{FunctionArg, FunctionArgExpr, FunctionArguments};
    let FunctionArguments::List(list) = function.args else { return Ok(Vec::new()) };
    let value = |argument| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(value)) => Ok(value),
        other => Err(Error::syntax(format!("\"{other}\" is not a value"))),
    };
    list.args.into_iter().map(value).collect()
}

/// A query for several columns as a subquery for one of them.
pub(crate) fn nth_column(query: &Query, index: usize, columns: usize) -> Result<Expr> {
    let mut single = query.clone();
    if let SetExpr::Select(select) = single.body.as_mut()
        && select.distinct.is_none()
        && select
            .projection
            .iter()
            .all(|item| matches!(item, SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { .. }))
        && select.projection.len() != columns
    {
        return Err(Error::syntax("number of columns does not match number of values"));
    }
    if let SetExpr::Select(select) = single.body.as_mut()
        && select.distinct.is_none()
        && let Some(own) = alone_in(select, single.order_by.as_ref(), index)
    {
        select.projection = vec![SelectItem::UnnamedExpr(own)];
        return Ok(Expr::Subquery(Box::new(single)));
    }
    let alias = quoted("row");
    let mut relation = derived(single, alias.clone());
    if let datafusion::sql::sqlparser::ast::TableFactor::Derived { alias: Some(alias), .. } = &mut relation {
        use datafusion::sql::sqlparser::ast::TableAliasColumnDef;
        alias.columns = (0..columns).map(|column| TableAliasColumnDef::from_name(format!("c{column}"))).collect();
    }
    let item = SelectItem::UnnamedExpr(column(&alias, &format!("c{index}")));
    Ok(Expr::Subquery(Box::new(select(None, vec![item], vec![alone(relation)], None))))
}

/// A column of a select list, if it means the same without the others. Beside an aggregate, which makes one row of all, a
/// constant gets one of its own; but what a set or a window makes of the rows is not told by another column, nor what a
/// column is sorted by under its number or name.
fn alone_in(select: &Select, order_by: Option<&OrderBy>, index: usize) -> Option<Expr> {
    let (mut expressions, mut names) = (Vec::new(), Vec::new());
    for item in &select.projection {
        match item {
            SelectItem::UnnamedExpr(expr) => expressions.push(expr),
            SelectItem::ExprWithAlias { expr, alias } => {
                names.push(fold(alias));
                expressions.push(expr);
            }
            _ => return None,
        }
    }
    let sorts_by_item = |key: &OrderByExpr| match &key.expr {
        Expr::Value(_) => true,
        Expr::Identifier(name) => names.contains(&fold(name)),
        _ => false,
    };
    let sorted = order_by.is_some_and(|order_by| match &order_by.kind {
        OrderByKind::Expressions(keys) => keys.iter().any(sorts_by_item),
        OrderByKind::All(_) => true,
    });
    let grouped = !matches!(&select.group_by, GroupByExpr::Expressions(keys, _) if keys.is_empty());
    let own = *expressions.get(index)?;
    let others = expressions.iter().filter(|expr| !calls_aggregates(expr) && calls_of_many_rows(expr)).count();
    if sorted || others > 0 {
        return None;
    }
    if grouped || calls_aggregates(own) || !expressions.iter().any(|expr| calls_aggregates(expr)) {
        return Some(own.clone());
    }
    let rows = call_with("count", vec![number(1)], Span::empty());
    Some(cases(vec![(Expr::IsNotNull(Box::new(rows)), own.clone())], null()))
}

pub(super) fn key_items(table: &TableDef, alias: &Ident) -> Vec<SelectItem> {
    let item = |(place, key): (usize, &usize)| {
        named(column(alias, table.storage_schema().field(*key).name()), &format!("key {place}"))
    };
    table.key_columns().iter().enumerate().map(item).collect()
}

/// The target as a statement that changes rows reads it.
pub(crate) fn target_factor(table: &TableDef, alias: &Ident) -> datafusion::sql::sqlparser::ast::TableFactor {
    table_factor(vec![quoted(TARGET_SCHEMA), quoted(&table.name)], Some(alias.clone()))
}

/// The query behind an UPDATE or DELETE.
struct TargetQuery {
    with: Option<With>,
    alias: Ident,
    projection: Vec<SelectItem>,
    joined: Vec<TableWithJoins>,
    selection: Option<Expr>,
    /// Whether RETURNING wants whole rows.
    whole: bool,
}

impl TargetQuery {
    fn plan(
        self,
        context: &StatementContext,
        table: &Arc<TableDef>,
    ) -> Result<(LogicalPlan, StatementContext, RowScope)> {
        let TargetQuery { with, alias, mut projection, joined, selection, whole } = self;
        let explicit = projection.len();
        if whole {
            projection.push(everything());
        }
        let mut from = vec![alone(target_factor(table, &alias))];
        from.extend(joined);
        let context = context.clone().with_target(table);
        let plan = plan_any_width(&context, select(with, projection, from, selection)).map_err(own_terms)?;
        let mut scope = RowScope::default().with(&fold(&alias), table.schema.fields());
        add_others(&mut scope, &plan, explicit + table.storage_schema().fields().len()..plan.schema().fields().len());
        Ok((plan, context, scope))
    }
}

/// Adds some columns of a plan to a scope.
pub(super) fn add_others(scope: &mut RowScope, plan: &LogicalPlan, columns: Range<usize>) {
    for (relation, field) in plan.schema().iter().take(columns.end).skip(columns.start) {
        let (relation, field): (Option<&TableReference>, &Arc<Field>) = (relation, field);
        scope.push(relation.cloned(), field.name(), field.data_type());
    }
}

/// The planner speaks of the query we made of the statement.
pub(super) fn own_terms(error: Error) -> Error {
    match error.sqlstate() {
        sqlstate::GROUPING => Error::new(sqlstate::GROUPING, "aggregate functions are not allowed here"),
        _ => error,
    }
}
