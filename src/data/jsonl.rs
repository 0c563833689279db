//! JSON lines: one object per line. What makes a text or a label good is not known here.

use super::columns::{Pair, Wanted, advice};
use super::findings::{self, Flaw, listed, quoted};
use super::row::{Fields, Row, Rows, Written, as_text, number, too_long};
use super::source::{Source, without_end};
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
    let text = required(&object, "text", &wanted.text).and_then(|value| string(value, "text"));
    let target = required(&object, wanted.shape.field(), &wanted.target).and_then(|value| target(value, wanted.shape));
    let text_pair = pair(&object, wanted);
    match (text, text_pair, target) {
        (Ok(text), Ok(text_pair), Ok(target)) => Ok(Fields { text, text_pair, target }),
        (text, text_pair, target) => Err([text.err(), text_pair.err(), target.err()].into_iter().flatten().collect()),
    }
}

fn pair<'a>(object: &Object<'a>, wanted: &Wanted) -> Result<Option<Cow<'a, str>>, Flaw> {
    let name = wanted.text_pair.name();
    let value = match (&wanted.text_pair, object.get(name)) {
        (Pair::Needed(_), None) => return Err(missing(object, "text_pair", name)),
        (Pair::Welcome(name), _) if *name == wanted.text || *name == wanted.target => None,
        (_, value) => value.copied(),
    };
    value.filter(|value| value.get() != "null").map(|value| string(value, "text_pair")).transpose()
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

fn target(value: &RawValue, shape: Shape) -> Result<Written<'_>, Flaw> {
    match shape {
        Shape::Label => class(value).map(Written::Label),
        Shape::Labels if value.get().starts_with('[') => {
            let items: Vec<&RawValue> = serde_json::from_str(value.get()).map_err(|error| unreadable(&error))?;
            items.into_iter().map(class).collect::<Result<_, _>>().map(Written::Labels)
        }
        Shape::Labels => {
            let message = format!("`labels` is {}, and has to be a list of labels, if only an empty one", kind(value));
            Err(Flaw::new(findings::WRONG_TYPE, message))
        }
        Shape::Value => match value.get().as_bytes().first() {
            Some(b'[' | b'{' | b't' | b'f') => {
                let message = format!("`value` is {}, and has to be a number such as 3.5", kind(value));
                Err(Flaw::new(findings::WRONG_TYPE, message))
            }
            Some(b'"') => number(&string(value, "value")?).map(Written::Value),
            _ => number(value.get()).map(Written::Value),
        },
    }
}

/// A label is a class, also where it looks like a number: its text counts.
fn class(value: &RawValue) -> Result<Cow<'_, str>, Flaw> {
    match value.get().as_bytes().first() {
        Some(b'[' | b'{') => {
            let message = format!("`label` is {}, and has to be a string, a number, true or false", kind(value));
            Err(Flaw::new(findings::WRONG_TYPE, message))
        }
        Some(b'"') => string(value, "label"),
        _ => Ok(Cow::Borrowed(value.get())),
    }
}

fn kind(value: &RawValue) -> &'static str {
    match value.get().as_bytes().first() {
        Some(b'{') => "an object",
        Some(b'[') => "a list",
        Some(b'"') => "a string",
        Some(b't' | b'f') => "true or false",
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
