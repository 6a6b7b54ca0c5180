//! Filters made ready for evaluation: what a block can be asked.
//!
//! Comparisons of numbers, dates and times become ranges of ranks ([`crate::block::rank`]), several on one column
//! become one; the rest keeps the form in which Arrow's kernels compare it. Every test can be asked two things: whether
//! a zone can hold a row that passes, and which values of an array pass.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Scalar};
use arrow::compute::kernels::cmp;
use arrow::datatypes::{DataType, Float32Type, Float64Type, SchemaRef, TimeUnit};
use arrow::datatypes::{
    Date32Type, Decimal128Type, DurationMicrosecondType, DurationMillisecondType, DurationNanosecondType,
    DurationSecondType, Int8Type, Int16Type, Int32Type, Int64Type, Time64MicrosecondType, Time64NanosecondType,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};

use super::filter::{CompareOp, Filter, RowPredicate};
use crate::block::rank::{Zone, bytes_rank, float_rank, has_exact_ranks, match_integers, rank};
use crate::error::{Error, Result};
use crate::kernel::Mask;
use crate::kernel::compare::{Ranged, select};

/// A set of ranks.
#[derive(Debug)]
pub(crate) struct RankSet {
    /// Ascending, each once.
    values: Vec<i128>,
    /// If the values lie close together: one bit for each integer from the lowest on.
    bits: Vec<u64>,
}

/// Lists whose values span at most this many integers are looked up in a bitmap (of 64 KiB, it stays in the cache).
const BITMAP_SPAN_MAX: i128 = 1 << 19;

impl RankSet {
    fn new(mut values: Vec<i128>) -> RankSet {
        values.sort_unstable();
        values.dedup();
        let mut bits = Vec::new();
        if let (Some(low), Some(high)) = (values.first(), values.last())
            && high.checked_sub(*low).is_some_and(|span| span < BITMAP_SPAN_MAX)
        {
            bits.resize((high - low) as usize / 64 + 1, 0);
            for value in &values {
                let bit = (value - low) as usize;
                bits[bit / 64] |= 1 << (bit % 64);
            }
        }
        RankSet { values, bits }
    }

    pub(crate) fn contains(&self, value: i128) -> bool {
        match (self.values.first(), self.bits.is_empty()) {
            (Some(low), false) => {
                let bit = value.wrapping_sub(*low) as u128;
                bit < 64 * self.bits.len() as u128 && self.bits[bit as usize / 64] >> (bit % 64) & 1 == 1
            }
            _ => self.values.binary_search(&value).is_ok(),
        }
    }
}

/// A filter, ready for evaluation.
#[derive(Debug, Clone)]
pub(crate) enum Test {
    /// No row passes.
    Never,
    /// The rank lies between the two, inclusively. For types with exact ranks.
    Range { column: usize, low: i128, high: i128 },
    /// The rank is another. For types with exact ranks.
    NotEqual { column: usize, value: i128 },
    /// The rank is in the set, or not. For types with exact ranks.
    InRanks { column: usize, set: Arc<RankSet>, negated: bool },
    /// Compares as Arrow does. For types without exact ranks.
    Compare { column: usize, op: CompareOp, value: ArrayRef },
    /// The bytes are in the set, or not. For strings and binaries; `low` and `high` are ranks.
    InBytes { column: usize, set: Arc<HashSet<Box<[u8]>>>, low: i128, high: i128, negated: bool },
    /// It is NULL, or not.
    Null { column: usize, negated: bool },
    /// Whatever the predicate says.
    Rows(Arc<dyn RowPredicate>),
}

/// What a zone says about the rows of its block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// None of them passes.
    None,
    /// Look at them.
    Some,
    /// All of them pass.
    All,
}

impl Test {
    /// The column it reads, if it is one.
    pub(crate) fn column(&self) -> Option<usize> {
        match self {
            Test::Never => None,
            Test::Range { column, .. }
            | Test::NotEqual { column, .. }
            | Test::InRanks { column, .. }
            | Test::Compare { column, .. }
            | Test::InBytes { column, .. }
            | Test::Null { column, .. } => Some(*column),
            Test::Rows(predicate) => match predicate.columns() {
                [column] => Some(*column),
                _ => None,
            },
        }
    }

