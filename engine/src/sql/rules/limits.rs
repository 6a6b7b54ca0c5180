//! `FETCH FIRST n ROWS WITH TIES` and `LIMIT (SELECT …)`: how many rows there are is known only while the query runs.
//!
//! DataFusion's LIMIT takes constants. This analyser rule numbers the rows in the query's order, and picks by number:
//!
//! ```text
//! Limit: with_ties(3)                 Sort: a
//!   Sort: a                   ──►       Filter: rank <= 3
//!     TableScan: t                        Window: rank() OVER (ORDER BY a)
//!                                           TableScan: t
//! ```
//!
//! The syntax check writes `FETCH … WITH TIES` as a LIMIT of [`with_ties`](WITH_TIES).

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::internal_err;
use datafusion::common::tree_node::{Transformed, TreeNode};
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
    let mut condition = lit(true);
    if let Some(skip) = &wanted.skip {
        condition = condition.and(skip.clone().is_null().or(number.clone().gt(skip.clone())));
    }
    if let Some(fetch) = &wanted.fetch {
        let place = if wanted.has_ties { rank } else { number };
        let last = match &wanted.skip {
            Some(skip) => {
                fetch.clone() + datafusion::functions::core::expr_fn::coalesce(vec![skip.clone(), lit(0_i64)])
            }
            None => fetch.clone(),
        };
        condition = condition.and(fetch.clone().is_null().or(place.lt_eq(last)));
    }
    LogicalPlanBuilder::from(plan).window(windows)?.filter(condition)?.project(columns)?.build()
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
