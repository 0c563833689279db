//! Fields of requests in OpenAI's format: which are read, which are neutral, and which are not supported.
//!
//! Clients send many fields that ask for nothing. A field that is null, or has the value that it has when it is left out, is accepted. One
//! that would change the answer is read or refused by name. An unknown field is accepted and named in the response header
//! `x-ignored-fields`, or refused with `--strict-requests`.

use super::deployment::add_model;
use super::field_check::FieldCheck;
use super::field_rules::Rule;
use super::object_fields::ObjectFields;
use super::request::unsupported_field;
use crate::http::body_timeouts::BodyTimeouts;
use crate::http::error::{ApiError, ApiResult};
use crate::http::extract;
pub use crate::http::generation::params::FieldNames;
use crate::http::json;
use crate::http::request_path::Deployment;
use crate::http::state::AppState;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;
use espalier_core::error::json_pointer;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::{BTreeMap, BTreeSet};

const IGNORED_FIELDS: HeaderName = HeaderName::from_static("x-ignored-fields");

/// Request of an endpoint in OpenAI's format.
pub trait OpenAiRequest: DeserializeOwned + Send + 'static {
    /// Fields that are read.
    const FIELDS: &'static [&'static str];
    /// Those of them that are whole numbers. `8.0` is read as 8.
    const INTEGERS: &'static [&'static str];
    /// Those of them for which −1 means the default.
    const NEGATIVE_DEFAULTS: &'static [&'static str];
    /// Other fields that clients send. The rule of one that is read is not used.
    const OTHER_FIELDS: &'static [(&'static str, Rule)];
    /// Further ones that this endpoint treats differently from others.
    const OWN_FIELDS: &'static [(&'static str, Rule)] = &[];
    /// Fields of the objects inside the request.
    const OBJECTS: &'static [ObjectFields] = &[];
    /// Fields of the type that the request flattens, if there is one.
    const FLATTENED: FieldNames = FieldNames::NONE;
}

/// Extracts a request, and which of its fields are ignored.
pub struct OpenAiJson<T>(pub T, pub IgnoredFields);

/// Names of fields that are not read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IgnoredFields(BTreeSet<String>);

/// Names and bytes of one name that the header has at most.
const MAX_HEADER_NAMES: usize = 20;
const MAX_HEADER_NAME_BYTES: usize = 80;

impl IgnoredFields {
    /// Adds the header that names the fields.
    pub fn add_to(self, mut response: Response) -> Response {
        if let (false, Ok(names)) = (self.0.is_empty(), HeaderValue::from_str(&self.names())) {
            response.headers_mut().insert(IGNORED_FIELDS, names);
        }
        response
    }

    /// The first names, in ASCII: other characters, and commas in names, are percent-encoded.
    fn names(&self) -> String {
        let mut names: Vec<String> = self.0.iter().take(MAX_HEADER_NAMES).map(|name| header_name(name)).collect();
        if self.0.len() > MAX_HEADER_NAMES {
            names.push(format!("and {} more", self.0.len() - MAX_HEADER_NAMES));
        }
        names.join(", ")
    }
}

fn header_name(name: &str) -> String {
    let cut = &name.as_bytes()[..name.len().min(MAX_HEADER_NAME_BYTES)];
    let encode = |byte: &u8| match *byte {
        byte if byte.is_ascii_graphic() && byte != b',' && byte != b'%' => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    cut.iter().map(encode).collect()
}

impl<T: OpenAiRequest> FromRequest<AppState> for OpenAiJson<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &AppState) -> ApiResult<Self> {
        let is_strict = state.settings.strict_requests;
        let deployment = request.extensions().get::<Deployment>().cloned();
        let body =
            extract::read_json_bytes(request, state.settings.max_json_bytes, BodyTimeouts::start(&state.settings))
                .await?;
        let base = state.base.clone();
        let parse = move |body: Vec<u8>| {
            parse::<T>(add_model(body, deployment)?, FieldCheck::new(is_strict, base.tokenizer().valid_chat_template()))
        };
        let (request, ignored) = extract::parse_body(body, parse).await?;
        if !ignored.0.is_empty() {
            // Their names, which the client chooses, are in the response.
            tracing::warn!(fields = ignored.0.len(), "request fields are ignored");
        }
        Ok(Self(request, ignored))
    }
}

