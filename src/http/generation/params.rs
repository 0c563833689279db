//! Request fields that every generation endpoint has: sampling parameters and the response format.

use crate::serving::generation::constraint_spec::ConstraintSpec;
use crate::serving::generation::sampling::SamplingParams;
use espalier_core::error::{Error, Result};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// Sampling parameters. The defaults sample from the model's unmodified distribution.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(default)]
#[schema(as = SamplingParams)]
pub struct SamplingOptions {
    /// Divisor of the logits; 0 selects the most likely token (greedy decoding). Default 1.
    #[schema(minimum = 0, maximum = 2)]
    pub temperature: Option<f32>,
    /// Nucleus sampling: samples from the smallest set of tokens with at least this total probability. Default 1.
    #[schema(exclusive_minimum = 0, maximum = 1)]
    pub top_p: Option<f32>,
    /// Samples from this many most likely tokens; 0 samples from all. Default 0.
    pub top_k: Option<u32>,
    /// Minimum probability of a token, relative to the most likely token. Default 0.
    #[schema(minimum = 0, maximum = 1)]
    pub min_p: Option<f32>,
    /// Divides positive and multiplies negative logits of tokens in the prompt or the generated text. Default 1.
    #[schema(minimum = 0.01, maximum = 10)]
    pub repetition_penalty: Option<f32>,
    /// Subtracted from the logits of tokens in the generated text. Default 0.
    #[schema(minimum = -2, maximum = 2)]
    pub presence_penalty: Option<f32>,
    /// Subtracted from a token's logit once per occurrence in the generated text. Default 0.
    #[schema(minimum = -2, maximum = 2)]
    pub frequency_penalty: Option<f32>,
    /// Added to the logits of these token ids.
    pub logit_bias: Option<BTreeMap<String, f32>>,
    /// Seed of the sampler; equal requests with equal seeds give equal texts. Random by default.
    pub seed: Option<i64>,
}

/// Names of the fields of a type that requests flatten.
#[derive(Clone, Copy)]
pub struct FieldNames {
    pub read: &'static [&'static str],
    /// Those of them that are whole numbers.
    pub integers: &'static [&'static str],
    /// Those of them for which −1 means the default.
    pub negative_defaults: &'static [&'static str],
}

impl FieldNames {
    pub const NONE: Self = Self { read: &[], integers: &[], negative_defaults: &[] };
}

impl SamplingOptions {
    pub const FIELD_NAMES: FieldNames = FieldNames {
        read: &[
            "temperature",
            "top_p",
            "top_k",
            "min_p",
            "repetition_penalty",
            "presence_penalty",
            "frequency_penalty",
            "logit_bias",
            "seed",
        ],
        integers: &["top_k", "seed"],
        negative_defaults: &["top_k", "seed"],
    };

    /// # Errors
    /// `Invalid` if a key of `logit_bias` is not a token id.
    pub fn to_sampling_params(&self) -> Result<SamplingParams> {
        let defaults = SamplingParams::default();
        Ok(SamplingParams {
            temperature: self.temperature.unwrap_or(defaults.temperature),
            top_p: self.top_p.unwrap_or(defaults.top_p),
            top_k: self.top_k.unwrap_or(defaults.top_k),
            min_p: self.min_p.unwrap_or(defaults.min_p),
            repetition_penalty: self.repetition_penalty.unwrap_or(defaults.repetition_penalty),
            presence_penalty: self.presence_penalty.unwrap_or(defaults.presence_penalty),
            frequency_penalty: self.frequency_penalty.unwrap_or(defaults.frequency_penalty),
            logit_bias: self.parse_logit_bias()?,
            // The last 64 bits of a version 7 UUID are random except for two.
            seed: self.seed.map(i64::cast_unsigned).unwrap_or_else(|| uuid::Uuid::now_v7().as_u64_pair().1),
            logprobs: None,
        })
    }

    fn parse_logit_bias(&self) -> Result<BTreeMap<u32, f32>> {
        let parse_entry = |(token, bias): (&String, &f32)| match token.parse() {
            Ok(id) => Ok((id, *bias)),
            Err(_) => Err(Error::invalid_field(format!("/logit_bias/{token}"), "must be a token id")),
        };
        self.logit_bias.iter().flatten().map(parse_entry).collect()
    }
}

/// Format that the generated text must have; enforced by constrained decoding.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
#[schema(as = ResponseFormat, example = json!({"type": "json_schema", "json_schema": {"name": "card", "schema": {"type": "object",
    "properties": {"lost": {"type": "boolean"}}, "required": ["lost"], "additionalProperties": false}}}))]
pub enum ResponseFormatParam {
    /// Any text.
    Text {},
    /// Any JSON object, or one that is valid against a schema, which llama.cpp names `schema` and Text Generation Inference `value`.
    #[serde(alias = "json")]
    JsonObject {
        #[serde(alias = "value")]
        #[schema(value_type = Option<Object>)]
        schema: Option<Value>,
    },
    /// JSON that is valid against a schema.
    JsonSchema { json_schema: NamedSchema },
    /// Text that a regular expression matches as a whole.
    Regex {
        #[serde(alias = "value")]
        pattern: String,
    },
}

/// JSON schema in OpenAI's format.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NamedSchema {
    /// Ignored.
    #[allow(dead_code, reason = "accepted because clients send it")]
    pub name: Option<String>,
    /// Ignored.
    #[allow(dead_code, reason = "accepted because clients send it")]
    pub description: Option<String>,
    /// JSON schema; any JSON object by default.
    #[schema(value_type = Option<Object>)]
    pub schema: Option<Value>,
    /// Ignored: the schema is always enforced.
    #[allow(dead_code, reason = "accepted because clients send it")]
    pub strict: Option<bool>,
}

impl ResponseFormatParam {
    /// Constraint of the format; `None` for free text.
    pub fn into_constraint(format: Option<Self>) -> Option<ConstraintSpec> {
        match format? {
            Self::Text {} => None,
            Self::JsonObject { schema } | Self::JsonSchema { json_schema: NamedSchema { schema, .. } } => {
                Some(schema.map_or(ConstraintSpec::JsonObject, ConstraintSpec::JsonSchema))
            }
            Self::Regex { pattern } => Some(ConstraintSpec::Regex(pattern)),
        }
    }
}
