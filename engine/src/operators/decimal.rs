//! Decimal arithmetic that computes in 64 bits where the values fit.
//!
//! A DECIMAL is 128 bits wide, and the general `+ - *` check every operation for overflow of 128 bits, which costs some
//! 5 ns each. Nearly all values in databases fit 64 bits, though: of those, a product fits 127 bits and a sum 65, so
//! nothing needs checking. [`DecimalArithmetic`] looks at both inputs first (one OR per value), multiplies 64 × 64 → 128
//! bits if they are narrow, and leaves the rest, with its overflow errors, to the general kernels.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array};
use arrow::buffer::NullBuffer;
use arrow::compute::kernels::numeric::{add_wrapping, mul_wrapping, sub_wrapping};
use arrow::datatypes::{DataType, Decimal128Type, FieldRef, Schema};
use arrow::record_batch::RecordBatch;
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{ColumnarValue, Operator};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::BinaryExpr;
use datafusion::physical_expr_common::datum::apply;

/// Scales that differ by more are left to the general kernels: 2^63 · 10^18 still fits 127 bits.
const SCALE_DIFFERENCE_MAX: i8 = 18;

/// `left op right` on decimals, for `+`, `-` and `*`.
#[derive(Debug, Clone)]
pub(crate) struct DecimalArithmetic {
    /// The expression it stands for, which also tells its type.
    general: Arc<BinaryExpr>,
}

impl PartialEq for DecimalArithmetic {
    fn eq(&self, other: &Self) -> bool {
        self.general.eq(&other.general)
    }
}

impl Eq for DecimalArithmetic {}

impl Hash for DecimalArithmetic {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.general.hash(state);
    }
}

/// `expr` with its decimal arithmetic replaced.
pub(crate) fn with_narrow_decimals(expr: Arc<dyn PhysicalExpr>, schema: &Schema) -> Result<Arc<dyn PhysicalExpr>> {
    expr.transform_up(|part| {
        let Some(binary) = part.downcast_ref::<BinaryExpr>() else { return Ok(Transformed::no(part)) };
        let is_decimal = |side: &Arc<dyn PhysicalExpr>| {
            Ok::<_, DataFusionError>(matches!(side.data_type(schema)?, DataType::Decimal128(..)))
        };
        let arithmetic = matches!(binary.op(), Operator::Plus | Operator::Minus | Operator::Multiply);
        if !arithmetic || !is_decimal(binary.left())? || !is_decimal(binary.right())? {
            return Ok(Transformed::no(part));
        }
        Ok(Transformed::yes(Arc::new(DecimalArithmetic { general: Arc::new(binary.clone()) }) as _))
    })
    .data()
}

/// One side: a column of narrow values, or one narrow value for all rows.
enum Narrow<'a> {
    Values(&'a [i128]),
    Constant(i64),
}

impl Narrow<'_> {
    fn of(value: &ColumnarValue) -> Option<Narrow<'_>> {
        match value {
            ColumnarValue::Array(array) => {
                let values: &[i128] = array.as_primitive_opt::<Decimal128Type>()?.values();
                // A value fits if sign extension of its lower half gives it back. NULLs may hide anything: they count, too.
                let excess = values.iter().fold(0, |excess, value| excess | (value ^ i128::from(*value as i64)));
                (excess == 0).then_some(Narrow::Values(values))
            }
            ColumnarValue::Scalar(ScalarValue::Decimal128(Some(value), ..)) => {
                i64::try_from(*value).ok().map(Narrow::Constant)
            }
            ColumnarValue::Scalar(_) => None,
        }
    }

    /// `op` on both sides, each value of which fits 64 bits, so that the result fits 127.
    fn combine(&self, other: &Narrow<'_>, op: impl Fn(i64, i64) -> i128) -> Option<Vec<i128>> {
        match (self, other) {
            (Narrow::Values(left), Narrow::Values(right)) => {
                Some(left.iter().zip(*right).map(|(left, right)| op(*left as i64, *right as i64)).collect())
            }
            (Narrow::Values(left), Narrow::Constant(right)) => {
                Some(left.iter().map(|left| op(*left as i64, *right)).collect())
            }
            (Narrow::Constant(left), Narrow::Values(right)) => {
                Some(right.iter().map(|right| op(*left, *right as i64)).collect())
            }
            (Narrow::Constant(_), Narrow::Constant(_)) => None,
        }
    }
}

fn scale(value: &ColumnarValue) -> Option<i8> {
    match value.data_type() {
        DataType::Decimal128(_, scale) => Some(scale),
        _ => None,
    }
}

fn nulls(value: &ColumnarValue) -> Option<&NullBuffer> {
    match value {
        ColumnarValue::Array(array) => array.nulls(),
        ColumnarValue::Scalar(_) => None,
    }
}

