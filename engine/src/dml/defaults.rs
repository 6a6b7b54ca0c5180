//! Column defaults: kept as SQL text with the column, turned into expressions for the statement that needs them.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{Expr, ExprSchemable};
use datafusion::optimizer::OptimizerConfig;
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::sql::planner::PlannerContext;
use datafusion::sql::sqlparser::ast;
use rustydb_storage::TableDef;

use super::rows::ColumnSource;
use crate::error::sqlstate;
use crate::sql::arithmetic::rewrite_all;
use crate::sql::context::StatementContext;
use crate::sql::parse::parse_expression;
use crate::sql::plan::planner;
use crate::sql::types::DEFAULT_KEY;
use crate::{Error, Result};

/// The default of a column as a syntax tree, if it has one.
pub(crate) fn syntax_of(table: &TableDef, column: usize) -> Result<Option<ast::Expr>> {
    table.schema.field(column).metadata().get(DEFAULT_KEY).map(|text| parse_expression(text)).transpose()
}

/// Plans a default. It may call functions, but not look at columns, parameters or other tables.
pub(crate) fn plan_default(context: &StatementContext, syntax: ast::Expr) -> Result<Expr> {
    let shown = syntax.to_string();
    let expr =
        planner(context).sql_to_expr(syntax, &DFSchema::empty(), &mut PlannerContext::new()).map_err(|error| {
            let error = Error::from(error);
            match error.sqlstate() {
                sqlstate::UNDEFINED_COLUMN => Error::unsupported(format!("a column in a default ({shown})")),
                _ => error,
            }
        })?;
    let mut forbidden = None;
    expr.apply(|part| {
        forbidden = match part {
            Expr::AggregateFunction(_) => Some("an aggregate function"),
            Expr::WindowFunction(_) => Some("a window function"),
            Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_) | Expr::SetComparison(_) => {
                Some("a subquery")
            }
            Expr::Placeholder(_) => Some("a parameter"),
            _ => return Ok(TreeNodeRecursion::Continue),
        };
        Ok(TreeNodeRecursion::Stop)
    })?;
    match forbidden {
        Some(what) => Err(Error::unsupported(format!("{what} in a default"))),
        None => Ok(expr),
    }
}

/// All defaults of a table, by column name.
pub(crate) fn plan_defaults(context: &StatementContext, table: &TableDef) -> Result<HashMap<String, Expr>> {
    let mut defaults = HashMap::new();
    for (index, field) in table.schema.fields().iter().enumerate() {
        if let Some(syntax) = syntax_of(table, index)? {
            defaults.insert(field.name().clone(), plan_default(context, syntax)?);
        }
    }
    Ok(defaults)
}

/// What fills a column that a load does not bring.
pub(crate) fn source_of(context: &StatementContext, table: &TableDef, column: usize) -> Result<ColumnSource> {
    match syntax_of(table, column)? {
        None => Ok(ColumnSource::Null),
        Some(syntax) => Ok(ColumnSource::Default(compile(context, syntax, table.schema.field(column).data_type())?)),
    }
}

/// A default as an operator evaluates it, cast to its column's type.
pub(crate) fn compile(
    context: &StatementContext,
    syntax: ast::Expr,
    data_type: &DataType,
) -> Result<Arc<dyn PhysicalExpr>> {
    let nothing = DFSchema::empty();
    let expr = plan_default(context, syntax)?.cast_to(data_type, &nothing)?;
    // now() and its like exist only in simplified form: as the time the statement began.
    let simplify = SimplifyContext::builder()
        .with_config_options(OptimizerConfig::options(context))
        .with_query_execution_start_time(context.query_execution_start_time())
        .build();
    let simplifier = ExprSimplifier::new(simplify);
    let expr = rewrite_all(simplifier.coerce(expr, &nothing)?, &nothing)?.data;
    let expr = simplifier.simplify(expr)?;
    Ok(context.shared().create_physical_expr(expr, &nothing)?)
}

/// Matches the columns of incoming batches with the table's, by name; others get their default.
pub(crate) fn sources_by_name<'a>(
    context: &StatementContext,
    table: &Arc<TableDef>,
    incoming: impl IntoIterator<Item = &'a str>,
) -> Result<Vec<ColumnSource>> {
    let mut places: Vec<Option<usize>> = vec![None; table.schema.fields().len()];
    for (place, name) in incoming.into_iter().enumerate() {
        let column = column_index(table, name)?;
        if places[column].replace(place).is_some() {
            return Err(Error::new(sqlstate::DUPLICATE_COLUMN, format!("column \"{name}\" specified more than once")));
        }
    }
    let source = |(column, place): (usize, Option<usize>)| match place {
        Some(place) => Ok(ColumnSource::Incoming(place)),
        None => source_of(context, table, column),
    };
    places.into_iter().enumerate().map(source).collect()
}

/// The index of a column, or 42703 with the nearest name.
pub(crate) fn column_index(table: &TableDef, name: &str) -> Result<usize> {
    let columns = table.schema.fields();
    columns.iter().position(|field| field.name() == name).ok_or_else(|| {
        let error = Error::new(
            sqlstate::UNDEFINED_COLUMN,
            format!("column \"{name}\" of table \"{}\" does not exist", table.name),
        );
        match crate::error::nearest(name, columns.iter().map(|field| field.name().as_str())) {
            Some(near) => error.with_hint(format!("Did you mean \"{near}\"?")),
            None => error,
        }
    })
}
