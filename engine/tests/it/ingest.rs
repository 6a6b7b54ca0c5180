//! Rows that come as record batches.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, DictionaryArray, DurationSecondArray, Int32Array, Int64Array, LargeStringArray, RecordBatch,
    StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema};
use futures::{SinkExt, StreamExt, stream};
use rustydb_engine::{IngestMode, IngestTarget, Session, Value, parameter_at};

use crate::helpers::*;

fn batch(ids: std::ops::Range<i64>) -> RecordBatch {
    let texts: ArrayRef = Arc::new(LargeStringArray::from_iter_values(ids.clone().map(|id| format!("t{id}"))));
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(ids));
    RecordBatch::try_from_iter([("s", texts), ("id", ids)]).unwrap()
}

async fn ingest(
    session: &Session,
    table: &str,
    mode: IngestMode,
    batches: Vec<RecordBatch>,
) -> rustydb_engine::Result<u64> {
    let columns = batches[0].schema();
    let target = IngestTarget { schema: None, table: table.to_owned(), temporary: false, mode, columns };
    session.ingest(target, Box::pin(stream::iter(batches.into_iter().map(Ok)))).await
}

#[tokio::test]
async fn modes_decide_about_the_table() {
    let session = memory().await;
    assert_eq!(ingest(&session, "t", IngestMode::Append, vec![batch(0..3)]).await.unwrap_err().sqlstate(), "42P01");
    assert_eq!(ingest(&session, "t", IngestMode::Create, vec![batch(0..3)]).await.unwrap(), 3);
    assert_eq!(ingest(&session, "t", IngestMode::Create, vec![batch(0..3)]).await.unwrap_err().sqlstate(), "42P07");
    assert_eq!(ingest(&session, "t", IngestMode::Append, vec![batch(3..5), batch(5..6)]).await.unwrap(), 3);
    assert_eq!(query(&session, "SELECT count(*), max(id), max(s) FROM t").await, ["6|5|t5"]);
    assert_eq!(ingest(&session, "t", IngestMode::Replace, vec![batch(0..2)]).await.unwrap(), 2);
    assert_eq!(ingest(&session, "u", IngestMode::CreateAppend, vec![batch(0..2)]).await.unwrap(), 2);
    assert_eq!(ingest(&session, "u", IngestMode::CreateAppend, vec![batch(0..2)]).await.unwrap(), 2);
    assert_eq!(query(&session, "SELECT (SELECT count(*) FROM t), (SELECT count(*) FROM u)").await, ["2|4"]);
}

#[tokio::test]
async fn columns_are_matched_by_name_and_checked() {
    let session = memory().await;
    run(&session, "CREATE TABLE t (id smallint PRIMARY KEY, extra text DEFAULT 'x', s varchar(4))").await;
    assert_eq!(ingest(&session, "t", IngestMode::Append, vec![batch(1..3)]).await.unwrap(), 2);
    assert_eq!(query(&session, "SELECT * FROM t ORDER BY id").await, ["1|x|t1", "2|x|t2"]);
    for (ids, sqlstate) in [(2..4, "23505"), (40_000..40_001, "22003"), (1000..1001, "22001")] {
        assert_eq!(ingest(&session, "t", IngestMode::Append, vec![batch(ids)]).await.unwrap_err().sqlstate(), sqlstate);
    }
    run(&session, "CREATE TABLE other (id int)").await;
    assert_eq!(ingest(&session, "other", IngestMode::Append, vec![batch(1..3)]).await.unwrap_err().sqlstate(), "42703");
    assert_eq!(query(&session, "SELECT count(*) FROM t").await, ["2"]);
}

#[tokio::test]
async fn a_large_load_that_fails_leaves_nothing() {
    let session = memory().await;
    run(&session, "CREATE TABLE t (id bigint PRIMARY KEY, s text)").await;
    let batches: Vec<_> = (0..20).map(|piece| batch(piece * 8192..(piece + 1) * 8192)).collect();
    let target = IngestTarget {
        schema: None,
        table: "t".into(),
        temporary: false,
        mode: IngestMode::Append,
        columns: batches[0].schema(),
    };
    let failure = run_failure(&session, "SELECT nope").await;
    let broken = batches.clone().into_iter().map(Ok).chain([Err(failure)]);
    let error = session.ingest(target, Box::pin(stream::iter(broken.collect::<Vec<_>>()))).await.unwrap_err();
    assert_eq!(error.sqlstate(), "42703", "the source's own error comes through");
    assert_eq!(query(&session, "SELECT count(*) FROM t").await, ["0"]);
    assert_eq!(ingest(&session, "t", IngestMode::Append, batches).await.unwrap(), 20 * 8192);
    assert_eq!(query(&session, "SELECT count(*), sum(id) FROM t").await, ["163840|13421690880"]);
}

