//! From the planner's expressions to the filters of a scan.
//!
//! Every conjunct is handed to the store. What the store knows (comparisons of a column with constants, lists, NULL
//! tests) becomes a typed [`Filter`], which it evaluates on its blocks as they lie in memory; anything else becomes a
//! [`RowPredicate`] that evaluates the planner's expression on the columns it names. Either way, exactly the rows that
//! pass come back, so no filter is left in the plan above.
//!
//! A conjunct that is no comparison may still imply some: `(a = 1 AND b < 3) OR (a = 5)` implies `1 <= a <= 5`. Those
//! [`implied_bounds`] are added as filters of their own: they skip blocks, and spare the expression most rows.
//!
//! Expressions here name columns by their index in the table's storage schema.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::error::ArrowError;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DataFusionError, ScalarValue};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{
    BinaryExpr, CaseExpr, Column, InListExpr, IsNotNullExpr, IsNullExpr, Literal, NotExpr,
};
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_expr::{PhysicalExpr, split_conjunction};
use datafusion::physical_expr_common::physical_expr::{snapshot_generation, snapshot_physical_expr};
use datafusion::physical_plan::joins::HashTableLookupExpr;
use rustydb_storage::{CompareOp, DynamicFilter, Filter, RowPredicate};

use crate::operators::join_keys::{KeyColumns, KeyPredicate};
use crate::operators::lazy_logic::lazily;

/// The filters that together pass exactly the rows for which all of `conjuncts` are true.
pub(crate) fn to_filters(conjuncts: &[Arc<dyn PhysicalExpr>], schema: &SchemaRef) -> DataFusionResult<Vec<Filter>> {
    let mut filters = Vec::new();
    for conjunct in conjuncts.iter().flat_map(|conjunct| split_conjunction(conjunct)) {
        collect(conjunct, schema, &mut filters)?;
    }
    Ok(filters)
}

fn collect(conjunct: &Arc<dyn PhysicalExpr>, schema: &SchemaRef, filters: &mut Vec<Filter>) -> DataFusionResult<()> {
    if let Some(value) = literal(conjunct) {
        if !matches!(value, ScalarValue::Boolean(Some(true))) {
            filters.push(Filter::Never);
        }
        return Ok(());
    }
    if let Some(filter) = typed(conjunct, schema) {
        filters.push(filter);
        return Ok(());
    }
    match implied_bounds(conjunct, schema)? {
        Implied::Nothing => filters.push(Filter::Never),
        Implied::Bounds(bounds) => {
            for (column, (low, high)) in bounds {
                for (op, value) in [(CompareOp::GtEq, low), (CompareOp::LtEq, high)] {
                    if let Some(value) = value {
                        filters.push(Filter::Compare { column, op, value: value.to_array()? });
                    }
                }
            }
            filters.push(Filter::Rows(Arc::new(ExpressionPredicate::new(conjunct, schema)?)));
        }
    }
    Ok(())
}

/// Whether the store compares values of this type as the planner's expressions do.
fn is_comparable(data_type: &DataType) -> bool {
    match data_type {
        DataType::Boolean | DataType::Utf8View | DataType::BinaryView | DataType::Float32 | DataType::Float64 => true,
        other => is_integral(other),
    }
}

/// Types whose values are integers inside.
fn is_integral(data_type: &DataType) -> bool {
    data_type.is_integer()
        || matches!(
            data_type,
            DataType::Date32 | DataType::Time64(_) | DataType::Timestamp(_, _) | DataType::Decimal128(_, _)
        )
}

fn literal(expression: &Arc<dyn PhysicalExpr>) -> Option<&ScalarValue> {
    expression.downcast_ref::<Literal>().map(Literal::value)
}

/// A column of the table and its type.
fn column<'a>(expression: &Arc<dyn PhysicalExpr>, schema: &'a Schema) -> Option<(usize, &'a DataType)> {
    let column = expression.downcast_ref::<Column>()?;
    Some((column.index(), schema.fields().get(column.index())?.data_type()))
}

