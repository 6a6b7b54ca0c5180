//! Queries: rows that belong together, in order, locked, and what is computed of them.

use std::cmp::Ordering;
use std::sync::Arc;

use rustydb_storage::{FoundRow, LockWait, ReadView, Transaction};

use super::{Call, Outcome, RANGE_ROWS_MAX, Run, Stop, fulfils};
use crate::row_path::datum::Datum;
use crate::row_path::expression::{Decided, Inputs, Node, StoredRow, Undecided};
use crate::row_path::program::{Lock, Select};
use crate::row_path::result::DataRows;
use crate::sql::lock_syntax::Busy;

/// The rows of the tables of a query that belong together, in the order in which they are read.
struct Joined {
    first: FoundRow,
    rest: Vec<FoundRow>,
}

impl Select {
    pub(super) async fn run(
        &self,
        view: &ReadView,
        transaction: Option<&mut Transaction>,
        call: Call<'_>,
    ) -> Run<Outcome> {
        for condition in &self.conditions {
            if condition.truth(&call.inputs(&[], &[]))? != Some(true) {
                return self.finish_empty(call);
            }
        }
        let (skip, fetch) = (count(&self.skip, call)?.unwrap_or(0), count(&self.fetch, call)?);
        if self.tables.is_empty() {
            return self.finish(&[], skip, fetch, call);
        }
        let mut joined = self.joined(view, skip, fetch, call).await?;
        if !self.sort.is_empty() {
            joined = self.sorted(joined, call)?;
        }
        if let (Some(lock), Some(transaction)) = (self.lock, transaction) {
            // Whoever locks has no other view while it changes its locks.
            joined = self.lock(joined, lock, skip, fetch, transaction).await?;
            return self.finish(&joined, 0, None, call);
        }
        self.finish(&joined, skip, fetch, call)
    }

    /// The rows that go together and fulfil all conditions.
    async fn joined(&self, view: &ReadView, skip: usize, fetch: Option<usize>, call: Call<'_>) -> Run<Vec<Joined>> {
        let Some(((_, table), others)) = self.tables.split_first() else { return Ok(Vec::new()) };
        let limit = fetch.filter(|_| self.limits_range).map(|fetch| fetch.saturating_add(skip));
        let mut joined: Vec<Joined> = Vec::new();
        for first in table.rows(view, &[], limit, call).await? {
            let one = Joined { first, rest: Vec::new() };
            if self.with_rows(&one, |rows| fulfils(&table.conditions, &call.inputs(rows, &[])))? {
                joined.push(one);
            }
        }
        for (_, table) in others {
            let mut longer = Vec::with_capacity(joined.len());
            for one in joined {
                let key = self.with_rows(&one, |rows| table.wanted(&call.inputs(rows, &[])))?;
                for found in table.fetch(view, key, None).await? {
                    let mut rest = one.rest.clone();
                    rest.push(found);
                    let next = Joined { first: one.first.clone(), rest };
                    if self.with_rows(&next, |rows| fulfils(&table.conditions, &call.inputs(rows, &[])))? {
                        longer.push(next);
                    }
                }
                if longer.len() > RANGE_ROWS_MAX {
                    return Err(Stop::LongRange);
                }
            }
            joined = longer;
        }
        Ok(joined)
    }

