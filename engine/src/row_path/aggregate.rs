//! Aggregates over the few rows of a statement.
//!
//! Each gives what DataFusion's function (and our checked sum) gives. Sums of floats depend on the order of the rows, and
//! so are left to the ordinary path.

use std::cmp::Ordering;
use std::collections::HashSet;

use arrow::datatypes::DataType;

use super::datum::{Datum, Type};
use super::expression::{Class, Decided, Inputs, Node, Undecided};
use crate::sql::rules::numeric_division::quotient;

/// An aggregate function with its argument.
#[derive(Debug)]
pub(crate) struct Aggregate {
    pub(crate) function: Function,
    pub(crate) argument: Node,
    distinct: bool,
}

/// The functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Function {
    Count,
    /// Of integers that DataFusion sums up as 64 bits.
    SumInt,
    SumDecimal,
    Min(Class),
    Max(Class),
    /// Of integers, as a float.
    MeanInt,
    /// The digits after the point that the result has more than the sum, and the result's precision.
    MeanDecimal(u32, u8),
}

impl Aggregate {
    /// `None`: the row path does not know it.
    pub(crate) fn new(
        name: &str,
        distinct: bool,
        argument: Node,
        argument_type: &Type,
        result_type: &Type,
    ) -> Option<Aggregate> {
        let function = match (name, argument_type, result_type) {
            ("count", _, DataType::Int64) => Function::Count,
            ("sum", DataType::Int64, DataType::Int64) => Function::SumInt,
            ("sum", DataType::Decimal128(_, from), DataType::Decimal128(_, to)) if from == to => Function::SumDecimal,
            ("min", from, to) if from == to => Function::Min(ordered(from)?),
            ("max", from, to) if from == to => Function::Max(ordered(from)?),
            ("avg", DataType::Int64, DataType::Float64) => Function::MeanInt,
            ("avg", DataType::Decimal128(_, from), DataType::Decimal128(precision, to)) if from <= to => {
                Function::MeanDecimal(u32::try_from(to - from).ok()?, *precision)
            }
            _ => return None,
        };
        // The least and the greatest of different values are those of all.
        let counted_once = distinct && !matches!(function, Function::Min(_) | Function::Max(_));
        if counted_once && !is_hashable(argument_type) {
            return None;
        }
        Some(Aggregate { function, argument, distinct: counted_once })
    }

    pub(crate) fn start(&self) -> State {
        State { count: 0, sum: 0, extreme: Datum::Null, seen: HashSet::new() }
    }

    pub(crate) fn add(&self, state: &mut State, inputs: &Inputs<'_>) -> Decided<()> {
        let value = self.argument.evaluate(inputs)?;
        if value.is_null() || (self.distinct && !state.seen.insert(Distinct::of(&value)?)) {
            return Ok(());
        }
        state.count += 1;
        match (self.function, value) {
            (Function::Count, _) => {}
            (Function::SumInt | Function::MeanInt, Datum::Int(value)) => state.sum += i128::from(value),
            (Function::SumDecimal | Function::MeanDecimal(..), Datum::Decimal(value)) => {
                state.sum = state.sum.checked_add(value).ok_or(Undecided)?;
            }
            (Function::Min(class), value) => state.keep(class, Ordering::Less, value)?,
            (Function::Max(class), value) => state.keep(class, Ordering::Greater, value)?,
            _ => return Err(Undecided),
        }
        Ok(())
    }

    pub(crate) fn finish(&self, state: State) -> Decided {
        if self.function != Function::Count && state.count == 0 {
            return Ok(Datum::Null);
        }
        Ok(match self.function {
            Function::Count => Datum::Int(state.count),
            Function::SumInt => Datum::Int(i64::try_from(state.sum).map_err(|_| Undecided)?),
            Function::SumDecimal => Datum::Decimal(state.sum),
            Function::Min(_) | Function::Max(_) => state.extreme,
            Function::MeanInt => {
                // Up to here a sum of floats is exact in any order.
                let exact = state.sum.unsigned_abs() < 1 << 53;
                exact.then_some(Datum::Float(state.sum as f64 / state.count as f64)).ok_or(Undecided)?
            }
            Function::MeanDecimal(shift, precision) => {
                let mean = quotient(state.sum, i128::from(state.count), shift, precision);
                Datum::Decimal(mean.map_err(|_| Undecided)?)
            }
        })
    }
}

/// How values of a type are ordered, where all orders agree.
fn ordered(data_type: &Type) -> Option<Class> {
    Class::of(data_type, data_type).filter(|class| *class != Class::Float)
}

fn is_hashable(data_type: &Type) -> bool {
    ordered(data_type).is_some()
}

/// A value that can be looked up.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Distinct {
    Number(i128),
    Bytes(Vec<u8>),
}

impl Distinct {
    fn of(value: &Datum) -> Decided<Distinct> {
        Ok(match value {
            Datum::Bool(value) => Distinct::Number(i128::from(*value)),
            Datum::Int(value) => Distinct::Number(i128::from(*value)),
            Datum::Decimal(value) => Distinct::Number(*value),
            Datum::Text(text) => Distinct::Bytes(text.as_bytes().to_vec()),
            Datum::Bytes(bytes) => Distinct::Bytes(bytes.to_vec()),
            _ => return Err(Undecided),
        })
    }
}

/// An aggregate in the making.
#[derive(Debug)]
pub(crate) struct State {
    count: i64,
    sum: i128,
    extreme: Datum,
    seen: HashSet<Distinct>,
}

impl State {
    /// Keeps the value if it stands in this order to the one so far.
    fn keep(&mut self, class: Class, wanted: Ordering, value: Datum) -> Decided<()> {
        if class.compare(&value, &self.extreme)?.is_none_or(|order| order == wanted) {
            self.extreme = value;
        }
        Ok(())
    }
}
