//! Text to token ids.

mod prompts;

use super::generation_config::GenerationConfig;
use super::tokens::{CharSpan, MlmVocabulary, Tokens};
use crate::error::{Context, Error, Result};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use tokenizers::utils::truncation::{TruncationDirection, TruncationParams, TruncationStrategy, truncate_encodings};
use tokenizers::{Encoding, PostProcessor, Tokenizer as Inner};

/// A `tokenizer.json`, without the truncation and padding that it may ask for: the layout is packed, the length ours.
pub struct Tokenizer {
    inner: Inner,
    generation_config: GenerationConfig,
}

impl Tokenizer {
    /// Answers the tokenizer and, for the fingerprint, what it is made of.
    pub(super) fn load(folder: &Path) -> Result<(Self, Value)> {
        let path = folder.join("tokenizer.json");
        let bytes = std::fs::read(&path).map_err(|error| damaged_tokenizer(&path, &error.to_string()))?;
        Self::from_json(&bytes, &path)
    }

    /// The same of a `tokenizer.json`'s content; `path` is where it came from.
    pub(super) fn from_json(bytes: &[u8], path: &Path) -> Result<(Self, Value)> {
        let mut inner = Inner::from_bytes(bytes).map_err(|error| damaged_tokenizer(path, &error.to_string()))?;
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|error| damaged_tokenizer(path, &error.to_string()))?;
        let mut tokenizer_json: Value = serde_json::from_slice(bytes).context("reading a tokenizer")?;
        if let Some(map) = tokenizer_json.as_object_mut() {
            map.remove("truncation");
            map.remove("padding");
        }
        Ok((Self { inner, generation_config: GenerationConfig::default() }, tokenizer_json))
    }

    pub(super) fn vocabulary(&self) -> &Inner {
        &self.inner
    }

    /// A text's ids without special tokens.
    pub fn encode_without_special_tokens(&self, text: &str) -> Result<Vec<u32>> {
        Ok(self.inner.encode_fast(text, false).map_err(Error::internal)?.get_ids().to_vec())
    }

    /// Tokens of a text or a pair, special tokens included, at most `max_length` of them (the longer text gives way
    /// first).
    pub fn encode(&self, text: &str, text_pair: Option<&str>, max_length: usize) -> Result<Tokens> {
        let encode_raw = |text: &str| self.inner.encode_fast(text, false).map_err(Error::internal);
        let (encoding, truncated) =
            self.truncate_and_post_process(encode_raw(text)?, text_pair.map(encode_raw).transpose()?, max_length)?;
        let (ids, type_ids) = (encoding.get_ids().to_vec(), encoding.get_type_ids().to_vec());
        Ok(Tokens { ids, type_ids, truncated, target_positions: Vec::new() })
    }

    /// The same for a text whose words are read one by one: a word's first token stands for it, or, where it has none of
    /// its own, the next one. Words are in the order of the text; those behind its cut end have no token.
    pub fn encode_words(&self, text: &str, words: &[CharSpan], max_length: usize) -> Result<Tokens> {
        let raw_encoding = self.inner.encode_char_offsets(text, false).map_err(Error::internal)?;
        let (encoding, truncated) = self.truncate_and_post_process(raw_encoding, None, max_length)?;
        let special_tokens_mask = encoding.get_special_tokens_mask();
        let text_tokens = encoding
            .get_offsets()
            .iter()
            .zip(special_tokens_mask)
            .enumerate()
            .filter(|(_, (_, special))| **special == 0);
        let mut text_tokens = text_tokens.map(|(row, ((_, end), _))| (row as u32, *end as u32)).peekable();
        let mut target_positions = Vec::with_capacity(words.len());
        for word in words {
            while text_tokens.peek().is_some_and(|(_, end)| *end <= word.start) {
                text_tokens.next();
            }
            match text_tokens.peek() {
                Some((row, _)) => target_positions.push(*row),
                None => break,
            }
        }
        Ok(Tokens {
            ids: encoding.get_ids().to_vec(),
            type_ids: encoding.get_type_ids().to_vec(),
            truncated,
            target_positions,
        })
    }

    /// Cut, and with special tokens.
    fn truncate_and_post_process(
        &self,
        first: Encoding,
        second: Option<Encoding>,
        max_length: usize,
    ) -> Result<(Encoding, bool)> {
        let special_count = self.inner.get_post_processor().map_or(0, |post| post.added_tokens(second.is_some()));
        let length = first.len() + second.as_ref().map_or(0, Encoding::len);
        let token_budget = max_length.saturating_sub(special_count);
        let truncated = length > token_budget;
        let (first, second) = match truncated {
            false => (first, second),
            true => {
                let strategy = TruncationStrategy::LongestFirst;
                let direction = TruncationDirection::Right;
                let params = TruncationParams { max_length: token_budget, strategy, stride: 0, direction };
                truncate_encodings(first, second, &params).map_err(Error::internal)?
            }
        };
        Ok((self.inner.post_process(first, second, true).map_err(Error::internal)?, truncated))
    }

    /// Whether tokens can be hidden, and how.
    pub fn mlm_vocabulary(&self) -> Option<MlmVocabulary> {
        let (mask_id, _) = self.mask_token()?;
        Some(MlmVocabulary::new(mask_id, self.special_ids(), self.vocabulary_size() as u32))
    }

    /// The tokens that are no text.
    pub fn special_ids(&self) -> BTreeSet<u32> {
        let added_tokens = self.inner.get_added_tokens_decoder();
        added_tokens.into_iter().filter(|(_, token)| token.special).map(|(id, _)| id).collect()
    }

    /// The mask's id, and how it is written in a text.
    pub fn mask_token(&self) -> Option<(u32, &'static str)> {
        ["[MASK]", "<mask>"].into_iter().find_map(|token| Some((self.inner.token_to_id(token)?, token)))
    }

    /// A token as a text has it.
    pub fn decode_token(&self, id: u32) -> String {
        let text = self.inner.decode(&[id], false).ok().map(|word| word.trim().to_string());
        text.filter(|word| !word.is_empty()).or_else(|| self.inner.id_to_token(id)).unwrap_or_default()
    }

    /// A token whose id is not below `vocabulary`, if there is one: the largest.
    pub fn largest_id_from(&self, vocabulary_size: usize) -> Option<(String, u32)> {
        let largest_entry = self.inner.get_vocab(true).into_iter().max_by_key(|(_, id)| *id);
        largest_entry.filter(|(_, id)| *id as usize >= vocabulary_size)
    }

    pub fn vocabulary_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }
}

fn damaged_tokenizer(path: &Path, reason: &str) -> Error {
    Error::invalid("base_model_damaged", format!("{} cannot be read: {reason}; fetch the model again", path.display()))
}
