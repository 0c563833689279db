//! One row as it stands in the file, before it is judged: the seam between the formats and the rules.

use super::findings::{self, Flaw, quoted};
use super::source::Source;
use crate::model::Span;
use crate::task::{Conversation, Example, Shape, Target, words};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::io;

/// A format's reader.
pub(super) trait Rows {
    /// The next row, in the order of the file. Blank lines are none.
    fn next(&mut self) -> io::Result<Option<Row<'_>>>;
}

/// A record: the line where it begins, and its fields or everything that keeps it from having them.
pub(super) struct Row<'a> {
    pub line: u64,
    pub content: Result<Fields<'a>, Vec<Flaw>>,
}

pub(super) struct Fields<'a> {
    pub text: Cow<'a, str>,
    /// The second text of a pair, or the text that does not belong to the first.
    pub second: Option<Cow<'a, str>>,
    pub target: Written<'a>,
    /// Worth a warning.
    pub note: Option<Flaw>,
}

/// What a row teaches, as it is written.
pub(super) enum Written<'a> {
    Label(Cow<'a, str>),
    Labels(Vec<Cow<'a, str>>),
    Value(f64),
    /// Of the text's words.
    Tags {
        words: Vec<Span>,
        tags: Vec<Cow<'a, str>>,
    },
    Positive(Cow<'a, str>),
    Score(f64),
    Completion(Cow<'a, str>),
    /// The better answer; the other is the second text.
    Chosen(Cow<'a, str>),
    Conversation(Conversation),
    /// The better conversation, and the other.
    ChosenTurns(Box<[Conversation; 2]>),
    /// The text itself.
    Text,
}

impl<'a> Fields<'a> {
    pub fn new(text: Cow<'a, str>, second: Option<Cow<'a, str>>, target: Written<'a>) -> Self {
        Self { text, second, target, note: None }
    }

    /// Words that are given one by one, with their tags.
    ///
    /// # Errors
    /// Where their numbers differ, or a token is blank.
    pub fn tagged(tokens: &[Cow<'_, str>], tags: Vec<Cow<'a, str>>) -> Result<Self, Flaw> {
        if tokens.len() != tags.len() {
            let message = format!("there are {} tokens and {} tags: give each token its tag", tokens.len(), tags.len());
            return Err(Flaw::new(findings::TAG_COUNT, message));
        }
        let tokens: Vec<&str> = tokens.iter().map(|token| token.trim()).collect();
        if tokens.iter().any(|token| token.is_empty()) {
            return Err(Flaw::new(findings::EMPTY_TEXT, "one of the tokens is empty: leave it out, with its tag"));
        }
        let (text, words) = words::join(tokens);
        Ok(Self::new(text.into(), None, Written::Tags { words, tags }))
    }

    /// From a table's fields: sets of labels are separated by semicolons, tokens and tags by white space.
    pub fn read(
        shape: Shape,
        text: Cow<'a, str>,
        second: Option<Cow<'a, str>>,
        target: Cow<'a, str>,
    ) -> Result<Self, Flaw> {
        let written = match shape {
            Shape::Label => Written::Label(target),
            Shape::Labels => Written::Labels(split(target, |character| character == ';')),
            Shape::Value => Written::Value(number("value", &target)?),
            Shape::Score => Written::Score(number("score", &target)?),
            Shape::Positive => Written::Positive(target),
            Shape::Text => Written::Text,
            Shape::Completion => Written::Completion(target),
            Shape::Chosen => Written::Chosen(target),
            Shape::Tags => {
                return Self::tagged(&split(text, char::is_whitespace), split(target, char::is_whitespace));
            }
            Shape::Entities | Shape::Messages => {
                let message = format!("{} do not fit into a column: send the rows as JSON lines", shape.field());
                return Err(Flaw::new(findings::WRONG_TYPE, message));
            }
        };
        Ok(Self::new(text, second, written))
    }

    pub fn example(&self, line: u64) -> Example {
        let second = self.second.as_deref().map(str::to_string);
        let (text_pair, target) = match &self.target {
            Written::Label(label) => (second, Target::Label(label.to_string())),
            Written::Labels(_) => (second, Target::Labels(self.target.once().map(str::to_string).collect())),
            Written::Value(value) => (second, Target::Value(*value)),
            Written::Tags { words, tags } => {
                let (words, tags) = (words.clone(), tags.iter().map(ToString::to_string).collect());
                (None, Target::Tags { words, tags })
            }
            Written::Positive(positive) => {
                (None, Target::Positive { positive: positive.to_string(), negative: second })
            }
            Written::Score(score) => (second, Target::Score(*score)),
            Written::Completion(completion) => (None, Target::Completion(completion.to_string())),
            Written::Chosen(chosen) => {
                let rejected = second.unwrap_or_default();
                (None, Target::Chosen { chosen: chosen.to_string(), rejected })
            }
            Written::Conversation(conversation) => {
                let target = Target::Conversation(conversation.clone());
                return Example { line, text: String::new(), text_pair: None, target };
            }
            Written::ChosenTurns(pair) => {
                let [chosen, rejected] = pair.as_ref().clone();
                let target = Target::ChosenTurns { chosen, rejected };
                return Example { line, text: String::new(), text_pair: None, target };
            }
            Written::Text => (None, Target::Text),
        };
        Example { line, text: self.text.to_string(), text_pair, target }
    }
}

/// The parts of a field that are not blank.
fn split<'a>(field: Cow<'a, str>, is_end: impl Fn(char) -> bool) -> Vec<Cow<'a, str>> {
    let is_some = |part: &&str| !part.trim().is_empty();
    match field {
        Cow::Borrowed(field) => field.split(is_end).filter(is_some).map(Cow::Borrowed).collect(),
        Cow::Owned(field) => field.split(is_end).filter(is_some).map(|part| Cow::Owned(part.to_string())).collect(),
    }
}

impl<'a> Written<'a> {
    pub fn labels(&self) -> &[Cow<'a, str>] {
        match self {
            Self::Label(label) => std::slice::from_ref(label),
            Self::Labels(labels) => labels,
            Self::Tags { tags, .. } => tags,
            _ => &[],
        }
    }

    /// The labels in order, each once.
    pub fn once(&self) -> impl Iterator<Item = &str> {
        self.labels().iter().map(AsRef::as_ref).collect::<BTreeSet<&str>>().into_iter()
    }

    /// Equal for rows that teach the same.
    pub fn key(&self) -> String {
        match self {
            Self::Label(label) => label.to_string(),
            Self::Labels(_) => self.once().collect::<Vec<_>>().join("; "),
            Self::Tags { tags, .. } => tags.join(" "),
            Self::Positive(positive) => positive.to_string(),
            Self::Value(value) | Self::Score(value) => value.to_string(),
            Self::Completion(text) | Self::Chosen(text) => text.to_string(),
            Self::Conversation(_) | Self::ChosenTurns(_) | Self::Text => String::new(),
        }
    }
}

/// A finite number that an `f32` holds.
pub(super) fn number(name: &str, field: &str) -> Result<f64, Flaw> {
    let number =
        field.trim().parse::<f64>().ok().filter(|value| value.is_finite() && value.abs() <= f64::from(f32::MAX));
    number.ok_or_else(|| {
        let message = format!("`{name}` is {}, and has to be a number such as 3.5", quoted(field));
        Flaw::new(findings::WRONG_TYPE, message)
    })
}

impl Row<'_> {
    pub fn bad(line: u64, flaw: Flaw) -> Self {
        Self { line, content: Err(vec![flaw]) }
    }
}

/// The record as text, or the place of its first byte that is not UTF-8.
pub(super) fn as_text<'a>(raw: &'a [u8], line: u64, source: &Source) -> Result<&'a str, Flaw> {
    std::str::from_utf8(raw).map_err(|error| {
        let before = &raw[..error.valid_up_to()];
        let byte = raw.get(error.valid_up_to()).copied().unwrap_or_default();
        let line_start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let at_line = line + before.iter().filter(|byte| **byte == b'\n').count() as u64;
        let column = source.column(at_line, before.len() - line_start);
        let message = format!("byte {column} of line {at_line} (0x{byte:02X}) is not UTF-8: save the file as UTF-8");
        Flaw::new(findings::BAD_UTF8, message)
    })
}

pub(super) fn too_long(limit: usize) -> Flaw {
    let message = format!("the record is longer than the {limit} bytes that this server takes: shorten it");
    Flaw::new(findings::RECORD_TOO_LONG, message)
}
