//! Labels that say that a pair of texts is relevant.

use crate::store::AdapterDescription;

/// Names of the label of relevant pairs, in lower case.
pub const RELEVANT_LABELS: [&str; 12] = [
    "1",
    "relevant",
    "true",
    "yes",
    "positive",
    "pos",
    "entailment",
    "match",
    "duplicate",
    "similar",
    "related",
    "label_1",
];

pub fn is_relevant(label: &str) -> bool {
    RELEVANT_LABELS.contains(&label.to_lowercase().as_str())
}

/// Whether an adapter that was trained for a task with labels says which pairs are relevant.
pub fn scores_relevance(adapter: &AdapterDescription) -> bool {
    let task = adapter.task.type_name();
    let has_relevant_label = || adapter.labels.iter().filter(|label| is_relevant(label)).count() == 1;
    task == "regression" || (task == "sequence_classification" && has_relevant_label())
}
