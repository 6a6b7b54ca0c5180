//! AND and OR that compute their right side for those rows only whose left side does not decide.
//!
//! Of `b <> 0 AND a / b > 1` PostgreSQL computes the division where `b` is not 0, and so it does of
//! `CASE WHEN b = 0 THEN false ELSE a / b > 1 END`, which DataFusion's optimiser writes with AND. DataFusion's AND spares rows only
//! if the left side is false for nearly all of them; otherwise it computes both sides for all rows, and the division fails.
//!
//! Leaving rows out costs a copy of the others. So an operation is [`LazyLogic`] only if its right side [may fail](may_fail).

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::compute::{and_kleene, cast, or_kleene};
use arrow::datatypes::{DataType, FieldRef, Schema};
use arrow::record_batch::RecordBatch;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{ColumnarValue, Operator};
use datafusion::physical_expr::expressions::{BinaryExpr, CastExpr};
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};

use super::lazy_coalesce::LazyCoalesce;

/// `left AND right` or `left OR right`.
#[derive(Debug, Clone)]
pub(crate) struct LazyLogic {
    /// The expression it stands for.
    general: Arc<BinaryExpr>,
}

impl PartialEq for LazyLogic {
    fn eq(&self, other: &Self) -> bool {
        self.general.eq(&other.general)
    }
}

impl Eq for LazyLogic {}

impl Hash for LazyLogic {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.general.hash(state);
    }
}

/// `expr` with its ANDs and ORs replaced where that matters, and likewise [`coalesce`](LazyCoalesce).
pub(crate) fn lazily(expr: Arc<dyn PhysicalExpr>, schema: &Schema) -> Result<Arc<dyn PhysicalExpr>> {
    expr.transform_up(|part| {
        let lazy: Option<Arc<dyn PhysicalExpr>> = match part.downcast_ref::<BinaryExpr>() {
            Some(binary) if is_logic(*binary.op()) && may_fail(binary.right(), schema)? => {
                Some(Arc::new(LazyLogic { general: Arc::new(binary.clone()) }))
            }
            Some(_) => None,
            None => LazyCoalesce::of(&part).map(|lazy| Arc::new(lazy) as Arc<dyn PhysicalExpr>),
        };
        Ok(match lazy {
            Some(lazy) => Transformed::yes(lazy),
            None => Transformed::no(part),
        })
    })
    .data()
}

fn is_logic(op: Operator) -> bool {
    matches!(op, Operator::And | Operator::Or)
}

/// Whether computing it for a row may be an error, or do something. Numerics that overflow when they are added or multiplied
/// are not looked for.
pub(crate) fn may_fail(expr: &Arc<dyn PhysicalExpr>, schema: &Schema) -> Result<bool> {
    expr.exists(|part| {
        if let Some(binary) = part.downcast_ref::<BinaryExpr>() {
            return Ok(matches!(binary.op(), Operator::Divide | Operator::Modulo));
        }
        if let Some(cast) = part.downcast_ref::<CastExpr>() {
            let (from, to) = (cast.expr().data_type(schema)?, cast.cast_type());
            let same_texts = from.is_string() && to.is_string();
            return Ok(!same_texts && !CastExpr::check_bigger_cast(to, &from));
        }
        Ok(part.downcast_ref::<ScalarFunctionExpr>().is_some())
    })
}

impl LazyLogic {
    /// The rows whose left side does not decide: that is not false for AND, or not true for OR.
    fn undecided(&self, left: &BooleanArray) -> BooleanArray {
        let decided = match self.general.op() {
            Operator::And => !left.values(),
            _ => left.values().clone(),
        };
        let undecided = match left.nulls() {
            Some(nulls) => !&(&decided & nulls.inner()),
            None => !&decided,
        };
        BooleanArray::new(undecided, None)
    }
}

