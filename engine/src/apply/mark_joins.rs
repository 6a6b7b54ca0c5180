//! Mark joins: of each row of one side they tell whether the other side has a fitting one.
//!
//! [`mark`] makes them of EXISTS and IN outside of WHERE. [`give_columns`] looks after those whose subquery has no columns left.
//! The mark is called by the relation of the subquery's first column, and so DataFusion's `optimize_projections` keeps that
//! column. Where there is none, because a join in the subquery was found to be without effect, it panics. So there is one:
//!
//! ```text
//!   LeftMark Join: b, (SELECT … FROM c) AS s   []   ⇒   LeftMark Join: b, Projection: 1 AS s.row
//! ```

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, internal_datafusion_err, internal_err};
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, Expr, Filter, Join, JoinType, LogicalPlan, LogicalPlanBuilder, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility, lit,
};
use datafusion::optimizer::decorrelate_predicate_subquery::DecorrelatePredicateSubquery;
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};

use super::node::fresh_name;
use super::rule::{Moment, is_due, replace};
use super::scope::subquery_of;

/// The side of a mark join that only its mark tells of.
fn tested(join: &Join) -> Option<&Arc<LogicalPlan>> {
    match join.join_type {
        JoinType::LeftMark => Some(&join.right),
        JoinType::RightMark => Some(&join.left),
        _ => None,
    }
}

/// Gives each such side a column.
pub(super) fn give_columns(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let lacks = |join: &Join| tested(join).is_some_and(|side| side.schema().fields().is_empty());
    if !plan.exists(|node| Ok(matches!(node, LogicalPlan::Join(join) if lacks(join))))? {
        return Ok(Transformed::no(plan));
    }
    plan.transform_up(|node| match node {
        LogicalPlan::Join(mut join) if lacks(&join) => {
            let side = if join.join_type == JoinType::LeftMark { &mut join.right } else { &mut join.left };
            let relation = match side.as_ref() {
                LogicalPlan::SubqueryAlias(alias) => Some(alias.alias.clone()),
                _ => None,
            };
            let row = lit(1).alias_qualified(relation, fresh_name());
            *side = Arc::new(LogicalPlanBuilder::from(side.as_ref().clone()).project([row])?.build()?);
            // The mark goes by its name again.
            Ok(Transformed::yes(LogicalPlan::Join(join).recompute_schema()?))
        }
        node => Ok(Transformed::no(node)),
    })
}

/// EXISTS and IN outside of WHERE, as the marks of mark joins. DataFusion makes those of conditions only, so it is given
/// one; of what it makes of that the joins are taken, and the columns that have the marks.
pub(super) fn mark(node: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
    let place = matches!(
        node,
        LogicalPlan::Projection(_) | LogicalPlan::Aggregate(_) | LogicalPlan::Window(_) | LogicalPlan::Sort(_)
    );
    let [input] = node.inputs()[..] else { return Ok(Transformed::no(node)) };
    if !place {
        return Ok(Transformed::no(node));
    }
    let input = input.clone();
    let mut tested: Vec<Expr> = Vec::new();
    node.apply_expressions(|expr| {
        expr.apply(|expr| {
            let joins = match expr {
                Expr::Exists(exists) => !exists.subquery.outer_ref_columns.is_empty(),
                Expr::InSubquery(_) => true,
                _ => false,
            };
            if joins && !tested.contains(expr) && is_due(expr, &node, &input, Moment::After)? {
                tested.push(expr.clone());
            }
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    if tested.is_empty() {
        return Ok(Transformed::no(node));
    }
    let marks = Arc::new(ScalarUDF::from(Marks { signature: Signature::variadic_any(Volatility::Volatile) }));
    let condition = Filter::try_new(marks.call(tested.clone()), Arc::new(input.clone()))?;
    let rewritten = DecorrelatePredicateSubquery::new().rewrite(LogicalPlan::Filter(condition), config)?.data;
    let filter = match rewritten {
        LogicalPlan::Projection(projection) => Arc::unwrap_or_clone(projection.input),
        plan => plan,
    };
    let LogicalPlan::Filter(Filter { predicate: Expr::ScalarFunction(call), input: joined, .. }) = filter else {
        return Err(internal_datafusion_err!("a condition was given to the rule for subqueries"));
    };
    // A mark may be negated: then a projection makes a column of it.
    let (mut found, mut computed) = (Vec::new(), Vec::new());
    for (expr, mark) in tested.into_iter().zip(call.args) {
        if subquery_of(&mark).is_some() {
            continue;
        }
        let name = fresh_name();
        computed.push(mark.alias(&name));
        found.push((expr, Column::new_unqualified(name)));
    }
    if found.is_empty() {
        return Ok(Transformed::no(node));
    }
    let columns = input.schema().columns().into_iter().map(Expr::Column).chain(computed);
    let below = LogicalPlanBuilder::from(Arc::unwrap_or_clone(joined)).project(columns)?.build()?;
    replace(node, &input, below, &found).map(Transformed::yes)
}

/// Holds the subqueries while they become marks.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Marks {
    signature: Signature,
}

impl ScalarUDFImpl for Marks {
    fn name(&self) -> &str {
        "marks"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _argument_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, _arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        internal_err!("marks are taken out of the plan before it runs")
    }
}
