//! The tokens that a model says become text, piece by piece, until something says stop.
//!
//! Text is handed out as soon as it is sure: not while a character is incomplete ([`words`]), nor while it may be the
//! beginning of a stop string ([`stops`]). All pieces together are what decoding all tokens at once gives.
//!
//! Knows nothing of models, and of tokenizers only that they decode.

mod spelling;
mod stops;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod toys;
mod words;

pub use spelling::Alphabet;

use stops::{Flow, Stops};
use words::Words;

/// When to stop.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Limits {
    /// None of them empty.
    pub stops: Vec<String>,
    pub stop_text: StopText,
    /// Those that end a sequence, and others that are asked for.
    pub stop_ids: Vec<u32>,
    /// At least 1.
    pub max_tokens: u32,
}

/// What becomes of the stop string, and of the stop token's text where it has any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StopText {
    #[default]
    Cut,
    Keep,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// A stop string or a stop token.
    Stop,
    /// So many tokens as were allowed.
    Length,
}

/// What one more token adds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    pub text: String,
    /// Where the token begins, in characters of the whole text; one that continues a character, where that begins.
    pub offset: usize,
    pub finished: Option<Finish>,
}

/// Writes one sequence. `decode` gives the text of tokens, special ones skipped.
pub struct Writer<D> {
    words: Words<D>,
    stops: Stops,
    stop_ids: Vec<u32>,
    stop_text: StopText,
    tokens_left: u32,
    finished: Option<Finish>,
}

impl<D: Fn(&[u32]) -> String> Writer<D> {
    /// `prompt` is what the text goes on from: many tokenizers drop the space before the first word of a text, and here
    /// that is not the first. Empty where the text stands alone.
    pub fn new(decode: D, prompt: &[u32], limits: Limits) -> Self {
        Self {
            words: Words::after(prompt, decode),
            stops: Stops::new(limits.stops, limits.stop_text),
            stop_ids: limits.stop_ids,
            stop_text: limits.stop_text,
            tokens_left: limits.max_tokens,
            finished: None,
        }
    }

    /// After the finish nothing is added any more.
    pub fn push(&mut self, id: u32) -> Piece {
        let offset = self.words.characters();
        if self.finished.is_some() {
            return Piece { text: String::new(), offset, finished: self.finished };
        }
        self.tokens_left = self.tokens_left.saturating_sub(1);
        let is_stop = self.stop_ids.contains(&id);
        let words = match (is_stop, self.stop_text) {
            (true, StopText::Cut) => String::new(),
            _ => self.words.push(id),
        };
        let text = match self.stops.push(&words) {
            Flow::Stops(text) => self.finish(text, Finish::Stop),
            Flow::Runs(text) if is_stop => self.rest(text, Finish::Stop),
            Flow::Runs(text) if self.tokens_left == 0 => self.rest(text, Finish::Length),
            Flow::Runs(text) => text,
        };
        Piece { text, offset, finished: self.finished }
    }

    /// What was held back, where the sequence ends for a reason of others; nothing after a finish.
    pub fn end(&mut self) -> String {
        match self.finished {
            Some(_) => String::new(),
            None => self.rest(String::new(), Finish::Stop),
        }
    }

    /// `text` and all that was held back, unless a stop string turns up in it.
    fn rest(&mut self, text: String, finish: Finish) -> String {
        let words = self.words.end();
        match self.stops.push(&words) {
            Flow::Stops(rest) => self.finish(text + &rest, Finish::Stop),
            Flow::Runs(rest) => {
                let text = text + &rest + &self.stops.end();
                self.finish(text, finish)
            }
        }
    }

    fn finish(&mut self, text: String, finish: Finish) -> String {
        self.finished = Some(finish);
        text
    }
}
