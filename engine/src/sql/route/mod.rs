//! Which of our statements a syntax tree is.
//!
//! Invariant: nothing is ignored. Every statement we take is taken apart field by field, without `..`; a clause we do not
//! have is refused by its name with 0A000, and so is every statement not listed in [`Routed`].

mod ddl;
mod dml;
mod with;
mod write;

use datafusion::logical_expr::ExplainFormat;
use datafusion::sql::sqlparser::ast::{
    AnalyzeFormat, AnalyzeFormatKind, ContextModifier, DescribeAlias, DiscardObject, Expr, Function, Ident, Lock,
    LockTableTarget, ObjectName, Query, Reset, SelectInto, Set, SetExpr, Spanned, Statement, UtilityOption, Value,
    ValueWithSpan,
};

pub(crate) use ddl::{
    AlterOperation, AlterSequenceStatement, AlterTableStatement, CheckOption, CommentStatement, Commented,
    CreateSequenceStatement, CreateViewStatement, DropKind, DropStatement, IdentityChange, RelationKind,
    RelocateStatement, Relocation, TruncateStatement, route_create_view,
};
use ddl::{route_alter_table, route_create_schema, route_drop, route_truncate};
pub(crate) use dml::{ConflictClause, DeleteStatement, InsertStatement, MergeStatement, UpdateStatement, ViewCheck};
use dml::{route_delete, route_insert, route_merge, route_update};
pub(crate) use with::{WithPart, WithStatement, WithStep};
use with::{forget_clauses_apart, route_query};
use write::route_create_table;
pub(crate) use write::{CreateSchemaStatement, CreateTableStatement, LikeClause, LikePart, Write};

use rustydb_storage::LockMode;

use super::check::refuse;
use super::plan::ExplainOptions;
use crate::sql::grammar::lock::{LockingQuery, locks_rows, table_mode, take_locks};
use crate::sql::grammar::maintenance::MaintenanceStatement;
use crate::sql::grammar::named::NamedStatement;
use crate::sql::grammar::routine::RoutineSyntax;
use crate::sql::grammar::transaction::TransactionStatement;
use crate::sql::grammar::user::UserStatement;
use crate::sql::text::parse::{ParsedStatement, fold, place};
use crate::{Error, Result};

/// A statement of ours, with only the clauses we have.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "one for each statement, moved a few times")]
pub(crate) enum Routed {
    Query(Box<Query>),
    SelectAndLock(LockingQuery),
    LockTables {
        names: Vec<ObjectName>,
        mode: LockMode,
        nowait: bool,
    },
    Explain {
        options: ExplainOptions,
        statement: Box<Routed>,
    },
    Describe(ObjectName),
    DescribeQuery(Box<Query>),
    ShowTables,
    Show(String),
    ShowAll,
    Set {
        name: String,
        value: SettingValue,
        local: bool,
    },
    Reset(Option<String>),
    Transaction(TransactionStatement),
    Discard(DiscardObject),
    /// PREPARE, EXECUTE, DEALLOCATE
    Named(NamedStatement),
    User(UserStatement),
    Maintenance(MaintenanceStatement),
    /// CALL
    Call(Function),
    /// DO
    Do {
        language: String,
        body: String,
    },
    Write(Box<Write>),
}

impl Routed {
    /// Whether it is allowed in a failed transaction.
    pub(crate) fn ends_failure(&self) -> bool {
        matches!(self, Routed::Transaction(statement) if statement.ends_failure())
    }
}

/// What SET gives a setting.
#[derive(Debug, Clone)]
pub(crate) enum SettingValue {
    Default,
    Text(String),
}

