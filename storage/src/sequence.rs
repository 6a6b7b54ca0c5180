//! Sequences: numbers handed out once, whatever becomes of the transaction that asked.
//!
//! ```text
//!   state in memory:  value (the last one handed out) ──────────────► reserved
//!   in the log:       one record per reserve: "values up to `reserved` are gone"
//! ```
//!
//! A call that has to go beyond what is reserved logs a new reserve, and every call waits until the reserve its numbers
//! come from is durable. After a crash the sequence continues behind the reserve: it may skip numbers, and never hands
//! one out twice. Closing the store in order gives the unused ones back.

use std::collections::HashMap;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::log::{Claim, Log, Lsn, Operation, Record};
use crate::objects::ObjectId;

/// Numbers reserved with one record of the log, at least.
const RESERVED_VALUES: u64 = 32;

/// The rule by which a sequence counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SequenceSpec {
    /// The first value.
    pub start: i64,
    /// The step, not 0; negative to count down.
    pub increment: i64,
    /// The lowest value.
    pub minimum: i64,
    /// The highest value.
    pub maximum: i64,
    /// Whether it starts again at the other end.
    pub cycle: bool,
    /// Values to reserve at once.
    pub cache: u64,
}

/// Where a sequence stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SequenceState {
    /// The last value handed out, or the next one if none was.
    pub value: i64,
    /// Whether `value` was handed out.
    pub called: bool,
}

/// The durable form of a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SequenceRecord {
    pub(crate) id: ObjectId,
    pub(crate) state: SequenceState,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    now: SequenceState,
    /// As the log has it: at `now` or ahead of it.
    reserved: SequenceState,
    /// How many values there are between the two.
    left: u64,
    /// What must be durable before a value is handed out.
    lsn: Lsn,
}

/// The states of all sequences of a store that were ever used.
#[derive(Debug, Default)]
pub(crate) struct Sequences {
    entries: Mutex<HashMap<ObjectId, Entry>>,
}

impl SequenceSpec {
    /// The state after `state`, or `None` at the end.
    fn after(&self, state: SequenceState) -> Option<SequenceState> {
        if !state.called {
            return Some(SequenceState { value: state.value, called: true });
        }
        let next = state.value.checked_add(self.increment).filter(|next| (self.minimum..=self.maximum).contains(next));
        let value = match next {
            Some(next) => next,
            None if self.cycle && self.increment > 0 => self.minimum,
            None if self.cycle => self.maximum,
            None => return None,
        };
        Some(SequenceState { value, called: true })
    }
}

impl Sequences {
    pub(crate) fn restore(records: impl IntoIterator<Item = SequenceRecord>) -> Self {
        let entry = |state| Entry { now: state, reserved: state, left: 0, lsn: 0 };
        let entries = records.into_iter().map(|record| (record.id, entry(record.state))).collect();
        Sequences { entries: Mutex::new(entries) }
    }

    /// The reserves, as a manifest keeps them. Later than the log position the manifest stands for is fine: the records
    /// behind it say the same again.
    pub(crate) fn records(&self) -> Vec<SequenceRecord> {
        let entries = self.entries.lock();
        let mut records: Vec<SequenceRecord> =
            entries.iter().map(|(id, entry)| SequenceRecord { id: *id, state: entry.reserved }).collect();
        records.sort_by_key(|record| record.id);
        records
    }

    /// The exact states of sequences that have reserved more than they have handed out.
    pub(crate) fn unused(&self) -> Vec<SequenceRecord> {
        let entries = self.entries.lock();
        let ahead = entries.iter().filter(|(_, entry)| entry.now != entry.reserved);
        ahead.map(|(id, entry)| SequenceRecord { id: *id, state: entry.now }).collect()
    }

    pub(crate) fn state(&self, id: ObjectId, spec: &SequenceSpec) -> SequenceState {
        self.entries.lock().get(&id).map_or(SequenceState { value: spec.start, called: false }, |entry| entry.now)
    }

    /// The next `count` values, once they are durably gone. Blocks for the log if a new reserve is needed.
    pub(crate) fn next(&self, log: &Log, id: ObjectId, spec: &SequenceSpec, count: usize) -> Result<Vec<i64>> {
        let mut values = Vec::with_capacity(count);
        let lsn = {
            let mut entries = self.entries.lock();
            let start = SequenceState { value: spec.start, called: false };
            let entry = entries.entry(id).or_insert(Entry { now: start, reserved: start, left: 0, lsn: 0 });
            let (mut state, mut left) = (entry.now, entry.left);
            for _ in 0..count {
                state = spec.after(state).ok_or(Error::SequenceExhausted { upwards: spec.increment > 0 })?;
                left = left.saturating_sub(1);
                values.push(state.value);
            }
            if (count as u64) > entry.left {
                let (mut reserved, mut ahead) = (state, 0);
                while ahead < RESERVED_VALUES.max(spec.cache).min(1 << 20) {
                    let Some(next) = spec.after(reserved) else { break };
                    reserved = next;
                    ahead += 1;
                }
                entry.lsn = append(log, SequenceRecord { id, state: reserved })?;
                entry.reserved = reserved;
                left = ahead;
            }
            entry.now = state;
            entry.left = left;
            entry.lsn
        };
        wait(log.wait_durable(lsn))?;
        Ok(values)
    }

    /// Puts a sequence somewhere else, durably. Blocks for the log.
    pub(crate) fn set(&self, log: &Log, id: ObjectId, state: SequenceState) -> Result<()> {
        let lsn = {
            let mut entries = self.entries.lock();
            let lsn = append(log, SequenceRecord { id, state })?;
            entries.insert(id, Entry { now: state, reserved: state, left: 0, lsn });
            lsn
        };
        wait(log.wait_durable(lsn))
    }
}

/// Logs a state. Called with the entries locked, so that the log has the states in their order. The record is no commit
/// and carries no timestamp.
fn append(log: &Log, record: SequenceRecord) -> Result<Lsn> {
    let record = Record { timestamp: 0, operations: vec![Operation::Sequence(record)] };
    wait(log.append(&record, Claim::Ordinary))
}

/// Waits on this thread for what the log's does. The caller may be in the middle of a task that has had its turn: the runtime
/// would put that off until the task lets others have theirs, which it does not before this is there.
fn wait<T>(work: impl Future<Output = T>) -> T {
    futures::executor::block_on(tokio::task::coop::unconstrained(work))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(minimum: i64, maximum: i64, increment: i64, cycle: bool) -> SequenceSpec {
        let start = if increment > 0 { minimum } else { maximum };
        SequenceSpec { start, increment, minimum, maximum, cycle, cache: 1 }
    }

    fn walk(spec: SequenceSpec, steps: usize) -> Vec<Option<i64>> {
        let mut state = Some(SequenceState { value: spec.start, called: false });
        let step = |state: &mut Option<SequenceState>| {
            *state = state.and_then(|state| spec.after(state));
            state.map(|state| state.value)
        };
        (0..steps).map(|_| step(&mut state)).collect()
    }

    #[test]
    fn values_go_from_start_to_end_and_stop_or_begin_again() {
        assert_eq!(walk(spec(1, 3, 1, false), 4), [Some(1), Some(2), Some(3), None]);
        assert_eq!(walk(spec(1, 3, 2, true), 4), [Some(1), Some(3), Some(1), Some(3)]);
        assert_eq!(walk(spec(-3, -1, -2, true), 3), [Some(-1), Some(-3), Some(-1)]);
        assert_eq!(walk(spec(i64::MAX - 1, i64::MAX, 1, false), 3), [Some(i64::MAX - 1), Some(i64::MAX), None]);
    }
}
