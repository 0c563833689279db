//! Contrastive objective of embeddings: each text has to find its positive among those of the batch (multiple negatives ranking,
//! Henderson et al. 2017).

use super::RetrievalMetrics;
use super::cosine::{CosineGradient, NormalizedRows};
use crate::error::Result;
use crate::task::metrics::TaskMetrics;
use crate::task::objective::{
    BatchObjective, LossAndGradient, LossContext, MicroBatch, Objective, ObjectiveContext, gather,
};
use crate::task::{Example, Target};
use std::collections::{BTreeMap, BTreeSet};

/// Factor of the cosines before the softmax.
const SCALE: f64 = 20.0;

/// Examples per batch of the evaluation loss.
const EVAL_BATCH: usize = 32;

/// Pairs of similar texts, by id: neither is a negative of the other.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PositivePairs(BTreeMap<u32, BTreeSet<u32>>);

impl PositivePairs {
    /// The text and the positive of each example.
    pub fn new(texts: &[Vec<u32>]) -> Self {
        let mut pairs = Self::default();
        for example in texts {
            for (one, other) in [(example[0], example[1]), (example[1], example[0])] {
                pairs.0.entry(one).or_default().insert(other);
            }
        }
        pairs
    }

    fn contains(&self, one: u32, other: u32) -> bool {
        self.0.get(&one).is_some_and(|known| known.contains(&other))
    }
}

/// Texts of some examples by id: the text, its positive, and optionally its negative. The rows are in this order, concatenated.
pub struct ContrastiveBatch<'a> {
    texts: &'a [Vec<u32>],
    /// Row and text id of all positives, then of all negatives.
    candidates: Vec<(usize, u32)>,
    /// Row of each example's text.
    anchors: Vec<usize>,
    positives: &'a PositivePairs,
}

impl<'a> ContrastiveBatch<'a> {
    pub fn new(texts: &'a [Vec<u32>], positives: &'a PositivePairs) -> Self {
        let (mut candidates, mut negatives, mut anchors, mut row) = (Vec::new(), Vec::new(), Vec::new(), 0);
        for example in texts {
            anchors.push(row);
            candidates.push((row + 1, example[1]));
            negatives.extend(example.get(2).map(|negative| (row + 2, *negative)));
            row += example.len();
        }
        candidates.extend(negatives);
        Self { texts, candidates, anchors, positives }
    }

    fn row_count(&self) -> usize {
        self.texts.iter().map(Vec::len).sum()
    }

    /// Whether a candidate is not a negative of an example: it is its text, or similar to it.
    fn is_false_negative(&self, example: usize, candidate: u32) -> bool {
        let anchor_id = self.texts[example][0];
        candidate == anchor_id || self.positives.contains(anchor_id, candidate)
    }

    /// Sum of −log softmax of each example's positive, and the gradient with respect to the rows.
    pub fn loss(&self, rows: &[f32]) -> (f64, Vec<f64>) {
        let units = NormalizedRows::new(rows, self.row_count());
        let mut gradient = CosineGradient::new(&units);
        let mut loss = 0.0;
        for (example, anchor) in self.anchors.iter().enumerate() {
            let positive_row = self.candidates[example].0;
            let kept_candidates = self
                .candidates
                .iter()
                .filter(|(row, text)| *row == positive_row || !self.is_false_negative(example, *text));
            let logits: Vec<(usize, f64)> =
                kept_candidates.map(|(row, _)| (*row, SCALE * units.cosine(*anchor, *row))).collect();
            let max_logit = logits.iter().fold(f64::NEG_INFINITY, |largest, (_, logit)| largest.max(*logit));
            let total: f64 = logits.iter().map(|(_, logit)| (logit - max_logit).exp()).sum();
            for (row, logit) in &logits {
                let probability = (logit - max_logit).exp() / total;
                if *row == positive_row {
                    loss += max_logit + total.ln() - logit;
                }
                gradient.add_cosine(*anchor, *row, SCALE * (probability - f64::from(u8::from(*row == positive_row))));
            }
        }
        (loss, gradient.into_row_gradient())
    }

    /// Rank, from 1 on, of the first candidate that is similar to each example's text, among all candidates but the text
    /// itself; equal texts count once.
    pub fn ranks(&self, rows: &[f32]) -> Vec<usize> {
        let units = NormalizedRows::new(rows, self.row_count());
        let mut seen = BTreeSet::new();
        let unique_candidates: Vec<&(usize, u32)> =
            self.candidates.iter().filter(|(_, text)| seen.insert(*text)).collect();
        let rank = |(example, anchor): (usize, &usize)| {
            let text = self.texts[example][0];
            let is_positive = |candidate: u32| self.positives.contains(text, candidate);
            let candidates =
                unique_candidates.iter().filter(|(_, candidate)| *candidate != text || is_positive(*candidate));
            let cosines: Vec<(bool, f64)> =
                candidates.map(|(row, candidate)| (is_positive(*candidate), units.cosine(*anchor, *row))).collect();
            let best_positive =
                cosines.iter().filter(|(own, _)| *own).fold(f64::NEG_INFINITY, |best, (_, one)| best.max(*one));
            // In a tie the other candidates come first, so equal rows give the worst rank.
            1 + cosines.iter().filter(|(own, cosine)| !own && *cosine >= best_positive).count()
        };
        self.anchors.iter().enumerate().map(rank).collect()
    }
}

