//! Expressions that DataFusion does not know, rewritten on the syntax tree to others that it does.
//!
//! | expression | becomes |
//! |---|---|
//! | `age(t)` | `age(current_date, t)` |
//! | `make_interval(days => 3)` | all seven arguments, in order |
//! | `substring(s FROM 'regular expression')` | `regexp_match(s, …)[1]` |
//! | `regexp_split_to_array(s, p)` | `s` with its matches marked, split there |
//! | `percentile_cont(f) WITHIN GROUP (ORDER BY x)` | `percentile_cont(array_agg(x), f, false)`, which sorts |
//! | `percentile_disc(f)`, `mode()` `WITHIN GROUP (ORDER BY x)` | likewise functions that sort |
//! | `array_agg(DISTINCT x)`, `string_agg(DISTINCT x, ',')` | with `ORDER BY x` |
//! | `array_agg(x ORDER BY 1, y)` | `array_agg(x ORDER BY y)`: a number is no place there |
//! | `bool_and(x) OVER w`, also `bool_or`, `every` | `max((NOT x)::integer) OVER w = 0`, `min` |
//! | `string_agg(x, ',') OVER w` | [joined](crate::functions::joined_texts) from `array_agg(x) OVER w` |
//! | `lag(x, n, default) OVER w`, `lead`, with a default that may be of another type | `CASE`, by whether there is such a row |
//! | `lag(x, NULL) OVER w`, `lead` | NULL |
//! | `ARRAY(SELECT x … ORDER BY y)` | `array_agg(x ORDER BY y)` of the query, or an empty array |
//! | `ARRAY[a, b]` with columns | `make_array(a, b)`, which sees those of outer queries |
//! | `~x`, `a && b`, `x COLLATE "C"` | `x # -1`, `array_has_any(a, b)`, `x` |
//! | `statement_timestamp()`, `transaction_timestamp()` | `now()` |
//! | `ntile(NULL) OVER w` | NULL |
//! | `a[2:]`, `a[:2]` | `a[2:2147483647]`, `a[1:2]` |
//! | `x BETWEEN SYMMETRIC a AND b` | `x BETWEEN a AND b OR x BETWEEN b AND a` |
//!
//! Array constants of several dimensions are [taken apart](array_literals). Those that only say in short what others say are
//! in [`shorthands`].

use datafusion::sql::sqlparser::ast::{
    AccessExpr, BinaryOperator, DuplicateTreatment, Expr, Function, FunctionArg, FunctionArgExpr,
    FunctionArgumentClause, FunctionArguments, Ident, ObjectName, ObjectNamePart, OrderBy, OrderByExpr, OrderByKind,
    OrderByOptions, Query, SelectItem, SetExpr, Subscript, TableAliasColumnDef, TableFactor, UnaryOperator, Value,
    ValueWithSpan,
};
use datafusion::sql::sqlparser::tokenizer::Span;

use super::array_literals;
use super::copies::Copies;
use super::sets::names_columns;
use super::shorthands;
use crate::dml::syntax::{
    alone, boolean, call, call_with, cases, cast, column, derived, named, null, number, quoted, select,
};
use crate::error::sqlstate;
use crate::functions::joined_texts::JOINED_TEXTS;
use crate::functions::several::{MARKS, OR_EMPTY, SPLIT_AT_MARKS};
use crate::functions::shares::{AT_SHARE, BETWEEN_SHARES, MOST_FREQUENT};
use crate::sql::names::output_name;
use crate::sql::text::parse::{fold, is_by_bytes};
use crate::{Error, Result};

/// The parameters of `make_interval`, in order.
const INTERVAL_PARTS: [&str; 7] = ["years", "months", "weeks", "days", "hours", "mins", "secs"];

/// What the parser puts around the lower bound of `BETWEEN SYMMETRIC`; no function can be called so.
pub(in crate::sql) const SYMMETRIC: &str = "symmetric";

/// No array has an element behind this one.
const LAST_ELEMENT: usize = 2_147_483_647;

