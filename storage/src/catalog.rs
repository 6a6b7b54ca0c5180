//! What tables there are.
//!
//! A [`Catalog`] is immutable; a commit that changes it makes a new one. The catalog is small next to the data, so
//! copying its map of `Arc`s is cheaper than any cleverness. Table ids are never reused.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use serde::{Deserialize, Serialize};

use crate::encoding::{KeyEncoder, RowLayout};
use crate::error::{Error, Result};
use crate::objects::{ObjectDef, ObjectId, ObjectKind, Objects};

/// Name of the hidden column (UInt64) that keys the rows of a table without a primary key.
pub const ROW_ID_COLUMN: &str = "__row_id";

/// Schema metadata: the name of the primary key constraint, if it was given one.
pub const PRIMARY_KEY_NAME: &str = "rustydb.primary_key_name";

/// Names a table for ever, whatever it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TableId(pub u64);

impl TableId {
    /// In a table to be created: that table itself.
    pub const SELF: TableId = TableId(0);
}

/// Rows of one table must have a row in another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForeignKey {
    /// The constraint's name.
    pub name: String,
    /// The referring columns of this table.
    pub columns: Vec<usize>,
    /// The table referred to.
    pub parent: TableId,
    /// Its columns referred to, in the order of `columns`: those of its primary key or of a unique index.
    pub parent_columns: Vec<usize>,
    /// Whether the referring columns are all NULL or none is (`MATCH FULL`).
    #[serde(default)]
    pub match_full: bool,
    /// What becomes of this table's rows when the row they refer to is deleted.
    #[serde(default)]
    pub on_delete: ReferenceAction,
    /// What becomes of them when its key changes.
    #[serde(default)]
    pub on_update: ReferenceAction,
    /// Whether the check may be put off to the end of the transaction.
    #[serde(default)]
    pub deferrable: bool,
    /// Whether it is put off unless the transaction says otherwise.
    #[serde(default)]
    pub initially_deferred: bool,
    /// Whether rows older than the constraint have not been checked (`NOT VALID`).
    #[serde(default)]
    pub not_validated: bool,
}

/// What a foreign key does when its parent's key goes. The store keeps it and leaves the doing to its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReferenceAction {
    /// Fail if the reference is still there at the end of the statement, or of the transaction.
    #[default]
    NoAction,
    /// Fail at once.
    Restrict,
    /// Delete or change the referring rows, too.
    Cascade,
    /// Set their columns to NULL.
    SetNull,
    /// Set their columns to their defaults.
    SetDefault,
}

/// Names an index for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IndexId(pub u64);

/// An ordered secondary index to be created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewIndex {
    /// Its name; a violated unique index is reported by it.
    pub name: String,
    /// Indexes of its columns in the table's schema, in index order.
    pub columns: Vec<usize>,
    /// Whether no two rows may have equal columns.
    pub unique: bool,
    /// Whether a NULL in a unique index equals no other NULL (SQL's default, `NULLS DISTINCT`).
    pub nulls_distinct: bool,
    /// When a unique index is checked.
    pub deferral: Deferral,
    /// Whether it stands for the primary key of a table that is not keyed by it, because the check may wait.
    pub primary: bool,
}

impl NewIndex {
    /// An index whose NULLs, if it is unique, are distinct, and that is checked by each change.
    pub fn new(name: impl Into<String>, columns: Vec<usize>, unique: bool) -> NewIndex {
        let (name, deferral) = (name.into(), Deferral::Never);
        NewIndex { name, columns, unique, nulls_distinct: true, deferral, primary: false }
    }
}

/// When the rows of a unique index are checked against each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deferral {
    /// By each change.
    #[default]
    Never,
    /// By each change, unless the transaction asks to wait.
    InitiallyImmediate,
    /// At the end of the transaction, unless it asks for the check earlier.
    InitiallyDeferred,
}

impl Deferral {
    /// Whether the check may wait.
    pub fn is_deferrable(&self) -> bool {
        *self != Deferral::Never
    }
}