async fn run_failure(session: &Session, sql: &str) -> rustydb_engine::Error {
    error(session, sql).await
}

#[tokio::test]
async fn ingest_takes_part_in_the_transaction() {
    let session = memory().await;
    run(&session, "CREATE TABLE t (id bigint PRIMARY KEY, s text)").await;
    run(&session, "BEGIN").await;
    ingest(&session, "t", IngestMode::Append, vec![batch(0..5)]).await.unwrap();
    assert_eq!(query(&session, "SELECT count(*) FROM t").await, ["5"]);
    run(&session, "ROLLBACK").await;
    assert_eq!(query(&session, "SELECT count(*) FROM t").await, ["0"]);
}

/// Rows that are read once cannot be read again for a table that has changed: what has become of it is seen before.
#[tokio::test(flavor = "multi_thread")]
async fn loads_that_have_waited_for_a_change_of_their_table_are_made_for_what_has_become_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("rows.csv");
    for rows in [3, 70_000] {
        std::fs::write(&file, (rows..2 * rows).map(|id| format!("c{id},{id}\n")).collect::<String>()).unwrap();
        for begin in [Some("BEGIN ISOLATION LEVEL READ COMMITTED"), Some("BEGIN"), None] {
            let session = memory().await;
            run(&session, "CREATE TABLE t (id bigint PRIMARY KEY, s text)").await;
            run(&session, "INSERT INTO t VALUES (-1, 'old')").await;
            let database = session.database().clone();
            let (copying, ingesting) = (database.connect(), database.connect());
            run(&session, "BEGIN").await;
            run(&session, "ALTER TABLE t ADD COLUMN more int DEFAULT 7").await;
            run(&session, "ALTER TABLE t ALTER COLUMN s TYPE varchar(10)").await;
            for own in [&copying, &ingesting] {
                if let Some(begin) = begin {
                    run(own, begin).await;
                }
            }
            let end = begin.map(|_| "COMMIT");
            let copy = format!("COPY t (s, id) FROM '{}'", file.display());
            let copying = tokio::spawn(async move {
                let copied = affected(&copying, &copy).await;
                if let Some(end) = end {
                    run(&copying, end).await;
                }
                copied
            });
            let ingesting = tokio::spawn(async move {
                let ingested = ingest(&ingesting, "t", IngestMode::Append, vec![batch(0..rows)]).await.unwrap();
                if let Some(end) = end {
                    run(&ingesting, end).await;
                }
                ingested
            });
            while database.lock_waits() != 2 {
                tokio::task::yield_now().await;
            }
            run(&session, "COMMIT").await;
            assert_eq!((copying.await.unwrap(), ingesting.await.unwrap()), (rows as u64, rows as u64), "{begin:?}");
            let found = query(&session, "SELECT count(*), sum(more), count(DISTINCT id), min(s) FROM t").await;
            let count = 2 * rows + 1;
            let least = if rows == 3 { "c3" } else { "c100000" };
            assert_eq!(found, [format!("{count}|{}|{count}|{least}", 7 * count)], "{begin:?}");
        }
    }
}

/// No lock is held while a client is to send rows.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_changed_while_its_rows_arrive_is_named() {
    for rows in [3, 70_000] {
        for change in ["ALTER TABLE t ADD COLUMN more int", "TRUNCATE t", "DROP TABLE t"] {
            let session = memory().await;
            run(&session, "CREATE TABLE t (id bigint PRIMARY KEY, s text)").await;
            let ingesting = session.database().connect();
            run(&ingesting, "BEGIN ISOLATION LEVEL READ COMMITTED").await;
            let (mut sender, receiver) = futures::channel::mpsc::channel(0);
            let columns = batch(0..1).schema();
            let (schema, table, temporary, mode) = (None, "t".to_owned(), false, IngestMode::Append);
            let target = IngestTarget { schema, table, temporary, mode, columns };
            let task = tokio::spawn(async move {
                let loaded = ingesting.ingest(target, Box::pin(receiver.map(Ok))).await;
                (ingesting, loaded)
            });
            // It is taken, so the table is known.
            sender.send(batch(0..rows)).await.unwrap();
            run(&session, change).await;
            drop(sender);
            let (ingesting, loaded) = task.await.unwrap();
            let error = loaded.unwrap_err();
            assert_eq!(error.sqlstate(), "40001", "{change}: {error:?}");
            assert!(error.message().contains("\"t\" was changed by others"), "{change}: {error:?}");
            assert_errors(&ingesting, &[("SELECT 1", "25P02")]).await;
        }
    }
}

