//! Subqueries that are computed once for each different row outside of them.
//!
//! DataFusion makes joins of the subqueries it knows how to take apart, and refuses the others. Those become an
//! [`Apply`](node::Apply) node (the operator of that name in Galindo-Legaria and Joshi, "Orthogonal Optimization of
//! Subqueries and Aggregation"): for each row of its input it runs the subquery with the row's values in the places of the
//! references to it, and adds what comes out. Equal values are looked up, not computed again.
//!
//! ```text
//!   Projection: a.id, (SELECT max(y) FROM b WHERE b.id <= a.id)        Projection: a.id, __rustydb_subquery_1
//!     TableScan: a                                              ──►      Apply: value of (… WHERE b.id <= outer(a.id))
//!                                                                          TableScan: a
//! ```
//!
//! | file | |
//! |---|---|
//! | [`scope`] | which rows outside a subquery refers to, and how values are put in their places |
//! | [`rule`] | which subqueries DataFusion would refuse, or get wrong, and where the node goes |
//! | [`node`] | the node of the logical plan |
//! | [`hidden`] | conditions that cannot leave a subquery in FROM |
//! | [`mark_joins`] | EXISTS and IN outside of WHERE, as joins |
//! | [`outer_joins`] | subqueries in the conditions of outer joins |
//! | [`exec`] | the operator, and how it is planned |
//!
//! A join is the better plan where one is possible, so the rule looks twice: after the analyser for what must not reach
//! DataFusion's rules at all, and after those for what they left.

mod exec;
mod hidden;
mod mark_joins;
mod node;
mod outer_joins;
mod rule;
mod scope;

pub(crate) use exec::{ApplyExec, ApplyPlanner};
pub(crate) use rule::{AfterJoins, BeforeJoins};
