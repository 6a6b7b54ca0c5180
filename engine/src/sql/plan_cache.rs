//! Plans of queries that were run before, so that a query that comes again is not planned again.
//!
//! ```text
//!   text ─► PlanCache ─┬─ hit:  fresh copy ─► late rules ─► run            tens of microseconds
//!                      └─ miss: parse ─► plan ─► early rules ─┬─► late rules ─► run
//!                                                             └─► kept            milliseconds
//! ```
//!
//! A plan names tables, not rows: scans find the rows of whatever view they run against. So a plan may be used again as
//! long as
//! * the text is the same but for its layout, and so are the values of its parameters ([`super::plan_key`]);
//! * the catalog is the same object, and so are the session's options: any change makes new ones; names are looked for in
//!   the same schemas;
//! * the tables have about as many rows as when it was made ([`DRIFT_FACTOR`]), or a better plan may exist;
//! * it means the same whenever it is run: no function of time or chance, no table that is made during planning, no row
//!   count put in place of a scan.
//!
//! What operators share while they run (a hash table, a dynamic filter) belongs to one execution: each gets a copy of the
//! operators with fresh state, and only then the late rules connect dynamic filters with scans. One thing cannot be copied:
//! the place where an uncorrelated scalar subquery puts its value, which expressions point to. A plan that has one is run by
//! one execution at a time, which holds its [`Lease`]; who comes meanwhile plans anew.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use datafusion::catalog::Session;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::datasource::source_as_provider;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{Expr, LogicalPlan, Volatility};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::scalar_subquery::ScalarSubqueryExec;
use parking_lot::Mutex;
use rustydb_storage::{Catalog, TableId};

use super::context::StatementContext;
use super::plan_key::has_values;
use crate::Result;
use crate::apply::ApplyExec;
use crate::catalog::provider::ColumnTable;
use crate::scan::ColumnScanExec;

/// Plans kept per database. A plan takes some ten to a hundred kilobytes.
const PLANS_MAX: usize = 256;
/// The same for texts with certain values of their parameters.
const BOUND_PLANS_MAX: usize = 64;
/// A table that has grown or shrunk by this factor since may deserve another plan.
const DRIFT_FACTOR: f64 = 1.5;
/// Tables smaller than this are small, whatever their growth.
const DRIFT_ROWS: f64 = 10_000.0;

/// The plans of one database.
#[derive(Debug, Default)]
pub(crate) struct PlanCache {
    plans: Mutex<Plans>,
}

#[derive(Debug, Default)]
struct Plans {
    by_key: HashMap<Arc<str>, Entry>,
    /// Counts look-ups; the entry with the oldest goes first.
    clock: u64,
}

#[derive(Debug)]
struct Entry {
    plan: Arc<CachedPlan>,
    used: u64,
}

/// A plan before the late rules, and what it was made for.
#[derive(Debug)]
struct CachedPlan {
    plan: Arc<dyn ExecutionPlan>,
    catalog: Arc<Catalog>,
    options: Arc<ConfigOptions>,
    search_path: Arc<[String]>,
    temporary: Option<String>,
    rows: Vec<(TableId, usize)>,
    /// Of a plan that one execution at a time may run: whether one does.
    leased: Option<Arc<AtomicBool>>,
}

/// The right to run a plan whose copies share a place for results. Until it is dropped nobody else gets that plan.
#[derive(Debug)]
pub(crate) struct Lease(Arc<AtomicBool>);

