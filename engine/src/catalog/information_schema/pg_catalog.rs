//! `pg_catalog`: the part of PostgreSQL's own catalog that tools and people ask for, with the columns that mean something
//! here. Object identifiers are made from the store's numbers and stay with their objects.

use arrow::datatypes::{DataType, Field, TimeUnit};
use rustydb_storage::{IndexDef, ObjectKind, ReferenceAction, TableDef};

use super::constraints::{Constraint, Kind, constraints};
use super::fields::{flag, number, numbers, optional_number, optional_text, text};
use super::{Cell, INFORMATION_SCHEMA, PG_CATALOG, Rows, Source};
use crate::constraints::{GENERATED_KEY, IDENTITY_KEY, is_hidden, shown_columns};
use crate::ddl::temporary::is_temporary;
use crate::ddl::view::ViewDefinition;
use crate::functions::time_digits::digits_of_unit;
use crate::sql::types::{DEFAULT_KEY, LENGTH_KEY, declared_name, digits_of};
use crate::{CATALOG_NAME, DEFAULT_SCHEMA, Result};

/// The names of these tables.
pub(super) const NAMES: [&str; 8] =
    ["pg_attribute", "pg_class", "pg_constraint", "pg_indexes", "pg_namespace", "pg_tables", "pg_type", "pg_views"];

/// PostgreSQL's identifiers of schemas that are always there.
const CATALOG_OID: i32 = 11;
const PUBLIC_OID: i32 = 2200;
const INFORMATION_SCHEMA_OID: i32 = 13_000;
const TEMPORARY_OID: i32 = 16_383;
/// The owner of everything.
const OWNER_OID: i32 = 10;
/// Users' objects begin here.
const FIRST_OID: i64 = 16_384;

/// Types: identifier, name, length, category.
const TYPES: [(i32, &str, i32, &str); 16] = [
    (16, "bool", 1, "B"),
    (17, "bytea", -1, "U"),
    (20, "int8", 8, "N"),
    (21, "int2", 2, "N"),
    (23, "int4", 4, "N"),
    (25, "text", -1, "S"),
    (700, "float4", 4, "N"),
    (701, "float8", 8, "N"),
    (1042, "bpchar", -1, "S"),
    (1043, "varchar", -1, "S"),
    (1082, "date", 4, "D"),
    (1083, "time", 8, "D"),
    (1114, "timestamp", 8, "D"),
    (1184, "timestamptz", 8, "D"),
    (1186, "interval", 16, "T"),
    (1700, "numeric", -1, "N"),
];

/// What an identifier is of: stores number tables, other objects and indexes apart.
#[derive(Clone, Copy)]
enum Numbered {
    Table = 0,
    Object = 1,
    Index = 2,
    PrimaryKey = 3,
}

fn oid(id: u64, of: Numbered) -> i32 {
    let number = i64::try_from(id).unwrap_or(i64::MAX).saturating_mul(4).saturating_add(of as i64 + FIRST_OID);
    i32::try_from(number).unwrap_or(i32::MAX)
}

pub(super) fn fields_of(table: &str) -> Vec<Field> {
    match table {
        "pg_namespace" => vec![number("oid"), text("nspname"), number("nspowner")],
        "pg_class" => vec![
            number("oid"),
            text("relname"),
            number("relnamespace"),
            number("relowner"),
            text("relkind"),
            text("relpersistence"),
            number("relnatts"),
            flag("relhasindex"),
            number("relchecks"),
            flag("relispartition"),
        ],
        "pg_attribute" => vec![
            number("attrelid"),
            text("attname"),
            number("atttypid"),
            number("attlen"),
            number("attnum"),
            number("atttypmod"),
            flag("attnotnull"),
            flag("atthasdef"),
            text("attidentity"),
            text("attgenerated"),
            flag("attisdropped"),
        ],
        "pg_type" => vec![
            number("oid"),
            text("typname"),
            number("typnamespace"),
            number("typowner"),
            number("typlen"),
            text("typtype"),
            text("typcategory"),
        ],
        "pg_constraint" => vec![
            number("oid"),
            text("conname"),
            number("connamespace"),
            text("contype"),
            flag("condeferrable"),
            flag("condeferred"),
            flag("convalidated"),
            number("conrelid"),
            number("conindid"),
            number("confrelid"),
            text("confupdtype"),
            text("confdeltype"),
            text("confmatchtype"),
            numbers("conkey"),
            numbers("confkey"),
        ],
        "pg_indexes" => {
            vec![
                text("schemaname"),
                text("tablename"),
                text("indexname"),
                optional_text("tablespace"),
                text("indexdef"),
            ]
        }
        "pg_tables" => vec![
            text("schemaname"),
            text("tablename"),
            text("tableowner"),
            optional_text("tablespace"),
            flag("hasindexes"),
            flag("hasrules"),
            flag("hastriggers"),
            flag("rowsecurity"),
        ],
        "pg_views" => vec![text("schemaname"), text("viewname"), text("viewowner"), text("definition")],
        _ => vec![optional_number("oid")],
    }
}

