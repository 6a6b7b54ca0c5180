//! From DataFusion's analysed expressions to [`Node`]s.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, DFSchemaRef, ScalarValue};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::expr::{Between, BinaryExpr, Case, Cast, InList, Placeholder, ScalarFunction};
use datafusion::logical_expr::{
    EmptyRelation, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Operator, Projection,
};
use datafusion::optimizer::OptimizerConfig;
use datafusion::sql::sqlparser::ast;

use super::foreign::Foreign;
use super::native::{Arithmetic, Class, Comparison, Conversion, Operation, TextFunction};
use super::{Inputs, Node};
use crate::Result;
use crate::row_path::datum::{Datum, Type};
use crate::sql::check::check_queries;
use crate::sql::context::StatementContext;
use crate::sql::plan::planner;
use crate::sql::rules::arithmetic::checked_operators;
use crate::sql::rules::listed_values::in_each_row;
use crate::sql::rules::opaque_values::rounded_cast;
use crate::sql::types::LENGTH_KEY;

/// The columns an expression may use.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scope<'a> {
    pub(crate) schema: &'a DFSchema,
    /// What each column of the schema is: a column of a row, or an expression of a projection below.
    pub(crate) slots: &'a [Node],
}

/// Gives the placeholders in an expression the types of the values that will come.
pub(crate) fn typed_expr(expr: Expr, parameters: &[Type]) -> DataFusionResult<Transformed<Expr>> {
    expr.transform_up(|part| match part {
        Expr::Placeholder(Placeholder { id, field }) => {
            let given = id.strip_prefix('$').and_then(|digits| digits.parse::<usize>().ok());
            let given = given.and_then(|number| parameters.get(number.checked_sub(1)?));
            Ok(match given {
                // A NULL of no type is what it is.
                Some(DataType::Null) => Transformed::yes(Expr::Literal(ScalarValue::Null, None)),
                Some(given) => {
                    let field = Some(Arc::new(Field::new("", given.clone(), true)));
                    Transformed::yes(Expr::Placeholder(Placeholder { id, field }))
                }
                None => Transformed::no(Expr::Placeholder(Placeholder { id, field })),
            })
        }
        other => Ok(Transformed::no(other)),
    })
}

/// Plans an expression without columns and coerces its types. `None` if it cannot stand alone.
pub(crate) fn analyzed(
    context: &StatementContext,
    mut expression: ast::Expr,
    parameters: &[Type],
) -> Result<Option<(Expr, DFSchemaRef)>> {
    check_queries(&mut expression)?;
    let schema = Arc::new(DFSchema::empty());
    // The planner asks for the types of operands while it reads an expression: `$1 || $2`.
    let context = &context.clone().with_parameters(parameters.iter().cloned());
    let expr = planner(context).sql_to_expr(expression, &schema, &mut context.planner_context())?;
    let expr = typed_expr(expr, parameters)?.data;
    let input = LogicalPlan::EmptyRelation(EmptyRelation { produce_one_row: true, schema: Arc::clone(&schema) });
    let plan = LogicalPlanBuilder::from(input).project(vec![expr.alias("value")])?.build()?;
    let options = OptimizerConfig::options(context);
    match context.shared().analyzer().execute_and_check(plan, &options, |_, _| {})? {
        LogicalPlan::Projection(Projection { mut expr, .. }) if expr.len() == 1 => match expr.pop() {
            Some(expr) => Ok(Some((with_known_scales(expr.unalias())?, schema))),
            None => Ok(None),
        },
        _ => Ok(None),
    }
}

/// `round(x, CAST(2 AS int))` with the constant that the optimiser would put there: a decimal's scale follows from it.
fn with_known_scales(expr: Expr) -> DataFusionResult<Expr> {
    let known = expr.transform_up(|part| match part {
        Expr::ScalarFunction(ScalarFunction { func, mut args }) if func.name() == "round" => {
            let mut changed = false;
            for argument in args.iter_mut().skip(1) {
                if let Expr::Cast(Cast { expr, field }) = argument
                    && let Expr::Literal(value, _) = expr.as_ref()
                {
                    *argument = Expr::Literal(value.cast_to(field.data_type())?, None);
                    changed = true;
                }
            }
            Ok(Transformed::new_transformed(Expr::ScalarFunction(ScalarFunction { func, args }), changed))
        }
        other => Ok(Transformed::no(other)),
    });
    known.map(|known| known.data)
}

