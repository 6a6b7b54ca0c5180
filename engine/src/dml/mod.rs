//! Statements that change rows.
//!
//! Each is a query first, planned like any other: for the new rows (INSERT), or for the keys of the rows to change and
//! their new values (UPDATE, DELETE, MERGE). Its result is checked ([`rows`]) and handed to the storage transaction
//! ([`apply`]), where foreign keys are checked against the state after the change ([`foreign_key`]). Since the query
//! reads a view taken before the change, and is read to its end before anything changes, a statement never meets its own
//! rows (the Halloween problem). RETURNING is a query over the changed rows ([`returning`]).
//!
//! ```text
//!  statement ─► syntax of a query ─► plan, run ─► keys, new rows ─► RowCheck ─► apply ─► RETURNING
//!              (modify, merge)      (DataFusion)                    (rows)      (storage)  (scope, returning)
//! ```

pub(crate) mod apply;
pub(crate) mod conflict;
pub(crate) mod defaults;
pub(crate) mod foreign_key;
pub(crate) mod insert;
pub(crate) mod locked;
pub(crate) mod many_rows;
mod merge;
pub(crate) mod modify;
pub(crate) mod returning;
pub(crate) mod rows;
pub(crate) mod scope;
pub(crate) mod syntax;
pub(crate) mod through_view;
mod with;

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::datasource::TableProvider;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::sqlparser::ast::SelectItem;
use rustydb_storage::{ReadView, Transaction};

use returning::Changed;
use scope::RowScope;

use crate::session::Statement;
use crate::sql::context::StatementContext;
use crate::sql::plan::plan_query;
use crate::sql::route::Write;
use crate::sql::text::parse::fold;
use crate::{Error, Result};

/// What a changing statement reads: the transaction's state, or inside a WITH the state before the whole statement and
/// the rows its earlier parts have returned.
#[derive(Default)]
pub(crate) struct Reading {
    view: Option<ReadView>,
    named: HashMap<String, Arc<dyn TableProvider>>,
}

impl Reading {
    fn context(&self, statement: &Statement<'_>, transaction: &Transaction) -> StatementContext {
        let view = self.view.clone().unwrap_or_else(|| transaction.view());
        statement.context(view).with_named(self.named.clone())
    }
}

/// Runs a statement that changes rows.
pub(crate) async fn change(
    statement: &Statement<'_>,
    transaction: &mut Transaction,
    reading: &Reading,
    mut write: Write,
) -> Result<Changed> {
    write = through_view::resolve(&reading.context(statement, transaction), write)?;
    let locked = locked::read_first(statement, transaction, &mut write).await?;
    let with_locked;
    let reading = match locked.is_empty() {
        true => reading,
        false => {
            let named = reading.named.clone().into_iter().chain(locked).collect();
            with_locked = Reading { view: reading.view.clone(), named };
            &with_locked
        }
    };
    match write {
        Write::Insert(insert) => insert::insert(statement, transaction, reading, insert).await,
        Write::Update(update) => modify::update(statement, transaction, reading, update).await,
        Write::Delete(delete) => modify::delete(statement, transaction, reading, delete).await,
        Write::Merge(merge) => merge::merge(statement, transaction, reading, *merge).await,
        Write::With(with) => with::run(statement, transaction, *with).await,
        _ => Err(Error::internal("a statement that changes no rows was taken for one that does")),
    }
}

/// What is known of a changing statement before it runs.
#[derive(Default)]
pub(crate) struct Description {
    /// Plans of all its parts: they tell the types of the parameters.
    pub(crate) plans: Vec<LogicalPlan>,
    /// The columns it returns, if it returns rows.
    pub(crate) result: Option<SchemaRef>,
}

/// Plans a changing statement without running it.
pub(crate) fn describe(context: &StatementContext, mut write: Write) -> Result<Description> {
    locked::forget_locks_of(&mut write);
    let mut description = Description::default();
    match through_view::resolve(context, write)? {
        Write::Insert(mut statement) => {
            let alias = statement.alias.take();
            let (on_conflict, returning) = (statement.on_conflict.take(), statement.returning.take());
            let insert::InsertPlan { table, plan, context } = insert::plan(context, statement)?;
            description.plans.push(plan);
            if let Some(clause) = on_conflict {
                let conflict = conflict::OnConflict::new(&context, &table, alias.as_ref(), clause)?;
                description.plans.extend(conflict.plan(&table)?);
            }
            let relation = alias.as_ref().map_or_else(|| table.name.clone(), fold);
            let scope = RowScope::default().with(&relation, table.schema.fields());
            description.add_returning(&context, &scope, returning)?;
        }
        Write::Update(statement) => {
            let returning = statement.returning.clone();
            let plan = modify::plan_update(context, statement)?;
            description.plans.push(plan.plan);
            description.add_returning(&plan.context, &plan.scope, returning)?;
        }
        Write::Delete(statement) => {
            let returning = statement.returning.clone();
            let plan = modify::plan_delete(context, statement)?;
            description.plans.push(plan.plan);
            description.add_returning(&plan.context, &plan.scope, returning)?;
        }
        Write::Merge(statement) => {
            let returning = statement.returning.clone().map(merge::with_actions);
            let plan = merge::plan(context, *statement)?;
            description.plans.push(plan.plan);
            description.add_returning(&plan.context, &plan.scope, returning)?;
        }
        Write::With(with) => return with::describe_with(context, *with),
        Write::CreateTable(create) => {
            if let Some(query) = create.query {
                description.plans.push(plan_query(context, *query)?);
            }
        }
        _ => {}
    }
    Ok(description)
}

impl Description {
    fn add_returning(
        &mut self,
        context: &StatementContext,
        scope: &RowScope,
        returning: Option<Vec<SelectItem>>,
    ) -> Result<()> {
        let Some(items) = returning else { return Ok(()) };
        let plan = returning::plan(context, scope, &items, Vec::new())?;
        self.result = Some(returning::schema(context, &plan));
        self.plans.push(plan);
        Ok(())
    }
}

/// The query inside a statement that changes rows or makes a table of them, and the context it is planned in; `None` if
/// there is not exactly one query in it. This is what EXPLAIN shows.
pub(crate) fn plan_of(context: &StatementContext, mut write: Write) -> Result<Option<(StatementContext, LogicalPlan)>> {
    locked::forget_locks_of(&mut write);
    Ok(match through_view::resolve(context, write)? {
        Write::Insert(statement) => {
            let insert::InsertPlan { table: _, plan, context } = insert::plan(context, statement)?;
            Some((context, plan))
        }
        Write::Update(statement) => {
            let plan = modify::plan_update(context, statement)?;
            Some((plan.context, plan.plan))
        }
        Write::Delete(statement) => {
            let plan = modify::plan_delete(context, statement)?;
            Some((plan.context, plan.plan))
        }
        Write::Merge(statement) => {
            let plan = merge::plan(context, *statement)?;
            Some((plan.context, plan.plan))
        }
        Write::CreateTable(create) => match create.query {
            Some(query) => Some((context.clone(), plan_query(context, *query)?)),
            None => None,
        },
        _ => None,
    })
}
