//! Token counter that counts words, so that no tokenizer is needed.

use espalier_core::dataset::{CountTokens, Histogram, TokenCount};
use espalier_core::error::Result;
use espalier_core::task::Example;

pub struct WordCounter {
    /// Words to which texts are cut.
    pub max_length: Option<usize>,
}

/// Longest sequence in words.
const LONGEST: usize = 512;

impl CountTokens for WordCounter {
    fn count_tokens(&self, example: &Example) -> Result<Vec<TokenCount>> {
        let texts = [Some(example.text.as_str()), example.text_pair.as_deref()];
        let words = texts.into_iter().flatten().map(|text| text.split_whitespace().count()).sum::<usize>();
        let count = TokenCount { tokens: words.min(LONGEST), truncated: words > LONGEST, ..TokenCount::default() };
        Ok(vec![count])
    }

    fn max_length(&self, _lengths: &Histogram) -> Option<usize> {
        self.max_length
    }

    fn longest(&self) -> usize {
        LONGEST
    }
}
