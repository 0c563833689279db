//! Losses of embeddings, by the rows of their texts: cosines that follow scores, and texts that find their own.
//!
//! On the host: there are a few rows per example, and a sum over a batch has one order.

use super::Scale;
use crate::task::embedding::l2_norm;
use std::collections::{BTreeMap, BTreeSet};

/// What cosines are multiplied by before the softmax.
const SCALE: f64 = 20.0;

/// Examples that are looked at together where the loss is only measured.
const EVAL_BATCH: usize = 32;

/// Rows of length 1, and what length they had.
pub struct NormalizedRows {
    width: usize,
    rows: Vec<f32>,
    norms: Vec<f64>,
}

impl NormalizedRows {
    /// Of `count` rows.
    pub fn new(rows: &[f32], count: usize) -> Self {
        let width = rows.len() / count.max(1);
        let lengths: Vec<f64> = rows.chunks_exact(width.max(1)).map(|row| l2_norm(row).max(1e-12)).collect();
        let rows_with_norms = rows.chunks_exact(width.max(1)).zip(&lengths);
        let rows =
            rows_with_norms.flat_map(|(row, length)| row.iter().map(move |value| (f64::from(*value) / length) as f32));
        Self { width, rows: rows.collect(), norms: lengths }
    }

    fn row(&self, row: usize) -> &[f32] {
        &self.rows[row * self.width..][..self.width]
    }

    pub fn cosine(&self, left: usize, right: usize) -> f64 {
        const LANES: usize = 16;
        let (one, other) = (self.row(left), self.row(right));
        let (chunks, remainder) = one.as_chunks::<LANES>();
        let (right_chunks, right_remainder) = other.as_chunks::<LANES>();
        let mut sums = [0f32; LANES];
        for (one, other) in chunks.iter().zip(right_chunks) {
            for lane in 0..LANES {
                sums[lane] += one[lane] * other[lane];
            }
        }
        let rest = remainder.iter().zip(right_remainder).map(|(one, other)| one * other);
        sums.into_iter().chain(rest).map(f64::from).sum()
    }
}

/// The gradient by rows, as cosines are differentiated.
struct CosineGradient<'a> {
    rows: &'a NormalizedRows,
    /// By the rows of length 1.
    unit_gradient: Vec<f64>,
}

impl<'a> CosineGradient<'a> {
    fn new(units: &'a NormalizedRows) -> Self {
        Self { rows: units, unit_gradient: vec![0.0; units.rows.len()] }
    }

    /// Adds what a cosine's own gradient gives to both its rows.
    fn add_cosine(&mut self, one: usize, other: usize, coefficient: f64) {
        for (to, from) in [(one, other), (other, one)] {
            let sums = &mut self.unit_gradient[to * self.rows.width..][..self.rows.width];
            sums.iter_mut().zip(self.rows.row(from)).for_each(|(sum, value)| *sum += coefficient * f64::from(*value));
        }
    }

    /// By the rows as they were.
    fn into_row_gradient(self) -> Vec<f64> {
        let (units, mut sums) = (self.rows, self.unit_gradient);
        for ((sums, row), length) in
            sums.chunks_exact_mut(units.width.max(1)).zip(units.rows.chunks_exact(units.width.max(1))).zip(&units.norms)
        {
            let projection: f64 = sums.iter().zip(row).map(|(sum, value)| sum * f64::from(*value)).sum();
            sums.iter_mut().zip(row).for_each(|(sum, value)| *sum = (*sum - projection * f64::from(*value)) / length);
        }
        sums
    }
}

/// Of pairs of rows with their scores: Σ (cosine − score)², and its gradient.
pub fn cosine_squared_error(rows: &[f32], scores: &[f32], scale: Scale) -> (f64, Vec<f64>) {
    let normalized = NormalizedRows::new(rows, 2 * scores.len());
    let mut gradient = CosineGradient::new(&normalized);
    let mut loss = 0.0;
    for (pair, score) in scores.iter().enumerate() {
        let difference = normalized.cosine(2 * pair, 2 * pair + 1) - scale.normalize(*score);
        loss += difference * difference;
        gradient.add_cosine(2 * pair, 2 * pair + 1, 2.0 * difference);
    }
    (loss, gradient.into_row_gradient())
}

/// Which texts belong together, by number: either is no fair negative of the other.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PositivePairs(BTreeMap<u32, BTreeSet<u32>>);

impl PositivePairs {
    /// Of examples' texts: the first two of each.
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

/// The texts of some examples by number, equal texts sharing theirs: each text, what belongs to it, and perhaps what does
/// not. Rows are in this order, end to end.
pub struct ContrastiveBatch<'a> {
    texts: &'a [Vec<u32>],
    /// The row and the text's number of everything that may be found, the positives first.
    candidates: Vec<(usize, u32)>,
    /// The row of each example's text.
    anchors: Vec<usize>,
    positives: &'a PositivePairs,
}

impl<'a> ContrastiveBatch<'a> {
    pub fn new(texts: &'a [Vec<u32>], belonging: &'a PositivePairs) -> Self {
        let (mut positives, mut negatives, mut asking, mut row) = (Vec::new(), Vec::new(), Vec::new(), 0);
        for example in texts {
            asking.push(row);
            positives.push((row + 1, example[1]));
            negatives.extend(example.get(2).map(|negative| (row + 2, *negative)));
            row += example.len();
        }
        Self { texts, candidates: [positives, negatives].concat(), anchors: asking, positives: belonging }
    }

