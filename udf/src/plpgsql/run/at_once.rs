//! Instructions that need no waiting: most of them, statements on the row path included. What is unusual about one (a piece
//! of SQL that is not compiled yet, a value that does not fit, a lock that somebody has) is left to the way that can wait,
//! and complain: as long as nothing has happened. After a statement has run, what goes wrong is said here.

use std::sync::Arc;

use rustydb_engine::routine::{Datum, Execution, RanAtOnce, Rows};
use rustydb_engine::{Error, Result};

use super::assign::{Assigned, put};
use super::{Call, Flow, LoopState, OpenBlock};
use crate::plpgsql::code::{Instruction, Into, Number, Place, Query};
use crate::plpgsql::frame::Cell;

impl Call<'_> {
    /// Runs an instruction. `None`: it may have to wait, and nothing has happened.
    pub(super) fn step_at_once(&mut self, execution: &mut Execution<'_>, at: usize) -> Option<Result<Flow>> {
        let code = self.code;
        let flow = match &code.instructions[at] {
            Instruction::Jump(to) => Flow::To(*to),
            Instruction::Repeat(to) if execution.jumps_at_once() => Flow::To(*to),
            Instruction::JumpUnless { condition, to } => match self.value_at_once(execution, *condition)? {
                Datum::Bool(true) => Flow::Next,
                Datum::Bool(false) | Datum::Null => Flow::To(*to),
                _ => return None,
            },
            Instruction::Assign { target, value } => {
                return Some(self.assign_at_once(execution, target, *value)?.map(|()| Flow::Next));
            }
            Instruction::Initialise { variable, default } => {
                self.frame[*variable] = self.linked.empty(*variable);
                let Some(default) = default else { return Some(Ok(Flow::Next)) };
                let place = Place { variable: *variable, field: None, subscript: None };
                return Some(self.assign_at_once(execution, &place, *default)?.map(|()| Flow::Next));
            }
            Instruction::EndLoop { number, sets_found } => {
                let any = match self.loops[*number].take() {
                    Some(
                        LoopState::Integer { any, .. } | LoopState::Rows { any, .. } | LoopState::Array { any, .. },
                    ) => any,
                    None => false,
                };
                if *sets_found {
                    self.set_found(any);
                }
                Flow::Next
            }
            Instruction::RaiseAgain => {
                let unhandled = || {
                    let message = "RAISE without parameters cannot be used outside an exception handler";
                    Error::raised("0Z002", message)
                };
                return Some(Err(self.handled.last().cloned().unwrap_or_else(unhandled)));
            }
            Instruction::BeginBlock(handlers) => {
                let start = execution.begin_block();
                self.blocks.push(OpenBlock { handlers, start, handled: self.handled.len() });
                Flow::Next
            }
            Instruction::EndBlock => {
                if let Some(block) = self.blocks.pop() {
                    execution.end_block(block.start);
                }
                Flow::Next
            }
            Instruction::EndHandler => {
                self.handled.pop();
                Flow::Next
            }
            Instruction::NoCase => {
                let error = Error::raised("20000", "case not found");
                return Some(Err(error.with_hint("CASE statement is missing ELSE part.")));
            }
            Instruction::Return(None) => return Some(self.finished().map(Flow::Return)),
            Instruction::End => return Some(self.end().map(Flow::Return)),
            Instruction::Run { statement, into, is_call: false } => {
                let ended = self.statement_at_once(execution, *statement, into.as_ref())?;
                return Some(ended.map(|()| Flow::Next));
            }
            Instruction::Perform(statement) => {
                let ended = self.ran_at_once(execution, *statement)?.and_then(|RanAtOnce { count, .. }| {
                    self.row_count = count;
                    self.set_found(count > 0);
                    self.relink(execution)
                });
                return Some(ended.map(|()| Flow::Next));
            }
            Instruction::ForRows { number, query: Query::Static(statement) } => {
                let linked = Arc::clone(&self.linked);
                let shape = linked.statements[*statement].first(|bound| bound.fits(&self.frame))?;
                let shape = shape.compiled.program_shape()?;
                let ended = self.ran_at_once(execution, *statement)?.map(|RanAtOnce { rows, .. }| {
                    let rows = Box::new(Rows::made(Arc::clone(shape), rows.unwrap_or_default()));
                    self.loops[*number] = Some(LoopState::Rows { rows, any: false });
                    Flow::Next
                });
                return Some(ended);
            }
            Instruction::Next { number, targets, body } => {
                return self.next_turn_at_once(execution, *number, targets, *body);
            }
            _ => return None,
        };
        Some(Ok(flow))
    }

    /// Takes the next turn of a loop.
    fn next_turn_at_once(
        &mut self,
        execution: &mut Execution<'_>,
        number: usize,
        targets: &[Place],
        body: usize,
    ) -> Option<Result<Flow>> {
        match &mut self.loops[number] {
            Some(LoopState::Integer { current, last, step, any: _ }) => {
                let [Place { variable, .. }] = targets else { return None };
                if !execution.jumps_at_once() {
                    return None;
                }
                // Bounds are integers of 32 bits, so this does not overflow.
                *current += *step;
                let more = if *step > 0 { current <= last } else { current >= last };
                if !more {
                    return Some(Ok(Flow::Next));
                }
                self.frame[*variable] = Cell::Scalar(Datum::Int(*current));
                Some(Ok(Flow::To(body)))
            }
            Some(LoopState::Rows { rows, any }) => {
                if has_subscript(targets) || !rows.is_made() || !execution.jumps_at_once() {
                    return None;
                }
                let row = rows.next_at_once()?;
                let more = row.is_some();
                if !more && *any {
                    return Some(Ok(Flow::Next));
                }
                *any |= more;
                let shape = Arc::clone(rows.shape());
                let put = self.put_row(targets, &shape, row);
                Some(put.map(|()| if more { Flow::To(body) } else { Flow::Next }))
            }
            _ => None,
        }
    }

    /// Runs a statement on the row path. `None`: it has to be run in another way, and nothing has happened.
    fn ran_at_once(&mut self, execution: &mut Execution<'_>, number: Number) -> Option<Result<RanAtOnce>> {
        let Call { linked, frame, inputs, .. } = self;
        let bound = linked.statements[number].first(|bound| bound.fits(frame))?;
        inputs.clear();
        bound.put_values(frame, &[], inputs).ok()?;
        execution.run_at_once(&bound.compiled, inputs)
    }

    /// The same with what follows: where its row goes to, and what FOUND is.
    fn statement_at_once(
        &mut self,
        execution: &mut Execution<'_>,
        number: Number,
        into: Option<&Into>,
    ) -> Option<Result<()>> {
        let linked = Arc::clone(&self.linked);
        let statement = &linked.statements[number].first(|bound| bound.fits(&self.frame))?.compiled;
        let Some(into) = into else {
            if statement.is_query() || statement.returns_rows() {
                return None;
            }
            return Some(self.ran_at_once(execution, number)?.and_then(|RanAtOnce { count, .. }| {
                self.row_count = count;
                if statement.changes_rows() {
                    self.set_found(count > 0);
                }
                self.relink(execution)
            }));
        };
        let shape = statement.program_shape()?;
        if has_subscript(&into.targets) {
            return None;
        }
        Some(self.ran_at_once(execution, number)?.and_then(|RanAtOnce { rows, .. }| {
            let mut rows = rows.unwrap_or_default().into_iter();
            let (first, second) = (rows.next(), rows.next());
            let found = first.is_some();
            self.require_rows(into, statement.is_query(), found, second.is_some())?;
            self.put_row(&into.targets, shape, first)?;
            self.set_found(found);
            self.relink(execution)
        }))
    }

    fn value_at_once(&mut self, execution: &Execution<'_>, number: Number) -> Option<Datum> {
        let Call { linked, frame, inputs, .. } = self;
        let bound = linked.expressions[number].first(|bound| bound.fits(frame))?;
        inputs.clear();
        bound.put_values(frame, &[], inputs).ok()?;
        bound.compiled.evaluate_now(inputs, execution.clock())
    }

    /// Assigns to a variable, a field, or an element of an array.
    fn assign_at_once(&mut self, execution: &Execution<'_>, target: &Place, number: Number) -> Option<Result<()>> {
        let value = self.value_at_once(execution, number)?;
        let subscript = match target.subscript {
            None => None,
            Some(subscript) => match self.value_at_once(execution, subscript)? {
                Datum::Int(at) if i32::try_from(at).is_ok() => Some(at),
                _ => return None,
            },
        };
        let Call { linked, code, frame, names, .. } = self;
        let bound = linked.expressions[number].first(|_| true)?;
        let given = Assigned { value, data_type: bound.compiled.data_type(), zone: names.zone() };
        Some(put(linked, code, frame, target, subscript, given))
    }
}

/// Whether an element of an array is among the targets: which one has to be computed.
pub(super) fn has_subscript(targets: &[Place]) -> bool {
    targets.iter().any(|target| target.subscript.is_some())
}