/// The values of a side, which may be a constant NULL.
fn booleans(value: ColumnarValue, rows: usize) -> Result<ArrayRef> {
    let values = value.into_array(rows)?;
    match values.data_type() {
        DataType::Boolean => Ok(values),
        _ => Ok(cast(&values, &DataType::Boolean)?),
    }
}

impl fmt::Display for LazyLogic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.general.fmt(f)
    }
}

impl PhysicalExpr for LazyLogic {
    fn data_type(&self, schema: &Schema) -> Result<DataType> {
        self.general.data_type(schema)
    }

    fn nullable(&self, schema: &Schema) -> Result<bool> {
        self.general.nullable(schema)
    }

    fn return_field(&self, schema: &Schema) -> Result<FieldRef> {
        self.general.return_field(schema)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        let rows = batch.num_rows();
        let left = booleans(self.general.left().evaluate(batch)?, rows)?;
        let undecided = self.undecided(left.as_boolean());
        if undecided.true_count() == 0 {
            return Ok(ColumnarValue::Array(left));
        }
        let right = booleans(self.general.right().evaluate_selection(batch, &undecided)?, rows)?;
        let result = match self.general.op() {
            Operator::And => and_kleene(left.as_boolean(), right.as_boolean())?,
            _ => or_kleene(left.as_boolean(), right.as_boolean())?,
        };
        Ok(ColumnarValue::Array(Arc::new(result)))
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        self.general.children()
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn PhysicalExpr>>) -> Result<Arc<dyn PhysicalExpr>> {
        let (Some(right), Some(left)) = (children.pop(), children.pop()) else {
            return Err(DataFusionError::Internal("AND and OR have two sides".into()));
        };
        Ok(Arc::new(LazyLogic { general: Arc::new(BinaryExpr::new(left, *self.general.op(), right)) }))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.general.fmt_sql(f)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::Int32Array;
    use arrow::datatypes::Field;
    use datafusion::physical_expr::expressions::{binary, col, lit};

    use super::*;

    /// `left op 8 / a > 2` over the values of `a`, computed.
    fn computed(op: Operator, left: (Operator, i32), values: Vec<Option<i32>>) -> Vec<Option<bool>> {
        let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Int32, true)]));
        let a = || col("a", &schema).unwrap();
        let left = binary(a(), left.0, lit(left.1), &schema).unwrap();
        let quotient = binary(lit(8_i32), Operator::Divide, a(), &schema).unwrap();
        let right = binary(quotient, Operator::Gt, lit(2_i32), &schema).unwrap();
        let both = lazily(binary(left, op, right, &schema).unwrap(), &schema).unwrap();
        assert!(both.downcast_ref::<LazyLogic>().is_some());
        let batch = RecordBatch::try_new(schema, vec![Arc::new(Int32Array::from(values))]).unwrap();
        let rows = batch.num_rows();
        both.evaluate(&batch).unwrap().into_array(rows).unwrap().as_boolean().iter().collect()
    }

    #[test]
    fn the_right_side_is_computed_where_the_left_one_does_not_decide() {
        let values = vec![Some(0), Some(2), None, Some(8)];
        let expected = vec![Some(false), Some(true), None, Some(false)];
        assert_eq!(computed(Operator::And, (Operator::NotEq, 0), values.clone()), expected);
        let expected = vec![Some(true), Some(true), None, Some(false)];
        assert_eq!(computed(Operator::Or, (Operator::Eq, 0), values), expected);
        assert_eq!(computed(Operator::And, (Operator::NotEq, 0), vec![Some(0); 2]), [Some(false), Some(false)]);
    }

    #[test]
    fn what_cannot_fail_is_left_as_it_is() {
        let schema = Schema::new(vec![Field::new("a", DataType::Int32, true)]);
        let above = |number: i32| binary(col("a", &schema).unwrap(), Operator::Gt, lit(number), &schema).unwrap();
        let both = binary(above(1), Operator::And, above(2), &schema).unwrap();
        assert!(Arc::ptr_eq(&lazily(Arc::clone(&both), &schema).unwrap(), &both));
    }
}
