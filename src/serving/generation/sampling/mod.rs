//! From the logits of one place to the token that is said there.
//!
//! The order is vLLM's: what is not allowed, bias, repetition, frequency and presence penalties, and then either the
//! likeliest token or temperature, min-p, top-k, top-p and a draw. A draw is a function of the seed, the step and the
//! number of the choice alone, so it does not depend on what else is in the batch.
//!
//! Knows nothing of models, text or batches.

mod exp_sum;
mod params;
mod penalties;
mod probabilities;
#[cfg(test)]
mod reference_tests;
#[cfg(test)]
mod tests;
mod token_mask;
mod top_k;
mod top_p;

pub use params::SamplingParams;
pub use token_mask::TokenMask;

use espalier_tensor::seeded_rng::{SeededRng, mix64};
use penalties::TokenCounts;
use probabilities::{Probabilities, SoftmaxParams};

/// Below it the likeliest token is taken, as vLLM does: dividing by less would only lose digits.
const GREEDY_BELOW: f32 = 1e-5;

/// The token that was chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct SampledToken {
    pub token_id: u32,
    /// Where the settings ask for them.
    pub logprobs: Option<Logprobs>,
}

/// Logarithms of the probabilities that the model itself gave: before bias, penalties, temperature and filters.
#[derive(Debug, Clone, PartialEq)]
pub struct Logprobs {
    pub sampled: f32,
    /// The likeliest tokens, the first the likeliest, of equals the lowest id; the chosen one need not be among them.
    pub top: Vec<(u32, f32)>,
}

/// Chooses the tokens of one sequence.
#[derive(Debug, Clone)]
pub struct Sampler {
    params: SamplingParams,
    token_counts: TokenCounts,
    /// Where this choice's stream of random numbers begins.
    rng_stream: u64,
    /// The model's own logits, kept only for logprobs.
    raw_logits: Vec<f32>,
    /// Room that is used again at every step.
    block_sums: Vec<f64>,
    scratch: Vec<f32>,
}

impl Sampler {
    /// `choice` is the number of the sequence among those asked for the same prompt, from 0.
    pub fn new(params: SamplingParams, prompt: &[u32], choice_index: u32) -> Self {
        let token_counts = TokenCounts::new(&params, prompt);
        let rng_stream = SeededRng::new(params.seed, &["sampling", &choice_index.to_string()]).next_u64();
        Self { params, token_counts, rng_stream, raw_logits: Vec::new(), block_sums: Vec::new(), scratch: Vec::new() }
    }

    /// Chooses and counts the token of `step`, the place among the sequence's own tokens. `logits` are one per id, and
    /// used up. None where no token is left: all are forbidden, or the logits are no numbers.
    pub fn sample(&mut self, logits: &mut [f32], step: u64, allowed: Option<&TokenMask>) -> Option<SampledToken> {
        if self.params.logprobs.is_some() {
            self.raw_logits.clear();
            self.raw_logits.extend_from_slice(logits);
        }
        if let Some(mask) = allowed {
            mask.apply(logits);
        }
        self.token_counts.apply(&self.params, logits);
        let (argmax, max_logit) = top_k::argmax(logits)?;
        let id =
            if self.params.temperature < GREEDY_BELOW { argmax } else { self.sample_from(logits, max_logit, step) };
        self.token_counts.record(id);
        Some(SampledToken { token_id: id, logprobs: self.logprobs(id) })
    }

    fn sample_from(&mut self, logits: &mut [f32], max_logit: f32, step: u64) -> u32 {
        let params = &self.params;
        let min_p_floor = max_logit + params.temperature * params.min_p.ln();
        let floor = match params.top_k as usize {
            0 => min_p_floor,
            count => min_p_floor.max(top_k::kth_largest(logits, count, &mut self.scratch)),
        };
        let softmax = SoftmaxParams { max_logit, min_logit: floor, temperature: params.temperature };
        let mut probabilities = Probabilities::from_logits(logits, softmax, &mut self.block_sums);
        if params.top_p < 1.0 {
            let threshold =
                top_p::top_p_threshold(probabilities.values(), probabilities.total(), params.top_p, &mut self.scratch);
            probabilities.apply_top_p(threshold);
        }
        probabilities.index_at(uniform_at(self.rng_stream, step))
    }

    fn logprobs(&mut self, id: u32) -> Option<Logprobs> {
        let count = self.params.logprobs? as usize;
        let (_, max_logit) = top_k::argmax(&self.raw_logits)?;
        let log_sum_exp = f64::from(max_logit) + exp_sum::sum_exp(&self.raw_logits, max_logit).ln();
        let logprob = |logit: f32| (f64::from(logit) - log_sum_exp) as f32;
        let top = top_k::top_k(&self.raw_logits, count, &mut self.scratch);
        Some(Logprobs {
            sampled: logprob(self.raw_logits[id as usize]),
            top: top.into_iter().map(|(id, logit)| (id, logprob(logit))).collect(),
        })
    }
}

/// The number of a step in SplitMix64's stream, in `[0, 1)`, 53 bits: a vocabulary's rarest words need more than 24.
fn uniform_at(rng_stream: u64, step: u64) -> f64 {
    let bits = mix64(rng_stream.wrapping_add(step.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    (bits >> 11) as f64 / (1u64 << 53) as f64
}
