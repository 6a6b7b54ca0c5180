//! MERGE: one join of target and source, and for each of its rows the first clause that applies.
//!
//! ```text
//! MERGE INTO t USING s ON t.id = s.id
//!   WHEN MATCHED AND p THEN UPDATE SET a = s.a      clause 0
//!   WHEN NOT MATCHED THEN INSERT VALUES (…)         clause 1
//!    ⇒  SELECT CASE WHEN matched AND p THEN 0 WHEN not matched THEN 1 END,      the clause, or NULL for none
//!              t.key, CASE WHEN matched AND p THEN s.a WHEN … END, …, *
//!       FROM "rustydb.target".t AS t FULL JOIN (SELECT *, TRUE AS "in source" FROM s) AS s ON t.id = s.id
//! ```
//!
//! A side of the join that no clause asks for is left out. The rows to update and delete must be different ones (21000).
//! Rows go, change and come first, and foreign keys are looked at when all of them have.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Int64Type};
use datafusion::common::Column;
use datafusion::logical_expr::{Expr as Planned, LogicalPlan, LogicalPlanBuilder, Projection, lit};
use datafusion::sql::sqlparser::ast::{
    Expr, Ident, Join, JoinConstraint, JoinOperator, MergeAction, MergeClause, MergeClauseKind, MergeInsertExpr,
    MergeInsertKind, MergeUpdateExpr, SelectItem, Spanned, TableAlias, TableFactor, TableWithJoins, UnaryOperator,
    VisitMut, VisitorMut,
};
use rustydb_storage::{TableDef, Transaction};

use super::Reading;
use super::apply::{Effects, first_of_each, key_batch, put_changed, put_new, take_away};
use super::defaults::{not_default, syntax_of};
use super::insert::{is_default, takes_no_value, target_columns};
use super::many_rows::require_of_one_row;
use super::modify::{add_others, assigned_values, find_target, kept_for, key_items, own_terms, run, target_factor};
use super::returning::{self, Changed};
use super::rows::RowCheck;
use super::scope::RowScope;
use super::syntax::{
    alone, boolean, both, cases, cast, column, derived, everything, named, null, number, quoted, select,
};
use crate::constraints::is_identity;
use crate::error::sqlstate;
use crate::session::Statement;
use crate::sql::check::refuse;
use crate::sql::context::StatementContext;
use crate::sql::grammar::insert::{Overriding, overriding_in};
use crate::sql::plan::plan_any_width;
use crate::sql::route::MergeStatement;
use crate::sql::text::parse::{MERGE_DEFAULTS, MERGE_NOTHING, fold, place};
use crate::sql::tree::own_expressions::for_each_own;
use crate::sql::tree::time_digits::read_nanoseconds;
use crate::sql::types::{arriving_type, name_of};
use crate::{Error, Result};

/// True in the rows of the join that have a source row.
const IN_SOURCE: &str = "in source";

/// The clause that a row has come to, where it is computed before everything that asks for it.
const DECIDED: &str = "rustydb.clause";

/// What `merge_action()` reads: the name of what was done to the row.
const MERGE_ACTION: &str = "merge_action";

/// What a clause does.
enum Action {
    /// The value of each column; `None` leaves it as it is.
    Update(Vec<Option<Expr>>),
    /// The value of each column.
    Insert(Vec<Expr>),
    Delete,
    Nothing,
}

/// What became of a row of the join.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Update,
    Insert,
    Delete,
    Nothing,
}

/// The query of a MERGE: the clause's number, the target's key, its new columns, and the whole join for RETURNING.
pub(crate) struct MergePlan {
    table: Arc<TableDef>,
    pub(crate) plan: LogicalPlan,
    pub(crate) context: StatementContext,
    pub(crate) scope: RowScope,
    kinds: Vec<Kind>,
    assigned: Vec<usize>,
    /// Which columns of the plan behind the target's belong to `scope`.
    others: Range<usize>,
}

