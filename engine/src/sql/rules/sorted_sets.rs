//! `SELECT unnest(a) FROM t ORDER BY id`: an analyser rule for a sort by columns that a select list does not show, where that
//! list expands sets. DataFusion's planner adds such columns below the expansion, and forgets them above it.
//!
//! ```text
//! Projection: unnest                       Projection: unnest
//!   Sort: t.id                               Sort: t.id
//!     Projection: unnest             ──►       Projection: unnest, t.id
//!       Unnest                                   Unnest
//!         Projection: t.a, t.id                    Projection: t.a, t.id
//! ```

use std::sync::Arc;

use datafusion::common::Column;
use datafusion::common::tree_node::Transformed;
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, LogicalPlan, Projection, Sort};
use datafusion::optimizer::AnalyzerRule;

use super::rewriting::any_node;

/// The rule.
#[derive(Debug)]
pub(crate) struct SortedSets;

impl AnalyzerRule for SortedSets {
    fn name(&self) -> &str {
        "sorted_sets"
    }

    fn analyze(&self, plan: LogicalPlan, _options: &ConfigOptions) -> Result<LogicalPlan> {
        if !any_node(&plan, |node| Ok(matches!(node, LogicalPlan::Unnest(_))))? {
            return Ok(plan);
        }
        let rewritten = plan.transform_up_with_subqueries(|node| match node {
            LogicalPlan::Sort(sort) => match with_keys(&sort)? {
                Some(input) => Ok(Transformed::yes(LogicalPlan::Sort(Sort { input: Arc::new(input), ..sort }))),
                None => Ok(Transformed::no(LogicalPlan::Sort(sort))),
            },
            node => Ok(Transformed::no(node)),
        });
        rewritten.map(|plan| plan.data)
    }
}

/// The list that a sort is above, with the columns that it sorts by and that are there below the list only; `None` if there are
/// none. What is above the sort shows no more than it did.
fn with_keys(sort: &Sort) -> Result<Option<LogicalPlan>> {
    let LogicalPlan::Projection(list) = sort.input.as_ref() else { return Ok(None) };
    if !matches!(list.input.as_ref(), LogicalPlan::Unnest(_)) {
        return Ok(None);
    }
    let mut missing: Vec<&Column> = Vec::new();
    for key in &sort.expr {
        let hidden = key.expr.column_refs().into_iter().filter(|column| !list.schema.has_column(column));
        missing.extend(hidden.filter(|column| list.input.schema().has_column(column)));
    }
    if missing.is_empty() {
        return Ok(None);
    }
    let mut columns = list.expr.clone();
    for column in missing {
        let column = Expr::Column(column.clone());
        if !columns.contains(&column) {
            columns.push(column);
        }
    }
    Ok(Some(LogicalPlan::Projection(Projection::try_new(columns, Arc::clone(&list.input))?)))
}

#[cfg(test)]
mod tests {
    use datafusion::functions_nested::expr_fn::make_array;
    use datafusion::logical_expr::{LogicalPlanBuilder, col, lit};

    use super::*;

    #[test]
    fn a_list_gets_the_columns_that_it_is_sorted_by() {
        let values = LogicalPlanBuilder::values(vec![vec![lit(1), lit(2)]]).unwrap();
        let arrays = values.project(vec![make_array(vec![col("column1")]).alias("a"), col("column2")]).unwrap();
        let list = arrays.unnest_column("a").unwrap().project(vec![col("a")]).unwrap().build().unwrap();
        let sort = Sort { expr: vec![col("column2").sort(true, false)], input: Arc::new(list), fetch: None };
        let sorted = LogicalPlan::Sort(sort);
        let shown = Projection::try_new(vec![col("a")], Arc::new(sorted)).unwrap();
        let plan = SortedSets.analyze(LogicalPlan::Projection(shown), &ConfigOptions::default()).unwrap();
        let text = plan.display_indent().to_string();
        assert!(text.contains("Projection: a, column2"), "{text}");
        assert_eq!(plan.schema().field_names(), ["a"]);
    }
}