/// An ordered secondary index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexDef {
    /// Its identity.
    pub id: IndexId,
    /// Its name.
    pub name: String,
    /// Indexes of its columns in the table's schema, in index order.
    pub columns: Vec<usize>,
    /// Whether no two rows may have equal columns.
    pub unique: bool,
    /// Whether a NULL in a unique index equals no other NULL.
    pub nulls_distinct: bool,
    /// When a unique index is checked.
    #[serde(default, skip_serializing_if = "is_default")]
    pub deferral: Deferral,
    /// Whether it stands for the primary key of a table that is not keyed by it, because the check may wait.
    #[serde(default, skip_serializing_if = "is_default")]
    pub primary: bool,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A table to be created.
#[derive(Debug, Clone)]
pub struct NewTable {
    /// The schema it belongs to.
    pub schema_name: String,
    /// Its name in that schema.
    pub name: String,
    /// Its columns, of canonical types ([`crate::canonical_type`]); field metadata is kept and not looked at.
    pub schema: SchemaRef,
    /// Indexes of the primary key's columns, in key order; empty for none.
    pub primary_key: Vec<usize>,
    /// Its foreign keys.
    pub foreign_keys: Vec<ForeignKey>,
    /// Its secondary indexes, of which the unique ones are its UNIQUE constraints.
    pub indexes: Vec<NewIndex>,
}

/// A table as the catalog knows it.
#[derive(Debug)]
pub struct TableDef {
    /// Its identity.
    pub id: TableId,
    /// The schema it belongs to.
    pub schema_name: String,
    /// Its name in that schema.
    pub name: String,
    /// The user's columns.
    pub schema: SchemaRef,
    /// Indexes of the primary key's columns, in key order; empty: rows are keyed by [`ROW_ID_COLUMN`].
    pub primary_key: Vec<usize>,
    /// Its foreign keys.
    pub foreign_keys: Vec<ForeignKey>,
    /// Its secondary indexes.
    pub indexes: Vec<IndexDef>,
    storage_schema: SchemaRef,
    key_columns: Vec<usize>,
    codec: OnceLock<TableCodec>,
}

/// How rows and keys of a table are laid out.
#[derive(Debug)]
pub(crate) struct TableCodec {
    pub(crate) rows: RowLayout,
    pub(crate) keys: KeyEncoder,
    /// One for each of the table's secondary indexes.
    pub(crate) indexes: Vec<KeyEncoder>,
}

impl TableDef {
    /// Makes a table; its indexes get consecutive ids from `first_index` on.
    pub(crate) fn new(id: TableId, first_index: IndexId, table: NewTable) -> Result<Self> {
        let numbered = table.indexes.iter().zip(first_index.0..).map(|(new, id)| IndexDef::new(IndexId(id), new));
        let indexes = numbered.collect();
        Self::with_indexes(id, table, indexes)
    }

