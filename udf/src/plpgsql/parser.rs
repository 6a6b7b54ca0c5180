//! A PL/pgSQL body to its syntax tree.
//!
//! Recursive descent over the lexer's tokens. Where SQL stands (an expression before THEN, a statement before `;`) the
//! text is cut out at the first such word outside of parentheses, as PostgreSQL does, and left to the engine.
//!
//! Invariants: any text gives a tree or an error with a place, never a panic; blocks nest at most [`DEPTH_MAX`] deep.

mod statements;

use rustydb_engine::{Error, Result};

use super::ast::{Block, Condition, Declaration, DeclarationKind, Fragment, Handler, Statement, Target, TypeText};
use super::conditions::{is_state, states_of};
use super::lexer::{Kind, Token, place_of, tokenize};

/// Blocks, branches and loops inside each other.
const DEPTH_MAX: usize = 100;

/// What a name means that is both a variable and a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Conflict {
    #[default]
    Error,
    UseVariable,
    UseColumn,
}

/// A whole body.
#[derive(Debug, Clone)]
pub(super) struct Body {
    pub(super) block: Block,
    pub(super) conflict: Conflict,
}

/// Parses a body. Places in errors are places in `text`.
pub(super) fn parse(text: &str) -> Result<Body> {
    let tokens =
        tokenize(text).map_err(|error| Error::raised("42601", error.message).at(Some(place_of(text, error.offset))))?;
    let mut parser = Parser { text, tokens, next: 0, depth: 0 };
    let conflict = parser.options()?;
    let label = parser.label()?;
    let block = parser.block(label)?;
    parser.take_symbol(';');
    match parser.peek() {
        Kind::End => Ok(Body { block, conflict }),
        _ => Err(parser.unexpected()),
    }
}

pub(super) struct Parser<'a> {
    text: &'a str,
    tokens: Vec<Token>,
    next: usize,
    depth: usize,
}

