//! `IS NULL` and `IS NOT NULL` of rows: an analyser rule that runs before type coercion.
//!
//! In SQL a row is NULL if all its fields are, and not NULL if none of them is; so a row with some NULLs is neither. To
//! DataFusion a struct of NULLs is a value like any other. What is written out as a row is taken apart before it is
//! planned ([`row_values`](crate::sql::tree::row_values)); here it is the rows that are values: variables and results of routines,
//! columns of subqueries. The fields of a row that are rows are looked at as such, not at what is in them.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, StructArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::DataType;
use datafusion::common::tree_node::Transformed;
use datafusion::common::utils::take_function_args;
use datafusion::config::ConfigOptions;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, LogicalPlan, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use datafusion::optimizer::AnalyzerRule;

use super::rewriting::{any_node, any_part, map_parts};
use crate::Error;

static IS_NULL: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Arc::new(ScalarUDF::from(RowTest::new(true))));
static IS_NOT_NULL: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Arc::new(ScalarUDF::from(RowTest::new(false))));

/// The rule.
#[derive(Debug)]
pub(crate) struct NullRows;

impl AnalyzerRule for NullRows {
    fn name(&self) -> &str {
        "null_rows"
    }

    fn analyze(&self, plan: LogicalPlan, _options: &ConfigOptions) -> DataFusionResult<LogicalPlan> {
        if !any_node(&plan, asks_for_null)? {
            return Ok(plan);
        }
        let rewritten = plan.transform_up_with_subqueries(|node| {
            if !asks_for_null(&node)? {
                return Ok(Transformed::no(node));
            }
            let schema = merge_schema(&node.inputs());
            let is_row = |expr: &Expr| matches!(expr.get_type(&schema), Ok(DataType::Struct(_)));
            map_parts(node, |part| {
                Ok(match part {
                    Expr::IsNull(row) if is_row(&row) => Transformed::yes(IS_NULL.call(vec![*row])),
                    Expr::IsNotNull(row) if is_row(&row) => Transformed::yes(IS_NOT_NULL.call(vec![*row])),
                    other => Transformed::no(other),
                })
            })
        });
        rewritten.map(|plan| plan.data)
    }
}

/// Most nodes do not.
fn asks_for_null(node: &LogicalPlan) -> DataFusionResult<bool> {
    any_part(node, |part| matches!(part, Expr::IsNull(_) | Expr::IsNotNull(_)))
}

/// `row_is_null(row)`, `row_is_not_null(row)`
#[derive(Debug, PartialEq, Eq, Hash)]
struct RowTest {
    signature: Signature,
    null: bool,
}

impl RowTest {
    fn new(null: bool) -> Self {
        RowTest { signature: Signature::any(1, Volatility::Immutable), null }
    }

    fn test(&self, rows: &StructArray) -> BooleanArray {
        let fields: Vec<Option<NullBuffer>> = rows.columns().iter().map(|field| field.logical_nulls()).collect();
        let test = |row: usize| {
            let mut nulls =
                fields.iter().map(|nulls| nulls.as_ref().is_some_and(|nulls: &NullBuffer| nulls.is_null(row)));
            Some(match self.null {
                true => rows.is_null(row) || nulls.all(|null| null),
                false => rows.is_valid(row) && !nulls.any(|null| null),
            })
        };
        (0..rows.len()).map(test).collect()
    }
}

impl ScalarUDFImpl for RowTest {
    fn name(&self) -> &str {
        match self.null {
            true => "row_is_null",
            false => "row_is_not_null",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _argument_types: &[DataType]) -> DataFusionResult<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let count = arguments.number_rows;
        let [rows] = take_function_args(self.name(), arguments.args)?;
        let rows = rows.to_array(count)?;
        let rows = rows.as_struct_opt().ok_or_else(|| Error::internal("a row that is none"))?;
        let tested: ArrayRef = Arc::new(self.test(rows));
        Ok(ColumnarValue::Array(tested))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int32Array, NullArray};
    use arrow::datatypes::{Field, Fields};

    use super::*;

    #[test]
    fn a_row_with_some_nulls_is_neither() {
        let fields = Fields::from(vec![Field::new("a", DataType::Int32, true), Field::new("b", DataType::Int32, true)]);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int32Array::from(vec![Some(1), Some(1), None, Some(1)])),
            Arc::new(Int32Array::from(vec![Some(2), None, None, Some(2)])),
        ];
        let valid = NullBuffer::from(vec![true, true, true, false]);
        let rows = StructArray::new(fields, columns, Some(valid));
        let tested = |null| RowTest::new(null).test(&rows).iter().flatten().collect::<Vec<bool>>();
        assert_eq!(tested(true), [false, false, true, true]);
        assert_eq!(tested(false), [true, false, false, false]);
    }

    #[test]
    fn nulls_of_no_type_are_nulls() {
        let fields = Fields::from(vec![Field::new("a", DataType::Null, true)]);
        let rows = StructArray::new(fields, vec![Arc::new(NullArray::new(1))], None);
        assert!(RowTest::new(true).test(&rows).value(0));
        assert!(!RowTest::new(false).test(&rows).value(0));
    }
}
