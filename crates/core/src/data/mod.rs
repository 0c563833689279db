//! A user's file becomes examples, or a report of every bad row.
//!
//! Knows nothing of HTTP, jobs or training. Lines are the file's: the header is 1, a record that spans several lines
//! is named by its first.

mod columns;
mod conversations;
mod findings;
mod format;
mod guess;
mod histogram;
mod jsonl;
mod judge;
mod quotes;
mod records;
mod refusal;
mod repeats;
mod row;
mod source;
mod spans;
mod table;
mod trimmed;
mod truncation;
mod validation;

pub use guess::guess;
pub use truncation::Truncation;
pub use validation::{check_validation, labels};

use crate::error::{Context, Result};
use crate::task::{self, Example, Shape};
use findings::Flaw;
use judge::Judge;
use row::Rows;
use serde::{Deserialize, Serialize};
use source::Source;
use std::collections::BTreeMap;
use std::path::Path;
use utoipa::ToSchema;

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
pub struct Settings {
    pub max_bytes: u64,
    pub max_rows: u64,
    pub max_record_bytes: usize,
    pub max_labels: usize,
}

/// What examples are measured with.
pub trait Measure {
    /// Of each text that is read of it: tokens after truncation, and whether it was truncated.
    ///
    /// # Errors
    /// `Invalid` where the example cannot be used, with the reason.
    fn measure(&self, example: &Example) -> Result<Vec<Length>>;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Length {
    pub tokens: usize,
    pub truncated: bool,
}

/// The usable examples in file order and the report. Where `report.error_count > 0` the dataset must be refused.
#[derive(Debug, Clone)]
pub struct Checked {
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
    pub errors: Vec<Finding>,
    pub error_count: u64,
    /// The first 100 warnings.
    pub warnings: Vec<Finding>,
    /// How often each kind of warning was given.
    pub warning_counts: BTreeMap<String, u64>,
    /// Which field of a row says what it teaches.
    #[serde(default)]
    pub target: Shape,
    /// Labels with the number of their examples, most frequent first.
    pub labels: Vec<LabelCount>,
    /// Lengths in tokens.
    pub lengths: Histogram,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Finding {
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
pub fn check(
    path: &Path,
    options: &Options,
    task: &task::Config,
    measure: &dyn Measure,
    settings: &Settings,
) -> Result<Checked> {
    let reading = || format!("reading the dataset {}", path.display());
    let shape = guess(path, options, task.shapes())?;
    let mut judge = Judge::new(shape, options.on_bad_rows, measure, settings);
    let source = Source::open(path).with_context(reading)?;
    if source.bytes() > settings.max_bytes {
        return Ok(judge.refuse(None, too_large(source.bytes(), settings.max_bytes)));
    }
    let mut rows = match rows(source, options, shape, settings).with_context(reading)? {
        Ok(rows) => rows,
        Err((line, flaw)) => return Ok(judge.refuse(line, flaw)),
    };
    while let Some(row) = rows.next().with_context(reading)? {
        if judge.take(row)?.is_break() {
            break;
        }
    }
    Ok(judge.finish())
}

/// The reader for the format, or what is wrong with the file as a whole.
fn rows(
    mut source: Source,
    options: &Options,
    shape: Shape,
    settings: &Settings,
) -> std::io::Result<Opened<Box<dyn Rows>>> {
    let columns = match columns::Wanted::new(&options.columns, shape) {
        Ok(columns) => columns,
        Err(flaw) => return Ok(Err((None, flaw))),
    };
    if source.is_utf16()? {
        let flaw = Flaw::new(findings::BAD_UTF8, "the file is UTF-16: save it as UTF-8");
        return Ok(Err((Some(1), flaw)));
    }
    let separator = match options.format {
        Format::Csv => b',',
        Format::Tsv => b'\t',
        Format::Jsonl => {
            return Ok(Ok(Box::new(jsonl::Lines::new(source, columns, settings.max_record_bytes))));
        }
    };
    let table = table::Table::open(source, separator, &columns, settings)?;
    Ok(table.map(|table| Box::new(table) as Box<dyn Rows>))
}

/// A reader that is ready, or a flaw that concerns the whole file, with its line where it has one.
type Opened<T> = std::result::Result<T, (Option<u64>, Flaw)>;

fn too_large(bytes: u64, limit: u64) -> Flaw {
    Flaw::new(
        findings::TOO_MANY_BYTES,
        format!("the file has {bytes} bytes, more than the {limit} that this server takes: send a smaller one"),
    )
}