    /// All columns it reads.
    pub(crate) fn columns(&self) -> Vec<usize> {
        match self {
            Test::Rows(predicate) => predicate.columns().to_vec(),
            test => test.column().into_iter().collect(),
        }
    }

    /// Roughly how much longer it takes per row than the cheapest kind.
    pub(crate) fn cost(&self) -> f64 {
        match self {
            Test::Never | Test::Null { .. } => 0.1,
            Test::Range { .. } | Test::NotEqual { .. } => 1.0,
            Test::InRanks { .. } => 4.0,
            Test::Compare { .. } => 8.0,
            Test::InBytes { .. } => 16.0,
            Test::Rows(_) => 32.0,
        }
    }

    /// What follows from a zone.
    pub(crate) fn verdict(&self, zone: &Zone) -> Verdict {
        let all_null = zone.nulls == zone.rows;
        let outside = |low: i128, high: i128| all_null || zone.maximum < low || high < zone.minimum;
        match self {
            Test::Never => Verdict::None,
            Test::Range { low, high, .. } => {
                if outside(*low, *high) {
                    Verdict::None
                } else if zone.nulls == 0 && *low <= zone.minimum && zone.maximum <= *high {
                    Verdict::All
                } else {
                    Verdict::Some
                }
            }
            Test::NotEqual { value, .. } => {
                if all_null || zone.minimum == *value && zone.maximum == *value {
                    Verdict::None
                } else if zone.nulls == 0 && (*value < zone.minimum || zone.maximum < *value) {
                    Verdict::All
                } else {
                    Verdict::Some
                }
            }
            Test::InRanks { set, negated: false, .. } => match (set.values.first(), set.values.last()) {
                (Some(low), Some(high)) if !outside(*low, *high) => {
                    // A value between two neighbours of the list is common with short lists on sorted columns.
                    let next = set.values.partition_point(|value| *value < zone.minimum);
                    match set.values.get(next) {
                        Some(value) if *value <= zone.maximum => Verdict::Some,
                        _ => Verdict::None,
                    }
                }
                _ => Verdict::None,
            },
            Test::InBytes { low, high, negated: false, .. } if outside(*low, *high) => Verdict::None,
            Test::Compare { op, value, .. } => {
                let Some(value) = rank(value.as_ref(), 0) else {
                    return if all_null { Verdict::None } else { Verdict::Some };
                };
                let out = match op {
                    CompareOp::Eq => outside(value, value),
                    CompareOp::NotEq => all_null,
                    CompareOp::Lt | CompareOp::LtEq => outside(i128::MIN, value),
                    CompareOp::Gt | CompareOp::GtEq => outside(value, i128::MAX),
                };
                if out { Verdict::None } else { Verdict::Some }
            }
            Test::Null { negated, .. } => match (zone.nulls == 0, all_null, negated) {
                (true, _, true) | (_, true, false) => Verdict::All,
                (true, _, false) | (_, true, true) => Verdict::None,
                _ => Verdict::Some,
            },
            Test::InRanks { negated: true, .. } | Test::InBytes { negated: true, .. } if all_null => Verdict::None,
            Test::InRanks { .. } | Test::InBytes { .. } | Test::Rows(_) => Verdict::Some,
        }
    }

    /// Which values of a column pass. For every kind but [`Test::Rows`].
    pub(crate) fn matches(&self, array: &ArrayRef) -> Result<Mask> {
        let mut mask = match self {
            Test::Never => return Ok(Mask::all(array.len()).inverted()),
            Test::Null { negated, .. } => {
                let mut valid = Mask::all(array.len());
                valid.and_valid(array.logical_nulls().as_ref());
                return Ok(if *negated { valid } else { valid.inverted() });
            }
            Test::Range { low, high, .. } => in_range(array, *low, *high)?,
            Test::NotEqual { value, .. } => in_range(array, *value, *value)?.inverted(),
            Test::InRanks { set, negated, .. } => {
                let mask = in_ranks(array, set)?;
                if *negated { mask.inverted() } else { mask }
            }
            Test::Compare { op, value, .. } => {
                let value = Scalar::new(value);
                Mask::from_boolean(&match op {
                    CompareOp::Eq => cmp::eq(array, &value)?,
                    CompareOp::NotEq => cmp::neq(array, &value)?,
                    CompareOp::Lt => cmp::lt(array, &value)?,
                    CompareOp::LtEq => cmp::lt_eq(array, &value)?,
                    CompareOp::Gt => cmp::gt(array, &value)?,
                    CompareOp::GtEq => cmp::gt_eq(array, &value)?,
                })
            }
            Test::InBytes { set, negated, .. } => {
                let mask = in_bytes(array, set)?;
                if *negated { mask.inverted() } else { mask }
            }
            Test::Rows(_) => return Err(Error::Internal("a row predicate was asked for values".into())),
        };
        mask.and_valid(array.nulls());
        Ok(mask)
    }
}

