//! Operands of different types brought together as PostgreSQL does: an analyser rule that runs before DataFusion's type
//! coercion, which would take another type.
//!
//! | operands | DataFusion | PostgreSQL, and here |
//! |---|---|---|
//! | double precision beside numeric | numeric(30,15): 1e-20 is 0, 1e20 out of range | double precision |
//! | real beside numeric or integer in an operator | numeric(14,7), real | double precision |
//! | real beside numeric in COALESCE, CASE, UNION …, IN of several | numeric(14,7) | real |
//! | numeric / numeric | four more digits than the dividend | at least 16 significant digits |
//! | quotient * quotient, mean * mean | no room before the point | [rounded](super::numeric_products) |
//! | `integer << 2`, `>>` | bigint, as the constant is | integer |
//! | `smallint << 20`, `>>` | by 4 bits, the lowest of 20 | shifted as an integer, of which the low bits are left |
//! | `ARRAY[ARRAY[1]]::text[]` | – | an array of arrays |
//! | `CAST(time AS interval)` and back, `sum(time)` | – | [a function](crate::functions::time_intervals) |
//! | an integer `# itself` | 0 even for NULL | `n - n` |
//! | bytes beside a text constant, in `\|\|` and LIKE | texts | the constant is read as bytes |
//! | the pattern of `~` and the like, also of `~ ANY (SELECT …)` | `.` matches no line break | it does |
//! | `date_part(field, x)` | an integer | [double precision](crate::functions::date_parts) |
//! | date beside timestamp | nanoseconds, which reach from 1677 to 2262 | a timestamp of the other's unit |
//! | `time` beside `time(9)` in CASE, UNION … | – | `time(9)` |
//! | `'2'` beside a number in CASE, UNION … | texts | [a number](crate::sql::tree::unknown_literals) |
//! | date beside `date ± interval` | – | [timestamps](super::interval_math), compared as dates where they are midnights |

use std::sync::Arc;

use arrow::array::types::{Decimal128Type, DecimalType};
use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, DFSchema, ScalarValue};
use datafusion::config::ConfigOptions;
use datafusion::error::Result as DataFusionResult;
use datafusion::functions::datetime::date_part;
use datafusion::logical_expr::expr::{
    Between, BinaryExpr, Case, Cast, InList, InSubquery, ScalarFunction, SetComparison, WindowFunction,
};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    Distinct, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Operator, Projection, Subquery, Union, cast, lit,
    not,
};
use datafusion::optimizer::AnalyzerRule;

use super::interval_order::compares;
use super::numeric_division::divide;
use super::numeric_products::multiply;
use super::rewriting::{map_parts, recomputed};
use super::time_units::finest;
use crate::functions::array_casts::as_deep;
use crate::functions::bytes::bytes_like;
use crate::functions::date_parts::is_double;
use crate::functions::input::bytes_of;
use crate::functions::time_intervals::{converted, converts, sum_as_interval};
use crate::sql::tree::called_functions::{across_lines, as_in_postgres, is_bytes};
use crate::sql::tree::unknown_literals::{constant, open_column, resolve, resolve_case, resolve_compared, type_beside};

/// The rule.
#[derive(Debug)]
pub(crate) struct MixedTypes;

impl AnalyzerRule for MixedTypes {
    fn name(&self) -> &str {
        "mixed_types"
    }

    fn analyze(&self, plan: LogicalPlan, _options: &ConfigOptions) -> DataFusionResult<LogicalPlan> {
        // Once a type has changed, all that is above must look again.
        let mut changed = false;
        let rewritten = plan.transform_up_with_subqueries(|node| {
            let node = match node {
                LogicalPlan::Union(union) => unite(union)?,
                LogicalPlan::Join(mut join) => {
                    let (left, right) = (Arc::clone(join.left.schema()), Arc::clone(join.right.schema()));
                    for (left_key, right_key) in &mut join.on {
                        let types = (left_key.get_type(&left)?, right_key.get_type(&right)?);
                        if let Some(common) = compared([&types.0, &types.1]) {
                            *left_key = cast_as(left_key.clone(), &types.0, &common);
                            *right_key = cast_as(right_key.clone(), &types.1, &common);
                        }
                    }
                    Transformed::no(LogicalPlan::Join(join))
                }
                other => Transformed::no(other),
            };
            changed |= node.transformed;
            let schema = merge_schema(&node.data.inputs());
            let node = map_parts(node.data, |part| rewrite(part, &schema))?;
            recomputed(node, &mut changed)
        });
        rewritten.map(|plan| plan.data)
    }
}

