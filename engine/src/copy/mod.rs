//! COPY: tables from files and query results to files.
//!
//! | format | read | written |
//! |---|---|---|
//! | Parquet | columns matched by name | zstd, or as COMPRESSION says |
//! | CSV | columns in order, as PostgreSQL | as PostgreSQL: NULL is nothing, empty text is `""` |
//! | JSON | one object per line, matched by name | one object per line |
//!
//! Reading streams: a thread of its own decodes while the store sorts and writes. A load that fails leaves no row behind,
//! a written file appears under its name only when it is complete.

mod csv;
pub(crate) mod from;
mod json;
mod parquet;
mod target;
pub(crate) mod to;

use std::path::{Path, PathBuf};

use ::arrow::array::RecordBatch;
use ::datafusion::parquet::basic::{Compression, ZstdLevel};

use crate::error::sqlstate;
use crate::sql::grammar::copy::{CopyOption, CopyTarget};
use crate::{Database, Error, Position, Result};

/// What a file holds and how it is written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Format {
    Parquet { compression: Compression },
    Csv(CsvFormat),
    Json,
}

/// How fields and rows of a CSV file are told apart.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CsvFormat {
    pub(crate) header: Header,
    pub(crate) delimiter: u8,
    pub(crate) quote: u8,
    pub(crate) escape: u8,
    /// What stands for NULL when it is not quoted.
    pub(crate) null: String,
}

/// What the first line of a CSV file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Header {
    None,
    /// Names that are not looked at.
    Skip,
    /// Names that must be those of the columns.
    Match,
}

/// The path of a file this process may touch, or why not.
pub(crate) fn allowed_file(database: &Database, target: CopyTarget) -> Result<PathBuf> {
    match target {
        CopyTarget::File { path, place } if database.allows_server_files() => {
            if path.is_empty() {
                return Err(Error::new(sqlstate::INVALID_PARAMETER_VALUE, "the file has no name").at(place));
            }
            Ok(PathBuf::from(path))
        }
        CopyTarget::File { place, .. } => Err(Error::new(
            sqlstate::INSUFFICIENT_PRIVILEGE,
            "this server does not read or write files for its clients",
        )
        .with_hint("Send the rows through Flight's bulk ingest, or let the server's configuration allow server files.")
        .at(place)),
        CopyTarget::Other { what, place } => Err(Error::unsupported(what)
            .with_hint("Name a file, or send the rows through Flight's bulk ingest.")
            .at(place)),
    }
}

impl Format {
    /// Reads the options of a COPY; without a FORMAT the file's name decides.
    pub(crate) fn of(options: &[CopyOption], path: &Path) -> Result<Format> {
        let mut given = Given::default();
        for option in options {
            given.read(option)?;
        }
        let kind = match given.format {
            Some(kind) => kind,
            None => Kind::of_path(path)?,
        };
        given.into_format(kind, path)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Parquet,
    Csv,
    Json,
}

impl Kind {
    fn of_path(path: &Path) -> Result<Kind> {
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        match extension.to_ascii_lowercase().as_str() {
            "parquet" => Ok(Kind::Parquet),
            "csv" | "tsv" => Ok(Kind::Csv),
            "json" | "jsonl" | "ndjson" => Ok(Kind::Json),
            _ => Err(Error::new(
                sqlstate::INVALID_PARAMETER_VALUE,
                format!("the format of \"{}\" cannot be told from its name", path.display()),
            )
            .with_hint("Say WITH (FORMAT parquet), csv or json.")),
        }
    }
}

/// The options as given, before the format is known.
#[derive(Debug, Default)]
struct Given {
    format: Option<Kind>,
    header: Option<Header>,
    delimiter: Option<u8>,
    quote: Option<u8>,
    escape: Option<u8>,
    null: Option<String>,
    compression: Option<String>,
    /// The first option that only CSV has.
    csv_only: Option<(String, Option<Position>)>,
}

impl Given {
    fn read(&mut self, option: &CopyOption) -> Result<()> {
        let name = option.name.strip_prefix("format.").unwrap_or(&option.name);
        let invalid = |hint: &str| {
            let shown = option.value.as_deref().unwrap_or_default();
            let message = format!("invalid value for COPY option {}: \"{shown}\"", name.to_ascii_uppercase());
            Error::new(sqlstate::INVALID_PARAMETER_VALUE, message).with_hint(hint).at(option.place)
        };
        let value = option.value.as_deref();
        match name {
            "format" => {
                self.format = Some(match value.map(str::to_ascii_lowercase).as_deref() {
                    Some("parquet") => Kind::Parquet,
                    Some("csv") => Kind::Csv,
                    Some("json" | "ndjson") => Kind::Json,
                    Some(other @ ("text" | "binary" | "arrow" | "avro")) => {
                        return Err(Error::unsupported(format!("COPY in format {other}"))
                            .with_hint("Formats are parquet, csv and json.")
                            .at(option.place));
                    }
                    _ => return Err(invalid("Formats are parquet, csv and json.")),
                });
                return Ok(());
            }
            "compression" => {
                self.compression = Some(value.ok_or_else(|| invalid("Write COMPRESSION zstd."))?.to_ascii_lowercase());
                return Ok(());
            }
            "encoding" => {
                return match value.map(str::to_ascii_lowercase).as_deref() {
                    Some("utf8" | "utf-8") => Ok(()),
                    _ => Err(Error::unsupported("an encoding other than UTF8").at(option.place)),
                };
            }
            "header" | "has_header" => {
                self.header = Some(match value.map(str::to_ascii_lowercase).as_deref() {
                    None | Some("true" | "on" | "1") => Header::Skip,
                    Some("false" | "off" | "0") => Header::None,
                    Some("match") => Header::Match,
                    _ => return Err(invalid("HEADER is true, false or match.")),
                });
            }
            "delimiter" => {
                self.delimiter = Some(single_byte(value).ok_or_else(|| invalid("It is one ASCII character."))?)
            }
            "quote" => self.quote = Some(single_byte(value).ok_or_else(|| invalid("It is one ASCII character."))?),
            "escape" => self.escape = Some(single_byte(value).ok_or_else(|| invalid("It is one ASCII character."))?),
            "null" | "null_value" => {
                let text = value.ok_or_else(|| invalid("It is the text that stands for NULL."))?;
                if text.contains(['\n', '\r']) {
                    return Err(invalid("It cannot contain a line break."));
                }
                self.null = Some(text.to_owned());
            }
            "freeze" | "force_quote" | "force_not_null" | "force_null" | "on_error" | "log_verbosity" | "default"
            | "reject_limit" => {
                return Err(Error::unsupported(format!("COPY option {}", name.to_ascii_uppercase())).at(option.place));
            }
            _ => {
                return Err(Error::syntax(format!("COPY has no option \"{}\"", option.name))
                    .with_hint("Options are FORMAT, HEADER, DELIMITER, NULL, QUOTE, ESCAPE, ENCODING and COMPRESSION.")
                    .at(option.place));
            }
        }
        self.csv_only.get_or_insert((name.to_ascii_uppercase(), option.place));
        Ok(())
    }

