//! From an analysed logical plan to what a query of the row path consists of.
//!
//! Columns of a plan are expressions over rows of tables: a projection substitutes, it is no step of its own. What is left
//! of any plan that the row path knows is
//!
//! ```text
//!   tables ─▶ conditions ─▶ [aggregates over all rows] ─▶ [order] ─▶ [limit] ─▶ expressions
//! ```
//! Grouping, windows, outer joins, set operations, subqueries and anything in another order are not for the row path.

use std::sync::Arc;

use datafusion::common::{JoinType, NullEquality};
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::expr::{AggregateFunction, AggregateFunctionParams, Sort as SortExpr};
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan};
use rustydb_storage::TableDef;

use super::aggregate::Aggregate;
use super::datum::Stored;
use super::expression::{Class, Comparison, Node, Scope, compile};
use crate::catalog::provider::ColumnTable;
use crate::dml::scope::ROWS_AT_HAND;
use crate::sql::context::StatementContext;

/// Tables a query may join here: their rows are told apart by the bits of a number, and more are no short statement.
pub(crate) const TABLES_MAX: usize = 8;

/// A table of the FROM list.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) table: Arc<TableDef>,
    pub(crate) stored: Vec<Stored>,
}

/// A key of ORDER BY.
#[derive(Debug, Clone)]
pub(crate) struct SortKey {
    pub(crate) node: Node,
    pub(crate) class: Class,
    pub(crate) descending: bool,
    pub(crate) nulls_first: bool,
}

/// The parts of a query.
#[derive(Debug, Default)]
pub(crate) struct Pipeline {
    pub(crate) sources: Vec<Source>,
    pub(crate) conditions: Vec<Node>,
    pub(crate) aggregates: Option<Vec<Aggregate>>,
    pub(crate) sort: Vec<SortKey>,
    pub(crate) skip: Option<Node>,
    pub(crate) fetch: Option<Node>,
    /// What each column of the plan is.
    pub(crate) output: Vec<Node>,
}

/// Takes plans apart.
pub(crate) struct Reader<'a> {
    pub(crate) context: &'a StatementContext,
    /// What the columns of rows at hand are, for RETURNING and DO UPDATE.
    pub(crate) at_hand: &'a [Node],
}