/// Rewrites the expression itself, not those inside of it.
pub(in crate::sql) fn rewrite(expr: &mut Expr, copies: &mut Copies) -> Result<()> {
    match expr {
        Expr::Between { expr: value, negated, low, high } => {
            if let Some(low) = symmetric_bound(low) {
                for part in [&**value, low, &**high] {
                    copies.take_as_postgresql_does(part, 1)?;
                }
                *expr = between_symmetric(value, *negated, low, high);
            }
        }
        Expr::Array(array) if !array.elem.is_empty() && array.elem.iter().any(names_columns) => {
            *expr = call_with("make_array", std::mem::take(&mut array.elem), Span::empty());
        }
        Expr::Function(Function { name, args: FunctionArguments::Subquery(query), .. })
            if name.to_string().eq_ignore_ascii_case("array") =>
        {
            *expr = array_of_query(query.as_ref().clone())?;
        }
        Expr::Function(function) => {
            forget_constant_keys(function);
            if let Some(rewritten) = rewrite_call(function, copies)? {
                *expr = rewritten;
            }
        }
        Expr::UnaryOp { op: UnaryOperator::BitwiseNot, expr: inner } => {
            let left = Box::new(Expr::Nested(Box::new(taken(inner))));
            let minus = Expr::UnaryOp { op: UnaryOperator::Minus, expr: Box::new(number(1)) };
            *expr = Expr::Nested(Box::new(Expr::BinaryOp {
                left,
                op: BinaryOperator::PGBitwiseXor,
                right: Box::new(Expr::Nested(Box::new(minus))),
            }));
        }
        Expr::BinaryOp { left, op: BinaryOperator::PGOverlap, right } => {
            *expr = call_with("array_has_any", vec![taken(left), taken(right)], Span::empty());
        }
        Expr::BinaryOp { left, op, right } => {
            if let Some(rewritten) = shorthands::of_operator(left, op, right) {
                *expr = rewritten;
            }
        }
        Expr::UnaryOp { op, expr: operand } => {
            if let Some(rewritten) = shorthands::of_prefix(*op, operand) {
                *expr = rewritten;
            }
        }
        Expr::CompoundFieldAccess { access_chain, .. } => {
            let subscripts = access_chain.iter().filter(|access| matches!(access, AccessExpr::Subscript(_))).count();
            let is_slice = |access: &AccessExpr| matches!(access, AccessExpr::Subscript(Subscript::Slice { .. }));
            // Each would be a slice, of a dimension of its own.
            if subscripts > 1 && access_chain.iter().any(is_slice) {
                return Err(Error::unsupported("a slice of an array beside another subscript")
                    .with_hint("Put a slice of which an element is meant in parentheses: (a[2:3])[1]."));
            }
            for access in access_chain {
                if let AccessExpr::Subscript(Subscript::Slice { lower_bound, upper_bound, .. }) = access {
                    lower_bound.get_or_insert_with(|| number(1));
                    upper_bound.get_or_insert_with(|| number(LAST_ELEMENT));
                }
            }
        }
        Expr::Collate { expr: inner, collation } => {
            check_collation(collation)?;
            *expr = Expr::Nested(Box::new(taken(inner)));
        }
        Expr::Substring { expr: text, substring_from: Some(from), substring_for: None, shorthand: false, .. }
            if is_text(from) =>
        {
            *expr = first_group(taken(text), taken(from));
        }
        Expr::Cast { expr: value, data_type, array: false, .. } => {
            if let Some(array) = array_literals::nested(value, data_type)? {
                *expr = array;
            }
        }
        _ => {}
    }
    Ok(())
}

/// The lower bound of `BETWEEN SYMMETRIC low AND high`, as the parser marks it.
fn symmetric_bound(low: &Expr) -> Option<&Expr> {
    let Expr::Function(Function { name, args: FunctionArguments::List(list), .. }) = low else { return None };
    match (name.0.as_slice(), list.args.as_slice()) {
        (
            [ObjectNamePart::Identifier(Ident { value, quote_style: None, .. })],
            [FunctionArg::Unnamed(FunctionArgExpr::Expr(bound))],
        ) if value == SYMMETRIC => Some(bound),
        _ => None,
    }
}

