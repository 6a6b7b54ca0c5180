//! The columns of the tables that describe the database: PostgreSQL's, as far as they mean something here.

use arrow::datatypes::{DataType, Field};

pub(super) fn text(name: &str) -> Field {
    Field::new(name, DataType::Utf8, false)
}

pub(super) fn optional_text(name: &str) -> Field {
    Field::new(name, DataType::Utf8, true)
}

pub(super) fn optional_number(name: &str) -> Field {
    Field::new(name, DataType::Int32, true)
}

pub(super) fn number(name: &str) -> Field {
    Field::new(name, DataType::Int32, false)
}

pub(super) fn flag(name: &str) -> Field {
    Field::new(name, DataType::Boolean, false)
}

/// An array of numbers.
pub(super) fn numbers(name: &str) -> Field {
    Field::new_list(name, Field::new_list_field(DataType::Int32, true), true)
}

/// Columns as in PostgreSQL's information_schema, as far as they mean something here.
pub(super) fn fields_of(table: &str) -> Vec<Field> {
    match table {
        "tables" => vec![
            text("table_catalog"),
            text("table_schema"),
            text("table_name"),
            text("table_type"),
            text("is_insertable_into"),
            text("is_typed"),
            optional_text("commit_action"),
        ],
        "columns" => vec![
            text("table_catalog"),
            text("table_schema"),
            text("table_name"),
            text("column_name"),
            optional_number("ordinal_position"),
            optional_text("column_default"),
            text("is_nullable"),
            text("data_type"),
            optional_number("character_maximum_length"),
            optional_number("numeric_precision"),
            optional_number("numeric_precision_radix"),
            optional_number("numeric_scale"),
            optional_number("datetime_precision"),
            text("udt_name"),
            optional_text("interval_type"),
            text("is_identity"),
            optional_text("identity_generation"),
            optional_text("identity_start"),
            optional_text("identity_increment"),
            optional_text("identity_maximum"),
            optional_text("identity_minimum"),
            text("identity_cycle"),
            text("is_generated"),
            optional_text("generation_expression"),
            text("is_updatable"),
        ],
        "comments" => vec![
            text("object_catalog"),
            text("object_schema"),
            text("object_type"),
            text("object_name"),
            optional_text("part_name"),
            text("comment"),
        ],
        "constraint_table_usage" => vec![
            text("table_catalog"),
            text("table_schema"),
            text("table_name"),
            text("constraint_catalog"),
            text("constraint_schema"),
            text("constraint_name"),
        ],
        "view_table_usage" => vec![
            text("view_catalog"),
            text("view_schema"),
            text("view_name"),
            text("table_catalog"),
            text("table_schema"),
            text("table_name"),
        ],
        "information_schema_catalog_name" => vec![text("catalog_name")],
        "character_sets" => vec![
            optional_text("character_set_catalog"),
            optional_text("character_set_schema"),
            text("character_set_name"),
            text("character_repertoire"),
            text("form_of_use"),
            text("default_collate_catalog"),
            text("default_collate_schema"),
            text("default_collate_name"),
        ],
        "check_constraints" => {
            vec![text("constraint_catalog"), text("constraint_schema"), text("constraint_name"), text("check_clause")]
        }
        "constraint_column_usage" => vec![
            text("table_catalog"),
            text("table_schema"),
            text("table_name"),
            text("column_name"),
            text("constraint_catalog"),
            text("constraint_schema"),
            text("constraint_name"),
        ],
        "sequences" => vec![
            text("sequence_catalog"),
            text("sequence_schema"),
            text("sequence_name"),
            text("data_type"),
            optional_number("numeric_precision"),
            optional_number("numeric_precision_radix"),
            optional_number("numeric_scale"),
            text("start_value"),
            text("minimum_value"),
            text("maximum_value"),
            text("increment"),
            text("cycle_option"),
        ],
        "routines" => vec![
            text("specific_catalog"),
            text("specific_schema"),
            text("specific_name"),
            text("routine_catalog"),
            text("routine_schema"),
            text("routine_name"),
            optional_text("routine_type"),
            optional_text("data_type"),
            text("routine_body"),
            text("routine_definition"),
            text("external_language"),
            text("is_deterministic"),
            text("is_null_call"),
            text("security_type"),
        ],
        "parameters" => vec![
            text("specific_catalog"),
            text("specific_schema"),
            text("specific_name"),
            number("ordinal_position"),
            text("parameter_mode"),
            optional_text("parameter_name"),
            text("data_type"),
            optional_text("parameter_default"),
        ],
        "triggers" => vec![
            text("trigger_catalog"),
            text("trigger_schema"),
            text("trigger_name"),
            text("event_manipulation"),
            text("event_object_catalog"),
            text("event_object_schema"),
            text("event_object_table"),
            optional_number("action_order"),
            optional_text("action_condition"),
            text("action_statement"),
            text("action_orientation"),
            text("action_timing"),
        ],
        "domains" => vec![
            text("domain_catalog"),
            text("domain_schema"),
            text("domain_name"),
            text("data_type"),
            optional_number("character_maximum_length"),
            optional_number("numeric_precision"),
            optional_number("numeric_scale"),
            optional_text("domain_default"),
        ],
        "schemata" => vec![
            text("catalog_name"),
            text("schema_name"),
            optional_text("schema_owner"),
            optional_text("default_character_set_name"),
        ],
        "views" => {
            vec![
                text("table_catalog"),
                text("table_schema"),
                text("table_name"),
                optional_text("view_definition"),
                text("check_option"),
                text("is_updatable"),
                text("is_insertable_into"),
            ]
        }
        "df_settings" => vec![text("name"), optional_text("value"), optional_text("description")],
        "table_constraints" => vec![
            text("constraint_catalog"),
            text("constraint_schema"),
            text("constraint_name"),
            text("table_catalog"),
            text("table_schema"),
            text("table_name"),
            text("constraint_type"),
            text("is_deferrable"),
            text("initially_deferred"),
            text("enforced"),
            optional_text("nulls_distinct"),
        ],
        "key_column_usage" => vec![
            text("constraint_catalog"),
            text("constraint_schema"),
            text("constraint_name"),
            text("table_catalog"),
            text("table_schema"),
            text("table_name"),
            text("column_name"),
            optional_number("ordinal_position"),
            optional_number("position_in_unique_constraint"),
        ],
        "referential_constraints" => vec![
            text("constraint_catalog"),
            text("constraint_schema"),
            text("constraint_name"),
            text("unique_constraint_catalog"),
            text("unique_constraint_schema"),
            text("unique_constraint_name"),
            text("match_option"),
            text("update_rule"),
            text("delete_rule"),
        ],
        "rustydb_plan_cache" => vec![text("name"), Field::new("value", DataType::UInt64, false)],
        "rustydb_cache" => vec![
            Field::new("hits", DataType::UInt64, false),
            Field::new("misses", DataType::UInt64, false),
            Field::new("evictions", DataType::UInt64, false),
            Field::new("hit_rate", DataType::Float64, true),
        ],
        _ => vec![
            text("part"),
            Field::new("bytes", DataType::UInt64, false),
            Field::new("limit_bytes", DataType::UInt64, true),
        ],
    }
}
