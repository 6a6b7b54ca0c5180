//! Links between the project's Markdown pages lead to files and headings that exist.
//!
//! Only relative links are checked: a test that asks the network about the rest would fail with the network.

use std::path::{Path, PathBuf};

use super::Finding;
use crate::Result;

/// Checks the links of all `pages`.
pub(super) fn check(root: &Path, pages: &[PathBuf], findings: &mut Vec<Finding>) -> Result<()> {
    for page in pages {
        if !page.exists() {
            let place = page.strip_prefix(root).unwrap_or(page).display().to_string();
            findings.push(Finding { place, message: "the page is missing".to_owned() });
            continue;
        }
        let text = read(page)?;
        for (line, target) in links(&text) {
            let (path, anchor) = match target.split_once('#') {
                Some((path, anchor)) => (path, Some(anchor)),
                None => (target, None),
            };
            let file = if path.is_empty() { page.clone() } else { page.with_file_name("").join(path) };
            let problem = if !file.exists() {
                Some("no such file".to_owned())
            } else {
                match anchor.filter(|_| file.extension().is_some_and(|extension| extension == "md")) {
                    Some(anchor) if !headings(&read(&file)?).contains(&anchor.to_owned()) => {
                        Some(format!("no heading `#{anchor}` there"))
                    }
                    _ => None,
                }
            };
            if let Some(problem) = problem {
                let place = page.strip_prefix(root).unwrap_or(page).display();
                findings
                    .push(Finding { place: format!("{place}:{line}"), message: format!("link `{target}`: {problem}") });
            }
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// The relative links of a page with their lines, outside of code blocks.
fn links(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (line, content) in prose_lines(text) {
        let mut rest = content;
        while let Some((_, behind)) = rest.split_once("](") {
            let Some((target, after)) = behind.split_once(')') else {
                break;
            };
            if !target.contains("://") && !target.starts_with("mailto:") {
                found.push((line, target));
            }
            rest = after;
        }
    }
    found
}

/// The anchors of a page's headings, as the code hosts make them: lower case, blanks become hyphens, no punctuation.
fn headings(text: &str) -> Vec<String> {
    prose_lines(text)
        .filter(|(_, line)| line.starts_with('#'))
        .map(|(_, line)| {
            let title = line.trim_start_matches('#').trim().to_lowercase();
            let kept = title.chars().filter(|character| character.is_alphanumeric() || " -_".contains(*character));
            kept.map(|character| if character == ' ' { '-' } else { character }).collect()
        })
        .collect()
}

/// The numbered lines outside of fenced code.
fn prose_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut in_code = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
            return None;
        }
        (!in_code).then_some((index + 1, line))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_found_outside_of_code_and_only_if_relative() {
        let text = "See [a](b.md) and [c](d.md#e).\n```\n[x](y)\n```\n[web](https://example.org) [here](#top)\n";
        assert_eq!(links(text), [(1, "b.md"), (1, "d.md#e"), (5, "#top")]);
    }

    #[test]
    fn headings_become_anchors() {
        let text = "# The `store`: one copy\n```\n# no heading\n```\n## Life of a COMMIT\n";
        assert_eq!(headings(text), ["the-store-one-copy", "life-of-a-commit"]);
    }

    #[test]
    fn dead_links_are_reported_with_their_line() {
        let root = std::env::temp_dir().join(format!("rustydb-xtask-links-{}", std::process::id()));
        std::fs::create_dir_all(&root).expect("a scratch folder");
        let page = root.join("page.md");
        std::fs::write(&page, "# Here\n[good](#here) [bad](#there)\n[gone](gone.md)\n").expect("a scratch file");
        let mut findings = Vec::new();
        let outcome = check(&root, &[page], &mut findings);
        std::fs::remove_dir_all(&root).expect("the scratch folder is ours");
        assert_eq!(outcome, Ok(()));
        let places: Vec<_> = findings.iter().map(|finding| finding.place.as_str()).collect();
        assert_eq!(places, ["page.md:2", "page.md:3"]);
    }
}
