//! What tables, columns, views, sequences, schemas and comments there are.

use std::collections::HashMap;

use arrow::datatypes::{DataType, Field, TimeUnit};
use rustydb_storage::{ObjectKind, SequenceSpec};

use super::constraints::yes_no;
use super::fields::fields_of;
use super::{Cell, INFORMATION_SCHEMA, NAMES, Rows, Source};
use crate::constraints::{GENERATED_KEY, IDENTITY_KEY, shown_columns};
use crate::ddl::comment::{Comment, comments};
use crate::ddl::temporary::{ON_COMMIT_KEY, is_temporary};
use crate::ddl::view::ViewDefinition;
use crate::dml::through_view::require_updatable;
use crate::sequences::SequenceDefinition;
use crate::sql::route::CheckOption;
use crate::sql::types::{DEFAULT_KEY, LENGTH_KEY, declared_name, digits_of};
use crate::{CATALOG_NAME, DEFAULT_SCHEMA, Result};

pub(super) fn tables(source: &Source<'_>, rows: &mut Rows) -> Result<()> {
    use Cell::{Null, Text};
    for table in source.tables() {
        let temporary = is_temporary(&table.schema_name);
        let on_commit = table.schema.metadata().get(ON_COMMIT_KEY).map(String::as_str);
        rows.push([
            Text(CATALOG_NAME),
            Text(&table.schema_name),
            Text(&table.name),
            Text(if temporary { "LOCAL TEMPORARY" } else { "BASE TABLE" }),
            Text("YES"),
            Text("NO"),
            match on_commit {
                _ if !temporary => Null,
                Some("delete") => Text("DELETE"),
                Some("drop") => Text("DROP"),
                _ => Text("PRESERVE"),
            },
        ]);
    }
    for view in source.objects(ObjectKind::View) {
        let updatable = require_updatable(source.catalog, &view.name, &ViewDefinition::of(view)?).is_ok();
        rows.push(view_row(&view.schema_name, &view.name, updatable));
    }
    for name in NAMES {
        rows.push(view_row(INFORMATION_SCHEMA, name, false));
    }
    Ok(())
}

fn view_row<'a>(schema: &'a str, name: &'a str, updatable: bool) -> [Cell<'a>; 7] {
    use Cell::{Null, Text};
    [Text(CATALOG_NAME), Text(schema), Text(name), Text("VIEW"), yes_no(updatable), Text("NO"), Null]
}

pub(super) fn views(source: &Source<'_>, rows: &mut Rows) -> Result<()> {
    use Cell::Text;
    for view in source.objects(ObjectKind::View) {
        let definition = ViewDefinition::of(view)?;
        let updatable = require_updatable(source.catalog, &view.name, &definition).is_ok();
        rows.push([
            Text(CATALOG_NAME),
            Text(&view.schema_name),
            Text(&view.name),
            Text(&definition.query),
            Text(match definition.check {
                None => "NONE",
                Some(CheckOption::Local) => "LOCAL",
                Some(CheckOption::Cascaded) => "CASCADED",
            }),
            yes_no(updatable),
            yes_no(updatable),
        ]);
    }
    Ok(())
}

pub(super) fn sequences(source: &Source<'_>, rows: &mut Rows) -> Result<()> {
    use Cell::{Number, Text};
    for sequence in source.objects(ObjectKind::Sequence) {
        let SequenceDefinition { data_type, spec, owner, comment: _ } = SequenceDefinition::of(sequence)?;
        // That of an identity is part of its column.
        if owner.is_some_and(|owner| owner.identity) {
            continue;
        }
        let bits = match data_type.as_str() {
            "smallint" => 16,
            "integer" => 32,
            _ => 64,
        };
        let [start, minimum, maximum, increment] =
            [spec.start, spec.minimum, spec.maximum, spec.increment].map(|value| value.to_string());
        rows.push([
            Text(CATALOG_NAME),
            Text(&sequence.schema_name),
            Text(&sequence.name),
            Text(&data_type),
            Number(bits),
            Number(2),
            Number(0),
            Text(&start),
            Text(&minimum),
            Text(&maximum),
            Text(&increment),
            Text(if spec.cycle { "YES" } else { "NO" }),
        ]);
    }
    Ok(())
}

pub(super) fn columns(source: &Source<'_>, rows: &mut Rows) -> Result<()> {
    for view in source.objects(ObjectKind::View) {
        let definition = ViewDefinition::of(view)?;
        let updatable = require_updatable(source.catalog, &view.name, &definition).is_ok();
        for (index, field) in definition.fields().iter().enumerate() {
            push_column(rows, (&view.schema_name, &view.name), index, field, None, updatable);
        }
    }
    let mut sequences = Vec::new();
    for sequence in source.objects(ObjectKind::Sequence) {
        sequences.push(SequenceDefinition::of(sequence)?);
    }
    let owned = sequences.iter().filter_map(|sequence| Some((sequence.owner.as_ref()?, &sequence.spec)));
    let identities: HashMap<(u64, &str), &SequenceSpec> = owned
        .filter(|(owner, _)| owner.identity)
        .map(|(owner, spec)| ((owner.table, owner.column.as_str()), spec))
        .collect();
    for table in source.tables() {
        for (index, field) in table.schema.fields().iter().take(shown_columns(table)).enumerate() {
            let identity = identities.get(&(table.id.0, field.name().as_str()));
            push_column(rows, (&table.schema_name, &table.name), index, field, identity, true);
        }
    }
    for name in NAMES {
        for (index, field) in fields_of(name).iter().enumerate() {
            push_column(rows, (INFORMATION_SCHEMA, name), index, field, None, false);
        }
    }
    Ok(())
}

