//! Losses over a vocabulary: the words' numbers are there for a slice of the rows at a time, so that memory never grows with
//! tokens × vocabulary.
//!
//! Knows nothing of where rows and words come from.

use super::metrics::{self, language_model::TOKEN_METRICS_WIDTH};
use crate::error::Result;
use crate::model::BaseModel;
use espalier_tensor::{Buffer, RaggedLayout, Tape, Tensor, Var};
use std::ops::Range;
use std::sync::Arc;

/// Rows whose vocabularies are in memory at once: enough that the words are read from memory seldom.
const CHUNK_ROWS: usize = 128;

/// What finding words costs, and how it depends on the rows that the words are compared with.
pub struct TokenLosses {
    /// −log softmax(words·row)[word], by row.
    pub losses: Vec<f64>,
    /// The gradient of each by its row, `(rows, hidden)`.
    gradients: Tensor,
}

impl TokenLosses {
    pub fn new(base: &BaseModel, tape: &Tape, rows: Var, target_ids: &[u32]) -> Result<Self> {
        let (kernels, lm_head, hidden) = (base.backend().as_ref(), base.lm_head_linear()?, tape.device_buffer(rows)?);
        let (mut losses, mut gradients) = (Vec::with_capacity(target_ids.len()), Vec::new());
        for range in chunks(hidden.rows()) {
            let logits = kernels.linear(&kernels.slice_rows(&hidden, range.clone())?, lm_head)?;
            let cross_entropy = kernels.cross_entropy(&logits, &target_ids[range])?;
            losses.extend(cross_entropy.losses);
            gradients
                .extend(kernels.download(&kernels.linear_backward(&cross_entropy.gradient, lm_head, None)?)?.values);
        }
        Ok(Self { losses, gradients: Tensor::new([hidden.rows(), hidden.width()], gradients) })
    }

    /// The gradient of a sum of losses, each times its factor.
    pub fn into_weighted_gradient(mut self, weights: impl Iterator<Item = f64>) -> Tensor {
        let width = self.gradients.shape[1].max(1);
        for (row, factor) in self.gradients.values.chunks_exact_mut(width).zip(weights) {
            row.iter_mut().for_each(|value| *value *= factor as f32);
        }
        self.gradients
    }
}

/// How the base's own head judges these words, `(words, JUDGED)`.
pub fn token_metrics(base: &BaseModel, tape: &mut Tape, rows: Var, target_ids: &[u32]) -> Result<Vec<f32>> {
    let kernels = Arc::clone(base.backend());
    let mut values = Vec::with_capacity(target_ids.len() * TOKEN_METRICS_WIDTH);
    for_each_logits_chunk(base, tape, rows, |logits, range| {
        let targets = &target_ids[range];
        let losses = kernels.cross_entropy(logits, targets)?.losses;
        let logits = kernels.download(logits)?.values;
        let rows = logits.chunks_exact(base.info().vocabulary_size).zip(targets).zip(losses);
        values.extend(rows.flat_map(|((row, word), loss)| {
            [loss as f32, f32::from(u8::from(metrics::argmax(row) == *word as usize))]
        }));
        Ok(())
    })?;
    Ok(values)
}

/// Hands over every slice's numbers `(rows, vocabulary)` of rows that the words are compared with.
pub fn for_each_logits_chunk(
    base: &BaseModel,
    tape: &mut Tape,
    rows: Var,
    mut consume: impl FnMut(&Buffer, Range<usize>) -> Result<()>,
) -> Result<()> {
    let (hidden, checkpoint) = (tape.device_buffer(rows)?, tape.position());
    for range in chunks(hidden.rows()) {
        let layout = Arc::new(RaggedLayout::one_row_per_sequence(range.len()));
        let chunk = tape.constant(base.backend().slice_rows(&hidden, range.clone())?, layout);
        let logits = tape.linear(chunk, base.lm_head_linear()?)?;
        consume(&tape.device_buffer(logits)?, range)?;
        tape.release_since(checkpoint, rows);
    }
    Ok(())
}

fn chunks(rows: usize) -> impl Iterator<Item = Range<usize>> {
    (0..rows).step_by(CHUNK_ROWS).map(move |start| start..rows.min(start + CHUNK_ROWS))
}
