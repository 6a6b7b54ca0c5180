//! The lock clauses of a query: PostgreSQL's four strengths and lists of tables, of which sqlparser knows half.
//!
//! ```text
//! FOR {UPDATE | NO KEY UPDATE | SHARE | KEY SHARE} [OF table [, …]] [NOWAIT | SKIP LOCKED] [FOR …]
//! ```
//! What sqlparser does not know is rewritten before it sees it, token by token: the strength becomes the first part of
//! the name after OF, marked by a character that no name has, and a list becomes several clauses.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    LockClause, LockTableMode, LockType, NonBlock, ObjectNamePart, Query, Visit, Visitor,
};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Whitespace, Word};
use rustydb_storage::{LockMode, RowLock};

use crate::sql::text::parse::fold;
use crate::{Error, Result};

/// Begins the part of a name that is a strength.
const MARK: char = '\0';
const NO_KEY_UPDATE: &str = "\0NO KEY UPDATE";
const KEY_SHARE: &str = "\0KEY SHARE";
const UPDATE: &str = "\0UPDATE";
const SHARE: &str = "\0SHARE";

/// A query whose rows are to be locked.
#[derive(Debug, Clone)]
pub(crate) struct LockingQuery {
    /// Without its lock clauses; those of subqueries are still there.
    pub(crate) query: Box<Query>,
    /// Its own; none if only subqueries of it lock rows.
    pub(crate) clauses: Vec<RowLockClause>,
}

/// Whether a query or a subquery of it has a lock clause.
pub(crate) fn locks_rows(query: &Query) -> bool {
    struct Finder;
    impl Visitor for Finder {
        type Break = ();
        fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
            match query.locks.is_empty() {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        }
    }
    query.visit(&mut Finder).is_break()
}

/// One lock clause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RowLockClause {
    pub(crate) lock: RowLock,
    /// The table's name or alias; `None` for all tables of the query.
    pub(crate) of: Option<String>,
    pub(crate) busy: Busy,
}

/// What to do about rows that others have locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Busy {
    Wait,
    NoWait,
    Skip,
}

/// Takes the lock clauses out of a query.
pub(crate) fn take_locks(mut query: Box<Query>) -> Result<LockingQuery> {
    let clauses = std::mem::take(&mut query.locks).into_iter().map(clause).collect::<Result<_>>()?;
    Ok(LockingQuery { query, clauses })
}

fn clause(clause: LockClause) -> Result<RowLockClause> {
    let LockClause { lock_type, of, nonblock } = clause;
    let mut lock = match lock_type {
        LockType::Share => RowLock::Share,
        LockType::Update => RowLock::Update,
    };
    let mut names = Vec::new();
    for part in of.into_iter().flat_map(|name| name.0) {
        match part {
            ObjectNamePart::Identifier(ident) if ident.value.starts_with(MARK) => {
                lock = match ident.value.as_str() {
                    NO_KEY_UPDATE => RowLock::NoKeyUpdate,
                    KEY_SHARE => RowLock::KeyShare,
                    SHARE => RowLock::Share,
                    _ => RowLock::Update,
                };
            }
            ObjectNamePart::Identifier(ident) => names.push(fold(&ident)),
            ObjectNamePart::Function(_) => return Err(Error::syntax("OF takes names of tables")),
        }
    }
    if names.len() > 1 {
        return Err(Error::syntax(format!(
            "OF takes a table's name or alias as the query shows it, not \"{}\"",
            names.join(".")
        )));
    }
    let busy = match nonblock {
        None => Busy::Wait,
        Some(NonBlock::Nowait) => Busy::NoWait,
        Some(NonBlock::SkipLocked) => Busy::Skip,
    };
    Ok(RowLockClause { lock, of: names.pop(), busy })
}

/// The mode LOCK TABLE names; the strongest if it names none.
pub(crate) fn table_mode(mode: Option<LockTableMode>) -> LockMode {
    match mode {
        None | Some(LockTableMode::AccessExclusive) => LockMode::AccessExclusive,
        Some(LockTableMode::AccessShare) => LockMode::AccessShare,
        Some(LockTableMode::RowShare) => LockMode::RowShare,
        Some(LockTableMode::RowExclusive) => LockMode::RowExclusive,
        Some(LockTableMode::ShareUpdateExclusive) => LockMode::ShareUpdateExclusive,
        Some(LockTableMode::Share) => LockMode::Share,
        Some(LockTableMode::ShareRowExclusive) => LockMode::ShareRowExclusive,
        Some(LockTableMode::Exclusive) => LockMode::Exclusive,
    }
}

/// Rewrites the clauses that sqlparser does not know, and puts LIMIT, OFFSET and FETCH in front of all.
pub(crate) fn rewrite_locks(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let tokens = limits_first(tokens);
    let mut rewritten = Vec::with_capacity(tokens.len());
    let mut at = 0;
    while at < tokens.len() {
        match unknown_clause(&tokens, at) {
            Some((clause, end)) => {
                rewritten.extend(clause);
                at = end;
            }
            None => {
                rewritten.push(tokens[at].clone());
                at += 1;
            }
        }
    }
    rewritten
}

