//! Every setting of `rustydb serve`, one row each.
//!
//! The row is all there is to a setting: the TOML file, the environment variable, `--print-config` and the error
//! messages follow from it. The table says the same to people, and a test compares the two.
//!
//! | key | default | meaning |
//! |---|---|---|
//! | `data` | `"./rustydb-data"` | the directory of the database |
//! | `memory_limit` | `"70%"` | memory for tables, caches and queries: a size (`4GiB`) or a share of the machine; at least 64 MiB |
//! | `memtable_size` | `"auto"` | rows held in memory before they become a Parquet segment; auto: a share of the memory |
//! | `compaction_rate` | `"auto"` | bytes a second that compaction writes at most, such as `50MiB`; auto: as fast as it can |
//! | `query_threads` | `0` | threads that run queries; 0: one per core |
//! | `statement_timeout` | `"0"` | a statement that runs longer is cancelled; 0: never |
//! | `allow_server_files` | `false` | lets clients read and write files of this machine with COPY |
//! | `log` | `"info"` | what is logged: `error`, `warn`, `info`, `debug`, or a filter such as `rustydb_storage=debug` |
//! | `flight.address` | `"127.0.0.1:50051"` | where Flight SQL listens; port 0 picks a free one |
//! | `flight.insecure` | `false` | allows an address beyond this machine without authentication and encryption |
//! | `flight.token_file` | `""` | file of bearer tokens, one per line, that clients must send; empty: none asked |
//! | `flight.tls_certificate` | `""` | PEM file of the server's certificate, intermediates behind it; empty: plain text |
//! | `flight.tls_key` | `""` | PEM file of the certificate's private key |
//! | `flight.tls_client_ca` | `""` | PEM file of the authorities whose certificates clients must show (mutual TLS); empty: none asked |
//! | `flight.shutdown_grace` | `"10s"` | how long an orderly end waits for running requests |
//! | `flight.message_size` | `"64MiB"` | the largest gRPC message accepted |
//! | `flight.message_size_total` | `"512MiB"` | the most memory for messages whose ends have not come, of all clients together |
//! | `flight.statement_size` | `"16MiB"` | the longest SQL text accepted |
//! | `flight.parameter_size` | `"256MiB"` | the most parameter data one prepared statement may hold |
//! | `flight.parameter_size_total` | `"1GiB"` | the most parameter data of all prepared statements together, also while it comes |
//! | `flight.connections` | `20000` | connections at one time |
//! | `flight.requests_per_connection` | `256` | requests in flight on one connection |
//! | `flight.result_streams` | `4096` | result sets being sent at one time |
//! | `flight.sessions` | `20000` | sessions at one time |
//! | `flight.tickets` | `10000` | planned statements waiting to be fetched |
//! | `flight.prepared_statements` | `50000` | prepared statements at one time |
//! | `flight.transactions` | `2000` | transactions opened by clients at one time |
//! | `flight.savepoints` | `20000` | savepoints set by clients at one time |
//! | `flight.session_idle` | `"8h"` | a session unused for this long is forgotten, its transaction rolled back |
//! | `flight.session_lifetime` | `"168h"` | a session ends after this time even if it is used |
//! | `flight.ticket_idle` | `"10min"` | a planned statement not fetched for this long is forgotten |
//! | `flight.prepared_statement_idle` | `"4h"` | a prepared statement unused for this long is forgotten |
//! | `flight.transaction_idle` | `"30min"` | a transaction unused for this long is rolled back |
//! | `flight.transfer_idle` | `"30min"` | a result not read on for this long ends, as does an ingest that nothing more comes of |
//! | `flight.keepalive_interval` | `"1min"` | how often a silent connection is asked whether its client is still there |
//! | `flight.keepalive_timeout` | `"20s"` | how long the client has to answer that |

/// One setting.
pub(super) struct Setting {
    /// The key in the file; a dot separates the section.
    pub(super) key: &'static str,
    pub(super) default: &'static str,
    pub(super) kind: Kind,
    pub(super) meaning: &'static str,
}

/// What a value must look like.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    /// Bytes, or a share of the machine.
    Size,
    /// The same, or "auto".
    SizeOrAuto,
    /// Zero means "never".
    Duration,
    /// Zero means what the setting says.
    Number,
    /// A number from 1.
    Count,
    Flag,
}

const fn setting(key: &'static str, default: &'static str, kind: Kind, meaning: &'static str) -> Setting {
    Setting { key, default, kind, meaning }
}

