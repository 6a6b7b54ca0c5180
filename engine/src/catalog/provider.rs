//! A stored table in the planner's terms: its columns, statistics and defaults, and the operator that scans it.
//!
//! A provider holds what is known at planning only; the rows are bound at execution ([`crate::scan::ExecutionView`]).

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::{Constraint, Constraints, DFSchema};
use datafusion::datasource::{TableProvider, TableType};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_expr::create_physical_expr;
use datafusion::physical_plan::ExecutionPlan;
use rustydb_storage::{ReadView, TableDef, TableId, TableStatistics};

use super::expression_index::{over_hidden_columns, plain_schema};
use crate::Result;
use crate::constraints::shown_columns;
use crate::scan::ColumnScanExec;
use crate::sql::context::StatementContext;
use crate::sql::types::extension_type;

/// A stored table, as one statement sees it.
#[derive(Debug)]
pub(crate) struct ColumnTable {
    table: Arc<TableDef>,
    statistics: Arc<TableStatistics>,
    /// A prefix of the table's storage schema, so that column indexes mean the same in both; or what `picked` says.
    schema: SchemaRef,
    picked: Option<Picked>,
    constraints: Constraints,
    defaults: HashMap<String, Expr>,
}

/// Columns that are not the first ones of a table.
#[derive(Debug)]
struct Picked {
    /// All columns of the table's storage schema.
    all: SchemaRef,
    /// Which of them they are.
    places: Vec<usize>,
}

impl ColumnTable {
    /// The table it shows.
    pub(crate) fn definition(&self) -> &Arc<TableDef> {
        &self.table
    }

    pub(crate) fn id(&self) -> TableId {
        self.table.id
    }

    /// The columns a user sees.
    pub(crate) fn new(table: &Arc<TableDef>, view: &ReadView) -> Result<Self> {
        let shown = shown_columns(table);
        match shown == table.schema.fields().len() {
            true => Self::with_columns(table, view, &table.schema),
            false => {
                let columns: Vec<usize> = (0..shown).collect();
                Self::with_columns(table, view, &Arc::new(table.schema.project(&columns)?))
            }
        }
    }

    /// The user's columns and the hidden row id, for statements that change rows.
    pub(crate) fn with_hidden_columns(table: &Arc<TableDef>, view: &ReadView) -> Result<Self> {
        Self::with_columns(table, view, table.storage_schema())
    }

    /// The user's columns and the hidden row id, for statements that lock rows: `*` shows them without the columns that
    /// serve indexes.
    pub(crate) fn with_row_id(table: &Arc<TableDef>, view: &ReadView) -> Result<Self> {
        let everything = Self::with_hidden_columns(table, view)?;
        let (shown, own) = (shown_columns(table), table.schema.fields().len());
        if shown == own {
            return Ok(everything);
        }
        let places: Vec<usize> = (0..shown).chain(own..everything.schema.fields().len()).collect();
        let schema = Arc::new(everything.schema.project(&places)?);
        let picked = Some(Picked { all: Arc::clone(&everything.schema), places });
        Ok(ColumnTable { schema, picked, ..everything })
    }

    fn with_columns(table: &Arc<TableDef>, view: &ReadView, schema: &SchemaRef) -> Result<Self> {
        // Declarations are kept in field metadata; of these, results of queries carry only the extension type around.
        let plain = |field: &Arc<Field>| {
            let plain = Field::new(field.name(), field.data_type().clone(), field.is_nullable());
            plain.with_metadata(extension_type(field))
        };
        let fields: Vec<Field> = schema.fields().iter().map(plain).collect();
        let constraints = match table.primary_key.is_empty() {
            true => Vec::new(),
            false => vec![Constraint::PrimaryKey(table.primary_key.clone())],
        };
        Ok(ColumnTable {
            table: Arc::clone(table),
            statistics: Arc::new(view.statistics(table.id)?),
            schema: Arc::new(Schema::new(fields)),
            picked: None,
            constraints: Constraints::new_unverified(constraints),
            defaults: HashMap::new(),
        })
    }

    /// The same table as the target of an INSERT: with the expressions that fill columns it leaves out, and without NOT
    /// NULL, which the planner would enforce in its own words.
    pub(crate) fn into_insert_target(mut self, defaults: HashMap<String, Expr>) -> Self {
        let fields = self.schema.fields().iter().map(|field| Field::clone(field).with_nullable(true));
        self.schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        self.defaults = defaults;
        self
    }
}

#[async_trait]
impl TableProvider for ColumnTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn constraints(&self) -> Option<&Constraints> {
        Some(&self.constraints)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn get_column_default(&self, column: &str) -> Option<&Expr> {
        self.defaults.get(column)
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let mut projection = projection.cloned().unwrap_or_else(|| (0..self.schema.fields().len()).collect());
        if let Some(picked) = &self.picked {
            projection.iter_mut().for_each(|column| *column = picked.places[*column]);
        }
        let context = session.as_any().downcast_ref::<StatementContext>();
        let hidden = context.map(|context| over_hidden_columns(context, &self.table, filters)).transpose()?.flatten();
        let (filters, table_schema) = match (&hidden, &self.picked) {
            (Some(filters), _) => (filters.as_slice(), plain_schema(&self.table)),
            (None, Some(picked)) => (filters, Arc::clone(&picked.all)),
            (None, None) => (filters, Arc::clone(&self.schema)),
        };
        let schema = DFSchema::try_from(Arc::clone(&table_schema))?;
        let (properties, context) = (session.execution_props(), PhysicalPlanningContext::default());
        let filters = filters.iter().map(|filter| create_physical_expr(filter, &schema, properties, &context));
        Ok(Arc::new(ColumnScanExec::try_new(
            Arc::clone(&self.table),
            table_schema,
            projection,
            filters.collect::<DataFusionResult<_>>()?,
            Arc::clone(&self.statistics),
            session.config_options().execution.target_partitions,
        )?))
    }

    /// The scan applies every filter, exactly.
    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DataFusionResult<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Exact; filters.len()])
    }
}
