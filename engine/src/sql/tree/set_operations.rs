//! EXCEPT ALL and INTERSECT ALL: rows with their number among the equal ones.
//!
//! DataFusion makes of both a join on equal rows, by which one row on the right removes, or keeps, all of its copies on the
//! left. With the copies numbered on both sides the operations without ALL count right:
//!
//! ```sql
//! SELECT c1 FROM (SELECT c1, row_number() OVER (PARTITION BY c1) FROM (left) l(c1)
//!                 EXCEPT
//!                 SELECT c1, row_number() OVER (PARTITION BY c1) FROM (right) r(c1)) s(c1, n)
//! ```
//!
//! That takes the number of columns. Those of `*` have been named before ([`super::natural_joins`]); where they are not
//! known, the operation is refused. VALUES with subqueries become queries here, too, VALUES of dates and timestamps,
//! of which DataFusion makes timestamps of nanoseconds: these reach from 1677 to 2262, and those of texts of different
//! lengths, `'a'::varchar(3)` and `'b'::varchar(5)`, which it refuses. Constants of an open type in VALUES
//! get that of the others in their column, and so do numbers beside floats, of which DataFusion makes numerics.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    CastKind, DataType, ExactNumberInfo, Expr, Ident, Query, SelectItem, SetExpr, SetOperator, SetQuantifier,
    Statement, TableFactor, UnaryOperator, Value, ValueWithSpan, Values, Visit, Visitor,
};
use datafusion::sql::sqlparser::parser::Parser;

use crate::sql::names::{output_name, unique_name};
use crate::sql::text::parse::{RustyDialect, fold};
use crate::{Error, Result};

/// Rewrites EXCEPT ALL and INTERSECT ALL at the top of a query's body, and below its set operations.
pub(crate) fn number_copies(body: &mut SetExpr) -> Result<()> {
    let SetExpr::SetOperation { op, set_quantifier, left, right } = body else { return Ok(()) };
    number_copies(left)?;
    number_copies(right)?;
    let word = match (*op, *set_quantifier) {
        (SetOperator::Except | SetOperator::Minus, SetQuantifier::All) => "EXCEPT",
        (SetOperator::Intersect, SetQuantifier::All) => "INTERSECT",
        _ => return Ok(()),
    };
    let Some(names) = column_names(left) else {
        return Err(Error::unsupported(format!("{word} ALL of queries with * in the select list"))
            .with_hint("Name the columns."));
    };
    let columns: Vec<String> = (0..names.len()).map(|index| format!("__rustydb_c{index}")).collect();
    let list = columns.join(", ");
    let shown: Vec<String> = columns
        .iter()
        .zip(&names)
        .map(|(column, name)| format!("{column} AS {}", Ident::with_quote('"', name.clone())))
        .collect();
    let numbered = format!("SELECT {list}, row_number() OVER (PARTITION BY {list}) FROM (SELECT 1) AS side({list})");
    let text =
        format!("SELECT {} FROM ({numbered} {word} {numbered}) AS counted({list}, __rustydb_copy)", shown.join(", "));
    let statement = Parser::new(&RustyDialect).try_with_sql(&text)?.parse_statement()?;
    let Statement::Query(mut query) = statement else { return Err(Error::internal("a query was written")) };
    // The sides keep their place in the statement's text.
    if let Some(counted) = derived(&mut query.body)
        && let SetExpr::SetOperation { left: new_left, right: new_right, .. } = counted.body.as_mut()
        && let (Some(new_left), Some(new_right)) = (derived(new_left), derived(new_right))
    {
        std::mem::swap(&mut new_left.body, left);
        std::mem::swap(&mut new_right.body, right);
    }
    *body = *query.body;
    Ok(())
}

/// The query in FROM.
fn derived(body: &mut SetExpr) -> Option<&mut Query> {
    let SetExpr::Select(select) = body else { return None };
    match &mut select.from.first_mut()?.relation {
        TableFactor::Derived { subquery, .. } => Some(subquery),
        _ => None,
    }
}

/// The names of a query's columns, if its text tells them.
fn column_names(body: &SetExpr) -> Option<Vec<String>> {
    match body {
        SetExpr::Select(select) => {
            let mut seen = Vec::new();
            let name = |item: &SelectItem| match item {
                SelectItem::UnnamedExpr(expr) => Some(unique_name(&mut seen, output_name(expr))),
                SelectItem::ExprWithAlias { alias, .. } => Some(unique_name(&mut seen, fold(alias))),
                _ => None,
            };
            select.projection.iter().map(name).collect()
        }
        SetExpr::Query(query) => column_names(&query.body),
        SetExpr::SetOperation { left, .. } => column_names(left),
        SetExpr::Values(values) => {
            let row = values.rows.first()?;
            Some((1..=row.len()).map(|index| format!("column{index}")).collect())
        }
        _ => None,
    }
}

