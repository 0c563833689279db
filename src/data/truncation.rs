//! Measuring texts with the base's tokenizer, as training will cut them.

use super::{Length, Measure};
use crate::error::Result;
use crate::model::Tokenizer;

/// The length of a text in the tokenizer's tokens, special ones included, at most `max_length`.
pub struct Truncation<'a> {
    pub tokenizer: &'a Tokenizer,
    pub max_length: usize,
}

impl Measure for Truncation<'_> {
    fn measure(&self, text: &str, text_pair: Option<&str>) -> Result<Length> {
        let tokens = self.tokenizer.encode(text, text_pair, self.max_length)?;
        Ok(Length { tokens: tokens.ids.len(), truncated: tokens.truncated })
    }
}
