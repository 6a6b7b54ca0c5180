//! What is rewritten in a syntax tree before it is planned, because DataFusion's planner knows no such form or means something
//! else by it. Types are not known yet: what needs them is a [rule](super::rules).

pub(in crate::sql) mod array_literals;
pub(in crate::sql) mod balance;
pub(in crate::sql) mod called_functions;
pub(in crate::sql) mod calls;
pub(in crate::sql) mod cast_keys;
pub(in crate::sql) mod copies;
pub(in crate::sql) mod cte_names;
pub(crate) mod date_words;
pub(in crate::sql) mod exponents;
pub(in crate::sql) mod extract;
pub(in crate::sql) mod first_results;
pub(in crate::sql) mod frame_bounds;
pub(crate) mod grouping;
pub(in crate::sql) mod join_aliases;
pub(in crate::sql) mod known_columns;
pub(in crate::sql) mod lateral_joins;
pub(in crate::sql) mod like_lists;
pub(in crate::sql) mod literal_scales;
pub(in crate::sql) mod literals;
pub(in crate::sql) mod merged_columns;
pub(in crate::sql) mod merged_in_subqueries;
pub(crate) mod natural_joins;
pub(in crate::sql) mod normal_forms;
pub(crate) mod own_expressions;
pub(in crate::sql) mod recursive_constants;
pub(in crate::sql) mod recursive_terms;
pub(in crate::sql) mod row_fields;
pub(in crate::sql) mod row_values;
pub(in crate::sql) mod select_lists;
pub(in crate::sql) mod set_operations;
pub(in crate::sql) mod sets;
pub(in crate::sql) mod shorthands;
pub(crate) mod time_digits;
pub(crate) mod unknown_literals;
pub(in crate::sql) mod windows;
