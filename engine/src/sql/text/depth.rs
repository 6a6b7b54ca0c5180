//! How deep the syntax tree of a statement can get, judged by its tokens before anything is built.
//!
//! The parser's own limit counts its recursion. It does not see chains: `1 + 1 + 1 …`, `x IS NULL IS NULL …`,
//! `1::int::int …` and `… UNION …` are read in a loop, into a tree as deep as they are long. Whatever walks such a tree
//! afterwards (planning, copying, comparing, dropping it) recurses once per link, on whatever thread it is.
//!
//! ```text
//! a + b * (c || d || e) AND f       level 0: + *  then AND starts a new operand     depth: 1 connective, 4 operators
//!         └─ level 1: || ||
//! ```
//!
//! Invariant: a statement that passes has a tree of at most [`MAX_OPERATORS`] operators above each other,
//! [`MAX_STEPS`] joins and set operations, and [`MAX_CONNECTIVES`] ANDs and ORs, which are folded into a shallow tree then
//! ([`balance`](crate::sql::tree::balance)). The bound errs upwards: every token that is not known to be harmless counts as an
//! operator, so that one that a new release of the parser learns is bounded, too.

use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::error::translate_position as position_of;
use crate::{Error, Result, error::sqlstate};

/// Operators above each other. The planner walks an expression many times, and asks for the type of each node anew, so
/// that its time grows with the square of the depth.
pub(in crate::sql) const MAX_OPERATORS: usize = 500;

/// What an operator counts that is planned as the call of a function. The name of a call holds those of its arguments,
/// and the planner writes it down for each node, so that its time grows with the cube of the depth.
const CALL_LINKS: usize = 10;

/// Joins and set operations above each other.
pub(in crate::sql) const MAX_STEPS: usize = 1_000;

/// ANDs and ORs above each other. They are cheap, because they are balanced before they are planned; this many, from a
/// generated filter, are parsed, balanced and planned in a fraction of a second.
pub(in crate::sql) const MAX_CONNECTIVES: usize = 10_000;

/// How deep something is.
#[derive(Debug, Clone, Copy, Default)]
struct Depth {
    operators: usize,
    connectives: usize,
    steps: usize,
}

impl Depth {
    /// At least as deep as both.
    fn max(self, other: Depth) -> Depth {
        Depth {
            operators: self.operators.max(other.operators),
            connectives: self.connectives.max(other.connectives),
            steps: self.steps.max(other.steps),
        }
    }
}

/// What is open: the statement, a pair of parentheses (brackets, braces), a CASE.
#[derive(Debug, Clone, Copy, Default)]
struct Level {
    is_case: bool,
    /// Operators since the last comma or connective.
    links: usize,
    /// The deepest thing in parentheses since then.
    inner: Depth,
    /// The deepest operand of the connectives since the last comma, and their number.
    operand: Depth,
    connectives: usize,
    /// BETWEENs whose AND has not come.
    betweens: usize,
    /// The deepest element so far, elements being what commas part.
    element: Depth,
    /// Joins and set operations, which reach across commas.
    steps: usize,
}

impl Level {
    fn end_operand(&mut self) {
        self.operand = self.operand.max(Depth { operators: self.links + self.inner.operators, ..self.inner });
        (self.links, self.inner) = (0, Depth::default());
    }

    fn end_element(&mut self) {
        self.end_operand();
        let connectives = self.operand.connectives + self.connectives;
        self.element = self.element.max(Depth { connectives, ..self.operand });
        (self.operand, self.connectives, self.betweens) = (Depth::default(), 0, 0);
    }

    fn depth(mut self) -> Depth {
        self.end_element();
        Depth { steps: self.element.steps + self.steps, ..self.element }
    }
}

