//! From the text of a statement to a plan.
//!
//! ```text
//! text ──▶ tokens ──▶ syntax tree ──▶ which statement it is ──▶ plan ──▶ plan with types ──▶ optimised plan, operators
//! [`text`]  [`grammar`]  [`tree`]          [`route`]           [`context`]  [`rules`]             [`plan`]
//! ```
//!
//! What is refused before planning is in [`check`], [`size`], [`widths`] and [`nul`], names in a view of the data in [`context`]
//! and [`relations`], what the columns of results are called in [`names`], SQL's names of types in [`types`], conversions by
//! assignment in [`assigned`], plans that are kept in [`plan_cache`] under their [`plan_key`], aggregate functions in
//! [`aggregates`].

pub(crate) mod aggregates;
pub(crate) mod assigned;
pub(crate) mod check;
pub(crate) mod context;
pub(crate) mod declared;
pub(crate) mod grammar;
pub(crate) mod names;
pub(crate) mod nul;
pub(crate) mod plan;
pub(crate) mod plan_cache;
pub(crate) mod plan_key;
pub(crate) mod relations;
pub(crate) mod route;
pub(crate) mod rules;
mod size;
pub(crate) mod text;
pub(crate) mod tree;
pub(crate) mod types;
pub(crate) mod widths;