/// Every setting there is, those without a section first, as TOML wants it.
pub(super) const SETTINGS: &[Setting] = &[
    setting("data", "./rustydb-data", Kind::Text, "the directory of the database"),
    setting(
        "memory_limit",
        "70%",
        Kind::Size,
        "memory for tables, caches and queries: a size (`4GiB`) or a share of the machine; at least 64 MiB",
    ),
    setting(
        "memtable_size",
        "auto",
        Kind::SizeOrAuto,
        "rows held in memory before they become a Parquet segment; auto: a share of the memory",
    ),
    setting(
        "compaction_rate",
        "auto",
        Kind::SizeOrAuto,
        "bytes a second that compaction writes at most, such as `50MiB`; auto: as fast as it can",
    ),
    setting("query_threads", "0", Kind::Number, "threads that run queries; 0: one per core"),
    setting("statement_timeout", "0", Kind::Duration, "a statement that runs longer is cancelled; 0: never"),
    setting("allow_server_files", "false", Kind::Flag, "lets clients read and write files of this machine with COPY"),
    setting(
        "log",
        "info",
        Kind::Text,
        "what is logged: `error`, `warn`, `info`, `debug`, or a filter such as `rustydb_storage=debug`",
    ),
    setting("flight.address", "127.0.0.1:50051", Kind::Text, "where Flight SQL listens; port 0 picks a free one"),
    setting(
        "flight.insecure",
        "false",
        Kind::Flag,
        "allows an address beyond this machine without authentication and encryption",
    ),
    setting(
        "flight.token_file",
        "",
        Kind::Text,
        "file of bearer tokens, one per line, that clients must send; empty: none asked",
    ),
    setting(
        "flight.tls_certificate",
        "",
        Kind::Text,
        "PEM file of the server's certificate, intermediates behind it; empty: plain text",
    ),
    setting("flight.tls_key", "", Kind::Text, "PEM file of the certificate's private key"),
    setting(
        "flight.tls_client_ca",
        "",
        Kind::Text,
        "PEM file of the authorities whose certificates clients must show (mutual TLS); empty: none asked",
    ),
    setting("flight.shutdown_grace", "10s", Kind::Duration, "how long an orderly end waits for running requests"),
    setting("flight.message_size", "64MiB", Kind::Size, "the largest gRPC message accepted"),
    setting(
        "flight.message_size_total",
        "512MiB",
        Kind::Size,
        "the most memory for messages whose ends have not come, of all clients together",
    ),
    setting("flight.statement_size", "16MiB", Kind::Size, "the longest SQL text accepted"),
    setting("flight.parameter_size", "256MiB", Kind::Size, "the most parameter data one prepared statement may hold"),
    setting(
        "flight.parameter_size_total",
        "1GiB",
        Kind::Size,
        "the most parameter data of all prepared statements together, also while it comes",
    ),
    setting("flight.connections", "20000", Kind::Count, "connections at one time"),
    setting("flight.requests_per_connection", "256", Kind::Count, "requests in flight on one connection"),
    setting("flight.result_streams", "4096", Kind::Count, "result sets being sent at one time"),
    setting("flight.sessions", "20000", Kind::Count, "sessions at one time"),
    setting("flight.tickets", "10000", Kind::Count, "planned statements waiting to be fetched"),
    setting("flight.prepared_statements", "50000", Kind::Count, "prepared statements at one time"),
    setting("flight.transactions", "2000", Kind::Count, "transactions opened by clients at one time"),
    setting("flight.savepoints", "20000", Kind::Count, "savepoints set by clients at one time"),
    setting(
        "flight.session_idle",
        "8h",
        Kind::Duration,
        "a session unused for this long is forgotten, its transaction rolled back",
    ),
    setting("flight.session_lifetime", "168h", Kind::Duration, "a session ends after this time even if it is used"),
    setting(
        "flight.ticket_idle",
        "10min",
        Kind::Duration,
        "a planned statement not fetched for this long is forgotten",
    ),
    setting(
        "flight.prepared_statement_idle",
        "4h",
        Kind::Duration,
        "a prepared statement unused for this long is forgotten",
    ),
    setting("flight.transaction_idle", "30min", Kind::Duration, "a transaction unused for this long is rolled back"),
    setting(
        "flight.transfer_idle",
        "30min",
        Kind::Duration,
        "a result not read on for this long ends, as does an ingest that nothing more comes of",
    ),
    setting(
        "flight.keepalive_interval",
        "1min",
        Kind::Duration,
        "how often a silent connection is asked whether its client is still there",
    ),
    setting("flight.keepalive_timeout", "20s", Kind::Duration, "how long the client has to answer that"),
];

/// The setting of that key.
pub(super) fn find(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}

/// The environment variable of a setting.
pub(super) fn variable(key: &str) -> String {
    format!("RUSTYDB_{}", key.replace('.', "_").to_uppercase())
}

/// What to tell someone who wrote a key that does not exist.
pub(super) fn unknown_key(key: &str) -> String {
    let mut known: Vec<(usize, &str)> =
        SETTINGS.iter().map(|setting| (edit_distance(key, setting.key), setting.key)).collect();
    known.sort_unstable();
    // A third of a name wrong is no longer a slip of the finger; and of the slips, the likeliest.
    let closest = known[0].0;
    let is_near = |(distance, name): &&(usize, &str)| *distance == closest && *distance * 3 <= name.len();
    let near: Vec<&str> = known.iter().filter(is_near).map(|(_, name)| *name).collect();
    if near.is_empty() {
        format!("unknown setting \"{key}\"; `rustydb serve --print-config` lists all settings")
    } else {
        format!("unknown setting \"{key}\"; did you mean {}?", near.join(" or "))
    }
}

/// Single-character insertions, deletions and replacements between two names (Wagner and Fischer, 1974).
fn edit_distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, l) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, r) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(l != *r);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[right.len()]
}
