//! Routines in queries over rows: a scalar function that is called for each row, and a table that is a function.
//!
//! Such a call reads the view of its statement and cannot change anything: DataFusion may run it in any order, on any
//! thread, more than once. Calls that may change rows are made before the query ([`super::statement::Relation`]).

use std::fmt;
use std::future::Future;
use std::hash::{Hash, Hasher};
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::catalog::streaming::StreamingTable;
use datafusion::datasource::TableProvider;
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature,
    Volatility as DataFusionVolatility,
};
use datafusion::optimizer::OptimizerConfig;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use futures::stream;

use super::definition::{Routine, Volatility, choose, schema_of};
use super::execution::{Access, Execution, batch_of, rows_of};
use super::language::Outcome;
use super::registry::Routines;
use super::types::SqlType;
use crate::error::sqlstate;
use crate::interrupt::{self, Interrupt};
use crate::row_path::Datum;
use crate::row_path::array_of;
use crate::sql::context::StatementContext;
use crate::{Error, Result, Value};

/// The task that runs a plan, for functions on other threads of it to ask whether they are to stop.
#[derive(Debug, Default)]
pub(crate) struct RunningPlan(OnceLock<Arc<Interrupt>>);

impl RunningPlan {
    pub(crate) fn set(&self, interrupt: Option<Arc<Interrupt>>) {
        if let Some(interrupt) = interrupt {
            let _ = self.0.set(interrupt);
        }
    }
}

/// The functions of one name as one statement sees them.
struct RoutineFunction {
    name: String,
    candidates: Vec<Arc<Routine>>,
    signature: Signature,
    context: Box<StatementContext>,
    routines: Arc<Routines>,
}

/// The scalar function of this name, if users have made one.
pub(crate) fn scalar(
    context: &StatementContext,
    routines: &Arc<Routines>,
    schema: Option<&str>,
    name: &str,
) -> Result<Option<Arc<ScalarUDF>>> {
    let candidates = routines.find(context, schema, name, false)?;
    if candidates.is_empty() {
        return Ok(None);
    }
    let volatility = candidates.iter().map(|routine| match routine.definition.volatility {
        Volatility::Volatile => DataFusionVolatility::Volatile,
        // Not immutable: what it reads belongs to the statement's view.
        Volatility::Stable | Volatility::Immutable => DataFusionVolatility::Stable,
    });
    let volatile = volatility.into_iter().any(|volatility| volatility == DataFusionVolatility::Volatile);
    let volatility = if volatile { DataFusionVolatility::Volatile } else { DataFusionVolatility::Stable };
    let function = RoutineFunction {
        name: name.to_owned(),
        // Without arguments there is nothing to coerce, and DataFusion wants to know that beforehand.
        signature: match candidates.iter().any(|routine| routine.fit(&[]).is_some()) {
            true => Signature::one_of(vec![TypeSignature::Nullary, TypeSignature::UserDefined], volatility),
            false => Signature::user_defined(volatility),
        },
        candidates,
        context: Box::new(context.for_function()),
        routines: Arc::clone(routines),
    };
    Ok(Some(Arc::new(ScalarUDF::from(function))))
}

impl RoutineFunction {
    fn choose(&self, types: &[DataType]) -> Result<Arc<Routine>> {
        let given: Vec<Option<DataType>> = types.iter().map(|kind| Some(kind.clone())).collect();
        let routine = choose(&self.name, &self.candidates, &given).or_else(|error| {
            // An untyped literal has become text by now.
            let untyped: Vec<Option<DataType>> =
                types.iter().map(|kind| (*kind != DataType::Utf8).then(|| kind.clone())).collect();
            choose(&self.name, &self.candidates, &untyped).map_err(|_| error)
        })?;
        if routine.source.returns.is_set() {
            return Err(Error::unsupported(format!("{}, which returns a set, in an expression", self.name))
                .with_hint("SELECT … FROM it."));
        }
        Ok(routine)
    }

    /// On a thread that knows nothing of the statement: what tells it to stop. The task that has run the plan may be over where
    /// another one of the statement calls the function, as that which checks constraints.
    fn interrupt_elsewhere(&self) -> Option<Arc<Interrupt>> {
        if interrupt::current().is_some() {
            return None;
        }
        let running = datafusion::catalog::Session::config(self.context.as_ref()).get_extension::<RunningPlan>()?;
        running.0.get().cloned()
    }

    async fn call_each(&self, routine: &Arc<Routine>, columns: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
        let access = Access::Reading(self.context.clone());
        let mut execution = Execution::new(access, Arc::clone(&self.routines), began(&self.context));
        let mut results = Vec::with_capacity(rows);
        for row in 0..rows {
            let mut arguments = Vec::with_capacity(routine.defaults.len());
            for (column, wanted) in columns.iter().zip(routine.input_types()) {
                let value = Datum::of(&Value::try_from_array(column, row)?);
                arguments.push(wanted.assign(value, column.data_type(), self.context.zone())?);
            }
            results.push(execution.call_with_defaults(routine, arguments).await?);
        }
        array_of(&routine.result.data_type, results.iter())
    }
}

impl ScalarUDFImpl for RoutineFunction {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> DataFusionResult<Vec<DataType>> {
        let routine = self.choose(types)?;
        Ok(routine.input_types().take(types.len()).map(|wanted| wanted.data_type.clone()).collect())
    }