fn is_decimal(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Decimal128(..))
}

/// What operators take a mixture for; `None` if DataFusion knows that, too.
fn compared<'a>(types: impl IntoIterator<Item = &'a DataType> + Clone) -> Option<DataType> {
    number_of(types.clone()).or_else(|| timestamp_of(types))
}

/// The timestamp that dates beside timestamps are.
fn timestamp_of<'a>(types: impl IntoIterator<Item = &'a DataType>) -> Option<DataType> {
    let (mut dated, mut timestamp) = (false, None::<(TimeUnit, Option<Arc<str>>)>);
    for data_type in types {
        timestamp = match (data_type, timestamp) {
            (DataType::Null, known) => known,
            (DataType::Date32, known) => {
                dated = true;
                known
            }
            // What has nanoseconds has no other years either.
            (DataType::Timestamp(TimeUnit::Nanosecond, _), _) => return None,
            (DataType::Timestamp(unit, zone), None) => Some((*unit, zone.clone())),
            (DataType::Timestamp(unit, zone), Some((known_unit, known_zone))) => {
                let unit = if *unit == known_unit { known_unit } else { TimeUnit::Microsecond };
                Some((unit, known_zone.or_else(|| zone.clone())))
            }
            _ => return None,
        };
    }
    timestamp.filter(|_| dated).map(|(unit, zone)| DataType::Timestamp(unit, zone))
}

/// The number that different numbers are.
fn number_of<'a>(types: impl IntoIterator<Item = &'a DataType>) -> Option<DataType> {
    let (mut single, mut double, mut decimal, mut integer, mut other) = (false, false, false, false, false);
    for data_type in types {
        match data_type {
            DataType::Float32 => single = true,
            DataType::Float64 => double = true,
            DataType::Null => {}
            data_type if is_decimal(data_type) => decimal = true,
            data_type if data_type.is_integer() => integer = true,
            _ => other = true,
        }
    }
    let mixed = (double && decimal) || (single && (decimal || integer));
    (mixed && !other).then_some(DataType::Float64)
}

/// The one type of values that stand in each other's place; `None` if DataFusion knows it, too.
fn united<'a>(types: impl IntoIterator<Item = &'a DataType> + Clone) -> Option<DataType> {
    let double = types.clone().into_iter().any(|data_type| *data_type == DataType::Float64);
    let number = number_of(types.clone()).map(|_| if double { DataType::Float64 } else { DataType::Float32 });
    number.or_else(|| timestamp_of(types.clone())).or_else(|| finest(types))
}

/// `expr`, which is a `from`, as a `to`; constants at once, so that scans can look them up.
fn cast_as(expr: Expr, from: &DataType, to: &DataType) -> Expr {
    if from == to || *from == DataType::Null {
        return expr;
    }
    let text = match &expr {
        Expr::Literal(ScalarValue::Decimal128(Some(value), precision, scale), _) => {
            Some(Decimal128Type::format_decimal(*value, *precision, *scale))
        }
        _ => None,
    };
    let value = text.and_then(|text| match to {
        DataType::Float64 => text.parse().ok().map(|value| ScalarValue::Float64(Some(value))),
        DataType::Float32 => text.parse().ok().map(|value| ScalarValue::Float32(Some(value))),
        _ => None,
    });
    match value {
        Some(value) => Expr::Literal(value, None),
        None => Expr::Cast(Cast::new(Box::new(expr), to.clone())),
    }
}

