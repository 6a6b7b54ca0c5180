//! `cargo xtask`: the developer commands of RustyDB.
//!
//! One command, `cargo xtask test`, decides whether a change is good: it is what `.ci/run` calls, so that nobody has to
//! guess what the build machine will say. It runs the steps of [`steps`] in order, prints how long each took, and exits
//! with status 1 if any failed. The other commands run one part of it for a quick answer while working.
//!
//! Everything waits for this crate to compile, so it uses the standard library and `serde_json` only.

mod corpora;
mod miri;
mod python;
mod steps;
mod tidy;
mod workspace;

use std::path::PathBuf;
use std::process::ExitCode;

use steps::Step;
use workspace::Workspace;

/// Errors are read by the developer who typed the command; nothing in here reacts to their kind.
type Result<T> = std::result::Result<T, String>;

const HELP: &str = "\
Developer commands of RustyDB.

Usage: cargo xtask COMMAND

Commands:
  test [--only STEP]… [--skip STEP]…   run the steps below in order; status 1 if one fails
  tidy                                 check the crate edges and the source rules (seconds, compiles nothing)
  python [--binary FILE] [ARGUMENT…]   run the Python client tests; arguments go to pytest
  sqlite [FOLDER]                      run SQLite's corpus (minutes); skipped if it is not in ../shared/corpus/sqlite
  datafusion [FOLDER] [NAME]           run DataFusion's own test files (minutes), those whose names contain NAME; skipped
                                       if cargo has not fetched the crate datafusion-sqllogictest
  miri [ARGUMENT…]                     run the tests of kernels and encodings under Miri (minutes); skipped if there is no
                                       nightly toolchain with it; arguments go to the test program
  help, --help                         this text

Steps of `test`, in order (STEP is a name, or several joined by commas):
  fmt      rustfmt agrees with every file
  clippy   no warning in any target of any crate
  tidy     crate edges point down; every file opens with its purpose; no leftovers
  build    compile all tests, examples and the rustydb binary (debug)
  rust     all Rust tests and doc tests
  python   real clients against the real server: ADBC, pyarrow.flight, the documentation's code blocks

A failed step does not hide the others; only a failed build skips the steps that need it.

Examples:
  cargo xtask test
  cargo xtask test --only fmt,clippy,tidy
  cargo xtask python -k ingest -x

The Python environment is made in target/python-venv from tests/python/requirements.txt, and again when that file changes.
Set PYTHON to choose the interpreter (3.11 or later).";

/// What the command line asks for.
#[derive(Debug, PartialEq)]
enum Command {
    Help,
    Test { steps: Vec<Step> },
    Tidy,
    Python { binary: Option<PathBuf>, pytest_arguments: Vec<String> },
    Sqlite { corpus: Option<PathBuf> },
    Datafusion { corpus: Option<PathBuf>, name: Option<String> },
    Miri { arguments: Vec<String> },
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = parse(&arguments).and_then(|command| run(&command));
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("xtask: {message}");
            ExitCode::from(2)
        }
    }
}

/// Runs a command; `false` means that what was checked is not good.
fn run(command: &Command) -> Result<bool> {
    match command {
        Command::Help => {
            println!("{HELP}");
            Ok(true)
        }
        Command::Test { steps } => steps::run(&Workspace::load()?, steps),
        Command::Tidy => tidy::run(&Workspace::load()?),
        Command::Python { binary, pytest_arguments } => {
            let workspace = Workspace::load()?;
            let binary = match binary {
                Some(path) => path.clone(),
                None => steps::build_binary(&workspace)?,
            };
            Ok(python::run(&workspace, &binary, pytest_arguments)?.success)
        }
        Command::Sqlite { corpus } => corpora::run_sqlite(&Workspace::load()?, corpus.as_deref()),
        Command::Datafusion { corpus, name } => {
            corpora::run_datafusion(&Workspace::load()?, corpus.as_deref(), name.as_deref())
        }
        Command::Miri { arguments } => miri::run(&Workspace::load()?, arguments),
    }
}

