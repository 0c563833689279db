//! Losses over a vocabulary: the words' numbers are there for a slice of the rows at a time, so that memory never grows with
//! tokens × vocabulary.
//!
//! Knows nothing of where rows and words come from.

use super::metrics::{self, language::JUDGED};
use crate::error::Result;
use crate::model::Base;
use espalier_tensor::{Buffer, Packed, Rows, Tape, Tensor};
use std::ops::Range;
use std::sync::Arc;

/// Rows whose vocabularies are in memory at once: enough that the words are read from memory seldom.
const SLICE: usize = 128;

/// What finding words costs, and how it depends on the rows that the words are compared with.
pub struct Found {
    /// −log softmax(words·row)[word], by row.
    pub losses: Vec<f64>,
    /// The gradient of each by its row, `(rows, hidden)`.
    gradients: Tensor,
}

impl Found {
    pub fn new(base: &Base, tape: &Tape, rows: Rows, words: &[u32]) -> Result<Self> {
        let (kernels, map, all) = (base.kernels().as_ref(), base.words_map()?, tape.rows(rows)?);
        let (mut losses, mut gradients) = (Vec::with_capacity(words.len()), Vec::new());
        for range in slices(all.rows()) {
            let logits = kernels.linear(&kernels.narrow(&all, range.clone())?, map)?;
            let found = kernels.cross_entropy(&logits, &words[range])?;
            losses.extend(found.losses);
            gradients.extend(kernels.download(&kernels.linear_backward(&found.gradient, map, None)?)?.values);
        }
        Ok(Self { losses, gradients: Tensor::new([all.rows(), all.width()], gradients) })
    }

    /// The gradient of a sum of losses, each times its factor.
    pub fn weighed(mut self, factors: impl Iterator<Item = f64>) -> Tensor {
        let width = self.gradients.shape[1].max(1);
        for (row, factor) in self.gradients.values.chunks_exact_mut(width).zip(factors) {
            row.iter_mut().for_each(|value| *value *= factor as f32);
        }
        self.gradients
    }
}

/// How the base's own head judges these words, `(words, JUDGED)`.
pub fn judge(base: &Base, tape: &mut Tape, rows: Rows, words: &[u32]) -> Result<Vec<f32>> {
    let kernels = Arc::clone(base.kernels());
    let mut judged = Vec::with_capacity(words.len() * JUDGED);
    each(base, tape, rows, |logits, range| {
        let words = &words[range];
        let losses = kernels.cross_entropy(logits, words)?.losses;
        let logits = kernels.download(logits)?.values;
        let rows = logits.chunks_exact(base.info().vocabulary_size).zip(words).zip(losses);
        judged.extend(rows.flat_map(|((row, word), loss)| {
            [loss as f32, f32::from(u8::from(metrics::argmax(row) == *word as usize))]
        }));
        Ok(())
    })?;
    Ok(judged)
}

/// Hands over every slice's numbers `(rows, vocabulary)` of rows that the words are compared with.
pub fn each(
    base: &Base,
    tape: &mut Tape,
    rows: Rows,
    mut take: impl FnMut(&Buffer, Range<usize>) -> Result<()>,
) -> Result<()> {
    let (all, mark) = (tape.rows(rows)?, tape.mark());
    for range in slices(all.rows()) {
        let layout = Arc::new(Packed::single_rows(range.len()));
        let block = tape.constant(base.kernels().narrow(&all, range.clone())?, layout);
        let logits = tape.linear(block, base.words_map()?)?;
        take(&tape.rows(logits)?, range)?;
        tape.release(mark, rows);
    }
    Ok(())
}

fn slices(rows: usize) -> impl Iterator<Item = Range<usize>> {
    (0..rows).step_by(SLICE).map(move |start| start..rows.min(start + SLICE))
}
