//! What a query says of columns that it does not name: NATURAL joins, and stars whose columns must be known.
//!
//! | in the query | becomes |
//! |---|---|
//! | `a NATURAL JOIN b` | `a JOIN b USING (…)`, or where they have no column in common a join of all rows |
//! | `a JOIN b USING (x) FULL JOIN c USING (y)` | joins with ON, and `coalesce(a.y, c.y)` for `y` |
//! | `*` beside another star, or of joins that merge different columns | the columns, by their names |
//! | `SELECT * … EXCEPT ALL …` | the same |
//!
//! What [`super::merged_columns`] knows of USING holds for NATURAL joins as well. Without common columns an outer NATURAL
//! join keeps its rows; DataFusion makes a cross join of it, which loses them. Where the columns of a relation are not
//! known (functions), a query stays as it is.

use std::collections::HashSet;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Join, JoinConstraint, JoinOperator, ObjectName, OrderBy, Query, Select, SelectItem, SetExpr, SetOperator,
    SetQuantifier, TableWithJoins, Visit, VisitMut, Visitor, VisitorMut,
};

use super::context::StatementContext;
use super::known_columns::{KnownColumns, Shown, common, is_plain};
use super::merged_columns::{Joined, join_on_known, prefers_right, show_joined};
use super::names::unique_name;
use super::parse::fold;
use crate::dml::syntax::{boolean, named, quoted};

/// Gives the NATURAL joins and stars of a query their columns.
pub(crate) fn resolve_columns(context: &StatementContext, query: &mut Query) {
    if Visit::visit(&*query, &mut Finder).is_break() {
        let _ = VisitMut::visit(query, &mut Resolving { known: KnownColumns::new(context) });
    }
}

/// Looks for what has to be resolved.
struct Finder;

impl Visitor for Finder {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        match counts_copies(&query.body) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
        let mut joins = select.from.iter().flat_map(|from| &from.joins);
        let merges = |join: &Join| constraint(join).is_some_and(merges);
        match joins.any(merges) || repeats_stars(select) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }
}

/// Whether all columns are shown beside a star of others, or the same.
fn repeats_stars(select: &Select) -> bool {
    let all = |item: &SelectItem| matches!(item, SelectItem::Wildcard(options) if is_plain(options));
    select.projection.iter().any(all) && select.projection.iter().filter(|item| is_star(item)).count() > 1
}

fn is_star(item: &SelectItem) -> bool {
    matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..))
}

/// Whether EXCEPT ALL or INTERSECT ALL is among the set operations of a query.
fn counts_copies(body: &SetExpr) -> bool {
    match body {
        SetExpr::SetOperation { op, set_quantifier, left, right } => {
            (*set_quantifier == SetQuantifier::All && *op != SetOperator::Union)
                || counts_copies(left)
                || counts_copies(right)
        }
        _ => false,
    }
}

struct Resolving<'a> {
    known: KnownColumns<'a>,
}

impl VisitorMut for Resolving<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        self.known.enter(query);
        if counts_copies(&query.body) {
            self.name_columns(&mut query.body);
        }
        if let SetExpr::Select(select) = query.body.as_mut() {
            self.resolve(select, query.order_by.as_mut());
        }
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        self.known.leave(query);
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        self.resolve(select, None);
        ControlFlow::Continue(())
    }
}

