//! DataFusion's rule that hands filters down on the logical plan, except where it must not or had better not do it.
//!
//! It hands a condition below an aggregation if all of its columns are grouped by, and so does it with one that has no
//! columns: `HAVING (SELECT max(y) FROM b) > 5`. Below, that leaves no rows to count, and a count of 0 instead of no row.
//!
//! And it hands a condition below the operator that computes its columns, with what they are computed from in their place.
//! Of `SELECT a + a AS a FROM (SELECT a + a AS a FROM (…)) WHERE a > 0` it makes a condition that is twice as large at each
//! level. So a condition that [gets large](grows) by that stays where it is.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::common::Column;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::logical_expr::utils::{conjunction, split_conjunction};
use datafusion::logical_expr::{Aggregate, Expr, Filter, LogicalPlan};
use datafusion::optimizer::optimizer::{ApplyOrder, Optimizer};
use datafusion::optimizer::push_down_filter::PushDownFilter;
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};

use super::cast_rule::ShallowCasts;
use super::dependency_rule::ask_for_what_holds;
use super::distinct_rule::keep_names_apart;
use super::equal_nulls_rule::keep_nulls_apart;
use super::recursive_rule::RecursiveColumns;

/// The expressions that a condition may be when what its columns are computed from stands in it several times. With more,
/// it tells a scan nothing that rules out rows, and is computed twice.
const WRITTEN_OUT_MAX: usize = 200;

/// DataFusion's rule, with exceptions.
#[derive(Debug, Default)]
struct FiltersHandedDown(PushDownFilter);

impl OptimizerRule for FiltersHandedDown {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.0.apply_order()
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let LogicalPlan::Filter(filter) = &plan else { return self.0.rewrite(plan, config) };
        if decides_a_total(filter) {
            return Ok(Transformed::no(plan));
        }
        let Some(Parted { handed, kept, input }) = parted(filter)? else { return self.0.rewrite(plan, config) };
        let (Some(handed), Some(kept)) = (conjunction(handed), conjunction(kept)) else {
            return Ok(Transformed::no(plan));
        };
        let below = self.0.rewrite(LogicalPlan::Filter(Filter::try_new(handed, input)?), config)?;
        match below.transformed {
            true => below.map_data(|below| Ok(LogicalPlan::Filter(Filter::try_new(kept, Arc::new(below))?))),
            false => Ok(Transformed::no(plan)),
        }
    }
}

/// The conditions of filters that stand above each other.
struct Parted {
    /// Those that may be handed down further.
    handed: Vec<Expr>,
    /// Those that would get large.
    kept: Vec<Expr>,
    /// What is below the filters.
    input: Arc<LogicalPlan>,
}

/// Parts the conditions of a filter and of those below it, which are joined on their way. `None` if none gets large.
fn parted(filter: &Filter) -> Result<Option<Parted>> {
    let (mut filters, mut input) = (vec![filter], &filter.input);
    while let LogicalPlan::Filter(below) = input.as_ref() {
        filters.push(below);
        input = &below.input;
    }
    let computed = computed_columns(input)?;
    if computed.is_empty() {
        return Ok(None);
    }
    let (mut handed, mut kept) = (Vec::new(), Vec::new());
    for filter in filters.into_iter().rev() {
        // What may fail for rows that a filter below it drops stays above that.
        let stays = !kept.is_empty();
        for condition in split_conjunction(&filter.predicate) {
            let side = if stays || grows(condition, &computed)? { &mut kept } else { &mut handed };
            side.push(condition.clone());
        }
    }
    Ok((!kept.is_empty()).then(|| Parted { handed, kept, input: Arc::clone(input) }))
}

/// The columns of an operator that it computes, with the number of expressions from which it does.
fn computed_columns(plan: &LogicalPlan) -> Result<HashMap<String, usize>> {
    let mut computed = HashMap::new();
    match plan {
        LogicalPlan::Projection(projection) => {
            for (column, expr) in projection.schema.iter().zip(&projection.expr) {
                if is_computed(expr) {
                    computed.insert(Column::from(column).flat_name(), expressions_in(expr)?);
                }
            }
        }
        LogicalPlan::Aggregate(aggregate) if !matches!(aggregate.group_expr.as_slice(), [Expr::GroupingSet(_)]) => {
            for expr in aggregate.group_expr.iter().filter(|expr| is_computed(expr)) {
                computed.insert(expr.schema_name().to_string(), expressions_in(expr)?);
            }
        }
        _ => {}
    }
    Ok(computed)
}

