//! `JOIN … USING (x) AS j`, which the parser does not know: `j` is another name for what the join merges, and nothing else.
//!
//! | written | the parser reads | becomes |
//! |---|---|---|
//! | `a JOIN b USING (x, y) AS j` | `a JOIN b USING (j.x, j.y)` | `a JOIN b USING (x, y)` |
//! | `a LEFT JOIN b USING (x) AS j … j.x` | | `a.x` |
//! | `a FULL JOIN b USING (x) AS j … j.x` | | `coalesce(a.x, b.x)` |
//! | `j.*` | | `a.x, a.y` |
//!
//! The alias is known to the SELECT that has the join, and to the subqueries in it where none of their relations has its name.
//! Of a join of several relations that have not merged `x` before, the text does not tell which of them has it: the SELECT itself
//! reads `j.x` as `x` then, and in a subquery it stays as it is.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Delete, Expr, Ident, JoinConstraint, ObjectName, ObjectNamePart, OrderBy, Query, Select, SelectItem,
    SelectItemQualifiedWildcardKind, SetExpr, Statement, TableFactor, TableWithJoins, Update, UpdateTableFromKind,
    VisitMut, VisitorMut,
};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Whitespace};

use super::known_columns::{Relation, is_plain, relation_name};
use super::merged_columns::merged_value;
use super::natural_joins::{constraint, constraint_mut};
use crate::dml::syntax::named;
use crate::sql::grammar::copy::CopySource;
use crate::sql::route::Write;
use crate::sql::text::parse::{ParsedStatement, fold};

/// Puts such aliases before the columns that they are for. Whether there are any.
pub(in crate::sql) fn qualify_merged(mut tokens: Vec<TokenWithSpan>) -> (Vec<TokenWithSpan>, bool) {
    let is_using = |token: &TokenWithSpan| keyword(&token.token) == Keyword::USING;
    if !tokens.iter().any(is_using) {
        return (tokens, false);
    }
    let written: Vec<usize> =
        (0..tokens.len()).filter(|index| !matches!(tokens[*index].token, Token::Whitespace(_))).collect();
    let mut qualified: Vec<(usize, Token)> = Vec::new();
    for (place, index) in written.iter().enumerate() {
        if is_using(&tokens[*index])
            && let Some((columns, alias)) = alias_behind(&tokens, &written[place + 1..])
        {
            let name = tokens[alias[1]].token.clone();
            qualified.extend(columns.into_iter().map(|column| (column, name.clone())));
            for word in alias {
                tokens[word].token = Token::Whitespace(Whitespace::Space);
            }
        }
    }
    if qualified.is_empty() {
        return (tokens, false);
    }
    let mut rewritten = Vec::with_capacity(tokens.len() + 2 * qualified.len());
    let mut qualified = qualified.into_iter().peekable();
    for (index, token) in tokens.into_iter().enumerate() {
        if let Some((_, alias)) = qualified.next_if(|(column, _)| *column == index) {
            rewritten.extend([alias, Token::Period].map(|part| TokenWithSpan::new(part, token.span)));
        }
        rewritten.push(token);
    }
    (rewritten, true)
}

/// Where the names of a list are that has an alias, and where that and the AS before it.
fn alias_behind(tokens: &[TokenWithSpan], written: &[usize]) -> Option<(Vec<usize>, [usize; 2])> {
    let token = |place: usize| written.get(place).map(|index| &tokens[*index].token);
    if token(0)? != &Token::LParen {
        return None;
    }
    let mut columns = Vec::new();
    let mut place = 1;
    loop {
        token(place).filter(|column| matches!(column, Token::Word(_)))?;
        columns.push(*written.get(place)?);
        place += 2;
        match token(place - 1)? {
            Token::Comma => {}
            Token::RParen => break,
            _ => return None,
        }
    }
    let is_as = keyword(token(place)?) == Keyword::AS;
    token(place + 1).filter(|alias| is_as && matches!(alias, Token::Word(_)))?;
    Some((columns, [*written.get(place)?, *written.get(place + 1)?]))
}

fn keyword(token: &Token) -> Keyword {
    match token {
        Token::Word(word) if word.quote_style.is_none() => word.keyword,
        _ => Keyword::NoKeyword,
    }
}

