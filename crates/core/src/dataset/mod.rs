//! Datasets: a file in any of the formats of [`Format`] becomes examples and a report of its errors.
//!
//! Line numbers are those of the file: a header is line 1, and a record that spans several lines has the number of its first. In
//! files without lines they are the numbers of rows.

mod choices;
mod column_mapping;
mod column_names;
mod column_proposal;
mod content;
mod csv_reader;
mod csv_records;
mod csv_splitter;
mod detect;
mod diagnostic_collector;
mod diagnostics;
mod duplicates;
mod examples;
mod field_columns;
mod field_value;
mod format;
mod infer_schema;
mod label_checks;
mod label_notation;
mod labels;
mod line_source;
mod list_text;
mod number_format;
mod object_reader;
mod objects;
mod options;
mod preview;
mod record;
mod report;
mod row;
mod row_filters;
mod row_format;
mod shared_examples;
mod text_encoding;
mod token_lengths;
mod truncation;
mod unknown_tokens;
mod validator;
mod value_kind;
mod value_stats;

#[cfg(test)]
mod tests;

pub use detect::detect_options;
pub use diagnostics::LocatedDiagnostic;
pub use examples::for_each_example;
pub use format::{Format, Quoting, Separator};
pub use infer_schema::infer_schema;
pub use labels::{check_validation_labels, unique_labels};
pub use number_format::Decimal;
pub use options::{Limits, OnBadRows, Options, RequestedFormat};
pub use report::{LabelCount, Report, ValidatedDataset};
pub use shared_examples::InputKeys;
pub use text_encoding::TextEncoding;
pub use token_lengths::{
    Bucket, CountTokens, Histogram, MaxLength, NoLengths, TokenCount, TokenCounter, covering_length,
};
pub use value_stats::ValueStats;

use crate::error::{Context, Result};
use crate::task;
use column_mapping::ColumnMapping;
use content::{Content, guess_encoding};
use csv_reader::TableReader;
use object_reader::ObjectReader;
use objects::open_objects;
use preview::Preview;
use row::{OpenResult, RecordParser, RowReader};
use row_format::RowParser;
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
    let reject = |line, diagnostic| {
        let schema = task.row_schemas().first().copied().unwrap_or_default();
        RowValidator::new(schema, options, token_counter, limits).reject_file(line, diagnostic)
    };
    let content = match Content::open(path, options, limits.max_bytes).with_context(read_context)? {
        Ok(content) => content,
        Err(diagnostic) => return Ok(reject(None, diagnostic)),
    };
    let preview = match Preview::read(&content, options, limits).with_context(read_context)? {
        Ok(preview) => preview,
        Err((line, diagnostic)) => return Ok(reject(line, diagnostic)),
    };
    let schema = infer_schema::best_schema(&preview, options, task.row_schemas());
    let mut validator = RowValidator::new(schema, options, token_counter, limits);
    let encoding_guess = match options.expects_utf8() {
        true => guess_encoding(content.lines().with_context(read_context)?).with_context(read_context)?,
        false => None,
    };
    // Under `skip`, the lines are left out, and the report lists them.
    let encoding_guess = encoding_guess.filter(|_| options.on_bad_rows == OnBadRows::Refuse);
    if let Some(guess) = &encoding_guess {
        validator.push_file_error(guess.to_diagnostic());
    }
    let mapping = match ColumnMapping::resolve(schema, options, &preview) {
        Ok(mapping) => mapping,
        Err(diagnostic) => {
            let is_of_header = [diagnostics::MISSING_COLUMN, diagnostics::MISSING_FIELD].contains(&diagnostic.code);
            return Ok(validator.reject_file(preview.first_line.filter(|_| is_of_header), diagnostic));
        }
    };
    validator.set_mapping(&mapping);
    validator.push_warnings(content.warnings.clone());
    let parser = Box::new(RowParser::new(mapping));
    let mut reader = match open_reader(&content, options, parser, limits).with_context(read_context)? {
        Ok(reader) => reader,
        Err((line, diagnostic)) => return Ok(validator.reject_file(line, diagnostic)),
    };
    while let Some(mut row) = reader.next_row().with_context(read_context)? {
        validator.push_warnings(reader.take_warnings());
        if encoding_guess.is_some() {
            // One error of the file stands for those of its rows.
            row.remove_errors(diagnostics::BAD_UTF8);
        }
        if validator.push(row)?.is_break() {
            return validator.finish();
        }
    }
    validator.push_warnings(reader.take_warnings());
    if let Some(diagnostic) = reader.take_file_error() {
        validator.push_file_error(diagnostic);
    }
    validator.finish()
}

/// Opens the reader of the file's format.
fn open_reader(
    content: &Content,
    options: &Options,
    parser: Box<dyn RecordParser>,
    limits: &Limits,
) -> std::io::Result<OpenResult<Box<dyn RowReader>>> {
    match open_objects(content, options.format, limits)? {
        Some(Ok(source)) => Ok(Ok(Box::new(ObjectReader::new(source, parser)))),
        Some(Err(diagnostic)) => Ok(Err((None, diagnostic))),
        None => {
            let table = TableReader::open(content.lines()?, options, parser, limits)?;
            Ok(table.map(|table| Box::new(table) as Box<dyn RowReader>))
        }
    }
}
