//! RoBERTa (Liu et al. 2019), XLM-RoBERTa and CamemBERT: BERT with padding rows at the start of the position table and one token
//! type.

use super::bert;
use crate::error::Result;
use crate::model::architectures::{ArchitectureEntry, LoadedArchitecture};
use crate::model::classification_head::ClassificationHeadSpec;
use crate::model::config_checks;
use crate::model::embeddings::TokenTypes;
use crate::model::lm_head::{LmHeadTensorNames, TransformNames};
use crate::model::loader::{self, CheckpointLoader, WeightLayout};
use crate::model::weights::CheckpointTensors;
use espalier_tensor::Backend;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub const ROBERTA: ArchitectureEntry = ArchitectureEntry {
    model_type: "roberta",
    classification_head: ClassificationHeadSpec::ROBERTA,
    lm_head: LM_HEAD,
    word_embeddings_path: "roberta.embeddings.word_embeddings",
    weight_layout: WeightLayout::OutputInput,
    canonical_name: |name| loader::strip_model_prefix(name, "roberta.", &bert::ENCODER_PREFIXES),
    load,
};

pub const XLM_ROBERTA: ArchitectureEntry = ArchitectureEntry { model_type: "xlm-roberta", ..ROBERTA };

pub const CAMEMBERT: ArchitectureEntry = ArchitectureEntry { model_type: "camembert", ..ROBERTA };

/// Tensor names of the masked language model's head, also of ESM-2 and MPNet.
pub const LM_HEAD: LmHeadTensorNames = LmHeadTensorNames {
    transform: Some(TransformNames { dense: "lm_head.dense", norm: "lm_head.layer_norm" }),
    bias: &["lm_head.bias", "lm_head.decoder.bias"],
    decoder: "lm_head.decoder.weight",
};

/// Fields of `config.json` that change the results.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Config {
    #[serde(flatten)]
    bert: bert::Config,
    /// The first token has the position after this one.
    #[serde(default = "default_pad_token_id")]
    pad_token_id: u32,
}

fn default_pad_token_id() -> u32 {
    1
}

fn load(config: Value, weights: &mut CheckpointTensors, backend: &dyn Backend) -> Result<LoadedArchitecture> {
    let model_type = config["model_type"].as_str().unwrap_or_default().to_string();
    let config: Config = config_checks::parse_config(config)?;
    let position_offset = config.pad_token_id + 1;
    config.bert.check(&model_type)?;
    if position_offset as usize >= config.bert.max_position_embeddings {
        return config_checks::unsupported_model("pad_token_id must be below max_position_embeddings");
    }
    let mut loader = CheckpointLoader::new(weights, backend, config.bert.layer_norm_eps);
    let stack = config.bert.load_stack(&mut loader, "roberta", position_offset, TokenTypes::AlwaysZero)?;
    LoadedArchitecture::new(stack, &config)
}
