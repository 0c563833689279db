//! Decodes tokens one by one, and returns each character as soon as it is complete.
//!
//! The text of a token depends on the tokens before it: a character may be spread over tokens, and the space of the
//! first word is dropped. So a window of the last tokens is decoded with every new token, and the text beyond what was
//! emitted is new. The window is cut where no character was incomplete, which bounds the work per token.
//!
//! Emitted text is never taken back. Only decoders that decode runs of byte tokens at once (SentencePiece) would do so:
//! invalid bytes after a complete character spoil that character when they are decoded together.
//!
//! `tokenizers::DecodeStream` does the same for valid text, but emits nothing while a text ends in invalid bytes, and
//! its window grows with them without bound.

/// Stands for bytes that are not, or not yet, a character.
const REPLACEMENT: char = char::REPLACEMENT_CHARACTER;
/// A character has at most four bytes and a token at least one, so bytes that are incomplete for longer never become a
/// character.
const MAX_INCOMPLETE_TOKENS: usize = 3;
/// Least number of context tokens in the window.
const CONTEXT_TOKENS: usize = 4;

pub struct IncrementalDecoder<D> {
    decode: D,
    window_ids: Vec<u32>,
    /// Leading tokens of the window that may be dropped: no character was incomplete after them.
    droppable_tokens: usize,
    /// Tokens since the last one after which no character was incomplete.
    incomplete_tokens: usize,
    /// Bytes of the window's text that were emitted.
    emitted_bytes: usize,
    /// Text after the emitted bytes, which may still change.
    pending_text: String,
    emitted_characters: usize,
}

impl<D: Fn(&[u32]) -> String> IncrementalDecoder<D> {
    /// Starts with the last tokens of the prompt as context.
    pub fn with_prompt(prompt: &[u32], decode: D) -> Self {
        let prompt_suffix = |more| &prompt[prompt.len().saturating_sub(2 * CONTEXT_TOKENS + more)..];
        // A window that starts inside a character spoils the characters after it in decoders that decode byte runs.
        let starts_at_character = |suffix: &&[u32]| !decode(suffix).starts_with(REPLACEMENT);
        let window_ids = (0..=MAX_INCOMPLETE_TOKENS)
            .map(prompt_suffix)
            .find(starts_at_character)
            .unwrap_or(prompt_suffix(0))
            .to_vec();
        let emitted_bytes = decode(&window_ids).len();
        Self {
            decode,
            window_ids,
            droppable_tokens: 0,
            incomplete_tokens: 0,
            emitted_bytes,
            pending_text: String::new(),
            emitted_characters: 0,
        }
    }

    /// Returns the text that becomes final with this token.
    pub fn push(&mut self, id: u32) -> String {
        self.window_ids.push(id);
        self.incomplete_tokens += 1;
        let text = (self.decode)(&self.window_ids);
        let incomplete_bytes = self.incomplete_bytes(&text);
        // If the decoder takes back emitted text, the emitted bytes may end inside a character.
        let start = text.ceil_char_boundary(self.emitted_bytes.min(text.len()));
        let new = text.get(start..text.len() - incomplete_bytes).unwrap_or_default().to_string();
        if incomplete_bytes == 0 && self.incomplete_tokens == 1 && new.is_empty() && self.emitted_bytes > 0 {
            // Tokens without text (special tokens) would fill the window, so they are left out.
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

    /// Returns the pending text, incomplete characters replaced.
    pub fn flush(&mut self) -> String {
        self.emitted_bytes += self.pending_text.len();
        self.emitted_characters += self.pending_text.chars().count();
        std::mem::take(&mut self.pending_text)
    }

    /// Number of characters emitted so far.
    pub fn emitted_characters(&self) -> usize {
        self.emitted_characters
    }

    /// Number of bytes at the end of the text that later tokens may change.
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
            // All tokens are invalid bytes, so every cut is equally good. The last of them may still begin a character,
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
