//! How a request may ask for its words to be chosen: the fields that every call for generated text has.

use crate::serving::generation::sampling::SamplingParams;
use espalier_core::error::{Error, FieldError, Problem, Result};
use serde::Deserialize;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// Each with its usual default: the model's own distribution.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(default)]
pub struct SamplingOptions {
    /// Logits are divided by it; at 0 the likeliest token is taken. Default 1.
    #[schema(minimum = 0, maximum = 2)]
    pub temperature: Option<f32>,
    /// Of the likeliest tokens, those that have this share of the probability together. Default 1.
    pub top_p: Option<f32>,
    /// So many of the likeliest tokens; 0: all.
    pub top_k: Option<u32>,
    /// Tokens at least so likely, as a share of the likeliest. Default 0.
    pub min_p: Option<f32>,
    /// What is in the prompt or the answer already becomes less likely by this factor. Default 1.
    pub repetition_penalty: Option<f32>,
    /// Taken from the logit of what is in the answer. Default 0.
    #[schema(minimum = -2, maximum = 2)]
    pub presence_penalty: Option<f32>,
    /// Taken from it once for each time that it is there. Default 0.
    #[schema(minimum = -2, maximum = 2)]
    pub frequency_penalty: Option<f32>,
    /// Added to the logits of these token ids.
    pub logit_bias: Option<BTreeMap<String, f32>>,
    /// The same seed gives the same words. Drawn anew where it is left out.
    pub seed: Option<i64>,
}

impl SamplingOptions {
    /// # Errors
    /// `Invalid` where `logit_bias` names something that is no token's id.
    pub fn settings(&self) -> Result<SamplingParams> {
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
            // The last 64 bits of a UUID are random but for two of them.
            seed: self.seed.map(i64::cast_unsigned).unwrap_or_else(|| uuid::Uuid::now_v7().as_u64_pair().1),
            logprobs: None,
        })
    }

    fn parse_logit_bias(&self) -> Result<BTreeMap<u32, f32>> {
        let parse_entry = |(token, bias): (&String, &f32)| {
            let id = token.parse().map_err(|_| {
                let field_error = FieldError::at_pointer(format!("/logit_bias/{token}"), "must be a token's id");
                let detail = format!("logit_bias: \"{token}\" is no token's id");
                Error::Invalid(Problem::new("invalid_body", detail).with_errors(vec![field_error]))
            })?;
            Ok((id, *bias))
        };
        self.logit_bias.iter().flatten().map(parse_entry).collect()
    }
}
