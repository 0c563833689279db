//! What a validation dataset needs beside being a good dataset. Does not know how the split is used.

use super::ValidatedDataset;
use super::diagnostics::{self, Diagnostic, DiagnosticCollector, quote};
use crate::task::Example;
use std::collections::BTreeSet;

/// The labels of some examples: sorted, each once.
pub fn unique_labels(examples: &[Example]) -> Vec<String> {
    let labels: BTreeSet<&String> = examples.iter().flat_map(|example| example.target.labels()).collect();
    labels.into_iter().cloned().collect()
}

/// Adds an error (`unknown_label`) to the report of a validation dataset for each row whose label the training dataset
/// does not have: the classifier could never be right there. No row is left out for it, also under `skip`.
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
