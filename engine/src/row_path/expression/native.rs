//! What is computed on [`Datum`]s directly: comparisons, arithmetic, casts and some functions of text.
//!
//! Each gives what DataFusion's and Arrow's kernels give, or ends undecided. The differential tests compare them.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::types::{Decimal128Type, DecimalType, Int32Type, Int64Type};
use arrow::array::{Array, AsArray};
use arrow::compute::kernels::cast::rescale_decimal;
use arrow::datatypes::DataType;

use super::{Decided, Undecided};
use crate::Value;
use crate::row_path::datum::{Datum, Type};

/// A comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Comparison {
    pub(crate) fn holds(self, order: Ordering) -> bool {
        match self {
            Comparison::Equal => order.is_eq(),
            Comparison::NotEqual => order.is_ne(),
            Comparison::Less => order.is_lt(),
            Comparison::LessOrEqual => order.is_le(),
            Comparison::Greater => order.is_gt(),
            Comparison::GreaterOrEqual => order.is_ge(),
        }
    }

    /// The comparison with its sides exchanged.
    pub(crate) fn flipped(self) -> Comparison {
        match self {
            Comparison::Less => Comparison::Greater,
            Comparison::LessOrEqual => Comparison::GreaterOrEqual,
            Comparison::Greater => Comparison::Less,
            Comparison::GreaterOrEqual => Comparison::LessOrEqual,
            same => same,
        }
    }
}

/// What kind of values is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    Bool,
    Int,
    Float,
    /// Of the same scale.
    Decimal,
    Text,
    Bytes,
}

impl Class {
    /// How values of these two types compare; `None`: not here.
    pub(crate) fn of(left: &Type, right: &Type) -> Option<Class> {
        let string = |data_type: &Type| data_type.is_string();
        let small = |data_type: &Type| data_type.is_integer() && *data_type != DataType::UInt64;
        Some(match (left, right) {
            (DataType::Boolean, DataType::Boolean) => Class::Bool,
            (left, right) if small(left) && small(right) => Class::Int,
            (DataType::Date32, DataType::Date32) => Class::Int,
            (DataType::Timestamp(..), DataType::Timestamp(..)) | (DataType::Time64(_), DataType::Time64(_))
                if left == right =>
            {
                Class::Int
            }
            (DataType::Float32, DataType::Float32) | (DataType::Float64, DataType::Float64) => Class::Float,
            (DataType::Decimal128(_, left), DataType::Decimal128(_, right)) if left == right => Class::Decimal,
            (left, right) if string(left) && string(right) => Class::Text,
            (left, right) if left.is_binary() && right.is_binary() => Class::Bytes,
            _ => return None,
        })
    }

    /// The order of two values, `None` if one is NULL.
    pub(crate) fn compare(self, left: &Datum, right: &Datum) -> Decided<Option<Ordering>> {
        Ok(Some(match (self, left, right) {
            (_, Datum::Null, _) | (_, _, Datum::Null) => return Ok(None),
            (Class::Bool, Datum::Bool(left), Datum::Bool(right)) => left.cmp(right),
            (Class::Int, Datum::Int(left), Datum::Int(right)) => left.cmp(right),
            (Class::Decimal, Datum::Decimal(left), Datum::Decimal(right)) => left.cmp(right),
            (Class::Text, Datum::Text(left), Datum::Text(right)) => left.as_bytes().cmp(right.as_bytes()),
            (Class::Bytes, Datum::Bytes(left), Datum::Bytes(right)) => left.cmp(right),
            // NaN and the two zeros are where orders of floats differ.
            (Class::Float, Datum::Float(left), Datum::Float(right))
                if *left != 0.0 || *right != 0.0 || left.to_bits() == right.to_bits() =>
            {
                left.partial_cmp(right).ok_or(Undecided)?
            }
            _ => return Err(Undecided),
        }))
    }
}

/// An operator on numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
}

/// Arithmetic on two numbers of known types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arithmetic {
    /// The result must be in this range.
    Int(Operation, i64, i64),
    /// The sides are multiplied by these first.
    Decimal(Operation, i128, i128),
    Float(Operation),
    /// Floats of 32 bits.
    Single(Operation),
}

