//! Arithmetic as SQL has it: integers that overflow are an error instead of another number, and casts of fractions to
//! integers round instead of cutting off.
//!
//! DataFusion computes `+ - *` on integers modulo 2^n. This analyser rule, which runs after type coercion, puts checked
//! functions in their place; everything else stays the planner's own operator, which its optimiser knows better.
//!
//! | expression | becomes |
//! |---|---|
//! | `a + b`, `a - b`, `a * b` on integers | `checked_add(a, b)` … |
//! | `CAST(numeric AS int)` | `CAST(CAST(numeric AS numeric(38,0)) AS int)` |
//! | `CAST(float AS int)` | `CAST(round(float) AS int)` |

use std::sync::Arc;

use arrow::array::{ArrayRef, Datum};
use arrow::compute::kernels::numeric;
use arrow::datatypes::{DataType, Field, FieldRef};
use arrow::error::ArrowError;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, utils::take_function_args};
use datafusion::config::ConfigOptions;
use datafusion::error::Result as DataFusionResult;
use datafusion::functions::math::round;
use datafusion::logical_expr::expr::{BinaryExpr, Cast};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, LogicalPlan, Operator, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility,
};
use datafusion::optimizer::AnalyzerRule;
use datafusion::physical_expr_common::datum::apply;

/// The rule, with the functions it inserts.
#[derive(Debug)]
pub(crate) struct SqlArithmetic {
    add: Arc<ScalarUDF>,
    subtract: Arc<ScalarUDF>,
    multiply: Arc<ScalarUDF>,
}

impl Default for SqlArithmetic {
    fn default() -> Self {
        let function = |operation| Arc::new(ScalarUDF::from(Checked::new(operation)));
        SqlArithmetic {
            add: function(Operation::Add),
            subtract: function(Operation::Subtract),
            multiply: function(Operation::Multiply),
        }
    }
}

impl AnalyzerRule for SqlArithmetic {
    fn name(&self) -> &str {
        "sql_arithmetic"
    }

    fn analyze(&self, plan: LogicalPlan, _options: &ConfigOptions) -> DataFusionResult<LogicalPlan> {
        let rewritten = plan.transform_up_with_subqueries(|node| {
            let schema = merge_schema(&node.inputs());
            let names = NamePreserver::new(&node);
            let node = node.map_expressions(|expr| {
                let name = names.save(&expr);
                let rewritten = expr.transform_up(|expr| self.rewrite(expr, &schema))?;
                Ok(rewritten.update_data(|expr| name.restore(expr)))
            })?;
            match node.transformed {
                true => node.map_data(LogicalPlan::recompute_schema),
                false => Ok(node),
            }
        });
        rewritten.map(|plan| plan.data)
    }
}

impl SqlArithmetic {
    fn rewrite(&self, expr: Expr, schema: &DFSchema) -> DataFusionResult<Transformed<Expr>> {
        match expr {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
                let function = match op {
                    Operator::Plus => &self.add,
                    Operator::Minus => &self.subtract,
                    Operator::Multiply => &self.multiply,
                    _ => return Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right }))),
                };
                let (left_type, right_type) = (left.get_type(schema)?, right.get_type(schema)?);
                if left_type == right_type && left_type.is_integer() {
                    return Ok(Transformed::yes(function.call(vec![*left, *right])));
                }
                Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right })))
            }
            Expr::Cast(Cast { expr, field }) if field.data_type().is_integer() => {
                let rounded = match expr.get_type(schema)? {
                    DataType::Decimal128(_, 1..) => Expr::Cast(Cast::new(expr, DataType::Decimal128(38, 0))),
                    DataType::Float32 | DataType::Float64 if !is_rounded(&expr) => round().call(vec![*expr]),
                    _ => return Ok(Transformed::no(Expr::Cast(Cast { expr, field }))),
                };
                Ok(Transformed::yes(Expr::Cast(Cast { expr: Box::new(rounded), field })))
            }
            other => Ok(Transformed::no(other)),
        }
    }
}

/// Whether the rule has been here: a plan may be analysed again, as part of a larger one.
fn is_rounded(expr: &Expr) -> bool {
    matches!(expr, Expr::ScalarFunction(function) if function.func.name() == "round" && function.args.len() == 1)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Operation {
    Add,
    Subtract,
    Multiply,
}

/// An integer operation that fails with an overflow error instead of wrapping around.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Checked {
    operation: Operation,
    signature: Signature,
}

impl Checked {
    fn new(operation: Operation) -> Self {
        Checked { operation, signature: Signature::any(2, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Checked {
    fn name(&self) -> &str {
        match self.operation {
            Operation::Add => "checked_add",
            Operation::Subtract => "checked_subtract",
            Operation::Multiply => "checked_multiply",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, argument_types: &[DataType]) -> DataFusionResult<DataType> {
        let [left, _] = take_function_args(self.name(), argument_types)?;
        Ok(left.clone())
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs) -> DataFusionResult<FieldRef> {
        let [left, right] = take_function_args(self.name(), arguments.arg_fields)?;
        let nullable = left.is_nullable() || right.is_nullable();
        Ok(Arc::new(Field::new(self.name(), left.data_type().clone(), nullable)))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let kernel: fn(&dyn Datum, &dyn Datum) -> Result<ArrayRef, ArrowError> = match self.operation {
            Operation::Add => numeric::add,
            Operation::Subtract => numeric::sub,
            Operation::Multiply => numeric::mul,
        };
        let [left, right] = take_function_args(self.name(), arguments.args)?;
        apply(&left, &right, kernel)
    }
}