/// A comparison of a column with a constant of its own type: `5 < c` is `c > 5`.
fn comparison<'a>(
    expression: &'a Arc<dyn PhysicalExpr>,
    schema: &Schema,
) -> Option<(usize, CompareOp, &'a ScalarValue)> {
    let binary = expression.downcast_ref::<BinaryExpr>()?;
    let op = compare_op(*binary.op())?;
    let ((index, data_type), op, value) = match (column(binary.left(), schema), literal(binary.right())) {
        (Some(column), Some(value)) => (column, op, value),
        _ => (column(binary.right(), schema)?, mirrored(op), literal(binary.left())?),
    };
    (value.data_type() == *data_type && is_comparable(data_type)).then_some((index, op, value))
}

/// The constants of `column [NOT] IN (constants)`.
fn list<'a>(in_list: &'a InListExpr, schema: &Schema) -> Option<(usize, Vec<&'a ScalarValue>)> {
    let (index, data_type) = column(in_list.expr(), schema)?;
    let values: Vec<&ScalarValue> = in_list.list().iter().map(literal).collect::<Option<_>>()?;
    let same = values.iter().all(|value| value.data_type() == *data_type);
    (same && !values.is_empty()).then_some((index, values))
}

/// The conjunct as a filter that the store evaluates by itself.
fn typed(conjunct: &Arc<dyn PhysicalExpr>, schema: &Schema) -> Option<Filter> {
    if let Some((column, op, value)) = comparison(conjunct, schema) {
        return Some(Filter::Compare { column, op, value: value.to_array().ok()? });
    }
    let boolean = |expression: &Arc<dyn PhysicalExpr>, value: bool| {
        let (column, data_type) = column(expression, schema)?;
        let value: ArrayRef = Arc::new(BooleanArray::from(vec![value]));
        (*data_type == DataType::Boolean).then_some(Filter::Compare { column, op: CompareOp::Eq, value })
    };
    if let Some(not) = conjunct.downcast_ref::<NotExpr>() {
        return boolean(not.arg(), false);
    }
    if let Some(null) = conjunct.downcast_ref::<IsNullExpr>() {
        return column(null.arg(), schema).map(|(column, _)| Filter::IsNull { column, negated: false });
    }
    if let Some(null) = conjunct.downcast_ref::<IsNotNullExpr>() {
        return column(null.arg(), schema).map(|(column, _)| Filter::IsNull { column, negated: true });
    }
    if let Some(in_list) = conjunct.downcast_ref::<InListExpr>() {
        let (column, values) = list(in_list, schema)?;
        let data_type = values.first()?.data_type();
        // Whether a list finds NaN and -0.0 is the planner's business.
        if !is_integral(&data_type) && !matches!(data_type, DataType::Utf8View | DataType::BinaryView) {
            return None;
        }
        let values = ScalarValue::iter_to_array(values.into_iter().cloned()).ok()?;
        return Some(Filter::In { column, values, negated: in_list.negated() });
    }
    boolean(conjunct, true)
}

fn compare_op(op: Operator) -> Option<CompareOp> {
    match op {
        Operator::Eq => Some(CompareOp::Eq),
        Operator::NotEq => Some(CompareOp::NotEq),
        Operator::Lt => Some(CompareOp::Lt),
        Operator::LtEq => Some(CompareOp::LtEq),
        Operator::Gt => Some(CompareOp::Gt),
        Operator::GtEq => Some(CompareOp::GtEq),
        _ => None,
    }
}

fn mirrored(op: CompareOp) -> CompareOp {
    match op {
        CompareOp::Eq => CompareOp::Eq,
        CompareOp::NotEq => CompareOp::NotEq,
        CompareOp::Lt => CompareOp::Gt,
        CompareOp::LtEq => CompareOp::GtEq,
        CompareOp::Gt => CompareOp::Lt,
        CompareOp::GtEq => CompareOp::LtEq,
    }
}

/// Inclusive bounds of columns.
type Bounds = BTreeMap<usize, (Option<ScalarValue>, Option<ScalarValue>)>;

/// What follows from a condition being true.
#[derive(Debug, PartialEq)]
enum Implied {
    /// It never is.
    Nothing,
    /// The columns lie within these bounds, and are not NULL.
    Bounds(Bounds),
}