    /// Calls `use_rows` with the rows at their places in the FROM list.
    fn with_rows<R>(&self, joined: &Joined, use_rows: impl FnOnce(&[StoredRow<'_>]) -> R) -> R {
        let found = std::iter::once(&joined.first).chain(&joined.rest);
        if let [(_, table)] = self.tables.as_slice() {
            return use_rows(&[table.stored_row(&joined.first.bytes)]);
        }
        let mut rows: Vec<StoredRow<'_>> = self.tables.iter().map(|(_, table)| table.stored_row(&[])).collect();
        for ((place, table), row) in self.tables.iter().zip(found) {
            rows[*place] = table.stored_row(&row.bytes);
        }
        use_rows(&rows)
    }

    fn sorted(&self, joined: Vec<Joined>, call: Call<'_>) -> Run<Vec<Joined>> {
        let mut keyed = Vec::with_capacity(joined.len());
        for one in joined {
            let keys = self.with_rows(&one, |rows| {
                let inputs = call.inputs(rows, &[]);
                self.sort.iter().map(|key| key.node.evaluate(&inputs)).collect::<Decided<Vec<_>>>()
            });
            keyed.push((keys?, one));
        }
        let mut undecided = false;
        keyed.sort_by(|(left, _), (right, _)| {
            for ((key, left), right) in self.sort.iter().zip(left).zip(right) {
                let order = match (left.is_null(), right.is_null()) {
                    (true, true) => Ordering::Equal,
                    (true, false) if key.nulls_first => Ordering::Less,
                    (true, false) => Ordering::Greater,
                    (false, true) if key.nulls_first => Ordering::Greater,
                    (false, true) => Ordering::Less,
                    (false, false) => match key.class.compare(left, right) {
                        Ok(Some(order)) if key.descending => order.reverse(),
                        Ok(Some(order)) => order,
                        _ => {
                            undecided = true;
                            Ordering::Equal
                        }
                    },
                };
                if order.is_ne() {
                    return order;
                }
            }
            Ordering::Equal
        });
        match undecided {
            true => Err(Stop::Undecided),
            false => Ok(keyed.into_iter().map(|(_, one)| one).collect()),
        }
    }

    /// Locks the rows that the statement returns.
    async fn lock(
        &self,
        joined: Vec<Joined>,
        lock: Lock,
        skip: usize,
        fetch: Option<usize>,
        transaction: &mut Transaction,
    ) -> Run<Vec<Joined>> {
        let Some((_, access)) = self.tables.first() else { return Ok(joined) };
        let table = access.table.as_ref();
        if lock.busy == Busy::Skip {
            let mut got = Vec::new();
            let mut skipped = 0;
            for one in joined {
                if fetch.is_some_and(|fetch| got.len() >= fetch) {
                    break;
                }
                if !transaction.try_lock_stored(table, one.first.key(), lock.lock).await? {
                    continue;
                }
                match skipped < skip {
                    true => skipped += 1,
                    false => got.push(one),
                }
            }
            return Ok(got);
        }
        let wanted: Vec<Joined> = joined.into_iter().skip(skip).take(fetch.unwrap_or(usize::MAX)).collect();
        let keys: Vec<&[u8]> = wanted.iter().map(|one| one.first.key()).collect();
        let wait = (lock.busy == Busy::NoWait).then_some(LockWait::NoWait);
        transaction.lock_stored(table, &keys, lock.lock, wait).await?;
        Ok(wanted)
    }

    fn finish_empty(&self, call: Call<'_>) -> Run<Outcome> {
        match &self.aggregates {
            Some(_) => {
                let (skip, fetch) = (count(&self.skip, call)?.unwrap_or(0), count(&self.fetch, call)?);
                self.finish(&[], skip, fetch, call)
            }
            None => Ok(self.outcome(Vec::new())),
        }
    }

    fn finish(&self, joined: &[Joined], skip: usize, fetch: Option<usize>, call: Call<'_>) -> Run<Outcome> {
        let fetch = fetch.unwrap_or(usize::MAX);
        let output = |inputs: &Inputs<'_>| -> Decided<Vec<Datum>> {
            self.output.iter().map(|node| node.evaluate(inputs)).collect()
        };
        let mut rows: Vec<Vec<Datum>> = Vec::new();
        match &self.aggregates {
            Some(aggregates) => {
                let mut states: Vec<_> = aggregates.iter().map(|aggregate| aggregate.start()).collect();
                for one in joined {
                    self.with_rows(one, |found| {
                        let inputs = call.inputs(found, &[]);
                        let mut pairs = aggregates.iter().zip(&mut states);
                        pairs.try_for_each(|(aggregate, state)| aggregate.add(state, &inputs))
                    })?;
                }
                let values = aggregates.iter().zip(states).map(|(aggregate, state)| aggregate.finish(state));
                let values = values.collect::<Decided<Vec<_>>>()?;
                if skip == 0 && fetch > 0 {
                    rows.push(output(&call.inputs(&[], &values))?);
                }
            }
            None if self.tables.is_empty() => {
                if skip == 0 && fetch > 0 {
                    rows.push(output(&call.inputs(&[], &[]))?);
                }
            }
            None => {
                for one in joined.iter().skip(skip).take(fetch) {
                    rows.push(self.with_rows(one, |found| output(&call.inputs(found, &[])))?);
                }
            }
        }
        Ok(self.outcome(rows))
    }

    fn outcome(&self, rows: Vec<Vec<Datum>>) -> Outcome {
        Outcome { count: rows.len() as u64, rows: Some(DataRows { schema: Arc::clone(&self.schema), rows }) }
    }
}

/// LIMIT or OFFSET.
fn count(node: &Option<Node>, call: Call<'_>) -> Decided<Option<usize>> {
    match node.as_ref().map(|node| node.evaluate(&call.inputs(&[], &[]))).transpose()? {
        None | Some(Datum::Null) => Ok(None),
        Some(Datum::Int(count)) => usize::try_from(count).map(Some).map_err(|_| Undecided),
        Some(_) => Err(Undecided),
    }
}
