//! What a statement is, by its first word: the little that this crate has to know of SQL.
//!
//! Tools put comments before statements, to find them again in a log, so the first word is the first one outside of them.

/// The first word of a statement; empty if it begins with none.
pub(crate) fn first_word(sql: &str) -> &str {
    let mut rest = sql;
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_whitespace() || matches!(c, '(' | ';'));
        rest = match (rest.strip_prefix("--"), rest.strip_prefix("/*")) {
            (Some(comment), _) => comment.split_once('\n').map_or("", |(_, after)| after),
            (_, Some(comment)) => after_comment(comment),
            (None, None) => break,
        };
    }
    let end = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
    &rest[..end]
}

/// What comes after a comment that has begun; comments may hold others.
fn after_comment(comment: &str) -> &str {
    let (bytes, mut depth, mut at) = (comment.as_bytes(), 1, 0);
    while depth > 0 {
        match bytes.get(at..at + 2) {
            Some(b"/*") => (depth, at) = (depth + 1, at + 2),
            Some(b"*/") => (depth, at) = (depth - 1, at + 2),
            Some(_) => at += 1,
            None => return "",
        }
    }
    // Behind a slash a character begins.
    &comment[at..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_are_passed_over() {
        for (sql, word) in [
            ("COMMIT", "COMMIT"),
            ("  commit;", "commit"),
            ("-- from a tool\n--\nCOMMIT", "COMMIT"),
            ("/* a /* nested */ ü */(SELECT 1)", "SELECT"),
            ("/**/ /***/ END", "END"),
            (";\n-- x\r\n; ROLLBACK TO SAVEPOINT a", "ROLLBACK"),
            ("SELECT/* x */1", "SELECT"),
            ("SELECT1", "SELECT"),
            ("- COMMIT", ""),
            ("/ COMMIT", ""),
            ("\"commit\"", ""),
            ("", ""),
            ("--", ""),
            ("-- COMMIT", ""),
            ("/* COMMIT", ""),
            ("/*/ COMMIT", ""),
            ("/* COMMIT *", ""),
            ("/* /* */ COMMIT", ""),
        ] {
            assert_eq!(first_word(sql), word, "{sql}");
        }
    }
}