pub(crate) async fn merge(
    statement: &Statement<'_>,
    transaction: &mut Transaction,
    reading: &Reading,
    merge: MergeStatement,
) -> Result<Changed> {
    let returning = merge.returning.clone().map(with_actions);
    let context = reading.context(statement, transaction);
    let before = kept_for(&returning, &context);
    let MergePlan { table, plan, context, scope, kinds, assigned, others } = plan(&context, merge)?;
    let check = RowCheck::new(&context, &table)?;
    let found = run(statement, context, plan).await?;
    let clause = found.column(0).as_primitive::<Int64Type>();
    let kind_of = |row: usize| match clause.is_valid(row) {
        true => usize::try_from(clause.value(row)).ok().and_then(|clause| kinds.get(clause)).copied(),
        false => None,
    };
    let rows_of = |kind: Kind| -> Result<RecordBatch> {
        let rows = (0..found.num_rows()).filter(|row| kind_of(*row) == Some(kind)).map(|row| row as u32);
        Ok(take_record_batch(&found, &UInt32Array::from_iter_values(rows))?)
    };
    let (updated, inserted, deleted) = (rows_of(Kind::Update)?, rows_of(Kind::Insert)?, rows_of(Kind::Delete)?);
    drop(found);
    let key_width = table.key_columns().len();
    let key_columns = |batch: &RecordBatch| batch.columns()[1..=key_width].to_vec();
    check_once(&table, &key_columns(&updated), &key_columns(&deleted))?;

    let first_new = 1 + key_width;
    let first_old = first_new + table.schema.fields().len();
    let new_rows = |batch: &RecordBatch| check.conform(&batch.columns()[first_new..first_old], batch.num_rows());
    let (new_updated, new_inserted) = (new_rows(&updated)?, new_rows(&inserted)?);
    let mut effects = Effects::default();
    let keys = key_batch(&table, &key_columns(&deleted))?;
    let mut changed = take_away(transaction, &table, &keys, &mut effects).await?;
    let keys = key_batch(&table, &key_columns(&updated))?;
    changed += put_changed(transaction, &table, &keys, &new_updated, &assigned, &mut effects).await?;
    changed += put_new(transaction, &table, &new_inserted, &[], &mut effects).await?;
    effects.settle(statement, transaction, &table).await?;

    let Some(items) = returning else { return Ok(Changed::rows(changed)) };
    let mut batches = Vec::new();
    let old_rows = deleted.columns()[first_old..first_old + table.schema.fields().len()].to_vec();
    let parts = [
        ("DELETE", &deleted, old_rows),
        ("UPDATE", &updated, new_updated.columns().to_vec()),
        ("INSERT", &inserted, new_inserted.columns().to_vec()),
    ];
    for (action, batch, mut columns) in parts {
        columns.extend(others.clone().map(|other| Arc::clone(batch.column(other))));
        let action: ArrayRef = Arc::new(StringArray::from(vec![action; batch.num_rows()]));
        columns.push(action);
        batches.push(columns);
    }
    let context = before.unwrap_or_else(|| reading.context(statement, transaction));
    let returned = returning::run(statement, &context, &scope, &items, batches).await?;
    Ok(Changed { rows: changed, returned: Some(returned) })
}

fn check_once(table: &TableDef, updated: &[ArrayRef], deleted: &[ArrayRef]) -> Result<()> {
    let both = |(left, right): (&ArrayRef, &ArrayRef)| arrow::compute::concat(&[left.as_ref(), right.as_ref()]);
    let keys = updated.iter().zip(deleted).map(both).collect::<Result<Vec<_>, _>>()?;
    let rows = keys.first().map_or(0, |column| column.len());
    if first_of_each(&keys)?.len() == rows {
        return Ok(());
    }
    let message = format!("MERGE command cannot affect row a second time (table \"{}\")", table.name);
    Err(Error::new(sqlstate::CARDINALITY_VIOLATION, message)
        .with_hint("Ensure that not more than one source row matches any one target row."))
}

