//! Primary and foreign keys, in the exact schemas and orders of the specification; arrow-flight has no builders for
//! them.
//!
//! A table that does not exist has no keys: the answer is empty, as JDBC's `DatabaseMetaData` wants it.

use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, Int32Array, StringArray, UInt8Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use arrow_flight::sql::{
    CommandGetCrossReference, CommandGetExportedKeys, CommandGetImportedKeys, CommandGetPrimaryKeys, UpdateDeleteRules,
};
use rustydb_engine::{CATALOG_NAME, Catalog, ForeignKey, ReferenceAction, TableDef, is_shown_schema};
use tonic::Status;

use super::SqlService;
use super::metadata::MetadataCommand;
use crate::auth::Caller;
use crate::status::internal;

static PRIMARY_KEYS: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("catalog_name", DataType::Utf8, true),
        Field::new("db_schema_name", DataType::Utf8, true),
        Field::new("table_name", DataType::Utf8, false),
        Field::new("column_name", DataType::Utf8, false),
        Field::new("key_name", DataType::Utf8, true),
        Field::new("key_sequence", DataType::Int32, false),
    ]))
});

static FOREIGN_KEYS: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("pk_catalog_name", DataType::Utf8, true),
        Field::new("pk_db_schema_name", DataType::Utf8, true),
        Field::new("pk_table_name", DataType::Utf8, false),
        Field::new("pk_column_name", DataType::Utf8, false),
        Field::new("fk_catalog_name", DataType::Utf8, true),
        Field::new("fk_db_schema_name", DataType::Utf8, true),
        Field::new("fk_table_name", DataType::Utf8, false),
        Field::new("fk_column_name", DataType::Utf8, false),
        Field::new("key_sequence", DataType::Int32, false),
        Field::new("fk_key_name", DataType::Utf8, true),
        Field::new("pk_key_name", DataType::Utf8, true),
        Field::new("update_rule", DataType::UInt8, false),
        Field::new("delete_rule", DataType::UInt8, false),
    ]))
});

/// The tables as a caller sees them: without the temporary ones of other sessions.
struct InSight {
    catalog: Arc<Catalog>,
    own: Option<String>,
}

impl InSight {
    fn of(service: &SqlService, caller: &Caller) -> Result<Self, Status> {
        let session = service.sessions.looking(caller)?;
        Ok(Self { catalog: session.catalog(), own: session.temporary_schema() })
    }

    fn tables(&self) -> impl Iterator<Item = &Arc<TableDef>> {
        let is_own = |schema: &str| self.own.as_deref() == Some(schema);
        self.catalog.tables().filter(move |table| is_shown_schema(&table.schema_name) || is_own(&table.schema_name))
    }
}

/// Which tables a command is about: an absent part matches everything, an empty one nothing, since every table here
/// has a catalog and a schema.
struct Filter<'a> {
    catalog: Option<&'a str>,
    schema: Option<&'a str>,
    table: &'a str,
}

impl Filter<'_> {
    fn matches(&self, table: &TableDef) -> bool {
        self.catalog.is_none_or(|catalog| catalog == CATALOG_NAME)
            && self.schema.is_none_or(|schema| schema == table.schema_name)
            && self.table == table.name
    }
}

impl MetadataCommand for CommandGetPrimaryKeys {
    fn schema(&self, _service: &SqlService) -> SchemaRef {
        Arc::clone(&PRIMARY_KEYS)
    }

    async fn rows(self, service: &SqlService, caller: &Caller) -> Result<RecordBatch, Status> {
        let filter = Filter { catalog: self.catalog.as_deref(), schema: self.db_schema.as_deref(), table: &self.table };
        let in_sight = InSight::of(service, caller)?;
        let mut tables: Vec<_> = in_sight.tables().filter(|table| filter.matches(table)).collect();
        tables.sort_by_key(|table| (&table.schema_name, &table.name));
        let columns: Vec<(&TableDef, usize, usize)> = tables
            .iter()
            .flat_map(|table| {
                let (_, key) = table.primary_key_constraint().unwrap_or_default();
                key.iter().enumerate().map(|(at, column)| (&***table, at, *column))
            })
            .collect();

        let text = |of: &dyn Fn(&TableDef, usize) -> String| -> ArrayRef {
            Arc::new(StringArray::from_iter_values(columns.iter().map(|(table, _, column)| of(table, *column))))
        };
        batch(
            &PRIMARY_KEYS,
            vec![
                text(&|_, _| CATALOG_NAME.to_owned()),
                text(&|table, _| table.schema_name.clone()),
                text(&|table, _| table.name.clone()),
                text(&column_name),
                text(&|table, _| table.primary_key_constraint().map(|(name, _)| name).unwrap_or_default()),
                Arc::new(Int32Array::from_iter_values(columns.iter().map(|(_, at, _)| sequence(*at)))),
            ],
        )
    }
}

impl MetadataCommand for CommandGetExportedKeys {
    fn schema(&self, _service: &SqlService) -> SchemaRef {
        Arc::clone(&FOREIGN_KEYS)
    }

    async fn rows(self, service: &SqlService, caller: &Caller) -> Result<RecordBatch, Status> {
        let parent = Filter { catalog: self.catalog.as_deref(), schema: self.db_schema.as_deref(), table: &self.table };
        let in_sight = InSight::of(service, caller)?;
        let mut references = references(&in_sight);
        references.retain(|reference| parent.matches(reference.parent));
        references.sort_by_key(Reference::child_order);
        foreign_keys(&references)
    }
}

impl MetadataCommand for CommandGetImportedKeys {
    fn schema(&self, _service: &SqlService) -> SchemaRef {
        Arc::clone(&FOREIGN_KEYS)
    }

