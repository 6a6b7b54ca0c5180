//! The steps of `cargo xtask test`: what each runs, in which order, and what the reader is told.
//!
//! Order: the cheap checks first, so that a forgotten `cargo fmt` is known after a second. `clippy` is a check build
//! and shares only build scripts and macros with the others; `build` compiles exactly what `rust` and `python` then
//! run, with the same selection of packages, because another selection would give the dependencies other features and
//! compile them a second time.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::workspace::Workspace;
use crate::{Result, python, tidy};

/// The packages that tests are built from: all but the benchmarks, which no test needs.
pub(crate) const TESTED_PACKAGES: [&str; 3] = ["--workspace", "--exclude", "rustydb-benches"];

/// One step of `cargo xtask test`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Fmt,
    Clippy,
    Tidy,
    Build,
    Rust,
    Python,
}

impl Step {
    pub(crate) const ALL: [Step; 6] = [Step::Fmt, Step::Clippy, Step::Tidy, Step::Build, Step::Rust, Step::Python];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Step::Fmt => "fmt",
            Step::Clippy => "clippy",
            Step::Tidy => "tidy",
            Step::Build => "build",
            Step::Rust => "rust",
            Step::Python => "python",
        }
    }

    pub(crate) fn from_name(name: &str) -> Result<Step> {
        Step::ALL.into_iter().find(|step| step.name() == name).ok_or_else(|| {
            let known: Vec<_> = Step::ALL.into_iter().map(Step::name).collect();
            format!("no step `{name}`; there are {}", known.join(", "))
        })
    }

    fn heading(self) -> &'static str {
        match self {
            Step::Fmt => "rustfmt agrees with every file",
            Step::Clippy => "clippy, all targets of all crates, warnings are errors",
            Step::Tidy => "crate edges and source rules",
            Step::Build => "tests, examples and the rustydb binary (debug)",
            Step::Rust => "Rust tests and doc tests",
            Step::Python => "Python clients against the real server",
        }
    }

    /// Whether the step is pointless when the build failed.
    fn needs_build(self) -> bool {
        matches!(self, Step::Rust | Step::Python)
    }
}

/// How a step ended.
struct Report {
    step: Step,
    result: StepResult,
    elapsed: Duration,
}

enum StepResult {
    /// Passed, with what is worth saying in the summary (`"812 tests"`).
    Passed(String),
    Failed(String),
    Skipped,
}

/// Runs the steps and prints the summary; `false` if one failed.
pub(crate) fn run(workspace: &Workspace, steps: &[Step]) -> Result<bool> {
    let started = Instant::now();
    let mut reports: Vec<Report> = Vec::new();
    for (index, &step) in steps.iter().enumerate() {
        println!("\n=== {}/{} {}: {} ===", index + 1, steps.len(), step.name(), step.heading());
        let step_started = Instant::now();
        let build_failed =
            reports.iter().any(|report| report.step == Step::Build && matches!(report.result, StepResult::Failed(_)));
        let result = if step.needs_build() && build_failed {
            println!("skipped, as the build failed");
            StepResult::Skipped
        } else {
            run_step(workspace, step).unwrap_or_else(|message| {
                eprintln!("{message}");
                StepResult::Failed("could not run".to_owned())
            })
        };
        reports.push(Report { step, result, elapsed: step_started.elapsed() });
    }
    let passed = reports.iter().all(|report| matches!(report.result, StepResult::Passed(_)));
    print_summary(&reports, started.elapsed(), passed);
    Ok(passed)
}

fn run_step(workspace: &Workspace, step: Step) -> Result<StepResult> {
    let cargo = |arguments: &[&str]| {
        let mut command = workspace.cargo();
        command.args(arguments);
        command
    };
    match step {
        Step::Fmt => plain(cargo(&["fmt", "--all", "--check"]), "run `cargo fmt --all`"),
        Step::Clippy => plain(
            cargo(&["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"]),
            "see the warnings above",
        ),
        Step::Tidy => Ok(if tidy::run(workspace)? {
            StepResult::Passed(String::new())
        } else {
            StepResult::Failed("see the findings above".to_owned())
        }),
        Step::Build => plain(build_command(workspace), "see the errors above"),
        Step::Rust => rust_tests(workspace),
        Step::Python => {
            let outcome = python::run(workspace, &build_binary(workspace)?, &[])?;
            Ok(if outcome.success {
                StepResult::Passed(outcome.closing_line)
            } else {
                StepResult::Failed(outcome.closing_line)
            })
        }
    }
}

/// Runs a command whose exit status says it all.
fn plain(mut command: Command, advice: &str) -> Result<StepResult> {
    let status = command.stdin(Stdio::null()).status().map_err(|error| cannot_start(&command, &error))?;
    Ok(if status.success() { StepResult::Passed(String::new()) } else { StepResult::Failed(advice.to_owned()) })
}

