//! Validation of a file row by row: turns valid rows into examples and fills the report.

use super::column_mapping::ColumnMapping;
use super::diagnostic_collector::DiagnosticCollector;
use super::diagnostics::{self, Diagnostic};
use super::duplicates::DuplicateIndex;
use super::label_checks;
use super::labels::LabelTable;
use super::options::{Limits, Options};
use super::report::{Report, ValidatedDataset};
use super::row::{ParsedRow, UnusableRow, ValidRow};
use super::row_format::{FileStats, row_format};
use super::token_lengths::{CountTokens, LengthCounter, TokenCount};
use super::truncation::Truncation;
use super::unknown_tokens::UnknownTokens;
use super::value_stats::ValueStats;
use crate::error::{Error, Result};
use crate::task::{Example, RowSchema, Split, label_weights};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

/// Checks the rows of a dataset one by one and collects examples, diagnostics and statistics.
pub(super) struct RowValidator<'a> {
    schema: RowSchema,
    options: &'a Options,
    token_counter: &'a dyn CountTokens,
    limits: &'a Limits,
    collector: DiagnosticCollector,
    rows: u64,
    has_all_rows: bool,
    examples: Vec<Example>,
    labels: LabelTable,
    duplicates: DuplicateIndex,
    token_lengths: LengthCounter,
    truncation: Truncation,
    unknown_tokens: UnknownTokens,
    left_out: BTreeMap<String, u64>,
    mapping_notes: Vec<String>,
    unread_columns: Vec<String>,
}

impl<'a> RowValidator<'a> {
    pub fn new(
        schema: RowSchema,
        options: &'a Options,
        token_counter: &'a dyn CountTokens,
        limits: &'a Limits,
    ) -> Self {
        Self {
            schema,
            options,
            token_counter,
            limits,
            collector: DiagnosticCollector::default(),
            rows: 0,
            has_all_rows: true,
            examples: Vec::new(),
            labels: LabelTable::default(),
            duplicates: DuplicateIndex::default(),
            token_lengths: LengthCounter::default(),
            truncation: Truncation::default(),
            unknown_tokens: UnknownTokens::default(),
            left_out: BTreeMap::new(),
            mapping_notes: Vec::new(),
            unread_columns: Vec::new(),
        }
    }

