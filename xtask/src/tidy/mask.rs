//! A look at Rust source with the insides of comments and literals blanked out.
//!
//! Invariant: the result has the same length in characters and the same line breaks as the source, so that positions
//! found in it are positions in the file. This is a lexer for four things only (comments, strings, characters, the rest);
//! where real Rust is subtler, it may blank too little, never shift a line.

/// Replaces what stands in comments, strings and character literals by spaces.
pub(super) fn mask(source: &str) -> String {
    let characters: Vec<char> = source.chars().collect();
    let mut masked = String::with_capacity(source.len());
    let mut position = 0;
    while position < characters.len() {
        let end = literal_end(&characters, position);
        if end == position {
            masked.push(characters[position]);
            position += 1;
        } else {
            masked
                .extend(characters[position..end].iter().map(|&character| if character == '\n' { '\n' } else { ' ' }));
            position = end;
        }
    }
    masked
}

/// Where the comment or literal that starts here ends; `start` itself if none does.
fn literal_end(characters: &[char], start: usize) -> usize {
    let at = |offset: usize| characters.get(start + offset).copied();
    match (at(0), at(1)) {
        (Some('/'), Some('/')) => find(characters, start, '\n'),
        (Some('/'), Some('*')) => block_comment_end(characters, start),
        (Some('"'), _) => string_end(characters, start),
        (Some('r'), Some('"' | '#')) if !is_inside_word(characters, start) => raw_string_end(characters, start),
        (Some('\''), _) => character_end(characters, start),
        _ => start,
    }
}

/// Whether the character before is part of a word, so that this `r` does not begin a raw string. The `b` and `c` of
/// `br"…"` and `cr"…"` do not count.
fn is_inside_word(characters: &[char], position: usize) -> bool {
    let is_word = |offset: usize| {
        position
            .checked_sub(offset)
            .is_some_and(|place| characters[place].is_alphanumeric() || characters[place] == '_')
    };
    match position.checked_sub(1).map(|place| characters[place]) {
        Some('b' | 'c') => is_word(2),
        _ => is_word(1),
    }
}

fn find(characters: &[char], start: usize, wanted: char) -> usize {
    characters[start..].iter().position(|&found| found == wanted).map_or(characters.len(), |offset| start + offset)
}

/// Block comments nest in Rust.
fn block_comment_end(characters: &[char], start: usize) -> usize {
    let mut depth = 0_usize;
    let mut position = start;
    while position < characters.len() {
        match (characters[position], characters.get(position + 1)) {
            ('/', Some('*')) => {
                depth += 1;
                position += 2;
            }
            ('*', Some('/')) => {
                depth -= 1;
                position += 2;
                if depth == 0 {
                    return position;
                }
            }
            _ => position += 1,
        }
    }
    characters.len()
}

fn string_end(characters: &[char], start: usize) -> usize {
    let mut position = start + 1;
    while position < characters.len() {
        match characters[position] {
            '\\' => position += 2,
            '"' => return position + 1,
            _ => position += 1,
        }
    }
    characters.len()
}

/// `r"…"`, `r#"…"#`; a raw identifier (`r#type`) is no string.
fn raw_string_end(characters: &[char], start: usize) -> usize {
    let hashes = characters[start + 1..].iter().take_while(|&&found| found == '#').count();
    let quote = start + 1 + hashes;
    if characters.get(quote) != Some(&'"') {
        return start;
    }
    let mut position = quote + 1;
    while position < characters.len() {
        let closing = &characters[position + 1..];
        if characters[position] == '"' && closing.iter().take(hashes).filter(|&&found| found == '#').count() == hashes {
            return position + 1 + hashes;
        }
        position += 1;
    }
    characters.len()
}

/// `'x'` and `'\n'` are characters, `'static` is a lifetime.
fn character_end(characters: &[char], start: usize) -> usize {
    match (characters.get(start + 1), characters.get(start + 2)) {
        (Some('\\'), Some(_)) => (find(characters, start + 3, '\'') + 1).min(characters.len()),
        (Some(_), Some('\'')) => start + 3,
        _ => start,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blanked_and_code_is_kept() {
        let cases = [
            ("a // b\nc", "a     \nc"),
            ("a /* b /* c */ d */ e", "a                   e"),
            (r#"f("x \" y") + 1"#, "f(        ) + 1"),
            ("f(r#\"x \" y\"#) + 1", "f(          ) + 1"),
            ("let c = 'x'; let l: &'static str;", "let c =    ; let l: &'static str;"),
            (r"let c = '\''; d", "let c =     ; d"),
            ("let r#type = 1;", "let r#type = 1;"),
            ("var\"x\"", "var   "),
        ];
        for (source, expected) in cases {
            assert_eq!(mask(source), expected, "{source}");
        }
    }

    #[test]
    fn line_breaks_survive_in_what_is_blanked() {
        let source = "/* a\nb */ x \"c\nd\" r\"\n\" 'e'";
        let masked = mask(source);
        assert_eq!(masked.matches('\n').count(), 3);
        assert_eq!(masked.chars().count(), source.chars().count());
        assert_eq!(masked.trim(), "x");
    }

    #[test]
    fn unfinished_literals_end_with_the_file() {
        for source in ["\"abc", "/* abc", "r#\"abc", "'", "'\\", "\"abc\\", "r#"] {
            assert_eq!(mask(source).chars().count(), source.chars().count(), "{source}");
        }
    }
}
