//! Variables in SQL: which names of a statement are variables of the routine it is in, and not columns.
//!
//! ```text
//!   UPDATE stock SET quantity = quantity - wanted WHERE item = line.item
//!     ⇒ UPDATE stock SET quantity = quantity - $1 WHERE item = $2        inputs: wanted, line.item
//! ```
//! As in PL/pgSQL a name that is both is an error, unless the routine says which it is to be. To know that, the rewriter
//! follows the scopes of the statement: which relations are in sight, and what columns they have. Names that are neither
//! stay as they are, for the planner to complain of.

use std::collections::HashSet;
use std::ops::ControlFlow;

use arrow::datatypes::DataType;
use datafusion::sql::sqlparser::ast::{
    AccessExpr, Cte, Expr, FromTable, Ident, ObjectName, OrderBy, Query, Select, SelectItem, SetExpr, Statement,
    TableFactor, TableObject, TableWithJoins, Value as SqlValue, ValueWithSpan, VisitMut, VisitorMut,
};
use datafusion::sql::sqlparser::tokenizer::Span;
use rustydb_storage::ObjectKind;

use crate::ddl::view::ViewDefinition;
use crate::error::sqlstate;
use crate::sql::context::StatementContext;
use crate::sql::names::output_name;
use crate::sql::text::parse::{fold, table_name};
use crate::{Error, Result};

/// The variables in sight of a statement.
pub trait Variables {
    /// The variable of this name: `v`, `record.field`, `block.v`, `$1`. It becomes an input of the statement: the values
    /// of the inputs come in the order of their first mention.
    ///
    /// # Errors
    /// If it exists and cannot be used, like a field of a record that holds nothing yet.
    fn resolve(&mut self, path: &[String]) -> Result<Option<Variable>>;

    /// What a name means that is both a variable and a column; `None`: it is an error.
    fn prefers_variable(&self) -> Option<bool> {
        None
    }
}

/// A variable that a statement uses.
#[derive(Debug, Clone, PartialEq)]
pub struct Variable {
    /// Which input it is, from 0.
    pub input: usize,
    /// Its type.
    pub data_type: DataType,
}

/// The types of a statement's inputs, in order.
pub(crate) type InputTypes = Vec<DataType>;

/// Puts `$1 …` in the places of variables.
pub(crate) fn resolve_variables<N: VisitMut>(
    node: &mut N,
    context: &StatementContext,
    variables: &mut dyn Variables,
) -> Result<InputTypes> {
    let mut rewriter = Rewriter {
        context,
        variables,
        scopes: Vec::new(),
        ctes: Vec::new(),
        sources: Vec::new(),
        orders: Vec::new(),
        hidden: Vec::new(),
        types: Vec::new(),
    };
    match node.visit(&mut rewriter) {
        ControlFlow::Continue(()) => Ok(rewriter.types),
        ControlFlow::Break(error) => Err(error),
    }
}

/// The names of a relation's columns; `None`: nobody knows.
type Columns = Option<HashSet<String>>;

/// The relations in sight of an expression, by the names it may call them.
#[derive(Default)]
struct Scope {
    relations: Vec<(String, Columns)>,
    /// Names of a select list, which ORDER BY may use.
    outputs: HashSet<String>,
}

struct Rewriter<'a> {
    context: &'a StatementContext,
    variables: &'a mut dyn Variables,
    scopes: Vec<Scope>,
    ctes: Vec<(String, Columns)>,
    /// Sources of INSERTs and ORDER BYs, put aside while the rest of the statement is looked at.
    sources: Vec<Option<Box<Query>>>,
    orders: Vec<Option<OrderBy>>,
    /// What subqueries in FROM that are not LATERAL do not see: the other relations there.
    hidden: Vec<Scope>,
    types: InputTypes,
}

