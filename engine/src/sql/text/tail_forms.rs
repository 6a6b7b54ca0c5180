//! Clauses about the order of rows in forms of PostgreSQL's that the parser refuses, rewritten among the tokens.
//!
//! | written | read as |
//! |---|---|
//! | `ORDER BY a USING >` | `ORDER BY a DESC` |
//! | `FETCH FIRST 2 ROWS ONLY OFFSET 1` | `OFFSET 1 FETCH FIRST 2 ROWS ONLY` |
//! | `RANGE '1 year'::interval PRECEDING` | `RANGE '1 year' PRECEDING` |

use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Whitespace};

/// Rewrites the forms, wherever they are.
pub(in crate::sql) fn rewrite_tails(mut tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let is_first = |token: &TokenWithSpan| {
        matches!(keyword(&token.token), Keyword::USING | Keyword::FETCH | Keyword::PRECEDING | Keyword::FOLLOWING)
    };
    if !tokens.iter().any(is_first) {
        return tokens;
    }
    let written: Vec<usize> =
        (0..tokens.len()).filter(|index| !matches!(tokens[*index].token, Token::Whitespace(_))).collect();
    let mut moved: Vec<(usize, usize, usize)> = Vec::new();
    for (place, index) in written.iter().enumerate() {
        match keyword(&tokens[*index].token) {
            Keyword::USING => write_order(&mut tokens, *index, written.get(place + 1).copied()),
            Keyword::PRECEDING | Keyword::FOLLOWING => drop_type(&mut tokens, &written[..place]),
            Keyword::FETCH => moved.extend(offset_behind(&tokens, &written[place..])),
            _ => {}
        }
    }
    // Those of inner queries first: they may be inside of what is moved.
    for (fetch, offset, end) in moved.into_iter().rev() {
        tokens[fetch..end].rotate_left(offset - fetch);
    }
    tokens
}

/// `USING <` is ASC, `USING >` is DESC.
fn write_order(tokens: &mut [TokenWithSpan], using: usize, operator: Option<usize>) {
    let Some(operator) = operator else { return };
    let order = match tokens[operator].token {
        Token::Lt => "ASC",
        Token::Gt => "DESC",
        _ => return,
    };
    tokens[using].token = Token::make_keyword(order);
    tokens[operator].token = Token::Whitespace(Whitespace::Space);
}

/// Takes the type from a constant that says how far a frame reaches: it is that of the order.
fn drop_type(tokens: &mut [TokenWithSpan], before: &[usize]) {
    let [.., constant, colons, name] = before else { return };
    let is_constant = match &tokens[*constant].token {
        Token::SingleQuotedString(_) => true,
        Token::Number(digits, false) => digits.bytes().all(|digit| digit.is_ascii_digit()),
        _ => false,
    };
    let is_cast = tokens[*colons].token == Token::DoubleColon && matches!(tokens[*name].token, Token::Word(_));
    if is_constant && is_cast {
        for index in [*colons, *name] {
            tokens[index].token = Token::Whitespace(Whitespace::Space);
        }
    }
}

/// Where a FETCH begins, the OFFSET behind it, and what comes after that.
fn offset_behind(tokens: &[TokenWithSpan], written: &[usize]) -> Option<(usize, usize, usize)> {
    let token = |place: usize| written.get(place).map(|index| &tokens[*index].token);
    let word = |place: usize| token(place).map_or(Keyword::NoKeyword, keyword);
    if !matches!(word(1), Keyword::FIRST | Keyword::NEXT) {
        return None;
    }
    // What ends a clause that begins at `place`, outside of parentheses.
    let end_of = |mut place: usize, ends: &[Keyword]| {
        let mut depth = 0usize;
        while let Some(found) = token(place) {
            match found {
                Token::LParen => depth += 1,
                Token::RParen if depth == 0 => break,
                Token::RParen => depth -= 1,
                Token::SemiColon => break,
                found if depth == 0 && ends.contains(&keyword(found)) => break,
                _ => {}
            }
            place += 1;
        }
        place
    };
    let last = end_of(2, &[Keyword::ONLY, Keyword::TIES]);
    let offset = last + 1;
    if word(offset) != Keyword::OFFSET {
        return None;
    }
    let end = end_of(offset + 1, &[Keyword::FOR, Keyword::ON, Keyword::RETURNING, Keyword::WITH]);
    let end = written.get(end).copied().unwrap_or(tokens.len());
    Some((*written.first()?, *written.get(offset)?, end))
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

    fn rewritten(sql: &str) -> String {
        let tokens = rewrite_tails(tokenize(sql).unwrap());
        let text: String = tokens.iter().map(|token| format!("{} ", token.token)).collect();
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn orders_by_operators_are_words() {
        assert_eq!(
            rewritten("select a from t order by a using > nulls last, b using <"),
            "select a from t order by a DESC nulls last , b ASC"
        );
        assert_eq!(rewritten("select * from t join u using (a)"), "select * from t join u using ( a )");
    }

    #[test]
    fn distances_of_frames_have_no_types() {
        assert_eq!(
            rewritten("range between '1 year'::interval preceding and 2::int following"),
            "range between '1 year' preceding and 2 following"
        );
        assert_eq!(rewritten("rows 1.5::int preceding"), "rows 1.5 :: int preceding");
    }

    #[test]
    fn offsets_come_before_fetch() {
        for (sql, expected) in [
            ("select 1 fetch first 2 rows only offset 1 row;", "select 1 offset 1 row fetch first 2 rows only ;"),
            (
                "(select 1 fetch next row only offset (1) ) limit 1",
                "( select 1 offset ( 1 ) fetch next row only ) limit 1",
            ),
            (
                "select 1 fetch first 1 row with ties offset 1 for update",
                "select 1 offset 1 fetch first 1 row with ties for update",
            ),
            (
                "create table c as select 1 fetch first 2 rows only offset 1 with no data",
                "create table c as select 1 offset 1 fetch first 2 rows only with no data",
            ),
            ("select 1 offset 1 fetch first row only", "select 1 offset 1 fetch first row only"),
            ("fetch first from c", "fetch first from c"),
        ] {
            assert_eq!(rewritten(sql), expected, "{sql}");
        }
    }
}