fn is_computed(expr: &Expr) -> bool {
    match expr {
        Expr::Alias(alias) => is_computed(&alias.expr),
        other => !matches!(other, Expr::Column(_) | Expr::Literal(..)),
    }
}

/// Constants do not count: they have nothing in them that grows, and a list may have many.
fn expressions_in(expr: &Expr) -> Result<usize> {
    let mut found = 0;
    expr.apply(|part| {
        found += usize::from(!matches!(part, Expr::Literal(..)));
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

/// Whether a condition gets large where its columns are computed, because there are several of them in it.
fn grows(condition: &Expr, computed: &HashMap<String, usize>) -> Result<bool> {
    let (mut large, mut named) = (expressions_in(condition)?, 0);
    condition.apply(|part| {
        if let Expr::Column(column) = part
            && let Some(expressions) = computed.get(&column.flat_name())
        {
            large = large.saturating_add(*expressions);
            named += 1;
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(named > 1 && large > WRITTEN_OUT_MAX)
}

/// Whether a condition without columns stands above a total. Conditions in between, as of HAVING, it would join on its way.
fn decides_a_total(filter: &Filter) -> bool {
    let mut has_no_columns = false;
    let mut filter = filter;
    loop {
        has_no_columns |= split_conjunction(&filter.predicate).iter().any(|part| part.column_refs().is_empty());
        match filter.input.as_ref() {
            LogicalPlan::Filter(below) => filter = below,
            LogicalPlan::Aggregate(aggregate) => return has_no_columns && has_total(aggregate),
            _ => return false,
        }
    }
}

/// Whether there is a row for no rows.
fn has_total(aggregate: &Aggregate) -> bool {
    aggregate.group_expr.is_empty() || matches!(aggregate.group_expr.as_slice(), [Expr::GroupingSet(_)])
}

/// The logical rules, in order.
pub(crate) fn logical_rules(optimizer: &mut Optimizer) {
    for rule in &mut optimizer.rules {
        if rule.name() == "push_down_filter" {
            *rule = Arc::new(FiltersHandedDown::default());
        }
    }
    keep_nulls_apart(&mut optimizer.rules);
    keep_names_apart(&mut optimizer.rules);
    ask_for_what_holds(&mut optimizer.rules);
    optimizer.rules.push(Arc::new(ShallowCasts::default()));
    optimizer.rules.push(Arc::new(RecursiveColumns));
}

#[cfg(test)]
mod tests {
    use datafusion::logical_expr::{LogicalPlanBuilder, col, lit};
    use datafusion::optimizer::OptimizerContext;

    use super::*;

    #[test]
    fn the_rule_is_where_it_is_looked_for() {
        assert!(Optimizer::new().rules.iter().any(|rule| rule.name() == "push_down_filter"));
    }

    /// What becomes of two conditions on columns of a projection, one of which names a sum of so many columns twice.
    fn handed_down(summands: usize) -> Transformed<LogicalPlan> {
        let sum = (0..summands).fold(col("column1"), |sum, _| sum + col("column1"));
        let values = LogicalPlanBuilder::values(vec![vec![lit(1), lit(2)]]).unwrap();
        let computed = values.project(vec![sum.alias("s"), col("column2").alias("k")]).unwrap();
        let condition = col("s").lt(col("s") * lit(2)).and(col("k").eq(lit(2)));
        let plan = computed.filter(condition).unwrap().build().unwrap();
        FiltersHandedDown::default().rewrite(plan, &OptimizerContext::new()).unwrap()
    }

    #[test]
    fn a_condition_stays_where_it_would_get_large_and_others_are_handed_down() {
        let small = handed_down(1);
        assert!(small.transformed && matches!(small.data, LogicalPlan::Projection(_)), "{:?}", small.data);
        let large = handed_down(WRITTEN_OUT_MAX);
        assert!(large.transformed);
        let LogicalPlan::Filter(filter) = &large.data else { panic!("{:?}", large.data) };
        assert_eq!(filter.predicate, col("s").lt(col("s") * lit(2)));
        let LogicalPlan::Projection(projection) = filter.input.as_ref() else { panic!("{:?}", large.data) };
        let LogicalPlan::Filter(below) = projection.input.as_ref() else { panic!("{:?}", large.data) };
        assert_eq!(below.predicate, col("column2").eq(lit(2)));
    }
}
