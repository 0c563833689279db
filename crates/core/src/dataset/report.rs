//! Result of a validation: the examples, and the report with its diagnostics and statistics.

use super::diagnostics::{self, LocatedDiagnostic};
use super::token_lengths::Histogram;
use crate::error::{Error, FieldError, Problem};
use crate::task::{Example, RowSchema};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// Usable examples in file order, and the report. A dataset whose report has `error_count > 0` must be refused.
#[derive(Debug, Clone)]
pub struct ValidatedDataset {
    pub examples: Vec<Example>,
    pub report: Report,
}

/// Errors, warnings and statistics of a dataset.
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
    /// Number of warnings by code.
    pub warning_counts: BTreeMap<String, u64>,
    /// Row schema that the file was read with.
    #[serde(default)]
    pub target: RowSchema,
    /// Labels with the number of their examples, most frequent first.
    pub labels: Vec<LabelCount>,
    /// Lengths in tokens.
    pub lengths: Histogram,
    /// What was not obvious about the fields, in sentences: columns that were chosen by their usual names, and forms that were converted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mapping: Vec<String>,
    /// Columns, or fields of the first 1,000 objects, that are not read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unread_columns: Vec<String>,
    /// Number of rows that are left out because a column of theirs says so, by reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub left_out: BTreeMap<String, u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LabelCount {
    pub label: String,
    pub count: u64,
}

impl Report {
    /// Error `Invalid` (`invalid_dataset`) with the report's errors by line; `None` without errors.
    pub fn to_error(&self) -> Option<Error> {
        if self.error_count == 0 {
            return None;
        }
        let field_errors = self.errors.iter().filter_map(to_field_error).collect();
        Some(Error::Invalid(Problem::new("invalid_dataset", self.summary()).with_errors(field_errors)))
    }

    /// Errors of the file as a whole, the number of errors of rows, and advice.
    fn summary(&self) -> String {
        let file_errors = self.errors.iter().filter(|error| error.line.is_none());
        let mut sentences: Vec<String> = file_errors.map(|error| error.message.clone()).collect();
        let line_errors = self.error_count - sentences.len() as u64;
        let line_summary = match line_errors {
            0 => None,
            1 => Some("the dataset has 1 error, listed with its line".to_string()),
            many if many <= self.listed_line_errors() => Some(format!("the dataset has {many} errors, listed by line")),
            many => Some(format!(
                "the dataset has {many} errors; the first {} are listed by line",
                self.listed_line_errors()
            )),
        };
        sentences.extend(line_summary);
        if self.can_skip_bad_rows() {
            sentences.push("correct them, or send `\"on_bad_rows\": \"skip\"` to leave those rows out".to_string());
        }
        sentences.join("; ")
    }

    fn listed_line_errors(&self) -> u64 {
        self.errors.iter().filter(|error| error.line.is_some()).count() as u64
    }

    /// Whether every error belongs to a row and the other rows make a dataset.
    fn can_skip_bad_rows(&self) -> bool {
        self.errors.iter().all(|error| error.line.is_some() && diagnostics::is_skippable(&error.code))
            && self.examples > 0
    }
}

/// Error at a line. Diagnostics without a line are part of the summary.
fn to_field_error(diagnostic: &LocatedDiagnostic) -> Option<FieldError> {
    diagnostic.line.map(|line| FieldError::at_line(line, diagnostic.message.clone()))
}
