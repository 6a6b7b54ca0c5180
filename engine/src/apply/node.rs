//! The node of the logical plan. Its subquery is not among its inputs: DataFusion's rules would take it apart.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering as Atomic};

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Column, DFSchema, DFSchemaRef, TableReference, internal_err};
use datafusion::datasource::source_as_provider;
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, LogicalPlan, UserDefinedLogicalNodeCore};
use rustydb_storage::TableDef;

use super::scope::Outside;
use crate::catalog::provider::ColumnTable;

/// What a row gets from the subquery.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Gives {
    /// Its value, or NULL without a row; several rows are an error.
    Value(String),
    /// Whether there is a row.
    Exists(String),
    /// Whether the last argument is among its values: true, false or unknown.
    Member(String),
    /// A copy for each of its rows, with their columns; with `keeps`, one with NULLs if there is no row.
    Rows { keeps: bool },
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Apply {
    pub(super) input: Arc<LogicalPlan>,
    pub(super) subquery: Arc<LogicalPlan>,
    pub(super) gives: Gives,
    /// The columns of the input that the subquery refers to, by the names it has for them.
    pub(super) columns: Vec<Column>,
    /// Their values in terms of the input, and what is looked for in a [`Gives::Member`].
    pub(super) arguments: Vec<Expr>,
    schema: DFSchemaRef,
}

impl Apply {
    pub(super) fn try_new(
        input: Arc<LogicalPlan>,
        subquery: Arc<LogicalPlan>,
        gives: Gives,
        wanted: Option<Expr>,
    ) -> Result<Apply> {
        let columns: Vec<Column> = Outside::of(&subquery)?.columns.into_iter().map(|(column, _)| column).collect();
        let arguments = columns.iter().cloned().map(Expr::Column).chain(wanted).collect();
        let schema = schema_of(&input, &subquery, &gives)?;
        Ok(Apply { input, subquery, gives, columns, arguments, schema })
    }

    /// The tables that the subquery reads, and those that are applied inside of it.
    pub(super) fn tables(&self) -> Result<Vec<Arc<TableDef>>> {
        let mut tables = Vec::new();
        self.subquery.apply_with_subqueries(|node| {
            match node {
                LogicalPlan::TableScan(scan) => {
                    let provider = source_as_provider(&scan.source)?;
                    tables.extend(provider.downcast_ref::<ColumnTable>().map(|table| Arc::clone(table.definition())));
                }
                LogicalPlan::Extension(extension) => {
                    if let Some(inner) = extension.node.as_any().downcast_ref::<Apply>() {
                        tables.extend(inner.tables()?);
                    }
                }
                _ => {}
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(tables)
    }
}

/// A name for the column a subquery gives, different from all others.
pub(super) fn fresh_name() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!("__rustydb_subquery_{}", COUNT.fetch_add(1, Atomic::Relaxed))
}

fn schema_of(input: &LogicalPlan, subquery: &LogicalPlan, gives: &Gives) -> Result<DFSchemaRef> {
    let qualified = |(relation, field): (Option<&TableReference>, &FieldRef)| (relation.cloned(), Arc::clone(field));
    let mut fields: Vec<(Option<TableReference>, FieldRef)> = input.schema().iter().map(qualified).collect();
    let one = |name: &String, data_type| (None, Arc::new(Field::new(name, data_type, true)));
    match gives {
        Gives::Value(name) => fields.push(one(name, subquery.schema().field(0).data_type().clone())),
        Gives::Exists(name) | Gives::Member(name) => fields.push(one(name, DataType::Boolean)),
        Gives::Rows { keeps } => {
            fields.extend(subquery.schema().iter().map(|(relation, field)| {
                (relation.cloned(), Arc::new(field.as_ref().clone().with_nullable(field.is_nullable() || *keeps)))
            }));
        }
    }
    let metadata = input.schema().metadata().clone();
    Ok(Arc::new(DFSchema::new_with_metadata(fields, metadata)?))
}

impl PartialOrd for Apply {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for Apply {
    fn name(&self) -> &str {
        "Apply"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        self.arguments.clone()
    }

    /// Conditions on the input alone may as well choose the rows before.
    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        let own = self.schema.fields().iter().skip(self.input.schema().fields().len());
        own.map(|field| field.name().clone()).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Apply: {}", self.gives)?;
        let arguments: Vec<String> = self.arguments.iter().map(ToString::to_string).collect();
        write!(f, " for each [{}]", arguments.join(", "))
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        let Ok([input]) = <[LogicalPlan; 1]>::try_from(inputs) else {
            return internal_err!("a subquery is applied to one input");
        };
        if exprs.len() != self.arguments.len() {
            return internal_err!("a subquery has {} arguments, not {}", self.arguments.len(), exprs.len());
        }
        let schema = schema_of(&input, &self.subquery, &self.gives)?;
        Ok(Apply { input: Arc::new(input), arguments: exprs, schema, ..self.clone() })
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let width = self.input.schema().fields().len();
        Some(vec![output_columns.iter().copied().filter(|index| *index < width).collect()])
    }
}

impl fmt::Display for Gives {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Gives::Value(name) => write!(f, "{name} = value"),
            Gives::Exists(name) => write!(f, "{name} = exists"),
            Gives::Member(name) => write!(f, "{name} = member"),
            Gives::Rows { keeps: false } => write!(f, "rows"),
            Gives::Rows { keeps: true } => write!(f, "rows or NULLs"),
        }
    }
}