impl DecimalArithmetic {
    /// The result, if both sides are narrow.
    fn narrow(&self, left: &ColumnarValue, right: &ColumnarValue, result: &DataType) -> Option<ArrayRef> {
        let DataType::Decimal128(precision, result_scale) = *result else { return None };
        let (left_scale, right_scale) = (scale(left)?, scale(right)?);
        let widened = left_scale.max(right_scale);
        let (left_digits, right_digits) = (widened.checked_sub(left_scale)?, widened.checked_sub(right_scale)?);
        let multiplies = *self.general.op() == Operator::Multiply;
        let expected = if multiplies { left_scale.checked_add(right_scale)? } else { widened };
        if expected != result_scale || left_digits.max(right_digits) > SCALE_DIFFERENCE_MAX {
            return None;
        }
        let factor = |digits: i8| 10i128.pow(u32::from(digits.unsigned_abs()));
        let (left_factor, right_factor) = (factor(left_digits), factor(right_digits));
        let same_scale = left_digits == right_digits;
        let (l, r) = (Narrow::of(left)?, Narrow::of(right)?);
        let values = match self.general.op() {
            Operator::Multiply => l.combine(&r, |left, right| i128::from(left) * i128::from(right)),
            Operator::Plus if same_scale => l.combine(&r, |left, right| i128::from(left) + i128::from(right)),
            Operator::Minus if same_scale => l.combine(&r, |left, right| i128::from(left) - i128::from(right)),
            Operator::Plus => l.combine(&r, |l, r| i128::from(l) * left_factor + i128::from(r) * right_factor),
            Operator::Minus => l.combine(&r, |l, r| i128::from(l) * left_factor - i128::from(r) * right_factor),
            _ => None,
        }?;
        let nulls = NullBuffer::union(nulls(left), nulls(right));
        let array = Decimal128Array::try_new(values.into(), nulls).ok()?;
        Some(Arc::new(array.with_precision_and_scale(precision, result_scale).ok()?))
    }
}

impl fmt::Display for DecimalArithmetic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.general.fmt(f)
    }
}

impl PhysicalExpr for DecimalArithmetic {
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
        let left = self.general.left().evaluate(batch)?;
        let right = self.general.right().evaluate(batch)?;
        if let Some(result) = self.narrow(&left, &right, &self.general.data_type(&batch.schema())?) {
            return Ok(ColumnarValue::Array(result));
        }
        match self.general.op() {
            Operator::Plus => apply(&left, &right, add_wrapping),
            Operator::Minus => apply(&left, &right, sub_wrapping),
            _ => apply(&left, &right, mul_wrapping),
        }
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        self.general.children()
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn PhysicalExpr>>) -> Result<Arc<dyn PhysicalExpr>> {
        let (Some(right), Some(left)) = (children.pop(), children.pop()) else {
            return Err(DataFusionError::Internal("arithmetic has two sides".into()));
        };
        Ok(Arc::new(DecimalArithmetic { general: Arc::new(BinaryExpr::new(left, *self.general.op(), right)) }))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.general.fmt_sql(f)
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Field;
    use datafusion::physical_expr::expressions::{Column, Literal};

    use super::*;

    fn decimals(values: Vec<Option<i128>>, precision: u8, scale: i8) -> ArrayRef {
        Arc::new(Decimal128Array::from(values).with_precision_and_scale(precision, scale).unwrap())
    }

    /// Every operation on columns and constants of several scales, narrow and wide values, with and without NULLs, against
    /// DataFusion's expression.
    #[test]
    fn it_is_the_general_arithmetic_in_all_cases() {
        let i64_max = i128::from(i64::MAX);
        let narrow = vec![Some(0), Some(-1), Some(12_345), None, Some(-i64_max - 1), Some(i64_max), Some(99)];
        let wide = vec![Some(1), None, Some(i64_max + 1), Some(-i64_max - 2), Some(10i128.pow(30)), Some(7), Some(0)];
        let huge = vec![Some(10i128.pow(37)); 7];
        for (left, right) in [(&narrow, &narrow), (&narrow, &wide), (&wide, &narrow), (&wide, &wide), (&huge, &wide)] {
            for (left_scale, right_scale) in [(2, 2), (0, 4), (6, 0), (0, 30)] {
                let (l, r) = (decimals(left.clone(), 38, left_scale), decimals(right.clone(), 38, right_scale));
                let schema = Arc::new(Schema::new(vec![
                    Field::new("l", l.data_type().clone(), true),
                    Field::new("r", r.data_type().clone(), true),
                ]));
                let constant = Arc::new(Literal::new(ScalarValue::Decimal128(Some(150), 15, right_scale)));
                let batch = RecordBatch::try_new(Arc::clone(&schema), vec![l, r]).unwrap();
                let (l, r): (Arc<dyn PhysicalExpr>, Arc<dyn PhysicalExpr>) =
                    (Arc::new(Column::new("l", 0)), Arc::new(Column::new("r", 1)));
                for op in [Operator::Plus, Operator::Minus, Operator::Multiply] {
                    for (one, other) in
                        [(&l, &r), (&l, &(Arc::clone(&constant) as _)), (&(Arc::clone(&constant) as _), &l)]
                    {
                        let general: Arc<dyn PhysicalExpr> =
                            Arc::new(BinaryExpr::new(Arc::clone(one), op, Arc::clone(other)));
                        let ours = with_narrow_decimals(Arc::clone(&general), &schema).unwrap();
                        assert!(ours.downcast_ref::<DecimalArithmetic>().is_some());
                        let expected = general.evaluate(&batch).and_then(|value| value.into_array(7));
                        let answer = ours.evaluate(&batch).and_then(|value| value.into_array(7));
                        match (expected, answer) {
                            (Ok(expected), Ok(answer)) => assert_eq!(&answer, &expected, "{general}"),
                            (Err(_), Err(_)) => {}
                            (expected, answer) => panic!("{general}: {expected:?}, but {answer:?}"),
                        }
                    }
                }
            }
        }
    }
}
