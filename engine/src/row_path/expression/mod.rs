//! Expressions over single rows, without Arrow.
//!
//! DataFusion plans an expression, coerces its types and rewrites its arithmetic ([`crate::sql::rules::arithmetic`]); only then
//! it is translated into a tree of [`Node`]s. So what an expression means, and the type of every part of it, was decided
//! by the same code that plans queries. Three kinds of parts:
//!
//! * what is common (comparisons, logic, arithmetic on integers and decimals, CASE, a handful of functions and casts) is
//!   computed here, on [`Datum`]s;
//! * what is rare, as long as it gives the same for the same arguments, is DataFusion's own physical expression on a batch
//!   of one row ([`foreign`]);
//! * what cannot be either (subqueries, `random()`, `nextval()`) is not translated, and the statement goes the ordinary
//!   way.
//!
//! A value that is not plain at run time (an overflow, a division by zero, a NaN) is not judged here: evaluation ends
//! [`Undecided`], and the ordinary path runs the whole statement and says what is wrong with it. Therefore nothing may be
//! changed before all expressions of a statement are evaluated.

mod compile;
mod foreign;
mod native;

use rustydb_storage::TableDef;

pub(crate) use compile::{Scope, analyzed, compile, typed_expr};

use super::datum::{Datum, Stored, Type};
use crate::Result;
use crate::sql::context::StatementContext;
use foreign::Foreign;
use native::{Arithmetic, TextFunction, element, list_length};
pub(crate) use native::{Class, Comparison, Conversion};

/// The row path does not know: the ordinary path shall.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Undecided;

/// The value of something, or that only the ordinary path can tell.
pub(crate) type Decided<T = Datum> = std::result::Result<T, Undecided>;

/// A row as the store keeps it, and what is needed to read it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StoredRow<'a> {
    pub(crate) table: &'a TableDef,
    pub(crate) columns: &'a [Stored],
    pub(crate) bytes: &'a [u8],
}

impl StoredRow<'_> {
    pub(crate) fn column(&self, column: usize) -> Datum {
        self.columns[column].read(self.table.stored_value(self.bytes, column))
    }
}

/// What an expression is evaluated on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Inputs<'a> {
    /// Rows of tables, in the order in which they are joined.
    pub(crate) rows: &'a [StoredRow<'a>],
    /// Columns of a step before.
    pub(crate) values: &'a [Datum],
    pub(crate) parameters: &'a [Datum],
    /// When the statement began, in microseconds since 1970.
    pub(crate) now: i64,
}

/// A part of an expression.
#[derive(Debug, Clone)]
pub(crate) enum Node {
    Constant(Datum),
    /// A column of a row as stored: which row, which column.
    Stored(usize, usize),
    /// A column of the step before.
    Value(usize),
    Parameter(usize),
    /// `now()`
    Now,
    Compare(Comparison, Class, Box<(Node, Node)>),
    /// `IS [NOT] DISTINCT FROM`; true: distinct.
    Distinct(bool, Class, Box<(Node, Node)>),
    And(Vec<Node>),
    Or(Vec<Node>),
    Not(Box<Node>),
    /// Whether it is NULL is this.
    IsNull(Box<Node>, bool),
    /// Whether it is this truth value (`None`: unknown), or is not.
    IsTruth(Box<Node>, Option<bool>, bool),
    Arithmetic(Arithmetic, Box<(Node, Node)>),
    Convert(Conversion, Box<Node>),
    InList {
        value: Box<Node>,
        list: Vec<Node>,
        class: Class,
        negated: bool,
    },
    Case {
        cases: Vec<(Node, Node)>,
        otherwise: Box<Node>,
    },
    Coalesce(Vec<Node>),
    NullIf(Class, Box<(Node, Node)>),
    Text(TextFunction, Vec<Node>),
    /// An element of a list, counted from 1.
    Element(Box<(Node, Node)>),
    /// How many elements a list has.
    ListLength(Box<Node>),
    Foreign(Box<Foreign>),
}

