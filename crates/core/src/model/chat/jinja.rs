//! Jinja as transformers' `apply_chat_template` has it, in minijinja: white space, filters, tests and functions.
//!
//! Knows nothing of messages or turns.

use super::{generation_tag, json_dumps, python};
use chrono::NaiveDateTime;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Rest, ValueKind, ValueOrKwargs, from_args};
use minijinja::{Environment, Error, ErrorKind, Value, escape_formatter};
use std::fmt::Write;

/// The template's name in its environment; no ending that would ask for escapes.
pub const TEMPLATE_NAME: &str = "chat";

/// Put around what a `{% generation %}` tag encloses where its place is asked for. No text that people write has
/// them: they are for private use.
pub const ASSISTANT_MARKERS: [char; 2] = ['\u{f8f0}', '\u{f8f1}'];

/// With the template in it, under [`NAME`].
///
/// # Errors
/// minijinja's, where the source does not parse.
pub fn build_environment(source: String) -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?;
    environment.set_syntax(syntax);
    environment.set_formatter(|out, state, value| match value.kind() {
        ValueKind::Number | ValueKind::Seq | ValueKind::Iterable | ValueKind::Map => {
            out.write_str(&python::to_str(value)).map_err(Error::from)
        }
        _ => escape_formatter(out, state, value),
    });
    environment.set_unknown_method_callback(python::call_method);
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", |format: &str| strftime(local_now(), format));
    environment.add_filter("tojson", json_dumps::tojson);
    environment.add_filter("string", string_filter);
    environment.add_filter("trim", trim_filter);
    environment.add_filter("default", default_filter);
    environment.add_filter("d", default_filter);
    environment.add_filter(generation_tag::GENERATION_FILTER, |body: Value| body);
    environment.add_test("sequence", is_sequence);
    environment
        .add_test("iterable", |value: &Value| value.is_undefined() || (!value.is_none() && value.try_iter().is_ok()));
    environment.add_template_owned(TEMPLATE_NAME, source)?;
    Ok(environment)
}

/// The machine's local time.
pub fn local_now() -> NaiveDateTime {
    chrono::Local::now().naive_local()
}

/// The same with the clock at `now`.
pub fn with_fixed_time(mut environment: Environment<'static>, now: NaiveDateTime) -> Environment<'static> {
    environment.add_function("strftime_now", move |format: &str| strftime(now, format));
    environment
}

/// The same with [`MARKS`] around the bodies of `{% generation %}` tags.
pub fn with_assistant_markers(mut environment: Environment<'static>) -> Environment<'static> {
    let [open, close] = ASSISTANT_MARKERS;
    environment.add_filter(generation_tag::GENERATION_FILTER, move |body: &str| format!("{open}{body}{close}"));
    environment
}

/// What a template says by `raise_exception`.
#[derive(Debug)]
struct TemplateException;

impl std::fmt::Display for TemplateException {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("raised by the template")
    }
}

impl std::error::Error for TemplateException {}

fn raise_exception(message: &Value) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message.to_string()).with_source(TemplateException))
}

/// The template's own words, where `raise_exception` is what went wrong.
pub fn exception_message(error: &Error) -> Option<&str> {
    let source = std::error::Error::source(error)?;
    source.is::<TemplateException>().then(|| error.detail()).flatten()
}

fn strftime(now: NaiveDateTime, format: &str) -> Result<String, Error> {
    let mut text = String::new();
    match write!(text, "{}", now.format(format)) {
        Ok(()) => Ok(text),
        Err(_) => Err(Error::new(ErrorKind::InvalidOperation, format!("{format:?} is no date format"))),
    }
}

fn string_filter(value: &Value) -> Value {
    if value.kind() == ValueKind::String { value.clone() } else { Value::from(python::to_str(value)) }
}

/// Of anything's text, as Jinja2's; minijinja's knows other white space than python.
fn trim_filter(value: &Value, characters: Option<&str>) -> String {
    python::strip(&python::to_str(value), characters).to_string()
}

/// Jinja2's `default(value, default_value="", boolean=False)`, whose arguments may be named.
fn default_filter(value: &Value, arguments: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let arguments = arguments.into_values();
    let (positional, keyword): (&[Value], Kwargs) = from_args(&arguments)?;
    let default_value = match positional.first() {
        Some(otherwise) => Some(otherwise.clone()),
        None => keyword.get("default_value")?,
    };
    let replaces_falsy = match positional.get(1) {
        Some(also_false) => also_false.is_true(),
        None => keyword.get::<Option<bool>>("boolean")?.unwrap_or_default(),
    };
    keyword.assert_all_used()?;
    match value.is_undefined() || (replaces_falsy && !value.is_true()) {
        true => Ok(default_value.unwrap_or_else(|| Value::from(""))),
        false => Ok(value.clone()),
    }
}

/// To python, texts and mappings are sequences too, and so is a slice.
fn is_sequence(value: &Value) -> bool {
    let kind = value.kind();
    value.is_undefined()
        || matches!(kind, ValueKind::String | ValueKind::Seq | ValueKind::Iterable | ValueKind::Map | ValueKind::Bytes)
}
