//! Functions that return sets, `generate_series`, `unnest` and their like, in a select list.
//!
//! DataFusion expands arrays, and nothing else; so each of these functions has one that gives an array, and is written as
//! the `unnest` of that. In a select list several sets are expanded in lockstep, the shorter ones filled up with NULLs,
//! as in PostgreSQL.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, ObjectNamePart, Query, Select, SelectItem,
    VisitMut, VisitorMut,
};
use datafusion::sql::sqlparser::tokenizer::Span;

use super::parse::fold;
use crate::dml::syntax::{call_with, cast, number};

/// The array of what `regexp_matches` returns as a set (see [`super::calls`]).
pub(super) const ALL_MATCHES: &str = "all_regexp_matches";

/// What `unnest` is called where a select list expands an array.
const UNNEST: &str = "unnest";

/// The array of the elements that a call returns as a set; `None` if it is no such function.
fn as_array(name: &str, mut arguments: Vec<Expr>) -> Option<Expr> {
    let span = Span::empty();
    Some(match (name, arguments.len()) {
        ("generate_series", 2 | 3) => call_with(name, arguments, span),
        ("generate_subscripts", 2) => {
            let length = cast(call_with("array_length", arguments, span), "bigint").ok()?;
            call_with("generate_series", vec![number(1), length], span)
        }
        (UNNEST, 1) => arguments.pop()?,
        ("string_to_table", 2 | 3) => call_with("string_to_array", arguments, span),
        ("regexp_split_to_table", 2 | 3) => call_with("regexp_split_to_array", arguments, span),
        ("regexp_matches", 2 | 3) => call_with(ALL_MATCHES, arguments, span),
        _ => return None,
    })
}

fn plain_arguments(arguments: &[FunctionArg]) -> Option<Vec<Expr>> {
    let plain = |argument: &FunctionArg| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
        _ => None,
    };
    arguments.iter().map(plain).collect()
}

/// The array of a call in an expression.
fn array_of(function: &Function) -> Option<(String, Expr)> {
    let [ObjectNamePart::Identifier(name)] = function.name.0.as_slice() else { return None };
    let FunctionArguments::List(list) = &function.args else { return None };
    if function.over.is_some() || function.filter.is_some() || list.duplicate_treatment.is_some() {
        return None;
    }
    let name = fold(name);
    let array = as_array(&name, plain_arguments(&list.args)?)?;
    Some((name, array))
}

/// Rewrites the sets of a select list.
pub(super) fn sets_in_list(select: &mut Select) {
    for item in &mut select.projection {
        if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item {
            let _ = VisitMut::visit(expr, &mut Sets { queries: 0 });
        }
    }
}

struct Sets {
    /// How many queries deep: those inside are seen by themselves.
    queries: usize,
}

impl VisitorMut for Sets {
    type Break = ();

    fn pre_visit_query(&mut self, _query: &mut Query) -> ControlFlow<()> {
        self.queries += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _query: &mut Query) -> ControlFlow<()> {
        self.queries -= 1;
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if self.queries == 0
            && let Expr::Function(function) = expr
            && let Some((name, array)) = array_of(function)
        {
            // The array of an `unnest` may be such a call itself, and is its set already.
            let is_set =
                matches!(&array, Expr::Function(inner) if array_of(inner).is_some_and(|(name, _)| name == UNNEST));
            *expr = match (name.as_str(), is_set) {
                (UNNEST, true) => array,
                _ => call_with(UNNEST, vec![array], Span::empty()),
            };
        }
        ControlFlow::Continue(())
    }
}