    /// Makes a table whose indexes have their ids already; those of `table` are not looked at.
    fn with_indexes(id: TableId, table: NewTable, indexes: Vec<IndexDef>) -> Result<Self> {
        let NewTable { schema_name, name, schema, primary_key, mut foreign_keys, indexes: _ } = table;
        let own = foreign_keys.iter_mut().filter(|foreign_key| foreign_key.parent == TableId::SELF);
        own.for_each(|foreign_key| foreign_key.parent = id);
        if let Some(field) = schema.fields().iter().find(|field| field.name() == ROW_ID_COLUMN) {
            return Err(Error::Unsupported(format!("the column name \"{}\" is reserved", field.name())));
        }
        let mut fields: Vec<_> = schema.fields().iter().cloned().collect();
        let mut key_columns = primary_key.clone();
        if primary_key.is_empty() {
            key_columns.push(fields.len());
            fields.push(Arc::new(Field::new(ROW_ID_COLUMN, DataType::UInt64, false)));
        }
        if key_columns.iter().any(|column| *column >= fields.len() || fields[*column].is_nullable()) {
            return Err(Error::Internal(format!("table \"{name}\": key columns must exist and forbid NULL")));
        }
        let indexed = indexes.iter().flat_map(|index| &index.columns);
        if indexed.clone().any(|column| *column >= fields.len()) || indexes.iter().any(|index| index.columns.is_empty())
        {
            return Err(Error::Internal(format!("table \"{name}\": indexed columns must exist")));
        }
        let storage_schema = Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()));
        let table = TableDef {
            id,
            schema_name,
            name,
            schema,
            primary_key,
            foreign_keys,
            indexes,
            storage_schema,
            key_columns,
            codec: OnceLock::new(),
        };
        table.codec()?;
        Ok(table)
    }

    /// The user's columns, and the hidden row id after them if there is no primary key.
    pub fn storage_schema(&self) -> &SchemaRef {
        &self.storage_schema
    }

    /// Indexes into [`storage_schema`](Self::storage_schema) of the columns that key the rows.
    pub fn key_columns(&self) -> &[usize] {
        &self.key_columns
    }

    /// Whether rows are keyed by the hidden row id.
    pub(crate) fn has_hidden_key(&self) -> bool {
        self.primary_key.is_empty()
    }

    /// The primary key constraint's name: as declared ([`PRIMARY_KEY_NAME`]), or `<table>_pkey`.
    pub fn primary_key_name(&self) -> String {
        match self.schema.metadata().get(PRIMARY_KEY_NAME) {
            Some(declared) => declared.clone(),
            None => format!("{}_pkey", self.name),
        }
    }

    /// The primary key's constraint, whether it keys the rows or is an index whose check may wait: its name and columns.
    pub fn primary_key_constraint(&self) -> Option<(String, &[usize])> {
        if !self.primary_key.is_empty() {
            return Some((self.primary_key_name(), &self.primary_key));
        }
        let index = self.indexes.iter().find(|index| index.primary)?;
        Some((index.name.clone(), &index.columns))
    }

    /// An index by identity.
    pub fn index(&self, id: IndexId) -> Option<&IndexDef> {
        self.indexes.iter().find(|index| index.id == id)
    }

    /// What creating this table anew would take.
    pub fn to_new(&self) -> NewTable {
        NewTable {
            schema_name: self.schema_name.clone(),
            name: self.name.clone(),
            schema: Arc::clone(&self.schema),
            primary_key: self.primary_key.clone(),
            foreign_keys: self.foreign_keys.clone(),
            indexes: self.indexes.iter().map(IndexDef::to_new).collect(),
        }
    }

    /// The same table with something about it changed: its name, column names, metadata, foreign keys or indexes. Not
    /// what the stored rows rely on: the columns' number, order, types, and the primary key.
    pub(crate) fn altered(&self, table: NewTable, indexes: Vec<IndexDef>) -> Result<Self> {
        let altered = Self::with_indexes(self.id, table, indexes)?;
        let types = |table: &TableDef| -> Vec<DataType> {
            table.schema.fields().iter().map(|field| field.data_type().clone()).collect()
        };
        if altered.key_columns != self.key_columns || types(&altered) != types(self) {
            return Err(Error::Internal(format!(
                "altering table \"{}\" would change how its rows are stored",
                self.name
            )));
        }
        Ok(altered)
    }

    /// Whether rows that were checked against this definition are good for the other one, too: everything but names of
    /// tables and indexes is the same.
    pub(crate) fn accepts_the_same_rows(&self, other: &TableDef) -> bool {
        self.schema == other.schema && self.foreign_keys == other.foreign_keys
    }

    #[inline]
    pub(crate) fn codec(&self) -> Result<&TableCodec> {
        match self.codec.get() {
            Some(codec) => Ok(codec),
            None => self.make_codec(),
        }
    }

    fn make_codec(&self) -> Result<&TableCodec> {
        let rows = RowLayout::new(&self.storage_schema)?;
        let keys = KeyEncoder::new(&rows, &self.key_columns)?;
        let indexes = self.indexes.iter().map(|index| KeyEncoder::new(&rows, &index.columns)).collect::<Result<_>>()?;
        Ok(self.codec.get_or_init(|| TableCodec { rows, keys, indexes }))
    }
}