fn rewrite(expr: Expr, schema: &DFSchema) -> DataFusionResult<Transformed<Expr>> {
    // A parameter may have no type yet.
    let type_of = |expr: &Expr| expr.get_type(schema).unwrap_or(DataType::Null);
    let to = |expr: Expr, common: &DataType| {
        let from = type_of(&expr);
        cast_as(expr, &from, common)
    };
    Ok(match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let types = (type_of(&left), type_of(&right));
            if compares(op) {
                let sides = match (&types.0, &types.1) {
                    (DataType::Date32, DataType::Timestamp(..)) => {
                        as_date(&right).map(|date| (left.as_ref().clone(), date))
                    }
                    (DataType::Timestamp(..), DataType::Date32) => {
                        as_date(&left).map(|date| (date, right.as_ref().clone()))
                    }
                    _ => None,
                };
                if let Some((left, right)) = sides {
                    let (left, right) = (Box::new(left), Box::new(right));
                    return Ok(Transformed::yes(Expr::BinaryExpr(BinaryExpr { left, op, right })));
                }
            }
            let numeric = op.is_numerical_operators();
            if (numeric || compares(op))
                && let Some(common) = compared([&types.0, &types.1])
            {
                let (left, right) = (Box::new(to(*left, &common)), Box::new(to(*right, &common)));
                return Ok(Transformed::yes(Expr::BinaryExpr(BinaryExpr { left, op, right })));
            }
            if op == Operator::StringConcat
                && let Some((left, right)) = as_bytes((&left, &types.0), (&right, &types.1))?
            {
                let (left, right) = (Box::new(left), Box::new(right));
                return Ok(Transformed::yes(Expr::BinaryExpr(BinaryExpr { left, op, right })));
            }
            if is_match(op)
                && let Some(pattern) = across_lines(&right)
            {
                let right = Box::new(pattern);
                return Ok(Transformed::yes(Expr::BinaryExpr(BinaryExpr { left, op, right })));
            }
            if matches!(op, Operator::BitwiseShiftLeft | Operator::BitwiseShiftRight) {
                match &types {
                    (DataType::Int16, width) if width.is_integer() => {
                        return Ok(Transformed::yes(shifted_smallint(*left, op, to(*right, &DataType::Int32))));
                    }
                    // What is shifted keeps its type, beside a constant too.
                    (DataType::Int32, DataType::Int64) => {
                        let right = Box::new(to(*right, &DataType::Int32));
                        return Ok(Transformed::yes(Expr::BinaryExpr(BinaryExpr { left, op, right })));
                    }
                    _ => {}
                }
            }
            // DataFusion makes 0 of it, whether it is NULL or not.
            if op == Operator::BitwiseXor && left == right && types.0.is_integer() {
                return Ok(Transformed::yes(Expr::BinaryExpr(BinaryExpr { left, op: Operator::Minus, right })));
            }
            if op == Operator::Divide
                && (is_decimal(&types.0) || is_decimal(&types.1))
                && let Some(quotient) = divide(&left, &types.0, &right, &types.1)
            {
                return Ok(Transformed::yes(quotient));
            }
            if op == Operator::Multiply
                && let Some(product) = multiply(&left, &types.0, &right, &types.1)
            {
                return Ok(Transformed::yes(product));
            }
            Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right }))
        }
        Expr::Between(Between { mut expr, negated, mut low, mut high }) => {
            let resolved = resolve_compared([&mut *expr, &mut *low, &mut *high], type_of)?;
            let types = [type_of(&expr), type_of(&low), type_of(&high)];
            let bound = |bound: &Expr, data_type: &DataType| match data_type {
                DataType::Date32 => Some(bound.clone()),
                _ => as_date(bound),
            };
            if types[0] == DataType::Date32
                && let (Some(low), Some(high)) = (bound(&low, &types[1]), bound(&high, &types[2]))
            {
                let (low, high) = (Box::new(low), Box::new(high));
                return Ok(Transformed::yes(Expr::Between(Between { expr, negated, low, high })));
            }
            if let Some(common) = compared(&types) {
                let [expr, low, high] = [*expr, *low, *high].map(|part| Box::new(to(part, &common)));
                return Ok(Transformed::yes(Expr::Between(Between { expr, negated, low, high })));
            }
            Transformed::new_transformed(Expr::Between(Between { expr, negated, low, high }), resolved)
        }
        Expr::Like(like) if is_bytes(&type_of(&like.expr)) && !like.case_insensitive && like.escape_char.is_none() => {
            let pattern_type = type_of(&like.pattern);
            let pattern = match is_bytes(&pattern_type) {
                true => Some(like.pattern.as_ref().clone()),
                false => bytes_in(&like.pattern)?,
            };
            match pattern {
                Some(pattern) => {
                    let found = bytes_like(*like.expr, pattern);
                    Transformed::yes(if like.negated { not(found) } else { found })
                }
                None => Transformed::no(Expr::Like(like)),
            }
        }
        Expr::InList(InList { mut expr, mut list, negated }) => {
            let resolved = resolve_compared(std::iter::once(&mut *expr).chain(&mut list), type_of)?;
            let types: Vec<DataType> = std::iter::once(expr.as_ref()).chain(&list).map(type_of).collect();
            // Several constants are an array in PostgreSQL, and what is looked up in it has their type.
            let is_array = list.len() > 1 && list.iter().all(|item| item.column_refs().is_empty());
            match if is_array { united(&types) } else { compared(&types) } {
                Some(common) => {
                    let list = list.into_iter().map(|item| to(item, &common)).collect();
                    Transformed::yes(Expr::InList(InList { expr: Box::new(to(*expr, &common)), list, negated }))
                }
                None => Transformed::new_transformed(Expr::InList(InList { expr, list, negated }), resolved),
            }
        }
        Expr::SetComparison(comparison) if is_match(comparison.op) => match written_patterns(&comparison.subquery)? {
            Some(subquery) => Transformed::yes(Expr::SetComparison(SetComparison { subquery, ..comparison })),
            None => Transformed::no(Expr::SetComparison(comparison)),
        },
        Expr::InSubquery(InSubquery { expr, subquery, negated }) => {
            let column_type = subquery.subquery.schema().field(0).data_type().clone();
            let Some(common) = compared([&type_of(&expr), &column_type]) else {
                return Ok(Transformed::no(Expr::InSubquery(InSubquery { expr, subquery, negated })));
            };
            let Subquery { subquery: plan, outer_ref_columns, spans } = subquery;
            let column = Expr::Column(Column::from(plan.schema().qualified_field(0)));
            let plan = LogicalPlanBuilder::from(plan).project(vec![cast_as(column, &column_type, &common)])?.build()?;
            let subquery = Subquery { subquery: Arc::new(plan), outer_ref_columns, spans };
            Transformed::yes(Expr::InSubquery(InSubquery { expr: Box::new(to(*expr, &common)), subquery, negated }))
        }
        Expr::Case(mut case) => {
            let mut changed = resolve_case(&mut case, type_of)?;
            let Case { mut expr, mut when_then_expr, mut else_expr } = case;
            if let Some(operand) = expr.take() {
                let types: Vec<DataType> = std::iter::once(&operand)
                    .chain(when_then_expr.iter().map(|(when, _)| when))
                    .map(|part| type_of(part))
                    .collect();
                expr = Some(match compared(&types) {
                    Some(common) => {
                        changed = true;
                        for (when, _) in &mut when_then_expr {
                            **when = to(when.as_ref().clone(), &common);
                        }
                        Box::new(to(*operand, &common))
                    }
                    None => operand,
                });
            }
            let types: Vec<DataType> =
                when_then_expr.iter().map(|(_, then)| then).chain(&else_expr).map(|part| type_of(part)).collect();
            if let Some(common) = united(&types) {
                changed = true;
                for (_, then) in &mut when_then_expr {
                    **then = to(then.as_ref().clone(), &common);
                }
                else_expr = else_expr.map(|otherwise| Box::new(to(*otherwise, &common)));
            }
            Transformed::new_transformed(Expr::Case(Case { expr, when_then_expr, else_expr }), changed)
        }
        Expr::ScalarFunction(ScalarFunction { func, mut args })
            if matches!(func.name(), "coalesce" | "greatest" | "least" | "nullif" | "nvl" | "make_array") =>
        {
            let resolved = match func.name() {
                "nullif" => resolve_compared(&mut args, type_of)?,
                _ => resolve(&mut args, type_of)?,
            };
            let types: Vec<DataType> = args.iter().map(type_of).collect();
            let common = if func.name() == "nullif" { compared(&types) } else { united(&types) };
            match common {
                Some(common) => {
                    let args = args.into_iter().map(|arg| to(arg, &common)).collect();
                    Transformed::yes(Expr::ScalarFunction(ScalarFunction { func, args }))
                }
                None => Transformed::new_transformed(Expr::ScalarFunction(ScalarFunction { func, args }), resolved),
            }
        }
        Expr::ScalarFunction(ScalarFunction { func, args }) if is_double(&func) => {
            let part = as_in_postgres(ScalarFunction { func: date_part(), args }, type_of)?.data;
            Transformed::yes(match type_of(&part) {
                DataType::Float64 => part,
                _ => cast(part, DataType::Float64),
            })
        }
        Expr::ScalarFunction(function) => as_in_postgres(function, type_of)?,
        Expr::AggregateFunction(mut function) => {
            let summed = sum_as_interval(function.func.name(), &mut function.params.args, type_of);
            Transformed::new_transformed(Expr::AggregateFunction(function), summed)
        }
        Expr::WindowFunction(mut function) => {
            let WindowFunction { fun, params } = function.as_mut();
            let summed = sum_as_interval(fun.name(), &mut params.args, type_of);
            Transformed::new_transformed(Expr::WindowFunction(function), summed)
        }
        Expr::Cast(Cast { expr, field }) => {
            let from = type_of(&expr);
            match (converts(&from, field.data_type()), as_deep(&from, field.data_type())) {
                (true, _) => Transformed::yes(converted(*expr, field.data_type())),
                (false, Some(deeper)) => Transformed::yes(cast(*expr, deeper)),
                (false, None) => Transformed::no(Expr::Cast(Cast { expr, field })),
            }
        }
        other => Transformed::no(other),
    })
}

