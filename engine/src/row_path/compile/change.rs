//! INSERT, UPDATE and DELETE, from the plans that the ordinary path makes of them.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::{DFSchema, TableReference};
use datafusion::logical_expr::{
    EmptyRelation, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Projection, Values,
};
use datafusion::optimizer::OptimizerConfig;
use datafusion::sql::planner::PlannerContext;
use datafusion::sql::sqlparser::ast::{Ident, SelectItem, SetExpr};
use rustydb_storage::{ForeignKey, TableDef};

use super::Compiler;
use super::query::{shown_schema, tables};
use crate::constraints::{checks_of, is_generated};
use crate::dml::conflict::OnConflict;
use crate::dml::insert::{self, InsertPlan};
use crate::dml::modify::{self, ModifyPlan};
use crate::dml::returning;
use crate::dml::scope::RowScope;
use crate::row_path::access::TableAccess;
use crate::row_path::datum::{Datum, Stored, Type};
use crate::row_path::expression::{Conversion, Node, Scope, compile};
use crate::row_path::pipeline::{Pipeline, Reader};
use crate::row_path::program::{
    ColumnRule, Conflict, ConflictUpdate, Delete, Insert, NewValue, Parent, Returning, Rules, Update,
};
use crate::sql::check::check_queries;
use crate::sql::plan::planner;
use crate::sql::route::{ConflictClause, DeleteStatement, InsertStatement, UpdateStatement};
use crate::sql::text::parse::fold;
use crate::sql::types::{LENGTH_KEY, digits_of};

/// Rows of an INSERT that are worth compiling; longer lists come once.
const ROWS_MAX: usize = 128;

