//! Calls of functions that mean something else to DataFusion than to PostgreSQL, rewritten to what gives PostgreSQL's
//! answer.
//!
//! | call | becomes |
//! |---|---|
//! | `date_part('second', x)`, `'milliseconds'` | `date_part('microsecond', x) / 1e6`, with the fraction |
//! | `date_part('microsecond', interval)` | with the fraction of a second |
//! | `substr`, `strpos`, `btrim` and the like of bytea | [of its bytes](crate::functions::bytea) |
//! | `substring(x FROM pattern)` of a column | `regexp_match(x, pattern)[1]` |
//! | `to_hex(x)` of an integer of 32 bits | of its 32 bits |
//! | `array_remove`, `array_replace` | of all elements, not the first; [NULLs can be removed](crate::functions::array_remove) |
//! | `array_sum`, `array_scale` and the like of arrays of arrays | refused, for they take arrays of numbers |
//! | `array_length(x, …)` | NULL for an empty array |
//! | `gcd` and `lcm` of integers of 32 bits | an integer |
//! | `array_has(x, y)`, which `y = ANY (x)` is | [unknown](crate::functions::any_element) for a NULL in `x` |
//! | `x[-1]` | NULL |
//! | `x[i]`, `x[i:j]` | with places that are [counted from 1](crate::functions::subscripts) and not from the end |
//! | `a @> b`, `a && b` | of `a` without its NULLs: none is equal to another; NULL if one of them is that constant |
//! | `x ~ 'a.b'`, `regexp_like` | `x ~ '(?s-m)a.b'`, whose `.` matches a line break, [rewritten](crate::functions::pattern_syntax) |
//! | `array_to_string(a, …)` of booleans, times and floats | of [the texts](crate::functions::array_text) of the elements |
//! | `overlay` of a bytea | of its bytes |
//! | `round(n, 2)` of a numeric | with an integer of the type it takes: the number of digits makes the type of the result |
//! | `round(n)` of an integer | of a double precision |
//! | `round(n, 2)`, `trunc(n, 2)` of an integer | of a numeric |
//! | `sqrt(r)`, `ceil(r)`, `sin(r)` … of a real | of a double precision |
//! | `sign(n)` of a numeric | a numeric |
//! | `ceil`, `floor`, `trunc` of a numeric | with a digit more before the point, and none after it |
//! | `ceil`, `floor`, `trunc` of a float | `+ 0.0` |
//! | `concat(true)` | of [its letter](crate::functions::letters) |
//! | `length`, `octet_length`, `bit_length` of a bytea | of its bytes |
//! | `date_bin(stride, t, origin)` of timestamps | [of microseconds](crate::functions::bins) |
//! | `date_trunc` of a date | of the timestamp, in microseconds |
//! | `date_part('epoch', interval)` | with years of 365.25 days |
//! | `date_part('quarter', interval)` | from its months |
//! | `log(n)` of a numeric | of a double precision |
//! | `date_part('timezone', t)` and the like | [from the session's clock](crate::functions::zone_parts) |
//! | `date_part('century', t)` and the like | [our own](crate::functions::calendar_parts) |

use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::Transformed;
use datafusion::error::Result as DataFusionResult;
use datafusion::functions::core::expr_fn::nullif;
use datafusion::functions::datetime::date_part;
use datafusion::functions_nested::array_compact::array_compact_udf;
use datafusion::functions_nested::remove::array_remove_all_udf;
use datafusion::functions_nested::replace::array_replace_all_udf;
use datafusion::logical_expr::expr::{Cast, ScalarFunction};
use datafusion::logical_expr::{Expr, bitwise_and, cast, lit};

use super::extract::{names_microseconds, names_milliseconds, names_seconds};
use crate::Error;
use crate::error::sqlstate;
use crate::functions::any_element::any_element;
use crate::functions::array_remove::array_without;
use crate::functions::array_text::{prints_elements, texts_in};
use crate::functions::bins::bin;
use crate::functions::bytea::of_bytes;
use crate::functions::bytes::{byte_length, byte_overlay};
use crate::functions::calendar_parts::{calendar_part, is_calendar_part};
use crate::functions::letters::letter_of;
use crate::functions::pattern_syntax::{ACROSS_LINES, WRITTEN_PATTERN, translated, written_pattern};
use crate::functions::regular::first_group;
use crate::functions::subscripts::from_the_first;
use crate::functions::text::SIMILAR_TO_ESCAPE;
use crate::functions::zone_parts::{is_zone_part, zone_part};
use crate::sql::rules::interval_math::{is_interval, microseconds_in, seconds_in};
use crate::sql::types::name_of;

/// The digits of any numeric.
const DIGITS: u8 = 38;

