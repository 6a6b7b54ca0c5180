//! Casts of arrays that treat each element as the cast of a single value would.
//!
//! | cast | Arrow's | here |
//! |---|---|---|
//! | `ARRAY[1.6, 2.5]::int[]` | `{1,2}` | `{2,3}` |
//! | `ARRAY[0.1::real]::numeric[]` | `{0.1000000015}` | `{0.1000000000}` |
//! | `ARRAY[1e20::float8]::text[]` | `{1e20}` | `{1e+20}` |
//! | `ARRAY['2024-01-01 10:00']::timestamp[]` | refused | [read](super::input) |

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, ListArray};
use arrow::buffer::OffsetBuffer;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Float32Type, Float64Type};
use datafusion::common::{ScalarValue, exec_err};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, lit,
};

use super::floats_as_numerics::numerics_of;
use super::input::{read_texts_by_clock, reads};
use super::printed::{print, prints};
use crate::Result;

static CAST: LazyLock<Arc<ScalarUDF>> =
    LazyLock::new(|| Arc::new(ScalarUDF::from(CastArray { signature: Signature::any(3, Volatility::Immutable) })));

/// Whether a cast is one of arrays that has to be made here.
pub(crate) fn converts_elements(from: &DataType, to: &DataType) -> bool {
    match (from, to) {
        (DataType::List(from), DataType::List(to)) => match (from.data_type(), to.data_type()) {
            (from @ DataType::List(_), to @ DataType::List(_)) => converts_elements(from, to),
            (DataType::List(_), _) | (_, DataType::List(_)) => false,
            (from, to) if from.is_string() => reads(to),
            (from, to) if to.is_string() => prints(from),
            (DataType::Float32 | DataType::Float64, DataType::Decimal128(..)) => true,
            (DataType::Float32 | DataType::Float64 | DataType::Decimal128(_, 1..), to) => to.is_integer(),
            _ => false,
        },
        _ => false,
    }
}

/// The type that an array of arrays becomes if its elements are to be those of another array: `int[]` is the type of all
/// dimensions in PostgreSQL. `None`: it has no more of them than that.
pub(crate) fn as_deep(from: &DataType, to: &DataType) -> Option<DataType> {
    let dimensions = |data_type: &DataType| {
        let inside = |array: &DataType| match array {
            DataType::List(element) => Some(element.data_type().clone()),
            _ => None,
        };
        std::iter::successors(inside(data_type), inside).count()
    };
    let (more, wanted) = (dimensions(from), dimensions(to));
    (wanted > 0 && more > wanted).then(|| {
        (wanted..more).fold(to.clone(), |array, _| DataType::List(Arc::new(Field::new_list_field(array, true))))
    })
}

/// The cast of an array; times with time zone by the clock of a zone.
pub(crate) fn cast_elements(array: Expr, to: &DataType, zone: &str) -> DataFusionResult<Expr> {
    Ok(CAST.call(vec![array, lit(ScalarValue::try_from(to)?), lit(zone)]))
}

/// Casts arrays, and their elements.
pub(crate) fn cast_arrays(values: &ArrayRef, to: &DataType, zone: &str) -> Result<ArrayRef> {
    let exact = CastOptions { safe: false, ..CastOptions::default() };
    Ok(match (values.data_type(), to) {
        (DataType::List(_), DataType::List(element)) => {
            let arrays = values.as_list::<i32>();
            // Of a slice of arrays, the elements of the others are there as well.
            let offsets = arrays.value_offsets();
            let begin = offsets.first().copied().unwrap_or(0) as usize;
            let end = offsets.last().copied().unwrap_or(0) as usize;
            let elements = cast_arrays(&arrays.values().slice(begin, end - begin), element.data_type(), zone)?;
            let offsets = OffsetBuffer::from_lengths(arrays.offsets().lengths());
            Arc::new(ListArray::try_new(Arc::clone(element), offsets, elements, arrays.nulls().cloned())?)
        }
        (from, to) if from.is_string() && reads(to) => read_texts_by_clock(values, to, zone)?,
        (from, to) if to.is_string() && prints(from) => cast_with_options(&print(values, zone)?, to, &exact)?,
        (DataType::Float32 | DataType::Float64, DataType::Decimal128(precision, scale)) => {
            numerics_of(values, *precision, *scale)?
        }
        (DataType::Float32, to) if to.is_integer() => {
            let rounded = values.as_primitive::<Float32Type>().unary::<_, Float32Type>(f32::round_ties_even);
            cast_with_options(&rounded, to, &exact)?
        }
        (DataType::Float64, to) if to.is_integer() => {
            let rounded = values.as_primitive::<Float64Type>().unary::<_, Float64Type>(f64::round_ties_even);
            cast_with_options(&rounded, to, &exact)?
        }
        (DataType::Decimal128(_, 1..), to) if to.is_integer() => {
            let rounded = cast_with_options(values, &DataType::Decimal128(38, 0), &exact)?;
            cast_with_options(&rounded, to, &exact)?
        }
        (_, to) => cast_with_options(values, to, &exact)?,
    })
}

/// `cast_array(array, a NULL of the type that is wanted, zone)`
#[derive(Debug, PartialEq, Eq, Hash)]
struct CastArray {
    signature: Signature,
}

impl ScalarUDFImpl for CastArray {
    fn name(&self) -> &str {
        "cast_array"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, argument_types: &[DataType]) -> DataFusionResult<DataType> {
        match argument_types {
            [_, wanted, _] => Ok(wanted.clone()),
            _ => exec_err!("cast_array takes 3 arguments"),
        }
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let [array, wanted, ColumnarValue::Scalar(zone)] = arguments.args.as_slice() else {
            return exec_err!("cast_array takes an array, a NULL, and the name of a time zone");
        };
        let zone = zone.try_as_str().flatten().unwrap_or("UTC");
        let constant = matches!(array, ColumnarValue::Scalar(_));
        let arrays = array.to_array(if constant { 1 } else { arguments.number_rows })?;
        let cast = cast_arrays(&arrays, &wanted.data_type(), zone)?;
        Ok(match constant {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&cast, 0)?),
            false => ColumnarValue::Array(cast),
        })
    }
}
