//! Queries: rows that belong together, in order, locked, and what is computed of them.

use std::cmp::Ordering;

use rustydb_storage::{FoundRow, Hindrance, LockWait, ReadView, Transaction};

use super::{Call, LOOKS_MAX, Outcome, RANGE_ROWS_MAX, Run, Stop, fulfils};
use crate::row_path::datum::Datum;
use crate::row_path::expression::{Decided, Inputs, Node, StoredRow, Undecided};
use crate::row_path::pipeline::TABLES_MAX;
use crate::row_path::program::{Lock, Select};
use crate::sql::grammar::lock::Busy;

/// For each table of a query, in the order in which they are read, which of its rows.
type Combination = [u32; TABLES_MAX];

/// Rows that were found, and which of them belong together.
#[derive(Default)]
struct Joined {
    /// For each table that was read.
    found: Vec<Vec<FoundRow>>,
    combinations: Vec<Combination>,
    /// How many rows were looked at, and keys that have none.
    looks: usize,
}

impl Joined {
    fn row(&self, table: usize, combination: &Combination) -> &FoundRow {
        &self.found[table][combination[table] as usize]
    }
}

impl Select {
    pub(super) fn run(&self, view: &ReadView, transaction: Option<&mut Transaction>, call: Call<'_>) -> Run<Outcome> {
        for condition in &self.conditions {
            if condition.truth(&call.inputs(&[], &[]))? != Some(true) {
                return self.finish_empty(call);
            }
        }
        let (skip, fetch) = (count(&self.skip, call)?.unwrap_or(0), count(&self.fetch, call)?);
        if self.tables.is_empty() {
            return self.finish(&Joined::default(), skip, fetch, call);
        }
        let mut joined = self.joined(view, skip, fetch, call)?;
        if !self.sort.is_empty() {
            self.sort(&mut joined, call)?;
        }
        if let (Some(lock), Some(transaction)) = (self.lock, transaction) {
            self.lock(&mut joined, lock, skip, fetch, transaction)?;
            return self.finish(&joined, 0, None, call);
        }
        self.finish(&joined, skip, fetch, call)
    }

