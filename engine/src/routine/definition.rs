//! What the catalog keeps of a routine, and how a call finds the one it means.

use std::sync::{Arc, OnceLock};

use arrow::datatypes::{DataType, Field};
use rustydb_storage::{ObjectDef, ObjectId};
use serde::{Deserialize, Serialize};

use super::language::{Language, Mode, Parameter, Program, Returns, Source};
use super::types::{Shape, SqlType, resolve_type};
use crate::error::sqlstate;
use crate::sql::context::StatementContext;
use crate::{Error, Result};

/// What the catalog keeps of a routine. Types are kept by name and looked up when the routine is loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RoutineDefinition {
    pub(crate) name: String,
    pub(crate) is_procedure: bool,
    pub(crate) language: String,
    pub(crate) parameters: Vec<StoredParameter>,
    pub(crate) returns: StoredReturns,
    pub(crate) body: String,
    pub(crate) volatility: Volatility,
    /// Whether a NULL argument makes the result NULL.
    #[serde(default)]
    pub(crate) is_strict: bool,
    pub(crate) search_path: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredParameter {
    pub(crate) name: Option<String>,
    pub(crate) mode: Mode,
    pub(crate) type_name: String,
    /// SQL text of its default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) default: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum StoredReturns {
    Void,
    Value(String),
    Record,
    /// `SETOF type`; of a table: its rows.
    Values(String),
    /// `SETOF record`: the OUT parameters are the columns.
    Records,
    /// `TABLE (name type, …)`
    Table(Vec<(String, String)>),
}

/// What a function promises about its results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Volatility {
    Volatile,
    Stable,
    Immutable,
}

impl RoutineDefinition {
    pub(crate) fn of(object: &ObjectDef) -> Result<Self> {
        serde_json::from_str(&object.definition)
            .map_err(|error| Error::internal(format!("the definition of routine \"{}\": {error}", object.name)))
    }

    pub(crate) fn text(&self) -> Result<String> {
        serde_json::to_string(self).map_err(|error| Error::internal(format!("keeping a routine: {error}")))
    }

    /// `function` or `procedure`.
    pub(crate) fn kind(&self) -> &'static str {
        if self.is_procedure { "procedure" } else { "function" }
    }

    /// What information_schema says it returns; nothing for a procedure.
    pub(crate) fn result_name(&self) -> Option<String> {
        if self.is_procedure {
            return None;
        }
        let mut outputs = self.parameters.iter().filter(|parameter| parameter.mode.is_output());
        Some(match &self.returns {
            StoredReturns::Void => match (outputs.next(), outputs.next()) {
                (None, _) => "void".to_owned(),
                (Some(only), None) => only.type_name.clone(),
                _ => "record".to_owned(),
            },
            StoredReturns::Value(name) | StoredReturns::Values(name) => name.clone(),
            StoredReturns::Record | StoredReturns::Records | StoredReturns::Table(_) => "record".to_owned(),
        })
    }

    /// The name under which the catalog keeps it: routines of one name differ in their inputs.
    pub(crate) fn identity(&self) -> String {
        let inputs = self.parameters.iter().filter(|parameter| parameter.mode.is_input());
        identity_of(&self.name, inputs.map(|parameter| parameter.type_name.as_str()))
    }
}

/// `f(integer,text)`; lengths and precisions make no difference.
pub(crate) fn identity_of<'a>(name: &str, types: impl Iterator<Item = &'a str>) -> String {
    format!("{name}({})", types.map(without_length).collect::<Vec<_>>().join(","))
}

/// `numeric(12,2)[]` as `numeric[]`.
fn without_length(name: &str) -> String {
    match (name.split_once('('), name.rsplit_once(')')) {
        (Some((before, _)), Some((_, after))) => format!("{before}{after}"),
        _ => name.to_owned(),
    }
}

/// A routine that can be called.
#[derive(Debug)]
pub(crate) struct Routine {
    pub(crate) object: Arc<ObjectDef>,
    pub(crate) definition: RoutineDefinition,
    pub(crate) source: Source,
    /// Defaults of the inputs, in order.
    pub(crate) defaults: Vec<Option<String>>,
    /// The type of a call's value.
    pub(crate) result: SqlType,
    language: Arc<dyn Language>,
    program: OnceLock<Result<Arc<dyn Program>>>,
}

/// The error for a language that nobody knows.
pub(crate) fn no_language(name: &str, known: &[Arc<dyn Language>]) -> Error {
    let names: Vec<&str> = known.iter().map(|language| language.name()).collect();
    let error = Error::new(sqlstate::UNDEFINED_OBJECT, format!("language \"{name}\" does not exist"));
    match names.is_empty() {
        true => error,
        false => error.with_hint(format!("There are: {}.", names.join(", "))),
    }
}