/// Finds out what to do with a statement, or refuses it by name.
pub(crate) fn route(statement: ParsedStatement) -> Result<Routed> {
    match statement {
        ParsedStatement::Copy(copy) if copy.to => write(Write::CopyTo(copy)),
        ParsedStatement::Copy(copy) => write(Write::CopyFrom(copy)),
        ParsedStatement::Transaction(transaction) => Ok(Routed::Transaction(transaction)),
        ParsedStatement::Named(named) => Ok(Routed::Named(named)),
        ParsedStatement::User(statement) => Ok(Routed::User(statement)),
        ParsedStatement::Maintenance(maintenance) => Ok(Routed::Maintenance(maintenance)),
        ParsedStatement::Routine(RoutineSyntax::Create(create)) => write(Write::CreateRoutine(create)),
        ParsedStatement::Routine(RoutineSyntax::Drop(dropped)) => write(Write::DropRoutine(dropped)),
        ParsedStatement::Routine(RoutineSyntax::Do { language, body }) => Ok(Routed::Do { language, body }),
        ParsedStatement::Own(statement) => Ok(Routed::Write(statement)),
        ParsedStatement::Sql(statement) => route_sql(*statement),
    }
}

fn write(statement: Write) -> Result<Routed> {
    Ok(Routed::Write(Box::new(statement)))
}

/// The table that `SELECT … INTO` makes of its rows.
fn take_into(query: &mut Query) -> Option<SelectInto> {
    match query.body.as_mut() {
        SetExpr::Select(select) => select.into.take(),
        _ => None,
    }
}

fn route_sql(statement: Statement) -> Result<Routed> {
    match statement {
        Statement::Query(mut query) => {
            if let Some(SelectInto { temporary, unlogged: _, table: _, name }) = take_into(&mut query) {
                return write(Write::CreateTable(Box::new(CreateTableStatement::of_query(name, temporary, query))));
            }
            match route_query(query)? {
                WithPart::Query(query) if locks_rows(&query) => Ok(Routed::SelectAndLock(take_locks(query)?)),
                WithPart::Query(query) => Ok(Routed::Query(query)),
                WithPart::Write(statement) => Ok(Routed::Write(statement)),
            }
        }
        Statement::Lock(Lock { tables, lock_mode, nowait }) => {
            let names = tables.into_iter().map(|LockTableTarget { name, only: _, has_asterisk: _ }| name).collect();
            Ok(Routed::LockTables { names, mode: table_mode(lock_mode), nowait })
        }
        Statement::Insert(insert) => write(Write::Insert(route_insert(insert)?)),
        Statement::Update(update) => write(Write::Update(route_update(update)?)),
        Statement::Delete(delete) => write(Write::Delete(route_delete(delete)?)),
        Statement::Merge(merge) => write(Write::Merge(Box::new(route_merge(merge)?))),
        Statement::CreateTable(create) => write(Write::CreateTable(Box::new(route_create_table(create)?))),
        drop @ Statement::Drop { .. } => write(route_drop(drop)?),
        Statement::CreateView(view) => write(Write::CreateView(Box::new(route_create_view(view)?))),
        schema @ Statement::CreateSchema { .. } => write(route_create_schema(schema)?),
        Statement::AlterTable(alter) => write(Write::AlterTable(Box::new(route_alter_table(alter)?))),
        Statement::CreateIndex(index) => write(Write::CreateIndex(Box::new(index))),
        Statement::Truncate(truncate) => write(Write::Truncate(route_truncate(truncate)?)),
        Statement::Explain { describe_alias, analyze, verbose, query_plan, estimate, statement, format, options } => {
            refuse(query_plan, "EXPLAIN QUERY PLAN")?;
            refuse(estimate, "EXPLAIN ESTIMATE")?;
            if !matches!(describe_alias, DescribeAlias::Explain) {
                return match *statement {
                    Statement::Query(query) => Ok(Routed::DescribeQuery(query)),
                    _ => Err(Error::unsupported("DESCRIBE of a statement other than a query")),
                };
            }
            route_explain(analyze, verbose, format, options, *statement)
        }
        Statement::ExplainTable { describe_alias, hive_format, has_table_keyword: _, table_name } => {
            refuse(hive_format.is_some(), "DESCRIBE EXTENDED or FORMATTED")?;
            match describe_alias {
                DescribeAlias::Explain => {
                    Err(Error::syntax(format!("syntax error: EXPLAIN takes a statement, not \"{table_name}\""))
                        .at(place(table_name.span())))
                }
                DescribeAlias::Describe | DescribeAlias::Desc => Ok(Routed::Describe(table_name)),
            }
        }
        Statement::ShowTables { terse, history, extended, full, external, show_options } => {
            refuse(terse || history || extended || full || external, "a modifier of SHOW TABLES")?;
            refuse(
                show_options.show_in.is_some()
                    || show_options.starts_with.is_some()
                    || show_options.limit.is_some()
                    || show_options.limit_from.is_some()
                    || show_options.filter_position.is_some(),
                "a filter of SHOW TABLES",
            )
            .map_err(|error| error.with_hint("Query information_schema.tables."))?;
            Ok(Routed::ShowTables)
        }
        Statement::ShowVariable { variable } => {
            let name = setting_name(&variable);
            Ok(if name == "all" { Routed::ShowAll } else { Routed::Show(name) })
        }
        Statement::Discard { object_type } => Ok(Routed::Discard(object_type)),
        Statement::Call(function) => Ok(Routed::Call(function)),
        Statement::Set(set) => route_set(set),
        Statement::Reset(reset) => Ok(Routed::Reset(match reset.reset {
            Reset::ALL => None,
            Reset::ConfigurationParameter(name) => Some(name.to_string().to_ascii_lowercase()),
        })),
        other => Err(Error::unsupported(statement_name(&other))),
    }
}

