//! Rows at hand, with the names by which expressions refer to their columns: what RETURNING and DO UPDATE are evaluated
//! over.
//!
//! ```text
//!  batches (columns by position) ─► scan "0", "1", … ─► project "0" AS t.a, "1" AS t.b, "2" AS s.a ─► expressions
//! ```

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::MemTable;
use datafusion::common::{Column, DFSchema, TableReference};
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::{Expr, LogicalPlanBuilder};
use datafusion::sql::sqlparser::ast;

use crate::constraints::is_hidden;
use crate::sql::check::check_queries;
use crate::sql::context::StatementContext;
use crate::sql::plan::planner;
use crate::sql::tree::natural_joins::resolve_columns_of_subqueries;
use crate::{Error, Result};

/// The name by which plans know rows at hand.
pub(crate) const ROWS_AT_HAND: &str = "rows at hand";

/// The columns of some rows, by qualified name.
#[derive(Debug, Clone, Default)]
pub(crate) struct RowScope {
    columns: Vec<ScopeColumn>,
}

#[derive(Debug, Clone)]
struct ScopeColumn {
    relation: Option<TableReference>,
    name: String,
    data_type: DataType,
    /// Whether `*` leaves it out.
    hidden: bool,
}

impl ScopeColumn {
    fn reference(&self) -> Expr {
        Expr::Column(Column::new(self.relation.clone(), &self.name))
    }
}

impl RowScope {
    /// Adds the columns of a relation after those there are.
    pub(crate) fn with(mut self, relation: &str, fields: &[Arc<Field>]) -> Self {
        for field in fields {
            self.push(Some(TableReference::bare(relation)), field.name(), field.data_type());
            if is_hidden(field)
                && let Some(column) = self.columns.last_mut()
            {
                column.hidden = true;
            }
        }
        self
    }

    pub(crate) fn push(&mut self, relation: Option<TableReference>, name: &str, data_type: &DataType) {
        let (name, data_type) = (name.to_owned(), data_type.clone());
        self.columns.push(ScopeColumn { relation, name, data_type, hidden: false });
    }

    /// Adds a column that `*` does not show.
    pub(crate) fn push_hidden(&mut self, name: &str, data_type: &DataType) {
        let (name, data_type) = (name.to_owned(), data_type.clone());
        self.columns.push(ScopeColumn { relation: None, name, data_type, hidden: true });
    }

    /// The columns that `*` shows, as references; of one relation only if `relation` is given.
    pub(crate) fn columns(&self, relation: Option<&str>) -> Vec<Expr> {
        let wanted = |column: &&ScopeColumn| match relation {
            None => !column.hidden,
            Some(relation) => !column.hidden && column.relation.as_ref().is_some_and(|own| own.table() == relation),
        };
        self.columns.iter().filter(wanted).map(ScopeColumn::reference).collect()
    }

    /// A column by its place.
    pub(crate) fn column(&self, index: usize) -> Result<Expr> {
        let column = self.columns.get(index);
        column.map(ScopeColumn::reference).ok_or_else(|| Error::internal("a row has fewer columns than expected"))
    }

    /// The schema expressions are resolved in.
    pub(crate) fn schema(&self) -> Result<DFSchema> {
        let fields = self.columns.iter().map(|column| {
            (column.relation.clone(), Arc::new(Field::new(&column.name, column.data_type.clone(), true)))
        });
        Ok(DFSchema::new_with_metadata(fields.collect(), Default::default())?)
    }

    /// Resolves an expression over these columns.
    pub(crate) fn resolve(&self, context: &StatementContext, mut expr: ast::Expr) -> Result<Expr> {
        resolve_columns_of_subqueries(context, &mut expr);
        check_queries(&mut expr)?;
        Ok(planner(context).sql_to_expr(expr, &self.schema()?, &mut context.planner_context())?)
    }

    /// A plan whose rows are these, each batch with the scope's columns in order.
    pub(crate) fn rows(&self, batches: Vec<Vec<ArrayRef>>) -> Result<LogicalPlanBuilder> {
        let fields = self
            .columns
            .iter()
            .enumerate()
            .map(|(index, column)| Field::new(index.to_string(), column.data_type.clone(), true));
        let schema: SchemaRef = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let batches = batches
            .into_iter()
            .map(|columns| {
                let rows = columns.first().map_or(0, |column| column.len());
                let options = RecordBatchOptions::new().with_row_count(Some(rows));
                RecordBatch::try_new_with_options(Arc::clone(&schema), columns, &options)
            })
            .collect::<Result<Vec<_>, _>>()?;
        let source = provider_as_source(Arc::new(MemTable::try_new(schema, vec![batches])?));
        let names = self.columns.iter().enumerate().map(|(index, column)| {
            let value = Expr::Column(Column::new_unqualified(index.to_string()));
            value.alias_qualified(column.relation.clone(), &column.name)
        });
        Ok(LogicalPlanBuilder::scan(ROWS_AT_HAND, source, None)?.project(names.collect::<Vec<_>>())?)
    }
}
