//! Forms of PostgreSQL that are mended among the tokens of a statement, before it is parsed.
//!
//! | written | read as | because |
//! |---|---|---|
//! | `5-+3`, `a<-1` | `5 - +3`, `a < -1` | the tokenizer takes the signs for a part of the operator |
//! | `f(x := 1)` | `f(x => 1)` | the parser takes it for an assignment |
//! | `(t).a`, `(t).*`, `(t.*).a` | `t.a`, `t.*`, `t.a` | the planner knows fields of columns only, and not of what is in parentheses |
//! | `(VALUES (1))` as a value, behind IN, ANY, ALL or EXISTS | `(SELECT * FROM (VALUES (1)) AS "values")` | the parser knows only SELECT there |

use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Whitespace};

/// Ends operators before signs where PostgreSQL does: an operator of several characters ends in `+` or `-` only if it has
/// one of the characters below.
pub(in crate::sql) fn operators_apart(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let has_signs = |token: &TokenWithSpan| match &token.token {
        Token::CustomBinaryOperator(operator) => signs_behind(operator) > 0,
        _ => false,
    };
    if !tokens.iter().any(has_signs) {
        return tokens;
    }
    let mut apart = Vec::with_capacity(tokens.len() + 1);
    for token in tokens {
        match &token.token {
            Token::CustomBinaryOperator(operator) => {
                let (operator, signs) = operator.split_at(operator.len() - signs_behind(operator));
                let signs = signs.chars().map(|sign| if sign == '+' { Token::Plus } else { Token::Minus });
                let parts = std::iter::once(operator_token(operator)).chain(signs);
                apart.extend(parts.map(|part| TokenWithSpan::new(part, token.span)));
            }
            _ => apart.push(token),
        }
    }
    apart
}

/// How many signs at the end of an operator are none of its own.
fn signs_behind(operator: &str) -> usize {
    if operator.contains(['~', '!', '@', '#', '%', '^', '&', '|', '?', '`']) || operator.contains("--") {
        return 0;
    }
    let rest = operator.trim_end_matches(['+', '-']);
    // What is left is an operator of at least one character.
    operator.len().saturating_sub(rest.len().max(1))
}

fn operator_token(operator: &str) -> Token {
    match operator {
        "<" => Token::Lt,
        ">" => Token::Gt,
        "=" => Token::Eq,
        "<=" => Token::LtEq,
        ">=" => Token::GtEq,
        "<>" => Token::Neq,
        "*" => Token::Mul,
        "/" => Token::Div,
        "+" => Token::Plus,
        "-" => Token::Minus,
        other => Token::CustomBinaryOperator(other.to_owned()),
    }
}

/// Names arguments by arrows. What else assigns in that way is no SQL.
pub(in crate::sql) fn named_by_arrows(mut tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    for token in tokens.iter_mut().filter(|token| token.token == Token::Assignment) {
        token.token = Token::RArrow;
    }
    tokens
}

/// Takes the parentheses from the names of relations, and of columns, whose fields are asked for.
pub(in crate::sql) fn fields_by_name(mut tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let mut behind_parenthesis = false;
    let has_fields = tokens.iter().filter(|token| !matches!(token.token, Token::Whitespace(_))).any(|token| {
        let is_field = behind_parenthesis && token.token == Token::Period;
        behind_parenthesis = token.token == Token::RParen;
        is_field
    });
    if !has_fields {
        return tokens;
    }
    let written: Vec<usize> =
        (0..tokens.len()).filter(|index| !matches!(tokens[*index].token, Token::Whitespace(_))).collect();
    let token = |place: usize| written.get(place).map(|index| &tokens[*index].token);
    let is_word = |place: usize| matches!(token(place), Some(Token::Word(_)));
    let mut dropped: Vec<usize> = Vec::new();
    for opening in (0..written.len()).filter(|place| token(*place) == Some(&Token::LParen)) {
        if opening > 0 && token(opening - 1).is_some_and(calls) {
            continue;
        }
        let mut name = opening + 1;
        while is_word(name) && token(name + 1) == Some(&Token::Period) && is_word(name + 2) {
            name += 2;
        }
        let starred = token(name + 1) == Some(&Token::Period) && token(name + 2) == Some(&Token::Mul);
        let closing = if starred { name + 3 } else { name + 1 };
        let has_field = is_word(closing + 2) || token(closing + 2) == Some(&Token::Mul);
        if is_word(name)
            && token(closing) == Some(&Token::RParen)
            && token(closing + 1) == Some(&Token::Period)
            && has_field
        {
            dropped.push(opening);
            dropped.extend(name + 1..=closing);
        }
    }
    let dropped: Vec<usize> = dropped.into_iter().map(|place| written[place]).collect();
    for index in dropped {
        tokens[index].token = Token::Whitespace(Whitespace::Space);
    }
    tokens
}

/// Whether a parenthesis behind a token begins the arguments of a call, or a list.
fn calls(token: &Token) -> bool {
    match token {
        Token::Word(word) => {
            let begins_value = [
                Keyword::SELECT,
                Keyword::DISTINCT,
                Keyword::ALL,
                Keyword::RETURNING,
                Keyword::WHERE,
                Keyword::ON,
                Keyword::BY,
                Keyword::HAVING,
                Keyword::AND,
                Keyword::OR,
                Keyword::NOT,
                Keyword::CASE,
                Keyword::WHEN,
                Keyword::THEN,
                Keyword::ELSE,
                Keyword::BETWEEN,
                Keyword::LIKE,
                Keyword::FROM,
            ];
            word.quote_style.is_some() || !begins_value.contains(&word.keyword)
        }
        Token::RParen | Token::RBracket => true,
        _ => false,
    }
}

