//! JSON lines: one object per line. What makes a text or a label good is not known here.

use super::columns::{SecondText, Wanted, advice};
use super::conversations;
use super::findings::{self, Flaw, listed, quoted};
use super::row::{Fields, Row, Rows, Written, as_text, number, too_long};
use super::source::{Source, without_end};
use super::spans;
use crate::task::Shape;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;

pub(super) struct Lines {
    source: Source,
    wanted: Wanted,
    limit: usize,
    raw: Vec<u8>,
}

impl Lines {
    pub fn new(source: Source, wanted: Wanted, limit: usize) -> Self {
        Self { source, wanted, limit, raw: Vec::new() }
    }

    /// Reads the next line that is not blank. Answers its number and whether it fitted.
    fn read(&mut self) -> io::Result<Option<(u64, Fit)>> {
        loop {
            self.raw.clear();
            let line = self.source.place().line;
            while self.source.place().line == line {
                if self.source.piece(&mut self.raw)? == 0 {
                    break;
                }
                if without_end(&self.raw).len() > self.limit {
                    if self.source.place().line == line {
                        self.source.skip_line()?;
                    }
                    return Ok(Some((line, Fit::TooLong)));
                }
            }
            if !self.raw.trim_ascii().is_empty() {
                return Ok(Some((line, Fit::Whole)));
            }
            if self.raw.is_empty() {
                return Ok(None);
            }
        }
    }
}

enum Fit {
    Whole,
    TooLong,
}

impl Rows for Lines {
    fn next(&mut self) -> io::Result<Option<Row<'_>>> {
        Ok(match self.read()? {
            None => None,
            Some((line, Fit::TooLong)) => Some(Row::bad(line, too_long(self.limit))),
            Some((line, Fit::Whole)) => Some(match as_text(&self.raw, line, &self.source) {
                Ok(text) => Row { line, content: parse(text, &self.wanted) },
                Err(flaw) => Row::bad(line, flaw),
            }),
        })
    }
}

/// Values stay as they were written until it is known which ones are needed, and as what.
type Object<'a> = BTreeMap<Cow<'a, str>, &'a RawValue>;

fn parse<'a>(line: &'a str, wanted: &Wanted) -> Result<Fields<'a>, Vec<Flaw>> {
    let line = line.trim();
    if !line.starts_with('{') {
        return Err(vec![no_object(line)]);
    }
    let object: Object<'a> = serde_json::from_str(line).map_err(|error| vec![unreadable(&error)])?;
    if wanted.shape == Shape::Messages {
        let messages = required(&object, wanted.shape.field(), &wanted.target).map_err(|flaw| vec![flaw])?;
        let tools = object.get("tools").filter(|tools| tools.get() != "null").copied();
        let conversation = conversations::read(messages, tools).map_err(|flaw| vec![flaw])?;
        return Ok(Fields::new(Cow::Borrowed(messages.get()), None, Written::Conversation(conversation)));
    }
    if wanted.shape == Shape::Chosen
        && let Some(turns) = conversations::Turns::of(|name| object.get(name).copied(), wanted)
    {
        return turns.read().map_err(|flaw| vec![flaw]);
    }
    let text = required(&object, wanted.shape.text(), &wanted.text);
    let target = required(&object, wanted.shape.field(), &wanted.target);
    let second = wanted.second.as_ref().map(|second| self::second(&object, second)).transpose();
    match (text, second, target) {
        (Ok(text), Ok(second), Ok(target)) => fields(wanted.shape, text, second.flatten(), target),
        (text, second, target) => Err([text.err(), second.err(), target.err()].into_iter().flatten().collect()),
    }
}

/// Everything that is wrong with them, or what they say.
fn fields<'a>(
    shape: Shape,
    text: &'a RawValue,
    second: Option<Cow<'a, str>>,
    target: &'a RawValue,
) -> Result<Fields<'a>, Vec<Flaw>> {
    let one = |flaw: Flaw| vec![flaw];
    match shape {
        Shape::Tags => {
            let (tokens, tags) = (strings(text, "tokens"), list(target, "tags"));
            let (Ok(tokens), Ok(tags)) = (&tokens, &tags) else {
                return Err([tokens.err(), tags.err()].into_iter().flatten().collect());
            };
            Fields::tagged(tokens, tags.clone()).map_err(one)
        }
        Shape::Entities => {
            let text = string(text, shape.text()).map_err(one)?;
            let entities = serde_json::from_str(target.get()).map_err(|_| one(no_entities(target)))?;
            let spans::Tagged { words, tags, note } = spans::tagged(&text, entities).map_err(one)?;
            Ok(Fields { note, ..Fields::new(text, None, Written::Tags { words, tags }) })
        }
        _ => match (string(text, shape.text()), written(target, shape)) {
            (Ok(text), Ok(target)) => Ok(Fields::new(text, second, target)),
            (text, target) => Err([text.err(), target.err()].into_iter().flatten().collect()),
        },
    }
}

fn second<'a>(object: &Object<'a>, second: &SecondText) -> Result<Option<Cow<'a, str>>, Flaw> {
    let value = object.get(second.name.as_str()).copied();
    if value.is_none() && second.is_needed {
        return Err(missing(object, second.field, &second.name));
    }
    value.filter(|value| value.get() != "null").map(|value| string(value, second.field)).transpose()
}

