//! Backslash commands: parsing and the help text. What they do is in the shell.

use super::failure::Failure;
use super::render::Format;

/// A parsed backslash command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum MetaCommand {
    /// `\d`, `\dt`: list tables.
    ListTables,
    /// `\d table`: columns and keys of a table.
    Describe(String),
    /// `\timing [on|off]`.
    Timing(Option<bool>),
    /// `\x [on|off]`.
    Expanded(Option<bool>),
    /// `\format [name]`: set it, or show it.
    Format(Option<Format>),
    /// `\i file`.
    Include(String),
    /// `\o [file]`.
    Output(Option<String>),
    /// `\?`.
    Help,
    /// `\q`.
    Quit,
}

/// The commands with the help shown by `\?`; completion offers the same list.
pub(crate) const COMMANDS: [(&str, &str, &str); 9] = [
    ("\\?", "", "this help"),
    ("\\q", "", "quit (so do Ctrl-D, exit and quit)"),
    ("\\d", "[table]", "columns and keys of a table; without a name, the tables"),
    ("\\dt", "", "the tables"),
    ("\\timing", "[on|off]", "show how long each statement takes"),
    ("\\x", "[on|off]", "one line per column instead of one per row"),
    ("\\format", "[name]", "table, csv, json, markdown or expanded"),
    ("\\i", "file", "run the statements of a file"),
    ("\\o", "[file]", "write results to a file; without a name, back to the screen"),
];

/// The text of `\?`.
pub(crate) fn help() -> String {
    let mut text =
        String::from("Statements end with a semicolon and may span lines. Ctrl-C cancels the running statement.\n\n");
    for (name, argument, meaning) in COMMANDS {
        text.push_str(&format!("  {:<18} {meaning}\n", format!("{name} {argument}")));
    }
    text
}

/// What people type who do not know the backslash yet: `help`, `exit` and `quit`, on a line of their own.
pub(crate) fn plain_word(entry: &str) -> Option<MetaCommand> {
    match entry.trim().trim_end_matches(';').trim_end().to_ascii_lowercase().as_str() {
        "help" => Some(MetaCommand::Help),
        "exit" | "quit" => Some(MetaCommand::Quit),
        _ => None,
    }
}

/// Parses a line that begins with a backslash.
pub(crate) fn parse(line: &str) -> Result<MetaCommand, Failure> {
    // A trailing semicolon is a habit of the fingers, not part of the argument.
    let line = line.trim().trim_end_matches(';').trim_end();
    let (name, argument) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let argument = Some(unquote(argument.trim())).filter(|argument| !argument.is_empty());
    let command = match (name, argument) {
        ("\\?" | "\\h" | "\\help", None) => MetaCommand::Help,
        ("\\q" | "\\quit", None) => MetaCommand::Quit,
        ("\\d" | "\\dt", None) => MetaCommand::ListTables,
        ("\\d", Some(table)) => MetaCommand::Describe(table.to_owned()),
        ("\\timing", argument) => MetaCommand::Timing(switch(name, argument)?),
        ("\\x", argument) => MetaCommand::Expanded(switch(name, argument)?),
        ("\\format", None) => MetaCommand::Format(None),
        ("\\format", Some(format)) => {
            let unknown = || {
                let names: Vec<&str> = Format::ALL.iter().map(|format| format.name()).collect();
                Failure::new("22023", format!("unknown format \"{format}\""))
                    .with_hint(format!("one of {}", names.join(", ")))
            };
            MetaCommand::Format(Some(Format::from_name(format).ok_or_else(unknown)?))
        }
        ("\\i", Some(file)) => MetaCommand::Include(file.to_owned()),
        ("\\i", None) => return Err(Failure::new("42601", "\\i needs a file name")),
        ("\\o", file) => MetaCommand::Output(file.map(str::to_owned)),
        (name, Some(_)) if COMMANDS.iter().any(|(known, ..)| *known == name) => {
            return Err(Failure::new("42601", format!("{name} takes no argument")));
        }
        _ => {
            return Err(Failure::new("42601", format!("unknown command {name}")).with_hint("\\? lists the commands"));
        }
    };
    Ok(command)
}

fn switch(name: &str, argument: Option<&str>) -> Result<Option<bool>, Failure> {
    match argument {
        None => Ok(None),
        Some("on") => Ok(Some(true)),
        Some("off") => Ok(Some(false)),
        Some(other) => Err(Failure::new("22023", format!("{name} takes on or off, not \"{other}\""))),
    }
}

/// File names may stand in single quotes.
fn unquote(argument: &str) -> &str {
    argument.strip_prefix('\'').and_then(|inner| inner.strip_suffix('\'')).unwrap_or(argument)
}

#[cfg(test)]
mod tests {
    use super::{COMMANDS, MetaCommand, help, parse};
    use crate::shell::render::Format;

    #[test]
    fn commands_take_their_arguments() {
        assert_eq!(parse("\\d").unwrap(), MetaCommand::ListTables);
        assert_eq!(parse("\\d  person ;").unwrap(), MetaCommand::Describe("person".to_owned()));
        assert_eq!(parse("\\format csv").unwrap(), MetaCommand::Format(Some(Format::Csv)));
        assert_eq!(parse("\\x off").unwrap(), MetaCommand::Expanded(Some(false)));
        assert_eq!(parse("\\i 'my file.sql'").unwrap(), MetaCommand::Include("my file.sql".to_owned()));
        assert_eq!(parse("\\o").unwrap(), MetaCommand::Output(None));
        assert_eq!(parse("\\q").unwrap(), MetaCommand::Quit);
    }

    #[test]
    fn a_wrong_command_says_what_would_be_right() {
        for (line, words) in [
            ("\\format yaml", "one of table, csv, json, markdown, expanded"),
            ("\\foo", "\\? lists the commands"),
            ("\\timing maybe", "on or off"),
            ("\\q now", "takes no argument"),
            ("\\i", "needs a file name"),
        ] {
            let failure = parse(line).unwrap_err();
            let said = format!("{} {}", failure.message, failure.hint.unwrap_or_default());
            assert!(said.contains(words), "{line}: {said}");
        }
    }

    #[test]
    fn the_help_lists_every_command() {
        for (name, ..) in COMMANDS {
            assert!(help().contains(name), "{name}");
        }
    }
}
