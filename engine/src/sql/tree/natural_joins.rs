//! What a query says of columns that it does not name: NATURAL joins, joins that merge columns, stars whose columns must be
//! known, and aliases that name the first columns only.
//!
//! | in the query | becomes |
//! |---|---|
//! | `(a JOIN b …) JOIN c …` | `a JOIN b … JOIN c …` |
//! | `(a JOIN b USING (x)) AS j` | `(SELECT * FROM a JOIN b USING (x)) AS j` |
//! | `a NATURAL JOIN b` | `a JOIN b USING (…)`, or where they have no column in common a join of all rows |
//! | `a JOIN b USING (x) FULL JOIN c USING (y)` | joins with ON, and `coalesce(a.y, c.y)` for `y` |
//! | `a, b JOIN c USING (x)` or `a JOIN (b JOIN c USING (x)) …` | the same |
//! | `*` beside another star, or of joins that merge different columns | the columns, by their names |
//! | `SELECT * … EXCEPT ALL …` | the same |
//! | `t AS a (x)` of columns `x` and `y` | `t AS a (x, y)`; common table expressions likewise |
//! | in a subquery: `a.*` of an outer query | the same |
//! | in a subquery: `b JOIN c USING (x)` | `b JOIN c ON b.x = c.x`, and `b.x` for `x`, which the planner would take for an outer one |
//! | `b JOIN c USING (x) WHERE EXISTS (SELECT … = x)` | the same, [inside of the subquery](super::merged_in_subqueries) too |
//! | `LATERAL (SELECT a.x)` of an outer `a` | `LATERAL (SELECT a.x AS x)` |
//! | `t.*` in an expression, `t` by itself | [a row of its columns](super::whole_rows) |
//!
//! What [`super::merged_columns`] knows of USING holds for NATURAL joins as well. Without common columns an outer NATURAL
//! join keeps its rows; DataFusion makes a cross join of it, which loses them. Where the columns of a relation are not
//! known (functions), a query stays as it is.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Cte, Expr, Ident, Join, JoinConstraint, JoinOperator, ObjectName, OrderBy, Query, Select, SelectItem,
    SelectItemQualifiedWildcardKind, SetExpr, SetOperator, SetQuantifier, TableAlias, TableAliasColumnDef, TableFactor,
    TableWithJoins, Visit, VisitMut, Visitor, VisitorMut,
};

use super::known_columns::{KnownColumns, Shown, common, is_plain, relation_name};
use super::merged_columns::{Joined, join_on_known, open_parentheses, show_joined};
use super::merged_in_subqueries::{names_in_subqueries, replace_in_subqueries};
use super::whole_rows::{asks_for_rows, orders_by_rows, write_rows};
use crate::dml::syntax::{boolean, everything, named, quoted, select as select_from};
use crate::sql::context::StatementContext;
use crate::sql::names::unique_name;
use crate::sql::text::parse::fold;

/// Gives the NATURAL joins and stars of a query their columns.
pub(crate) fn resolve_columns(context: &StatementContext, query: &mut Query) {
    resolve_within(context, query, Vec::new());
}

/// The same for the subqueries of an expression over rows at hand.
pub(crate) fn resolve_columns_of_subqueries(context: &StatementContext, expr: &mut Expr) {
    resolve_within(context, expr, vec![Vec::new()]);
}

fn resolve_within<N: Visit + VisitMut>(context: &StatementContext, node: &mut N, outer: Vec<Vec<TableWithJoins>>) {
    if Visit::visit(&*node, &mut Finder).is_break() {
        let mut resolving = Resolving { known: KnownColumns::new(context), outer };
        let _ = VisitMut::visit(node, &mut resolving);
    }
}

/// Looks for what has to be resolved.
struct Finder;

