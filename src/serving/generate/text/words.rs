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
const INCOMPLETE: char = char::REPLACEMENT_CHARACTER;
/// A character has at most four bytes, and a token at least one: longer nothing stays incomplete that ever becomes a
/// character.
const PATIENCE: usize = 3;
/// Tokens of context that are kept at least.
const CONTEXT: usize = 4;

pub struct Words<D> {
    decode: D,
    window: Vec<u32>,
    /// Tokens at the window's beginning that may be forgotten: after them nothing was incomplete.
    past: usize,
    /// Tokens since nothing was incomplete.
    open: usize,
    /// Bytes of the window's text that have been said.
    said: usize,
    /// The text behind them, which is not sure.
    held: String,
    characters: usize,
}

impl<D: Fn(&[u32]) -> String> Words<D> {
    /// What goes on from the prompt, of which only the end matters.
    pub fn after(prompt: &[u32], decode: D) -> Self {
        let end = |more| &prompt[prompt.len().saturating_sub(2 * CONTEXT + more)..];
        // Not from the middle of a character, which would spoil those after it where decoders take bytes by the run.
        let is_whole = |end: &&[u32]| !decode(end).starts_with(INCOMPLETE);
        let window = (0..=PATIENCE).map(end).find(is_whole).unwrap_or(end(0)).to_vec();
        let said = decode(&window).len();
        Self { decode, window, past: 0, open: 0, said, held: String::new(), characters: 0 }
    }

    /// The text that is sure now.
    pub fn push(&mut self, id: u32) -> String {
        self.window.push(id);
        self.open += 1;
        let text = (self.decode)(&self.window);
        let unsure = self.unsure(&text);
        // Where a tokenizer takes back what was said, bytes need not be those of whole characters.
        let start = text.ceil_char_boundary(self.said.min(text.len()));
        let new = text.get(start..text.len() - unsure).unwrap_or_default().to_string();
        if unsure == 0 && self.open == 1 && new.is_empty() && self.said > 0 {
            // Special tokens and the like, which may come in any number and would fill the window.
            self.window.pop();
            self.open = 0;
            return new;
        }
        if !new.is_empty() {
            self.said = start + new.len();
        }
        self.held = text[start + new.len()..].to_string();
        self.characters += new.chars().count();
        self.open = if unsure == 0 { 0 } else { self.open };
        self.shorten();
        new
    }

    /// What is still incomplete, as it is.
    pub fn end(&mut self) -> String {
        self.said += self.held.len();
        self.characters += self.held.chars().count();
        std::mem::take(&mut self.held)
    }

    /// The characters of all that was said.
    pub fn characters(&self) -> usize {
        self.characters
    }

    /// Bytes at the text's end that more tokens may change.
    fn unsure(&self, text: &str) -> usize {
        let all = text.len() - text.trim_end_matches(INCOMPLETE).len();
        if self.open <= PATIENCE { all } else { all.min(INCOMPLETE.len_utf8()) }
    }

    fn shorten(&mut self) {
        let length = self.window.len();
        if self.open == 0 && length >= self.past + CONTEXT {
            self.forget(self.past);
            self.past = self.window.len();
        } else if length >= self.past + 4 * CONTEXT {
            // Nothing but bytes that are no characters: there is no better place. The last of them may yet begin one,
            // with special tokens in between.
            self.forget(length - 2 * CONTEXT);
            self.past = 0;
        }
    }

    fn forget(&mut self, count: usize) {
        if count > 0 {
            self.window.drain(..count);
            self.said = (self.decode)(&self.window).len().saturating_sub(self.held.len());
        }
    }
}
