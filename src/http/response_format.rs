//! What an answer has to look like: the field `response_format` of every call for generated text.
//!
//! Knows nothing of how a text is kept to it.

use crate::serving::generation::constraint::ConstraintSpec;
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

/// OpenAI's three, and regular expressions beside them.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
#[schema(example = json!({"type": "json_schema", "json_schema": {"name": "card", "schema": {"type": "object",
    "properties": {"lost": {"type": "boolean"}}, "required": ["lost"], "additionalProperties": false}}}))]
pub enum ResponseFormatParam {
    /// Any text.
    Text,
    /// Any JSON object.
    JsonObject,
    /// JSON that fits a schema.
    JsonSchema { json_schema: NamedSchema },
    /// What a regular expression matches from end to end.
    Regex { pattern: String },
}

#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NamedSchema {
    /// Has no effect.
    #[allow(dead_code, reason = "clients send it, so it is no unknown field")]
    pub name: Option<String>,
    /// Has no effect.
    #[allow(dead_code, reason = "as the name")]
    pub description: Option<String>,
    /// Any JSON object where it is left out.
    #[schema(value_type = Option<Object>)]
    pub schema: Option<Value>,
    /// Has no effect: a schema is always kept to.
    #[allow(dead_code, reason = "as the name")]
    pub strict: Option<bool>,
}

impl ResponseFormatParam {
    /// `None` where the answer is free.
    pub fn into_constraint(format: Option<Self>) -> Option<ConstraintSpec> {
        match format? {
            Self::Text => None,
            Self::JsonObject => Some(ConstraintSpec::JsonObject),
            Self::JsonSchema { json_schema } => {
                Some(json_schema.schema.map_or(ConstraintSpec::JsonObject, ConstraintSpec::JsonSchema))
            }
            Self::Regex { pattern } => Some(ConstraintSpec::Regex(pattern)),
        }
    }
}
