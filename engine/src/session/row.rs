//! Statements on the row path: on the caller's own task, in the session's transaction or one of their own.
//!
//! ```text
//!   caller's task:  known program? ─ yes ─▶ run ─┬─▶ result
//!                        │ no                    └─ undecided ─┐
//!                        ▼                                     ▼
//!   query threads:  parse ─▶ route ─▶ compile? ─ yes ─▶ run   ordinary path
//! ```
//! A program waits for nothing itself; for what stands in its way it is waited here, within the statement's time.
//!
//! What holds of a statement holds here, too: its isolation level, the snapshot that moves at READ COMMITTED, running it
//! again after a conflict, `lock_timeout` and `statement_timeout`, and that a failure fails the transaction.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr, SetExpr, Statement as SqlStatement};
use futures::FutureExt;
use rustydb_storage::{Isolation, Obstacle, Transaction};

use super::routine::Changing;
use super::statement::{Statement, Text};
use super::transaction::{TransactionState, TransactionStatus};
use super::write::RERUNS_MAX;
use super::{Completion, Shared, StatementResult};
use crate::row_path::{Call, DataRows, Datum, Known, Origin, Outcome, Program, Ready, Stop, compile};
use crate::runtime::{Runtimes, panic_message};
use crate::sql::grammar::transaction::{ModeList, TransactionStatement};
use crate::sql::nul;
use crate::sql::route::{Routed, route};
use crate::sql::text::parse::ParsedStatement;
use crate::stream::RecordStream;
use crate::{Error, Result, Value};

/// The outcome of a statement; `None`: the ordinary path shall run it.
type Tried = Option<Result<StatementResult>>;

/// A statement that runs on the caller's task and, for clocks and files, in the database's runtime.
///
/// What it is made of is behind a trait object, so that other crates need not prove again that it may move between threads
/// (see [`crate::opaque`]).
pub(super) struct Inside<'a> {
    work: Pin<Box<dyn Future<Output = Tried> + Send + 'a>>,
    runtimes: &'a Runtimes,
}

impl Future for Inside<'_> {
    type Output = Tried;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Tried> {
        let runtimes = self.runtimes;
        let _entered = runtimes.enter();
        runtimes.governor().count(|| self.work.as_mut().poll(context))
    }
}

/// Whether the session's statements may be run by programs. Programs are shared by all sessions, and a name means
/// something else in a session that has temporary relations.
pub(super) fn may_take_row_path(statement: &Statement<'_>) -> bool {
    statement.settings.row_path && !statement.temporary().is_used()
}

