//! Expressions of routines, compiled.
//!
//! ```text
//!   a                       Input                      no work at all
//!   a + 1 > length(b)       Plain: the row path's      below a microsecond, no waiting
//!   f(a) + 1                Calls: f first, then Plain
//!   CASE WHEN … THEN f(a) … Case: only what is chosen is called
//!   (SELECT max(x) FROM t)  Query: a statement
//! ```
//! Where the row path cannot tell the value (an overflow, a division by zero) the expression is run as a query, which
//! knows how to complain.

use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CaseWhen, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, LimitClause,
    Query, Select, SelectFlavor, SelectItem, SetExpr, UnaryOperator, Value as SqlValue, ValueWithSpan, Visit, VisitMut,
    Visitor, VisitorMut, visit_expressions_mut,
};
use datafusion::sql::sqlparser::tokenizer::Span;

use super::definition::{Routine, choose};
use super::execution::Clock;
use super::fragment::{ExpressionSyntax, SqlExpression};
use super::names::{InputTypes, Variables, resolve_variables};
use super::registry::Routines;
use super::statement::CompiledStatement;
use super::types::SqlType;
use crate::error::sqlstate;
use crate::row_path::{Datum, Expression};
use crate::sql::context::StatementContext;
use crate::sql::text::parse::{fold, table_name};
use crate::{Error, Result, sequences};

/// An expression whose names have been looked up.
#[derive(Debug)]
pub struct CompiledExpression {
    pub(crate) node: Node,
    pub(crate) data_type: DataType,
}

#[derive(Debug)]
pub(crate) enum Node {
    Input(usize),
    Constant(Datum),
    Plain {
        fast: Option<Expression>,
        slow: Box<CompiledStatement>,
    },
    Query(Box<CompiledStatement>),
    Call {
        routine: Arc<Routine>,
        arguments: Vec<Argument>,
    },
    /// The values of the calls come behind the inputs.
    Calls {
        calls: Vec<CompiledExpression>,
        rest: Box<CompiledExpression>,
    },
    Case {
        branches: Vec<(CompiledExpression, CompiledExpression)>,
        otherwise: Option<Box<CompiledExpression>>,
    },
    Logic {
        or: bool,
        sides: Box<[CompiledExpression; 2]>,
    },
    Coalesce(Vec<CompiledExpression>),
}

/// An argument of a call, and what it becomes.
#[derive(Debug)]
pub(crate) struct Argument {
    pub(crate) value: CompiledExpression,
    pub(crate) wanted: SqlType,
}

impl CompiledExpression {
    /// The input it is, if it is nothing else.
    pub(crate) fn as_input(&self) -> Option<usize> {
        match &self.node {
            Node::Input(input) => Some(*input),
            _ => None,
        }
    }

    /// The type of its value.
    pub fn data_type(&self) -> &DataType {
        &self.data_type
    }

    /// Its value, if it takes no waiting to find out.
    pub fn evaluate_now(&self, inputs: &[Datum], clock: Clock) -> Option<Datum> {
        match &self.node {
            Node::Input(input) => inputs.get(*input).cloned(),
            Node::Constant(value) => Some(value.clone()),
            Node::Plain { fast: Some(fast), slow: _ } if clock.computes => fast.evaluate(inputs, clock.now).ok(),
            _ => None,
        }
    }
}

/// Looks the names of an expression up.
pub(crate) fn compile(
    expression: &SqlExpression,
    context: &StatementContext,
    routines: &Routines,
    variables: &mut dyn Variables,
) -> Result<CompiledExpression> {
    match &expression.syntax {
        ExpressionSyntax::Scalar(syntax) => {
            let mut syntax = Expr::clone(syntax);
            let types = resolve_variables(&mut syntax, context, variables)?;
            Compiler { context, routines }.expression(syntax, &types)
        }
        ExpressionSyntax::Query(query) => {
            let mut query = Query::clone(query);
            let types = resolve_variables(&mut query, context, variables)?;
            let statement = CompiledStatement::of_query(without_exists(query), types, context, routines)?;
            let statement = statement.with_program(context);
            let shape = statement.describe(context)?;
            let data_type = match shape.types.as_slice() {
                [only] => only.data_type.clone(),
                columns => {
                    let message = format!("query \"{}\" returned {} columns", expression.text(), columns.len());
                    return Err(Error::new(sqlstate::SYNTAX, message));
                }
            };
            Ok(CompiledExpression { node: Node::Query(Box::new(statement)), data_type })
        }
    }
}

