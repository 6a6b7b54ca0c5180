//! What every Rust file keeps.
//!
//! - it opens with `//!`: what it is for;
//! - at most [`LINES_MAX`] lines, the point where a file holds more than one idea;
//! - no leftovers: notes to do something later, unfinished macros, switched-off tests;
//! - `unsafe` in `storage/src/kernel` only;
//! - no `.unwrap()` in what ships: a proven invariant is an `expect` that says why, the rest is an error.

use std::path::{Path, PathBuf};

use super::Finding;
use super::mask::mask;

const LINES_MAX: usize = 1_000;

/// The one folder that may hold `unsafe`, each block measured and argued.
const KERNEL: &str = "storage/src/kernel";

/// Written in two halves: this file obeys its own rules.
const LEFTOVER_WORDS: [&str; 3] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];

const LEFTOVER_CODE: [(&str, &str); 4] = [
    ("todo!", "unfinished code"),
    ("unimplemented!", "unfinished code"),
    ("dbg!", "a print left over from debugging"),
    ("#[ignore", "a test that is switched off: fix it or remove it"),
];

/// Which rules apply to a file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    /// Below `src`.
    Product,
    /// Below `tests`, `examples` or `benches`.
    Test,
}

/// A file's text, as it is and with comments and literals blanked out.
pub(super) struct SourceFile {
    text: String,
    code: String,
    kind: Kind,
}

impl SourceFile {
    pub(super) fn new(text: String, kind: Kind) -> SourceFile {
        let code = mask(&text);
        SourceFile { text, code, kind }
    }

    /// The files (without extension) of the modules that this file declares under `#[cfg(test)]`.
    pub(super) fn test_modules(&self, path: &Path) -> Vec<PathBuf> {
        let folder = match path.file_stem().and_then(|stem| stem.to_str()) {
            // The modules of `lib.rs`, `main.rs` and `mod.rs` are their neighbours; those of `name.rs` lie in `name/`.
            Some("lib" | "main" | "mod") => path.with_file_name(""),
            _ => path.with_extension(""),
        };
        let mut modules = Vec::new();
        for (_, rest) in test_attributes(&self.code) {
            let declaration = rest.split([';', '{']).next().unwrap_or_default();
            let is_file = rest[declaration.len()..].starts_with(';');
            if let (true, Some((_, name))) = (is_file, declaration.split_once("mod ")) {
                modules.push(folder.join(name.trim()));
            }
        }
        modules
    }

    /// Reports what the file breaks. `is_test_module`: some other file declares it under `#[cfg(test)]`.
    pub(super) fn check(&self, place: &str, is_test_module: bool, findings: &mut Vec<Finding>) {
        let mut report = |line: usize, message: String| {
            findings.push(Finding { place: format!("{place}:{line}"), message });
        };
        let opening = self.text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
        if !opening.starts_with("//!") {
            report(1, "a file opens with `//!`: what it is for and what it keeps true".to_owned());
        }
        let line_count = self.text.lines().count();
        if line_count > LINES_MAX {
            report(line_count, format!("{line_count} lines; over {LINES_MAX} is a sign to split"));
        }
        for word in LEFTOVER_WORDS {
            for position in words(&self.text, word) {
                report(line_of(&self.text, position), format!("`{word}`: do it, or write an issue"));
            }
        }
        for (pattern, why) in LEFTOVER_CODE {
            for (position, _) in self.code.match_indices(pattern) {
                if !continues_word(&self.code, position) {
                    report(line_of(&self.code, position), format!("`{pattern}`: {why}"));
                }
            }
        }
        if !place.starts_with(KERNEL) {
            for position in words(&self.code, "unsafe") {
                report(line_of(&self.code, position), format!("`unsafe` lives in {KERNEL} only"));
            }
        }
        if self.kind == Kind::Product && !is_test_module && !self.code.contains("#![cfg(test)]") {
            let test_regions: Vec<_> =
                test_attributes(&self.code).map(|(start, rest)| (start, item_end(rest))).collect();
            for (position, _) in self.code.match_indices(".unwrap()") {
                if !test_regions.iter().any(|&(start, length)| (start..start + length).contains(&position)) {
                    let message = "`.unwrap()`: return an error, or `expect` with the reason why it cannot fail";
                    report(line_of(&self.code, position), message.to_owned());
                }
            }
        }
    }
}

/// Every `#[cfg(test)]` with the offset and text behind it.
fn test_attributes(code: &str) -> impl Iterator<Item = (usize, &str)> {
    code.match_indices("#[cfg(test)]").map(|(position, attribute)| {
        let start = position + attribute.len();
        (start, &code[start..])
    })
}

/// The length of the item at the beginning of `code`: up to its `;`, or to the brace that closes its first one.
fn item_end(code: &str) -> usize {
    let mut depth = 0_usize;
    for (position, character) in code.char_indices() {
        match character {
            ';' if depth == 0 => return position,
            '{' => depth += 1,
            '}' if depth <= 1 => return position,
            '}' => depth -= 1,
            _ => {}
        }
    }
    code.len()
}

