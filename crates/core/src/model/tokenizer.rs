//! Text to token ids.

mod prompts;

pub use prompts::GenerationConfig;

use crate::error::{Context, Error, Result};
use serde_json::Value;
use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;
use tokenizers::utils::truncation::{TruncationDirection, TruncationParams, TruncationStrategy, truncate_encodings};
use tokenizers::{Encoding, PostProcessor, Tokenizer as Inner};

/// A tokenized input with its special tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    pub ids: Vec<u32>,
    pub type_ids: Vec<u32>,
    pub truncated: bool,
    /// For tasks that read single tokens: those that stand for words, one for each word that was not cut off.
    pub target_positions: Vec<u32>,
}

impl Tokens {
    /// One text's, whole.
    pub fn from_ids(ids: Vec<u32>) -> Self {
        Self { type_ids: vec![0; ids.len()], ids, truncated: false, target_positions: Vec::new() }
    }
}

/// What it takes to hide tokens: a mask for them, and what may be hidden.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MlmVocabulary {
    /// The mask's id.
    pub mask_id: u32,
    special_ids: BTreeSet<u32>,
    /// Ids that are not special.
    replacement_ids: Vec<u32>,
}

impl MlmVocabulary {
    pub fn new(mask_id: u32, special_ids: BTreeSet<u32>, vocabulary_size: u32) -> Self {
        let replacement_ids = (0..vocabulary_size).filter(|id| !special_ids.contains(id)).collect();
        Self { mask_id, special_ids, replacement_ids }
    }

    /// The rows of the tokens that may be hidden: all, where a text is made of nothing but special ones.
    pub fn maskable_positions(&self, tokens: &Tokens) -> Vec<u32> {
        let ids_with_positions = tokens.ids.iter().zip(0..);
        let positions: Vec<u32> =
            ids_with_positions.filter(|(id, _)| !self.special_ids.contains(id)).map(|(_, row)| row).collect();
        if positions.is_empty() { (0..tokens.ids.len() as u32).collect() } else { positions }
    }

    /// How many words there are.
    pub fn replacement_count(&self) -> usize {
        self.replacement_ids.len()
    }

    /// One of them.
    pub fn replacement_id(&self, index: usize) -> u32 {
        self.replacement_ids[index]
    }
}

/// What a sequence may be cut to at the least: the special tokens of a pair take so many.
pub const MIN_SEQUENCE_LENGTH: usize = 4;

/// Some characters of a text: Unicode code points, the end exclusive.
pub type CharSpan = Range<u32>;

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

fn invalid_chat_template(reason: &str) -> Error {
    Error::invalid("bad_chat_template", format!("the base model's chat template cannot be used: {reason}"))
}

fn damaged_tokenizer(path: &Path, reason: &str) -> Error {
    Error::invalid("base_model_damaged", format!("{} cannot be read: {reason}; fetch the model again", path.display()))
}