impl Reader<'_> {
    /// The parts of a plan; `None`: the row path does not know it.
    pub(crate) fn read(&self, plan: &LogicalPlan) -> Option<Pipeline> {
        match plan {
            LogicalPlan::EmptyRelation(empty) if empty.produce_one_row && empty.schema.fields().is_empty() => {
                Some(Pipeline::default())
            }
            LogicalPlan::TableScan(scan) => {
                if !scan.filters.is_empty() || scan.fetch.is_some() {
                    return None;
                }
                if scan.table_name.table() == ROWS_AT_HAND {
                    let output = match &scan.projection {
                        None => self.at_hand.to_vec(),
                        Some(columns) => {
                            columns.iter().map(|column| self.at_hand.get(*column).cloned()).collect::<Option<_>>()?
                        }
                    };
                    return Some(Pipeline { output, ..Pipeline::default() });
                }
                let provider = source_as_provider(&scan.source).ok()?;
                let table = Arc::clone(provider.downcast_ref::<ColumnTable>()?.definition());
                let fields = table.storage_schema().fields().iter();
                let stored = fields.map(|field| Stored::of(field.data_type())).collect::<Option<Vec<_>>>()?;
                let columns: Vec<usize> = match &scan.projection {
                    Some(columns) => columns.clone(),
                    None => (0..scan.projected_schema.fields().len()).collect(),
                };
                let output = columns.into_iter().map(|column| Node::Stored(0, column)).collect();
                Some(Pipeline { sources: vec![Source { table, stored }], output, ..Pipeline::default() })
            }
            LogicalPlan::SubqueryAlias(alias) => self.read(&alias.input),
            LogicalPlan::Filter(filter) => {
                let mut below = self.read(&filter.input)?;
                if !below.is_plain() {
                    return None;
                }
                self.add_conditions(&filter.predicate, &filter.input, &mut below)?;
                Some(below)
            }
            LogicalPlan::Projection(projection) => {
                let mut below = self.read(&projection.input)?;
                let exprs = projection.expr.iter();
                below.output =
                    exprs.map(|expr| self.compile(expr, &projection.input, &below.output)).collect::<Option<_>>()?;
                Some(below)
            }
            LogicalPlan::Join(join) => {
                let inner = join.join_type == JoinType::Inner
                    && join.null_equality == NullEquality::NullEqualsNothing
                    && !join.null_aware;
                let (mut below, right) = (self.read(&join.left)?, self.read(&join.right)?);
                if !inner || !below.is_plain() || !right.is_plain() {
                    return None;
                }
                let places = below.sources.len();
                let moved = |mut node: Node| {
                    node.shift(places);
                    node
                };
                below.sources.extend(right.sources);
                below.conditions.extend(right.conditions.into_iter().map(moved));
                below.output.extend(right.output.into_iter().map(moved));
                if below.sources.len() > TABLES_MAX {
                    return None;
                }
                let scope = Scope { schema: join.schema.as_ref(), slots: &below.output };
                let mut conditions = Vec::new();
                for (left, right) in &join.on {
                    let class = Class::of(&left.get_type(scope.schema).ok()?, &right.get_type(scope.schema).ok()?)?;
                    let sides = (compile(self.context, left, scope)?, compile(self.context, right, scope)?);
                    conditions.push(Node::Compare(Comparison::Equal, class, Box::new(sides)));
                }
                for part in join.filter.iter().flat_map(split) {
                    conditions.push(compile(self.context, part, scope)?);
                }
                below.conditions.extend(conditions);
                Some(below)
            }
            LogicalPlan::Aggregate(aggregate) => {
                let mut below = self.read(&aggregate.input)?;
                if !aggregate.group_expr.is_empty() || !below.is_plain() {
                    return None;
                }
                let exprs = aggregate.aggr_expr.iter();
                let aggregates = exprs.map(|expr| self.aggregate(expr, &aggregate.input, &below.output));
                let aggregates = aggregates.collect::<Option<Vec<_>>>()?;
                below.output = (0..aggregates.len()).map(Node::Value).collect();
                below.aggregates = Some(aggregates);
                Some(below)
            }
            LogicalPlan::Sort(sort) => {
                let mut below = self.read(&sort.input)?;
                if !below.sort.is_empty() || below.skip.is_some() || below.fetch.is_some() || sort.fetch.is_some() {
                    return None;
                }
                for SortExpr { expr, asc, nulls_first } in &sort.expr {
                    let data_type = expr.get_type(sort.input.schema()).ok()?;
                    below.sort.push(SortKey {
                        node: self.compile(expr, &sort.input, &below.output)?,
                        class: Class::of(&data_type, &data_type)?,
                        descending: !*asc,
                        nulls_first: *nulls_first,
                    });
                }
                Some(below)
            }
            LogicalPlan::Limit(limit) => {
                let mut below = self.read(&limit.input)?;
                if below.skip.is_some() || below.fetch.is_some() {
                    return None;
                }
                let constant =
                    |expr: &Expr| compile(self.context, expr, Scope { schema: limit.input.schema(), slots: &[] });
                if let Some(skip) = &limit.skip {
                    below.skip = Some(constant(skip)?);
                }
                if let Some(fetch) = &limit.fetch {
                    below.fetch = Some(constant(fetch)?);
                }
                Some(below)
            }
            _ => None,
        }
    }

    fn compile(&self, expr: &Expr, input: &LogicalPlan, slots: &[Node]) -> Option<Node> {
        compile(self.context, expr, Scope { schema: input.schema(), slots })
    }

    fn add_conditions(&self, predicate: &Expr, input: &LogicalPlan, pipeline: &mut Pipeline) -> Option<()> {
        for part in split(predicate) {
            match self.compile(part, input, &pipeline.output)? {
                // BETWEEN: each of its bounds may be one of a range.
                Node::And(bounds) => pipeline.conditions.extend(bounds),
                condition => pipeline.conditions.push(condition),
            }
        }
        Some(())
    }

    fn aggregate(&self, expr: &Expr, input: &LogicalPlan, slots: &[Node]) -> Option<Aggregate> {
        let Expr::AggregateFunction(AggregateFunction { func, params }) = unaliased(expr) else { return None };
        let AggregateFunctionParams { args, distinct, filter, order_by, null_treatment } = params;
        if filter.is_some() || !order_by.is_empty() || null_treatment.is_some() {
            return None;
        }
        let [argument] = args.as_slice() else { return None };
        let argument_type = argument.get_type(input.schema()).ok()?;
        let result_type = expr.get_type(input.schema()).ok()?;
        let node = self.compile(argument, input, slots)?;
        Aggregate::new(func.name(), *distinct, node, &argument_type, &result_type)
    }
}

impl Pipeline {
    /// Whether it is nothing but rows of tables with conditions.
    pub(crate) fn is_plain(&self) -> bool {
        self.aggregates.is_none() && self.sort.is_empty() && self.skip.is_none() && self.fetch.is_none()
    }
}

fn unaliased(expr: &Expr) -> &Expr {
    match expr {
        Expr::Alias(alias) => unaliased(&alias.expr),
        other => other,
    }
}

/// The parts of a conjunction.
fn split(expr: &Expr) -> Vec<&Expr> {
    datafusion::logical_expr::utils::split_conjunction(expr)
}
