//! `sum` of integers that fails when the total does not fit, instead of wrapping around as DataFusion's does.
//!
//! Totals are kept in 128 bits, also between the stages of an aggregation, so that only the result must fit 64: no order
//! of the rows makes a sum fail that another order would not. Unsigned integers are summed alike, and so are different
//! values (`sum(DISTINCT …)`), which are kept until the end. Wide decimals are [`checked_decimals`](super::checked_decimals)'s
//! business, means of decimals [`numeric_means`](super::numeric_means)', intervals [`interval_sum`](super::interval_sum)'s, all
//! other types DataFusion's.

use std::collections::HashSet;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, Decimal128Array, PrimitiveArray, PrimitiveBuilder,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, Field, FieldRef, Int64Type, IntervalUnit, UInt64Type};
use datafusion::common::ScalarValue;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, Coercion, EmitTo, GroupsAccumulator, ReversedUDAF, Signature, TypeSignature,
    TypeSignatureClass,
};

use super::changed_aggregates::{Change, changed};
use super::checked_decimals::{DecimalTotal, DecimalTotals, scale_of};
use super::interval_sum::{self, IntervalTotal, IntervalTotals, is_summed};
use super::joined_texts::JoinedTexts;
use super::numeric_means::{Division, NumericMean, NumericMeans, type_of_mean};
use super::sliding_floats::SlidingFloats;
use super::sliding_statistics::sliding;
use super::wanted_rows::{each_wanted, wanted_states};
use crate::Error;
use crate::error::sqlstate;

/// Between stages: any sum of 2^63 64-bit integers.
const STATE_TYPE: DataType = DataType::Decimal128(38, 0);

/// Replaces `sum` and others among the aggregate functions.
pub(crate) fn checked(functions: impl IntoIterator<Item = Arc<AggregateUDF>>) -> Vec<Arc<AggregateUDF>> {
    functions
        .into_iter()
        .map(|function| match function.name() {
            // Averages for what sums of floats are over frames that slide.
            "sum" | "avg" => {
                let change = CheckedSum::of(&function);
                changed(function, change)
            }
            "string_agg" => changed(function, JoinedTexts),
            // PostgreSQL's other names of them.
            "bool_and" => Arc::new(function.as_ref().clone().with_aliases(["every"])),
            // Inside: what gives DataFusion's function another name passes frames that slide by.
            "var" => sliding(Arc::new(function.as_ref().clone().with_aliases(["variance"]))),
            _ => sliding(function),
        })
        .collect()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct CheckedSum {
    is_mean: bool,
    signature: Signature,
}

/// The integers whose sums are ours.
trait Summand:
    Send + Sync + ArrowPrimitiveType<Native: Into<i128> + TryFrom<i128> + std::hash::Hash + Eq> + fmt::Debug
{
    /// What the type is called in messages.
    const NAME: &'static str;
    /// A value of this type.
    fn scalar(value: Option<Self::Native>) -> ScalarValue;
}

impl Summand for Int64Type {
    const NAME: &'static str = "bigint";
    fn scalar(value: Option<i64>) -> ScalarValue {
        ScalarValue::Int64(value)
    }
}

impl Summand for UInt64Type {
    const NAME: &'static str = "uint64";
    fn scalar(value: Option<u64>) -> ScalarValue {
        ScalarValue::UInt64(value)
    }
}

fn is_ours(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Int64 | DataType::UInt64)
}

impl CheckedSum {
    fn of(inner: &AggregateUDF) -> CheckedSum {
        let (is_mean, mut signature) = (inner.name() == "avg", inner.signature().clone());
        if let TypeSignature::OneOf(variants) = &mut signature.type_signature {
            let mut takes = |class| variants.push(TypeSignature::Coercible(vec![Coercion::new_exact(class)]));
            // DataFusion has no average of intervals.
            if is_mean {
                takes(TypeSignatureClass::Interval);
            }
            // They become intervals ([`crate::functions::time_intervals`]).
            takes(TypeSignatureClass::Time);
        }
        CheckedSum { is_mean, signature }
    }

    /// Whether it is a sum or mean of intervals, and which.
    fn of_intervals(&self, data_type: &DataType) -> Option<bool> {
        is_summed(data_type).then_some(self.is_mean)
    }

    /// What the last step of a mean of decimals is.
    fn division(&self, arguments: &AccumulatorArgs) -> Option<Division> {
        Division::of(arguments).filter(|_| self.is_mean)
    }

    /// The scale of a sum of decimals that might not fit.
    fn wide_scale(&self, arguments: &AccumulatorArgs) -> Option<i8> {
        let sums = !self.is_mean && !arguments.is_distinct;
        scale_of(arguments.return_field.data_type()).filter(|_| sums)
    }

