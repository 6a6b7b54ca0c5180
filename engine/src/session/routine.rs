//! CALL, DO, and queries that call functions which may change rows.
//!
//! A call is one statement. Outside of a transaction it is a transaction of its own, which runs again from its beginning
//! when it meets a concurrent change, with the locks it has already: nobody has seen anything of it. A procedure that has
//! ended a transaction is not run again.
//!
//! A CALL that was compiled before begins on its client's own task ([`Shared::call_here`]). If something in it belongs on
//! the threads of queries, it is undone, and runs there from its beginning.

use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion::config::ConfigOptions;
use datafusion::sql::sqlparser::ast::{Function, Query};
use rustydb_storage::{Mark, Transaction};

use super::calls::{calls_first, has_routines, note_inputs};
use super::locking::lock_and_read;
use super::row::may_take_row_path;
use super::statement::Statement;
use super::transaction::{Frame, Modes, Taken, TransactionState, Working};
use super::write::{RERUNS_MAX, apply};
use super::{Completion, Shared, StatementResult};
use crate::ddl::locks::lock_changed_tables;
use crate::ddl::temporary::TemporarySchema;
use crate::dml::foreign_key::DeferredChecks;
use crate::dml::returning::Changed;
use crate::error::sqlstate;
use crate::routine::definition::schema_of;
use crate::routine::execution::{Access, Execution, Move, batch_of};
use crate::routine::statement::{CompiledStatement, Kind, compile_call};
use crate::routine::{
    CompiledCall, Datum, InputTypes, Language, Notice, Outcome, Program as RoutineProgram, Ran, Returns, Source,
};
use crate::row_path::{DataRows, Known, Ready};
use crate::sql::context::StatementContext;
use crate::sql::grammar::lock::LockingQuery;
use crate::sql::route::Write;
use crate::stream::RecordStream;
use crate::{Error, Result, Value, dml};

/// A statement that runs routines.
#[derive(Debug)]
pub(super) enum RoutineStatement {
    /// CALL; with its text, if it may be kept compiled.
    Call(Box<Function>, Option<String>),
    /// One that was compiled before.
    Compiled(Arc<CompiledCall>),
    Do {
        language: String,
        body: String,
    },
    Query(Box<Query>),
}

/// Messages that wait for somebody to read them; older ones are forgotten.
const NOTICES_MAX: usize = 1_000;

/// A transaction that routines work in, and the session it belongs to.
pub(crate) struct Changing<'a> {
    shared: &'a Shared,
    statement: &'a Statement<'a>,
    /// There is one but for the moment in which one ends and the next begins.
    transaction: Option<Working>,
    modes: Modes,
    may_end: bool,
    has_ended: bool,
    reruns: bool,
    /// What was said, if it is only said when the call has ended: it may have to run again.
    held_notices: Option<Vec<Notice>>,
    /// The checks that waited where each block with handlers began, the innermost last.
    waiting: Vec<DeferredChecks>,
}

impl<'a> Changing<'a> {
    pub(crate) fn transaction(&self) -> &Transaction {
        self.transaction.as_ref().expect("where a transaction ends, the next begins")
    }

    pub(crate) fn transaction_mut(&mut self) -> &mut Transaction {
        self.transaction.as_mut().expect("where a transaction ends, the next begins")
    }

    pub(crate) fn search_path(&self) -> &Arc<[String]> {
        &self.statement.settings.search_path
    }

    pub(crate) fn options(&self) -> &Arc<ConfigOptions> {
        self.statement.settings.config.options()
    }

    /// The schema of the session's temporary relations, if there may be any.
    pub(crate) fn temporary(&self) -> Option<&Arc<TemporarySchema>> {
        self.statement.used_temporary()
    }

    /// Whether its statements may be run by programs. Unlike those of sessions, programs of routines are compiled with the
    /// session's temporary relations in sight.
    pub(crate) fn takes_row_path(&self) -> bool {
        self.statement.settings.row_path
    }

    pub(crate) fn context(&self) -> StatementContext {
        self.statement.context(self.transaction().view())
    }

    pub(crate) fn may_end(&self) -> bool {
        self.may_end
    }

    /// Begins a block with handlers: the state to come back to.
    pub(crate) fn begin_block(&mut self) -> Mark {
        self.waiting.push(self.statement.deferred.lock().clone());
        self.transaction_mut().mark()
    }

    /// Ends the innermost of such blocks: what was done in it stays.
    pub(crate) fn end_block(&mut self, start: Mark) {
        self.waiting.pop();
        self.transaction_mut().release(start);
    }

    /// Ends the innermost of such blocks: what was done in it is undone.
    pub(crate) fn undo_block(&mut self, start: Mark) {
        if let Some(waiting) = self.waiting.pop() {
            *self.statement.deferred.lock() = waiting;
        }
        let transaction = self.transaction_mut();
        transaction.undo_to(&start);
        transaction.release_locks_since(&start);
        transaction.release(start);
    }

