//! SELECT … FOR UPDATE and its like, and LOCK TABLE.
//!
//! ```text
//!   SELECT a, b FROM t AS x WHERE … FOR UPDATE OF x
//!      ⇒  SELECT a, b, x.key AS "lock 0 0" FROM "rustydb.rows"."<id of t>" AS x WHERE …
//!      ⇒  run it to its end ─▶ lock the keys ─▶ changed since the snapshot?  40001, or run it again
//!      ⇒  the rows, without the keys
//! ```
//! A query is run again where its snapshot may move (READ COMMITTED, or a transaction of its own), so what it returns are
//! the rows as they are now and stay until the end of the transaction. With SKIP LOCKED rows are locked one by one as
//! they come, and LIMIT and OFFSET count only those that were got.

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use datafusion::common::ScalarValue;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::sqlparser::ast::{Expr, LimitClause, ObjectName, Query, Value as SqlValue, ValueWithSpan};
use futures::StreamExt;
use rustydb_storage::{LockMode, LockWait, ROW_ID_COLUMN, Transaction};

use super::lock_targets::{Target, find_targets, is_key, not_with};
use super::statement::Statement;
use super::transaction::{TransactionState, no_transaction};
use super::write::RERUNS_MAX;
use super::{Completion, Shared};
use crate::dml::locked::read_first_of_query;
use crate::error::sqlstate;
use crate::sql::check::check_queries;
use crate::sql::context::StatementContext;
use crate::sql::grammar::lock::{Busy, LockingQuery};
use crate::sql::plan::{bind, make_ready, plan_query};
use crate::sql::text::parse::table_name;
use crate::sql::tree::natural_joins::resolve_columns;
use crate::stream::RecordStream;
use crate::{Error, Result, Value};

impl Shared {
    pub(super) async fn select_and_lock(
        &self,
        state: &mut TransactionState,
        statement: &Statement<'_>,
        query: LockingQuery,
    ) -> Result<RecordStream> {
        let mut attempts = 0;
        loop {
            let mut taken = self.take(state, statement, "SELECT … FOR UPDATE or SHARE").await?;
            let commits = taken.commits;
            let transaction: &mut Transaction = &mut taken.transaction;
            let reruns = commits || transaction.isolation().moves_with_statements();
            transaction.expect_reruns(reruns);
            let rows = statement.deadline.limit(async {
                loop {
                    match lock_and_read(statement, transaction, &query).await {
                        Err(error)
                            if reruns && error.is_conflict() && attempts < RERUNS_MAX && transaction.may_refresh() =>
                        {
                            attempts += 1;
                            transaction.refresh().await?;
                        }
                        result => return result,
                    }
                }
            });
            let rows = rows.await?;
            match self.give_back(state, statement, taken).await {
                Err(error) if commits && error.is_conflict() && attempts < RERUNS_MAX => attempts += 1,
                ended => return ended.map(|()| RecordStream::ready(rows)),
            }
        }
    }

    /// LOCK TABLE. As a transaction's first statement it comes before the snapshot.
    pub(super) async fn lock_tables(
        &self,
        state: &mut TransactionState,
        statement: &Statement<'_>,
        names: &[ObjectName],
        mode: LockMode,
        nowait: bool,
    ) -> Result<Completion> {
        let Some(open) = state.open() else {
            return Err(no_transaction("LOCK TABLE"));
        };
        let is_first = !open.has_begun();
        let transaction = open.begin(self.database.store(), statement.settings.lock_timeout).await?;
        let context = statement.context(transaction.view());
        let mut tables = Vec::with_capacity(names.len());
        for name in names {
            let (schema, name) = table_name(name)?;
            tables.push(context.table(schema.as_deref(), &name)?.id);
        }
        drop(context);
        let lock = async {
            for table in tables {
                transaction.lock_table(table, mode, nowait.then_some(LockWait::NoWait)).await?;
            }
            if is_first {
                transaction.refresh().await?;
            }
            Ok(())
        };
        statement.deadline.limit(lock).await?;
        Ok(Completion::new("LOCK TABLE"))
    }
}

/// Runs a query and locks its rows; first those of its subqueries that want it.
pub(crate) async fn lock_and_read(
    statement: &Statement<'_>,
    transaction: &mut Transaction,
    query: &LockingQuery,
) -> Result<RecordBatch> {
    let mut query = query.clone();
    let locked = read_first_of_query(statement, transaction, &mut query.query).await?;
    let context = statement.context(transaction.view()).with_rows().with_named(locked);
    // NATURAL joins are about the columns that are shown, not about keys that will be.
    resolve_columns(&context, &mut query.query);
    check_queries(&mut query.query)?;
    let skips = query.clauses.iter().any(|clause| clause.busy == Busy::Skip);
    let window = match skips {
        true => take_window(&mut query.query, statement.parameters)?,
        false => Window::default(),
    };
    let (plan, targets) = plan(&context, query)?;
    let ready = make_ready(&context, bind(plan, statement.parameters)?).await?;
    let reservation = MemoryConsumer::new("rows to be locked").register(context.memory_pool());
    drop(context);
    let schema = ready.schema();
    let mut stream = statement.start(ready);
    let mut batches = Vec::new();
    if skips {
        let before = transaction.lock_count();
        let rows = lock_free_rows(transaction, &targets, &window, &mut stream, &reservation).await;
        if rows.is_err() {
            // On another snapshot it may be others that are returned.
            transaction.release_locks_to(before);
        }
        return without_keys(&concat_batches(&schema, &rows?)?);
    }
    while let Some(batch) = stream.next().await {
        let batch = batch?;
        reservation.try_grow(batch.get_array_memory_size())?;
        batches.push(batch);
    }
    let rows = concat_batches(&schema, &batches)?;
    for (place, target) in targets.iter().enumerate() {
        let wait = (target.busy == Busy::NoWait).then_some(LockWait::NoWait);
        transaction.lock_rows(target.table.id, &target.keys(place, &rows)?, target.lock, wait).await?;
    }
    without_keys(&rows)
}

