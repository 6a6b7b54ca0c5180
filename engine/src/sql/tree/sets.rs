//! Functions that return sets: `generate_series`, `unnest` and their like, in a select list and in FROM.
//!
//! DataFusion expands arrays, and nothing else; so each of these functions has one that gives an array, and is written as
//! the `unnest` of that. In a select list several sets are expanded in lockstep, the shorter ones filled up with NULLs,
//! as in PostgreSQL. In FROM, DataFusion's table functions take constants only:
//!
//! | in FROM | becomes |
//! |---|---|
//! | `generate_series(1, a.n) AS g` | `LATERAL (SELECT unnest(generate_series(1, a.n))) AS g(g)` |
//! | `… WITH ORDINALITY AS g(x, n)` | `LATERAL (SELECT unnest(array), unnest(generate_series(1, array_length(array, 1)))) AS g(x, n)` |
//!
//! A series between two integer constants stays a table function, which makes its rows as they are read. The elements of an
//! array of arrays are those of the arrays in it.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName, ObjectNamePart, Select,
    SelectItem, TableAlias, TableAliasColumnDef, TableFactor, TableFunctionArgs, TableWithJoins, UnaryOperator, Value,
    ValueWithSpan, Visit, Visitor,
};
use datafusion::sql::sqlparser::tokenizer::Span;

use super::copies::Copies;
use super::own_expressions::for_each_own;
use crate::Result;
use crate::dml::syntax::{call_with, cast, named, number, quoted, select};
use crate::functions::regular::ALL_MATCHES;
use crate::functions::series::SERIES_ARRAY;
use crate::sql::text::parse::fold;

/// What `unnest` is called where a select list expands an array.
const UNNEST: &str = "unnest";

