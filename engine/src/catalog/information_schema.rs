//! The tables that describe the database: `information_schema.*`, `rustydb_memory` and
//! `rustydb_plan_cache`.
//!
//! Their rows are made when they are read, from the view of the running statement, so that a transaction sees its own
//! uncommitted tables and nobody else's.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Builder, Int32Builder, RecordBatch, StringBuilder, UInt64Builder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::catalog::streaming::StreamingTable;
use datafusion::datasource::TableProvider;
use datafusion::execution::memory_pool::MemoryLimit;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use futures::stream;
use rustydb_storage::{Catalog, ForeignKey, ObjectKind, ReferenceAction, TableDef};

use crate::constraints::{GENERATED_KEY, IDENTITY_KEY, checks_of};
use crate::ddl::declaration::columns_in;
use crate::ddl::view::ViewDefinition;
use crate::routine::definition::RoutineDefinition;
use crate::row_path::{ProgramCache, ProgramCacheUsage};
use crate::scan::ExecutionView;
use crate::sequences::SequenceDefinition;
use crate::sql::types::{DEFAULT_KEY, LENGTH_KEY, declared_name};
use crate::{CATALOG_NAME, DEFAULT_SCHEMA, Error, Result};

/// The schema these tables are in.
pub(crate) const INFORMATION_SCHEMA: &str = "information_schema";

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
        let name = NAMES.iter().copied().find(|known| *known == name)?;
        if schema != INFORMATION_SCHEMA && ![MEMORY_TABLE, PLAN_CACHE_TABLE, CACHE_TABLE].contains(&name) {
            return None;
        }
        let table = VirtualTable { name, schema: Arc::new(Schema::new(fields_of(name))) };
        let table_schema = Arc::clone(&table.schema);
        let provider = StreamingTable::try_new(table_schema, vec![Arc::new(table)]).ok()?;
        Some(Arc::new(provider))
    }

    fn rows(&self, context: &TaskContext) -> Result<RecordBatch> {
        let view = ExecutionView::of(context)?;
        let catalog = view.view().catalog();
        let mut rows = Rows::new(&self.schema);
        match self.name {
            "tables" => tables(catalog, &mut rows),
            "columns" => columns(catalog, &mut rows)?,
            "views" => views(catalog, &mut rows)?,
            "sequences" => sequences(catalog, &mut rows)?,
            "check_constraints" => check_constraints(catalog, &mut rows)?,
            "constraint_column_usage" => constraint_column_usage(catalog, &mut rows)?,
            "schemata" => schemata(catalog, &mut rows),
            "df_settings" => settings(context, &mut rows),
            "table_constraints" => table_constraints(catalog, &mut rows)?,
            "key_column_usage" => key_column_usage(catalog, &mut rows)?,
            "referential_constraints" => referential_constraints(catalog, &mut rows)?,
            MEMORY_TABLE => memory(&view, context, &mut rows),
            "routines" => routines(catalog, &mut rows)?,
            PLAN_CACHE_TABLE => plan_cache(context, &mut rows),
            CACHE_TABLE => cache(&view, &mut rows),
            _ => {}
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

fn text(name: &str) -> Field {
    Field::new(name, DataType::Utf8, false)
}

fn optional_text(name: &str) -> Field {
    Field::new(name, DataType::Utf8, true)
}

fn optional_number(name: &str) -> Field {
    Field::new(name, DataType::Int32, true)
}

/// Columns as in PostgreSQL's information_schema, as far as they mean something here.
fn fields_of(table: &str) -> Vec<Field> {
    match table {
        "tables" => vec![text("table_catalog"), text("table_schema"), text("table_name"), text("table_type")],
        "columns" => vec![
            text("table_catalog"),
            text("table_schema"),
            text("table_name"),
            text("column_name"),
            optional_number("ordinal_position"),
            optional_text("column_default"),
            text("is_nullable"),
            text("data_type"),
            optional_number("character_maximum_length"),
            optional_number("numeric_precision"),
            optional_number("numeric_precision_radix"),
            optional_number("numeric_scale"),
            optional_number("datetime_precision"),
            text("is_identity"),
            optional_text("identity_generation"),
            text("is_generated"),
            optional_text("generation_expression"),
        ],
        "check_constraints" => {
            vec![text("constraint_catalog"), text("constraint_schema"), text("constraint_name"), text("check_clause")]
        }
        "constraint_column_usage" => vec![
            text("table_catalog"),
            text("table_schema"),
            text("table_name"),
            text("column_name"),
            text("constraint_catalog"),
            text("constraint_schema"),
            text("constraint_name"),
        ],
        "sequences" => vec![
            text("sequence_catalog"),
            text("sequence_schema"),
            text("sequence_name"),
            text("data_type"),
            optional_number("numeric_precision"),
            optional_number("numeric_precision_radix"),
            optional_number("numeric_scale"),
            text("start_value"),
            text("minimum_value"),
            text("maximum_value"),
            text("increment"),
            text("cycle_option"),
        ],
        "routines" => vec![
            text("specific_catalog"),
            text("specific_schema"),
            text("specific_name"),
            text("routine_catalog"),
            text("routine_schema"),
            text("routine_name"),
            optional_text("routine_type"),
            optional_text("data_type"),
        ],
        "schemata" => vec![text("catalog_name"), text("schema_name"), optional_text("schema_owner")],
        "views" => {
            vec![
                text("table_catalog"),
                text("table_schema"),
                text("table_name"),
                optional_text("view_definition"),
                text("check_option"),
                text("is_updatable"),
                text("is_insertable_into"),
            ]
        }
        "df_settings" => vec![text("name"), optional_text("value"), optional_text("description")],
        "table_constraints" => vec![
            text("constraint_catalog"),
            text("constraint_schema"),
            text("constraint_name"),
            text("table_catalog"),
            text("table_schema"),
            text("table_name"),
            text("constraint_type"),
            text("is_deferrable"),
            text("initially_deferred"),
            text("enforced"),
        ],
        "key_column_usage" => vec![
            text("constraint_catalog"),
            text("constraint_schema"),
            text("constraint_name"),
            text("table_catalog"),
            text("table_schema"),
            text("table_name"),
            text("column_name"),
            optional_number("ordinal_position"),
            optional_number("position_in_unique_constraint"),
        ],
        "referential_constraints" => vec![
            text("constraint_catalog"),
            text("constraint_schema"),
            text("constraint_name"),
            text("unique_constraint_catalog"),
            text("unique_constraint_schema"),
            text("unique_constraint_name"),
            text("match_option"),
            text("update_rule"),
            text("delete_rule"),
        ],
        PLAN_CACHE_TABLE => vec![text("name"), Field::new("value", DataType::UInt64, false)],
        CACHE_TABLE => vec![
            Field::new("hits", DataType::UInt64, false),
            Field::new("misses", DataType::UInt64, false),
            Field::new("evictions", DataType::UInt64, false),
            Field::new("hit_rate", DataType::Float64, true),
        ],
        _ => vec![
            text("part"),
            Field::new("bytes", DataType::UInt64, false),
            Field::new("limit_bytes", DataType::UInt64, true),
        ],
    }
}

/// A cell of a row in the making.
enum Cell<'a> {
    Text(&'a str),
    Number(i32),
    Bytes(u64),
    Share(f64),
    Null,
}

enum Builder {
    Text(StringBuilder),
    Number(Int32Builder),
    Bytes(UInt64Builder),
    Share(Float64Builder),
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
            }
        });
        RecordBatch::try_new(Arc::clone(schema), columns.collect()).map_err(Error::from)
    }
}