fn unexpected(data_type: &DataType) -> Error {
    Error::Internal(format!("values of type {data_type} have no ranks"))
}

/// The rows whose rank lies in the range; NULL rows may be in or out.
fn in_range(array: &ArrayRef, low: i128, high: i128) -> Result<Mask> {
    macro_rules! integers {
        ($type:ty) => {
            Ok(Ranged::select_range(array.as_primitive::<$type>().values(), low, high))
        };
    }
    // Floats have ranks of 64 bits: comparing them as 128 would halve the speed.
    let clamp = |bound: i128| bound.clamp(i64::MIN.into(), i64::MAX.into()) as i64;
    let (first, last) = match low > i64::MAX.into() || high < i64::MIN.into() {
        true => (1, 0),
        false => (clamp(low), clamp(high)),
    };
    let within = |rank: i64| (rank >= first) & (rank <= last);
    let data_type = array.data_type();
    match_integers!(
        data_type,
        integers,
        match data_type {
            DataType::Float32 => {
                Ok(select(array.as_primitive::<Float32Type>().values(), |value| within(float_rank(value.into()))))
            }
            DataType::Float64 =>
                Ok(select(array.as_primitive::<Float64Type>().values(), |value| within(float_rank(value)))),
            other => Err(unexpected(other)),
        }
    )
}

/// The rows whose rank is in the set; NULL rows may be in or out.
fn in_ranks(array: &ArrayRef, set: &RankSet) -> Result<Mask> {
    macro_rules! integers {
        ($type:ty) => {
            Ok(select(array.as_primitive::<$type>().values(), |value| set.contains(value.into())))
        };
    }
    let data_type = array.data_type();
    match_integers!(
        data_type,
        integers,
        match data_type {
            DataType::Float32 => Ok(select(array.as_primitive::<Float32Type>().values(), |value| {
                set.contains(float_rank(value.into()).into())
            })),
            DataType::Float64 => Ok(select(array.as_primitive::<Float64Type>().values(), |value| {
                set.contains(float_rank(value).into())
            })),
            other => Err(unexpected(other)),
        }
    )
}

/// The rows whose bytes are in the set; NULL rows are out.
fn in_bytes(array: &ArrayRef, set: &HashSet<Box<[u8]>>) -> Result<Mask> {
    let mut mask = Mask::all(array.len());
    for row in 0..array.len() {
        let inside = array.is_valid(row) && bytes_at(array.as_ref(), row).is_some_and(|bytes| set.contains(bytes));
        if !inside {
            mask.remove(row);
        }
    }
    Ok(mask)
}

fn bytes_at(array: &dyn Array, row: usize) -> Option<&[u8]> {
    match array.data_type() {
        DataType::Utf8View => Some(array.as_string_view().value(row).as_bytes()),
        DataType::BinaryView => Some(array.as_binary_view().value(row)),
        _ => None,
    }
}

/// Makes filters ready. Fails if one does not fit the table.
pub(crate) fn compile(filters: &[Filter], schema: &SchemaRef) -> Result<Vec<Test>> {
    let mut tests: Vec<Test> = Vec::with_capacity(filters.len());
    for filter in filters {
        let test = compile_one(filter, schema)?;
        if let Test::Range { column, low, high } = test {
            let same = tests.iter_mut().find_map(|known| match known {
                Test::Range { column: known, low, high } if *known == column => Some((low, high)),
                _ => None,
            });
            if let Some((known_low, known_high)) = same {
                (*known_low, *known_high) = (low.max(*known_low), high.min(*known_high));
                continue;
            }
        }
        tests.push(test);
    }
    if tests.iter().any(|test| matches!(test, Test::Range { low, high, .. } if low > high)) {
        tests = vec![Test::Never];
    }
    Ok(tests)
}

