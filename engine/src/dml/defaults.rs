//! Column defaults: kept as SQL text with the column, turned into expressions for the statement that needs them.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, TableReference};
use datafusion::logical_expr::expr_rewriter::unnormalize_col;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{
    EmptyRelation, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Projection, Volatility,
};
use datafusion::optimizer::OptimizerConfig;
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::sql::planner::PlannerContext;
use datafusion::sql::sqlparser::ast;
use rustydb_storage::TableDef;

use super::rows::ColumnSource;
use crate::constraints::{is_generated, is_identity_always};
use crate::error::sqlstate;
use crate::functions::time_digits::to_digits;
use crate::operators::lazy_logic::lazily;
use crate::sql::check::check_queries;
use crate::sql::context::StatementContext;
use crate::sql::plan::planner;
use crate::sql::text::parse::parse_expression;
use crate::sql::tree::time_digits::round_casts;
use crate::sql::types::{DEFAULT_KEY, arriving_type, digits_of, name_of};
use crate::{Error, Result};

/// The default of a column as a syntax tree, if it has one.
pub(crate) fn syntax_of(table: &TableDef, column: usize) -> Result<Option<ast::Expr>> {
    table.schema.field(column).metadata().get(DEFAULT_KEY).map(|text| parse_expression(text)).transpose()
}

/// Plans a default. It may call functions, but not look at columns, parameters or other tables.
pub(crate) fn plan_default(context: &StatementContext, mut syntax: ast::Expr) -> Result<Expr> {
    let shown = syntax.to_string();
    check_queries(&mut syntax)?;
    round_casts(&mut syntax);
    let expr =
        planner(context).sql_to_expr(syntax, &DFSchema::empty(), &mut PlannerContext::new()).map_err(|error| {
            let error = Error::from(error);
            match error.sqlstate() {
                sqlstate::UNDEFINED_COLUMN | sqlstate::UNDEFINED_TABLE => {
                    Error::unsupported(format!("a column in a default ({shown})"))
                }
                _ => error,
            }
        })?;
    match forbidden_in(&expr)? {
        Some(what) => Err(Error::unsupported(format!("{what} in a default"))),
        None => Ok(expr),
    }
}

/// All defaults of a table, by column name.
pub(crate) fn plan_defaults(context: &StatementContext, table: &TableDef) -> Result<HashMap<String, Expr>> {
    let mut defaults = HashMap::new();
    for (index, field) in table.schema.fields().iter().enumerate() {
        if let Some(syntax) = syntax_of(table, index)? {
            let default = plan_default(context, syntax)?;
            let default = match digits_of(field) {
                Some(digits) => to_digits(default.cast_to(&arriving_type(field), &DFSchema::empty())?, digits),
                None => default,
            };
            defaults.insert(field.name().clone(), default);
        }
    }
    Ok(defaults)
}

/// What fills a column that a load does not bring.
pub(crate) fn source_of(context: &StatementContext, table: &TableDef, column: usize) -> Result<ColumnSource> {
    match syntax_of(table, column)? {
        None => Ok(ColumnSource::Null),
        Some(syntax) => {
            Ok(ColumnSource::Default(compile(context, syntax, &arriving_type(table.schema.field(column)))?))
        }
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
    physical(context, expr, nothing)
}

/// An expression over the columns of a table's rows: a CHECK (a boolean), or what a generated column is computed by.
pub(crate) fn compile_over(
    context: &StatementContext,
    table: &TableDef,
    mut syntax: ast::Expr,
    data_type: Option<&DataType>,
) -> Result<Arc<dyn PhysicalExpr>> {
    check_queries(&mut syntax)?;
    let schema = schema_over(table)?;
    let expr = planner(context).sql_to_expr(syntax, &schema, &mut PlannerContext::new())?;
    if let Some(what) = forbidden_in(&expr)? {
        return Err(match what {
            "a subquery" => Error::unsupported("a subquery in this expression"),
            what => Error::new(sqlstate::GROUPING, format!("{what} is not allowed in this expression")),
        });
    }
    let wanted = data_type.cloned().unwrap_or(DataType::Boolean);
    let own = expr.get_type(&schema)?;
    if data_type.is_none() && own != DataType::Boolean && own != DataType::Null {
        let message = format!("argument of CHECK must be type boolean, not type {}", name_of(&own));
        return Err(Error::new(sqlstate::TYPE_MISMATCH, message));
    }
    let expr = expr.cast_to(&wanted, &schema)?;
    physical(context, expr, schema)
}

/// The type of an expression over a table's columns.
pub(crate) fn type_over(context: &StatementContext, table: &TableDef, mut syntax: ast::Expr) -> Result<DataType> {
    check_queries(&mut syntax)?;
    let schema = schema_over(table)?;
    let expr = planner(context).sql_to_expr(syntax, &schema, &mut PlannerContext::new())?;
    if let Some(what) = forbidden_in(&expr)? {
        return Err(match what {
            "a subquery" => Error::unsupported("a subquery in this expression"),
            what => Error::new(sqlstate::GROUPING, format!("{what} is not allowed in this expression")),
        });
    }
    let input = LogicalPlan::EmptyRelation(EmptyRelation { produce_one_row: true, schema: Arc::new(schema) });
    let plan = LogicalPlanBuilder::from(input).project(vec![expr.alias("value")])?.build()?;
    let options = OptimizerConfig::options(context);
    let analyzed = context.shared().analyzer().execute_and_check(plan, &options, |_, _| {})?;
    Ok(analyzed.schema().field(0).data_type().clone())
}

/// The columns of a table, for an expression about one row.
fn schema_over(table: &TableDef) -> Result<DFSchema> {
    let fields = table.schema.fields().iter().map(|field| Field::new(field.name(), field.data_type().clone(), true));
    let schema = Schema::new(fields.collect::<Vec<_>>());
    Ok(DFSchema::try_from_qualified_schema(TableReference::bare(table.name.as_str()), &schema)?)
}

/// Whether an expression over a table's columns may give something else for the same row.
pub(crate) fn is_volatile(context: &StatementContext, table: &TableDef, mut syntax: ast::Expr) -> Result<bool> {
    round_casts(&mut syntax);
    let schema = schema_over(table)?;
    let expr = planner(context).sql_to_expr(syntax, &schema, &mut PlannerContext::new())?;
    Ok(expr.exists(|part| {
        Ok(match part {
            Expr::ScalarFunction(function) => function.func.signature().volatility != Volatility::Immutable,
            _ => false,
        })
    })?)
}

/// What an expression about single rows must not have in it.
fn forbidden_in(expr: &Expr) -> Result<Option<&'static str>> {
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
    Ok(forbidden)
}

