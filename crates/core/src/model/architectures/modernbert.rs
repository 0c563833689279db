//! ModernBERT (Warner et al. 2024): an encoder with rotary positions, pre-norm layers, gated linear units and sliding window attention
//! in most layers. It has no pooler.

use super::layers::PreNormLayer;
use crate::error::Result;
use crate::model::architectures::{ArchitectureEntry, LoadedArchitecture};
use crate::model::attention::SelfAttention;
use crate::model::classification_head::ClassificationHeadSpec;
use crate::model::config_checks::{self, AttentionKind, GLOBAL_LAYER_TYPE, SLIDING_LAYER_TYPE};
use crate::model::embeddings::{EmbeddingNorm, Embeddings};
use crate::model::layer_weights::{LayerPart, LayerPrefix, LayerWeights};
use crate::model::lm_head::{LmHeadTensorNames, TransformNames};
use crate::model::loader::{self, BiasPresence, CheckpointLoader, WeightLayout};
use crate::model::site::Module;
use crate::model::stack::{FinalNorm, Layer, ModelDimensions, Stack};
use crate::model::weights::CheckpointTensors;
use espalier_tensor::Backend;
use espalier_tensor::attention_mask::AttentionMask;
use espalier_tensor::backend::Activation;
use espalier_tensor::rotary::{self, RotaryTable};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

pub const ENTRY: ArchitectureEntry = ArchitectureEntry {
    model_type: "modernbert",
    classification_head: ClassificationHeadSpec::BERT,
    lm_head: LmHeadTensorNames {
        transform: Some(TransformNames { dense: "head.dense", norm: "head.norm" }),
        bias: &["decoder.bias"],
        decoder: "decoder.weight",
    },
    word_embeddings_path: "model.embeddings.tok_embeddings",
    weight_layout: WeightLayout::OutputInput,
    canonical_name: |name| loader::strip_model_prefix(name, "model.", &["embeddings.", "layers.", "final_norm."]),
    load,
};

/// `config.json`, in its older form and in the form of transformers 5. Missing fields have transformers' defaults.
#[derive(Debug, Clone, Deserialize)]
struct RawConfig {
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    vocab_size: usize,
    max_position_embeddings: usize,
    norm_eps: Option<f64>,
    norm_bias: Option<bool>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    hidden_activation: Option<String>,
    local_attention: Option<usize>,
    global_attn_every_n_layers: Option<usize>,
    layer_types: Option<Vec<String>>,
    global_rope_theta: Option<f64>,
    local_rope_theta: Option<f64>,
    rope_parameters: Option<BTreeMap<String, RawRopeConfig>>,
    rope_scaling: Option<Value>,
}

#[derive(Debug, Clone, Deserialize)]
struct RawRopeConfig {
    rope_theta: Option<f64>,
    rope_type: Option<String>,
}

/// Fields that change the results. They enter the fingerprint of the base model.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Config {
    hidden_size: usize,
    heads: usize,
    intermediate_size: usize,
    vocab_size: usize,
    max_position_embeddings: usize,
    norm_eps: f64,
    norm_bias: bool,
    attention_bias: bool,
    mlp_bias: bool,
    #[serde(rename = "layers", serialize_with = "serialize_attention_kinds")]
    attention_kinds: Vec<AttentionKind>,
    /// Number of rows on each side to which a row of a sliding layer attends.
    #[serde(rename = "window")]
    sliding_window_radius: usize,
    global_theta: f64,
    local_theta: f64,
}

fn serialize_attention_kinds<S: Serializer>(kinds: &[AttentionKind], serializer: S) -> Result<S::Ok, S::Error> {
    let name = |kind: &AttentionKind| match kind {
        AttentionKind::Global => "global",
        AttentionKind::Sliding => "local",
    };
    serializer.collect_seq(kinds.iter().map(name))
}

impl RawConfig {
    /// # Errors
    /// `Invalid` (`unsupported_model`) for a field with an unsupported value.
    fn resolve(self) -> Result<Config> {
        let activation = self.hidden_activation.as_deref().unwrap_or("gelu");
        config_checks::require_value("modernbert", "hidden_activation", activation, "gelu")?;
        config_checks::require_even_head_dim(self.hidden_size, self.num_attention_heads)?;
        if self.rope_scaling.as_ref().is_some_and(|scaling| !scaling.is_null()) {
            return config_checks::unsupported_model("rope_scaling is not supported for modernbert");
        }
        Ok(Config {
            hidden_size: self.hidden_size,
            heads: self.num_attention_heads,
            intermediate_size: self.intermediate_size,
            vocab_size: self.vocab_size,
            max_position_embeddings: self.max_position_embeddings,
            norm_eps: self.norm_eps.unwrap_or(1e-5),
            norm_bias: self.norm_bias.unwrap_or(false),
            attention_bias: self.attention_bias.unwrap_or(false),
            mlp_bias: self.mlp_bias.unwrap_or(false),
            attention_kinds: self.attention_kinds()?,
            sliding_window_radius: self.local_attention.unwrap_or(128) / 2,
            global_theta: self.rope_theta(GLOBAL_LAYER_TYPE, self.global_rope_theta, 160_000.0)?,
            local_theta: self.rope_theta(SLIDING_LAYER_TYPE, self.local_rope_theta, 10_000.0)?,
        })
    }

