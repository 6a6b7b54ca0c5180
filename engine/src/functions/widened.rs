//! Functions of texts that PostgreSQL has of bytes as well: `substr`, `strpos`, those that trim, and lengths.
//!
//! The functions here are found for bytes, too, and say what type their result has. Before types are coerced their calls
//! become [functions of bytes](super::bytea) ([`crate::sql::tree::called_functions`]); for texts they are DataFusion's.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::DataType;
use datafusion::common::types::{logical_binary, logical_string};
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
    let (variants, result) = match function.name() {
        "substr" => (vec![vec![bytes(), number()], vec![bytes(), number(), number()]], DataType::BinaryView),
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
