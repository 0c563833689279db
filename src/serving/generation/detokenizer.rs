//! Turns the tokens of one sequence into text, token by token, and decides when the sequence ends.
//!
//! Text is returned as soon as it is final: not while a character is incomplete ([`IncrementalDecoder`]), and not while
//! it may be the beginning of a stop sequence ([`StopSequenceMatcher`]). All deltas together are the text that decoding
//! all tokens at once gives.

#[cfg(test)]
mod tests;

use super::stop_sequences::{Match, StopConditions, StopOutput, StopSequenceMatcher};

/// Stands for bytes that are not, or not yet, a character.
const REPLACEMENT: char = char::REPLACEMENT_CHARACTER;
/// A character has at most four bytes and a token at least one, so bytes that are incomplete for longer never become a
/// character.
const MAX_INCOMPLETE_TOKENS: usize = 3;
/// Least number of context tokens in the window.
const CONTEXT_TOKENS: usize = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// A stop sequence or a stop token.
    Stop,
    /// The token limit.
    Length,
}

/// Text that one token adds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextDelta {
    pub text: String,
    /// Start of the token in characters of the generated text; for a token inside a character, the start of that
    /// character.
    pub offset: usize,
    pub finish_reason: Option<FinishReason>,
}

/// Detokenizer of one sequence. `decode` returns the text of tokens without special tokens.
pub struct Detokenizer<D> {
    decoder: IncrementalDecoder<D>,
    stop_matcher: StopSequenceMatcher,
    stop_token_ids: Vec<u32>,
    stop_output: StopOutput,
    tokens_left: u32,
    finish_reason: Option<FinishReason>,
}

impl<D: Fn(&[u32]) -> String> Detokenizer<D> {
    /// `prompt` is the context of the first token: many tokenizers drop the space before the first word of a text, and
    /// the first generated word is not the first of the text. Empty for a text without a prompt.
    pub fn new(decode: D, prompt: &[u32], stop_conditions: StopConditions) -> Self {
        Self {
            decoder: IncrementalDecoder::with_prompt(prompt, decode),
            stop_matcher: StopSequenceMatcher::new(stop_conditions.stop_sequences, stop_conditions.stop_output),
            stop_token_ids: stop_conditions.stop_token_ids,
            stop_output: stop_conditions.stop_output,
            tokens_left: stop_conditions.max_tokens,
            finish_reason: None,
        }
    }

    /// Returns the text that this token completes. Adds nothing after the finish.
    pub fn push(&mut self, id: u32) -> TextDelta {
        let offset = self.decoder.emitted_characters();
        if self.finish_reason.is_some() {
            return TextDelta { text: String::new(), offset, finish_reason: self.finish_reason };
        }
        self.tokens_left = self.tokens_left.saturating_sub(1);
        let is_stop = self.stop_token_ids.contains(&id);
        let decoded = match (is_stop, self.stop_output) {
            (true, StopOutput::Exclude) => String::new(),
            _ => self.decoder.push(id),
        };
        let text = match self.stop_matcher.push(&decoded) {
            Match::Stop(matched) => self.finish(matched, FinishReason::Stop),
            Match::Continue(text) if is_stop => self.flush_with(text, FinishReason::Stop),
            Match::Continue(text) if self.tokens_left == 0 => self.flush_with(text, FinishReason::Length),
            Match::Continue(text) => text,
        };
        TextDelta { text, offset, finish_reason: self.finish_reason }
    }

    /// Ends the text and returns what was withheld; nothing after a finish.
    pub fn flush(&mut self) -> String {
        match self.finish_reason {
            Some(_) => String::new(),
            None => self.flush_with(String::new(), FinishReason::Stop),
        }
    }

    /// Returns `text` and everything withheld, up to the first stop sequence in it.
    fn flush_with(&mut self, text: String, finish_reason: FinishReason) -> String {
        let decoded = self.decoder.flush();
        match self.stop_matcher.push(&decoded) {
            Match::Stop(remaining) => self.finish(text + &remaining, FinishReason::Stop),
            Match::Continue(remaining) => {
                let text = text + &remaining + &self.stop_matcher.flush();
                self.finish(text, finish_reason)
            }
        }
    }

    fn finish(&mut self, text: String, finish_reason: FinishReason) -> String {
        self.finish_reason = Some(finish_reason);
        text
    }
}

/// Text of the tokens, and the start of each token in characters of it; for a token inside a character, the start of that character.
pub fn decode_with_offsets(decode: impl Fn(&[u32]) -> String, ids: &[u32]) -> (Vec<usize>, String) {
    let mut decoder = IncrementalDecoder::with_prompt(&[], decode);
    let (mut offsets, mut text) = (Vec::with_capacity(ids.len()), String::new());
    for id in ids {
        offsets.push(decoder.emitted_characters());
        text.push_str(&decoder.push(*id));
    }
    text.push_str(&decoder.flush());
    (offsets, text)
}

/// Decodes tokens one by one, and returns each character as soon as it is complete.
///
/// The text of a token depends on the tokens before it: a character may be spread over tokens, and the space of the
/// first word is dropped. So a window of the last tokens is decoded with every new token, and the text beyond what was
/// emitted is new. The window is cut where no character was incomplete, which bounds the work per token.
///
/// Emitted text is never taken back. Only decoders that decode runs of byte tokens at once (SentencePiece) would do so:
/// invalid bytes after a complete character spoil that character when they are decoded together.
///
/// `tokenizers::DecodeStream` does the same for valid text, but emits nothing while a text ends in invalid bytes, and
/// its window grows with them without bound.
struct IncrementalDecoder<D> {
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
    fn with_prompt(prompt: &[u32], decode: D) -> Self {
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
    fn push(&mut self, id: u32) -> String {
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
    fn flush(&mut self) -> String {
        self.emitted_bytes += self.pending_text.len();
        self.emitted_characters += self.pending_text.chars().count();
        std::mem::take(&mut self.pending_text)
    }

    /// Number of characters emitted so far.
    fn emitted_characters(&self) -> usize {
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
