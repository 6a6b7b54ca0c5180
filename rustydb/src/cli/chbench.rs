//! `rustydb chbench`: transactions and analytical queries side by side, at the command line.

use super::tpcc::{
    Screen, Target, TargetArguments, WorkloadArguments, cannot_write, close, command_error, milliseconds, open_json,
    stop_at_interrupt, write_json,
};
use super::{CommandError, Exit, print, runtime};
use clap::Args;
use rustydb_tpch::chbench::{self, MixedOptions, MixedReport};
use rustydb_tpch::tpcc::{Embedded, LatencyReport, Observer};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

/// Run CH-benCHmark: analytical queries beside TPC-C-derived transactions
///
/// Uses the store of `rustydb tpcc` (and makes it if it is not there), adds suppliers and nations, and runs the transactions
/// twice for the same time: alone, and beside clients that ask the 22 queries of CH-benCHmark one after the other. Reports
/// both rates, what the transactions lost, and how fresh the data is that the queries see. The consistency conditions are
/// checked at the end.
#[derive(Args)]
#[command(after_help = "\
Examples:
  rustydb chbench                                  1 analyst beside 16 terminals, 30 + 30 seconds
  rustydb chbench --analysts 2 --terminals 8 --json mixed.json
  rustydb chbench --warehouses 1 --data small --seconds 5

The JSON holds alone and together (each with tps and the rest of what rustydb tpcc reports), transactions_lost_percent,
analytics (queries_per_hour, latency_ms by query), and in it freshness_ms: how old the newest commit was that a query saw
when it began. A heartbeat commits every 5 ms, so it is measured no finer.

Exit status:
  0  it ran, and all conditions hold
  1  a condition does not hold, or a transaction or query failed
  2  the command line is not valid
  3  the store could not be opened, or holds something else; the server could not be reached
  130  ended by Ctrl-C, with a report")]
pub(crate) struct Arguments {
    #[command(flatten)]
    target: TargetArguments,

    #[command(flatten)]
    workload: WorkloadArguments,

    /// Clients that ask analytical queries side by side
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    analysts: u16,

    /// File to write the results to, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub(crate) fn run(arguments: Arguments) -> Result<Exit, CommandError> {
    let transactions = arguments.workload.options();
    let settings = transactions.settings();
    let options = MixedOptions { transactions, analysts: usize::from(arguments.analysts) };
    let json = arguments.json.as_deref().map(open_json).transpose()?;
    let runtime = runtime()?;
    let target = arguments.target.open(&runtime, &settings)?;
    let name = arguments.target.name();
    print(&format!("CH-benCHmark in {name}\n"))?;
    let (screen, stop) = (Arc::new(Screen::new()), stop_at_interrupt(&runtime));
    let observer = Arc::clone(&screen) as Arc<dyn Observer>;
    let result = match target {
        Target::Embedded(database) => {
            let client = Arc::new(Embedded::new(database.clone(), settings));
            let result = runtime.block_on(chbench::run(&client, "embedded", &options, observer, &stop));
            close(&runtime, &database, result)
        }
        Target::Remote(client) => runtime.block_on(chbench::run(&Arc::new(client), &name, &options, observer, &stop)),
    };
    screen.finish();
    let report = match result {
        Err(error @ rustydb_tpch::Error::Interrupted) => {
            return print(&format!("{error}\n")).map(|_| Exit::Interrupted);
        }
        result => result.map_err(command_error)?,
    };
    if let Some((path, file)) = json {
        write_json(&report, file).map_err(|error| cannot_write(path, &error))?;
    }
    match print(&summary(&report))? {
        Exit::Success if !report.is_consistent() => Ok(Exit::Failure),
        Exit::Success if report.interrupted => Ok(Exit::Interrupted),
        exit => Ok(exit),
    }
}

fn summary(report: &MixedReport) -> String {
    let mut text = format!(
        "\n{:<7} {:>8} {:>11} {:>11} {:>11}\n{}\n",
        "query",
        "answers",
        "p50 ms",
        "p99 ms",
        "max ms",
        "-".repeat(52)
    );
    for query in &report.analytics.queries {
        let LatencyReport { p50, p99, max, .. } = query.latency_ms;
        let name = format!("Q{}", query.query);
        let (p50, p99, max) = (milliseconds(p50), milliseconds(p99), milliseconds(max));
        add(&mut text, format!("{name:<7} {:>8} {p50:>11} {p99:>11} {max:>11}", query.count));
    }
    add(&mut text, "-".repeat(52));
    let analytics = &report.analytics;
    if report.interrupted {
        add(
            &mut text,
            "interrupted: what follows is of the time until then, and its two parts do not compare".to_owned(),
        );
    }
    add(
        &mut text,
        format!(
            "transactions: {:.0} per second alone, {:.0} beside {} {}: {:.1} % lost",
            report.alone.tps,
            report.together.tps,
            report.analysts,
            if report.analysts == 1 { "analyst" } else { "analysts" },
            report.transactions_lost_percent
        ),
    );
    if analytics.count == 0 {
        add(&mut text, "queries: none was answered in the time; --seconds gives them more".to_owned());
    } else {
        add(&mut text, format!("queries: {} answered, {:.0} per hour", analytics.count, analytics.queries_per_hour));
        let freshness = |latency: &LatencyReport| {
            format!(
                "p50 {} ms, p99 {} ms, at most {} ms",
                milliseconds(latency.p50),
                milliseconds(latency.p99),
                milliseconds(latency.max)
            )
        };
        add(
            &mut text,
            format!("newest commit seen by a query, when it began: {} old", freshness(&analytics.freshness_ms)),
        );
        add(&mut text, format!("the same, when the answer was there: {} old", freshness(&analytics.answer_age_ms)));
    }
    let (checked, broken) = (report.consistency.checked.len(), report.consistency.violations.len());
    add(&mut text, format!("{} of {checked} consistency conditions hold", checked - broken));
    for violation in &report.consistency.violations {
        add(&mut text, format!("condition {} does NOT hold: {}", violation.condition, violation.title));
        for row in &violation.first_rows {
            add(&mut text, format!("  {row}"));
        }
    }
    text
}

fn add(text: &mut String, line: String) {
    writeln!(text, "{line}").expect("writing to a String cannot fail");
}