impl Shared {
    /// Runs a statement if it is a known program, or begins or ends a transaction.
    pub(super) fn run_known<'a>(&'a self, text: Text<'a>, parameters: &'a [Value], arrived: Instant) -> Inside<'a> {
        let work = Box::pin(async move {
            let mut transaction = self.lock_transaction().await;
            let before = transaction.status();
            let result = AssertUnwindSafe(self.run_in(&mut transaction, &text, parameters, arrived)).catch_unwind();
            let result = result.await.unwrap_or_else(|panic| {
                let reason = panic_message(panic.as_ref());
                tracing::error!(reason, "a statement panicked");
                let message = "the statement failed on an internal error; other statements are not affected";
                Some(Err(Error::internal(message).with_detail(reason)))
            })?;
            if result.is_err() {
                transaction.fail();
            }
            if before != TransactionStatus::Idle || transaction.status() != before {
                self.publish(&transaction);
                self.watch();
            }
            Some(result)
        });
        Inside { work, runtimes: self.database.runtimes() }
    }

    async fn run_in(
        &self,
        transaction: &mut TransactionState,
        text: &Text<'_>,
        parameters: &[Value],
        arrived: Instant,
    ) -> Tried {
        let control = if parameters.is_empty() { plain_control(text.sql()) } else { None };
        if let Some(control) = control {
            self.wake();
            let statement = self.statement(&[], arrived);
            if !control.ends_failure()
                && let Err(error) = transaction.require_not_failed()
            {
                return Some(Err(error));
            }
            return Some(self.control(transaction, &statement, control).await.map(StatementResult::Done));
        }
        if matches!(transaction, TransactionState::Failed(_)) || nul::check_parameters(parameters).is_err() {
            return None;
        }
        let statement = self.statement(parameters, arrived);
        if !may_take_row_path(&statement) {
            return None;
        }
        match self.known(transaction, &statement, text, parameters)? {
            Ready::Program(program) => {
                let values = program.bind(parameters).ok()?;
                self.wake();
                self.run_program(transaction, &statement, &program, &values).await
            }
            Ready::Call(call) => {
                self.wake();
                self.call_here(transaction, &statement, &call).await
            }
        }
    }

    /// What a statement was compiled to, if that is good for what the session sees now.
    fn known(
        &self,
        transaction: &mut TransactionState,
        statement: &Statement<'_>,
        text: &Text<'_>,
        parameters: &[Value],
    ) -> Option<Ready> {
        let begun = transaction.open().and_then(|open| open.transaction());
        let current;
        let catalog = match begun {
            Some(transaction) => transaction.catalog(),
            None => {
                current = self.database.store().catalog();
                &current
            }
        };
        let (options, search_path) = (statement.settings.config.options(), &statement.settings.search_path);
        if let Text::Prepared(prepared) = text {
            let kept = prepared.ready();
            if let Some(ready) = kept
                && ready.origin().is(catalog, options, search_path)
                && ready.accepts(parameters)
            {
                return ready.is_due().then_some(ready);
            }
        }
        match self.database.programs().find(text.sql(), parameters, catalog, options, search_path) {
            Known::Ready(ready) => {
                if let Text::Prepared(prepared) = text {
                    prepared.keep_ready(&ready);
                }
                ready.is_due().then_some(ready)
            }
            Known::Unsuited | Known::Nothing => None,
        }
    }

    /// Compiles a statement that nothing is known of, and runs it. `None`: it is not for the row path, or undecided.
    pub(super) async fn compile_and_run(
        &self,
        transaction: &mut TransactionState,
        statement: &Statement<'_>,
        sql: &str,
        parsed: &ParsedStatement,
    ) -> Tried {
        if !may_take_row_path(statement) || matches!(transaction, TransactionState::Failed(_)) || !may_suit(parsed) {
            return None;
        }
        let view = self.planning_view(transaction);
        let (options, search_path) = (statement.settings.config.options(), &statement.settings.search_path);
        let parameters = statement.parameters;
        let programs = self.database.programs();
        let program = match programs.find(sql, parameters, view.catalog(), options, search_path) {
            Known::Ready(Ready::Program(program)) => program,
            Known::Ready(Ready::Call(_)) | Known::Unsuited => return None,
            Known::Nothing => {
                let types: Vec<_> = parameters.iter().map(Value::data_type).collect();
                let context = statement.context(view);
                let routed = route(parsed.clone()).ok()?;
                let program = compile(&context, routed, &types).map(Arc::new);
                let origin = Origin::of(&context);
                programs.keep(sql, types, origin, program.clone().map(Ready::Program));
                program?
            }
        };
        if !program.is_due() {
            return None;
        }
        let values = program.bind(parameters).ok()?;
        self.run_program(transaction, statement, &program, &values).await
    }

    /// The program that EXPLAIN of a statement shows, if it has one.
    pub(super) fn program_to_explain(
        &self,
        transaction: &mut TransactionState,
        statement: &Statement<'_>,
        routed: &Routed,
    ) -> Option<Program> {
        if !may_take_row_path(statement) {
            return None;
        }
        let types: Vec<_> = statement.parameters.iter().map(Value::data_type).collect();
        compile(&statement.context(self.planning_view(transaction)), routed.clone(), &types)
    }

    /// Runs a program. `None`: the ordinary path shall run the statement.
    async fn run_program(
        &self,
        transaction: &mut TransactionState,
        statement: &Statement<'_>,
        program: &Arc<Program>,
        values: &[Datum],
    ) -> Tried {
        let call = Call { parameters: values, now: statement.now_microseconds() };
        let ended = match program.writes() {
            false => statement.deadline.limit(self.read_with(transaction, statement, program, call)).await,
            true => self.write_with(transaction, statement, program, call).await,
        };
        match ended {
            Ok(Some(outcome)) => Some(Ok(result_of(program, outcome))),
            Ok(None) => None,
            Err(error) => Some(Err(error)),
        }
    }

    async fn read_with(
        &self,
        transaction: &mut TransactionState,
        statement: &Statement<'_>,
        program: &Program,
        call: Call<'_>,
    ) -> Result<Option<Outcome>> {
        let view = match transaction.open() {
            Some(open) => open.begin(self.database.store(), statement.settings.lock_timeout).await?.view(),
            None if statement.settings.default_modes.isolation == Isolation::Serializable => return Ok(None),
            None => self.database.store().snapshot(),
        };
        if !Arc::ptr_eq(view.catalog(), &program.origin.catalog) {
            return Ok(None);
        }
        decided(program, program.read(&view, call).await)
    }

    async fn write_with(
        &self,
        state: &mut TransactionState,
        statement: &Statement<'_>,
        program: &Program,
        call: Call<'_>,
    ) -> Result<Option<Outcome>> {
        let mut attempts = 0;
        loop {
            let mut taken = self.take(state, statement, program.tag()).await?;
            let reruns = taken.commits || taken.transaction.isolation().moves_with_statements();
            let held = taken.transaction.lock_count();
            let work = run_again(program, &mut taken.transaction, call, reruns, &mut attempts);
            let Some(outcome) = statement.deadline.limit(work).await? else {
                // Nothing was changed: the ordinary path takes its locks itself.
                taken.transaction.release_locks_to(held);
                if !taken.commits {
                    state.give_back(taken);
                }
                return Ok(None);
            };
            let again = taken.commits;
            match self.give_back(state, statement, taken).await {
                Err(error) if again && error.is_conflict() && attempts < RERUNS_MAX => attempts += 1,
                ended => return ended.map(|()| Some(outcome)),
            }
        }
    }
}

