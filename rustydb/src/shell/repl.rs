//! The interactive prompt: line editing, history, and the loop that hands what was typed to the [`Shell`].
//!
//! The loop runs on the main thread, outside the runtime: the editor blocks while it waits for keys, and the database
//! goes on in the background meanwhile. A statement ends at its semicolon; until then Enter opens a new line of the
//! same entry, so that history brings whole statements back.

use super::Shell;
use super::backend::TableNames;
use super::complete;
use super::meta;
use super::script::{Item, StatementReader, Stop, Unreadable};
use rustydb::{TransactionStatus, statement_is_complete};
use rustyline::completion::{Completer, FilenameCompleter, Pair};
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{CompletionType, Config, Context, Editor, Helper};
use std::path::PathBuf;
use tokio::runtime::Runtime;

/// Entries kept in the history file.
const HISTORY_ENTRIES_MAX: usize = 10_000;

/// Runs the prompt until the user leaves. Errors of statements are shown and forgotten; the result is an error only
/// if the terminal or the output fails.
pub(crate) fn run(shell: &mut Shell, runtime: &Runtime) -> Result<(), Stop> {
    let config = Config::builder()
        .completion_type(CompletionType::List)
        .max_history_size(HISTORY_ENTRIES_MAX)
        .and_then(|builder| builder.history_ignore_dups(true))
        .map_err(terminal_failed)?
        .history_ignore_space(true)
        .build();
    let mut editor = Editor::<LineHelper, FileHistory>::with_config(config).map_err(terminal_failed)?;
    editor.set_helper(Some(LineHelper { tables: Vec::new(), files: FilenameCompleter::new() }));
    let history = history_path();
    if let Some(path) = &history {
        // There is none at the first start.
        let _ = editor.load_history(path);
    }
    let result = read_and_run(shell, runtime, &mut editor);
    if let Some(path) = &history
        && let Err(error) = editor.save_history(path)
    {
        tracing::warn!("the history could not be saved to {}: {error}", path.display());
    }
    result
}

fn read_and_run(
    shell: &mut Shell,
    runtime: &Runtime,
    editor: &mut Editor<LineHelper, FileHistory>,
) -> Result<(), Stop> {
    let mut names_are_stale = true;
    loop {
        if names_are_stale && let Ok(tables) = runtime.block_on(shell.backend().names()) {
            // In a failed transaction the names cannot be read; the old ones serve until they can.
            names_are_stale = false;
            if let Some(helper) = editor.helper_mut() {
                helper.tables = tables;
            }
        }
        let prompt = match shell.backend().transaction_status() {
            TransactionStatus::Idle => "rustydb> ",
            TransactionStatus::Active => "rustydb*> ",
            TransactionStatus::Failed => "rustydb!> ",
        };
        // Not after the line: a Ctrl-C on its heels is meant for what it runs.
        shell.forget_interrupts();
        let entry = match editor.readline(prompt) {
            Ok(entry) => entry,
            // Ctrl-C drops what was being typed.
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => return Ok(()),
            Err(error) => return Err(terminal_failed(error)),
        };
        if entry.trim().is_empty() {
            continue;
        }
        if !has_password(&entry) {
            editor.add_history_entry(entry.as_str()).map_err(terminal_failed)?;
        }
        names_are_stale |= changes_names(&entry);
        match runtime.block_on(run_entry(shell, &entry)) {
            Ok(()) | Err(Stop::Failed | Stop::Interrupted) => {}
            Err(Stop::Quit) => return Ok(()),
            Err(stop) => return Err(stop),
        }
    }
}

/// Whether an entry may hold a password, which has no place in a file of history.
fn has_password(entry: &str) -> bool {
    entry.to_ascii_lowercase().contains("password")
}

async fn run_entry(shell: &mut Shell, entry: &str) -> Result<(), Stop> {
    for item in cut(entry).map_err(|refused| shell.failed(&refused.failure, refused.text.as_ref()))? {
        shell.run_item(item).await?;
    }
    Ok(())
}

fn cut(entry: &str) -> Result<Vec<Item>, Unreadable> {
    if let Some(command) = meta::plain_word(entry) {
        return Ok(vec![Item::Meta(command)]);
    }
    let mut reader = StatementReader::new();
    let mut items = Vec::new();
    for line in entry.lines() {
        items.extend(reader.push(line)?);
    }
    items.extend(reader.finish()?);
    Ok(items)
}

/// Whether Enter runs what has been typed, rather than opening a new line.
fn is_complete(entry: &str) -> bool {
    let text = entry.trim();
    text.is_empty() || text.starts_with('\\') || meta::plain_word(text).is_some() || statement_is_complete(entry)
}

/// Whether the entry may have changed what completion offers.
fn changes_names(entry: &str) -> bool {
    let first_words = entry.split(';').filter_map(|statement| statement.split_whitespace().next());
    first_words.map(str::to_uppercase).any(|word| {
        matches!(word.as_str(), "CREATE" | "DROP" | "ALTER" | "ROLLBACK" | "COMMIT" | "END" | "ABORT") || word == "\\I"
    })
}

/// `$RUSTYDB_HISTORY`, or a file in the home directory; none without a home.
fn history_path() -> Option<PathBuf> {
    let chosen = std::env::var_os("RUSTYDB_HISTORY").filter(|path| !path.is_empty());
    chosen.map(PathBuf::from).or_else(|| std::env::home_dir().map(|home| home.join(".rustydb_history")))
}

fn terminal_failed(error: ReadlineError) -> Stop {
    Stop::Output(std::io::Error::other(error))
}

/// What the line editor asks while the user types.
struct LineHelper {
    tables: Vec<TableNames>,
    files: FilenameCompleter,
}

impl Helper for LineHelper {}
impl Highlighter for LineHelper {}

impl Hinter for LineHelper {
    type Hint = String;
}

impl Validator for LineHelper {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        Ok(if is_complete(context.input()) { ValidationResult::Valid(None) } else { ValidationResult::Incomplete })
    }
}

impl Completer for LineHelper {
    type Candidate = Pair;

    fn complete(
        &self,
        line: &str,
        position: usize,
        context: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<Self::Candidate>)> {
        let typed = line.trim_start();
        if typed.starts_with("\\i ") || typed.starts_with("\\o ") {
            return self.files.complete(line, position, context);
        }
        let (start, names) = complete::candidates(line, position, &self.tables);
        Ok((start, names.into_iter().map(|name| Pair { display: name.clone(), replacement: name }).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::{changes_names, is_complete};

    #[test]
    fn enter_runs_a_finished_statement_and_continues_an_unfinished_one() {
        for entry in [
            "",
            "  \n",
            "\\d person",
            "exit",
            "help ",
            "Quit;",
            "SELECT 1;",
            "SELECT\n 1 ; -- done",
            "SELECT 1; SELECT 2;",
        ] {
            assert!(is_complete(entry), "{entry:?}");
        }
        for entry in ["SELECT 1", "SELECT ';", "SELECT 1; SELECT", "SELECT 1 -- ;"] {
            assert!(!is_complete(entry), "{entry:?}");
        }
    }

    #[test]
    fn names_are_read_again_after_ddl() {
        assert!(changes_names("create table t (id int);"));
        assert!(changes_names("SELECT 1; DROP TABLE t;"));
        assert!(!changes_names("SELECT 'drop';"));
    }
}
