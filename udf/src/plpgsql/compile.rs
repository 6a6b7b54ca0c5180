//! From the syntax tree to instructions: variables get numbers, loops and blocks become jumps, and pieces of SQL are
//! parsed. Nothing is looked up in the catalog; that comes with the first run.

use rustydb_engine::routine::{Returns, Source, SqlExpression, SqlStatement, SqlType};
use rustydb_engine::{Error, Position, Result};

use super::ast::{
    Block, Condition, DeclarationKind, ForInteger, Fragment, Into as IntoSyntax, QueryText, Raise, Statement,
    StatementKind, Target, TypeText,
};
use super::code::{
    Code, Declared, HandlerCode, Instruction, IntegerBounds, Into, Number, Place, Query, RaiseCode, Scope, Variable,
};
use super::lexer::place_of;
use super::parser::Body;
use super::raise::pieces;

/// Compiles the body of a routine.
pub(super) fn compile(source: &Source, body: Body) -> Result<Code> {
    let code = Code {
        instructions: Vec::new(),
        places: Vec::new(),
        expressions: Vec::new(),
        statements: Vec::new(),
        variables: Vec::new(),
        scopes: vec![Scope { parent: None, label: Some(source.name.clone()), names: Vec::new() }],
        conflict: body.conflict,
        loops: 0,
        inputs: Vec::new(),
        outputs: Vec::new(),
        numbered: Vec::new(),
    };
    let mut compiler = Compiler { source, code, scope: 0, open: Vec::new(), offset: 0, what: "statement block" };
    compiler.add_variable("found", Declared::Known(SqlType::plain(boolean())));
    for parameter in &source.parameters {
        let declared = Declared::Known(parameter.sql_type.clone());
        let number = match &parameter.name {
            Some(name) => compiler.add_variable(name, declared),
            None => compiler.add_unnamed(declared),
        };
        compiler.code.numbered.push(number);
        if parameter.mode.is_input() {
            compiler.code.inputs.push(number);
        }
        if parameter.mode.is_output() {
            compiler.code.outputs.push(number);
        }
    }
    if let Returns::Rows(shape) = &source.returns
        && source.names_columns
    {
        for (name, sql_type) in shape.names.iter().zip(&shape.types) {
            // A parameter of the same name is the one that is meant.
            let number = match compiler.find_in(0, name) {
                None => compiler.add_variable(name, Declared::Known(sql_type.clone())),
                Some(_) => compiler.add_unnamed(Declared::Known(sql_type.clone())),
            };
            compiler.code.outputs.push(number);
        }
    }
    compiler.block(&body.block)?;
    compiler.what = "";
    compiler.emit(Instruction::End);
    Ok(compiler.code)
}

fn boolean() -> arrow::datatypes::DataType {
    arrow::datatypes::DataType::Boolean
}

/// Something that an EXIT or RETURN may have to leave.
enum Open {
    Loop {
        label: Option<String>,
        number: usize,
        sets_found: bool,
        exits: Vec<usize>,
        again: Vec<usize>,
    },
    /// A labelled block can be left by EXIT, too.
    Block {
        label: Option<String>,
        exits: Vec<usize>,
        has_handlers: bool,
    },
    Handler,
}

struct Compiler<'a> {
    source: &'a Source,
    code: Code,
    scope: usize,
    open: Vec<Open>,
    /// Of the statement that is being compiled.
    offset: usize,
    what: &'static str,
}

