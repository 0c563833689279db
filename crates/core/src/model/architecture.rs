//! What a base model must be able to do, and the table of those that can be loaded, by `model_type` of `config.json`.
//!
//! Knows nothing of tokenizers, pooling or adapters' insides.

use super::architectures::{bert, distilbert, esm, gpt2, llama, modernbert, mpnet, roberta};
use super::classification_head::ClassificationHeadSpec;
use super::hooked_ops::HookedNorm;
use super::loader::WeightLayout;
use super::weights::CheckpointTensors;
use super::{Batch, Hooks, RequiredRows, Site, SiteInfo};
use crate::error::{Context, Error, Result};
use espalier_tensor::backend::FrozenLinear;
use espalier_tensor::{Backend, Buffer, Tape, Tensor, Var, kv_cache};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::ops::Range;
use std::sync::Arc;

/// How large a base model is.
#[derive(Debug, Clone, Copy)]
pub struct ModelDimensions {
    pub hidden_size: usize,
    pub layers: usize,
    pub attention_heads: usize,
    pub vocabulary_size: usize,
    /// Tokens in the longest sequence that it can read.
    pub max_tokens: usize,
}

/// A transformer, written once, forward only, against the tape. It knows an adapter only as [`Hooks`].
///
/// # Errors
/// Every function: only what the device reports, but where it says so.
pub trait Architecture: Send + Sync {
    fn dimensions(&self) -> ModelDimensions;

    /// What goes into the first layer `(tokens, hidden)`.
    fn forward_embeddings(&self, tape: &mut Tape, batch: &Batch, hooks: &dyn Hooks) -> Result<Var>;

    /// Rows of the word embeddings `(ids, hidden)`.
    fn embedding_rows(&self, backend: &dyn Backend, ids: &[u32]) -> Result<Buffer>;

    /// The word embeddings as a linear map to the vocabulary, where they are that without a copy.
    fn tied_lm_head(&self, _kernels: &dyn Backend, _bias: Option<Tensor>) -> Result<Option<FrozenLinear>> {
        Ok(None)
    }

    /// Some neighbouring layers: `(tokens, hidden)` → `(tokens, hidden)`, or after the last layer, where no others are
    /// wanted, that of the first or the last tokens alone, `(sequences, hidden)`.
    fn forward_layers(
        &self,
        tape: &mut Tape,
        hidden: Var,
        range: Range<usize>,
        hooks: &dyn Hooks,
        required_rows: RequiredRows,
    ) -> Result<Var>;

    /// Whether a row knows only what came before it: a decoder.
    fn is_causal(&self) -> bool {
        false
    }

    /// What is remembered of a row, where sequences can be continued.
    fn kv_cache_shape(&self) -> Option<kv_cache::KvCacheShape> {
        None
    }

    /// Whether the checkpoint has BERT's pooler.
    fn has_pooler(&self) -> bool;

    /// The first token of each sequence through the pooler: `(sequences, hidden)`.
    ///
    /// # Errors
    /// `Invalid` (`no_pooler`) where there is none.
    fn forward_pooler(&self, tape: &mut Tape, hidden: Var, hooks: &dyn Hooks) -> Result<Var>;

    /// Every linear map and norm of the layers, those before and after them last.
    fn sites(&self) -> Vec<SiteInfo>;

    /// Every frozen tensor on the device.
    fn buffers(&self) -> Vec<&Buffer>;

    /// The frozen linear map at a site.
    fn linear_at(&self, site: Site) -> Option<&Arc<FrozenLinear>>;

    /// The frozen norm at a site.
    fn norm_at(&self, site: Site) -> Option<&HookedNorm>;
}

/// An architecture, and the fields of its config that change arithmetic.
pub struct LoadedArchitecture {
    pub architecture: Box<dyn Architecture>,
    pub config: Value,
}

impl LoadedArchitecture {
    pub fn new(architecture: impl Architecture + 'static, config: &impl Serialize) -> Result<Self> {
        let config = serde_json::to_value(config).context("writing the config down")?;
        Ok(Self { architecture: Box::new(architecture), config })
    }
}

/// A row of the table.
pub struct ArchitectureEntry {
    pub model_type: &'static str,
    pub classification_head: ClassificationHeadSpec,
    /// How its checkpoints keep linear maps.
    pub weight_layout: WeightLayout,
    /// Our name for a checkpoint's tensor, `None` for heads and buffers.
    pub canonical_name: fn(&str) -> Option<String>,
    pub load: fn(Value, &mut CheckpointTensors, &dyn Backend) -> Result<LoadedArchitecture>,
}

const fn entry(
    model_type: &'static str,
    classification_head: ClassificationHeadSpec,
    canonical_name: fn(&str) -> Option<String>,
    load: fn(Value, &mut CheckpointTensors, &dyn Backend) -> Result<LoadedArchitecture>,
) -> ArchitectureEntry {
    ArchitectureEntry {
        model_type,
        classification_head,
        weight_layout: WeightLayout::OutputInput,
        canonical_name,
        load,
    }
}

