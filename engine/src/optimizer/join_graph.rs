//! A region of joins, taken apart: what is joined, and by which conditions.
//!
//! ```text
//!        Inner                      relations:   a   b   c   s (reducer)
//!       ╱     ╲                     classes:     {a.x, b.x, s.x}   {b.y, c.y}
//!   LeftSemi   c        ═══►        filters:     a.u < c.u
//!   ╱     ╲                         output:      the region's columns, in order
//! Inner    s
//!  ╱ ╲
//! a   b
//! ```
//!
//! A region consists of inner joins, cross joins, semi and anti joins, and of the filters and column selections between
//! them; everything else (outer joins, aggregates, computed columns) is a relation of it. The columns of all relations
//! are numbered through, and conditions are rewritten to these numbers, so that they can be put wherever their columns
//! meet. Columns that must be equal form a class: any two members join two parts, whether the query said so or not.
//! A column made wider, as the planner does it to compare an `int` with a `bigint`, ends no region: whoever compares it
//! does that himself.
//!
//! The right side of a semi or anti join is a *reducer*: it adds no columns, only removes rows of the relations its
//! condition speaks of, so it may be applied as soon as these are joined, or as late as at the end.
//!
//! A semi join whose right side has at most one partner for each row is an inner join whose columns nobody wants; the
//! logical planner makes the one of the other. As a reducer such a relation could not connect those that it has a condition
//! on: of `a, b, s` with `a.x = s.x AND b.y = s.y` nothing would be left but the product of `a` and `b`. So where the other
//! relations would fall apart, it is an ordinary one ([`JoinGraph::connected`]).

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{JoinSide, JoinType, NullEquality};
use datafusion::error::Result;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr, CastExpr, Column};
use datafusion::physical_expr::utils::{collect_columns, split_conjunction};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::joins::utils::JoinFilter;
use datafusion::physical_plan::joins::{CrossJoinExec, HashJoinExec, NestedLoopJoinExec};
use datafusion::physical_plan::projection::ProjectionExec;

use crate::scan::ColumnScanExec;

/// What is done to the plan of each relation.
pub(super) type Rewrite<'a> = dyn FnMut(&Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> + 'a;

/// What an operator produces, in terms of the region's columns: one of them, or one made wider.
pub(super) type Columns = Vec<Arc<dyn PhysicalExpr>>;

/// A set of relations, one bit each.
pub(super) type Relations = u64;

/// Larger regions are left in parts: the sets are bit masks.
pub(super) const RELATIONS_MAX: usize = Relations::BITS as usize;

/// What is joined in a region.
pub(super) struct Relation {
    pub(super) plan: Arc<dyn ExecutionPlan>,
    /// Its columns are `first_column..first_column + width` of the region's.
    pub(super) first_column: usize,
    pub(super) width: usize,
    pub(super) reducer: Option<Reducer>,
}

/// How the rows of a relation reduce the others.
pub(super) struct Reducer {
    pub(super) anti: bool,
    /// The relations its conditions speak of, other than by classes: they must be joined first.
    pub(super) needs: Relations,
}

/// An equality between expressions that cannot be in a class: they are not plain columns, or the join is an anti join.
pub(super) struct Equality {
    pub(super) left: Arc<dyn PhysicalExpr>,
    pub(super) left_relations: Relations,
    pub(super) right: Arc<dyn PhysicalExpr>,
    pub(super) right_relations: Relations,
    /// The reducer it belongs to, if any.
    pub(super) reducer: Option<usize>,
}

/// Any other condition.
pub(super) struct Condition {
    pub(super) predicate: Arc<dyn PhysicalExpr>,
    pub(super) relations: Relations,
    /// The reducer it belongs to, if any: then it is part of that join and of no other.
    pub(super) reducer: Option<usize>,
}

/// A region of joins.
#[derive(Default)]
pub(super) struct JoinGraph {
    pub(super) relations: Vec<Relation>,
    /// All columns of all relations.
    pub(super) fields: Vec<Arc<Field>>,
    /// The relation of each column.
    pub(super) owner: Vec<usize>,
    /// Sets of columns that are equal in the result; each has at least two.
    pub(super) classes: Vec<Vec<usize>>,
    pub(super) equalities: Vec<Equality>,
    pub(super) conditions: Vec<Condition>,
    /// The region's own output, in terms of its columns.
    pub(super) output: Columns,
    /// Whether relations that are semi joined may be ordinary ones where they connect others.
    lets_semi_joined_connect: bool,
}

