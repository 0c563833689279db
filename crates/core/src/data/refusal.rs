//! A report with errors as the error that refuses the dataset.

use super::{Finding, Report, findings};
use crate::error::{Error, Fault, Problem};

impl Report {
    /// `Invalid` (`invalid_dataset`) with the errors by line, where there are any.
    pub fn refusal(&self) -> Option<Error> {
        if self.error_count == 0 {
            return None;
        }
        let faults = self.errors.iter().filter_map(fault).collect();
        Some(Error::Invalid(Problem::new("invalid_dataset", self.detail()).with_faults(faults)))
    }

    /// What is wrong with the file as a whole, how many errors there are, and what to do.
    fn detail(&self) -> String {
        let whole = self.errors.iter().filter(|finding| finding.line.is_none());
        let mut sentences: Vec<String> = whole.map(|finding| finding.message.clone()).collect();
        let by_line = self.error_count - sentences.len() as u64;
        let lines = match by_line {
            0 => None,
            1 => Some("the dataset has 1 error, listed with its line".to_string()),
            many if many <= self.listed_by_line() => Some(format!("the dataset has {many} errors, listed by line")),
            many => {
                Some(format!("the dataset has {many} errors; the first {} are listed by line", self.listed_by_line()))
            }
        };
        sentences.extend(lines);
        if self.skipping_would_help() {
            sentences.push("correct them, or send `\"on_bad_rows\": \"skip\"` to leave those rows out".to_string());
        }
        sentences.join("; ")
    }

    fn listed_by_line(&self) -> u64 {
        self.errors.iter().filter(|finding| finding.line.is_some()).count() as u64
    }

    /// Only where every error is one of a row, and the rows without one make a dataset.
    fn skipping_would_help(&self) -> bool {
        self.errors.iter().all(|finding| finding.line.is_some() && findings::is_row_fault(&finding.code))
            && self.examples > 0
    }
}

/// A finding about the whole file has no place of its own: the detail tells it.
fn fault(finding: &Finding) -> Option<Fault> {
    finding.line.map(|line| Fault::at_line(line, finding.message.clone()))
}
