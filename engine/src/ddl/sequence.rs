//! CREATE SEQUENCE and ALTER SEQUENCE, and the sequences behind serial and identity columns.

use std::ops::ControlFlow;

use arrow::datatypes::DataType;
use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName, ObjectNamePart,
    SequenceOptions, UnaryOperator, Value, ValueWithSpan, VisitMut, VisitorMut,
};
use rustydb_storage::{ObjectDef, ObjectKind, SequenceSpec, SequenceState, TableDef, Transaction};

use super::declaration::ColumnSequence;
use super::table::new_name;
use crate::dml::defaults::column_index;
use crate::error::sqlstate;
use crate::sequences::{Owner, SequenceDefinition, is_function};
use crate::session::{Completion, Statement};
use crate::sql::context::StatementContext;
use crate::sql::route::{AlterSequenceStatement, CreateSequenceStatement};
use crate::sql::text::parse::{fold, relation_name, table_name};
use crate::sql::types::column_type;
use crate::{DEFAULT_SCHEMA, Error, Result};

/// `nextval('schema.name')`, the default of a column that a sequence numbers. With the schema: whoever inserts rows may look for
/// names elsewhere first.
pub(crate) fn nextval_text(schema: &str, name: &str) -> String {
    format!("nextval('{}')", full_name(schema, name).replace('\'', "''"))
}

/// All forms that the default has: older releases wrote names in the default schema without it.
pub(super) fn nextval_texts(schema: &str, name: &str) -> Vec<String> {
    let bare = (schema == DEFAULT_SCHEMA).then(|| format!("nextval('{}')", quoted(name).replace('\'', "''")));
    std::iter::once(nextval_text(schema, name)).chain(bare).collect()
}

fn full_name(schema: &str, name: &str) -> String {
    format!("{}.{}", quoted(schema), quoted(name))
}

fn quoted(name: &str) -> String {
    match name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_') {
        true => name.to_owned(),
        false => format!("\"{}\"", name.replace('"', "\"\"")),
    }
}

/// A default in which each sequence has its full name: it stays the one that was meant when the default was declared.
pub(super) fn with_full_names(context: &StatementContext, mut default: Expr) -> Expr {
    struct Naming<'a>(&'a StatementContext);
    impl VisitorMut for Naming<'_> {
        type Break = ();
        fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
            if let Expr::Function(function) = expr {
                name_in_full(self.0, function);
            }
            ControlFlow::Continue(())
        }
    }
    let _ = VisitMut::visit(&mut default, &mut Naming(context));
    default
}

fn name_in_full(context: &StatementContext, function: &mut Function) {
    let [ObjectNamePart::Identifier(called)] = function.name.0.as_mut_slice() else { return };
    let FunctionArguments::List(arguments) = &mut function.args else { return };
    let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))) = arguments.args.first_mut() else { return };
    // `'s'::regclass` is the text.
    let text = match &*argument {
        Expr::Cast { expr, .. } => expr.as_ref(),
        other => other,
    };
    let Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(text), .. }) = text else { return };
    if !is_function(&fold(called)) {
        return;
    }
    let Ok((schema, name)) = relation_name(text) else { return };
    let Some(sequence) = context.object(ObjectKind::Sequence, schema.as_deref(), &name) else { return };
    let text = Value::SingleQuotedString(full_name(&sequence.schema_name, &sequence.name));
    *argument = Expr::Value(text.with_empty_span());
    *called = Ident::new(fold(called));
}

pub(crate) fn create_sequence(
    statement: &Statement<'_>,
    transaction: &mut Transaction,
    create: CreateSequenceStatement,
) -> Result<Completion> {
    let CreateSequenceStatement { name, temporary, if_not_exists, data_type, options, owned_by } = create;
    let context = statement.context(transaction.view());
    let Some((schema_name, sequence_name)) = new_name(&context, &name, if_not_exists, temporary)? else {
        return Ok(Completion::new("CREATE SEQUENCE"));
    };
    let data_type = match data_type {
        None => DataType::Int64,
        Some(data_type) => column_type(&data_type)?.data_type,
    };
    let owner = owned_by.map(|owner| owner_of(&context, owner, &schema_name)).transpose()?;
    drop(context);
    let definition = SequenceDefinition {
        data_type: type_name(&data_type)?,
        spec: spec(&data_type, &options)?,
        owner,
        comment: None,
    };
    transaction.create_object(ObjectKind::Sequence, schema_name, sequence_name, definition.text()?)?;
    Ok(Completion::new("CREATE SEQUENCE"))
}