impl JoinGraph {
    /// Takes the region apart whose top is `plan`; `None` if `plan` is no join. `inner` is applied to every relation. If the
    /// relations that are no reducers would fall apart, semi joined ones that connect them are none.
    pub(super) fn connected(plan: &Arc<dyn ExecutionPlan>, inner: &mut Rewrite<'_>) -> Result<Option<JoinGraph>> {
        if !is_join(plan) || count_relations(plan) > RELATIONS_MAX {
            return Ok(None);
        }
        let graph = JoinGraph::of(plan, inner, false)?;
        match graph.reducers() == 0 || graph.is_connected() {
            true => Ok(Some(graph)),
            false => JoinGraph::of(plan, inner, true).map(Some),
        }
    }

    fn of(plan: &Arc<dyn ExecutionPlan>, inner: &mut Rewrite<'_>, lets_semi_joined_connect: bool) -> Result<JoinGraph> {
        let mut graph = JoinGraph { lets_semi_joined_connect, ..JoinGraph::default() };
        graph.output = graph.add(plan, inner)?;
        graph.equate_within_relations();
        Ok(graph)
    }

    /// Whether equalities lead from each relation that is no reducer to all others.
    fn is_connected(&self) -> bool {
        let ordinary = self.all() & !self.reducers();
        let own = self.equalities.iter().filter(|equality| equality.reducer.is_none());
        let links: Vec<Relations> = own
            .map(|equality| equality.left_relations | equality.right_relations)
            .chain(self.classes.iter().map(|class| self.owners(class)))
            .map(|relations| relations & ordinary)
            .collect();
        let mut reached = ordinary & ordinary.wrapping_neg();
        loop {
            let touching = links.iter().filter(|link| **link & reached != 0);
            let next = touching.fold(reached, |all, link| all | link);
            if next == reached {
                return reached == ordinary;
            }
            reached = next;
        }
    }

    /// The relation of each of `columns`.
    pub(super) fn owners(&self, columns: &[usize]) -> Relations {
        columns.iter().fold(0, |set, column| set | 1 << self.owner[*column])
    }

    /// All relations.
    pub(super) fn all(&self) -> Relations {
        Relations::MAX >> (RELATIONS_MAX - self.relations.len())
    }

    /// The relations that are reducers.
    pub(super) fn reducers(&self) -> Relations {
        let bit = |(number, relation): (usize, &Relation)| relation.reducer.as_ref().map_or(0, |_| 1 << number);
        self.relations.iter().enumerate().map(bit).sum()
    }

    /// A join applies one equality for each class. Two columns of one relation in a class are compared by a condition of
    /// that relation alone, so that all columns of a class are equal in whatever is joined.
    fn equate_within_relations(&mut self) {
        let mut conditions = Vec::new();
        for class in &self.classes {
            for (place, column) in class.iter().enumerate() {
                let Some(other) = class[..place].iter().find(|other| self.owner[**other] == self.owner[*column]) else {
                    continue;
                };
                let predicate = Arc::new(BinaryExpr::new(self.column(*other), Operator::Eq, self.column(*column)));
                conditions.push(Condition { predicate, relations: 1 << self.owner[*column], reducer: None });
            }
        }
        self.conditions.extend(conditions);
    }

    /// The relations an expression speaks of.
    pub(super) fn relations_of(&self, expr: &Arc<dyn PhysicalExpr>) -> Relations {
        collect_columns(expr).iter().fold(0, |set, column| set | 1 << self.owner[column.index()])
    }