fn compile_one(filter: &Filter, schema: &SchemaRef) -> Result<Test> {
    let type_of = |column: usize| match schema.fields().get(column) {
        Some(field) => Ok(field.data_type()),
        None => Err(Error::Internal(format!("a filter names column {column} of {}", schema.fields().len()))),
    };
    let same_type = |column: usize, values: &ArrayRef| match type_of(column)? {
        expected if expected == values.data_type() => Ok(has_exact_ranks(expected)),
        expected => Err(Error::Internal(format!("a filter compares {expected} with {}", values.data_type()))),
    };
    Ok(match filter {
        Filter::Never => Test::Never,
        Filter::Compare { column, op, value } => {
            let (column, exact) = (*column, same_type(*column, value)?);
            if value.len() != 1 {
                return Err(Error::Internal(format!("a filter compares with {} values", value.len())));
            }
            if value.is_null(0) {
                return Ok(Test::Never);
            }
            match rank(value.as_ref(), 0) {
                Some(value) if exact => match op {
                    CompareOp::Eq => Test::Range { column, low: value, high: value },
                    CompareOp::NotEq => Test::NotEqual { column, value },
                    CompareOp::LtEq => Test::Range { column, low: i128::MIN, high: value },
                    CompareOp::GtEq => Test::Range { column, low: value, high: i128::MAX },
                    CompareOp::Lt => match value.checked_sub(1) {
                        Some(high) => Test::Range { column, low: i128::MIN, high },
                        None => Test::Never,
                    },
                    CompareOp::Gt => match value.checked_add(1) {
                        Some(low) => Test::Range { column, low, high: i128::MAX },
                        None => Test::Never,
                    },
                },
                _ => Test::Compare { column, op: *op, value: Arc::clone(value) },
            }
        }
        Filter::In { column, values, negated } => {
            let (column, negated) = (*column, *negated);
            let exact = same_type(column, values)?;
            if values.is_empty() {
                return Err(Error::Internal("a filter has an empty list".into()));
            }
            if negated && values.null_count() > 0 {
                return Ok(Test::Never);
            }
            let valid = (0..values.len()).filter(|row| values.is_valid(*row));
            if exact {
                let ranks: Vec<i128> = valid.filter_map(|row| rank(values.as_ref(), row)).collect();
                return Ok(match ranks.is_empty() {
                    true => Test::Never,
                    false => Test::InRanks { column, set: Arc::new(RankSet::new(ranks)), negated },
                });
            }
            let set: Option<HashSet<Box<[u8]>>> =
                valid.map(|row| bytes_at(values.as_ref(), row).map(Box::from)).collect();
            let Some(set) = set else {
                return Err(Error::Unsupported(format!("a list of {} in a scan", values.data_type())));
            };
            let ranks = || set.iter().map(|bytes| bytes_rank(bytes));
            match (ranks().min(), ranks().max()) {
                (Some(low), Some(high)) => Test::InBytes { column, set: Arc::new(set), low, high, negated },
                _ => Test::Never,
            }
        }
        Filter::IsNull { column, negated } => {
            type_of(*column)?;
            Test::Null { column: *column, negated: *negated }
        }
        Filter::Rows(predicate) => {
            for column in predicate.columns() {
                type_of(*column)?;
            }
            Test::Rows(Arc::clone(predicate))
        }
    })
}

#[cfg(test)]
mod tests {
    use arrow::array::Float64Array;

    use super::*;

    #[test]
    fn ranges_of_floats_are_exact_at_the_ends_of_their_ranks() {
        let highest = f64::from_bits(i64::MAX as u64);
        let lowest = f64::from_bits(u64::MAX);
        let values = [lowest, f64::NEG_INFINITY, -0.0, 0.0, 1.0, f64::INFINITY, f64::NAN, highest];
        let array: ArrayRef = Arc::new(Float64Array::from(values.to_vec()));
        let ranks = values.map(|value| i128::from(float_rank(value)));
        let mut edges = vec![i128::MIN, i64::MIN.into(), 0, i64::MAX.into(), i128::MAX];
        edges.extend(ranks.iter().flat_map(|rank| [rank - 1, *rank, rank + 1]));
        for low in &edges {
            for high in &edges {
                let expected: Vec<u32> = (0..8).filter(|row| (*low..=*high).contains(&ranks[*row as usize])).collect();
                assert_eq!(in_range(&array, *low, *high).unwrap().indices(), expected, "{low}..={high}");
            }
        }
    }
}
