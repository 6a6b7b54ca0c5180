//! From DataFusion's plans to ours: the rules a query passes, and the cost model behind them.
//!
//! ```text
//!  logical plan ─► DataFusion's rewrites ─► physical plan ─► join order ─► DataFusion's physical rules ─► operators
//!                  (rules)                                   (join_rule)    (rules)
//!                                                                │
//!        join_graph: what is joined, by which conditions ◄───────┤
//!        estimate:   rows and distinct values of an operator ◄───┤
//!        join_cost:  the price of a join ◄── join_order: dynamic programming
//!                                                                └─► join_build: operators again
//! ```
//!
//! Joins are ordered on physical plans: there columns are plain numbers, filters stand where they will run, and semi joins
//! made from subqueries can be moved like any other join. Where a join would meet many rows of few keys, these are aggregated
//! before it (early_rule). Aggregations over keys that can be numbered get an operator of ours (aggregate_rule); others
//! group and redistribute their rows no more often than they must (once_rule). Behind all rules,
//! scans are told the keys of the joins above them (key_rule). What takes several numbers of a sequence for each row gets
//! its rows one by one (single_rows_rule); AND and OR compute what may fail only where they need it (lazy_rule).
//!
//! Rules leave out what they know to be superfluous. Where DataFusion takes for known what is not so, it is told better:
//! which columns decide others (dependency_rule), which are constant or equal only below a join or a union (plain_rows_rule),
//! and which of a recursive query may be NULL (recursive_rule). Where it takes NULLs for equal that are not, conditions stay
//! what they are (equal_nulls_rule); where it leaves out a sort and counts wrong, it gets a plan in which it counts right
//! (offset_rule); and rules of its that count wrong in a plan, or take names that are taken, are passed over in that
//! (guarded_rules, distinct_rule). And what would take time without a bound is told to it once (cast_rule), or is not done
//! (filter_rule, rules).

mod aggregate_rule;
mod cast_rule;
mod cooperative_rule;
mod decimal_rule;
mod dependencies;
mod dependency_rule;
mod distinct_rule;
mod early_rule;
mod equal_nulls_rule;
mod estimate;
mod explain;
mod filter_rule;
mod guarded_rules;
mod join_build;
mod join_cost;
mod join_graph;
mod join_order;
mod join_rule;
mod key_rule;
mod lazy_rule;
mod offset_rule;
mod once_rule;
mod plain_rows_rule;
mod recursive_rule;
mod rules;
mod single_rows_rule;

pub(crate) use dependencies::without_dependencies;
pub(crate) use dependency_rule::CertainDependencies;
pub(crate) use explain::with_estimates;
pub(crate) use filter_rule::logical_rules;
pub(crate) use rules::{configure, first_late_rule, physical_rules};
