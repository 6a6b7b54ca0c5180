//! `x LIKE ANY (ARRAY['a%', 'b%'])` is `x LIKE 'a%' OR x LIKE 'b%'`, and with ALL it is AND.
//!
//! The parser takes ALL for a function. An array that is not written out in the query is refused.

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, ObjectNamePart, ValueWithSpan,
};

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