    /// Adds the part of the region below `plan`; returns its output.
    fn add(&mut self, plan: &Arc<dyn ExecutionPlan>, inner: &mut Rewrite<'_>) -> Result<Columns> {
        if let Some(join) = plan.downcast_ref::<HashJoinExec>().filter(|join| can_reorder(join)) {
            return self.add_hash_join(join, inner);
        }
        if let Some(join) = plan.downcast_ref::<CrossJoinExec>() {
            let mut columns = self.add(join.left(), inner)?;
            columns.extend(self.add(join.right(), inner)?);
            return Ok(columns);
        }
        if let Some(join) =
            plan.downcast_ref::<NestedLoopJoinExec>().filter(|join| *join.join_type() == JoinType::Inner)
        {
            let left = self.add(join.left(), inner)?;
            let right = self.add(join.right(), inner)?;
            self.add_join_filter(join.filter(), &left, &right)?;
            let columns = [left, right].concat();
            return Ok(kept(columns, join.projection().as_deref()));
        }
        if let Some(projection) = plan.downcast_ref::<ProjectionExec>()
            && reaches_join(plan)
            && only_selects(projection)
        {
            let columns = self.add(projection.input(), inner)?;
            return projection.expr().iter().map(|column| renumbered(&column.expr, &columns)).collect();
        }
        if let Some(filter) = plan.downcast_ref::<FilterExec>()
            && reaches_join(plan)
        {
            let columns = self.add(filter.input(), inner)?;
            self.add_conditions(&renumbered(filter.predicate(), &columns)?);
            return Ok(kept(columns, filter.projection().as_deref()));
        }
        let plan = inner(plan)?;
        Ok(self.add_relation(plan, None))
    }

    fn add_relation(&mut self, plan: Arc<dyn ExecutionPlan>, reducer: Option<Reducer>) -> Columns {
        let (first_column, number) = (self.fields.len(), self.relations.len());
        self.fields.extend(plan.schema().fields().iter().cloned());
        self.owner.resize(self.fields.len(), number);
        let width = self.fields.len() - first_column;
        self.relations.push(Relation { plan, first_column, width, reducer });
        (first_column..first_column + width).map(|column| self.column(column)).collect()
    }

    /// The region's column with that number.
    pub(super) fn column(&self, number: usize) -> Arc<dyn PhysicalExpr> {
        Arc::new(Column::new(self.fields[number].name(), number))
    }

    fn add_hash_join(&mut self, join: &HashJoinExec, inner: &mut Rewrite<'_>) -> Result<Columns> {
        let anti = matches!(join.join_type(), JoinType::LeftAnti | JoinType::RightAnti);
        let (left, right, output) = match join.join_type() {
            JoinType::LeftSemi | JoinType::LeftAnti => {
                let left = self.add(join.left(), inner)?;
                let connects =
                    !anti && self.connects(&left, join.on().iter().map(|(left, right)| (left, right)), join.right())?;
                let plan = inner(join.right())?;
                let right = self.add_relation(plan, (!connects).then_some(Reducer { anti, needs: 0 }));
                (left.clone(), right, left)
            }
            JoinType::RightSemi | JoinType::RightAnti => {
                let right = self.add(join.right(), inner)?;
                let connects =
                    !anti && self.connects(&right, join.on().iter().map(|(left, right)| (right, left)), join.left())?;
                let plan = inner(join.left())?;
                let left = self.add_relation(plan, (!connects).then_some(Reducer { anti, needs: 0 }));
                (left, right.clone(), right)
            }
            _ => {
                let left = self.add(join.left(), inner)?;
                let right = self.add(join.right(), inner)?;
                (left.clone(), right.clone(), [left, right].concat())
            }
        };
        let last = self.relations.len() - 1;
        let reducer = match join.join_type() {
            JoinType::Inner => None,
            _ => self.relations[last].reducer.is_some().then_some(last),
        };
        let mut needs: Relations = 0;
        for (left_key, right_key) in join.on() {
            let (left_key, right_key) = (renumbered(left_key, &left)?, renumbered(right_key, &right)?);
            needs |= self.add_equality(left_key, right_key, reducer, anti);
        }
        if let Some(filter) = join.filter() {
            let predicate = on_both_sides(filter, &left, &right)?;
            match reducer {
                // It stays whole: it belongs to this join, whatever its parts speak of.
                Some(_) => {
                    let relations = self.relations_of(&predicate);
                    needs |= relations;
                    self.conditions.push(Condition { predicate, relations, reducer });
                }
                None => self.add_conditions(&predicate),
            }
        }
        if let Some(number) = reducer
            && let Some(reducer) = &mut self.relations[number].reducer
        {
            reducer.needs = needs & !(1 << number);
        }
        Ok(kept(output, join.projection.as_deref()))
    }

