//! CREATE and DROP of functions and procedures.

use rustydb_storage::{ObjectDef, ObjectId, ObjectKind, Transaction};

use crate::error::sqlstate;
use crate::routine::definition::{Routine, RoutineDefinition, StoredParameter, StoredReturns, identity_of};
use crate::routine::types::resolve_type;
use crate::session::{Completion, Statement};
use crate::sql::context::StatementContext;
use crate::sql::grammar::routine::{
    CreateRoutineStatement, DropRoutineStatement, ParameterSyntax, ReturnsSyntax, RoutineKind, TypeSyntax,
};
use crate::sql::text::parse::{place, table_name};
use crate::{Error, Position, Result};
use datafusion::sql::sqlparser::ast::Spanned;
use std::sync::Arc;

/// More parameters than anybody can count.
const PARAMETERS_MAX: usize = 100;

pub(crate) fn create_routine(
    statement: &Statement<'_>,
    transaction: &mut Transaction,
    create: CreateRoutineStatement,
) -> Result<Completion> {
    let context = statement.context(transaction.view());
    let tag = if create.is_procedure { "CREATE PROCEDURE" } else { "CREATE FUNCTION" };
    let (schema, name) = table_name(&create.name)?;
    let schema = context.schema_for_new(schema, false)?;
    let body_place = create.body_place;
    let (or_replace, at) = (create.or_replace, place(create.name.span()));
    let definition = definition_of(&context, name, create)?;
    let identity = definition.identity();
    let existing = context.view().catalog().find_object(ObjectKind::Routine, &schema, &identity).cloned();
    if let Some(existing) = &existing {
        check_replacement(&RoutineDefinition::of(existing)?, &definition, or_replace).map_err(|error| error.at(at))?;
    }
    let object = Arc::new(ObjectDef {
        id: existing.as_ref().map_or(ObjectId(0), |existing| existing.id),
        kind: ObjectKind::Routine,
        schema_name: schema.clone(),
        name: identity.clone(),
        definition: String::new(),
    });
    let languages = &statement.database.routines().languages;
    let text = definition.text()?;
    // What is kept must be something that can be loaded and compiled.
    let routine = Routine::of_definition(&context, &object, definition, languages)?;
    routine.program().map_err(|error| moved(error, body_place))?;
    drop(context);
    match existing {
        Some(existing) => transaction.replace_object(existing.id, schema, identity, text)?,
        None => transaction.create_object(ObjectKind::Routine, schema, identity, text)?,
    };
    Ok(Completion::new(tag))
}

/// An error in a body, placed in the statement that the body is a part of.
fn moved(error: Error, body: Option<Position>) -> Error {
    match (error.position(), body) {
        (Some(Position { line: 1, column }), Some(start)) => {
            error.moved_to(Position { line: start.line, column: start.column + column - 1 })
        }
        (Some(Position { line, column }), Some(start)) => {
            error.moved_to(Position { line: start.line + line - 1, column })
        }
        _ => error,
    }
}

