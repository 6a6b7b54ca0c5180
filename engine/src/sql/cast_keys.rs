//! `GROUP BY z::date, z::time`: keys that differ in a cast.
//!
//! DataFusion tells the columns of an aggregation apart by their names, in which casts are not seen. Where two keys would be
//! one, every cast of the SELECT becomes `told_apart(CAST(z AS date), 'DATE')`, a function that gives back its first
//! argument, and that the optimiser removes when the names are settled.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, GroupByExpr, OrderBy, Query, Select, SelectItem, Value, ValueWithSpan, VisitMut, VisitorMut,
};
use datafusion::sql::sqlparser::tokenizer::Span;

use super::parse::fold;
use crate::dml::syntax::call_with;
use crate::functions::told_apart::TOLD_APART;

/// Tells the casts of a SELECT, and of the ORDER BY of its query, apart if its keys need it.
pub(crate) fn tell_casts_apart(select: &mut Select, order_by: Option<&mut OrderBy>) {
    let GroupByExpr::Expressions(items, _) = &select.group_by else { return };
    let mut keys: Vec<&Expr> = Vec::new();
    for item in items {
        match item {
            Expr::Rollup(lists) | Expr::Cube(lists) | Expr::GroupingSets(lists) => keys.extend(lists.iter().flatten()),
            item => keys.push(item),
        }
    }
    let mut known: Vec<(&Expr, Expr)> = Vec::with_capacity(keys.len());
    let mut needed = false;
    for key in keys {
        let key = meant(key, &select.projection);
        let mut bare = key.clone();
        strip_casts(&mut bare);
        needed |= known.iter().any(|(other, other_bare)| *other_bare == bare && *other != key);
        known.push((key, bare));
    }
    if !needed {
        return;
    }
    let mut telling = Telling { depth: 0 };
    let _ = select.visit(&mut telling);
    if let Some(order_by) = order_by {
        let _ = order_by.visit(&mut telling);
    }
}

/// The expression that a key is: itself, or the item of the select list that it names or numbers.
fn meant<'a>(key: &'a Expr, select_list: &'a [SelectItem]) -> &'a Expr {
    let item = match key {
        Expr::Value(ValueWithSpan { value: Value::Number(digits, _), .. }) => {
            digits.parse::<usize>().ok().and_then(|place| select_list.get(place.checked_sub(1)?))
        }
        Expr::Identifier(ident) => select_list
            .iter()
            .find(|item| matches!(item, SelectItem::ExprWithAlias { alias, .. } if fold(alias) == fold(ident))),
        _ => None,
    };
    match item {
        Some(SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) => expr,
        _ => key,
    }
}

fn strip_casts(expr: &mut Expr) {
    struct Stripping;
    impl VisitorMut for Stripping {
        type Break = ();
        fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
            if let Expr::Cast { expr: inner, .. } = expr {
                *expr = std::mem::replace(inner.as_mut(), Expr::value(Value::Null));
            }
            ControlFlow::Continue(())
        }
    }
    let _ = expr.visit(&mut Stripping);
}

struct Telling {
    depth: usize,
}

impl VisitorMut for Telling {
    type Break = ();
    fn pre_visit_query(&mut self, _query: &mut Query) -> ControlFlow<()> {
        self.depth += 1;
        ControlFlow::Continue(())
    }
    fn post_visit_query(&mut self, _query: &mut Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }
    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if self.depth == 0
            && let Expr::Cast { data_type, .. } = expr
        {
            let name = Expr::value(Value::SingleQuotedString(data_type.to_string()));
            let cast = std::mem::replace(expr, Expr::value(Value::Null));
            *expr = call_with(TOLD_APART, vec![cast, name], Span::empty());
        }
        ControlFlow::Continue(())
    }
}
