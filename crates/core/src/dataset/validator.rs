//! Validation of a file row by row: turns valid rows into examples and fills the report.

use super::diagnostic_collector::DiagnosticCollector;
use super::diagnostics::{self, Diagnostic};
use super::duplicates::DuplicateIndex;
use super::labels::LabelTable;
use super::options::{Limits, OnBadRows};
use super::report::{Report, ValidatedDataset};
use super::row::{ParsedRow, ValidRow};
use super::row_format::{FileStats, row_format};
use super::token_lengths::{CountTokens, LengthCounter, TokenCount};
use crate::error::{Error, Result};
use crate::task::{Example, RowSchema};
use std::collections::BTreeSet;
use std::ops::ControlFlow;

/// Checks the rows of a dataset one by one and collects examples, diagnostics and statistics.
pub(super) struct RowValidator<'a> {
    schema: RowSchema,
    on_bad_rows: OnBadRows,
    token_counter: &'a dyn CountTokens,
    limits: &'a Limits,
    collector: DiagnosticCollector,
    rows: u64,
    has_all_rows: bool,
    examples: Vec<Example>,
    labels: LabelTable,
    duplicates: DuplicateIndex,
    token_lengths: LengthCounter,
}

impl<'a> RowValidator<'a> {
    pub fn new(
        schema: RowSchema,
        on_bad_rows: OnBadRows,
        token_counter: &'a dyn CountTokens,
        limits: &'a Limits,
    ) -> Self {
        Self {
            schema,
            on_bad_rows,
            token_counter,
            limits,
            collector: DiagnosticCollector::default(),
            rows: 0,
            has_all_rows: true,
            examples: Vec::new(),
            labels: LabelTable::default(),
            duplicates: DuplicateIndex::default(),
            token_lengths: LengthCounter::default(),
        }
    }

    /// Refuses the whole file for one reason.
    pub fn reject_file(mut self, line: Option<u64>, diagnostic: Diagnostic) -> ValidatedDataset {
        self.collector.push_error(line, diagnostic);
        self.into_validated()
    }

    /// Adds an error of the file as a whole, which leaves rows out: nothing is concluded from the others.
    pub fn push_file_error(&mut self, diagnostic: Diagnostic) {
        self.has_all_rows = false;
        self.collector.push_error(None, diagnostic);
    }

    /// Adds warnings of the reader, with their lines.
    pub fn push_warnings(&mut self, warnings: Vec<(u64, Diagnostic)>) {
        if !warnings.is_empty() {
            self.collector.merge_warnings(warnings);
        }
    }

    /// Validates the next row. Breaks once the file has too many rows.
    ///
    /// # Errors
    /// Internal errors of the token counter; errors of the row go into the report.
    pub fn push(&mut self, row: ParsedRow) -> Result<ControlFlow<()>> {
        if self.rows == self.limits.max_rows {
            let message =
                format!("the file has more than the {} rows that this server takes: send fewer", self.limits.max_rows);
            self.collector.push_error(None, Diagnostic::new(diagnostics::TOO_MANY_ROWS, message));
            return Ok(ControlFlow::Break(()));
        }
        self.rows += 1;
        let line = row.line;
        match row.content {
            Ok(row) => self.push_valid(line, row)?,
            Err(errors) => {
                errors.into_iter().for_each(|error| self.collector.push_bad_row(line, error, self.on_bad_rows));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn push_valid(&mut self, line: u64, mut row: ValidRow) -> Result<()> {
        if !row.trimmed_fields.is_empty() {
            let message = format!("white space around {} was taken off", row.trimmed_fields.join(" and "));
            self.collector.push_warning(line, Diagnostic::new(diagnostics::WHITE_SPACE, message));
        }
        if let Some(warning) = row.warning.take() {
            self.collector.push_warning(line, warning);
        }
        self.count_labels_and_duplicates(line, &row);
        let example = row.into_example(line);
        match self.token_counter.count_tokens(&example) {
            Ok(token_counts) => {
                self.examples.push(example);
                self.record_lengths(line, &token_counts);
                Ok(())
            }
            Err(Error::Invalid(problem)) => {
                self.collector.push_bad_row(line, Diagnostic::new(problem.code, problem.detail), self.on_bad_rows);
                Ok(())
            }
            Err(other) => Err(other),
        }
    }

    fn count_labels_and_duplicates(&mut self, line: u64, row: &ValidRow) {
        // A file with too many labels is refused; this bounds the memory until its end.
        if self.labels.stats().len() > self.limits.max_labels {
            return;
        }
        for label in row.target.labels().iter().collect::<BTreeSet<_>>() {
            self.labels.increment(line, label);
        }
        if let Some(duplicate) = self.duplicates.insert(line, &row.duplicate_key) {
            self.collector.push_warning(line, duplicate.to_diagnostic(&row.duplicate_key, self.schema));
        }
    }

    fn record_lengths(&mut self, line: u64, token_counts: &[TokenCount]) {
        for count in token_counts {
            self.token_lengths.record(count.tokens);
            if count.truncated {
                let message = format!("the text is cut to {} tokens; a larger `max_length` keeps more", count.tokens);
                self.collector.push_warning(line, Diagnostic::new(diagnostics::TRUNCATED, message));
            }
        }
    }

    /// Adds the diagnostics of the file as a whole.
    pub fn finish(mut self) -> ValidatedDataset {
        if let Some(diagnostic) = self.file_error().filter(|_| self.has_all_rows) {
            self.collector.push_error(None, diagnostic);
        }
        if row_format(self.schema).warns_about_single_labels() {
            let single_labels = self.labels.stats().iter().filter(|label| label.count == 1);
            self.collector.merge_warnings(single_labels.map(|label| (label.first_line, label.seen_once_warning())));
        }
        self.into_validated()
    }

    fn file_error(&self) -> Option<Diagnostic> {
        if self.rows == 0 {
            let message = "the file has no rows: give it one per example";
            return Some(Diagnostic::new(diagnostics::NO_USABLE_ROW, message));
        }
        if self.examples.is_empty() {
            let message = format!("none of the {} rows can be used", self.rows);
            return Some(Diagnostic::new(diagnostics::NO_USABLE_ROW, message));
        }
        row_format(self.schema).file_error(&FileStats {
            example_count: self.examples.len(),
            labels: self.labels.stats(),
            target_count: self.duplicates.target_count(),
            max_labels: self.limits.max_labels,
        })
    }

    fn into_validated(self) -> ValidatedDataset {
        let mut report = Report {
            rows: self.rows,
            examples: self.examples.len() as u64,
            target: self.schema,
            labels: self.labels.into_sorted_counts(),
            lengths: self.token_lengths.to_histogram(),
            ..Report::default()
        };
        self.collector.store_in(&mut report);
        ValidatedDataset { examples: self.examples, report }
    }
}
