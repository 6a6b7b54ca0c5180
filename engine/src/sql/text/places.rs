//! Where in a statement the thing is that an error is about, for errors that come from places which know no text.
//!
//! The planner's trees carry positions of columns and tables only, and its messages name functions, operators and types.
//! Here the name is looked for in the tokens of the statement. A wrong place is worse than none: where the statement has
//! the same thing several times and the error may be about any of them, it gets no position.

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Word};

use super::parse::tokenize;
use crate::error::{sqlstate, translate_position as position_of};
use crate::{Error, Position};

/// What an error is about.
#[derive(Debug, PartialEq, Eq)]
enum Subject<'a> {
    /// A literal.
    Value(&'a str),
    /// A call of a function that does not exist at all.
    UnknownFunction(&'a str),
    /// A call of a function with these types.
    Call(&'a str),
    Operator(&'a str),
    /// What stands behind WHERE, HAVING or ON.
    Condition,
    Cast,
}

/// Gives an error the place of what it is about, if it has none yet.
pub(crate) fn place_subject(error: Error, sql: &str) -> Error {
    if error.position().is_some() {
        return error;
    }
    let Some(subject) = subject(&error) else { return error };
    let mut tokens = tokenize(sql).unwrap_or_default();
    // Comments are whitespace, too.
    tokens.retain(|token| !matches!(token.token, Token::Whitespace(_)));
    let position = find(&subject, &tokens);
    error.at(position)
}

fn subject(error: &Error) -> Option<Subject<'_>> {
    if let Some(value) = error.value() {
        return Some(Subject::Value(value));
    }
    let message = error.message();
    match error.sqlstate() {
        sqlstate::UNDEFINED_FUNCTION => {
            if let Some(operands) = message.strip_prefix("operator does not exist: ") {
                return operator_in(operands);
            }
            let name = message.strip_prefix("function ")?.strip_suffix(" does not exist")?;
            match name.strip_prefix('"') {
                Some(name) => Some(Subject::UnknownFunction(name.strip_suffix('"')?)),
                None => Some(Subject::Call(name.split_once('(')?.0)),
            }
        }
        sqlstate::TYPE_MISMATCH => {
            if let Some(operands) = message.strip_prefix("operator does not exist: ") {
                operator_in(operands)
            } else if message.starts_with("a condition must be boolean") {
                Some(Subject::Condition)
            } else if message.starts_with("cannot cast type ") {
                Some(Subject::Cast)
            } else {
                None
            }
        }
        _ => None,
    }
}

/// The operator of `integer + boolean`.
fn operator_in(operands: &str) -> Option<Subject<'_>> {
    operands.split(' ').find(|word| is_operator(word)).map(Subject::Operator)
}

fn is_operator(word: &str) -> bool {
    const WORDS: [&str; 5] = ["AND", "OR", "LIKE", "ILIKE", "NOT"];
    WORDS.contains(&word) || (!word.is_empty() && word.chars().all(|letter| "+-*/%=<>!|&#^~@".contains(letter)))
}

fn find(subject: &Subject<'_>, tokens: &[TokenWithSpan]) -> Option<Position> {
    let follows = |index: usize, wanted: &Token| tokens.get(index + 1).is_some_and(|next| next.token == *wanted);
    let calls = |name: &str| -> Vec<usize> {
        let is_call = |index: &usize| match &tokens[*index].token {
            Token::Word(word) => same_name(word, name) && follows(*index, &Token::LParen),
            _ => false,
        };
        (0..tokens.len()).filter(is_call).collect()
    };
    let all = |is_meant: &dyn Fn(usize, &Token) -> bool| -> Vec<usize> {
        (0..tokens.len()).filter(|index| is_meant(*index, &tokens[*index].token)).collect()
    };
    let found = match subject {
        Subject::Value(value) => {
            let wanted = plain_number(value);
            let found = tokens.iter().position(|token| match &token.token {
                Token::SingleQuotedString(text) => text == value,
                Token::Number(digits, _) => plain_number(digits) == wanted,
                _ => false,
            });
            return found.and_then(|index| position_of(tokens[index].span.start));
        }
        Subject::UnknownFunction(name) => calls(name).into_iter().take(1).collect(),
        Subject::Call(name) => calls(name),
        Subject::Operator(operator) => all(&|_, token| same_operator(token, operator)),
        Subject::Condition => {
            let behind = all(&|_, token| ["WHERE", "HAVING", "ON"].iter().any(|word| is_keyword(token, word)));
            behind.into_iter().map(|index| index + 1).collect()
        }
        Subject::Cast => all(&|index, token| {
            *token == Token::DoubleColon || (is_keyword(token, "CAST") && follows(index, &Token::LParen))
        }),
    };
    match found.as_slice() {
        [only] => tokens.get(*only).and_then(|token| position_of(token.span.start)),
        _ => None,
    }
}

fn is_keyword(token: &Token, keyword: &str) -> bool {
    matches!(token, Token::Word(word) if word.quote_style.is_none() && word.value.eq_ignore_ascii_case(keyword))
}

fn same_name(word: &Word, name: &str) -> bool {
    match word.quote_style {
        None => word.value.eq_ignore_ascii_case(name),
        Some(_) => word.value == name,
    }
}

fn same_operator(token: &Token, operator: &str) -> bool {
    match token {
        Token::Word(_) => is_keyword(token, operator),
        // It prints as it was not written.
        Token::Neq => matches!(operator, "<>" | "!="),
        token => token.to_string() == operator,
    }
}

/// A number without its sign, and without what a cast adds to its end.
fn plain_number(digits: &str) -> &str {
    let digits = digits.trim_start_matches('-');
    match digits.contains('.') {
        true => digits.trim_end_matches('0').trim_end_matches('.'),
        false => digits,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(state: &'static str, message: &str, sql: &str) -> Option<u64> {
        place_subject(Error::new(state, message), sql).position().map(|position| position.column)
    }

    #[test]
    fn the_thing_an_error_names_is_found() {
        for (state, message, sql, expected) in [
            ("42883", "function \"foo\" does not exist", "select 1, /* foo( */ foo (2)", Some(22)),
            ("42883", "function \"foo\" does not exist", "select foo(1) + foo(2)", Some(8)),
            ("42883", "function sum(text) does not exist", "select sum, SUM('a')", Some(13)),
            ("42883", "function sum(text) does not exist", "select sum(1), sum('a')", None),
            ("42883", "operator does not exist: integer + boolean", "select id + true from t", Some(11)),
            ("42883", "operator does not exist: integer != date", "select id <> d from t", Some(11)),
            ("42804", "operator does not exist: text AND boolean", "select 'and' and true", Some(14)),
            ("42883", "operator does not exist: text + bigint", "select 1 + 2, 'a' + 3", None),
            ("42804", "a condition must be boolean, not integer", "select 1 from t where id", Some(23)),
            ("42804", "a condition must be boolean, not integer", "select 1 from t join u on x where id", None),
            ("42804", "cannot cast type boolean to date", "select true::date", Some(12)),
            ("42804", "cannot cast type boolean to date", "select cast(true as date)", Some(8)),
            ("42804", "something else", "select 1", None),
        ] {
            assert_eq!(column(state, message, sql), expected, "{sql}");
        }
    }

    #[test]
    fn a_value_is_found_as_it_is_written() {
        let error = Error::new("22P02", "invalid input").with_value("1.50");
        assert_eq!(place_subject(error, "select 1, 1.5").position().map(|position| position.column), Some(11));
    }
}