fn push_column(
    rows: &mut Rows,
    (schema, table): (&str, &str),
    index: usize,
    field: &Field,
    sequence: Option<&&SequenceSpec>,
    updatable: bool,
) {
    use Cell::{Null, Number, Text};
    let declared = declared_name(field);
    let length = field.metadata().get(LENGTH_KEY).and_then(|length| length.parse().ok()).map_or(Null, Number);
    let (precision, radix, scale) = match field.data_type() {
        DataType::Decimal128(precision, scale) => {
            (Number(i32::from(*precision)), Number(10), Number(i32::from(*scale)))
        }
        DataType::Int8 | DataType::UInt8 => (Number(8), Number(2), Number(0)),
        DataType::Int16 | DataType::UInt16 => (Number(16), Number(2), Number(0)),
        DataType::Int32 | DataType::UInt32 => (Number(32), Number(2), Number(0)),
        DataType::Int64 | DataType::UInt64 => (Number(64), Number(2), Number(0)),
        DataType::Float32 => (Number(24), Number(2), Null),
        DataType::Float64 => (Number(53), Number(2), Null),
        _ => (Null, Null, Null),
    };
    let held = match field.data_type() {
        DataType::Date32 | DataType::Timestamp(TimeUnit::Second, _) => Number(0),
        DataType::Timestamp(TimeUnit::Millisecond, _) => Number(3),
        DataType::Timestamp(TimeUnit::Nanosecond, _) | DataType::Time64(TimeUnit::Nanosecond) => Number(9),
        DataType::Timestamp(TimeUnit::Microsecond, _) | DataType::Time64(_) | DataType::Interval(_) => Number(6),
        _ => Null,
    };
    let digits = digits_of(field).map_or(held, |digits| Number(i32::from(digits)));
    let identity = field.metadata().get(IDENTITY_KEY).map(|kind| match kind.as_str() {
        "always" => "ALWAYS",
        _ => "BY DEFAULT",
    });
    let bare = declared.split('(').next().unwrap_or(&declared);
    // As PostgreSQL says it in full.
    let bare = match bare {
        "timestamp" if declared.ends_with("with time zone") => "timestamp with time zone",
        "timestamp" => "timestamp without time zone",
        "timestamptz" => "timestamp with time zone",
        "time" => "time without time zone",
        other => other,
    };
    let numbers =
        sequence.map(|spec| [spec.start, spec.increment, spec.maximum, spec.minimum].map(|number| number.to_string()));
    let generated = field.metadata().get(GENERATED_KEY).map(String::as_str);
    let default = field.metadata().get(DEFAULT_KEY).filter(|_| identity.is_none());
    rows.push([
        Text(CATALOG_NAME),
        Text(schema),
        Text(table),
        Text(field.name()),
        Number(i32::try_from(index + 1).unwrap_or(i32::MAX)),
        default.map_or(Null, |default| Text(default)),
        Text(if field.is_nullable() { "YES" } else { "NO" }),
        // The precise type is in the columns that follow; this one has the bare name, as PostgreSQL has it.
        Text(bare),
        length,
        precision,
        radix,
        scale,
        digits,
        Text(udt_name(bare)),
        Null,
        Text(if identity.is_some() { "YES" } else { "NO" }),
        identity.map_or(Null, Text),
        numbers.as_ref().map_or(Null, |numbers| Text(&numbers[0])),
        numbers.as_ref().map_or(Null, |numbers| Text(&numbers[1])),
        numbers.as_ref().map_or(Null, |numbers| Text(&numbers[2])),
        numbers.as_ref().map_or(Null, |numbers| Text(&numbers[3])),
        yes_no(sequence.is_some_and(|sequence| sequence.cycle)),
        Text(if generated.is_some() { "ALWAYS" } else { "NEVER" }),
        generated.map_or(Null, Text),
        yes_no(updatable),
    ]);
}

/// PostgreSQL's own name of a type.
fn udt_name(name: &str) -> &str {
    match name {
        "smallint" => "int2",
        "integer" => "int4",
        "bigint" => "int8",
        "real" => "float4",
        "double precision" => "float8",
        "boolean" => "bool",
        "character varying" => "varchar",
        "character" => "bpchar",
        "timestamp without time zone" => "timestamp",
        "timestamp with time zone" => "timestamptz",
        "time without time zone" => "time",
        other => other,
    }
}

pub(super) fn view_table_usage(source: &Source<'_>, rows: &mut Rows) -> Result<()> {
    use Cell::Text;
    for view in source.objects(ObjectKind::View) {
        for (schema, name) in &ViewDefinition::of(view)?.relations {
            let row = [CATALOG_NAME, &view.schema_name, &view.name, CATALOG_NAME, schema, name];
            rows.push(row.map(Text));
        }
    }
    Ok(())
}

pub(super) fn all_comments(source: &Source<'_>, rows: &mut Rows) -> Result<()> {
    use Cell::{Null, Text};
    for comment in comments(source.catalog)?.iter().filter(|comment| source.is_shown(comment.schema)) {
        let Comment { schema, kind, name, part, text } = comment;
        let part = part.as_deref().map_or(Null, Text);
        rows.push([Text(CATALOG_NAME), Text(schema), Text(kind), Text(name), part, Text(text)]);
    }
    Ok(())
}

pub(super) fn schemata(source: &Source<'_>, rows: &mut Rows) {
    let schemas = source.objects(ObjectKind::Schema);
    let mut names: Vec<&str> = schemas.map(|schema| schema.name.as_str()).collect();
    names.extend(source.tables().map(|table| table.schema_name.as_str()));
    names.extend([DEFAULT_SCHEMA, INFORMATION_SCHEMA]);
    names.sort_unstable();
    names.dedup();
    for name in names {
        rows.push([Cell::Text(CATALOG_NAME), Cell::Text(name), Cell::Null, Cell::Null]);
    }
}