impl Visitor for Finder {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let names_columns = |cte: &Cte| !cte.alias.columns.is_empty();
        let named = query.with.as_ref().is_some_and(|with| with.cte_tables.iter().any(names_columns));
        match named || counts_copies(&query.body) || query.order_by.as_ref().is_some_and(orders_by_rows) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
        let mut stars_of_outer = select.projection.iter().filter(|item| is_of_outer(item, &select.from));
        let lateral = |factor: &TableFactor| matches!(factor, TableFactor::Derived { lateral: true, .. });
        let found = merges_any(&select.from)
            || repeats_stars(select)
            || asks_for_rows(select)
            || stars_of_outer.next().is_some()
            || factors(&select.from)
                .any(|factor| lateral(factor) || naming_alias(factor).is_some() || is_named_join(factor));
        match found {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }
}

/// The relations of a FROM, but for those inside of parentheses.
fn factors(from: &[TableWithJoins]) -> impl Iterator<Item = &TableFactor> {
    from.iter().flat_map(|from| std::iter::once(&from.relation).chain(from.joins.iter().map(|join| &join.relation)))
}

/// The alias of a relation, if it names columns.
fn naming_alias(factor: &TableFactor) -> Option<&TableAlias> {
    match factor {
        TableFactor::Table { alias, args: None, .. } | TableFactor::Derived { alias, .. } => alias.as_ref(),
        _ => None,
    }
    .filter(|alias| !alias.columns.is_empty())
}

/// Whether it is a join in parentheses with an alias, of whose columns something must be known.
fn is_named_join(factor: &TableFactor) -> bool {
    match factor {
        TableFactor::NestedJoin { table_with_joins, alias: Some(alias) } => {
            !alias.columns.is_empty() || merges_any(std::slice::from_ref(table_with_joins.as_ref()))
        }
        _ => false,
    }
}

/// Makes subqueries of such joins, which show what they merge once.
fn joins_as_queries(from: &mut TableWithJoins) {
    for factor in std::iter::once(&mut from.relation).chain(from.joins.iter_mut().map(|join| &mut join.relation)) {
        let named = is_named_join(factor);
        match factor {
            TableFactor::NestedJoin { table_with_joins, alias } if named => {
                let joined = vec![table_with_joins.as_ref().clone()];
                let subquery = Box::new(select_from(None, vec![everything()], joined, None));
                *factor = TableFactor::Derived { lateral: false, subquery, alias: alias.take(), sample: None };
            }
            TableFactor::NestedJoin { table_with_joins, alias: None } => joins_as_queries(table_with_joins),
            _ => {}
        }
    }
}

/// Gives an alias the names of the columns that it leaves as they are.
fn name_rest(alias: &mut TableAlias, columns: &[String]) {
    let rest = columns.iter().skip(alias.columns.len());
    let rest: Vec<TableAliasColumnDef> =
        rest.map(|name| TableAliasColumnDef { name: quoted(name), data_type: None }).collect();
    alias.columns.extend(rest);
}

/// Whether an item is the star of a relation that only an outer query can have.
fn is_of_outer(item: &SelectItem, from: &[TableWithJoins]) -> bool {
    match item {
        SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), options) => {
            let relation = name.0.last().and_then(|part| part.as_ident());
            is_plain(options) && relation.is_some_and(|relation| !may_have(from, relation))
        }
        _ => false,
    }
}

/// Whether a relation of this name may be in a FROM.
fn may_have(from: &[TableWithJoins], relation: &Ident) -> bool {
    let wanted = fold(relation);
    factors(from).any(|factor| match factor {
        TableFactor::NestedJoin { table_with_joins, alias: None } => {
            may_have(std::slice::from_ref(table_with_joins.as_ref()), relation)
        }
        factor => relation_name(factor).is_none_or(|parts| parts.last().is_some_and(|name| fold(name) == wanted)),
    })
}

