//! What a table's declaration says beyond columns and keys: CHECK constraints, generated and identity columns, and
//! indexes over expressions or a part of the rows.
//!
//! The store keeps them in the metadata of schema and fields and does not look at them. Expressions are kept as SQL text,
//! in the form in which the parser prints them.

use arrow::datatypes::Field;
use datafusion::sql::sqlparser::ast;
use rustydb_storage::TableDef;
use serde::{Deserialize, Serialize};

use crate::sql::text::parse::parse_expression;
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
    checks_in(table.schema.metadata(), &table.name)
}

/// The CHECK constraints in a table's schema metadata.
pub(crate) fn checks_in(metadata: &std::collections::HashMap<String, String>, table: &str) -> Result<Vec<Check>> {
    match metadata.get(CHECKS_KEY) {
        None => Ok(Vec::new()),
        Some(text) => serde_json::from_str(text)
            .map_err(|error| Error::internal(format!("the checks of table \"{table}\": {error}"))),
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

/// Whether a column is an identity.
pub(crate) fn is_identity(field: &Field) -> bool {
    field.metadata().contains_key(IDENTITY_KEY)
}

/// Schema metadata: what the store does not know of indexes, as JSON.
pub(crate) const INDEXES_KEY: &str = "rustydb.indexes";
/// Field metadata: a column that holds what a unique index compares, and that nobody sees. It is a generated column, and
/// comes after all that are seen.
pub(crate) const HIDDEN_KEY: &str = "rustydb.hidden";
/// The names of hidden columns begin with this, the index and a colon; what follows is what an error shows.
pub(crate) const HIDDEN_PREFIX: &str = "__index ";

/// An index over expressions, or over a part of the rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IndexText {
    pub(crate) name: String,
    /// SQL text of what it orders by.
    pub(crate) keys: Vec<String>,
    /// Which rows are in it, if not all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) predicate: Option<String>,
    pub(crate) unique: bool,
    #[serde(default = "yes", skip_serializing_if = "Clone::clone")]
    pub(crate) nulls_distinct: bool,
}

fn yes() -> bool {
    true
}

/// A table's indexes over expressions or a part of the rows.
pub(crate) fn index_texts(table: &TableDef) -> Result<Vec<IndexText>> {
    match table.schema.metadata().get(INDEXES_KEY) {
        None => Ok(Vec::new()),
        Some(text) => serde_json::from_str(text)
            .map_err(|error| Error::internal(format!("the indexes of table \"{}\": {error}", table.name))),
    }
}

/// Puts indexes into a schema's metadata.
pub(crate) fn set_index_texts(
    metadata: &mut std::collections::HashMap<String, String>,
    indexes: &[IndexText],
) -> Result<()> {
    metadata.remove(INDEXES_KEY);
    if !indexes.is_empty() {
        let text = serde_json::to_string(indexes);
        let text = text.map_err(|error| Error::internal(format!("keeping indexes: {error}")))?;
        metadata.insert(INDEXES_KEY.to_owned(), text);
    }
    Ok(())
}

/// Whether a column only serves an index.
pub(crate) fn is_hidden(field: &Field) -> bool {
    field.metadata().contains_key(HIDDEN_KEY)
}

/// The columns of a table that its users see: the first ones.
pub(crate) fn shown_columns(table: &TableDef) -> usize {
    table.schema.fields().iter().take_while(|field| !is_hidden(field)).count()
}
