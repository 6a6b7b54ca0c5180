//! `a[i]` and `a[i:j]`: places are counted from 1, and before the first one there is nothing.
//!
//! DataFusion's `array_element` and `array_slice` count places below zero from the end. The functions here have the same names
//! and give what PostgreSQL gives: NULL for such an element; a slice begins at the first element at the earliest.

use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, AsArray, Int64Array};
use arrow::datatypes::{DataType, Int64Type};
use datafusion::common::ScalarValue;
use datafusion::error::Result as DataFusionResult;
use datafusion::functions_nested::extract::{array_element_udf, array_slice_udf};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl};

use super::changed::{Change, changed, is_changed};

static ELEMENT: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| changed(array_element_udf(), FromTheFirst));

static SLICE: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| changed(array_slice_udf(), FromTheFirst));

/// The function that stands for one of DataFusion's; `None`: it is none of those, or is already one of these.
pub(crate) fn from_the_first(function: &ScalarUDF) -> Option<&'static Arc<ScalarUDF>> {
    if is_changed::<FromTheFirst>(function) {
        return None;
    }
    match function.name() {
        "array_element" => Some(&ELEMENT),
        "array_slice" => Some(&SLICE),
        _ => None,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct FromTheFirst;

impl Change for FromTheFirst {
    fn invoke(&self, inner: &dyn ScalarUDFImpl, mut arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        match arguments.args.as_mut_slice() {
            [_, place] => *place = moved(place, |place| (place >= 1).then_some(place))?,
            [_, first, last, ..] => {
                *first = moved(first, |first| Some(first.max(1)))?;
                // No element is at 0.
                *last = moved(last, |last| Some(last.max(0)))?;
            }
            _ => {}
        }
        inner.invoke_with_args(arguments)
    }
}

/// Places that are all right for DataFusion. Most are.
fn moved(places: &ColumnarValue, change: impl Fn(i64) -> Option<i64>) -> DataFusionResult<ColumnarValue> {
    Ok(match places {
        ColumnarValue::Scalar(ScalarValue::Int64(place)) => {
            ColumnarValue::Scalar(ScalarValue::Int64(place.and_then(change)))
        }
        ColumnarValue::Array(array) if *array.data_type() == DataType::Int64 => {
            let numbers = array.as_primitive::<Int64Type>();
            match numbers.values().iter().all(|place| *place >= 1) {
                true => places.clone(),
                false => {
                    let changed: Int64Array = numbers.unary_opt(change);
                    let changed: ArrayRef = Arc::new(changed);
                    ColumnarValue::Array(changed)
                }
            }
        }
        other => other.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_before_the_first_place() {
        let places: ArrayRef = Arc::new(Int64Array::from(vec![Some(2), Some(-1), None, Some(0)]));
        let kept = |place: i64| (place >= 1).then_some(place);
        let ColumnarValue::Array(found) = moved(&ColumnarValue::Array(places), kept).unwrap() else {
            panic!("a column became a constant");
        };
        assert_eq!(found.as_primitive::<Int64Type>(), &Int64Array::from(vec![Some(2), None, None, None]));
        let constant = ColumnarValue::Scalar(ScalarValue::Int64(Some(-1)));
        let found = moved(&constant, kept).unwrap();
        assert!(matches!(found, ColumnarValue::Scalar(ScalarValue::Int64(None))));
        assert!(from_the_first(&array_element_udf()).is_some_and(|own| from_the_first(own).is_none()));
    }
}
