//! `coalesce` of values and of constants whose type is open: `coalesce(day, '2020-01-01')`.
//!
//! DataFusion knows no common type of a date and a text. The constants are given the type of the other arguments by
//! [`crate::sql::tree::unknown_literals`], but while a query is planned their types are asked for already.

use arrow::datatypes::DataType;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::ScalarUDFImpl;

use super::changed::Change;
use crate::sql::tree::unknown_literals::type_beside;

/// For more types of arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Coalesce;

impl Change for Coalesce {
    fn coerce_types(&self, inner: &dyn ScalarUDFImpl, types: &[DataType]) -> DataFusionResult<Vec<DataType>> {
        inner.coerce_types(types).or_else(|error| {
            // Constants come as Utf8, texts of columns and casts as Utf8View.
            let known = types.iter().filter(|data_type| **data_type != DataType::Utf8);
            match type_beside(known) {
                Some(wanted) => Ok(vec![wanted; types.len()]),
                None => Err(error),
            }
        })
    }
}
