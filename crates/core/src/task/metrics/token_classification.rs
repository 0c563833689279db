//! Figures of a tagger: precision, recall and F1 of whole entities as seqeval counts them, and the words' accuracy.

use super::classification::{PerClass, argmax, ratio};
use crate::task::calibration;
use crate::task::tagging::{Entity, OUTSIDE, Scheme};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};
use utoipa::ToSchema;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TokenClassification {
    pub examples: usize,
    /// Mean cross entropy over the words that were read, without temperature.
    pub loss: f64,
    /// Of entities of every kind together.
    pub precision: f64,
    pub recall: f64,
    pub f1: f64,
    /// The mean of the kinds' F1.
    pub macro_f1: f64,
    /// The share of words with the right tag.
    pub accuracy: f64,
}

/// Right, predicted, meant.
#[derive(Default, Clone, Copy)]
struct Counts {
    right: usize,
    predicted: usize,
    meant: usize,
}

impl Counts {
    fn per_class(self, label: String) -> PerClass {
        let Self { right, predicted, meant } = self;
        PerClass {
            label,
            precision: ratio(right, predicted),
            recall: ratio(right, meant),
            f1: ratio(2 * right, predicted + meant),
            support: meant,
        }
    }
}

/// `logits` are those of the words that were read, `(words, labels)`, end to end. A word that was cut off was predicted to
/// belong to nothing.
pub fn figures(
    logits: &[f32],
    tags: &[Vec<u32>],
    read: &[usize],
    labels: &[String],
) -> (TokenClassification, Vec<PerClass>) {
    let scheme = Scheme::of(labels);
    let mut kinds: BTreeMap<&str, Counts> = BTreeMap::new();
    let (mut right, mut words, mut rows) = (0, 0, logits.chunks_exact(labels.len()));
    for (tags, read) in tags.iter().zip(read) {
        let meant: Vec<&str> = tags.iter().map(|tag| labels[*tag as usize].as_str()).collect();
        let mut predicted: Vec<&str> = rows.by_ref().take(*read).map(|row| labels[argmax(row)].as_str()).collect();
        predicted.resize(meant.len(), OUTSIDE);
        right += meant.iter().zip(&predicted).filter(|(meant, predicted)| meant == predicted).count();
        words += meant.len();
        count(&scheme.entities(&meant), &scheme.entities(&predicted), &mut kinds);
    }
    let all = kinds.values().fold(Counts::default(), |sum, one| Counts {
        right: sum.right + one.right,
        predicted: sum.predicted + one.predicted,
        meant: sum.meant + one.meant,
    });
    let per_class: Vec<PerClass> = kinds.into_iter().map(|(kind, counts)| counts.per_class(kind.to_string())).collect();
    let micro = all.per_class(String::new());
    let was_read: Vec<u32> = tags.iter().zip(read).flat_map(|(tags, read)| tags[..*read].iter().copied()).collect();
    let figures = TokenClassification {
        examples: tags.len(),
        loss: if was_read.is_empty() { 0.0 } else { calibration::loss(logits, labels.len(), &was_read, 1.0) },
        precision: micro.precision,
        recall: micro.recall,
        f1: micro.f1,
        macro_f1: per_class.iter().map(|one| one.f1).sum::<f64>() / per_class.len().max(1) as f64,
        accuracy: ratio(right, words),
    };
    (figures, per_class)
}

fn count<'a>(meant: &[Entity<'a>], predicted: &[Entity<'a>], kinds: &mut BTreeMap<&'a str, Counts>) {
    let known: HashSet<&Entity> = meant.iter().collect();
    for entity in meant {
        kinds.entry(entity.kind).or_default().meant += 1;
    }
    for entity in predicted {
        let counts = kinds.entry(entity.kind).or_default();
        counts.predicted += 1;
        counts.right += usize::from(known.contains(entity));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_agree_with_seqeval() {
        let labels: Vec<String> = ["B-LOC", "B-PER", "I-LOC", "I-PER", "O"].map(str::to_string).to_vec();
        let number = |tag: &str| labels.iter().position(|label| label == tag).unwrap() as u32;
        let numbers = |tags: &str| tags.split(' ').map(number).collect::<Vec<u32>>();
        let tags = [numbers("B-PER I-PER O B-LOC"), numbers("B-LOC I-LOC O"), numbers("O B-PER O")];
        // The last word of the second text was cut off.
        let predicted = [numbers("B-PER I-PER O B-PER"), numbers("B-LOC O"), numbers("I-LOC B-PER O")];
        let read = [4, 2, 3];
        let row = |tag: &u32| (0..5).map(|label| if label == *tag { 2.0 } else { 0.0 }).collect::<Vec<f32>>();
        let logits: Vec<f32> = predicted.iter().flatten().flat_map(row).collect();
        let (found, per_class) = figures(&logits, &tags, &read, &labels);
        // seqeval's classification_report and accuracy_score, with O for the word that was cut off.
        let expected = [2.0 / 5.0, 0.5, 4.0 / 9.0, 0.4, 0.7];
        let all = [found.precision, found.recall, found.f1, found.macro_f1, found.accuracy];
        assert!(all.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-9), "{all:?}");
        assert_eq!((per_class[0].label.as_str(), per_class[0].f1, per_class[0].support), ("LOC", 0.0, 2));
        assert_eq!((per_class[1].label.as_str(), per_class[1].f1, per_class[1].support), ("PER", 0.8, 2));
    }
}
