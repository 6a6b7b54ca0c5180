//! What the columns of a result are called, as in PostgreSQL: a column by its name, a function by its own, a cast by what
//! it casts, all else `?column?`.
//!
//! DataFusion demands different names for the columns of a select list, PostgreSQL does not. A repeated name is made
//! unique by a mark and a number behind it while the query is planned, and [`shown`] takes them off the result.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use datafusion::sql::sqlparser::ast::{
    AccessExpr, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, SelectItem, SetExpr,
};

use super::types::{ColumnType, column_type, name_of};
use crate::functions::time_digits::ROUND_TO_DIGITS;
use crate::functions::told_apart::TOLD_APART;
use crate::sql::text::parse::fold;

/// Stands between a name and the number that makes it unique; no name typed by anybody has it.
const MARK: char = '\u{1}';

/// The name PostgreSQL gives to an unnamed item of a select list (`FigureColname` in its sources).
pub(crate) fn output_name(expr: &Expr) -> String {
    name_in(expr).unwrap_or_else(|| "?column?".to_owned())
}

fn name_in(expr: &Expr) -> Option<String> {
    let fixed = |name: &str| Some(name.to_owned());
    match expr {
        Expr::Identifier(ident) => Some(fold(ident)),
        Expr::CompoundIdentifier(parts) => parts.last().map(fold),
        Expr::Nested(inner) | Expr::Collate { expr: inner, .. } => name_in(inner),
        Expr::Function(function) => {
            let name = function.name.0.last().and_then(|part| part.as_ident()).map(fold)?;
            match &function.args {
                FunctionArguments::List(list) if [TOLD_APART, ROUND_TO_DIGITS].contains(&name.as_str()) => {
                    match list.args.first()? {
                        FunctionArg::Unnamed(FunctionArgExpr::Expr(told)) => name_in(told),
                        _ => None,
                    }
                }
                _ => Some(name),
            }
        }
        Expr::Cast { expr: inner, data_type, .. } => name_in(inner).or_else(|| {
            let named = column_type(data_type).map(full_name);
            let full = named.unwrap_or_else(|_| data_type.to_string().to_lowercase());
            Some(short_type_name(&full).to_owned())
        }),
        Expr::TypedString(typed) => {
            let full = column_type(&typed.data_type).map(full_name).ok()?;
            Some(short_type_name(&full).to_owned())
        }
        Expr::Case { else_result, .. } => {
            else_result.as_deref().and_then(name_in).filter(|name| name != "case").or_else(|| fixed("case"))
        }
        Expr::Exists { .. } => fixed("exists"),
        Expr::Extract { .. } => fixed("extract"),
        Expr::Position { .. } => fixed("position"),
        Expr::Substring { .. } => fixed("substring"),
        Expr::Trim { .. } => fixed("btrim"),
        Expr::Overlay { .. } => fixed("overlay"),
        Expr::Ceil { .. } => fixed("ceil"),
        Expr::Floor { .. } => fixed("floor"),
        Expr::Interval(_) => fixed("interval"),
        Expr::AtTimeZone { .. } => fixed("timezone"),
        Expr::CompoundFieldAccess { access_chain, .. } => match access_chain.last()? {
            AccessExpr::Dot(Expr::Identifier(field)) => Some(fold(field)),
            _ => None,
        },
        Expr::IsNormalized { negated: false, .. } => fixed("is_normalized"),
        Expr::Array(_) => fixed("array"),
        Expr::Tuple(_) => fixed("row"),
        Expr::Subquery(query) => name_of_first(&query.body),
        _ => None,
    }
}

fn full_name(known: ColumnType) -> String {
    known.declared.unwrap_or_else(|| name_of(&known.data_type))
}

/// The name of the only column of a query, which is that of the first of several.
fn name_of_first(body: &SetExpr) -> Option<String> {
    match body {
        SetExpr::Select(select) => match select.projection.as_slice() {
            [SelectItem::UnnamedExpr(inner)] => name_in(inner),
            [SelectItem::ExprWithAlias { alias, .. }] => Some(fold(alias)),
            _ => None,
        },
        SetExpr::Query(query) => name_of_first(&query.body),
        SetExpr::SetOperation { left, .. } => name_of_first(left),
        _ => None,
    }
}

/// The names types have inside PostgreSQL, which it uses for unnamed casts.
fn short_type_name(name: &str) -> &str {
    match name.split('(').next().unwrap_or(name) {
        "integer" => "int4",
        "bigint" => "int8",
        "smallint" => "int2",
        "real" => "float4",
        "double precision" => "float8",
        "boolean" => "bool",
        "timestamp" if name.ends_with("with time zone") => "timestamptz",
        "character varying" => "varchar",
        "character" => "bpchar",
        plain => plain,
    }
}

/// `name`, marked if it is among `seen`, which then has it.
pub(crate) fn unique_name(seen: &mut Vec<String>, name: String) -> String {
    let repeated = seen.iter().filter(|known| **known == name).count();
    seen.push(name.clone());
    match repeated {
        0 => name,
        _ => marked(&name, repeated),
    }
}

/// `name` with a mark that tells it from others of the same name.
pub(crate) fn marked(name: &str, number: usize) -> String {
    format!("{name}{MARK}{number}")
}

/// The name the client sees.
pub(crate) fn shown_name(name: &str) -> &str {
    name.split(MARK).next().unwrap_or(name)
}

/// A result's columns under the names the client sees.
pub(crate) fn shown(schema: &SchemaRef) -> SchemaRef {
    if schema.fields().iter().all(|field| !field.name().contains([MARK, ':'])) {
        return Arc::clone(schema);
    }
    let fields = schema.fields().iter().enumerate().map(|(place, field)| {
        let name = field.name().split_once(MARK).map_or(field.name().as_str(), |(name, _)| name);
        // DataFusion marks the columns of a subquery in FROM that have a name again: `id:1`.
        let name = match name.rsplit_once(':') {
            Some((before, number))
                if !number.is_empty()
                    && number.bytes().all(|digit| digit.is_ascii_digit())
                    && schema.fields()[..place].iter().any(|earlier| earlier.name() == before) =>
            {
                before
            }
            _ => name,
        };
        match name == field.name() {
            true => Arc::clone(field),
            false => Arc::new(field.as_ref().clone().with_name(name)),
        }
    });
    Arc::new(Schema::new_with_metadata(fields.collect::<Vec<_>>(), schema.metadata().clone()))
}