/// Between the bounds in either order.
fn between_symmetric(value: &Expr, negated: bool, low: &Expr, high: &Expr) -> Expr {
    let nested = |expr: &Expr| Box::new(Expr::Nested(Box::new(expr.clone())));
    let between =
        |low: &Expr, high: &Expr| Expr::Between { expr: nested(value), negated, low: nested(low), high: nested(high) };
    let op = if negated { BinaryOperator::And } else { BinaryOperator::Or };
    Expr::Nested(Box::new(compared(between(low, high), op, between(high, low))))
}

/// Texts compare by their bytes, which is what some collations say.
fn check_collation(collation: &ObjectName) -> Result<()> {
    match is_by_bytes(collation) {
        true => Ok(()),
        false => Err(Error::unsupported(format!("collation {collation}"))
            .with_hint("Strings compare by bytes, as with COLLATE \"C\".")),
    }
}

fn taken(expr: &mut Expr) -> Expr {
    std::mem::replace(expr, null())
}

fn is_text(expr: &Expr) -> bool {
    matches!(
        expr,
        Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(_) | Value::EscapedStringLiteral(_), .. })
    )
}

fn text(text: impl Into<String>) -> Expr {
    Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(text.into()), span: Span::empty() })
}

fn element(array: Expr, index: usize) -> Expr {
    call_with("array_element", vec![array, number(index)], Span::empty())
}

/// The first group of the first match, or the whole match.
fn first_group(value: Expr, pattern: Expr) -> Expr {
    element(call_with("regexp_match", vec![value, pattern], Span::empty()), 1)
}

/// `ARRAY(SELECT …)`: the elements in the order of the query.
fn array_of_query(mut query: Query) -> Result<Expr> {
    let order = match query.order_by.as_ref().map(|order| &order.kind) {
        None => Vec::new(),
        Some(OrderByKind::Expressions(order)) => order.clone(),
        Some(OrderByKind::All(_)) => return Err(Error::unsupported("ORDER BY ALL in ARRAY(…)")),
    };
    let relation = quoted("__rustydb_array");
    let mut columns = vec!["element".to_owned()];
    let mut by = Vec::with_capacity(order.len());
    for (place, mut key) in order.into_iter().enumerate() {
        let position =
            matches!(&key.expr, Expr::Value(ValueWithSpan { value: Value::Number(number, _), .. }) if number == "1");
        let (named_so, shown) = match query.body.as_mut() {
            SetExpr::Select(select) => {
                let output = match select.projection.as_slice() {
                    [SelectItem::ExprWithAlias { alias, .. }] => Some(fold(alias)),
                    [SelectItem::UnnamedExpr(expr)] => Some(output_name(expr)),
                    _ => None,
                };
                let is_named = matches!(&key.expr, Expr::Identifier(ident) if output.as_ref() == Some(&fold(ident)));
                (is_named, Some(select))
            }
            _ => (false, None),
        };
        let name = if position || named_so {
            columns[0].clone()
        } else {
            let Some(shown) = shown.filter(|select| select.distinct.is_none()) else {
                return Err(Error::unsupported("ARRAY(…) of a query whose order is not that of its column"));
            };
            let name = format!("__rustydb_key_{}", columns.len());
            shown.projection.push(named(taken(&mut key.expr), &name));
            // Sorted by that, it is there once.
            if let Some(OrderBy { kind: OrderByKind::Expressions(items), .. }) = &mut query.order_by
                && let Some(item) = items.get_mut(place)
            {
                item.expr = Expr::Identifier(quoted(&name));
            }
            columns.push(name.clone());
            name
        };
        key.expr = column(&relation, &name);
        by.push(key);
    }
    let mut relation_factor = derived(query, relation.clone());
    if let TableFactor::Derived { alias: Some(alias), .. } = &mut relation_factor {
        let named = |name: &String| TableAliasColumnDef { name: quoted(name), data_type: None };
        alias.columns = columns.iter().map(named).collect();
    }
    let mut array = call_with("array_agg", vec![column(&relation, &columns[0])], Span::empty());
    if let Expr::Function(Function { args: FunctionArguments::List(list), .. }) = &mut array
        && !by.is_empty()
    {
        list.clauses.push(FunctionArgumentClause::OrderBy(by));
    }
    let list = vec![named(array, "array")];
    let subquery = Expr::Subquery(Box::new(select(None, list, vec![alone(relation_factor)], None)));
    Ok(call_with(OR_EMPTY, vec![subquery], Span::empty()))
}

