//! Losses over a vocabulary: the words' numbers are there for a slice of the rows at a time, so that memory never grows with
//! tokens × vocabulary.
//!
//! Knows nothing of where rows and words come from.

use super::metrics::language::{self, JUDGED};
use crate::compute::{Buffer, Packed, Rows, Tape, Tensor};
use crate::error::Result;
use crate::model::Base;
use std::ops::Range;
use std::sync::Arc;

/// Rows whose vocabularies are in memory at once: enough that the words are read from memory seldom.
const SLICE: usize = 128;

/// Σ −log softmax(words·row)[word] of rows that the words are compared with `(rows, hidden)`, and its gradient by the rows,
/// divided by `denominator`.
pub fn loss(base: &Base, tape: &Tape, rows: Rows, words: &[u32], denominator: f64) -> Result<(f64, Buffer)> {
    let (kernels, map, all) = (base.kernels().as_ref(), base.words_map()?, tape.rows(rows)?);
    let (mut loss, mut gradients) = (0.0, Vec::with_capacity(all.rows() * all.width()));
    for range in slices(all.rows()) {
        let logits = kernels.linear(&kernels.narrow(&all, range.clone())?, map)?;
        let found = kernels.cross_entropy(&logits, &words[range])?;
        loss += found.loss;
        let gradient = kernels.linear_backward(&found.gradient, map, None)?;
        gradients.extend(kernels.download(&kernels.scale(&gradient, 1.0 / denominator)?)?.values);
    }
    let gradient = kernels.upload(&Tensor::new([all.rows(), all.width()], gradients))?;
    Ok((loss, gradient))
}

/// How the base's own head judges these words, `(words, JUDGED)`.
pub fn judge(base: &Base, tape: &mut Tape, rows: Rows, words: &[u32]) -> Result<Vec<f32>> {
    let mut judged = Vec::with_capacity(words.len() * JUDGED);
    each(base, tape, rows, |logits, range| {
        judged.extend(language::judge(logits, base.info().vocabulary_size, &words[range]));
    })?;
    Ok(judged)
}

/// Hands over every slice's numbers `(rows, vocabulary)` of rows that the words are compared with.
pub fn each(base: &Base, tape: &mut Tape, rows: Rows, mut take: impl FnMut(&[f32], Range<usize>)) -> Result<()> {
    let (all, mark) = (tape.rows(rows)?, tape.mark());
    for range in slices(all.rows()) {
        let layout = Arc::new(Packed::single_rows(range.len()));
        let block = tape.constant(base.kernels().narrow(&all, range.clone())?, layout);
        let logits = tape.linear(block, base.words_map()?)?;
        take(&tape.read(logits)?.values, range);
        tape.release(mark, rows);
    }
    Ok(())
}

fn slices(rows: usize) -> impl Iterator<Item = Range<usize>> {
    (0..rows).step_by(SLICE).map(move |start| start..rows.min(start + SLICE))
}
