//! Catalog metadata in the specification's schemas, and what the server says about itself.

use std::collections::HashMap;

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Field, Int32Type, Schema, UInt8Type, UInt32Type};
use arrow::record_batch::RecordBatch;
use arrow_flight::sql::{
    CommandGetCrossReference, CommandGetDbSchemas, CommandGetExportedKeys, CommandGetImportedKeys,
    CommandGetPrimaryKeys, CommandGetTables, CommandGetXdbcTypeInfo, ProstMessageExt, SqlInfo,
};
use arrow_flight::{FlightDescriptor, FlightInfo, IpcMessage};
use prost::Message;

use crate::support::{Client, TestServer, fetch, row_count, texts, update};

async fn create_tables(client: &mut Client) {
    for sql in [
        "CREATE TABLE region (r BIGINT PRIMARY KEY, name VARCHAR NOT NULL)",
        "CREATE TABLE nation (a BIGINT, b BIGINT, region BIGINT REFERENCES region (r), PRIMARY KEY (b, a))",
        "CREATE TABLE town (t BIGINT PRIMARY KEY, na BIGINT, nb BIGINT, size NUMERIC(12, 2), \
         FOREIGN KEY (nb, na) REFERENCES nation (b, a))",
    ] {
        update(client, sql).await.unwrap();
    }
}

/// Fetches metadata and checks that what was announced is what came.
async fn rows(client: &mut Client, info: FlightInfo) -> Vec<RecordBatch> {
    let announced: Schema = info.clone().try_into().unwrap();
    let batches = fetch(client, info).await.unwrap();
    assert!(batches.iter().all(|batch| *batch.schema() == announced));
    batches
}

fn shape(schema: &Schema) -> Vec<(String, DataType, bool)> {
    schema.fields().iter().map(|f| (f.name().clone(), f.data_type().clone(), f.is_nullable())).collect()
}

fn fields(fields: &[(&str, DataType, bool)]) -> Vec<(String, DataType, bool)> {
    fields.iter().map(|(name, data_type, nullable)| ((*name).to_owned(), data_type.clone(), *nullable)).collect()
}

#[tokio::test]
async fn catalogs_schemas_and_table_types_are_listed() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let info = client.get_catalogs().await.unwrap();
    assert_eq!(texts(&rows(&mut client, info).await, "catalog_name"), ["rustydb"]);
    let info = client.get_db_schemas(CommandGetDbSchemas::default()).await.unwrap();
    assert_eq!(texts(&rows(&mut client, info).await, "db_schema_name"), ["public"]);
    let none = CommandGetDbSchemas { db_schema_filter_pattern: Some("priv%".to_owned()), ..Default::default() };
    let info = client.get_db_schemas(none).await.unwrap();
    assert_eq!(row_count(&rows(&mut client, info).await), 0);
    let info = client.get_table_types().await.unwrap();
    assert_eq!(texts(&rows(&mut client, info).await, "table_type"), ["LOCAL TEMPORARY", "TABLE", "VIEW"]);
    update(&mut client, "CREATE SCHEMA empty").await.unwrap();
    let info = client.get_db_schemas(CommandGetDbSchemas::default()).await.unwrap();
    assert_eq!(texts(&rows(&mut client, info).await, "db_schema_name"), ["empty", "public"]);
}

#[tokio::test]
async fn tables_are_filtered_by_pattern_and_type_and_described() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    create_tables(&mut client).await;
    let info = client.get_tables(CommandGetTables::default()).await.unwrap();
    assert_eq!(texts(&rows(&mut client, info).await, "table_name"), ["nation", "region", "town"]);

    for (command, expected) in [
        (CommandGetTables { table_name_filter_pattern: Some("%ion".to_owned()), ..Default::default() }, 2),
        (CommandGetTables { table_name_filter_pattern: Some("_own".to_owned()), ..Default::default() }, 1),
        (CommandGetTables { table_types: vec!["VIEW".to_owned()], ..Default::default() }, 0),
        (CommandGetTables { table_types: vec!["TABLE".to_owned()], ..Default::default() }, 3),
        (CommandGetTables { catalog: Some("other".to_owned()), ..Default::default() }, 0),
        (CommandGetTables { db_schema_filter_pattern: Some("pub%".to_owned()), ..Default::default() }, 3),
    ] {
        let info = client.get_tables(command.clone()).await.unwrap();
        assert_eq!(row_count(&rows(&mut client, info).await), expected, "{command:?}");
    }

    let command = CommandGetTables {
        table_name_filter_pattern: Some("town".to_owned()),
        include_schema: true,
        ..Default::default()
    };
    let info = client.get_tables(command).await.unwrap();
    let batches = rows(&mut client, info).await;
    let message = batches[0].column_by_name("table_schema").unwrap().as_binary::<i32>().value(0).to_vec();
    let schema = Schema::try_from(IpcMessage(message.into())).unwrap();
    let size = schema.field_with_name("size").unwrap();
    assert_eq!(*size.data_type(), DataType::Decimal128(12, 2));
    assert_eq!(size.metadata()["ARROW:FLIGHT:SQL:TYPE_NAME"], "numeric");
    assert_eq!(size.metadata()["ARROW:FLIGHT:SQL:PRECISION"], "12");
    assert!(!schema.field_with_name("t").unwrap().is_nullable());
}

