//! From a join tree back to operators.
//!
//! Each join applies every condition whose columns meet in it for the first time, and passes on only the columns that
//! somebody above still needs. The left input of an operator is its build side.

use std::sync::Arc;

use arrow::datatypes::Schema;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{JoinSide, JoinType};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr, Column};
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::filter::FilterExecBuilder;
use datafusion::physical_plan::joins::utils::{ColumnIndex, JoinFilter, JoinOn};
use datafusion::physical_plan::joins::{HashJoinExecBuilder, NestedLoopJoinExecBuilder, PartitionMode};
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};

use super::join_graph::{JoinGraph, Relations, schema_of};
use super::join_order::{JoinTree, is_key};

/// A part of the tree as an operator, and which columns of the region it produces.
struct Part {
    plan: Arc<dyn ExecutionPlan>,
    columns: Vec<usize>,
}

/// Builds the operators of a region. `schema` is the region's own, whose names the result bears.
pub(super) fn build(graph: &JoinGraph, tree: &JoinTree, schema: &Schema) -> Result<Arc<dyn ExecutionPlan>> {
    let part = Builder { graph }.part(tree, &columns_of(&graph.output))?;
    let plain: Option<Vec<usize>> = graph.output.iter().map(plain_column).collect();
    let in_order = plain.is_some_and(|columns| columns == part.columns);
    if in_order && same_names(&part.plan.schema(), schema) {
        return Ok(part.plan);
    }
    let produced = part.plan.schema();
    let selected = graph.output.iter().zip(schema.fields()).map(|(output, field)| {
        let expr: Arc<dyn PhysicalExpr> = match plain_column(output) {
            Some(column) => {
                let index = position(&part.columns, column)?;
                Arc::new(Column::new(produced.field(index).name(), index))
            }
            None => in_columns(output, &part.columns)?,
        };
        Ok(ProjectionExpr { expr, alias: field.name().clone() })
    });
    let selected = selected.collect::<Result<Vec<_>>>()?;
    Ok(Arc::new(ProjectionExec::try_new(selected, part.plan)?))
}

fn plain_column(expr: &Arc<dyn PhysicalExpr>) -> Option<usize> {
    expr.downcast_ref::<Column>().map(Column::index)
}

/// The region's columns that are in `expressions`.
fn columns_of<'a>(expressions: impl IntoIterator<Item = &'a Arc<dyn PhysicalExpr>>) -> Vec<usize> {
    let columns = expressions.into_iter().flat_map(collect_columns);
    columns.map(|column| column.index()).collect()
}

fn same_names(one: &Schema, other: &Schema) -> bool {
    one.fields().iter().map(|field| field.name()).eq(other.fields().iter().map(|field| field.name()))
}

fn position(columns: &[usize], column: usize) -> Result<usize> {
    let found = columns.iter().position(|candidate| *candidate == column);
    found.ok_or_else(|| DataFusionError::Internal(format!("join order: column {column} was not carried along")))
}

/// The conditions that one join applies.
#[derive(Default)]
struct Applied {
    /// Equal keys, build side first, in the region's columns.
    keys: Vec<(Arc<dyn PhysicalExpr>, Arc<dyn PhysicalExpr>)>,
    filter: Option<Arc<dyn PhysicalExpr>>,
}

impl Applied {
    fn and(&mut self, predicate: Arc<dyn PhysicalExpr>) {
        self.filter = Some(match self.filter.take() {
            Some(known) => Arc::new(BinaryExpr::new(known, Operator::And, predicate)),
            None => predicate,
        });
    }

    fn columns(&self) -> Vec<usize> {
        columns_of(self.keys.iter().flat_map(|(build, probe)| [build, probe]).chain(self.filter.as_ref()))
    }
}

struct Builder<'a> {
    graph: &'a JoinGraph,
}

