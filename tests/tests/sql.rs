//! Runs the SQL corpus: each script of `slt/` under each configuration is one test, `default::query/joins`.
//!
//! `cargo test -p rustydb-tests --test sql -- joins` runs those whose names contain `joins`. With `SLT_COMPLETE=1` the
//! scripts chosen are rewritten with the answers of the database, under the first configuration only: a way to write
//! new ones, whose result is read before it is committed.
//!
//! The cases of the isolation scripts in `isolation/` are tests as well: `isolation::flushed::hermitage::…`.
//!
//! With `RUSTYDB_SQLITE_CORPUS`, the folder of SQLite's corpus, its files are the tests instead: `sqlite::select1`. That
//! is what `cargo xtask sqlite` does. With `RUSTYDB_DATAFUSION_CORPUS`, the folder of DataFusion's test files, those are:
//! `datafusion::joins.slt` (`cargo xtask datafusion`).

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use rustydb_tests::{
    Between, Configuration, DatafusionCorpus, Differences, IsolationCase, Promise, check_functions_of_slow_readers,
    check_history, check_references, check_the_checker, check_transfers, run_script, run_sqlite_file,
};
use sqllogictest::harness::{Arguments, Failed, Trial, run};

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    if let Some(corpus) = std::env::var_os("RUSTYDB_SQLITE_CORPUS") {
        return run(&arguments, sqlite_trials(Path::new(&corpus))).exit_code();
    }
    if let Some(corpus) = std::env::var_os("RUSTYDB_DATAFUSION_CORPUS") {
        return run_datafusion(&arguments, Path::new(&corpus));
    }
    let complete = std::env::var_os("SLT_COMPLETE").is_some();
    let configurations = if complete { &Configuration::ALL[..1] } else { &Configuration::ALL[..] };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("slt");
    let scripts = files_below(&root, "slt");
    assert!(!scripts.is_empty(), "no scripts below {}", root.display());
    let mut trials = Vec::new();
    for configuration in configurations.iter().copied() {
        for script in &scripts {
            let name = script.strip_prefix(&root).unwrap_or(script).with_extension("");
            let script = script.clone();
            trials.push(Trial::test(format!("{}::{}", configuration.name(), name.display()), move || {
                block_on(run_script(&script, configuration, complete))
            }));
        }
    }
    if !complete {
        trials.extend(isolation_trials());
        trials.extend(history_trials());
        trials.push(Trial::test("readers::functions", || block_on(check_functions_of_slow_readers())));
    }
    run(&arguments, trials).exit_code()
}

/// One test per case of an isolation script, level, and what happens between its steps.
fn isolation_trials() -> Vec<Trial> {
    let scripts = files_below(&Path::new(env!("CARGO_MANIFEST_DIR")).join("isolation"), "iso");
    let mut trials = Vec::new();
    for script in scripts {
        let file = script.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let cases = IsolationCase::parse(&script).unwrap_or_else(|error| panic!("{error}"));
        for (case, between) in cases.into_iter().flat_map(|case| Between::ALL.map(|between| (case.clone(), between))) {
            let name = format!("isolation::{}::{file}::{}", between.name(), case.name);
            trials.push(Trial::test(name, move || block_on(async move { case.run(between).await })));
        }
    }
    trials
}

/// Random histories at each level; `RUSTYDB_SEEDS=n` makes it n of each, `RUSTYDB_SEED=n` only that one.
fn history_trials() -> Vec<Trial> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds: Vec<u64> = match number("RUSTYDB_SEED") {
        Some(seed) => vec![seed],
        None => (1..=number("RUSTYDB_SEEDS").unwrap_or(5)).collect(),
    };
    let mut trials = vec![Trial::test("history::checker", || Ok(check_the_checker()?))];
    for promise in Promise::ALL {
        let level = promise.level().to_lowercase().replace(' ', "_");
        for seed in &seeds {
            let seed = *seed;
            trials
                .push(Trial::test(format!("history::{level}::{seed}"), move || block_on(check_history(promise, seed))));
        }
        trials.push(Trial::test(format!("history::transfers::{level}"), move || block_on(check_transfers(promise, 1))));
        for seed in &seeds {
            let (name, seed) = (format!("history::references::{level}::{seed}"), *seed);
            trials.push(Trial::test(name, move || block_on(check_references(promise, seed))));
        }
    }
    trials
}

/// One test per file of SQLite's corpus.
fn sqlite_trials(corpus: &Path) -> Vec<Trial> {
    let list = Path::new(env!("CARGO_MANIFEST_DIR")).join("sqlite/differences.txt");
    let list = std::fs::read_to_string(list).expect("the list is in the source tree");
    let differences = Arc::new(Differences::parse(&list).unwrap_or_else(|error| panic!("differences.txt: {error}")));
    let mut trials = Vec::new();
    for file in files_below(corpus, "test") {
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let differences = Arc::clone(&differences);
        trials.push(Trial::test(format!("sqlite::{name}"), move || {
            block_on(async {
                let tally = run_sqlite_file(&file, &differences).await?;
                println!("sqlite::{name}: {} as SQLite, {} known differences", tally.same, tally.different);
                Ok(())
            })
        }));
    }
    trials
}

/// One test per file of DataFusion's, and a summary; the list of differences is checked if all of them were run.
fn run_datafusion(arguments: &Arguments, corpus: &Path) -> ExitCode {
    let list = Path::new(env!("CARGO_MANIFEST_DIR")).join("datafusion/differences.txt");
    let list = std::fs::read_to_string(list).expect("the list is in the source tree");
    let differences = Differences::parse(&list).unwrap_or_else(|error| panic!("differences.txt: {error}"));
    let whole = Arc::new(DatafusionCorpus::new(differences));
    let mut trials = Vec::new();
    for file in files_below(corpus, "slt") {
        let name = file.strip_prefix(corpus).unwrap_or(&file).display().to_string();
        let whole = Arc::clone(&whole);
        trials.push(Trial::test(format!("datafusion::{name}"), move || {
            block_on(async { whole.run(&file, &name).await })
        }));
    }
    let conclusion = run(arguments, trials);
    let (summary, stale) = whole.summary();
    println!("{summary}");
    if conclusion.num_filtered_out == 0 && conclusion.num_failed == 0 && !stale.is_empty() {
        println!("no longer differences:\n{}", stale.join("\n"));
        return ExitCode::FAILURE;
    }
    conclusion.exit_code()
}

fn block_on(test: impl Future<Output = Result<(), String>>) -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(test).map_err(Failed::from)
}

/// All files with an extension, in a stable order.
fn files_below(root: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("the corpus can be read") {
            let path = entry.expect("the corpus can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}
