//! Conditions on what an index over expressions is about.
//!
//! Such an index keeps a hidden column with its table. A condition that names the same expression can name the column
//! instead, which the store has an index for, and bounds of for every block:
//!
//! ```text
//!   lower(email) = 'ada'               ⇒  "__index i: lower(email)" = 'ada'
//!   lower(email) = 'ada' AND active    ⇒  the same, if the index is over the rows WHERE active
//! ```
//! The expression of an index and that of a query are compared as they are after analysis and simplification.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::expr::Cast;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Expr, ExprSchemable};
use datafusion::optimizer::OptimizerConfig;
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use rustydb_storage::TableDef;

use crate::Result;
use crate::constraints::{HIDDEN_PREFIX, index_texts, is_hidden};
use crate::dml::defaults::planned_over;
use crate::sql::context::StatementContext;
use crate::sql::text::parse::parse_expression;

/// A hidden column, and what it holds of the rows that are in its index.
struct Hidden<'a> {
    field: &'a Field,
    key: Expr,
    /// Which rows these are; `None`: all.
    predicate: Option<Expr>,
}

/// The conditions of a scan with hidden columns in the places of what they hold; `None` if there are none. They are
/// conditions over the columns of the table's storage schema.
pub(super) fn over_hidden_columns(
    context: &StatementContext,
    table: &TableDef,
    filters: &[Expr],
) -> DataFusionResult<Option<Vec<Expr>>> {
    if filters.is_empty() || !table.schema.fields().iter().any(|field| is_hidden(field)) {
        return Ok(None);
    }
    let columns = hidden_columns(context, table)?;
    let conjuncts: Vec<&Expr> = filters.iter().flat_map(|filter| split_conjunction(filter)).collect();
    let usable: Vec<&Hidden<'_>> = columns
        .iter()
        .filter(|hidden| hidden.predicate.as_ref().is_none_or(|predicate| conjuncts.contains(&predicate)))
        .collect();
    if usable.is_empty() {
        return Ok(None);
    }
    let schema = Arc::new(DFSchema::try_from(plain_schema(table))?);
    let options = OptimizerConfig::options(context);
    let simplify = SimplifyContext::builder().with_config_options(options).with_schema(Arc::clone(&schema)).build();
    let simplifier = ExprSimplifier::new(simplify);
    let mut changed = false;
    let mut rewritten = Vec::with_capacity(conjuncts.len());
    for conjunct in conjuncts {
        // What picks the rows of a partial index stays as it is: it is about all rows.
        if usable.iter().any(|hidden| hidden.predicate.as_ref() == Some(conjunct)) {
            rewritten.push(conjunct.clone());
            continue;
        }
        let expr = conjunct.clone().transform_down(|expr| replace(expr, &usable, &schema))?;
        changed |= expr.transformed;
        rewritten.push(match expr.transformed {
            true => simplifier.simplify(expr.data)?,
            false => expr.data,
        });
    }
    Ok(changed.then_some(rewritten))
}

fn replace(expr: Expr, columns: &[&Hidden<'_>], schema: &DFSchema) -> DataFusionResult<Transformed<Expr>> {
    let Some(hidden) = columns.iter().find(|hidden| hidden.key == expr) else { return Ok(Transformed::no(expr)) };
    let column = Expr::Column(Column::new_unqualified(hidden.field.name()));
    let data_type = expr.get_type(schema)?;
    Ok(Transformed::yes(match data_type == *hidden.field.data_type() {
        true => column,
        false => Expr::Cast(Cast::new(Box::new(column), data_type)),
    }))
}

fn hidden_columns<'a>(context: &StatementContext, table: &'a TableDef) -> Result<Vec<Hidden<'a>>> {
    let texts = index_texts(table)?;
    let planned = |text: &str| planned_over(context, table, parse_expression(text)?);
    let mut columns = Vec::new();
    for (place, field) in table.schema.fields().iter().enumerate().filter(|(_, field)| is_hidden(field)) {
        // The index may have been renamed since the column got its name.
        let index = table.indexes.iter().find(|index| index.columns.contains(&place));
        let text = index.and_then(|index| texts.iter().find(|text| text.name == index.name));
        let key = field.name().strip_prefix(HIDDEN_PREFIX).and_then(|rest| rest.split_once(": "));
        let (Some(text), Some((_, key))) = (text, key) else { continue };
        let predicate = text.predicate.as_deref().map(planned).transpose()?;
        columns.push(Hidden { field, key: planned(key)?, predicate });
    }
    Ok(columns)
}

/// The columns of a table's storage schema without what is noted about them.
pub(super) fn plain_schema(table: &TableDef) -> SchemaRef {
    let plain = |field: &Arc<Field>| Field::new(field.name(), field.data_type().clone(), field.is_nullable());
    Arc::new(Schema::new(table.storage_schema().fields().iter().map(plain).collect::<Vec<_>>()))
}
