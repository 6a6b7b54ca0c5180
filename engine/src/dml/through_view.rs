//! Changes through a view: a statement on a simple view becomes one on the table that the view shows.
//!
//! ```text
//! CREATE VIEW cheap AS SELECT id, price AS p FROM goods WHERE price < 10
//! UPDATE cheap SET p = p + 1 WHERE id = 3
//!    ⇒  UPDATE goods AS cheap SET price = cheap.price + 1 WHERE cheap.price < 10 AND cheap.id = 3
//! ```
//!
//! A view is simple, as in PostgreSQL, if it is a SELECT from one table or simple view without DISTINCT, GROUP BY, HAVING,
//! LIMIT, set operations, aggregates, window functions and sets in its list. Columns that are more than a column of the
//! table can be read, not changed. Where a view calls its columns otherwise than the table does, the names in the
//! statement are replaced, which is done outside of subqueries and joins only; such a statement is refused.
//!
//! What WITH CHECK OPTION demands of new rows is handed over as conditions on the table's columns ([`ViewCheck`]).

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Assignment, AssignmentTarget, Expr, GroupByExpr, Ident, ObjectName, ObjectNamePart, Query, Select, SelectItem,
    SetExpr, Spanned, Statement as SqlStatement, TableFactor, TableWithJoins, Visit, VisitMut, Visitor, VisitorMut,
};
use rustydb_storage::{Catalog, ObjectDef, ObjectKind};

use super::many_rows::calls_of_many_rows;
use super::syntax::{both, column, named, quoted};
use crate::ddl::view::ViewDefinition;
use crate::error::sqlstate;
use crate::sql::context::StatementContext;
use crate::sql::route::{CheckOption, ViewCheck, Write};
use crate::sql::text::parse::{ParsedStatement, fold, parse_statement, place, table_name};
use crate::sql::tree::own_expressions::for_each_own;
use crate::{Error, Result};

/// Views inside each other; planning one bounds it, too.
const DEPTH_MAX: usize = 32;

/// The statement on the table behind its target, if that is a view.
pub(super) fn resolve(context: &StatementContext, mut write: Write) -> Result<Write> {
    let mut checks: Vec<ViewCheck> = Vec::new();
    let mut cascades = false;
    for _ in 0..DEPTH_MAX {
        let (Write::Insert(_) | Write::Update(_) | Write::Delete(_)) = &write else { break };
        let Some(view) = target_view(context, &write)? else { break };
        let definition = ViewDefinition::of(&view)?;
        let shown = ShownTable::of(&view.name, &definition, verb(&write))?;
        for check in &mut checks {
            shown.put_columns(&mut check.condition);
        }
        cascades |= definition.check == Some(CheckOption::Cascaded);
        if (cascades || definition.check.is_some())
            && let Some(condition) = &shown.condition
        {
            // Those of the innermost view come first.
            checks.insert(0, ViewCheck { view: view.name.clone(), condition: shown.unqualified(condition) });
        }
        write = shown.rewrite(write)?;
    }
    match &mut write {
        Write::Insert(insert) => insert.view_checks = checks,
        Write::Update(update) => update.view_checks = checks,
        _ => {}
    }
    Ok(write)
}

/// Fails unless rows can be changed through a view of this definition, and through those it shows.
pub(crate) fn require_updatable(catalog: &Catalog, name: &str, definition: &ViewDefinition) -> Result<()> {
    ShownTable::of(name, definition, "update")?;
    for (schema, relation) in &definition.relations {
        if let Some(view) = catalog.find_object(ObjectKind::View, schema, relation) {
            require_updatable(catalog, relation, &ViewDefinition::of(view)?)?;
        }
    }
    Ok(())
}

fn verb(write: &Write) -> &'static str {
    match write {
        Write::Insert(_) => "insert into",
        Write::Update(_) => "update",
        _ => "delete from",
    }
}

fn target_view(context: &StatementContext, write: &Write) -> Result<Option<ObjectDef>> {
    let name = match write {
        Write::Insert(insert) => &insert.table,
        Write::Update(update) => &update.table,
        Write::Delete(delete) => &delete.table,
        _ => return Ok(None),
    };
    let (schema, plain) = table_name(name)?;
    if context.table(schema.as_deref(), &plain).is_ok() {
        return Ok(None);
    }
    Ok(context.object(ObjectKind::View, schema.as_deref(), &plain).map(|view| ObjectDef::clone(view)))
}