impl IndexDef {
    pub(crate) fn new(id: IndexId, new: &NewIndex) -> Self {
        let NewIndex { name, columns, unique, nulls_distinct, deferral, primary } = new.clone();
        IndexDef { id, name, columns, unique, nulls_distinct, deferral, primary }
    }

    fn to_new(&self) -> NewIndex {
        let IndexDef { id: _, name, columns, unique, nulls_distinct, deferral, primary } = self.clone();
        NewIndex { name, columns, unique, nulls_distinct, deferral, primary }
    }
}

/// The durable form of a table: its columns as an Arrow IPC schema would name them, in JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct TableRecord {
    id: TableId,
    schema_name: String,
    name: String,
    columns: Vec<ColumnRecord>,
    metadata: BTreeMap<String, String>,
    primary_key: Vec<usize>,
    foreign_keys: Vec<ForeignKey>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    indexes: Vec<IndexDef>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct ColumnRecord {
    name: String,
    /// Arrow's own spelling of the type, e.g. `Decimal128(15, 2)`.
    data_type: String,
    nullable: bool,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<String, String>,
}

impl From<&TableDef> for TableRecord {
    fn from(table: &TableDef) -> Self {
        let columns = table.schema.fields().iter().map(|field| ColumnRecord {
            name: field.name().clone(),
            data_type: field.data_type().to_string(),
            nullable: field.is_nullable(),
            metadata: field.metadata().clone().into_iter().collect(),
        });
        TableRecord {
            id: table.id,
            schema_name: table.schema_name.clone(),
            name: table.name.clone(),
            columns: columns.collect(),
            metadata: table.schema.metadata().clone().into_iter().collect(),
            primary_key: table.primary_key.clone(),
            foreign_keys: table.foreign_keys.clone(),
            indexes: table.indexes.clone(),
        }
    }
}

/// Reads what a data type prints itself as. Arrow does not read decimals with more digits behind the point than digits, of
/// which earlier releases made columns.
fn data_type_named(name: &str) -> std::result::Result<DataType, ArrowError> {
    let decimal = || {
        let (precision, scale) = name.strip_prefix("Decimal128(")?.strip_suffix(')')?.split_once(", ")?;
        Some(DataType::Decimal128(precision.parse().ok()?, scale.parse().ok()?))
    };
    name.parse().or_else(|error| decimal().ok_or(error))
}

impl TableRecord {
    pub(crate) fn id(&self) -> TableId {
        self.id
    }

    /// Rebuilds the table; the message says what is wrong with a record that cannot be one.
    pub(crate) fn restore(self) -> std::result::Result<TableDef, String> {
        let mut fields = Vec::with_capacity(self.columns.len());
        for column in self.columns {
            let data_type: DataType =
                data_type_named(&column.data_type).map_err(|error| format!("column \"{}\": {error}", column.name))?;
            let field = Field::new(column.name, data_type, column.nullable);
            fields.push(field.with_metadata(column.metadata.into_iter().collect()));
        }
        let schema = Arc::new(Schema::new_with_metadata(fields, self.metadata.into_iter().collect()));
        let (schema_name, name) = (self.schema_name, self.name);
        let (primary_key, foreign_keys, indexes) = (self.primary_key, self.foreign_keys, Vec::new());
        let table = NewTable { schema_name, name, schema, primary_key, foreign_keys, indexes };
        TableDef::with_indexes(self.id, table, self.indexes).map_err(|error| error.to_string())
    }
}

/// All tables at one moment.
#[derive(Debug, Default, Clone)]
pub struct Catalog {
    version: u64,
    tables: BTreeMap<TableId, Arc<TableDef>>,
    names: BTreeMap<(String, String), TableId>,
    objects: Objects,
}

impl Catalog {
    /// Grows with every change; equal versions of one store mean equal catalogs. A transaction's own uncommitted
    /// changes count too, so versions are compared within one session only.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// All tables, in order of creation.
    pub fn tables(&self) -> impl Iterator<Item = &Arc<TableDef>> {
        self.tables.values()
    }

