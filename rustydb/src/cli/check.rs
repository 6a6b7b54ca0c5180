//! `rustydb check`: looks for damage in a closed database. It only reads.

use super::{CommandError, Exit, describe, print, runtime};
use clap::Args;
use rustydb::{CheckReport, Database, DatabaseOptions};
use std::path::PathBuf;

/// Verify the checksums and invariants of a closed database
///
/// Reads every file of the database once, changes nothing, and prints one line per damage with the file it is in.
#[derive(Args)]
#[command(after_help = "\
Examples:
  rustydb check
  rustydb check --data /var/lib/rustydb && echo sound

Exit status:
  0  no damage found
  1  damage found; each line on standard output is `FILE: what is wrong`
  2  the command line is not valid
  3  it cannot be checked: not a database, in use, or written by a newer version")]
pub(crate) struct Arguments {
    /// Directory of the database
    #[arg(long, value_name = "DIR", default_value = "./rustydb-data")]
    data: PathBuf,
}

/// SQLSTATE of data that is not what was written.
const DATA_CORRUPTED: &str = "XX001";

pub(crate) fn run(arguments: Arguments) -> Result<Exit, CommandError> {
    let directory = arguments.data.display();
    if !arguments.data.is_dir() {
        return Err(CommandError::Unavailable(format!(
            "{directory} is not a directory, so there is no database in it"
        )));
    }
    let (text, is_sound) = match runtime()?.block_on(Database::check(DatabaseOptions::directory(&arguments.data))) {
        Ok(report) => (findings(&report), report.findings.is_empty()),
        // Damage so deep that the rest cannot be looked at is still damage.
        Err(error) if error.sqlstate() == DATA_CORRUPTED => (format!("{}\n", describe(&error)), false),
        Err(error) => return Err(CommandError::cannot_open(&error)),
    };
    match print(&text)? {
        Exit::Success if !is_sound => Ok(Exit::Failure),
        exit => Ok(exit),
    }
}

fn findings(report: &CheckReport) -> String {
    let seen = format!(
        "{} tables, {} segments, {} rows and {} log records",
        report.tables, report.segments, report.rows, report.log_records
    );
    let mut text = String::new();
    for file in &report.left_over {
        text.push_str(&format!("{file}: nothing refers to it; the next start removes it\n"));
    }
    if report.findings.is_empty() {
        return text + &format!("no damage found in {seen}\n");
    }
    for finding in &report.findings {
        text.push_str(&format!("{}: {}\n", finding.file, finding.detail));
    }
    let count = report.findings.len();
    text + &format!("{count} finding{} in {seen}\n", if count == 1 { "" } else { "s" })
}