pub(crate) fn plan(context: &StatementContext, merge: MergeStatement) -> Result<MergePlan> {
    let MergeStatement { with, table: name, alias, source, on, clauses, returning } = merge;
    let table = find_target(context, &name)?;
    let alias = alias.unwrap_or_else(|| quoted(&table.name));
    let source_alias = alias_of(&source)?;
    if fold(&source_alias) == fold(&alias) {
        let message = format!("name \"{}\" specified more than once", fold(&alias));
        return Err(Error::new(sqlstate::DUPLICATE_ALIAS, message)
            .with_detail("The name is used both as MERGE target table and data source."));
    }
    // A key column is never NULL in a row that is there.
    let key_name = table.storage_schema().field(table.key_columns()[0]).name();
    let in_target = Expr::IsNotNull(Box::new(column(&alias, key_name)));
    let in_source = Expr::IsNotNull(Box::new(column(&source_alias, IN_SOURCE)));
    let not = |expr| Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(Expr::Nested(Box::new(expr))) };

    let (mut conditions, mut actions) = (Vec::new(), Vec::new());
    let (mut keeps_target, mut keeps_source) = (false, false);
    // Whether there was a clause without a condition for matched rows, those of the source alone, and of the target alone.
    let mut ended = [false; 3];
    for MergeClause { when_token: _, clause_kind, mut predicate, mut action } in clauses {
        let seen = match clause_kind {
            MergeClauseKind::Matched => None,
            MergeClauseKind::NotMatched | MergeClauseKind::NotMatchedByTarget => Some((&source_alias, &alias)),
            MergeClauseKind::NotMatchedBySource => Some((&alias, &source_alias)),
        };
        if let Some((seen, hidden)) = seen {
            let resolve = |part: &mut Expr| on_one_side(part, &table, seen, hidden);
            for part in [for_each_own(&mut predicate, resolve), for_each_own(&mut action, resolve)] {
                if let ControlFlow::Break(error) = part {
                    return Err(error);
                }
            }
        }
        let kind = usize::from(clause_kind != MergeClauseKind::Matched)
            + usize::from(clause_kind == MergeClauseKind::NotMatchedBySource);
        if ended[kind] {
            return Err(Error::syntax("unreachable WHEN clause specified after unconditional WHEN clause"));
        }
        ended[kind] = predicate.is_none();
        let side = match clause_kind {
            MergeClauseKind::Matched => both(in_target.clone(), in_source.clone()),
            MergeClauseKind::NotMatched | MergeClauseKind::NotMatchedByTarget => {
                keeps_source = true;
                not(in_target.clone())
            }
            MergeClauseKind::NotMatchedBySource => {
                keeps_target = true;
                not(in_source.clone())
            }
        };
        conditions.push(match predicate {
            Some(predicate) => both(side, predicate),
            None => side,
        });
        actions.push(read_action(&table, action)?);
    }
    let mut projection = vec![named(
        cast(cases((0..).map(number).zip(&conditions).map(|(n, when)| (when.clone(), n)).collect(), null()), "bigint")?,
        "clause",
    )];
    projection.extend(key_items(&table, &alias));
    let mut assigned = Vec::new();
    for (index, field) in table.schema.fields().iter().enumerate() {
        let type_name = name_of(&arriving_type(field));
        let assigned_value = |value: &Expr| match field.data_type() {
            // What it is converted to when it has come: no name of a type says how many bytes.
            DataType::FixedSizeBinary(_) => Ok(value.clone()),
            _ => cast(value.clone(), &type_name),
        };
        let old = column(&alias, field.name());
        let mut values = Vec::new();
        for (condition, action) in conditions.iter().zip(&actions) {
            let value = match action {
                Action::Insert(values) => assigned_value(&values[index])?,
                Action::Update(values) => match &values[index] {
                    Some(value) => {
                        assigned.push(index);
                        assigned_value(value)?
                    }
                    None => old.clone(),
                },
                Action::Delete | Action::Nothing => old.clone(),
            };
            values.push((condition.clone(), value));
        }
        projection.push(named(cases(values, old), &format!("new {index}")));
    }
    assigned.dedup();
    let explicit = projection.len();
    if returning.is_some() {
        projection.push(everything());
    }
    let marked = select(None, vec![everything(), named(boolean(true), IN_SOURCE)], vec![alone(source)], None);
    let on = JoinConstraint::On(on);
    let join_operator = match (keeps_target, keeps_source) {
        (true, true) => JoinOperator::FullOuter(on),
        (true, false) => JoinOperator::LeftOuter(on),
        (false, true) => JoinOperator::RightOuter(on),
        (false, false) => JoinOperator::Inner(on),
    };
    let join = Join { relation: derived(marked, source_alias), global: false, join_operator };
    let from = vec![TableWithJoins { relation: target_factor(&table, &alias), joins: vec![join] }];
    let context = context.clone().with_target(&table);
    let plan = plan_any_width(&context, select(with, projection, from, None)).map_err(own_terms)?;
    let plan = decided_once(plan, 1 + table.key_columns().len()..explicit)?;

    let mut scope = RowScope::default().with(&fold(&alias), table.schema.fields());
    let first_other = explicit + table.storage_schema().fields().len();
    // The marker comes last and is nobody's column.
    let others = first_other..plan.schema().fields().len().saturating_sub(1).max(first_other);
    add_others(&mut scope, &plan, others.clone());
    scope.push_hidden(MERGE_ACTION, &DataType::Utf8);
    let kinds = actions.iter().map(Action::kind).collect();
    Ok(MergePlan { table, plan, context, scope, kinds, assigned, others })
}

