//! `cargo xtask tidy`: rules of the code base that no compiler knows.
//!
//! - [`edges`]: which crate may depend on which, in the workspace and outside of it.
//! - [`source`]: what every source file keeps: a head that says what it is for, no leftovers, a readable length.
//! - [`links`]: links between the Markdown pages lead somewhere.
//!
//! [`mask`] lets the source rules look at code without being fooled by what stands in strings and comments.

mod edges;
mod links;
mod mask;
mod source;

use std::path::{Path, PathBuf};

use crate::Result;
use crate::workspace::Workspace;

/// One broken rule, printed as `place: message`.
#[derive(Debug, PartialEq)]
struct Finding {
    /// `path:line`, or the path of a manifest.
    place: String,
    message: String,
}

/// Checks everything and prints what it finds; `false` if there was anything.
pub(crate) fn run(workspace: &Workspace) -> Result<bool> {
    let packages = edges::packages(workspace.metadata())?;
    let mut findings = edges::check(&packages);
    for package in &packages {
        check_sources(workspace.root(), &package.directory, &mut findings)?;
    }
    links::check(workspace.root(), &markdown_files(workspace.root())?, &mut findings)?;
    for finding in &findings {
        println!("{}: {}", finding.place, finding.message);
    }
    match findings.len() {
        0 => println!("tidy: {} crates, nothing to say", packages.len()),
        count => println!("tidy: {count} findings"),
    }
    Ok(findings.is_empty())
}

/// Applies the source rules to the Rust files of a crate: `src` strictly, tests and examples as far as they concern all.
fn check_sources(root: &Path, crate_directory: &Path, findings: &mut Vec<Finding>) -> Result<()> {
    for (folder, kind) in [
        ("src", source::Kind::Product),
        ("tests", source::Kind::Test),
        ("examples", source::Kind::Test),
        ("benches", source::Kind::Test),
    ] {
        let mut files = Vec::new();
        for path in files_below(&crate_directory.join(folder), "rs")? {
            let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            files.push((path, source::SourceFile::new(text, kind)));
        }
        // A module declared under `#[cfg(test)]` is test code wherever its file lies.
        let test_files: Vec<PathBuf> = files.iter().flat_map(|(path, file)| file.test_modules(path)).collect();
        for (path, file) in &files {
            let place = path.strip_prefix(root).unwrap_or(path);
            let is_test = test_files.iter().any(|test| path.starts_with(test) || *path == test.with_extension("rs"));
            file.check(&place.display().to_string(), is_test, findings);
        }
    }
    Ok(())
}

/// The project's own pages.
fn markdown_files(root: &Path) -> Result<Vec<PathBuf>> {
    let mut files = files_below(&root.join("docs"), "md")?;
    for name in ["README.md", "CONTRIBUTING.md"] {
        files.push(root.join(name));
    }
    Ok(files)
}

/// All files with an extension below a folder, in a stable order; none if the folder does not exist.
fn files_below(folder: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        if !folder.is_dir() {
            continue;
        }
        let entries = std::fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        for entry in entries {
            let path = entry.map_err(|error| format!("{}: {error}", folder.display()))?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}