fn tables(catalog: &Catalog, rows: &mut Rows) {
    use Cell::Text;
    for table in catalog.tables() {
        rows.push([Text(CATALOG_NAME), Text(&table.schema_name), Text(&table.name), Text("BASE TABLE")]);
    }
    for view in catalog.objects().filter(|object| object.kind == ObjectKind::View) {
        rows.push([Text(CATALOG_NAME), Text(&view.schema_name), Text(&view.name), Text("VIEW")]);
    }
    for name in NAMES {
        rows.push([Text(CATALOG_NAME), Text(INFORMATION_SCHEMA), Text(name), Text("VIEW")]);
    }
}

fn views(catalog: &Catalog, rows: &mut Rows) -> Result<()> {
    use Cell::Text;
    for view in catalog.objects().filter(|object| object.kind == ObjectKind::View) {
        let definition = ViewDefinition::of(view)?;
        rows.push([
            Text(CATALOG_NAME),
            Text(&view.schema_name),
            Text(&view.name),
            Text(&definition.query),
            Text("NONE"),
            Text("NO"),
            Text("NO"),
        ]);
    }
    Ok(())
}

fn routines(catalog: &Catalog, rows: &mut Rows) -> Result<()> {
    use Cell::Text;
    for object in catalog.objects().filter(|object| object.kind == ObjectKind::Routine) {
        let definition = RoutineDefinition::of(object)?;
        let specific = format!("{}_{}", definition.name, object.id.0);
        let data_type = definition.result_name();
        rows.push([
            Text(CATALOG_NAME),
            Text(&object.schema_name),
            Text(&specific),
            Text(CATALOG_NAME),
            Text(&object.schema_name),
            Text(&definition.name),
            Text(if definition.is_procedure { "PROCEDURE" } else { "FUNCTION" }),
            data_type.as_deref().map_or(Cell::Null, Text),
        ]);
    }
    Ok(())
}