/// The leading keywords of a statement: "CREATE INDEX", "SAVEPOINT".
fn statement_name(statement: &Statement) -> String {
    let text = statement.to_string();
    let keyword = |word: &&str| word.len() > 1 && word.chars().all(|letter| letter.is_ascii_uppercase());
    let words: Vec<&str> = text.split([' ', '\n', '(']).take_while(keyword).take(2).collect();
    if words.is_empty() { "this statement".to_owned() } else { words.join(" ") }
}

fn route_explain(
    analyze: bool,
    verbose: bool,
    format: Option<AnalyzeFormatKind>,
    utility_options: Option<Vec<UtilityOption>>,
    mut statement: Statement,
) -> Result<Routed> {
    let mut options = ExplainOptions { analyze, verbose, format: ExplainFormat::Indent };
    match format {
        None => {}
        Some(AnalyzeFormatKind::Keyword(format) | AnalyzeFormatKind::Assignment(format)) => {
            options.format = match format {
                AnalyzeFormat::TEXT => ExplainFormat::Indent,
                AnalyzeFormat::JSON => ExplainFormat::PostgresJSON,
                AnalyzeFormat::TREE => ExplainFormat::Tree,
                AnalyzeFormat::GRAPHVIZ => ExplainFormat::Graphviz,
                AnalyzeFormat::TRADITIONAL => return Err(Error::unsupported("EXPLAIN FORMAT TRADITIONAL")),
            };
        }
    }
    for UtilityOption { name, arg } in utility_options.into_iter().flatten() {
        let value = arg.as_ref().map(|value| value.to_string().trim_matches('\'').to_ascii_lowercase());
        let on = match value.as_deref() {
            None | Some("true" | "on" | "1") => true,
            Some(_) => false,
        };
        match (name.value.to_ascii_lowercase().as_str(), value.as_deref()) {
            ("analyze", _) => options.analyze = on,
            ("verbose", _) => options.verbose = on,
            ("format", Some("text")) => options.format = ExplainFormat::Indent,
            ("format", Some("json")) => options.format = ExplainFormat::PostgresJSON,
            ("format", Some("tree")) => options.format = ExplainFormat::Tree,
            ("format", Some("graphviz")) => options.format = ExplainFormat::Graphviz,
            // Of what a plan shows here none of these is a part that could be left out.
            (
                "costs" | "timing" | "summary" | "buffers" | "wal" | "settings",
                None | Some("true" | "on" | "1" | "false" | "off" | "0"),
            ) => {}
            (other, _) => {
                return Err(Error::unsupported(format!("EXPLAIN option {}", other.to_ascii_uppercase()))
                    .with_hint("Options are ANALYZE, VERBOSE and FORMAT text, json, tree or graphviz; COSTS and the like are ignored.")
                    .at(place(name.span)));
            }
        }
    }
    if let Statement::Query(query) = &mut statement {
        forget_clauses_apart(query);
    }
    let statement = route_sql(statement)?;
    let changes_rows = match &statement {
        Routed::Query(_) => false,
        Routed::Write(write) => {
            matches!(**write, Write::Insert(_) | Write::Update(_) | Write::Delete(_) | Write::Merge(_))
        }
        _ => return Err(Error::unsupported("EXPLAIN of this statement")),
    };
    refuse(changes_rows && options.analyze, "EXPLAIN ANALYZE of a statement that changes rows")?;
    refuse(!changes_rows && matches!(statement, Routed::Write(_)), "EXPLAIN of this statement")?;
    Ok(Routed::Explain { options, statement: Box::new(statement) })
}