fn parse(arguments: &[String]) -> Result<Command> {
    let Some((command, rest)) = arguments.split_first() else {
        return Ok(Command::Help);
    };
    match command.as_str() {
        "help" | "--help" | "-h" => Ok(Command::Help),
        "test" => parse_test(rest),
        "tidy" if rest.is_empty() => Ok(Command::Tidy),
        "tidy" => Err(format!("`tidy` takes no arguments, got `{}`", rest.join(" "))),
        "python" => parse_python(rest),
        "sqlite" => match rest {
            [] => Ok(Command::Sqlite { corpus: None }),
            [folder] => Ok(Command::Sqlite { corpus: Some(PathBuf::from(folder)) }),
            _ => Err("`sqlite` takes one folder".to_owned()),
        },
        // A folder has a slash in it; a name has none.
        "datafusion" => match rest {
            [] => Ok(Command::Datafusion { corpus: None, name: None }),
            [folder] if folder.contains('/') => {
                Ok(Command::Datafusion { corpus: Some(PathBuf::from(folder)), name: None })
            }
            [name] => Ok(Command::Datafusion { corpus: None, name: Some(name.clone()) }),
            [folder, name] => Ok(Command::Datafusion { corpus: Some(PathBuf::from(folder)), name: Some(name.clone()) }),
            _ => Err("`datafusion` takes a folder and a name".to_owned()),
        },
        "miri" => Ok(Command::Miri { arguments: rest.to_vec() }),
        other => Err(format!("no command `{other}`; `cargo xtask --help` lists them")),
    }
}

fn parse_test(arguments: &[String]) -> Result<Command> {
    let mut only = Vec::new();
    let mut skip = Vec::new();
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let list = match argument.as_str() {
            "--only" => &mut only,
            "--skip" => &mut skip,
            "--help" | "-h" => return Ok(Command::Help),
            other => return Err(format!("`test` does not know `{other}`; `cargo xtask --help` shows its arguments")),
        };
        let names = arguments.next().ok_or_else(|| format!("{argument} needs the name of a step"))?;
        for name in names.split(',') {
            list.push(Step::from_name(name)?);
        }
    }
    let steps = Step::ALL
        .into_iter()
        .filter(|step| only.is_empty() || only.contains(step))
        .filter(|step| !skip.contains(step))
        .collect();
    Ok(Command::Test { steps })
}

fn parse_python(arguments: &[String]) -> Result<Command> {
    match arguments {
        [flag] if flag == "--binary" => Err("--binary needs the path of a rustydb binary".to_owned()),
        [flag, path, rest @ ..] if flag == "--binary" => {
            Ok(Command::Python { binary: Some(PathBuf::from(path)), pytest_arguments: rest.to_vec() })
        }
        all => Ok(Command::Python { binary: None, pytest_arguments: all.to_vec() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_words(line: &str) -> Result<Command> {
        parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn test_without_arguments_runs_every_step_in_order() {
        assert_eq!(parse_words("test"), Ok(Command::Test { steps: Step::ALL.to_vec() }));
    }

    #[test]
    fn only_and_skip_choose_steps_and_keep_their_order() {
        assert_eq!(parse_words("test --only tidy,fmt"), Ok(Command::Test { steps: vec![Step::Fmt, Step::Tidy] }));
        assert_eq!(
            parse_words("test --skip clippy --skip python,rust"),
            Ok(Command::Test { steps: vec![Step::Fmt, Step::Tidy, Step::Build] })
        );
    }

    #[test]
    fn mistakes_on_the_command_line_are_named() {
        assert!(parse_words("test --only lint").is_err_and(|message| message.contains("lint")));
        assert!(parse_words("test --only").is_err_and(|message| message.contains("needs the name")));
        assert!(parse_words("tset").is_err_and(|message| message.contains("tset")));
    }

    #[test]
    fn python_hands_its_arguments_to_pytest() {
        assert_eq!(
            parse_words("python --binary /tmp/rustydb -k ingest"),
            Ok(Command::Python {
                binary: Some(PathBuf::from("/tmp/rustydb")),
                pytest_arguments: vec!["-k".to_owned(), "ingest".to_owned()]
            })
        );
    }

    #[test]
    fn the_datafusion_job_takes_a_folder_and_a_name() {
        let datafusion = |corpus: Option<&str>, name: Option<&str>| {
            Ok(Command::Datafusion { corpus: corpus.map(PathBuf::from), name: name.map(str::to_owned) })
        };
        assert_eq!(parse_words("datafusion"), datafusion(None, None));
        assert_eq!(parse_words("datafusion joins"), datafusion(None, Some("joins")));
        assert_eq!(parse_words("datafusion ./files"), datafusion(Some("./files"), None));
        assert_eq!(parse_words("datafusion ./files joins"), datafusion(Some("./files"), Some("joins")));
    }

    #[test]
    fn miri_hands_its_arguments_to_the_test_program() {
        let arguments = vec!["--skip".to_owned(), "value".to_owned()];
        assert_eq!(parse_words("miri --skip value"), Ok(Command::Miri { arguments }));
    }

    #[test]
    fn help_names_every_step() {
        for step in Step::ALL {
            assert!(HELP.contains(&format!("\n  {} ", step.name())), "{} is missing in the help", step.name());
        }
    }
}