fn build_command(workspace: &Workspace) -> Command {
    let mut command = workspace.cargo();
    command.args(["build", "--locked"]).args(TESTED_PACKAGES).arg("--all-targets");
    command
}

/// Makes sure that the debug binary is up to date, and says where it is.
pub(crate) fn build_binary(workspace: &Workspace) -> Result<PathBuf> {
    let mut command = build_command(workspace);
    let status = command.stdin(Stdio::null()).status().map_err(|error| cannot_start(&command, &error))?;
    let binary = workspace.target_directory().join("debug").join("rustydb");
    match status.success() && binary.is_file() {
        true => Ok(binary),
        false => Err(format!("{} was not built", binary.display())),
    }
}

fn rust_tests(workspace: &Workspace) -> Result<StepResult> {
    let mut command = workspace.cargo();
    command.args(["test", "--locked"]).args(TESTED_PACKAGES).arg("--no-fail-fast");
    let mut counts = TestCounts::default();
    let success = echo_lines(&mut command, |line| counts.read(line))?;
    Ok(if success && counts.failed == 0 {
        StepResult::Passed(counts.to_string())
    } else {
        StepResult::Failed(counts.to_string())
    })
}

/// Runs a command, shows its standard output as it comes, and lets `inspect` read each line.
pub(crate) fn echo_lines(command: &mut Command, mut inspect: impl FnMut(&str)) -> Result<bool> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot start {}: {error}", command.get_program().display()))?;
    let output = child.stdout.take().ok_or("the child's output is not a pipe")?;
    let mut terminal = std::io::stdout().lock();
    for line in BufReader::new(output).split(b'\n') {
        let line = line.map_err(|error| format!("cannot read the output of a test: {error}"))?;
        let line = String::from_utf8_lossy(&line);
        // A reader that closed our output is no reason to stop the tests: the exit status still tells.
        let _ = writeln!(terminal, "{line}");
        inspect(&line);
    }
    let status = child.wait().map_err(|error| format!("cannot wait for a test: {error}"))?;
    Ok(status.success())
}

pub(crate) fn cannot_start(command: &Command, error: &std::io::Error) -> String {
    format!("cannot start {}: {error}", command.get_program().display())
}

/// The sums of libtest's closing lines.
#[derive(Debug, Default, PartialEq)]
struct TestCounts {
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl TestCounts {
    /// Adds a line like `test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; …`; other lines count nothing.
    fn read(&mut self, line: &str) {
        let Some(counts) = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". ")) else {
            return;
        };
        for part in counts.1.split("; ") {
            if let Some((number, kind)) = part.split_once(' ') {
                let number = number.parse::<u64>().unwrap_or(0);
                match kind {
                    "passed" => self.passed += number,
                    "failed" => self.failed += number,
                    "ignored" => self.ignored += number,
                    _ => {}
                }
            }
        }
    }
}

impl std::fmt::Display for TestCounts {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} passed, {} failed", self.passed, self.failed)?;
        if self.ignored > 0 {
            write!(formatter, ", {} ignored", self.ignored)?;
        }
        Ok(())
    }
}

fn print_summary(reports: &[Report], elapsed: Duration, passed: bool) {
    println!("\n=== summary ===");
    for report in reports {
        let (word, remark) = match &report.result {
            StepResult::Passed(remark) => ("ok", remark.as_str()),
            StepResult::Failed(remark) => ("FAILED", remark.as_str()),
            StepResult::Skipped => ("skipped", ""),
        };
        let line = format!("{:<8} {word:<8} {:>7.1} s  {remark}", report.step.name(), report.elapsed.as_secs_f64());
        println!("{}", line.trim_end());
    }
    let verdict = if passed { "all steps passed" } else { "FAILED" };
    println!("{verdict} in {:.1} s", elapsed.as_secs_f64());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_of_libtest_are_summed() {
        let mut counts = TestCounts::default();
        counts.read("running 3 tests");
        counts.read("test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s");
        counts.read("test result: FAILED. 4 passed; 2 failed; 1 ignored; 0 measured; 5 filtered out; finished in 1.2s");
        assert_eq!(counts, TestCounts { passed: 7, failed: 2, ignored: 1 });
        assert_eq!(counts.to_string(), "7 passed, 2 failed, 1 ignored");
    }

    #[test]
    fn a_step_is_found_by_the_name_it_prints() {
        for step in Step::ALL {
            assert_eq!(Step::from_name(step.name()), Ok(step));
        }
        assert!(Step::from_name("lint").is_err_and(|message| message.contains("fmt, clippy, tidy")));
    }

    #[test]
    fn a_childs_lines_are_inspected_and_its_status_returned() {
        let mut lines = Vec::new();
        let mut command = Command::new("sh");
        command.args(["-c", "echo one; echo two; exit 3"]);
        assert_eq!(echo_lines(&mut command, |line| lines.push(line.to_owned())), Ok(false));
        assert_eq!(lines, ["one", "two"]);
    }
}
