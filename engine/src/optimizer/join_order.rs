//! The order in which the relations of a region are joined.
//!
//! Up to [`EXACT_RELATIONS_MAX`] relations, dynamic programming over all subsets finds the cheapest tree, bushy ones
//! included, without cross products (DPsub; Moerkotte and Neumann, "Analysis of Two Existing and One New Dynamic
//! Programming Algorithm", VLDB 2006). Beyond, parts are merged greedily, the cheapest pair first (Fegaras, "A New
//! Heuristic for Optimizing Large Queries", 1998). Where the conditions do not connect the relations, cross products are
//! let in.

use super::join_cost::{CostModel, members};
use super::join_graph::{JoinGraph, Relations};

/// The largest region that is ordered exactly: 3^10 pairs of subsets take a millisecond.
const EXACT_RELATIONS_MAX: usize = 10;

/// A way to join relations; the left side is built into a hash table, the right side probes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum JoinTree {
    Relation(usize),
    Join { build: Box<JoinTree>, probe: Box<JoinTree> },
}

impl JoinTree {
    /// The relations in it.
    pub(super) fn relations(&self) -> Relations {
        match self {
            JoinTree::Relation(number) => 1 << number,
            JoinTree::Join { build, probe } => build.relations() | probe.relations(),
        }
    }
}

/// Finds an order for all relations. `None` if there is none that its conditions allow.
pub(super) fn best_order(graph: &JoinGraph, costs: &CostModel<'_>) -> Option<JoinTree> {
    if graph.relations.len() > EXACT_RELATIONS_MAX {
        return greedy(graph, costs);
    }
    exact(graph, costs, false).or_else(|| exact(graph, costs, true))
}

/// How two parts can be joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Link {
    /// By equal keys.
    Keyed,
    /// By comparing all pairs.
    Pairs,
    /// Not yet: a reducer's conditions speak of relations that are in neither part.
    Impossible,
}

/// How `left` and `right`, which have no relation in common, can be joined.
pub(super) fn link(graph: &JoinGraph, left: Relations, right: Relations) -> Link {
    let reducers = graph.reducers();
    for (part, other) in [(left, right), (right, left)] {
        if part & !reducers == 0 {
            return link_reducer(graph, part, other);
        }
    }
    let (left, right) = (left & !reducers, right & !reducers);
    let by_class = |class: &Vec<usize>| {
        let owners = graph.owners(class);
        owners & left != 0 && owners & right != 0
    };
    if graph.classes.iter().any(by_class) || graph.equalities.iter().any(|equality| is_key(equality, left, right)) {
        return Link::Keyed;
    }
    Link::Pairs
}

fn link_reducer(graph: &JoinGraph, part: Relations, other: Relations) -> Link {
    let joined = other & !graph.reducers();
    let number = part.trailing_zeros() as usize;
    let Some(reducer) = &graph.relations[number].reducer else { return Link::Impossible };
    if part.count_ones() != 1 || joined == 0 || reducer.needs & !joined != 0 {
        return Link::Impossible;
    }
    let own_classes = || graph.classes.iter().map(|class| graph.owners(class)).filter(|owners| owners & part != 0);
    if own_classes().any(|owners| owners & joined == 0) {
        return Link::Impossible;
    }
    let has_key = own_classes().next().is_some()
        || graph.equalities.iter().any(|equality| equality.reducer == Some(number) && is_key(equality, part, joined));
    if has_key { Link::Keyed } else { Link::Impossible }
}

/// Whether an equality has one side in each part.
pub(super) fn is_key(equality: &super::join_graph::Equality, left: Relations, right: Relations) -> bool {
    let (one, other) = (equality.left_relations, equality.right_relations);
    one != 0 && other != 0 && ((one & !left == 0 && other & !right == 0) || (one & !right == 0 && other & !left == 0))
}

