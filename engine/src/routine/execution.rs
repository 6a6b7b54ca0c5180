//! A routine while it runs: what it can do to the database, and the limits it runs under.
//!
//! ```text
//!   CALL p()         ─▶ Changing: the session's transaction, or one of its own that a procedure may also end
//!   SELECT f() …     ─▶ Changing, if all depends on f alone
//!   SELECT f(a) FROM ─▶ Reading: the statement's view; what changes rows is refused
//! ```
//! Everything happens in the task of the statement that called: a statement inside a routine costs no hop between
//! threads. [`Execution::pause`] lets others run and asks whether the statement is to stop.
//!
//! A CALL begins on its client's own task ([`crate::session::Session`]), where everything was compiled before and the
//! row path knows all statements. What cannot be done there (planning, which needs stack; ending the transaction, after
//! which nothing could be done again) ends it with [`Execution::require_threads`]; it is undone, and runs on the threads
//! of queries from its beginning.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use arrow::datatypes::DataType;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::catalog::Session;
use datafusion::config::ConfigOptions;
use datafusion::datasource::{MemTable, TableProvider};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::physical_plan::execute_stream;
use datafusion::sql::sqlparser::ast::Query;
use rustydb_storage::{Catalog, Mark};

use super::definition::{Routine, schema_of};
use super::expression::{self, Argument, CompiledExpression, Compiler, Node};
use super::fragment::{SqlExpression, SqlStatement};
use super::language::{Notice, Outcome, Program, Returns};
use super::names::{InputTypes, Variables};
use super::registry::Routines;
use super::statement::{self, CompiledStatement, Kind, Relation, Rows, name_of};
use super::types::{Shape, SqlType, resolve_type};
use crate::ddl::temporary::TemporarySchema;
use crate::dml::returning::{Changed, Returned};
use crate::error::sqlstate;
use crate::interrupt;
use crate::row_path::{self, Call, Datum, Origin, array_of};
use crate::session::{Changing, StatementResult, decided, note_reads};
use crate::sql::context::StatementContext;
use crate::sql::parse::parse_expression;
use crate::sql::plan::{ReadyPlan, bind, make_ready, plan_query};
use crate::sql::route::Write;
use crate::{Error, Result, Value};

/// Routines that call each other. Each call takes stack, of which a statement has 32 MiB: in a build without optimisation
/// more than 128 kB.
const DEPTH_MAX: usize = 64;

/// The same on the client's own task, whose stack is whatever it is.
const INSIDE_DEPTH_MAX: usize = 4;

/// Jumps backwards between two looks at the clock.
const JUMPS_PER_PAUSE: u32 = 256;

/// A running routine's way to the database.
pub struct Execution<'a> {
    access: Access<'a>,
    routines: Arc<Routines>,
    clock: Clock,
    /// Whether it runs on the client's own task.
    inside: bool,
    /// Why it has to go elsewhere: a [`Move`], if it has to.
    moves: AtomicU8,
    depth: usize,
    /// How many functions it is inside of: they cannot end the transaction.
    functions: usize,
    /// Blocks with handlers that are open.
    blocks: usize,
    jumps: u32,
    memory: Option<MemoryReservation>,
}

/// Why a routine cannot go on where its client's task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Move {
    /// Something has to be compiled; next time it will be.
    Once = 1,
    /// It does what is not done there.
    Always = 2,
}

#[expect(clippy::large_enum_variant, reason = "there is one for each call, and most of them change rows")]
pub(crate) enum Access<'a> {
    Changing(Changing<'a>),
    Reading(Box<StatementContext>),
}

/// What names mean to a routine: as long as it is the same, so are the tables, and what was compiled is good. Compared by
/// identity.
#[derive(Debug, Clone)]
pub struct Names {
    catalog: Arc<Catalog>,
    options: Arc<ConfigOptions>,
    search_path: Arc<[String]>,
    /// Names mean something else in a session that has temporary relations.
    temporary: Option<Arc<TemporarySchema>>,
}

impl PartialEq for Names {
    fn eq(&self, other: &Self) -> bool {
        other.are(&self.catalog, &self.options, &self.search_path, self.temporary.as_ref())
    }
}

impl Names {
    fn are(
        &self,
        catalog: &Arc<Catalog>,
        options: &Arc<ConfigOptions>,
        search_path: &Arc<[String]>,
        temporary: Option<&Arc<TemporarySchema>>,
    ) -> bool {
        Arc::ptr_eq(&self.catalog, catalog)
            && Arc::ptr_eq(&self.options, options)
            && (Arc::ptr_eq(&self.search_path, search_path) || self.search_path == *search_path)
            && match (&self.temporary, temporary) {
                (None, None) => true,
                (Some(own), Some(other)) => Arc::ptr_eq(own, other),
                _ => false,
            }
    }
}