/// Gives outer columns in the select list of a LATERAL subquery their names: the planner calls them otherwise.
fn name_outer_columns(body: &mut SetExpr) {
    match body {
        SetExpr::Select(select) => {
            for item in &mut select.projection {
                let SelectItem::UnnamedExpr(expr) = &*item else { continue };
                let column = match expr {
                    Expr::CompoundIdentifier(parts) => match parts.as_slice() {
                        [.., relation, column] if !may_have(&select.from, relation) => column,
                        _ => continue,
                    },
                    Expr::Identifier(column) if select.from.is_empty() => column,
                    _ => continue,
                };
                let renamed = named(expr.clone(), &fold(column));
                *item = renamed;
            }
        }
        SetExpr::Query(query) => name_outer_columns(&mut query.body),
        SetExpr::SetOperation { left, .. } => name_outer_columns(left),
        _ => {}
    }
}

/// Whether columns are shown by two stars.
fn repeats_stars(select: &Select) -> bool {
    let all = |item: &SelectItem| matches!(item, SelectItem::Wildcard(options) if is_plain(options));
    let stars: Vec<&SelectItem> = select.projection.iter().filter(|item| is_star(item)).collect();
    let again = |place: usize| stars[..place].contains(&stars[place]);
    stars.len() > 1 && (stars.iter().any(|star| all(star)) || (1..stars.len()).any(again))
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
    /// What the SELECTs around this one select from, the innermost last.
    outer: Vec<Vec<TableWithJoins>>,
}

