//! Running instructions: one loop over them, with the frame, the loops and the open blocks of one call.
//!
//! Invariant: an error leaves the call, or goes on in the handler of the innermost block that has one for it; the block's
//! changes are undone before. What a routine does not handle keeps its SQLSTATE and message, and gets a line that says
//! where it was.

mod assign;
mod at_once;
mod report;
mod results;
mod statements;

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::datatypes::DataType;
use rustydb_engine::routine::{
    CompiledExpression, CompiledStatement, Datum, Execution, Mark, Names, Outcome, Ran, Rows, Source, SqlType,
};
use rustydb_engine::{Error, Result};

use super::code::{Code, FOUND, HandlerCode, Instruction, Number, Place};
use super::conditions::matches;
use super::frame::{Bound, Cell, Kind, LinkedCode, Record, Sight};
use crate::linked::{Held, Linked};

/// One call of a routine.
pub(super) struct Call<'c> {
    source: &'c Source,
    code: &'c Code,
    cache: &'c Linked<LinkedCode>,
    names: Names,
    /// Shared with all who call the routine, and behind a counter of this call's own: who holds it for the time of a
    /// statement counts here.
    #[expect(clippy::redundant_allocation, reason = "the outer counter is there to spare the inner one")]
    linked: Arc<Arc<LinkedCode>>,
    frame: Vec<Cell>,
    loops: Vec<Option<LoopState>>,
    blocks: Vec<OpenBlock<'c>>,
    /// The errors that are being handled, the innermost last.
    handled: Vec<Error>,
    rows: Vec<Vec<Datum>>,
    rows_bytes: usize,
    row_count: u64,
    /// Where inputs of expressions are put together.
    inputs: Vec<Datum>,
}

struct OpenBlock<'c> {
    handlers: &'c [HandlerCode],
    start: Option<Mark>,
    handled: usize,
}

enum LoopState {
    Integer { current: i64, last: i64, step: i64, any: bool },
    Rows { rows: Box<Rows>, any: bool },
    Array { values: VecDeque<Datum>, element: DataType, any: bool },
}

/// What an instruction leads to.
enum Flow {
    Next,
    To(usize),
    Return(Outcome),
}

impl<'c> Call<'c> {
    pub(super) fn new(
        source: &'c Source,
        code: &'c Code,
        cache: &'c Linked<LinkedCode>,
        execution: &Execution<'_>,
        arguments: Vec<Datum>,
    ) -> Result<Self> {
        let names = execution.names();
        let linked = Arc::new(cache.get(&names, || LinkedCode::new(code, execution))?);
        let frame = (0..code.variables.len()).map(|variable| linked.empty(variable)).collect();
        let mut call = Call {
            source,
            code,
            cache,
            names,
            linked,
            frame,
            loops: (0..code.loops).map(|_| None).collect(),
            blocks: Vec::new(),
            handled: Vec::new(),
            rows: Vec::new(),
            rows_bytes: 0,
            row_count: 0,
            inputs: Vec::new(),
        };
        call.frame[FOUND] = Cell::Scalar(Datum::Bool(false));
        for (variable, value) in code.inputs.iter().zip(arguments) {
            call.frame[*variable] = match &call.linked.kinds[*variable] {
                Kind::Scalar(_) => Cell::Scalar(value),
                Kind::Row(shape) => {
                    Cell::Record(Some(Record { shape: Arc::clone(shape), values: shape.from_row(&value)? }))
                }
                Kind::Record | Kind::Dynamic => return Err(Error::raised("XX000", "a parameter of no type")),
            };
        }
        Ok(call)
    }

    /// Runs the body to its end.
    pub(super) async fn run(&mut self, execution: &mut Execution<'_>) -> Result<Outcome> {
        let mut at = 0;
        loop {
            let flow = match self.step_at_once(execution, at) {
                Some(flow) => flow,
                None => Box::pin(self.step(execution, at)).await,
            };
            match flow {
                Ok(Flow::Next) => at += 1,
                Ok(Flow::To(to)) => at = to,
                Ok(Flow::Return(outcome)) => {
                    while let Some(block) = self.blocks.pop() {
                        execution.end_block(block.start);
                    }
                    return Ok(outcome);
                }
                Err(error) => match self.handle(execution, error, at)? {
                    Some(handler) => at = handler,
                    None => return Err(Error::raised("XX000", "an error got lost")),
                },
            }
        }
    }

