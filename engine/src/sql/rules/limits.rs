//! `FETCH FIRST n ROWS WITH TIES` and `LIMIT (SELECT …)`: how many rows there are is known only while the query runs.
//!
//! DataFusion's LIMIT takes constants. This analyser rule numbers the rows in the query's order, and picks by number:
//!
//! ```text
//! Limit: with_ties(3)                 Sort: a
//!   Sort: a                   ──►       Filter: picked(…, rank, …, 3)
//!     TableScan: t                        Window: rank() OVER (ORDER BY a)
//!                                           TableScan: t
//! ```
//!
//! The condition is a function, for it is about subqueries: `picked(number, rank, OFFSET, LIMIT)`.
//!
//! The syntax check writes `FETCH … WITH TIES` as a LIMIT of [`with_ties`](WITH_TIES).

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array};
use arrow::datatypes::{DataType, Int64Type};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{ScalarValue, internal_err};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::functions_window::expr_fn::{rank, row_number};
use datafusion::logical_expr::expr::{ScalarFunction, Sort as SortExpr};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprFunctionExt, Limit, LogicalPlan, LogicalPlanBuilder, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Sort, Volatility, cast, col, lit,
};
use datafusion::optimizer::AnalyzerRule;

use crate::Error;
use crate::functions::by_columns::{ByColumns, Nulls};

/// What marks the LIMIT of a FETCH FIRST … WITH TIES.
pub(crate) const WITH_TIES: &str = "with_ties";

/// The number and the rank of a row, while rows are picked.
const NUMBER: &str = "__rustydb_number";
const RANK: &str = "__rustydb_rank";

/// The rule.
#[derive(Debug)]
pub(crate) struct ComputedLimits;

impl AnalyzerRule for ComputedLimits {
    fn name(&self) -> &str {
        "computed_limits"
    }

    fn analyze(&self, plan: LogicalPlan, _options: &ConfigOptions) -> Result<LogicalPlan> {
        let rewritten = plan.transform_up_with_subqueries(|node| match node {
            LogicalPlan::Limit(limit) if is_computed(&limit)? => rewrite(limit).map(Transformed::yes),
            node => Ok(Transformed::no(node)),
        });
        rewritten.map(|plan| plan.data)
    }
}

fn is_computed(limit: &Limit) -> Result<bool> {
    let computed = |expr: &Option<Box<Expr>>| match expr {
        Some(expr) => expr.exists(|expr| Ok(matches!(expr, Expr::ScalarSubquery(_)) || ties(expr).is_some())),
        None => Ok(false),
    };
    Ok(computed(&limit.fetch)? || computed(&limit.skip)?)
}

/// The number of a `with_ties(number)`, behind casts.
fn ties(expr: &Expr) -> Option<Expr> {
    match expr {
        Expr::ScalarFunction(ScalarFunction { func, args }) if func.name() == WITH_TIES => args.first().cloned(),
        Expr::Cast(cast) => ties(&cast.expr),
        _ => None,
    }
}

fn rewrite(limit: Limit) -> Result<LogicalPlan> {
    let Limit { skip, fetch, input } = limit;
    let with_ties = fetch.as_deref().and_then(ties);
    let has_ties = with_ties.is_some();
    let number = |expr: Expr| cast(expr, DataType::Int64);
    let fetch = with_ties.or(fetch.map(|fetch| *fetch)).map(number);
    let skip = skip.map(|skip| number(*skip));
    pick(Arc::unwrap_or_clone(input), &Pick { skip, fetch, has_ties })
}

struct Pick {
    skip: Option<Expr>,
    fetch: Option<Expr>,
    has_ties: bool,
}

