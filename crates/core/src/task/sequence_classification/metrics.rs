//! Metrics of a single-label classifier: accuracy, macro F1, metrics per class, confusion matrix.

use crate::task::calibration;
use crate::task::confidence::{self, Interval};
use crate::task::metrics::{PerClass, TaskMetrics, argmax, macro_f1, ratio_or_zero};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Metrics of a single-label classifier.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClassificationMetrics {
    pub examples: usize,
    /// Mean cross entropy, without temperature.
    pub loss: f64,
    pub accuracy: f64,
    /// Mean F1 of the classes that occur.
    pub macro_f1: f64,
    #[serde(skip)]
    confusion: Confusion,
}

impl ClassificationMetrics {
    /// From logits `(examples, classes)`.
    pub fn new(logits: &[f32], class_count: usize, classes: &[u32], labels: &[String]) -> Self {
        let confusion = Confusion::new(logits, class_count, classes);
        Self {
            examples: classes.len(),
            loss: calibration::cross_entropy(logits, class_count, classes, 1.0),
            accuracy: confusion.accuracy(),
            macro_f1: macro_f1(&confusion.per_class(labels)),
            confusion,
        }
    }
}

impl TaskMetrics for ClassificationMetrics {
    fn loss(&self) -> f64 {
        self.loss
    }

    fn to_json(&self) -> Value {
        json!(self)
    }

    fn intervals(&self) -> Vec<(&'static str, Option<Interval>)> {
        vec![("accuracy", confidence::proportion(self.accuracy, self.examples))]
    }

    fn add_details(&self, labels: &[String], report: &mut Value) {
        report["per_class"] = json!(self.confusion.per_class(labels));
        match self.confusion.matrix() {
            Some(matrix) => report["confusion_matrix"] = json!(matrix),
            None => report["confused"] = json!(self.confusion.most_confused(labels)),
        }
    }
}

/// Confusion matrix, sparse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confusion {
    class_count: usize,
    /// Examples by true and predicted class.
    counts: BTreeMap<(u32, u32), usize>,
}

/// Examples of one class that were predicted as another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConfusedPair {
    pub label: String,
    pub predicted: String,
    pub examples: usize,
}

/// With more classes the report lists the most confused pairs instead of the matrix.
const MAX_MATRIX_CLASSES: usize = 256;
const MAX_CONFUSED_PAIRS: usize = 1000;

impl Confusion {
    /// From `(examples, classes)` logits.
    pub fn new(logits: &[f32], classes: usize, targets: &[u32]) -> Self {
        let mut counts = BTreeMap::new();
        for (row, target) in logits.chunks_exact(classes).zip(targets) {
            *counts.entry((*target, argmax(row) as u32)).or_insert(0) += 1;
        }
        Self { class_count: classes, counts }
    }

    pub fn accuracy(&self) -> f64 {
        let correct = self.counts.iter().filter(|((target, predicted), _)| target == predicted);
        ratio_or_zero(correct.map(|(_, count)| count).sum(), self.counts.values().sum())
    }

    /// Metrics per class, in the order of the labels.
    pub fn per_class(&self, labels: &[String]) -> Vec<PerClass> {
        let [mut correct, mut support, mut predicted] = [(); 3].map(|()| vec![0; self.class_count]);
        for ((target, answer), count) in &self.counts {
            support[*target as usize] += count;
            predicted[*answer as usize] += count;
            if target == answer {
                correct[*target as usize] += count;
            }
        }
        let class_metrics =
            |(class, label): (usize, &String)| PerClass::new(label, correct[class], predicted[class], support[class]);
        labels.iter().enumerate().map(class_metrics).collect()
    }

    /// `matrix[true class][predicted class]`; `None` with too many classes.
    pub fn matrix(&self) -> Option<Vec<Vec<usize>>> {
        let mut matrix =
            (self.class_count <= MAX_MATRIX_CLASSES).then(|| vec![vec![0; self.class_count]; self.class_count])?;
        for ((target, predicted), count) in &self.counts {
            matrix[*target as usize][*predicted as usize] = *count;
        }
        Some(matrix)
    }

    /// Pairs of different classes with the most examples.
    pub fn most_confused(&self, labels: &[String]) -> Vec<ConfusedPair> {
        let mut pairs: Vec<_> = self.counts.iter().filter(|((target, predicted), _)| target != predicted).collect();
        pairs.sort_by_key(|(pair, count)| (std::cmp::Reverse(**count), **pair));
        let name = |class: u32| labels.get(class as usize).cloned().unwrap_or_default();
        let confused_pair = |((target, predicted), count): (&(u32, u32), &usize)| ConfusedPair {
            label: name(*target),
            predicted: name(*predicted),
            examples: *count,
        };
        pairs.into_iter().take(MAX_CONFUSED_PAIRS).map(confused_pair).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_match_a_worked_example() {
        // True classes 0 0 1 1 2, predicted 0 1 1 1 0; computed by hand from scikit-learn's definitions.
        let logits = [1., 0., 0., 0., 1., 0., 0., 1., 0., 0., 1., 0., 1., 0., 0.];
        let confusion = Confusion::new(&logits, 3, &[0, 0, 1, 1, 2]);
        let labels: Vec<String> = ["a", "b", "c"].map(String::from).to_vec();
        let per_class = confusion.per_class(&labels);
        assert_eq!(confusion.accuracy(), 0.6);
        assert_eq!((per_class[0].precision, per_class[0].recall, per_class[0].f1), (0.5, 0.5, 0.5));
        assert_eq!((per_class[1].precision, per_class[1].recall, per_class[1].f1), (2.0 / 3.0, 1.0, 0.8));
        assert_eq!((per_class[2].precision, per_class[2].recall, per_class[2].f1), (0.0, 0.0, 0.0));
        assert!((macro_f1(&per_class) - 1.3 / 3.0).abs() < 1e-12);
        assert_eq!(confusion.matrix().unwrap(), [[1, 1, 0], [0, 2, 0], [1, 0, 0]]);
        let pair = |label: &str, predicted: &str| ConfusedPair {
            label: label.to_string(),
            predicted: predicted.to_string(),
            examples: 1,
        };
        assert_eq!(confusion.most_confused(&labels), [pair("a", "b"), pair("c", "a")]);
    }

    #[test]
    fn more_classes_than_the_limit_have_no_confusion_matrix() {
        let classes = 5000;
        let mut logits = vec![0.0; 2 * classes];
        (logits[7], logits[classes + 4000]) = (1.0, 1.0);
        let confusion = Confusion::new(&logits, classes, &[7, 8]);
        assert!(confusion.matrix().is_none());
        let labels: Vec<String> = (0..classes).map(|class| format!("l{class}")).collect();
        let (confused, per_class) = (confusion.most_confused(&labels), confusion.per_class(&labels));
        assert_eq!((confused.len(), confused[0].label.as_str(), confused[0].predicted.as_str()), (1, "l8", "l4000"));
        assert_eq!((per_class.len(), per_class[7].f1, confusion.accuracy()), (classes, 1.0, 0.5));
    }
}
