//! Catalogs, schemas, tables and table types, in the exact schemas of the specification.
//!
//! A metadata command is its own ticket: GetFlightInfo announces the schema, DoGet looks. Nothing is kept in between.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use arrow_flight::error::FlightError;
use arrow_flight::sql::{
    CommandGetCatalogs, CommandGetDbSchemas, CommandGetTableTypes, CommandGetTables, ProstMessageExt,
};
use arrow_flight::{FlightDescriptor, FlightInfo};
use rustydb_engine::{
    CATALOG_NAME, DEFAULT_SCHEMA, ObjectDef, ObjectKind, Session, is_shown_schema, shown_schema, shown_tables,
    view_comments,
};
use tonic::{Request, Response, Status};

use super::SqlService;
use super::execution::flight_info;
use super::flights::select_all;
use super::type_info::{numeric_size, type_name};
use crate::auth::Caller;
use crate::status::internal;
use crate::stream::{FlightStream, encode_batch};
use crate::wire::{schema_message, wire_schema};

/// Where the engine notes a column's type as it was declared, if the Arrow type does not tell it.
const DECLARED_TYPE_KEY: &str = "rustydb.type";
/// Where it notes that a column is computed from others.
const GENERATED_KEY: &str = "rustydb.generated";
/// Where it notes that a column numbers its rows: `always`, which takes no value, or `by default`.
const IDENTITY_KEY: &str = "rustydb.identity";
/// Where it notes what a column without a value gets: the next number of a sequence, if it was declared as `serial`.
const DEFAULT_KEY: &str = "rustydb.default";

/// Where it notes what COMMENT ON says of a table (in the schema) or column (in the field).
const COMMENT_KEY: &str = "rustydb.comment";

const TABLE: &str = "TABLE";
const VIEW: &str = "VIEW";
/// A table of the session's own, as `information_schema` calls it, too.
const LOCAL_TEMPORARY: &str = "LOCAL TEMPORARY";

/// A command that asks about the database rather than for data in it.
pub(super) trait MetadataCommand: ProstMessageExt {
    fn schema(&self, service: &SqlService) -> SchemaRef;
    fn rows(self, service: &SqlService, caller: &Caller) -> impl Future<Output = Result<RecordBatch, Status>> + Send;
}

impl SqlService {
    pub(super) fn announce_metadata(
        &self,
        command: &impl MetadataCommand,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let mut info = flight_info(request.get_ref(), command);
        info.schema = schema_message(&command.schema(self))?;
        Ok(Response::new(info))
    }

    pub(super) async fn fetch_metadata(
        &self,
        command: impl MetadataCommand,
        caller: &Caller,
    ) -> Result<FlightStream, Status> {
        encode_batch(command.rows(self, caller).await?)
    }
}

pub(super) fn not_a_batch(error: FlightError) -> Status {
    internal(format!("metadata does not form a batch: {error}"))
}

impl MetadataCommand for CommandGetCatalogs {
    fn schema(&self, _service: &SqlService) -> SchemaRef {
        self.into_builder().schema()
    }

    async fn rows(self, _service: &SqlService, _caller: &Caller) -> Result<RecordBatch, Status> {
        let mut builder = self.into_builder();
        builder.append(CATALOG_NAME);
        builder.build().map_err(not_a_batch)
    }
}

impl MetadataCommand for CommandGetDbSchemas {
    fn schema(&self, _service: &SqlService) -> SchemaRef {
        self.clone().into_builder().schema()
    }

    async fn rows(self, service: &SqlService, caller: &Caller) -> Result<RecordBatch, Status> {
        let session = service.sessions.looking(caller)?;
        let (catalog, temporary) = (session.catalog(), session.temporary_schema());
        let mut schemas: BTreeSet<&str> = shown_tables(&catalog).map(|table| table.schema_name.as_str()).collect();
        schemas.extend(catalog.objects().filter_map(|object| match object.kind {
            ObjectKind::Schema => Some(object.name.as_str()),
            ObjectKind::View if is_shown_schema(&object.schema_name) => Some(object.schema_name.as_str()),
            _ => None,
        }));
        schemas.insert(DEFAULT_SCHEMA);
        schemas.extend(temporary.as_deref());
        let mut builder = self.into_builder();
        for schema in schemas {
            builder.append(CATALOG_NAME, schema);
        }
        builder.build().map_err(not_a_batch)
    }
}

impl MetadataCommand for CommandGetTables {
    fn schema(&self, _service: &SqlService) -> SchemaRef {
        self.clone().into_builder().schema()
    }

    async fn rows(self, service: &SqlService, caller: &Caller) -> Result<RecordBatch, Status> {
        let session = service.sessions.looking(caller)?;
        let (catalog, temporary) = (session.catalog(), session.temporary_schema());
        let is_own = |schema: &str| temporary.as_deref() == Some(schema);
        let include_schema = self.include_schema;
        let wants_views = self.table_types.is_empty() || self.table_types.iter().any(|kind| kind == VIEW);
        let names_only = CommandGetTables { include_schema: false, ..self.clone() };
        let mut builder = self.into_builder();
        let own = catalog.tables().filter(|table| is_own(&table.schema_name)).map(|table| (table, LOCAL_TEMPORARY));
        for (table, table_type) in shown_tables(&catalog).map(|table| (table, TABLE)).chain(own) {
            let schema = match include_schema {
                true => described_schema(&table.schema_name, &table.name, &shown_schema(table), false),
                false => Schema::empty(),
            };
            builder.append(CATALOG_NAME, &table.schema_name, &table.name, table_type, &schema).map_err(not_a_batch)?;
        }
        let is_in_sight = |schema: &str| is_shown_schema(schema) || is_own(schema);
        let is_view = |object: &&Arc<ObjectDef>| object.kind == ObjectKind::View && is_in_sight(&object.schema_name);
        let mut views: Vec<_> = catalog.objects().filter(is_view).filter(|_| wants_views).collect();
        if include_schema {
            views = asked_for(names_only, views)?;
        }
        for view in views {
            let schema = match include_schema {
                true => view_schema(&session, view).await,
                false => Schema::empty(),
            };
            builder.append(CATALOG_NAME, &view.schema_name, &view.name, VIEW, &schema).map_err(not_a_batch)?;
        }
        builder.build().map_err(not_a_batch)
    }
}

