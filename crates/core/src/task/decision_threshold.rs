//! Thresholds of a label's probability, for two classes and for sets of labels: those that a validation split suggests, and those of a
//! request.

use super::calibration;
use super::row_targets::RowTargets;
use super::threshold_smoothing::smoothed_threshold;
use crate::error::{Error, Result};
use serde::Serialize;
use std::collections::BTreeMap;

/// Threshold by label.
pub type Thresholds = BTreeMap<String, f32>;

/// Probability from which a label is predicted.
#[derive(Debug, Clone, PartialEq)]
pub enum Threshold {
    /// As stored with the adapter.
    Suggested,
    /// Of each label; with two classes, of the one that the adapter has a threshold for.
    Value(f32),
    PerLabel(Thresholds),
}

/// Suggested threshold of a label, with the metrics of its decisions on the validation split.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LabelThreshold {
    /// Index of the label.
    #[serde(skip)]
    pub label: usize,
    /// Probability with the best F1 on smoothed log-odds.
    pub threshold: f32,
    /// F1 at the threshold.
    pub f1: f64,
    /// Area under the curve of precision over recall, as scikit-learn's `average_precision_score`.
    pub average_precision: f64,
    /// Validation examples with the label.
    pub support: usize,
}

/// With fewer validation examples no threshold is suggested.
const MIN_EXAMPLES: usize = 10;

/// Thresholds of the labels that some validation examples have and some have not: of the rarer of two classes, or of each label of a
/// set. `outputs` are the logits of the validation examples.
pub fn suggest(
    training: &RowTargets,
    validation: &RowTargets,
    outputs: &[f32],
    temperature: f32,
) -> Vec<LabelThreshold> {
    match validation {
        RowTargets::Classes { classes, class_count: 2, .. } => {
            let positive = rarer_class(training);
            let probability = |row: &[f32]| calibration::softmax(row, temperature)[positive] as f32;
            let scores = outputs.chunks_exact(2).map(probability);
            let is_positive = classes.iter().map(|class| *class as usize == positive);
            label_threshold(positive, scores.zip(is_positive).collect()).into_iter().collect()
        }
        RowTargets::LabelSets { sets, label_count, .. } => {
            let of_label = |label: usize| {
                let scores = outputs.chunks_exact(*label_count).map(|row| 1.0 / (1.0 + (-row[label]).exp()));
                let is_positive = sets.iter().map(|set| set.binary_search(&(label as u32)).is_ok());
                label_threshold(label, scores.zip(is_positive).collect())
            };
            (0..*label_count).filter_map(of_label).collect()
        }
        RowTargets::Classes { .. } | RowTargets::Values { .. } => Vec::new(),
    }
}

/// Class with fewer training examples; the second one if both have as many.
fn rarer_class(training: &RowTargets) -> usize {
    let RowTargets::Classes { classes, .. } = training else { return 1 };
    let second = classes.iter().filter(|class| **class == 1).count();
    usize::from(second <= classes.len() - second)
}

fn label_threshold(label: usize, mut decisions: Vec<(f32, bool)>) -> Option<LabelThreshold> {
    let support = decisions.iter().filter(|(_, is_positive)| *is_positive).count();
    if decisions.len() < MIN_EXAMPLES || support == 0 || support == decisions.len() {
        return None;
    }
    decisions.sort_by(|one, other| other.0.total_cmp(&one.0));
    let (mut found, mut predicted, mut average_precision) = (0usize, 0, 0.0);
    for equal in decisions.chunk_by(|one, other| one.0 == other.0) {
        let new = equal.iter().filter(|(_, is_positive)| *is_positive).count();
        predicted += equal.len();
        found += new;
        average_precision += new as f64 / support as f64 * found as f64 / predicted as f64;
    }
    let threshold = smoothed_threshold(&decisions, support);
    let predicted = decisions.partition_point(|(probability, _)| *probability >= threshold);
    let found = decisions[..predicted].iter().filter(|(_, is_positive)| *is_positive).count();
    let f1 = 2.0 * found as f64 / (predicted + support) as f64;
    Some(LabelThreshold { label, threshold, f1, average_precision, support })
}

/// Threshold of each label of a set that has one.
///
/// # Errors
/// `Invalid` (`unknown_label`, `no_threshold`).
pub fn resolve_per_label(
    labels: &[String],
    suggested: Option<&Thresholds>,
    requested: &Threshold,
) -> Result<Vec<Option<f32>>> {
    let thresholds = match (requested, suggested) {
        (Threshold::Value(value), _) => return Ok(vec![Some(*value); labels.len()]),
        (Threshold::PerLabel(thresholds), _) => thresholds,
        (Threshold::Suggested, Some(thresholds)) => thresholds,
        (Threshold::Suggested, None) => return Err(no_suggestion()),
    };
    if let Some(unknown) = thresholds.keys().find(|label| !labels.contains(label)) {
        let detail = format!("the adapter has no label {unknown:?}: name one of its labels in \"threshold\"");
        return Err(Error::invalid("unknown_label", detail));
    }
    Ok(labels.iter().map(|label| thresholds.get(label).copied()).collect())
}