    fn row_count(&self) -> usize {
        self.texts.iter().map(Vec::len).sum()
    }

    /// Whether a candidate is no fair negative of an example: it belongs to its text, or is its text.
    fn is_false_negative(&self, example: usize, candidate: u32) -> bool {
        let anchor_id = self.texts[example][0];
        candidate == anchor_id || self.positives.contains(anchor_id, candidate)
    }

    /// Σ −log softmax of each example's positive, and the gradient by the rows.
    pub fn loss(&self, rows: &[f32]) -> (f64, Vec<f64>) {
        let units = NormalizedRows::new(rows, self.row_count());
        let mut gradient = CosineGradient::new(&units);
        let mut loss = 0.0;
        for (example, asking) in self.anchors.iter().enumerate() {
            let positive_row = self.candidates[example].0;
            let kept_candidates = self
                .candidates
                .iter()
                .filter(|(row, text)| *row == positive_row || !self.is_false_negative(example, *text));
            let logits: Vec<(usize, f64)> =
                kept_candidates.map(|(row, _)| (*row, SCALE * units.cosine(*asking, *row))).collect();
            let max_logit = logits.iter().fold(f64::NEG_INFINITY, |largest, (_, logit)| largest.max(*logit));
            let total: f64 = logits.iter().map(|(_, logit)| (logit - max_logit).exp()).sum();
            for (row, logit) in &logits {
                let probability = (logit - max_logit).exp() / total;
                if *row == positive_row {
                    loss += max_logit + total.ln() - logit;
                }
                gradient.add_cosine(*asking, *row, SCALE * (probability - f64::from(u8::from(*row == positive_row))));
            }
        }
        (loss, gradient.into_row_gradient())
    }

    /// The rank of the first candidate that belongs to each example's text, from 1 on, among all that are not the text
    /// itself; equal texts count once.
    pub fn ranks(&self, rows: &[f32]) -> Vec<usize> {
        let units = NormalizedRows::new(rows, self.row_count());
        let mut seen = BTreeSet::new();
        let unique_candidates: Vec<&(usize, u32)> =
            self.candidates.iter().filter(|(_, text)| seen.insert(*text)).collect();
        let rank = |(example, asking): (usize, &usize)| {
            let text = self.texts[example][0];
            let is_positive = |candidate: u32| self.positives.contains(text, candidate);
            let candidates =
                unique_candidates.iter().filter(|(_, candidate)| *candidate != text || is_positive(*candidate));
            let cosines: Vec<(bool, f64)> =
                candidates.map(|(row, candidate)| (is_positive(*candidate), units.cosine(*asking, *row))).collect();
            let best_positive =
                cosines.iter().filter(|(own, _)| *own).fold(f64::NEG_INFINITY, |best, (_, one)| best.max(*one));
            // Others that are as near come first: a model that tells nothing apart finds nothing.
            1 + cosines.iter().filter(|(own, cosine)| !own && *cosine >= best_positive).count()
        };
        self.anchors.iter().enumerate().map(rank).collect()
    }
}

/// The mean loss of examples that are only measured.
pub fn eval_loss(rows: &[f32], texts: &[Vec<u32>], belonging: &PositivePairs) -> f64 {
    let count: usize = texts.iter().map(Vec::len).sum();
    let width = rows.len() / count.max(1);
    let (mut loss, mut remaining_rows) = (0.0, rows);
    for batch in texts.chunks(EVAL_BATCH) {
        let (batch_rows, following_rows) = remaining_rows.split_at(batch.iter().map(Vec::len).sum::<usize>() * width);
        loss += ContrastiveBatch::new(batch, belonging).loss(batch_rows).0;
        remaining_rows = following_rows;
    }
    loss / texts.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positives_of_a_text_are_not_its_negatives() {
        // Twice the same text with two that belong to it, and one other.
        let texts = vec![vec![0, 1], vec![0, 2], vec![3, 4, 1]];
        let belonging = PositivePairs::new(&texts);
        let ranked = ContrastiveBatch::new(&texts, &belonging);
        let rows = [1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0];
        let (loss, _) = ranked.loss(&rows);
        // The first two have the third's positive against them alone; the third finds its own among four rows.
        let alone = (1.0 + (-20f64).exp()).ln();
        let third = (1.0 + 3.0 * (-20f64).exp()).ln();
        assert!((loss - 2.0 * alone - third).abs() < 1e-9, "{loss}");
        assert_eq!(ranked.ranks(&rows), [1, 1, 1]);
        let swapped = [1.0, 0.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0];
        assert_eq!(ranked.ranks(&swapped), [2, 1, 3]);
    }

    #[test]
    fn pairs_outside_the_batch_are_not_negatives_in_either_direction() {
        // Of all examples the last is left out of the batch: 2 belongs to 0, so neither is the other's negative.
        let examples = vec![vec![0, 1], vec![2, 3], vec![2, 0]];
        let belonging = PositivePairs::new(&examples);
        let ranked = ContrastiveBatch::new(&examples[..2], &belonging);
        assert!(ranked.is_false_negative(0, 2) && ranked.is_false_negative(1, 0) && !ranked.is_false_negative(0, 3));
        assert!(ContrastiveBatch::new(&examples[..2], &PositivePairs::new(&examples[..2])).is_false_negative(1, 3));
    }
}
