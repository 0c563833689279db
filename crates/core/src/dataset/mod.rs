//! A user's file becomes examples, or a report of every bad row.
//!
//! Knows nothing of HTTP, jobs or training. Lines are the file's: the header is 1, a record that spans several lines
//! is named by its first.

mod column_mapping;
mod conversations;
mod csv_reader;
mod csv_records;
mod csv_splitter;
mod diagnostics;
mod duplicates;
mod entities;
mod format;
mod histogram;
mod infer_schema;
mod jsonl_reader;
mod line_source;
mod normalize;
mod report;
mod row;
mod token_counter;
mod validation_set;
mod validator;

pub use infer_schema::infer_schema;
pub use token_counter::TokenCounter;
pub use validation_set::{check_validation_labels, unique_labels};

use crate::error::{Context, Result};
use crate::task::{self, Example, RowSchema};
use diagnostics::Diagnostic;
use line_source::LineSource;
use row::RowReader;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use utoipa::ToSchema;
use validator::RowValidator;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    Csv,
    Tsv,
    Jsonl,
}

/// What to do with rows that cannot be used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnBadRows {
    #[default]
    Refuse,
    Skip,
}

/// How a file is to be read; stored with the job, because it decides the bytes of the result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Options {
    pub format: Format,
    /// From the task's field (`text`, `text_pair`, `label` …) to the file's column.
    #[serde(default)]
    pub columns: BTreeMap<String, String>,
    #[serde(default)]
    pub on_bad_rows: OnBadRows,
}

/// Limits on what is accepted; every one is a setting of the server.
#[derive(Debug, Clone)]
pub struct Limits {
    pub max_bytes: u64,
    pub max_rows: u64,
    pub max_record_bytes: usize,
    pub max_labels: usize,
}

/// What examples are measured with.
pub trait CountTokens {
    /// Of each text that is read of it: tokens after truncation, and whether it was truncated.
    ///
    /// # Errors
    /// `Invalid` where the example cannot be used, with the reason.
    fn count_tokens(&self, example: &Example) -> Result<Vec<TokenCount>>;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenCount {
    pub tokens: usize,
    pub truncated: bool,
}

/// The usable examples in file order and the report. Where `report.error_count > 0` the dataset must be refused.
#[derive(Debug, Clone)]
pub struct ValidatedDataset {
    pub examples: Vec<Example>,
    pub report: Report,
}

/// What was found in a dataset.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Report {
    /// Records in the file, the header not counted.
    pub rows: u64,
    /// Rows that became examples.
    pub examples: u64,
    /// The first 100 errors, in the order of the file; with any, a job is refused.
    pub errors: Vec<LocatedDiagnostic>,
    pub error_count: u64,
    /// The first 100 warnings.
    pub warnings: Vec<LocatedDiagnostic>,
    /// How often each kind of warning was given.
    pub warning_counts: BTreeMap<String, u64>,
    /// Which field of a row says what it teaches.
    #[serde(default)]
    pub target: RowSchema,
    /// Labels with the number of their examples, most frequent first.
    pub labels: Vec<LabelCount>,
    /// Lengths in tokens.
    pub lengths: Histogram,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LocatedDiagnostic {
    /// Left out where the finding is about the whole file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    pub code: String,
    pub message: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LabelCount {
    pub label: String,
    pub count: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Histogram {
    pub min: usize,
    pub median: usize,
    pub p95: usize,
    pub max: usize,
    /// Of all texts together.
    #[serde(default)]
    pub tokens: u64,
    /// `up_to` tokens (inclusive) and how many examples fall into that bucket.
    pub buckets: Vec<Bucket>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Bucket {
    pub up_to: usize,
    pub count: u64,
}

/// Reads and checks a file for a task.
///
/// # Errors
/// Only where the file cannot be read from disk; everything wrong with its content is in the report.
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
        Ok(rows) => rows,
        Err((line, flaw)) => return Ok(validator.reject_file(line, flaw)),
    };
    while let Some(row) = reader.next_row().with_context(read_context)? {
        if validator.push(row)?.is_break() {
            break;
        }
    }
    Ok(validator.finish())
}

/// The reader for the format, or what is wrong with the file as a whole.
fn open_reader(
    mut source: LineSource,
    options: &Options,
    schema: RowSchema,
    limits: &Limits,
) -> std::io::Result<OpenResult<Box<dyn RowReader>>> {
    let mapping = match column_mapping::ColumnMapping::new(&options.columns, schema) {
        Ok(columns) => columns,
        Err(flaw) => return Ok(Err((None, flaw))),
    };
    if source.is_utf16()? {
        let diagnostic = Diagnostic::new(diagnostics::BAD_UTF8, "the file is UTF-16: save it as UTF-8");
        return Ok(Err((Some(1), diagnostic)));
    }
    let separator = match options.format {
        Format::Csv => b',',
        Format::Tsv => b'\t',
        Format::Jsonl => {
            return Ok(Ok(Box::new(jsonl_reader::JsonlReader::new(source, mapping, limits.max_record_bytes))));
        }
    };
    let table = csv_reader::TableReader::open(source, separator, &mapping, limits)?;
    Ok(table.map(|table| Box::new(table) as Box<dyn RowReader>))
}

/// A reader that is ready, or a flaw that concerns the whole file, with its line where it has one.
type OpenResult<T> = std::result::Result<T, (Option<u64>, Diagnostic)>;

fn file_too_large(bytes: u64, limit: u64) -> Diagnostic {
    Diagnostic::new(
        diagnostics::TOO_MANY_BYTES,
        format!("the file has {bytes} bytes, more than the {limit} that this server takes: send a smaller one"),
    )
}
