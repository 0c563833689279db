//! Python semantics in templates where minijinja differs: `str` and `repr` of values, and methods of strings, lists and dicts,
//! and a `tojson` filter with the output of `json.dumps`.

use minijinja::value::{Kwargs, Rest, Tuple, ValueKind, ValueOrKwargs, from_args};
use minijinja::{Error, ErrorKind, State, Value};

/// Python's `str.isspace`.
fn is_space(character: char) -> bool {
    character.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&character)
}

/// Calls a method that minijinja does not have.
pub fn call_method(state: &mut State, value: &Value, method: &str, arguments: &[Value]) -> Result<Value, Error> {
    let result = match (value.as_str(), value.kind()) {
        (Some(text), _) => str_method(text, method, arguments)?,
        (None, ValueKind::Seq | ValueKind::Iterable) => list_method(value, method, arguments)?,
        (None, ValueKind::Map) if method == "copy" => Some(value.clone()),
        _ => None,
    };
    match result {
        Some(value) => Ok(value),
        None => minijinja_contrib::pycompat::unknown_method_callback(state, value, method, arguments),
    }
}

/// `None` if `method` is not implemented here.
fn str_method(text: &str, method: &str, arguments: &[Value]) -> Result<Option<Value>, Error> {
    let strip_with = |ends: for<'a> fn(&'a str, Option<&str>) -> &'a str| {
        let (characters,): (Option<&str>,) = from_args(arguments)?;
        Ok(Some(Value::from(ends(text, characters))))
    };
    match method {
        "strip" => strip_with(strip),
        "lstrip" => strip_with(lstrip),
        "rstrip" => strip_with(rstrip),
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(arguments)?;
            Ok(Some(Value::from(text.strip_prefix(prefix).unwrap_or(text))))
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(arguments)?;
            Ok(Some(Value::from(text.strip_suffix(suffix).unwrap_or(text))))
        }
        "partition" | "rpartition" => {
            let (separator,): (&str,) = from_args(arguments)?;
            let parts = match method {
                "partition" => {
                    text.split_once(separator).map_or([text, "", ""], |(left, right)| [left, separator, right])
                }
                _ => text.rsplit_once(separator).map_or(["", "", text], |(left, right)| [left, separator, right]),
            };
            Ok(Some(Value::from(Tuple::from(parts.map(Value::from)))))
        }
        "rsplit" => {
            let (separator, max_splits): (Option<&str>, Option<i64>) = from_args(arguments)?;
            rsplit(text, separator, max_splits).map(Some)
        }
        "split" if arguments.first().is_none_or(Value::is_none) && arguments.len() < 2 => {
            Ok(Some(text.split(is_space).filter(|word| !word.is_empty()).collect()))
        }
        _ => Ok(None),
    }
}

/// Python's `str.strip`: removes characters, by default whitespace, at both ends.
pub fn strip<'a>(text: &'a str, characters: Option<&str>) -> &'a str {
    rstrip(lstrip(text, characters), characters)
}

fn lstrip<'a>(text: &'a str, characters: Option<&str>) -> &'a str {
    text.trim_start_matches(|one: char| characters.map_or(is_space(one), |characters| characters.contains(one)))
}

fn rstrip<'a>(text: &'a str, characters: Option<&str>) -> &'a str {
    text.trim_end_matches(|one: char| characters.map_or(is_space(one), |characters| characters.contains(one)))
}

fn rsplit(text: &str, separator: Option<&str>, max_splits: Option<i64>) -> Result<Value, Error> {
    let Some(separator) = separator.filter(|separator| !separator.is_empty()) else {
        return Err(Error::new(ErrorKind::InvalidOperation, "rsplit needs a separator"));
    };
    let mut parts: Vec<&str> = match max_splits.and_then(|most| usize::try_from(most).ok()) {
        Some(most) => text.rsplitn(most.saturating_add(1), separator).collect(),
        None => text.rsplit(separator).collect(),
    };
    parts.reverse();
    Ok(parts.into_iter().collect())
}

fn list_method(list: &Value, method: &str, arguments: &[Value]) -> Result<Option<Value>, Error> {
    match method {
        "index" => {
            let (item,): (&Value,) = from_args(arguments)?;
            let index = list.try_iter()?.position(|one| one == *item);
            let missing = || Error::new(ErrorKind::InvalidOperation, format!("{item} is not in the list"));
            index.map(|index| Some(Value::from(index))).ok_or_else(missing)
        }
        "copy" => Ok(Some(list.clone())),
        _ => Ok(None),
    }
}

/// Python's `str`. minijinja formats floats differently, also in lists and dicts.
pub fn to_str(value: &Value) -> String {
    match value.kind() {
        ValueKind::Seq | ValueKind::Iterable | ValueKind::Map => repr(value),
        ValueKind::Number => number_repr(value, "nan", "inf"),
        _ => value.to_string(),
    }
}

fn repr(value: &Value) -> String {
    let items = || value.try_iter().into_iter().flatten();
    let join_parts = |parts: Vec<String>| parts.join(", ");
    match value.kind() {
        ValueKind::Map => {
            let repr_entry =
                |key: Value| format!("{}: {}", repr(&key), repr(&value.get_item(&key).unwrap_or_default()));
            format!("{{{}}}", join_parts(items().map(repr_entry).collect()))
        }
        ValueKind::Seq | ValueKind::Iterable => {
            let parts: Vec<String> = items().map(|one| repr(&one)).collect();
            match (value.is_tuple(), parts.len()) {
                (false, _) => format!("[{}]", join_parts(parts)),
                (true, 1) => format!("({},)", join_parts(parts)),
                (true, _) => format!("({})", join_parts(parts)),
            }
        }
        ValueKind::Number => number_repr(value, "nan", "inf"),
        _ => format!("{value:?}"),
    }
}

/// Python's `repr` of a number, with the given names of NaN and infinity: `repr` and `json.dumps` use different ones.
pub fn number_repr(value: &Value, nan: &str, infinity: &str) -> String {
    if value.is_integer() {
        return value.to_string();
    }
    let Ok(float) = f64::try_from(value.clone()) else { return value.to_string() };
    if float.is_nan() {
        return nan.to_string();
    }
    if float.is_infinite() {
        return format!("{}{infinity}", if float < 0.0 { "-" } else { "" });
    }
    let scientific = format!("{float:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    match exponent {
        // Python uses scientific notation outside of these bounds.
        -4..16 => {
            let plain = float.to_string();
            if plain.contains('.') { plain } else { plain + ".0" }
        }
        _ => format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs()),
    }
}

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
            ValueKind::Number => out.push_str(&number_repr(value, "NaN", "Infinity")),
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
                ValueKind::Number => number_repr(&key, "NaN", "Infinity"),
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