/// Takes the aliases out of the joins, and puts what they stand for in the places of their columns.
pub(in crate::sql) fn resolve_join_aliases(statement: &mut ParsedStatement) {
    let _: ControlFlow<()> = match statement {
        ParsedStatement::Sql(statement) => statement.visit(&mut Resolve),
        ParsedStatement::Copy(copy) => match &mut copy.source {
            CopySource::Query(query) => query.visit(&mut Resolve),
            _ => ControlFlow::Continue(()),
        },
        ParsedStatement::Own(write) => match write.as_mut() {
            Write::CreateTable(create) => create.query.visit(&mut Resolve),
            Write::CreateView(view) => view.query.visit(&mut Resolve),
            _ => ControlFlow::Continue(()),
        },
        _ => ControlFlow::Continue(()),
    };
}

struct Resolve;

impl VisitorMut for Resolve {
    type Break = ();

    fn pre_visit_statement(&mut self, statement: &mut Statement) -> ControlFlow<()> {
        match statement {
            Statement::Update(Update {
                from: Some(UpdateTableFromKind::AfterSet(from) | UpdateTableFromKind::BeforeSet(from)),
                assignments,
                selection,
                returning,
                ..
            }) => {
                let mut naming = Naming::of(from);
                naming.visit(from);
                naming.visit(assignments);
                naming.visit(selection);
                naming.list(returning.as_mut());
            }
            Statement::Delete(Delete { using: Some(using), selection, returning, .. }) => {
                let mut naming = Naming::of(using);
                naming.visit(using);
                naming.visit(selection);
                naming.list(returning.as_mut());
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        if let SetExpr::Select(select) = query.body.as_mut() {
            resolve_in(select, query.order_by.as_mut());
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        resolve_in(select, None);
        ControlFlow::Continue(())
    }
}

fn resolve_in(select: &mut Select, order_by: Option<&mut OrderBy>) {
    let mut naming = Naming::of(&mut select.from);
    naming.visit(select);
    if let Some(order_by) = order_by {
        naming.visit(order_by);
    }
}

/// What an alias stands for.
struct JoinAlias {
    name: String,
    /// Its columns, and their values as far as those are known.
    columns: Vec<(Ident, Option<Expr>)>,
}

/// One side of a join.
struct Side {
    relations: Vec<Option<Relation>>,
    /// The columns that joins have merged in it.
    merged: Vec<(String, Option<Expr>)>,
}

impl Side {
    /// The column of this name that it shows; `None` if that is not known.
    fn value(&self, column: &Ident) -> Option<Expr> {
        let name = fold(column);
        if let Some((_, value)) = self.merged.iter().find(|(known, _)| *known == name) {
            return value.clone();
        }
        match self.relations.as_slice() {
            [Some(relation)] => {
                Some(Expr::CompoundIdentifier(relation.iter().cloned().chain([column.clone()]).collect()))
            }
            _ => None,
        }
    }
}

/// Takes the aliases out of some joins.
fn take_aliases(from: &mut TableWithJoins, aliases: &mut Vec<JoinAlias>) -> Side {
    let mut left = side_of(&mut from.relation, aliases);
    for join in &mut from.joins {
        let mut right = side_of(&mut join.relation, aliases);
        let names: Vec<ObjectName> = match constraint_mut(join) {
            Some(JoinConstraint::Using(names)) => {
                let written = names.clone();
                for name in names {
                    if let [_, column] = name.0.as_slice() {
                        *name = ObjectName(vec![column.clone()]);
                    }
                }
                written
            }
            _ => Vec::new(),
        };
        // What it merges is not written.
        if matches!(constraint(join), Some(JoinConstraint::Natural)) {
            left.merged.clear();
            right.merged.clear();
        }
        let mut alias: Option<JoinAlias> = None;
        let mut merged = Vec::with_capacity(names.len());
        for name in &names {
            let Some(column) = name.0.last().and_then(ObjectNamePart::as_ident) else { continue };
            let value = match (left.value(column), right.value(column)) {
                (Some(left), Some(right)) => Some(merged_value(join, &left, &right)),
                _ => None,
            };
            merged.push((fold(column), value.clone()));
            if let [ObjectNamePart::Identifier(own), _] = name.0.as_slice() {
                let alias = alias.get_or_insert_with(|| JoinAlias { name: fold(own), columns: Vec::new() });
                alias.columns.push((column.clone(), value));
            }
        }
        aliases.extend(alias);
        left.relations.append(&mut right.relations);
        let others = left.merged.into_iter().chain(right.merged);
        let others: Vec<_> = others.filter(|(name, _)| merged.iter().all(|(known, _)| known != name)).collect();
        left.merged = merged.into_iter().chain(others).collect();
    }
    left
}

fn side_of(factor: &mut TableFactor, aliases: &mut Vec<JoinAlias>) -> Side {
    match factor {
        TableFactor::NestedJoin { table_with_joins, alias: None } => take_aliases(table_with_joins, aliases),
        // Outside of it nothing is known of the aliases inside.
        TableFactor::NestedJoin { table_with_joins, alias: Some(alias) } => {
            take_aliases(table_with_joins, &mut Vec::new());
            Side { relations: vec![Some(vec![alias.name.clone()])], merged: Vec::new() }
        }
        factor => Side { relations: vec![relation_name(factor)], merged: Vec::new() },
    }
}

/// The names by which a FROM knows its relations, those of joins among them.
fn names_in(from: &[TableWithJoins]) -> Vec<String> {
    let mut names = Vec::new();
    for from in from {
        for factor in std::iter::once(&from.relation).chain(from.joins.iter().map(|join| &join.relation)) {
            match factor {
                TableFactor::NestedJoin { table_with_joins, alias: None } => {
                    names.extend(names_in(std::slice::from_ref(table_with_joins.as_ref())));
                }
                TableFactor::NestedJoin { alias: Some(alias), .. } => names.push(fold(&alias.name)),
                factor => names.extend(relation_name(factor).and_then(|parts| parts.last().map(fold))),
            }
        }
        for join in &from.joins {
            if let Some(JoinConstraint::Using(columns)) = constraint(join)
                && let Some([ObjectNamePart::Identifier(alias), _]) = columns.first().map(|name| name.0.as_slice())
            {
                names.push(fold(alias));
            }
        }
    }
    names
}

/// Puts the values of columns in the places of their names.
struct Naming {
    aliases: Vec<JoinAlias>,
    /// The names that the relations of the SELECTs around have, within the one with the joins.
    hidden: Vec<Vec<String>>,
    /// How many queries deep.
    depth: usize,
}

impl Naming {
    /// Takes the aliases out of a FROM.
    fn of(from: &mut [TableWithJoins]) -> Self {
        let mut aliases = Vec::new();
        for from in from {
            take_aliases(from, &mut aliases);
        }
        Naming { aliases, hidden: Vec::new(), depth: 0 }
    }

    fn visit<N: VisitMut>(&mut self, node: &mut N) {
        if !self.aliases.is_empty() {
            let _ = node.visit(self);
        }
    }

    /// A list of RETURNING.
    fn list(&mut self, items: Option<&mut Vec<SelectItem>>) {
        if let Some(items) = items {
            self.name_items(items);
            self.visit(items);
        }
    }

    fn alias(&self, name: &Ident) -> Option<&JoinAlias> {
        let name = fold(name);
        let is_hidden = self.hidden.iter().any(|names| names.contains(&name));
        self.aliases.iter().find(|alias| alias.name == name).filter(|_| !is_hidden)
    }

    /// What `j.x` stands for.
    fn value(&self, expr: &Expr) -> Option<Expr> {
        let Expr::CompoundIdentifier(parts) = expr else { return None };
        let [relation, column] = parts.as_slice() else { return None };
        let (known, value) = self.alias(relation)?.columns.iter().find(|(known, _)| fold(known) == fold(column))?;
        match value {
            Some(value) => Some(value.clone()),
            None => (self.depth == 0).then(|| Expr::Identifier(known.clone())),
        }
    }

    /// Puts the columns in the places of `j.*`, and keeps the names of items that become other expressions.
    fn name_items(&self, items: &mut Vec<SelectItem>) {
        let mut list = Vec::with_capacity(items.len());
        for item in std::mem::take(items) {
            match self.star(&item) {
                Some(alias) => list.extend(alias.columns.iter().map(|(column, value)| match value {
                    Some(value) => named(value.clone(), &fold(column)),
                    None => SelectItem::UnnamedExpr(Expr::Identifier(column.clone())),
                })),
                None => list.push(self.named_call(&item).unwrap_or(item)),
            }
        }
        *items = list;
    }

    /// The alias that an item is the star of.
    fn star(&self, item: &SelectItem) -> Option<&JoinAlias> {
        let SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), options) = item else {
            return None;
        };
        match name.0.as_slice() {
            [ObjectNamePart::Identifier(relation)] if is_plain(options) => self.alias(relation),
            _ => None,
        }
    }

    /// An item that becomes a call, under its own name.
    fn named_call(&self, item: &SelectItem) -> Option<SelectItem> {
        let SelectItem::UnnamedExpr(expr) = item else { return None };
        let Expr::CompoundIdentifier(parts) = expr else { return None };
        let value = self.value(expr).filter(|value| matches!(value, Expr::Function(_)))?;
        Some(named(value, &fold(parts.last()?)))
    }
}

impl VisitorMut for Naming {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        self.depth += 1;
        // What a query is ordered by belongs to its SELECT.
        self.hidden.push(match query.body.as_ref() {
            SetExpr::Select(select) => names_in(&select.from),
            _ => Vec::new(),
        });
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _query: &mut Query) -> ControlFlow<()> {
        self.depth -= 1;
        self.hidden.pop();
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        self.hidden.push(if self.depth > 0 { names_in(&select.from) } else { Vec::new() });
        self.name_items(&mut select.projection);
        ControlFlow::Continue(())
    }

