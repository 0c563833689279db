//! What a generated text has to be: its description, limits of its size, and its key in the cache of compiled constraints.

use espalier_core::error::{Error, Result, field_path};
use espalier_core::model::chat::tool_calls::ToolCallSyntax;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Limits of a schema: its values of any kind, and the references among them. The compiler recurses through both.
const MAX_SCHEMA_VALUES: usize = 20_000;
const MAX_SCHEMA_REFERENCES: usize = 500;
/// Limit of the texts in a schema, and of a regular expression, in bytes.
const MAX_SPEC_BYTES: usize = 256 << 10;

/// Format of the generated text.
#[derive(Debug, Clone, PartialEq)]
pub enum ConstraintSpec {
    /// Any JSON object.
    JsonObject,
    /// JSON that fits this schema.
    JsonSchema(Value),
    /// Text that this regular expression matches as a whole.
    Regex(String),
    /// Calls of tools.
    ToolCalls(Box<ToolCallsSpec>),
}

/// Calls of tools, whose arguments fit the schemas.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolCallsSpec {
    pub syntax: &'static ToolCallSyntax,
    pub tools: Vec<ToolSpec>,
    pub count: CallCount,
    /// What the text may be besides calls.
    pub other_text: OtherText,
}

/// Tool that may be called.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolSpec {
    /// JSON pointer to the schema in the request.
    pub pointer: String,
    pub name: String,
    /// JSON schema of the arguments.
    pub parameters: Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallCount {
    /// At least one and at most this many; the text ends with the last.
    AtMost(usize),
    Many,
}

#[derive(Debug, Clone, PartialEq)]
pub enum OtherText {
    /// There has to be a call.
    Forbidden,
    /// Any text before, between and after calls, or without one.
    Free,
    /// Text in this format instead of calls.
    Format(ConstraintSpec),
}

impl ConstraintSpec {
    /// Size of the schemas or the expression as text.
    pub fn text_bytes(&self) -> usize {
        match self {
            Self::JsonObject => 0,
            Self::JsonSchema(schema) => schema.to_string().len(),
            Self::Regex(pattern) => pattern.len(),
            Self::ToolCalls(calls) => {
                calls.tools.iter().map(|tool| tool.name.len() + tool.parameters.to_string().len()).sum::<usize>()
                    + calls.other_text.format().map_or(0, Self::text_bytes)
            }
        }
    }

    /// Checks that the constraint is not too large to compile. Takes bounded time, whatever the size.
    ///
    /// # Errors
    /// `Invalid` (`invalid_format`).
    pub fn check_size(&self) -> Result<()> {
        let reason = match self {
            Self::JsonObject => None,
            Self::JsonSchema(schema) => schema_size_error(vec![schema]),
            Self::Regex(pattern) => (pattern.len() > MAX_SPEC_BYTES)
                .then(|| format!("it has {} bytes, and the limit is {MAX_SPEC_BYTES}", pattern.len())),
            Self::ToolCalls(calls) => {
                calls.other_text.format().map_or(Ok(()), Self::check_size)?;
                schema_size_error(calls.tools.iter().map(|tool| &tool.parameters).collect())
            }
        };
        reason.map_or(Ok(()), |reason| Err(self.invalid(&reason)))
    }

    /// Hash of the kind and the text of the constraint.
    pub fn cache_key(&self) -> String {
        let mut hasher = Sha256::new();
        self.hash_into(&mut hasher);
        hex::encode(hasher.finalize())
    }

    fn hash_into(&self, hasher: &mut Sha256) {
        let mut add = |text: &str| {
            hasher.update(text);
            hasher.update([0]);
        };
        match self {
            Self::JsonObject => add("object"),
            Self::JsonSchema(schema) => ["schema", &schema.to_string()].into_iter().for_each(add),
            Self::Regex(pattern) => ["regex", pattern].into_iter().for_each(add),
            Self::ToolCalls(calls) => {
                add(&format!("tools {} {:?} {:?}", calls.syntax.start, calls.count, calls.other_text.kind()));
                for tool in &calls.tools {
                    add(&tool.name);
                    add(&tool.parameters.to_string());
                }
                if let Some(format) = calls.other_text.format() {
                    format.hash_into(hasher);
                }
            }
        }
    }

    /// Error `invalid_format`. Its field is that of the request's response format, except for tools.
    pub fn invalid(&self, reason: &str) -> Error {
        let message = match self {
            Self::JsonObject => "a JSON object cannot be generated",
            Self::JsonSchema(_) => "the schema cannot be used",
            Self::Regex(_) => "the pattern cannot be used",
            Self::ToolCalls(_) => "the schemas of the tools cannot be used",
        };
        let error = Error::invalid("invalid_format", format!("{message}: {reason}"));
        match self {
            Self::ToolCalls(_) => error.about_field("/tools"),
            Self::JsonObject | Self::JsonSchema(_) | Self::Regex(_) => error,
        }
    }
}

impl ToolSpec {
    /// Error `invalid_format` of the tool's schema.
    pub fn invalid(&self, reason: &str) -> Error {
        let detail = format!("{}: the schema cannot be used: {reason}", field_path(&self.pointer));
        Error::invalid("invalid_format", detail).about_field(&self.pointer)
    }
}

impl OtherText {
    fn format(&self) -> Option<&ConstraintSpec> {
        match self {
            Self::Forbidden | Self::Free => None,
            Self::Format(format) => Some(format),
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Forbidden => "forbidden",
            Self::Free => "free",
            Self::Format(_) => "format",
        }
    }
}

/// Why schemas are too large to compile; `None` if they are not. Counting ends at the first limit that is exceeded.
fn schema_size_error(mut pending: Vec<&Value>) -> Option<String> {
    let (mut values, mut references, mut bytes) = (0, 0, 0);
    while let Some(value) = pending.pop() {
        values += 1;
        match value {
            Value::Array(items) => pending.extend(items.iter().take(MAX_SCHEMA_VALUES + 1)),
            Value::Object(fields) => {
                references += usize::from(fields.contains_key("$ref"));
                let fields = fields.iter().take(MAX_SCHEMA_VALUES + 1);
                pending.extend(fields.map(|(key, value)| {
                    bytes += key.len();
                    value
                }));
            }
            Value::String(text) => bytes += text.len(),
            _ => {}
        }
        if values + pending.len() > MAX_SCHEMA_VALUES || references > MAX_SCHEMA_REFERENCES || bytes > MAX_SPEC_BYTES {
            return Some(format!(
                "the limits are {MAX_SCHEMA_VALUES} values, {MAX_SCHEMA_REFERENCES} references and {MAX_SPEC_BYTES} bytes of text"
            ));
        }
    }
    None
}
