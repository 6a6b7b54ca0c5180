//! What the Arrow Flight SQL JDBC driver does, call by call: it logs in for a session, prepares everything, tells updates
//! from queries by what preparing answers, and leaves transactions to SQL. Java itself is not needed for that.

use arrow::array::{ArrayRef, AsArray, Int32Array, StringArray};
use arrow::datatypes::{Int32Type, Schema, UInt32Type};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::sql::{
    ActionClosePreparedStatementRequest, ActionCreatePreparedStatementRequest, Any, CommandGetDbSchemas,
    CommandGetSqlInfo, CommandGetTables, CommandPreparedStatementQuery, CommandPreparedStatementUpdate,
    DoPutPreparedStatementResult, DoPutUpdateResult, ProstMessageExt,
};
use arrow_flight::{Action, FlightDescriptor, FlightInfo, IpcMessage};
use bytes::Bytes;
use futures::{TryStreamExt, stream};
use prost::Message;
use std::sync::Arc;
use tonic::Code;

use crate::support::{Client, TestServer, assert_refused, fetch, row_count, texts};

/// The specification's ActionCreatePreparedStatementResult; arrow-flight's lacks the last field.
#[derive(Clone, PartialEq, prost::Message)]
struct Prepared {
    #[prost(bytes = "bytes", tag = "1")]
    handle: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    dataset_schema: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    parameter_schema: Bytes,
    #[prost(bool, optional, tag = "4")]
    is_update: Option<bool>,
}

/// A connection of the driver.
struct Connection(Client);

/// What `Statement.execute` leaves behind.
#[derive(Debug)]
enum Outcome {
    Count(i64),
    Rows(Vec<RecordBatch>),
}

impl Outcome {
    fn count(self) -> i64 {
        match self {
            Self::Count(count) => count,
            Self::Rows(rows) => panic!("rows instead of a count: {rows:?}"),
        }
    }

    fn rows(self) -> Vec<RecordBatch> {
        match self {
            Self::Rows(rows) => rows,
            Self::Count(count) => panic!("a count instead of rows: {count}"),
        }
    }
}

impl Connection {
    async fn open(server: &TestServer) -> Self {
        Self(server.session().await)
    }

    async fn prepare(&mut self, sql: &str) -> Result<Prepared, FlightError> {
        let request = ActionCreatePreparedStatementRequest { query: sql.to_owned(), transaction_id: None };
        let action = Action::new("CreatePreparedStatement", request.as_any().encode_to_vec());
        let result = self.0.do_action(action).await?.message().await?.unwrap();
        Ok(Prepared::decode(Any::decode(result.body).unwrap().value).unwrap())
    }

    async fn put(&mut self, command: impl ProstMessageExt, rows: Option<RecordBatch>) -> Result<Bytes, FlightError> {
        // Without parameters the driver sends a batch without columns and rows, under a schema without fields.
        let nothing = RecordBatchOptions::new().with_row_count(Some(0));
        let nothing = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &nothing).unwrap();
        let messages: Vec<_> = FlightDataEncoderBuilder::new()
            .with_flight_descriptor(Some(FlightDescriptor::new_cmd(command.as_any().encode_to_vec())))
            .build(stream::iter([Ok(rows.unwrap_or(nothing))]))
            .try_collect()
            .await?;
        let answers: Vec<_> = self.0.do_put(stream::iter(messages)).await?.try_collect().await?;
        Ok(answers[0].app_metadata.clone())
    }

    async fn update(&mut self, handle: Bytes, rows: Option<RecordBatch>) -> Result<i64, FlightError> {
        let answer = self.put(CommandPreparedStatementUpdate { prepared_statement_handle: handle }, rows).await?;
        Ok(DoPutUpdateResult::decode(answer).unwrap().record_count)
    }

    async fn query(&mut self, mut handle: Bytes, rows: Option<RecordBatch>) -> Result<Vec<RecordBatch>, FlightError> {
        if let Some(rows) = rows {
            let command = CommandPreparedStatementQuery { prepared_statement_handle: handle };
            let answer = DoPutPreparedStatementResult::decode(self.put(command, Some(rows)).await?).unwrap();
            handle = answer.prepared_statement_handle.unwrap();
        }
        let info = self.info(&CommandPreparedStatementQuery { prepared_statement_handle: handle }).await?;
        fetch(&mut self.0, info).await
    }

    async fn info(&mut self, command: &impl ProstMessageExt) -> Result<FlightInfo, FlightError> {
        let descriptor = FlightDescriptor::new_cmd(command.as_any().encode_to_vec());
        let request = self.with_token(descriptor);
        Ok(self.0.inner_mut().get_flight_info(request).await?.into_inner())
    }

    fn with_token<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        let token = format!("Bearer {}", self.0.token().unwrap());
        request.metadata_mut().insert("authorization", token.parse().unwrap());
        request
    }

    async fn metadata(&mut self, command: &impl ProstMessageExt) -> Vec<RecordBatch> {
        let info = self.info(command).await.unwrap();
        fetch(&mut self.0, info).await.unwrap()
    }

    /// `Statement.execute`: prepare, run, close.
    async fn execute(&mut self, sql: &str) -> Result<Outcome, FlightError> {
        let prepared = self.prepare(sql).await?;
        let handle = prepared.handle.clone();
        let outcome = match prepared.is_update.unwrap() {
            true => Outcome::Count(self.update(handle.clone(), None).await?),
            false => Outcome::Rows(self.query(handle.clone(), None).await?),
        };
        let close = ActionClosePreparedStatementRequest { prepared_statement_handle: handle };
        let closed = self.0.do_action(Action::new("ClosePreparedStatement", close.as_any().encode_to_vec())).await?;
        closed.try_collect::<Vec<_>>().await?;
        Ok(outcome)
    }
}

