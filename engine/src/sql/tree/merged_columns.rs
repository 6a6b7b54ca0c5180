//! The columns that `JOIN … USING` merges, as PostgreSQL has them: `*` shows them first and once, and after an outer join
//! their value is that of the side that has one.
//!
//! DataFusion takes the left side's column, which is NULL for rows that only the right one has, and shows columns in the
//! order of the tables; and of a column that two joins merge it does not know which one is meant. RIGHT and FULL joins, and
//! joins of more than two relations, are therefore written with ON before it sees them:
//!
//! ```sql
//! SELECT *, id + 1 FROM a FULL JOIN b USING (id)
//! SELECT coalesce(a.id, b.id) AS id, a.* EXCEPT (id), b.* EXCEPT (id), coalesce(a.id, b.id) + 1
//!   FROM a FULL JOIN b ON a.id = b.id
//! ```
//!
//! A single inner or left join keeps USING; only `*` is spelled out, and WHERE, where the planner knows of no merged columns,
//! names the left side's. Parentheses around the first joins of a FROM are opened. NATURAL joins have become USING before, and joins that merge
//! different columns ON ([`super::natural_joins`]), as far as the columns are known; FULL joins of others are refused.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, ExceptSelectItem, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, Join,
    JoinConstraint, JoinOperator, ObjectName, OrderBy, OrderByKind, Select, SelectItem,
    SelectItemQualifiedWildcardKind, TableFactor, TableWithJoins, VisitMut, WildcardAdditionalOptions,
};
use datafusion::sql::sqlparser::tokenizer::Span;

use super::known_columns::{Relation, Shown, is_plain, relation_name};
use super::natural_joins::{constraint, constraint_mut};
use super::own_expressions::for_each_own;
use crate::dml::syntax::{both, call_with, named, quoted};
use crate::sql::names::{output_name, unique_name};
use crate::sql::text::parse::fold;
use crate::{Error, Result};

/// What makes one column of several.
const COALESCE: &str = "coalesce";

/// The merged columns and their values.
type Merged = Vec<(String, Expr)>;

/// Rewrites what a SELECT, and the ORDER BY of its query, say of merged columns.
pub(crate) fn merge_columns(select: &mut Select, order_by: Option<&mut OrderBy>) -> Result<()> {
    open_parentheses(&mut select.from);
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
    if joins.len() == 1 && !joins.iter().any(prefers_right) {
        let columns: Merged = names.iter().map(|name| (name.clone(), Expr::Identifier(quoted(name)))).collect();
        if let (Some(condition), Some(left)) = (&mut select.selection, relations.first()) {
            replace(condition, &names.iter().map(|name| (name.clone(), column_of(left, name))).collect());
        }
        spell_out_stars(select, &columns, &relations);
        return Ok(());
    }
    let Some(merged) = join_on(joins, &names, &relations) else { return refuse_full(joins.iter()) };
    name_items(select, &merged);
    spell_out_stars(select, &merged, &relations);
    replace_merged(select, order_by, &merged);
    Ok(())
}

/// `(a JOIN b …) JOIN c …` is `a JOIN b … JOIN c …`.
pub(in crate::sql) fn open_parentheses(from: &mut [TableWithJoins]) {
    for from in from {
        while let TableFactor::NestedJoin { table_with_joins, alias: None } = &mut from.relation {
            let inner = table_with_joins.as_mut();
            let joins = std::mem::take(&mut inner.joins);
            let relation = inner.relation.clone();
            from.joins.splice(..0, joins);
            from.relation = relation;
        }
    }
}

/// Whether rows of a join may have no columns of its left side.
fn prefers_right(join: &Join) -> bool {
    use JoinOperator::{FullOuter, Right, RightOuter};
    matches!(join.join_operator, FullOuter(_) | Right(_) | RightOuter(_))
}

/// Puts the values of merged columns in the places of their names, in a SELECT and the ORDER BY of its query.
fn replace_merged(select: &mut Select, order_by: Option<&mut OrderBy>, merged: &Merged) {
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
                replace(&mut item.expr, merged);
            }
        }
    }
    replace(&mut *select, merged);
}

/// Columns that joins show, and the names of those that they merge.
pub(in crate::sql) struct Joined {
    pub(in crate::sql) shown: Vec<Shown>,
    pub(in crate::sql) merged: Vec<String>,
}

/// Writes joins of relations with known columns with ON, whatever they merge; `None` if a name is not one column of each side.
pub(in crate::sql) fn join_on_known(joins: &mut [Join], relations: Vec<Vec<Shown>>) -> Option<Joined> {
    let mut relations = relations.into_iter();
    let (mut shown, mut merged) = (relations.next()?, Vec::new());
    let of = |columns: &[Shown], name: &str| {
        let mut found = columns.iter().filter(|(known, _)| known == name);
        let (_, value) = found.next()?;
        found.next().is_none().then(|| value.clone())
    };
    for (join, right) in joins.iter_mut().zip(relations) {
        let names = match constraint(join) {
            Some(JoinConstraint::Using(names)) => names.iter().map(plain_name).collect::<Option<Vec<String>>>()?,
            Some(JoinConstraint::Natural) => return None,
            _ => {
                shown.extend(right);
                continue;
            }
        };
        let (mut first, mut equal) = (Vec::with_capacity(names.len()), Vec::with_capacity(names.len()));
        for name in &names {
            let (own, other) = (of(&shown, name)?, of(&right, name)?);
            first.push((name.clone(), merged_value(join, &own, &other)));
            equal.push(equality(own, other));
        }
        *constraint_mut(join)? = JoinConstraint::On(equal.into_iter().reduce(both)?);
        let rest = |(name, _): &Shown| !names.contains(name);
        shown = first.into_iter().chain(shown.into_iter().filter(rest)).chain(right.into_iter().filter(rest)).collect();
        merged.extend(names);
    }
    Some(Joined { shown, merged })
}

