//! Python semantics in templates where minijinja differs: `str` and `repr` of values, and methods of strings, lists and dicts.

use minijinja::value::{Tuple, ValueKind, from_args};
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