/// What expressions need to know beside their inputs.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// When the statement began, in microseconds since 1970.
    pub(crate) now: i64,
    /// Whether they may be computed without DataFusion: `row_path`.
    pub(crate) computes: bool,
}

/// What a statement did.
#[derive(Debug)]
pub struct Ran {
    /// How many rows it touched, or returned.
    pub rows: u64,
    /// What it returned: RETURNING, or the OUT parameters of a CALL.
    pub returned: Option<Rows>,
}

type Boxed<'b, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'b>>;

impl<'a> Execution<'a> {
    /// `now` is when the statement began, in microseconds since 1970.
    pub(crate) fn new(access: Access<'a>, routines: Arc<Routines>, now: i64) -> Self {
        let computes = match &access {
            Access::Changing(changing) => changing.takes_row_path(),
            Access::Reading(_) => true,
        };
        Execution {
            access,
            routines,
            clock: Clock { now, computes },
            inside: false,
            moves: AtomicU8::new(0),
            depth: 0,
            functions: 0,
            blocks: 0,
            jumps: 0,
            memory: None,
        }
    }

    /// The same on the client's own task.
    pub(crate) fn inside(self) -> Self {
        Execution { inside: true, ..self }
    }

    /// Fails if this runs on the client's own task: it is not the place for what comes.
    pub(crate) fn require_threads(&self, why: Move) -> Result<()> {
        if !self.inside {
            return Ok(());
        }
        self.moves.store(why as u8, Ordering::Relaxed);
        Err(Error::internal("a routine went on where it should have stopped"))
    }

    /// Whether it has to run again, on the threads of queries, and why.
    pub(crate) fn wants_threads(&self) -> Option<Move> {
        match self.moves.load(Ordering::Relaxed) {
            0 => None,
            once if once == Move::Once as u8 => Some(Move::Once),
            _ => Some(Move::Always),
        }
    }

