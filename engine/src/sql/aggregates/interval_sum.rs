//! `sum` and `avg` of intervals: months, days and time are each summed for themselves, as in PostgreSQL.
//!
//! DataFusion wraps around where a field does not fit, which 64 bits of nanoseconds do after 300 000 half days, and has no
//! average. Here totals are wider than their fields; a time that does not fit in the end goes to the days.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Decimal128Array, Int64Array, IntervalMonthDayNanoArray};
use arrow::datatypes::{
    DataType, Decimal128Type, Field, FieldRef, Int64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit,
};
use datafusion::common::ScalarValue;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{Accumulator, EmitTo, GroupsAccumulator};

use super::wanted_rows::{each_wanted, wanted_states};
use crate::error::sqlstate;
use crate::sql::rules::interval_math::scale;
use crate::{Error, Result};

const NANOSECONDS_PER_DAY: i128 = 86_400_000_000_000;
const NANOSECONDS_TYPE: DataType = DataType::Decimal128(38, 0);

/// Whether sums of this type are made here.
pub(in crate::sql) fn is_summed(data_type: &DataType) -> bool {
    *data_type == DataType::Interval(IntervalUnit::MonthDayNano)
}

/// What goes from one stage of an aggregation to the next.
pub(in crate::sql) fn state_fields(name: &str) -> Vec<FieldRef> {
    let field = |part: &str, data_type| Arc::new(Field::new(format!("{name}[{part}]"), data_type, false));
    vec![
        field("months", DataType::Int64),
        field("days", DataType::Int64),
        field("nanoseconds", NANOSECONDS_TYPE),
        field("values", DataType::Int64),
    ]
}

#[derive(Debug, Clone, Copy, Default)]
pub(in crate::sql) struct Sum {
    months: i64,
    days: i64,
    nanoseconds: i128,
    values: i64,
}

impl Sum {
    pub(in crate::sql) fn of(interval: IntervalMonthDayNano) -> Sum {
        Sum {
            months: interval.months.into(),
            days: interval.days.into(),
            nanoseconds: interval.nanoseconds.into(),
            values: 1,
        }
    }

    pub(in crate::sql) fn add(&mut self, other: Sum) {
        self.months += other.months;
        self.days += other.days;
        self.nanoseconds += other.nanoseconds;
        self.values += other.values;
    }

    fn subtract(&mut self, other: Sum) {
        self.months -= other.months;
        self.days -= other.days;
        self.nanoseconds -= other.nanoseconds;
        self.values -= other.values;
    }

    /// `None` if there were no values.
    pub(in crate::sql) fn result(self, is_mean: bool) -> Result<Option<IntervalMonthDayNano>> {
        if self.values == 0 {
            return Ok(None);
        }
        let out_of_range = || Error::new(sqlstate::DATETIME_OVERFLOW, "interval out of range");
        let small = |number: i128| i32::try_from(number).map_err(|_| out_of_range());
        let (days, time) = match i64::try_from(self.nanoseconds) {
            Ok(time) => (0, time),
            Err(_) => (self.nanoseconds / NANOSECONDS_PER_DAY, (self.nanoseconds % NANOSECONDS_PER_DAY) as i64),
        };
        let sum = IntervalMonthDayNano::new(small(self.months.into())?, small(days + i128::from(self.days))?, time);
        Ok(Some(if is_mean { scale(sum, self.values as f64, true)? } else { sum }))
    }
}

/// The sums in a batch of states.
fn sums_in(states: &[ArrayRef]) -> impl Iterator<Item = Sum> {
    let [months, days, values] = [0, 1, 3].map(|place| states[place].as_primitive::<Int64Type>());
    let nanoseconds = states[2].as_primitive::<Decimal128Type>();
    (0..months.len()).map(move |row| Sum {
        months: months.value(row),
        days: days.value(row),
        nanoseconds: nanoseconds.value(row),
        values: values.value(row),
    })
}

fn states_of(sums: &[Sum]) -> DataFusionResult<Vec<ArrayRef>> {
    let nanoseconds = Decimal128Array::from_iter_values(sums.iter().map(|sum| sum.nanoseconds));
    Ok(vec![
        Arc::new(Int64Array::from_iter_values(sums.iter().map(|sum| sum.months))),
        Arc::new(Int64Array::from_iter_values(sums.iter().map(|sum| sum.days))),
        Arc::new(nanoseconds.with_precision_and_scale(38, 0)?),
        Arc::new(Int64Array::from_iter_values(sums.iter().map(|sum| sum.values))),
    ])
}

/// The sum or mean of one group; values can be taken out again, for window frames that slide.
#[derive(Debug)]
pub(in crate::sql) struct IntervalTotal {
    is_mean: bool,
    sum: Sum,
}

impl IntervalTotal {
    pub(in crate::sql) fn new(is_mean: bool) -> IntervalTotal {
        IntervalTotal { is_mean, sum: Sum::default() }
    }
}

