//! A report with errors as the error that refuses the dataset.

use super::{LocatedDiagnostic, Report, diagnostics};
use crate::error::{Error, FieldError, Problem};

impl Report {
    /// `Invalid` (`invalid_dataset`) with the errors by line, where there are any.
    pub fn to_error(&self) -> Option<Error> {
        if self.error_count == 0 {
            return None;
        }
        let field_errors = self.errors.iter().filter_map(to_field_error).collect();
        Some(Error::Invalid(Problem::new("invalid_dataset", self.summary()).with_errors(field_errors)))
    }

    /// What is wrong with the file as a whole, how many errors there are, and what to do.
    fn summary(&self) -> String {
        let file_diagnostics = self.errors.iter().filter(|finding| finding.line.is_none());
        let mut sentences: Vec<String> = file_diagnostics.map(|finding| finding.message.clone()).collect();
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
        self.errors.iter().filter(|finding| finding.line.is_some()).count() as u64
    }

    /// Only where every error is one of a row, and the rows without one make a dataset.
    fn can_skip_bad_rows(&self) -> bool {
        self.errors.iter().all(|finding| finding.line.is_some() && diagnostics::is_skippable(&finding.code))
            && self.examples > 0
    }
}

/// A finding about the whole file has no place of its own: the detail tells it.
fn to_field_error(finding: &LocatedDiagnostic) -> Option<FieldError> {
    finding.line.map(|line| FieldError::at_line(line, finding.message.clone()))
}