/// Bounds that every row meets for which `condition` is true.
fn implied_bounds(condition: &Arc<dyn PhysicalExpr>, schema: &Schema) -> DataFusionResult<Implied> {
    let one = |column, low: Option<&ScalarValue>, high: Option<&ScalarValue>| {
        Implied::Bounds(BTreeMap::from([(column, (low.cloned(), high.cloned()))]))
    };
    if let Some(value) = literal(condition) {
        return Ok(match value {
            ScalarValue::Boolean(Some(true)) => Implied::Bounds(Bounds::new()),
            _ => Implied::Nothing,
        });
    }
    if let Some((column, op, value)) = comparison(condition, schema)
        && !value.data_type().is_floating()
    {
        return Ok(match op {
            _ if value.is_null() => Implied::Nothing,
            CompareOp::Eq => one(column, Some(value), Some(value)),
            CompareOp::Lt | CompareOp::LtEq => one(column, None, Some(value)),
            CompareOp::Gt | CompareOp::GtEq => one(column, Some(value), None),
            CompareOp::NotEq => Implied::Bounds(Bounds::new()),
        });
    }
    if let Some(binary) = condition.downcast_ref::<BinaryExpr>() {
        let both = || {
            Ok::<_, DataFusionError>((implied_bounds(binary.left(), schema)?, implied_bounds(binary.right(), schema)?))
        };
        return match binary.op() {
            Operator::And => both().map(|(left, right)| intersection(left, right)),
            Operator::Or => both().map(|(left, right)| union(left, right)),
            _ => Ok(Implied::Bounds(Bounds::new())),
        };
    }
    if let Some(in_list) = condition.downcast_ref::<InListExpr>()
        && !in_list.negated()
        && let Some((column, values)) = list(in_list, schema)
        && is_comparable(&values[0].data_type())
        && !values[0].data_type().is_floating()
    {
        let items = values.iter().filter(|value| !value.is_null()).map(|value| one(column, Some(value), Some(value)));
        return Ok(items.fold(Implied::Nothing, union));
    }
    if let Some(case) = condition.downcast_ref::<CaseExpr>() {
        let mut implied = match case.else_expr() {
            Some(otherwise) => implied_bounds(otherwise, schema)?,
            None => Implied::Nothing,
        };
        for (_, then) in case.when_then_expr() {
            implied = union(implied, implied_bounds(then, schema)?);
        }
        return Ok(implied);
    }
    if let Some(null) = condition.downcast_ref::<IsNullExpr>()
        && let Some(column) = null.arg().downcast_ref::<Column>()
        && schema.fields().get(column.index()).is_some_and(|field| !field.is_nullable())
    {
        return Ok(Implied::Nothing);
    }
    Ok(Implied::Bounds(Bounds::new()))
}

/// What follows if both conditions are true.
fn intersection(left: Implied, right: Implied) -> Implied {
    let (Implied::Bounds(mut all), Implied::Bounds(right)) = (left, right) else { return Implied::Nothing };
    for (column, (low, high)) in right {
        let known = all.entry(column).or_default();
        if let Some(low) = low
            && known.0.as_ref().is_none_or(|known| low > *known)
        {
            known.0 = Some(low);
        }
        if let Some(high) = high
            && known.1.as_ref().is_none_or(|known| high < *known)
        {
            known.1 = Some(high);
        }
    }
    Implied::Bounds(all)
}

/// What follows if one of the conditions is true.
fn union(left: Implied, right: Implied) -> Implied {
    let (left, mut right) = match (left, right) {
        (Implied::Nothing, other) | (other, Implied::Nothing) => return other,
        (Implied::Bounds(left), Implied::Bounds(right)) => (left, right),
    };
    let mut all = Bounds::new();
    for (column, (low, high)) in left {
        let Some((other_low, other_high)) = right.remove(&column) else { continue };
        let low = low.zip(other_low).map(|(one, other)| if other < one { other } else { one });
        let high = high.zip(other_high).map(|(one, other)| if other > one { other } else { one });
        if low.is_some() || high.is_some() {
            all.insert(column, (low, high));
        }
    }
    Implied::Bounds(all)
}

/// An expression of the planner's, evaluated for the store.
struct ExpressionPredicate {
    expression: Arc<dyn PhysicalExpr>,
    /// The columns it reads, in the order of `schema`.
    columns: Vec<usize>,
    schema: SchemaRef,
}

impl fmt::Debug for ExpressionPredicate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.expression)
    }
}

