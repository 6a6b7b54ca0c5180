//! What the columns of a query are called, as far as its text and the catalog tell, before it is planned.
//!
//! Some of PostgreSQL's rules are about all columns of a relation: NATURAL joins, what `*` stands for, the columns of
//! EXCEPT ALL. The planner learns of columns too late for them.

use datafusion::common::TableReference;
use datafusion::logical_expr::planner::ContextProvider;
use datafusion::sql::sqlparser::ast::{
    Cte, Expr, Ident, Join, JoinConstraint, JoinOperator, ObjectName, Query, Select, SelectItem,
    SelectItemQualifiedWildcardKind, SetExpr, TableAlias, TableFactor, TableWithJoins, WildcardAdditionalOptions,
};

use super::natural_joins::constraint;
use crate::dml::syntax::quoted;
use crate::sql::context::StatementContext;
use crate::sql::names::output_name;
use crate::sql::text::parse::{fold, table_name};

/// A column that `*` shows: its name, and what stands for it.
pub(in crate::sql) type Shown = (String, Expr);

/// The parts of a relation's name in the query.
pub(in crate::sql) type Relation = Vec<Ident>;

/// The relations in sight.
pub(in crate::sql) struct KnownColumns<'a> {
    context: &'a StatementContext,
    /// The common table expressions, the innermost last; they hide tables. `None`: of unknown columns.
    ctes: Vec<(String, Option<Vec<String>>)>,
}

impl<'a> KnownColumns<'a> {
    pub(in crate::sql) fn new(context: &'a StatementContext) -> Self {
        KnownColumns { context, ctes: Vec::new() }
    }

    /// Brings the common table expressions of a query into sight.
    pub(in crate::sql) fn enter(&mut self, query: &Query) {
        for Cte { alias, query: inner, .. } in query.with.iter().flat_map(|with| &with.cte_tables) {
            // A recursive one sees itself, in a part that names nothing.
            self.ctes.push((fold(&alias.name), None));
            let columns = self.of_query(inner);
            if let Some(own) = self.ctes.last_mut() {
                own.1 = renamed(columns, Some(alias));
            }
        }
    }

    pub(in crate::sql) fn leave(&mut self, query: &Query) {
        let own = query.with.as_ref().map_or(0, |with| with.cte_tables.len());
        self.ctes.truncate(self.ctes.len().saturating_sub(own));
    }

    /// The columns of a query; `None` if they cannot be told.
    pub(in crate::sql) fn of_query(&mut self, query: &Query) -> Option<Vec<String>> {
        self.enter(query);
        let columns = self.of_body(&query.body);
        self.leave(query);
        columns
    }

    fn of_body(&mut self, body: &SetExpr) -> Option<Vec<String>> {
        match body {
            SetExpr::Select(select) => self.of_select(select),
            SetExpr::Query(query) => self.of_query(query),
            SetExpr::SetOperation { left, .. } => self.of_body(left),
            SetExpr::Values(values) => {
                Some((1..=values.rows.first()?.len()).map(|place| format!("column{place}")).collect())
            }
            _ => None,
        }
    }

    fn of_select(&mut self, select: &Select) -> Option<Vec<String>> {
        let mut names = Vec::with_capacity(select.projection.len());
        for item in &select.projection {
            match item {
                SelectItem::UnnamedExpr(expr) => names.push(output_name(expr)),
                SelectItem::ExprWithAlias { alias, .. } => names.push(fold(alias)),
                star => names.extend(self.of_star(star, &select.from)?.into_iter().map(|(name, _)| name)),
            }
        }
        Some(names)
    }

