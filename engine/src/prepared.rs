//! Prepared statements: parsed once, their parameters and result known before they run.
//!
//! A prepared statement belongs to no transaction and holds no data; it is planned again for each execution, against what
//! the session then sees.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::expr::Placeholder;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::sql::sqlparser::ast;

use parking_lot::Mutex;

use crate::dml;
use crate::dml::locked::forget_locks;
use crate::opaque::Opaque;
use crate::row_path::Ready;
use crate::session::{calls_first, describe_call, describe_calls, describe_schema, text_table};
use crate::sql::context::StatementContext;
use crate::sql::grammar::lock::LockingQuery;
use crate::sql::grammar::user::UserStatement;
use crate::sql::names::shown;
use crate::sql::plan::{bind, check_parameter_count, plan_query, result_schema};
use crate::sql::route::{InsertStatement, Routed, route};
use crate::sql::text::parse::Parsed;
use crate::users::SHOW_USERS_COLUMNS;
use crate::{Error, Result, Value};

/// A parameter's value in one row of a batch of them.
///
/// # Errors
///
/// For values of a type that is not supported.
pub fn parameter_at(column: &ArrayRef, row: usize) -> datafusion::error::Result<Value> {
    Ok(match Value::try_from_array(column, row)? {
        // A NULL among a dictionary's values, which casts of dictionaries do not see.
        Value::Dictionary(_, value) if value.is_null() => *value,
        value => value,
    })
}

/// A statement ready to be executed many times. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Prepared(Opaque<Inner>);

#[derive(Debug)]
struct Inner {
    sql: String,
    parsed: Parsed,
    parameter_schema: SchemaRef,
    result_schema: Option<SchemaRef>,
    is_write: bool,
    /// What it was last run by.
    ready: Mutex<Option<Ready>>,
}

impl Prepared {
    pub(crate) fn new(sql: String, parsed: Parsed, routed: Routed, context: &StatementContext) -> Result<Self> {
        let is_write = matches!(routed, Routed::Write(_));
        let mut types = HashMap::new();
        let (plans, answer) = match &routed {
            Routed::Call(function) => {
                let (known, columns) = describe_call(context, context.routines(), function, parsed.parameters)?;
                let known = known.into_iter().enumerate();
                types.extend(known.filter_map(|(place, kind)| Some((format!("${}", place + 1), kind?))));
                (Vec::new(), columns.map_or(Answer::Nothing, Answer::Columns))
            }
            Routed::Query(query) if calls_first(context, query) => {
                // The planner knows less of calls than those who run them, but more of what is around them.
                if let Ok(plan) = plan_query(context, ast::Query::clone(query)) {
                    types.extend(parameter_types(&plan)?);
                }
                let unknown = vec![DataType::Null; parsed.parameters];
                if let Ok((known, _)) = describe_calls(context, query, unknown) {
                    for (place, kind) in known.into_iter().enumerate() {
                        if let Some(kind) = kind {
                            types.entry(format!("${}", place + 1)).or_insert(kind);
                        }
                    }
                }
                (Vec::new(), Answer::OfCalls(query.clone()))
            }
            _ => analyse(context, routed)?,
        };
        for plan in &plans {
            for (name, data_type) in parameter_types(plan)? {
                types.entry(name).or_insert(data_type);
            }
        }
        let fields = (1..=parsed.parameters).map(|number| {
            let name = format!("${number}");
            // A parameter about which nothing is known takes text, as PostgreSQL's unknown literals do.
            let data_type = types.get(&name).cloned().unwrap_or(DataType::Utf8);
            Field::new(name, data_type, true)
        });
        let parameter_schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let result_schema = match answer {
            Answer::Nothing => None,
            Answer::Columns(schema) => Some(schema),
            Answer::OfCalls(query) => {
                let types = parameter_schema.fields().iter().map(|field| field.data_type().clone()).collect();
                Some(describe_calls(context, &query, types)?.1)
            }
            Answer::OfPlan => {
                let types = parameter_schema.fields().iter().map(|field| field.data_type());
                plans.into_iter().next().map(|plan| schema_with(context, plan, types)).transpose()?
            }
        };
        Ok(Prepared(Opaque::new(Inner {
            sql,
            parsed,
            parameter_schema,
            result_schema: result_schema.map(|schema| shown(&schema)),
            is_write,
            ready: Mutex::default(),
        })))
    }