    /// Finds the handler for an error and goes back to where its block began; fails if there is none.
    fn handle(&mut self, execution: &mut Execution<'_>, error: Error, at: usize) -> Result<Option<usize>> {
        let (line, what) = self.code.places[at];
        let signature = &self.source.signature;
        let error = error.in_routine(&match what {
            "" => format!("PL/pgSQL function {signature}"),
            what if what.starts_with("statement block local") => {
                format!("PL/pgSQL function {signature} line {line} during {what}")
            }
            what => format!("PL/pgSQL function {signature} line {line} at {what}"),
        });
        let may_handle = execution.may_handle(&error);
        while let Some(block) = self.blocks.pop() {
            execution.undo_block(block.start);
            let state = error.sqlstate();
            let takes = |handler: &&HandlerCode| {
                handler.conditions.iter().any(|condition| match condition {
                    Some(condition) => matches(condition, state),
                    None => !["57014", "P0004"].contains(&state),
                })
            };
            if may_handle && let Some(handler) = block.handlers.iter().find(takes) {
                self.frame[handler.state] = Cell::Scalar(Datum::text(state));
                self.frame[handler.message] = Cell::Scalar(Datum::text(error.message()));
                self.handled.truncate(block.handled);
                self.handled.push(error);
                return Ok(Some(handler.start));
            }
        }
        Err(error)
    }

    /// Runs an instruction that could not be run at once. What is seldom, or waits for the ordinary path anyhow, is in a box of
    /// its own: the state of this function is as large as the largest thing in it.
    async fn step(&mut self, execution: &mut Execution<'_>, at: usize) -> Result<Flow> {
        let code = self.code;
        match &code.instructions[at] {
            Instruction::Initialise { variable, default } => {
                self.frame[*variable] = self.linked.empty(*variable);
                if let Some(default) = default {
                    let place = Place { variable: *variable, field: None, subscript: None };
                    self.assign_expression(execution, &place, *default).await?;
                }
            }
            Instruction::Assign { target, value } => self.assign_expression(execution, target, *value).await?,
            Instruction::Repeat(to) => {
                execution.pause().await?;
                return Ok(Flow::To(*to));
            }
            Instruction::JumpUnless { condition, to } => {
                if !self.truth(execution, *condition).await? {
                    return Ok(Flow::To(*to));
                }
            }
            Instruction::ForInteger { number, variable, bounds, exit } => {
                if !self.begin_integers(execution, *number, *variable, bounds).await? {
                    return Ok(Flow::To(*exit));
                }
            }
            Instruction::ForRows { number, query } => {
                let rows = Box::pin(self.open(execution, query)).await?;
                self.loops[*number] = Some(LoopState::Rows { rows: Box::new(rows), any: false });
            }
            Instruction::ForArray { number, array } => {
                let (value, data_type) = self.evaluate(execution, *array).await?;
                let Some(values) = SqlType::elements(&value)? else {
                    return Err(Error::raised("22004", "FOREACH expression must not be null"));
                };
                let element = SqlType::plain(data_type).element().map_or(DataType::Null, |kind| kind.data_type);
                self.loops[*number] = Some(LoopState::Array { values: values.into(), element, any: false });
            }
            Instruction::Next { number, targets, body } => {
                execution.pause().await?;
                if self.next_turn(execution, *number, targets).await? {
                    return Ok(Flow::To(*body));
                }
            }
            Instruction::Run { statement, into, is_call } => {
                self.run_statement(execution, *statement, into.as_ref(), *is_call).await?;
            }
            Instruction::Perform(statement) => {
                let linked = Arc::clone(&self.linked);
                let bound = self.statement(&linked, execution, *statement)?;
                let inputs = bound.values(&self.frame, &[])?;
                let Ran { rows, .. } = execution.run(&bound.compiled, &inputs).await?;
                self.row_count = rows;
                self.set_found(rows > 0);
                self.relink(execution)?;
            }
            Instruction::Execute { command, using, into } => {
                Box::pin(self.execute(execution, *command, using, into.as_ref())).await?;
            }
            Instruction::Return(value) => {
                return Box::pin(self.return_value(execution, *value)).await.map(Flow::Return);
            }
            Instruction::ReturnNext(value) => Box::pin(self.return_next(execution, *value)).await?,
            Instruction::ReturnQuery(query) => Box::pin(self.return_query(execution, query)).await?,
            Instruction::Raise(raise) => Box::pin(self.raise(execution, raise)).await?,
            Instruction::Assert { condition, message } => {
                let (value, _) = self.evaluate(execution, *condition).await?;
                if value != Datum::Bool(true) {
                    let message = match message {
                        Some(message) => Some(self.text(execution, *message).await?).flatten(),
                        None => None,
                    };
                    return Err(Error::raised("P0004", message.unwrap_or_else(|| "assertion failed".to_owned())));
                }
            }
            Instruction::Diagnose { stacked, items } => Box::pin(self.diagnose(execution, *stacked, items, at)).await?,
            Instruction::Commit => {
                Box::pin(execution.commit()).await?;
                self.relink(execution)?;
            }
            Instruction::Rollback => {
                Box::pin(execution.rollback()).await?;
                self.relink(execution)?;
            }
            Instruction::Jump(_)
            | Instruction::EndLoop { .. }
            | Instruction::RaiseAgain
            | Instruction::BeginBlock(_)
            | Instruction::EndBlock
            | Instruction::EndHandler
            | Instruction::NoCase
            | Instruction::End => return Err(Error::raised("XX000", "an instruction that needs no waiting was left")),
        }
        Ok(Flow::Next)
    }

