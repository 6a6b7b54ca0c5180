//! Instructions that need no waiting: most of those that are no statements of SQL. What is unusual about one (a piece of
//! SQL that is not compiled yet, a value that does not fit) is left to the way that can wait, and complain.

use rustydb_engine::routine::{Datum, Execution};

use super::{Call, Flow, LoopState};
use crate::plpgsql::code::{Instruction, Number, Place};
use crate::plpgsql::frame::{Cell, Kind};

impl Call<'_> {
    /// Runs an instruction. `None`: it may have to wait, and nothing has happened.
    pub(super) fn step_at_once(&mut self, execution: &mut Execution<'_>, at: usize) -> Option<Flow> {
        let code = self.code;
        match &code.instructions[at] {
            Instruction::Jump(to) => Some(Flow::To(*to)),
            Instruction::Repeat(to) => execution.jumps_at_once().then_some(Flow::To(*to)),
            Instruction::JumpUnless { condition, to } => match self.value_at_once(execution, *condition)? {
                Datum::Bool(true) => Some(Flow::Next),
                Datum::Bool(false) | Datum::Null => Some(Flow::To(*to)),
                _ => None,
            },
            Instruction::Assign { target: Place { variable, field: None, subscript: None }, value } => {
                self.assign_at_once(execution, *variable, *value).then_some(Flow::Next)
            }
            Instruction::Initialise { variable, default: None } => {
                self.frame[*variable] = self.linked.empty(*variable);
                Some(Flow::Next)
            }
            Instruction::Next { number, targets, body } => {
                let Some(LoopState::Integer { current, last, step, any: _ }) = &mut self.loops[*number] else {
                    return None;
                };
                let [Place { variable, .. }] = targets.as_slice() else { return None };
                if !execution.jumps_at_once() {
                    return None;
                }
                // Bounds are integers of 32 bits, so this does not overflow.
                *current += *step;
                let more = if *step > 0 { current <= last } else { current >= last };
                if !more {
                    return Some(Flow::Next);
                }
                self.frame[*variable] = Cell::Scalar(Datum::Int(*current));
                Some(Flow::To(*body))
            }
            _ => None,
        }
    }

    fn value_at_once(&mut self, execution: &Execution<'_>, number: Number) -> Option<Datum> {
        let Call { linked, frame, inputs, .. } = self;
        let bound = linked.expressions[number].first(|bound| bound.fits(frame))?;
        inputs.clear();
        bound.put_values(frame, &[], inputs).ok()?;
        bound.compiled.evaluate_now(inputs, execution.clock())
    }

    /// Whether a variable was assigned to.
    fn assign_at_once(&mut self, execution: &Execution<'_>, variable: usize, number: Number) -> bool {
        let Some(value) = self.value_at_once(execution, number) else { return false };
        let Kind::Scalar(sql_type) = &self.linked.kinds[variable] else { return false };
        let Some(bound) = self.linked.expressions[number].first(|_| true) else { return false };
        // Texts have a limit that is looked at elsewhere.
        let plain = !matches!(value, Datum::Text(_) | Datum::Bytes(_) | Datum::Other(_));
        if !plain || (value.is_null() && self.code.variables[variable].not_null) {
            return false;
        }
        match sql_type.assign(value, bound.compiled.data_type()) {
            Ok(value) => {
                self.frame[variable] = Cell::Scalar(value);
                true
            }
            Err(_) => false,
        }
    }
}