/// What a simple view shows.
struct ShownTable {
    view: String,
    verb: &'static str,
    table: ObjectName,
    /// The names by which the view's query knows the table.
    known_as: Vec<String>,
    /// The view's columns: what they are called, and what they are.
    columns: Vec<(String, Expr)>,
    condition: Option<Expr>,
}

impl ShownTable {
    fn of(view: &str, definition: &ViewDefinition, verb: &'static str) -> Result<ShownTable> {
        let refuse = |detail: &str| {
            let message = format!("cannot {verb} view \"{view}\"");
            Err(Error::new(sqlstate::NOT_IN_PREREQUISITE_STATE, message).with_detail(detail))
        };
        let ParsedStatement::Sql(statement) = parse_statement(&definition.query)?.statement else {
            return Err(Error::internal("a view that is no query"));
        };
        let SqlStatement::Query(query) = *statement else { return Err(Error::internal("a view that is no query")) };
        let Query { with: None, body, limit_clause: None, fetch: None, .. } = *query else {
            return refuse("Views containing WITH, LIMIT or OFFSET are not automatically updatable.");
        };
        let SetExpr::Select(select) = *body else {
            return refuse("Views containing UNION, INTERSECT, EXCEPT or VALUES are not automatically updatable.");
        };
        let Select { distinct, projection, from, selection, group_by, having, qualify, .. } = *select;
        let groups =
            !matches!(&group_by, GroupByExpr::Expressions(keys, modifiers) if keys.is_empty() && modifiers.is_empty());
        if distinct.is_some() || having.is_some() || qualify.is_some() || groups {
            return refuse("Views containing DISTINCT, GROUP BY or HAVING are not automatically updatable.");
        }
        let single = "Views that do not select from a single table or view are not automatically updatable.";
        let [TableWithJoins { relation: TableFactor::Table { name, alias, args: None, .. }, joins }] = from.as_slice()
        else {
            return refuse(single);
        };
        let mut relations = definition.relations.iter();
        let (Some((schema, table)), None, true) = (relations.next(), relations.next(), joins.is_empty()) else {
            return refuse(single);
        };
        let mut columns = Vec::new();
        let table_name = ObjectName::from(vec![quoted(schema), quoted(table)]);
        let plain = name.0.last().and_then(ObjectNamePart::as_ident).map(fold);
        let known_as = match alias {
            Some(alias) if alias.columns.is_empty() => vec![fold(&alias.name)],
            Some(_) => return refuse("Views that rename the columns of their table in FROM are not updatable."),
            None => plain.into_iter().collect(),
        };
        let mut items = projection.into_iter();
        for (place, name) in definition.columns.iter().enumerate() {
            let item = items.next();
            let expr = match item {
                Some(SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) => expr,
                // The columns of * are those the query had when the view was made, by their names.
                Some(SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..)) if items.len() == 0 => {
                    for (name, output) in definition.columns.iter().zip(definition.outputs()).skip(place) {
                        columns.push((name.clone(), Expr::Identifier(quoted(output))));
                    }
                    break;
                }
                _ => return refuse("Views with * beside other columns are not updatable."),
            };
            columns.push((name.clone(), expr));
        }
        let shown =
            ShownTable { view: view.to_owned(), verb, table: table_name, known_as, columns, condition: selection };
        let parts = shown.columns.iter().map(|(_, expr)| expr).chain(&shown.condition);
        for part in parts {
            if has_subquery(part) {
                return refuse("Views with subqueries are not updatable.");
            }
        }
        for (_, expr) in &shown.columns {
            if calls_of_many_rows(expr) {
                return refuse(
                    "Views that return aggregates, window functions or sets are not automatically updatable.",
                );
            }
        }
        Ok(shown)
    }

    /// The table's column that a column of the view is.
    fn base_column(&self, expr: &Expr) -> Option<String> {
        match expr {
            Expr::Identifier(ident) => Some(fold(ident)),
            Expr::CompoundIdentifier(parts) => parts.last().map(fold),
            Expr::Nested(inner) => self.base_column(inner),
            _ => None,
        }
    }

    fn renames(&self) -> bool {
        self.columns.iter().any(|(name, expr)| self.base_column(expr).as_ref() != Some(name))
    }

    /// The expression of the view's query, with its columns by their names alone.
    fn unqualified(&self, expr: &Expr) -> Expr {
        let mut expr = expr.clone();
        let _ = VisitMut::visit(&mut expr, &mut Qualify { known_as: &self.known_as, relation: None });
        expr
    }

    /// Puts what the view's columns are in the places of their names.
    fn put_columns(&self, expr: &mut Expr) {
        struct Putting<'a>(&'a ShownTable);
        impl VisitorMut for Putting<'_> {
            type Break = ();
            fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
                if let Expr::Identifier(ident) = expr
                    && let Some((_, shown)) = self.0.columns.iter().find(|(name, _)| *name == fold(ident))
                {
                    *expr = Expr::Nested(Box::new(self.0.unqualified(shown)));
                }
                ControlFlow::Continue(())
            }
        }
        let _ = VisitMut::visit(expr, &mut Putting(self));
    }

    /// The expression of the view's query, with its columns qualified by `relation`.
    fn qualified(&self, expr: &Expr, relation: &Ident) -> Expr {
        let mut expr = expr.clone();
        let _ = VisitMut::visit(&mut expr, &mut Qualify { known_as: &self.known_as, relation: Some(relation) });
        expr
    }

    fn changed_column(&self, name: &ObjectName) -> Result<ObjectName> {
        let [ObjectNamePart::Identifier(ident)] = name.0.as_slice() else { return Ok(name.clone()) };
        let wanted = fold(ident);
        let at = place(name.span());
        let Some((_, expr)) = self.columns.iter().find(|(name, _)| *name == wanted) else {
            let message = format!("column \"{wanted}\" of relation \"{}\" does not exist", self.view);
            return Err(Error::new(sqlstate::UNDEFINED_COLUMN, message).at(at));
        };
        match self.base_column(expr) {
            Some(column) => Ok(ObjectName::from(vec![quoted(&column)])),
            None => {
                let message = format!("cannot {} column \"{wanted}\" of view \"{}\"", self.verb, self.view);
                Err(Error::unsupported(message)
                    .with_detail("View columns that are not columns of their base relation are not updatable.")
                    .at(at))
            }
        }
    }

    fn rewrite(&self, write: Write) -> Result<Write> {
        let relation = |alias: Option<Ident>| alias.unwrap_or_else(|| quoted(&self.view));
        match write {
            Write::Insert(mut insert) => {
                let alias = relation(insert.alias.take());
                if self.renames() && insert.on_conflict.is_some() {
                    return Err(self.too_much("ON CONFLICT"));
                }
                let mut columns = insert.columns;
                if columns.is_empty() {
                    let width = insert.source.as_deref().and_then(super::insert::width_of);
                    let shown = self.columns.iter().take(width.unwrap_or(self.columns.len()));
                    columns = shown.map(|(name, _)| ObjectName::from(vec![quoted(name)])).collect();
                    if insert.source.is_none() {
                        columns.clear();
                    }
                }
                insert.columns = columns.iter().map(|name| self.changed_column(name)).collect::<Result<_>>()?;
                insert.returning = self.returning(insert.returning, &alias)?;
                insert.table = self.table.clone();
                insert.alias = Some(alias);
                Ok(Write::Insert(insert))
            }
            Write::Update(mut update) => {
                let alias = relation(update.alias.take());
                let joined = !update.from.is_empty();
                for assignment in &mut update.assignments {
                    let Assignment { target, value } = assignment;
                    match target {
                        AssignmentTarget::ColumnName(name) => *name = self.changed_column(name)?,
                        AssignmentTarget::Tuple(names) => {
                            for name in names {
                                *name = self.changed_column(name)?;
                            }
                        }
                    }
                    self.replace_names(value, &alias, joined)?;
                }
                update.selection = self.selection(update.selection, &alias, joined)?;
                update.returning = self.returning(update.returning, &alias)?;
                update.table = self.table.clone();
                update.alias = Some(alias);
                Ok(Write::Update(update))
            }
            Write::Delete(mut delete) => {
                let alias = relation(delete.alias.take());
                let joined = !delete.using.is_empty();
                delete.selection = self.selection(delete.selection, &alias, joined)?;
                delete.returning = self.returning(delete.returning, &alias)?;
                delete.table = self.table.clone();
                delete.alias = Some(alias);
                Ok(Write::Delete(delete))
            }
            write => Ok(write),
        }
    }

    fn too_much(&self, what: &str) -> Error {
        Error::unsupported(format!("{what} in a statement that changes rows through view \"{}\"", self.view))
            .with_hint("The view calls columns otherwise than its table does: change the table itself.")
    }

    /// The statement's condition and the view's.
    fn selection(&self, own: Option<Expr>, alias: &Ident, joined: bool) -> Result<Option<Expr>> {
        let condition = self.condition.as_ref().map(|condition| self.qualified(condition, alias));
        let Some(mut own) = own else { return Ok(condition) };
        self.replace_names(&mut own, alias, joined)?;
        Ok(Some(match condition {
            Some(condition) => both(condition, own),
            None => own,
        }))
    }

    /// Puts what the view's columns are in the places of their names.
    fn replace_names(&self, expr: &mut Expr, alias: &Ident, joined: bool) -> Result<()> {
        let renames = self.renames();
        if renames && (joined || has_subquery(expr)) {
            return Err(self.too_much(if joined { "a join" } else { "a subquery" }));
        }
        if joined {
            return Ok(());
        }
        match for_each_own(expr, |part| self.replace_name(part, alias, renames)) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(error) => Err(error),
        }
    }

    /// Replaces the name of a column, if the part is one.
    fn replace_name(&self, part: &mut Expr, alias: &Ident, renames: bool) -> ControlFlow<Error> {
        let name = match part {
            Expr::Identifier(ident) if !super::insert::is_default(&Expr::Identifier(ident.clone())) => ident.clone(),
            Expr::CompoundIdentifier(parts) => match parts.as_slice() {
                [table, name] if fold(table) == fold(alias) => name.clone(),
                _ => return ControlFlow::Continue(()),
            },
            _ => return ControlFlow::Continue(()),
        };
        let wanted = fold(&name);
        match self.columns.iter().find(|(known, _)| *known == wanted) {
            Some((_, shown)) => {
                if renames {
                    *part = Expr::Nested(Box::new(self.qualified(shown, alias)));
                }
                ControlFlow::Continue(())
            }
            // Words like current_date are identifiers to the parser.
            None if matches!(part, Expr::Identifier(_)) && is_word(&wanted) => ControlFlow::Continue(()),
            None => {
                let message = format!("column \"{wanted}\" does not exist");
                ControlFlow::Break(Error::new(sqlstate::UNDEFINED_COLUMN, message).at(place(name.span)))
            }
        }
    }

    fn returning(&self, items: Option<Vec<SelectItem>>, alias: &Ident) -> Result<Option<Vec<SelectItem>>> {
        let Some(items) = items else { return Ok(None) };
        let mut list = Vec::new();
        for item in items {
            match item {
                SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..) => {
                    list.extend(self.columns.iter().map(|(name, expr)| named(self.qualified(expr, alias), name)));
                }
                SelectItem::UnnamedExpr(expr) => {
                    let name = crate::sql::names::output_name(&expr);
                    list.push(self.returned(expr, &name, alias)?);
                }
                SelectItem::ExprWithAlias { expr, alias: name } => {
                    list.push(self.returned(expr, &fold(&name), alias)?)
                }
                other => list.push(other),
            }
        }
        Ok(Some(list))
    }

    fn returned(&self, mut expr: Expr, name: &str, alias: &Ident) -> Result<SelectItem> {
        self.replace_names(&mut expr, alias, false)?;
        Ok(named(expr, name))
    }
}

/// Qualifies the columns in a view's query, or takes the qualifiers away.
struct Qualify<'a> {
    known_as: &'a [String],
    relation: Option<&'a Ident>,
}

impl VisitorMut for Qualify<'_> {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let name = match expr {
            Expr::Identifier(ident) => Some(fold(ident)),
            Expr::CompoundIdentifier(parts) => match parts.as_slice() {
                [.., table, name] if self.known_as.contains(&fold(table)) => Some(fold(name)),
                _ => None,
            },
            _ => None,
        };
        if let Some(name) = name {
            *expr = match self.relation {
                Some(relation) => column(relation, &name),
                None => Expr::Identifier(quoted(&name)),
            };
        }
        ControlFlow::Continue(())
    }
}

fn is_word(name: &str) -> bool {
    name.starts_with("current_") || name.starts_with("local") || matches!(name, "session_user" | "user")
}

fn has_subquery(expr: &Expr) -> bool {
    struct Queries;
    impl Visitor for Queries {
        type Break = ();
        fn pre_visit_query(&mut self, _query: &Query) -> ControlFlow<()> {
            ControlFlow::Break(())
        }
    }
    Visit::visit(expr, &mut Queries).is_break()
}
