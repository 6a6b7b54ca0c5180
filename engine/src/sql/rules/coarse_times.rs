//! Timestamps of fewer digits compared with those of more: an analyser rule that runs after type coercion.
//!
//! A `timestamp(0)` beside a constant with a fraction is cast to microseconds. DataFusion's optimiser compares without that cast
//! then, and cuts the constant off for it: `c = '… 00:00:00.5'` is true of `00:00:00`, `c < '… 00:00:00.5'` is not. So such a cast
//! is hidden in a function wherever a condition may get to it; and of a constant it is computed what the column may be:
//!
//! | condition | becomes |
//! |---|---|
//! | `c < k`, `c >= k` | `c < ceil(k)`, `c >= ceil(k)`, in the column's unit |
//! | `c <= k`, `c > k` | `c <= floor(k)`, `c > floor(k)` |
//! | `c = k`, `c <> k` | `c >= ceil(k) AND c <= floor(k)`, `c < ceil(k) OR c > floor(k)`: no and every value if k lies between two of the column's, and NULL for NULL; `c = k` where k is known to be one of them |
//! | `c BETWEEN j AND k` | `c BETWEEN ceil(j) AND floor(k)` |
//! | `c IN (j, k)` | the same list of those that are values of the column |
//!
//! A column alone on one side is what indexes, bounds of files and keys are looked up by.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, TimeUnit};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::utils::take_function_args;
use datafusion::common::{DFSchema, ScalarValue, internal_err};
use datafusion::config::ConfigOptions;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::expr::{Between, BinaryExpr, Cast, InList, ScalarFunction};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, LogicalPlan, Operator, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility, lit,
};
use datafusion::optimizer::AnalyzerRule;
use datafusion::optimizer::simplify_expressions::ExprSimplifier;

use super::rewriting::{any_node, any_part, map_parts};

/// What hides a cast.
static FINER: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Arc::new(ScalarUDF::from(Finer::new())));

/// The rule.
#[derive(Debug)]
pub(crate) struct CoarseTimes;

impl AnalyzerRule for CoarseTimes {
    fn name(&self) -> &str {
        "coarse_times"
    }

    fn analyze(&self, plan: LogicalPlan, options: &ConfigOptions) -> DataFusionResult<LogicalPlan> {
        if !any_node(&plan, |node| any_part(node, is_cast_to_timestamp))? {
            return Ok(plan);
        }
        let rewritten = plan.transform_up_with_subqueries(|node| {
            // No condition gets through these to what they compute of a column.
            let is_barrier =
                matches!(node, LogicalPlan::Aggregate(_) | LogicalPlan::Window(_) | LogicalPlan::Values(_));
            if is_barrier || !any_part(&node, is_cast_to_timestamp)? {
                return Ok(Transformed::no(node));
            }
            let schema = merge_schema(&node.inputs());
            let node = map_parts(node, |part| rewrite(part, &schema, options))?;
            match node.transformed {
                true => node.map_data(LogicalPlan::recompute_schema),
                false => Ok(node),
            }
        });
        rewritten.map(|plan| plan.data)
    }
}

fn is_cast_to_timestamp(part: &Expr) -> bool {
    matches!(part, Expr::Cast(Cast { field, .. }) if matches!(field.data_type(), DataType::Timestamp(..)))
}

fn rewrite(expr: Expr, schema: &DFSchema, options: &ConfigOptions) -> DataFusionResult<Transformed<Expr>> {
    match expr {
        Expr::Cast(cast) => {
            let hides = !matches!(cast.expr.as_ref(), Expr::Literal(..)) && refines(&cast, schema)?;
            let cast = Expr::Cast(cast);
            Ok(if hides { Transformed::yes(FINER.call(vec![cast])) } else { Transformed::no(cast) })
        }
        Expr::ScalarFunction(call) => {
            // A plan may be analysed again, as part of a larger one.
            let inner = hidden_cast(&call).filter(|inner| is_hidden_cast(inner)).cloned();
            Ok(match inner {
                Some(once) => Transformed::yes(once),
                None => Transformed::no(Expr::ScalarFunction(call)),
            })
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let (coarse, op_of_coarse, constant) = match (coarse_side(&left), coarse_side(&right), op.swap()) {
                (Some(coarse), _, _) if is_constant(&right)? => (coarse, op, right.as_ref()),
                (_, Some(coarse), Some(swapped)) if is_constant(&left)? => (coarse, swapped, left.as_ref()),
                _ => return Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right }))),
            };
            match compared(coarse, op_of_coarse, constant, schema, options)? {
                Some(condition) => Ok(Transformed::yes(condition)),
                None => Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right }))),
            }
        }
        Expr::Between(Between { expr, negated, low, high }) => match coarse_side(&expr) {
            Some(coarse) if is_constant(&low)? && is_constant(&high)? => {
                let unit = unit_of(coarse, schema)?;
                let low = Box::new(in_unit(&low, unit, true, options)?);
                let high = Box::new(in_unit(&high, unit, false, options)?);
                let expr = Box::new(coarse.clone());
                Ok(Transformed::yes(Expr::Between(Between { expr, negated, low, high })))
            }
            _ => Ok(Transformed::no(Expr::Between(Between { expr, negated, low, high }))),
        },
        Expr::InList(in_list) => match coarse_side(&in_list.expr) {
            Some(coarse) => match listed(coarse, &in_list, schema, options)? {
                Some(condition) => Ok(Transformed::yes(condition)),
                None => Ok(Transformed::no(Expr::InList(in_list))),
            },
            None => Ok(Transformed::no(Expr::InList(in_list))),
        },
        other => Ok(Transformed::no(other)),
    }
}

