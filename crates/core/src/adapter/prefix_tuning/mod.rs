//! Prefix tuning: prepends trainable keys and values in every layer (Li & Liang 2021). They start from the keys and values
//! that the base computes for real tokens, or an encoder generates them during training (the paper's reparametrisation).
//!
//! [`PeftConfig`] maps it to PEFT's files.

use super::method::{Method, TrainingDefaults};
use super::parameter_builder::{BuildContext, ParameterBuilder, TensorInit, TensorMap, TensorSet};
use super::peft::{
    ConfigFields, ExportContext, ModuleNaming, PeftFields, PeftMapping, PromptLearning, PromptLearningFields,
    prompt_learning,
};
use super::soft_prompt::{self, MAX_ENCODER_SIZE, PromptEncoder, VirtualTokenInit};
use super::target_modules::{Layers, num_layers, projection_width};
use super::tensor_spec::{TensorSlice, TensorSpec};
use super::validator::MethodValidator;
use crate::adapter::target_modules::{key_width, num_kv_heads};
use crate::error::{Error, Result};
use crate::model::{BaseModelInfo, Hooks, Module, Site, SiteInfo};
use espalier_tensor::Tensor;
use espalier_tensor::backend::Activation;
use hooks::{PrefixSource, PrefixTuning, compute_key_values, tensor_name};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;
use utoipa::ToSchema;

mod hooks;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = PrefixTuning)]
pub struct Config {
    pub num_virtual_tokens: usize,
    /// Tokens whose keys and values the prefix starts from; no effect with a `projection_hidden_size`.
    pub init: VirtualTokenInit,
    /// Width of the encoder that generates the prefix during training; by default there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub projection_hidden_size: Option<usize>,
    pub layers: Layers,
    /// Dropout rate of the head's input during training.
    pub dropout: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            num_virtual_tokens: soft_prompt::DEFAULT_NUM_VIRTUAL_TOKENS,
            init: VirtualTokenInit::default(),
            projection_hidden_size: None,
            layers: Layers::default(),
            dropout: 0.0,
        }
    }
}

impl Config {
    fn build_prefix(&self, context: &BuildContext, builder: &mut ParameterBuilder) -> Result<PrefixTuning> {
        let layers: Vec<usize> = self.layers.indices(num_layers(context.sites)).collect();
        let source = match (context.tensor_set, self.projection_hidden_size) {
            (TensorSet::Training, Some(width)) => self.build_projected(context, &layers, width, builder),
            (TensorSet::Training, None) | (TensorSet::Inference, _) => self.build_direct(context, &layers, builder)?,
        };
        Ok(PrefixTuning { source, num_virtual_tokens: self.num_virtual_tokens })
    }

    fn build_direct(
        &self,
        context: &BuildContext,
        layers: &[usize],
        builder: &mut ParameterBuilder,
    ) -> Result<PrefixSource> {
        let (base, count) = (context.base, self.num_virtual_tokens);
        let mut initial_key_values: Option<BTreeMap<Site, Tensor>> = None;
        let mut key_values = BTreeMap::new();
        for layer in layers {
            let mut add_tensor = |module: Module| {
                let site = Site { layer: Some(*layer), module };
                let init = |seed: u64, _: &str| {
                    let key_values = match &mut initial_key_values {
                        Some(key_values) => key_values,
                        empty => {
                            empty.insert(compute_key_values(base, &self.init.token_ids(base, count, seed, "prefix")?)?)
                        }
                    };
                    key_values.remove(&site).ok_or_else(|| Error::internal("a layer without keys and values"))
                };
                builder.add_with(tensor_name(site), &[count, projection_width(context.sites, site)], init)
            };
            key_values.insert(*layer, [add_tensor(Module::Key)?, add_tensor(Module::Value)?]);
        }
        Ok(PrefixSource::Direct(key_values))
    }

    fn build_projected(
        &self,
        context: &BuildContext,
        layers: &[usize],
        projection_size: usize,
        builder: &mut ParameterBuilder,
    ) -> PrefixSource {
        let encoder_layers = [(projection_size, Some(Activation::Tanh))];
        let hidden_size = context.base.info().hidden_size;
        let encoder = PromptEncoder::build(self.num_virtual_tokens, hidden_size, &encoder_layers, builder);
        let mut add_projection = |layer: usize, module: Module| {
            let site = Site { layer: Some(layer), module };
            let width = projection_width(context.sites, site);
            builder.add_linear(&tensor_name(site), width, projection_size, TensorInit::LinearDefault)
        };
        let layer_projections =
            |layer: &usize| (*layer, [add_projection(*layer, Module::Key), add_projection(*layer, Module::Value)]);
        PrefixSource::Projected { encoder, projections: layers.iter().map(layer_projections).collect() }
    }

