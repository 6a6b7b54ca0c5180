//! The schema and the types that clients see.
//!
//! The engine uses the Arrow types that are fastest to compute with; many clients know only the older ones. At this
//! edge, and only here, they are exchanged:
//!
//! ```text
//! Utf8View -> Utf8           Dictionary(_, V) -> V         LargeList, ListView, LargeListView -> List
//! BinaryView -> Binary       RunEndEncoded(_, V) -> V                                   (at any depth)
//! ```
//!
//! Invariants: a result is sent in exactly the schema it was announced with. A value that has no place there is an
//! error, never a NULL.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use arrow::array::{Array, ArrayRef};
use arrow::compute::{CastOptions, can_cast_types, cast_with_options};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use arrow::ipc::writer::IpcWriteOptions;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use arrow_flight::{FlightData, IpcMessage, SchemaAsIpc};
use bytes::Bytes;
use rustydb_engine::{Session, Surroundings};
use tonic::Status;

use crate::short::ShortRows;
use crate::status::{internal, refuse};

/// Schema and field metadata of the catalog's own, which is nobody else's business.
const PRIVATE_METADATA_PREFIX: &str = "rustydb.";

/// The schema of a result as its client is told, encoded once for as many executions as there are.
pub(crate) struct Announced {
    pub(crate) schema: SchemaRef,
    /// As other messages embed it.
    message: Bytes,
    /// The metadata of a DoGet's first message.
    first: Bytes,
    /// What the messages of its short answers have in common.
    pub(crate) short: Arc<ShortRows>,
    /// Other columns that are known to be meant by it.
    accepted: OnceLock<SchemaRef>,
    /// What was around the statement when it was found out, if it is a statement's.
    surroundings: Option<Surroundings>,
}

impl Announced {
    /// Announces a result whose batches have this schema in the engine.
    pub(crate) fn new(schema: &Schema) -> Result<Arc<Self>, Status> {
        Self::found(schema, None)
    }

    /// The same for the result of a statement that has these surroundings.
    pub(crate) fn new_in(schema: &Schema, surroundings: &Surroundings) -> Result<Arc<Self>, Status> {
        Self::found(schema, Some(surroundings.clone()))
    }

    fn found(schema: &Schema, surroundings: Option<Surroundings>) -> Result<Arc<Self>, Status> {
        let schema = wire_schema(schema);
        let message = schema_message(&schema)?;
        let first = FlightData::from(SchemaAsIpc::new(&schema, &IpcWriteOptions::default())).data_header;
        Ok(Arc::new(Self { schema, message, first, short: Arc::default(), accepted: OnceLock::new(), surroundings }))
    }

    /// Whether a result of these columns in the engine is what was announced, or is known to be meant by it.
    pub(crate) fn is_of(&self, schema: &SchemaRef) -> bool {
        let is_column = |(announced, field): (&FieldRef, &FieldRef)| {
            let (to, from) = (announced.data_type(), field.data_type());
            announced.name() == field.name() && (to == from || *to == wire_type(from))
        };
        let is_same = self.schema.fields().len() == schema.fields().len()
            && self.schema.fields().iter().zip(schema.fields()).all(is_column);
        is_same || self.accepted.get().is_some_and(|accepted| accepted.fields() == schema.fields())
    }

    /// Whether the columns of a result have the names that were announced.
    pub(crate) fn has_names_of(&self, schema: &Schema) -> bool {
        let names = self.schema.fields().iter().map(|field| field.name());
        names.eq(schema.fields().iter().map(|field| field.name()))
    }

    /// Whether a session's statements have around them what they had when it was found out.
    pub(crate) fn is_as_found(&self, session: &Session) -> bool {
        self.surroundings.as_ref().is_some_and(|surroundings| session.is_in(surroundings))
    }

    /// Notes columns that are meant, although their types are others.
    pub(crate) fn accept(&self, schema: SchemaRef) {
        // One kind is enough: a statement answers in the same columns each time.
        let _ = self.accepted.set(schema);
    }

    pub(crate) fn message(&self) -> Bytes {
        self.message.clone()
    }

