//! What the Tab key offers: keywords, tables, columns, backslash commands.
//!
//! Completion looks at words, not at grammar: it must help in a statement that is not finished and may be wrong. After
//! FROM and its like come tables; after `name.` the columns of that table or alias; elsewhere the columns of the
//! tables the statement mentions, then tables, then keywords.

use super::backend::TableNames;
use super::meta;
use super::render::Format;

/// Keywords worth completing: those of the statements RustyDB runs.
const KEYWORDS: [&str; 84] = [
    "ALL",
    "ANALYZE",
    "AND",
    "AS",
    "ASC",
    "BEGIN",
    "BETWEEN",
    "BIGINT",
    "BOOLEAN",
    "BY",
    "CASE",
    "CAST",
    "COMMIT",
    "COPY",
    "COUNT",
    "CREATE",
    "CROSS",
    "DATE",
    "DECIMAL",
    "DEFAULT",
    "DELETE",
    "DESC",
    "DESCRIBE",
    "DISTINCT",
    "DOUBLE",
    "DROP",
    "ELSE",
    "END",
    "EXCEPT",
    "EXISTS",
    "EXPLAIN",
    "FALSE",
    "FIRST",
    "FOREIGN",
    "FORMAT",
    "FROM",
    "FULL",
    "GROUP",
    "HAVING",
    "IN",
    "INNER",
    "INSERT",
    "INTEGER",
    "INTERSECT",
    "INTERVAL",
    "INTO",
    "IS",
    "JOIN",
    "KEY",
    "LAST",
    "LEFT",
    "LIKE",
    "LIMIT",
    "NOT",
    "NULL",
    "NULLS",
    "OFFSET",
    "ON",
    "OR",
    "ORDER",
    "OUTER",
    "OVER",
    "PARTITION",
    "PRIMARY",
    "REFERENCES",
    "RIGHT",
    "ROLLBACK",
    "SELECT",
    "SET",
    "SHOW",
    "TABLE",
    "TABLES",
    "TEXT",
    "THEN",
    "TIMESTAMP",
    "TO",
    "TRUE",
    "UNION",
    "UPDATE",
    "USING",
    "VALUES",
    "WHEN",
    "WHERE",
    "WITH",
];

/// Keywords after which a table stands.
const BEFORE_TABLES: [&str; 7] = ["FROM", "JOIN", "INTO", "UPDATE", "TABLE", "DESCRIBE", "COPY"];

/// Candidates offered at most; a longer list helps nobody.
const CANDIDATES_MAX: usize = 500;

/// The candidates for the word before `position`, and where that word begins.
pub(crate) fn candidates(line: &str, position: usize, tables: &[TableNames]) -> (usize, Vec<String>) {
    let before = &line[..position];
    let start =
        before.rfind(|c: char| !is_word(c)).map_or(0, |at| at + before[at..].chars().next().map_or(1, char::len_utf8));
    let word = &before[start..];
    if let Some(command) = before.trim_start().strip_prefix('\\') {
        return complete_command(command, position, start, word, tables);
    }
    if before.matches('\'').count() % 2 == 1 {
        return (position, Vec::new());
    }
    if let Some((qualifier, column)) = word.rsplit_once('.') {
        let columns = columns_of(qualifier, line, tables);
        let names = columns.into_iter().filter(|name| starts_with(name, column)).map(quote_if_needed);
        return (position - column.len(), limited(names));
    }
    let table_names = || tables.iter().map(|table| table.table.as_str()).filter(|name| starts_with(name, word));
    let previous = before[..start].split_whitespace().next_back().unwrap_or("").to_uppercase();
    if BEFORE_TABLES.contains(&previous.as_str()) {
        return (start, limited(table_names().map(quote_if_needed)));
    }
    if word.is_empty() {
        return (position, Vec::new());
    }
    let mentioned = tables.iter().filter(|table| words(line).any(|word| word.eq_ignore_ascii_case(&table.table)));
    let columns = mentioned.flat_map(|table| &table.columns).map(String::as_str).filter(|name| starts_with(name, word));
    // Keywords follow the case in which the word was begun.
    let in_lower_case = word.chars().any(char::is_lowercase);
    let keywords = KEYWORDS.iter().filter(|keyword| starts_with(keyword, word));
    let keywords = keywords.map(|keyword| if in_lower_case { keyword.to_lowercase() } else { (*keyword).to_owned() });
    (start, limited(columns.chain(table_names()).map(quote_if_needed).chain(keywords)))
}

