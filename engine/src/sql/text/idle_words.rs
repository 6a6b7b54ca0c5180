//! Words of PostgreSQL that say nothing here, left out before a statement is parsed.
//!
//! | written | read as | because |
//! |---|---|---|
//! | `CREATE UNLOGGED TABLE t` | `CREATE TABLE t` | the table lasts longer than it need |
//! | `pg_catalog.lower(x)` | `lower(x)` | the functions of SQL are in no schema |

use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

/// Leaves out words that say nothing here.
pub(in crate::sql) fn without_idle_words(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let word = |index: usize, wanted: &str| match tokens.get(index).map(|token| &token.token) {
        Some(Token::Word(word)) => word.quote_style.is_none() && word.value.eq_ignore_ascii_case(wanted),
        _ => false,
    };
    if !(0..tokens.len()).any(|index| word(index, "unlogged") || word(index, "pg_catalog")) {
        return tokens;
    }
    let written: Vec<usize> =
        (0..tokens.len()).filter(|index| !matches!(tokens[*index].token, Token::Whitespace(_))).collect();
    let mut idle: Vec<usize> = Vec::new();
    if let [create, unlogged, table, ..] = written[..]
        && word(create, "create")
        && word(unlogged, "unlogged")
        && word(table, "table")
    {
        idle.push(unlogged);
    }
    for (place, index) in written.iter().enumerate() {
        let before = place.checked_sub(1).map(|before| &tokens[written[before]].token);
        if word(*index, "pg_catalog") && !names_relation(before) && is_call(&tokens[index + 1..]) {
            idle.extend([*index, index + 1]);
        }
    }
    if idle.is_empty() {
        return tokens;
    }
    let kept = tokens.into_iter().enumerate().filter(|(index, _)| !idle.contains(index));
    kept.map(|(_, token)| token).collect()
}

/// Whether these are a point, a name and a parenthesis.
fn is_call(tokens: &[TokenWithSpan]) -> bool {
    match tokens {
        [point, name, opening, ..] => {
            point.token == Token::Period && matches!(name.token, Token::Word(_)) && opening.token == Token::LParen
        }
        _ => false,
    }
}

/// Whether a name with a parenthesis behind it is that of a table or a definition after this token.
fn names_relation(before: Option<&Token>) -> bool {
    match before {
        Some(Token::Period) => true,
        Some(Token::Word(word)) => {
            let named = [
                Keyword::INTO,
                Keyword::TABLE,
                Keyword::VIEW,
                Keyword::EXISTS,
                Keyword::REFERENCES,
                Keyword::ONLY,
                Keyword::FUNCTION,
                Keyword::PROCEDURE,
                Keyword::COPY,
            ];
            word.quote_style.is_none() && named.contains(&word.keyword)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::text::parse::tokenize;

    #[test]
    fn idle_words_are_left_out() {
        for (sql, expected) in [
            ("create unlogged table t (i int)", "create  table t (i int)"),
            ("select unlogged from t", "select unlogged from t"),
            ("select pg_catalog.lower(a), pg_catalog.b", "select lower(a), pg_catalog.b"),
            ("insert into pg_catalog.t(a) select 1", "insert into pg_catalog.t(a) select 1"),
        ] {
            let kept = without_idle_words(tokenize(sql).unwrap());
            assert_eq!(kept.iter().map(|token| token.token.to_string()).collect::<String>(), expected);
        }
    }
}
