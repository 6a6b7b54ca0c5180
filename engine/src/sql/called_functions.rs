//! Calls of functions that mean something else to DataFusion than to PostgreSQL, rewritten to what gives PostgreSQL's
//! answer.
//!
//! | call | becomes |
//! |---|---|
//! | `date_part('second', x)` | `date_part('microsecond', x) / 1e6`, with the fraction |
//! | `encode(x, 'base64')` | `encode(x, 'base64pad')` |
//! | `to_hex(x)` of an integer of 32 bits | of its 32 bits |
//! | `array_remove`, `array_replace` | of all elements, not the first |
//! | `array_length(x, …)` | an integer, NULL for an empty array |
//! | `x[-1]` | NULL |
//! | `regexp_replace(…, '\&')` | `'\0'` |

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::Transformed;
use datafusion::error::Result as DataFusionResult;
use datafusion::functions::core::expr_fn::nullif;
use datafusion::functions::datetime::date_part;
use datafusion::functions_nested::remove::array_remove_all_udf;
use datafusion::functions_nested::replace::array_replace_all_udf;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{Expr, bitwise_and, cast, lit};

use super::interval_math::names_seconds;

/// Rewrites one call; `type_of` tells the types of arguments.
pub(super) fn as_in_postgres(
    function: ScalarFunction,
    type_of: impl Fn(&Expr) -> DataType,
) -> DataFusionResult<Transformed<Expr>> {
    let ScalarFunction { func, mut args } = function;
    let literal = |place: usize| match args.get(place) {
        Some(Expr::Literal(value, _)) => value.try_as_str().flatten().map(str::to_owned),
        _ => None,
    };
    let rewritten = match (func.name(), args.len()) {
        ("date_part", 2) if names_seconds(&args[0]) => {
            let microseconds = date_part().call(vec![lit("microsecond"), args.remove(1)]);
            cast(microseconds, DataType::Float64) / lit(1e6)
        }
        ("encode", 2) if literal(1).as_deref() == Some("base64") => {
            args[1] = lit("base64pad");
            func.call(args)
        }
        ("to_hex", 1) if matches!(type_of(&args[0]), DataType::Int8 | DataType::Int16 | DataType::Int32) => {
            let number = cast(args.remove(0), DataType::Int64);
            func.call(vec![bitwise_and(number, lit(0xffff_ffff_i64))])
        }
        ("array_remove", 2) => array_remove_all_udf().call(args),
        ("array_replace", 3) => array_replace_all_udf().call(args),
        ("array_length", 1 | 2) if type_of(&args[0]) != DataType::Null => {
            nullif(cast(func.call(args), DataType::Int32), lit(0i32))
        }
        ("array_element", 2) if is_before_the_first(&args[1]) => match type_of(&args[0]) {
            DataType::List(element) => lit(ScalarValue::try_from(element.data_type())?),
            _ => return Ok(Transformed::no(func.call(args))),
        },
        ("regexp_replace", 3..) => match literal(2) {
            Some(text) if text.contains("\\&") => {
                args[2] = lit(text.replace("\\&", "\\0"));
                func.call(args)
            }
            _ => return Ok(Transformed::no(func.call(args))),
        },
        _ => return Ok(Transformed::no(func.call(args))),
    };
    Ok(Transformed::yes(rewritten))
}

/// Whether an index is a constant that no element of an array has.
fn is_before_the_first(index: &Expr) -> bool {
    matches!(index, Expr::Literal(ScalarValue::Int64(Some(index)), _) if *index < 1)
}
