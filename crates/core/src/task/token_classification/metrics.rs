//! Metrics of token classification: precision, recall and F1 of whole entities as in seqeval, and the accuracy per word.

use super::tag_scheme::{Entity, OUTSIDE, TagScheme};
use crate::task::calibration;
use crate::task::confidence::{self, Interval};
use crate::task::metrics::{PerClass, TaskMetrics, argmax, ratio_or_zero};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashSet};

/// Metrics of token classification.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EntityMetrics {
    pub examples: usize,
    /// Mean cross entropy over the words that are not truncated, without temperature.
    pub loss: f64,
    /// Over the entities of all kinds.
    pub precision: f64,
    pub recall: f64,
    pub f1: f64,
    /// Mean F1 of the kinds of entities.
    pub macro_f1: f64,
    /// Share of words with the correct tag.
    pub accuracy: f64,
    #[serde(skip)]
    per_class: Vec<PerClass>,
    #[serde(skip)]
    totals: EntityCounts,
}

#[derive(Debug, Default, Clone, Copy, PartialEq)]
struct EntityCounts {
    correct: usize,
    predicted: usize,
    actual: usize,
}

impl EntityCounts {
    fn to_per_class(self, label: &str) -> PerClass {
        PerClass::new(label, self.correct, self.predicted, self.actual)
    }
}

impl EntityMetrics {
    /// From the logits `(words, labels)` of the words that are not truncated, `word_counts` per example. Truncated words are
    /// predicted as outside of any entity.
    pub fn new(logits: &[f32], tags: &[Vec<u32>], word_counts: &[usize], labels: &[String]) -> Self {
        let scheme = TagScheme::detect(labels);
        let mut counts_by_kind: BTreeMap<&str, EntityCounts> = BTreeMap::new();
        let (mut correct_words, mut words, mut rows) = (0, 0, logits.chunks_exact(labels.len()));
        for (tags, word_count) in tags.iter().zip(word_counts) {
            let actual: Vec<&str> = tags.iter().map(|tag| labels[*tag as usize].as_str()).collect();
            let mut predicted: Vec<&str> =
                rows.by_ref().take(*word_count).map(|row| labels[argmax(row)].as_str()).collect();
            predicted.resize(actual.len(), OUTSIDE);
            correct_words += actual.iter().zip(&predicted).filter(|(actual, predicted)| actual == predicted).count();
            words += actual.len();
            count_entities(&scheme.entities(&actual), &scheme.entities(&predicted), &mut counts_by_kind);
        }
        let totals = counts_by_kind.values().fold(EntityCounts::default(), |sum, one| EntityCounts {
            correct: sum.correct + one.correct,
            predicted: sum.predicted + one.predicted,
            actual: sum.actual + one.actual,
        });
        let per_class: Vec<PerClass> =
            counts_by_kind.into_iter().map(|(kind, counts)| counts.to_per_class(kind)).collect();
        let micro = totals.to_per_class("");
        let read_tags: Vec<u32> =
            tags.iter().zip(word_counts).flat_map(|(tags, read)| tags[..*read].iter().copied()).collect();
        let loss = match read_tags.is_empty() {
            true => 0.0,
            false => calibration::cross_entropy(logits, labels.len(), &read_tags, 1.0),
        };
        Self {
            examples: tags.len(),
            loss,
            precision: micro.precision,
            recall: micro.recall,
            f1: micro.f1,
            macro_f1: per_class.iter().map(|one| one.f1).sum::<f64>() / per_class.len().max(1) as f64,
            accuracy: ratio_or_zero(correct_words, words),
            per_class,
            totals,
        }
    }
}

impl TaskMetrics for EntityMetrics {
    fn loss(&self) -> f64 {
        self.loss
    }

    fn to_json(&self) -> Value {
        json!(self)
    }

    fn intervals(&self) -> Vec<(&'static str, Option<Interval>)> {
        let Self { totals: EntityCounts { correct, predicted, actual }, .. } = self;
        vec![("f1", confidence::f1(*correct, predicted + actual - 2 * correct))]
    }

    fn add_details(&self, _labels: &[String], report: &mut Value) {
        report["per_class"] = json!(self.per_class);
    }
}

fn count_entities<'a>(
    actual: &[Entity<'a>],
    predicted: &[Entity<'a>],
    counts_by_kind: &mut BTreeMap<&'a str, EntityCounts>,
) {
    let actual_set: HashSet<&Entity> = actual.iter().collect();
    for entity in actual {
        counts_by_kind.entry(entity.kind).or_default().actual += 1;
    }
    for entity in predicted {
        let counts = counts_by_kind.entry(entity.kind).or_default();
        counts.predicted += 1;
        counts.correct += usize::from(actual_set.contains(entity));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_match_seqeval() {
        let labels: Vec<String> = ["B-LOC", "B-PER", "I-LOC", "I-PER", "O"].map(str::to_string).to_vec();
        let number = |tag: &str| labels.iter().position(|label| label == tag).unwrap() as u32;
        let numbers = |tags: &str| tags.split(' ').map(number).collect::<Vec<u32>>();
        let tags = [numbers("B-PER I-PER O B-LOC"), numbers("B-LOC I-LOC O"), numbers("O B-PER O")];
        // The last word of the second text is truncated.
        let predicted = [numbers("B-PER I-PER O B-PER"), numbers("B-LOC O"), numbers("I-LOC B-PER O")];
        let read = [4, 2, 3];
        let row = |tag: &u32| (0..5).map(|label| if label == *tag { 2.0 } else { 0.0 }).collect::<Vec<f32>>();
        let logits: Vec<f32> = predicted.iter().flatten().flat_map(row).collect();
        let metrics = EntityMetrics::new(&logits, &tags, &read, &labels);
        let per_class = &metrics.per_class;
        // Computed by seqeval's classification_report and accuracy_score, with O for the truncated word.
        let expected = [2.0 / 5.0, 0.5, 4.0 / 9.0, 0.4, 0.7];
        let values = [metrics.precision, metrics.recall, metrics.f1, metrics.macro_f1, metrics.accuracy];
        assert!(values.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-9), "{values:?}");
        assert_eq!((per_class[0].label.as_str(), per_class[0].f1, per_class[0].support), ("LOC", 0.0, 2));
        assert_eq!((per_class[1].label.as_str(), per_class[1].f1, per_class[1].support), ("PER", 0.8, 2));
    }
}