/// What came of a program that was not to wait.
pub(crate) enum Begun {
    Ended(Result<Outcome>),
    /// Nothing was changed.
    Left(Left),
}

/// How to go on with a program that was left.
#[derive(Debug, Default)]
pub(crate) enum Left {
    /// From the beginning, and on a newer snapshot if that moves.
    #[default]
    Everything,
    /// On the same snapshot, when this is overcome.
    Waiting(Obstacle),
    /// On the ordinary path.
    Undecided,
}

impl Begun {
    pub(crate) fn of(program: &Program, ended: std::result::Result<Outcome, Stop>) -> Begun {
        match ended {
            Err(Stop::Waits(obstacle)) => Begun::Left(Left::Waiting(obstacle)),
            ended => match decided(program, ended).transpose() {
                Some(ended) => Begun::Ended(ended),
                None => Begun::Left(Left::Undecided),
            },
        }
    }
}

impl Changing<'_> {
    /// Runs a program of the row path, if nothing stands in the way. [`run_program`](Self::run_program) goes on with what was
    /// left.
    pub(crate) fn run_program_at_once(&mut self, program: &Program, call: Call<'_>) -> Begun {
        const EVERYTHING: Begun = Begun::Left(Left::Everything);
        if program.writes() && self.require_read_write(program.tag()).is_err() {
            return EVERYTHING;
        }
        let transaction = self.transaction_mut();
        let moves = transaction.isolation().moves_with_statements();
        if moves && !matches!(transaction.refresh_at_once(), Ok(true)) {
            return EVERYTHING;
        }
        if !Arc::ptr_eq(transaction.catalog(), &program.origin.catalog) {
            return Begun::Left(Left::Undecided);
        }
        let held = transaction.lock_count();
        match program.run_at_once(transaction, call) {
            Err(Stop::Failed(error)) if moves && error.is_conflict() => EVERYTHING,
            ended => {
                if matches!(ended, Err(Stop::Undecided | Stop::LongRange)) {
                    // Nothing was changed: the ordinary path takes its locks itself.
                    transaction.release_locks_to(held);
                }
                Begun::of(program, ended)
            }
        }
    }

    /// Runs a program of the row path; at READ COMMITTED again, if it meets a concurrent change. `None`: the ordinary path
    /// shall run the statement.
    pub(crate) async fn run_program(
        &mut self,
        program: &Program,
        call: Call<'_>,
        left: Left,
    ) -> Result<Option<Outcome>> {
        let mut obstacle = None;
        match left {
            Left::Undecided => return Ok(None),
            // The snapshot is the one on which it was met.
            Left::Waiting(met) => obstacle = Some(met),
            Left::Everything => {
                if program.writes() {
                    self.require_read_write(program.tag())?;
                }
                self.refresh().await?;
            }
        }
        let moves = program.writes() && self.transaction().isolation().moves_with_statements();
        let transaction = self.transaction_mut();
        let held = transaction.lock_count();
        for attempt in 0.. {
            if !Arc::ptr_eq(transaction.catalog(), &program.origin.catalog) {
                return Ok(None);
            }
            let ended = match obstacle.take() {
                Some(obstacle) => program.run_after(obstacle, transaction, call).await,
                None => program.run(transaction, call).await,
            };
            match decided(program, ended) {
                // A program that fails has changed nothing.
                Err(error) if moves && error.is_conflict() && attempt < RERUNS_MAX && transaction.may_refresh() => {
                    transaction.refresh().await?
                }
                Ok(None) => {
                    transaction.release_locks_to(held);
                    return Ok(None);
                }
                ended => return ended,
            }
        }
        Err(Error::internal("counting attempts ended"))
    }
}

