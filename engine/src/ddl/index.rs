//! CREATE INDEX and DROP INDEX.

use datafusion::sql::sqlparser::ast::{CreateIndex, Expr, IndexColumn, IndexType, ObjectName, OrderByExpr, Spanned};
use rustydb_storage::{Catalog, IndexId, NewIndex, ObjectKind, TableId, Transaction};

use crate::dml::defaults::column_index;
use crate::error::sqlstate;
use crate::session::{Completion, Statement};
use crate::sql::check::refuse;
use crate::sql::parse::{fold, place, table_name};
use crate::{Error, Result};

pub(crate) async fn create_index(
    statement: &Statement<'_>,
    transaction: &mut Transaction,
    create: CreateIndex,
) -> Result<Completion> {
    let CreateIndex {
        name,
        table_name: on,
        using,
        columns,
        unique,
        // Writers are never kept waiting, with or without it.
        concurrently: _,
        if_not_exists,
        include,
        nulls_distinct,
        with,
        predicate,
        index_options,
        alter_options,
    } = create;
    refuse(using.is_some_and(|using| !matches!(using, IndexType::BTree)), "an index that is not a btree")?;
    refuse(!include.is_empty(), "INCLUDE in CREATE INDEX")?;
    refuse(!with.is_empty() || !index_options.is_empty() || !alter_options.is_empty(), "an option of an index")?;
    refuse(predicate.is_some(), "a partial index (WHERE in CREATE INDEX)")?;
    let context = statement.context(transaction.view());
    let (schema, plain_name) = table_name(&on)?;
    let table = context.table(schema.as_deref(), &plain_name).map_err(|error| error.at(place(on.span())))?;
    let table = std::sync::Arc::clone(table);
    let mut keys = Vec::with_capacity(columns.len());
    for IndexColumn { column, operator_class } in columns {
        refuse(operator_class.is_some(), "an operator class in CREATE INDEX")?;
        // An index can be read in both directions: ASC, DESC and the place of NULLs change nothing.
        let OrderByExpr { expr, options: _, with_fill: _ } = column;
        let Expr::Identifier(ident) = &expr else {
            return Err(Error::unsupported("an index on an expression").at(place(expr.span())));
        };
        keys.push(column_index(&table, &fold(ident)).map_err(|error| error.at(place(ident.span)))?);
    }
    let catalog = std::sync::Arc::clone(context.view().catalog());
    drop(context);
    let name = match name {
        Some(name) => table_name(&name)?.1,
        None => {
            let names: Vec<&str> = keys.iter().map(|key| table.schema.field(*key).name().as_str()).collect();
            let base = format!("{}_{}_idx", table.name, names.join("_"));
            let mut names = (0..).map(|number| if number == 0 { base.clone() } else { format!("{base}{number}") });
            names.find(|name| !taken(&catalog, &table.schema_name, name)).unwrap_or(base.clone())
        }
    };
    if taken(&catalog, &table.schema_name, &name) {
        if if_not_exists {
            return Ok(Completion::new("CREATE INDEX"));
        }
        return Err(Error::new(sqlstate::DUPLICATE_TABLE, format!("relation \"{name}\" already exists")));
    }
    let index = NewIndex { name, columns: keys, unique, nulls_distinct: nulls_distinct.unwrap_or(true) };
    transaction.create_index(table.id, index).await?;
    Ok(Completion::new("CREATE INDEX"))
}

/// Whether a relation or an index of the schema has the name.
fn taken(catalog: &Catalog, schema: &str, name: &str) -> bool {
    find(catalog, schema, name).is_some()
        || catalog.find(schema, name).is_some()
        || [ObjectKind::View, ObjectKind::Sequence]
            .iter()
            .any(|kind| catalog.find_object(*kind, schema, name).is_some())
}

fn find(catalog: &Catalog, schema: &str, name: &str) -> Option<(TableId, IndexId)> {
    let mut tables = catalog.tables().filter(|table| table.schema_name == schema);
    tables.find_map(|table| {
        let index = table.indexes.iter().find(|index| index.name == name)?;
        Some((table.id, index.id))
    })
}

pub(crate) fn drop_indexes(
    statement: &Statement<'_>,
    transaction: &mut Transaction,
    names: &[ObjectName],
    if_exists: bool,
) -> Result<Completion> {
    for name in names {
        let (schema, plain_name) = table_name(name)?;
        let found = {
            let context = statement.context(transaction.view());
            let catalog = context.view().catalog();
            match &schema {
                Some(schema) => find(catalog, schema, &plain_name),
                None => context.search_path().iter().find_map(|schema| find(catalog, schema, &plain_name)),
            }
        };
        match found {
            Some((table, index)) => transaction.drop_index(table, index)?,
            None if if_exists => {}
            None => {
                let message = format!("index \"{plain_name}\" does not exist");
                return Err(Error::new(sqlstate::UNDEFINED_OBJECT, message).at(place(name.span())));
            }
        }
    }
    Ok(Completion::new("DROP INDEX"))
}