impl MetadataCommand for CommandGetTableTypes {
    fn schema(&self, _service: &SqlService) -> SchemaRef {
        self.into_builder().schema()
    }

    async fn rows(self, _service: &SqlService, _caller: &Caller) -> Result<RecordBatch, Status> {
        let mut builder = self.into_builder();
        builder.append(TABLE);
        builder.append(VIEW);
        builder.append(LOCAL_TEMPORARY);
        builder.build().map_err(not_a_batch)
    }
}

/// Those of the views that a command's filters leave: only they have to be planned.
fn asked_for(names_only: CommandGetTables, views: Vec<&Arc<ObjectDef>>) -> Result<Vec<&Arc<ObjectDef>>, Status> {
    let mut builder = names_only.into_builder();
    for view in &views {
        builder.append(CATALOG_NAME, &view.schema_name, &view.name, VIEW, &Schema::empty()).map_err(not_a_batch)?;
    }
    let left = builder.build().map_err(not_a_batch)?;
    let texts = |column: usize| left.column(column).as_string::<i32>().iter().map(Option::unwrap_or_default);
    let names: HashSet<(&str, &str)> = texts(1).zip(texts(2)).collect();
    Ok(views.into_iter().filter(|view| names.contains(&(view.schema_name.as_str(), view.name.as_str()))).collect())
}

/// The columns of a view, which the engine knows by planning it.
async fn view_schema(session: &Session, view: &ObjectDef) -> Schema {
    let ObjectDef { schema_name, name, .. } = view;
    match session.describe(&select_all(schema_name, name)).await {
        Ok(Some(schema)) => described_schema(schema_name, name, &with_comments(view, &schema), true),
        // A view whose query cannot be planned (any more) must not hide the others.
        Ok(None) | Err(_) => Schema::empty(),
    }
}

/// The columns of a view with what COMMENT ON says of it and them.
fn with_comments(view: &ObjectDef, columns: &Schema) -> Schema {
    let comments = view_comments(view);
    let noted = |metadata: &HashMap<String, String>, key: &str| {
        let mut metadata = metadata.clone();
        metadata.extend(comments.get(key).map(|comment| (COMMENT_KEY.to_owned(), comment.clone())));
        metadata
    };
    let fields = columns.fields().iter().map(|field| {
        let metadata = noted(field.metadata(), field.name());
        field.as_ref().clone().with_metadata(metadata)
    });
    Schema::new_with_metadata(fields.collect::<Vec<_>>(), noted(columns.metadata(), ""))
}

/// A relation's columns as a query returns them, each with what drivers show of a column (JDBC `getColumns`).
fn described_schema(schema_name: &str, relation: &str, stored: &Schema, is_read_only: bool) -> Schema {
    let wire = wire_schema(stored);
    let flag = |value: bool| String::from(if value { "1" } else { "0" });
    let fields = wire.fields().iter().zip(stored.fields()).map(|(field, stored)| {
        let engine_note = |key: &str| stored.metadata().get(key).map(String::as_str);
        let mut metadata = field.metadata().clone();
        let mut note = |key: &str, value: String| metadata.insert(format!("ARROW:FLIGHT:SQL:{key}"), value);
        note("CATALOG_NAME", CATALOG_NAME.to_owned());
        note("DB_SCHEMA_NAME", schema_name.to_owned());
        note("TABLE_NAME", relation.to_owned());
        note("TYPE_NAME", engine_note(DECLARED_TYPE_KEY).unwrap_or(type_name(stored.data_type())).to_owned());
        if let Some((precision, scale)) = numeric_size(stored.data_type()) {
            note("PRECISION", precision.to_string());
            note("SCALE", scale.to_string());
        }
        let identity = engine_note(IDENTITY_KEY);
        let is_serial = engine_note(DEFAULT_KEY).is_some_and(|default| default.starts_with("nextval("));
        note("IS_AUTO_INCREMENT", flag(identity.is_some() || is_serial));
        note("IS_CASE_SENSITIVE", flag(type_name(stored.data_type()) == "text"));
        let is_computed = engine_note(GENERATED_KEY).is_some() || identity == Some("always");
        note("IS_READ_ONLY", flag(is_read_only || is_computed));
        note("IS_SEARCHABLE", flag(true));
        if let Some(comment) = engine_note(COMMENT_KEY) {
            note("REMARKS", comment.to_owned());
        }
        Field::clone(field).with_metadata(metadata)
    });
    let fields: Vec<Field> = fields.collect();
    let mut metadata = wire.metadata().clone();
    if let Some(comment) = stored.metadata().get(COMMENT_KEY) {
        metadata.insert("ARROW:FLIGHT:SQL:REMARKS".to_owned(), comment.clone());
    }
    Schema::new_with_metadata(fields, metadata)
}