    /// Whether the semi joined `plan` has at most one partner for each row of the relations with `columns`, and keys of
    /// several of them. Each of `keys` is one of theirs and one of its own.
    fn connects<'a>(
        &self,
        columns: &[Arc<dyn PhysicalExpr>],
        keys: impl Iterator<Item = (&'a Arc<dyn PhysicalExpr>, &'a Arc<dyn PhysicalExpr>)>,
        plan: &Arc<dyn ExecutionPlan>,
    ) -> Result<bool> {
        let (mut relations, mut own) = (0, Vec::new());
        for (theirs, key) in keys {
            relations |= self.relations_of(&renumbered(theirs, columns)?);
            own.extend(key.downcast_ref::<Column>().map(Column::index));
        }
        Ok(self.lets_semi_joined_connect && relations.count_ones() > 1 && is_unique(plan, &own))
    }

    fn add_join_filter(
        &mut self,
        filter: Option<&JoinFilter>,
        left: &[Arc<dyn PhysicalExpr>],
        right: &[Arc<dyn PhysicalExpr>],
    ) -> Result<()> {
        if let Some(filter) = filter {
            self.add_conditions(&on_both_sides(filter, left, right)?);
        }
        Ok(())
    }

    fn add_conditions(&mut self, predicate: &Arc<dyn PhysicalExpr>) {
        for part in split_conjunction(predicate) {
            let relations = self.relations_of(part);
            self.conditions.push(Condition { predicate: Arc::clone(part), relations, reducer: None });
        }
    }

    /// Adds `left = right`; returns the relations it speaks of if it is in no class. An anti join's key is in none: rows
    /// that pass have none of its values.
    fn add_equality(
        &mut self,
        left: Arc<dyn PhysicalExpr>,
        right: Arc<dyn PhysicalExpr>,
        reducer: Option<usize>,
        anti: bool,
    ) -> Relations {
        let column = |expr: &Arc<dyn PhysicalExpr>| expr.downcast_ref::<Column>().map(Column::index);
        match (column(&left), column(&right)) {
            (Some(left), Some(right)) if !anti && self.fields[left].data_type() == self.fields[right].data_type() => {
                self.unite(left, right);
                0
            }
            _ => {
                let (left_relations, right_relations) = (self.relations_of(&left), self.relations_of(&right));
                self.equalities.push(Equality { left, left_relations, right, right_relations, reducer });
                left_relations | right_relations
            }
        }
    }

    fn unite(&mut self, left: usize, right: usize) {
        let find = |classes: &[Vec<usize>], column| classes.iter().position(|class| class.contains(&column));
        match (find(&self.classes, left), find(&self.classes, right)) {
            (Some(one), Some(other)) if one == other => {}
            (Some(one), Some(other)) => {
                let (low, high) = (one.min(other), one.max(other));
                let members = self.classes.remove(high);
                self.classes[low].extend(members);
            }
            (Some(class), None) => self.classes[class].push(right),
            (None, Some(class)) => self.classes[class].push(left),
            (None, None) => self.classes.push(vec![left, right]),
        }
    }
}

fn kept(columns: Columns, projection: Option<&[usize]>) -> Columns {
    match projection {
        Some(projection) => projection.iter().map(|column| Arc::clone(&columns[*column])).collect(),
        None => columns,
    }
}

/// `expr` with its column i replaced by `columns[i]`.
fn renumbered(expr: &Arc<dyn PhysicalExpr>, columns: &[Arc<dyn PhysicalExpr>]) -> Result<Arc<dyn PhysicalExpr>> {
    Arc::clone(expr)
        .transform_up(|part| {
            Ok(match part.downcast_ref::<Column>() {
                Some(column) => Transformed::yes(Arc::clone(&columns[column.index()])),
                None => Transformed::no(part),
            })
        })
        .data()
}

/// A join's filter in terms of the region's columns.
fn on_both_sides(
    filter: &JoinFilter,
    left: &[Arc<dyn PhysicalExpr>],
    right: &[Arc<dyn PhysicalExpr>],
) -> Result<Arc<dyn PhysicalExpr>> {
    let columns: Columns = filter
        .column_indices()
        .iter()
        .map(|column| match column.side {
            JoinSide::Right => Arc::clone(&right[column.index]),
            JoinSide::Left | JoinSide::None => Arc::clone(&left[column.index]),
        })
        .collect();
    renumbered(filter.expression(), &columns)
}

