//! Values as python's `json.dumps` writes them.
//!
//! Knows nothing of chats.

use super::python;
use minijinja::value::{Kwargs, Rest, ValueKind, ValueOrKwargs, from_args};
use minijinja::{Error, ErrorKind, Value};

/// The arguments of transformers' `tojson`.
struct Style {
    ascii: bool,
    indent: Option<String>,
    between: String,
    after_key: String,
    sorted: bool,
}

/// transformers' `tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False)`: unlike Jinja2's
/// own it escapes no HTML.
pub fn tojson(value: &Value, rest: Rest<ValueOrKwargs>) -> Result<String, Error> {
    let rest = rest.into_values();
    let (places, named): (&[Value], Kwargs) = from_args(&rest)?;
    let argument = |place: usize, name: &str| match places.get(place) {
        Some(value) => Ok(Some(value.clone())),
        None => named.get::<Option<Value>>(name),
    };
    let ascii = argument(0, "ensure_ascii")?.is_some_and(|value| value.is_true());
    let indent = argument(1, "indent")?.filter(|value| !value.is_none()).map(|value| match value.as_usize() {
        Some(width) => " ".repeat(width),
        None => value.as_str().unwrap_or_default().to_string(),
    });
    let separators = argument(2, "separators")?.filter(|value| !value.is_none());
    let sorted = argument(3, "sort_keys")?.is_some_and(|value| value.is_true());
    named.assert_all_used()?;
    let separator = |place: usize, otherwise: &str| match &separators {
        Some(both) => both.get_item_by_index(place).map(|one| one.to_string()),
        None => Ok(otherwise.to_string()),
    };
    let between = separator(0, if indent.is_some() { "," } else { ", " })?;
    let style = Style { ascii, indent, between, after_key: separator(1, ": ")?, sorted };
    let mut out = String::new();
    style.write(value, 0, &mut out)?;
    Ok(out)
}

impl Style {
    fn write(&self, value: &Value, depth: usize, out: &mut String) -> Result<(), Error> {
        match value.kind() {
            ValueKind::None => out.push_str("null"),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => out.push_str(&python::number(value, "NaN", "Infinity")),
            ValueKind::String => self.text(value.as_str().unwrap_or_default(), out),
            ValueKind::Seq | ValueKind::Iterable => {
                let all = value.try_iter()?.checked().collect::<Result<Vec<Value>, Error>>()?;
                self.items(['[', ']'], all, depth, out, |one, out| self.write(&one, depth + 1, out))?;
            }
            ValueKind::Map => {
                let mut all = self.entries(value)?;
                if self.sorted {
                    all.sort_by(|(first, _), (second, _)| first.cmp(second));
                }
                self.items(['{', '}'], all, depth, out, |(key, value), out| {
                    self.text(&key, out);
                    out.push_str(&self.after_key);
                    self.write(&value, depth + 1, out)
                })?;
            }
            other => return Err(unserializable(&other)),
        }
        Ok(())
    }

    fn entries(&self, map: &Value) -> Result<Vec<(String, Value)>, Error> {
        let one = |key: Result<Value, Error>| {
            let key = key?;
            let name = match key.kind() {
                ValueKind::String => key.as_str().unwrap_or_default().to_string(),
                ValueKind::None => "null".to_string(),
                ValueKind::Bool => if key.is_true() { "true" } else { "false" }.to_string(),
                ValueKind::Number => python::number(&key, "NaN", "Infinity"),
                other => return Err(unserializable(&other)),
            };
            Ok((name, map.get_item(&key)?))
        };
        map.try_iter()?.checked().map(one).collect()
    }

    fn items<T>(
        &self,
        [open, close]: [char; 2],
        all: Vec<T>,
        depth: usize,
        out: &mut String,
        mut write: impl FnMut(T, &mut String) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let line = |depth: usize, out: &mut String| {
            if let Some(indent) = &self.indent {
                out.push('\n');
                out.extend(std::iter::repeat_n(indent.as_str(), depth));
            }
        };
        let is_empty = all.is_empty();
        out.push(open);
        for (place, one) in all.into_iter().enumerate() {
            if place > 0 {
                out.push_str(&self.between);
            }
            line(depth + 1, out);
            write(one, out)?;
        }
        if !is_empty {
            line(depth, out);
        }
        out.push(close);
        Ok(())
    }

    fn text(&self, text: &str, out: &mut String) {
        out.push('"');
        for character in text.chars() {
            match character {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                character if character < ' ' || (self.ascii && !(' '..='~').contains(&character)) => {
                    let mut units = [0; 2];
                    out.extend(character.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")));
                }
                character => out.push(character),
            }
        }
        out.push('"');
    }
}

fn unserializable(kind: &ValueKind) -> Error {
    Error::new(ErrorKind::InvalidOperation, format!("a value of type {kind} has no JSON form"))
}