impl Node {
    pub(crate) fn evaluate(&self, inputs: &Inputs<'_>) -> Decided {
        Ok(match self {
            Node::Constant(value) => value.clone(),
            Node::Stored(row, column) => inputs.rows[*row].column(*column),
            Node::Value(index) => inputs.values[*index].clone(),
            Node::Parameter(index) => inputs.parameters.get(*index).cloned().ok_or(Undecided)?,
            Node::Now => Datum::Int(inputs.now),
            Node::Compare(..)
            | Node::Distinct(..)
            | Node::And(_)
            | Node::Or(_)
            | Node::Not(_)
            | Node::IsNull(..)
            | Node::IsTruth(..)
            | Node::InList { .. } => self.truth(inputs)?.map_or(Datum::Null, Datum::Bool),
            Node::Arithmetic(arithmetic, sides) => {
                let (mut left, mut right) = (Datum::Null, Datum::Null);
                arithmetic.compute(sides.0.operand(inputs, &mut left)?, sides.1.operand(inputs, &mut right)?)?
            }
            Node::Convert(conversion, inner) => conversion.convert(inner.evaluate(inputs)?)?,
            Node::Case { cases, otherwise } => {
                for (condition, result) in cases {
                    if condition.truth(inputs)? == Some(true) {
                        return result.evaluate(inputs);
                    }
                }
                return otherwise.evaluate(inputs);
            }
            Node::Coalesce(parts) => {
                for part in parts {
                    let value = part.evaluate(inputs)?;
                    if !value.is_null() {
                        return Ok(value);
                    }
                }
                Datum::Null
            }
            Node::NullIf(class, sides) => {
                let (left, right) = (sides.0.evaluate(inputs)?, sides.1.evaluate(inputs)?);
                match class.compare(&left, &right)? {
                    Some(std::cmp::Ordering::Equal) => Datum::Null,
                    _ => left,
                }
            }
            Node::Text(function, arguments) => {
                let arguments = arguments.iter().map(|argument| argument.evaluate(inputs));
                function.call(&arguments.collect::<Decided<Vec<_>>>()?)?
            }
            Node::Element(sides) => {
                let (mut list, mut place) = (Datum::Null, Datum::Null);
                element(sides.0.operand(inputs, &mut list)?, sides.1.operand(inputs, &mut place)?)?
            }
            Node::ListLength(list) => list_length(list.operand(inputs, &mut Datum::Null)?)?,
            Node::Foreign(foreign) => foreign.evaluate(inputs)?,
        })
    }

    /// Its value, where it lies if it lies somewhere, and otherwise in `place`.
    #[inline]
    fn operand<'d>(&'d self, inputs: &Inputs<'d>, place: &'d mut Datum) -> Decided<&'d Datum> {
        match self {
            Node::Constant(value) => Ok(value),
            Node::Value(index) => Ok(&inputs.values[*index]),
            Node::Parameter(index) => inputs.parameters.get(*index).ok_or(Undecided),
            other => {
                *place = other.evaluate(inputs)?;
                Ok(place)
            }
        }
    }

    /// The truth of a condition; `None` is unknown.
    pub(crate) fn truth(&self, inputs: &Inputs<'_>) -> Decided<Option<bool>> {
        let (mut left, mut right) = (Datum::Null, Datum::Null);
        Ok(match self {
            Node::Compare(comparison, class, sides) => {
                let (left, right) = (sides.0.operand(inputs, &mut left)?, sides.1.operand(inputs, &mut right)?);
                class.compare(left, right)?.map(|order| comparison.holds(order))
            }
            Node::Distinct(distinct, class, sides) => {
                let (left, right) = (sides.0.operand(inputs, &mut left)?, sides.1.operand(inputs, &mut right)?);
                let same = match (left.is_null(), right.is_null()) {
                    (true, true) => true,
                    (false, false) => class.compare(left, right)? == Some(std::cmp::Ordering::Equal),
                    _ => false,
                };
                Some(same != *distinct)
            }
            Node::And(parts) => all(parts, inputs, false)?,
            Node::Or(parts) => all(parts, inputs, true)?,
            Node::Not(inner) => inner.truth(inputs)?.map(|truth| !truth),
            Node::IsNull(inner, wanted) => Some(inner.operand(inputs, &mut left)?.is_null() == *wanted),
            Node::IsTruth(inner, truth, wanted) => Some((inner.truth(inputs)? == *truth) == *wanted),
            Node::InList { value, list, class, negated } => {
                in_list(value.operand(inputs, &mut left)?, list, *class, *negated, inputs)?
            }
            other => match other.evaluate(inputs)? {
                Datum::Bool(truth) => Some(truth),
                Datum::Null => None,
                _ => return Err(Undecided),
            },
        })
    }

    /// Its direct parts.
    fn parts(&self) -> Vec<&Node> {
        match self {
            Node::Constant(_) | Node::Stored(..) | Node::Value(_) | Node::Parameter(_) | Node::Now => Vec::new(),
            Node::Compare(_, _, sides)
            | Node::Distinct(_, _, sides)
            | Node::Arithmetic(_, sides)
            | Node::NullIf(_, sides)
            | Node::Element(sides) => vec![&sides.0, &sides.1],
            Node::And(parts) | Node::Or(parts) | Node::Coalesce(parts) | Node::Text(_, parts) => parts.iter().collect(),
            Node::Not(inner)
            | Node::IsNull(inner, _)
            | Node::IsTruth(inner, _, _)
            | Node::Convert(_, inner)
            | Node::ListLength(inner) => vec![inner],
            Node::InList { value, list, .. } => std::iter::once(value.as_ref()).chain(list).collect(),
            Node::Case { cases, otherwise } => {
                let cases = cases.iter().flat_map(|(condition, result)| [condition, result]);
                cases.chain(std::iter::once(otherwise.as_ref())).collect()
            }
            Node::Foreign(foreign) => foreign.inputs().iter().collect(),
        }
    }

    /// Visits it and all its parts.
    pub(crate) fn visit(&self, visit: &mut dyn FnMut(&Node)) {
        visit(self);
        self.parts().into_iter().for_each(|part| part.visit(visit));
    }

    /// The longest way down.
    fn depth(&self) -> usize {
        1 + self.parts().into_iter().map(Node::depth).max().unwrap_or(0)
    }

    /// Which rows of tables it reads, as a set of bits; all of them if it reads values.
    pub(crate) fn reads(&self) -> u64 {
        let mut places = 0;
        self.visit(&mut |node| match node {
            Node::Stored(row, _) => places |= 1u64.checked_shl(*row as u32).unwrap_or(u64::MAX),
            Node::Value(_) => places = u64::MAX,
            _ => {}
        });
        places
    }

    /// Moves the rows of tables that it reads up by some places.
    pub(crate) fn shift(&mut self, places: usize) {
        self.visit_mut(&mut |node| {
            if let Node::Stored(row, _) = node {
                *row += places;
            }
        });
    }

    fn visit_mut(&mut self, visit: &mut dyn FnMut(&mut Node)) {
        visit(self);
        match self {
            Node::Constant(_) | Node::Stored(..) | Node::Value(_) | Node::Parameter(_) | Node::Now => {}
            Node::Compare(_, _, sides)
            | Node::Distinct(_, _, sides)
            | Node::Arithmetic(_, sides)
            | Node::NullIf(_, sides)
            | Node::Element(sides) => {
                sides.0.visit_mut(visit);
                sides.1.visit_mut(visit);
            }
            Node::And(parts) | Node::Or(parts) | Node::Coalesce(parts) | Node::Text(_, parts) => {
                parts.iter_mut().for_each(|part| part.visit_mut(visit));
            }
            Node::Not(inner)
            | Node::IsNull(inner, _)
            | Node::IsTruth(inner, _, _)
            | Node::Convert(_, inner)
            | Node::ListLength(inner) => inner.visit_mut(visit),
            Node::InList { value, list, .. } => {
                value.visit_mut(visit);
                list.iter_mut().for_each(|part| part.visit_mut(visit));
            }
            Node::Case { cases, otherwise } => {
                for (condition, result) in cases {
                    condition.visit_mut(visit);
                    result.visit_mut(visit);
                }
                otherwise.visit_mut(visit);
            }
            Node::Foreign(foreign) => foreign.inputs_mut().iter_mut().for_each(|input| input.visit_mut(visit)),
        }
    }
}