/// Compiles the parts of statements in which `$1 …` have known types.
pub(crate) struct Compiler<'a> {
    pub(crate) context: &'a StatementContext,
    pub(crate) routines: &'a Routines,
}

impl Compiler<'_> {
    pub(crate) fn expression(&self, syntax: Expr, types: &InputTypes) -> Result<CompiledExpression> {
        if let Some(input) = input_of(&syntax)
            && let Some(data_type) = types.get(input)
        {
            return Ok(CompiledExpression { node: Node::Input(input), data_type: data_type.clone() });
        }
        if let Some((value, data_type)) = literal(&syntax) {
            return Ok(CompiledExpression { node: Node::Constant(value), data_type });
        }
        if self.routines.is_empty(self.context) || !self.has_call(&syntax) {
            return self.plain(syntax, types);
        }
        match syntax {
            Expr::Nested(inner) => self.expression(*inner, types),
            Expr::Function(function) => match self.routines_of(&function)? {
                Some(candidates) => self.call(function, &candidates, types),
                None if is_coalesce(&function) => self.coalesce(function, types),
                None => self.calls_first(Expr::Function(function), types),
            },
            Expr::Case { operand: None, conditions, else_result, .. } => self.case(conditions, else_result, types),
            Expr::BinaryOp { left, op: op @ (BinaryOperator::And | BinaryOperator::Or), right } => {
                let sides = Box::new([self.expression(*left, types)?, self.expression(*right, types)?]);
                let or = op == BinaryOperator::Or;
                Ok(CompiledExpression { node: Node::Logic { or, sides }, data_type: DataType::Boolean })
            }
            other => self.calls_first(other, types),
        }
    }

    /// An expression that calls no routine.
    fn plain(&self, syntax: Expr, types: &InputTypes) -> Result<CompiledExpression> {
        let query = query_of(vec![SelectItem::UnnamedExpr(syntax.clone())]);
        let slow = Box::new(CompiledStatement::of_query(query, types.clone(), self.context, self.routines)?);
        let fast = Expression::compile(self.context, syntax, types)?;
        let data_type = match &fast {
            Some(fast) => fast.data_type().clone(),
            None => slow.describe(self.context)?.types.first().map_or(DataType::Null, |kind| kind.data_type.clone()),
        };
        Ok(CompiledExpression { node: Node::Plain { fast, slow }, data_type })
    }

    fn has_call<N: Visit>(&self, node: &N) -> bool {
        struct Finder<'a>(&'a Compiler<'a>);
        impl Visitor for Finder<'_> {
            type Break = ();
            fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
                match expr {
                    Expr::Function(function) if !matches!(self.0.routines_of(function), Ok(None)) => {
                        ControlFlow::Break(())
                    }
                    _ => ControlFlow::Continue(()),
                }
            }
        }
        node.visit(&mut Finder(self)).is_break()
    }

    /// Whether any part of a statement calls a routine.
    pub(crate) fn calls_routine<N: Visit>(&self, node: &N) -> bool {
        self.has_call(node)
    }

    /// The functions of users that a call may mean; what is built in comes first.
    pub(crate) fn routines_of(&self, function: &Function) -> Result<Option<Vec<Arc<Routine>>>> {
        if function.over.is_some() {
            return Ok(None);
        }
        let Ok((schema, name)) = table_name(&function.name) else { return Ok(None) };
        if schema.is_none() && self.is_built_in(&name) {
            return Ok(None);
        }
        let found = self.routines.find(self.context, schema.as_deref(), &name, false)?;
        Ok(Some(found).filter(|found| !found.is_empty()))
    }

    fn is_built_in(&self, name: &str) -> bool {
        let state = self.context.shared();
        state.scalar_functions().contains_key(name)
            || state.aggregate_functions().contains_key(name)
            || state.window_functions().contains_key(name)
            || sequences::is_function(name)
    }

    pub(crate) fn call(
        &self,
        function: Function,
        candidates: &[Arc<Routine>],
        types: &InputTypes,
    ) -> Result<CompiledExpression> {
        let (routine, arguments) = self.arguments(function, candidates, types)?;
        if routine.source.returns.is_set() {
            return Err(Error::unsupported(format!(
                "{}, which returns a set, in an expression",
                routine.source.signature
            ))
            .with_hint("SELECT … FROM it."));
        }
        let data_type = routine.result.data_type.clone();
        Ok(CompiledExpression { node: Node::Call { routine, arguments }, data_type })
    }

    /// The routine that a call means, and its arguments in the order of its inputs, with defaults.
    pub(crate) fn arguments(
        &self,
        function: Function,
        candidates: &[Arc<Routine>],
        types: &InputTypes,
    ) -> Result<(Arc<Routine>, Vec<Argument>)> {
        let name = function.name.to_string();
        let list = match function.args {
            FunctionArguments::None => Vec::new(),
            FunctionArguments::List(list) if list.duplicate_treatment.is_none() && list.clauses.is_empty() => list.args,
            _ => return Err(Error::unsupported(format!("these arguments of {name}"))),
        };
        if function.filter.is_some() || function.null_treatment.is_some() || !function.within_group.is_empty() {
            return Err(Error::unsupported(format!("FILTER, IGNORE NULLS or WITHIN GROUP of {name}")));
        }
        let mut given: Vec<(Option<String>, CompiledExpression, bool)> = Vec::with_capacity(list.len());
        for argument in list {
            let (label, value) = match argument {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(value)) => (None, value),
                FunctionArg::Named { name, arg: FunctionArgExpr::Expr(value), operator: _ } => {
                    (Some(fold(&name)), value)
                }
                FunctionArg::ExprNamed {
                    name: Expr::Identifier(name),
                    arg: FunctionArgExpr::Expr(value),
                    operator: _,
                } => (Some(fold(&name)), value),
                other => return Err(Error::unsupported(format!("the argument {other} of {name}"))),
            };
            if label.is_none() && given.iter().any(|(label, ..)| label.is_some()) {
                return Err(Error::syntax("positional argument cannot follow named argument"));
            }
            let untyped = is_untyped(&value);
            given.push((label, self.expression(value, types)?, untyped));
        }
        if given.iter().all(|(label, ..)| label.is_none()) {
            let kinds: Vec<Option<DataType>> =
                given.iter().map(|(_, value, untyped)| (!untyped).then(|| value.data_type.clone())).collect();
            let routine = choose(&name, candidates, &kinds)?;
            let values = given.into_iter().map(|(_, value, _)| Some(value)).collect();
            let arguments = self.complete(&routine, values)?;
            return Ok((routine, arguments));
        }
        // By name: the first routine that has parameters of these names.
        for routine in candidates {
            let inputs: Vec<Option<&str>> =
                routine.source.inputs().map(|(_, parameter)| parameter.name.as_deref()).collect();
            let places = given.iter().enumerate().map(|(place, (label, ..))| match label {
                None => Some(place).filter(|place| *place < inputs.len()),
                Some(label) => inputs.iter().position(|name| *name == Some(label.as_str())),
            });
            let Some(places) = places.collect::<Option<Vec<usize>>>() else { continue };
            let doubled = places.iter().enumerate().any(|(index, place)| places[..index].contains(place));
            let missing = (0..inputs.len()).any(|place| !places.contains(&place) && routine.defaults[place].is_none());
            if doubled || missing {
                continue;
            }
            let mut values: Vec<Option<CompiledExpression>> = inputs.iter().map(|_| None).collect();
            for (place, (_, value, _)) in places.into_iter().zip(given) {
                values[place] = Some(value);
            }
            let arguments = self.complete(routine, values)?;
            return Ok((Arc::clone(routine), arguments));
        }
        let kind = candidates.first().map_or("function", |routine| routine.definition.kind());
        let labels: Vec<String> = given
            .iter()
            .map(|(label, value, _)| {
                let kind = super::types::type_name(&value.data_type);
                label.as_ref().map_or(kind.clone(), |label| format!("{label} => {kind}"))
            })
            .collect();
        let message = format!("{kind} {name}({}) does not exist", labels.join(", "));
        Err(Error::new(sqlstate::UNDEFINED_FUNCTION, message))
    }

    fn complete(&self, routine: &Routine, mut values: Vec<Option<CompiledExpression>>) -> Result<Vec<Argument>> {
        values.resize_with(routine.defaults.len(), || None);
        let mut arguments = Vec::with_capacity(values.len());
        for ((value, default), wanted) in values.into_iter().zip(&routine.defaults).zip(routine.input_types()) {
            let value = match (value, default) {
                (Some(value), _) => value,
                (None, Some(text)) => {
                    let syntax = crate::sql::text::parse::parse_expression(text)?;
                    self.expression(syntax, &InputTypes::new())?
                }
                (None, None) => return Err(Error::internal("an argument is missing")),
            };
            arguments.push(Argument { value, wanted: wanted.clone() });
        }
        Ok(arguments)
    }

    /// The calls of routines in an expression come first; what is left does not wait.
    fn calls_first(&self, mut syntax: Expr, types: &InputTypes) -> Result<CompiledExpression> {
        struct Extractor<'a> {
            compiler: &'a Compiler<'a>,
            types: InputTypes,
            inputs: usize,
            calls: Vec<CompiledExpression>,
        }
        impl VisitorMut for Extractor<'_> {
            type Break = Error;
            fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
                let conditional = match expr {
                    Expr::Case { .. } => true,
                    Expr::BinaryOp { op, .. } => matches!(op, BinaryOperator::And | BinaryOperator::Or),
                    Expr::Function(function) => {
                        is_coalesce(function) || !matches!(self.compiler.routines_of(function), Ok(None))
                    }
                    _ => false,
                };
                if !conditional || !self.compiler.has_call(expr) {
                    return ControlFlow::Continue(());
                }
                let given = self.types[..self.inputs].to_vec();
                match self.compiler.expression(expr.clone(), &given) {
                    Err(error) => ControlFlow::Break(error),
                    Ok(call) => {
                        self.types.push(call.data_type.clone());
                        self.calls.push(call);
                        *expr = placeholder(self.types.len());
                        ControlFlow::Continue(())
                    }
                }
            }
        }
        if matches!(syntax, Expr::Case { .. }) {
            // A CASE with an operand: each WHEN is a comparison with it.
            return self.operand_case(syntax, types);
        }
        let mut extractor = Extractor { compiler: self, types: types.clone(), inputs: types.len(), calls: Vec::new() };
        // The expression itself is not conditional; its parts may be.
        let children = match &mut syntax {
            Expr::Function(function) => VisitMut::visit(&mut function.args, &mut extractor),
            other => VisitMut::visit(other, &mut extractor),
        };
        if let ControlFlow::Break(error) = children {
            return Err(error);
        }
        let Extractor { types: all, calls, .. } = extractor;
        let rest = Box::new(self.plain(syntax, &all)?);
        let data_type = rest.data_type.clone();
        Ok(CompiledExpression { node: Node::Calls { calls, rest }, data_type })
    }

    fn operand_case(&self, syntax: Expr, types: &InputTypes) -> Result<CompiledExpression> {
        let Expr::Case { operand: Some(operand), conditions, else_result, .. } = syntax else {
            return Err(Error::internal("a CASE with an operand has none"));
        };
        if self.has_call(&*operand) {
            return Err(
                Error::unsupported("CASE over the result of a routine").with_hint("Put it into a variable first.")
            );
        }
        let conditions = conditions.into_iter().map(|CaseWhen { condition, result }| {
            let (left, right) = (operand.clone(), Box::new(condition));
            CaseWhen { condition: Expr::BinaryOp { left, op: BinaryOperator::Eq, right }, result }
        });
        self.case(conditions.collect(), else_result, types)
    }

    fn case(
        &self,
        conditions: Vec<CaseWhen>,
        otherwise: Option<Box<Expr>>,
        types: &InputTypes,
    ) -> Result<CompiledExpression> {
        let mut branches = Vec::with_capacity(conditions.len());
        for CaseWhen { condition, result } in conditions {
            branches.push((self.expression(condition, types)?, self.expression(result, types)?));
        }
        let otherwise = otherwise.map(|result| self.expression(*result, types).map(Box::new)).transpose()?;
        let results = branches.iter().map(|(_, result)| result).chain(otherwise.as_deref());
        let data_type = common_type(results.map(|result| &result.data_type))?;
        Ok(CompiledExpression { node: Node::Case { branches, otherwise }, data_type })
    }

    fn coalesce(&self, function: Function, types: &InputTypes) -> Result<CompiledExpression> {
        let FunctionArguments::List(list) = function.args else {
            return Err(Error::unsupported("these arguments of coalesce"));
        };
        let mut parts = Vec::with_capacity(list.args.len());
        for argument in list.args {
            let FunctionArg::Unnamed(FunctionArgExpr::Expr(value)) = argument else {
                return Err(Error::unsupported("these arguments of coalesce"));
            };
            parts.push(self.expression(value, types)?);
        }
        let data_type = common_type(parts.iter().map(|part| &part.data_type))?;
        Ok(CompiledExpression { node: Node::Coalesce(parts), data_type })
    }
}