    /// Whether a conflict makes all of the call run again.
    pub(crate) fn reruns(&self) -> bool {
        self.reruns && !self.has_ended
    }

    pub(crate) fn require_read_write(&self, what: &str) -> Result<()> {
        self.modes.require_read_write(what)
    }

    pub(crate) fn notice(&mut self, notice: Notice) {
        match &mut self.held_notices {
            Some(held) if held.len() < NOTICES_MAX => held.push(notice),
            Some(_) => {}
            None => self.shared.say(notice),
        }
    }

    /// At READ COMMITTED the snapshot moves.
    pub(crate) async fn refresh(&mut self) -> Result<()> {
        let transaction = self.transaction_mut();
        if transaction.isolation().moves_with_statements() && !transaction.refresh_at_once()? {
            Box::pin(transaction.refresh()).await?;
        }
        Ok(())
    }

    /// Runs a statement that changes rows; at READ COMMITTED again, if it meets a concurrent change.
    pub(crate) async fn change(&mut self, parameters: &[Value], write: Write) -> Result<Changed> {
        self.refresh().await?;
        let statement = self.statement.with_typed_parameters(parameters);
        let moves = self.transaction().isolation().moves_with_statements();
        let transaction = self.transaction_mut();
        let reading = dml::Reading::default();
        if !moves {
            // In a box, here and below: the call of a routine is as large as the largest thing it may do.
            return Box::pin(dml::change(&statement, transaction, &reading, write)).await;
        }
        let start = transaction.mark();
        let mut attempts = 0;
        let changed = loop {
            match Box::pin(dml::change(&statement, transaction, &reading, write.clone())).await {
                Err(error) if error.is_conflict() && attempts < RERUNS_MAX => {
                    attempts += 1;
                    transaction.undo_to(&start);
                    if !transaction.may_refresh() {
                        break Err(error);
                    }
                    if let Err(error) = transaction.refresh().await {
                        break Err(error.into());
                    }
                }
                result => break result,
            }
        };
        transaction.release(start);
        changed
    }

    /// Runs a statement that changes what there is.
    pub(crate) async fn define(&mut self, parameters: &[Value], write: Write) -> Result<StatementResult> {
        let statement = self.statement.with_typed_parameters(parameters);
        let moves = self.transaction().isolation().moves_with_statements();
        let transaction = self.transaction_mut();
        Box::pin(lock_changed_tables(&statement, transaction, &write, moves)).await?;
        Box::pin(apply(&statement, transaction, write)).await
    }

    /// Runs a query whose rows are locked.
    pub(crate) async fn lock(&mut self, parameters: &[Value], query: &LockingQuery) -> Result<RecordBatch> {
        self.refresh().await?;
        let statement = self.statement.with_typed_parameters(parameters);
        let moves = self.transaction().isolation().moves_with_statements();
        let transaction = self.transaction_mut();
        for attempt in 0.. {
            match Box::pin(lock_and_read(&statement, transaction, query)).await {
                Err(error) if moves && error.is_conflict() && attempt < RERUNS_MAX && transaction.may_refresh() => {
                    transaction.refresh().await?
                }
                result => return result,
            }
        }
        Err(Error::internal("counting attempts ended"))
    }

    pub(crate) async fn commit(&mut self) -> Result<()> {
        let ended = match self.transaction.take() {
            Some(transaction) => Box::pin(self.shared.commit_now(transaction.into_inner(), self.statement)).await,
            None => Ok(()),
        };
        self.begin().await;
        ended
    }

    pub(crate) async fn rollback(&mut self) -> Result<()> {
        if let Some(transaction) = self.transaction.take() {
            transaction.into_inner().rollback();
        }
        self.shared.deferred.lock().clear();
        self.begin().await;
        Ok(())
    }

    async fn begin(&mut self) {
        self.has_ended = true;
        let options = self.modes.options(self.statement.settings.lock_timeout);
        self.transaction = Some(Working::alone(self.shared.database.store().begin_with(options).await));
    }
}

impl Shared {
    /// Keeps a message for whoever asks for it.
    fn say(&self, notice: Notice) {
        let mut notices = self.notices.lock();
        if notices.len() >= NOTICES_MAX {
            notices.pop_front();
        }
        notices.push_back(notice);
    }

    /// Whether a query calls functions in a way that lets them change rows: once, before its rows are looked at.
    pub(super) fn calls_first(&self, transaction: &TransactionState, statement: &Statement<'_>, query: &Query) -> bool {
        let view = self.planning_view(transaction);
        has_routines(&view) && calls_first(&statement.context(view), query)
    }

