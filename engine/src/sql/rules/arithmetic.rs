//! Arithmetic and casts as SQL has them: integers that overflow are an error instead of another number, casts of
//! fractions to integers round instead of cutting off, and casts to a text of limited length do cut off.
//!
//! DataFusion computes `+ - *` on integers modulo 2^n. This analyser rule, which runs after type coercion, puts checked
//! functions in their place; everything else stays the planner's own operator, which its optimiser knows better.
//!
//! | expression | becomes |
//! |---|---|
//! | `a + b`, `a - b`, `a * b` on integers | `checked_add(a, b)` … |
//! | `a + b - c + d` on integers | one call, `checked[+ - +](a, b, c, d)`, computed from left to right |
//! | `-a` on integers | `checked_subtract(0, a)` |
//! | `-a` on floats | `0.0 - a`, which is never -0.0 |
//! | `CAST(numeric AS int)` | `CAST(CAST(numeric AS numeric(38,0)) AS int)` |
//! | `CAST(double precision AS real)` | `as_real(…)`, which fails instead of an infinity |
//! | `CAST(float AS int)` | `CAST(round_half_even(float) AS int)` |
//! | `CAST(float AS numeric)` | [`as_numeric`](crate::functions::floats_as_numerics), which takes the digits that are meant |
//! | `a + b` … and `/` on floats | `checked_add(a, b)` …, which fails instead of an infinity |
//! | `CAST(x AS varchar(n))` | `left(CAST(x AS varchar), n)` |
//! | `CAST(x AS text)` of times and floats | [`text_of`](crate::functions::printed) |
//! | `CAST(text AS interval)`, of bytea, of times, of numbers with a point, of arrays | [`read_text`](crate::functions::input) |
//! | `CAST('2024-01-01 10:00+02' AS timestamp)` | `CAST('2024-01-01 10:00:00' AS timestamp)` |
//! | `CAST('040506' AS time)` | `CAST('04:05:06' AS time)` |
//! | `CAST(numeric[] AS int[])` and the like | [`cast_array`](crate::functions::array_casts) |
//! | `CAST(timestamp AS timestamp(0))` | [`rounded`](crate::functions::rounded_times) |
//!
//! A chain is one call because the planner asks for the type and the name of each node again and again: the type of a
//! function's call takes those of its arguments and its whole name, so that a tree of n calls above each other takes time
//! in the order of n³ (300 additions: 5 s).

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Datum};
use arrow::compute::cast;
use arrow::compute::kernels::numeric;
use arrow::datatypes::{DataType, Field, FieldRef, Float32Type, Float64Type};
use arrow::error::ArrowError;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, DataFusionError, ScalarValue, exec_err, internal_datafusion_err};
use datafusion::config::ConfigOptions;
use datafusion::error::Result as DataFusionResult;
use datafusion::functions::unicode::left;
use datafusion::logical_expr::binary::BinaryTypeCoercer;
use datafusion::logical_expr::expr::{BinaryExpr, Cast, TryCast};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, LogicalPlan, Operator, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Union, Volatility, lit,
};
use datafusion::optimizer::AnalyzerRule;
use datafusion::physical_expr_common::datum::apply;

use super::rewriting::{any_part, map_exprs};
use crate::Error;
use crate::error::sqlstate;
use crate::functions::array_casts::{cast_elements, converts_elements};
use crate::functions::floats::{ROUND_HALF_EVEN, as_real, round_half_even};
use crate::functions::floats_as_numerics::as_numeric;
use crate::functions::input::{cast_of_text, check_float, is_time, reads};
use crate::functions::numeric_texts::without_exponent;
use crate::functions::printed::{prints, text_of};
use crate::functions::rounded_times::{loses_digits, rounded};
use crate::functions::time_texts::readable;
use crate::sql::types::LENGTH_KEY;

/// The rule.
#[derive(Debug)]
pub(crate) struct SqlArithmetic;

impl AnalyzerRule for SqlArithmetic {
    fn name(&self) -> &str {
        "sql_arithmetic"
    }