    fn set_found(&mut self, found: bool) {
        self.frame[FOUND] = Cell::Scalar(Datum::Bool(found));
    }

    /// After something that may have changed what names mean.
    fn relink(&mut self, execution: &Execution<'_>) -> Result<()> {
        if !execution.means(&self.names) {
            self.names = execution.names();
            self.linked = Arc::new(self.cache.get(&self.names, || LinkedCode::new(self.code, execution))?);
        }
        Ok(())
    }

    fn expression<'l>(
        &self,
        linked: &'l LinkedCode,
        execution: &Execution<'_>,
        number: Number,
    ) -> Result<Held<'l, Bound<CompiledExpression>>> {
        let slot = &linked.expressions[number];
        if let Some(bound) = slot.get(|bound| bound.fits(&self.frame)) {
            return Ok(bound);
        }
        let (expression, scope) = &self.code.expressions[number];
        let mut sight = Sight::new(self.code, linked, &self.frame, *scope);
        let compiled = execution.expression(expression, &mut sight)?;
        Ok(slot.put(sight.bind(compiled)))
    }

    fn statement<'l>(
        &self,
        linked: &'l LinkedCode,
        execution: &Execution<'_>,
        number: Number,
    ) -> Result<Held<'l, Bound<CompiledStatement>>> {
        let slot = &linked.statements[number];
        if let Some(bound) = slot.get(|bound| bound.fits(&self.frame)) {
            return Ok(bound);
        }
        let (statement, scope) = &self.code.statements[number];
        let mut sight = Sight::new(self.code, linked, &self.frame, *scope);
        let compiled = execution.statement(statement, &mut sight)?;
        Ok(slot.put(sight.bind(compiled)))
    }

    /// The value of an expression and its type.
    async fn evaluate(&mut self, execution: &mut Execution<'_>, number: Number) -> Result<(Datum, DataType)> {
        let linked = Arc::clone(&self.linked);
        let bound = self.expression(&linked, execution, number)?;
        let value = self.value_of(execution, &bound).await?;
        Ok((value, bound.compiled.data_type().clone()))
    }

    async fn value_of(&mut self, execution: &mut Execution<'_>, bound: &Bound<CompiledExpression>) -> Result<Datum> {
        let mut inputs = std::mem::take(&mut self.inputs);
        inputs.clear();
        bound.put_values(&self.frame, &[], &mut inputs)?;
        let value = match bound.compiled.evaluate_now(&inputs, execution.clock()) {
            Some(value) => value,
            None => execution.evaluate(&bound.compiled, &inputs).await?,
        };
        self.inputs = inputs;
        Ok(value)
    }

    async fn truth(&mut self, execution: &mut Execution<'_>, number: Number) -> Result<bool> {
        let linked = Arc::clone(&self.linked);
        let bound = self.expression(&linked, execution, number)?;
        match self.value_of(execution, &bound).await? {
            Datum::Bool(truth) => Ok(truth),
            Datum::Null => Ok(false),
            other => {
                let boolean = SqlType::plain(DataType::Boolean);
                Ok(boolean.assign(other, bound.compiled.data_type(), execution.zone())? == Datum::Bool(true))
            }
        }
    }

    /// The value of an expression as text.
    async fn text(&mut self, execution: &mut Execution<'_>, number: Number) -> Result<Option<String>> {
        let (value, data_type) = self.evaluate(execution, number).await?;
        text_of(&value, &data_type, execution.zone())
    }

    async fn integer(&mut self, execution: &mut Execution<'_>, number: Number, what: &str) -> Result<i64> {
        let (value, data_type) = self.evaluate(execution, number).await?;
        match SqlType::plain(DataType::Int32).assign(value, &data_type, execution.zone())?.as_int() {
            Some(value) => Ok(value),
            None => Err(Error::raised("22004", format!("{what} of FOR loop cannot be null"))),
        }
    }
}

/// A value as it is shown: unlike in a cast to text, a boolean is one letter.
fn text_of(value: &Datum, data_type: &DataType, zone: &str) -> Result<Option<String>> {
    if let Datum::Bool(truth) = value {
        return Ok(Some(if *truth { "t" } else { "f" }.to_owned()));
    }
    let text = SqlType::text().assign(value.clone(), data_type, zone)?;
    Ok(text.as_text().map(str::to_owned))
}