pub(super) fn fill(table: &str, source: &Source<'_>, rows: &mut Rows) -> Result<()> {
    match table {
        "pg_namespace" => namespaces(source, rows),
        "pg_class" => classes(source, rows)?,
        "pg_attribute" => attributes(source, rows)?,
        "pg_type" => types(rows),
        "pg_constraint" => all_constraints(source, rows)?,
        "pg_indexes" => indexes(source, rows),
        "pg_tables" => tables(source, rows),
        "pg_views" => views(source, rows)?,
        _ => {}
    }
    Ok(())
}

fn namespace(source: &Source<'_>, schema: &str) -> i32 {
    match schema {
        DEFAULT_SCHEMA => PUBLIC_OID,
        PG_CATALOG => CATALOG_OID,
        INFORMATION_SCHEMA => INFORMATION_SCHEMA_OID,
        name if is_temporary(name) => TEMPORARY_OID,
        name => source
            .catalog
            .find_object(ObjectKind::Schema, "", name)
            .map_or(TEMPORARY_OID, |schema| oid(schema.id.0, Numbered::Object)),
    }
}

fn namespaces(source: &Source<'_>, rows: &mut Rows) {
    use Cell::{Number, Text};
    let own = source.own.into_iter().map(|name| (TEMPORARY_OID, name));
    let fixed = [(CATALOG_OID, PG_CATALOG), (PUBLIC_OID, DEFAULT_SCHEMA), (INFORMATION_SCHEMA_OID, INFORMATION_SCHEMA)];
    for (oid, name) in fixed.into_iter().chain(own) {
        rows.push([Number(oid), Text(name), Number(OWNER_OID)]);
    }
    for schema in source.objects(ObjectKind::Schema) {
        rows.push([Number(oid(schema.id.0, Numbered::Object)), Text(&schema.name), Number(OWNER_OID)]);
    }
}

/// An index as its users see it: its name, and what it is over.
struct ShownIndex<'a> {
    oid: i32,
    name: String,
    columns: &'a [usize],
    unique: bool,
}

/// The indexes of a table; those over expressions are over columns nobody sees.
fn indexes_of(table: &TableDef) -> impl Iterator<Item = ShownIndex<'_>> {
    let key = (!table.primary_key.is_empty()).then(|| ShownIndex {
        oid: oid(table.id.0, Numbered::PrimaryKey),
        name: table.primary_key_name(),
        columns: &table.primary_key,
        unique: true,
    });
    let others = table.indexes.iter().map(|index: &IndexDef| ShownIndex {
        oid: oid(index.id.0, Numbered::Index),
        name: index.name.clone(),
        columns: &index.columns,
        unique: index.unique,
    });
    key.into_iter().chain(others)
}

