//! Text to token ids.

use crate::error::Result;

/// A tokenized input with its special tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    pub ids: Vec<u32>,
    pub type_ids: Vec<u32>,
    pub truncated: bool,
}

pub struct Tokenizer {}

impl Tokenizer {
    /// Tokens of a text or a pair, special tokens included, at most `max_length` of them.
    pub fn encode(&self, text: &str, text_pair: Option<&str>, max_length: usize) -> Result<Tokens> {
        let _ = (text, text_pair, max_length);
        todo!("written by the model room")
    }
}