/// Writes `EXISTS (query)` as a count, which may stand in a select list.
fn without_exists(mut query: Query) -> Query {
    let _ = visit_expressions_mut(&mut query, |expr| {
        if let Expr::Exists { subquery, negated } = expr {
            let mut inner = subquery.clone();
            inner.limit_clause.get_or_insert_with(|| LimitClause::LimitOffset {
                limit: Some(Expr::value(SqlValue::Number("1".to_owned(), false))),
                offset: None,
                limit_by: Vec::new(),
            });
            let comparison = if *negated { "=" } else { ">" };
            let text = format!("((SELECT count(*) FROM ({inner}) AS \"exists\") {comparison} 0)");
            // What was parsed can be printed and parsed again; if not, the planner refuses EXISTS by its name.
            if let Ok(counted) = crate::sql::text::parse::parse_expression(&text) {
                *expr = counted;
            }
        }
        ControlFlow::<()>::Continue(())
    });
    query
}

/// The type that values of all these types become.
fn common_type<'a>(types: impl Iterator<Item = &'a DataType>) -> Result<DataType> {
    let types: Vec<DataType> = types.cloned().collect();
    datafusion::logical_expr::type_coercion::binary::type_union_resolution(&types).ok_or_else(|| {
        let names: Vec<String> = types.iter().map(super::types::type_name).collect();
        Error::new(sqlstate::TYPE_MISMATCH, format!("types {} cannot be matched", names.join(" and ")))
    })
}

