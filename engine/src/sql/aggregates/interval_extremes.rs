//! `min` and `max` of intervals over window frames, in PostgreSQL's order of intervals. DataFusion's go field by field.
//!
//! Where no window is, [`IntervalOrder`](crate::sql::rules::interval_order::IntervalOrder) takes the first value of that order,
//! but for what must not be computed twice.

use std::collections::VecDeque;
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit};
use datafusion::common::ScalarValue;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::function::AccumulatorArgs;
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility};

use crate::sql::rules::interval_math::order;

const INTERVAL: DataType = DataType::Interval(IntervalUnit::MonthDayNano);

static SHORTEST: LazyLock<Arc<AggregateUDF>> = LazyLock::new(|| Arc::new(AggregateUDF::from(Extreme::new(false))));
static LONGEST: LazyLock<Arc<AggregateUDF>> = LazyLock::new(|| Arc::new(AggregateUDF::from(Extreme::new(true))));

/// What stands for `min` or `max`; `None` for other aggregates.
pub(in crate::sql) fn extreme(name: &str) -> Option<Arc<AggregateUDF>> {
    match name {
        "min" => Some(Arc::clone(&SHORTEST)),
        "max" => Some(Arc::clone(&LONGEST)),
        _ => None,
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Extreme {
    is_longest: bool,
    signature: Signature,
}

impl Extreme {
    fn new(is_longest: bool) -> Extreme {
        Extreme { is_longest, signature: Signature::exact(vec![INTERVAL], Volatility::Immutable) }
    }
}

impl AggregateUDFImpl for Extreme {
    fn name(&self) -> &str {
        if self.is_longest { "interval_max" } else { "interval_min" }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _argument_types: &[DataType]) -> DataFusionResult<DataType> {
        Ok(INTERVAL)
    }

    fn accumulator(&self, _arguments: AccumulatorArgs) -> DataFusionResult<Box<dyn Accumulator>> {
        Ok(Box::new(Best::new(self.is_longest, false)))
    }

    fn create_sliding_accumulator(&self, _arguments: AccumulatorArgs) -> DataFusionResult<Box<dyn Accumulator>> {
        Ok(Box::new(Best::new(self.is_longest, true)))
    }
}

/// A value of a frame.
#[derive(Debug)]
struct Candidate {
    place: u64,
    order: i128,
    value: IntervalMonthDayNano,
}

/// The best value of a frame, and those after it that are the best once it has left.
#[derive(Debug)]
struct Best {
    is_longest: bool,
    /// Whether values leave the frame.
    slides: bool,
    candidates: VecDeque<Candidate>,
    /// How many values have come, and how many have left.
    come: u64,
    left: u64,
}

impl Best {
    fn new(is_longest: bool, slides: bool) -> Best {
        Best { is_longest, slides, candidates: VecDeque::new(), come: 0, left: 0 }
    }

    fn add(&mut self, value: IntervalMonthDayNano) {
        let (place, order, is_longest) = (self.come, order(value), self.is_longest);
        self.come += 1;
        let beaten = |other: &Candidate| if is_longest { order >= other.order } else { order <= other.order };
        while self.candidates.back().is_some_and(beaten) {
            self.candidates.pop_back();
        }
        if self.slides || self.candidates.is_empty() {
            self.candidates.push_back(Candidate { place, order, value });
        }
    }
}

impl Accumulator for Best {
    fn update_batch(&mut self, values: &[ArrayRef]) -> DataFusionResult<()> {
        for value in values[0].as_primitive::<IntervalMonthDayNanoType>().iter().flatten() {
            self.add(value);
        }
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> DataFusionResult<()> {
        self.left += (values[0].len() - values[0].null_count()) as u64;
        let left = self.left;
        while self.candidates.front().is_some_and(|candidate| candidate.place < left) {
            self.candidates.pop_front();
        }
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        self.slides
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> DataFusionResult<()> {
        self.update_batch(states)
    }

    fn state(&mut self) -> DataFusionResult<Vec<ScalarValue>> {
        Ok(vec![self.evaluate()?])
    }

    fn evaluate(&mut self) -> DataFusionResult<ScalarValue> {
        Ok(ScalarValue::IntervalMonthDayNano(self.candidates.front().map(|candidate| candidate.value)))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.candidates.capacity() * size_of::<Candidate>()
    }
}
