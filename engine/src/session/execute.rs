//! One statement, from its syntax tree to its result, inside the session's transaction or one of its own.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::ExplainFormat;
use rustydb_storage::{Isolation, ReadView, Store, Transaction};

use super::describe::{describe_columns, describe_table, text_table};
use super::routine::RoutineStatement;
use super::settings::unknown;
use super::statement::{Statement, Text};
use super::transaction::{Frame, Modes, Taken, TransactionState, Working, no_transaction};
use super::write::{RERUNS_MAX, can_rerun, run_write, write_name};
use super::{Completion, Shared, StatementResult};
use crate::apply::ApplyExec;
use crate::dml::foreign_key;
use crate::error::sqlstate;
use crate::interrupt;
use crate::prepared::Prepared;
use crate::scan::{ColumnScanExec, ExecutionView};
use crate::sql::context::StatementContext;
use crate::sql::grammar::maintenance::MaintenanceStatement;
use crate::sql::grammar::named::NamedStatement;
use crate::sql::grammar::user::UserStatement;
use crate::sql::names::shown;
use crate::sql::nul;
use crate::sql::plan::{
    ReadyPlan, bind, check_parameter_count, explain, find_ready, make_ready, make_ready_and_keep, plan_query,
    result_schema,
};
use crate::sql::plan_key::plan_key;
use crate::sql::route::{Routed, SettingValue, Write, route};
use crate::sql::text::parse::{ParsedStatement, parse_expression, parse_statement};
use crate::stream::RecordStream;
use crate::users::{self, SHOW_USERS_COLUMNS, UserOutcome};
use crate::{Error, Expression, Result, Value, copy, ddl, dml};