fn parse<T: OpenAiRequest>(body: Vec<u8>, mut check: FieldCheck) -> ApiResult<(T, IgnoredFields)> {
    // Another JSON value, or text that is none, gets its error from the typed parser.
    let Ok(fields) = serde_json::from_slice::<BTreeMap<String, &RawValue>>(&body) else {
        return Ok((json::parse(&body)?, IgnoredFields::default()));
    };
    let mut kept: BTreeMap<&str, String> = BTreeMap::new();
    for (name, value) in &fields {
        let text = value.get();
        if reads::<T>(name) && text != "null" {
            kept.extend(read_field::<T>(name, text, &mut check)?.map(|value| (name.as_str(), value)));
        } else {
            let rule =
                T::OWN_FIELDS.iter().chain(T::OTHER_FIELDS).find(|(other, _)| other == name).map(|(_, rule)| *rule);
            let pointer = json_pointer(&[name]);
            // Valid JSON that this cannot read is too deep, or a number out of range.
            let value: Value = serde_json::from_str(text).map_err(|_| {
                unsupported_field(&pointer, "has a value that is too deep or out of range: leave it out")
            })?;
            check.unread_field(&pointer, &value, rule, || name.clone())?;
        }
    }
    let request = match check.is_changed {
        false => json::parse(&body)?,
        true => json::parse(object_text(&kept).as_bytes())?,
    };
    Ok((request, IgnoredFields(check.ignored)))
}

/// Text of a field's value without what is not read of it; `None` where it means the default.
fn read_field<T: OpenAiRequest>(name: &str, text: &str, check: &mut FieldCheck) -> ApiResult<Option<String>> {
    let objects: Vec<&ObjectFields> = T::OBJECTS.iter().filter(|objects| objects.request_field() == name).collect();
    // A value that is too deep for the check gets its error from the typed parser.
    if let (false, Ok(mut value)) = (objects.is_empty(), serde_json::from_str::<Value>(text)) {
        let was_changed = std::mem::take(&mut check.is_changed);
        objects.iter().try_for_each(|objects| objects.check(&mut value, check))?;
        let read = if check.is_changed { value.to_string() } else { text.to_string() };
        check.is_changed |= was_changed;
        return Ok(Some(read));
    }
    let value = normalize::<T>(name, text);
    check.is_changed |= value.as_deref() != Some(text);
    Ok(value)
}

fn reads<T: OpenAiRequest>(name: &str) -> bool {
    T::FIELDS.contains(&name) || T::FLATTENED.read.contains(&name)
}

/// Text of a field's value; `None` where it means the default.
fn normalize<T: OpenAiRequest>(name: &str, text: &str) -> Option<String> {
    let number = text.parse::<f64>().ok();
    let is_in = |own: &[&str], flattened: &[&str]| own.contains(&name) || flattened.contains(&name);
    if is_in(T::NEGATIVE_DEFAULTS, T::FLATTENED.negative_defaults) && number == Some(-1.0) {
        return None;
    }
    match number {
        Some(number) if is_in(T::INTEGERS, T::FLATTENED.integers) && number.fract() == 0.0 && number.abs() < 9e15 => {
            Some(format!("{}", number as i64))
        }
        _ => Some(text.to_string()),
    }
}