impl Compiler<'_> {
    pub(super) fn insert(&mut self, mut statement: InsertStatement) -> Option<Insert> {
        let values = |query: &datafusion::sql::sqlparser::ast::Query| match query.body.as_ref() {
            SetExpr::Values(values) => values.rows.len() <= ROWS_MAX,
            _ => false,
        };
        if statement.with.is_some() || !statement.source.as_deref().is_none_or(values) {
            return None;
        }
        let (alias, items) = (statement.alias.take(), statement.returning.take());
        let clause = statement.on_conflict.take();
        let InsertPlan { table, plan, context: _ } = insert::plan(self.context, statement).ok()?;
        let stored = stored_types(&table)?;
        if table.schema.fields().iter().any(|field| is_generated(field) || digits_of(field).is_some()) {
            return None;
        }
        let plan = self.analyzed(plan)?;
        let types: Vec<&Type> = plan.schema().fields().iter().map(|field| field.data_type()).collect();
        let mut rows = self.value_rows(&plan)?;
        for row in &mut rows {
            for ((value, from), field) in row.iter_mut().zip(&types).zip(table.schema.fields()) {
                *value = converted(std::mem::replace(value, Node::Now), from, field.data_type())?;
            }
        }
        let rules = self.rules(&table)?;
        let parents = self.parents(&table, |_| true)?;
        let conflict = match clause {
            Some(_) if rows.len() != 1 => return None,
            Some(clause) => Some(self.conflict(&table, alias.as_ref(), clause)?),
            None => None,
        };
        let relation = alias.as_ref().map_or_else(|| table.name.clone(), fold);
        let scope = RowScope::default().with(&relation, table.schema.fields());
        let returning = self.returning(&table, &scope, items)?;
        Some(Insert { table, stored, rows, rules, parents, conflict, returning })
    }

    /// The rows of a plan that makes them of expressions alone.
    fn value_rows(&self, plan: &LogicalPlan) -> Option<Vec<Vec<Node>>> {
        match plan {
            LogicalPlan::Values(Values { values, schema: _ }) => {
                let nothing = DFSchema::empty();
                let scope = Scope { schema: &nothing, slots: &[] };
                let row = |exprs: &Vec<Expr>| exprs.iter().map(|expr| compile(self.context, expr, scope)).collect();
                values.iter().map(row).collect()
            }
            LogicalPlan::Projection(Projection { expr, input, .. }) => {
                let rows = self.value_rows(input)?;
                let row = |slots: &Vec<Node>| {
                    let scope = Scope { schema: input.schema(), slots };
                    expr.iter().map(|expr| compile(self.context, expr, scope)).collect()
                };
                rows.iter().map(row).collect()
            }
            LogicalPlan::SubqueryAlias(alias) => self.value_rows(&alias.input),
            _ => None,
        }
    }

    fn conflict(&mut self, table: &Arc<TableDef>, alias: Option<&Ident>, clause: ConflictClause) -> Option<Conflict> {
        let conflict = OnConflict::new(self.context, table, alias, clause).ok()?;
        if !conflict.is_by_primary_key(table) {
            return None;
        }
        let Some(plan) = conflict.plan(table).ok()? else { return Some(Conflict { update: None }) };
        let assigned = conflict.assigned().to_vec();
        if changes_what_is_referred_to(self.context.view().catalog(), table, &assigned) {
            return None;
        }
        let stored = table.storage_schema().fields().len();
        let mut at_hand: Vec<Node> = (0..stored).map(|column| Node::Stored(0, column)).collect();
        at_hand.extend((0..table.schema.fields().len()).map(|column| Node::Stored(1, column)));
        at_hand.push(Node::Constant(Datum::Int(0)));
        let plan = self.analyzed(plan)?;
        let pipeline = Reader { context: self.context, at_hand: &at_hand }.read(&plan)?;
        if !pipeline.sources.is_empty() || !pipeline.is_plain() {
            return None;
        }
        let values = new_values(table, &plan, &pipeline, &assigned)?;
        let parents = self.parents(table, |key| key.columns.iter().any(|column| assigned.contains(column)))?;
        Some(Conflict { update: Some(ConflictUpdate { conditions: pipeline.conditions, values, parents }) })
    }

    pub(super) fn update(&mut self, mut statement: UpdateStatement) -> Option<Update> {
        if statement.with.is_some() || !statement.from.is_empty() {
            return None;
        }
        let items = statement.returning.take();
        let ModifyPlan { table, plan, context: _, scope, assigned, joined } =
            modify::plan_update(self.context, statement).ok()?;
        if joined || table.schema.fields().iter().any(|field| is_generated(field)) {
            return None;
        }
        let catalog = self.context.view().catalog();
        if changes_what_is_referred_to(catalog, &table, &assigned) {
            return None;
        }
        let plan = self.analyzed(plan)?;
        let pipeline = Reader { context: self.context, at_hand: &[] }.read(&plan)?;
        let values = new_values(&table, &plan, &pipeline, &assigned)?;
        let target = target(pipeline)?;
        let rules = self.rules(&table)?;
        let parents = self.parents(&table, |key| key.columns.iter().any(|column| assigned.contains(column)))?;
        let returning = self.returning(&table, &scope, items)?;
        Some(Update { target, values, rules, parents, returning })
    }

    pub(super) fn delete(&mut self, mut statement: DeleteStatement) -> Option<Delete> {
        if statement.with.is_some() || !statement.using.is_empty() {
            return None;
        }
        let items = statement.returning.take();
        let ModifyPlan { table, plan, context: _, scope, assigned: _, joined } =
            modify::plan_delete(self.context, statement).ok()?;
        if joined || is_referred_to(self.context.view().catalog(), &table) {
            return None;
        }
        let plan = self.analyzed(plan)?;
        let target = target(Reader { context: self.context, at_hand: &[] }.read(&plan)?)?;
        let returning = self.returning(&table, &scope, items)?;
        Some(Delete { target, returning })
    }

    /// A RETURNING list over a row as stored.
    fn returning(
        &mut self,
        table: &TableDef,
        scope: &RowScope,
        items: Option<Vec<SelectItem>>,
    ) -> Option<Option<Returning>> {
        let Some(items) = items else { return Some(None) };
        let plan = returning::plan(self.context, scope, &items, Vec::new()).ok()?;
        let plan = self.analyzed(plan)?;
        let columns = table.storage_schema().fields().len();
        let at_hand: Vec<Node> = (0..columns).map(|column| Node::Stored(0, column)).collect();
        let pipeline = Reader { context: self.context, at_hand: &at_hand }.read(&plan)?;
        let plain = pipeline.sources.is_empty() && pipeline.is_plain() && pipeline.conditions.is_empty();
        plain.then(|| Some(Returning { output: pipeline.output, schema: shown_schema(&plan) }))
    }

    fn rules(&self, table: &TableDef) -> Option<Rules> {
        if table.indexes.iter().any(|index| index.deferral.is_deferrable()) {
            return None;
        }
        let columns = table.schema.fields().iter().map(|field| ColumnRule {
            nullable: field.is_nullable(),
            length_max: field.metadata().get(LENGTH_KEY).and_then(|length| length.parse().ok()),
        });
        let columns = columns.collect();
        let mut checks = Vec::new();
        for check in checks_of(table).ok()? {
            checks.push(self.check(table, check.syntax().ok()?)?);
        }
        Some(Rules { columns, checks })
    }

    /// A CHECK over the new row, read as [`crate::dml::defaults::compile_over`] does.
    fn check(&self, table: &TableDef, mut syntax: datafusion::sql::sqlparser::ast::Expr) -> Option<Node> {
        check_queries(&mut syntax).ok()?;
        let fields =
            table.schema.fields().iter().map(|field| Field::new(field.name(), field.data_type().clone(), true));
        let schema = Schema::new(fields.collect::<Vec<_>>());
        let reference = TableReference::bare(table.name.as_str());
        let schema = Arc::new(DFSchema::try_from_qualified_schema(reference, &schema).ok()?);
        let expr = planner(self.context).sql_to_expr(syntax, &schema, &mut PlannerContext::new()).ok()?;
        let expr = expr.cast_to(&DataType::Boolean, &schema).ok()?;
        let input = LogicalPlan::EmptyRelation(EmptyRelation { produce_one_row: true, schema: Arc::clone(&schema) });
        let plan = LogicalPlanBuilder::from(input).project(vec![expr.alias("value")]).ok()?.build().ok()?;
        let options = OptimizerConfig::options(self.context);
        let analyzed = self.context.shared().analyzer().execute_and_check(plan, &options, |_, _| {}).ok()?;
        let LogicalPlan::Projection(Projection { expr, .. }) = analyzed else { return None };
        let slots: Vec<Node> = (0..schema.fields().len()).map(|column| Node::Stored(0, column)).collect();
        compile(self.context, expr.first()?, Scope { schema: &schema, slots: &slots })
    }

    /// The foreign keys whose parents must be there.
    fn parents(&self, table: &TableDef, concerned: impl Fn(&ForeignKey) -> bool) -> Option<Vec<Parent>> {
        let mut parents = Vec::new();
        for foreign_key in table.foreign_keys.iter().filter(|key| concerned(key)) {
            let parent = self.context.view().catalog().table(foreign_key.parent)?;
            // One that refers to a unique constraint finds its parents by another index.
            let by_key = !parent.primary_key.is_empty() && foreign_key.parent_columns.len() == parent.primary_key.len();
            let mixes = foreign_key.match_full && foreign_key.columns.len() > 1;
            if foreign_key.deferrable || mixes || parent.id == table.id || !by_key {
                return None;
            }
            let mut columns = Vec::with_capacity(parent.primary_key.len());
            for key in &parent.primary_key {
                let place = foreign_key.parent_columns.iter().position(|column| column == key)?;
                let column = *foreign_key.columns.get(place)?;
                if table.schema.field(column).data_type() != parent.schema.field(*key).data_type() {
                    return None;
                }
                columns.push(column);
            }
            parents.push(Parent { table: Arc::clone(parent), columns });
        }
        Some(parents)
    }
}

