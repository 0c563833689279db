//! Figures of a classifier: accuracy, per-class precision, recall and F1, the confusion matrix.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The first largest logit.
pub fn argmax(logits: &[f32]) -> usize {
    logits.iter().enumerate().fold(0, |best, (index, logit)| if *logit > logits[best] { index } else { best })
}

/// What a split says of a classifier.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Classification {
    pub examples: usize,
    /// Mean cross entropy, without temperature.
    pub loss: f64,
    pub accuracy: f64,
    /// The mean of the classes' F1, over the classes that occur.
    pub macro_f1: f64,
}

/// One class's share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PerClass {
    pub label: String,
    pub precision: f64,
    pub recall: f64,
    pub f1: f64,
    /// Examples of this class.
    pub support: usize,
}

/// Counts: `counts[true class][predicted class]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confusion {
    pub counts: Vec<Vec<usize>>,
}

impl Confusion {
    /// From `(examples, classes)` logits.
    pub fn new(logits: &[f32], classes: usize, targets: &[u32]) -> Self {
        let mut counts = vec![vec![0; classes]; classes];
        for (row, target) in logits.chunks_exact(classes).zip(targets) {
            counts[*target as usize][argmax(row)] += 1;
        }
        Self { counts }
    }

    pub fn accuracy(&self) -> f64 {
        let right: usize = (0..self.counts.len()).map(|class| self.counts[class][class]).sum();
        ratio(right, self.counts.iter().flatten().sum())
    }

    /// In the order of the labels.
    pub fn per_class(&self, labels: &[String]) -> Vec<PerClass> {
        let one = |(class, label): (usize, &String)| {
            let right = self.counts[class][class];
            let support = self.counts[class].iter().sum();
            let predicted = self.counts.iter().map(|row| row[class]).sum();
            let (precision, recall) = (ratio(right, predicted), ratio(right, support));
            let f1 = ratio(2 * right, predicted + support);
            PerClass { label: label.clone(), precision, recall, f1, support }
        };
        labels.iter().enumerate().map(one).collect()
    }

    pub fn macro_f1(&self, labels: &[String]) -> f64 {
        let f1: Vec<f64> = self.per_class(labels).iter().filter(|one| one.support > 0).map(|one| one.f1).collect();
        f1.iter().sum::<f64>() / f1.len().max(1) as f64
    }
}

/// 0 of 0 is 0, as scikit-learn has it.
pub(super) fn ratio(part: usize, whole: usize) -> f64 {
    match whole {
        0 => 0.0,
        whole => part as f64 / whole as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_agree_with_a_worked_example() {
        // True classes 0 0 1 1 2, predicted 0 1 1 1 0; worked out by hand as scikit-learn defines them.
        let logits = [1., 0., 0., 0., 1., 0., 0., 1., 0., 0., 1., 0., 1., 0., 0.];
        let confusion = Confusion::new(&logits, 3, &[0, 0, 1, 1, 2]);
        let labels: Vec<String> = ["a", "b", "c"].map(String::from).to_vec();
        let per_class = confusion.per_class(&labels);
        assert_eq!(confusion.accuracy(), 0.6);
        assert_eq!((per_class[0].precision, per_class[0].recall, per_class[0].f1), (0.5, 0.5, 0.5));
        assert_eq!((per_class[1].precision, per_class[1].recall, per_class[1].f1), (2.0 / 3.0, 1.0, 0.8));
        assert_eq!((per_class[2].precision, per_class[2].recall, per_class[2].f1), (0.0, 0.0, 0.0));
        assert!((confusion.macro_f1(&labels) - 1.3 / 3.0).abs() < 1e-12);
    }
}
