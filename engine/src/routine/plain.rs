//! Expressions over inputs alone: DataFusion's, compiled once, on a batch of one row.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::array::RecordBatchOptions;
use arrow::datatypes::{Field, Schema};
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, ExprSchemable, Volatility};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::sql::planner::PlannerContext;
use datafusion::sql::sqlparser::ast;
use std::ops::ControlFlow;

use super::datum::{Datum, Type, array_of};
use crate::dml::defaults::physical;
use crate::sql::check::check_queries;
use crate::sql::context::StatementContext;
use crate::sql::plan::planner;
use crate::{Result, Value};

/// Something is wrong with the values: a query can say what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Undecided;

/// An expression over inputs alone, compiled.
#[derive(Debug, Clone)]
pub(crate) struct Expression {
    expression: Arc<dyn PhysicalExpr>,
    schema: Arc<Schema>,
    data_type: Type,
}

impl Expression {
    /// Compiles an expression in which `$1 …` have these types. `None`: it does not stand for the same value whenever it
    /// is evaluated, and has to be planned each time.
    pub(crate) fn compile(
        context: &StatementContext,
        mut expression: ast::Expr,
        parameters: &[Type],
    ) -> Result<Option<Expression>> {
        check_queries(&mut expression)?;
        let _ = ast::visit_expressions_mut(&mut expression, |part| {
            if let ast::Expr::Value(ast::ValueWithSpan { value: ast::Value::Placeholder(name), span: _ }) = part {
                *part = ast::Expr::Identifier(ast::Ident::with_quote('"', name.as_str()));
            }
            ControlFlow::<()>::Continue(())
        });
        let fields =
            parameters.iter().enumerate().map(|(n, kind)| Field::new(format!("${}", n + 1), kind.clone(), true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let df_schema = DFSchema::try_from(Schema::clone(&schema))?;
        let expr = planner(context).sql_to_expr(expression, &df_schema, &mut PlannerContext::new())?;
        let mut pure = true;
        expr.apply(|part| {
            pure &= match part {
                Expr::ScalarFunction(call) => call.func.signature().volatility == Volatility::Immutable,
                Expr::AggregateFunction(_)
                | Expr::WindowFunction(_)
                | Expr::ScalarSubquery(_)
                | Expr::Exists(_)
                | Expr::InSubquery(_) => false,
                _ => true,
            };
            Ok(TreeNodeRecursion::Continue)
        })?;
        if !pure {
            return Ok(None);
        }
        let _ = expr.get_type(&df_schema)?;
        let expression = physical(context, expr, df_schema)?;
        let data_type = expression.data_type(&schema)?;
        Ok(Some(Expression { expression, schema, data_type }))
    }

    /// The type of its value.
    pub(crate) fn data_type(&self) -> &Type {
        &self.data_type
    }

    /// Its value.
    pub(crate) fn evaluate(&self, parameters: &[Datum]) -> std::result::Result<Datum, Undecided> {
        let run = || -> Result<Datum> {
            let columns = self
                .schema
                .fields()
                .iter()
                .zip(parameters)
                .map(|(field, value)| array_of(field.data_type(), std::slice::from_ref(value).iter()));
            let options = RecordBatchOptions::new().with_row_count(Some(1));
            let batch = RecordBatch::try_new_with_options(
                Arc::clone(&self.schema),
                columns.collect::<Result<Vec<_>>>()?,
                &options,
            )?;
            let array = self.expression.evaluate(&batch)?.into_array(1)?;
            Ok(Datum::of(&Value::try_from_array(&array, 0)?))
        };
        run().map_err(|_| Undecided)
    }
}