/// Whether it looks for a regular expression.
fn is_match(op: Operator) -> bool {
    matches!(op, Operator::RegexMatch | Operator::RegexIMatch | Operator::RegexNotMatch | Operator::RegexNotIMatch)
}

/// A subquery for patterns with each as it is looked for.
fn written_patterns(subquery: &Subquery) -> DataFusionResult<Option<Subquery>> {
    let plan = &subquery.subquery;
    let (relation, field) = plan.schema().qualified_field(0);
    let name = field.name().clone();
    let column = Expr::Column(Column::new(relation.cloned(), &name));
    let Some(pattern) = across_lines(&column).filter(|_| field.data_type().is_string()) else { return Ok(None) };
    let written = LogicalPlanBuilder::from(Arc::clone(plan)).project([pattern.alias(name)])?.build()?;
    Ok(Some(subquery.with_plan(Arc::new(written))))
}

/// A smallint is shifted as an integer, by up to 31 bits, and stays one: of what it has no room for, the low bits are left.
fn shifted_smallint(number: Expr, op: Operator, width: Expr) -> Expr {
    let shift = |number, op, width| Expr::BinaryExpr(BinaryExpr { left: Box::new(number), op, right: Box::new(width) });
    let shifted = shift(cast(number, DataType::Int32), op, width);
    let fitting = match op {
        Operator::BitwiseShiftLeft => {
            let high = shift(shifted, Operator::BitwiseShiftLeft, lit(16_i32));
            shift(high, Operator::BitwiseShiftRight, lit(16_i32))
        }
        _ => shifted,
    };
    cast(fitting, DataType::Int16)
}

