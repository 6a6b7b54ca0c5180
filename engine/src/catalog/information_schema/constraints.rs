//! The constraints there are, and what they are about.

use rustydb_storage::{Deferral, ForeignKey, IndexDef, ReferenceAction, TableDef};

use super::{Cell, Rows, Source};
use crate::constraints::{checks_of, is_hidden};
use crate::ddl::declaration::columns_in;
use crate::{CATALOG_NAME, Result};

/// A constraint of a table.
pub(super) struct Constraint<'a> {
    pub(super) table: &'a TableDef,
    pub(super) name: String,
    pub(super) columns: Vec<usize>,
    pub(super) kind: Kind<'a>,
}

pub(super) enum Kind<'a> {
    PrimaryKey,
    Unique(&'a IndexDef),
    ForeignKey(&'a ForeignKey, &'a TableDef),
    Check(String),
}

impl Kind<'_> {
    fn name(&self) -> &'static str {
        match self {
            Kind::Unique(index) if !index.primary => "UNIQUE",
            Kind::PrimaryKey | Kind::Unique(_) => "PRIMARY KEY",
            Kind::ForeignKey(..) => "FOREIGN KEY",
            Kind::Check(_) => "CHECK",
        }
    }
}

/// The constraints of all tables.
pub(super) fn constraints<'a>(source: &Source<'a>) -> Result<Vec<Constraint<'a>>> {
    let mut all = Vec::new();
    for table in source.tables() {
        if !table.primary_key.is_empty() {
            let (name, columns) = (table.primary_key_name(), table.primary_key.clone());
            all.push(Constraint { table, name, columns, kind: Kind::PrimaryKey });
        }
        let hidden = |index: &IndexDef| index.columns.iter().any(|column| is_hidden(table.schema.field(*column)));
        for index in table.indexes.iter().filter(|index| index.unique && !hidden(index)) {
            let (name, columns) = (index.name.clone(), index.columns.clone());
            all.push(Constraint { table, name, columns, kind: Kind::Unique(index) });
        }
        for foreign_key in &table.foreign_keys {
            let Some(parent) = source.catalog.table(foreign_key.parent) else { continue };
            let (name, columns) = (foreign_key.name.clone(), foreign_key.columns.clone());
            all.push(Constraint { table, name, columns, kind: Kind::ForeignKey(foreign_key, parent) });
        }
        for check in checks_of(table)? {
            let used = columns_in(&check.syntax()?);
            let columns = used.iter().filter_map(|name| table.schema.index_of(name).ok()).collect();
            all.push(Constraint { table, name: check.name, columns, kind: Kind::Check(check.expression) });
        }
    }
    Ok(all)
}

pub(super) fn yes_no<'a>(yes: bool) -> Cell<'a> {
    Cell::Text(if yes { "YES" } else { "NO" })
}

pub(super) fn table_constraints(source: &Source<'_>, rows: &mut Rows) -> Result<()> {
    use Cell::Text;
    for Constraint { table, name, columns: _, kind } in constraints(source)? {
        let (deferrable, deferred) = match &kind {
            Kind::ForeignKey(foreign_key, _) => (foreign_key.deferrable, foreign_key.initially_deferred),
            Kind::Unique(index) => (index.deferral.is_deferrable(), index.deferral == Deferral::InitiallyDeferred),
            Kind::PrimaryKey | Kind::Check(_) => (false, false),
        };
        rows.push([
            Text(CATALOG_NAME),
            Text(&table.schema_name),
            Text(&name),
            Text(CATALOG_NAME),
            Text(&table.schema_name),
            Text(&table.name),
            Text(kind.name()),
            yes_no(deferrable),
            yes_no(deferred),
            Text("YES"),
            match &kind {
                Kind::Unique(index) if !index.primary => yes_no(index.nulls_distinct),
                _ => Cell::Null,
            },
        ]);
    }
    Ok(())
}

