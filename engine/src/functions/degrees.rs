//! Trigonometric functions of angles in degrees: `sind`, `cosd`, `tand`, `cotd`, `asind`, `acosd`, `atand`, `atan2d`.
//!
//! As in PostgreSQL they are exact where the answer is: `sind(30)` is 0.5, and `tand(45)` 1. An angle is brought to the first
//! quadrant, and there each part is scaled so that it meets its exact value at 30, 45 or 60 degrees.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{ScalarUDF, Volatility};

use super::by_rows::{ByRows, float_of};
use crate::error::sqlstate;
use crate::{Error, Result};

/// The functions of this file.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    let of_one = |name, compute| ByRows {
        name,
        volatility: Volatility::Immutable,
        strict: true,
        takes: |types| numbers(types, 1),
        gives: |_| DataType::Float64,
        compute,
    };
    let of_two = ByRows { takes: |types| numbers(types, 2), ..of_one("atan2d", atan2d) };
    [
        of_one("sind", |values| of_angle(values, sine)),
        of_one("cosd", |values| of_angle(values, cosine)),
        of_one("tand", |values| of_angle(values, tangent)),
        of_one("cotd", |values| of_angle(values, cotangent)),
        of_one("asind", |values| of_share(values, arc_sine)),
        of_one("acosd", |values| of_share(values, arc_cosine)),
        of_one("atand", |values| Ok(double(arc_tangent(first(values)?.atan())))),
        of_two,
    ]
    .into_iter()
    .map(ByRows::function)
    .collect()
}

fn numbers(types: &[DataType], count: usize) -> Option<Vec<DataType>> {
    let all = types.iter().all(|data_type| data_type.is_numeric() || data_type.is_null());
    (types.len() == count && all).then(|| vec![DataType::Float64; count])
}

fn double(value: f64) -> ScalarValue {
    ScalarValue::Float64(Some(value))
}

fn first(values: &[ScalarValue]) -> Result<f64> {
    values.first().map_or_else(|| Err(Error::internal("a number was expected")), float_of)
}

fn out_of_range() -> Error {
    Error::new(sqlstate::NUMERIC_OUT_OF_RANGE, "input is out of range")
}

fn of_angle(values: &[ScalarValue], function: fn(f64) -> f64) -> Result<ScalarValue> {
    let angle = first(values)?;
    if angle.is_infinite() {
        return Err(out_of_range());
    }
    Ok(double(if angle.is_nan() { angle } else { function(angle % 360.0) }))
}

fn of_share(values: &[ScalarValue], function: fn(f64) -> f64) -> Result<ScalarValue> {
    let share = first(values)?;
    if share.abs() > 1.0 {
        return Err(out_of_range());
    }
    Ok(double(if share.is_nan() { share } else { function(share) }))
}

fn atan2d(values: &[ScalarValue]) -> Result<ScalarValue> {
    match values {
        [y, x] => Ok(double(arc_tangent(float_of(y)?.atan2(float_of(x)?)))),
        _ => Err(Error::internal("two numbers were expected")),
    }
}

/// The sine of up to 30 degrees.
fn small_sine(angle: f64) -> f64 {
    angle.to_radians().sin() / 30_f64.to_radians().sin() / 2.0
}

/// The cosine of up to 60 degrees.
fn small_cosine(angle: f64) -> f64 {
    1.0 - (1.0 - angle.to_radians().cos()) / (1.0 - 60_f64.to_radians().cos()) / 2.0
}

/// The sine of an angle of the first quadrant.
fn first_sine(angle: f64) -> f64 {
    if angle <= 30.0 { small_sine(angle) } else { small_cosine(90.0 - angle) }
}

/// The cosine of an angle of the first quadrant.
fn first_cosine(angle: f64) -> f64 {
    if angle <= 60.0 { small_cosine(angle) } else { small_sine(90.0 - angle) }
}

/// An angle brought to the first quadrant, with the signs of its sine and its cosine.
fn quadrant(angle: f64) -> (f64, f64, f64) {
    let (mut sine, mut cosine) = (1.0, 1.0);
    let mut angle = angle;
    if angle < 0.0 {
        angle = -angle;
        sine = -sine;
    }
    if angle > 180.0 {
        angle = 360.0 - angle;
        sine = -sine;
    }
    if angle > 90.0 {
        angle = 180.0 - angle;
        cosine = -cosine;
    }
    (angle, sine, cosine)
}

fn sine(angle: f64) -> f64 {
    let (angle, sign, _) = quadrant(angle);
    sign * first_sine(angle)
}

fn cosine(angle: f64) -> f64 {
    let (angle, _, sign) = quadrant(angle);
    sign * first_cosine(angle)
}

fn tangent(angle: f64) -> f64 {
    let (angle, sine, cosine) = quadrant(angle);
    let unit = first_sine(45.0) / first_cosine(45.0);
    without_sign_of_zero(sine * cosine * (first_sine(angle) / first_cosine(angle) / unit))
}

fn cotangent(angle: f64) -> f64 {
    let (angle, sine, cosine) = quadrant(angle);
    let unit = first_cosine(45.0) / first_sine(45.0);
    without_sign_of_zero(sine * cosine * (first_cosine(angle) / first_sine(angle) / unit))
}

/// PostgreSQL gives no negative zero for a tangent.
fn without_sign_of_zero(value: f64) -> f64 {
    if value == 0.0 { 0.0 } else { value }
}

fn arc_sine(share: f64) -> f64 {
    let positive = share.abs();
    let angle = if positive <= 0.5 {
        positive.asin() / 0.5_f64.asin() * 30.0
    } else {
        90.0 - positive.acos() / 0.5_f64.acos() * 60.0
    };
    if share >= 0.0 { angle } else { -angle }
}

fn arc_cosine(share: f64) -> f64 {
    if share < 0.0 {
        90.0 + arc_sine(-share)
    } else if share <= 0.5 {
        90.0 - share.asin() / 0.5_f64.asin() * 30.0
    } else {
        share.acos() / 0.5_f64.acos() * 60.0
    }
}

fn arc_tangent(radians: f64) -> f64 {
    radians / 1_f64.atan() * 45.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_values_are_exact() {
        for (found, expected) in [
            (sine(30.0), 0.5),
            (sine(150.0), 0.5),
            (sine(210.0), -0.5),
            (sine(180.0), 0.0),
            (cosine(60.0), 0.5),
            (cosine(-120.0), -0.5),
            (cosine(90.0), 0.0),
            (tangent(45.0), 1.0),
            (tangent(135.0), -1.0),
            (tangent(225.0), 1.0),
            (cotangent(45.0), 1.0),
            (arc_sine(0.5), 30.0),
            (arc_sine(-1.0), -90.0),
            (arc_cosine(0.5), 60.0),
            (arc_cosine(-0.5), 120.0),
            (arc_tangent(1_f64.atan()), 45.0),
        ] {
            assert_eq!(found, expected);
        }
    }
}
