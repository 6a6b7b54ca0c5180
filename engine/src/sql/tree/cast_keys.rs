//! `GROUP BY z::date, z::time`: keys that differ in a cast.
//!
//! DataFusion tells the columns of an aggregation apart by their names, in which casts are not seen. Where two keys
//! would be one, every cast of the SELECT becomes `told_apart(CAST(z AS date), 'DATE')`, a function that gives back its
//! first argument, and that the optimiser removes when the names are settled.
//!
//! The same is done for a key that is a cast of a table's key: `GROUP BY t::int` would be taken for `GROUP BY t`, which
//! every column of the table belongs to; and for elements of grouping sets, which are computed beside the columns
//! ([`super::grouping`]): `ROLLUP (t::int)` would have the name of `t`.

use std::ops::ControlFlow;

use datafusion::common::{Constraint, TableReference};
use datafusion::logical_expr::planner::ContextProvider;
use datafusion::sql::sqlparser::ast::{
    Expr, GroupByExpr, ObjectName, OrderBy, Query, Select, SelectItem, SetExpr, TableFactor, TableWithJoins, Value,
    ValueWithSpan, VisitMut, VisitorMut,
};
use datafusion::sql::sqlparser::tokenizer::Span;

use super::own_expressions::for_each_own;
use crate::dml::syntax::call_with;
use crate::functions::told_apart::TOLD_APART;
use crate::sql::context::StatementContext;
use crate::sql::text::parse::{fold, table_name};

/// Tells the casts of a SELECT, and of the ORDER BY of its query, apart if its keys need it.
pub(crate) fn tell_casts_apart(select: &mut Select, order_by: Option<&mut OrderBy>) {
    let GroupByExpr::Expressions(items, _) = &select.group_by else { return };
    let mut keys: Vec<&Expr> = Vec::new();
    let mut needed = false;
    for item in items {
        match item {
            Expr::Rollup(lists) | Expr::Cube(lists) | Expr::GroupingSets(lists) => {
                let elements = || lists.iter().flatten();
                needed |= elements().any(|key| cast_column(meant(key, &select.projection)).is_some());
                keys.extend(elements());
            }
            item => keys.push(item),
        }
    }
    let mut known: Vec<(&Expr, Expr)> = Vec::with_capacity(keys.len());
    for key in keys {
        let key = meant(key, &select.projection);
        let mut bare = key.clone();
        strip_casts(&mut bare);
        needed |= known.iter().any(|(other, other_bare)| *other_bare == bare && *other != key);
        known.push((key, bare));
    }
    if needed {
        tell_apart(select, order_by);
    }
}

fn tell_apart(select: &mut Select, order_by: Option<&mut OrderBy>) {
    let _ = for_each_own(select, tell);
    if let Some(order_by) = order_by {
        let _ = for_each_own(order_by, tell);
    }
}

fn tell(expr: &mut Expr) -> ControlFlow<()> {
    if let Expr::Cast { data_type, .. } = expr {
        let name = Expr::value(Value::SingleQuotedString(data_type.to_string()));
        let cast = std::mem::replace(expr, Expr::value(Value::Null));
        *expr = call_with(TOLD_APART, vec![cast, name], Span::empty());
    }
    ControlFlow::Continue(())
}

/// Tells the casts of all SELECTs apart that group by a cast of a table's key.
pub(crate) fn tell_casts_of_keys(context: &StatementContext, query: &mut Query) {
    let _ = query.visit(&mut KeyCasts { context });
}

struct KeyCasts<'a> {
    context: &'a StatementContext,
}

impl VisitorMut for KeyCasts<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        if let SetExpr::Select(select) = query.body.as_mut()
            && self.casts_a_key(select)
        {
            tell_apart(select, query.order_by.as_mut());
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        if self.casts_a_key(select) {
            tell_apart(select, None);
        }
        ControlFlow::Continue(())
    }
}

impl KeyCasts<'_> {
    fn casts_a_key(&self, select: &Select) -> bool {
        let GroupByExpr::Expressions(items, _) = &select.group_by else { return false };
        let cast = items.iter().filter_map(|key| cast_column(meant(key, &select.projection)));
        let cast: Vec<String> = cast.collect();
        !cast.is_empty() && select.from.iter().any(|from| self.has_key(from, &cast))
    }

    /// Whether one of these columns is in the primary key of a table there.
    fn has_key(&self, from: &TableWithJoins, columns: &[String]) -> bool {
        let mut factors = std::iter::once(&from.relation).chain(from.joins.iter().map(|join| &join.relation));
        factors.any(|factor| match factor {
            TableFactor::Table { name, args: None, .. } => self.is_key(name, columns).unwrap_or(false),
            TableFactor::NestedJoin { table_with_joins, .. } => self.has_key(table_with_joins, columns),
            _ => false,
        })
    }

    fn is_key(&self, name: &ObjectName, columns: &[String]) -> Option<bool> {
        let (schema, table) = table_name(name).ok()?;
        let reference = match schema {
            Some(schema) => TableReference::partial(schema, table),
            None => TableReference::bare(table),
        };
        let source = self.context.get_table_source(reference).ok()?;
        let schema = source.schema();
        let in_key = |constraint: &Constraint| {
            let (Constraint::PrimaryKey(places) | Constraint::Unique(places)) = constraint;
            places.iter().any(|place| columns.contains(schema.field(*place).name()))
        };
        Some(source.constraints()?.iter().any(in_key))
    }
}

/// The name of the column that is cast, if a key is that and nothing else.
fn cast_column(key: &Expr) -> Option<String> {
    let (mut expr, mut is_cast) = (key, false);
    loop {
        match expr {
            Expr::Cast { expr: inner, .. } => {
                is_cast = true;
                expr = inner.as_ref();
            }
            Expr::Nested(inner) => expr = inner.as_ref(),
            Expr::Identifier(column) if is_cast => return Some(fold(column)),
            Expr::CompoundIdentifier(parts) if is_cast => return parts.last().map(fold),
            _ => return None,
        }
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