impl Arithmetic {
    /// The operation on these types, if it is done here: on integers of one type, floats of one type, or decimals.
    pub(crate) fn of(operation: Operation, left: &Type, right: &Type) -> Option<Arithmetic> {
        match (left, right) {
            (DataType::Decimal128(_, left), DataType::Decimal128(_, right)) => decimal(operation, *left, *right),
            (DataType::Float64, DataType::Float64) => Some(Arithmetic::Float(operation)),
            (DataType::Float32, DataType::Float32) => Some(Arithmetic::Single(operation)),
            (left, right) if left == right => {
                let (low, high) = range_of(left)?;
                Some(Arithmetic::Int(operation, low, high))
            }
            _ => None,
        }
    }

    pub(crate) fn compute(self, left: &Datum, right: &Datum) -> Decided {
        if left.is_null() || right.is_null() {
            return Ok(Datum::Null);
        }
        match (self, left, right) {
            (Arithmetic::Int(operation, low, high), Datum::Int(left), Datum::Int(right)) => {
                let result = match operation {
                    Operation::Add => left.checked_add(*right),
                    Operation::Subtract => left.checked_sub(*right),
                    Operation::Multiply => left.checked_mul(*right),
                    Operation::Divide => left.checked_div(*right),
                    Operation::Modulo => left.checked_rem(*right),
                };
                result.filter(|result| (low..=high).contains(result)).map(Datum::Int).ok_or(Undecided)
            }
            (Arithmetic::Decimal(operation, scale_left, scale_right), Datum::Decimal(left), Datum::Decimal(right)) => {
                let left = left.checked_mul(scale_left).ok_or(Undecided)?;
                let right = right.checked_mul(scale_right).ok_or(Undecided)?;
                let result = match operation {
                    Operation::Add => left.checked_add(right),
                    Operation::Subtract => left.checked_sub(right),
                    Operation::Multiply => left.checked_mul(right),
                    Operation::Divide => left.checked_div(right),
                    Operation::Modulo => left.checked_rem(right),
                };
                result.map(Datum::Decimal).ok_or(Undecided)
            }
            (Arithmetic::Float(operation), Datum::Float(left), Datum::Float(right)) => {
                float(operation, *left, *right).filter(|result| result.is_finite()).map(Datum::Float).ok_or(Undecided)
            }
            (Arithmetic::Single(operation), Datum::Float(left), Datum::Float(right)) => {
                let (left, right) = (*left as f32, *right as f32);
                let result = match operation {
                    Operation::Add => left + right,
                    Operation::Subtract => left - right,
                    Operation::Multiply => left * right + 0.0,
                    Operation::Divide if right != 0.0 => left / right + 0.0,
                    _ => return Err(Undecided),
                };
                if result.is_finite() { Ok(Datum::Float(f64::from(result))) } else { Err(Undecided) }
            }
            _ => Err(Undecided),
        }
    }
}

fn float(operation: Operation, left: f64, right: f64) -> Option<f64> {
    match operation {
        Operation::Add => Some(left + right),
        Operation::Subtract => Some(left - right),
        // Not -0.0, which the general path does not give either.
        Operation::Multiply => Some(left * right + 0.0),
        Operation::Divide if right != 0.0 => Some(left / right + 0.0),
        Operation::Divide | Operation::Modulo => None,
    }
}

/// The rules of Arrow's decimals: `+ - %` at the larger scale, `*` at the sum of the scales, `/` at four more digits.
fn decimal(operation: Operation, left: i8, right: i8) -> Option<Arithmetic> {
    let power = |exponent: i8| 10i128.checked_pow(u32::try_from(exponent).ok()?);
    let (scale_left, scale_right) = match operation {
        Operation::Add | Operation::Subtract | Operation::Modulo => {
            let scale = left.max(right);
            (power(scale - left)?, power(scale - right)?)
        }
        Operation::Multiply if left + right <= 38 => (1, 1),
        Operation::Multiply => return None,
        Operation::Divide => {
            let exponent = left.saturating_add(4).min(38) - left + right;
            match exponent >= 0 {
                true => (power(exponent)?, 1),
                false => (1, power(-exponent)?),
            }
        }
    };
    Some(Arithmetic::Decimal(operation, scale_left, scale_right))
}

