//! `x LIKE ANY (ARRAY['a%', 'b%'])` is `x LIKE 'a%' OR x LIKE 'b%'`, and with ALL it is AND. If `x` is more than a column, it
//! is [a function](crate::functions::like_each), which names it once.
//!
//! The parser takes ALL for a function. An array that is not written out in the query is refused.

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, ObjectNamePart, Value,
    ValueWithSpan,
};
use datafusion::sql::sqlparser::tokenizer::Span;

use super::copies::is_small;
use crate::dml::syntax::call_with;
use crate::functions::like_each::LikeEach;
use crate::functions::like_escape::LIKE_ESCAPE;
use crate::sql::check::ends_with_escape;
use crate::sql::text::parse::fold;
use crate::{Error, Result};

/// Rewrites the expression itself.
pub(in crate::sql) fn like_each(expr: &mut Expr) -> Result<()> {
    let (any, pattern) = match expr {
        Expr::Like { any, pattern, .. } | Expr::ILike { any, pattern, .. } => (*any, pattern),
        _ => return Ok(()),
    };
    let array = match any {
        true => elements(pattern),
        false => match argument_of_all(pattern) {
            Some(argument) => elements(argument),
            None => return Ok(()),
        },
    };
    let Some(patterns) = array.filter(|patterns| !patterns.is_empty()) else {
        let what = if any { "LIKE ANY" } else { "LIKE ALL" };
        return Err(Error::unsupported(format!("{what} of an array that is not written out"))
            .with_hint("Write ARRAY[…] with the patterns."));
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
