//! Small pieces of syntax tree, for the queries that changing statements are turned into.

use arrow::datatypes::DataType;
use datafusion::sql::sqlparser::ast::helpers::attached_token::AttachedToken;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CaseWhen, CastKind, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList,
    FunctionArguments, GroupByExpr, Ident, ObjectName, Query, Select, SelectFlavor, SelectItem, SetExpr, TableAlias,
    TableFactor, TableWithJoins, Value, ValueWithSpan, WildcardAdditionalOptions, With,
};
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::Span;

use crate::Result;
use crate::functions::input::fixed_bytes_of;
use crate::sql::text::parse::RustyDialect;

/// A name that means exactly itself.
pub(crate) fn quoted(name: &str) -> Ident {
    Ident::with_quote('"', name)
}

/// `relation.column`
pub(crate) fn column(relation: &Ident, name: &str) -> Expr {
    Expr::CompoundIdentifier(vec![relation.clone(), quoted(name)])
}

/// `value AS "name"`
pub(crate) fn named(expr: Expr, name: &str) -> SelectItem {
    SelectItem::ExprWithAlias { expr, alias: quoted(name) }
}

/// `*`
pub(crate) fn everything() -> SelectItem {
    SelectItem::Wildcard(WildcardAdditionalOptions::default())
}

/// `name()`
pub(crate) fn call(name: &str, span: Span) -> Expr {
    call_with(name, Vec::new(), span)
}

/// `name(arguments)`
pub(crate) fn call_with(name: &str, arguments: Vec<Expr>, span: Span) -> Expr {
    let argument = |value| FunctionArg::Unnamed(FunctionArgExpr::Expr(value));
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::with_span(span, name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args: arguments.into_iter().map(argument).collect(),
            clauses: Vec::new(),
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

fn literal(value: Value) -> Expr {
    Expr::Value(ValueWithSpan { value, span: Span::empty() })
}

pub(crate) fn null() -> Expr {
    literal(Value::Null)
}

pub(crate) fn boolean(value: bool) -> Expr {
    literal(Value::Boolean(value))
}

pub(crate) fn number(value: usize) -> Expr {
    literal(Value::Number(value.to_string(), false))
}

/// `left AND right`, each in parentheses.
pub(crate) fn both(left: Expr, right: Expr) -> Expr {
    let nested = |expr| Box::new(Expr::Nested(Box::new(expr)));
    Expr::BinaryOp { left: nested(left), op: BinaryOperator::And, right: nested(right) }
}

/// `CASE WHEN … THEN … ELSE … END`; the fallback itself if there are no cases.
pub(crate) fn cases(cases: Vec<(Expr, Expr)>, otherwise: Expr) -> Expr {
    if cases.is_empty() {
        return otherwise;
    }
    Expr::Case {
        case_token: AttachedToken::empty(),
        end_token: AttachedToken::empty(),
        operand: None,
        conditions: cases.into_iter().map(|(condition, result)| CaseWhen { condition, result }).collect(),
        else_result: Some(Box::new(otherwise)),
    }
}

/// `CAST(value AS type)`, by the type's name.
pub(crate) fn cast(value: Expr, type_name: &str) -> Result<Expr> {
    let data_type = Parser::new(&RustyDialect).try_with_sql(type_name)?.parse_data_type()?;
    Ok(Expr::Cast { kind: CastKind::Cast, expr: Box::new(value), data_type, array: false, format: None })
}

/// A text that is assigned to a column of so many bytes, of UUIDs for example, as those bytes: no cast reads it, for there is no
/// name for the type.
pub(crate) fn read_fixed_bytes(value: &mut Expr, data_type: &DataType) -> Result<()> {
    if let DataType::FixedSizeBinary(length) = data_type
        && let Expr::Value(ValueWithSpan { value, span: _ }) = value
        && let Value::SingleQuotedString(text) = &*value
    {
        let bytes = fixed_bytes_of(text, *length)?;
        *value = Value::HexStringLiteral(bytes.iter().map(|byte| format!("{byte:02x}")).collect());
    }
    Ok(())
}

/// A table by its name, in a FROM list.
pub(crate) fn table_factor(name: Vec<Ident>, alias: Option<Ident>) -> TableFactor {
    TableFactor::Table {
        name: ObjectName::from(name),
        alias: alias.map(table_alias),
        args: None,
        with_hints: Vec::new(),
        version: None,
        with_ordinality: false,
        partitions: Vec::new(),
        json_path: None,
        sample: None,
        index_hints: Vec::new(),
    }
}

/// `(query) AS alias`
pub(crate) fn derived(query: Query, alias: Ident) -> TableFactor {
    TableFactor::Derived { lateral: false, subquery: Box::new(query), alias: Some(table_alias(alias)), sample: None }
}

fn table_alias(name: Ident) -> TableAlias {
    TableAlias { explicit: true, name, columns: Vec::new(), at: None }
}

pub(crate) fn alone(relation: TableFactor) -> TableWithJoins {
    TableWithJoins { relation, joins: Vec::new() }
}

/// `WITH … SELECT projection FROM from WHERE selection`
pub(crate) fn select(
    with: Option<With>,
    projection: Vec<SelectItem>,
    from: Vec<TableWithJoins>,
    selection: Option<Expr>,
) -> Query {
    let select = Select {
        select_token: AttachedToken::empty(),
        optimizer_hints: Vec::new(),
        distinct: None,
        select_modifiers: None,
        top: None,
        top_before_distinct: false,
        projection,
        exclude: None,
        into: None,
        from,
        lateral_views: Vec::new(),
        prewhere: None,
        selection,
        connect_by: Vec::new(),
        group_by: GroupByExpr::Expressions(Vec::new(), Vec::new()),
        cluster_by: Vec::new(),
        distribute_by: Vec::new(),
        sort_by: Vec::new(),
        having: None,
        named_window: Vec::new(),
        qualify: None,
        window_before_qualify: false,
        value_table_mode: None,
        flavor: SelectFlavor::Standard,
    };
    query_of(with, SetExpr::Select(Box::new(select)))
}

/// A query with this body and nothing after it.
pub(crate) fn query_of(with: Option<With>, body: SetExpr) -> Query {
    Query {
        with,
        body: Box::new(body),
        order_by: None,
        limit_clause: None,
        fetch: None,
        locks: Vec::new(),
        for_clause: None,
        settings: None,
        format_clause: None,
        pipe_operators: Vec::new(),
    }
}

/// Puts the expressions of a WITH before those that a query has itself.
pub(crate) fn prepend(with: Option<With>, query: &mut Query) {
    let Some(mut with) = with else { return };
    if let Some(own) = query.with.take() {
        with.recursive |= own.recursive;
        // A query's own expression hides an outer one of the same name.
        with.cte_tables.retain(|cte| own.cte_tables.iter().all(|inner| inner.alias.name != cte.alias.name));
        with.cte_tables.extend(own.cte_tables);
    }
    query.with = Some(with);
}