/// The numbers that fit an integer type.
fn range_of(data_type: &Type) -> Option<(i64, i64)> {
    Some(match data_type {
        DataType::Int8 => (i64::from(i8::MIN), i64::from(i8::MAX)),
        DataType::Int16 => (i64::from(i16::MIN), i64::from(i16::MAX)),
        DataType::Int32 => (i64::from(i32::MIN), i64::from(i32::MAX)),
        DataType::Int64 => (i64::MIN, i64::MAX),
        DataType::UInt8 => (0, i64::from(u8::MAX)),
        DataType::UInt16 => (0, i64::from(u16::MAX)),
        DataType::UInt32 => (0, i64::from(u32::MAX)),
        _ => return None,
    })
}

/// A cast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Conversion {
    /// The value stays.
    Same,
    /// To an integer in this range.
    Range(i64, i64),
    IntToDecimal {
        factor: i128,
        precision: u8,
    },
    /// Of scale 0, to an integer in this range.
    DecimalToInt(i64, i64),
    Rescale {
        from: (u8, i8),
        to: (u8, i8),
    },
    IntToFloat,
    IntToSingle,
    IntToText,
    DecimalToText {
        precision: u8,
        scale: i8,
    },
}

impl Conversion {
    /// The cast between these types, if it is done here.
    pub(crate) fn of(from: &Type, to: &Type) -> Option<Conversion> {
        if from == to {
            return Some(Conversion::Same);
        }
        let int = |data_type: &Type| range_of(data_type).is_some();
        Some(match (from, to) {
            (from, to) if from.is_string() && to.is_string() => Conversion::Same,
            (from, to) if int(from) && int(to) => {
                let (low, high) = range_of(to)?;
                Conversion::Range(low, high)
            }
            (from, DataType::Decimal128(precision, scale)) if int(from) && *scale >= 0 => {
                let factor = 10i128.checked_pow(u32::try_from(*scale).ok()?)?;
                Conversion::IntToDecimal { factor, precision: *precision }
            }
            (DataType::Decimal128(_, 0), to) if int(to) => {
                let (low, high) = range_of(to)?;
                Conversion::DecimalToInt(low, high)
            }
            (DataType::Decimal128(from_precision, from_scale), DataType::Decimal128(precision, scale)) => {
                Conversion::Rescale { from: (*from_precision, *from_scale), to: (*precision, *scale) }
            }
            (from, DataType::Float64) if int(from) => Conversion::IntToFloat,
            (from, DataType::Float32) if int(from) => Conversion::IntToSingle,
            (DataType::Float32, DataType::Float64) => Conversion::Same,
            (from, to) if int(from) && to.is_string() => Conversion::IntToText,
            (DataType::Decimal128(precision, scale), to) if to.is_string() => {
                Conversion::DecimalToText { precision: *precision, scale: *scale }
            }
            _ => return None,
        })
    }

    pub(crate) fn convert(self, value: Datum) -> Decided {
        Ok(match (self, value) {
            (_, Datum::Null) => Datum::Null,
            (Conversion::Same, value) => value,
            (Conversion::Range(low, high), Datum::Int(value)) if (low..=high).contains(&value) => Datum::Int(value),
            (Conversion::IntToDecimal { factor, precision }, Datum::Int(value)) => {
                let value = i128::from(value).checked_mul(factor).ok_or(Undecided)?;
                valid(value, precision)?
            }
            (Conversion::DecimalToInt(low, high), Datum::Decimal(value)) => {
                let value = i64::try_from(value).map_err(|_| Undecided)?;
                Datum::Int(Some(value).filter(|value| (low..=high).contains(value)).ok_or(Undecided)?)
            }
            (Conversion::Rescale { from, to }, Datum::Decimal(value)) if from.1 == to.1 => match to.0 >= from.0 {
                true => Datum::Decimal(value),
                false => valid(value, to.0)?,
            },
            (Conversion::Rescale { from, to }, Datum::Decimal(value)) => {
                let rescaled = rescale_decimal::<Decimal128Type, Decimal128Type>(value, from.0, from.1, to.0, to.1);
                Datum::Decimal(rescaled.ok_or(Undecided)?)
            }
            (Conversion::IntToFloat, Datum::Int(value)) => Datum::Float(value as f64),
            (Conversion::IntToSingle, Datum::Int(value)) => Datum::Float(f64::from(value as f32)),
            (Conversion::IntToText, Datum::Int(value)) => Datum::text(&value.to_string()),
            (Conversion::DecimalToText { precision, scale }, Datum::Decimal(value)) => {
                Datum::text(&Decimal128Type::format_decimal(value, precision, scale))
            }
            _ => return Err(Undecided),
        })
    }
}