/// The rows of a window that only counts those that could be locked.
async fn lock_free_rows(
    transaction: &mut Transaction,
    targets: &[Target],
    window: &Window,
    stream: &mut RecordStream,
    reservation: &MemoryReservation,
) -> Result<Vec<RecordBatch>> {
    let (mut skipped, mut rows) = (0, Vec::new());
    while !window.is_full(rows.len())
        && let Some(batch) = stream.next().await
    {
        let batch = batch?;
        reservation.try_grow(batch.get_array_memory_size())?;
        for row in 0..batch.num_rows() {
            let row = batch.slice(row, 1);
            if !lock_row(transaction, targets, &row).await? {
                continue;
            }
            if skipped < window.offset {
                skipped += 1;
                continue;
            }
            rows.push(row);
            if window.is_full(rows.len()) {
                break;
            }
        }
    }
    Ok(rows)
}

/// Locks the parts of one row; tells whether it got all of them that may not be waited for.
async fn lock_row(transaction: &mut Transaction, targets: &[Target], row: &RecordBatch) -> Result<bool> {
    for (place, target) in targets.iter().enumerate() {
        let keys = target.keys(place, row)?;
        let got = match target.busy {
            Busy::Skip => transaction.try_lock_row(target.table.id, &keys, target.lock).await?,
            busy => {
                let wait = (busy == Busy::NoWait).then_some(LockWait::NoWait);
                transaction.lock_rows(target.table.id, &keys, target.lock, wait).await?;
                true
            }
        };
        if !got {
            return Ok(false);
        }
    }
    Ok(true)
}

fn without_keys(rows: &RecordBatch) -> Result<RecordBatch> {
    let schema: SchemaRef = rows.schema();
    let is_shown = |name: &str| name != ROW_ID_COLUMN && !is_key(name);
    let shown: Vec<usize> = (0..schema.fields().len()).filter(|at| is_shown(schema.field(*at).name())).collect();
    Ok(rows.project(&shown)?)
}

/// LIMIT and OFFSET.
#[derive(Default)]
struct Window {
    offset: usize,
    limit: Option<usize>,
}

impl Window {
    fn is_full(&self, taken: usize) -> bool {
        self.limit.is_some_and(|limit| taken >= limit)
    }
}

/// Takes LIMIT and OFFSET out of a query, because they count after the locks.
fn take_window(query: &mut Query, parameters: &[Value]) -> Result<Window> {
    let count = |expr: &Expr| -> Result<Option<usize>> {
        let refused =
            || Error::unsupported("SKIP LOCKED with a LIMIT or OFFSET that is neither a number nor a parameter");
        let Expr::Value(ValueWithSpan { value, span: _ }) = expr else { return Err(refused()) };
        let value = match value {
            SqlValue::Number(number, _) => ScalarValue::from(number.as_str()),
            SqlValue::Placeholder(name) => {
                let number = name.strip_prefix('$').and_then(|digits| digits.parse::<usize>().ok());
                let value = number.and_then(|number| parameters.get(number.checked_sub(1)?));
                value.cloned().ok_or_else(refused)?
            }
            _ => return Err(refused()),
        };
        match value.cast_to(&arrow::datatypes::DataType::UInt64)? {
            ScalarValue::UInt64(count) => Ok(count.map(|count| usize::try_from(count).unwrap_or(usize::MAX))),
            _ => Err(refused()),
        }
    };
    let (limit, offset) = match query.limit_clause.take() {
        None => (None, None),
        Some(LimitClause::LimitOffset { limit, offset, limit_by: _ }) => (limit, offset.map(|offset| offset.value)),
        Some(LimitClause::OffsetCommaLimit { offset, limit }) => (Some(limit), Some(offset)),
    };
    let limit = limit.as_ref().map(count).transpose()?.flatten();
    let offset = offset.as_ref().map(count).transpose()?.flatten().unwrap_or(0);
    Ok(Window { offset, limit })
}

/// Plans the query with the keys of the rows to be locked as further columns.
fn plan(context: &StatementContext, query: LockingQuery) -> Result<(LogicalPlan, Vec<Target>)> {
    let LockingQuery { mut query, clauses } = query;
    if clauses.is_empty() {
        return Ok((plan_query(context, *query)?, Vec::new()));
    }
    let targets = find_targets(context, &mut query, &clauses)?;
    let plan = plan_query(context, *query).map_err(|error| match error.sqlstate() {
        // The planner complains about the keys we have added.
        sqlstate::GROUPING => not_with("aggregate functions"),
        _ => error,
    })?;
    Ok((plan, targets))
}
