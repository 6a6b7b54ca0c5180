//! What a table's declaration says beyond columns and keys: CHECK constraints, generated and identity columns.
//!
//! The store keeps them in the metadata of schema and fields and does not look at them. Expressions are kept as SQL text,
//! in the form in which the parser prints them.

use arrow::datatypes::Field;
use datafusion::sql::sqlparser::ast;
use rustydb_storage::TableDef;
use serde::{Deserialize, Serialize};

use crate::sql::parse::parse_expression;
use crate::{Error, Result};

/// Schema metadata: the CHECK constraints, as JSON.
pub(crate) const CHECKS_KEY: &str = "rustydb.checks";
/// Field metadata: the SQL text a generated column is computed by.
pub(crate) const GENERATED_KEY: &str = "rustydb.generated";
/// Field metadata: `always` or `by default`, for an identity column. Its default is `nextval` of its sequence.
pub(crate) const IDENTITY_KEY: &str = "rustydb.identity";

/// A CHECK constraint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Check {
    pub(crate) name: String,
    /// SQL text over the table's columns.
    pub(crate) expression: String,
    /// Whether rows older than the constraint have not been checked (`NOT VALID`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) not_validated: bool,
}

impl Check {
    pub(crate) fn syntax(&self) -> Result<ast::Expr> {
        parse_expression(&self.expression)
    }
}

/// A table's CHECK constraints.
pub(crate) fn checks_of(table: &TableDef) -> Result<Vec<Check>> {
    match table.schema.metadata().get(CHECKS_KEY) {
        None => Ok(Vec::new()),
        Some(text) => serde_json::from_str(text)
            .map_err(|error| Error::internal(format!("the checks of table \"{}\": {error}", table.name))),
    }
}

/// CHECK constraints as schema metadata; `None` if there are none.
pub(crate) fn checks_text(checks: &[Check]) -> Result<Option<String>> {
    if checks.is_empty() {
        return Ok(None);
    }
    serde_json::to_string(checks).map(Some).map_err(|error| Error::internal(format!("keeping checks: {error}")))
}

/// What a generated column is computed by.
pub(crate) fn generated_of(field: &Field) -> Result<Option<ast::Expr>> {
    field.metadata().get(GENERATED_KEY).map(|text| parse_expression(text)).transpose()
}

pub(crate) fn is_generated(field: &Field) -> bool {
    field.metadata().contains_key(GENERATED_KEY)
}

/// Whether values of the column can come from its sequence only.
pub(crate) fn is_identity_always(field: &Field) -> bool {
    field.metadata().get(IDENTITY_KEY).is_some_and(|kind| kind == "always")
}
