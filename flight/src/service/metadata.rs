//! Catalogs, schemas, tables and table types, in the exact schemas of the specification.
//!
//! A metadata command is its own ticket: GetFlightInfo announces the schema, DoGet looks. Nothing is kept in between.

use std::collections::BTreeSet;

use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use arrow_flight::error::FlightError;
use arrow_flight::sql::{
    CommandGetCatalogs, CommandGetDbSchemas, CommandGetTableTypes, CommandGetTables, ProstMessageExt,
};
use arrow_flight::{FlightDescriptor, FlightInfo};
use rustydb_engine::{CATALOG_NAME, DEFAULT_SCHEMA, TableDef};
use tonic::{Request, Response, Status};

use super::SqlService;
use super::execution::flight_info;
use super::type_info::{numeric_size, type_name};
use crate::auth::Caller;
use crate::status::internal;
use crate::stream::{FlightStream, encode_batch, schema_message, wire_schema};

/// Where the engine notes a column's type as it was declared, if the Arrow type does not tell it.
const DECLARED_TYPE_KEY: &str = "rustydb.type";
/// The one type of table there is.
const TABLE: &str = "TABLE";

/// A command that asks about the database rather than for data in it.
pub(super) trait MetadataCommand: ProstMessageExt {
    fn schema(&self, service: &SqlService) -> SchemaRef;
    fn rows(self, service: &SqlService, caller: &Caller) -> Result<RecordBatch, Status>;
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

    pub(super) fn fetch_metadata(
        &self,
        command: impl MetadataCommand,
        caller: &Caller,
    ) -> Result<Response<FlightStream>, Status> {
        Ok(Response::new(encode_batch(command.rows(self, caller)?)))
    }
}

pub(super) fn not_a_batch(error: FlightError) -> Status {
    internal(format!("metadata does not form a batch: {error}"))
}

impl MetadataCommand for CommandGetCatalogs {
    fn schema(&self, _service: &SqlService) -> SchemaRef {
        self.into_builder().schema()
    }

    fn rows(self, _service: &SqlService, _caller: &Caller) -> Result<RecordBatch, Status> {
        let mut builder = self.into_builder();
        builder.append(CATALOG_NAME);
        builder.build().map_err(not_a_batch)
    }
}

impl MetadataCommand for CommandGetDbSchemas {
    fn schema(&self, _service: &SqlService) -> SchemaRef {
        self.clone().into_builder().schema()
    }

    fn rows(self, service: &SqlService, caller: &Caller) -> Result<RecordBatch, Status> {
        let catalog = service.sessions.catalog(caller)?;
        let mut schemas: BTreeSet<&str> = catalog.tables().map(|table| table.schema_name.as_str()).collect();
        schemas.insert(DEFAULT_SCHEMA);
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

    fn rows(self, service: &SqlService, caller: &Caller) -> Result<RecordBatch, Status> {
        let catalog = service.sessions.catalog(caller)?;
        let include_schema = self.include_schema;
        let mut builder = self.into_builder();
        for table in catalog.tables() {
            let schema = match include_schema {
                true => described_schema(table),
                false => Schema::empty(),
            };
            builder.append(CATALOG_NAME, &table.schema_name, &table.name, TABLE, &schema).map_err(not_a_batch)?;
        }
        builder.build().map_err(not_a_batch)
    }
}

impl MetadataCommand for CommandGetTableTypes {
    fn schema(&self, _service: &SqlService) -> SchemaRef {
        self.into_builder().schema()
    }

    fn rows(self, _service: &SqlService, _caller: &Caller) -> Result<RecordBatch, Status> {
        let mut builder = self.into_builder();
        builder.append(TABLE);
        builder.build().map_err(not_a_batch)
    }
}

/// A table's columns as a query returns them, each with what drivers show of a column (JDBC `getColumns`).
fn described_schema(table: &TableDef) -> Schema {
    let wire = wire_schema(&table.schema);
    let fields = wire.fields().iter().zip(table.schema.fields()).map(|(field, stored)| {
        let mut metadata = field.metadata().clone();
        let mut note = |key: &str, value: String| metadata.insert(format!("ARROW:FLIGHT:SQL:{key}"), value);
        note("CATALOG_NAME", CATALOG_NAME.to_owned());
        note("DB_SCHEMA_NAME", table.schema_name.clone());
        note("TABLE_NAME", table.name.clone());
        let declared = stored.metadata().get(DECLARED_TYPE_KEY);
        note("TYPE_NAME", declared.map_or(type_name(stored.data_type()), String::as_str).to_owned());
        if let Some((precision, scale)) = numeric_size(stored.data_type()) {
            note("PRECISION", precision.to_string());
            note("SCALE", scale.to_string());
        }
        note("IS_AUTO_INCREMENT", "0".to_owned());
        note("IS_CASE_SENSITIVE", "1".to_owned());
        note("IS_READ_ONLY", "0".to_owned());
        note("IS_SEARCHABLE", "1".to_owned());
        Field::clone(field).with_metadata(metadata)
    });
    Schema::new(fields.collect::<Vec<_>>())
}
