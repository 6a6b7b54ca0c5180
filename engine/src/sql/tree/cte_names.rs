//! Common table expressions that take the name of one of a query around them: `WITH a … (WITH a … SELECT … FROM a)`. Theirs
//! is the one that is meant inside, which DataFusion refuses. They are given names of their own, as is what refers to them.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Ident, ObjectName, Query, TableAlias, TableFactor, Visit, VisitMut, Visitor, VisitorMut,
};

use crate::dml::syntax::quoted;
use crate::sql::names::marked;
use crate::sql::text::parse::fold;

/// Renames what hides the name of an outer common table expression.
pub(in crate::sql) fn rename_hiding(query: &mut Query) {
    if Visit::visit(&*query, &mut Finder { found: false }).is_break() {
        let _ = VisitMut::visit(query, &mut Renaming { scopes: Vec::new(), renamed: 0 });
    }
}

/// Looks for two queries with common table expressions.
struct Finder {
    found: bool,
}

impl Visitor for Finder {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        match query.with.is_some() && std::mem::replace(&mut self.found, true) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }
}

struct Renaming {
    /// The names that the queries around have, the innermost last.
    scopes: Vec<Vec<String>>,
    renamed: usize,
}

impl VisitorMut for Renaming {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        let ctes = query.with.iter().flat_map(|with| &with.cte_tables);
        self.scopes.push(ctes.map(|cte| fold(&cte.alias.name)).collect());
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        self.scopes.pop();
        let Query { with: Some(with), body, order_by, limit_clause, fetch, .. } = query else {
            return ControlFlow::Continue(());
        };
        for place in 0..with.cte_tables.len() {
            let name = fold(&with.cte_tables[place].alias.name);
            if !self.scopes.iter().flatten().any(|outer| *outer == name) {
                continue;
            }
            self.renamed += 1;
            let mut references = References { own: quoted(&marked(&name, self.renamed)), name };
            // Itself, and what is before it, refers to the outer one, unless it is recursive.
            let first = if with.recursive { 0 } else { place + 1 };
            for cte in with.cte_tables.iter_mut().skip(first) {
                let _ = VisitMut::visit(cte.query.as_mut(), &mut references);
            }
            let _ = VisitMut::visit(body.as_mut(), &mut references);
            let _ = VisitMut::visit(order_by, &mut references);
            let _ = VisitMut::visit(limit_clause, &mut references);
            let _ = VisitMut::visit(fetch, &mut references);
            with.cte_tables[place].alias.name = references.own;
        }
        ControlFlow::Continue(())
    }
}

/// Puts a name in the places of another one's.
struct References {
    name: String,
    own: Ident,
}

impl VisitorMut for References {
    type Break = ();

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        if let TableFactor::Table { name, alias, args: None, .. } = factor
            && let [part] = name.0.as_slice()
            && part.as_ident().is_some_and(|ident| fold(ident) == self.name)
        {
            *name = ObjectName::from(vec![self.own.clone()]);
            // Columns are still told by the name that was written.
            alias.get_or_insert_with(|| TableAlias {
                explicit: true,
                name: quoted(&self.name),
                columns: Vec::new(),
                at: None,
            });
        }
        ControlFlow::Continue(())
    }
}
