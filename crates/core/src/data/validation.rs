//! What a validation dataset needs beside being a good dataset. Does not know how the split is used.

use super::Checked;
use super::findings::{self, Findings, Flaw, quoted};
use crate::task::Example;
use std::collections::BTreeSet;

/// The labels of some examples: sorted, each once.
pub fn labels(examples: &[Example]) -> Vec<String> {
    let labels: BTreeSet<&String> = examples.iter().flat_map(|example| example.target.labels()).collect();
    labels.into_iter().cloned().collect()
}

/// Adds an error (`unknown_label`) to the report of a validation dataset for each row whose label the training dataset
/// does not have: the classifier could never be right there. No row is left out for it, also under `skip`.
pub fn check_validation(validation: &mut Checked, training_labels: &[String]) {
    let known: BTreeSet<&str> = training_labels.iter().map(String::as_str).collect();
    let mut found = Findings::of(&mut validation.report);
    let unknown = validation.examples.iter().filter_map(|example| {
        let label = example.target.labels().iter().find(|label| !known.contains(label.as_str()))?;
        Some((example, label))
    });
    found.late_errors(unknown.map(|(example, label)| {
        let message = format!(
            "no row of the training dataset has the label {}: correct it, or add such rows there",
            quoted(label)
        );
        (example.line, Flaw::new(findings::UNKNOWN_LABEL, message))
    }));
    found.write_to(&mut validation.report);
}
