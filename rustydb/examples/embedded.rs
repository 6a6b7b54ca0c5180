//! RustyDB as a library: open a directory, create a table, insert with parameters, read Arrow batches, close.
//!
//! Run it twice to see that the data stays:
//!
//! ```sh
//! cargo run --example embedded
//! cargo run --example embedded
//! ```

use arrow::array::{AsArray, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, Schema};
use futures::StreamExt;
use rustydb::{Database, DatabaseOptions, Session, StatementResult, Value};
use std::error::Error;
use std::sync::Arc;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let directory = std::env::args().nth(1).unwrap_or_else(|| "./embedded-example-data".to_owned());
    run(&directory).await?;
    println!("the data is in {directory}");
    Ok(())
}

pub(crate) async fn run(directory: &str) -> Result<(), Box<dyn Error>> {
    // Opens the database in this directory, or creates it. Only one process may have it open.
    let database = Database::open(DatabaseOptions::directory(directory)).await?;

    // A session is a connection: cheap, and one per task is the usual way.
    let session = database.connect();

    // The types are PostgreSQL's. The primary key is enforced, and finds single rows quickly.
    session
        .execute(
            "CREATE TABLE IF NOT EXISTS measurement (
                 id BIGINT PRIMARY KEY,
                 sensor TEXT NOT NULL,
                 celsius DOUBLE PRECISION
             )",
            &[],
        )
        .await?;
    let first_id = next_id(&session).await?;

    // One row, with parameters. Never paste values into SQL text.
    session
        .execute(
            "INSERT INTO measurement VALUES ($1, $2, $3)",
            &[Value::from(first_id), Value::from("roof"), Value::from(21.5)],
        )
        .await?;

    // Many rows: prepare once, then hand over an Arrow batch with one column per parameter. All of it or nothing.
    let insert = session.prepare("INSERT INTO measurement VALUES ($1, $2, $3)").await?;
    let inserted = session.execute_batch(&insert, &readings(first_id + 1)?).await?;
    println!("inserted 1 + {inserted} rows");

    // A transaction: both changes or neither. A crash in the middle leaves neither.
    session.execute("BEGIN", &[]).await?;
    session.execute("UPDATE measurement SET celsius = celsius - 0.5 WHERE sensor = 'roof'", &[]).await?;
    session.execute("DELETE FROM measurement WHERE celsius IS NULL", &[]).await?;
    session.execute("COMMIT", &[]).await?;

    // A query answers with a stream of Arrow batches.
    let query = "SELECT sensor, count(*) AS readings, avg(celsius) AS mean
                 FROM measurement WHERE celsius > $1 GROUP BY sensor ORDER BY sensor";
    if let StatementResult::Rows(mut batches) = session.execute(query, &[Value::from(-40.0)]).await? {
        while let Some(batch) = batches.next().await {
            print_means(&batch?);
        }
    }

    // Errors carry an SQLSTATE, and often a hint.
    match session.execute("SELECT celcius FROM measurement", &[]).await {
        Err(error) => println!("as expected: {} {error}", error.sqlstate()),
        Ok(_) => return Err("a misspelt column was found".into()),
    }

    // Optional, but it makes the next start quicker.
    database.close().await?;
    Ok(())
}

/// The first id that is free.
async fn next_id(session: &Session) -> Result<i64, Box<dyn Error>> {
    match session.execute("SELECT coalesce(max(id), 0) + 1 FROM measurement", &[]).await? {
        StatementResult::Rows(rows) => {
            let batches = rows.collect().await?;
            let batch = batches.first().ok_or("an aggregate has one row")?;
            Ok(batch.column(0).as_primitive::<Int64Type>().value(0))
        }
        StatementResult::Done(completion) => Err(format!("unexpected answer {}", completion.tag).into()),
    }
}

/// Parameters for three rows: one column for `$1`, one for `$2`, one for `$3`.
fn readings(first_id: i64) -> Result<RecordBatch, arrow::error::ArrowError> {
    let schema = Schema::new(vec![
        Field::new("$1", DataType::Int64, false),
        Field::new("$2", DataType::Utf8, false),
        Field::new("$3", DataType::Float64, true),
    ]);
    RecordBatch::try_new(
        Arc::new(schema),
        vec![
            Arc::new(Int64Array::from_iter_values(first_id..first_id + 3)),
            Arc::new(StringArray::from(vec!["roof", "cellar", "cellar"])),
            Arc::new(Float64Array::from(vec![Some(22.25), Some(12.0), None])),
        ],
    )
}

fn print_means(batch: &RecordBatch) {
    let sensors = batch.column(0);
    let (counts, means) = (batch.column(1).as_primitive::<Int64Type>(), batch.column(2).as_primitive::<Float64Type>());
    for row in 0..batch.num_rows() {
        // Strings come as Utf8View arrays, Arrow's layout for strings that are compared more often than copied.
        let sensor = sensors.as_string_view().value(row);
        println!("{sensor:<8} {:>4} readings, mean {:.2} °C", counts.value(row), means.value(row));
    }
}
