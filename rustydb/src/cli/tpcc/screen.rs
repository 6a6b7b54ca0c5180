//! What people see of a run: bars while it goes on, a table at its end.

use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};
use rustydb_tpch::tpcc::{Condition, KindReport, Measured, Observer, Report, RunProgress, Table};
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often a run reports where it is when nobody watches a bar.
const PLAIN_PROGRESS_INTERVAL: Duration = Duration::from_secs(10);

/// Shows a run while it goes on.
pub(crate) struct Screen {
    is_terminal: bool,
    state: Mutex<State>,
}

struct State {
    bar: Option<ProgressBar>,
    /// What the bar is for, and since when.
    title: String,
    started: Instant,
    last_line: Option<Instant>,
}

impl Screen {
    pub(crate) fn new() -> Screen {
        let now = Instant::now();
        let state = State { bar: None, title: String::new(), started: now, last_line: Some(now) };
        Screen { is_terminal: io::stderr().is_terminal(), state: Mutex::new(state) }
    }

    /// Ends the bar that is shown.
    pub(crate) fn finish(&self) {
        if let Some(bar) = self.state().bar.take() {
            bar.finish_and_clear();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A bar with another title, or the one there is.
    fn bar<'a>(&self, state: &'a mut State, title: &str, total: u64, template: &str) -> &'a ProgressBar {
        if state.title != title || state.bar.is_none() {
            if let Some(bar) = state.bar.take() {
                bar.finish_and_clear();
            }
            if title == RUNNING_TITLE {
                state.last_line = None;
            }
            state.title = title.to_owned();
            state.started = Instant::now();
            let target = if self.is_terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
            let style =
                ProgressStyle::with_template(template).expect("the templates are constants that a test renders");
            let bar = ProgressBar::with_draw_target(Some(total), target).with_style(style);
            state.bar = Some(bar.with_prefix(title.to_owned()));
        }
        state.bar.as_ref().expect("one was made if there was none")
    }

    /// A line for those who watch no bar: at once after a change, and then now and then.
    fn say_sometimes(&self, state: &mut State, line: impl FnOnce() -> String) {
        let is_due = state.last_line.is_none_or(|last| last.elapsed() >= PLAIN_PROGRESS_INTERVAL);
        if !self.is_terminal && is_due {
            state.last_line = Some(Instant::now());
            say(&line());
        }
    }
}

const RUNNING_TITLE: &str = "running";
const LOADING: &str = "{prefix:>10} {bar:32.cyan/dim} {human_pos:>11} of {human_len} rows, {per_sec:>14}, {elapsed}";
const RUNNING: &str = "{prefix:>10} {bar:32.green/dim} {msg}";
const CHECKING: &str = "{prefix:>10} {bar:32.yellow/dim} {msg}";

impl Observer for Screen {
    fn loading(&self, table: Table, done: u64, total: u64) {
        let mut state = self.state();
        self.bar(&mut state, table.name(), total, LOADING).set_position(done);
        self.say_sometimes(&mut state, || format!("{table}: {} of {} rows", HumanCount(done), HumanCount(total)));
    }

    fn loaded(&self, table: Table) {
        let mut state = self.state();
        if state.title != table.name() {
            // It was there before.
            return;
        }
        if let Some(bar) = state.bar.take() {
            let (rows, seconds) = (bar.position(), state.started.elapsed().as_secs_f64());
            bar.finish_and_clear();
            say(&format!("{table}: {} rows in {seconds:.1} s", HumanCount(rows)));
        }
    }

    fn adding_keys(&self) {
        say("indexes and foreign keys");
    }

    fn running(&self, progress: RunProgress) {
        let mut state = self.state();
        let (done, total) = (progress.elapsed.min(progress.total), progress.total);
        let rate = progress.transactions as f64 / progress.elapsed.as_secs_f64().max(0.001);
        let message = format!(
            "{:.0} of {:.0} s, {} transactions, {}/s",
            done.as_secs_f64(),
            total.as_secs_f64(),
            HumanCount(progress.transactions),
            HumanCount(rate as u64)
        );
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let bar = self.bar(&mut state, RUNNING_TITLE, milliseconds(total), RUNNING);
        bar.set_position(milliseconds(done));
        bar.set_message(message.clone());
        if progress.transactions > 0 {
            self.say_sometimes(&mut state, || message);
        }
    }

    fn ran(&self) {
        let mut state = self.state();
        state.title.clear();
        drop(state);
        self.finish();
    }

