//! BERT (Devlin et al. 2018): absolute positions, token types, post-norm layers and a tanh pooler.

use super::layers::{self, LayerTensorNames, PostNormConfig};
use crate::error::Result;
use crate::model::architectures::{ArchitectureEntry, LoadedArchitecture};
use crate::model::classification_head::ClassificationHeadSpec;
use crate::model::config_checks;
use crate::model::embeddings::{EmbeddingNorm, Embeddings, PositionEmbeddings, TokenTypes};
use crate::model::layer_weights::LayerPrefix;
use crate::model::lm_head::{LmHeadTensorNames, TransformNames};
use crate::model::loader::{self, BiasPresence, CheckpointLoader, WeightLayout};
use crate::model::stack::{ModelDimensions, Stack};
use crate::model::weights::CheckpointTensors;
use espalier_tensor::Backend;
use espalier_tensor::backend::FrozenEmbedding;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub const ENTRY: ArchitectureEntry = ArchitectureEntry {
    model_type: "bert",
    classification_head: ClassificationHeadSpec::BERT,
    lm_head: LmHeadTensorNames {
        transform: Some(TransformNames {
            dense: "cls.predictions.transform.dense",
            norm: "cls.predictions.transform.LayerNorm",
        }),
        bias: &["cls.predictions.bias", "cls.predictions.decoder.bias"],
        decoder: "cls.predictions.decoder.weight",
    },
    word_embeddings_path: "bert.embeddings.word_embeddings",
    weight_layout: WeightLayout::OutputInput,
    canonical_name: |name| loader::strip_model_prefix(name, "bert.", &ENCODER_PREFIXES),
    load,
};

/// Fields of `config.json` that change the results, of BERT and RoBERTa. They enter the fingerprint of the base model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    pub hidden_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub intermediate_size: usize,
    pub vocab_size: usize,
    pub max_position_embeddings: usize,
    pub type_vocab_size: usize,
    #[serde(default = "config_checks::default_layer_norm_eps")]
    pub layer_norm_eps: f64,
    #[serde(default = "config_checks::default_activation")]
    pub hidden_act: String,
    #[serde(default = "config_checks::default_position_embedding_type")]
    pub position_embedding_type: String,
}

/// Prefixes of the tensor names of the encoder.
pub const ENCODER_PREFIXES: [&str; 3] = ["embeddings.", "encoder.", "pooler."];

const LAYER_TENSOR_NAMES: LayerTensorNames = LayerTensorNames {
    query: "attention.self.query",
    key: "attention.self.key",
    value: "attention.self.value",
    attention_output: "attention.output.dense",
    attention_norm: "attention.output.LayerNorm",
    feed_forward_in: "intermediate.dense",
    feed_forward_out: "output.dense",
    feed_forward_norm: "output.LayerNorm",
};

fn load(config: Value, weights: &mut CheckpointTensors, backend: &dyn Backend) -> Result<LoadedArchitecture> {
    let config: Config = config_checks::parse_config(config)?;
    config.check("bert")?;
    let mut loader = CheckpointLoader::new(weights, backend, config.layer_norm_eps);
    // With one type, all tokens have it, whatever the tokenizer returns for pairs.
    let types = if config.type_vocab_size == 1 { TokenTypes::AlwaysZero } else { TokenTypes::PerToken };
    let stack = config.load_stack(&mut loader, "bert", 0, types)?;
    LoadedArchitecture::new(stack, &config)
}

impl Config {
    /// # Errors
    /// `Invalid` (`unsupported_model`) for a field with an unsupported value.
    pub fn check(&self, model_type: &str) -> Result<()> {
        config_checks::require_value(model_type, "hidden_act", &self.hidden_act, "gelu")?;
        let position_type = &self.position_embedding_type;
        config_checks::require_value(model_type, "position_embedding_type", position_type, "absolute")?;
        let fields = ["hidden_size", "num_attention_heads"];
        config_checks::require_divisible_by_heads(fields, self.hidden_size, self.num_attention_heads)
    }

    /// Loads the whole encoder. The position table begins with `position_offset` rows for padding.
    pub fn load_stack(
        &self,
        loader: &mut CheckpointLoader,
        base_model: &'static str,
        position_offset: u32,
        token_types: impl FnOnce(FrozenEmbedding) -> TokenTypes,
    ) -> Result<Stack> {
        let (hidden, max_positions) = (self.hidden_size, self.max_position_embeddings);
        let embeddings = Embeddings {
            words: loader.embedding("embeddings.word_embeddings", self.vocab_size, hidden)?,
            positions: Some(PositionEmbeddings {
                table: loader.embedding("embeddings.position_embeddings", max_positions, hidden)?,
                offset: position_offset,
            }),
            token_types: token_types(loader.embedding(
                "embeddings.token_type_embeddings",
                self.type_vocab_size,
                hidden,
            )?),
            token_dropout: None,
            norm: Some(EmbeddingNorm::load(loader, base_model, "embeddings.LayerNorm", hidden, BiasPresence::Present)?),
        };
        let prefix = LayerPrefix { base_model, layers: "encoder.layer" };
        let layer_config = PostNormConfig {
            hidden_size: hidden,
            intermediate_size: self.intermediate_size,
            heads: self.num_attention_heads,
            mask: None,
        };
        let layers = layers::load_layers(loader, prefix, &LAYER_TENSOR_NAMES, &layer_config, self.num_hidden_layers)?;
        let dimensions = ModelDimensions {
            hidden_size: hidden,
            attention_heads: self.num_attention_heads,
            vocabulary_size: self.vocab_size,
            max_tokens: max_positions - position_offset as usize,
        };
        let pooler = loader.pooler(base_model, hidden)?;
        Ok(Stack { dimensions, embeddings, layers, final_norm: None, pooler, decoder: None })
    }
}