impl Rewriter<'_> {
    /// Whether a name is that of a column in sight.
    fn is_column(&self, name: &str) -> bool {
        self.scopes.iter().any(|scope| {
            let has = |(_, columns): &(String, Columns)| columns.as_ref().is_some_and(|columns| columns.contains(name));
            scope.outputs.contains(name) || scope.relations.iter().any(has)
        })
    }

    fn is_relation(&self, name: &str) -> bool {
        self.scopes.iter().any(|scope| scope.relations.iter().any(|(known, _)| known == name))
    }

    /// What stands for a name that is a variable.
    fn placeholder(&mut self, path: &[String]) -> Result<Option<Expr>> {
        let is_column = match path {
            [name] => self.is_column(name) || self.is_relation(name),
            [relation, ..] => self.is_relation(relation),
            [] => return Ok(None),
        };
        if is_column && (path.len() > 1 || self.variables.prefers_variable() == Some(false)) {
            return Ok(None);
        }
        let Some(variable) = self.variables.resolve(path)? else { return Ok(None) };
        if is_column && self.variables.prefers_variable().is_none() {
            if path.len() == 1 && !self.is_column(&path[0]) {
                return Ok(None);
            }
            let message = format!("column reference \"{}\" is ambiguous", path.join("."));
            return Err(Error::new(sqlstate::AMBIGUOUS_COLUMN, message)
                .with_detail("It could refer to either a PL/pgSQL variable or a table column."));
        }
        let Variable { input, data_type } = variable;
        if self.types.len() <= input {
            self.types.resize(input + 1, DataType::Null);
        }
        self.types[input] = data_type;
        let value = SqlValue::Placeholder(format!("${}", input + 1));
        Ok(Some(Expr::Value(ValueWithSpan { value, span: Span::empty() })))
    }

    fn rewrite(&mut self, expr: &mut Expr) -> Result<()> {
        let replacement = match expr {
            Expr::Identifier(ident) => self.placeholder(&[fold(ident)])?,
            Expr::CompoundIdentifier(parts) => {
                let path: Vec<String> = parts.iter().map(fold).collect();
                self.placeholder(&path)?
            }
            Expr::CompoundFieldAccess { root, access_chain } => {
                // record.array[1]: the field belongs to the variable. What is in its place is visited next.
                if let (Expr::Identifier(record), Some(AccessExpr::Dot(Expr::Identifier(field)))) =
                    (root.as_ref(), access_chain.first())
                    && self.placeholder(&[fold(record), fold(field)])?.is_some()
                {
                    let variable = Expr::CompoundIdentifier(vec![record.clone(), field.clone()]);
                    access_chain.remove(0);
                    **root = variable;
                }
                None
            }
            Expr::Value(ValueWithSpan { value: SqlValue::Placeholder(name), span: _ }) => {
                let name = name.clone();
                match self.placeholder(std::slice::from_ref(&name))? {
                    None => {
                        let message = format!("there is no parameter {name}");
                        return Err(Error::new(sqlstate::UNDEFINED_PARAMETER, message));
                    }
                    found => found,
                }
            }
            _ => None,
        };
        if let Some(replacement) = replacement {
            *expr = replacement;
        }
        Ok(())
    }

    fn columns_of_table(&self, name: &ObjectName) -> Columns {
        let (schema, name) = table_name(name).ok()?;
        if schema.is_none()
            && let Some((_, columns)) = self.ctes.iter().rev().find(|(known, _)| *known == name)
        {
            return columns.clone();
        }
        if let Ok(table) = self.context.table(schema.as_deref(), &name) {
            return Some(table.schema.fields().iter().map(|field| field.name().clone()).collect());
        }
        let view = self.context.object(ObjectKind::View, schema.as_deref(), &name)?;
        Some(ViewDefinition::of(view).ok()?.columns.into_iter().collect())
    }

    fn add_joined(&self, scope: &mut Scope, table: &TableWithJoins) {
        self.add_factor(scope, &table.relation);
        for join in &table.joins {
            self.add_factor(scope, &join.relation);
        }
    }

    fn add_factor(&self, scope: &mut Scope, factor: &TableFactor) {
        let named = |alias: &datafusion::sql::sqlparser::ast::TableAlias| -> (String, Option<HashSet<String>>) {
            let columns: HashSet<String> = alias.columns.iter().map(|column| fold(&column.name)).collect();
            (fold(&alias.name), Some(columns).filter(|columns| !columns.is_empty()))
        };
        match factor {
            TableFactor::Table { name, alias, args, .. } => {
                let mut columns = if args.is_none() { self.columns_of_table(name) } else { None };
                let mut relation = name.0.last().and_then(|part| part.as_ident()).map(fold).unwrap_or_default();
                if let Some(alias) = alias {
                    let (name, renamed) = named(alias);
                    relation = name;
                    columns = renamed.or(columns);
                }
                scope.relations.push((relation, columns));
            }
            TableFactor::Derived { subquery, alias, .. } => {
                let (relation, renamed) = alias.as_ref().map(named).unwrap_or_default();
                scope.relations.push((relation, renamed.or_else(|| self.columns_of_query(subquery))));
            }
            TableFactor::NestedJoin { table_with_joins, .. } => self.add_joined(scope, table_with_joins),
            TableFactor::Function { name, alias, .. } => {
                let own = name.0.last().and_then(|part| part.as_ident()).map(fold).unwrap_or_default();
                let (relation, columns) = alias.as_ref().map(named).unwrap_or((own, None));
                scope.relations.push((relation, columns));
            }
            TableFactor::UNNEST { alias: Some(alias), .. } | TableFactor::TableFunction { alias: Some(alias), .. } => {
                scope.relations.push(named(alias));
            }
            _ => {}
        }
    }

    fn scope_of(&self, select: &Select) -> Scope {
        let mut scope = Scope::default();
        select.from.iter().for_each(|table| self.add_joined(&mut scope, table));
        scope
    }

    fn columns_of_query(&self, query: &Query) -> Columns {
        let mut body = query.body.as_ref();
        loop {
            match body {
                SetExpr::Select(select) => return self.outputs_of(select),
                SetExpr::Query(inner) => return self.columns_of_query(inner),
                SetExpr::SetOperation { left, .. } => body = left,
                _ => return None,
            }
        }
    }

    /// The names of a select list.
    fn outputs_of(&self, select: &Select) -> Columns {
        let mut names = HashSet::new();
        for item in &select.projection {
            match item {
                SelectItem::UnnamedExpr(expr) => drop(names.insert(output_name(expr))),
                SelectItem::ExprWithAlias { alias, .. } => drop(names.insert(fold(alias))),
                _ => {
                    for (_, columns) in self.scope_of(select).relations {
                        names.extend(columns?);
                    }
                }
            }
        }
        Some(names)
    }

    fn add_cte(&mut self, cte: &Cte) {
        let name = fold(&cte.alias.name);
        let renamed: HashSet<String> = cte.alias.columns.iter().map(|column| fold(&column.name)).collect();
        let columns = Some(renamed).filter(|names| !names.is_empty()).or_else(|| self.columns_of_query(&cte.query));
        self.ctes.push((name, columns));
    }

    /// Gives a variable in a select list the name it has. What stands for the variable is put there when the list is visited:
    /// a second time it would be taken for a parameter of the routine.
    fn name_item(&mut self, item: &mut SelectItem) -> Result<()> {
        let SelectItem::UnnamedExpr(expr) = item else { return Ok(()) };
        let path: Vec<String> = match expr {
            Expr::Identifier(ident) => vec![fold(ident)],
            Expr::CompoundIdentifier(parts) => parts.iter().map(fold).collect(),
            _ => return Ok(()),
        };
        if self.placeholder(&path)?.is_some()
            && let Some(name) = path.last()
        {
            *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias: Ident::with_quote('"', name) };
        }
        Ok(())
    }

    fn statement_scope(&mut self, statement: &mut Statement) -> ControlFlow<Error> {
        let mut scope = Scope::default();
        match statement {
            Statement::Insert(insert) => {
                // VALUES and SELECT do not see the target; ON CONFLICT and RETURNING do.
                let mut source = insert.source.take();
                if let Some(source) = &mut source {
                    source.visit(self)?;
                }
                self.sources.push(source);
                if let TableObject::TableName(name) = &insert.table {
                    let columns = self.columns_of_table(name);
                    let own = name.0.last().and_then(|part| part.as_ident()).map(fold).unwrap_or_default();
                    let alias = insert.table_alias.as_ref().map(|alias| fold(&alias.alias));
                    scope.relations.push((alias.unwrap_or(own), columns));
                    // Its columns are named with it, so they make nothing ambiguous.
                    scope.relations.push(("excluded".to_owned(), None));
                }
            }
            Statement::Update(update) => {
                self.add_joined(&mut scope, &update.table);
                let from = match &update.from {
                    Some(
                        datafusion::sql::sqlparser::ast::UpdateTableFromKind::BeforeSet(tables)
                        | datafusion::sql::sqlparser::ast::UpdateTableFromKind::AfterSet(tables),
                    ) => tables.as_slice(),
                    None => &[],
                };
                from.iter().for_each(|table| self.add_joined(&mut scope, table));
            }
            Statement::Delete(delete) => {
                let (FromTable::WithFromKeyword(tables) | FromTable::WithoutKeyword(tables)) = &delete.from;
                let using = delete.using.iter().flatten();
                tables.iter().chain(using).for_each(|table| self.add_joined(&mut scope, table));
            }
            Statement::Merge(merge) => {
                self.add_factor(&mut scope, &merge.table);
                self.add_factor(&mut scope, &merge.source);
            }
            _ => {}
        }
        self.scopes.push(scope);
        ControlFlow::Continue(())
    }
}

