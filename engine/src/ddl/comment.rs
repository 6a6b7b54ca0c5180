//! COMMENT ON, and the functions `obj_description` and `col_description` that read comments.
//!
//! A comment is kept with what it is about, so that it is renamed, moved and dropped with it: of tables and columns in the
//! metadata of schema and fields, of their constraints and indexes in that of the table, of all else in its definition.
//! PostgreSQL's functions take the number of an object; here they take its name, as `'t'::regclass` gives it.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringViewArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, Schema};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};
use datafusion::sql::sqlparser::ast::{ObjectName, Spanned};
use rustydb_storage::{Catalog, ObjectDef, ObjectKind, TableDef, Transaction};

use super::index::find_index;
use super::view::ViewDefinition;
use crate::constraints::{checks_of, shown_columns};
use crate::dml::defaults::column_index;
use crate::error::sqlstate;
use crate::sequences::SequenceDefinition;
use crate::session::{Completion, Statement};
use crate::sql::context::{Environment, StatementContext};
use crate::sql::route::{CommentStatement, Commented};
use crate::sql::text::parse::{fold, place, relation_name, table_name};
use crate::{Error, Result};

/// Metadata: the comment on a table or column.
pub(crate) const COMMENT_KEY: &str = "rustydb.comment";
/// Schema metadata: what the comments on the table's constraints and indexes begin with; the name follows.
const PART_PREFIX: &str = "rustydb.comment.";

pub(crate) fn comment(
    statement: &Statement<'_>,
    transaction: &mut Transaction,
    comment: CommentStatement,
) -> Result<Completion> {
    let CommentStatement { on, text } = comment;
    let context = statement.context(transaction.view());
    match on {
        Commented::Table(name) => {
            let table = find_table(&context, &name)?;
            change_table(transaction, &table, |schema| set(&mut schema.metadata, COMMENT_KEY, text))?;
        }
        Commented::Column { table: name, column } => comment_column(&context, transaction, &name, &fold(&column), text)
            .map_err(|error| error.at(place(column.span)))?,
        Commented::Constraint { name, table } => {
            let (name, table) = (fold(&name), find_table(&context, &table)?);
            let known = table.foreign_keys.iter().any(|key| key.name == name)
                || table.indexes.iter().any(|index| index.unique && index.name == name)
                || (!table.primary_key.is_empty() && table.primary_key_name() == name)
                || checks_of(&table)?.iter().any(|check| check.name == name);
            if !known {
                let message = format!("constraint \"{name}\" for table \"{}\" does not exist", table.name);
                return Err(Error::new(sqlstate::UNDEFINED_OBJECT, message));
            }
            change_table(transaction, &table, |schema| set(&mut schema.metadata, &part_key(&name), text))?;
        }
        Commented::Index(name) => {
            let (schema, plain) = table_name(&name)?;
            let catalog = context.view().catalog();
            let found = context.schemas(schema.as_deref()).find_map(|schema| find_index(catalog, schema, &plain));
            let table = found.and_then(|(table, _)| catalog.table(table)).cloned();
            let table = table.ok_or_else(|| missing(&plain).at(place(name.span())))?;
            change_table(transaction, &table, |schema| set(&mut schema.metadata, &part_key(&plain), text))?;
        }
        Commented::View(name) => {
            let view = find_object(&context, ObjectKind::View, &name)?;
            let mut definition = ViewDefinition::of(&view)?;
            set_in(&mut definition.comments, "", text);
            replace(transaction, &view, definition.text()?)?;
        }
        Commented::Sequence(name) => {
            let sequence = find_object(&context, ObjectKind::Sequence, &name)?;
            let definition = SequenceDefinition { comment: text, ..SequenceDefinition::of(&sequence)? };
            replace(transaction, &sequence, definition.text()?)?;
        }
        Commented::Schema(name) => {
            let (_, plain) = table_name(&name)?;
            let schema = context.view().catalog().find_object(ObjectKind::Schema, "", &plain).cloned();
            let schema = schema.ok_or_else(|| {
                let message = format!("schema \"{plain}\" does not exist");
                Error::new(sqlstate::INVALID_SCHEMA_NAME, message).at(place(name.span()))
            })?;
            replace(transaction, &schema, text.unwrap_or_default())?;
        }
        Commented::Other(what) => return Err(Error::unsupported(format!("COMMENT ON {what}"))),
    }
    Ok(Completion::new("COMMENT"))
}

