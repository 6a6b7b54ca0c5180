//! `x LIKE ANY (ARRAY['a%', 'b%'])` is `x LIKE 'a%' OR x LIKE 'b%'`, and with ALL it is AND. If `x` is more than a column, it
//! is [a function](crate::functions::like_each), which names it once.
//!
//! The parser takes ALL for a function. Of an array that is not written out in the query, LIKE is [a function](MatchEach) of
//! both, and so are `x ~ ANY (array)` and its like of any array.

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, ObjectNamePart, Value,
    ValueWithSpan,
};
use datafusion::sql::sqlparser::tokenizer::Span;

use super::copies::is_small;
use crate::dml::syntax::{call_with, cast};
use crate::functions::like_each::LikeEach;
use crate::functions::like_escape::LIKE_ESCAPE;
use crate::functions::match_each::MatchEach;
use crate::sql::check::ends_with_escape;
use crate::sql::text::parse::fold;
use crate::{Error, Result};

/// Rewrites the expression itself.
pub(in crate::sql) fn like_each(expr: &mut Expr) -> Result<()> {
    let (any, pattern) = match &*expr {
        Expr::Like { any, pattern, .. } | Expr::ILike { any, pattern, .. } => (*any, pattern.as_ref()),
        _ => return Ok(()),
    };
    let array = match (any, argument_of_all(pattern)) {
        (true, _) => pattern,
        (false, Some(argument)) => argument,
        (false, None) => return Ok(()),
    };
    let Some(patterns) = elements(array).filter(|patterns| !patterns.is_empty()) else {
        *expr = call_of_array(expr, any, array)?;
        return Ok(());
    };
    if let Some(called) = call(expr, any, &patterns) {
        *expr = called;
        return Ok(());
    }
    let op = if any { BinaryOperator::Or } else { BinaryOperator::And };
    let compared = patterns.iter().map(|pattern| comparison(expr, pattern)).collect();
    if let Some(joined) = joined(compared, &op) {
        *expr = Expr::Nested(Box::new(joined));
    }
    Ok(())
}

/// `x ~ ANY (array)`, and its like, as the call of a function. Of a query it is the planner's.
pub(in crate::sql) fn match_each(expr: &mut Expr) -> Result<()> {
    use BinaryOperator::{
        PGILikeMatch, PGLikeMatch, PGNotILikeMatch, PGNotLikeMatch, PGRegexIMatch, PGRegexMatch, PGRegexNotIMatch,
        PGRegexNotMatch,
    };
    let (any, left, op, right) = match &*expr {
        Expr::AnyOp { left, compare_op, right, is_some: _ } => (true, left.as_ref(), compare_op, right.as_ref()),
        Expr::AllOp { left, compare_op, right } => (false, left.as_ref(), compare_op, right.as_ref()),
        _ => return Ok(()),
    };
    let (regular, in_any_case, negated) = match op {
        PGRegexMatch => (true, false, false),
        PGRegexIMatch => (true, true, false),
        PGRegexNotMatch => (true, false, true),
        PGRegexNotIMatch => (true, true, true),
        PGLikeMatch => (false, false, false),
        PGILikeMatch => (false, true, false),
        PGNotLikeMatch => (false, false, true),
        PGNotILikeMatch => (false, true, true),
        _ => return Ok(()),
    };
    if is_query(right) {
        return Ok(());
    }
    let of = MatchEach { any, negated, in_any_case, regular };
    *expr = call_with(of.name(), vec![left.clone(), array_of_texts(right)?], Span::empty());
    Ok(())
}

/// The call of the function for an array that is not written out.
fn call_of_array(expr: &Expr, any: bool, array: &Expr) -> Result<Expr> {
    let (text, negated, in_any_case, escape) = match expr {
        Expr::Like { expr: text, negated, escape_char, .. } => (text, *negated, false, escape_char),
        Expr::ILike { expr: text, negated, escape_char, .. } => (text, *negated, true, escape_char),
        _ => return Err(Error::internal("LIKE was expected")),
    };
    if escape.is_some() || is_query(array) {
        let what = if any { "LIKE ANY" } else { "LIKE ALL" };
        return Err(Error::unsupported(format!(
            "{what} of a query, or with ESCAPE of an array that is not written out"
        ))
        .with_hint("Write ARRAY[…] with the patterns, or ARRAY(SELECT …)."));
    }
    let of = MatchEach { any, negated, in_any_case, regular: false };
    Ok(call_with(of.name(), vec![text.as_ref().clone(), array_of_texts(array)?], Span::empty()))
}

