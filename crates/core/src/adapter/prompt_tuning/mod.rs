//! Prompt tuning: prepends trainable embeddings to every sequence (Lester et al. 2021).

pub mod peft;

use super::build_context::BuildContext;
use super::method::Method;
use super::parameter_builder::{ParameterBuilder, TensorMap};
use super::peft::{ModuleNaming, PeftMapping, prompt_learning};
use super::soft_prompt::{self, PROMPT_TENSOR_NAME, SoftPrompt, VirtualTokenInit};
use super::tensor_spec::TensorSpec;
use super::validator::MethodValidator;
use crate::error::{Error, Result};
use crate::model::{BaseModelInfo, Hooks, SiteInfo};
use espalier_tensor::Tensor;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = PromptTuning)]
pub struct Config {
    pub num_virtual_tokens: usize,
    pub init: VirtualTokenInit,
    /// Dropout rate of the head's input during training.
    pub dropout: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            num_virtual_tokens: soft_prompt::DEFAULT_NUM_VIRTUAL_TOKENS,
            init: VirtualTokenInit::default(),
            dropout: 0.0,
        }
    }
}

impl Method for Config {
    fn resolve(&self, info: &BaseModelInfo, sites: &[SiteInfo]) -> Result<Self> {
        let mut validator = MethodValidator::new(sites);
        soft_prompt::check_count(&mut validator, self.num_virtual_tokens, info.max_tokens);
        self.init.validate(&mut validator);
        validator.check_dropout(self.dropout);
        validator.finish(|| true)?;
        Ok(self.clone())
    }

    fn build(&self, context: &BuildContext, builder: &mut ParameterBuilder) -> Result<Box<dyn Hooks>> {
        let (count, hidden_size) = (self.num_virtual_tokens, context.base.info().hidden_size);
        let init = |seed: u64, name: &str| {
            let embeddings = context.base.embedding_rows(&self.init.token_ids(context.base, count, seed, name)?)?;
            Ok::<_, Error>(Tensor::new([count, hidden_size], embeddings.values))
        };
        let embeddings = builder.add_with(PROMPT_TENSOR_NAME.to_string(), &[count, hidden_size], init)?;
        Ok(Box::new(SoftPrompt::learned(embeddings, count)))
    }

    fn num_virtual_tokens(&self) -> usize {
        self.num_virtual_tokens
    }

    fn head_dropout(&self) -> f64 {
        self.dropout
    }

    fn learning_rate_ratio(&self, _: &str) -> f64 {
        1.0
    }

    fn is_identity_at_init(&self) -> bool {
        false
    }

    fn inference_weights(&self, _: &BuildContext, weights: TensorMap) -> Result<TensorMap> {
        Ok(weights)
    }

    fn tensor_specs(&self, sites: &[SiteInfo], _: ModuleNaming) -> Vec<TensorSpec> {
        vec![prompt_learning::prompt_spec(self.num_virtual_tokens, sites)]
    }

    fn peft(&self) -> Option<&dyn PeftMapping> {
        Some(self)
    }
}
