//! Brings TPC-C into a database, or finds it there.
//!
//! What was loaded is written down in a table of its own, `tpcc_parameters`, because the rows themselves stop telling as soon
//! as transactions have run: the size, the seed, and whether the load was completed. Tables are loaded one by one, each
//! all or nothing; a load that was interrupted goes on with the table it was at. Indexes and foreign keys come last, in one
//! transaction with the note that all is there.

use std::time::Instant;

use arrow::error::ArrowError;
use futures::StreamExt;
use serde::Serialize;

use super::client::{Client, Connection, Failure};
use super::driver::{Observer, Stop};
use super::generate::Generator;
use super::scale::Scale;
use super::schema::{TABLES, Table};
use crate::error::{Error, Result};

use std::sync::Arc;

const PARAMETERS: &str = "CREATE TABLE tpcc_parameters (name VARCHAR(20) NOT NULL PRIMARY KEY, value BIGINT NOT NULL);";

/// What an undefined table and one that exists already fail with.
const UNDEFINED_TABLE: &str = "42P01";
const DUPLICATE_TABLE: &str = "42P07";

/// What a database holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loaded {
    /// Its size.
    pub scale: Scale,
    /// The seed its rows were made from.
    pub seed: u64,
}

/// How the rows came to be there.
#[derive(Debug, Clone, Serialize)]
pub struct LoadReport {
    /// Seconds for rows, indexes and foreign keys; 0 if all was there.
    pub seconds: f64,
    /// Rows that were loaded.
    pub rows: u64,
    /// Whether it was all there before.
    pub reused: bool,
}

/// What a load should bring.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    /// `None`: what is there, or `default`.
    pub(super) warehouses: Option<i32>,
    pub(super) default_warehouses: i32,
    pub(super) reduction: Option<i32>,
    pub(super) seed: u64,
    pub(super) threads: usize,
}

/// Finds what is there, and completes it.
pub(super) async fn load<C: Client>(
    client: &C,
    wanted: Wanted,
    observer: &Arc<dyn Observer>,
    stop: &Stop,
) -> Result<(Loaded, LoadReport)> {
    let mut connection = client.connect().await?;
    let found = find(&mut connection).await?;
    let (loaded, is_complete) = match found {
        Some(found) => found,
        None => (create(&mut connection, wanted).await?, false),
    };
    let Scale { warehouses, reduction } = loaded.scale;
    if wanted.warehouses.is_some_and(|wanted| wanted != warehouses) || wanted.reduction.is_some_and(|r| r != reduction)
    {
        return Err(Error::OtherWarehouses {
            found: describe(loaded.scale),
            wanted: describe(Scale {
                warehouses: wanted.warehouses.unwrap_or(warehouses),
                reduction: wanted.reduction.unwrap_or(reduction),
            }),
            warehouses,
        });
    }
    if is_complete {
        return Ok((loaded, LoadReport { seconds: 0.0, rows: 0, reused: true }));
    }
    let started = Instant::now();
    let mut rows = 0;
    for table in Table::ALL {
        rows += load_table(
            client,
            &mut connection,
            Generator::new(table, loaded.scale, loaded.seed),
            wanted,
            observer,
            stop,
        )
        .await?;
        observer.loaded(table);
    }
    observer.adding_keys();
    connection.begin().await?;
    connection.script(client.keys()).await?;
    connection.script("UPDATE tpcc_parameters SET value = 1 WHERE name = 'complete';").await?;
    connection.commit().await?;
    Ok((loaded, LoadReport { seconds: started.elapsed().as_secs_f64(), rows, reused: false }))
}

/// What a database holds, without changing it; fails if that is not a complete TPC-C.
pub(super) async fn find_complete<C: Client>(client: &C) -> Result<Loaded> {
    match find(&mut client.connect().await?).await? {
        Some((loaded, true)) => Ok(loaded),
        _ => Err(Error::NotLoaded),
    }
}

