//! Encodes as much of a text as the first tokens need: the start of the text up to a cut point, and twice as much until it has
//! enough tokens.

use crate::error::{Error, Result};
use crate::model::cut_points::{first_cut, last_cut};
use std::sync::atomic::{AtomicBool, Ordering};
use tokenizers::{Encoding, Tokenizer};

/// The first encoded start of a text, in bytes: per token that is needed, and besides.
const FIRST_BYTES_PER_TOKEN: usize = 8;
const FIRST_BYTES: usize = 256;

static NEVER_CANCELLED: AtomicBool = AtomicBool::new(false);

/// Bounds of tokenizing the text of a request.
#[derive(Debug, Clone, Copy)]
pub struct TextLimits<'a> {
    /// Tokens of one sequence, special tokens included.
    pub max_length: usize,
    /// Bytes of a text that are tokenized at most. A text is refused if they are not enough to find its first tokens.
    pub max_text_bytes: usize,
    /// Ends tokenizing when it becomes true.
    pub is_cancelled: &'a AtomicBool,
}

impl TextLimits<'static> {
    /// Limits the tokens alone.
    pub fn tokens(max_length: usize) -> Self {
        Self { max_length, max_text_bytes: usize::MAX, is_cancelled: &NEVER_CANCELLED }
    }
}

/// Whether the offsets of tokens are needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offsets {
    None,
    /// In code points.
    Characters,
}

/// Encodes texts of one request.
pub struct TextEncoder<'a> {
    pub inner: &'a Tokenizer,
    /// Whether texts can be cut before spaces.
    pub can_cut: bool,
    pub offsets: Offsets,
    pub limits: TextLimits<'a>,
}

/// Encoded start of a text, without special tokens. Its tokens are the first tokens of the whole text.
pub struct TextStart<'a> {
    text: &'a str,
    /// End of the start in bytes.
    end: usize,
    pub encoding: Encoding,
}

impl TextStart<'_> {
    /// Whether the whole text is encoded.
    pub fn is_whole(&self) -> bool {
        self.end == self.text.len()
    }

    pub fn token_count(&self) -> usize {
        self.encoding.len()
    }
}

impl<'a> TextEncoder<'a> {
    /// Encodes a text, or a start of it that has more than `token_budget` tokens.
    ///
    /// # Errors
    /// `Invalid` (`text_too_long`).
    pub fn encode(&self, text: &'a str, token_budget: usize) -> Result<TextStart<'a>> {
        let target = token_budget.saturating_mul(FIRST_BYTES_PER_TOKEN).saturating_add(FIRST_BYTES);
        let mut start = self.encode_start(text, 0, target)?;
        while !start.is_whole() && start.token_count() <= token_budget {
            start = self.grow(&start)?;
        }
        Ok(start)
    }

    /// Encodes a pair as far as truncating the longer text to `token_budget` tokens in all depends on it.
    ///
    /// # Errors
    /// `Invalid` (`text_too_long`).
    pub fn encode_pair(&self, texts: [&'a str; 2], token_budget: usize) -> Result<[TextStart<'a>; 2]> {
        let [first, second] = texts;
        let mut starts = [self.encode(first, token_budget)?, self.encode(second, token_budget)?];
        // Two texts beyond the budget get a half each. An odd token goes to the text with more tokens.
        let is_odd = token_budget % 2 == 1;
        while is_odd && let Some(index) = undecided_text(&starts) {
            starts[index] = self.grow(&starts[index])?;
        }
        Ok(starts)
    }

    /// Encodes about twice as much of the text.
    fn grow(&self, start: &TextStart<'a>) -> Result<TextStart<'a>> {
        self.encode_start(start.text, start.end, start.end.saturating_mul(2))
    }

    /// Encodes the text up to a cut point near `target`, which is beyond `previous_end`.
    fn encode_start(&self, text: &'a str, previous_end: usize, target: usize) -> Result<TextStart<'a>> {
        if self.limits.is_cancelled.load(Ordering::Relaxed) {
            return Err(Error::internal("tokenizing was cancelled"));
        }
        let end = self.next_end(text, previous_end, target)?;
        let start = &text[..end];
        let encoding = match self.offsets {
            Offsets::None => self.inner.encode_fast(start, false),
            Offsets::Characters => self.inner.encode_char_offsets(start, false),
        };
        Ok(TextStart { text, end, encoding: encoding.map_err(Error::internal)? })
    }

    fn next_end(&self, text: &str, previous_end: usize, target: usize) -> Result<usize> {
        let max_bytes = self.limits.max_text_bytes;
        let cut = || {
            let target = target.min(max_bytes);
            last_cut(text, previous_end, target).or_else(|| first_cut(text, target.max(previous_end), max_bytes))
        };
        if text.len() <= target.min(max_bytes) {
            return Ok(text.len());
        }
        let cut = if self.can_cut { cut() } else { None };
        cut.or_else(|| (text.len() <= max_bytes).then_some(text.len())).ok_or_else(|| text_too_long(text, max_bytes))
    }
}

/// The text to encode further before it is known which of two texts has more tokens.
fn undecided_text(starts: &[TextStart; 2]) -> Option<usize> {
    let [first, second] = starts;
    match (first.is_whole(), second.is_whole()) {
        (true, true) => None,
        (true, false) => (second.token_count() <= first.token_count()).then_some(1),
        (false, true) => (first.token_count() <= second.token_count()).then_some(0),
        // The shorter text ends first.
        (false, false) => Some(usize::from(second.text.len() < first.text.len())),
    }
}

fn text_too_long(text: &str, max_bytes: usize) -> Error {
    let detail = format!(
        "a text has {} bytes, and its first tokens are not found in {max_bytes} bytes, because it has too long words or runs of \
         white space, or because this base model's tokenizer reads texts as a whole: shorten it",
        text.len()
    );
    Error::invalid("text_too_long", detail)
}