    /// A statement without parameters, of which is known what it returns.
    pub(crate) fn of_columns(sql: String, parsed: Parsed, result_schema: Option<SchemaRef>) -> Self {
        let parameter_schema = Arc::new(Schema::empty());
        let (is_write, ready) = (false, Mutex::default());
        Prepared(Opaque::new(Inner { sql, parsed, parameter_schema, result_schema, is_write, ready }))
    }

    /// The statement as it was written.
    pub fn sql(&self) -> &str {
        &self.0.sql
    }

    /// The parameters, named "$1", "$2", … in order, with the types the statement gives them.
    pub fn parameter_schema(&self) -> SchemaRef {
        Arc::clone(&self.0.parameter_schema)
    }

    /// The columns of the result, or `None` if the statement returns no rows. Where a column's type depends on a
    /// parameter's, it is the one that follows from [`parameter_schema`](Self::parameter_schema).
    pub fn result_schema(&self) -> Option<SchemaRef> {
        self.0.result_schema.clone()
    }

    /// Whether it is an INSERT, UPDATE or another statement that changes rows or tables by itself.
    pub fn is_write(&self) -> bool {
        self.0.is_write
    }

    /// The columns of the result as the tables are in `context`, when the parameters have these types.
    pub(crate) fn result_schema_for(
        &self,
        context: &StatementContext,
        types: &[DataType],
    ) -> Result<Option<SchemaRef>> {
        check_parameter_count(self.0.parsed.parameters, types.len())?;
        let schema = match route(self.0.parsed.statement.clone())? {
            Routed::Query(query) if calls_first(context, &query) => {
                Some(describe_calls(context, &query, types.to_vec())?.1)
            }
            Routed::Call(function) => describe_call(context, context.routines(), &function, types.len())?.1,
            routed => {
                let (plans, answer) = analyse(context, routed)?;
                match answer {
                    Answer::Nothing => None,
                    Answer::Columns(schema) => Some(schema),
                    Answer::OfCalls(query) => Some(describe_calls(context, &query, types.to_vec())?.1),
                    Answer::OfPlan => {
                        plans.into_iter().next().map(|plan| schema_with(context, plan, types)).transpose()?
                    }
                }
            }
        };
        Ok(schema.map(|schema| shown(&schema)))
    }

    /// What it was last run by, which may be out of date.
    pub(crate) fn ready(&self) -> Option<Ready> {
        self.0.ready.lock().clone()
    }

    pub(crate) fn keep_ready(&self, ready: &Ready) {
        *self.0.ready.lock() = Some(ready.clone());
    }

    pub(crate) fn parsed(&self) -> Parsed {
        self.0.parsed.clone()
    }
}

/// The columns of a query whose parameters have the given types.
fn schema_with<'a>(
    context: &StatementContext,
    plan: LogicalPlan,
    types: impl IntoIterator<Item = &'a DataType>,
) -> Result<SchemaRef> {
    let nulls = types.into_iter().map(Value::try_new_null).collect::<Result<Vec<_>, _>>()?;
    // Where a NULL cannot stand (LIMIT $1), the plan with its placeholders has to do.
    let typed = bind(plan.clone(), &nulls).unwrap_or(plan);
    Ok(result_schema(context, &typed))
}

/// What a statement answers with.
enum Answer {
    Nothing,
    /// The columns of its plan, which is the only one.
    OfPlan,
    /// Those of a query that calls functions before its rows are looked at.
    OfCalls(Box<ast::Query>),
    Columns(SchemaRef),
}

