//! `sum` of decimals that fails when the total has more than 38 digits, instead of wrapping around as DataFusion's does.
//!
//! A sum has ten digits more than its summands, which no table fills; only where that would be more than 38 digits can a
//! total not fit, and only such sums are these. A total that does not fit in between fails, too, even if what follows
//! would have made it smaller.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Decimal128Array};
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Decimal128Type};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::{Accumulator, EmitTo, GroupsAccumulator};

use super::wanted_rows::{each_wanted, wanted_states};
use crate::Error;
use crate::error::sqlstate;

/// The first number that has too many digits.
const LIMIT: u128 = 10_u128.pow(DECIMAL128_MAX_PRECISION as u32);

/// The scale of a sum that might not fit.
pub(in crate::sql) fn scale_of(sum: &DataType) -> Option<i8> {
    match sum {
        DataType::Decimal128(DECIMAL128_MAX_PRECISION, scale) => Some(*scale),
        _ => None,
    }
}

fn checked(sum: i128, overflowed: bool) -> Result<i128> {
    if overflowed || sum.unsigned_abs() >= LIMIT {
        let error = Error::new(sqlstate::NUMERIC_OUT_OF_RANGE, "numeric out of range")
            .with_detail("The sum has more than 38 digits.")
            .with_hint("Sum fewer digits: sum(CAST(… AS numeric(28, 2))).");
        return Err(error.into());
    }
    Ok(sum)
}

/// The sum of one group; values can be taken out again, for window frames that slide.
#[derive(Debug)]
pub(in crate::sql) struct DecimalTotal {
    scale: i8,
    sum: i128,
    values: u64,
    overflowed: bool,
}

impl DecimalTotal {
    pub(in crate::sql) fn new(scale: i8) -> DecimalTotal {
        DecimalTotal { scale, sum: 0, values: 0, overflowed: false }
    }

    fn change(&mut self, values: &ArrayRef, add: impl Fn(i128, i128) -> (i128, bool)) {
        for value in values.as_primitive::<Decimal128Type>().iter().flatten() {
            let (sum, overflowed) = add(self.sum, value);
            self.sum = sum;
            self.overflowed |= overflowed;
        }
    }

    fn total(&self) -> Result<ScalarValue> {
        let total = if self.values > 0 { Some(checked(self.sum, self.overflowed)?) } else { None };
        Ok(ScalarValue::Decimal128(total, DECIMAL128_MAX_PRECISION, self.scale))
    }
}

fn value_count(values: &ArrayRef) -> u64 {
    (values.len() - values.null_count()) as u64
}

impl Accumulator for DecimalTotal {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.change(&values[0], i128::overflowing_add);
        self.values += value_count(&values[0]);
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.change(&values[0], i128::overflowing_sub);
        self.values -= value_count(&values[0]);
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.update_batch(states)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.total()?])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.total()
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }
}

/// The sums of many groups.
#[derive(Debug)]
pub(in crate::sql) struct DecimalTotals {
    scale: i8,
    sums: Vec<i128>,
    /// Whether the group has had a value.
    seen: Vec<bool>,
    overflowed: bool,
}

impl DecimalTotals {
    pub(in crate::sql) fn new(scale: i8) -> DecimalTotals {
        DecimalTotals { scale, sums: Vec::new(), seen: Vec::new(), overflowed: false }
    }

    fn add(&mut self, group: usize, value: i128) {
        let (sum, overflowed) = self.sums[group].overflowing_add(value);
        self.sums[group] = sum;
        self.seen[group] = true;
        self.overflowed |= overflowed;
    }

    fn totals(&mut self, emit: EmitTo) -> Result<ArrayRef> {
        let (sums, seen) = (emit.take_needed(&mut self.sums), emit.take_needed(&mut self.seen));
        let totals = sums.into_iter().zip(seen);
        let totals = totals.map(|(sum, seen)| checked(sum, self.overflowed).map(|sum| seen.then_some(sum)));
        let totals = totals.collect::<Result<Decimal128Array>>()?;
        Ok(Arc::new(totals.with_precision_and_scale(DECIMAL128_MAX_PRECISION, self.scale)?))
    }
}

impl GroupsAccumulator for DecimalTotals {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total_groups: usize,
    ) -> Result<()> {
        self.sums.resize(total_groups, 0);
        self.seen.resize(total_groups, false);
        each_wanted::<Decimal128Type>(&values[0], groups, filter, |group, value| self.add(group, value));
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef], groups: &[usize], total_groups: usize) -> Result<()> {
        self.update_batch(states, groups, None, total_groups)
    }

    fn evaluate(&mut self, emit: EmitTo) -> Result<ArrayRef> {
        self.totals(emit)
    }

    fn state(&mut self, emit: EmitTo) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.totals(emit)?])
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let values = values[0].as_primitive::<Decimal128Type>().clone();
        let states: ArrayRef = Arc::new(values.with_precision_and_scale(DECIMAL128_MAX_PRECISION, self.scale)?);
        Ok(vec![wanted_states(states, filter)?])
    }

    fn size(&self) -> usize {
        self.sums.capacity() * size_of::<i128>() + self.seen.capacity()
    }
}
