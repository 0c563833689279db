//! Labels of a dataset: their counts, and the comparison of a validation dataset with its training dataset.

use super::diagnostic_collector::DiagnosticCollector;
use super::diagnostics::{self, Diagnostic, quote};
use super::report::{LabelCount, ValidatedDataset};
use crate::task::Example;
use std::collections::{BTreeSet, HashMap};

/// Number of rows by label.
#[derive(Default)]
pub(super) struct LabelTable {
    indices: HashMap<String, usize>,
    stats: Vec<LabelStats>,
}

/// Number of rows with a label, and the first of them.
pub(super) struct LabelStats {
    pub label: String,
    pub count: u64,
    pub first_line: u64,
}

impl LabelTable {
    /// Counts the label of a row.
    pub fn increment(&mut self, line: u64, label: &str) {
        let index = self.indices.get(label).copied().unwrap_or_else(|| {
            let index = self.stats.len();
            self.indices.insert(label.to_string(), index);
            self.stats.push(LabelStats { label: label.to_string(), count: 0, first_line: line });
            index
        });
        self.stats[index].count += 1;
    }

    /// Labels in order of appearance.
    pub fn stats(&self) -> &[LabelStats] {
        &self.stats
    }

    /// Labels by descending count, then by name.
    pub fn into_sorted_counts(self) -> Vec<LabelCount> {
        let mut counts: Vec<LabelCount> =
            self.stats.into_iter().map(|stats| LabelCount { label: stats.label, count: stats.count }).collect();
        counts.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.label.cmp(&b.label)));
        counts
    }
}

impl LabelStats {
    /// Warning about this label, which has far fewer rows than the most frequent one.
    pub fn rare_label_warning(&self, most_frequent: &Self) -> Diagnostic {
        let message = format!(
            "the label {} has {} rows, and {} has {}: the best epoch is chosen by macro F1; `\"class_weights\": \"balanced\"` in the task \
             gives rare labels more weight, and `threshold` in a prediction finds more of them",
            quote(&self.label),
            self.count,
            quote(&most_frequent.label),
            most_frequent.count
        );
        Diagnostic::new(diagnostics::RARE_LABEL, message)
    }

    pub fn seen_once_warning(&self) -> Diagnostic {
        let message = format!(
            "the label {} has this one example: it is trained on, and never validated; more examples would help",
            quote(&self.label)
        );
        Diagnostic::new(diagnostics::LABEL_SEEN_ONCE, message)
    }
}

/// Distinct labels of the examples, sorted.
pub fn unique_labels(examples: &[Example]) -> Vec<String> {
    let labels: BTreeSet<&String> = examples.iter().flat_map(|example| example.target.labels()).collect();
    labels.into_iter().cloned().collect()
}

/// Adds an error (`unknown_label`) to the report of a validation dataset for each row whose label does not occur in the
/// training dataset, because the model cannot predict that label. Such rows are errors under `skip`, too.
pub fn check_validation_labels(validation: &mut ValidatedDataset, training_labels: &[String]) {
    let known_labels: BTreeSet<&str> = training_labels.iter().map(String::as_str).collect();
    let mut collector = DiagnosticCollector::take_from(&mut validation.report);
    let unknown_labels = validation.examples.iter().filter_map(|example| {
        let label = example.target.labels().iter().find(|label| !known_labels.contains(label.as_str()))?;
        Some((example, label))
    });
    collector.merge_errors(unknown_labels.map(|(example, label)| {
        let message = format!(
            "no row of the training dataset has the label {}: correct it, or add such rows there",
            quote(label)
        );
        (example.line, Diagnostic::new(diagnostics::UNKNOWN_LABEL, message))
    }));
    collector.store_in(&mut validation.report);
}