    fn return_type(&self, types: &[DataType]) -> DataFusionResult<DataType> {
        Ok(self.choose(types)?.result.data_type.clone())
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let rows = arguments.number_rows;
        let types: Vec<DataType> = arguments.args.iter().map(|argument| argument.data_type()).collect();
        let routine = self.choose(&types)?;
        let columns = arguments.args.iter().map(|argument| argument.clone().into_array(rows));
        let columns = columns.collect::<DataFusionResult<Vec<_>>>()?;
        let calls = self.call_each(&routine, &columns, rows);
        let values = match self.interrupt_elsewhere() {
            Some(interrupt) => wait(interrupt.scope(calls)),
            None => wait(calls),
        };
        Ok(ColumnarValue::Array(values?))
    }
}

impl PartialEq for RoutineFunction {
    fn eq(&self, other: &Self) -> bool {
        let ids = |function: &RoutineFunction| -> Vec<_> { function.candidates.iter().map(|one| one.id()).collect() };
        self.name == other.name && ids(self) == ids(other)
    }
}

impl Eq for RoutineFunction {}

impl Hash for RoutineFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl fmt::Debug for RoutineFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// When a statement began, in microseconds since 1970.
fn began(context: &StatementContext) -> i64 {
    context.query_execution_start_time().map_or(0, |time| time.timestamp_micros())
}

/// Runs a future to its end. Most need no waiting; for those that do, another thread takes over what this one is for.
fn wait<T>(work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    match work.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => match tokio::runtime::Handle::try_current() {
            Ok(handle) => tokio::task::block_in_place(|| handle.block_on(work)),
            Err(_) => futures::executor::block_on(work),
        },
    }
}

/// A function in the place of a table.
struct RoutineTable {
    routine: Arc<Routine>,
    arguments: Vec<Datum>,
    schema: SchemaRef,
    context: Box<StatementContext>,
    routines: Arc<Routines>,
}

/// The table that a function of users gives, if there is one of this name.
pub(crate) fn table(
    context: &StatementContext,
    routines: &Arc<Routines>,
    name: &str,
    arguments: &[Expr],
) -> Result<Option<Arc<dyn TableProvider>>> {
    let candidates = routines.find(context, None, name, false)?;
    if candidates.is_empty() {
        return Ok(None);
    }
    let mut values = Vec::with_capacity(arguments.len());
    for argument in arguments {
        match argument {
            Expr::Literal(value, _) => values.push(value.clone()),
            _ => {
                return Err(Error::unsupported(format!("the argument {argument} of {name} in FROM"))
                    .with_hint("Arguments of functions in FROM are constants here."));
            }
        }
    }
    let types: Vec<Option<DataType>> = values
        .iter()
        .map(|value| match value {
            Value::Utf8(_) | Value::Null => None,
            value => Some(value.data_type()),
        })
        .collect();
    let routine = choose(name, &candidates, &types)?;
    let arguments = values
        .iter()
        .zip(routine.input_types())
        .map(|(value, wanted): (&Value, &SqlType)| wanted.assign(Datum::of(value), &value.data_type(), context.zone()))
        .collect::<Result<Vec<_>>>()?;
    let schema = schema_of(&routine.columns(name));
    let table = RoutineTable {
        routine,
        arguments,
        schema: Arc::clone(&schema),
        context: Box::new(context.for_function()),
        routines: Arc::clone(routines),
    };
    Ok(Some(Arc::new(StreamingTable::try_new(schema, vec![Arc::new(table)])?)))
}

impl PartitionStream for RoutineTable {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (routine, arguments) = (Arc::clone(&self.routine), self.arguments.clone());
        let (context, routines) = (self.context.clone(), Arc::clone(&self.routines));
        let shape = routine.columns(&routine.definition.name);
        let now = began(&context);
        let rows = async move {
            let mut execution = Execution::new(Access::Reading(context), routines, now);
            let arguments = execution.with_defaults(&routine, arguments).await?;
            let rows = match routine.definition.is_strict && arguments.iter().any(Datum::is_null) {
                true => Vec::new(),
                false => rows_of(&routine, execution.call(&routine, arguments).await?)?,
            };
            Ok(batch_of(&shape, &rows)?.with_schema(schema_of(&shape))?)
        };
        let schema = Arc::clone(&self.schema);
        let renamed = {
            let schema = Arc::clone(&schema);
            async move {
                let batch: arrow::record_batch::RecordBatch =
                    rows.await.map_err(|error: Error| datafusion::error::DataFusionError::from(error))?;
                Ok(batch.with_schema(schema)?)
            }
        };
        Box::pin(RecordBatchStreamAdapter::new(schema, stream::once(renamed)))
    }
}

impl fmt::Debug for RoutineTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.routine.definition.name)
    }
}

impl Execution<'_> {
    /// The arguments of a call, with defaults for those that are missing.
    pub(crate) async fn with_defaults(
        &mut self,
        routine: &Arc<Routine>,
        mut arguments: Vec<Datum>,
    ) -> Result<Vec<Datum>> {
        for place in arguments.len()..routine.defaults.len() {
            let text = routine.defaults[place].as_deref().ok_or_else(|| Error::internal("an argument is missing"))?;
            let wanted = routine.input_types().nth(place).cloned().unwrap_or_else(SqlType::text);
            let default = self.constant(text).await?;
            arguments.push(wanted.assign(default.0, &default.1, self.zone())?);
        }
        Ok(arguments)
    }

    async fn call_with_defaults(&mut self, routine: &Arc<Routine>, arguments: Vec<Datum>) -> Result<Datum> {
        let arguments = self.with_defaults(routine, arguments).await?;
        if routine.definition.is_strict && arguments.iter().any(Datum::is_null) {
            return Ok(Datum::Null);
        }
        match self.call(routine, arguments).await? {
            Outcome::Value(value) => Ok(value),
            Outcome::Nothing => Ok(Datum::text("")),
            Outcome::Outputs(_) | Outcome::Rows(_) => {
                Err(Error::new(sqlstate::INTERNAL, "a function that returned no value"))
            }
        }
    }
}
