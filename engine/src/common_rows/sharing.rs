//! Which parts of a planned query are one common table expression, and must give the same rows.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::datasource::{TableProvider, TableType, ViewTable};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, Extension, LogicalPlan, Subquery, SubqueryAlias};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::sql::sqlparser::ast::{Query, Visit, Visitor};

use super::node::{CommonRows, fresh_number};
use crate::sql::text::parse::fold;

/// The names of the common table expressions of all queries in a node.
pub(crate) fn names_of_ctes<N: Visit>(node: &N) -> Vec<String> {
    struct Names(Vec<String>);
    impl Visitor for Names {
        type Break = ();
        fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
            let own = query.with.iter().flat_map(|with| &with.cte_tables);
            self.0.extend(own.map(|cte| fold(&cte.alias.name)));
            ControlFlow::Continue(())
        }
    }
    let mut names = Names(Vec::new());
    let _ = node.visit(&mut names);
    names.0
}

/// Lets the references to each of these common table expressions read the same rows, where that makes a difference.
pub(crate) fn share_rows(plan: LogicalPlan, names: &[String]) -> Result<LogicalPlan> {
    if names.is_empty() {
        return Ok(plan);
    }
    let mut references = References { names, found: HashMap::new(), rounds: Vec::new() };
    references.count(&plan, 1);
    // The schemas are kept: where they are, nothing else can be while they are looked for.
    let mut shared: HashMap<*const DFSchema, (SubqueryAlias, u64)> = HashMap::new();
    for (place, (first, count)) in references.found {
        if count > 1 && is_volatile(&first.input)? && !depends_on_outer_rows(&first.input)? {
            shared.insert(place, (first, fresh_number()));
        }
    }
    if shared.is_empty() {
        return Ok(plan);
    }
    let rewritten = plan.transform_down_with_subqueries(|node| {
        let LogicalPlan::SubqueryAlias(alias) = &node else { return Ok(Transformed::no(node)) };
        let Some((first, number)) = shared.get(&Arc::as_ptr(&alias.schema)) else { return Ok(Transformed::no(node)) };
        let rows = CommonRows { input: Arc::clone(&first.input), number: *number };
        let rows = Arc::new(LogicalPlan::Extension(Extension { node: Arc::new(rows) }));
        Ok(Transformed::yes(LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(rows, alias.alias.clone())?)))
    })?;
    Ok(rewritten.data)
}

/// The references to common table expressions: of each the first, and how often it is read, by where the schema is that they
/// share. Their inputs they do not share: as the planner looks for needless sorts in each relation, it makes copies of what is
/// below.
struct References<'a> {
    names: &'a [String],
    found: HashMap<*const DFSchema, (SubqueryAlias, usize)>,
    /// The recursive queries around, in whose rounds this is.
    rounds: Vec<String>,
}

impl References<'_> {
    /// Counts those in a plan, which runs this often, or more often if that is 2.
    fn count(&mut self, plan: &LogicalPlan, times: usize) {
        match plan {
            LogicalPlan::SubqueryAlias(alias) if self.is_reference(alias) => {
                let known = self.found.entry(Arc::as_ptr(&alias.schema));
                let (_, count) = known.or_insert_with(|| (alias.clone(), 0));
                let seen = *count > 0;
                *count += times;
                // Those inside are computed once for all.
                if !seen {
                    self.count(&alias.input, 1);
                }
            }
            LogicalPlan::RecursiveQuery(recursive) => {
                self.count(&recursive.static_term, times);
                self.rounds.push(recursive.name.clone());
                self.count(&recursive.recursive_term, 2);
                self.rounds.pop();
            }
            LogicalPlan::Subquery(subquery) => self.count_in(subquery, times),
            plan => {
                let _ = plan.apply_expressions(|expr| {
                    expr.apply(|part| {
                        if let Expr::ScalarSubquery(subquery) = part {
                            self.count_in(subquery, times);
                        } else if let Expr::Exists(exists) = part {
                            self.count_in(&exists.subquery, times);
                        } else if let Expr::InSubquery(within) = part {
                            self.count_in(&within.subquery, times);
                        } else if let Expr::SetComparison(compared) = part {
                            self.count_in(&compared.subquery, times);
                        }
                        Ok(TreeNodeRecursion::Continue)
                    })
                });
                for input in plan.inputs() {
                    self.count(input, times);
                }
            }
        }
    }

    /// Whether this is a reference to an expression that has the same rows as long as the query runs. What reads the rows that the
    /// last round of a recursive query has made has others in each round.
    fn is_reference(&self, alias: &SubqueryAlias) -> bool {
        let is_named = self.names.iter().any(|name| name == alias.alias.table());
        is_named && (self.rounds.is_empty() || !reads_any(&alias.input, &self.rounds))
    }

    /// A subquery that depends on the rows around it runs for each of them.
    fn count_in(&mut self, subquery: &Subquery, times: usize) {
        let times = if subquery.outer_ref_columns.is_empty() { times } else { 2 };
        self.count(&subquery.subquery, times);
    }
}