    fn covers_all_layers(&self, sites: &[SiteInfo]) -> bool {
        self.layers.indices(num_layers(sites)).count() == num_layers(sites)
    }
}

impl Method for Config {
    fn resolve(&self, info: &BaseModelInfo, sites: &[SiteInfo]) -> Result<Self> {
        let mut validator = MethodValidator::new(sites);
        soft_prompt::check_count(&mut validator, self.num_virtual_tokens, info.max_tokens);
        self.init.validate(&mut validator);
        validator.check_layers(self.layers);
        let is_valid_width = self.projection_hidden_size.is_none_or(|width| (1..=MAX_ENCODER_SIZE).contains(&width));
        let message = format!("projection_hidden_size must be between 1 and {MAX_ENCODER_SIZE}");
        validator.require(is_valid_width, "projection_hidden_size", message);
        validator.check_dropout(self.dropout);
        validator.finish(|| true)?;
        Ok(self.clone())
    }

    fn build(&self, context: &BuildContext, builder: &mut ParameterBuilder) -> Result<Box<dyn Hooks>> {
        Ok(Box::new(self.build_prefix(context, builder)?))
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

    /// Runs the encoder, if there is one, and replaces its tensors by keys and values.
    fn inference_weights(&self, context: &BuildContext, mut weights: TensorMap) -> Result<TensorMap> {
        if self.projection_hidden_size.is_none() {
            return Ok(weights);
        }
        let mut builder = soft_prompt::take_encoder(&mut weights);
        let prefix = self.build_prefix(context, &mut builder)?;
        let mut tape = soft_prompt::inference_tape(context.base, builder)?;
        weights.extend(prefix.inference_tensors(&mut tape)?);
        Ok(weights)
    }

    /// PEFT stores all layers in one tensor: keys of the first layer, its values, keys of the second layer, … A prefix of
    /// some layers only has no PEFT format.
    fn tensor_specs(&self, sites: &[SiteInfo], _: ModuleNaming) -> Vec<TensorSpec> {
        let (count, mut slices, mut end) = (self.num_virtual_tokens, Vec::new(), 0);
        for layer in self.layers.indices(num_layers(sites)) {
            for module in [Module::Key, Module::Value] {
                let site = Site { layer: Some(layer), module };
                let width = projection_width(sites, site);
                let (name, shape) = (tensor_name(site), vec![count, width]);
                slices.push(TensorSlice { name, shape, column_range: end..end + width });
                end += width;
            }
        }
        match self.covers_all_layers(sites) {
            true => {
                let key = prompt_learning::EMBEDDINGS_KEY.to_string();
                vec![TensorSpec { key, shape: vec![count, end], slices }]
            }
            false => slices.into_iter().map(|slice| TensorSpec::with_native_key(slice.name, slice.shape)).collect(),
        }
    }

    fn peft(&self) -> Option<&dyn PeftMapping> {
        Some(self)
    }
}

impl PeftMapping for Config {
    fn peft_type(&self, sites: &[SiteInfo]) -> Option<&'static str> {
        self.covers_all_layers(sites).then_some(PeftConfig::PEFT_TYPE)
    }

    fn config_fields(&self, context: &ExportContext) -> ConfigFields {
        let mut fields = prompt_learning::common_fields(self.num_virtual_tokens, context);
        fields.extend([
            ("encoder_hidden_size", json!(self.projection_hidden_size.unwrap_or(context.info.hidden_size))),
            // The stored keys and values are the output of the projection.
            ("prefix_projection", json!(false)),
            // Several query heads may share a head of keys and values.
            ("num_attention_heads", json!(num_kv_heads(context.info, context.sites))),
            ("token_dim", json!(key_width(context.sites))),
        ]);
        fields
    }
}

/// The fields of `PREFIX_TUNING`.
pub type PeftConfig = PromptLearningFields<Config>;

impl PromptLearning for Config {
    const PEFT_TYPE: &'static str = "PREFIX_TUNING";
    const ACCEPTED_FIELDS: &'static [&'static str] = &[
        "num_virtual_tokens",
        "token_dim",
        "num_layers",
        "num_attention_heads",
        "num_transformer_submodules",
        "encoder_hidden_size",
        "prefix_projection",
    ];
    const ACCEPTS_KV_SIZE: bool = true;

    fn with_virtual_tokens(num_virtual_tokens: usize) -> Self {
        Self { num_virtual_tokens, ..Self::default() }
    }

    fn virtual_tokens(&self) -> usize {
        self.num_virtual_tokens
    }
}