fn comment_column(
    context: &StatementContext,
    transaction: &mut Transaction,
    relation: &ObjectName,
    column: &str,
    text: Option<String>,
) -> Result<()> {
    let (schema, plain) = table_name(relation)?;
    if let Some(view) = context.object(ObjectKind::View, schema.as_deref(), &plain) {
        let mut definition = ViewDefinition::of(view)?;
        if !definition.columns.iter().any(|known| known == column) {
            let message = format!("column \"{column}\" of relation \"{plain}\" does not exist");
            return Err(Error::new(sqlstate::UNDEFINED_COLUMN, message));
        }
        set_in(&mut definition.comments, column, text);
        return replace(transaction, view, definition.text()?);
    }
    let table = find_table(context, relation)?;
    let index = column_index(&table, column)?;
    change_table(transaction, &table, |schema| {
        let mut fields: Vec<_> = schema.fields().iter().cloned().collect();
        let mut metadata = fields[index].metadata().clone();
        set(&mut metadata, COMMENT_KEY, text);
        fields[index] = Arc::new(fields[index].as_ref().clone().with_metadata(metadata));
        schema.fields = fields.into();
    })
}

fn part_key(name: &str) -> String {
    format!("{PART_PREFIX}{name}")
}

fn set(metadata: &mut std::collections::HashMap<String, String>, key: &str, text: Option<String>) {
    metadata.remove(key);
    metadata.extend(text.map(|text| (key.to_owned(), text)));
}

fn set_in(comments: &mut BTreeMap<String, String>, key: &str, text: Option<String>) {
    comments.remove(key);
    comments.extend(text.map(|text| (key.to_owned(), text)));
}

fn missing(name: &str) -> Error {
    Error::new(sqlstate::UNDEFINED_TABLE, format!("relation \"{name}\" does not exist"))
}

fn find_table(context: &StatementContext, name: &ObjectName) -> Result<Arc<TableDef>> {
    let (schema, plain) = table_name(name)?;
    context.table(schema.as_deref(), &plain).cloned().map_err(|error| error.at(place(name.span())))
}

fn find_object(context: &StatementContext, kind: ObjectKind, name: &ObjectName) -> Result<Arc<ObjectDef>> {
    let (schema, plain) = table_name(name)?;
    let found = context.object(kind, schema.as_deref(), &plain).cloned();
    found.ok_or_else(|| missing(&plain).at(place(name.span())))
}

fn change_table(transaction: &mut Transaction, table: &TableDef, change: impl FnOnce(&mut Schema)) -> Result<()> {
    let mut definition = table.to_new();
    let mut schema = definition.schema.as_ref().clone();
    change(&mut schema);
    definition.schema = Arc::new(schema);
    transaction.alter_table(table.id, definition)?;
    Ok(())
}

fn replace(transaction: &mut Transaction, object: &ObjectDef, definition: String) -> Result<()> {
    transaction.replace_object(object.id, object.schema_name.clone(), object.name.clone(), definition)?;
    Ok(())
}

/// A comment, with what it is about.
pub(crate) struct Comment<'a> {
    pub(crate) schema: &'a str,
    /// `table`, `view`, `sequence`, `schema`, `column`, or `constraint or index`.
    pub(crate) kind: &'static str,
    /// The relation's name, or the schema's.
    pub(crate) name: &'a str,
    /// The column, constraint or index of the relation.
    pub(crate) part: Option<String>,
    pub(crate) text: String,
}

/// What COMMENT ON says of a view, under the empty name, and of its columns.
pub fn view_comments(view: &ObjectDef) -> BTreeMap<String, String> {
    ViewDefinition::of(view).map(|definition| definition.comments).unwrap_or_default()
}

/// All comments there are.
pub(crate) fn comments(catalog: &Catalog) -> Result<Vec<Comment<'_>>> {
    let mut all = Vec::new();
    for table in catalog.tables() {
        let (schema, name) = (table.schema_name.as_str(), table.name.as_str());
        let mut add = |kind, part: Option<String>, text: &String| {
            all.push(Comment { schema, kind, name, part, text: text.clone() });
        };
        let metadata = table.schema.metadata();
        if let Some(text) = metadata.get(COMMENT_KEY) {
            add("table", None, text);
        }
        for field in table.schema.fields() {
            if let Some(text) = field.metadata().get(COMMENT_KEY) {
                add("column", Some(field.name().clone()), text);
            }
        }
        let mut parts: Vec<_> =
            metadata.iter().filter_map(|(key, text)| Some((key.strip_prefix(PART_PREFIX)?, text))).collect();
        parts.sort_unstable();
        for (part, text) in parts {
            add("constraint or index", Some(part.to_owned()), text);
        }
    }
    for object in catalog.objects() {
        let (schema, name) = (object.schema_name.as_str(), object.name.as_str());
        match object.kind {
            ObjectKind::View => {
                for (column, text) in ViewDefinition::of(object)?.comments {
                    let (kind, part) = if column.is_empty() { ("view", None) } else { ("column", Some(column)) };
                    all.push(Comment { schema, kind, name, part, text });
                }
            }
            ObjectKind::Sequence => {
                let text = SequenceDefinition::of(object)?.comment;
                all.extend(text.map(|text| Comment { schema, kind: "sequence", name, part: None, text }));
            }
            ObjectKind::Schema if !object.definition.is_empty() => {
                all.push(Comment { schema: name, kind: "schema", name, part: None, text: object.definition.clone() });
            }
            _ => {}
        }
    }
    Ok(all)
}

