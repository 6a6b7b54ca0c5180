//! Tables as DataFusion sees them: the user's ([`provider`]), the ones that describe the database
//! ([`information_schema`]), and sequences ([`sequence_table`]).

mod expression_index;
pub(crate) mod information_schema;
pub(crate) mod provider;
pub(crate) mod sequence_table;

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use rustydb_storage::{Catalog, TableDef};

use crate::constraints::shown_columns;
use crate::ddl::temporary::is_temporary;

/// Whether what is in a schema may be known to every session: it is not the schema of one's temporary relations.
pub fn is_shown_schema(schema: &str) -> bool {
    !is_temporary(schema)
}

/// The tables of a catalog that every session may know: none that is temporary, for it is another session's.
pub fn shown_tables(catalog: &Catalog) -> impl Iterator<Item = &Arc<TableDef>> {
    catalog.tables().filter(|table| is_shown_schema(&table.schema_name))
}

/// The columns of a table that its users see.
pub fn shown_schema(table: &TableDef) -> SchemaRef {
    let columns: Vec<usize> = (0..shown_columns(table)).collect();
    let shown = table.schema.project(&columns);
    Arc::new(shown.expect("the first columns of a schema can be taken out of it"))
}
