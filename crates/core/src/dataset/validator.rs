//! The rules: which rows become examples, what is wrong with the others, and what is worth a warning.
//!
//! Does not know the file's format.

use super::diagnostics::{self, Diagnostic, DiagnosticCollector, quote};
use super::duplicates::{Duplicate, DuplicateIndex};
use super::histogram::LengthCounter;
use super::normalize::normalize_row;
use super::row::{ParsedRow, RowFields};
use super::{CountTokens, LabelCount, Limits, OnBadRows, Report, ValidatedDataset};
use crate::error::{Error, Result};
use crate::task::{Example, RowSchema};
use std::collections::HashMap;
use std::ops::ControlFlow;

pub(super) struct RowValidator<'a> {
    on_bad_rows: OnBadRows,
    token_counter: &'a dyn CountTokens,
    limits: &'a Limits,
    collector: DiagnosticCollector,
    rows: u64,
    examples: Vec<Example>,
    schema: RowSchema,
    labels: LabelTable,
    /// What rows teach, where that is not one label.
    target_keys: LabelTable,
    duplicates: DuplicateIndex,
    token_lengths: LengthCounter,
}

/// Every label by name, with its number in the order of appearance.
#[derive(Default)]
struct LabelTable {
    index_by_label: HashMap<String, usize>,
    stats: Vec<LabelStats>,
}

struct LabelStats {
    label: String,
    count: u64,
    first_line: u64,
}

impl<'a> RowValidator<'a> {
    pub fn new(
        schema: RowSchema,
        on_bad_rows: OnBadRows,
        token_counter: &'a dyn CountTokens,
        limits: &'a Limits,
    ) -> Self {
        Self {
            on_bad_rows,
            token_counter,
            limits,
            collector: DiagnosticCollector::default(),
            rows: 0,
            examples: Vec::new(),
            schema,
            labels: LabelTable::default(),
            target_keys: LabelTable::default(),
            duplicates: DuplicateIndex::default(),
            token_lengths: LengthCounter::default(),
        }
    }

    /// Refuses the whole file for one reason.
    pub fn reject_file(mut self, line: Option<u64>, diagnostic: Diagnostic) -> ValidatedDataset {
        self.collector.push_error(line, diagnostic);
        self.into_validated()
    }

