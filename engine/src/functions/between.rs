//! `x BETWEEN low AND high` where `x` must not be named twice.
//!
//! DataFusion's optimiser writes it as `x >= low AND x <= high`, which scans can use. Of `random()` that is two numbers, and of
//! a large expression with others of that kind in it a much larger one.

use std::sync::{Arc, LazyLock};

use arrow::array::ArrayRef;
use arrow::compute::and_kleene;
use arrow::compute::kernels::cmp::{gt_eq, lt_eq};
use arrow::datatypes::DataType;
use datafusion::logical_expr::{Expr, ScalarUDF};

use super::by_columns::{ByColumns, Nulls};
use crate::{Error, Result};

static BETWEEN: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| {
    let between = ByColumns {
        name: "is_between",
        takes: |types| (types.len() == 3).then(|| types.to_vec()),
        gives: |_| DataType::Boolean,
        nulls: Nulls::IfAnArgumentIs,
        compute: are_between,
    };
    between.function()
});

/// Whether a value is between others, all being of one type, which is not nested.
pub(crate) fn is_between(value: Expr, low: Expr, high: Expr) -> Expr {
    BETWEEN.call(vec![value, low, high])
}

fn are_between(columns: &[ArrayRef]) -> Result<ArrayRef> {
    let [value, low, high] = columns else { return Err(Error::internal("BETWEEN takes three operands")) };
    Ok(Arc::new(and_kleene(&gt_eq(value, low)?, &lt_eq(value, high)?)?))
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, BooleanArray, Int32Array};

    use super::*;

    #[test]
    fn one_bound_may_be_enough_to_know_that_it_is_not() {
        let of = |values: Vec<Option<i32>>| -> ArrayRef { Arc::new(Int32Array::from(values)) };
        let values = of(vec![Some(1), Some(2), Some(3), Some(4), None, Some(4)]);
        let low = of(vec![Some(2), Some(2), Some(2), Some(2), Some(2), None]);
        let high = of(vec![Some(3), Some(3), Some(3), Some(3), Some(3), Some(3)]);
        let found = are_between(&[values, low, high]).unwrap();
        let expected = BooleanArray::from(vec![Some(false), Some(true), Some(true), Some(false), None, Some(false)]);
        assert_eq!(found.as_boolean(), &expected);
    }
}