    /// The rows that go together and fulfil all conditions.
    fn joined(&self, view: &ReadView, skip: usize, fetch: Option<usize>, call: Call<'_>) -> Run<Joined> {
        let Some(((_, table), others)) = self.tables.split_first() else { return Ok(Joined::default()) };
        let limit = fetch.filter(|_| self.limits_range).map(|fetch| fetch.saturating_add(skip));
        let first = table.rows(view, &[], limit, call)?;
        let combinations = Vec::with_capacity(first.len());
        let mut joined = Joined { combinations, looks: first.len(), found: vec![first] };
        for row in 0..joined.found[0].len() {
            let mut combination = Combination::default();
            combination[0] = row as u32;
            if self.with_rows(&joined, &combination, |rows| fulfils(&table.conditions, &call.inputs(rows, &[])))? {
                joined.combinations.push(combination);
            }
        }
        for (at, (_, table)) in others.iter().enumerate() {
            let at = at + 1;
            let shorter = std::mem::take(&mut joined.combinations);
            joined.found.push(Vec::with_capacity(shorter.len()));
            let mut hindrance = Hindrance::default();
            for mut combination in shorter {
                let wanted = self.with_rows(&joined, &combination, |rows| table.wanted(&call.inputs(rows, &[])))?;
                let Some(wanted) = wanted else { continue };
                let Some(found) = hindrance.pass(table.fetch(view, &wanted, None))? else { continue };
                let found = found.ok_or(Stop::LongRange)?;
                joined.looks += found.len().max(1);
                for found in found {
                    combination[at] = joined.found[at].len() as u32;
                    joined.found[at].push(found);
                    let fulfils = |rows: &[StoredRow<'_>]| fulfils(&table.conditions, &call.inputs(rows, &[]));
                    if self.with_rows(&joined, &combination, fulfils)? {
                        joined.combinations.push(combination);
                    } else {
                        joined.found[at].pop();
                    }
                }
                if joined.combinations.len() > RANGE_ROWS_MAX || joined.looks > LOOKS_MAX {
                    return Err(Stop::LongRange);
                }
            }
            hindrance.end()?;
        }
        Ok(joined)
    }

    /// Calls `use_rows` with the rows at their places in the FROM list. Those of tables that were not read are empty.
    fn with_rows<R>(
        &self,
        joined: &Joined,
        combination: &Combination,
        use_rows: impl FnOnce(&[StoredRow<'_>]) -> R,
    ) -> R {
        let Some((_, first)) = self.tables.first() else { return use_rows(&[]) };
        let mut rows = [first.stored_row(&[]); TABLES_MAX];
        for (at, (place, table)) in self.tables.iter().enumerate() {
            let found = joined.found.get(at).and_then(|found| found.get(combination[at] as usize));
            rows[*place] = table.stored_row(found.map_or(&[], |row| &row.bytes));
        }
        use_rows(&rows[..self.tables.len()])
    }

    fn sort(&self, joined: &mut Joined, call: Call<'_>) -> Run<()> {
        let mut keyed = Vec::with_capacity(joined.combinations.len());
        for one in &joined.combinations {
            let keys = self.with_rows(joined, one, |rows| {
                let inputs = call.inputs(rows, &[]);
                self.sort.iter().map(|key| key.node.evaluate(&inputs)).collect::<Decided<Vec<_>>>()
            });
            keyed.push((keys?, *one));
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
        joined.combinations = keyed.into_iter().map(|(_, one)| one).collect();
        if undecided { Err(Stop::Undecided) } else { Ok(()) }
    }

    /// Locks the rows that the statement returns, and leaves the others out.
    fn lock(
        &self,
        joined: &mut Joined,
        lock: Lock,
        skip: usize,
        fetch: Option<usize>,
        transaction: &mut Transaction,
    ) -> Run<()> {
        let Some((_, access)) = self.tables.first() else { return Ok(()) };
        let table = access.table.as_ref();
        if lock.busy == Busy::Skip {
            // Those that OFFSET leaves out are locked, too.
            let wanted = match fetch {
                Some(0) => 0,
                Some(fetch) => fetch.saturating_add(skip),
                None => usize::MAX,
            };
            let keys = joined.combinations.iter().map(|one| joined.row(0, one).key());
            let locked = transaction.lock_free_stored(table, keys, wanted, lock.lock)?;
            joined.combinations = locked.into_iter().skip(skip).map(|at| joined.combinations[at]).collect();
            return Ok(());
        }
        let combinations = std::mem::take(&mut joined.combinations).into_iter();
        joined.combinations = combinations.skip(skip).take(fetch.unwrap_or(usize::MAX)).collect();
        let keys: Vec<&[u8]> = joined.combinations.iter().map(|one| joined.row(0, one).key()).collect();
        let wait = (lock.busy == Busy::NoWait).then_some(LockWait::NoWait);
        Ok(transaction.lock_stored(table, &keys, lock.lock, wait)?)
    }

    fn finish_empty(&self, call: Call<'_>) -> Run<Outcome> {
        match &self.aggregates {
            Some(_) => {
                let (skip, fetch) = (count(&self.skip, call)?.unwrap_or(0), count(&self.fetch, call)?);
                self.finish(&Joined::default(), skip, fetch, call)
            }
            None => Ok(Outcome { count: 0, rows: Some(Vec::new()), looks: 0 }),
        }
    }

    fn finish(&self, joined: &Joined, skip: usize, fetch: Option<usize>, call: Call<'_>) -> Run<Outcome> {
        let fetch = fetch.unwrap_or(usize::MAX);
        let output = |inputs: &Inputs<'_>| -> Decided<Vec<Datum>> {
            self.output.iter().map(|node| node.evaluate(inputs)).collect()
        };
        let mut rows: Vec<Vec<Datum>> = Vec::new();
        match &self.aggregates {
            Some(aggregates) => {
                let mut states: Vec<_> = aggregates.iter().map(|aggregate| aggregate.start()).collect();
                for one in &joined.combinations {
                    self.with_rows(joined, one, |found| {
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
                for one in joined.combinations.iter().skip(skip).take(fetch) {
                    rows.push(self.with_rows(joined, one, |found| output(&call.inputs(found, &[])))?);
                }
            }
        }
        Ok(Outcome { count: rows.len() as u64, rows: Some(rows), looks: joined.looks })
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