impl Compiler<'_> {
    fn error(&self, state: &str, message: String, offset: usize) -> Error {
        Error::raised(state, message).at(Some(place_of(&self.source.body, offset)))
    }

    fn emit(&mut self, instruction: Instruction) -> usize {
        let line = place_of(&self.source.body, self.offset).line;
        self.code.instructions.push(instruction);
        self.code.places.push((line, self.what));
        self.code.instructions.len() - 1
    }

    fn here(&self) -> usize {
        self.code.instructions.len()
    }

    /// Makes a jump go to the next instruction.
    fn land(&mut self, jump: usize) {
        let here = self.here();
        match &mut self.code.instructions[jump] {
            Instruction::Jump(to) | Instruction::JumpUnless { to, .. } => *to = here,
            Instruction::ForInteger { exit, .. } => *exit = here,
            _ => {}
        }
    }

    fn add_unnamed(&mut self, declared: Declared) -> usize {
        let variable = Variable { name: String::new(), declared, not_null: false, constant: false };
        self.code.variables.push(variable);
        self.code.variables.len() - 1
    }

    fn add_variable(&mut self, name: &str, declared: Declared) -> usize {
        let number = self.add_unnamed(declared);
        self.code.variables[number].name = name.to_owned();
        self.code.scopes[self.scope].names.push((name.to_owned(), number));
        number
    }

    fn open_scope(&mut self, label: Option<String>) -> usize {
        let before = self.scope;
        self.code.scopes.push(Scope { parent: Some(before), label, names: Vec::new() });
        self.scope = self.code.scopes.len() - 1;
        before
    }

    fn find_in(&self, scope: usize, name: &str) -> Option<usize> {
        self.code.scopes[scope].names.iter().rev().find(|(known, _)| known == name).map(|(_, number)| *number)
    }

    fn expression(&mut self, fragment: &Fragment) -> Result<Number> {
        let parsed = SqlExpression::parse(&fragment.text).map_err(|error| self.moved(error, fragment))?;
        self.code.expressions.push((parsed, self.scope));
        Ok(self.code.expressions.len() - 1)
    }

    /// The default of a variable. It sees what its block has declared before it, and none of what comes after: a name that comes
    /// again there means what blocks around have.
    fn default(&mut self, fragment: &Fragment) -> Result<Number> {
        let block = &self.code.scopes[self.scope];
        let so_far = Scope { parent: block.parent, label: block.label.clone(), names: block.names.clone() };
        self.code.scopes.push(so_far);
        let scope = std::mem::replace(&mut self.scope, self.code.scopes.len() - 1);
        let number = self.expression(fragment);
        self.scope = scope;
        number
    }

    fn expressions(&mut self, fragments: &[Fragment]) -> Result<Vec<Number>> {
        fragments.iter().map(|fragment| self.expression(fragment)).collect()
    }

    fn statement_number(&mut self, fragment: &Fragment) -> Result<Number> {
        let parsed = SqlStatement::parse(&fragment.text).map_err(|error| self.moved(error, fragment))?;
        self.code.statements.push((parsed, self.scope));
        Ok(self.code.statements.len() - 1)
    }

    /// An error in a fragment, placed in the body.
    fn moved(&self, error: Error, fragment: &Fragment) -> Error {
        let start = place_of(&self.source.body, fragment.offset);
        let place = match error.position() {
            None => start,
            Some(Position { line: 1, column }) => Position { line: start.line, column: start.column + column - 1 },
            Some(Position { line, column }) => Position { line: start.line + line - 1, column },
        };
        error.moved_to(place)
    }

    fn block(&mut self, block: &Block) -> Result<()> {
        let Block { label, declarations, body, handlers } = block;
        let outer = self.open_scope(label.clone());
        let (what, offset) = (self.what, self.offset);
        for declaration in declarations {
            self.offset = declaration.offset;
            self.what = "statement block local variable initialization";
            if self.find_in(self.scope, &declaration.name).is_some() {
                let message = format!("duplicate declaration of \"{}\"", declaration.name);
                return Err(self.error("42601", message, declaration.offset));
            }
            match &declaration.kind {
                DeclarationKind::Alias(other) => {
                    let found = match other.strip_prefix('$') {
                        Some(digits) => {
                            let place = digits.parse::<usize>().ok().and_then(|number| number.checked_sub(1));
                            place.and_then(|place| self.code.numbered.get(place).copied())
                        }
                        None => {
                            find(&self.code.scopes, self.scope, std::slice::from_ref(other)).map(|(number, _)| number)
                        }
                    };
                    let Some(number) = found else {
                        let message = format!("variable \"{other}\" does not exist");
                        return Err(self.error("42704", message, declaration.offset));
                    };
                    self.code.scopes[self.scope].names.push((declaration.name.clone(), number));
                }
                DeclarationKind::Variable { constant, type_name, not_null, default } => {
                    let declared = self.declared(type_name);
                    let default = default.as_ref().map(|default| self.default(default)).transpose()?;
                    let number = self.add_variable(&declaration.name, declared);
                    self.code.variables[number].constant = *constant;
                    self.code.variables[number].not_null = *not_null;
                    self.emit(Instruction::Initialise { variable: number, default });
                }
            }
        }
        (self.what, self.offset) = (what, offset);
        let has_handlers = !handlers.is_empty();
        let begin = has_handlers.then(|| self.emit(Instruction::BeginBlock(Vec::new())));
        self.open.push(Open::Block { label: label.clone(), exits: Vec::new(), has_handlers });
        self.statements(body)?;
        let Some(Open::Block { exits, .. }) = self.open.pop() else {
            return Err(Error::raised("XX000", "blocks do not nest"));
        };
        let mut ends = Vec::new();
        if let Some(begin) = begin {
            self.emit(Instruction::EndBlock);
            ends.push(self.emit(Instruction::Jump(0)));
            let mut codes = Vec::with_capacity(handlers.len());
            // An EXIT in a handler can leave the block that the handler belongs to.
            self.open.push(Open::Block { label: label.clone(), exits: Vec::new(), has_handlers: false });
            for handler in handlers {
                let block_scope = self.open_scope(None);
                let state = self.add_variable("sqlstate", Declared::Known(SqlType::text()));
                let message = self.add_variable("sqlerrm", Declared::Known(SqlType::text()));
                let conditions = handler.conditions.iter().map(|condition| match condition {
                    Condition::Others => None,
                    Condition::State(state) => Some(state.clone()),
                });
                codes.push(HandlerCode { conditions: conditions.collect(), start: self.here(), state, message });
                self.open.push(Open::Handler);
                self.statements(&handler.body)?;
                self.open.pop();
                self.emit(Instruction::EndHandler);
                ends.push(self.emit(Instruction::Jump(0)));
                self.scope = block_scope;
            }
            if let Some(Open::Block { exits, .. }) = self.open.pop() {
                ends.extend(exits);
            }
            if let Instruction::BeginBlock(handlers) = &mut self.code.instructions[begin] {
                *handlers = codes;
            }
        }
        for jump in ends.into_iter().chain(exits) {
            self.land(jump);
        }
        self.scope = outer;
        Ok(())
    }

    fn declared(&self, type_name: &TypeText) -> Declared {
        match type_name {
            TypeText::Record => Declared::Record,
            TypeText::RowOf(path) => Declared::RowOf(path.clone()),
            TypeText::Named(fragment) => Declared::Named(fragment.text.clone()),
            TypeText::Of(path) => match find(&self.code.scopes, self.scope, path) {
                Some((number, [])) => Declared::OfVariable(number),
                _ => Declared::OfColumn(path.clone()),
            },
        }
    }

    fn statements(&mut self, statements: &[Statement]) -> Result<()> {
        for statement in statements {
            self.offset = statement.offset;
            self.what = name_of(&statement.kind);
            self.statement(statement)?;
        }
        Ok(())
    }

    fn place(&mut self, target: &Target) -> Result<Place> {
        let found = match target.path.as_slice() {
            [number] if number.starts_with('$') => {
                let place = number[1..].parse::<usize>().ok().and_then(|number| number.checked_sub(1));
                let found = place.and_then(|place| self.code.numbered.get(place).copied());
                found.map(|number| (number, &[][..]))
            }
            path => find(&self.code.scopes, self.scope, path),
        };
        let name = target.path.join(".");
        let Some((variable, rest)) = found else {
            return Err(self.error("42601", format!("\"{name}\" is not a known variable"), target.offset));
        };
        let field = match rest {
            [] => None,
            [field] => Some(field.clone()),
            _ => return Err(self.error("42601", format!("\"{name}\" is not a known variable"), target.offset)),
        };
        if self.code.variables[variable].constant {
            let message = format!("variable \"{}\" is declared CONSTANT", self.code.variables[variable].name);
            return Err(self.error("22005", message, target.offset));
        }
        let subscript = target.subscript.as_ref().map(|subscript| self.expression(subscript)).transpose()?;
        Ok(Place { variable, field, subscript })
    }

    fn places(&mut self, targets: &[Target]) -> Result<Vec<Place>> {
        targets.iter().map(|target| self.place(target)).collect()
    }

    fn into(&mut self, into: &Option<IntoSyntax>) -> Result<Option<Into>> {
        match into {
            None => Ok(None),
            Some(IntoSyntax { strict, targets }) => Ok(Some(Into { strict: *strict, targets: self.places(targets)? })),
        }
    }

    fn query(&mut self, query: &QueryText) -> Result<Query> {
        Ok(match query {
            QueryText::Static(fragment) => Query::Static(self.statement_number(fragment)?),
            QueryText::Dynamic { command, using } => {
                Query::Dynamic { command: self.expression(command)?, using: self.expressions(using)? }
            }
        })
    }

    fn statement(&mut self, statement: &Statement) -> Result<()> {
        let offset = statement.offset;
        match &statement.kind {
            StatementKind::Block(block) => self.block(block)?,
            StatementKind::Assign { target, value } => {
                let target = self.place(target)?;
                let value = self.expression(value)?;
                self.emit(Instruction::Assign { target, value });
            }
            StatementKind::If { branches, otherwise } => {
                let mut ends = Vec::new();
                for (condition, body) in branches {
                    (self.offset, self.what) = (offset, "IF");
                    let condition = self.expression(condition)?;
                    let skip = self.emit(Instruction::JumpUnless { condition, to: 0 });
                    self.statements(body)?;
                    ends.push(self.emit(Instruction::Jump(0)));
                    self.land(skip);
                }
                self.statements(otherwise)?;
                ends.into_iter().for_each(|jump| self.land(jump));
            }
            StatementKind::Case { operand, branches, otherwise } => {
                self.case(offset, operand.as_ref(), branches, otherwise.as_deref())?;
            }
            StatementKind::Loop { label, body } => {
                let number = self.begin_loop(label, false);
                let start = self.here();
                self.statements(body)?;
                (self.offset, self.what) = (offset, "LOOP");
                let next = self.here();
                self.emit(Instruction::Repeat(start));
                self.end_loop(number, next)?;
            }
            StatementKind::While { label, condition, body } => {
                let number = self.begin_loop(label, false);
                let start = self.here();
                let condition = self.expression(condition)?;
                let leave = self.emit(Instruction::JumpUnless { condition, to: 0 });
                self.statements(body)?;
                (self.offset, self.what) = (offset, "WHILE");
                let next = self.here();
                self.emit(Instruction::Repeat(start));
                self.land(leave);
                self.end_loop(number, next)?;
            }
            StatementKind::ForInteger(integer) => self.for_integer(offset, integer)?,
            StatementKind::ForQuery { label, targets, query, body } => {
                let what = self.what;
                let outer = self.open_scope(label.clone());
                let targets = self.places(targets)?;
                let query = self.query(query)?;
                let number = self.begin_loop(label, true);
                self.emit(Instruction::ForRows { number, query });
                self.loop_over(number, targets, body, (offset, what))?;
                self.scope = outer;
            }
            StatementKind::Foreach { label, target, array, body } => {
                let what = self.what;
                let outer = self.open_scope(label.clone());
                let targets = vec![self.place(target)?];
                let array = self.expression(array)?;
                let number = self.begin_loop(label, true);
                self.emit(Instruction::ForArray { number, array });
                self.loop_over(number, targets, body, (offset, what))?;
                self.scope = outer;
            }
            StatementKind::Exit { again, label, condition } => {
                self.exit(offset, *again, label.as_deref(), condition)?
            }
            StatementKind::Return(value) => self.return_value(value.as_ref(), offset)?,
            StatementKind::ReturnNext(value) => {
                self.require_set("RETURN NEXT", offset)?;
                let value = value.as_ref().map(|value| self.expression(value)).transpose()?;
                if value.is_none() && self.code.outputs.is_empty() {
                    return Err(self.error("42601", "RETURN NEXT must have a parameter".to_owned(), offset));
                }
                if value.is_some() && self.source.outputs().next().is_some() {
                    let message = "RETURN NEXT cannot have a parameter in function with OUT parameters".to_owned();
                    return Err(self.error("42804", message, offset));
                }
                self.emit(Instruction::ReturnNext(value));
            }
            StatementKind::ReturnQuery(query) => {
                self.require_set("RETURN QUERY", offset)?;
                let query = self.query(query)?;
                self.emit(Instruction::ReturnQuery(query));
            }
            StatementKind::Raise(raise) => self.raise(raise)?,
            StatementKind::Assert { condition, message } => {
                let condition = self.expression(condition)?;
                let message = message.as_ref().map(|message| self.expression(message)).transpose()?;
                self.emit(Instruction::Assert { condition, message });
            }
            StatementKind::Sql { statement, into } => {
                let number = self.statement_number(statement)?;
                let into = self.into(into)?;
                self.emit(Instruction::Run { statement: number, into, is_call: false });
            }
            StatementKind::Call { statement } => {
                let number = self.statement_number(statement)?;
                self.emit(Instruction::Run { statement: number, into: None, is_call: true });
            }
            StatementKind::Perform(fragment) => {
                let text = format!("SELECT {}", fragment.text);
                let query = Fragment { text, offset: fragment.offset.saturating_sub("SELECT ".len()) };
                let number = self.statement_number(&query)?;
                self.emit(Instruction::Perform(number));
            }
            StatementKind::Execute { command, into, using } => {
                let command = self.expression(command)?;
                let using = self.expressions(using)?;
                let into = self.into(into)?;
                self.emit(Instruction::Execute { command, using, into });
            }
            StatementKind::GetDiagnostics { stacked, items } => {
                let mut places = Vec::with_capacity(items.len());
                for (target, item) in items {
                    places.push((self.place(target)?, *item));
                }
                self.emit(Instruction::Diagnose { stacked: *stacked, items: places });
            }
            StatementKind::Commit => {
                self.emit(Instruction::Commit);
            }
            StatementKind::Rollback => {
                self.emit(Instruction::Rollback);
            }
            StatementKind::Null => {}
        }
        Ok(())
    }

    /// CASE is a chain of IFs, over a hidden variable if it has an operand.
    fn case(
        &mut self,
        offset: usize,
        operand: Option<&Fragment>,
        branches: &[(Vec<Fragment>, Vec<Statement>)],
        otherwise: Option<&[Statement]>,
    ) -> Result<()> {
        // A name that no text can have.
        const OPERAND: &str = "__case__";
        let outer = self.open_scope(None);
        if let Some(operand) = operand {
            let value = self.expression(operand)?;
            let variable = self.add_variable(OPERAND, Declared::Dynamic);
            let target = Place { variable, field: None, subscript: None };
            self.emit(Instruction::Assign { target, value });
        }
        let mut ends = Vec::new();
        for (values, body) in branches {
            (self.offset, self.what) = (offset, "CASE");
            let condition = match (operand, values.as_slice()) {
                (None, [condition]) => self.expression(condition)?,
                _ => {
                    let list: Vec<String> = values.iter().map(|value| format!("({})", value.text)).collect();
                    let start = values.first().map_or(offset, |value| value.offset);
                    let text = format!("{OPERAND} IN ({})", list.join(", "));
                    self.expression(&Fragment { text, offset: start })?
                }
            };
            let skip = self.emit(Instruction::JumpUnless { condition, to: 0 });
            self.statements(body)?;
            ends.push(self.emit(Instruction::Jump(0)));
            self.land(skip);
        }
        (self.offset, self.what) = (offset, "CASE");
        match otherwise {
            Some(body) => self.statements(body)?,
            None => {
                self.emit(Instruction::NoCase);
            }
        }
        ends.into_iter().for_each(|jump| self.land(jump));
        self.scope = outer;
        Ok(())
    }

    fn begin_loop(&mut self, label: &Option<String>, sets_found: bool) -> usize {
        let number = self.open.iter().filter(|open| matches!(open, Open::Loop { .. })).count();
        self.code.loops = self.code.loops.max(number + 1);
        let label = label.clone();
        self.open.push(Open::Loop { label, number, sets_found, exits: Vec::new(), again: Vec::new() });
        number
    }

    /// Ends a loop whose next turn begins at `next`.
    fn end_loop(&mut self, number: usize, next: usize) -> Result<()> {
        let Some(Open::Loop { exits, again, sets_found, .. }) = self.open.pop() else {
            return Err(Error::raised("XX000", "loops do not nest"));
        };
        for jump in again {
            if let Instruction::Jump(to) = &mut self.code.instructions[jump] {
                *to = next;
            }
        }
        exits.into_iter().for_each(|jump| self.land(jump));
        self.emit(Instruction::EndLoop { number, sets_found });
        Ok(())
    }

    /// The rest of a loop over something that was begun.
    fn loop_over(
        &mut self,
        number: usize,
        targets: Vec<Place>,
        body: &[Statement],
        (offset, what): (usize, &'static str),
    ) -> Result<()> {
        let to_next = self.emit(Instruction::Jump(0));
        let start = self.here();
        self.statements(body)?;
        (self.offset, self.what) = (offset, what);
        self.land(to_next);
        let next = self.here();
        self.emit(Instruction::Next { number, targets, body: start });
        self.end_loop(number, next)
    }

    fn for_integer(&mut self, offset: usize, integer: &ForInteger) -> Result<()> {
        let ForInteger { label, variable, reverse, from, to, by, body } = integer;
        let (from, to) = (self.expression(from)?, self.expression(to)?);
        let by = by.as_ref().map(|by| self.expression(by)).transpose()?;
        let bounds = Box::new(IntegerBounds { reverse: *reverse, from, to, by });
        let outer = self.open_scope(label.clone());
        let declared = Declared::Known(SqlType::plain(arrow::datatypes::DataType::Int32));
        let variable = self.add_variable(variable, declared);
        let number = self.begin_loop(label, true);
        let begin = self.emit(Instruction::ForInteger { number, variable, bounds, exit: 0 });
        let start = self.here();
        self.statements(body)?;
        (self.offset, self.what) = (offset, "FOR with integer loop variable");
        let next = self.here();
        let targets = vec![Place { variable, field: None, subscript: None }];
        self.emit(Instruction::Next { number, targets, body: start });
        self.land(begin);
        self.end_loop(number, next)?;
        self.scope = outer;
        Ok(())
    }

    /// What has to be undone to leave everything that was opened from `from` on, inside out.
    fn leave_from(&mut self, from: usize) {
        let mut undo = Vec::new();
        for open in self.open[from..].iter().rev() {
            match open {
                Open::Loop { number, sets_found, .. } => {
                    undo.push(Instruction::EndLoop { number: *number, sets_found: *sets_found });
                }
                Open::Block { has_handlers: true, .. } => undo.push(Instruction::EndBlock),
                Open::Block { .. } => {}
                Open::Handler => undo.push(Instruction::EndHandler),
            }
        }
        for instruction in undo {
            self.emit(instruction);
        }
    }

    fn exit(&mut self, offset: usize, again: bool, label: Option<&str>, condition: &Option<Fragment>) -> Result<()> {
        let skip = match condition {
            Some(condition) => {
                let condition = self.expression(condition)?;
                Some(self.emit(Instruction::JumpUnless { condition, to: 0 }))
            }
            None => None,
        };
        let found = self.open.iter().rposition(|open| match (open, label) {
            (Open::Loop { .. }, None) => true,
            (Open::Loop { label: Some(known), .. }, Some(label)) => known == label,
            (Open::Block { label: Some(known), .. }, Some(label)) => known == label,
            _ => false,
        });
        let Some(found) = found else {
            let word = if again { "CONTINUE" } else { "EXIT" };
            return Err(match label {
                Some(label) => {
                    let message =
                        format!("there is no label \"{label}\" attached to any block or loop enclosing this statement");
                    self.error("42601", message, offset)
                }
                None => {
                    let message = match again {
                        true => format!("{word} cannot be used outside a loop"),
                        false => format!("{word} cannot be used outside a loop, unless it has a label"),
                    };
                    self.error("42601", message, offset)
                }
            });
        };
        match &self.open[found] {
            Open::Block { .. } if again => {
                let message = format!("block label \"{}\" cannot be used in CONTINUE", label.unwrap_or_default());
                return Err(self.error("42601", message, offset));
            }
            Open::Block { has_handlers, .. } => {
                let ends_block = *has_handlers;
                self.leave_from(found + 1);
                if ends_block {
                    self.emit(Instruction::EndBlock);
                }
            }
            _ => self.leave_from(found + 1),
        }
        let jump = self.emit(Instruction::Jump(0));
        match &mut self.open[found] {
            Open::Loop { again: repeats, .. } if again => repeats.push(jump),
            Open::Loop { exits, .. } | Open::Block { exits, .. } => exits.push(jump),
            Open::Handler => {}
        }
        if let Some(skip) = skip {
            self.land(skip);
        }
        Ok(())
    }

    fn require_set(&self, what: &str, offset: usize) -> Result<()> {
        match self.source.returns.is_set() {
            true => Ok(()),
            false => Err(self.error("42804", format!("cannot use {what} in a non-SETOF function"), offset)),
        }
    }

    fn return_value(&mut self, value: Option<&Fragment>, offset: usize) -> Result<()> {
        let has_outputs = self.source.outputs().next().is_some();
        let refused = |message: &str| Err(self.error("42804", message.to_owned(), offset));
        match (&self.source.returns, value) {
            (_, Some(_)) if self.source.is_procedure => {
                let message = "RETURN cannot have a parameter in a procedure";
                return Err(self.error("42601", message.to_owned(), offset));
            }
            (returns, Some(_)) if returns.is_set() => {
                return Err(self
                    .error("42804", "RETURN cannot have a parameter in function returning set".to_owned(), offset)
                    .with_hint("Use RETURN NEXT or RETURN QUERY."));
            }
            (_, Some(_)) if has_outputs => {
                return refused("RETURN cannot have a parameter in function with OUT parameters");
            }
            (Returns::Void, Some(_)) => return refused("RETURN cannot have a parameter in function returning void"),
            (Returns::Value(_), None) if !has_outputs => {
                return Err(self.error("42601", "missing expression at or near \";\"".to_owned(), offset));
            }
            _ => {}
        }
        let value = value.map(|value| self.expression(value)).transpose()?;
        self.emit(Instruction::Return(value));
        Ok(())
    }

    fn raise(&mut self, raise: &Raise) -> Result<()> {
        let Raise { level, again, state, condition, format, arguments, options } = raise;
        if *again {
            self.emit(Instruction::RaiseAgain);
            return Ok(());
        }
        let arguments = self.expressions(arguments)?;
        let mut values = Vec::with_capacity(options.len());
        for (option, value) in options {
            values.push((*option, self.expression(value)?));
        }
        self.emit(Instruction::Raise(Box::new(RaiseCode {
            level: *level,
            state: state.clone(),
            condition: condition.clone(),
            format: format.as_deref().map(pieces),
            arguments,
            options: values,
        })));
        Ok(())
    }
}