impl Routine {
    /// Loads a routine, without compiling it.
    pub(crate) fn new(
        context: &StatementContext,
        object: &Arc<ObjectDef>,
        languages: &[Arc<dyn Language>],
    ) -> Result<Routine> {
        Self::of_definition(context, object, RoutineDefinition::of(object)?, languages)
    }

    pub(crate) fn of_definition(
        context: &StatementContext,
        object: &Arc<ObjectDef>,
        definition: RoutineDefinition,
        languages: &[Arc<dyn Language>],
    ) -> Result<Routine> {
        let language = languages
            .iter()
            .find(|language| language.name() == definition.language)
            .ok_or_else(|| no_language(&definition.language, languages))?;
        let context = &context.clone().within(&definition.search_path);
        let parameters = definition.parameters.iter().map(|parameter| {
            let StoredParameter { name, mode, type_name, default: _ } = parameter;
            Ok(Parameter { name: name.clone(), mode: *mode, sql_type: resolve_type(context, type_name)? })
        });
        let parameters = parameters.collect::<Result<Vec<_>>>()?;
        let outputs = || -> Vec<(String, SqlType)> {
            let outputs = parameters.iter().filter(|parameter| parameter.mode.is_output());
            let named = |(place, parameter): (usize, &Parameter)| {
                let name = parameter.name.clone().unwrap_or_else(|| format!("column{}", place + 1));
                (name, parameter.sql_type.clone())
            };
            outputs.enumerate().map(named).collect()
        };
        let shape = |columns: Vec<(String, SqlType)>| {
            let (names, types) = columns.into_iter().unzip();
            Shape { names, types }
        };
        let returns = match &definition.returns {
            StoredReturns::Void => match outputs() {
                columns if columns.is_empty() || definition.is_procedure => Returns::Void,
                mut columns if columns.len() == 1 => Returns::Value(columns.remove(0).1),
                columns => Returns::Value(shape(columns).row_type()),
            },
            StoredReturns::Value(name) => Returns::Value(resolve_type(context, name)?),
            StoredReturns::Record => match outputs() {
                columns if columns.is_empty() => {
                    return Err(Error::unsupported("RETURNS record without OUT parameters")
                        .with_hint("RETURNS TABLE (name type, …), or OUT parameters, say what the columns are."));
                }
                columns => Returns::Value(shape(columns).row_type()),
            },
            StoredReturns::Values(name) => {
                let element = resolve_type(context, name)?;
                match element.shape() {
                    Some(shape) => Returns::Rows(Arc::new(shape)),
                    None => Returns::Values(element),
                }
            }
            StoredReturns::Records => match outputs() {
                columns if columns.is_empty() => {
                    return Err(Error::unsupported("SETOF record without OUT parameters")
                        .with_hint("RETURNS TABLE (name type, …) says what the columns are."));
                }
                columns => Returns::Rows(Arc::new(shape(columns))),
            },
            StoredReturns::Table(columns) => {
                let columns = columns.iter().map(|(name, kind)| Ok((name.clone(), resolve_type(context, kind)?)));
                Returns::Rows(Arc::new(shape(columns.collect::<Result<Vec<_>>>()?)))
            }
        };
        let result = match &returns {
            // As in PostgreSQL, the value of a void function is an empty text where one is asked for.
            Returns::Void => SqlType::text(),
            Returns::Value(sql_type) | Returns::Values(sql_type) => sql_type.clone(),
            Returns::Rows(shape) => shape.row_type(),
        };
        let inputs = parameters.iter().filter(|parameter| parameter.mode.is_input());
        let types = inputs.map(|parameter| parameter.sql_type.name());
        let source = Source {
            name: definition.name.clone(),
            signature: identity_of(&definition.name, types),
            is_procedure: definition.is_procedure,
            returns,
            names_columns: matches!(definition.returns, StoredReturns::Table(_)),
            body: definition.body.clone(),
            parameters,
        };
        let stored = definition.parameters.iter().filter(|parameter| parameter.mode.is_input());
        let defaults = stored.map(|parameter| parameter.default.clone()).collect();
        let (object, language) = (Arc::clone(object), Arc::clone(language));
        Ok(Routine { object, definition, source, defaults, result, language, program: OnceLock::new() })
    }

    pub(crate) fn id(&self) -> ObjectId {
        self.object.id
    }

    /// The compiled routine.
    pub(crate) fn program(&self) -> Result<Arc<dyn Program>> {
        self.program.get_or_init(|| self.language.compile(&self.source)).clone()
    }

    /// The types of the inputs, in order.
    pub(crate) fn input_types(&self) -> impl Iterator<Item = &SqlType> {
        self.source.inputs().map(|(_, parameter)| &parameter.sql_type)
    }