    pub(crate) fn first(&self) -> Bytes {
        self.first.clone()
    }
}

/// The schema as clients see it.
pub(crate) fn wire_schema(schema: &Schema) -> SchemaRef {
    let fields: Fields = schema.fields().iter().map(wire_field).collect();
    Arc::new(Schema::new_with_metadata(fields, public(schema.metadata())))
}

fn public(metadata: &HashMap<String, String>) -> HashMap<String, String> {
    let mut metadata = metadata.clone();
    metadata.retain(|key, _| !key.starts_with(PRIVATE_METADATA_PREFIX));
    metadata
}

fn wire_field(field: &FieldRef) -> FieldRef {
    let data_type = wire_type(field.data_type());
    Arc::new(Field::new(field.name(), data_type, field.is_nullable()).with_metadata(public(field.metadata())))
}

fn wire_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::Dictionary(_, values) => wire_type(values),
        DataType::RunEndEncoded(_, values) => wire_type(values.data_type()),
        // The encoder announces large lists as lists; so do we.
        DataType::List(item) | DataType::LargeList(item) | DataType::ListView(item) | DataType::LargeListView(item) => {
            DataType::List(wire_field(item))
        }
        DataType::FixedSizeList(item, length) => DataType::FixedSizeList(wire_field(item), *length),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(wire_field).collect()),
        DataType::Map(entries, sorted) => DataType::Map(wire_field(entries), *sorted),
        DataType::Union(fields, mode) => {
            DataType::Union(fields.iter().map(|(id, field)| (id, wire_field(field))).collect(), *mode)
        }
        other => other.clone(),
    }
}

/// A schema as the protocol embeds it in other messages.
pub(crate) fn schema_message(schema: &Schema) -> Result<Bytes, Status> {
    let IpcMessage(bytes) =
        SchemaAsIpc::new(schema, &Default::default()).try_into().map_err(|error: arrow::error::ArrowError| {
            refuse("0A000", format!("the result's schema has no Arrow IPC form: {error}"))
        })?;
    Ok(bytes)
}

/// The rows of `batch` in the columns of `schema`.
pub(crate) fn convert(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, Status> {
    if batch.num_columns() != schema.fields().len() {
        return Err(changed());
    }
    let mut columns = Vec::with_capacity(batch.num_columns());
    for (column, field) in batch.columns().iter().zip(schema.fields()) {
        columns.push(match column.data_type() == field.data_type() {
            true => Arc::clone(column),
            false => exchange(column, field)?,
        });
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
        .map_err(|error| internal(format!("a result does not fit its announced schema: {error}")))
}

/// The answer to who would have to be sent other columns than were announced.
pub(crate) fn changed() -> Status {
    refuse("0A000", "cached plan must not change result type")
        .hint("prepare it again: a table it names has changed")
        .into()
}

/// The column in the type that was announced. A value that has no place there is an error, never a NULL.
fn exchange(column: &ArrayRef, field: &Field) -> Result<ArrayRef, Status> {
    let (from, to) = (column.data_type(), field.data_type());
    // No type but NULL itself fits a column announced as nothing but NULL, although some casts pretend to.
    if *to == DataType::Null || !can_cast_types(from, to) {
        let message = format!("column \"{}\" of type {from} was announced as {to}", field.name());
        return Err(refuse("0A000", message).hint("say the type in the statement: CAST(… AS …)").into());
    }
    cast_with_options(column, to, &CastOptions { safe: false, ..CastOptions::default() }).map_err(|error| {
        let message = format!("a value of column \"{}\" does not fit the announced type {to}: {error}", field.name());
        refuse("22003", message).hint("say the type in the statement: CAST(… AS …)").into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_field_metadata_stays_at_home() {
        let metadata = [("rustydb.default", "1"), ("public", "yes")];
        let metadata = metadata.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let field = Field::new("a", DataType::Int64, false).with_metadata(metadata.into());
        let wire = wire_schema(&Schema::new(vec![field]));
        assert_eq!(wire.field(0).metadata().len(), 1);
        assert!(!wire.field(0).is_nullable());
    }
}