fn is_coalesce(function: &Function) -> bool {
    function.name.to_string().eq_ignore_ascii_case("coalesce")
}

/// A literal that is of whatever type it is used as.
fn is_untyped(expr: &Expr) -> bool {
    matches!(expr, Expr::Value(ValueWithSpan { value: SqlValue::SingleQuotedString(_) | SqlValue::Null, span: _ }))
}

/// Which input an expression is, if it is nothing else.
pub(crate) fn input_of(expr: &Expr) -> Option<usize> {
    match expr {
        Expr::Value(ValueWithSpan { value: SqlValue::Placeholder(name), span: _ }) => {
            name.strip_prefix('$')?.parse::<usize>().ok()?.checked_sub(1)
        }
        Expr::Nested(inner) => input_of(inner),
        _ => None,
    }
}

/// The value of a literal, with the type the planner would give it.
fn literal(expr: &Expr) -> Option<(Datum, DataType)> {
    let (negative, expr) = match expr {
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => (true, expr.as_ref()),
        other => (false, other),
    };
    let Expr::Value(ValueWithSpan { value, span: _ }) = expr else { return None };
    match value {
        SqlValue::Number(digits, false) => {
            let number = digits.parse::<i64>().ok()?;
            Some((Datum::Int(if negative { -number } else { number }), DataType::Int64))
        }
        _ if negative => None,
        SqlValue::SingleQuotedString(text) => Some((Datum::text(text), DataType::Utf8)),
        SqlValue::Boolean(value) => Some((Datum::Bool(*value), DataType::Boolean)),
        SqlValue::Null => Some((Datum::Null, DataType::Null)),
        _ => None,
    }
}