    /// What `*` or `relation.*` stands for; `None` also for a star with options of its own.
    pub(in crate::sql) fn of_star(&mut self, star: &SelectItem, from: &[TableWithJoins]) -> Option<Vec<Shown>> {
        match star {
            SelectItem::Wildcard(options) if is_plain(options) => {
                let mut shown = Vec::new();
                for from in from {
                    shown.extend(self.of_from(from)?);
                }
                Some(shown)
            }
            SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), options)
                if is_plain(options) =>
            {
                let wanted = name.0.last()?.as_ident().map(fold)?;
                let mut factors = from.iter().flat_map(|from| {
                    std::iter::once(&from.relation).chain(from.joins.iter().map(|join| &join.relation))
                });
                let is_meant = |factor: &&TableFactor| {
                    relation_name(factor).and_then(|parts| parts.last().map(fold)).is_some_and(|name| name == wanted)
                };
                let factor = factors.find(is_meant)?;
                let relation = relation_name(factor)?;
                Some(self.of_factor(factor)?.into_iter().map(|name| in_relation(&relation, name)).collect())
            }
            _ => None,
        }
    }

    /// The columns of a relation and what is joined with it, as `*` shows them: those that a join merges come first.
    fn of_from(&mut self, from: &TableWithJoins) -> Option<Vec<Shown>> {
        let mut shown = self.of_relation(&from.relation)?;
        for join in &from.joins {
            let right = self.of_relation(&join.relation)?;
            let merged = merged_by(join, &shown, &right)?;
            let rest = |(name, _): &Shown| !merged.contains(name);
            let first = merged.iter().map(|name| (name.clone(), Expr::Identifier(quoted(name))));
            shown = first.chain(shown.into_iter().filter(rest)).chain(right.into_iter().filter(rest)).collect();
        }
        Some(shown)
    }

    /// The columns of one relation in FROM.
    pub(in crate::sql) fn of_relation(&mut self, factor: &TableFactor) -> Option<Vec<Shown>> {
        if let TableFactor::NestedJoin { table_with_joins, alias: None } = factor {
            return self.of_from(table_with_joins);
        }
        let relation = relation_name(factor)?;
        Some(self.of_factor(factor)?.into_iter().map(|name| in_relation(&relation, name)).collect())
    }

    /// The names of the columns of one relation in FROM.
    pub(in crate::sql) fn of_factor(&mut self, factor: &TableFactor) -> Option<Vec<String>> {
        match factor {
            TableFactor::Table { name, args: None, alias, .. } => renamed(self.of_table(name), alias.as_ref()),
            TableFactor::Derived { subquery, alias, .. } => renamed(self.of_query(subquery), alias.as_ref()),
            // What a function returns is known by its alias only.
            TableFactor::Table { alias: Some(alias), .. }
            | TableFactor::Function { alias: Some(alias), .. }
            | TableFactor::UNNEST { alias: Some(alias), .. }
                if !alias.columns.is_empty() =>
            {
                Some(alias.columns.iter().map(|column| fold(&column.name)).collect())
            }
            _ => None,
        }
    }

    /// The columns of a common table expression in sight.
    pub(in crate::sql) fn of_cte(&self, name: &str) -> Option<&[String]> {
        let (_, columns) = self.ctes.iter().rev().find(|(known, _)| known == name)?;
        columns.as_deref()
    }

    fn of_table(&self, name: &ObjectName) -> Option<Vec<String>> {
        let (schema, table) = table_name(name).ok()?;
        if schema.is_none()
            && let Some((_, columns)) = self.ctes.iter().rev().find(|(known, _)| *known == table)
        {
            return columns.clone();
        }
        let reference = match schema {
            Some(schema) => TableReference::partial(schema, table),
            None => TableReference::bare(table),
        };
        let source = self.context.get_table_source(reference).ok()?;
        Some(source.schema().fields().iter().map(|field| field.name().clone()).collect())
    }
}

/// The columns that a join merges; `None` if that cannot be said.
fn merged_by(join: &Join, left: &[Shown], right: &[Shown]) -> Option<Vec<String>> {
    let is_known = matches!(join.join_operator, JoinOperator::CrossJoin(_)) || constraint(join).is_some();
    match constraint(join) {
        Some(JoinConstraint::Using(names)) => names.iter().map(|name| name.0.last()?.as_ident().map(fold)).collect(),
        Some(JoinConstraint::Natural) => common(left, right),
        _ => is_known.then(Vec::new),
    }
}

/// The columns that both sides have, in the order of the left one; `None` if one of them is there twice.
pub(in crate::sql) fn common(left: &[Shown], right: &[Shown]) -> Option<Vec<String>> {
    let mut names: Vec<String> = Vec::new();
    for (name, _) in left.iter().filter(|(name, _)| right.iter().any(|(other, _)| other == name)) {
        if names.contains(name) || right.iter().filter(|(other, _)| other == name).count() > 1 {
            return None;
        }
        names.push(name.clone());
    }
    Some(names)
}

/// Columns under the names that an alias gives to the first of them.
fn renamed(columns: Option<Vec<String>>, alias: Option<&TableAlias>) -> Option<Vec<String>> {
    let mut columns = columns?;
    for (place, column) in alias.iter().flat_map(|alias| &alias.columns).enumerate() {
        *columns.get_mut(place)? = fold(&column.name);
    }
    Some(columns)
}

fn in_relation(relation: &Relation, name: String) -> Shown {
    let parts = relation.iter().cloned().chain([quoted(&name)]).collect();
    (name, Expr::CompoundIdentifier(parts))
}

/// What a relation is called in the query.
pub(in crate::sql) fn relation_name(factor: &TableFactor) -> Option<Relation> {
    match factor {
        TableFactor::Table { alias: Some(alias), .. }
        | TableFactor::Derived { alias: Some(alias), .. }
        | TableFactor::Function { alias: Some(alias), .. }
        | TableFactor::UNNEST { alias: Some(alias), .. } => Some(vec![alias.name.clone()]),
        TableFactor::Table { name, args: None, .. } => name.0.iter().map(|part| part.as_ident().cloned()).collect(),
        _ => None,
    }
}

/// Whether a star stands for all columns.
pub(in crate::sql) fn is_plain(options: &WildcardAdditionalOptions) -> bool {
    options.opt_ilike.is_none()
        && options.opt_exclude.is_none()
        && options.opt_except.is_none()
        && options.opt_replace.is_none()
        && options.opt_rename.is_none()
        && options.opt_alias.is_none()
}