/// The parameters of what is there, and whether it was completed.
async fn find<C: Connection>(connection: &mut C) -> Result<Option<(Loaded, bool)>> {
    let rows = match connection.texts("SELECT name, value FROM tpcc_parameters").await {
        Err(failure) if failure.sqlstate == UNDEFINED_TABLE => return Ok(None),
        rows => rows?,
    };
    let value = |name: &str| {
        let row = rows.iter().find(|row| row.first().is_some_and(|cell| cell.as_deref() == Some(name)));
        let value = row.and_then(|row| row.get(1)?.as_deref()?.parse::<i64>().ok());
        value.ok_or_else(|| Error::from(Failure::unexpected(format!("tpcc_parameters does not tell \"{name}\""))))
    };
    let small = |name: &str| {
        let number = value(name)?;
        i32::try_from(number)
            .ok()
            .filter(|number| *number > 0)
            .ok_or_else(|| Error::from(Failure::unexpected(format!("tpcc_parameters has the {name} {number}"))))
    };
    let scale = Scale { warehouses: small("warehouses")?, reduction: small("reduction")? };
    // Stored in the 64 bits of a signed number.
    let seed = value("seed")?.cast_unsigned();
    Ok(Some((Loaded { scale, seed }, value("complete")? != 0)))
}

/// Creates the tables, and writes down what they will hold.
async fn create<C: Connection>(connection: &mut C, wanted: Wanted) -> Result<Loaded> {
    let warehouses = wanted.warehouses.unwrap_or(wanted.default_warehouses);
    let scale = Scale { warehouses, reduction: wanted.reduction.unwrap_or(1) };
    let seed = wanted.seed;
    let parameters = format!(
        "INSERT INTO tpcc_parameters VALUES ('warehouses', {warehouses}), ('reduction', {}), ('seed', {}), \
         ('complete', 0);",
        scale.reduction,
        seed.cast_signed()
    );
    connection.begin().await?;
    for script in [TABLES, PARAMETERS, &parameters] {
        match connection.script(script).await {
            Err(failure) if failure.sqlstate == DUPLICATE_TABLE => {
                connection.roll_back().await?;
                return Err(Error::ForeignTable { message: failure.message });
            }
            result => result?,
        }
    }
    connection.commit().await?;
    Ok(Loaded { scale, seed })
}

/// Loads a table unless that was done before. Returns how many rows it took.
async fn load_table<C: Client>(
    client: &C,
    connection: &mut C::Connection,
    generator: Generator,
    wanted: Wanted,
    observer: &Arc<dyn Observer>,
    stop: &Stop,
) -> Result<u64> {
    let (table, total) = (generator.table(), generator.row_count());
    let counted = connection.texts(&format!("SELECT count(*) FROM {table}")).await?;
    let counted = counted.first().and_then(|row| row.first()?.as_deref()?.parse::<u64>().ok());
    match counted {
        Some(0) => {}
        Some(found) if found == total => return Ok(0),
        found => {
            let found = found.map_or("an unknown number of".to_owned(), |found| found.to_string());
            let message = format!("{table} has {found} rows before its load is complete, not {total}");
            return Err(Failure::unexpected(message).into());
        }
    }
    let (watcher, stop_requested) = (Arc::clone(observer), stop.clone());
    watcher.loading(table, 0, total);
    let mut done = 0;
    let rows = generator.stream(wanted.threads).map(move |batch| {
        if stop_requested.is_requested() {
            return Err(ArrowError::ComputeError("interrupted".to_owned()));
        }
        let batch = batch?;
        done += batch.num_rows() as u64;
        watcher.loading(table, done, total);
        Ok(batch)
    });
    match client.load(table.name(), table.schema(), rows.boxed()).await {
        Err(_) if stop.is_requested() => Err(Error::Interrupted),
        loaded => Ok(loaded?),
    }
}

fn describe(scale: Scale) -> String {
    match scale.reduction {
        1 => format!("{} warehouses", scale.warehouses),
        reduction => format!("{} warehouses of 1/{reduction} size", scale.warehouses),
    }
}