    /// The total of one group, if it is one of those of which values can be taken out again.
    fn total(&self, arguments: &AccumulatorArgs) -> Option<Box<dyn Accumulator>> {
        if let Some(is_mean) = self.of_intervals(arguments.return_field.data_type()) {
            return Some(Box::new(IntervalTotal::new(is_mean)));
        }
        if let Some(scale) = self.wide_scale(arguments) {
            return Some(Box::new(DecimalTotal::new(scale)));
        }
        match (arguments.return_field.data_type(), arguments.is_distinct) {
            (DataType::Int64, false) => Some(Box::new(Total::<Int64Type>::default())),
            (DataType::UInt64, false) => Some(Box::new(Total::<UInt64Type>::default())),
            _ => None,
        }
    }
}

impl Change for CheckedSum {
    fn signature(&self) -> Option<&Signature> {
        Some(&self.signature)
    }

    fn return_type(&self, types: &[DataType]) -> Option<DataType> {
        match types {
            [summand @ DataType::Interval(_)] => Some(summand.clone()),
            [DataType::Time32(_) | DataType::Time64(_)] => Some(DataType::Interval(IntervalUnit::MonthDayNano)),
            [argument] if self.is_mean => type_of_mean(argument),
            _ => None,
        }
    }

    fn state_fields(&self, inner: &AggregateUDF, arguments: StateFieldsArgs) -> DataFusionResult<Vec<FieldRef>> {
        if is_summed(arguments.return_field.data_type()) {
            return Ok(interval_sum::state_fields(arguments.name));
        }
        match is_ours(arguments.return_field.data_type()) && !arguments.is_distinct {
            true => Ok(vec![Arc::new(Field::new(format!("{}[sum]", arguments.name), STATE_TYPE, true))]),
            false => inner.state_fields(arguments),
        }
    }

    fn accumulator(&self, inner: &AggregateUDF, arguments: AccumulatorArgs) -> DataFusionResult<Box<dyn Accumulator>> {
        if let Some(total) = self.total(&arguments) {
            return Ok(total);
        }
        if let Some(division) = self.division(&arguments) {
            return Ok(Box::new(NumericMean { inner: inner.accumulator(arguments)?, division }));
        }
        match (arguments.return_field.data_type(), arguments.is_distinct) {
            (DataType::Int64, true) => Ok(Box::new(DistinctTotal::<Int64Type>::default())),
            (DataType::UInt64, true) => Ok(Box::new(DistinctTotal::<UInt64Type>::default())),
            _ => inner.accumulator(arguments),
        }
    }

    fn sliding(&self, inner: &AggregateUDF, arguments: AccumulatorArgs) -> DataFusionResult<Box<dyn Accumulator>> {
        if let Some(total) = self.total(&arguments) {
            return Ok(total);
        }
        if let Some(division) = self.division(&arguments) {
            return Ok(Box::new(NumericMean { inner: inner.create_sliding_accumulator(arguments)?, division }));
        }
        match (arguments.return_field.data_type(), arguments.is_distinct) {
            (DataType::Float64, false) => Ok(Box::new(SlidingFloats::new(self.is_mean))),
            (DataType::Int64 | DataType::UInt64, true) => {
                Err(Error::unsupported("sum(DISTINCT …) over a window that slides").into())
            }
            _ => inner.create_sliding_accumulator(arguments),
        }
    }

    fn has_groups(&self, inner: &AggregateUDF, arguments: AccumulatorArgs) -> bool {
        let data_type = arguments.return_field.data_type();
        let ours = is_ours(data_type) || is_summed(data_type);
        if ours { !arguments.is_distinct } else { inner.groups_accumulator_supported(arguments) }
    }

    fn groups(&self, inner: &AggregateUDF, arguments: AccumulatorArgs) -> DataFusionResult<Box<dyn GroupsAccumulator>> {
        if let Some(is_mean) = self.of_intervals(arguments.return_field.data_type()) {
            return Ok(Box::new(IntervalTotals::new(is_mean)));
        }
        if let Some(scale) = self.wide_scale(&arguments) {
            return Ok(Box::new(DecimalTotals::new(scale)));
        }
        if let Some(division) = self.division(&arguments) {
            return Ok(Box::new(NumericMeans { inner: inner.create_groups_accumulator(arguments)?, division }));
        }
        match (arguments.return_field.data_type(), arguments.is_distinct) {
            (DataType::Int64, false) => Ok(Box::new(Totals::<Int64Type>::default())),
            (DataType::UInt64, false) => Ok(Box::new(Totals::<UInt64Type>::default())),
            _ => inner.create_groups_accumulator(arguments),
        }
    }

