//! Training examples and inputs of requests: texts, pairs of texts, words, conversations.

use super::word_spans;
use crate::error::{Error, Result};
use crate::model::chat::{Json, Message};
use crate::model::{CharSpan, TextLimits, Tokenizer, Tokens};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use utoipa::ToSchema;

/// Training example: one row of a dataset.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Example {
    /// Line of the file where the row begins, the header being 1; for inline examples their index.
    pub line: u64,
    pub text: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text_pair: Option<String>,
    pub target: Target,
}

/// Target of an example.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    Label(String),
    /// Set of labels, each once.
    MultiLabel(Vec<String>),
    Value(f64),
    /// One tag per word of the text.
    Tags {
        words: Vec<CharSpan>,
        tags: Vec<String>,
    },
    /// Text that is similar to the example's text, and optionally one that is not.
    Positive {
        positive: String,
        negative: Option<String>,
    },
    /// Similarity of the text and its pair.
    Score(f64),
    /// Completion of the text, which is the prompt.
    Completion(String),
    /// Messages of a conversation; the example's text is empty.
    Conversation(Conversation),
    /// Preferred and rejected answer to the text, which is the prompt.
    Preference {
        chosen: String,
        rejected: String,
    },
    /// Preferred and rejected conversation, which differ in the last messages of the assistant; the example's text is empty, and
    /// messages that both have are not learned.
    ConversationPreference {
        chosen: Conversation,
        rejected: Conversation,
    },
    /// No target besides the text.
    Text,
}

impl Target {
    /// Labels of the target, possibly with repetitions.
    pub fn labels(&self) -> &[String] {
        match self {
            Self::Label(label) => std::slice::from_ref(label),
            Self::MultiLabel(labels) => labels,
            Self::Tags { tags, .. } => tags,
            Self::Value(_)
            | Self::Positive { .. }
            | Self::Score(_)
            | Self::Completion(_)
            | Self::Conversation(_)
            | Self::Preference { .. }
            | Self::ConversationPreference { .. }
            | Self::Text => &[],
        }
    }
}

impl Example {
    /// Tokens of the text with its pair.
    pub fn tokenize(&self, tokenizer: &Tokenizer, max_length: usize) -> Result<Tokens> {
        tokenizer.encode(&self.text, self.text_pair.as_deref(), max_length)
    }

    /// Error for an example whose target does not belong to the task.
    pub fn wrong_target(&self, task_type: &str) -> Error {
        let detail = format!("the example in line {} is not one of the task {task_type}", self.line);
        Error::invalid("unknown_label", detail)
    }
}

/// Training conversation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Conversation {
    pub messages: Vec<Message>,
    /// Tools that the assistant may call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<Json>,
}

impl Conversation {
    /// Texts of the messages, one per line.
    pub fn text(&self) -> String {
        let texts = self.messages.iter().filter_map(|message| message.content()?.as_str().map(str::to_string));
        texts.collect::<Vec<_>>().join("\n")
    }
}

/// Input of a prediction: a text, a pair of texts, or words.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Left out where there are `tokens`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text_pair: Option<String>,
    /// Words of the text, instead of `text`; they are joined by single spaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Vec<String>>,
}

impl Input {
    pub fn from_text(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }

    /// Tokens of the text with its pair.
    pub fn tokenize(&self, tokenizer: &Tokenizer, limits: TextLimits) -> Result<Tokens> {
        tokenizer.encode_within(&self.joined_text(), self.text_pair.as_deref(), limits)
    }

    /// Size of the texts in bytes.
    pub fn text_bytes(&self) -> usize {
        let words = self.tokens.iter().flatten().map(|word| word.len() + 1).sum::<usize>();
        self.text.len() + self.text_pair.as_ref().map_or(0, String::len) + words
    }

    /// Text that is tokenized.
    pub fn joined_text(&self) -> Cow<'_, str> {
        match &self.tokens {
            None => Cow::Borrowed(&self.text),
            Some(tokens) => Cow::Owned(word_spans::join_words(tokens.iter().map(String::as_str)).0),
        }
    }

    /// Text that is tokenized, and the spans of its words.
    pub fn text_and_word_spans(&self) -> (Cow<'_, str>, Vec<CharSpan>) {
        match &self.tokens {
            None => (Cow::Borrowed(&self.text), word_spans::split_words(&self.text)),
            Some(tokens) => {
                let (text, spans) = word_spans::join_words(tokens.iter().map(String::as_str));
                (Cow::Owned(text), spans)
            }
        }
    }

    /// Input with the words of a tagged text: as `tokens` where splitting the text would give other words.
    fn from_tagged_text(text: String, words: &[CharSpan]) -> Self {
        let tokens = words.iter().map(|span| word_spans::slice_chars(&text, span));
        let is_pretokenized =
            word_spans::join_words(tokens.clone()).0 == text && word_spans::split_words(&text) != words;
        match is_pretokenized.then(|| tokens.map(str::to_string).collect()) {
            Some(tokens) => Self { tokens: Some(tokens), ..Self::default() },
            None => Self::from_text(text),
        }
    }

    fn from_conversation(conversation: &Conversation) -> Self {
        let text = conversation.text();
        // The input of a probe must not be empty.
        Self::from_text(if text.trim().is_empty() { "…".to_string() } else { text })
    }
}

impl From<Example> for Input {
    /// Input of a request with the example's text, for the adapter's probe.
    fn from(example: Example) -> Self {
        let Example { text, text_pair, target, .. } = example;
        match target {
            Target::Tags { words, .. } => Self::from_tagged_text(text, &words),
            Target::Conversation(conversation) | Target::ConversationPreference { chosen: conversation, .. } => {
                Self::from_conversation(&conversation)
            }
            // The texts of a scored pair are embedded one by one.
            Target::Score(_) => Self::from_text(text),
            Target::Label(_)
            | Target::MultiLabel(_)
            | Target::Value(_)
            | Target::Positive { .. }
            | Target::Completion(_)
            | Target::Preference { .. }
            | Target::Text => Self { text, text_pair, tokens: None },
        }
    }
}
