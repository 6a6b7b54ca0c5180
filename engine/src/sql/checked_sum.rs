//! `sum` of integers that fails when the total does not fit, instead of wrapping around as DataFusion's does.
//!
//! Totals are kept in 128 bits, also between the stages of an aggregation, so that only the result must fit 64: no order
//! of the rows makes a sum fail that another order would not. All other types are DataFusion's business.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, Int64Array, Int64Builder};
use arrow::compute::{cast, nullif};
use arrow::datatypes::{DataType, Decimal128Type, Field, FieldRef, Int64Type};
use datafusion::common::ScalarValue;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Documentation, EmitTo, GroupsAccumulator, ReversedUDAF,
    SetMonotonicity, Signature,
};

use crate::Error;
use crate::error::sqlstate;

/// Between stages: any sum of 2^63 64-bit integers.
const STATE_TYPE: DataType = DataType::Decimal128(38, 0);

/// Replaces `sum` among the aggregate functions.
pub(crate) fn checked(functions: impl IntoIterator<Item = Arc<AggregateUDF>>) -> Vec<Arc<AggregateUDF>> {
    functions
        .into_iter()
        .map(|function| match function.name() {
            "sum" => Arc::new(AggregateUDF::from(CheckedSum { inner: function })),
            _ => function,
        })
        .collect()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct CheckedSum {
    inner: Arc<AggregateUDF>,
}

fn is_ours(data_type: &DataType, distinct: bool) -> bool {
    *data_type == DataType::Int64 && !distinct
}

impl AggregateUDFImpl for CheckedSum {
    fn name(&self) -> &str {
        "sum"
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, argument_types: &[DataType]) -> DataFusionResult<DataType> {
        self.inner.inner().return_type(argument_types)
    }

    fn state_fields(&self, arguments: StateFieldsArgs) -> DataFusionResult<Vec<FieldRef>> {
        match is_ours(arguments.return_field.data_type(), arguments.is_distinct) {
            true => Ok(vec![Arc::new(Field::new(format!("{}[sum]", arguments.name), STATE_TYPE, true))]),
            false => self.inner.inner().state_fields(arguments),
        }
    }

    fn accumulator(&self, arguments: AccumulatorArgs) -> DataFusionResult<Box<dyn Accumulator>> {
        match is_ours(arguments.return_field.data_type(), arguments.is_distinct) {
            true => Ok(Box::new(Total::default())),
            false => self.inner.inner().accumulator(arguments),
        }
    }

    fn create_sliding_accumulator(&self, arguments: AccumulatorArgs) -> DataFusionResult<Box<dyn Accumulator>> {
        match is_ours(arguments.return_field.data_type(), arguments.is_distinct) {
            true => Ok(Box::new(Total::default())),
            false => self.inner.inner().create_sliding_accumulator(arguments),
        }
    }

    fn groups_accumulator_supported(&self, arguments: AccumulatorArgs) -> bool {
        self.inner.inner().groups_accumulator_supported(arguments)
    }

    fn create_groups_accumulator(&self, arguments: AccumulatorArgs) -> DataFusionResult<Box<dyn GroupsAccumulator>> {
        match is_ours(arguments.return_field.data_type(), arguments.is_distinct) {
            true => Ok(Box::new(Totals::default())),
            false => self.inner.inner().create_groups_accumulator(arguments),
        }
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.inner().documentation()
    }

    fn set_monotonicity(&self, data_type: &DataType) -> SetMonotonicity {
        self.inner.inner().set_monotonicity(data_type)
    }
}

fn as_bigint(total: i128) -> DataFusionResult<i64> {
    i64::try_from(total).map_err(|_| {
        Error::new(sqlstate::NUMERIC_OUT_OF_RANGE, "bigint out of range")
            .with_detail(format!("The sum is {total}."))
            .with_hint("Sum a numeric: sum(CAST(… AS numeric(38, 0))).")
            .into()
    })
}

/// The sum of one group; values can be taken out again, for window frames that slide.
#[derive(Debug, Default)]
struct Total {
    sum: i128,
    values: u64,
}

fn sum_of(values: &Int64Array) -> (i128, u64) {
    let count = (values.len() - values.null_count()) as u64;
    let sum = match values.null_count() {
        0 => values.values().iter().map(|value| i128::from(*value)).sum(),
        _ => values.iter().flatten().map(i128::from).sum(),
    };
    (sum, count)
}

impl Accumulator for Total {
    fn update_batch(&mut self, values: &[ArrayRef]) -> DataFusionResult<()> {
        let (sum, count) = sum_of(values[0].as_primitive::<Int64Type>());
        self.sum += sum;
        self.values += count;
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> DataFusionResult<()> {
        let (sum, count) = sum_of(values[0].as_primitive::<Int64Type>());
        self.sum -= sum;
        self.values -= count;
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> DataFusionResult<()> {
        let sums = states[0].as_primitive::<Decimal128Type>();
        self.sum += sums.iter().flatten().sum::<i128>();
        self.values += (sums.len() - sums.null_count()) as u64;
        Ok(())
    }

    fn state(&mut self) -> DataFusionResult<Vec<ScalarValue>> {
        Ok(vec![ScalarValue::Decimal128((self.values > 0).then_some(self.sum), 38, 0)])
    }

    fn evaluate(&mut self) -> DataFusionResult<ScalarValue> {
        match self.values {
            0 => Ok(ScalarValue::Int64(None)),
            _ => Ok(ScalarValue::Int64(Some(as_bigint(self.sum)?))),
        }
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }
}

/// The sums of many groups.
#[derive(Debug, Default)]
struct Totals {
    sums: Vec<i128>,
    /// Whether the group has had a value.
    seen: Vec<bool>,
}

impl Totals {
    fn grow(&mut self, groups: usize) {
        self.sums.resize(groups, 0);
        self.seen.resize(groups, false);
    }

    fn add(&mut self, group: usize, value: i128) {
        self.sums[group] += value;
        self.seen[group] = true;
    }

    fn take(&mut self, emit: EmitTo) -> (Vec<i128>, Vec<bool>) {
        (emit.take_needed(&mut self.sums), emit.take_needed(&mut self.seen))
    }
}

impl GroupsAccumulator for Totals {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total_groups: usize,
    ) -> DataFusionResult<()> {
        self.grow(total_groups);
        let values = values[0].as_primitive::<Int64Type>();
        if filter.is_none() && values.null_count() == 0 {
            for (group, value) in groups.iter().zip(values.values()) {
                self.add(*group, i128::from(*value));
            }
            return Ok(());
        }
        for (row, group) in groups.iter().enumerate() {
            let wanted = filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row));
            if wanted && values.is_valid(row) {
                self.add(*group, i128::from(values.value(row)));
            }
        }
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef], groups: &[usize], total_groups: usize) -> DataFusionResult<()> {
        self.grow(total_groups);
        let sums = states[0].as_primitive::<Decimal128Type>();
        for (row, group) in groups.iter().enumerate() {
            if sums.is_valid(row) {
                self.add(*group, sums.value(row));
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, emit: EmitTo) -> DataFusionResult<ArrayRef> {
        let (sums, seen) = self.take(emit);
        let mut totals = Int64Builder::with_capacity(sums.len());
        for (sum, seen) in sums.into_iter().zip(seen) {
            totals.append_option(if seen { Some(as_bigint(sum)?) } else { None });
        }
        Ok(Arc::new(totals.finish()))
    }

    fn state(&mut self, emit: EmitTo) -> DataFusionResult<Vec<ArrayRef>> {
        let (sums, seen) = self.take(emit);
        let sums = sums.into_iter().zip(seen).map(|(sum, seen)| seen.then_some(sum));
        let sums: Decimal128Array = sums.collect();
        Ok(vec![Arc::new(sums.with_precision_and_scale(38, 0)?)])
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> DataFusionResult<Vec<ArrayRef>> {
        let states = cast(&values[0], &STATE_TYPE)?;
        Ok(vec![match filter {
            None => states,
            Some(filter) => {
                // A filter that is NULL lets nothing through.
                let unwanted: BooleanArray = filter.iter().map(|wanted| Some(wanted != Some(true))).collect();
                nullif(&states, &unwanted)?
            }
        }])
    }

    fn size(&self) -> usize {
        self.sums.capacity() * size_of::<i128>() + self.seen.capacity()
    }
}
