//! RoBERTa (Liu et al. 2019), and XLM-RoBERTa and CamemBERT, which differ from it by their vocabulary: BERT whose table of
//! positions begins with rows for padding, and whose tokens are all of one type.

use super::architecture::{self, Loaded};
use super::embeddings::{Embeddings, Types};
use super::loader::{self, Loader};
use super::{bert, weights::Weights};
use crate::error::Result;
use espalier_tensor::Kernels;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The fields of `config.json` that change arithmetic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Config {
    #[serde(flatten)]
    shape: bert::Config,
    /// The first token of a sequence is at the position after this.
    #[serde(default = "default_padding")]
    pad_token_id: u32,
}

fn default_padding() -> u32 {
    1
}

/// Our name for a checkpoint's tensor: without the `roberta.` prefix, `None` for heads and buffers.
pub fn canonical(name: &str) -> Option<String> {
    loader::behind(name, "roberta.", &bert::STARTS)
}

pub fn load(config: Value, weights: &mut Weights, kernels: &dyn Kernels) -> Result<Loaded> {
    let model_type = config["model_type"].as_str().unwrap_or_default().to_string();
    let config: Config = architecture::read(config)?;
    let (shape, first) = (&config.shape, config.pad_token_id + 1);
    shape.check(&model_type)?;
    if first as usize >= shape.max_position_embeddings {
        return architecture::unsupported("pad_token_id must be below max_position_embeddings".to_string());
    }
    let hidden = shape.hidden_size;
    let mut loader = Loader::new(weights, kernels, shape.layer_norm_eps);
    let embeddings = Embeddings {
        word: loader.table("embeddings.word_embeddings", shape.vocab_size, hidden)?,
        position: loader.table("embeddings.position_embeddings", shape.max_position_embeddings, hidden)?,
        first,
        types: Types::First(loader.table("embeddings.token_type_embeddings", shape.type_vocab_size, hidden)?),
        norm: loader.norm("embeddings.LayerNorm", hidden)?,
    };
    let encoder = bert::assemble(&mut loader, shape, "roberta", embeddings)?;
    Loaded::new(encoder, &config)
}