fn arguments_of(function: &Function) -> Option<Vec<Expr>> {
    let FunctionArguments::List(list) = &function.args else { return None };
    let plain = |argument: &FunctionArg| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
        _ => None,
    };
    list.args.iter().map(plain).collect()
}

fn rewrite_call(function: &mut Function, copies: &mut Copies) -> Result<Option<Expr>> {
    let [ObjectNamePart::Identifier(ident)] = function.name.0.as_slice() else { return Ok(None) };
    let (name, span) = (fold(ident), ident.span);
    if name == "make_interval" {
        return make_interval(function);
    }
    if shorthands::knows(&name) {
        let Some(arguments) = arguments_of(function) else { return Ok(None) };
        return shorthands::of_call(&name, &arguments, span);
    }
    if name == "count" {
        return check_count(function).map(|()| None);
    }
    const KNOWN: [&str; 17] = [
        "age",
        "substring",
        "regexp_split_to_array",
        "percentile_disc",
        "percentile_cont",
        "mode",
        "ntile",
        "nth_value",
        "bool_and",
        "bool_or",
        "every",
        "array_agg",
        "string_agg",
        "lag",
        "lead",
        "statement_timestamp",
        "transaction_timestamp",
    ];
    if !KNOWN.contains(&name.as_str()) {
        return Ok(None);
    }
    let Some(mut arguments) = arguments_of(function) else { return Ok(None) };
    let windowed = function.over.is_some();
    Ok(Some(match (name.as_str(), arguments.len()) {
        ("age", 1) => {
            let today = cast(call("current_date", span), "timestamp")?;
            arguments.insert(0, today);
            call_with("age", arguments, span)
        }
        ("statement_timestamp" | "transaction_timestamp", 0) => call("now", span),
        ("substring", 2) if is_text(&arguments[1]) => {
            let pattern = arguments.remove(1);
            first_group(arguments.remove(0), pattern)
        }
        ("regexp_split_to_array", 2 | 3) => call_with(SPLIT_AT_MARKS, vec![marked(arguments)], span),
        ("percentile_disc" | "percentile_cont", 1) | ("mode", 0) if windowed && !function.within_group.is_empty() => {
            let message = format!("OVER is not supported for ordered-set aggregate {name}");
            return Err(Error::new(sqlstate::FEATURE_NOT_SUPPORTED, message));
        }
        ("percentile_cont", 1) if !function.within_group.is_empty() => {
            let (collected, descending) = collected_array(function)?;
            call_with(BETWEEN_SHARES, vec![collected, arguments.remove(0), boolean(descending)], span)
        }
        ("percentile_disc", 1) | ("mode", 0) if !function.within_group.is_empty() => {
            let share = arguments.pop();
            let (collected, descending) = collected_array(function)?;
            match share {
                Some(share) => call_with(AT_SHARE, vec![collected, share, boolean(descending)], span),
                None => call_with(MOST_FREQUENT, vec![collected, boolean(descending)], span),
            }
        }
        ("ntile", 1) if windowed && is_null(&arguments[0]) => cast(null(), "integer")?,
        ("nth_value", 2) if windowed && is_not_positive(&arguments[1]) => {
            let message = "argument of nth_value must be greater than zero";
            return Err(Error::new(sqlstate::INVALID_NTH_VALUE, message));
        }
        ("bool_and" | "bool_or" | "every", 1) if windowed => {
            let is_false =
                Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(Expr::Nested(Box::new(arguments.remove(0)))) };
            // Not one is false, or not all are.
            let decisive = if name == "bool_or" { "min" } else { "max" };
            let decided = over(decisive, vec![cast(is_false, "integer")?], function);
            Expr::Nested(Box::new(compared(decided, BinaryOperator::Eq, number(0))))
        }
        ("string_agg", 2) if windowed && is_text(&arguments[1]) => {
            let separator = arguments.remove(1);
            call_with(JOINED_TEXTS, vec![over("array_agg", arguments, function), separator], span)
        }
        ("array_agg" | "string_agg", 1 | 2) if !windowed => {
            sort_distinct(function, &arguments[0], copies);
            return Ok(None);
        }
        ("lag" | "lead", 2 | 3) if windowed && is_null(&arguments[1]) => {
            cases(vec![(boolean(false), arguments.remove(0))], null())
        }
        ("lag" | "lead", 3) if windowed && !takes_any_type(&arguments[2]) => {
            copies.take(&function.over, 1)?;
            copies.take(&arguments[1], 1)?;
            let default = arguments.remove(2);
            let offset = arguments[1].clone();
            let there = over(&name, vec![number(1), offset], function);
            let value = over(&name, arguments, function);
            cases(vec![(Expr::IsNotNull(Box::new(there)), value)], default)
        }
        _ => return Ok(None),
    }))
}