/// Makes queries of the VALUES that stand where a value does.
pub(in crate::sql) fn values_as_subqueries(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let is_values = |token: &TokenWithSpan| keyword(&token.token) == Keyword::VALUES;
    if !tokens.iter().any(is_values) {
        return tokens;
    }
    let written: Vec<usize> =
        (0..tokens.len()).filter(|index| !matches!(tokens[*index].token, Token::Whitespace(_))).collect();
    // The parentheses around such VALUES.
    let mut wrapped: Vec<(usize, usize)> = Vec::new();
    for (place, pair) in written.windows(2).enumerate() {
        let [opening, values] = *pair else { continue };
        let has_row = written.get(place + 2).is_some_and(|row| tokens[*row].token == Token::LParen);
        if tokens[opening].token != Token::LParen || !is_values(&tokens[values]) || !has_row {
            continue;
        }
        let before = |distance: usize| place.checked_sub(distance).map(|place| &tokens[written[place]].token);
        if !wants_value(before(1), before(2)) {
            continue;
        }
        let mut depth = 0;
        let closing = written[place..].iter().find(|index| {
            match tokens[**index].token {
                Token::LParen => depth += 1,
                Token::RParen => depth -= 1,
                _ => {}
            }
            depth == 0
        });
        if let Some(closing) = closing {
            wrapped.push((opening, *closing));
        }
    }
    if wrapped.is_empty() {
        return tokens;
    }
    let mut rewritten = Vec::with_capacity(tokens.len() + 7 * wrapped.len());
    for (index, token) in tokens.into_iter().enumerate() {
        let span = token.span;
        if wrapped.iter().any(|(_, closing)| *closing == index) {
            let alias = [Token::RParen, Token::make_keyword("AS"), Token::make_word("values", Some('"'))];
            rewritten.extend(alias.into_iter().map(|part| TokenWithSpan::new(part, span)));
        }
        rewritten.push(token);
        if wrapped.iter().any(|(opening, _)| *opening == index) {
            let query = [Token::make_keyword("SELECT"), Token::Mul, Token::make_keyword("FROM"), Token::LParen];
            rewritten.extend(query.into_iter().map(|part| TokenWithSpan::new(part, span)));
        }
    }
    rewritten
}

/// Whether a parenthesis after these tokens, the last one first, begins a value or what one is compared with.
fn wants_value(last: Option<&Token>, before: Option<&Token>) -> bool {
    match last.map(keyword) {
        Some(Keyword::ANY | Keyword::SOME | Keyword::ALL) => before.is_some_and(is_operator),
        Some(
            Keyword::SELECT
            | Keyword::IN
            | Keyword::EXISTS
            | Keyword::WHERE
            | Keyword::HAVING
            | Keyword::AND
            | Keyword::OR
            | Keyword::NOT
            | Keyword::CASE
            | Keyword::WHEN
            | Keyword::THEN
            | Keyword::ELSE
            | Keyword::BETWEEN,
        ) => true,
        Some(_) => last.is_some_and(is_operator),
        None => false,
    }
}

fn is_operator(token: &Token) -> bool {
    matches!(
        token,
        Token::Eq
            | Token::Neq
            | Token::Lt
            | Token::Gt
            | Token::LtEq
            | Token::GtEq
            | Token::Plus
            | Token::Minus
            | Token::Div
            | Token::Mod
            | Token::StringConcat
            | Token::CustomBinaryOperator(_)
    )
}

fn keyword(token: &Token) -> Keyword {
    match token {
        Token::Word(word) if word.quote_style.is_none() => word.keyword,
        _ => Keyword::NoKeyword,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::text::parse::tokenize;

    fn text(tokens: Vec<TokenWithSpan>) -> String {
        tokens.iter().map(|token| token.token.to_string()).collect()
    }

    #[test]
    fn operators_end_before_signs() {
        for (operator, signs) in
            [("-+", 1), ("<-", 1), ("<=-", 1), ("+-+", 2), ("@-", 0), ("->", 0), ("+--", 0), ("-", 0)]
        {
            assert_eq!(signs_behind(operator), signs, "{operator}");
        }
        let tokens = operators_apart(tokenize("a-+b").unwrap());
        assert!(tokens.iter().any(|token| token.token == Token::Minus), "{tokens:?}");
        assert!(tokens.iter().any(|token| token.token == Token::Plus), "{tokens:?}");
    }

    #[test]
    fn arguments_are_named_by_arrows() {
        assert_eq!(text(named_by_arrows(tokenize("f(x := 1)").unwrap())), "f(x => 1)");
    }

    #[test]
    fn fields_are_those_of_a_name() {
        for (sql, expected) in [
            ("select (t).a, (t) . *, (s.t).a", "select t.a, t. *, s.t.a"),
            ("where (t.*).a = (x).b", "where t.a = x.b"),
            ("select f(t).a, count(t.*)", "select f(t).a, count(t.*)"),
            ("select (a + b).c, (row(1, 2)).f1", "select (a + b).c, (row(1, 2)).f1"),
        ] {
            let tokens = fields_by_name(tokenize(sql).unwrap());
            let words = |text: &str| text.split(' ').collect::<String>();
            assert_eq!(words(&text(tokens)), words(expected), "{sql}");
        }
    }

    #[test]
    fn values_are_queries_where_a_value_stands() {
        for (sql, becomes) in [
            ("select (values (1))", true),
            ("select 1 > all (values (1), (2))", true),
            ("select exists (values (1))", true),
            ("select 1 union all (values (1), (2))", false),
            ("select * from (values (1)) v", false),
            ("insert into t (values (1))", false),
        ] {
            let rewritten = text(values_as_subqueries(tokenize(sql).unwrap()));
            assert_eq!(rewritten.contains("AS\"values\")"), becomes, "{rewritten}");
        }
    }
}