    fn analyze(&self, plan: LogicalPlan, _options: &ConfigOptions) -> DataFusionResult<LogicalPlan> {
        // The notes on a cast's length go with it, in all schemas above.
        let mut noted = false;
        let rewritten = plan.transform_up_with_subqueries(|node| {
            let schema = merge_schema(&node.inputs());
            noted = noted || notes_length(&node)?;
            let node = map_exprs(node, |expr| rewrite_all(expr, &schema))?;
            match node.data {
                LogicalPlan::Union(union) if noted => {
                    Ok(Transformed::yes(LogicalPlan::Union(Union::try_new(union.inputs)?)))
                }
                data if node.transformed || noted => Ok(Transformed::yes(data.recompute_schema()?)),
                data => Ok(Transformed::no(data)),
            }
        });
        rewritten.map(|plan| plan.data)
    }
}

/// Whether an expression of the node is cast to a type of limited length.
fn notes_length(node: &LogicalPlan) -> DataFusionResult<bool> {
    any_part(node, |part| match part {
        Expr::Cast(Cast { field, .. }) | Expr::TryCast(TryCast { field, .. }) => {
            field.metadata().contains_key(LENGTH_KEY)
        }
        _ => false,
    })
}

/// Rewrites an expression and all that is in it. Types must have been coerced.
pub(crate) fn rewrite_all(expr: Expr, schema: &DFSchema) -> DataFusionResult<Transformed<Expr>> {
    expr.transform_down(|expr| rewrite(expr, schema))
}

fn rewrite(expr: Expr, schema: &DFSchema) -> DataFusionResult<Transformed<Expr>> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { op, .. }) if Family::of(op).is_some() => rewrite_chain(expr, schema),
        Expr::Negative(inner) if inner.get_type(schema)?.is_integer() => {
            let zero = lit(ScalarValue::new_zero(&inner.get_type(schema)?)?);
            let subtract = ScalarUDF::from(Checked::new(vec![Operation::Subtract]));
            Ok(Transformed::yes(subtract.call(vec![zero, *inner])))
        }
        // Not -0.0, which is another value to Arrow.
        Expr::Negative(inner) if inner.get_type(schema)?.is_floating() => {
            let zero = lit(ScalarValue::new_zero(&inner.get_type(schema)?)?);
            Ok(Transformed::yes(binary(zero, Operator::Minus, *inner)))
        }
        Expr::Cast(Cast { expr, field }) if field.metadata().contains_key(LENGTH_KEY) => {
            let length = cast_length(&field)?;
            let cast = Expr::Cast(Cast::new(expr, field.data_type().clone()));
            Ok(Transformed::yes(left().call(vec![cast, lit(length)])))
        }
        Expr::TryCast(TryCast { expr, field }) if field.metadata().contains_key(LENGTH_KEY) => {
            let length = cast_length(&field)?;
            let cast = Expr::TryCast(TryCast::new(expr, field.data_type().clone()));
            Ok(Transformed::yes(left().call(vec![cast, lit(length)])))
        }
        Expr::Cast(Cast { expr, field }) if field.data_type().is_string() && prints(&expr.get_type(schema)?) => {
            let text = text_of(*expr, "UTC");
            Ok(Transformed::yes(match field.data_type() {
                DataType::Utf8View => text,
                _ => Expr::Cast(Cast { expr: Box::new(text), field }),
            }))
        }
        Expr::Cast(Cast { expr, field })
            if *field.data_type() == DataType::Float32 && expr.get_type(schema)? == DataType::Float64 =>
        {
            Ok(Transformed::yes(as_real(*expr)))
        }
        Expr::Cast(Cast { expr, field })
            if matches!(expr.get_type(schema)?, DataType::Float32 | DataType::Float64)
                && matches!(field.data_type(), DataType::Decimal128(..)) =>
        {
            match *field.data_type() {
                DataType::Decimal128(precision, scale) => Ok(Transformed::yes(as_numeric(*expr, precision, scale))),
                _ => Ok(Transformed::no(Expr::Cast(Cast { expr, field }))),
            }
        }
        Expr::Cast(Cast { expr, field }) if reads(field.data_type()) && expr.get_type(schema)?.is_string() => {
            // Constants stay casts, which the optimiser knows to compute and scans to look up.
            let constant = match expr.as_ref() {
                Expr::Literal(value, _) if is_time(field.data_type()) => {
                    let text = value.try_as_str().flatten();
                    Some(text.and_then(|text| readable(text, field.data_type())))
                }
                Expr::Literal(value, _) if matches!(field.data_type(), DataType::Decimal128(..)) => {
                    Some(value.try_as_str().flatten().and_then(without_exponent))
                }
                Expr::Literal(value, _) if field.data_type().is_floating() => {
                    if let Some(text) = value.try_as_str().flatten() {
                        check_float(text, field.data_type())?;
                    }
                    Some(None)
                }
                _ => None,
            };
            match constant {
                Some(Some(text)) => Ok(Transformed::yes(Expr::Cast(Cast { expr: Box::new(lit(text)), field }))),
                Some(None) => Ok(Transformed::no(Expr::Cast(Cast { expr, field }))),
                None => Ok(Transformed::yes(cast_of_text(*expr, field.data_type())?)),
            }
        }
        Expr::Cast(Cast { expr, field }) if loses_digits(&expr.get_type(schema)?, field.data_type()) => {
            Ok(Transformed::yes(rounded(*expr, field.data_type())?))
        }
        Expr::Cast(Cast { expr, field }) if converts_elements(&expr.get_type(schema)?, field.data_type()) => {
            Ok(Transformed::yes(cast_elements(*expr, field.data_type(), "UTC")?))
        }
        Expr::Cast(Cast { expr, field }) if field.data_type().is_integer() => {
            let rounded = match expr.get_type(schema)? {
                DataType::Decimal128(_, 1..) => Expr::Cast(Cast::new(expr, DataType::Decimal128(38, 0))),
                DataType::Float32 | DataType::Float64 if !is_rounded(&expr) => round_half_even(*expr),
                _ => return Ok(Transformed::no(Expr::Cast(Cast { expr, field }))),
            };
            Ok(Transformed::yes(Expr::Cast(Cast { expr: Box::new(rounded), field })))
        }
        other => Ok(Transformed::no(other)),
    }
}