fn sequences(catalog: &Catalog, rows: &mut Rows) -> Result<()> {
    use Cell::{Number, Text};
    for sequence in catalog.objects().filter(|object| object.kind == ObjectKind::Sequence) {
        let SequenceDefinition { data_type, spec, owner: _ } = SequenceDefinition::of(sequence)?;
        let bits = match data_type.as_str() {
            "smallint" => 16,
            "integer" => 32,
            _ => 64,
        };
        let [start, minimum, maximum, increment] =
            [spec.start, spec.minimum, spec.maximum, spec.increment].map(|value| value.to_string());
        rows.push([
            Text(CATALOG_NAME),
            Text(&sequence.schema_name),
            Text(&sequence.name),
            Text(&data_type),
            Number(bits),
            Number(2),
            Number(0),
            Text(&start),
            Text(&minimum),
            Text(&maximum),
            Text(&increment),
            Text(if spec.cycle { "YES" } else { "NO" }),
        ]);
    }
    Ok(())
}

fn columns(catalog: &Catalog, rows: &mut Rows) -> Result<()> {
    for view in catalog.objects().filter(|object| object.kind == ObjectKind::View) {
        for (index, field) in ViewDefinition::of(view)?.fields().iter().enumerate() {
            push_column(rows, &view.schema_name, &view.name, index, field);
        }
    }
    for table in catalog.tables() {
        for (index, field) in table.schema.fields().iter().enumerate() {
            push_column(rows, &table.schema_name, &table.name, index, field);
        }
    }
    for name in NAMES {
        for (index, field) in fields_of(name).iter().enumerate() {
            push_column(rows, INFORMATION_SCHEMA, name, index, field);
        }
    }
    Ok(())
}

fn push_column(rows: &mut Rows, schema: &str, table: &str, index: usize, field: &Field) {
    use Cell::{Null, Number, Text};
    let declared = declared_name(field);
    let length = field.metadata().get(LENGTH_KEY).and_then(|length| length.parse().ok()).map_or(Null, Number);
    let (precision, radix, scale) = match field.data_type() {
        DataType::Decimal128(precision, scale) => {
            (Number(i32::from(*precision)), Number(10), Number(i32::from(*scale)))
        }
        DataType::Int8 | DataType::UInt8 => (Number(8), Number(2), Number(0)),
        DataType::Int16 | DataType::UInt16 => (Number(16), Number(2), Number(0)),
        DataType::Int32 | DataType::UInt32 => (Number(32), Number(2), Number(0)),
        DataType::Int64 | DataType::UInt64 => (Number(64), Number(2), Number(0)),
        DataType::Float32 => (Number(24), Number(2), Null),
        DataType::Float64 => (Number(53), Number(2), Null),
        _ => (Null, Null, Null),
    };
    let digits = match field.data_type() {
        DataType::Date32 | DataType::Timestamp(TimeUnit::Second, _) => Number(0),
        DataType::Timestamp(TimeUnit::Millisecond, _) => Number(3),
        DataType::Timestamp(TimeUnit::Nanosecond, _) | DataType::Time64(TimeUnit::Nanosecond) => Number(9),
        DataType::Timestamp(TimeUnit::Microsecond, _) | DataType::Time64(_) => Number(6),
        _ => Null,
    };
    let identity = field.metadata().get(IDENTITY_KEY).map(|kind| match kind.as_str() {
        "always" => "ALWAYS",
        _ => "BY DEFAULT",
    });
    let generated = field.metadata().get(GENERATED_KEY).map(String::as_str);
    let default = field.metadata().get(DEFAULT_KEY).filter(|_| identity.is_none());
    rows.push([
        Text(CATALOG_NAME),
        Text(schema),
        Text(table),
        Text(field.name()),
        Number(i32::try_from(index + 1).unwrap_or(i32::MAX)),
        default.map_or(Null, |default| Text(default)),
        Text(if field.is_nullable() { "YES" } else { "NO" }),
        // The precise type is in the columns that follow; this one has the bare name, as PostgreSQL has it.
        Text(declared.split('(').next().unwrap_or(&declared)),
        length,
        precision,
        radix,
        scale,
        digits,
        Text(if identity.is_some() { "YES" } else { "NO" }),
        identity.map_or(Null, Text),
        Text(if generated.is_some() { "ALWAYS" } else { "NEVER" }),
        generated.map_or(Null, Text),
    ]);
}