fn valid(value: i128, precision: u8) -> Decided {
    match Decimal128Type::is_valid_decimal_precision(value, precision) {
        true => Ok(Datum::Decimal(value)),
        false => Err(Undecided),
    }
}

/// An element of a list, counted from 1, as [`crate::functions::subscripts`] has it.
pub(super) fn element(list: &Datum, place: &Datum) -> Decided {
    let (Datum::Other(list), Datum::Int(place)) = (list, place) else {
        return if list.is_null() || place.is_null() { Ok(Datum::Null) } else { Err(Undecided) };
    };
    let Value::List(list) = list.as_ref() else { return Err(Undecided) };
    let (start, end) = match list.value_offsets() {
        [start, end] => (i64::from(*start), i64::from(*end)),
        _ => return Err(Undecided),
    };
    let place = place.saturating_sub(1).saturating_add(start);
    if !(start..end).contains(&place) || list.is_null(0) {
        return Ok(Datum::Null);
    }
    let (values, place) = (list.values(), usize::try_from(place).map_err(|_| Undecided)?);
    Ok(match values.data_type() {
        _ if values.is_null(place) => Datum::Null,
        DataType::Int32 => Datum::Int(i64::from(values.as_primitive::<Int32Type>().value(place))),
        DataType::Int64 => Datum::Int(values.as_primitive::<Int64Type>().value(place)),
        _ => Datum::of(&Value::try_from_array(values, place).map_err(|_| Undecided)?),
    })
}

/// The length of a list that is not empty, as [`crate::functions`] has it in `array_length`.
pub(super) fn list_length(list: &Datum) -> Decided {
    match list {
        Datum::Null => Ok(Datum::Null),
        Datum::Other(list) => match list.as_ref() {
            Value::List(list) if list.len() == 1 && list.value_length(0) > 0 => {
                Ok(Datum::Int(i64::from(list.value_length(0))))
            }
            _ => Err(Undecided),
        },
        _ => Err(Undecided),
    }
}

/// Functions of text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TextFunction {
    /// `||`: NULL if one side is.
    Join,
    /// `concat`: NULL counts as no text.
    Concat,
    Lower,
    Upper,
    /// The number of characters.
    Length,
    /// `substr`: from a character on, counted from 1, and perhaps so many.
    Part,
}

impl TextFunction {
    pub(crate) fn named(name: &str) -> Option<TextFunction> {
        Some(match name {
            "concat" => TextFunction::Concat,
            "lower" => TextFunction::Lower,
            "upper" => TextFunction::Upper,
            "character_length" | "char_length" | "length" => TextFunction::Length,
            _ => return None,
        })
    }

    pub(crate) fn call(self, arguments: &[Datum]) -> Decided {
        match self {
            TextFunction::Join | TextFunction::Concat => {
                let mut joined = String::new();
                for argument in arguments {
                    match argument {
                        Datum::Text(text) => joined.push_str(text),
                        Datum::Null if self == TextFunction::Concat => {}
                        Datum::Null => return Ok(Datum::Null),
                        _ => return Err(Undecided),
                    }
                }
                Ok(Datum::Text(Arc::from(joined)))
            }
            TextFunction::Part => match arguments {
                [Datum::Text(text), Datum::Int(first @ 1..)] => Ok(part(text, *first, i64::MAX)),
                [Datum::Text(text), Datum::Int(first @ 1..), Datum::Int(count @ 0..)] => Ok(part(text, *first, *count)),
                _ if arguments.iter().any(Datum::is_null) => Ok(Datum::Null),
                _ => Err(Undecided),
            },
            _ => match arguments {
                [Datum::Null] => Ok(Datum::Null),
                [Datum::Text(text)] if text.is_ascii() => Ok(match self {
                    TextFunction::Lower => Datum::text(&text.to_ascii_lowercase()),
                    TextFunction::Upper => Datum::text(&text.to_ascii_uppercase()),
                    _ => Datum::Int(text.len() as i64),
                }),
                [Datum::Text(text)] if self == TextFunction::Length => Ok(Datum::Int(text.chars().count() as i64)),
                _ => Err(Undecided),
            },
        }
    }
}

