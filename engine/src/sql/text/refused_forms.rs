//! Forms of PostgreSQL's that the parser refuses, or reads a part of, rewritten in the tokens to what it takes.
//!
//! | written | parsed |
//! |---|---|
//! | `EXISTS (SELECT FROM t)` | `EXISTS (SELECT 1 FROM t)` |
//! | `trim(BOTH FROM s)` | `trim(BOTH s)` |
//! | `a > ALL ((SELECT 1) UNION (SELECT 2))` | `a > ALL (SELECT * FROM ((SELECT 1) UNION (SELECT 2)) AS q)` |
//! | `ROLLUP ((a + b)::int, c)` | `ROLLUP (((a + b)::int), c)` |
//! | `INTERVAL(2) '1.234'` | `INTERVAL '1.234' SECOND (2)` |
//! | `RESET TIME ZONE` | `RESET timezone` |

use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

/// What a query is called that a value is compared with.
const COMPARED: &str = "rows compared with";

/// What comes after the last token.
static END: Token = Token::EOF;

/// What is done to a token, by its index among all.
enum Edit {
    Before(usize, Token),
    Drop(usize),
}

impl Edit {
    fn index(&self) -> usize {
        match self {
            Edit::Before(index, _) | Edit::Drop(index) => *index,
        }
    }
}

/// Rewrites the forms, wherever they are.
pub(in crate::sql) fn rewrite_refused(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let is_first = |token: &TokenWithSpan| {
        matches!(
            keyword(&token.token),
            Keyword::EXISTS
                | Keyword::TRIM
                | Keyword::ANY
                | Keyword::ALL
                | Keyword::SOME
                | Keyword::ROLLUP
                | Keyword::CUBE
                | Keyword::SETS
                | Keyword::INTERVAL
                | Keyword::RESET
        )
    };
    if !tokens.iter().any(is_first) {
        return tokens;
    }
    let written = Written {
        tokens: &tokens,
        places: (0..tokens.len()).filter(|index| !matches!(tokens[*index].token, Token::Whitespace(_))).collect(),
    };
    let mut edits: Vec<Edit> = Vec::new();
    for place in 0..written.places.len() {
        match written.keyword(place) {
            Keyword::RESET if place == 0 => edits.extend(written.name_of_time_zone().into_iter().flatten()),
            _ if written.token(place + 1) != &Token::LParen => {}
            Keyword::EXISTS => edits.extend(written.select_of_nothing(place + 2)),
            Keyword::TRIM => edits.extend(written.trim_of_blanks(place + 2)),
            Keyword::ANY | Keyword::ALL | Keyword::SOME if place > 0 && compares(written.token(place - 1)) => {
                edits.extend(written.set_operation(place + 1).into_iter().flatten());
            }
            Keyword::ROLLUP | Keyword::CUBE => edits.extend(written.elements(place + 2)),
            Keyword::SETS if place > 0 && written.keyword(place - 1) == Keyword::GROUPING => {
                edits.extend(written.elements(place + 2));
            }
            Keyword::INTERVAL => edits.extend(written.digits_of_interval(place + 1).into_iter().flatten()),
            _ => {}
        }
    }
    if edits.is_empty() {
        return tokens;
    }
    edits.sort_by_key(Edit::index);
    let mut rewritten = Vec::with_capacity(tokens.len() + edits.len());
    let mut edits = edits.into_iter().peekable();
    for (index, token) in tokens.into_iter().enumerate() {
        let mut kept = true;
        while let Some(edit) = edits.next_if(|edit| edit.index() == index) {
            match edit {
                Edit::Before(_, added) => rewritten.push(TokenWithSpan::new(added, token.span)),
                Edit::Drop(_) => kept = false,
            }
        }
        if kept {
            rewritten.push(token);
        }
    }
    rewritten
}

/// The keyword that a token is, unless it is quoted.
fn keyword(token: &Token) -> Keyword {
    match token {
        Token::Word(word) if word.quote_style.is_none() => word.keyword,
        _ => Keyword::NoKeyword,
    }
}

fn compares(token: &Token) -> bool {
    matches!(token, Token::Eq | Token::Neq | Token::Lt | Token::LtEq | Token::Gt | Token::GtEq)
}

/// The tokens that are no white space, by their place among themselves.
struct Written<'a> {
    tokens: &'a [TokenWithSpan],
    places: Vec<usize>,
}

