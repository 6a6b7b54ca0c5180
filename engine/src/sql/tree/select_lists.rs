//! The names of a select list's columns while a query is planned.
//!
//! DataFusion demands different names, PostgreSQL does not: there a name that stands for two columns is an error only where
//! it is used. Names that come again are marked (see [`crate::sql::names`]), so that a use of them finds nothing, or is found
//! here to be ambiguous.
//!
//! What `*` stands for is not known from the text. A query that fails because a name comes again beside a `*` is planned
//! once more, with all other names of that list marked. And `ORDER BY -x`, or `t.x`, means a column of the tables even if the
//! list has another `x`, which DataFusion would take, or find ambiguous: such a query is planned with the list's `x` marked
//! first, and as it is if there is no other `x`.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Distinct, Expr, Ident, NamedWindowExpr, OrderBy, OrderByKind, Query, Select, SelectItem, SetExpr, TableFactor,
    Value, ValueWithSpan, Visit, Visitor, WindowType,
};

use super::copies::Copies;
use super::own_expressions::look_at_own;
use crate::error::sqlstate;
use crate::sql::names::{marked, output_name, unique_name};
use crate::sql::text::parse::{fold, place};
use crate::{Error, Result};

/// How the columns of select lists are named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Naming {
    AsWritten,
    /// What stands beside a `*` is marked.
    MarkedBesideStars,
}

/// Names what a select list leaves unnamed, as PostgreSQL would, and marks names that come again.
pub(crate) fn name_select_list(select: &mut Select, naming: Naming) {
    let is_star = |item: &SelectItem| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..));
    if naming == Naming::MarkedBesideStars && select.projection.iter().any(is_star) {
        for (place, item) in select.projection.iter_mut().enumerate() {
            let (expr, name) = match item {
                SelectItem::UnnamedExpr(expr) => (expr.clone(), output_name(expr)),
                SelectItem::ExprWithAlias { expr, alias } => (expr.clone(), fold(alias)),
                _ => continue,
            };
            *item = SelectItem::ExprWithAlias { expr, alias: Ident::with_quote('"', marked(&name, place + 1)) };
        }
        return;
    }
    let ambiguous = ambiguous_names(select);
    let mut seen: Vec<String> = Vec::with_capacity(select.projection.len());
    for item in &mut select.projection {
        match item {
            SelectItem::UnnamedExpr(expr) if is_column(expr) => seen.push(output_name(expr)),
            SelectItem::ExprWithAlias { alias, .. } => {
                let name = fold(alias);
                let repeated = seen.iter().filter(|known| **known == name).count();
                if repeated > 0 || ambiguous.contains(&name) {
                    *alias = Ident::with_quote('"', marked(&name, repeated));
                }
                seen.push(name);
            }
            _ => {}
        }
    }
    let mut columns: Vec<Expr> = Vec::new();
    for item in &mut select.projection {
        let expr = match item {
            // The planner drops the alias.
            SelectItem::ExprWithAlias { expr, alias } if is_column(expr) && fold(alias) == output_name(expr) => {
                columns.push(expr.clone());
                continue;
            }
            SelectItem::UnnamedExpr(expr) => expr,
            _ => continue,
        };
        if is_column(expr) {
            let repeated = columns.iter().any(|known| is_same(known, expr));
            columns.push(expr.clone());
            if !repeated && !ambiguous.contains(&output_name(expr)) {
                continue;
            }
        }
        let alias = Ident::with_quote('"', unique_name(&mut seen, output_name(expr)));
        *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
    }
}

/// `DISTINCT ON (1)` is about the first item of the list. What stands there twice says no more than once, and DataFusion
/// makes groups of keys that are different.
pub(in crate::sql) fn distinct_by_places(select: &mut Select, copies: &mut Copies) -> Result<()> {
    let Some(Distinct::On(keys)) = &mut select.distinct else { return Ok(()) };
    for key in keys.iter_mut() {
        let Expr::Value(ValueWithSpan { value: Value::Number(digits, _), .. }) = &*key else { continue };
        let Some(before) = digits.parse::<usize>().ok().and_then(|place| place.checked_sub(1)) else { continue };
        let listed = select.projection.iter().map(|item| match item {
            SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => Some(expr),
            _ => None,
        });
        // Behind a star it is not known which item has the number.
        if let Some(Some(expr)) = listed.take_while(Option::is_some).nth(before) {
            copies.take(expr, 1)?;
            *key = expr.clone();
        }
    }
    let mut place = 0;
    while place < keys.len() {
        match keys[..place].contains(&keys[place]) {
            true => drop(keys.remove(place)),
            false => place += 1,
        }
    }
    Ok(())
}

fn is_column(expr: &Expr) -> bool {
    matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_))
}

