//! NATURAL joins, written with USING and the columns that both sides have.
//!
//! What [`super::merged_columns`] knows of USING then holds for them as well. Without common columns a NATURAL join has no
//! condition, but an outer one keeps its rows; DataFusion makes a cross join of it, which loses them.
//!
//! The columns are those of tables and views. Joins of subqueries and common table expressions stay as they are.

use std::ops::ControlFlow;

use datafusion::common::TableReference;
use datafusion::logical_expr::planner::ContextProvider;
use datafusion::sql::sqlparser::ast::{
    Cte, Join, JoinConstraint, JoinOperator, ObjectName, Query, Select, TableFactor, TableWithJoins, Visit, VisitMut,
    Visitor, VisitorMut,
};

use super::context::StatementContext;
use super::parse::{fold, table_name};
use crate::dml::syntax::{boolean, quoted};

/// Gives the NATURAL joins of a query their columns.
pub(crate) fn resolve_natural_joins(context: &StatementContext, query: &mut Query) {
    let mut names = Names::default();
    let _ = Visit::visit(&*query, &mut names);
    if names.has_natural {
        let _ = VisitMut::visit(query, &mut Resolving { context, ctes: names.ctes });
    }
}

/// The names of common table expressions, which hide tables.
#[derive(Default)]
struct Names {
    has_natural: bool,
    ctes: Vec<String>,
}

impl Visitor for Names {
    type Break = ();
    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let ctes = query.with.iter().flat_map(|with| &with.cte_tables);
        self.ctes.extend(ctes.map(|Cte { alias, .. }| fold(&alias.name)));
        ControlFlow::Continue(())
    }
    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
        let mut joins = select.from.iter().flat_map(|from| &from.joins);
        self.has_natural |= joins.any(|join| constraint(join).is_some_and(is_natural));
        ControlFlow::Continue(())
    }
}

struct Resolving<'a> {
    context: &'a StatementContext,
    ctes: Vec<String>,
}

impl VisitorMut for Resolving<'_> {
    type Break = ();
    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        for from in &mut select.from {
            self.resolve(from);
        }
        ControlFlow::Continue(())
    }
}

impl Resolving<'_> {
    /// Resolves the joins from left to right, as far as the columns are known.
    fn resolve(&self, from: &mut TableWithJoins) -> Option<()> {
        let mut left = self.columns(&from.relation)?;
        for join in &mut from.joins {
            let right = self.columns(&join.relation)?;
            let merged: Vec<String> = match &mut join.join_operator {
                operator if of_operator(operator).is_some_and(is_natural) => {
                    let common: Vec<String> = left.iter().filter(|name| right.contains(name)).cloned().collect();
                    // A name that is there twice is ambiguous, which the planner says.
                    if common.iter().any(|name| left.iter().filter(|other| *other == name).count() > 1) {
                        return None;
                    }
                    let using = common.iter().map(|name| ObjectName::from(vec![quoted(name)])).collect();
                    *of_operator_mut(operator)? = match common.is_empty() {
                        true => JoinConstraint::On(boolean(true)),
                        false => JoinConstraint::Using(using),
                    };
                    common
                }
                operator => match of_operator(operator) {
                    Some(JoinConstraint::Using(names)) => {
                        names.iter().map(|name| name.0.last()?.as_ident().map(fold)).collect::<Option<_>>()?
                    }
                    _ => Vec::new(),
                },
            };
            left.extend(right.into_iter().filter(|name| !merged.contains(name)));
        }
        Some(())
    }

    fn columns(&self, factor: &TableFactor) -> Option<Vec<String>> {
        let TableFactor::Table { name, args: None, alias, .. } = factor else { return None };
        if alias.as_ref().is_some_and(|alias| !alias.columns.is_empty()) {
            return None;
        }
        let (schema, table) = table_name(name).ok()?;
        let reference = match schema {
            Some(schema) => TableReference::partial(schema, table),
            None if self.ctes.contains(&table) => return None,
            None => TableReference::bare(table),
        };
        let source = self.context.get_table_source(reference).ok()?;
        Some(source.schema().fields().iter().map(|field| field.name().clone()).collect())
    }
}

fn is_natural(constraint: &JoinConstraint) -> bool {
    matches!(constraint, JoinConstraint::Natural)
}

/// The condition of an inner or outer join.
pub(super) fn constraint(join: &Join) -> Option<&JoinConstraint> {
    of_operator(&join.join_operator)
}

/// The same, to be changed.
pub(super) fn constraint_mut(join: &mut Join) -> Option<&mut JoinConstraint> {
    of_operator_mut(&mut join.join_operator)
}

fn of_operator(operator: &JoinOperator) -> Option<&JoinConstraint> {
    use JoinOperator::{FullOuter, Inner, Left, LeftOuter, Right, RightOuter};
    match operator {
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

fn of_operator_mut(operator: &mut JoinOperator) -> Option<&mut JoinConstraint> {
    use JoinOperator::{FullOuter, Inner, Left, LeftOuter, Right, RightOuter};
    match operator {
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