#[tokio::test]
async fn primary_keys_are_in_key_order() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    create_tables(&mut client).await;
    let command = CommandGetPrimaryKeys { table: "nation".to_owned(), ..Default::default() };
    let info = client.get_primary_keys(command).await.unwrap();
    let batches = rows(&mut client, info).await;
    let expected = fields(&[
        ("catalog_name", DataType::Utf8, true),
        ("db_schema_name", DataType::Utf8, true),
        ("table_name", DataType::Utf8, false),
        ("column_name", DataType::Utf8, false),
        ("key_name", DataType::Utf8, true),
        ("key_sequence", DataType::Int32, false),
    ]);
    assert_eq!(shape(&batches[0].schema()), expected);
    assert_eq!(texts(&batches, "column_name"), ["b", "a"]);
    assert_eq!(texts(&batches, "key_name"), ["nation_pkey", "nation_pkey"]);
    assert_eq!(batches[0].column(5).as_primitive::<Int32Type>().values(), &[1, 2]);

    let command = CommandGetPrimaryKeys { table: "nowhere".to_owned(), ..Default::default() };
    let info = client.get_primary_keys(command).await.unwrap();
    assert_eq!(row_count(&rows(&mut client, info).await), 0);
}

#[tokio::test]
async fn foreign_keys_are_seen_from_both_ends() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    create_tables(&mut client).await;

    let imported = CommandGetImportedKeys { table: "town".to_owned(), ..Default::default() };
    let info = client.get_imported_keys(imported).await.unwrap();
    let imported = rows(&mut client, info).await;
    assert_eq!(texts(&imported, "fk_column_name"), ["nb", "na"]);
    assert_eq!(texts(&imported, "pk_column_name"), ["b", "a"]);
    assert_eq!(texts(&imported, "pk_table_name"), ["nation", "nation"]);
    assert_eq!(imported[0].column(11).as_primitive::<UInt8Type>().value(0), 3, "NO ACTION");
    assert_eq!(shape(&imported[0].schema())[8], ("key_sequence".to_owned(), DataType::Int32, false));

    let exported = CommandGetExportedKeys { table: "region".to_owned(), ..Default::default() };
    let info = client.get_exported_keys(exported).await.unwrap();
    assert_eq!(texts(&rows(&mut client, info).await, "fk_table_name"), ["nation"]);

    let cross =
        CommandGetCrossReference { pk_table: "nation".to_owned(), fk_table: "town".to_owned(), ..Default::default() };
    let info = client.get_cross_reference(cross.clone()).await.unwrap();
    assert_eq!(row_count(&rows(&mut client, info).await), 2);
    let info = client.get_cross_reference(CommandGetCrossReference { pk_table: "region".to_owned(), ..cross }).await;
    assert_eq!(row_count(&rows(&mut client, info.unwrap()).await), 0);
}

#[tokio::test]
async fn what_a_foreign_key_does_is_told() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    for sql in [
        "CREATE TABLE parent (id BIGINT PRIMARY KEY)",
        "CREATE TABLE child (a BIGINT REFERENCES parent ON DELETE CASCADE ON UPDATE SET NULL, \
         b BIGINT REFERENCES parent ON DELETE RESTRICT, c BIGINT DEFAULT 1 REFERENCES parent ON DELETE SET DEFAULT)",
    ] {
        update(&mut client, sql).await.unwrap();
    }
    let command = CommandGetExportedKeys { table: "parent".to_owned(), ..Default::default() };
    let info = client.get_exported_keys(command).await.unwrap();
    let keys = rows(&mut client, info).await;
    assert_eq!(texts(&keys, "fk_column_name"), ["a", "b", "c"]);
    assert_eq!(texts(&keys, "pk_key_name"), ["parent_pkey", "parent_pkey", "parent_pkey"]);
    let rules = |column: usize| keys[0].column(column).as_primitive::<UInt8Type>().values().to_vec();
    assert_eq!(rules(11), [2, 3, 3], "on update: SET NULL, NO ACTION, NO ACTION");
    assert_eq!(rules(12), [0, 1, 4], "on delete: CASCADE, RESTRICT, SET DEFAULT");
}

