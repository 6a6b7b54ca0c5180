//! What is rewritten in plans before and after types are coerced: DataFusion's analyser rules of ours, and the functions
//! that they put in. What they share is in [`rewriting`].

pub(crate) mod arithmetic;
pub(crate) mod array_order;
pub(crate) mod coarse_times;
pub(crate) mod copies;
pub(crate) mod empty_groups;
pub(crate) mod interval;
pub(crate) mod interval_math;
pub(crate) mod interval_order;
pub(crate) mod limits;
pub(crate) mod listed_values;
pub(crate) mod membership;
pub(crate) mod mixed_types;
pub(crate) mod null_rows;
pub(crate) mod nullable_subqueries;
pub(crate) mod numeric_division;
pub(in crate::sql) mod numeric_pairs;
pub(in crate::sql) mod numeric_products;
pub(crate) mod opaque_values;
pub(crate) mod peer_frames;
pub(crate) mod rewriting;
pub(crate) mod session_zone;
pub(crate) mod single_row;
pub(in crate::sql) mod sorted_inputs;
pub(crate) mod sorted_sets;
pub(crate) mod sorted_subqueries;
pub(crate) mod strict_types;
pub(crate) mod time_units;
pub(crate) mod unknowns;
pub(crate) mod values_types;
