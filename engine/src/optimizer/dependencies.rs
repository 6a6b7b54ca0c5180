//! Which columns of a logical plan decide which others: what DataFusion calls functional dependencies, found again with
//! care.
//!
//! A key of a table decides all columns of the table, a key of groups all columns of the groups. DataFusion keeps this
//! in the schema of every operator and leaves out what it makes superfluous: `b` of `ORDER BY id, b`, keys of GROUP BY,
//! a DISTINCT, a join. But where it makes an aggregation it says too much:
//!
//! | of | DataFusion says | what holds |
//! |---|---|---|
//! | groups by `p.id, c.b` of `p JOIN c` | the key `id` of `p` decides all, and is there once | it decides `p` |
//! | groups by `CAST(t AS INT), v` of a key `t` | `v` is superfluous: the cast is called `t` as well | nothing |
//! | a column beside `unnest(…)` that was a key | it still is one | it decides columns beside it |
//!
//! So rows came in a wrong order, and groups were merged or lost. Here the dependencies of all operators are found from
//! scratch, from the tables up, by columns and not by names. As whoever changes an aggregation has DataFusion put its
//! own into the schema, this is done right before each rule that asks for them ([`super::dependency_rule`]), all of
//! which look at an operator before they change what is below it.
//!
//! Invariant: a dependency that is left out costs time; one too many costs rows. When in doubt there is none.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, DFSchemaRef, Dependency, FunctionalDependence, FunctionalDependencies};
use datafusion::error::Result;
use datafusion::logical_expr::utils::grouping_set_to_exprlist;
use datafusion::logical_expr::{Aggregate, Distinct, Expr, LogicalPlan, Unnest, Window};

use crate::sql::rules::rewriting::any_node;

/// The plan with the dependencies that hold.
pub(super) fn with_certain_dependencies(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    plan.transform_up_with_subqueries(|mut operator| {
        let certain = dependencies(&operator);
        let mut changed = false;
        if let LogicalPlan::Aggregate(aggregate) = &mut operator
            && misleads(aggregate)
        {
            let input = LogicalPlan::clone(&aggregate.input);
            aggregate.input = Arc::new(without_dependencies(input)?);
            changed = true;
        }
        if let (Some(certain), Some(schema)) = (certain, own_schema(&mut operator))
            && *schema.functional_dependencies() != certain
        {
            put(schema, certain)?;
            changed = true;
        }
        Ok(if changed { Transformed::yes(operator) } else { Transformed::no(operator) })
    })
}

/// Whether the plan has an operator whose dependencies DataFusion may have got wrong.
pub(super) fn may_be_wrong(plan: &LogicalPlan) -> Result<bool> {
    any_node(plan, |operator| {
        let asked = match operator {
            LogicalPlan::Aggregate(aggregate) => aggregate.input.schema(),
            LogicalPlan::Unnest(unnest) => &unnest.schema,
            LogicalPlan::Union(union) => &union.schema,
            _ => return Ok(false),
        };
        Ok(!asked.functional_dependencies().is_empty())
    })
}

/// The plan, telling those above nothing of its columns.
pub(crate) fn without_dependencies(mut plan: LogicalPlan) -> Result<LogicalPlan> {
    if plan.schema().functional_dependencies().is_empty() {
        return Ok(plan);
    }
    if let Some(schema) = own_schema(&mut plan) {
        put(schema, FunctionalDependencies::empty())?;
        return Ok(plan);
    }
    Ok(plan.map_children(|input| without_dependencies(input).map(Transformed::yes))?.data)
}

fn put(schema: &mut DFSchemaRef, dependencies: FunctionalDependencies) -> Result<()> {
    *schema = Arc::new(DFSchema::clone(schema).with_functional_dependencies(dependencies)?);
    Ok(())
}

/// The schema of an operator that does not show the schema of its input.
fn own_schema(plan: &mut LogicalPlan) -> Option<&mut DFSchemaRef> {
    match plan {
        LogicalPlan::Projection(node) => Some(&mut node.schema),
        LogicalPlan::SubqueryAlias(node) => Some(&mut node.schema),
        LogicalPlan::Window(node) => Some(&mut node.schema),
        LogicalPlan::Aggregate(node) => Some(&mut node.schema),
        LogicalPlan::Join(node) => Some(&mut node.schema),
        LogicalPlan::Union(node) => Some(&mut node.schema),
        LogicalPlan::Unnest(node) => Some(&mut node.schema),
        LogicalPlan::RecursiveQuery(node) => Some(&mut node.schema),
        LogicalPlan::TableScan(node) => Some(&mut node.projected_schema),
        LogicalPlan::Distinct(Distinct::On(node)) => Some(&mut node.schema),
        _ => None,
    }
}