impl Accumulator for IntervalTotal {
    fn update_batch(&mut self, values: &[ArrayRef]) -> DataFusionResult<()> {
        for interval in values[0].as_primitive::<IntervalMonthDayNanoType>().iter().flatten() {
            self.sum.add(Sum::of(interval));
        }
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> DataFusionResult<()> {
        for interval in values[0].as_primitive::<IntervalMonthDayNanoType>().iter().flatten() {
            self.sum.subtract(Sum::of(interval));
        }
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> DataFusionResult<()> {
        sums_in(states).for_each(|sum| self.sum.add(sum));
        Ok(())
    }

    fn state(&mut self) -> DataFusionResult<Vec<ScalarValue>> {
        let Sum { months, days, nanoseconds, values } = self.sum;
        Ok(vec![
            ScalarValue::Int64(Some(months)),
            ScalarValue::Int64(Some(days)),
            ScalarValue::Decimal128(Some(nanoseconds), 38, 0),
            ScalarValue::Int64(Some(values)),
        ])
    }

    fn evaluate(&mut self) -> DataFusionResult<ScalarValue> {
        Ok(ScalarValue::IntervalMonthDayNano(self.sum.result(self.is_mean)?))
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }
}

/// The sums or means of many groups.
#[derive(Debug)]
pub(in crate::sql) struct IntervalTotals {
    is_mean: bool,
    sums: Vec<Sum>,
}

impl IntervalTotals {
    pub(in crate::sql) fn new(is_mean: bool) -> IntervalTotals {
        IntervalTotals { is_mean, sums: Vec::new() }
    }
}

impl GroupsAccumulator for IntervalTotals {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total_groups: usize,
    ) -> DataFusionResult<()> {
        self.sums.resize(total_groups, Sum::default());
        let add = |group: usize, interval| self.sums[group].add(Sum::of(interval));
        each_wanted::<IntervalMonthDayNanoType>(&values[0], groups, filter, add);
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef], groups: &[usize], total_groups: usize) -> DataFusionResult<()> {
        self.sums.resize(total_groups, Sum::default());
        for (group, sum) in groups.iter().zip(sums_in(states)) {
            self.sums[*group].add(sum);
        }
        Ok(())
    }

    fn evaluate(&mut self, emit: EmitTo) -> DataFusionResult<ArrayRef> {
        let sums = emit.take_needed(&mut self.sums);
        let totals: Vec<Option<IntervalMonthDayNano>> =
            sums.into_iter().map(|sum| sum.result(self.is_mean)).collect::<Result<_>>()?;
        Ok(Arc::new(IntervalMonthDayNanoArray::from(totals)))
    }

    fn state(&mut self, emit: EmitTo) -> DataFusionResult<Vec<ArrayRef>> {
        states_of(&emit.take_needed(&mut self.sums))
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> DataFusionResult<Vec<ArrayRef>> {
        let values = wanted_states(Arc::clone(&values[0]), filter)?;
        let values = values.as_primitive::<IntervalMonthDayNanoType>().iter();
        let sums: Vec<Sum> = values.map(|value| value.map(Sum::of).unwrap_or_default()).collect();
        states_of(&sums)
    }

    fn size(&self) -> usize {
        self.sums.capacity() * size_of::<Sum>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000_000_000;

    #[test]
    fn sums_of_times_beyond_64_bits_go_to_the_days() {
        let half_days: i128 = 1_000_000;
        let sum = Sum { months: 0, days: 0, nanoseconds: i128::from(12 * HOUR) * half_days, values: half_days as i64 };
        assert_eq!(sum.result(false).unwrap(), Some(IntervalMonthDayNano::new(0, 500_000, 0)));
        assert_eq!(sum.result(true).unwrap(), Some(IntervalMonthDayNano::new(0, 0, 12 * HOUR)));
        let days = Sum { days: 1 << 40, values: 1, ..Sum::default() };
        assert_eq!(days.result(false).unwrap_err().sqlstate(), "22008");
    }

    #[test]
    fn groups_give_what_single_totals_give() {
        let values: ArrayRef = Arc::new(IntervalMonthDayNanoArray::from(vec![
            Some(IntervalMonthDayNano::new(0, 1, 13 * HOUR)),
            None,
            Some(IntervalMonthDayNano::new(1, 0, 12 * HOUR)),
        ]));
        let mut first = IntervalTotals::new(false);
        first.update_batch(&[Arc::clone(&values)], &[0, 1, 0], None, 2).unwrap();
        let mut second = IntervalTotals::new(false);
        second.merge_batch(&first.state(EmitTo::All).unwrap(), &[0, 1], 2).unwrap();
        let filter = BooleanArray::from(vec![None, Some(true), Some(true)]);
        second.merge_batch(&second.convert_to_state(&[values], Some(&filter)).unwrap(), &[0, 1, 1], 2).unwrap();
        let totals = second.evaluate(EmitTo::All).unwrap();
        let totals = totals.as_primitive::<IntervalMonthDayNanoType>();
        assert_eq!(totals.value(0), IntervalMonthDayNano::new(1, 1, 25 * HOUR));
        assert_eq!(totals.value(1), IntervalMonthDayNano::new(1, 0, 12 * HOUR));
    }
}