/// Whether a cast adds digits to a timestamp.
fn refines(cast: &Cast, schema: &DFSchema) -> DataFusionResult<bool> {
    let DataType::Timestamp(to, _) = cast.field.data_type() else { return Ok(false) };
    Ok(match cast.expr.get_type(schema)? {
        DataType::Timestamp(from, _) => per_second(to) > per_second(&from),
        _ => false,
    })
}

/// The cast in `finer(cast)`.
fn hidden_cast(call: &ScalarFunction) -> Option<&Expr> {
    call.func.inner().downcast_ref::<Finer>()?;
    call.args.first()
}

fn is_hidden_cast(expr: &Expr) -> bool {
    matches!(expr, Expr::ScalarFunction(call) if hidden_cast(call).is_some())
}

/// What is cast to be compared.
fn coarse_side(expr: &Expr) -> Option<&Expr> {
    let Expr::ScalarFunction(call) = expr else { return None };
    match hidden_cast(call)? {
        Expr::Cast(Cast { expr, .. }) => Some(expr),
        _ => None,
    }
}

fn unit_of(coarse: &Expr, schema: &DFSchema) -> DataFusionResult<TimeUnit> {
    match coarse.get_type(schema)? {
        DataType::Timestamp(unit, _) => Ok(unit),
        other => internal_err!("{other} was taken for a timestamp"),
    }
}

/// Whether an expression is the same for all rows, and may be computed twice.
fn is_constant(expr: &Expr) -> DataFusionResult<bool> {
    let varies = expr.exists(|part| {
        Ok(match part {
            Expr::ScalarFunction(call) => call.func.signature().volatility == Volatility::Volatile,
            Expr::Column(_)
            | Expr::OuterReferenceColumn(..)
            | Expr::ScalarSubquery(_)
            | Expr::Exists(_)
            | Expr::InSubquery(_)
            | Expr::SetComparison(_)
            | Expr::AggregateFunction(_)
            | Expr::WindowFunction(_)
            | Expr::Unnest(_) => true,
            _ => false,
        })
    })?;
    Ok(!varies)
}

/// The value of a constant, if it is the same whenever the statement runs.
fn known(constant: &Expr, options: &ConfigOptions) -> DataFusionResult<Option<ScalarValue>> {
    let depends = constant.exists(|part| {
        Ok(match part {
            Expr::ScalarFunction(call) => call.func.signature().volatility != Volatility::Immutable,
            Expr::Placeholder(_) => true,
            _ => false,
        })
    })?;
    if depends {
        return Ok(None);
    }
    let context = SimplifyContext::builder()
        .with_config_options(Arc::new(options.clone()))
        .with_schema(Arc::new(DFSchema::empty()))
        .build();
    Ok(match ExprSimplifier::new(context).simplify(constant.clone())? {
        Expr::Literal(value, _) => Some(value),
        _ => None,
    })
}

/// A constant as a value of the coarse unit; `None` if it lies between two of them.
fn exactly(value: &ScalarValue, unit: TimeUnit) -> DataFusionResult<Option<ScalarValue>> {
    let values = value.to_array()?;
    let (floor, ceil) = (turned(&values, unit, false)?, turned(&values, unit, true)?);
    let (floor, ceil) = (ScalarValue::try_from_array(&floor, 0)?, ScalarValue::try_from_array(&ceil, 0)?);
    Ok((floor == ceil).then_some(floor))
}

/// A comparison of the coarse side with a constant; `None` for other operators.
fn compared(
    coarse: &Expr,
    op: Operator,
    constant: &Expr,
    schema: &DFSchema,
    options: &ConfigOptions,
) -> DataFusionResult<Option<Expr>> {
    let unit = unit_of(coarse, schema)?;
    let with =
        |op, value: Expr| Expr::BinaryExpr(BinaryExpr { left: Box::new(coarse.clone()), op, right: Box::new(value) });
    let floor = || in_unit(constant, unit, false, options);
    let ceil = || in_unit(constant, unit, true, options);
    Ok(Some(match op {
        Operator::Lt | Operator::GtEq => with(op, ceil()?),
        Operator::LtEq | Operator::Gt => with(op, floor()?),
        Operator::Eq | Operator::NotEq => match known(constant, options)? {
            Some(value) if let Some(value) = exactly(&value, unit)? => with(op, Expr::Literal(value, None)),
            _ if op == Operator::Eq => with(Operator::GtEq, ceil()?).and(with(Operator::LtEq, floor()?)),
            _ => with(Operator::Lt, ceil()?).or(with(Operator::Gt, floor()?)),
        },
        Operator::IsDistinctFrom | Operator::IsNotDistinctFrom => match known(constant, options)? {
            Some(value) => match exactly(&value, unit)? {
                Some(value) => with(op, Expr::Literal(value, None)),
                None => lit(op == Operator::IsDistinctFrom),
            },
            None => return Ok(None),
        },
        _ => return Ok(None),
    }))
}

