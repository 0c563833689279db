//! P-tuning: prepends virtual tokens that an encoder generates (Liu et al. 2021), PEFT's MLP of three linear layers. The encoder
//! exists during training only; the published adapter holds the generated embeddings.
//!
//! [`PeftConfig`] maps it to PEFT's files.

use super::method::{Method, TrainingDefaults};
use super::parameter_builder::{BuildContext, ParameterBuilder, TensorInit, TensorMap, TensorSet};
use super::peft::{
    ConfigFields, ExportContext, ModuleNaming, PeftFields, PeftMapping, PromptLearning, PromptLearningFields,
    prompt_learning,
};
use super::soft_prompt::{self, MAX_ENCODER_SIZE, PROMPT_TENSOR_NAME, PromptEncoder, SoftPrompt};
use super::tensor_spec::TensorSpec;
use super::validator::MethodValidator;
use crate::error::Result;
use crate::model::{BaseModelInfo, Hooks, SiteInfo};
use espalier_tensor::backend::Activation;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = PTuning)]
pub struct Config {
    pub num_virtual_tokens: usize,
    /// Width of the encoder's hidden layers; by default the hidden size of the base.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encoder_hidden_size: Option<usize>,
    /// Dropout rate of the head's input during training.
    pub dropout: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self { num_virtual_tokens: soft_prompt::DEFAULT_NUM_VIRTUAL_TOKENS, encoder_hidden_size: None, dropout: 0.0 }
    }
}

impl Config {
    fn build_prompt(&self, context: &BuildContext, builder: &mut ParameterBuilder) -> SoftPrompt {
        let (count, hidden_size) = (self.num_virtual_tokens, context.base.info().hidden_size);
        match context.tensor_set {
            TensorSet::Inference => {
                let shape = [count, hidden_size];
                let embeddings = builder.add(PROMPT_TENSOR_NAME.to_string(), &shape, TensorInit::Zeros);
                SoftPrompt::learned(embeddings, count)
            }
            TensorSet::Training => {
                let width = self.encoder_hidden_size.unwrap_or(hidden_size);
                let relu = Some(Activation::Relu);
                let layers = [(width, relu), (width, relu), (hidden_size, None)];
                SoftPrompt::encoded(PromptEncoder::build(count, hidden_size, &layers, builder), count)
            }
        }
    }
}

impl Method for Config {
    fn resolve(&self, info: &BaseModelInfo, sites: &[SiteInfo]) -> Result<Self> {
        let mut validator = MethodValidator::new(sites);
        soft_prompt::check_count(&mut validator, self.num_virtual_tokens, info.max_tokens);
        let width = self.encoder_hidden_size.unwrap_or(info.hidden_size);
        let message = format!("encoder_hidden_size must be between 1 and {MAX_ENCODER_SIZE}");
        validator.require((1..=MAX_ENCODER_SIZE).contains(&width), "encoder_hidden_size", message);
        validator.check_dropout(self.dropout);
        validator.finish(|| true)?;
        Ok(Self { encoder_hidden_size: Some(width), ..self.clone() })
    }

    fn build(&self, context: &BuildContext, builder: &mut ParameterBuilder) -> Result<Box<dyn Hooks>> {
        Ok(Box::new(self.build_prompt(context, builder)))
    }

    fn num_virtual_tokens(&self) -> usize {
        self.num_virtual_tokens
    }

    fn head_dropout(&self) -> f64 {
        self.dropout
    }

    fn training_defaults(&self) -> TrainingDefaults {
        TrainingDefaults::with_learning_rate(1e-3)
    }

    fn learning_rate_ratio(&self, _: &str) -> f64 {
        1.0
    }

    fn is_identity_at_init(&self) -> bool {
        false
    }

    /// Runs the encoder once and replaces its tensors by the embeddings.
    fn inference_weights(&self, context: &BuildContext, mut weights: TensorMap) -> Result<TensorMap> {
        let mut builder = soft_prompt::take_encoder(&mut weights);
        let prompt = self.build_prompt(context, &mut builder);
        let mut tape = soft_prompt::inference_tape(context.base, builder)?;
        let embeddings = prompt.embeddings(&mut tape)?;
        weights.insert(PROMPT_TENSOR_NAME.to_string(), tape.to_host(embeddings)?);
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
        fields.extend([
            ("encoder_dropout", json!(0.0)),
            ("encoder_hidden_size", json!(self.encoder_hidden_size.unwrap_or(context.info.hidden_size))),
            ("encoder_num_layers", json!(2)),
            ("encoder_reparameterization_type", json!("MLP")),
        ]);
        fields
    }
}

/// The fields of `P_TUNING`.
pub type PeftConfig = PromptLearningFields<Config>;

impl PromptLearning for Config {
    const PEFT_TYPE: &'static str = "P_TUNING";
    const ACCEPTED_FIELDS: &'static [&'static str] = &[
        "num_virtual_tokens",
        "token_dim",
        "num_layers",
        "num_attention_heads",
        "num_transformer_submodules",
        "encoder_reparameterization_type",
        "encoder_hidden_size",
        "encoder_num_layers",
        "encoder_dropout",
    ];
    const ACCEPTS_KV_SIZE: bool = false;

    fn with_virtual_tokens(num_virtual_tokens: usize) -> Self {
        Self { num_virtual_tokens, ..Self::default() }
    }

    fn virtual_tokens(&self) -> usize {
        self.num_virtual_tokens
    }
}
