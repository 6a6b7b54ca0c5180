//! Sums and averages of floats over window frames that slide.
//!
//! DataFusion subtracts what leaves a frame: a NaN or an infinity that has been in it stays for ever. Here they are
//! counted apart, and what rounding has lost is kept for the next sum (Neumaier's summation).

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{Float64Type, UInt64Type};
use datafusion::common::ScalarValue;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::Accumulator;

/// The sum or mean of the floats in a frame.
#[derive(Debug, Default)]
pub(in crate::sql) struct SlidingFloats {
    is_mean: bool,
    sum: f64,
    /// What the sum lacks.
    lost: f64,
    values: u64,
    not_numbers: u64,
    infinities: [u64; 2],
}

impl SlidingFloats {
    pub(in crate::sql) fn new(is_mean: bool) -> Self {
        SlidingFloats { is_mean, ..SlidingFloats::default() }
    }

    fn add(&mut self, value: f64) {
        let sum = self.sum + value;
        self.lost += match self.sum.abs() >= value.abs() {
            true => (self.sum - sum) + value,
            false => (value - sum) + self.sum,
        };
        self.sum = sum;
    }

    /// Where a value that cannot be subtracted is counted.
    fn special(&mut self, value: f64) -> Option<&mut u64> {
        match value {
            _ if value.is_nan() => Some(&mut self.not_numbers),
            f64::INFINITY => Some(&mut self.infinities[0]),
            f64::NEG_INFINITY => Some(&mut self.infinities[1]),
            _ => None,
        }
    }

    fn total(&self) -> f64 {
        match (self.not_numbers, self.infinities) {
            (0, [0, 0]) => self.sum + self.lost,
            (0, [_, 0]) => f64::INFINITY,
            (0, [0, _]) => f64::NEG_INFINITY,
            _ => f64::NAN,
        }
    }
}

impl Accumulator for SlidingFloats {
    fn update_batch(&mut self, values: &[ArrayRef]) -> DataFusionResult<()> {
        for value in values[0].as_primitive::<Float64Type>().iter().flatten() {
            self.values += 1;
            match self.special(value) {
                Some(count) => *count += 1,
                None => self.add(value),
            }
        }
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> DataFusionResult<()> {
        for value in values[0].as_primitive::<Float64Type>().iter().flatten() {
            self.values -= 1;
            match self.special(value) {
                Some(count) => *count -= 1,
                None => self.add(-value),
            }
        }
        if self.values == self.not_numbers + self.infinities[0] + self.infinities[1] {
            (self.sum, self.lost) = (0.0, 0.0);
        }
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    /// A frame is never computed in stages; the state is the sum and how many values it is of.
    fn merge_batch(&mut self, states: &[ArrayRef]) -> DataFusionResult<()> {
        let (sums, counts) = (states[0].as_primitive::<Float64Type>(), states[1].as_primitive::<UInt64Type>());
        for (sum, count) in sums.iter().zip(counts.iter()) {
            let (Some(sum), Some(count)) = (sum, count) else { continue };
            self.values += count;
            match self.special(sum) {
                Some(special) => *special += 1,
                None => self.add(sum),
            }
        }
        Ok(())
    }

    fn state(&mut self) -> DataFusionResult<Vec<ScalarValue>> {
        Ok(vec![ScalarValue::Float64(Some(self.total())), ScalarValue::UInt64(Some(self.values))])
    }

    fn evaluate(&mut self) -> DataFusionResult<ScalarValue> {
        let total = self.total();
        Ok(ScalarValue::Float64(match (self.values, self.is_mean) {
            (0, _) => None,
            (values, true) => Some(total / values as f64),
            (_, false) => Some(total),
        }))
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }
}
