//! minijinja environment with the whitespace rules, filters, tests and functions of transformers' `apply_chat_template`.

use super::{generation_tag, python};
use chrono::NaiveDateTime;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Rest, ValueKind, ValueOrKwargs, from_args};
use minijinja::{Environment, Error, ErrorKind, Value, escape_formatter};
use std::fmt::Write;

/// Name of the template in its environment. It has no extension, so that minijinja does not escape the output.
pub const TEMPLATE_NAME: &str = "chat";

/// Markers around the body of a `{% generation %}` tag: private use characters, which do not occur in ordinary text.
pub const ASSISTANT_MARKERS: [char; 2] = ['\u{f8f0}', '\u{f8f1}'];

/// Builds an environment with the template [`TEMPLATE_NAME`].
///
/// # Errors
/// minijinja's, if the source does not parse.
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
    environment.add_filter("tojson", python::tojson);
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

/// Local time of the machine.
pub fn local_now() -> NaiveDateTime {
    chrono::Local::now().naive_local()
}

/// Replaces the clock by a fixed time.
pub fn with_fixed_time(mut environment: Environment<'static>, now: NaiveDateTime) -> Environment<'static> {
    environment.add_function("strftime_now", move |format: &str| strftime(now, format));
    environment
}

/// Writes [`ASSISTANT_MARKERS`] around the bodies of `{% generation %}` tags.
pub fn with_assistant_markers(mut environment: Environment<'static>) -> Environment<'static> {
    let [open, close] = ASSISTANT_MARKERS;
    environment.add_filter(generation_tag::GENERATION_FILTER, move |body: &str| format!("{open}{body}{close}"));
    environment
}

/// Source of the errors that `raise_exception` of a template returns.
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

/// Message of the template, if `raise_exception` caused the error.
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

/// Jinja2's `trim`. minijinja's differs from Python in what it takes for whitespace and in types other than strings.
fn trim_filter(value: &Value, characters: Option<&str>) -> String {
    python::strip(&python::to_str(value), characters).to_string()
}

/// Jinja2's `default(value, default_value="", boolean=False)` with keyword arguments.
fn default_filter(value: &Value, arguments: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let arguments = arguments.into_values();
    let (positional, keyword): (&[Value], Kwargs) = from_args(&arguments)?;
    let default_value = match positional.first() {
        Some(default_value) => Some(default_value.clone()),
        None => keyword.get("default_value")?,
    };
    let replaces_falsy = match positional.get(1) {
        Some(boolean) => boolean.is_true(),
        None => keyword.get::<Option<bool>>("boolean")?.unwrap_or_default(),
    };
    keyword.assert_all_used()?;
    match value.is_undefined() || (replaces_falsy && !value.is_true()) {
        true => Ok(default_value.unwrap_or_else(|| Value::from(""))),
        false => Ok(value.clone()),
    }
}

/// Jinja2's `sequence` test: strings, mappings and slices are sequences in Python.
fn is_sequence(value: &Value) -> bool {
    let kind = value.kind();
    value.is_undefined()
        || matches!(kind, ValueKind::String | ValueKind::Seq | ValueKind::Iterable | ValueKind::Map | ValueKind::Bytes)
}
