//! Prepared statements: parsed once, their parameters and result known before they run.
//!
//! A prepared statement belongs to no transaction and holds no data; it is planned again for each execution, against what
//! the session then sees.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::expr::Placeholder;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::sql::sqlparser::ast;

use crate::Result;
use crate::dml;
use crate::opaque::Opaque;
use crate::session::{describe_schema, text_table};
use crate::sql::context::StatementContext;
use crate::sql::names::shown;
use crate::sql::parse::Parsed;
use crate::sql::plan::{plan_query, result_schema};
use crate::sql::route::{InsertStatement, Routed};

/// A statement ready to be executed many times. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Prepared(Opaque<Inner>);

#[derive(Debug)]
struct Inner {
    sql: String,
    parsed: Parsed,
    parameter_schema: SchemaRef,
    result_schema: Option<SchemaRef>,
}

impl Prepared {
    pub(crate) fn new(sql: String, parsed: Parsed, routed: Routed, context: &StatementContext) -> Result<Self> {
        let (plans, result_schema) = analyse(context, routed)?;
        let mut types = HashMap::new();
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
        Ok(Prepared(Opaque::new(Inner {
            sql,
            parsed,
            parameter_schema,
            result_schema: result_schema.map(|schema| shown(&schema)),
        })))
    }

    /// The statement as it was written.
    pub fn sql(&self) -> &str {
        &self.0.sql
    }

    /// The parameters, named "$1", "$2", … in order, with the types the statement gives them.
    pub fn parameter_schema(&self) -> SchemaRef {
        Arc::clone(&self.0.parameter_schema)
    }

    /// The columns of the result, or `None` if the statement returns no rows.
    pub fn result_schema(&self) -> Option<SchemaRef> {
        self.0.result_schema.clone()
    }

    pub(crate) fn parsed(&self) -> Parsed {
        self.0.parsed.clone()
    }
}

/// The plans that tell the parameters' types, and the result's columns.
fn analyse(context: &StatementContext, routed: Routed) -> Result<(Vec<LogicalPlan>, Option<SchemaRef>)> {
    let text_columns = |names: &[&str]| -> Result<Option<SchemaRef>> {
        let columns: Vec<(&str, Vec<String>)> = names.iter().map(|name| (*name, Vec::new())).collect();
        Ok(Some(text_table(&columns)?.schema()))
    };
    Ok(match routed {
        Routed::Query(query) => {
            let plan = plan_query(context, *query)?;
            let schema = result_schema(context, &plan);
            (vec![plan], Some(schema))
        }
        Routed::Explain { options: _, statement } => {
            let (plans, _) = analyse(context, *statement)?;
            (plans, Some(LogicalPlan::explain_schema()))
        }
        Routed::Describe(_) | Routed::DescribeQuery(_) => (Vec::new(), Some(describe_schema()?)),
        Routed::ShowTables => (Vec::new(), text_columns(&["table_schema", "table_name"])?),
        Routed::Show(name) => (Vec::new(), text_columns(&[&name])?),
        Routed::ShowAll => (Vec::new(), text_columns(&["name", "setting", "description"])?),
        Routed::Write(write) => {
            let dml::Description { plans, result } = dml::describe(context, *write)?;
            (plans, result)
        }
        Routed::Set { .. } | Routed::Reset(_) | Routed::Transaction(_) => (Vec::new(), None),
    })
}

/// The types of the parameters in a plan, where something tells them: the planner's inference, or a cast.
fn parameter_types(plan: &LogicalPlan) -> Result<HashMap<String, DataType>> {
    let mut types = HashMap::new();
    plan.apply_with_subqueries(|node| {
        let schema = Arc::clone(node.schema());
        let inputs: Vec<_> = node.inputs().into_iter().map(|input| Arc::clone(input.schema())).collect();
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