fn ids_and_names(ids: Vec<i32>, names: Vec<&str>) -> RecordBatch {
    let columns = [("$1", Arc::new(Int32Array::from(ids)) as ArrayRef), ("$2", Arc::new(StringArray::from(names)))];
    RecordBatch::try_from_iter(columns).unwrap()
}

#[tokio::test]
async fn preparing_tells_updates_from_queries() {
    let server = TestServer::start().await;
    let mut connection = Connection::open(&server).await;
    connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT)").await.unwrap();
    for (sql, is_update) in [
        ("SELECT * FROM t", false),
        ("INSERT INTO t VALUES (1, 'x')", true),
        ("INSERT INTO t VALUES (1, 'x') RETURNING id", false),
        ("EXPLAIN SELECT 1", false),
        ("SHOW ALL", false),
        ("BEGIN", true),
        ("SET statement_timeout = '1min'", true),
        ("CREATE VIEW v AS SELECT 1 AS one", true),
    ] {
        let prepared = connection.prepare(sql).await.unwrap();
        assert_eq!(prepared.is_update, Some(is_update), "{sql}");
        // Drivers older than that field go by the schema.
        assert_eq!(prepared.dataset_schema.is_empty(), is_update, "{sql}");
        assert!(Schema::try_from(IpcMessage(prepared.parameter_schema)).is_ok(), "{sql}");
    }
}

#[tokio::test]
async fn sql_begin_and_commit_are_its_transactions() {
    let server = TestServer::start().await;
    let (mut connection, mut other) = (Connection::open(&server).await, Connection::open(&server).await);
    connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT)").await.unwrap();
    let insert = connection.prepare("INSERT INTO t VALUES (?, ?)").await.unwrap().handle;
    let select = "SELECT name FROM t";

    connection.execute("BEGIN").await.unwrap();
    assert_eq!(connection.update(insert.clone(), Some(ids_and_names(vec![1], vec!["one"]))).await.unwrap(), 1);
    assert_eq!(texts(&connection.execute(select).await.unwrap().rows(), "name"), ["one"]);
    assert_eq!(row_count(&other.execute(select).await.unwrap().rows()), 0, "not committed yet");
    connection.execute("ROLLBACK").await.unwrap();
    assert_eq!(row_count(&connection.execute(select).await.unwrap().rows()), 0);

    // The prepared statement outlives the transaction.
    connection.execute("BEGIN").await.unwrap();
    assert_eq!(connection.update(insert.clone(), Some(ids_and_names(vec![2], vec!["two"]))).await.unwrap(), 1);
    connection.execute("SAVEPOINT s").await.unwrap();
    assert_refused(
        connection.update(insert, Some(ids_and_names(vec![2], vec!["twice"]))).await,
        Code::AlreadyExists,
        "23505",
    );
    connection.execute("ROLLBACK TO SAVEPOINT s").await.unwrap();
    connection.execute("COMMIT").await.unwrap();
    assert_eq!(texts(&other.execute(select).await.unwrap().rows(), "name"), ["two"]);
}

#[tokio::test]
async fn a_batch_is_one_update_and_parameters_lead_to_rows() {
    let server = TestServer::start().await;
    let mut connection = Connection::open(&server).await;
    assert_eq!(connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT)").await.unwrap().count(), 0);
    let insert = connection.prepare("INSERT INTO t VALUES (?, ?)").await.unwrap().handle;
    let batch = ids_and_names(vec![1, 2, 3], vec!["a", "b", "c"]);
    assert_eq!(connection.update(insert, Some(batch)).await.unwrap(), 3);

    let select = connection.prepare("SELECT name FROM t WHERE id > ? AND name <> ? ORDER BY id").await.unwrap();
    let parameters = Schema::try_from(IpcMessage(select.parameter_schema)).unwrap();
    assert!(parameters.fields().iter().all(|field| field.is_nullable()), "setNull needs nullable parameters");
    for (id, expected) in [(1, vec!["b"]), (0, vec!["a", "b"])] {
        let rows = connection.query(select.handle.clone(), Some(ids_and_names(vec![id], vec!["c"]))).await.unwrap();
        assert_eq!(texts(&rows, "name"), expected);
    }
    assert_eq!(connection.execute("UPDATE t SET name = 'z' WHERE id > 1").await.unwrap().count(), 2);
}

