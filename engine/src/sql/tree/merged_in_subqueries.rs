//! Merged columns of a query's joins inside of its subqueries: `… FROM a JOIN b USING (id) WHERE EXISTS (SELECT … = id)`.
//!
//! The planner knows of merged columns only in the SELECT that has the join: a subquery sees the `id` of each table, and so
//! none by that name alone. Their values are put in the places of such names, wherever no relation of the subquery, or of one
//! between, has a column of that name. Where that is not known, a name stays as it is.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, GroupByExpr, OrderBy, OrderByKind, Query, Select, SelectItem, SetExpr, TableFactor, TableWithJoins, Visit,
    VisitMut, Visitor, VisitorMut,
};

use super::known_columns::{KnownColumns, Shown};
use crate::dml::syntax::named;
use crate::sql::names::output_name;
use crate::sql::text::parse::fold;

/// Whether a subquery in the expressions of a SELECT, or in a LATERAL relation of it, has one of these names.
pub(in crate::sql) fn names_in_subqueries(select: &Select, order_by: Option<&OrderBy>, names: &[String]) -> bool {
    let mut finder = Finder { names, depth: 0 };
    let relations = select.from.iter().flat_map(factors);
    let mut laterals = relations.filter_map(|factor| match factor {
        TableFactor::Derived { lateral: true, subquery, .. } => Some(subquery),
        _ => None,
    });
    laterals.any(|subquery| Visit::visit(subquery, &mut finder).is_break())
        || Visit::visit(&select.projection, &mut finder).is_break()
        || Visit::visit(&select.selection, &mut finder).is_break()
        || Visit::visit(&select.group_by, &mut finder).is_break()
        || Visit::visit(&select.having, &mut finder).is_break()
        || order_by.is_some_and(|order_by| Visit::visit(order_by, &mut finder).is_break())
}

/// A relation and those it is joined with.
fn factors(from: &TableWithJoins) -> impl Iterator<Item = &TableFactor> {
    std::iter::once(&from.relation).chain(from.joins.iter().map(|join| &join.relation))
}

struct Finder<'a> {
    names: &'a [String],
    /// How many queries deep.
    depth: usize,
}

impl Visitor for Finder<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, _query: &Query) -> ControlFlow<()> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _query: &Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        match expr {
            Expr::Identifier(ident) if self.depth > 0 && self.names.contains(&fold(ident)) => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    }
}

/// Puts the values of the merged columns of a SELECT in the places of their names inside of its subqueries.
pub(in crate::sql) fn replace_in_subqueries(
    known: &mut KnownColumns<'_>,
    select: &mut Select,
    order_by: Option<&mut OrderBy>,
    merged: &[Shown],
) {
    let mut replacing = Replacing { known, merged, hidden: Vec::new(), of_queries: Vec::new() };
    // Relations of FROM see each other only if they are LATERAL.
    for from in &mut select.from {
        for factor in std::iter::once(&mut from.relation).chain(from.joins.iter_mut().map(|join| &mut join.relation)) {
            if let TableFactor::Derived { lateral: true, subquery, .. } = factor {
                let _ = VisitMut::visit(subquery.as_mut(), &mut replacing);
            }
        }
    }
    let _ = VisitMut::visit(&mut select.projection, &mut replacing);
    let _ = VisitMut::visit(&mut select.selection, &mut replacing);
    let _ = VisitMut::visit(&mut select.group_by, &mut replacing);
    let _ = VisitMut::visit(&mut select.having, &mut replacing);
    if let Some(order_by) = order_by {
        let _ = VisitMut::visit(order_by, &mut replacing);
    }
}

struct Replacing<'a, 'k> {
    known: &'a mut KnownColumns<'k>,
    merged: &'a [Shown],
    /// Which names mean something else in the queries or SELECTs around, the innermost last; `None`: perhaps all.
    hidden: Vec<Option<Vec<String>>>,
    /// The same of the queries whose SELECTs these are: what a query is ordered by is not in sight inside of them.
    of_queries: Vec<Option<Vec<String>>>,
}

impl Replacing<'_, '_> {
    /// The value of a merged column that a name means here.
    fn value(&self, expr: &Expr) -> Option<&Expr> {
        let Expr::Identifier(ident) = expr else { return None };
        let name = fold(ident);
        let hides = |hidden: &Option<Vec<String>>| hidden.as_ref().is_none_or(|names| names.contains(&name));
        if self.hidden.is_empty() || self.hidden.iter().any(hides) {
            return None;
        }
        self.merged.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    fn columns_of(&mut self, select: &Select) -> Option<Vec<String>> {
        let mut names = Vec::new();
        for from in &select.from {
            for factor in factors(from) {
                names.extend(self.known.of_relation(factor)?.into_iter().map(|(name, _)| name));
            }
        }
        Some(names)
    }
}

impl VisitorMut for Replacing<'_, '_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        self.known.enter(query);
        let hidden = match query.body.as_ref() {
            SetExpr::Select(select) => self.columns_of(select).map(|mut names| {
                names.extend(sorted_outputs(select, query.order_by.as_ref()));
                names
            }),
            // What these are ordered by is a column of theirs.
            _ => Some(query.order_by.as_ref().map(bare_names).unwrap_or_default()),
        };
        self.hidden.push(hidden);
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        self.known.leave(query);
        self.hidden.pop();
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        let hidden = self.columns_of(select).map(|mut names| {
            names.extend(sorted_outputs(select, None));
            names
        });
        self.of_queries.extend(self.hidden.pop());
        self.hidden.push(hidden);
        for item in &mut select.projection {
            if let SelectItem::UnnamedExpr(expr) = item
                && let Some(value) = self.value(expr)
            {
                let renamed = named(value.clone(), &output_name(expr));
                *item = renamed;
            }
        }
        ControlFlow::Continue(())
    }

    fn post_visit_select(&mut self, _select: &mut Select) -> ControlFlow<()> {
        self.hidden.pop();
        self.hidden.extend(self.of_queries.pop());
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Some(value) = self.value(expr) {
            let value = value.clone();
            *expr = value;
        }
        ControlFlow::Continue(())
    }
}

/// The names of output columns that a SELECT is grouped or ordered by: there they are not those of outer columns.
fn sorted_outputs(select: &Select, order_by: Option<&OrderBy>) -> Vec<String> {
    let mut names = order_by.map(bare_names).unwrap_or_default();
    if let GroupByExpr::Expressions(keys, _) = &select.group_by {
        names.extend(keys.iter().filter_map(bare_name));
    }
    let is_output = |name: &String| {
        select.projection.iter().any(|item| match item {
            SelectItem::ExprWithAlias { alias, .. } => fold(alias) == *name,
            _ => false,
        })
    };
    names.retain(is_output);
    names
}

fn bare_names(order_by: &OrderBy) -> Vec<String> {
    match &order_by.kind {
        OrderByKind::Expressions(items) => items.iter().filter_map(|item| bare_name(&item.expr)).collect(),
        OrderByKind::All(_) => Vec::new(),
    }
}

fn bare_name(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Identifier(ident) => Some(fold(ident)),
        _ => None,
    }
}