    fn reversed(&self, _inner: &AggregateUDF) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn order_sensitivity(&self, _inner: &AggregateUDF) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}

fn narrowed<T: Summand>(total: i128) -> DataFusionResult<T::Native> {
    T::Native::try_from(total).map_err(|_| {
        Error::new(sqlstate::NUMERIC_OUT_OF_RANGE, format!("{} out of range", T::NAME))
            .with_detail(format!("The sum is {total}."))
            .with_hint("Sum a numeric: sum(CAST(… AS numeric(38, 0))).")
            .into()
    })
}

/// The sum of one group; values can be taken out again, for window frames that slide.
#[derive(Debug)]
struct Total<T> {
    sum: i128,
    values: u64,
    summand: PhantomData<T>,
}

impl<T> Default for Total<T> {
    fn default() -> Self {
        Total { sum: 0, values: 0, summand: PhantomData }
    }
}

fn sum_of<T: Summand>(values: &PrimitiveArray<T>) -> (i128, u64) {
    let count = (values.len() - values.null_count()) as u64;
    let sum = match values.null_count() {
        0 => values.values().iter().map(|value| (*value).into()).sum(),
        _ => values.iter().flatten().map(Into::<i128>::into).sum(),
    };
    (sum, count)
}

impl<T: Summand> Accumulator for Total<T> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> DataFusionResult<()> {
        let (sum, count) = sum_of(values[0].as_primitive::<T>());
        self.sum += sum;
        self.values += count;
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> DataFusionResult<()> {
        let (sum, count) = sum_of(values[0].as_primitive::<T>());
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
            0 => Ok(T::scalar(None)),
            _ => Ok(T::scalar(Some(narrowed::<T>(self.sum)?))),
        }
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }
}

/// The sum of the different values of one group.
#[derive(Debug)]
struct DistinctTotal<T: Summand> {
    values: HashSet<T::Native>,
}

impl<T: Summand> Default for DistinctTotal<T> {
    fn default() -> Self {
        DistinctTotal { values: HashSet::new() }
    }
}

impl<T: Summand> Accumulator for DistinctTotal<T> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> DataFusionResult<()> {
        self.values.extend(values[0].as_primitive::<T>().iter().flatten());
        Ok(())
    }

    /// Each state is a list of values.
    fn merge_batch(&mut self, states: &[ArrayRef]) -> DataFusionResult<()> {
        for values in states[0].as_list::<i32>().iter().flatten() {
            self.update_batch(&[values])?;
        }
        Ok(())
    }

    fn state(&mut self) -> DataFusionResult<Vec<ScalarValue>> {
        let values: Vec<ScalarValue> = self.values.iter().map(|value| T::scalar(Some(*value))).collect();
        Ok(vec![ScalarValue::List(ScalarValue::new_list_nullable(&values, &T::DATA_TYPE))])
    }

    fn evaluate(&mut self) -> DataFusionResult<ScalarValue> {
        if self.values.is_empty() {
            return Ok(T::scalar(None));
        }
        let total = self.values.iter().map(|value| Into::<i128>::into(*value)).sum();
        Ok(T::scalar(Some(narrowed::<T>(total)?)))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.values.capacity() * size_of::<T::Native>()
    }
}

/// The sums of many groups.
#[derive(Debug)]
struct Totals<T> {
    sums: Vec<i128>,
    /// Whether the group has had a value.
    seen: Vec<bool>,
    summand: PhantomData<T>,
}

impl<T> Default for Totals<T> {
    fn default() -> Self {
        Totals { sums: Vec::new(), seen: Vec::new(), summand: PhantomData }
    }
}

impl<T: Summand> Totals<T> {
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

impl<T: Summand> GroupsAccumulator for Totals<T> {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total_groups: usize,
    ) -> DataFusionResult<()> {
        self.grow(total_groups);
        each_wanted::<T>(&values[0], groups, filter, |group, value| self.add(group, value.into()));
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef], groups: &[usize], total_groups: usize) -> DataFusionResult<()> {
        self.grow(total_groups);
        each_wanted::<Decimal128Type>(&states[0], groups, None, |group, sum| self.add(group, sum));
        Ok(())
    }

    fn evaluate(&mut self, emit: EmitTo) -> DataFusionResult<ArrayRef> {
        let (sums, seen) = self.take(emit);
        let mut totals = PrimitiveBuilder::<T>::with_capacity(sums.len());
        for (sum, seen) in sums.into_iter().zip(seen) {
            totals.append_option(if seen { Some(narrowed::<T>(sum)?) } else { None });
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
        Ok(vec![wanted_states(states, filter)?])
    }

    fn size(&self) -> usize {
        self.sums.capacity() * size_of::<i128>() + self.seen.capacity()
    }
}