pub(super) fn key_column_usage(source: &Source<'_>, rows: &mut Rows) -> Result<()> {
    use Cell::{Null, Number, Text};
    let number = |index: usize| Number(i32::try_from(index + 1).unwrap_or(i32::MAX));
    for Constraint { table, name, columns, kind } in constraints(source)? {
        if matches!(kind, Kind::Check(_)) {
            continue;
        }
        for (index, column) in columns.iter().enumerate() {
            let in_parent = match &kind {
                Kind::ForeignKey(foreign_key, parent) => {
                    let referred = foreign_key.parent_columns.get(index);
                    referred_key(foreign_key, parent).1.iter().position(|key| Some(key) == referred)
                }
                _ => None,
            };
            rows.push([
                Text(CATALOG_NAME),
                Text(&table.schema_name),
                Text(&name),
                Text(CATALOG_NAME),
                Text(&table.schema_name),
                Text(&table.name),
                Text(table.schema.field(*column).name()),
                number(index),
                in_parent.map_or(Null, number),
            ]);
        }
    }
    Ok(())
}

pub(super) fn referential_constraints(source: &Source<'_>, rows: &mut Rows) -> Result<()> {
    use Cell::Text;
    let rule = |action: ReferenceAction| match action {
        ReferenceAction::NoAction => "NO ACTION",
        ReferenceAction::Restrict => "RESTRICT",
        ReferenceAction::Cascade => "CASCADE",
        ReferenceAction::SetNull => "SET NULL",
        ReferenceAction::SetDefault => "SET DEFAULT",
    };
    for Constraint { table, name, kind, .. } in constraints(source)? {
        let Kind::ForeignKey(foreign_key, parent) = kind else { continue };
        rows.push([
            Text(CATALOG_NAME),
            Text(&table.schema_name),
            Text(&name),
            Text(CATALOG_NAME),
            Text(&parent.schema_name),
            Text(&referred_key(foreign_key, parent).0),
            Text(if foreign_key.match_full { "FULL" } else { "NONE" }),
            Text(rule(foreign_key.on_update)),
            Text(rule(foreign_key.on_delete)),
        ]);
    }
    Ok(())
}

pub(super) fn check_constraints(source: &Source<'_>, rows: &mut Rows) -> Result<()> {
    use Cell::Text;
    for Constraint { table, name, kind, .. } in constraints(source)? {
        let Kind::Check(expression) = kind else { continue };
        rows.push([Text(CATALOG_NAME), Text(&table.schema_name), Text(&name), Text(&expression)]);
    }
    Ok(())
}

/// The name and the columns of the key that a foreign key refers to.
fn referred_key<'a>(foreign_key: &ForeignKey, parent: &'a TableDef) -> (String, &'a [usize]) {
    let same = |columns: &[usize]| {
        columns.len() == foreign_key.parent_columns.len()
            && columns.iter().all(|column| foreign_key.parent_columns.contains(column))
    };
    let unique =
        parent.indexes.iter().find(|index| index.unique && !index.deferral.is_deferrable() && same(&index.columns));
    match unique {
        Some(index) if !same(&parent.primary_key) => (index.name.clone(), &index.columns),
        _ => (parent.primary_key_name(), &parent.primary_key),
    }
}

/// The tables a constraint is about; for a foreign key the one it refers to.
pub(super) fn constraint_table_usage(source: &Source<'_>, rows: &mut Rows) -> Result<()> {
    use Cell::Text;
    for Constraint { table, name, columns: _, kind } in constraints(source)? {
        let used: &TableDef = match &kind {
            Kind::ForeignKey(_, parent) => parent,
            // What a CHECK is about is its own table only.
            Kind::Check(_) => continue,
            _ => table,
        };
        rows.push([
            Text(CATALOG_NAME),
            Text(&used.schema_name),
            Text(&used.name),
            Text(CATALOG_NAME),
            Text(&table.schema_name),
            Text(&name),
        ]);
    }
    Ok(())
}

/// The columns a constraint is about; for a foreign key those it refers to.
pub(super) fn constraint_column_usage(source: &Source<'_>, rows: &mut Rows) -> Result<()> {
    use Cell::Text;
    for Constraint { table, name, columns, kind } in constraints(source)? {
        let (used, columns) = match &kind {
            Kind::ForeignKey(foreign_key, parent) => (*parent, &foreign_key.parent_columns),
            _ => (table, &columns),
        };
        for column in columns {
            rows.push([
                Text(CATALOG_NAME),
                Text(&used.schema_name),
                Text(&used.name),
                Text(used.schema.field(*column).name()),
                Text(CATALOG_NAME),
                Text(&table.schema_name),
                Text(&name),
            ]);
        }
    }
    Ok(())
}
