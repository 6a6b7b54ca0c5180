//! Settings of PostgreSQL that are taken though there is nothing behind them here.
//!
//! Programs and scripts that were written for PostgreSQL set them in their first lines: how dates are printed, how much memory
//! a sort may take, which plans are thought of. None of the values taken here changes an answer, and SHOW says what was set.
//! A value that would change answers (dates printed in another style) is refused.

use super::settings::invalid;
use crate::error::sqlstate;
use crate::{Error, Result};

/// What a setting takes.
enum Takes {
    /// `on` or `off`.
    Switch,
    /// A number, with a unit or without.
    Amount,
    /// Any text.
    Text,
    /// One of these words.
    Word(&'static [&'static str]),
    /// One of these; what else PostgreSQL takes would change answers, or what the database does.
    Only(&'static [&'static str]),
    /// Nothing: it says how the database is.
    Fixed,
}

use Takes::{Amount, Fixed, Only, Switch, Text, Word};

const MESSAGES: Takes =
    Word(&["debug5", "debug4", "debug3", "debug2", "debug1", "debug", "log", "info", "notice", "warning", "error"]);

/// Name, the value it begins with, and what it takes; by name.
const TAKEN: &[(&str, &str, Takes)] = &[
    ("array_nulls", "on", Only(&["on"])),
    ("backslash_quote", "safe_encoding", Word(&["safe_encoding", "on", "off"])),
    ("bytea_output", "hex", Only(&["hex"])),
    ("check_function_bodies", "on", Switch),
    ("client_min_messages", "notice", MESSAGES),
    ("compute_query_id", "auto", Word(&["auto", "regress", "on", "off"])),
    ("constraint_exclusion", "partition", Word(&["partition", "on", "off"])),
    ("cpu_index_tuple_cost", "0.005", Amount),
    ("cpu_operator_cost", "0.0025", Amount),
    ("cpu_tuple_cost", "0.01", Amount),
    ("cursor_tuple_fraction", "0.1", Amount),
    (
        "datestyle",
        "ISO, MDY",
        Only(&["iso, mdy", "iso,mdy", "mdy, iso", "mdy,iso", "iso", "mdy", "us", "iso, us", "iso,us"]),
    ),
    ("deadlock_timeout", "1s", Amount),
    ("default_statistics_target", "100", Amount),
    ("default_table_access_method", "heap", Only(&["heap"])),
    ("default_tablespace", "", Only(&[""])),
    ("effective_cache_size", "4GB", Amount),
    ("effective_io_concurrency", "1", Amount),
    ("enable_async_append", "on", Switch),
    ("enable_bitmapscan", "on", Switch),
    ("enable_gathermerge", "on", Switch),
    ("enable_hashagg", "on", Switch),
    ("enable_hashjoin", "on", Switch),
    ("enable_incremental_sort", "on", Switch),
    ("enable_indexonlyscan", "on", Switch),
    ("enable_indexscan", "on", Switch),
    ("enable_material", "on", Switch),
    ("enable_memoize", "on", Switch),
    ("enable_mergejoin", "on", Switch),
    ("enable_nestloop", "on", Switch),
    ("enable_parallel_append", "on", Switch),
    ("enable_parallel_hash", "on", Switch),
    ("enable_partition_pruning", "on", Switch),
    ("enable_partitionwise_aggregate", "off", Switch),
    ("enable_partitionwise_join", "off", Switch),
    ("enable_seqscan", "on", Switch),
    ("enable_sort", "on", Switch),
    ("enable_tidscan", "on", Switch),
    ("escape_string_warning", "on", Switch),
    ("extra_float_digits", "1", Only(&["1", "2", "3"])),
    ("force_parallel_mode", "off", Word(&["off", "on", "regress"])),
    ("from_collapse_limit", "8", Amount),
    ("geqo", "on", Switch),
    ("geqo_effort", "5", Amount),
    ("geqo_threshold", "12", Amount),
    ("hash_mem_multiplier", "2", Amount),
    ("integer_datetimes", "on", Fixed),
    ("intervalstyle", "postgres", Only(&["postgres"])),
    ("jit", "on", Switch),
    ("jit_above_cost", "100000", Amount),
    ("jit_inline_above_cost", "500000", Amount),
    ("jit_optimize_above_cost", "500000", Amount),
    ("join_collapse_limit", "8", Amount),
    ("lc_messages", "C", Text),
    ("log_duration", "off", Switch),
    ("log_min_duration_statement", "-1", Amount),
    ("log_min_error_statement", "error", MESSAGES),
    ("log_min_messages", "warning", MESSAGES),
    ("log_statement", "none", Word(&["none", "ddl", "mod", "all"])),
    ("maintenance_work_mem", "64MB", Amount),
    ("max_parallel_maintenance_workers", "2", Amount),
    ("max_parallel_workers", "8", Amount),
    ("max_parallel_workers_per_gather", "2", Amount),
    ("min_parallel_index_scan_size", "512kB", Amount),
    ("min_parallel_table_scan_size", "8MB", Amount),
    ("parallel_leader_participation", "on", Switch),
    ("parallel_setup_cost", "1000", Amount),
    ("parallel_tuple_cost", "0.1", Amount),
    ("plan_cache_mode", "auto", Word(&["auto", "force_generic_plan", "force_custom_plan"])),
    ("random_page_cost", "4", Amount),
    ("row_security", "on", Switch),
    ("seq_page_cost", "1", Amount),
    ("server_encoding", "UTF8", Fixed),
    ("session_replication_role", "origin", Only(&["origin", "local"])),
    ("synchronize_seqscans", "on", Switch),
    ("temp_buffers", "8MB", Amount),
    ("transform_null_equals", "off", Only(&["off"])),
    ("work_mem", "4MB", Amount),
    ("xmloption", "content", Word(&["content", "document"])),
];