/// Both sides as bytes, where one is that and the other a text constant.
fn as_bytes(
    (left, left_type): (&Expr, &DataType),
    (right, right_type): (&Expr, &DataType),
) -> DataFusionResult<Option<(Expr, Expr)>> {
    Ok(match (is_bytes(left_type), is_bytes(right_type)) {
        (true, false) => bytes_in(right)?.map(|right| (left.clone(), right)),
        (false, true) => bytes_in(left)?.map(|left| (left, right.clone())),
        _ => None,
    })
}

/// The bytes that a text constant stands for.
fn bytes_in(expr: &Expr) -> DataFusionResult<Option<Expr>> {
    let Expr::Literal(value, _) = expr else { return Ok(None) };
    match value.try_as_str() {
        Some(Some(text)) => Ok(Some(lit(ScalarValue::BinaryView(Some(bytes_of(text)?))))),
        _ => Ok(None),
    }
}

/// The date that `date ± interval` is, if it is always a midnight: months and days are added.
///
/// A column of dates compared with it then stays one, which scans need to skip what is out of range.
fn as_date(expr: &Expr) -> Option<Expr> {
    match expr {
        Expr::Cast(Cast { expr, field }) => {
            let planned = *field.data_type() == DataType::Timestamp(TimeUnit::Microsecond, None);
            let is_date = expr.get_type(&DFSchema::empty()).is_ok_and(|data_type| data_type == DataType::Date32);
            (planned && is_date).then(|| expr.as_ref().clone())
        }
        Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::Plus | Operator::Minus), right }) => {
            let whole = match right.as_ref() {
                Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(interval)), _) => interval.nanoseconds == 0,
                _ => false,
            };
            let left = whole.then(|| as_date(left))??;
            Some(Expr::BinaryExpr(BinaryExpr { left: Box::new(left), op: *op, right: right.clone() }))
        }
        _ => None,
    }
}

