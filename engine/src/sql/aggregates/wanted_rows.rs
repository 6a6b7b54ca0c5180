//! What accumulators of groups have in common: which of the rows that they are given count, and for which group.
//!
//! A row counts if it has a value and a filter, `sum(x) FILTER (WHERE …)`, is true for it. Mostly all rows do.

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray};
use arrow::compute::nullif;
use datafusion::error::Result;

/// Calls `add` with the group and the value of each row that counts.
pub(in crate::sql) fn each_wanted<T: ArrowPrimitiveType>(
    values: &ArrayRef,
    groups: &[usize],
    filter: Option<&BooleanArray>,
    mut add: impl FnMut(usize, T::Native),
) {
    let values = values.as_primitive::<T>();
    if filter.is_none() && values.null_count() == 0 {
        for (group, value) in groups.iter().zip(values.values()) {
            add(*group, *value);
        }
        return;
    }
    for (row, group) in groups.iter().enumerate() {
        let wanted = filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row));
        if wanted && values.is_valid(row) {
            add(*group, values.value(row));
        }
    }
}

/// Values as states of groups of one row each, NULL where a filter leaves the row out.
pub(in crate::sql) fn wanted_states(states: ArrayRef, filter: Option<&BooleanArray>) -> Result<ArrayRef> {
    let Some(filter) = filter else { return Ok(states) };
    // A filter that is NULL lets nothing through.
    let unwanted: BooleanArray = filter.iter().map(|wanted| Some(wanted != Some(true))).collect();
    Ok(nullif(&states, &unwanted)?)
}