/// `FOR UPDATE SKIP LOCKED LIMIT 1` as `LIMIT 1 FOR UPDATE SKIP LOCKED`.
fn limits_first(mut tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let mut at = 0;
    while at < tokens.len() {
        let mut end = at;
        while let Some(next) = clause_end(&tokens, end) {
            end = next;
        }
        let words = Words { tokens: &tokens, at: end };
        let limit = words.peek().filter(|(_, token)| match &token.token {
            Token::Word(word) if word.quote_style.is_none() => {
                matches!(word.keyword, Keyword::LIMIT | Keyword::OFFSET | Keyword::FETCH)
            }
            _ => false,
        });
        if let Some((limit, _)) = limit.filter(|_| end > at) {
            let mut depth = 0;
            let ends = |token: &TokenWithSpan| {
                match token.token {
                    Token::LParen => depth += 1,
                    Token::RParen => depth -= 1,
                    _ => {}
                }
                depth < 0 || token.token == Token::SemiColon || token.token == Token::EOF
            };
            let behind = tokens[limit..].iter().position(ends).map_or(tokens.len(), |place| limit + place);
            // A clause may follow the limit, too: all of them stay together.
            let behind = (limit..behind).find(|place| clause_end(&tokens, *place).is_some()).unwrap_or(behind);
            let space = TokenWithSpan::new(Token::Whitespace(Whitespace::Space), tokens[at].span);
            tokens.insert(behind, space);
            tokens[at..=behind].rotate_left(limit - at);
            at = behind;
        }
        at = (at + 1).max(end.min(tokens.len()));
    }
    tokens
}

/// Where the clause ends that begins at a token, or behind white space there.
fn clause_end(tokens: &[TokenWithSpan], at: usize) -> Option<usize> {
    let mut words = Words { tokens, at };
    if !words.word("FOR") {
        return None;
    }
    let strengths: [&[&str]; 4] = [&["NO", "KEY", "UPDATE"], &["KEY", "SHARE"], &["UPDATE"], &["SHARE"]];
    if !strengths.iter().any(|strength| words.words(strength)) {
        return None;
    }
    if words.word("OF") {
        words.names()?;
    }
    let _ = words.word("NOWAIT") || words.words(&["SKIP", "LOCKED"]);
    Some(words.at)
}

/// A reader of tokens that passes over white space.
struct Words<'a> {
    tokens: &'a [TokenWithSpan],
    at: usize,
}

impl<'a> Words<'a> {
    fn peek(&self) -> Option<(usize, &'a TokenWithSpan)> {
        let rest = self.tokens.iter().enumerate().skip(self.at);
        { rest }.find(|(_, token)| !matches!(token.token, Token::Whitespace(_)))
    }

    fn take(&mut self, is_wanted: impl Fn(&Token) -> bool) -> Option<&'a TokenWithSpan> {
        let (at, token) = self.peek().filter(|(_, token)| is_wanted(&token.token))?;
        self.at = at + 1;
        Some(token)
    }

    fn word(&mut self, wanted: &str) -> bool {
        let is_wanted = |token: &Token| matches!(token, Token::Word(word) if word.quote_style.is_none() && word.value.eq_ignore_ascii_case(wanted));
        self.take(is_wanted).is_some()
    }

    /// All of them, or none.
    fn words(&mut self, wanted: &[&str]) -> bool {
        let start = self.at;
        let all = wanted.iter().all(|word| self.word(word));
        if !all {
            self.at = start;
        }
        all
    }

    /// A list of names, each perhaps with its schema before it.
    fn names(&mut self) -> Option<Vec<Vec<TokenWithSpan>>> {
        let is_word = |token: &Token| matches!(token, Token::Word(_));
        let mut names = Vec::new();
        loop {
            let mut name = vec![self.take(is_word)?.clone()];
            while let Some(period) = self.take(|token| *token == Token::Period) {
                name.push(period.clone());
                name.push(self.take(is_word)?.clone());
            }
            names.push(name);
            if self.take(|token| *token == Token::Comma).is_none() {
                return Some(names);
            }
        }
    }
}

