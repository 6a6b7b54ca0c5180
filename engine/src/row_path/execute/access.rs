//! Reading the rows of one table.

use rustydb_storage::{FoundRow, KeyRange, RangeWindow, ReadView};

use super::{Call, RANGE_ROWS_MAX, Run, Stop, fulfils};
use crate::row_path::access::{Access, Bound, KeyPart, Range, TableAccess};
use crate::row_path::datum::Datum;
use crate::row_path::expression::{Decided, Inputs, StoredRow};

/// The values of a key or range for one row of the tables before.
pub(super) enum Wanted {
    /// A NULL, or a value the column's type does not have, equals nothing.
    Nothing,
    Key(Vec<Datum>),
    Range {
        equal: Vec<Datum>,
        lower: End,
        upper: End,
    },
}

/// An end of a range: a value, and whether it belongs to the range.
pub(super) type End = Option<(Datum, bool)>;

fn part_value(part: &KeyPart, inputs: &Inputs<'_>) -> Decided<Option<Datum>> {
    let value = part.value.evaluate(inputs)?;
    match value.is_null() {
        true => Ok(None),
        false => Ok(part.narrowing.narrow(value, part.stored)),
    }
}

fn part_values(parts: &[KeyPart], inputs: &Inputs<'_>) -> Decided<Option<Vec<Datum>>> {
    parts.iter().map(|part| part_value(part, inputs)).collect()
}

/// `None` if the bound excludes everything. A value that the column's type does not have bounds nothing: the condition is
/// looked at for each row anyhow.
fn end_value(bound: &Option<Bound>, inputs: &Inputs<'_>) -> Decided<Option<End>> {
    let Some(Bound { part, inclusive }) = bound else { return Ok(Some(None)) };
    let value = part.value.evaluate(inputs)?;
    if value.is_null() {
        return Ok(None);
    }
    Ok(Some(part.narrowing.narrow(value, part.stored).map(|value| (value, *inclusive))))
}

impl TableAccess {
    pub(crate) fn stored_row<'a>(&'a self, bytes: &'a [u8]) -> StoredRow<'a> {
        StoredRow { table: &self.table, columns: &self.stored, bytes }
    }

    /// The rows for what is known before; conditions are still to be looked at.
    pub(super) async fn rows(
        &self,
        view: &ReadView,
        before: &[StoredRow<'_>],
        limit: Option<usize>,
        call: Call<'_>,
    ) -> Run<Vec<FoundRow>> {
        let wanted = self.wanted(&call.inputs(before, &[]))?;
        self.fetch(view, wanted, limit).await
    }

    pub(super) fn wanted(&self, inputs: &Inputs<'_>) -> Decided<Wanted> {
        Ok(match &self.access {
            Access::Key(parts) => part_values(parts, inputs)?.map_or(Wanted::Nothing, Wanted::Key),
            Access::Range(Range { equal, lower, upper, .. }) => {
                let ends = (part_values(equal, inputs)?, end_value(lower, inputs)?, end_value(upper, inputs)?);
                match ends {
                    (Some(equal), Some(lower), Some(upper)) => Wanted::Range { equal, lower, upper },
                    _ => Wanted::Nothing,
                }
            }
        })
    }

    pub(super) async fn fetch(&self, view: &ReadView, wanted: Wanted, limit: Option<usize>) -> Run<Vec<FoundRow>> {
        match (wanted, &self.access) {
            (Wanted::Key(values), Access::Key(parts)) => {
                let mut key = KeyRange::new(&self.table, None)?;
                push_all(&mut key, &values, parts)?;
                Ok(view.stored_row(&self.table, key.key(), &self.columns).await?.into_iter().collect())
            }
            (Wanted::Range { equal, lower, upper }, Access::Range(range)) => {
                let mut keys = KeyRange::new(&self.table, range.index)?;
                push_all(&mut keys, &equal, &range.equal)?;
                let bytes = |end: &End, bound: &Option<Bound>| -> Run<Option<(Vec<u8>, bool)>> {
                    let (Some((value, inclusive)), Some(bound)) = (end, bound) else { return Ok(None) };
                    let bytes = bound.part.stored.write(value, |raw| raw.unwrap_or_default().to_vec())?;
                    Ok(Some((bytes, *inclusive)))
                };
                let (lower, upper) = (bytes(&lower, &range.lower)?, bytes(&upper, &range.upper)?);
                if lower.is_some() || upper.is_some() {
                    keys.bound(
                        lower.as_ref().map(|(bytes, inclusive)| (bytes.as_slice(), *inclusive)),
                        upper.as_ref().map(|(bytes, inclusive)| (bytes.as_slice(), *inclusive)),
                    )?;
                } else if equal.is_empty() {
                    return Err(Stop::LongRange);
                }
                let limit = limit.unwrap_or(usize::MAX).min(range.limit.unwrap_or(usize::MAX));
                let window = RangeWindow { descending: range.descending, limit, rows_max: RANGE_ROWS_MAX };
                let found = view.stored_range(&self.table, &keys, window, &self.columns).await?;
                found.ok_or(Stop::LongRange)
            }
            _ => Ok(Vec::new()),
        }
    }

    /// The rows of an UPDATE or DELETE.
    pub(super) async fn targets(&self, view: &ReadView, call: Call<'_>) -> Run<Vec<FoundRow>> {
        let mut rows = self.rows(view, &[], None, call).await?;
        if !self.conditions.is_empty() {
            let mut kept = Vec::with_capacity(rows.len());
            for row in rows {
                if fulfils(&self.conditions, &call.inputs(&[self.stored_row(&row.bytes)], &[]))? {
                    kept.push(row);
                }
            }
            rows = kept;
        }
        Ok(rows)
    }
}

fn push_all(keys: &mut KeyRange<'_>, values: &[Datum], parts: &[KeyPart]) -> Run<()> {
    for (value, part) in values.iter().zip(parts) {
        part.stored.write(value, |raw| keys.push(raw))??;
    }
    Ok(())
}
