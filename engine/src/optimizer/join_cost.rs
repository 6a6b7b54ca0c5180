//! What joining two parts of a region costs, and how many rows come out.
//!
//! Costs are in nanoseconds of one core, fitted to DataFusion's hash join on this project's reference machine; only their
//! proportions matter. A build row is stored and hashed, a probe row is looked up, an output row is copied column by
//! column; a lookup is dearer once the hash table has outgrown the cache.

use std::sync::Arc;

use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{CastExpr, Column};

use super::estimate::{Estimate, selectivity};
use super::join_graph::{JoinGraph, Relations};

const BUILD_ROW: f64 = 30.0;
const BUILD_COLUMN: f64 = 4.0;
const PROBE_ROW: f64 = 5.0;
/// What a lookup costs more in a table far beyond the cache.
const CACHE_MISS: f64 = 15.0;
/// The number of build rows, as a power of two, from which lookups miss the cache, and from which all of them do.
const CACHED_BITS: f64 = 15.0;
const UNCACHED_BITS: f64 = 22.0;
const OUTPUT_ROW: f64 = 4.0;
const OUTPUT_COLUMN: f64 = 3.0;
/// Comparing one pair of rows in a nested loop.
const NESTED_PAIR: f64 = 2.0;

/// How much of its rows a semi join with a further condition keeps of those whose keys match.
const SEMI_RESIDUAL: f64 = 0.9;
/// The same for the rows an anti join removes.
const ANTI_RESIDUAL: f64 = 0.5;
/// No anti join is taken to remove everything.
const ANTI_LEAST: f64 = 0.05;

/// Answers for one region. A set's rows follow from the set alone, whatever the order it was joined in.
pub(super) struct CostModel<'a> {
    graph: &'a JoinGraph,
    /// Of the relations, their own conditions applied.
    estimates: Vec<Estimate>,
    /// The selectivity of each condition between relations.
    shares: Vec<f64>,
}

impl<'a> CostModel<'a> {
    /// `estimates` are those of the relations' plans.
    pub(super) fn new(graph: &'a JoinGraph, estimates: Vec<Estimate>) -> Self {
        let mut estimates = estimates;
        let mut shares = Vec::with_capacity(graph.conditions.len());
        // Conditions speak of the region's columns: all of them side by side.
        let mut side_by_side = Estimate::unknown(1.0, 0);
        for estimate in &estimates {
            side_by_side.columns.extend_from_slice(&estimate.columns);
            side_by_side.rows = side_by_side.rows.max(estimate.rows);
        }
        for condition in &graph.conditions {
            let share = selectivity(&condition.predicate, &side_by_side);
            if condition.relations.count_ones() == 1 && condition.reducer.is_none() {
                let relation = condition.relations.trailing_zeros() as usize;
                estimates[relation] = estimates[relation].filtered(share);
            }
            shares.push(share);
        }
        CostModel { graph, estimates, shares }
    }

    fn distinct(&self, column: usize) -> f64 {
        let relation = self.graph.owner[column];
        self.estimates[relation].column(column - self.graph.relations[relation].first_column).distinct
    }

    /// The distinct values of a column, or of one made wider; `None` of anything else.
    fn distinct_of(&self, expr: &Arc<dyn PhysicalExpr>) -> Option<f64> {
        let expr = expr.downcast_ref::<CastExpr>().map_or(expr, CastExpr::expr);
        expr.downcast_ref::<Column>().map(|column| self.distinct(column.index()))
    }

    /// The rows of the relations `set`, joined.
    pub(super) fn rows(&self, set: Relations) -> f64 {
        let graph = self.graph;
        let joined = set & !graph.reducers();
        if joined == 0 {
            // A reducer by itself.
            return members(set).map(|relation| self.estimates[relation].rows).product();
        }
        let mut rows: f64 = members(joined).map(|relation| self.estimates[relation].rows).product();
        for class in &graph.classes {
            // The least distinct member is contained in all others.
            let mut distinct: Vec<f64> =
                members(joined).filter_map(|relation| self.least_distinct(class, relation)).collect();
            distinct.sort_by(f64::total_cmp);
            rows /= distinct.iter().skip(1).product::<f64>();
        }
        for relation in members(joined) {
            rows *= self.key_correction(relation, joined);
        }
        for equality in &graph.equalities {
            let relations = equality.left_relations | equality.right_relations;
            if equality.reducer.is_none() && relations & !joined == 0 {
                let side = |expr, relations| {
                    self.distinct_of(expr).unwrap_or_else(|| (self.estimate_of(relations).rows / 10.0).max(1.0))
                };
                let (left, right) = (&equality.left, &equality.right);
                rows /= side(left, equality.left_relations).max(side(right, equality.right_relations));
            }
        }
        for (condition, share) in graph.conditions.iter().zip(&self.shares) {
            if condition.reducer.is_none() && condition.relations.count_ones() > 1 && condition.relations & !joined == 0
            {
                rows *= share;
            }
        }
        for reducer in members(set & !joined) {
            rows *= self.reduction(reducer, joined);
        }
        rows.max(1.0)
    }

