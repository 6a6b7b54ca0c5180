//! Functions of texts that PostgreSQL has of bytes as well: `substr`, `strpos`, those that trim, and lengths.
//!
//! The functions here are found for bytes, too, and say what type their result has. Before types are coerced their calls
//! become [functions of bytes](super::bytea) ([`crate::sql::tree::called_functions`]); for texts they are DataFusion's. A
//! `substr` of a text from a text is what `substring(a FROM b)` calls, and becomes [that of a pattern](super::regular).

use std::sync::{Arc, LazyLock};

use arrow::datatypes::DataType;
use datafusion::common::types::{NativeType, logical_binary, logical_int64, logical_string};
use datafusion::functions::unicode::{strpos, substr};
use datafusion::logical_expr::{Coercion, ScalarUDF, Signature, TypeSignature, TypeSignatureClass};

use super::changed::{Change, changed};

/// What `SUBSTRING(… FROM …)` calls.
pub(crate) static SUBSTR: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| widened(substr()));

/// What `POSITION(… IN …)` calls.
pub(crate) static STRPOS: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| widened(strpos()));

/// The function, for bytes as well if there is such a one.
pub(super) fn widened(function: Arc<ScalarUDF>) -> Arc<ScalarUDF> {
    // Not the class of all bytes, to which NULL belongs.
    let bytes = || Coercion::new_exact(TypeSignatureClass::Native(logical_binary()));
    let text = || Coercion::new_exact(TypeSignatureClass::Native(logical_string()));
    let number = || Coercion::new_exact(TypeSignatureClass::Integer);
    let wide = || {
        let long = TypeSignatureClass::Native(logical_int64());
        Coercion::new_implicit(long, vec![TypeSignatureClass::Integer], NativeType::Int64)
    };
    let (variants, result) = match function.name() {
        "substr" => {
            let of_bytes = [vec![bytes(), number()], vec![bytes(), number(), number()]];
            // With a pattern, it becomes another function.
            let of_texts = [vec![text(), wide()], vec![text(), wide(), wide()], vec![text(), text()]];
            (of_bytes.into_iter().chain(of_texts).collect(), DataType::BinaryView)
        }
        "strpos" => (vec![vec![bytes(), bytes()], vec![bytes(), text()], vec![text(), bytes()]], DataType::Int32),
        "btrim" | "ltrim" | "rtrim" => {
            (vec![vec![bytes(), bytes()], vec![bytes(), text()], vec![text(), bytes()]], DataType::BinaryView)
        }
        "octet_length" | "bit_length" => (vec![vec![bytes()]], DataType::Int32),
        _ => return function,
    };
    let mut signature = function.signature().clone();
    let variants = variants.into_iter().map(TypeSignature::Coercible);
    signature.type_signature = TypeSignature::OneOf(match signature.type_signature {
        TypeSignature::OneOf(known) => known.into_iter().chain(variants).collect(),
        known => std::iter::once(known).chain(variants).collect(),
    });
    changed(function, Widened { signature, result })
}

/// Whether it is the type of a bytea.
pub(super) fn is_bytea(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_))
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Widened {
    signature: Signature,
    /// The type of the result for bytes.
    result: DataType,
}

impl Change for Widened {
    fn signature(&self) -> Option<&Signature> {
        Some(&self.signature)
    }

    fn return_type(&self, types: &[DataType]) -> Option<DataType> {
        types.iter().any(is_bytea).then(|| self.result.clone())
    }
}
