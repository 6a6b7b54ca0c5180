//! The length of a bytea, `LIKE` and `OVERLAY` of bytes. DataFusion takes bytes for a text in all of them, which most
//! are not.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, BinaryViewBuilder, BooleanArray, Int32Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use datafusion::common::exec_err;
use datafusion::common::utils::take_function_args;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use crate::error::sqlstate;
use crate::{Error, Result};

static BYTE_LENGTH: LazyLock<Arc<ScalarUDF>> =
    LazyLock::new(|| Arc::new(ScalarUDF::from(ByteLength { signature: Signature::any(1, Volatility::Immutable) })));

/// The number of bytes in a bytea.
pub(crate) fn byte_length(bytes: Expr) -> Expr {
    BYTE_LENGTH.call(vec![bytes])
}

static BYTES_LIKE: LazyLock<Arc<ScalarUDF>> =
    LazyLock::new(|| Arc::new(ScalarUDF::from(BytesLike { signature: Signature::any(2, Volatility::Immutable) })));

/// Whether bytes match a pattern of bytes, in which `\\` makes the next byte stand for itself.
pub(crate) fn bytes_like(bytes: Expr, pattern: Expr) -> Expr {
    BYTES_LIKE.call(vec![bytes, pattern])
}

static BYTE_OVERLAY: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| {
    Arc::new(ScalarUDF::from(ByteOverlay { signature: Signature::variadic_any(Volatility::Immutable) }))
});