impl VisitorMut for Resolving<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        self.known.enter(query);
        for cte in query.with.iter_mut().flat_map(|with| &mut with.cte_tables) {
            if !cte.alias.columns.is_empty()
                && let Some(columns) = self.known.of_cte(&fold(&cte.alias.name))
            {
                name_rest(&mut cte.alias, columns);
            }
        }
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
        self.outer.push(select.from.clone());
        ControlFlow::Continue(())
    }

    fn post_visit_select(&mut self, _select: &mut Select) -> ControlFlow<()> {
        self.outer.pop();
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

    fn resolve(&mut self, select: &mut Select, mut order_by: Option<&mut OrderBy>) {
        for from in &mut select.from {
            joins_as_queries(from);
            self.name_rest_of_columns(from);
            self.resolve_natural(from);
        }
        write_rows(&mut self.known, &self.outer, select, order_by.as_deref_mut());
        let differ = |from: &[TableWithJoins]| merges_differently(from) || merges_in_parentheses(from);
        let asked_inside = || names_in_subqueries(select, order_by.as_deref(), &merged_names(&select.from));
        if merges_any(&select.from) && (!self.outer.is_empty() || differ(&select.from) || asked_inside()) {
            self.join_with_on(select, order_by);
        }
        if repeats_stars(select) {
            self.spell_out_stars(select);
        }
        if !self.outer.is_empty() {
            self.spell_out_outer_stars(select);
        }
        for from in &mut select.from {
            let joined = from.joins.iter_mut().map(|join| &mut join.relation);
            for factor in std::iter::once(&mut from.relation).chain(joined) {
                if let TableFactor::Derived { lateral: true, subquery, .. } = factor {
                    name_outer_columns(&mut subquery.body);
                }
            }
        }
    }

    /// Gives aliases the names of the columns that they leave as they are.
    fn name_rest_of_columns(&mut self, from: &mut TableWithJoins) {
        let joined = from.joins.iter_mut().map(|join| &mut join.relation);
        for factor in std::iter::once(&mut from.relation).chain(joined) {
            if let TableFactor::NestedJoin { table_with_joins, .. } = factor {
                self.name_rest_of_columns(table_with_joins);
                continue;
            }
            let Some(columns) = naming_alias(factor).and_then(|_| self.known.of_factor(factor)) else { continue };
            if let TableFactor::Table { alias: Some(alias), .. } | TableFactor::Derived { alias: Some(alias), .. } =
                factor
            {
                name_rest(alias, &columns);
            }
        }
    }

    /// Resolves the joins from left to right, as far as the columns are known.
    fn resolve_natural(&mut self, from: &mut TableWithJoins) -> Option<()> {
        open_parentheses(std::slice::from_mut(from));
        for join in &mut from.joins {
            if let TableFactor::NestedJoin { table_with_joins, alias: None } = &mut join.relation {
                self.resolve_natural(table_with_joins);
            }
        }
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
    fn join_with_on(&mut self, select: &mut Select, mut order_by: Option<&mut OrderBy>) {
        let mut joined = select.from.clone();
        let mut all = Joined { shown: Vec::new(), merged: Vec::new() };
        for from in &mut joined {
            match self.join_known(from) {
                Some(Joined { shown, merged }) => {
                    all.shown.extend(shown);
                    all.merged.extend(merged);
                }
                None => return,
            }
        }
        let Joined { shown, merged } = &mut all;
        // A name that other columns have as well is ambiguous, which the planner says.
        merged.retain(|name| shown.iter().filter(|(known, _)| known == name).count() == 1);
        select.from = joined;
        let Joined { shown, merged } = &all;
        let values: Vec<Shown> = shown.iter().filter(|(name, _)| merged.contains(name)).cloned().collect();
        replace_in_subqueries(&mut self.known, select, order_by.as_deref_mut(), &values);
        show_joined(select, order_by, all);
    }

    /// Writes joins with ON, those in parentheses first; `None` if a column is not known.
    fn join_known(&mut self, from: &mut TableWithJoins) -> Option<Joined> {
        let TableWithJoins { relation, joins } = from;
        let (mut columns, mut inner) = (Vec::with_capacity(joins.len() + 1), Vec::new());
        for factor in std::iter::once(relation).chain(joins.iter_mut().map(|join| &mut join.relation)) {
            columns.push(match factor {
                TableFactor::NestedJoin { table_with_joins, alias: None } => {
                    let Joined { shown, merged } = self.join_known(table_with_joins)?;
                    inner.extend(merged);
                    shown
                }
                factor => self.known.of_relation(factor)?,
            });
        }
        let Joined { shown, mut merged } = join_on_known(joins, columns)?;
        merged.extend(inner);
        Some(Joined { shown, merged })
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

    /// Puts the columns in the places of stars of outer relations, of which the planner knows only single columns.
    fn spell_out_outer_stars(&mut self, select: &mut Select) {
        if !select.projection.iter().any(|item| is_of_outer(item, &select.from)) {
            return;
        }
        let mut spelled = Vec::with_capacity(select.projection.len());
        for item in std::mem::take(&mut select.projection) {
            let columns = match is_of_outer(&item, &select.from) {
                true => self.outer.iter().rev().find_map(|from| self.known.of_star(&item, from)),
                false => None,
            };
            match columns {
                Some(columns) => spelled.extend(columns.into_iter().map(|(name, value)| named(value, &name))),
                None => spelled.push(item),
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

/// The columns that joins merge, but for those in parentheses.
fn merged_names(from: &[TableWithJoins]) -> Vec<String> {
    let joins = from.iter().flat_map(|from| &from.joins);
    let names = joins.filter_map(|join| match constraint(join) {
        Some(JoinConstraint::Using(names)) => Some(names),
        _ => None,
    });
    names.flatten().filter_map(|name| name.0.last()?.as_ident().map(fold)).collect()
}

/// Whether a join merges columns.
fn merges_any(from: &[TableWithJoins]) -> bool {
    let mut joins = from.iter().flat_map(|from| &from.joins);
    joins.any(|join| constraint(join).is_some_and(merges)) || merges_in_parentheses(from)
}

/// Whether a join in parentheses merges columns.
fn merges_in_parentheses(from: &[TableWithJoins]) -> bool {
    factors(from).any(|factor| match factor {
        TableFactor::NestedJoin { table_with_joins, alias: None } => {
            merges_any(std::slice::from_ref(table_with_joins.as_ref()))
        }
        _ => false,
    })
}

fn merges(constraint: &JoinConstraint) -> bool {
    matches!(constraint, JoinConstraint::Natural | JoinConstraint::Using(_))
}

/// The condition of an inner or outer join.
pub(in crate::sql) fn constraint(join: &Join) -> Option<&JoinConstraint> {
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
pub(in crate::sql) fn constraint_mut(join: &mut Join) -> Option<&mut JoinConstraint> {
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
