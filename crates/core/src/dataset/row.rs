//! One row as it stands in the file, before it is judged: the seam between the formats and the rules.

use super::diagnostics::{self, Diagnostic, quote};
use super::line_source::LineSource;
use crate::model::CharSpan;
use crate::task::{Conversation, Example, RowSchema, Target, word_spans};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::io;

/// A format's reader.
pub(super) trait RowReader {
    /// The next row, in the order of the file. Blank lines are none.
    fn next_row(&mut self) -> io::Result<Option<ParsedRow<'_>>>;
}

/// A record: the line where it begins, and its fields or everything that keeps it from having them.
pub(super) struct ParsedRow<'a> {
    pub line: u64,
    pub fields: Result<RowFields<'a>, Vec<Diagnostic>>,
}

pub(super) struct RowFields<'a> {
    pub text: Cow<'a, str>,
    /// The second text of a pair, or the text that does not belong to the first.
    pub second_text: Option<Cow<'a, str>>,
    pub target: RawTarget<'a>,
    /// Worth a warning.
    pub warning: Option<Diagnostic>,
}

/// What a row teaches, as it is written.
pub(super) enum RawTarget<'a> {
    Label(Cow<'a, str>),
    Labels(Vec<Cow<'a, str>>),
    Value(f64),
    /// Of the text's words.
    Tags {
        word_spans: Vec<CharSpan>,
        tags: Vec<Cow<'a, str>>,
    },
    Positive(Cow<'a, str>),
    Score(f64),
    Completion(Cow<'a, str>),
    /// The better answer; the other is the second text.
    Chosen(Cow<'a, str>),
    Conversation(Conversation),
    /// The better conversation, and the other.
    ChosenConversation(Box<[Conversation; 2]>),
    /// The text itself.
    Text,
}

impl<'a> RowFields<'a> {
    pub fn new(text: Cow<'a, str>, second_text: Option<Cow<'a, str>>, target: RawTarget<'a>) -> Self {
        Self { text, second_text, target, warning: None }
    }

    /// Words that are given one by one, with their tags.
    ///
    /// # Errors
    /// Where their numbers differ, or a token is blank.
    pub fn from_tagged_tokens(tokens: &[Cow<'_, str>], tags: Vec<Cow<'a, str>>) -> Result<Self, Diagnostic> {
        if tokens.len() != tags.len() {
            let message = format!("there are {} tokens and {} tags: give each token its tag", tokens.len(), tags.len());
            return Err(Diagnostic::new(diagnostics::TAG_COUNT, message));
        }
        let tokens: Vec<&str> = tokens.iter().map(|token| token.trim()).collect();
        if tokens.iter().any(|token| token.is_empty()) {
            return Err(Diagnostic::new(
                diagnostics::EMPTY_TEXT,
                "one of the tokens is empty: leave it out, with its tag",
            ));
        }
        let (text, words) = word_spans::join_words(tokens);
        Ok(Self::new(text.into(), None, RawTarget::Tags { word_spans: words, tags }))
    }

    /// From a table's fields: sets of labels are separated by semicolons, tokens and tags by white space.
    pub fn from_columns(
        schema: RowSchema,
        text: Cow<'a, str>,
        second_text: Option<Cow<'a, str>>,
        target: Cow<'a, str>,
    ) -> Result<Self, Diagnostic> {
        let raw_target = match schema {
            RowSchema::Label => RawTarget::Label(target),
            RowSchema::Labels => RawTarget::Labels(split_non_blank(target, |character| character == ';')),
            RowSchema::Value => RawTarget::Value(parse_number("value", &target)?),
            RowSchema::Score => RawTarget::Score(parse_number("score", &target)?),
            RowSchema::Positive => RawTarget::Positive(target),
            RowSchema::Text => RawTarget::Text,
            RowSchema::Completion => RawTarget::Completion(target),
            RowSchema::Chosen => RawTarget::Chosen(target),
            RowSchema::Tags => {
                return Self::from_tagged_tokens(
                    &split_non_blank(text, char::is_whitespace),
                    split_non_blank(target, char::is_whitespace),
                );
            }
            RowSchema::Entities | RowSchema::Messages => {
                let message =
                    format!("{} do not fit into a column: send the rows as JSON lines", schema.target_field());
                return Err(Diagnostic::new(diagnostics::WRONG_TYPE, message));
            }
        };
        Ok(Self::new(text, second_text, raw_target))
    }

    pub fn to_example(&self, line: u64) -> Example {
        let second_text = self.second_text.as_deref().map(str::to_string);
        let (text_pair, target) = match &self.target {
            RawTarget::Label(label) => (second_text, Target::Label(label.to_string())),
            RawTarget::Labels(_) => {
                (second_text, Target::MultiLabel(self.target.unique_labels().map(str::to_string).collect()))
            }
            RawTarget::Value(value) => (second_text, Target::Value(*value)),
            RawTarget::Tags { word_spans: words, tags } => {
                let (word_spans, tags) = (words.clone(), tags.iter().map(ToString::to_string).collect());
                (None, Target::Tags { words: word_spans, tags })
            }
            RawTarget::Positive(positive) => {
                (None, Target::Positive { positive: positive.to_string(), negative: second_text })
            }
            RawTarget::Score(score) => (second_text, Target::Score(*score)),
            RawTarget::Completion(completion) => (None, Target::Completion(completion.to_string())),
            RawTarget::Chosen(chosen) => {
                let rejected = second_text.unwrap_or_default();
                (None, Target::Preference { chosen: chosen.to_string(), rejected })
            }
            RawTarget::Conversation(conversation) => {
                let target = Target::Conversation(conversation.clone());
                return Example { line, text: String::new(), text_pair: None, target };
            }
            RawTarget::ChosenConversation(pair) => {
                let [chosen, rejected] = pair.as_ref().clone();
                let target = Target::ConversationPreference { chosen, rejected };
                return Example { line, text: String::new(), text_pair: None, target };
            }
            RawTarget::Text => (None, Target::Text),
        };
        Example { line, text: self.text.to_string(), text_pair, target }
    }
}

/// The parts of a field that are not blank.
fn split_non_blank<'a>(field: Cow<'a, str>, is_separator: impl Fn(char) -> bool) -> Vec<Cow<'a, str>> {
    let is_non_blank = |part: &&str| !part.trim().is_empty();
    match field {
        Cow::Borrowed(field) => field.split(is_separator).filter(is_non_blank).map(Cow::Borrowed).collect(),
        Cow::Owned(field) => {
            field.split(is_separator).filter(is_non_blank).map(|part| Cow::Owned(part.to_string())).collect()
        }
    }
}

impl<'a> RawTarget<'a> {
    pub fn labels(&self) -> &[Cow<'a, str>] {
        match self {
            Self::Label(label) => std::slice::from_ref(label),
            Self::Labels(labels) => labels,
            Self::Tags { tags, .. } => tags,
            _ => &[],
        }
    }

    /// The labels in order, each once.
    pub fn unique_labels(&self) -> impl Iterator<Item = &str> {
        self.labels().iter().map(AsRef::as_ref).collect::<BTreeSet<&str>>().into_iter()
    }

    /// Equal for rows that teach the same.
    pub fn dedup_key(&self) -> String {
        match self {
            Self::Label(label) => label.to_string(),
            Self::Labels(_) => self.unique_labels().collect::<Vec<_>>().join("; "),
            Self::Tags { tags, .. } => tags.join(" "),
            Self::Positive(positive) => positive.to_string(),
            Self::Value(value) | Self::Score(value) => value.to_string(),
            Self::Completion(text) | Self::Chosen(text) => text.to_string(),
            Self::Conversation(_) | Self::ChosenConversation(_) | Self::Text => String::new(),
        }
    }
}

/// A finite number that an `f32` holds.
pub(super) fn parse_number(field_name: &str, text: &str) -> Result<f64, Diagnostic> {
    let parsed =
        text.trim().parse::<f64>().ok().filter(|value| value.is_finite() && value.abs() <= f64::from(f32::MAX));
    parsed.ok_or_else(|| {
        let message = format!("`{field_name}` is {}, and has to be a number such as 3.5", quote(text));
        Diagnostic::new(diagnostics::WRONG_TYPE, message)
    })
}

impl ParsedRow<'_> {
    pub fn invalid(line: u64, diagnostic: Diagnostic) -> Self {
        Self { line, fields: Err(vec![diagnostic]) }
    }
}

/// The record as text, or the place of its first byte that is not UTF-8.
pub(super) fn decode_utf8<'a>(raw: &'a [u8], line: u64, source: &LineSource) -> Result<&'a str, Diagnostic> {
    std::str::from_utf8(raw).map_err(|error| {
        let valid_prefix = &raw[..error.valid_up_to()];
        let bad_byte = raw.get(error.valid_up_to()).copied().unwrap_or_default();
        let line_start = valid_prefix.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let bad_line = line + valid_prefix.iter().filter(|byte| **byte == b'\n').count() as u64;
        let column = source.column(bad_line, valid_prefix.len() - line_start);
        let message =
            format!("byte {column} of line {bad_line} (0x{bad_byte:02X}) is not UTF-8: save the file as UTF-8");
        Diagnostic::new(diagnostics::BAD_UTF8, message)
    })
}

pub(super) fn record_too_long(limit: usize) -> Diagnostic {
    let message = format!("the record is longer than the {limit} bytes that this server takes: shorten it");
    Diagnostic::new(diagnostics::RECORD_TOO_LONG, message)
}
