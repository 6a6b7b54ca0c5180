//! Joins whose condition stands behind the joins inside of them: `a LEFT JOIN b JOIN c ON b.i = c.i ON a.i = b.i` is read as
//! `a LEFT JOIN (b JOIN c ON b.i = c.i) ON a.i = b.i`. The parser takes a join's condition to follow its right side; in
//! PostgreSQL a condition is that of the last join that has none yet.

use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

/// A join that waits for its condition.
struct Join {
    /// Where its JOIN is among the tokens.
    index: usize,
    /// Whether there are joins on its right side.
    is_around: bool,
}

/// Puts parentheses around what is joined before a late condition.
pub(in crate::sql) fn joins_in_parentheses(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    if tokens.iter().filter(|token| keyword(&token.token) == Keyword::JOIN).count() < 2 {
        return tokens;
    }
    let written: Vec<usize> =
        (0..tokens.len()).filter(|index| !matches!(tokens[*index].token, Token::Whitespace(_))).collect();
    // For each parenthesis that is open, the innermost last.
    let mut waiting: Vec<Vec<Join>> = vec![Vec::new()];
    let mut parentheses: Vec<(usize, Token)> = Vec::new();
    for (place, index) in written.iter().enumerate() {
        let token = &tokens[*index].token;
        match token {
            Token::LParen => waiting.push(Vec::new()),
            Token::RParen if waiting.len() > 1 => drop(waiting.pop()),
            _ => {}
        }
        let Some(joins) = waiting.last_mut() else { continue };
        match keyword(token) {
            Keyword::JOIN => {
                if let Some(around) = joins.last_mut() {
                    around.is_around = true;
                }
                if has_condition(&tokens, &written[..place]) {
                    joins.push(Join { index: *index, is_around: false });
                }
            }
            Keyword::ON | Keyword::USING => {
                if let Some(Join { index: join, is_around: true }) = joins.pop() {
                    parentheses.extend([(join + 1, Token::LParen), (*index, Token::RParen)]);
                }
            }
            Keyword::SELECT => joins.clear(),
            _ => {}
        }
    }
    if parentheses.is_empty() {
        return tokens;
    }
    parentheses.sort_by_key(|(index, _)| *index);
    let mut parentheses = parentheses.into_iter().peekable();
    let mut mended = Vec::with_capacity(tokens.len() + parentheses.len());
    for (index, token) in tokens.into_iter().enumerate() {
        while let Some((_, parenthesis)) = parentheses.next_if(|(before, _)| *before == index) {
            mended.push(TokenWithSpan::new(parenthesis, token.span));
        }
        mended.push(token);
    }
    mended
}

/// Whether the join whose JOIN follows these tokens has a condition: no CROSS and no NATURAL JOIN has.
fn has_condition(tokens: &[TokenWithSpan], before: &[usize]) -> bool {
    let mut words = before.iter().rev().map(|index| keyword(&tokens[*index].token));
    let kinds = [Keyword::INNER, Keyword::LEFT, Keyword::RIGHT, Keyword::FULL, Keyword::OUTER];
    !matches!(words.find(|word| !kinds.contains(word)), Some(Keyword::CROSS | Keyword::NATURAL))
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

    #[test]
    fn late_conditions_are_those_of_joins_in_parentheses() {
        for (sql, expected) in [
            ("a join b on x join c using (y)", "a join b on x join c using (y)"),
            ("a join b join c on x on y", "a join( b join c on x )on y"),
            (
                "a left join b left outer join c join d on x on y on z",
                "a left join( b left outer join( c join d on x )on y )on z",
            ),
            ("a join b on w join c join d using (x) on y", "a join b on w join( c join d using (x) )on y"),
            ("a join b cross join c on x", "a join( b cross join c )on x"),
            ("a natural join b natural left join c", "a natural join b natural left join c"),
            ("a join (b join c on x) on y", "a join (b join c on x) on y"),
            (
                "select 1 from a join b on x union select distinct on (c) c from d join e on y",
                "select 1 from a join b on x union select distinct on (c) c from d join e on y",
            ),
        ] {
            let mended = joins_in_parentheses(tokenize(sql).unwrap());
            assert_eq!(mended.iter().map(|token| token.token.to_string()).collect::<String>(), expected);
        }
    }
}