impl Resolving<'_> {
    /// Names the columns of every SELECT of set operations.
    fn name_columns(&mut self, body: &mut SetExpr) {
        match body {
            SetExpr::Select(select) => {
                self.resolve(select, None);
                self.spell_out_stars(select);
            }
            SetExpr::SetOperation { left, right, .. } => {
                self.name_columns(left);
                self.name_columns(right);
            }
            _ => {}
        }
    }

    fn resolve(&mut self, select: &mut Select, order_by: Option<&mut OrderBy>) {
        for from in &mut select.from {
            self.resolve_natural(from);
        }
        if merges_differently(&select.from) {
            let outer = select.from.iter().flat_map(|from| &from.joins).any(prefers_right);
            match outer || select.from.iter().any(merges_again) {
                true => self.join_with_on(select, order_by),
                false => self.spell_out_stars(select),
            }
        }
        if repeats_stars(select) {
            self.spell_out_stars(select);
        }
    }

    /// Resolves the joins from left to right, as far as the columns are known.
    fn resolve_natural(&mut self, from: &mut TableWithJoins) -> Option<()> {
        if !from.joins.iter().any(|join| matches!(constraint(join), Some(JoinConstraint::Natural))) {
            return Some(());
        }
        let mut left = self.known.of_relation(&from.relation)?;
        for join in &mut from.joins {
            let right = self.known.of_relation(&join.relation)?;
            let merged: Vec<String> = match constraint_mut(join) {
                Some(natural @ JoinConstraint::Natural) => {
                    // A name that is there twice is ambiguous, which the planner says.
                    let common = common(&left, &right)?;
                    let using = common.iter().map(|name| ObjectName::from(vec![quoted(name)])).collect();
                    *natural = match common.is_empty() {
                        true => JoinConstraint::On(boolean(true)),
                        false => JoinConstraint::Using(using),
                    };
                    common
                }
                Some(JoinConstraint::Using(names)) => {
                    names.iter().map(|name| name.0.last()?.as_ident().map(fold)).collect::<Option<_>>()?
                }
                _ => Vec::new(),
            };
            left.extend(right.into_iter().filter(|(name, _)| !merged.contains(name)));
        }
        Some(())
    }

    /// Writes joins that merge different columns with ON, and what they merge by its value.
    fn join_with_on(&mut self, select: &mut Select, order_by: Option<&mut OrderBy>) {
        let mut columns: Vec<Vec<Vec<Shown>>> = Vec::with_capacity(select.from.len());
        for from in &select.from {
            let relations = std::iter::once(&from.relation).chain(from.joins.iter().map(|join| &join.relation));
            let Some(known) = relations.map(|factor| self.known.of_relation(factor)).collect() else { return };
            columns.push(known);
        }
        let mut joined = select.from.clone();
        let mut all = Joined { shown: Vec::new(), merged: Vec::new() };
        for (from, columns) in joined.iter_mut().zip(columns) {
            match join_on_known(&mut from.joins, columns) {
                Some(Joined { shown, merged }) => {
                    all.shown.extend(shown);
                    all.merged.extend(merged);
                }
                None => return,
            }
        }
        select.from = joined;
        show_joined(select, order_by, all);
    }

    /// Puts the columns in the places of the stars, each under a name that tells it from the others.
    fn spell_out_stars(&mut self, select: &mut Select) {
        let mut spelled = Vec::with_capacity(select.projection.len());
        let mut seen = Vec::new();
        for item in &select.projection {
            if !is_star(item) {
                spelled.push(item.clone());
                continue;
            }
            let Some(columns) = self.known.of_star(item, &select.from) else { return };
            for (name, expr) in columns {
                let repeated = seen.contains(&name);
                let alias = unique_name(&mut seen, name);
                spelled.push(if repeated { named(expr, &alias) } else { SelectItem::UnnamedExpr(expr) });
            }
        }
        select.projection = spelled;
    }
}

/// Whether there are joins that merge columns beside such as do not, or merge others.
fn merges_differently(from: &[TableWithJoins]) -> bool {
    let joins: Vec<&Join> = from.iter().flat_map(|from| &from.joins).collect();
    let using = |join: &&Join| match constraint(join) {
        Some(JoinConstraint::Using(names)) => Some(names.iter().map(ToString::to_string).collect::<Vec<_>>()),
        _ => None,
    };
    let merged: Vec<_> = joins.iter().filter_map(using).collect();
    !merged.is_empty()
        && (from.len() > 1 || merged.len() < joins.len() || merged.iter().any(|names| *names != merged[0]))
}

/// Whether two joins merge the same column.
fn merges_again(from: &TableWithJoins) -> bool {
    let mut seen = HashSet::new();
    from.joins.iter().any(|join| match constraint(join) {
        Some(JoinConstraint::Using(names)) => {
            names.iter().any(|name| !seen.insert(name.to_string().to_ascii_lowercase()))
        }
        _ => false,
    })
}

fn merges(constraint: &JoinConstraint) -> bool {
    matches!(constraint, JoinConstraint::Natural | JoinConstraint::Using(_))
}

/// The condition of an inner or outer join.
pub(super) fn constraint(join: &Join) -> Option<&JoinConstraint> {
    use JoinOperator::{FullOuter, Inner, Left, LeftOuter, Right, RightOuter};
    match &join.join_operator {
        JoinOperator::Join(constraint)
        | Inner(constraint)
        | Left(constraint)
        | LeftOuter(constraint)
        | Right(constraint)
        | RightOuter(constraint)
        | FullOuter(constraint) => Some(constraint),
        _ => None,
    }
}

/// The same, to be changed.
pub(super) fn constraint_mut(join: &mut Join) -> Option<&mut JoinConstraint> {
    use JoinOperator::{FullOuter, Inner, Left, LeftOuter, Right, RightOuter};
    match &mut join.join_operator {
        JoinOperator::Join(constraint)
        | Inner(constraint)
        | Left(constraint)
        | LeftOuter(constraint)
        | Right(constraint)
        | RightOuter(constraint)
        | FullOuter(constraint) => Some(constraint),
        _ => None,
    }
}
