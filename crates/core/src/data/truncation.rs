//! Measuring examples with the base's tokenizer, as training will cut them.

use super::{Length, Measure};
use crate::error::Result;
use crate::model::Tokenizer;
use crate::task::{Config, Example, causal_language_model};

/// The lengths of an example's sequences in the tokenizer's tokens, special ones included, each at most `max_length`.
pub struct Truncation<'a> {
    pub tokenizer: &'a Tokenizer,
    pub task: &'a Config,
    pub max_length: usize,
}

impl Measure for Truncation<'_> {
    fn measure(&self, example: &Example) -> Result<Vec<Length>> {
        let sequences = self.task.sequences(self.tokenizer, example, self.max_length)?;
        if self.task.generates() {
            causal_language_model::check(&example.target, &sequences)?;
        }
        let length = |tokens: &crate::model::Tokens| Length { tokens: tokens.ids.len(), truncated: tokens.truncated };
        Ok(sequences.iter().map(length).collect())
    }
}
