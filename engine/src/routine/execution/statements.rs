//! Statements of a running routine: as a program of the row path where there is one, as a plan otherwise.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::DataType;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::datasource::{MemTable, TableProvider};
use datafusion::physical_plan::execute_stream;
use datafusion::sql::sqlparser::ast::Query;

use super::{Access, Execution, Move};
use crate::dml::returning::{Changed, Returned};
use crate::error::sqlstate;
use crate::routine::definition::{Routine, schema_of};
use crate::routine::language::{Outcome, Returns};
use crate::routine::statement::{CompiledStatement, Kind, Rows, name_of};
use crate::routine::types::Shape;
use crate::row_path::{self, Call, Datum, Program, array_of};
use crate::session::{Begun, Left, StatementResult, decided, note_reads};
use crate::sql::context::StatementContext;
use crate::sql::plan::{ReadyPlan, bind, make_ready, plan_query};
use crate::sql::route::Write;
use crate::{Error, Result, Value};

/// What a statement did at once.
#[derive(Debug)]
pub struct RanAtOnce {
    /// How many rows it touched, or returned.
    pub count: u64,
    /// What it returned, if it returns rows: their columns are [`CompiledStatement::program_shape`].
    pub rows: Option<Vec<Vec<Datum>>>,
}

/// What a statement did.
#[derive(Debug)]
pub struct Ran {
    /// How many rows it touched, or returned.
    pub rows: u64,
    /// What it returned: RETURNING, or the OUT parameters of a CALL.
    pub returned: Option<Rows>,
}

