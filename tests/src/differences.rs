//! Lists of what RustyDB does differently in corpora that others wrote, and why: one difference per line,
//!
//! ```text
//! select4.test | 0A000  | CREATE INDEX     | indexes are not supported yet
//! spark/*      | *      | *                | functions of another system
//! window.slt   | answer | 3 records        | ranges over intervals
//! ```
//! a file (`*` stands for anything at the beginning or the end of its name), what happens instead (an SQLSTATE, `answer` for
//! other rows, `accepted` for a statement that should fail, `error`, or `*`), a part of the statement or of its error
//! (`*` for any, `3 records` for exactly so many that no line before explains), and the reason. A difference without a line
//! fails the job, and so does a line without a difference: the list is true.

use std::fmt::Write as _;

use sqllogictest::{TestError, TestErrorKind};

use crate::ScriptError;

/// A difference that is known and explained.
#[derive(Debug, PartialEq, Eq)]
struct Difference {
    file: String,
    outcome: String,
    pattern: Pattern,
    reason: String,
}

#[derive(Debug, PartialEq, Eq)]
enum Pattern {
    Any,
    Part(String),
    /// So many in each file.
    Records(usize),
}

/// A committed list of differences.
#[derive(Debug)]
pub struct Differences(Vec<Difference>);

impl Differences {
    /// Reads the list: one difference per line, `#` for comments.
    pub fn parse(text: &str) -> Result<Differences, String> {
        let mut differences = Vec::new();
        for (index, line) in text.lines().enumerate() {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let fields: Vec<&str> = line.split(" | ").map(str::trim).collect();
            let [file, outcome, pattern, reason] = fields[..] else {
                return Err(format!("line {}: expected FILE | OUTCOME | PATTERN | REASON", index + 1));
            };
            let pattern = match pattern.strip_suffix(" records").and_then(|count| count.parse().ok()) {
                Some(count) => Pattern::Records(count),
                None if pattern == "*" => Pattern::Any,
                None => Pattern::Part(pattern.to_owned()),
            };
            let (file, outcome, reason) = (file.to_owned(), outcome.to_owned(), reason.to_owned());
            differences.push(Difference { file, outcome, pattern, reason });
        }
        Ok(Differences(differences))
    }

    /// The reason why a file as a whole is not compared, and the place of the line that says so.
    pub(crate) fn skipped(&self, file: &str) -> Option<(usize, &str)> {
        let is_about = |known: &&Difference| matches(&known.file, file);
        let skips = |known: &Difference| known.outcome == "*" && known.pattern == Pattern::Any && known.file != "*";
        let place = self.0.iter().position(|known| is_about(&known) && skips(known))?;
        Some((place, self.0[place].reason.as_str()))
    }

    /// How many lines there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// A line, as it was written.
    pub(crate) fn line(&self, place: usize) -> String {
        let Difference { file, outcome, pattern, reason } = &self.0[place];
        let pattern = match pattern {
            Pattern::Any => "*".to_owned(),
            Pattern::Part(part) => part.clone(),
            Pattern::Records(count) => format!("{count} records"),
        };
        format!("{file} | {outcome} | {pattern} | {reason}")
    }

    /// Whether a line may stand without a difference, because it depends on the speed of the machine.
    pub(crate) fn may_be_absent(&self, place: usize) -> bool {
        self.0[place].outcome == QUERY_CANCELED
    }
}

/// The SQLSTATE of a statement that was cancelled because it took too long.
const QUERY_CANCELED: &str = "57014";

fn matches(pattern: &str, text: &str) -> bool {
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(""), _) => true,
        (Some(end), _) => text.ends_with(end),
        (None, Some(start)) => text.starts_with(start),
        (None, None) => pattern == text,
    }
}

/// How one file of a corpus came out.
#[derive(Debug, Default, Clone, Copy)]
pub struct Tally {
    /// Statements and queries that did what the corpus says.
    pub same: usize,
    /// Those that did not, and are explained.
    pub different: usize,
    /// Those that were not looked at.
    pub skipped: usize,
}

/// What has been seen of one file, against the list of differences.
pub(crate) struct Comparison<'a> {
    differences: &'a Differences,
    /// The lines about this file, by their place, and how often each explained something.
    known: Vec<(usize, usize)>,
    pub(crate) tally: Tally,
    failures: Vec<String>,
}

impl<'a> Comparison<'a> {
    pub(crate) fn new(differences: &'a Differences, file: &str) -> Comparison<'a> {
        let places = (0..differences.0.len()).filter(|place| matches(&differences.0[*place].file, file));
        let known = places.map(|place| (place, 0)).collect();
        Comparison { differences, known, tally: Tally::default(), failures: Vec::new() }
    }

    /// Looks for an explanation of a record that did not do what the corpus says.
    pub(crate) fn note(&mut self, error: &TestError) {
        let (outcome, text) = (outcome(&error.kind()), error.to_string());
        let explains = |known: &Difference, seen: usize| {
            (known.outcome == outcome || known.outcome == "*")
                && match &known.pattern {
                    Pattern::Any => true,
                    Pattern::Part(part) => text.contains(part.as_str()),
                    Pattern::Records(count) => seen < *count,
                }
        };
        let all = &self.differences.0;
        match self.known.iter_mut().find(|(place, seen)| explains(&all[*place], *seen)) {
            Some((_, seen)) => {
                *seen += 1;
                self.tally.different += 1;
            }
            None => self.failures.push(format!("({outcome}) {text}")),
        }
    }

    /// The places of the lines that explained something, and what is wrong: differences without a line, and numbers that
    /// are not right any more.
    pub(crate) fn finish(mut self) -> (Vec<usize>, Result<Tally, String>) {
        for (place, seen) in &self.known {
            if let Pattern::Records(count) = self.differences.0[*place].pattern
                && seen != &count
            {
                self.failures.push(format!("{seen} records and not as {}", self.differences.line(*place)));
            }
        }
        let seen = self.known.iter().filter(|(_, seen)| *seen > 0).map(|(place, _)| *place).collect();
        (seen, if self.failures.is_empty() { Ok(self.tally) } else { Err(report(&self.failures)) })
    }

    /// The same where all lines are about a single file each.
    pub(crate) fn finish_alone(mut self) -> Result<Tally, String> {
        for (place, seen) in &self.known {
            if *seen == 0 && !self.differences.may_be_absent(*place) {
                self.failures.push(format!("no longer a difference: {}", self.differences.line(*place)));
            }
        }
        self.finish().1
    }
}

/// The first failures in full; thousands of them help nobody.
fn report(failures: &[String]) -> String {
    let shown_max = if std::env::var_os("RUSTYDB_ALL_FAILURES").is_some() { usize::MAX } else { 20 };
    let mut text = format!("{} failures\n", failures.len());
    for failure in failures.iter().take(shown_max) {
        let _ = writeln!(text, "{failure}");
    }
    text
}

/// What happened instead of what the script says, in the words of the lists.
fn outcome(kind: &TestErrorKind) -> String {
    match kind {
        TestErrorKind::Ok { .. } => "accepted".to_owned(),
        TestErrorKind::Fail { err, .. } => match err.downcast_ref::<ScriptError>() {
            Some(error) => error.sqlstate().to_owned(),
            None => "error".to_owned(),
        },
        _ => "answer".to_owned(),
    }
}
