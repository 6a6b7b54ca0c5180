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

mod expressions;
mod names;
mod statements;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use rustydb_storage::Mark;

pub use names::Names;
pub use statements::{Ran, RanAtOnce};
pub(crate) use statements::{batch_of, rows_of};

use super::expression::{self, CompiledExpression};
use super::fragment::{SqlExpression, SqlStatement};
use super::language::Notice;
use super::names::Variables;
use super::registry::Routines;
use super::statement::{self, CompiledStatement};
use super::types::{Shape, SqlType, resolve_type};
use crate::error::sqlstate;
use crate::interrupt;
use crate::row_path::Program;
use crate::session::{Changing, Left};
use crate::sql::context::StatementContext;
use crate::{Error, Result};

/// Routines that call each other. Each call takes stack, of which a statement has 32 MiB: in a build without optimisation
/// more than 128 kB.
const DEPTH_MAX: usize = 64;

/// The same on the client's own task, whose stack is whatever it is.
const INSIDE_DEPTH_MAX: usize = 4;

/// Work between two looks at the clock, in rows that are looked at: some milliseconds. One statement may go beyond it by as
/// much as a program looks at, which is a few times that.
const WORK_PER_REST: usize = 8192;

/// A jump backwards, with what is between it and the one before, or a statement, beside the rows that it looks at, counts as so
/// many of them.
const STEP_WORK: usize = 32;

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
    /// What was done since others could run.
    work: usize,
    /// How to go on with the program that was begun last, if that could not be run at once.
    left: Option<(Arc<Program>, Left)>,
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

/// What expressions need to know beside their inputs.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// When the statement began, in microseconds since 1970.
    pub(crate) now: i64,
    /// Whether they may be computed without DataFusion: `row_path`.
    pub(crate) computes: bool,
}

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
            work: 0,
            left: None,
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
        let at_once = self.work + STEP_WORK < WORK_PER_REST;
        if at_once {
            self.work += STEP_WORK;
        }
        at_once
    }

    /// To be called at every jump backwards: lets others run now and then, and fails with 57014 if the statement is to
    /// stop.
    pub async fn pause(&mut self) -> Result<()> {
        self.note_work(0);
        self.rest().await
    }

    /// Counts a step that has looked at so many rows.
    fn note_work(&mut self, rows: usize) {
        self.work = self.work.saturating_add(STEP_WORK).saturating_add(rows);
    }

    /// Whether nothing is to be done before the next [`rest`](Self::rest).
    fn is_rest_due(&self) -> bool {
        self.work >= WORK_PER_REST
    }

    /// Lets others run, and fails with 57014 if the statement is to stop, if enough was done since the last time.
    async fn rest(&mut self) -> Result<()> {
        if self.is_rest_due() {
            self.work = 0;
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
            Access::Changing(changing) => Some(changing.begin_block()),
            Access::Reading(_) => None,
        }
    }

    /// Ends the innermost of such blocks: what was done in it stays.
    pub fn end_block(&mut self, start: Option<Mark>) {
        self.blocks -= 1;
        if let (Access::Changing(changing), Some(start)) = (&mut self.access, start) {
            changing.end_block(start);
        }
    }

    /// Ends the innermost of such blocks: what was done in it is undone.
    pub fn undo_block(&mut self, start: Option<Mark>) {
        self.blocks -= 1;
        if let (Access::Changing(changing), Some(start)) = (&mut self.access, start) {
            changing.undo_block(start);
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

impl std::fmt::Debug for Execution<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Execution").field("depth", &self.depth).finish_non_exhaustive()
    }
}