/// The clause that begins at a token, in words sqlparser knows, and where it ends. `None` if there is none, or nothing to
/// be rewritten.
fn unknown_clause(tokens: &[TokenWithSpan], at: usize) -> Option<(Vec<TokenWithSpan>, usize)> {
    if !matches!(&tokens[at].token, Token::Word(word) if word.keyword == Keyword::FOR && word.quote_style.is_none()) {
        return None;
    }
    let mut words = Words { tokens, at: at + 1 };
    let (mark, keyword) = if words.words(&["NO", "KEY", "UPDATE"]) {
        (NO_KEY_UPDATE, "UPDATE")
    } else if words.words(&["KEY", "SHARE"]) {
        (KEY_SHARE, "SHARE")
    } else if words.word("UPDATE") {
        (UPDATE, "UPDATE")
    } else if words.word("SHARE") {
        (SHARE, "SHARE")
    } else {
        return None;
    };
    let names = if words.word("OF") { words.names()? } else { Vec::new() };
    if names.len() < 2 && matches!(mark, UPDATE | SHARE) {
        return None;
    }
    let busy: &[&str] = if words.word("NOWAIT") {
        &["NOWAIT"]
    } else if words.words(&["SKIP", "LOCKED"]) {
        &["SKIP", "LOCKED"]
    } else {
        &[]
    };
    let span = tokens[at].span;
    let token = |token| TokenWithSpan::new(token, span);
    let word = |word: &str| token(Token::make_keyword(word));
    let marked = Word { value: mark.to_owned(), quote_style: Some('"'), keyword: Keyword::NoKeyword };
    let mut clauses = Vec::new();
    for name in names.into_iter().map(Some).chain(std::iter::once(None)) {
        if name.is_none() && !clauses.is_empty() {
            break;
        }
        // Tokens of the parser's own may touch, but those of the source around them need not.
        clauses.extend(["FOR", keyword, "OF"].map(word));
        clauses.push(token(Token::Word(marked.clone())));
        for part in name.into_iter().flat_map(|name| std::iter::once(token(Token::Period)).chain(name)) {
            clauses.push(part);
        }
        clauses.extend(busy.iter().map(|busy| word(busy)));
    }
    Some((clauses, words.at))
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::ast::Statement;

    use super::*;
    use crate::sql::text::parse::{ParsedStatement, parse_statement};

    fn clauses(sql: &str) -> Vec<(RowLock, Option<String>, Busy)> {
        let ParsedStatement::Sql(statement) = parse_statement(sql).unwrap().statement else { panic!("a query") };
        let Statement::Query(query) = *statement else { panic!("a query") };
        let LockingQuery { query, clauses } = take_locks(query).unwrap();
        assert!(query.locks.is_empty());
        clauses.into_iter().map(|clause| (clause.lock, clause.of, clause.busy)).collect()
    }

    #[test]
    fn four_strengths_are_told_apart() {
        for (text, lock) in [
            ("UPDATE", RowLock::Update),
            ("no key update", RowLock::NoKeyUpdate),
            ("SHARE", RowLock::Share),
            ("KEY  /* of a */ SHARE", RowLock::KeyShare),
        ] {
            assert_eq!(clauses(&format!("SELECT * FROM t FOR {text}")), [(lock, None, Busy::Wait)]);
            assert_eq!(
                clauses(&format!("SELECT * FROM t LIMIT 1 FOR {text} OF t SKIP LOCKED;")),
                [(lock, Some("t".into()), Busy::Skip)]
            );
        }
    }

    #[test]
    fn lists_and_several_clauses_are_taken_apart() {
        assert_eq!(
            clauses("SELECT * FROM a, b, \"C\" FOR SHARE OF A, \"C\" NOWAIT FOR NO KEY UPDATE OF b"),
            [
                (RowLock::Share, Some("a".into()), Busy::NoWait),
                (RowLock::Share, Some("C".into()), Busy::NoWait),
                (RowLock::NoKeyUpdate, Some("b".into()), Busy::Wait),
            ]
        );
    }

    #[test]
    fn limits_may_stand_behind() {
        for text in [
            "SELECT * FROM t ORDER BY a FOR UPDATE SKIP LOCKED LIMIT 1",
            "SELECT * FROM t FOR UPDATE SKIP LOCKED LIMIT (1 + 1) OFFSET 2;",
            "SELECT * FROM t FOR UPDATE OF t SKIP LOCKED FETCH FIRST ROW ONLY",
        ] {
            let found = clauses(text);
            assert_eq!((found.len(), found[0].0, found[0].2), (1, RowLock::Update, Busy::Skip), "{text}");
        }
        assert_eq!(clauses("SELECT * FROM a, b FOR SHARE OF a FOR UPDATE OF b LIMIT 1 OFFSET 1").len(), 2);
        assert!(
            parse_statement("DELETE FROM t WHERE id IN (SELECT id FROM t FOR UPDATE LIMIT 1) RETURNING id").is_ok()
        );
    }

    #[test]
    fn other_uses_of_the_words_stay() {
        assert!(parse_statement("SELECT substring('abc' FROM 1 FOR 2)").is_ok());
        assert_eq!(parse_statement("SELECT * FROM t FOR KEY").unwrap_err().sqlstate(), "42601");
        assert_eq!(parse_statement("SELECT * FROM t FOR UPDATE OF a, NOWAIT FOR").unwrap_err().sqlstate(), "42601");
    }
}
