//! `x IN (…, CASE …)`: an analyser rule that keeps what is computed of columns from being taken for a constant.
//!
//! DataFusion 55 asks which items of a list are constant by computing them of no rows: what gives a value then, and not an
//! array, is a constant to it. A CASE gives a value there, that of its ELSE or of a branch, and so `'a' IN (CASE WHEN k = 1
//! THEN 'a' END, 'b')` was true of no row, or of each. Such an item is put into a function that always gives an array.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::internal_err;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::config::ConfigOptions;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::expr::{InList, ScalarFunction};
use datafusion::logical_expr::{
    ColumnarValue, Expr, LogicalPlan, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use datafusion::optimizer::AnalyzerRule;

use super::rewriting::{any_node, any_part, map_parts};

const NAME: &str = "each_row";

/// The function.
pub(super) fn each_row() -> ScalarUDF {
    ScalarUDF::from(EachRow { signature: Signature::any(1, Volatility::Immutable) })
}

/// What is in the function, for those that compute what is written.
pub(crate) fn in_each_row(call: &ScalarFunction) -> Option<&Expr> {
    match call.args.as_slice() {
        [item] if call.func.name() == NAME => Some(item),
        _ => None,
    }
}

/// The rule.
#[derive(Debug)]
pub(crate) struct ListedValues {
    each_row: Arc<ScalarUDF>,
}

impl Default for ListedValues {
    fn default() -> Self {
        ListedValues { each_row: Arc::new(each_row()) }
    }
}

impl AnalyzerRule for ListedValues {
    fn name(&self) -> &str {
        "listed_values"
    }

    fn analyze(&self, plan: LogicalPlan, _options: &ConfigOptions) -> DataFusionResult<LogicalPlan> {
        let is_meant = |part: &Expr| matches!(part, Expr::InList(InList { list, .. }) if list.iter().any(is_computed));
        if !any_node(&plan, |node| any_part(node, is_meant))? {
            return Ok(plan);
        }
        let rewritten = plan.transform_up_with_subqueries(|node| {
            map_parts(node, |part| match part {
                Expr::InList(InList { expr, list, negated }) if list.iter().any(is_computed) => {
                    let list = list.into_iter().map(|item| match is_computed(&item) {
                        true => self.each_row.call(vec![item]),
                        false => item,
                    });
                    Ok(Transformed::yes(Expr::InList(InList { expr, list: list.collect(), negated })))
                }
                part => Ok(Transformed::no(part)),
            })
        });
        rewritten.map(|plan| plan.data)
    }
}

/// Whether an item is computed of columns by more than operators, which give arrays of arrays.
fn is_computed(item: &Expr) -> bool {
    let done = matches!(item, Expr::ScalarFunction(call) if in_each_row(call).is_some());
    let computes = |part: &Expr| Ok(matches!(part, Expr::Case(_) | Expr::ScalarFunction(_)));
    !done && (item.any_column_refs() || item.contains_outer()) && item.exists(computes).unwrap_or(true)
}

/// Gives its argument as an array.
#[derive(Debug, PartialEq, Eq, Hash)]
struct EachRow {
    signature: Signature,
}

impl ScalarUDFImpl for EachRow {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, argument_types: &[DataType]) -> DataFusionResult<DataType> {
        Ok(argument_types.first().cloned().unwrap_or(DataType::Null))
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs) -> DataFusionResult<FieldRef> {
        match arguments.arg_fields {
            [field] => Ok(Arc::new(field.as_ref().clone().with_name(NAME))),
            _ => internal_err!("{NAME}() takes one argument"),
        }
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        match arguments.args.as_slice() {
            [value] => Ok(ColumnarValue::Array(value.to_array(arguments.number_rows)?)),
            _ => internal_err!("{NAME}() takes one argument"),
        }
    }
}
