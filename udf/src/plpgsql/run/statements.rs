//! Statements of SQL, and loops over what they give.

use std::sync::Arc;

use rustydb_engine::routine::{CompiledStatement, Datum, Execution, Ran, Rows, Shape, SqlStatement};
use rustydb_engine::{Error, Result};

use super::{Call, LoopState};
use crate::plpgsql::code::{IntegerBounds, Into, Number, Place, Query};
use crate::plpgsql::frame::{Bound, Cell, Given, Input};

impl Call<'_> {
    pub(super) async fn begin_integers(
        &mut self,
        execution: &mut Execution<'_>,
        number: usize,
        variable: usize,
        bounds: &IntegerBounds,
    ) -> Result<bool> {
        let first = self.integer(execution, bounds.from, "lower bound").await?;
        let last = self.integer(execution, bounds.to, "upper bound").await?;
        let step = match bounds.by {
            Some(by) => self.integer(execution, by, "BY value").await?,
            None => 1,
        };
        if step <= 0 {
            return Err(Error::raised("22023", "BY value of FOR loop must be greater than zero"));
        }
        let step = if bounds.reverse { -step } else { step };
        let any = if step > 0 { first <= last } else { first >= last };
        self.loops[number] = Some(LoopState::Integer { current: first, last, step, any });
        self.frame[variable] = Cell::Scalar(Datum::Int(first));
        Ok(any)
    }

    /// Takes the next turn of a loop; tells whether there is one.
    pub(super) async fn next_turn(
        &mut self,
        execution: &mut Execution<'_>,
        number: usize,
        targets: &[Place],
    ) -> Result<bool> {
        let Some(mut state) = self.loops[number].take() else { return Ok(false) };
        let more = match &mut state {
            LoopState::Integer { current, last, step, any: _ } => {
                // Bounds are integers of 32 bits, so this does not overflow.
                *current += *step;
                let more = if *step > 0 { current <= last } else { current >= last };
                if more && let [Place { variable, .. }] = targets {
                    self.frame[*variable] = Cell::Scalar(Datum::Int(*current));
                }
                more
            }
            LoopState::Rows { rows, any } => {
                let shape = Arc::clone(rows.shape());
                match rows.next().await? {
                    Some(row) => {
                        *any = true;
                        self.assign_row(execution, targets, &shape, Some(row)).await?;
                        true
                    }
                    None => {
                        if !*any {
                            self.assign_row(execution, targets, &shape, None).await?;
                        }
                        false
                    }
                }
            }
            LoopState::Array { values, element, any } => match values.pop_front() {
                Some(value) => {
                    *any = true;
                    let element = element.clone();
                    for target in targets {
                        self.assign(execution, target, value.clone(), &element).await?;
                    }
                    true
                }
                None => false,
            },
        };
        self.loops[number] = Some(state);
        Ok(more)
    }

    pub(super) async fn open(&mut self, execution: &mut Execution<'_>, query: &Query) -> Result<Rows> {
        match query {
            Query::Static(number) => {
                let linked = Arc::clone(&self.linked);
                let bound = self.statement(&linked, execution, *number)?;
                let inputs = bound.values(&self.frame, &[])?;
                execution.open(&bound.compiled, &inputs).await
            }
            Query::Dynamic { command, using } => {
                let (bound, given) = self.dynamic(execution, *command, using).await?;
                let inputs = bound.values(&self.frame, &given)?;
                execution.open(&bound.compiled, &inputs).await
            }
        }
    }

    /// The statement that a text says, and its parameters.
    pub(super) async fn dynamic(
        &mut self,
        execution: &mut Execution<'_>,
        command: Number,
        using: &[Number],
    ) -> Result<(Bound<CompiledStatement>, Vec<Datum>)> {
        execution.expects_planning()?;
        let Some(text) = self.text(execution, command).await? else {
            return Err(Error::raised("22004", "query string argument of EXECUTE is null"));
        };
        let (mut given, mut types) = (Vec::with_capacity(using.len()), Vec::with_capacity(using.len()));
        for value in using {
            let (value, data_type) = self.evaluate(execution, *value).await?;
            given.push(value);
            types.push(data_type);
        }
        let statement = SqlStatement::parse(&text)?;
        let mut variables = Given { types: &types, inputs: Vec::new() };
        let compiled = execution.statement(&statement, &mut variables)?;
        Ok((variables.bind(compiled), given))
    }

    pub(super) async fn execute(
        &mut self,
        execution: &mut Execution<'_>,
        command: Number,
        using: &[Number],
        into: Option<&Into>,
    ) -> Result<()> {
        let (bound, given) = self.dynamic(execution, command, using).await?;
        let inputs = bound.values(&self.frame, &given)?;
        self.run_bound(execution, &bound.compiled, &inputs, into, true).await?;
        self.relink(execution)
    }

    pub(super) async fn run_statement(
        &mut self,
        execution: &mut Execution<'_>,
        number: Number,
        into: Option<&Into>,
        is_call: bool,
    ) -> Result<()> {
        let linked = Arc::clone(&self.linked);
        let bound = self.statement(&linked, execution, number)?;
        let mut inputs = std::mem::take(&mut self.inputs);
        inputs.clear();
        bound.put_values(&self.frame, &[], &mut inputs)?;
        if is_call {
            let Ran { returned, .. } = execution.run(&bound.compiled, &inputs).await?;
            if let Some(mut rows) = returned
                && let Some(values) = rows.next().await?
            {
                let shape = Arc::clone(rows.shape());
                self.give_outputs(execution, &bound, values, &shape).await?;
            }
            return self.relink(execution);
        }
        if into.is_none() && (bound.compiled.is_query() || bound.compiled.returns_rows()) {
            let error = Error::raised("42601", "query has no destination for result data");
            return Err(match bound.compiled.is_query() {
                true => error.with_hint("If you want to discard the results of a SELECT, use PERFORM instead."),
                false => error,
            });
        }
        let found = self.run_bound(execution, &bound.compiled, &inputs, into, false).await?;
        self.inputs = inputs;
        if let Some(found) = found {
            self.set_found(found);
        }
        self.relink(execution)
    }

    /// After CALL: variables that stood for OUT and INOUT parameters get what came out.
    pub(super) async fn give_outputs(
        &mut self,
        execution: &mut Execution<'_>,
        bound: &Bound<CompiledStatement>,
        values: Vec<Datum>,
        shape: &Arc<Shape>,
    ) -> Result<()> {
        let Some(targets) = bound.compiled.output_inputs() else { return Ok(()) };
        for ((value, kind), target) in values.into_iter().zip(&shape.types).zip(targets) {
            let place = match target.and_then(|target| bound.inputs.get(target)) {
                Some(Input::Scalar(variable) | Input::Whole(variable)) => {
                    Place { variable: *variable, field: None, subscript: None }
                }
                Some(Input::Field(record, field)) => {
                    let Cell::Record(Some(found)) = &self.frame[*record] else { continue };
                    let name = found.shape.names.get(*field).cloned();
                    Place { variable: *record, field: name, subscript: None }
                }
                _ => {
                    return Err(Error::raised(
                        "42601",
                        "procedure parameter is an output parameter but corresponding argument is not writable",
                    ));
                }
            };
            let variable = &self.code.variables[place.variable];
            if variable.constant {
                let message = format!("variable \"{}\" is declared CONSTANT", variable.name);
                return Err(Error::raised("22005", message));
            }
            self.assign(execution, &place, value, &kind.data_type).await?;
        }
        Ok(())
    }

    /// Runs a statement; tells whether it found something, if it is one that sets FOUND. `dynamic` is one that EXECUTE runs.
    pub(super) async fn run_bound(
        &mut self,
        execution: &mut Execution<'_>,
        statement: &CompiledStatement,
        inputs: &[Datum],
        into: Option<&Into>,
        dynamic: bool,
    ) -> Result<Option<bool>> {
        let is_query = statement.is_query();
        let Some(into) = into else {
            let Ran { rows, .. } = execution.run(statement, inputs).await?;
            self.row_count = rows;
            return Ok((is_query || statement.changes_rows()).then_some(rows > 0));
        };
        // A change that returns rows must not return two; a query may, unless it says STRICT, and so may what EXECUTE runs,
        // which counts them all.
        let may_be_many = is_query || dynamic;
        let rows_asked_for = match (dynamic, into.strict || !is_query) {
            (true, _) => u64::MAX,
            (false, true) => 2,
            (false, false) => 1,
        };
        let made = execution.rows(statement, inputs).await?.zip(statement.program_shape());
        let own_shape;
        let (first, count, shape) = match made {
            Some((rows, shape)) => {
                let count = rows.len() as u64;
                (rows.into_iter().next(), count, shape)
            }
            None => {
                let mut rows = Box::pin(execution.open_planned(statement, inputs)).await?;
                own_shape = Arc::clone(rows.shape());
                let first = rows.next().await?;
                let mut count = u64::from(first.is_some());
                while (1..rows_asked_for).contains(&count) && rows.next().await?.is_some() {
                    count += 1;
                }
                (first, count, &own_shape)
            }
        };
        let found = first.is_some();
        self.require_rows(into, may_be_many, found, count > 1)?;
        if dynamic {
            self.row_count = count;
        }
        self.assign_row(execution, &into.targets, shape, first).await?;
        Ok(Some(found))
    }

    /// Fails if a statement with INTO has given more rows than it may, or none where it must.
    pub(super) fn require_rows(&mut self, into: &Into, may_be_many: bool, found: bool, has_second: bool) -> Result<()> {
        if (into.strict || !may_be_many) && has_second {
            return Err(Error::raised("P0003", "query returned more than one row")
                .with_hint("Make sure the query returns a single row, or use LIMIT 1."));
        }
        if into.strict && !found {
            return Err(Error::raised("P0002", "query returned no rows"));
        }
        self.row_count = u64::from(found);
        Ok(())
    }
}