fn definition_of(
    context: &StatementContext,
    name: String,
    create: CreateRoutineStatement,
) -> Result<RoutineDefinition> {
    let invalid = |message: &str| Err(Error::new(sqlstate::INVALID_FUNCTION_DEFINITION, message));
    let CreateRoutineStatement {
        name: _,
        or_replace: _,
        is_procedure,
        parameters,
        returns,
        language,
        body,
        body_place: _,
        volatility,
        is_strict,
    } = create;
    if parameters.len() > PARAMETERS_MAX {
        return Err(Error::new(
            sqlstate::TOO_MANY_ARGUMENTS,
            format!("functions cannot have more than {PARAMETERS_MAX} arguments"),
        ));
    }
    let mut stored: Vec<StoredParameter> = Vec::with_capacity(parameters.len());
    let mut has_default = false;
    for ParameterSyntax { name, mode, type_name, default } in parameters {
        if let Some(name) = &name
            && stored.iter().any(|other| other.name.as_ref() == Some(name))
        {
            return invalid(&format!("parameter name \"{name}\" used more than once"));
        }
        if default.is_some() && !mode.is_input() {
            return invalid("only input parameters can have default values");
        }
        if mode.is_input() && has_default && default.is_none() {
            return invalid("input parameters after one with a default value must also have defaults");
        }
        has_default |= default.is_some();
        let type_name = type_text(context, &type_name)?;
        stored.push(StoredParameter { name, mode, type_name, default: default.map(|default| default.to_string()) });
    }
    let has_outputs = stored.iter().any(|parameter| parameter.mode.is_output());
    let is_word = |syntax: &TypeSyntax, word: &str| match syntax {
        TypeSyntax::Named(named) => named.to_string().eq_ignore_ascii_case(word),
        TypeSyntax::OfColumn(_) => false,
    };
    let returns = match returns {
        ReturnsSyntax::Unsaid if is_procedure || has_outputs => StoredReturns::Void,
        ReturnsSyntax::Unsaid => return invalid("function result type must be specified"),
        _ if is_procedure => return Err(Error::syntax("a procedure has no RETURNS")),
        ReturnsSyntax::One(syntax) if is_word(&syntax, "trigger") => {
            return Err(Error::unsupported("a trigger function"));
        }
        ReturnsSyntax::One(syntax) if is_word(&syntax, "void") && !has_outputs => StoredReturns::Void,
        ReturnsSyntax::One(syntax) if is_word(&syntax, "record") => StoredReturns::Record,
        ReturnsSyntax::Many(syntax) if is_word(&syntax, "record") => StoredReturns::Records,
        ReturnsSyntax::One(syntax) if has_outputs => {
            let outputs: Vec<&StoredParameter> = stored.iter().filter(|parameter| parameter.mode.is_output()).collect();
            let text = type_text(context, &syntax)?;
            match outputs.as_slice() {
                [only] if resolve_type(context, &only.type_name)? == resolve_type(context, &text)? => {
                    StoredReturns::Void
                }
                [only] => {
                    return invalid(&format!(
                        "function result type must be {} because of OUT parameters",
                        only.type_name.to_lowercase()
                    ));
                }
                _ => return invalid("function result type must be record because of OUT parameters"),
            }
        }
        ReturnsSyntax::One(syntax) => StoredReturns::Value(type_text(context, &syntax)?),
        ReturnsSyntax::Many(syntax) if has_outputs => {
            let outputs = stored.iter().filter(|parameter| parameter.mode.is_output()).count();
            if outputs > 1 {
                return invalid("function result type must be record because of OUT parameters");
            }
            StoredReturns::Values(type_text(context, &syntax)?)
        }
        ReturnsSyntax::Many(syntax) => StoredReturns::Values(type_text(context, &syntax)?),
        ReturnsSyntax::Table(_) if has_outputs => {
            return invalid("OUT and INOUT arguments aren't allowed in TABLE functions");
        }
        ReturnsSyntax::Table(columns) => {
            let columns = columns.into_iter().map(|(name, syntax)| Ok((name, type_text(context, &syntax)?)));
            StoredReturns::Table(columns.collect::<Result<_>>()?)
        }
    };
    let search_path = context.search_path().to_vec();
    Ok(RoutineDefinition {
        name,
        is_procedure,
        language,
        parameters: stored,
        returns,
        body,
        volatility,
        is_strict,
        search_path,
    })
}

/// The text that names a type for good: a column's type is the column's at this moment.
fn type_text(context: &StatementContext, syntax: &TypeSyntax) -> Result<String> {
    match syntax {
        TypeSyntax::Named(named) => {
            let text = named.to_string();
            let found = resolve_type(context, &text)?;
            Ok(if found.shape().is_some() { text } else { found.name().to_owned() })
        }
        TypeSyntax::OfColumn(name) => {
            let parts: Vec<String> =
                name.0.iter().filter_map(|part| part.as_ident()).map(crate::sql::text::parse::fold).collect();
            let (schema, table, column) = match parts.as_slice() {
                [table, column] => (None, table, column),
                [schema, table, column] => (Some(schema.as_str()), table, column),
                _ => return Err(Error::syntax(format!("\"{name}\" is no column")).at(place(name.span()))),
            };
            let table = context.table(schema, table)?;
            let column = crate::dml::defaults::column_index(table, column)?;
            Ok(crate::sql::types::declared_name(table.schema.field(column)))
        }
    }
}

