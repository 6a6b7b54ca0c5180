//! What the planner is told of the columns of a relation in FROM.
//!
//! `SELECT id, v FROM p GROUP BY id` is valid where `id` is the key of the table `p`, also where `p` is joined with
//! others. DataFusion's planner finds out by the dependencies among columns (`optimizer/dependencies.rs`), which it
//! believes of subqueries, common table expressions and views as well. There PostgreSQL refuses the query (42803), and
//! DataFusion's are not always true: it added columns to GROUP BY that made more groups, and took an order with equals
//! for one without (`sum(x) OVER (ORDER BY id)`). So they are taken from every relation that is no table.

use std::cell::Cell;

use datafusion::error::Result;
use datafusion::logical_expr::LogicalPlan;
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::sql::sqlparser::ast::TableFactor;

use crate::optimizer::without_dependencies;

thread_local! {
    /// Whether the next relation comes from [`Relations`], which leaves it to the planner then. Planning never waits.
    static IS_ASKED: Cell<bool> = const { Cell::new(false) };
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Relations;

impl RelationPlanner for Relations {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        let (aliased, renamed) = match &relation {
            TableFactor::Table { args: None, alias, .. } => {
                (alias.is_some(), alias.as_ref().is_some_and(|alias| !alias.columns.is_empty()))
            }
            TableFactor::Derived { .. } => (false, false),
            _ => return Ok(RelationPlanning::Original(Box::new(relation))),
        };
        if IS_ASKED.replace(false) {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        }
        let by_name = matches!(relation, TableFactor::Table { .. });
        IS_ASKED.set(true);
        let planned = context.plan(relation);
        IS_ASKED.set(false);
        let plan = planned?;
        let plan = if by_name && is_table(&plan, aliased, renamed) { plan } else { without_dependencies(plan)? };
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, None))))
    }
}

/// Whether what stands under a name in FROM is a table: `p`, `p AS x` or `p AS x (a, b)`. The query of a view or common
/// table expression stands below an alias of its own.
fn is_table(plan: &LogicalPlan, aliased: bool, renamed: bool) -> bool {
    let mut plan = plan;
    if let LogicalPlan::SubqueryAlias(alias) = plan
        && aliased
    {
        plan = alias.input.as_ref();
    }
    if let LogicalPlan::Projection(columns) = plan
        && renamed
    {
        plan = columns.input.as_ref();
    }
    matches!(plan, LogicalPlan::TableScan(_))
}