/// Whether it is a constant that is read as what it stands beside: a number that is not whole makes that a numeric.
fn takes_any_type(expr: &Expr) -> bool {
    match expr {
        Expr::Value(ValueWithSpan { value: Value::Number(digits, _), .. }) => {
            digits.bytes().all(|byte| byte.is_ascii_digit())
        }
        Expr::Value(_) => true,
        Expr::UnaryOp { expr, .. } | Expr::Nested(expr) => takes_any_type(expr),
        _ => false,
    }
}

/// `count` counts rows, or the values of one argument; DataFusion's takes any number.
fn check_count(function: &Function) -> Result<()> {
    let FunctionArguments::List(list) = &function.args else { return Ok(()) };
    match list.args.len() {
        1 => Ok(()),
        0 => {
            let message = "count(*) must be used to call a parameterless aggregate function";
            Err(Error::new(sqlstate::WRONG_OBJECT_TYPE, message))
        }
        several => {
            let message = format!("function count with {several} arguments does not exist");
            Err(Error::new(sqlstate::UNDEFINED_FUNCTION, message))
        }
    }
}

/// Whether it is a constant number below 1.
fn is_not_positive(expr: &Expr) -> bool {
    match expr {
        Expr::Value(ValueWithSpan { value: Value::Number(digits, _), .. }) => digits.bytes().all(|digit| digit == b'0'),
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => is_number(expr),
        Expr::Nested(inner) => is_not_positive(inner),
        _ => false,
    }
}

fn is_null(expr: &Expr) -> bool {
    match expr {
        Expr::Value(ValueWithSpan { value: Value::Null, .. }) => true,
        Expr::Nested(inner) | Expr::Cast { expr: inner, .. } => is_null(inner),
        _ => false,
    }
}

fn is_number(expr: &Expr) -> bool {
    match expr {
        Expr::Value(ValueWithSpan { value: Value::Number(..), .. }) => true,
        Expr::Nested(inner) => is_number(inner),
        _ => false,
    }
}

/// Takes the numbers from the order of an aggregate's values, where they are constants: DataFusion would sort by the column
/// of the relation in that place. With DISTINCT they are wrong.
fn forget_constant_keys(function: &mut Function) {
    let FunctionArguments::List(list) = &mut function.args else { return };
    if matches!(list.duplicate_treatment, Some(DuplicateTreatment::Distinct)) {
        return;
    }
    list.clauses.retain_mut(|clause| match clause {
        FunctionArgumentClause::OrderBy(keys) => {
            keys.retain(|key| !is_number(&key.expr));
            !keys.is_empty()
        }
        _ => true,
    });
}

