//! The tables that describe the database: `information_schema.*`, some of [`pg_catalog`], `rustydb_memory`, `rustydb_cache` and
//! `rustydb_plan_cache`.
//!
//! Their rows are made when they are read, from the view of the running statement, so that a transaction sees its own
//! uncommitted tables and nobody else's. Temporary relations of other sessions are in none of them. [`relations`],
//! [`routines`] and [`constraints`] fill what they are named after, [`fields`] says which columns there are.

mod constraints;
mod fields;
mod pg_catalog;
mod relations;
mod routines;
mod usage;

use std::fmt;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanBuilder, Float64Builder, Int32Builder, ListBuilder, RecordBatch, StringBuilder, UInt64Builder,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::streaming::StreamingTable;
use datafusion::datasource::TableProvider;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use futures::stream;
use rustydb_storage::{Catalog, ObjectDef, ObjectKind, TableDef};

use fields::fields_of;

use crate::ddl::temporary::{TemporarySchema, is_temporary};
use crate::scan::ExecutionView;
use crate::{CATALOG_NAME, DEFAULT_SCHEMA, Error, Result};

/// The schema these tables are in.
pub(crate) const INFORMATION_SCHEMA: &str = "information_schema";

/// The schema of what PostgreSQL knows of itself; looked into where a name has no schema, too.
pub(crate) const PG_CATALOG: &str = "pg_catalog";

/// Memory use by part; found without a schema, too.
const MEMORY_TABLE: &str = "rustydb_memory";

/// How well the programs of the row path are kept; found without a schema, too.
const PLAN_CACHE_TABLE: &str = "rustydb_plan_cache";

/// How well the column cache works; found without a schema, too.
const CACHE_TABLE: &str = "rustydb_cache";

/// The names of all these tables.
pub(crate) const NAMES: &[&str] = &[
    "tables",
    "columns",
    "schemata",
    "views",
    "df_settings",
    "table_constraints",
    "key_column_usage",
    "referential_constraints",
    "check_constraints",
    "constraint_column_usage",
    "sequences",
    "routines",
    "parameters",
    "triggers",
    "domains",
    "comments",
    "constraint_table_usage",
    "view_table_usage",
    "information_schema_catalog_name",
    "character_sets",
    MEMORY_TABLE,
    PLAN_CACHE_TABLE,
    CACHE_TABLE,
];

/// One of the tables that describe the database.
#[derive(Clone)]
pub(crate) struct VirtualTable {
    name: &'static str,
    schema: SchemaRef,
}

impl VirtualTable {
    /// The provider for `schema.name`, if there is such a table.
    pub(crate) fn find(schema: &str, name: &str) -> Option<Arc<dyn TableProvider>> {
        if let Some(name) = pg_catalog::NAMES.into_iter().find(|known| *known == name) {
            // What a user calls so in another schema is another table.
            return match schema {
                PG_CATALOG | DEFAULT_SCHEMA => Self::provider(name, pg_catalog::fields_of(name)),
                _ => None,
            };
        }
        let name = NAMES.iter().copied().find(|known| *known == name)?;
        if schema != INFORMATION_SCHEMA && ![MEMORY_TABLE, PLAN_CACHE_TABLE, CACHE_TABLE].contains(&name) {
            return None;
        }
        Self::provider(name, fields_of(name))
    }

    fn provider(name: &'static str, fields: Vec<Field>) -> Option<Arc<dyn TableProvider>> {
        let table = VirtualTable { name, schema: Arc::new(Schema::new(fields)) };
        let table_schema = Arc::clone(&table.schema);
        let provider = StreamingTable::try_new(table_schema, vec![Arc::new(table)]).ok()?;
        Some(Arc::new(provider))
    }

    fn rows(&self, context: &TaskContext) -> Result<RecordBatch> {
        let view = ExecutionView::of(context)?;
        let own = context.session_config().get_extension::<TemporarySchema>();
        let source = Source { catalog: view.view().catalog(), own: own.as_deref().map(TemporarySchema::name) };
        let mut rows = Rows::new(&self.schema);
        match self.name {
            "tables" => relations::tables(&source, &mut rows)?,
            "columns" => relations::columns(&source, &mut rows)?,
            "views" => relations::views(&source, &mut rows)?,
            "view_table_usage" => relations::view_table_usage(&source, &mut rows)?,
            "sequences" => relations::sequences(&source, &mut rows)?,
            "schemata" => relations::schemata(&source, &mut rows),
            "comments" => relations::all_comments(&source, &mut rows)?,
            "check_constraints" => constraints::check_constraints(&source, &mut rows)?,
            "constraint_column_usage" => constraints::constraint_column_usage(&source, &mut rows)?,
            "constraint_table_usage" => constraints::constraint_table_usage(&source, &mut rows)?,
            "table_constraints" => constraints::table_constraints(&source, &mut rows)?,
            "key_column_usage" => constraints::key_column_usage(&source, &mut rows)?,
            "referential_constraints" => constraints::referential_constraints(&source, &mut rows)?,
            "routines" => routines::routines(&source, &mut rows)?,
            "parameters" => routines::parameters(&source, &mut rows)?,
            // There are none; tools ask for them all the same.
            "triggers" | "domains" => {}
            "df_settings" => settings(context, &mut rows),
            "information_schema_catalog_name" => rows.push([Cell::Text(CATALOG_NAME)]),
            "character_sets" => rows.push([
                Cell::Null,
                Cell::Null,
                Cell::Text("UTF8"),
                Cell::Text("UCS"),
                Cell::Text("UTF8"),
                Cell::Text(CATALOG_NAME),
                Cell::Text("pg_catalog"),
                Cell::Text("C"),
            ]),
            MEMORY_TABLE => usage::memory(&view, context, &mut rows),
            PLAN_CACHE_TABLE => usage::plan_cache(context, &mut rows),
            CACHE_TABLE => usage::cache(&view, &mut rows),
            name => pg_catalog::fill(name, &source, &mut rows)?,
        }
        rows.finish(&self.schema)
    }
}

