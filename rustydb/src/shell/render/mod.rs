//! How a result set becomes text.
//!
//! A [`Renderer`] is fed the batches of one result as they arrive and writes them to a sink: what it keeps in memory
//! is bounded, however many rows come. The five formats differ only in this folder; the rest of the shell does not
//! know them.
//!
//! | format | made for | NULL | several results in a row |
//! |---|---|---|---|
//! | table | reading | `NULL` | one table after the other, with row counts |
//! | csv | programs, spreadsheets | nothing between the commas (an empty string is `""`) | each with its header line |
//! | json | programs | `null` | one array of objects per result |
//! | markdown | documents | `NULL` | tables separated by an empty line |
//! | expanded | rows too wide to read | `NULL` | one block per row |

mod csv;
mod expanded;
mod json;
mod markdown;
mod table;
pub(crate) mod value;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use std::io::{self, Write};

/// The formats of `--format` and `\format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Aligned columns with a header and a row count; the widths come from the first 1,000 rows
    Table,
    /// RFC 4180 with a header line; NULL is an empty field, an empty string is ""
    Csv,
    /// One JSON array of objects per result; decimals keep every digit
    Json,
    /// A GitHub-flavoured table
    Markdown,
    /// One `column | value` line per field, a block per row
    Expanded,
}

impl Format {
    /// Every format, in the order of the help text.
    pub(crate) const ALL: [Format; 5] = [Format::Table, Format::Csv, Format::Json, Format::Markdown, Format::Expanded];

    /// The name the user types.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Format::Table => "table",
            Format::Csv => "csv",
            Format::Json => "json",
            Format::Markdown => "markdown",
            Format::Expanded => "expanded",
        }
    }

    /// The format of that name.
    pub(crate) fn from_name(name: &str) -> Option<Format> {
        Format::ALL.into_iter().find(|format| format.name() == name)
    }

    /// Whether programs read this format: then nothing but data may appear on standard output, so that command tags
    /// ("INSERT 1") and timings are left out.
    pub(crate) fn is_for_programs(self) -> bool {
        matches!(self, Format::Csv | Format::Json | Format::Markdown)
    }
}

/// Why a result could not be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RenderError {
    /// The sink failed; a broken pipe is the caller's to judge.
    #[error(transparent)]
    Sink(#[from] io::Error),
    /// A value has no text form, such as a timestamp outside the calendar.
    #[error("a value cannot be shown: {0}")]
    Value(#[from] ArrowError),
}

/// Writes one result set. `batch` is called for every batch in order, then `finish` exactly once; a result that ends
/// in an error is simply dropped, so that a cut-off JSON array is not mistaken for a whole one.
pub(crate) trait Renderer: Send {
    fn batch(&mut self, batch: &RecordBatch, out: &mut dyn Write) -> Result<(), RenderError>;
    fn finish(&mut self, out: &mut dyn Write) -> Result<(), RenderError>;
}

/// A renderer for one result of the given columns.
pub(crate) fn renderer(format: Format, schema: &SchemaRef) -> Box<dyn Renderer> {
    match format {
        Format::Table => Box::new(table::TableRenderer::new(schema)),
        Format::Csv => Box::new(csv::CsvRenderer::new(schema)),
        Format::Json => Box::new(json::JsonRenderer::new(schema)),
        Format::Markdown => Box::new(markdown::MarkdownRenderer::new(schema)),
        Format::Expanded => Box::new(expanded::ExpandedRenderer::new(schema)),
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! The one result all renderers are tried on: numbers, text with every awkward character, decimals, NULLs.

    use super::{Format, renderer};
    use arrow::array::{
        ArrayRef, BooleanArray, Date32Array, Decimal128Array, Int64Array, RecordBatch, StringViewArray,
        TimestampMicrosecondArray,
    };
    use std::sync::Arc;

    pub(crate) fn sample() -> RecordBatch {
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("id", Arc::new(Int64Array::from(vec![Some(1), Some(20), None]))),
            ("name", Arc::new(StringViewArray::from(vec![Some("Ada"), Some(""), None]))),
            (
                "price",
                Arc::new(
                    Decimal128Array::from(vec![Some(12_345), Some(-5), None])
                        .with_precision_and_scale(15, 2)
                        .expect("a valid precision"),
                ),
            ),
            ("paid", Arc::new(BooleanArray::from(vec![Some(true), Some(false), None]))),
            ("day", Arc::new(Date32Array::from(vec![Some(0), Some(19_000), None]))),
            ("at", Arc::new(TimestampMicrosecondArray::from(vec![Some(0), Some(1_500_000), None]))),
        ];
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true)))
            .expect("columns of one length")
    }

    /// One text column.
    pub(crate) fn text(name: &str, values: &[&str]) -> RecordBatch {
        let array: ArrayRef = Arc::new(StringViewArray::from(values.to_vec()));
        RecordBatch::try_from_iter([(name, array)]).expect("one column")
    }

    pub(crate) fn render(format: Format, batches: &[RecordBatch]) -> String {
        let mut out = Vec::new();
        let mut renderer = renderer(format, &batches[0].schema());
        for batch in batches {
            renderer.batch(batch, &mut out).expect("a Vec takes everything");
        }
        renderer.finish(&mut out).expect("a Vec takes everything");
        String::from_utf8(out).expect("text")
    }
}