/// Expressions nested deeper are left to threads with larger stacks.
const DEPTH_MAX: usize = 64;

/// Translates an analysed expression. `None`: the row path does not know it.
pub(crate) fn compile(context: &StatementContext, expr: &Expr, scope: Scope<'_>) -> Option<Node> {
    compile_part(context, expr, scope).filter(|node| node.depth() <= DEPTH_MAX)
}

fn compile_part(context: &StatementContext, expr: &Expr, scope: Scope<'_>) -> Option<Node> {
    let compiler = Compiler { context, scope };
    let node = match compiler.native(expr) {
        Some(node) => node,
        None => Node::Foreign(Box::new(Foreign::compile(context, expr, scope)?)),
    };
    Some(folded(node))
}

/// A part without columns, parameters and time, evaluated once and for all.
fn folded(node: Node) -> Node {
    let mut fixed = !matches!(node, Node::Constant(_));
    node.visit(&mut |part| {
        fixed &= !matches!(part, Node::Stored(..) | Node::Value(_) | Node::Parameter(_) | Node::Now);
    });
    if !fixed {
        return node;
    }
    match node.evaluate(&Inputs { rows: &[], values: &[], parameters: &[], now: 0 }) {
        Ok(value) => Node::Constant(value),
        Err(_) => node,
    }
}

/// A column or parameter.
pub(super) fn leaf(expr: &Expr, scope: Scope<'_>) -> Option<Node> {
    match expr {
        Expr::Column(column) => {
            let index = scope.schema.maybe_index_of_column(column)?;
            scope.slots.get(index).cloned()
        }
        Expr::Placeholder(Placeholder { id, field: Some(_) }) => {
            let number = id.strip_prefix('$')?.parse::<usize>().ok()?;
            Some(Node::Parameter(number.checked_sub(1)?))
        }
        _ => None,
    }
}

/// How two analysed expressions compare.
pub(crate) fn comparison_class(left: &Expr, right: &Expr, schema: &DFSchema) -> Option<Class> {
    Class::of(&left.get_type(schema).ok()?, &right.get_type(schema).ok()?)
}

/// The parts of an operand that is compiled anew for each comparison with it.
const SMALL: usize = 8;