    async fn rows(self, service: &SqlService, caller: &Caller) -> Result<RecordBatch, Status> {
        let child = Filter { catalog: self.catalog.as_deref(), schema: self.db_schema.as_deref(), table: &self.table };
        let in_sight = InSight::of(service, caller)?;
        let mut references = references(&in_sight);
        references.retain(|reference| child.matches(reference.child));
        references.sort_by_cached_key(Reference::parent_order);
        foreign_keys(&references)
    }
}

impl MetadataCommand for CommandGetCrossReference {
    fn schema(&self, _service: &SqlService) -> SchemaRef {
        Arc::clone(&FOREIGN_KEYS)
    }

    async fn rows(self, service: &SqlService, caller: &Caller) -> Result<RecordBatch, Status> {
        let parent =
            Filter { catalog: self.pk_catalog.as_deref(), schema: self.pk_db_schema.as_deref(), table: &self.pk_table };
        let child =
            Filter { catalog: self.fk_catalog.as_deref(), schema: self.fk_db_schema.as_deref(), table: &self.fk_table };
        let in_sight = InSight::of(service, caller)?;
        let mut references = references(&in_sight);
        references.retain(|reference| parent.matches(reference.parent) && child.matches(reference.child));
        references.sort_by_cached_key(Reference::parent_order);
        foreign_keys(&references)
    }
}

/// One column of one foreign key.
struct Reference<'a> {
    parent: &'a TableDef,
    parent_column: usize,
    child: &'a TableDef,
    child_column: usize,
    /// Position in the key, from 1.
    sequence: i32,
    key: &'a ForeignKey,
}

impl<'a> Reference<'a> {
    // Every table is in the same catalog, so the catalog names do not order anything.
    fn parent_order(&self) -> (&'a str, &'a str, String, i32, [&'a str; 3]) {
        // What the specification leaves open, because two keys may refer to one, follows the names of those.
        let (parent, child) = (self.parent, self.child);
        let names = [child.schema_name.as_str(), child.name.as_str(), self.key.name.as_str()];
        (&parent.schema_name, &parent.name, referenced_key_name(self), self.sequence, names)
    }

    fn child_order(&self) -> (&'a str, &'a str, &'a str, i32) {
        (&self.child.schema_name, &self.child.name, &self.key.name, self.sequence)
    }
}

fn references(in_sight: &InSight) -> Vec<Reference<'_>> {
    let mut references = Vec::new();
    for child in in_sight.tables() {
        for key in &child.foreign_keys {
            // A foreign key without its parent cannot be: dropping the parent is refused.
            let Some(parent) = in_sight.catalog.table(key.parent) else { continue };
            for (at, (child_column, parent_column)) in key.columns.iter().zip(&key.parent_columns).enumerate() {
                references.push(Reference {
                    parent,
                    parent_column: *parent_column,
                    child,
                    child_column: *child_column,
                    sequence: sequence(at),
                    key,
                });
            }
        }
    }
    references
}

fn foreign_keys(references: &[Reference<'_>]) -> Result<RecordBatch, Status> {
    let text = |of: &dyn Fn(&Reference<'_>) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(references.iter().map(of)))
    };
    let rules = |of: &dyn Fn(&ForeignKey) -> ReferenceAction| -> ArrayRef {
        Arc::new(UInt8Array::from_iter_values(references.iter().map(|reference| rule(of(reference.key)) as u8)))
    };
    batch(
        &FOREIGN_KEYS,
        vec![
            text(&|_| CATALOG_NAME.to_owned()),
            text(&|reference| reference.parent.schema_name.clone()),
            text(&|reference| reference.parent.name.clone()),
            text(&|reference| column_name(reference.parent, reference.parent_column)),
            text(&|_| CATALOG_NAME.to_owned()),
            text(&|reference| reference.child.schema_name.clone()),
            text(&|reference| reference.child.name.clone()),
            text(&|reference| column_name(reference.child, reference.child_column)),
            Arc::new(Int32Array::from_iter_values(references.iter().map(|reference| reference.sequence))),
            text(&|reference| reference.key.name.clone()),
            text(&referenced_key_name),
            rules(&|key| key.on_update),
            rules(&|key| key.on_delete),
        ],
    )
}

fn rule(action: ReferenceAction) -> UpdateDeleteRules {
    match action {
        ReferenceAction::NoAction => UpdateDeleteRules::NoAction,
        ReferenceAction::Restrict => UpdateDeleteRules::Restrict,
        ReferenceAction::Cascade => UpdateDeleteRules::Cascade,
        ReferenceAction::SetNull => UpdateDeleteRules::SetNull,
        ReferenceAction::SetDefault => UpdateDeleteRules::SetDefault,
    }
}

/// The key a foreign key refers to: the primary key, or a UNIQUE constraint of the same columns.
fn referenced_key_name(reference: &Reference<'_>) -> String {
    let (parent, columns) = (reference.parent, &reference.key.parent_columns);
    let same = |of: &[usize]| of.len() == columns.len() && of.iter().all(|column| columns.contains(column));
    let unique = parent.indexes.iter().find(|index| index.unique && same(&index.columns));
    match unique.filter(|_| !same(&parent.primary_key)) {
        Some(index) => index.name.clone(),
        None => parent.primary_key_name(),
    }
}

fn batch(schema: &SchemaRef, columns: Vec<ArrayRef>) -> Result<RecordBatch, Status> {
    RecordBatch::try_new(Arc::clone(schema), columns).map_err(internal)
}

fn column_name(table: &TableDef, column: usize) -> String {
    table.schema.field(column).name().clone()
}

fn sequence(index: usize) -> i32 {
    i32::try_from(index + 1).unwrap_or(i32::MAX)
}