/// Gives constants in VALUES whose type is open, `('2020-01-02')`, the type that others in their column are written with.
/// Numbers DataFusion knows, but it would round them to the digits of the first.
pub(crate) fn type_constants(body: &mut SetExpr) {
    if let SetExpr::SetOperation { left, right, .. } = body {
        type_constants(left);
        return type_constants(right);
    }
    let SetExpr::Values(values) = body else { return };
    let width = values.rows.first().map_or(0, |row| row.content.len());
    for column in 0..width {
        if let Some(float) = float_of(values, column) {
            for value in values.rows.iter_mut().filter_map(|row| row.content.get_mut(column)) {
                if let Some(text) = open_text(value).map(str::to_owned).or_else(|| signed_number(value)) {
                    *value = cast_of(Expr::value(Value::SingleQuotedString(text)), &float);
                }
            }
            continue;
        }
        let Some(known) = type_beside_constants(values, column) else { continue };
        for value in values.rows.iter_mut().filter_map(|row| row.content.get_mut(column)) {
            let Some(text) = open_text(value).map(str::to_owned) else { continue };
            match &known {
                Known::Number if is_number(text.trim()) => *value = number(text.trim()),
                Known::Number | Known::Integer => {}
                Known::Type(data_type) => {
                    let constant = std::mem::replace(value, Expr::value(Value::Null));
                    *value = cast_of(constant, data_type);
                }
            }
        }
    }
}

fn cast_of(expr: Expr, data_type: &DataType) -> Expr {
    Expr::Cast { kind: CastKind::Cast, expr: Box::new(expr), data_type: data_type.clone(), array: false, format: None }
}

/// The float that a column of VALUES is because one of them is written as such: a double precision if any is.
fn float_of(values: &Values, column: usize) -> Option<DataType> {
    fn written(value: &Expr) -> Option<&DataType> {
        match value {
            Expr::Nested(inner) => written(inner),
            Expr::UnaryOp { op: UnaryOperator::Minus | UnaryOperator::Plus, expr } => written(expr),
            Expr::TypedString(typed) => Some(&typed.data_type),
            Expr::Cast { data_type, .. } => Some(data_type),
            _ => None,
        }
    }
    let is_double = |data_type: &&DataType| {
        matches!(
            data_type,
            DataType::DoublePrecision
                | DataType::Double(ExactNumberInfo::None)
                | DataType::Float(ExactNumberInfo::None)
                | DataType::Float8
                | DataType::Float64
        )
    };
    let is_real = |data_type: &&DataType| matches!(data_type, DataType::Real | DataType::Float4 | DataType::Float32);
    let types = || values.rows.iter().filter_map(move |row| written(row.content.get(column)?));
    types().find(is_double).or_else(|| types().find(is_real)).cloned()
}

/// The text of a number with its sign.
fn signed_number(value: &Expr) -> Option<String> {
    match value {
        Expr::Nested(inner) => signed_number(inner),
        Expr::UnaryOp { op: UnaryOperator::Plus, expr } => signed_number(expr),
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => {
            let number = signed_number(expr)?;
            // Other than a float, a numeric has no negative zero.
            let is_zero = number.parse::<f64>() == Ok(0.0);
            Some(match number.strip_prefix('-') {
                Some(positive) => positive.to_owned(),
                None if is_zero => number,
                None => format!("-{number}"),
            })
        }
        Expr::Value(ValueWithSpan { value: Value::Number(digits, _), .. }) => {
            digits.parse::<f64>().is_ok().then(|| digits.clone())
        }
        _ => None,
    }
}

/// What the values of a column of VALUES are that are written with a type.
#[derive(PartialEq)]
enum Known {
    Integer,
    Number,
    Type(DataType),
}

fn open_text(value: &Expr) -> Option<&str> {
    match value {
        Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(text), .. }) => Some(text),
        _ => None,
    }
}

/// Digits with a point among them or without.
fn is_number(text: &str) -> bool {
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, "0"));
    [whole, fraction].iter().all(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
}

fn number(text: &str) -> Expr {
    let constant = |digits: &str| Expr::value(Value::Number(digits.to_owned(), false));
    match text.strip_prefix('-') {
        Some(digits) => Expr::UnaryOp { op: UnaryOperator::Minus, expr: Box::new(constant(digits)) },
        None => constant(text),
    }
}