    /// Takes what the report says of the columns.
    pub fn set_mapping(&mut self, mapping: &ColumnMapping) {
        self.mapping_notes.clone_from(&mapping.notes);
        self.unread_columns.clone_from(&mapping.unread_columns);
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
            Err(UnusableRow::LeftOut(reason)) => *self.left_out.entry(reason).or_default() += 1,
            Err(UnusableRow::Invalid(errors)) => {
                let on_bad_rows = self.options.on_bad_rows;
                errors.into_iter().for_each(|error| self.collector.push_bad_row(line, error, on_bad_rows));
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
                self.collector.push_bad_row(
                    line,
                    Diagnostic::new(problem.code, problem.detail),
                    self.options.on_bad_rows,
                );
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
        token_counts.iter().for_each(|count| self.token_lengths.record(count.tokens));
        self.truncation.record(token_counts);
        if let Some(warning) = self.unknown_tokens.record(line, token_counts) {
            self.collector.push_warning(line, warning);
        }
    }

    /// Decides the length to which texts are cut, and takes out the rows of which nothing that can be learned remains.
    fn cut_to_max_length(&mut self) -> Result<()> {
        let Some(max_length) = self.token_counter.max_length(&self.token_lengths.to_histogram()) else { return Ok(()) };
        let truncated = self.truncation.apply(&mut self.examples, self.token_counter, max_length)?;
        self.collector.merge_bad_rows(truncated.bad_rows, self.options.on_bad_rows);
        if let Some(warning) = truncated.warning {
            self.collector.push_file_warning(warning);
        }
        Ok(())
    }

    /// Adds the diagnostics of the file as a whole.
    ///
    /// # Errors
    /// Internal errors of the token counter.
    pub fn finish(mut self) -> Result<ValidatedDataset> {
        self.cut_to_max_length()?;
        match self.unknown_tokens.file_diagnostic() {
            Some(diagnostic) if self.unknown_tokens.is_most() => self.collector.push_error(None, diagnostic),
            Some(diagnostic) => self.collector.push_file_warning(diagnostic),
            None => {}
        }
        if let Some(diagnostic) = self.file_error().filter(|_| self.has_all_rows) {
            self.collector.push_error(None, diagnostic);
        }
        if row_format(self.schema).warns_about_single_labels() {
            let single_labels = self.labels.stats().iter().filter(|label| label.count == 1);
            self.collector.merge_warnings(single_labels.map(|label| (label.first_line, label.seen_once_warning())));
        }
        self.collector.merge_warnings(label_checks::similar_labels(self.labels.stats()));
        self.warn_about_rare_labels();
        Ok(self.into_validated())
    }

    /// Adds a warning where the rarest label has less than a twentieth of the rows of the most frequent one.
    fn warn_about_rare_labels(&mut self) {
        let stats = self.labels.stats();
        let is_classification = self.schema == RowSchema::Label || self.schema == RowSchema::Labels;
        let rarest = stats.iter().min_by_key(|label| label.count);
        let most_frequent = stats.iter().max_by_key(|label| label.count);
        if let (Some(rarest), Some(most_frequent)) = (rarest, most_frequent)
            && is_classification
            && label_weights::has_rare_label(stats.iter().map(|label| label.count))
        {
            let warning = rarest.rare_label_warning(most_frequent);
            self.collector.push_file_warning(warning);
        }
    }

    fn file_error(&self) -> Option<Diagnostic> {
        if self.rows == 0 {
            let message = "the file has no rows: give it one per example";
            return Some(Diagnostic::new(diagnostics::NO_USABLE_ROW, message));
        }
        if self.examples.is_empty() {
            let mut message = format!("none of the {} rows can be used", self.rows);
            if !self.left_out.is_empty() {
                let reasons: Vec<String> =
                    self.left_out.iter().map(|(reason, count)| format!("{reason} ({count})")).collect();
                message.push_str(&format!(": rows are left out for {}", reasons.join(", ")));
            }
            if self.left_out.keys().any(|reason| reason.starts_with("split: ")) {
                message.push_str("; `\"split\"` in the request chooses the split to read");
            }
            return Some(Diagnostic::new(diagnostics::NO_USABLE_ROW, message));
        }
        let error = row_format(self.schema).file_error(&FileStats {
            example_count: self.examples.len(),
            labels: self.labels.stats(),
            target_count: self.duplicates.target_count(),
            max_labels: self.limits.max_labels,
            is_label_mapped: self.options.columns.contains_key("label"),
            has_label_separator: self.options.label_separator.is_some(),
        });
        // Any number of rows can be evaluated.
        let is_evaluation = matches!(self.options.split, Some(Split::Validation | Split::Test));
        let is_too_few = |error: &Diagnostic| {
            [diagnostics::TOO_FEW_EXAMPLES, diagnostics::TOO_FEW_LABELS, diagnostics::TOO_FEW_VALUES]
                .contains(&error.code)
        };
        error.filter(|error| !(is_evaluation && is_too_few(error)))
    }

    fn into_validated(mut self) -> ValidatedDataset {
        let values = ValueStats::new(&self.examples).map(|(stats, outliers)| {
            outliers.into_iter().for_each(|outliers| self.collector.push_file_warning(outliers));
            stats
        });
        let mut report = Report {
            rows: self.rows,
            examples: self.examples.len() as u64,
            text_pairs: self.examples.iter().filter(|example| example.text_pair.is_some()).count() as u64,
            target: self.schema,
            labels: self.labels.into_sorted_counts(),
            values,
            lengths: self.token_lengths.to_histogram(),
            mapping: self.mapping_notes,
            unread_columns: self.unread_columns,
            left_out: self.left_out,
            ..Report::default()
        };
        self.collector.store_in(&mut report);
        ValidatedDataset { examples: self.examples, report }
    }
}