fn schemata(catalog: &Catalog, rows: &mut Rows) {
    let schemas = catalog.objects().filter(|object| object.kind == ObjectKind::Schema);
    let mut names: Vec<&str> = schemas.map(|schema| schema.name.as_str()).collect();
    names.extend(catalog.tables().map(|table| table.schema_name.as_str()));
    names.extend([DEFAULT_SCHEMA, INFORMATION_SCHEMA]);
    names.sort_unstable();
    names.dedup();
    for name in names {
        rows.push([Cell::Text(CATALOG_NAME), Cell::Text(name), Cell::Null]);
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

/// A constraint of a table.
struct Constraint<'a> {
    table: &'a TableDef,
    name: String,
    columns: Vec<usize>,
    kind: Kind<'a>,
}

enum Kind<'a> {
    PrimaryKey,
    Unique,
    ForeignKey(&'a ForeignKey, &'a TableDef),
    Check(String),
}

impl Kind<'_> {
    fn name(&self) -> &'static str {
        match self {
            Kind::PrimaryKey => "PRIMARY KEY",
            Kind::Unique => "UNIQUE",
            Kind::ForeignKey(..) => "FOREIGN KEY",
            Kind::Check(_) => "CHECK",
        }
    }
}

/// The constraints of all tables.
fn constraints(catalog: &Catalog) -> Result<Vec<Constraint<'_>>> {
    let mut all = Vec::new();
    for table in catalog.tables().map(AsRef::as_ref) {
        let table: &TableDef = table;
        if !table.primary_key.is_empty() {
            let (name, columns) = (table.primary_key_name(), table.primary_key.clone());
            all.push(Constraint { table, name, columns, kind: Kind::PrimaryKey });
        }
        for index in table.indexes.iter().filter(|index| index.unique) {
            let (name, columns) = (index.name.clone(), index.columns.clone());
            all.push(Constraint { table, name, columns, kind: Kind::Unique });
        }
        for foreign_key in &table.foreign_keys {
            let Some(parent) = catalog.table(foreign_key.parent) else { continue };
            let (name, columns) = (foreign_key.name.clone(), foreign_key.columns.clone());
            all.push(Constraint { table, name, columns, kind: Kind::ForeignKey(foreign_key, parent) });
        }
        for check in checks_of(table)? {
            let used = columns_in(&check.syntax()?);
            let columns = used.iter().filter_map(|name| table.schema.index_of(name).ok()).collect();
            all.push(Constraint { table, name: check.name, columns, kind: Kind::Check(check.expression) });
        }
    }
    Ok(all)
}

fn yes_no<'a>(yes: bool) -> Cell<'a> {
    Cell::Text(if yes { "YES" } else { "NO" })
}

fn table_constraints(catalog: &Catalog, rows: &mut Rows) -> Result<()> {
    use Cell::Text;
    for Constraint { table, name, columns: _, kind } in constraints(catalog)? {
        let (deferrable, deferred) = match &kind {
            Kind::ForeignKey(foreign_key, _) => (foreign_key.deferrable, foreign_key.initially_deferred),
            _ => (false, false),
        };
        rows.push([
            Text(CATALOG_NAME),
            Text(&table.schema_name),
            Text(&name),
            Text(CATALOG_NAME),
            Text(&table.schema_name),
            Text(&table.name),
            Text(kind.name()),
            yes_no(deferrable),
            yes_no(deferred),
            Text("YES"),
        ]);
    }
    Ok(())
}

fn key_column_usage(catalog: &Catalog, rows: &mut Rows) -> Result<()> {
    use Cell::{Null, Number, Text};
    let number = |index: usize| Number(i32::try_from(index + 1).unwrap_or(i32::MAX));
    for Constraint { table, name, columns, kind } in constraints(catalog)? {
        if matches!(kind, Kind::Check(_)) {
            continue;
        }
        for (index, column) in columns.iter().enumerate() {
            let in_parent = match &kind {
                Kind::ForeignKey(foreign_key, parent) => {
                    let referred = foreign_key.parent_columns.get(index);
                    parent.primary_key.iter().position(|key| Some(key) == referred)
                }
                _ => None,
            };
            rows.push([
                Text(CATALOG_NAME),
                Text(&table.schema_name),
                Text(&name),
                Text(CATALOG_NAME),
                Text(&table.schema_name),
                Text(&table.name),
                Text(table.schema.field(*column).name()),
                number(index),
                in_parent.map_or(Null, number),
            ]);
        }
    }
    Ok(())
}