/// `command` is what follows the backslash, up to the cursor.
fn complete_command(
    command: &str,
    position: usize,
    start: usize,
    word: &str,
    tables: &[TableNames],
) -> (usize, Vec<String>) {
    match command.split_once(' ') {
        None => {
            let typed = format!("\\{command}");
            let names = meta::COMMANDS.iter().map(|(name, ..)| *name).filter(|name| name.starts_with(&typed));
            (position - typed.len(), limited(names.map(str::to_owned)))
        }
        Some(("d", _)) => {
            let names = tables.iter().map(|table| table.table.as_str()).filter(|name| starts_with(name, word));
            (start, limited(names.map(quote_if_needed)))
        }
        Some(("format", _)) => {
            let names = Format::ALL.iter().map(|format| format.name()).filter(|name| starts_with(name, word));
            (start, limited(names.map(str::to_owned)))
        }
        Some(_) => (position, Vec::new()),
    }
}

/// The columns of the table called `qualifier` in the statement: by its own name, with its schema, or by an alias
/// (`FROM person AS p`).
fn columns_of<'a>(qualifier: &str, line: &str, tables: &'a [TableNames]) -> Vec<&'a str> {
    let name = qualifier.rsplit('.').next().unwrap_or(qualifier);
    let is_aliased = |table: &TableNames| {
        let words: Vec<&str> = words(line).filter(|word| !word.eq_ignore_ascii_case("as")).collect();
        words.windows(2).any(|pair| {
            let table_name = pair[0].rsplit('.').next().unwrap_or(pair[0]);
            table_name.eq_ignore_ascii_case(&table.table) && pair[1].eq_ignore_ascii_case(name)
        })
    };
    let table = tables
        .iter()
        .find(|table| table.table.eq_ignore_ascii_case(name))
        .or_else(|| tables.iter().find(|table| is_aliased(table)));
    table.map(|table| table.columns.iter().map(String::as_str).collect()).unwrap_or_default()
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !is_word(c)).filter(|word| !word.is_empty())
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '.'
}

fn starts_with(name: &str, prefix: &str) -> bool {
    name.get(..prefix.len()).is_some_and(|head| head.eq_ignore_ascii_case(prefix))
}

/// A name that SQL would fold or misread is inserted in quotes.
fn quote_if_needed(name: &str) -> String {
    let is_plain = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && !KEYWORDS.iter().any(|keyword| keyword.eq_ignore_ascii_case(name));
    if is_plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

fn limited(names: impl Iterator<Item = String>) -> Vec<String> {
    let mut unique: Vec<String> = Vec::new();
    for name in names {
        if unique.len() == CANDIDATES_MAX {
            break;
        }
        if !unique.contains(&name) {
            unique.push(name);
        }
    }
    unique
}

#[cfg(test)]
mod tests {
    use super::{KEYWORDS, candidates};
    use crate::shell::backend::TableNames;

    fn complete(line: &str) -> Vec<String> {
        let table = |name: &str, columns: &[&str]| TableNames {
            schema: "public".to_owned(),
            table: name.to_owned(),
            columns: columns.iter().map(|column| (*column).to_owned()).collect(),
        };
        let tables = [table("person", &["id", "name", "Nick"]), table("order", &["id", "total"])];
        let (start, names) = candidates(line, line.len(), &tables);
        names.into_iter().map(|name| format!("{}{name}", &line[..start])).collect()
    }

    #[test]
    fn keywords_follow_the_case_of_the_user() {
        assert_eq!(complete("SEL"), ["SELECT"]);
        assert_eq!(complete("sel"), ["select"]);
        assert!(KEYWORDS.is_sorted());
    }

    #[test]
    fn after_from_come_tables_and_only_tables() {
        assert_eq!(complete("select * from pe"), ["select * from person"]);
        assert_eq!(complete("select * from "), ["select * from person", "select * from \"order\""]);
        assert_eq!(complete("INSERT INTO or"), ["INSERT INTO \"order\""]);
    }

    #[test]
    fn columns_come_from_the_tables_the_statement_mentions() {
        assert_eq!(complete("select * from person where na"), ["select * from person where name"]);
        assert!(complete("select na").is_empty());
        assert_eq!(complete("select person.n"), ["select person.name", "select person.\"Nick\""]);
        assert_eq!(complete("select * from person as p where p.i"), ["select * from person as p where p.id"]);
    }

    #[test]
    fn strings_are_left_alone() {
        assert!(complete("select 'sel").is_empty());
        assert_eq!(complete("select 'é' sel"), ["select 'é' select"]);
    }

    #[test]
    fn backslash_commands_and_their_arguments() {
        assert_eq!(complete("\\d"), ["\\d", "\\dt"]);
        assert_eq!(complete("\\d pe"), ["\\d person"]);
        assert_eq!(complete("\\format m"), ["\\format markdown"]);
    }
}
