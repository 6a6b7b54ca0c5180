//! The parts of INSERT that sqlparser does not have: what a conflict is about, if it is more than a list of columns, and
//! OVERRIDING.
//!
//! ```text
//! ON CONFLICT (lower(a), b) WHERE c DO …   ⇒   ON CONFLICT ON CONSTRAINT "␀lower(a), b␀c" DO …
//! INSERT INTO t OVERRIDING SYSTEM VALUE …  ⇒   INSERT INTO "␀SYSTEM".t …
//! … THEN INSERT (a) OVERRIDING SYSTEM VALUE …  ⇒   … THEN INSERT ("␀SYSTEM", a) …
//! ```
//! Names with a NUL in them cannot be written, so nobody else has them.

use datafusion::sql::sqlparser::ast::{Expr, Ident, ObjectName, ObjectNamePart};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Word};

use crate::Result;
use crate::sql::text::parse::{RustyDialect, parse_expression, tokenize};

const MARK: char = '\0';

/// What OVERRIDING says of values for identity columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Overriding {
    /// They are taken.
    System,
    /// The identity's own are taken.
    User,
}

/// Rewrites both.
pub(crate) fn rewrite_inserts(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let is_insert = |token: &TokenWithSpan| keyword(token) == Some(Keyword::INSERT);
    if !tokens.iter().any(is_insert) {
        return tokens;
    }
    rewrite_targets(rewrite_overriding(tokens))
}

fn keyword(token: &TokenWithSpan) -> Option<Keyword> {
    match &token.token {
        Token::Word(word) if word.quote_style.is_none() => Some(word.keyword),
        _ => None,
    }
}

fn is_word(token: &TokenWithSpan, wanted: &str) -> bool {
    matches!(&token.token, Token::Word(word) if word.quote_style.is_none() && word.value.eq_ignore_ascii_case(wanted))
}

/// The places of the next tokens from `at` on that are no white space.
fn visible(tokens: &[TokenWithSpan], at: usize) -> impl Iterator<Item = usize> + '_ {
    (at..tokens.len()).filter(|place| !matches!(tokens[*place].token, Token::Whitespace(_)))
}

fn marked(text: String, like: &TokenWithSpan) -> TokenWithSpan {
    let word = Word { value: text, quote_style: Some('"'), keyword: Keyword::NoKeyword };
    TokenWithSpan::new(Token::Word(word), like.span)
}

fn rewrite_overriding(mut tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let mut into = None;
    // The INSERT of a MERGE, which names no table.
    let mut action = None;
    let mut at = 0;
    while at < tokens.len() {
        match keyword(&tokens[at]) {
            Some(Keyword::INTO) => (into, action) = (Some(at), None),
            Some(Keyword::INSERT) => action = Some(at),
            _ => {}
        }
        let words: Vec<usize> = visible(&tokens, at).take(3).collect();
        let what = match words.as_slice() {
            [first, second, third]
                if *first == at && is_word(&tokens[at], "overriding") && is_word(&tokens[*third], "value") =>
            {
                ["SYSTEM", "USER"].into_iter().find(|what| is_word(&tokens[*second], what)).map(|what| (what, *third))
            }
            _ => None,
        };
        match (what, into) {
            (Some((what, end)), _) if let Some(insert) = action => {
                tokens.drain(at..=end);
                let span = tokens[insert].span;
                let token = |token| TokenWithSpan::new(token, span);
                let mark = marked(format!("{MARK}{what}"), &tokens[insert]);
                let next = visible(&tokens, insert + 1).next();
                match next {
                    Some(open) if tokens[open].token == Token::LParen => {
                        let comma = token(Token::Comma);
                        tokens.splice(open + 1..open + 1, [mark, comma]);
                    }
                    _ => {
                        let (open, close) = (token(Token::LParen), token(Token::RParen));
                        tokens.splice(insert + 1..insert + 1, [open, mark, close]);
                    }
                }
            }
            (Some((what, end)), Some(into)) => {
                tokens.drain(at..=end);
                let mark = marked(format!("{MARK}{what}"), &tokens[into]);
                let period = TokenWithSpan::new(Token::Period, tokens[into].span);
                let name = visible(&tokens, into + 1).next();
                if let Some(name) = name {
                    tokens.splice(name..name, [mark, period]);
                }
            }
            _ => at += 1,
        }
    }
    tokens
}

fn rewrite_targets(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let mut rewritten = Vec::with_capacity(tokens.len());
    let mut at = 0;
    while at < tokens.len() {
        let target = match keyword(&tokens[at]) {
            Some(Keyword::CONFLICT) => read_target(&tokens, at + 1),
            _ => None,
        };
        rewritten.push(tokens[at].clone());
        at += 1;
        if let Some((text, end)) = target {
            let token = |token| TokenWithSpan::new(token, tokens[at].span);
            rewritten.extend(
                [Keyword::ON, Keyword::CONSTRAINT]
                    .map(|word| token(Token::make_keyword(if word == Keyword::ON { "ON" } else { "CONSTRAINT" }))),
            );
            rewritten.push(marked(text, &tokens[at]));
            at = end;
        }
    }
    rewritten
}