/// Where `word` stands as a whole word.
fn words<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    text.match_indices(word).map(|(position, _)| position).filter(move |&position| {
        let after = text[position + word.len()..].chars().next();
        !continues_word(text, position) && !after.is_some_and(is_word_character)
    })
}

fn continues_word(text: &str, position: usize) -> bool {
    text[..position].chars().next_back().is_some_and(is_word_character)
}

fn is_word_character(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

fn line_of(text: &str, position: usize) -> usize {
    text[..position].matches('\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The places and first words of what is found in a product file.
    fn findings(text: &str) -> Vec<String> {
        findings_at("engine/src/plan.rs", text, Kind::Product, false)
    }

    fn findings_at(place: &str, text: &str, kind: Kind, is_test_module: bool) -> Vec<String> {
        let mut findings = Vec::new();
        SourceFile::new(text.to_owned(), kind).check(place, is_test_module, &mut findings);
        findings
            .into_iter()
            .map(|finding| {
                let line = finding.place.rsplit(':').next().unwrap_or_default().to_owned();
                format!("{line} {}", finding.message.split([':', ' ']).next().unwrap_or_default())
            })
            .collect()
    }

    #[test]
    fn a_clean_file_has_no_findings() {
        assert_eq!(findings("//! Plans.\n\n/// Says `unsafe` and .unwrap() in words.\nfn plan() {}\n"), [""; 0]);
    }

    #[test]
    fn a_file_must_open_with_its_purpose() {
        assert_eq!(findings("use std::fs;\n"), ["1 a"]);
        assert_eq!(findings(""), ["1 a"]);
        assert_eq!(findings("\n//! Late but there.\n"), [""; 0]);
    }

    #[test]
    fn leftovers_are_found_in_comments_and_code() {
        let word = LEFTOVER_WORDS[0];
        assert_eq!(findings(&format!("//! Head.\n// {word}: later\n")), [format!("2 `{word}`")]);
        assert_eq!(findings(&format!("//! Head.\nfn {word}S() {{}}\n")), [""; 0]);
        assert_eq!(findings("//! Head.\nfn f() {\n    todo!()\n}\n"), ["3 `todo!`"]);
        assert_eq!(findings("//! Head.\n#[test]\n#[ignore]\nfn f() {}\n"), ["3 `#[ignore`"]);
        assert_eq!(findings("//! Head.\nconst HELP: &str = \"todo! is fine in a text\";\n"), [""; 0]);
    }

    #[test]
    fn long_files_are_found() {
        assert_eq!(findings(&format!("//! Head.\n{}", "\n".repeat(LINES_MAX - 1))), [""; 0]);
        assert_eq!(findings(&format!("//! Head.\n{}", "\n".repeat(LINES_MAX))), ["1001 1001"]);
    }

    #[test]
    fn unsafe_is_for_the_kernel() {
        let text = "//! Head.\nfn f() {\n    unsafe { g() }\n}\n";
        assert_eq!(findings(text), ["3 `unsafe`"]);
        assert_eq!(findings_at("storage/src/kernel/unpack.rs", text, Kind::Product, false), [""; 0]);
        assert_eq!(findings("//! Head.\n#![deny(unsafe_code)]\n"), [""; 0]);
    }

    #[test]
    fn unwrap_is_for_tests() {
        let inline =
            "//! Head.\nfn f() { g().unwrap(); }\n#[cfg(test)]\nmod tests {\n    fn h() { g().unwrap(); }\n}\n";
        assert_eq!(findings(inline), ["2 `.unwrap()`"]);
        let after = "//! Head.\n#[cfg(test)]\nfn h() { g().unwrap(); }\nfn f() { g().unwrap(); }\n";
        assert_eq!(findings(after), ["4 `.unwrap()`"]);
        assert_eq!(findings_at("engine/src/plan/tests.rs", inline, Kind::Product, true), [""; 0]);
        assert_eq!(findings_at("engine/tests/plan.rs", inline, Kind::Test, false), [""; 0]);
    }

    #[test]
    fn test_modules_are_found_by_their_declaration() {
        let file = SourceFile::new("//! Head.\n#[cfg(test)]\nmod tests;\nmod real;\n".to_owned(), Kind::Product);
        assert_eq!(file.test_modules(Path::new("a/src/lib.rs")), [PathBuf::from("a/src/tests")]);
        assert_eq!(file.test_modules(Path::new("a/src/plan.rs")), [PathBuf::from("a/src/plan/tests")]);
        let inline = SourceFile::new("//! Head.\n#[cfg(test)]\nmod tests {}\n".to_owned(), Kind::Product);
        assert!(inline.test_modules(Path::new("a/src/lib.rs")).is_empty());
    }
}