/// A query on its way to a plan.
#[derive(Clone)]
#[expect(clippy::large_enum_variant, reason = "one for each statement, moved a few times")]
enum Asked<'a> {
    /// It was planned before, under this key.
    Known(&'a Text<'a>, Cow<'a, str>),
    /// Its plan may be kept, under this key.
    Query(Cow<'a, str>, Box<datafusion::sql::sqlparser::ast::Query>),
    Other(Routed),
}

impl Shared {
    pub(crate) async fn execute(
        &self,
        text: Text<'_>,
        parameters: &[Value],
        arrived: Instant,
    ) -> Result<StatementResult> {
        self.wake();
        let mut transaction = self.lock_transaction().await;
        let statement = self.statement(parameters, arrived);
        let mut result = async {
            // With parameters, most are compiled statements, and have no plan.
            let unbound = if parameters.is_empty() { plan_key(text.sql(), parameters) } else { None };
            let asked = match unbound.filter(|key| self.database.plans().contains(key)) {
                Some(key) => Asked::Known(&text, key),
                None => {
                    let parsed = text.parse()?;
                    check_parameter_count(parsed.parameters, parameters.len())?;
                    nul::check_parameters(parameters)?;
                    let compiled = self.compile_and_run(&mut transaction, &statement, text.sql(), &parsed.statement);
                    if let Some(result) = compiled.await {
                        return result;
                    }
                    match route(parsed.statement)? {
                        Routed::Query(query) if self.calls_first(&transaction, &statement, &query) => {
                            let what = RoutineStatement::Query(query);
                            return self.run_routine(&mut transaction, &statement, what).await;
                        }
                        Routed::Call(function) => {
                            let what = RoutineStatement::Call(Box::new(function), Some(text.sql().to_owned()));
                            return self.run_routine(&mut transaction, &statement, what).await;
                        }
                        Routed::Query(query) => match plan_key(text.sql(), parameters) {
                            Some(key) if self.database.plans().contains(&key) => Asked::Known(&text, key),
                            Some(key) => Asked::Query(key, query),
                            None => Asked::Other(Routed::Query(query)),
                        },
                        routed => return self.dispatch(&mut transaction, &statement, routed).await,
                    }
                }
            };
            transaction.require_not_failed()?;
            let ready = statement.deadline.limit(self.read(&mut transaction, &statement, asked)).await?;
            Ok(StatementResult::Rows(statement.start(ready)))
        }
        .await;
        match &mut result {
            Ok(result) => self.fail_with_rows(&transaction, result),
            Err(_) => transaction.fail(),
        }
        self.publish(&transaction);
        self.watch();
        result
    }

    /// Shows the outside what has become of the transaction.
    pub(super) fn publish(&self, transaction: &TransactionState) {
        if matches!(transaction, TransactionState::Idle) {
            self.deferred.lock().clear();
        }
        let mut visible = self.visible.lock();
        if matches!(transaction, TransactionState::Idle) {
            visible.end(false, &self.defaults);
        }
        visible.status = transaction.status();
        let modes = transaction.modes();
        if visible.settings.current_modes != modes {
            Arc::make_mut(&mut visible.settings).current_modes = modes;
        }
        visible.catalog = match transaction {
            TransactionState::Active(open) => open.transaction().map(|transaction| Arc::clone(transaction.catalog())),
            TransactionState::Idle | TransactionState::Failed(_) => None,
        };
    }

    pub(super) async fn dispatch(
        &self,
        transaction: &mut TransactionState,
        statement: &Statement<'_>,
        routed: Routed,
    ) -> Result<StatementResult> {
        if !routed.ends_failure() {
            transaction.require_not_failed()?;
        }
        match routed {
            Routed::Explain { options, statement: explained } => {
                let program = match options.analyze || !matches!(options.format, ExplainFormat::Indent) {
                    true => None,
                    false => self.program_to_explain(transaction, statement, &explained),
                };
                let routed = Routed::Explain { options, statement: explained };
                let ready = statement.deadline.limit(self.read(transaction, statement, Asked::Other(routed))).await?;
                let rows = statement.start(ready);
                match program {
                    None => Ok(StatementResult::Rows(rows)),
                    Some(program) => with_program(rows, &program.describe()).await,
                }
            }
            Routed::Query(_) => {
                let ready = statement.deadline.limit(self.read(transaction, statement, Asked::Other(routed))).await?;
                Ok(StatementResult::Rows(statement.start(ready)))
            }
            Routed::SelectAndLock(query) => {
                self.select_and_lock(transaction, statement, query).await.map(StatementResult::Rows)
            }
            Routed::LockTables { names, mode, nowait } => {
                self.lock_tables(transaction, statement, &names, mode, nowait).await.map(StatementResult::Done)
            }
            Routed::Describe(name) => {
                describe_table(&statement.context(self.view(transaction, statement).await?), &name).map(rows)
            }
            Routed::DescribeQuery(query) => {
                let context = statement.context(self.view(transaction, statement).await?);
                let plan = plan_query(&context, *query)?;
                describe_columns(&shown(&result_schema(&context, &plan))).map(rows)
            }
            Routed::ShowTables => {
                let query = "SELECT table_schema, table_name FROM information_schema.tables \
                             WHERE table_type = 'BASE TABLE' ORDER BY 1, 2";
                let ParsedStatement::Sql(parsed) = parse_statement(query)?.statement else {
                    return Err(Error::internal("SHOW TABLES is a query"));
                };
                let context = statement.context(self.view(transaction, statement).await?);
                let ready = plan_read(&context, route(ParsedStatement::Sql(parsed))?, &[]).await?;
                Ok(StatementResult::Rows(statement.start(ready)))
            }
            Routed::Show(name) => {
                let value = statement.settings.get(&name).ok_or_else(|| unknown(&name))?;
                text_table(&[(&name, vec![value])]).map(rows)
            }
            Routed::ShowAll => {
                let (mut names, mut values, mut descriptions) = (Vec::new(), Vec::new(), Vec::new());
                for (name, value, description) in statement.settings.all() {
                    names.push(name.to_owned());
                    values.push(value);
                    descriptions.push(description.to_owned());
                }
                text_table(&[("name", names), ("setting", values), ("description", descriptions)]).map(rows)
            }
            Routed::Named(named) => self.named(transaction, statement, named).await,
            Routed::Set { name, value, local } => {
                let value = match &value {
                    SettingValue::Default => None,
                    SettingValue::Text(text) => Some(text.as_str()),
                };
                if local {
                    transaction.open().ok_or_else(|| no_transaction("SET LOCAL"))?;
                    let before = statement.settings.value_to_restore(&name).ok_or_else(|| unknown(&name))?;
                    self.visible.lock().local.push((name.clone(), before));
                }
                self.set(&name, value)?;
                done("SET")
            }
            Routed::Reset(name) => {
                match name {
                    Some(name) => self.set(&name, None)?,
                    None => self.visible.lock().settings = Arc::clone(&self.defaults),
                }
                done("RESET")
            }
            Routed::Transaction(control) => {
                self.control(transaction, statement, control).await.map(StatementResult::Done)
            }
            Routed::Discard(what) => self.discard(transaction, statement, what).await,
            Routed::User(user) => self.change_user(transaction, statement, user).await,
            Routed::Maintenance(maintenance) => {
                if !matches!(transaction, TransactionState::Idle) {
                    let message = format!("{} cannot run inside a transaction block", maintenance.name());
                    return Err(Error::new(sqlstate::ACTIVE_TRANSACTION, message));
                }
                statement.deadline.limit(maintain(self.database.store(), maintenance)).await?;
                done(maintenance.name())
            }
            Routed::Call(function) => {
                self.run_routine(transaction, statement, RoutineStatement::Call(Box::new(function), None)).await
            }
            Routed::Do { language, body } => {
                self.run_routine(transaction, statement, RoutineStatement::Do { language, body }).await
            }
            Routed::Write(write) => self.write(transaction, statement, *write).await,
        }
    }

    /// Hashing a password takes a while, and a file is synced: not on the threads of queries.
    async fn change_user(
        &self,
        transaction: &TransactionState,
        statement: &Statement<'_>,
        user: UserStatement,
    ) -> Result<StatementResult> {
        if !matches!(user, UserStatement::Show) {
            if !matches!(transaction, TransactionState::Idle) {
                return Err(Error::new(
                    sqlstate::ACTIVE_TRANSACTION,
                    "users cannot be changed inside a transaction: they belong to no snapshot",
                )
                .with_hint("COMMIT or ROLLBACK first."));
            }
            if statement.settings.default_modes.read_only {
                return Err(Error::new(
                    sqlstate::READ_ONLY_TRANSACTION,
                    "users cannot be changed in a read-only session",
                ));
            }
        }
        let (database, identity) = (self.database.clone(), self.identity.clone());
        let work = async move { users::execute(&database, identity.as_ref(), user) };
        match self.database.runtimes().run_to_end(work).await? {
            UserOutcome::Done(tag) => done(tag),
            UserOutcome::Users(columns) => {
                let columns: Vec<_> = SHOW_USERS_COLUMNS.into_iter().zip(columns).collect();
                text_table(&columns).map(rows)
            }
        }
    }

    /// What the next statement sees. The open transaction begins with it, if it has not yet.
    pub(super) async fn view(&self, transaction: &mut TransactionState, statement: &Statement<'_>) -> Result<ReadView> {
        let (store, lock_timeout) = (self.database.store(), statement.settings.lock_timeout);
        match transaction.open() {
            Some(open) => Ok(open.begin(store, lock_timeout).await?.view()),
            None => Ok(store.snapshot()),
        }
    }

    /// Plans a query on what the transaction sees. Outside of one, at SERIALIZABLE, the query is a transaction of its
    /// own, which ends before its rows are read: all that matters are the snapshot and what is read of it.
    async fn read(
        &self,
        transaction: &mut TransactionState,
        statement: &Statement<'_>,
        asked: Asked<'_>,
    ) -> Result<ReadyPlan> {
        let modes = statement.settings.default_modes;
        if transaction.open().is_some() || modes.isolation != Isolation::Serializable {
            let context = statement.context(self.view(transaction, statement).await?);
            let ready = self.plan(context, asked, statement).await?;
            note_reads(&ready)?;
            return Ok(ready);
        }
        let options = Modes { read_only: true, ..modes }.options(statement.settings.lock_timeout);
        for attempt in 1.. {
            let own = self.database.store().begin_with(options).await;
            let ready = self.plan(statement.context(own.view()), asked.clone(), statement).await?;
            note_reads(&ready)?;
            match own.commit(statement.settings.durability()).await.map_err(Error::from) {
                Err(error) if error.is_conflict() && attempt < RERUNS_MAX => {}
                ended => return ended.map(|_timestamp| ready),
            }
        }
        Err(Error::internal("counting attempts ended"))
    }

    /// Plans a query. Planning does not pause; with a deadline it gets a task of its own, whose end nobody has to wait for.
    async fn plan(&self, context: StatementContext, asked: Asked<'_>, statement: &Statement<'_>) -> Result<ReadyPlan> {
        let (key, routed) = match asked {
            Asked::Known(text, key) => match find_ready(&context, self.database.plans(), &key)? {
                Some(ready) => return Ok(ready),
                None => (Some(key), route(text.parse()?.statement)?),
            },
            Asked::Query(key, query) => (Some(key), Routed::Query(query)),
            Asked::Other(routed) => (None, routed),
        };
        let keep = key.map(|key| (self.database.clone(), key.into_owned()));
        let parameters = statement.parameters.to_vec();
        let planning = async move {
            match (keep, routed) {
                (Some((database, key)), Routed::Query(query)) => {
                    let plan = bind(plan_query(&context, *query)?, &parameters)?;
                    make_ready_and_keep(&context, database.plans(), &key, plan).await
                }
                (_, routed) => plan_read(&context, routed, &parameters).await,
            }
        };
        if !statement.deadline.is_set() {
            return planning.await;
        }
        self.database.runtimes().spawn(planning).await?
    }

    /// What a statement that is only prepared is planned against.
    pub(super) fn planning_view(&self, transaction: &TransactionState) -> ReadView {
        let open = match transaction {
            TransactionState::Active(open) => open.transaction(),
            TransactionState::Idle | TransactionState::Failed(_) => None,
        };
        open.map_or_else(|| self.database.store().snapshot(), Transaction::view)
    }

    /// Takes the transaction a changing statement works in: the session's, or a new one that `give_back` commits.
    ///
    /// Until it is given back the session's is marked as failed, which is what it is if the statement is cancelled half
    /// way.
    pub(super) async fn take(
        &self,
        state: &mut TransactionState,
        statement: &Statement<'_>,
        what: &str,
    ) -> Result<Taken> {
        state.require_not_failed()?;
        let (store, lock_timeout) = (self.database.store(), statement.settings.lock_timeout);
        state.modes().unwrap_or(statement.settings.default_modes).require_read_write(what)?;
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

    /// Ends a changing statement that went well.
    pub(super) async fn give_back(
        &self,
        state: &mut TransactionState,
        statement: &Statement<'_>,
        taken: Taken,
    ) -> Result<()> {
        if taken.commits {
            return self.commit_now(taken.transaction.into_inner(), statement).await;
        }
        state.give_back(taken);
        Ok(())
    }

    pub(super) async fn write(
        &self,
        state: &mut TransactionState,
        statement: &Statement<'_>,
        write: Write,
    ) -> Result<StatementResult> {
        if let Write::CopyTo(copy) = write {
            // Changes no table, so a read-only transaction may do it.
            let context = statement.context(self.view(state, statement).await?);
            let rows = statement.deadline.limit(copy::to::copy_to(statement, context, *copy)).await?;
            return Ok(StatementResult::Done(Completion::of_rows("COPY", rows)));
        }
        let mut attempts = 0;
        let is_first = state.open().is_some_and(|open| !open.has_begun());
        loop {
            let mut taken = self.take(state, statement, write_name(&write)).await?;
            let work = run_write(statement, &mut taken, &write, is_first, &mut attempts);
            let completion = statement.deadline.limit(work).await?;
            let again = taken.commits && (can_rerun(&write) || matches!(write, Write::Truncate(_)));
            match self.give_back(state, statement, taken).await {
                Err(error) if again && error.is_conflict() && attempts < RERUNS_MAX => attempts += 1,
                ended => return ended.map(|()| completion),
            }
        }
    }

    /// A commit needs nobody to wait for it once it has its place in the order; before that, nothing has happened. One
    /// that takes long, or leaves work behind, is not for the threads that serve clients.
    pub(super) async fn commit_now(&self, mut transaction: Transaction, statement: &Statement<'_>) -> Result<()> {
        foreign_key::check_deferred(statement, &mut transaction).await?;
        ddl::temporary::before_commit(statement, &mut transaction)?;
        self.deferred.lock().clear();
        let durability = statement.settings.durability();
        let commits_at_once = transaction.commits_at_once();
        let commit = async move { transaction.commit(durability).await.map_err(Error::from).map(|_timestamp| ()) };
        if commits_at_once { commit.await } else { self.database.runtimes().run_to_end(commit).await }
    }

    pub(crate) fn set(&self, name: &str, value: Option<&str>) -> Result<()> {
        Arc::make_mut(&mut self.visible.lock().settings).set(name, value, &self.defaults)
    }

    /// Plans a statement. A failure fails the open transaction, as it would if the statement were executed: the client
    /// may not see it before its COMMIT.
    pub(crate) async fn prepare(&self, sql: String) -> Result<Prepared> {
        let mut transaction = self.lock_transaction().await;
        let statement = self.statement(&[], Instant::now());
        let prepared = async {
            let parsed = parse_statement(&sql)?;
            let routed = route(parsed.statement.clone())?;
            if let Routed::Named(NamedStatement::Execute { name, .. }) = &routed {
                return Ok(Prepared::of_columns(sql, parsed, self.named.lock().result_schema(name)?));
            }
            if !routed.ends_failure() {
                transaction.require_not_failed()?;
            }
            let context = statement.context(self.planning_view(&transaction));
            let prepared = Prepared::new(sql, parsed, routed, &context)?;
            // What a statement's result looks like is found out as far as possible, whatever comes between.
            interrupt::check()?;
            Ok(prepared)
        };
        let prepared = statement.deadline.limit(prepared).await;
        if prepared.is_err() {
            transaction.fail();
            self.publish(&transaction);
        }
        prepared
    }

    pub(super) async fn result_schema_for(&self, prepared: &Prepared, types: &[DataType]) -> Result<Option<SchemaRef>> {
        let transaction = self.lock_transaction().await;
        transaction.require_not_failed()?;
        if let Routed::Named(NamedStatement::Execute { name, .. }) = route(prepared.parsed().statement)? {
            return self.named.lock().result_schema(&name);
        }
        let statement = self.statement(&[], Instant::now());
        prepared.result_schema_for(&statement.context(self.planning_view(&transaction)), types)
    }

    /// Waits for no statement that is running: meanwhile what is committed has to do.
    pub(super) async fn describe(&self, sql: String) -> Result<Option<SchemaRef>> {
        let statement = self.statement(&[], Instant::now());
        let described = async {
            let parsed = parse_statement(&sql)?;
            let routed = route(parsed.statement.clone())?;
            let view = match self.transaction.try_lock() {
                Ok(transaction) => self.planning_view(&transaction),
                Err(_) => self.database.store().snapshot(),
            };
            Ok(Prepared::new(sql, parsed, routed, &statement.context(view))?.result_schema())
        };
        statement.deadline.limit(described).await
    }
}

impl Shared {
    pub(super) async fn compile_expression(&self, text: &str, types: &[DataType]) -> Result<Option<Expression>> {
        let transaction = self.lock_transaction().await;
        let statement = self.statement(&[], Instant::now());
        let context = statement.context(self.planning_view(&transaction));
        Expression::compile(&context, parse_expression(text)?, types)
    }
}

async fn maintain(store: &Store, maintenance: MaintenanceStatement) -> Result<()> {
    match maintenance {
        MaintenanceStatement::Checkpoint => store.flush().await?,
        MaintenanceStatement::Vacuum => {
            store.flush().await?;
            store.compact().await?;
        }
        MaintenanceStatement::Analyze => {}
    }
    Ok(())
}

/// Tells the transaction what a plan is going to read, if it has to remember that: the rows may be read when it has ended.
pub(crate) fn note_reads(ready: &ReadyPlan) -> Result<()> {
    let Ok(execution) = ExecutionView::of(&ready.context) else { return Ok(()) };
    if execution.view().remembers_reads() {
        ready.plan.apply(|operator| {
            if let Some(scan) = operator.downcast_ref::<ColumnScanExec>() {
                scan.note_reads(execution.view())?;
            }
            if let Some(apply) = operator.downcast_ref::<ApplyExec>() {
                apply.note_reads(execution.view())?;
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
    }
    Ok(())
}

/// Plans a query, or the description of a statement's plan.
pub(crate) async fn plan_read(context: &StatementContext, routed: Routed, parameters: &[Value]) -> Result<ReadyPlan> {
    let plan = match routed {
        Routed::Query(query) => bind(plan_query(context, *query)?, parameters)?,
        Routed::Explain { options, statement } => {
            let described;
            let context = match options.analyze {
                true => context,
                false => {
                    described = context.clone().only_planned();
                    &described
                }
            };
            // The plan of a statement that changes rows is the plan of the query that finds them.
            let (context, plan) = match *statement {
                Routed::Query(query) => (context.clone(), plan_query(context, *query)?),
                Routed::Write(write) => match dml::plan_of(context, *write)? {
                    Some(query) => query,
                    None => return Err(Error::unsupported("EXPLAIN of this statement")),
                },
                _ => return Err(Error::unsupported("EXPLAIN of this statement")),
            };
            return make_ready(&context, explain(bind(plan, parameters)?, options)?).await;
        }
        _ => return Err(Error::internal("only queries are planned as such")),
    };
    make_ready(context, plan).await
}

/// EXPLAIN's rows, and what the row path does.
async fn with_program(rows: RecordStream, description: &str) -> Result<StatementResult> {
    let schema = rows.schema();
    let mut batches = rows.collect().await?;
    let texts = ["row_path", description].map(|text| Arc::new(StringArray::from(vec![text])) as ArrayRef);
    batches.push(RecordBatch::try_new(Arc::clone(&schema), texts.to_vec())?);
    Ok(StatementResult::Rows(RecordStream::made(&schema, batches)?))
}

fn done(tag: &str) -> Result<StatementResult> {
    Ok(StatementResult::Done(Completion::new(tag)))
}

fn rows(batch: RecordBatch) -> StatementResult {
    StatementResult::Rows(RecordStream::ready(batch))
}
