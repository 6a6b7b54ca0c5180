//! The columns that `JOIN … USING` merges, as PostgreSQL has them: `*` shows them first and once, and after an outer join
//! their value is that of the side that has one.
//!
//! DataFusion takes the left side's column, which is NULL for rows that only the right one has, and shows columns in the
//! order of the tables. RIGHT and FULL joins are therefore written with ON before it sees them:
//!
//! ```sql
//! SELECT *, id + 1 FROM a FULL JOIN b USING (id)
//! SELECT coalesce(a.id, b.id) AS id, a.* EXCEPT (id), b.* EXCEPT (id), coalesce(a.id, b.id) + 1
//!   FROM a FULL JOIN b ON a.id = b.id
//! ```
//!
//! Inner and left joins keep USING; only `*` is spelled out. NATURAL joins of tables have become USING before
//! ([`super::natural_joins`]); those of subqueries, and chains that merge different columns, stay as they are, or are refused.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, ExceptSelectItem, Expr, Ident, Join, JoinConstraint, JoinOperator, ObjectName, OrderBy,
    OrderByKind, Query, Select, SelectItem, SelectItemQualifiedWildcardKind, TableFactor, VisitMut, VisitorMut,
    WildcardAdditionalOptions,
};
use datafusion::sql::sqlparser::tokenizer::Span;

use super::names::output_name;
use super::natural_joins::{constraint, constraint_mut};
use super::parse::fold;
use crate::dml::syntax::{both, call_with, quoted};
use crate::{Error, Result};

/// The merged columns and their values.
type Merged = Vec<(String, Expr)>;

/// The parts of a relation's name in the query.
type Relation = Vec<Ident>;

/// Rewrites what a SELECT, and the ORDER BY of its query, say of merged columns.
pub(crate) fn merge_columns(select: &mut Select, order_by: Option<&mut OrderBy>) -> Result<()> {
    if !select.from.iter().any(|from| from.joins.iter().any(|join| constraint(join).is_some_and(merges))) {
        return Ok(());
    }
    let [from] = select.from.as_mut_slice() else {
        return refuse_full(select.from.iter().flat_map(|from| &from.joins));
    };
    let (first, joins) = (&from.relation, from.joins.as_mut_slice());
    let relations = std::iter::once(first).chain(joins.iter().map(|join| &join.relation)).map(relation_name);
    let (Some(names), Some(relations)) = (names_of_all(joins), relations.collect::<Option<Vec<Relation>>>()) else {
        return refuse_full(joins.iter());
    };
    let prefers_right = |join: &Join| {
        use JoinOperator::{FullOuter, Right, RightOuter};
        matches!(join.join_operator, FullOuter(_) | Right(_) | RightOuter(_))
    };
    if !joins.iter().any(prefers_right) {
        let columns: Merged = names.iter().map(|name| (name.clone(), Expr::Identifier(quoted(name)))).collect();
        spell_out_stars(select, &columns, &relations);
        return Ok(());
    }
    let Some(merged) = join_on(joins, &names, &relations) else { return refuse_full(joins.iter()) };
    name_items(select, &merged);
    spell_out_stars(select, &merged, &relations);
    if let Some(OrderBy { kind: OrderByKind::Expressions(items), .. }) = order_by {
        let shown = |ident: &Ident| {
            let name = fold(ident);
            select.projection.iter().any(|item| match item {
                SelectItem::ExprWithAlias { alias, .. } => fold(alias) == name,
                SelectItem::UnnamedExpr(expr) => output_name(expr) == name,
                _ => false,
            })
        };
        for item in items {
            // A name by itself is that of an output column.
            if !matches!(&item.expr, Expr::Identifier(ident) if shown(ident)) {
                replace(&mut item.expr, &merged);
            }
        }
    }
    replace(&mut *select, &merged);
    Ok(())
}

fn merges(constraint: &JoinConstraint) -> bool {
    matches!(constraint, JoinConstraint::Using(_) | JoinConstraint::Natural)
}

/// FULL joins whose merged columns are not known.
fn refuse_full<'a>(mut joins: impl Iterator<Item = &'a Join>) -> Result<()> {
    let full = |join: &Join| matches!(&join.join_operator, JoinOperator::FullOuter(constraint) if merges(constraint));
    match joins.any(full) {
        true => Err(Error::unsupported("NATURAL FULL JOIN, and FULL JOIN … USING beside joins with other columns")
            .with_hint("Write FULL JOIN … ON a.x = b.x, and coalesce(a.x, b.x) for the merged column.")),
        false => Ok(()),
    }
}

/// The columns that all joins merge, if all merge the same.
fn names_of_all(joins: &[Join]) -> Option<Vec<String>> {
    let mut known: Option<Vec<String>> = None;
    for join in joins {
        let Some(JoinConstraint::Using(columns)) = constraint(join) else { return None };
        let columns: Vec<String> = columns.iter().map(plain_name).collect::<Option<_>>()?;
        match &known {
            Some(known) if *known != columns => return None,
            _ => known = Some(columns),
        }
    }
    known
}