/// What a comment is asked of.
#[derive(Clone)]
pub(crate) struct CommentScope {
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) environment: Environment,
}

impl CommentScope {
    /// The comment on a relation or index, or on a schema if `of_schemas`.
    fn on(&self, name: &str, of_schemas: bool) -> Result<Option<String>> {
        let (schema, plain) = relation_name(name)?;
        if of_schemas {
            let schema = self.catalog.find_object(ObjectKind::Schema, "", &plain);
            return Ok(schema.map(|schema| schema.definition.clone()).filter(|text| !text.is_empty()));
        }
        for schema in self.environment.schemas(schema.as_deref()) {
            if let Some(table) = self.catalog.find(schema, &plain) {
                return Ok(table.schema.metadata().get(COMMENT_KEY).cloned());
            }
            if let Some(view) = self.catalog.find_object(ObjectKind::View, schema, &plain) {
                return Ok(ViewDefinition::of(view)?.comments.remove(""));
            }
            if let Some(sequence) = self.catalog.find_object(ObjectKind::Sequence, schema, &plain) {
                return Ok(SequenceDefinition::of(sequence)?.comment);
            }
            if let Some((table, _)) = find_index(&self.catalog, schema, &plain) {
                let table = self.catalog.table(table);
                return Ok(table.and_then(|table| table.schema.metadata().get(&part_key(&plain)).cloned()));
            }
        }
        Err(missing(name))
    }

    fn on_column(&self, name: &str, number: i64) -> Result<Option<String>> {
        let (schema, plain) = relation_name(name)?;
        let place = usize::try_from(number).ok().and_then(|number| number.checked_sub(1));
        let Some(place) = place else { return Ok(None) };
        for schema in self.environment.schemas(schema.as_deref()) {
            if let Some(table) = self.catalog.find(schema, &plain) {
                let field = table.schema.fields().iter().take(shown_columns(table)).nth(place);
                return Ok(field.and_then(|field| field.metadata().get(COMMENT_KEY).cloned()));
            }
            if let Some(view) = self.catalog.find_object(ObjectKind::View, schema, &plain) {
                let mut definition = ViewDefinition::of(view)?;
                return Ok(definition.columns.get(place).and_then(|column| definition.comments.remove(column)));
            }
        }
        Err(missing(name))
    }
}

/// The function of this name, bound to `scope`.
pub(crate) fn function(name: &str, scope: impl FnOnce() -> CommentScope) -> Option<Arc<ScalarUDF>> {
    let (of_columns, signature) = match name {
        "obj_description" => (false, vec![TypeSignature::Any(1), TypeSignature::Any(2)]),
        "col_description" => (true, vec![TypeSignature::Any(2)]),
        _ => return None,
    };
    let signature = Signature::one_of(signature, Volatility::Volatile);
    Some(Arc::new(ScalarUDF::from(Description { of_columns, signature, scope: scope() })))
}

struct Description {
    of_columns: bool,
    signature: Signature,
    scope: CommentScope,
}

impl fmt::Debug for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl PartialEq for Description {
    fn eq(&self, other: &Self) -> bool {
        self.of_columns == other.of_columns && Arc::ptr_eq(&self.scope.catalog, &other.scope.catalog)
    }
}

impl Eq for Description {}

impl Hash for Description {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.of_columns.hash(state);
    }
}

impl ScalarUDFImpl for Description {
    fn name(&self) -> &str {
        if self.of_columns { "col_description" } else { "obj_description" }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _argument_types: &[DataType]) -> DataFusionResult<DataType> {
        Ok(DataType::Utf8View)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let rows = arguments.number_rows;
        let column = |index: usize, data_type: DataType| -> Result<Option<ArrayRef>> {
            let Some(value) = arguments.args.get(index) else { return Ok(None) };
            Ok(Some(cast(&value.clone().into_array(rows)?, &data_type)?))
        };
        let names = column(0, DataType::Utf8)?.ok_or_else(|| Error::internal("a description of nothing"))?;
        let names = names.as_string::<i32>();
        let second = column(1, if self.of_columns { DataType::Int64 } else { DataType::Utf8 })?;
        let mut texts = Vec::with_capacity(rows);
        for row in 0..rows {
            let null = names.is_null(row) || second.as_ref().is_some_and(|second| second.is_null(row));
            texts.push(match (&second, self.of_columns) {
                _ if null => None,
                (Some(numbers), true) => {
                    self.scope.on_column(names.value(row), numbers.as_primitive::<Int64Type>().value(row))?
                }
                (Some(catalogs), false) => {
                    self.scope.on(names.value(row), catalogs.as_string::<i32>().value(row) == "pg_namespace")?
                }
                (None, _) => self.scope.on(names.value(row), false)?,
            });
        }
        let texts: ArrayRef = Arc::new(StringViewArray::from_iter(texts));
        Ok(ColumnarValue::Array(texts))
    }
}
