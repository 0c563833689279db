//! Losses of embeddings, by the rows of their texts: cosines that follow scores, and texts that find their own.
//!
//! On the host: there are a few rows per example, and a sum over a batch has one order.

use super::Scale;
use crate::task::embedding::length;
use std::collections::{BTreeMap, BTreeSet};

/// What cosines are multiplied by before the softmax.
const SHARPNESS: f64 = 20.0;

/// Examples that are looked at together where the loss is only measured.
const MEASURED: usize = 32;

/// Rows of length 1, and what length they had.
pub struct Units {
    width: usize,
    rows: Vec<f32>,
    lengths: Vec<f64>,
}

impl Units {
    /// Of `count` rows.
    pub fn of(rows: &[f32], count: usize) -> Self {
        let width = rows.len() / count.max(1);
        let lengths: Vec<f64> = rows.chunks_exact(width.max(1)).map(|row| length(row).max(1e-12)).collect();
        let each = rows.chunks_exact(width.max(1)).zip(&lengths);
        let rows = each.flat_map(|(row, length)| row.iter().map(move |value| (f64::from(*value) / length) as f32));
        Self { width, rows: rows.collect(), lengths }
    }

    fn row(&self, row: usize) -> &[f32] {
        &self.rows[row * self.width..][..self.width]
    }

    pub fn cosine(&self, one: usize, other: usize) -> f64 {
        const LANES: usize = 16;
        let (one, other) = (self.row(one), self.row(other));
        let (whole, rest) = one.as_chunks::<LANES>();
        let (other_whole, other_rest) = other.as_chunks::<LANES>();
        let mut sums = [0f32; LANES];
        for (one, other) in whole.iter().zip(other_whole) {
            for lane in 0..LANES {
                sums[lane] += one[lane] * other[lane];
            }
        }
        let rest = rest.iter().zip(other_rest).map(|(one, other)| one * other);
        sums.into_iter().chain(rest).map(f64::from).sum()
    }
}

/// The gradient by rows, as cosines are differentiated.
struct Gradient<'a> {
    units: &'a Units,
    /// By the rows of length 1.
    sums: Vec<f64>,
}

impl<'a> Gradient<'a> {
    fn new(units: &'a Units) -> Self {
        Self { units, sums: vec![0.0; units.rows.len()] }
    }

    /// Adds what a cosine's own gradient gives to both its rows.
    fn add(&mut self, one: usize, other: usize, by: f64) {
        for (to, from) in [(one, other), (other, one)] {
            let sums = &mut self.sums[to * self.units.width..][..self.units.width];
            sums.iter_mut().zip(self.units.row(from)).for_each(|(sum, value)| *sum += by * f64::from(*value));
        }
    }

    /// By the rows as they were.
    fn finish(self) -> Vec<f64> {
        let (units, mut sums) = (self.units, self.sums);
        for ((sums, row), length) in sums
            .chunks_exact_mut(units.width.max(1))
            .zip(units.rows.chunks_exact(units.width.max(1)))
            .zip(&units.lengths)
        {
            let along: f64 = sums.iter().zip(row).map(|(sum, value)| sum * f64::from(*value)).sum();
            sums.iter_mut().zip(row).for_each(|(sum, value)| *sum = (*sum - along * f64::from(*value)) / length);
        }
        sums
    }
}

/// Of pairs of rows with their scores: Σ (cosine − score)², and its gradient.
pub fn scored(rows: &[f32], scores: &[f32], scale: Scale) -> (f64, Vec<f64>) {
    let units = Units::of(rows, 2 * scores.len());
    let mut gradient = Gradient::new(&units);
    let mut loss = 0.0;
    for (pair, score) in scores.iter().enumerate() {
        let difference = units.cosine(2 * pair, 2 * pair + 1) - scale.apply(*score);
        loss += difference * difference;
        gradient.add(2 * pair, 2 * pair + 1, 2.0 * difference);
    }
    (loss, gradient.finish())
}

/// Which texts belong together, by number: either is no fair negative of the other.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Belonging(BTreeMap<u32, BTreeSet<u32>>);

impl Belonging {
    /// Of examples' texts: the first two of each.
    pub fn of(texts: &[Vec<u32>]) -> Self {
        let mut all = Self::default();
        for example in texts {
            for (one, other) in [(example[0], example[1]), (example[1], example[0])] {
                all.0.entry(one).or_default().insert(other);
            }
        }
        all
    }

    fn holds(&self, one: u32, other: u32) -> bool {
        self.0.get(&one).is_some_and(|known| known.contains(&other))
    }
}

/// The texts of some examples by number, equal texts sharing theirs: each text, what belongs to it, and perhaps what does
/// not. Rows are in this order, end to end.
pub struct Ranked<'a> {
    texts: &'a [Vec<u32>],
    /// The row and the text's number of everything that may be found, the positives first.
    candidates: Vec<(usize, u32)>,
    /// The row of each example's text.
    asking: Vec<usize>,
    belonging: &'a Belonging,
}