/// Whether an operand may be. One with another in it that is, and so on, would take twice as long for each of them.
fn is_small(expr: &Expr) -> bool {
    let mut parts = 0;
    let counted = expr.apply(|_| {
        parts += 1;
        Ok(if parts > SMALL { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    counted.is_ok() && parts <= SMALL
}

struct Compiler<'a> {
    context: &'a StatementContext,
    scope: Scope<'a>,
}

impl Compiler<'_> {
    fn node(&self, expr: &Expr) -> Option<Node> {
        compile_part(self.context, expr, self.scope)
    }

    fn boxed(&self, expr: &Expr) -> Option<Box<Node>> {
        self.node(expr).map(Box::new)
    }

    fn nodes<'e>(&self, exprs: impl IntoIterator<Item = &'e Expr>) -> Option<Vec<Node>> {
        exprs.into_iter().map(|expr| self.node(expr)).collect()
    }

    fn sides(&self, left: &Expr, right: &Expr) -> Option<Box<(Node, Node)>> {
        Some(Box::new((self.node(left)?, self.node(right)?)))
    }

    fn type_of(&self, expr: &Expr) -> Option<Type> {
        expr.get_type(self.scope.schema).ok()
    }

    fn class(&self, left: &Expr, right: &Expr) -> Option<Class> {
        comparison_class(left, right, self.scope.schema)
    }

    fn is_boolean(&self, expr: &Expr) -> bool {
        matches!(self.type_of(expr), Some(DataType::Boolean | DataType::Null))
    }

    /// Translates what is computed here; `None` for what is not.
    fn native(&self, expr: &Expr) -> Option<Node> {
        let truth = |inner: &Expr, truth, wanted| {
            let boolean = self.is_boolean(inner).then(|| self.boxed(inner))?;
            Some(Node::IsTruth(boolean?, truth, wanted))
        };
        match expr {
            Expr::Alias(alias) => self.node(&alias.expr),
            Expr::Literal(value, _) => Some(Node::Constant(Datum::of(value))),
            Expr::Column(_) | Expr::Placeholder(_) => leaf(expr, self.scope),
            Expr::BinaryExpr(binary) => self.binary(binary),
            Expr::Not(inner) => self.is_boolean(inner).then(|| self.boxed(inner))?.map(Node::Not),
            Expr::IsNull(inner) => Some(Node::IsNull(self.boxed(inner)?, true)),
            Expr::IsNotNull(inner) => Some(Node::IsNull(self.boxed(inner)?, false)),
            Expr::IsTrue(inner) => truth(inner, Some(true), true),
            Expr::IsNotTrue(inner) => truth(inner, Some(true), false),
            Expr::IsFalse(inner) => truth(inner, Some(false), true),
            Expr::IsNotFalse(inner) => truth(inner, Some(false), false),
            Expr::IsUnknown(inner) => truth(inner, None, true),
            Expr::IsNotUnknown(inner) => truth(inner, None, false),
            Expr::Between(Between { expr, negated, low, high }) if is_small(expr) => {
                let (low_class, high_class) = (self.class(expr, low)?, self.class(expr, high)?);
                let above = Node::Compare(Comparison::GreaterOrEqual, low_class, self.sides(expr, low)?);
                let below = Node::Compare(Comparison::LessOrEqual, high_class, self.sides(expr, high)?);
                let between = Node::And(vec![above, below]);
                Some(if *negated { Node::Not(Box::new(between)) } else { between })
            }
            Expr::InList(InList { expr, list, negated }) => {
                let class = self.class(expr, list.first()?)?;
                list.iter().all(|item| self.class(expr, item) == Some(class)).then_some(())?;
                let (value, list) = (self.boxed(expr)?, self.nodes(list)?);
                Some(Node::InList { value, list, class, negated: *negated })
            }
            Expr::Case(case) => self.case(case),
            Expr::Cast(Cast { expr, field }) if !field.metadata().contains_key(LENGTH_KEY) => {
                let conversion = Conversion::of(&self.type_of(expr)?, field.data_type())?;
                Some(match conversion {
                    Conversion::Same => self.node(expr)?,
                    conversion => Node::Convert(conversion, self.boxed(expr)?),
                })
            }
            Expr::ScalarFunction(call) => self.function(call),
            _ => None,
        }
    }

    fn binary(&self, BinaryExpr { left, op, right }: &BinaryExpr) -> Option<Node> {
        if let Some(comparison) = comparison(*op) {
            return Some(Node::Compare(comparison, self.class(left, right)?, self.sides(left, right)?));
        }
        let operation = match op {
            Operator::And | Operator::Or => {
                let boolean = self.is_boolean(left) && self.is_boolean(right);
                boolean.then_some(())?;
                let parts = vec![self.node(left)?, self.node(right)?];
                return Some(if *op == Operator::And { Node::And(parts) } else { Node::Or(parts) });
            }
            Operator::IsDistinctFrom | Operator::IsNotDistinctFrom => {
                let distinct = *op == Operator::IsDistinctFrom;
                return Some(Node::Distinct(distinct, self.class(left, right)?, self.sides(left, right)?));
            }
            Operator::StringConcat => {
                let text = |expr: &Expr| self.type_of(expr).is_some_and(|data_type| data_type.is_string());
                (text(left) && text(right)).then_some(())?;
                return Some(Node::Text(TextFunction::Join, vec![self.node(left)?, self.node(right)?]));
            }
            other => operation(*other)?,
        };
        let arithmetic = Arithmetic::of(operation, &self.type_of(left)?, &self.type_of(right)?)?;
        Some(Node::Arithmetic(arithmetic, self.sides(left, right)?))
    }

    fn case(&self, Case { expr, when_then_expr, else_expr }: &Case) -> Option<Node> {
        expr.as_deref().is_none_or(is_small).then_some(())?;
        let mut cases = Vec::with_capacity(when_then_expr.len());
        for (when, then) in when_then_expr {
            let condition = match expr {
                Some(operand) => {
                    Node::Compare(Comparison::Equal, self.class(operand, when)?, self.sides(operand, when)?)
                }
                None => self.node(when)?,
            };
            cases.push((condition, self.node(then)?));
        }
        let otherwise = match else_expr {
            Some(otherwise) => self.boxed(otherwise)?,
            None => Box::new(Node::Constant(Datum::Null)),
        };
        Some(Node::Case { cases, otherwise })
    }

    fn function(&self, call: &ScalarFunction) -> Option<Node> {
        let ScalarFunction { func, args } = call;
        if let Some(operators) = checked_operators(func) {
            let mut operands = args.iter();
            let mut done = self.node(operands.next()?)?;
            let data_type = self.type_of(args.first()?)?;
            for (operator, operand) in operators.into_iter().zip(operands) {
                let arithmetic = Arithmetic::of(operation(operator)?, &data_type, &self.type_of(operand)?)?;
                done = Node::Arithmetic(arithmetic, Box::new((done, self.node(operand)?)));
            }
            return Some(done);
        }
        // There is no optimiser here that it would have to be kept from.
        if let Some(written) = rounded_cast(call).or_else(|| in_each_row(call)) {
            return self.node(written);
        }
        let types = args.iter().map(|argument| self.type_of(argument)).collect::<Option<Vec<_>>>()?;
        let text = types.iter().all(|data_type| data_type.is_string());
        match func.name() {
            "now" if args.is_empty() => {
                let whole = Expr::ScalarFunction(call.clone());
                let microseconds =
                    matches!(self.type_of(&whole)?, DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, _));
                microseconds.then_some(Node::Now)
            }
            "coalesce" => {
                let one_kind =
                    types.windows(2).all(|pair| Conversion::of(&pair[0], &pair[1]) == Some(Conversion::Same));
                one_kind.then_some(())?;
                Some(Node::Coalesce(self.nodes(args)?))
            }
            "array_element" => match (types.as_slice(), args.as_slice()) {
                ([DataType::List(_), DataType::Int64], [list, place]) => Some(Node::Element(self.sides(list, place)?)),
                _ => None,
            },
            "array_length" => match args.as_slice() {
                [list] if matches!(types[0], DataType::List(_)) => Some(Node::ListLength(self.boxed(list)?)),
                [list, Expr::Literal(dimension, _)]
                    if matches!(types[0], DataType::List(_)) && *dimension == ScalarValue::Int64(Some(1)) =>
                {
                    Some(Node::ListLength(self.boxed(list)?))
                }
                _ => None,
            },
            "round" => match (types.as_slice(), args.as_slice()) {
                // As a cast: both round halves away from zero.
                (
                    [from @ DataType::Decimal128(_, scale), _],
                    [number, Expr::Literal(ScalarValue::Int32(Some(places)), _)],
                ) if *places >= 0 => {
                    let to = self.type_of(&Expr::ScalarFunction(call.clone()))?;
                    let kept = i32::from(*scale).min(*places);
                    if !matches!(to, DataType::Decimal128(_, scale) if i32::from(scale) == kept) {
                        return None;
                    }
                    Some(Node::Convert(Conversion::of(from, &to)?, self.boxed(number)?))
                }
                _ => None,
            },
            "nullif" => match args.as_slice() {
                [left, right] => Some(Node::NullIf(self.class(left, right)?, self.sides(left, right)?)),
                _ => None,
            },
            "substr" => match types.as_slice() {
                [kind, DataType::Int64] | [kind, DataType::Int64, DataType::Int64] if kind.is_string() => {
                    Some(Node::Text(TextFunction::Part, self.nodes(args)?))
                }
                _ => None,
            },
            name if text && !args.is_empty() => {
                let function = TextFunction::named(name)?;
                Some(Node::Text(function, self.nodes(args)?))
            }
            _ => None,
        }
    }
}

/// The comparison an operator makes.
pub(crate) fn comparison(operator: Operator) -> Option<Comparison> {
    Some(match operator {
        Operator::Eq => Comparison::Equal,
        Operator::NotEq => Comparison::NotEqual,
        Operator::Lt => Comparison::Less,
        Operator::LtEq => Comparison::LessOrEqual,
        Operator::Gt => Comparison::Greater,
        Operator::GtEq => Comparison::GreaterOrEqual,
        _ => return None,
    })
}

fn operation(operator: Operator) -> Option<Operation> {
    Some(match operator {
        Operator::Plus => Operation::Add,
        Operator::Minus => Operation::Subtract,
        Operator::Multiply => Operation::Multiply,
        Operator::Divide => Operation::Divide,
        Operator::Modulo => Operation::Modulo,
        _ => return None,
    })
}
