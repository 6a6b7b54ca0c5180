//! The names of error conditions, as EXCEPTION and RAISE write them (appendix A of PostgreSQL's manual).

/// Names and their SQLSTATE. A name may have several.
const CONDITIONS: &[(&str, &str)] = &[
    ("successful_completion", "00000"),
    ("warning", "01000"),
    ("no_data", "02000"),
    ("sql_statement_not_yet_complete", "03000"),
    ("connection_exception", "08000"),
    ("protocol_violation", "08P01"),
    ("triggered_action_exception", "09000"),
    ("feature_not_supported", "0A000"),
    ("invalid_transaction_initiation", "0B000"),
    ("locator_exception", "0F000"),
    ("invalid_grantor", "0L000"),
    ("invalid_role_specification", "0P000"),
    ("diagnostics_exception", "0Z000"),
    ("stacked_diagnostics_accessed_without_active_handler", "0Z002"),
    ("case_not_found", "20000"),
    ("cardinality_violation", "21000"),
    ("data_exception", "22000"),
    ("string_data_right_truncation", "22001"),
    ("null_value_not_allowed", "22004"),
    ("null_value_not_allowed", "39004"),
    ("numeric_value_out_of_range", "22003"),
    ("invalid_datetime_format", "22007"),
    ("datetime_field_overflow", "22008"),
    ("substring_error", "22011"),
    ("division_by_zero", "22012"),
    ("invalid_escape_character", "22019"),
    ("invalid_argument_for_logarithm", "2201E"),
    ("invalid_argument_for_power_function", "2201F"),
    ("invalid_row_count_in_limit_clause", "2201W"),
    ("invalid_row_count_in_result_offset_clause", "2201X"),
    ("sequence_generator_limit_exceeded", "2200H"),
    ("invalid_parameter_value", "22023"),
    ("invalid_regular_expression", "2201B"),
    ("array_subscript_error", "2202E"),
    ("floating_point_exception", "22P01"),
    ("invalid_text_representation", "22P02"),
    ("invalid_binary_representation", "22P03"),
    ("bad_copy_file_format", "22P04"),
    ("integrity_constraint_violation", "23000"),
    ("restrict_violation", "23001"),
    ("not_null_violation", "23502"),
    ("foreign_key_violation", "23503"),
    ("unique_violation", "23505"),
    ("check_violation", "23514"),
    ("exclusion_violation", "23P01"),
    ("invalid_cursor_state", "24000"),
    ("invalid_transaction_state", "25000"),
    ("active_sql_transaction", "25001"),
    ("read_only_sql_transaction", "25006"),
    ("no_active_sql_transaction", "25P01"),
    ("in_failed_sql_transaction", "25P02"),
    ("idle_in_transaction_session_timeout", "25P03"),
    ("invalid_sql_statement_name", "26000"),
    ("triggered_data_change_violation", "27000"),
    ("invalid_authorization_specification", "28000"),
    ("invalid_password", "28P01"),
    ("dependent_objects_still_exist", "2BP01"),
    ("invalid_transaction_termination", "2D000"),
    ("sql_routine_exception", "2F000"),
    ("function_executed_no_return_statement", "2F005"),
    ("modifying_sql_data_not_permitted", "2F002"),
    ("invalid_cursor_name", "34000"),
    ("external_routine_exception", "38000"),
    ("savepoint_exception", "3B000"),
    ("invalid_savepoint_specification", "3B001"),
    ("invalid_catalog_name", "3D000"),
    ("invalid_schema_name", "3F000"),
    ("transaction_rollback", "40000"),
    ("serialization_failure", "40001"),
    ("transaction_integrity_constraint_violation", "40002"),
    ("statement_completion_unknown", "40003"),
    ("deadlock_detected", "40P01"),
    ("syntax_error_or_access_rule_violation", "42000"),
    ("insufficient_privilege", "42501"),
    ("syntax_error", "42601"),
    ("invalid_name", "42602"),
    ("invalid_column_definition", "42611"),
    ("duplicate_column", "42701"),
    ("ambiguous_column", "42702"),
    ("undefined_column", "42703"),
    ("undefined_object", "42704"),
    ("duplicate_object", "42710"),
    ("duplicate_alias", "42712"),
    ("duplicate_function", "42723"),
    ("ambiguous_function", "42725"),
    ("grouping_error", "42803"),
    ("datatype_mismatch", "42804"),
    ("wrong_object_type", "42809"),
    ("invalid_foreign_key", "42830"),
    ("cannot_coerce", "42846"),
    ("undefined_function", "42883"),
    ("reserved_name", "42939"),
    ("undefined_table", "42P01"),
    ("undefined_parameter", "42P02"),
    ("duplicate_cursor", "42P03"),
    ("duplicate_schema", "42P06"),
    ("duplicate_table", "42P07"),
    ("ambiguous_parameter", "42P08"),
    ("invalid_column_reference", "42P10"),
    ("invalid_function_definition", "42P13"),
    ("invalid_table_definition", "42P16"),
    ("invalid_object_definition", "42P17"),
    ("indeterminate_datatype", "42P18"),
    ("with_check_option_violation", "44000"),
    ("insufficient_resources", "53000"),
    ("disk_full", "53100"),
    ("out_of_memory", "53200"),
    ("too_many_connections", "53300"),
    ("program_limit_exceeded", "54000"),
    ("statement_too_complex", "54001"),
    ("too_many_columns", "54011"),
    ("too_many_arguments", "54023"),
    ("object_not_in_prerequisite_state", "55000"),
    ("object_in_use", "55006"),
    ("lock_not_available", "55P03"),
    ("operator_intervention", "57000"),
    ("query_canceled", "57014"),
    ("admin_shutdown", "57P01"),
    ("system_error", "58000"),
    ("io_error", "58030"),
    ("raise_exception", "P0001"),
    ("no_data_found", "P0002"),
    ("too_many_rows", "P0003"),
    ("assert_failure", "P0004"),
    ("plpgsql_error", "P0000"),
    ("internal_error", "XX000"),
    ("data_corrupted", "XX001"),
    ("index_corrupted", "XX002"),
];

/// The SQLSTATEs of a condition; none if there is no such condition.
pub(super) fn states_of(name: &str) -> Vec<&'static str> {
    CONDITIONS.iter().filter(|(known, _)| *known == name).map(|(_, state)| *state).collect()
}

/// Whether a text is a possible SQLSTATE.
pub(super) fn is_state(text: &str) -> bool {
    text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase())
}

/// Whether a handler for `condition` takes an error with `state`. A condition that ends in `000` stands for its class.
pub(super) fn matches(condition: &str, state: &str) -> bool {
    condition == state || (condition.ends_with("000") && condition.get(..2) == state.get(..2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_takes_all_of_its_errors() {
        assert!(matches("22000", "22012") && matches("22012", "22012"));
        assert!(!matches("22012", "22000") && !matches("23000", "22012"));
    }

    #[test]
    fn every_condition_is_a_state() {
        assert!(CONDITIONS.iter().all(|(_, state)| is_state(state)));
        assert_eq!(states_of("null_value_not_allowed").len(), 2);
        assert!(states_of("nonsense").is_empty());
    }
}
