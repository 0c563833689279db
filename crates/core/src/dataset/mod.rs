//! Datasets: a file in CSV, TSV or JSON lines becomes examples and a report of its errors.
//!
//! Line numbers are those of the file: a header is line 1, and a record that spans several lines has the number of its first.

mod column_mapping;
mod csv_reader;
mod csv_records;
mod csv_splitter;
mod diagnostic_collector;
mod diagnostics;
mod duplicates;
mod infer_schema;
mod json_fields;
mod jsonl_reader;
mod labels;
mod line_source;
mod options;
mod report;
mod row;
mod row_format;
mod shared_examples;
mod token_lengths;
mod truncation;
mod unknown_tokens;
mod validator;
mod value_stats;

pub use diagnostics::LocatedDiagnostic;
pub use infer_schema::infer_schema;
pub use labels::{check_validation_labels, unique_labels};
pub use options::{Format, Limits, OnBadRows, Options};
pub use report::{LabelCount, Report, ValidatedDataset};
pub use shared_examples::InputKeys;
pub use token_lengths::{
    Bucket, CountTokens, Histogram, MaxLength, NoLengths, TokenCount, TokenCounter, covering_length,
};
pub use value_stats::ValueStats;

use crate::error::{Context, Result};
use crate::task::{self, RowSchema};
use column_mapping::ColumnMapping;
use csv_reader::TableReader;
use diagnostics::Diagnostic;
use jsonl_reader::JsonlReader;
use line_source::LineSource;
use row::{OpenResult, RowReader};
use std::path::Path;
use validator::RowValidator;

/// Reads and validates a file for a task.
///
/// # Errors
/// Only if the file cannot be read from disk; errors in its content are in the report.
pub fn validate(
    path: &Path,
    options: &Options,
    task: &task::Config,
    token_counter: &dyn CountTokens,
    limits: &Limits,
) -> Result<ValidatedDataset> {
    let read_context = || format!("reading the dataset {}", path.display());
    let schema = infer_schema(path, options, task.row_schemas())?;
    let mut validator = RowValidator::new(schema, options.on_bad_rows, token_counter, limits);
    let source = LineSource::open(path).with_context(read_context)?;
    if source.file_bytes() > limits.max_bytes {
        return Ok(validator.reject_file(None, file_too_large(source.file_bytes(), limits.max_bytes)));
    }
    let mut reader = match open_reader(source, options, schema, limits).with_context(read_context)? {
        Ok(reader) => reader,
        Err((line, diagnostic)) => return Ok(validator.reject_file(line, diagnostic)),
    };
    while let Some(row) = reader.next_row().with_context(read_context)? {
        if validator.push(row)?.is_break() {
            break;
        }
    }
    validator.finish()
}

/// Opens the reader of the file's format.
fn open_reader(
    mut source: LineSource,
    options: &Options,
    schema: RowSchema,
    limits: &Limits,
) -> std::io::Result<OpenResult<Box<dyn RowReader>>> {
    let mapping = match ColumnMapping::new(&options.columns, schema) {
        Ok(mapping) => mapping,
        Err(diagnostic) => return Ok(Err((None, diagnostic))),
    };
    if source.is_utf16()? {
        let diagnostic = Diagnostic::new(diagnostics::BAD_UTF8, "the file is UTF-16: save it as UTF-8");
        return Ok(Err((Some(1), diagnostic)));
    }
    let Some(separator) = options.format.separator() else {
        return Ok(Ok(Box::new(JsonlReader::new(source, mapping, limits.max_record_bytes))));
    };
    let table = TableReader::open(source, separator, &mapping, limits)?;
    Ok(table.map(|table| Box::new(table) as Box<dyn RowReader>))
}

fn file_too_large(bytes: u64, limit: u64) -> Diagnostic {
    let message =
        format!("the file has {bytes} bytes, more than the {limit} that this server takes: send a smaller one");
    Diagnostic::new(diagnostics::TOO_MANY_BYTES, message)
}
