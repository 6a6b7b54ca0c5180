//! Functions of texts that PostgreSQL has of bytes as well: `substr`, `strpos`, those that trim, and lengths.
//!
//! The functions here are found for bytes, too, and say what type their result has. Before types are coerced their calls
//! become [functions of bytes](super::bytea) ([`crate::sql::called_functions`]); for texts they are DataFusion's.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::types::{logical_binary, logical_string};
use datafusion::error::Result as DataFusionResult;
use datafusion::functions::unicode::{strpos, substr};
use datafusion::logical_expr::{
    Coercion, ColumnarValue, Documentation, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, TypeSignature, TypeSignatureClass,
};

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
    Arc::new(ScalarUDF::from(Widened { inner: function, signature, result }))
}

/// Whether it is the type of a bytea.
pub(super) fn is_bytea(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Widened {
    inner: Arc<ScalarUDF>,
    signature: Signature,
    /// The type of the result for bytes.
    result: DataType,
}

impl Widened {
    /// The type of the result, if one of the arguments is bytes.
    fn of_bytes<'a>(&self, mut types: impl Iterator<Item = &'a DataType>) -> Option<DataType> {
        types.any(is_bytea).then(|| self.result.clone())
    }
}

impl ScalarUDFImpl for Widened {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.inner().aliases()
    }

    fn schema_name(&self, arguments: &[Expr]) -> DataFusionResult<String> {
        self.inner.inner().schema_name(arguments)
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, argument_types: &[DataType]) -> DataFusionResult<DataType> {
        match self.of_bytes(argument_types.iter()) {
            Some(result) => Ok(result),
            None => self.inner.inner().return_type(argument_types),
        }
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs) -> DataFusionResult<FieldRef> {
        match self.of_bytes(arguments.arg_fields.iter().map(|field| field.data_type())) {
            Some(result) => Ok(Arc::new(Field::new(self.name(), result, true))),
            None => self.inner.inner().return_field_from_args(arguments),
        }
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        self.inner.inner().invoke_with_args(arguments)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.inner().documentation()
    }
}
