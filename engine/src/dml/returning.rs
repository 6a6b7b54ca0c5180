//! RETURNING: a select list over the rows a statement has changed, as they are afterwards (before, for DELETE), beside
//! the columns of the tables the statement was joined with.

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::utils::memory::RecordBatchMemoryCounter;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::sql::sqlparser::ast::{
    SelectItem, SelectItemQualifiedWildcardKind, Spanned, Visit, Visitor, WildcardAdditionalOptions,
};
use futures::StreamExt;
use std::ops::ControlFlow;

use super::scope::RowScope;
use crate::common_rows::{names_of_ctes, share_rows};
use crate::error::sqlstate;
use crate::session::Statement;
use crate::sql::check::refuse;
use crate::sql::context::StatementContext;
use crate::sql::names::{output_name, unique_name};
use crate::sql::plan::{ReadyPlan, bind, make_ready, result_schema};
use crate::sql::text::parse::{fold, place, table_name};
use crate::sql::widths::check_result_width;
use crate::{Error, Result};

/// Rows that a statement returns.
#[derive(Debug)]
pub(crate) struct Returned {
    pub(crate) schema: SchemaRef,
    pub(crate) batches: Vec<RecordBatch>,
}

/// What a statement did.
#[derive(Debug)]
pub(crate) struct Changed {
    pub(crate) rows: u64,
    /// For RETURNING.
    pub(crate) returned: Option<Returned>,
}

impl Changed {
    pub(crate) fn rows(rows: u64) -> Self {
        Changed { rows, returned: None }
    }
}

/// The plan of a RETURNING list over `rows`, each with the scope's columns.
pub(crate) fn plan(
    context: &StatementContext,
    scope: &RowScope,
    items: &[SelectItem],
    rows: Vec<Vec<ArrayRef>>,
) -> Result<LogicalPlan> {
    let mut list: Vec<(Expr, String)> = Vec::with_capacity(items.len());
    for item in items {
        match item {
            SelectItem::UnnamedExpr(expr) => {
                list.push((resolve(context, scope, expr)?, output_name(expr)));
            }
            SelectItem::ExprWithAlias { expr, alias } => {
                list.push((resolve(context, scope, expr)?, fold(alias)));
            }
            SelectItem::Wildcard(options) => {
                check_wildcard(options)?;
                list.extend(scope.columns(None).into_iter().map(with_own_name));
            }
            SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), options) => {
                check_wildcard(options)?;
                let (_, relation) = table_name(name)?;
                let columns = scope.columns(Some(&relation));
                if columns.is_empty() {
                    let message = format!("missing FROM-clause entry for table \"{relation}\"");
                    return Err(Error::new(sqlstate::UNDEFINED_TABLE, message).at(place(name.span())));
                }
                list.extend(columns.into_iter().map(with_own_name));
            }
            other => return Err(Error::unsupported(format!("\"{other}\" in RETURNING"))),
        }
    }
    check_result_width(list.len())?;
    let mut seen = Vec::with_capacity(list.len());
    let list = list.into_iter().map(|(expr, name)| expr.alias(unique_name(&mut seen, name)));
    let plan = scope.rows(rows)?.project(list.collect::<Vec<_>>())?.build()?;
    let ctes: Vec<String> = items.iter().flat_map(names_of_ctes).collect();
    Ok(share_rows(plan, &ctes)?)
}

fn with_own_name(column: Expr) -> (Expr, String) {
    let name = column.schema_name().to_string();
    let name = match &column {
        Expr::Column(column) => column.name.clone(),
        _ => name,
    };
    (column, name)
}

fn check_wildcard(options: &WildcardAdditionalOptions) -> Result<()> {
    let WildcardAdditionalOptions {
        wildcard_token: _,
        opt_ilike,
        opt_exclude,
        opt_except,
        opt_replace,
        opt_rename,
        opt_alias,
    } = options;
    refuse(
        opt_ilike.is_some()
            || opt_exclude.is_some()
            || opt_except.is_some()
            || opt_replace.is_some()
            || opt_rename.is_some()
            || opt_alias.is_some(),
        "an option of * in RETURNING",
    )
}

fn resolve(context: &StatementContext, scope: &RowScope, expr: &datafusion::sql::sqlparser::ast::Expr) -> Result<Expr> {
    let at = place(expr.span());
    let resolved = scope.resolve(context, expr.clone()).map_err(|error| error.at(at))?;
    let mut forbidden = None;
    resolved.apply(|part| {
        forbidden = match part {
            Expr::AggregateFunction(_) => Some((sqlstate::GROUPING, "aggregate")),
            Expr::WindowFunction(_) => Some((sqlstate::WINDOWING, "window")),
            _ => return Ok(TreeNodeRecursion::Continue),
        };
        Ok(TreeNodeRecursion::Stop)
    })?;
    match forbidden {
        None => Ok(resolved),
        Some((code, what)) => Err(Error::new(code, format!("{what} functions are not allowed in RETURNING")).at(at)),
    }
}

/// The columns a RETURNING list has.
pub(crate) fn schema(context: &StatementContext, plan: &LogicalPlan) -> SchemaRef {
    result_schema(context, plan)
}

/// Whether a list asks other tables: their state before the change must be kept for it then.
pub(crate) fn has_subquery(items: &[SelectItem]) -> bool {
    struct Finder;
    impl Visitor for Finder {
        type Break = ();
        fn pre_visit_query(&mut self, _query: &datafusion::sql::sqlparser::ast::Query) -> ControlFlow<()> {
            ControlFlow::Break(())
        }
    }
    items.iter().any(|item| item.visit(&mut Finder).is_break())
}

/// Runs a RETURNING list over the rows of a change.
pub(crate) async fn run(
    statement: &Statement<'_>,
    context: &StatementContext,
    scope: &RowScope,
    items: &[SelectItem],
    rows: Vec<Vec<ArrayRef>>,
) -> Result<Returned> {
    let ready = make_ready(context, bind(plan(context, scope, items, rows)?, statement.parameters)?).await?;
    Ok(collected(statement, ready, "rows to return").await?.0)
}

/// Runs a plan to its end. Its rows are accounted in the memory pool, as `what`, as long as the reservation is there.
pub(super) async fn collected(
    statement: &Statement<'_>,
    ready: ReadyPlan,
    what: &'static str,
) -> Result<(Returned, MemoryReservation)> {
    let reservation = MemoryConsumer::new(what).register(ready.context.memory_pool());
    let mut stream = statement.start(ready);
    let schema = stream.schema();
    // Batches may be parts of a large one, which counts once.
    let mut memory = RecordBatchMemoryCounter::new();
    let mut batches = Vec::new();
    while let Some(batch) = stream.next().await {
        let batch = batch?;
        reservation.try_grow(memory.count_batch(&batch))?;
        batches.push(batch);
    }
    Ok((Returned { schema, batches }, reservation))
}
