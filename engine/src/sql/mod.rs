//! From the text of a statement to a plan: tokens and syntax ([`parse`], bounded by [`depth`], made shallow by
//! [`balance`]), the split of scripts ([`split`]), which of our statements it is ([`route`]), what is refused before
//! planning ([`check`], [`size`]), name resolution and planning ([`context`], [`plan`]), plans made before
//! ([`plan_cache`]), what the columns of results are called ([`names`]), subqueries that must give one row
//! ([`single_row`]), rows that are compared ([`row_values`]) or NULL ([`null_rows`]), where in a text the thing is that an
//! error is about ([`places`]), arithmetic as SQL has it ([`arithmetic`]), operands of different types ([`mixed_types`]),
//! constants of an open type ([`unknown_literals`]), the order of intervals ([`interval_order`]), and times of different
//! units ([`time_units`]).

pub(crate) mod arithmetic;
pub(crate) mod array_order;
pub(crate) mod assigned;
mod balance;
mod called_functions;
mod calls;
mod cast_keys;
pub(crate) mod check;
mod checked_decimals;
pub(crate) mod checked_sum;
pub(crate) mod context;
pub(crate) mod copy_syntax;
mod cte_names;
pub(crate) mod date_words;
mod definition_syntax;
mod depth;
pub(crate) mod empty_groups;
mod exponents;
mod extract;
mod first_results;
pub(crate) mod grouping;
mod idle_words;
pub(crate) mod insert_syntax;
pub(crate) mod interval;
mod interval_distinct;
mod interval_extremes;
pub(crate) mod interval_math;
pub(crate) mod interval_order;
mod interval_sum;
mod joined_texts;
mod known_columns;
mod lateral_joins;
mod like_lists;
pub(crate) mod limits;
mod literals;
pub(crate) mod lock_syntax;
pub(crate) mod maintenance_syntax;
pub(crate) mod membership;
mod merged_columns;
pub(crate) mod mixed_types;
pub(crate) mod named_syntax;
pub(crate) mod names;
pub(crate) mod natural_joins;
pub(crate) mod null_rows;
pub(crate) mod numeric_division;
mod numeric_means;
mod numeric_products;
pub(crate) mod opaque_values;
mod own_expressions;
pub(crate) mod own_syntax;
pub(crate) mod parse;
pub(crate) mod peer_frames;
pub(crate) mod places;
pub(crate) mod plan;
pub(crate) mod plan_cache;
pub(crate) mod plan_key;
mod recursive_constants;
mod recursive_terms;
mod refused_forms;
pub(crate) mod relations;
pub(crate) mod route;
pub(crate) mod routine_syntax;
mod row_values;
mod select_lists;
pub(crate) mod session_zone;
mod set_operations;
mod sets;
pub(crate) mod single_row;
mod size;
mod sliding_floats;
mod sliding_statistics;
pub(crate) mod split;
pub(crate) mod time_units;
mod token_forms;
pub(crate) mod transaction_syntax;
pub(crate) mod types;
pub(crate) mod unknown_literals;
pub(crate) mod user_syntax;
mod windows;
