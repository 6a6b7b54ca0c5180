//! Queries that call functions before their rows are looked at: which they are, and what they answer with.

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::sql::sqlparser::ast::Query;
use rustydb_storage::{ObjectKind, ReadView};

use crate::Result;
use crate::routine::definition::schema_of;
use crate::routine::expression::{Argument, CompiledExpression, Compiler, Node};
use crate::routine::statement::{CompiledStatement, Kind};
use crate::routine::{InputTypes, rowless_items};
use crate::sql::context::StatementContext;

/// Whether there are any functions of users.
pub(super) fn has_routines(view: &ReadView) -> bool {
    view.catalog().objects().any(|object| object.kind == ObjectKind::Routine)
}

/// Whether a query calls functions in a way that lets them change rows: once, before its rows are looked at.
pub(crate) fn calls_first(context: &StatementContext, query: &Query) -> bool {
    if !has_routines(context.view()) {
        return false;
    }
    let compiler = Compiler { context, routines: context.routines() };
    let in_list = rowless_items(query).is_some_and(|items| items.iter().any(|item| compiler.calls_routine(item)));
    in_list || compiler.reads_routine(query)
}

/// The types that the parameters of such a query should have, and the columns it answers with if they have `types`.
pub(crate) fn describe_calls(
    context: &StatementContext,
    query: &Query,
    types: InputTypes,
) -> Result<(Vec<Option<DataType>>, SchemaRef)> {
    let mut wanted = vec![None; types.len()];
    let compiled = CompiledStatement::of_query(query.clone(), types, context, context.routines())?;
    match &compiled.kind {
        Kind::Values(values) => values.iter().for_each(|value| note_arguments(value, &mut wanted)),
        Kind::Query { relations, .. } => {
            relations.iter().for_each(|relation| note_inputs(&relation.arguments, &mut wanted));
        }
        _ => {}
    }
    let shape = compiled.describe(context)?;
    Ok((wanted, schema_of(&shape)))
}

/// Notes for the inputs that are arguments of calls in an expression what they become.
fn note_arguments(expression: &CompiledExpression, wanted: &mut [Option<DataType>]) {
    match &expression.node {
        Node::Call { arguments, .. } => note_inputs(arguments, wanted),
        Node::Calls { calls, .. } => calls.iter().for_each(|call| note_arguments(call, wanted)),
        Node::Case { branches, otherwise } => {
            let parts = branches.iter().flat_map(|(condition, result)| [condition, result]);
            parts.chain(otherwise.as_deref()).for_each(|part| note_arguments(part, wanted));
        }
        Node::Logic { sides, .. } => sides.iter().for_each(|side| note_arguments(side, wanted)),
        Node::Coalesce(values) => values.iter().for_each(|value| note_arguments(value, wanted)),
        Node::Input(_) | Node::Constant(_) | Node::Plain { .. } | Node::Query(_) => {}
    }
}

/// Notes for the inputs that are arguments of a call what they become.
pub(super) fn note_inputs(arguments: &[Argument], wanted: &mut [Option<DataType>]) {
    for argument in arguments {
        match argument.value.as_input() {
            Some(input) => {
                if let Some(place) = wanted.get_mut(input) {
                    *place = Some(argument.wanted.data_type.clone());
                }
            }
            None => note_arguments(&argument.value, wanted),
        }
    }
}