impl ExpressionPredicate {
    fn new(expression: &Arc<dyn PhysicalExpr>, schema: &SchemaRef) -> DataFusionResult<Self> {
        let mut columns: Vec<usize> = collect_columns(expression).iter().map(Column::index).collect();
        columns.sort_unstable();
        columns.dedup();
        let place = |index: usize| columns.binary_search(&index).ok();
        let expression = move_columns(expression, place)?;
        let schema = Arc::new(schema.project(&columns)?);
        Ok(ExpressionPredicate { expression: lazily(expression, &schema)?, schema, columns })
    }

    fn evaluate(&self, columns: &[ArrayRef], rows: usize) -> DataFusionResult<BooleanArray> {
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        // Whether a column is nullable is the table's promise; the distinct values of a dictionary may come with a NULL.
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns.to_vec(), &options)?;
        let result = self.expression.evaluate(&batch)?.into_array(rows)?;
        match result.as_boolean_opt() {
            Some(result) => Ok(result.clone()),
            None if *result.data_type() == DataType::Null => {
                Ok(new_null_array(&DataType::Boolean, rows).as_boolean().clone())
            }
            None => Err(DataFusionError::Internal(format!("a filter gave {}", result.data_type()))),
        }
    }
}

impl RowPredicate for ExpressionPredicate {
    fn columns(&self) -> &[usize] {
        &self.columns
    }

    fn evaluate(&self, columns: &[ArrayRef], rows: usize) -> Result<BooleanArray, ArrowError> {
        self.evaluate(columns, rows).map_err(|error| ArrowError::ExternalError(Box::new(error)))
    }
}

/// The expression with each column's index replaced. Columns that have no new place are an error of the planner.
pub(crate) fn move_columns(
    expression: &Arc<dyn PhysicalExpr>,
    place: impl Fn(usize) -> Option<usize>,
) -> DataFusionResult<Arc<dyn PhysicalExpr>> {
    let moved = Arc::clone(expression).transform_up(|node| {
        let Some(column) = node.downcast_ref::<Column>() else { return Ok(Transformed::no(node)) };
        let index = place(column.index())
            .ok_or_else(|| DataFusionError::Internal(format!("a filter names column {column}, which is not there")))?;
        Ok(Transformed::yes(Arc::new(Column::new(column.name(), index))))
    })?;
    Ok(moved.data)
}

/// A condition that another operator makes known while the query runs.
pub(crate) struct DynamicExpression {
    expression: Arc<dyn PhysicalExpr>,
    schema: SchemaRef,
    /// The keys of the join it comes from, if any.
    keys: KeyColumns,
}

impl DynamicExpression {
    pub(crate) fn new(expression: Arc<dyn PhysicalExpr>, schema: SchemaRef, keys: KeyColumns) -> Self {
        DynamicExpression { expression, schema, keys }
    }

    fn filters(&self) -> DataFusionResult<Vec<Filter>> {
        let known = snapshot_physical_expr(Arc::clone(&self.expression))?;
        let mut filters = Vec::new();
        for conjunct in split_conjunction(&known) {
            let by_bits = self.by_bits(conjunct);
            // Bits of its only key say what the hash table would; of several keys they say less, and quicker.
            let is_all = by_bits.len() == 1 && self.keys.len() == 1;
            filters.extend(by_bits);
            if !is_all {
                collect(conjunct, &self.schema, &mut filters)?;
            }
        }
        Ok(filters)
    }

    /// For a look into the join's hash table, looks into the bits of its keys, as far as there are any.
    fn by_bits(&self, conjunct: &Arc<dyn PhysicalExpr>) -> Vec<Filter> {
        let Some(lookup) = conjunct.downcast_ref::<HashTableLookupExpr>() else { return Vec::new() };
        let asked = lookup.children().into_iter().zip(&self.keys).filter_map(|(column, keys)| {
            let keys = keys.as_ref().filter(|keys| keys.set().is_some())?;
            let column = column.downcast_ref::<Column>()?.index();
            Some(Filter::Rows(Arc::new(KeyPredicate::new(column, Arc::clone(keys)))))
        });
        asked.collect()
    }
}

impl fmt::Debug for DynamicExpression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.expression)
    }
}

impl DynamicFilter for DynamicExpression {
    fn generation(&self) -> u64 {
        snapshot_generation(&self.expression)
    }

    fn current(&self) -> Vec<Filter> {
        // Nothing depends on this filter but speed.
        self.filters().unwrap_or_else(|error| {
            tracing::debug!(%error, "a dynamic filter is not used");
            Vec::new()
        })
    }
}
