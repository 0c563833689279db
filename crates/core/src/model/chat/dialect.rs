//! Jinja as transformers' `apply_chat_template` has it, in minijinja: white space, filters, tests and functions.
//!
//! Knows nothing of messages or turns.

use super::{json, python, tags};
use chrono::NaiveDateTime;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Rest, ValueKind, ValueOrKwargs, from_args};
use minijinja::{Environment, Error, ErrorKind, Value, escape_formatter};
use std::fmt::Write;

/// The template's name in its environment; no ending that would ask for escapes.
pub const NAME: &str = "chat";

/// Put around what a `{% generation %}` tag encloses where its place is asked for. No text that people write has
/// them: they are for private use.
pub const MARKS: [char; 2] = ['\u{f8f0}', '\u{f8f1}'];

/// With the template in it, under [`NAME`].
///
/// # Errors
/// minijinja's, where the source does not parse.
pub fn environment(source: String) -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?;
    environment.set_syntax(syntax);
    environment.set_formatter(|out, state, value| match value.kind() {
        ValueKind::Number | ValueKind::Seq | ValueKind::Iterable | ValueKind::Map => {
            out.write_str(&python::text(value)).map_err(Error::from)
        }
        _ => escape_formatter(out, state, value),
    });
    environment.set_unknown_method_callback(python::call);
    environment.add_function("raise_exception", raise);
    environment.add_function("strftime_now", |format: &str| strftime(now(), format));
    environment.add_filter("tojson", json::tojson);
    environment.add_filter("string", string);
    environment.add_filter("trim", trim);
    environment.add_filter("default", default);
    environment.add_filter("d", default);
    environment.add_filter(tags::FILTER, |body: Value| body);
    environment.add_test("sequence", is_sequence);
    environment
        .add_test("iterable", |value: &Value| value.is_undefined() || (!value.is_none() && value.try_iter().is_ok()));
    environment.add_template_owned(NAME, source)?;
    Ok(environment)
}

/// The machine's local time.
pub fn now() -> NaiveDateTime {
    chrono::Local::now().naive_local()
}

/// The same with the clock at `now`.
pub fn at(mut environment: Environment<'static>, now: NaiveDateTime) -> Environment<'static> {
    environment.add_function("strftime_now", move |format: &str| strftime(now, format));
    environment
}

/// The same with [`MARKS`] around the bodies of `{% generation %}` tags.
pub fn marking(mut environment: Environment<'static>) -> Environment<'static> {
    let [open, close] = MARKS;
    environment.add_filter(tags::FILTER, move |body: &str| format!("{open}{body}{close}"));
    environment
}

/// What a template says by `raise_exception`.
#[derive(Debug)]
struct Raised;

impl std::fmt::Display for Raised {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("raised by the template")
    }
}

impl std::error::Error for Raised {}

fn raise(message: &Value) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message.to_string()).with_source(Raised))
}

/// The template's own words, where `raise_exception` is what went wrong.
pub fn raised(error: &Error) -> Option<&str> {
    let source = std::error::Error::source(error)?;
    source.is::<Raised>().then(|| error.detail()).flatten()
}

fn strftime(now: NaiveDateTime, format: &str) -> Result<String, Error> {
    let mut text = String::new();
    match write!(text, "{}", now.format(format)) {
        Ok(()) => Ok(text),
        Err(_) => Err(Error::new(ErrorKind::InvalidOperation, format!("{format:?} is no date format"))),
    }
}

fn string(value: &Value) -> Value {
    if value.kind() == ValueKind::String { value.clone() } else { Value::from(python::text(value)) }
}

/// Of anything's text, as Jinja2's; minijinja's knows other white space than python.
fn trim(value: &Value, characters: Option<&str>) -> String {
    python::strip(&python::text(value), characters).to_string()
}

/// Jinja2's `default(value, default_value="", boolean=False)`, whose arguments may be named.
fn default(value: &Value, rest: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let rest = rest.into_values();
    let (places, named): (&[Value], Kwargs) = from_args(&rest)?;
    let otherwise = match places.first() {
        Some(otherwise) => Some(otherwise.clone()),
        None => named.get("default_value")?,
    };
    let also_false = match places.get(1) {
        Some(also_false) => also_false.is_true(),
        None => named.get::<Option<bool>>("boolean")?.unwrap_or_default(),
    };
    named.assert_all_used()?;
    match value.is_undefined() || (also_false && !value.is_true()) {
        true => Ok(otherwise.unwrap_or_else(|| Value::from(""))),
        false => Ok(value.clone()),
    }
}

/// To python, texts and mappings are sequences too, and so is a slice.
fn is_sequence(value: &Value) -> bool {
    let kind = value.kind();
    value.is_undefined()
        || matches!(kind, ValueKind::String | ValueKind::Seq | ValueKind::Iterable | ValueKind::Map | ValueKind::Bytes)
}