    /// A table by identity.
    pub fn table(&self, id: TableId) -> Option<&Arc<TableDef>> {
        self.tables.get(&id)
    }

    /// A table by name.
    pub fn find(&self, schema: &str, name: &str) -> Option<&Arc<TableDef>> {
        self.names.get(&(schema.to_string(), name.to_string())).and_then(|id| self.tables.get(id))
    }

    /// All objects that are no tables, in order of creation.
    pub fn objects(&self) -> impl Iterator<Item = &Arc<ObjectDef>> {
        self.objects.all()
    }

    /// An object by identity.
    pub fn object(&self, id: ObjectId) -> Option<&Arc<ObjectDef>> {
        self.objects.get(id)
    }

    /// An object by name; schemas have no schema of their own.
    pub fn find_object(&self, kind: ObjectKind, schema: &str, name: &str) -> Option<&Arc<ObjectDef>> {
        self.objects.find(kind, schema, name)
    }

    /// Whether something else has the name an object wants.
    pub(crate) fn name_taken(&self, object: &ObjectDef) -> bool {
        let (schema, name) = (&object.schema_name, &object.name);
        let kinds = [ObjectKind::View, ObjectKind::Sequence];
        let kinds = if object.kind.is_relation() { kinds } else { [object.kind; 2] };
        let taken = |kind| self.find_object(kind, schema, name).is_some_and(|other| other.id != object.id);
        kinds.into_iter().any(taken) || (object.kind.is_relation() && self.find(schema, name).is_some())
    }

    pub(crate) fn put_object(&mut self, object: Arc<ObjectDef>) {
        self.version += 1;
        self.objects.put(object);
    }

    pub(crate) fn remove_object(&mut self, id: ObjectId) {
        self.version += 1;
        self.objects.remove(id);
    }

    /// The tables that refer to `parent` by a foreign key, other than itself.
    pub fn referring_tables(&self, parent: TableId) -> impl Iterator<Item = &Arc<TableDef>> {
        self.tables().filter(move |table| {
            table.id != parent && table.foreign_keys.iter().any(|foreign_key| foreign_key.parent == parent)
        })
    }

    /// The foreign keys of other tables that refer to `parent`, and did not in an earlier state.
    pub(crate) fn new_references<'a>(
        &'a self,
        before: &'a Catalog,
        parent: TableId,
    ) -> impl Iterator<Item = &'a ForeignKey> {
        self.referring_tables(parent).flat_map(move |child| {
            let known = before.table(child.id);
            let is_new = move |key: &&ForeignKey| known.is_none_or(|known| !known.foreign_keys.contains(key));
            child.foreign_keys.iter().filter(move |key| key.parent == parent).filter(is_new)
        })
    }

    pub(crate) fn require(&self, id: TableId) -> Result<&Arc<TableDef>> {
        self.table(id).ok_or_else(|| Error::NoSuchTable(format!("number {}", id.0)))
    }

    pub(crate) fn with_version(version: u64, tables: impl IntoIterator<Item = Arc<TableDef>>) -> Catalog {
        let mut catalog = Catalog { version, ..Catalog::default() };
        for table in tables {
            catalog.add(table);
        }
        catalog
    }

    pub(crate) fn add(&mut self, table: Arc<TableDef>) {
        self.version += 1;
        self.names.insert((table.schema_name.clone(), table.name.clone()), table.id);
        self.tables.insert(table.id, table);
    }

    /// Puts another definition in the place of the one with the same id.
    pub(crate) fn replace(&mut self, table: Arc<TableDef>) {
        self.remove(table.id);
        self.add(table);
    }

    pub(crate) fn remove(&mut self, id: TableId) {
        let Some(table) = self.tables.remove(&id) else { return };
        self.version += 1;
        let name = (table.schema_name.clone(), table.name.clone());
        // One transaction may give the name to another table, which may come first when its changes are put in place.
        if self.names.get(&name) == Some(&id) {
            self.names.remove(&name);
        }
    }
}
