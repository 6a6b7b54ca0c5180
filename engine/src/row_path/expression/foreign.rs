//! Parts of expressions that DataFusion evaluates, on batches of one row.
//!
//! Only what gives the same value for the same arguments comes here, so that the compiled expression belongs to no session
//! and no moment.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::catalog::Session;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, ScalarValue};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{ColumnarValue, Expr, ExprSchemable, Volatility};
use datafusion::optimizer::OptimizerConfig;
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::physical_expr::{PhysicalExpr, create_physical_expr};

use super::compile::leaf;
use super::{Decided, Inputs, Node, Scope, Undecided};
use crate::row_path::datum::{Datum, Type, array_of};
use crate::sql::context::StatementContext;

/// An expression of DataFusion's with the places its arguments come from.
#[derive(Debug, Clone)]
pub(crate) struct Foreign {
    expression: Arc<dyn PhysicalExpr>,
    inputs: Vec<Node>,
    types: Vec<Type>,
    schema: SchemaRef,
}

impl Foreign {
    /// `None`: not even DataFusion can evaluate it alone.
    pub(crate) fn compile(context: &StatementContext, expr: &Expr, scope: Scope<'_>) -> Option<Foreign> {
        let mut inputs = Vec::new();
        let mut fields = Vec::new();
        let mut known: Vec<Expr> = Vec::new();
        let mut possible = true;
        let replaced = expr.clone().transform_down(|part| {
            match &part {
                Expr::ScalarFunction(call) => {
                    possible &= call.func.signature().volatility == Volatility::Immutable;
                }
                Expr::Exists(_)
                | Expr::InSubquery(_)
                | Expr::SetComparison(_)
                | Expr::ScalarSubquery(_)
                | Expr::OuterReferenceColumn(..)
                | Expr::AggregateFunction(_)
                | Expr::WindowFunction(_)
                | Expr::ScalarVariable(..)
                | Expr::Unnest(_)
                | Expr::GroupingSet(_) => possible = false,
                Expr::Column(_) | Expr::Placeholder(_) => {
                    let place = known.iter().position(|other| *other == part).or_else(|| {
                        let data_type = part.get_type(scope.schema).ok()?;
                        inputs.push(leaf(&part, scope)?);
                        fields.push(Field::new(format!("c{}", known.len()), data_type, true));
                        known.push(part.clone());
                        Some(known.len() - 1)
                    });
                    let Some(place) = place else {
                        possible = false;
                        return Ok(Transformed::no(part));
                    };
                    let column = Expr::Column(Column::new_unqualified(format!("c{place}")));
                    return Ok(Transformed::new(column, true, TreeNodeRecursion::Jump));
                }
                _ => {}
            }
            Ok(match possible {
                true => Transformed::no(part),
                false => Transformed::new(part, false, TreeNodeRecursion::Stop),
            })
        });
        let replaced = replaced.ok().filter(|_| possible)?.data;
        let schema = Arc::new(Schema::new(fields));
        let df_schema = Arc::new(DFSchema::try_from(schema.as_ref().clone()).ok()?);
        let simplify = SimplifyContext::builder()
            .with_config_options(OptimizerConfig::options(context))
            .with_schema(Arc::clone(&df_schema))
            .build();
        let simplified = ExprSimplifier::new(simplify).simplify(replaced).ok()?;
        let planning = PhysicalPlanningContext::default();
        let expression = create_physical_expr(&simplified, &df_schema, context.execution_props(), &planning).ok()?;
        // Simplifying may tell a function more of its type than the analyser knew: round(x, 1).
        let (expected, own) = (expr.get_type(scope.schema).ok()?, expression.data_type(&schema).ok()?);
        if expected != own && !(expected.is_string() && own.is_string()) {
            return None;
        }
        let types = schema.fields().iter().map(|field| field.data_type().clone()).collect();
        Some(Foreign { expression, inputs, types, schema })
    }

    pub(crate) fn inputs(&self) -> &[Node] {
        &self.inputs
    }

    pub(crate) fn inputs_mut(&mut self) -> &mut [Node] {
        &mut self.inputs
    }

    pub(crate) fn evaluate(&self, inputs: &Inputs<'_>) -> Decided {
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.inputs.len());
        for (input, data_type) in self.inputs.iter().zip(&self.types) {
            let datum = input.evaluate(inputs)?;
            columns.push(array_of(data_type, std::slice::from_ref(&datum).iter()).map_err(|_| Undecided)?);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(1));
        let row = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options);
        match self.expression.evaluate(&row.map_err(|_| Undecided)?).map_err(|_| Undecided)? {
            ColumnarValue::Scalar(value) => Ok(Datum::of(&value)),
            ColumnarValue::Array(array) => {
                ScalarValue::try_from_array(&array, 0).map(|value| Datum::of(&value)).map_err(|_| Undecided)
            }
        }
    }
}
