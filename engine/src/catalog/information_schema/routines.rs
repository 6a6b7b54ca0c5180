//! What functions and procedures there are, and their parameters.

use rustydb_storage::{ObjectDef, ObjectKind};

use super::constraints::yes_no;
use super::{Cell, Rows, Source};
use crate::routine::definition::{RoutineDefinition, Volatility};
use crate::{CATALOG_NAME, Result};

pub(super) fn routines(source: &Source<'_>, rows: &mut Rows) -> Result<()> {
    use Cell::Text;
    for object in source.objects(ObjectKind::Routine) {
        let definition = RoutineDefinition::of(object)?;
        let specific = specific_name(object, &definition);
        let data_type = definition.result_name();
        let is_sql = definition.language.eq_ignore_ascii_case("sql");
        rows.push([
            Text(CATALOG_NAME),
            Text(&object.schema_name),
            Text(&specific),
            Text(CATALOG_NAME),
            Text(&object.schema_name),
            Text(&definition.name),
            Text(if definition.is_procedure { "PROCEDURE" } else { "FUNCTION" }),
            data_type.as_deref().map_or(Cell::Null, Text),
            Text(if is_sql { "SQL" } else { "EXTERNAL" }),
            Text(&definition.body),
            Text(&definition.language.to_uppercase()),
            yes_no(definition.volatility == Volatility::Immutable),
            // Whether it is called for NULL.
            yes_no(definition.is_strict),
            Text("INVOKER"),
        ]);
    }
    Ok(())
}

pub(super) fn parameters(source: &Source<'_>, rows: &mut Rows) -> Result<()> {
    use Cell::{Null, Number, Text};
    for object in source.objects(ObjectKind::Routine) {
        let definition = RoutineDefinition::of(object)?;
        let specific = specific_name(object, &definition);
        for (place, parameter) in definition.parameters.iter().enumerate() {
            let mode = match (parameter.mode.is_input(), parameter.mode.is_output()) {
                (true, true) => "INOUT",
                (true, false) => "IN",
                (false, _) => "OUT",
            };
            rows.push([
                Text(CATALOG_NAME),
                Text(&object.schema_name),
                Text(&specific),
                Number(i32::try_from(place + 1).unwrap_or(i32::MAX)),
                Text(mode),
                parameter.name.as_deref().map_or(Null, Text),
                Text(&parameter.type_name),
                parameter.default.as_deref().map_or(Null, Text),
            ]);
        }
    }
    Ok(())
}

/// A name that no other routine has.
fn specific_name(object: &ObjectDef, definition: &RoutineDefinition) -> String {
    format!("{}_{}", definition.name, object.id.0)
}