impl<'a> Ranked<'a> {
    pub fn new(texts: &'a [Vec<u32>], belonging: &'a Belonging) -> Self {
        let (mut positives, mut negatives, mut asking, mut row) = (Vec::new(), Vec::new(), Vec::new(), 0);
        for example in texts {
            asking.push(row);
            positives.push((row + 1, example[1]));
            negatives.extend(example.get(2).map(|negative| (row + 2, *negative)));
            row += example.len();
        }
        Self { texts, candidates: [positives, negatives].concat(), asking, belonging }
    }

    fn rows(&self) -> usize {
        self.texts.iter().map(Vec::len).sum()
    }

    /// Whether a candidate is no fair negative of an example: it belongs to its text, or is its text.
    fn belongs(&self, example: usize, candidate: u32) -> bool {
        let asking = self.texts[example][0];
        candidate == asking || self.belonging.holds(asking, candidate)
    }

    /// Σ −log softmax of each example's positive, and the gradient by the rows.
    pub fn loss(&self, rows: &[f32]) -> (f64, Vec<f64>) {
        let units = Units::of(rows, self.rows());
        let mut gradient = Gradient::new(&units);
        let mut loss = 0.0;
        for (example, asking) in self.asking.iter().enumerate() {
            let own = self.candidates[example].0;
            let fair = self.candidates.iter().filter(|(row, text)| *row == own || !self.belongs(example, *text));
            let logits: Vec<(usize, f64)> =
                fair.map(|(row, _)| (*row, SHARPNESS * units.cosine(*asking, *row))).collect();
            let largest = logits.iter().fold(f64::NEG_INFINITY, |largest, (_, logit)| largest.max(*logit));
            let total: f64 = logits.iter().map(|(_, logit)| (logit - largest).exp()).sum();
            for (row, logit) in &logits {
                let probability = (logit - largest).exp() / total;
                if *row == own {
                    loss += largest + total.ln() - logit;
                }
                gradient.add(*asking, *row, SHARPNESS * (probability - f64::from(u8::from(*row == own))));
            }
        }
        (loss, gradient.finish())
    }

    /// The rank of the first candidate that belongs to each example's text, from 1 on, among all that are not the text
    /// itself; equal texts count once.
    pub fn places(&self, rows: &[f32]) -> Vec<usize> {
        let units = Units::of(rows, self.rows());
        let mut seen = BTreeSet::new();
        let once: Vec<&(usize, u32)> = self.candidates.iter().filter(|(_, text)| seen.insert(*text)).collect();
        let place = |(example, asking): (usize, &usize)| {
            let text = self.texts[example][0];
            let belongs = |candidate: u32| self.belonging.holds(text, candidate);
            let all = once.iter().filter(|(_, candidate)| *candidate != text || belongs(*candidate));
            let cosines: Vec<(bool, f64)> =
                all.map(|(row, candidate)| (belongs(*candidate), units.cosine(*asking, *row))).collect();
            let best = cosines.iter().filter(|(own, _)| *own).fold(f64::NEG_INFINITY, |best, (_, one)| best.max(*one));
            // Others that are as near come first: a model that tells nothing apart finds nothing.
            1 + cosines.iter().filter(|(own, cosine)| !own && *cosine >= best).count()
        };
        self.asking.iter().enumerate().map(place).collect()
    }
}

/// The mean loss of examples that are only measured.
pub fn measured(rows: &[f32], texts: &[Vec<u32>], belonging: &Belonging) -> f64 {
    let count: usize = texts.iter().map(Vec::len).sum();
    let width = rows.len() / count.max(1);
    let (mut loss, mut rest) = (0.0, rows);
    for some in texts.chunks(MEASURED) {
        let (own, after) = rest.split_at(some.iter().map(Vec::len).sum::<usize>() * width);
        loss += Ranked::new(some, belonging).loss(own).0;
        rest = after;
    }
    loss / texts.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_to_a_text_is_no_negative_of_it() {
        // Twice the same text with two that belong to it, and one other.
        let texts = vec![vec![0, 1], vec![0, 2], vec![3, 4, 1]];
        let belonging = Belonging::of(&texts);
        let ranked = Ranked::new(&texts, &belonging);
        let rows = [1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0];
        let (loss, _) = ranked.loss(&rows);
        // The first two have the third's positive against them alone; the third finds its own among four rows.
        let alone = (1.0 + (-20f64).exp()).ln();
        let third = (1.0 + 3.0 * (-20f64).exp()).ln();
        assert!((loss - 2.0 * alone - third).abs() < 1e-9, "{loss}");
        assert_eq!(ranked.places(&rows), [1, 1, 1]);
        let turned = [1.0, 0.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0];
        assert_eq!(ranked.places(&turned), [2, 1, 3]);
    }

    #[test]
    fn what_belongs_together_elsewhere_is_no_negative_either_way_round() {
        // Of all examples the last is left out of the batch: 2 belongs to 0, so neither is the other's negative.
        let all = vec![vec![0, 1], vec![2, 3], vec![2, 0]];
        let belonging = Belonging::of(&all);
        let ranked = Ranked::new(&all[..2], &belonging);
        assert!(ranked.belongs(0, 2) && ranked.belongs(1, 0) && !ranked.belongs(0, 3));
        assert!(Ranked::new(&all[..2], &Belonging::of(&all[..2])).belongs(1, 3));
    }
}
