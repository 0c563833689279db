//! Tokens into text as they come, each character as soon as it is complete.
//!
//! A token's text depends on those before it: characters are spread over tokens, and the first word's space is dropped.
//! So a window of the last tokens is decoded with every new one, and what it gives beyond what has been said is new.
//! The window is cut where nothing was incomplete, so that it stays short and the work for a token does not grow.
//!
//! Text that has been said is never taken back. Only decoders of bytes by the run (SentencePiece's) would do so: where
//! bytes that are no character follow a whole one written in bytes, decoding all at once spoils that one too.
//!
//! Knows nothing of stop strings.

/// What decoders put in the place of bytes that are no character, or not yet.
const REPLACEMENT: char = char::REPLACEMENT_CHARACTER;
/// A character has at most four bytes, and a token at least one: longer nothing stays incomplete that ever becomes a
/// character.
const MAX_INCOMPLETE_TOKENS: usize = 3;
/// Tokens of context that are kept at least.
const CONTEXT_TOKENS: usize = 4;

pub struct IncrementalDecoder<D> {
    decode: D,
    window_ids: Vec<u32>,
    /// Tokens at the window's beginning that may be forgotten: after them nothing was incomplete.
    droppable_tokens: usize,
    /// Tokens since nothing was incomplete.
    incomplete_tokens: usize,
    /// Bytes of the window's text that have been said.
    emitted_bytes: usize,
    /// The text behind them, which is not sure.
    pending_text: String,
    emitted_characters: usize,
}

impl<D: Fn(&[u32]) -> String> IncrementalDecoder<D> {
    /// What goes on from the prompt, of which only the end matters.
    pub fn with_prompt(prompt: &[u32], decode: D) -> Self {
        let prompt_suffix = |more| &prompt[prompt.len().saturating_sub(2 * CONTEXT_TOKENS + more)..];
        // Not from the middle of a character, which would spoil those after it where decoders take bytes by the run.
        let starts_at_character = |end: &&[u32]| !decode(end).starts_with(REPLACEMENT);
        let window = (0..=MAX_INCOMPLETE_TOKENS)
            .map(prompt_suffix)
            .find(starts_at_character)
            .unwrap_or(prompt_suffix(0))
            .to_vec();
        let emitted_bytes = decode(&window).len();
        Self {
            decode,
            window_ids: window,
            droppable_tokens: 0,
            incomplete_tokens: 0,
            emitted_bytes,
            pending_text: String::new(),
            emitted_characters: 0,
        }
    }

    /// The text that is sure now.
    pub fn push(&mut self, id: u32) -> String {
        self.window_ids.push(id);
        self.incomplete_tokens += 1;
        let text = (self.decode)(&self.window_ids);
        let incomplete_bytes = self.incomplete_bytes(&text);
        // Where a tokenizer takes back what was said, bytes need not be those of whole characters.
        let start = text.ceil_char_boundary(self.emitted_bytes.min(text.len()));
        let new = text.get(start..text.len() - incomplete_bytes).unwrap_or_default().to_string();
        if incomplete_bytes == 0 && self.incomplete_tokens == 1 && new.is_empty() && self.emitted_bytes > 0 {
            // Special tokens and the like, which may come in any number and would fill the window.
            self.window_ids.pop();
            self.incomplete_tokens = 0;
            return new;
        }
        if !new.is_empty() {
            self.emitted_bytes = start + new.len();
        }
        self.pending_text = text[start + new.len()..].to_string();
        self.emitted_characters += new.chars().count();
        self.incomplete_tokens = if incomplete_bytes == 0 { 0 } else { self.incomplete_tokens };
        self.shrink_window();
        new
    }

    /// What is still incomplete, as it is.
    pub fn flush(&mut self) -> String {
        self.emitted_bytes += self.pending_text.len();
        self.emitted_characters += self.pending_text.chars().count();
        std::mem::take(&mut self.pending_text)
    }

    /// The characters of all that was said.
    pub fn emitted_characters(&self) -> usize {
        self.emitted_characters
    }

    /// Bytes at the text's end that more tokens may change.
    fn incomplete_bytes(&self, text: &str) -> usize {
        let trailing_bytes = text.len() - text.trim_end_matches(REPLACEMENT).len();
        if self.incomplete_tokens <= MAX_INCOMPLETE_TOKENS {
            trailing_bytes
        } else {
            trailing_bytes.min(REPLACEMENT.len_utf8())
        }
    }

    fn shrink_window(&mut self) {
        let length = self.window_ids.len();
        if self.incomplete_tokens == 0 && length >= self.droppable_tokens + CONTEXT_TOKENS {
            self.drop_front(self.droppable_tokens);
            self.droppable_tokens = self.window_ids.len();
        } else if length >= self.droppable_tokens + 4 * CONTEXT_TOKENS {
            // Nothing but bytes that are no characters: there is no better place. The last of them may yet begin one,
            // with special tokens in between.
            self.drop_front(length - 2 * CONTEXT_TOKENS);
            self.droppable_tokens = 0;
        }
    }

    fn drop_front(&mut self, count: usize) {
        if count > 0 {
            self.window_ids.drain(..count);
            self.emitted_bytes = (self.decode)(&self.window_ids).len().saturating_sub(self.pending_text.len());
        }
    }
}