impl fmt::Debug for VirtualTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl PartitionStream for VirtualTable {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let table = self.clone();
        let batch = async move { table.rows(&context).map_err(Into::into) };
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), stream::once(batch)))
    }
}

/// What the rows are made from: a catalog without the temporary relations of other sessions.
struct Source<'a> {
    catalog: &'a Catalog,
    own: Option<&'a str>,
}

impl<'a> Source<'a> {
    fn is_shown(&self, schema: &str) -> bool {
        !is_temporary(schema) || self.own == Some(schema)
    }

    fn tables(&self) -> impl Iterator<Item = &'a TableDef> {
        self.catalog.tables().map(AsRef::as_ref).filter(|table: &&TableDef| self.is_shown(&table.schema_name))
    }

    fn objects(&self, kind: ObjectKind) -> impl Iterator<Item = &'a ObjectDef> {
        let objects = self.catalog.objects().map(AsRef::as_ref);
        objects.filter(move |object: &&ObjectDef| object.kind == kind && self.is_shown(&object.schema_name))
    }
}

/// A cell of a row in the making.
enum Cell<'a> {
    Text(&'a str),
    Number(i32),
    Bytes(u64),
    Share(f64),
    Flag(bool),
    Numbers(Vec<i32>),
    Null,
}

enum Builder {
    Text(StringBuilder),
    Number(Int32Builder),
    Bytes(UInt64Builder),
    Share(Float64Builder),
    Flag(BooleanBuilder),
    Numbers(ListBuilder<Int32Builder>),
}

/// Rows collected by column.
struct Rows(Vec<Builder>);

impl Rows {
    fn new(schema: &Schema) -> Self {
        Rows(
            schema
                .fields()
                .iter()
                .map(|field| match field.data_type() {
                    DataType::Int32 => Builder::Number(Int32Builder::new()),
                    DataType::UInt64 => Builder::Bytes(UInt64Builder::new()),
                    DataType::Float64 => Builder::Share(Float64Builder::new()),
                    DataType::Boolean => Builder::Flag(BooleanBuilder::new()),
                    DataType::List(_) => Builder::Numbers(ListBuilder::new(Int32Builder::new())),
                    _ => Builder::Text(StringBuilder::new()),
                })
                .collect(),
        )
    }

    fn push<'a>(&mut self, cells: impl IntoIterator<Item = Cell<'a>>) {
        for (builder, cell) in self.0.iter_mut().zip(cells) {
            match (builder, cell) {
                (Builder::Text(column), Cell::Text(value)) => column.append_value(value),
                (Builder::Text(column), _) => column.append_null(),
                (Builder::Number(column), Cell::Number(value)) => column.append_value(value),
                (Builder::Number(column), _) => column.append_null(),
                (Builder::Bytes(column), Cell::Bytes(value)) => column.append_value(value),
                (Builder::Bytes(column), _) => column.append_null(),
                (Builder::Share(column), Cell::Share(value)) => column.append_value(value),
                (Builder::Share(column), _) => column.append_null(),
                (Builder::Flag(column), Cell::Flag(value)) => column.append_value(value),
                (Builder::Flag(column), _) => column.append_null(),
                (Builder::Numbers(column), Cell::Numbers(values)) => column.append_value(values.into_iter().map(Some)),
                (Builder::Numbers(column), _) => column.append_null(),
            }
        }
    }

    fn finish(self, schema: &SchemaRef) -> Result<RecordBatch> {
        let columns = self.0.into_iter().map(|builder| -> ArrayRef {
            match builder {
                Builder::Text(mut column) => Arc::new(column.finish()),
                Builder::Number(mut column) => Arc::new(column.finish()),
                Builder::Bytes(mut column) => Arc::new(column.finish()),
                Builder::Share(mut column) => Arc::new(column.finish()),
                Builder::Flag(mut column) => Arc::new(column.finish()),
                Builder::Numbers(mut column) => Arc::new(column.finish()),
            }
        });
        RecordBatch::try_new(Arc::clone(schema), columns.collect()).map_err(Error::from)
    }
}

fn settings(context: &TaskContext, rows: &mut Rows) {
    let mut entries = context.session_config().options().entries();
    entries.sort_by(|left, right| left.key.cmp(&right.key));
    for entry in entries {
        let value = entry.value.as_deref().map_or(Cell::Null, Cell::Text);
        rows.push([Cell::Text(&entry.key), value, Cell::Text(entry.description)]);
    }
}