fn stored_types(table: &TableDef) -> Option<Vec<Stored>> {
    table.storage_schema().fields().iter().map(|field| Stored::of(field.data_type())).collect()
}

/// Whether assigning these columns may take away what rows of other tables refer to.
fn changes_what_is_referred_to(catalog: &rustydb_storage::Catalog, table: &TableDef, assigned: &[usize]) -> bool {
    let mut foreign_keys = catalog.tables().flat_map(|other| &other.foreign_keys);
    foreign_keys.any(|foreign_key| {
        foreign_key.parent == table.id && foreign_key.parent_columns.iter().any(|column| assigned.contains(column))
    })
}

fn is_referred_to(catalog: &rustydb_storage::Catalog, table: &TableDef) -> bool {
    catalog.tables().flat_map(|other| &other.foreign_keys).any(|foreign_key| foreign_key.parent == table.id)
}

/// What a plan whose columns are the key and then the new row gives each column of the table.
fn new_values(table: &TableDef, plan: &LogicalPlan, pipeline: &Pipeline, assigned: &[usize]) -> Option<Vec<NewValue>> {
    let keys = table.key_columns().len();
    let fields = table.schema.fields().iter().enumerate();
    let value = |(column, field): (usize, &Arc<Field>)| {
        let node = pipeline.output.get(keys + column)?;
        if !assigned.contains(&column) && matches!(node, Node::Stored(0, own) if *own == column) {
            return Some(NewValue::Kept);
        }
        // Its values would have to be rounded.
        if digits_of(field).is_some() {
            return None;
        }
        let from = plan.schema().field(keys + column).data_type();
        converted(node.clone(), from, field.data_type()).map(NewValue::Computed)
    };
    fields.map(value).collect()
}

/// A value as a column's type, as [`crate::dml::rows::RowCheck`] converts it.
fn converted(node: Node, from: &Type, to: &Type) -> Option<Node> {
    if *from == DataType::Null {
        return Some(Node::Constant(Datum::Null));
    }
    let convert = |node: Node, from: &Type, to: &Type| match Conversion::of(from, to)? {
        Conversion::Same => Some(node),
        conversion => Some(Node::Convert(conversion, Box::new(node))),
    };
    match from {
        DataType::Decimal128(_, 1..) if to.is_integer() => {
            let whole = DataType::Decimal128(38, 0);
            convert(convert(node, from, &whole)?, &whole, to)
        }
        _ => convert(node, from, to),
    }
}

/// The only table of an UPDATE or DELETE, all of whose columns are needed.
fn target(pipeline: Pipeline) -> Option<TableAccess> {
    if pipeline.sources.len() != 1 || !pipeline.is_plain() {
        return None;
    }
    let columns = (0..pipeline.sources[0].stored.len()).collect();
    let (mut tables, fixed) = tables(pipeline.sources, pipeline.conditions, vec![columns])?;
    let (_, mut table) = tables.pop()?;
    table.conditions.extend(fixed);
    Some(table)
}