/// Writes the columns of such joins in the places of `*`, and the values of the merged ones in those of their names.
pub(in crate::sql) fn show_joined(select: &mut Select, order_by: Option<&mut OrderBy>, joined: Joined) {
    let Joined { shown, merged } = joined;
    let merged: Merged = shown.iter().filter(|(name, _)| merged.contains(name)).cloned().collect();
    name_items(select, &merged);
    let mut items = Vec::with_capacity(select.projection.len() + shown.len());
    for item in std::mem::take(&mut select.projection) {
        match &item {
            SelectItem::Wildcard(options) if is_plain(options) => {
                let mut seen = Vec::new();
                items.extend(shown.iter().map(|(name, value)| {
                    let repeated = seen.contains(name);
                    let alias = unique_name(&mut seen, name.clone());
                    match value {
                        // Still a column of its relation, as RETURNING wants it.
                        Expr::CompoundIdentifier(_) if !repeated => SelectItem::UnnamedExpr(value.clone()),
                        _ => named(value.clone(), &alias),
                    }
                }));
            }
            _ => items.push(item),
        }
    }
    select.projection = items;
    replace_merged(select, order_by, &merged);
}

pub(in crate::sql) fn merged_value(join: &Join, left: &Expr, right: &Expr) -> Expr {
    match join.join_operator {
        JoinOperator::Right(_) | JoinOperator::RightOuter(_) => right.clone(),
        // Not one in the other, of which the optimiser would double the inner one.
        JoinOperator::FullOuter(_) => {
            let values = alternatives(left).into_iter().chain(alternatives(right)).collect();
            call_with(COALESCE, values, Span::empty())
        }
        _ => left.clone(),
    }
}

/// What a merged column is the first known one of.
fn alternatives(value: &Expr) -> Vec<Expr> {
    let arguments = match value {
        Expr::Function(Function { name, args: FunctionArguments::List(list), .. }) if name.to_string() == COALESCE => {
            list.args.as_slice()
        }
        _ => return vec![value.clone()],
    };
    let plain = |argument: &FunctionArg| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(value)) => Some(value.clone()),
        _ => None,
    };
    arguments.iter().filter_map(plain).collect()
}

fn equality(left: Expr, right: Expr) -> Expr {
    Expr::BinaryOp { left: Box::new(left), op: BinaryOperator::Eq, right: Box::new(right) }
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

fn column_of(relation: &Relation, name: &str) -> Expr {
    Expr::CompoundIdentifier(relation.iter().cloned().chain([quoted(name)]).collect())
}

/// Writes the joins with ON, and gives the values of the merged columns.
fn join_on(joins: &mut [Join], names: &[String], relations: &[Relation]) -> Option<Merged> {
    let (first, others) = relations.split_first()?;
    let mut merged: Merged = names.iter().map(|name| (name.clone(), column_of(first, name))).collect();
    for (join, relation) in joins.iter_mut().zip(others) {
        let pairs: Vec<(Expr, Expr)> =
            merged.iter().map(|(name, left)| (left.clone(), column_of(relation, name))).collect();
        for ((_, value), (left, right)) in merged.iter_mut().zip(&pairs) {
            *value = merged_value(join, left, right);
        }
        let equal = pairs.into_iter().map(|(left, right)| equality(left, right));
        *constraint_mut(join)? = JoinConstraint::On(equal.reduce(both)?);
    }
    Some(merged)
}

/// `*` as `id, a.* EXCEPT (id), b.* EXCEPT (id)`.
fn spell_out_stars(select: &mut Select, columns: &Merged, relations: &[Relation]) {
    let is_star = |item: &SelectItem| matches!(item, SelectItem::Wildcard(options) if is_plain(options));
    if !select.projection.iter().any(is_star) {
        return;
    }
    let mut idents = columns.iter().map(|(name, _)| quoted(name));
    let Some(first_element) = idents.next() else { return };
    let except = ExceptSelectItem { first_element, additional_elements: idents.collect() };
    let mut items = Vec::with_capacity(select.projection.len() + columns.len());
    for item in std::mem::take(&mut select.projection) {
        if !is_star(&item) {
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
    let mut replaced = false;
    let _: ControlFlow<()> = for_each_own(node, |expr| {
        if let Expr::Identifier(ident) = expr
            && let Some((_, value)) = merged.iter().find(|(name, _)| *name == fold(ident))
        {
            *expr = value.clone();
            replaced = true;
        }
        ControlFlow::Continue(())
    });
    replaced
}