/// Makes the sequence of a serial or identity column.
pub(crate) fn create_column_sequence(
    transaction: &mut Transaction,
    table: &TableDef,
    sequence: ColumnSequence,
) -> Result<()> {
    let ColumnSequence { column, name, data_type, options, identity } = sequence;
    let owner = Some(Owner { table: table.id.0, column, identity });
    let definition = SequenceDefinition {
        data_type: type_name(&data_type)?,
        spec: spec(&data_type, &options)?,
        owner,
        comment: None,
    };
    transaction.create_object(ObjectKind::Sequence, table.schema_name.clone(), name, definition.text()?)?;
    Ok(())
}

pub(crate) fn alter_sequence(
    statement: &Statement<'_>,
    transaction: &mut Transaction,
    alter: AlterSequenceStatement,
) -> Result<Completion> {
    let AlterSequenceStatement { name, if_exists, options, restart, owned_by } = alter;
    let context = statement.context(transaction.view());
    let (schema, plain_name) = table_name(&name)?;
    let Some(object) = context.object(ObjectKind::Sequence, schema.as_deref(), &plain_name).cloned() else {
        return match if_exists {
            true => Ok(Completion::new("ALTER SEQUENCE")),
            false => Err(Error::new(sqlstate::UNDEFINED_TABLE, format!("relation \"{plain_name}\" does not exist"))),
        };
    };
    if let Some(owned_by) = owned_by {
        let old = SequenceDefinition::of(&object)?;
        if old.owner.as_ref().is_some_and(|owner| owner.identity) {
            return Err(Error::unsupported("another owner of an identity column's sequence"));
        }
        let owner = owned_by.map(|owner| owner_of(&context, owner, &object.schema_name)).transpose()?;
        let definition = SequenceDefinition { owner, ..old };
        let (schema_name, name) = (object.schema_name.clone(), object.name.clone());
        drop(context);
        let object = transaction.replace_object(object.id, schema_name, name, definition.text()?)?;
        change_sequence(statement, transaction, &object, &options, restart)?;
    } else {
        drop(context);
        change_sequence(statement, transaction, &object, &options, restart)?;
    }
    Ok(Completion::new("ALTER SEQUENCE"))
}

/// Changes a sequence's rule, and where it goes on.
pub(super) fn change_sequence(
    statement: &Statement<'_>,
    transaction: &mut Transaction,
    object: &ObjectDef,
    options: &[SequenceOptions],
    restart: Option<Option<Expr>>,
) -> Result<()> {
    let old = SequenceDefinition::of(object)?;
    let spec = change(old.spec, &data_type_of(&old.data_type), options)?;
    let definition = SequenceDefinition { spec, ..old };
    let (schema_name, name) = (object.schema_name.clone(), object.name.clone());
    transaction.replace_object(object.id, schema_name, name, definition.text()?)?;
    if let Some(restart) = restart {
        let value = restart.as_ref().map(integer).transpose()?.unwrap_or(spec.start);
        check_within(&spec, "RESTART", value)?;
        statement.database.store().sequence_set(object.id, SequenceState { value, called: false })?;
    }
    Ok(())
}

/// The column that OWNED BY names, of a table in the sequence's schema.
fn owner_of(context: &StatementContext, parts: ObjectName, sequence_schema: &str) -> Result<Owner> {
    let mut parts = parts.0;
    let column = parts.pop().and_then(|part| part.as_ident().map(fold));
    let (Some(column), false) = (column, parts.is_empty()) else {
        return Err(Error::syntax("invalid OWNED BY option").with_hint("Write OWNED BY table.column."));
    };
    let (schema, table) = table_name(&ObjectName(parts))?;
    let table = context.table(schema.as_deref(), &table)?;
    column_index(table, &column)?;
    if table.schema_name != sequence_schema {
        let message = "sequence must be in same schema as table it is linked to";
        return Err(Error::new(sqlstate::NOT_IN_PREREQUISITE_STATE, message));
    }
    Ok(Owner { table: table.id.0, column, identity: false })
}

fn type_name(data_type: &DataType) -> Result<String> {
    Ok(match data_type {
        DataType::Int16 => "smallint",
        DataType::Int32 => "integer",
        DataType::Int64 => "bigint",
        _ => {
            let message = "sequence type must be smallint, integer, or bigint";
            return Err(Error::new(sqlstate::INVALID_PARAMETER_VALUE, message));
        }
    }
    .to_owned())
}

fn data_type_of(name: &str) -> DataType {
    match name {
        "smallint" => DataType::Int16,
        "integer" => DataType::Int32,
        _ => DataType::Int64,
    }
}

