//! `tojson` filter with the output of Python's `json.dumps`.

use super::python;
use minijinja::value::{Kwargs, Rest, ValueKind, ValueOrKwargs, from_args};
use minijinja::{Error, ErrorKind, Value};

/// Arguments of transformers' `tojson`.
struct JsonFormatter {
    ensure_ascii: bool,
    indent: Option<String>,
    item_separator: String,
    key_separator: String,
    sort_keys: bool,
}

/// transformers' `tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False)`. Unlike Jinja2's filter it
/// does not escape HTML.
pub fn tojson(value: &Value, arguments: Rest<ValueOrKwargs>) -> Result<String, Error> {
    let rest = arguments.into_values();
    let (positional, keyword): (&[Value], Kwargs) = from_args(&rest)?;
    let argument = |index: usize, name: &str| {
        let value = match positional.get(index) {
            Some(value) => Some(value.clone()),
            None => keyword.get::<Option<Value>>(name)?,
        };
        Ok::<_, Error>(value.filter(|value| !value.is_none()))
    };
    let ensure_ascii = argument(0, "ensure_ascii")?.is_some_and(|value| value.is_true());
    let indent = argument(1, "indent")?.map(|value| match value.as_usize() {
        Some(width) => " ".repeat(width),
        None => value.as_str().unwrap_or_default().to_string(),
    });
    let separators = argument(2, "separators")?;
    let sort_keys = argument(3, "sort_keys")?.is_some_and(|value| value.is_true());
    keyword.assert_all_used()?;
    let separator_at = |index: usize, default_value: &str| match &separators {
        Some(pair) => pair.get_item_by_index(index).map(|one| one.to_string()),
        None => Ok(default_value.to_string()),
    };
    let item_separator = separator_at(0, if indent.is_some() { "," } else { ", " })?;
    let formatter =
        JsonFormatter { ensure_ascii, indent, item_separator, key_separator: separator_at(1, ": ")?, sort_keys };
    let mut out = String::new();
    formatter.write_value(value, 0, &mut out)?;
    Ok(out)
}

impl JsonFormatter {
    fn write_value(&self, value: &Value, depth: usize, out: &mut String) -> Result<(), Error> {
        match value.kind() {
            ValueKind::None => out.push_str("null"),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => out.push_str(&python::number_repr(value, "NaN", "Infinity")),
            ValueKind::String => self.write_string(value.as_str().unwrap_or_default(), out),
            ValueKind::Seq | ValueKind::Iterable => {
                let items = value.try_iter()?.checked().collect::<Result<Vec<Value>, Error>>()?;
                self.write_items(['[', ']'], items, depth, out, |one, out| self.write_value(&one, depth + 1, out))?;
            }
            ValueKind::Map => {
                let mut entries = self.entries(value)?;
                if self.sort_keys {
                    entries.sort_by(|(first, _), (second, _)| first.cmp(second));
                }
                self.write_items(['{', '}'], entries, depth, out, |(key, value), out| {
                    self.write_string(&key, out);
                    out.push_str(&self.key_separator);
                    self.write_value(&value, depth + 1, out)
                })?;
            }
            other => return Err(unserializable(&other)),
        }
        Ok(())
    }

    fn entries(&self, map: &Value) -> Result<Vec<(String, Value)>, Error> {
        let entry = |key: Result<Value, Error>| {
            let key = key?;
            let name = match key.kind() {
                ValueKind::String => key.as_str().unwrap_or_default().to_string(),
                ValueKind::None => "null".to_string(),
                ValueKind::Bool => if key.is_true() { "true" } else { "false" }.to_string(),
                ValueKind::Number => python::number_repr(&key, "NaN", "Infinity"),
                other => return Err(unserializable(&other)),
            };
            Ok((name, map.get_item(&key)?))
        };
        map.try_iter()?.checked().map(entry).collect()
    }

    fn write_items<T>(
        &self,
        [open, close]: [char; 2],
        items: Vec<T>,
        depth: usize,
        out: &mut String,
        mut write_item: impl FnMut(T, &mut String) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let start_line = |depth: usize, out: &mut String| {
            if let Some(indent) = &self.indent {
                out.push('\n');
                out.extend(std::iter::repeat_n(indent.as_str(), depth));
            }
        };
        let is_empty = items.is_empty();
        out.push(open);
        for (index, item) in items.into_iter().enumerate() {
            if index > 0 {
                out.push_str(&self.item_separator);
            }
            start_line(depth + 1, out);
            write_item(item, out)?;
        }
        if !is_empty {
            start_line(depth, out);
        }
        out.push(close);
        Ok(())
    }

    fn write_string(&self, text: &str, out: &mut String) {
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
                character if character < ' ' || (self.ensure_ascii && !(' '..='~').contains(&character)) => {
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