/// Threshold of one of two classes.
///
/// # Errors
/// `Invalid` (`unknown_label`, `no_threshold`).
pub fn resolve_binary(
    labels: &[String],
    suggested: Option<&Thresholds>,
    requested: &Threshold,
) -> Result<Vec<Option<f32>>> {
    if labels.len() != 2 {
        let detail = format!(
            "the adapter chooses one of {} labels: a \"threshold\" decides between two, leave it out",
            labels.len()
        );
        return Err(Error::invalid("no_threshold", detail));
    }
    let thresholds = match requested {
        Threshold::PerLabel(thresholds) if thresholds.len() != 1 => {
            let detail = "give the \"threshold\" of one of the two labels: the other one is predicted below it";
            return Err(Error::invalid("no_threshold", detail));
        }
        Threshold::Value(value) => match suggested.and_then(|thresholds| thresholds.keys().next()) {
            Some(label) => &Threshold::PerLabel([(label.clone(), *value)].into()),
            None => {
                let detail = format!(
                    "the adapter has no suggested threshold, which would say whose \"threshold\" a number is: name the label, as in \
                     {{\"threshold\": {{{:?}: {value}}}}}",
                    labels[1]
                );
                return Err(Error::invalid("no_threshold", detail));
            }
        },
        Threshold::Suggested | Threshold::PerLabel(_) => requested,
    };
    resolve_per_label(labels, suggested, thresholds)
}

fn no_suggestion() -> Error {
    let detail = "the adapter has no suggested threshold, because it had too few validation examples: give a number";
    Error::invalid("no_threshold", detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::label_weights::LabelWeights;

    fn classes(classes: &[u32]) -> RowTargets {
        RowTargets::Classes { classes: classes.to_vec(), class_count: 2, weights: LabelWeights::default() }
    }

    /// Logits whose second class has these probabilities.
    fn logits(probabilities: &[f32]) -> Vec<f32> {
        probabilities.iter().flat_map(|probability| [0.0, (probability / (1.0 - probability)).ln()]).collect()
    }

    #[test]
    fn average_precision_and_threshold_match_scikit_learn() {
        // average_precision_score([0, 0, 1, 1, 0, 0, 0, 0, 0, 0], scores) of sklearn.metrics.
        let scores = [0.1, 0.4, 0.35, 0.8, 0.05, 0.02, 0.03, 0.04, 0.06, 0.07];
        let targets = classes(&[0, 0, 1, 1, 0, 0, 0, 0, 0, 0]);
        let found = suggest(&targets, &targets, &logits(&scores), 1.0);
        assert_eq!((found.len(), found[0].label, found[0].support), (1, 1, 2));
        assert!((found[0].average_precision - 0.833_333).abs() < 1e-5, "{found:?}");
        assert!((found[0].f1 - 0.8).abs() < 1e-9, "two of three predicted");
        assert!(found[0].threshold > 0.1 && found[0].threshold < 0.35, "{found:?}");
    }

    #[test]
    fn a_rare_class_has_a_low_threshold_and_few_examples_have_none() {
        let mut scores = vec![0.01; 20];
        scores[7] = 0.2;
        let mut targets = vec![0; 20];
        targets[7] = 1;
        let found = suggest(&classes(&targets), &classes(&targets), &logits(&scores), 1.0);
        assert!(found[0].threshold > 0.03 && found[0].threshold < 0.1 && found[0].f1 == 1.0, "{found:?}");
        assert!(suggest(&classes(&targets), &classes(&targets[3..12]), &logits(&scores[3..12]), 1.0).is_empty());
        assert!(
            suggest(&classes(&targets), &classes(&[0; 20]), &logits(&scores), 1.0).is_empty(),
            "none has the label"
        );
    }

    #[test]
    fn each_label_of_a_set_has_its_own_threshold() {
        let sets = (0..12).map(|row| if row < 3 { vec![1] } else { vec![] }).collect();
        let outputs: Vec<f32> = (0..12).flat_map(|row| [-3.0, if row < 3 { -1.0 } else { -5.0 }]).collect();
        let targets = RowTargets::LabelSets { sets, label_count: 2, weights: LabelWeights::default() };
        let found = suggest(&targets, &targets, &outputs, 1.0);
        assert_eq!((found.len(), found[0].label, found[0].f1, found[0].average_precision), (1, 1, 1.0, 1.0));
    }

    #[test]
    fn thresholds_of_a_request_are_resolved_by_label() {
        let labels: Vec<String> = ["no", "yes"].map(String::from).to_vec();
        let suggested = Thresholds::from([("yes".to_string(), 0.2)]);
        let resolve = |requested, suggested| resolve_binary(&labels, suggested, &requested);
        let per_label = |label: &str, value| Threshold::PerLabel([(label.to_string(), value)].into());
        assert_eq!(resolve(Threshold::Suggested, Some(&suggested)).unwrap(), [None, Some(0.2)]);
        assert_eq!(resolve(Threshold::Value(0.7), Some(&suggested)).unwrap(), [None, Some(0.7)]);
        assert_eq!(resolve(per_label("no", 0.9), None).unwrap(), [Some(0.9), None]);
        for (requested, code) in [
            (Threshold::Suggested, "no_threshold"),
            (Threshold::Value(0.5), "no_threshold"),
            (Threshold::PerLabel(Thresholds::new()), "no_threshold"),
            (per_label("maybe", 0.5), "unknown_label"),
        ] {
            assert_eq!(resolve(requested, None).unwrap_err().code(), code);
        }
        let three = ["a", "b", "c"].map(String::from);
        assert_eq!(resolve_binary(&three, None, &Threshold::Value(0.5)).unwrap_err().code(), "no_threshold");
        assert_eq!(resolve_per_label(&three, None, &Threshold::Value(0.3)).unwrap(), [Some(0.3); 3]);
    }
}
