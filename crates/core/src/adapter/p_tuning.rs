//! P-tuning: virtual tokens that a small network makes (Liu et al. 2021), three dense layers as PEFT has them. The network
//! serves training alone: what is published are the tokens that it makes.

use super::targets::MethodValidator;
use super::virtual_tokens::{self, PromptEncoder, SoftPrompt};
use super::{BuildContext, TensorSet};
use crate::adapter::{ParameterBuilder, TensorInit};
use crate::error::Result;
use crate::model::SiteInfo;
use espalier_tensor::backend::Activation;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = PTuning)]
pub struct Config {
    pub num_virtual_tokens: usize,
    /// Width of the network; the base's own where it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encoder_hidden_size: Option<usize>,
    /// Of the rows that the head reads, in training alone.
    pub dropout: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self { num_virtual_tokens: virtual_tokens::DEFAULT_NUM_VIRTUAL_TOKENS, encoder_hidden_size: None, dropout: 0.0 }
    }
}

/// Beyond this the network would cost more than the base.
const MAX_HIDDEN_SIZE: usize = 8192;

impl Config {
    /// # Errors
    /// `Invalid` (`invalid_method`) with a pointer to each wrong value.
    pub fn resolve(&self, sites: &[SiteInfo], max_tokens: usize, hidden_size: usize) -> Result<Self> {
        let mut validator = MethodValidator::new(sites);
        virtual_tokens::check_count(&mut validator, self.num_virtual_tokens, max_tokens);
        let width = self.encoder_hidden_size.unwrap_or(hidden_size);
        let message = format!("encoder_hidden_size must be between 1 and {MAX_HIDDEN_SIZE}");
        validator.require((1..=MAX_HIDDEN_SIZE).contains(&width), "encoder_hidden_size", message);
        validator.check_dropout(self.dropout);
        validator.finish(|| true)?;
        Ok(Self { encoder_hidden_size: Some(width), ..self.clone() })
    }

    pub fn build(&self, context: &BuildContext, builder: &mut ParameterBuilder) -> SoftPrompt {
        let (count, hidden_size) = (self.num_virtual_tokens, context.base.info().hidden_size);
        match context.tensor_set {
            TensorSet::Inference => {
                let prompt_param = builder.add(
                    virtual_tokens::PROMPT_TENSOR_NAME.to_string(),
                    &[count, hidden_size],
                    TensorInit::Zeros,
                );
                SoftPrompt::learned(prompt_param, count)
            }
            TensorSet::Training => {
                let width = self.encoder_hidden_size.unwrap_or(hidden_size);
                let widths = [hidden_size, width, width, hidden_size];
                SoftPrompt::encoded(PromptEncoder::build(count, &widths, Activation::Relu, builder), count)
            }
        }
    }
}
