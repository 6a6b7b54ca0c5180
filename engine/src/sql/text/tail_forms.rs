//! Clauses about the order of rows in forms of PostgreSQL's that the parser refuses, rewritten among the tokens.
//!
//! | written | read as |
//! |---|---|
//! | `ORDER BY a USING >` | `ORDER BY a DESC` |
//! | `FETCH FIRST 2 ROWS ONLY OFFSET 1` | `OFFSET 1 FETCH FIRST 2 ROWS ONLY` |
//! | `FETCH FIRST (SELECT n) ROWS ONLY`, also of what else is more than a constant | `LIMIT ((SELECT n))` |
//! | `FETCH FIRST (n + 1) ROWS WITH TIES` | `LIMIT with_ties((n + 1))` |
//! | `RANGE '1 year'::interval PRECEDING` | `RANGE '1 year' PRECEDING` |
//! | `ROWS 1 PRECEDING EXCLUDE NO OTHERS` | `ROWS 1 PRECEDING` |

use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Whitespace};

use crate::sql::rules::limits::WITH_TIES;

/// The FETCHes that may be in a computed number of rows. With more, the parser says what is wrong.
const NESTED_MAX: usize = 16;

/// Rewrites the forms, wherever they are.
pub(in crate::sql) fn rewrite_tails(mut tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let is_first = |token: &TokenWithSpan| {
        matches!(
            keyword(&token.token),
            Keyword::USING | Keyword::FETCH | Keyword::PRECEDING | Keyword::FOLLOWING | Keyword::EXCLUDE
        )
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
            Keyword::EXCLUDE => drop_empty_exclusion(&mut tokens, &written[place..]),
            Keyword::FETCH => moved.extend(offset_behind(&tokens, &written[place..])),
            _ => {}
        }
    }
    // Those of inner queries first: they may be inside of what is moved.
    for (fetch, offset, end) in moved.into_iter().rev() {
        tokens[fetch..end].rotate_left(offset - fetch);
    }
    fetch_computed(tokens)
}

/// Writes a FETCH of a computed number of rows as a LIMIT: behind FETCH FIRST the parser takes one token.
fn fetch_computed(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let written: Vec<usize> =
        (0..tokens.len()).filter(|index| !matches!(tokens[*index].token, Token::Whitespace(_))).collect();
    let mut replaced: Vec<(usize, Vec<Token>)> = Vec::new();
    for (place, index) in written.iter().enumerate() {
        if keyword(&tokens[*index].token) == Keyword::FETCH {
            replaced.extend(as_limit(&tokens, &written[place..]).into_iter().flatten());
        }
    }
    if replaced.is_empty() {
        return tokens;
    }
    replaced.sort_by_key(|(index, _)| *index);
    let mut replaced = replaced.into_iter().peekable();
    let mut rewritten = Vec::with_capacity(tokens.len() + 1);
    for (index, token) in tokens.into_iter().enumerate() {
        match replaced.next_if(|(place, _)| *place == index) {
            Some((_, parts)) => rewritten.extend(parts.into_iter().map(|part| TokenWithSpan::new(part, token.span))),
            None => rewritten.push(token),
        }
    }
    rewritten
}

/// What stands in the places of the words of a FETCH, which is the first of these tokens; `None` if the parser knows it.
fn as_limit(tokens: &[TokenWithSpan], written: &[usize]) -> Option<Vec<(usize, Vec<Token>)>> {
    let index = |place: usize| written.get(place).copied();
    let token = |place: usize| index(place).map(|index| &tokens[index].token);
    let word = |place: usize| token(place).map_or(Keyword::NoKeyword, keyword);
    if !matches!(word(1), Keyword::FIRST | Keyword::NEXT) {
        return None;
    }
    let (mut rows, mut depth, mut within) = (2, 0_usize, 0);
    loop {
        // Each FETCH looks for its end: so no token is looked at by more of them than may be in each other.
        within += usize::from(word(rows) == Keyword::FETCH);
        if within > NESTED_MAX {
            return None;
        }
        match token(rows)? {
            Token::LParen | Token::LBracket => depth += 1,
            Token::RParen | Token::RBracket => depth = depth.checked_sub(1)?,
            Token::SemiColon => return None,
            found if depth == 0 && matches!(keyword(found), Keyword::ROW | Keyword::ROWS) => break,
            _ => {}
        }
        rows += 1;
    }
    let has_ties = word(rows + 1) == Keyword::WITH && word(rows + 2) == Keyword::TIES;
    let is_whole = has_ties || word(rows + 1) == Keyword::ONLY;
    // No number of rows, or a constant.
    if rows < 4 || !is_whole || word(rows - 1) == Keyword::PERCENT {
        return None;
    }
    let mut opening = vec![Token::LParen];
    if has_ties {
        opening.insert(0, Token::make_word(WITH_TIES, None));
    }
    let mut replaced = vec![
        (index(0)?, vec![Token::make_keyword("LIMIT")]),
        (index(1)?, opening),
        (index(rows)?, vec![Token::RParen]),
        (index(rows + 1)?, Vec::new()),
    ];
    if has_ties {
        replaced.push((index(rows + 2)?, Vec::new()));
    }
    Some(replaced)
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

/// Leaves out that a frame excludes no rows.
fn drop_empty_exclusion(tokens: &mut [TokenWithSpan], written: &[usize]) {
    let is_word = |index: usize, wanted: &str| match &tokens[index].token {
        Token::Word(word) => word.quote_style.is_none() && word.value.eq_ignore_ascii_case(wanted),
        _ => false,
    };
    let [exclude, no, others, ..] = written else { return };
    if is_word(*no, "no") && is_word(*others, "others") {
        for index in [*exclude, *no, *others] {
            tokens[index].token = Token::Whitespace(Whitespace::Space);
        }
    }
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
        assert_eq!(rewritten("(rows 1 preceding exclude no others)"), "( rows 1 preceding )");
        assert_eq!(rewritten("rows 1 preceding exclude ties"), "rows 1 preceding exclude ties");
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

    #[test]
    fn a_computed_number_of_rows_is_a_limit() {
        for (sql, expected) in [
            ("select 1 fetch first (select 2) rows only;", "select 1 LIMIT ( ( select 2 ) ) ;"),
            ("select 1 fetch next(1+$1)row only offset 2", "select 1 offset 2 LIMIT ( ( 1 + $1 ) )"),
            ("select 1 fetch first (a) rows with ties", "select 1 LIMIT with_ties ( ( a ) )"),
            ("select 1 fetch first 2 rows with ties", "select 1 fetch first 2 rows with ties"),
            ("select 1 fetch first 2 + 1 percent rows only", "select 1 fetch first 2 + 1 percent rows only"),
            ("(select 1 fetch first) rows only", "( select 1 fetch first ) rows only"),
        ] {
            assert_eq!(rewritten(sql), expected, "{sql}");
        }
    }
}