/// The array of the elements that a call returns as a set; `None` if it is no such function.
fn as_array(name: &str, arguments: Vec<Expr>) -> Option<Expr> {
    let span = Span::empty();
    Some(match (name, arguments.len()) {
        ("generate_series", 2 | 3) => call_with(SERIES_ARRAY, arguments, span),
        ("generate_subscripts", 2) => {
            let length = cast(call_with("array_length", arguments, span), "bigint").ok()?;
            call_with(SERIES_ARRAY, vec![number(1), length], span)
        }
        (UNNEST, 1) => call_with("flatten", arguments, span),
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

/// The set of an array's elements as they are, which no later look at the query changes: its name is in quotes.
fn expand(array: Expr) -> Expr {
    let mut call = call_with(UNNEST, vec![array], Span::empty());
    if let Expr::Function(function) = &mut call {
        function.name = ObjectName::from(vec![quoted(UNNEST)]);
    }
    call
}

fn is_expanded(function: &Function) -> bool {
    matches!(
        function.name.0.as_slice(),
        [ObjectNamePart::Identifier(name)] if name.quote_style.is_some() && name.value == UNNEST
    )
}

/// What stands for a call in an expression.
fn set_of(function: &Function) -> Option<Expr> {
    let [ObjectNamePart::Identifier(name)] = function.name.0.as_slice() else { return None };
    let FunctionArguments::List(list) = &function.args else { return None };
    if function.over.is_some() || function.filter.is_some() || list.duplicate_treatment.is_some() {
        return None;
    }
    let arguments = plain_arguments(&list.args)?;
    match (fold(name).as_str(), arguments.as_slice()) {
        (UNNEST, _) if is_expanded(function) => None,
        // The set of a set is that.
        (UNNEST, [Expr::Function(inner)]) if is_expanded(inner) => Some(arguments[0].clone()),
        (name, _) => as_array(name, arguments).map(expand),
    }
}

/// Rewrites the sets of a select list.
pub(in crate::sql) fn sets_in_list(select: &mut Select) {
    for item in &mut select.projection {
        if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item {
            let _: ControlFlow<()> = for_each_own(expr, |part| {
                if let Expr::Function(function) = part
                    && let Some(set) = set_of(function)
                {
                    *part = set;
                }
                ControlFlow::Continue(())
            });
        }
    }
}

/// Rewrites the sets in FROM that DataFusion's table functions do not know.
pub(in crate::sql) fn sets_in_from(select: &mut Select, copies: &mut Copies) -> Result<()> {
    for (place, from) in select.from.iter_mut().enumerate() {
        in_joins(from, place > 0, copies)?;
    }
    Ok(())
}

/// `beside`: whether there are relations to the left.
fn in_joins(from: &mut TableWithJoins, beside: bool, copies: &mut Copies) -> Result<()> {
    let factors = std::iter::once(&mut from.relation).chain(from.joins.iter_mut().map(|join| &mut join.relation));
    for (place, factor) in factors.enumerate() {
        let beside = beside || place > 0;
        match factor {
            TableFactor::NestedJoin { table_with_joins, .. } => in_joins(table_with_joins, beside, copies)?,
            factor => {
                if let Some(derived) = as_derived(factor, beside) {
                    if is_numbered(factor) {
                        copies.take(factor, 1)?;
                    }
                    *factor = derived;
                }
            }
        }
    }
    Ok(())
}

/// Whether the rows have numbers, for which the array is asked for its length.
fn is_numbered(factor: &TableFactor) -> bool {
    matches!(
        factor,
        TableFactor::Table { with_ordinality: true, .. }
            | TableFactor::Function { with_ordinality: true, .. }
            | TableFactor::UNNEST { with_ordinality: true, .. }
    )
}

fn as_derived(factor: &TableFactor, lateral: bool) -> Option<TableFactor> {
    let (name, arrays, alias, with_ordinality) = match factor {
        TableFactor::Table {
            name,
            args: Some(TableFunctionArgs { args, settings: None }),
            alias,
            with_ordinality,
            ..
        }
        | TableFactor::Function { name, args, alias, with_ordinality, .. } => {
            let [ObjectNamePart::Identifier(ident)] = name.0.as_slice() else { return None };
            let name = fold(ident);
            let arguments = plain_arguments(args)?;
            let is_known = name == "generate_series" && arguments.iter().all(is_integer);
            if is_known && !with_ordinality {
                return None;
            }
            let array = as_array(&name, arguments)?;
            (name, vec![array], alias, *with_ordinality)
        }
        TableFactor::UNNEST { alias, array_exprs, with_offset: false, with_offset_alias: None, with_ordinality } => {
            let arrays = array_exprs.iter().map(|array| as_array(UNNEST, vec![array.clone()]));
            (UNNEST.to_owned(), arrays.collect::<Option<_>>()?, alias, *with_ordinality)
        }
        _ => return None,
    };
    let (ident, mut columns) = match alias {
        Some(alias) => (alias.name.clone(), alias.columns.clone()),
        None => (Ident::with_quote('"', &name), Vec::new()),
    };
    let column = |name: Ident| TableAliasColumnDef { name, data_type: None };
    if columns.is_empty() && arrays.len() == 1 {
        columns.push(column(ident.clone()));
    }
    for missing in columns.len()..arrays.len() {
        columns.push(column(Ident::with_quote('"', format!("{UNNEST}_{}", missing + 1))));
    }
    let span = Span::empty();
    let mut items: Vec<SelectItem> = Vec::with_capacity(arrays.len() + 1);
    for (index, array) in arrays.iter().enumerate() {
        items.push(named(expand(array.clone()), &format!("__rustydb_set_{index}")));
    }
    if with_ordinality {
        // As many numbers as the longest of the arrays has elements.
        let length =
            |array: &Expr| cast(call_with("array_length", vec![array.clone(), number(1)], span), "bigint").ok();
        let lengths = arrays.iter().map(length).collect::<Option<Vec<Expr>>>()?;
        let longest =
            if lengths.len() == 1 { lengths.into_iter().next()? } else { call_with("greatest", lengths, span) };
        let numbers = call_with(SERIES_ARRAY, vec![number(1), longest], span);
        items.push(named(expand(numbers), "__rustydb_ordinality"));
        if columns.len() == arrays.len() {
            columns.push(column(Ident::with_quote('"', "ordinality")));
        }
    }
    let subquery = Box::new(select(None, items, Vec::new(), None));
    let alias = TableAlias { explicit: true, name: ident, columns, at: None };
    Some(TableFactor::Derived { lateral, subquery, alias: Some(alias), sample: None })
}

fn is_integer(expr: &Expr) -> bool {
    match expr {
        Expr::Value(ValueWithSpan { value: Value::Number(digits, _), .. }) => {
            digits.bytes().all(|digit| digit.is_ascii_digit())
        }
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } | Expr::Nested(expr) => is_integer(expr),
        _ => false,
    }
}

/// Whether an expression may name a column.
pub(in crate::sql) fn names_columns(expr: &Expr) -> bool {
    struct Names;
    impl Visitor for Names {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            match expr {
                Expr::Identifier(_) | Expr::CompoundIdentifier(_) => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        }
    }
    Visit::visit(expr, &mut Names).is_break()
}