/// The members of SqlInfo's union.
const STRING: i8 = 0;
const BOOL: i8 = 1;
const LONG: i8 = 2;
const INTEGER: i8 = 3;
const LIST: i8 = 4;
const MAP: i8 = 5;

#[tokio::test]
async fn every_value_of_database_meta_data_has_the_type_the_driver_casts_it_to() {
    let server = TestServer::start().await;
    let mut connection = Connection::open(&server).await;
    let batches = connection.metadata(&CommandGetSqlInfo::default()).await;
    let (names, values) = (batches[0].column(0).as_primitive::<UInt32Type>(), batches[0].column(1).as_union());
    let member = |name: u32| {
        let at = names.values().iter().position(|known| *known == name);
        at.map(|at| values.type_id(at)).unwrap_or_else(|| panic!("there is no SqlInfo {name}"))
    };
    let expected: [(i8, Vec<u32>); 6] = [
        (STRING, vec![0, 1, 2, 504, 513, 514, 529, 530, 531]),
        (BOOL, {
            let mut all =
                vec![3, 4, 5, 9, 10, 11, 500, 501, 502, 506, 515, 516, 518, 519, 520, 521, 523, 524, 527, 532];
            all.extend([536, 537, 539, 556, 563, 565, 566, 572, 573, 574, 575, 576]);
            all
        }),
        (LONG, [503, 505, 507].into_iter().chain(541..=555).chain(557..=562).collect()),
        (INTEGER, vec![8, 100, 101, 522, 525, 526, 528, 533, 534, 535, 538, 540, 564, 567, 568, 569, 570, 571]),
        (LIST, (508..=512).collect()),
        (MAP, vec![517]),
    ];
    let mut count = 0;
    for (kind, ids) in &expected {
        for id in ids {
            assert_eq!(member(*id), *kind, "SqlInfo {id}");
            count += 1;
        }
    }
    assert_eq!(count, batches[0].num_rows(), "and there are no others");

    // supportsFullOuterJoins and supportsLimitedOuterJoins look at bits.
    let outer_joins = names.values().iter().position(|name| *name == 528).unwrap();
    assert_eq!(values.value(outer_joins).as_primitive::<Int32Type>().value(0), 0b110);
}

#[tokio::test]
async fn its_metadata_calls_are_answered() {
    let server = TestServer::start().await;
    let mut connection = Connection::open(&server).await;
    for sql in [
        "CREATE SCHEMA sales",
        "CREATE TABLE sales.orders (id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, total NUMERIC(12, 2) NOT NULL, \
         number SERIAL)",
        "CREATE VIEW sales.large AS SELECT id, total FROM sales.orders WHERE total > 100",
    ] {
        connection.execute(sql).await.unwrap();
    }
    let schemas = connection.metadata(&CommandGetDbSchemas::default()).await;
    assert_eq!(texts(&schemas, "db_schema_name"), ["public", "sales"]);
    let tables = CommandGetTables { db_schema_filter_pattern: Some("sales".to_owned()), ..Default::default() };
    let tables = connection.metadata(&tables).await;
    assert_eq!(texts(&tables, "table_type"), ["VIEW", "TABLE"]);

    // getColumns
    let columns = CommandGetTables {
        db_schema_filter_pattern: Some("sales".to_owned()),
        table_name_filter_pattern: Some("%".to_owned()),
        include_schema: true,
        ..Default::default()
    };
    let columns = connection.metadata(&columns).await;
    let schemas = columns[0].column_by_name("table_schema").unwrap().as_binary::<i32>();
    let schema = |row: usize| Schema::try_from(IpcMessage(schemas.value(row).to_vec().into())).unwrap();
    let note = |schema: &Schema, column: usize, key: &str| {
        schema.field(column).metadata().get(&format!("ARROW:FLIGHT:SQL:{key}")).cloned().unwrap_or_default()
    };
    let (view, table) = (schema(0), schema(1));
    assert_eq!([0, 1, 2].map(|column| note(&table, column, "IS_AUTO_INCREMENT")), ["1", "0", "1"]);
    assert_eq!((note(&table, 1, "PRECISION"), note(&table, 1, "SCALE")), ("12".into(), "2".into()));
    assert!(!table.field(1).is_nullable());
    assert_eq!((note(&view, 1, "TYPE_NAME"), note(&view, 1, "IS_READ_ONLY")), ("numeric".into(), "1".into()));
    assert_eq!(view.field(1).data_type(), table.field(1).data_type());
}
