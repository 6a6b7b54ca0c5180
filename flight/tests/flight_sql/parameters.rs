//! The messages that bind parameters: the server decodes the schema of a statement's parameters once as long as it stays the
//! same, so here it does not stay the same, or is sent with other things than one row.

use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, AsArray as _, DictionaryArray, Int32Array, Int64Array, StringArray};
use arrow::datatypes::{DataType, Int32Type, Int64Type};
use arrow::ipc::writer::IpcWriteOptions;
use arrow::record_batch::RecordBatch;
use arrow_flight::encode::{DictionaryHandling, FlightDataEncoderBuilder};
use arrow_flight::error::FlightError;
use arrow_flight::sql::{
    ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult, Any, CommandPreparedStatementQuery,
    DoPutPreparedStatementResult, ProstMessageExt,
};
use arrow_flight::{Action, FlightData, FlightDescriptor, SchemaAsIpc, Ticket};
use bytes::Bytes;
use futures::{TryStreamExt, stream};
use prost::Message;
use rustydb_flight::FlightOptions;
use tonic::Code;

use crate::support::{Client, TestServer, assert_refused, row_count, texts, update};

/// A prepared query whose messages are ours.
struct Query {
    client: Client,
    command: CommandPreparedStatementQuery,
}

impl Query {
    async fn prepare(mut client: Client, sql: &str) -> Self {
        let request = ActionCreatePreparedStatementRequest { query: sql.to_owned(), transaction_id: None };
        let action = Action::new("CreatePreparedStatement", request.as_any().encode_to_vec());
        let result = client.do_action(action).await.unwrap().message().await.unwrap().unwrap();
        let result: ActionCreatePreparedStatementResult = Any::decode(result.body).unwrap().unpack().unwrap().unwrap();
        let command = CommandPreparedStatementQuery { prepared_statement_handle: result.prepared_statement_handle };
        Self { client, command }
    }

    fn command(&self) -> Vec<u8> {
        self.command.as_any().encode_to_vec()
    }

    /// What binds these batches.
    async fn messages(&self, batches: &[RecordBatch]) -> Vec<FlightData> {
        let batches: Vec<_> = batches.iter().cloned().map(Ok).collect();
        FlightDataEncoderBuilder::new()
            .with_flight_descriptor(Some(FlightDescriptor::new_cmd(self.command())))
            .with_dictionary_handling(DictionaryHandling::Resend)
            .build(stream::iter(batches))
            .try_collect()
            .await
            .unwrap()
    }

    async fn put(&mut self, messages: Vec<FlightData>) -> Result<(), FlightError> {
        let answers: Vec<_> = self.client.do_put(stream::iter(messages)).await?.try_collect().await?;
        assert_eq!(answers.len(), 1);
        let answer = DoPutPreparedStatementResult::decode(answers[0].app_metadata.clone()).unwrap();
        assert_eq!(answer.prepared_statement_handle.as_ref(), Some(&self.command.prepared_statement_handle));
        Ok(())
    }

    async fn bind(&mut self, batches: &[RecordBatch]) {
        let messages = self.messages(batches).await;
        self.put(messages).await.unwrap();
    }

    async fn fetch(&mut self) -> Result<Vec<RecordBatch>, FlightError> {
        let ticket = Ticket::new(self.command());
        self.client.do_get(ticket).await?.try_collect().await
    }
}

fn one(column: impl arrow::array::Array + 'static) -> RecordBatch {
    RecordBatch::try_from_iter([("p", Arc::new(column) as ArrayRef)]).unwrap()
}

fn numbers(values: &[i64]) -> RecordBatch {
    one(Int64Array::from(values.to_vec()))
}

async fn people(server: &TestServer) -> Client {
    let mut client = server.client().await;
    update(&mut client, "CREATE TABLE t (id BIGINT PRIMARY KEY, name VARCHAR)").await.unwrap();
    update(&mut client, "INSERT INTO t VALUES (1, 'ann'), (2, 'bob'), (3, 'cid')").await.unwrap();
    client
}