/// Mean loss in batches of [`EVAL_BATCH`] examples.
pub fn eval_loss(rows: &[f32], texts: &[Vec<u32>], positives: &PositivePairs) -> f64 {
    let count: usize = texts.iter().map(Vec::len).sum();
    let width = rows.len() / count.max(1);
    let (mut loss, mut remaining_rows) = (0.0, rows);
    for batch in texts.chunks(EVAL_BATCH) {
        let (batch_rows, following_rows) = remaining_rows.split_at(batch.iter().map(Vec::len).sum::<usize>() * width);
        loss += ContrastiveBatch::new(batch, positives).loss(batch_rows).0;
        remaining_rows = following_rows;
    }
    loss / texts.len().max(1) as f64
}

/// Similar texts of each example.
#[derive(Debug, Clone)]
pub struct ContrastiveObjective {
    /// Ids of the text, the positive and optionally the negative.
    texts: Vec<Vec<u32>>,
    /// Pairs of all examples of the job.
    positives: PositivePairs,
}

impl ContrastiveObjective {
    /// # Errors
    /// `Invalid` (`unknown_label`) for an example without a positive.
    pub fn new(context: &ObjectiveContext, task_type: &str) -> Result<Self> {
        let texts = text_ids(context.examples, task_type)?;
        let positives = PositivePairs::new(&texts);
        Ok(Self { texts, positives })
    }
}

/// Ids of the texts of each example; equal texts have the same id.
fn text_ids(examples: &[&Example], task_type: &str) -> Result<Vec<Vec<u32>>> {
    let mut ids = BTreeMap::new();
    let mut id_of = |text: &str| {
        let next = ids.len() as u32;
        *ids.entry(text.to_string()).or_insert(next)
    };
    let mut texts = Vec::with_capacity(examples.len());
    for example in examples {
        let Target::Positive { positive, negative } = &example.target else {
            return Err(example.wrong_target(task_type));
        };
        let texts_of_example = [example.text.as_str(), positive].into_iter().chain(negative.as_deref());
        texts.push(texts_of_example.map(&mut id_of).collect());
    }
    Ok(texts)
}

impl Objective for ContrastiveObjective {
    fn example_count(&self) -> usize {
        self.texts.len()
    }

    fn row_count(&self, example: usize) -> usize {
        self.texts[example].len()
    }

    fn loss(&self, context: &LossContext, batch: &MicroBatch, denominator: f64) -> Result<LossAndGradient> {
        context.host_loss(denominator, |rows| self.batch_loss(rows, batch.examples))
    }

    fn metrics(&self, outputs: &[f32], examples: &[usize], _labels: &[String]) -> Box<dyn TaskMetrics> {
        let texts = gather(&self.texts, examples);
        let ranks = ContrastiveBatch::new(&texts, &self.positives).ranks(outputs);
        Box::new(RetrievalMetrics::new(&ranks, eval_loss(outputs, &texts, &self.positives)))
    }

    fn as_batch_objective(&self) -> Option<&dyn BatchObjective> {
        Some(self)
    }
}

impl BatchObjective for ContrastiveObjective {
    fn batch_loss(&self, rows: &[f32], examples: &[usize]) -> (f64, Vec<f64>) {
        ContrastiveBatch::new(&gather(&self.texts, examples), &self.positives).loss(rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::row_targets::assert_gradient;

    #[test]
    fn positives_of_a_text_are_not_its_negatives() {
        // The same text twice with two positives, and another text.
        let texts = vec![vec![0, 1], vec![0, 2], vec![3, 4, 1]];
        let positives = PositivePairs::new(&texts);
        let ranked = ContrastiveBatch::new(&texts, &positives);
        let rows = [1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0];
        let (loss, _) = ranked.loss(&rows);
        // The first two have the third's positive as their only negative; the third has four candidates.
        let alone = (1.0 + (-20f64).exp()).ln();
        let third = (1.0 + 3.0 * (-20f64).exp()).ln();
        assert!((loss - 2.0 * alone - third).abs() < 1e-9, "{loss}");
        assert_eq!(ranked.ranks(&rows), [1, 1, 1]);
        let swapped = [1.0, 0.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0];
        assert_eq!(ranked.ranks(&swapped), [2, 1, 3]);
    }

    #[test]
    fn pairs_outside_the_batch_are_not_negatives_in_either_direction() {
        // The last example is not in the batch, but makes 0 and 2 similar: neither is the other's negative.
        let examples = vec![vec![0, 1], vec![2, 3], vec![2, 0]];
        let positives = PositivePairs::new(&examples);
        let ranked = ContrastiveBatch::new(&examples[..2], &positives);
        assert!(ranked.is_false_negative(0, 2) && ranked.is_false_negative(1, 0) && !ranked.is_false_negative(0, 3));
        assert!(ContrastiveBatch::new(&examples[..2], &PositivePairs::new(&examples[..2])).is_false_negative(1, 3));
    }

    #[test]
    fn gradients_match_finite_differences() {
        let outputs = [0.5f32, -2.0, 1.5, 0.0, 3.0, -0.5, 2.0, 0.25, -1.0, 0.5];
        let texts = vec![vec![0, 1], vec![2, 3, 4]];
        let positives = PositivePairs::new(&texts);
        assert_gradient(&outputs, 2e-2, |rows| ContrastiveBatch::new(&texts, &positives).loss(rows));
    }
}
