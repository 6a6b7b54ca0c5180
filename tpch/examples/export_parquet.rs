//! Writes the eight TPC-H tables as Parquet files: exactly the rows that `rustydb tpch` loads, for other engines to read.
//!
//! ```text
//! cargo run --release -p rustydb-tpch --example export_parquet -- --scale 1 /tmp/tpch-sf1
//! ```

use std::error::Error;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::ExitCode;

use futures::TryStreamExt;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use rustydb_tpch::tpch::{ScaleFactor, Table, TableGenerator};

const USAGE: &str = "usage: export_parquet [--scale N] DIRECTORY";

/// Rows per row group: DuckDB reads row groups in parallel, so a table should have several.
const ROW_GROUP_ROWS: usize = 122_880;

#[tokio::main]
async fn main() -> ExitCode {
    let exported = match parse_arguments() {
        Ok((scale, directory)) => export(scale, &directory).await,
        Err(error) => Err(error),
    };
    match exported {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("export_parquet: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse_arguments() -> Result<(ScaleFactor, PathBuf), Box<dyn Error>> {
    let (mut scale, mut directory) = (ScaleFactor::new(1.0)?, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--scale" => scale = arguments.next().ok_or(USAGE)?.parse()?,
            _ if argument.starts_with('-') || directory.is_some() => return Err(USAGE.into()),
            _ => directory = Some(PathBuf::from(argument)),
        }
    }
    Ok((scale, directory.ok_or(USAGE)?))
}

async fn export(scale: ScaleFactor, directory: &PathBuf) -> Result<(), Box<dyn Error>> {
    let threads = std::thread::available_parallelism()?.get();
    fs::create_dir_all(directory)?;
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .build();
    for table in Table::ALL {
        let generator = TableGenerator::new(table, scale);
        // A file of the final name is a whole file.
        let path = directory.join(format!("{table}.parquet"));
        let unfinished = path.with_extension("parquet.part");
        let file = File::create(&unfinished)?;
        let mut writer = ArrowWriter::try_new(file, generator.schema(), Some(properties.clone()))?;
        let mut batches = std::pin::pin!(generator.stream(threads));
        while let Some(batch) = batches.try_next().await? {
            writer.write(&batch)?;
        }
        writer.close()?;
        fs::rename(&unfinished, &path)?;
        println!("{}: {} rows", path.display(), generator.row_count());
    }
    Ok(())
}
