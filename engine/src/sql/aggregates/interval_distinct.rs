//! `sum(DISTINCT …)` and `avg(DISTINCT …)` of intervals, of which those are equal that PostgreSQL's
//! [order](crate::sql::rules::interval_math::order) has in one place: one of `'1 day'` and `'24 hours'` is added.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, AsArray, IntervalMonthDayNanoArray};
use arrow::datatypes::{DataType, Field, FieldRef, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit};
use datafusion::common::ScalarValue;
use datafusion::common::utils::SingleRowListArrayBuilder;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility};

use super::interval_sum::Sum;
use crate::sql::rules::interval_math::order;

const INTERVAL: DataType = DataType::Interval(IntervalUnit::MonthDayNano);

static SUM: LazyLock<Arc<AggregateUDF>> = LazyLock::new(|| Arc::new(AggregateUDF::from(Total::new(false))));
static MEAN: LazyLock<Arc<AggregateUDF>> = LazyLock::new(|| Arc::new(AggregateUDF::from(Total::new(true))));

/// The sum, or the mean, of intervals that are not equal.
pub(in crate::sql) fn distinct_total(is_mean: bool) -> Arc<AggregateUDF> {
    Arc::clone(if is_mean { &MEAN } else { &SUM })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Total {
    is_mean: bool,
    signature: Signature,
}

impl Total {
    fn new(is_mean: bool) -> Total {
        Total { is_mean, signature: Signature::exact(vec![INTERVAL], Volatility::Immutable) }
    }
}

impl AggregateUDFImpl for Total {
    fn name(&self) -> &str {
        if self.is_mean { "interval_avg_distinct" } else { "interval_sum_distinct" }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _argument_types: &[DataType]) -> DataFusionResult<DataType> {
        Ok(INTERVAL)
    }

    fn state_fields(&self, arguments: StateFieldsArgs) -> DataFusionResult<Vec<FieldRef>> {
        let values = DataType::List(Arc::new(Field::new_list_field(INTERVAL, true)));
        Ok(vec![Arc::new(Field::new(format!("{}[values]", arguments.name), values, true))])
    }

    fn accumulator(&self, _arguments: AccumulatorArgs) -> DataFusionResult<Box<dyn Accumulator>> {
        Ok(Box::new(Values { is_mean: self.is_mean, known: HashMap::new() }))
    }
}

/// The values of one group, by what they are compared by.
#[derive(Debug)]
struct Values {
    is_mean: bool,
    known: HashMap<i128, IntervalMonthDayNano>,
}

impl Accumulator for Values {
    fn update_batch(&mut self, values: &[ArrayRef]) -> DataFusionResult<()> {
        for value in values[0].as_primitive::<IntervalMonthDayNanoType>().iter().flatten() {
            self.known.entry(order(value)).or_insert(value);
        }
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> DataFusionResult<()> {
        let lists = states[0].as_list::<i32>();
        lists.iter().flatten().try_for_each(|values| self.update_batch(&[values]))
    }

    fn state(&mut self) -> DataFusionResult<Vec<ScalarValue>> {
        let values: ArrayRef = Arc::new(IntervalMonthDayNanoArray::from_iter_values(self.known.values().copied()));
        Ok(vec![SingleRowListArrayBuilder::new(values).build_list_scalar()])
    }

    fn evaluate(&mut self) -> DataFusionResult<ScalarValue> {
        let mut sum = Sum::default();
        self.known.values().for_each(|value| sum.add(Sum::of(*value)));
        Ok(ScalarValue::IntervalMonthDayNano(sum.result(self.is_mean)?))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.known.capacity() * size_of::<(i128, IntervalMonthDayNano)>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_intervals_are_added_once() {
        const DAY: i64 = 86_400_000_000_000;
        let values = |values: Vec<(i32, i64)>| -> ArrayRef {
            let value = |(days, nanoseconds)| IntervalMonthDayNano::new(0, days, nanoseconds);
            Arc::new(IntervalMonthDayNanoArray::from_iter_values(values.into_iter().map(value)))
        };
        let mut first = Values { is_mean: false, known: HashMap::new() };
        first.update_batch(&[values(vec![(1, 0), (0, DAY), (2, 0)])]).unwrap();
        let state = first.state().unwrap()[0].to_array().unwrap();
        let mut second = Values { is_mean: false, known: HashMap::new() };
        second.update_batch(&[values(vec![(2, 0), (3, 0)])]).unwrap();
        second.merge_batch(&[state]).unwrap();
        let expected = ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano::new(0, 6, 0)));
        assert_eq!(second.evaluate().unwrap(), expected);
    }
}
