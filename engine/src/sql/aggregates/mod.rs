//! Aggregate functions that give what PostgreSQL's give: sums that fail instead of wrapping around, means with as many digits,
//! intervals, and windows that slide. What they share is in [`changed_aggregates`] and [`wanted_rows`].

pub(in crate::sql) mod changed_aggregates;
pub(in crate::sql) mod checked_decimals;
pub(crate) mod checked_sum;
pub(in crate::sql) mod interval_distinct;
pub(in crate::sql) mod interval_extremes;
pub(in crate::sql) mod interval_sum;
pub(in crate::sql) mod joined_texts;
pub(in crate::sql) mod numeric_means;
pub(in crate::sql) mod sliding_floats;
pub(in crate::sql) mod sliding_statistics;
pub(in crate::sql) mod wanted_rows;