impl Parser<'_> {
    fn token(&self) -> &Token {
        // The last token is the end, which is never passed.
        &self.tokens[self.next.min(self.tokens.len() - 1)]
    }

    pub(super) fn peek(&self) -> &Kind {
        &self.token().kind
    }

    fn peek_at(&self, ahead: usize) -> &Kind {
        &self.tokens[(self.next + ahead).min(self.tokens.len() - 1)].kind
    }

    pub(super) fn offset(&self) -> usize {
        self.token().start
    }

    pub(super) fn advance(&mut self) {
        self.next = (self.next + 1).min(self.tokens.len() - 1);
    }

    pub(super) fn is_word(&self, word: &str) -> bool {
        matches!(self.peek(), Kind::Word(found) if found == word)
    }

    pub(super) fn take_word(&mut self, word: &str) -> bool {
        let found = self.is_word(word);
        if found {
            self.advance();
        }
        found
    }

    pub(super) fn take_symbol(&mut self, symbol: char) -> bool {
        let found = *self.peek() == Kind::Symbol(symbol);
        if found {
            self.advance();
        }
        found
    }

    pub(super) fn expect_word(&mut self, word: &str) -> Result<()> {
        if self.take_word(word) { Ok(()) } else { Err(self.unexpected()) }
    }

    pub(super) fn expect_symbol(&mut self, symbol: char) -> Result<()> {
        if self.take_symbol(symbol) { Ok(()) } else { Err(self.unexpected()) }
    }

    /// The error for the next token.
    pub(super) fn unexpected(&self) -> Error {
        let token = self.token();
        let message = match token.kind {
            Kind::End => "syntax error at end of input".to_owned(),
            _ => format!("syntax error at or near \"{}\"", &self.text[token.start..token.end]),
        };
        self.error("42601", message, token.start)
    }

    pub(super) fn error(&self, state: &str, message: impl std::convert::Into<String>, offset: usize) -> Error {
        Error::raised(state, message.into()).at(Some(place_of(self.text, offset)))
    }

    /// `#variable_conflict use_column` and its like.
    fn options(&mut self) -> Result<Conflict> {
        let mut conflict = Conflict::default();
        while self.take_symbol('#') {
            let offset = self.offset();
            let (name, value) = (self.name()?, self.name()?);
            conflict = match (name.as_str(), value.as_str()) {
                ("variable_conflict", "error") => Conflict::Error,
                ("variable_conflict", "use_variable") => Conflict::UseVariable,
                ("variable_conflict", "use_column") => Conflict::UseColumn,
                _ => {
                    return Err(self.error("0A000", format!("the option #{name} {value} is not supported"), offset));
                }
            };
        }
        Ok(conflict)
    }

    fn label(&mut self) -> Result<Option<String>> {
        if *self.peek() != Kind::OpenLabel {
            return Ok(None);
        }
        self.advance();
        let label = self.name()?;
        match self.peek() {
            Kind::CloseLabel => {
                self.advance();
                Ok(Some(label))
            }
            _ => Err(self.unexpected()),
        }
    }

    pub(super) fn name(&mut self) -> Result<String> {
        match self.peek() {
            Kind::Word(name) | Kind::Quoted(name) => {
                let name = name.clone();
                self.advance();
                Ok(name)
            }
            _ => Err(self.unexpected()),
        }
    }

    fn path(&mut self) -> Result<Vec<String>> {
        let mut path = vec![self.name()?];
        while *self.peek() == Kind::Symbol('.') {
            self.advance();
            path.push(self.name()?);
        }
        Ok(path)
    }

    fn enter(&mut self) -> Result<()> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            let message = format!("more than {DEPTH_MAX} blocks inside each other");
            return Err(self.error("54001", message, self.offset()));
        }
        Ok(())
    }

    /// The text up to the first token outside of parentheses that `stops` accepts.
    pub(super) fn fragment(&mut self, stops: impl Fn(&Kind) -> bool) -> Result<Fragment> {
        let (start, mut open, mut end) = (self.offset(), 0usize, self.offset());
        loop {
            let token = self.token();
            match &token.kind {
                Kind::End => return Err(self.unexpected()),
                kind if open == 0 && stops(kind) => break,
                Kind::Symbol('(' | '[') => open += 1,
                Kind::Symbol(')' | ']') if open == 0 => return Err(self.unexpected()),
                Kind::Symbol(')' | ']') => open -= 1,
                Kind::Symbol(';') => return Err(self.unexpected()),
                _ => {}
            }
            end = token.end;
            self.advance();
        }
        if start == end {
            let found = &self.text[self.token().start..self.token().end];
            return Err(self.error("42601", format!("missing expression at or near \"{found}\""), start));
        }
        Ok(Fragment { text: self.text[start..end].to_owned(), offset: start })
    }

    /// An expression before `word`, which is taken, too.
    fn fragment_before(&mut self, word: &str) -> Result<Fragment> {
        let fragment = self.fragment(|kind| matches!(kind, Kind::Word(found) if found == word))?;
        self.advance();
        Ok(fragment)
    }

    /// An expression before `;`, which is taken, too.
    pub(super) fn fragment_to_end(&mut self) -> Result<Fragment> {
        let fragment = self.fragment(|kind| *kind == Kind::Symbol(';'))?;
        self.advance();
        Ok(fragment)
    }

    fn block(&mut self, label: Option<String>) -> Result<Block> {
        self.enter()?;
        let mut declarations = Vec::new();
        while self.take_word("declare") {
            while !self.is_word("begin") && !self.is_word("declare") {
                declarations.push(self.declaration()?);
            }
        }
        self.expect_word("begin")?;
        let body = self.statements()?;
        let mut handlers = Vec::new();
        if self.take_word("exception") {
            if !self.is_word("when") {
                return Err(self.unexpected());
            }
            while self.take_word("when") {
                handlers.push(self.handler()?);
            }
        }
        self.expect_word("end")?;
        self.end_label(label.as_deref())?;
        self.depth -= 1;
        Ok(Block { label, declarations, body, handlers })
    }

    /// The label that may be repeated at the end.
    fn end_label(&mut self, label: Option<&str>) -> Result<()> {
        if !matches!(self.peek(), Kind::Word(_) | Kind::Quoted(_)) {
            return Ok(());
        }
        let offset = self.offset();
        let found = self.name()?;
        match label {
            Some(label) if label == found => Ok(()),
            Some(label) => Err(self.error(
                "42601",
                format!("end label \"{found}\" differs from block's label \"{label}\""),
                offset,
            )),
            None => Err(self.error("42601", format!("end label \"{found}\" specified for unlabeled block"), offset)),
        }
    }

    fn declaration(&mut self) -> Result<Declaration> {
        let offset = self.offset();
        let name = self.name()?;
        if self.take_word("alias") {
            self.expect_word("for")?;
            let aliased = match self.peek() {
                Kind::Parameter => {
                    let aliased = self.text[self.token().start..self.token().end].to_owned();
                    self.advance();
                    aliased
                }
                _ => self.name()?,
            };
            self.expect_symbol(';')?;
            return Ok(Declaration { name, offset, kind: DeclarationKind::Alias(aliased) });
        }
        let constant = self.take_word("constant");
        if matches!(self.peek(), Kind::Word(word) if ["cursor", "no", "scroll", "refcursor"].contains(&word.as_str())) {
            return Err(self
                .error("0A000", "a cursor is not supported", offset)
                .with_hint("Loop over the query: FOR row IN query LOOP."));
        }
        let type_name = self.type_name()?;
        if self.take_word("collate") {
            return Err(self.error("0A000", "COLLATE of a variable is not supported", offset));
        }
        let not_null = self.is_word("not");
        if not_null {
            self.advance();
            self.expect_word("null")?;
        }
        let has_default = match self.peek() {
            Kind::Assign | Kind::Symbol('=') => true,
            Kind::Word(word) => word == "default",
            _ => false,
        };
        let default = match has_default {
            true => {
                self.advance();
                Some(self.fragment_to_end()?)
            }
            false => {
                self.expect_symbol(';')?;
                None
            }
        };
        if not_null && default.is_none() {
            let message = format!("variable \"{name}\" must have a default value, since it's declared NOT NULL");
            return Err(self.error("22004", message, offset));
        }
        let kind = DeclarationKind::Variable { constant, type_name, not_null, default };
        Ok(Declaration { name, offset, kind })
    }

    fn type_name(&mut self) -> Result<TypeText> {
        let ends = |kind: &Kind| match kind {
            Kind::Assign | Kind::Symbol(';' | '=') => true,
            Kind::Word(word) => ["default", "not", "collate"].contains(&word.as_str()),
            _ => false,
        };
        let first = self.next;
        let fragment =
            self.fragment(ends).map_err(|error| match error.message().starts_with("missing expression") {
                true => self.error("42601", "missing data type declaration", self.offset()),
                false => error,
            })?;
        let tokens: Vec<Kind> = self.tokens[first..self.next].iter().map(|token| token.kind.clone()).collect();
        if tokens == [Kind::Word("record".to_owned())] {
            return Ok(TypeText::Record);
        }
        let Some(percent) = tokens.iter().position(|kind| *kind == Kind::Symbol('%')) else {
            return Ok(TypeText::Named(fragment));
        };
        let path = tokens[..percent].iter().filter_map(|kind| match kind {
            Kind::Word(name) | Kind::Quoted(name) => Some(name.clone()),
            _ => None,
        });
        let path: Vec<String> = path.collect();
        match &tokens[percent + 1..] {
            [Kind::Word(word)] if word == "type" && !path.is_empty() => Ok(TypeText::Of(path)),
            [Kind::Word(word)] if word == "rowtype" && !path.is_empty() => Ok(TypeText::RowOf(path)),
            _ => Err(self.error("0A000", format!("the type {} is not supported", fragment.text), fragment.offset)),
        }
    }

    fn handler(&mut self) -> Result<Handler> {
        let mut conditions = Vec::new();
        loop {
            let offset = self.offset();
            let name = self.name()?;
            if name == "others" {
                conditions.push(Condition::Others);
            } else if name == "sqlstate" {
                conditions.push(Condition::State(self.state()?));
            } else {
                let states = states_of(&name);
                if states.is_empty() {
                    let message = format!("unrecognized exception condition \"{name}\"");
                    return Err(self.error("42704", message, offset));
                }
                conditions.extend(states.into_iter().map(|state| Condition::State(state.to_owned())));
            }
            if !self.take_word("or") {
                break;
            }
        }
        self.expect_word("then")?;
        Ok(Handler { conditions, body: self.statements()? })
    }

    /// `'22012'` after SQLSTATE.
    pub(super) fn state(&mut self) -> Result<String> {
        match self.peek() {
            Kind::Text(state) if is_state(state) => {
                let state = state.clone();
                self.advance();
                Ok(state)
            }
            Kind::Text(_) => Err(self.error("42601", "invalid SQLSTATE code", self.offset())),
            _ => Err(self.unexpected()),
        }
    }

    /// Statements up to a word that ends a list of them.
    fn statements(&mut self) -> Result<Vec<Statement>> {
        const ENDS: [&str; 6] = ["end", "else", "elsif", "elseif", "exception", "when"];
        let mut statements = Vec::new();
        loop {
            match self.peek() {
                Kind::Word(word) if ENDS.contains(&word.as_str()) && !self.is_assignment() => return Ok(statements),
                Kind::End => return Err(self.unexpected()),
                _ => statements.push(self.statement()?),
            }
        }
    }

    /// Whether an assignment comes: a path, a subscript perhaps, and `:=` or `=`.
    fn is_assignment(&self) -> bool {
        let is_name = |kind: &Kind| matches!(kind, Kind::Word(_) | Kind::Quoted(_));
        let mut ahead = 0;
        if !is_name(self.peek_at(ahead)) {
            return false;
        }
        ahead += 1;
        while *self.peek_at(ahead) == Kind::Symbol('.') && is_name(self.peek_at(ahead + 1)) {
            ahead += 2;
        }
        while *self.peek_at(ahead) == Kind::Symbol('[') {
            let mut open = 0usize;
            loop {
                match self.peek_at(ahead) {
                    Kind::Symbol('[') => open += 1,
                    Kind::Symbol(']') => open -= 1,
                    Kind::End | Kind::Symbol(';') => return false,
                    _ => {}
                }
                ahead += 1;
                if open == 0 {
                    break;
                }
            }
        }
        matches!(self.peek_at(ahead), Kind::Assign | Kind::Symbol('='))
    }

    /// What is assigned to.
    pub(super) fn target(&mut self) -> Result<Target> {
        let offset = self.offset();
        if *self.peek() == Kind::Parameter {
            let path = vec![self.text[self.token().start..self.token().end].to_owned()];
            self.advance();
            return Ok(Target { path, subscript: None, offset });
        }
        let path = self.path()?;
        let mut subscript = None;
        if self.take_symbol('[') {
            subscript = Some(self.fragment(|kind| *kind == Kind::Symbol(']'))?);
            self.advance();
            if *self.peek() == Kind::Symbol('[') {
                return Err(self.error("0A000", "an array of arrays is not supported", offset));
            }
        }
        Ok(Target { path, subscript, offset })
    }

    pub(super) fn targets(&mut self) -> Result<Vec<Target>> {
        let mut targets = vec![self.target()?];
        while self.take_symbol(',') {
            targets.push(self.target()?);
        }
        Ok(targets)
    }
}
