//! Prompt tuning: prepends trainable embeddings to every sequence (Lester et al. 2021).
//!
//! [`PeftConfig`] maps it to PEFT's files.

use super::method::{Method, TrainingDefaults};
use super::parameter_builder::{BuildContext, ParameterBuilder, TensorMap};
use super::peft::{
    ConfigFields, ExportContext, ModuleNaming, PeftFields, PeftMapping, PromptLearning, PromptLearningFields,
    prompt_learning,
};
use super::soft_prompt::{self, PROMPT_TENSOR_NAME, SoftPrompt, VirtualTokenInit};
use super::tensor_spec::TensorSpec;
use super::validator::MethodValidator;
use crate::error::{Error, Result};
use crate::model::{BaseModelInfo, Hooks, SiteInfo};
use espalier_tensor::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
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

    fn training_defaults(&self) -> TrainingDefaults {
        TrainingDefaults::with_learning_rate(3e-3)
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

impl PeftMapping for Config {
    fn peft_type(&self, _: &[SiteInfo]) -> Option<&'static str> {
        Some(PeftConfig::PEFT_TYPE)
    }

    fn config_fields(&self, context: &ExportContext) -> ConfigFields {
        let mut fields = prompt_learning::common_fields(self.num_virtual_tokens, context);
        fields.extend([("prompt_tuning_init", json!("RANDOM")), ("tokenizer_name_or_path", Value::Null)]);
        fields
    }
}

/// The fields of `PROMPT_TUNING`.
pub type PeftConfig = PromptLearningFields<Config>;

impl PromptLearning for Config {
    const PEFT_TYPE: &'static str = "PROMPT_TUNING";
    const ACCEPTED_FIELDS: &'static [&'static str] = &[
        "num_virtual_tokens",
        "token_dim",
        "num_layers",
        "num_attention_heads",
        "num_transformer_submodules",
        "prompt_tuning_init",
        "prompt_tuning_init_text",
        "tokenizer_name_or_path",
        "tokenizer_kwargs",
    ];
    const ACCEPTS_KV_SIZE: bool = false;

    fn with_virtual_tokens(num_virtual_tokens: usize) -> Self {
        Self { num_virtual_tokens, ..Self::default() }
    }

    fn virtual_tokens(&self) -> usize {
        self.num_virtual_tokens
    }
}
