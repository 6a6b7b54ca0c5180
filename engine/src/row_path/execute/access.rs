//! Reading the rows of one table.

use rustydb_storage::{Attempt, FoundRow, KeyRange, RangeWindow, ReadView};

use super::{Call, RANGE_ROWS_MAX, Run, Stop, fulfils};
use crate::row_path::access::{Access, Bound, KeyPart, TableAccess};
use crate::row_path::expression::{Inputs, StoredRow};

/// Puts the values of leading columns into a range. `false`: a NULL, or a value the column's type does not have, equals
/// nothing.
fn push_all(keys: &mut KeyRange<'_>, parts: &[KeyPart], inputs: &Inputs<'_>) -> Run<bool> {
    for part in parts {
        let value = part.value.evaluate(inputs)?;
        if value.is_null() {
            return Ok(false);
        }
        let Some(value) = part.narrowing.narrow(value, part.stored) else { return Ok(false) };
        part.stored.write(&value, |raw| keys.push(raw))??;
    }
    Ok(true)
}

/// An end of a range: a value as rows have it, and whether it belongs to the range.
type End = Option<(Vec<u8>, bool)>;

fn borrowed(end: &End) -> Option<(&[u8], bool)> {
    end.as_ref().map(|(bytes, inclusive)| (bytes.as_slice(), *inclusive))
}

/// `None` if the bound excludes everything. A value that the column's type does not have bounds nothing: the condition is
/// looked at for each row anyhow.
fn end_value(bound: &Option<Bound>, inputs: &Inputs<'_>) -> Run<Option<End>> {
    let Some(Bound { part, inclusive }) = bound else { return Ok(Some(None)) };
    let value = part.value.evaluate(inputs)?;
    if value.is_null() {
        return Ok(None);
    }
    let Some(value) = part.narrowing.narrow(value, part.stored) else { return Ok(Some(None)) };
    let bytes = part.stored.write(&value, |raw| raw.unwrap_or_default().to_vec())?;
    Ok(Some(Some((bytes, *inclusive))))
}

impl TableAccess {
    pub(crate) fn stored_row<'a>(&'a self, bytes: &'a [u8]) -> StoredRow<'a> {
        StoredRow { table: &self.table, columns: &self.stored, bytes }
    }

    /// The rows for what is known before; conditions are still to be looked at.
    pub(super) fn rows(
        &self,
        view: &ReadView,
        before: &[StoredRow<'_>],
        limit: Option<usize>,
        call: Call<'_>,
    ) -> Run<Vec<FoundRow>> {
        match self.wanted(&call.inputs(before, &[]))? {
            Some(wanted) => self.fetch(view, &wanted, limit)?.ok_or(Stop::LongRange),
            None => Ok(Vec::new()),
        }
    }

    /// The key or range for one row of the tables before; `None`: there are no rows for it.
    pub(super) fn wanted(&self, inputs: &Inputs<'_>) -> Run<Option<KeyRange<'_>>> {
        let (index, equal) = match &self.access {
            Access::Key(parts) => (None, parts),
            Access::Range(range) => (range.index, &range.equal),
        };
        let mut keys = KeyRange::new(&self.table, index)?;
        if !push_all(&mut keys, equal, inputs)? {
            return Ok(None);
        }
        let Access::Range(range) = &self.access else { return Ok(Some(keys)) };
        let (Some(lower), Some(upper)) = (end_value(&range.lower, inputs)?, end_value(&range.upper, inputs)?) else {
            return Ok(None);
        };
        if lower.is_some() || upper.is_some() {
            keys.bound(borrowed(&lower), borrowed(&upper))?;
        } else if equal.is_empty() {
            return Err(Stop::LongRange);
        }
        Ok(Some(keys))
    }

    /// The rows of a key or range; `None`: there are too many.
    pub(super) fn fetch(
        &self,
        view: &ReadView,
        wanted: &KeyRange<'_>,
        limit: Option<usize>,
    ) -> Attempt<Option<Vec<FoundRow>>> {
        match &self.access {
            Access::Key(_) => {
                Ok(Some(view.stored_row(&self.table, wanted.key(), &self.columns)?.into_iter().collect()))
            }
            Access::Range(range) => {
                let limit = limit.unwrap_or(usize::MAX).min(range.limit.unwrap_or(usize::MAX));
                let window = RangeWindow { descending: range.descending, limit, rows_max: RANGE_ROWS_MAX };
                view.stored_range(&self.table, wanted, window, &self.columns)
            }
        }
    }

    /// The rows of an UPDATE or DELETE, and among how many they were found.
    pub(super) fn targets(&self, view: &ReadView, call: Call<'_>) -> Run<(Vec<FoundRow>, usize)> {
        let mut rows = self.rows(view, &[], None, call)?;
        let looks = rows.len();
        if !self.conditions.is_empty() {
            let mut kept = Vec::with_capacity(rows.len());
            for row in rows {
                if fulfils(&self.conditions, &call.inputs(&[self.stored_row(&row.bytes)], &[]))? {
                    kept.push(row);
                }
            }
            rows = kept;
        }
        Ok((rows, looks))
    }
}