fn flow(result: Result<()>) -> ControlFlow<Error> {
    match result {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => ControlFlow::Break(error),
    }
}

impl VisitorMut for Rewriter<'_> {
    type Break = Error;

    fn pre_visit_statement(&mut self, statement: &mut Statement) -> ControlFlow<Error> {
        self.statement_scope(statement)
    }

    fn post_visit_statement(&mut self, statement: &mut Statement) -> ControlFlow<Error> {
        self.scopes.pop();
        if let Statement::Insert(insert) = statement {
            insert.source = self.sources.pop().flatten();
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        for cte in query.with.iter().flat_map(|with| &with.cte_tables) {
            self.add_cte(cte);
        }
        // ORDER BY sees the names of the select list, which the select list itself does not see.
        let mut order_by = query.order_by.take();
        if let Some(order_by) = &mut order_by {
            let mut scope = match query.body.as_ref() {
                SetExpr::Select(select) => self.scope_of(select),
                _ => Scope::default(),
            };
            scope.outputs = self.columns_of_query(query).unwrap_or_default();
            self.scopes.push(scope);
            order_by.visit(self)?;
            self.scopes.pop();
        }
        self.orders.push(order_by);
        self.scopes.push(Scope::default());
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        self.scopes.pop();
        query.order_by = self.orders.pop().flatten();
        let named = query.with.as_ref().map_or(0, |with| with.cte_tables.len());
        self.ctes.truncate(self.ctes.len().saturating_sub(named));
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Error> {
        let scope = self.scope_of(select);
        self.scopes.push(scope);
        for item in &mut select.projection {
            flow(self.name_item(item))?;
        }
        ControlFlow::Continue(())
    }

    fn post_visit_select(&mut self, _select: &mut Select) -> ControlFlow<Error> {
        self.scopes.pop();
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Error> {
        if let TableFactor::Derived { lateral: false, .. } = factor {
            self.hidden.push(self.scopes.pop().unwrap_or_default());
            self.scopes.push(Scope::default());
        }
        ControlFlow::Continue(())
    }

    fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Error> {
        if let TableFactor::Derived { lateral: false, .. } = factor {
            self.scopes.pop();
            self.scopes.push(self.hidden.pop().unwrap_or_default());
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        flow(self.rewrite(expr))
    }
}