/// Rewrites one call; `type_of` tells the types of arguments.
pub(in crate::sql) fn as_in_postgres(
    function: ScalarFunction,
    type_of: impl Fn(&Expr) -> DataType,
) -> DataFusionResult<Transformed<Expr>> {
    let ScalarFunction { func, mut args } = function;
    let literal = |place: usize| match args.get(place) {
        Some(Expr::Literal(value, _)) => value.try_as_str().flatten().map(str::to_owned),
        _ => None,
    };
    let rewritten = match (func.name(), args.len()) {
        (name, 1) if is_of_doubles(name) && type_of(&args[0]) == DataType::Float32 => {
            let double = cast(args.remove(0), DataType::Float64);
            let rewritten = as_in_postgres(ScalarFunction { func: Arc::clone(&func), args: vec![double] }, type_of)?;
            return Ok(Transformed::yes(rewritten.data));
        }
        ("round", 1) if type_of(&args[0]).is_integer() => {
            let number = args.remove(0);
            func.call(vec![cast(number, DataType::Float64)])
        }
        ("round" | "trunc", 2) if places(&args[1]).is_some() => {
            let places = places(&args[1]).unwrap_or(0);
            if type_of(&args[0]).is_integer() {
                // Its digits, and those that are added to it.
                let scale = u8::try_from(places.clamp(0, 18)).unwrap_or(0);
                let numeric = DataType::Decimal128(20 + scale, scale.cast_signed());
                args[0] = cast(args[0].clone(), numeric);
            }
            // The type of the result follows from the number, which must not change from one integer type to another.
            args[1] = lit(places);
            match (func.name(), type_of(&args[0])) {
                ("trunc", DataType::Decimal128(precision, scale)) if i32::from(scale) > places && places >= 0 => {
                    let dropped = u8::try_from(i32::from(scale) - places).unwrap_or(0);
                    let places = i8::try_from(places).unwrap_or(scale);
                    let wanted = DataType::Decimal128(precision.saturating_sub(dropped).max(1), places);
                    cast(func.call(args), wanted)
                }
                _ => func.call(args),
            }
        }
        ("round", 2) if matches!(type_of(&args[0]), DataType::Decimal128(..)) => {
            let rounded = func.call(args);
            let wanted = type_of(&rounded);
            cast(rounded, wanted)
        }
        ("ceil" | "floor" | "trunc", 1) => match type_of(&args[0]) {
            DataType::Decimal128(precision, scale @ 1..) => {
                // The result may have a digit more before the point, and has none after it.
                let wide = DataType::Decimal128((precision + 1).min(DIGITS), scale);
                let before_point = precision.saturating_sub(scale.unsigned_abs()) + 1;
                let whole = DataType::Decimal128(before_point.min(DIGITS), 0);
                let number = cast(args.remove(0), wide);
                cast(func.call(vec![number]), whole)
            }
            float if float.is_floating() => {
                let zero = lit(ScalarValue::new_zero(&float)?);
                // Not -0.0, which is another value to Arrow.
                func.call(args) + zero
            }
            _ => return Ok(Transformed::no(func.call(args))),
        },
        ("signum", 1) if matches!(type_of(&args[0]), DataType::Decimal128(..)) => {
            cast(func.call(args), DataType::Decimal128(1, 0))
        }
        ("gcd" | "lcm", 2) if args.iter().all(|arg| is_short_integer(&type_of(arg))) => {
            cast(func.call(args), DataType::Int32)
        }
        ("concat" | "concat_ws", _) if args.iter().any(|arg| type_of(arg) == DataType::Boolean) => {
            let letter = |arg: Expr| match type_of(&arg) {
                DataType::Boolean => letter_of(arg),
                _ => arg,
            };
            func.call(args.into_iter().map(letter).collect())
        }
        ("character_length", 1) if is_bytes(&type_of(&args[0])) => byte_length(args.remove(0)),
        ("octet_length", 1) if is_bytes(&type_of(&args[0])) => byte_length(args.remove(0)),
        ("bit_length", 1) if is_bytes(&type_of(&args[0])) => byte_length(args.remove(0)) * lit(8i32),
        ("substr" | "strpos" | "btrim" | "ltrim" | "rtrim", 2 | 3)
            if args.iter().take(2).any(|arg| is_bytes(&type_of(arg))) =>
        {
            match of_bytes(func.name()) {
                Some(own) => own.call(args),
                None => return Ok(Transformed::no(func.call(args))),
            }
        }
        ("substr", 2) if type_of(&args[1]).is_string() => {
            let from = args.remove(1);
            match from {
                // One with a constant pattern has been rewritten before: this is `substr(a, '2')`.
                Expr::Literal(..) => {
                    args.push(cast(from, DataType::Int64));
                    func.call(args)
                }
                pattern => first_group(args.remove(0), pattern),
            }
        }
        ("nullif", 2) if type_of(&args[1]) == DataType::Null => args.remove(0),
        ("date_bin", 3) => {
            let types: Vec<DataType> = args.iter().map(&type_of).collect();
            match bin(&args, &types) {
                Some(binned) => binned,
                None => return Ok(Transformed::no(func.call(args))),
            }
        }
        ("date_trunc", 2) if type_of(&args[1]) == DataType::Date32 => {
            let date = args.remove(1);
            args.push(cast(date, DataType::Timestamp(TimeUnit::Microsecond, None)));
            func.call(args)
        }
        ("date_part", 2)
            if literal(0).is_some_and(|part| part.eq_ignore_ascii_case("epoch")) && is_interval(&type_of(&args[1])) =>
        {
            seconds_in(args.remove(1))
        }
        ("date_part", 2)
            if literal(0).is_some_and(|part| part.eq_ignore_ascii_case("quarter"))
                && is_interval(&type_of(&args[1])) =>
        {
            date_part().call(vec![lit("month"), args.remove(1)]) / lit(3i32) + lit(1i32)
        }
        ("log", 1 | 2) if args.iter().any(|arg| matches!(type_of(arg), DataType::Decimal128(..))) => {
            func.call(args.into_iter().map(|arg| cast(arg, DataType::Float64)).collect())
        }
        ("date_part", 2) if is_zone_part(&args[0]) => {
            let time = args.remove(1);
            let data_type = type_of(&time);
            zone_part(&args[0], time, &data_type)?
        }
        ("date_part", 2) if is_calendar_part(&args[0]) => {
            let part = calendar_part(&args[0], args[1].clone());
            part.unwrap_or_else(|| func.call(args))
        }
        ("date_part", 2) if names_microseconds(&args[0]) && is_interval(&type_of(&args[1])) => {
            microseconds_in(args.remove(1))
        }
        ("date_part", 2) if names_seconds(&args[0]) || names_milliseconds(&args[0]) => {
            let parts = if names_seconds(&args[0]) { 1e6 } else { 1e3 };
            let time = args.remove(1);
            let microseconds = match is_interval(&type_of(&time)) {
                true => microseconds_in(time),
                false => date_part().call(vec![lit("microsecond"), time]),
            };
            cast(microseconds, DataType::Float64) / lit(parts)
        }
        ("to_hex", 1) if is_short_integer(&type_of(&args[0])) => {
            let number = cast(args.remove(0), DataType::Int64);
            func.call(vec![bitwise_and(number, lit(0xffff_ffff_i64))])
        }
        (name, 1..) if is_of_number_arrays(name) && args.iter().any(|arg| is_nested_array(&type_of(arg))) => {
            let types: Vec<String> = args.iter().map(|arg| name_of(&type_of(arg))).collect();
            let message = format!("function {name}({}) does not exist", types.join(", "));
            return Err(Error::new(sqlstate::UNDEFINED_FUNCTION, message).into());
        }
        ("array_remove", 2) => match &args[1] {
            Expr::Literal(value, _) if value.is_null() => array_compact_udf().call(vec![args.remove(0)]),
            Expr::Literal(..) => array_remove_all_udf().call(args),
            _ => array_without(args),
        },
        ("array_replace", 3) => array_replace_all_udf().call(args),
        ("array_length", 1 | 2) if type_of(&args[0]) != DataType::Null => nullif(func.call(args), lit(0i32)),
        ("array_has", 2) => any_element(args),
        ("array_element", 2) if is_before_the_first(&args[1]) => match type_of(&args[0]) {
            DataType::List(element) => lit(ScalarValue::try_from(element.data_type())?),
            _ => return Ok(Transformed::no(func.call(args))),
        },
        ("array_element", 2) | ("array_slice", 3 | 4) => match from_the_first(&func) {
            Some(own) => own.call(args),
            None => return Ok(Transformed::no(func.call(args))),
        },
        ("array_has_all" | "array_has_any", 2) if args.iter().any(is_null_constant) => lit(ScalarValue::Boolean(None)),
        ("array_has_all" | "array_has_any", 2)
            if matches!(type_of(&args[0]), DataType::List(_)) && !args.iter().any(has_no_null) =>
        {
            let elements = array_compact_udf().call(vec![args.remove(0)]);
            args.insert(0, elements);
            func.call(args)
        }
        ("regexp_like", 2..) if args[2..].iter().all(|arg| !type_of(arg).is_string() || leaves_dots(arg)) => {
            match across_lines(&args[1]) {
                Some(pattern) => {
                    args[1] = pattern;
                    func.call(args)
                }
                None => return Ok(Transformed::no(func.call(args))),
            }
        }
        ("array_to_string", 2..) if prints_elements(&type_of(&args[0])) => {
            let array = args.remove(0);
            args.insert(0, texts_in(array, "UTC"));
            func.call(args)
        }
        ("overlay", 3 | 4) if args[..2].iter().any(|arg| is_bytes(&type_of(arg))) => {
            for arg in args.iter_mut().take(2) {
                if !is_bytes(&type_of(arg)) {
                    *arg = cast(arg.clone(), DataType::BinaryView);
                }
            }
            byte_overlay(args)
        }
        _ => return Ok(Transformed::no(func.call(args))),
    };
    Ok(Transformed::yes(rewritten))
}