/// Picks rows below the columns that a query shows, where its order is.
fn pick(plan: LogicalPlan, wanted: &Pick) -> Result<LogicalPlan> {
    let is_sorted_below = |plan: &LogicalPlan| {
        let mut plan = plan;
        loop {
            plan = match plan {
                LogicalPlan::Projection(node) => &node.input,
                LogicalPlan::SubqueryAlias(node) => &node.input,
                plan => return matches!(plan, LogicalPlan::Sort(_)),
            };
        }
    };
    match plan {
        LogicalPlan::Sort(Sort { expr, input, fetch: None }) => {
            let picked = numbered(Arc::unwrap_or_clone(input), expr.clone(), wanted)?;
            LogicalPlanBuilder::from(picked).sort(expr)?.build()
        }
        plan @ (LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_)) if is_sorted_below(&plan) => {
            Ok(plan.map_children(|child| pick(child, wanted).map(Transformed::yes))?.data)
        }
        plan if wanted.has_ties => {
            let _ = plan;
            Err(Error::syntax("WITH TIES cannot be specified without ORDER BY clause").into())
        }
        plan => numbered(plan, Vec::new(), wanted),
    }
}

fn numbered(plan: LogicalPlan, order: Vec<SortExpr>, wanted: &Pick) -> Result<LogicalPlan> {
    let columns: Vec<Expr> = plan.schema().columns().into_iter().map(Expr::Column).collect();
    let over = |function: Expr, name: &str| match order.is_empty() {
        true => Ok(function.alias(name)),
        false => function.order_by(order.clone()).build().map(|function| function.alias(name)),
    };
    let windows = vec![over(row_number(), NUMBER)?, over(rank(), RANK)?];
    let (number, rank) = (cast(col(NUMBER), DataType::Int64), cast(col(RANK), DataType::Int64));
    let place = if wanted.has_ties { rank } else { number.clone() };
    let all = || lit(ScalarValue::Int64(None));
    let (skip, fetch) = (wanted.skip.clone().unwrap_or_else(all), wanted.fetch.clone().unwrap_or_else(all));
    let picked = PICKED.call(vec![number, place, skip, fetch]);
    LogicalPlanBuilder::from(plan).window(windows)?.filter(picked)?.project(columns)?.build()
}

/// Whether a row is picked: by its number, its place among those that are picked, and by OFFSET and LIMIT, which are NULL
/// where there is none. They may be subqueries, and so are taken once.
static PICKED: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| {
    let picked = ByColumns {
        name: "picked",
        takes: |types| (types.len() == 4).then(|| vec![DataType::Int64; 4]),
        gives: |_| DataType::Boolean,
        nulls: Nulls::Anywhere,
        compute: are_picked,
    };
    picked.function()
});

fn are_picked(columns: &[ArrayRef]) -> crate::Result<ArrayRef> {
    let [number, place, skip, fetch] = columns else { return Err(Error::internal("four arguments were expected")) };
    let numbers = |column: &ArrayRef| column.as_primitive::<Int64Type>().clone();
    let (number, place, skip, fetch) = (numbers(number), numbers(place), numbers(skip), numbers(fetch));
    let picked: BooleanArray = (0..number.len())
        .map(|row| {
            let at = |numbers: &Int64Array| numbers.is_valid(row).then(|| numbers.value(row));
            let (skip, fetch) = (at(&skip), at(&fetch));
            let last = fetch.map(|fetch| fetch.saturating_add(skip.unwrap_or(0)));
            Some(number.value(row) > skip.unwrap_or(0) && last.is_none_or(|last| place.value(row) <= last))
        })
        .collect();
    Ok(Arc::new(picked))
}

/// `with_ties(number)`; no plan that runs has it.
pub(crate) fn function() -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::from(WithTies { signature: Signature::any(1, Volatility::Volatile) }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct WithTies {
    signature: Signature,
}

impl ScalarUDFImpl for WithTies {
    fn name(&self) -> &str {
        WITH_TIES
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _argument_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int64)
    }

    fn invoke_with_args(&self, _arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        internal_err!("WITH TIES is taken out of a plan before it runs")
    }
}