/// The rule of a new sequence.
fn spec(data_type: &DataType, options: &[SequenceOptions]) -> Result<SequenceSpec> {
    let unset = SequenceSpec { start: 0, increment: 1, minimum: 0, maximum: 0, cycle: false, cache: 1 };
    let mut complete = options.to_vec();
    let given = |wanted: fn(&SequenceOptions) -> bool| options.iter().any(wanted);
    if !given(|option| matches!(option, SequenceOptions::MinValue(_))) {
        complete.push(SequenceOptions::MinValue(None));
    }
    if !given(|option| matches!(option, SequenceOptions::MaxValue(_))) {
        complete.push(SequenceOptions::MaxValue(None));
    }
    let mut spec = change_unchecked(unset, data_type, &complete)?;
    if !given(|option| matches!(option, SequenceOptions::StartWith(..))) {
        spec.start = if spec.increment > 0 { spec.minimum } else { spec.maximum };
    }
    check(spec)
}

fn change(spec: SequenceSpec, data_type: &DataType, options: &[SequenceOptions]) -> Result<SequenceSpec> {
    check(change_unchecked(spec, data_type, options)?)
}

fn change_unchecked(mut spec: SequenceSpec, data_type: &DataType, options: &[SequenceOptions]) -> Result<SequenceSpec> {
    let invalid = |message: &str| Error::new(sqlstate::INVALID_PARAMETER_VALUE, message);
    for option in options {
        if let SequenceOptions::IncrementBy(step, _) = option {
            spec.increment = integer(step)?;
        }
    }
    if spec.increment == 0 {
        return Err(invalid("INCREMENT must not be zero"));
    }
    let (lowest, highest) = match data_type {
        DataType::Int16 => (i64::from(i16::MIN), i64::from(i16::MAX)),
        DataType::Int32 => (i64::from(i32::MIN), i64::from(i32::MAX)),
        _ => (i64::MIN, i64::MAX),
    };
    let upwards = spec.increment > 0;
    for option in options {
        match option {
            SequenceOptions::IncrementBy(..) => {}
            SequenceOptions::MinValue(Some(value)) => spec.minimum = integer(value)?,
            SequenceOptions::MinValue(None) => spec.minimum = if upwards { 1 } else { lowest },
            SequenceOptions::MaxValue(Some(value)) => spec.maximum = integer(value)?,
            SequenceOptions::MaxValue(None) => spec.maximum = if upwards { highest } else { -1 },
            SequenceOptions::StartWith(value, _) => spec.start = integer(value)?,
            SequenceOptions::Cache(count) => {
                spec.cache = u64::try_from(integer(count)?)
                    .ok()
                    .filter(|count| *count > 0)
                    .ok_or_else(|| invalid("CACHE must be greater than zero"))?;
            }
            SequenceOptions::Cycle(no) => spec.cycle = !no,
        }
    }
    for (name, value) in [("MINVALUE", spec.minimum), ("MAXVALUE", spec.maximum)] {
        if !(lowest..=highest).contains(&value) {
            return Err(invalid(&format!("{name} ({value}) is out of range for the sequence's data type")));
        }
    }
    Ok(spec)
}

fn check(spec: SequenceSpec) -> Result<SequenceSpec> {
    if spec.minimum >= spec.maximum {
        let message = format!("MINVALUE ({}) must be less than MAXVALUE ({})", spec.minimum, spec.maximum);
        return Err(Error::new(sqlstate::INVALID_PARAMETER_VALUE, message));
    }
    check_within(&spec, "START", spec.start)?;
    Ok(spec)
}

fn check_within(spec: &SequenceSpec, what: &str, value: i64) -> Result<()> {
    let (relation, bound) = match value {
        value if value < spec.minimum => ("less than MINVALUE", spec.minimum),
        value if value > spec.maximum => ("greater than MAXVALUE", spec.maximum),
        _ => return Ok(()),
    };
    let message = format!("{what} value ({value}) cannot be {relation} ({bound})");
    Err(Error::new(sqlstate::INVALID_PARAMETER_VALUE, message))
}

/// A whole number, perhaps with a sign.
fn integer(expr: &Expr) -> Result<i64> {
    let text = match expr {
        Expr::Value(ValueWithSpan { value: Value::Number(digits, _), .. }) => digits.clone(),
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => match expr.as_ref() {
            Expr::Value(ValueWithSpan { value: Value::Number(digits, _), .. }) => format!("-{digits}"),
            other => other.to_string(),
        },
        Expr::UnaryOp { op: UnaryOperator::Plus, expr } => return integer(expr),
        other => other.to_string(),
    };
    text.parse().map_err(|_| Error::syntax(format!("\"{expr}\" is not a whole number that fits bigint")))
}