impl Written<'_> {
    fn token(&self, place: usize) -> &Token {
        self.places.get(place).map_or(&END, |index| &self.tokens[*index].token)
    }

    fn keyword(&self, place: usize) -> Keyword {
        keyword(self.token(place))
    }

    /// The parenthesis that closes the one at `opening`.
    fn closing(&self, opening: usize) -> Option<usize> {
        let mut depth = 0usize;
        (opening..self.places.len()).find(|place| {
            match self.token(*place) {
                Token::LParen => depth += 1,
                Token::RParen => depth = depth.saturating_sub(1),
                _ => {}
            }
            depth == 0
        })
    }

    /// A token more before the one at `place`.
    fn before(&self, place: usize, token: Token) -> Option<Edit> {
        self.places.get(place).map(|index| Edit::Before(*index, token))
    }

    /// A constant for the select list that is missing.
    fn select_of_nothing(&self, select: usize) -> Option<Edit> {
        let nothing = matches!(self.keyword(select + 1), Keyword::FROM | Keyword::WHERE)
            || self.token(select + 1) == &Token::RParen;
        if self.keyword(select) != Keyword::SELECT || !nothing {
            return None;
        }
        self.before(select + 1, Token::Number("1".to_owned(), false))
    }

    /// FROM where nothing is said of what is trimmed.
    fn trim_of_blanks(&self, first: usize) -> Option<Edit> {
        let sided = matches!(self.keyword(first), Keyword::BOTH | Keyword::LEADING | Keyword::TRAILING);
        let from = first + usize::from(sided);
        let index = self.places.get(from)?;
        (self.keyword(from) == Keyword::FROM).then_some(Edit::Drop(*index))
    }

    /// The setting's own name for TIME ZONE behind RESET.
    fn name_of_time_zone(&self) -> Option<[Edit; 3]> {
        if (self.keyword(1), self.keyword(2)) != (Keyword::TIME, Keyword::ZONE) {
            return None;
        }
        let name = self.before(1, Token::make_word("timezone", None))?;
        Some([name, Edit::Drop(*self.places.get(1)?), Edit::Drop(*self.places.get(2)?)])
    }

    /// The text of an interval before the digits of its seconds, which the parser reads and forgets.
    fn digits_of_interval(&self, opening: usize) -> Option<[Edit; 3]> {
        let (digits, closing, text) = (self.token(opening + 1), self.token(opening + 2), self.token(opening + 3));
        if !matches!((digits, closing, text), (Token::Number(..), Token::RParen, Token::SingleQuotedString(_))) {
            return None;
        }
        let second = self.before(opening, Token::make_keyword("SECOND"))?;
        Some([self.before(opening, text.clone())?, second, Edit::Drop(*self.places.get(opening + 3)?)])
    }

    /// A SELECT from a query that begins with a parenthesis and goes on after it.
    fn set_operation(&self, opening: usize) -> Option<Vec<Edit>> {
        let is_query = self.token(opening + 1) == &Token::LParen
            && matches!(self.keyword(opening + 2), Keyword::SELECT | Keyword::WITH | Keyword::VALUES);
        if !is_query {
            return None;
        }
        let goes_on = self.closing(opening + 1)? + 1;
        if !matches!(self.keyword(goes_on), Keyword::UNION | Keyword::EXCEPT | Keyword::INTERSECT) {
            return None;
        }
        let closing = self.closing(opening)?;
        let word = Token::make_keyword;
        let select = [word("SELECT"), Token::Mul, word("FROM"), Token::LParen];
        let alias = [Token::RParen, word("AS"), Token::make_word(COMPARED, Some('"'))];
        let before = |place, tokens: Vec<Token>| tokens.into_iter().filter_map(move |token| self.before(place, token));
        Some(before(opening + 1, select.to_vec()).chain(before(closing, alias.to_vec())).collect())
    }

    /// Parentheses for elements of grouping sets that begin with some and go on after them: the parser takes those for the
    /// ones around a list. The first element is at `first`.
    fn elements(&self, first: usize) -> Vec<Edit> {
        let mut edits = Vec::new();
        let mut start = first;
        while start < self.places.len() {
            let begins = self.token(start) == &Token::LParen;
            let after = match (begins, self.closing(start)) {
                (false, _) => start,
                (true, Some(closing)) => closing + 1,
                (true, None) => break,
            };
            let mut end = after;
            while !matches!(self.token(end), Token::Comma | Token::RParen | Token::EOF) {
                end = match self.token(end) {
                    Token::LParen => self.closing(end).map_or(self.places.len(), |closing| closing + 1),
                    _ => end + 1,
                };
            }
            if begins && end > after && end < self.places.len() {
                edits.extend(self.before(start, Token::LParen));
                edits.extend(self.before(end, Token::RParen));
            }
            if self.token(end) != &Token::Comma {
                break;
            }
            start = end + 1;
        }
        edits
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::text::parse::tokenize;

    fn rewritten(sql: &str) -> String {
        rewrite_refused(tokenize(sql).unwrap()).iter().map(|token| token.token.to_string()).collect()
    }

    #[test]
    fn what_the_parser_refuses_is_rewritten() {
        for (sql, expected) in [
            ("exists (select from t)", "exists (select 1from t)"),
            ("exists(select)", "exists(select1)"),
            ("trim(both from a)", "trim(both  a)"),
            (
                "a > all ((select 1) union (select 2))",
                "a > all (SELECT*FROM((select 1) union (select 2))AS\"rows compared with\")",
            ),
            ("rollup ((a + b)::int, c, (d)::int)", "rollup (((a + b)::int), c, ((d)::int))"),
            ("grouping sets ((a), (b) + f(1, 2), ())", "grouping sets ((a), ((b) + f(1, 2)), ())"),
            ("interval(2) '1.234'", "interval'1.234'SECOND(2) "),
            ("x::interval(2), 'a'", "x::interval(2), 'a'"),
            ("reset time zone", "reset timezone "),
            ("reset all", "reset all"),
        ] {
            assert_eq!(rewritten(sql), expected, "{sql}");
        }
    }

    #[test]
    fn all_else_stays_as_it_is() {
        for sql in [
            "exists (select 1 from t)",
            "trim(both 'x' from a)",
            "a = any ((select array[1]))",
            "select 1 union all ((select 1) union (select 2))",
            "cube ((a, b), c)",
            "rollup ((a",
            "all ((select",
        ] {
            assert_eq!(rewritten(sql), sql, "{sql}");
        }
    }
}
