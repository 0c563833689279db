//! Cross entropy over the vocabulary. The logits exist for a chunk of rows at a time, so memory does not grow with
//! tokens × vocabulary.

use super::calibration;
use super::metrics::{TaskMetrics, argmax};
use crate::error::Result;
use crate::model::BaseModel;
use espalier_tensor::{Buffer, RaggedLayout, Tape, Tensor, Var};
use serde::Serialize;
use serde_json::{Value, json};
use std::ops::Range;
use std::sync::Arc;

/// Rows per chunk: large enough that reading the vocabulary's weights is a small share of the time.
const CHUNK_ROWS: usize = 128;

/// Cross entropy of each row, and its gradient.
pub struct TokenLosses {
    /// `−log softmax(logits)[label]` per row.
    pub losses: Vec<f64>,
    /// Gradient of each row's loss with respect to the row, `(rows, hidden)`.
    gradients: Tensor,
}

impl TokenLosses {
    pub fn new(base: &BaseModel, tape: &Tape, rows: Var, target_ids: &[u32]) -> Result<Self> {
        let (kernels, lm_head, hidden) = (tape.backend().as_ref(), base.lm_head_linear()?, tape.device_buffer(rows)?);
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

    /// Gradient of the weighted sum of the losses.
    pub fn into_weighted_gradient(mut self, weights: impl Iterator<Item = f64>) -> Tensor {
        let width = self.gradients.shape[1].max(1);
        for (row, factor) in self.gradients.values.chunks_exact_mut(width).zip(weights) {
            row.iter_mut().for_each(|value| *value *= factor as f32);
        }
        self.gradients
    }
}

/// Loss of each row, and 1 where the label is the most probable token, else 0: `(rows, TOKEN_METRICS_WIDTH)`.
pub fn token_metrics(base: &BaseModel, tape: &mut Tape, rows: Var, target_ids: &[u32]) -> Result<Vec<f32>> {
    let kernels = Arc::clone(base.backend());
    let mut values = Vec::with_capacity(target_ids.len() * TOKEN_METRICS_WIDTH);
    for_each_logits_chunk(base, tape, rows, |logits, range| {
        let targets = &target_ids[range];
        let losses = kernels.cross_entropy(logits, targets)?.losses;
        let logits = kernels.download(logits)?.values;
        let rows = logits.chunks_exact(base.info().vocabulary_size).zip(targets).zip(losses);
        values.extend(
            rows.flat_map(|((row, label), loss)| [loss as f32, f32::from(u8::from(argmax(row) == *label as usize))]),
        );
        Ok(())
    })?;
    Ok(values)
}

/// Calls `consume` with the logits `(rows, vocabulary)` of each chunk of rows.
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

/// Most tokens of [`top_tokens`]. Only these leave the forward pass, not all logits.
const MAX_TOP_TOKENS: usize = 100;

/// Most probable tokens of a row of logits, sorted: id and probability of each, flattened.
pub fn top_tokens(logits: &[f32]) -> Vec<f32> {
    let probabilities = calibration::softmax(logits, 1.0);
    let ids = calibration::most_probable(&probabilities, top_token_count(logits.len()));
    // An `f32` holds integers of 24 bits exactly, and no vocabulary is larger.
    ids.into_iter().flat_map(|id| [id as f32, probabilities[id] as f32]).collect()
}

/// Number of [`top_tokens`] of a row.
pub fn top_token_count(vocabulary_size: usize) -> usize {
    vocabulary_size.min(MAX_TOP_TOKENS)
}

/// Values per token in [`token_metrics`].
pub const TOKEN_METRICS_WIDTH: usize = 2;

/// Metrics of a language model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LanguageModelMetrics {
    pub examples: usize,
    /// Mean cross entropy of the tokens.
    pub loss: f64,
    /// exp(loss)
    pub perplexity: f64,
    /// Share of tokens whose label is the most probable token.
    pub accuracy: f64,
}

impl LanguageModelMetrics {
    /// From the [`token_metrics`] of all examples.
    pub fn new(token_metrics: &[f32], examples: usize) -> Self {
        let tokens = token_metrics.chunks_exact(TOKEN_METRICS_WIDTH);
        let count = tokens.len().max(1) as f64;
        let sum_of = |part: usize| tokens.clone().map(|token| f64::from(token[part])).sum::<f64>();
        let loss = sum_of(0) / count;
        Self { examples, loss, perplexity: loss.exp(), accuracy: sum_of(1) / count }
    }
}

impl TaskMetrics for LanguageModelMetrics {
    fn loss(&self) -> f64 {
        self.loss
    }

    fn to_json(&self) -> Value {
        json!(self)
    }
}

fn chunks(rows: usize) -> impl Iterator<Item = Range<usize>> {
    (0..rows).step_by(CHUNK_ROWS).map(move |start| start..rows.min(start + CHUNK_ROWS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_and_accuracy_are_token_means() {
        // −log softmax of token 1 of [0, 2, 1] and of token 1 of [3, 0, 0]
        let metrics = LanguageModelMetrics::new(&[0.407_606, 1.0, 3.094_923, 0.0], 1);
        assert!((metrics.loss - 1.751_264).abs() < 1e-5, "{metrics:?}");
        assert!((metrics.perplexity - metrics.loss.exp()).abs() < 1e-12);
        assert_eq!(metrics.accuracy, 0.5);
    }
}