const ARCHITECTURES: [ArchitectureEntry; 13] = [
    entry("bert", ClassificationHeadSpec::BERT, bert::canonical_name, bert::load),
    entry("roberta", ClassificationHeadSpec::ROBERTA, roberta::canonical_name, roberta::load),
    entry("xlm-roberta", ClassificationHeadSpec::ROBERTA, roberta::canonical_name, roberta::load),
    entry("camembert", ClassificationHeadSpec::ROBERTA, roberta::canonical_name, roberta::load),
    entry("distilbert", ClassificationHeadSpec::DISTILBERT, distilbert::canonical_name, distilbert::load),
    entry("esm", ClassificationHeadSpec::ROBERTA, esm::canonical_name, esm::load),
    entry("modernbert", ClassificationHeadSpec::BERT, modernbert::canonical_name, modernbert::load),
    entry("mpnet", ClassificationHeadSpec::ROBERTA, mpnet::canonical_name, mpnet::load),
    entry("llama", ClassificationHeadSpec::DECODER, llama::canonical_name, llama::load),
    entry("mistral", ClassificationHeadSpec::DECODER, llama::canonical_name, llama::load),
    entry("qwen2", ClassificationHeadSpec::DECODER, llama::canonical_name, llama::load),
    entry("qwen3", ClassificationHeadSpec::DECODER, llama::canonical_name, llama::load),
    ArchitectureEntry {
        weight_layout: WeightLayout::InputOutput,
        ..entry("gpt2", ClassificationHeadSpec::DECODER, gpt2::canonical_name, gpt2::load)
    },
];

/// The `model_type`s that can be loaded.
pub const SUPPORTED_MODEL_TYPES: [&str; ARCHITECTURES.len()] = {
    let mut names = [""; ARCHITECTURES.len()];
    let mut index = 0;
    while index < names.len() {
        names[index] = ARCHITECTURES[index].model_type;
        index += 1;
    }
    names
};

/// The row of the table for a `model_type`.
pub fn find_entry(model_type: &str) -> Option<&'static ArchitectureEntry> {
    ARCHITECTURES.iter().find(|family| family.model_type == model_type)
}

/// The row of the table for a `config.json`.
///
/// # Errors
/// `Invalid` (`unsupported_model`) where there is none, with those that there are, or the model is a decoder.
pub fn entry_for_config(config: &Value) -> Result<&'static ArchitectureEntry> {
    let model_type = config["model_type"].as_str().unwrap_or_default();
    let Some(entry) = find_entry(model_type) else {
        let supported = SUPPORTED_MODEL_TYPES.join(", ");
        return unsupported_model(format!("model_type \"{model_type}\" is not supported; supported are: {supported}"));
    };
    if config["is_decoder"].as_bool() == Some(true) {
        return unsupported_model(format!("is_decoder is not supported for {model_type}: only encoders are"));
    }
    Ok(entry)
}

/// Reads the fields that an architecture knows.
pub fn parse_config<T: DeserializeOwned>(config: Value) -> Result<T> {
    serde_json::from_value(config)
        .map_err(|error| Error::invalid("base_model_damaged", format!("config.json of the base model: {error}")))
}

/// # Errors
/// `Invalid` (`unsupported_model`), always.
pub fn unsupported_model<T>(detail: String) -> Result<T> {
    Err(Error::invalid("unsupported_model", detail))
}

/// Refuses a field of `config.json` that is not the one value that is computed.
///
/// # Errors
/// `Invalid` (`unsupported_model`) naming the field.
pub fn require_value(model_type: &str, field: &str, value: &str, supported: &str) -> Result<()> {
    if value == supported {
        return Ok(());
    }
    unsupported_model(format!("{field} \"{value}\" is not supported for {model_type}: only \"{supported}\" is"))
}

/// Refuses heads whose numbers do not come in pairs, which rotary positions turn.
///
/// # Errors
/// `Invalid` (`unsupported_model`) naming the fields.
pub fn require_even_head_dim(hidden_size: usize, heads: usize) -> Result<()> {
    require_divisible_by_heads(hidden_size, heads)?;
    if (hidden_size / heads).is_multiple_of(2) {
        return Ok(());
    }
    unsupported_model("hidden_size must be an even multiple of num_attention_heads".to_string())
}

/// Refuses heads that do not fill the width.
///
/// # Errors
/// `Invalid` (`unsupported_model`) naming the fields.
pub fn require_divisible_by_heads(hidden_size: usize, heads: usize) -> Result<()> {
    if heads > 0 && hidden_size.is_multiple_of(heads) {
        return Ok(());
    }
    unsupported_model("hidden_size must be a multiple of num_attention_heads".to_string())
}