/// Whether a plan reads a table of one of these names, which are those of recursive queries.
fn reads_any(plan: &LogicalPlan, names: &[String]) -> bool {
    let mut found = false;
    let _ = plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            found |= names.iter().any(|name| name.eq_ignore_ascii_case(scan.table_name.table()));
        }
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    found
}

/// Whether a plan gives other rows each time.
fn is_volatile(plan: &LogicalPlan) -> Result<bool> {
    exists_in(plan, Expr::is_volatile_node)
}

fn depends_on_outer_rows(plan: &LogicalPlan) -> Result<bool> {
    // A reference out of a subquery in the plan is none out of the plan; it counts all the same.
    exists_in(plan, |part| matches!(part, Expr::OuterReferenceColumn(..)))
}

fn exists_in(plan: &LogicalPlan, is_wanted: impl Fn(&Expr) -> bool) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            found |= expr.exists(|part| Ok(is_wanted(part)))?;
            Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
        })
    })?;
    Ok(found)
}

/// A view with rows that are others each time: each reference to it gets a plan of its own, with numbers of its own.
#[derive(Debug)]
pub(crate) struct ViewRows(ViewTable);

impl ViewRows {
    /// What stands for a view of this plan.
    pub(crate) fn provider(plan: LogicalPlan) -> Result<Arc<dyn TableProvider>> {
        let is_volatile = is_volatile(&plan)?;
        let view = ViewTable::new(plan, None);
        Ok(if is_volatile { Arc::new(ViewRows(view)) } else { Arc::new(view) })
    }
}

/// A plan that shares nothing with this one.
fn renewed(plan: &LogicalPlan) -> Result<LogicalPlan> {
    let mut numbers: HashMap<u64, u64> = HashMap::new();
    let renewed = plan.clone().transform_up_with_subqueries(|node| {
        Ok(Transformed::yes(match node {
            // One of the same name in the query around is told from it by that.
            LogicalPlan::SubqueryAlias(mut alias) => {
                alias.schema = Arc::new(DFSchema::clone(&alias.schema));
                LogicalPlan::SubqueryAlias(alias)
            }
            LogicalPlan::Extension(extension) => match extension.node.as_any().downcast_ref::<CommonRows>() {
                Some(rows) => {
                    let number = *numbers.entry(rows.number).or_insert_with(fresh_number);
                    let node = Arc::new(CommonRows { input: Arc::clone(&rows.input), number });
                    LogicalPlan::Extension(Extension { node })
                }
                None => LogicalPlan::Extension(extension),
            },
            node => node,
        }))
    })?;
    Ok(renewed.data)
}

#[async_trait]
impl TableProvider for ViewRows {
    fn schema(&self) -> SchemaRef {
        self.0.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    fn get_logical_plan(&self) -> Option<Cow<'_, LogicalPlan>> {
        let plan = self.0.get_logical_plan()?;
        Some(renewed(&plan).map_or(plan, Cow::Owned))
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.0.scan(session, projection, filters, limit).await
    }
}