fn small(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn classes(source: &Source<'_>, rows: &mut Rows) -> Result<()> {
    use Cell::{Flag, Number, Text};
    let mut push = |oid, name: &str, schema: &str, kind, columns, indexed, checks| {
        let persistence = if is_temporary(schema) { "t" } else { "p" };
        rows.push([
            Number(oid),
            Text(name),
            Number(namespace(source, schema)),
            Number(OWNER_OID),
            Text(kind),
            Text(persistence),
            Number(small(columns)),
            Flag(indexed),
            Number(small(checks)),
            Flag(false),
        ]);
    };
    for table in source.tables() {
        let indexed = indexes_of(table).next().is_some();
        let checks = crate::constraints::checks_of(table)?.len();
        let (oid, columns) = (oid(table.id.0, Numbered::Table), shown_columns(table));
        push(oid, &table.name, &table.schema_name, "r", columns, indexed, checks);
        for index in indexes_of(table) {
            push(index.oid, &index.name, &table.schema_name, "i", index.columns.len(), false, 0);
        }
    }
    for (kind, letter) in [(ObjectKind::View, "v"), (ObjectKind::Sequence, "S")] {
        for object in source.objects(kind) {
            let columns = if letter == "v" { ViewDefinition::of(object)?.columns.len() } else { 3 };
            push(oid(object.id.0, Numbered::Object), &object.name, &object.schema_name, letter, columns, false, 0);
        }
    }
    Ok(())
}

/// The identifier and length of a column's type, and what PostgreSQL keeps of its parameters.
fn type_of(field: &Field) -> (i32, i32, i32) {
    let declared = declared_name(field);
    let bare = declared.split('(').next().unwrap_or(&declared).trim();
    let name = match bare {
        "boolean" => "bool",
        "smallint" => "int2",
        "integer" => "int4",
        "bigint" => "int8",
        "real" => "float4",
        "double precision" => "float8",
        "character varying" | "varchar" => "varchar",
        "character" | "char" => "bpchar",
        "timestamp with time zone" => "timestamptz",
        "timestamp" if declared.ends_with("with time zone") => "timestamptz",
        "timestamp without time zone" => "timestamp",
        other => other,
    };
    let (oid, _, length, _) = TYPES.iter().find(|(_, known, ..)| *known == name).copied().unwrap_or((0, "", -1, "U"));
    let characters = field.metadata().get(LENGTH_KEY).and_then(|length| length.parse::<i32>().ok());
    let modifier = match (characters, digits_of(field), field.data_type()) {
        (Some(characters), ..) => characters.saturating_add(4),
        (None, Some(digits), _) => i32::from(digits),
        (None, None, DataType::Decimal128(precision, scale)) => (i32::from(*precision) << 16 | i32::from(*scale)) + 4,
        (None, None, DataType::Timestamp(unit, _)) if *unit != TimeUnit::Microsecond => {
            i32::from(digits_of_unit(*unit))
        }
        _ => -1,
    };
    (oid, length, modifier)
}

fn attributes(source: &Source<'_>, rows: &mut Rows) -> Result<()> {
    use Cell::{Flag, Number, Text};
    let mut push = |relation: i32, place: usize, field: &Field| {
        let (type_oid, length, modifier) = type_of(field);
        let metadata = field.metadata();
        let generated = metadata.contains_key(GENERATED_KEY);
        let identity = match metadata.get(IDENTITY_KEY).map(String::as_str) {
            Some("always") => "a",
            Some(_) => "d",
            None => "",
        };
        rows.push([
            Number(relation),
            Text(field.name()),
            Number(type_oid),
            Number(length),
            Number(small(place + 1)),
            Number(modifier),
            Flag(!field.is_nullable()),
            Flag(generated || (metadata.contains_key(DEFAULT_KEY) && identity.is_empty())),
            Text(identity),
            Text(if generated { "s" } else { "" }),
            Flag(false),
        ]);
    };
    for table in source.tables() {
        for (place, field) in table.schema.fields().iter().take(shown_columns(table)).enumerate() {
            push(oid(table.id.0, Numbered::Table), place, field);
        }
        for index in indexes_of(table) {
            for (place, column) in index.columns.iter().enumerate() {
                push(index.oid, place, table.schema.field(*column));
            }
        }
    }
    for view in source.objects(ObjectKind::View) {
        for (place, field) in ViewDefinition::of(view)?.fields().iter().enumerate() {
            push(oid(view.id.0, Numbered::Object), place, field);
        }
    }
    Ok(())
}

fn types(rows: &mut Rows) {
    use Cell::{Number, Text};
    for (oid, name, length, category) in TYPES {
        rows.push([
            Number(oid),
            Text(name),
            Number(CATALOG_OID),
            Number(OWNER_OID),
            Number(length),
            Text("b"),
            Text(category),
        ]);
    }
}

fn all_constraints(source: &Source<'_>, rows: &mut Rows) -> Result<()> {
    use Cell::{Flag, Null, Number, Numbers, Text};
    let places = |columns: &[usize]| -> Vec<i32> { columns.iter().map(|column| small(column + 1)).collect() };
    for (number, Constraint { table, name, columns, kind }) in constraints(source)?.into_iter().enumerate() {
        let letter = match &kind {
            Kind::Unique(index) if !index.primary => "u",
            Kind::PrimaryKey | Kind::Unique(_) => "p",
            Kind::ForeignKey(..) => "f",
            Kind::Check(_) => "c",
        };
        let (foreign_key, parent) = match &kind {
            Kind::ForeignKey(foreign_key, parent) => (Some(*foreign_key), Some(*parent)),
            _ => (None, None),
        };
        let index = match &kind {
            Kind::PrimaryKey | Kind::Unique(_) => indexes_of(table).find(|index| index.name == name),
            Kind::ForeignKey(foreign_key, parent) => {
                indexes_of(parent).find(|index| index.unique && index.columns == foreign_key.parent_columns)
            }
            Kind::Check(_) => None,
        };
        let action = |action: Option<ReferenceAction>| {
            Text(match action {
                None => " ",
                Some(ReferenceAction::NoAction) => "a",
                Some(ReferenceAction::Restrict) => "r",
                Some(ReferenceAction::Cascade) => "c",
                Some(ReferenceAction::SetNull) => "n",
                Some(ReferenceAction::SetDefault) => "d",
            })
        };
        rows.push([
            Number(small(number + 1)),
            Text(&name),
            Number(namespace(source, &table.schema_name)),
            Text(letter),
            Flag(foreign_key.is_some_and(|key| key.deferrable)),
            Flag(foreign_key.is_some_and(|key| key.initially_deferred)),
            Flag(!foreign_key.is_some_and(|key| key.not_validated)),
            Number(oid(table.id.0, Numbered::Table)),
            Number(index.map_or(0, |index| index.oid)),
            Number(parent.map_or(0, |parent| oid(parent.id.0, Numbered::Table))),
            action(foreign_key.map(|key| key.on_update)),
            action(foreign_key.map(|key| key.on_delete)),
            Text(match foreign_key {
                None => " ",
                Some(key) if key.match_full => "f",
                Some(_) => "s",
            }),
            Numbers(places(&columns)),
            foreign_key.map_or(Null, |key| Numbers(places(&key.parent_columns))),
        ]);
    }
    Ok(())
}

fn indexes(source: &Source<'_>, rows: &mut Rows) {
    use Cell::{Null, Text};
    for table in source.tables() {
        for index in indexes_of(table) {
            let columns = index.columns.iter().map(|column| {
                let field = table.schema.field(*column);
                match is_hidden(field) {
                    // What such a column is for stands in its name.
                    true => field.name().split_once(": ").map_or(field.name().as_str(), |(_, text)| text),
                    false => field.name(),
                }
            });
            let columns: Vec<&str> = columns.collect();
            let unique = if index.unique { "UNIQUE " } else { "" };
            let definition = format!(
                "CREATE {unique}INDEX {} ON {}.{} USING btree ({})",
                index.name,
                table.schema_name,
                table.name,
                columns.join(", ")
            );
            rows.push([Text(&table.schema_name), Text(&table.name), Text(&index.name), Null, Text(&definition)]);
        }
    }
}

fn tables(source: &Source<'_>, rows: &mut Rows) {
    use Cell::{Flag, Null, Text};
    for table in source.tables() {
        let indexed = indexes_of(table).next().is_some();
        rows.push([
            Text(&table.schema_name),
            Text(&table.name),
            Text(CATALOG_NAME),
            Null,
            Flag(indexed),
            Flag(false),
            Flag(!table.foreign_keys.is_empty()),
            Flag(false),
        ]);
    }
}

fn views(source: &Source<'_>, rows: &mut Rows) -> Result<()> {
    use Cell::Text;
    for view in source.objects(ObjectKind::View) {
        let definition = ViewDefinition::of(view)?;
        rows.push([Text(&view.schema_name), Text(&view.name), Text(CATALOG_NAME), Text(&definition.query)]);
    }
    Ok(())
}