impl Execution<'_> {
    /// Plans a query of `statement`.
    pub(crate) async fn plan(&mut self, statement: &CompiledStatement, inputs: &[Datum]) -> Result<ReadyPlan> {
        let Kind::Query { query, relations } = &statement.kind else {
            return Err(Error::internal("only queries are planned"));
        };
        self.require_threads(Move::Always)?;
        let mut named: HashMap<String, Arc<dyn TableProvider>> = HashMap::new();
        for relation in relations {
            let rows = Box::pin(self.call_for_rows(relation, inputs)).await?;
            let batch = batch_of(&relation.shape, &rows)?;
            let table = MemTable::try_new(batch.schema(), vec![vec![batch]])?;
            named.insert(relation.name.clone(), Arc::new(table));
        }
        self.refresh().await?;
        let context = self.context().with_named(named).with_parameters(statement.types.iter().cloned());
        let values = values_of(&statement.types, inputs)?;
        let plan = bind(plan_query(&context, Query::clone(query))?, &values)?;
        let ready = Box::pin(make_ready(&context, plan)).await?;
        if let Access::Changing(_) = self.access {
            note_reads(&ready)?;
        }
        Ok(ready)
    }

    /// Runs a statement on the row path if nothing has to be waited for. `None`: something has, or the row path does not
    /// know; nothing was changed, and what waits ([`run`](Self::run), [`open`](Self::open), [`rows`](Self::rows)) is to run
    /// the very same next: it goes on from here.
    pub fn run_at_once(&mut self, statement: &CompiledStatement, inputs: &[Datum]) -> Option<Result<RanAtOnce>> {
        self.left = None;
        let is_due = |program: &&Arc<Program>| self.clock.computes && !self.is_rest_due() && program.may_be_due();
        let program = statement.program.as_ref().filter(is_due)?;
        let values = program.bind_data(inputs).ok()?;
        let call = Call { parameters: &values, now: self.clock.now };
        let begun = match &mut self.access {
            Access::Changing(changing) => changing.run_program_at_once(program, call),
            Access::Reading(context) if reads(program, context) => {
                Begun::of(program, program.read_at_once(context.view(), call))
            }
            Access::Reading(_) => return None,
        };
        match begun {
            Begun::Ended(ended) => Some(ended.map(|row_path::Outcome { count, rows, looks }| {
                self.note_work(looks);
                RanAtOnce { count, rows }
            })),
            Begun::Left(left) => {
                self.left = Some((Arc::clone(program), left));
                None
            }
        }
    }

    /// Runs a statement that returns rows on the row path, and returns them as they are: their columns are
    /// [`CompiledStatement::program_shape`]. `None`: that does not know, and nothing was changed;
    /// [`open_planned`](Self::open_planned) runs the statement.
    pub async fn rows(&mut self, statement: &CompiledStatement, inputs: &[Datum]) -> Result<Option<Vec<Vec<Datum>>>> {
        match self.run_compiled(statement, inputs).await? {
            Some(outcome) => outcome.rows.map(Some).ok_or_else(no_rows),
            None => Ok(None),
        }
    }

    /// Runs a statement on the row path. `None`: that does not know, and nothing was changed.
    async fn run_compiled(
        &mut self,
        statement: &CompiledStatement,
        inputs: &[Datum],
    ) -> Result<Option<row_path::Outcome>> {
        self.rest().await?;
        let left = self.left.take();
        let program = statement.program.as_ref().filter(|program| self.clock.computes && program.is_due());
        let Some(program) = program else { return Ok(None) };
        let Ok(values) = program.bind_data(inputs) else { return Ok(None) };
        let call = Call { parameters: &values, now: self.clock.now };
        let left = left.filter(|(begun, _)| Arc::ptr_eq(begun, program)).map(|(_, left)| left).unwrap_or_default();
        let outcome = match &mut self.access {
            Access::Changing(changing) => changing.run_program(program, call, left).await?,
            Access::Reading(context) if reads(program, context) => match left {
                Left::Undecided => None,
                Left::Waiting(met) => decided(program, program.read_after(met, context.view(), call).await)?,
                Left::Everything => decided(program, program.read(context.view(), call).await)?,
            },
            Access::Reading(_) => None,
        };
        if let Some(outcome) = &outcome {
            self.note_work(outcome.looks);
        }
        Ok(outcome)
    }

    /// Starts a query.
    pub async fn open(&mut self, statement: &CompiledStatement, inputs: &[Datum]) -> Result<Rows> {
        match (self.rows(statement, inputs).await?, statement.program_shape()) {
            (Some(rows), Some(shape)) => Ok(Rows::made(Arc::clone(shape), rows)),
            _ => Box::pin(self.open_planned(statement, inputs)).await,
        }
    }

    /// Starts a query that is not for the row path.
    pub async fn open_planned(&mut self, statement: &CompiledStatement, inputs: &[Datum]) -> Result<Rows> {
        match &statement.kind {
            Kind::Values(items) => {
                let mut row = Vec::with_capacity(items.len());
                for item in items {
                    row.push(self.evaluate(item, inputs).await?);
                }
                let shape = statement.shape.get().ok_or_else(|| Error::internal("values without names"))?;
                Ok(Rows::made(Arc::clone(shape), vec![row]))
            }
            Kind::Query { .. } => {
                let ready = Box::pin(self.plan(statement, inputs)).await?;
                let shape = statement.shape_for(&ready.schema());
                let stream = execute_stream(ready.plan, ready.context)?;
                Ok(Rows::streamed(shape, stream))
            }
            Kind::Lock(query) => {
                self.require_threads(Move::Always)?;
                let values = values_of(&statement.types, inputs)?;
                let changing = self.changing(name_of(&statement.kind))?;
                let batch = changing.lock(&values, query).await?;
                let shape = statement.shape_for(&batch.schema());
                Rows::of_batches(shape, &[batch])
            }
            Kind::Write(_) | Kind::Call { .. } => {
                let Ran { returned, .. } = match &statement.kind {
                    Kind::Write(write) => Box::pin(self.run_write(statement, write, inputs)).await?,
                    _ => Box::pin(self.run_call(statement, inputs)).await?,
                };
                returned.ok_or_else(no_rows)
            }
        }
    }

    /// Runs a statement.
    pub async fn run(&mut self, statement: &CompiledStatement, inputs: &[Datum]) -> Result<Ran> {
        if let Some(outcome) = self.run_compiled(statement, inputs).await? {
            let returned = outcome.rows.zip(statement.program_shape());
            let returned = returned.map(|(rows, shape)| Rows::made(Arc::clone(shape), rows));
            return Ok(Ran { rows: outcome.count, returned });
        }
        match &statement.kind {
            Kind::Values(_) | Kind::Query { .. } | Kind::Lock(_) => {
                let mut rows = self.open(statement, inputs).await?;
                let mut count = 0;
                while rows.next().await?.is_some() {
                    count += 1;
                }
                Ok(Ran { rows: count, returned: None })
            }
            Kind::Write(write) => Box::pin(self.run_write(statement, write, inputs)).await,
            Kind::Call { .. } => Box::pin(self.run_call(statement, inputs)).await,
        }
    }

    async fn run_write(&mut self, statement: &CompiledStatement, write: &Write, inputs: &[Datum]) -> Result<Ran> {
        self.require_threads(Move::Always)?;
        let values = values_of(&statement.types, inputs)?;
        let changing = self.changing(name_of(&statement.kind))?;
        if !statement.changes_rows() {
            return match changing.define(&values, write.clone()).await? {
                StatementResult::Done(completion) => Ok(Ran { rows: completion.rows.unwrap_or(0), returned: None }),
                StatementResult::Rows(_) => Err(Error::internal("a definition that returns rows")),
            };
        }
        let Changed { rows, returned } = changing.change(&values, write.clone()).await?;
        let returned = match returned {
            Some(Returned { schema, batches }) => Some(Rows::of_batches(statement.shape_for(&schema), &batches)?),
            None => None,
        };
        Ok(Ran { rows, returned })
    }

    async fn run_call(&mut self, statement: &CompiledStatement, inputs: &[Datum]) -> Result<Ran> {
        let Kind::Call { routine, arguments, .. } = &statement.kind else {
            return Err(Error::internal("a CALL that is none"));
        };
        let arguments = self.arguments(arguments, inputs).await?;
        let returned = match (self.call(routine, arguments).await?, routine.output_shape()) {
            (Outcome::Outputs(values), Some(shape)) => {
                let shape = statement.shape.get_or_init(|| Arc::new(shape));
                Some(Rows::made(Arc::clone(shape), vec![values]))
            }
            _ => None,
        };
        Ok(Ran { rows: 0, returned })
    }

    /// At READ COMMITTED each statement sees what was committed before it.
    async fn refresh(&mut self) -> Result<()> {
        match &mut self.access {
            Access::Changing(changing) => changing.refresh().await,
            Access::Reading(_) => Ok(()),
        }
    }
}

