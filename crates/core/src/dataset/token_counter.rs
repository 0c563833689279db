//! Measuring examples with the base's tokenizer, as training will cut them.

use super::{CountTokens, TokenCount};
use crate::error::Result;
use crate::model::Tokenizer;
use crate::task::{Config, Example, causal_language_model};

/// The lengths of an example's sequences in the tokenizer's tokens, special ones included, each at most `max_length`.
pub struct TokenCounter<'a> {
    pub tokenizer: &'a Tokenizer,
    pub task: &'a Config,
    pub max_length: usize,
}

impl CountTokens for TokenCounter<'_> {
    fn count_tokens(&self, example: &Example) -> Result<Vec<TokenCount>> {
        let sequences = self.task.tokenize_example(self.tokenizer, example, self.max_length)?;
        if self.task.is_generative() {
            causal_language_model::check_trainable(&example.target, &sequences)?;
        }
        let to_token_count =
            |tokens: &crate::model::Tokens| TokenCount { tokens: tokens.ids.len(), truncated: tokens.truncated };
        Ok(sequences.iter().map(to_token_count).collect())
    }
}
