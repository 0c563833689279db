//! Datasets: a file in any of the formats of [`Format`] becomes examples and a report of its errors.
//!
//! Line numbers are those of the file: a header is line 1, and a record that spans several lines has the number of its first. In
//! files without lines they are the numbers of rows.

mod column_mapping;
mod content;
mod csv_reader;
mod csv_records;
mod csv_splitter;
mod detect;
mod diagnostic_collector;
mod diagnostics;
mod duplicates;
mod format;
mod infer_schema;
mod json_fields;
mod labels;
mod line_source;
mod object_reader;
mod objects;
mod options;
mod report;
mod row;
mod row_format;
mod token_lengths;
mod validator;

pub use content::TextEncoding;
pub use detect::detect_options;
pub use diagnostics::LocatedDiagnostic;
pub use format::{Format, Quoting, Separator};
pub use infer_schema::infer_schema;
pub use labels::{check_validation_labels, unique_labels};
pub use options::{Limits, OnBadRows, Options, RequestedFormat};
pub use report::{LabelCount, Report, ValidatedDataset};
pub use token_lengths::{Bucket, CountTokens, Histogram, TokenCount, TokenCounter};

use crate::error::{Context, Result};
use crate::task::{self, RowSchema};
use column_mapping::ColumnMapping;
use content::{Content, guess_encoding};
use csv_reader::TableReader;
use infer_schema::infer_content_schema;
use object_reader::ObjectReader;
use objects::open_objects;
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
    let new_validator = |schema| RowValidator::new(schema, options.on_bad_rows, token_counter, limits);
    let content = match Content::open(path, options, limits.max_bytes).with_context(read_context)? {
        Ok(content) => content,
        Err(diagnostic) => {
            let schema = task.row_schemas().first().copied().unwrap_or_default();
            return Ok(new_validator(schema).reject_file(None, diagnostic));
        }
    };
    let schema = infer_content_schema(&content, options, task.row_schemas(), limits).with_context(read_context)?;
    let mut validator = new_validator(schema);
    let mut encoding_guess = match options.expects_utf8() {
        true => guess_encoding(content.lines().with_context(read_context)?).with_context(read_context)?,
        false => None,
    };
    // Under `skip`, the lines are left out, and the report lists them.
    encoding_guess = encoding_guess.filter(|_| options.on_bad_rows == OnBadRows::Refuse);
    if let Some(guess) = &encoding_guess {
        validator.push_file_error(guess.to_diagnostic());
    }
    validator.push_warnings(content.warnings.clone());
    let mut reader = match open_reader(&content, options, schema, limits).with_context(read_context)? {
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
            return Ok(validator.finish());
        }
    }
    validator.push_warnings(reader.take_warnings());
    if let Some(diagnostic) = reader.take_file_error() {
        validator.push_file_error(diagnostic);
    }
    Ok(validator.finish())
}

/// Opens the reader of the file's format.
fn open_reader(
    content: &Content,
    options: &Options,
    schema: RowSchema,
    limits: &Limits,
) -> std::io::Result<OpenResult<Box<dyn RowReader>>> {
    let mapping = match ColumnMapping::new(&options.columns, schema) {
        Ok(mapping) => mapping,
        Err(diagnostic) => return Ok(Err((None, diagnostic))),
    };
    match open_objects(content, options.format, limits)? {
        Some(Ok(source)) => Ok(Ok(Box::new(ObjectReader::new(source, mapping)))),
        Some(Err(diagnostic)) => Ok(Err((None, diagnostic))),
        None => {
            let table = TableReader::open(content.lines()?, options, &mapping, limits)?;
            Ok(table.map(|table| Box::new(table) as Box<dyn RowReader>))
        }
    }
}