/// Arrow's cast of a dictionary to a view takes a NULL among the dictionary's values for an empty text.
#[tokio::test]
async fn a_null_among_the_values_of_a_dictionary_is_a_null() {
    let session = memory().await;
    let values = StringArray::from(vec![Some("a"), None]);
    let keys = Int32Array::from(vec![Some(0), Some(1), None]);
    let texts: ArrayRef = Arc::new(DictionaryArray::try_new(keys, Arc::new(values)).unwrap());
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![0, 1, 2]));
    let rows = RecordBatch::try_from_iter([("id", ids), ("x", Arc::clone(&texts))]).unwrap();
    ingest(&session, "t", IngestMode::Create, vec![rows]).await.unwrap();
    assert_eq!(query(&session, "SELECT id FROM t WHERE x IS NULL ORDER BY id").await, ["1", "2"]);
    assert!(parameter_at(&texts, 1).unwrap().is_null());
}

#[tokio::test]
async fn a_duration_that_is_no_interval_is_refused() {
    let session = memory().await;
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![0]));
    let long: ArrayRef = Arc::new(DurationSecondArray::from(vec![1 << 62]));
    let rows = RecordBatch::try_from_iter([("id", ids), ("x", long)]).unwrap();
    let error = ingest(&session, "t", IngestMode::Create, vec![rows]).await.unwrap_err();
    assert_eq!(error.sqlstate(), "22008");
}

#[tokio::test]
async fn a_text_with_nul_gets_in_on_no_way() {
    let session = memory().await;
    run(&session, "CREATE TABLE t (s text)").await;
    let texts: ArrayRef = Arc::new(StringArray::from(vec!["a", "b\0"]));
    let bytes: ArrayRef = Arc::new(BinaryArray::from(vec![b"b\0".as_slice()]));
    let insert = session.prepare("INSERT INTO t VALUES ($1)").await.unwrap();
    for column in [texts, bytes] {
        let rows = RecordBatch::try_from_iter([("s", column)]).unwrap();
        let refused = ingest(&session, "t", IngestMode::Append, vec![rows.clone()]).await.unwrap_err();
        assert_eq!(refused.sqlstate(), "22021");
        assert_eq!(session.execute_batch(&insert, &rows).await.unwrap_err().sqlstate(), "22021");
    }
    let nul = Value::from("b\0");
    for sql in ["SELECT $1", "SELECT s FROM t WHERE s = $1", "INSERT INTO t VALUES ($1)"] {
        for text in ["b", "b\0"] {
            let outcome = session.execute(sql, &[Value::from(text)]).await;
            assert_eq!(outcome.is_ok(), text == "b", "{sql}");
        }
        let refused = session.execute(sql, std::slice::from_ref(&nul)).await.unwrap_err();
        assert_eq!(refused.sqlstate(), "22021", "{sql}");
    }
    assert_eq!(query(&session, "SELECT s FROM t").await, ["b"]);
}

#[tokio::test]
async fn an_ingest_of_more_columns_than_a_table_may_have_is_refused_before_its_rows_are_read() {
    let session = memory().await;
    for mode in [IngestMode::Create, IngestMode::Append, IngestMode::Replace] {
        let fields = (0..20_000).map(|place| Field::new(format!("c{place}"), DataType::Int32, true));
        let columns = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let target = IngestTarget { schema: None, table: "t".to_owned(), temporary: false, mode, columns };
        let refused = session.ingest(target, Box::pin(stream::pending())).await.unwrap_err();
        assert_eq!(refused.sqlstate(), "54011");
    }
}

#[tokio::test]
async fn utc_is_a_zone_however_it_is_spelled() {
    let session = memory().await;
    for (zone, outcome) in [("utc", Ok(1)), ("Z", Ok(1)), ("nowhere", Err("22023"))] {
        let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![0]).with_timezone(zone));
        let rows = RecordBatch::try_from_iter([("at", times)]).unwrap();
        let loaded = ingest(&session, "t", IngestMode::Replace, vec![rows]).await;
        assert_eq!(loaded.map_err(|error| error.sqlstate()), outcome, "{zone}");
    }
    let shown = query(&session, "SELECT at::text, pg_typeof(at) FROM t").await;
    assert_eq!(shown, ["1970-01-01 00:00:00+00|timestamp with time zone"]);
}
