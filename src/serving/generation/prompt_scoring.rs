//! Log probabilities of the tokens of a prompt.

use super::sampling::Logprobs;
use espalier_core::error::{Error, Result};

/// Collects the log probabilities of a prompt's tokens after the first, which has no token before it to be predicted from. A row of
/// logits is read and dropped, so that memory does not grow with tokens × vocabulary.
pub struct PromptScorer {
    top_count: u32,
    logprobs: Vec<Logprobs>,
    scratch: Vec<f32>,
}

impl PromptScorer {
    /// Reports the `top_count` most probable tokens of each position.
    pub fn new(top_count: u32) -> Self {
        Self { top_count, logprobs: Vec::new(), scratch: Vec::new() }
    }

    /// Adds the next token of the prompt, whose logits are `(vocabulary,)`.
    ///
    /// # Errors
    /// `Internal` if the logits are not finite.
    pub fn add_token(&mut self, token_id: u32, logits: &[f32]) -> Result<()> {
        let logprobs = Logprobs::of_token(logits, token_id, self.top_count, &mut self.scratch);
        self.logprobs.push(logprobs.ok_or_else(non_finite_logits)?);
        Ok(())
    }

    pub fn into_logprobs(self) -> Vec<Logprobs> {
        self.logprobs
    }
}

pub fn non_finite_logits() -> Error {
    Error::internal("the model answered with numbers that are not finite")
}