    pub(super) async fn run_routine(
        &self,
        state: &mut TransactionState,
        statement: &Statement<'_>,
        what: RoutineStatement,
    ) -> Result<StatementResult> {
        match self.run_anywhere(state, statement, &what, false).await? {
            Some(result) => Ok(result),
            None => Err(Error::internal("a call that ran on the threads of queries wanted to go there")),
        }
    }

    /// Runs a CALL on the task of who sent it. `None`: nothing came of it, it has to run on the threads of queries.
    pub(super) async fn call_here(
        &self,
        state: &mut TransactionState,
        statement: &Statement<'_>,
        call: &Arc<CompiledCall>,
    ) -> Option<Result<StatementResult>> {
        let what = RoutineStatement::Compiled(Arc::clone(call));
        self.run_anywhere(state, statement, &what, true).await.transpose()
    }

    async fn run_anywhere(
        &self,
        state: &mut TransactionState,
        statement: &Statement<'_>,
        what: &RoutineStatement,
        inside: bool,
    ) -> Result<Option<StatementResult>> {
        let mut attempts = 0;
        loop {
            let Taken { mut transaction, frame, commits } = self.take_any(state, statement).await?;
            let modes = frame.modes;
            let moves = transaction.isolation().moves_with_statements();
            transaction.expect_reruns(commits || moves);
            // What a transaction of its own has done is forgotten as a whole.
            let start = (inside && !commits).then(|| transaction.mark());
            let (result, has_ended, notices) = loop {
                let changing = Changing {
                    shared: self,
                    statement,
                    transaction: Some(transaction),
                    modes,
                    may_end: commits && !matches!(what, RoutineStatement::Query(_)),
                    has_ended: false,
                    reruns: commits,
                    held_notices: inside.then(Vec::new),
                    waiting: Vec::new(),
                };
                let routines = Arc::clone(self.database.routines());
                let execution = Execution::new(Access::Changing(changing), routines, statement.now_microseconds());
                let mut execution = if inside { execution.inside() } else { execution };
                let result = statement.deadline.limit(run(&mut execution, statement, what)).await;
                let wants_threads = execution.wants_threads();
                let Access::Changing(changing) = execution.into_access() else {
                    return Err(Error::internal("a call lost its transaction"));
                };
                let Changing { transaction: left, has_ended, held_notices, .. } = changing;
                transaction = left.ok_or_else(|| Error::internal("a call lost its transaction"))?;
                if let Some(why) = wants_threads {
                    if let (RoutineStatement::Compiled(call), Move::Always) = (what, why) {
                        call.passes.begin();
                    }
                    match start {
                        None => transaction.into_inner().rollback(),
                        Some(start) => {
                            transaction.undo_to(&start);
                            transaction.release(start);
                            state.give_back(Taken { transaction, frame, commits });
                        }
                    }
                    return Ok(None);
                }
                match &result {
                    Err(error) if commits && error.is_conflict() && !has_ended && attempts < RERUNS_MAX => {
                        attempts += 1;
                        transaction.restart();
                        self.deferred.lock().clear();
                        transaction.refresh().await?;
                    }
                    _ => break (result, has_ended, held_notices),
                }
            };
            notices.into_iter().flatten().for_each(|notice| self.say(notice));
            let result = result?;
            if let Some(start) = start {
                transaction.release(start);
            }
            match self.give_back(state, statement, Taken { transaction, frame, commits }).await {
                Err(error) if commits && !has_ended && error.is_conflict() && attempts < RERUNS_MAX => attempts += 1,
                ended => return ended.map(|()| Some(result)),
            }
        }
    }

    /// As [`take`](Self::take), for a statement that may turn out to change nothing.
    async fn take_any(&self, state: &mut TransactionState, statement: &Statement<'_>) -> Result<Taken> {
        state.require_not_failed()?;
        let (store, lock_timeout) = (self.database.store(), statement.settings.lock_timeout);
        let taken = match state.take(store, lock_timeout).await? {
            Some(taken) => taken,
            None => {
                let frame = Frame::new(statement.settings.default_modes);
                let transaction = Working::alone(store.begin_with(frame.modes.options(lock_timeout)).await);
                Taken { transaction, frame, commits: true }
            }
        };
        self.publish(state);
        Ok(taken)
    }
}

/// The parameters of a statement as inputs.
pub(crate) fn parameter_types(parameters: &[Value]) -> InputTypes {
    parameters.iter().map(Value::data_type).collect()
}