/// Fails with 54001 if the tokens could make a tree that is too deep.
pub(in crate::sql) fn check_depth(tokens: &[TokenWithSpan]) -> Result<()> {
    // The innermost open level, and those around it.
    let (mut level, mut outer) = (Level::default(), Vec::new());
    let mut word_before = Keyword::NoKeyword;
    for token in tokens {
        let before = word_before;
        if let Token::Word(word) = &token.token {
            word_before = word.keyword;
        }
        match &token.token {
            Token::LParen => outer.push(std::mem::take(&mut level)),
            // An index or a type's brackets prolong the expression before them.
            Token::LBracket | Token::LBrace => {
                level.links += CALL_LINKS;
                outer.push(std::mem::take(&mut level));
            }
            Token::RParen | Token::RBracket | Token::RBrace => {
                while level.is_case && close(&mut level, &mut outer) {}
                // A surplus one is the parser's to complain about.
                close(&mut level, &mut outer);
            }
            Token::Comma | Token::SemiColon => level.end_element(),
            Token::Word(word) => match word.keyword {
                Keyword::CASE => {
                    outer.push(std::mem::take(&mut level));
                    level.is_case = true;
                }
                Keyword::WHEN | Keyword::THEN | Keyword::ELSE if level.is_case => level.end_element(),
                Keyword::END if level.is_case => {
                    close(&mut level, &mut outer);
                }
                Keyword::BETWEEN => {
                    level.links += 1;
                    level.betweens += 1;
                }
                Keyword::AND if level.betweens > 0 => {
                    level.links += 1;
                    level.betweens -= 1;
                }
                Keyword::AND | Keyword::OR => {
                    level.end_operand();
                    level.connectives += 1;
                }
                Keyword::JOIN
                | Keyword::UNION
                | Keyword::INTERSECT
                | Keyword::EXCEPT
                | Keyword::MINUS
                | Keyword::PIVOT
                | Keyword::UNPIVOT => {
                    level.end_element();
                    level.steps += 1;
                }
                // a IS DISTINCT FROM b
                Keyword::FROM if before == Keyword::DISTINCT => level.links += 1,
                // A clause begins with expressions of its own.
                Keyword::SELECT
                | Keyword::FROM
                | Keyword::WHERE
                | Keyword::HAVING
                | Keyword::ON
                | Keyword::BY
                | Keyword::LIMIT => level.end_element(),
                Keyword::XOR
                | Keyword::OVERLAPS
                | Keyword::OPERATOR
                | Keyword::IS
                | Keyword::NOTNULL
                | Keyword::NOT
                | Keyword::AT
                | Keyword::IN
                | Keyword::LIKE
                | Keyword::ILIKE
                | Keyword::SIMILAR
                | Keyword::REGEXP
                | Keyword::RLIKE
                | Keyword::MATCH
                | Keyword::MEMBER
                | Keyword::DIV
                | Keyword::COLLATE
                // A prefix, but one for which the parser recurses without counting.
                | Keyword::INTERVAL => level.links += 1,
                _ => continue,
            },
            Token::Caret | Token::AtArrow | Token::ArrowAt => level.links += CALL_LINKS,
            token if is_operand(token) => continue,
            _ => level.links += 1,
        }
        let Depth { operators, connectives, steps } = level.depth();
        let beyond = operators > MAX_OPERATORS || connectives > MAX_CONNECTIVES || steps > MAX_STEPS;
        if beyond || outer.len() > MAX_OPERATORS {
            return Err(too_deep().at(position_of(token.span.start)));
        }
    }
    Ok(())
}

/// Ends the innermost level; `false` if it is the statement itself.
fn close(level: &mut Level, outer: &mut Vec<Level>) -> bool {
    let Some(around) = outer.pop() else { return false };
    let inner = std::mem::replace(level, around).depth();
    level.inner = level.inner.max(Depth { operators: inner.operators + 1, ..inner });
    true
}

/// Names, values, and what keeps them apart.
fn is_operand(token: &Token) -> bool {
    matches!(
        token,
        Token::EOF
            | Token::Whitespace(_)
            | Token::Period
            | Token::Number(..)
            | Token::Placeholder(_)
            | Token::SingleQuotedString(_)
            | Token::DoubleQuotedString(_)
            | Token::DollarQuotedString(_)
            | Token::EscapedStringLiteral(_)
            | Token::UnicodeStringLiteral(_)
            | Token::NationalStringLiteral(_)
            | Token::HexStringLiteral(_)
            | Token::SingleQuotedByteStringLiteral(_)
            | Token::DoubleQuotedByteStringLiteral(_)
    )
}