/// Whether it is a function of one number that PostgreSQL has of double precision and not of real.
fn is_of_doubles(function: &str) -> bool {
    matches!(
        function,
        "acos"
            | "asin"
            | "atan"
            | "cbrt"
            | "ceil"
            | "cos"
            | "cosh"
            | "cot"
            | "degrees"
            | "exp"
            | "floor"
            | "ln"
            | "log"
            | "log10"
            | "radians"
            | "round"
            | "signum"
            | "sin"
            | "sinh"
            | "sqrt"
            | "tan"
            | "tanh"
            | "trunc"
    )
}

/// Whether it is a function of DataFusion's that computes with the elements of arrays.
fn is_of_number_arrays(function: &str) -> bool {
    matches!(
        function,
        "array_add"
            | "array_avg"
            | "array_normalize"
            | "array_product"
            | "array_scale"
            | "array_subtract"
            | "array_sum"
    )
}

fn is_nested_array(data_type: &DataType) -> bool {
    matches!(data_type, DataType::List(element) if element.data_type().is_nested())
}

/// Whether it is an integer of at most 32 bits.
fn is_short_integer(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Int8 | DataType::Int16 | DataType::Int32)
}

/// A pattern whose `.` matches line breaks, as it does in PostgreSQL, and that is [written](translated) for the library;
/// `None` if nothing is to change.
pub(in crate::sql) fn across_lines(pattern: &Expr) -> Option<Expr> {
    let begins_so = |expr: &Expr| text_in(expr).is_some_and(|text| text.starts_with(ACROSS_LINES));
    match pattern {
        Expr::Literal(value, _) => {
            let text = value.try_as_str().flatten().filter(|_| !begins_so(pattern))?;
            let written = translated(text);
            // The planner knows that `.*` matches any text.
            let has_dot = written.contains('.') && written != ".*";
            (has_dot || written != text).then(|| lit(format!("{ACROSS_LINES}{written}")))
        }
        Expr::ScalarFunction(function) if [SIMILAR_TO_ESCAPE, WRITTEN_PATTERN].contains(&function.func.name()) => None,
        pattern => Some(written_pattern(pattern.clone())),
    }
}