/// Runs a program; where nothing was read before it that it would contradict, a concurrent change makes it run again on a
/// new snapshot, with the locks it has already.
async fn run_again(
    program: &Program,
    transaction: &mut Transaction,
    call: Call<'_>,
    reruns: bool,
    attempts: &mut usize,
) -> Result<Option<Outcome>> {
    transaction.expect_reruns(reruns);
    loop {
        if !Arc::ptr_eq(transaction.catalog(), &program.origin.catalog) {
            return Ok(None);
        }
        match decided(program, program.run(transaction, call).await) {
            // A program that fails has changed nothing.
            Err(error) if reruns && error.is_conflict() && *attempts < RERUNS_MAX && transaction.may_refresh() => {
                *attempts += 1;
                if !transaction.refresh_at_once()? {
                    Box::pin(transaction.refresh()).await?;
                }
            }
            ended => return ended,
        }
    }
}

/// What came of a program. `None`: the ordinary path shall run the statement.
pub(crate) fn decided(program: &Program, ended: std::result::Result<Outcome, Stop>) -> Result<Option<Outcome>> {
    match ended {
        Ok(outcome) => Ok(Some(outcome)),
        Err(Stop::Undecided) => Ok(None),
        Err(Stop::LongRange) => {
            program.was_too_long();
            Ok(None)
        }
        Err(Stop::Waits(_)) => Err(Error::internal("a program stopped at what it should have waited for")),
        Err(Stop::Failed(error)) => Err(error),
    }
}

fn result_of(program: &Program, outcome: Outcome) -> StatementResult {
    match outcome.rows.zip(program.schema()) {
        Some((rows, schema)) => {
            StatementResult::Rows(RecordStream::of_data(DataRows { schema: Arc::clone(schema), rows }))
        }
        None => StatementResult::Done(Completion::of_rows(program.tag(), outcome.count)),
    }
}

/// BEGIN, COMMIT and ROLLBACK without anything else: not worth a parser.
fn plain_control(sql: &str) -> Option<TransactionStatement> {
    let word = sql.trim_matches(|letter: char| letter.is_ascii_whitespace() || letter == ';');
    if word.len() > "ROLLBACK".len() {
        return None;
    }
    let is = |name: &str| word.eq_ignore_ascii_case(name);
    if is("BEGIN") {
        Some(TransactionStatement::Begin(ModeList::default()))
    } else if is("COMMIT") {
        Some(TransactionStatement::Commit { chain: false })
    } else if is("ROLLBACK") {
        Some(TransactionStatement::Rollback { chain: false })
    } else {
        None
    }
}

/// Whether it is worth planning a statement in order to compile it: queries of many tables, of groups, without a
/// condition or a list of values are not.
fn may_suit(parsed: &ParsedStatement) -> bool {
    let ParsedStatement::Sql(statement) = parsed else { return false };
    match statement.as_ref() {
        SqlStatement::Query(query) => match query.body.as_ref() {
            SetExpr::Select(select) => {
                let grouped = !matches!(
                    &select.group_by,
                    datafusion::sql::sqlparser::ast::GroupByExpr::Expressions(expressions, _) if expressions.is_empty()
                );
                let tables: usize = select.from.iter().map(|from| 1 + from.joins.len()).sum();
                let keyed = select.selection.as_ref().is_some_and(has_equality)
                    || select.from.iter().any(|from| !from.joins.is_empty());
                let short = tables == 0 || (tables <= 3 && keyed);
                query.with.is_none() && !grouped && select.having.is_none() && short
            }
            _ => false,
        },
        SqlStatement::Insert(insert) => {
            insert.source.as_ref().is_none_or(|source| matches!(source.body.as_ref(), SetExpr::Values(_)))
        }
        SqlStatement::Update(update) => update.selection.as_ref().is_some_and(has_equality),
        SqlStatement::Delete(delete) => delete.selection.as_ref().is_some_and(has_equality),
        _ => false,
    }
}

/// Whether one of the conditions that must hold compares for equality or with both ends of a range.
fn has_equality(condition: &Expr) -> bool {
    match condition {
        Expr::BinaryOp { left, op: BinaryOperator::And, right } => has_equality(left) || has_equality(right),
        Expr::BinaryOp { op, .. } => {
            matches!(
                op,
                BinaryOperator::Eq
                    | BinaryOperator::GtEq
                    | BinaryOperator::Gt
                    | BinaryOperator::LtEq
                    | BinaryOperator::Lt
            )
        }
        Expr::Between { .. } => true,
        Expr::Nested(inner) => has_equality(inner),
        _ => false,
    }
}