fn too_deep() -> Error {
    let message = format!(
        "the statement nests too deeply: more than {MAX_OPERATORS} operators, {MAX_STEPS} joins or set operations, or \
         {MAX_CONNECTIVES} ANDs and ORs apply one to the result of the other"
    );
    Error::new(sqlstate::STATEMENT_TOO_COMPLEX, message)
        .with_hint("Use IN (…), a table of values, or several statements.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::text::parse::{parse_statement, tokenize};

    fn passes(sql: &str) -> bool {
        match check_depth(&tokenize(sql).unwrap()) {
            Ok(()) => true,
            Err(error) => {
                assert_eq!(error.sqlstate(), "54001", "{error:?}");
                false
            }
        }
    }

    #[test]
    fn chains_of_every_operator_are_bounded() {
        let links = [
            "+ 1",
            "- 1",
            "* 1",
            "/ 1",
            "% 1",
            "^ 1",
            "| 1",
            "& 1",
            "# 1",
            "<< 1",
            ">> 1",
            "|| 'a'",
            "-> 'a'",
            "->> 'a'",
            "#> 'a'",
            "#>> 'a'",
            "#- 'a'",
            "@> 'a'",
            "<@ 'a'",
            "@? 'a'",
            "@@ 'a'",
            "~ 'a'",
            "~* 'a'",
            "!~ 'a'",
            "!~* 'a'",
            "~~ 'a'",
            "~~* 'a'",
            "!~~ 'a'",
            "!~~* 'a'",
            "^@ 'a'",
            "&& 'a'",
            "= 1",
            "<> 1",
            "< 1",
            "<= 1",
            "> 1",
            ">= 1",
            "<=> 1",
            "== 1",
            "IS NULL",
            "IS NOT NULL",
            "NOTNULL",
            "NOT NULL",
            "IS TRUE",
            "IS NOT UNKNOWN",
            "IS DISTINCT FROM 1",
            "IS NORMALIZED",
            "AT TIME ZONE 'UTC'",
            "COLLATE \"C\"",
            "LIKE 'a'",
            "NOT LIKE 'a'",
            "ILIKE 'a'",
            "SIMILAR TO 'a'",
            "RLIKE 'a'",
            "REGEXP 'a'",
            "IN (1)",
            "NOT IN (1)",
            "BETWEEN 1 AND 2",
            "NOT BETWEEN 1 AND 2",
            "::int",
            "::int[]",
            "[1]",
            "[1:2]",
            "AND true",
            "OR true",
            "XOR true",
            "OVERLAPS 1",
            "OPERATOR(pg_catalog.+) 1",
            "= ANY (ARRAY[1, 2])",
            "+ ARRAY[1, 2][1]",
            "+ CASE WHEN a THEN 1 ELSE 2 END",
            "+ f(1, 2)",
            ": a",
            "UNION SELECT 1, 2",
            "INTERSECT SELECT 1, 2",
            "EXCEPT ALL SELECT 1, 2",
            "FROM a, b JOIN c ON a AND b, d",
        ];
        for link in links {
            let sql = format!("SELECT 1 {}", vec![link; 12_000].join(" "));
            assert!(!passes(&sql), "{link}");
            assert!(parse_statement(&sql).is_err(), "{link}");
        }
    }

    #[test]
    fn nesting_of_every_kind_is_bounded() {
        for (open, close) in [
            ("(", ")"),
            ("ARRAY[", "]"),
            ("{", "}"),
            ("abs(", ")"),
            ("CASE WHEN true THEN ", " END"),
            ("(SELECT ", ")"),
            ("INTERVAL ", ""),
            ("NOT ", ""),
            ("- ", ""),
            // Each level is a chain of its own: their lengths add up.
            ("(1 + 1 + 1 + 1 + ", ")"),
            ("(1 + 1 + 1 + ", ", 2) + 1"),
            ("(a OR b AND ", ")"),
        ] {
            let sql = format!("SELECT {} 1 {}", open.repeat(5_000), close.repeat(5_000));
            assert!(!passes(&sql), "{open}");
            assert!(parse_statement(&sql).is_err(), "{open}");
            let unclosed = format!("SELECT {}", open.repeat(5_000));
            assert!(parse_statement(&unclosed).is_err(), "{open}");
        }
        assert!(parse_statement(&format!("SELECT 1::{}int{}", "ARRAY<".repeat(5_000), ">".repeat(5_000))).is_err());
        assert!(parse_statement(&format!("SELECT * FROM {}t{}", "(".repeat(5_000), ")".repeat(5_000))).is_err());
    }

    #[test]
    fn long_statements_that_are_not_deep_pass() {
        let many = |text: &str, separator: &str| vec![text; 3_000].join(separator);
        for sql in [
            format!("select {}", many("a + 1 ^ 2", ", ")),
            format!("insert into t values {}", many("(-1, 2 * 3)", ", ")),
            format!("select 1 where {}", many("a = 1 and b between 1 and 2", " or ")),
            format!("select case {} else 0 end", many("when a = 1 then b + 1", " ")),
            format!("select a in ({})", many("-1", ", ")),
            vec!["select -a + 1, b * 2 from t where a = 1"; 900].join(" union all "),
            format!("select 1 from t {}", vec!["join t on a = b and c = 1"; 900].join(" ")),
            format!("select array[{}]", many("1 + 1", ", ")),
        ] {
            assert!(passes(&sql), "{}", &sql[..60]);
            assert!(parse_statement(&sql).is_ok(), "{}", &sql[..60]);
        }
    }

    #[test]
    fn the_place_is_where_it_gets_too_deep() {
        let sql = format!("select\n 1{}", "+1".repeat(MAX_OPERATORS + 1));
        let position = check_depth(&tokenize(&sql).unwrap()).unwrap_err().position().unwrap();
        assert_eq!((position.line, position.column), (2, 3 + 2 * MAX_OPERATORS as u64));
    }
}
