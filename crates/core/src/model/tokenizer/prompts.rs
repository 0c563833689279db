//! Prompts and completions of causal language models: their tokens, and the text of generated tokens.

use super::text_start::Offsets;
use super::{SpecialTokens, TextLimits, Tokenizer};
use crate::error::{Error, Result};
use tokenizers::Encoding;

impl Tokenizer {
    /// Encodes a whole text, with the special tokens that the tokenizer adds to it, or without.
    pub fn encode_text(&self, text: &str, special_tokens: SpecialTokens) -> Result<Vec<u32>> {
        let text = self.with_known_case(text);
        let encoding = self.inner.encode_fast(text.as_ref(), special_tokens == SpecialTokens::Add);
        Ok(encoding.map_err(Error::internal)?.get_ids().to_vec())
    }

    /// Decodes token ids and skips special tokens and ids beyond the vocabulary. Tokens that the decoder refuses become the replacement
    /// character.
    pub fn decode(&self, ids: &[u32]) -> String {
        self.inner.decode(ids, true).unwrap_or_else(|_| char::REPLACEMENT_CHARACTER.to_string())
    }

    /// [`Self::decode`], with the texts of the special tokens in `shown`.
    pub fn decode_with(&self, ids: &[u32], shown: &[u32]) -> String {
        let parts = ids.chunk_by(|first, second| shown.contains(first) == shown.contains(second));
        let part_text = |part: &[u32]| match part.first().is_some_and(|first| shown.contains(first)) {
            true => part.iter().filter_map(|id| self.id_to_token(*id)).collect(),
            false => self.decode(part),
        };
        parts.map(part_text).collect()
    }

    /// Decodes token ids, special tokens included, and skips ids beyond the vocabulary. Tokens that the decoder refuses become the
    /// replacement character.
    pub fn decode_with_special_tokens(&self, ids: &[u32]) -> String {
        self.inner.decode(ids, false).unwrap_or_else(|_| char::REPLACEMENT_CHARACTER.to_string())
    }

    /// Number of special tokens that the tokenizer adds at the start of a prompt.
    pub fn prompt_prefix_length(&self) -> usize {
        self.prompt_prefix_length
    }

    /// Encodes a prompt with the special tokens that the tokenizer adds at its start, without those at its end.
    pub fn encode_prompt(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.inner.encode_fast(text, true).map_err(Error::internal)?;
        Ok(without_trailing_special_tokens(&encoding))
    }

    /// [`Self::encode_prompt`] within the limits of a request; `None` if the prompt has more than `max_length` tokens, of which
    /// only the first are found.
    ///
    /// # Errors
    /// `Invalid` (`text_too_long`), as for [`Self::encode_within`].
    pub fn encode_prompt_within(&self, text: &str, limits: TextLimits) -> Result<Option<Vec<u32>>> {
        let start = self.text_encoder(Offsets::None, limits).encode(text, limits.max_length)?;
        if start.token_count() > limits.max_length {
            return Ok(None);
        }
        let encoding = self.inner.post_process(start.encoding, None, true).map_err(Error::internal)?;
        Ok(Some(without_trailing_special_tokens(&encoding)))
    }

    /// Encodes a prompt, whose own encoding is `prompt_ids`, with its completion. If a token would span the boundary, the two are
    /// encoded separately, as in generation.
    pub fn encode_completion(&self, prompt_ids: &[u32], prompt: &str, completion: &str) -> Result<Vec<u32>> {
        let joint_ids = self.encode_prompt(&format!("{prompt}{completion}"))?;
        match joint_ids.starts_with(prompt_ids) {
            true => Ok(joint_ids),
            false => Ok([prompt_ids, &self.encode_without_special_tokens(completion)?].concat()),
        }
    }
}

/// Ids of a prompt without the special tokens at its end.
fn without_trailing_special_tokens(encoding: &Encoding) -> Vec<u32> {
    let mut ids = encoding.get_ids().to_vec();
    let trailing_special_tokens =
        encoding.get_special_tokens_mask().iter().rev().take_while(|special| **special == 1).count();
    // A prompt of special tokens alone is kept.
    if trailing_special_tokens < ids.len() {
        ids.truncate(ids.len() - trailing_special_tokens);
    }
    ids
}