#[tokio::test]
async fn the_same_schema_again_binds_other_rows() {
    let server = TestServer::start().await;
    let mut query = Query::prepare(people(&server).await, "SELECT name FROM t WHERE id = $1").await;
    for (id, name) in [(1, "ann"), (3, "cid"), (2, "bob"), (1, "ann")] {
        query.bind(&[numbers(&[id])]).await;
        assert_eq!(texts(&query.fetch().await.unwrap(), "name"), [name]);
    }
}

#[tokio::test]
async fn the_parameters_of_a_statement_may_change_their_types() {
    let server = TestServer::start().await;
    let mut query = Query::prepare(server.client().await, "SELECT $1 AS a").await;
    for _ in 0..2 {
        query.bind(&[numbers(&[7])]).await;
        let rows = query.fetch().await.unwrap();
        assert_eq!(rows[0].column(0).as_primitive::<Int64Type>().values(), &[7]);
        query.bind(&[one(StringArray::from(vec!["seven"]))]).await;
        assert_eq!(texts(&query.fetch().await.unwrap(), "a"), ["seven"]);
        query.bind(&[one(StringArray::from(vec![None::<&str>]))]).await;
        assert!(query.fetch().await.unwrap()[0].column(0).is_null(0));
        query.bind(&[one(Int32Array::from(vec![8]))]).await;
        let rows = query.fetch().await.unwrap();
        assert_eq!(rows[0].column(0).as_primitive::<Int32Type>().values(), &[8]);
    }
}

#[tokio::test]
async fn several_batches_are_one_binding_and_none_is_an_empty_one() {
    let server = TestServer::start().await;
    let mut query = Query::prepare(people(&server).await, "SELECT name FROM t WHERE id = $1").await;
    query.bind(&[numbers(&[3])]).await;
    query.bind(&[numbers(&[2]), numbers(&[]), numbers(&[3, 1])]).await;
    assert_eq!(texts(&query.fetch().await.unwrap(), "name"), ["bob", "cid", "ann"]);
    query.bind(&[numbers(&[])]).await;
    assert_eq!(row_count(&query.fetch().await.unwrap()), 0);
    let schema_alone = query.messages(&[numbers(&[1])]).await[..1].to_vec();
    query.put(schema_alone).await.unwrap();
    assert_eq!(row_count(&query.fetch().await.unwrap()), 0);
    query.bind(&[numbers(&[1])]).await;
    assert_eq!(texts(&query.fetch().await.unwrap(), "name"), ["ann"]);
}

#[tokio::test]
async fn dictionaries_belong_to_the_binding_that_sent_them() {
    let server = TestServer::start().await;
    let mut query = Query::prepare(people(&server).await, "SELECT id FROM t WHERE name = $1").await;
    for (name, id) in [("bob", 2), ("ann", 1), ("cid", 3)] {
        let names: DictionaryArray<Int32Type> = vec!["nobody", name].into_iter().collect();
        let batch = one(names).slice(1, 1);
        let messages = query.messages(std::slice::from_ref(&batch)).await;
        assert_eq!(messages.len(), 3, "schema, dictionary, row");
        query.put(messages).await.unwrap();
        let rows = query.fetch().await.unwrap();
        assert_eq!(rows[0].column(0).as_primitive::<Int64Type>().values(), &[id]);
        // The schema is known, and the dictionary is not.
        let mut without = query.messages(std::slice::from_ref(&batch)).await;
        without.remove(1);
        assert_refused(query.put(without).await, Code::InvalidArgument, "08P01");
    }
}

#[tokio::test]
async fn no_parameters_unbind_those_there_were() {
    let server = TestServer::start().await;
    let mut query = Query::prepare(people(&server).await, "SELECT name FROM t WHERE id = $1").await;
    let descriptor = FlightDescriptor::new_cmd(query.command());
    let nothing = RecordBatch::new_empty(Arc::new(arrow::datatypes::Schema::empty()));
    let empty_schema = FlightData::from(SchemaAsIpc::new(&nothing.schema(), &IpcWriteOptions::default()));
    for unbinding in [FlightData::new(), empty_schema] {
        query.bind(&[numbers(&[2])]).await;
        query.put(vec![unbinding.with_descriptor(descriptor.clone())]).await.unwrap();
        assert_refused(query.fetch().await, Code::InvalidArgument, "07001");
    }
    query.bind(&[numbers(&[2])]).await;
    assert_eq!(texts(&query.fetch().await.unwrap(), "name"), ["bob"]);
}