    /// Judges the next row; breaks when there is no point in reading on.
    pub fn push(&mut self, row: ParsedRow<'_>) -> Result<ControlFlow<()>> {
        if self.rows == self.limits.max_rows {
            let message =
                format!("the file has more than the {} rows that this server takes: send fewer", self.limits.max_rows);
            self.collector.push_error(None, Diagnostic::new(diagnostics::TOO_MANY_ROWS, message));
            return Ok(ControlFlow::Break(()));
        }
        self.rows += 1;
        let line = row.line;
        match row.fields.and_then(normalize_row) {
            Ok((fields, trimmed_fields)) => self.push_valid(line, &fields, &trimmed_fields)?,
            Err(diagnostics) => {
                diagnostics.into_iter().for_each(|flaw| self.collector.push_bad_row(line, flaw, self.on_bad_rows));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn push_valid(&mut self, line: u64, fields: &RowFields<'_>, trimmed_fields: &[&str]) -> Result<()> {
        if !trimmed_fields.is_empty() {
            let message = format!("white space around {} was taken off", trimmed_fields.join(" and "));
            self.collector.push_warning(line, Diagnostic::new(diagnostics::WHITE_SPACE, message));
        }
        if let Some(warning) = &fields.warning {
            self.collector.push_warning(line, warning.clone());
        }
        let (text, second_text) = (fields.text.as_ref(), fields.second_text.as_deref());
        let max_labels = self.limits.max_labels;
        let target_key = fields.target.dedup_key();
        let is_generative = self.schema.default_task().is_generative();
        let label_index = match self.schema {
            // Long texts are told apart as what they are, and not kept.
            _ if is_generative => Some(0),
            RowSchema::Label => self.labels.increment(line, &target_key, max_labels),
            _ => {
                for label in fields.target.unique_labels() {
                    self.labels.increment(line, label, max_labels);
                }
                self.target_keys.increment(line, &target_key, usize::MAX)
            }
        };
        let dedup_text = is_generative.then(|| format!("{target_key}\0{}", second_text.unwrap_or_default()));
        let label_table = if self.schema == RowSchema::Label { &self.labels } else { &self.target_keys };
        if let Some(label_index) = label_index
            && let Some(duplicate) = self.duplicates.insert(line, text, dedup_text.as_deref().or(second_text), label_index)
            // A text may belong to several others.
            && (self.schema != RowSchema::Positive || matches!(duplicate, Duplicate::Exact { .. }))
        {
            self.collector.push_warning(line, label_table.duplicate_diagnostic(duplicate, &target_key, self.schema));
        }
        let example = fields.to_example(line);
        let token_counts = match self.token_counter.count_tokens(&example) {
            Ok(lengths) => lengths,
            Err(Error::Invalid(problem)) => {
                self.collector.push_bad_row(line, Diagnostic::new(problem.code, problem.detail), self.on_bad_rows);
                return Ok(());
            }
            Err(other) => return Err(other),
        };
        self.examples.push(example);
        for token_count in token_counts {
            self.token_lengths.record(token_count.tokens);
            if token_count.truncated {
                let message =
                    format!("the text is cut to {} tokens; a larger `max_length` keeps more", token_count.tokens);
                self.collector.push_warning(line, Diagnostic::new(diagnostics::TRUNCATED, message));
            }
        }
        Ok(())
    }

    /// The verdict on the file as a whole.
    pub fn finish(mut self) -> ValidatedDataset {
        if let Some(diagnostic) = self.file_diagnostic() {
            self.collector.push_error(None, diagnostic);
        }
        // A text of words gives more than one example of each tag.
        let is_token_level = self.is_token_level();
        let single_labels = self.labels.stats.iter().filter(|tally| tally.count == 1 && !is_token_level);
        let label_warnings = single_labels.map(|tally| (tally.first_line, label_seen_once(&tally.label)));
        self.collector.merge_warnings(label_warnings);
        self.into_validated()
    }

    fn is_token_level(&self) -> bool {
        matches!(self.schema, RowSchema::Tags | RowSchema::Entities)
    }

    fn is_numeric(&self) -> bool {
        matches!(self.schema, RowSchema::Value | RowSchema::Score)
    }

    fn file_diagnostic(&self) -> Option<Diagnostic> {
        let (code, message) = match self.labels.stats.as_slice() {
            _ if self.rows == 0 => (diagnostics::NO_USABLE_ROW, "the file has no rows: give it one per example".into()),
            _ if self.examples.is_empty() => {
                (diagnostics::NO_USABLE_ROW, format!("none of the {} rows can be used", self.rows))
            }
            _ if self.is_numeric() && self.target_keys.stats.len() < 2 => (
                diagnostics::TOO_FEW_VALUES,
                format!(
                    "every usable row has the same {}: there is nothing to learn from them",
                    self.schema.target_field()
                ),
            ),
            _ if self.is_numeric() => return None,
            _ if self.schema == RowSchema::Positive && self.examples.len() < 2 => (
                diagnostics::TOO_FEW_EXAMPLES,
                "there is one usable row: texts learn to find their own among those of other rows".to_string(),
            ),
            _ if self.schema.default_task().head_outputs(&[]).is_none() => return None,
            [] => (diagnostics::TOO_FEW_LABELS, "no usable row has a label".to_string()),
            [_] if self.schema == RowSchema::Labels => return None,
            [only_label] => (
                diagnostics::TOO_FEW_LABELS,
                match self.is_token_level() {
                    true => {
                        format!(
                            "every word has the tag {}: there is nothing to learn from them",
                            quote(&only_label.label)
                        )
                    }
                    false => format!(
                        "every usable row has the label {}: a classifier needs at least two labels",
                        quote(&only_label.label)
                    ),
                },
            ),
            labels if labels.len() > self.limits.max_labels => (
                diagnostics::TOO_MANY_LABELS,
                format!(
                    "there are more than the {} labels that this server takes: is `label` read from the right column?",
                    self.limits.max_labels
                ),
            ),
            _ => return None,
        };
        Some(Diagnostic::new(code, message))
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

impl LabelTable {
    /// Counts a label and answers its number. Beyond the limit nothing more is remembered: the file is refused anyway.
    fn increment(&mut self, line: u64, label: &str, limit: usize) -> Option<u32> {
        if self.stats.len() > limit {
            return None;
        }
        let index = match self.index_by_label.get(label) {
            Some(number) => *number,
            None => {
                let number = self.stats.len();
                self.index_by_label.insert(label.to_string(), number);
                self.stats.push(LabelStats { label: label.to_string(), count: 0, first_line: line });
                number
            }
        };
        self.stats[index].count += 1;
        u32::try_from(index).ok()
    }

    fn duplicate_diagnostic(&self, duplicate: Duplicate, label: &str, schema: RowSchema) -> Diagnostic {
        let field = schema.target_field();
        match duplicate {
            Duplicate::Exact { line } => {
                let text = schema.text_field();
                let target_phrase = if field == text { String::new() } else { format!(" and {field}") };
                Diagnostic::new(
                    diagnostics::DUPLICATE,
                    format!("the same {text}{target_phrase} as on line {line}; both are kept"),
                )
            }
            Duplicate::ConflictingLabel { line, label: other } => {
                let other_label = self.stats.get(other as usize).map_or("", |tally| tally.label.as_str());
                let message = format!(
                    "the same text has the {field} {} on line {line} and {} here; both are kept",
                    quote(other_label),
                    quote(label)
                );
                Diagnostic::new(diagnostics::CONFLICTING_LABELS, message)
            }
        }
    }

    /// Most frequent first, then by name.
    fn into_sorted_counts(self) -> Vec<LabelCount> {
        let mut counts: Vec<LabelCount> =
            self.stats.into_iter().map(|tally| LabelCount { label: tally.label, count: tally.count }).collect();
        counts.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.label.cmp(&b.label)));
        counts
    }
}

fn label_seen_once(label: &str) -> Diagnostic {
    let message = format!(
        "the label {} has this one example: it is trained on, and never validated; more examples would help",
        quote(label)
    );
    Diagnostic::new(diagnostics::LABEL_SEEN_ONCE, message)
}
