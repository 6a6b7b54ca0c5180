//! `avg` of numerics, to as many digits as a division gives.
//!
//! DataFusion's mean has four more digits after the point than the argument, cut off: of 1, 2 and 2 it is 1.6666. PostgreSQL
//! divides the sum by the count, and so does this, to 16 digits after the point: as many as PostgreSQL's quotient has from 1
//! to 10,000, and few enough for a product of two means. The sum is still DataFusion's, and so is what passes between the
//! stages of an aggregation; only the last step is another one.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Decimal128Builder};
use arrow::datatypes::{DataType, Decimal128Type, Decimal256Type, UInt64Type, i256};
use datafusion::common::{ScalarValue, internal_err};
use datafusion::error::Result;
use datafusion::logical_expr::function::AccumulatorArgs;
use datafusion::logical_expr::{Accumulator, EmitTo, GroupsAccumulator};

use crate::sql::rules::numeric_division::{SCALE_OF_LARGE, fitted, mean};

/// So many digits before the point are many.
const WIDE: i16 = 28;

/// The type of the mean of a numeric.
pub(in crate::sql) fn type_of_mean(argument: &DataType) -> Option<DataType> {
    let DataType::Decimal128(precision, scale @ 0..) = argument else { return None };
    let (precision, scale) = (i16::from(*precision), i16::from(*scale));
    let before_point = precision - scale;
    // Where that leaves little room, the digits before the point matter more.
    let after_point = if before_point > WIDE { scale + 4 } else { scale.max(SCALE_OF_LARGE) };
    let (precision, scale) = fitted(before_point, after_point)?;
    Some(DataType::Decimal128(precision, scale))
}

/// How a sum becomes a mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sql) struct Division {
    /// The digits after the point that the mean has more than the sum.
    shift: u32,
    precision: u8,
    scale: i8,
    /// Whether the state is a list of different values instead of a count and a sum.
    is_distinct: bool,
}

impl Division {
    /// `None`: it is no mean of numerics.
    pub(in crate::sql) fn of(arguments: &AccumulatorArgs) -> Option<Division> {
        let argument = arguments.expr_fields.first()?.data_type();
        match (argument, arguments.return_field.data_type()) {
            (DataType::Decimal128(_, from), DataType::Decimal128(precision, scale)) => {
                let shift = u32::try_from(i16::from(*scale) - i16::from(*from)).ok()?;
                Some(Division { shift, precision: *precision, scale: *scale, is_distinct: arguments.is_distinct })
            }
            _ => None,
        }
    }

    /// The means that counts and sums stand for.
    fn means(self, counts: &ArrayRef, sums: &ArrayRef) -> Result<ArrayRef> {
        let counts = counts.as_primitive::<UInt64Type>();
        let sum_of: Box<dyn Fn(usize) -> i256> = match sums.data_type() {
            DataType::Decimal128(..) => {
                let sums = sums.as_primitive::<Decimal128Type>();
                Box::new(move |row| i256::from_i128(sums.value(row)))
            }
            DataType::Decimal256(..) => {
                let sums = sums.as_primitive::<Decimal256Type>();
                Box::new(move |row| sums.value(row))
            }
            other => return internal_err!("a sum of numerics that is a {other}"),
        };
        let mut means = Decimal128Builder::with_capacity(sums.len());
        for row in 0..sums.len() {
            match sums.is_valid(row) && counts.is_valid(row) && counts.value(row) > 0 {
                true => means.append_value(mean(sum_of(row), counts.value(row), self.shift, self.precision)?),
                false => means.append_null(),
            }
        }
        Ok(Arc::new(means.finish().with_precision_and_scale(self.precision, self.scale)?))
    }

    /// The mean of a list of values.
    fn mean_of_list(self, values: &ScalarValue) -> Result<ScalarValue> {
        let ScalarValue::List(list) = values else { return internal_err!("different values that are no list") };
        let (mut sum, mut count) = (i256::ZERO, 0_u64);
        for values in list.iter().flatten() {
            for value in values.as_primitive::<Decimal128Type>().iter().flatten() {
                sum = sum.wrapping_add(i256::from_i128(value));
                count += 1;
            }
        }
        let mean = if count > 0 { Some(mean(sum, count, self.shift, self.precision)?) } else { None };
        Ok(ScalarValue::Decimal128(mean, self.precision, self.scale))
    }
}

/// The mean of one group.
#[derive(Debug)]
pub(in crate::sql) struct NumericMean {
    pub(in crate::sql) inner: Box<dyn Accumulator>,
    pub(in crate::sql) division: Division,
}

impl Accumulator for NumericMean {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.inner.update_batch(values)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.inner.retract_batch(values)
    }

    fn supports_retract_batch(&self) -> bool {
        self.inner.supports_retract_batch()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.inner.merge_batch(states)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.inner.state()
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        // It stays: a frame that slides asks again.
        let state = self.inner.state()?;
        match state.as_slice() {
            [values] if self.division.is_distinct => self.division.mean_of_list(values),
            [ScalarValue::UInt64(Some(count @ 1..)), ScalarValue::Decimal128(Some(sum), ..)] => {
                let Division { shift, precision, scale, .. } = self.division;
                let mean = mean(i256::from_i128(*sum), *count, shift, precision)?;
                Ok(ScalarValue::Decimal128(Some(mean), precision, scale))
            }
            [count, sum] => {
                let means = self.division.means(&count.to_array()?, &sum.to_array()?)?;
                ScalarValue::try_from_array(&means, 0)
            }
            _ => internal_err!("a mean is made of a count and a sum"),
        }
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.inner.size()
    }
}

/// The means of many groups.
pub(in crate::sql) struct NumericMeans {
    pub(in crate::sql) inner: Box<dyn GroupsAccumulator>,
    pub(in crate::sql) division: Division,
}

impl fmt::Debug for NumericMeans {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("NumericMeans").field("division", &self.division).finish_non_exhaustive()
    }
}

impl GroupsAccumulator for NumericMeans {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total_groups: usize,
    ) -> Result<()> {
        self.inner.update_batch(values, groups, filter, total_groups)
    }

    fn merge_batch(&mut self, states: &[ArrayRef], groups: &[usize], total_groups: usize) -> Result<()> {
        self.inner.merge_batch(states, groups, total_groups)
    }

    fn evaluate(&mut self, emit: EmitTo) -> Result<ArrayRef> {
        match self.inner.state(emit)?.as_slice() {
            [counts, sums] => self.division.means(counts, sums),
            _ => internal_err!("means are made of counts and sums"),
        }
    }

    fn state(&mut self, emit: EmitTo) -> Result<Vec<ArrayRef>> {
        self.inner.state(emit)
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        self.inner.convert_to_state(values, filter)
    }

    fn size(&self) -> usize {
        self.inner.size()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_have_16_digits_after_the_point_or_those_of_their_argument() {
        for (argument, mean) in
            [((5, 0), (21, 16)), ((10, 2), (24, 16)), ((38, 10), (38, 16)), ((38, 0), (38, 4)), ((38, 30), (38, 30))]
        {
            let wanted = DataType::Decimal128(mean.0, mean.1);
            assert_eq!(type_of_mean(&DataType::Decimal128(argument.0, argument.1)), Some(wanted), "{argument:?}");
        }
        assert_eq!(type_of_mean(&DataType::Float64), None);
        assert_eq!(type_of_mean(&DataType::Decimal128(5, -2)), None);
    }
}