/// Whether the flags of a regular expression say nothing about line breaks.
fn leaves_dots(flags: &Expr) -> bool {
    text_in(flags).is_some_and(|flags| !flags.contains(['m', 'n', 'p', 'q', 'w']))
}

fn text_in(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Literal(value, _) => value.try_as_str().flatten(),
        _ => None,
    }
}

/// How many digits are left after the point, where that is a constant.
fn places(expr: &Expr) -> Option<i32> {
    match expr {
        Expr::Literal(ScalarValue::Int64(Some(places)), _) => i32::try_from(*places).ok(),
        Expr::Literal(ScalarValue::Int32(Some(places)), _) => Some(*places),
        Expr::Negative(inner) => places(inner).and_then(i32::checked_neg),
        _ => None,
    }
}

pub(in crate::sql) fn is_bytes(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_))
}

fn is_null_constant(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(value, _) => value.is_null(),
        Expr::Cast(Cast { expr, .. }) => is_null_constant(expr),
        _ => false,
    }
}

/// Whether an array is known to have no NULL among its elements.
fn has_no_null(array: &Expr) -> bool {
    match array {
        Expr::Literal(ScalarValue::List(list), _) => list.values().logical_null_count() == 0,
        Expr::ScalarFunction(ScalarFunction { func, args }) => match func.name() {
            "array_compact" => true,
            "make_array" => args.iter().all(|arg| matches!(arg, Expr::Literal(value, _) if !value.is_null())),
            _ => false,
        },
        _ => false,
    }
}

/// Whether an index is a constant that no element of an array has.
fn is_before_the_first(index: &Expr) -> bool {
    matches!(index, Expr::Literal(ScalarValue::Int64(Some(index)), _) if *index < 1)
}