fn object_text(fields: &BTreeMap<&str, String>) -> String {
    let members: Vec<String> = fields.iter().map(|(name, value)| format!("{}:{value}", Value::from(*name))).collect();
    format!("{{{}}}", members.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::openai::field_rules::GENERATION_FIELDS;
    use serde::Deserialize;
    use serde_json::json;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Sample {
        model: String,
        max_tokens: Option<u32>,
        temperature: Option<f32>,
    }

    impl OpenAiRequest for Sample {
        const FIELDS: &'static [&'static str] = &["model", "max_tokens", "temperature"];
        const INTEGERS: &'static [&'static str] = &["max_tokens"];
        const NEGATIVE_DEFAULTS: &'static [&'static str] = &["max_tokens"];
        const OTHER_FIELDS: &'static [(&'static str, Rule)] = GENERATION_FIELDS;
    }

    fn read(fields: &str, is_strict: bool) -> ApiResult<(Sample, IgnoredFields)> {
        parse(format!(r#"{{"model": "m"{fields}}}"#).into_bytes(), FieldCheck::new(is_strict, None))
    }

    #[test]
    fn null_and_neutral_values_are_accepted() {
        let (sample, ignored) = read(
            r#", "audio": null, "anything": null, "max_tokens": 8.0, "temperature": null, "modalities": ["text"], "functions": []"#,
            true,
        )
        .unwrap();
        assert_eq!(sample, Sample { model: "m".to_string(), max_tokens: Some(8), temperature: None });
        assert_eq!(ignored, IgnoredFields::default());
        assert_eq!(read(r#", "max_tokens": -1"#, false).unwrap().0.max_tokens, None);
        assert!(read(r#", "max_tokens": 8.5"#, false).is_err());
        for (name, rule) in GENERATION_FIELDS {
            let candidates = [
                json!(false),
                json!(true),
                json!(0),
                json!(1),
                json!([]),
                json!({}),
                json!("auto"),
                json!("none"),
                json!("medium"),
                json!(["text"]),
            ];
            let is_accepted = |value: &Value| {
                FieldCheck::new(true, None)
                    .unread_field(&format!("/{name}"), value, Some(*rule), || name.to_string())
                    .is_ok()
            };
            assert!(
                is_accepted(&json!(null))
                    || candidates.iter().any(is_accepted)
                    || matches!(rule, Rule::Unsupported(..)),
                "{name}"
            );
        }
    }

    #[test]
    fn active_values_are_refused_by_name() {
        for fields in
            [r#", "audio": {"voice": "a"}"#, r#", "use_beam_search": true"#, r#", "functions": [{"name": "f"}]"#]
        {
            let error = read(fields, false).unwrap_err();
            assert_eq!(error.code, "unsupported_field", "{fields}");
        }
    }

    #[test]
    fn unknown_fields_are_named_or_refused() {
        let (_, ignored) = read(r#", "sampler_magic": 3, "store": true"#, false).unwrap();
        assert_eq!(ignored.names(), "sampler_magic, store");
        assert_eq!(read(r#", "sampler_magic": 3"#, true).unwrap_err().code, "unsupported_field");
        let response = ignored.add_to(Response::new(axum::body::Body::empty()));
        assert_eq!(response.headers()["x-ignored-fields"], "sampler_magic, store");
    }

    #[test]
    fn the_header_is_ascii_and_bounded() {
        let (_, ignored) = read(r#", "größe, 1%": 1"#, false).unwrap();
        assert_eq!(ignored.names(), "gr%C3%B6%C3%9Fe%2C%201%25");
        let many = (0..30).map(|number| format!(r#", "{}{number:02}": 1"#, "x".repeat(100))).collect::<String>();
        let (_, ignored) = read(&many, false).unwrap();
        assert!(ignored.names().ends_with(", and 10 more"));
        assert!(ignored.names().len() < 2000);
    }

    #[test]
    fn values_that_cannot_be_checked_are_refused() {
        let deep = format!(r#", "functions": {}{}"#, "[".repeat(200), "]".repeat(200));
        for fields in [deep.as_str(), r#", "min_tokens": 1e999"#] {
            assert_eq!(read(fields, false).unwrap_err().code, "unsupported_field", "{fields}");
        }
    }
}