/// A conflict target that is not just a list of columns, and where it ends: at DO.
fn read_target(tokens: &[TokenWithSpan], at: usize) -> Option<(String, usize)> {
    let open = visible(tokens, at).next().filter(|place| tokens[*place].token == Token::LParen)?;
    let mut depth = 0;
    let close = (open..tokens.len()).find(|place| {
        match tokens[*place].token {
            Token::LParen => depth += 1,
            Token::RParen => depth -= 1,
            _ => {}
        }
        depth == 0
    })?;
    let text = |part: &[TokenWithSpan]| part.iter().map(|token| token.token.to_string()).collect::<String>();
    let after = visible(tokens, close + 1).next()?;
    let simple = |token: &TokenWithSpan| matches!(token.token, Token::Word(_) | Token::Comma | Token::Whitespace(_));
    if keyword(&tokens[after]) == Some(Keyword::WHERE) {
        let end = (after..tokens.len()).find(|place| keyword(&tokens[*place]) == Some(Keyword::DO))?;
        return Some((format!("{MARK}{}{MARK}{}", text(&tokens[open + 1..close]), text(&tokens[after + 1..end])), end));
    }
    match tokens[open + 1..close].iter().all(simple) {
        true => None,
        false => Some((format!("{MARK}{}", text(&tokens[open + 1..close])), after)),
    }
}

/// What a conflict is about: expressions, and the rows that are meant.
pub(crate) struct Inference {
    pub(crate) keys: Vec<Expr>,
    pub(crate) predicate: Option<Expr>,
}

/// The conflict target behind a constraint's name, if it stands for one.
pub(crate) fn inference(name: &ObjectName) -> Result<Option<Inference>> {
    let [ObjectNamePart::Identifier(Ident { value, .. })] = name.0.as_slice() else { return Ok(None) };
    let Some(text) = value.strip_prefix(MARK) else { return Ok(None) };
    let (keys, predicate) = match text.split_once(MARK) {
        Some((keys, predicate)) => (keys, Some(parse_expression(predicate)?)),
        None => (text, None),
    };
    let mut parser = Parser::new(&RustyDialect).with_tokens_with_locations(tokenize(keys)?);
    let keys = parser.parse_comma_separated(|parser| parser.parse_expr())?;
    parser.expect_token(&Token::EOF)?;
    Ok(Some(Inference { keys, predicate }))
}

/// Takes OVERRIDING out of the name of the table it was put into.
pub(crate) fn take_overriding(name: &mut ObjectName) -> Option<Overriding> {
    let overriding = match name.0.first() {
        Some(ObjectNamePart::Identifier(Ident { value, .. })) => match value.strip_prefix(MARK)? {
            "SYSTEM" => Overriding::System,
            _ => Overriding::User,
        },
        _ => return None,
    };
    name.0.remove(0);
    Some(overriding)
}

/// Takes OVERRIDING out of the list of columns of a MERGE's INSERT.
pub(crate) fn overriding_in(mut columns: Vec<ObjectName>) -> (Option<Overriding>, Vec<ObjectName>) {
    let overriding = columns.first_mut().and_then(take_overriding);
    if overriding.is_some() {
        columns.remove(0);
    }
    (overriding, columns)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(sql: &str) -> String {
        let tokens = rewrite_inserts(tokenize(sql).unwrap());
        tokens.iter().map(|token| token.token.to_string()).collect::<String>().replace(MARK, "^")
    }

    #[test]
    fn conflicts_over_expressions_become_names() {
        for (sql, expected) in [
            (
                "INSERT INTO t VALUES (1) ON CONFLICT (lower(a), b) WHERE c > 1 DO NOTHING",
                "INSERT INTO t VALUES (1) ON CONFLICTONCONSTRAINT\"^lower(a), b^ c > 1 \"DO NOTHING",
            ),
            (
                "INSERT INTO t VALUES (1) ON CONFLICT (a) DO NOTHING",
                "INSERT INTO t VALUES (1) ON CONFLICT (a) DO NOTHING",
            ),
            ("INSERT INTO s.t (a) OVERRIDING SYSTEM VALUE VALUES (1)", "INSERT INTO \"^SYSTEM\".s.t (a)  VALUES (1)"),
            ("THEN INSERT (a) OVERRIDING USER VALUE VALUES (1)", "THEN INSERT (\"^USER\",a)  VALUES (1)"),
            ("THEN INSERT OVERRIDING SYSTEM VALUE VALUES (1)", "THEN INSERT(\"^SYSTEM\")  VALUES (1)"),
        ] {
            assert_eq!(rewritten(sql), expected);
        }
    }
}