/// The plan in which the clause of a row is computed once, if that is not the same each time: `WHEN MATCHED AND random() < 0.5`
/// would be true for one column and false for the next. `values` are the columns that ask for it.
fn decided_once(plan: LogicalPlan, values: Range<usize>) -> Result<LogicalPlan> {
    let LogicalPlan::Projection(Projection { expr, input, .. }) = &plan else { return Ok(plan) };
    let Some(clause) = expr.first().filter(|clause| clause.is_volatile()) else { return Ok(plan) };
    let decided = || Planned::Column(Column::new_unqualified(DECIDED));
    let mut below: Vec<Planned> = input.schema().columns().into_iter().map(Planned::Column).collect();
    below.push(clause.clone().unalias().alias(DECIDED));
    let mut list = Vec::with_capacity(expr.len());
    for (place, value) in expr.iter().enumerate() {
        list.push(match value {
            clause if place == 0 => decided().alias(clause.schema_name().to_string()),
            Planned::Alias(value) if values.contains(&place) => {
                let Planned::Case(mut cases) = value.expr.as_ref().clone() else {
                    return Err(Error::unsupported("a condition of MERGE that gives another value each time"));
                };
                for ((when, _), clause) in cases.when_then_expr.iter_mut().zip(0i64..) {
                    **when = decided().eq(lit(clause));
                }
                Planned::Case(cases).alias(value.name.clone())
            }
            other => other.clone(),
        });
    }
    Ok(LogicalPlanBuilder::from(input.as_ref().clone()).project(below)?.project(list)?.build()?)
}

/// A name in a clause for rows that only one side of the join has.
fn on_one_side(part: &mut Expr, table: &TableDef, seen: &Ident, hidden: &Ident) -> ControlFlow<Error> {
    match part {
        Expr::CompoundIdentifier(parts) if fold(&parts[0]) == fold(hidden) => {
            let name = fold(hidden);
            let message = format!("invalid reference to FROM-clause entry for table \"{name}\"");
            let hint = format!(
                "There is an entry for table \"{name}\", but it cannot be referenced from this part of the query."
            );
            let at = place(parts[0].span);
            ControlFlow::Break(Error::new(sqlstate::UNDEFINED_TABLE, message).with_hint(hint).at(at))
        }
        // Both sides may have a column of that name, and only one of them is meant.
        Expr::Identifier(name)
            if !is_default(&Expr::Identifier(name.clone())) && table.schema.field_with_name(&fold(name)).is_ok() =>
        {
            *part = Expr::CompoundIdentifier(vec![seen.clone(), name.clone()]);
            ControlFlow::Continue(())
        }
        _ => ControlFlow::Continue(()),
    }
}

impl Action {
    fn kind(&self) -> Kind {
        match self {
            Action::Update(_) => Kind::Update,
            Action::Insert(_) => Kind::Insert,
            Action::Delete => Kind::Delete,
            Action::Nothing => Kind::Nothing,
        }
    }
}