/// What holds for the columns of an operator if it has a schema of its own, by what its inputs say of theirs.
fn dependencies(plan: &LogicalPlan) -> Option<FunctionalDependencies> {
    let of = |input: &LogicalPlan| input.schema().functional_dependencies().clone();
    Some(match plan {
        LogicalPlan::TableScan(scan) => {
            let columns = scan.source.schema().fields().len();
            let all = FunctionalDependencies::new_from_constraints(scan.source.constraints(), columns);
            match &scan.projection {
                Some(projection) => all.project_functional_dependencies(projection, projection.len()),
                None => all,
            }
        }
        LogicalPlan::Projection(node) => of_projection(&node.expr, &node.input),
        LogicalPlan::Distinct(Distinct::On(node)) => of_projection(&node.select_expr, &node.input),
        LogicalPlan::SubqueryAlias(node) => of(&node.input),
        LogicalPlan::Window(node) => of_window(node),
        LogicalPlan::Join(node) => {
            let columns = node.left.schema().fields().len();
            of(&node.left).join(&of(&node.right), &node.join_type, columns)
        }
        LogicalPlan::Aggregate(node) => of_aggregate(node),
        LogicalPlan::Unnest(node) => of_unnest(node),
        LogicalPlan::Union(_) | LogicalPlan::RecursiveQuery(_) => FunctionalDependencies::empty(),
        _ => return None,
    })
}

/// The input's column that an expression is.
fn column_of(expr: &Expr, schema: &DFSchema) -> Option<usize> {
    match expr {
        Expr::Column(column) => schema.maybe_index_of_column(column),
        Expr::Alias(alias) => column_of(&alias.expr, schema),
        _ => None,
    }
}

fn of_projection(expressions: &[Expr], input: &LogicalPlan) -> FunctionalDependencies {
    let schema = input.schema();
    // No column of the input has the last of all numbers.
    let sources: Vec<usize> = expressions.iter().map(|expr| column_of(expr, schema).unwrap_or(usize::MAX)).collect();
    schema.functional_dependencies().project_functional_dependencies(&sources, sources.len())
}

fn of_window(window: &Window) -> FunctionalDependencies {
    let inputs = window.input.schema().fields().len();
    let mut all = window.input.schema().functional_dependencies().clone();
    all.extend_target_indices(window.schema.fields().len());
    // DataFusion knows a row_number() over all rows.
    let numbers = window.schema.functional_dependencies().iter();
    let numbers = numbers.filter(|number| number.source_indices.iter().all(|column| *column >= inputs));
    all.extend(FunctionalDependencies::new(numbers.cloned().collect()));
    all
}

fn of_aggregate(aggregate: &Aggregate) -> FunctionalDependencies {
    if aggregate.group_expr.iter().any(|key| matches!(key, Expr::GroupingSet(_))) {
        return FunctionalDependencies::empty();
    }
    // Of `GROUP BY v, v, id`, the schema of the groups has `v` once.
    let Ok(keys) = grouping_set_to_exprlist(&aggregate.group_expr) else { return FunctionalDependencies::empty() };
    if keys.is_empty() {
        return FunctionalDependencies::empty();
    }
    let schema = aggregate.input.schema();
    let sources: Vec<Option<usize>> = keys.iter().map(|key| column_of(key, schema)).collect();
    let place = |column: &usize| sources.iter().position(|source| *source == Some(*column));
    let columns = aggregate.schema.fields().len();
    let mut found: Vec<FunctionalDependence> = Vec::new();
    for known in schema.functional_dependencies().iter() {
        let Some(deciding) = known.source_indices.iter().map(place).collect::<Option<Vec<usize>>>() else { continue };
        if deciding.is_empty() {
            continue;
        }
        let decides = |key: usize| {
            deciding.contains(&key) || sources[key].is_some_and(|source| known.target_indices.contains(&source))
        };
        let decided: Vec<usize> = (0..keys.len()).filter(|key| decides(*key)).collect();
        let is_unique = known.mode == Dependency::Single && !known.nullable;
        found.push(match is_unique || decided.len() == keys.len() {
            // One group for each value of it.
            true => FunctionalDependence::new(deciding, (0..columns).collect(), known.nullable)
                .with_mode(Dependency::Single),
            false => FunctionalDependence::new(deciding, decided, known.nullable),
        });
    }
    if !found.iter().any(|known| known.mode == Dependency::Single) {
        let nullable = aggregate.schema.fields().iter().take(keys.len()).any(|field| field.is_nullable());
        let all = FunctionalDependence::new((0..keys.len()).collect(), (0..columns).collect(), nullable);
        found.push(all.with_mode(Dependency::Single));
    }
    FunctionalDependencies::new(found)
}

