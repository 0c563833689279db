//! The tokens that a model says become text, piece by piece, until something says stop.
//!
//! Text is handed out as soon as it is sure: not while a character is incomplete ([`words`]), nor while it may be the
//! beginning of a stop string ([`stops`]). All pieces together are what decoding all tokens at once gives.
//!
//! Knows nothing of models, and of tokenizers only that they decode.

mod incremental_decoder;
#[cfg(test)]
mod test_tokenizers;
#[cfg(test)]
mod tests;

use super::stop_sequences::{Match, StopSequenceMatcher};
use incremental_decoder::IncrementalDecoder;

/// When to stop.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StopConditions {
    /// None of them empty.
    pub stop_sequences: Vec<String>,
    pub stop_output: StopOutput,
    /// Those that end a sequence, and others that are asked for.
    pub stop_token_ids: Vec<u32>,
    /// At least 1.
    pub max_tokens: u32,
}

/// What becomes of the stop string, and of the stop token's text where it has any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StopOutput {
    #[default]
    Exclude,
    Include,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// A stop string or a stop token.
    Stop,
    /// So many tokens as were allowed.
    Length,
}

/// What one more token adds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextDelta {
    pub text: String,
    /// Where the token begins, in characters of the whole text; one that continues a character, where that begins.
    pub offset: usize,
    pub finish_reason: Option<FinishReason>,
}

/// Writes one sequence. `decode` gives the text of tokens, special ones skipped.
pub struct Detokenizer<D> {
    decoder: IncrementalDecoder<D>,
    stop_matcher: StopSequenceMatcher,
    stop_token_ids: Vec<u32>,
    stop_output: StopOutput,
    tokens_left: u32,
    finish_reason: Option<FinishReason>,
}

impl<D: Fn(&[u32]) -> String> Detokenizer<D> {
    /// `prompt` is what the text goes on from: many tokenizers drop the space before the first word of a text, and here
    /// that is not the first. Empty where the text stands alone.
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

    /// After the finish nothing is added any more.
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
            Match::Stop(matched) => self.finish_reason(matched, FinishReason::Stop),
            Match::Continue(text) if is_stop => self.flush_with(text, FinishReason::Stop),
            Match::Continue(text) if self.tokens_left == 0 => self.flush_with(text, FinishReason::Length),
            Match::Continue(text) => text,
        };
        TextDelta { text, offset, finish_reason: self.finish_reason }
    }

    /// What was held back, where the sequence ends for a reason of others; nothing after a finish.
    pub fn flush(&mut self) -> String {
        match self.finish_reason {
            Some(_) => String::new(),
            None => self.flush_with(String::new(), FinishReason::Stop),
        }
    }

    /// `text` and all that was held back, unless a stop string turns up in it.
    fn flush_with(&mut self, text: String, finish_reason: FinishReason) -> String {
        let decoded = self.decoder.flush();
        match self.stop_matcher.push(&decoded) {
            Match::Stop(remaining) => self.finish_reason(text + &remaining, FinishReason::Stop),
            Match::Continue(remaining) => {
                let text = text + &remaining + &self.stop_matcher.flush();
                self.finish_reason(text, finish_reason)
            }
        }
    }

    fn finish_reason(&mut self, text: String, finish: FinishReason) -> String {
        self.finish_reason = Some(finish);
        text
    }
}
