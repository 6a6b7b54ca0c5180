//! Functions that are called by a second name of theirs: `length(x)`, which DataFusion calls `character_length(x)`.
//!
//! Its planner gives such a call an alias that spells it out, once as it is written and once as it is called. In the call of
//! another function that is spelled out again, so that a call within a call within a call takes twice as long for each.
//!
//! PostgreSQL's names are written as the first ones before a query is planned. Others are not: a user's function may have the
//! first name of `array_cat`, [which is no function of PostgreSQL's](super::foreign). Such calls are counted instead
//! ([`crate::sql::tree::copies`]).

use std::collections::HashSet;
use std::sync::LazyLock;

use datafusion::execution::SessionStateDefaults;

use super::also_known_as;

/// Second and first names.
const FIRST_NAMES: [(&str, &str); 4] =
    [("ceiling", "ceil"), ("char_length", "character_length"), ("length", "character_length"), ("pow", "power")];

/// All others.
static SECOND_NAMES: LazyLock<HashSet<String>> = LazyLock::new(|| {
    let functions = SessionStateDefaults::default_scalar_functions().into_iter().map(also_known_as);
    let names = functions.flat_map(|function| function.aliases().to_vec());
    names.filter(|name| first_name(name).is_none()).collect()
});

/// The name that a call is planned by.
pub(crate) fn first_name(name: &str) -> Option<&'static str> {
    FIRST_NAMES.iter().find(|(second, _)| *second == name).map(|(_, first)| *first)
}

/// Whether a call of that name is given an alias.
pub(crate) fn is_second_name(name: &str) -> bool {
    SECOND_NAMES.contains(name)
}

#[cfg(test)]
mod tests {
    use super::super::foreign::is_foreign;
    use super::*;

    #[test]
    fn first_names_are_those_of_functions_that_nobody_else_has() {
        let functions = SessionStateDefaults::default_scalar_functions();
        for (second, first) in FIRST_NAMES {
            let function = functions.iter().find(|function| function.name() == first).unwrap();
            let function = also_known_as(std::sync::Arc::clone(function));
            assert!(function.aliases().iter().any(|alias| alias == second), "{second}");
            assert!(!is_foreign(first) && !is_second_name(second), "{first}");
        }
        assert!(is_second_name("array_cat") && is_second_name("sign") && !is_second_name("lower"));
    }
}