#[tokio::test]
async fn imported_keys_are_in_the_order_of_the_keys_they_refer_to() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    for sql in [
        "CREATE TABLE parent (a BIGINT UNIQUE, b BIGINT, c BIGINT, PRIMARY KEY (b, c))",
        "CREATE TABLE child (a BIGINT, b BIGINT, c BIGINT, d BIGINT, e BIGINT, \
         CONSTRAINT x FOREIGN KEY (d, e) REFERENCES parent (b, c), \
         CONSTRAINT y FOREIGN KEY (b, c) REFERENCES parent (b, c), \
         CONSTRAINT z FOREIGN KEY (a) REFERENCES parent (a))",
    ] {
        update(&mut client, sql).await.unwrap();
    }
    let imported = CommandGetImportedKeys { table: "child".to_owned(), ..Default::default() };
    let cross =
        CommandGetCrossReference { pk_table: "parent".to_owned(), fk_table: "child".to_owned(), ..Default::default() };
    for info in [client.get_imported_keys(imported).await.unwrap(), client.get_cross_reference(cross).await.unwrap()] {
        let keys = rows(&mut client, info).await;
        let expected = ["parent_a_key", "parent_pkey", "parent_pkey", "parent_pkey", "parent_pkey"];
        assert_eq!(texts(&keys, "pk_key_name"), expected);
        assert_eq!(keys[0].column(8).as_primitive::<Int32Type>().values(), &[1, 1, 1, 2, 2]);
        assert_eq!(texts(&keys, "fk_key_name"), ["z", "x", "y", "x", "y"]);
        assert_eq!(texts(&keys, "fk_column_name"), ["a", "d", "b", "e", "c"]);
    }
}

#[tokio::test]
async fn comments_are_remarks_of_relations_and_their_columns() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    for sql in [
        "CREATE TABLE region (id BIGINT PRIMARY KEY, name TEXT)",
        "CREATE VIEW names AS SELECT name FROM region",
        "COMMENT ON TABLE region IS 'parts of the world'",
        "COMMENT ON COLUMN region.name IS 'as people say'",
        "COMMENT ON VIEW names IS 'names alone'",
        "COMMENT ON COLUMN names.name IS 'one of them'",
    ] {
        update(&mut client, sql).await.unwrap();
    }
    let info = client.get_tables(CommandGetTables { include_schema: true, ..Default::default() }).await.unwrap();
    let tables = rows(&mut client, info).await;
    assert_eq!(texts(&tables, "table_name"), ["names", "region"]);
    let schemas = tables[0].column_by_name("table_schema").unwrap().as_binary::<i32>();
    let schema = |row: usize| Schema::try_from(IpcMessage(schemas.value(row).to_vec().into())).unwrap();
    let remarks = |metadata: &HashMap<String, String>| metadata.get("ARROW:FLIGHT:SQL:REMARKS").cloned();
    let (view, table) = (schema(0), schema(1));
    assert_eq!(remarks(view.metadata()).unwrap(), "names alone");
    assert_eq!(remarks(view.field(0).metadata()).unwrap(), "one of them");
    assert_eq!(remarks(table.metadata()).unwrap(), "parts of the world");
    assert_eq!(remarks(table.field(0).metadata()), None);
    assert_eq!(remarks(table.field(1).metadata()).unwrap(), "as people say");
}

#[tokio::test]
async fn transaction_support_is_where_adbc_looks_for_it() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let info = client.get_sql_info(vec![SqlInfo::FlightSqlServerTransaction]).await.unwrap();
    let batches = rows(&mut client, info).await;
    assert_eq!(batches[0].num_rows(), 1);
    assert_eq!(batches[0].column(0).as_primitive::<UInt32Type>().value(0), 8);
    let union = batches[0].column(1).as_union();
    assert_eq!(union.type_id(0), 3, "the int32 member");
    assert_eq!(union.value(0).as_primitive::<Int32Type>().value(0), 2, "transactions with savepoints");

    let info = client.get_sql_info(vec![]).await.unwrap();
    assert!(row_count(&rows(&mut client, info).await) > 40, "all of them");
}

#[tokio::test]
async fn type_info_can_be_asked_for_one_type() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let info = client.get_xdbc_type_info(CommandGetXdbcTypeInfo { data_type: None }).await.unwrap();
    assert!(texts(&rows(&mut client, info).await, "type_name").contains(&"numeric".to_owned()));
    let info = client.get_xdbc_type_info(CommandGetXdbcTypeInfo { data_type: Some(-5) }).await.unwrap();
    assert_eq!(texts(&rows(&mut client, info).await, "type_name"), ["bigint", "uint64"]);
}

#[tokio::test]
async fn get_schema_tells_the_schema_without_running_anything() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    create_tables(&mut client).await;
    let mut schema = async |command: Vec<u8>| -> Schema {
        let descriptor = FlightDescriptor::new_cmd(command);
        client.inner_mut().get_schema(descriptor).await.unwrap().into_inner().try_into().unwrap()
    };
    let query =
        |query: &str| arrow_flight::sql::CommandStatementQuery { query: query.to_owned(), transaction_id: None };
    let select = schema(query("SELECT name FROM region").as_any().encode_to_vec()).await;
    assert_eq!(select, Schema::new(vec![Field::new("name", DataType::Utf8, false)]));
    let insert = schema(query("INSERT INTO region VALUES (1, 'x')").as_any().encode_to_vec()).await;
    assert!(insert.fields().is_empty());
    let tables = CommandGetTables { include_schema: true, ..Default::default() };
    let tables = schema(tables.as_any().encode_to_vec()).await;
    assert_eq!(*tables.field(4).data_type(), DataType::Binary);
    assert_eq!(crate::support::number(&mut client, "SELECT count(*) FROM region").await, 0);
}