#[tokio::test]
async fn damage_after_a_good_binding_is_found_and_changes_nothing() {
    let server = TestServer::start().await;
    let mut query = Query::prepare(people(&server).await, "SELECT name FROM t WHERE id = $1").await;
    query.bind(&[numbers(&[2])]).await;
    let whole = query.messages(&[numbers(&[1])]).await;
    let damaged = |place: usize, damage: &dyn Fn(&mut FlightData)| {
        let mut messages = whole.clone();
        damage(&mut messages[place]);
        messages
    };
    for messages in [
        // The known schema, cut short or with another byte in it.
        damaged(0, &|schema| schema.data_header = schema.data_header.slice(..schema.data_header.len() / 2)),
        damaged(0, &|schema| {
            let mut bytes = schema.data_header.to_vec();
            bytes[0] ^= 0xff;
            schema.data_header = bytes.into();
        }),
        // The known schema, and what is no row of it.
        damaged(1, &|row| row.data_body = row.data_body.slice(..4)),
        damaged(1, &|row| row.data_header = Bytes::from(vec![0x5a; 200])),
        damaged(1, &|row| row.data_header = Bytes::new()),
        damaged(1, &|row| row.data_header = whole[0].data_header.clone()),
        vec![whole[0].clone(), query.messages(&[one(Int32Array::from(vec![1]))]).await[1].clone()],
    ] {
        let status = assert_refused(query.put(messages).await, Code::InvalidArgument, "08P01");
        assert!(status.message().contains("malformed Arrow data"), "{status:?}");
        assert_eq!(texts(&query.fetch().await.unwrap(), "name"), ["bob"]);
    }
    query.put(whole).await.unwrap();
    assert_eq!(texts(&query.fetch().await.unwrap(), "name"), ["ann"]);
}

#[tokio::test]
async fn a_message_of_parameters_beyond_the_limit_is_refused() {
    let mut options = FlightOptions::new("127.0.0.1:0");
    options.limits.message_bytes = 1 << 20;
    let server = TestServer::with(options).await;
    let mut query = Query::prepare(people(&server).await, "SELECT id FROM t WHERE name = $1").await;
    let long = |bytes: usize| one(StringArray::from(vec!["x".repeat(bytes)]));
    let messages = query.messages(&[long(2 << 20)]).await;
    assert_refused(query.put(messages).await, Code::ResourceExhausted, "54000");
    query.bind(&[long(1 << 19)]).await;
    assert_eq!(row_count(&query.fetch().await.unwrap()), 0, "the connection still works");
}

#[tokio::test]
async fn rows_are_the_same_by_their_first_message_and_by_those_after_it() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    update(
        &mut client,
        "CREATE TABLE v (id BIGINT PRIMARY KEY, t TEXT, d DECIMAL(12, 2), b BOOLEAN, f DOUBLE, n DATE)",
    )
    .await
    .unwrap();
    let long = "x".repeat(20_000);
    let insert = format!(
        "INSERT INTO v VALUES (1, 'one', 1.25, true, 0.5, DATE '2024-02-29'), (2, NULL, NULL, NULL, NULL, NULL), \
         (3, '{long}', -3, false, -1, DATE '1969-12-31'), (4, '', 0, true, 0, DATE '1970-01-01')"
    );
    update(&mut client, &insert).await.unwrap();
    let all = crate::support::query(&mut client, "SELECT * FROM v ORDER BY id").await.unwrap();
    let mut query = Query::prepare(client, "SELECT * FROM v WHERE id = $1").await;
    for id in [1, 2, 3, 4, 2, 1, 3, 4] {
        query.bind(&[numbers(&[id])]).await;
        let rows = query.fetch().await.unwrap();
        let expected = all[0].slice(usize::try_from(id - 1).unwrap(), 1);
        assert_eq!(arrow::compute::concat_batches(&rows[0].schema(), &rows).unwrap(), expected, "{id}");
        assert_eq!(*rows[0].schema().field(1).data_type(), DataType::Utf8);
    }
    query.bind(&[numbers(&[9])]).await;
    assert_eq!(row_count(&query.fetch().await.unwrap()), 0);
}