/// The variable that a path begins with, and what is left of the path.
pub(super) fn find<'a>(scopes: &[Scope], from: usize, path: &'a [String]) -> Option<(usize, &'a [String])> {
    let (first, rest) = path.split_first()?;
    let mut next = Some(from);
    while let Some(number) = next {
        let scope = &scopes[number];
        let named = |name: &str| scope.names.iter().rev().find(|(known, _)| known == name).map(|(_, number)| *number);
        if let Some(variable) = named(first) {
            return Some((variable, rest));
        }
        if scope.label.as_ref() == Some(first)
            && let Some((second, rest)) = rest.split_first()
            && let Some(variable) = named(second)
        {
            return Some((variable, rest));
        }
        next = scope.parent;
    }
    None
}

/// What PostgreSQL calls a statement in the context of an error.
fn name_of(kind: &StatementKind) -> &'static str {
    match kind {
        StatementKind::Block(_) => "statement block",
        StatementKind::Assign { .. } => "assignment",
        StatementKind::If { .. } => "IF",
        StatementKind::Case { .. } => "CASE",
        StatementKind::Loop { .. } => "LOOP",
        StatementKind::While { .. } => "WHILE",
        StatementKind::ForInteger(_) => "FOR with integer loop variable",
        StatementKind::ForQuery { query: QueryText::Static(_), .. } => "FOR over SELECT rows",
        StatementKind::ForQuery { .. } => "FOR over EXECUTE statement",
        StatementKind::Foreach { .. } => "FOREACH over array",
        StatementKind::Exit { again: true, .. } => "CONTINUE",
        StatementKind::Exit { .. } => "EXIT",
        StatementKind::Return(_) => "RETURN",
        StatementKind::ReturnNext(_) => "RETURN NEXT",
        StatementKind::ReturnQuery(_) => "RETURN QUERY",
        StatementKind::Raise(_) => "RAISE",
        StatementKind::Assert { .. } => "ASSERT",
        StatementKind::Sql { .. } => "SQL statement",
        StatementKind::Call { .. } => "CALL",
        StatementKind::Perform(_) => "PERFORM",
        StatementKind::Execute { .. } => "EXECUTE",
        StatementKind::GetDiagnostics { .. } => "GET DIAGNOSTICS",
        StatementKind::Commit => "COMMIT",
        StatementKind::Rollback => "ROLLBACK",
        StatementKind::Null => "NULL",
    }
}