    fn post_visit_select(&mut self, _select: &mut Select) -> ControlFlow<()> {
        self.hidden.pop();
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Some(value) = self.value(expr) {
            *expr = value;
        }
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::text::parse::parse_statement;

    fn parsed(sql: &str) -> String {
        match parse_statement(sql).unwrap().statement {
            ParsedStatement::Sql(statement) => statement.to_string(),
            other => panic!("{sql}: {other:?}"),
        }
    }

    #[test]
    fn aliases_of_joins_are_their_columns() {
        for (sql, expected) in [
            (
                "SELECT j.a, J.*, b.j FROM t JOIN b USING (a, c) AS j",
                "SELECT t.a, t.a AS \"a\", t.c AS \"c\", b.j FROM t JOIN b USING(a, c)",
            ),
            ("SELECT x.j.a FROM t JOIN u USING (a) AS j", "SELECT x.j.a FROM t JOIN u USING(a)"),
            ("SELECT j.c FROM t JOIN u USING (a) AS j", "SELECT j.c FROM t JOIN u USING(a)"),
            ("SELECT j.a FROM t JOIN u USING (a)", "SELECT j.a FROM t JOIN u USING(a)"),
            (
                "SELECT 1 FROM t RIGHT JOIN u USING (a) AS j ORDER BY j.a",
                "SELECT 1 FROM t RIGHT JOIN u USING(a) ORDER BY u.a",
            ),
            (
                "SELECT j.a FROM t FULL JOIN u USING (a) AS j WHERE j.a > 1",
                "SELECT coalesce(t.a, u.a) AS \"a\" FROM t FULL JOIN u USING(a) WHERE coalesce(t.a, u.a) > 1",
            ),
            (
                "SELECT j.a, k.b FROM t JOIN u USING (a) AS j LEFT JOIN v USING (a) AS k",
                "SELECT t.a, k.b FROM t JOIN u USING(a) LEFT JOIN v USING(a)",
            ),
            (
                "SELECT j.b FROM t JOIN u USING (a) JOIN v USING (b) AS j",
                "SELECT b FROM t JOIN u USING(a) JOIN v USING(b)",
            ),
        ] {
            assert_eq!(parsed(sql), expected, "{sql}");
        }
    }

    #[test]
    fn they_are_known_where_the_join_is() {
        for (sql, expected) in [
            (
                "SELECT j.a FROM (SELECT j.a FROM t JOIN u USING (a) AS j) AS q, j",
                "SELECT j.a FROM (SELECT t.a FROM t JOIN u USING(a)) AS q, j",
            ),
            (
                "SELECT (SELECT max(v.b) FROM v WHERE v.a = j.a) FROM t JOIN u USING (a) AS j",
                "SELECT (SELECT max(v.b) FROM v WHERE v.a = t.a) FROM t JOIN u USING(a)",
            ),
            (
                "SELECT (SELECT j.a FROM j) FROM t JOIN u USING (a) AS j",
                "SELECT (SELECT j.a FROM j) FROM t JOIN u USING(a)",
            ),
            (
                "UPDATE v SET b = j.a FROM t JOIN u USING (a) AS j WHERE v.a = j.a",
                "UPDATE v SET b = t.a FROM t JOIN u USING(a) WHERE v.a = t.a",
            ),
        ] {
            assert_eq!(parsed(sql), expected, "{sql}");
        }
    }
}
