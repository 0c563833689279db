//! RoBERTa (Liu et al. 2019), and XLM-RoBERTa and CamemBERT, which differ from it by their vocabulary: BERT whose table of
//! positions begins with rows for padding, and whose tokens are all of one type.

use super::bert;
use crate::error::Result;
use crate::model::architecture::{self, LoadedArchitecture};
use crate::model::embeddings::{Embeddings, TokenTypes};
use crate::model::loader::{self, CheckpointLoader};
use crate::model::weights::CheckpointTensors;
use espalier_tensor::Backend;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The fields of `config.json` that change arithmetic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Config {
    #[serde(flatten)]
    bert: bert::Config,
    /// The first token of a sequence is at the position after this.
    #[serde(default = "default_pad_token_id")]
    pad_token_id: u32,
}

fn default_pad_token_id() -> u32 {
    1
}

/// Our name for a checkpoint's tensor: without the `roberta.` prefix, `None` for heads and buffers.
pub fn canonical_name(name: &str) -> Option<String> {
    loader::strip_model_prefix(name, "roberta.", &bert::ENCODER_PREFIXES)
}

pub fn load(config: Value, weights: &mut CheckpointTensors, backend: &dyn Backend) -> Result<LoadedArchitecture> {
    let model_type = config["model_type"].as_str().unwrap_or_default().to_string();
    let config: Config = architecture::parse_config(config)?;
    let (bert_config, position_offset) = (&config.bert, config.pad_token_id + 1);
    bert_config.check(&model_type)?;
    if position_offset as usize >= bert_config.max_position_embeddings {
        return architecture::unsupported_model("pad_token_id must be below max_position_embeddings".to_string());
    }
    let hidden = bert_config.hidden_size;
    let mut loader = CheckpointLoader::new(weights, backend, bert_config.layer_norm_eps);
    let embeddings = Embeddings {
        word_embeddings: loader.embedding("embeddings.word_embeddings", bert_config.vocab_size, hidden)?,
        position_embeddings: loader.embedding(
            "embeddings.position_embeddings",
            bert_config.max_position_embeddings,
            hidden,
        )?,
        position_offset,
        token_types: TokenTypes::AlwaysZero(loader.embedding(
            "embeddings.token_type_embeddings",
            bert_config.type_vocab_size,
            hidden,
        )?),
        norm: loader.norm("embeddings.LayerNorm", hidden)?,
    };
    let encoder = bert::build_encoder(&mut loader, bert_config, "roberta", embeddings)?;
    LoadedArchitecture::new(encoder, &config)
}