/// The n of `varchar(n)`.
fn cast_length(field: &Field) -> DataFusionResult<i64> {
    let length = field.metadata().get(LENGTH_KEY).and_then(|length| length.parse().ok());
    length.ok_or_else(|| internal_datafusion_err!("a cast's length is a number"))
}

/// Rewrites `a + b - c …`, or the same with `* / %`, from its left end; the operands are rewritten on the way.
fn rewrite_chain(mut expr: Expr, schema: &DFSchema) -> DataFusionResult<Transformed<Expr>> {
    let mut steps = Vec::new();
    let mut family = None;
    let first = loop {
        match expr {
            Expr::BinaryExpr(BinaryExpr { left, op, right })
                if Family::of(op).is_some() && (family.is_none() || family == Family::of(op)) =>
            {
                family = Family::of(op);
                steps.push((op, *right));
                expr = *left;
            }
            other => break other,
        }
    };
    let mut done_type = first.get_type(schema)?;
    let first = rewrite_all(first, schema)?;
    let mut changed = first.transformed;
    // What has been put together so far, as the call's arguments and operations if it is one of integers.
    let mut done = vec![first.data];
    let mut operations: Vec<Operation> = Vec::new();
    let mut checked = false;
    for (op, operand) in steps.into_iter().rev() {
        let operand_type = operand.get_type(schema)?;
        let operand = rewrite_all(operand, schema)?;
        changed |= operand.transformed;
        match Operation::of(op) {
            Some(operation) if done_type == operand_type && is_checked(&done_type, operation) => {
                changed = true;
                operations.push(operation);
                checked = true;
                done.push(operand.data);
            }
            Some(operation) if done_type == operand_type && done_type.is_integer() => {
                operations.push(operation);
                done.push(operand.data);
            }
            _ => {
                done_type = BinaryTypeCoercer::new(&done_type, &op, &operand_type).get_result_type()?;
                let left = put_together(done, std::mem::take(&mut operations), std::mem::take(&mut checked));
                done = vec![binary(left, op, operand.data)];
            }
        }
    }
    // The operands are done: the walk must not enter them once more.
    Ok(Transformed::new(put_together(done, operations, checked), changed, TreeNodeRecursion::Jump))
}

