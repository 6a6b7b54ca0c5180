//! `JOIN … USING (x) AS j`, which the parser does not know: `j` is another name for what the join merges, and nothing else. It
//! is taken from the tokens of a statement.
//!
//! | written | read as |
//! |---|---|
//! | `a JOIN b USING (x, y) AS j` | `a JOIN b USING (x, y)` |
//! | `j.x` | `x` |
//! | `j.*` | `x, y` |

use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Whitespace};

/// An alias, and the names of the columns it is for.
struct JoinAlias {
    alias: String,
    columns: Vec<Token>,
}

/// Takes out such aliases.
pub(in crate::sql) fn without_join_aliases(mut tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let is_using = |token: &TokenWithSpan| keyword(&token.token) == Keyword::USING;
    if !tokens.iter().any(is_using) {
        return tokens;
    }
    let written: Vec<usize> =
        (0..tokens.len()).filter(|index| !matches!(tokens[*index].token, Token::Whitespace(_))).collect();
    let mut aliases = Vec::new();
    for (place, index) in written.iter().enumerate() {
        if is_using(&tokens[*index])
            && let Some((alias, words)) = alias_behind(&tokens, &written[place + 1..])
        {
            aliases.push(alias);
            for word in words {
                tokens[word].token = Token::Whitespace(Whitespace::Space);
            }
        }
    }
    match aliases.is_empty() {
        true => tokens,
        false => with_columns(tokens, &aliases),
    }
}

/// The alias behind a list of names, and where it and the AS before it are.
fn alias_behind(tokens: &[TokenWithSpan], written: &[usize]) -> Option<(JoinAlias, [usize; 2])> {
    let token = |place: usize| written.get(place).map(|index| &tokens[*index].token);
    if token(0)? != &Token::LParen {
        return None;
    }
    let mut columns = Vec::new();
    let mut place = 1;
    loop {
        columns.push(token(place).filter(|column| matches!(column, Token::Word(_)))?.clone());
        place += 2;
        match token(place - 1)? {
            Token::Comma => {}
            Token::RParen => break,
            _ => return None,
        }
    }
    let is_as = keyword(token(place)?) == Keyword::AS;
    let alias = name(token(place + 1)?).filter(|_| is_as)?;
    Some((JoinAlias { alias, columns }, [*written.get(place)?, *written.get(place + 1)?]))
}

/// Puts the columns in the places of what the aliases stand before.
fn with_columns(tokens: Vec<TokenWithSpan>, aliases: &[JoinAlias]) -> Vec<TokenWithSpan> {
    let mut rewritten = Vec::with_capacity(tokens.len());
    let mut rest = tokens.into_iter().peekable();
    let mut is_qualified = false;
    while let Some(token) = rest.next() {
        let alias = name(&token.token).and_then(|name| aliases.iter().find(|known| known.alias == name));
        let stands_before = !is_qualified && rest.peek().is_some_and(|next| next.token == Token::Period);
        is_qualified = token.token == Token::Period;
        let Some(alias) = alias.filter(|_| stands_before) else {
            rewritten.push(token);
            continue;
        };
        let point = rest.next();
        let column = rest.peek().map(|next| &next.token);
        if column == Some(&Token::Mul) {
            let columns = alias.columns.iter().flat_map(|column| [Token::Comma, column.clone()]).skip(1);
            rewritten.extend(columns.map(|part| TokenWithSpan::new(part, token.span)));
            rest.next();
        } else if !column.and_then(name).is_some_and(|column| alias.has(&column)) {
            is_qualified = true;
            rewritten.push(token);
            rewritten.extend(point);
        }
    }
    rewritten
}

impl JoinAlias {
    fn has(&self, column: &str) -> bool {
        self.columns.iter().any(|known| name(known).is_some_and(|known| known == column))
    }
}

/// The name that a word is.
fn name(token: &Token) -> Option<String> {
    match token {
        Token::Word(word) if word.quote_style.is_none() => Some(word.value.to_ascii_lowercase()),
        Token::Word(word) => Some(word.value.clone()),
        _ => None,
    }
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
    fn aliases_of_joins_are_their_columns() {
        for (sql, expected) in [
            ("select j.a, J.*, b.j from t join u using (a, b) as j", "select a, a , b, b.j from t join u using (a, b)"),
            ("select x.j.a from t join u using (a) as j", "select x.j.a from t join u using (a)"),
            ("select j.c from t join u using (a) as j", "select j.c from t join u using (a)"),
            ("select j.a from t join u using (a)", "select j.a from t join u using (a)"),
            ("merge into t using (select 1) as j on j.a = 1", "merge into t using (select 1) as j on j.a = 1"),
        ] {
            let tokens = without_join_aliases(tokenize(sql).unwrap());
            let written = |tokens: &[TokenWithSpan]| {
                let parts = tokens.iter().map(|token| token.token.to_string());
                parts.filter(|part| !part.trim().is_empty()).collect::<Vec<_>>()
            };
            assert_eq!(written(&tokens), written(&tokenize(expected).unwrap()), "{sql}");
        }
    }
}
