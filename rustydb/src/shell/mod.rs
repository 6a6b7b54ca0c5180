//! The SQL shell: one machine under the interactive prompt ([`repl`]) and the script runner ([`script`]).
//!
//! A [`Shell`] owns a connection ([`Backend`]), the display settings and the place where results go. Whoever drives
//! it hands over [`Item`]s, one at a time; the shell executes, shows the result while it streams, reports an error
//! once, on standard error, and says through [`Stop`] why the driver may want to end. It never ends the process and
//! never retries.
//!
//! Ctrl-C: from the first [`Shell`] on, SIGINT no longer kills the process. While a statement runs it cancels that
//! statement (the stream is dropped, which stops the work here or on the server); between statements it is the
//! driver's.

pub(crate) mod backend;
mod complete;
pub(crate) mod failure;
pub(crate) mod meta;
pub(crate) mod render;
pub(crate) mod repl;
pub(crate) mod script;

use backend::{Backend, Outcome, ResultRows};
use failure::{Failure, Source};
use futures::{FutureExt, StreamExt};
use meta::MetaCommand;
use render::{Format, RenderError};
use script::{Item, Lines, Stop};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// `\i` inside `\i` inside …: deep enough for any layout of scripts, shallow enough to stop a file including itself.
const INCLUDE_DEPTH_MAX: usize = 16;

/// A connection with display settings.
pub(crate) struct Shell {
    backend: Backend,
    format: Format,
    /// What `\x` returns to.
    format_before_expanded: Format,
    timing: bool,
    output: Output,
    interrupts: Signal,
    /// The script files that are being run, the innermost last.
    files: Vec<String>,
}

/// Where results go.
struct Output {
    sink: BufWriter<Box<dyn Write + Send>>,
}

impl Output {
    fn stdout() -> Output {
        Output { sink: BufWriter::new(Box::new(io::stdout())) }
    }

    fn file(path: &str) -> io::Result<Output> {
        Ok(Output { sink: BufWriter::new(Box::new(std::fs::File::create(path)?)) })
    }
}

impl Shell {
    /// A shell that writes to standard output. Needs a running tokio runtime, for the signal.
    pub(crate) fn new(backend: Backend, format: Format) -> io::Result<Shell> {
        Ok(Shell {
            backend,
            format,
            format_before_expanded: if format == Format::Expanded { Format::Table } else { format },
            timing: false,
            output: Output::stdout(),
            interrupts: signal(SignalKind::interrupt())?,
            files: Vec::new(),
        })
    }

    /// Ends the connection in order.
    pub(crate) async fn close(self) {
        self.backend.close().await;
    }

    pub(crate) fn backend(&self) -> &Backend {
        &self.backend
    }

    /// Waits for Ctrl-C.
    pub(crate) async fn interrupted(&mut self) {
        if self.interrupts.recv().await.is_none() {
            // The runtime no longer delivers signals; then none can arrive.
            std::future::pending::<()>().await;
        }
    }

    /// Forgets a Ctrl-C that came while there was nothing to cancel.
    pub(crate) fn forget_interrupts(&mut self) {
        while self.interrupts.recv().now_or_never().flatten().is_some() {}
    }

    /// Executes one statement or command and shows what it gives.
    pub(crate) async fn run_item(&mut self, item: Item) -> Result<(), Stop> {
        match item {
            Item::Statement(source) => self.run_statement(&source).await,
            Item::Meta(command) => self.run_meta(command).await,
        }
    }

    /// Reports an error on standard error.
    pub(crate) fn failed(&mut self, failure: &Failure, source: Option<&Source>) -> Stop {
        // What was shown before the error stands before it, when both go to one terminal.
        if let Err(stop) = self.flush() {
            return stop;
        }
        // Nothing can be said if standard error itself is gone; the exit status still tells.
        let _ = failure.report(source, self.files.last().map(String::as_str), &mut io::stderr().lock());
        Stop::Failed
    }

    async fn run_statement(&mut self, source: &Source) -> Result<(), Stop> {
        let started = Instant::now();
        let outcome = tokio::select! {
            biased;
            outcome = self.backend.execute(&source.sql) => outcome,
            _ = self.interrupts.recv() => {
                self.failed(&Failure::cancelled(), None);
                return Err(Stop::Interrupted);
            }
        };
        for notice in self.backend.notices() {
            self.say(&notice);
        }
        match outcome {
            Ok(Outcome::Done { tag }) => {
                if !self.format.is_for_programs() {
                    writeln!(self.output.sink, "{tag}").map_err(output_failed)?;
                }
            }
            Ok(Outcome::Rows(rows)) => self.show(rows, self.format, Some(source)).await?,
            Err(failure) => return Err(self.failed(&failure, Some(source))),
        }
        self.flush()?;
        if self.timing {
            self.say(&format!("Time: {}", show_duration(started.elapsed())));
        }
        Ok(())
    }

