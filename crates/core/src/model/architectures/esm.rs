//! ESM-2 (Lin et al. 2023), a protein language model: rotary positions, pre-norm layers, and embeddings scaled by token dropout. The
//! contact head is not loaded.

use super::layers::PreNormLayer;
use super::{bert, roberta};
use crate::error::Result;
use crate::model::architectures::{ArchitectureEntry, LoadedArchitecture};
use crate::model::attention::SelfAttention;
use crate::model::classification_head::ClassificationHeadSpec;
use crate::model::config_checks;
use crate::model::embeddings::{EmbeddingNorm, Embeddings, TokenDropout};
use crate::model::layer_weights::{LayerPart, LayerPrefix, LayerWeights};
use crate::model::loader::{self, BiasPresence, CheckpointLoader, WeightLayout};
use crate::model::site::Module;
use crate::model::stack::{FinalNorm, Layer, ModelDimensions, Stack};
use crate::model::weights::CheckpointTensors;
use espalier_tensor::Backend;
use espalier_tensor::backend::Activation;
use espalier_tensor::rotary::{self, RotaryTable};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;

pub const ENTRY: ArchitectureEntry = ArchitectureEntry {
    model_type: "esm",
    classification_head: ClassificationHeadSpec::ROBERTA,
    lm_head: roberta::LM_HEAD,
    word_embeddings_path: "esm.embeddings.word_embeddings",
    weight_layout: WeightLayout::OutputInput,
    canonical_name: |name| loader::strip_model_prefix(name, "esm.", &bert::ENCODER_PREFIXES),
    load,
};

/// Fields of `config.json` that change the results.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Config {
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    vocab_size: usize,
    max_position_embeddings: usize,
    #[serde(default = "config_checks::default_layer_norm_eps")]
    layer_norm_eps: f64,
    #[serde(default = "default_rope_theta")]
    rope_theta: f64,
    #[serde(default = "config_checks::default_position_embedding_type")]
    position_embedding_type: String,
    #[serde(default)]
    emb_layer_norm_before: Option<bool>,
    #[serde(default)]
    token_dropout: Option<bool>,
    #[serde(default)]
    mask_token_id: Option<u32>,
    #[serde(default)]
    is_folding_model: Option<bool>,
}

fn default_rope_theta() -> f64 {
    10_000.0
}

impl Config {
    fn check(&self) -> Result<()> {
        config_checks::require_value("esm", "position_embedding_type", &self.position_embedding_type, "rotary")?;
        if self.is_folding_model == Some(true) {
            return config_checks::unsupported_model("is_folding_model is not supported for esm");
        }
        config_checks::require_even_head_dim(self.hidden_size, self.num_attention_heads)
    }

    fn load_embeddings(&self, loader: &mut CheckpointLoader) -> Result<Embeddings> {
        let words = loader.embedding("embeddings.word_embeddings", self.vocab_size, self.hidden_size)?;
        let token_dropout = match self.token_dropout {
            Some(true) => Some(TokenDropout { mask_token_id: self.mask_token_id }),
            Some(false) | None => None,
        };
        let norm = match self.emb_layer_norm_before {
            Some(true) => {
                let (name, bias) = ("embeddings.layer_norm", BiasPresence::Present);
                Some(EmbeddingNorm::load(loader, BASE_MODEL_PREFIX, name, self.hidden_size, bias)?)
            }
            Some(false) | None => None,
        };
        Ok(Embeddings { token_dropout, norm, ..Embeddings::words(words) })
    }

    fn load_layer(
        &self,
        loader: &mut CheckpointLoader,
        index: usize,
        rotary: Arc<RotaryTable>,
    ) -> Result<Box<dyn Layer>> {
        let (hidden, intermediate) = (self.hidden_size, self.intermediate_size);
        let prefix = LayerPrefix { base_model: BASE_MODEL_PREFIX, layers: "encoder.layer" };
        let parts = [
            LayerPart::norm(Module::AttentionNorm, "attention.LayerNorm", hidden),
            LayerPart::linear(Module::Query, "attention.self.query", [hidden, hidden]),
            LayerPart::linear(Module::Key, "attention.self.key", [hidden, hidden]),
            LayerPart::linear(Module::Value, "attention.self.value", [hidden, hidden]),
            LayerPart::linear(Module::AttentionOutput, "attention.output.dense", [hidden, hidden]),
            LayerPart::norm(Module::FeedForwardNorm, "LayerNorm", hidden),
            LayerPart::linear(Module::FeedForwardIn, "intermediate.dense", [hidden, intermediate]),
            LayerPart::linear(Module::FeedForwardOut, "output.dense", [intermediate, hidden]),
        ];
        let weights = LayerWeights::load(loader, prefix, index, &parts)?;
        let attention = SelfAttention { heads: self.num_attention_heads, rotary: Some(rotary), mask: None };
        Ok(Box::new(PreNormLayer { weights, attention, activation: Activation::Gelu, qk_norms: None }))
    }
}

const BASE_MODEL_PREFIX: &str = "esm";

fn load(config: Value, weights: &mut CheckpointTensors, backend: &dyn Backend) -> Result<LoadedArchitecture> {
    let config: Config = config_checks::parse_config(config)?;
    config.check()?;
    let (hidden, heads) = (config.hidden_size, config.num_attention_heads);
    let frequencies = rotary::inverse_frequencies(config.rope_theta, hidden / heads);
    let rotary = Arc::new(RotaryTable::new(backend, config.max_position_embeddings, &frequencies, 1.0)?);
    let mut loader = CheckpointLoader::new(weights, backend, config.layer_norm_eps);
    let embeddings = config.load_embeddings(&mut loader)?;
    let layers = (0..config.num_hidden_layers)
        .map(|index| config.load_layer(&mut loader, index, Arc::clone(&rotary)))
        .collect::<Result<_>>()?;
    let final_norm = FinalNorm {
        norm: loader.norm("encoder.emb_layer_norm_after", hidden, BiasPresence::Present)?,
        module_path: "esm.encoder.emb_layer_norm_after".to_string(),
    };
    let dimensions = ModelDimensions {
        hidden_size: hidden,
        attention_heads: heads,
        vocabulary_size: config.vocab_size,
        max_tokens: config.max_position_embeddings,
    };
    let pooler = loader.pooler(BASE_MODEL_PREFIX, hidden)?;
    let stack = Stack { dimensions, embeddings, layers, final_norm: Some(final_norm), pooler, decoder: None };
    LoadedArchitecture::new(stack, &config)
}
