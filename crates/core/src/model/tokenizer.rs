//! Tokenizer: from text to token ids, with truncation and special tokens.

mod chat;
mod prompts;
#[cfg(test)]
mod tests;
mod text_start;
mod vocab_txt;
mod vocabulary;

pub use text_start::TextLimits;
pub use vocabulary::VocabularyCount;

use super::checkpoint_files::damaged_file_error;
use super::cut_points;
use super::generation_config::GenerationConfig;
use super::tokens::{CharSpan, MlmVocabulary, Tokens};
use crate::error::{Context, Error, Result};
use serde_json::Value;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;
use text_start::{Offsets, TextEncoder};
use tokenizers::utils::truncation::{TruncationDirection, TruncationParams, TruncationStrategy, truncate_encodings};
use tokenizers::{Encoding, PostProcessor, Tokenizer as Inner};
use vocabulary::UnknownToken;

/// A `tokenizer.json`. Its settings of truncation and padding are ignored, because callers set the maximum length and batches
/// are not padded.
pub struct Tokenizer {
    inner: Inner,
    /// One above the largest id.
    id_count: usize,
    /// Whether the tokens of a text's start, cut before a space, are the first tokens of the text.
    can_cut: bool,
    unknown_token: Option<UnknownToken>,
    /// Whether the residues of a text are upper-cased, because the vocabulary has no others.
    upper_cases_residues: bool,
    /// Number of special tokens that are added at the start of a text.
    prompt_prefix_length: usize,
    generation_config: GenerationConfig,
}

/// Whether a tokenizer adds its special tokens to a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpecialTokens {
    Add,
    Omit,
}

impl Tokenizer {
    /// Loads `tokenizer.json` of a folder, or else builds it from `vocab.txt`. Returns the tokenizer, and the JSON that enters the
    /// fingerprint.
    pub(super) fn load(folder: &Path) -> Result<(Self, Value)> {
        let path = folder.join("tokenizer.json");
        let error = match std::fs::read(&path) {
            Ok(bytes) => return Self::from_json(&bytes, &path),
            Err(error) => error,
        };
        match vocab_txt::tokenizer_json(folder)? {
            Some(tokenizer_json) if error.kind() == ErrorKind::NotFound => {
                Self::from_json(tokenizer_json.to_string().as_bytes(), &folder.join("vocab.txt"))
            }
            _ => Err(damaged_file_error(&path, &error.to_string())),
        }
    }