/// Whether a program may run where a statement only reads.
fn reads(program: &Program, context: &StatementContext) -> bool {
    !program.writes() && Arc::ptr_eq(context.view().catalog(), &program.origin.catalog)
}

fn no_rows() -> Error {
    Error::new(sqlstate::SYNTAX, "the statement returns no rows").with_hint("RETURNING returns them.")
}

/// The rows in an outcome, as FROM has them.
pub(crate) fn rows_of(routine: &Routine, outcome: Outcome) -> Result<Vec<Vec<Datum>>> {
    match (outcome, &routine.source.returns) {
        (Outcome::Rows(rows), Returns::Values(_) | Returns::Rows(_)) => Ok(rows),
        (Outcome::Value(value), _) => match routine.result.shape() {
            Some(shape) => Ok(vec![shape.from_row(&value)?]),
            None => Ok(vec![vec![value]]),
        },
        (Outcome::Nothing, _) => Ok(vec![vec![Datum::text("")]]),
        _ => Err(Error::internal("a function that returned something else")),
    }
}

/// Rows as a batch.
pub(crate) fn batch_of(shape: &Shape, rows: &[Vec<Datum>]) -> Result<RecordBatch> {
    let schema = schema_of(shape);
    let columns = schema.fields().iter().enumerate().map(|(column, field)| {
        let values: Vec<&Datum> = rows.iter().map(|row| row.get(column).unwrap_or(&Datum::Null)).collect();
        array_of(field.data_type(), values.into_iter())
    });
    let columns = columns.collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    Ok(RecordBatch::try_new_with_options(schema, columns, &options)?)
}

fn values_of(types: &[DataType], inputs: &[Datum]) -> Result<Vec<Value>> {
    types.iter().zip(inputs).map(|(data_type, value)| value.to_value(data_type)).collect()
}