fn find(name: &str) -> Option<&'static (&'static str, &'static str, Takes)> {
    TAKEN.iter().find(|(known, ..)| *known == name)
}

/// The value that a setting begins with; `None` if it is none of these.
pub(super) fn default_of(name: &str) -> Option<&'static str> {
    find(name).map(|(_, default, _)| *default)
}

pub(super) fn names() -> impl Iterator<Item = &'static str> {
    TAKEN.iter().map(|(name, ..)| *name)
}

/// The value as it is to be shown; `None` if the setting is none of these.
pub(super) fn taken(name: &str, value: &str) -> Option<Result<String>> {
    find(name).map(|(name, default, takes)| check(name, value.trim(), default, takes))
}

fn check(name: &str, value: &str, default: &str, takes: &Takes) -> Result<String> {
    let lower = value.to_ascii_lowercase();
    let switched = match lower.as_str() {
        "on" | "true" | "yes" | "1" => Some("on"),
        "off" | "false" | "no" | "0" => Some("off"),
        _ => None,
    };
    match takes {
        Text => Ok(value.to_owned()),
        Switch => switched.map(str::to_owned).ok_or_else(|| invalid(name, value, "It is either on or off.")),
        Amount => {
            let digits = value.strip_prefix('-').unwrap_or(value);
            let is_amount = digits.starts_with(|first: char| first.is_ascii_digit())
                && digits.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '.' || letter == ' ');
            if is_amount { Ok(value.to_owned()) } else { Err(invalid(name, value, "It is a number.")) }
        }
        Word(words) => match words.iter().find(|word| **word == lower || Some(**word) == switched) {
            Some(word) => Ok((*word).to_owned()),
            None => Err(invalid(name, value, format!("It is one of {}.", words.join(", ")))),
        },
        Only(_) | Fixed if value == default => Ok(default.to_owned()),
        Only(words) => match words.iter().find(|word| **word == lower || Some(**word) == switched) {
            // However its words are written, they are shown as PostgreSQL shows them.
            Some(_) if name == "datestyle" => Ok(default.to_owned()),
            Some(word) => Ok((*word).to_owned()),
            None => Err(Error::unsupported(format!("{name} = {value}"))
                .with_hint(format!("It is always {default} here: another value would change answers."))),
        },
        Fixed => Err(Error::new(sqlstate::CANNOT_CHANGE_NOW, format!("\"{name}\" cannot be changed"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_they_begin_with_is_taken() {
        for (name, default, _) in TAKEN {
            assert_eq!(taken(name, default).unwrap().unwrap(), *default, "{name}");
        }
        assert!(TAKEN.is_sorted_by_key(|(name, ..)| *name));
    }

    #[test]
    fn values_that_would_change_answers_are_refused() {
        for (name, value, expected) in [
            ("datestyle", "ISO", Ok("ISO, MDY")),
            ("datestyle", "SQL, DMY", Err("0A000")),
            ("datestyle", "german", Err("0A000")),
            ("extra_float_digits", "3", Ok("3")),
            ("extra_float_digits", "0", Err("0A000")),
            ("transform_null_equals", "true", Err("0A000")),
            ("transform_null_equals", "false", Ok("off")),
            ("bytea_output", "escape", Err("0A000")),
            ("client_min_messages", "WARNING", Ok("warning")),
            ("client_min_messages", "loud", Err("22023")),
            ("enable_seqscan", "0", Ok("off")),
            ("enable_seqscan", "maybe", Err("22023")),
            ("work_mem", "64MB", Ok("64MB")),
            ("work_mem", "much", Err("22023")),
            ("server_encoding", "LATIN1", Err("55P02")),
        ] {
            let found = taken(name, value).unwrap();
            let found = found.as_deref().map_err(|error| error.sqlstate());
            assert_eq!(found, expected, "{name} = {value}");
        }
        assert!(taken("nonsense", "1").is_none());
    }
}