/// `OVERLAY(bytes PLACING bytes FROM start [FOR length])`
pub(crate) fn byte_overlay(arguments: Vec<Expr>) -> Expr {
    BYTE_OVERLAY.call(arguments)
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ByteOverlay {
    signature: Signature,
}

impl ScalarUDFImpl for ByteOverlay {
    fn name(&self) -> &str {
        "byte_overlay"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _argument_types: &[DataType]) -> DataFusionResult<DataType> {
        Ok(DataType::BinaryView)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let rows = arguments.number_rows;
        let columns = arguments.args.iter().map(|argument| argument.to_array(rows));
        let columns = columns.collect::<DataFusionResult<Vec<ArrayRef>>>()?;
        let [bytes, placed, numbers @ ..] = columns.as_slice() else {
            return exec_err!("{} takes bytes and the place for others", self.name());
        };
        let (bytes, placed) = (cast(bytes, &DataType::BinaryView)?, cast(placed, &DataType::BinaryView)?);
        let (bytes, placed) = (bytes.as_binary_view(), placed.as_binary_view());
        let mut places = Vec::with_capacity(numbers.len());
        for number in numbers {
            places.push(cast(number, &DataType::Int64)?);
        }
        let mut results = BinaryViewBuilder::with_capacity(rows);
        for row in 0..rows {
            if bytes.is_null(row) || placed.is_null(row) || places.iter().any(|numbers| numbers.is_null(row)) {
                results.append_null();
                continue;
            }
            let number = |place: usize| places.get(place).map(|numbers| numbers.as_primitive::<Int64Type>().value(row));
            let (bytes, placed) = (bytes.value(row), placed.value(row));
            let length = number(1).unwrap_or(i64::try_from(placed.len()).unwrap_or(i64::MAX));
            results.append_value(overlaid(bytes, placed, number(0).unwrap_or(1), length)?);
        }
        Ok(ColumnarValue::Array(Arc::new(results.finish())))
    }
}

/// The bytes with others in the place of so many from a place on, which is counted from 1.
fn overlaid(bytes: &[u8], placed: &[u8], start: i64, length: i64) -> Result<Vec<u8>> {
    if start < 1 {
        return Err(Error::new(sqlstate::INVALID_SUBSTRING, "negative substring length not allowed"));
    }
    let within = |place: i64| usize::try_from(place.max(0)).unwrap_or(usize::MAX).min(bytes.len());
    let (before, after) = (within(start - 1), within((start - 1).saturating_add(length)));
    Ok([&bytes[..before], placed, &bytes[after..]].concat())
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct BytesLike {
    signature: Signature,
}

impl ScalarUDFImpl for BytesLike {
    fn name(&self) -> &str {
        "bytes_like"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _argument_types: &[DataType]) -> DataFusionResult<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let rows = arguments.number_rows;
        let [bytes, patterns] = take_function_args(self.name(), arguments.args)?;
        let views = |value: ColumnarValue| cast(&value.to_array(rows)?, &DataType::BinaryView).map_err(Into::into);
        let (bytes, patterns): (DataFusionResult<_>, DataFusionResult<_>) = (views(bytes), views(patterns));
        let (bytes, patterns) = (bytes?, patterns?);
        let pairs = bytes.as_binary_view().iter().zip(patterns.as_binary_view());
        let found: BooleanArray = pairs.map(|(bytes, pattern)| Some(matches(bytes?, pattern?))).collect();
        Ok(ColumnarValue::Array(Arc::new(found)))
    }
}

/// A `%` that can be given another byte is remembered, and only the last one: what it leaves is as good for those before.
fn matches(bytes: &[u8], pattern: &[u8]) -> bool {
    let (mut at, mut place) = (0, 0);
    let mut any: Option<(usize, usize)> = None;
    loop {
        let step = match pattern.get(place) {
            Some(b'%') => {
                any = Some((at, place + 1));
                place += 1;
                continue;
            }
            Some(b'_') => (at < bytes.len()).then_some(1),
            Some(b'\\') => (pattern.get(place + 1) == bytes.get(at) && at < bytes.len()).then_some(2),
            Some(byte) => (bytes.get(at) == Some(byte)).then_some(1),
            None if at == bytes.len() => return true,
            None => None,
        };
        match (step, any) {
            (Some(width), _) => (at, place) = (at + 1, place + width),
            (None, Some((given, after))) if given < bytes.len() => {
                any = Some((given + 1, after));
                (at, place) = (given + 1, after);
            }
            (None, _) => return false,
        }
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ByteLength {
    signature: Signature,
}

impl ScalarUDFImpl for ByteLength {
    fn name(&self) -> &str {
        "byte_length"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _argument_types: &[DataType]) -> DataFusionResult<DataType> {
        Ok(DataType::Int32)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let [bytes] = take_function_args(self.name(), arguments.args)?;
        let bytes = cast(&bytes.to_array(arguments.number_rows)?, &DataType::BinaryView)?;
        let bytes = bytes.as_binary_view();
        let lengths: Int32Array =
            bytes.iter().map(|bytes| bytes.map(|bytes| i32::try_from(bytes.len()).unwrap_or(i32::MAX))).collect();
        Ok(ColumnarValue::Array(Arc::new(lengths)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_match_patterns() {
        let cases: &[(&[u8], &[u8], bool)] = &[
            (b"abc", b"abc", true),
            (b"abc", b"a%", true),
            (b"abc", b"%c", true),
            (b"abcbc", b"a%bc", true),
            (b"abc", b"_b_", true),
            (b"abc", b"__", false),
            (b"", b"%", true),
            (b"", b"_", false),
            (b"a%c", b"a\\%c", true),
            (b"abc", b"a\\%c", false),
            (b"\xff\x00", b"\xff_", true),
            (b"aaaaab", b"%a%a%b", true),
            (b"abc", b"%d%", false),
            (b"a", b"a\\", false),
        ];
        for (bytes, pattern, expected) in cases {
            assert_eq!(matches(bytes, pattern), *expected, "{bytes:?} LIKE {pattern:?}");
        }
    }

    #[test]
    fn bytes_are_put_over_others() {
        assert_eq!(overlaid(b"abc", b"xx", 1, 1).unwrap(), b"xxbc");
        assert_eq!(overlaid(b"abc", b"x", 9, 1).unwrap(), b"abcx");
        assert_eq!(overlaid(b"abc", b"x", 2, 0).unwrap(), b"axbc");
        assert_eq!(overlaid(b"abc", b"x", 3, -2).unwrap(), b"abxabc");
        assert_eq!(overlaid(b"abc", b"x", 0, 1).unwrap_err().sqlstate(), "22011");
    }
}
