//! What a task is asked, and the sequences that the base reads for it.

use super::{Config, Example, Target, causal_language_model, word_spans};
use crate::error::Result;
use crate::model::{CharSpan, Tokenizer, Tokens};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use utoipa::ToSchema;

/// One thing to predict for: a text, perhaps with its pair, or words that are given one by one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Left out where there are `tokens`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text_pair: Option<String>,
    /// Instead of `text`: its words, which are joined by single spaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Vec<String>>,
}

impl Input {
    pub fn from_text(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }

    /// The text as the base reads it.
    pub fn joined_text(&self) -> Cow<'_, str> {
        match &self.tokens {
            None => Cow::Borrowed(&self.text),
            Some(tokens) => Cow::Owned(word_spans::join_words(tokens.iter().map(String::as_str)).0),
        }
    }

    /// The text, and where its words are.
    pub fn text_and_word_spans(&self) -> (Cow<'_, str>, Vec<CharSpan>) {
        match &self.tokens {
            None => (Cow::Borrowed(&self.text), word_spans::split_words(&self.text)),
            Some(tokens) => {
                let (text, spans) = word_spans::join_words(tokens.iter().map(String::as_str));
                (Cow::Owned(text), spans)
            }
        }
    }
}

impl From<Example> for Input {
    /// What would be asked for the example's own text.
    fn from(example: Example) -> Self {
        let Example { text, text_pair, target, .. } = example;
        if let Target::Tags { words: word_spans, .. } = &target {
            let tokens = word_spans.iter().map(|span| word_spans::slice_chars(&text, span));
            let is_pretokenized =
                word_spans::join_words(tokens.clone()).0 == text && word_spans::split_words(&text) != *word_spans;
            let tokens = is_pretokenized.then(|| tokens.map(str::to_string).collect());
            return Self { text: if tokens.is_some() { String::new() } else { text }, text_pair: None, tokens };
        }
        if let Target::Conversation(conversation) | Target::ConversationPreference { chosen: conversation, .. } =
            &target
        {
            let message_text = conversation.text();
            // A probe is of some text, if only of this.
            return Self::from_text(if message_text.trim().is_empty() { "…".to_string() } else { message_text });
        }
        // The second text of a scored pair is embedded by itself.
        let text_pair = text_pair.filter(|_| !matches!(target, Target::Score(_)));
        Self { text, text_pair, tokens: None }
    }
}

impl Config {
    /// What the base reads of an input: at most `max_length` tokens.
    pub fn tokenize_input(&self, tokenizer: &Tokenizer, input: &Input, max_length: usize) -> Result<Tokens> {
        match self {
            Self::TokenClassification(_) => {
                let (text, words) = input.text_and_word_spans();
                tokenizer.encode_words(&text, &words, max_length)
            }
            Self::MaskedLanguageModel(_) => {
                let mut tokens = tokenizer.encode(&input.joined_text(), None, max_length)?;
                let mask_id = tokenizer.mask_token().map(|(mask, _)| mask);
                tokens.target_positions = (0..)
                    .zip(&tokens.ids)
                    .filter(|(_, id)| Some(**id) == mask_id)
                    .map(|(position, _)| position)
                    .collect();
                Ok(tokens)
            }
            _ => tokenizer.encode(&input.joined_text(), input.text_pair.as_deref(), max_length),
        }
    }

    /// What it reads of an example: one sequence, or one for each of the texts that are compared.
    pub fn tokenize_example(&self, tokenizer: &Tokenizer, example: &Example, max_length: usize) -> Result<Vec<Tokens>> {
        if self.is_generative() {
            return causal_language_model::tokenize_example(tokenizer, example, max_length);
        }
        let encode = |text: &str| tokenizer.encode(text, None, max_length);
        let (text, pair) = (example.text.as_str(), example.text_pair.as_deref());
        match &example.target {
            Target::Tags { words, .. } => Ok(vec![tokenizer.encode_words(text, words, max_length)?]),
            Target::Positive { positive, negative } => {
                [text, positive].into_iter().chain(negative.as_deref()).map(encode).collect()
            }
            Target::Score(_) => [text].into_iter().chain(pair).map(encode).collect(),
            _ => Ok(vec![tokenizer.encode(text, pair, max_length)?]),
        }
    }
}