/// PostgreSQL sorts values to find equal ones, so that an aggregate with DISTINCT gets them in order.
fn sort_distinct(function: &mut Function, value: &Expr, copies: &mut Copies) {
    let FunctionArguments::List(list) = &mut function.args else { return };
    let is_distinct = matches!(list.duplicate_treatment, Some(DuplicateTreatment::Distinct));
    let has_order = list.clauses.iter().any(|clause| matches!(clause, FunctionArgumentClause::OrderBy(_)));
    // A number would be the place of a column.
    if is_distinct && !has_order && !is_number(value) && copies.take(value, 1).is_ok() {
        let options = OrderByOptions { asc: None, nulls_first: None };
        let by = OrderByExpr { expr: value.clone(), options, with_fill: None };
        list.clauses.push(FunctionArgumentClause::OrderBy(vec![by]));
    }
}

fn compared(left: Expr, op: BinaryOperator, right: Expr) -> Expr {
    Expr::BinaryOp { left: Box::new(left), op, right: Box::new(right) }
}

/// Another function over the same window.
fn over(name: &str, arguments: Vec<Expr>, function: &Function) -> Expr {
    let mut expr = call_with(name, arguments, Span::empty());
    if let Expr::Function(other) = &mut expr {
        other.over.clone_from(&function.over);
        other.filter.clone_from(&function.filter);
        other.null_treatment = function.null_treatment;
    }
    expr
}

/// What an ordered-set aggregate is ordered by.
fn order_of_set(function: &mut Function) -> Result<OrderByExpr> {
    let mut order = std::mem::take(&mut function.within_group).into_iter();
    match (order.next(), order.next()) {
        (Some(by), None) => Ok(by),
        _ => {
            let message = "an ordered-set aggregate here takes one column to order by";
            Err(Error::new(sqlstate::UNDEFINED_FUNCTION, message))
        }
    }
}

/// `array_agg(x)` for what an ordered-set aggregate is over, and whether it is to be sorted from the greatest to the least.
fn collected_array(function: &mut Function) -> Result<(Expr, bool)> {
    let OrderByExpr { expr, options, with_fill: _ } = order_of_set(function)?;
    let mut array = call_with("array_agg", vec![expr], Span::empty());
    if let Expr::Function(aggregate) = &mut array {
        aggregate.filter = function.filter.take();
    }
    Ok((array, options.asc == Some(false)))
}

/// `regexp_replace(text, pattern, begin || match || end, 'g' || flags)`
fn marked(mut arguments: Vec<Expr>) -> Expr {
    let flags = match arguments.len() {
        3 => {
            let flags = arguments.pop().unwrap_or_else(null);
            Expr::Nested(Box::new(compared(text("g"), BinaryOperator::StringConcat, flags)))
        }
        _ => text("g"),
    };
    let [begin, end] = MARKS;
    arguments.push(text(format!("{begin}\\&{end}")));
    arguments.push(flags);
    call_with("regexp_replace", arguments, Span::empty())
}

fn make_interval(function: &Function) -> Result<Option<Expr>> {
    let FunctionArguments::List(list) = &function.args else { return Ok(None) };
    let mut parts: Vec<Expr> = INTERVAL_PARTS.iter().map(|_| number(0)).collect();
    for (place, argument) in list.args.iter().enumerate() {
        let (place, value) = match argument {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(value)) => (Some(place), value),
            FunctionArg::Named { name, arg: FunctionArgExpr::Expr(value), .. } => (place_of(name), value),
            FunctionArg::ExprNamed { name: Expr::Identifier(name), arg: FunctionArgExpr::Expr(value), .. } => {
                (place_of(name), value)
            }
            _ => return Ok(None),
        };
        match place.and_then(|place| parts.get_mut(place)) {
            Some(part) => *part = value.clone(),
            None => {
                let message = format!("function {function} does not exist");
                return Err(Error::new(sqlstate::UNDEFINED_FUNCTION, message));
            }
        }
    }
    Ok(Some(call_with("make_interval", parts, Span::empty())))
}

fn place_of(name: &Ident) -> Option<usize> {
    INTERVAL_PARTS.iter().position(|part| *part == fold(name))
}