fn plain_name(name: &ObjectName) -> Option<String> {
    match name.0.as_slice() {
        [part] => part.as_ident().map(fold),
        _ => None,
    }
}

/// What a relation is called in the query.
fn relation_name(factor: &TableFactor) -> Option<Relation> {
    match factor {
        TableFactor::Table { alias: Some(alias), .. }
        | TableFactor::Derived { alias: Some(alias), .. }
        | TableFactor::Function { alias: Some(alias), .. } => Some(vec![alias.name.clone()]),
        TableFactor::Table { name, args: None, .. } => name.0.iter().map(|part| part.as_ident().cloned()).collect(),
        _ => None,
    }
}

/// Writes the joins with ON, and gives the values of the merged columns.
fn join_on(joins: &mut [Join], names: &[String], relations: &[Relation]) -> Option<Merged> {
    let column = |relation: &Relation, name: &str| {
        Expr::CompoundIdentifier(relation.iter().cloned().chain([quoted(name)]).collect())
    };
    let (first, others) = relations.split_first()?;
    let mut merged: Merged = names.iter().map(|name| (name.clone(), column(first, name))).collect();
    for (join, relation) in joins.iter_mut().zip(others) {
        let pairs: Vec<(Expr, Expr)> =
            merged.iter().map(|(name, left)| (left.clone(), column(relation, name))).collect();
        for ((_, value), (left, right)) in merged.iter_mut().zip(&pairs) {
            match join.join_operator {
                JoinOperator::Right(_) | JoinOperator::RightOuter(_) => *value = right.clone(),
                JoinOperator::FullOuter(_) => {
                    *value = call_with("coalesce", vec![left.clone(), right.clone()], Span::empty());
                }
                _ => {}
            }
        }
        let equal =
            |(left, right)| Expr::BinaryOp { left: Box::new(left), op: BinaryOperator::Eq, right: Box::new(right) };
        *constraint_mut(join)? = JoinConstraint::On(pairs.into_iter().map(equal).reduce(both)?);
    }
    Some(merged)
}

/// `*` as `id, a.* EXCEPT (id), b.* EXCEPT (id)`.
fn spell_out_stars(select: &mut Select, columns: &Merged, relations: &[Relation]) {
    let is_plain = |item: &SelectItem| match item {
        SelectItem::Wildcard(options) => {
            options.opt_ilike.is_none()
                && options.opt_exclude.is_none()
                && options.opt_except.is_none()
                && options.opt_replace.is_none()
                && options.opt_rename.is_none()
                && options.opt_alias.is_none()
        }
        _ => false,
    };
    if !select.projection.iter().any(is_plain) {
        return;
    }
    let mut idents = columns.iter().map(|(name, _)| quoted(name));
    let Some(first_element) = idents.next() else { return };
    let except = ExceptSelectItem { first_element, additional_elements: idents.collect() };
    let mut items = Vec::with_capacity(select.projection.len() + columns.len());
    for item in std::mem::take(&mut select.projection) {
        if !is_plain(&item) {
            items.push(item);
            continue;
        }
        items.extend(columns.iter().map(|(name, value)| match value {
            Expr::Identifier(_) => SelectItem::UnnamedExpr(value.clone()),
            _ => SelectItem::ExprWithAlias { expr: value.clone(), alias: quoted(name) },
        }));
        items.extend(relations.iter().map(|relation| {
            let options =
                WildcardAdditionalOptions { opt_except: Some(except.clone()), ..WildcardAdditionalOptions::default() };
            let relation = SelectItemQualifiedWildcardKind::ObjectName(ObjectName::from(relation.clone()));
            SelectItem::QualifiedWildcard(relation, options)
        }));
    }
    select.projection = items;
}

/// Keeps the names of items whose columns are about to become other expressions.
fn name_items(select: &mut Select, merged: &Merged) {
    for item in &mut select.projection {
        if let SelectItem::UnnamedExpr(expr) = item {
            let alias = quoted(&output_name(expr));
            let mut replaced = expr.clone();
            if replace(&mut replaced, merged) {
                *item = SelectItem::ExprWithAlias { expr: replaced, alias };
            }
        }
    }
}

/// Puts the values in the places of the merged columns, except in subqueries. Whether there was one.
fn replace<N: VisitMut>(node: &mut N, merged: &Merged) -> bool {
    struct Replacing<'a> {
        merged: &'a Merged,
        depth: usize,
        replaced: bool,
    }
    impl VisitorMut for Replacing<'_> {
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
                && let Expr::Identifier(ident) = expr
                && let Some((_, value)) = self.merged.iter().find(|(name, _)| *name == fold(ident))
            {
                *expr = value.clone();
                self.replaced = true;
            }
            ControlFlow::Continue(())
        }
    }
    let mut replacing = Replacing { merged, depth: 0, replaced: false };
    let _ = node.visit(&mut replacing);
    replacing.replaced
}