fn of_unnest(unnest: &Unnest) -> FunctionalDependencies {
    let schema = unnest.input.schema();
    let taken_apart: Vec<usize> =
        unnest.exec_columns.iter().filter_map(|column: &Column| schema.maybe_index_of_column(column)).collect();
    // No column of the input has the last of all numbers.
    let kept = unnest.dependency_indices.iter().map(|column| match taken_apart.contains(column) {
        true => usize::MAX,
        false => *column,
    });
    let kept: Vec<usize> = kept.collect();
    // A row becomes many.
    let many = schema.functional_dependencies().clone().with_dependency(Dependency::Multi);
    many.project_functional_dependencies(&kept, kept.len())
}

/// Whether a key that is no column has the name of one. Names are all that DataFusion compares keys with.
fn misleads(aggregate: &Aggregate) -> bool {
    let schema = aggregate.input.schema();
    let computed = || aggregate.group_expr.iter().filter(|key| !matches!(key, Expr::Column(_)));
    if schema.functional_dependencies().is_empty() || computed().next().is_none() {
        return false;
    }
    let names = schema.field_names();
    computed().any(|key| names.contains(&key.schema_name().to_string()))
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, Schema};
    use datafusion::common::{Constraint, Constraints, JoinType};
    use datafusion::functions_aggregate::count::count_all;
    use datafusion::logical_expr::{LogicalPlanBuilder, LogicalTableSource, cast, col};

    use super::*;

    /// A table of two numbers, with the first as its key.
    fn table(name: &str) -> LogicalPlanBuilder {
        let number = |name: &str| Field::new(name, DataType::Int32, false);
        let schema = Arc::new(Schema::new(vec![number("id"), number("v")]));
        let key = Constraints::new_unverified(vec![Constraint::PrimaryKey(vec![0])]);
        let source = LogicalTableSource::new(schema).with_constraints(key);
        LogicalPlanBuilder::scan(name, Arc::new(source), None).unwrap()
    }

    fn joined() -> LogicalPlanBuilder {
        table("p").join_on(table("c").build().unwrap(), JoinType::Inner, [col("p.id").eq(col("c.v"))]).unwrap()
    }

    /// Who decides what: the deciding columns, the decided ones, and whether the former are there once.
    fn found(plan: LogicalPlanBuilder) -> Vec<(Vec<usize>, Vec<usize>, bool)> {
        let plan = with_certain_dependencies(plan.build().unwrap()).unwrap().data;
        let all = plan.schema().functional_dependencies().iter();
        all.map(|known| {
            let FunctionalDependence { source_indices, target_indices, mode, .. } = known;
            (source_indices.clone(), target_indices.clone(), *mode == Dependency::Single)
        })
        .collect()
    }

    #[test]
    fn a_key_decides_no_columns_of_other_tables() {
        let groups = joined().aggregate([col("p.id"), col("p.v"), col("c.v")], [count_all()]).unwrap();
        let of_groups = vec![(vec![0], vec![0, 1], false), (vec![0, 1, 2], vec![0, 1, 2, 3], true)];
        assert_eq!(found(groups), of_groups);
        let groups = joined().aggregate([col("p.id"), col("p.v")], [count_all()]).unwrap();
        assert_eq!(found(groups), [(vec![0], vec![0, 1, 2], true)], "p.v says no more than p.id");
        let groups = table("p").aggregate([col("v"), col("id")], [count_all()]).unwrap();
        assert_eq!(found(groups), [(vec![1], vec![0, 1, 2], true)]);
    }

    #[test]
    fn a_key_of_groups_that_is_written_twice_counts_once() {
        let groups = table("p").aggregate([col("v"), col("v"), col("id")], [count_all()]).unwrap();
        assert_eq!(found(groups), [(vec![1], vec![0, 1, 2], true)]);
        let groups = table("p").aggregate([col("v"), col("v")], Vec::<Expr>::new()).unwrap();
        assert_eq!(found(groups), [(vec![0], vec![0], true)]);
    }

    #[test]
    fn a_cast_is_not_what_it_casts() {
        let groups = table("p").aggregate([cast(col("id"), DataType::Utf8), col("v")], [count_all()]).unwrap();
        let groups = with_certain_dependencies(groups.build().unwrap()).unwrap().data;
        let all: Vec<usize> = groups.schema().functional_dependencies()[0].source_indices.clone();
        assert_eq!(all, [0, 1]);
        assert!(groups.inputs()[0].schema().functional_dependencies().is_empty());
    }

    #[test]
    fn what_is_stripped_stays_so_for_those_above() {
        let plan = table("p").filter(col("v").gt(col("id"))).unwrap().limit(0, Some(3)).unwrap().build().unwrap();
        assert!(!plan.schema().functional_dependencies().is_empty());
        assert!(without_dependencies(plan).unwrap().schema().functional_dependencies().is_empty());
    }
}