async fn run(
    execution: &mut Execution<'_>,
    statement: &Statement<'_>,
    what: &RoutineStatement,
) -> Result<StatementResult> {
    let routines = Arc::clone(statement.database.routines());
    let types = parameter_types(statement.parameters);
    let inputs: Vec<Datum> = statement.parameters.iter().map(Datum::of).collect();
    match what {
        RoutineStatement::Compiled(call) => run_call(execution, call, &inputs).await,
        RoutineStatement::Call(function, text) => {
            let call = compiled_call(execution, statement, function, text.as_deref(), types)?;
            run_call(execution, &call, &inputs).await
        }
        RoutineStatement::Do { language, body } => {
            let program = anonymous(&routines.languages, language, body)?;
            match execution.run_program(&program).await? {
                Outcome::Nothing => Ok(StatementResult::Done(Completion::new("DO"))),
                _ => Err(Error::internal("a block that returned something")),
            }
        }
        RoutineStatement::Query(query) => {
            let compiled = CompiledStatement::of_query(Query::clone(query), types, &execution.context(), &routines)?;
            match &compiled.kind {
                Kind::Values(_) => {
                    let mut rows = execution.open(&compiled, &inputs).await?;
                    let shape = Arc::clone(rows.shape());
                    let values = rows.next().await?.unwrap_or_default();
                    let batch = batch_of(&shape, &[values])?;
                    Ok(StatementResult::Rows(RecordStream::made(&batch.schema(), vec![batch])?))
                }
                _ => {
                    let ready = execution.plan(&compiled, &inputs).await?;
                    Ok(StatementResult::Rows(statement.start(ready)))
                }
            }
        }
    }
}

async fn run_call(execution: &mut Execution<'_>, call: &CompiledCall, inputs: &[Datum]) -> Result<StatementResult> {
    if !execution.means_origin(&call.origin) {
        // The catalog has changed in this moment.
        execution.require_threads(Move::Once)?;
        return Err(Error::internal("a CALL of another catalog"));
    }
    let Ran { rows: _, returned } = execution.run(&call.statement, inputs).await?;
    match (returned, &call.schema) {
        (Some(mut rows), Some(schema)) => {
            let row = rows.next().await?.unwrap_or_default();
            let rows = DataRows { schema: Arc::clone(schema), rows: vec![row] };
            Ok(StatementResult::Rows(RecordStream::of_data(rows)))
        }
        _ => Ok(StatementResult::Done(Completion::new("CALL"))),
    }
}

/// A CALL as it is kept, or compiled now and kept from now on.
fn compiled_call(
    execution: &Execution<'_>,
    statement: &Statement<'_>,
    function: &Function,
    text: Option<&str>,
    types: InputTypes,
) -> Result<Arc<CompiledCall>> {
    let context = execution.context();
    let routines = statement.database.routines();
    let programs = statement.database.programs();
    // What is kept is shared by all sessions, and names mean something else in one that has temporary relations.
    let Some(text) = text.filter(|_| may_take_row_path(statement)) else {
        return CompiledCall::new(function.clone(), types, &context, routines).map(Arc::new);
    };
    let (options, search_path) = (statement.settings.config.options(), &statement.settings.search_path);
    let catalog = context.view().catalog();
    if let Known::Ready(Ready::Call(call)) = programs.find(text, statement.parameters, catalog, options, search_path) {
        return Ok(call);
    }
    let call = Arc::new(CompiledCall::new(function.clone(), types, &context, routines)?);
    programs.keep(text, call.types().to_vec(), call.origin.clone(), Some(Ready::Call(Arc::clone(&call))));
    Ok(call)
}

/// The program of a DO block.
pub(crate) fn anonymous(
    languages: &[Arc<dyn Language>],
    language: &str,
    body: &str,
) -> Result<Arc<dyn RoutineProgram>> {
    let found = languages.iter().find(|known| known.name() == language);
    let language = found.ok_or_else(|| crate::routine::definition::no_language(language, languages))?;
    if language.name() == "sql" {
        return Err(Error::new(
            sqlstate::FEATURE_NOT_SUPPORTED,
            "language \"sql\" does not support inline code execution",
        ));
    }
    language.compile(&Source {
        name: "inline_code_block".to_owned(),
        signature: "inline_code_block".to_owned(),
        is_procedure: true,
        parameters: Vec::new(),
        returns: Returns::Void,
        names_columns: false,
        body: body.to_owned(),
    })
}

/// The types that a CALL's parameters should have, and the columns it answers with, for those who prepare one.
pub(crate) fn describe_call(
    context: &StatementContext,
    routines: &crate::routine::registry::Routines,
    function: &Function,
    parameters: usize,
) -> Result<(Vec<Option<DataType>>, Option<SchemaRef>)> {
    let unknown = vec![DataType::Null; parameters];
    let compiled = compile_call(function.clone(), unknown, context, routines)?;
    let Kind::Call { routine, arguments, .. } = &compiled.kind else {
        return Err(Error::internal("a CALL that is none"));
    };
    let mut types = vec![None; parameters];
    note_inputs(arguments, &mut types);
    Ok((types, routine.output_shape().map(|shape| schema_of(&shape))))
}