/// IN of a list of constants that are known, as far as they are values of the coarse side.
fn listed(
    coarse: &Expr,
    in_list: &InList,
    schema: &DFSchema,
    options: &ConfigOptions,
) -> DataFusionResult<Option<Expr>> {
    let unit = unit_of(coarse, schema)?;
    let mut list = Vec::with_capacity(in_list.list.len());
    for item in &in_list.list {
        if !is_constant(item)? {
            return Ok(None);
        }
        let Some(value) = known(item, options)? else { return Ok(None) };
        list.extend(exactly(&value, unit)?.map(|value| Expr::Literal(value, None)));
    }
    let expr = Box::new(coarse.clone());
    let negated = in_list.negated;
    if !list.is_empty() {
        return Ok(Some(Expr::InList(InList { expr, list, negated })));
    }
    // Nothing is in it, but of a NULL nobody knows.
    let unknown = lit(ScalarValue::Boolean(None));
    Ok(Some(match (coarse.nullable(schema)?, negated) {
        (false, negated) => lit(negated),
        (true, false) => Expr::IsNull(expr).and(unknown),
        (true, true) => Expr::IsNotNull(expr).or(unknown),
    }))
}

fn per_second(unit: &TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    }
}

/// Timestamps in a coarser unit: the last that is not later, or the first that is not earlier.
fn turned(values: &ArrayRef, unit: TimeUnit, up: bool) -> DataFusionResult<ArrayRef> {
    let DataType::Timestamp(from, zone) = values.data_type() else {
        return internal_err!("{} was taken for a timestamp", values.data_type());
    };
    let ratio = (per_second(from) / per_second(&unit)).max(1);
    let numbers = cast(values, &DataType::Int64)?;
    let numbers = numbers.as_primitive::<Int64Type>().unary::<_, Int64Type>(|number| {
        let whole = number.div_euclid(ratio);
        whole + i64::from(up && number.rem_euclid(ratio) != 0)
    });
    let numbers: ArrayRef = Arc::new(numbers);
    Ok(cast(&numbers, &DataType::Timestamp(unit, zone.clone()))?)
}

/// A constant in the coarse unit.
fn in_unit(constant: &Expr, unit: TimeUnit, up: bool, options: &ConfigOptions) -> DataFusionResult<Expr> {
    if let Some(value) = known(constant, options)? {
        let value = ScalarValue::try_from_array(&turned(&value.to_array()?, unit, up)?, 0)?;
        return Ok(Expr::Literal(value, None));
    }
    let function = InUnit { signature: Signature::any(1, Volatility::Immutable), unit, up };
    Ok(ScalarUDF::from(function).call(vec![constant.clone()]))
}

/// `floor(timestamp)`, `ceil(timestamp)` to a unit.
#[derive(Debug, PartialEq, Eq, Hash)]
struct InUnit {
    signature: Signature,
    unit: TimeUnit,
    up: bool,
}

impl ScalarUDFImpl for InUnit {
    fn name(&self) -> &str {
        match self.up {
            true => "timestamp_ceil",
            false => "timestamp_floor",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, argument_types: &[DataType]) -> DataFusionResult<DataType> {
        match argument_types {
            [DataType::Timestamp(_, zone)] => Ok(DataType::Timestamp(self.unit, zone.clone())),
            _ => internal_err!("{}() takes a timestamp", self.name()),
        }
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs) -> DataFusionResult<FieldRef> {
        let types: Vec<DataType> = arguments.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        let nullable = arguments.arg_fields.iter().any(|field| field.is_nullable());
        Ok(Arc::new(Field::new(self.name(), self.return_type(&types)?, nullable)))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let [value] = take_function_args(self.name(), arguments.args)?;
        Ok(match value {
            ColumnarValue::Array(values) => ColumnarValue::Array(turned(&values, self.unit, self.up)?),
            ColumnarValue::Scalar(value) => {
                let turned = turned(&value.to_array()?, self.unit, self.up)?;
                ColumnarValue::Scalar(ScalarValue::try_from_array(&turned, 0)?)
            }
        })
    }
}

/// Gives back its argument.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Finer {
    signature: Signature,
}

impl Finer {
    fn new() -> Self {
        Finer { signature: Signature::any(1, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Finer {
    fn name(&self) -> &str {
        "finer"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, argument_types: &[DataType]) -> DataFusionResult<DataType> {
        Ok(argument_types.first().cloned().unwrap_or(DataType::Null))
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs) -> DataFusionResult<FieldRef> {
        match arguments.arg_fields {
            [field] => Ok(Arc::new(field.as_ref().clone().with_name(self.name()))),
            _ => internal_err!("{}() takes one argument", self.name()),
        }
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let [value] = take_function_args(self.name(), arguments.args)?;
        Ok(value)
    }
}
