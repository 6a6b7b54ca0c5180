//! From a routed statement to a [`Program`], or to the knowledge that there is none.
//!
//! Errors of planning are not reported from here: without a program the ordinary path plans the statement again and says
//! what is wrong.

mod change;
mod query;

use datafusion::common::tree_node::Transformed;
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder, Values};
use datafusion::optimizer::OptimizerConfig;

use super::datum::Type;
use super::expression::typed_expr;
use super::program::{Body, Origin, Parameter, Passes, Program};
use crate::Result;
use crate::sql::context::StatementContext;
use crate::sql::route::{Routed, Write};
use crate::sql::rules::rewriting::map_exprs;
use crate::sql::rules::session_zone::is_utc;

/// Compiles a statement for parameters of these types.
pub(crate) fn compile(context: &StatementContext, routed: Routed, types: &[Type]) -> Option<Program> {
    let mut compiler = Compiler { context, types, parameters: None };
    let body = match routed {
        Routed::Query(query) => Body::Select(Box::new(compiler.query(*query)?)),
        Routed::SelectAndLock(query) => Body::Select(Box::new(compiler.locking_query(query)?)),
        Routed::Write(write) => match *write {
            Write::Insert(insert) => Body::Insert(Box::new(compiler.insert(insert)?)),
            Write::Update(update) => Body::Update(Box::new(compiler.update(update)?)),
            Write::Delete(delete) => Body::Delete(Box::new(compiler.delete(delete)?)),
            _ => return None,
        },
        _ => return None,
    };
    let origin = Origin::of(context);
    let parameters = match compiler.parameters {
        Some(parameters) => parameters,
        None => types.iter().map(|given| Parameter { given: given.clone(), cast: None }).collect(),
    };
    Some(Program { origin, parameters, body, passes: Passes::default() })
}

struct Compiler<'a> {
    context: &'a StatementContext,
    types: &'a [Type],
    /// Known from the first plan on; all plans of a statement must want the same.
    parameters: Option<Vec<Parameter>>,
}

impl Compiler<'_> {
    /// A plan with the parameters' types known, after the analyser.
    fn analyzed(&mut self, plan: LogicalPlan) -> Option<LogicalPlan> {
        let parameters = self.parameters_of(&plan);
        if *self.parameters.get_or_insert_with(|| parameters.clone()) != parameters {
            return None;
        }
        // A text that is bound is read by the clock of UTC.
        let reads_clock = |parameter: &Parameter| matches!(parameter.cast, Some(Type::Timestamp(_, Some(_))));
        if parameters.iter().any(reads_clock) && !is_utc(self.context.zone()) {
            return None;
        }
        let types: Vec<Type> =
            parameters.into_iter().map(|parameter| parameter.cast.unwrap_or(parameter.given)).collect();
        let plan = typed(plan, &types).ok()?;
        let options = OptimizerConfig::options(self.context);
        self.context.shared().analyzer().execute_and_check(plan, &options, |_, _| {}).ok()
    }

    /// What the parameters are, by the rule of [`crate::sql::plan::bind`].
    fn parameters_of(&self, plan: &LogicalPlan) -> Vec<Parameter> {
        let expected = plan.get_parameter_fields().unwrap_or_default();
        let parameter = |(index, given): (usize, &Type)| {
            let wanted = expected.get(&format!("${}", index + 1)).and_then(Option::as_ref);
            let cast = wanted.map(|field| field.data_type()).filter(|wanted| given.is_string() && !wanted.is_string());
            Parameter { given: given.clone(), cast: cast.cloned() }
        };
        self.types.iter().enumerate().map(parameter).collect()
    }
}

/// Gives the placeholders in a plan their types, and the plan's nodes the schemas that follow.
fn typed(plan: LogicalPlan, types: &[Type]) -> Result<LogicalPlan> {
    let typed = plan.transform_up_with_subqueries(|node| {
        let node = map_exprs(node, |expr| typed_expr(expr, types))?;
        node.map_data(|node| match node {
            LogicalPlan::Values(Values { values, schema: _ }) => LogicalPlanBuilder::values(values)?.build(),
            other => other.recompute_schema(),
        })
        .map(|node| Transformed::yes(node.data))
    })?;
    Ok(typed.data)
}