    fn attention_kinds(&self) -> Result<Vec<AttentionKind>> {
        if let Some(layer_types) = &self.layer_types {
            return config_checks::parse_layer_types("modernbert", layer_types, self.num_hidden_layers);
        }
        let period = self.global_attn_every_n_layers.unwrap_or(3).max(1);
        let kind =
            |index: usize| if index.is_multiple_of(period) { AttentionKind::Global } else { AttentionKind::Sliding };
        Ok((0..self.num_hidden_layers).map(kind).collect())
    }

    fn rope_theta(&self, layer_type: &str, legacy_theta: Option<f64>, default: f64) -> Result<f64> {
        let rope = self.rope_parameters.as_ref().and_then(|all| all.get(layer_type));
        let rope_type = rope.and_then(|rope| rope.rope_type.as_deref()).unwrap_or("default");
        config_checks::require_value("modernbert", "rope_parameters: rope_type", rope_type, "default")?;
        Ok(rope.and_then(|rope| rope.rope_theta).or(legacy_theta).unwrap_or(default))
    }
}

/// Rotary tables and mask that the layers share.
struct AttentionVariants {
    global_rotary: Arc<RotaryTable>,
    sliding_rotary: Arc<RotaryTable>,
    sliding_mask: Arc<AttentionMask>,
}

impl AttentionVariants {
    fn new(backend: &dyn Backend, config: &Config) -> Result<Self> {
        let head_dim = config.hidden_size / config.heads;
        let rotary_table = |theta| {
            let frequencies = rotary::inverse_frequencies(theta, head_dim);
            RotaryTable::new(backend, config.max_position_embeddings, &frequencies, 1.0).map(Arc::new)
        };
        Ok(Self {
            global_rotary: rotary_table(config.global_theta)?,
            sliding_rotary: rotary_table(config.local_theta)?,
            sliding_mask: Arc::new(AttentionMask::symmetric_window(config.sliding_window_radius)),
        })
    }

    fn attention(&self, heads: usize, kind: AttentionKind) -> SelfAttention {
        let (rotary, mask) = match kind {
            AttentionKind::Global => (&self.global_rotary, None),
            AttentionKind::Sliding => (&self.sliding_rotary, Some(Arc::clone(&self.sliding_mask))),
        };
        SelfAttention { heads, rotary: Some(Arc::clone(rotary)), mask }
    }
}

const BASE_MODEL_PREFIX: &str = "model";

fn load(config: Value, weights: &mut CheckpointTensors, backend: &dyn Backend) -> Result<LoadedArchitecture> {
    let config = config_checks::parse_config::<RawConfig>(config)?.resolve()?;
    let variants = AttentionVariants::new(backend, &config)?;
    let mut loader = CheckpointLoader::new(weights, backend, config.norm_eps);
    let (hidden, bias) = (config.hidden_size, BiasPresence::from_flag(config.norm_bias));
    let words = loader.embedding("embeddings.tok_embeddings", config.vocab_size, hidden)?;
    let norm = EmbeddingNorm::load(&mut loader, BASE_MODEL_PREFIX, "embeddings.norm", hidden, bias)?;
    let embeddings = Embeddings { norm: Some(norm), ..Embeddings::words(words) };
    let layers = (0..config.attention_kinds.len())
        .map(|index| load_layer(&mut loader, index, &config, &variants))
        .collect::<Result<_>>()?;
    let final_norm =
        FinalNorm { norm: loader.norm("final_norm", hidden, bias)?, module_path: "model.final_norm".to_string() };
    let dimensions = ModelDimensions {
        hidden_size: hidden,
        attention_heads: config.heads,
        vocabulary_size: config.vocab_size,
        max_tokens: config.max_position_embeddings,
    };
    let stack = Stack { dimensions, embeddings, layers, final_norm: Some(final_norm), pooler: None, decoder: None };
    LoadedArchitecture::new(stack, &config)
}

fn load_layer(
    loader: &mut CheckpointLoader,
    index: usize,
    config: &Config,
    variants: &AttentionVariants,
) -> Result<Box<dyn Layer>> {
    let (hidden, intermediate) = (config.hidden_size, config.intermediate_size);
    let [norm_bias, attention_bias, mlp_bias] =
        [config.norm_bias, config.attention_bias, config.mlp_bias].map(BiasPresence::from_flag);
    let attention_norm = LayerPart::Norm(Module::AttentionNorm, "attn_norm", hidden, norm_bias);
    let other_parts = [
        LayerPart::Linear(Module::QueryKeyValue, "attn.Wqkv", [hidden, 3 * hidden], attention_bias),
        LayerPart::Linear(Module::AttentionOutput, "attn.Wo", [hidden, hidden], attention_bias),
        LayerPart::Norm(Module::FeedForwardNorm, "mlp_norm", hidden, norm_bias),
        LayerPart::Linear(Module::FeedForwardGateIn, "mlp.Wi", [hidden, 2 * intermediate], mlp_bias),
        LayerPart::Linear(Module::FeedForwardOut, "mlp.Wo", [intermediate, hidden], mlp_bias),
    ];
    // The first layer has no attention norm, because the embeddings are normed.
    let parts: Vec<LayerPart> = (index > 0).then_some(attention_norm).into_iter().chain(other_parts).collect();
    let prefix = LayerPrefix { base_model: BASE_MODEL_PREFIX, layers: "layers" };
    let weights = LayerWeights::load(loader, prefix, index, &parts)?;
    let attention = variants.attention(config.heads, config.attention_kinds[index]);
    Ok(Box::new(PreNormLayer { weights, attention, activation: Activation::Gelu, qk_norms: None }))
}