    /// The columns of its rows, or of its value as a row.
    pub(crate) fn columns(&self, name: &str) -> Shape {
        match &self.source.returns {
            Returns::Rows(shape) => Shape::clone(shape),
            _ => match self.result.shape() {
                Some(shape) => shape,
                None => Shape { names: vec![name.to_owned()], types: vec![self.result.clone()] },
            },
        }
    }

    /// The columns of the row that CALL answers with; `None`: it has no OUT parameters.
    pub(crate) fn output_shape(&self) -> Option<Shape> {
        let (mut names, mut types) = (Vec::new(), Vec::new());
        for (place, (_, parameter)) in self.source.outputs().enumerate() {
            names.push(parameter.name.clone().unwrap_or_else(|| format!("column{}", place + 1)));
            types.push(parameter.sql_type.clone());
        }
        (!names.is_empty()).then_some(Shape { names, types })
    }

    /// How well it fits arguments of these types (`None`: of any type): the number of arguments that need no
    /// conversion, or `None` if it cannot be called with them.
    pub(crate) fn fit(&self, arguments: &[Option<DataType>]) -> Option<usize> {
        if arguments.len() > self.defaults.len()
            || self.defaults[arguments.len()..].iter().any(|default| default.is_none())
        {
            return None;
        }
        let mut exact = 0;
        for (given, wanted) in arguments.iter().zip(self.input_types()) {
            match given {
                // A literal without a type is a text, unless it has to be something else.
                None | Some(DataType::Null) => exact += usize::from(wanted.data_type.is_string()),
                Some(given) if wanted.data_type == *given => exact += 2,
                Some(given) => {
                    if !converts(given, &wanted.data_type) {
                        return None;
                    }
                    exact += usize::from(same_family(given, &wanted.data_type));
                }
            }
        }
        // Without defaults it fits better.
        Some(exact * 2 + usize::from(arguments.len() == self.defaults.len()))
    }
}

fn same_family(from: &DataType, to: &DataType) -> bool {
    (from.is_string() && to.is_string())
        || (from.is_integer() && to.is_integer())
        || (from.is_decimal() && to.is_decimal())
        || (from.is_floating() && to.is_floating())
        || (from.is_temporal() && to.is_temporal())
}

/// Whether a value of one type is taken for a parameter of another without being asked.
fn converts(from: &DataType, to: &DataType) -> bool {
    match (from, to) {
        (DataType::List(from), DataType::List(to)) => converts(from.data_type(), to.data_type()),
        (DataType::Struct(from), DataType::Struct(to)) => from.len() == to.len(),
        (DataType::List(_) | DataType::Struct(_), _) | (_, DataType::List(_) | DataType::Struct(_)) => false,
        (from, to) if from.is_numeric() && to.is_numeric() => true,
        _ => same_family(from, to) || from == to,
    }
}

/// The best of several routines for arguments of these types.
pub(crate) fn choose(name: &str, candidates: &[Arc<Routine>], arguments: &[Option<DataType>]) -> Result<Arc<Routine>> {
    let fits = candidates.iter().filter_map(|routine| Some((routine.fit(arguments)?, routine)));
    let best = fits.clone().map(|(fit, _)| fit).max();
    let mut winners = fits.filter(|(fit, _)| Some(*fit) == best).map(|(_, routine)| routine);
    let types = || {
        let name = |given: &Option<DataType>| given.as_ref().map_or("unknown".to_owned(), super::types::type_name);
        arguments.iter().map(name).collect::<Vec<_>>().join(", ")
    };
    match (winners.next(), winners.next()) {
        (Some(routine), None) => Ok(Arc::clone(routine)),
        (Some(_), Some(_)) => {
            Err(Error::new(sqlstate::AMBIGUOUS_FUNCTION, format!("{name}({}) is not unique", types()))
                .with_hint("Cast the arguments to the types that are meant."))
        }
        (None, _) => {
            let kind = candidates.first().map_or("function", |routine| routine.definition.kind());
            let error = Error::new(sqlstate::UNDEFINED_FUNCTION, format!("{kind} {name}({}) does not exist", types()));
            Err(match candidates.first() {
                Some(other) => error.with_hint(format!("There is {}.", other.source.signature)),
                None => error,
            })
        }
    }
}

/// A column for each part of a shape.
pub(crate) fn schema_of(shape: &Shape) -> arrow::datatypes::SchemaRef {
    let fields =
        shape.names.iter().zip(&shape.types).map(|(name, kind)| Field::new(name, kind.data_type.clone(), true));
    Arc::new(arrow::datatypes::Schema::new(fields.collect::<Vec<_>>()))
}