/// The plans that tell the parameters' types, and the result's columns.
fn analyse(context: &StatementContext, routed: Routed) -> Result<(Vec<LogicalPlan>, Answer)> {
    let text_columns = |names: &[&str]| -> Result<Answer> {
        let columns: Vec<(&str, Vec<String>)> = names.iter().map(|name| (*name, Vec::new())).collect();
        Ok(Answer::Columns(text_table(&columns)?.schema()))
    };
    Ok(match routed {
        Routed::Query(query) => (vec![plan_query(context, *query)?], Answer::OfPlan),
        Routed::SelectAndLock(LockingQuery { mut query, clauses: _ }) => {
            forget_locks(query.as_mut());
            (vec![plan_query(context, *query)?], Answer::OfPlan)
        }
        Routed::Explain { options: _, statement } => {
            let (plans, _) = analyse(context, *statement)?;
            (plans, Answer::Columns(LogicalPlan::explain_schema()))
        }
        Routed::Describe(_) | Routed::DescribeQuery(_) => (Vec::new(), Answer::Columns(describe_schema()?)),
        Routed::ShowTables => (Vec::new(), text_columns(&["table_schema", "table_name"])?),
        Routed::Show(name) => (Vec::new(), text_columns(&[&name])?),
        Routed::ShowAll => (Vec::new(), text_columns(&["name", "setting", "description"])?),
        Routed::Write(write) => {
            let dml::Description { plans, result } = dml::describe(context, *write)?;
            (plans, result.map_or(Answer::Nothing, Answer::Columns))
        }
        Routed::User(UserStatement::Show) => (Vec::new(), text_columns(&SHOW_USERS_COLUMNS)?),
        Routed::Set { .. }
        | Routed::Reset(_)
        | Routed::Transaction(_)
        | Routed::Discard(_)
        | Routed::Named(_)
        | Routed::LockTables { .. }
        | Routed::User(_)
        | Routed::Maintenance(_)
        | Routed::Do { .. } => (Vec::new(), Answer::Nothing),
        Routed::Call(_) => return Err(Error::internal("a CALL is described elsewhere")),
    })
}

/// The types of the parameters in a plan, where something tells them: the planner's inference, or a cast.
fn parameter_types(plan: &LogicalPlan) -> Result<HashMap<String, DataType>> {
    let mut types = HashMap::new();
    plan.apply_with_subqueries(|node| {
        let schema = Arc::clone(node.schema());
        let inputs: Vec<_> = node.inputs().into_iter().map(|input| Arc::clone(input.schema())).collect();
        if let LogicalPlan::Limit(limit) = node {
            for number in [limit.skip.as_deref(), limit.fetch.as_deref()].into_iter().flatten() {
                if let Expr::Placeholder(Placeholder { id, .. }) = number {
                    types.entry(id.clone()).or_insert(DataType::Int64);
                }
            }
        }
        node.apply_expressions(|expr| {
            // Comparisons tell a parameter's type by their other side, in terms of the input's columns.
            let schema = inputs.first().unwrap_or(&schema);
            let expr = match expr.clone().infer_placeholder_types(schema) {
                Ok((expr, _)) => expr,
                Err(_) => expr.clone(),
            };
            expr.apply(|part| {
                match part {
                    Expr::Placeholder(Placeholder { id, field: Some(field) })
                        if *field.data_type() != DataType::Null =>
                    {
                        types.insert(id.clone(), field.data_type().clone());
                    }
                    Expr::Cast(cast) => {
                        if let Expr::Placeholder(Placeholder { id, field: None }) = cast.expr.as_ref() {
                            types.entry(id.clone()).or_insert_with(|| cast.field.data_type().clone());
                        }
                    }
                    _ => {}
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(types)
}

/// For an `INSERT … VALUES` of nothing but parameters, one row: the number of the parameter for each value.
pub(crate) fn plain_parameters(insert: &InsertStatement) -> Option<Vec<usize>> {
    let ast::SetExpr::Values(ast::Values { rows, .. }) = insert.source.as_ref()?.body.as_ref() else { return None };
    let [row] = rows.as_slice() else { return None };
    let number = |value: &ast::Expr| match value {
        ast::Expr::Value(ast::ValueWithSpan { value: ast::Value::Placeholder(name), span: _ }) => {
            name.strip_prefix('$')?.parse::<usize>().ok()
        }
        _ => None,
    };
    row.content.iter().map(number).collect()
}
