//! Syntax tree → logical plan → optimised plan → operators, for anything that reads.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::catalog::Session;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, ParamValues, ScalarValue, ToDFSchema};
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::TaskContext;
use datafusion::logical_expr::expr::Placeholder;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{
    Analyze, Explain, ExplainFormat, Expr, LogicalPlan, PlanType, StringifiedPlan, ToStringifiedPlan, cast,
};
use datafusion::physical_plan::analyze::AnalyzeExec;
use datafusion::physical_plan::execution_plan::replace_children_if_necessary;
use datafusion::physical_plan::explain::ExplainExec;
use datafusion::physical_plan::{ExecutionPlan, displayable};
use datafusion::sql::planner::{ParserOptions, SqlToRel};
use datafusion::sql::sqlparser::ast::{Query, Statement};
use rustydb_storage::TableId;

use super::assigned::assigned;
use super::check::check_queries_naming;
use super::context::StatementContext;
use super::names::shown;
use super::plan_cache::{PlanCache, fresh_copy};
use super::size::check_planned_size;
use super::widths::{check_lists, check_result};
use crate::apply::ApplyExec;
use crate::common_rows::{names_of_ctes, share_rows};
use crate::functions::input::{read_texts, reads};
use crate::functions::printed::prints;
use crate::optimizer::{first_late_rule, with_estimates};
use crate::scan::ColumnScanExec;
use crate::sql::rules::interval::durations_as_intervals;
use crate::sql::rules::sorted_inputs::{inherit_orders, takes_orders};
use crate::sql::tree::cast_keys::tell_casts_of_keys;
use crate::sql::tree::cte_names::rename_hiding;
use crate::sql::tree::frame_bounds::compute_frame_bounds;
use crate::sql::tree::natural_joins::resolve_columns;
use crate::sql::tree::recursive_types::{cast_first_terms, is_recursive};
use crate::sql::tree::select_lists::{Naming, names_beside_stars, ordered_by_inputs};
use crate::sql::tree::value_columns::check_value_columns;
use crate::{Error, Result, error::sqlstate};

/// A query ready to run: what `RecordStream` and the writers take.
#[derive(Debug)]
pub(crate) struct ReadyPlan {
    pub(crate) plan: Arc<dyn ExecutionPlan>,
    pub(crate) context: Arc<TaskContext>,
}

impl ReadyPlan {
    /// A plan that was made in `context` and keeps of its tables those it reads ([`crate::scan::ExecutionView`]).
    fn new(plan: Arc<dyn ExecutionPlan>, context: &StatementContext) -> Result<Self> {
        let context = context.clone().reading_only(&tables_of(&plan)?)?.with_common_rows().task_ctx();
        Ok(ReadyPlan { plan, context })
    }

    /// The columns, by the names clients see.
    pub(crate) fn schema(&self) -> SchemaRef {
        shown(&self.plan.schema())
    }
}