fn route_set(set: Set) -> Result<Routed> {
    match set {
        Set::SingleAssignment { scope, hivevar, variable, values } => {
            refuse(hivevar, "SET HIVEVAR")?;
            let local = matches!(scope, Some(ContextModifier::Local));
            refuse(matches!(scope, Some(ContextModifier::Global)), "SET GLOBAL")?;
            let name = match variable.to_string().to_ascii_lowercase() {
                name if name == "schema" => "search_path".to_owned(),
                name => name,
            };
            let value = match values.as_slice() {
                [_] => setting_value(&values)?,
                several if matches!(name.as_str(), "search_path" | "datestyle") => {
                    let names = several.iter().map(|value| match setting_value(std::slice::from_ref(value))? {
                        SettingValue::Text(text) => Ok(text),
                        SettingValue::Default => Ok(crate::DEFAULT_SCHEMA.to_owned()),
                    });
                    SettingValue::Text(names.collect::<Result<Vec<_>>>()?.join(","))
                }
                _ => setting_value(&values)?,
            };
            Ok(Routed::Set { name, value, local })
        }
        Set::SetTimeZone { local, value } => {
            Ok(Routed::Set { name: "timezone".into(), value: setting_value(&[value])?, local })
        }
        Set::SetNames { charset_name, collation_name } => {
            refuse(collation_name.is_some(), "SET NAMES … COLLATE")?;
            Ok(Routed::Set {
                name: "client_encoding".into(),
                value: SettingValue::Text(charset_name.value),
                local: false,
            })
        }
        Set::SetNamesDefault {} => Ok(Routed::Reset(Some("client_encoding".into()))),
        Set::SetTransaction { .. } => Err(Error::unsupported("this form of SET TRANSACTION")),
        Set::ParenthesizedAssignments { .. } | Set::MultipleAssignments { .. } => {
            Err(Error::unsupported("SET of several settings at once"))
        }
        Set::SetSessionAuthorization(_) => Err(Error::unsupported("SET SESSION AUTHORIZATION")),
        Set::SetSessionParam(_) => Err(Error::unsupported("this form of SET")),
        Set::SetRole { .. } => Err(Error::unsupported("SET ROLE")),
    }
}

fn setting_name(words: &[Ident]) -> String {
    let name = words.iter().map(fold).collect::<Vec<_>>().join(".");
    match name.as_str() {
        // SHOW TIME ZONE, SHOW TRANSACTION ISOLATION LEVEL
        "time.zone" => "timezone".to_owned(),
        "transaction.isolation.level" => "transaction_isolation".to_owned(),
        _ => name,
    }
}

fn setting_value(values: &[Expr]) -> Result<SettingValue> {
    let [value] = values else {
        return Err(Error::syntax("SET takes one value"));
    };
    let text = match value {
        Expr::Value(ValueWithSpan { value, span: _ }) => match value {
            Value::SingleQuotedString(text) | Value::EscapedStringLiteral(text) => text.clone(),
            Value::Number(number, _) => number.clone(),
            Value::Boolean(on) => on.to_string(),
            other => return Err(Error::syntax(format!("\"{other}\" is no value for a setting"))),
        },
        Expr::Identifier(ident) => match fold(ident) {
            word if word == "default" => return Ok(SettingValue::Default),
            word => word,
        },
        Expr::UnaryOp { .. } => value.to_string(),
        other => return Err(Error::syntax(format!("\"{other}\" is no value for a setting")).at(place(other.span()))),
    };
    Ok(SettingValue::Text(text))
}
