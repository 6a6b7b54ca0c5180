//! Brings the eight tables into a database: creates what is missing, loads what is empty, keeps what is complete.
//!
//! An ingest is all or nothing, so a table's row count says everything: it is zero, or the count that the scale gives, or
//! it was not we who wrote it. A load that was interrupted (by `kill -9`, say) therefore goes on with the table it was
//! at, and one that was completed is reused. Nothing is loaded before *all* tables have been looked at: a database of
//! another scale, or one with somebody's own table `part`, is refused untouched.

use std::sync::Arc;
use std::time::Instant;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use futures::{StreamExt, TryStreamExt};
use rustydb_engine::{DEFAULT_SCHEMA, IngestMode, IngestTarget, Session, StatementResult};

use super::driver::Observer;
use super::generate::TableGenerator;
use super::report::{LoadReport, TableLoadReport};
use super::scale::ScaleFactor;
use super::schema::Table;
use crate::error::{Error, Result};

/// Creates and loads what is missing of TPC-H at `scale`; `threads` generate rows while the database takes them in.
pub async fn load(
    session: &Session,
    scale: ScaleFactor,
    threads: usize,
    observer: &Arc<dyn Observer>,
) -> Result<LoadReport> {
    let found = row_counts(session).await?;
    check_same_scale(&found, scale)?;

    let mut tables = Vec::with_capacity(Table::ALL.len());
    for (table, found) in found {
        let generator = TableGenerator::new(table, scale);
        let rows = generator.row_count();
        if found == Some(rows) {
            tables.push(TableLoadReport { table, rows, seconds: 0.0, reused: true });
            continue;
        }
        TableGenerator::prepare().await;
        let started = Instant::now();
        if found.is_none() {
            Box::pin(session.execute(table.create_statement(), &[])).await?;
        }
        load_table(session, generator, threads, observer).await?;
        observer.loaded(table);
        tables.push(TableLoadReport { table, rows, seconds: started.elapsed().as_secs_f64(), reused: false });
    }
    let rows_where = |reused| tables.iter().filter(|table| table.reused == reused).map(|table| table.rows).sum();
    let seconds = tables.iter().map(|table| table.seconds).sum();
    Ok(LoadReport { seconds, rows: rows_where(false), reused_rows: rows_where(true), tables })
}

/// The rows of each table, or `None` where it does not exist. Fails if one of that name is not TPC-H's.
async fn row_counts(session: &Session) -> Result<Vec<(Table, Option<u64>)>> {
    let catalog = session.catalog();
    let mut counts = Vec::with_capacity(Table::ALL.len());
    for table in Table::ALL {
        let Some(existing) = catalog.find(DEFAULT_SCHEMA, table.name()) else {
            counts.push((table, None));
            continue;
        };
        if let Some(difference) = table.difference(existing) {
            return Err(Error::OtherTable { table: table.name(), difference });
        }
        counts.push((table, Some(count_rows(session, table).await?)));
    }
    Ok(counts)
}

async fn count_rows(session: &Session, table: Table) -> Result<u64> {
    let statement = format!("SELECT count(*) FROM {DEFAULT_SCHEMA}.{table}");
    let batches = match Box::pin(session.execute(&statement, &[])).await? {
        StatementResult::Rows(rows) => rows.collect().await?,
        StatementResult::Done(_) => Vec::new(),
    };
    let mut counts = batches.iter().filter(|batch| batch.num_rows() > 0);
    let count = counts
        .next()
        .and_then(|batch| batch.columns().first())
        .and_then(|column| column.as_primitive_opt::<Int64Type>())
        .map(|counts| counts.value(0).unsigned_abs());
    count.ok_or(Error::NoResultSet { statement })
}