    fn checking(&self, condition: &Condition) {
        let mut state = self.state();
        let bar = self.bar(&mut state, "checking", 12, CHECKING);
        bar.set_position(u64::from(condition.number) - 1);
        bar.set_message(condition.title);
    }
}

/// Progress for people goes to standard error; nobody there is no reason to stop.
pub(super) fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// What there is to say at the end.
pub(crate) fn summary(report: &Report) -> String {
    let mut text = String::new();
    if let Some(measured) = &report.measured {
        text.push_str(&measured_table(measured));
        let Measured { seconds, tps, tpmc_equivalent, .. } = measured;
        add(
            &mut text,
            format!(
                "{tps:.0} transactions per second, {tpmc_equivalent:.0} New-Orders per minute ({seconds:.1} s, \
                 {} terminals, {} warehouses, {}, {})",
                report.terminals,
                report.warehouses,
                json_word(&report.mode),
                json_word(&report.durability),
            ),
        );
    }
    if report.reduction != 1 {
        add(&mut text, format!("warehouses of 1/{} size: a test, and no TPC-C", report.reduction));
    }
    match report.load.reused {
        true => add(&mut text, "load: it was all there before".to_owned()),
        false => {
            let rows = HumanCount(report.load.rows);
            add(&mut text, format!("load: {rows} rows with indexes and keys in {:.1} s", report.load.seconds));
        }
    }
    let consistency = &report.consistency;
    let (checked, broken) = (consistency.checked.len(), consistency.violations.len());
    add(&mut text, format!("{} of {checked} consistency conditions hold", checked - broken));
    for violation in &consistency.violations {
        add(
            &mut text,
            format!("condition {} does NOT hold ({} rows): {}", violation.condition, violation.rows, violation.title),
        );
        for row in &violation.first_rows {
            add(&mut text, format!("  {row}"));
        }
    }
    text
}

/// The transactions by kind.
fn measured_table(measured: &Measured) -> String {
    let mut text = format!(
        "\n{:<13} {:>11} {:>8} {:>8} {:>9} {:>9} {:>9} {:>9} {:>9}\n{}\n",
        "",
        "committed",
        "aborts",
        "retries",
        "p50 ms",
        "p95 ms",
        "p99 ms",
        "p99.9 ms",
        "max ms",
        "-".repeat(94)
    );
    for (kind, report) in measured.transactions.all() {
        let KindReport { count, aborts, retries, latency_ms: latency, given_up: _ } = report;
        add(
            &mut text,
            format!(
                "{:<13} {:>11} {:>8} {:>8} {:>9} {:>9} {:>9} {:>9} {:>9}",
                kind.name(),
                HumanCount(*count).to_string(),
                HumanCount(*aborts).to_string(),
                HumanCount(*retries).to_string(),
                milliseconds(latency.p50),
                milliseconds(latency.p95),
                milliseconds(latency.p99),
                milliseconds(latency.p999),
                milliseconds(latency.max),
            ),
        );
    }
    add(&mut text, "-".repeat(94));
    text
}

/// Milliseconds with three digits behind the point, or a dash.
pub(crate) fn milliseconds(time: Option<f64>) -> String {
    time.map_or("-".to_owned(), |time| format!("{time:.3}"))
}

/// The word that JSON has for a choice.
fn json_word(choice: &impl serde::Serialize) -> String {
    serde_json::to_value(choice).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

fn add(text: &mut String, line: String) {
    writeln!(text, "{line}").expect("writing to a String cannot fail");
}

#[cfg(test)]
mod tests {
    use super::{Screen, milliseconds};
    use rustydb_tpch::tpcc::{CONDITIONS, Observer, RunProgress, Table};
    use std::time::Duration;

    #[test]
    fn one_bar_follows_the_other() {
        let screen = Screen::new();
        screen.loading(Table::Item, 0, 100);
        screen.loading(Table::Item, 100, 100);
        screen.loaded(Table::Item);
        screen.loaded(Table::Stock);
        let progress = RunProgress { elapsed: Duration::from_secs(1), total: Duration::from_secs(2), transactions: 10 };
        screen.running(progress);
        assert_eq!(screen.state().title, "running");
        screen.checking(&CONDITIONS[11]);
        let position = screen.state().bar.as_ref().map(indicatif::ProgressBar::position);
        assert_eq!(position, Some(11));
        screen.finish();
        assert!(screen.state().bar.is_none());
    }

    #[test]
    fn no_latency_is_a_dash() {
        assert_eq!((milliseconds(None), milliseconds(Some(0.0421))), ("-".to_owned(), "0.042".to_owned()));
    }
}