/// The tables that the operators of a plan read.
fn tables_of(plan: &Arc<dyn ExecutionPlan>) -> Result<Vec<TableId>> {
    let mut tables = HashSet::new();
    plan.apply(|operator| {
        if let Some(scan) = operator.downcast_ref::<ColumnScanExec>() {
            tables.insert(scan.table().id);
        }
        if let Some(apply) = operator.downcast_ref::<ApplyExec>() {
            tables.extend(apply.tables().iter().map(|table| table.id));
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(tables.into_iter().collect())
}

/// What EXPLAIN was asked for.
#[derive(Debug, Clone)]
pub(crate) struct ExplainOptions {
    pub(crate) analyze: bool,
    pub(crate) verbose: bool,
    pub(crate) format: ExplainFormat,
}

/// How SQL is read: decimal literals are exact, places in the text are kept for error messages.
fn parser_options() -> ParserOptions {
    ParserOptions::new().with_collect_spans(true).with_parse_float_as_decimal(true)
}

/// The planner of one statement's syntax.
pub(crate) fn planner(context: &StatementContext) -> SqlToRel<'_, StatementContext> {
    SqlToRel::new_with_options(context, parser_options())
}

/// Plans a query after checking it; parameters stay placeholders.
pub(crate) fn plan_query(context: &StatementContext, query: Query) -> Result<LogicalPlan> {
    check_lists(&query)?;
    let plan = plan_any_width(context, query)?;
    check_result(&plan)?;
    Ok(plan)
}

/// The same for a query of our own, which may return more columns than others: a row as it was and as it becomes, for example.
pub(crate) fn plan_any_width(context: &StatementContext, mut query: Query) -> Result<LogicalPlan> {
    rename_hiding(&mut query);
    check_value_columns(context, &query)?;
    resolve_columns(context, &mut query);
    tell_casts_of_keys(context, &mut query);
    compute_frame_bounds(context, &mut query)?;
    if let Some(query) = ordered_by_inputs(&query)
        && let Ok(plan) = plan_query_naming(context, query, Naming::AsWritten)
    {
        return Ok(plan);
    }
    let again = names_beside_stars(&query).then(|| query.clone());
    match (plan_query_naming(context, query, Naming::AsWritten), again) {
        (Err(error), Some(query))
            if matches!(
                error.sqlstate(),
                sqlstate::DUPLICATE_COLUMN | sqlstate::DUPLICATE_ALIAS | sqlstate::AMBIGUOUS_COLUMN
            ) =>
        {
            plan_query_naming(context, query, Naming::MarkedBesideStars).map_err(|_| error)
        }
        (planned, _) => planned,
    }
}

fn plan_query_naming(context: &StatementContext, mut query: Query, naming: Naming) -> Result<LogicalPlan> {
    check_queries_naming(&mut query, naming)?;
    let ctes = names_of_ctes(&query);
    let keeping_orders = takes_orders(&query).then(|| context.clone().keeping_orders());
    let context = keeping_orders.as_ref().unwrap_or(context);
    let planned = |query: Query| {
        let statement = Statement::Query(Box::new(query));
        planner(context).sql_statement_to_plan_with_context(statement, &mut context.planner_context())
    };
    let again = is_recursive(&query).then(|| query.clone());
    let mut plan = planned(query)?;
    if let Some(mut query) = again
        && cast_first_terms(context, &plan, &mut query)?
    {
        plan = planned(query)?;
    }
    let mut plan = share_rows(plan, &ctes)?;
    if context.names_views() {
        check_planned_size(&plan)?;
    }
    if keeping_orders.is_some() {
        plan = inherit_orders(plan)?;
    }
    Ok(durations_as_intervals(plan)?)
}

/// Puts `values` in the places of `$1 …`.
pub(crate) fn bind(plan: LogicalPlan, values: &[ScalarValue]) -> Result<LogicalPlan> {
    if values.is_empty() {
        return Ok(plan);
    }
    // A parameter that is compared with columns of two types has none of its own; the planner coerces its value.
    let fields = plan.get_parameter_fields().unwrap_or_default();
    let mut bound = Vec::with_capacity(values.len());
    let (mut times, mut in_values) = (HashMap::new(), HashMap::new());
    for (index, value) in values.iter().enumerate() {
        let name = format!("${}", index + 1);
        let expected = fields.get(&name).and_then(Option::as_ref);
        let value = match expected {
            Some(field) if is_text(value) && is_time(field.data_type()) => {
                let time = time_in(value, field.data_type())
                    .map_err(|error| error.map_message(|text| format!("parameter {name}: {text}")))?;
                // Which instant it is the session's clock knows, and so the rule that knows that.
                match field.data_type() {
                    DataType::Timestamp(_, Some(_)) => {
                        times.insert(name, cast(Expr::Literal(value.clone(), None), field.data_type().clone()));
                        value.clone()
                    }
                    _ => time,
                }
            }
            // As an item of VALUES for the rows of a table it is assigned to a column, which may be of another type.
            Some(field) if is_assigned_by_rules(&value.data_type(), field.data_type()) => {
                in_values.insert(name, cast(Expr::Literal(value.clone(), None), field.data_type().clone()));
                value.clone()
            }
            // Text stands for a value of any type, as an untyped literal does. Numbers are left to the planner's
            // coercion, which knows how to compare an integer column with a fraction.
            Some(field) if is_text(value) && !field.data_type().is_string() => read(value, field.data_type())
                .map_err(|error| error.map_message(|text| format!("parameter ${}: {text}", index + 1)))?,
            _ => value.clone(),
        };
        bound.push(value);
    }
    Ok(with_expressions(plan, &times, &in_values)?.with_param_values(ParamValues::from(bound))?)
}

/// Puts expressions in the places of some parameters, and of some where they are items of VALUES.
fn with_expressions(
    plan: LogicalPlan,
    expressions: &HashMap<String, Expr>,
    in_values: &HashMap<String, Expr>,
) -> Result<LogicalPlan> {
    if expressions.is_empty() && in_values.is_empty() {
        return Ok(plan);
    }
    let replaced = plan.transform_up_with_subqueries(|node| {
        let names = NamePreserver::new(&node);
        let is_values = matches!(node, LogicalPlan::Values(_));
        node.map_expressions(|expr| {
            if is_values
                && let Expr::Placeholder(Placeholder { id, .. }) = &expr
                && let Some(expression) = in_values.get(id)
            {
                return Ok(Transformed::yes(expression.clone()));
            }
            let name = names.save(&expr);
            let replaced = expr.transform_up(|part| {
                let expression = match &part {
                    Expr::Placeholder(Placeholder { id, .. }) => expressions.get(id).cloned(),
                    _ => None,
                };
                Ok(match expression {
                    Some(expression) => Transformed::yes(expression),
                    None => Transformed::no(part),
                })
            })?;
            Ok(replaced.update_data(|expr| name.restore(expr)))
        })
    })?;
    Ok(replaced.data)
}

/// Whether the cast of one type to another is more than Arrow's: PostgreSQL's text, or a matter of the session's clock.
fn is_assigned_by_rules(from: &DataType, to: &DataType) -> bool {
    let prints_as_text = to.is_string() && prints(from) && !from.is_binary();
    prints_as_text || (from != to && is_time(to) && matches!(from, DataType::Timestamp(..) | DataType::Date32))
}

/// The time that a text says, by the clock of UTC if that matters.
fn time_in(text: &ScalarValue, data_type: &DataType) -> Result<ScalarValue> {
    match assigned(&text.to_array()?, data_type, "UTC") {
        Some(times) => Ok(ScalarValue::try_from_array(&times?, 0)?),
        None => Ok(text.cast_to(data_type)?),
    }
}

/// What a text says, as a cast reads it.
fn read(text: &ScalarValue, data_type: &DataType) -> Result<ScalarValue> {
    match reads(data_type) {
        true => Ok(ScalarValue::try_from_array(&read_texts(&text.to_array()?, data_type)?, 0)?),
        false => Ok(text.cast_to(data_type)?),
    }
}

fn is_time(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Timestamp(..) | DataType::Date32 | DataType::Time64(_))
}

fn is_text(value: &ScalarValue) -> bool {
    matches!(value, ScalarValue::Utf8(Some(_)) | ScalarValue::LargeUtf8(Some(_)) | ScalarValue::Utf8View(Some(_)))
}

/// Runs analyser and optimiser. For EXPLAIN the steps are written into the plan, as DataFusion's own session does.
pub(crate) fn optimize(context: &StatementContext, plan: LogicalPlan) -> DataFusionResult<LogicalPlan> {
    let LogicalPlan::Explain(explain) = plan else {
        return optimize_with(context, plan, |_, _| {});
    };
    let Explain {
        verbose,
        explain_format,
        plan,
        mut stringified_plans,
        schema,
        logical_optimization_succeeded: _,
        show_statistics,
    } = explain;
    let result = optimize_with(context, plan.as_ref().clone(), |step, plan| {
        stringified_plans.push(plan.to_stringified(step));
    });
    let (plan, logical_optimization_succeeded) = match result {
        Ok(optimized) => (Arc::new(optimized), true),
        Err(DataFusionError::Context(rule, error)) => {
            let error = Error::from(*error);
            if error.sqlstate() == sqlstate::QUERY_CANCELED {
                return Err(error.into());
            }
            let step = PlanType::OptimizedLogicalPlan { optimizer_name: rule };
            stringified_plans.push(StringifiedPlan::new(step, error.message()));
            (plan, false)
        }
        Err(error) => return Err(error),
    };
    Ok(LogicalPlan::Explain(Explain {
        verbose,
        explain_format,
        plan,
        stringified_plans,
        schema,
        logical_optimization_succeeded,
        show_statistics,
    }))
}

fn optimize_with(
    context: &StatementContext,
    plan: LogicalPlan,
    mut observe: impl FnMut(PlanType, &LogicalPlan),
) -> DataFusionResult<LogicalPlan> {
    use datafusion::optimizer::OptimizerConfig;
    let options = OptimizerConfig::options(context);
    let analyzed = context.shared().analyzer().execute_and_check(plan, &options, |plan, rule| {
        observe(PlanType::AnalyzedLogicalPlan { analyzer_name: rule.name().to_owned() }, plan);
    })?;
    observe(PlanType::FinalAnalyzedLogicalPlan, &analyzed);
    context.shared().optimizer().optimize(analyzed, context, |plan, rule| {
        observe(PlanType::OptimizedLogicalPlan { optimizer_name: rule.name().to_owned() }, plan);
    })
}

/// Optimises a logical plan and turns it into operators.
pub(crate) async fn make_ready(context: &StatementContext, plan: LogicalPlan) -> Result<ReadyPlan> {
    let operators = context.create_physical_plan(&plan).await?;
    let plan = match &plan {
        LogicalPlan::Explain(explained) => explain_with_estimates(context, explained, operators).await?,
        LogicalPlan::Analyze(_) => analyze_with_estimates(operators)?,
        _ => operators,
    };
    ReadyPlan::new(plan, context)
}

/// Puts the cost model's estimates into the description of the final plan.
async fn explain_with_estimates(
    context: &StatementContext,
    explained: &Explain,
    operators: Arc<dyn ExecutionPlan>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let Some(description) = operators.downcast_ref::<ExplainExec>() else { return Ok(operators) };
    let shown = |step: &StringifiedPlan| step.plan_type == PlanType::FinalPhysicalPlan;
    if !description.stringified_plans().iter().any(shown) {
        return Ok(operators);
    }
    let options = &Session::config(context).options().explain;
    let plan = with_estimates(&context.create_physical_plan(&explained.plan).await?);
    let plan = displayable(plan.as_ref());
    let text = match explained.explain_format {
        ExplainFormat::Tree => {
            plan.set_tree_maximum_render_width(options.tree_maximum_render_width).tree_render().to_string()
        }
        _ => plan
            .set_show_statistics(options.show_statistics)
            .set_show_schema(options.show_schema)
            .indent(explained.verbose)
            .to_string(),
    };
    let steps = description.stringified_plans().iter().map(|step| match shown(step) {
        true => StringifiedPlan::new(PlanType::FinalPhysicalPlan, text.clone()),
        false => step.clone(),
    });
    Ok(Arc::new(ExplainExec::new(operators.schema(), steps.collect(), description.verbose())))
}

/// Puts the cost model's estimates beside what EXPLAIN ANALYZE counts.
fn analyze_with_estimates(operators: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let Some(analyzed) = operators.downcast_ref::<AnalyzeExec>() else { return Ok(operators) };
    let input = with_estimates(analyzed.input());
    Ok(replace_children_if_necessary(operators, vec![input])?)
}

/// The same for a query whose plan is kept in the plan cache, under this key.
pub(crate) async fn make_ready_and_keep(
    context: &StatementContext,
    cache: &PlanCache,
    key: &str,
    plan: LogicalPlan,
) -> Result<ReadyPlan> {
    let early = context.clone().without_late_rules();
    let operators = early.create_physical_plan(&plan).await?;
    cache.keep(key, &plan, &operators, context)?;
    finish(context, fresh_copy(operators)?)
}

/// The query of this key from the plan cache, if it is there.
pub(crate) fn find_ready(context: &StatementContext, cache: &PlanCache, key: &str) -> Result<Option<ReadyPlan>> {
    cache.find(key, context)?.map(|operators| finish(context, operators)).transpose()
}

/// Applies the late rules.
fn finish(context: &StatementContext, mut plan: Arc<dyn ExecutionPlan>) -> Result<ReadyPlan> {
    let rules = context.physical_optimizers();
    for rule in &rules[first_late_rule(rules)..] {
        plan = rule.optimize(plan, Session::config(context).options())?;
    }
    ReadyPlan::new(plan, context)
}

/// Wraps a plan so that running it describes it.
pub(crate) fn explain(plan: LogicalPlan, options: ExplainOptions) -> Result<LogicalPlan> {
    let ExplainOptions { analyze, verbose, format } = options;
    let schema = LogicalPlan::explain_schema().to_dfschema_ref()?;
    if analyze {
        return match format {
            ExplainFormat::Indent | ExplainFormat::PostgresJSON => Ok(LogicalPlan::Analyze(Analyze {
                verbose,
                format,
                input: Arc::new(plan),
                schema,
                analyze_level: None,
                analyze_categories: None,
            })),
            other => Err(Error::unsupported(format!("EXPLAIN ANALYZE in format {other}"))),
        };
    }
    let stringified_plans = vec![plan.to_stringified(PlanType::InitialLogicalPlan)];
    Ok(LogicalPlan::Explain(Explain {
        verbose,
        explain_format: format,
        plan: Arc::new(plan),
        stringified_plans,
        schema,
        logical_optimization_succeeded: false,
        show_statistics: None,
    }))
}

/// The columns a query will return. Types are final only after the analyser's coercions, which may fail while
/// parameters are unbound; the plan as written then has to do.
pub(crate) fn result_schema(context: &StatementContext, plan: &LogicalPlan) -> SchemaRef {
    let analyzed = optimize_with(context, plan.clone(), |_, _| {});
    let plan = analyzed.as_ref().unwrap_or(plan);
    Arc::new(Schema::clone(plan.schema().as_arrow()))
}

/// Checks that as many values came as the statement has parameters.
pub(crate) fn check_parameter_count(expected: usize, given: usize) -> Result<()> {
    if expected == given {
        return Ok(());
    }
    let plural = |count: usize| if count == 1 { "" } else { "s" };
    Err(Error::new(
        sqlstate::PROTOCOL_VIOLATION,
        format!(
            "the statement takes {expected} parameter{}, but {given} {} given",
            plural(expected),
            if given == 1 { "was" } else { "were" }
        ),
    ))
}