fn check_replacement(old: &RoutineDefinition, new: &RoutineDefinition, or_replace: bool) -> Result<()> {
    let invalid = |message: String| Err(Error::new(sqlstate::INVALID_FUNCTION_DEFINITION, message));
    if !or_replace {
        let message = format!("function \"{}\" already exists with same argument types", new.name);
        return Err(Error::new(sqlstate::DUPLICATE_FUNCTION, message));
    }
    if old.is_procedure != new.is_procedure {
        let message = format!("\"{}\" is a {}", old.name, old.kind());
        return Err(Error::new(sqlstate::WRONG_OBJECT_TYPE, "cannot change routine kind").with_detail(message));
    }
    let outputs = |definition: &RoutineDefinition| -> Vec<String> {
        let outputs = definition.parameters.iter().filter(|parameter| parameter.mode.is_output());
        outputs.map(|parameter| parameter.type_name.clone()).collect()
    };
    if old.returns != new.returns || outputs(old) != outputs(new) {
        let hint = format!("Use DROP {} first.", new.kind().to_uppercase());
        return invalid(format!("cannot change return type of existing {}", new.kind()))
            .map_err(|error| error.with_hint(hint));
    }
    Ok(())
}

pub(crate) fn drop_routines(
    statement: &Statement<'_>,
    transaction: &mut Transaction,
    dropped: DropRoutineStatement,
) -> Result<Completion> {
    let DropRoutineStatement { kind, if_exists, routines } = dropped;
    let (tag, noun) = match kind {
        RoutineKind::Function => ("DROP FUNCTION", "function"),
        RoutineKind::Procedure => ("DROP PROCEDURE", "procedure"),
        RoutineKind::Either => ("DROP ROUTINE", "routine"),
    };
    let context = statement.context(transaction.view());
    let mut doomed = Vec::new();
    for (name, types) in &routines {
        let (schema, plain) = table_name(name)?;
        let types = types
            .as_ref()
            .map(|types| types.iter().map(|syntax| type_text(&context, syntax)).collect::<Result<Vec<_>>>())
            .transpose()?;
        let schemas: Vec<String> = match schema {
            Some(schema) => vec![schema],
            None => context.search_path().to_vec(),
        };
        let mut found: Vec<(ObjectId, RoutineDefinition)> = Vec::new();
        for schema in &schemas {
            for object in context.view().catalog().objects() {
                if object.kind != ObjectKind::Routine || object.schema_name != *schema {
                    continue;
                }
                let definition = RoutineDefinition::of(object)?;
                let identity = types.as_ref().map(|types| identity_of(&plain, types.iter().map(String::as_str)));
                if definition.name == plain && identity.is_none_or(|identity| identity == object.name) {
                    found.push((object.id, definition));
                }
            }
            if !found.is_empty() {
                break;
            }
        }
        let shown = match &types {
            Some(types) => format!("{plain}({})", types.join(", ")),
            None => plain.clone(),
        };
        match found.as_slice() {
            [] if if_exists => {}
            [] => {
                let error = Error::new(sqlstate::UNDEFINED_FUNCTION, format!("{noun} {shown} does not exist"));
                return Err(error.at(place(name.span())));
            }
            [(id, definition)] => {
                let wrong = match kind {
                    RoutineKind::Function => definition.is_procedure,
                    RoutineKind::Procedure => !definition.is_procedure,
                    RoutineKind::Either => false,
                };
                if wrong {
                    let message = format!("{shown} is not a {noun}");
                    return Err(Error::new(sqlstate::WRONG_OBJECT_TYPE, message).at(place(name.span())));
                }
                doomed.push(*id);
            }
            _ => {
                return Err(Error::new(sqlstate::AMBIGUOUS_FUNCTION, format!("{noun} name \"{plain}\" is not unique"))
                    .with_hint("Specify the argument list to select it unambiguously.")
                    .at(place(name.span())));
            }
        }
    }
    drop(context);
    for id in doomed {
        transaction.drop_object(id)?;
    }
    Ok(Completion::new(tag))
}