/// Whether a hash join's inputs may be exchanged with those of its neighbours.
fn can_reorder(join: &HashJoinExec) -> bool {
    let kind = matches!(
        join.join_type(),
        JoinType::Inner | JoinType::LeftSemi | JoinType::RightSemi | JoinType::LeftAnti | JoinType::RightAnti
    );
    kind && !join.null_aware && join.null_equality() == NullEquality::NullEqualsNothing && join.fetch().is_none()
}

fn is_join(plan: &Arc<dyn ExecutionPlan>) -> bool {
    plan.downcast_ref::<HashJoinExec>().is_some_and(can_reorder)
        || plan.downcast_ref::<CrossJoinExec>().is_some()
        || plan.downcast_ref::<NestedLoopJoinExec>().is_some_and(|join| *join.join_type() == JoinType::Inner)
}

/// Whether there is a join of the region below selections and filters.
fn reaches_join(plan: &Arc<dyn ExecutionPlan>) -> bool {
    if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
        return only_selects(projection) && reaches_join(projection.input());
    }
    if let Some(filter) = plan.downcast_ref::<FilterExec>() {
        return filter.fetch().is_none() && reaches_join(filter.input());
    }
    is_join(plan)
}

/// Whether no two rows agree in `columns`: they contain a table's primary key.
fn is_unique(plan: &Arc<dyn ExecutionPlan>, columns: &[usize]) -> bool {
    if let Some(scan) = plan.downcast_ref::<ColumnScanExec>() {
        let key = &scan.table().primary_key;
        let has = |part: &usize| columns.iter().any(|column| scan.projection().get(*column) == Some(part));
        return !key.is_empty() && key.iter().all(has);
    }
    if let Some(filter) = plan.downcast_ref::<FilterExec>() {
        let below = |column: &usize| match filter.projection() {
            Some(kept) => kept.get(*column).copied(),
            None => Some(*column),
        };
        return is_unique(filter.input(), &columns.iter().filter_map(below).collect::<Vec<_>>());
    }
    if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
        let below = |column: &usize| projection.expr().get(*column)?.expr.downcast_ref::<Column>().map(Column::index);
        return is_unique(projection.input(), &columns.iter().filter_map(below).collect::<Vec<_>>());
    }
    false
}

/// Whether a projection only selects columns, some made wider: that never fails, and costs nothing to do again.
fn only_selects(projection: &ProjectionExec) -> bool {
    let schema = projection.input().schema();
    projection.expr().iter().all(|column| is_column(&column.expr) || is_wider_column(&column.expr, &schema))
}

fn is_column(expr: &Arc<dyn PhysicalExpr>) -> bool {
    expr.downcast_ref::<Column>().is_some()
}

/// Whether it is a column of whole numbers with more bits than it is stored with.
fn is_wider_column(expr: &Arc<dyn PhysicalExpr>, schema: &Schema) -> bool {
    let Some(cast) = expr.downcast_ref::<CastExpr>() else { return false };
    let widens = |from: &DataType, to: &DataType| {
        from.is_signed_integer() && to.is_signed_integer() && from.primitive_width() <= to.primitive_width()
    };
    is_column(cast.expr()) && cast.expr().data_type(schema).is_ok_and(|from| widens(&from, cast.cast_type()))
}

fn count_relations(plan: &Arc<dyn ExecutionPlan>) -> usize {
    if !reaches_join(plan) {
        return 1;
    }
    let semi = plan.downcast_ref::<HashJoinExec>().map(HashJoinExec::join_type);
    match (semi, plan.children().as_slice()) {
        (Some(JoinType::LeftSemi | JoinType::LeftAnti), [left, _]) => count_relations(left) + 1,
        (Some(JoinType::RightSemi | JoinType::RightAnti), [_, right]) => count_relations(right) + 1,
        (_, children) => children.iter().map(|child| count_relations(child)).sum(),
    }
}

/// A schema of the columns of a region, in the order given.
pub(super) fn schema_of(graph: &JoinGraph, columns: &[usize]) -> Arc<Schema> {
    Arc::new(Schema::new(columns.iter().map(|column| Arc::clone(&graph.fields[*column])).collect::<Vec<_>>()))
}
