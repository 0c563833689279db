//! Samples a token from logits.
//!
//! The order is vLLM's: mask, bias, repetition, frequency and presence penalties, and then either the argmax or
//! temperature, min-p, top-k, top-p and a draw. A draw depends on seed, step and choice index only, not on the rest of
//! the batch.

mod filters;
mod logprobs;
mod params;
#[cfg(test)]
mod reference_tests;
mod softmax;
#[cfg(test)]
mod tests;

pub use filters::TokenMask;
pub use logprobs::Logprobs;
pub use params::{MAX_LOGPROBS, SamplingParams};

use espalier_tensor::seeded_rng::{SeededRng, mix64};
use softmax::{Probabilities, SoftmaxParams};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Smaller temperatures select the argmax, as in vLLM: dividing by them only loses precision.
const GREEDY_BELOW: f32 = 1e-5;

#[derive(Debug, Clone, PartialEq)]
pub struct SampledToken {
    pub token_id: u32,
    /// Set if the parameters ask for them.
    pub logprobs: Option<Logprobs>,
}

/// Samples the tokens of one sequence.
#[derive(Debug, Clone)]
pub struct Sampler {
    params: Arc<SamplingParams>,
    token_counts: TokenCounts,
    /// Start of the random stream of this seed and choice.
    rng_stream: u64,
    /// Unmodified logits, kept for logprobs only.
    raw_logits: Vec<f32>,
    /// Buffers that are reused at every step.
    block_sums: Vec<f64>,
    scratch: Vec<f32>,
}

impl Sampler {
    /// `choice_index` counts the sequences of one prompt from 0.
    pub fn new(params: impl Into<Arc<SamplingParams>>, prompt: &[u32], choice_index: u32) -> Self {
        let params = params.into();
        let token_counts = TokenCounts::new(&params, prompt);
        let rng_stream = SeededRng::new(params.seed, &["sampling", &choice_index.to_string()]).next_u64();
        Self { params, token_counts, rng_stream, raw_logits: Vec::new(), block_sums: Vec::new(), scratch: Vec::new() }
    }

    /// Samples the token of `step`, its position in the output, and counts it. Overwrites `logits` `(vocabulary,)`.
    /// Returns `None` if no token is left: all are masked, or the logits are not finite.
    pub fn sample(&mut self, logits: &mut [f32], step: u64, allowed: Option<&TokenMask>) -> Option<SampledToken> {
        if self.params.logprobs.is_some() {
            self.raw_logits.clear();
            self.raw_logits.extend_from_slice(logits);
        }
        if let Some(mask) = allowed {
            mask.apply(logits);
        }
        self.token_counts.apply(&self.params, logits);
        let (argmax, max_logit) = filters::argmax(logits)?;
        let token_id =
            if self.params.temperature < GREEDY_BELOW { argmax } else { self.sample_from(logits, max_logit, step) };
        self.token_counts.record(token_id);
        Some(SampledToken { token_id, logprobs: self.logprobs(token_id) })
    }

    fn sample_from(&mut self, logits: &mut [f32], max_logit: f32, step: u64) -> u32 {
        let params = &self.params;
        let min_p_logit = max_logit + params.temperature * params.min_p.ln();
        let min_logit = match params.top_k as usize {
            0 => min_p_logit,
            k => min_p_logit.max(filters::kth_largest(logits, k, &mut self.scratch)),
        };
        let softmax = SoftmaxParams { max_logit, min_logit, temperature: params.temperature };
        let mut probabilities = Probabilities::from_logits(logits, softmax, &mut self.block_sums);
        if params.top_p < 1.0 {
            let (values, total) = (probabilities.values(), probabilities.total());
            let threshold = filters::top_p_threshold(values, total, params.top_p, &mut self.scratch);
            probabilities.apply_top_p(threshold);
        }
        probabilities.index_at(uniform_at(self.rng_stream, step))
    }

    fn logprobs(&mut self, token_id: u32) -> Option<Logprobs> {
        Logprobs::of_token(&self.raw_logits, token_id, self.params.logprobs?, &mut self.scratch)
    }
}

/// Number of this step in a SplitMix64 stream, in `[0, 1)`. It has 53 bits: 24 are too few for the rarest tokens of a
/// vocabulary.
fn uniform_at(rng_stream: u64, step: u64) -> f64 {
    let bits = mix64(rng_stream.wrapping_add(step.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

/// Number of occurrences of each token in the output; tokens of the prompt only have 0. Applies bias and penalties.
///
/// Sorted by id, so that logits are visited in memory order.
#[derive(Debug, Clone, Default)]
struct TokenCounts {
    counts: BTreeMap<u32, u32>,
}

impl TokenCounts {
    fn new(params: &SamplingParams, prompt: &[u32]) -> Self {
        // Only the repetition penalty depends on the prompt, which may be long.
        let prompt = if params.repetition_penalty == 1.0 { &[] } else { prompt };
        Self { counts: prompt.iter().map(|id| (*id, 0)).collect() }
    }

    fn record(&mut self, id: u32) {
        *self.counts.entry(id).or_default() += 1;
    }

    /// Ignores ids beyond the logits, which a prompt may contain.
    fn apply(&self, params: &SamplingParams, logits: &mut [f32]) {
        for (id, bias) in &params.logit_bias {
            if let Some(logit) = logits.get_mut(*id as usize) {
                *logit += bias;
            }
        }
        let (repetition, presence, frequency) =
            (params.repetition_penalty, params.presence_penalty, params.frequency_penalty);
        if (repetition, presence, frequency) == (1.0, 0.0, 0.0) {
            return;
        }
        for (id, count) in &self.counts {
            let Some(logit) = logits.get_mut(*id as usize) else { break };
            *logit = if *logit > 0.0 { *logit / repetition } else { *logit * repetition };
            if *count > 0 {
                *logit -= frequency * *count as f32 + presence;
            }
        }
    }
}