fn placeholder(number: usize) -> Expr {
    Expr::Value(ValueWithSpan { value: SqlValue::Placeholder(format!("${number}")), span: Span::empty() })
}

/// `SELECT items`
pub(crate) fn query_of(projection: Vec<SelectItem>) -> Query {
    let select = Select {
        select_token: datafusion::sql::sqlparser::ast::helpers::attached_token::AttachedToken::empty(),
        optimizer_hints: Vec::new(),
        distinct: None,
        select_modifiers: None,
        top: None,
        top_before_distinct: false,
        projection,
        exclude: None,
        into: None,
        from: Vec::new(),
        lateral_views: Vec::new(),
        prewhere: None,
        selection: None,
        connect_by: Vec::new(),
        group_by: datafusion::sql::sqlparser::ast::GroupByExpr::Expressions(Vec::new(), Vec::new()),
        cluster_by: Vec::new(),
        distribute_by: Vec::new(),
        sort_by: Vec::new(),
        having: None,
        named_window: Vec::new(),
        qualify: None,
        window_before_qualify: false,
        value_table_mode: None,
        flavor: SelectFlavor::Standard,
    };
    Query {
        with: None,
        body: Box::new(SetExpr::Select(Box::new(select))),
        order_by: None,
        limit_clause: None,
        fetch: None,
        locks: Vec::new(),
        for_clause: None,
        settings: None,
        format_clause: None,
        pipe_operators: Vec::new(),
    }
}

/// An identifier that is taken as it is.
pub(crate) fn quoted(name: &str) -> Ident {
    Ident::with_quote('"', name)
}