/// So many characters of a text, from the one with this number on.
fn part(text: &Arc<str>, first: i64, count: i64) -> Datum {
    let place = |number: i64| {
        let number = usize::try_from(number).unwrap_or(usize::MAX);
        match text.is_ascii() {
            true => number.min(text.len()),
            false => text.char_indices().nth(number).map_or(text.len(), |(place, _)| place),
        }
    };
    let (start, end) = (place(first - 1), place((first - 1).saturating_add(count)));
    match start == 0 && end == text.len() {
        true => Datum::Text(Arc::clone(text)),
        false => Datum::text(&text[start..end]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_that_do_not_fit_are_left_undecided() {
        let add = Arithmetic::of(Operation::Add, &DataType::Int32, &DataType::Int32).unwrap();
        assert_eq!(add.compute(&Datum::Int(1), &Datum::Int(2)), Ok(Datum::Int(3)));
        assert_eq!(add.compute(&Datum::Int(i64::from(i32::MAX)), &Datum::Int(1)), Err(Undecided));
        assert_eq!(add.compute(&Datum::Null, &Datum::Int(1)), Ok(Datum::Null));
        let divide = Arithmetic::of(Operation::Divide, &DataType::Int64, &DataType::Int64).unwrap();
        assert_eq!(divide.compute(&Datum::Int(1), &Datum::Int(0)), Err(Undecided));
        assert_eq!(divide.compute(&Datum::Int(i64::MIN), &Datum::Int(-1)), Err(Undecided));
        assert!(Arithmetic::of(Operation::Add, &DataType::Int32, &DataType::Int64).is_none());
    }

    #[test]
    fn decimals_are_computed_at_the_scales_of_arrow() {
        let (two, four) = (DataType::Decimal128(10, 2), DataType::Decimal128(10, 4));
        let compute = |operation, left, right: i128| {
            let arithmetic = Arithmetic::of(operation, &two, &four).unwrap();
            arithmetic.compute(&Datum::Decimal(left), &Datum::Decimal(right))
        };
        assert_eq!(compute(Operation::Add, 150, 5_000), Ok(Datum::Decimal(20_000)), "1.50 + 0.5000 = 2.0000");
        assert_eq!(compute(Operation::Multiply, 150, 5_000), Ok(Datum::Decimal(750_000)), "0.750000");
        assert_eq!(compute(Operation::Divide, 150, 5_000), Ok(Datum::Decimal(3_000_000)), "3.000000");
        assert_eq!(compute(Operation::Divide, 150, 0), Err(Undecided));
    }

    #[test]
    fn elements_of_lists_are_counted_from_the_first() {
        let list = |values: &[Option<i32>]| {
            let values: Vec<Value> = values.iter().map(|value| Value::Int32(*value)).collect();
            Datum::of(&Value::List(Value::new_list_nullable(&values, &DataType::Int32)))
        };
        let numbers = list(&[Some(7), None, Some(9)]);
        let at = |place| element(&numbers, &Datum::Int(place));
        assert_eq!([at(1), at(2), at(3)], [Ok(Datum::Int(7)), Ok(Datum::Null), Ok(Datum::Int(9))]);
        assert_eq!([at(0), at(4), at(-1), at(i64::MIN)], [const { Ok(Datum::Null) }; 4]);
        assert_eq!(element(&Datum::Null, &Datum::Int(1)), Ok(Datum::Null));
        assert_eq!(element(&numbers, &Datum::Null), Ok(Datum::Null));
    }

    #[test]
    fn floats_that_orders_differ_on_are_left_undecided() {
        let compare = |left, right| Class::Float.compare(&Datum::Float(left), &Datum::Float(right));
        assert_eq!(compare(1.0, 2.0), Ok(Some(Ordering::Less)));
        assert_eq!(compare(0.0, -0.0), Err(Undecided));
        assert_eq!(compare(f64::NAN, 1.0), Err(Undecided));
    }
}