    /// Shows rows while they arrive.
    async fn show(&mut self, mut rows: ResultRows, format: Format, source: Option<&Source>) -> Result<(), Stop> {
        let mut renderer = render::renderer(format, &rows.schema);
        loop {
            let batch = tokio::select! {
                biased;
                _ = self.interrupts.recv() => {
                    drop(rows);
                    self.failed(&Failure::cancelled(), None);
                    return Err(Stop::Interrupted);
                }
                batch = rows.batches.next() => batch,
            };
            let written = match batch {
                Some(Ok(batch)) => renderer.batch(&batch, &mut self.output.sink),
                Some(Err(failure)) => return Err(self.failed(&failure, source)),
                None => break,
            };
            written.map_err(|error| self.render_failed(error))?;
        }
        renderer.finish(&mut self.output.sink).map_err(|error| self.render_failed(error))
    }

    fn render_failed(&mut self, error: RenderError) -> Stop {
        match error {
            RenderError::Sink(error) => output_failed(error),
            error @ RenderError::Value(_) => self.failed(&Failure::new("22008", error.to_string()), None),
        }
    }

    fn flush(&mut self) -> Result<(), Stop> {
        self.output.sink.flush().map_err(output_failed)
    }

    async fn run_meta(&mut self, command: MetaCommand) -> Result<(), Stop> {
        match command {
            MetaCommand::ListTables => {
                let tables = self.backend.list_tables().await;
                let rows = tables.map_err(|failure| self.failed(&failure, None))?;
                self.show(rows, self.format, None).await?;
            }
            MetaCommand::Describe(table) => self.describe(&table).await?,
            MetaCommand::Timing(on) => {
                self.timing = on.unwrap_or(!self.timing);
                self.say(&format!("Timing is {}.", if self.timing { "on" } else { "off" }));
            }
            MetaCommand::Expanded(on) => {
                let on = on.unwrap_or(self.format != Format::Expanded);
                self.set_format(if on { Format::Expanded } else { self.format_before_expanded });
            }
            MetaCommand::Format(Some(format)) => self.set_format(format),
            MetaCommand::Format(None) => self.say(&format!("Format is {}.", self.format.name())),
            MetaCommand::Include(path) => return Box::pin(self.include(&path)).await,
            MetaCommand::Output(None) => {
                self.flush()?;
                self.output = Output::stdout();
            }
            MetaCommand::Output(Some(path)) => {
                self.flush()?;
                self.output = Output::file(&path).map_err(|error| {
                    self.failed(&Failure::new("58030", format!("cannot write \"{path}\": {error}")), None)
                })?;
            }
            MetaCommand::Help => self.say(meta::help().trim_end()),
            MetaCommand::Quit => return Err(Stop::Quit),
        }
        self.flush()
    }

    fn set_format(&mut self, format: Format) {
        if format != Format::Expanded {
            self.format_before_expanded = format;
        }
        self.format = format;
        self.say(&format!("Format is {}.", format.name()));
    }

    /// Talk that is no data goes to standard error, so that results stay clean.
    pub(crate) fn say(&self, text: &str) {
        // Nobody there to hear it is no reason to stop.
        let _ = writeln!(io::stderr(), "{text}");
    }

    async fn include(&mut self, path: &str) -> Result<(), Stop> {
        if self.files.len() >= INCLUDE_DEPTH_MAX {
            let failure = Failure::new("54001", format!("\\i is nested more than {INCLUDE_DEPTH_MAX} files deep"));
            return Err(self.failed(&failure.with_hint("a file may be including itself"), None));
        }
        let lines = Lines::of_file(Path::new(path))
            .map_err(|error| self.failed(&Failure::new("58030", format!("cannot read \"{path}\": {error}")), None))?;
        script::run(self, lines).await
    }

    async fn describe(&mut self, table: &str) -> Result<(), Stop> {
        let described = self.backend.describe(table).await;
        let description = described.map_err(|failure| self.failed(&failure, None))?;
        writeln!(self.output.sink, "Table {}", description.name).map_err(output_failed)?;
        self.show(description.columns, Format::Table, None).await?;
        for line in description.notes {
            writeln!(self.output.sink, "{line}").map_err(output_failed)?;
        }
        self.flush()
    }
}

/// A closed pipe is no error: whoever read our output has seen enough.
fn output_failed(error: io::Error) -> Stop {
    if error.kind() == io::ErrorKind::BrokenPipe { Stop::OutputClosed } else { Stop::Output(error) }
}

/// Three digits after the point, in the unit that fits.
fn show_duration(duration: Duration) -> String {
    let milliseconds = duration.as_secs_f64() * 1_000.0;
    if milliseconds < 1_000.0 { format!("{milliseconds:.3} ms") } else { format!("{:.3} s", milliseconds / 1_000.0) }
}

#[cfg(test)]
mod tests {
    use super::show_duration;
    use std::time::Duration;

    #[test]
    fn durations_are_shown_in_the_unit_that_fits() {
        assert_eq!(show_duration(Duration::from_micros(1_234)), "1.234 ms");
        assert_eq!(show_duration(Duration::from_millis(61_500)), "61.500 s");
    }
}