/// An expression over the columns of a table's rows in the form that conditions on the table have when it is scanned.
pub(crate) fn planned_over(context: &StatementContext, table: &TableDef, mut syntax: ast::Expr) -> Result<Expr> {
    check_queries(&mut syntax)?;
    let schema = Arc::new(schema_over(table)?);
    let expr = planner(context).sql_to_expr(syntax, &schema, &mut PlannerContext::new())?;
    Ok(unnormalize_col(simplified(context, expr, &schema)?))
}

/// Runs the analyser over an expression, so that it means what it would in a query, and makes it executable.
pub(crate) fn physical(context: &StatementContext, expr: Expr, schema: DFSchema) -> Result<Arc<dyn PhysicalExpr>> {
    let schema = Arc::new(schema);
    let expr = simplified(context, expr, &schema)?;
    let expr = context.shared().create_physical_expr(expr, &schema)?;
    Ok(lazily(expr, schema.as_arrow())?)
}

fn simplified(context: &StatementContext, expr: Expr, schema: &Arc<DFSchema>) -> Result<Expr> {
    let input = LogicalPlan::EmptyRelation(EmptyRelation { produce_one_row: true, schema: Arc::clone(schema) });
    let plan = LogicalPlanBuilder::from(input).project(vec![expr.alias("value")])?.build()?;
    let options = OptimizerConfig::options(context);
    let analyzed = context.shared().analyzer().execute_and_check(plan, &options, |_, _| {})?;
    let LogicalPlan::Projection(Projection { expr, .. }) = analyzed else {
        return Err(Error::internal("an expression was planned as something else"));
    };
    let expr = expr.into_iter().next().ok_or_else(|| Error::internal("an expression got lost"))?.unalias();
    // now() and its like exist only in simplified form: as the time the statement began.
    let simplify = SimplifyContext::builder()
        .with_config_options(options)
        .with_query_execution_start_time(context.query_execution_start_time())
        .with_schema(Arc::clone(schema))
        .build();
    Ok(ExprSimplifier::new(simplify).simplify(expr)?)
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
        if is_generated(table.schema.field(column)) {
            return Err(not_default(table, column));
        }
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

/// The error for a value that a column does not take because it makes its own.
pub(crate) fn not_default(table: &TableDef, column: usize) -> Error {
    let field = table.schema.field(column);
    let error = Error::new(
        sqlstate::GENERATED_ALWAYS,
        format!("cannot insert a non-DEFAULT value into column \"{}\"", field.name()),
    );
    match is_identity_always(field) {
        true => {
            error.with_detail(format!("Column \"{}\" is an identity column defined as GENERATED ALWAYS.", field.name()))
        }
        false => error.with_detail(format!("Column \"{}\" is a generated column.", field.name())),
    }
}

/// Whether only DEFAULT can be written to a column.
pub(crate) fn takes_only_default(table: &TableDef, column: usize) -> bool {
    let field = table.schema.field(column);
    is_generated(field) || is_identity_always(field)
}