/// Whether two expressions are one column, as far as their text tells: `x` and `a.x` are, if both are known at all.
fn is_same(one: &Expr, other: &Expr) -> bool {
    let (own, others) = (parts_of(one), parts_of(other));
    match own.is_empty() || others.is_empty() {
        true => one == other,
        false => own.iter().rev().zip(others.iter().rev()).all(|(own, other)| is_same_name(own, other)),
    }
}

fn parts_of(expr: &Expr) -> &[Ident] {
    match expr {
        Expr::Identifier(ident) => std::slice::from_ref(ident),
        Expr::CompoundIdentifier(parts) => parts,
        _ => &[],
    }
}

/// Whether two identifiers are folded to one name. It is asked of each pair of a list, so it makes no texts.
fn is_same_name(one: &Ident, other: &Ident) -> bool {
    one.value.len() == other.value.len() && folded_bytes(one).eq(folded_bytes(other))
}

fn folded_bytes(ident: &Ident) -> impl Iterator<Item = u8> {
    let is_quoted = ident.quote_style.is_some();
    ident.value.bytes().map(move |byte| if is_quoted { byte } else { byte.to_ascii_lowercase() })
}

/// The names that are given with AS to one column, and with or without it to a different one: of them none is left, or a
/// use would mean the first. Columns by themselves may be of the same name: their tables tell them apart.
fn ambiguous_names(select: &Select) -> Vec<String> {
    let mut named: Vec<(String, &Expr, bool)> = Vec::with_capacity(select.projection.len());
    let mut ambiguous = Vec::new();
    for item in &select.projection {
        let (name, expr, given) = match item {
            SelectItem::ExprWithAlias { expr, alias } => (fold(alias), expr, true),
            SelectItem::UnnamedExpr(expr) if is_column(expr) => (output_name(expr), expr, false),
            _ => continue,
        };
        let differs = |(other, value, with_as): &(String, &Expr, bool)| {
            *other == name && (given || *with_as) && !is_same(value, expr)
        };
        if named.iter().any(differs) {
            ambiguous.push(name.clone());
        }
        named.push((name, expr, given));
    }
    ambiguous
}

/// Refuses to order by a constant that is no place in the list.
pub(in crate::sql) fn check_sort_constants(order_by: &OrderBy) -> Result<()> {
    let OrderByKind::Expressions(items) = &order_by.kind else { return Ok(()) };
    for item in items {
        let Expr::Value(ValueWithSpan { value, span }) = &item.expr else { continue };
        let may_be = match value {
            Value::Number(digits, _) => digits.bytes().all(|byte| byte.is_ascii_digit()),
            other => matches!(other, Value::Placeholder(_)),
        };
        if !may_be {
            return Err(Error::syntax("non-integer constant in ORDER BY").at(place(*span)));
        }
    }
    Ok(())
}

/// Refuses to order by a name that two different columns of the list have.
pub(in crate::sql) fn check_order(select: &Select, order_by: &OrderBy) -> Result<()> {
    let OrderByKind::Expressions(items) = &order_by.kind else { return Ok(()) };
    for item in items {
        let Expr::Identifier(ident) = &item.expr else { continue };
        let name = fold(ident);
        let mut meant = select.projection.iter().filter_map(|item| match item {
            SelectItem::ExprWithAlias { expr, alias } if fold(alias) == name => Some(expr),
            SelectItem::UnnamedExpr(expr) if is_column(expr) && output_name(expr) == name => Some(expr),
            _ => None,
        });
        if let Some(first) = meant.next()
            && meant.any(|other| !is_same(first, other))
        {
            let message = format!("ORDER BY \"{name}\" is ambiguous");
            return Err(Error::new(sqlstate::AMBIGUOUS_COLUMN, message).at(place(ident.span)));
        }
    }
    Ok(())
}