/// Gives the columns of a UNION one type where the inputs have floats and other numbers.
fn unite(union: Union) -> DataFusionResult<Transformed<LogicalPlan>> {
    let Union { inputs, schema } = union;
    let width = schema.fields().len();
    if inputs.iter().any(|input| input.schema().fields().len() != width) {
        return Ok(Transformed::no(LogicalPlan::Union(Union { inputs, schema })));
    }
    let (inputs, resolved) = with_known_constants(inputs, width)?;
    let schema = match resolved {
        true => Union::try_new_with_loose_types(inputs.clone())?.schema,
        false => schema,
    };
    let (inputs, renamed) = named_distinct(inputs, &schema)?;
    let common: Vec<Option<DataType>> = (0..width)
        .map(|column| {
            let types: Vec<DataType> =
                inputs.iter().map(|input| input.schema().field(column).data_type().clone()).collect();
            united(&types)
        })
        .collect();
    if common.iter().all(Option::is_none) {
        return Ok(Transformed::new_transformed(LogicalPlan::Union(Union { inputs, schema }), renamed || resolved));
    }
    let mut cast = Vec::with_capacity(inputs.len());
    for input in inputs {
        let columns: Vec<Expr> = input
            .schema()
            .iter()
            .zip(&common)
            .map(|((qualifier, field), common)| {
                let column = Expr::Column(Column::from((qualifier, field)));
                match common {
                    Some(common) if common != field.data_type() => {
                        cast_as(column, field.data_type(), common).alias_qualified(qualifier.cloned(), field.name())
                    }
                    _ => column,
                }
            })
            .collect();
        cast.push(Arc::new(LogicalPlanBuilder::from(input).project(columns)?.build()?));
    }
    Ok(Transformed::yes(LogicalPlan::Union(Union::try_new_with_loose_types(cast)?)))
}

/// Gives the constants that are columns of some inputs, and of an open type, the type that the others have.
fn with_known_constants(
    inputs: Vec<Arc<LogicalPlan>>,
    width: usize,
) -> DataFusionResult<(Vec<Arc<LogicalPlan>>, bool)> {
    fn open(input: &LogicalPlan, column: usize) -> Option<&str> {
        match input {
            LogicalPlan::Projection(projection) => projection.expr.get(column).and_then(open_column),
            _ => None,
        }
    }
    let types: Vec<Option<DataType>> = (0..width)
        .map(|column| {
            if inputs.iter().all(|input| open(input, column).is_none()) {
                return None;
            }
            let others = inputs.iter().filter(|input| open(input, column).is_none());
            type_beside(others.map(|input| input.schema().field(column).data_type()))
        })
        .collect();
    if types.iter().all(Option::is_none) {
        return Ok((inputs, false));
    }
    let mut known = Vec::with_capacity(inputs.len());
    for input in inputs {
        let mut constants = Vec::new();
        for (column, wanted) in types.iter().enumerate() {
            if let (Some(wanted), Some(text)) = (wanted, open(&input, column)) {
                constants.push((column, constant(text, wanted)?));
            }
        }
        known.push(match input.as_ref() {
            LogicalPlan::Projection(projection) if !constants.is_empty() => {
                let mut columns = projection.expr.clone();
                for (column, constant) in constants {
                    let (qualifier, field) = projection.schema.qualified_field(column);
                    columns[column] = constant.alias_qualified(qualifier.cloned(), field.name());
                }
                Arc::new(LogicalPlan::Projection(Projection::try_new(columns, Arc::clone(&projection.input))?))
            }
            _ => input,
        });
    }
    Ok((known, true))
}

/// Gives the columns of DISTINCT inputs the UNION's names. A DISTINCT below another one is taken away, and what is below it
/// must be known by those names then.
fn named_distinct(inputs: Vec<Arc<LogicalPlan>>, schema: &DFSchema) -> DataFusionResult<(Vec<Arc<LogicalPlan>>, bool)> {
    let mut renamed = false;
    let mut named = Vec::with_capacity(inputs.len());
    for input in inputs {
        let same =
            |own: &DFSchema| own.fields().iter().zip(schema.fields()).all(|(own, name)| own.name() == name.name());
        named.push(match input.as_ref() {
            LogicalPlan::Distinct(Distinct::All(inner)) if !same(inner.schema()) => {
                renamed = true;
                let columns = inner.schema().iter().zip(schema.fields());
                let columns = columns.map(|(own, name)| Expr::Column(Column::from(own)).alias(name.name()));
                let plan = LogicalPlanBuilder::from(inner.as_ref().clone()).project(columns)?.build()?;
                Arc::new(LogicalPlan::Distinct(Distinct::All(Arc::new(plan))))
            }
            _ => input,
        });
    }
    Ok((named, renamed))
}