/// The best way found so far to join a set.
#[derive(Clone, Copy)]
struct Best {
    cost: f64,
    rows: f64,
    /// The set that is built; the rest probes. 0 for a single relation.
    build: Relations,
}

fn exact(graph: &JoinGraph, costs: &CostModel<'_>, cross_products: bool) -> Option<JoinTree> {
    let all = graph.all();
    let mut best: Vec<Option<Best>> = vec![None; all as usize + 1];
    for relation in members(all) {
        let rows = costs.rows(1 << relation);
        best[1 << relation] = Some(Best { cost: 0.0, rows, build: 0 });
    }
    for set in 1..=all {
        if set.count_ones() < 2 {
            continue;
        }
        let mut rows = None;
        // All proper subsets, each with its rest: both roles of every pair come up.
        let mut build = (set - 1) & set;
        while build != 0 {
            let probe = set & !build;
            if let (Some(built), Some(probed)) = (best[build as usize], best[probe as usize]) {
                let keyed = match link(graph, build, probe) {
                    Link::Keyed => Some(true),
                    Link::Pairs if cross_products => Some(false),
                    Link::Pairs | Link::Impossible => None,
                };
                if let Some(keyed) = keyed {
                    let rows = *rows.get_or_insert_with(|| costs.rows(set));
                    let own = costs.join((build, built.rows), (probe, probed.rows), rows, keyed);
                    let cost = built.cost + probed.cost + own;
                    if best[set as usize].is_none_or(|known| cost < known.cost) {
                        best[set as usize] = Some(Best { cost, rows, build });
                    }
                }
            }
            build = (build - 1) & set;
        }
    }
    tree(&best, all)
}

fn tree(best: &[Option<Best>], set: Relations) -> Option<JoinTree> {
    let build = best[set as usize]?.build;
    if build == 0 {
        return Some(JoinTree::Relation(set.trailing_zeros() as usize));
    }
    Some(JoinTree::Join { build: Box::new(tree(best, build)?), probe: Box::new(tree(best, set & !build)?) })
}

fn greedy(graph: &JoinGraph, costs: &CostModel<'_>) -> Option<JoinTree> {
    let mut parts: Vec<(JoinTree, Relations, f64)> =
        members(graph.all()).map(|number| (JoinTree::Relation(number), 1 << number, costs.rows(1 << number))).collect();
    while parts.len() > 1 {
        let mut cheapest: Option<(f64, usize, usize, f64)> = None;
        for cross_products in [false, true] {
            for build in 0..parts.len() {
                for probe in (0..parts.len()).filter(|probe| *probe != build) {
                    let keyed = match link(graph, parts[build].1, parts[probe].1) {
                        Link::Keyed => true,
                        Link::Pairs if cross_products => false,
                        Link::Pairs | Link::Impossible => continue,
                    };
                    let rows = costs.rows(parts[build].1 | parts[probe].1);
                    let (build_part, probe_part) = ((parts[build].1, parts[build].2), (parts[probe].1, parts[probe].2));
                    // What comes out is paid again by the joins to come.
                    let cost =
                        costs.join(build_part, probe_part, rows, keyed) + costs.join((0, 1.0), (0, rows), rows, true);
                    if cheapest.is_none_or(|(known, ..)| cost < known) {
                        cheapest = Some((cost, build, probe, rows));
                    }
                }
            }
            if cheapest.is_some() {
                break;
            }
        }
        let (_, build, probe, rows) = cheapest?;
        let (high, low) = (build.max(probe), build.min(probe));
        let (high_part, low_part) = (parts.swap_remove(high), parts.swap_remove(low));
        let (build, probe) = if build == high { (high_part, low_part) } else { (low_part, high_part) };
        let tree = JoinTree::Join { build: Box::new(build.0), probe: Box::new(probe.0) };
        parts.push((tree, build.1 | probe.1, rows));
    }
    parts.pop().map(|(tree, ..)| tree)
}