fn referential_constraints(catalog: &Catalog, rows: &mut Rows) -> Result<()> {
    use Cell::Text;
    let rule = |action: ReferenceAction| match action {
        ReferenceAction::NoAction => "NO ACTION",
        ReferenceAction::Restrict => "RESTRICT",
        ReferenceAction::Cascade => "CASCADE",
        ReferenceAction::SetNull => "SET NULL",
        ReferenceAction::SetDefault => "SET DEFAULT",
    };
    for Constraint { table, name, kind, .. } in constraints(catalog)? {
        let Kind::ForeignKey(foreign_key, parent) = kind else { continue };
        rows.push([
            Text(CATALOG_NAME),
            Text(&table.schema_name),
            Text(&name),
            Text(CATALOG_NAME),
            Text(&parent.schema_name),
            Text(&parent.primary_key_name()),
            Text("NONE"),
            Text(rule(foreign_key.on_update)),
            Text(rule(foreign_key.on_delete)),
        ]);
    }
    Ok(())
}

fn check_constraints(catalog: &Catalog, rows: &mut Rows) -> Result<()> {
    use Cell::Text;
    for Constraint { table, name, kind, .. } in constraints(catalog)? {
        let Kind::Check(expression) = kind else { continue };
        rows.push([Text(CATALOG_NAME), Text(&table.schema_name), Text(&name), Text(&expression)]);
    }
    Ok(())
}

/// The columns a constraint is about; for a foreign key those it refers to.
fn constraint_column_usage(catalog: &Catalog, rows: &mut Rows) -> Result<()> {
    use Cell::Text;
    for Constraint { table, name, columns, kind } in constraints(catalog)? {
        let (used, columns) = match &kind {
            Kind::ForeignKey(foreign_key, parent) => (*parent, &foreign_key.parent_columns),
            _ => (table, &columns),
        };
        for column in columns {
            rows.push([
                Text(CATALOG_NAME),
                Text(&used.schema_name),
                Text(&used.name),
                Text(used.schema.field(*column).name()),
                Text(CATALOG_NAME),
                Text(&table.schema_name),
                Text(&name),
            ]);
        }
    }
    Ok(())
}

fn plan_cache(context: &TaskContext, rows: &mut Rows) {
    let Some(programs) = context.session_config().get_extension::<ProgramCache>() else { return };
    let ProgramCacheUsage { hits, misses, evictions, texts, programs } = programs.usage();
    for (name, value) in
        [("hits", hits), ("misses", misses), ("evictions", evictions), ("texts", texts), ("programs", programs)]
    {
        rows.push([Cell::Text(name), Cell::Bytes(value)]);
    }
}

/// What each part holds and may hold. Columns, indexes, loads and compactions share one limit.
fn memory(view: &ExecutionView, context: &TaskContext, rows: &mut Rows) {
    let store = view.store().memory();
    let bytes = |count: usize| Cell::Bytes(count as u64);
    let pool = context.memory_pool();
    let of_queries = match pool.memory_limit() {
        MemoryLimit::Finite(limit) => bytes(limit),
        _ => Cell::Null,
    };
    let cache_limit = || bytes(store.cache_limit_bytes);
    rows.push([Cell::Text("queries"), bytes(pool.reserved()), of_queries]);
    rows.push([Cell::Text("memtable"), bytes(store.memtable_bytes), bytes(store.memtable_limit_bytes)]);
    rows.push([Cell::Text("column cache"), bytes(store.column_cache_bytes), cache_limit()]);
    rows.push([Cell::Text("key indexes"), bytes(store.key_index_bytes), cache_limit()]);
    rows.push([Cell::Text("secondary indexes"), bytes(store.posting_bytes), cache_limit()]);
    rows.push([Cell::Text("loads and compactions"), bytes(store.background_bytes), cache_limit()]);
    rows.push([Cell::Text("transactions"), bytes(store.transaction_bytes), bytes(store.transaction_limit_bytes)]);
    rows.push([Cell::Text("delete sets"), bytes(store.delete_set_bytes), Cell::Null]);
}

fn cache(view: &ExecutionView, rows: &mut Rows) {
    let store = view.store().memory();
    let (hits, misses) = (store.column_cache_hits, store.column_cache_misses);
    let rate = match hits + misses {
        0 => Cell::Null,
        requests => Cell::Share(hits as f64 / requests as f64),
    };
    rows.push([Cell::Bytes(hits), Cell::Bytes(misses), Cell::Bytes(store.column_cache_evictions), rate]);
}