    pub(crate) fn into_access(self) -> Access<'a> {
        self.access
    }

    /// What expressions need to know beside their inputs.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// What names mean now.
    pub fn names(&self) -> Names {
        match &self.access {
            Access::Changing(changing) => Names {
                catalog: Arc::clone(changing.transaction().catalog()),
                options: Arc::clone(changing.options()),
                search_path: Arc::clone(changing.search_path()),
                temporary: changing.temporary().cloned(),
            },
            Access::Reading(context) => Names {
                catalog: Arc::clone(context.view().catalog()),
                options: Arc::clone(Session::config(context.as_ref()).options()),
                search_path: Arc::clone(context.search_path()),
                temporary: context.temporary_schema().cloned(),
            },
        }
    }

    /// Whether what was compiled for `origin`, without temporary relations in sight, is good here.
    pub(crate) fn means_origin(&self, origin: &Origin) -> bool {
        match &self.access {
            Access::Changing(changing) => {
                origin.is(changing.transaction().catalog(), changing.options(), changing.search_path())
            }
            Access::Reading(_) => false,
        }
    }

    /// Whether names still mean what they meant.
    pub fn means(&self, names: &Names) -> bool {
        match &self.access {
            Access::Changing(changing) => names.are(
                changing.transaction().catalog(),
                changing.options(),
                changing.search_path(),
                changing.temporary(),
            ),
            Access::Reading(context) => names.are(
                context.view().catalog(),
                Session::config(context.as_ref()).options(),
                context.search_path(),
                context.temporary_schema(),
            ),
        }
    }

    /// The planning context of the next statement.
    pub(crate) fn context(&self) -> StatementContext {
        match &self.access {
            Access::Changing(changing) => changing.context(),
            Access::Reading(context) => StatementContext::clone(context),
        }
    }

    /// The type that a text names.
    pub fn sql_type(&self, text: &str) -> Result<SqlType> {
        resolve_type(&self.context(), text)
    }

    /// The type of `table.column` or `schema.table.column`.
    pub fn column_type(&self, path: &[String]) -> Result<SqlType> {
        let (schema, table, column) = match path {
            [table, column] => (None, table, column),
            [schema, table, column] => (Some(schema.as_str()), table, column),
            _ => return Err(Error::syntax(format!("\"{}\" is no column", path.join(".")))),
        };
        let context = self.context();
        let table = context.table(schema, table)?;
        let column = crate::dml::defaults::column_index(table, column)?;
        Ok(SqlType::of_field(table.schema.field(column)))
    }

    /// The columns of a table.
    pub fn row_shape(&self, path: &[String]) -> Result<Shape> {
        let (schema, table) = match path {
            [table] => (None, table),
            [schema, table] => (Some(schema.as_str()), table),
            _ => return Err(Error::syntax(format!("\"{}\" is no table", path.join(".")))),
        };
        let context = self.context();
        Ok(Shape::of_fields(context.table(schema, table)?.schema.fields()))
    }

    /// To be called before something is parsed and compiled that is not kept: that is nothing for the client's own task.
    pub fn expects_planning(&self) -> Result<()> {
        self.require_threads(Move::Always)
    }

    /// Looks up the names of an expression.
    pub fn expression(&self, expression: &SqlExpression, variables: &mut dyn Variables) -> Result<CompiledExpression> {
        self.require_threads(Move::Once)?;
        expression::compile(expression, &self.context(), &self.routines, variables)
    }

    /// Looks up the names of a statement.
    pub fn statement(&self, statement: &SqlStatement, variables: &mut dyn Variables) -> Result<CompiledStatement> {
        self.require_threads(Move::Once)?;
        statement::compile(statement, &self.context(), &self.routines, variables)
    }

    /// At a jump backwards: whether there is no need to [`pause`](Self::pause). Counts the jump, if so.
    pub fn jumps_at_once(&mut self) -> bool {
        let at_once = self.jumps + 1 < JUMPS_PER_PAUSE;
        self.jumps += u32::from(at_once);
        at_once
    }

    /// To be called at every jump backwards: lets others run now and then, and fails with 57014 if the statement is to
    /// stop.
    pub async fn pause(&mut self) -> Result<()> {
        self.jumps += 1;
        if self.jumps >= JUMPS_PER_PAUSE {
            self.jumps = 0;
            interrupt::check()?;
            if matches!(self.access, Access::Changing(_)) {
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    /// Counts memory that the routine has taken: it is given back when the call ends.
    ///
    /// # Errors
    /// 53200 if there is no more.
    pub fn take_memory(&mut self, bytes: usize) -> Result<()> {
        if self.memory.is_none() {
            let context = self.context();
            self.memory = Some(MemoryConsumer::new("a routine").register(context.memory_pool()));
        }
        let Some(memory) = &mut self.memory else { return Ok(()) };
        Ok(memory.try_grow(bytes)?)
    }

    /// Sends a message.
    pub fn notice(&mut self, notice: Notice) {
        tracing::info!(severity = ?notice.severity, message = notice.message.message(), "a routine says");
        if let Access::Changing(changing) = &mut self.access {
            changing.notice(notice);
        }
    }

    /// The value of an expression.
    pub async fn evaluate(&mut self, expression: &CompiledExpression, inputs: &[Datum]) -> Result<Datum> {
        match expression.evaluate_now(inputs, self.clock) {
            Some(value) => Ok(value),
            None => self.evaluate_slowly(expression, inputs).await,
        }
    }

    fn evaluate_slowly<'b>(&'b mut self, expression: &'b CompiledExpression, inputs: &'b [Datum]) -> Boxed<'b, Datum> {
        Box::pin(async move {
            match &expression.node {
                Node::Input(_) | Node::Constant(_) => Err(Error::internal("a variable without a value")),
                Node::Plain { fast: _, slow: query } | Node::Query(query) => {
                    self.single_value(query, inputs, &expression.data_type).await
                }
                Node::Call { routine, arguments } => {
                    let arguments = self.arguments(arguments, inputs).await?;
                    self.call_function(routine, arguments).await
                }
                Node::Calls { calls, rest } => {
                    let mut all = inputs.to_vec();
                    // The inputs may be fewer than the expression knows of.
                    for call in calls {
                        let value = self.evaluate(call, inputs).await?;
                        all.push(value);
                    }
                    self.evaluate(rest, &all).await
                }
                Node::Case { branches, otherwise } => {
                    for (condition, result) in branches {
                        if self.evaluate(condition, inputs).await? == Datum::Bool(true) {
                            return self.evaluate_as(result, inputs, &expression.data_type).await;
                        }
                    }
                    match otherwise {
                        Some(result) => self.evaluate_as(result, inputs, &expression.data_type).await,
                        None => Ok(Datum::Null),
                    }
                }
                Node::Logic { or, sides } => {
                    let [left, right] = sides.as_ref();
                    let left = self.evaluate(left, inputs).await?;
                    if left == Datum::Bool(*or) {
                        return Ok(left);
                    }
                    let right = self.evaluate(right, inputs).await?;
                    Ok(if right == Datum::Bool(*or) || !left.is_null() { right } else { Datum::Null })
                }
                Node::Coalesce(parts) => {
                    for part in parts {
                        let value = self.evaluate_as(part, inputs, &expression.data_type).await?;
                        if !value.is_null() {
                            return Ok(value);
                        }
                    }
                    Ok(Datum::Null)
                }
            }
        })
    }

    async fn evaluate_as(
        &mut self,
        expression: &CompiledExpression,
        inputs: &[Datum],
        data_type: &DataType,
    ) -> Result<Datum> {
        let value = self.evaluate(expression, inputs).await?;
        SqlType::plain(data_type.clone()).assign(value, &expression.data_type)
    }

    /// The only column of the only row.
    async fn single_value(
        &mut self,
        query: &CompiledStatement,
        inputs: &[Datum],
        data_type: &DataType,
    ) -> Result<Datum> {
        let mut rows = self.open(query, inputs).await?;
        let shape = Arc::clone(rows.shape());
        let Some(mut row) = rows.next().await? else { return Ok(Datum::Null) };
        if rows.next().await?.is_some() {
            return Err(Error::new(sqlstate::CARDINALITY_VIOLATION, "query returned more than one row"));
        }
        match (row.pop(), shape.types.last()) {
            // The ordinary path may know a decimal's scale better than the expression does.
            (Some(value), Some(own)) if own.data_type.is_decimal() && own.data_type != *data_type => {
                SqlType::plain(data_type.clone()).assign(value, &own.data_type)
            }
            (Some(value), _) => Ok(value),
            _ => Err(Error::internal("a query without columns")),
        }
    }

    async fn arguments(&mut self, arguments: &[Argument], inputs: &[Datum]) -> Result<Vec<Datum>> {
        let mut values = Vec::with_capacity(arguments.len());
        for Argument { value, wanted } in arguments {
            let given = self.evaluate(value, inputs).await?;
            values.push(wanted.assign(given, &value.data_type)?);
        }
        Ok(values)
    }

    async fn call_function(&mut self, routine: &Arc<Routine>, arguments: Vec<Datum>) -> Result<Datum> {
        if routine.definition.is_strict && arguments.iter().any(Datum::is_null) {
            return Ok(Datum::Null);
        }
        self.functions += 1;
        let outcome = self.call(routine, arguments).await;
        self.functions -= 1;
        match outcome? {
            Outcome::Value(value) => Ok(value),
            Outcome::Nothing => Ok(Datum::text("")),
            Outcome::Outputs(_) | Outcome::Rows(_) => Err(Error::internal("a function that returned no value")),
        }
    }

    /// Runs a routine.
    pub(crate) async fn call(&mut self, routine: &Arc<Routine>, arguments: Vec<Datum>) -> Result<Outcome> {
        let program = routine.program()?;
        if self.depth >= INSIDE_DEPTH_MAX {
            self.require_threads(Move::Always)?;
        }
        if self.depth >= DEPTH_MAX {
            return Err(Error::new(sqlstate::STATEMENT_TOO_COMPLEX, "stack depth limit exceeded")
                .with_detail(format!("More than {DEPTH_MAX} routines call each other.")));
        }
        interrupt::check()?;
        self.depth += 1;
        let outcome = program.run(self, arguments).await;
        self.depth -= 1;
        outcome
    }

    /// Runs a block that has no name.
    pub(crate) async fn run_program(&mut self, program: &Arc<dyn Program>) -> Result<Outcome> {
        program.run(self, Vec::new()).await
    }

    /// The value of an expression without variables, and its type.
    pub(crate) async fn constant(&mut self, text: &str) -> Result<(Datum, DataType)> {
        self.require_threads(Move::Always)?;
        let syntax = parse_expression(text)?;
        let context = self.context();
        let routines = Arc::clone(&self.routines);
        let compiler = Compiler { context: &context, routines: &routines };
        let compiled = compiler.expression(syntax, &InputTypes::new())?;
        let value = self.evaluate(&compiled, &[]).await?;
        Ok((value, compiled.data_type))
    }

    /// The rows that a routine in FROM gives.
    async fn call_for_rows(&mut self, relation: &Relation, inputs: &[Datum]) -> Result<Vec<Vec<Datum>>> {
        let arguments = self.arguments(&relation.arguments, inputs).await?;
        let routine = &relation.routine;
        if routine.definition.is_strict && arguments.iter().any(Datum::is_null) {
            let nulls = relation.shape.types.iter().map(|_| Datum::Null).collect();
            return Ok(if routine.source.returns.is_set() { Vec::new() } else { vec![nulls] });
        }
        self.functions += 1;
        let outcome = self.call(routine, arguments).await;
        self.functions -= 1;
        rows_of(routine, outcome?)
    }

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

    /// Runs a statement on the row path. `None`: that does not know, and nothing was changed.
    async fn run_compiled(
        &mut self,
        statement: &CompiledStatement,
        inputs: &[Datum],
    ) -> Result<Option<row_path::Outcome>> {
        let program = statement.program.as_ref().filter(|program| self.clock.computes && program.is_due());
        let Some(program) = program else { return Ok(None) };
        let Ok(values) = program.bind_data(inputs) else { return Ok(None) };
        let call = Call { parameters: &values, now: self.clock.now };
        match &mut self.access {
            Access::Changing(changing) => changing.run_program(program, call).await,
            Access::Reading(context)
                if !program.writes() && Arc::ptr_eq(context.view().catalog(), &program.origin.catalog) =>
            {
                decided(program, program.read(context.view(), call).await)
            }
            Access::Reading(_) => Ok(None),
        }
    }

    /// Starts a query.
    pub async fn open(&mut self, statement: &CompiledStatement, inputs: &[Datum]) -> Result<Rows> {
        if let Some(outcome) = self.run_compiled(statement, inputs).await? {
            let rows = outcome.rows.ok_or_else(no_rows)?;
            return Ok(statement.rows_of_program(rows));
        }
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
            let returned = outcome.rows.map(|rows| statement.rows_of_program(rows));
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

    fn changing(&mut self, what: &str) -> Result<&mut Changing<'a>> {
        match &mut self.access {
            Access::Changing(changing) => {
                changing.require_read_write(what)?;
                Ok(changing)
            }
            Access::Reading(_) => Err(Error::unsupported(format!("{what} in a function that is called for rows"))
                .with_hint("SELECT f(…) without FROM, SELECT … FROM f(…) and CALL may change what they like.")),
        }
    }

    /// Begins a block with handlers: the state to come back to.
    pub fn begin_block(&mut self) -> Option<Mark> {
        self.blocks += 1;
        match &mut self.access {
            Access::Changing(changing) => Some(changing.transaction_mut().mark()),
            Access::Reading(_) => None,
        }
    }

    /// Ends the innermost of such blocks: what was done in it stays.
    pub fn end_block(&mut self, start: Option<Mark>) {
        self.blocks -= 1;
        if let (Access::Changing(changing), Some(start)) = (&mut self.access, start) {
            changing.transaction_mut().release(start);
        }
    }

    /// Ends the innermost of such blocks: what was done in it is undone.
    pub fn undo_block(&mut self, start: Option<Mark>) {
        self.blocks -= 1;
        if let (Access::Changing(changing), Some(start)) = (&mut self.access, start) {
            let transaction = changing.transaction_mut();
            transaction.undo_to(&start);
            transaction.release_locks_since(&start);
            transaction.release(start);
        }
    }

    /// Whether an error may be handled. Not one that makes the whole call run again, nor the end of the statement.
    pub fn may_handle(&self, error: &Error) -> bool {
        if interrupt::check().is_err() || self.wants_threads().is_some() {
            return false;
        }
        match &self.access {
            Access::Changing(changing) => !(changing.reruns() && error.is_conflict()),
            Access::Reading(_) => true,
        }
    }

    /// COMMIT in a procedure: the next statement begins another transaction.
    pub async fn commit(&mut self) -> Result<()> {
        self.ending("commit")?.commit().await
    }

    /// ROLLBACK in a procedure.
    pub async fn rollback(&mut self) -> Result<()> {
        self.ending("roll back")?.rollback().await
    }

    fn ending(&mut self, what: &str) -> Result<&mut Changing<'a>> {
        self.require_threads(Move::Always)?;
        let refused = |message: &str| Error::new(sqlstate::INVALID_TRANSACTION_TERMINATION, message);
        if self.blocks > 0 {
            return Err(refused(&format!("cannot {what} while a subtransaction is active"))
                .with_hint("A block with EXCEPTION is one."));
        }
        match &mut self.access {
            Access::Changing(changing) if changing.may_end() && self.functions == 0 => Ok(changing),
            _ => Err(refused("invalid transaction termination")
                .with_hint("A procedure may end a transaction if it is called outside of a transaction block.")),
        }
    }
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

impl std::fmt::Debug for Execution<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Execution").field("depth", &self.depth).finish_non_exhaustive()
    }
}