fn required<'a>(object: &Object<'a>, field: &str, name: &str) -> Result<&'a RawValue, Flaw> {
    match object.get(name) {
        Some(value) if value.get() != "null" => Ok(*value),
        _ => Err(missing(object, field, name)),
    }
}

fn string<'a>(value: &'a RawValue, field: &str) -> Result<Cow<'a, str>, Flaw> {
    if !value.get().starts_with('"') {
        let message = format!("`{field}` is {}, and has to be a string", kind(value));
        return Err(Flaw::new(findings::WRONG_TYPE, message));
    }
    // Without an escape the content stands between the quotes as it is.
    match value.get().strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(content) if !content.contains('\\') => Ok(Cow::Borrowed(content)),
        _ => serde_json::from_str(value.get()).map(Cow::Owned).map_err(|error| unreadable(&error)),
    }
}

fn written(value: &RawValue, shape: Shape) -> Result<Written<'_>, Flaw> {
    let field = shape.field();
    match shape {
        Shape::Label => class(value, "`label`").map(Written::Label),
        Shape::Labels => list(value, field).map(Written::Labels),
        Shape::Positive => string(value, field).map(Written::Positive),
        Shape::Value => numeric(value, field).map(Written::Value),
        Shape::Score => numeric(value, field).map(Written::Score),
        Shape::Text => Ok(Written::Text),
        Shape::Completion => string(value, field).map(Written::Completion),
        Shape::Chosen => string(value, field).map(Written::Chosen),
        Shape::Tags | Shape::Entities | Shape::Messages => unreachable!("they are read with their text"),
    }
}

fn numeric(value: &RawValue, field: &str) -> Result<f64, Flaw> {
    match value.get().as_bytes().first() {
        Some(b'[' | b'{' | b't' | b'f') => {
            let message = format!("`{field}` is {}, and has to be a number such as 3.5", kind(value));
            Err(Flaw::new(findings::WRONG_TYPE, message))
        }
        Some(b'"') => number(field, &string(value, field)?),
        _ => number(field, value.get()),
    }
}

/// Of classes.
fn list<'a>(value: &'a RawValue, field: &str) -> Result<Vec<Cow<'a, str>>, Flaw> {
    let what = format!("an item of `{field}`");
    items(value, field)?.into_iter().map(|item| class(item, &what)).collect()
}

fn strings<'a>(value: &'a RawValue, field: &str) -> Result<Vec<Cow<'a, str>>, Flaw> {
    items(value, field)?.into_iter().map(|item| string(item, field)).collect()
}

fn items<'a>(value: &'a RawValue, field: &str) -> Result<Vec<&'a RawValue>, Flaw> {
    if !value.get().starts_with('[') {
        let message = format!("`{field}` is {}, and has to be a list of {field}, if only an empty one", kind(value));
        return Err(Flaw::new(findings::WRONG_TYPE, message));
    }
    serde_json::from_str(value.get()).map_err(|error| unreadable(&error))
}

fn no_entities(value: &RawValue) -> Flaw {
    let what =
        if value.get().starts_with('[') { "a list of something else".to_string() } else { kind(value).to_string() };
    let message = format!(
        "`entities` is {what}, and has to be a list of objects like {{\"start\": 0, \"end\": 5, \"label\": \"city\"}}"
    );
    Flaw::new(findings::WRONG_TYPE, message)
}

/// A label is a class, also where it looks like a number: its text counts.
fn class<'a>(value: &'a RawValue, what: &str) -> Result<Cow<'a, str>, Flaw> {
    match value.get().as_bytes().first() {
        Some(b'[' | b'{' | b'n') => {
            let message = format!("{what} is {}, and has to be a string, a number, true or false", kind(value));
            Err(Flaw::new(findings::WRONG_TYPE, message))
        }
        Some(b'"') => string(value, what),
        _ => Ok(Cow::Borrowed(value.get())),
    }
}

fn kind(value: &RawValue) -> &'static str {
    match value.get().as_bytes().first() {
        Some(b'{') => "an object",
        Some(b'[') => "a list",
        Some(b'"') => "a string",
        Some(b't' | b'f') => "true or false",
        Some(b'n') => "null",
        _ => "a number",
    }
}

fn missing(object: &Object<'_>, field: &str, name: &str) -> Flaw {
    let null = if object.contains_key(name) { "a null for" } else { "no" };
    let names: Vec<&str> = object.keys().map(AsRef::as_ref).collect();
    let message = format!(
        "the object has {null} {}; its fields are {}. {}",
        quoted(name),
        if names.is_empty() { "none".to_string() } else { listed(names.into_iter()) },
        advice(field)
    );
    Flaw::new(findings::MISSING_FIELD, message)
}

fn no_object(line: &str) -> Flaw {
    let advice = match line.chars().next() {
        Some('[') => "the line holds a JSON list: write its objects one to a line",
        _ => "the line is not a JSON object like {\"text\": \"…\", \"label\": \"…\"}",
    };
    Flaw::new(findings::UNREADABLE_RECORD, advice)
}

fn unreadable(error: &serde_json::Error) -> Flaw {
    let said = error.to_string();
    // The parser counts from the start of the line; its own "at line 1" would mislead.
    let reason = said.split(" at line ").next().unwrap_or_default();
    let message = format!("the line is not valid JSON (near its byte {}): {reason}", error.column());
    Flaw::new(findings::UNREADABLE_RECORD, message)
}