impl Lease {
    fn take(leased: &Arc<AtomicBool>) -> Option<Lease> {
        let free = leased.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok();
        free.then(|| Lease(Arc::clone(leased)))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl CachedPlan {
    fn fits(&self, context: &StatementContext) -> bool {
        let view = context.view();
        Arc::ptr_eq(&self.catalog, view.catalog())
            && Arc::ptr_eq(&self.options, Session::config(context).options())
            && self.search_path == *context.search_path()
            && self.temporary.as_deref() == context.temporary()
            && self.rows.iter().all(|(table, rows)| view.rows(*table).is_ok_and(|now| is_similar(*rows, now)))
    }
}

fn is_similar(before: usize, now: usize) -> bool {
    let (low, high) = (before.min(now) as f64, before.max(now) as f64);
    high <= DRIFT_ROWS || high <= low * DRIFT_FACTOR
}

impl PlanCache {
    /// Whether there is a plan for `key`; it may turn out not to fit.
    pub(crate) fn contains(&self, key: &str) -> bool {
        self.plans.lock().by_key.contains_key(key)
    }

    /// The plan for `key`, if there is one that fits and is free; with fresh state, still without the late rules.
    pub(crate) fn find(&self, key: &str, context: &StatementContext) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let found = {
            let mut plans = self.plans.lock();
            plans.clock += 1;
            let now = plans.clock;
            plans.by_key.get_mut(key).map(|entry| {
                entry.used = now;
                Arc::clone(&entry.plan)
            })
        };
        let Some(found) = found else { return Ok(None) };
        if !found.fits(context) {
            self.plans.lock().by_key.remove(key);
            return Ok(None);
        }
        if let Some(leased) = &found.leased {
            let Some(lease) = Lease::take(leased) else { return Ok(None) };
            context.hold(lease)?;
        }
        Ok(Some(fresh_copy(Arc::clone(&found.plan))?))
    }

    /// Keeps `plan`, made from `logical` without the late rules, if it may be used again.
    pub(crate) fn keep(
        &self,
        key: &str,
        logical: &LogicalPlan,
        plan: &Arc<dyn ExecutionPlan>,
        context: &StatementContext,
    ) -> Result<()> {
        let Some(tables) = stored_tables(logical)? else { return Ok(()) };
        // It plans while it runs, for the statement it was made for.
        if plan.exists(|operator| Ok(operator.downcast_ref::<ApplyExec>().is_some()))? {
            return Ok(());
        }
        // A table without a scan was answered from its exact row count, which is true only now.
        if count_scans(plan)? < tables.len() {
            return Ok(());
        }
        // The plan just made is also the first to be run.
        let leased = has_shared_results(plan)?.then(Arc::default);
        if let Some(lease) = leased.as_ref().and_then(Lease::take) {
            context.hold(lease)?;
        }
        let view = context.view();
        let rows = tables.into_iter().map(|table| Ok((table, view.rows(table)?))).collect::<Result<_>>()?;
        let kept = CachedPlan {
            plan: Arc::clone(plan),
            catalog: Arc::clone(view.catalog()),
            options: Arc::clone(Session::config(context).options()),
            search_path: Arc::clone(context.search_path()),
            temporary: context.temporary().map(str::to_owned),
            rows,
            leased,
        };
        let mut plans = self.plans.lock();
        // Values that never come again must not drive out the plans of texts without any.
        let (bound, most) = match has_values(key) {
            true => (true, BOUND_PLANS_MAX),
            false => (false, PLANS_MAX),
        };
        let alike = || plans.by_key.iter().filter(|(other, _)| has_values(other) == bound);
        if alike().count() >= most {
            let oldest = alike().min_by_key(|(_, entry)| entry.used).map(|(key, _)| Arc::clone(key));
            oldest.and_then(|key| plans.by_key.remove(&key));
        }
        plans.clock += 1;
        let used = plans.clock;
        plans.by_key.insert(key.into(), Entry { plan: Arc::new(kept), used });
        Ok(())
    }
}

/// A copy of `plan` whose operators remember nothing of an earlier run.
pub(crate) fn fresh_copy(plan: Arc<dyn ExecutionPlan>) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
    plan.transform_up(|operator| {
        let fresh = operator.reset_state()?;
        Ok(Transformed::yes(match fresh.downcast_ref::<AggregateExec>() {
            Some(aggregate) if !aggregate.dynamic_expressions_produced().is_empty() => with_fresh_filter(aggregate)?,
            _ => fresh,
        }))
    })
    .data()
}

/// DataFusion 55 keeps the filter by which `min(x)` and `max(x)` skip rows, `x < 5`, over `reset_state`: the next run would
/// find no rows at all.
fn with_fresh_filter(aggregate: &AggregateExec) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
    let fresh = AggregateExec::try_new(
        *aggregate.mode(),
        aggregate.group_expr().clone(),
        aggregate.aggr_expr().to_vec(),
        aggregate.filter_expr().to_vec(),
        Arc::clone(aggregate.input()),
        aggregate.input_schema(),
    )?;
    Ok(Arc::new(fresh.with_new_limit_options(aggregate.limit_options())))
}

/// The tables a plan reads, or `None` if it would not mean the same when run again.
fn stored_tables(plan: &LogicalPlan) -> DataFusionResult<Option<Vec<TableId>>> {
    let (mut tables, mut repeatable) = (Vec::new(), true);
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            match source_as_provider(&scan.source)?.downcast_ref::<ColumnTable>() {
                Some(table) => tables.push(table.id()),
                None => repeatable = false,
            }
        }
        repeatable &= !matches!(node, LogicalPlan::RecursiveQuery(_) | LogicalPlan::Extension(_));
        node.apply_expressions(|expr| {
            expr.apply(|part| {
                repeatable &= match part {
                    Expr::ScalarFunction(call) => call.func.signature().volatility == Volatility::Immutable,
                    Expr::Placeholder(_) | Expr::ScalarVariable(..) => false,
                    _ => true,
                };
                Ok(TreeNodeRecursion::Continue)
            })
        })?;
        Ok(if repeatable { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    })?;
    Ok(repeatable.then_some(tables))
}

/// Whether the operators keep results in a place that copies of them share: a scalar subquery's value is written where
/// expressions point to, and two executions at once would write to the same place.
fn has_shared_results(plan: &Arc<dyn ExecutionPlan>) -> DataFusionResult<bool> {
    plan.exists(|operator| Ok(operator.downcast_ref::<ScalarSubqueryExec>().is_some()))
}

fn count_scans(plan: &Arc<dyn ExecutionPlan>) -> DataFusionResult<usize> {
    let mut scans = 0;
    plan.apply(|operator| {
        scans += usize::from(operator.downcast_ref::<ColumnScanExec>().is_some());
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(scans)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Lease, is_similar};

    #[test]
    fn a_lease_is_given_to_one_at_a_time() {
        let leased = Arc::default();
        let first = Lease::take(&leased);
        assert!(first.is_some() && Lease::take(&leased).is_none());
        drop(first);
        assert!(Lease::take(&leased).is_some());
    }

    #[test]
    fn growth_matters_for_large_tables_only() {
        assert!(is_similar(10, 9_000) && is_similar(100_000, 140_000));
        assert!(!is_similar(100_000, 160_000) && !is_similar(100_000, 10));
    }
}