    /// Parses the content of a `tokenizer.json`; `path` is for error messages.
    pub(super) fn from_json(bytes: &[u8], path: &Path) -> Result<(Self, Value)> {
        let mut inner = Inner::from_bytes(bytes).map_err(|error| damaged_file_error(path, &error.to_string()))?;
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|error| damaged_file_error(path, &error.to_string()))?;
        let mut tokenizer_json: Value = serde_json::from_slice(bytes).context("reading a tokenizer")?;
        if let Some(map) = tokenizer_json.as_object_mut() {
            map.remove("truncation");
            map.remove("padding");
        }
        let id_count = inner.get_vocab(true).into_values().max().map_or(0, |largest| largest as usize + 1);
        let can_cut = cut_points::can_cut_at_spaces(&tokenizer_json);
        let special_ids = special_ids(&inner);
        let tokenizer = Self {
            id_count,
            can_cut,
            upper_cases_residues: vocabulary::has_upper_case_residues_only(&inner, &special_ids),
            unknown_token: UnknownToken::new(&tokenizer_json, &inner, special_ids),
            prompt_prefix_length: prompt_prefix_length(&inner)?,
            inner,
            generation_config: GenerationConfig::default(),
        };
        Ok((tokenizer, tokenizer_json))
    }

    pub(super) fn vocabulary(&self) -> &Inner {
        &self.inner
    }

    /// Encodes a text without special tokens.
    pub fn encode_without_special_tokens(&self, text: &str) -> Result<Vec<u32>> {
        Ok(self.inner.encode_fast(text, false).map_err(Error::internal)?.get_ids().to_vec())
    }

    /// Encodes a text or a pair with special tokens. Longer input is truncated to `max_length` tokens, the longer text first.
    pub fn encode(&self, text: &str, text_pair: Option<&str>, max_length: usize) -> Result<Tokens> {
        self.encode_within(text, text_pair, TextLimits::tokens(max_length))
    }

    /// [`Self::encode`] within the limits of a request. No more of a text is tokenized than its first tokens need.
    ///
    /// # Errors
    /// `Invalid` (`text_too_long`) for a text whose first tokens are not found within `max_text_bytes`.
    pub fn encode_within(&self, text: &str, text_pair: Option<&str>, limits: TextLimits) -> Result<Tokens> {
        let encoder = self.text_encoder(Offsets::None, limits);
        let token_budget = self.token_budget(text_pair.is_some(), limits.max_length);
        let (text, text_pair) = (self.with_known_case(text), text_pair.map(|text| self.with_known_case(text)));
        let (first, second) = match &text_pair {
            None => (encoder.encode(&text, token_budget)?.encoding, None),
            Some(text_pair) => {
                let [first, second] = encoder.encode_pair([&text, text_pair], token_budget)?;
                (first.encoding, Some(second.encoding))
            }
        };
        let (encoding, truncated) = self.truncate_and_post_process(first, second, token_budget)?;
        let (ids, type_ids) = (encoding.get_ids().to_vec(), encoding.get_type_ids().to_vec());
        Ok(Tokens { ids, type_ids, truncated, target_positions: Vec::new() })
    }

    /// Encodes a text for token classification. `target_positions` has the first token of each of `words`, or the next token
    /// if a word has none of its own; `words` are in text order. Truncated words have no position.
    ///
    /// # Errors
    /// `Invalid` (`text_too_long`), as for [`Self::encode_within`].
    pub fn encode_words(&self, text: &str, words: &[CharSpan], limits: TextLimits) -> Result<Tokens> {
        let token_budget = self.token_budget(false, limits.max_length);
        let text = self.with_known_case(text);
        let raw_encoding = self.text_encoder(Offsets::Characters, limits).encode(&text, token_budget)?.encoding;
        let (encoding, truncated) = self.truncate_and_post_process(raw_encoding, None, token_budget)?;
        let special_tokens_mask = encoding.get_special_tokens_mask();
        let text_tokens = encoding
            .get_offsets()
            .iter()
            .zip(special_tokens_mask)
            .enumerate()
            .filter(|(_, (_, special))| **special == 0);
        let mut text_tokens = text_tokens.map(|(position, ((_, end), _))| (position as u32, *end as u32)).peekable();
        let mut target_positions = Vec::with_capacity(words.len());
        for word in words {
            while text_tokens.peek().is_some_and(|(_, end)| *end <= word.start) {
                text_tokens.next();
            }
            match text_tokens.peek() {
                Some((position, _)) => target_positions.push(*position),
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

    fn text_encoder<'a>(&'a self, offsets: Offsets, limits: TextLimits<'a>) -> TextEncoder<'a> {
        TextEncoder { inner: &self.inner, can_cut: self.can_cut, offsets, limits }
    }

    /// Tokens of the texts in a sequence of `max_length` tokens: those besides the special tokens.
    fn token_budget(&self, is_pair: bool, max_length: usize) -> usize {
        max_length.saturating_sub(self.inner.get_post_processor().map_or(0, |post| post.added_tokens(is_pair)))
    }

    /// Truncates the encodings to `token_budget` tokens and adds special tokens.
    fn truncate_and_post_process(
        &self,
        first: Encoding,
        second: Option<Encoding>,
        token_budget: usize,
    ) -> Result<(Encoding, bool)> {
        let length = first.len() + second.as_ref().map_or(0, Encoding::len);
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

    /// The text with residues in upper case, where the vocabulary has no others.
    fn with_known_case<'a>(&self, text: &'a str) -> Cow<'a, str> {
        match self.upper_cases_residues {
            true => Cow::Owned(vocabulary::upper_case_residues(text)),
            false => Cow::Borrowed(text),
        }
    }

    /// Counts the tokens of text, and those among them that stand for text outside of the vocabulary.
    pub fn count_unknown(&self, ids: &[u32]) -> VocabularyCount {
        let count = |unknown_token: &UnknownToken| unknown_token.count(ids);
        self.unknown_token.as_ref().map(count).unwrap_or_default()
    }

    /// The vocabulary of masked language modelling, if there is a mask token.
    pub fn mlm_vocabulary(&self) -> Option<MlmVocabulary> {
        let (mask_id, _) = self.mask_token()?;
        Some(MlmVocabulary::new(mask_id, self.special_ids(), self.vocabulary_size() as u32))
    }

    /// Ids of the special tokens.
    pub fn special_ids(&self) -> BTreeSet<u32> {
        special_ids(&self.inner)
    }

    /// Id and text of the mask token.
    pub fn mask_token(&self) -> Option<(u32, &'static str)> {
        ["[MASK]", "<mask>"].into_iter().find_map(|token| Some((self.inner.token_to_id(token)?, token)))
    }

    /// Text of a single token.
    pub fn decode_token(&self, id: u32) -> String {
        let text = self.inner.decode(&[id], false).ok().map(|text| text.trim().to_string());
        text.filter(|text| !text.is_empty()).or_else(|| self.inner.id_to_token(id)).unwrap_or_default()
    }

    /// The token with the largest id, if the id is not below `vocabulary_size`.
    pub fn largest_id_from(&self, vocabulary_size: usize) -> Option<(String, u32)> {
        let largest_entry = self.inner.get_vocab(true).into_iter().max_by_key(|(_, id)| *id);
        largest_entry.filter(|(_, id)| *id as usize >= vocabulary_size)
    }

    pub fn vocabulary_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// One above the largest id of a token. A model may have more rows: its vocabulary is padded.
    pub fn id_count(&self) -> usize {
        self.id_count
    }
}

impl Tokenizer {
    pub fn with_generation_config(self, generation_config: GenerationConfig) -> Self {
        Self { generation_config, ..self }
    }

    /// End-of-text token that is appended to training examples.
    pub fn eos(&self) -> Option<u32> {
        self.generation_config.eos
    }

    /// Tokens that end generation.
    pub fn eos_ids(&self) -> &[u32] {
        &self.generation_config.eos_ids
    }

    /// Id of a token of the vocabulary.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Token of the vocabulary with this id.
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }
}

fn special_ids(inner: &Inner) -> BTreeSet<u32> {
    let added_tokens = inner.get_added_tokens_decoder();
    added_tokens.into_iter().filter(|(_, token)| token.special).map(|(id, _)| id).collect()
}

fn prompt_prefix_length(inner: &Inner) -> Result<usize> {
    let encoding = inner.encode_fast("a", true).map_err(Error::internal)?;
    Ok(encoding.get_special_tokens_mask().iter().take_while(|special| **special == 1).count())
}