/// Refuses row counts that a load at `scale`, complete or interrupted, does not leave behind.
fn check_same_scale(found: &[(Table, Option<u64>)], scale: ScaleFactor) -> Result<()> {
    let first_difference = |scale: ScaleFactor| {
        found.iter().find_map(|&(table, rows)| {
            let found = rows.filter(|&rows| rows > 0)?;
            let expected = TableGenerator::new(table, scale).row_count();
            (found != expected).then_some((table, found, expected))
        })
    };
    let Some((table, found_rows, expected)) = first_difference(scale) else {
        return Ok(());
    };
    // A table tells the scale it was loaded at; if that explains all the others, that is what this database holds.
    let scale_of = |(table, rows): &(Table, Option<u64>)| {
        let at_one = TableGenerator::new(*table, "1".parse().ok()?).row_count();
        ScaleFactor::new((*rows)? as f64 / at_one as f64).ok()
    };
    let sized_by_scale =
        |table: Table| matches!(table, Table::Part | Table::Supplier | Table::Customer | Table::Orders);
    let loaded_at = found.iter().filter(|(table, _)| sized_by_scale(*table)).find_map(scale_of);
    if let Some(loaded_at) = loaded_at.filter(|&other| other != scale && first_difference(other).is_none()) {
        return Err(Error::OtherScale { found: loaded_at.to_string(), wanted: scale.to_string() });
    }
    Err(Error::ChangedTable { table: table.name(), found: found_rows, expected, scale: scale.to_string() })
}

async fn load_table(
    session: &Session,
    generator: TableGenerator,
    threads: usize,
    observer: &Arc<dyn Observer>,
) -> Result<()> {
    let (table, total) = (generator.table(), generator.row_count());
    let observer = Arc::clone(observer);
    observer.loading(table, 0, total);
    let mut done = 0;
    let rows = generator.stream(threads).map_err(rustydb_engine::Error::from).inspect_ok(move |batch| {
        done += batch.num_rows() as u64;
        observer.loading(table, done, total);
    });
    let target = IngestTarget {
        schema: Some(DEFAULT_SCHEMA.to_owned()),
        table: table.name().to_owned(),
        temporary: false,
        mode: IngestMode::Append,
        columns: generator.schema(),
    };
    Box::pin(session.ingest(target, rows.boxed())).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scale(text: &str) -> ScaleFactor {
        text.parse().expect("a valid scale")
    }

    /// The row counts after a load at `scale` that ended after `complete` tables.
    fn counts(scale: ScaleFactor, complete: usize) -> Vec<(Table, Option<u64>)> {
        let count = |(position, table): (usize, Table)| {
            let rows = (position < complete).then(|| TableGenerator::new(table, scale).row_count());
            // The table after the last complete one was created and is still empty.
            (table, rows.or((position == complete).then_some(0)))
        };
        Table::ALL.into_iter().enumerate().map(count).collect()
    }

    #[test]
    fn what_a_load_of_this_scale_leaves_behind_is_accepted_wherever_it_stopped() {
        for complete in 0..=Table::ALL.len() {
            assert!(check_same_scale(&counts(scale("0.01"), complete), scale("0.01")).is_ok(), "after {complete}");
        }
    }

    #[test]
    fn another_scale_is_named_even_if_its_load_was_interrupted() {
        // REGION and NATION are the same at every scale; PART is the first table that tells.
        assert!(check_same_scale(&counts(scale("0.1"), 2), scale("0.01")).is_ok());
        for complete in 3..=Table::ALL.len() {
            let error = check_same_scale(&counts(scale("0.1"), complete), scale("0.01")).expect_err("another scale");
            assert!(matches!(error, Error::OtherScale { .. }), "after {complete}: {error}");
            let message = error.to_string();
            assert!(message.contains("scale 0.1,") && message.contains("--scale 0.1"), "no advice in: {message}");
        }
    }

    #[test]
    fn a_changed_table_is_named_and_not_mistaken_for_another_scale() {
        let mut counts = counts(scale("0.01"), 8);
        counts[7].1 = Some(60_174);
        let error = check_same_scale(&counts, scale("0.01")).expect_err("a changed table");
        assert!(
            matches!(error, Error::ChangedTable { table: "lineitem", found: 60_174, expected: 60_175, .. }),
            "{error}"
        );
    }
}