/// AND (`decisive` false) and OR (`decisive` true) of three-valued logic.
fn all(parts: &[Node], inputs: &Inputs<'_>, decisive: bool) -> Decided<Option<bool>> {
    let mut unknown = false;
    for part in parts {
        match part.truth(inputs)? {
            Some(truth) if truth == decisive => return Ok(Some(decisive)),
            Some(_) => {}
            None => unknown = true,
        }
    }
    Ok((!unknown).then_some(!decisive))
}

fn in_list(value: &Datum, list: &[Node], class: Class, negated: bool, inputs: &Inputs<'_>) -> Decided<Option<bool>> {
    let mut unknown = false;
    for item in list {
        match class.compare(value, item.operand(inputs, &mut Datum::Null)?)? {
            Some(std::cmp::Ordering::Equal) => return Ok(Some(!negated)),
            Some(_) => {}
            None => unknown = true,
        }
    }
    Ok((!unknown).then_some(negated))
}

/// An expression over parameters alone, compiled: for the variables of procedures.
#[derive(Debug, Clone)]
pub struct Expression {
    node: Node,
    data_type: Type,
}

impl Expression {
    /// Compiles an expression in which `$1`, `$2`, … have these types. `None`: it has parts the row path does not know
    /// (subqueries, say), and `SELECT` of it must be run as a statement.
    ///
    /// # Errors
    /// Those of planning it: an unknown function, types that do not go together.
    pub(crate) fn compile(
        context: &StatementContext,
        expression: datafusion::sql::sqlparser::ast::Expr,
        parameters: &[Type],
    ) -> Result<Option<Expression>> {
        let Some((expr, schema)) = analyzed(context, expression, parameters)? else { return Ok(None) };
        let scope = Scope { schema: &schema, slots: &[] };
        let data_type = datafusion::logical_expr::ExprSchemable::get_type(&expr, schema.as_ref())?;
        Ok(compile(context, &expr, scope).map(|node| Expression { node, data_type }))
    }

    /// The type of its value.
    pub fn data_type(&self) -> &Type {
        &self.data_type
    }

    /// Its value. `now` is the time the statement began, in microseconds since 1970.
    ///
    /// # Errors
    /// [`Undecided`]: `SELECT` of the expression, run as a statement with the same parameters, gives its value or says
    /// what is wrong.
    pub fn evaluate(&self, parameters: &[Datum], now: i64) -> std::result::Result<Datum, Undecided> {
        self.node.evaluate(&Inputs { rows: &[], values: &[], parameters, now })
    }
}