/// The array, which may be written as a text: `'{a,b}'`.
fn array_of_texts(array: &Expr) -> Result<Expr> {
    match array {
        Expr::Nested(inner) => array_of_texts(inner),
        Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(_) | Value::EscapedStringLiteral(_), .. }) => {
            cast(array.clone(), "text[]")
        }
        Expr::Array(written) if written.elem.is_empty() => cast(array.clone(), "text[]"),
        array => Ok(array.clone()),
    }
}

fn is_query(expr: &Expr) -> bool {
    match expr {
        Expr::Nested(inner) => is_query(inner),
        expr => matches!(expr, Expr::Subquery(_)),
    }
}

/// The elements of an array that is written out.
fn elements(array: &Expr) -> Option<Vec<Expr>> {
    match array {
        Expr::Nested(inner) => elements(inner),
        Expr::Array(array) => Some(array.elem.clone()),
        _ => None,
    }
}

/// What is in the parentheses of `ALL (…)`.
fn argument_of_all(pattern: &Expr) -> Option<&Expr> {
    let Expr::Function(Function { name, args: FunctionArguments::List(list), .. }) = pattern else { return None };
    let [ObjectNamePart::Identifier(word)] = name.0.as_slice() else { return None };
    match list.args.as_slice() {
        [FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))]
            if word.quote_style.is_none() && fold(word) == "all" =>
        {
            Some(argument)
        }
        _ => None,
    }
}

/// The call of the function; `None` if the text is a column or the like.
fn call(expr: &Expr, any: bool, patterns: &[Expr]) -> Option<Expr> {
    let (text, negated, escape_char) = match expr {
        Expr::Like { expr, negated, escape_char, .. } | Expr::ILike { expr, negated, escape_char, .. } => {
            (expr.as_ref(), *negated, escape_char)
        }
        _ => return None,
    };
    if is_small(text) || patterns.len() == 1 {
        return None;
    }
    let with_escape =
        |pattern: &Expr, escape: Expr| call_with(LIKE_ESCAPE, vec![pattern.clone(), escape], Span::empty());
    let patterns = patterns.iter().map(|pattern| match escape_char {
        Some(escape) => with_escape(pattern, Expr::Value(escape.clone())),
        None if ends_with_escape(pattern) => {
            with_escape(pattern, Expr::value(Value::SingleQuotedString("\\".to_owned())))
        }
        None => pattern.clone(),
    });
    let function = LikeEach { any, negated, in_any_case: matches!(expr, Expr::ILike { .. }) };
    Some(call_with(function.name(), std::iter::once(text.clone()).chain(patterns).collect(), Span::empty()))
}

/// The comparison with one of the patterns.
fn comparison(expr: &Expr, pattern: &Expr) -> Expr {
    let one = |text: &Expr, escape_char: &Option<ValueWithSpan>| {
        (Box::new(Expr::Nested(Box::new(text.clone()))), Box::new(pattern.clone()), escape_char.clone())
    };
    match expr {
        Expr::Like { negated, expr: text, escape_char, .. } => {
            let (expr, pattern, escape_char) = one(text, escape_char);
            Expr::Like { negated: *negated, any: false, expr, pattern, escape_char }
        }
        Expr::ILike { negated, expr: text, escape_char, .. } => {
            let (expr, pattern, escape_char) = one(text, escape_char);
            Expr::ILike { negated: *negated, any: false, expr, pattern, escape_char }
        }
        other => other.clone(),
    }
}

/// The comparisons as a tree that is not deeper than it must be.
fn joined(mut parts: Vec<Expr>, op: &BinaryOperator) -> Option<Expr> {
    if parts.len() < 2 {
        return parts.pop();
    }
    let rest = parts.split_off(parts.len() / 2);
    let nested = |expr| Box::new(Expr::Nested(Box::new(expr)));
    Some(Expr::BinaryOp { left: nested(joined(parts, op)?), op: op.clone(), right: nested(joined(rest, op)?) })
}