impl Builder<'_> {
    /// The operators of `tree`, with at least the columns of it that are in `needed`.
    fn part(&self, tree: &JoinTree, needed: &[usize]) -> Result<Part> {
        match tree {
            JoinTree::Relation(number) => self.relation(*number),
            JoinTree::Join { build, probe } => self.join(build, probe, needed),
        }
    }

    fn relation(&self, number: usize) -> Result<Part> {
        let graph = self.graph;
        let relation = &graph.relations[number];
        let columns: Vec<usize> = (relation.first_column..relation.first_column + relation.width).collect();
        let mut plan = Arc::clone(&relation.plan);
        // A reducer's condition on the reducer alone is its filter; one of several relations is the join's.
        let own = graph.conditions.iter().filter(|condition| {
            condition.relations == 1 << number && condition.reducer.is_none_or(|reducer| reducer == number)
        });
        let mut filter = Applied::default();
        own.for_each(|condition| filter.and(Arc::clone(&condition.predicate)));
        if let Some(predicate) = filter.filter {
            let predicate = in_columns(&predicate, &columns)?;
            plan = Arc::new(FilterExecBuilder::new(predicate, plan).build()?);
        }
        Ok(Part { plan, columns })
    }

    fn join(&self, build: &JoinTree, probe: &JoinTree, needed: &[usize]) -> Result<Part> {
        let graph = self.graph;
        let (build_set, probe_set) = (build.relations(), probe.relations());
        let mut wanted = needed.to_vec();
        let applied = self.applied(build_set, probe_set, needed);
        wanted.extend(applied.columns());
        let within = |set: Relations| -> Vec<usize> {
            wanted.iter().copied().filter(|column| set & (1 << graph.owner[*column]) != 0).collect()
        };
        let left = self.part(build, &within(build_set))?;
        let right = self.part(probe, &within(probe_set))?;
        let join_type = self.join_type(build_set, probe_set);
        let keys = applied
            .keys
            .iter()
            .map(|(build, probe)| Ok((in_columns(build, &left.columns)?, in_columns(probe, &right.columns)?)));
        let keys: JoinOn = keys.collect::<Result<Vec<_>>>()?;
        let filter = applied.filter.map(|filter| self.join_filter(&filter, &left, &right)).transpose()?;
        let joined = match join_type {
            JoinType::LeftSemi | JoinType::LeftAnti => left.columns.clone(),
            JoinType::RightSemi | JoinType::RightAnti => right.columns.clone(),
            _ => [left.columns.as_slice(), right.columns.as_slice()].concat(),
        };
        let kept: Vec<usize> = (0..joined.len()).filter(|index| needed.contains(&joined[*index])).collect();
        let columns: Vec<usize> = kept.iter().map(|index| joined[*index]).collect();
        let projection = (kept.len() < joined.len()).then_some(kept);
        let plan: Arc<dyn ExecutionPlan> = if keys.is_empty() {
            let join = NestedLoopJoinExecBuilder::new(left.plan, right.plan, join_type);
            Arc::new(join.with_filter(filter).with_projection(projection).build()?)
        } else {
            let join = HashJoinExecBuilder::new(left.plan, right.plan, keys, join_type);
            let join = join.with_filter(filter).with_projection(projection);
            Arc::new(join.with_partition_mode(PartitionMode::CollectLeft).build()?)
        };
        Ok(Part { plan, columns })
    }

    fn reducer_of(&self, set: Relations) -> Option<usize> {
        let number = set.trailing_zeros() as usize;
        (set.count_ones() == 1 && self.graph.relations[number].reducer.is_some()).then_some(number)
    }

    fn join_type(&self, build: Relations, probe: Relations) -> JoinType {
        let anti = |number: usize| self.graph.relations[number].reducer.as_ref().is_some_and(|reducer| reducer.anti);
        match (self.reducer_of(build), self.reducer_of(probe)) {
            (Some(reducer), _) if anti(reducer) => JoinType::RightAnti,
            (Some(_), _) => JoinType::RightSemi,
            (None, Some(reducer)) if anti(reducer) => JoinType::LeftAnti,
            (None, Some(_)) => JoinType::LeftSemi,
            (None, None) => JoinType::Inner,
        }
    }

    /// What joining `build` with `probe` has to check.
    fn applied(&self, build: Relations, probe: Relations, needed: &[usize]) -> Applied {
        let graph = self.graph;
        let reducer = self.reducer_of(build).or_else(|| self.reducer_of(probe));
        // Reducers joined earlier have no columns any more.
        let visible = |set: Relations| if self.reducer_of(set).is_some() { set } else { set & !graph.reducers() };
        let (build, probe) = (visible(build), visible(probe));
        let both = build | probe;
        let mut applied = Applied::default();
        for class in &graph.classes {
            let member = |set: Relations| {
                let inside = || class.iter().copied().filter(move |column| set & (1 << graph.owner[*column]) != 0);
                // A column that is wanted anyway costs nothing more.
                inside().find(|column| needed.contains(column)).or_else(|| inside().next())
            };
            if let (Some(left), Some(right)) = (member(build), member(probe)) {
                applied.keys.push((graph.column(left), graph.column(right)));
            }
        }
        let meets = |relations: Relations| relations & !both == 0 && relations & build != 0 && relations & probe != 0;
        for equality in graph.equalities.iter().filter(|equality| equality.reducer == reducer) {
            let relations = equality.left_relations | equality.right_relations;
            let (left, right) = (Arc::clone(&equality.left), Arc::clone(&equality.right));
            if is_key(equality, build, probe) {
                let swapped = equality.left_relations & !build != 0;
                applied.keys.push(if swapped { (right, left) } else { (left, right) });
            } else if meets(relations) || (reducer.is_some() && relations & !both == 0) {
                applied.and(Arc::new(BinaryExpr::new(left, Operator::Eq, right)));
            }
        }
        for condition in graph.conditions.iter().filter(|condition| condition.reducer == reducer) {
            let alone = reducer.is_some_and(|reducer| condition.relations == 1 << reducer);
            if meets(condition.relations) || (reducer.is_some() && !alone) {
                applied.and(Arc::clone(&condition.predicate));
            }
        }
        applied
    }

    /// A predicate over the region's columns as the filter of a join of `left` and `right`.
    fn join_filter(&self, predicate: &Arc<dyn PhysicalExpr>, left: &Part, right: &Part) -> Result<JoinFilter> {
        let mut columns: Vec<usize> = collect_columns(predicate).into_iter().map(|column| column.index()).collect();
        columns.sort_unstable();
        columns.dedup();
        let indices = columns.iter().map(|column| {
            Ok(match left.columns.contains(column) {
                true => ColumnIndex { index: position(&left.columns, *column)?, side: JoinSide::Left },
                false => ColumnIndex { index: position(&right.columns, *column)?, side: JoinSide::Right },
            })
        });
        let indices = indices.collect::<Result<Vec<_>>>()?;
        Ok(JoinFilter::new(in_columns(predicate, &columns)?, indices, schema_of(self.graph, &columns)))
    }
}

/// An expression over the region's columns in terms of an operator that produces `columns`.
fn in_columns(expr: &Arc<dyn PhysicalExpr>, columns: &[usize]) -> Result<Arc<dyn PhysicalExpr>> {
    Arc::clone(expr)
        .transform_up(|part| {
            Ok(match part.downcast_ref::<Column>() {
                Some(column) => {
                    let place = position(columns, column.index())?;
                    Transformed::yes(Arc::new(Column::new(column.name(), place)) as Arc<dyn PhysicalExpr>)
                }
                None => Transformed::no(part),
            })
        })
        .data()
}