    fn into_format(self, kind: Kind, path: &Path) -> Result<Format> {
        if kind != Kind::Csv
            && let Some((name, place)) = self.csv_only
        {
            return Err(Error::syntax(format!("COPY option {name} is for CSV files only")).at(place));
        }
        match (kind, self.compression.as_deref()) {
            (Kind::Parquet, compression) => Ok(Format::Parquet { compression: parquet_compression(compression)? }),
            (_, None | Some("none" | "uncompressed")) => {
                if kind == Kind::Json {
                    return Ok(Format::Json);
                }
                let tabs = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("tsv"));
                let quote = self.quote.unwrap_or(b'"');
                let format = CsvFormat {
                    header: self.header.unwrap_or(Header::None),
                    delimiter: self.delimiter.unwrap_or(if tabs { b'\t' } else { b',' }),
                    quote,
                    escape: self.escape.unwrap_or(quote),
                    null: self.null.unwrap_or_default(),
                };
                if format.delimiter == format.quote {
                    return Err(Error::new(sqlstate::INVALID_PARAMETER_VALUE, "DELIMITER and QUOTE must differ"));
                }
                Ok(Format::Csv(format))
            }
            (_, Some(other)) => Err(Error::unsupported(format!("COMPRESSION {other} of this format"))),
        }
    }
}

fn single_byte(value: Option<&str>) -> Option<u8> {
    match value?.as_bytes() {
        [byte] if byte.is_ascii() && !matches!(byte, b'\n' | b'\r') => Some(*byte),
        // As people write a tab.
        br"\t" => Some(b'\t'),
        _ => None,
    }
}

fn parquet_compression(name: Option<&str>) -> Result<Compression> {
    match name {
        None | Some("zstd") => Ok(Compression::ZSTD(ZstdLevel::default())),
        Some("snappy") => Ok(Compression::SNAPPY),
        Some("lz4" | "lz4_raw") => Ok(Compression::LZ4_RAW),
        Some("none" | "uncompressed") => Ok(Compression::UNCOMPRESSED),
        Some(other) => Err(Error::unsupported(format!("COMPRESSION {other}"))
            .with_hint("Parquet files are written with zstd, snappy, lz4 or uncompressed.")),
    }
}

/// Rows as they come out of a file.
struct Decoded {
    batch: RecordBatch,
    /// The line of each row; empty where there are no lines.
    lines: Vec<u64>,
}

/// An error that belongs to a file, with the line if there is one.
fn file_error(path: &Path, line: Option<u64>, error: Error) -> Error {
    error.map_message(|text| match line {
        Some(line) => format!("{}, line {line}: {text}", path.display()),
        None => format!("{}: {text}", path.display()),
    })
}

/// A malformed file.
fn malformed(path: &Path, line: Option<u64>, what: impl Into<String>) -> Error {
    file_error(path, line, Error::new(sqlstate::BAD_COPY_FILE, what))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn option(name: &str, value: &str) -> CopyOption {
        CopyOption { name: name.to_owned(), value: Some(value.to_owned()), place: None }
    }

    #[test]
    fn the_name_decides_where_no_format_is_given() {
        assert_eq!(Format::of(&[], Path::new("a/b.NDJSON")).unwrap(), Format::Json);
        assert_eq!(Format::of(&[], Path::new("a/b.dat")).unwrap_err().sqlstate(), "22023");
        assert!(matches!(Format::of(&[option("format", "csv")], Path::new("b.dat")).unwrap(), Format::Csv(_)));
    }

    #[test]
    fn options_without_meaning_are_refused() {
        for (name, value, code) in [
            ("force_quote", "*", "0A000"),
            ("delimeter", "|", "42601"),
            ("delimiter", "||", "22023"),
            ("encoding", "latin1", "0A000"),
            ("format", "text", "0A000"),
        ] {
            let error = Format::of(&[option(name, value)], Path::new("t.csv")).unwrap_err();
            assert_eq!(error.sqlstate(), code, "{name} {value}");
        }
        assert_eq!(Format::of(&[option("header", "true")], Path::new("t.parquet")).unwrap_err().sqlstate(), "42601");
    }
}
