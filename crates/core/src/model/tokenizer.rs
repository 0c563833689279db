//! Text to token ids.

mod generation;

pub use generation::Speech;

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
    pub picked: Vec<u32>,
}

impl Tokens {
    /// One text's, whole.
    pub fn whole(ids: Vec<u32>) -> Self {
        Self { type_ids: vec![0; ids.len()], ids, truncated: false, picked: Vec::new() }
    }
}

/// What it takes to hide tokens: a mask for them, and what may be hidden.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Masking {
    /// The mask's id.
    pub mask: u32,
    special: BTreeSet<u32>,
    /// Ids that are not special.
    words: Vec<u32>,
}

impl Masking {
    pub fn new(mask: u32, special: BTreeSet<u32>, vocabulary: u32) -> Self {
        let words = (0..vocabulary).filter(|id| !special.contains(id)).collect();
        Self { mask, special, words }
    }

    /// The rows of the tokens that may be hidden: all, where a text is made of nothing but special ones.
    pub fn open(&self, tokens: &Tokens) -> Vec<u32> {
        let rows = tokens.ids.iter().zip(0..);
        let open: Vec<u32> = rows.filter(|(id, _)| !self.special.contains(id)).map(|(_, row)| row).collect();
        if open.is_empty() { (0..tokens.ids.len() as u32).collect() } else { open }
    }

    /// How many words there are.
    pub fn words(&self) -> usize {
        self.words.len()
    }

    /// One of them.
    pub fn any(&self, index: usize) -> u32 {
        self.words[index]
    }
}

/// What a sequence may be cut to at the least: the special tokens of a pair take so many.
pub const SHORTEST: usize = 4;

/// Some characters of a text: Unicode code points, the end exclusive.
pub type Span = Range<u32>;

/// A `tokenizer.json`, without the truncation and padding that it may ask for: the layout is packed, the length ours.
pub struct Tokenizer {
    inner: Inner,
    speech: Speech,
}

impl Tokenizer {
    /// Answers the tokenizer and, for the fingerprint, what it is made of.
    pub(super) fn load(folder: &Path) -> Result<(Self, Value)> {
        let path = folder.join("tokenizer.json");
        let bytes = std::fs::read(&path).map_err(|error| unreadable(&path, &error.to_string()))?;
        Self::from_json(&bytes, &path)
    }

    /// The same of a `tokenizer.json`'s content; `path` is where it came from.
    pub(super) fn from_json(bytes: &[u8], path: &Path) -> Result<(Self, Value)> {
        let mut inner = Inner::from_bytes(bytes).map_err(|error| unreadable(path, &error.to_string()))?;
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|error| unreadable(path, &error.to_string()))?;
        let mut parts: Value = serde_json::from_slice(bytes).context("reading a tokenizer")?;
        if let Some(map) = parts.as_object_mut() {
            map.remove("truncation");
            map.remove("padding");
        }
        Ok((Self { inner, speech: Speech::default() }, parts))
    }

    /// A text's ids without special tokens.
    pub fn plain(&self, text: &str) -> Result<Vec<u32>> {
        Ok(self.inner.encode_fast(text, false).map_err(Error::internal)?.get_ids().to_vec())
    }

    /// Tokens of a text or a pair, special tokens included, at most `max_length` of them (the longer text gives way
    /// first).
    pub fn encode(&self, text: &str, text_pair: Option<&str>, max_length: usize) -> Result<Tokens> {
        let plain = |text: &str| self.inner.encode_fast(text, false).map_err(Error::internal);
        let (whole, truncated) = self.finish(plain(text)?, text_pair.map(plain).transpose()?, max_length)?;
        let (ids, type_ids) = (whole.get_ids().to_vec(), whole.get_type_ids().to_vec());
        Ok(Tokens { ids, type_ids, truncated, picked: Vec::new() })
    }

    /// The same for a text whose words are read one by one: a word's first token stands for it, or, where it has none of
    /// its own, the next one. Words are in the order of the text; those behind its cut end have no token.
    pub fn encode_words(&self, text: &str, words: &[Span], max_length: usize) -> Result<Tokens> {
        let plain = self.inner.encode_char_offsets(text, false).map_err(Error::internal)?;
        let (whole, truncated) = self.finish(plain, None, max_length)?;
        let special = whole.get_special_tokens_mask();
        let places = whole.get_offsets().iter().zip(special).enumerate().filter(|(_, (_, special))| **special == 0);
        let mut places = places.map(|(row, ((_, end), _))| (row as u32, *end as u32)).peekable();
        let mut picked = Vec::with_capacity(words.len());
        for word in words {
            while places.peek().is_some_and(|(_, end)| *end <= word.start) {
                places.next();
            }
            match places.peek() {
                Some((row, _)) => picked.push(*row),
                None => break,
            }
        }
        Ok(Tokens { ids: whole.get_ids().to_vec(), type_ids: whole.get_type_ids().to_vec(), truncated, picked })
    }

    /// Cut, and with special tokens.
    fn finish(&self, first: Encoding, second: Option<Encoding>, max_length: usize) -> Result<(Encoding, bool)> {
        let special = self.inner.get_post_processor().map_or(0, |post| post.added_tokens(second.is_some()));
        let length = first.len() + second.as_ref().map_or(0, Encoding::len);
        let room = max_length.saturating_sub(special);
        let truncated = length > room;
        let (first, second) = match truncated {
            false => (first, second),
            true => {
                let strategy = TruncationStrategy::LongestFirst;
                let direction = TruncationDirection::Right;
                let params = TruncationParams { max_length: room, strategy, stride: 0, direction };
                truncate_encodings(first, second, &params).map_err(Error::internal)?
            }
        };
        Ok((self.inner.post_process(first, second, true).map_err(Error::internal)?, truncated))
    }

    /// Whether tokens can be hidden, and how.
    pub fn masking(&self) -> Option<Masking> {
        let (mask, _) = self.mask()?;
        Some(Masking::new(mask, self.special(), self.vocabulary_size() as u32))
    }

    /// The tokens that are no text.
    pub fn special(&self) -> BTreeSet<u32> {
        let added = self.inner.get_added_tokens_decoder();
        added.into_iter().filter(|(_, token)| token.special).map(|(id, _)| id).collect()
    }

    /// The mask's id, and how it is written in a text.
    pub fn mask(&self) -> Option<(u32, &'static str)> {
        ["[MASK]", "<mask>"].into_iter().find_map(|token| Some((self.inner.token_to_id(token)?, token)))
    }

    /// A token as a text has it.
    pub fn word(&self, id: u32) -> String {
        let decoded = self.inner.decode(&[id], false).ok().map(|word| word.trim().to_string());
        decoded.filter(|word| !word.is_empty()).or_else(|| self.inner.id_to_token(id)).unwrap_or_default()
    }

    /// A token whose id is not below `vocabulary`, if there is one: the largest.
    pub fn beyond(&self, vocabulary: usize) -> Option<(String, u32)> {
        let largest = self.inner.get_vocab(true).into_iter().max_by_key(|(_, id)| *id);
        largest.filter(|(_, id)| *id as usize >= vocabulary)
    }

    pub fn vocabulary_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }
}

fn unreadable_chat(reason: &str) -> Error {
    Error::invalid("bad_chat_template", format!("the base model's chat template cannot be used: {reason}"))
}

fn unreadable(path: &Path, reason: &str) -> Error {
    Error::invalid("base_model_damaged", format!("{} cannot be read: {reason}; fetch the model again", path.display()))
}