    /// The relation among `relations` with the most rows.
    fn estimate_of(&self, relations: Relations) -> &Estimate {
        let most =
            members(relations).max_by(|one, other| self.estimates[*one].rows.total_cmp(&self.estimates[*other].rows));
        &self.estimates[most.unwrap_or(0)]
    }

    fn least_distinct(&self, class: &[usize], relation: usize) -> Option<f64> {
        let own = class.iter().filter(|column| self.graph.owner[**column] == relation);
        own.map(|column| self.distinct(*column)).min_by(f64::total_cmp)
    }

    /// Classes are weighed as if they were independent; the columns of one key are not. A row meets one row of the
    /// relation `1 / domain` of the time, not `1 / product of the columns' distinct values`.
    fn key_correction(&self, relation: usize, joined: Relations) -> f64 {
        let (graph, estimate) = (self.graph, &self.estimates[relation]);
        let first = graph.relations[relation].first_column;
        let others = joined & !(1 << relation);
        let mut correction: f64 = 1.0;
        for key in estimate.keys.iter().filter(|key| key.columns.len() > 1) {
            let class_of = |column: &usize| graph.classes.iter().find(|class| class.contains(&(first + column)));
            let covered = |column: &usize| class_of(column).is_some_and(|class| graph.owners(class) & others != 0);
            if key.columns.iter().all(covered) {
                let independent: f64 = key.columns.iter().map(|column| estimate.column(*column).distinct).product();
                correction = correction.max(independent / key.domain.max(1.0));
            }
        }
        correction
    }

    /// The share of the rows of `joined` that `reducer` lets through.
    fn reduction(&self, reducer: usize, joined: Relations) -> f64 {
        let graph = self.graph;
        let anti = graph.relations[reducer].reducer.as_ref().is_some_and(|reducer| reducer.anti);
        let mut matching: f64 = 1.0;
        for class in &graph.classes {
            if let Some(own) = self.least_distinct(class, reducer) {
                let others = members(joined).filter_map(|relation| self.least_distinct(class, relation));
                if let Some(others) = others.min_by(f64::total_cmp) {
                    matching = matching.min(own / others);
                }
            }
        }
        for equality in graph.equalities.iter().filter(|equality| equality.reducer == Some(reducer)) {
            let side = |expr, relations| self.distinct_of(expr).unwrap_or_else(|| self.estimate_of(relations).rows);
            let (left, right) =
                (side(&equality.left, equality.left_relations), side(&equality.right, equality.right_relations));
            let (own, others) = if equality.left_relations == 1 << reducer { (left, right) } else { (right, left) };
            matching = matching.min(own / others);
        }
        let residual = graph.conditions.iter().any(|condition| condition.reducer == Some(reducer));
        let kept = match (anti, residual) {
            (false, false) => matching,
            (false, true) => matching * SEMI_RESIDUAL,
            (true, false) => (1.0 - matching).max(ANTI_LEAST),
            (true, true) => (1.0 - matching * ANTI_RESIDUAL).max(ANTI_LEAST),
        };
        kept.clamp(1e-7, 1.0)
    }

    /// Columns of the relations `set` that are carried along.
    fn width(&self, set: Relations) -> f64 {
        members(set & !self.graph.reducers()).map(|relation| self.graph.relations[relation].width as f64).sum()
    }

    /// The cost of joining `build` with `probe` by a hash table (`keyed`) or pair by pair, into `rows` rows.
    pub(super) fn join(&self, (build, build_rows): Part, (probe, probe_rows): Part, rows: f64, keyed: bool) -> f64 {
        let output = rows * (OUTPUT_ROW + OUTPUT_COLUMN * self.width(build | probe));
        let store = build_rows * (BUILD_ROW + BUILD_COLUMN * self.width(build).max(1.0));
        if !keyed {
            return store + output + build_rows * probe_rows * NESTED_PAIR;
        }
        let misses = ((build_rows.log2() - CACHED_BITS) / (UNCACHED_BITS - CACHED_BITS)).clamp(0.0, 1.0);
        store + output + probe_rows * (PROBE_ROW + CACHE_MISS * misses)
    }
}

/// Relations joined, and the rows they have together.
pub(super) type Part = (Relations, f64);

/// The numbers of the relations in a set.
pub(super) fn members(set: Relations) -> impl Iterator<Item = usize> {
    (0..Relations::BITS as usize).filter(move |relation| set & (1 << relation) != 0)
}
