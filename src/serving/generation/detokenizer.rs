//! Turns the tokens of one sequence into text, token by token, and decides when the sequence ends.
//!
//! Text is returned as soon as it is final: not while a character is incomplete ([`IncrementalDecoder`]), and not while
//! it may be the beginning of a stop sequence ([`StopSequenceMatcher`]). All deltas together are the text that decoding
//! all tokens at once gives.

mod incremental_decoder;
#[cfg(test)]
mod test_tokenizers;
#[cfg(test)]
mod tests;

use super::stop_sequences::{Match, StopConditions, StopOutput, StopSequenceMatcher};
use incremental_decoder::IncrementalDecoder;

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