/// Refuses a name that a subquery in FROM gives to two of its columns.
pub(in crate::sql) fn check_subquery_names(select: &Select) -> Result<()> {
    let factors = select
        .from
        .iter()
        .flat_map(|from| std::iter::once(&from.relation).chain(from.joins.iter().map(|join| &join.relation)));
    let mut ambiguous: Vec<(String, String)> = Vec::new();
    for factor in factors {
        let TableFactor::Derived { subquery, alias: Some(alias), .. } = factor else { continue };
        let (true, SetExpr::Select(inner)) = (alias.columns.is_empty(), subquery.body.as_ref()) else { continue };
        let mut seen = Vec::with_capacity(inner.projection.len());
        for item in &inner.projection {
            let name = match item {
                SelectItem::UnnamedExpr(expr) => output_name(expr),
                SelectItem::ExprWithAlias { alias, .. } => fold(alias),
                _ => continue,
            };
            if seen.contains(&name) {
                ambiguous.push((fold(&alias.name), name.clone()));
            }
            seen.push(name);
        }
    }
    if ambiguous.is_empty() {
        return Ok(());
    }
    match look_at_own(select, |part| refuse_ambiguous(part, &ambiguous)) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

/// Fails for a column that there are two of; these are given by relation and name.
fn refuse_ambiguous(part: &Expr, columns: &[(String, String)]) -> ControlFlow<Error> {
    let (relation, ident) = match part {
        Expr::Identifier(ident) => (None, ident),
        Expr::CompoundIdentifier(parts) => match parts.as_slice() {
            [relation, ident] => (Some(fold(relation)), ident),
            _ => return ControlFlow::Continue(()),
        },
        _ => return ControlFlow::Continue(()),
    };
    let name = fold(ident);
    let is_meant = |(known, column): &(String, String)| {
        *column == name && relation.as_ref().is_none_or(|relation| relation == known)
    };
    match columns.iter().any(is_meant) {
        false => ControlFlow::Continue(()),
        true => {
            let message = format!("column reference \"{name}\" is ambiguous");
            ControlFlow::Break(Error::new(sqlstate::AMBIGUOUS_COLUMN, message).at(place(ident.span)))
        }
    }
}

/// Whether a select list has names beside a `*`.
pub(in crate::sql) fn names_beside_stars(query: &Query) -> bool {
    struct Finder;
    impl Visitor for Finder {
        type Break = ();
        fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
            let stars = select
                .projection
                .iter()
                .filter(|item| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..)));
            let stars = stars.count();
            match stars > 0 && stars < select.projection.len() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        }
    }
    query.visit(&mut Finder).is_break()
}

/// Adds the columns that a part of a query names, and tells whether it names windows.
fn add_columns<N: Visit>(node: &N, columns: &mut Vec<(String, Expr)>) -> bool {
    let mut names_window = false;
    let _: ControlFlow<()> = look_at_own(node, |part| {
        let name = match part {
            Expr::Identifier(ident) => Some(ident),
            Expr::CompoundIdentifier(parts) => parts.last(),
            Expr::Function(function) => {
                names_window |= match &function.over {
                    Some(WindowType::NamedWindow(_)) => true,
                    Some(WindowType::WindowSpec(spec)) => spec.window_name.is_some(),
                    None => false,
                };
                None
            }
            _ => None,
        };
        columns.extend(name.map(|name| (fold(name), part.clone())));
        ControlFlow::Continue(())
    });
    names_window
}

/// The query with those names of its list marked that its ORDER BY uses inside expressions; `None` if there are none.
pub(in crate::sql) fn ordered_by_inputs(query: &Query) -> Option<Query> {
    let OrderByKind::Expressions(items) = &query.order_by.as_ref()?.kind else { return None };
    let SetExpr::Select(select) = query.body.as_ref() else { return None };
    let mut columns: Vec<(String, Expr)> = Vec::new();
    let mut names_window = false;
    for item in items.iter().filter(|item| !matches!(item.expr, Expr::Identifier(_) | Expr::Value(_))) {
        names_window |= add_columns(&item.expr, &mut columns);
    }
    // What a window that is named there is made of stands in another clause.
    for definition in select.named_window.iter().filter(|_| names_window) {
        if let NamedWindowExpr::WindowSpec(spec) = &definition.1 {
            add_columns(spec, &mut columns);
        }
    }
    // A column that the list has under its own name is found there.
    let hides = |name: &str, expr: &Expr| {
        let is_hidden = |column: &Expr| matches!(column, Expr::Identifier(_)) || !is_same(expr, column);
        columns.iter().any(|(other, column)| other == name && is_hidden(column))
    };
    let aliases = select.projection.iter().filter_map(|item| match item {
        SelectItem::ExprWithAlias { expr, alias } => Some((fold(alias), expr)),
        SelectItem::UnnamedExpr(expr) if !is_column(expr) => Some((output_name(expr), expr)),
        _ => None,
    });
    let aliases: Vec<String> = aliases.filter(|(name, expr)| hides(name, expr)).map(|(name, _)| name).collect();
    if aliases.is_empty() {
        return None;
    }
    let mut query = query.clone();
    let mark = |ident: &mut Ident| {
        if aliases.contains(&fold(ident)) {
            *ident = Ident::with_quote('"', marked(&fold(ident), 0));
        }
    };
    if let SetExpr::Select(select) = query.body.as_mut() {
        for item in &mut select.projection {
            match item {
                SelectItem::ExprWithAlias { alias, .. } => mark(alias),
                SelectItem::UnnamedExpr(expr) if !is_column(expr) && aliases.contains(&output_name(expr)) => {
                    let alias = Ident::with_quote('"', marked(&output_name(expr), 0));
                    *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
                }
                _ => {}
            }
        }
    }
    if let Some(OrderBy { kind: OrderByKind::Expressions(items), .. }) = &mut query.order_by {
        for item in items {
            if let Expr::Identifier(ident) = &mut item.expr {
                mark(ident);
            }
        }
    }
    Some(query)
}
