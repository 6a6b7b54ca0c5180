//! The statements of a PL/pgSQL body: assignments, branches, loops, what leaves them, dynamic SQL, and SQL itself.

use rustydb_engine::Result;

use super::Parser;
use crate::plpgsql::ast::{ForInteger, Fragment, Into, Item, QueryText, Statement, StatementKind, Target};
use crate::plpgsql::lexer::Kind;

impl Parser<'_> {
    pub(super) fn statement(&mut self) -> Result<Statement> {
        let offset = self.offset();
        let label = self.label()?;
        if label.is_some() && !["declare", "begin", "loop", "while", "for", "foreach"].iter().any(|w| self.is_word(w)) {
            return Err(self.unexpected());
        }
        let kind = self.statement_kind(label)?;
        Ok(Statement { offset, kind })
    }

    fn statement_kind(&mut self, label: Option<String>) -> Result<StatementKind> {
        if label.is_none() && (self.is_assignment() || *self.peek() == Kind::Parameter) {
            let target = self.target()?;
            if !matches!(self.peek(), Kind::Assign | Kind::Symbol('=')) {
                return Err(self.unexpected());
            }
            self.advance();
            return Ok(StatementKind::Assign { target, value: self.fragment_to_end()? });
        }
        let Kind::Word(word) = self.peek().clone() else { return self.sql() };
        match word.as_str() {
            "declare" | "begin" => {
                let block = self.block(label)?;
                self.expect_symbol(';')?;
                Ok(StatementKind::Block(block))
            }
            "if" => self.if_statement(),
            "case" => self.case_statement(),
            "loop" => {
                self.advance();
                let body = self.loop_body(label.as_deref())?;
                Ok(StatementKind::Loop { label, body })
            }
            "while" => {
                self.advance();
                let condition = self.fragment_before("loop")?;
                let body = self.loop_body(label.as_deref())?;
                Ok(StatementKind::While { label, condition, body })
            }
            "for" => self.for_statement(label),
            "foreach" => self.foreach_statement(label),
            "exit" | "continue" => self.exit_statement(word == "continue"),
            "return" => self.return_statement(),
            "raise" => {
                self.advance();
                crate::plpgsql::raise::parse(self).map(StatementKind::Raise)
            }
            "assert" => {
                self.advance();
                let ends = |kind: &Kind| matches!(kind, Kind::Symbol(',' | ';'));
                let condition = self.fragment(ends)?;
                let message = if self.take_symbol(',') { Some(self.fragment(ends)?) } else { None };
                self.expect_symbol(';')?;
                Ok(StatementKind::Assert { condition, message })
            }
            "perform" => {
                self.advance();
                Ok(StatementKind::Perform(self.fragment_to_end()?))
            }
            "execute" => self.execute_statement(),
            "get" => self.get_diagnostics(),
            "null" => {
                self.advance();
                self.expect_symbol(';')?;
                Ok(StatementKind::Null)
            }
            "commit" | "rollback" if !matches!(self.peek_at(1), Kind::Word(next) if next == "to") => {
                self.transaction_end(word == "commit")
            }
            "call" => {
                let statement = self.fragment_to_end()?;
                Ok(StatementKind::Call { statement })
            }
            "open" | "fetch" | "close" | "move" => Err(self
                .error("0A000", "a cursor is not supported", self.offset())
                .with_hint("Loop over the query: FOR row IN query LOOP.")),
            "do" => Err(self.error("0A000", "DO inside a routine is not supported", self.offset())),
            "savepoint" | "release" | "start" | "abort" | "rollback" => Err(self
                .error(
                    "0A000",
                    format!("unsupported transaction command in PL/pgSQL: {}", word.to_uppercase()),
                    self.offset(),
                )
                .with_hint("Use a PL/pgSQL block with an EXCEPTION clause instead.")),
            _ => self.sql(),
        }
    }

    fn if_statement(&mut self) -> Result<StatementKind> {
        self.enter()?;
        self.advance();
        let mut branches = Vec::new();
        let mut otherwise = Vec::new();
        let condition = self.fragment_before("then")?;
        branches.push((condition, self.statements()?));
        loop {
            if self.take_word("elsif") || self.take_word("elseif") {
                let condition = self.fragment_before("then")?;
                branches.push((condition, self.statements()?));
            } else if self.take_word("else") {
                otherwise = self.statements()?;
                break;
            } else {
                break;
            }
        }
        self.expect_word("end")?;
        self.expect_word("if")?;
        self.expect_symbol(';')?;
        self.depth -= 1;
        Ok(StatementKind::If { branches, otherwise })
    }

    fn case_statement(&mut self) -> Result<StatementKind> {
        self.enter()?;
        self.advance();
        let operand = match self.is_word("when") {
            true => None,
            false => Some(self.fragment(|kind| matches!(kind, Kind::Word(word) if word == "when"))?),
        };
        let mut branches = Vec::new();
        while self.take_word("when") {
            let ends = |kind: &Kind| match kind {
                Kind::Word(word) => word == "then",
                Kind::Symbol(',') => operand.is_some(),
                _ => false,
            };
            let mut values = vec![self.fragment(ends)?];
            while self.take_symbol(',') {
                values.push(self.fragment(ends)?);
            }
            self.expect_word("then")?;
            branches.push((values, self.statements()?));
        }
        let otherwise = if self.take_word("else") { Some(self.statements()?) } else { None };
        self.expect_word("end")?;
        self.expect_word("case")?;
        self.expect_symbol(';')?;
        self.depth -= 1;
        Ok(StatementKind::Case { operand, branches, otherwise })
    }

    /// After LOOP, to the semicolon behind END LOOP.
    fn loop_body(&mut self, label: Option<&str>) -> Result<Vec<Statement>> {
        self.enter()?;
        let body = self.statements()?;
        self.expect_word("end")?;
        self.expect_word("loop")?;
        self.end_label(label)?;
        self.expect_symbol(';')?;
        self.depth -= 1;
        Ok(body)
    }

    fn for_statement(&mut self, label: Option<String>) -> Result<StatementKind> {
        self.advance();
        let start = self.offset();
        let targets = self.targets()?;
        self.expect_word("in")?;
        if self.is_integer_loop() {
            let [Target { path, subscript: None, .. }] = targets.as_slice() else {
                return Err(self.error("42601", "integer FOR loop must have only one target variable", start));
            };
            let [variable] = path.as_slice() else {
                return Err(self.error("42601", "integer FOR loop must have only one target variable", start));
            };
            let variable = variable.clone();
            let reverse = self.take_word("reverse");
            let from = self.fragment(|kind| *kind == Kind::DotDot)?;
            self.advance();
            let to = self.fragment(|kind| matches!(kind, Kind::Word(word) if word == "loop" || word == "by"))?;
            let by = match self.take_word("by") {
                true => Some(self.fragment(|kind| matches!(kind, Kind::Word(word) if word == "loop"))?),
                false => None,
            };
            self.expect_word("loop")?;
            let body = self.loop_body(label.as_deref())?;
            let integer = ForInteger { label, variable, reverse, from, to, by, body };
            return Ok(StatementKind::ForInteger(Box::new(integer)));
        }
        let query = if self.take_word("execute") {
            let ends = |kind: &Kind| matches!(kind, Kind::Word(word) if word == "loop" || word == "using");
            let command = self.fragment(ends)?;
            let using = if self.take_word("using") { self.using(&["loop"])? } else { Vec::new() };
            QueryText::Dynamic { command, using }
        } else {
            QueryText::Static(self.fragment(|kind| matches!(kind, Kind::Word(word) if word == "loop"))?)
        };
        self.expect_word("loop")?;
        let body = self.loop_body(label.as_deref())?;
        Ok(StatementKind::ForQuery { label, targets, query, body })
    }

    /// Whether `..` comes before LOOP.
    fn is_integer_loop(&self) -> bool {
        let mut open = 0usize;
        for token in &self.tokens[self.next..] {
            match &token.kind {
                Kind::DotDot if open == 0 => return true,
                Kind::Word(word) if word == "loop" && open == 0 => return false,
                Kind::Symbol('(' | '[') => open += 1,
                Kind::Symbol(')' | ']') => open = open.saturating_sub(1),
                Kind::Symbol(';') => return false,
                _ => {}
            }
        }
        false
    }

    fn foreach_statement(&mut self, label: Option<String>) -> Result<StatementKind> {
        self.advance();
        let target = self.target()?;
        if self.is_word("slice") {
            return Err(self.error("0A000", "FOREACH … SLICE is not supported", self.offset()));
        }
        self.expect_word("in")?;
        self.expect_word("array")?;
        let array = self.fragment_before("loop")?;
        let body = self.loop_body(label.as_deref())?;
        Ok(StatementKind::Foreach { label, target, array, body })
    }

    fn exit_statement(&mut self, again: bool) -> Result<StatementKind> {
        self.advance();
        let label = match self.peek() {
            Kind::Word(word) if word == "when" => None,
            Kind::Word(_) | Kind::Quoted(_) => Some(self.name()?),
            _ => None,
        };
        let condition = match self.take_word("when") {
            true => Some(self.fragment_to_end()?),
            false => {
                self.expect_symbol(';')?;
                None
            }
        };
        Ok(StatementKind::Exit { again, label, condition })
    }

    fn return_statement(&mut self) -> Result<StatementKind> {
        self.advance();
        if self.take_symbol(';') {
            return Ok(StatementKind::Return(None));
        }
        if self.take_word("next") {
            let value = if self.take_symbol(';') { None } else { Some(self.fragment_to_end()?) };
            return Ok(StatementKind::ReturnNext(value));
        }
        if self.take_word("query") {
            let query = match self.take_word("execute") {
                true => {
                    let ends = |kind: &Kind| match kind {
                        Kind::Symbol(';') => true,
                        Kind::Word(word) => word == "using",
                        _ => false,
                    };
                    let command = self.fragment(ends)?;
                    let using = if self.take_word("using") { self.using(&[])? } else { Vec::new() };
                    self.expect_symbol(';')?;
                    QueryText::Dynamic { command, using }
                }
                false => QueryText::Static(self.fragment_to_end()?),
            };
            return Ok(StatementKind::ReturnQuery(query));
        }
        Ok(StatementKind::Return(Some(self.fragment_to_end()?)))
    }

    /// Values separated by commas, up to `;` or one of `words`.
    fn using(&mut self, words: &[&str]) -> Result<Vec<Fragment>> {
        let ends = |kind: &Kind| match kind {
            Kind::Symbol(',' | ';') => true,
            Kind::Word(word) => words.contains(&word.as_str()),
            _ => false,
        };
        let mut values = vec![self.fragment(ends)?];
        while self.take_symbol(',') {
            values.push(self.fragment(ends)?);
        }
        Ok(values)
    }

    fn parse_targets(&mut self) -> Result<Into> {
        let strict = self.take_word("strict");
        Ok(Into { strict, targets: self.targets()? })
    }

    fn execute_statement(&mut self) -> Result<StatementKind> {
        self.advance();
        let ends = |kind: &Kind| match kind {
            Kind::Symbol(';') => true,
            Kind::Word(word) => word == "using" || word == "into",
            _ => false,
        };
        let command = self.fragment(ends)?;
        let (mut into, mut using) = (None, Vec::new());
        loop {
            if into.is_none() && self.take_word("into") {
                into = Some(self.parse_targets()?);
            } else if using.is_empty() && self.take_word("using") {
                using = self.using(&["into"])?;
            } else {
                break;
            }
        }
        self.expect_symbol(';')?;
        Ok(StatementKind::Execute { command, into, using })
    }

    fn get_diagnostics(&mut self) -> Result<StatementKind> {
        self.advance();
        let stacked = self.take_word("stacked");
        if !stacked {
            self.take_word("current");
        }
        self.expect_word("diagnostics")?;
        let mut items = Vec::new();
        loop {
            let target = self.target()?;
            if !matches!(self.peek(), Kind::Assign | Kind::Symbol('=')) {
                return Err(self.unexpected());
            }
            self.advance();
            let offset = self.offset();
            let name = self.name()?;
            let (item, of_stacked) = match name.as_str() {
                "row_count" => (Item::RowCount, false),
                "pg_context" => (Item::Context, false),
                "returned_sqlstate" => (Item::ReturnedSqlstate, true),
                "message_text" => (Item::MessageText, true),
                "pg_exception_detail" => (Item::ExceptionDetail, true),
                "pg_exception_hint" => (Item::ExceptionHint, true),
                "pg_exception_context" => (Item::ExceptionContext, true),
                "column_name" | "constraint_name" | "pg_datatype_name" | "table_name" | "schema_name" => {
                    (Item::Unknown, true)
                }
                _ => {
                    return Err(self.error("42601", "unrecognized GET DIAGNOSTICS item", offset));
                }
            };
            if of_stacked != stacked {
                let which = if stacked { "STACKED" } else { "CURRENT" };
                let message =
                    format!("diagnostics item {} is not allowed in GET {which} DIAGNOSTICS", name.to_uppercase());
                return Err(self.error("42601", message, offset));
            }
            items.push((target, item));
            if !self.take_symbol(',') {
                break;
            }
        }
        self.expect_symbol(';')?;
        Ok(StatementKind::GetDiagnostics { stacked, items })
    }

    fn transaction_end(&mut self, commit: bool) -> Result<StatementKind> {
        self.advance();
        let _ = self.take_word("work") || self.take_word("transaction");
        if self.take_word("and") {
            let no = self.take_word("no");
            let offset = self.offset();
            self.expect_word("chain")?;
            if !no {
                return Err(self.error("0A000", "AND CHAIN in a procedure is not supported", offset));
            }
        }
        self.expect_symbol(';')?;
        Ok(if commit { StatementKind::Commit } else { StatementKind::Rollback })
    }

    /// A statement of SQL, with INTO cut out of it.
    fn sql(&mut self) -> Result<StatementKind> {
        let start = self.offset();
        if !matches!(self.peek(), Kind::Word(_) | Kind::Symbol('(')) {
            return Err(self.unexpected());
        }
        let (mut open, mut end, mut previous) = (0usize, start, String::new());
        let mut cut: Option<(usize, usize, Into)> = None;
        loop {
            let (kind, token_start, token_end) = {
                let token = self.token();
                (token.kind.clone(), token.start, token.end)
            };
            let mut word = String::new();
            match kind {
                Kind::End => return Err(self.unexpected()),
                Kind::Symbol(';') if open == 0 => break,
                Kind::Symbol('(' | '[') => open += 1,
                Kind::Symbol(')' | ']') => match open.checked_sub(1) {
                    Some(less) => open = less,
                    None => return Err(self.unexpected()),
                },
                Kind::Word(found) => {
                    if found == "into" && open == 0 && previous != "insert" && previous != "merge" {
                        if cut.is_some() {
                            return Err(self.error("42601", "INTO specified more than once", token_start));
                        }
                        self.advance();
                        let into = self.parse_targets()?;
                        cut = Some((token_start, self.offset(), into));
                        end = self.offset();
                        continue;
                    }
                    word = found;
                }
                _ => {}
            }
            previous = word;
            end = end.max(token_end);
            self.advance();
        }
        self.advance();
        let mut text = self.text[start..end].to_owned();
        let into = cut.map(|(from, to, into)| {
            // Blanks in the place of INTO keep the places of errors.
            let (from, to) = (from - start, to.min(end) - start);
            let blanks: String = text[from..to].chars().map(|letter| if letter == '\n' { '\n' } else { ' ' }).collect();
            text.replace_range(from..to, &blanks);
            into
        });
        let text = text.trim_end().to_owned();
        Ok(StatementKind::Sql { statement: Fragment { text, offset: start }, into })
    }
}