/// The call of `operations` on one more operands, or the planner's own operators if none of them can overflow.
fn put_together(operands: Vec<Expr>, operations: Vec<Operation>, checked: bool) -> Expr {
    if checked {
        return ScalarUDF::from(Checked::new(operations)).call(operands);
    }
    let mut operands = operands.into_iter();
    let first = operands.next().expect("a chain begins with an operand");
    operands.zip(operations).fold(first, |left, (right, operation)| binary(left, operation.operator(), right))
}

fn binary(left: Expr, op: Operator, right: Expr) -> Expr {
    Expr::BinaryExpr(BinaryExpr { left: Box::new(left), op, right: Box::new(right) })
}

/// The operators of a call that this rule has made, from left to right.
pub(crate) fn checked_operators(function: &ScalarUDF) -> Option<Vec<Operator>> {
    let checked = function.inner().downcast_ref::<Checked>()?;
    Some(checked.operations.iter().map(|operation| operation.operator()).collect())
}

/// Whether the rule has been here: a plan may be analysed again, as part of a larger one.
fn is_rounded(expr: &Expr) -> bool {
    matches!(expr, Expr::ScalarFunction(function) if function.func.name() == ROUND_HALF_EVEN)
}

/// Operators of one precedence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Additive,
    Multiplicative,
}

impl Family {
    fn of(operator: Operator) -> Option<Family> {
        Some(match operator {
            Operator::Plus | Operator::Minus => Family::Additive,
            Operator::Multiply | Operator::Divide | Operator::Modulo => Family::Multiplicative,
            _ => return None,
        })
    }
}

/// Whether DataFusion's own operator would wrap around, or make an infinity of finite numbers.
fn is_checked(data_type: &DataType, operation: Operation) -> bool {
    match operation {
        Operation::Add | Operation::Subtract | Operation::Multiply => data_type.is_integer() || data_type.is_floating(),
        Operation::Divide => data_type.is_floating(),
        Operation::Modulo => false,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Operation {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
}

impl Operation {
    fn of(operator: Operator) -> Option<Operation> {
        Some(match operator {
            Operator::Plus => Operation::Add,
            Operator::Minus => Operation::Subtract,
            Operator::Multiply => Operation::Multiply,
            Operator::Divide => Operation::Divide,
            Operator::Modulo => Operation::Modulo,
            _ => return None,
        })
    }

    fn operator(self) -> Operator {
        match self {
            Operation::Add => Operator::Plus,
            Operation::Subtract => Operator::Minus,
            Operation::Multiply => Operator::Multiply,
            Operation::Divide => Operator::Divide,
            Operation::Modulo => Operator::Modulo,
        }
    }

    fn kernel(self) -> fn(&dyn Datum, &dyn Datum) -> Result<ArrayRef, ArrowError> {
        match self {
            Operation::Add => numeric::add,
            Operation::Subtract => numeric::sub,
            Operation::Multiply => numeric::mul,
            Operation::Divide => numeric::div,
            Operation::Modulo => numeric::rem,
        }
    }
}

/// Operations on integers or floats one after the other, from left to right, that fail with an overflow error instead of
/// wrapping around. Takes one more argument than there are operations, all of one type, which is also the result's.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Checked {
    /// Tells the operations: the planner takes two expressions of the same name for the same.
    name: String,
    operations: Vec<Operation>,
    signature: Signature,
}

impl Checked {
    fn new(operations: Vec<Operation>) -> Self {
        let name = match operations.as_slice() {
            [Operation::Add] => "checked_add".to_owned(),
            [Operation::Subtract] => "checked_subtract".to_owned(),
            [Operation::Multiply] => "checked_multiply".to_owned(),
            several => {
                let symbols: Vec<String> = several.iter().map(|operation| operation.operator().to_string()).collect();
                format!("checked[{}]", symbols.join(" "))
            }
        };
        let signature = Signature::any(operations.len() + 1, Volatility::Immutable);
        Checked { name, operations, signature }
    }
}

impl ScalarUDFImpl for Checked {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, argument_types: &[DataType]) -> DataFusionResult<DataType> {
        match argument_types.first() {
            Some(first) if argument_types.len() == self.operations.len() + 1 => Ok(first.clone()),
            _ => exec_err!("{} takes {} arguments", self.name, self.operations.len() + 1),
        }
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs) -> DataFusionResult<FieldRef> {
        let types: Vec<DataType> = arguments.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        let nullable = arguments.arg_fields.iter().any(|field| field.is_nullable());
        Ok(Arc::new(Field::new(self.name(), self.return_type(&types)?, nullable)))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let mut values = arguments.args.into_iter();
        let Some(first) = values.next() else { return exec_err!("{} takes arguments", self.name) };
        self.operations.iter().zip(values).try_fold(first, |left, (operation, right)| {
            let result = apply(&left, &right, operation.kernel())?;
            if left.data_type().is_floating() {
                let rows = arguments.number_rows;
                check_floats(*operation, &left, &right, &result, rows)?;
                if matches!(operation, Operation::Multiply | Operation::Divide) {
                    return positive_zeros(&result);
                }
            }
            Ok(result)
        })
    }
}