/// The type of a column of VALUES that has both constants of an open type and others, all of one type.
fn type_beside_constants(values: &Values, column: usize) -> Option<Known> {
    fn known(value: &Expr) -> Option<Known> {
        let data_type = match value {
            Expr::Nested(inner) => return known(inner),
            Expr::UnaryOp { op: UnaryOperator::Minus | UnaryOperator::Plus, expr } => {
                return known(expr).filter(|known| matches!(known, Known::Integer | Known::Number));
            }
            Expr::Value(ValueWithSpan { value: Value::Number(digits, _), .. }) => {
                let is_whole = digits.bytes().all(|byte| byte.is_ascii_digit());
                return Some(if is_whole { Known::Integer } else { Known::Number });
            }
            Expr::Value(ValueWithSpan { value: Value::Boolean(_), .. }) => DataType::Boolean,
            Expr::Interval(_) => DataType::Interval { fields: None, precision: None },
            Expr::TypedString(typed) => typed.data_type.clone(),
            Expr::Cast { data_type, .. } => data_type.clone(),
            _ => return None,
        };
        let is_told_apart = matches!(
            data_type,
            DataType::Boolean
                | DataType::Bool
                | DataType::Date
                | DataType::Time(..)
                | DataType::Timestamp(..)
                | DataType::Interval { .. }
                | DataType::Bytea
        );
        is_told_apart.then_some(Known::Type(data_type))
    }
    let (mut open, mut common) = (false, None);
    for value in values.rows.iter().filter_map(|row| row.content.get(column)) {
        if open_text(value).is_some() {
            open = true;
            continue;
        }
        if matches!(value, Expr::Value(ValueWithSpan { value: Value::Null, .. })) {
            continue;
        }
        let known = known(value)?;
        common = Some(match (common, known) {
            (None, known) => known,
            (Some(common), known) if common == known => common,
            (Some(Known::Integer), Known::Number) | (Some(Known::Number), Known::Integer) => Known::Number,
            (Some(moment @ Known::Type(DataType::Timestamp(..))), Known::Type(DataType::Date)) => moment,
            (Some(Known::Type(DataType::Date)), moment @ Known::Type(DataType::Timestamp(..))) => moment,
            _ => return None,
        });
    }
    common.filter(|_| open)
}

/// Makes SELECTs of rows of VALUES that have subqueries in them, which DataFusion would compute while it plans, and of those
/// with dates and timestamps, or texts of different lengths, in one column.
pub(crate) fn values_as_queries(body: &mut SetExpr) -> Result<()> {
    if let SetExpr::SetOperation { left, right, .. } = body {
        values_as_queries(left)?;
        return values_as_queries(right);
    }
    let SetExpr::Values(values) = body else { return Ok(()) };
    struct Finder;
    impl Visitor for Finder {
        type Break = ();
        fn pre_visit_query(&mut self, _query: &Query) -> ControlFlow<()> {
            ControlFlow::Break(())
        }
    }
    let queries = || values.rows.iter().any(|row| row.content.iter().any(|value| value.visit(&mut Finder).is_break()));
    if !mixes_times(values) && !mixes_lengths(values) && !queries() {
        return Ok(());
    }
    let mut selects = Vec::with_capacity(values.rows.len());
    for row in std::mem::take(&mut values.rows) {
        let statement = Parser::new(&RustyDialect).try_with_sql("SELECT 1")?.parse_statement()?;
        let Statement::Query(mut query) = statement else { return Err(Error::internal("a query was written")) };
        if let SetExpr::Select(select) = query.body.as_mut() {
            let named = |(place, expr): (usize, Expr)| SelectItem::ExprWithAlias {
                expr,
                alias: Ident::new(format!("column{}", place + 1)),
            };
            select.projection = row.content.into_iter().enumerate().map(named).collect();
        }
        selects.push(*query.body);
    }
    *body = united(selects).ok_or_else(|| Error::internal("VALUES without rows"))?;
    Ok(())
}

/// The type that a value is written with.
fn written_type(value: &Expr) -> Option<&DataType> {
    match value {
        Expr::Nested(inner) => written_type(inner),
        Expr::TypedString(typed) => Some(&typed.data_type),
        Expr::Cast { data_type, .. } => Some(data_type),
        _ => None,
    }
}

/// Whether a column has texts of a limited length, and others.
fn mixes_lengths(values: &Values) -> bool {
    let is_limited = |data_type: &DataType| {
        matches!(
            data_type,
            DataType::Varchar(Some(_))
                | DataType::CharacterVarying(Some(_))
                | DataType::CharVarying(Some(_))
                | DataType::Nvarchar(Some(_))
                | DataType::Char(_)
                | DataType::Character(_)
        )
    };
    let width = values.rows.first().map_or(0, |row| row.content.len());
    (0..width).any(|column| {
        let mut types = values.rows.iter().map(|row| row.content.get(column).and_then(written_type));
        let first = types.next().flatten();
        let mut limited = first.is_some_and(is_limited);
        let mut same = true;
        for data_type in types {
            limited |= data_type.is_some_and(is_limited);
            same &= data_type == first;
        }
        limited && !same
    })
}

/// Whether a column has constants of the type date and such of a timestamp.
fn mixes_times(values: &Values) -> bool {
    let width = values.rows.first().map_or(0, |row| row.content.len());
    (0..width).any(|column| {
        let types = || values.rows.iter().filter_map(move |row| written_type(row.content.get(column)?));
        types().any(|data_type| matches!(data_type, DataType::Date))
            && types().any(|data_type| matches!(data_type, DataType::Timestamp(..)))
    })
}

/// `UNION ALL` of the queries, as a tree that is not deeper than it must be.
fn united(mut queries: Vec<SetExpr>) -> Option<SetExpr> {
    if queries.len() < 2 {
        return queries.pop();
    }
    let rest = queries.split_off(queries.len() / 2);
    Some(SetExpr::SetOperation {
        op: SetOperator::Union,
        set_quantifier: SetQuantifier::All,
        left: Box::new(united(queries)?),
        right: Box::new(united(rest)?),
    })
}
