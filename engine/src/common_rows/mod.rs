//! Common table expressions whose rows several places of a query read, and that would be others each time they are computed.
//!
//! DataFusion puts the plan of a common table expression in the place of each of its references. That is fine as long as it
//! gives the same rows each time, but not for one with `random()` or `nextval('s')` in it:
//!
//! ```text
//!   WITH x AS (SELECT random() AS r)            Cross Join
//!   SELECT a.r = b.r FROM x a, x b                SubqueryAlias: x             SubqueryAlias: x
//!                                                   CommonRows: 1                CommonRows: 1
//!                                                     Projection: random()         Projection: random()
//! ```
//!
//! The references are found again among the planned query's nodes ([`sharing`]), as all share one schema, and get a [`node`]
//! with a common number. The first [operator](exec) of a number that is asked for rows computes and keeps them until the
//! query ends; the others read them. What a view has inside is computed for each reference to the view, as in PostgreSQL, and
//! what depends on rows outside of it for each of those.

mod exec;
mod node;
mod sharing;

pub(crate) use exec::{CommonRowsPlanner, ComputedRows};
pub(crate) use node::input_of_common_rows;
pub(crate) use sharing::{ViewRows, names_of_ctes, share_rows};