fn read_action(table: &TableDef, action: MergeAction) -> Result<Action> {
    match action {
        MergeAction::Delete { delete_token: _ } => Ok(Action::Delete),
        MergeAction::Update(MergeUpdateExpr { update_token: _, assignments, update_predicate, delete_predicate }) => {
            refuse(update_predicate.is_some() || delete_predicate.is_some(), "WHERE in an action of MERGE")
                .map_err(|error| error.with_hint("Write WHEN MATCHED AND … THEN."))?;
            if assignments.iter().any(|assignment| assignment.target.to_string().contains(MERGE_NOTHING)) {
                return Ok(Action::Nothing);
            }
            Ok(Action::Update(assigned_values(table, assignments)?))
        }
        MergeAction::Insert(MergeInsertExpr { insert_token: _, columns, kind_token: _, kind, insert_predicate }) => {
            refuse(insert_predicate.is_some(), "WHERE in an action of MERGE")
                .map_err(|error| error.with_hint("Write WHEN NOT MATCHED AND … THEN."))?;
            if columns.iter().any(|column| column.to_string().contains(MERGE_NOTHING)) {
                return Ok(Action::Nothing);
            }
            if columns.iter().any(|column| column.to_string().contains(MERGE_DEFAULTS)) {
                let defaults = (0..table.schema.fields().len())
                    .map(|column| Ok(syntax_of(table, column)?.unwrap_or_else(null)))
                    .collect::<Result<_>>()?;
                return Ok(Action::Insert(defaults));
            }
            let MergeInsertKind::Values(values) = kind else {
                return Err(Error::unsupported("INSERT ROW in MERGE"));
            };
            let mut rows = values.rows.into_iter();
            let (Some(row), None) = (rows.next(), rows.next()) else {
                return Err(Error::syntax("an INSERT of MERGE takes one row of values"));
            };
            let (overriding, columns) = overriding_in(columns);
            let targets = target_columns(table, &columns)?;
            let counts_differ = match columns.is_empty() {
                true => row.content.len() > targets.len(),
                false => row.content.len() != targets.len(),
            };
            if counts_differ {
                let at = row.content.first().and_then(|value| place(value.span()));
                return Err(Error::syntax("INSERT of MERGE has a different number of columns and values").at(at));
            }
            let mut given: Vec<Option<Expr>> = vec![None; table.schema.fields().len()];
            for (column, mut value) in targets.into_iter().zip(row.content) {
                require_of_one_row(&value, "MERGE")?;
                read_nanoseconds(&mut value, table.schema.field(column).data_type());
                let replaced = overriding == Some(Overriding::User) && is_identity(table.schema.field(column));
                if !is_default(&value) && !replaced {
                    if takes_no_value(table, column, overriding) {
                        return Err(not_default(table, column));
                    }
                    given[column] = Some(value);
                }
            }
            let value = |(column, value): (usize, Option<Expr>)| match value {
                Some(value) => Ok(value),
                None => Ok(syntax_of(table, column)?.unwrap_or_else(null)),
            };
            Ok(Action::Insert(given.into_iter().enumerate().map(value).collect::<Result<_>>()?))
        }
    }
}

/// The name by which the source's columns are referred to.
fn alias_of(source: &TableFactor) -> Result<Ident> {
    match source {
        TableFactor::Table { alias: Some(TableAlias { name, .. }), .. }
        | TableFactor::Derived { alias: Some(TableAlias { name, .. }), .. }
        | TableFactor::Function { alias: Some(TableAlias { name, .. }), .. }
        | TableFactor::UNNEST { alias: Some(TableAlias { name, .. }), .. }
        | TableFactor::NestedJoin { alias: Some(TableAlias { name, .. }), .. } => Ok(name.clone()),
        TableFactor::Table { name, alias: None, .. } => match name.0.last().and_then(|part| part.as_ident()) {
            Some(ident) => Ok(ident.clone()),
            None => Err(Error::unsupported("this source of MERGE")),
        },
        other => Err(Error::syntax("the source of MERGE needs an alias").at(place(other.span()))),
    }
}

/// A RETURNING list in which `merge_action()` is a column.
pub(crate) fn with_actions(mut items: Vec<SelectItem>) -> Vec<SelectItem> {
    struct Replace;
    impl VisitorMut for Replace {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
            if let Expr::Function(function) = expr
                && function.name.to_string().eq_ignore_ascii_case(MERGE_ACTION)
            {
                *expr = Expr::Identifier(quoted(MERGE_ACTION));
            }
            ControlFlow::Continue(())
        }
    }
    for item in &mut items {
        let _ = item.visit(&mut Replace);
    }
    items
}