/// Makes 0.0 of -0.0, which is another value to Arrow: in comparisons, joins and groups.
pub(crate) fn positive_zeros(floats: &ColumnarValue) -> DataFusionResult<ColumnarValue> {
    let zero = ColumnarValue::Scalar(ScalarValue::new_zero(&floats.data_type())?);
    apply(floats, &zero, numeric::add)
}

/// Fails where finite numbers gave an infinity, or 0 was divided by.
fn check_floats(
    operation: Operation,
    left: &ColumnarValue,
    right: &ColumnarValue,
    result: &ColumnarValue,
    rows: usize,
) -> DataFusionResult<()> {
    let finite = |value: &ColumnarValue| -> DataFusionResult<bool> {
        Ok(match value {
            ColumnarValue::Scalar(ScalarValue::Float64(value)) => value.is_none_or(f64::is_finite),
            ColumnarValue::Scalar(ScalarValue::Float32(value)) => value.is_none_or(f32::is_finite),
            ColumnarValue::Scalar(value) => match value.cast_to(&DataType::Float64)? {
                ScalarValue::Float64(value) => value.is_none_or(f64::is_finite),
                _ => true,
            },
            ColumnarValue::Array(array) => match array.data_type() {
                DataType::Float64 => array.as_primitive::<Float64Type>().values().iter().all(|value| value.is_finite()),
                DataType::Float32 => array.as_primitive::<Float32Type>().values().iter().all(|value| value.is_finite()),
                // Halves come as parameters.
                _ => {
                    let doubles = cast(array, &DataType::Float64)?;
                    doubles.as_primitive::<Float64Type>().values().iter().all(|value| value.is_finite())
                }
            },
        })
    };
    // Nearly always: nothing to look at one by one.
    if finite(result)? {
        return Ok(());
    }
    let doubles =
        |value: &ColumnarValue| cast(&value.to_array(rows)?, &DataType::Float64).map_err(DataFusionError::from);
    let (left, right, result) = (doubles(left)?, doubles(right)?, doubles(result)?);
    let (left, right) = (left.as_primitive::<Float64Type>(), right.as_primitive::<Float64Type>());
    for (row, value) in result.as_primitive::<Float64Type>().iter().enumerate() {
        let (Some(value), left, right) = (value, left.value(row), right.value(row)) else { continue };
        if value.is_finite() {
            continue;
        }
        if operation == Operation::Divide && right == 0.0 && !left.is_nan() {
            return Err(ArrowError::DivideByZero.into());
        }
        if value.is_infinite() && left.is_finite() && right.is_finite() {
            return Err(Error::new(sqlstate::NUMERIC_OUT_OF_RANGE, "value out of range: overflow").into());
        }
    }
    Ok(())
}
