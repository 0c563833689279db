//! From the logits of one place to the token that is said there.
//!
//! The order is vLLM's: what is not allowed, bias, repetition, frequency and presence penalties, and then either the
//! likeliest token or temperature, min-p, top-k, top-p and a draw. A draw is a function of the seed, the step and the
//! number of the choice alone, so it does not depend on what else is in the batch.
//!
//! Knows nothing of models, text or batches.

mod exponential;
mod largest;
mod mask;
mod nucleus;
mod penalties;
#[cfg(test)]
mod reference;
mod settings;
#[cfg(test)]
mod tests;
mod weights;

pub use mask::Mask;
pub use settings::Settings;

use espalier_tensor::random::{Random, mix};
use penalties::Said;
use weights::{Scale, Weights};

/// Below it the likeliest token is taken, as vLLM does: dividing by less would only lose digits.
const COLD: f32 = 1e-5;

/// The token that was chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    pub id: u32,
    /// Where the settings ask for them.
    pub logprobs: Option<Logprobs>,
}

/// Logarithms of the probabilities that the model itself gave: before bias, penalties, temperature and filters.
#[derive(Debug, Clone, PartialEq)]
pub struct Logprobs {
    pub chosen: f32,
    /// The likeliest tokens, the first the likeliest, of equals the lowest id; the chosen one need not be among them.
    pub top: Vec<(u32, f32)>,
}

/// Chooses the tokens of one sequence.
#[derive(Debug, Clone)]
pub struct Sampler {
    settings: Settings,
    said: Said,
    /// Where this choice's stream of random numbers begins.
    stream: u64,
    /// The model's own logits, kept only for logprobs.
    raw: Vec<f32>,
    /// Room that is used again at every step.
    sums: Vec<f64>,
    room: Vec<f32>,
}

impl Sampler {
    /// `choice` is the number of the sequence among those asked for the same prompt, from 0.
    pub fn new(settings: Settings, prompt: &[u32], choice: u32) -> Self {
        let said = Said::new(&settings, prompt);
        let stream = Random::new(settings.seed, &["sampling", &choice.to_string()]).bits();
        Self { settings, said, stream, raw: Vec::new(), sums: Vec::new(), room: Vec::new() }
    }

    /// Chooses and counts the token of `step`, the place among the sequence's own tokens. `logits` are one per id, and
    /// used up. None where no token is left: all are forbidden, or the logits are no numbers.
    pub fn choose(&mut self, logits: &mut [f32], step: u64, allowed: Option<&Mask>) -> Option<Choice> {
        if self.settings.logprobs.is_some() {
            self.raw.clear();
            self.raw.extend_from_slice(logits);
        }
        if let Some(mask) = allowed {
            mask.apply(logits);
        }
        self.said.apply(&self.settings, logits);
        let (likeliest, largest) = largest::first(logits)?;
        let id = if self.settings.temperature < COLD { likeliest } else { self.draw(logits, largest, step) };
        self.said.count(id);
        Some(Choice { id, logprobs: self.logprobs(id) })
    }

    fn draw(&mut self, logits: &mut [f32], largest: f32, step: u64) -> u32 {
        let settings = &self.settings;
        let least = largest + settings.temperature * settings.min_p.ln();
        let floor = match settings.top_k as usize {
            0 => least,
            count => least.max(largest::nth(logits, count, &mut self.room)),
        };
        let scale = Scale { largest, floor, temperature: settings.temperature };
        let mut weights = Weights::of(logits, scale, &mut self.sums);
        if settings.top_p < 1.0 {
            let nucleus = nucleus::find(weights.values(), weights.total(), settings.top_p, &mut self.room);
            weights.keep(nucleus);
        }
        weights.at(uniform(self.stream, step))
    }

    fn logprobs(&mut self, id: u32) -> Option<Logprobs> {
        let count = self.settings.logprobs? as usize;
        let (_, largest) = largest::first(&self.raw)?;
        let total = f64::from(largest) + exponential::total(&self.raw, largest).ln();
        let logprob = |logit: f32| (f64::from(logit) - total) as f32;
        let top = largest::several(&self.raw, count, &mut self.room);
        Some(Logprobs {
            chosen: logprob(self.raw[id as usize]),
            top: top.into_iter().map(|(id, logit)| (id, logprob(logit))).collect(),
        })
    }
}

/// The number of a step in SplitMix64's stream, in `[0, 1)`, 53 bits: a vocabulary's rarest words need more than 24.
fn uniform(stream: u64, step: u64) -> f64 {
    let bits = mix(stream.wrapping_add(step.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    (bits >> 11) as f64 / (1u64 << 53) as f64
}
